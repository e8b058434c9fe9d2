"""How pytest-benchmark runs the rooms: grouped by problem, each with its error, flops and bytes.

All contenders share one process here, so that the idle thread pool of one library may slow the next
one; for numbers to quote use ``python -m linalgk bench``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
from linalgk_bench import machine
from linalgk_bench.peers import LINALGK, Peer, Unavailable, versions
from linalgk_bench.problems import Array, Arrays, Problem


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"problem", "peer"} <= set(metafunc.fixturenames):
        cases = [
            pytest.param(problem, peer, id=f"{problem.name}-{peer.name}")
            for problem in metafunc.module.PROBLEMS
            for peer in metafunc.module.PEERS
            if peer.accepts(problem) and peer.threads is None  # all have this process's threads
        ]
        metafunc.parametrize(("problem", "peer"), cases)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The project's tests turn warnings into errors; a peer's warning is not ours to fail on.
    for item in items:
        if "peer" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["node"] = ""  # results are published
    machine_info["linalgk_bench"] = {
        **machine.describe(),
        "versions": versions(),
        "thread_pools": machine.thread_pools(),
        "coretype": os.environ.get("OPENBLAS_CORETYPE", "default"),
    }


@functools.lru_cache(maxsize=2)
def _inputs(problem: Problem) -> tuple[Arrays, Array | None]:
    arrays = problem.make()
    return arrays, problem.reference(arrays)


@pytest.fixture
def solve() -> Callable[[Any, Problem, Peer], Callable[[], Any]]:
    """Solve once, record the error, and return the call to be timed."""

    def solve(benchmark: Any, problem: Problem, peer: Peer) -> Callable[[], Any]:
        installed, reason = peer.available()
        if not installed:
            pytest.skip(reason)
        arrays, reference = _inputs(problem)
        try:
            call = peer.prepare(problem, arrays)
        except Unavailable as missing:
            pytest.skip(str(missing))
        error = None if peer.yardstick else problem.error(peer.export(call()), reference)
        benchmark.group = problem.name
        benchmark.extra_info.update(
            problem=problem.name,
            contender=peer.name,
            shape=list(problem.shape),
            dtype=problem.dtype,
            error=error,
            flops=problem.flops,
            bytes=problem.nbytes,
            threads=len(machine.available_cpus()),
        )
        if peer.name == LINALGK and problem.error_bound is not None:
            assert error is not None
            assert error <= problem.error_bound
        return call

    return solve
