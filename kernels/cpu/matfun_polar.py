"""Odd polynomials of rectangular matrices: one triangle of each Hermitian factor, one per thread.

A step in its plain form is a Gram matrix (p^2 q), its square (p^3) and a product with a Hermitian
matrix (2 p^2 q flops), instead of the 4 p^2 q + 2 p^3 of general products.
"""

import numpy as np

from ._lapack import hemm, herk
from ._threads import run
from .matfun_eigh import mirror


def odd_iteration(x, coeffs, tight, gram, threads):
    """See ``odd_iteration`` in ``linalgk/matfun/_ops.py``."""
    batch, p, q = x.shape
    out = np.array(x, order="C")
    diagonal = np.arange(p)
    coeffs = coeffs.tolist()

    def one(x, y, space):
        """Iterate x with y of its shape as workspace; which of the two holds the result."""
        r, t, u, v = space
        scale, at = 1.0, 0
        while at < len(coeffs):
            block = coeffs[at : at + max(gram, 1)]
            herk(x, r[0], 1.0, 0.0, rows=True)
            mirror(r, 0, 1)
            if tight and at == 0:
                size = np.abs(r[0])
                bound = min(np.linalg.norm(size), size.sum(axis=1).max(initial=0.0))
                if bound > 0:
                    r /= bound
                    scale = float(bound) ** -0.5
            product = None
            for k, (a, b, c) in enumerate(block):
                t[...] = r
                herk(r[0], t[0], c, b, rows=True)
                if gram == 0:
                    np.copyto(y, x)
                    hemm(t[0], x, y, scale, a * scale)
                    x, y = y, x
                    continue
                mirror(t, 0, 1)
                t[0, diagonal, diagonal] += a
                if product is None:
                    product = t.copy()
                else:
                    hemm(t[0], product[0], u[0], 1.0, 0.0)
                    product, u = u, product
                if k + 1 < len(block):
                    hemm(t[0], r[0], v[0], 1.0, 0.0)
                    hemm(t[0], v[0], r[0], 1.0, 0.0)
                    # polynomials of one matrix commute: this product is Hermitian up to rounding
                    mirror(r, 0, 1)
            if gram:
                hemm(product[0], x, y, scale, 0.0)
                x, y = y, x
            scale = 1.0
            at += len(block)
        return x

    def work(start, stop):
        space = [np.empty((1, p, p), x.dtype) for _ in range(4)]
        y = np.empty((p, q), x.dtype)
        for item in range(start, stop):
            found = one(out[item], y, space)
            if found is y:
                out[item] = found

    if p and q:
        run(work, batch, threads)
    return out
