"""A Chebyshev-Tucker function at scattered points on a device: one launch."""

import functools

import numpy as np

from . import C_TYPES, SIZES, Variant, backend, constant, dtype_name, grid, launch, limits

WARPS = 4
# Where the variables of a function stand: the first one or two meet the core in registers.
PLACES = {1: (0,), 2: (0, 2), 3: (0, 2, 3), 4: (0, 1, 2, 3)}


def shared_bytes(ranks, slopes, per, size):
    """Values of all factors for a block of 32 ``per`` points, and sums of each warp."""
    held = (sum(ranks) + 4 - len(ranks)) * (2 if slopes else 1)
    return 32 * per * size * (held + WARPS * (5 if slopes else 1))


# Bytes that every device since 2020 grants a block; a quarter of it leaves room for three others.
MOST, COMFORTABLE = 99 * 1024, 48 * 1024


@functools.lru_cache(256)
def _sizes(shapes):
    """Length, rank and variable of each place; who is not there has no variable."""
    found = np.array([[1, 1, -1]] * 4, np.int32)
    for k, place in enumerate(PLACES[len(shapes)]):
        found[place] = (*shapes[k], k)
    return found.reshape(-1)


def tucker_evaluate(x, core, factors, slopes=(), threads=1):
    """See ``evaluate`` in ``linalgk/tensor/_ops.py``."""
    d, n = x.shape
    name = dtype_name(x)
    x, core, *rest = map(backend().contiguous, (x, core, *factors, *slopes))
    factors, slopes = rest[:d], rest[d:]
    y = backend().empty((1 + len(slopes), n), name, x)
    if not n:
        return y
    size = SIZES[C_TYPES[name]]
    shapes = tuple(tuple(map(int, f.shape)) for f in factors)
    ranks = [r for _, r in shapes]
    # two points of a lane share what they read, where there are enough of them
    many = n >= 64 * 4 * limits(x).multiprocessors
    per = 2 if many and shared_bytes(ranks, slopes, 2, size) <= COMFORTABLE else 1
    pointers = [None] * 8
    for k, place in enumerate(PLACES[d]):
        pointers[place] = factors[k]
        pointers[4 + place] = slopes[k] if slopes else None
    blocks = -(-n // (32 * per))
    args = (
        x, core, y, *pointers, constant(_sizes(shapes), x), np.int64(n), np.int32(bool(slopes)),
        np.int64(blocks),
    )  # fmt: skip
    launch(
        "tensor_evaluate", "tucker_points", name, grid(blocks, x), 32 * WARPS, args, x,
        shared_bytes(ranks, slopes, per, size), PER=per,
    )  # fmt: skip
    return y


VARIANTS = (
    Variant("tensor_evaluate", {"PER": 1}, lambda limit, size: MOST),
    Variant("tensor_evaluate", {"PER": 2}, lambda limit, size: COMFORTABLE),
)
