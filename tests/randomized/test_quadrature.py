"""Log-determinants and quadratic forms: brackets, intervals, targets, kinds of input, failures."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator
from spectra import EPS, gaussian, grid, precise_form, spectrum

import linalgk as lk
from linalgk.errors import (
    ConvergenceWarning,
    NotConvergedError,
    NotPositiveSemidefiniteError,
)

NAMES = ["log", "inv", "sqrt", "exp", "invsqrt"]
CALLS = {
    "log": np.log, "inv": lambda t: 1 / t, "sqrt": np.sqrt, "exp": np.exp,
    "invsqrt": lambda t: t**-0.5,
}  # fmt: skip


# --- Brackets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", ["tight", "loose"])
def test_brackets_hold_in_forty_digits(name, known, dtype):
    """Gauss and Radau on both sides for every number of steps, and at the end they meet."""
    values = np.geomspace(0.05, 3, 10)
    a, x = spectrum(values, dtype), gaussian(10, dtype, 1)
    true = precise_form(a, x, name)
    slack = 1e-3 if dtype in ("float32", "complex64") else 1e-12
    bounds = (0.05 * (1 - slack), 3 * (1 + slack)) if known == "tight" else (0.01, 5)
    widths = []
    for steps in range(1, 11):
        form = lk.estimate_quad_form(a, name, x, steps=steps, bounds=bounds)
        low, high = (float(end) for end in form.bounds)
        assert low <= true <= high
        # Gauss' rule is the lower end where derivatives of even order are positive
        end = low if name in ("inv", "exp", "invsqrt") else high
        assert abs(form.value - end) < 1e-2 * (high - low) + 200 * EPS[dtype] / 0.05 * abs(end)
        widths.append((high - low) / float(abs(true)))
        assert form.info.iterations == steps
    # rounding: eps kappa times a constant
    rounding = 1000 * EPS[dtype] * 60
    pairs = itertools.pairwise(widths)
    assert all(w2 < w1 for w1, w2 in pairs if w1 > rounding)
    assert widths[-1] < rounding
    assert widths[0] > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_open_where_the_spectrum_is_not_known(name):
    a, x = spectrum(np.geomspace(0.05, 3, 30)), gaussian(30)
    form = lk.estimate_quad_form(aslinearoperator(a), name, x, steps=4)
    true = x @ spectrum(CALLS[name](np.geomspace(0.05, 3, 30))) @ x
    low, high = form.bounds
    if name == "sqrt":  # zero is below all eigenvalues
        assert low <= true <= high < math.inf
    elif name == "log":
        assert (low, math.isfinite(high)) == (-math.inf, True)
        assert true <= high
    else:
        assert (high, math.isfinite(low)) == (math.inf, True)
        assert low <= true
    assert np.isfinite(form.interval()).all()


def test_gershgorin_closes_the_brackets():
    a, values = grid(4)
    x = gaussian((64, 3))
    for matrix in (a, a.toarray(), scipy.sparse.csc_array(a)):
        form = lk.estimate_quad_form(matrix, "log", x, steps=3)
        low, high = form.bounds
        true = np.diag(x.T @ lk.logm(a.toarray(), assume_a="pos") @ x)
        assert form.value.shape == (3,)
        assert (low <= true).all()
        assert (true <= high).all()
        assert ((high - low) / abs(true)).max() < 0.1
    assert values.min() > 1


def test_the_default_reaches_half_of_the_digits():
    a, x = spectrum(np.geomspace(0.1, 1, 200)), gaussian((200, 2))
    form = lk.estimate_quad_form(a, "invsqrt", x, bounds=(0.1 - 1e-12, 1.1))
    true = np.einsum("ik,ij,jk->k", x, spectrum(np.geomspace(0.1, 1, 200) ** -0.5), x)
    assert np.abs(form.value / true - 1).max() < 1.5e-8
    assert form.info.iterations < 40
    assert form.std_error.max() == 0
    assert (form.interval()[0] <= true * (1 + 1e-13)).all()
    tight = lk.estimate_quad_form(a, "invsqrt", x, bounds=(0.1 - 1e-12, 1.1), tol=1e-12)
    assert np.abs(tight.value / true - 1).max() < 2e-12
    with pytest.raises(NotConvergedError, match="tol"):
        lk.estimate_quad_form(a, "invsqrt", x, bounds=(0.1 - 1e-12, 1.1), tol=1e-12, steps=5)


def test_invariant_subspaces_end_the_process():
    a = np.diag(np.repeat([1.0, 2.0, 5.0], 10))
    form = lk.estimate_quad_form(a, "log", np.ones(30), rng=0)
    assert form.info.iterations == 3
    assert abs(form.value - 10 * math.log(10)) < 1e-12
    assert form.bounds[1] - form.bounds[0] < 1e-11
    # one vector ends before the other
    x = np.stack([np.eye(30)[0], np.ones(30)], axis=1)
    both = lk.estimate_quad_form(a, "inv", x, bounds=(0.5, 6))
    assert np.abs(both.value - [1, 17]).max() < 1e-12
    zero = lk.estimate_quad_form(a, "log", np.zeros((30, 2)))
    assert zero.value.tolist() == [0, 0]


def test_callables_and_their_derivatives():
    a, x = spectrum(np.linspace(0.2, 4, 40)), gaussian(40)
    options = {"steps": 5, "bounds": (0.2 - 1e-9, 4.1)}
    named = lk.estimate_quad_form(a, "inv", x, **options)
    called = lk.estimate_quad_form(a, lambda t: 1 / t, x, derivative_signs=(1, -1), **options)
    assert (called.value, called.bounds) == (named.value, named.bounds)

    def inverse(t):
        return 1 / t

    inverse.derivative_signs = (1, -1)
    assert lk.estimate_quad_form(a, inverse, x, **options).bounds == named.bounds
    unknown = lk.estimate_quad_form(a, lambda t: 1 / t, x, **options)
    assert unknown.value == named.value
    assert unknown.bounds == (-math.inf, math.inf)
    low, high = unknown.interval()
    assert low < x @ np.linalg.solve(a, x) < high
    # x log x: positive and negative from the second and third derivative on
    entropy = lk.estimate_quad_form(
        a, lambda t: t * np.log(t), x, derivative_signs=(1, -1), **options
    )
    true = x @ spectrum(np.linspace(0.2, 4, 40) * np.log(np.linspace(0.2, 4, 40))) @ x
    assert entropy.bounds[0] <= true <= entropy.bounds[1]
    with pytest.raises(ValueError, match="is not finite at a Ritz value"):
        lk.estimate_quad_form(a - 1.5 * np.eye(40), np.log1p, x)


def test_functions_of_indefinite_matrices():
    values = np.linspace(-2, 3, 50)
    a, x = spectrum(values), gaussian(50)
    true = x @ spectrum(np.exp(values)) @ x
    form = lk.estimate_quad_form(a, "exp", x, steps=4, bounds=(None, 3.0 + 1e-12))
    assert form.bounds[0] <= true <= form.bounds[1] < 1.2 * true
    for name in ("log", "inv", "sqrt", "invsqrt"):
        with pytest.raises(NotPositiveSemidefiniteError, match="a is not positive"):
            lk.estimate_quad_form(a, name, x)


def test_many_steps_lose_no_orthogonality():
    """Gauss' rule of 2k - 1 exact moments, although eigenvalues far out have converged long ago."""
    values = np.concatenate([np.linspace(1, 2, 90), np.geomspace(10, 1e6, 10)])
    for dtype in ("float64", "complex128"):
        a, x = spectrum(values, dtype), gaussian(100, dtype)
        q = np.linalg.qr(gaussian((100, 100), dtype))[0]
        c = np.abs(q.conj().T @ x) ** 2
        form = lk.estimate_quad_form(a, "inv", x, steps=60, bounds=(1 - 1e-9, 1.1e6))
        # rounding of the matrix itself: eps kappa
        assert abs(form.value / (c / values).sum() - 1) < 4 * 2.2e-16 * 1e6
        low, high = form.bounds
        assert low <= (c / values).sum() <= high


# --- Traces --------------------------------------------------------------------------------------


@pytest.mark.stat
@pytest.mark.parametrize("options", [{}, {"deflate": 12}, {"probes": "normal"}, {"steps": 6}])
def test_intervals_cover(options):
    """200 seeds: 95 % intervals cover at least 88 %: by chance in 1 of 10^4 runs."""
    values = 1 + np.concatenate([np.geomspace(200, 1, 20), np.linspace(0, 1, 60)])
    a = spectrum(values)
    true = np.log(values).sum()
    found = [
        lk.estimate_logdet(a, 120, method="slq", bounds=(1 - 1e-12, None), rng=s, **options)
        for s in range(200)
    ]
    inside = [low <= true <= high for low, high in (e.interval() for e in found)]
    assert np.mean(inside) >= 0.88
    estimates = np.array([e.value for e in found])
    errors = np.array([e.std_error for e in found])
    spread = estimates.std(ddof=1)
    assert 0.8 < math.sqrt((errors**2).mean()) / spread < 1.25
    # Gauss' rule is above by the error of quadrature
    reach = np.mean([e.bounds[1] - e.bounds[0] for e in found])
    assert abs(estimates.mean() - true) < 4.5 * spread / math.sqrt(200) + reach


@pytest.mark.stat
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", NAMES)
def test_traces_of_functions(name, dtype):
    """z < 4.5 with 60 or more probes: fails by chance in 1 of 10^4 runs."""
    values = np.linspace(0.3, 3, 60)
    a = spectrum(values, dtype)
    t = lk.estimate_quad_form(a, name, n_matvecs=1000, bounds=(0.3 - 1e-12, 3 + 1e-12), rng=1)
    true = CALLS[name](values).sum()
    reach = t.enclosure[1] - t.enclosure[0]
    assert abs(t.value - true) < 4.5 * t.std_error + reach
    assert t.bounds == t.enclosure
    assert reach < 2 * t.std_error
    assert t.dof > 60


def test_the_trace_is_the_mean_of_the_forms_of_the_probes():
    a = spectrum(np.linspace(0.3, 3, 60))
    options = {"steps": 6, "bounds": (0.3 - 1e-12, 3.1), "rng": 5}
    t = lk.estimate_quad_form(a, "log", n_matvecs=4 * 6 + 1, **options)
    x = lk.sketch.Philox(5).spawn(1).signs(60 * 4).reshape(4, 60).T
    forms = lk.estimate_quad_form(a, "log", x, **options)
    assert (t.n_matvecs, t.dof) == (25, 3)
    assert abs(t.value / forms.value.mean() - 1) < 1e-13
    assert abs(t.std_error / (forms.value.std(ddof=1) / 2) - 1) < 1e-11
    for end, ends in zip(t.bounds, forms.bounds, strict=True):
        assert abs(end / ends.mean() - 1) < 1e-13
    half = 3.182446 * t.std_error
    assert abs(t.interval()[0] - (t.bounds[0] - half)) < 1e-5
    assert abs(t.interval()[1] - (t.bounds[1] + half)) < 1e-5


@pytest.mark.stat
def test_the_variance_is_that_of_the_logarithm():
    """Of 600 probes, kurtosis below 6: z < 4.5."""
    values = np.geomspace(0.1, 10, 160)
    a = spectrum(values)
    log = spectrum(np.log(values))
    e = lk.estimate_quad_form(a, "log", n_matvecs=600 * 20 + 1, steps=20, rng=2,
                              bounds=(0.1 - 1e-9, 11))  # fmt: skip
    probes = int(e.dof) + 1
    assert probes == 600
    variance = 2 * (np.sum(log**2) - np.sum(np.diag(log) ** 2))
    assert abs(e.std_error**2 * probes / variance - 1) < 4.5 * math.sqrt(5 / probes)


def test_the_grid_takes_few_products():
    """One percent of the log-determinant of a grid; 30 seeds, all within the target."""
    a, values = grid(12)
    true = np.log(values).sum()
    products, inside = [], []
    for seed in range(30):
        e = lk.estimate_logdet(a, tol=0.01, rng=seed)
        products.append(e.n_matvecs)
        low, high = e.interval()
        inside.append(low <= true <= high)
        assert abs(e.value / true - 1) < 0.02
        assert (high - low) / 2 <= 0.01 * e.value * (1 + 1e-9)
        assert np.isfinite(e.bounds).all()
    assert np.mean(products) < 60
    assert np.mean(inside) > 0.8
    assert (
        lk.estimate_logdet(a, rng=0).n_matvecs == lk.estimate_logdet(a, tol=0.01, rng=0).n_matvecs
    )


def test_targets_add_probes_and_steps():
    a, values = grid(10, 0.1)
    true = np.log(values).sum()
    coarse = lk.estimate_logdet(a, tol=0.05, rng=0)
    fine = lk.estimate_logdet(a, tol=0.004, rng=0)
    assert coarse.n_matvecs < fine.n_matvecs
    assert coarse.info.iterations < fine.info.iterations
    assert abs(fine.value / true - 1) < 0.008
    seen = []
    lk.estimate_logdet(a, tol=0.004, rng=0, callback=seen.append)
    assert seen[-1].n_matvecs == fine.n_matvecs
    stopped = lk.estimate_logdet(a, tol=0.004, rng=0, callback=lambda s: True)
    assert stopped.n_matvecs == seen[0].n_matvecs
    assert not stopped.converged
    with pytest.raises(NotConvergedError, match="still above tol") as caught:
        lk.estimate_logdet(a, 30, tol=1e-4, rng=0)
    assert abs(caught.value.result.value / true - 1) < 0.2
    with pytest.warns(ConvergenceWarning):
        assert not lk.estimate_logdet(a, 30, tol=1e-4, rng=0, on_fail="warn").converged
    for count in (3, 5, 12, 40, 200):
        assert count - 12 < lk.estimate_logdet(a, count, rng=0).n_matvecs <= count
        hard = spectrum(np.geomspace(1e-6, 1, 300))
        assert lk.estimate_logdet(hard, count, rng=0).n_matvecs <= count
        assert lk.estimate_quad_form(a, "sqrt", n_matvecs=count, rng=0).n_matvecs <= count
    assert lk.estimate_logdet(a, 40, steps=10, rng=0).info.iterations == 10


def test_small_matrices_are_factored(dtype):
    a = spectrum(np.geomspace(0.01, 1, 40), dtype)
    e = lk.estimate_logdet(a)
    assert (e.method, e.std_error, e.n_matvecs) == ("cholesky", 0, 0)
    true = np.log(np.linalg.eigvalsh(a.astype(np.result_type(a, "float64")))).sum()
    low, high = e.bounds
    assert low - 1e-3 * abs(low) * EPS[dtype] <= true <= high + 1e-3 * abs(high) * EPS[dtype]
    assert high - low < 1000 * EPS[dtype] * abs(true) * 10
    big = np.eye(700) * 2.0
    assert lk.estimate_logdet(big, rng=0).method == "slq"
    assert abs(lk.estimate_logdet(big, rng=0).value - 700 * math.log(2)) < 1e-9


def test_few_columns_are_all_taken():
    a = spectrum([1.0, 2.0, 3.0])
    e = lk.estimate_logdet(aslinearoperator(a), tol=1e-8)
    assert abs(e.value - math.log(6)) < 1e-8
    assert e.std_error == 0
    t = lk.estimate_quad_form(spectrum(np.linspace(1, 2, 20)), "exp", n_matvecs=2000)
    assert t.std_error == 0
    assert abs(t.value / np.exp(np.linspace(1, 2, 20)).sum() - 1) < 1e-7


@pytest.mark.stat
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_deflation_takes_the_variance(dtype):
    """20 eigenvalues above a floor carry the log-determinant. Chance of failing: 5 in 10^5."""
    values = 1e-2 + np.concatenate([np.geomspace(1e4, 1e-2, 20), np.zeros(130)])
    a = spectrum(values, dtype)
    true = np.log(values).sum()
    plain = lk.estimate_logdet(a, 600, method="slq", rng=0, bounds=(0.009, None))
    deflated = lk.estimate_logdet(a, 600, method="slq", rng=0, bounds=(0.009, None), deflate=40)
    assert deflated.method == "slq+nystrom"
    assert deflated.std_error < 0.1 * plain.std_error
    for e in (plain, deflated):
        assert e.n_matvecs <= 600
        low, high = e.interval(1 - 1e-5)
        assert low <= true <= high
    # an operator has no trace to read
    known = lk.estimate_logdet(aslinearoperator(a), 600, rng=0, bounds=(0.009, None), deflate=40)
    low, high = known.interval(1 - 1e-5)
    assert low <= true <= high
    auto = lk.estimate_logdet(
        a, method="slq", tol=0.005, rng=0, bounds=(0.009, None), deflate="auto"
    )
    assert auto.method == "slq+nystrom"
    assert abs(auto.value / true - 1) < 0.01
    assert lk.estimate_logdet(np.eye(30), method="slq", deflate="auto").method == "slq"
