"""Measured distortion, and recommended sizes: laws, exact identities, promised failures."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from linalgk.errors import NonFiniteError
from linalgk.sketch import SRCT, SRHT, CountSketch, Gaussian, SparseStack
from linalgk.sketch._advice import (
    GOALS,
    distortion,
    explain_distortion,
    explain_recommend,
    recommend,
)


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def coherent(m, n):
    """All weight on n rows."""
    return np.eye(m, n) + 1e-9 * gaussian((m, n))


def oracle(s, q):
    values = np.linalg.svd(s @ q, compute_uv=False)
    least = values[-1] if s.shape[0] >= q.shape[1] else 0.0
    return max(values[0] - 1, 1 - least)


# --- Distortion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [SparseStack, SRHT, SRCT, Gaussian, CountSketch])
def test_distortion_equals_that_of_an_orthonormal_basis(dtype, family):
    a = gaussian((300, 6), dtype)
    s = family(64, 300, rng=1)
    wide = np.linalg.qr(a.astype(np.result_type(a, "float64")))[0]
    eta = distortion(s, a)
    assert eta.dtype == np.dtype(dtype).type(0).real.dtype
    assert abs(eta - oracle(s.toarray(), wide)) < 50 * np.finfo(dtype).eps


def test_distortion_is_of_the_space_not_of_its_basis():
    a = gaussian((400, 5))
    s = SparseStack(64, 400, rng=0)
    turned = a @ np.triu(gaussian((5, 5), seed=1)) @ np.diag(10.0 ** np.arange(5))
    assert abs(distortion(s, a) - distortion(s, turned)) < 1e-9
    repeated = np.concatenate([a, a @ gaussian((5, 3), seed=2)], axis=1)
    assert abs(distortion(s, a) - distortion(s, repeated)) < 1e-12


def test_an_orthogonal_sketch_has_none():
    a = gaussian((64, 7))
    assert distortion(SRHT(64, 64, rng=3), a) < 1e-14
    assert distortion(SRCT(64, 64, rng=3), a) < 1e-14
    assert distortion(np.eye(64), a) < 1e-14


def test_a_sketch_that_loses_a_vector_has_at_least_one():
    a = gaussian((50, 12))
    assert distortion(SparseStack(8, 50, rng=0), a) >= 1
    assert distortion(np.zeros((20, 50)), a) == 1


@pytest.mark.parametrize(
    "a", [np.zeros((40, 3)), np.zeros((40, 0)), scipy.sparse.csr_array((40, 3))]
)
def test_no_column_space_has_no_distortion(a):
    assert distortion(SparseStack(16, 40, rng=0), a) == 0


@pytest.mark.parametrize("family", [SparseStack, SRHT, Gaussian])
def test_sparse_matrices_are_measured_like_dense_ones(family):
    a = scipy.sparse.random_array((20_000, 7), density=0.05, rng=0, format="csr")
    a = scipy.sparse.hstack([a, 2 * a[:, [6]]], format="csr")
    s = family(96, 20_000, rng=0)
    assert abs(distortion(s, a) - distortion(s, a.toarray())) < 1e-13
    assert abs(distortion(s, a.tocsc()) - distortion(s[:, :].toarray(), a)) < 1e-13
    graded = a @ scipy.sparse.diags_array(10.0 ** np.arange(8))
    assert abs(distortion(s, graded) - distortion(s, graded.toarray())) < 1e-7


def test_batches_are_measured_member_by_member():
    a = gaussian((2, 3, 100, 4))
    a[1, 2, :, 3] = a[1, 2, :, 0]
    s = SparseStack(48, 100, rng=0)
    eta = distortion(s, a)
    assert eta.shape == (2, 3)
    assert eta[1, 2] == distortion(s, a[1, 2])
    assert distortion(s, a[:0]).shape == (0, 3)


def test_the_library_of_the_array_is_kept(xp):
    a = gaussian((100, 4))
    s = SparseStack(48, 100, rng=0)
    eta = distortion(s, xp.asarray(a))
    assert type(eta) is type(xp.asarray(0.0)) or xp is np
    assert abs(float(eta) - distortion(s, a)) < 1e-14


def test_distortion_refuses_what_does_not_fit():
    s = SparseStack(16, 40, rng=0)
    with pytest.raises(ValueError, match=r"S: has shape \(16, 40\).*\(41, 3\)"):
        distortion(s, np.ones((41, 3)))
    with pytest.raises(TypeError, match="S: must be a sketch"):
        distortion(3, np.ones((40, 3)))
    bad = np.ones((2, 40, 3))
    bad[1, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"batch members \(1,\)") as caught:
        distortion(s, bad)
    assert np.isfinite(caught.value.result[0])
    assert np.isnan(caught.value.result[1])


def test_the_condition_of_a_preconditioned_matrix_is_bounded():
    a = gaussian((2000, 10)) @ np.diag(10.0 ** np.arange(10))
    s = SparseStack(120, 2000, rng=0)
    eta = distortion(s, a)
    r = np.linalg.qr(s @ a, mode="r")
    assert np.linalg.cond(np.linalg.solve(r.T, a.T)) <= (1 + eta) / (1 - eta) * (1 + 1e-6)


# --- Recommendations -----------------------------------------------------------------------------


@pytest.mark.stat
@pytest.mark.parametrize("make", [gaussian, coherent], ids=["gaussian", "coherent"])
@pytest.mark.parametrize("family", ["Gaussian", "SRHT", "CountSketch", "SparseStack", None])
def test_promised_failures_are_not_exceeded(make, family):
    """At the promised 10 % more than 16 of 60 fail by chance with probability 5e-5."""
    shape, n = (4000, 3), 3
    q = np.linalg.qr(make(shape) if make is gaussian else make(*shape))[0]
    if family is None:
        advice, practical = recommend(4000, n, fail_prob=0.1), True
    else:
        advice, practical = recommend(4000, n, fail_prob=0.1, family=family), False
        assert advice.guaranteed
        assert advice.family == family
        assert advice.k < 4000
    etas = [oracle(advice.make(rng=i, practical=practical), q) for i in range(60)]
    assert np.count_nonzero(np.array(etas) > advice.distortion) <= 16


@pytest.mark.stat
@pytest.mark.slow
@pytest.mark.parametrize("make", [gaussian, coherent], ids=["gaussian", "coherent"])
@pytest.mark.parametrize("n", [5, 20, 60])
def test_practical_sizes_hold_as_gaussian_ones_do(make, n):
    """At the promised 5 % more than 60 of 600 fail by chance with probability 1e-6."""
    q = np.linalg.qr(make((8000, n)) if make is gaussian else make(8000, n))[0]
    advice = recommend(8000, n, fail_prob=0.05)
    etas = [oracle(advice.make(rng=i, practical=True), q) for i in range(600)]
    assert np.count_nonzero(np.array(etas) > 0.5) <= 60


def test_gaussian_rows_solve_the_bound_of_davidson_and_szarek():
    advice = recommend(10**5, 30, distortion=0.3, fail_prob=1e-3, family="Gaussian")
    fails = [
        2 * math.exp(-k * max(0.0, 0.3 - math.sqrt(30 / k)) ** 2 / 2)
        for k in (advice.k - 1, advice.k)
    ]
    assert fails[1] <= 1e-3 < fails[0]


@pytest.mark.stat
def test_the_second_moment_behind_the_sparse_sizes_is_exact():
    """The mean of 400 squares misses its expectation by 4.5 sigma with probability 7e-6."""
    m, d, k = 200, 4, 32
    q = np.linalg.qr(gaussian((m, d)) * np.exp(gaussian((m, 1), seed=1)))[0]
    expected = (d * d + d - 2 * (np.linalg.norm(q, axis=1) ** 4).sum()) / k
    for make in (CountSketch, SparseStack):
        found = []
        for seed in range(400):
            y = make(k, m, rng=seed) @ q
            found.append(np.linalg.norm(y.T @ y - np.eye(d)) ** 2)
        error = np.std(found) / math.sqrt(len(found))
        assert abs(np.mean(found) - expected) < 4.5 * error
    bound = (d * d + d - 2 * d * d / m) / k
    assert expected <= bound
    advice = recommend(m, d, distortion=0.9, fail_prob=0.9, family="CountSketch")
    assert bound * k / advice.k / (0.9 * 1.1) ** 2 <= 0.9


def test_srht_rows_meet_the_chernoff_bound():
    m, n, eps, delta = 10**6, 50, 0.5, 0.01
    advice = recommend(m, n, family="SRHT")
    size = advice.options["block"]
    assert size == 1 << 20

    def fails(k, beta):
        coherence = (math.sqrt(n) + math.sqrt(8 * math.log(beta * size))) ** 2
        tails = 0.0
        for change in (-(2 * eps - eps**2), 2 * eps + eps**2):
            h = (1 + change) * math.log1p(change) - change
            tails += n * math.exp(-k * h / coherence)
        return 1 / beta + tails

    betas = np.geomspace(1.01 / delta, 1e6, 400)
    assert min(fails(advice.k, beta) for beta in betas) <= delta * (1 + 1e-3)
    assert min(fails(int(0.99 * advice.k), beta) for beta in betas) > delta


@pytest.mark.parametrize(("goal", "scale"), [("linf", math.sqrt(1 / 12)), ("interval", 1.0)])
def test_student_sizes_are_the_least(goal, scale):
    n, eps, delta = 12, 0.4, 0.02
    advice = recommend(10**6, n, distortion=eps, fail_prob=delta, goal=goal)
    share = delta / n if goal == "linf" else delta
    fails = [
        2 * scipy.stats.t.sf(eps * scale * math.sqrt(nu), nu)
        for nu in (advice.k - n, advice.k - n + 1)
    ]
    assert fails[1] <= share < fails[0]
    assert (advice.family, advice.guaranteed) == ("Gaussian", True)


@pytest.mark.stat
def test_the_interval_covers():
    """Half-widths of 95 % fail in more than 35 of 300 draws with probability 4e-6."""
    m, n = 600, 5
    advice = recommend(m, n, distortion=0.3, fail_prob=0.05, goal="interval")
    a = gaussian((m, n))
    r = gaussian(m, seed=1)
    q = np.linalg.qr(a)[0]
    r = r - q @ (q.T @ r)
    unit = np.linalg.norm(r) * math.sqrt(np.linalg.inv(a.T @ a)[0, 0])
    missed = 0
    for seed in range(300):
        s = advice.make(rng=seed)
        missed += abs(np.linalg.lstsq(s @ a, s @ r, rcond=None)[0][0]) > 0.3 * unit
    assert missed <= 35


@pytest.mark.stat
def test_the_range_finder_is_as_good_as_promised():
    """Markov's bound is far from sharp: no failure of 20 was ever seen where 4 are allowed."""
    a = gaussian((300, 400)) * np.geomspace(1, 1e-3, 400)
    advice = recommend(400, 4, distortion=0.5, fail_prob=0.2, goal="low_rank")
    least = (np.linalg.svd(a, compute_uv=False)[4:] ** 2).sum()
    for practical in (False, True):
        failed = 0
        for seed in range(20):
            q = np.linalg.qr(a @ advice.make(rng=seed, practical=practical).T)[0]
            failed += np.linalg.norm(a - q @ (q.T @ a)) ** 2 > 1.5 * least
        assert failed <= 4


@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_has_a_recommendation_that_explains_itself(goal):
    advice = recommend(10**6, 8, goal=goal)
    assert advice.goal == goal
    assert advice.guaranteed is (goal != "preconditioner")
    assert advice.theorem
    assert advice.reason
    assert advice.k <= 10**6
    assert advice.make(rng=0, practical=True).shape[1] == 10**6
    assert advice.to_dict()["k"] == advice.k
    assert pickle.loads(pickle.dumps(advice)) == advice
    assert hash(advice) == hash(recommend(10**6, 8, goal=goal))
    assert explain_recommend(10**6, 8, goal=goal).method == advice.family


def test_least_squares_counts_the_right_hand_side():
    assert recommend(10**5, 9, goal="least_squares", family="Gaussian").k == (
        recommend(10**5, 10, family="Gaussian").k
    )


def test_where_no_theorem_helps_sizes_are_not_called_guaranteed():
    advice = recommend(70, 5, family=None, distortion=0.9)
    assert advice.k < 70
    tight = recommend(430, 50, distortion=0.5)
    assert tight.guaranteed
    preconditioner = recommend(10**4, 20, goal="preconditioner")
    assert (preconditioner.family, preconditioner.k) == ("SparseStack", 240)
    assert not preconditioner.guaranteed
    with pytest.raises(ValueError, match="m: 50 rows are too few"):
        recommend(50, 20)
    with pytest.raises(ValueError, match="family: CountSketch needs"):
        recommend(5000, 20, family="CountSketch")


def test_an_unknown_number_of_rows_leaves_out_what_depends_on_it():
    advice = recommend(None, 5)
    assert advice.family in ("Gaussian", "CountSketch")
    assert advice.make(rng=0).shape == (advice.k, None)


@pytest.mark.parametrize("name", ["distortion", "fail_prob"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_numbers_must_lie_between_zero_and_one(name, value):
    with pytest.raises(ValueError, match=f"{name}: must"):
        recommend(1000, 5, **{name: value})


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match="n: must be at most m = 4"):
        recommend(4, 5)
    with pytest.raises(ValueError, match="goal: must be one of"):
        recommend(100, 5, goal="speed")
    with pytest.raises(ValueError, match="family: must be one of"):
        recommend(100, 5, family="FJLT")
    with pytest.raises(TypeError, match="n: must be an integer"):
        recommend(100, 5.0)
    assert explain_distortion(SparseStack(16, 40, rng=0), np.ones((40, 2))).flops > 0
