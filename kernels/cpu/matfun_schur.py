"""Square roots of general matrices by SciPy's Schur method."""

import warnings

import numpy as np


def general_sqrt(a, threads):
    """Principal square roots: real if all are, else complex; NaN where SciPy finds none."""
    import scipy.linalg

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # singular and ill-conditioned roots are judged by their residual instead
        warnings.simplefilter("ignore")
        roots = [scipy.linalg.sqrtm(member) for member in a]
    return np.stack(roots) if roots else np.empty(a.shape, a.dtype)
