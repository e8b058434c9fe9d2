"""Chebyshev-Tucker functions at points on a device: errors, shapes, points of a lane, bits."""

import emulated
import numpy as np
import pytest
from linalgk_kernels.cpu import tensor_evaluate as cpu
from linalgk_kernels.cuda import tensor_evaluate as gpu

from linalgk.tensor._ops import evaluate

CASES = [
    # degrees + 1, ranks, points
    ((9,), (1,), 5),
    ((1,), (1,), 3),
    ((12,), (9,), 70),
    ((9, 12), (3, 5), 33),
    ((9, 17, 12), (4, 3, 5), 64),
    ((1, 2, 40), (1, 2, 11), 40),
    ((5, 6, 7, 8), (2, 3, 4, 5), 65),
]


def data(rng, sizes, ranks, n, dtype):
    """Points, core, factors and slopes."""
    x = rng.uniform(-1, 1, (len(sizes), n))
    x[:, :1] = 1.0
    shapes = list(zip(sizes, ranks, strict=True))
    core = rng.standard_normal(ranks)
    factors, slopes = ([rng.standard_normal(s) for s in shapes] for _ in range(2))
    wide = x.astype(dtype), core.astype(dtype)
    return *wide, *(tuple(f.astype(dtype) for f in fs) for fs in (factors, slopes))


def check(y, x, core, factors, slopes):
    """``|y - f| <= (sum 4 m_k + sum r_k + ...) u |core| |U_1| ... `` with |T_j| <= 1.

    The recurrence's error of T_j grows like j^2 u at worst, at the ends.
    """
    unit = np.finfo(x.dtype).eps / 2
    wide = "float64" if x.dtype == np.float32 else "longdouble"
    high = [a.astype(wide) for a in (x, core)]
    want = evaluate(*high, *(tuple(f.astype(wide) for f in fs) for fs in (factors, slopes)))
    ones = np.ones((x.shape[0], 1))
    size = evaluate(
        ones,
        abs(core).astype(float),
        *(tuple(abs(f).astype(float) for f in fs) for fs in (factors, slopes)),
    )
    terms = sum(f.shape[0] ** 2 + f.shape[0] + f.shape[1] + 4 for f in factors)
    assert y.dtype == x.dtype
    assert y.shape == want.shape
    assert (abs(y - want) <= terms * unit * size).all()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("with_slopes", [False, True])
def test_equals_the_definition(cuda, rng, case, with_slopes):
    x, core, factors, slopes = data(rng, *case, "float64")
    slopes = slopes if with_slopes else ()
    y = gpu.tucker_evaluate(
        *map(cuda.array, (x, core)), *(tuple(map(cuda.array, fs)) for fs in (factors, slopes))
    )
    check(cuda.host(y), x, core, factors, slopes)
    check(cpu.tucker_evaluate(x, core, factors, slopes, 2), x, core, factors, slopes)


@pytest.mark.parametrize("per", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_take_several_times_32_or_64_points(rng, monkeypatch, per, dtype):
    monkeypatch.setattr("linalgk_kernels.cuda.BLOCKS_EACH", 2)
    n = 300 if per == 2 else 200
    x, core, factors, slopes = data(rng, (9, 6, 7), (9, 2, 3), n, dtype)
    with emulated.device(mode="check") as device:
        device.layer.multiprocessors = 1
        y = gpu.tucker_evaluate(
            *map(device.array, (x, core)),
            *(tuple(map(device.array, fs)) for fs in (factors, slopes)),
        )
        check(device.host(y), x, core, factors, slopes)


def test_shared_memory_of_what_is_let_in_fits_every_device():
    from linalgk_kernels import cuda as loader

    from linalgk.tensor import _ops

    for dtype, size in (("float32", 4), ("float64", 8)):
        x = np.empty((3, 1), dtype)
        for slopes in (0, 1):
            most = 0
            for r in range(1, 400):
                factors = (np.empty((1, r), dtype),) * 3
                if _ops._small(x, None, factors, factors if slopes else ()):
                    most = max(most, gpu.shared_bytes([r] * 3, slopes, 1, size))
            assert 80_000 < most <= gpu.MOST <= min(loader.SHARED_MEMORY.values())


def test_ranks_beyond_shared_memory_take_the_reference():
    from linalgk.tensor._ops import EVALUATE

    with emulated.device() as device:
        arrays = [device.array(np.zeros(s)) for s in ((1, 4), (400,), (2, 400))]
        chosen, why = EVALUATE.choose(arrays[0], arrays[1], (arrays[2],))
        assert chosen is None
        assert "ranks" in why
