"""Array libraries to run a test with; a library that is not installed is skipped by name."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest

# cuda_on_cpu and emulated are shared by several folders of tests
sys.path.insert(0, str(Path(__file__).parent))


def _namespace(name):
    if name == "numpy":
        return np
    if name == "torch":
        return pytest.importorskip("array_api_compat.torch") if _has("torch") else None
    if name == "jax":
        jax = pytest.importorskip("jax")
        jax.config.update("jax_enable_x64", True)
        return jax.numpy
    return pytest.importorskip("array_api_strict")


def _has(name):
    pytest.importorskip(name)
    return True


@pytest.fixture(params=["numpy", "torch", "jax", "array_api_strict"])
def xp(request):
    """A namespace."""
    return _namespace(request.param)


@pytest.fixture(params=["float32", "float64", "complex64", "complex128"])
def dtype(request):
    """A dtype name."""
    return request.param


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(20260101)


def _require_gpu():
    cupy = pytest.importorskip("cupy")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA device: {error}")
    if not count:
        pytest.skip("no CUDA device")
    return cupy


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        _require_gpu()


@contextlib.contextmanager
def _gpu():
    import emulated

    yield emulated.Gpu(_require_gpu())


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request):
    """A CUDA device: the emulation, and with ``-m gpu`` a real one."""
    import emulated

    with emulated.device() if request.param == "emulated" else _gpu() as found:
        yield found
