"""Ridge paths, exact and sketched: normal equations, refits, the source paper's numbers, limits."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import brentq

from linalgk.errors import ConvergenceWarning, NonFiniteError, SingularMatrixError
from linalgk.sketch import SRCT, SRHT, CountSketch, Gaussian, SparseStack, TensorSketch
from linalgk.sketch._ridge import explain_ridge, implicit_ridge, ridge

ALPHAS = [0.01, 1.0, 100.0]
SHAPES = [(30, 12), (12, 30), (20, 20)]


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def smoother(a, alpha, intercept=False, maps=(None,)):
    """The matrix L with ``a x = L b``, member by member of an ensemble, straight from its law."""
    m = len(a)
    found = []
    for s in maps:
        z = a if s is None else a @ s.T
        centre = np.eye(m) - (np.ones((m, m)) / m if intercept else 0)
        z = centre @ z
        gram = z.conj().T @ z + alpha * np.eye(z.shape[1])
        found.append(z @ np.linalg.solve(gram, z.conj().T @ centre) + np.eye(m) - centre)
    return found


def members(make, k, n, count, a, b):
    """The operators that ridge makes, caught on their way."""
    seen = []

    def catching(k, n, rng):
        seen.append(make(k, n, rng=rng))
        return seen[-1]

    ridge(a, b, [1.0], sketch=catching, k=k, n_sketches=count)
    assert [s.shape for s in seen] == [(k, n)] * count
    return [s.toarray() for s in seen]


# --- Without a sketch ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_the_normal_equations_hold(dtype, shape):
    a, b = gaussian(shape, dtype), gaussian((shape[0], 2), dtype, 1)
    found = ridge(a, b, ALPHAS)
    assert found.coef.shape == (3, shape[1], 2)
    assert found.coef.dtype == a.dtype
    eps = np.finfo(dtype).eps
    for alpha, x in zip(ALPHAS, found.coef, strict=True):
        left = a.conj().T @ (a @ x - b) + alpha * x
        assert np.linalg.norm(left) < 50 * eps * np.linalg.norm(a, 2) ** 2 * np.linalg.norm(x)
    x, alpha = found
    assert alpha in found.alphas
    assert np.array_equal(x, found.coef[list(found.alphas).index(alpha)])
    assert np.array_equal(found.implicit_ridge, found.alphas)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_those_of_the_smoother_and_of_refits(dtype, shape, intercept):
    a, b = gaussian(shape, dtype), gaussian(shape[0], dtype, 1) + 3
    found = ridge(a, b, ALPHAS, fit_intercept=intercept)
    wide, m = a.astype(np.result_type(a, "float64")), shape[0]
    tol = 1e4 * np.finfo(dtype).eps
    for i, alpha in enumerate(ALPHAS):
        (smooth,) = smoother(wide, alpha, intercept)
        left = b - smooth @ b
        gcv = (abs(left) ** 2).mean() / (1 - np.trace(smooth).real / m) ** 2
        loo = (abs(left / (1 - np.diag(smooth))) ** 2).mean()
        assert abs(found.df[i] - np.trace(smooth).real) < tol * m
        assert abs(found.gcv[i] / gcv - 1) < 100 * tol
        assert abs(found.loo[i] / loo - 1) < 100 * tol
        fitted = a @ found.coef[i] + found.intercept[i]
        assert np.linalg.norm(fitted - smooth @ b) < tol * np.linalg.norm(b)
    assert found.alpha == found.alphas[np.argmin(found.gcv)]


def test_leaving_one_row_out_is_fitting_without_it():
    a, b = gaussian((15, 6)), gaussian(15, seed=1)
    found = ridge(a, b, [0.3], fit_intercept=True)
    errors = []
    for i in range(15):
        rest = np.arange(15) != i
        one = ridge(a[rest], b[rest], [0.3], fit_intercept=True)
        errors.append(b[i] - a[i] @ one.x - one.intercept[0])
    assert abs(found.loo[0] / np.mean(np.square(errors)) - 1) < 1e-12


def test_scikit_learn_finds_the_same():
    linear_model = pytest.importorskip("sklearn.linear_model")
    a, b = gaussian((40, 10)), gaussian(40, seed=1) + 5
    found = ridge(a, b, ALPHAS, fit_intercept=True)
    peer = linear_model.RidgeCV(ALPHAS, store_cv_results=True).fit(a, b)
    assert np.allclose(found.loo, peer.cv_results_.mean(axis=0), rtol=1e-12)
    one = linear_model.Ridge(alpha=ALPHAS[1]).fit(a, b)
    assert np.allclose(found.coef[1], one.coef_, rtol=0, atol=1e-13)
    assert abs(found.intercept[1] - one.intercept_) < 1e-13


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_a_ridge_of_zero_is_the_solution_of_least_norm(shape):
    a, b = gaussian(shape), gaussian(shape[0], seed=1)
    a[:, 1] = a[:, 0]
    found = ridge(a, b, [0.0, 1e-9])
    assert np.allclose(found.coef[0], np.linalg.pinv(a) @ b, rtol=0, atol=1e-13)
    # the limit, though both residual and trace vanish where the problem interpolates
    assert np.isfinite(found.gcv).all()
    assert abs(found.gcv[0] / found.gcv[1] - 1) < 1e-6
    assert abs(found.loo[0] / found.loo[1] - 1) < 1e-6


def test_rows_that_repeat_leave_part_of_an_interpolating_problem():
    a, b = gaussian((10, 40)), gaussian(10, seed=1)
    a[1] = a[0]
    found = ridge(a, b, [0.0, 1e-8, 1.0])
    for i, alpha in ((1, 1e-8), (2, 1.0)):
        (smooth,) = smoother(a, alpha)
        gcv = np.mean((b - smooth @ b) ** 2) / (1 - np.trace(smooth) / 10) ** 2
        assert abs(found.gcv[i] / gcv - 1) < 1e-6
    assert abs(found.gcv[0] / found.gcv[1] - 1) < 1e-6


def test_negative_ridges_stop_at_the_least_eigenvalue():
    a, b = gaussian((50, 5)), gaussian(50, seed=1)
    least = np.linalg.svd(a, compute_uv=False)[-1] ** 2
    found = ridge(a, b, [-0.9 * least, 1.0])
    left = a.T @ (a @ found.coef[0] - b) - 0.9 * least * found.coef[0]
    assert np.linalg.norm(left) < 1e-11
    with pytest.raises(SingularMatrixError, match=r"alphas: .* has no minimum") as caught:
        ridge(a, b, [-1.1 * least, 1.0])
    assert np.isnan(caught.value.result.coef[0]).all()
    assert np.isfinite(caught.value.result.coef[1]).all()
    assert caught.value.result.alpha == 1.0
    with pytest.raises(SingularMatrixError):
        ridge(a.T, b[:5], [-1e-6])
    with pytest.warns(ConvergenceWarning, match="has no minimum"):
        ridge(a, b, [-2 * least], on_fail="warn")


# --- Ensembles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("shape", [(30, 24), (12, 40)])
def test_an_ensemble_is_the_mean_of_its_members(dtype, shape, intercept):
    a, b = gaussian(shape, dtype), gaussian(shape[0], dtype, 1)
    m, k, count = shape[0], 16, 3
    maps = members(SparseStack, k, shape[1], count, a, b)
    found = ridge(
        a, b, ALPHAS, sketch="SparseStack", k=k, n_sketches=count, fit_intercept=intercept
    )
    wide, eps = a.astype(np.result_type(a, "float64")), np.finfo(dtype).eps
    for i, alpha in enumerate(ALPHAS):
        parts = smoother(wide, alpha, intercept, maps)
        smooth = np.mean(parts, axis=0)
        fitted = a @ found.coef[i] + found.intercept[i]
        assert np.linalg.norm(fitted - smooth @ b) < 1e4 * eps * np.linalg.norm(b)
        trace = 1 - np.trace(smooth).real / m
        left = [b - part @ b for part in parts]
        gcv = (abs(np.mean(left, axis=0)) ** 2).mean() / trace**2
        pairs = [np.vdot(left[i], left[j]).real for i in range(3) for j in range(3) if i != j]
        loo = np.mean([x / (1 - np.diag(p)) for x, p in zip(left, parts, strict=True)], axis=0)
        assert abs(found.gcv[i] / gcv - 1) < 1e6 * eps
        assert abs(found.ensemble_gcv[i] - np.mean(pairs) / m / trace**2) < 1e6 * eps * gcv
        assert abs(found.loo[i] / (abs(loo) ** 2).mean() - 1) < 1e6 * eps
        assert abs(found.df[i] - np.trace(smooth).real) < 1e4 * eps * m


def test_the_ensemble_trick_is_twice_two_less_one():
    a, b = gaussian((60, 50)), gaussian(60, seed=1)
    maps = members(SRCT, 20, 50, 2, a, b)
    found = ridge(a, b, [2.0], sketch="SRCT", k=20, n_sketches=2)
    parts = smoother(a, 2.0, maps=maps)
    trace = 1 - np.trace(sum(parts)) / 2 / 60
    one, two = (np.mean((b - part @ b) ** 2) / trace**2 for part in parts)
    assert abs(found.ensemble_gcv[0] - (2 * found.gcv[0] - (one + two) / 2)) < 1e-12
    assert np.isnan(ridge(a, b, [2.0], sketch="SRCT", k=20, n_sketches=1).ensemble_gcv[0])


def test_with_all_rows_an_orthogonal_sketch_changes_nothing():
    a, b = gaussian((30, 16)), gaussian((30, 2), seed=1)
    exact = ridge(a, b, [0.1, 10.0])
    for make in ("SRCT", "SRHT"):
        found = ridge(a, b, [0.1, 10.0], sketch=make, k=16, n_sketches=2)
        for name in ("coef", "gcv", "loo", "ensemble_gcv", "df", "implicit_ridge"):
            assert np.allclose(getattr(found, name), getattr(exact, name), rtol=1e-11)


def test_members_of_a_small_ensemble_begin_a_large_one():
    a, b = gaussian((20, 30)), gaussian(20, seed=1)
    one, two, three = (
        ridge(a, b, [1.0], sketch="Gaussian", k=10, n_sketches=i, rng=5).coef[0] for i in (1, 2, 3)
    )
    makes = members(Gaussian, 10, 30, 3, a, b)
    assert len({x.tobytes() for x in makes}) == 3
    second = 2 * two - one
    again = ridge(a, b, [1.0], sketch="Gaussian", k=10, n_sketches=3, rng=5)
    assert np.array_equal(again.coef[0], three)
    assert not np.allclose(second, one)
    replayed = ridge(a, b, [1.0], sketch=Gaussian, k=10, n_sketches=3, rng=again.info.seed)
    assert np.array_equal(replayed.coef, again.coef)
    assert not np.allclose(ridge(a, b, [1.0], sketch="Gaussian", k=10, rng=6).x, again.x)


def test_sparse_matrices_and_many_right_hand_sides():
    a = scipy.sparse.random_array((60, 80), density=0.2, rng=0, format="csr")
    b = gaussian((60, 3), seed=1)
    for options in ({}, {"sketch": "SparseStack", "k": 32}, {"sketch": "SRCT", "k": 30}):
        for intercept in (False, True):
            one = ridge(a, b, ALPHAS, fit_intercept=intercept, **options)
            two = ridge(a.toarray(), b, ALPHAS, fit_intercept=intercept, **options)
            for name in ("coef", "intercept", "gcv", "loo", "df"):
                assert np.allclose(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-11)
            assert one.alpha == two.alpha


def test_batches_are_fitted_member_by_member():
    a, b = gaussian((2, 3, 20, 12)), gaussian((2, 3, 20), seed=1)
    a[1, 1, :, 3] = a[1, 1, :, 4]
    for options in ({}, {"sketch": "SRCT", "k": 8}):
        found = ridge(a, b, ALPHAS, **options)
        assert found.coef.shape == (2, 3, 3, 12)
        assert found.gcv.shape == found.df.shape == (2, 3, 3)
        assert found.x.shape == (2, 3, 12)
        for i in np.ndindex(2, 3):
            one = ridge(a[i], b[i], ALPHAS, **options)
            assert np.allclose(found.coef[i], one.coef, rtol=1e-12)
            assert np.allclose(found.gcv[i], one.gcv, rtol=1e-11)
            assert found.alpha[i] == one.alpha
    assert ridge(a[:0], b[:0], ALPHAS).coef.shape == (0, 3, 3, 12)
    assert ridge(a[..., :0], b, ALPHAS).coef.shape == (2, 3, 3, 0)


def test_the_library_of_the_array_is_kept(xp):
    a, b = gaussian((30, 12)), gaussian((30, 2), seed=1)
    options = {"sketch": "SparseStack", "k": 8, "n_sketches": 2, "fit_intercept": True}
    found = ridge(xp.asarray(a), xp.asarray(b), ALPHAS, **options)
    exact = ridge(a, b, ALPHAS, **options)
    for name in ("x", "alpha", "coef", "gcv", "loo", "ensemble_gcv", "implicit_ridge"):
        value = getattr(found, name)
        assert type(value) is type(found.x) or xp is np
        assert np.allclose(np.asarray(value), getattr(exact, name), rtol=1e-9)


def test_dtypes_promote():
    a, b = gaussian((20, 5), "float32"), gaussian(20, "complex128", 1)
    assert ridge(a, b, 1.0).x.dtype == np.complex128
    assert ridge(a, b.real.astype("float32"), 1.0).x.dtype == np.float32
    assert ridge(np.arange(12).reshape(4, 3), np.arange(4), 1.0).x.dtype == np.float64


def test_without_gcv_there_are_no_scores():
    a, b = gaussian((20, 5)), gaussian(20, seed=1)
    found = ridge(a, b, ALPHAS, gcv=False)
    assert found.gcv is found.loo is found.ensemble_gcv is None
    assert found.alpha == ALPHAS[0]
    assert np.array_equal(found.coef, ridge(a, b, ALPHAS).coef)


def test_results_copy_and_tell_how_good_they_are():
    a, b = gaussian((20, 5)), gaussian(20, seed=1)
    found = ridge(a, b, ALPHAS, sketch="SRCT", k=4)
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert np.array_equal(again.coef, found.coef)
    info = found.info
    assert info.method == "sketched"
    assert bool(info.converged)
    assert abs(info.residual - np.linalg.norm(b - a @ found.x) / np.linalg.norm(b)) < 1e-14
    assert 0 < info.error_estimate < 1e-13
    assert info.to_dict()["n_sketches"] == 5


# --- The implicit ridge --------------------------------------------------------------------------


def haar(k, n, rng):
    """Orthonormal rows of any direction."""
    q = np.linalg.qr(Gaussian(k, n, rng=rng).toarray().T)[0]
    return q.T * np.sqrt(n / k)


def stack52(k, n, rng):
    """The source paper's CountSketch: int(10 log p) nonzeros in a column."""
    return SparseStack(k, n, nnz=52, rng=rng)


PAPER = {
    "Gaussian": ("Gaussian", Gaussian, 0.28258798720368217),
    "Haar": ("SRCT", haar, 0.1568608275054502),
    "CountSketch": ("Gaussian", stack52, 0.2810406378905132),
    "SRDCT": ("SRCT", SRCT, 0.15674844288322842),
}


@pytest.fixture(scope="module")
def paper():
    """The data of the notebook Ensembles of dlej/sketched-ridge: n = 140, p = 200, lambda = .1."""
    rng = np.random.default_rng(42)
    x = rng.normal(size=(140, 200))
    beta = rng.normal(size=200) / np.sqrt(200)
    return x, x @ beta + rng.normal(size=140), np.linalg.svd(x, compute_uv=False)


def unsketched(s, df):
    """The ridge without a sketch that has these degrees of freedom."""
    return brentq(lambda mu: (s**2 / (s**2 + mu)).sum() - df, 1e-200, 1e8)


@pytest.mark.stat
@pytest.mark.parametrize("name", PAPER)
def test_the_source_papers_implicit_ridges_are_reproduced(paper, name):
    """40 members: the mean of df has a standard error below 0.3 % of mu; measured within 0.5 %."""
    x, y, s = paper
    law, make, printed = PAPER[name]
    found = ridge(x, y, [0.1 * 140], sketch=make, k=156, n_sketches=40)
    measured = unsketched(s, found.df[0]) / 140
    assert abs(measured / printed - 1) < 0.02
    equation = implicit_ridge(s, 0.1 * 140, 156, n=200, sketch=law) / 140
    assert abs(equation / printed - 1) < 0.02
    assert abs(equation / measured - 1) < 0.02
    if name != "Haar":
        # the same without the singular values of x
        assert abs(found.implicit_ridge[0] / 140 / measured - 1) < 0.02
    else:
        assert np.isnan(found.implicit_ridge[0])


@pytest.mark.stat
@pytest.mark.parametrize("family", ["CountSketch", "SparseStack", "Gaussian", "SRHT", "SRCT"])
@pytest.mark.parametrize("k", [96, 152])
def test_the_implicit_equation_holds_for_every_law(paper, family, k):
    """24 members: standard errors of mu below 1 %, of a ridge near the limit below 2 %."""
    x, y, s = paper
    alphas = 140 * np.array([0.1, 1.0, 10.0])
    found = ridge(x, y, alphas, sketch=family, k=k, n_sketches=24)
    measured = np.array([unsketched(s, df) for df in found.df])
    equation = implicit_ridge(s, alphas, k, n=200, sketch=family)
    assert np.all(abs(equation / measured - 1) < 0.03)
    assert np.all(abs(found.implicit_ridge / measured - 1) < 0.04)


@pytest.mark.stat
def test_the_ensemble_trick_estimates_the_unsketched_risk():
    """The paper's second setting, n = 600, p = 800, q = 100; measured within 4 %."""
    rng = np.random.default_rng(0)
    n, p = 600, 800
    x = rng.normal(size=(n, p)) * np.sqrt(2 / (1 + 30 * np.linspace(0, 1, p)))
    beta = np.zeros(p)
    beta[:80] = rng.normal(size=80) / np.sqrt(80)
    y = x @ beta + rng.normal(scale=2, size=n)
    found = ridge(x, y, n * np.array([0.1, 1.0, 5.0]), sketch="SRCT", k=100, n_sketches=8)
    exact = ridge(x, y, found.implicit_ridge)
    assert np.all(abs(found.ensemble_gcv / exact.gcv - 1) < 0.08)
    assert np.all(abs(found.df / exact.df - 1) < 0.02)


def test_the_implicit_ridge_solves_its_equation():
    s = np.linalg.svd(gaussian((60, 90)), compute_uv=False)

    def df(mu):
        return (s**2 / (s**2 + mu)).sum()

    for k in (30, 80):
        for size, family in ((np.inf, "Gaussian"), (90, "SRCT"), (128, "SRHT")):
            for alpha in (1e-8, 1.0, 1e6):
                mu = implicit_ridge(s, alpha, k, n=90, sketch=family)
                assert mu > alpha * (1 - 1e-12)
                law = mu * (1 - df(mu) / k) / (1 - df(mu) / size)
                assert abs(law - alpha) < 1e-9 * max(alpha, 1)
            least = implicit_ridge(s, 0.0, k, n=90, sketch=family)
            assert least == 0 if k == 80 else abs(df(least) - 30) < 1e-9
    assert implicit_ridge(s, [0.5, 2.0], 90, sketch="SRCT", n=90) == pytest.approx([0.5, 2.0])
    paths = implicit_ridge(s, np.geomspace(1e-3, 1e3, 7), 40, n=90, sketch="CountSketch")
    assert np.all(np.diff(paths) > 0)
    assert paths.shape == (7,)


def test_an_ensemble_without_ridge_still_has_an_implicit_one(paper):
    x, y, s = paper
    for family in ("Gaussian", "SRCT", "CountSketch"):
        found = ridge(x, y, [0.0], sketch=family, k=80, n_sketches=16)
        equation = implicit_ridge(s, 0.0, 80, n=200, sketch=family)
        assert abs(found.implicit_ridge[0] / equation - 1) < 0.1
        assert np.isfinite(found.ensemble_gcv[0])


def test_a_sketch_of_unknown_law_has_no_implicit_ridge():
    a, b = gaussian((20, 30)), gaussian(20, seed=1)
    found = ridge(a, b, [1.0], sketch=lambda k, n, rng: TensorSketch(k, (5, 6), rng=rng), k=12)
    assert np.isnan(found.implicit_ridge).all()
    assert np.isfinite(found.gcv).all()
    few = ridge(a, b, [1.0], sketch=lambda k, n, rng: SparseStack(k, n, nnz=2, rng=rng), k=12)
    assert few.implicit_ridge[0] > ridge(a, b, [1.0], sketch=Gaussian, k=12).implicit_ridge[0] / 2


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alphas", "error", "words"),
    [
        ([], ValueError, "alphas: must hold at least one"),
        ([1.0, np.nan], ValueError, "alphas: must be finite, got nan"),
        ([np.inf], ValueError, "alphas: must be finite"),
        ([[1.0]], ValueError, r"alphas: .* shape \(1, 1\)"),
        ([1j], TypeError, "alphas: must be real"),
        ("1", TypeError, "alphas: must be"),
    ],
)
def test_ridges_are_checked(alphas, error, words):
    with pytest.raises(error, match=words):
        ridge(np.ones((4, 2)), np.ones(4), alphas)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sketch": "SRCT"}, ValueError, "k: the number of rows"),
        ({"sketch": "SRCT", "k": 0}, ValueError, "k: must be at least 1"),
        ({"sketch": "SRCT", "k": 3}, ValueError, "k: must be at most the 2 columns"),
        ({"sketch": "SRCT", "k": 2, "n_sketches": 0}, ValueError, "n_sketches: must be at least 1"),
        ({"sketch": "FJLT", "k": 2}, ValueError, "sketch: must be one of"),
        ({"sketch": 3, "k": 2}, TypeError, "sketch: must be a name"),
        ({"sketch": SRCT(2, 2, rng=0), "k": 2}, TypeError, "an ensemble needs several"),
        ({"sketch": lambda k, n, rng: np.ones((k, 5)), "k": 2}, ValueError, r"shape \(k, 2\)"),
        ({"k": 2}, ValueError, "k: is the size of a sketch"),
        ({"rcond": 2.0}, ValueError, "rcond: must"),
        ({"on_fail": "ignore"}, ValueError, "on_fail: must be one of"),
    ],
)
def test_options_are_checked(options, error, words):
    with pytest.raises(error, match=words):
        ridge(np.ones((4, 2)), np.ones(4), [1.0], **options)


@pytest.mark.parametrize("shape", [(5,), (4, 2, 1), (), (2, 4)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match=r"b: must have shape \(4\) or \(4, c\)"):
        ridge(np.ones((4, 2)), np.ones(shape), [1.0])


def test_members_with_nan_do_not_poison_the_others():
    a, b = gaussian((3, 10, 4)), gaussian((3, 10), seed=1)
    a[0, 2, 2], b[2, 0] = np.nan, np.inf
    for options in ({}, {"sketch": CountSketch, "k": 3}):
        with pytest.raises(NonFiniteError, match=r"members \(0,\), \(2,\)") as caught:
            ridge(a, b, ALPHAS, **options)
        found = ridge(a, b, ALPHAS, on_fail="nan", **options)
        one = ridge(a[1], b[1], ALPHAS, **options)
        for result in (found, caught.value.result):
            assert np.allclose(result.coef[1], one.coef, rtol=1e-12)
            assert np.isnan(result.coef[[0, 2]]).all()
            assert result.info.converged.tolist() == [False, True, False]


def test_the_implicit_equation_refuses_what_it_does_not_hold_for():
    s = np.ones(5)
    with pytest.raises(ValueError, match="alphas: must not be negative"):
        implicit_ridge(s, -1.0, 3, n=5)
    with pytest.raises(ValueError, match="k: must be at most n = 5"):
        implicit_ridge(s, 1.0, 6, n=5)
    with pytest.raises(ValueError, match="s: must be finite"):
        implicit_ridge(-s, 1.0, 3, n=5)
    with pytest.raises(ValueError, match="n: must be at least 5"):
        implicit_ridge(s, 1.0, 3, n=4)


def test_a_call_can_be_explained_without_computing():
    a, b = np.ones((100, 20)), np.ones(100)
    assert explain_ridge(a, b, [1.0]).method == "svd"
    told = explain_ridge(a, b, [1.0], sketch="SRHT", k=5)
    assert told.method == "sketched"
    assert told.flops > 0
    assert isinstance(SRHT(5, 20, rng=0).block, int)
