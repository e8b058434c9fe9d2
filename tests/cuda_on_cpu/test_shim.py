"""The language of shim/ against NumPy, and the arguments of a launch."""

import functools
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cuda_on_cpu

HERE = Path(__file__).parent
NARROW = {"__half": np.float16, "__nv_bfloat16": ml_dtypes.bfloat16}
SHUFFLED = {
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
    "__half": np.float16,
}
SUMMED = SHUFFLED | {"unsigned long long": np.uint64, "__nv_bfloat16": ml_dtypes.bfloat16}
del SUMMED["long long"]
EXPRESSIONS = (
    *(f"shuffles<{name}>" for name in SHUFFLED),
    *(f"add_atomically<{name}>" for name in SUMMED),
    *("other_atomics<int>", "other_atomics<unsigned long long>"),
    *("functions<float>", "functions<double>", "mma<double>"),
    *(f"narrow_arithmetic<{name}>" for name in NARROW),
)


@functools.cache
def module(mode="check", options=("-DLEVEL=3",), **kwargs):
    cuda_on_cpu.require()
    return cuda_on_cpu.RawModule(
        code=(HERE / "shim_kernels.cu").read_text(),
        options=options,
        name_expressions=EXPRESSIONS,
        mode=mode,
        name="shim_kernels.cu",
        **kwargs,
    )


def launch(kernel, *args, grid=(1,), block=(32,), shared_mem=0, of=None):
    function = (of or module()).get_function(kernel)
    args = [np.int32(a) if type(a) is int else a for a in args]
    function(grid, block, args, shared_mem=shared_mem)


# --- Warps ---------------------------------------------------------------------------------------


def shuffled(x, arg, width):
    """The four shuffles by their definition; the poison where a lane is missing."""
    lanes = np.arange(x.size)
    segment = lanes % 32 // width * width + lanes // 32 * 32
    poison = np.frombuffer(b"\xff" * x.itemsize, x.dtype)[0]
    padded = np.append(x, np.full(64, poison))
    down = lanes + arg
    flipped = lanes ^ arg
    return np.concatenate(
        [
            padded[segment + arg % width],
            np.where(lanes - arg >= segment, padded[lanes - arg], x),
            np.where(down < segment + width, padded[down], x),
            np.where(flipped < segment + width, padded[flipped], x),
        ]
    )


@pytest.mark.parametrize(("arg", "width"), [(0, 32), (1, 32), (5, 32), (16, 32), (3, 8), (9, 8)])
@pytest.mark.parametrize("name", SHUFFLED)
def test_shuffles_follow_their_definition(name, arg, width):
    # The second warp is short: its lanes beyond the 12th do not exist.
    x = (np.arange(44) * 7 - 100).astype(SHUFFLED[name])
    out = np.zeros(4 * x.size, x.dtype)
    launch(f"shuffles<{name}>", x, out, arg, width, block=(x.size,))
    assert_array_equal(out, shuffled(x, arg, width))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", ["fast", "check"])
def test_votes_matches_and_counts(mode, seed, rng):
    x = rng.integers(0, 6, 64).astype(np.int32)
    out = np.zeros((12, x.size), np.uint32)
    m = module(mode)
    m.seed = seed
    try:
        launch("votes", x, out, block=(x.size,), of=m)
    finally:
        m.seed = 0
    lanes = np.arange(64)
    bit = np.uint32(1) << (lanes % 32).astype(np.uint32)
    warp, half = lanes // 32, lanes // 16
    for i in lanes:
        mine = half == half[i]
        y = x[mine]
        assert out[0, i] == bit[(warp == warp[i]) & (x > 2)].sum()
        assert out[1, i] == bit[mine & (x > 2)].sum()
        assert (out[2, i], out[3, i]) == ((y > 2).any(), (y > 2).all())
        assert out[4, i] == bit[mine & (x == x[i])].sum()
        assert (out[5, i], out[6, i], out[7, i]) == (y.sum(), y.min(), y.max())
        assert out[8, i] == np.bitwise_xor.reduce(y)
    assert_array_equal(out[9:].T, np.tile([0, 1, (x > 2).sum()], (64, 1)))


def test_indices_run_with_x_fastest():
    out = np.zeros(2 * 3 * 2 * 60, np.int32)
    launch("coordinates", out, grid=(2, 3, 2), block=(5, 4, 3))
    expected = np.arange(12)[:, None] * 1000 + np.arange(60) + 1
    assert_array_equal(out, expected.ravel())


# --- Atomics, bits, functions --------------------------------------------------------------------


@pytest.mark.parametrize("name", SUMMED)
def test_atomic_sums(name):
    x = (np.arange(64) % 4).astype(SUMMED[name])
    out = np.zeros(1, x.dtype)
    launch(f"add_atomically<{name}>", x, out, grid=(2,), block=(64,))
    assert out[0] == 2 * 96


@pytest.mark.parametrize(("name", "dtype"), [("int", np.int32), ("unsigned long long", np.uint64)])
def test_other_atomics(name, dtype, rng):
    x = rng.integers(1, 1000, 32).astype(dtype)
    out = np.concatenate([[5000, 0, 1023, 0, 0, 0], np.arange(32)]).astype(dtype)
    launch(f"other_atomics<{name}>", x, out)
    reduced = [np.bitwise_and, np.bitwise_or, np.bitwise_xor]
    expected = [x.min(), x.max(), *(f.reduce(x) for f in reduced), x.sum()]
    assert_array_equal(out[:6], expected)
    assert_array_equal(out[6:], x + np.arange(32).astype(dtype))


def test_bit_functions(rng):
    x = rng.integers(0, 2**32, 32, dtype=np.uint32)
    x[:3] = 0, 1, 2**31
    wide = rng.integers(0, 2**64, 32, dtype=np.uint64)
    out, wide_out = np.zeros((8, 32), np.uint32), np.zeros((3, 32), np.uint64)
    launch("bits", x, out, wide, wide_out)
    for i in range(32):
        a, b = int(x[i]), int(x[(i + 1) % 32])
        both = (b << 32 | a).to_bytes(8, "little")
        assert list(out[:, i]) == [
            a.bit_count(),
            32 - a.bit_length(),
            (a & -a).bit_length(),
            int(f"{a:032b}"[::-1], 2),
            a * b >> 32,
            int.from_bytes(bytes(both[k] for k in (1, 4, 7, 2)), "little"),
            (b << 32 | a) << 11 >> 32 & 0xFFFFFFFF,
            a & 0x7F7FFFFF,
        ]
        a, b = int(wide[i]), int(wide[(i + 1) % 32])
        assert list(wide_out[:, i]) == [
            a * b >> 64,
            int(f"{a:064b}"[::-1], 2),
            a.bit_count() + 100 * (64 - a.bit_length()),
        ]


@pytest.mark.parametrize(("name", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_mathematical_functions(name, dtype, rng):
    x = rng.uniform(0.1, 9, 32).astype(dtype)
    out, ints = np.zeros((8, 32), dtype), np.zeros((3, 32), np.int32)
    launch(f"functions<{name}>", x, out, ints)
    mantissa, exponent = np.frexp(x)
    two_sums = np.fmax(x, 1) + np.fmin(x, 1) + np.fmax(x, 2) + np.fmin(x, 2)
    expected = [
        np.sqrt(x) + np.cbrt(x),
        1 / np.sqrt(x),
        np.exp2(x) - np.log2(x) + x**1.5,
        8 * x + x / 4,
        mantissa,
        two_sums,
        np.ceil(x) + np.floor(x) + np.rint(x) + np.trunc(x) + 2 * x,
        x * x - 1 + exponent - 1,
    ]
    assert_allclose(out, expected, rtol=20 * np.finfo(dtype).eps)
    assert_array_equal(ints, [exponent, exponent - 1, np.full(32, 2 + 4 + 8)])


@pytest.mark.parametrize(("option", "contracted"), [("--fmad=true", True), ("--fmad=false", False)])
def test_products_are_fused_unless_told_otherwise(option, contracted):
    x = np.float32(1 + 2**-12)
    rounded = x * x
    both = np.array([x, rounded])
    out = np.zeros(4, np.float32)
    launch("fused", both, out, block=(1,), of=module("fast", ("-DLEVEL=1", option)))
    exact = np.float32(float(x) ** 2 - float(rounded))
    assert exact != 0
    assert_array_equal(out, [exact if contracted else 0, 0, 0, exact])


# --- Narrow types --------------------------------------------------------------------------------


def same_numbers(got, expected):
    """Equal bits; of NaN only that it is one."""
    with np.errstate(invalid="ignore"):
        nan = np.isnan(expected.astype(np.float64))
        assert_array_equal(np.isnan(got.astype(np.float64)), nan)
    bits = f"u{got.itemsize}"
    assert_array_equal(got.view(bits)[~nan], expected.view(bits)[~nan])


def test_every_half_and_bfloat16_widens_as_in_numpy():
    bits = np.arange(2**16, dtype=np.uint16)
    h, b = bits.view(np.float16), bits.view(ml_dtypes.bfloat16)
    out, out_b = np.zeros(2**16, np.float32), np.zeros(2**16, np.float32)
    launch("from_narrow", h, b, out, out_b, 2**16, of=module("fast"))
    same_numbers(out, h.astype(np.float32))
    same_numbers(out_b, b.astype(np.float32))


def test_floats_narrow_as_in_numpy(rng):
    n = 200_000
    x = rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
    # Half's own range, ties, and what lies next to a tie.
    halves = rng.integers(0, 0x7C00, n // 2, dtype=np.uint16)
    ties = (halves.view(np.float16).astype(np.float32) * np.float32(1 + 2**-11)).view(np.uint32)
    x[: n // 2] = (ties + rng.integers(-1, 2, n // 2).astype(np.uint32)).view(np.float32)
    x[-8:] = 65504, 65519.996, 65520, np.inf, -np.inf, np.nan, 2**-25, 2**-24
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float64) * (1 + rng.choice([0, 2**-40, -(2**-40)], n))
    h, from_wide = np.zeros(n, np.float16), np.zeros(n, np.float16)
    b, tf32 = np.zeros(n, ml_dtypes.bfloat16), np.zeros(n, np.uint32)
    launch("to_narrow", x, wide, h, b, from_wide, tf32, n, of=module("fast"))
    with np.errstate(over="ignore", invalid="ignore"):
        same_numbers(h, x.astype(np.float16))
        same_numbers(from_wide, wide.astype(np.float16))
        same_numbers(b, x.astype(ml_dtypes.bfloat16))
    finite = np.isfinite(x) & (np.abs(x) < 1e38) & (np.abs(x) > 1e-30)
    mantissa, exponent = np.frexp(np.abs(x[finite]).astype(np.float64))
    nearest = np.ldexp(np.floor(mantissa * 2**11 + 0.5), exponent - 11) * np.sign(x[finite])
    assert_array_equal(tf32.view(np.float32)[finite], nearest.astype(np.float32))


@pytest.mark.parametrize("name", NARROW)
def test_narrow_arithmetic_rounds_once(name, rng):
    n = 512
    x, y = (rng.standard_normal(n).astype(NARROW[name]) for _ in range(2))
    out = np.zeros((6, n), x.dtype)
    launch(f"narrow_arithmetic<{name}>", x, y, out, n, grid=(4,), block=(128,))
    a, b = x.astype(np.float64), y.astype(np.float64)
    expected = [a + b, a - b, a * b, a / b, a * b + a, np.where(a < b, -a, np.abs(b))]
    for got, exact in zip(out, expected, strict=True):
        # Quotients are not exact in float64, but far from ties of the narrow format.
        same_numbers(got, exact.astype(np.float32).astype(x.dtype))


def test_pairs_have_the_first_in_the_low_half(rng):
    x = rng.standard_normal(64).astype(np.float32)
    h, b, out = np.zeros(32, np.uint32), np.zeros(32, np.uint32), np.zeros((32, 4), np.float32)
    launch("packed", x, h, b, out)
    assert_array_equal(h.view(np.float16), x.astype(np.float16))
    assert_array_equal(b.view(ml_dtypes.bfloat16), x.astype(ml_dtypes.bfloat16))
    assert_array_equal(out[:, :2].ravel(), x.astype(np.float16).astype(np.float32))
    assert_array_equal(out[:, 2:].ravel(), x.astype(ml_dtypes.bfloat16).astype(np.float32))


# --- Tensor cores --------------------------------------------------------------------------------

LANE = np.arange(32)
G, T = LANE // 4, LANE % 4
# "Parallel Thread Execution ISA", matrix fragments of mma: rows and columns of each register.
PAIR = np.arange(2)
A_F16 = (
    (G[:, None, None] + 8 * (np.arange(4)[:, None] % 2) + 0 * PAIR),
    (2 * T[:, None, None] + 8 * (np.arange(4)[:, None] // 2) + PAIR),
)
B_F16 = (
    2 * T[:, None, None] + 8 * np.arange(2)[:, None] + PAIR,
    G[:, None, None] + 0 * np.arange(2)[:, None] + 0 * PAIR,
)
A_TF32 = (G[:, None] + 8 * (np.arange(4) % 2), T[:, None] + 4 * (np.arange(4) // 2))
B_TF32 = (T[:, None] + 4 * np.arange(2), G[:, None] + 0 * np.arange(2))
A_F64 = (G[:, None] + 8 * (np.arange(8) % 2), T[:, None] + 4 * (np.arange(8) // 2))
B_F64 = (T[:, None] + 4 * np.arange(4), G[:, None] + 0 * np.arange(4))
D_16 = (G[:, None] + 8 * (np.arange(4) // 2), 2 * T[:, None] + np.arange(4) % 2)
D_8 = (G[:, None] + 0 * PAIR, 2 * T[:, None] + PAIR)


def narrow_product(kind, a, b, c, rounding="exact"):
    """D of a product of matrices through the fragments of a kind of mma."""
    maps = (A_TF32, B_TF32) if kind == 2 else (A_F16, B_F16)
    fragments = [
        np.ascontiguousarray(matrix[where]).view(np.uint32).reshape(32, -1)
        for matrix, where in zip((a, b), maps, strict=True)
    ]
    d = np.ascontiguousarray(c[D_16])
    launch("mma_narrow", *fragments, d, kind, of=module(tensor_rounding=rounding))
    out = np.zeros((16, 8), np.float32)
    out[D_16] = d
    return out


@pytest.mark.parametrize(
    ("kind", "dtype", "depth"),
    [(0, np.float16, 16), (1, ml_dtypes.bfloat16, 16), (2, np.float32, 8)],
    ids=["f16", "bf16", "tf32"],
)
def test_narrow_products_of_matrices(kind, dtype, depth, rng):
    a, b = rng.standard_normal((16, depth)), rng.standard_normal((depth, 8))
    a, b = a.astype(dtype), b.astype(dtype)
    if kind == 2:
        a, b = ((m.view(np.uint32) & 0xFFFFE000).view(np.float32) for m in (a, b))
    c = rng.standard_normal((16, 8)).astype(np.float32)
    exact = c + a.astype(np.float64) @ b.astype(np.float64)
    got = narrow_product(kind, a, b, c)
    # Rounded once: half a unit in the last place, but for the sum in float64.
    assert np.all(np.abs(got - exact) <= np.spacing(np.abs(got)) * 0.5 * (1 + 1e-6))
    cut = narrow_product(kind, a, b, c, "truncate")
    largest = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) + np.abs(c)
    assert np.all(np.abs(cut - exact) <= largest * depth * 2.0**-23)
    assert np.any(cut != got)


def test_truncated_sums_lose_what_lies_below_the_largest_term():
    a, b = np.zeros((16, 16), np.float16), np.ones((16, 8), np.float16)
    a[:, :8] = 2**-13  # together 2^-10, each below the last bit that is kept
    c = np.full((16, 8), 2.0**12, np.float32)
    assert_array_equal(narrow_product(0, a, b, c), c + 2**-10)
    assert_array_equal(narrow_product(0, a, b, c, "truncate"), c)


@pytest.mark.parametrize("kind", [3, 4], ids=["m8n8k4", "m16n8k16"])
def test_double_products_of_matrices(kind, rng):
    rows, depth = (8, 4) if kind == 3 else (16, 16)
    a, b = rng.standard_normal((rows, depth)), rng.standard_normal((depth, 8))
    c = rng.standard_normal((rows, 8))
    where = D_8 if kind == 3 else D_16
    fragments = (a[G, T], b[T, G]) if kind == 3 else (a[A_F64], b[B_F64])
    d = np.ascontiguousarray(c[where])
    launch("mma<double>", *map(np.ascontiguousarray, fragments), d, kind)
    out = np.zeros((rows, 8))
    out[where] = d
    assert_allclose(out, c + a @ b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_ldmatrix_feeds_mma(mode, rng):
    a, b = rng.standard_normal((16, 16)), rng.standard_normal((16, 8))
    a, b = a.astype(np.float16), b.astype(np.float16)
    d = np.zeros((16, 8), np.float32)
    launch("ldmatrix_product", a, b, d, of=module(mode))
    assert_allclose(d, a.astype(np.float64) @ b.astype(np.float64), rtol=0, atol=1e-5)


def test_ldmatrix_and_its_transpose():
    x = np.arange(256, dtype=np.uint16)
    out = np.zeros((14, 32), np.uint32)
    launch("ldmatrices", x, out)
    matrices = x.reshape(4, 8, 8)
    plain = np.ascontiguousarray(matrices).view(np.uint32).reshape(4, 32)
    turned = np.ascontiguousarray(matrices.transpose(0, 2, 1)).view(np.uint32).reshape(4, 32)
    expected = [*plain, *turned, *plain[:2], *turned[:2], plain[0], turned[0]]
    assert_array_equal(out, expected)


def test_copies_fill_with_zeros():
    x = np.arange(1, 129, dtype=np.float32)
    valid = (np.arange(32) % 5 * 4).astype(np.int32)
    out = np.zeros(224, np.float32)
    launch("copies", x, out, valid, shared_mem=4 * 224)
    kept = np.tile(np.arange(4), 32) < np.repeat(valid // 4, 4)
    assert_array_equal(out, np.concatenate([x[:32], x[:64], np.where(kept, x, 0)]))


# --- Arguments -----------------------------------------------------------------------------------

OPTIONS = np.dtype([("count", np.int32), ("scale", np.float32), ("shift", np.float64)])


def good_arguments():
    return [
        np.arange(16).astype(np.complex64),
        np.zeros(16, np.float32),
        np.array((3, 2.0, 5.0), OPTIONS)[()],
        np.bool_(True),
        np.float16(0.5),
        np.int8(-3),
        np.uint64(7),
        None,
    ]


def test_every_type_of_argument():
    args = good_arguments()
    function = module().get_function("every_type")
    expected_signature = "*!f4x2 *f4 V16 b1 f2 i1 u8 *!f8"
    assert function.signature == expected_signature.split()
    function((1,), (16,), args)
    assert_array_equal(args[1], 2 * (2.0 * np.arange(16) + 5) + 4.5)
    args[-1] = np.array([100.0])
    function((1,), (16,), args)
    assert_array_equal(args[1], 2 * (2.0 * np.arange(16) + 5) + 104.5)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (1, np.zeros(16), r"argument 1 is ndarray of float64, the parameter is '\*f4'"),
        (1, np.zeros(32, np.float32)[::2], "not contiguous"),
        (1, read_only(np.zeros(16, np.float32)), "the array is read-only"),
        (1, 1234, "a pointer takes an array or None"),
        (0, np.zeros(16, np.complex128), r"argument 0 is ndarray of complex128"),
        (2, np.int32(1), r"argument 2 is int32, the parameter is 'V16'"),
        (3, True, "a Python int is passed as int64"),
        (4, 0.5, "a Python float is passed as float64"),
        (5, np.float32(1), "argument 5 is float32, the parameter is 'i1'"),
        (5, 3, "a Python int is passed as int64"),
        (6, np.int64(3), "argument 6 is int64, the parameter is 'u8'"),
        (6, np.zeros(1, np.uint64), "an array where a scalar is meant"),
        (7, np.zeros(1, np.float32), r"the parameter is '\*!f8'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(index, value, message):
    args = good_arguments()
    args[index] = value
    with pytest.raises(cuda_on_cpu.LaunchError, match=message) as error:
        module().get_function("every_type")((1,), (16,), args)
    assert isinstance(error.value, (TypeError, ValueError))


def test_launches_that_a_device_would_refuse():
    function = module().get_function("every_type")
    args = good_arguments()
    with pytest.raises(cuda_on_cpu.LaunchError, match="takes 8 arguments, got 7"):
        function((1,), (16,), args[:-1])
    with pytest.raises(cuda_on_cpu.LaunchError, match="65 threads, bounded by 64"):
        function((1,), (65,), args)
    for grid, block in [((0,), (1,)), ((1, 65536), (1,)), ((1,), (1, 1, 65)), ((), (1,))]:
        with pytest.raises(cuda_on_cpu.LaunchError, match="limits are 1 to"):
            function(grid, block, args)
    with pytest.raises(cuda_on_cpu.LaunchError, match="max_dynamic_shared_size_bytes is 49152"):
        function((1,), (16,), args, shared_mem=49153)
    with pytest.raises(cuda_on_cpu.LaunchError, match="227 KB"):
        function.max_dynamic_shared_size_bytes = 227 * 1024 + 1
    function.max_dynamic_shared_size_bytes = 227 * 1024
    function((1,), (16,), args, shared_mem=227 * 1024)
    with pytest.raises(cuda_on_cpu.LaunchError, match="there is no kernel 'not_there'"):
        module().get_function("not_there")


@pytest.mark.parametrize("flush", ["right", "left"])
@pytest.mark.parametrize("mode", ["fast", "check"])
def test_arguments_that_overlap_share_memory(mode, flush):
    m = module(mode, flush=flush)
    x = np.arange(12, dtype=np.float32)
    # The input, its tail as output, and one element in the middle of both.
    launch("twice_in_place", x[:8], x[4:], x[6:7], 0, of=m, block=(8,))
    assert_array_equal(x, [0, 1, 2, 3, 4, 5, 7, 7, 8, 9, 10, 11])
    y = np.arange(5, dtype=np.float32)
    launch("twice_in_place", y, y, np.zeros(1, np.float32), 5, of=m, block=(8,))
    assert_array_equal(y, 2 * np.arange(5))


def test_views_are_bounded_by_themselves_and_empty_arrays_by_nothing():
    x = np.arange(8, dtype=np.float32)
    out = np.zeros(8, np.float32)
    with pytest.raises(cuda_on_cpu.DeviceError, match="past the end of argument 0 of 12 bytes"):
        launch("twice_in_place", x[1:4], out, out[:1].copy(), 4)
    launch("twice_in_place", x[:0], out[:0], out[:1], 0)
    with pytest.raises(cuda_on_cpu.DeviceError, match="argument 1 of 0 bytes"):
        launch("twice_in_place", x, out[:0].copy(), out[:1], 1)


def test_errors_leave_the_module_usable():
    x, out = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    for mode in ("fast", "check"):
        for _ in range(3):
            with pytest.raises(cuda_on_cpu.DeviceError):
                launch("twice_in_place", x, out[:0].copy(), x.copy(), 8, of=module(mode))
            launch("twice_in_place", x, out, x.copy(), 8, of=module(mode))
            assert_array_equal(out, 2 * x)


# --- Compiling -----------------------------------------------------------------------------------


def test_kernels_are_those_that_the_options_leave():
    out = np.zeros(1, np.int32)
    launch("made_by_macro", out, block=(1,))
    assert out[0] == 3
    with_it = ("-DLEVEL=4", "-D", "NEVER", "-arch=sm_90", "-ftz=true", "--std=c++17")
    launch("not_there", out, block=(1,), of=module("fast", with_it))
    assert out[0] == 1


def test_what_does_not_compile_is_told_with_its_line():
    cuda_on_cpu.require()
    code = '#line 1 "broken.cu"\n\nextern "C" __global__ void broken(int *out) { out[0] = y; }\n'
    with pytest.raises(cuda_on_cpu.CompileError, match=r"broken\.cu:2:.*'y'|broken\.cu:2:.*y"):
        cuda_on_cpu.RawModule(code=code)
    code = "extern __shared__ float s[];\n"
    with pytest.raises(cuda_on_cpu.CompileError, match="and in no other way"):
        cuda_on_cpu.RawModule(code=code)


def test_where_there_is_no_compiler_tests_skip_by_name(monkeypatch):
    monkeypatch.setattr(cuda_on_cpu.build, "find_compiler", lambda: None)
    with pytest.raises(pytest.skip.Exception, match=r"no C.. compiler found for tests"):
        cuda_on_cpu.require()
    with pytest.raises(cuda_on_cpu.CompileError, match=r"no C.. compiler was found"):
        cuda_on_cpu.RawModule(code="")


def test_the_ucontext_build_gives_the_same():
    x = np.arange(64, dtype=np.int32)
    m = module("fast", switch="ucontext")
    out = np.zeros((12, 64), np.uint32)
    expected = out.copy()
    launch("votes", x, out, block=(64,), of=m)
    launch("votes", x, expected, block=(64,), of=module("fast"))
    assert_array_equal(out, expected)
    y = np.zeros(8, np.float32)
    with pytest.raises(cuda_on_cpu.DeviceError, match=r"shim_kernels\.cu:\d+: write 0 bytes past"):
        launch("twice_in_place", y, y[:4].copy(), y.copy(), 8, of=m)


def test_the_twins_of_lk_ptx_have_its_names_and_parameters():
    def functions(text):
        text = re.sub(r"//.*|\\\n", "", text)
        text = re.sub(r"(,\s*)?COC_HERE", "", text)
        found = re.findall(r"\b(lk_\w+)\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*\{", text)
        return {name: re.sub(r"\s+", " ", parameters) for name, parameters in found}

    ptx = functions((HERE.parents[1] / "kernels" / "cuda" / "lk_ptx.cuh").read_text())
    wrappers = (HERE / "shim" / "wrappers.h").read_text()
    listed = re.findall(r"COC_LDMATRIX\((lk_\w+), (\d)", wrappers)
    twins = functions(wrappers) | {
        name: f"unsigned (&r)[{count}], const void *shared" for name, count in listed
    }
    del ptx["lk_shared_address"]  # of use in PTX only
    assert twins == ptx


def test_lk_ptx_is_empty_for_a_host_compiler():
    cuda_on_cpu.require()
    text = (HERE.parents[1] / "kernels" / "cuda" / "lk_ptx.cuh").read_text()
    code = f'{text}\nextern "C" __global__ void lane(unsigned *out) {{ out[0] = lk_lane_id(); }}\n'
    out = np.ones(1, np.uint32)
    cuda_on_cpu.RawModule(code=code).get_function("lane")((1,), (1,), (out,))
    assert out[0] == 0
