"""Problems of the room of Kronecker products, and their answers by other means.

The answer of a problem is one vector; the error is relative, the worst of its parts.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from linalgk_bench.problems import Arrays, Problem, Target

OPERATOR, TENSORLY, PYTTB = "linear_operator", "TensorLy", "pyttb"
NUMPY_DENSE = "numpy, formed"


def plain_factors(arrays: Arrays) -> list[Any]:
    """The arrays f0, f1, ..."""
    return [arrays[f"f{i}"] for i in range(sum(1 for name in arrays if name[0] == "f"))]


def _gaussian(n: int, length: float) -> Any:
    t = np.linspace(0, 1, n)
    return np.exp(-0.5 * ((t[:, None] - t) / length) ** 2)


# --- Gaussian process on a grid -------------------------------------------------------------------


def _grid(n: int) -> Arrays:
    rng = np.random.default_rng(2)
    return {
        "f0": _gaussian(n, 0.05), "f1": _gaussian(n, 0.08), "s": np.array(1e-2),
        "y": rng.standard_normal(n * n),
    }  # fmt: skip


def likelihood(arrays: Arrays) -> Any:
    """Quadratic form, log-determinant, and the derivatives by shift and factors, in closed form."""
    k1, k2, s, y = (arrays[name] for name in ("f0", "f1", "s", "y"))
    (w1, v1), (w2, v2) = (np.linalg.eigh(k) for k in (k1, k2))
    w = np.multiply.outer(w1, w2)
    z = (v1.T @ y.reshape(len(k1), -1) @ v2) / (w + s)
    alpha = v1 @ z @ v2.T
    by_shift = 0.5 * (np.sum(1 / (w + s)) - np.sum(alpha**2))
    by_first = 0.5 * ((v1 * (w2 / (w + s)).sum(1)) @ v1.T - alpha @ k2 @ alpha.T)
    by_second = 0.5 * ((v2 * (w1[:, None] / (w + s)).sum(0)) @ v2.T - alpha.T @ k1 @ alpha)
    value = 0.5 * (y @ alpha.ravel() + np.log(w + s).sum())
    return answer(value, by_shift, by_first, by_second)


def answer(value: Any, by_shift: Any, by_first: Any, by_second: Any) -> Any:
    """One vector; derivatives by symmetric factors are symmetric."""
    parts = [0.5 * (g + g.T).ravel() for g in map(np.asarray, (by_first, by_second))]
    return np.concatenate([[float(value), float(by_shift)], *parts])


def _worst(n: int, x: Any, y: Any) -> float:
    parts = np.split(np.arange(2 + 2 * n * n), [1, 2, 2 + n * n])
    return max(float(np.linalg.norm(x[p] - y[p]) / np.linalg.norm(y[p])) for p in parts)


def likelihood_problem(n: int, targets: tuple[Target, ...] = ()) -> Problem:
    """The likelihood of a Gaussian process on an n x n grid, and its gradient."""
    return Problem(
        name=f"Kron-likelihood-{n}x{n}", function="Kron", shape=(n * n, n * n), dtype="float64",
        make=functools.partial(_grid, n), reference=likelihood, args=("y",),
        flops=2 * 9.0 * n**3 + 16.0 * n**3, error=functools.partial(_worst, n),
        # the condition number of K + s I times the unit roundoff, and the sums of n^2 numbers
        error_bound=1e-8, targets=targets, tier="target" if targets else "gallery",
    )  # fmt: skip


# --- Matricized tensor times Khatri-Rao product ---------------------------------------------------


def _tensor(n: int, rank: int) -> Arrays:
    rng = np.random.default_rng(3)
    mats = {f"f{i}": rng.standard_normal((n, rank)) for i in range(3)}
    return {"x": rng.standard_normal((n, n, n)), **mats}


def _all_modes(arrays: Arrays) -> Any:
    a, b, c = plain_factors(arrays)
    x = arrays["x"]
    inner = np.einsum("ijk,kr->ijr", x, c, optimize=True)
    first = np.einsum("ijr,jr->ir", inner, b)
    second = np.einsum("ijr,ir->jr", inner, a)
    third = np.einsum("ijk,ir,jr->kr", x, a, b, optimize=True)
    return np.stack([first, second, third])


def mttkrp_problem(n: int, rank: int, targets: tuple[Target, ...] = ()) -> Problem:
    """All three modes of a dense tensor, as one sweep of CP-ALS needs them."""
    return Problem(
        name=f"mttkrp-{n}^3-rank{rank}", function="mttkrp", shape=(n, n, n), dtype="float64",
        make=functools.partial(_tensor, n, rank), reference=_all_modes, args=("x",),
        # two products with all of x, as for n = 2 of its modes
        flops=4.0 * n**3 * rank, nbytes=2 * 8.0 * n**3,
        error_bound=n * n * float(np.finfo("f8").eps) / math.sqrt(n), targets=targets,
        tier="target" if targets else "gallery",
    )  # fmt: skip
