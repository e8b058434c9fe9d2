"""Hermitian eigenvectors by LAPACK in the precision of the input, and B B^H by SYRK/HERK."""

import numpy as np

from ._lapack import Evd, herk
from ._threads import run


def eigh(a, threads):
    """Eigenvalues ascending (b, n), eigenvectors in columns (b, n, n); NaN where LAPACK fails."""
    batch, n, _ = a.shape
    rows = np.array(a, order="C")
    w = np.empty((batch, n), a.real.dtype)

    def work(start, stop):
        solve = Evd(n, a.dtype)
        for item in range(start, stop):
            if solve(rows[item], w[item]):
                w[item] = np.nan

    run(work, batch, threads)
    # LAPACK reads rows as columns, which conjugates a Hermitian matrix
    vectors = rows.swapaxes(-1, -2)
    return w, np.conj(vectors) if a.dtype.kind == "c" else vectors


def gram(b, threads):
    """``B B^H`` of each member, exactly Hermitian."""
    batch, n, _ = b.shape
    out = np.empty((batch, n, n), b.dtype)
    # row-major storage transposes what Fortran sees, which conjugates the Hermitian product
    columns = np.conjugate(b.swapaxes(-1, -2), order="C")

    def work(start, stop):
        for item in range(start, stop):
            herk(columns[item], out[item])
            _mirror(out[item])

    run(work, batch, threads)
    return out


def _mirror(c, block=256):
    """Copy the upper triangle to the lower, block by block so that both stay in cache."""
    n = c.shape[0]
    for i in range(0, n, block):
        end = min(i + block, n)
        square = c[i:end, i:end]
        lower = np.tril_indices(end - i, -1)
        square[lower] = np.conj(square.T[lower])
        for j in range(end, n, block):
            stop = min(j + block, n)
            np.conj(c[i:end, j:stop].T, out=c[j:stop, i:end])
