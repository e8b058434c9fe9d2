"""A picture as a Gaussian process on its grid of pixels: fitted, sampled, and done densely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = [
    "LINES",
    "SCATTERED",
    "SEEN",
    "SMOOTHNESS",
    "Dense",
    "Fit",
    "Model",
    "damage",
    "deviations",
    "evidence",
    "fit",
    "matern",
    "posterior_variance",
]

SMOOTHNESS = {"1/2": 0.5, "3/2": 1.5}
# What a pixel is after the damage.
SEEN, SCATTERED, LINES = range(3)
_WORD = (
    "#   #              #        #    ",
    "#                  #        #    ",
    "#   #  # ##   ##   #   ###  #  # ",
    "#   #  ##  #    #  #  #  #  # #  ",
    "#   #  #   #  ###  #  #  #  ##   ",
    "#   #  #   # #  #  #   ###  # #  ",
    "##  #  #   #  ###  ##    #  #  # ",
    "                       ##        ",
)
# Where the search begins (lengths in pixels, noise by variance), and by what it proceeds.
_START = (8.0, 8.0, 0.25)
_FACTORS = (2.0, 2**0.5)
_MOVES = 8


# --- the picture ---------------------------------------------------------------------------------


def damage(shape: tuple[int, int], share: float, rng: Any) -> Array:
    """What becomes of each pixel: some are lost one by one, others to a word and a scratch.

    Parameters
    ----------
    shape : (int, int)
    share : float
        Of pixels that are lost by chance.
    rng : numpy.random.Generator

    Returns
    -------
    array of int, `shape`
        ``SEEN``, ``SCATTERED`` or ``LINES``.
    """
    rows, columns = shape
    found = np.where(rng.random(shape) < share, SCATTERED, SEEN)
    word = np.array([[letter == "#" for letter in row] for row in _WORD])
    scale = max(1, min(int(0.35 * rows) // word.shape[0], int(0.85 * columns) // word.shape[1]))
    word = word.repeat(scale, axis=0).repeat(scale, axis=1)
    top, left = int(0.6 * rows), (columns - word.shape[1]) // 2
    found[top : top + word.shape[0], left : left + word.shape[1]][word] = LINES
    y, x = np.indices(shape)
    along = x / columns
    off = np.abs(y - rows * (0.45 - 0.35 * along)) / rows
    found[(off < 0.01) & (along > 0.1) & (along < 0.9)] = LINES
    return found


# --- the process ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A picture of covariance ``variance * k(rows) kron k(columns)``, and white noise on it."""

    smoothness: str
    lengths: tuple[float, float]  # in pixels, down and across
    variance: float
    noise: float  # variance as well
    evidence: float  # logarithm of the marginal likelihood

    def factors(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """The covariance between rows and that between columns of a picture of this shape."""
        down, across = (
            matern(n, (length,), self.smoothness)[0]
            for n, length in zip(shape, self.lengths, strict=True)
        )
        return self.variance * down, across


@dataclass(frozen=True)
class Fit:
    """The best model of each smoothness, the best one first, and what finding them took."""

    models: list[Model]
    likelihoods: int
    eigendecompositions: int


def matern(n: int, lengths: Any, smoothness: str) -> Array:
    """Correlations of n points in a row, a matrix for each length: (lengths, n, n)."""
    points = np.arange(n)
    off = np.abs(np.subtract.outer(points, points)) / np.asarray(lengths)[:, None, None]
    scaled = np.sqrt(2 * SMOOTHNESS[smoothness]) * off
    near = np.exp(-scaled)
    return np.asarray(near if smoothness == "1/2" else (1 + scaled) * near)


def evidence(y: Array, pairs: Any, ratio: float) -> tuple[Array, Array]:
    """The logarithm of the marginal likelihood of correlations, each at its best variance.

    ``-N/2 (log(2 pi v) + 1) - logdet(K + ratio) / 2`` with ``v = y^T (K + ratio)^-1 y / N``, which
    is the most likely variance where the noise is ``ratio`` times as much.

    Parameters
    ----------
    y : array, shape (m, n)
    pairs : lk.Kron
        Of batch shape (...).
    ratio : float

    Returns
    -------
    evidence, variance : array, shape (...)
    """
    flat, n = y.ravel(), y.size
    variance = pairs.solve(flat, shift=ratio) @ flat / n
    logdet = pairs.slogdet(shift=ratio).logabsdet
    return -0.5 * (n * (np.log(2 * np.pi * variance) + 1) + logdet), variance


def fit(y: Array) -> Fit:
    """The most likely model of a noisy picture without mean, for each smoothness.

    A step looks at the neighbours of the best parameters so far, a factor away in each; the factor
    shrinks where none is better.
    """
    models, likelihoods, eigendecompositions = [], 0, 0
    for smoothness in SMOOTHNESS:
        best, at, found = None, _START, _START
        for factor in _FACTORS:
            for _ in range(_MOVES):
                at = found
                around = [(x / factor, x, x * factor) for x in at]
                # each factor once, for all pairs and all shifts
                down, across = (
                    matern(n, x, smoothness) for n, x in zip(y.shape, around[:2], strict=True)
                )
                pairs = lk.Kron([down[:, None], across[None, :]], assume_a="pos")
                eigendecompositions += len(down) + len(across)
                for ratio in around[2]:
                    values, variances = evidence(y, pairs, ratio)
                    likelihoods += values.size
                    i, j = np.unravel_index(values.argmax(), values.shape)
                    if best is None or values[i, j] > best.evidence:
                        found = (around[0][i], around[1][j], ratio)
                        v = float(variances[i, j])
                        best = Model(smoothness, found[:2], v, v * ratio, float(values[i, j]))
                if found == at:
                    break
        assert best is not None
        models.append(best)
    models.sort(key=lambda model: -model.evidence)
    return Fit(models, likelihoods, eigendecompositions)


def posterior_variance(model: Model, shape: tuple[int, int]) -> Array:
    """Of each pixel, given all pixels with noise.

    The diagonal of ``s - s^2 (K + s)^-1``: a Kronecker product of squared eigenvectors.
    """
    (w1, v1), (w2, v2) = (np.linalg.eigh(k) for k in model.factors(shape))
    s = model.noise
    inverse = 1 / (np.outer(w1, w2) + s)
    found = lk.kron_matmul([v1**2, v2**2], inverse.ravel()).reshape(shape)
    return np.asarray(s - s**2 * found)


def deviations(kernel: Any, noise: float, seen: Array, count: int, tol: float, rng: Any) -> Array:
    """Errors that the restored picture may have, drawn from their law.

    A picture and its noise are drawn, and the picture restored from what is seen of both
    (Matheron's rule): what it misses then has the covariance of the true picture given the data.

    Parameters
    ----------
    kernel : lk.Kron
        Covariance of the pixels.
    noise : float
        Variance.
    seen : array of bool, shape (m, n)
    count : int
    tol : float
        Of the solutions.
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (count, m, n)
    """
    picture = kernel.cholesky() @ rng.standard_normal((seen.size, count))
    noisy = picture + np.sqrt(noise) * rng.standard_normal(picture.shape)
    part = kernel.masked(seen)
    weights = part.solve(part.restrict(noisy), shift=noise, tol=tol)
    missed = picture - kernel @ part.embed(weights)
    return np.asarray(missed.T.reshape(count, *seen.shape))


# --- the same by dense matrices ------------------------------------------------------------------


class Dense:
    """A small picture's process by its covariance matrix as a whole.

    Parameters
    ----------
    model : Model
    seen : array of bool, shape (m, n)

    Attributes
    ----------
    logdet : float
        Of the covariance of what is seen, with noise.
    """

    def __init__(self, model: Model, seen: Array) -> None:
        from scipy.linalg import cho_factor

        self._all = np.kron(*model.factors((seen.shape[0], seen.shape[1])))
        self._mask, self._shape = seen.ravel(), seen.shape
        part = self._all[np.ix_(self._mask, self._mask)]
        part.flat[:: len(part) + 1] += model.noise
        self._factor = cho_factor(part, lower=True, overwrite_a=True, check_finite=False)
        self.logdet = 2 * float(np.log(np.diag(self._factor[0])).sum())

    def weights(self, y: Array) -> Array:
        """``(K + s)^-1 y`` on what is seen."""
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve(self._factor, y))

    def mean(self, y: Array) -> Array:
        """The restored picture."""
        return np.asarray((self._all[:, self._mask] @ self.weights(y)).reshape(self._shape))

    def variance(self) -> Array:
        """Of each pixel, given what is seen."""
        cross = self._all[:, self._mask]
        told = np.einsum("ij,ji->i", cross, self.weights(cross.T))
        return np.asarray((np.diag(self._all) - told).reshape(self._shape))
