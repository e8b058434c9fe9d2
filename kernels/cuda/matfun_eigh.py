"""Eigenvectors by cuSOLVER, by the routine that suits the order."""

from . import REAL, backend, dtype_name

# From this order on members go one by one to divide and conquer; below, all at once to Jacobi.
ONE_BY_ONE = 256


def eigh(a, threads):
    """See ``eigh`` in ``linalgk/matfun/_ops.py``."""
    batch, n, _ = a.shape
    if n < ONE_BY_ONE or not batch:
        return backend().eigh(a)
    w = backend().empty((batch, n), REAL[dtype_name(a)], a)
    v = backend().empty(a.shape, dtype_name(a), a)
    for k in range(batch):
        w[k, ...], v[k, ...] = backend().eigh(a[k, ...])
    return w, v


VARIANTS = ()
