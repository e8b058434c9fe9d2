"""Integrals, derivatives, inner products and norms against closed forms."""

import functools
import math

import numpy as np
import pytest
import smooth

from linalgk.tensor._calculus import weights
from linalgk.tensor._chebtucker import chebtucker
from linalgk.tensor._chebyshev import points
from linalgk.tensor._combine import at_points
from linalgk.tensor._function import ChebTucker

EPS = np.finfo(np.float64).eps
cases = pytest.mark.parametrize("case", smooth.CASES, ids=lambda c: c.name)


@functools.cache
def made(name):
    case = next(c for c in smooth.CASES if c.name == name)
    return chebtucker(case.f, case.domain, tol=1e-12)


def mesh(domain, n):
    axes = [0.5 * (a + b) + 0.5 * (b - a) * points(n) for a, b in domain]
    return [x.reshape(-1) for x in np.meshgrid(*axes, indexing="ij")]


def wavy(dtype="float64"):
    """Complex, on an unsymmetric box, of different degrees."""
    f = chebtucker(
        lambda x, y: np.exp(1j * (x + 2 * y)) / (3 + x), [(-1, 2), (0.5, 1.5)], tol=1e-13
    )
    return f if dtype == "float64" else f.astype(dtype)


# --- The bars -----------------------------------------------------------------------------


@cases
def test_integrals_to_thirteen_digits(case):
    value = made(case.name).integrate()
    assert type(value) is float
    assert abs(value - case.integral) <= 1e-13 * abs(case.integral)


@cases
def test_derivatives_of_a_function_at_1e_12(case):
    f = made(case.name)
    # Chebyshev points have the ends, where a series' derivative is worst
    x = mesh(case.domain, {1: 1001, 2: 61, 3: 21, 4: 9}[f.ndim])
    for k, exact in enumerate(case.gradient(*x)):
        d = f.diff(k)
        size, missed = np.max(np.abs(exact)), np.max(np.abs(d(*x) - exact))
        assert missed <= 1e-9 * size
        # an object knows its error; factor 2: the construction's own search may miss the worst
        assert missed <= 2 * d.error * d.scale
        assert d.error <= 1e-7
        assert (d.method, d.converged, d.domain) == ("diff", f.converged, f.domain)


# --- Integrals ------------------------------------------------------------------------------------


def test_integral_over_some_variables():
    f = chebtucker(
        lambda x, y, z: np.exp(x) * np.cos(y) * z + y, [(0, 1), (-1, 2), (1, 3)], tol=1e-13
    )
    sine, e = math.sin(2) + math.sin(1), math.e - 1
    over_xz = f.integrate(axis=(0, -1))
    assert (over_xz.ndim, over_xz.domain, over_xz.method) == (1, ((-1.0, 2.0),), "integrate")
    y = np.linspace(-1, 2, 9)
    exact = e * 4 * np.cos(y) + 2 * y
    np.testing.assert_allclose(over_xz(y), exact, rtol=0, atol=1e-12 * 8)
    # the volume is 2
    assert abs(over_xz.error * over_xz.scale / (2 * f.error * f.scale) - 1) <= 0.1
    over_y = f.integrate(axis=1)
    assert over_y.domain == ((0.0, 1.0), (1.0, 3.0))
    np.testing.assert_allclose(over_y(0.5, 2.0), math.exp(0.5) * sine * 2 + 1.5, rtol=1e-12)
    # the rest of the variables give the whole, in any order
    whole = e * sine * 4 + 3.0
    for axes in ((0, 1, 2), (2, 0, 1), None):
        assert abs(f.integrate(axes) - whole) <= 1e-13 * whole
    assert abs(over_y.integrate(1).integrate() - whole) <= 1e-12 * whole
    assert f.integrate(axis=()) is f


def test_integral_is_complex_for_complex_functions():
    value = wavy().integrate()
    assert type(value) is complex
    x = chebtucker(lambda x: np.exp(1j * x) / (3 + x), [(-1, 2)], tol=1e-13).integrate()
    y = (np.exp(3j) - np.exp(1j)) / 2j
    assert abs(value - x * y) <= 1e-13 * abs(x * y)
    assert abs(wavy().real.integrate() - (x * y).real) <= 1e-12


@pytest.mark.parametrize(
    ("axis", "error", "message"),
    [(3, ValueError, "from -3 to 2"), ((0, -3), ValueError, "once"), (1.0, TypeError, "integer")],
)
def test_axes_have_to_be_there(axis, error, message):
    with pytest.raises(error, match=message):
        made("inverse quadratic").integrate(axis)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 33, 1000])
def test_quadrature_is_exact_and_positive(n):
    w, x = weights(n), points(n)
    assert w.shape == (n,)
    assert w.min() > 0
    for k in {0, 1, n // 2, n - 1} - {n}:
        exact = (1 + (-1) ** k) / (k + 1) / 1.0
        assert abs(w @ x**k - exact) <= 20 * EPS


# --- Derivatives ----------------------------------------------------------------------------------


def test_higher_derivatives_and_scaling():
    f = chebtucker(lambda x, y: np.sin(2 * x) * np.exp(y), [(0, 5), (-3, -1)], tol=1e-14)
    x = mesh(f.domain, 15)
    base = np.exp(x[1])
    for order, slope in ((2, -4 * np.sin(2 * x[0])), (3, -8 * np.cos(2 * x[0]))):
        d = f.diff(0, order=order)
        # each order loses about n^2, n = 30
        assert np.max(np.abs(d(*x) - slope * base)) <= 1e-14 * 30 ** (2 * order)
        assert np.max(np.abs(d(*x) - slope * base)) <= 2 * d.error * d.scale
    mixed = f.diff(0).diff(-1)
    assert np.max(np.abs(mixed(*x) - 2 * np.cos(2 * x[0]) * base)) <= 1e-10
    assert f.diff(1, order=0) is f
    # a function of the other variable alone
    nothing = chebtucker(lambda x, y: np.exp(y) + 0 * x, [(0, 5), (-3, -1)]).diff(0)
    assert nothing.ranks == (1, 1)
    assert nothing.integrate() == 0
    with pytest.raises(ValueError, match="order"):
        f.diff(0, order=-1)


def test_error_of_a_derivative_is_not_the_functions():
    # the derivative of T_n / n^2 at the end is 1: a perturbation that Markov's inequality allows
    n, delta = 40, 1e-8
    c = np.zeros((n, 1))
    c[1] = 1.0
    f = ChebTucker(np.ones(1), [c], [(-1, 1)], error=delta, scale=1.0)
    d = f.diff(0)
    assert abs(d.error * d.scale - delta * n**2) <= 1e-12
    # and once more on an interval of length 1
    g = ChebTucker(np.ones(1), [c], [(0, 1)], error=delta, scale=1.0).diff(0, order=2)
    assert abs(g.error * g.scale / (4 * delta * n**2 * (n**2 - 1) / 3) - 1) <= 1e-10


@pytest.mark.parametrize(
    ("func", "domain"),
    [
        (lambda x, y: np.exp(x) * np.cos(y), [(-1, 2), (0, 1)]),
        (lambda x, y, z: 1 / np.sqrt(x * x + y * y + z * z), [(1, 2), (1, 2), (-1, 1)]),
        (lambda x, y, z, w: x * y - 2 * z * z + w * w + x * x, [(-1, 1), (0, 2), (0, 1), (3, 4)]),
    ],
    ids=["2-D", "3-D", "4-D"],
)
def test_harmonic_functions(func, domain):
    f = chebtucker(func, domain, tol=1e-14)
    lap = f.laplacian()
    x = mesh(domain, 9)
    terms = sum(np.max(np.abs(f.diff(k, order=2)(*x))) for k in range(f.ndim))
    assert terms > 0.5
    assert np.max(np.abs(lap(*x))) <= 1e-9 * terms
    # it says itself that nothing is known of it but its size
    assert np.max(np.abs(lap(*x))) <= lap.error * lap.scale


def test_laplacian_of_an_eigenfunction():
    f = chebtucker(
        lambda x, y, z: np.sin(x) * np.sin(2 * y) * np.cos(z) + 1, [(0, 3), (0, 1), (-1, 1)],
        tol=1e-13,
    )  # fmt: skip
    lap, x = f.laplacian(), mesh(f.domain, 9)
    assert lap.recompress(1e-9).ranks == (1, 1, 1)
    assert np.max(np.abs(lap(*x) + 6 * (f(*x) - 1))) <= 1e-9 * 6
    one = chebtucker(lambda x: x**3, [(0, 2)]).laplacian()
    assert abs(one(1.5) - 9) <= 1e-9


@pytest.mark.parametrize(("m", "n"), [(1, 1), (6, 1), (1, 2), (7, 2), (5, 9), (40, 7), (41, 41)])
def test_values_on_fewer_points_than_coefficients(m, n, rng):
    c = rng.standard_normal((m, 3))
    exact = np.polynomial.chebyshev.chebval(points(n), c).T
    np.testing.assert_allclose(at_points(c, n), exact, rtol=0, atol=50 * m * EPS)


# --- Inner products -------------------------------------------------------------------------------


def test_inner_is_the_integral_of_the_product():
    f, g = made("inverse quadratic"), made("polynomial")
    g = chebtucker(lambda x, y, z: x * x + y * z + 1, f.domain)
    value = f.inner(g)
    assert type(value) is float
    assert abs(value - (f * g).integrate()) <= 1e-12
    assert abs(value - g.inner(f)) <= 1e-14 * abs(value)
    # of the pair x^2 + 1 only: y z is odd
    assert abs(f.inner(f) - f.norm() ** 2) <= 1e-14 * f.norm() ** 2


def test_inner_conjugates_the_first():
    f = wavy()
    g = chebtucker(lambda x, y: x + 1j * y, f.domain)
    assert type(f.inner(g)) is complex
    assert abs(f.inner(g) - (f.conj() * g).integrate()) <= 1e-12
    assert abs(f.inner(g) - np.conj(g.inner(f))) <= 1e-14
    # |f|^2 = 1 / (3 + x)^2
    exact = math.sqrt(1 / 2 - 1 / 5)
    assert type(f.norm()) is float
    assert abs(f.norm() - exact) <= 1e-13
    assert abs(wavy("complex64").norm() - exact) <= 20 * np.finfo(np.float32).eps


def test_parseval_of_legendre_polynomials():
    # P_m P_n for m, n <= 6: an orthogonal family with norms 2 / (2n + 1)
    from scipy.special import eval_legendre

    f = [chebtucker(lambda x, n=n: eval_legendre(n, x), [(-1, 1)], tol=1e-14) for n in range(7)]
    gram = np.array([[p.inner(q) for p in f] for q in f])
    np.testing.assert_allclose(gram, np.diag([2 / (2 * n + 1) for n in range(7)]), atol=1e-14)
    a = np.arange(1.0, 8.0)
    series = functools.reduce(lambda x, y: x + y, [t * p for t, p in zip(a, f, strict=True)])
    assert abs(series.norm() ** 2 - a**2 @ np.diag(gram)) <= 1e-12 * 100


def test_norm_of_a_small_difference():
    # the squares of f and g have 16 digits, their difference's has none
    f = chebtucker(lambda x, y: np.exp(x * y), [(0, 1)] * 2, tol=1e-14)
    core = np.array([[1e-12]])
    small = ChebTucker(core, [np.ones((1, 1))] * 2, f.domain)
    difference = (f + small) - f
    assert abs(difference.norm() - 1e-12) <= 1e-13


def test_inner_needs_one_domain():
    with pytest.raises(ValueError, match=r"domain .*1\.0.*got .*3\.0"):
        made("inverse quadratic").inner(made("polynomial"))
    with pytest.raises(TypeError, match="ChebTucker"):
        made("polynomial").inner(2.0)
