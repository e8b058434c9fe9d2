"""Least squares: backward and forward errors on a grid, laws of sketches, NumPy's answers."""

import math

import numpy as np
import pytest
from scipy import stats
from solved import backward_error, exact, gaussian, least_backward_error, problem
from spectra import EPS, conditioned

import linalgk as lk
from linalgk.errors import NotConvergedError
from linalgk.randomized._lstsq import choose_method, sample

U = EPS["float64"] / 2
STABLE = ("direct", "sketch_cholesky", "spir", "fossils", "lsqr")
METHODS = (*STABLE, "iterative")
RESIDUALS = (1e-12, 1e-8, 1e-4, 1e-2, 1.0)


# --- The oracle ----------------------------------------------------------------------------------


def test_the_formula_is_within_a_root_of_two_of_the_least_perturbation():
    a, b = problem(40, 5, 1e3, 0.1)
    x = np.linalg.lstsq(a, b, rcond=None)[0]
    for size in (1e-10, 1e-6, 1e-3, 0.3):
        moved = x + size * gaussian(5, seed=8) * np.linalg.norm(x)
        ratio = backward_error(a, b, moved) / least_backward_error(a, b, moved)
        assert math.sqrt(0.5) < ratio < math.sqrt(2) + 1e-4


# --- Backward errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", STABLE)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_backward_errors_are_of_rounding(method, residual):
    """At most 10 u ||A||_F for condition numbers up to the reciprocal of rcond."""
    for kappa in 10.0 ** np.arange(16):
        a, b = problem(400, 12, kappa, residual)
        fit = lk.lstsq(a, b, method=method)
        assert fit.info.method == method
        assert backward_error(a, b, fit.x) <= 10 * U, kappa
        assert fit.info.converged


@pytest.mark.parametrize("residual", RESIDUALS)
def test_backward_errors_of_the_default(residual):
    for kappa in (1e0, 1e5, 1e10, 1e15):
        a, b = problem(1300, 90, kappa, residual)
        fit = lk.lstsq(a, b)
        assert fit.info.method == "sketch_cholesky"
        assert backward_error(a, b, fit.x) <= 10 * U, kappa


@pytest.mark.parametrize("method", STABLE)
def test_backward_errors_in_every_precision(method, dtype):
    eps = EPS[dtype]
    for kappa in (1.0, 0.01 / eps**0.5, 0.02 / eps):
        for residual in (1e-5, 1.0):
            a, b = problem(400, 12, kappa, residual, dtype)
            fit = lk.lstsq(a, b, method=method)
            assert fit.x.dtype == dtype
            assert backward_error(a, b, fit.x) <= 5 * eps, (kappa, residual)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "direct"])
def test_the_estimate_is_that_of_the_true_singular_values(method):
    """Within a factor of 2, where backward errors exceed the rounding of residuals.

    A callback stops while they do; x is that of the state.
    """
    for kappa, residual in ((1.0, 1e-3), (1e4, 1e-6), (1e4, 1.0), (1e8, 1e-2), (1e12, 1.0)):
        a, b = problem(400, 12, kappa, residual)
        states = []
        fit = lk.lstsq(a, b, method=method, on_fail="warn", callback=states.append)
        assert [s.iteration for s in states] == list(range(len(states)))
        seen = [s for s in states if s.backward_error > 100 * U]
        assert seen
        for state in seen:
            oracle = backward_error(a, b, state.x[:, 0])
            assert 0.5 < state.backward_error / oracle < 2
        oracle = backward_error(a, b, fit.x)
        assert 0.5 * oracle - U < fit.backward_error < 2 * oracle + U


def test_backward_errors_by_columns():
    a, first = problem(400, 12, 1e6, 1e-8)
    b = np.stack([first, problem(400, 12, 1e6, 1.0)[1], a @ np.ones(12)], axis=1)
    for method in STABLE:
        fit = lk.lstsq(a, b, method=method)
        assert fit.backward_error.shape == (3,)
        assert (backward_error(a, b, fit.x) <= 10 * U).all()
        assert (fit.backward_error <= 10 * U).all()


@pytest.mark.parametrize("name", ["vandermonde", "hilbert", "identity", "spike", "rows of size"])
def test_hard_matrices(name):
    """Structured ill-condition, coherent rows, and one row with leverage 1."""
    m, n = 600, 12
    if name == "vandermonde":
        a = np.linspace(0, 1, m)[:, None] ** np.arange(n)
    elif name == "hilbert":
        a = 1 / (np.arange(m)[:, None] + np.arange(n)[None, :] + 1.0)
    elif name == "identity":
        a = np.vstack([np.eye(n), np.zeros((m - n, n))]) + 1e-10 * gaussian(m, n)
    elif name == "spike":
        a = gaussian(m, n)
        a[:, -1] = 0
        a[77, -1] = 1e6
    else:
        a = gaussian(m, n) * np.geomspace(1, 1e-12, m)[:, None]
    b = gaussian(m, seed=5)
    for method in STABLE:
        fit = lk.lstsq(a, b, method=method)
        assert backward_error(a, b, fit.x) <= 10 * U, method


# --- Forward errors ------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [1e0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("residual", [1e-10, 1e-3, 1.0])
def test_forward_errors_are_those_of_a_stable_method(kappa, residual):
    """``|x - x_*| <= 10 u (kappa |x| + kappa^2 |r|)``, and `std_error` bounds each entry.

    The bound of perturbations of relative size 10 u, ``||a|| = 1``; x_* has 60 digits.
    """
    a, b = problem(400, 8, kappa, residual)
    wanted = exact(a, b, digits=60)
    bound = 10 * U * (kappa * np.linalg.norm(wanted) + kappa**2 * residual)
    for method in METHODS:
        fit = lk.lstsq(a, b, method=method)
        error = np.abs(fit.x - wanted)
        assert np.linalg.norm(error) <= bound, method
        assert (error <= fit.std_error).all(), method
        low, high = fit.interval()
        assert ((low <= wanted) & (wanted <= high)).all()
        assert fit.info.error_estimate == pytest.approx(
            np.linalg.norm(fit.std_error) / np.linalg.norm(fit.x)
        )


def test_the_bound_holds_for_what_a_callback_stops():
    """To first order, hence for a condition number that leaves it small."""
    for kappa, residual in ((1.0, 1e-2), (1e2, 1e-3), (1e3, 1e-6)):
        a, b = problem(400, 8, kappa, residual)
        wanted = exact(a, b, digits=60)
        for method in METHODS[1:]:
            fit = lk.lstsq(a, b, method=method, callback=lambda s: True)
            error = np.abs(fit.x - wanted)
            assert (error <= fit.std_error).all(), method
            assert error.max() > 1e-8, method


def test_the_bound_of_the_error_says_something():
    a, b = problem(400, 8, 1e6, 1e-3)
    wanted = exact(a, b, digits=60)
    for method in STABLE:
        fit = lk.lstsq(a, b, method=method)
        assert np.linalg.norm(fit.std_error) < 1e4 * np.linalg.norm(fit.x - wanted), method
    for dtype in EPS:
        a, b = problem(400, 8, 10.0, 1e-3, dtype)
        error = np.abs(lk.lstsq(a, b).x - exact(a, b, digits=60))
        assert (error <= lk.lstsq(a, b).std_error).all()
        assert error.max() > EPS[dtype] / 100


# --- Rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [4, 16])
def test_iterative_sketching_contracts_by_the_root_of_n_over_k(times):
    """Each step of momentum by ``(n/k)^(1/2)``; 10% for what precedes the asymptote."""
    m, n = 3000, 40
    a, b = problem(m, n, 1e2, 1.0)
    wanted = np.linalg.lstsq(a, b, rcond=None)[0]
    errors = []
    lk.lstsq(
        a, b, method="iterative", k=times * n, sketch="Gaussian",
        callback=lambda s: errors.append(np.linalg.norm(a @ s.x[:, 0] - a @ wanted)),
    )  # fmt: skip
    used = [e for e in errors if e > 1e-12]
    rate = (used[-1] / used[0]) ** (1 / (len(used) - 1))
    assert 0.9 < math.log(rate) / math.log(times**-0.5) < 1.1


def test_steps_of_conjugate_gradients():
    """Two rounds from 1 to 1e-9 by ``2 (n/k)^(t/2)``, distortions of a Gaussian sketch 10% more."""
    a, b = problem(3000, 40, 1e4, 1.0)
    steps = {}
    for times in (4, 16):
        fit = lk.lstsq(a, b, method="spir", k=times * 40, sketch="Gaussian")
        expected = math.log(math.sqrt(2 * U) / 16) / math.log(1.1 * times**-0.5)
        steps[times] = int(fit.info.iterations)
        assert 0.5 * expected < steps[times] / 2 < expected + 2
        lsqr = lk.lstsq(a, b, method="lsqr", k=times * 40, sketch="Gaussian")
        assert 0.5 * expected < int(lsqr.info.iterations) / 2 < expected + 2
    assert 1.6 < steps[4] / steps[16] < 2.6


def test_the_heavy_ball_needs_no_third_round():
    """Its steps from the distortion that k = 4 n gives reduce the error by 1e-9, less t^2."""
    a, b = problem(3000, 40, 1e2, 1.0)
    seen = []
    lk.lstsq(a, b, method="fossils", k=160, sketch="Gaussian", callback=seen.append)
    wanted = np.linalg.lstsq(a, b, rcond=None)[0]
    errors = [np.linalg.norm(a @ s.x[:, 0] - a @ wanted) for s in seen]
    assert errors[1] < 1e-6 * errors[0]


# --- The law of the sketched solution ------------------------------------------------------------


SEEDS = 400


@pytest.fixture(scope="module")
def sketched():
    """One problem and its solutions by many Gaussian sketches of 24 rows."""
    a, b = problem(200, 4, 30.0, 0.5)
    wanted = np.linalg.lstsq(a, b, rcond=None)[0]
    fits = [
        lk.lstsq(a, b, method="sketch_solve", sketch="Gaussian", k=24, rng=seed)
        for seed in range(SEEDS)
    ]
    return a, b, wanted, fits


@pytest.mark.stat
def test_studentized_errors_have_students_law(sketched):
    """Kolmogorov-Smirnov for each of 4 entries, and for the exact scale; 6 tests at 1e-4."""
    a, b, wanted, fits = sketched
    k, n = 24, 4
    student = np.array([(fit.x - wanted) / fit.std_error for fit in fits])
    for j in range(n):
        assert stats.kstest(student[:, j], stats.t(k - n).cdf).pvalue > 1e-4
    # the unconditional law, research section 3.3
    scale = np.linalg.norm(b - a @ wanted) * np.sqrt(np.linalg.inv(a.T @ a)[1, 1] / (k - n + 1))
    errors = np.array([fit.x[1] - wanted[1] for fit in fits]) / scale
    assert stats.kstest(errors, stats.t(k - n + 1).cdf).pvalue > 1e-4
    squares = np.array([fit.residuals[0] for fit in fits]) * (k - n)
    chi = squares / np.linalg.norm(b - a @ wanted) ** 2
    assert stats.kstest(chi, stats.chi2(k - n).cdf).pvalue > 1e-4


@pytest.mark.stat
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_cover_as_often_as_they_say(sketched, level):
    """Counts of 400 between binomial quantiles: fails by chance with probability 1e-6 each."""
    _, _, wanted, fits = sketched
    inside = 0
    for fit in fits:
        low, high = fit.interval(level)
        inside += int(low[2] <= wanted[2] <= high[2])
    low, high = stats.binom(SEEDS, level).ppf([5e-7, 1 - 5e-7])
    assert low <= inside <= high


@pytest.mark.stat
def test_the_residual_grows_as_expected(sketched):
    """``E |A x - b|^2 = (1 + n / (k - n - 1)) |r|^2``; 4.5 standard errors, 7e-6."""
    a, b, wanted, fits = sketched
    ratios = np.array([np.linalg.norm(a @ fit.x - b) ** 2 for fit in fits])
    ratios /= np.linalg.norm(a @ wanted - b) ** 2
    expected = 1 + 4 / (24 - 4 - 1)
    assert abs(ratios.mean() - expected) < 4.5 * ratios.std() / math.sqrt(SEEDS)
    assert ratios.min() >= 1


@pytest.mark.stat
def test_the_default_sketch_has_nearly_that_law():
    """Coverage of 90% by SparseStack within 5 of 100 and its chance, 1e-6."""
    a, b = problem(400, 5, 30.0, 0.5)
    wanted = np.linalg.lstsq(a, b, rcond=None)[0]
    inside = 0
    for seed in range(200):
        low, high = lk.lstsq(a, b, method="sketch_solve", rng=seed).interval(0.9)
        inside += int(low[0] <= wanted[0] <= high[0])
    assert stats.binom(200, 0.85).ppf(1e-6) <= inside <= stats.binom(200, 0.95).ppf(1 - 1e-6)


@pytest.mark.stat
def test_intervals_of_complex_solutions():
    """Modulus of the error against std_error: an exceedance of 5 in 100 runs by chance < 1e-6."""
    a, b = problem(300, 4, 10.0, 0.3, "complex128")
    wanted = np.linalg.lstsq(a, b, rcond=None)[0]
    ratios = []
    for seed in range(100):
        fit = lk.lstsq(a, b, method="sketch_solve", sketch="Gaussian", k=64, rng=seed)
        assert fit.std_error.dtype == np.float64
        ratios.append(np.abs(fit.x - wanted)[0] / fit.std_error[0])
    assert 0.6 < np.sqrt(np.mean(np.square(ratios))) < 1.6
    assert max(ratios) < 6


def test_the_sketched_solution_tells_what_it_misses(sketched):
    """The expected backward error is within a factor of 10 of that of most runs."""
    a, b, _, fits = sketched
    ratios = [fit.backward_error / backward_error(a, b, fit.x) for fit in fits[:50]]
    assert 0.3 < np.median(ratios) < 10
    assert all(fit.info.passes == 1 for fit in fits)


# --- What NumPy gives ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 5), (7, 7), (5, 60), (700, 6), (6, 700)])
@pytest.mark.parametrize("columns", [None, 1, 3])
def test_results_are_those_of_numpy(shape, columns, dtype):
    """Of condition 10, hence to 100 n eps."""
    a = conditioned(*shape, 10.0, dtype)
    b = gaussian(shape[0], *(() if columns is None else (columns,)), dtype=dtype, seed=4)
    x, residuals, rank, s = np.linalg.lstsq(a, b, rcond=None)
    tight = 100 * min(shape) * EPS[dtype]
    for method in ("auto", *METHODS):
        fit = lk.lstsq(a, b, method=method)
        assert fit.x.dtype == x.dtype
        assert fit.x.shape == x.shape
        assert np.abs(fit.x - x).max() < tight * np.abs(x).max(), method
        assert fit.rank == rank
        assert fit.residuals.shape == residuals.shape
        assert fit.residuals.dtype == residuals.dtype
        assert np.abs(fit.residuals - residuals).max(initial=0) < tight * np.linalg.norm(b) ** 2
        assert fit.s.shape == s.shape
        kind = fit.info.method
        loose = tight if kind == "direct" else 1e-5 if kind == "sketch_cholesky" else 1.0
        assert (np.abs(fit.s / s - 1) < loose + tight).all(), method
        unpacked = list(fit)
        assert unpacked[0] is fit.x
        assert unpacked[2] == rank
        size = np.linalg.norm(b - a @ fit.x) / np.linalg.norm(b)
        assert abs(fit.info.residual - size) < tight


def deficient(m, n, kind, dtype="float64"):
    """Of rank 3, 4, or 0."""
    if kind == "zero":
        return np.zeros((m, n), dtype)
    if kind == "product":
        return (gaussian(m, 3, dtype=dtype) @ gaussian(3, n, dtype=dtype, seed=1)).astype(dtype)
    a = gaussian(m, n, dtype=dtype)
    if kind == "duplicates":
        a[:, 4:] = a[:, [1, 3, 0, 2] * (n // 4)][:, : n - 4]
    else:
        a[:, 4:] = 0
    return a


@pytest.mark.parametrize("kind", ["duplicates", "columns of zeros", "product", "zero"])
@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("shape", [(500, 9), (30, 9), (9, 30)])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_deficient_rank_gives_the_shortest_solution(kind, method, shape, dtype):
    a = deficient(*shape, kind, dtype)
    b = gaussian(shape[0], 2, dtype=dtype, seed=7)
    rcond = 100 * EPS[dtype]
    x, residuals, rank, _ = np.linalg.lstsq(a, b, rcond=rcond)
    fit = lk.lstsq(a, b, method=method, rcond=rcond)
    assert fit.rank == fit.info.rank == rank
    assert np.abs(fit.x - x).max() <= 300 * EPS[dtype] * np.abs(x).max()
    assert fit.residuals.shape == residuals.shape == (0,)
    assert fit.info.converged
    if kind == "zero":
        assert not fit.x.any()
        assert not fit.info.error_estimate


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_the_default_cut_finds_the_rank_of_exact_duplicates(method):
    a = deficient(500, 9, "duplicates")
    fit = lk.lstsq(a, gaussian(500), method=method)
    assert fit.rank == 4


def test_rcond_cuts_as_in_numpy():
    """Where it cuts off more than rounding, a sketch cannot: ``direct`` follows the default."""
    a, b = conditioned(1300, 90, 1e7), gaussian(1300, seed=3)
    for rcond in (1e-9, 1e-5, 3e-3, 0.5):
        x, _, rank, _ = np.linalg.lstsq(a, b, rcond=rcond)
        for method in ("auto", "direct"):
            fit = lk.lstsq(a, b, method=method, rcond=rcond)
            assert fit.rank == rank
            kept = min(1e7, 1 / rcond)
            assert np.abs(fit.x - x).max() < 100 * kept**2 * EPS["float64"]
        whole = rank == 90
        assert lk.lstsq(a, b, rcond=rcond).info.method == (
            "sketch_cholesky" if whole else "sketch_cholesky+direct"
        )
    with pytest.raises(NotConvergedError, match=r"'spir' did not .*'auto' or 'direct'"):
        lk.lstsq(a, b, method="spir", rcond=1e-5)


# --- Ridges --------------------------------------------------------------------------------------


def ridge(a, b, damp):
    m, n = a.shape
    if m < n:
        turned = a.conj().T
        return turned @ np.linalg.solve(a @ turned + damp * np.eye(m), b)
    whole = np.vstack([a, math.sqrt(damp) * np.eye(n)])
    zeros = np.zeros((n, *b.shape[1:]))
    return np.linalg.lstsq(whole, np.concatenate([b, zeros]), rcond=None)[0]


@pytest.mark.parametrize("shape", [(500, 9), (30, 9), (9, 30), (9, 500)])
@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("damp", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_damp_is_a_ridge(shape, method, damp, dtype):
    """The condition number of the matrix with ``damp^(1/2) I`` below is at most 10^3."""
    for kind in ("full", "duplicates", "zero"):
        a = gaussian(*shape, dtype=dtype) if kind == "full" else deficient(*shape, kind, dtype)
        b = gaussian(shape[0], 2, dtype=dtype, seed=7)
        wanted = ridge(a.astype(np.result_type(a, "float64")), b, damp)
        fit = lk.lstsq(a, b, method=method, damp=damp)
        s = np.linalg.svd(a, compute_uv=False)
        least, size = s[-1] ** 2 + damp, math.hypot(s[0], math.sqrt(damp))
        tight = size / math.sqrt(least) * np.linalg.norm(wanted) + size / least * np.linalg.norm(b)
        tight *= 30 * EPS[dtype]
        assert np.abs(fit.x - wanted).max() <= tight
        assert fit.info.converged
        squares = np.linalg.norm(b - a @ fit.x, axis=0) ** 2
        if fit.residuals.size:
            assert np.abs(fit.residuals / squares - 1).max() < 100 * EPS[dtype]
        # a difference of squares has half the digits of the single precision of a Gram matrix
        assert (np.abs(fit.s - s) <= 0.8 * s + 3e-3 * size).all()


def test_backward_errors_of_ridges():
    """Of the matrix with the ridge below: the formula holds for that."""
    for damp in (1e-12, 1e-6, 1.0):
        a, b = problem(400, 12, 1e8, 0.1)
        whole = np.vstack([a, math.sqrt(damp) * np.eye(12)])
        side = np.concatenate([b, np.zeros(12)])
        for method in STABLE:
            fit = lk.lstsq(a, b, method=method, damp=damp)
            assert backward_error(whole, side, fit.x) <= 10 * U, (method, damp)


def test_estimates_for_ridges():
    """As without: at the first round, where the ridge holds most of the residual."""
    a, b = problem(400, 12, 1e3, 1e-6)
    whole = np.vstack([a, 0.1 * np.eye(12)])
    side = np.concatenate([b, np.zeros(12)])
    for method in METHODS[1:]:
        seen = []
        lk.lstsq(a, b, method=method, damp=0.01, callback=seen.append)
        oracle = backward_error(whole, side, seen[0].x[:, 0])
        ratio = seen[0].backward_error / oracle
        # the Gram matrix makes up for the distortion of the sketch
        assert abs(ratio - 1) < 0.02 if method == "sketch_cholesky" else 0.5 < ratio < 2, method


# --- Fewer rows than columns ---------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [1e0, 1e5, 1e10])
def test_wide_systems_are_solved_by_the_shortest_x(kappa, dtype):
    """``A x = b`` to rounding, x a combination of the rows: together, the shortest."""
    if kappa * EPS[dtype] > 1e-3:
        pytest.skip("single precision determines no digit of x at this condition number")
    a = conditioned(12, 800, kappa, dtype)
    b = a @ gaussian(800, 2, dtype=dtype, seed=3)
    _, _, vh = np.linalg.svd(a, full_matrices=False)
    for method in ("minimum_norm", "direct", "spir"):
        fit = lk.lstsq(a, b, method=method)
        assert fit.info.method == ("direct" if method == "direct" else "minimum_norm")
        size = np.linalg.norm(a) * np.linalg.norm(fit.x) + np.linalg.norm(b)
        assert np.linalg.norm(a @ fit.x - b) <= 10 * EPS[dtype] * size
        outside = fit.x - vh.conj().T @ (vh @ fit.x)
        assert np.linalg.norm(outside) <= 30 * kappa * EPS[dtype] * np.linalg.norm(fit.x)
        wanted = np.linalg.pinv(a, rcond=4 * EPS[dtype]) @ b
        error = np.linalg.norm(fit.x - wanted, axis=0)
        assert (error <= 30 * kappa * EPS[dtype] * np.linalg.norm(wanted, axis=0)).all()
        assert (fit.backward_error <= 10 * EPS[dtype]).all()
        assert fit.rank == 12


def test_the_bound_holds_for_wide_systems():
    for kappa in (1.0, 1e4, 1e8):
        a = conditioned(6, 200, kappa)
        b = gaussian(6, seed=9)
        z = exact_dual(a, b)
        for method in ("direct", "minimum_norm"):
            fit = lk.lstsq(a, b, method=method)
            assert (np.abs(fit.x - z) <= fit.std_error).all(), (method, kappa)


def exact_dual(a, b):
    """``A^T (A A^T)^-1 b`` to 60 digits."""
    mpmath = pytest.importorskip("mpmath")

    with mpmath.workdps(60):
        lift = np.vectorize(mpmath.mpf, otypes=[object])
        long, side = lift(a), lift(b)
        z = mpmath.lu_solve(mpmath.matrix((long @ long.T).tolist()), mpmath.matrix(side.tolist()))
        return (long.T @ np.array(list(z), object)).astype(float)


# --- The choice of a method ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "method"),
    [
        ((100, 10), {}, "direct"),
        ((10**6, 100), {}, "sketch_cholesky"),
        ((10**6, 1001), {}, "spir"),
        ((100, 10**6), {}, "minimum_norm"),
        ((2000, 1000), {}, "direct"),
        ((10**6, 100), {"kind": "sparse"}, "spir"),
        ((1000, 100), {"kind": "sparse"}, "direct"),
        ((10**6, 100), {"kind": "operator"}, "spir"),
        ((10**6, 10), {"kind": "blocks"}, "sketch_cholesky"),
        ((10**6, 10), {"kind": "blocks", "method": "sketch_solve"}, "sketch_solve"),
        ((10**6, 10), {"method": "fossils"}, "fossils"),
        ((1000, 10), {"method": "fossils", "k": 1000}, "direct"),
        ((10, 1000), {"method": "fossils"}, "minimum_norm"),
        ((10, 12), {"method": "fossils"}, "direct"),
        ((10**6, 100), {"method": "minimum_norm"}, "sketch_cholesky"),
    ],
)
def test_the_choice_of_a_method(arguments, options, method):
    chosen, reason = choose_method(*arguments, **options)
    assert chosen == method
    assert reason


def test_samples_are_solved():
    for size in ("small", "medium"):
        (a, b), options = sample(size, rng=0)
        fit = lk.lstsq(a, b, **options)
        assert backward_error(a, b, fit.x) < 10 * U
