"""Dask arrays: lazy, chunked in any way, in other processes; the bits of NumPy's."""

import numpy as np
import pytest
import sketched
from sketched import BLOCK, EXACT, close, make, same_bits

import linalgk as lk

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

K, M, N = 104, BLOCK + 900, 3
CHUNKS = [
    ((M,), (N,)), ((5000,) * 3 + (M - 15000,), (N,)), ((1, BLOCK - 1, 900), (2, 1)),
    ((0, 700, BLOCK, 200), (1, 1, 1)), ((1700,) * 10 + (M - 17000,), (3,)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def a():
    return sketched.data(M, N, dtype="float32")


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_chunks_give_the_bits_of_the_whole(family, chunks, a):
    s = make(family, K, M)
    lazy = s @ da.from_array(a, chunks=chunks)
    assert isinstance(lazy, da.Array)
    assert (lazy.shape, lazy.dtype) == ((K, N), np.float32)
    same_bits(lazy.compute(), s @ a)


@pytest.mark.parametrize("family", ["gaussian", "complex", "rademacher", "srct", "rows"])
def test_other_families(family):
    s, a = make(family, 30, 500), sketched.data(500, 4)
    lazy = s @ da.from_array(a, chunks=(130, 2))
    got = lazy.compute()
    assert lazy.dtype == got.dtype
    close(got, s, a)


def test_threads(a):
    s = make("stack8", K, None)
    with dask.config.set(scheduler="threads", num_workers=3):
        same_bits((s @ da.from_array(a, chunks=(999, -1))).compute(), s @ a)


def test_vectors_parts_and_the_other_side(a):
    s, lazy = make("stack8", K, M), da.from_array(a, chunks=(6000, 2))
    one = s @ lazy[:, 0]
    assert one.shape == (K,)
    same_bits(one.compute(), s @ a[:, 0])
    same_bits((s[:, 800:] @ lazy[800:]).compute(), s[:, 800:] @ a[800:])
    same_bits((lazy.T @ s.T).compute(), (s @ a).T)
    # lazy before and after
    same_bits((s @ (lazy * 2) + 1).compute(), s @ (a * 2) + 1)


def test_several_sketches_of_one_array(a):
    """Tasks of different operators are different; of the same one they are the same."""
    lazy = da.from_array(a, chunks=(9000, N))
    sketches = [make("stack8", K, M, rng=seed) for seed in (1, 2)] + [make("count", K, M, rng=1)]
    for got, s in zip(dask.compute(*[s @ lazy for s in sketches]), sketches, strict=True):
        same_bits(got, s @ a)
    assert (sketches[0] @ lazy).name == (make("stack8", K, M, rng=1) @ lazy).name


def test_dtypes():
    counts = np.arange(600).reshape(300, 2) % 13
    s = make("stack8", K, 300)
    lazy = s @ da.from_array(counts, chunks=(77, 2))
    assert lazy.dtype == np.float64
    same_bits(lazy.compute(), s @ counts)
    small = counts.astype("float32")
    raised = lk.sketch.SparseStack(K, 300, rng=5, dtype="float64")
    for t in (raised, lk.sketch.Gaussian(K, 300, rng=5, dtype="complex128")):
        lazy = t @ da.from_array(small, chunks=(77, 2))
        assert lazy.dtype == lazy.compute().dtype == (t @ small).dtype
    same_bits((raised @ da.from_array(small, chunks=77)).compute(), raised @ small)


def test_nothing_to_add():
    s = make("stack8", K, None)
    assert (s @ da.zeros((0, 2))).compute().shape == (K, 2)
    assert (s @ da.zeros((50, 0), chunks=(20, 1))).compute().shape == (K, 0)


def test_what_is_refused(a):
    lazy = da.from_array(a, chunks=(6000, N))
    unknown = lazy[lazy[:, 0] > 0]
    for s in (make("stack8", K, M), make("stack8", K, None)):
        with pytest.raises(ValueError, match=r"unknown sizes; call a.compute_chunk_sizes"):
            s @ unknown
    kept = a[a[:, 0] > 0]
    same_bits((make("stack8", K, None) @ unknown.compute_chunk_sizes()).compute(),
              make("stack8", K, None) @ kept)  # fmt: skip
    s = make("stack8", K, M)
    with pytest.raises(ValueError, match=f"{M - 1} rows meet {M} columns"):
        s @ lazy[1:]
    with pytest.raises(ValueError, match=r"a Dask array must have shape \(m,\) or \(m, n\), got"):
        s @ da.zeros((2, M, 2))
    with pytest.raises(TypeError, match="dtype must be float32"):
        s @ lazy.astype("float16")
    bad = a.copy()
    bad[BLOCK, 1] = np.inf
    with pytest.raises(lk.errors.NonFiniteError, match="rows 12000 to 17284 hold NaN"):
        (s @ da.from_array(bad, chunks=(6000, N))).compute()
    assert s.explain(lazy).method == s.explain(unknown).method == "blocks"


@pytest.fixture(scope="module")
def cluster():
    """Two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.worker.daemon": False, "distributed.admin.tick.limit": "1h"}),
        distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None,
            silence_logs=50,
        ) as found,
        distributed.Client(found) as client,
    ):  # fmt: skip
        yield client


def _process(acc):
    import os

    return os.getpid(), acc


def _added(s, block, offset):
    import os

    import linalgk  # noqa: F401 - a worker that never saw it

    return os.getpid(), s.accumulator(block.shape[1]).update(block, offset=offset)


def test_two_processes(cluster, a):
    """Products of Dask arrays, and accumulators that travel, have the bits of one process."""
    stack, hadamard = make("stack8", K, M), make("srht_blocks", K, None)
    lazy = da.from_array(a, chunks=(2000, N))
    for s in (stack, hadamard):
        got = cluster.compute(s @ lazy, sync=True)
        same_bits(got, s @ a)
    workers = list(cluster.scheduler_info()["workers"])
    assert len(workers) == 2
    begins = range(0, M, 3000)
    futures = [
        cluster.submit(_added, stack, a[low : low + 3000], low, workers=workers[i % 2])
        for i, low in enumerate(begins)
    ]
    found = cluster.gather(futures[::-1])
    assert len({pid for pid, _ in found}) == 2
    total = found[0][1]
    for _, part in found[1:]:
        total = total + part
    same_bits(total.result(), stack @ a)
    bad = np.full((50, 1), np.nan)
    with pytest.raises(lk.errors.NonFiniteError, match="rows 0 to 50 hold NaN"):
        cluster.compute(make("count", 8, 50) @ da.from_array(bad, chunks=50), sync=True)
