"""Products with Kronecker products on a device: errors, bits, launches, tiles."""

import functools
import itertools
import math

import cuda_on_cpu
import emulated
import numpy as np
import pytest
from linalgk_kernels import cuda as loader
from linalgk_kernels.cuda import kronecker_product as gpu

from linalgk.kronecker._ops import kron_matmul as by_modes

WIDE = {"float32": "float64", "complex64": "complex128"}
SIZE = {"float32": 4, "float64": 8, "complex64": 4, "complex128": 8}


def draw(rng, shape, dtype):
    z = rng.standard_normal(shape)
    return (z + 1j * rng.standard_normal(shape) if "complex" in dtype else z).astype(dtype)


def data(rng, shapes, sets, members, columns, dtype):
    """x and the factors: ``sets`` of them, for so many members each."""
    x = draw(rng, (sets * members, math.prod(q for _, q in shapes), columns), dtype)
    return x, tuple(draw(rng, (sets, *s), dtype) for s in shapes)


def product(device, x, factors, out=None):
    out = None if out is None else device.array(out)
    y = gpu.kron_matmul(device.array(x), tuple(map(device.array, factors)), 1, out)
    assert out is None or y is out
    return device.host(y)


def exact(x, factors):
    """In the next higher precision, and the same of absolute values."""
    kind = WIDE.get(x.dtype.name, "clongdouble" if x.dtype.kind == "c" else "longdouble")
    size = np.dtype(kind).type(0).real.dtype
    return (
        by_modes(x.astype(kind), tuple(f.astype(kind) for f in factors)),
        by_modes(abs(x).astype(size), tuple(abs(f).astype(size) for f in factors)),
    )


def check(y, x, factors, three_terms=False):
    """``|y - K x| <= (sum of q + 2 N) u (|F_1| kron ...) |x|``, four times that if complex.

    Factors that are multiplied out have sums of more terms. On halves of numbers, each product
    misses 2^-23 and each of the three sums of a step of eight is cut off at 2^-23.
    """
    want, size = exact(x, factors)
    assert y.dtype == x.dtype
    assert y.shape == want.shape
    unit = np.finfo(x.dtype).eps / 2
    merged = gpu.MERGED if len(factors) > 1 else 0
    terms = sum(max(f.shape[-1], merged) for f in factors) + 2 * len(factors)
    if three_terms:
        terms += 10 * len(factors)
    assert (abs(y - want) <= (4 if y.dtype.kind == "c" else 1) * terms * unit * size).all()


SMALL = [
    # shapes, sets, members, columns: one tile and several, columns and members, parts of both
    (((8, 8), (8, 8), (8, 8)), 1, 3, 1),
    (((3, 2), (8, 8), (5, 4)), 2, 1, 3),
    (((2, 2),) * 9, 3, 2, 1),
    (((16, 16), (9, 9)), 1, 1, 40),
    (((5, 5), (7, 3), (6, 5)), 2, 2, 21),
    (((1, 4), (12, 1), (3, 3)), 1, 5, 2),
    (((24, 24), (17, 20)), 1, 1, 1),
    (((1, 1),), 2, 2, 3),
]
LARGE = [
    (((70, 66), (3, 3)), 2, 2, 1),
    (((3, 3), (90, 70)), 1, 2, 17),
    (((130, 3),), 1, 1, 20),
    (((2, 150),), 3, 1, 1),
]


@pytest.mark.parametrize(("shapes", "sets", "members", "columns"), SMALL + LARGE)
def test_products_on_a_device(cuda, rng, dtype, shapes, sets, members, columns):
    x, factors = data(rng, shapes, sets, members, columns, dtype)
    check(product(cuda, x, factors), x, factors)


@pytest.mark.parametrize(
    ("dtype", "tensor"),
    [
        ("float32", 0), ("float32", 1), ("float64", 0), ("float64", 1), ("complex64", 1),
        ("complex128", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("shapes", "sets", "members", "columns"), SMALL + LARGE[:2])
def test_every_access_is_checked(
    monkeypatch, rng, dtype, tensor, shapes, sets, members, columns
):  # fmt: skip
    monkeypatch.setattr(gpu, "TENSOR_CORES", {"float": tensor, "double": tensor})
    # little shared memory: more launches, and blocks of which each has several tiles
    monkeypatch.setattr(loader, "BLOCKS_EACH", 1)
    x, factors = data(rng, shapes, sets, members, columns, dtype)
    with emulated.device(mode="check", shared_memory=32 * 1024) as device:
        device.layer.multiprocessors = 2
        y = product(device, x, factors)
    check(y, x, factors, tensor and SIZE[dtype] == 4)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("flush", ["left", "right"])
def test_no_order_of_threads_shows(rng, dtype, seed, flush):
    x, factors = data(rng, ((8, 8), (5, 7), (6, 3), (4, 4)), 2, 2, 5, dtype)
    with emulated.device() as device:
        want = product(device, x, factors)
    with emulated.device(seed=seed, flush=flush) as device:
        np.testing.assert_array_equal(product(device, x, factors), want)


def test_dense_products(cuda, rng, dtype):
    """The definition itself, for one column."""
    for shapes in (((3, 4), (2, 2), (5, 3)), ((8, 8), (16, 2))):
        x, factors = data(rng, shapes, 1, 1, 1, dtype)
        dense = functools.reduce(np.kron, [f[0].astype(complex) for f in factors])
        y = product(cuda, x, factors)
        scale = abs(dense) @ abs(x[0])
        assert (abs(y[0] - dense @ x[0]) <= 60 * np.finfo(dtype).eps * scale).all()


# --- Precision -----------------------------------------------------------------------------------


class Truncating(emulated.Layer):
    """Sums of tensor cores as measured on devices: aligned to the largest term and cut off."""

    def module(self, name, code, flags):
        module = cuda_on_cpu.RawModule(
            code=code, options=flags, name=name, tensor_rounding="truncate"
        )
        return emulated._Module(self, module)


def relative_error(y, x, factors):
    want, _ = exact(x, factors)
    return float(np.linalg.norm(y - want) / np.linalg.norm(want))


@pytest.mark.parametrize("order", [8, 16, 40])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_single_precision_is_single_precision(monkeypatch, rng, order, dtype):
    """Errors of a chain of fused multiply-adds, and of three terms on halves of eleven bits.

    The first grow with the root of the length of the sums, the others with that of an eighth of
    it; one term alone would have 2^-11, two of them 2^-12.
    """
    x, factors = data(rng, ((order, order),) * 2, 1, 2, 1, dtype)
    unit, rows = 2.0**-24, order * (1 + ("complex" in dtype))
    found = []
    cuda_on_cpu.require()
    for tensor in (0, 1):
        monkeypatch.setattr(gpu, "TENSOR_CORES", {"float": tensor, "double": 0})
        with loader.using(Truncating()):
            found.append(relative_error(gpu.kron_matmul(x, factors), x, factors))
    assert found[0] <= unit * rows**0.5
    assert found[1] <= unit * (2 + (rows / 8) ** 0.5)


def test_three_terms_are_needed(rng):
    """The kernel with the product of a lower half left out: 2^-12."""
    source = loader.source
    x, factors = data(rng, ((16, 16),), 1, 40, 1, "float32")
    for left_out in ("rest, upper[j % 2]", "x, lower[j % 2]"):
        with pytest.MonkeyPatch.context() as patch, emulated.device() as device:
            patch.setattr(gpu, "TENSOR_CORES", {"float": 1, "double": 1})
            line = f"lk_mma_m16n8k8_tf32(sum, {left_out});"
            assert line in source("kronecker_product")
            patch.setattr(loader, "source", lambda stem, line=line: source(stem).replace(line, ""))
            assert relative_error(product(device, x, factors), x, factors) > 1e-5


def test_what_is_not_finite_stays_in_its_column(cuda, rng, dtype):
    for shapes in (((8, 8), (4, 4), (3, 3)), ((70, 70),)):
        x, factors = data(rng, shapes, 1, 4, 5, dtype)
        good = product(cuda, x, factors)
        x[1, -1, 2], x[3, 5, 0] = np.nan, np.inf
        y = product(cuda, x, factors)
        bad = np.zeros((4, 5), bool)
        bad[1, 2] = bad[3, 0] = True
        assert not np.isfinite(np.moveaxis(y, 1, -1)[bad]).any()
        np.testing.assert_array_equal(
            np.moveaxis(y, 1, -1)[~bad], np.moveaxis(good, 1, -1)[~bad]
        )  # fmt: skip


# --- Bits and memory -----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 40])
def test_a_member_does_not_see_its_batch(cuda, rng, dtype, columns):
    shapes = ((8, 8), (5, 5), (66, 66) if columns == 1 else (9, 7))
    x, factors = data(rng, shapes, 1, 7, columns, dtype)
    whole = product(cuda, x, factors)
    for k in (0, 3, 6):
        np.testing.assert_array_equal(product(cuda, x[k : k + 1], factors)[0], whole[k])
    many = [np.repeat(f, 7, 0) for f in factors]
    np.testing.assert_array_equal(product(cuda, x, many), whole)


@pytest.mark.parametrize(
    "shapes",
    [
        ((8, 8),) * 4, ((4, 4), (70, 70), (8, 8)), ((3, 2), (2, 5), (70, 80), (6, 1)),
        ((100, 2), (2, 100), (3, 3)),
    ],
)  # fmt: skip
def test_where_it_writes(cuda, rng, shapes):
    x, factors = data(rng, shapes, 1, 2, 1, "float64")
    before = x.copy()
    want = product(cuda, x, factors)
    check(want, x, factors)
    out = np.full(want.shape, np.nan)
    np.testing.assert_array_equal(product(cuda, x, factors, out), want)
    np.testing.assert_array_equal(x, before)
    if cuda.layer is not None:
        for a in (x, *factors):
            a.flags.writeable = False
        np.testing.assert_array_equal(gpu.kron_matmul(x, factors, 1), want)
        turned = tuple(np.asarray(f, order="F") for f in factors)
        np.testing.assert_array_equal(gpu.kron_matmul(x, turned, 1), want)
        assert cuda.looks == 0


@pytest.mark.parametrize(
    ("shapes", "b", "a"),
    [(((2, 2), (0, 3)), 2, 1), (((2, 0), (4, 3)), 2, 5), (((2, 2),), 0, 1), (((2, 2),), 3, 0)],
)
def test_nothing_to_multiply(cuda, dtype, shapes, b, a):
    x = np.ones((b, math.prod(q for _, q in shapes), a), dtype)
    y = product(cuda, x, [np.ones((1, *s), dtype) for s in shapes])
    assert y.shape == (b, math.prod(p for p, _ in shapes), a)
    assert y.dtype == np.dtype(dtype)
    assert not y.any()


# --- Launches ------------------------------------------------------------------------------------


def test_several_factors_go_in_one_launch(rng):
    """As many as the traffic model in the docstring says."""
    cases = [
        (((8, 8),) * 3, 1), (((8, 8),) * 5, 2), (((2, 2),) * 12, 1), (((16, 16),) * 3, 1),
        (((64, 64),) * 2, 1),
    ]  # fmt: skip
    for shapes, launches in cases:
        x, factors = data(rng, shapes, 1, 1, 1, "float64")
        with emulated.device() as device:
            check(product(device, x, factors), x, factors)
            assert device.layer.launched == ["kron_tiles"] * launches


class WithBlas(emulated.Layer):
    """The word that CuPy's layer may have for cuBLAS; arrays may be longer than what they hold."""

    def mode_product(self, f, x, out, before, after):
        self.launched.append("blas")
        c, p, q = f.shape
        x = x.reshape(-1)[: c * before * q * after].reshape(c, before, q, after)
        y = out.reshape(-1)[: c * before * p * after].reshape(c, before, p, after)
        np.matmul(f[:, None], x, out=y)


def test_large_factors_are_left_to_a_library(rng):
    cuda_on_cpu.require()
    x, factors = data(rng, ((4, 4), (130, 128), (100, 100)), 2, 1, 1, "float64")
    layer = WithBlas()
    with loader.using(layer):
        y = gpu.kron_matmul(x, factors)
    assert sorted(layer.launched) == ["blas", "kron_mode", "kron_tiles"]
    check(y, x, factors)


SHAPES = [
    *[((p, p),) * n for p, n in ((2, 20), (3, 12), (7, 6), (8, 8), (16, 5), (64, 3), (128, 2))],
    ((3, 5), (7, 2), (11, 13), (16, 1), (1, 16)), ((400, 400), (2, 2)), ((1, 1),) * 30,
    ((1, 64), (64, 1), (33, 40), (5, 5)),
]  # fmt: skip


@pytest.mark.parametrize("limit", sorted(set(loader.SHARED_MEMORY.values())))
@pytest.mark.parametrize("tensor", [0, 1])
def test_launches_take_all_factors_and_tiles_fit(limit, tensor):
    for shapes, size, planes, a in itertools.product(SHAPES, (4, 8), (1, 2), (1, 5, 1000)):
        kind = gpu.Kind(planes, size, tensor)
        sizes = [q for _, q in shapes]
        for step in gpu.steps(shapes, a, kind, limit):
            own = slice(step.first, step.first + step.factors)
            assert sizes[own] == [q for _, q in shapes[own]]
            assert math.prod(sizes[: own.start]) == step.before
            assert math.prod(sizes[own.stop :]) * a == step.after
            assert math.prod(sizes[own]) == step.q
            sizes[own] = [p for p, _ in shapes[own]]
            assert math.prod(sizes[own]) == step.p
            if step.tile is None:
                assert gpu.mode_bytes(size) <= limit
                continue
            assert step.factors <= gpu.FACTORS
            assert [(s.first, s.factors) for s in reversed(step.stages)] == sorted(
                (s.first, s.factors) for s in step.stages
            )
            assert sum(s.factors for s in step.stages) == step.factors
            found = gpu.needs(step.stages, step.tile.together * step.tile.width, kind)
            assert found.warps <= gpu.MOST_WARPS
            assert found.shared <= limit
            assert found.room < gpu.MOST_NUMBERS
        assert sizes == [p for p, _ in shapes]


@pytest.mark.parametrize("size", [4, 8])
def test_rows_and_columns_of_powers_of_two_share_no_bank(size):
    """Shared memory has 32 banks of four bytes; what a request gets at once is 128 bytes."""
    chunk, banks = 16 // size, 128 // size

    def conflicts(places):
        counts = {}
        for at in set(places):
            counts[at % banks] = counts.get(at % banks, 0) + 1
        return max(counts.values())

    for q in (4, 8, 16, 32, 64):
        for first in range(0, 64 * q, 8 * q):
            # sixteen bytes of each of eight slices; longer ones skip lines
            starts = [gpu.place(first + s * q, size) for s in range(8)]
            assert all(at % chunk == 0 for at in starts)
            assert conflicts([at + v for at in starts for v in range(chunk)]) <= max(1, q // banks)
            # of tensor cores: four times sixteen bytes of two slices
            pairs = [gpu.place(first + s * q + t, size) for s in (0, 1) for t in range(4 * chunk)]
            assert conflicts(pairs) <= 2
    for rows in (64, 128, 256, 512):
        # columns side by side come in, a number each: 32 bytes at a time, faster than memory
        assert conflicts([gpu.place(c * rows, size) for c in range(banks)]) <= 4
    # a block of the launch has as many warps as its bound allows
    text = loader.source("kronecker_product")
    assert f"__launch_bounds__({640}, 1)\nkron_tiles" in text
    assert 32 * gpu.MOST_WARPS <= 640
