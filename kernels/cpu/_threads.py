"""A range of independent work on our own threads: any kernel that releases the GIL can use it.

Plain Python threads survive forks and concurrent callers, which Numba's layers other than TBB do
not; a call costs tens of microseconds, so only work of more than that is split.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_inside = threading.local()


def _forget() -> None:
    """The threads of a pool do not exist in a forked child."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # Idle threads cost nothing; more than there are cores never run at once for long.
            _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, 2), "linalgk")
        return _pool


def _work(func, start, stop):
    _inside.busy = True
    try:
        return func(start, stop)
    finally:
        _inside.busy = False


def run(func, count: int, threads: int) -> list:
    """``func(start, stop)`` over at most ``threads`` pieces of ``range(count)``; their results.

    The calling thread takes the first piece. Called from inside a piece it runs serially, so
    nested use neither waits for itself nor multiplies threads.
    """
    pieces = min(threads, count)
    if pieces <= 1 or getattr(_inside, "busy", False):
        return [func(0, count)] if count else []
    bounds = [count * i // pieces for i in range(pieces + 1)]
    executor = _executor()
    jobs = [executor.submit(_work, func, *bounds[i : i + 2]) for i in range(1, pieces)]
    try:
        first = func(bounds[0], bounds[1])
    finally:
        # outputs are shared memory: nobody may leave while a piece still writes
        wait(jobs)
    return [first, *(job.result() for job in jobs)]
