"""Problems and contenders of the room of Kronecker products."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import ceiling, kronecker_algebra
from linalgk_bench import kronecker_problems as problems
from linalgk_bench.kronecker_problems import INVERSE, OPERATOR, PYTTB, TENSORLY
from linalgk_bench.kronecker_problems import plain_factors as _factors
from linalgk_bench.peers import LINALGK, Peer, Unavailable
from linalgk_bench.problems import Arrays, Problem, Target

FASTKRON, MODES, SHUFFLE = "pyfastkron", "numpy modes", "numpy shuffle"
CEILING = "copy or FMA loop"
PYKRONECKER, TORCH, EIGH = "PyKronecker", "torch modes", "torch, eigh by factor"
Maker = Callable[[Problem, Arrays], Callable[[], Any]]


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


# --- Products -------------------------------------------------------------------------------------


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
    problems.likelihood_problem(400, (Target(INVERSE, 3.0),)),
    problems.mttkrp_problem(300, 32, (Target(TENSORLY, 3.0), Target(PYTTB, 1.5))),
    *problems.GALLERY,
]


def _linalgk(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    factors = _factors(arrays)
    calls: dict[str, Callable[[], Any]] = {
        "kron_matmul": lambda: lk.kron_matmul(factors, arrays["x"], side="right"),
        "mttkrp": lambda: np.stack(lk.mttkrp(arrays["x"], factors, None)),
        **kronecker_algebra.linalgk_calls(lk, arrays),
    }
    if problem.function == "Kron":
        return _likelihood(arrays, functools.partial(_terms_of_kron, lk))
    return calls[problem.function]


def _likelihood(arrays: Arrays, terms: Callable[..., Any]) -> Callable[[], Any]:
    """The negative log-likelihood and its gradient by automatic differentiation."""
    import torch

    torch.set_num_threads(_threads())
    given = [torch.from_numpy(np.array(arrays[name])) for name in ("f0", "f1", "s")]
    y = torch.from_numpy(arrays["y"])

    def call() -> Any:
        k1, k2, s = (t.clone().requires_grad_() for t in given)
        quadratic, logdet = terms(k1, k2, s, y)
        value = 0.5 * (quadratic + logdet)
        value.backward()
        return value.detach(), s.grad, k1.grad, k2.grad

    return call


def _terms_of_kron(lk: Any, k1: Any, k2: Any, s: Any, y: Any) -> Any:
    product = lk.Kron([k1, k2], assume_a="pos")
    return y @ product.solve(y, shift=s), product.slogdet(shift=s)[1]


def _terms_of_operator(k1: Any, k2: Any, s: Any, y: Any) -> Any:
    from linear_operator import operators

    dense = [operators.DenseLinearOperator(k) for k in (k1, k2)]
    noise = operators.ConstantDiagLinearOperator(s.view(1), diag_shape=y.numel())
    whole = operators.KroneckerProductLinearOperator(*dense) + noise
    return whole.inv_quad_logdet(y[:, None], logdet=True)


def _terms_by_eigh(k1: Any, k2: Any, s: Any, y: Any) -> Any:
    """What one writes by hand: derivatives go through the eigenvectors."""
    import torch

    (w1, v1), (w2, v2) = torch.linalg.eigh(k1), torch.linalg.eigh(k2)
    w = w1[:, None] * w2 + s
    z = v1.T @ y.reshape(len(k1), -1) @ v2
    return (z * z / w).sum(), w.log().sum()


def _eigh_likelihood(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return _likelihood(arrays, _terms_by_eigh)


def _tensorly(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from tensorly.cp_tensor import unfolding_dot_khatri_rao

    x, mats = arrays["x"], _factors(arrays)
    return lambda: np.stack([unfolding_dot_khatri_rao(x, (None, mats), i) for i in range(3)])


def _pyttb(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import pyttb

    # in the order that it keeps tensors in
    x, mats = pyttb.tensor(np.asfortranarray(arrays["x"])), _factors(arrays)
    return lambda: np.stack(x.mttkrps(mats))


def _einsum(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    x, (a, b, c) = arrays["x"], _factors(arrays)

    def call() -> Any:
        words: Any = {"optimize": True}
        return np.stack([
            np.einsum("ijk,jr,kr->ir", x, b, c, **words),
            np.einsum("ijk,ir,kr->jr", x, a, c, **words),
            np.einsum("ijk,ir,jr->kr", x, a, b, **words),
        ])  # fmt: skip

    return call


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


def _linear_operator(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    if problem.function == "Kron":
        return _likelihood(arrays, _terms_of_operator)
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


def _whole(x: Any) -> Any:
    """The answer of linalgk, as arrays or as tensors."""
    return problems.answer(*x) if isinstance(x, tuple) else np.asarray(x)


_PRODUCT = _of("kron_matmul")

PEERS = [
    _peer(LINALGK, "linalgk", lambda _: True, _linalgk, export=_whole),
    _peer(CEILING, "numba", _PRODUCT, _ceiling, yardstick=True),
    _peer(FASTKRON, "pyfastkron", _PRODUCT, _fastkron),
    _peer(MODES, "numpy", _PRODUCT, _numpy_modes, variant_of=FASTKRON),
    _peer(SHUFFLE, "numpy", _PRODUCT, _numpy_shuffle, variant_of=FASTKRON),
    _peer(TORCH, "torch", _PRODUCT, _torch_modes, variant_of=FASTKRON),
    _peer(OPERATOR, "linear_operator", _PRODUCT, _linear_operator, variant_of=FASTKRON),
    _peer(INVERSE, "linear_operator", _of("Kron"), _linear_operator, export=_whole),
    _peer(PYKRONECKER, "pykronecker", _PRODUCT, _pykronecker, export=_row, variant_of=FASTKRON),
    _peer(EIGH, "torch", _of("Kron"), _eigh_likelihood, export=_whole),
    _peer(TENSORLY, "tensorly", _of("mttkrp"), _tensorly),
    _peer(PYTTB, "pyttb", _of("mttkrp"), _pyttb),
    _peer("numpy einsum", "numpy", _of("mttkrp"), _einsum),
    *kronecker_algebra.PEERS,
]


def test_kronecker(benchmark: Any, problem: Problem, peer: Peer, solve: Any) -> None:
    """Called by ``pytest bench`` for every problem and contender; the error is measured before the
    time.
    """
    benchmark(solve(benchmark, problem, peer))
