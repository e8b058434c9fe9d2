"""The graph of a photograph's pixels: a sparse matrix with a row for every pair of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["Graph", "pixel_graph", "superpixels"]

# Differences of gray levels: from here on pixels belong to other superpixels, edges are weak.
TONE = 20.0

_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
# ends of the edges to the right, and of those down
_FROM = ((_ALL, _FIRST), (_FIRST, _ALL))
_TO = ((_ALL, _LAST), (_LAST, _ALL))


@dataclass(frozen=True)
class Graph:
    """Weighted edges between neighbouring pixels, seen by vectors that are constant on superpixels.

    Attributes
    ----------
    incidence : csr_array, shape (edges, n)
        Row of an edge: the root of its weight at one end, minus that at the other.
    labels : array
        Superpixel of every pixel.
    roots : array, shape (n,)
        Roots of the degrees.
    values, vectors : array
        Eigenvalues and eigenvectors of the normalized Laplacian.
    square : float
        Sum of the squares of the edges' leverage scores.
    """

    incidence: Any
    labels: Array
    roots: Array
    values: Array
    vectors: Array
    square: float

    @property
    def basis(self) -> Array:
        """The matrix that makes the columns of the incidence orthonormal, all but the constant."""
        return _basis(self.roots, self.values, self.vectors)

    def picture(self, vector: Array) -> Array:
        """A vector of the normalized Laplacian as an image."""
        return np.asarray((vector / self.roots)[self.labels])


def pixel_graph(image: Array, *, edge: int) -> Graph:
    """The graph of an image whose superpixels have about ``edge`` times ``edge`` pixels."""
    from scipy.sparse import csr_array

    labels = superpixels(image, edge=edge)
    (gray, p), (other, q) = (
        [np.concatenate([x[first].ravel(), x[second].ravel()]) for x in (image, labels)]
        for first, second in (_FROM, _TO)
    )
    weights = np.exp(-(((gray - other) / TONE) ** 2))
    rows = np.tile(np.arange(len(p)), 2)
    half = np.sqrt(weights)
    incidence = csr_array(
        (np.concatenate([half, -half]), (rows, np.concatenate([p, q]))),
        shape=(len(p), labels.max() + 1),
    )
    incidence.sum_duplicates()
    # within a superpixel the two ends cancel
    incidence.eliminate_zeros()
    laplacian = (incidence.T @ incidence).toarray()
    roots = np.sqrt(laplacian.diagonal())
    values, vectors = np.linalg.eigh(laplacian / roots / roots[:, None])
    basis = _basis(roots, values, vectors)
    inverse = basis @ basis.T
    # leverage of an edge: weight times effective resistance
    diagonal = inverse.diagonal()
    leverage = weights * (diagonal[p] + diagonal[q] - 2 * inverse[p, q])
    return Graph(incidence, labels, roots, values, vectors, float(leverage @ leverage))


def _basis(roots: Array, values: Array, vectors: Array) -> Array:
    # the first eigenvalue is zero, its vector the constant one times the roots
    return np.asarray((vectors / roots[:, None])[:, 1:] / np.sqrt(values[1:]))


def superpixels(image: Array, *, edge: int, rounds: int = 6) -> Array:
    """Group pixels that are near each other in place and in gray level.

    Parameters
    ----------
    image : array, shape (m, n)
        Gray levels.
    edge : int
        Pixels from one centre to the next at the start.
    rounds : int, default 6
        Every round moves the centres to the means of their pixels (k-means).

    Returns
    -------
    array of int, shape (m, n)
        Numbers from 0 on, none left out.
    """
    high, wide = (-(-length // edge) for length in image.shape)
    y, x = np.indices(image.shape, np.float64)
    features = (y / edge, x / edge, image / TONE)
    row, column = (y // edge).astype(np.intp), (x // edge).astype(np.intp)
    labels = row * wide + column
    for _ in range(rounds):
        sizes = np.maximum(np.bincount(labels.ravel(), minlength=high * wide), 1)
        centres = [np.bincount(labels.ravel(), f.ravel(), high * wide) / sizes for f in features]
        best = np.full(image.shape, np.inf)
        # a pixel chooses among the centres that began in its cell and in the eight around
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                near = np.clip(row + down, 0, high - 1) * wide + np.clip(
                    column + right, 0, wide - 1
                )
                distance = sum((f - c[near]) ** 2 for f, c in zip(features, centres, strict=True))
                labels = np.where(distance < best, near, labels)
                best = np.minimum(best, distance)
    return np.unique(labels, return_inverse=True)[1].reshape(image.shape)
