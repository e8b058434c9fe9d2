"""Leverage scores and Lewis weights: oracles, sums, invariances, certificates, failures."""

import math

import numpy as np
import pytest
import scipy.sparse

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.sketch import SparseStack, _leverage
from linalgk.sketch._leverage import choose_method

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
ORDERS = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def graded(m, n, dtype="float64", seed=0, spread=2.0):
    """Rows of very different sizes."""
    sizes = np.exp(spread * np.random.default_rng(seed + 100).standard_normal((m, 1)))
    return (gaussian((m, n), np.result_type(dtype, "float64"), seed) * sizes).astype(dtype)


def conditioned(m, n, kappa, dtype="float64", seed=0):
    wide = np.result_type(dtype, "float64")
    left = np.linalg.qr(gaussian((m, n), wide, seed))[0]
    right = np.linalg.qr(gaussian((n, n), wide, seed + 1))[0]
    return ((left * np.geomspace(1, 1 / kappa, n)) @ right.conj().T).astype(dtype)


def quadratic_forms(a, weights=None, damp=0.0):
    """``a_i^H (A^H W A + damp I)^-1 a_i`` to 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        x = mpmath.matrix(a.astype(np.result_type(a, "float64")).tolist())
        weights = [mpmath.mpf(1)] * x.rows if weights is None else weights
        gram = x.H * mpmath.diag(weights) * x + mpmath.mpf(damp) * mpmath.eye(x.cols)
        inverse = gram**-1
        return [mpmath.re((x[i, :] * inverse * x[i, :].H)[0]) for i in range(x.rows)]


def exact(a, damp=0.0):
    return np.array([float(x) for x in quadratic_forms(a, damp=damp)])


# --- Leverage scores -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [gaussian, graded], ids=["gaussian", "graded"])
@pytest.mark.parametrize("damp", [0.0, 0.5])
def test_scores_equal_those_of_sixty_digits(dtype, make, damp):
    a = make((15, 4), dtype) if make is gaussian else make(15, 4, dtype)
    scores = lk.leverage_scores(a, damp=damp)
    assert scores.dtype == np.zeros(0, dtype).real.dtype
    assert np.abs(scores - exact(a, damp)).max() < 50 * EPS[dtype]


@pytest.mark.parametrize("kappa", [1e3, 1e6, 1e10])
def test_the_error_is_eps_times_the_condition(kappa):
    a = conditioned(14, 4, kappa)
    scores, info = lk.leverage_scores(a, return_info=True)
    error = np.abs(scores - exact(a)).max()
    assert error < 10 * info.error_estimate
    assert 0.5 * kappa * EPS["float64"] < info.error_estimate < 2 * kappa * EPS["float64"]


def test_scores_add_up_to_the_rank(dtype):
    full = gaussian((40, 6), dtype)
    cases = {
        6: full,
        4: full[:, :4] @ gaussian((4, 9), dtype, 1),
        5: full[:5],  # more columns than rows: every row counts fully
        0: full * 0,
    }
    for rank, a in cases.items():
        scores, info = lk.leverage_scores(a, return_info=True)
        assert abs(scores.sum() - rank) < 100 * EPS[dtype]
        assert scores.min() >= 0
        assert scores.max() < 1 + 50 * EPS[dtype]
        assert info.residual < 100 * EPS[dtype]
    assert np.abs(lk.leverage_scores(full[:5]) - 1).max() < 50 * EPS[dtype]


def test_the_scores_are_those_of_the_column_space():
    a = graded(30, 5)
    scores = lk.leverage_scores(a)
    order = np.random.default_rng(0).permutation(30)
    assert np.abs(lk.leverage_scores(a @ gaussian((5, 5), seed=3)) - scores).max() < 1e-12
    assert np.abs(lk.leverage_scores(a[order]) - scores[order]).max() < 1e-13
    # a row in two parts shares its score
    twice = np.concatenate([a, a[:1]]) * np.concatenate([[0.6], np.ones(29), [0.8]])[:, None]
    split = lk.leverage_scores(twice)
    assert abs(split[0] + split[30] - scores[0]) < 1e-13
    assert np.abs(split[1:30] - scores[1:]).max() < 1e-13
    for scale in (1e-150, 1e150):
        assert np.abs(lk.leverage_scores(scale * a) - scores).max() < 1e-13


def test_a_score_is_the_largest_share_of_its_row():
    a = graded(25, 4)
    scores = lk.leverage_scores(a)
    shares = (a @ gaussian((4, 500), seed=1)) ** 2
    shares /= shares.sum(axis=0)
    assert (shares <= scores[:, None] * (1 + 1e-12)).all()
    best = np.linalg.solve(a.T @ a, a.T)  # attained at x = (A^T A)^-1 a_i
    attained = (a @ best) ** 2
    assert np.abs(np.diag(attained / attained.sum(axis=0)) - scores).max() < 1e-13


def test_ridge_scores_one_damp_for_each_member():
    a = gaussian((3, 20, 4), seed=2)
    damps = np.array([0.0, 1.0, 1e8])
    scores, info = lk.leverage_scores(a, damp=damps, return_info=True)
    for member, damp, row in zip(a, damps, scores, strict=True):
        s = np.linalg.svd(member, compute_uv=False)
        assert np.abs(row - exact(member, damp)).max() < 1e-14
        assert abs(row.sum() - (s**2 / (s**2 + damp)).sum()) < 1e-13
    assert info.residual.shape == (3,)
    deficient = a[0] @ np.ones((4, 4))
    one = a[0].sum(axis=1)
    wanted = 4 * one**2 / (4 * (one @ one) + 2.0)
    assert np.abs(lk.leverage_scores(deficient, damp=2.0) - wanted).max() < 1e-14


def test_rcond_cuts_small_directions():
    a = np.diag([1.0, 1e-3, 1e-9])
    assert np.abs(lk.leverage_scores(a) - 1).max() < 1e-14
    assert np.abs(lk.leverage_scores(a, rcond=1e-5) - [1, 1, 0]).max() < 1e-14


def test_batches_strides_and_kinds_of_input():
    a = gaussian((2, 3, 20, 4))
    whole = lk.leverage_scores(a)
    assert whole.shape == (2, 3, 20)
    assert (whole[1, 2] == lk.leverage_scores(a[1, 2])).all()
    sketched = lk.leverage_scores(gaussian((2, 300, 3)), method="sketched")
    assert (sketched[1] == lk.leverage_scores(gaussian((2, 300, 3))[1], method="sketched")).all()
    fortran, before = np.asfortranarray(a[0, 0]), a[0, 0].copy()
    fortran.flags.writeable = False
    assert np.abs(lk.leverage_scores(fortran) - whole[0, 0]).max() < 1e-14
    assert (fortran == before).all()
    assert np.abs(lk.leverage_scores(np.repeat(a[0, 0], 2, 0)[::2]) - whole[0, 0]).max() < 1e-14
    assert lk.leverage_scores([[1, 0], [0, 2]]).tolist() == [1.0, 1.0]
    assert lk.leverage_scores(np.array([[3], [4]], np.int32)).round(12).tolist() == [0.36, 0.64]


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0), (0, 5, 3), (2, 0, 4)])
def test_empty(shape):
    for method in ("exact", "sketched"):
        scores = lk.leverage_scores(np.zeros(shape, np.float32), method=method)
        assert scores.shape == shape[:-1]
        assert scores.dtype == np.float32
        assert not scores.any()
    assert lk.lewis_weights(np.zeros(shape), 1.0).shape == shape[:-1]


# --- Sketched ------------------------------------------------------------------------------------


def spiked(m, n, dtype="float64", seed=0):
    """A few rows carry a direction each, the others share the rest."""
    a = gaussian((m, n), dtype, seed)
    a[: n // 2] = 0
    a[np.arange(n // 2), np.arange(n // 2)] = 1e3
    return a


@pytest.mark.parametrize("make", [gaussian, graded, spiked], ids=["gaussian", "graded", "spiked"])
def test_sketched_scores_keep_the_bound_of_the_measured_distortion(dtype, make):
    m, n, k = 1500, 10, 120
    a = make((m, n), dtype) if make is gaussian else make(m, n, dtype)
    scores, info = lk.leverage_scores(a, method="sketched", rng=5, return_info=True)
    wide = a.astype(np.result_type(dtype, "float64"))
    basis = np.linalg.qr(wide)[0]
    truth = (np.abs(basis) ** 2).sum(axis=1)
    lengths = np.linalg.svd(SparseStack(k, m, nnz=8, rng=5) @ basis, compute_uv=False)
    eta = max(lengths[0] - 1, 1 - lengths[-1])
    slack = 1 + 2000 * EPS[dtype]
    assert 0 < eta < 1
    assert (scores <= slack * truth / (1 - eta) ** 2).all()
    assert (scores * slack >= truth / (1 + eta) ** 2).all()
    factor = 1 + info.error_estimate
    assert (scores <= slack * factor * truth).all()
    assert (truth <= slack * factor * scores).all()
    wanted = max(lengths[0] ** 2, lengths[-1] ** -2)
    assert abs(factor / wanted - 1) < 5000 * EPS[dtype]
    assert info.method == "sketched"


def test_the_sketch_follows_its_seed():
    a = gaussian((800, 5))
    one = lk.leverage_scores(a, method="sketched", rng=1)
    assert (one == lk.leverage_scores(a, method="sketched", rng=1)).all()
    assert (one != lk.leverage_scores(a, method="sketched", rng=2)).all()
    first = lk.leverage_scores(a, method="sketched")
    assert (first == lk.leverage_scores(a, method="sketched", rng=0)).all()
    bound = [
        lk.leverage_scores(a, method="sketched", k=k, return_info=True)[1].error_estimate
        for k in (16, 64, 640)
    ]
    assert bound[0] > bound[1] > bound[2]


def test_sketched_ridge_scores_and_deficient_rank():
    a = graded(900, 6, spread=1.0)
    for damp in (0.0, 10.0, 1e6):
        truth = lk.leverage_scores(a, damp=damp)
        scores, info = lk.leverage_scores(a, damp=damp, method="sketched", return_info=True)
        ratio = scores / truth
        assert max(ratio.max(), 1 / ratio.min()) <= 1 + info.error_estimate + 1e-12
        assert info.error_estimate < 2
    deficient = a[:, :3] @ gaussian((3, 6), seed=1)
    scores, info = lk.leverage_scores(deficient, method="sketched", return_info=True)
    ratio = scores / lk.leverage_scores(deficient)
    assert max(ratio.max(), 1 / ratio.min()) <= 1 + info.error_estimate + 1e-9
    assert not lk.leverage_scores(np.zeros((500, 4)), method="sketched").any()


@pytest.mark.parametrize("form", ["csr_array", "csc_array", "coo_matrix"])
def test_sparse_matrices(form):
    dense = gaussian((700, 8)) * (np.random.default_rng(3).random((700, 8)) < 0.2)
    dense[:3] = 0
    a = getattr(scipy.sparse, form)(dense)
    before = a.copy()
    scores = lk.leverage_scores(a, method="exact")
    assert np.abs(scores - lk.leverage_scores(dense)).max() < 1e-13
    assert not scores[:3].any()
    sketched, info = lk.leverage_scores(a, return_info=True)
    assert info.method == "sketched"
    assert np.abs(sketched - lk.leverage_scores(dense, method="sketched")).max() < 1e-12
    ridge = lk.leverage_scores(a, method="exact", damp=3.0)
    assert np.abs(ridge - lk.leverage_scores(dense, damp=3.0)).max() < 1e-13
    assert (before != a).nnz == 0


def test_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(_leverage, "_BLOCK", 1)  # 256 rows at once
    a = scipy.sparse.random_array((900, 30), density=0.02, rng=np.random.default_rng(0))
    scores = lk.leverage_scores(a.tocsr(), method="exact")
    assert np.abs(scores - lk.leverage_scores(a.toarray())).max() < 1e-12
    sketched, info = lk.leverage_scores(a.tocsr(), method="sketched", return_info=True)
    seen = scores > 1e-9
    ratio = sketched[seen] / scores[seen]
    assert max(ratio.max(), 1 / ratio.min()) <= 1 + info.error_estimate + 1e-9


def test_the_choice_of_a_method():
    assert choose_method(100, 10, 120) == (
        "exact", "a sketch of k = 120 rows is not smaller than m = 100",
    )  # fmt: skip
    assert choose_method(100, 10, 120, method="sketched")[0] == "exact"
    assert choose_method(10**6, 10, 120)[0] == "exact"
    assert choose_method(10**6, 10, 120, method="sketched")[0] == "sketched"
    assert choose_method(10**6, 10, 120, sparse=True)[0] == "sketched"
    assert choose_method(10**6, 10, 120, sparse=True, method="exact")[0] == "exact"
    a = gaussian((50, 6))
    found = lk.leverage_scores(a, method="sketched", return_info=True)
    assert found[1].method == "exact"
    assert (found[0] == lk.leverage_scores(a)).all()


# --- Lewis weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("p", ORDERS)
def test_lewis_weights_solve_their_equation(p):
    """The right-hand side to 60 digits, for rows of sizes that span four orders."""
    mpmath = pytest.importorskip("mpmath")
    a = graded(12, 3, seed=4)
    w, info = lk.lewis_weights(a, p, return_info=True)
    with mpmath.workdps(60):
        scales = [mpmath.mpf(float(x)) ** (1 - 2 / mpmath.mpf(p)) for x in w]
        forms = quadratic_forms(a, scales)
        ratios = [float(q ** (mpmath.mpf(p) / 2) / float(x)) for q, x in zip(forms, w, strict=True)]
    assert np.abs(np.array(ratios) - 1).max() < 1.5e-10
    assert abs(w.sum() - 3) < 1e-9
    assert w.max() <= 1 + 1e-9
    assert info.residual <= 1e-10
    assert info.error_estimate <= 1.000001e-10
    assert info.converged


@pytest.mark.parametrize("p", [0.05, 0.5, 1.0, 3.0, 4.0, 7.5, 30.0])
def test_lewis_weights_of_one_column(p):
    a = graded(50, 1)
    wanted = np.abs(a[:, 0]) ** p / (np.abs(a[:, 0]) ** p).sum()
    assert np.abs(lk.lewis_weights(a, p) / wanted - 1).max() < 1e-9


@pytest.mark.parametrize("p", ORDERS)
def test_laws_of_lewis_weights(p, dtype):
    a = graded(60, 5, dtype, seed=6)
    tight = 2e-9 if dtype in ("float64", "complex128") else 2e-4
    w = lk.lewis_weights(a, p)
    assert w.dtype == a.real.dtype
    assert abs(w.sum() - 5) < 5 * tight
    # they are the leverage scores of W^(1/2-1/p) A
    scaled = w.astype("float64")[:, None] ** (0.5 - 1 / p) * a
    assert np.abs(lk.leverage_scores(scaled) - w).max() < tight
    # of the column space
    mixed = (a @ gaussian((5, 5), dtype, 7)).astype(dtype)
    assert np.abs(lk.lewis_weights(mixed, p) - w).max() < 100 * tight
    # a row in two halves: |a_i x|^p = 2 |2^(-1/p) a_i x|^p
    halves = np.concatenate([a, a[:1]])
    halves[[0, -1]] *= 2 ** (-1 / p)
    split = lk.lewis_weights(halves, p)
    assert np.abs(split[1:-1] - w[1:]).max() < tight
    assert np.abs(split[[0, -1]] - w[0] / 2).max() < tight


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 4.0, 6.0])
def test_lewis_weights_bound_the_sensitivities(p):
    """``max_x |a_i x|^p / ||A x||_p^p`` over a fine circle, n = 2, and over random directions."""
    for n in (2, 5):
        a = graded(40, n, seed=8, spread=1.0)
        w = lk.lewis_weights(a, p)
        angles = np.linspace(0, np.pi, 20001)
        x = np.stack([np.cos(angles), np.sin(angles)]) if n == 2 else gaussian((n, 20000), seed=9)
        shares = np.abs(a @ x) ** p
        sensitivity = (shares / shares.sum(axis=0)).max(axis=1)
        assert (sensitivity <= n ** max(0.0, p / 2 - 1) * w * (1 + 1e-9)).all()
        if n == 2:
            assert sensitivity.sum() > 0.8 * n ** min(1.0, p / 2)  # the bound says something


@pytest.mark.parametrize("p", [0.3, 1.0, 5.0, 20.0])
def test_lewis_weights_of_hard_matrices(p):
    """Rows of zeros, deficient rank, ill-conditioned columns, one row that is needed."""
    a = graded(80, 4, seed=10, spread=4.0)
    a[5], a[:, 3] = 0, 0
    a[7] = [0, 0, 0, 1e-3]
    w = lk.lewis_weights(a, p)
    assert w[5] == 0
    assert abs(w[7] - 1) < 1e-9
    assert abs(w.sum() - 4) < 1e-8
    deficient = graded(80, 4, seed=10) @ gaussian((4, 7), seed=1)
    assert abs(lk.lewis_weights(deficient, p).sum() - 4) < 1e-8
    steep = conditioned(60, 4, 1e9, seed=11)
    q = np.linalg.qr(steep)[0]
    assert np.abs(lk.lewis_weights(steep, p) - lk.lewis_weights(q, p)).max() < 1e-5
    assert np.abs(lk.lewis_weights(gaussian((4, 6)), p) - 1).max() < 1e-10
    assert not lk.lewis_weights(np.zeros((6, 2)), p).any()


def test_lewis_weights_at_two_are_leverage_scores():
    a = graded(70, 6)
    w, info = lk.lewis_weights(a, 2, return_info=True)
    assert np.abs(w - lk.leverage_scores(a)).max() < 1e-13
    assert info.iterations == 1


def test_lewis_iterations_fall_at_the_stated_rate():
    a = graded(200, 6, spread=1.0)
    for p in (1.0, 3.0, 4.0, 8.0, 16.0):
        _, info = lk.lewis_weights(a, p, return_info=True)
        rate = abs(2 - p) / (2 + p)
        assert info.iterations <= 3 + 1.3 * math.log(1e-10) / math.log(rate)


def test_a_batch_of_lewis_weights():
    a = np.stack([graded(30, 4, seed=s) for s in range(4)]).reshape(2, 2, 30, 4)
    w, info = lk.lewis_weights(a, 1.0, return_info=True)
    assert w.shape == (2, 2, 30)
    assert info.iterations.shape == (2, 2)
    assert (w[1, 0] == lk.lewis_weights(a[1, 0], 1.0)).all()
    loose = lk.lewis_weights(a[0, 0], 1.0, tol=1e-2)
    assert 1e-9 < np.abs(loose / w[0, 0] - 1).max() < 1e-2


def test_lewis_weights_that_do_not_converge():
    a = np.stack([gaussian((20, 2)), np.eye(20, 2)])
    with pytest.raises(NotConvergedError, match=r"after 3 iterations.*members \(0,\)") as caught:
        lk.lewis_weights(a, 8.0, max_iter=3)
    assert caught.value.index == ((0,),)
    assert np.abs(caught.value.result[1] - np.eye(20, 2).sum(axis=1)).max() < 1e-12
    assert np.isnan(caught.value.result[0]).all()
    with pytest.warns(ConvergenceWarning, match="larger max_iter"):
        lk.lewis_weights(a, 8.0, max_iter=3, on_fail="warn")
    w, info = lk.lewis_weights(a, 8.0, max_iter=3, on_fail="nan", return_info=True)
    assert np.isnan(w[0]).all()
    assert info.converged.tolist() == [False, True]


# --- Libraries and failures ----------------------------------------------------------------------


def test_other_libraries_get_their_own_arrays(xp):
    a = graded(200, 5)
    given = xp.asarray(a)
    for name, function in (
        ("exact", lambda x: lk.leverage_scores(x)),
        ("ridge", lambda x: lk.leverage_scores(x, damp=0.5)),
        ("sketched", lambda x: lk.leverage_scores(x, method="sketched")),
        ("lewis", lambda x: lk.lewis_weights(x, 1.0)),
    ):
        found = function(given)
        assert type(found) is type(given), name
        assert np.abs(np.asarray(found) - function(a)).max() < 1e-9, name
    _, info = lk.leverage_scores(given[None, ...], return_info=True)
    assert type(info.error_estimate) is type(given)


def test_scores_of_device_arrays_stay_on_the_device(cuda):
    a = graded(60, 4)
    given = cuda.array(np.stack([a, 2 * a]))
    for function in (
        lambda x: lk.leverage_scores(x),
        lambda x: lk.leverage_scores(x, damp=0.5),
        lambda x: lk.lewis_weights(x, 1.0),
    ):
        found = function(given)
        assert type(found) is type(given)
        assert np.abs(cuda.host(found)[0] - function(a)).max() < 1e-9


def test_frameworks_are_told_what_is_not_offered():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        lk.leverage_scores(torch.ones((4, 2), requires_grad=True))


def test_tracing_is_refused():
    jax = pytest.importorskip("jax")
    for function in (lk.leverage_scores, lambda x: lk.lewis_weights(x, 1.0)):
        with pytest.raises(TypeError, match="cannot be traced"):
            jax.jit(function)(jax.numpy.ones((4, 2)))


@pytest.mark.parametrize("method", ["exact", "sketched"])
def test_bad_members(method):
    a = gaussian((3, 400, 3))
    good = lk.leverage_scores(a, method=method)
    a[1, 5, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"a holds NaN.*\(1,\)") as caught:
        lk.leverage_scores(a, method=method)
    assert caught.value.index == ((1,),)
    assert (caught.value.result[[0, 2]] == good[[0, 2]]).all()
    with pytest.warns(ConvergenceWarning, match="holds NaN"):
        lk.leverage_scores(a, method=method, on_fail="warn")
    for options in ({"on_fail": "nan"}, {"check_finite": False}):
        scores, info = lk.leverage_scores(a, method=method, return_info=True, **options)
        assert np.isnan(scores[1]).all()
        assert (scores[[0, 2]] == good[[0, 2]]).all()
        assert info.converged.tolist() == [True, False, True]
        assert np.isnan(info.error_estimate[1])
    with pytest.raises(NonFiniteError, match="lewis_weights: a holds"):
        lk.lewis_weights(a[1], 1.0)
    sparse = scipy.sparse.csr_array(a[1])
    with pytest.raises(NonFiniteError):
        lk.leverage_scores(sparse, method=method)
    assert np.isnan(lk.leverage_scores(sparse, method=method, on_fail="nan")).all()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: lk.leverage_scores(np.ones(3)), ValueError, r"a: must have shape \(..., m, n\)"),
        (lambda: lk.leverage_scores("x"), TypeError, "a: must be an array"),
        (lambda: lk.leverage_scores(np.ones((3, 2), "float16")), TypeError, "a: dtype"),
        (lambda: lk.leverage_scores(np.ones((3, 2)), method="svd"), ValueError, "method: must be"),  # type: ignore[arg-type]
        (lambda: lk.leverage_scores(np.ones((3, 2)), damp=-1.0), ValueError, "damp: must"),
        (lambda: lk.leverage_scores(np.ones((3, 2)), damp=[1.0]), ValueError, "damp: .*shape"),
        (lambda: lk.leverage_scores(np.ones((9, 4)), k=3), ValueError, "k: must be at least 8"),
        (lambda: lk.leverage_scores(np.ones((9, 4)), k=9.5), TypeError, "k: must be an integer"),  # type: ignore[arg-type]
        (lambda: lk.leverage_scores(np.ones((3, 2)), rcond=2), ValueError, "rcond: must"),
        (lambda: lk.lewis_weights(np.ones((3, 2)), 0.0), ValueError, "p: must satisfy 0 < p"),
        (lambda: lk.lewis_weights(np.ones((3, 2)), math.inf), ValueError, "p: must satisfy"),
        (lambda: lk.lewis_weights(np.ones((3, 2)), "1"), TypeError, "p: must be a real"),  # type: ignore[arg-type]
        (lambda: lk.lewis_weights(np.ones((3, 2)), 1.0, tol=1e-17), ValueError, "tol: must"),
        (lambda: lk.lewis_weights(np.ones((3, 2)), 1.0, max_iter=0), ValueError, "max_iter: must"),
        (
            lambda: lk.lewis_weights(scipy.sparse.csr_array(np.ones((3, 2))), 1.0),
            TypeError,
            r"a: must be a dense array, got csr_array; use a.toarray\(\)",
        ),
    ],
)
def test_bad_arguments(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
