"""The language and the operations of ``lk_ptx.cuh``: what a device does is what the emulation does.

The kernels of the emulation's own tests are compiled for every architecture, which needs no device,
and with ``-m gpu`` both run and are compared.
"""

import functools
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from linalgk_kernels import cuda
from numpy.testing import assert_allclose, assert_array_equal

import cuda_on_cpu

HERE = Path(__file__).parent
INSTANCES = ("mma<double>", "shuffles<float>", "functions<float>", "functions<double>")


def device_text():
    headers = "#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n"
    ptx = (cuda.FOLDER / "lk_ptx.cuh").read_text().replace("#pragma once\n", "\n")
    kernels = (HERE / "shim_kernels.cu").read_text()
    return f'{headers}#line 1 "lk_ptx.cuh"\n{ptx}\n#line 1 "shim_kernels.cu"\n{kernels}'


def include_folders():
    """Where the wheels keep the headers of half and bfloat16."""
    import nvidia

    return sorted(
        {path.parent for root in nvidia.__path__ for path in Path(root).rglob("cuda_fp16.h")}
    )


@pytest.mark.parametrize("architecture", [80, 90, 100, 120])
def test_the_same_text_compiles_for_a_device(architecture):
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)
    program = nvrtc.createProgram(device_text(), "shim.cu", (), ())
    for name in INSTANCES:
        nvrtc.addNameExpression(program, name)
    flags = (f"-arch=sm_{architecture}", "--std=c++17", "-DLEVEL=3", "-ftz=true")
    try:
        nvrtc.compileProgram(program, (*flags, *(f"-I{path}" for path in include_folders())))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program)[:2000])
    assert len(nvrtc.getCUBIN(program)) > 10_000


@functools.cache
def emulated():
    cuda_on_cpu.require()
    code = (HERE / "shim_kernels.cu").read_text()
    return cuda_on_cpu.RawModule(code=code, options=("-DLEVEL=3",), name_expressions=INSTANCES)


@functools.cache
def real():
    cupy = pytest.importorskip("cupy")
    options = ("--std=c++17", "-DLEVEL=3", *(f"-I{path}" for path in include_folders()))
    return cupy.RawModule(code=device_text(), options=options, name_expressions=INSTANCES)


def both(kernel, *args, shared_mem=0):
    """The arrays after the emulation's run, and after the device's."""
    import cupy

    args = [np.int32(x) if type(x) is int else x for x in args]
    host = [x.copy() if isinstance(x, np.ndarray) else x for x in args]
    emulated().get_function(kernel)((1,), (32,), host, shared_mem=shared_mem)
    there = [cupy.asarray(x) if isinstance(x, np.ndarray) else x for x in args]
    real().get_function(kernel)((1,), (32,), tuple(there), shared_mem=shared_mem)
    arrays = [(x, cupy.asnumpy(y)) for x, y in zip(host, there, strict=True) if np.ndim(x)]
    return [x for x, _ in arrays], [y for _, y in arrays]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [0, 1, 2], ids=["f16", "bf16", "tf32"])
def test_narrow_products(kind, rng):
    """Fragments of small whole numbers: every product and sum is exact, and every map counts."""
    dtype = (np.float16, ml_dtypes.bfloat16, np.float32)[kind]
    a, b = (
        rng.integers(-8, 9, 32 * count * 4 // np.dtype(dtype).itemsize)
        .astype(dtype)
        .view(np.uint32)
        for count in (4, 2)
    )
    d = rng.integers(-8, 9, (32, 4)).astype(np.float32)
    want, got = both("mma_narrow", a.reshape(32, 4), b.reshape(32, 2), d, kind)
    assert_array_equal(got[-1], want[-1])


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "sizes"), [(3, (1, 1, 2)), (4, (8, 4, 4))])
def test_double_products(kind, sizes, rng):
    args = [rng.integers(-8, 9, (32, size)).astype(np.float64) for size in sizes]
    want, got = both("mma<double>", *args, kind)
    assert_array_equal(got[-1], want[-1])


@pytest.mark.gpu
def test_matrices_and_copies(rng):
    x = np.arange(256, dtype=np.uint16)
    want, got = both("ldmatrices", x, np.zeros((14, 32), np.uint32))
    assert_array_equal(got[-1], want[-1])
    x = np.arange(1, 129, dtype=np.float32)
    valid = (np.arange(32) % 5 * 4).astype(np.int32)
    want, got = both("copies", x, np.zeros(224, np.float32), valid, shared_mem=4 * 224)
    assert_array_equal(got[1], want[1])


@pytest.mark.gpu
@pytest.mark.parametrize(("arg", "width"), [(1, 32), (5, 32), (3, 8)])
def test_shuffles(arg, width):
    x = np.arange(32, dtype=np.float32)
    want, got = both("shuffles<float>", x, np.zeros(128, np.float32), arg, width)
    assert_array_equal(got[-1], want[-1])


@pytest.mark.gpu
def test_conversions(rng):
    x = rng.standard_normal(64).astype(np.float32)
    names = emulated().get_function("packed").signature
    arrays = [x]
    for name in names[1:]:
        arrays.append(np.zeros(128, np.uint32 if "u4" in name else np.float32))
    want, got = both("packed", *arrays)
    for mine, theirs in zip(got, want, strict=True):
        assert_allclose(mine, theirs, rtol=0)
