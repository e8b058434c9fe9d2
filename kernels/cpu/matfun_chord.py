"""One Newton step for ``Y^p = B`` with the derivative frozen at a diagonal matrix.

Memory-bound: reads B, Y and Y^p and writes Y, 16 n^2 bytes in single precision.
"""

import numpy as np

from ._preset import njit
from ._threads import run


@njit
def _rows(b, y, power, s, p, out, sums, kernel, start, stop):
    """Rows ``start`` to ``stop`` of all members, counted through; kernel is a row's workspace."""
    n = b.shape[2]
    first = y.shape[0] == 0
    for row in range(start, stop):
        item = row // n
        i = row - item * n
        si = s[item, i]
        for j in range(n):
            kernel[j] = 1.0
        term = si
        for _ in range(1, p):
            # Horner: sum_{m<=k} si^m sj^(k-m) = sj sum_{m<k} si^m sj^(k-1-m) + si^k
            for j in range(n):
                kernel[j] = kernel[j] * s[item, j] + term
            term *= si
        total = 0.0
        if first:
            for j in range(n):
                out[item, i, j] = b[item, i, j] / kernel[j]
            out[item, i, i] = (b[item, i, i] - term) / kernel[i]
        else:
            for j in range(n):
                out[item, i, j] = (b[item, i, j] - power[item, i, j]) / kernel[j]
        for j in range(n):
            change = out[item, i, j]
            kernel[j] = (change.real * change.real + change.imag * change.imag) / s[item, j]
        for j in range(n):
            total += kernel[j]
        sums[item, i] = total / si
        if first:
            out[item, i, i] += si
        else:
            for j in range(n):
                out[item, i, j] += y[item, i, j]


def chord(b, y, power, s, p, threads):
    """See the reference in ``linalgk/matfun/_ops.py``."""
    batch, n, _ = b.shape
    out = np.empty_like(b)
    sums = np.empty((batch, n))
    threads = threads if b.size >= 50_000 else 1

    def work(start, stop):
        _rows(b, y, power, s, p, out, sums, np.empty(n, s.dtype), start, stop)

    work(0, 0)
    run(work, batch * n, threads)
    return out, np.sqrt(sums.sum(axis=1)).astype(s.dtype)
