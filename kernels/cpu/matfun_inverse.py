"""Inverses by LAPACK's LU in the precision of the input, and products beside them.

Large ones by SciPy's library: after a product with threads by NumPy's own, that library's idle
threads would spin on the cores for milliseconds. Callers hold both to one thread for small ones.
"""

import numpy as np

from ._lapack import Inverse, gemm
from ._threads import run

# Up to this order NumPy's loop in C over a batch costs less than a call from Python for each.
_SMALL = 128


def inverse(a, threads):
    """Inverse and log |det| (float64) of each member; NaN and -inf where it is singular."""
    batch, n, _ = a.shape
    out = np.array(a, order="C")
    logdet = np.empty(batch)

    def work(start, stop):
        invert = Inverse(n, a.dtype)
        for item in range(start, stop):
            logdet[item] = invert(out[item])

    run(work, batch, threads)
    return out, logdet


def matmul(a, b, threads):
    """Product of each pair of members."""
    batch, n, _ = a.shape
    out = np.empty((batch, n, n), a.dtype)

    def small(start, stop):
        # warnings are of a thread; infinity and NaN are looked for at the end
        with np.errstate(all="ignore"):
            np.matmul(a[start:stop], b[start:stop], out=out[start:stop])

    def work(start, stop):
        for item in range(start, stop):
            gemm(np.ascontiguousarray(a[item]), np.ascontiguousarray(b[item]), out[item])

    run(small if n <= _SMALL else work, batch, threads if a.size > 2_000 else 1)
    return out
