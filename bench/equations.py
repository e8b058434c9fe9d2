"""Problems and contenders of `solve_lyapunov` and `bures_distance`, part of the room of matrix
functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Arrays, Problem, Target

SCIPY_LYAPUNOV = "scipy.linalg.solve_continuous_lyapunov"
SCIPY_FID = "scipy sqrtm FID"
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


def _make_pair(n: int, kind: str) -> Arrays:
    from linalgk import testing

    if kind == "log-k1e4":
        return {"a": testing.spd_matrix(n, KAPPA, rng=0), "b": testing.spd_matrix(n, KAPPA, rng=1)}
    # covariances of twice as many samples, as features of two sets of images
    x = np.random.default_rng(0).standard_normal((2, n, 2 * n))
    x[1] *= np.linspace(0.7, 1.3, n)[:, None]
    return {"a": x[0] @ x[0].T / (2 * n), "b": x[1] @ x[1].T / (2 * n)}


def _fid(arrays: Arrays) -> Array:
    """By the eigenvalues of ``L^T B L``, which are positive."""
    a, b = arrays["a"], arrays["b"]
    factor = np.linalg.cholesky(a)
    w = np.linalg.eigvalsh(factor.T @ b @ factor)
    return np.asarray(np.trace(a) + np.trace(b) - 2 * np.sqrt(np.maximum(w, 0)).sum())


def _distance_problem(n: int, kind: str) -> Problem:
    return Problem(
        name=f"bures_distance-{n}x{n}-float64-{kind}",
        function="bures_distance",
        shape=(n, n),
        dtype="float64",
        make=lambda: _make_pair(n, kind),
        reference=_fid,
        args=("a", "b"),
        options={"squared": True},
        structure="gen",
        flops=6.0 * n**3,
        nbytes=16.0 * n * n,
        targets=(Target(SCIPY_FID, 15.0),),
        error=lambda x, want: float(abs(x - want) / want),
        error_bound=n * KAPPA**0.5 * float(np.finfo(float).eps),
        tier="target",
    )


PROBLEMS = [_problem(512), *(_distance_problem(2048, k) for k in ("wishart", "log-k1e4"))]


def _scipy(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import solve_continuous_lyapunov

    return lambda: solve_continuous_lyapunov(arrays["a"], arrays["q"])


def _scipy_fid(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """As published implementations of the FID compute it."""
    from scipy.linalg import sqrtm

    a, b = arrays["a"], arrays["b"]
    return lambda: np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real


PEERS = [
    Peer(
        SCIPY_FID,
        "scipy",
        lambda p: p.function == "bures_distance",
        _scipy_fid,
        export=np.asarray,
    ),
    Peer(
        SCIPY_LYAPUNOV,
        "scipy",
        lambda p: p.function == "solve_lyapunov",
        _scipy,
        export=np.asarray,
    ),
]
