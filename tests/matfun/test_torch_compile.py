"""PyTorch: torch.compile, what is refused, and failures beside members that are fine."""

import shutil
from fractions import Fraction

import numpy as np
import pytest

import linalgk as lk
from linalgk.testing import random_matrix, spd_matrix

torch = pytest.importorskip("torch")
# barriers between threads cost more than matrices of this size
torch.set_num_threads(1)
pytestmark = [
    # torch's own, on its way to forward derivatives and through a compiled function
    pytest.mark.filterwarnings("ignore:.torch.jit.script"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated"),
]


def tensor(x, grad=True):
    x = torch.as_tensor(np.array(x))
    return x.requires_grad_() if grad else x


def gaussian(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def spd(n=3, batch=(2,), grad=True, **options):
    return tensor(spd_matrix(n, 10.0, batch=batch, rng=1, **options), grad)


# ---- torch.compile ----

COMPILED = {
    "sqrtm": lambda a: lk.sqrtm(a, assume_a="pos"),
    "sqrtm minimax": lambda a: lk.sqrtm(a, assume_a="pos", method="minimax"),
    "sqrtm db": lambda a: lk.sqrtm(a, assume_a="gen"),
    "invsqrtm": lambda a: lk.invsqrtm(a, assume_a="pos", damp=0.1, rel_damp=0.1),
    "inv_root": lambda a: lk.inv_root(a, 4, assume_a="her", rcond=1e-3),
    "powm": lambda a: lk.powm(a, 1.5, assume_a="pos"),
    "powm integer": lambda a: lk.powm(a, 3, assume_a="gen"),
    "logm": lambda a: lk.logm(a, assume_a="pos"),
    "logm general": lambda a: lk.logm(a, assume_a="gen"),
    "solve_lyapunov": lambda a: lk.solve_lyapunov(a, a @ a, assume_a="pos"),
    "solve_sylvester": lambda a: lk.solve_sylvester(a, 2 * a, a @ a, assume_a="pos"),
    "orthogonalize": lambda a: lk.orthogonalize(a),
    "orthogonalize steps": lambda a: lk.orthogonalize(a[..., :2], coeffs="muon", steps=3),
    "polar": lambda a: lk.polar(a[..., :2]).U,
    "polar left": lambda a: lk.polar(a[..., :2], side="left").H,
    "bures_distance": lambda a: lk.bures_distance(a, 2 * a + torch.eye(3, dtype=a.dtype)),
}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", COMPILED)
def test_compiled(name):
    """The same values and gradients, the whole graph in one piece."""
    f, a = COMPILED[name], spd()
    run = torch.compile(f, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        plain = run(a.detach())
    want = f(a)
    # condition 10; the distance is the root of a difference that cancels
    close = (
        {"rtol": 1e-7, "atol": 1e-7} if name == "bures_distance" else {"rtol": 1e-10, "atol": 1e-10}
    )
    torch.testing.assert_close(plain, want.detach(), **close)
    assert not plain.requires_grad
    got = run(a)
    assert got.requires_grad
    torch.testing.assert_close(got.detach(), want.detach(), **close)
    h = tensor(gaussian(tuple(want.shape), 3), grad=False)
    (expected,) = torch.autograd.grad(want, a, h)
    (found,) = torch.autograd.grad(got, a, h)
    torch.testing.assert_close(found, expected, **close)


def test_the_step_of_muon_compiles():
    fast = torch.compile(lambda g: lk.orthogonalize(g), fullgraph=True, backend="aot_eager")
    for dtype in (torch.float32, torch.bfloat16):
        g = torch.as_tensor(gaussian((4, 6))).to(dtype)
        u = fast(g)
        assert u.dtype == dtype
        torch.testing.assert_close(u, lk.orthogonalize(g))
    # a graph may hold a loss around it, and shapes may change
    loss = torch.compile(
        lambda g: (lk.orthogonalize(g) ** 3).sum(), fullgraph=True, backend="aot_eager"
    )
    for shape in ((3, 4), (5, 2), (2, 3, 4)):
        x = tensor(gaussian(shape))
        (got,) = torch.autograd.grad(loss(x), x)
        (want,) = torch.autograd.grad((lk.orthogonalize(x) ** 3).sum(), x)
        torch.testing.assert_close(got, want)


@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_the_compiler_of_torch():
    a = spd()
    run = torch.compile(lambda a: torch.exp(lk.sqrtm(2 * a, assume_a="pos")) + 1, fullgraph=True)
    want = torch.exp(lk.sqrtm(2 * a, assume_a="pos")) + 1
    torch.testing.assert_close(run(a), want)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda a: lk.sqrtm(a), "assume_a must be given"),
        (lambda a: lk.solve_lyapunov(a, a), "assume_a must be given"),
        (lambda a: lk.sqrtm(a, assume_a="pos", return_info=True), "return_info"),
        (lambda a: lk.orthogonalize(a, return_info=True), "return_info"),
        (lambda a: lk.inv_root(a, Fraction(4, 3), assume_a="pos"), "p: must be a positive int"),
        (lambda a: lk.logm(a, assume_a="pos", method="minimax"), "method"),
        (lambda a: lk.signm(a, assume_a="pos"), "signm"),
    ],
)
def test_what_does_not_compile(call, text):
    # the compiler wraps the sentence into an error of its own
    with pytest.raises(Exception, match=text):
        torch.compile(call, fullgraph=True, backend="aot_eager")(spd(grad=False))


# ---- what is refused ----

ROOTS = lk.InverseRoot(4)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: lk.signm(a),
        lambda a: lk.signm(a, assume_a="pos", method="minimax"),
        lambda a: lk.bures_map(a, a.detach()),
        lambda a: lk.bures_map(a.detach(), a),
        lambda a: lk.bures_barycenter(a),
        lambda a: lk.bures_barycenter(list(a)),
        lambda a: ROOTS.update(a),
        lambda a: lk.sqrtm(a, out=torch.empty_like(a)),
        lambda a: lk.orthogonalize(a, out=torch.empty_like(a)),
        lambda a: lk.bures_distance(a, a, return_info=True),
        lambda a: lk.grad.sqrtm_jvp(a, a.detach()),
        lambda a: lk.grad.invsqrtm_vjp(a.detach(), a),
    ],
)
def test_no_derivative_is_lost_silently(call):
    with pytest.raises(TypeError):
        call(spd())


def test_what_torch_itself_refuses():
    with pytest.raises(RuntimeError, match="floating point"):
        torch.eye(3, dtype=torch.int64).requires_grad_()
    # integers without grad are computed in double precision, also beside a tensor with grad
    x = lk.solve_lyapunov(torch.eye(2, dtype=torch.int64), spd(2, ()))
    assert x.dtype == torch.float64
    assert x.requires_grad


def test_options_are_checked_under_grad():
    a = spd()
    for call, text in [
        (lambda: lk.sqrtm(a[..., :2]), "shape"),
        (lambda: lk.sqrtm(a, assume_a="symmetric"), "assume_a"),
        (lambda: lk.sqrtm(a, method="qr"), "method"),
        (lambda: lk.sqrtm(a, on_fail="ignore"), "on_fail"),
        (lambda: lk.invsqrtm(a, damp=-1.0), "damp"),
        (lambda: lk.invsqrtm(a, damp=[0.1, 0.2, 0.3]), "damp"),
        (lambda: lk.inv_root(a, 0), "p"),
        (lambda: lk.solve_lyapunov(a, a[..., :2]), "q"),
        (lambda: lk.solve_sylvester(a, a, a, method="qr"), "method"),
        (lambda: lk.orthogonalize(a, coeffs="best"), "coeffs"),
        (lambda: lk.polar(a, side="above"), "side"),
        (lambda: lk.polar(a, method="qr"), "method"),
        (lambda: lk.bures_distance(a, a[..., :2, :2]), "order"),
        (lambda: lk.bures_distance(a, a, mean_a=a[..., 0]), "mean_a"),
        (lambda: lk.bures_distance(a, a, power=0.0), "power"),
    ]:
        with pytest.raises(ValueError, match=text):
            call()


def test_devices_and_libraries_do_not_mix():
    a, elsewhere = spd(), torch.empty(2, 3, 3, dtype=torch.float64, device="meta")
    for call in (
        lambda: lk.solve_lyapunov(a, elsewhere),
        lambda: lk.solve_sylvester(a, a, elsewhere),
        lambda: lk.bures_distance(a, elsewhere),
        lambda: lk.sqrtm(elsewhere.requires_grad_()),
        lambda: lk.invsqrtm(a, damp=torch.empty(2, device="meta")),
        lambda: lk.solve_lyapunov(a, np.eye(3)),
        lambda: lk.bures_distance(a, np.eye(3)),
        lambda: lk.bures_distance(np.eye(3), a),
    ):
        with pytest.raises(TypeError):
            call()


def test_third_derivatives_are_refused():
    x = spd(2, ())
    (g,) = torch.autograd.grad(lk.sqrtm(x, assume_a="pos").sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.pow(2).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        torch.autograd.grad(h.sum(), x)


def test_derivatives_of_any_order_without_a_promise():
    h = tensor(gaussian((2, 2)), grad=False)
    y = tensor(spd_matrix(2, 4.0, rng=0), grad=False)

    def hessian(x):
        return torch.func.hessian(lambda x: (lk.sqrtm(x, assume_a="gen") * h).sum())(x)

    third = torch.func.jacrev(hessian)(y)
    e, step = torch.zeros_like(y), 1e-4
    e[0, 1] = step
    want = (hessian(y + e) - hessian(y - e)) / (2 * step)
    # h^2 of the fifth derivative and eps/h
    torch.testing.assert_close(third[..., 0, 1], want, rtol=1e-5, atol=1e-6)


# ---- failures ----


@pytest.mark.parametrize(
    ("f", "bad", "error"),
    [
        (lk.sqrtm, -np.eye(3), lk.errors.NotPositiveSemidefiniteError),
        (lk.logm, -np.eye(3), lk.errors.NotPositiveSemidefiniteError),
        (lk.invsqrtm, np.ones((3, 3)), lk.errors.SingularMatrixError),
        (lambda a, **o: lk.inv_root(a, 4, **o), np.zeros((3, 3)), lk.errors.SingularMatrixError),
        (lk.sqrtm, np.full((3, 3), np.nan), lk.errors.NonFiniteError),
        (lk.polar, np.full((3, 3), np.inf), lk.errors.NonFiniteError),
        (lk.orthogonalize, np.full((3, 3), np.nan), lk.errors.NonFiniteError),
        (lambda a, **o: lk.bures_distance(a, a.detach(), **o), -np.eye(3),
         lk.errors.NotPositiveSemidefiniteError),
        (lambda a, **o: lk.solve_lyapunov(a, a.detach(), **o), np.diag([1.0, -1.0, 2.0]),
         lk.errors.SingularMatrixError),
    ],
)  # fmt: skip
def test_a_bad_member(f, bad, error):
    """An error by name; with "nan" the others are as they were, and their gradients."""
    a = spd_matrix(3, 10.0, batch=(3,), rng=0)
    a[1] = bad
    x = tensor(a)
    with pytest.raises(error) as caught:
        f(x)
    assert caught.value.index == ((1,),)
    with pytest.warns(lk.errors.ConvergenceWarning):
        f(x, on_fail="warn")
    y = f(x, on_fail="nan")
    y = y[1] if isinstance(y, tuple) else y
    good = y.detach()[[0, 2]]
    want = f(tensor(a[[0, 2]]))
    want = want[1] if isinstance(want, tuple) else want
    torch.testing.assert_close(good, want.detach(), rtol=1e-11, atol=1e-11)
    assert torch.isnan(y[1].detach()).all()
    # the mask that everybody writes
    mask = torch.tensor([True, False, True]).reshape(3, *[1] * (y.ndim - 1))
    torch.where(mask, y, 0.0).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1].any()
    again = tensor(a[[0, 2]])
    f(again)[1].sum().backward() if isinstance(f(again), tuple) else f(again).sum().backward()
    torch.testing.assert_close(x.grad[[0, 2]], again.grad, rtol=1e-9, atol=1e-9)


def test_parameters_behind_a_bad_member_stay_finite():
    """Where the network makes NaN itself, its own gradient is the network's affair."""
    w = tensor(np.array(2.0))
    a = spd_matrix(3, 10.0, batch=(3,), rng=0)
    a[1] = -np.eye(3)
    root = lk.sqrtm(w * tensor(a, grad=False), on_fail="nan")
    good = torch.isfinite(root.detach()).all(-1).all(-1)
    assert good.tolist() == [True, False, True]
    torch.where(good[:, None, None], root, 0.0).sum().backward()
    want = lk.sqrtm(tensor(a[[0, 2]], grad=False)).sum() * 0.5 / 2**0.5
    torch.testing.assert_close(w.grad, want)


def test_general_members_that_fail():
    a = random_matrix(3, 5.0, batch=(2,), rng=0)
    a[1] = np.diag([1.0, -1.0, 2.0]) + np.triu(np.ones((3, 3)), 1)
    x = tensor(a)
    with pytest.raises(lk.errors.NoRealRootError):
        lk.sqrtm(x)
    y = lk.sqrtm(x, on_fail="nan")
    torch.where(torch.isnan(y.detach()), 0.0, y).sum().backward()
    assert not x.grad[1].any()
    one = tensor(a[0])
    lk.sqrtm(one).sum().backward()
    torch.testing.assert_close(x.grad[0], one.grad)


def test_finite_answers_have_finite_gradients():
    singular = np.stack([np.diag([1.0, 0.0, 0.0]), np.zeros((3, 3)), np.ones((3, 3)), np.eye(3)])
    for f in (
        lambda x: lk.sqrtm(x),
        lambda x: lk.sqrtm(x, assume_a="pos", method="minimax"),
        lambda x: lk.invsqrtm(x, damp=1e-3),
        lambda x: lk.invsqrtm(x + 1e-3 * torch.eye(3), rel_damp=1e-2),
        lambda x: lk.invsqrtm(x, rcond=1e-10),
        lambda x: lk.powm(x, 0.3),
        lambda x: lk.powm(x, 2.5),
        lambda x: lk.polar(x).U,
        lambda x: lk.polar(x).H,
        lambda x: lk.orthogonalize(x),
        lambda x: lk.bures_distance(x, torch.eye(3, dtype=x.dtype)),
        lambda x: lk.bures_distance(x, x),
    ):
        x = tensor(singular)
        y = f(x)
        assert torch.isfinite(y.detach()).all()
        (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        assert torch.isfinite(g.detach()).all()


def test_asymmetry():
    a = spd(3, ()).detach()
    a[0, 1] += 1e-12
    x = a.clone().requires_grad_()
    lk.sqrtm(x, assume_a="pos").sum().backward()
    torch.testing.assert_close(x.grad, x.grad.mT, rtol=0, atol=0)
    bad = a.clone()
    bad[0, 1] += 0.1
    with pytest.raises(lk.errors.AsymmetricError):
        lk.sqrtm(bad.requires_grad_(), assume_a="pos")
    # an asymmetric cotangent without a promise about the argument
    h = tensor(gaussian((3, 3)), grad=False)
    y = (0.5 * (a + a.mT)).requires_grad_()
    (g,) = torch.autograd.grad(lk.sqrtm(y), y, h)
    want = lk.grad.sqrtm_vjp(y.detach().numpy(), h.numpy()).derivative
    torch.testing.assert_close(g, torch.as_tensor(want), rtol=1e-12, atol=1e-12)
    assert (g - g.mT).abs().max() > 1e-3


def test_training_through_equal_eigenvalues():
    """From I, where all are equal, to I again: whitening of a covariance that is learnt."""
    w = tensor(np.eye(3))
    target = torch.as_tensor(spd_matrix(3, 5.0, rng=2))
    step = torch.optim.SGD([w], lr=0.2)
    losses = []
    for k in range(60):
        step.zero_grad()
        cov = w @ w.mT
        want = target if k < 30 else torch.eye(3, dtype=w.dtype)
        loss = (lk.sqrtm(cov, assume_a="pos") - want).pow(2).sum()
        loss = loss + 1e-3 * lk.invsqrtm(cov, assume_a="pos", damp=1e-3).pow(2).sum()
        loss.backward()
        assert torch.isfinite(w.grad).all()
        step.step()
        losses.append(float(loss.detach()))
    assert losses[29] < 0.1 * losses[0]
    assert losses[59] < 0.1 * losses[30]
