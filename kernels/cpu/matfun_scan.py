"""One pass over a batch of matrices for what must be known before anything is computed."""

import numpy as np

from ._preset import njit
from ._threads import run

_BLOCK = 32  # two blocks of float64 stay in the first-level cache


@njit
def _scan(a, largest, defect, spread, start, stop):
    n = a.shape[1]
    for item in range(start, stop):
        most = 0.0
        gap = 0.0
        off = 0.0
        finite = True
        for i0 in range(0, n, _BLOCK):
            for j0 in range(0, i0 + 1, _BLOCK):
                for i in range(i0, min(i0 + _BLOCK, n)):
                    for j in range(j0, min(j0 + _BLOCK, i + 1)):
                        low = a[item, i, j]
                        upper = np.conj(a[item, j, i])
                        size = max(abs(low), abs(upper))
                        # NaN compares false with everything, so it is caught by the negation
                        finite = finite and size < np.inf and abs(upper) < np.inf
                        finite = finite and abs(low) < np.inf
                        most = max(most, size)
                        gap = max(gap, abs(low - upper))
                        off = max(off, size if i != j else 0.0)
        largest[item] = most if finite else np.nan
        defect[item] = gap if finite else np.nan
        spread[item] = off


def hermitian_scan(a, threads):
    """Largest entry, largest ``|a_ij - conj(a_ji)|`` and largest off-diagonal entry of each member.

    The first two are NaN where the member is not finite.
    """
    largest = np.empty(a.shape[0], a.real.dtype)
    defect = np.empty(a.shape[0], a.real.dtype)
    spread = np.empty(a.shape[0], a.real.dtype)
    if a.size < 100_000:
        threads = 1
    run(lambda start, stop: _scan(a, largest, defect, spread, start, stop), a.shape[0], threads)
    return largest, defect, spread
