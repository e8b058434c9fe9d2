"""PyTorch: derivatives of solutions and determinants, one factorization, failures."""

import numpy as np
import pytest

from linalgk.errors import NonFiniteError, SingularMatrixError
from linalgk.kronecker import _factored, _inverse, _shifted
from linalgk.kronecker._kron import Kron

torch = pytest.importorskip("torch")
from against_dense import COMPLEX, DOUBLE, agree, check, dense, draw, made  # noqa: E402

# barriers between threads cost more than matrices of this size
torch.set_num_threads(1)
# torch's own, on its way to forward derivatives
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script")
DTYPES = pytest.mark.parametrize("dtype", [DOUBLE, COMPLEX])
KINDS = pytest.mark.parametrize("kind", ["gen", "her", "pos", None])


# ---- solutions and determinants ----

# of two factors, right-hand sides (None for a vector) and shifts
PROBLEMS = [
    ((), (), (), ()), ((2,), (1,), (2,), ()), ((2, 1), (), (3,), (2, 1)), ((), (2,), None, ()),
    ((), (), (2,), (2,)),
]  # fmt: skip


def problem(index, dtype, shift):
    one, two, own, spread = PROBLEMS[index]
    factors = draw(*one, 2, 2, dtype=dtype), draw(*two, 3, 3, dtype=dtype)
    b = draw(6, dtype=dtype) if own is None else draw(*own, 6, 2, dtype=dtype)
    if shift is None:
        return factors, b, ()
    s = draw(*spread, dtype=DOUBLE if shift == "real" else COMPLEX, grad=False) + 1
    return factors, b, (s.requires_grad_(),)


@KINDS
@pytest.mark.parametrize(
    ("dtype", "shift"),
    [(DOUBLE, None), (DOUBLE, "real"), (COMPLEX, None), (COMPLEX, "real"), (COMPLEX, "complex")],
)
def test_solutions(kind, dtype, shift):
    for index in range(len(PROBLEMS)):
        factors, b, s = problem(index, dtype, shift)

        def f(b, a, c, *s):
            return Kron([made(a, kind), made(c, kind)], assume_a=kind).solve(b, *s)

        def want(b, a, c, *s):
            k = dense([made(a, kind), made(c, kind)])
            if s:
                k = k + s[0][..., None, None] * torch.eye(6)
            vector = b.ndim == 1
            x = torch.linalg.solve(k, (b[:, None] if vector else b).expand(
                *torch.broadcast_shapes(k.shape[:-2], b.shape[:-2]), 6, -1))  # fmt: skip
            return x[..., 0] if vector else x

        agree(f, want, b, *factors, *s, second=index in (0, 2))


@KINDS
@pytest.mark.parametrize(
    ("dtype", "shift"),
    [(DOUBLE, None), (DOUBLE, "real"), (COMPLEX, None), (COMPLEX, "real"), (COMPLEX, "complex")],
)
def test_determinants(kind, dtype, shift):
    for index in range(len(PROBLEMS)):
        factors, _, s = problem(index, dtype, shift)

        def f(a, c, *s):
            pair = Kron([made(a, kind), made(c, kind)], assume_a=kind).slogdet(*s)
            # a complex sign has a derivative of its own
            return pair.logabsdet + 0.3 * (pair.sign.real + 2 * pair.sign.imag
                                           if pair.sign.is_complex() else pair.sign)  # fmt: skip

        def want(a, c, *s):
            k = dense([made(a, kind), made(c, kind)])
            if s:
                k = k + s[0][..., None, None] * torch.eye(6)
            pair = torch.linalg.slogdet(k)
            return pair.logabsdet + 0.3 * (pair.sign.real + 2 * pair.sign.imag
                                           if pair.sign.is_complex() else pair.sign)  # fmt: skip

        agree(f, want, *factors, *s, second=index in (0, 2))


@DTYPES
def test_finite_differences(dtype):
    """What is compared with PyTorch's own derivatives of dense matrices elsewhere."""
    a, c, b = draw(2, 2, dtype=dtype), draw(3, 3, dtype=dtype), draw(6, 1, dtype=dtype)
    s = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    check(lambda a, c, b, s: Kron([made(a, "gen"), made(c, "her")]).solve(b, s), a, c, b, s)

    def f(a, c, s):
        K = Kron([made(a, "gen"), made(c, "pos")])
        return K.slogdet(s).logabsdet + K.slogdet().logabsdet

    check(f, a, c, s)


@pytest.mark.parametrize("shift", [None, 0.7])
def test_equal_eigenvalues(shift):
    """Gaps of zero, to which eigenvectors have no derivative."""
    factors = [2 * torch.eye(2, dtype=DOUBLE), torch.eye(3, dtype=DOUBLE)]
    factors = [f.requires_grad_() for f in factors]
    s = () if shift is None else (torch.tensor(shift, dtype=DOUBLE, requires_grad=True),)
    b = draw(6, 2)

    def solved(b, a, c, *s):
        a, c = (0.5 * (f + f.mH) for f in (a, c))
        return Kron([a, c], assume_a="her").solve(b, *s)

    def determinant(a, c, *s):
        a, c = (0.5 * (f + f.mH) for f in (a, c))
        return Kron([a, c], assume_a="her").slogdet(*s).logabsdet

    check(solved, b, *factors, *s)
    check(determinant, *factors, *s)


def test_matrices_without_eigenvectors():
    """Jordan blocks with a shift: by Schur forms and by resolvents."""
    a = torch.tensor([[2.0, 1.0], [0.0, 2.0]], dtype=DOUBLE, requires_grad=True)
    c = (3 * torch.eye(3, dtype=DOUBLE) + torch.ones(3, 3, dtype=DOUBLE).triu(1)).requires_grad_()
    s = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)

    def want(b, a, c, s):
        return torch.linalg.solve(dense([a, c]) + s * torch.eye(6, dtype=DOUBLE), b)

    def solved(b, a, c, s):
        return Kron([a, c], assume_a="gen").solve(b, s)

    agree(solved, want, draw(6, 2), a, c, s)

    def f(a, c, s):
        return Kron([a, c], assume_a="gen").slogdet(s).logabsdet

    def logarithm(a, c, s):
        return torch.linalg.slogdet(dense([a, c]) + s * torch.eye(6, dtype=DOUBLE)).logabsdet

    agree(f, logarithm, a, c, s, second=False)
    (g,) = torch.autograd.grad(f(a, c, s), a, create_graph=True)
    with pytest.raises(np.linalg.LinAlgError, match="second derivatives with a shift"):
        g.sum().backward()


def test_gradients_are_symmetric_where_factors_are_declared_so():
    for kind in ("her", "pos"):
        a, c = (made(draw(n, n), kind).detach().requires_grad_() for n in (2, 3))
        K = Kron([a, c], assume_a=kind)
        y = K.solve(draw(6), 0.3).sum() + K.slogdet(0.3).logabsdet
        grads = torch.autograd.grad(y, (a, c), create_graph=True)
        more = torch.autograd.grad(sum((g**2).sum() for g in grads), (a, c))
        for g in (*grads, *more):
            torch.testing.assert_close(g, g.mT)
    # otherwise each entry is a variable
    K = Kron([a, c])
    g = torch.autograd.grad(K.solve(draw(6)).sum(), a)[0]
    assert (g - g.mT).abs().max() > 1e-3


def test_one_factorization(monkeypatch):
    """The forward pass makes it; solutions, determinants and gradients have no other."""
    made_of = []
    spectral = _factored.Factored.spectral.func
    inverted, eigen = _factored.inverted, _shifted._eigen

    def counted(name, f):
        def run(*args, **kwargs):
            made_of.append(name)
            return f(*args, **kwargs)

        return run

    monkeypatch.setattr(
        _factored.Factored.spectral, "func", counted("spectral", spectral), raising=True
    )
    monkeypatch.setattr(_factored, "inverted", counted("inverse", inverted))
    monkeypatch.setattr(_shifted, "_eigen", counted("eigen", eigen))
    assert _inverse.inverted is inverted
    b = draw(6, 2)
    for kind, shift, most in (("pos", 0.5, 1), ("gen", 0, 2), ("gen", 0.5, 3)):
        a, c = (made(draw(n, n), kind).detach().requires_grad_() for n in (2, 3))
        K = Kron([a, c], assume_a=kind)
        made_of.clear()
        y = K.solve(b, shift).square().sum() + K.slogdet(shift).logabsdet
        y = y + K.solve(2 * b, shift).square().sum()
        grads = torch.autograd.grad(y, (a, c), create_graph=True)
        sum(g.square().sum() for g in grads).backward()
        assert 1 <= len(made_of) <= most, made_of


def test_factors_that_have_changed_are_factored_again():
    a, c = (made(draw(n, n), "pos").detach().requires_grad_() for n in (2, 3))
    K, b = Kron([a, c], assume_a="pos"), draw(6)
    before = K.solve(b, 0.5), K.slogdet(0.5).logabsdet
    with torch.no_grad():
        a.mul_(2)
    after = K.solve(b, 0.5), K.slogdet(0.5).logabsdet
    fresh = Kron([a, c], assume_a="pos")
    torch.testing.assert_close(after[0], fresh.solve(b, 0.5), rtol=0, atol=0)
    torch.testing.assert_close(after[1], fresh.slogdet(0.5).logabsdet, rtol=0, atol=0)
    assert (after[0] - before[0]).abs().max() > 1e-3


def test_mixed_dtypes_of_equations():
    a, c = draw(2, 2, dtype=torch.float32), draw(3, 3, dtype=DOUBLE)
    K = Kron([made(a, "pos"), made(c, "pos")], assume_a="pos")
    x = K.solve(draw(6, dtype=COMPLEX), 0.5)
    assert x.dtype == COMPLEX
    y = K.solve(draw(6), 0.5 + 1j)
    assert y.dtype == COMPLEX
    (x.abs().sum() + y.abs().sum() + K.slogdet().logabsdet).backward()
    assert (a.grad.dtype, c.grad.dtype) == (torch.float32, DOUBLE)
    wide = a.detach().double().requires_grad_()
    k = dense([made(wide, "pos"), made(c.detach(), "pos")]).to(COMPLEX)
    eye = torch.eye(6)
    z = torch.linalg.solve(k + 0.5 * eye, draw(6, dtype=COMPLEX)).abs().sum()
    z = z + torch.linalg.solve(k + (0.5 + 1j) * eye, draw(6).to(COMPLEX)).abs().sum()
    (z + torch.linalg.slogdet(k).logabsdet).backward()
    torch.testing.assert_close(a.grad.double(), wide.grad, rtol=1e-5, atol=1e-5)


def test_single_precision_of_equations():
    a = made(draw(3, 3, dtype=torch.float32), "pos").detach().mT.requires_grad_()
    b = draw(9, 4, dtype=torch.float32, grad=False)[:, ::2].requires_grad_()
    K = Kron([a, a], assume_a="pos")
    x, log = K.solve(b, 1.0), K.slogdet(1.0).logabsdet
    assert x.dtype == log.dtype == torch.float32
    got = torch.autograd.grad(x.sum() + log, (a, b))
    wide = [t.detach().double().requires_grad_() for t in (a, b)]
    k = dense([0.5 * (wide[0] + wide[0].mT)] * 2) + torch.eye(9, dtype=DOUBLE)
    y = torch.linalg.solve(k, wide[1]).sum() + torch.linalg.slogdet(k).logabsdet
    for g, h in zip(got, torch.autograd.grad(y, wide), strict=True):
        # of a condition of some hundreds, whose square the gradient has
        torch.testing.assert_close(g.double(), h, rtol=1e-3, atol=1e-3)


# ---- failures ----


def test_singular_members():
    """Named, or NaN beside members that are right, also in the gradients."""
    a = torch.stack([torch.eye(2), torch.zeros(2, 2), 2 * torch.eye(2)]).double().requires_grad_()
    c, b = made(draw(3, 3), "gen").detach().requires_grad_(), draw(3, 6, 1)
    with pytest.raises(SingularMatrixError, match=r"factors\[0\].*member") as info:
        Kron([a, c]).solve(b)
    assert info.value.index == ((1,),)
    x = Kron([a, c]).solve(b, on_fail="nan")
    assert torch.isnan(x[1]).all()
    g = torch.autograd.grad(x[[0, 2]].sum(), (a, b, c))
    assert all(torch.isfinite(t).all() for t in g)
    rest = [t.detach()[[0, 2]].requires_grad_() for t in (a, b)]
    want = torch.autograd.grad(Kron([rest[0], c]).solve(rest[1]).sum(), (*rest, c))
    torch.testing.assert_close(g[0][[0, 2]], want[0])
    torch.testing.assert_close(g[2], want[2])
    g = torch.autograd.grad(Kron([a, c]).solve(b, on_fail="nan").sum(), (a, b))
    assert torch.isnan(g[0][1]).all()
    assert torch.isfinite(g[0][[0, 2]]).all()
    log = Kron([a, c]).slogdet().logabsdet
    assert log[1] == -torch.inf
    assert torch.isfinite(torch.autograd.grad(log[[0, 2]].sum(), a)[0]).all()
    log = Kron([a, c]).slogdet().logabsdet
    g = torch.autograd.grad(log.sum(), a)[0]
    assert torch.isnan(g[1]).any()
    assert torch.isfinite(g[[0, 2]]).all()


def test_shifts_that_meet_eigenvalues():
    a = torch.diag(torch.tensor([1.0, 2.0], dtype=DOUBLE)).requires_grad_()
    K, s = Kron([a, a], assume_a="her"), torch.tensor([0.5, -2.0], dtype=DOUBLE)
    with pytest.raises(SingularMatrixError, match="meets the eigenvalue 2"):
        K.solve(draw(4), s)
    x = K.solve(draw(4), s, on_fail="nan")
    assert torch.isnan(x[1]).all()
    assert torch.isfinite(torch.autograd.grad(x[0].sum(), a)[0]).all()
    log = K.slogdet(s).logabsdet
    assert torch.isfinite(torch.autograd.grad(log[0], a)[0]).all()


def test_what_is_not_finite():
    a, b = draw(2, 2), draw(4)
    bad = a.detach().clone()
    bad[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"factors\[1\]"):
        Kron([a, bad]).solve(b)
    lost = b.detach().clone()
    lost[1] = torch.inf
    with pytest.raises(NonFiniteError, match="b holds NaN or infinity"):
        Kron([a, a]).solve(lost)
