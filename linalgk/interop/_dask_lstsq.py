"""Least squares of Dask arrays: what travels are the sums of blocks of rows."""

from typing import Any

import dask
import dask.array as da
import numpy as np

from linalgk import _validate
from linalgk.randomized._rows import Sums, block_sums


class DaskRows:
    """``[A b]`` by passes, as `linalgk.randomized._rows.Rows`; each is one computation."""

    xp = np

    def __init__(self, a: Any, b: Any) -> None:
        if b is None:
            msg = "b: is missing"
            raise TypeError(msg)
        b = b if isinstance(b, da.Array) else da.from_array(np.asarray(b))
        self.vector = b.ndim == 1
        b = b[:, None] if self.vector else b
        if a.ndim != 2 or b.ndim != 2 or any(np.isnan(size) for size in (*a.shape, *b.shape)):
            msg = (
                f"a, b: Dask arrays must have shapes (m, n) and (m,) or (m, c), got {a.shape} and "
                f"{b.shape}; call compute_chunk_sizes() where chunks are not known"
            )
            raise ValueError(msg)
        if a.shape[0] != b.shape[0]:
            msg = f"b: must have the {a.shape[0]} rows of a, got {b.shape[0]}"
            raise ValueError(msg)
        dtype = _validate.floating("a", np.empty(0, np.result_type(a.dtype, b.dtype))).dtype
        self.a = a.astype(dtype).rechunk({1: -1})
        self.b = b.astype(dtype).rechunk({0: self.a.chunks[0], 1: -1})
        self.shape = int(a.shape[0]), int(a.shape[1])
        self.columns, self.dtype = int(b.shape[1]), dtype.name
        self.like = np.empty(0, dtype)
        self.passes = 0

    @property
    def eps(self) -> float:
        """Unit of rounding, 2u."""
        return float(np.finfo(self.dtype).eps)

    def sketch(self, s: Any) -> tuple[Any, Any]:
        """``S A`` and ``S b``."""
        self.passes += 1
        left, right = dask.compute(s @ self.a, s @ self.b)
        return left, right

    def sums(self, x: Any, scales: tuple[float, float], whiten: Any = None) -> Sums:
        """The sums of all blocks, added in the order of the rows."""
        self.passes += 1
        work = dask.delayed(block_sums, pure=True)
        pairs = zip(self.a.to_delayed().ravel(), self.b.to_delayed().ravel(), strict=True)
        parts = [work(np, a, b, x, scales, whiten) for a, b in pairs]
        while len(parts) > 1:
            parts = [dask.delayed(_added)(*parts[i : i + 4]) for i in range(0, len(parts), 4)]
        (total,) = dask.compute(parts[0])
        return total


def _added(*parts: Sums) -> Sums:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
