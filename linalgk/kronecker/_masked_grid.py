"""A grid of which some points are observed: products, and equations on all of it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker._modes import times


class Seats(NamedTuple):
    """Points of the grid, in the order in which the grid has them."""

    points: Any  # their numbers, NumPy
    index: Any  # the same in the library of the arrays
    back: Any  # for each point of the grid its seat, or the number of seats


def seats(chosen: Any, like: Any) -> Seats:
    """Of the points where a flat mask of NumPy is True."""
    points = np.flatnonzero(chosen)
    back = np.full(chosen.size, len(points), np.int64)
    back[points] = np.arange(len(points))
    return Seats(points, *(indices(x, like) for x in (points, back)))


def indices(x: Any, like: Any) -> Any:
    """A NumPy array of integers as what arrays like this one are indexed by."""
    xp = _xp.namespace(like)
    # JAX takes NumPy's; its own would not outlive the trace that they are made in
    if xp is np or xp.__name__.startswith("jax"):
        return x
    return _xp.from_numpy(x, xp, like=like)


def scatter(x: Any, where: Seats) -> Any:
    """Values (..., n, k) on the grid (..., K, k), zeros elsewhere."""
    size = where.back.shape[0]
    if isinstance(x, np.ndarray):
        y = np.zeros((*x.shape[:-2], size, x.shape[-1]), x.dtype)
        y[..., where.points, :] = x
        return y
    # one more row to read zeros from: no library but NumPy is written to
    xp = _xp.namespace(x)
    # JAX's tracers are on no device
    place = {"device": x.device} if hasattr(x, "device") else {}
    blank = xp.zeros((*x.shape[:-2], 1, x.shape[-1]), dtype=x.dtype, **place)
    return xp.take(xp.concat([x, blank], axis=-2), where.back, axis=-2)


def gather(x: Any, where: Seats) -> Any:
    """Values (..., n, k) of x (..., K, k)."""
    return _xp.namespace(x).take(x, where.index, axis=-2)


class Grid:
    """The matrix ``A = K + s I`` of a whole grid, positive definite, and its two sets of points.

    Attributes
    ----------
    arrays, vectors : list of array, shape (..., p_i, p_i)
        Hermitian factors of K, and their eigenvectors.
    values : list of array, shape (..., p_i)
        Eigenvalues.
    shift : array, shape (...), or float
    d : array, shape (..., K)
        Eigenvalues of A.
    seen, hidden : Seats
        Observed points and missing ones.
    """

    def __init__(
        self, arrays: Sequence[Any], values: Sequence[Any], vectors: Sequence[Any], shift: Any,
        d: Any, seen: Seats, hidden: Seats,
    ) -> None:  # fmt: skip
        self.arrays, self.values, self.vectors = list(arrays), list(values), list(vectors)
        self.shift, self.d, self.seen, self.hidden = shift, d, seen, hidden
        self.xp = _xp.namespace(d)
        self.adjoints = [adjoint(self.xp, v) for v in self.vectors]
        self.dtype = _xp.dtype_name(self.arrays[0])
        self.eps = float(np.finfo(self.dtype).eps)
        self.sizes = tuple(int(a.shape[-1]) for a in self.arrays)

    @property
    def n(self) -> int:
        """Observed points."""
        return len(self.seen.points)

    @property
    def m(self) -> int:
        """Missing points."""
        return len(self.hidden.points)

    def kernel(self, x: Any) -> Any:
        """``K x`` for x (..., K, k)."""
        return times(self.arrays, x)

    def inverse(self, x: Any) -> Any:
        """``A^-1 x`` for x (..., K, k)."""
        return times(self.vectors, times(self.adjoints, x) / self.d[..., None])

    def observed(self, x: Any) -> Any:
        """``A_oo x`` for x (..., n, k) on the observed points."""
        return gather(self.kernel(scatter(x, self.seen)), self.seen) + self.shifted(x)

    def schur(self, y: Any) -> Any:
        """``(A^-1)_mm y`` for y (..., m, k) on the missing points."""
        return gather(self.inverse(scatter(y, self.hidden)), self.hidden)

    def shifted(self, x: Any) -> Any:
        """``s x`` for x (..., k, l)."""
        s = self.shift
        return (s[..., None, None] if getattr(s, "ndim", 0) else s) * x

    def rms(self) -> float:
        """Root of the mean square of K's eigenvalues; the largest member's."""
        total = 1.0
        for w in self.values:
            w = np.asarray(_xp.to_numpy(w), np.float64)
            total *= float(np.sqrt((w**2).mean(axis=-1)).max()) if w.size else 0.0
        return total

    def members(self, batch: tuple[int, ...]) -> list["Grid"]:
        """Each member by itself."""
        if not batch:
            return [self]
        xp, count = self.xp, math.prod(batch)

        def each(x: Any, rank: int) -> Any:
            tail = tuple(x.shape[x.ndim - rank :])
            return xp.reshape(xp.broadcast_to(x, (*batch, *tail)), (count, *tail))

        parts = [[each(x, 2) for x in part] for part in (self.arrays, self.vectors)]
        values = [each(x, 1) for x in self.values]
        d = each(self.d, 1)
        shift = each(self.shift, 0) if getattr(self.shift, "ndim", 0) else None
        return [
            Grid(
                [x[i, ...] for x in parts[0]], [x[i, ...] for x in values],
                [x[i, ...] for x in parts[1]],
                self.shift if shift is None else float(shift[i]), d[i, ...], self.seen, self.hidden,
            )
            for i in range(count)
        ]  # fmt: skip
