"""CUR: bounds with computed constants, exact recovery, measured errors, tolerances, libraries."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from spectra import DECAYS, EPS, decaying, gaussian, low_rank

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError

METHODS = ["lupp", "cpqr", "srrqr", "deim", "leverage", "norm"]
CORES = ["sketched", "projection", "cross"]


def product(found):
    c, u, r = (x.toarray() if hasattr(x, "toarray") else np.asarray(x) for x in found)
    return c @ u @ r


def error(a, found):
    return np.linalg.norm(a - product(found)) / np.linalg.norm(a)


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("decay", DECAYS)
def test_errors_and_certificates(decay, method, core):
    """Within the certificate, whose error e is estimated: 3 standard deviations, 16 rows or more.

    Beside the best approximation: 4 for pivots, 15 for draws (2.9 and 6 found).
    """
    a, s = decaying(600, 300, decay)
    for rank in (4, 20):
        found = lk.cur(a, rank, method=method, core=core, rng=1)
        best = np.linalg.norm(s[rank:]) / np.linalg.norm(s)
        true = error(a, found)
        assert best <= true <= (15 if method in ("leverage", "norm") else 4) * best
        assert true <= found.certificate.bound * (1 + 3 / math.sqrt(32))
        assert found.certificate.eta_p >= 1 - 1e-12
        assert found.certificate.eta_q >= 1 - 1e-12
        assert 0.6 * true < found.info.error_estimate < 1.6 * true
        assert (a[:, found.cols] == found.C).all()
        assert (a[found.rows] == found.R).all()
        assert found.U.shape == (rank, rank + rank // 2)
        assert len(set(found.rows.tolist())) == len(found.rows)
        assert found.info.passes == (2 if core == "projection" else 1)
        assert found.info.method == f"{method}+{core}"


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("rank", [1, 5, 15])
def test_the_deim_bound(decay, rank, extra, dtype):
    """Sorensen and Embree, an exact inequality for the singular vectors of A, in both norms:
    ``||A - C C^+ A R^+ R|| <= (eta_p + eta_q) s_{r+1}`` with eta computed here again."""
    a, _ = decaying(60, 45, decay, dtype)
    found = lk.cur(a, rank, method="deim", core="projection", extra_rows=extra, rng=0)
    u, s, vh = np.linalg.svd(a.astype(np.result_type(dtype, "float64")), full_matrices=False)
    eta_p = 1 / np.linalg.svd(vh[:rank, found.cols], compute_uv=False)[-1]
    eta_q = 1 / np.linalg.svd(u[found.rows, :rank], compute_uv=False)[-1]
    if dtype in ("float64", "complex128"):
        assert abs(found.certificate.eta_p / eta_p - 1) < 1e-9
        assert abs(found.certificate.eta_q / eta_q - 1) < 1e-9
    size = np.linalg.norm(s)
    floor = 4 * 2 * math.sqrt(EPS[dtype])
    wanted = (eta_p + eta_q) * (np.linalg.norm(s[rank:]) / size + floor)
    assert abs(found.certificate.bound / wanted - 1) < 1e-2
    rest = a - product(found)
    assert np.linalg.norm(rest, 2) <= (eta_p + eta_q) * (s[rank] + floor * size)
    assert np.linalg.norm(rest) <= found.certificate.bound * size
    if dtype == "float64":
        # the pivots are those of DEIM, written out; phases of complex vectors are not determined
        assert found.cols.tolist() == deim(vh[:rank].T)
        assert found.rows[:rank].tolist() == deim(u[:, :rank])


def deim(w):
    """One index for each vector: where what the earlier ones do not interpolate is largest."""
    chosen = []
    for j in range(w.shape[1]):
        coefficients = np.linalg.solve(w[chosen, :j], w[chosen, j]) if j else np.zeros(0)
        rest = w[:, j] - w[:, :j] @ coefficients
        chosen.append(int(np.argmax(np.abs(rest))))
    return chosen


@pytest.mark.parametrize("decay", DECAYS)
def test_cores_beside_the_projection(decay):
    """The projection is the best core; the sketched one is within 1.2 of it, the cross within 2."""
    a, _ = decaying(700, 300, decay)
    for rank in (5, 25):
        for method in ("lupp", "cpqr"):
            found = {c: lk.cur(a, rank, method=method, core=c, rng=3) for c in CORES}
            best = found["projection"]
            wanted = np.linalg.pinv(best.C) @ a @ np.linalg.pinv(best.R)
            assert np.abs(best.U - wanted).max() < 1e-6 * np.abs(wanted).max()
            least = error(a, best)
            assert (found["sketched"].cols == best.cols).all()
            assert (found["sketched"].rows == best.rows).all()
            assert least <= error(a, found["sketched"]) <= 1.2 * least
            assert least <= error(a, found["cross"]) <= 2 * least
            block = a[np.ix_(best.rows, best.cols)]
            assert (
                np.abs(found["cross"].U - np.linalg.pinv(block)).max()
                < 1e-6 * np.abs(found["cross"].U).max()
            )


def test_extra_rows_make_the_error_smaller():
    a, _ = decaying(900, 400, "square")
    errors = [
        np.mean([error(a, lk.cur(a, 20, extra_rows=e, core=c, rng=i)) for i in range(3)])
        for c in CORES
        for e in (0, 10, 40)
    ]
    for i in (0, 3, 6):
        assert errors[i] > errors[i + 1] > errors[i + 2]
    assert lk.cur(a[:30], 25, extra_rows=100, rng=0).R.shape == (30, 400)
    a[8:] = 0
    assert len(set(lk.cur(a, 4, extra_rows=20, rng=0).rows.tolist())) == 24


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("core", CORES)
def test_exact_rank_is_recovered(method, core, dtype):
    """Also where more is asked for than there is."""
    a = low_rank(400, 150, 6, dtype)
    for rank in (6, 9):
        found = lk.cur(a, rank, method=method, core=core, rng=2)
        assert error(a, found) < 2e4 * EPS[dtype]
        assert found.info.error_estimate < 2e4 * EPS[dtype]
        assert found.U.dtype == found.C.dtype == found.R.dtype == a.dtype
        assert found.certificate.eta_q < 1e4


@pytest.mark.parametrize("rcond", [None, 1e-6, 1e-10, 0.0])
def test_truncation_and_rounding(rcond):
    """Errors of explicit products: ``4 (rcond + eps / rcond)`` above what the rank allows."""
    s = 0.5 ** np.arange(200)
    a = (np.linalg.qr(gaussian((500, 200)))[0] * s) @ np.linalg.qr(gaussian((200, 200), seed=1))[0]
    for core in CORES:
        for rank in (10, 28, 60):
            found = lk.cur(a, rank, core=core, rcond=rcond, rng=0)
            best = np.linalg.norm(s[rank:]) / np.linalg.norm(s)
            cut = math.sqrt(EPS["float64"]) if rcond is None else max(rcond, EPS["float64"])
            assert error(a, found) <= 4 * best + 4 * (cut + EPS["float64"] / cut)
            assert error(a, found) <= 2 * found.certificate.bound
            # what the product really loses is in the estimate
            assert 0.4 < found.info.error_estimate / error(a, found) < 2.5


# --- The measured error --------------------------------------------------------------------------


@pytest.mark.stat
@pytest.mark.parametrize("core", CORES)
def test_the_estimate_is_unbiased(core):
    """Squares of estimates minus squares of errors, 100 seeds: mean within 4.5 standard errors,
    which fails by chance once in 10^5."""
    a, _ = decaying(400, 60, "square")
    total = np.linalg.norm(a) ** 2
    differences, relative = [], []
    for seed in range(100):
        found = lk.cur(a, 4, core=core, rng=seed)
        true = error(a, found) ** 2
        sketch = lk.sketch.SparseStack(80, 400, nnz=5, rng=lk.sketch.Philox(seed).spawn(1)) @ a
        measured = float(found.info.error_estimate) ** 2 * np.linalg.norm(sketch) ** 2 / total
        differences.append(measured - true)
        relative.append(measured / true)
    assert abs(np.mean(differences)) < 4.5 * np.std(differences) / math.sqrt(100)
    assert 0.02 < np.std(relative) < 0.36
    assert abs(np.mean(relative) - 1) < 0.15


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-4, 1e-6])
def test_tol_is_met(tol, core):
    a, s = decaying(900, 300, "fast")
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1] / (s**2).sum())
    for method in METHODS[:4]:
        found = lk.cur(a, tol=tol, method=method, core=core, rng=0)
        assert error(a, found) <= tol
        assert len(found.cols) <= np.count_nonzero(tails > tol) + 15
        assert found.info.rank == len(found.cols)


def test_tol_that_is_not_met_is_told():
    a, _ = decaying(900, 300, "slow")
    with pytest.warns(ConvergenceWarning, match=r"cur: tol = 0.01 was not met; the error is about"):
        found = lk.cur(a, 12, tol=0.01, rng=0)
    assert len(found.cols) == 12
    assert 0.7 < found.info.error_estimate / error(a, found) < 1.4
    assert np.isfinite(lk.cur(a, 12, tol=0.01, rng=0, on_fail="nan").U).all()


def test_zero_matrices():
    a = np.zeros((300, 40))
    for core in CORES:
        found = lk.cur(a, 3, core=core, rng=0)
        assert not product(found).any()
        assert found.info.error_estimate == 0
    assert lk.cur(a, tol=0.1, rng=0).C.shape == (300, 0)
    assert lk.cur(gaussian((300, 40)), 0, rng=0).info.error_estimate > 0.9


@pytest.mark.parametrize("scale", [1e-150, 1e-250, 1e150, 1e250])
def test_sizes_whose_squares_overflow(scale):
    a, _ = decaying(500, 80, "fast")
    for core in CORES:
        found, wanted = lk.cur(a * scale, 6, core=core, rng=0), lk.cur(a, 6, core=core, rng=0)
        assert found.cols.tolist() == wanted.cols.tolist()
        assert found.rows.tolist() == wanted.rows.tolist()
        rebuilt = (found.C @ found.U) @ (found.R / scale)
        assert np.abs(rebuilt - product(wanted)).max() < 1e-9
        assert abs(found.info.error_estimate / wanted.info.error_estimate - 1) < 1e-6


# --- Kinds, batches, libraries -------------------------------------------------------------------


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("method", ["cpqr", "norm"])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_sparse_matrices_and_operators(method, core, dtype):
    dense = low_rank(400, 150, 5, dtype)
    dense[np.random.default_rng(5).random(dense.shape) < 0.5] = 0
    wanted = lk.cur(dense, 20, method=method, core=core, rng=7)
    for x in (
        scipy.sparse.csr_array(dense),
        scipy.sparse.csc_array(dense),
        scipy.sparse.linalg.aslinearoperator(dense),
    ):
        found = lk.cur(x, 20, method=method, core=core, rng=7)
        assert found.cols.tolist() == wanted.cols.tolist()
        assert found.rows.tolist() == wanted.rows.tolist()
        assert np.abs(product(found) - product(wanted)).max() < 1e4 * EPS[dtype]
        assert found.C.dtype == found.U.dtype == dense.dtype
        assert found.info.passes == wanted.info.passes
        assert type(found.U) is np.ndarray
        if scipy.sparse.issparse(x):
            assert type(found.C) is type(found.R) is type(x)
            assert (found.C.toarray() == dense[:, found.cols]).all()
            assert (found.R.toarray() == dense[found.rows]).all()
        else:
            assert type(found.C) is np.ndarray


def test_the_adjoint_is_checked():
    a = gaussian((90, 30))
    wrong = scipy.sparse.linalg.LinearOperator(
        (90, 30), matvec=lambda x: a @ x, rmatvec=lambda y: 2 * (a.T @ y), dtype=float
    )
    with pytest.raises(ValueError, match="adjoint"):
        lk.cur(wrong, 3, check_adjoint=True)


def test_batches():
    a = np.stack([decaying(200, 50, d)[0] for d in ("fast", "square", "fast", "slow")])
    a = a.reshape(2, 2, 200, 50)
    found = lk.cur(a, 4, rng=0)
    assert found.C.shape == (2, 2, 200, 4)
    assert found.U.shape == (2, 2, 4, 6)
    assert found.R.shape == (2, 2, 6, 50)
    assert found.rows.shape == (2, 2, 6)
    assert found.certificate.bound.shape == found.info.error_estimate.shape == (2, 2)
    alone = lk.cur(a[1, 0], 4, rng=0)
    assert (found.U[1, 0] == alone.U).all()
    to_tol = lk.cur(a, tol=0.2, rng=0)
    rest = a - to_tol.C @ to_tol.U @ to_tol.R
    sizes = np.linalg.norm(rest, axis=(2, 3)) / np.linalg.norm(a, axis=(2, 3))
    assert (sizes <= 0.2).all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 0, 5), (0, 50, 3)])
def test_empty(shape):
    a = np.empty(shape, "complex64")
    *batch, m, n = shape
    found = lk.cur(a, 0)
    assert found.C.shape == (*batch, m, 0)
    assert found.R.shape == (*batch, 0, n)
    assert found.U.shape == (*batch, 0, 0)
    assert found.C.dtype == found.U.dtype == np.complex64


def test_layouts_are_not_written_to():
    a, _ = decaying(300, 40, "fast")
    wanted = lk.cur(a, 5, rng=0)
    wide = np.zeros((600, 80))
    wide[::2, ::2] = a
    frozen = a.copy()
    frozen.flags.writeable = False
    small = a[:30].copy()
    small.flags.writeable = False
    for x in (np.asfortranarray(a), wide[::2, ::2], frozen, small):
        kept = x.copy()
        for method in METHODS:
            for core in CORES:
                lk.cur(x, 5, method=method, core=core, rng=0)
        assert (x == kept).all()
        if x is not small:
            assert (lk.cur(x, 5, rng=0).cols == wanted.cols).all()


def test_seeds_and_names():
    a = gaussian((300, 60))
    found = lk.cur(a, 8)
    again = lk.cur(a, 8, rng=found.info.seed)
    assert (found.U == again.U).all()
    assert lk.cur(a, 8).info.seed != found.info.seed
    assert found.info.method == "cpqr+sketched"
    assert lk.cur(a, 30, rng=0).info.method == "cpqr+sketched"
    assert lk.cur(a, 50, rng=0).info.method == "lupp+sketched"


def test_other_libraries_get_their_own_arrays(xp):
    a, _ = decaying(300, 60, "fast")
    given = xp.asarray(a)
    for method in METHODS:
        for core in CORES:
            found = lk.cur(given, 6, method=method, core=core, rng=0)
            wanted = lk.cur(a, 6, method=method, core=core, rng=0)
            for part in (*found, found.cols, found.rows, found.certificate.bound):
                assert type(part) is type(given)
            assert np.asarray(found.cols).tolist() == wanted.cols.tolist()
            assert np.asarray(found.rows).tolist() == wanted.rows.tolist()
            assert np.abs(product(found) - product(wanted)).max() < 1e-9
            assert type(found.info.error_estimate) is type(given)


def test_device_arrays_stay_on_the_device(cuda):
    a, _ = decaying(200, 40, "fast")
    for core in CORES:
        found = lk.cur(cuda.array(a), 5, core=core, rng=0)
        wanted = lk.cur(a, 5, core=core, rng=0)
        assert type(found.C) is type(found.U) is type(cuda.array(a))
        assert (cuda.host(found.R) == wanted.R).all()
        assert np.abs(cuda.host(found.U) / wanted.U - 1).max() < 1e-6


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{"rank": 2}, {"tol": 0.5}, {"rank": 2, "core": "projection"}])
def test_bad_members(bad, options):
    a = low_rank(200, 9, 2) + 0.01 * gaussian((3, 200, 9))
    good = lk.cur(a, rng=0, **options)
    a[1, 50, 2] = bad
    with pytest.raises(NonFiniteError, match=r"a holds NaN.*\(1,\)") as caught:
        lk.cur(a, rng=0, **options)
    assert caught.value.index == ((1,),)
    with pytest.warns(ConvergenceWarning, match="holds NaN"):
        lk.cur(a, rng=0, on_fail="warn", **options)
    for more in ({"on_fail": "nan"}, {"check_finite": False}):
        found = lk.cur(a, rng=0, **more, **options)
        assert np.isnan(found.U[1]).all()
        assert np.isnan(found.C[1]).all()
        assert np.isnan(found.certificate.bound[1])
        assert found.info.converged.tolist() == [True, False, True]
        if "rank" in options:
            assert (found.U[[0, 2]] == good.U[[0, 2]]).all()
    sparse = scipy.sparse.csr_array(a[1])
    with pytest.raises(NonFiniteError):
        lk.cur(sparse, rng=0, **options)
    assert np.isnan(lk.cur(sparse, rng=0, on_fail="nan", **options).U).all()


@pytest.mark.parametrize(
    ("call", "error_class", "sentence"),
    [
        (lambda a: lk.cur(a), ValueError, "rank, tol: one of them is needed"),
        (lambda a: lk.cur(a, 5), ValueError, r"rank: .* min\(m, n\) = 4, got 5"),
        (lambda a: lk.cur(a, 1.5), TypeError, "rank: must be an integer"),  # type: ignore[arg-type]
        (lambda a: lk.cur(a, tol=2.0), ValueError, "tol: must satisfy"),
        (lambda a: lk.cur(a, tol=1e-9), ValueError, "at least 1.2e-07.* interp_decomp reaches"),
        (lambda a: lk.cur(a, 2, method="svd"), ValueError, "method: must be one of"),  # type: ignore[arg-type]
        (lambda a: lk.cur(a, 2, core="svd"), ValueError, "core: must be one of"),  # type: ignore[arg-type]
        (lambda a: lk.cur(a, 2, oversample=-1), ValueError, "oversample: must be"),
        (lambda a: lk.cur(a, 2, extra_rows=-1), ValueError, "extra_rows: must be"),
        (lambda a: lk.cur(a, 2, rcond=2.0), ValueError, "rcond: must satisfy"),
        (lambda a: lk.cur(a[0], 1), ValueError, r"a: must have shape \(..., m, n\)"),
        (lambda a: lk.cur("x", 1), TypeError, "a: must be an array"),
    ],
)
def test_bad_arguments(call, error_class, sentence):
    with pytest.raises(error_class, match=sentence):
        call(gaussian((30, 4)))


def test_tracing_and_gradients_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        lk.cur(torch.ones((4, 2), requires_grad=True), 1)
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda x: lk.cur(x, 1))(jax.numpy.ones((4, 2)))
