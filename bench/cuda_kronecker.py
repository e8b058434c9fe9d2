"""Products with Kronecker products on a GPU: problems and who else solves them.

The problem ``M_P^N`` multiplies M rows by the Kronecker product of N matrices of order P, as in the
paper on FastKron. That one needs a toolchain and a build of its own and is not among the peers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.cuda_parts import Contender, Judge, Problem, torch_missing
from linalgk_bench.problems import Array

MODES, SHUFFLE, TORCH_MODES = "cupy matmul by modes", "cupy GEMM and shuffle", "torch by modes"


# --- Data and errors -----------------------------------------------------------------------------


def _random(device: Any, m: int, p: int, n: int, dtype: str) -> tuple[Any, ...]:
    """The rows and the factors, the same on every device."""
    gen = np.random.default_rng(0)
    # float32 is drawn as such: half the time
    draw: Any = functools.partial(gen.standard_normal, dtype=dtype)
    factors = [(draw((p, p)) / p**0.5).astype(dtype) for _ in range(n)]
    return tuple(map(device.put, (draw((m, p**n)), *factors)))


def _exact(rows: Array, factors: list[Array]) -> Array:
    """Mode by mode, in the precision of what comes in."""
    k = rows.shape[1]
    after = 1
    for f in reversed(factors):
        p = len(f)
        x = rows.reshape(-1, p, after)
        rows = (np.ascontiguousarray(x.swapaxes(1, 2)) @ f).swapaxes(1, 2)
        after *= p
    return rows.reshape(-1, k)


def _by_rows(device: Any, arrays: Any) -> Judge:
    """The largest relative error of three rows and of the sum of all with random signs, where an
    error shows wherever it stands; computed on the host in the next higher precision.
    """
    xp, (x, *factors) = device.xp, arrays
    m = len(x)
    signs = device.put(np.random.default_rng(1).choice([-1.0, 1.0], (1, m)).astype(x.dtype))
    wide = np.float64 if x.dtype == np.float32 else np.longdouble

    def seen(y: Any) -> Array:
        ends = [device.host(y[i : i + 1]) for i in (0, m // 2, m - 1)]
        # in the order of any library, which costs the root of m units in the last place
        return np.concatenate([*ends, device.host(xp.matmul(signs, y))]).astype(wide)

    truth = _exact(seen(x), [device.host(f).astype(wide) for f in factors])
    size = np.linalg.norm(truth.astype(float), axis=1)

    def error(y: Any) -> float:
        return float(np.max(np.linalg.norm((seen(y) - truth).astype(float), axis=1) / size))

    return error


# --- Problems ------------------------------------------------------------------------------------


def product_problem(m: int, p: int, n: int, dtype: str) -> Problem:
    """M rows times N factors of order P."""
    k = p**n

    def solve(_device: Any, arrays: Any) -> Callable[[], Any]:
        import linalgk as lk

        x, *factors = arrays
        return lambda: lk.kron_matmul(factors, x, side="right", check_finite=False)

    return Problem(
        name=f"kron-{m}_{p}^{n}-{dtype}",
        function="kron_matmul",
        shape=(m, k),
        dtype=dtype,
        make=lambda device: _random(device, m, p, n, dtype),
        judge=_by_rows,
        options={"p": p, "n": n},
        solve=solve,
        looks=False,
        flops=2.0 * m * k * p * n,
        nbytes=2.0 * m * k * np.dtype(dtype).itemsize,
        # errors of n sums of p terms, and of the sum of m rows on either side
        error_bound=(n * p**0.5 + 2 * m**0.5) * float(np.finfo(dtype).eps),
    )


PROBLEMS: list[Problem] = [
    *(
        product_problem(m, p, n, dtype)
        for m, p, n in ((1024, 8, 5), (1024, 16, 4), (1, 8, 7), (1024, 8, 6))
        for dtype in ("float32", "float64")
    ),
    product_problem(1, 2, 20, "float32"),
    product_problem(16, 8, 8, "float32"),
    *(product_problem(320, 128, 3, dtype) for dtype in ("float32", "float64")),
]


# --- Contenders ----------------------------------------------------------------------------------


def _by_modes(matmul: Any, x: Any, factors: list[Any]) -> Any:
    """Products in place of each mode, nothing is transposed but the small factors."""
    shape, after = x.shape, 1
    for f in reversed(factors):
        p = len(f)
        x = matmul(f.T, x.reshape(-1, p, after)) if after > 1 else matmul(x.reshape(-1, p), f)
        after *= p
    return x.reshape(shape)


def _modes(device: Any, _problem: Problem, arrays: Any) -> Callable[[], Any]:
    x, *factors = arrays
    return lambda: _by_modes(device.xp.matmul, x, factors)


def _torch_modes(_device: Any, _problem: Problem, arrays: Any) -> Callable[[], Any]:
    """In full single precision, which is PyTorch's default."""
    import torch

    x, *factors = map(torch.from_dlpack, arrays)
    return lambda: _by_modes(torch.matmul, x, factors)


def _shuffle(device: Any, problem: Problem, arrays: Any) -> Callable[[], Any]:
    """One large product for each mode and a transposition after it, as GPyTorch does."""
    xp, (x, *factors) = device.xp, arrays
    m, p = len(x), problem.options["p"]

    def call() -> Any:
        y = x
        for f in reversed(factors):
            y = xp.matmul(y.reshape(-1, p), f).reshape(m, -1, p).swapaxes(1, 2)
            y = xp.ascontiguousarray(y)
        return y.reshape(m, -1)

    return call


def _products(problem: Problem) -> bool:
    return problem.function == "kron_matmul"


CONTENDERS: list[Contender] = [
    Contender(MODES, _products, _modes),
    Contender(SHUFFLE, _products, _shuffle),
    Contender(TORCH_MODES, _products, _torch_modes, torch_missing),
]
