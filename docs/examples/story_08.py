"""Story 8, a data engineer: a Dask array or an iterator of blocks."""

from itertools import accumulate
from pathlib import Path

import dask.array as da
import numpy as np

import linalgk as lk

A = da.from_npy_stack("A")  # or da.from_zarr("A.zarr"), (500_000_000, 100) float32: 200 GB
b = da.from_npy_stack("b")
r = lk.svd_lowrank(A, 20, passes=2, rng=0)  # S, Vh NumPy now; U stays a lazy Dask array
print(r.S[:3], r.info.passes, r.info.error_estimate)
fit = lk.lstsq(A, b, method="sketch_solve", rng=0)
lo, hi = fit.interval(0.95)
print(fit.x[:3], fit.backward_error)

files = sorted(Path("blocks").glob("*.npy"))
blocks = lk.RowBlocks(lambda: (np.load(f, mmap_mode="r") for f in files), shape=(None, 1000))
r2 = lk.svd_lowrank(blocks, 50, rng=0)  # re-iterable: two passes allowed
print(r2.info.passes, r2.info.error_estimate)


def kafka_stream():
    """Messages that come once."""
    yield from (np.load(f) for f in files)


once = lk.RowBlocks(kafka_stream(), shape=(None, 1000))
try:
    lk.svd_lowrank(once, 50, rng=0)
except ValueError as error:
    print(error)
r3 = lk.svd_lowrank(once, 50, method="streaming", rng=0)  # nothing was read yet
print(r3.info.method, r3.info.passes, r3.info.error_estimate)


def my_shards():
    """Blocks with the numbers of their first rows, as other machines may have them."""
    shards = [np.load(f) for f in files]
    return zip(shards, accumulate((len(s) for s in shards), initial=0))  # noqa: B905


parts = [lk.StreamingSVD(None, 1000, 50, rng=0).update(b, offset=o) for b, o in my_shards()]
total = sum(parts[1:], parts[0])
r4 = total.result()
print(r4.S[:3], r4.info.error_estimate)
