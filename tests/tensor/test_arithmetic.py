"""Sums, products, quotients, powers and compositions against the values they stand for."""

import fractions
import warnings

import numpy as np
import pytest
import smooth

from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.tensor import _arithmetic, _construct
from linalgk.tensor._chebtucker import chebtucker
from linalgk.tensor._chebyshev import points
from linalgk.tensor._function import ChebTucker

EPS = np.finfo(np.float64).eps
BOXES = {1: [(-1, 2)], 2: [(-1, 2), (0, 1)], 3: [(-1, 2), (0, 1), (3, 4)]}
BOXES[4] = [*BOXES[3], (-2, -1)]


def left(*x):
    """Not separable, of all variables."""
    return 1 / (4 + sum(x) + x[0] * x[-1] / 2)


def right(*x):
    """Complex, of another degree and rank."""
    return np.exp(1j * x[0]) * np.cos(3 * x[-1]) + 0.5 * sum(x)


def pair(d, tol=1e-11):
    return chebtucker(left, BOXES[d], tol=tol), chebtucker(right, BOXES[d], tol=tol)


def mesh(f, n=None):
    n = n or {1: 501, 2: 41, 3: 15, 4: 9}[f.ndim]
    axes = [0.5 * (a + b) + 0.5 * (b - a) * points(n) for a, b in f.domain]
    return [x.reshape(-1) for x in np.meshgrid(*axes, indexing="ij")]


def check(h, exact, allowed, factor=2.0):
    """Within the error that it claims, which is not above what is allowed of the largest value."""
    x = mesh(h)
    values = exact(*x)
    missed, size = np.max(np.abs(h(*x) - values)), np.max(np.abs(values))
    # the construction's own search for the worst point may miss a factor
    assert missed <= factor * h.error * h.scale + 20 * EPS * size
    assert h.error * h.scale <= allowed * size
    assert h.scale >= 0.5 * size
    c = h.certificate
    assert h.error == 0.0 or h.error <= 1.01 * (c.tail + c.truncation + c.sampled)
    assert h.converged
    for u in h.factors:
        assert u.dtype == h.dtype.type(0).real.dtype
        np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=200 * np.finfo(u.dtype).eps)


# --- Laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_operations_of_two_functions(d):
    f, g = pair(d)
    check(f + g, lambda *x: left(*x) + right(*x), 1e-10)
    check(f - g, lambda *x: left(*x) - right(*x), 1e-10)
    check(f * g, lambda *x: left(*x) * right(*x), 1e-10)
    check(g / f, lambda *x: right(*x) / left(*x), 1e-9)
    check(f**3, lambda *x: left(*x) ** 3, 1e-10)
    assert ((f + g).method, (f * g).method, (g / f).method) == ("add", "multiply", "divide")
    assert (f + g).dtype == (f * g).dtype == np.complex128
    assert (f * f).dtype == np.float64
    assert (f + g).evaluations == f.evaluations + g.evaluations


def test_operations_with_numbers():
    f = pair(2)[0]
    check(2 + f, lambda *x: 2 + left(*x), 1e-10)
    check(f + 2j, lambda *x: left(*x) + 2j, 1e-10)
    check(1 - f, lambda *x: 1 - left(*x), 1e-10)
    check(f - np.float64(3), lambda *x: left(*x) - 3, 1e-10)
    check(np.array(2.0) * f, lambda *x: 2 * left(*x), 1e-10)
    check(f * (1 + 2j), lambda *x: (1 + 2j) * left(*x), 1e-10)
    check(f / 4, lambda *x: left(*x) / 4, 1e-10)
    check(f * fractions.Fraction(1, 3) + True, lambda *x: left(*x) / 3 + 1, 1e-10)
    check(2j / f, lambda *x: 2j / left(*x), 1e-9)
    check(f**-2, lambda *x: left(*x) ** -2.0, 1e-9)
    check(f**0, lambda *x: 1 + 0 * x[0], 1e-15)
    # a factor changes no rank and no relative error
    assert ((3 * f).ranks, (3 * f).error, (3 * f).scale) == (f.ranks, f.error, 3 * f.scale)
    zero = 0 * f
    assert (zero.ranks, zero.integrate(), (zero + f).dtype) == ((1, 1), 0.0, f.dtype)


def test_what_cancels_leaves_nothing():
    for d in (1, 3):
        f, g = pair(d)
        for h in (f - f, g - g, (f + g) - g - f):
            assert h.ranks == (1,) * d
            assert np.max(np.abs(h.core)) <= 1e-10
            # all that is known is how large it may be
            assert h.error > 0.5
            assert h.scale <= 1e-9
        # it still adds as what it is
        assert abs((f - f + g).error - g.error) <= 1e-10


def test_binomial_law():
    f = chebtucker(smooth.CASES[0].f, smooth.CASES[0].domain, tol=1e-11)
    g = chebtucker(lambda x, y, z: np.sin(2 * x + y) + z, f.domain, tol=1e-11)
    square, expanded = (f + g) ** 2, f * f + 2 * f * g + g**2
    difference = square - expanded
    assert difference.scale <= 1e-9
    # least ranks: the same function is as complex whichever way it came about
    assert all(abs(a - b) <= 2 for a, b in zip(square.ranks, expanded.ranks, strict=True))
    assert abs(square.integrate() - (f + g).norm() ** 2) <= 1e-9


def test_exact_polynomials():
    domain = [(-1, 1), (0, 3)]
    x = chebtucker(lambda x, y: x + 0 * y, domain)
    y = chebtucker(lambda x, y: y + 0 * x, domain)
    p = (x + y) ** 5 - x**5 - y**5
    assert p.degrees == (4, 4)
    exact = 5 * (x**4 * y + 2 * x**3 * y**2 + 2 * x**2 * y**3 + x * y**4)
    assert np.max(np.abs((p - exact).core)) <= 1e-11
    assert (x * y).ranks == (1, 1)
    assert (x + y).ranks == (2, 2)


# --- The ways to a product ------------------------------------------------------------------------


def test_every_way_to_a_product_is_the_same(monkeypatch):
    """On the grid, by Khatri-Rao products of factors, and constructed anew."""
    for d in (1, 2, 3, 4):
        f, g = pair(d, tol=1e-9)
        lengths = [m + n + 1 for m, n in zip(f.degrees, g.degrees, strict=True)]
        tol = 1e-9 * f.scale * g.scale
        exact = f(*mesh(f)) * g(*mesh(g))
        for way in (_arithmetic._grid_product, _arithmetic._khatri_rao_product):
            core, factors = way(f, g, lengths, tol)
            h = ChebTucker(core, factors, f.domain)
            assert np.max(np.abs(h(*mesh(f)) - exact)) <= 10 * tol, (d, way)
            assert all(r <= n for r, n in zip(h.ranks, lengths, strict=True))
        if d != 3:
            continue
        chosen = f * g
        monkeypatch.setattr(_arithmetic, "LARGEST", 100)
        sampled = f * g
        monkeypatch.undo()
        assert sampled.evaluations > 1000
        assert np.max(np.abs(sampled(*mesh(f)) - exact)) <= 10 * tol
        assert np.max(np.abs(chosen(*mesh(f)) - exact)) <= 10 * tol


def test_products_of_high_degree_and_low_rank_need_no_grid():
    # the grid would have 1201^3 points, 14 GB
    domain = [(-1, 1)] * 3
    f = chebtucker(lambda x, y, z: np.cos(300 * x) * np.exp(y) * np.sin(400 * z), domain, tol=1e-9)
    assert min(f.degrees[0], f.degrees[2]) > 300
    h = f * f
    x = np.random.default_rng(5).uniform(-1, 1, (3, 1000))
    exact = (np.cos(300 * x[0]) * np.exp(x[1]) * np.sin(400 * x[2])) ** 2
    assert np.max(np.abs(h(*x) - exact)) <= 1e-8 * h.scale
    assert h.ranks == (1, 1, 1)


# --- Compression, composition, parts --------------------------------------------------------------


def test_recompression_meets_its_tolerance():
    f = chebtucker(lambda x, y, z: np.tanh(3 * (x + y + z)), [(-1, 1)] * 3, tol=1e-9)
    x = mesh(f, 21)
    before = None
    for tol in (1e-1, 1e-3, 1e-6):
        h = f.recompress(tol)
        assert np.max(np.abs(h(*x) - f(*x))) <= 1.5 * tol * f.scale
        assert f.error <= h.error <= 2 * tol
        # nowhere more than the certificate's bound
        assert np.max(np.abs(h(*x) - f(*x))) <= h.certificate.truncation * h.scale
        assert max(h.ranks) < max(f.ranks)
        assert before is None or h.ranks > before
        before = h.ranks
    assert f.recompress(0.0).ranks == f.ranks
    with pytest.raises(ValueError, match="tol"):
        f.recompress(-1.0)


def test_composition(monkeypatch):
    f = pair(2)[0]
    check(f.compose(np.exp), lambda *x: np.exp(left(*x)), 1e-9)
    check(f.compose(np.sqrt, tol=1e-6), lambda *x: np.sqrt(left(*x)), 1e-5)
    check(f.compose(lambda v: np.exp(1j * v)), lambda *x: np.exp(1j * left(*x)), 1e-9)
    # an error of f is one of func(f), with the slope of func
    crude = f._with(f.core, f.factors, error=1e-6)
    steep = crude.compose(lambda v: 1000 * v, tol=1e-10)
    assert abs(steep.error - 1e-6) <= 1e-8
    # a kink: warned, and of an error that it knows
    monkeypatch.setitem(_construct.LONGEST, 1, 1 << 10)
    line = chebtucker(lambda x: x, [(-1, 1.3)])
    with pytest.warns(ConvergenceWarning, match="kink|cusp"):
        kink = line.compose(np.abs, tol=1e-10)
    assert not kink.converged
    x = np.linspace(-1, 1.3, 1001)
    assert np.max(np.abs(kink(x) - np.abs(x))) <= 4 * kink.error * kink.scale
    assert not (kink + line).converged
    with pytest.raises(TypeError, match="callable"):
        f.compose(2)


def test_parts_of_complex_functions():
    f, g = pair(2)
    check(g.real, lambda *x: right(*x).real, 1e-10)
    check(g.imag, lambda *x: right(*x).imag, 1e-10)
    check(g.conj(), lambda *x: right(*x).conj(), 1e-10)
    assert g.real.dtype == g.imag.dtype == np.float64
    check((g * g.conj()).real, lambda *x: np.abs(right(*x)) ** 2, 1e-10)
    assert f.real is f
    assert f.conj() is f
    assert f.imag.integrate() == 0


@pytest.mark.parametrize("method", ["add", "multiply", "divide", "diff", "integrate"])
def test_single_precision_stays(method):
    f, g = (h.astype(np.float32) for h in pair(2, tol=1e-6))
    done = {
        "add": lambda: f + g, "multiply": lambda: f * g, "divide": lambda: g / f,
        "diff": lambda: f.diff(0), "integrate": lambda: f.integrate(0),
    }[method]()  # fmt: skip
    assert done.dtype in (np.float32, np.complex64)
    assert (done.factors[0].dtype, (2 * done).dtype) == (np.float32, done.dtype)
    exact = {
        "add": lambda *x: left(*x) + right(*x),
        "multiply": lambda *x: left(*x) * right(*x),
        "divide": lambda *x: right(*x) / left(*x),
    }.get(method)
    if exact is not None:
        check(done, exact, 1e-4)
    assert (f + np.float64(1)).dtype == np.float64


# --- Bad input ------------------------------------------------------------------------------------


def test_operands_have_to_fit():
    f = pair(2)[0]
    other = chebtucker(left, [(-1, 2), (0, 2)])
    one = chebtucker(lambda x: x, [(-1, 2)])
    for operation in ("__add__", "__sub__", "__mul__", "__truediv__"):
        for g in (other, one):
            with pytest.raises(ValueError, match="domain"):
                getattr(f, operation)(g)
    for bad in ("a", [1.0], np.ones(3), None):
        with pytest.raises(TypeError):
            f + bad
        with pytest.raises(TypeError):
            bad * f
        with pytest.raises(TypeError):
            bad / f
    for bad in (np.nan, np.inf, complex(0, np.nan)):
        with pytest.raises(NonFiniteError, match="other"):
            f + bad
    for bad in (0.5, 2.0, True):
        with pytest.raises(TypeError, match="compose"):
            f**bad


def test_division_by_zeros():
    f = pair(2)[0]
    with pytest.raises(ZeroDivisionError):
        f / 0
    crossing = f - f(0.0, 0.5)
    # a zero between the points of any grid, with no change of sign
    touching = chebtucker(lambda x, y: (x - 0.123456) ** 2 + (y - 0.654321) ** 2, f.domain)
    circle = chebtucker(lambda x, y: np.exp(1j * x) - 1 + 0 * y, f.domain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for g in (crossing, touching, circle):
            with pytest.raises(ValueError, match="zeros"):
                1 / g
            with pytest.raises(ValueError, match="zeros"):
                g**-1
