"""Random numbers of a device: known answers, and the bits of the CPU's."""

import emulated
import numpy as np
import pytest
from linalgk_kernels import cuda as loader
from linalgk_kernels.cpu import sketch_philox as cpu
from linalgk_kernels.cuda import sketch_philox as gpu
from numpy.testing import assert_array_equal

KEY = (0xA4093822, 0x299F31D0)
TAG = 17 | 5 << 8
# The first beyond what calls with 32-bit counters reach.
FAR = 2**34

PROBE = """
extern "C" __global__ void __launch_bounds__(32, 1)
calls(const unsigned *from, unsigned *out) {
  const unsigned *f = from + 6 * threadIdx.x;
  const uint4 w = lk_philox((counter)f[1] << 32 | f[0], f[2], f[3], f[4], f[5]);
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = lk_word(w, i);
}
extern "C" __global__ void __launch_bounds__(32, 1)
pairs(const unsigned *from, double *out, T *rounded) {
  const unsigned *f = from + 4 * threadIdx.x;
  const double2 z = lk_normal_pair(make_uint4(f[0], f[1], f[2], f[3]));
  out[2 * threadIdx.x] = z.x, out[2 * threadIdx.x + 1] = z.y;
  rounded[2 * threadIdx.x] = (T)z.x, rounded[2 * threadIdx.x + 1] = (T)z.y;
}
"""


def like(device, dtype="float64"):
    return device.array(np.zeros(1, dtype))


def bits(x):
    x = np.ascontiguousarray(x)
    return x.view(f"u{x.itemsize}")


def run_probe(device, kernel, given, *shapes):
    """A kernel beside the source's, on one thread for each row of what is given."""
    module = loader.backend().module(
        "probe.cu", loader.source("sketch_philox") + PROBE, loader.options("float32")
    )
    one = like(device)
    args = [device.array(np.array(given, np.uint32))]
    args += [loader.backend().empty((len(given), k), dtype, one) for k, dtype in shapes]
    module.get_function(kernel)((1,), (len(given),), tuple(args))
    return [device.host(x) for x in args[1:]]


def test_known_answers(cuda):
    """Those of the Random123 library: counter, key, words."""
    given = [
        [0, 0, 0, 0, 0, 0],
        [0xFFFFFFFF] * 6,
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, *KEY],
    ]
    (words,) = run_probe(cuda, "calls", given, (4, "uint32"))
    assert words.tolist() == [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]


def test_the_smallest_normals_are_far_from_subnormal(cuda):
    """u = 1 gives zero; the next u and the smallest angle give the least that is not zero."""
    given = [[0, 0, 5, 0], [0, 1 << 12, 1 << 31, 1 << 12], [0xFFFFFFFF] * 4]
    z, rounded = run_probe(cuda, "pairs", given, (2, "float64"), (2, "float32"))
    assert_array_equal(z[0], 0)
    radius = np.sqrt(-2 * np.log1p(-(2.0**-52)))
    np.testing.assert_allclose(z[1], [radius, radius * np.pi * 2.0**-53], rtol=1e-14)
    assert abs(z[1]).min() > 1e-24
    # 52 bits reach the square root of 2 log 2^52
    np.testing.assert_allclose(np.hypot(*z[2]), np.sqrt(104 * np.log(2)), rtol=1e-14)
    assert_array_equal(bits(rounded), bits(z.astype(np.float32)))


LINES = {
    "words": (4, np.uint32),
    "uniforms": (2, np.float64),
    "normals": (2, None),
    "signs": (128, None),
}


@pytest.fixture
def few_blocks(monkeypatch):
    """So few blocks that each has several turns."""
    monkeypatch.setattr(loader, "BLOCKS_EACH", 1)


@pytest.mark.parametrize("name", LINES)
def test_lines_have_the_bits_of_the_cpu(cuda, few_blocks, name, dtype):
    each, out = LINES[name]
    theirs, mine = getattr(cpu, name), getattr(gpu, name)
    one, host = like(cuda, dtype), np.zeros(1, dtype)
    for n, start in (
        (0, 3), (1, 0), (1, 127), (3, 2), (6, each - 1), (257, 1), (20 * each, 5 * each),
        (1100 * min(each, 8) + 3, FAR * each // 4 - 7), (130, 2**40 + 1),
    ):  # fmt: skip
        want = theirs(host, n, *KEY, start, TAG, 1)
        got = cuda.host(mine(one, n, *KEY, start, TAG, 1))
        assert got.dtype == want.dtype == (out or host.real.dtype)
        assert got.shape == (n,)
        assert_array_equal(bits(got), bits(want))


@pytest.mark.parametrize("high", [1, 6, 2**31 + 11, 2**62 + 1, 2**63 - 1])
def test_integers_have_the_bits_of_the_cpu(cuda, few_blocks, high):
    # every second number is rejected for 2^62 + 1 and its like, so that attempts are made
    for n, start in ((0, 0), (1, 5), (1500, 3), (70, FAR + 1)):
        want = cpu.integers(np.zeros(1), n, high, *KEY, start, TAG, 1)
        got = cuda.host(gpu.integers(like(cuda), n, high, *KEY, start, TAG, 1))
        assert got.dtype == np.int64
        assert_array_equal(got, want)
        assert n == 0 or 0 <= got.min() <= got.max() < high


TILES = [
    (1, 1, 0, 0), (2, 300, 1, 5), (5, 7, 3, FAR), (1, 40, 128, 2**33 - 20), (3, 0, 1, 1),
    (0, 4, 1, 1), (140, 31, 120, 9),
]  # fmt: skip


@pytest.mark.parametrize("name", ["normal_tile", "sign_tile"])
def test_tiles_have_the_bits_of_the_cpu(cuda, few_blocks, name, dtype):
    one, host = like(cuda, dtype), np.zeros(1, dtype)
    for rows, cols, row, col in TILES:
        want = getattr(cpu, name)(host, rows, cols, *KEY, row, col, TAG, 1)
        got = getattr(gpu, name)(one, rows, cols, *KEY, row, col, TAG, 1)
        assert cuda.host(got).dtype == want.dtype
        assert_array_equal(bits(cuda.host(got)), bits(want))


def test_a_tile_goes_where_it_is_told(cuda):
    out = cuda.array(np.zeros((3, 5), np.float32))
    for name in ("normal_tile", "sign_tile"):
        got = getattr(gpu, name)(like(cuda), 3, 5, *KEY, 2, 9, TAG, 1, out)
        assert got is out
        want = getattr(cpu, name)(np.zeros(1, np.float32), 3, 5, *KEY, 2, 9, TAG, 1)
        assert_array_equal(cuda.host(out), want)


@pytest.mark.parametrize(("nnz", "buckets"), [(1, 1), (3, 7), (4, 300), (8, 2**27), (9, 12)])
def test_hashes_have_the_bits_of_the_cpu(cuda, few_blocks, nnz, buckets):
    for m, col in ((0, 4), (1, 0), (37, 2**32 - 5), (600, FAR + 3)):
        want = cpu.stack_hashes(np.zeros(1), m, *KEY, col, TAG, nnz, buckets, 1)
        got = cuda.host(gpu.stack_hashes(like(cuda), m, *KEY, col, TAG, nnz, buckets, 1))
        assert got.dtype == np.uint32
        assert_array_equal(got, want)


def test_what_has_no_kernel_of_its_own_dtype_still_says_where(cuda):
    """Words depend on nothing but the device of ``like``."""
    one = cuda.array(np.zeros(1, np.uint32))
    want = cpu.words(None, 9, *KEY, 2, TAG, 1)
    assert_array_equal(cuda.host(gpu.words(one, 9, *KEY, 2, TAG, 1)), want)


@pytest.mark.parametrize("flush", ["left", "right"])
def test_under_the_checker(flush, few_blocks):
    """Every load and store is seen, of arrays that begin at any address or end at a page."""
    with emulated.device(mode="check", flush=flush) as device:
        for dtype in ("float32", "float64"):
            one, host = like(device, dtype), np.zeros(1, dtype)
            for name in LINES:
                for n, start in ((1, 5), (70, 2), (129, 0)):
                    got = device.host(getattr(gpu, name)(one, n, *KEY, start, TAG, 1))
                    assert_array_equal(got, getattr(cpu, name)(host, n, *KEY, start, TAG, 1))
            for name in ("normal_tile", "sign_tile"):
                got = device.host(getattr(gpu, name)(one, 5, 6, *KEY, 127, 3, TAG, 1))
                assert_array_equal(got, getattr(cpu, name)(host, 5, 6, *KEY, 127, 3, TAG, 1))
        for nnz in (3, 4):
            got = device.host(gpu.stack_hashes(one, 5, *KEY, 0, TAG, nnz, 9, 1))
            assert_array_equal(got, cpu.stack_hashes(host, 5, *KEY, 0, TAG, nnz, 9, 1))
        got = device.host(gpu.integers(one, 40, 2**62 + 1, *KEY, 0, TAG, 1))
        assert_array_equal(got, cpu.integers(host, 40, 2**62 + 1, *KEY, 0, TAG, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_is_contracted(dtype):
    """No product and sum in one operation, though the compiler may look for them."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)
    code = loader.source("sketch_philox")
    program = nvrtc.createProgram(code, "sketch_philox.cu", (), ())
    flags = ("-arch=compute_80", "-ftz=true", "--fmad=true", *loader.options(dtype))
    nvrtc.compileProgram(program, flags)
    ptx = nvrtc.getPTX(program)
    ptx = ptx.decode() if isinstance(ptx, bytes) else ptx
    assert "mul.rn.f64" in ptx
    assert "fma" not in ptx
    assert "approx" not in ptx
