"""Dask's face: tall arrays sketched where their blocks are; what travels are accumulators."""

from typing import Any

import dask
import dask.array as da
import numpy as np

from linalgk.sketch import _inputs


def _part(s: Any, d: int | None, dtype: str, block: Any, offset: int) -> Any:
    """What a worker sends: the sums of its rows."""
    return s.accumulator(d, dtype=dtype).update(block, offset=offset)


def _merged(*parts: Any) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _finished(total: Any) -> Any:
    return total.result()


def sketched(s: Any, a: Any) -> Any:
    """``S @ a`` of a Dask array as a Dask array: a task for each block of rows, merged in pairs."""
    if a.ndim > 2:
        msg = f"S @ a: a Dask array must have shape (m,) or (m, n), got {a.shape}"
        raise ValueError(msg)
    if any(np.isnan(size) for sizes in a.chunks for size in sizes):
        msg = "S @ a: the chunks of a have unknown sizes; call a.compute_chunk_sizes() first"
        raise ValueError(msg)
    _inputs.rows_meet(s, a.shape)
    a = a.rechunk({1: -1}) if a.ndim == 2 else a
    d = a.shape[1] if a.ndim == 2 else None
    like = np.empty(0, a.dtype)
    dtype = _inputs.dtype_in(s, a.dtype).name
    blocks = a.to_delayed().ravel()
    offsets = np.cumsum([0, *a.chunks[0]])[:-1]
    part, merged = dask.delayed(_part, pure=True), dask.delayed(_merged, pure=True)
    parts = [
        part(s, d, dtype, block, int(offset)) for block, offset in zip(blocks, offsets, strict=True)
    ]
    while len(parts) > 1:
        parts = [merged(*parts[i : i + 4]) for i in range(0, len(parts), 4)]
    k = s.shape[0]
    result = dask.delayed(_finished, pure=True)(parts[0])
    out = _inputs.outcome(s, like)
    return da.from_delayed(result, (k,) if d is None else (k, d), dtype=out)
