"""The Walsh-Hadamard transform and sampled rows of a block: exact, the same bits everywhere."""

import emulated
import numpy as np
import pytest
from linalgk_kernels import cuda as loader
from linalgk_kernels.cpu import sketch_hadamard as cpu
from linalgk_kernels.cuda import sketch_hadamard as gpu
from numpy.testing import assert_array_equal
from scipy.linalg import hadamard

from linalgk import _plan, config_context
from linalgk.sketch import _hadamard, _hadamard_ops
from linalgk.sketch._hadamard import fwht

DTYPES = ("float32", "float64", "complex64", "complex128")


def data(rng, shape, dtype="float64"):
    x = rng.standard_normal((*shape, 2))
    return (x @ [1, 1j] if np.dtype(dtype).kind == "c" else x[..., 0]).astype(dtype)


def tiny(rng, shape, dtype):
    """Numbers of which a third is subnormal."""
    x = data(rng, shape, dtype)
    x.reshape(-1)[::3] *= np.finfo(dtype).smallest_normal
    return x


def stages(x):
    """One stage after the other, in ascending stride, along the second axis."""
    outer, n, inner = x.shape
    h = 1
    while h < n:
        y = x.reshape(outer, n // (2 * h), 2, h * inner)
        x = np.stack([y[:, :, 0] + y[:, :, 1], y[:, :, 0] - y[:, :, 1]], axis=2)
        h *= 2
    return x.reshape(outer, n, inner)


def sampled(x, flips, picks, outs, power, total=None):
    """Signs, padding, transform, rows, signs."""
    real = x.real.dtype
    padded = np.zeros((1 << power, x.shape[1]), x.dtype)
    padded[: len(x)] = x * (1 - 2 * flips.astype(real))[:, None]
    part = stages(padded[None])[0][picks] * (1 - 2 * outs.astype(real))[:, None]
    return part if total is None else total + part


def drawn(rng, rows, power, k):
    """Signs, rows and signs of a sample."""
    flips, outs = (rng.integers(0, 2, size).astype(np.uint8) for size in (rows, k))
    return flips, rng.integers(0, 1 << power, k), outs


def assert_same_bits(x, y):
    assert x.dtype == y.dtype
    assert x.shape == y.shape
    assert x.tobytes() == y.tobytes()


# --- What it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 8, 64, 1024])
def test_is_the_product_with_the_hadamard_matrix(rng, n):
    x = rng.integers(-99, 99, (n, 5))
    assert_array_equal(fwht(x, axis=0), hadamard(n) @ x)
    assert fwht(x, axis=0).dtype == np.float64


@pytest.mark.parametrize("power", [3, 10, 16])
def test_twice_is_n_times_on_integers(rng, power):
    n = 1 << power
    x = rng.integers(-1000, 1000, n).astype(float)
    assert_array_equal(fwht(fwht(x)), n * x)


@pytest.mark.parametrize("power", [0, 1, 7, 12])
def test_ortho_is_an_involution(rng, power, dtype):
    """Two transforms, each of relative error p u by Higham's bound, and two scalings."""
    x = data(rng, (3, 1 << power), dtype)
    gap = fwht(fwht(x, norm="ortho"), norm="ortho") - x
    bound = (power + 2) * np.finfo(dtype).eps * np.linalg.norm(x, axis=1)
    assert (np.linalg.norm(gap, axis=1) <= bound).all()


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_ortho_multiplies_last_and_in_the_dtype(rng, dtype):
    x = data(rng, (2, 1 << 11), dtype)
    real = x.real.dtype
    want = fwht(x).view(real) * real.type(2**-5.5)
    assert_same_bits(fwht(x, norm="ortho"), want.view(dtype))


# --- The same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [1, 2, 3, 8, 33, 128])
def test_bits_are_those_of_plain_stages(rng, dtype, inner):
    for power in range(18):
        for outer in (1, 3):
            if inner * outer << power > 1 << 17:
                continue
            x = tiny(rng, (outer, 1 << power, inner), dtype)
            assert_same_bits(cpu.fwht(x, 1.0, 1), stages(x))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1 << 17, 1), "float64"), ((3, 1 << 14, 5), "float32"), ((9, 256, 64), "float64"),
        ((1, 8, 1 << 15), "float64"), ((1 << 15, 4, 1), "complex64"),
    ],
)  # fmt: skip
def test_threads_do_not_show(rng, monkeypatch, shape, dtype):
    # small as they are, they shall be shared
    monkeypatch.setattr(cpu, "ALONE", 0)
    monkeypatch.setattr(cpu, "SHARED", 0)
    x = data(rng, shape, dtype)
    want = stages(x) * x.real.dtype.type(0.7)
    for threads in (1, 2, 8):
        assert_same_bits(cpu.fwht(x, 0.7, threads), want)


def layouts(x):
    """The same numbers in other orders of memory."""
    locked = x.copy()
    locked.flags.writeable = False
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    backwards = np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1]
    turned = np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0)
    shifted = np.empty(x.nbytes + 3, np.uint8)[3:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    swapped = x.astype(x.dtype.newbyteorder())
    return np.asfortranarray(x), locked, wide[..., ::2], backwards, turned, shifted, swapped


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_every_axis_and_layout(rng, dtype, axis):
    x = data(rng, (16, 4, 32), dtype)
    front = np.moveaxis(x, axis, 0)
    want = np.moveaxis(stages(front.reshape(1, len(front), -1)).reshape(front.shape), 0, axis)
    for given in (x, *layouts(x)):
        before = given.copy()
        assert_array_equal(fwht(given, axis=axis), want)
        assert_array_equal(given, before)
        with config_context(backend="reference"):
            assert_array_equal(fwht(given, axis=axis), want)


def test_keeps_the_order_of_memory(rng):
    x = np.asfortranarray(data(rng, (8, 6)))
    assert fwht(x, axis=0).flags.f_contiguous


def test_nan_and_infinity_spread_over_their_vector_only(rng):
    x = data(rng, (3, 16))
    x[1, 5] = np.nan
    x[2, 5] = np.inf
    y = fwht(x)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()
    assert np.isinf(y[2]).all()


# --- Bad input, and none -------------------------------------------------------------------------


def test_nothing_to_transform():
    for shape in ((0, 8), (2, 8, 0)):
        assert fwht(np.ones(shape), axis=1).shape == shape
    assert_array_equal(fwht([[3], [4]]), [[3.0], [4.0]])
    with pytest.raises(ValueError, match="power of two, got 0"):
        fwht(np.ones((3, 0)))


@pytest.mark.parametrize(
    ("given", "options", "error", "words"),
    [
        (np.ones(12), {}, ValueError, "axis -1 must be a power of two, got 12; pad .* zeros to 16"),
        (np.ones((4, 6)), {"axis": 1}, ValueError, "axis 1 .* got 6; pad it with zeros to 8"),
        (np.ones(4), {"axis": 1}, ValueError, "axis: must be less than 1, .* got 1"),
        (np.ones(4), {"axis": -2}, ValueError, "axis: must be at least -1"),
        (np.ones(4), {"axis": 0.5}, TypeError, "axis: must be an integer"),
        (np.ones(4), {"norm": "forward"}, ValueError, "norm: must be one of None, 'ortho'"),
        (3.0, {}, ValueError, "at least one axis"),
        (np.ones(4, "float16"), {}, TypeError, "float16; convert with astype"),
        (np.ones(4), {"out": np.ones(2)}, ValueError, r"out: must have shape \(4,\)"),
        (np.ones(4, int), {"out": np.ones(4, int)}, TypeError, "out: must have dtype float64"),
    ],
)
def test_bad_input(given, options, error, words):
    with pytest.raises(error, match=words):
        fwht(given, **options)


def test_out(rng):
    x = data(rng, (5, 8))
    out = np.empty((5, 16))[:, ::2]
    assert fwht(x, out=out) is out
    assert_array_equal(out, fwht(x))
    with pytest.raises(ValueError, match="overlaps"):
        fwht(x, out=x)


# --- Libraries -----------------------------------------------------------------------------------


def test_any_array_library(xp, rng, dtype):
    x = data(rng, (4, 8, 3), dtype)
    y = fwht(xp.asarray(x), axis=1)
    assert type(y) is type(xp.asarray(x))
    assert_array_equal(np.asarray(y), fwht(x, axis=1))
    ortho = np.asarray(fwht(xp.asarray(x), axis=1, norm="ortho"))
    assert ortho.dtype == dtype
    np.testing.assert_allclose(ortho, fwht(x, axis=1, norm="ortho"), rtol=np.finfo(dtype).eps)


def test_the_derivative_is_the_transform(rng):
    x, g = rng.integers(-9, 9, (2, 3, 16)).astype(float)
    want = fwht(g)
    torch = pytest.importorskip("torch")
    t = torch.tensor(x, requires_grad=True)
    (fwht(t) * torch.tensor(g)).sum().backward()
    assert_array_equal(t.grad.numpy(), want)
    with pytest.raises(TypeError, match="memory of its own"):
        fwht(t, out=torch.empty(3, 16, dtype=torch.float64))
    batched = torch.func.vmap(fwht)(torch.tensor(x))
    assert_array_equal(batched.numpy(), fwht(x))


def test_jax_traces_it(rng):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    x, g = rng.integers(-9, 9, (2, 3, 16)).astype(float)
    assert_array_equal(jax.jit(fwht)(x), fwht(x))
    _, pull = jax.vjp(jax.jit(fwht), x)
    assert_array_equal(pull(g)[0], fwht(g))


def test_plan_and_explanation(rng):
    x = data(rng, (6, 32), "float32")
    worker, explanation, like = _hadamard.plan(_plan.ArraySpec((6, 32), "float32").empty(), axis=1)
    out = np.empty_like(x)
    assert worker.run((x,), out) is out
    assert_array_equal(out, fwht(x))
    assert (like.shape, like.dtype, worker.workspace_nbytes) == ((6, 32), np.float32, 0)
    assert explanation.flops == 6 * 32 * 5
    assert explanation.bytes == 2 * x.nbytes
    assert "sketch_hadamard.fwht<float32>" in explanation.implementations["fwht"]
    with pytest.raises(ValueError, match="out: not an option of a plan"):
        _hadamard.plan(x, out=out)
    for size in ("small", "medium"):
        args, options = _hadamard.sample(size)
        assert fwht(*args, **options).shape == args[0].shape


# --- Sampled rows of a block ---------------------------------------------------------------------

BLOCKS = [
    (1, 0, 1, 3), (5, 3, 7, 9), (64, 12, 1, 40), (100, 7, 33, 20), (1000, 14, 16, 100),
    (0, 4, 3, 5), (513, 10, 70, 0), (700, 10, 2, 30),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "power", "columns", "k"), BLOCKS)
def test_block_is_signs_transform_sample(rng, dtype, rows, power, columns, k):
    x = tiny(rng, (rows, columns), dtype)
    given = drawn(rng, rows, power, k)
    total = tiny(rng, (k, columns), dtype)
    want, added = sampled(x, *given, power), sampled(x, *given, power, total)
    for matrix in (x, np.asfortranarray(x)):
        for threads in (1, 3):
            # the sign of zero counts too, unless a complex product has spoilt it
            assert_array_equal(cpu.srht(matrix, *given, power, threads), want)
            if dtype in ("float32", "float64"):
                assert_same_bits(cpu.srht(matrix, *given, power, threads), want)
            own = total.copy()
            assert cpu.srht(matrix, *given, power, threads, own) is own
            assert_array_equal(own, added)
    assert_array_equal(_hadamard_ops.srht(x, *given, power), want)


def test_block_on_several_threads(rng):
    x = data(rng, (3000, 50))
    given = drawn(rng, 3000, 12, 200)
    want = sampled(x, *given, 12)
    for threads in (1, 2, 8):
        for matrix in (x, np.asfortranarray(x)):
            assert_same_bits(cpu.srht(matrix, *given, 12, threads), want)


def test_block_of_negative_zeros():
    """A zero keeps its sign in the one row whose padding is only subtracted."""
    x = np.full((2, 3), -0.0)
    given = np.zeros(2, np.uint8), np.arange(8), np.zeros(8, np.uint8)
    got = cpu.srht(x, *given, 3, 1)
    assert_same_bits(got, sampled(x, *given, 3))


# --- CUDA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1, 1), "float64"), ((2, 8, 1), "float32"), ((3, 32, 3), "complex64"),
        ((1, 512, 40), "float64"), ((700, 16, 1), "float32"), ((1, 1, 40000), "float32"),
        ((1, 1 << 15, 1), "float32"), ((1, 1 << 17, 1), "float64"), ((3, 1 << 9, 100), "float32"),
    ],
)  # fmt: skip
def test_device_has_the_same_bits(cuda, rng, shape, dtype):
    x = tiny(rng, shape, dtype)
    assert_same_bits(cuda.host(gpu.fwht(cuda.array(x), 0.7, 1)), cpu.fwht(x, 0.7, 1))


@pytest.mark.parametrize(("rows", "power", "columns", "k"), BLOCKS)
def test_block_on_a_device(cuda, rng, rows, power, columns, k):
    for dtype in ("float32", "complex128"):
        x, total = tiny(rng, (rows, columns), dtype), tiny(rng, (k, columns), dtype)
        flips, picks, outs = drawn(rng, rows, power, k)
        given = [cuda.array(part) for part in (x, flips, picks, outs)]
        want = cpu.srht(x, flips, picks, outs, power, 1)
        assert_same_bits(cuda.host(gpu.srht(*given, power, 1)), want)
        own = cuda.array(total)
        assert gpu.srht(*given, power, 1, own) is own
        assert_same_bits(
            cuda.host(own), cpu.srht(x, flips, picks, outs, power, 1, total.copy())
        )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_access_is_checked(rng, seed):
    mode = "fast" if seed else "check"
    with emulated.device(mode=mode, seed=seed, shared_memory=40 * 1024) as device:
        for shape in ((1, 64, 1), (5, 8, 3), (1, 1 << 9, 34), (1, 1 << 14, 1)):
            x = tiny(rng, shape, "float32")
            got = device.host(gpu.fwht(device.array(x), 1.0, 1))
            assert_same_bits(got, cpu.fwht(x, 1.0, 1))
        x = tiny(rng, (70, 5), "float64")
        given = drawn(rng, 70, 8, 12)
        got = gpu.srht(*map(device.array, (x, *given)), 8, 1)
        assert_same_bits(device.host(got), cpu.srht(x, *given, 8, 1))


def test_device_arrays_through_the_front_door(rng):
    x = data(rng, (4, 16, 3), "float32")
    with emulated.device() as device:
        y = fwht(device.array(x), axis=1, norm="ortho")
        assert device.layer.launched == ["hadamard_tiles"]
        assert device.looks == 0
        assert_same_bits(device.host(y), fwht(x, axis=1, norm="ortho"))


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("limit", sorted(set(loader.SHARED_MEMORY.values())))
def test_tiles_fit_the_device_and_cover_all_stages(size, limit):
    for power in range(31):
        for inner in (1, 2, 7, 32, 33, 1000, 1 << 20):
            done = 0
            for before, own, width, rows in gpu.levels(power, inner, limit, size):
                assert before == done
                assert own <= rows
                assert gpu.shared_bytes(width << rows, size) <= limit
                done += own
            assert done == power
    # 128 KB and their padding, or 64
    whole = 15 - (size == 8) - (limit < 132 * 1024)
    assert len(gpu.levels(whole, 1, limit, size)) == 1
    assert len(gpu.levels(whole + 1, 1, limit, size)) == 2


def test_no_float_operation_flushes_subnormals():
    """What CuPy compiles with -ftz=true must not have flushing instructions."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)
    program = nvrtc.createProgram(loader.source("sketch_hadamard"), "sketch_hadamard.cu", (), ())
    nvrtc.compileProgram(program, ("-arch=compute_80", "-ftz=true", *loader.options("float32")))
    text = str(nvrtc.getPTX(program))
    assert "add.rn.f32" in text
    assert ".ftz" not in text
