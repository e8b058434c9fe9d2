"""svd_lowrank out of memory: blocks, memory maps and Dask arrays; what is read, and how often."""

import numpy as np
import pytest
import scipy.sparse
from spectra import EPS, defects, gaussian

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError

M, N = 1300, 120


def made(s, dtype="float64", m=M):
    wide = np.result_type(dtype, "float64")
    left = np.linalg.qr(gaussian((m, N), wide))[0]
    right = np.linalg.qr(gaussian((N, N), wide, 1))[0]
    return ((left * s) @ right.conj().T).astype(dtype)


def pieces(a, step=300):
    return [a[i : i + step] for i in range(0, a.shape[0], step)]


def error(a, found):
    u, s, vh = (np.asarray(x) for x in found)
    wide = np.result_type(a.dtype, "float64")
    a = a.astype(wide)
    return np.linalg.norm(a - (u.astype(wide) * s) @ vh) / np.linalg.norm(a)


POLYNOMIAL = 1 / np.arange(1, N + 1.0)
EXPONENTIAL = 0.7 ** np.arange(1, N + 1.0)


def best(s, rank):
    return np.linalg.norm(s[rank:]) / np.linalg.norm(s)


def lazy(a, chunks=(300, 50)):
    da = pytest.importorskip("dask.array")
    return da.from_array(a, chunks=chunks)


@pytest.fixture(autouse=True)
def threads():
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


FORMS = {"blocks": lambda a: lk.RowBlocks(pieces(a)), "dask": lazy}


# --- Results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("passes", [None, 2, 3, 4])
@pytest.mark.parametrize("s", [POLYNOMIAL, EXPONENTIAL], ids=["polynomial", "exponential"])
def test_factors_and_exact_error(form, passes, s, dtype):
    a = made(s, dtype)
    found = lk.svd_lowrank(FORMS[form](a), 10, passes=passes, rng=3)
    got = error(a, found)
    # of two passes twice the width: 1.05 without
    factor = {2: 1.03, 3: 1.01, 4: 1.001}[passes or 2]
    assert got <= factor * best(s, 10) + 10 * EPS[dtype]
    assert abs(found.info.error_estimate / got - 1) < 1e-3
    assert found.info.passes == (passes or 2)
    assert found.info.method == ("krylov" if passes in (3, 4) else "rsvd")
    assert max(defects(found)) < 200 * EPS[dtype]
    assert (s[:10] * (1 + 20 * EPS[dtype]) >= found.S).all()
    assert isinstance(found.S, np.ndarray)
    assert isinstance(found.Vh, np.ndarray)
    assert found.U.dtype == found.Vh.dtype == np.dtype(dtype)
    assert found.S.dtype == np.zeros(0, dtype).real.dtype
    assert found.U.shape == (M, 10)


@pytest.mark.parametrize("form", FORMS)
def test_errors_below_those_of_norms_are_seen(form):
    """An exact rank: ||A||^2 - sum s_i^2 would be off by 1e-8."""
    s = np.where(np.arange(N) < 6, 1.0, 0.0)
    a = made(s)
    found = lk.svd_lowrank(FORMS[form](a), 6, rng=0)
    assert error(a, found) < 1e-14
    assert found.info.error_estimate < 1e-14
    faint = np.where(np.arange(N) < 6, 1.0, 1e-11)
    found = lk.svd_lowrank(FORMS[form](made(faint)), 6, rng=0, passes=3)
    assert abs(found.info.error_estimate / best(faint, 6) - 1) < 0.01
    assert np.abs(found.S - 1).max() < 1e-13


@pytest.mark.parametrize("form", FORMS)
def test_targets(form):
    a = made(EXPONENTIAL)
    for tol in (0.5, 1e-2, 1e-6, 1e-11):
        found = lk.svd_lowrank(FORMS[form](a), tol=tol, rng=0)
        wanted = next(k for k in range(N) if best(EXPONENTIAL, k) <= tol)
        assert error(a, found) <= tol
        assert wanted <= found.info.rank <= wanted + 1
        assert found.info.passes == (2 if wanted < 60 else 4)
    slow = made(POLYNOMIAL)
    found = lk.svd_lowrank(FORMS[form](slow), tol=0.05, rng=0)
    assert error(slow, found) <= 0.05
    # a round with 64 columns, and one with all
    assert found.info.passes == 4
    capped = lk.svd_lowrank(FORMS[form](slow), 5, tol=0.05, rng=0)
    assert capped.info.rank == 5
    assert abs(capped.info.error_estimate / error(slow, capped) - 1) < 1e-9
    with pytest.raises(ValueError, match="tol: must be at least 64 eps"):
        lk.svd_lowrank(FORMS[form](slow.astype("float32")), tol=1e-7)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("form", FORMS)
def test_very_large_and_very_small_numbers(form, scale):
    a = made(EXPONENTIAL)
    for passes in (2, 3):
        plain = lk.svd_lowrank(FORMS[form](a), 8, rng=0, passes=passes)
        found = lk.svd_lowrank(FORMS[form](scale * a), 8, rng=0, passes=passes)
        assert np.abs(found.S / scale / plain.S - 1).max() < 1e-12
        assert abs(found.info.error_estimate / plain.info.error_estimate - 1) < 1e-9
        assert max(defects(found)) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_zero_and_few_rows(form):
    found = lk.svd_lowrank(FORMS[form](np.zeros((500, 60))), 3, rng=0)
    assert not found.S.any()
    assert found.info.error_estimate == 0
    assert np.isfinite(np.asarray(found.U)).all()
    few = gaussian((7, N))
    found = lk.svd_lowrank(FORMS[form](few), 7, rng=0)
    assert error(few, found) < 1e-14
    narrow = gaussian((900, 4))
    found = lk.svd_lowrank(FORMS[form](narrow), 4, rng=0)
    assert error(narrow, found) < 1e-14


@pytest.mark.parametrize("form", FORMS)
def test_nan(form):
    a = made(POLYNOMIAL)
    a[700, 3] = np.nan
    with pytest.raises(NonFiniteError, match="svd_lowrank: a holds NaN or infinity"):
        lk.svd_lowrank(FORMS[form](a), 4)
    with pytest.warns(ConvergenceWarning):
        lk.svd_lowrank(FORMS[form](a), 4, on_fail="warn")
    found = lk.svd_lowrank(FORMS[form](a), 4, on_fail="nan")
    assert all(np.isnan(np.asarray(x)).all() for x in found)
    assert found.U.shape == (M, 4)
    assert not found.info.converged


@pytest.mark.parametrize("form", FORMS)
def test_blocks_meet_different_columns_of_the_sketch(form):
    """With the same columns for both the sketch of [B; -B] would be zero."""
    half = made(EXPONENTIAL)[:300]
    a = np.concatenate([half, -half])
    found = lk.svd_lowrank(FORMS[form](a), 8, rng=0)
    true = np.linalg.svd(a, compute_uv=False)
    assert error(a, found) < 1.01 * np.linalg.norm(true[8:]) / np.linalg.norm(true)


# --- RowBlocks -----------------------------------------------------------------------------------


def test_how_often_a_source_is_opened():
    a, opened = made(POLYNOMIAL), []

    def source():
        opened.append(1)
        yield from pieces(a)

    for passes in (2, 3, 5):
        for shape in ((M, N), (None, N), None):
            opened.clear()
            blocks = lk.RowBlocks(source, shape=shape)
            found = lk.svd_lowrank(blocks, 10, passes=passes, rng=0)
            assert len(opened) == blocks.passes == found.info.passes == passes
    again = lk.svd_lowrank(blocks, 10, rng=found.info.seed, passes=5)
    assert again.info.passes == 5
    assert blocks.passes == 10
    for x, y in zip(again, found, strict=True):
        assert (x == y).all()


def test_blocks_that_come_once():
    a = made(EXPONENTIAL)
    once = lk.RowBlocks(iter(pieces(a)), shape=(None, N))
    with pytest.raises(
        ValueError, match="blocks of an iterator can be read once; pass method='str"
    ):
        lk.svd_lowrank(once, 8)
    found = lk.svd_lowrank(once, 8, method="streaming", rng=0)
    assert (once.passes, found.info.passes, found.info.method) == (1, 1, "streaming")
    assert error(a, found) < 1.2 * best(EXPONENTIAL, 8)
    assert 1 / 3 < found.info.error_estimate / error(a, found) < 3
    auto = lk.svd_lowrank(lk.RowBlocks(iter(pieces(a)), shape=(None, N)), 8, passes=1, rng=0)
    assert (auto.S == found.S).all()


def test_blocks_of_any_kind(xp):
    a = made(EXPONENTIAL)
    wanted = lk.svd_lowrank(lk.RowBlocks(pieces(a)), 6, rng=0)
    forms = [
        [xp.asarray(x.copy()) for x in pieces(a)],
        [scipy.sparse.csr_array(x) for x in pieces(a)],
        [(x, x[:, 0]) for x in pieces(a)],
        pieces(a, 77),
        [a[:0], *pieces(a), a[:0]],
    ]
    for form in forms:
        found = lk.svd_lowrank(lk.RowBlocks(form), 6, rng=0)
        assert isinstance(found.U, np.ndarray)
        assert np.abs(found.S - wanted.S).max() < 1e-14
    counts = (1000 * a).astype(np.int16)
    found = lk.svd_lowrank(lk.RowBlocks(pieces(counts)), 3, rng=0)
    assert np.abs(found.S / np.linalg.svd(counts, compute_uv=False)[:3] - 1).max() < 1e-2


def test_what_blocks_are_not_taken_for():
    a = made(POLYNOMIAL)
    for method in ("exact", "gen_nystrom"):
        with pytest.raises(ValueError, match=f"'{method}' does not take RowBlocks; use 'rsvd' or"):
            lk.svd_lowrank(lk.RowBlocks(pieces(a)), 4, method=method)
    with pytest.raises(ValueError, match=r"rank: must be at most min\(m, n\) = 5, got 7"):
        lk.svd_lowrank(lk.RowBlocks([a[:5]]), 7)
    with pytest.raises(ValueError, match=r"rank: must be at most min\(m, n\) = 120, got 121"):
        lk.svd_lowrank(lk.RowBlocks(pieces(a), shape=(None, N)), 121)
    with pytest.raises(ValueError, match="there are no blocks"):
        lk.svd_lowrank(lk.RowBlocks([]), 1)


# --- Memory maps ---------------------------------------------------------------------------------


def test_memory_maps_are_read_in_place(tmp_path):
    """No copy of the size of the file is made, whatever the map looks like."""
    import tracemalloc

    m, n = 8000, 700
    a = gaussian((m, n)) * (1 / np.arange(1, n + 1))
    a.tofile(tmp_path / "a")
    (100 * a).astype("int32").tofile(tmp_path / "counts")
    mapped = np.memmap(tmp_path / "a", "float64", "r", shape=(m, n))
    counts = np.memmap(tmp_path / "counts", "int32", "r", shape=(m, n))
    true = np.linalg.svd(a[:, :100], compute_uv=False)[:2]
    for taken, scale in ((mapped, 1.0), (mapped[:, ::-1], 1.0), (counts, 100.0)):
        # compilers need memory, too
        lk.svd_lowrank(taken, 5, oversample=5, rng=0)
        tracemalloc.start()
        found = lk.svd_lowrank(taken, 5, oversample=5, rng=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.7 * a.nbytes
        assert np.abs(found.S[:2] / scale / true - 1).max() < 0.05
        assert type(found.U) is np.ndarray
    plain = lk.svd_lowrank(a, 5, rng=0)
    assert (lk.svd_lowrank(mapped, 5, rng=0).U == plain.U).all()


# --- Dask ----------------------------------------------------------------------------------------


def test_u_stays_lazy_and_the_passes_are_reads():
    da = pytest.importorskip("dask.array")
    a, read = made(POLYNOMIAL), []

    def block(block_info=None):
        (low, high), _ = block_info[None]["array-location"]
        read.append((low, high))
        return a[low:high]

    source = da.map_blocks(block, chunks=((400, 400, 500), (N,)), dtype="float64", meta=a[:0])
    for passes in (2, 3, 4):
        read.clear()
        found = lk.svd_lowrank(source, 10, passes=passes, rng=0)
        assert sorted(read) == sorted([(0, 400), (400, 800), (800, 1300)] * passes)
        assert found.info.passes == passes
        assert isinstance(found.U, da.Array)
        assert found.U.chunks == ((400, 400, 500), (10,))
        read.clear()
        u = found.U.compute()
        assert len(read) == 3
        assert u.shape == (M, 10)
        assert np.abs(u.T @ u - np.eye(10)).max() < 1e-13


def test_chunks_and_workers():
    dask = pytest.importorskip("dask")
    a = made(EXPONENTIAL)
    wanted = lk.svd_lowrank(lazy(a), 8, rng=0)
    for workers in (1, 3):
        with dask.config.set(scheduler="threads", num_workers=workers):
            found = lk.svd_lowrank(lazy(a), 8, rng=0)
        assert (found.S == wanted.S).all()
        assert (found.Vh == wanted.Vh).all()
        assert found.info.error_estimate == wanted.info.error_estimate
    for chunks in ((M, N), (37, N), (500, 7), ((0, 1200, 0, 100), (100, 20))):
        found = lk.svd_lowrank(lazy(a, chunks), 8, rng=0)
        assert np.abs(found.S - wanted.S).max() < 1e-14
        assert abs(found.info.error_estimate / wanted.info.error_estimate - 1) < 1e-9


def test_story_eight():
    a = made(POLYNOMIAL, "float32", 4000)[:, :100]
    r = lk.svd_lowrank(lazy(a, (1000, 100)), 20, passes=2, rng=0)
    assert (r.S.dtype, r.info.passes) == (np.float32, 2)
    assert abs(r.info.error_estimate / error(a, r) - 1) < 1e-3
    blocks = lk.RowBlocks(lambda: iter(pieces(a)), shape=(None, 100))
    again = lk.svd_lowrank(blocks, 20, rng=0)
    assert np.abs(again.S - r.S).max() < 1e-5


def test_what_is_refused_of_dask():
    da = pytest.importorskip("dask.array")
    a = lazy(made(POLYNOMIAL))
    with pytest.raises(ValueError, match=r"the chunks have unknown sizes; call a.compute_chunk_s"):
        lk.svd_lowrank(a[a[:, 0] > 0], 3)
    with pytest.raises(ValueError, match=r"a Dask array must have shape \(m, n\), got \(2, 3, 4\)"):
        lk.svd_lowrank(da.zeros((2, 3, 4)), 1)
    for options in ({"passes": 1}, {"method": "streaming"}, {"method": "exact"}):
        with pytest.raises(ValueError, match="does not take Array; use 'rsvd' or 'krylov' with at"):
            lk.svd_lowrank(a, 3, **options)
    with pytest.raises(ValueError, match=r"rank: must be at most min\(m, n\) = 120, got 121"):
        lk.svd_lowrank(a, 121)
    with pytest.raises(TypeError, match="a: dtype must be"):
        lk.svd_lowrank(a.astype("float16"), 3)
