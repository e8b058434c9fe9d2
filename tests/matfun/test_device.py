"""Arrays on a device: results, what the host waits for, and what is said when something is wrong.

Without ``-m gpu`` the device is the emulation, whose arrays come to the host only through functions
that count; its kernels are the CUDA sources.
"""

import math
import re
import sys
import textwrap
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import linalgk as lk
from linalgk import testing
from linalgk.matfun import _device, _ops
from linalgk.matfun._spectral import Scalar

EPS = np.finfo(float).eps
FUNCTIONS = {
    "sqrtm": (lk.sqrtm, lambda w: w**0.5),
    "invsqrtm": (lk.invsqrtm, lambda w: w**-0.5),
    "inv_root 3": (lambda a, **k: lk.inv_root(a, 3, **k), lambda w: w ** (-1 / 3)),
    "inv_root 4": (lambda a, **k: lk.inv_root(a, 4, **k), lambda w: w**-0.25),
    "powm 3": (lambda a, **k: lk.powm(a, 3, **k), lambda w: w**3),
    "powm 0.7": (lambda a, **k: lk.powm(a, 0.7, **k), lambda w: w**0.7),
    "signm": (lk.signm, np.sign),
    "logm": (lk.logm, np.log),
}


def hermitian(n, w, dtype, batch=(), seed=0):
    """A batch with given eigenvalues, and what it is made of, in double precision."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*batch, n, n))
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(x.shape)
    q, _ = np.linalg.qr(x)
    a = (q * w) @ np.conj(np.swapaxes(q, -1, -2))
    return (0.5 * (a + np.conj(np.swapaxes(a, -1, -2)))).astype(dtype)


def expected(a, f):
    """The function by eigenvectors of the same bits in double precision."""
    wide = a.astype(np.complex128 if np.iscomplexobj(a) else np.float64)
    w, v = np.linalg.eigh(wide)
    return (v * f(w)[..., None, :]) @ np.conj(np.swapaxes(v, -1, -2))


def error(x, want):
    return (np.linalg.norm(x - want, axis=(-2, -1)) / np.linalg.norm(want, axis=(-2, -1))).max()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [1, 2, 7, 33, 60, 90])
def test_hermitian_functions(cuda, name, n, dtype):
    function, f = FUNCTIONS[name]
    kappa = 100.0
    a = hermitian(n, 2 * np.geomspace(1 / kappa, 1, n) if n > 1 else np.full(1, 3.0), dtype, (2,))
    x = function(cuda.array(a), assume_a="pos")
    assert type(x) is type(cuda.array(a))
    host = cuda.host(x)
    assert host.dtype == a.dtype
    # 10 eps kappa is what docs/accuracy promises; reading the eigenvalues' oracle costs as much
    assert error(host, expected(a, f)) <= 20 * n**0.5 * np.finfo(dtype).eps * kappa


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [6, 90])
def test_the_host_waits_once_or_never(cuda, name, n):
    if cuda.looks is None:
        pytest.skip("a real device does not count looks; the emulation does")
    function, _ = FUNCTIONS[name]
    a = cuda.array(hermitian(n, np.geomspace(0.01, 1, n), "float64", (2,)))
    cuda.looks = cuda.glances = 0
    function(a, assume_a="pos")
    # products ask once, without waiting, how many steps the slowest member takes, where it differs
    glances = int(n == 90 and name in ("sqrtm", "invsqrtm", "inv_root 3", "inv_root 4"))
    assert (cuda.looks, cuda.glances) == (1, glances)
    function(a, assume_a="pos", on_fail="nan", return_info=True)
    assert (cuda.looks, cuda.glances) == (1, glances)
    cuda.looks = 0
    function(a)
    # to find out that it is Hermitian may take one look of its own
    assert cuda.looks <= 2


@pytest.mark.parametrize("function", [lk.sqrtm, lk.invsqrtm, lk.signm, lk.logm])
def test_general_functions_do_not_wait_for_each_step(cuda, function, dtype):
    rng = np.random.default_rng(3)
    a = rng.standard_normal((2, 24, 24)) / 24**0.5 + 1.5 * np.eye(24)
    a = (a + (1j * rng.standard_normal(a.shape) / 24 if np.dtype(dtype).kind == "c" else 0)).astype(
        dtype
    )
    want = function(a.astype(np.result_type(a, np.float64)))
    eps = np.finfo(dtype).eps
    if cuda.looks is not None:
        cuda.looks = cuda.glances = 0
    x = cuda.host(function(cuda.array(a), assume_a="gen", on_fail="nan"))
    # condition of the functions of these matrices: below 1e3
    assert error(x, want) <= 1e3 * 24 * eps
    if cuda.looks is not None:
        assert cuda.looks == 0
        # steps of all iterations together, for the logarithm those of some ten square roots
        assert 2 <= cuda.glances <= 60
        function(cuda.array(a), assume_a="gen")
        assert cuda.looks == 1


def test_the_square_root_of_a_large_general_matrix_solves_its_equation(cuda):
    rng = np.random.default_rng(5)
    n = 200
    a = rng.standard_normal((n, n)) / n**0.5 + 1.5 * np.eye(n)
    x, info = lk.sqrtm(cuda.array(a), return_info=True)
    host = cuda.host(x)
    assert np.linalg.norm(host @ host - a) <= 1e-10 * np.linalg.norm(a)
    assert info.method == "db"
    assert float(cuda.host(info.residual)) <= 1e-10


@pytest.mark.parametrize("n", [5, 20, 40])
@pytest.mark.parametrize("kind", ["wide", "semidefinite", "diagonal", "zero", "identity"])
def test_members_that_an_iteration_cannot_serve(cuda, n, kind, dtype):
    """The same launch takes Jacobi rotations; nobody has to look."""
    w = {
        "wide": np.geomspace(1e-2 * np.finfo(dtype).eps, 1, n),
        "semidefinite": np.concatenate([np.zeros(n // 2), np.linspace(1, 2, n - n // 2)]),
    }.get(kind, np.ones(n))
    a = hermitian(n, w, dtype)
    if kind == "wide":
        # positive semidefinite to the bit is not what rounding leaves: shift it by that
        a = a + np.finfo(dtype).eps * n * np.eye(n, dtype=dtype)
    if kind in ("diagonal", "zero", "identity"):
        values = {"diagonal": np.linspace(0, 3, n), "zero": np.zeros(n), "identity": np.ones(n)}
        a = np.diag(values[kind]).astype(dtype)
    x = cuda.host(lk.sqrtm(cuda.array(a), assume_a="pos", on_fail="nan"))
    if kind in ("diagonal", "zero", "identity"):
        np.testing.assert_array_equal(x, np.sqrt(a.real).astype(dtype))
        return
    # the square of the root is A to n eps, whatever the condition
    eps = np.finfo(dtype).eps
    assert np.linalg.norm(x @ x - a) <= 10 * n * eps * np.linalg.norm(a)
    np.testing.assert_array_equal(x, np.conj(x.T))
    assert np.linalg.eigvalsh(x.astype(np.result_type(x, np.float64)))[0] >= -n * eps


def test_jacobi_serves_every_inverse_root(cuda):
    kappa, n = 1e11, 12
    a = hermitian(n, np.geomspace(1 / kappa, 1, n), "float64", (2,))
    for p in (1, 2, 3, 4, 5):
        x = cuda.host(lk.inv_root(cuda.array(a), p, assume_a="pos"))
        want = expected(a, lambda w, p=p: w ** (-1 / p))
        assert error(x, want) <= 10 * np.finfo(float).eps * kappa


@pytest.mark.parametrize("n", [6, 40, 130])
def test_powers_of_two_change_nothing_but_the_exponent(cuda, n):
    a = hermitian(n, np.geomspace(0.1, 1, n), "float64", (2,))
    for p in (2, 3, 4):
        x = cuda.host(lk.inv_root(cuda.array(a), p, assume_a="pos"))
        for k in (-60, 40):
            y = cuda.host(lk.inv_root(cuda.array(a * 2.0 ** (p * k)), p, assume_a="pos"))
            np.testing.assert_array_equal(y, x * 2.0**-k)


@pytest.mark.parametrize("n", [6, 40])
def test_a_member_does_not_see_the_batch(cuda, n, dtype):
    kappas = 10.0 ** np.arange(1, 6)
    a = np.concatenate(
        [hermitian(n, np.geomspace(1 / k, 1, n), dtype, (1,), int(k)) for k in kappas]
    )
    whole = cuda.host(lk.invsqrtm(cuda.array(a), assume_a="pos"))
    for k in range(len(a)):
        alone = cuda.host(lk.invsqrtm(cuda.array(a[k]), assume_a="pos"))
        np.testing.assert_array_equal(alone, whole[k])


def test_shapes(cuda, dtype):
    for shape in ((0, 4, 4), (3, 0, 0), (0, 0), (2, 0, 3, 3)):
        x = lk.sqrtm(cuda.array(np.zeros(shape, dtype)))
        assert tuple(x.shape) == shape
        assert cuda.host(x).dtype == np.dtype(dtype)
    a = hermitian(4, np.arange(1.0, 5), dtype, (2, 3))
    x = lk.sqrtm(cuda.array(a))
    assert tuple(x.shape) == (2, 3, 4, 4)
    assert error(cuda.host(x), expected(a, np.sqrt)) <= 100 * np.finfo(dtype).eps


@pytest.mark.parametrize("n", [5, 130])
def test_strided_members(cuda, n):
    a = hermitian(n, np.geomspace(0.1, 1, n), "float64", (4,))
    device = cuda.array(a)
    view = device[::2, ...]
    x = cuda.host(lk.sqrtm(view))
    np.testing.assert_array_equal(x, cuda.host(lk.sqrtm(cuda.array(a[::2]))))
    flipped = cuda.array(a).mT if hasattr(device, "mT") else cuda.array(a).swapaxes(-1, -2)
    np.testing.assert_allclose(
        cuda.host(lk.sqrtm(flipped)), cuda.host(lk.sqrtm(device)), atol=1e-12
    )
    np.testing.assert_array_equal(cuda.host(device), a)


BAD = {
    "nan": (lambda a: a.__setitem__((1, 0, 0), np.nan), lk.errors.NonFiniteError, "NaN or inf"),
    "inf": (lambda a: a.__setitem__((1, 2, 1), np.inf), lk.errors.NonFiniteError, "NaN or inf"),
    "asymmetric": (lambda a: a.__setitem__((1, 0, 1), 9.0), lk.errors.AsymmetricError, "Hermitian"),
    "indefinite": (
        lambda a: a.__setitem__(1, np.diag(np.linspace(-1, 1, a.shape[-1])) + 1e-3),
        lk.errors.NotPositiveSemidefiniteError, "negative eigenvalue -0.99",
    ),
    "singular": (
        lambda a: a.__setitem__(1, np.ones(a.shape[-1:] * 2)),
        lk.errors.SingularMatrixError, "singular",
    ),
}  # fmt: skip


@pytest.mark.parametrize("n", [6, 40, 90])
@pytest.mark.parametrize("kind", BAD)
def test_bad_members_are_named_and_the_others_are_served(cuda, n, kind):
    spoil, exception, words = BAD[kind]
    a = hermitian(n, np.geomspace(0.1, 1, n), "float64", (3,))
    good = cuda.host(lk.invsqrtm(cuda.array(a), assume_a="pos"))
    spoil(a)
    with pytest.raises(exception, match=words) as caught:
        lk.invsqrtm(cuda.array(a), assume_a="pos")
    assert caught.value.index == ((1,),)
    for x in (
        caught.value.result,
        lk.invsqrtm(cuda.array(a), assume_a="pos", on_fail="nan"),
    ):
        x = cuda.host(x)
        assert np.isnan(x[1]).all()
        np.testing.assert_allclose(x[[0, 2]], good[[0, 2]], rtol=1e-11, atol=1e-11)
    _, info = lk.invsqrtm(cuda.array(a), assume_a="pos", on_fail="nan", return_info=True)
    assert cuda.host(info.converged).tolist() == [True, False, True]
    with pytest.warns(lk.errors.ConvergenceWarning):
        lk.invsqrtm(cuda.array(a), assume_a="pos", on_fail="warn")


def test_mixed_batches_find_their_ways(cuda):
    """One member Hermitian, one not, one diagonal: each as it would be alone."""
    rng = np.random.default_rng(1)
    a = hermitian(6, np.arange(1.0, 7), "float64", (3,))
    a[1] += 0.2 * rng.standard_normal((6, 6))
    a[2] = np.diag(np.arange(1.0, 7))
    x = cuda.host(lk.sqrtm(cuda.array(a)))
    for k in range(3):
        assert np.linalg.norm(x[k] @ x[k] - a[k]) <= 1e-13 * np.linalg.norm(a[k])


def test_info_is_on_the_device(cuda):
    a = hermitian(8, np.geomspace(1e-3, 1, 8), "float64", (5,))
    for function in (lk.sqrtm, lk.invsqrtm):
        x, info = function(cuda.array(a), return_info=True)
        _, host = function(a, return_info=True)
        for field in ("iterations", "converged", "residual", "error_estimate"):
            value = getattr(info, field)
            assert type(value) is type(x)
            assert tuple(value.shape) == (5,)
            assert cuda.host(value).dtype == getattr(host, field).dtype
        assert info.method == host.method == "minimax"
        assert (cuda.host(info.residual) <= 1e-11).all()
        error_ = cuda.host(info.error_estimate)
        assert ((error_ > 0) & (error_ < 1e-9)).all()


@pytest.mark.parametrize("n", [6, 130])
def test_damping(cuda, n):
    a = hermitian(n, np.geomspace(1e-3, 1, n), "float64", (2,))
    x = lk.invsqrtm(cuda.array(a), damp=0.5, assume_a="pos")
    assert error(cuda.host(x), expected(a + 0.5 * np.eye(n), lambda w: w**-0.5)) < 1e-12
    x = lk.invsqrtm(cuda.array(a), rel_damp=0.1, assume_a="pos")
    assert error(cuda.host(x), expected(a, lambda w: (w + 0.1 * w.max()) ** -0.5)) < 1e-12
    x = lk.invsqrtm(cuda.array(a), rcond=0.1, assume_a="pos")
    kept = expected(a, lambda w: np.where(w > 0.1 * w.max(), np.abs(w) ** -0.5, 0))
    assert error(cuda.host(x), kept) < 1e-10


@pytest.mark.parametrize("n", [6, 40, 130])
@pytest.mark.parametrize("options", [{}, {"on_fail": "nan"}, {"damp": 0.1}])
def test_plans(cuda, n, options):
    a = cuda.array(hermitian(n, np.geomspace(0.1, 1, n), "float64", (3,)))
    plan = lk.plan(lk.inv_root, a, 4, assume_a="pos", **options)
    twice = np.repeat(cuda.host(a), 2, axis=0)
    strided = cuda.array(twice)[::2, ...]
    np.testing.assert_array_equal(cuda.host(plan(strided)), cuda.host(plan(a)))
    want = cuda.host(lk.inv_root(a, 4, assume_a="pos", **options))
    if cuda.looks is not None:
        cuda.looks = 0
    x = plan(a)
    if cuda.looks is not None:
        assert cuda.looks == (0 if options.get("on_fail") else 1)
    np.testing.assert_array_equal(cuda.host(x), want)
    out = cuda.array(np.full((3, n, n), 7.0))
    assert plan(a, out=out) is out
    np.testing.assert_array_equal(cuda.host(out), want)
    assert cuda.host(plan.status).tolist() == [0, 0, 0]
    assert plan.explain().method == lk.explain(lk.inv_root, a, 4, assume_a="pos", **options).method


def test_a_plan_reports_what_failed(cuda):
    a = hermitian(5, np.ones(5), "float64", (3,))
    a[2, 0, 0] = np.nan
    plan = lk.plan(lk.invsqrtm, cuda.array(a), assume_a="pos", on_fail="nan")
    x = cuda.host(plan(cuda.array(a)))
    assert np.isnan(x[2]).all()
    assert np.isfinite(x[:2]).all()
    assert cuda.host(plan.status).tolist() == [0, 0, 1]
    with pytest.raises(lk.errors.NonFiniteError):
        lk.plan(lk.invsqrtm, cuda.array(a), assume_a="pos")(cuda.array(a))


@pytest.mark.parametrize(
    ("n", "options", "method", "word"),
    [
        (8, {}, "minimax", "shared memory"),
        (84, {}, "minimax", "shared memory"),
        (85, {}, "minimax", "peak"),
        (85, {"on_fail": "nan"}, "eigh", "looks at no member"),
        (8, {"rel_damp": 1e-6}, "eigh", "spectrum"),
        (200, {"method": "minimax"}, "minimax", "asked"),
    ],
)
def test_explain(cuda, n, options, method, word):
    a = cuda.array(hermitian(n, np.geomspace(0.1, 1, n), "float64"))
    e = lk.explain(lk.invsqrtm, a, assume_a="pos", **options)
    assert e.method == method
    assert word in e.reason
    names = " ".join(e.implementations.values())
    assert ("linalgk_kernels.cuda" in names) or method == "eigh"
    _, info = lk.invsqrtm(a, assume_a="pos", return_info=True, **options)
    assert info.method == method


def test_explain_names_the_reference_where_no_kernel_runs(cuda):
    a = cuda.array(hermitian(90, np.geomspace(0.1, 1, 90), "float64"))
    e = lk.explain(lk.logm, a, assume_a="pos")
    assert "linalgk_kernels.cuda.matfun_eigh" in e.implementations["eigh"]
    assert "no CUDA kernel" in e.implementations["gram"]
    with lk.config_context(backend="reference"):
        e = lk.explain(lk.invsqrtm, a, assume_a="pos")
        assert all("reference" in how for how in e.implementations.values())
        x = cuda.host(lk.invsqrtm(a, assume_a="pos"))
    assert error(x, expected(cuda.host(a), lambda w: w**-0.5)) < 1e-12
    with lk.config_context(backend="kernel"), pytest.raises(TypeError, match="no CUDA kernel"):
        lk.sqrtm(a, assume_a="gen")


def test_out(cuda):
    a = hermitian(5, np.ones(5) * 4, "float64", (2,))
    out = cuda.array(np.zeros((2, 5, 5)))
    assert lk.sqrtm(cuda.array(a), out=out) is out
    np.testing.assert_array_equal(cuda.host(out), cuda.host(lk.sqrtm(cuda.array(a))))
    with pytest.raises(TypeError, match="same library"):
        lk.sqrtm(cuda.array(a), out=np.zeros((2, 5, 5)))


def test_arrays_on_two_devices(cuda):
    if cuda.looks is None:
        pytest.skip("a real machine may have one device; the emulation has two")
    other = cuda.xp.Device("device2")
    a = cuda.array(np.eye(3)[None] * 2)
    damp = cuda.xp.asarray(np.ones(1), device=other)
    with pytest.raises(TypeError, match=r"one library and device: a is cupy on .*device1"):
        lk.invsqrtm(a, damp=damp)
    with pytest.raises(TypeError, match="out: must be on the device of the input"):
        lk.sqrtm(a, out=cuda.xp.zeros((1, 3, 3), dtype=a.dtype, device=other))
    with pytest.raises(TypeError, match="one library and device"):
        lk.invsqrtm(a, damp=np.ones(1))


@pytest.mark.gpu
def test_a_dtype_without_a_kernel():
    cupy = pytest.importorskip("cupy")
    with pytest.raises(TypeError, match="dtype must be float32, float64"):
        lk.sqrtm(cupy.eye(3, dtype="float16"))


def test_integers_become_double_precision(cuda):
    x = cuda.host(lk.sqrtm(cuda.array(np.array([[5, 4], [4, 5]]))))
    np.testing.assert_allclose(x, [[2, 1], [1, 2]], rtol=1e-15)


@pytest.mark.parametrize("function", [lk.logm, lk.signm])
def test_large_members_go_one_by_one(cuda, function):
    n = 260
    w = np.concatenate([-np.linspace(1, 2, n // 2), np.linspace(1, 2, n - n // 2)])
    a = hermitian(n, np.abs(w) if function is lk.logm else w, "float64", (2,))
    x = cuda.host(function(cuda.array(a), assume_a="her"))
    want = expected(a, np.log if function is lk.logm else np.sign)
    assert error(x, want) < 1e-11
    general = cuda.host(function(cuda.array(a), assume_a="gen"))
    assert error(general, want) < 1e-10


def test_tolerances_save_steps(cuda):
    a = hermitian(130, np.geomspace(1e-3, 1, 130), "float32")
    steps = {}
    for tol in (1e-2, 1e-5, None):
        x, info = lk.sqrtm(cuda.array(a), assume_a="pos", tol=tol, return_info=True)
        steps[tol] = int(cuda.host(info.iterations))
        # tol is relative in the spectral norm of the schedule; rounding adds eps sqrt(kappa)
        assert error(cuda.host(x), expected(a, np.sqrt)) <= (tol or 0) + 1e-4
    assert steps[1e-2] <= steps[1e-5] <= steps[None]
    assert steps[1e-2] < steps[None]


@pytest.mark.parametrize(("function", "kappa"), [(lk.sqrtm, 1e9), (lk.invsqrtm, 1e10)])
def test_what_the_products_cannot_serve_goes_to_eigenvectors(cuda, function, kappa):
    n = 100
    a = hermitian(n, np.geomspace(1 / kappa, 1, n), "float64")
    x, info = function(cuda.array(a), assume_a="pos", return_info=True)
    assert info.method == "eigh"
    power = 0.5 if function is lk.sqrtm else -0.5
    bound = kappa**0.5 if function is lk.sqrtm else kappa
    assert error(cuda.host(x), expected(a, lambda w: w**power)) <= 20 * EPS * bound
    # members beyond an iteration that was asked for go there as well, as on the CPU
    y, info = function(cuda.array(a), assume_a="pos", method="minimax", return_info=True)
    assert "eigh" in info.method
    assert error(cuda.host(y), cuda.host(x)) <= 20 * EPS * bound


@pytest.mark.parametrize("function", [lk.sqrtm, lk.invsqrtm])
def test_a_few_steps_are_what_was_asked_for(cuda, function):
    a = hermitian(100, np.geomspace(0.5, 1, 100), "float64")
    x, info = function(cuda.array(a), assume_a="pos", steps=3, return_info=True)
    assert int(cuda.host(info.iterations)) == 3
    assert np.isfinite(cuda.host(x)).all()


def plan_of(power, dtype, n):
    real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    return _device.schedules(real, Scalar("power", Fraction(power)), "minimax", None, None, n)


def after(steps, w, p):
    """Eigenvalues of M after some steps of the coupled iteration for p-th roots."""
    for a, b, c in steps:
        w = w * (a + b * w + c * w**2) ** p
    return w


@pytest.mark.parametrize("n", [24, 4096])
@pytest.mark.parametrize("power", ["1/2", "-1/2", "-1/3", "-1/4", "-1", "-3/4"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_schedules_serve_what_they_say(power, dtype, n):
    """Every row brings its interval to 1, from wherever the first steps left it."""
    plan, p = plan_of(power, dtype, n), Fraction(power).denominator
    unit = np.finfo(dtype).eps / 2
    served = 17 if power[0] != "-" else 19 if dtype == "float32" else 23
    w = after(plan.growth, np.geomspace(2.0**-served, 1, 20001), p)
    assert 0 < w.min() < w.max() <= 1 + 1e-12
    for row, steps in enumerate(plan.steps):
        low = w.min() if row == len(plan.steps) - 1 else 2.0**-row
        x = after(plan.rest[row], np.geomspace(low, 1, 2001), p) ** (1 / p)
        assert abs(x - 1).max() <= 1.1 * unit + 1e-15
        count = len(lk.minimax_schedule(min(low ** (1 / p), 0.999), tol=unit, root=p))
        assert count <= steps <= count + 1
        # those after its last are exact no-ops
        assert (plan.rest[row, steps:] == [1, 0, 0]).all()
    # the bound of a member whose eigenvalues all lie within 1 - centre of it, however large
    least = plan.centre - n**0.125 * (1 - plan.centre)
    assert least >= plan.centre / 4 - 1e-12
    assert plan.steps[math.ceil(-math.log2(least))] < plan.steps[-1]


@pytest.mark.parametrize("function", [lk.sqrtm, lk.invsqrtm])
@pytest.mark.parametrize("n", [24, 130])
def test_each_member_takes_its_own_steps(cuda, function, n, dtype):
    whole, eps = function is lk.sqrtm, np.finfo(dtype).eps
    if n == 24:
        if cuda.layer is None:
            pytest.skip("a real device's blocks hold members of this order")
        cuda.layer.shared_memory = 8 * 1024
    kappas = [2.0, 1e2, 1e4] if whole or eps > 1e-10 else [1e1, 1e2, 1e3, 1e4, 1e5, 1e6]
    a = np.concatenate(
        [hermitian(n, np.geomspace(1 / k, 1, n), dtype, (1,), int(k)) for k in kappas]
    )
    x, info = function(cuda.array(a), assume_a="pos", return_info=True)
    assert info.method == "minimax"
    steps, host = cuda.host(info.iterations), cuda.host(x)
    want = expected(a, np.sqrt if whole else lambda w: w**-0.5)
    # the same in eigenvalues: bound the norm, take the first steps, bound the smallest, look it up
    plan = plan_of("1/2" if whole else "-1/2", dtype, n)
    for k, kappa in enumerate(kappas):
        top = min(np.linalg.norm(a[k], np.inf), np.linalg.norm(a[k])) * (1 + 2.0**-9)
        w = np.linalg.eigvalsh(a[k].astype(np.result_type(a, np.float64))) / top
        w = after(plan.growth, w, 2)
        low = plan.centre - (1 + 2.0**-9) * ((plan.centre - w) ** 8).sum() ** 0.125
        assert low <= w.min()
        row = len(plan.steps) - 1
        row = min(row, int(np.ceil(-np.log2(low)))) if low > 0 else row
        assert steps[k] == len(plan.growth) + plan.steps[row]
        assert error(host[k], want[k]) <= 10 * eps * (kappa**0.5 if whole else kappa)
        if n == 24:  # cuBLAS may take another kernel for another batch
            alone = function(cuda.array(a[k]), assume_a="pos")
            np.testing.assert_array_equal(cuda.host(alone), host[k])
    assert steps[0] < steps[-1]


def test_products_end_with_the_slowest_member(cuda):
    if cuda.looks is None:
        pytest.skip("launches are counted by the emulation")
    n, launched = 100, cuda.layer.launched
    easy = hermitian(n, np.geomspace(0.2, 1, n), "float64", (2,))
    mixed = np.concatenate([easy, hermitian(n, np.geomspace(1e-5, 1, n), "float64", (1,))])
    spoiled = mixed.copy()
    spoiled[0, 3, 2] = np.nan
    most, found = 2 + max(plan_of("-1/2", "float64", n).steps), {}
    for name, a, options, queued in (
        ("easy", easy, {}, 6),
        ("mixed", mixed, {}, most),
        # nobody may ask, and no member takes a step more for it
        ("blind", easy, {"method": "minimax", "on_fail": "nan"}, most),
        ("spoiled", spoiled, {"method": "minimax", "on_fail": "nan"}, most),
    ):
        launched.clear()
        cuda.looks = cuda.glances = 0
        x, info = lk.invsqrtm(cuda.array(a), assume_a="pos", return_info=True, **options)
        assert launched.count("polynomial") == queued
        assert (cuda.looks, cuda.glances) == ((0, 0) if options else (1, 1))
        found[name] = cuda.host(x), cuda.host(info.iterations).tolist()
    assert found["easy"][1] == found["blind"][1] == [6, 6]
    assert found["mixed"][1] == [6, 6, most]
    assert found["spoiled"][1] == [0, 6, most]
    assert np.isnan(found["spoiled"][0][0]).all()
    for name, of in (("blind", slice(0, 2)), ("mixed", slice(0, 2)), ("spoiled", slice(1, 2))):
        np.testing.assert_array_equal(found[name][0][of], found["easy"][0][of])


def test_the_example_of_the_docs_runs(cuda, monkeypatch):
    """The page's lines, word by word, with the emulation's arrays for CuPy's."""
    text = (Path(__file__).parents[2] / "docs" / "gpu.rst").read_text(encoding="utf-8")
    block = re.search(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text)[1]
    code = textwrap.dedent(block).replace("8192", "40")
    if cuda.looks is not None:
        rng = np.random.default_rng(0)
        normal = SimpleNamespace(
            standard_normal=lambda shape: cuda.array(rng.standard_normal(shape))
        )
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(random=normal, ndarray=type(None)))
    names = {}
    exec(code, names)
    C, W = cuda.host(names["C"]), cuda.host(names["W"])
    np.testing.assert_allclose(W @ C @ W, np.broadcast_to(np.eye(16), C.shape), atol=1e-9)


def test_inverse_root_keeps_its_state_on_the_device(cuda):
    a = hermitian(24, np.geomspace(1e-2, 1, 24), "float64", (2,))
    root = lk.InverseRoot(4, rel_damp=1e-3)
    for k in range(3):
        now = a * (1 + 0.01 * k)
        z = root.update(cuda.array(now))
        want = expected(now, lambda w: (w + 1e-3 * w.max()) ** -0.25)
        assert type(z) is type(cuda.array(a))
        assert error(cuda.host(z), want) < 1e-9


def test_the_oracle_of_this_file_agrees_with_fifty_digits():
    a = hermitian(6, np.geomspace(1e-3, 1, 6), "float64")
    assert testing.relative_error(expected(a, np.sqrt), testing.mp_sqrtm(a)) < 1e-13


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("n", "dtype"), [(32, "float64"), (118, "float32"), (84, "float64")])
def test_large_members_in_any_order_of_threads(seed, n, dtype):
    """The largest orders a warp and a block hold; emulated only."""
    import emulated

    kappa = 1e3
    a = hermitian(n, np.geomspace(1 / kappa, 1, n), dtype, (2,))
    with emulated.device(seed=seed, flush="left" if seed else "right") as device:
        x = device.host(lk.invsqrtm(device.array(a), assume_a="pos", on_fail="nan"))
        assert device.layer.launched in (["root_warp"], ["root_block"])
    assert error(x, expected(a, lambda w: w**-0.5)) <= 10 * np.finfo(dtype).eps * kappa


@pytest.mark.parametrize("n", [3, 16, 20, 36])
@pytest.mark.parametrize("kappa", [1e2, 1e9])
def test_fused_roots_under_the_checker(n, kappa, dtype):
    """Every load and store is seen: races, bounds, unwritten shared memory."""
    import emulated

    a = hermitian(n, np.geomspace(1 / kappa, 1, n), dtype, (2,))
    a = a + 4 * n * np.finfo(dtype).eps * np.eye(n, dtype=dtype)
    with emulated.device(mode="check") as device:
        x = device.host(lk.sqrtm(device.array(a), assume_a="pos", on_fail="nan"))
    # an iteration's forward error is eps kappa^(1/2); eigenvectors' residual knows no kappa
    growth = kappa**0.5 if kappa < 1e4 else 2
    assert np.linalg.norm(x @ x - a) <= 10 * n * np.finfo(dtype).eps * growth * np.linalg.norm(a)


@pytest.mark.parametrize("n", [31, 33, 70])
def test_scan_and_tails_under_the_checker(n, dtype):
    import emulated

    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, n, n))
    a = (a + 1j * rng.standard_normal(a.shape) if np.dtype(dtype).kind == "c" else a).astype(dtype)
    with emulated.device(mode="check"):
        scan = _ops.HERMITIAN_SCAN.implementations[-1].load()
        for got, want in zip(scan(a, 1), _ops.hermitian_scan(a), strict=True):
            np.testing.assert_allclose(got, want, rtol=8 * np.finfo(dtype).eps)
        mean = _ops.SYMMETRISED.implementations[-1].load()(a.copy(), 1)
    np.testing.assert_array_equal(mean, _ops.symmetrised(a))


def test_scan_says_what_is_not_finite(cuda):
    a = np.ones((4, 40, 40))
    a[0, 3, 37], a[1, 39, 39], a[2, 39, 0] = np.nan, -np.inf, np.inf
    found = _ops.HERMITIAN_SCAN(cuda.array(a), 1)
    for x in found[:2]:
        assert np.isnan(cuda.host(x)[:3]).all()
    assert [cuda.host(x)[3] for x in found] == [1, 0, 1]
