"""The polynomial root iteration on larger matrices: chunks of the batch, BLAS products in place."""

import numpy as np

from ._threads import run

# Six work arrays of a chunk should stay in the second-level cache while they are multiplied.
_CHUNK_BYTES = 256 * 1024


def root_iteration(m, x, coeffs, num, den, threads):
    """See the reference in ``linalgk/matfun/_ops.py``; products go to BLAS with ``out=``."""
    batch, n, _ = m.shape
    steps = coeffs.shape[1]
    result = np.empty_like(m)
    chunk = max(1, _CHUNK_BYTES // max(1, n * n * m.itemsize))
    diagonal = np.arange(n)

    def work(start, stop):
        for lo in range(start * chunk, min(stop * chunk, batch), chunk):
            hi = min(lo + chunk, batch)
            mm, xx = m[lo:hi].copy(), x[lo:hi].copy()
            t, u = np.empty_like(mm), np.empty_like(mm)
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

    run(work, -(-batch // chunk), threads)
    return result


def _symmetrise(a, out):
    np.conj(a.swapaxes(-1, -2), out=out)
    out += a
    out *= 0.5
