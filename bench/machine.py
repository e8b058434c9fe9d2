"""The machine and its ceilings: how fast its matrix products and its memory are, measured in the
same run.
"""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from linalgk_bench.timing import best_of

# Every thread pool that a contender may bring; one setting for all.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "LINALGK_NUM_THREADS",
)


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_cpus() -> list[int]:
    """Return the numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def has_avx512() -> bool:
    """Return whether the processor has the AVX-512 subset that OpenBLAS's SkylakeX kernels use, by
    NumPy's detection.
    """
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    names = [*simd.get("baseline", []), *simd.get("found", [])]
    return "X86_V4" in names or "AVX512_SKX" in names  # NumPy from 2.4 on and before


def pin(threads: int) -> None:
    """Keep this process on the first CPUs. To be called before a library starts its threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, available_cpus()[:threads])


def environment(threads: int, coretype: str | None) -> dict[str, str]:
    """Return the environment of a contender's process; without `coretype`, OpenBLAS chooses as it
    does for the user.
    """
    env = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    env["OMP_WAIT_POLICY"] = (
        "PASSIVE"  # an idle pool that spins would slow the contender that runs next
    )
    if coretype:
        env["OPENBLAS_CORETYPE"] = coretype
    return env


def describe() -> dict[str, Any]:
    """Describe the machine, without anything that names its owner or its paths."""
    return {
        "cpu": cpu_name(),
        "cpus_available": len(available_cpus()),
        "avx512": has_avx512(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "blas_environment": blas_environment(),
    }


def blas_environment() -> dict[str, str]:
    """Return the user's settings that steer OpenBLAS, thread counts apart: without them its numbers
    are a riddle.
    """
    names = (name for name in sorted(os.environ) if name.startswith("OPENBLAS_"))
    return {name: os.environ[name] for name in names if name not in THREAD_VARIABLES}


def thread_pools() -> list[dict[str, Any]]:
    """Return the BLAS and OpenMP libraries loaded in this process, with the kernel set that BLAS
    chose.
    """
    from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "prefix", "version", "architecture", "num_threads")
    return [{k: pool[k] for k in keys if pool.get(k) is not None} for pool in threadpool_info()]


def measure_ceilings(
    threads: int, seconds: float, n: int = 1024, stream_bytes: int = 2**27
) -> dict[str, float]:
    """Measure matrix products in flops per second, and copying in bytes per second, with `threads`
    threads.

    The arrays of the copy are to exceed the last cache; traffic counts one read and one write.
    """
    gen = np.random.default_rng(0)
    ceilings = {}
    for dtype in ("float32", "float64"):
        x = gen.standard_normal((n, n)).astype(dtype)
        out = np.empty_like(x)
        ceilings[f"gemm_{dtype}"] = (
            2.0 * n**3 / best_of(lambda x=x, out=out: np.matmul(x, x, out=out), seconds)
        )
    source = np.ones(stream_bytes // 8)
    target = np.zeros_like(source)
    pieces = list(
        zip(np.array_split(target, threads), np.array_split(source, threads), strict=True)
    )
    with ThreadPoolExecutor(threads) as pool:
        elapsed = best_of(lambda: list(pool.map(lambda piece: np.copyto(*piece), pieces)), seconds)
    ceilings["stream"] = 2.0 * source.nbytes / elapsed
    return ceilings


def least_time(ceilings: dict[str, float], dtype: str, flops: float, nbytes: float) -> float:
    """Return the time below which the model's flops and bytes cannot be done at the ceilings; 0
    without a model.
    """
    real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    gemm = ceilings.get(f"gemm_{real}", 0.0)
    stream = ceilings.get("stream", 0.0)
    return max(flops / gemm if gemm else 0.0, nbytes / stream if stream else 0.0)
