"""Leading singular vectors by a block Golub-Kahan process with full orthogonalization.

``A V = U T`` with orthonormal U and V and a small T on the host; V grows by what ``A^H U`` has
outside of it. Directions that rounding errors made are dropped, so that a process which has
exhausted the range of A ends there. As many columns as triplets are wanted are needed in each
block: then multiple singular values do no harm.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk._members import adjoint
from linalgk.kronecker._rearranged import Rearranged

# Steps between looks at the singular values of T grow by this factor.
_LOOKS = 1.25
# Relative difference of singular values that count as equal.
EQUAL = 1e-10
# Residual that is aimed at, in units of eps s_1, and steps after which less will do.
_AIM, _PATIENCE = 16.0, 32


class Triplets(NamedTuple):
    """Singular values, and right singular vectors as columns."""

    s: Any  # (k,) on the host
    v: Any  # (n, k)
    residual: float  # largest ||A^H u - s v|| / s_1
    steps: int


def rounding(a: Rearranged) -> float:
    """What rounding leaves of a vector of length one that lies in a space."""
    return (8 + math.sqrt(max(a.shape))) * a.eps


def leading(a: Rearranged, k: int, start: Any, max_iter: int) -> Triplets:
    """The k leading triplets, fewer if the rank is less; ``start`` (n, k) begins the space."""
    xp, eps = a.xp, a.eps
    k = min(k, *a.shape)
    least = rounding(a)
    new, _ = _basis(a, start[:, :k], 0.0)
    v, u, t = new, None, np.zeros((0, 0))
    steps, look, size, before = 0, 2, 0.0, 0.0
    while True:
        w = a.matmat(new)
        inner = None
        if u is not None:
            w, inner = _without(a, u, w)
        added, r = _basis(a, w, least * size)
        t = _grown(t, inner, r)
        u = added if u is None else _joined(xp, u, added)
        steps += 1
        size = max(size, float(np.linalg.norm(r)))
        rest: Any = np.zeros((0, 0))
        ended = added.shape[1] == 0
        if not ended:
            z, _ = _without(a, v, a.rmatmat(added))
            new, rest = _basis(a, z, least * size)
            ended = new.shape[1] == 0
        if not (np.isfinite(t).all() and np.isfinite(rest).all()):
            return Triplets(np.full(k, math.nan), v[:, :k], math.nan, steps)
        if ended or steps >= look or steps == max_iter:
            look = max(steps + 1, math.ceil(steps * _LOOKS))
            p, s, qh = np.linalg.svd(t, full_matrices=False)
            size = float(s[0]) if s.size else 0.0
            worst = 0.0
            if not ended:
                outside = rest @ p[-rest.shape[1] :, : min(k, len(s))]
                worst = float(np.linalg.norm(outside, axis=0).max()) / (size or 1.0)
            # vectors of values that are close take long, and the sum of squares needs them little
            total = float(np.sum(s[:k] ** 2))
            settled = total - before <= eps * total and worst <= 0.1 * math.sqrt(eps)
            before = total
            enough = len(s) >= k and (worst <= _AIM * eps or (steps >= _PATIENCE and settled))
            if ended or enough or steps == max_iter:
                # beyond the rank there is rounding only
                s = s[: int(np.sum(s > least * size))]
                return Triplets(s[:k], v @ a.device(_chosen(s, qh, k)), worst, steps)
        v = _joined(xp, v, new)


def _chosen(s: Any, qh: Any, k: int) -> Any:
    """Coefficients of the k right vectors; of one that is multiple, of what the start has of it."""
    if k > 1 or len(s) < 2:
        return _h(qh[: min(k, len(s))])
    equal = qh[: int(np.sum(s >= s[0] * (1 - EQUAL)))]
    x = _h(equal) @ equal[:, :1]
    size = float(np.linalg.norm(x))
    return x / size if size > 1e-3 else _h(qh[:1])


def _basis(a: Rearranged, w: Any, drop: float) -> tuple[Any, Any]:
    """Q and R of ``W = Q R`` without directions shorter than ``drop``; R on the host."""
    xp = a.xp
    if w.shape[1] == 1:
        length = _length(a, w)
        if length <= drop or length == 0:
            return w[:, :0], np.zeros((0, 1))
        return w * (1 / length), np.array([[length]])
    q, r = xp.linalg.qr(w)
    r = a.host(r)
    if not np.isfinite(r).all():
        return q, np.full(r.shape, math.nan)
    p, s, qh = np.linalg.svd(r)
    keep = int(np.sum(s > max(drop, 4 * a.eps * s[0])))
    return q @ a.device(p[:, :keep]), s[:keep, None] * qh[:keep]


def _length(a: Rearranged, w: Any) -> float:
    if a.xp is np:
        return float(np.linalg.norm(w))
    size = a.xp.abs(w)
    return math.sqrt(float(a.xp.sum(size * size)))


def _without(a: Rearranged, basis: Any, w: Any) -> tuple[Any, Any]:
    """W less its part in the space, twice, and the coefficients of that."""
    back = adjoint(a.xp, basis)
    first = back @ w
    w = w - basis @ first
    second = back @ w
    return w - basis @ second, a.host(first + second)


def _grown(t: Any, inner: Any, r: Any) -> Any:
    """T with the columns of a new block."""
    if inner is None:
        return r
    below = np.zeros((r.shape[0], t.shape[1]))
    return np.block([[t, inner], [below, r]])


def _joined(xp: Any, x: Any, y: Any) -> Any:
    return x if y.shape[1] == 0 else xp.concat([x, y], axis=1)


def _h(x: Any) -> Any:
    return np.conj(x).T
