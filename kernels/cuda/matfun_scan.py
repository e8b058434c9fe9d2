"""Structure of each member of a batch in one read."""

import numpy as np

from . import PLANES, REAL, Variant, backend, dtype_name, grid, launch


def hermitian_scan(a, threads):
    """See ``hermitian_scan`` in ``linalgk/matfun/_ops.py``."""
    batch, n, _ = a.shape
    name = dtype_name(a)
    found = backend().zeros((3, batch), REAL[name], a)
    tiles = -(-n // 32)
    work = batch * tiles * (tiles + 1) // 2
    if work:
        launch(
            "matfun_scan", "hermitian_scan", name, grid(work, a), 256,
            (a, found, np.int64(batch), np.int32(n), np.int32(PLANES[name]), np.int32(tiles)), a,
        )  # fmt: skip
    return found[0, ...], found[1, ...], found[2, ...]


VARIANTS = (Variant("matfun_scan", {}),)
