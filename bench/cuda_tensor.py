"""Chebyshev-Tucker functions at scattered points on a GPU: problems and who else solves them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import tensor_functions
from linalgk_bench.cuda_parts import Contender, Judge, Problem, torch_missing
from linalgk_bench.problems import Array

GEMM, TORCH_GEMM = "cupy GEMM by blocks", "torch GEMM by blocks"
# Points of a block of the contenders: their tables stay below a gigabyte.
BLOCK = 1 << 17


def _series(device: Any, points: int, length: int, rank: int, dtype: str) -> tuple[Any, ...]:
    """Points, core and factors, the same on every device."""
    made = tensor_functions.series(points, length, rank)
    return tuple(device.put(made[name].astype(dtype)) for name in ("x", "core", "f0", "f1", "f2"))


def _at_some(device: Any, arrays: Any) -> Judge:
    """The largest error at about a thousand points, of the largest value."""
    x, core, *factors = map(device.host, arrays)
    step = max(x.shape[1] // 1000, 1)
    named = {f"f{k}": f for k, f in enumerate(factors)}
    truth = tensor_functions.exactly({"x": x, "core": core, **named})

    def error(y: Any) -> float:
        some: Array = device.host(y)[::step].astype(np.float64)
        return float(np.max(np.abs(some - truth)) / np.max(np.abs(truth)))

    return error


def evaluate_problem(points: int, length: int, rank: int, dtype: str) -> Problem:
    """A function of three variables at so many points."""

    def solve(device: Any, arrays: Any) -> Callable[[], Any]:
        import linalgk as lk

        x, core, *factors = arrays
        host = [device.host(a) for a in (core, *factors)]
        f = lk.ChebTucker(host[0], host[1:], tensor_functions.CUBE)
        # points of the domain are not looked for, so that nothing waits
        rows = [x[k, :] for k in range(x.shape[0])]
        return lambda: f(*rows, on_fail="nan")

    size = np.dtype(dtype).itemsize
    return Problem(
        name=f"evaluate-{points}-degree-{length - 1}-rank-{rank}-{dtype}",
        function="ChebTucker",
        shape=(points, 3),
        dtype=dtype,
        make=lambda device: _series(device, points, length, rank, dtype),
        judge=_at_some,
        options={"length": length, "rank": rank},
        solve=solve,
        looks=False,
        flops=2.0 * points * (3 * length * rank + rank**3),
        nbytes=4.0 * points * size,
        error_bound=float(np.finfo(dtype).eps) * (length**2 + math.sqrt(rank**3)),
    )


PROBLEMS: list[Problem] = [
    evaluate_problem(points, 130, rank, dtype)
    for points, rank in ((1_000_000, 20), (10_000_000, 8))
    for dtype in ("float32", "float64")
]


def _blocks(xp: Any, arrays: Any) -> Callable[[], Any]:
    """Tables of polynomials, one product for each factor, and one with the core."""
    x, core, *factors = arrays

    def part(x: Any) -> Any:
        values = []
        for t, f in zip(x, factors, strict=True):
            table = xp.empty((f.shape[0], t.shape[0]), dtype=f.dtype, **_where(t))
            table[0], table[1] = 1, t
            for k in range(2, f.shape[0]):
                table[k] = 2 * t * table[k - 1] - table[k - 2]
            values.append(table.T @ f)
        total = values[0] @ core.reshape(core.shape[0], -1)
        for v in values[1:]:
            total = (v[:, None, :] @ total.reshape(v.shape[0], v.shape[1], -1))[:, 0]
        return total[:, 0]

    return lambda: xp.concatenate([part(x[:, i : i + BLOCK]) for i in range(0, x.shape[1], BLOCK)])


def _where(x: Any) -> dict[str, Any]:
    return {"device": x.device} if type(x).__module__.startswith("torch") else {}


def _cupy(device: Any, _problem: Problem, arrays: Any) -> Callable[[], Any]:
    return _blocks(device.xp, arrays)


def _torch(_device: Any, _problem: Problem, arrays: Any) -> Callable[[], Any]:
    import torch

    return _blocks(torch, [torch.from_dlpack(a) for a in arrays])


def _values(problem: Problem) -> bool:
    return problem.function == "ChebTucker"


CONTENDERS: list[Contender] = [
    Contender(GEMM, _values, _cupy),
    Contender(TORCH_GEMM, _values, _torch, torch_missing),
]
