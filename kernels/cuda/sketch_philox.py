"""Random numbers on a device, the bits of the CPU's; see ``kernels/cpu/sketch_philox.py``."""

import numpy as np

from . import C_TYPES, REAL, Variant, backend, dtype_name, grid, launch


def _compiled_for(like):
    """The dtype whose module serves: one that is likely to be there already."""
    name = dtype_name(like)
    return name if name in C_TYPES else "float64"


def _key(k0, k1, tag):
    return np.uint32(k0), np.uint32(k1), np.uint32(tag)


def _line(symbol, each, dtype, like, n, k0, k1, start, tag):
    """Numbers start to start + n of a line whose calls give ``each``."""
    out = backend().empty((n,), dtype, like)
    if n:
        call, skip = divmod(start, each)
        calls = -(-(skip + n) // each)
        args = (out, np.int64(n), np.uint64(call), np.int32(skip), *_key(k0, k1, tag))
        blocks = grid(-(-calls // 256), like)
        launch("sketch_philox", symbol, _compiled_for(like), blocks, 256, args, like)
    return out


def words(like, n, k0, k1, start, tag, threads):
    """32-bit words ``start`` to ``start + n`` of a stream."""
    return _line("words", 4, "uint32", like, n, k0, k1, start, tag)


def uniforms(like, n, k0, k1, start, tag, threads):
    """Doubles in [0, 1), multiples of 2^-52."""
    return _line("uniforms", 2, "float64", like, n, k0, k1, start, tag)


def normals(like, n, k0, k1, start, tag, threads):
    """Normals in the real dtype of ``like``, rounded from float64."""
    return _line("normals", 2, REAL[dtype_name(like)], like, n, k0, k1, start, tag)


def signs(like, n, k0, k1, start, tag, threads):
    """+1 and -1 in the real dtype of ``like``."""
    return _line("signs", 128, REAL[dtype_name(like)], like, n, k0, k1, start, tag)


def integers(like, n, high, k0, k1, start, tag, threads):
    """Integers in [0, high), each equally likely."""
    out = backend().empty((n,), "int64", like)
    if n:
        args = (
            out, np.int64(n), np.uint64(start), np.uint64(high), np.uint64(2**64 % high),
            *_key(k0, k1, tag),
        )  # fmt: skip
        blocks = grid(-(-n // 256), like)
        launch("sketch_philox", "integers", _compiled_for(like), blocks, 256, args, like)
    return out


def _tile(symbol, each, like, rows, cols, k0, k1, row, col, tag, out):
    """Rows come by ``each`` from a call; a block takes 256 columns of them."""
    out = backend().empty((rows, cols), REAL[dtype_name(like)], like) if out is None else out
    if rows and cols:
        groups = -(-(row + rows) // each) - row // each
        args = (
            out, np.int64(rows), np.int64(cols), np.int64(row), np.uint64(col), *_key(k0, k1, tag),
        )  # fmt: skip
        blocks = grid(groups * -(-cols // 256), like)
        launch("sketch_philox", symbol, dtype_name(out), blocks, 256, args, like)
    return out


def normal_tile(like, rows, cols, k0, k1, row, col, tag, threads, out=None):
    """Normals (rows, cols) of an operator from entry (row, col) on; ``out`` is contiguous."""
    return _tile("normal_tile", 2, like, rows, cols, k0, k1, row, col, tag, out)


def sign_tile(like, rows, cols, k0, k1, row, col, tag, threads, out=None):
    """Signs (rows, cols) of an operator from entry (row, col) on; ``out`` is contiguous."""
    return _tile("sign_tile", 128, like, rows, cols, k0, k1, row, col, tag, out)


def stack_hashes(like, m, k0, k1, col, tag, nnz, buckets, threads):
    """``bucket << 1 | negative`` (m, nnz) of the data rows from ``col`` on."""
    out = backend().empty((m, nnz), "uint32", like)
    if m:
        args = (
            out, np.int64(m), np.int32(nnz), np.uint32(buckets), np.uint64(col),
            *_key(k0, k1, tag),
        )  # fmt: skip
        blocks = grid(-(-m * -(-nnz // 4) // 256), like)
        launch("sketch_philox", "stack_hashes", _compiled_for(like), blocks, 256, args, like)
    return out


VARIANTS = (Variant("sketch_philox", {}),)
