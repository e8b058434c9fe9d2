"""Dask's face of low-rank factors: passes as map and reduce over blocks of rows."""

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np

from linalgk.randomized import _passes


class DaskReader:
    """A Dask array: a task for each block of rows, parts merged in fours, in their order."""

    kept = False

    def __init__(self, a: Any) -> None:
        if a.ndim != 2:
            msg = f"a: a Dask array must have shape (m, n), got {a.shape}"
            raise ValueError(msg)
        if any(np.isnan(size) for sizes in a.chunks for size in sizes):
            msg = "a: the chunks have unknown sizes; call a.compute_chunk_sizes() first"
            raise ValueError(msg)
        self.a = a.rechunk({1: -1})
        self.n = int(a.shape[1])
        self.passes = 0

    def total(self, work: Callable[..., Any], *args: Any) -> Any:
        """One pass, computed at once."""
        self.passes += 1
        part = dask.delayed(work, pure=False)
        merged = dask.delayed(_passes.merged, pure=False)
        shared = [dask.delayed(x) if isinstance(x, np.ndarray) else x for x in args]
        blocks = self.a.to_delayed().ravel()
        offsets = np.cumsum([0, *self.a.chunks[0]])[:-1]
        parts = [part(b, int(i), *shared) for b, i in zip(blocks, offsets, strict=True)]
        while len(parts) > 1:
            parts = [merged(*parts[i : i + 4]) for i in range(0, len(parts), 4)]
        (found,) = dask.compute(parts[0])
        return found


def times(a: Any, x: Any) -> Any:
    """``A X`` as a Dask array, not computed."""
    return da.map_blocks(
        _product, a, x, dtype=x.dtype, chunks=(a.chunks[0], (x.shape[1],)), meta=x[:0]
    )


def _product(block: Any, x: Any) -> Any:
    return np.asarray(_passes.matrix_of(block) @ x)
