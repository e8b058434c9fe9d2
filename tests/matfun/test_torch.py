"""PyTorch: derivatives of every order that is offered, torch.func, failures, what is refused."""

from fractions import Fraction

import numpy as np
import pytest

import linalgk as lk
from linalgk.testing import random_matrix, spd_matrix

torch = pytest.importorskip("torch")
# barriers between threads cost more than matrices of this size
torch.set_num_threads(1)
gradcheck, gradgradcheck = torch.autograd.gradcheck, torch.autograd.gradgradcheck
# torch's own, on its way to forward derivatives
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script")
DTYPES = ["float64", "complex128"]
FUNCTIONS = {
    "sqrtm": lk.sqrtm,
    "invsqrtm": lk.invsqrtm,
    "inv_root 3": lambda a, **o: lk.inv_root(a, 3, **o),
    "inv_root 4": lambda a, **o: lk.inv_root(a, 4, **o),
    "inv_root 4/3": lambda a, **o: lk.inv_root(a, Fraction(4, 3), **o),
    "powm 1.7": lambda a, **o: lk.powm(a, 1.7, **o),
    "powm 3": lambda a, **o: lk.powm(a, 3, **o),
    "powm -2": lambda a, **o: lk.powm(a, -2, **o),
    "logm": lk.logm,
}
NOISE = 1e-10
EVERY = pytest.mark.parametrize("name", FUNCTIONS)


def hermitian_part(x):
    return 0.5 * (x + x.mH)


def tensor(x, grad=True):
    x = torch.as_tensor(np.array(x))
    return x.requires_grad_() if grad else x


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def matrices(dtype="float64"):
    """Positive definite matrices, one of which is a multiple of I."""
    a = spd_matrix(2, 4.0, dtype=dtype, rng=1)
    return np.stack([a, 2 * np.eye(2, dtype=dtype)])


def repeated(dtype="float64"):
    """Eigenvalues 1, 1, 3."""
    q = np.linalg.qr(gaussian((3, 3), dtype, 5))[0]
    a = (q * np.array([1, 1, 3])) @ q.conj().T
    return 0.5 * (a + a.conj().T)


COMPLEX_OR_REAL = pytest.mark.parametrize("dtype", DTYPES)


def check(f, *inputs, second=True, fast=False):
    """Both modes, and derivatives of derivatives in two of four orders of modes.

    ``fast``: the Jacobian in one direction at random, for functions that take milliseconds, and
    whose last bits are not always the same: SciPy estimates norms with random vectors.
    """
    # defaults of gradcheck: central differences of step 1e-6, tolerances 1e-5 and 1e-3
    assert gradcheck(f, inputs, check_forward_ad=True, fast_mode=fast, nondet_tol=NOISE * fast)
    if second:
        assert gradgradcheck(f, inputs, check_fwd_over_rev=True)


# ---- gradcheck and gradgradcheck ----


@EVERY
@COMPLEX_OR_REAL
def test_functions(name, dtype):
    f = FUNCTIONS[name]
    check(lambda x: f(hermitian_part(x), assume_a="pos"), tensor(matrices(dtype)))


@EVERY
def test_functions_of_what_turns_out_hermitian(name):
    f = FUNCTIONS[name]
    check(lambda x: f(hermitian_part(x)), tensor(matrices()))


@EVERY
def test_repeated_eigenvalues(name):
    f = FUNCTIONS[name]
    check(lambda x: f(hermitian_part(x), assume_a="her"), tensor(repeated()))


@EVERY
@COMPLEX_OR_REAL
def test_general_matrices(name, dtype):
    f = FUNCTIONS[name]
    x = tensor(random_matrix(2, 3.0, basis_cond=2.0, dtype=dtype, rng=3))
    # second derivatives are functions of matrices four times as large
    products = name in ("sqrtm", "invsqrtm", "powm 3")
    check(lambda x: f(x), x, second=products, fast=not products)


@pytest.mark.parametrize("name", ["sqrtm", "invsqrtm", "inv_root 3", "inv_root 4"])
@pytest.mark.parametrize("method", ["minimax", "newton_schulz", "eigh"])
def test_methods_of_products(name, method):
    f = FUNCTIONS[name]
    x = tensor(matrices())
    check(lambda x: f(hermitian_part(x), assume_a="pos", method=method), x)


@pytest.mark.parametrize("name", ["sqrtm", "invsqrtm", "inv_root 4"])
@pytest.mark.parametrize("method", ["db", "schur"])
def test_methods_of_general_matrices(name, method):
    f = FUNCTIONS[name]
    x = tensor(random_matrix(2, 3.0, basis_cond=2.0, rng=3))
    check(lambda x: f(x, method=method), x, second=name != "inv_root 4", fast=name == "inv_root 4")


@pytest.mark.parametrize("name", ["sqrtm", "invsqrtm", "inv_root 3", "logm"])
def test_indefinite_matrices_with_complex_values(name):
    """Negative eigenvalues, whose principal value is that from above the cut."""
    f = FUNCTIONS[name]
    q = np.linalg.qr(gaussian((3, 3), "complex128"))[0]
    a = (q * np.array([2.0, -1.0, 1.0])) @ q.conj().T
    # along Hermitian directions, in which eigenvalues stay on the cut
    check(lambda x: f(hermitian_part(x), assume_a="her"), tensor(0.5 * (a + a.conj().T)))


@pytest.mark.parametrize("name", ["invsqrtm", "inv_root 3", "inv_root 4/3"])
@pytest.mark.parametrize("options", [
    {"damp": 0.5}, {"rel_damp": 0.3}, {"damp": 0.1, "rel_damp": 0.2}, {"rcond": 0.4},
])  # fmt: skip
def test_damping(name, options):
    f = FUNCTIONS[name]
    # the largest eigenvalue is a simple one, the others repeated
    for a in (spd_matrix(2, 4.0, batch=(2,), rng=1), repeated()):
        check(lambda x: f(hermitian_part(x), assume_a="pos", **options), tensor(a))


def test_relative_damping_where_the_largest_eigenvalue_is_repeated():
    """It has no derivative there; what comes out is one of its directions, and finite."""
    a, h = tensor(2 * np.eye(3)), tensor(gaussian((3, 3)), grad=False)
    (g,) = torch.autograd.grad((lk.invsqrtm(a, rel_damp=0.5) * h).sum(), a, create_graph=True)
    extra = g.detach() + 0.5 * 3**-1.5 * h
    # -1/2 (3 I)^(-3/2) (H + 0.5 tr(H) v v^T) for a unit vector v, or a mean of such
    torch.testing.assert_close(torch.trace(extra), -0.5 * 3**-1.5 * 0.5 * torch.trace(h))
    (second,) = torch.autograd.grad(g.pow(2).sum(), a)
    assert torch.isfinite(second).all()


def test_damping_that_requires_grad():
    a, damp = tensor(spd_matrix(2, 4.0, batch=(2,), rng=1)), tensor([0.3, 0.5])
    check(lambda x, d: lk.inv_root(hermitian_part(x), 4, assume_a="pos", damp=d), a, damp)
    check(lambda x, d: lk.invsqrtm(hermitian_part(x), assume_a="pos", rel_damp=d), a, damp)
    # the matrix need not require grad
    fixed = a.detach()
    check(lambda d: lk.invsqrtm(fixed, damp=d), damp)
    number = tensor(0.4)
    check(lambda d: lk.invsqrtm(fixed, damp=d), number)


@pytest.mark.parametrize(
    ("assume_a", "dtype"), [(None, "float64"), ("pos", "float64"), ("pos", "complex128")]
)
def test_equations(assume_a, dtype):
    a, b = tensor(matrices(dtype)), tensor(matrices(dtype)[0])
    q = tensor(gaussian((2, 2, 2), dtype)[:, :, :])

    def lyapunov(a, q):
        return lk.solve_lyapunov(hermitian_part(a), q, assume_a=assume_a)

    def sylvester(a, b, q):
        return lk.solve_sylvester(hermitian_part(a), hermitian_part(b), q, assume_a=assume_a)

    check(lyapunov, a, q, second=dtype == "float64")
    check(sylvester, a, b, q, second=dtype == "float64")


@COMPLEX_OR_REAL
def test_equations_of_general_matrices_broadcast(dtype):
    a = tensor(np.eye(2) + 0.3 * gaussian((2, 2), dtype))
    b = tensor(np.eye(2) + 0.3 * gaussian((2, 2, 2), dtype, 1))
    q = tensor(gaussian((2, 1, 2, 2), dtype, 2))
    check(lk.solve_lyapunov, a, q[:, 0], second=dtype == "float64")
    check(lk.solve_sylvester, a, b, q, second=False)
    check(lambda q: lk.solve_lyapunov(a.detach(), q), q)


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("side", ["right", "left"])
@COMPLEX_OR_REAL
def test_polar(shape, side, dtype):
    x = tensor(gaussian((2, *shape) if dtype == "float64" else shape, dtype))
    check(lambda x: tuple(lk.polar(x, side=side)), x)


@COMPLEX_OR_REAL
def test_polar_of_repeated_singular_values(dtype):
    q = np.linalg.qr(gaussian((3, 3), dtype))[0]
    check(lambda x: tuple(lk.polar(x)), tensor(np.stack([2 * q, q])))
    check(lambda x: tuple(lk.polar(x)), tensor(q[:, :2].copy()))


@pytest.mark.parametrize(
    "coeffs",
    ["muon", "you", "polar_express", "cans", "aol", "minimax", "prism", "auon", "hybrid_auon"],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_orthogonalize(coeffs, dtype):
    # five steps of degree five follow differences over 1e-6 to some percent of their slope
    x = tensor(gaussian((2, 2, 3), dtype))
    for shape in ((2, 2, 3), (2, 3, 2)):
        x = tensor(gaussian(shape, dtype))
        assert gradcheck(lambda x: lk.orthogonalize(x, coeffs=coeffs), (x,), atol=1e-4)
    x = tensor(gaussian((2, 5), dtype))
    if coeffs not in ("prism", "auon", "hybrid_auon"):
        assert gradcheck(
            lambda x: lk.orthogonalize(x, coeffs=coeffs, method="gram"), (x,), atol=1e-4
        )


BURES = {
    "plain": {},
    "squared": {"squared": True},
    "power": {"power": 0.5},
    "metric": {"metric": torch.as_tensor(spd_matrix(2, 3.0, rng=9))},
}


@pytest.mark.parametrize("name", BURES)
def test_bures_distance(name):
    a, b = tensor(matrices()), tensor(spd_matrix(2, 3.0, batch=(2,), rng=7))
    options = BURES[name]
    f = lambda a, b: lk.bures_distance(hermitian_part(a), hermitian_part(b), **options)  # noqa: E731
    check(f, a, b)
    check(lambda a: f(a, b.detach()), a, second=False)


def test_bures_distance_with_means_and_a_metric_that_requires_grad():
    a, b = tensor(matrices()), tensor(spd_matrix(2, 3.0, batch=(2,), rng=7))
    mean_a, mean_b = tensor(gaussian((2, 2))), tensor(gaussian((2, 2), seed=1))
    metric = tensor(spd_matrix(2, 3.0, rng=9))

    def with_means(a, b, x, y):
        a, b = hermitian_part(a), hermitian_part(b)
        return lk.bures_distance(a, b, mean_a=x, mean_b=y, squared=True)

    def with_metric(a, m):
        return lk.bures_distance(hermitian_part(a), b.detach(), metric=hermitian_part(m))

    check(with_means, a, b, mean_a, mean_b)
    check(with_metric, a, metric)


def test_bures_distance_of_complex_matrices():
    a = tensor(matrices("complex128"))
    b = torch.as_tensor(spd_matrix(2, 3.0, dtype="complex128", rng=7))
    check(lambda a: lk.bures_distance(hermitian_part(a), b, squared=True), a)


@pytest.mark.parametrize("squared", [False, True])
def test_bures_distance_of_equal_matrices(squared):
    a = tensor(matrices())
    d = lk.bures_distance(a, a.detach(), squared=squared)
    # the distance is the square root of a square of rounding size
    assert (d.detach().abs() < 1e-7).all()
    (g,) = torch.autograd.grad(d.sum(), a)
    assert torch.isfinite(g).all()
    assert g.abs().max() < 1e-6
    both = lk.bures_distance(a, a, squared=squared)
    (g,) = torch.autograd.grad(both.sum(), a)
    assert g.abs().max() < 1e-6


def test_bures_distance_of_singular_matrices():
    a = tensor(np.stack([np.diag([1.0, 0.0]), np.zeros((2, 2)), np.ones((2, 2))]))
    b = tensor(np.stack([np.diag([0.0, 1.0]), np.eye(2), np.zeros((2, 2))]))
    d = lk.bures_distance(a, b)
    want = lk.bures_distance(a.detach(), b.detach())
    torch.testing.assert_close(d.detach(), want)
    for g in torch.autograd.grad(d.sum(), (a, b)):
        assert torch.isfinite(g).all()


def test_bures_gradient_is_identity_minus_map():
    a, b = tensor(matrices()), tensor(spd_matrix(2, 3.0, batch=(2,), rng=7), grad=False)
    (g,) = torch.autograd.grad(lk.bures_distance(a, b, squared=True).sum(), a)
    torch.testing.assert_close(
        g, torch.eye(2) - lk.bures_map(a.detach(), b), rtol=1e-11, atol=1e-11
    )


# ---- torch.func ----


@EVERY
def test_transformations(name):
    f = FUNCTIONS[name]
    a, h = tensor(matrices(), grad=False), tensor(gaussian((2, 2, 2)), grad=False)
    func = torch.func

    def loss(x):
        return (f(hermitian_part(x), assume_a="pos") * h[0]).sum()

    def one(x):
        return f(hermitian_part(x), assume_a="pos")

    x = a[0].clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(func.grad(loss)(a[0]), want)
    torch.testing.assert_close(func.vmap(one)(a), f(a))
    torch.testing.assert_close(
        func.vmap(one, in_dims=1, out_dims=1)(a.movedim(0, 1)), f(a).movedim(0, 1)
    )
    torch.testing.assert_close(func.vmap(func.grad(loss))(a)[0], want)
    jacobian = torch.autograd.functional.jacobian(one, a[0])
    torch.testing.assert_close(func.jacrev(one)(a[0]), jacobian)
    torch.testing.assert_close(func.jacfwd(one)(a[0]), jacobian)
    value, tangent = func.jvp(one, (a[0],), (h[1],))
    torch.testing.assert_close(value, f(a[0]))
    torch.testing.assert_close(tangent, torch.einsum("ijkl,kl->ij", jacobian, h[1]))
    hessian = torch.autograd.functional.hessian(loss, a[0])
    torch.testing.assert_close(func.hessian(loss)(a[0]), hessian)
    torch.testing.assert_close(func.jacrev(func.jacrev(loss))(a[0]), hessian)


def test_transformations_of_equations_and_of_orthogonalize():
    func = torch.func
    a, q = tensor(matrices(), grad=False), tensor(gaussian((2, 2, 2)), grad=False)

    def solved(a, q):
        return lk.solve_lyapunov(hermitian_part(a), q, assume_a="pos")

    torch.testing.assert_close(func.vmap(solved)(a, q), lk.solve_lyapunov(a, q))
    torch.testing.assert_close(
        func.vmap(solved, in_dims=(None, 0))(a[0], q), lk.solve_lyapunov(a[0], q)
    )
    got = func.vmap(func.grad(lambda a, q: solved(a, q).sum(), argnums=(0, 1)))(a, q)
    want = [lk.grad.solve_lyapunov_vjp(x.numpy(), y.numpy(), np.ones((2, 2)), assume_a="pos")
            for x, y in zip(a, q, strict=True)]  # fmt: skip
    for k in range(2):
        torch.testing.assert_close(got[0][k], torch.as_tensor(want[k][1]))
        torch.testing.assert_close(got[1][k], torch.as_tensor(want[k][2]))
    both = func.jacfwd(solved)(a[0], q[0]), func.jacrev(solved)(a[0], q[0])
    torch.testing.assert_close(*both)
    torch.testing.assert_close(func.vmap(lk.orthogonalize)(q), lk.orthogonalize(q))
    g = func.vmap(func.grad(lambda x: (lk.orthogonalize(x) ** 3).sum()))(q)
    x = q.clone().requires_grad_()
    (want,) = torch.autograd.grad((lk.orthogonalize(x) ** 3).sum(), x)
    torch.testing.assert_close(g, want)


def test_transformations_of_polar_and_bures():
    func = torch.func
    g = tensor(gaussian((2, 3, 2)), grad=False)
    jacobians = [func.vmap(j(lambda x: tuple(lk.polar(x))))(g) for j in (func.jacfwd, func.jacrev)]
    torch.testing.assert_close(*jacobians)
    a, b = (tensor(spd_matrix(2, 3.0, batch=(2,), rng=k), grad=False) for k in (1, 2))

    def loss(a, b):
        return lk.bures_distance(hermitian_part(a), b)

    torch.testing.assert_close(func.vmap(loss)(a, b), lk.bures_distance(a, b), rtol=1e-7, atol=1e-7)
    got = func.vmap(func.grad(loss))(a, b)
    x = a.clone().requires_grad_()
    (want,) = torch.autograd.grad(lk.bures_distance(x, b).sum(), x)
    torch.testing.assert_close(got, hermitian_part(want))
    hessian = func.hessian(loss)(a[0], b[0])
    torch.testing.assert_close(func.jacrev(func.jacrev(loss))(a[0], b[0]), hessian)


# ---- values, precision, options ----


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_values_are_those_without_grad(name, dtype):
    f, a = FUNCTIONS[name], spd_matrix(5, 100.0, batch=(2, 3), dtype=dtype, rng=0)
    x = tensor(a)
    got = f(x)
    assert got.requires_grad
    assert got.dtype == x.dtype
    want = f(x.detach())
    eps = float(np.finfo(dtype).eps)
    # condition 100, to the power -2 at most
    assert (got.detach() - want).abs().max() <= 1e3 * eps * 100 * want.abs().max()
    got.abs().sum().backward()
    assert x.grad.dtype == x.dtype
    assert torch.isfinite(x.grad.abs()).all()


@EVERY
def test_gradients_equal_those_by_hand(name):
    if name.startswith("powm"):
        pytest.skip("no powm_vjp is offered by hand; gradcheck covers it")
    a, h = spd_matrix(4, 10.0, batch=(2,), rng=0), gaussian((2, 4, 4))
    x = tensor(a)
    (got,) = torch.autograd.grad(FUNCTIONS[name](x), x, torch.as_tensor(h))
    stem, _, p = name.partition(" ")
    run = getattr(lk.grad, f"{stem}_vjp")
    want = run(a, *([Fraction(p)] if p else []), h).derivative
    torch.testing.assert_close(got, torch.as_tensor(want), rtol=1e-12, atol=1e-12)
    # by hand on tensors
    again = run(x.detach(), *([Fraction(p)] if p else []), torch.as_tensor(h)).derivative
    torch.testing.assert_close(again, got, rtol=1e-12, atol=1e-12)


def test_info_under_grad():
    x = tensor(spd_matrix(4, 10.0, batch=(3,), rng=0))
    for f in (lk.sqrtm, lk.invsqrtm, lk.logm, FUNCTIONS["inv_root 4"]):
        value, info = f(x, return_info=True)
        want = f(x.detach(), return_info=True)[1]
        assert value.requires_grad
        assert info.converged.tolist() == [True] * 3
        assert info.residual.shape == want.residual.shape
        assert not info.residual.requires_grad
    value, info = lk.solve_lyapunov(x, x, return_info=True)
    assert value.requires_grad
    assert info.converged.all()
    value, info = lk.orthogonalize(x, return_info=True)
    assert value.requires_grad
    assert info.converged.all()


def test_precision_of_the_computation():
    a = spd_matrix(4, 1e5, dtype="float32", rng=0)
    x = tensor(a)
    wide, narrow = lk.invsqrtm(x, compute_dtype="float64"), lk.invsqrtm(x)
    assert wide.dtype == narrow.dtype == torch.float32
    (g,) = torch.autograd.grad(wide, x, torch.ones(4, 4))
    want = lk.grad.invsqrtm_vjp(a.astype("float64"), np.ones((4, 4))).derivative
    # computed in double precision, rounded once to single
    np.testing.assert_allclose(g.numpy(), want, rtol=0, atol=2e-7 * np.abs(want).max())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision(half):
    g = torch.as_tensor(gaussian((3, 4))).to(half).requires_grad_()
    u = lk.orthogonalize(g)
    assert u.dtype == half
    u.float().pow(3).sum().backward()
    assert g.grad.dtype == half
    assert torch.isfinite(g.grad).all()
    x = torch.eye(3, dtype=half)
    with pytest.raises(TypeError, match=r"a: dtype must be float32.*got .*float16"):
        lk.sqrtm(x.requires_grad_())


def test_what_comes_in_is_not_changed():
    a = tensor(spd_matrix(3, batch=(2,), rng=0).transpose(0, 2, 1))
    before = a.detach().clone()
    lk.sqrtm(a).sum().backward()
    torch.testing.assert_close(a.detach(), before, rtol=0, atol=0)
    wide = torch.zeros(6, 6, dtype=torch.float64)
    wide[::2, ::2] = before[0]
    view = wide[::2, ::2].requires_grad_()
    lk.sqrtm(view).sum().backward()
    torch.testing.assert_close(view.grad, a.grad[0])
    empty = torch.zeros(0, 3, 3, dtype=torch.float64, requires_grad=True)
    lk.invsqrtm(empty).sum().backward()
    assert empty.grad.shape == (0, 3, 3)
    number = tensor(4.0)
    lk.sqrtm(number).backward()
    assert number.grad == 0.25


def test_no_grad_returns_plain_results():
    x = tensor(spd_matrix(3, 10.0, rng=0))
    with torch.no_grad():
        y = lk.sqrtm(x)
        assert not y.requires_grad
        u = lk.polar(x)
        assert not u.U.requires_grad
        assert not lk.bures_distance(x, 2 * x).requires_grad
        assert not lk.orthogonalize(x).requires_grad
        assert not lk.solve_lyapunov(x, x).requires_grad
        assert not lk.signm(x).requires_grad
        assert not lk.bures_map(x, x).requires_grad
    with torch.inference_mode():
        assert not lk.logm(x).requires_grad
    torch.testing.assert_close(y, lk.sqrtm(x.detach()), rtol=0, atol=0)
