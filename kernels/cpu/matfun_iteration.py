"""The polynomial root iteration on larger matrices: chunks of the batch, BLAS products in place."""

import numpy as np

from ._threads import run

# Six work arrays of a chunk should stay in the second-level cache while they are multiplied.
_CHUNK_BYTES = 256 * 1024


def root_iteration(m, x, coeffs, num, den, threads, out=None, pool=None):
    """See the reference in ``linalgk/matfun/_ops.py``; products go to BLAS with ``out=``.

    Plans give memory for the result and a list of workspaces of four chunks each.
    """
    batch, n, _ = m.shape
    steps = coeffs.shape[1]
    result = np.empty_like(m) if out is None else out
    pool = [] if pool is None else pool
    chunk = chunk_of(n, m.dtype)
    diagonal = np.arange(n)

    def work(start, stop):
        space = pool.pop() if pool else workspace(n, m.dtype)
        for lo in range(start * chunk, min(stop * chunk, batch), chunk):
            hi = min(lo + chunk, batch)
            mm, xx, t, u = (buffer[: hi - lo] for buffer in space)
            mm[...], xx[...] = m[lo:hi], x[lo:hi]
            for k in range(steps):
                a, b, c = (coeffs[lo:hi, k, i, None, None] for i in range(3))
                np.matmul(mm, mm, out=t)
                t *= c
                np.multiply(mm, b, out=u)
                t += u
                t[:, diagonal, diagonal] += a[:, :, 0]
                for _ in range(num):
                    np.matmul(xx, t, out=u)
                    _symmetrise(u, xx)
                rest = den if k < steps - 1 else 0
                while rest:
                    if rest & 1:
                        np.matmul(mm, t, out=u)
                        _symmetrise(u, mm)
                    rest >>= 1
                    if rest:
                        np.matmul(t, t, out=u)
                        t, u = u, t
            result[lo:hi] = xx
        pool.append(space)

    run(work, -(-batch // chunk), threads)
    return result


def chunk_of(n, dtype):
    """Members that are multiplied at once."""
    return max(1, _CHUNK_BYTES // max(1, n * n * dtype.itemsize))


def workspace(n, dtype):
    """Four matrices for each member of a chunk."""
    return np.empty((4, chunk_of(n, dtype), n, n), dtype)


def _symmetrise(a, out):
    np.conj(a.swapaxes(-1, -2), out=out)
    out += a
    out *= 0.5
