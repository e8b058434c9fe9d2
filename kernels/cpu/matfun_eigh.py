"""Hermitian eigenvectors, large ones by LAPACK in the input's precision, and B B^H by HERK."""

import numpy as np

from ._lapack import Evd, herk
from ._preset import njit
from ._threads import run
from .matfun_tridiagonal import eigh_range

_BLOCK = 8  # rows of 4096 bytes share a set of the first-level cache, which has 8 ways or more
# Up to this order a call of LAPACK from Python costs as much as its work; NumPy loops in C, and
# computes single precision in double.
_SMALL = 32
_TEMPORARY = 4_096  # entries that stay in the cache of a core
# Up to this order real matrices take our own rotations: beyond, LAPACK's divide and conquer.
OWN = {"float32": 96, "float64": 128}


def eigh(a, threads, rows=None, pool=None):
    """Eigenvalues ascending (b, n), eigenvectors in columns (b, n, n); NaN where LAPACK fails.

    Plans give memory for the vectors and a list of solvers, each with its workspace.
    """
    batch, n, _ = a.shape
    if a.dtype.kind == "f" and n <= OWN[a.dtype.name]:
        return _by_rotations(a, threads, rows)
    if n <= _SMALL:
        return _small_eigh(a, threads)
    rows = np.empty(a.shape, a.dtype) if rows is None else rows
    pool = [] if pool is None else pool
    w = np.empty((batch, n), a.real.dtype)

    def work(start, stop):
        # taking from a list and giving back are atomic
        solve = pool.pop() if pool else Evd(n, a.dtype)
        for item in range(start, stop):
            rows[item] = a[item]
            if solve(rows[item], w[item]):
                w[item] = np.nan
        pool.append(solve)

    run(work, batch, threads)
    # LAPACK reads rows as columns, which conjugates a Hermitian matrix
    vectors = rows.swapaxes(-1, -2)
    return w, np.conj(vectors) if a.dtype.kind == "c" else vectors


def _by_rotations(a, threads, rows):
    batch, n, _ = a.shape
    # single precision costs as much in double precision where vectors are short
    wide = np.float64 if n <= _SMALL else a.dtype
    w = np.empty((batch, n), wide)
    z = rows if rows is not None and rows.dtype == wide else np.empty(a.shape, wide)
    z[...] = a
    run(lambda i, j: eigh_range(w, z, i, j), batch, threads if a.size > 2_000 else 1)
    if wide != a.dtype:
        w = w.astype(a.dtype)
        z = z.astype(a.dtype) if rows is None else _into(rows, z)
    return w, z.swapaxes(-1, -2)


def _into(rows, z):
    rows[...] = z
    return rows


def _small_eigh(a, threads):
    w, v = np.empty(a.shape[:2], a.real.dtype), np.empty(a.shape, a.dtype)

    def work(start, stop):
        try:
            w[start:stop], v[start:stop] = np.linalg.eigh(a[start:stop])
        except np.linalg.LinAlgError:
            for item in range(start, stop):
                try:
                    w[item], v[item] = np.linalg.eigh(a[item])
                except np.linalg.LinAlgError:
                    w[item] = np.nan

    run(work, a.shape[0], threads if a.size > 2_000 else 1)
    return w, v


def solvers(n, dtype, count):
    """So many solvers for `eigh`, and the bytes of their workspaces."""
    pool = [Evd(n, dtype) for _ in range(count)]
    return pool, sum(solver.nbytes for solver in pool)


def gram(v, factor, scale, threads, out=None):
    """``scale B B^H`` with ``B = V diag(factor)`` of each member, exactly Hermitian."""
    batch, n, _ = v.shape
    # a plan has memory for nothing of the size of the batch
    step = max(1, (16 * _TEMPORARY if out is None else _TEMPORARY) // max(n, 1) ** 2)
    out = np.empty((batch, n, n), v.dtype) if out is None else out
    # row-major storage transposes what Fortran sees, which conjugates the Hermitian product
    columns = v.swapaxes(-1, -2)

    def small(start, stop):
        if v.dtype.kind == "f":
            for first in range(start, stop, step):
                some = slice(first, min(first + step, stop))
                # of an array and its own transpose NumPy makes one exactly symmetric product
                # warnings are of a thread; what is not finite is looked for at the end
                with np.errstate(all="ignore"):
                    b = columns[some] * factor[some, :, None]
                    np.matmul(b.swapaxes(-1, -2), b, out=out[some])
                    if (scale[some] != 1).any():
                        out[some] *= scale[some, None, None]
            return
        b = v[start:stop] * factor[start:stop, None, :]
        other = np.conj(b).swapaxes(-1, -2) * scale[start:stop, None, None]
        np.matmul(b, other, out=out[start:stop])
        if v.dtype.kind == "c":
            np.einsum("bii->bi", out[start:stop]).imag = 0
        mirror(out, start, stop)

    def work(start, stop):
        b = np.empty((n, n), v.dtype)
        for item in range(start, stop):
            np.multiply(columns[item], factor[item, :, None], out=b)
            if v.dtype.kind == "c":
                np.conj(b, out=b)
            herk(b, out[item], scale[item])
        mirror(out, start, stop)

    # NumPy calls BLAS from a loop in C
    by_numpy = n <= (OWN[v.dtype.name] if v.dtype.kind == "f" else _SMALL)
    run(small if by_numpy else work, batch, threads if v.size > 2_000 else 1)
    return out


@njit
def mirror(c, start, stop):
    """Copy the upper triangle to the lower, block by block so that both stay in cache."""
    n = c.shape[1]
    for item in range(start, stop):
        for i0 in range(0, n, _BLOCK):
            for j0 in range(i0, n, _BLOCK):
                for j in range(j0, min(j0 + _BLOCK, n)):
                    for i in range(i0, min(i0 + _BLOCK, j)):
                        c[item, j, i] = np.conj(c[item, i, j])
