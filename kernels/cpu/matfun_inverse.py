"""Inverses by LAPACK's LU in the precision of the input."""

import numpy as np

from ._lapack import Inverse
from ._threads import run


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
