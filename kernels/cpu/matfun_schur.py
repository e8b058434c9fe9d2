"""Functions of general matrices by their Schur form."""

import warnings

import numpy as np

# Distance from the identity at which 8 Gauss-Legendre nodes are exact to double precision.
_NEAR, _NODES = 0.25, 8


def general_sqrt(a, threads):
    """Principal square roots: real if all are, else complex; NaN where SciPy finds none."""
    import scipy.linalg

    return _each(scipy.linalg.sqrtm, a)


def general_power(a, t, threads):
    """Principal powers by the Schur-Padé algorithm: real if all are, else complex."""
    import scipy.linalg

    return _each(lambda member: scipy.linalg.fractional_matrix_power(member, t), a)


def general_log(a, threads):
    """Principal logarithms by inverse scaling and squaring of the Schur factor."""
    return _each(_log, a)


def _each(function, a):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # singular and ill-conditioned members are judged by their result instead
        warnings.simplefilter("ignore")
        found = [_upper(function, member) for member in a]
    return np.stack(found) if found else np.empty(a.shape, a.dtype)


def _upper(function, a):
    """The transpose of a lower triangular matrix needs no Schur form."""
    if not np.triu(a, 1).any():
        return function(a.T).T
    return function(a)


def _log(a):
    from scipy.linalg import solve_triangular, sqrtm

    t, vectors = _schur(a)
    n, roots = len(t), 0
    identity = np.eye(n)
    while not np.abs(t - identity).sum(axis=1).max() <= _NEAR:
        t, roots = np.triu(sqrtm(t)), roots + 1
        if roots > 60:
            return np.full(a.shape, np.nan, a.dtype)
    e = t - identity
    total = np.zeros_like(t)
    for x, w in zip(*np.polynomial.legendre.leggauss(_NODES), strict=True):
        total += 0.5 * w * solve_triangular(identity + 0.5 * (x + 1) * e, e, check_finite=False)
    total *= 2.0**roots
    return total if vectors is None else vectors @ total @ vectors.conj().T


def _schur(a):
    """Upper triangular factor and unitary vectors, None where the matrix is triangular already."""
    from scipy.linalg import schur

    if not np.tril(a, -1).any():
        t = a if (np.diagonal(a).real > 0).all() else a.astype(np.result_type(a, np.complex64))
        return t, None
    return schur(a, output="complex")
