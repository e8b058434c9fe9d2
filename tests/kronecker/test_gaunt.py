"""Gaunt products: against 3j symbols, functions at points, rotations; harmonics against SciPy."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

import linalgk as lk
from linalgk.kronecker import _blocks, _gaunt
from linalgk.kronecker._gaunt import choose_method, gaunt_product, grid, real_harmonics

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
# Without extended precision tables lose l^2 units next to the poles.
LOST = 1 if np.finfo(np.longdouble).eps < 1e-18 else 100


def draw(rng, shape, dtype="float64"):
    z = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        z = z + 1j * rng.standard_normal(shape)
    return z.astype(dtype)


def size(degree):
    return (degree + 1) ** 2


def points(rng, count):
    """Uniform on the sphere: unit vectors, and the angles of each."""
    v = rng.standard_normal((count, 3))
    v /= np.linalg.norm(v, axis=1)[:, None]
    return v, *angles(v)


def angles(v):
    return np.arctan2(np.hypot(v[:, 0], v[:, 1]), v[:, 2]), np.arctan2(v[:, 1], v[:, 0])


def wigner(j, m):
    """A 3j symbol of integers, by Racah's formula."""
    (a, b, c), (u, v, w) = j, m
    if u + v + w or not abs(a - b) <= c <= a + b:
        return 0.0
    f = math.factorial
    square = f(a + b - c) * f(a - b + c) * f(-a + b + c) / f(a + b + c + 1)
    square *= math.prod(f(x + y) * f(x - y) for x, y in zip(j, m, strict=True))
    total = 0.0
    for t in range(a + b + c + 1):
        below = (t, c - b + t + u, c - a + t - v, a + b - c - t, a - t - u, b - t + v)
        if min(below) >= 0:
            total += (-1) ** t / math.prod(map(f, below))
    return (-1) ** (a - b - w) * math.sqrt(square) * total


def each(lmax):
    return [(degree, m) for degree in range(lmax + 1) for m in range(-degree, degree + 1)]


def to_complex(lmax):
    """Real harmonics as combinations of complex ones."""
    table, half = np.zeros((size(lmax),) * 2, complex), math.sqrt(0.5)
    for i, (degree, m) in enumerate(each(lmax)):
        plus, minus = (degree * (degree + 1) + s * abs(m) for s in (1, -1))
        if m == 0:
            table[i, i] = 1
        elif m > 0:
            table[i, [plus, minus]] = (-1) ** m * half, half
        else:
            table[i, [plus, minus]] = -1j * half * (-1) ** m, 1j * half
    return table


def coefficients(first, second, lmax):
    """The Gaunt coefficients by 3j symbols; (result, first, second)."""
    table = np.zeros((size(lmax), size(first), size(second)))
    for i, (a, u) in enumerate(each(lmax)):
        for j, (b, v) in enumerate(each(first)):
            for k, (c, w) in enumerate(each(second)):
                scale = math.sqrt((2 * a + 1) * (2 * b + 1) * (2 * c + 1) / (4 * math.pi))
                orders = wigner((a, b, c), (u, v, w))
                table[i, j, k] = scale * wigner((a, b, c), (0, 0, 0)) * orders
    turns = (to_complex(lmax), to_complex(first), to_complex(second))
    real = np.einsum("ijk,ai,bj,ck->abc", table, *turns)
    assert np.abs(real.imag).max() < 1e-15
    return real.real


# --- Harmonics -----------------------------------------------------------------------------------


def test_harmonics_are_those_of_scipy_without_the_phase(rng):
    _, theta, phi = points(rng, 50)
    y = real_harmonics(12, theta, phi)
    for l in range(13):  # noqa: E741
        for m in range(l + 1):
            z = scipy.special.sph_harm_y(l, m, theta, phi) * (-1) ** m * math.sqrt(2 if m else 1)
            np.testing.assert_allclose(y[l * l + l + m], z.real, rtol=0, atol=2e-14)
            if m:
                np.testing.assert_allclose(y[l * l + l - m], z.imag, rtol=0, atol=2e-14)


def test_degree_one_is_y_z_x(rng):
    v, theta, phi = points(rng, 20)
    y = real_harmonics(1, theta, phi)
    scale = math.sqrt(3 / (4 * math.pi))
    np.testing.assert_allclose(y[1:], scale * v[:, [1, 2, 0]].T, rtol=0, atol=1e-15)


@pytest.mark.parametrize("lmax", [10, 100, 300])
def test_addition_theorem(lmax, rng):
    """The sum over orders of ``Y(a) Y(b)`` is Legendre's polynomial of the angle between.

    Whose slope is l^2 / 2 next to the poles, times the rounding of the angle.
    """
    v, theta, phi = points(rng, 6)
    y = real_harmonics(lmax, theta, phi)
    cosine = v @ v.T
    for l in {0, 1, 5, lmax // 2, lmax}:  # noqa: E741
        part = y[l * l : size(l)]
        wanted = (2 * l + 1) / (4 * math.pi) * scipy.special.eval_legendre(l, cosine)
        np.testing.assert_allclose(
            part.T @ part, wanted, rtol=0, atol=EPS["float64"] * (l + 1) ** 3
        )


@pytest.mark.parametrize("count", [1, 2, 7, 150, 601])
def test_nodes_integrate_polynomials_exactly(count):
    """Of degree 2 n - 1, to a few units; nodes against NumPy's."""
    x, w = _gaunt._nodes(count)
    np.testing.assert_allclose(np.sort(x), np.polynomial.legendre.leggauss(count)[0], atol=1e-15)
    assert abs(w.sum() - 2) < 1e-15
    for degree in {0, 2 * count - 2, max(2 * count - 4, 0), 2 * (count // 2)}:
        assert abs((w * x**degree).sum() * (degree + 1) / 2 - 1) < 1e-14 * LOST * max(1, count / 20)


@pytest.mark.parametrize("lmax", [3, 40, 100])
def test_harmonics_are_orthonormal_on_the_grid(lmax):
    """``error <= 20 eps``: tables are rounded once."""
    nodes, count = grid(lmax, lmax, 0)
    table = _gaunt._legendre(lmax, nodes, "float64")
    w = _gaunt._weights(nodes, count, "float64") * count / 2
    waves = _gaunt._fourier(lmax, count, "float64")
    for m in {0, 1, lmax // 2, lmax}:
        gram = (table[m] * w[:, None]).T @ table[m] * (2 if m == 0 else 1)
        wanted = np.diag((np.arange(lmax + 1) >= m) * 1.0)
        np.testing.assert_allclose(gram, wanted, rtol=0, atol=20 * LOST * EPS["float64"])
    gram = waves.T @ waves / count
    wanted = np.diag([1.0, *[0.5] * lmax, 0.0, *[0.5] * lmax])
    np.testing.assert_allclose(gram, wanted, rtol=0, atol=20 * LOST * EPS["float64"])


# --- Products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dense", "separable"])
def test_products_are_gaunt_coefficients(method, dtype, rng):
    for first, second, lmax in [(0, 0, 0), (1, 1, 2), (2, 1, 2), (0, 2, 2), (2, 2, 1)]:
        x, y = draw(rng, (3, size(first)), dtype), draw(rng, (3, size(second)), dtype)
        z = gaunt_product(x, y, lmax, method=method)
        assert z.dtype == dtype
        exact = np.einsum("ijk,bj,bk->bi", coefficients(first, second, lmax), x, y)
        scale = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        error = np.abs(z - exact).max(axis=1)
        assert (error <= 8 * (first + second + lmax + 1) * EPS[dtype] * scale).all()


@pytest.mark.parametrize(("first", "second"), [(3, 0), (4, 7), (20, 15), (100, 60), (60, 100)])
@pytest.mark.parametrize("method", ["dense", "separable"])
def test_products_are_those_of_the_functions(method, first, second, rng):
    """At points that are not on the grid, up to the degree of the product."""
    if method == "dense" and first > 20:
        first, second = first // 5, second // 5
    x, y = draw(rng, (size(first),)), draw(rng, (size(second),))
    z = gaunt_product(x, y, method=method)
    assert z.shape == (size(first + second),)
    _, theta, phi = points(rng, 30)
    f, g, h = (c @ real_harmonics(math.isqrt(len(c)) - 1, theta, phi) for c in (x, y, z))
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    assert np.abs(h - f * g).max() <= 4 * EPS["float64"] * (first + second) * scale


@pytest.mark.parametrize("method", ["dense", "separable"])
def test_a_lower_degree_is_the_beginning_and_a_higher_one_has_zeros(method, rng):
    x, y = draw(rng, (2, size(6))), draw(rng, (2, size(4)))
    whole = gaunt_product(x, y, method=method)
    scale = 40 * EPS["float64"] * np.linalg.norm(x) * np.linalg.norm(y)
    for lmax in range(10):
        z = gaunt_product(x, y, lmax, method=method)
        np.testing.assert_allclose(z, whole[:, : size(lmax)], rtol=0, atol=scale)
    more = gaunt_product(x, y, 13, method=method)
    assert np.array_equal(more[:, : size(10)], whole)
    assert not more[:, size(10) :].any()


def test_the_grid_is_the_least_that_is_exact():
    assert grid(1, 1, 2) == (3, 5)
    assert grid(2, 2, 1) == (3, 6)
    assert grid(0, 0, 0) == (1, 1)


def test_it_is_symmetric_and_has_a_unit(rng):
    x, y = draw(rng, (4, size(5))), draw(rng, (4, size(3)))
    one = np.array([math.sqrt(4 * math.pi)])
    np.testing.assert_allclose(gaunt_product(x, one), x, rtol=0, atol=1e-13)
    np.testing.assert_allclose(gaunt_product(x, y), gaunt_product(y, x), rtol=0, atol=1e-13)
    # the first coefficient is the inner product
    inner = gaunt_product(x[:, : size(3)], y, 0)[:, 0] * math.sqrt(4 * math.pi)
    np.testing.assert_allclose(inner, np.sum(x[:, : size(3)] * y, axis=1), rtol=0, atol=1e-13)


def test_paths_of_odd_parity_vanish(rng):
    """Two vectors have no cross product here: what makes the Gaunt product less expressive."""
    x, y = np.zeros((2, 4))
    x[1:], y[1:] = draw(rng, (3,)), draw(rng, (3,))
    z = gaunt_product(x, y)
    assert np.abs(z[1:4]).max() < 1e-15
    assert np.abs(z[0]) > 0.01
    assert np.abs(z[4:]).max() > 0.01


def rotated(x, turn, rng):
    """Coefficients of ``f(R^T v)``, by least squares at many points."""
    degree = math.isqrt(x.shape[-1]) - 1
    v, theta, phi = points(rng, 4 * size(degree))
    values = x @ real_harmonics(degree, *angles(v @ turn))
    return np.linalg.lstsq(real_harmonics(degree, theta, phi).T, values.T, rcond=None)[0].T


@pytest.mark.parametrize("method", ["dense", "separable"])
def test_products_commute_with_rotations(method, rng):
    x, y = draw(rng, (2, size(4))), draw(rng, (2, size(3)))
    turn = scipy.stats.ortho_group.rvs(3, random_state=rng)  # reflections, too
    for lmax in (3, 7):
        z = gaunt_product(x, y, lmax, method=method)
        other = gaunt_product(rotated(x, turn, rng), rotated(y, turn, rng), lmax, method=method)
        np.testing.assert_allclose(other, rotated(z, turn, rng), rtol=0, atol=1e-12)


def test_float32_keeps_its_precision_at_high_degrees(rng):
    x, y = draw(rng, (size(60),)), draw(rng, (size(60),))
    z = gaunt_product(x.astype("f4"), y.astype("f4"), 60)
    assert z.dtype == np.float32
    exact = gaunt_product(x.astype("f4").astype("f8"), y.astype("f4").astype("f8"), 60)
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    assert np.abs(z - exact).max() <= 4 * EPS["float32"] * scale


# --- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dense", "separable"])
def test_batches_and_channels_broadcast(method, rng, monkeypatch):
    x, y = draw(rng, (3, 1, 4, size(2))), draw(rng, (5, 1, size(1)))
    z = gaunt_product(x, y, 3, method=method)
    assert z.shape == (3, 5, 4, 16)
    for i, j, k in np.ndindex(3, 5, 4):
        one = gaunt_product(x[i, 0, k], y[j, 0], 3, method=method)
        np.testing.assert_allclose(z[i, j, k], one, rtol=0, atol=1e-14)
    # one function for all is evaluated once; blocks end anywhere
    monkeypatch.setattr(_blocks, "ENTRIES", 1000)
    fixed = gaunt_product(x, y[:1], 3, method=method)
    np.testing.assert_allclose(fixed, z[:, :1], rtol=0, atol=1e-14)
    np.testing.assert_allclose(gaunt_product(y[0, 0], x, 3, method=method), fixed, atol=1e-14)


def test_threads_and_blocks(rng, monkeypatch):
    x, y = draw(rng, (100, size(3))), draw(rng, (100, size(3)))
    monkeypatch.setattr(_blocks, "ENTRIES", 4 * 9 * 70)
    for method in ("dense", "separable"):
        found = []
        for threads in (1, 3):
            with lk.config_context(num_threads=threads):
                found.append(gaunt_product(x, y, 4, method=method))
        assert np.array_equal(*found)


def test_layouts_out_and_values_that_are_not_numbers(dtype, rng):
    big = draw(rng, (8, 2 * size(3)), dtype)
    x, y = big[::2, : size(3)], np.asfortranarray(big[3::-1, 1::2])
    x.flags.writeable = False
    before = big.copy()
    z = gaunt_product(x, y)
    tol = 400 * EPS[dtype]
    np.testing.assert_allclose(gaunt_product(x.copy(), y.copy()), z, rtol=0, atol=tol)
    assert np.array_equal(big, before)
    for out in (np.full_like(z, 9), np.full((*z.shape, 2), 9, dtype)[..., 0]):
        assert gaunt_product(x, y, out=out) is out
        assert np.array_equal(out, z)
    bad = x.copy()
    bad[2, 3] = np.nan
    for method in ("dense", "separable"):
        with np.errstate(invalid="ignore"):
            found = gaunt_product(bad, y, method=method)
        wrong = np.isnan(found).any(axis=1)
        assert wrong.tolist() == [False, False, True, False]


def test_mixed_dtypes_promote_and_half_precision_is_stored(rng):
    torch = pytest.importorskip("torch")
    ints = gaunt_product([1, 0, 0, 0], np.ones(4, "f4"))
    assert ints.dtype == np.float64
    assert gaunt_product(draw(rng, (4,), "complex64"), np.ones(4)).dtype == np.complex128
    x = draw(rng, (5, size(2)), "float32")
    half = gaunt_product(torch.asarray(x).half(), torch.asarray(x).half(), 2)
    assert half.dtype == torch.float16
    rounded = x.astype("f2").astype("f4")
    assert np.array_equal(half.numpy(), gaunt_product(rounded, rounded, 2).astype("f2"))
    with pytest.raises(TypeError, match="requires grad"):
        gaunt_product(torch.ones(4, requires_grad=True), torch.ones(4))


def test_empty(xp):
    z = gaunt_product(xp.ones((0, 3, 4), dtype=xp.float32), xp.ones((3, 9), dtype=xp.float32), 5)
    assert tuple(z.shape) == (0, 3, 36)
    assert z.dtype == xp.float32


@pytest.mark.parametrize("method", ["dense", "separable"])
def test_libraries_give_their_own_arrays(method, xp, rng, monkeypatch):
    monkeypatch.setattr(_blocks, "ENTRIES", 100)
    x, y = draw(rng, (60, size(2)), "float32"), draw(rng, (60, size(1)), "float32")
    z = gaunt_product(xp.asarray(x), xp.asarray(y), 4, method=method)
    assert type(z) is type(xp.asarray(x))
    np.testing.assert_allclose(
        np.asarray(z), gaunt_product(x, y, 4, method=method), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("method", ["dense", "separable"])
def test_a_device_keeps_its_arrays(method, cuda, rng):
    x, y = draw(rng, (6, size(2))), draw(rng, (6, size(1)))
    looks = cuda.looks
    z = gaunt_product(cuda.array(x), cuda.array(y), 4, method=method)
    assert cuda.looks == looks
    exact = gaunt_product(x, y, 4, method=method)
    np.testing.assert_allclose(cuda.host(z), exact, rtol=0, atol=1e-13)


def test_jax_traces_it(rng):
    jax = pytest.importorskip("jax")
    x, y = draw(rng, (3, size(2)), "float32"), draw(rng, (3, size(2)), "float32")
    for method in ("dense", "separable"):
        run = jax.jit(lambda a, b, method=method: gaunt_product(a, b, 3, method=method))
        z = gaunt_product(x, y, 3)
        np.testing.assert_allclose(np.asarray(run(x, jax.numpy.asarray(y))), z, rtol=0, atol=1e-5)


# --- Choices, bad input --------------------------------------------------------------------------


def test_choices():
    assert choose_method((1, 1, 1))[0] == "dense"
    assert choose_method((4, 4, 4))[0] == "dense"
    assert choose_method((10, 10, 10))[0] == "separable"
    assert choose_method((1, 1, 1), method="separable")[0] == "separable"
    dense, separable = _gaunt.costs((20, 20, 20))
    assert _gaunt.costs((40, 40, 40))[0] == pytest.approx(16 * dense, rel=0.2)
    assert _gaunt.costs((40, 40, 40))[1] == pytest.approx(8 * separable, rel=0.2)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"x: its last axis must have \(L \+ 1\)\^2 .* 9 or 16"):
        gaunt_product(np.ones(10), np.ones(4))
    with pytest.raises(ValueError, match="y: its last axis must have"):
        gaunt_product(np.ones(4), np.ones((3, 0)))
    with pytest.raises(ValueError, match="x: its last axis must have"):
        gaunt_product(np.float64(1), np.ones(4))
    with pytest.raises(ValueError, match=r"x, y: batch shapes \(2,\) and \(3,\) do not broadcast"):
        gaunt_product(np.ones((2, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="lmax: must be at least 0, got -1"):
        gaunt_product(np.ones(4), np.ones(4), -1)
    with pytest.raises(TypeError, match="lmax: must be an integer"):
        gaunt_product(np.ones(4), np.ones(4), 1.5)
    with pytest.raises(ValueError, match="method: must be one of"):
        gaunt_product(np.ones(4), np.ones(4), method="fft")
    with pytest.raises(ValueError, match=r"out: must have shape \(9,\)"):
        gaunt_product(np.ones(4), np.ones(4), out=np.ones(4))
    x = np.ones(9)
    with pytest.raises(ValueError, match="out: overlaps"):
        gaunt_product(np.ones(1), x, out=x)
    with pytest.raises(TypeError, match="dtype must be"):
        gaunt_product(np.array(["a"]), x)


@pytest.mark.parametrize("size_", ["small", "medium"])
def test_samples_and_explanations(size_):
    args, options = _gaunt.sample(size_, rng=0)
    z = gaunt_product(*args, **options)
    said = _gaunt.explain_gaunt_product(*args, **options)
    assert said.method == "dense"
    assert said.flops > 2 * math.prod(z.shape)
    assert _gaunt.explain_gaunt_product(*args, method="separable").reason == "it was asked for"
