"""Problems and contenders of `orthogonalize`, part of the room of matrix functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Arrays, Problem, Target

TORCH_MUON, LOOP = "torch Newton-Schulz-5", "linalgk loop"


def _polar_factor(arrays: Arrays) -> Array:
    u, _, vh = np.linalg.svd(arrays["a"], full_matrices=False)
    factor: Array = u @ vh
    return factor


def _problem(*shape: int, targets: tuple[Target, ...]) -> Problem:
    p, q = sorted(shape[-2:])
    members = float(np.prod(shape[:-2]))
    return Problem(
        name=f"orthogonalize-{'x'.join(map(str, shape))}-float32-gaussian",
        function="orthogonalize",
        shape=shape,
        dtype="float32",
        make=lambda: {"a": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)},
        reference=_polar_factor,
        structure="gen",
        # five steps of the plain form
        flops=members * 5 * (4.0 * p * p * q + 2.0 * p**3),
        nbytes=8.0 * float(np.prod(shape)),
        targets=targets,
        # Muon's coefficients end within 0.3 of one; who is faster has to be no farther
        error_bound=0.2,
        tier="target",
    )


PROBLEMS = [
    _problem(1024, 1024, targets=(Target(TORCH_MUON, 1.3),)),
    _problem(1024, 4096, targets=(Target(TORCH_MUON, 2.0),)),
    _problem(64, 256, 256, targets=(Target(LOOP, 2.0),)),
]


def _torch_muon(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Five steps of a quintic on the smaller side, as published, in single precision."""
    import torch

    g = torch.from_numpy(arrays["a"])
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = problem.shape[-2] > problem.shape[-1]

    def call() -> Any:
        x = g.mT if tall else g
        x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
        for _ in range(5):
            r = x @ x.mT
            x = a * x + (b * r + c * r @ r) @ x
        return x.mT if tall else x

    return call


def _loop(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    members = list(arrays["a"])
    return lambda: [lk.orthogonalize(x) for x in members]


def _accepts(batch: bool) -> Callable[[Problem], bool]:
    return lambda p: p.function == "orthogonalize" and (len(p.shape) > 2 or not batch)


PEERS = [
    Peer(TORCH_MUON, "torch", _accepts(False), _torch_muon, export=np.asarray),
    Peer(LOOP, "linalgk", _accepts(True), _loop, export=np.asarray),
]
