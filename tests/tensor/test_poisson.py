"""Poisson's equation in a box: eigenfunctions, manufactured solutions, torsion of a square."""

import itertools
import math
import warnings

import mpmath
import numpy as np
import pytest

from linalgk.errors import ConvergenceWarning
from linalgk.tensor import _chebyshev, _poisson
from linalgk.tensor._compress import compress
from linalgk.tensor._function import ChebTucker

DOMAINS = [(-1.0, 1.0), (0.0, 1.0), (-1.0, 2.0), (3.0, 5.0)]


def interpolated(func, domain, m=25, error=0.0):
    axes = [0.5 * (a + b) + 0.5 * (b - a) * _chebyshev.points(m) for a, b in domain]
    c = func(*np.meshgrid(*axes, indexing="ij")) + np.zeros([m] * len(domain))
    scale = np.abs(c).max()
    for k in range(len(domain)):
        c = _chebyshev.coefficients(c, k)
    r = compress(c, [np.eye(m)] * len(domain), tol=1e-15 * scale)
    return ChebTucker(r.core, r.factors, domain, error=error, scale=scale)


def constant(d, value=-1.0):
    return ChebTucker(np.full([1] * d, value), [np.ones((1, 1))] * d, [(-1, 1)] * d)


def difference(u, exact, rng, count=500):
    """Relative to the largest value, at random points and at the middle of every edge."""
    random = [rng.uniform(a, b, count) for a, b in u.domain]
    edges = list(itertools.product(*[(a, 0.5 * (a + b), b) for a, b in u.domain]))
    x = [np.concatenate([p, q]) for p, q in zip(random, np.array(edges).T, strict=True)]
    want = exact(*x)
    return np.abs(u(*x) - want).max() / np.abs(want).max()


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_eigenfunctions(d, rng):
    domain = DOMAINS[:d]
    squares = sum((math.pi * (k + 1) / (b - a)) ** 2 for k, (a, b) in enumerate(domain))

    def exact(*x):
        waves = [
            np.sin(math.pi * (k + 1) * (t - a) / (b - a))
            for k, (t, (a, b)) in enumerate(zip(x, domain, strict=True))
        ]
        return math.prod(waves)

    f = interpolated(lambda *x: -squares * exact(*x), domain, 27)
    u = f.solve_poisson(tol=1e-11)
    assert u.converged
    assert difference(u, exact, rng) <= min(1e-11, 2 * u.error + 1e-13)
    assert max(u.ranks) == 1


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("complex_values", [False, True])
def test_polynomials_times_a_bubble(d, complex_values, rng):
    """u is a polynomial, so that the solution is exact but for rounding."""
    domain = [(-2.0, 1.0), (-1.0, 1.0), (0.0, 4.0)][:d]
    one = np.polynomial.Polynomial
    factors, seconds = [], []
    for a, b in domain:
        bubble = one([-a, 1]) * one([b, -1])
        p = [bubble * one(rng.standard_normal(5)) for _ in range(2)]
        factors.append(p)
        seconds.append([q.deriv(2) for q in p])
    weights = np.array([1.0, 1j if complex_values else 0.5])

    def exact(*x):
        return sum(
            w * math.prod(p[i](t) for p, t in zip(factors, x, strict=True))
            for i, w in enumerate(weights)
        )

    def right(*x):
        total = 0
        for i, w in enumerate(weights):
            for k in range(d):
                terms = [(seconds if j == k else factors)[j][i](t) for j, t in enumerate(x)]
                total = total + w * math.prod(terms)
        return total

    f = interpolated(right, domain, 12)
    u = f.solve_poisson(tol=1e-11)
    assert u.converged
    assert u.core.dtype == (np.complex128 if complex_values else np.float64)
    assert difference(u, exact, rng) <= 1e-11


def torsion(x, y):
    """Solution of laplacian u = -1 on [-1, 1]^2 by Fourier series in x."""
    mpmath.mp.dps = 30
    total = (1 - mpmath.mpf(x) ** 2) / 2
    for n in range(1, 60, 2):
        k = n * mpmath.pi / 2
        sign = (-1) ** ((n - 1) // 2)
        part = 16 * sign / (n**3 * mpmath.pi**3) * mpmath.cos(k * x)
        total -= part * mpmath.cosh(k * y) / mpmath.cosh(k)
    return float(total)


@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-12])
def test_torsion_of_a_square(tol):
    """The corners are singular, and the error is still what it is said to be."""
    points = [(0.0, 0.0), (0.3, -0.2), (0.5, 0.6)]
    u = constant(2).solve_poisson(tol=tol)
    assert u.converged
    assert u.error <= tol
    for x, y in points:
        assert abs(u(x, y) - torsion(x, y)) <= u.error * u.scale + 1e-15
    assert abs(torsion(0.0, 0.0) - 0.2946854131260553) < 1e-15
    assert np.abs(u(np.array([1.0, 1.0, 0.2]), np.array([0.3, -1.0, 1.0]))).max() <= 2 * tol


def test_exponential_sum_agrees_with_division(monkeypatch, rng):
    """3-D, in low rank and with all coefficients, to the accuracy that both have."""
    f = interpolated(lambda x, y, z: np.exp(x - y) / (3 + x + z), DOMAINS[:3], 15)
    full = f.solve_poisson(tol=1e-7)
    monkeypatch.setattr(_poisson, "FULL", 10)
    low = f.solve_poisson(tol=1e-7)
    assert full.method != low.method
    x = [rng.uniform(a, b, 300) for a, b in f.domain]
    assert np.abs(full(*x) - low(*x)).max() <= 2e-7 * full.scale
    assert np.abs(full(*x) - low(*x)).max() > 0


@pytest.mark.parametrize("tol", [1e-3, 1e-8, 1e-13])
def test_sum_of_exponentials_for_the_inverse(tol):
    w, a = _poisson.inverse_sum(tol)
    x = np.concatenate([np.linspace(1, 5, 200), np.geomspace(5, 1e15, 200)])
    gap = np.abs(np.exp(-np.outer(x, a)) @ w - 1 / x)
    assert gap.max() <= tol + 1e-15
    assert w.size <= 10 + math.log(1 / tol) ** 2 / 6


def test_low_rank_division(rng):
    values = [np.sort(rng.uniform(1, 1e6, n)) for n in (20, 30, 25)]
    core = rng.standard_normal((2, 3, 2)) + 1j * rng.standard_normal((2, 3, 2))
    factors = [rng.standard_normal((v.size, r)) for v, r in zip(values, (2, 3, 2), strict=True)]
    small, bases = _poisson.low_rank(core, factors, values, 1e-8)
    whole = np.einsum("abc,ia,jb,kc->ijk", core, *factors)
    want = whole / (values[0][:, None, None] + values[1][:, None] + values[2])
    got = np.einsum("abc,ia,jb,kc->ijk", small, *bases)
    least = sum(v.min() for v in values)
    assert np.linalg.norm(got - want) <= 1e-8 * np.linalg.norm(whole) / least


@pytest.mark.parametrize("m", [1, 2, 5, 40])
def test_legendre_and_chebyshev(m):
    back = _poisson._to_chebyshev(m) @ _poisson._to_legendre(m)
    np.testing.assert_allclose(back, np.eye(m), atol=1e-13 * m)
    want = np.polynomial.chebyshev.poly2cheb(
        np.polynomial.legendre.leg2poly(np.eye(min(m, 12))[-1])
    )
    np.testing.assert_allclose(
        _poisson._to_chebyshev(m)[: want.size, want.size - 1], want, atol=1e-13
    )


def test_eigenvalues_are_those_of_the_interval():
    values = np.sort(_poisson._basis(60).values)[:20]
    want = (np.arange(1, 21) * math.pi / 2) ** 2
    np.testing.assert_allclose(values, want, rtol=1e-11)


def test_error_of_f_is_passed_on():
    f = interpolated(lambda x, y: np.cos(x) * y, DOMAINS[:2], 20, error=1e-4)
    u = f.solve_poisson()
    data = 1e-4 * f.scale / 8
    assert u.converged
    assert data <= u.error * u.scale <= 2.01 * data
    with pytest.warns(ConvergenceWarning, match="error 1.0e-04 of f"):
        late = f.solve_poisson(tol=1e-8)
    assert not late.converged
    assert late.error >= 1e-4


def test_what_cannot_be_reached_is_told(monkeypatch):
    monkeypatch.setattr(_poisson, "LARGEST", 40)
    with pytest.warns(ConvergenceWarning, match="40 functions"):
        u = constant(2).solve_poisson(tol=1e-9)
    assert not u.converged
    assert 1e-9 < u.error < 1e-4
    assert abs(u(0.0, 0.0) - 0.2946854131260553) <= u.error * u.scale


def test_zero_single_precision_and_bad_tolerances():
    zero = constant(3, 0.0).solve_poisson()
    assert zero(0.1, 0.2, 0.3) == 0
    assert zero.converged
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        single = constant(2).astype(np.float32).solve_poisson(tol=1e-5)
    assert single.core.dtype == np.float32
    assert abs(single(0.0, 0.0) - 0.2946854) < 1e-5
    for bad in (0.0, -1.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="tol"):
            constant(2).solve_poisson(tol=bad)
    with pytest.raises(TypeError, match="tol"):
        constant(2).solve_poisson(tol="1e-3")
