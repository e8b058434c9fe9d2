"""Inverses by LU of cuBLAS for batches of small matrices and of cuSOLVER for large ones."""

from . import REAL, backend, dtype_name

# From this order on members go one by one, and one LU gives inverse and determinant.
ONE_BY_ONE = 256


def inverse(a, threads):
    """See ``inverse`` in ``linalgk/matfun/_ops.py``; what is singular holds NaN or infinity."""
    batch, n, _ = a.shape
    if n < ONE_BY_ONE or not batch:
        return backend().inverse_and_logdet(a)
    out = backend().empty(a.shape, dtype_name(a), a)
    logdet = backend().empty((batch,), REAL[dtype_name(a)], a)
    for k in range(batch):
        out[k, ...], logdet[k, ...] = backend().inverse_and_logdet(a[k, ...])
    return out, logdet


VARIANTS = ()
