"""Defaults of the current context, and threads."""

import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from linalgk.typing import Backend, OnFail


class Config(NamedTuple):
    """One context's defaults."""

    check_finite: bool = True
    on_fail: OnFail = "raise"
    num_threads: int | None = None
    backend: Backend = "auto"


_DEFAULT = Config()
_current: contextvars.ContextVar[Config] = contextvars.ContextVar("linalgk", default=_DEFAULT)
current = _current.get


@contextlib.contextmanager
def config_context(
    *,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    num_threads: int | None = None,
    backend: Backend | None = None,
) -> Iterator[None]:
    """Change defaults for the current thread or task until the block ends.

    Parameters
    ----------
    check_finite : bool, optional
        Whether NaN and infinity in an argument are errors.
    on_fail : {"raise", "warn", "nan"}, optional
        What a numerical failure of some members does.
    num_threads : int, optional
        Threads of linalgk's own kernels and of its BLAS calls.
    backend : {"auto", "kernel", "reference"}, optional
        ``"reference"`` runs every primitive by its array-API definition; ``"kernel"`` raises
        where there is no kernel instead of falling back.

    Examples
    --------
    >>> import linalgk as lk
    >>> with lk.config_context(on_fail="nan"):
    ...     root = lk.sqrtm([[-1.0]])
    >>> root
    array([[nan]])
    """
    for name, value, allowed in (("on_fail", on_fail, OnFail), ("backend", backend, Backend)):
        if value is not None and value not in get_args(allowed):
            msg = f"{name}: must be one of {get_args(allowed)}, got {value!r}"
            raise ValueError(msg)
    if num_threads is not None and (not isinstance(num_threads, int) or num_threads < 1):
        msg = f"num_threads: must be a positive int, got {num_threads!r}"
        raise ValueError(msg)
    given = {
        "check_finite": check_finite,
        "on_fail": on_fail,
        "num_threads": num_threads,
        "backend": backend,
    }
    config = current()._replace(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    token = _current.set(config)
    try:
        yield
    finally:
        _current.reset(token)


@functools.cache
def _default_threads() -> int:
    for name in ("LINALGK_NUM_THREADS", "NUMBA_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text) > 0:
            return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_threads() -> int:
    """Threads for the current context."""
    return current().num_threads or _default_threads()


class _BlasLimit:
    """Hold BLAS to one thread while anybody needs it, and give back what was there before.

    The limit is process-wide, so overlapping holders share one change: the first sets it and
    the last restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limiter: Any = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock, self._holders = threading.Lock(), 0
        self._restore()

    def _restore(self) -> None:
        if self._limiter is not None:
            # threadpoolctl lets only the thread that set OpenBLAS's limit change it again, but
            # the last to leave need not be the first that came
            _openblas_for_all()
            self._limiter.restore_original_limits()
            _openblas_for_all()
            self._limiter = None

    def __enter__(self) -> None:
        with self._lock:
            if self._holders == 0:
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._holders += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._restore()


def _openblas_for_all() -> None:
    import threadpoolctl

    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


@functools.cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401 - its BLAS has to be loaded to be found
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


serial_blas = _BlasLimit()


@contextlib.contextmanager
def blas_threads() -> Iterator[None]:
    """Hold BLAS to the context's ``num_threads`` where one was set."""
    limit = current().num_threads
    if limit is None:
        yield
    elif limit == 1:
        with serial_blas:
            yield
    else:
        with _controller().limit(limits=limit, user_api="blas"):
            yield
