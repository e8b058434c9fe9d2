"""Tall matrices by blocks of rows that stay in a core's cache between their products.

On the host the blocks are shared among threads, each with a BLAS of its own; sums are added in the
order of the rows, so that the number of threads does not change a bit.
"""

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from linalgk import _config, _pieces, _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor

# Entries of a block on the host, and how many times that on a device.
_BLOCK, _DEVICE = 1 << 18, 16
# Columns of a triangle that are solved for at once.
_PANEL = 64
# Condition number up to which such a part is inverted: products are faster than substitution.
_INVERTED = 1e3


class Space(threading.local):
    """Memory of one thread that blocks take turns in: new memory would be cleared for each."""

    def array(self, name: str, shape: tuple[int, int], dtype: Any) -> Any:
        """An array of that shape whose contents do not matter."""
        size, kept = shape[0] * shape[1], self.__dict__.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self.__dict__[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


def mapped(
    shape: tuple[int, int], work: Callable[[int, int], Any], *, host: bool, entries: int = _BLOCK
) -> Iterator[Any]:
    """``work(begin, end)`` of blocks of so many entries of a matrix, in order."""
    m, n = shape
    step = max(64, (entries if host else _DEVICE * _BLOCK) // max(1, n))
    ranges = [(i, min(i + step, m)) for i in range(0, m, step)]
    threads = min(_config.num_threads(), len(ranges)) if host else 1
    yield from _pieces.mapped(work, ranges, threads=max(threads, 1))


def whole(a: Any) -> bool:
    """Whether blocks of rows gain anything: a tall NumPy matrix."""
    return isinstance(a, np.ndarray) and a.size > 4 * _BLOCK and a.shape[0] > a.shape[1]


def gram(a: Any) -> Any:
    """``A^H A``."""
    if not whole(a):
        return _factor.gram(a)
    return _added(mapped(a.shape, lambda i, j: _square(a[i:j]), host=True))


def solved(a: Any, r: Any, order: Any = None, *, squared: bool = False) -> Any:
    """``A R^-1`` of the columns in that order, and its Gram matrix where that is asked for."""
    if not whole(a) or a.shape[1] < _PANEL:
        xp = _xp.namespace(a)
        y = (
            _factor.right_solve(a, r)
            if order is None
            else _factor.right_solve_in_place(xp.take(a, order, axis=1), r)
        )
        return (y, _factor.gram(y)) if squared else y
    y = np.empty((a.shape[0], r.shape[0]), np.result_type(a, r))
    panels, space = _panels(r), Space()

    def work(i: int, j: int) -> Any:
        # take() gathers columns several times faster than an index does
        rows = y[i:j]
        rows[...] = a[i:j] if order is None else np.take(a[i:j], order, axis=1)
        for begin, end, part, inverse in panels:
            piece = rows[:, begin:end]
            if begin:
                product = space.array("product", piece.shape, rows.dtype)
                piece -= np.matmul(rows[:, :begin], r[:begin, begin:end], out=product)
            piece[...] = (
                np.matmul(piece, inverse, out=space.array("product", piece.shape, rows.dtype))
                if inverse is not None
                else _factor.right_solve_in_place(np.ascontiguousarray(piece), part)
            )
        return _square(rows) if squared else None

    parts = mapped(a.shape, work, host=True)
    if squared:
        return y, _added(parts)
    for _ in parts:
        pass
    return y


def times_inverse(q: Any, r: Any) -> Any:
    """``Q R^-1`` in the place of q, for R of small condition number: by products alone."""
    if not whole(q) or not q.flags.c_contiguous or q.dtype != r.dtype:
        return _factor.right_solve_in_place(q, r)
    inverse, space = _factor.solve(r, np.eye(r.shape[0], dtype=r.dtype)), Space()

    def work(i: int, j: int) -> None:
        rows = space.array("rows", (j - i, q.shape[1]), q.dtype)
        rows[...] = q[i:j]
        for begin in range(0, r.shape[0], _PANEL):
            end = min(begin + _PANEL, r.shape[0])
            product = space.array("product", (j - i, end - begin), q.dtype)
            q[i:j, begin:end] = np.matmul(rows[:, :end], inverse[:end, begin:end], out=product)

    for _ in mapped(q.shape, work, host=True):
        pass
    return q


def _panels(r: Any) -> list[tuple[int, int, Any, Any]]:
    """Begin, end, triangle and inverse of the diagonal blocks; None where it has large entries."""
    found = []
    for begin in range(0, r.shape[0], _PANEL):
        end = min(begin + _PANEL, r.shape[0])
        part = np.ascontiguousarray(r[begin:end, begin:end])
        size = np.linalg.norm(part, axis=0)
        inverse = _factor.solve(part, np.eye(end - begin, dtype=r.dtype))
        # columns of any length do no harm
        spread = math.sqrt(end - begin) * float(np.linalg.norm(inverse * size[:, None], 2))
        found.append((begin, end, part, inverse if spread <= _INVERTED else None))
    return found


def _square(rows: Any) -> Any:
    return adjoint(np, rows) @ rows


def _added(parts: Iterator[Any]) -> Any:
    total: Any = None
    for part in parts:
        total = part if total is None else total + part
    return total
