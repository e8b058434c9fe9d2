"""Problems and contenders for what is done with Tucker and canonical tensors: inner products."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Arrays, Problem

MODES = 3


def _tensors(n: int, rank: int, function: str) -> Arrays:
    """Two tensors of a format: heads h0, h1 and factors a0, ..., b2."""
    rng = np.random.default_rng(7)
    head = (rank,) * MODES if function == "TuckerTensor" else (rank,)
    found = {f"h{i}": rng.standard_normal(head) for i in range(2)}
    for name in "ab":
        for k in range(MODES):
            found[f"{name}{k}"] = rng.standard_normal((n, rank)) / n**0.5
    return found


def _parts(arrays: Arrays) -> list[tuple[Array, list[Array]]]:
    return [
        (arrays[f"h{i}"], [arrays[f"{x}{k}"] for k in range(MODES)]) for i, x in enumerate("ab")
    ]


def _inner(arrays: Arrays, kind: Any = np.float64) -> Array:
    """``<A, B>`` through the Gram matrices of the factors."""
    (g, first), (h, second) = _parts(arrays)
    grams = [a.astype(kind).T @ b.astype(kind) for a, b in zip(first, second, strict=True)]
    if g.ndim == 1:
        return np.array([g.astype(kind) @ np.prod(grams, axis=0) @ h.astype(kind)])
    moved = h.astype(kind)
    for k, m in enumerate(grams):
        moved = np.moveaxis(np.tensordot(m, moved, (1, k)), 0, k)
    return np.array([np.vdot(g.astype(kind), moved)])


def _truth(arrays: Arrays) -> Array:
    return _inner(arrays, np.longdouble).astype(np.float64)


def _relative(result: Array, reference: Any) -> float:
    return float(np.max(np.abs(result - reference) / np.abs(reference)))


def inner_problem(function: str, n: int, rank: int) -> Problem:
    """The inner product of two tensors of n^3 entries."""
    terms = rank**3 if function == "TuckerTensor" else rank**2
    return Problem(
        name=f"inner-{function}-{n}^3-rank-{rank}", function=function, shape=(n,) * MODES,
        dtype="float64", make=functools.partial(_tensors, n, rank, function), reference=_truth,
        args=("h0",), flops=2.0 * MODES * (n * rank**2 + terms * (rank if terms > rank**2 else 1)),
        error=_relative,
        # of so many terms with random signs, whose sum is as large as the root of their number
        error_bound=10 * (n + terms) * float(np.finfo(float).eps),
    )  # fmt: skip


PROBLEMS = [inner_problem("TuckerTensor", 200, 20), inner_problem("CanonicalTensor", 200, 50)]


def linalgk_call(lk: Any, problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Tensors are made before the time starts."""
    first, second = (getattr(lk, problem.function)(*part) for part in _parts(arrays))
    return lambda: np.array([first.inner(second)])


def _pyttb(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import pyttb

    def made(head: Array, factors: list[Array]) -> Any:
        ordered = [np.asfortranarray(f) for f in factors]
        if problem.function == "TuckerTensor":
            return pyttb.ttensor(pyttb.tensor(np.asfortranarray(head)), ordered)
        return pyttb.ktensor(ordered, head)

    first, second = (made(*part) for part in _parts(arrays))
    return lambda: np.array([first.innerprod(second)])


def _numpy(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return lambda: _inner(arrays)


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


_FORMATS = _of("TuckerTensor", "CanonicalTensor")
PEERS = [
    Peer("pyttb innerprod", "pyttb", _FORMATS, _pyttb, np.asarray),
    Peer("numpy, Gram of factors", "numpy", _FORMATS, _numpy, np.asarray),
]
