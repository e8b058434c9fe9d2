"""Volume sampling, determinantal processes: laws by enumeration, exact expectations, failures."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

import linalgk as lk
from linalgk.errors import NonFiniteError, SingularMatrixError
from linalgk.sketch import Philox, _volume

M, N = 7, 3
DRAWS = 2500


def matrix(m=M, n=N, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, n)) * np.exp(0.5 * rng.standard_normal((m, 1)))
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal((m, n))
    return x.astype(dtype)


def subsets(m, sizes):
    return [s for k in sizes for s in itertools.combinations(range(m), k)]


def volumes(a, k):
    """All sets of k rows and their probabilities."""
    sets, n = subsets(len(a), [k]), a.shape[1]
    rows = [a[list(s)] for s in sets]
    grams = [r.conj().T @ r if k >= n else r @ r.conj().T for r in rows]
    found = np.array([np.linalg.det(g).real for g in grams])
    return sets, found / found.sum()


def check_law(draw, sets, prob, draws=DRAWS):
    """Chi-square over the sets, those that are rare together."""
    place = {s: i for i, s in enumerate(sets)}
    counts = np.zeros(len(sets))
    for seed in range(draws):
        counts[place[tuple(int(i) for i in draw(seed))]] += 1
    assert not counts[prob < 1e-14].any()
    seen = prob * draws > 4
    observed, wanted = counts[seen], prob[seen] * draws
    if wanted.sum() < draws * (1 - 1e-9):
        observed = np.append(observed, counts[~seen].sum())
        wanted = np.append(wanted, prob[~seen].sum() * draws)
    wanted *= draws / wanted.sum()
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-4


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.stat
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6])
def test_volume_sampling_has_the_law_of_the_enumeration(k):
    """A chi-square test at p > 1e-4 for each k: one of the six fails by chance once in 1700."""
    a = matrix()
    check_law(lambda seed: lk.volume_sample(a, k, rng=seed), *volumes(a, k))


@pytest.mark.stat
def test_volume_sampling_of_complex_and_degenerate_rows():
    """Two chi-square tests at p > 1e-4: one of them fails by chance once in 5000."""
    a = matrix(6, 2, "complex128")
    check_law(lambda seed: lk.volume_sample(a, rng=seed), *volumes(a, 2), draws=1500)
    parallel = matrix(6, 2)
    parallel[1], parallel[4] = 3 * parallel[0], 0
    sets, prob = volumes(parallel, 2)
    prob[prob < 1e-14] = 0
    check_law(lambda seed: lk.volume_sample(parallel, rng=seed), sets, prob, draws=1500)


@pytest.mark.stat
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_projection_process_has_the_law_of_the_enumeration(dtype):
    """A chi-square test at p > 1e-4: one of the two fails by chance once in 5000."""
    v = np.linalg.qr(matrix(6, 3, dtype))[0]
    sets, prob = volumes(v, 3)
    check_law(lambda seed: lk.dpp_sample(v, rng=seed), sets, prob)


@pytest.mark.stat
@pytest.mark.parametrize("kind", ["likelihood", "factor"])
def test_a_likelihood_process_has_the_law_of_the_enumeration(kind):
    """A chi-square test at p > 1e-4: one of the two fails by chance once in 5000."""
    factor = 0.7 * matrix(5, 4, seed=1)
    ell = factor @ factor.T
    sets = subsets(5, range(6))
    minors = [np.linalg.det(ell[np.ix_(s, s)]) if s else 1.0 for s in sets]
    prob = np.maximum(minors, 0) / np.linalg.det(np.eye(5) + ell)
    assert abs(prob.sum() - 1) < 1e-12
    given = ell if kind == "likelihood" else factor
    check_law(lambda seed: lk.dpp_sample(given, kind=kind, rng=seed), sets, prob)


@pytest.mark.stat
def test_a_likelihood_process_of_fixed_size():
    """A chi-square test at p > 1e-4."""
    factor = matrix(6, 5, seed=2)
    ell = factor @ factor.T
    sets = subsets(6, [2])
    minors = np.array([np.linalg.det(ell[np.ix_(s, s)]) for s in sets])
    draw = lambda seed: lk.dpp_sample(ell, kind="likelihood", k=2, rng=seed)  # noqa: E731
    check_law(draw, sets, minors / minors.sum(), draws=1500)


@pytest.mark.stat
def test_inclusion_probabilities_of_a_larger_process():
    """Binomial counts of 60 rows within 4.5 standard deviations: fails once in 2000."""
    a, draws = matrix(60, 12, seed=3), 1500
    scores = lk.leverage_scores(a)
    for k, wanted in ((12, scores), (20, scores + (1 - scores) * 8 / 48)):
        counts = np.zeros(60)
        for seed in range(draws):
            counts[lk.volume_sample(a, k, rng=seed)] += 1
        spread = np.sqrt(wanted * (1 - wanted) * draws)
        assert (np.abs(counts - wanted * draws) <= 4.5 * spread + 1).all()


@pytest.mark.slow
@pytest.mark.stat
@pytest.mark.parametrize("k", [2, 3, 5])
def test_volume_sampling_law_with_many_draws(k):
    """A chi-square test at p > 1e-4: one of the three fails by chance once in 3000."""
    a = matrix(seed=5)
    check_law(lambda seed: lk.volume_sample(a, k, rng=seed), *volumes(a, k), draws=40_000)


# --- Exact expectations, by enumeration ----------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_inclusion_probabilities_are_leverage_scores(dtype):
    a = matrix(dtype=dtype)
    scores = lk.leverage_scores(a)
    for k in (3, 4, 5, 6, 7):
        sets, prob = volumes(a, k)
        inclusion = np.zeros(M)
        for s, q in zip(sets, prob, strict=True):
            inclusion[list(s)] += q
        wanted = scores + (1 - scores) * (k - N) / (M - N)
        assert np.abs(inclusion - wanted).max() < 1e-13


@pytest.mark.parametrize("k", [3, 4, 5])
def test_least_squares_from_a_volume_sample_is_unbiased(k):
    """``E x_S = x``, and ``E L(x_S) = (n + 1) L`` for k = n."""
    a, b = matrix(), np.random.default_rng(1).standard_normal(M)
    x = np.linalg.lstsq(a, b)[0]
    mean, loss = np.zeros(N), 0.0
    for s, q in zip(*volumes(a, k), strict=True):
        part = np.linalg.lstsq(a[list(s)], b[list(s)])[0]
        mean += q * part
        loss += q * ((a @ part - b) ** 2).sum()
    assert np.abs(mean - x).max() < 1e-12
    if k == N:
        assert abs(loss / ((a @ x - b) ** 2).sum() - (N + 1)) < 1e-11


@pytest.mark.stat
def test_samples_give_these_expectations():
    """Two means over 2000 samples within 4.5 standard deviations: fail once in 1e5."""
    a, b = matrix(30, 3, seed=6), np.random.default_rng(1).standard_normal(30)
    x = np.linalg.lstsq(a, b)[0]
    errors = np.array(
        [
            np.linalg.lstsq(a[rows], b[rows])[0] - x
            for rows in (lk.volume_sample(a, 5, rng=seed) for seed in range(2000))
        ]
    )
    assert (np.abs(errors.mean(axis=0)) < 4.5 * errors.std(axis=0) / 2000**0.5).all()


@pytest.mark.parametrize("k", [1, 2])
def test_the_error_of_a_projection_on_sampled_rows(k):
    """``E ||A - A P_S||_F^2 = (k + 1) e_(k+1) / e_k`` over sets of k < n rows."""
    a = matrix()
    squares = np.linalg.svd(a, compute_uv=False) ** 2
    e = [sum(math.prod(c) for c in itertools.combinations(squares, j)) for j in range(N + 1)]
    mean = 0.0
    for s, q in zip(*volumes(a, k), strict=True):
        basis = np.linalg.qr(a[list(s)].T)[0]
        mean += q * np.linalg.norm(a - a @ basis @ basis.T) ** 2
    assert abs(mean / ((k + 1) * e[k + 1] / e[k]) - 1) < 1e-12


def test_dpp_and_uniform_rows_are_volume_sampling():
    """Cauchy-Binet: T by its determinant, then any k - n others, is the law of the determinant."""
    a, k = matrix(), 5
    small = dict(zip(*volumes(a, N), strict=True))
    for s, q in zip(*volumes(a, k), strict=True):
        mixture = sum(small[t] for t in itertools.combinations(s, N)) / math.comb(M - N, k - N)
        assert abs(mixture - q) < 1e-14


# --- Sets, seeds, scales -------------------------------------------------------------------------


def test_indices_are_distinct_ascending_and_follow_the_seed(dtype):
    a = matrix(50, 6, dtype)
    v = np.linalg.qr(a)[0]
    for draw, size in (
        (lambda rng: lk.volume_sample(a, rng=rng), 6),
        (lambda rng: lk.volume_sample(a, 50, rng=rng), 50),
        (lambda rng: lk.volume_sample(a, 20, rng=rng), 20),
        (lambda rng: lk.volume_sample(a, 2, rng=rng), 2),
        (lambda rng: lk.dpp_sample(v, rng=rng), 6),
        (lambda rng: lk.dpp_sample(a, kind="factor", k=4, rng=rng), 4),
    ):
        rows = draw(7)
        assert rows.dtype == np.int64
        assert rows.shape == (size,)
        assert (np.diff(rows) > 0).all()
        assert (rows == draw(7)).all()
        if size < 50:
            assert any((rows != draw(seed)).any() for seed in (8, 9))
        with lk.config_context(num_threads=2):
            assert (rows == draw(7)).all()


def test_the_draws_are_of_the_column_space():
    """The same random numbers give the same rows for every basis."""
    a = matrix(40, 5)
    for seed in range(20):
        rows = lk.volume_sample(a, rng=seed)
        assert (rows == lk.volume_sample(a @ matrix(5, 5, seed=9), rng=seed)).all()
        assert (rows == lk.volume_sample(1e-200 * a, rng=seed)).all()
        assert (rows == lk.dpp_sample(np.linalg.qr(a)[0], rng=seed)).all()
        assert (rows == lk.volume_sample(np.asfortranarray(a), rng=seed)).all()


def test_how_many_proposals_are_looked_at_together_does_not_matter():
    v = np.linalg.qr(matrix(500, 40))[0]
    norms = (v**2).sum(axis=1)
    table = _volume.alias_table(norms)
    for seed in range(3):
        philox = Philox(seed)
        chosen = []
        place = 0
        while len(chosen) < 40:  # one proposal after the other, distances by least squares
            u = philox.uniform(4, start=4 * place)
            place += 1
            i = int(_volume.look_up(*table, u[None, :2])[0])
            part = v[chosen]
            distance = v[i] - (np.linalg.lstsq(part.T, v[i])[0] @ part if chosen else 0)
            if i not in chosen and u[2] * norms[i] < distance @ distance:
                chosen.append(i)
        assert (_volume._projection(v, philox) == chosen).all()


def test_volumes_that_no_float_holds():
    a = matrix(30, 12, seed=8) * np.geomspace(1e-120, 1e120, 30)[:, None]
    assert len(lk.volume_sample(a[:, :1], rng=0)) == 1
    # the products of six squared singular values span 1e-800 ... 1e800
    graded = np.diag(np.geomspace(1e-9, 1, 12))
    rows = [lk.volume_sample(graded, 6, rng=seed) for seed in range(50)]
    assert all((r == np.arange(6, 12)).mean() > 0.5 for r in rows)
    scaled = [lk.volume_sample(1e140 * graded, 6, rng=seed) for seed in range(50)]
    assert all((r == s).all() for r, s in zip(rows, scaled, strict=True))


def test_a_likelihood_of_eigenvalues_of_every_size():
    tiny = np.diag([1e-300, 1e-300, 1e-300])
    assert lk.dpp_sample(tiny, kind="likelihood", rng=0).size == 0
    huge = np.diag([1e300, 1e300, 1e300])
    assert lk.dpp_sample(huge, kind="likelihood", rng=0).tolist() == [0, 1, 2]
    assert lk.dpp_sample(np.zeros((3, 3)), kind="likelihood", rng=0).size == 0
    assert lk.dpp_sample(np.zeros((3, 2)), kind="factor", rng=0).size == 0
    assert lk.dpp_sample(np.eye(4), kind="likelihood", k=0, rng=0).size == 0
    assert lk.dpp_sample(np.zeros((3, 0)), rng=0).shape == (0,)


def test_float32_columns_and_nearly_orthonormal_ones():
    v = np.linalg.qr(matrix(2000, 20))[0]
    rows = lk.dpp_sample(v, rng=1)
    assert (lk.dpp_sample(v.astype(np.float32), rng=1) == rows).mean() > 0.8
    assert len(lk.dpp_sample(v * (1 + 1e-9), rng=1)) == 20


def test_other_libraries(xp):
    a = matrix(30, 4)
    for function, given in (
        (lambda x: lk.volume_sample(x, rng=1), a),
        (lambda x: lk.volume_sample(x, 2, rng=1), a),
        (lambda x: lk.dpp_sample(x, kind="likelihood", rng=1), a @ a.T),
    ):
        rows = function(xp.asarray(given))
        assert type(rows) is type(xp.asarray(given))
        assert (np.asarray(rows) == function(given)).all()


# --- Failures ------------------------------------------------------------------------------------

SKEW = np.array([[1.0, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: lk.volume_sample(np.ones((2, 3))), ValueError, "k = n = 3 is more than the m = 2"),
        (lambda: lk.volume_sample(np.ones((3, 1)), 4), ValueError, "k: 4 is more than the m = 3"),
        (lambda: lk.volume_sample(np.ones((3, 1)), 0), ValueError, "k: must be at least 1"),
        (lambda: lk.volume_sample(np.ones((3, 1)), 1.0), TypeError, "k: must be an integer"),  # type: ignore[arg-type]
        (lambda: lk.volume_sample(np.ones((3, 0))), ValueError, "a: has no columns"),
        (lambda: lk.volume_sample(np.ones((0, 3))), ValueError, "a: has no rows"),
        (lambda: lk.volume_sample(np.ones((2, 3, 1))), ValueError, "a: must be one matrix"),
        (lambda: lk.volume_sample(np.ones((4, 2))), SingularMatrixError, "rank 1 .*draw k <= 1"),
        (lambda: lk.volume_sample(np.ones((4, 3)), 2), SingularMatrixError, "rank 1 .*k = 2"),
        (lambda: lk.volume_sample(np.zeros((4, 2))), SingularMatrixError, "rank 0"),
        (lambda: lk.volume_sample(np.eye(3), rcond=-1.0), ValueError, "rcond: must"),
        (lambda: lk.volume_sample([[1.0], [np.nan]]), NonFiniteError, "a holds NaN"),
        (lambda: lk.dpp_sample(np.ones((4, 2))), ValueError, "orthonormal, got .*V - I.* = 7.1"),
        (lambda: lk.dpp_sample(np.eye(2, 4)), ValueError, "4 columns with 2 rows"),
        (lambda: lk.dpp_sample(np.eye(4), k=2), ValueError, "k: a projection"),
        (lambda: lk.dpp_sample(np.eye(4), kind="L"), ValueError, "kind: must be one of"),  # type: ignore[arg-type]
        (lambda: lk.dpp_sample(np.ones((4, 2)), kind="likelihood"), ValueError, "v: kind='lik"),
        (lambda: lk.dpp_sample(SKEW, kind="likelihood"), ValueError, "must be Hermitian"),
        (lambda: lk.dpp_sample(-np.eye(3), kind="likelihood"), ValueError, "eigenvalue -1"),
        (lambda: lk.dpp_sample(SKEW * np.inf, kind="factor"), NonFiniteError, "v holds NaN"),
        (
            lambda: lk.dpp_sample(np.eye(4, 2), kind="factor", k=3),
            SingularMatrixError,
            "v: has rank 2 .*draw k <= 2",
        ),
    ],
)
def test_bad_arguments(call, error, sentence):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=sentence):
        call()
