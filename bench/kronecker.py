"""Problems and contenders of the room of Kronecker products."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import ceiling
from linalgk_bench.peers import LINALGK, Peer, Unavailable
from linalgk_bench.problems import Arrays, Problem, Target

FASTKRON, MODES, SHUFFLE = "pyfastkron", "numpy modes", "numpy shuffle"
CEILING = "copy or FMA loop"
OPERATOR, PYKRONECKER, TORCH = "linear_operator", "PyKronecker", "torch modes"
Maker = Callable[[Problem, Arrays], Callable[[], Any]]


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


# --- Products -------------------------------------------------------------------------------------


def _factors(arrays: Arrays) -> list[Any]:
    return [arrays[f"f{i}"] for i in range(sum(1 for name in arrays if name[0] == "f"))]


def _data(rows: int, sizes: tuple[int, ...], dtype: str) -> Arrays:
    rng = np.random.default_rng(1)
    factors = {
        f"f{i}": (rng.standard_normal((n, n)) / math.sqrt(n)).astype(dtype)
        for i, n in enumerate(sizes)
    }
    return {"x": rng.standard_normal((rows, math.prod(sizes))).astype(dtype), **factors}


def _modes(x: Any, factors: list[Any], product: Any = np.matmul) -> Any:
    """``x (F_1 kron ... kron F_N)``, nothing transposed but views."""
    y, rows, behind = x, x.shape[0], x.shape[1]
    for f in factors:
        behind //= f.shape[0]
        y = product(f.T, y.reshape(-1, f.shape[0], behind))
    return y.reshape(rows, -1)


def _reference(arrays: Arrays) -> Any:
    """In double precision, one GEMM a mode with all that is not of the mode in its columns."""
    y = np.asarray(arrays["x"], np.float64)
    rows = len(y)
    for f in reversed(_factors(arrays)):
        y = y.reshape(-1, len(f)) @ f.astype(np.float64)
        y = y.reshape(rows, -1, len(f)).transpose(0, 2, 1)
    return np.ascontiguousarray(y).reshape(rows, -1)


def product_problem(
    rows: int,
    sizes: tuple[int, ...],
    dtype: str,
    bound: float | None,
    name: str = "",
    share: float | None = None,
) -> Problem:
    """Rows of data times a product of square factors."""
    k, width = math.prod(sizes), np.dtype(dtype).itemsize
    name = name or f"{rows}-{sizes[0]}^{len(sizes)}"
    return Problem(
        name=f"kron_matmul-{name}-{dtype}", function="kron_matmul", shape=(rows, k), dtype=dtype,
        make=functools.partial(_data, rows, sizes, dtype), reference=_reference, args=("x",),
        flops=2.0 * rows * k * sum(sizes), nbytes=2.0 * rows * k * width,
        targets=(
            *(() if bound is None else (Target(FASTKRON, bound),)),
            *(() if share is None else (Target(CEILING, 1 / share, "share"),)),
        ),
        error_bound=len(sizes) * max(sizes) * float(np.finfo(dtype).eps),
        tier="gallery" if bound is None else "target",
    )  # fmt: skip


_FUSED = [
    (256, (8,) * 5, 1.8, 1.4), (16, (8,) * 6, 1.8, 1.4), (1, (8,) * 7, 1.8, 1.4),
    (256, (16,) * 4, 1.3, 1.3), (1, (16,) * 5, 1.3, 1.3),
    (256, (32,) * 3, 1.0, 1.0), (256, (64,) * 2, 1.0, 1.0), (256, (128,) * 2, 1.0, 1.0),
    (16, (64,) * 3, 1.0, 1.0),
]  # fmt: skip
_MIXED = [(2,) * 20, (4,) * 10, (3,) * 12, (5,) * 8, (6,) * 7, (7,) * 6, (3, 5, 7, 11, 13, 16)]

PROBLEMS = [
    *[
        product_problem(
            rows,
            sizes,
            dtype,
            bound,
            share=0.4 if sizes[0] in (8, 16) and dtype == "float64" else None,
        )
        for rows, sizes, *bounds in _FUSED
        for dtype, bound in zip(("float64", "float32"), bounds, strict=True)
    ],
    *[
        product_problem(rows, sizes, "float64", 4.0, f"{rows}-mixed" if len(set(sizes)) > 1 else "")
        for sizes in _MIXED
        for rows in (1, 16)
    ],
]


def _linalgk(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    factors = _factors(arrays)
    calls: dict[str, Callable[[], Any]] = {
        "kron_matmul": lambda: lk.kron_matmul(factors, arrays["x"], side="right"),
    }
    return calls[problem.function]


def _ceiling(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """What holds the product back at least: the memory of its input and a fresh output, or FMA."""
    return ceiling.binding(arrays["x"], problem.flops, _threads())


def _fastkron(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from pyfastkron import fastkronnumpy

    factors, x = _factors(arrays), arrays["x"]
    return lambda: fastkronnumpy.gemkm(x, factors)


def _numpy_modes(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    factors = _factors(arrays)
    return lambda: _modes(arrays["x"], factors)


def _numpy_shuffle(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    factors = _factors(arrays)

    def call() -> Any:
        y = arrays["x"]
        rows = len(y)
        for f in reversed(factors):
            y = (y.reshape(-1, len(f)) @ f).reshape(rows, -1, len(f)).transpose(0, 2, 1)
        return y.reshape(rows, -1)

    return call


def _torch_modes(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(_threads())
    factors, x = [torch.from_numpy(f) for f in _factors(arrays)], torch.from_numpy(arrays["x"])
    return lambda: _modes(x, factors, torch.matmul)


def _linear_operator(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch
    from linear_operator.operators import DenseLinearOperator, KroneckerProductLinearOperator

    torch.set_num_threads(_threads())
    factors = [DenseLinearOperator(torch.from_numpy(f.T.copy())) for f in _factors(arrays)]
    product, x = KroneckerProductLinearOperator(*factors), torch.from_numpy(arrays["x"]).T

    def call() -> Any:
        with torch.no_grad():
            return (product @ x).T

    return call


def _pykronecker(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import jax

    jax.config.update("jax_enable_x64", True)
    from pykronecker import KroneckerProduct

    x = arrays["x"]
    if len(x) > 1:
        msg = "takes the columns of a matrix one by one"
        raise Unavailable(msg)
    product = KroneckerProduct([f.T for f in _factors(arrays)])
    vector = jax.numpy.asarray(x[0])
    return lambda: (product @ vector).block_until_ready()


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


def _plain(x: Any) -> Any:
    return np.asarray(x)


def _row(x: Any) -> Any:
    return np.asarray(x)[None, :]


def _peer(name: str, library: str, accepts: Any, prepare: Maker, **words: Any) -> Peer:
    return Peer(name, library, accepts, prepare, **{"export": _plain, **words})


_PRODUCT = _of("kron_matmul")

PEERS = [
    _peer(LINALGK, "linalgk", lambda _: True, _linalgk),
    _peer(CEILING, "numba", _PRODUCT, _ceiling, yardstick=True),
    _peer(FASTKRON, "pyfastkron", _PRODUCT, _fastkron),
    _peer(MODES, "numpy", _PRODUCT, _numpy_modes, variant_of=FASTKRON),
    _peer(SHUFFLE, "numpy", _PRODUCT, _numpy_shuffle, variant_of=FASTKRON),
    _peer(TORCH, "torch", _PRODUCT, _torch_modes, variant_of=FASTKRON),
    _peer(OPERATOR, "linear_operator", _PRODUCT, _linear_operator, variant_of=FASTKRON),
    _peer(PYKRONECKER, "pykronecker", _PRODUCT, _pykronecker, export=_row, variant_of=FASTKRON),
]


def test_kronecker(benchmark: Any, problem: Problem, peer: Peer, solve: Any) -> None:
    """Called by ``pytest bench`` for every problem and contender; the error is measured before the
    time.
    """
    benchmark(solve(benchmark, problem, peer))
