"""Data that come in blocks of rows: `RowBlocks` and Dask arrays."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from linalgk import _validate, _xp


class RowBlocks:
    """A tall matrix that is read block by block, the first rows first.

    Parameters
    ----------
    source : iterable or callable
        Of blocks (rows, n): a sequence, a callable that returns an iterator, which may be read
        again and again, or an iterator, which can be read once. Of pairs (A_i, b_i) for least
        squares.
    shape : tuple, optional
        (m, n); m is None if the number of rows is not known.
    dtype : dtype, optional
        To which the blocks are converted.

    Attributes
    ----------
    shape : tuple
    passes : int
        How often the source was read.
    once : bool
        Whether it can be read once only.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.random.default_rng(0).standard_normal((1000, 5))
    >>> blocks = lk.RowBlocks(lambda: (a[i : i + 300] for i in range(0, 1000, 300)))
    >>> S = lk.sketch.SparseStack(64, None, rng=0)
    >>> bool((S @ blocks == S[:, :1000] @ a).all())
    True
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterator[Any]],
        /,
        *,
        shape: tuple[int | None, int] | None = None,
        dtype: Any = None,
    ) -> None:
        if not callable(source) and not hasattr(source, "__iter__"):
            msg = (
                "source: must be an iterable of row blocks, an iterator, or a callable that "
                f"returns one, got {type(source).__name__}"
            )
            raise TypeError(msg)
        if hasattr(source, "__array_namespace__") or isinstance(source, np.ndarray):
            msg = "source: an array is one block; pass it as it is, or [a] for one block"
            raise TypeError(msg)
        if shape is not None and len(shape) != 2:
            msg = f"shape: must be (m, n) with m None if it is not known, got {shape!r}"
            raise ValueError(msg)
        self._source = source
        self.shape: tuple[int | None, int | None] = (None, None)
        if shape is not None:
            m = None if shape[0] is None else _validate.integer("shape[0]", shape[0], 0)
            self.shape = m, _validate.integer("shape[1]", shape[1], 0)
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.once = not callable(source) and iter(source) is source
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        """The blocks, checked and counted."""
        if self.once and self.passes:
            msg = (
                "RowBlocks: the iterator has been read; pass a sequence or a callable that returns "
                "an iterator, or use a method of one pass"
            )
            raise RuntimeError(msg)
        self.passes += 1
        rows = 0
        for number, block in enumerate(self._source() if callable(self._source) else self._source):
            first = block[0] if isinstance(block, tuple) else block
            rows += self._checked(first, number)
            if isinstance(block, tuple) and block[1].shape[0] != first.shape[0]:
                msg = (
                    f"RowBlocks: block {number} has {first.shape[0]} rows and its right-hand side "
                    f"{block[1].shape[0]}"
                )
                raise ValueError(msg)
            yield self._converted(block)
        if self.shape[0] is not None and rows != self.shape[0]:
            msg = f"RowBlocks: shape says {self.shape[0]} rows, the blocks have {rows}"
            raise ValueError(msg)

    def _checked(self, block: Any, number: int) -> int:
        n = self.shape[1]
        shape = tuple(getattr(block, "shape", ()))
        if len(shape) != 2 or (n is not None and shape[1] != n):
            want = "(rows, n)" if n is None else f"(rows, {n})"
            msg = f"RowBlocks: block {number} must have shape {want}, got {shape}"
            raise ValueError(msg)
        self.shape = self.shape[0], shape[1]
        return int(shape[0])

    def _converted(self, block: Any) -> Any:
        if self.dtype is None:
            return block
        if isinstance(block, tuple):
            return tuple(self._converted(part) for part in block)
        if isinstance(block, np.ndarray) or hasattr(block, "nnz"):
            return block.astype(self.dtype, copy=False)
        xp = _xp.namespace(block)
        return xp.astype(block, _xp.dtype_of(xp, self.dtype.name), copy=False)

    def __repr__(self) -> str:
        """Shape and whether it can be read again."""
        again = "once" if self.once else "again and again"
        return f"RowBlocks(shape={self.shape}, read {again})"


def sketched(s: Any, blocks: RowBlocks) -> Any:
    """``S @ blocks`` in one pass; the last block's rows end the data."""
    m, known = s.shape[1], blocks.shape[0]
    if m is not None and known is not None and m != known:
        msg = f"S @ blocks: the operator has {m} columns and the blocks {known} rows"
        raise ValueError(msg)
    acc, offset = None, 0
    for block in blocks:
        rows = block[0] if isinstance(block, tuple) else block
        acc = s.accumulator(rows.shape[1]) if acc is None else acc
        acc.update(rows, offset=offset)
        offset += rows.shape[0]
    if acc is None:
        n = blocks.shape[1]
        if n is None:
            msg = "S @ blocks: there are no blocks and no shape=(m, n) that says how many columns"
            raise ValueError(msg)
        like = _validate.floating("dtype", np.empty(0, blocks.dtype))
        acc = s.accumulator(n, dtype=like.dtype)
    return acc.result()


# --- Dask ----------------------------------------------------------------------------------------


def is_dask(a: Any) -> bool:
    """Whether it is a Dask array."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(a, module.Array)


def lazily(s: Any, a: Any) -> Any:
    """``S @ a`` of a Dask array as a Dask array."""
    from linalgk.interop import _dask

    return _dask.sketched(s, a)
