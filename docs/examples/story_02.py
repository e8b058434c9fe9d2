"""Story 2: the author of an optimizer, PyTorch on CPU or GPU."""

import torch

import linalgk as lk

roots = lk.InverseRoot(4, rel_damp=1e-12)


@torch.no_grad()
def step(params, bufs, L, lr):
    with lk.config_context(on_fail="nan", check_finite=False):  # no host sync
        U = lk.foreach(lk.orthogonalize, bufs, steps=5, compute_dtype="bfloat16")
        torch._foreach_add_(params, U, alpha=-lr)
        Z = roots.update(L)  # (B, n, n); queued on torch.cuda.current_stream()
    return Z


torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
shapes = [(64, 64), (64, 128), (128, 64), (32, 96), (96, 96)]
params = [torch.zeros(shapes[i % 5], dtype=torch.bfloat16, device=device) for i in range(64)]
bufs = [torch.randn(p.shape, device=device).to(torch.bfloat16) for p in params]
G = torch.randn(8, 48, 96, device=device)
L = G @ G.mT

Z = step(params, bufs, L, lr=0.02)
print((Z @ Z @ L @ Z @ Z - torch.eye(48, device=device)).abs().max() < 1e-3)

ckpt = {"roots": roots.state_dict()}
fast = torch.compile(lambda g: lk.orthogonalize(g), fullgraph=True)
print(torch.equal(fast(G), lk.orthogonalize(G)))
