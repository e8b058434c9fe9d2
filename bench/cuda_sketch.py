"""The room of sketches on a GPU: its problems and who else solves them, beside `cuda_problems`.

Errors are those of `linalgk_bench.sketch`: of the product, where a contender is given the same
operator; the distance from a law, where what is random has no true answer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.cuda_parts import Contender, Judge, Problem, torch_missing
from linalgk_bench.problems import Array
from linalgk_bench.sketch import SEED, _exact_product, _kolmogorov, _sigmas

RADIX, GEMM = "cupy radix 2", "cupy GEMM, Hadamard factors"
DCT, HOST_DCT, DCT_SKETCH = "cupyx dct", "scipy.fft.dct on the CPU", "cupyx signs, dct, rows"
CSR, CSR_F = "cuSPARSE", "cuSPARSE, data in F order"
SCATTER, ATOMICS = "cupyx scatter_add", "cupy kernel of atomics"
GENERATOR, CURAND, TORCH_RANDN = "cupy Generator", "cupy RandomState", "torch randn"

# Blocks of a line of random numbers, of which every 16th is compared with its law.
BLOCKS, EVERY = 1024, 16


# --- Data, references, errors --------------------------------------------------------------------


def _random(device: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Normal numbers from the host, the same on every device."""
    return device.put(np.random.default_rng(0).standard_normal(shape, dtype=dtype))


def _radix_two(xp: Any, x: Any) -> Any:
    """Along the first axis."""
    n, h = x.shape[0], 1
    while h < n:
        y = xp.reshape(x, (n // (2 * h), 2, h, *x.shape[1:]))
        first, second = y[:, 0], y[:, 1]
        x = xp.reshape(xp.stack([first + second, first - second], axis=1), x.shape)
        h *= 2
    return x


def _by_columns(exact: Callable[[Array], Array]) -> Callable[[Any, Any], Judge]:
    """The largest relative error of three columns and of the sum of all with random signs, where an
    error shows wherever it stands. `exact` computes from these on the host.
    """

    def judge(device: Any, a: Any) -> Judge:
        xp, n = device.xp, a.shape[1] if a.ndim > 1 else 1
        probes = np.zeros((n, 4 if n > 1 else 1))
        probes[[0, n // 2, -1], [0, 1, 2] if n > 1 else 0] = 1
        probes[:, -1] = np.random.default_rng(1).choice([-1.0, 1.0], n)
        weights = device.put(probes)

        def seen(x: Any) -> Array:
            matrix = xp.reshape(x, (x.shape[0], -1)).astype("float64")
            return np.asarray(device.host(matrix @ weights))

        truth = exact(seen(a))
        size = np.linalg.norm(truth, axis=0)
        return lambda x: float(np.max(np.linalg.norm(seen(x) - truth, axis=0) / size))

    return judge


def _transformed(x: Array) -> Array:
    return np.asarray(_radix_two(np, x.astype(np.longdouble)))


@functools.lru_cache(1)
def _operator(k: int, m: int, nnz: int) -> Any:
    """The matrix on the host, made once for its judge and its contenders."""
    import linalgk as lk

    return lk.sketch.SparseStack(k, m, nnz=nnz, rng=SEED).tosparse()


def _sketched(x: Array, k: int, nnz: int) -> Array:
    s = _operator(k, len(x), nnz)
    return _exact_product({"a": x, "values": s.data, "rows": s.indices}, k, nnz)


def _norm_ratio(device: Any, a: Any) -> Judge:
    """``| ||S A||_F^2 / ||A||_F^2 - 1 |``."""

    def squared(x: Any) -> float:
        return float(device.xp.sum(x.astype("float64") ** 2))

    whole = squared(a)
    return lambda x: abs(squared(x) / whole - 1)


def _law(error: Callable[[Array, Any], float]) -> Callable[[Any, Any], Judge]:
    """Of some blocks of the numbers, on the host; one that is not finite is seen anywhere."""

    def judge(device: Any, _a: Any) -> Judge:
        def distance(x: Any) -> float:
            some = device.host(x.reshape(BLOCKS, -1)[::EVERY])
            return error(some.ravel(), None) + float(device.xp.max(x - x))

        return distance

    return judge


# --- Problems ------------------------------------------------------------------------------------


def _name(*words: Any) -> str:
    return "-".join("x".join(map(str, w)) if isinstance(w, tuple) else str(w) for w in words)


def _bytes(dtype: str, count: float) -> float:
    return np.dtype(dtype).itemsize * count


def transform_problem(shape: tuple[int, ...], dtype: str) -> Problem:
    """The Walsh-Hadamard transform along the first axis."""
    p = shape[0].bit_length() - 1
    return Problem(
        name=_name("fwht", shape, dtype),
        function="fwht",
        shape=shape,
        dtype=dtype,
        make=lambda device: _random(device, shape, dtype),
        judge=_by_columns(_transformed),
        options={"axis": 0},
        looks=False,
        flops=float(p * np.prod(shape)),
        nbytes=_bytes(dtype, 2.0 * float(np.prod(shape))),
        error_bound=p * float(np.finfo(dtype).eps),
    )


def stack_problem(k: int, m: int, n: int, nnz: int, dtype: str) -> Problem:
    """A sparse sketch of a tall matrix, its operator included; a CountSketch if nnz is one."""

    def solve(_device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        if nnz == 1:
            return lambda: lk.sketch.CountSketch(k, m, rng=SEED) @ a
        return lambda: lk.sketch.SparseStack(k, m, nnz=nnz, rng=SEED) @ a

    return Problem(
        name=_name("countsketch" if nnz == 1 else f"stack{nnz}", k, "of", (m, n), dtype),
        function="sketch.CountSketch" if nnz == 1 else "sketch.SparseStack",
        shape=(m, n),
        dtype=dtype,
        make=lambda device: _random(device, (m, n), dtype),
        judge=_by_columns(functools.partial(_sketched, k=k, nnz=nnz)),
        options={"k": k, "nnz": nnz},
        solve=solve,
        flops=2.0 * nnz * m * n,
        nbytes=_bytes(dtype, m * n + k * n),
        # sums of m nnz / k terms
        error_bound=float(np.finfo(dtype).eps) * (m * nnz / k) ** 0.5,
    )


def srht_problem(k: int, m: int, n: int, dtype: str) -> Problem:
    """Sampled rows of the transforms of blocks of 2^14 rows, added up."""

    def solve(_device: Any, a: Any) -> Callable[[], Any]:
        import linalgk as lk

        return lambda: lk.sketch.SRHT(k, m, rng=SEED) @ a

    return Problem(
        name=_name("srht", k, "of", (m, n), dtype),
        function="sketch.SRHT",
        shape=(m, n),
        dtype=dtype,
        make=lambda device: _random(device, (m, n), dtype),
        judge=_norm_ratio,
        options={"k": k},
        solve=solve,
        flops=14.0 * m * n,
        nbytes=_bytes(dtype, m * n + k * n),
        # n columns of variance 2 / k each
        error_bound=5 * (2 / k / n) ** 0.5,
    )


def numbers_problem(kind: str, n: int, dtype: str) -> Problem:
    """Random numbers by their place: 32-bit words or normals."""

    def solve(device: Any, _a: Any) -> Callable[[], Any]:
        import linalgk as lk

        xp = device.xp
        if kind == "words":
            return lambda: lk.sketch.Philox(SEED, xp=xp).words(n)
        return lambda: lk.sketch.Philox(SEED, xp=xp).normal(n, dtype=dtype)

    return Problem(
        name=_name(kind, n, dtype),
        function="sketch.Philox",
        shape=(n,),
        dtype=dtype,
        # an example of where and of what kind the numbers are to be
        make=lambda device: device.put(np.zeros(1, dtype)),
        judge=_law(_sigmas if kind == "words" else _kolmogorov),
        options={"kind": kind},
        solve=solve,
        looks=False,
        flops=0.0,
        nbytes=_bytes(dtype, n),
        error_bound=4.5 if kind == "words" else 2.3,
    )


PROBLEMS: list[Problem] = [
    *(
        transform_problem(shape, dtype)
        for shape in ((1 << 20,), (1 << 14, 512))
        for dtype in ("float32", "float64")
    ),
    *(stack_problem(1536, 1 << 20, 128, 8, dtype) for dtype in ("float32", "float64")),
    *(stack_problem(4096, 1 << 20, 128, 1, dtype) for dtype in ("float32", "float64")),
    srht_problem(1024, 1 << 17, 128, "float32"),
    *(numbers_problem("normals", 1 << 24, dtype) for dtype in ("float32", "float64")),
    numbers_problem("words", 1 << 24, "uint32"),
]


# --- Contenders ----------------------------------------------------------------------------------


def _radix(device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    return lambda: _radix_two(device.xp, a)


def _gemm(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    """The matrix of 2^(p + q) rows is the Kronecker product of one of 2^p and one of 2^q."""
    xp, n = device.xp, a.shape[0]
    low = 1 << (n.bit_length() - 1) // 2
    left, right = (_radix_two(xp, xp.eye(size, dtype=problem.dtype)) for size in (n // low, low))

    def call() -> Any:
        y = left @ xp.reshape(a, (n // low, -1))
        if a.ndim == 1:
            return xp.reshape(y @ right, a.shape)
        return xp.reshape(right @ xp.reshape(y, (n // low, low, -1)), a.shape)

    return call


def _dct(_device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    from cupyx.scipy import fft

    return lambda: fft.dct(a, axis=0)


def _host_dct(device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    from scipy import fft

    host = device.host(a)
    return lambda: fft.dct(host, axis=0, workers=-1)


def _dct_sketch(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    """What is random is ready made."""
    from cupyx.scipy import fft

    k, m, gen = problem.options["k"], len(a), np.random.default_rng(SEED)
    signs = device.put(gen.choice([-1.0, 1.0], (m, 1)).astype(a.dtype))
    rows = device.put(gen.choice(m, k, replace=False))
    scale = (m / k) ** 0.5
    return lambda: fft.dct(a * signs, axis=0, norm="ortho")[rows] * scale


def _csr(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    """The matrix is ready made; CuPy brings data into F order, which is part of the product."""
    from cupyx.scipy.sparse import csr_matrix

    k, nnz = problem.options["k"], problem.options["nnz"]
    host = _operator(k, len(a), nnz).tocsr().astype(problem.dtype)
    s = csr_matrix(tuple(map(device.put, (host.data, host.indices, host.indptr))), host.shape)
    return lambda: s @ a


def _csr_of_f(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    return _csr(device, problem, device.xp.asfortranarray(a))


def _places(device: Any, problem: Problem, m: int) -> tuple[Any, Any]:
    """Rows and signs of a CountSketch, ready made."""
    s = _operator(problem.options["k"], m, 1)
    return device.put(s.indices), device.put(s.data.astype(problem.dtype))


def _scatter(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    import cupyx

    rows, signs = _places(device, problem, len(a))
    column, shape = signs[:, None], (problem.options["k"], a.shape[1])

    def call() -> Any:
        out = device.xp.zeros(shape, dtype=a.dtype)
        cupyx.scatter_add(out, rows, column * a)
        return out

    return call


def _atomics(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    """One pass over the data, sums in whatever order they come."""
    xp = device.xp
    rows, signs = _places(device, problem, len(a))
    n, shape = a.shape[1], (problem.options["k"], a.shape[1])
    add = xp.ElementwiseKernel(
        "T x, raw int32 rows, raw T signs, int64 n", "raw T out",
        "atomicAdd(&out[rows[i / n] * n + i % n], signs[i / n] * x)", "count_sketch",
    )  # fmt: skip

    def call() -> Any:
        out = xp.zeros(shape, dtype=a.dtype)
        add(a, rows, signs, n, out)
        return out

    return call


def _generator(device: Any, problem: Problem, _a: Any) -> Callable[[], Any]:
    gen, n = device.xp.random.default_rng(SEED), problem.shape[0]
    if problem.options["kind"] == "words":
        return lambda: gen.integers(0, 2**32 - 1, n, dtype=np.uint32, endpoint=True)
    return lambda: gen.standard_normal(n, dtype=np.dtype(problem.dtype))


def _curand(device: Any, problem: Problem, _a: Any) -> Callable[[], Any]:
    """By calls of cuRAND from the host."""
    state, n = device.xp.random.RandomState(SEED), problem.shape[0]
    return lambda: state.standard_normal(n, dtype=problem.dtype)


def _randn(_device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    import torch

    like, n = torch.from_dlpack(a), problem.shape[0]
    gen = torch.Generator(like.device).manual_seed(SEED)
    return lambda: torch.randn(n, dtype=like.dtype, device=like.device, generator=gen)


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


def _normals(problem: Problem) -> bool:
    return problem.options.get("kind") == "normals"


CONTENDERS: list[Contender] = [
    Contender(RADIX, _of("fwht"), _radix),
    Contender(GEMM, _of("fwht"), _gemm),
    # a cosine transform takes the place of a Hadamard transform in other libraries
    Contender(DCT, _of("fwht"), _dct, yardstick=True),
    Contender(HOST_DCT, _of("fwht"), _host_dct, yardstick=True, on_host=True),
    Contender(CSR, _of("sketch.SparseStack", "sketch.CountSketch"), _csr),
    Contender(CSR_F, _of("sketch.SparseStack", "sketch.CountSketch"), _csr_of_f),
    Contender(SCATTER, _of("sketch.CountSketch"), _scatter),
    Contender(ATOMICS, _of("sketch.CountSketch"), _atomics),
    Contender(DCT_SKETCH, _of("sketch.SRHT"), _dct_sketch),
    Contender(GENERATOR, _of("sketch.Philox"), _generator),
    Contender(CURAND, _normals, _curand),
    Contender(TORCH_RANDN, _normals, _randn, torch_missing),
]
