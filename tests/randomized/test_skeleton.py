"""Interpolative decompositions: bounds, exact recovery, measured errors, tolerances, libraries."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.linalg.interpolative
import scipy.sparse
import scipy.sparse.linalg
from spectra import DECAYS, EPS, decaying, gaussian, low_rank

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError

METHODS = ["lupp", "cpqr", "srrqr", "deim", "leverage", "norm"]
GREEDY = METHODS[:4]


def rest(a, found, rows=False):
    idx, proj = (np.asarray(x) for x in found)
    return a - (proj @ a[idx] if rows else a[:, idx] @ proj)


def error(a, found, rows=False):
    return np.linalg.norm(rest(a, found, rows)) / np.linalg.norm(a)


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 4, 11])
@pytest.mark.parametrize("decay", DECAYS)
def test_the_bound_of_strong_pivots(decay, rank):
    """Gu and Eisenstat: ``|proj| <= 2``, error ``(1 + 4 r (n-r))^(1/2) s_{r+1}``, without a sketch.

    Kahan's matrix is where pivoted QR without swaps fails.
    """
    n = 50
    kahan = np.diag(0.9 ** np.arange(n)) @ (np.eye(n) - np.triu(np.full((n, n), 0.43), 1))
    for a in (decaying(60, n, decay)[0], kahan, low_rank(60, n, rank) + 1e-9 * gaussian((60, n))):
        s = np.linalg.svd(a, compute_uv=False)
        found = lk.interp_decomp(a, rank, method="srrqr", rng=0)
        assert np.abs(found.proj).max() <= 2 + 1e-12
        factor = math.sqrt(1 + 4 * rank * (n - rank))
        assert np.linalg.norm(rest(a, found), 2) <= factor * s[rank]
        chosen = np.linalg.svd(a[:, found.idx], compute_uv=False)
        assert (chosen >= s[:rank] / factor).all()
        assert abs(found.info.error_estimate - error(a, found)) < 1e-12


def test_strong_pivots_swap_where_pivoting_fails():
    """Of Kahan's matrix pivoted QR takes the columns as they come, with coefficients above 2."""
    n, rank, c = 60, 59, 0.285
    kahan = np.diag(math.sqrt(1 - c * c) ** np.arange(n)) @ (
        np.eye(n) - c * np.triu(np.ones((n, n)), 1)
    )
    kahan *= 1 + 1e-12 * np.arange(n, 0, -1)  # the order of equal columns
    # with something left over, and with nothing: each is one half of what a swap can gain
    for a in (kahan, kahan[:rank]):
        plain = lk.interp_decomp(a, rank, method="cpqr", rng=0)
        swapped = lk.interp_decomp(a, rank, method="srrqr", rng=0)
        assert np.abs(plain.proj).max() > 100
        assert np.abs(swapped.proj).max() <= 2
    assert error(kahan, lk.interp_decomp(kahan, rank, method="srrqr", rng=0)) < 0.1 * error(
        kahan, lk.interp_decomp(kahan, rank, method="cpqr", rng=0)
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("decay", DECAYS)
def test_measured_bounds_of_all_methods(decay, method):
    """Errors beside the best rank-r approximation: 4 for pivots, 12 for draws (3 and 6 found)."""
    a, s = decaying(700, 300, decay)
    for rank in (5, 25):
        best = np.linalg.norm(s[rank:]) / np.linalg.norm(s)
        found = lk.interp_decomp(a, rank, method=method, rng=1)
        assert best <= error(a, found) <= (4 if method in GREEDY else 12) * best
        assert len(set(found.idx.tolist())) == rank
        assert (found.proj[:, found.idx] == np.eye(rank)).all()
        assert found.info.passes == 1
        assert found.info.method == method


@pytest.mark.parametrize("decay", ["slow", "square"])
def test_errors_are_close_to_those_of_pivots_of_the_matrix_itself(decay):
    """SciPy pivots all of A; a sketch loses ``(1 + r/(k-r-1))^(1/2)``, and a little by choice."""
    a, _ = decaying(800, 500, decay)
    ours = [error(a, lk.interp_decomp(a, 20, rng=i)) for i in range(5)]
    theirs = []
    for i in range(5):
        idx, proj = scipy.linalg.interpolative.interp_decomp(a, 20, rng=np.random.default_rng(i))
        b = scipy.linalg.interpolative.reconstruct_skel_matrix(a, 20, idx)
        approximation = scipy.linalg.interpolative.reconstruct_matrix_from_id(b, idx, proj)
        theirs.append(np.linalg.norm(a - approximation) / np.linalg.norm(a))
    assert np.mean(ours) < 1.2 * np.mean(theirs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [False, True])
def test_exact_rank_is_recovered(method, rows, dtype):
    """Also where more columns are asked for than there is rank."""
    a = low_rank(500, 200, 6, dtype)
    for rank in (6, 9):
        found = lk.interp_decomp(a, rank, method=method, rows=rows, rng=2)
        assert error(a, found, rows) < 300 * EPS[dtype]
        assert found.proj.dtype == a.dtype
        assert found.proj.shape == ((500, rank) if rows else (rank, 200))
        small = found.proj[found.idx] if rows else found.proj[:, found.idx]
        assert (small == np.eye(rank)).all()
        assert found.info.error_estimate < 300 * EPS[dtype]


def test_pivots_follow_what_matters():
    a = 1e-3 * gaussian((600, 40))
    a[:, 17] *= 1e5
    a[:, 3] = gaussian((600,), seed=2)
    for method in GREEDY:
        assert lk.interp_decomp(a, 2, method=method, rng=0).idx.tolist() == [17, 3]
        assert lk.interp_decomp(a.T, 2, method=method, rows=True, rng=0).idx.tolist() == [17, 3]


@pytest.mark.stat
def test_drawn_columns_have_the_right_law():
    """Norm sampling of one column: chances w_j / sum(w). 1000 draws of 4, chi2 below 21.1 but for
    one case in 10^4."""
    a = np.diag([1.0, 2.0, 3.0, 0.0]) @ np.ones((4, 1)) * np.eye(4)
    weights = np.array([1.0, 4.0, 9.0]) / 14
    counts = np.zeros(4)
    for seed in range(1000):
        counts[lk.interp_decomp(a, 1, method="norm", rng=seed).idx[0]] += 1
    assert counts[3] == 0
    chi2 = ((counts[:3] - 1000 * weights) ** 2 / (1000 * weights)).sum()
    assert chi2 < 21.1


# --- The measured error --------------------------------------------------------------------------


@pytest.mark.stat
@pytest.mark.parametrize("method", ["lupp", "cpqr"])
def test_the_estimate_is_unbiased(method):
    """Squares of estimates minus squares of errors, 150 seeds: mean within 4.5 standard errors,
    which fails by chance once in 10^5."""
    a, _ = decaying(400, 60, "square")
    total = np.linalg.norm(a) ** 2
    differences, relative = [], []
    for seed in range(150):
        found = lk.interp_decomp(a, 4, method=method, rng=seed)
        true = error(a, found) ** 2
        # the estimated norm is in the denominator: it is taken out
        sketch = lk.sketch.SparseStack(80, 400, nnz=5, rng=lk.sketch.Philox(seed).spawn(1)) @ a
        measured = float(found.info.error_estimate) ** 2 * np.linalg.norm(sketch) ** 2 / total
        differences.append(measured - true)
        relative.append(measured / true)
    assert abs(np.mean(differences)) < 4.5 * np.std(differences) / math.sqrt(150)
    # 16 rows: relative deviation at most (2/16)^(1/2); it says something
    assert 0.02 < np.std(relative) < 0.36
    assert abs(np.mean(relative) - 1) < 0.12


@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5, 1e-9, 1e-12])
@pytest.mark.parametrize("rows", [False, True])
def test_tol_is_met(tol, rows):
    """Three standard deviations to spare; ranks beside those of the best approximation."""
    a, s = decaying(900, 400, "fast")
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1] / (s**2).sum())
    for method in GREEDY:
        found = lk.interp_decomp(a, tol=tol, rows=rows, method=method, rng=0)
        assert error(a, found, rows) <= tol
        assert len(found.idx) <= np.count_nonzero(tails > tol) + 12
        assert found.info.rank == len(found.idx)
        assert error(a, found, rows) < 2 * found.info.error_estimate < 4 * error(a, found, rows)


def test_tol_of_slow_decay_doubles_the_sketch():
    a, s = decaying(2000, 300, "slow")
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1] / (s**2).sum())
    for tol in (0.75, 0.65):
        found = lk.interp_decomp(a, tol=tol, rng=0)
        assert error(a, found) <= tol
        needed = np.count_nonzero(tails > tol)
        assert needed <= len(found.idx) <= 12 * needed
        assert found.info.passes > 1
    capped = lk.interp_decomp(a, 30, tol=0.1, rng=0)
    assert len(capped.idx) == 30
    assert 0.7 < capped.info.error_estimate / error(a, capped) < 1.4


def test_tol_of_exact_rank(dtype):
    a = low_rank(1500, 300, 12, dtype)
    least = (64 + 4 * math.sqrt(1500)) * EPS[dtype]
    found = lk.interp_decomp(a, tol=1.001 * least, rng=0)
    assert len(found.idx) == 12
    assert error(a, found) <= 1.001 * least
    with pytest.raises(ValueError, match=r"tol: must be at least .* allows"):
        lk.interp_decomp(a, tol=0.999 * least, rng=0)


def test_zero_matrices():
    a = np.zeros((300, 40))
    found = lk.interp_decomp(a, 3, rng=0)
    assert error(a + 1, found) <= 1  # indices and coefficients are usable
    assert found.info.error_estimate == 0
    assert lk.interp_decomp(a, tol=0.1, rng=0).proj.shape == (0, 40)
    assert lk.interp_decomp(gaussian((300, 40)), 0, rng=0).info.error_estimate > 0.9


@pytest.mark.parametrize("scale", [1e-150, 1e-300, 1e150, 1e290])
def test_sizes_whose_squares_overflow(scale):
    a, _ = decaying(500, 80, "fast")
    for method in METHODS:
        found = lk.interp_decomp(a * scale, 6, method=method, rng=0)
        wanted = lk.interp_decomp(a, 6, method=method, rng=0)
        assert found.idx.tolist() == wanted.idx.tolist(), method
        assert np.abs(found.proj - wanted.proj).max() < 1e-8
        assert abs(found.info.error_estimate / wanted.info.error_estimate - 1) < 1e-6


# --- Kinds, batches, libraries -------------------------------------------------------------------


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_sparse_matrices_and_operators(method, rows, dtype):
    dense = low_rank(400, 150, 5, dtype)
    dense[np.random.default_rng(5).random(dense.shape) < 0.1] = 0
    wanted = lk.interp_decomp(dense, 20, method=method, rows=rows, rng=7)
    for x in (
        scipy.sparse.csr_array(dense),
        scipy.sparse.csc_matrix(dense),
        scipy.sparse.linalg.aslinearoperator(dense),
    ):
        found = lk.interp_decomp(x, 20, method=method, rows=rows, rng=7)
        assert type(found.proj) is np.ndarray
        assert found.proj.dtype == dense.dtype
        assert found.idx.tolist() == wanted.idx.tolist()
        assert abs(error(dense, found, rows) - error(dense, wanted, rows)) < 1e-4
        assert found.info.passes == 1
    tol = lk.interp_decomp(scipy.sparse.coo_array(dense), tol=0.5, rng=0)
    assert error(dense, tol) <= 0.5


def test_the_adjoint_is_checked():
    a = gaussian((90, 30))
    wrong = scipy.sparse.linalg.LinearOperator(
        (90, 30), matvec=lambda x: a @ x, rmatvec=lambda y: 2 * (a.T @ y), dtype=float
    )
    with pytest.raises(ValueError, match="adjoint"):
        lk.interp_decomp(wrong, 3, check_adjoint=True)
    right = scipy.sparse.linalg.aslinearoperator(a)
    assert lk.interp_decomp(right, 3, check_adjoint=True).proj.shape == (3, 30)


def test_batches():
    a = np.stack([decaying(200, 50, d)[0] for d in ("fast", "square", "fast", "slow")])
    a = a.reshape(2, 2, 200, 50)
    found = lk.interp_decomp(a, 5, rng=0)
    assert found.idx.shape == (2, 2, 5)
    assert found.proj.shape == (2, 2, 5, 50)
    assert found.info.error_estimate.shape == (2, 2)
    alone = lk.interp_decomp(a[1, 0], 5, rng=0)
    assert (found.proj[1, 0] == alone.proj).all()
    to_tol = lk.interp_decomp(a, tol=0.2, rng=0)
    largest = lk.interp_decomp(a[1, 1], tol=0.2, rng=0)
    assert to_tol.idx.shape[-1] == len(largest.idx)
    for i in np.ndindex(2, 2):
        member = a[i] - a[i][:, to_tol.idx[i]] @ to_tol.proj[i]
        assert np.linalg.norm(member) <= 0.2 * np.linalg.norm(a[i])


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 0, 5), (0, 50, 3)])
def test_empty(shape):
    a = np.empty(shape, "complex64")
    *batch, _, n = shape
    found = lk.interp_decomp(a, 0)
    assert found.idx.shape == (*batch, 0)
    assert found.proj.shape == (*batch, 0, n)
    assert found.proj.dtype == np.complex64


def test_layouts_are_not_written_to():
    a, _ = decaying(300, 40, "fast")
    wanted = lk.interp_decomp(a, 5, rng=0)
    wide = np.zeros((600, 80))
    wide[::2, ::2] = a
    frozen = a.copy()
    frozen.flags.writeable = False
    small = a[:30].copy()
    small.flags.writeable = False
    lk.interp_decomp(small, 5, rng=0)
    for x in (np.asfortranarray(a), wide[::2, ::2], frozen):
        kept = x.copy()
        for method in METHODS:
            lk.interp_decomp(x, 5, method=method, rng=0)
        assert (lk.interp_decomp(x, 5, rng=0).idx == wanted.idx).all()
        assert (x == kept).all()


def test_seeds():
    a = gaussian((300, 60))
    found = lk.interp_decomp(a, 8)
    again = lk.interp_decomp(a, 8, rng=found.info.seed)
    assert (found.proj == again.proj).all()
    assert lk.interp_decomp(a, 8).info.seed != found.info.seed
    assert lk.interp_decomp([[1, 2], [2, 4]], 1, rng=0).proj.dtype == np.float64


def test_other_libraries_get_their_own_arrays(xp):
    a, _ = decaying(300, 60, "fast")
    given = xp.asarray(a)
    for method in METHODS:
        for rows in (False, True):
            found = lk.interp_decomp(given, 6, rows=rows, method=method, rng=0)
            wanted = lk.interp_decomp(a, 6, rows=rows, method=method, rng=0)
            assert type(found.proj) is type(found.idx) is type(given)
            assert np.asarray(found.idx).tolist() == wanted.idx.tolist()
            assert np.abs(np.asarray(found.proj) - wanted.proj).max() < 1e-9
            assert type(found.info.error_estimate) is type(given)


def test_device_arrays_stay_on_the_device(cuda):
    a, _ = decaying(200, 40, "fast")
    given = cuda.array(a)
    for rows in (False, True):
        found = lk.interp_decomp(given, 5, rows=rows, rng=0)
        wanted = lk.interp_decomp(a, 5, rows=rows, rng=0)
        assert type(found.proj) is type(given)
        assert np.abs(cuda.host(found.proj) - wanted.proj).max() < 1e-9


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{"rank": 2}, {"tol": 0.5}, {"rank": 2, "method": "srrqr"}])
def test_bad_members(bad, options):
    a = gaussian((3, 200, 9))
    good = lk.interp_decomp(a, rng=0, **options)
    a[1, 50, 2] = bad
    with pytest.raises(NonFiniteError, match=r"a holds NaN.*\(1,\)") as caught:
        lk.interp_decomp(a, rng=0, **options)
    assert caught.value.index == ((1,),)
    with pytest.warns(ConvergenceWarning, match="holds NaN"):
        lk.interp_decomp(a, rng=0, on_fail="warn", **options)
    for more in ({"on_fail": "nan"}, {"check_finite": False}):
        found = lk.interp_decomp(a, rng=0, **more, **options)
        assert np.isnan(found.proj[1]).all()
        assert found.info.converged.tolist() == [True, False, True]
        if "rank" in options:
            assert (found.proj[[0, 2]] == good.proj[[0, 2]]).all()
    sparse = scipy.sparse.csr_array(a[1])
    with pytest.raises(NonFiniteError):
        lk.interp_decomp(sparse, rng=0, **options)


@pytest.mark.parametrize(
    ("call", "error_class", "sentence"),
    [
        (lambda a: lk.interp_decomp(a), ValueError, "rank, tol: one of them is needed"),
        (lambda a: lk.interp_decomp(a, 5), ValueError, r"rank: .* min\(m, n\) = 4, got 5"),
        (lambda a: lk.interp_decomp(a, -1), ValueError, "rank: must be at least 0"),
        (lambda a: lk.interp_decomp(a, 1.5), TypeError, "rank: must be an integer"),  # type: ignore[arg-type]
        (lambda a: lk.interp_decomp(a, tol=2.0), ValueError, "tol: must satisfy"),
        (lambda a: lk.interp_decomp(a, 2, method="svd"), ValueError, "method: must be one of"),  # type: ignore[arg-type]
        (lambda a: lk.interp_decomp(a, 2, oversample=-1), ValueError, "oversample: must be"),
        (lambda a: lk.interp_decomp(a[0], 1), ValueError, r"a: must have shape \(..., m, n\)"),
        (lambda a: lk.interp_decomp("x", 1), TypeError, "a: must be an array"),
        (lambda a: lk.interp_decomp(a, 2, rng="x"), (TypeError, ValueError), "rng: must be"),
    ],
)
def test_bad_arguments(call, error_class, sentence):
    with pytest.raises(error_class, match=sentence):
        call(gaussian((30, 4)))


def test_tracing_and_gradients_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        lk.interp_decomp(torch.ones((4, 2), requires_grad=True), 1)
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda x: lk.interp_decomp(x, 1))(jax.numpy.ones((4, 2)))
