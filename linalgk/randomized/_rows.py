"""A tall system ``[A b]`` by blocks of rows: what least squares reads in one pass.

The partial sums of blocks are added in the order of the rows, so that the number of threads does
not change a bit.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor
from linalgk.randomized._matrix import Matrix
from linalgk.randomized._panels import Space, mapped
from linalgk.sketch import RowBlocks, Sketch

# Entries of a block of rows: with many columns, which are used again and again, fewer.
_FEW, _SHORT, _LONG = 128, 1 << 18, 1 << 17
_LOW = {"float64": "float32", "complex128": "complex64"}


class Sums(NamedTuple):
    """Of one pass: ``A^H r``, ``||r||^2`` by columns, and ``(A W)^H (A W)``."""

    back: Any
    squares: Any
    gram: Any = None

    def __add__(self, other: Any) -> "Sums":
        gram = None if self.gram is None else self.gram + other.gram
        return Sums(self.back + other.back, self.squares + other.squares, gram)


class Rows:
    """A system in memory.

    Attributes
    ----------
    a : Matrix
    b : array, shape (m, c)
    """

    def __init__(self, a: Matrix, b: Any) -> None:
        self.a, self.b = a, b
        self.shape, self.columns = a.shape, int(b.shape[1])
        self.dtype, self.xp, self.like = a.dtype, a.xp, a.like

    @property
    def passes(self) -> int:
        """Reads of the matrix."""
        return self.a.passes

    @property
    def eps(self) -> float:
        """Unit of rounding, 2u."""
        return self.a.eps

    def sketch(self, s: Sketch) -> tuple[Any, Any]:
        """``S A`` and ``S b``."""
        return self.a.sketched(s), s @ self.b

    def residual(self, x: Any, unit: float = 1.0) -> Any:
        """``(b - A x) / unit``."""
        return (self.b - self.a.matmat(x)) * (1 / unit)

    def project(self, r: Any) -> Any:
        """``A^H r``."""
        return self.a.rmatmat(r)

    def sums(self, x: Any, scales: tuple[float, float], whiten: "Whitener | None" = None) -> Sums:
        """Residual and what it needs, with r in units of scales[1] and A^H r in both units."""
        if self.a.kind != "dense":
            r = self.residual(x, scales[1])
            back = self.project(r * (1 / scales[0]))
            gram = None
            if whiten is not None:
                y = self.a.matmat(whiten.matrix)
                gram = adjoint(self.xp, y) @ y
            return Sums(back, squares(self.xp, r), gram)
        self.a.passes += 1
        whole, space = self.a.a, Space() if self.xp is np else None
        parts = mapped(
            self.shape,
            lambda i, j: block_sums(
                self.xp, whole[i:j, :], self.b[i:j, :], x, scales, whiten, space
            ),
            host=self.xp is np,
            entries=_SHORT if self.shape[1] <= _FEW else _LONG,
        )
        total: Sums | None = None
        for part in parts:
            total = part if total is None else total + part
        assert total is not None
        return total


class BlockRows:
    """The same of `RowBlocks` that hold pairs ``(A_i, b_i)``."""

    xp = np

    def __init__(self, blocks: RowBlocks) -> None:
        self.blocks, self._start = blocks, blocks.passes
        # the first block says what is known of all; it is read again as part of the first pass
        self._first: Any = iter(blocks)
        try:
            head = next(self._first)
        except StopIteration:
            msg = "a: there are no blocks"
            raise ValueError(msg) from None
        self._first = itertools.chain([head], self._first)
        self.vector = np.ndim(head[1]) == 1 if isinstance(head, tuple) else True
        a, b = pair(head)
        self.columns = int(b.shape[1])
        self.dtype = _validate.floating("a", np.empty(0, np.result_type(a, b))).dtype.name
        self.shape = blocks.shape[0] or 0, int(a.shape[1])
        self.like = np.empty(0, self.dtype)

    @property
    def eps(self) -> float:
        """Unit of rounding, 2u."""
        return float(np.finfo(self.dtype).eps)

    @property
    def passes(self) -> int:
        """Reads of the source."""
        return self.blocks.passes - self._start

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        rows, first, self._first = 0, self._first, None
        for block in self.blocks if first is None else first:
            a, b = pair(block)
            rows += a.shape[0]
            yield a.astype(self.dtype, copy=False), b.astype(self.dtype, copy=False)
        self.shape = rows, self.shape[1]

    def sketch(self, s: Sketch) -> tuple[Any, Any]:
        """``S A`` and ``S b``."""
        n, c, offset = self.shape[1], self.columns, 0
        left, right = s.accumulator(n, dtype=self.dtype), s.accumulator(c, dtype=self.dtype)
        for a, b in self._pairs():
            left.update(a, offset=offset)
            right.update(b, offset=offset)
            offset += a.shape[0]
        return left.result(), right.result()

    def sums(self, x: Any, scales: tuple[float, float], whiten: "Whitener | None" = None) -> Sums:
        """As of `Rows`."""
        total = None
        for a, b in self._pairs():
            part = block_sums(np, a, b, x, scales, whiten)
            total = part if total is None else total + part
        assert total is not None
        return total


def pair(block: Any) -> tuple[Any, Any]:
    """A block's rows and right-hand sides (rows, c), both dense."""
    if not isinstance(block, tuple) or len(block) != 2:
        msg = (
            "a: the blocks of least squares are pairs (A_i, b_i), got "
            f"{type(block).__name__}; pass b in the blocks"
        )
        raise TypeError(msg)
    a, b = block
    a = a.toarray() if hasattr(a, "toarray") else np.asarray(a)
    b = np.asarray(b)
    return a, b if b.ndim == 2 else b[:, None]


def squares(xp: Any, r: Any) -> Any:
    """Squared norms of columns."""
    if _xp.dtype_name(r) in _xp.COMPLEX:
        return xp.sum(xp.real(r) ** 2 + xp.imag(r) ** 2, axis=0)
    return xp.sum(r * r, axis=0)


# what overflows shows as NaN, which the caller reports
@np.errstate(over="ignore", invalid="ignore")
def block_sums(
    xp: Any, a: Any, b: Any, x: Any, scales: tuple[float, float], whiten: Any, space: Any = None
) -> Sums:
    """The sums of one block of rows."""
    r = (b - a @ x) * (1 / scales[1])
    # (r^H A)^H: the matrix is neither conjugated nor copied
    back = adjoint(xp, adjoint(xp, r * (1 / scales[0])) @ a)
    gram = None
    if whiten is not None:
        y = _whitened(xp, a, whiten, space)
        gram = xp.astype(adjoint(xp, y) @ y, whiten.matrix.dtype)
    return Sums(back, squares(xp, r), gram)


class Whitener(NamedTuple):
    """``W`` with ``A W`` nearly orthonormal; upper triangular or full."""

    matrix: Any
    triangular: bool


def _whitened(xp: Any, a: Any, whiten: Whitener, space: Space | None) -> Any:
    """``a W`` in the lower precision: it conditions a Gram matrix that refinement corrects."""
    w, name = whiten.matrix, _xp.dtype_name(a)
    low = _xp.dtype_of(xp, _LOW.get(name, name))
    if space is None:
        return xp.astype(a @ w, low)
    y = space.array("low", (a.shape[0], w.shape[1]), low)
    rows = space.array("rows", a.shape if whiten.triangular else y.shape, a.dtype)
    if whiten.triangular:
        rows[...] = a
        y[...] = _factor.times_triangle_in_place(rows, np.ascontiguousarray(w))
    else:
        y[...] = np.matmul(a, w, out=rows)
    return y


def scale_of(size: float) -> float:
    """A power of two near it, 1 for zero."""
    if not size or not math.isfinite(size):
        return 1.0
    return math.ldexp(1.0, max(-1000, min(1000, math.frexp(size)[1])))
