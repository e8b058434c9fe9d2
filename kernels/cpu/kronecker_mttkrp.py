"""A block of a tensor contracted with the matrices of all modes but one, for up to three modes.

The block is a matrix, (i, j) by q. A tile of `STEP` by `STEP` of its numbers is in a core's second
cache when both products are made of it, with the matrix of q and, transposed, with the Khatri-Rao
product of i and j, by the microkernel of `_tiles`: numbers of the tensor are broadcast as they lie,
so that nothing is packed. Floor: 2 operations for each number, column and product at two
FMA units, and one read of the block from memory.
"""

import numpy as np

from ._preset import helper, njit
from ._simd import get, pointer
from ._tiles import product

# Rows and columns of a tile; columns of the matrices that go through it together.
STEP, WIDE = 256, 64
# Bytes of a line of the cache.
LINE = 64
_BYTES = np.empty(0, np.uint8)


@helper
def _touch(bytes_, x, far, near, many, few):
    """Read one byte of each line of a tile in the order they lie: lines ``far`` bytes apart."""
    start, step, total = pointer(bytes_, x), max(LINE // max(abs(near), 1), 1), 0
    for i in range(many):
        for j in range(0, few, step):
            total += get(start, i * far + j * near)
    return total


@njit
def _contract(like, bytes_, sink, x, steps, sizes, a, b, c, by_a, by_b, by_c, wants, t, s, w):
    row, column, e, size = steps
    rows, columns, inner, tall, wide = sizes
    want_a, want_b, want_c = wants
    rank, each = t.shape[1], e * size
    for v0 in range(0, rank, WIDE):
        v1 = min(v0 + WIDE, rank)
        shift, n = v0 * each, (v1 - v0) * e
        i, j = 0, 0
        for r0 in range(0, rows, tall):
            m = min(tall, rows - r0)
            here, f, g = x + r0 * row * each, i, j
            if want_c:
                for r in range(m):
                    for v in range(v0, v1):
                        w[r, v] = a[f, v] * b[g, v]
                    g += 1
                    if g == inner:
                        f, g = f + 1, 0
            for q0 in range(0, columns, wide):
                q = min(wide, columns - q0)
                tile = here + q0 * column * each
                # a product that goes across lines would wait for each of them: its first look at
                # a tile is one that the hardware sees coming
                if want_a or want_b:
                    if abs(row) < abs(column):
                        sink[0] += _touch(bytes_, tile, column * each, row * each, q, m)
                    target = t if q0 == 0 else s
                    product(
                        like, tile, row * e, column * e,
                        c.ctypes.data + q0 * rank * each + shift, rank * e, q,
                        target.ctypes.data + shift, rank * e, m, n, 0,
                    )  # fmt: skip
                    if q0:
                        for r in range(m):
                            for v in range(v0, v1):
                                t[r, v] += s[r, v]
                if want_c:
                    if abs(row) > abs(column) and not (want_a or want_b):
                        sink[0] += _touch(bytes_, tile, row * each, column * each, m, q)
                    product(
                        like, tile, column * e, row * e, w.ctypes.data + shift, rank * e, m,
                        s.ctypes.data + shift, rank * e, q, n, 0,
                    )  # fmt: skip
                    for r in range(q):
                        for v in range(v0, v1):
                            by_c[q0 + r, v] += s[r, v]
            f, g = i, j
            for r in range(m):
                if want_a:
                    for v in range(v0, v1):
                        by_a[f, v] += t[r, v] * b[g, v]
                if want_b:
                    for v in range(v0, v1):
                        by_b[g, v] += t[r, v] * a[f, v]
                g += 1
                if g == inner:
                    f, g = f + 1, 0
            i, j = f, g


def mttkrp_block(x, a, b, c, wants):
    """As `linalgk.kronecker._mttkrp_ops.mttkrp_block`, for NumPy arrays of one dtype."""
    dtype, (rows, columns) = x.dtype, x.shape
    rank = (a if b is None else b).shape[1]
    inner = len(b) if b is not None else rows // max(len(a), 1)
    outer = len(a) if a is not None else rows // max(inner, 1)
    e = 2 if dtype.kind == "c" else 1
    sizes = (outer, inner, columns)
    found = [
        np.zeros((n if want else 0, rank), dtype) for n, want in zip(sizes, wants, strict=True)
    ]
    given = [_owned(m, rank, dtype) for m in (a, b, c)]
    if x.size and rank:
        tall, wide = (-(-n // -(-n // STEP)) for n in x.shape)
        rooms = [np.empty((max(tall, wide), rank), dtype) for _ in range(3)]
        steps = (x.strides[0] // x.itemsize, x.strides[1] // x.itemsize, e, x.itemsize // e)
        _contract(
            rooms[0][:0, 0], _BYTES, np.zeros(1, np.int64), x.ctypes.data, steps,
            (rows, columns, inner, tall, wide), *given, *found, tuple(wants), *rooms,
        )  # fmt: skip
    return tuple(y if want else None for y, want in zip(found, wants, strict=True))


def _owned(m, rank, dtype):
    """In C order and no one's that may not be written to, for which Numba has another type."""
    if m is None:
        return np.empty((0, rank), dtype)
    return m if m.flags.c_contiguous and m.flags.writeable else np.array(m, order="C")
