"""Functions from values on grids: what they claim of their error is checked against the truth."""

import math

import numpy as np
import pytest

from linalgk import errors
from linalgk.tensor import _chebyshev, _from_data, _splines
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._columns import Canonical
from linalgk.tensor._compress import Compressed
from linalgk.tensor._from_data import (
    explain_from_data,
    from_canonical_coefficients,
    from_data,
    sample_from_data,
)
from linalgk.tensor._tucker_tensor import TuckerTensor

BOX = [(-1.0, 1.0), (0.0, 3.0), (2.0, 2.5)]
GRIDS = ["chebyshev", "uniform", "cells", "vectors"]


def smooth(x, y, z):
    return np.exp(-x * x) / (4 + y + x * z) + np.cos(y * z)


def coordinates(grid, n, a=-1.0, b=1.0):
    if grid == "chebyshev":
        t = _chebyshev.points(n)
    elif grid == "uniform":
        t = np.linspace(-1, 1, n)
    elif grid == "cells":
        t = np.arange(1 - n, n, 2) / n
    else:
        t = np.linspace(-1, 1, n)
        t = t + 0.1 * np.sin(np.pi * t)
    return 0.5 * (a + b) + 0.5 * (b - a) * t


def sampled(grid, sizes, domain, func):
    axes = [coordinates(grid, n, a, b) for n, (a, b) in zip(sizes, domain, strict=True)]
    return axes, func(*np.meshgrid(*axes, indexing="ij"))


def true_error(f, func, rng, count=2000):
    x = [rng.uniform(a, b, count) for a, b in f.domain]
    return np.abs(f(*x) - func(*x)).max() / f.scale


@pytest.mark.parametrize("grid", GRIDS)
def test_dense_values(grid, rng):
    sizes, tol = (60, 71, 48), 1e-7
    axes, v = sampled(grid, sizes, BOX, smooth)
    f = from_data(v, BOX, grid=axes if grid == "vectors" else grid, tol=tol)
    assert f.converged
    assert true_error(f, smooth, rng) <= f.error <= tol
    assert f.scale == np.abs(v).max()
    assert max(f.ranks) <= 11
    assert f.domain == tuple(BOX)


@pytest.mark.parametrize(("grid", "n"), [("uniform", 24), ("cells", 12), ("cells", 48)])
def test_estimated_error_is_the_true_one_within_a_factor(grid, n, rng):
    """Coarse data: the estimate is no less than the truth, and not hundreds of times as much."""

    def func(x, y):
        return np.sin(3 * x + y) / (1.5 + y)

    box = BOX[:2]
    _, v = sampled(grid, (n, n), box, func)
    f = from_data(v, box, grid=grid, tol=1e-14, on_fail="nan")
    truth = true_error(f, func, rng)
    assert truth <= 1.2 * f.error
    assert f.error <= 500 * truth + 1e-13


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("complex_values", [False, True])
def test_polynomials_on_chebyshev_grids_are_exact(d, complex_values, rng):
    shape, grid = (4, 5, 3, 4)[:d], (9, 8, 7, 10)[:d]
    c = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_values else 0)
    v = c
    for k, n in enumerate(grid):
        table = np.polynomial.chebyshev.chebvander(_chebyshev.points(n), shape[k] - 1)
        v = np.moveaxis(np.tensordot(table, v, axes=(1, k)), 0, k)
    f = from_data(v, tol=1e-13)
    assert f.error <= 1e-13
    assert f.core.dtype == c.dtype
    full = np.zeros(grid, c.dtype)
    full[tuple(slice(n) for n in shape)] = c
    got = np.zeros(grid, c.dtype)
    got[tuple(slice(m + 1) for m in f.degrees)] = f.coefficients()
    np.testing.assert_allclose(got, full, atol=1e-12)


def test_cubic_polynomials_on_any_grid_are_exact(rng):
    axes = [np.sort(rng.uniform(-2, 3, 12)), np.array([0.0, 0.1, 0.5, 0.7, 1.3, 2.0])]

    def func(x, y):
        return (x**3 - x) * y + y**3 + 2j * x

    f = from_data(func(axes[0][:, None], axes[1]), grid=axes, tol=1e-11, spline=3)
    assert f.domain == ((axes[0][0], axes[0][-1]), (0.0, 2.0))
    assert f.degrees == (3, 3)
    assert true_error(f, func, rng) <= 1e-12


def test_axes_of_one_point_are_constant():
    v = np.exp(_chebyshev.points(20))[:, None] * np.ones((1, 1))
    for grid in ("chebyshev", [_chebyshev.points(20), np.array([0.3])]):
        f = from_data(v, [(-1, 1), (0, 1)], grid=grid, tol=1e-4)
        assert f.degrees[1] == 0
        assert abs(f(0.2, 0.9) - math.exp(0.2)) < 3e-4


# --- What data cannot tell ------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["chebyshev", "uniform", "cells"])
@pytest.mark.parametrize("kind", ["kink", "noise"])
def test_rough_data_are_told(grid, kind, rng):
    def func(x, y):
        return np.abs(x - 0.123) + y

    _, v = sampled(grid, (33, 33), BOX[:2], func)
    if kind == "noise":
        v = np.cos(v) + 1e-3 * rng.standard_normal(v.shape)
    with pytest.warns(errors.ConvergenceWarning, match="too coarse or too noisy"):
        f = from_data(v, BOX[:2], grid=grid, tol=1e-6)
    assert not f.converged
    assert f.error * f.scale >= (
        0.5 * true_error(f, func, rng) * f.scale if kind == "kink" else 1e-3
    )
    assert f.error < 0.2
    with pytest.raises(errors.NotConvergedError) as caught:
        from_data(v, BOX[:2], grid=grid, tol=1e-6, on_fail="raise")
    assert caught.value.result == f


def test_fixed_degrees_and_ranks_have_their_true_error(rng):
    _, v = sampled("uniform", (65, 65), BOX[:2], lambda x, y: 1 / (1.5 + x + y))
    for options in ({"degree": 8}, {"degree": (64, 10)}, {"ranks": 3}, {"ranks": (2, 4)}):
        with pytest.warns(errors.ConvergenceWarning, match="instead of tol=1.0e-09"):
            f = from_data(v, BOX[:2], grid="uniform", tol=1e-9, **options)
        truth = true_error(f, lambda x, y: 1 / (1.5 + x + y), rng)
        assert 0.5 * truth <= f.error <= 3 * truth
    assert f.ranks == (2, 2)
    assert np.linalg.matrix_rank(f.core) == 2


# --- Canonical and Tucker -------------------------------------------------------------------------


def gaussians(n, rates, grid="cells"):
    x = coordinates(grid, n)
    return np.exp(-np.outer(x**2, rates))


@pytest.mark.parametrize(
    ("grid", "method", "complex_weights"),
    [
        ("chebyshev", "rhosvd", False),
        ("chebyshev", "full", True),
        ("uniform", "rhosvd", True),
        ("cells", "full", False),
        ("cells", "rhosvd", True),
    ],
)
def test_sums_of_gaussians(grid, method, complex_weights, rng):
    """Algorithms 3 and 4, with weights that are far from each other and partly cancel."""
    rates = np.geomspace(0.1, 40, 12)
    w = np.geomspace(1e-3, 30, 12) * (-1) ** np.arange(12)
    w = w * (np.exp(0.3j * np.arange(12)) if complex_weights else 1)
    t = CanonicalTensor(w, [gaussians(n, rates, grid) for n in (160, 161, 90)])

    def func(x, y, z):
        return np.exp(-np.multiply.outer(x * x + y * y + z * z, rates)) @ w

    f = from_data(t, grid=grid, tol=1e-6, method=method)
    assert f.converged
    assert true_error(f, func, rng) <= f.error <= 1e-6
    # where they are largest
    assert abs(f(0.0, 0.0, 0.0) - w.sum()) <= f.error * f.scale
    assert max(f.ranks) < 12
    assert f.method == f"from_data: {'transform' if grid == 'chebyshev' else 'splines'}, {method}"


def newton(n, eps=1e-8):
    """The smooth half of a sinc quadrature of 1/r on n cells, as in the source paper."""
    h, k = 0.45, np.arange(0, 30)
    rates = np.sinh(h * k) ** 2
    w = 2 * h / math.sqrt(math.pi) * np.cosh(h * k)
    w[0] *= 0.5
    keep = rates < 0.01 * n * n
    return CanonicalTensor(w[keep], [gaussians(n, rates[keep])] * 3), w[keep], rates[keep]


def test_degree_of_the_newton_kernel_is_found():
    """A fixed degree that is too small is told with its true error; the default finds enough."""
    t, w, rates = newton(1024)

    def func(x, y, z):
        return np.exp(-np.multiply.outer(x * x + y * y + z * z, rates)) @ w

    with pytest.warns(errors.ConvergenceWarning):
        low = from_data(t, grid="cells", tol=1e-7, degree=128, spline=3)
    f = from_data(t, grid="cells", tol=1e-7)
    assert f.converged
    assert min(f.degrees) > 128
    assert max(f.ranks) < w.size
    x = np.concatenate([np.linspace(0, 0.05, 400), np.linspace(0.05, 1, 100)])
    for g in (low, f):
        gap = np.abs(g(x, 0 * x, 0 * x) - func(x, 0 * x, 0 * x)).max() / g.scale
        assert gap <= g.error
    assert low.error > 1e-5
    assert low.error <= 2 * np.abs(low(x, 0 * x, 0 * x) - func(x, 0 * x, 0 * x)).max() / w.sum()


def test_tucker_tensors_are_interpolated_by_their_factors(rng):
    core = rng.standard_normal((2, 3, 2)) + 1j * rng.standard_normal((2, 3, 2))
    rates = [np.array([0.5, 2.0]), np.array([0.1, 1.0, 3.0]), np.array([1.0, 1.5])]
    factors = [gaussians(n, r).astype(complex) for n, r in zip((60, 70, 80), rates, strict=True)]

    def func(*x):
        rows = [np.exp(-np.outer(t**2, r)) for t, r in zip(x, rates, strict=True)]
        return np.einsum("abc,na,nb,nc->n", core, *rows)

    f = from_data(TuckerTensor(core, factors), grid="cells", tol=1e-8)
    assert f.ranks == (2, 3, 2)
    assert true_error(f, func, rng) <= f.error <= 1e-8


@pytest.mark.parametrize(("d", "terms"), [(1, 3), (2, 2), (3, 40)])
def test_canonical_coefficients(d, terms, rng):
    """Complex columns; each term once more with the opposite sign of what is large."""
    w = rng.standard_normal(terms)
    factors = [
        rng.standard_normal((m, terms)) + 1j * rng.standard_normal((m, terms))
        for m in (5, 6, 4)[:d]
    ]
    f = from_canonical_coefficients(w, factors, BOX[:d], tol=1e-12)
    letters = "abc"[:d]
    want = np.einsum(f"n,{','.join(i + 'n' for i in letters)}->{letters}", w, *factors)
    np.testing.assert_allclose(f.coefficients(), want, atol=1e-11 * np.abs(want).sum())
    assert f.converged
    # the same function with huge terms that cancel knows what rounding did to it
    huge = [np.concatenate([c, c[:, :1], c[:, :1]], axis=1) for c in factors]
    g = from_canonical_coefficients(
        np.concatenate([w, [1e9, -1e9]]), huge, BOX[:d], tol=1e-12, on_fail="nan"
    )
    assert not g.converged
    # what is rounded are values of the terms that cancel, each of this size
    middle = [abs(c[::2, 0] @ (-1.0) ** np.arange(len(c[::2]))) for c in factors]
    assert np.finfo(float).eps * 1e9 * math.prod(middle) <= g.error * g.scale < 1e-3
    x = [rng.uniform(a, b, 100) for a, b in BOX[:d]]
    assert np.abs(f(*x) - g(*x)).max() <= g.error * g.scale


def test_canonical_coefficients_of_no_terms_and_few_ranks(rng):
    none = from_canonical_coefficients(np.zeros(0), [np.zeros((4, 0))] * 2, BOX[:2])
    assert none(0.1, 0.2) == 0
    assert none.converged
    c = rng.standard_normal((9, 6))
    w = 10.0 ** -np.arange(6)
    with pytest.warns(errors.ConvergenceWarning):
        f = from_canonical_coefficients(w, [c, c], BOX[:2], ranks=3)
    assert f.ranks == (3, 3)
    full = from_canonical_coefficients(w, [c, c], BOX[:2])
    x = [rng.uniform(a, b, 2000) for a, b in BOX[:2]]
    gap = np.abs(f(*x) - full(*x)).max() / f.scale
    assert 0.3 * gap <= f.error <= 3 * gap


def test_differences_between_the_data_count():
    """Data at the zeros of T_8 say nothing of it, its series does."""
    zeros = np.sort(np.polynomial.chebyshev.chebroots(np.eye(9)[8]))
    c = np.eye(9)[:, 8:]
    series, data = (Canonical(np.ones(1), [f, f]) for f in (c, np.zeros((8, 1))))
    starts = [np.array([3, 4])] * 2
    nothing = Compressed(np.zeros((1, 1)), (c, c), 0.0)
    built = _from_data._Built(series, data, [zeros] * 2, starts, 0.0, 1.0, 1.0, "")
    assert _from_data._gap(nothing, built)[0] == pytest.approx(1.0, rel=0.1)


# --- Splines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("points_open", [False, True])
def test_prediction_of_left_out_points(points_open):
    """Halving the distance divides a cubic spline's error by 16; the best order is chosen."""
    found = []
    for n in (40, 80, 160):
        x = coordinates("cells" if points_open else "uniform", n)
        axis = _splines.Axis(x, False)
        assert axis.open == points_open
        fibres = np.exp(2 * x)[:, None]
        order, error = _splines.judged(axis, fibres, (3,))
        at = np.linspace(-1, 1, 3001)
        truth = np.abs(_splines.interpolate(x, fibres, at, 3)[:, 0] - np.exp(2 * at)).max()
        assert 0.3 * truth <= error <= 4 * truth
        found.append(error)
        assert order == 3
        assert _splines.judged(axis, fibres)[0] > 3
    assert 10 < found[0] / found[1] < 24
    assert 12 < found[1] / found[2] < 20


def test_left_out_of_complex_fibres(rng):
    x = coordinates("uniform", 30)
    v = rng.standard_normal((30, 2))
    both = _splines.interpolate(x, v[:, :1] + 1j * v[:, 1:], x[:-1] + 0.01, 5)
    want = _splines.interpolate(x, v, x[:-1] + 0.01, 5)
    np.testing.assert_array_equal(both[:, 0], want[:, 0] + 1j * want[:, 1])


def test_full_and_reduced_canonical_agree(rng):
    factors = [rng.standard_normal((n, 7)) for n in (5, 8, 6)]
    t = Canonical(rng.standard_normal(7), factors)
    core, bases, lost = t.reduced(1e-12, 1.0)
    want = np.einsum("r,ar,br,cr->abc", t.weights, *factors)
    np.testing.assert_allclose(t.multiplied(), want, atol=1e-12)
    np.testing.assert_allclose(np.einsum("abc,ia,jb,kc->ijk", core, *bases), want, atol=1e-12)
    assert lost <= 1e-12


# --- Libraries and bad input ----------------------------------------------------------------------


def test_arrays_of_any_library(xp):
    _, v = sampled("chebyshev", (17, 17), BOX[:2], lambda x, y: 1 / (3 + x + y))
    want = from_data(v, tol=1e-8)
    got = from_data(xp.asarray(v), tol=1e-8)
    assert got == want
    single = from_data(xp.asarray(v.astype(np.float32)), tol=1e-5, dtype="float32")
    assert single.core.dtype == np.float32
    weights, factor = np.ones(1), np.exp(_chebyshev.points(17))[:, None]
    t = CanonicalTensor(xp.asarray(weights), [xp.asarray(factor)] * 2)
    assert abs(from_data(t, tol=1e-8)(0.5, 0.25) - math.exp(0.75)) < 1e-7


def test_values_that_are_not_known_or_differentiated():
    v = np.ones((17, 17))
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda x: from_data(x).core)(v)
    with pytest.raises(TypeError, match="grad"):
        from_data(torch.ones((17, 17), requires_grad=True))


def test_layouts_do_not_matter(rng):
    v = rng.standard_normal((6, 5, 7))
    want = from_data(v, on_fail="nan")
    frozen = v.copy()
    frozen.flags.writeable = False
    wide = np.zeros((12, 5, 7))
    wide[::2] = v
    for other in (np.asfortranarray(v), frozen, wide[::2], v.astype(">f8")):
        assert from_data(other, on_fail="nan") == want
    np.testing.assert_array_equal(frozen, v)
    assert from_data([[1, 2], [3, 4]], on_fail="nan")(1.0, -1.0) == pytest.approx(3)


BAD = [
    ({"x": np.full((9, 9), np.nan)}, errors.NonFiniteError, "NaN"),
    ({"x": np.ones((9, 0))}, ValueError, "at least one value"),
    ({"x": "values"}, TypeError, "x: must be"),
    ({"domain": [(0, 1)]}, ValueError, "domain: must be 2 pairs"),
    ({"domain": [(0, 1), (1, 1)]}, ValueError, "a < b"),
    ({"grid": "hexagonal"}, ValueError, "grid: must be one of"),
    ({"grid": "uniform", "x": np.ones((9, 4))}, ValueError, "axis 1 has 4 points"),
    ({"grid": [np.arange(9.0), np.arange(8.0)]}, ValueError, "must be 2 vectors"),
    ({"grid": [np.arange(9.0), -np.arange(9.0)]}, ValueError, "increasing"),
    (
        {"grid": [np.arange(9.0)] * 2, "domain": [(0, 8), (-2, 8)]},
        ValueError,
        "reaches 2 below",
    ),
    ({"tol": 0.0}, ValueError, "tol"),
    ({"degree": -1}, ValueError, "degree"),
    ({"degree": (1, 2, 3)}, ValueError, "degree: must be a number or 2"),
    ({"ranks": 0}, ValueError, "ranks"),
    ({"method": "full"}, ValueError, "canonical"),
    ({"spline": 4}, ValueError, "odd"),
    ({"on_fail": "never"}, ValueError, "on_fail"),
]


def test_bad_input():
    for options, error, match in BAD:
        options = {"x": np.ones((9, 9))} | options
        with pytest.raises(error, match=match):
            from_data(options.pop("x"), options.pop("domain", None), **options)


def test_bad_canonical_coefficients():
    with pytest.raises(ValueError, match=r"shapes \(n_k, R\)"):
        from_canonical_coefficients(np.ones(3), [np.ones((4, 2))], [(-1, 1)])
    with pytest.raises(ValueError, match="domain"):
        from_canonical_coefficients(np.ones(2), [np.ones((4, 2))], [(-1, 1)] * 2)
    big = CanonicalTensor(np.ones(1), [np.ones((600, 1))] * 3)
    with pytest.raises(ValueError, match="would form"):
        from_data(big, method="full", degree=599)


def test_explanation_and_sample():
    args, kwargs = sample_from_data("small")
    assert from_data(*args, **kwargs).converged
    assert explain_from_data(*args, **kwargs).method == "transform"
    t, *_ = newton(64)
    assert explain_from_data(t, grid="cells").method == "rhosvd"
    assert explain_from_data(t, grid="cells", method="full").method == "full"
    core = TuckerTensor(np.ones((1, 1)), [np.ones((9, 1))] * 2)
    assert explain_from_data(core, grid="cells").method == "splines"


def test_the_door_forwards_what_given_values_take():
    from linalgk.tensor import CanonicalTensor, chebtucker

    t = np.linspace(-1, 1, 41)
    columns = np.exp(-np.outer(t**2, [0.5, 2.0]))
    given = CanonicalTensor(np.array([1.0, 0.5]), [columns] * 3)
    box = [(-1, 1)] * 3
    for method in ("auto", "rhosvd", "full"):
        f = chebtucker(given, box, grid="uniform", tol=1e-6, method=method)
        assert f.converged
        assert abs(f(0.3, 0.2, -0.1) - np.exp(-0.07) - 0.5 * np.exp(-0.28)) <= 1e-6 * 1.5
    f = chebtucker(
        given, box, grid="uniform", tol=1e-4, degree=16, ranks=1, spline=3, on_fail="nan"
    )
    assert max(f.degrees) <= 16
    assert f.ranks == (1, 1, 1)
    for options in ({"grid": "uniform"}, {"degree": 3}, {"ranks": 3}, {"spline": 3}):
        with pytest.raises(TypeError, match=f"{next(iter(options))}: is for given values"):
            chebtucker(np.cos, (0, 1), **options)
    with pytest.raises(ValueError, match="method: must be one of"):
        chebtucker(np.cos, (0, 1), method="rhosvd")
    with pytest.raises(ValueError, match="method: must be one of"):
        chebtucker(given, box, method="cross")
