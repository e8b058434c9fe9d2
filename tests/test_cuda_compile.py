"""Every CUDA source with every set of constants, compiled for every architecture; no GPU needed."""

import re

import pytest
from linalgk_kernels import cuda

nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)

ARCHITECTURES = (80, 90, 100, 120)
KERNELS = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(')


def compiled(code, options, architecture):
    """The cubin and what the compiler says about it."""
    program = nvrtc.createProgram(code, "linalgk.cu", (), ())
    # CuPy adds the first two itself
    flags = (f"-arch=sm_{architecture}", "-ftz=true", "--ptxas-options=-v", *options)
    try:
        nvrtc.compileProgram(program, flags)
    except nvrtc.NVRTCError:
        pytest.fail(cuda.first_error(nvrtc.getProgramLog(program), code))
    return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)


def usage(log):
    """Per kernel: registers, bytes spilled, static shared memory."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        shared = re.search(r"(\d+) bytes smem", part)
        registers = re.search(r"Used (\d+) registers", part)
        found[name] = int(registers[1]), spilled, int(shared[1]) if shared else 0
    return found


CASES = [
    pytest.param(variant, dtype, architecture, id=f"{variant.stem}-{n}-{dtype}-sm_{architecture}")
    for n, variant in enumerate(cuda.variants())
    for dtype in ("float32", "float64")
    for architecture in ARCHITECTURES
    if architecture >= variant.oldest
]


@pytest.mark.parametrize(("variant", "dtype", "architecture"), CASES)
def test_compiles_without_spills_and_fits(variant, dtype, architecture):
    code = cuda.source(variant.stem)
    cubin, log = compiled(code, cuda.options(dtype, **variant.defines), architecture)
    assert len(cubin) > 1000
    kernels = usage(log)
    assert set(kernels) == set(KERNELS.findall(code))
    limit, size = cuda.SHARED_MEMORY[architecture], cuda.SIZES[cuda.C_TYPES[dtype]]
    dynamic = variant.dynamic(limit, size) if variant.dynamic else 0
    for name, (registers, spilled, shared) in kernels.items():
        assert spilled == 0, name
        assert shared + dynamic <= limit, name
        # every thread of the largest block has its registers, in units of eight
        bound = int(re.search(r"__launch_bounds__\((\d+), 1\)\s*" + name, code)[1])
        assert -(-registers // 8) * 8 * bound <= 65536, name


def test_every_source_is_compiled():
    sources = {path.stem for path in cuda.FOLDER.glob("*.cu")}
    assert sources == {variant.stem for variant in cuda.variants()}


def test_the_first_error_is_shown_with_its_line():
    code = cuda.source("matfun_tails") + 'extern "C" __global__ void f(T *x) {\n  x[0] = oops;\n}\n'
    code = code.replace(
        '\nextern "C" __global__ void f', '\n#line 1 "more.cu"\nextern "C" __global__ void f'
    )
    program = nvrtc.createProgram(code, "matfun_tails.cu", (), ())
    with pytest.raises(nvrtc.NVRTCError):
        nvrtc.compileProgram(program, ("-arch=sm_80", *cuda.options("float32")))
    message = cuda.first_error(nvrtc.getProgramLog(program), code)
    assert message.startswith("more.cu(2): error")
    assert "oops" in message
    assert message.endswith("2 |   x[0] = oops;")


def test_ptx_stays_in_one_file():
    for path in cuda.FOLDER.glob("*.cu*"):
        text = path.read_text(encoding="utf-8")
        assert ("asm" in re.findall(r"\w+", text)) == (path.name == "lk_ptx.cuh"), path.name
        includes = re.findall(r"#include\s+(\S+)", text)
        assert all(re.fullmatch(r'"\w+\.cuh"|<cuda_(fp16|bf16)\.h>', name) for name in includes)
