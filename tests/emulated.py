"""A device for tests on machines without one: arrays that do not come to the host by themselves.

They are array_api_strict's, on its second device: the host gets their values only through the
functions that are counted here. Kernels run in ``cuda_on_cpu``, through the launch code that a GPU
gets.
"""

import contextlib
import sys
import types
from functools import partial

import cuda_on_cpu
import emulated_cupyx
import numpy as np
import pytest
from linalgk_kernels import cuda

from linalgk import _dispatch, _lag, _xp

REALS = {"complex64": "float32", "complex128": "float64"}


class Layer:
    """What `linalgk_kernels.cuda.backend` offers, on NumPy arrays and on those of the device."""

    def __init__(self, mode="fast", seed=0, shared_memory=227 * 1024, flush="right"):
        self.mode, self.seed, self.flush = mode, seed, flush
        self.shared_memory = shared_memory
        self.multiprocessors = 4
        self.launched = []

    def device_of(self, like):
        return 0

    def limits(self, device):
        return cuda.Limits(self.shared_memory, self.multiprocessors)

    def module(self, name, code, flags):
        module = cuda_on_cpu.RawModule(
            code=code, options=flags, name=name, mode=self.mode, seed=self.seed, flush=self.flush
        )
        return _Module(self, module)

    def empty(self, shape, dtype, like):
        # what a kernel leaves out must not look right
        fill = np.nan if np.dtype(dtype).kind in "fc" else -1
        return self._like(np.full(shape, np.array(fill).astype(dtype)), like)

    def zeros(self, shape, dtype, like):
        return self._like(np.zeros(shape, dtype), like)

    def array(self, host, like):
        return host

    def contiguous(self, x):
        host = x if isinstance(x, np.ndarray) else x._array
        return x if host.flags.c_contiguous else self._like(np.ascontiguousarray(host), x)

    def on(self, device):
        return contextlib.nullcontext()

    def eigh(self, a):
        w, v = np.linalg.eigh(a if isinstance(a, np.ndarray) else a._array)
        return self._like(w, a), self._like(v, a)

    def inverse_and_logdet(self, a):
        host = a if isinstance(a, np.ndarray) else a._array
        logdet = np.asarray(np.linalg.slogdet(host)[1])
        bad = ~np.isfinite(logdet)[..., None, None]
        x = np.linalg.inv(np.where(bad, np.eye(host.shape[-1], dtype=host.dtype), host))
        x = np.where(bad, np.array(np.nan, host.dtype), x)
        return self._like(x, a), self._like(logdet, a)

    def _like(self, x, like):
        return x if isinstance(like, np.ndarray) else type(like)._new(x, device=like.device)


class _Module:
    def __init__(self, layer, module):
        self._layer, self._module = layer, module

    def get_function(self, symbol):
        return _Function(self._layer, symbol, self._module.get_function(symbol))


class _Function:
    def __init__(self, layer, symbol, function):
        self.__dict__.update(_layer=layer, _symbol=symbol, _function=function)

    def __setattr__(self, name, value):
        setattr(self._function, name, value)

    def __call__(self, grid, block, args, shared_mem=0):
        self._layer.launched.append(self._symbol)
        self._function(grid, block, tuple(map(plain, args)), shared_mem=shared_mem)


def plain(x):
    """A NumPy array as a kernel sees it: complex numbers are pairs."""
    x = x._array if hasattr(x, "_array") else x
    if isinstance(x, np.ndarray) and x.dtype.kind == "c":
        return x.view(REALS[x.dtype.name])
    return x


class Device:
    """The namespace of the emulated device, and how often the host looked at it."""

    def __init__(self, strict, layer):
        self.xp, self.layer = strict, layer
        # how often the host waited for all that was queued, and looked at what was done already
        self.looks = self.glances = 0
        # entries of what it copied
        self.sizes = []
        self.device = strict.Device("device1")
        self.cupyx = emulated_cupyx.Cupyx(self)
        self.csr, self.operator = self.cupyx.csr, self.cupyx.operator

    def array(self, x):
        """A NumPy array on the device."""
        return self.xp.asarray(np.array(x, order="C"), device=self.device)

    def host(self, x):
        """A NumPy copy that is not counted."""
        return np.array(x._array)

    def fetch(self, x):
        self.looks += 1
        self.sizes.append(x.size)
        return self.host(x)

    def ahead(self, flag):
        self.glances += 1
        return lambda: self.host(flag)


@contextlib.contextmanager
def device(**options):
    """Let arrays of array_api_strict pass for CuPy's, and kernels run in the emulation."""
    strict = pytest.importorskip("array_api_strict")
    cuda_on_cpu.require()
    layer = Layer(**options)
    found = Device(strict, layer)
    kind = type(strict.asarray(0.0))
    look = kind.__bool__

    def counted(x):
        found.looks += 1
        return look(x)

    patch = pytest.MonkeyPatch()
    _dispatch._settled.clear()
    try:
        # NumPy warns where devices do not
        with cuda.using(layer), np.errstate(all="ignore"):
            patch.setitem(_xp._FACES, kind, _xp.Face("cupy", _xp._same, _xp._same))
            patch.setattr(_xp, "fetch", found.fetch)
            patch.setattr(_lag, "ahead", found.ahead)
            patch.setattr(_lag, "in_c_order", layer.contiguous)
            patch.setattr(kind, "__bool__", counted)
            for name, module in found.cupyx.modules.items():
                patch.setitem(sys.modules, name, module)
            there = types.SimpleNamespace(
                asarray=partial(strict.asarray, device=found.device),
                linalg=types.SimpleNamespace(qr=found.cupyx.qr),
                __name__="cupy",
            )
            patch.setattr(_xp, "cupy", lambda: there)
            for name in ("qr", "svd", "svdvals", "eigh", "eigvalsh", "solve", "inv", "cholesky"):
                wrap = found.cupyx.cholesky if name == "cholesky" else found.cupyx.silent
                patch.setattr(strict.linalg, name, wrap(getattr(strict.linalg, name)))
            yield found
    finally:
        patch.undo()
        _dispatch._settled.clear()


class Gpu:
    """A real device with the same words; nobody counts there."""

    looks = glances = sizes = None
    layer = None

    def __init__(self, cupy):
        self.xp = cupy

    def array(self, x):
        return self.xp.asarray(x)

    def host(self, x):
        return self.xp.asnumpy(x)

    def csr(self, a):
        from cupyx.scipy.sparse import csr_matrix

        return csr_matrix(a)

    def operator(self, a):
        from cupyx.scipy.sparse.linalg import aslinearoperator

        return aslinearoperator(self.array(a))
