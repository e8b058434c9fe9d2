"""Fast Walsh-Hadamard transform: one launch where a member fits shared memory, else by levels."""

import functools

import numpy as np

from . import C_TYPES, PLANES, SIZES, Variant, backend, dtype_name, grid, launch, limits

THREADS = 512
# Columns of a tile whose rows are not contiguous, as in the source.
PANEL = 32
# A member goes through in one launch up to this size; tiles of other transforms leave room for
# several blocks on a multiprocessor.
MOST, COMFORTABLE, SMALL = 1 << 15, 32 * 1024, 1 << 12


def shared_bytes(elements, size):
    """Shared memory of a tile: a word in 128 bytes is left out."""
    return (elements + elements * size // 128 + 1) * size


@functools.cache
def largest(limit, size):
    """Elements of the largest tile, a power of two."""
    fitting = [1 << k for k in range(16) if shared_bytes(1 << k, size) <= limit]
    return min(fitting[-1], MOST)


@functools.lru_cache(256)
def levels(stages, inner, limit, size):
    """For each launch: stages before it, its own, columns and log2 of the rows of a tile."""
    most = largest(limit, size)
    if inner << stages <= most:
        # several members, if they are small
        rows = max(stages, (SMALL // inner).bit_length() - 1)
        return [(0, stages, inner, rows)]
    room = COMFORTABLE // size
    found, before = [], 0
    if inner <= PANEL:
        before = min(stages, (room // inner).bit_length() - 1)
        found.append((0, before, inner, before))
    each = (room // PANEL).bit_length() - 1
    rounds = -(-(stages - before) // each)
    for k in range(rounds):
        rest = stages - before
        count = -(-rest // (rounds - k))
        found.append((before, count, PANEL, count))
        before += count
    return found or [(0, 0, PANEL, each)]


def _transform(x, out, flips, rows, count, inner, stages, scale, name):
    """Level by level; ``rows`` rows of x are there, and ``count`` in out."""
    size = SIZES[C_TYPES[name]]
    real = np.float32 if size == 4 else np.float64
    source = x
    plan = levels(stages, inner, limits(x).shared_memory, size)
    for before, own, width, height in plan:
        length = inner << before
        width = min(width, length)
        here = count >> before
        tiles = -(-here >> height) * -(-length // width)
        args = (
            source, out, flips, np.int64(rows if source is x else here), np.int64(here),
            np.int64(length), np.int32(width), np.int32(height), np.int32(own),
            real(scale if before + own == stages else 1.0), np.int64(tiles),
        )  # fmt: skip
        threads = min(THREADS, max(32, (width << height) // 16 // 32 * 32))
        shared = shared_bytes(width << height, size)
        launch("sketch_hadamard", "hadamard_tiles", name, grid(tiles, x), threads, args, x, shared)
        source, flips = out, None


def fwht(x, scale, threads):
    """See ``fwht`` in ``linalgk/sketch/_ops.py``."""
    outer, n, inner = x.shape
    name = dtype_name(x)
    x = backend().contiguous(x)
    out = backend().empty(x.shape, name, x)
    if outer * n * inner:
        rows = outer * n
        _transform(x, out, None, rows, rows, inner * PLANES[name], n.bit_length() - 1, scale, name)
    return out


def srht(x, flips, picks, outs, power, threads, total=None):
    """See ``srht`` in ``linalgk/sketch/_ops.py``."""
    rows, columns = x.shape
    count, name = picks.shape[0], dtype_name(x)
    out = backend().empty((count, columns), name, x) if total is None else total
    if not count * columns:
        return out
    # rows of padding beyond the next power of two need no work
    low = min(max(rows - 1, 0).bit_length(), power)
    work = backend().empty((1 << low, columns), name, x)
    line = columns * PLANES[name]
    _transform(backend().contiguous(x), work, flips, rows, 1 << low, line, low, 1.0, name)
    args = (
        work, picks, outs, out, np.int64(count), np.int64(line), np.int32(low),
        np.int32(power - low), np.int32(total is not None),
    )  # fmt: skip
    launch("sketch_hadamard", "hadamard_sample", name, grid(count, x), 256, args, x)
    return out


def _dynamic(limit, size):
    return max(shared_bytes(largest(limit, size), size), shared_bytes(COMFORTABLE // size, size))


VARIANTS = (Variant("sketch_hadamard", {}, _dynamic),)
