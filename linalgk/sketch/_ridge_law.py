"""The ridge that a sketch implies: the laws of sketches, and the equation they enter."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk.sketch._dense import Gaussian, Rademacher
from linalgk.sketch._stack import CountSketch, SparseStack
from linalgk.sketch._trig import SRCT, SRHT

FAMILIES: dict[str, Any] = {
    kind.__name__: kind for kind in (SparseStack, CountSketch, Gaussian, Rademacher, SRHT, SRCT)
}
# With so many nonzeros in a column entries count as independent.
_MANY = 8


class Measured(NamedTuple):
    """Means over an ensemble, NumPy: (B, 1) and (B, L)."""

    df: Any
    inverse: Any  # sum of unit / (s^2 + alpha) over the singular values that are kept
    rank: Any
    unit: Any
    alphas: Any


class Directions:
    """k rows that are random directions of a space of dimension ``size``.

    For free matrices the S-transform of ``S^T S`` is ``(1 + w N'/N) / (1 + w n/k)``.
    """

    def __init__(self, k: int, size: float) -> None:
        self.most = self._k = k
        self._size = size

    def ratio(self, df: float) -> float:
        """Implied ridge by ridge, from the degrees of freedom."""
        return 1.0 if self._size == self._k else (1 - df / self._size) / (1 - df / self._k)

    def implied(self, x: Measured) -> Any:
        """The same from measurements."""
        # (1 - df / k) / alpha is the mean of 1 / (s^2 + alpha), also for an alpha of zero
        mean = _mean_inverse(x, _rows(x, self._k, 1.0))
        return x.unit * (1 - x.df / self._size) / np.where(mean > 0, mean, math.nan)


class Buckets:
    """A stack of few blocks, where it matters how many columns share a row.

    Each block has rows of squared length N / nnz, N binomial; blocks are free of each other, so
    that each has the same share of the degrees of freedom.
    """

    def __init__(self, k: int, n: int, nnz: int) -> None:
        from scipy.stats import binom

        self._k, self._n, self._nnz = k, n, nnz
        spread = binom(n, nnz / k)
        counts = np.arange(max(1, spread.ppf(1e-15)), max(1, spread.isf(1e-15)) + 1)
        self._empty = float(spread.pmf(0))
        weights = spread.pmf(counts)
        self._weights, self._lengths = weights / weights.sum(), counts / nnz
        self.most = k * (1 - self._empty)

    def _mean(self, gamma: float) -> float:
        """E 1 / (length + gamma) over the rows that are not empty."""
        return float(self._weights @ (1 / (self._lengths + gamma)))

    def _gamma(self, left: float) -> float:
        """Where ``gamma E 1 / (length + gamma)`` is that part."""
        from scipy.optimize import brentq

        if left <= 0:
            return 0.0
        top = float(self._lengths[-1]) * left / (1 - left)
        return float(brentq(lambda g: g * self._mean(g) - left, 0.0, 2 * top, rtol=1e-13))

    def ratio(self, df: float) -> float:
        """Implied ridge by ridge, from the degrees of freedom."""
        gamma = self._gamma(1 - df / self.most)
        most = 1 - df / (self._n * self._nnz)
        return most * self._n / (df * gamma) if gamma > 0 and df > 0 else math.inf

    def implied(self, x: Measured) -> Any:
        """The same from measurements."""
        mean = _mean_inverse(x, _rows(x, self.most, 1 + 4 * math.sqrt(self._k * self._empty)))
        with np.errstate(invalid="ignore", divide="ignore"):
            left = np.where(x.alphas == 0, 0.0, x.alphas * mean / x.unit)
            known = (left >= 0) & (left < 1)
            spread = [self._mean(self._gamma(v)) for v in np.where(known, left, 0.0).ravel()]
            factor = (1 - x.df / (self._n * self._nnz)) * self._n / x.df
            mu = x.unit * factor * np.reshape(spread, left.shape) / mean
        return np.where(known, mu, math.nan)


def _rows(x: Measured, most: float, slack: float) -> Any:
    """Rows that count: as many as were seen if these are all but by chance, else as expected."""
    return np.where(abs(x.rank - most) < slack, x.rank, most)


def _mean_inverse(x: Measured, rows: Any) -> Any:
    """Of ``unit / (s^2 + alpha)``, where s is zero for rows that the data leave unused."""
    unused = x.unit * np.maximum(rows - x.rank, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x.inverse + np.where(unused == 0, 0.0, unused / x.alphas)) / np.maximum(rows, 1)


def law_of(s: Any, n: int) -> Directions | Buckets | None:
    """The law of a sketch of n columns, if it is known."""
    k = int(s.shape[0])
    if isinstance(s, SRCT):
        return Directions(k, n)
    if isinstance(s, SRHT):
        return Directions(k, -(-n // s.block) * s.block)
    if isinstance(s, SparseStack) and s.nnz < _MANY and k > s.nnz:
        return Buckets(k, n, s.nnz)
    known = isinstance(s, SparseStack | Gaussian | Rademacher)
    return Directions(k, math.inf) if known else None


def root(law: Directions | Buckets, squares: Any, alpha: float) -> float:
    """The largest mu with ``mu = alpha ratio(df(mu))``, for an alpha that is not negative."""
    from scipy.optimize import brentq

    def df(mu: float) -> float:
        return float((squares / (squares + mu)).sum())

    low, total = 0.0, float(squares.sum())
    if len(squares) > law.most:
        # below, the sketch would have to have more degrees of freedom than rows
        low = brentq(lambda mu: df(mu) - law.most, 0.0, total / law.most, xtol=1e-300, rtol=1e-14)
    if alpha == 0 or not len(squares):
        return low if alpha == 0 else alpha
    high = 2 * (alpha + total / law.most) + low

    def miss(mu: float) -> float:
        return mu / law.ratio(df(mu)) - alpha if mu > low else -alpha

    while miss(high) < 0:
        high *= 2
    return float(brentq(miss, low, high, xtol=1e-300, rtol=1e-13))
