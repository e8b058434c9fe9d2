"""Changes of basis ``V^H A V`` and ``V Y^{-1} V^H`` of Hermitian matrices, one triangle of each."""

import numpy as np

from ._lapack import herk, hermitian_product, solve_upper
from ._threads import run
from .matfun_eigh import mirror

# Rows of the product computed at once; what lies left of the diagonal block is left out.
_PANELS = 4
_TEMPORARY = 65_536  # entries that stay in the cache of a core


def _real_diagonal(x, start, stop):
    """What rounding left of imaginary parts where a Hermitian matrix has none."""
    if x.dtype.kind == "c":
        np.einsum("bii->bi", x[start:stop]).imag[...] = 0


def congruence(a, v, threads):
    """``V^H A V`` of each member, exactly Hermitian."""
    batch, n, _ = a.shape
    out = np.empty((batch, n, n), a.dtype)

    def work(start, stop):
        right = np.empty((n, n), a.dtype)
        for item in range(start, stop):
            vectors = np.ascontiguousarray(v[item].T)
            vectors = np.conj(vectors) if v.dtype.kind == "c" else vectors
            member = np.ascontiguousarray(a[item])
            hermitian_product(member, vectors, right, out[item], _PANELS if n >= 128 else 1)
        mirror(out, start, stop)
        _real_diagonal(out, start, stop)

    run(work, batch, threads)
    return out


def root_derivative(g, v, y, inverse, part, threads):
    """``V (K * V^H G V) V^H``, ``K_ij = 1/(y_i + y_j)``, for inverses times -1/(y_i y_j)."""
    batch, n, _ = g.shape
    out, y = np.empty((batch, n, n), v.dtype), y.astype(v.real.dtype, copy=False)
    step = max(1, _TEMPORARY // n**2) if n else 1

    def work(start, stop):
        # warnings are of a thread
        with np.errstate(all="ignore"):
            for first in range(start, stop, step):
                piece(slice(first, min(first + step, stop)))

    def piece(some):
        own, roots = v[some], y[some]
        left = own.swapaxes(-1, -2)
        left = np.conj(left) if v.dtype.kind == "c" else left
        inner = left @ (g[some] @ own)
        inner /= roots[:, :, None] + roots[:, None, :]
        if inverse:
            inner /= -(roots[:, :, None] * roots[:, None, :])
        result = np.matmul(own, inner @ left, out=out[some])
        if part:
            result += np.conj(result.swapaxes(-1, -2))
            result *= 0.5

    run(work, batch, threads if g.size > 2_000 else 1)
    return out


def hermitian_square(y, threads):
    """``Y^2`` of Hermitian members, exactly Hermitian."""
    batch, n, _ = y.shape
    out = np.empty((batch, n, n), y.dtype)

    def work(start, stop):
        for item in range(start, stop):
            herk(np.ascontiguousarray(y[item]), out[item], 1.0)
        mirror(out, start, stop)
        _real_diagonal(out, start, stop)

    run(work, batch, threads)
    return out


def congruence_inverse(v, y, threads):
    """``V Y^{-1} V^H`` of each member, exactly Hermitian; NaN where Y is not positive definite."""
    batch, n, _ = v.shape
    out = np.empty((batch, n, n), v.dtype)

    def work(start, stop):
        factor, rows = np.empty((n, n), v.dtype), np.empty((n, n), v.dtype)
        for item in range(start, stop):
            factor[...], rows[...] = y[item], v[item].T
            if solve_upper(factor, rows):
                out[item] = np.nan
            else:
                if v.dtype.kind == "c":
                    np.conj(rows, out=rows)
                herk(rows, out[item], 1.0)
        mirror(out, start, stop)
        _real_diagonal(out, start, stop)

    run(work, batch, threads)
    return out
