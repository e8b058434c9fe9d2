"""Story 4: a practitioner of Gaussian processes: a kernel on a grid, missing points."""

import torch

import linalgk as lk


def k1(x, ell):
    return torch.exp(-0.5 * ((x[:, None] - x) / ell) ** 2)


def k2(y, ell):
    return torch.exp(-abs(y[:, None] - y) / ell)


torch.manual_seed(0)
x, y = (torch.linspace(0, 1, p, dtype=torch.float64) for p in (24, 18))
truth = torch.sin(6 * x)[:, None] * torch.cos(4 * y)
seen = torch.rand(24, 18) < 0.8
r = (truth + 0.1 * torch.randn(truth.shape, dtype=x.dtype))[seen]
ell = torch.tensor([0.2, 0.7], dtype=x.dtype, requires_grad=True)
s2 = torch.tensor(0.01, dtype=x.dtype, requires_grad=True)

K = lk.Kron([k1(x, ell[0]), k2(y, ell[1])], assume_a="pos")  # torch, requires grad
A = K.masked(seen)  # bool (n1, n2): P K P^T, never formed
alpha = A.solve(r, shift=s2, tol=1e-8)  # CG with the full grid's eigenvectors
ld = A.logdet(shift=s2, rng=0)  # Estimate(value, std_error, interval)
nll = 0.5 * (r @ alpha + ld.value)
nll.backward()
mean = K @ A.embed(alpha)  # on the whole grid
sign, ld_full = K.slogdet(shift=s2)  # exact (sign, logabsdet) when nothing is missing

print(A)
print(f"log-determinant {ld.value.item():.6f}, {ld.method}, standard error {ld.std_error:g}")
print(f"nll {nll.item():.6f}, derivatives {ell.grad.tolist()}, {s2.grad.item():.6f}")
gap = (mean.detach().reshape(seen.shape) - truth)[~seen]
print(f"error at missing points {gap.square().mean().sqrt().item():.3f}")

# the same with dense matrices
leaves = [ell.detach().requires_grad_(), s2.detach().requires_grad_()]
points = seen.reshape(-1)
whole = torch.kron(k1(x, leaves[0][0]), k2(y, leaves[0][1]))
dense = whole[points][:, points] + leaves[1] * torch.eye(len(r), dtype=x.dtype)
wanted = 0.5 * (r @ torch.linalg.solve(dense, r) + torch.logdet(dense))
wanted.backward()
torch.testing.assert_close(nll, wanted)
torch.testing.assert_close(ell.grad, leaves[0].grad)
torch.testing.assert_close(s2.grad, leaves[1].grad)
torch.testing.assert_close(mean, whole[:, points] @ torch.linalg.solve(dense, r))
full = whole + leaves[1] * torch.eye(len(whole), dtype=x.dtype)
torch.testing.assert_close(ld_full, torch.logdet(full))
