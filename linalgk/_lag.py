"""A host beside a device that is busy: where work goes, and looks that do not wait for it."""

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk.errors import DeviceError


def scope(x: Any) -> Any:
    """Where work on the array is queued and outputs are allocated: its own device."""
    if _xp.is_cuda(x):
        return _on_device(x)
    if getattr(x, "is_cuda", False) is True and _xp.cupy() is not None:
        return _with_torch(x)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _with_torch(x: Any) -> Iterator[None]:
    """PyTorch's current stream and its allocator, for kernels on views of its tensors."""
    cuda, index = _xp.cupy().cuda, x.device.index
    stream = sys.modules["torch"].cuda.current_stream(x.device).cuda_stream
    own = cuda.using_allocator(_torch_allocator().malloc)
    with cuda.Device(index), cuda.ExternalStream(stream, index), own, _in_our_words():
        yield


@functools.cache
def _torch_allocator() -> Any:
    """Memory from PyTorch's cache, so that two caches do not fill one device."""
    cupy, torch = _xp.cupy(), sys.modules["torch"]

    def take(size: int, device: int) -> Any:
        stream = cupy.cuda.get_current_stream().ptr
        return torch.cuda.caching_allocator_alloc(size, device, stream)

    def give(pointer: int, _device: int) -> None:
        torch.cuda.caching_allocator_delete(pointer)

    return cupy.cuda.PythonFunctionAllocator(take, give)


@contextlib.contextmanager
def _on_device(x: Any) -> Iterator[None]:
    with x.device if hasattr(x.device, "__enter__") else contextlib.nullcontext(), _in_our_words():
        yield


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """Kernels do not know linalgk's errors."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "KernelError":
            raise
        raise DeviceError(str(error)) from error


def contiguous(x: Any) -> Any:
    """As kernels read it: in C order, on the host and on a device."""
    if isinstance(x, np.ndarray):
        return np.ascontiguousarray(x)
    return in_c_order(x) if _xp.is_cuda(x) else x


def in_c_order(x: Any) -> Any:
    """A device's array in C order."""
    return x if x.flags.c_contiguous else x.copy(order="C")


def ahead(x: Any) -> Callable[[], Any]:
    """Start copying a device's number to the host; the answer waits for that copy only."""
    x = x.reshape(1)
    host = importlib.import_module("cupyx").empty_pinned(x.shape, x.dtype)
    stream = sys.modules["cupy"].cuda.get_current_stream()
    x.get(stream=stream, out=host, blocking=False)
    event = stream.record()

    def read() -> Any:
        event.synchronize()
        return host

    return read


class Lag:
    """The host's look at a flag between steps; at a device's one step late, while it is busy."""

    def __init__(self, like: Any) -> None:
        self._late = _xp.is_cuda(like)
        self._before: Callable[[], Any] | None = None

    def __call__(self, flag: Any) -> bool:
        """The flag, or on a device the one of the last call, False at first."""
        if not self._late:
            return bool(flag)
        before, self._before = self._before, ahead(flag)
        return before is not None and bool(before())
