"""Values and derivatives of Chebyshev-Tucker functions: at points, on grids, in every library."""

import pickle

import mpmath
import numpy as np
import pytest

import linalgk as lk
from linalgk.errors import ConvergenceWarning
from linalgk.tensor import _chebyshev
from linalgk.tensor._function import ChebTucker

BOX = [(-1.0, 3.0), (0.5, 0.75), (-2.0, 2.0), (10.0, 11.0)]
EPS = np.finfo(float).eps


def made(rng, d=3, kind="real"):
    """A function of d variables with few coefficients, and its box."""
    sizes, ranks = (9, 4, 12, 3)[:d], (3, 2, 4, 2)[:d]
    core = rng.standard_normal(ranks)
    if kind == "complex":
        core = core + 1j * rng.standard_normal(ranks)
    factors = [np.linalg.qr(rng.standard_normal(s))[0] for s in zip(sizes, ranks, strict=True)]
    return ChebTucker(core, factors, BOX[:d])


def points(rng, f, n=20):
    return [rng.uniform(a, b, n) for a, b in f.domain]


def exactly(f, x):
    """``sum_k c_k T_k1 ... T_kd`` with cosines in 30 digits, at one point; and its derivatives."""
    with mpmath.workdps(30):
        t = [
            (2 * mpmath.mpf(v) - a - b) / (mpmath.mpf(b) - a)
            for v, (a, b) in zip(x, f.domain, strict=True)
        ]
        tables = [
            [mpmath.chebyt(k, s) for k in range(n + 1)] for s, n in zip(t, f.degrees, strict=True)
        ]
        steep = [
            [
                k * mpmath.chebyu(k - 1, s) * 2 / (mpmath.mpf(b) - a) if k else 0
                for k in range(n + 1)
            ]
            for s, n, (a, b) in zip(t, f.degrees, f.domain, strict=True)
        ]
        c = np.vectorize(mpmath.mpmathify)(f.coefficients())
        rows = [tables] + [[*tables[:k], steep[k], *tables[k + 1 :]] for k in range(f.ndim)]
        found = []
        for row in rows:
            total = c
            for table in reversed(row):
                total = total @ np.array(table)
            found.append(complex(total) if f.dtype.kind == "c" else float(total))
    return np.array(found)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_values_and_derivatives_are_those_of_the_series(rng, d, kind):
    f = made(rng, d, kind)
    x = points(rng, f, 3)
    want = np.array([exactly(f, p) for p in zip(*x, strict=True)]).T
    # |T_k| <= 1, |T_k'| <= k^2, and coefficients in orthonormal columns
    size = np.linalg.norm(f.core) * np.prod([len(c) for c in f.factors]) ** 0.5
    tol = 100 * EPS * size
    # points far from zero are known to less on [-1, 1]
    far = [2 * max(map(abs, i)) / (i[1] - i[0]) for i in f.domain]
    steep = max(v * n**2 for v, n in zip(far, f.degrees, strict=True))
    assert f(*x).dtype == f.dtype
    assert abs(f(*x) - want[0]).max() <= tol * (1 + steep)
    growth = max(
        n**4 * v * 2 / (b - a) for n, v, (a, b) in zip(f.degrees, far, f.domain, strict=True)
    )
    assert f.grad(*x).shape == (d, 3)
    assert abs(f.grad(*x) - want[1:]).max() <= tol * growth
    one = f(*(float(v[0]) for v in x))
    assert type(one) is (complex if kind == "complex" else float)
    assert abs(one - want[0, 0]) <= tol * (1 + steep)
    grid = f.on_grid(*x)
    assert grid.shape == (3,) * d
    ends = np.meshgrid(*x, indexing="ij")
    assert abs(grid - f(*ends)).max() <= tol * (1 + steep)


def test_points_of_every_library(xp, rng):
    f = made(rng)
    x = points(rng, f)
    given = [xp.asarray(v) for v in x]
    for got, want in (
        (f(*given), f(*x)),
        (f.grad(*given), f.grad(*x)),
        (f.on_grid(*given), f.on_grid(*x)),
    ):
        assert type(got) is type(given[0])
        np.testing.assert_allclose(lk.testing.to_numpy(got), want, rtol=1e-12, atol=1e-12)
    mixed = f(given[0], 0.6, given[2])
    np.testing.assert_allclose(lk.testing.to_numpy(mixed), f(x[0], 0.6, x[2]), atol=1e-12)


def test_shapes_strides_and_empty(rng):
    f = made(rng)
    x, y, z = points(rng, f, 24)
    want = f(x, y, z)
    columns = np.asfortranarray(x.reshape(4, 6)), y.reshape(4, 6), z.reshape(4, 6)
    for a in columns:
        a.flags.writeable = False
    np.testing.assert_array_equal(f(*columns), want.reshape(4, 6))
    np.testing.assert_array_equal(f(x[::-1], y[::-1], z[::-1]), want[::-1])
    assert f(x[:, None], y[:3], z[0]).shape == (24, 3)
    assert f(x[:0], y[:0], z[:0]).shape == (0,)
    assert f.grad(x[:0], y[:0], z[:0]).shape == (3, 0)
    assert f.on_grid(x[:0], y, z).shape == (0, 24, 24)
    assert f([1, 2], 0.6, 0).shape == (2,)
    whole = f(np.array([1, 2]), 0.6, 0)
    assert whole.dtype == np.float64


def test_threads_and_blocks_do_not_change_bits(rng):
    f = made(rng)
    x = points(rng, f, 1000)
    with lk.config_context(num_threads=1):
        one = f(*x)
    with lk.config_context(num_threads=3):
        three = f(*x)
    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(f(*(v[7:9] for v in x)), one[7:9])


def test_points_outside_are_refused_or_nan(rng):
    f = made(rng)
    x, y, z = points(rng, f, 5)
    x[2] = 3.5
    with pytest.raises(ValueError, match=r"points\[0\]: 1 of 5 lie outside the domain \[-1, 3\]"):
        f(x, y, z)
    with pytest.warns(ConvergenceWarning, match="outside"):
        value = f(x, y, z, on_fail="warn")
    np.testing.assert_array_equal(np.isnan(value), [False, False, True, False, False])
    assert np.isnan(f.grad(x, y, z, on_fail="nan")[:, 2]).all()
    assert np.isnan(f.on_grid(x, y, z, on_fail="nan")[2]).all()
    x[2] = np.nan
    with pytest.raises(ValueError, match="outside"):
        f(x, y, z)
    # the ends belong to it, whatever rounding says
    a, b = f.domain[1]
    assert np.isfinite(f(1.0, np.array([a, b, np.nextafter(b, 2)]), 0.0)).all()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ((1.0, 0.6), TypeError, "needs 3 arrays, got 2"),
        ((1.0, 0.6, 1j * np.ones(2)), TypeError, "must be real"),
        ((1.0, 0.6, "text"), TypeError, "must be an array"),
    ],
)
def test_bad_points(rng, given, error, words):
    with pytest.raises(error, match=words):
        made(rng)(*given)


def test_libraries_are_not_mixed(rng):
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="share one library"):
        made(rng)(np.ones(2), strict.ones(2), 0.0)
    with pytest.raises(ValueError, match="vectors"):
        made(rng).on_grid(np.ones((2, 2)), np.full(1, 0.6), np.ones(2))


def test_jax_differentiates_through_values(rng):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    f = made(rng, 1)
    x = jax.numpy.asarray(points(rng, f, 1)[0][0])
    np.testing.assert_allclose(jax.jit(jax.grad(f))(x), f.grad(float(x))[0], rtol=1e-10)
    # functions are arguments too, whose coefficients are constants
    value = jax.jit(lambda g, t: g(t))(f, x)
    np.testing.assert_allclose(value, f(float(x)), rtol=1e-12)


def test_single_precision(rng):
    f = made(rng).astype("float32")
    x = [v.astype("float32") for v in points(rng, f)]
    assert f(*x).dtype == np.float32
    wide = f.astype("float64")(*(v.astype(float) for v in x))
    assert abs(f(*x) - wide).max() <= 200 * np.finfo("f4").eps * abs(f.core).sum()


def test_container(rng):
    f = made(rng)
    again = pickle.loads(pickle.dumps(f))
    assert again == f
    assert hash(again) == hash(f)
    assert again != f.astype("float32")
    assert f != 1
    assert "degrees (8, 3, 11), ranks (3, 2, 4)" in repr(f)
    assert repr(f).startswith("ChebTucker on [-1, 3] x [0.5, 0.75] x [-2, 2]")


# --- Series in one variable ----------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 3, 16, 33])
def test_transform_and_back(rng, m):
    x = _chebyshev.points(m)
    v = rng.standard_normal((m, 2)) + 1j
    c = _chebyshev.coefficients(v)
    np.testing.assert_allclose(_chebyshev.values(c), v, atol=50 * EPS * m)
    np.testing.assert_allclose(_chebyshev.basis(x, m) @ c, v, atol=50 * EPS * m)
    series = np.polynomial.chebyshev
    want = series.chebder(c[:, 0]) if m > 1 else np.zeros(1)
    np.testing.assert_allclose(_chebyshev.derivative(c)[:, 0], want, atol=EPS * m**3)
    ends = series.chebval([-1, 1], series.chebint(c[:, 0]))
    assert abs(_chebyshev.integrals(m) @ c[:, 0] - ends[1] + ends[0]) <= 50 * EPS * m
    product = series.chebint(series.chebmul(c[:, 0], c[:, 1]))
    want = series.chebval(1, product) - series.chebval(-1, product)
    assert abs(c[:, 0] @ _chebyshev.gram(m, m) @ c[:, 1] - want) <= 50 * EPS * m


@pytest.mark.parametrize(
    ("func", "degree"),
    # the degrees that a geometric decay of the coefficients to eps asks for
    [(np.exp, 14), (lambda x: 1 / (1 + 25 * x * x), 181), (np.abs, None)],
)
def test_chop_finds_the_end_of_a_series(func, degree):
    c = _chebyshev.coefficients(func(_chebyshev.points(257)))
    kept = _chebyshev.chop(c, EPS)
    if degree is None:
        assert kept == 257
    else:
        assert abs(kept - degree) <= 0.1 * degree
        tail = np.abs(c[kept:]).sum()
        assert tail <= 1e3 * EPS * np.abs(c).max()
    assert _chebyshev.chop(np.zeros(20), EPS) == 1
    assert _chebyshev.chop(c, 1.0) == 1
