"""Derivatives by hand: 50-digit oracles, identities, conventions at zero, batches, libraries."""

import copy
import functools
import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.linalg
from directions import adjoint, gaussian, hermitian_part, inner

import linalgk as lk
from linalgk import grad
from linalgk.testing import random_matrix, relative_error, spd_matrix

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
# by name, the power that it is; None is the logarithm
POWER = {
    "sqrtm": Fraction(1, 2), "invsqrtm": Fraction(-1, 2), "inv_root 3": Fraction(-1, 3),
    "inv_root 4": Fraction(-1, 4), "inv_root 4/3": Fraction(-3, 4), "logm": None,
}  # fmt: skip


def called(name, where, ending=""):
    """The function of that name, with the p that stands behind it as its second argument."""
    stem, _, p = name.partition(" ")
    f, p = getattr(where, stem + ending), [Fraction(p)] if p else []
    return lambda a, *rest, **options: f(a, *p, *rest, **options)


FORWARD = {name: called(name, grad, "_jvp") for name in POWER}
BACKWARD = {name: called(name, grad, "_vjp") for name in POWER}
VALUE = {name: called(name, lk) for name in POWER}
EVERY = pytest.mark.parametrize("name", FORWARD)


# ---- oracles ----


def mp_function(t):
    """``x^t``, the logarithm for None, and its derivative, as mpmath computes them."""
    if t is None:
        return mpmath.log, lambda x: 1 / x
    p = mpmath.mpf(t.numerator) / t.denominator
    if t.denominator == 1:
        # mpmath's power of negative numbers by a real exponent would be complex
        return lambda x: x**t.numerator, lambda x: p * x ** (t.numerator - 1)
    return lambda x: mpmath.power(x, p), lambda x: p * mpmath.power(x, p - 1)


def mp_first(t, a, b):
    f, df = mp_function(t)
    return df(a) if a == b else (f(a) - f(b)) / (a - b)


def mp_derivative(a, e, t, dps=50):
    """Daleckii-Krein with eigenvectors of so many digits."""
    with mpmath.workdps(dps):
        complex_ = np.iscomplexobj(a)
        w, q = (mpmath.eighe if complex_ else mpmath.eigsy)(mpmath.matrix(a.tolist()))
        g = q.transpose_conj() * mpmath.matrix(e.tolist()) * q
        n = a.shape[-1]
        for i in range(n):
            for j in range(n):
                g[i, j] = g[i, j] * mp_first(t, w[i], w[j])
        y = q * g * q.transpose_conj()
        out = np.array([[complex(y[i, j]) for j in range(n)] for i in range(n)])
    return out if complex_ or np.iscomplexobj(e) else out.real


# ---- derivatives in a direction, Hermitian ----


@functools.cache
def problem(kappa, dtype, n=6):
    a = spd_matrix(n, kappa, dtype=dtype, rng=3)
    return a, gaussian((n, n), dtype, 4)


@EVERY
@pytest.mark.parametrize(
    ("dtype", "kappa"),
    [
        (dtype, kappa)
        for dtype in EPS
        for kappa in (1.0, 1e1, 1e3, 1e5, 1e8, 1e10)
        if kappa * EPS[dtype] < 0.1
    ],
)
def test_derivatives_to_fifty_digits(name, dtype, kappa):
    a, e = problem(kappa, dtype)
    x, got = FORWARD[name](a, e)
    want = mp_derivative(a, e, POWER[name])
    assert got.dtype == x.dtype == a.dtype
    # an eigenvalue moves by eps ||A||, and f' by f''/f' of it: eps kappa; n^(1/2) for the norms
    assert relative_error(got, want) <= 10 * EPS[dtype] * kappa
    assert relative_error(x, VALUE[name](a)) <= 10 * EPS[dtype] * kappa


@EVERY
def test_backward_is_the_adjoint_of_forward(name, dtype):
    a = spd_matrix(7, 1e3, batch=(2, 3), dtype=dtype, rng=0)
    e, g = gaussian(a.shape, dtype, 1), gaussian(a.shape, dtype, 2)
    left = inner(g, FORWARD[name](a, e).derivative)
    back = BACKWARD[name](a, g)
    right = inner(back.derivative, e)
    size = np.linalg.norm(g) * np.linalg.norm(FORWARD[name](a, e).derivative)
    # both use the same eigenvectors, so that their error cancels: products' rounding alone is left
    assert abs(left - right) <= 50 * EPS[dtype] * size
    np.testing.assert_array_equal(back.value, FORWARD[name](a, e).value)


@EVERY
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_upper_right_block(name, dtype):
    n = 5
    a, e = spd_matrix(n, 20.0, dtype=dtype, rng=1), gaussian((n, n), dtype, 2)
    got = FORWARD[name](a, e).derivative
    doubled = np.block([[a, e], [np.zeros_like(a), a]])
    power = {
        "sqrtm": scipy.linalg.sqrtm,
        "logm": scipy.linalg.logm,
    }.get(name, lambda m: scipy.linalg.fractional_matrix_power(m, float(POWER[name])))
    # SciPy's algorithms on a defective matrix lose kappa of the root and of its derivative
    assert relative_error(got, power(doubled)[:n, n:]) < 1e4 * 20**2 * EPS[dtype]


@pytest.mark.parametrize("kappa", [1e1, 1e6, 1e12])
def test_product_rules(kappa, dtype):
    if kappa * EPS[dtype] > 0.1:
        kappa = 1e3
    a, e = problem(kappa, dtype, 9)
    x, dx = grad.sqrtm_jvp(a, e)

    def close(got, *sizes):
        # backward stable: relative to the products that are added up
        return np.linalg.norm(got) <= 100 * EPS[dtype] * np.prod([np.linalg.norm(s) for s in sizes])

    assert close(x @ dx + dx @ x - e, x, dx)
    z, dz = grad.invsqrtm_jvp(a, e)
    assert close(z @ dz + dz @ z + z @ z @ e @ z @ z, z, z, z, z, e)
    r, dr = grad.inv_root_jvp(a, 3, e)
    cube = dr @ r @ r + r @ dr @ r + r @ r @ dr
    inverse, di = grad.inv_root_jvp(a, 1, e)
    assert close(cube - di, inverse, inverse, e)
    assert close(di + inverse @ e @ inverse, inverse, inverse, e)


@EVERY
def test_repeated_eigenvalues(name, dtype):
    n, t = 5, POWER[name]
    a = np.full(1, 4).astype(dtype) * np.eye(n, dtype=dtype)
    e = gaussian((n, n), dtype)
    slope = 0.25 if t is None else float(t) * 4.0 ** (float(t) - 1)
    eps = EPS[dtype]
    assert relative_error(FORWARD[name](a, e).derivative, slope * e) <= 20 * eps
    q = np.linalg.qr(gaussian((n, n), dtype, 7))[0]
    a = hermitian_part((q * np.array([1, 1, 1, 9, 9]).astype(dtype)) @ adjoint(q)).astype(dtype)
    got = FORWARD[name](a, e).derivative
    assert relative_error(got, mp_derivative(a, e, t)) <= 10 * eps * 9


@EVERY
@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 1e-30), ("float32", 1e30), ("complex64", 1e-30), ("complex64", 1e30),
     ("float64", 1e-200), ("float64", 1e200), ("complex128", 1e-200)],
)  # fmt: skip
def test_scale(name, dtype, size):
    """``L(c A, c E) = c^t L(A, E)``; the range of a dtype is not left on the way."""
    n, t = 6, POWER[name]
    a, e = spd_matrix(n, 10.0, dtype=dtype, rng=0), gaussian((n, n), dtype)
    k = 12 * int(np.log2(size) / 12)
    c = np.ldexp(1.0, k).astype(a.real.dtype)
    power = 0 if t is None else int(k * t)
    want = FORWARD[name](a, e).derivative
    got = FORWARD[name](c * a, c * e).derivative
    # in steps, since one factor may leave the range
    half = -power // 2
    got = got * np.ldexp(1.0, half).astype(a.real.dtype)
    got = got * np.ldexp(1.0, -power - half).astype(a.real.dtype)
    # exact but for rounding of x^(1/d), d no power of two, amplified by no condition
    assert relative_error(got, want) <= 40 * EPS[dtype]
    if name == "sqrtm":
        back = BACKWARD[name](c * a, e).derivative  # G is not scaled: c^(-1/2) L(A, G)
        back = back * np.ldexp(1.0, k // 2).astype(a.real.dtype)
        assert relative_error(back, BACKWARD[name](a, e).derivative) <= 40 * EPS[dtype]


# ---- general matrices ----


def mp_block(a, e, t):
    n = a.shape[-1]
    doubled = np.block([[a, e], [np.zeros_like(a), a]])
    with mpmath.workdps(60):
        m = mpmath.matrix(doubled.tolist())
        if t is None:
            y = mpmath.logm(m)
        else:
            y = mpmath.sqrtm(m)
            y = y if t > 0 else y**-1
            y = (
                y
                if abs(t) == Fraction(1, 2)
                else mpmath.expm(mpmath.logm(m) * (mpmath.mpf(t.numerator) / t.denominator))
            )
        out = np.array([[complex(y[i, n + j]) for j in range(n)] for i in range(n)])
    return out if np.iscomplexobj(a) else out.real


@EVERY
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_general_matrices(name, dtype):
    a, e = random_matrix(4, 10.0, dtype=dtype, rng=2), gaussian((4, 4), dtype)
    found = FORWARD[name](a, e)
    assert found.info.method == ("sylvester" if name in ("sqrtm", "invsqrtm") else "block")
    # condition of the derivative: that of the basis, 10, squared, times ||A|| ||A^-1||
    assert relative_error(found.derivative, mp_block(a, e, POWER[name])) < 1e5 * EPS[dtype]
    assert relative_error(found.value, VALUE[name](a)) < 1e4 * EPS[dtype]
    g = gaussian((4, 4), dtype, 9)
    back = BACKWARD[name](a, g)
    right = inner(back.derivative, e)
    assert abs(inner(g, found.derivative) - right) < 1e5 * EPS[dtype] * np.linalg.norm(g) * 10
    assert relative_error(back.value, found.value) < 1e4 * EPS[dtype]
    # the caller may say so himself, also of a Hermitian matrix
    spd = spd_matrix(4, 10.0, dtype=dtype, rng=0)
    got = FORWARD[name](spd, e, assume_a="gen").derivative
    assert relative_error(got, FORWARD[name](spd, e).derivative) < 1e4 * EPS[dtype]


def test_one_general_member_makes_all_general():
    a = np.stack([spd_matrix(4, 10.0, rng=0), random_matrix(4, 10.0, rng=1)])
    e = gaussian(a.shape, "float64")
    found = grad.sqrtm_jvp(a, e)
    x, dx = found
    assert found.info.method == "sylvester"
    assert relative_error(x @ dx + dx @ x, e).max() < 1e4 * EPS["float64"]


def test_a_general_matrix_without_a_real_root():
    a = np.diag([1.0, -1.0, 2.0]) + np.triu(np.ones((3, 3)), 1)
    with pytest.raises(lk.errors.NoRealRootError):
        grad.sqrtm_jvp(a, np.eye(3))
    x, dx = grad.sqrtm_jvp(a + 0j, np.eye(3))
    np.testing.assert_allclose(x @ dx + dx @ x, np.eye(3), atol=1e-13)


# ---- options ----


def difference(f, a, e, h=1e-3):
    """Central difference, extrapolated once: error about h^4 and eps/h."""
    one = (f(a + h * e) - f(a - h * e)) / (2 * h)
    two = (f(a + 2 * h * e) - f(a - 2 * h * e)) / (4 * h)
    return (4 * one - two) / 3


DAMPED = ["invsqrtm", "inv_root 3", "inv_root 4", "inv_root 4/3"]


@pytest.mark.parametrize("name", DAMPED)
@pytest.mark.parametrize("options", [
    {"damp": 0.5}, {"rel_damp": 0.25}, {"damp": 0.1, "rel_damp": 0.1}, {"rcond": 0.2},
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_damping_and_cut_off(name, options, dtype):
    n = 5
    q = np.linalg.qr(gaussian((n, n), dtype, 3))[0]
    a = hermitian_part((q * np.array([0.02, 0.1, 0.5, 0.7, 1.0])) @ adjoint(q))
    e, g = hermitian_part(gaussian((n, n), dtype)), gaussian((n, n), dtype, 5)
    found = FORWARD[name](a, e, assume_a="her", **options)
    want = difference(lambda m: VALUE[name](m, assume_a="her", **options), a, e)
    # fifth derivatives of (A + 0.1 I)^(-1/p) and of a cut at distance 0.3: below 1e6 of the first
    assert relative_error(found.derivative, want) < 1e-6 + 1e-13 / 1e-3
    back = BACKWARD[name](a, g, assume_a="her", **options).derivative
    assert inner(back, e) == pytest.approx(inner(g, found.derivative), rel=1e-11)
    assert relative_error(found.value, VALUE[name](a, assume_a="her", **options)) < 1e-13


def test_relative_damping_of_a_repeated_largest_eigenvalue():
    """The mean of what the directions of that eigenspace do to it."""
    a, e = 4 * np.eye(3), np.diag([1.0, 2.0, 6.0])
    got = grad.invsqrtm_jvp(a, e, rel_damp=0.5).derivative
    np.testing.assert_allclose(got, -0.5 * 6**-1.5 * (e + 0.5 * 3 * np.eye(3)), rtol=1e-14)
    got = grad.invsqrtm_vjp(a, e, rel_damp=0.5).derivative
    np.testing.assert_allclose(got, -0.5 * 6**-1.5 * (e + 0.5 * 9 / 3 * np.eye(3)), rtol=1e-14)


def test_damping_per_member():
    a, e = spd_matrix(4, batch=(3,), rng=0), gaussian((3, 4, 4), "float64")
    shift = np.array([0.1, 0.2, 0.3])
    whole = grad.invsqrtm_jvp(a, e, damp=shift, rel_damp=2 * shift)
    for k in range(3):
        one = grad.invsqrtm_jvp(a[k], e[k], damp=shift[k], rel_damp=2 * shift[k])
        np.testing.assert_array_equal(whole.derivative[k], one.derivative)
        np.testing.assert_array_equal(whole.value[k], one.value)


@EVERY
@pytest.mark.parametrize("assume_a", ["her", "pos"])
def test_asymmetry_under_a_promise_is_taken_out(name, assume_a):
    a, e = spd_matrix(5, 10.0, rng=0), gaussian((5, 5), "float64")
    got = FORWARD[name](a, e, assume_a=assume_a).derivative
    want = FORWARD[name](a, hermitian_part(e)).derivative
    np.testing.assert_allclose(got, want, rtol=0, atol=20 * EPS["float64"] * np.abs(want).max())
    back = BACKWARD[name](a, e, assume_a=assume_a).derivative
    np.testing.assert_array_equal(back, back.T)
    careless = a.copy()
    careless[0, 1] += 1e-12
    near = FORWARD[name](careless, e, assume_a=assume_a).derivative
    assert relative_error(near, want) < 1e-9
    # without a promise a direction counts as it is, and its halves are independent
    free = FORWARD[name](a, e).derivative
    parts = [FORWARD[name](a, x).derivative for x in (hermitian_part(e), e - hermitian_part(e))]
    assert relative_error(free, parts[0] + parts[1]) < 20 * EPS["float64"]
    assert relative_error(parts[1], -parts[1].T) < 20 * EPS["float64"]
    assert np.abs(free - free.T).max() > 0.01


# ---- what is singular, indefinite, not finite ----


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_a_singular_root_moves_with_its_rank(dtype):
    n, rank = 6, 3
    b, db = gaussian((n, rank), dtype, 0), gaussian((n, rank), dtype, 1)
    a = (b @ adjoint(b)).astype(dtype)
    e = (db @ adjoint(b) + b @ adjoint(db)).astype(dtype)
    x, dx = grad.sqrtm_jvp(a, e, assume_a="pos")
    # eigenvalues that rounding left have roots of eps^(1/2), which is what a root loses here
    assert relative_error(x @ dx + dx @ x, e) < 20 * EPS[dtype] ** 0.5
    other = grad.sqrtm_jvp(a, gaussian((n, n), dtype, 3)).derivative
    assert np.isfinite(other).all()


def test_the_kernel_of_a_root_stays():
    """Documented: pairs of eigenvalues that are both zero count as not moving."""
    a, e = np.diag([0.0, 0.0, 4.0]), np.arange(9.0).reshape(3, 3)
    got = grad.sqrtm_jvp(a, e).derivative
    np.testing.assert_allclose(got, [[0, 0, 1], [0, 0, 2.5], [3, 3.5, 2]], rtol=1e-14)
    np.testing.assert_array_equal(grad.sqrtm_vjp(a, e).derivative, got)


@pytest.mark.parametrize("name", ["jvp", "vjp"])
def test_zero_matrices(name, dtype):
    zero = np.zeros((2, 3, 3), dtype)
    run = {"jvp": grad.sqrtm_jvp, "vjp": grad.sqrtm_vjp}[name]
    value, derivative = run(zero, gaussian(zero.shape, dtype))
    assert not value.any()
    assert not derivative.any()
    one = {"jvp": grad.invsqrtm_jvp, "vjp": grad.invsqrtm_vjp}[name]
    value, derivative = one(zero, gaussian(zero.shape, dtype), damp=4.0)
    np.testing.assert_allclose(value, np.broadcast_to(np.eye(3) / 2, zero.shape), rtol=1e-6)
    assert relative_error(derivative, -gaussian(zero.shape, dtype) / 16).max() < 20 * EPS[dtype]


@pytest.mark.parametrize("name", [n for n in FORWARD if n != "sqrtm"])
def test_singular_matrices_without_damping(name):
    a = np.stack([np.eye(3), np.ones((3, 3))])
    with pytest.raises(lk.errors.SingularMatrixError, match="jvp") as caught:
        FORWARD[name](a, np.ones_like(a))
    assert caught.value.index == ((1,),)
    with pytest.raises(lk.errors.SingularMatrixError, match="vjp"):
        BACKWARD[name](a, np.ones_like(a))


@EVERY
def test_indefinite_matrices(name):
    a, e = np.diag([2.0, -1.0, 3.0]), gaussian((3, 3), "float64")
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError, match="-1") as caught:
        FORWARD[name](a, e)
    assert np.isnan(caught.value.result.derivative).all()
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError):
        BACKWARD[name](a + 0j, e, assume_a="pos")
    found = FORWARD[name](a + 0j, e)
    want = mp_derivative(a + 0j, e, POWER[name])
    assert relative_error(found.derivative, want) < 100 * EPS["float64"]
    g = gaussian((3, 3), "complex128", 2)
    back = BACKWARD[name](a + 0j, g).derivative
    assert inner(back, e) == pytest.approx(inner(g, found.derivative), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "general"), [*((name, False) for name in POWER), ("sqrtm", True), ("logm", True)]
)
def test_nan_in_one_member_stays_there(name, general):
    make = random_matrix if general else spd_matrix
    a = make(4, 10.0, batch=(4,), rng=0)
    e = gaussian(a.shape, "float64")
    good = [0, 2, 3]
    want = FORWARD[name](a[good], e[good])
    a[1, 2, 2] = np.nan
    for run in (FORWARD[name], BACKWARD[name]):
        with pytest.raises(lk.errors.NonFiniteError, match="NaN") as caught:
            run(a, e)
        assert caught.value.index == ((1,),)
        value, derivative = caught.value.result
        assert np.isnan(value[1]).all()
        assert np.isnan(derivative[1]).all()
        assert np.isfinite(derivative[good]).all()
        with pytest.warns(lk.errors.ConvergenceWarning, match="NaN"):
            run(a, e, on_fail="warn")
    found = FORWARD[name](a, e, on_fail="nan")
    assert found.info.converged.tolist() == [True, False, True, True]
    np.testing.assert_allclose(found.value[good], want.value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.derivative[good], want.derivative, rtol=1e-11, atol=1e-12)
    # without a word about finiteness there is no error, and NaN all the same
    assert np.isnan(FORWARD[name](a, e, check_finite=False).derivative[1]).all()


@EVERY
def test_nobody_asks_for_the_derivative_of_a_bad_member(name):
    a = spd_matrix(3, batch=(3,), rng=0)
    a[1] = np.inf
    e = gaussian(a.shape, "float64")
    e[1] = 0
    for run in (FORWARD[name], BACKWARD[name]):
        found = run(a, e, on_fail="nan")
        assert np.isnan(found.value[1]).all()
        assert not found.derivative[1].any()
        assert np.isfinite(found.derivative).all()


# ---- what comes in ----


@pytest.mark.parametrize("name", ["sqrtm", "inv_root 4", "logm"])
def test_shapes_and_kinds(name):
    run, a = FORWARD[name], spd_matrix(3, 10.0, batch=(2,), rng=0)
    for e in (np.ones((3, 3)), np.ones((2, 3, 4)), np.ones((1, 3, 3)), 1.0):
        with pytest.raises(ValueError, match="da: must have the shape of a"):
            run(a, e)
        with pytest.raises(ValueError, match="g: must have the shape of a"):
            BACKWARD[name](a, e)
    with pytest.raises(ValueError, match="a: must"):
        run(np.ones((2, 3)), np.ones((2, 3)))
    for x, y in ((a, None), (a, "text"), (None, a), (object(), a)):
        with pytest.raises(TypeError):
            run(x, y)
    with pytest.raises(ValueError, match="assume_a"):
        run(a, a, assume_a="symmetric")
    with pytest.raises(ValueError, match="on_fail"):
        run(a, a, on_fail="ignore")
    with pytest.raises(ValueError, match="p: must be positive"):
        grad.inv_root_jvp(a, -1, a)


def test_dtypes_mix_and_integers():
    a, e = spd_matrix(3, 10.0, dtype="float32", rng=0), gaussian((3, 3), "complex128")
    x, dx = grad.sqrtm_jvp(a, e)
    assert x.dtype == dx.dtype == "complex128"
    assert relative_error(x @ dx + dx @ x, e) < 1e-13
    x, dx = grad.sqrtm_jvp([[5, 4], [4, 5]], [[1, 0], [0, 1]])
    assert x.dtype == dx.dtype == "float64"
    np.testing.assert_allclose(x, [[2, 1], [1, 2]], rtol=1e-14)
    np.testing.assert_allclose(dx, [[1 / 3, -1 / 6], [-1 / 6, 1 / 3]], rtol=1e-14)
    x, dx = grad.logm_jvp(4.0, 2.0)
    assert (np.ndim(x), np.ndim(dx)) == (0, 0)
    assert (float(x), float(dx)) == pytest.approx((np.log(4), 0.5), rel=1e-15)


@EVERY
@pytest.mark.parametrize("shape", [(0, 3, 3), (0, 0), (2, 0, 0), (2, 0, 3, 3), (1, 1), (5, 1, 1)])
def test_empty_and_tiny(name, shape, dtype):
    a = np.full(shape, 2).astype(dtype) + 6 * np.eye(shape[-1]).astype(dtype)
    for run in (FORWARD[name], BACKWARD[name]):
        found = run(a, np.ones_like(a))
        assert found.value.shape == found.derivative.shape == shape
        assert found.value.dtype == found.derivative.dtype == a.dtype
        assert found.info.converged.shape == shape[:-2]
        if shape[-1] == 1:
            t = POWER[name]
            slope = 1 / 8 if t is None else float(t) * 8.0 ** float(t - 1)
            np.testing.assert_allclose(found.derivative, slope, rtol=10 * EPS[dtype])


@EVERY
def test_batches_and_layouts(name):
    a, e = spd_matrix(5, 1e2, batch=(2, 3), rng=0), gaussian((2, 3, 5, 5), "float64")
    a.flags.writeable = e.flags.writeable = False
    whole = FORWARD[name](a, e)
    assert whole.derivative.shape == a.shape
    assert whole.info.converged.shape == (2, 3)
    for k in np.ndindex(2, 3):
        one = FORWARD[name](a[k], e[k])
        np.testing.assert_array_equal(whole.derivative[k], one.derivative)
        np.testing.assert_array_equal(whole.value[k], one.value)
    wide = np.zeros((2, 3, 10, 10))
    wide[..., ::2, ::2] = a
    layouts = [
        (np.asfortranarray(a), np.asfortranarray(e)),
        (wide[..., ::2, ::2], e),
        (a[::-1][::-1], np.swapaxes(np.ascontiguousarray(np.swapaxes(e, -1, -2)), -1, -2)),
    ]
    for x, y in layouts:
        np.testing.assert_array_equal(FORWARD[name](x, y).derivative, whole.derivative)
        np.testing.assert_array_equal(
            BACKWARD[name](x, y).derivative, BACKWARD[name](a, e).derivative
        )


def test_a_derivative_is_a_pair_that_travels():
    found = grad.invsqrtm_jvp(spd_matrix(3, batch=(2,), rng=0), np.ones((2, 3, 3)))
    x, dx = found
    assert (found.value is x, found.derivative is dx, len(found)) == (True, True, 2)
    assert found.info.method == "eigh"
    assert np.isnan(found.info.residual).all()
    for again in (pickle.loads(pickle.dumps(found)), copy.copy(found), copy.deepcopy(found)):
        assert type(again) is grad.Derivative
        np.testing.assert_array_equal(again.derivative, dx)
        np.testing.assert_array_equal(again.info.converged, found.info.converged)


# ---- libraries ----


@EVERY
@pytest.mark.parametrize("general", [False, True])
def test_the_array_api_alone(name, general, dtype):
    strict = pytest.importorskip("array_api_strict")
    make = random_matrix if general else spd_matrix
    a = make(4, 10.0, batch=(2,), dtype=dtype, rng=0)
    e = gaussian(a.shape, dtype)
    for run in (FORWARD[name], BACKWARD[name]):
        want, got = run(a, e), run(strict.asarray(a), strict.asarray(e))
        assert type(got.derivative) is type(strict.asarray(a))
        assert got.derivative.dtype == strict.asarray(a).dtype
        # condition 10, for general matrices times that of the basis squared
        c = 1e5 if general else 200
        assert relative_error(np.asarray(got.derivative), want.derivative).max() < c * EPS[dtype]
        assert relative_error(np.asarray(got.value), want.value).max() < c * EPS[dtype]
    with pytest.raises(TypeError, match="da"):
        FORWARD[name](strict.asarray(a), e)


@EVERY
@pytest.mark.parametrize("n", [3, 9, 40])
def test_on_a_device(cuda, name, n, dtype):
    a = spd_matrix(n, 10.0, batch=(2,), dtype=dtype, rng=0)
    e = gaussian(a.shape, dtype)
    for run in (FORWARD[name], BACKWARD[name]):
        want, got = run(a, e), run(cuda.array(a), cuda.array(e))
        assert type(got.derivative) is type(cuda.array(a))
        assert relative_error(cuda.host(got.derivative), want.derivative).max() < 400 * EPS[dtype]
        assert relative_error(cuda.host(got.value), want.value).max() < 400 * EPS[dtype]


@pytest.mark.parametrize("name", DAMPED)
def test_damping_on_a_device(cuda, name, dtype):
    a, e = spd_matrix(5, 10.0, batch=(2,), dtype=dtype, rng=0), gaussian((2, 5, 5), dtype)
    for options in (
        {"damp": 0.1},
        {"rel_damp": 0.1},
        {"damp": 0.1, "rel_damp": 0.1},
        {"rcond": 0.2},
    ):
        for run in (FORWARD[name], BACKWARD[name]):
            want = run(a, e, **options)
            got = run(cuda.array(a), cuda.array(e), **options)
            assert relative_error(cuda.host(got.value), want.value).max() < 400 * EPS[dtype]
            assert (
                relative_error(cuda.host(got.derivative), want.derivative).max() < 400 * EPS[dtype]
            )


def test_bad_members_on_a_device(cuda):
    a, e = spd_matrix(4, batch=(3,), rng=0), gaussian((3, 4, 4), "float64")
    want = grad.invsqrtm_jvp(a, e).derivative
    a[1, 0, 0] = np.nan
    a[2] = np.ones((4, 4))
    with pytest.raises(lk.errors.NonFiniteError):
        grad.invsqrtm_jvp(cuda.array(a), cuda.array(e))
    found = grad.invsqrtm_jvp(cuda.array(a), cuda.array(e), on_fail="nan")
    got = cuda.host(found.derivative)
    assert np.isnan(got[1:]).all()
    # condition 1e4
    assert relative_error(got[0], want[0]) < 1e6 * EPS["float64"]
    assert cuda.host(found.info.converged).tolist() == [True, False, False]
