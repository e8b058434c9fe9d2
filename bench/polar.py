"""Problems and contenders of `polar`, part of the room of matrix functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Arrays, Problem, Target

SCIPY_POLAR, NUMPY_SVD = "scipy.linalg.polar", "numpy svd"


def _make(shape: tuple[int, ...], dtype: str, kappa: float | None) -> Arrays:
    rng = np.random.default_rng(0)
    if kappa is None:
        return {"a": rng.standard_normal(shape).astype(dtype)}
    m, n = shape[-2:]
    left, right = (np.linalg.qr(rng.standard_normal((k, n)))[0] for k in (m, n))
    return {"a": ((left * np.geomspace(1, 1 / kappa, n)) @ right.T).astype(dtype)}


def _error(result: Array, arrays: Any) -> float:
    """The worse of the two backward errors: of the product, and of U as a unitary matrix."""
    a = arrays["a"].astype(np.float64)
    m, n = a.shape[-2:]
    u, h = (x.astype(np.float64) for x in (result[..., :m, :], result[..., m:, :]))
    product = np.linalg.norm(u @ h - a, axis=(-2, -1)) / np.linalg.norm(a, axis=(-2, -1))
    gap = np.linalg.norm(u.swapaxes(-1, -2) @ u - np.eye(n), axis=(-2, -1)) / n**0.5
    return float(max(product.max(), gap.max()))


def _problem(
    *shape: int, targets: tuple[Target, ...], dtype: str = "float64", kappa: float | None = None
) -> Problem:
    m, n = shape[-2:]
    members = float(np.prod(shape[:-2]))
    kind = "gaussian" if kappa is None else f"log-k{kappa:.0e}".replace("+0", "")
    return Problem(
        name=f"polar-{'x'.join(map(str, shape))}-{dtype}-{kind}",
        function="polar",
        shape=shape,
        dtype=dtype,
        make=lambda: _make(shape, dtype, kappa),
        reference=lambda arrays: arrays,  # type: ignore[arg-type, return-value]
        structure="gen",
        # singular values by way of a triangle where there are more rows, and the two products
        flops=members * (22.0 * n**3 + 6.0 * (m - n) * n * n),
        nbytes=np.dtype(dtype).itemsize * members * (2.0 * m * n + n * n),
        targets=targets,
        error=_error,
        error_bound=n * float(np.finfo(dtype).eps),
        tier="target",
    )


PROBLEMS = [
    _problem(1024, 1024, targets=(Target(SCIPY_POLAR, 1.3),)),
    _problem(20000, 200, targets=(Target(SCIPY_POLAR, 3.0),)),
    # what the two above would hide: Gaussian matrices are well conditioned
    _problem(1024, 1024, kappa=1e8, targets=()),
    _problem(20000, 200, kappa=1e4, targets=()),
    _problem(1024, 1024, dtype="float32", targets=()),
    _problem(64, 32, 32, targets=(Target(SCIPY_POLAR, 1.0), Target(NUMPY_SVD, 1.0))),
]


def _scipy(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import polar

    a = arrays["a"]
    if len(problem.shape) == 2:
        return lambda: polar(a)
    return lambda: [polar(x) for x in a]


def _numpy(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    a = arrays["a"]

    def call() -> Any:
        w, s, vh = np.linalg.svd(a, full_matrices=False)
        return w @ vh, (vh.swapaxes(-1, -2) * s[..., None, :]) @ vh

    return call


def export(result: Any) -> Array:
    """Both factors as one array, U above H; an array as it is."""
    if isinstance(result, list):
        return np.stack([export(pair) for pair in result])
    if isinstance(result, tuple):
        return np.concatenate([np.asarray(x) for x in result], axis=-2)
    return np.asarray(result)


def _accepts(problem: Problem) -> bool:
    return problem.function == "polar"


PEERS = [
    Peer(SCIPY_POLAR, "scipy", _accepts, _scipy, export=export),
    Peer(NUMPY_SVD, "numpy", _accepts, _numpy, export=export),
]
