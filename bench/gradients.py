"""Problems and contenders of the square root with its gradient, part of the room of matrix
functions: forward and backward through PyTorch, as a layer of a network runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import paper
from linalgk_bench.peers import Peer, Unavailable
from linalgk_bench.problems import Array, Arrays, Problem, Target

FUNCTION = "grad.sqrtm_vjp"
EIGH, SQRTH = "torch eigh autograd", "torch matrix_sqrth autograd"
MPA, MTP = "paper MPA, 8 steps back", "paper MTP, 8 steps back"


def make(shape: tuple[int, ...], dtype: str = "float32") -> Arrays:
    """``A = R R^T`` with twice as many samples as dimensions, and a symmetric cotangent."""
    *batch, n, _ = shape
    rng = np.random.default_rng(0)
    r = rng.standard_normal((*batch, n, 2 * n)).astype(dtype)
    g = rng.standard_normal(shape).astype(dtype)
    return {"a": r @ r.swapaxes(-1, -2), "g": g + g.swapaxes(-1, -2)}


def reference(arrays: Arrays) -> Array:
    """The gradient by divided differences in double precision, for the matrices as they are."""
    a, g = (np.asarray(arrays[name], float) for name in ("a", "g"))
    w, v = np.linalg.eigh(a)
    root, left = np.sqrt(w), np.swapaxes(v, -1, -2)
    inner = (left @ g @ v) / (root[..., :, None] + root[..., None, :])
    found: Array = v @ inner @ left
    return found


def _problem(*shape: int, targets: tuple[Target, ...] = ()) -> Problem:
    members, n = float(np.prod(shape[:-2])), shape[-1]
    return Problem(
        name=f"sqrtm_backward-{'x'.join(map(str, shape))}-float32-wishart",
        function=FUNCTION,
        shape=shape,
        dtype="float32",
        make=lambda: make(shape),
        reference=reference,
        args=("a", "g"),
        structure="gen",
        # eigenvectors and the symmetric product, then four products
        flops=members * (17 / 3 + 8.0) * n**3,
        nbytes=16.0 * float(np.prod(shape)),
        targets=targets,
        error_bound=1e-4,
        tier="target" if targets else "gallery",
    )


PROBLEMS = [
    _problem(64, 48, 48, targets=(Target(EIGH, 1.8),)),
    _problem(1, 64, 64, targets=(Target(EIGH, 1.2),)),
    _problem(1, 256, 256),
    _problem(64, 16, 16),
]


def forward_backward(root: Callable[[Any], Any], arrays: Arrays) -> Callable[[], Any]:
    """The root and then the gradient, from a fresh leaf in each call."""
    import torch

    a, g = (torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in ("a", "g"))

    def call() -> Any:
        leaf = a.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(root(leaf), leaf, g)
        return gradient

    return call


def linalgk(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Through the differentiable face."""
    import linalgk as lk

    return forward_backward(lambda t: lk.sqrtm(t, assume_a="pos"), arrays)


def eigh_root(t: Any) -> Any:
    """What one writes without a library."""
    import torch

    w, v = torch.linalg.eigh(t)
    return (v * w.clamp(min=0).sqrt().unsqueeze(-2)) @ v.mT


def svd_root(t: Any) -> Any:
    """The same by singular vectors, as the papers' baseline has it."""
    import torch

    u, s, vh = torch.linalg.svd(t)
    return (u * s.sqrt().unsqueeze(-2)) @ vh


def _eigh(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return forward_backward(eigh_root, arrays)


def _sqrth(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch

    if not hasattr(torch.linalg, "matrix_sqrth"):
        msg = f"torch {torch.__version__} has no torch.linalg.matrix_sqrth"
        raise Unavailable(msg)
    return forward_backward(torch.linalg.matrix_sqrth, arrays)


def _of_paper(method: str) -> Callable[[Problem, Arrays], Callable[[], Any]]:
    def prepare(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        root = paper.methods().root
        return forward_backward(lambda t: root(t, method), arrays)

    return prepare


def _accepts(problem: Problem) -> bool:
    return problem.function == FUNCTION


PEERS = [
    Peer(name, "torch", _accepts, prepare, export=np.asarray, threads=threads, variant_of=variant)
    for found, prepare in (
        (EIGH, _eigh),
        (SQRTH, _sqrth),
        (MPA, _of_paper("MPA")),
        (MTP, _of_paper("MTP")),
    )
    # small matrices mostly wait for the second thread
    for name, threads, variant in ((found, None, ""), (f"{found}, 1 thread", 1, found))
]
