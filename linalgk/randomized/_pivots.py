"""Which columns stand for a matrix: pivots of a small sketch of it, and random choices.

No array library has pivoted factorizations, and sketches are small: they are computed with on the
host, by LAPACK. All matrices here are single ones of NumPy; of y (k, n) columns are chosen.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk.sketch import Philox

_KEPT = {"check_finite": False}
# Swaps of strong rank-revealing QR: each multiplies a volume by at least f.
_FACTOR, _SWAPS = 2.0, 200


class Triangle(NamedTuple):
    """``y[:, perm] = Q R`` without Q: perm (n,), r (min(k, n), n)."""

    perm: Any
    r: Any


def geqp3(y: Any) -> Triangle:
    """QR with column pivoting: the column of the largest remaining norm comes next."""
    import scipy.linalg

    if not y.size:
        return Triangle(np.arange(y.shape[1]), np.zeros((min(y.shape), y.shape[1]), y.dtype))
    r, perm = scipy.linalg.qr(y, mode="r", pivoting=True, **_KEPT)
    return Triangle(perm.astype(np.int64), r[: min(y.shape)])


def tails(r: Any) -> Any:
    """``||R[j:, j:]||_F`` for j = 0, ..., min(k, n), relative to the first."""
    upper = np.triu(r)
    top = float(np.abs(upper).max(initial=0.0))
    if not (0 < top < math.inf):
        return np.zeros(len(r) + 1)
    size = np.abs(upper / top).astype(np.float64)
    squares = np.cumsum((size * size).sum(axis=1)[::-1])[::-1]
    return np.sqrt(np.append(squares, 0.0) / squares[0])


def lupp(y: Any, rank: int) -> Any:
    """Pivots of Gaussian elimination of the rows of y^T (n, k), k >= rank [1]_.

    .. [1] Y. Dong, P.-G. Martinsson, "Simpler is better: a comparative study of randomized pivoting
       algorithms for CUR and interpolative decompositions", Adv. Comput. Math. 49 (2023).
    """
    from scipy.linalg import get_lapack_funcs

    x = np.array(y[:rank].T, order="F")
    getrf = get_lapack_funcs("getrf", (x,))
    _, swaps, _ = getrf(x, overwrite_a=True)
    perm = np.arange(len(x))
    for i, j in enumerate(swaps):
        if i != j:
            perm[i], perm[j] = perm[j], perm[i]
    return perm[:rank]


def right_basis(y: Any, rank: int) -> tuple[Any, Any]:
    """Leading right singular vectors (n, rank) and singular values of y (k, n)."""
    import scipy.linalg

    # of the triangle of y^H: LAPACK's singular value decomposition of a wide matrix does the same
    q, r = scipy.linalg.qr(y.conj().T, mode="economic", **_KEPT)
    u, s, _ = scipy.linalg.svd(r, full_matrices=False, **_KEPT)
    return q @ u[:, :rank], s


def deim(w: Any) -> Any:
    """Discrete empirical interpolation on orthonormal columns (n, rank), which is elimination."""
    return lupp(w.T, w.shape[1])


def sampled(weights: Any, rank: int, source: Philox) -> Any:
    """So many different indices with chances in proportion to weights, one after the other.

    The smallest of independent exponential times ``-log(u) / w`` come first, which is the law of
    drawing without replacement; weights of zero come last.
    """
    u = 1.0 - source.uniform(len(weights))
    with np.errstate(divide="ignore", over="ignore"):
        times = np.where(weights > 0, -np.log(u) / np.where(weights > 0, weights, 1.0), np.inf)
    return np.argsort(times, kind="stable")[:rank]


def squares(x: Any, axis: int) -> Any:
    """Sums of squares in double precision, relative to the largest entry."""
    size = np.abs(x).astype(np.float64)
    top = size.max(initial=0.0)
    return ((size / top) ** 2).sum(axis=axis) if top > 0 else size.sum(axis=axis)


class Interpolation(NamedTuple):
    """``y ~ y[:, index] @ proj``; coefficients proj (rank, n) with the identity at index."""

    index: Any
    proj: Any


def from_triangle(found: Triangle, rank: int, cut: float) -> Interpolation:
    """``R11^-1 R12`` in the order of the columns.

    Pivots at or below ``cut`` times the first are rounding: columns there are zero combinations of
    those before.
    """
    import scipy.linalg

    perm, r = found
    n = r.shape[1]
    pivots = np.abs(np.diagonal(r)[:rank])
    sound = int(np.count_nonzero(pivots > cut * pivots[0])) if len(pivots) else 0
    proj = np.zeros((rank, n), r.dtype)
    if sound and n > rank:
        solved = scipy.linalg.solve_triangular(r[:sound, :sound], r[:sound, rank:], **_KEPT)
        proj[:sound, perm[rank:]] = solved
    proj[np.arange(rank), perm[:rank]] = 1
    return Interpolation(perm[:rank], proj)


def fitted(y: Any, index: Any, cut: float) -> Interpolation:
    """Least squares: ``y[:, index]^+ y``, again by a pivoted triangle, and the identity."""
    import scipy.linalg

    rank, n = len(index), y.shape[1]
    if not rank:
        return Interpolation(index, np.zeros((0, n), y.dtype))
    q, r, perm = scipy.linalg.qr(y[:, index], mode="economic", pivoting=True, **_KEPT)
    pivots = np.abs(np.diagonal(r))
    sound = int(np.count_nonzero(pivots > cut * pivots[0])) if len(pivots) else 0
    proj = np.zeros((rank, n), y.dtype)
    if sound:
        right = q[:, :sound].conj().T @ y
        proj[perm[:sound]] = scipy.linalg.solve_triangular(r[:sound, :sound], right, **_KEPT)
    proj[:, index] = np.eye(rank, dtype=y.dtype)
    return Interpolation(index, proj)


def strong(y: Any, rank: int, cut: float) -> Interpolation:
    """Strong rank-revealing QR [1]_: swaps until no swap of a column gains more than f = 2.

    Afterwards ``|proj| <= f`` and ``sigma_j(y[:, index]) >= sigma_j(y) / (1 + f^2 r (n-r))^(1/2)``,
    ``||y - y[:, index] proj||_2 <= (1 + f^2 r (n-r))^(1/2) sigma_{r+1}(y)``.

    .. [1] M. Gu, S. C. Eisenstat, "Efficient algorithms for computing a strong rank-revealing QR
       factorization", SIAM J. Sci. Comput. 17 (1996): Algorithm 4, Theorem 3.2.
    """
    import scipy.linalg

    perm, r = geqp3(y)
    n = r.shape[1]
    for _ in range(_SWAPS):
        pivots = np.abs(np.diagonal(r)[:rank])
        if rank in (0, n) or not (pivots[-1] > cut * pivots[0]):
            break
        first, middle = r[:rank, :rank], r[:rank, rank:]
        solved = scipy.linalg.solve_triangular(first, middle, **_KEPT)
        inverse = scipy.linalg.solve_triangular(first, np.eye(rank, dtype=r.dtype), **_KEPT)
        rest = np.linalg.norm(r[rank:, rank:], axis=0)
        # by how much a swap multiplies |det R11| (Lemma 3.1)
        gain = np.hypot(np.abs(solved), np.linalg.norm(inverse, axis=1)[:, None] * rest[None, :])
        i, j = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if not gain[i, j] > _FACTOR:
            break
        perm = perm.copy()
        perm[[i, rank + j]] = perm[[rank + j, i]]
        # all again: there are few swaps, since pivoting has made most of them
        first = scipy.linalg.qr(y[:, perm[:rank]], mode="r", pivoting=True, **_KEPT)
        perm[:rank] = perm[:rank][first[1]]
        (r,) = scipy.linalg.qr(y[:, perm], mode="r", **_KEPT)
        r = r[: min(y.shape)]
    return from_triangle(Triangle(perm, r), rank, cut)
