"""Sampled rows: probabilities, exact expectations, laws of the draws, failures."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

import linalgk as lk
from linalgk.errors import NonFiniteError
from linalgk.sketch import Philox, _sampling

WEIGHTS = {
    "uniform": np.ones(9),
    "one": np.array([0.0, 0.0, 5.0]),
    "single": np.array([2.0]),
    "zeros": np.array([0.0, 3.0, 0.0, 1.0, 1.0, 0.0]),
    "ties": np.array([2.0, 0.0, 2.0, 0.0, 1.0, 1.0]),  # light cells that heavy ones fill exactly
    "chain": np.array([1.01, 1.01, 1.01, 0.05, 1.92, 1.0]),  # one light cell takes from many
    "random": np.random.default_rng(0).random(1000),
    "steep": np.exp(8 * np.random.default_rng(1).standard_normal(5000)),
    "geometric": 2.0 ** -np.arange(60),
    "falling": 1.0 / np.arange(1, 3000) ** 2,
}


def matrix(m=40, n=4, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, n)) * np.exp(spread * rng.standard_normal((m, 1)))


def probabilities(a, m, draws=20000, **options):
    """``p_i`` of every row, told from the weights ``(k p_i)^(-1/p)`` of those that were drawn."""
    S = lk.sample_rows(a, draws, rng=0, scheme="systematic", **options)
    found = np.zeros(m)
    found[S.indices] = S.weights ** -options.get("p", 2.0) / draws
    return found


# --- The alias table -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_alias_table_has_the_probabilities_exactly(name):
    weights = WEIGHTS[name]
    threshold, alias = _sampling.alias_table(weights)
    m = len(weights)
    assert threshold.min() >= 0
    assert threshold.max() <= 1
    law = threshold.copy()
    np.add.at(law, alias, 1 - threshold)
    assert np.abs(law / m - weights / weights.sum()).max() < 2 * m * 2.0**-52
    # a cell of weight zero is never given: not itself, and nobody's alias
    assert not threshold[weights == 0].any()
    assert not (weights[alias] == 0).any()


def test_alias_tables_of_many_random_weights():
    rng = np.random.default_rng(2)
    for _ in range(300):
        m = int(rng.integers(1, 12))
        weights = rng.integers(0, 4, m).astype(float)  # integers: many ties
        weights[rng.integers(m)] += 1
        threshold, alias = _sampling.alias_table(weights)
        law = threshold.copy()
        np.add.at(law, alias, 1 - threshold)
        assert np.abs(law / m - weights / weights.sum()).max() < 1e-14


@pytest.mark.stat
@pytest.mark.parametrize("name", ["zeros", "chain", "random"])
def test_independent_draws_have_their_law(name):
    """A chi-square test at p > 1e-4: each of three cases fails by chance once in 10000."""
    weights = WEIGHTS[name]
    prob, k = weights / weights.sum(), 100_000
    counts = np.bincount(_sampling.independent(prob, k, Philox(11)), minlength=len(prob))
    assert not counts[prob == 0].any()
    seen = prob * k > 4
    rest = [counts[~seen].sum()] if prob[~seen].sum() else []
    expected = [k * prob[~seen].sum()] if rest else []
    observed = np.concatenate([counts[seen], rest])
    wanted = np.concatenate([k * prob[seen], expected])
    assert scipy.stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-4


class Fixed:
    """A stream of one number."""

    def __init__(self, u):
        self.u = u

    def uniform(self, n):
        return np.full(n, self.u)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("k", [1, 7, 100])
def test_systematic_draws_count_floor_or_ceil(name, k):
    prob = WEIGHTS[name] / WEIGHTS[name].sum()
    for u in (0.0, 0.3, 1 - 2.0**-52):
        rows = _sampling.systematic(prob, k, Fixed(u))
        counts = np.bincount(rows, minlength=len(prob))
        assert (np.diff(rows) >= 0).all()
        assert len(rows) == k
        assert not counts[prob == 0].any()
        assert (np.abs(counts - k * prob) < 1 + 1e-9).all()


def test_systematic_draws_are_unbiased():
    """The mean over a grid of the one random number is the expectation to the grid's width."""
    prob, k, grid = WEIGHTS["chain"] / WEIGHTS["chain"].sum(), 5, 4000
    total = np.zeros(len(prob))
    for u in (np.arange(grid) + 0.5) / grid:
        total += np.bincount(_sampling.systematic(prob, k, Fixed(u)), minlength=len(prob))
    assert np.abs(total / grid - k * prob).max() < 2 / grid


# --- Probabilities and expectations --------------------------------------------------------------


def test_the_probabilities_of_each_method():
    a = matrix()
    m, scores = len(a), lk.leverage_scores(a)
    lengths = np.linalg.norm(a, axis=1)

    def share(x):
        return x / x.sum()

    bound = np.minimum(1, m ** (6 / 2 - 1) * scores ** (6 / 2))
    for options, wanted in (
        ({}, share(scores)),
        ({"method": "leverage", "p": 1.0}, share(scores)),
        ({"method": "uniform"}, np.full(m, 1 / m)),
        ({"method": "norm"}, share(lengths**2)),
        ({"method": "norm", "p": 1.0}, share(lengths)),
        ({"method": "lewis", "p": 1.0}, share(lk.lewis_weights(a, 1.0))),
        ({"method": "lewis", "p": 4.0}, share(lk.lewis_weights(a, 4.0))),
        ({"method": "root_leverage", "p": 1.0}, share(np.sqrt(scores))),
        ({"method": "root_leverage", "p": 1.5}, share(scores**0.75)),
        ({"method": "lp", "p": 1.0}, (share(scores) + share(np.sqrt(scores))) / 2),
        ({"method": "lp", "p": 6.0}, (share(scores) + share(bound)) / 2),
        ({"probabilities": share(lengths)}, share(lengths)),
    ):
        found = probabilities(a, m, **options)
        drawn = found > 0
        assert drawn.sum() > 30
        assert np.abs(found / wanted - 1)[drawn].max() < 1e-12, options


@pytest.mark.parametrize("method", ["leverage", "uniform", "norm", "lewis", "lp", "root_leverage"])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0])
def test_the_expectation_is_the_norm(method, p):
    """``E ||S A x||_p^p = k sum_i p_i w_i^p |a_i x|^p``, a finite sum with nothing random in it."""
    if method == "root_leverage" and p > 2:
        return
    a, k = matrix(seed=3, spread=0.3), 12
    x = np.random.default_rng(4).standard_normal((4, 10))
    values = np.abs(a @ x) ** p
    prob = probabilities(a, len(a), method=method, p=p)
    assert (prob > 0).all()
    S = lk.sample_rows(a, k, method=method, p=p, rng=5)
    assert np.abs(S.weights - (k * prob[S.indices]) ** (-1 / p)).max() < 1e-12 * S.weights.max()
    weights = (k * prob) ** (-1 / p)
    expectation = k * (prob * weights**p) @ values
    assert np.abs(expectation / values.sum(axis=0) - 1).max() < 1e-12


def test_leverage_sampling_has_the_stated_variance():
    a = matrix(seed=6, spread=2.0)
    prob = lk.leverage_scores(a) / 4
    values = (a @ np.random.default_rng(7).standard_normal((4, 200))) ** 2
    norm = values.sum(axis=0)
    second = (values**2 / prob[:, None]).sum(axis=0)  # of one draw
    assert (second <= 4 * norm**2 * (1 + 1e-12)).all()


@pytest.mark.stat
@pytest.mark.parametrize("scheme", ["iid", "systematic"])
def test_sampled_norms_are_unbiased(scheme):
    """4.5 standard deviations of the mean of 2000 samples: fails by chance once in 1e5."""
    a = matrix(300, 5, seed=8, spread=1.5)
    x = np.random.default_rng(9).standard_normal(5)
    values, k, draws = (a @ x) ** 2, 20, 2000
    prob = lk.leverage_scores(a) / 5
    found = []
    for seed in range(draws):
        S = lk.sample_rows(a, k, scheme=scheme, probabilities=prob, rng=seed)
        found.append(((S.weights * (a @ x)[S.indices]) ** 2).sum())
    spread = np.sqrt((values**2 / prob).sum() - values.sum() ** 2) / np.sqrt(k * draws)
    if scheme == "systematic":
        spread = np.std(found) / np.sqrt(draws)
    assert abs(np.mean(found) - values.sum()) < 4.5 * spread


@pytest.mark.stat
def test_a_sample_embeds_the_column_space():
    """Matrix Chernoff: singular values of ``S Q`` leave [0.6, 1.4] with probability < 1e-6."""
    a = matrix(3000, 6, seed=10, spread=2.0)
    basis = np.linalg.qr(a)[0]
    # 2 n exp(-k e^2 / (3 n)) with e = 0.64 for the squares
    S = lk.sample_rows(a, 800, rng=1)
    s = np.linalg.svd(S @ basis, compute_uv=False)
    assert 0.6 < s[-1] < s[0] < 1.4


# --- Seeds, forms, libraries ---------------------------------------------------------------------


def test_the_operator_holds_what_was_drawn():
    a = matrix()
    S = lk.sample_rows(a, 15, rng=3)
    assert S.shape == (15, 40)
    assert np.abs(S @ a - S.weights[:, None] * a[S.indices]).max() < 1e-15
    assert S.indices.dtype == np.int64


def test_norms_to_a_large_power():
    """Of the largest row remains one, of the others nothing."""
    a = np.ones((40, 3))
    a[7] = 2.0
    for given in (a, scipy.sparse.csr_array(a)):
        S = lk.sample_rows(given, 15, method="norm", p=5000.0, rng=0)
        assert (S.indices == 7).all()


def test_given_probabilities_are_explained():
    a = matrix()
    told = lk.explain(lk.sample_rows, a, 15, probabilities=np.full(40, 1 / 40))
    assert "were given" in told.reason
    assert told.flops < lk.explain(lk.sample_rows, a, 15).flops


def test_seeds():
    a = matrix()
    first = lk.sample_rows(a, 50, rng=3)
    again = lk.sample_rows(a, 50, rng=3)
    assert (first.indices == again.indices).all()
    assert (first.weights == again.weights).all()
    assert (first.indices[:20] == lk.sample_rows(a, 20, rng=3).indices).all()
    assert (first.indices != lk.sample_rows(a, 50, rng=4).indices).any()
    generator = np.random.default_rng(3)
    one, two = lk.sample_rows(a, 50, rng=generator), lk.sample_rows(a, 50, rng=generator)
    assert (one.indices != two.indices).any()
    fresh = [lk.sample_rows(a, 50).indices for _ in range(2)]
    assert (fresh[0] != fresh[1]).any()
    with lk.config_context(num_threads=2):
        assert (first.indices == lk.sample_rows(a, 50, rng=3).indices).all()


def test_rows_that_do_not_matter_are_never_drawn():
    a = matrix()
    a[::2] = 0
    for method in ("leverage", "norm", "lewis", "root_leverage", "lp"):
        for scheme in ("iid", "systematic"):
            S = lk.sample_rows(a, 500, method=method, p=1.0, scheme=scheme, rng=0)
            assert (S.indices % 2 == 1).all()


def test_sparse_complex_and_scaled_input():
    a = matrix(40, 3)
    a[np.abs(a) < 0.5] = 0
    for method in ("leverage", "norm", "root_leverage", "lp", "uniform"):
        dense = lk.sample_rows(a, 30, method=method, p=1.5, rng=1)
        sparse = lk.sample_rows(scipy.sparse.csc_array(a), 30, method=method, p=1.5, rng=1)
        assert (dense.indices == sparse.indices).all()
        assert np.abs(dense.weights / sparse.weights - 1).max() < 1e-12
        huge = lk.sample_rows(a * 1e200, 30, method=method, p=1.5, rng=1)
        assert np.abs(dense.weights / huge.weights - 1).max() < 1e-12
    turned = a * np.exp(1j * np.arange(40))[:, None]
    for method in ("leverage", "norm", "lewis"):
        one, two = (lk.sample_rows(x, 30, method=method, rng=1) for x in (a, turned))
        assert np.abs(one.weights / two.weights - 1).max() < 1e-9


def test_other_libraries(xp):
    a = matrix()
    for method in ("lp", "norm"):
        wanted = lk.sample_rows(a, 25, method=method, rng=2)
        found = lk.sample_rows(xp.asarray(a), 25, method=method, rng=2)
        assert (np.asarray(found.indices) == wanted.indices).all()
    given = xp.asarray(np.full(40, 1 / 40))
    assert lk.sample_rows(xp.asarray(a), 25, probabilities=given, rng=2).shape == (25, 40)


def test_probabilities_in_float32_and_as_a_list():
    a = np.ones((3, 1))
    third = np.full(3, 1 / 3, np.float32)
    S = lk.sample_rows(a, 300, probabilities=third, rng=0)
    assert np.abs(S.weights - 0.1).max() < 1e-8
    assert (lk.sample_rows(a, 9, probabilities=[0, 1, 0], rng=0).indices == 1).all()


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"probabilities": [0.5, 0.4, 0.2]}, ValueError, r"must add up to 1, got 1.1; divide"),
        ({"probabilities": [0.0, 0.0, 0.0]}, ValueError, "got 0; give at least one"),
        ({"probabilities": [0.5, -0.25, 0.75]}, ValueError, r"negative, got -0.25 at index 1"),
        ({"probabilities": [0.5, 0.5, np.nan]}, ValueError, "finite, got nan at index 2"),
        ({"probabilities": [0.5, 0.5]}, ValueError, r"shape \(3,\), one for each row.*got \(2,\)"),
        ({"probabilities": [1j, 0, 0]}, TypeError, "probabilities: must be real"),
        ({"probabilities": "x"}, TypeError, "probabilities: must be an array"),
        ({"k": 0}, ValueError, "k: must be at least 1, got 0"),
        ({"k": 2.0}, TypeError, "k: must be an integer"),
        ({"method": "best"}, ValueError, "method: must be one of"),
        ({"scheme": "poisson"}, ValueError, "scheme: must be one of"),
        ({"p": 0.0}, ValueError, "p: must satisfy"),
        ({"method": "root_leverage", "p": 3.0}, ValueError, "'root_leverage' serves p <= 2"),
        ({"a": np.zeros((3, 2))}, ValueError, "a: every row is zero"),
        ({"a": np.ones((2, 3, 2))}, ValueError, r"a: must be one matrix.*got \(2, 3, 2\)"),
        ({"a": np.ones((0, 2))}, ValueError, "a: has no rows"),
        ({"a": np.ones(3)}, ValueError, "a: must have shape"),
        ({"rng": -1}, ValueError, "rng"),
    ],
)
def test_bad_arguments(options, error, sentence):
    options = {"a": np.ones((3, 2)), "k": 2, **options}
    with pytest.raises(error, match=sentence):
        lk.sample_rows(options.pop("a"), **options)


def test_matrices_that_hold_nan():
    a = matrix()
    a[3, 1] = np.nan
    for method in ("leverage", "norm", "lewis", "lp"):
        with pytest.raises(NonFiniteError, match="holds NaN"):
            lk.sample_rows(a, 5, method=method)
        with pytest.raises(ValueError, match="a: holds NaN"):
            lk.sample_rows(a, 5, method=method, check_finite=False)
    with pytest.raises(NonFiniteError):
        lk.sample_rows(scipy.sparse.csr_array(a), 5, method="norm")
    assert lk.sample_rows(a, 5, method="uniform", rng=0).shape == (5, 40)
