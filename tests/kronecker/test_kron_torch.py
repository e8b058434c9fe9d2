"""PyTorch: derivatives of products, torch.func, what is refused."""

import numpy as np
import pytest

from linalgk.kronecker import kron_matmul
from linalgk.kronecker._kron import Kron

torch = pytest.importorskip("torch")
from against_dense import COMPLEX, DOUBLE, agree, check, dense, draw, made  # noqa: E402

# barriers between threads cost more than matrices of this size
torch.set_num_threads(1)
# torch's own, on its way to forward derivatives
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script")
DTYPES = pytest.mark.parametrize("dtype", [DOUBLE, COMPLEX])
KINDS = pytest.mark.parametrize("kind", ["gen", "her", "pos", None])


# ---- products ----

BATCHES = [((), (), ()), ((2,), (1,), (2,)), ((2, 1), (), (3,)), ((), (), (2, 1)), ((2,), (), ())]


@DTYPES
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batches", BATCHES)
def test_products(dtype, side, batches):
    one, two, own = batches
    a, b = draw(*one, 3, 2, dtype=dtype), draw(*two, 2, 3, dtype=dtype)
    x = draw(*own, *((6, 2) if side == "left" else (2, 6)), dtype=dtype)

    def f(a, b, x):
        return kron_matmul([a, b], x, side=side)

    agree(f, lambda a, b, x: dense([a, b]) @ x if side == "left" else x @ dense([a, b]), a, b, x)


@DTYPES
def test_finite_differences(dtype):
    """What is compared with PyTorch's own derivatives of dense matrices elsewhere."""
    a, b, x = draw(3, 2, dtype=dtype), draw(3, 2, dtype=dtype), draw(6, 1, dtype=dtype)
    check(lambda a, b, x: kron_matmul([a, b], x, trans=["N", "C"]), a, b, x)


@pytest.mark.parametrize("trans", ["N", "T", "C", ["C", False], [True, "N"]])
def test_turned_factors_and_numbers(trans):
    flags = trans if isinstance(trans, list) else [trans] * 2
    turns = [
        (lambda f: f) if t in ("N", False) else (lambda f: f.mH) if t == "C" else (lambda f: f.mT)
        for t in flags
    ]
    a, b = draw(2, 2, dtype=COMPLEX), draw(3, 3, dtype=COMPLEX)
    for side in ("left", "right"):
        x = draw(6, 6, dtype=COMPLEX)

        def f(a, b, x, side=side):
            return kron_matmul([a, b], x, side=side, trans=trans, alpha=2 - 1j)

        def want(a, b, x, side=side):
            k = (2 - 1j) * dense([t(f) for t, f in zip(turns, (a, b), strict=True)])
            return k @ x if side == "left" else x @ k

        agree(f, want, a, b, x)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_vectors(side, batch):
    a, b, x = draw(*batch, 3, 2), draw(2, 3), draw(6)

    def want(a, b, x):
        k = dense([a, b])
        return (k @ x[:, None])[..., 0] if side == "left" else (x[None, :] @ k)[..., 0, :]

    agree(lambda a, b, x: kron_matmul([a, b], x, side=side), want, a, b, x)


def test_five_modes_of_which_some_move():
    """Factors side by side that want no gradient are one product, there and back."""
    fixed = [draw(2, 2, seed=i, grad=False) for i in range(5)]
    x = draw(32, 3, grad=False)
    for moving in ([0], [2], [4], [1, 3]):
        inputs = [fixed[i].clone().requires_grad_() for i in moving] + [x.clone().requires_grad_()]

        def put(args, moving=moving):
            fs = list(fixed)
            for i, f in zip(moving, args, strict=False):
                fs[i] = f
            return fs

        agree(
            lambda *args, put=put: kron_matmul(put(args), args[-1]),
            lambda *args, put=put: dense(put(args)) @ args[-1], *inputs,
        )  # fmt: skip


def test_mixed_dtypes_promote():
    """A real factor among complex ones has a real gradient, in its own precision."""
    a, b = draw(2, 2, dtype=torch.float32), draw(3, 3, dtype=COMPLEX)
    x = draw(6, 2, dtype=DOUBLE)
    y = kron_matmul([a, b], x)
    assert y.dtype == COMPLEX
    y.abs().square().sum().backward()
    assert (a.grad.dtype, b.grad.dtype, x.grad.dtype) == (torch.float32, COMPLEX, DOUBLE)
    wide = a.detach().double().requires_grad_()
    (dense([wide.to(COMPLEX), b]) @ x.to(COMPLEX)).abs().square().sum().backward()
    torch.testing.assert_close(a.grad.double(), wide.grad, rtol=1e-6, atol=1e-5)
    integers = torch.arange(4).reshape(2, 2)
    assert kron_matmul([integers, b], x).dtype == COMPLEX
    assert kron_matmul([integers], draw(2, 2, dtype=torch.float32)).dtype == DOUBLE


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision(half):
    a, x = draw(3, 2, grad=False).to(half), draw(4, 2, grad=False).to(half)
    a, x = a.requires_grad_(), x.requires_grad_()
    y = kron_matmul([a, a], x)
    assert y.dtype == half
    y.sum().backward()
    assert a.grad.dtype == half
    wide = a.detach().double().requires_grad_()
    (dense([wide, wide]) @ x.detach().double()).sum().backward()
    # rounded where it is stored: sums of two terms of size 10
    eps = torch.finfo(half).eps
    torch.testing.assert_close(a.grad.double(), wide.grad, rtol=4 * eps, atol=40 * eps)


def test_single_precision_and_strides():
    a, b = draw(3, 2, dtype=torch.float32, grad=False), draw(4, 4, dtype=torch.float32, grad=False)
    big = draw(10, 8, dtype=torch.float32, grad=False)
    x = big.mT[:, ::2].detach().requires_grad_()
    a = a.mT.contiguous().mT.requires_grad_()
    b = b[::2, ::2].detach().requires_grad_()
    x4 = x[:4]
    y = kron_matmul([a, b], x4)
    want = dense([a, b]) @ x4
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5)
    for g, h in zip(torch.autograd.grad(y.sum(), (a, b, x)),
                    torch.autograd.grad(want.sum(), (a, b, x)), strict=True):  # fmt: skip
        torch.testing.assert_close(g, h, rtol=1e-5, atol=1e-5)


def test_empty():
    a, b = draw(0, 3), draw(2, 2)
    y = kron_matmul([a, b], draw(6, 2))
    assert y.shape == (0, 2)
    y.sum().backward()
    assert a.grad.shape == (0, 3)
    assert not b.grad.any()
    c = draw(3, 3)
    z = kron_matmul([c, b], draw(0, 6, 2))
    z.sum().backward()
    assert not c.grad.any()


def test_objects_multiply():
    a, b, x = draw(3, 2), draw(2, 3), draw(6, 2)
    agree(lambda a, b, x: Kron([a, b]) @ x, lambda a, b, x: dense([a, b]) @ x, a, b, x)
    agree(lambda a, b, x: x.mT @ Kron([a, b]), lambda a, b, x: x.mT @ dense([a, b]), a, b, x)
    agree(lambda a, b, x: Kron([a, b]).H @ x, lambda a, b, x: dense([a, b]).mH @ x, a, b, x)


# ---- torch.func ----


def scalar_solution(a, c, b, s):
    return Kron([made(a, "pos"), made(c, "pos")], assume_a="pos").solve(b, s).square().sum()


def scalar_determinant(a, c, _b, s):
    return Kron([made(a, "pos"), made(c, "pos")], assume_a="pos").slogdet(s).logabsdet.square()


def scalar_product(a, c, b, s):
    return kron_matmul([a, c * s], b).square().sum()


def by_dense(f):
    def g(a, c, b, s):
        if f is scalar_product:
            return (dense([a, c * s]) @ b).square().sum()
        k = dense([made(a, "pos"), made(c, "pos")]) + s * torch.eye(6, dtype=DOUBLE)
        if f is scalar_solution:
            return torch.linalg.solve(k, b).square().sum()
        return torch.linalg.slogdet(k).logabsdet.square()

    return g


@pytest.mark.parametrize("f", [scalar_solution, scalar_determinant, scalar_product])
def test_transformations(f):
    func, want = torch.func, by_dense(f)
    args = [draw(*shape, grad=False) for shape in ((2, 2), (3, 3), (6, 2), ())]
    args[3] = args[3].abs() + 0.5
    for i in (0, 1, 3):
        torch.testing.assert_close(func.grad(f, i)(*args), func.grad(want, i)(*args))
        second = func.hessian(want, i)(*args)
        for h in (func.hessian(f, i), func.jacrev(func.jacrev(f, i), i),
                  func.jacrev(func.jacfwd(f, i), i)):  # fmt: skip
            torch.testing.assert_close(h(*args), second)
    for axis, many in ((0, draw(4, 2, 2, grad=False)), (2, draw(4, 6, 2, grad=False)),
                       (3, torch.rand(4, dtype=DOUBLE))):  # fmt: skip
        dims = tuple(0 if i == axis else None for i in range(4))
        given = [many if i == axis else x for i, x in enumerate(args)]
        for transform in (func.grad, func.hessian):
            found = func.vmap(transform(f, 1), dims)(*given)
            each = [transform(want, 1)(*(many[n] if i == axis else x for i, x in enumerate(args)))
                    for n in range(4)]  # fmt: skip
            torch.testing.assert_close(found, torch.stack(each))


@pytest.mark.parametrize("f", [scalar_solution, scalar_determinant, scalar_product])
def test_what_pytorch_gets_wrong_is_refused(f):
    """Forward over forward, which would be zero without a word."""
    args = [draw(*shape, grad=False) for shape in ((2, 2), (3, 3), (6, 2), ())]
    twice = torch.func.jacfwd(torch.func.jacfwd(f, 0), 0)
    with pytest.raises(TypeError, match="forward derivative of a forward derivative"):
        twice(*args)


def test_third_derivatives():
    """Of solutions and products they are there; of determinants they are refused."""
    a, s = made(draw(2, 2), "pos").detach(), torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)

    def derivatives(f, order):
        y, found = f(s), []
        for _ in range(order):
            (y,) = torch.autograd.grad(y, s, create_graph=True)
            found.append(y.detach())
        return found

    def solved(solve):
        return lambda s: solve(s).sum()

    K, b = Kron([a, a], assume_a="pos"), draw(4, grad=False)
    eye = torch.eye(4, dtype=DOUBLE)
    found = derivatives(solved(lambda s: K.solve(b, s)), 3)
    want = derivatives(solved(lambda s: torch.linalg.solve(dense([a, a]) + s * eye, b)), 3)
    torch.testing.assert_close(found, want)
    found = derivatives(lambda s: kron_matmul([a * s] * 4, draw(16)).sum(), 3)
    want = derivatives(lambda s: (dense([a * s] * 4) @ draw(16)).sum(), 3)
    torch.testing.assert_close(found, want)
    with pytest.raises(TypeError, match="third derivatives"):
        derivatives(lambda s: K.slogdet(s).logabsdet, 3)


# ---- what is refused ----


def test_what_is_refused():
    a, x = draw(2, 2), draw(4, 2)
    with pytest.raises(TypeError, match="out: a result that is differentiated"):
        kron_matmul([a, a], x, out=torch.empty(4, 2, dtype=DOUBLE))
    with pytest.raises(TypeError, match="share one library"):
        kron_matmul([a, np.eye(2)], x)
    with pytest.raises(ValueError, match=r"needs 2.*2 = 4"):
        kron_matmul([a, a], x[:3])
    with pytest.raises(ValueError, match="assume_a must be given under torch"):
        torch.func.grad(lambda a: Kron([a, a]).solve(x).sum())(a)
    with pytest.raises(ValueError, match="assume_a must be given under torch"):
        torch.func.grad(lambda a: Kron([a, a]).slogdet().logabsdet)(a)
