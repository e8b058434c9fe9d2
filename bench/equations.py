"""Problems and contenders of `solve_lyapunov`, part of the room of matrix functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Arrays, Problem, Target

SCIPY_LYAPUNOV = "scipy.linalg.solve_continuous_lyapunov"
KAPPA = 1e4


def _make(n: int) -> Arrays:
    from linalgk import testing

    q = np.random.default_rng(1).standard_normal((n, n))
    return {"a": testing.spd_matrix(n, KAPPA), "q": q + q.T}


def _error(result: Array, arrays: Any) -> float:
    """The residual over what rounding the coefficients alone leaves."""
    a, q = arrays["a"], arrays["q"]
    size = 2 * np.linalg.norm(a) * np.linalg.norm(result) + np.linalg.norm(q)
    return float(np.linalg.norm(a @ result + result @ a - q) / size)


def _problem(n: int) -> Problem:
    return Problem(
        name=f"solve_lyapunov-{n}x{n}-float64-log-k1e4",
        function="solve_lyapunov",
        shape=(n, n),
        dtype="float64",
        make=lambda: _make(n),
        reference=lambda arrays: arrays,  # type: ignore[arg-type, return-value]
        args=("a", "q"),
        structure="gen",
        # eigenvectors and four products
        flops=18.0 * n**3,
        nbytes=24.0 * n * n,
        targets=(Target(SCIPY_LYAPUNOV, 8.0),),
        error=_error,
        error_bound=10 * n * float(np.finfo(float).eps),
        tier="target",
    )


PROBLEMS = [_problem(512)]


def _scipy(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import solve_continuous_lyapunov

    return lambda: solve_continuous_lyapunov(arrays["a"], arrays["q"])


PEERS = [
    Peer(
        SCIPY_LYAPUNOV,
        "scipy",
        lambda p: p.function == "solve_lyapunov",
        _scipy,
        export=np.asarray,
    )
]
