"""PyTorch tensors on a device reach the kernels as CuPy's, on PyTorch's stream and memory.

Without ``-m gpu`` the tensor is a stand-in whose array is that of the emulated device.
"""

import contextlib
import importlib
import sys
from types import SimpleNamespace

import emulated
import numpy as np
import pytest

import linalgk as lk
from linalgk import _lag, _xp
from linalgk.testing import relative_error, spd_matrix

torch = pytest.importorskip("torch")
EPS = np.finfo("float32").eps

CUPY = _xp.cupy


class Stand:
    """As much of a tensor on a device as linalgk asks for."""

    is_cuda, requires_grad = True, False

    def __init__(self, array):
        self.array, self.log = array, []
        self.device = SimpleNamespace(type="cuda", index=1)
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def detach(self):
        return self

    def resolve_conj(self):
        self.log.append("conj")
        return self

    def resolve_neg(self):
        self.log.append("neg")
        return self


class Places:
    """The part of ``cupy.cuda`` that says where work goes; each entry and exit is written down."""

    def __init__(self):
        self.log = []

    @contextlib.contextmanager
    def _within(self, *what):
        self.log.append(what)
        try:
            yield what
        finally:
            self.log.append(("end", *what))

    def Device(self, index):
        return self._within("device", index)

    def ExternalStream(self, pointer, index):
        return self._within("stream", pointer, index)

    def using_allocator(self, malloc):
        return self._within("allocator", malloc)

    def PythonFunctionAllocator(self, take, give):
        return SimpleNamespace(malloc=(take, give))

    def get_current_stream(self):
        return SimpleNamespace(ptr=77)


@pytest.fixture
def place(monkeypatch):
    """The emulated device with stand-ins for CuPy's and PyTorch's streams and memory."""
    with emulated.device() as found:
        places = Places()
        library = SimpleNamespace(cuda=places, from_dlpack=lambda x: x.array)
        monkeypatch.setattr(_xp, "cupy", lambda: library)
        monkeypatch.setitem(
            _xp._FACES, Stand, _xp.Face("torch", _xp._torch_enter, _xp._torch_leave)
        )
        monkeypatch.setattr(torch, "from_dlpack", Stand)
        stream = SimpleNamespace(cuda_stream=77)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: stream)
        _lag._torch_allocator.cache_clear()
        yield found, places
        _lag._torch_allocator.cache_clear()


@pytest.mark.parametrize("n", [5, 40])
def test_kernels_serve_tensors(place, n):
    found, places = place
    a = spd_matrix(n, 1e2, batch=(3,), dtype="float32", rng=0)
    x = lk.invsqrtm(Stand(found.array(a)), assume_a="pos", on_fail="nan")
    assert isinstance(x, Stand)
    assert found.layer.launched
    assert found.looks == 0
    # theory: eps kappa
    assert relative_error(found.host(x.array), lk.invsqrtm(a.astype(float))).max() < 10 * EPS * 1e2
    kinds = [entry[0] for entry in places.log]
    assert kinds == ["device", "stream", "allocator", "end", "end", "end"]
    assert places.log[:2] == [("device", 1), ("stream", 77, 1)]


def test_memory_comes_from_pytorch(place, monkeypatch):
    _, places = place
    asked = []
    monkeypatch.setattr(
        torch.cuda, "caching_allocator_alloc", lambda *a: asked.append(a) or 4096, raising=False
    )
    monkeypatch.setattr(
        torch.cuda, "caching_allocator_delete", lambda p: asked.append(p), raising=False
    )
    take, give = _lag._torch_allocator().malloc
    assert take(256, 1) == 4096
    give(4096, 1)
    assert asked == [(256, 1, 77), 4096]
    assert places.log == []


def test_an_error_leaves_no_place_behind(place):
    found, places = place
    a = np.full((2, 5, 5), np.nan, np.float32)
    with pytest.raises(lk.errors.NonFiniteError):
        lk.sqrtm(Stand(found.array(a)))
    assert len([e for e in places.log if e[0] == "end"]) == 3


def test_without_cupy_tensors_stay_what_they_are(monkeypatch):
    # the emulation has put another in its place
    monkeypatch.setattr(_xp, "cupy", CUPY)
    monkeypatch.setitem(sys.modules, "cupy", None)
    CUPY.cache_clear()
    try:
        assert _xp.cupy() is None
        stand = Stand(np.eye(2))
        assert _xp._torch_enter(stand) is stand
        assert stand.log == ["conj", "neg"]
        with _lag.scope(stand):
            pass
    finally:
        monkeypatch.undo()
        CUPY.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("n", [8, 48, 200])
def test_on_a_gpu(n):
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA device")
    importlib.import_module("cupy")
    a = spd_matrix(n, 1e2, batch=(4,), dtype="float32", rng=0)
    want = lk.invsqrtm(a.astype(float))
    t = torch.from_numpy(a).cuda()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = lk.invsqrtm(t, assume_a="pos")
    stream.synchronize()
    assert x.device == t.device
    assert relative_error(x.cpu().numpy(), want).max() < 10 * EPS * 1e2
    t.requires_grad_()
    lk.invsqrtm(t, assume_a="pos").sum().backward()
    host = torch.from_numpy(a.astype(float)).requires_grad_()
    lk.invsqrtm(host, assume_a="pos").sum().backward()
    # the derivative has the square of the condition at most
    assert relative_error(t.grad.cpu().numpy(), host.grad.numpy()).max() < 10 * EPS * 1e4
