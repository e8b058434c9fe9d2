"""What neighbours tell of a missing point: the preconditioner where points are missing in heaps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Observed points that a missing one is predicted from, and points done at a time.
_NEIGHBOURS = 32
_BLOCK = 2048
# What is predicted to within so many variances of the noise needs no help.
_KNOWN = 10.0


def weights(
    arrays: Sequence[Any], seen: Any, hidden: Any, shift: float
) -> Any:  # fmt: skip
    """Diagonal D (m,) of the preconditioner ``s I + D K_mm D`` of ``(A^-1)_mm``, on the host.

    ``((A^-1)_mm)^-1`` is the covariance of what is missing given all that is observed. With v_i the
    variance of the point i given a few observed neighbours, ``D_i^2 K_ii = v_i^2 / (v_i + 10 s)``:
    D vanishes where neighbours tell the value, so that sI is left, and is one within holes, where
    they tell nothing and K_mm + sI is left.
    """
    from scipy.spatial import cKDTree

    sizes = [a.shape[0] for a in arrays]
    at_seen, at_hidden = (np.stack(np.unravel_index(x, sizes), axis=-1) for x in (seen, hidden))
    step = np.array([_step(a) for a in arrays])
    count = min(_NEIGHBOURS, len(seen))
    tree = cKDTree(at_seen * step)
    diagonals = [np.diagonal(a).real.astype(np.float64) for a in arrays]
    own = np.ones(len(hidden))
    for i, d in enumerate(diagonals):
        own = own * d[at_hidden[:, i]]
    found = np.empty(len(hidden))
    for start in range(0, len(hidden), _BLOCK):
        part = slice(start, start + _BLOCK)
        near = tree.query(at_hidden[part] * step, k=count)[1].reshape(-1, count)
        found[part] = own[part] - _told(arrays, at_hidden[part], at_seen[near], shift)
    # negative by rounding only
    v = np.clip(found, 0.0, own)
    with np.errstate(invalid="ignore", divide="ignore"):
        d = v / np.sqrt((v + _KNOWN * shift) * own)
    return np.where(v > 0, d, 0.0)


def _step(a: Any) -> float:
    """How far apart neighbours of a mode are: 0 for a correlation of one."""
    if len(a) < 2:
        return 1.0
    d = np.sqrt(np.abs(np.diagonal(a)))
    size = d[1:] * d[:-1]
    correlation = np.abs(np.diagonal(a, 1))[size > 0] / size[size > 0]
    mean = float(correlation.mean()) if correlation.size else 0.0
    # points must not coincide, and those without correlation are not infinitely far
    return float(np.sqrt(-np.log(np.clip(mean, 1e-9, 1 - 1e-9))))


def _told(arrays: Sequence[Any], at: Any, near: Any, shift: float) -> Any:
    """``k^H (K_NN + s I)^-1 k`` of points (b, modes) and their neighbours (b, count, modes)."""
    count = near.shape[1]
    matrix: Any = 1.0
    row: Any = 1.0
    for i, a in enumerate(arrays):
        j = near[..., i]
        matrix = matrix * a[j[:, :, None], j[:, None, :]]
        row = row * a[j, at[:, None, i]]
    size = np.einsum("bii->bi", matrix).real.max(axis=1)
    # so that neighbours that are alike to rounding make no singular matrix
    floor = np.maximum(shift, 8 * count * np.finfo(matrix.dtype).eps * size)
    matrix = matrix + floor[:, None, None] * np.eye(count, dtype=matrix.dtype)
    x = np.linalg.solve(matrix, row[..., None])[..., 0]
    return np.einsum("bi,bi->b", row.conj(), x).real
