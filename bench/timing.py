"""Timing of one callable in one process, in short rounds that can be interleaved with other
processes.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

# A sample shorter than this would measure the clock and the loop around the call.
SHORTEST_SAMPLE = 2e-4
MOST_SAMPLES = 1000


def time_loop(call: Callable[[], Any], loops: int) -> float:
    """Return the seconds per call of `loops` calls in a row."""
    counter = range(loops)
    start = perf_counter()
    for _ in counter:
        call()
    return (perf_counter() - start) / loops


def calibrate(call: Callable[[], Any]) -> int:
    """Return how many calls make one sample."""
    loops = 1
    while loops < 100_000:
        seconds = time_loop(call, loops) * loops
        if seconds >= SHORTEST_SAMPLE:
            break
        loops *= 2 if seconds > SHORTEST_SAMPLE / 4 else 4
    return loops


def run_round(call: Callable[[], Any], loops: int, budget: float) -> dict[str, float]:
    """Time `call` for about `budget` seconds, at least once, with the garbage collector held as in
    `timeit`.

    Returns
    -------
    dict
        ``min`` and ``median`` seconds per call, and the number of ``samples``.
    """
    call()  # the other contenders had the caches since the last round
    samples: list[float] = []
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        end = perf_counter() + budget
        while not samples or (perf_counter() < end and len(samples) < MOST_SAMPLES):
            samples.append(time_loop(call, loops))
    finally:
        if was_enabled:
            gc.enable()
    return {"min": min(samples), "median": statistics.median(samples), "samples": len(samples)}


def best_of(call: Callable[[], Any], seconds: float) -> float:
    """Return the shortest time of one call; several rounds, so that no one stall decides."""
    loops = calibrate(call)
    return min(run_round(call, loops, seconds / 5)["min"] for _ in range(5))
