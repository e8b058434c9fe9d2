"""Run all compile jobs ahead of use: the work of ``warm`` and the prelude of ``tour``."""

from __future__ import annotations

import time
from dataclasses import dataclass

from linalgk.tour._progress import Progress

__all__ = ["Compiled", "compile_kernels"]


@dataclass(frozen=True)
class Compiled:
    """What was compiled (or read from the cache), how long it took, and what failed and why."""

    count: int
    seconds: float
    failed: tuple[tuple[str, str], ...]


def compile_kernels(*, progress: bool = True, device: bool = False) -> Compiled:
    """Compile every kernel, or load it from the cache.

    Parameters
    ----------
    progress : bool, default True
        Show a progress bar on a terminal.
    device : bool, default False
        Those of the CUDA device too, if CuPy finds one.

    Returns
    -------
    Compiled
    """
    from linalgk._dispatch import warm_tasks

    start = time.perf_counter()
    tasks = warm_tasks()
    if device:
        from linalgk_kernels import cuda

        tasks = [*tasks, *cuda.warm_tasks()]
    failed: list[tuple[str, str]] = []
    with Progress(len(tasks), "compiling", enabled=progress) as bar:
        for label, task in tasks:
            bar.begin(label)
            try:
                task()
            except Exception as error:  # one kernel that fails must not keep the others cold
                failed.append((label, f"{type(error).__name__}: {error}"))
    return Compiled(len(tasks) - len(failed), time.perf_counter() - start, tuple(failed))
