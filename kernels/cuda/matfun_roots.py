"""Roots of many small Hermitian matrices: a warp or a block per matrix, one launch."""

import functools

import numpy as np

from . import C_TYPES, PLANES, SIZES, Variant, backend, constant, dtype_name, launch, limits

# Up to this order a warp has a matrix, beyond it a block.
WARP = 32
# More threads than this would leave a thread too few registers.
MOST_THREADS = 384
# A block for each matrix lets the device balance them; beyond this many, blocks take several.
MOST_BLOCKS = 1 << 20
# Shared memory of a block of warps, so that several blocks fit a multiprocessor.
_COMFORTABLE = 48 * 1024


def tile(n):
    """Rows and columns that a thread holds in registers."""
    return 2 if n <= 16 else 4


def padded(n):
    """Order in whole tiles."""
    return -(-n // tile(n)) * tile(n)


def shared_bytes(n, size):
    """Shared memory for a matrix: four buffers, rotations, and a value per warp."""
    ld = padded(n)
    return (4 * ld * ld + ld) * size + (0 if n <= WARP else 8 * (MOST_THREADS // 32))


@functools.cache
def largest_order(limit, size):
    """Largest order that a block with so much shared memory can hold."""
    return max(n for n in range(1, 256) if shared_bytes(n, size) <= limit)


def fits(a, *_):
    """Whether the device holds a member in shared memory; complex ones count twice."""
    name = dtype_name(a)
    n = a.shape[-1] * PLANES[name]
    return 0 < n <= largest_order(limits(a).shared_memory, SIZES[C_TYPES[name]])


def threads_for(n):
    """Threads of a block: all tiles of the upper triangle in as few rounds as there are."""
    tiles = padded(n) // tile(n)
    every = tiles * (tiles + 1) // 2
    rounds = -(-every // MOST_THREADS)
    return -(-every // (32 * rounds)) * 32


def small_root(a, whole, num, den, table, tol, threads, out=None, report=None, finish=0):
    """See ``small_root`` in ``linalgk/matfun/_ops.py``; with ``finish`` no member stays HARD.

    Those without a positive lower bound of their spectrum, or beyond the table, then take cyclic
    Jacobi rotations in the same launch. Returns the count of members that are not OK as an array.
    """
    batch, half, _ = a.shape
    name = dtype_name(a)
    size = SIZES[C_TYPES[name]]
    n = half * PLANES[name]
    out = backend().empty(a.shape, name, a) if out is None else out
    report = backend().empty((batch, 4), "float64", a) if report is None else report
    bad = backend().zeros((1,), "int32", a)
    if not batch:
        return out, report, bad
    args = (
        a, out, report, bad, constant(table, a), np.int64(batch), np.int32(half),
        np.int32(PLANES[name]), np.int32(padded(n)), np.int32(whole), np.int32(num), np.int32(den),
        np.int32(table.shape[0]), np.int32(table.shape[1]), np.int32(finish), np.float64(tol),
    )  # fmt: skip
    each = shared_bytes(n, size)
    if n <= WARP:
        warps = max(1, min(4, _COMFORTABLE // each))
        grid = min(-(-batch // warps), MOST_BLOCKS)
        launch(
            "matfun_roots_warp", "root_warp", name, grid, 32 * warps, args, a, warps * each,
            TILE=tile(n),
        )  # fmt: skip
    else:
        threads = threads_for(n)
        launch(
            "matfun_roots_block", "root_block", name, min(batch, MOST_BLOCKS), threads, args, a,
            each, TILE=tile(n),
        )  # fmt: skip
    return out, report, bad


def every_root(a, whole, num, den, table, tol, threads):
    """`small_root` that solves HARD members too."""
    return small_root(a, whole, num, den, table, tol, threads, finish=1)


def _most(orders, warp):
    def dynamic(limit, size):
        # what the launch asks for at most on a device with that limit
        fitting = [n for n in orders if shared_bytes(n, size) <= limit]
        each = [shared_bytes(n, size) for n in fitting]
        warps = [max(1, min(4, _COMFORTABLE // x)) if warp else 1 for x in each]
        return max((x * w for x, w in zip(each, warps, strict=True)), default=0)

    return dynamic


VARIANTS = (
    Variant("matfun_roots_warp", {"TILE": 2}, _most(range(1, 17), True)),
    Variant("matfun_roots_warp", {"TILE": 4}, _most(range(17, WARP + 1), True)),
    Variant("matfun_roots_block", {"TILE": 4}, _most(range(WARP + 1, 256), False)),
)
