"""Derivatives of `Masked` in PyTorch, against those of dense matrices."""

import pickle

import numpy as np
import pytest

import linalgk as lk
from linalgk.kronecker import _masked_estimate

torch = pytest.importorskip("torch")

X, Y = (torch.linspace(0, 1, p, dtype=torch.float64) for p in (7, 6))
SEEN = torch.as_tensor(np.random.default_rng(0).random((7, 6)) < 0.7)
N = int(SEEN.sum())


def kernel(x, ell):
    return torch.exp(-0.5 * ((x[:, None] - x) / ell) ** 2)


def block(factors, shift):
    k = factors[0]
    for f in factors[1:]:
        k = torch.kron(k, f)
    flat = SEEN.reshape(-1)
    return k[flat][:, flat] + shift * torch.eye(N, dtype=k.dtype)


@pytest.fixture
def leaves():
    r = torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ell = torch.tensor([0.3, 0.5], dtype=torch.float64)
    s = torch.tensor(0.05, dtype=torch.float64)
    return [t.requires_grad_() for t in (ell, s, r)]


def factors_of(ell):
    return [kernel(X, ell[0]), kernel(Y, ell[1])]


def close(found, wanted, rtol=1e-9):
    for x, y in zip(found, wanted, strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert (x - y).abs().max() <= rtol * y.abs().max()


# --- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cholesky", "slq"])
def test_likelihoods(leaves, method):
    """All unit vectors are taken, where more random ones would be needed: then slq is exact."""
    ell, s, r = leaves
    A = lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN)
    alpha = A.solve(r, shift=s, tol=1e-12)
    ld = A.logdet(shift=s, method=method, n_matvecs=4000, rng=0)
    assert ld.value.requires_grad
    assert not ld.std_error.requires_grad
    found = torch.autograd.grad(r @ alpha + ld.value, leaves)
    matrix = block(factors_of(ell), s)
    wanted = torch.autograd.grad(r @ torch.linalg.solve(matrix, r) + torch.logdet(matrix), leaves)
    close(found, wanted)
    assert abs(ld.value - torch.logdet(matrix)) < 1e-8


@pytest.mark.parametrize("chosen", ["observed", "missing", "none"])
def test_determinants_by_every_block(leaves, chosen, monkeypatch):
    ell, s, _ = leaves
    seen = torch.ones_like(SEEN) if chosen == "none" else SEEN
    if chosen != "none":
        choice = ("cholesky", chosen, "test")
        monkeypatch.setattr(_masked_estimate, "choose_logdet", lambda *a, **k: choice)
    A = lk.Kron(factors_of(ell), assume_a="pos").masked(seen)
    ld = A.logdet(shift=s)
    found = torch.autograd.grad(3 * ld.value, [ell, s])
    k, flat = torch.kron(*factors_of(ell)), seen.reshape(-1)
    matrix = k[flat][:, flat] + s * torch.eye(int(flat.sum()), dtype=k.dtype)
    close(found, torch.autograd.grad(3 * torch.logdet(matrix), [ell, s]))


def test_solutions_have_derivatives_of_the_second_order(leaves):
    def solve(ell, s, r):
        return lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN).solve(r, shift=s, tol=1e-13)

    assert torch.autograd.gradcheck(solve, leaves)
    assert torch.autograd.gradgradcheck(solve, leaves)


def test_determinants_have_derivatives_of_the_second_order(leaves):
    def logdet(ell, s):
        return lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN).logdet(shift=s).value

    assert torch.autograd.gradcheck(logdet, leaves[:2])
    assert torch.autograd.gradgradcheck(logdet, leaves[:2])
    assert torch.autograd.gradgradcheck(lambda ell: logdet(ell, 0.05), leaves[:1])
    # of an estimate they would be left out without a word
    ell, s, _ = leaves
    A = lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN)
    guess = A.logdet(shift=s, method="slq", n_matvecs=17, rng=0).value
    with pytest.raises(TypeError, match="create_graph"):
        torch.autograd.grad(guess, s, create_graph=True)


def test_products(leaves):
    ell, _, r = leaves
    A = lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN)
    matrix = block(factors_of(ell), 0.0)
    z = torch.stack([r, r**2], dim=1)
    pairs = [
        (A @ r, matrix @ r),
        (r @ A, r @ matrix),
        (A @ z, matrix @ z),
        (z.mT @ A, z.mT @ matrix),
    ]
    pairs.append((A.kron @ A.embed(r), torch.kron(*factors_of(ell))[:, SEEN.reshape(-1)] @ r))
    for y, wanted in pairs:
        close([y], [wanted])
        found = torch.autograd.grad((y**3).sum(), [ell, r], retain_graph=True)
        close(found, torch.autograd.grad((wanted**3).sum(), [ell, r], retain_graph=True))


@pytest.mark.parametrize("kind", ["complex128", "complex64", "float32"])
def test_other_dtypes(kind):
    """Complex factors, Hermitian by construction, and right-hand sides; a real shift."""
    dtype = getattr(torch, kind)
    rng = np.random.default_rng(1)
    parts = [torch.as_tensor(rng.standard_normal((p, p))) for p in (7, 6)]
    if dtype.is_complex:
        parts = [p + 1j * torch.as_tensor(rng.standard_normal(p.shape)) for p in parts]
    parts = [p.to(dtype).requires_grad_() for p in parts]
    shift = torch.tensor(0.7, dtype=parts[0].real.dtype, requires_grad=True)
    b = torch.as_tensor(rng.standard_normal((N, 2))).to(dtype).requires_grad_()

    def both(dense):
        factors = [p @ p.mH / 6 + torch.eye(len(p), dtype=p.dtype) for p in parts]
        if dense:
            matrix = block(factors, shift)
            return torch.linalg.solve(matrix, b), torch.linalg.slogdet(matrix)[1]
        A = lk.Kron(factors, assume_a="pos").masked(SEEN)
        tol = 1e-12 if kind == "complex128" else 2e-6
        return A.solve(b, shift=shift, tol=tol), A.logdet(shift=shift).value

    losses = [
        ((x * torch.arange(1, 3)).abs() ** 2).sum() + ld for x, ld in map(both, (False, True))
    ]
    found, wanted = (torch.autograd.grad(loss, [*parts, shift, b]) for loss in losses)
    close(found, wanted, 1e-9 if kind == "complex128" else 1e-3)


def test_real_factors_and_a_complex_right_hand_side(leaves):
    ell, s, r = leaves
    b = torch.complex(r, r.flip(0))
    A = lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN)
    x = A.solve(b, shift=s, tol=1e-12)
    wanted = torch.linalg.solve(block(factors_of(ell), s).to(b.dtype), b)
    found = torch.autograd.grad((x.abs() ** 2).sum(), leaves, retain_graph=True)
    close(found, torch.autograd.grad((wanted.abs() ** 2).sum(), leaves))


def test_factors_themselves_have_hermitian_gradients(leaves):
    """The function is that of their Hermitian part."""
    ell, s, r = (t.detach() for t in leaves)
    factors = [f.requires_grad_() for f in factors_of(ell)]
    A = lk.Kron(factors, assume_a="pos").masked(SEEN)
    loss = (A.solve(r, shift=s, tol=1e-12) ** 3).sum() + A.logdet(shift=s).value
    matrix = block(factors, s)
    dense = (torch.linalg.solve(matrix, r) ** 3).sum() + torch.logdet(matrix)
    wanted = torch.autograd.grad(dense, factors)
    close(torch.autograd.grad(loss, factors), [0.5 * (g + g.mT) for g in wanted])


def test_a_batch(leaves):
    ell, s, r = leaves
    many = ell[:, None, None] * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None]
    first = torch.stack([kernel(X, m) for m in many[0].reshape(-1)])
    second = kernel(Y, ell[1])
    shift = s * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    A = lk.Kron([first, second], assume_a="pos").masked(SEEN)
    x, info = A.solve(r, shift=shift, tol=1e-12, return_info=True)
    assert info.converged.all()
    ld = A.logdet(shift=shift)
    assert ld.value.shape == (3,)
    matrices = [block([f, second], t) for f, t in zip(first, shift, strict=True)]
    wanted = torch.stack([torch.linalg.solve(m, r) for m in matrices])
    logs = torch.stack([torch.logdet(m) for m in matrices])
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = torch.autograd.grad((x**2).sum() + weights @ ld.value, leaves, retain_graph=True)
    close(found, torch.autograd.grad((wanted**2).sum() + weights @ logs, leaves))


def test_members_that_fail_have_nan_and_spoil_no_other(leaves):
    ell, s, r = leaves
    first = torch.stack([kernel(X, ell[0]), -kernel(X, ell[0])])
    A = lk.Kron([first, kernel(Y, ell[1])]).masked(SEEN)
    x = A.solve(r, shift=s, on_fail="nan")
    ld = A.logdet(shift=s, on_fail="nan")
    assert x[0].isfinite().all()
    assert x[1].isnan().all()
    assert ld.value.isnan().tolist() == [False, True]
    found = torch.autograd.grad(x[0].sum(), leaves)
    one = lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN)
    close(found, torch.autograd.grad(one.solve(r, shift=s).sum(), leaves), 1e-5)


# --- Estimates -----------------------------------------------------------------------------------


def test_estimated_derivatives_are_unbiased():
    """Mean of 100 seeds within 5 standard errors in each of three derivatives: P < 1e-5."""
    x = torch.linspace(0, 1, 14, dtype=torch.float64)
    seen = np.random.default_rng(5).random((14, 14)) < 0.6
    ell = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
    s = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    A = lk.Kron([kernel(x, ell[0]), kernel(x, ell[1])], assume_a="pos").masked(seen)

    def derivatives(**options):
        value = A.logdet(shift=s, **options).value
        return torch.cat(
            [g.reshape(-1) for g in torch.autograd.grad(value, [ell, s], retain_graph=True)]
        )

    exact = derivatives(method="cholesky")
    found = torch.stack([derivatives(method="slq", n_matvecs=60, rng=i) for i in range(100)])
    error = found.std(dim=0) / 10
    assert (error > 0).all()
    assert ((found.mean(dim=0) - exact).abs() < 5 * error).all()
    # a tenth of the derivative, from 60 products
    assert (found.std(dim=0) < 0.1 * exact.abs()).all()
    again = derivatives(method="slq", n_matvecs=60, rng=0)
    assert torch.equal(again, found[0])


# --- At the door ---------------------------------------------------------------------------------


def test_what_has_no_derivatives(leaves):
    ell, s, r = leaves
    factors = [f.detach() for f in factors_of(ell)]
    A = lk.Kron(factors, assume_a="pos").masked(SEEN)
    with pytest.raises(TypeError, match=r"torch\.func"):
        torch.func.grad(lambda b: A.solve(b, shift=0.1).sum())(r.detach())
    with pytest.raises(TypeError, match=r"torch\.func"):
        torch.func.grad(lambda t: A.logdet(shift=t).value)(s.detach())
    with pytest.raises(TypeError, match="real"):
        A.solve(r, shift=s + 0j)
    # nobody asks for any
    x = A.solve(r.detach(), shift=s.detach())
    assert not x.requires_grad
    with torch.no_grad():
        assert not lk.Kron(factors_of(ell)).masked(SEEN).solve(r, shift=s).requires_grad


def test_factors_that_change_are_factorized_anew():
    f = torch.eye(6, dtype=torch.float64).requires_grad_()
    K = lk.Kron([kernel(X, 0.3), f], assume_a="pos")
    A = K.masked(SEEN)
    r = torch.ones(N, dtype=torch.float64)
    before = A.solve(r, shift=0.1)
    with torch.no_grad():
        f.mul_(2.0)
    fresh = lk.Kron([kernel(X, 0.3), f.detach()], assume_a="pos").masked(SEEN)
    after = A.solve(r, shift=0.1)
    close([after], [fresh.solve(r, shift=0.1)], 1e-7)
    assert (after - before).abs().max() > 0.01
    assert pickle.loads(pickle.dumps(fresh)) == fresh
