"""Square roots of general matrices by SciPy's Schur method."""

import warnings

import numpy as np


def general_sqrt(a, threads):
    """Principal square roots in the smallest dtype that holds them; NaN where SciPy finds none."""
    import scipy.linalg

    wide = {"f": np.complex64, "d": np.complex128}.get(a.dtype.char, a.dtype)
    out = np.empty(a.shape, wide)
    for item in range(a.shape[0]):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # singular and ill-conditioned roots are judged by their residual instead
            warnings.simplefilter("ignore")
            out[item] = scipy.linalg.sqrtm(a[item])
    return out
