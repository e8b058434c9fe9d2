"""What is asked of nearest Kronecker products, and matrices of known structure."""

import numpy as np
from directions import adjoint, gaussian

TWO = [(6, 6), (5, 5)]


def rearranged(a, shapes):
    """By the definition, block by block."""
    (p1, q1), (p2, q2) = shapes
    rows = [
        a[i * p2 : (i + 1) * p2, j * q2 : (j + 1) * q2].reshape(-1)
        for i in range(p1)
        for j in range(q1)
    ]
    return np.stack(rows)


def least_error(a, shapes, rank):
    s = np.linalg.svd(rearranged(a.astype(np.result_type(a, "float64")), shapes), compute_uv=False)
    return np.sqrt(np.sum(s[rank:] ** 2) / np.sum(s**2)), s


def error_of(a, k):
    wide = np.result_type(a, "float64")
    return np.linalg.norm(a - k.toarray().astype(wide)) / np.linalg.norm(a.astype(wide))


def psd(n, rank=None, dtype="float64", seed=0):
    x = gaussian((n, rank or n), dtype, seed)
    return x @ adjoint(x)


def symmetric(n, dtype="float64", seed=0):
    x = gaussian((n, n), dtype, seed)
    return x + adjoint(x)


def skew(n, seed=0):
    x = gaussian((n, n), seed=seed)
    return x - x.T


def unit(n, i):
    e = np.zeros((n, n))
    e[i, i] = 1
    return e
