"""A sparse-stack sketch times a matrix on a device, the bits of ``kernels/cpu/sketch_stack.py``."""

import numpy as np

from . import C_TYPES, PLANES, REAL, SIZES, Variant, backend, dtype_name, grid, launch, limits

BLOCK = 1 << 14
# Digits of this many bits are sorted at once.
BITS = 10
# Blocks of threads that sort at a time, for each multiprocessor.
SORTERS = 4
# Threads that keep a multiprocessor busy; where sums have fewer, blocks of rows run side by side.
BUSY = 1024
# Bytes of lists, and of partial sums, that are held at a time.
WORKSPACE = 1 << 26


def _lanes(columns, real):
    """Threads that share a row, as `Panels` in the source has it."""
    panel = 512 // SIZES[C_TYPES[real]]
    return columns // panel * 32 + -(-(columns % panel) // (panel // 32))


def _scalar(x, real):
    return np.dtype(real).type(x)


def _each_chunk(blocks, most):
    for begin in range(0, blocks, most):
        yield begin, min(most, blocks - begin)


def stack_apply(a, h, k, first, scale, threads, total=None, finish=True):
    """The sketch (k, n) of the rows of a (m, n), whose places are h (m, nnz).

    first : where the first row stands in its block of 2^14.
    total : the contiguous sum of the blocks before, which is added to and returned.
    finish : whether the scale is multiplied.
    """
    a, h = map(backend().contiguous, (a, h))
    m, nnz = h.shape
    name = dtype_name(a)
    real, columns, buckets = REAL[name], a.shape[1] * PLANES[name], k // nnz
    if total is None:
        make = backend().empty if m else backend().zeros
        out = make((k, a.shape[1]), name, a)
    else:
        out = total
    size = k * columns
    # zeros are what they are; sums that came along may have to be scaled
    if not size or (m == 0 and total is None):
        return out

    def fold(parts, count, fresh, factor):
        args = (parts, out, np.int64(size), np.int32(count), np.bool_(fresh), factor)
        launch("sketch_stack", "stack_fold", name, grid(-(-size // 256), a), 256, args, a)

    blocks = -(-(first + m) // BLOCK) if m else 0
    if not blocks:
        fold(out, 0, False, _scalar(scale if finish else 1.0, real))
        return out
    most = max(1, WORKSPACE // (2 * nnz * (BLOCK + buckets + 1)))
    work = k * _lanes(columns, real)
    processors = limits(a).multiprocessors
    split = blocks > 1 and work < BUSY * processors
    if split:
        most = max(1, min(most, WORKSPACE // (size * SIZES[C_TYPES[real]])))
    most = min(most, blocks)
    passes = max(1, -(-(buckets - 1).bit_length() // BITS))
    sorters = min(most * nnz, SORTERS * processors)
    lists = backend().empty((most * nnz, BLOCK), "uint16", a)
    starts = backend().empty((most * nnz, buckets + 1), "uint16", a)
    spare = backend().empty((sorters if passes > 1 else 0, BLOCK), "uint16", a)
    sums = backend().empty((most, size), real, a) if split else out
    for begin, count in _each_chunk(blocks, most):
        where = (np.int32(first), np.int64(begin), np.int32(count))
        args = (
            h, lists, starts, spare, np.int64(m), np.int32(nnz), np.int32(buckets), *where,
            np.int32(passes),
        )  # fmt: skip
        launch("sketch_stack", "stack_lists", name, min(count * nnz, sorters), 512, args, a)
        fresh = begin == 0 and total is None
        factor = _scalar(scale if finish and begin + count == blocks else 1.0, real)
        items = -(-work * (count if split else 1) // 256)
        args = (
            a, lists, starts, sums, np.int64(m), np.int64(columns), np.int64(k), np.int32(nnz),
            np.int32(buckets), *where, np.bool_(split), np.bool_(fresh or split), factor,
        )  # fmt: skip
        launch("sketch_stack", "stack_sum", name, grid(items, a), 256, args, a)
        if split:
            fold(sums, count, fresh, factor)
    return out


def stack_gather(y, h, scale, threads):
    """The transpose times y (k, n): rows (m, n) that are sums of ``nnz`` rows of y, in order."""
    y, h = map(backend().contiguous, (y, h))
    m, nnz = h.shape
    name = dtype_name(y)
    columns = y.shape[1] * PLANES[name]
    out = backend().empty((m, y.shape[1]), name, y)
    if m and columns:
        args = (
            y, h, out, np.int64(m), np.int64(columns), np.int32(nnz), _scalar(scale, REAL[name]),
        )  # fmt: skip
        items = -(-m * _lanes(columns, REAL[name]) // 256)
        launch("sketch_stack", "stack_gather", name, grid(items, y), 256, args, y)
    return out


VARIANTS = (Variant("sketch_stack", {}),)
