"""The room of randomized solvers on a GPU: its problems and who else solves them.

Matrices with a known answer come from the host, as in `linalgk_bench.randomized_problems`, whose
measures of an error these are. Answers of several arrays are stacked, by all contenders alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import randomized_problems as known
from linalgk_bench.cuda_parts import Contender, Judge, Problem, torch_missing

CUPY_LSTSQ, TORCH_LSTSQ = "cupy lstsq", "torch lstsq"
CUPY_SVD, TORCH_SVD = "cupy svd", "torch svd_lowrank"
CUPY_PINV, TORCH_PINV, TORCH_HERMITIAN = "cupy pinv", "torch pinv", "torch pinv hermitian"
CUPY_QR, TORCH_QR, HOST_PIVOTED = "cupy qr", "torch qr", "scipy qr pivoting on the CPU"
CUPY_SLOGDET, TORCH_SLOGDET = "cupy slogdet, dense", "torch slogdet, dense"

RCOND = 1e-10  # of pseudoinverses whose rank is known to linalgk


# --- Data and errors -----------------------------------------------------------------------------


@functools.lru_cache(1)
def _system(m: int, n: int, kappa: float) -> dict[str, Any]:
    """Made once for the contenders and their judge."""
    return known.lstsq_problem(m, n, kappa).make()


def _distance(device: Any, truth: Any) -> Judge:
    """The largest relative Frobenius error of the members."""
    xp = device.xp

    def norms(x: Any) -> Any:
        return xp.sqrt(xp.sum(x * x, axis=(-2, -1)))

    return lambda x: float(xp.max(norms(x.astype("float64") - truth) / norms(truth)))


def _factors_judge(device: Any, a: Any) -> Judge:
    """``max(||Q^H Q - I||, ||A P - Q R|| / ||A||)`` of Q, R and the order of columns."""
    xp, (m, n) = device.xp, a.shape

    def error(x: Any) -> float:
        q, r, order = x[:m], x[m : m + n], x[m + n].astype("int64")
        defect = xp.linalg.norm(q.T @ q - xp.eye(n))
        product = xp.linalg.norm(q @ r - a[:, order]) / xp.linalg.norm(a)
        return float(np.maximum(float(defect), float(product)))

    return error


def _packed(xp: Any, q: Any, r: Any, perm: Any = None) -> Any:
    order = xp.arange(r.shape[1]) if perm is None else perm
    return xp.concatenate([q, r, order[None, :].astype(q.dtype)])


def _singular(xp: Any, u: Any, s: Any, vh: Any) -> Any:
    """``U diag(S)`` above V."""
    return xp.concatenate([u * s, vh.T])


def _name(*words: Any) -> str:
    return "-".join("x".join(map(str, w)) if isinstance(w, tuple) else str(w) for w in words)


# --- Problems ------------------------------------------------------------------------------------


def _problem(
    function: str, kind: str, shape: tuple[int, ...], dtype: str, solve: Any, **rest: Any
) -> Problem:
    """One whose call is made by `solve`, which waits for the device whatever ``on_fail`` says."""
    name = function.replace("_", "-")
    return Problem(
        name=_name(name, shape, dtype, kind), function=function, shape=shape, dtype=dtype,
        solve=solve, looks=False, **rest,
    )  # fmt: skip


def lstsq_problem(m: int, n: int, kappa: float = 1e6) -> Problem:
    """The error is the backward error by Karlson and Walden, on the host, in extended precision."""

    def make(device: Any) -> Any:
        arrays = _system(m, n, kappa)
        return device.put(arrays["a"]), device.put(arrays["b"])

    def judge(device: Any, _: Any) -> Judge:
        return lambda x: known.backward_error(device.host(x), _system(m, n, kappa))

    def solve(_device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        return lambda: lk.lstsq(*a, rng=0).x

    return _problem(
        "lstsq", f"k{kappa:.0e}".replace("+0", ""), (m, n), "float64", solve, make=make,
        judge=judge, flops=2.0 * m * n * n, nbytes=32.0 * m * n, error_bound=20 * known.ROUNDING,
    )  # fmt: skip


def svd_problem(m: int, n: int, k: int, dtype: str) -> Problem:
    """The error is what is lost against the best approximation of that rank."""
    s = known.powers(min(m, n))

    def judge(device: Any, _: Any) -> Judge:
        error = known.excess(s, m, k)
        return lambda x: float(error(device.host(x).astype("float64"), None))

    def solve(device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        return lambda: _singular(device.xp, *lk.svd_lowrank(a, k, rng=0))

    return _problem(
        "svd_lowrank", f"rank{k}", (m, n), dtype, solve, judge=judge, options={"rank": k},
        make=lambda device: device.put(known.with_spectrum(m, n, s).astype(dtype)),
        flops=6.0 * m * n * (k + 10), nbytes=4.0 * np.dtype(dtype).itemsize * m * n,
        error_bound=0.01,
    )  # fmt: skip


def pinv_problem(m: int, n: int, k: int) -> Problem:
    """Of rank k, which is told."""

    def factors() -> tuple[Any, Any]:
        gen = np.random.default_rng(0)
        return gen.standard_normal((m, k)), gen.standard_normal((k, n))

    def judge(device: Any, _: Any) -> Judge:
        c, r = factors()
        return _distance(device, device.put(np.linalg.pinv(r) @ np.linalg.pinv(c)))

    def solve(_device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        return lambda: lk.pinv(a, rank=k, rng=0)

    return _problem(
        "pinv", f"rank{k}", (m, n), "float64", solve, judge=judge, options={"rank": k},
        make=lambda device: device.put(np.matmul(*factors())), flops=4.0 * m * n * k,
        nbytes=32.0 * m * n, error_bound=1e-9,
    )  # fmt: skip


def batch_problem(count: int, n: int, dtype: str = "float32") -> Problem:
    """Kernel matrices of landmarks, as softmax-free attention inverts them."""

    def make(device: Any) -> Any:
        return device.put(known.pinv_batch_problem(count, n).make()["a"].astype(dtype))

    def judge(device: Any, a: Any) -> Judge:
        return _distance(device, device.xp.linalg.inv(a.astype("float64")))

    def solve(_device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        return lambda: lk.pinv(a, method="newton", hermitian=True)

    return _problem(
        "pinv", "newton", (count, n, n), dtype, solve, make=make, judge=judge,
        options={"hermitian": True}, flops=2.0 * count * n**3,
        nbytes=2.0 * np.dtype(dtype).itemsize * count * n * n,
        # 100 eps times a condition number of about 1000
        error_bound=1e5 * float(np.finfo(dtype).eps),
    )  # fmt: skip


def qr_problem(function: str, m: int, n: int, kappa: float = 1e6) -> Problem:
    """Columns that depend on each other nearly."""

    def solve(device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        call = getattr(lk, function)
        return lambda: _packed(device.xp, *call(a, rng=0))

    return _problem(
        function, f"k{kappa:.0e}".replace("+0", ""), (m, n), "float64", solve,
        judge=_factors_judge, make=lambda device: device.put(known.conditioned(m, n, kappa)[0]),
        flops=4.0 * m * n * n, nbytes=16.0 * m * n, error_bound=30 * n**0.5 * 2 * known.ROUNDING,
    )  # fmt: skip


def logdet_problem(size: int) -> Problem:
    """Of the Laplacian of a cube and the identity, as a sparse matrix; to one percent."""
    n = size**3

    def make(device: Any) -> Any:
        from cupyx.scipy.sparse import csr_matrix

        a = known.grid(size)
        return csr_matrix(tuple(map(device.put, (a.data, a.indices, a.indptr))), a.shape)

    def judge(_device: Any, _: Any) -> Judge:
        truth = float(np.log(known._levels(size)).sum())
        return lambda x: abs(float(x[0]) - truth) / truth

    def solve(device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        xp = device.xp
        return lambda: xp.reshape(xp.asarray(lk.estimate_logdet(a, tol=0.01, rng=0).value), (1,))

    return _problem(
        "estimate_logdet", "grid", (n, n), "float64", solve, make=make, judge=judge,
        options={"tol": 0.01}, flops=200.0 * 7 * n, nbytes=100.0 * 12 * 7 * n, error_bound=0.01,
    )  # fmt: skip


PROBLEMS: list[Problem] = [
    lstsq_problem(1_000_000, 100),
    pinv_problem(4000, 3000, 200),
    batch_problem(512, 49),
    batch_problem(64, 256),
    *(qr_problem(function, 100_000, 500) for function in ("qr_pivoted", "cholqr")),
    logdet_problem(24),
    # last, because a full SVD may take what is left of the time
    *(svd_problem(20_000, 5000, 100, dtype) for dtype in ("float64", "float32")),
]


# --- Contenders ----------------------------------------------------------------------------------


def _cupy_lstsq(device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    return lambda: device.xp.linalg.lstsq(*a, rcond=None)[0]


def _torch_lstsq(_device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    """By QR factors, the only way that PyTorch has on a GPU."""
    import torch

    left, right = map(torch.from_dlpack, a)
    return lambda: torch.linalg.lstsq(left, right[:, None], driver="gels").solution[:, 0]


def _cupy_svd(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    xp, k = device.xp, problem.options["rank"]

    def call() -> Any:
        u, s, vh = xp.linalg.svd(a, full_matrices=False)
        return _singular(xp, u[:, :k], s[:k], vh[:k])

    return call


def _torch_svd(_device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    """With two power iterations, six passes; with one the error is beyond the bound."""
    import torch

    b, k = torch.from_dlpack(a), problem.options["rank"]

    def call() -> Any:
        u, s, v = torch.svd_lowrank(b, q=min(k + 10, *b.shape), niter=2)
        return torch.cat([u[:, :k] * s[:k], v[:, :k]])

    return call


def _cupy_pinv(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    return lambda: device.xp.linalg.pinv(a, rcond=_cut(problem))


def _torch_pinv(_device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    import torch

    b, hermitian = torch.from_dlpack(a), problem.options.get("hermitian", False)
    return lambda: torch.linalg.pinv(b, rtol=_cut(problem), hermitian=hermitian)


def _cut(problem: Problem) -> float:
    return RCOND if "rank" in problem.options else 10 * float(np.finfo(problem.dtype).eps)


def _cupy_qr(device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    return lambda: _packed(device.xp, *device.xp.linalg.qr(a))


def _torch_qr(_device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    import torch

    b = torch.from_dlpack(a)

    def call() -> Any:
        q, r = torch.linalg.qr(b)
        order = torch.arange(r.shape[1], dtype=q.dtype, device=q.device)
        return torch.cat([q, r, order[None, :]])

    return call


def _host_pivoted(device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    from scipy.linalg import qr

    host = device.host(a)
    return lambda: qr(host, mode="economic", pivoting=True, check_finite=False)


def _cupy_slogdet(device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    """The matrix is made dense outside the call."""
    xp, dense = device.xp, a.toarray()
    return lambda: xp.reshape(xp.asarray(xp.linalg.slogdet(dense)[1]), (1,))


def _torch_slogdet(_device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    import torch

    dense = torch.from_dlpack(a.toarray())
    return lambda: torch.linalg.slogdet(dense)[1].reshape(1)


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


def _in_single(problem: Problem) -> bool:
    """A full SVD takes too long to be made twice."""
    return problem.function == "svd_lowrank" and problem.dtype == "float32"


def _batched(problem: Problem) -> bool:
    return problem.function == "pinv" and len(problem.shape) > 2


def _single(problem: Problem) -> bool:
    return problem.function == "pinv" and len(problem.shape) == 2


CONTENDERS: list[Contender] = [
    Contender(CUPY_LSTSQ, _of("lstsq"), _cupy_lstsq),
    Contender(TORCH_LSTSQ, _of("lstsq"), _torch_lstsq, torch_missing),
    Contender(CUPY_SVD, _in_single, _cupy_svd),
    Contender(TORCH_SVD, _of("svd_lowrank"), _torch_svd, torch_missing),
    Contender(CUPY_PINV, _of("pinv"), _cupy_pinv),
    Contender(TORCH_PINV, _single, _torch_pinv, torch_missing),
    Contender(TORCH_HERMITIAN, _batched, _torch_pinv, torch_missing),
    Contender(CUPY_QR, _of("qr_pivoted", "cholqr"), _cupy_qr),
    Contender(TORCH_QR, _of("qr_pivoted", "cholqr"), _torch_qr, torch_missing),
    # no library on the GPU has pivots
    Contender(HOST_PIVOTED, _of("qr_pivoted"), _host_pivoted, yardstick=True, on_host=True),
    Contender(CUPY_SLOGDET, _of("estimate_logdet"), _cupy_slogdet),
    Contender(TORCH_SLOGDET, _of("estimate_logdet"), _torch_slogdet, torch_missing),
]
