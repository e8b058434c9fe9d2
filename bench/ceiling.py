"""What a machine can do at best: a copy into a fresh array, and a loop of nothing but FMA."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np

# Multiply-adds that are in flight: two units of four cycles want eight.
CHAINS = 16


def fresh_copy(x: Any, threads: int) -> Callable[[], Any]:
    """A copy of x into memory that is new each time, by so many threads."""
    pool = ThreadPoolExecutor(threads)
    pieces = np.array_split(x.reshape(-1), threads)

    def call() -> Any:
        y = np.empty_like(x)
        list(pool.map(np.copyto, np.array_split(y.reshape(-1), threads), pieces))
        return y

    return call


def fma_loop(flops: float, dtype: str, threads: int) -> Callable[[], Any]:
    """So many operations in registers, by so many threads."""
    from linalgk_kernels.cpu import _preset, _simd

    fma, splat = _simd.fma, _simd.splat

    @_preset.njit(cache=False)
    def loop(like: Any, out: Any, count: int) -> None:
        b, c = splat(like, 0.5), splat(like, 1.0)
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = b
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = c
        for _ in range(count):
            s0, s1, s2, s3 = fma(s0, b, c), fma(s1, b, c), fma(s2, b, c), fma(s3, b, c)
            s4, s5, s6, s7 = fma(s4, b, c), fma(s5, b, c), fma(s6, b, c), fma(s7, b, c)
            t0, t1, t2, t3 = fma(t0, b, c), fma(t1, b, c), fma(t2, b, c), fma(t3, b, c)
            t4, t5, t6, t7 = fma(t4, b, c), fma(t5, b, c), fma(t6, b, c), fma(t7, b, c)
        s0, s1, s2, s3 = (
            _simd.add(s0, s4),
            _simd.add(s1, s5),
            _simd.add(s2, s6),
            _simd.add(s3, s7),
        )
        t0, t1, t2, t3 = (
            _simd.add(t0, t4),
            _simd.add(t1, t5),
            _simd.add(t2, t6),
            _simd.add(t3, t7),
        )
        s0, t0 = _simd.add(_simd.add(s0, s1), _simd.add(s2, s3)), _simd.add(t0, t1)
        _simd.store(out, 0, _simd.add(s0, _simd.add(t0, _simd.add(t2, t3))))

    lanes = _simd.BYTES // np.dtype(dtype).itemsize
    count = math.ceil(flops / (2 * CHAINS * lanes * threads))
    like, outs = np.empty(0, dtype), [np.empty(lanes, dtype) for _ in range(threads)]
    loop(like, outs[0], 1)
    pool = ThreadPoolExecutor(threads)
    ready = threading.Barrier(threads)

    def piece(out: Any) -> None:
        ready.wait()
        loop(like, out, count)

    return lambda: list(pool.map(piece, outs))


def binding(x: Any, flops: float, threads: int) -> Callable[[], Any]:
    """The slower of the two, found by a try."""
    calls = [fresh_copy(x, threads), fma_loop(flops, x.dtype.name, threads)]
    times = []
    for call in calls:
        call()
        best = math.inf
        for _ in range(5):
            start = perf_counter()
            call()
            best = min(best, perf_counter() - start)
        times.append(best)
    return calls[times.index(max(times))]
