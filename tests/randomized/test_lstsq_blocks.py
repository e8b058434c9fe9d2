"""Least squares of rows that come in blocks: RowBlocks of pairs, memory maps, Dask arrays."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from scipy import stats
from solved import backward_error, gaussian, problem
from spectra import EPS

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError

U = EPS["float64"] / 2
M, N = 1000, 12


@pytest.fixture(scope="module")
def data():
    a, b = problem(M, N, 1e8, 1e-2)
    return a, np.stack([b, problem(M, N, 1e8, 1.0)[1]], axis=1)


def split(a, b, sizes):
    ends = np.cumsum([0, *sizes])
    return [(a[i:j], b[i:j]) for i, j in itertools.pairwise(ends)]


SIZES = [(M,), (1, 499, 500), (100,) * 10, (0, 7, 993, 0)]


# --- RowBlocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("method", ["auto", "sketch_cholesky", "sketch_solve"])
def test_blocks_give_the_solution_of_the_whole(data, sizes, method):
    """The same sketch of m unknown rows, hence to rounding; backward errors of rounding."""
    a, b = data
    pairs = split(a, b, sizes)
    blocks = lk.RowBlocks(pairs)
    fit = lk.lstsq(blocks, method=method)
    assert blocks.passes == fit.info.passes
    assert fit.x.shape == (N, 2)
    assert fit.rank == N
    assert fit.residuals.shape == fit.backward_error.shape == (2,)
    if method == "sketch_solve":
        assert fit.info.passes == 1
        whole = lk.lstsq(a, b, method=method)
        assert np.abs(fit.x - whole.x).max() < 1e8 * 50 * U * np.abs(whole.x).max()
        assert (fit.std_error > 0).all()
    else:
        assert fit.info.method == "sketch_cholesky"
        assert 2 <= fit.info.passes <= 6
        assert (backward_error(a, b, fit.x) <= 10 * U).all()
        size = np.linalg.norm(b - a @ fit.x, axis=0) ** 2
        assert np.abs(fit.residuals / size - 1).max() < 1e-12
        assert np.abs(fit.s / np.linalg.svd(a, compute_uv=False) - 1).max() < 1e-5
        assert fit.info.residual == pytest.approx(np.sqrt(size.sum()) / np.linalg.norm(b), rel=0.2)


def test_sources_of_blocks(data):
    """A callable, blocks of vectors, of sparse rows, with the shape given, in any dtype."""
    a, b = data[0], data[1][:, 0]
    pairs = split(a, b, (300, 700))
    wanted = lk.lstsq(lk.RowBlocks(pairs))
    assert wanted.x.shape == (N,)
    assert np.ndim(wanted.backward_error) == 0
    for blocks in (
        lk.RowBlocks(lambda: iter(pairs)),
        lk.RowBlocks(pairs, shape=(M, N)),
        lk.RowBlocks(pairs, shape=(None, N)),
        lk.RowBlocks([(scipy.sparse.csr_array(x), y) for x, y in pairs]),
        lk.RowBlocks(pairs, dtype="float64"),
    ):
        fit = lk.lstsq(blocks)
        assert backward_error(a, b, fit.x) <= 10 * U
        assert fit.info.passes == blocks.passes
    for dtype in EPS:
        x, y = problem(M, N, 10.0, 0.1, dtype)
        fit = lk.lstsq(lk.RowBlocks(split(x, y, (300, 700))))
        assert fit.x.dtype == dtype
        assert backward_error(x, y, fit.x) <= 5 * EPS[dtype]
    counts = np.random.default_rng(0).integers(-9, 9, (M, 3))
    fit = lk.lstsq(lk.RowBlocks(split(counts, counts[:, 0], (300, 700))))
    assert np.abs(fit.x - [1, 0, 0]).max() < 1e-14
    mixed = lk.lstsq(lk.RowBlocks(split(a.astype("float32"), b, (300, 700))))
    assert mixed.x.dtype == np.float64


def test_an_iterator_is_read_once(data):
    a, b = data
    once = lk.RowBlocks(iter(split(a, b, (300, 700))))
    with pytest.raises(ValueError, match="read once and only method='sketch_solve'"):
        lk.lstsq(once)
    once = lk.RowBlocks(iter(split(a, b, (300, 700))))
    fit = lk.lstsq(once, method="sketch_solve", sketch="Gaussian")
    assert fit.info.passes == once.passes == 1
    again = lk.lstsq(
        lk.RowBlocks(split(a, b, (300, 700))), method="sketch_solve", sketch="Gaussian"
    )
    assert (fit.x == again.x).all()


@pytest.mark.stat
def test_intervals_from_one_pass():
    """Coverage of 90% between binomial quantiles; fails by chance with probability 1e-6."""
    a, b = problem(300, 4, 10.0, 0.5)
    wanted = np.linalg.lstsq(a, b, rcond=None)[0]
    inside = 0
    for seed in range(200):
        blocks = lk.RowBlocks(iter(split(a, b, (100, 200))))
        fit = lk.lstsq(blocks, method="sketch_solve", sketch="Gaussian", k=24, rng=seed)
        low, high = fit.interval(0.9)
        inside += int(low[1] <= wanted[1] <= high[1])
    low, high = stats.binom(200, 0.9).ppf([5e-7, 1 - 5e-7])
    assert low <= inside <= high


def test_ridges_and_deficient_rank_of_blocks(data):
    a, b = data
    for damp in (1e-6, 1.0):
        wanted = lk.lstsq(a, b, damp=damp, method="direct").x
        fit = lk.lstsq(lk.RowBlocks(split(a, b, (300, 700))), damp=damp)
        assert np.abs(fit.x - wanted).max() < 1e-13 / damp
    short = gaussian(M, 5)
    twice = np.concatenate([short, short], axis=1)
    fit = lk.lstsq(lk.RowBlocks(split(twice, b, (300, 700))))
    wanted = np.linalg.lstsq(twice, b, rcond=1e-13)[0]
    assert fit.rank == 5
    assert fit.residuals.shape == (0,)
    assert np.abs(fit.x - wanted).max() < 1e-13


def test_fewer_rows_than_columns():
    """The sketch keeps all of the few rows: the shortest solution."""
    a, b = gaussian(6, 20), gaussian(6, seed=1)
    fit = lk.lstsq(lk.RowBlocks(split(a, b, (2, 4))))
    wanted = np.linalg.pinv(a) @ b
    assert fit.rank == 6
    assert np.abs(fit.x - wanted).max() < 1e-13
    assert fit.s.shape == (6,)


def test_callbacks_and_seeds_of_blocks(data):
    a, b = data
    seen = []
    fit = lk.lstsq(lk.RowBlocks(split(a, b, (300, 700))), callback=seen.append, rng=None)
    assert len(seen) == fit.info.passes - 1
    again = lk.lstsq(lk.RowBlocks(split(a, b, (300, 700))), rng=fit.info.seed)
    assert (again.x == fit.x).all()
    stopped = lk.lstsq(lk.RowBlocks(split(a, b, (300, 700))), callback=lambda s: True)
    assert stopped.info.passes == 2


def test_blocks_that_hold_nan(data):
    a, b = data[0].copy(), data[1].copy()
    for which in (a, b):
        kept, which[700, 1] = which[700, 1], np.nan
        blocks = lk.RowBlocks(split(a, b, (300, 700)))
        with pytest.raises(NonFiniteError, match="a or b holds NaN"):
            lk.lstsq(blocks)
        with pytest.warns(ConvergenceWarning, match="holds NaN"):
            fit = lk.lstsq(blocks, on_fail="warn")
        assert np.isnan(fit.x).all()
        assert np.isnan(lk.lstsq(blocks, check_finite=False).x).all()
        which[700, 1] = kept


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda p: lk.lstsq(lk.RowBlocks(p), np.ones(M)), TypeError, "leave b out"),
        (
            lambda p: lk.lstsq(lk.RowBlocks([p[0][0]])),
            TypeError,
            r"pairs \(A_i, b_i\), got ndarray",
        ),
        (lambda p: lk.lstsq(lk.RowBlocks([])), ValueError, "a: there are no blocks"),
        (
            lambda p: lk.lstsq(lk.RowBlocks(p), method="spir"),
            ValueError,
            "reads blocks of rows too",
        ),
        (lambda p: lk.lstsq(lk.RowBlocks(p), method="direct"), ValueError, "'direct' reads blocks"),
        (lambda p: lk.lstsq(lk.RowBlocks(p, shape=(M + 1, N))), ValueError, "shape says 1001 rows"),
        (lambda p: lk.lstsq(lk.RowBlocks(p, shape=(M, N + 1))), ValueError, r"shape \(rows, 13\)"),
        (lambda p: lk.lstsq(lk.RowBlocks([(p[0][0], p[1][1])])), ValueError, "right-hand side 700"),
        (
            lambda p: lk.lstsq(lk.RowBlocks([p[0], (p[1][0], p[1][1][:, :1])])),
            ValueError,
            r"must have shape \(rows, 2\)",
        ),
    ],
)
def test_bad_blocks(data, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(split(*data, (300, 700)))


# --- Memory maps ---------------------------------------------------------------------------------


def test_a_memory_map_is_not_copied(tmp_path):
    """64 MB on disk, less than a quarter of it in memory; the triangles and blocks are small."""
    m, n = 400_000, 20
    path = tmp_path / "a.npy"
    held = np.lib.format.open_memmap(path, mode="w+", shape=(m, n), dtype="float64")
    rng = np.random.default_rng(0)
    for i in range(0, m, 100_000):
        held[i : i + 100_000] = rng.standard_normal((100_000, n))
    held.flush()
    b = np.ones(m)
    a = np.load(path, mmap_mode="r")
    lk.lstsq(a[:40_000], b[:40_000])
    tracemalloc.start()
    fit = lk.lstsq(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fit.info.method == "sketch_cholesky"
    assert fit.backward_error < 10 * U
    assert type(fit.x) is np.ndarray
    assert peak < a.nbytes / 4


# --- Dask ----------------------------------------------------------------------------------------


@pytest.fixture
def dask_array():
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="synchronous"):
        yield pytest.importorskip("dask.array")


CHUNKS = [(M, N), (250, 5), ((1, 499, 500), (6, 6)), (100, (1, 11))]


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("method", ["auto", "sketch_solve"])
def test_dask_arrays(dask_array, data, chunks, method):
    a, b = data
    for side in (b, b[:, 0], dask_array.from_array(b, chunks=(333, 1))):
        fit = lk.lstsq(dask_array.from_array(a, chunks=chunks), side, method=method)
        assert isinstance(fit.x, np.ndarray)
        assert fit.x.shape == (N, *side.shape[1:])
        if method == "sketch_solve":
            wanted = lk.lstsq(lk.RowBlocks([(a, np.asarray(side))]), method=method)
            assert np.abs(fit.x - wanted.x).max() < 1e8 * 50 * U * np.abs(wanted.x).max()
            assert fit.info.passes == 1
            assert np.abs(fit.std_error / wanted.std_error - 1).max() < 1e-6
        else:
            assert 2 <= fit.info.passes <= 6
            assert np.all(backward_error(a, np.asarray(side), fit.x) <= 10 * U)


def test_dask_arrays_are_computed_in_passes(dask_array, data):
    """Each pass reads each chunk once."""
    a, b = data
    read = []

    def chunk(block, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return block

    lazy = dask_array.from_array(a, chunks=(250, N)).map_blocks(chunk, dtype=a.dtype)
    read.clear()
    fit = lk.lstsq(lazy, b)
    assert len(read) == 4 * fit.info.passes


def test_dask_arrays_of_any_dtype_with_ridges_and_threads(dask_array, data):
    import dask

    for dtype in EPS:
        a, b = problem(M, N, 10.0, 0.1, dtype)
        fit = lk.lstsq(dask_array.from_array(a, chunks=(300, 7)), b)
        assert fit.x.dtype == dtype
        assert np.abs(fit.x - lk.lstsq(a, b).x).max() < 300 * EPS[dtype] * np.abs(fit.x).max()
        assert backward_error(a, b, fit.x) <= 5 * EPS[dtype]
    a, b = data
    lazy = dask_array.from_array(a, chunks=(100, N))
    wanted = lk.lstsq(a, b, damp=1e-3, method="direct").x
    assert np.abs(lk.lstsq(lazy, b, damp=1e-3).x - wanted).max() < 1e-10
    one = lk.lstsq(lazy, b).x
    with dask.config.set(scheduler="threads", num_workers=3):
        assert (lk.lstsq(lazy, b).x == one).all()


def test_bad_dask_arrays(dask_array, data):
    a, b = data
    lazy = dask_array.from_array(a, chunks=(300, N))
    with pytest.raises(TypeError, match="b: is missing"):
        lk.lstsq(lazy)
    with pytest.raises(ValueError, match="b: must have the 1000 rows of a"):
        lk.lstsq(lazy, b[:-1])
    with pytest.raises(ValueError, match="must have shapes"):
        lk.lstsq(lazy[:, 0], b)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        lk.lstsq(lazy[lazy[:, 0] > 0], b)
    with pytest.raises(ValueError, match="'lsqr' reads blocks"):
        lk.lstsq(lazy, b, method="lsqr")
    broken = a.copy()
    broken[5, 5] = np.inf
    with pytest.raises(NonFiniteError, match="a or b holds NaN"):
        lk.lstsq(dask_array.from_array(broken, chunks=(300, N)), b)
