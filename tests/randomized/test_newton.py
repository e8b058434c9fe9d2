"""``pinv(method="newton")``: schedule, batches of Gram matrices, derivatives in two libraries."""

import numpy as np
import pytest
from spectra import EPS, gaussian

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NotConvergedError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script")


def conditioned(m, n, kappa, dtype="float64", seed=0, rank=None):
    wide = np.result_type(dtype, "float64")
    s = np.geomspace(1, 1 / kappa, rank or min(m, n))
    u = np.linalg.qr(gaussian((m, len(s)), wide, seed))[0]
    v = np.linalg.qr(gaussian((n, len(s)), wide, seed + 1))[0]
    return ((u * s) @ v.conj().T).astype(dtype), (v / s) @ u.conj().T


def attention(batch, m, dtype="float64", seed=0):
    """Gaussian kernels plus 0.01 I, as in softmax-free attention."""
    x = gaussian((*batch, m, 16), seed=seed) / 4
    squares = ((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1)
    return (np.exp(-squares / 2) + 0.01 * np.eye(m)).astype(dtype)


def distance(x, y):
    return np.linalg.norm(np.asarray(x) - y) / np.linalg.norm(y)


def newton(a, **words):
    return lk.pinv(a, method="newton", **words)


# --- The iteration -------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [0.3, 1e-2, 1e-8, 2e-16])
def test_the_schedule_serves_its_interval(low):
    """Every eigenvalue from low to 1 ends in [1/2, 3/2] and stays there or rises, by 20 or so."""
    from linalgk.randomized._newton import schedule

    x = np.concatenate([np.geomspace(low, 1, 4001), np.linspace(low, 1, 4001)])
    table = schedule(low)
    for coeffs in table:
        y = x * np.polynomial.polynomial.polyval(x, coeffs)
        assert (y > 0.99 * np.minimum(x, 0.5)).all()
        x = y
    assert x.min() >= 0.5 - 1e-9
    assert x.max() <= 1.5 + 1e-9
    # a step multiplies by twenty at least
    assert len(table) <= np.ceil(np.log(1 / low) / np.log(20)) + 1


@pytest.mark.parametrize("shape", [(12, 12), (20, 12), (12, 20)])
@pytest.mark.parametrize("kappa", [10.0, 1e3, 1e6])
def test_errors_are_eps_times_the_condition(shape, kappa, dtype):
    if EPS[dtype] * kappa > 1e-2:
        kappa = 1e2
    a, _ = conditioned(*shape, kappa, dtype)
    wanted = np.linalg.pinv(a.astype(np.result_type(dtype, "float64")))
    x, info = newton(a, return_info=True)
    assert distance(x, wanted) < 20 * EPS[dtype] * kappa
    assert distance(x, wanted) < 20 * info.error_estimate
    assert info.error_estimate < 20 * EPS[dtype] * kappa
    # 12 or 6 steps of the schedule, two that square what is left, and the last
    assert info.iterations <= (16 if EPS[dtype] < 1e-10 else 10)
    assert info.rank == 12


def test_conditions_beyond_the_schedule_take_more_steps():
    a, wanted = conditioned(20, 15, 1e10)
    x, info = newton(a, rcond=1e-12, return_info=True)
    assert distance(x, wanted) < 20 * 1e10 * EPS["float64"]
    less, other = newton(a, rcond=1e-2, return_info=True)
    assert info.rank == 15
    assert other.iterations >= 1
    assert np.isfinite(less).all()


@pytest.mark.parametrize("shape", [(30, 30), (40, 30), (30, 40)])
def test_null_spaces_stay_null(shape, dtype):
    """Every step multiplies the rounding there; the last one takes it away."""
    a, wanted = conditioned(*shape, 10, dtype, rank=4)
    x, info = newton(a, return_info=True)
    assert info.rank == 4
    assert distance(x, wanted) < 300 * EPS[dtype] * 10
    a = np.asarray(a, np.result_type(dtype, "float64"))
    assert np.linalg.norm(a @ x @ a - a) < 300 * EPS[dtype] * 10


def test_each_member_has_its_own_scale_and_end():
    a = np.stack([conditioned(9, 7, k, seed=i)[0] for i, k in enumerate([2.0, 1e3, 1e6])])
    sizes = np.array([1e-120, 1.0, 1e120])[:, None, None]
    x, info = newton(a * sizes, return_info=True)
    for i in range(3):
        alone, told = newton(a[i] * sizes[i], return_info=True)
        assert np.array_equal(x[i], alone)
        assert info.iterations[i] == told.iterations
        assert distance(x[i] * sizes[i], np.linalg.pinv(a[i])) < 1e-9


def test_steps_and_tolerance():
    a, wanted = conditioned(20, 15, 10.0)
    errors = []
    for steps in (2, 5, 8, 15):
        x, info = newton(a, steps=steps, return_info=True)
        assert info.iterations == steps
        errors.append(distance(x, wanted))
    assert errors[0] > 0.1
    assert errors[2] > 1e-4  # the schedule is for conditions up to 7e7
    assert errors[-1] < 1e-12
    # V_0 = alpha A^H and (3 R - 2 R^2) V_0
    bound = min(
        np.linalg.norm(a, 1) * np.linalg.norm(a, np.inf), np.linalg.norm(a) ** 2
    ) * 1.01  # fmt: skip
    start = a.T / bound
    r = start @ a
    assert distance(newton(a, steps=1), (3 * r - 2 * r @ r) @ start) < 1e-12
    for tol in (1e-2, 1e-5, 1e-10):
        x, info = newton(a, tol=tol, rcond=1e-2, return_info=True)
        assert distance(x, wanted) < 3 * tol
    exact = newton(a, rcond=1e-2, return_info=True)[1]
    assert newton(a, rcond=1e-2, tol=1e-2, return_info=True)[1].iterations < exact.iterations


def test_what_does_not_converge(monkeypatch):
    from linalgk.randomized import _newton

    monkeypatch.setattr(_newton, "MOST", 16)
    # beyond the schedule, whose cut is 1.5e-8, but not so far that it counts as zero
    # (turned around, so that they are not Hermitian)
    a = np.stack([np.eye(4), np.diag([1, 1, 1, 3e-10])])[:, ::-1]
    with pytest.raises(NotConvergedError, match=r"\(1,\)"):
        newton(a)
    with pytest.warns(ConvergenceWarning, match="svd"):
        x, info = newton(a, on_fail="warn", return_info=True)
    assert info.converged.tolist() == [True, False]
    assert info.residual[1] > 1e-3 > info.residual[0]
    y = newton(a, on_fail="nan")
    assert np.isnan(y[1]).all()
    assert np.array_equal(x[0], y[0])


# --- Hermitian members ---------------------------------------------------------------------------


@pytest.mark.parametrize("m", [5, 49, 64])
def test_kernels_of_attention(m, dtype):
    if np.dtype(dtype).kind == "c":
        pytest.skip("the Gaussian kernels of attention are real matrices")
    a = attention((2, 3), m, dtype)
    wanted = np.linalg.inv(a.astype("float64"))
    kappa = np.linalg.cond(a.astype("float64")).max()
    direct, info = newton(a, hermitian=True, return_info=True)
    assert not info.iterations.any()
    # equal to their adjoints: nobody has to say so
    assert np.array_equal(newton(a), direct)
    iterated, info = newton(a, rcond=EPS[dtype] ** 0.5, return_info=True)
    assert info.iterations.all()
    for x in (direct, iterated):
        assert distance(x, wanted) < 20 * EPS[dtype] * kappa
    assert np.array_equal(direct, np.swapaxes(direct, -1, -2))
    # steps= iterates here as well
    assert (newton(a, hermitian=True, steps=4, return_info=True)[1].iterations == 4).all()


def test_singular_and_indefinite_members_are_iterated():
    a = attention((4,), 12)
    a[1] = 1.0  # rank one
    a[2] = np.diag(np.where(np.arange(12) % 2, 1.0, -2.0))
    a[3] = 0
    x, info = newton(a, hermitian=True, return_info=True)
    assert info.rank.tolist() == [12, 1, 12, 0]
    assert (info.iterations > 0).tolist() == [False, True, False, True]
    assert distance(x, np.linalg.pinv(a)) < 1e-12
    for i in range(4):
        assert np.array_equal(x[i], newton(a[i], hermitian=True))


def test_hermitian_members_of_libraries(xp):
    a = attention((3,), 10)
    a[1] = 1.0
    given = xp.asarray(a)
    for words in ({}, {"hermitian": True}):
        x = newton(given, **words)
        assert type(x) is type(given)
        assert distance(lk.testing.to_numpy(x), np.linalg.pinv(a)) < 1e-12


# --- Derivatives ---------------------------------------------------------------------------------


def differences(a, da, step=1e-5):
    """Central differences of NumPy's pseudoinverse, error about step^2."""
    plus, minus = (np.linalg.pinv(a + s * step * da, rcond=1e-3) for s in (1, -1))
    return (plus - minus) / (2 * step)


def direction(a, seed):
    """One that keeps the rank: ``E A + A F``."""
    m, n = a.shape[-2:]
    return gaussian((m, m), a.dtype, seed) @ a + a @ gaussian((n, n), a.dtype, seed + 1)


CASES = [(5, 3, 3), (3, 5, 3), (4, 4, 4), (6, 5, 2)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_torch_derivatives_are_those_of_numpy(case, dtype):
    torch = pytest.importorskip("torch")
    m, n, rank = case
    a = conditioned(m, n, 3.0, dtype, rank=rank)[0]
    da = direction(a, 5)
    wanted = differences(a, da)
    g = gaussian((n, m), dtype, 9)
    given = torch.tensor(a, requires_grad=True)
    x = newton(given)
    x.backward(torch.tensor(g))
    dot = np.sum(given.grad.numpy().conj() * da).real
    assert abs(dot - np.sum(g.conj() * wanted).real) < 1e-7 * np.linalg.norm(wanted)
    tangent = torch.func.jvp(newton, (torch.tensor(a),), (torch.tensor(da),))[1]
    assert distance(tangent.numpy(), wanted) < 1e-7


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 3), (2, 3, 2)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_torch_derivatives_of_both_orders(shape, dtype):
    torch = pytest.importorskip("torch")
    a = torch.tensor(gaussian(shape, dtype), requires_grad=True)
    assert torch.autograd.gradcheck(newton, (a,))
    assert torch.autograd.gradgradcheck(newton, (a,))


def test_torch_derivatives_of_kernels():
    torch = pytest.importorskip("torch")
    a = torch.tensor(attention((2, 2), 6), requires_grad=True)

    def inverse(a):
        return newton(a, hermitian=True)

    assert torch.autograd.gradcheck(inverse, (a,))
    assert torch.autograd.gradgradcheck(inverse, (a,))
    # -V^H G V^H, Hermitian part
    g = torch.tensor(gaussian((2, 2, 6, 6)))
    x = inverse(a)
    (got,) = torch.autograd.grad(x, a, g)
    wanted = -(x.mH @ g @ x.mH).detach()
    wanted = 0.5 * (wanted + wanted.mH)
    assert distance(got.numpy(), wanted.numpy()) < 1e-11

    def loss(a):
        return (inverse(a) ** 2).sum()

    flat = a.detach().reshape(4, 6, 6)
    each = torch.func.vmap(torch.func.grad(loss))(flat)
    whole = torch.func.grad(loss)(flat)
    assert distance(each.numpy(), whole.numpy()) < 1e-14
    moved = torch.func.vmap(inverse, in_dims=1)(flat.movedim(0, 1))
    assert torch.equal(moved, inverse(flat))


def test_torch_members_that_fail_spoil_no_other():
    torch = pytest.importorskip("torch")
    a = torch.tensor(gaussian((2, 4, 3)), requires_grad=True)
    b = a.detach().clone()
    b[0, 0, 0] = torch.nan
    b.requires_grad_()
    for given in (a, b):
        x = newton(given, on_fail="nan")
        (torch.where(torch.isnan(x), 0, x) ** 2)[1].sum().backward()
    assert torch.equal(a.grad[1], b.grad[1])
    assert not b.grad[0].any()


def test_torch_refuses_what_has_no_derivative():
    torch = pytest.importorskip("torch")
    a = torch.tensor(gaussian((4, 3)), requires_grad=True)
    for method in ("auto", "svd", "cod", "randomized"):
        with pytest.raises(TypeError, match="newton"):
            lk.pinv(a, method=method)
    with pytest.raises(TypeError, match="memory of its own"):
        newton(a, out=torch.empty(3, 4, dtype=a.dtype))
    with pytest.raises(ValueError, match="at least"):
        newton(a, tol=1e-30)
    x, info = newton(a, return_info=True)
    assert x.requires_grad
    assert info.rank == 3
    with torch.no_grad():
        assert not lk.pinv(a, method="svd").requires_grad


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch's own
def test_torch_compile():
    torch = pytest.importorskip("torch")
    a = torch.tensor(attention((2,), 6), requires_grad=True)

    def loss(a):
        return (newton(a, hermitian=True) ** 2).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(compiled(a), a)
    (wanted,) = torch.autograd.grad(loss(a), a)
    assert distance(got.numpy(), wanted.numpy()) < 1e-13


@pytest.fixture
def jax():
    found = pytest.importorskip("jax")
    found.config.update("jax_enable_x64", True)
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_jax_derivatives_are_those_of_numpy(jax, case, dtype):
    m, n, rank = case
    a = conditioned(m, n, 3.0, dtype, rank=rank)[0]
    da = direction(a, 5)
    wanted = differences(a, da)
    g = gaussian((n, m), dtype, 9)

    @jax.jit
    def both(a, da, g):
        x, tangent = jax.jvp(newton, (a,), (da,))
        return x, tangent, jax.vjp(newton, a)[1](g)[0]

    x, tangent, back = both(a, da, g.conj())
    assert distance(x, np.linalg.pinv(a, rcond=1e-3)) < 1e-12
    assert distance(tangent, wanted) < 1e-7
    dot = np.sum(np.asarray(back) * da).real
    assert abs(dot - np.sum(g.conj() * wanted).real) < 1e-7 * np.linalg.norm(wanted)


@pytest.mark.slow
def test_jax_second_derivatives(jax):
    from jax.test_util import check_grads

    check_grads(newton, (gaussian((5, 3)),), 2)
    check_grads(lambda x: newton(x, hermitian=True), (attention((), 3),), 2)


def test_jax_transformations(jax):
    a = jax.numpy.asarray(gaussian((3, 5, 3)))
    wanted = np.linalg.pinv(np.asarray(a))
    for found in (jax.jit(newton)(a), jax.vmap(newton)(a), jax.jit(jax.vmap(newton))(a)):
        assert distance(found, wanted) < 1e-12

    def loss(a):
        return (newton(a) ** 2).sum()

    each = jax.jit(jax.vmap(jax.grad(loss)))(a)
    assert distance(each, jax.jit(jax.grad(loss))(a)) < 1e-12
    single = jax.jit(newton)(a.astype("float32"))
    assert single.dtype == "float32"
    assert distance(single, wanted) < 1e-4
    deficient = conditioned(9, 9, 10.0, rank=3)
    assert distance(jax.jit(newton)(deficient[0]), deficient[1]) < 1e-11
    kernels = attention((2,), 12)
    got = jax.jit(lambda x: newton(x, hermitian=True))(kernels)
    assert distance(got, np.linalg.inv(kernels)) < 1e-11


def test_jax_tells_what_it_cannot(jax):
    a = jax.numpy.asarray(gaussian((2, 4, 3)))
    for words, kind, text in (
        ({"method": "svd"}, TypeError, "newton"),
        ({"method": "newton", "return_info": True}, TypeError, "return_info"),
        ({"method": "newton", "tol": 1e-30}, ValueError, "at least"),
        ({"method": "newton", "hermitian": True}, ValueError, "n, n"),
    ):
        with pytest.raises(kind, match=text):
            jax.jit(lambda x, words=words: lk.pinv(x, **words))(a)
    bad = a.at[0, 0, 0].set(jax.numpy.nan)
    x = jax.jit(newton)(bad)
    assert np.isnan(x[0]).all()
    assert distance(x[1], np.linalg.pinv(np.asarray(a[1]))) < 1e-12
    # too few steps for the smallest singular value
    hard = jax.numpy.asarray(np.diag([1.0, 1e-8 / 30]))
    assert np.isnan(jax.jit(newton)(hard)).all()
    assert jax.jit(newton)(jax.numpy.zeros((2, 0, 3))).shape == (2, 3, 0)
