"""Problems and contenders of the room of Tucker and Chebyshev-Tucker formats."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import tensor_charges, tensor_formats, tensor_functions
from linalgk_bench.peers import LINALGK, Peer, Unavailable
from linalgk_bench.problems import Array, Arrays, Problem, Target

TENSORLY, TENSORLY_RANDOM, PYTTB = "tensorly", "tensorly, randomized", "pyttb tucker_als"
HOSVD = "pyttb hosvd"
Maker = Callable[[Problem, Arrays], Callable[[], Any]]


# --- Tensors --------------------------------------------------------------------------------------


def _noisy(n: int, rank: int, dtype: str) -> Arrays:
    """A random tensor of these ranks and white noise of one part in 10^4."""
    rng = np.random.default_rng(2)
    bases = [np.linalg.qr(rng.standard_normal((n, rank)))[0] for _ in range(3)]
    x = _multiplied(rng.standard_normal((rank, rank, rank)), bases)
    noise = rng.standard_normal(x.shape)
    x += 1e-4 * np.linalg.norm(x) / np.linalg.norm(noise) * noise
    return {"x": x.astype(dtype)}


def _decaying(n: int, dtype: str) -> Arrays:
    """Entries ``10^(-k/4)`` on the diagonal, turned by random orthogonal matrices."""
    rng = np.random.default_rng(3)
    x = np.zeros((n, n, n))
    k = np.arange(n)
    x[k, k, k] = 10.0 ** (-k / 4)
    bases = [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(3)]
    return {"x": _multiplied(x, bases).astype(dtype)}


def _multiplied(core: Array, factors: Any) -> Array:
    for k, f in enumerate(factors):
        core = np.moveaxis(np.tensordot(f, core, (1, k)), 0, k)
    return np.ascontiguousarray(core)


def _residual(result: Array, x: Any) -> float:
    """``||X - X'|| / ||X||`` in double precision."""
    x = np.asarray(x, np.float64)
    return float(np.linalg.norm(np.asarray(result, np.float64) - x) / np.linalg.norm(x))


def _given(arrays: Arrays) -> Any:
    return arrays["x"]


def ranks_problem(n: int, rank: int, targets: tuple[Target, ...]) -> Problem:
    """Given ranks; the error that all of them reach is that of the noise left out."""
    left = math.sqrt(1 - rank**3 / n**3)
    return Problem(
        name=f"tucker-{n}^3-rank-{rank}", function="tucker", shape=(n, n, n), dtype="float64",
        make=functools.partial(_noisy, n, rank, "float64"), reference=_given, args=("x",),
        options={"ranks": (rank,) * 3}, flops=2.0 * n**3 * (n + rank), nbytes=8.0 * n**3,
        # what the factors' own freedom takes of the noise is less than this
        targets=targets, error=_residual, error_bound=1e-4 * left * (1 + 1e-4),
        tier="target" if targets else "gallery",
    )  # fmt: skip


def tolerance_problem(n: int, tol: float, dtype: str) -> Problem:
    """A tolerance to be met."""
    return Problem(
        name=f"tucker-{n}^3-tol-{tol:.0e}-{dtype}".replace("e-0", "em"), function="tucker",
        shape=(n, n, n), dtype=dtype, make=functools.partial(_decaying, n, dtype),
        reference=_given, args=("x",), options={"tol": tol}, flops=2.0 * n**4,
        nbytes=float(n**3 * np.dtype(dtype).itemsize), error=_residual, error_bound=tol,
    )  # fmt: skip


PROBLEMS = [
    ranks_problem(
        160, 16, (Target(TENSORLY, 50.0), Target(TENSORLY_RANDOM, 8.0), Target(PYTTB, 2.0))
    ),
    ranks_problem(
        200, 20, (Target(TENSORLY, 50.0), Target(TENSORLY_RANDOM, 8.0), Target(PYTTB, 2.0))
    ),
    *[tolerance_problem(80, tol, "float64") for tol in (1e-6, 1e-9, 1e-12)],
    *[tolerance_problem(80, tol, "float32") for tol in (1e-3, 1e-5)],
    *tensor_formats.PROBLEMS,
    *tensor_functions.PROBLEMS,
    *tensor_charges.PROBLEMS,
]


def _linalgk(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    if problem.function == "tucker":
        return lambda: lk.tucker(arrays["x"], **problem.options)
    if problem.function in ("TuckerTensor", "CanonicalTensor"):
        return tensor_formats.linalgk_call(lk, problem, arrays)
    if problem in tensor_charges.PROBLEMS:
        return tensor_charges.linalgk_call(lk, problem, arrays)
    return tensor_functions.linalgk_call(lk, problem, arrays)


def _tensorly(problem: Problem, arrays: Arrays, **options: Any) -> Callable[[], Any]:
    from tensorly.decomposition import tucker

    if "tol" in problem.options:
        msg = "cannot be asked for a tolerance"
        raise Unavailable(msg)
    ranks = list(problem.options["ranks"])

    def call() -> Any:
        core, factors = tucker(arrays["x"], rank=ranks, **options)
        return core, factors

    return call


def _pyttb_tensor(arrays: Arrays) -> Any:
    import pyttb

    # in the order that it keeps tensors in
    return pyttb.tensor(np.asfortranarray(arrays["x"], dtype=np.float64))


def _pyttb_als(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import pyttb

    if "tol" in problem.options:
        msg = "takes ranks only"
        raise Unavailable(msg)
    x, ranks = _pyttb_tensor(arrays), list(problem.options["ranks"])

    def call() -> Any:
        np.random.seed(0)  # noqa: NPY002 - its start is drawn from there
        found = pyttb.tucker_als(x, ranks, init="random", printitn=0)[0]
        return found.core.data, found.factor_matrices

    return call


def _pyttb_hosvd(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import pyttb

    x, options = _pyttb_tensor(arrays), dict(problem.options)
    tol = options.get("tol", 1e-3)
    ranks = options.get("ranks")

    def call() -> Any:
        found = pyttb.hosvd(x, tol, verbosity=-1, ranks=None if ranks is None else list(ranks))
        return found.core.data, found.factor_matrices

    return call


def _by_hand(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """What one writes with NumPy: eigenvectors of Gram matrices, sequentially."""
    if "tol" in problem.options:
        msg = "for given ranks"
        raise Unavailable(msg)
    ranks = problem.options["ranks"]

    def call() -> Any:
        core, factors = arrays["x"], []
        for k, r in enumerate(ranks):
            rows = np.moveaxis(core, k, 0).reshape(core.shape[k], -1)
            u = np.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :r]
            core = np.moveaxis(np.tensordot(u.T, core, (1, k)), 0, k)
            factors.append(u)
        return core, factors

    return call


def _whole(found: Any) -> Array:
    """The tensor that a core and factors stand for."""
    core, factors = (found.core, found.factors) if hasattr(found, "core") else found
    wide = [np.asarray(f, np.float64) for f in factors]
    return _multiplied(np.asarray(core, np.float64), wide)


def _answer(found: Any) -> Array:
    if hasattr(found, "toarray"):
        return _whole(found)
    if isinstance(found, tuple):
        return tensor_charges.terms(found)
    return tensor_functions.exported(found)


def _tucker(problem: Problem) -> bool:
    return problem.function == "tucker"


PEERS = [
    Peer(LINALGK, "linalgk", lambda _: True, _linalgk, _answer),
    Peer(TENSORLY, "tensorly", _tucker, _tensorly, _whole),
    Peer(TENSORLY_RANDOM, "tensorly", _tucker,
         functools.partial(_tensorly, svd="randomized_svd", random_state=0), _whole),
    Peer("tensorly, random start", "tensorly", _tucker,
         functools.partial(_tensorly, init="random", random_state=0), _whole),
    Peer(PYTTB, "pyttb", _tucker, _pyttb_als, _whole),
    Peer(HOSVD, "pyttb", _tucker, _pyttb_hosvd, _whole),
    Peer("numpy, Gram matrices", "numpy", _tucker, _by_hand, _whole),
    *tensor_formats.PEERS,
    *tensor_functions.PEERS,
    *tensor_charges.PEERS,
]  # fmt: skip


def test_tensor(benchmark: Any, problem: Problem, peer: Peer, solve: Any) -> None:
    """Called by ``pytest bench`` for every problem and contender; the error is measured before the
    time.
    """
    benchmark(solve(benchmark, problem, peer))
