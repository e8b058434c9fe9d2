"""Sums of Gaussians: the promised error against mpmath, numbers of terms, laws, bad input."""

import copy
import math
import pickle

import mpmath
import numpy as np
import pytest

from linalgk.errors import ConvergenceWarning
from linalgk.tensor import _gaussian_rules
from linalgk.tensor._gaussians import (
    GaussianSum,
    explain_gaussian_sum,
    gaussian_sum,
    newton_terms,
    sample,
)

mp = mpmath.mp


def _matern(r, nu, length):
    if r == 0:
        return mp.mpf(1)
    z = mp.sqrt(2 * mp.mpf(nu)) * r / length
    return 2 ** (1 - mp.mpf(nu)) / mp.gamma(nu) * z**nu * mp.besselk(nu, z)


# value, and what its error is relative to
EXACT = {
    "newton": (lambda r: 1 / r, lambda r, _: 1 / r),
    "power": (lambda r, p: r ** -mp.mpf(p), lambda r, _, p: r ** -mp.mpf(p)),
    "yukawa": (
        lambda r, kappa: mp.exp(-kappa * r) / r,
        lambda r, rmin, kappa: mp.exp(-kappa * rmin) / r,
    ),
    "slater": (lambda r, alpha: mp.exp(-alpha * r), lambda _, rmin, alpha: mp.exp(-alpha * rmin)),
    "matern": (_matern, lambda _, rmin, nu, length: _matern(rmin, nu, length)),
    "inverse_multiquadric": (
        lambda r, c: 1 / mp.sqrt(r * r + mp.mpf(c) ** 2),
        lambda r, _, c: 1 / mp.sqrt(r * r + mp.mpf(c) ** 2),
    ),
}


def _worst(s, count=30, tol=0.0):
    """The largest error at log-spaced points, with 34 digits."""
    value, envelope = EXACT[s.kernel]
    rmin, rmax = s.interval
    low = rmin or min(1e-3 / math.sqrt(float(s.exponents[-1])), rmax / 2)
    points = np.concatenate([np.geomspace(low, rmax, count)[1:-1], [rmin, rmax]])
    with mp.workdps(34):
        w, a = ([mp.mpf(float(x)) for x in part] for part in s)
        worst = 0.0
        for x in points:
            r = mp.mpf(float(x))
            total = mp.fsum(wj * mp.exp(-aj * r * r) for wj, aj in zip(w, a, strict=True))
            error = abs(total - value(r, **s.params)) / envelope(r, mp.mpf(rmin), **s.params)
            worst = max(worst, float(error))
    return worst


@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize(
    ("kernel", "rmin", "rmax", "params"),
    [
        ("newton", 0.01, 3.0, {}),
        ("power", 0.05, 3.0, {"p": 2.5}),
        ("yukawa", 0.02, 3.0, {"kappa": 2.0}),
        ("slater", 0.02, 3.0, {"alpha": 1.5}),
        ("matern", 0.0, 3.0, {"nu": 2.5, "length": 0.4}),
        ("matern", 0.01, 3.0, {"nu": 1.2, "length": 0.7}),
        ("inverse_multiquadric", 0.0, 9.0, {"c": 0.3}),
    ],
)
def test_error_is_what_was_asked_for(kernel, rmin, rmax, params, tol):
    s = gaussian_sum(kernel, rmin, rmax, tol, **params)
    assert s.converged
    assert s.error <= tol
    assert _worst(s) <= min(tol, 1.02 * s.error + 1e-18)
    # a rule that is more accurate than it has to be has too many terms
    assert s.error > tol / 50
    assert (s.weights > 0).all()
    assert (np.diff(s.exponents) > 0).all()
    assert s.exponents[0] > 0


@pytest.mark.parametrize(
    ("kernel", "rmin", "rmax", "tol", "params"),
    [
        ("newton", 1e-8, 1.0, 1e-2, {}),
        ("newton", 1e-2, 10.0, 1e-14, {}),
        ("newton", 0.999, 1.0, 1e-10, {}),
        ("newton", 0.1, 1.0, 0.5, {}),
        ("power", 0.2, 1.0, 1e-11, {"p": 60.0}),
        ("power", 1e-3, 1.0, 1e-11, {"p": 0.01}),
        ("yukawa", 1.0, 2.0, 1e-12, {"kappa": 400.0}),
        ("yukawa", 1e-6, 1.0, 1e-6, {"kappa": 1e-9}),
        ("slater", 0.0, 1e9, 1e-4, {"alpha": 2.0}),
        ("slater", 0.0, 1e-9, 1e-6, {"alpha": 2.0}),
        ("slater", 0.0, 1e-100, 1e-9, {"alpha": 1e-12}),
        ("slater", 30.0, 40.0, 1e-13, {"alpha": 15.0}),
        ("matern", 0.0, 3.0, 1e-2, {"nu": 0.1, "length": 1.0}),
        ("matern", 0.0, 3.0, 1e-6, {"nu": 200.0, "length": 0.2}),
        ("matern", 0.0, 3.0, 1e-12, {"nu": 20.5, "length": 1e3}),
        ("inverse_multiquadric", 0.0, 1.0, 1e-13, {"c": 1e4}),
        ("inverse_multiquadric", 0.0, 1e7, 1e-6, {"c": 1.0}),
    ],
)
def test_extremes(kernel, rmin, rmax, tol, params):
    s = gaussian_sum(kernel, rmin, rmax, tol, **params)
    assert s.converged
    assert _worst(s, count=12) <= min(tol, 1.02 * s.error)


@pytest.mark.parametrize(
    ("rmin", "terms"),
    [
        (2 / 256, {1e-4: 16, 1e-7: 29, 1e-10: 39, 1e-13: 51}),
        (2 / 2048, {1e-4: 21, 1e-7: 36, 1e-10: 49, 1e-13: 64}),
        (1e-4, {1e-4: 25, 1e-7: 44, 1e-10: 61, 1e-13: 78}),
    ],
)
def test_number_of_terms_of_the_newton_kernel(rmin, terms):
    """Those of the trapezoidal rule after r = sinh u are 19, 31, 42, 54; 24 to 68; 29 to 83."""
    for tol, count in terms.items():
        assert gaussian_sum("newton", rmin, 3.47, tol).terms <= count


@pytest.mark.parametrize("kernel", ["newton", "slater"])
def test_reported_error_against_a_finer_mesh(kernel):
    params = {"alpha": 2.0} if kernel == "slater" else {}
    s = gaussian_sum(kernel, 0.003, 2.0, 1e-7, **params)
    r = np.geomspace(0.003, 2.0, 7001)
    exact = np.exp(-2 * r) if params else 1 / r
    error = np.abs(np.exp(-np.outer(r * r, s.exponents)) @ s.weights - exact)
    worst = np.max(error / (math.exp(-0.006) if params else exact))
    assert worst / 1.05 <= s.error <= 1.001 * worst


def test_scaling_law_of_the_newton_kernel():
    w, a = gaussian_sum("newton", 0.01, 2.0, 1e-8)
    for s in (0.25, 2.0**40, 3.0, 1e-20):
        ws, as_ = gaussian_sum("newton", 0.01 * s, 2.0 * s, 1e-8)
        # powers of two to the bit
        loose = 0 if math.frexp(s)[0] == 0.5 else 1e-6
        np.testing.assert_allclose(ws, w / s, rtol=loose)
        np.testing.assert_allclose(as_, a / s / s, rtol=loose)


def test_scaling_law_of_kernels_with_a_length():
    w, a = gaussian_sum("matern", 0.0, 2.0, 1e-4, nu=1.5, length=0.5)
    ws, as_ = gaussian_sum("matern", 0.0, 8.0, 1e-4, nu=1.5, length=2.0)
    np.testing.assert_array_equal(ws, w)
    np.testing.assert_array_equal(as_, a / 16)


def test_kernels_that_are_one_another():
    r = np.geomspace(0.01, 2.0, 200)
    slater = gaussian_sum("slater", 0.01, 2.0, 1e-6, alpha=2.0)
    matern = gaussian_sum("matern", 0.01, 2.0, 1e-6, nu=0.5, length=0.5)
    near = gaussian_sum("matern", 0.01, 2.0, 1e-6, nu=0.5 + 1e-10, length=0.5)
    assert np.max(np.abs(slater(r) - matern(r))) <= 2e-9
    assert np.max(np.abs(near(r) - matern(r))) <= 2e-9
    newton = gaussian_sum("newton", 0.01, 2.0, 1e-6)
    for other in (
        gaussian_sum("yukawa", 0.01, 2.0, 1e-6, kappa=0.0),
        gaussian_sum("power", 0.01, 2.0, 1e-6, p=1.0),
    ):
        np.testing.assert_array_equal(other.weights, newton.weights)
        np.testing.assert_array_equal(other.exponents, newton.exponents)


def test_small_error_of_a_laplace_transform():
    """A law no point of the interval knows: int exp(-r^2) k(r) 4 pi r^2 dr over all space."""
    w, a = gaussian_sum("slater", 0.0, 9.0, 1e-6, alpha=1.0)
    total = np.sum(w * (math.pi / (1 + a)) ** 1.5)
    exact = math.pi * (3 * math.sqrt(math.pi) * math.exp(0.25) * math.erfc(0.5) - 2) / 2
    assert abs(total - exact) <= 1e-6 * math.pi**1.5


def test_evaluation_in_every_library(xp):
    s = gaussian_sum("newton", 1e-3, 20.0, 1e-10, xp=xp)
    assert type(s.weights) is type(xp.asarray([1.0]))
    assert "float64" in str(s.exponents.dtype)
    r = xp.asarray([[1e-3, 0.5], [3.0, 20.0]], dtype=xp.float64)
    value = s(r)
    assert type(value) is type(r)
    assert tuple(value.shape) == (2, 2)
    np.testing.assert_allclose(np.asarray(value), 1 / np.asarray(r), rtol=1e-10)
    single = s(xp.asarray([1e-3, 3.0], dtype=xp.float32))
    assert "float32" in str(single.dtype)
    np.testing.assert_allclose(np.asarray(single), [1e3, 1 / 3], rtol=2e-5)


def test_evaluation_of_shapes_and_kinds():
    s = gaussian_sum("slater", 0.0, 5.0, 1e-6, alpha=1.0)
    r = np.linspace(0, 5, 12).reshape(3, 4)
    exact = np.exp(-r)
    fixed = r.copy()
    fixed.flags.writeable = False
    for x in (fixed, np.asfortranarray(r), np.repeat(r, 2, axis=1)[:, ::2], -r):
        np.testing.assert_allclose(s(x), exact, atol=1e-6)
    assert s(np.empty((0, 3))).shape == (0, 3)
    np.testing.assert_allclose(s([0, 1, 2]), np.exp([0.0, -1.0, -2.0]), atol=1e-6)
    np.testing.assert_allclose(s(2.0), math.exp(-2), atol=1e-6)
    assert np.isnan(s(np.array([math.nan]))).all()
    with pytest.raises(TypeError, match="real"):
        s(np.array([1j]))


def test_exponents_beyond_single_precision():
    s = GaussianSum(np.array([0.5, 0.5]), np.array([1.0, 1e60]))
    value = s(np.array([0.0, 1e-35, 1e-20, 1.0, 1e38], np.float32))
    np.testing.assert_allclose(value, [1, 1, 0.5, 0.5 / math.e, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="leave the range of float32"):
        gaussian_sum("newton", 1e-21, 2e-21, 1e-3, dtype="float32")
    with pytest.raises(ValueError, match="leave the range of float64"):
        gaussian_sum("newton", 1e-170, 2e-170, 1e-3)


def test_single_precision_is_verified_as_such():
    s = gaussian_sum("newton", 0.01, 1.0, 1e-5, dtype=np.float32)
    assert s.weights.dtype == s.exponents.dtype == np.float32
    assert s.converged
    assert _worst(s) <= min(1e-5, 1.02 * s.error)


def test_jax_traces_evaluation_and_takes_sums_apart():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    s = gaussian_sum("newton", 0.1, 2.0, 1e-8, xp=jax.numpy)
    slope = jax.grad(lambda r: s(r))(0.5)
    assert slope == pytest.approx(-4.0, rel=1e-5)
    leaves, tree = jax.tree_util.tree_flatten(s)
    assert len(leaves) == 2
    assert jax.tree_util.tree_unflatten(tree, leaves) == s


def test_torch_tensor_that_requires_grad_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="detach"):
        gaussian_sum("newton", 0.1, 2.0, 1e-4)(torch.ones(2, requires_grad=True))


def test_result_is_a_pair_with_attributes():
    s = gaussian_sum("yukawa", 0.1, 2, 1e-5, kappa=3)
    weights, exponents = s
    assert weights is s.weights
    assert exponents is s.exponents
    assert len(s) == 2
    assert isinstance(s, GaussianSum)
    assert s.terms == weights.size
    assert (s.kernel, s.params, s.interval, s.tol) == ("yukawa", {"kappa": 3.0}, (0.1, 2.0), 1e-5)
    assert repr(s).startswith(f"GaussianSum('yukawa', kappa=3: {s.terms} terms on [0.1, 2], error")
    for other in (pickle.loads(pickle.dumps(s)), copy.deepcopy(s), copy.copy(s)):
        assert other == s
        assert other.error == s.error
        assert type(other) is GaussianSum
    assert s != gaussian_sum("yukawa", 0.1, 2, 1e-5, kappa=3.5)
    assert s != (1, 2)
    w, a = newton_terms(0.1, 2.0, 1e-5)
    assert (w > 0).all()
    assert np.sum(w * np.exp(-a)) == pytest.approx(1.0, rel=1e-5)


def test_what_is_kept_is_not_handed_out():
    s = gaussian_sum("newton", 0.5, 2.0, 1e-5)
    before = s.weights.copy()
    s.weights[:] = 0
    np.testing.assert_array_equal(gaussian_sum("newton", 0.5, 2.0, 1e-5).weights, before)


def test_a_rule_that_misses_is_a_warned_object_that_knows_its_error(monkeypatch):
    rule = _gaussian_rules.kept("newton", (), 0.1, 1e-4)
    bad = rule._replace(weights=rule.weights * 1.01)
    monkeypatch.setattr(_gaussian_rules, "kept", lambda *_: bad)
    with pytest.warns(ConvergenceWarning, match=r"tol is 1.00e-06"):
        s = gaussian_sum("newton", 0.1, 1.0, 1e-6)
    assert not s.converged
    assert s.error == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(
    ("error", "match", "args", "params"),
    [
        (ValueError, "'matern'", ("gauss", 0.1, 1, 1e-4), {}),
        (ValueError, "rmin: must be positive", ("newton", 0, 1, 1e-4), {}),
        (ValueError, "rmin: must satisfy", ("newton", -1, 1, 1e-4), {}),
        (ValueError, "rmin: must be less than rmax", ("newton", 1, 1, 1e-4), {}),
        (ValueError, "rmin: must satisfy", ("newton", math.nan, 1, 1e-4), {}),
        (ValueError, "rmax: must satisfy", ("newton", 0.1, math.inf, 1e-4), {}),
        (TypeError, "rmax: must be a real number", ("newton", 0.1, "1", 1e-4), {}),
        (ValueError, "tol: must satisfy 7.1e-15", ("newton", 0.1, 1, 1e-15), {}),
        (ValueError, "tol: must satisfy 3.8e-06", ("newton", 0.1, 1, 1e-6), {"dtype": "float32"}),
        (ValueError, "tol", ("newton", 0.1, 1, 1.0), {}),
        (ValueError, "tol", ("newton", 0.1, 1, math.nan), {}),
        (TypeError, "dtype", ("newton", 0.1, 1, 1e-4), {"dtype": "complex128"}),
        (TypeError, "xp", ("newton", 0.1, 1, 1e-4), {"xp": "numpy"}),
        (TypeError, "needs kappa=", ("yukawa", 0.1, 1, 1e-4), {}),
        (TypeError, "needs length=", ("matern", 0.1, 1, 1e-4), {"nu": 1}),
        (TypeError, "alpha: is no parameter of 'yukawa', which takes kappa",
         ("yukawa", 0.1, 1, 1e-4), {"kappa": 1, "alpha": 2}),
        (TypeError, "kappa: is no parameter", ("newton", 0.1, 1, 1e-4), {"kappa": 1}),
        (ValueError, "alpha: must satisfy", ("slater", 0.1, 1, 1e-4), {"alpha": 0}),
        (ValueError, "kappa: must satisfy", ("yukawa", 0.1, 1, 1e-4), {"kappa": math.nan}),
        (ValueError, "nu: must satisfy", ("matern", 0.1, 1, 1e-4), {"nu": 0.01, "length": 1}),
        (ValueError, "rmin: the kernel is", ("yukawa", 1, 2, 1e-4), {"kappa": 900}),
        (ValueError, "rmin: the kernel is", ("power", 1e-9, 2, 1e-4), {"p": 90}),
        (ValueError, "leave the range of float64", ("newton", 1e-160, 1, 1e-3), {}),
        (ValueError, "leave the range of float64", ("power", 1e-3, 1, 1e-3), {"p": 90}),
        (ValueError, "leave the range of float64", ("slater", 0, 1e-200, 1e-3), {"alpha": 1e-12}),
    ],
)  # fmt: skip
def test_bad_input(error, match, args, params):
    with pytest.raises(error, match=match):
        gaussian_sum(*args, **params)
    with pytest.raises(error, match=match):
        explain_gaussian_sum(*args, **params)


def test_sample_and_explanation(xp):
    args, kwargs = sample("small", xp=xp)
    s = gaussian_sum(*args, **kwargs)
    told = explain_gaussian_sum(*args, **kwargs)
    assert told.function == "gaussian_sum"
    assert told.flops > 0
    assert abs(told.bytes / 16 - s.terms) <= 4
    assert "about" in str(told)


@pytest.mark.parametrize("tol", [1e-3, 5e-7, 1e-10])
def test_no_gaussian_is_a_needle_within_the_nearest_distance(tol):
    """What nobody sees beyond rmin must not be great: a plain rule for 1/r adds up to this much.

    ``sum w = (2 / sqrt(pi)) asinh(...)``-like, about ``1.25 (log(1/tol) + 3)^(1/2) / rmin``.
    """
    natural = 1.25 * np.sqrt(np.log(1 / tol) + 3)
    for ratio in 2.0 ** np.arange(1, 8, 0.5):
        w, _ = gaussian_sum("newton", 1.0, ratio, tol)
        assert w.sum() <= 2 * natural
