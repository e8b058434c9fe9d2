"""Parameters, gradients and distances that tests of optimizers share."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")


def problem(shapes, steps, dtype="float32", seed=0):
    """Parameters and gradients for so many steps, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    start = [np.array(rng.standard_normal(shape), dtype) for shape in shapes]
    gradients = [[np.array(rng.standard_normal(s), dtype) for s in shapes] for _ in range(steps)]
    return start, gradients


def parameters(start, dtype=None):
    return [torch.nn.Parameter(torch.tensor(w).to(dtype)) for w in start]


def follow(opt, params, gradients):
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = None if g is None else torch.as_tensor(g).to(p.dtype)
        opt.step()


def distance(params, wanted, start):
    """Largest distance relative to the way gone."""
    return max(
        np.linalg.norm(p.detach().double().numpy() - w) / np.linalg.norm(w - s)
        for p, w, s in zip(params, wanted, start, strict=True)
    )
