"""Sparse-stack sketches on a device: the bits of the sum in its one order, however it is made."""

import re

import emulated
import numpy as np
import pytest
from linalgk_kernels import cuda as loader
from linalgk_kernels.cuda import sketch_stack as gpu
from numpy.testing import assert_array_equal

BLOCK = 1 << 14
SCALE = 8**-0.5


def places(m, k, nnz, seed=0):
    rng = np.random.default_rng(seed)
    bucket = rng.integers(k // nnz, size=(m, nnz)) + np.arange(nnz) * (k // nnz)
    return (bucket << 1 | rng.integers(2, size=(m, nnz))).astype(np.uint32)


def data(m, n, dtype, seed=1):
    """Numbers of many magnitudes, so that another order shows."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, n)) * 10.0 ** rng.integers(-4, 5, (m, n))
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal((m, n))
    return x.astype(dtype)


def reals(x):
    return x.view(x.real.dtype)


def canonical(a, h, k, first, scale=SCALE):
    """Partial sums of blocks row by row, from +0; their sum; the scale."""
    m = h.shape[0]
    source = reals(np.ascontiguousarray(a))
    total = None
    for begin in range(-first, m, BLOCK):
        rows = slice(max(begin, 0), min(begin + BLOCK, m))
        part = np.zeros((k, source.shape[1]), source.dtype)
        # in the order of its indices, one after another
        signed = np.where((h[rows] & 1)[:, :, None] == 1, -source[rows, None], source[rows, None])
        np.add.at(part, (h[rows] >> 1).ravel(), signed.reshape(-1, source.shape[1]))
        total = part if total is None else total + part
    if total is None:
        total = np.zeros((k, source.shape[1]), source.dtype)
    else:
        total *= total.dtype.type(scale)
    return total.view(a.dtype)


def same_bits(x, y):
    """Equal to the sign of zero; a NaN is a NaN."""
    assert x.dtype == y.dtype
    assert_array_equal(x, y)
    x, y = reals(x), reals(y)
    assert_array_equal(np.signbit(x[x == 0]), np.signbit(y[y == 0]))


def sketch(device, a, h, k, first, scale=SCALE, **rest):
    return device.host(
        gpu.stack_apply(device.array(a), device.array(h), k, first, scale, 1, **rest)
    )


SHAPES = [
    (1, 1, 1, 1, 0), (40, 5, 8, 4, BLOCK - 13), (33, 70, 12, 3, 5), (300, 131, 24, 8, BLOCK - 290),
    (50, 3, 2 * 1500, 2, BLOCK - 20), (64, 64, 16, 8, 0), (7, 257, 4, 1, BLOCK - 1),
    (90, 2, 1, 1, BLOCK - 30),
]  # fmt: skip


@pytest.mark.parametrize(("m", "n", "k", "nnz", "first"), SHAPES)
def test_the_canonical_bits(cuda, m, n, k, nnz, first, dtype):
    a, h = data(m, n, dtype), places(m, k, nnz)
    same_bits(sketch(cuda, a, h, k, first), canonical(a, h, k, first))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("workspace", [1, 1 << 26])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_several_blocks_in_any_arrangement(cuda, monkeypatch, split, workspace, dtype):
    """Blocks of rows side by side or one after another, all their lists at once or some."""
    monkeypatch.setattr(gpu, "BUSY", 1 << 30 if split else 0)
    monkeypatch.setattr(gpu, "WORKSPACE", workspace)
    # a block begins in the tenth row, another in the tenth from the end
    m, n, k, nnz, first = BLOCK + 20, 2, 12, 4, BLOCK - 10
    a, h = data(m, n, dtype), places(m, k, nnz)
    same_bits(sketch(cuda, a, h, k, first), canonical(a, h, k, first))
    if cuda.layer is not None:
        chunks = 3 if workspace == 1 else 1
        assert cuda.layer.launched.count("stack_lists") == chunks
        assert cuda.layer.launched.count("stack_fold") == chunks * split


@pytest.mark.parametrize("bits", [4, 5, 10])
def test_many_buckets_are_sorted_in_passes(cuda, monkeypatch, bits):
    """Two passes by need, three and four so that both ends of their way are seen."""
    monkeypatch.setattr(gpu, "BITS", bits)
    m, k, nnz, first = 700, 2 * 5000, 2, BLOCK - 400
    a, h = data(m, 1, "float64"), places(m, k, nnz)
    # neighbours that only a stable sort keeps
    h[100:400] = h[100]
    same_bits(sketch(cuda, a, h, k, first), canonical(a, h, k, first))


def test_more_buckets_than_two_passes_sort(cuda):
    k = (1 << 20) + 3
    h = places(50, k, 1)
    h[:4, 0] = (0, 2 * k - 1, 2 * k - 2, 2 << 10)
    a = data(50, 1, "float32")
    same_bits(sketch(cuda, a, h, k, 7), canonical(a, h, k, 7))


def test_one_bucket_takes_every_row(cuda):
    m, k = 3000, 2
    a, h = data(m, 3, "float32"), places(m, k, 2)
    same_bits(sketch(cuda, a, h, k, 0), canonical(a, h, k, 0))


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_add(cuda, shape, dtype):
    m, n = shape
    a, h = np.zeros(shape, dtype), places(m, 6, 3)
    got = sketch(cuda, a, h, 6, 5)
    assert got.shape == (6, n)
    assert got.dtype == a.dtype
    assert not got.any()
    y = gpu.stack_gather(cuda.array(np.ones((6, n), dtype)), cuda.array(h), 0.5, 1)
    assert cuda.host(y).shape == shape


def test_parts_of_a_sum_are_the_sum(cuda, dtype):
    """Called block by block, with what came before, and scaled at the end or by itself."""
    m, n, k, nnz, first = 60, 5, 8, 4, BLOCK - 20
    a, h = data(m, n, dtype), places(m, k, nnz)
    want = canonical(a, h, k, first)
    for last in (True, False):
        total = gpu.stack_apply(
            cuda.array(a[:20]), cuda.array(h[:20]), k, first, SCALE, 1, finish=False
        )
        again = gpu.stack_apply(
            cuda.array(a[20:]), cuda.array(h[20:]), k, 0, SCALE, 1, total=total, finish=last
        )
        assert again is total
        if not last:
            again = gpu.stack_apply(
                cuda.array(a[:0]), cuda.array(h[:0]), k, 0, SCALE, 1, total=total
            )
        same_bits(cuda.host(again), want)


def test_what_is_subnormal_stays(cuda):
    m, n, k, nnz, first = 40, 5, 8, 2, BLOCK - 11
    a = (np.random.default_rng(2).integers(-900, 900, (m, n)) * 2.0**-149).astype(np.float32)
    h = places(m, k, nnz)
    got = sketch(cuda, a, h, k, first, 0.5)
    same_bits(got, canonical(a, h, k, first, 0.5))
    assert 0 < abs(got).max() < 1e-40
    y = gpu.stack_gather(cuda.array(a[:k]), cuda.array(h), 1.0, 1)
    same_bits(cuda.host(y), gathered(a[:k], h, 1.0))


def test_zeros_and_what_is_not_finite_end_where_they_belong(cuda, dtype):
    m, n, k, nnz, first = 40, 4, 24, 2, BLOCK - 11
    a, h = data(m, n, dtype), places(m, k, nnz)
    a[3] = np.nan
    a[7, 1] = np.inf
    a[20:, 2] = -0.0
    got = sketch(cuda, a, h, k, first)
    with np.errstate(invalid="ignore"):
        same_bits(got, canonical(a, h, k, first))
    touched = np.isnan(got).all(axis=1)
    assert touched[h[3] >> 1].all()
    assert touched.sum() == nnz


def gathered(y, h, scale):
    source = reals(y)
    x = np.zeros((h.shape[0], source.shape[1]), source.dtype)
    for t in range(h.shape[1]):
        row = source[h[:, t] >> 1]
        x = x + np.where((h[:, t] & 1)[:, None] == 1, -row, row)
    return (x * x.dtype.type(scale)).view(y.dtype)


@pytest.mark.parametrize(("m", "n", "k", "nnz", "first"), SHAPES)
def test_the_transpose(cuda, m, n, k, nnz, first, dtype):
    y, h = data(k, n, dtype), places(m, k, nnz)
    got = gpu.stack_gather(cuda.array(y), cuda.array(h), SCALE, 1)
    same_bits(cuda.host(got), gathered(y, h, SCALE))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_under_the_checker(monkeypatch, split, dtype):
    """Every load and store is seen; one block of threads does all the work."""
    monkeypatch.setattr(loader, "BLOCKS_EACH", 1)
    monkeypatch.setattr(gpu, "SORTERS", 1)
    monkeypatch.setattr(gpu, "BUSY", 1 << 30 if split else 0)
    monkeypatch.setattr(gpu, "BITS", 3)
    with emulated.device(mode="check") as device:
        device.layer.multiprocessors = 1
        for m, n, k, nnz, first in ((40, 3, 4 * 9, 4, BLOCK - 13), (9, 70, 2, 1, 0)):
            a, h = data(m, n, dtype), places(m, k, nnz)
            same_bits(sketch(device, a, h, k, first), canonical(a, h, k, first))
            y = gpu.stack_gather(device.array(data(k, n, dtype)), device.array(h), SCALE, 1)
            same_bits(device.host(y), gathered(data(k, n, dtype), h, SCALE))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_order_of_threads(seed):
    m, n, k, nnz, first = 2000, 75, 8 * 40, 8, BLOCK - 900
    a, h = data(m, n, "float32"), places(m, k, nnz)
    with emulated.device(seed=seed, flush="left" if seed else "right") as device:
        same_bits(sketch(device, a, h, k, first), canonical(a, h, k, first))
        y = gpu.stack_gather(device.array(a[:k]), device.array(h), SCALE, 1)
        same_bits(device.host(y), gathered(a[:k], h, SCALE))


def test_nothing_is_flushed_or_contracted():
    """CuPy asks for subnormals to be flushed: no sum, product or sign may hear of it."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)
    for dtype in ("float32", "float64"):
        code = loader.source("sketch_stack")
        program = nvrtc.createProgram(code, "sketch_stack.cu", (), ())
        nvrtc.compileProgram(program, ("-arch=compute_80", "-ftz=true", *loader.options(dtype)))
        ptx = nvrtc.getPTX(program)
        ptx = ptx.decode() if isinstance(ptx, bytes) else ptx
        assert f"add.rn.f{dtype[-2:]}" in ptx
        assert not re.findall(r"\bfma|\.ftz|\bneg\.f|\b(?:add|sub|mul)\.f", ptx)
