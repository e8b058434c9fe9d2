"""What stands between two large matrix products, in one pass each."""

import numpy as np

from . import PLANES, REAL, Variant, backend, dtype_name, grid, launch


def polynomial(m, square, coeffs, step, threads):
    """See ``polynomial`` in ``linalgk/matfun/_ops.py``."""
    batch, n, _ = m.shape
    m, square, coeffs = map(backend().contiguous, (m, square, coeffs))
    name = dtype_name(m)
    out = backend().empty(m.shape, name, m)
    rows = batch * n
    if rows:
        args = (
            m, square, coeffs, out, np.int64(rows), np.int32(n), np.int32(PLANES[name]),
            np.int32(coeffs.shape[1]), np.int32(step),
        )  # fmt: skip
        launch("matfun_tails", "polynomial", name, grid(rows, m), 256, args, m)
    return out


def symmetrised(x, threads):
    """See ``symmetrised`` in ``linalgk/matfun/_ops.py``; x may be overwritten."""
    batch, n, _ = x.shape
    # products and inverses of other libraries come in any order
    x = backend().contiguous(x)
    name = dtype_name(x)
    tiles = -(-n // 32)
    work = batch * tiles * (tiles + 1) // 2
    if work:
        args = (x, np.int64(batch), np.int32(n), np.int32(PLANES[name]), np.int32(tiles))
        launch("matfun_tails", "symmetrise", name, grid(work, x), 256, args, x)
    return x


def db_step(x, product, m, inverse, mu, going, threads):
    """See ``db_step`` in ``linalgk/matfun/_ops.py``."""
    batch, n, _ = m.shape
    x, product, m, inverse = map(backend().contiguous, (x, product, m, inverse))
    name = dtype_name(m)
    new_x, new_m = (backend().empty(m.shape, name, m) for _ in range(2))
    distance = backend().zeros((batch,), REAL[name], m)
    rows = batch * n
    if rows:
        args = (
            x, product, m, inverse, mu, going, new_x, new_m, distance, np.int64(rows), np.int32(n),
            np.int32(PLANES[name]),
        )  # fmt: skip
        launch("matfun_tails", "db_step", name, grid(rows, m), 256, args, m)
    return new_x, new_m, distance


VARIANTS = (Variant("matfun_tails", {}),)
