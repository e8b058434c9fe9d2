"""Construction from fibres through chosen points, where the whole grid would be too much.

For each variable the fibres through the grid of the others' chosen points span a basis; points
that a pivoted QR of that basis picks become the chosen points of this variable [1]_ [2]_. The core
is what values there determine. More points than basis vectors keep the noise of values from being
amplified.

.. [1] S. Dolgov, D. Kressner, C. Stroessner, "Functional Tucker approximation using Chebyshev
   interpolation", SIAM J. Sci. Comput. 43 (2021), A2190.
.. [2] Z. Drmac, S. Gugercin, "A new selection operator for the discrete empirical interpolation
   method", SIAM J. Sci. Comput. 38 (2016), A631.
"""

import math
from typing import Any

import numpy as np

from linalgk.tensor import _chebyshev, _compress
from linalgk.tensor._certify import evaluate
from linalgk.tensor._grid import Built, padded, tail
from linalgk.tensor._sampling import Exhausted, Sampler

SWEEPS = 12
# Points at which a sweep is judged.
PROBES = 64


def build(
    sampler: Sampler, lengths: list[int], tol: float, target: float, *,
    start: list[Any], longest: int, highest: int, limit: int, largest: int, rng: Any,
) -> Built | None:  # fmt: skip
    """With fibres to the absolute tolerance ``tol`` until probes are met to ``target``.

    ``start`` are chosen points of each variable to begin with. None where the first sweep would
    take more than ``limit`` evaluations, ``largest`` of them at once, or a rank above ``highest``;
    else the best sweep.
    """
    d = sampler.ndim
    end = sampler.evaluations + min(limit, sampler.left)
    sets, held = [np.unique(s) for s in start], [np.zeros(0)] * d
    bases: list[Any] = [None] * d
    lengths = list(lengths)
    probes = _probes(sampler, rng)
    best: Built | None = None
    least, idle = math.inf, 0
    try:
        exact = sampler(probes)
        for sweep in range(SWEEPS):
            worst, saturated = 0.0, False
            for k in range(d):
                while True:
                    m = lengths[k]
                    sizes = [m if j == k else len(s) for j, s in enumerate(sets)]
                    if math.prod(sizes) > min(largest, end - sampler.evaluations):
                        return best
                    y = sampler.grid([*sets[:k], _chebyshev.points(m), *sets[k + 1 :]])
                    c = _chebyshev.coefficients(y, axis=k)
                    last = tail(np.abs(c).max(axis=tuple(j for j in range(d) if j != k)))
                    if last <= tol or m >= longest:
                        break
                    lengths[k] = min(padded(3 * m // 2), longest)
                worst = max(worst, last)
                columns = np.moveaxis(c, k, 0).reshape(m, -1)
                bases[k] = column_space(columns, tol, bases[k], rng)
                rank = bases[k].shape[1]
                if rank > highest:
                    return best
                saturated |= rank >= min(columns.shape[1] * (1 + (c.dtype.kind == "c")), m)
                rows = pick(_chebyshev.values(bases[k]), _over(rank, d, sweep))
                sets[k] = np.unique(np.concatenate([_chebyshev.points(m)[rows], held[k]]))
            built = Built(_core(c, sets, bases), tuple(bases), worst, list(lengths), 0.0, math.inf)
            missed = np.abs(exact - evaluate(built.core, built.factors, probes))
            error = float(missed.max())
            idle = 0 if error < 0.5 * least else idle + 1
            if error < least:
                best, least = built._replace(missed=error), error
            if (least <= target and not saturated) or idle >= 3:
                break
            at = probes[:, int(np.argmax(missed))]
            held = [np.append(h, x) for h, x in zip(held, at, strict=True)]
            sets = [np.unique(np.append(s, x)) for s, x in zip(sets, at, strict=True)]
            if idle:
                # the probes themselves may be fulfilled by chance
                probes = _probes(sampler, rng)
                exact = sampler(probes)
    except Exhausted:
        pass
    return best


def _probes(sampler: Sampler, rng: Any) -> Any:
    """Half of them anywhere, half near the largest value: elsewhere there may be nothing."""
    t = rng.uniform(-1, 1, (sampler.ndim, PROBES))
    t[:, ::2] = np.clip(sampler.top[:, None] + 0.1 * t[:, ::2], -1, 1)
    return t


def starting_points(axes: list[Any], values: Any, top: Any, tol: float) -> list[Any]:
    """Chosen points of the coarse grid and of the largest value."""
    found = []
    for k, axis in enumerate(axes):
        columns = _real(np.moveaxis(values, k, 0).reshape(len(axis), -1))
        q = column_space(columns, tol, None, np.random.default_rng(0))
        rows = pick(q, _over(q.shape[1], values.ndim, 0))
        found.append(np.append(axis[rows], top[k]))
    return found


def column_space(columns: Any, tol: float, before: Any, rng: Any) -> Any:
    """Orthonormal columns that span those given, each to about the 2-norm ``tol``."""
    import scipy.linalg

    columns = _real(columns)
    m, p = columns.shape
    guess = min(m, p) if before is None else before.shape[1] * 3 // 2 + 20
    mixed = columns
    if p > min(m, guess) + 20:
        count = min(m, guess) + 10
        mixed = columns @ (rng.standard_normal((p, count)) * (4 / math.sqrt(p)))
    q, r, _ = scipy.linalg.qr(mixed, mode="economic", pivoting=True, check_finite=False)
    rank = int(np.count_nonzero(np.abs(np.diagonal(r)) > tol))
    q = q[:, : max(rank, 1)]
    for _ in range(4):
        if mixed is columns or q.shape[1] == m:
            break
        rest = columns - q @ (q.T @ columns)
        norms = np.linalg.norm(rest, axis=0)
        if norms.max() <= 3 * tol:
            break
        few = rest[:, np.argsort(norms)[::-1][: max(32, q.shape[1])]]
        few -= q @ (q.T @ few)
        new, r, _ = scipy.linalg.qr(few, mode="economic", pivoting=True, check_finite=False)
        more = max(int(np.count_nonzero(np.abs(np.diagonal(r)) > tol)), 1)
        q = np.linalg.qr(np.concatenate([q, new[:, :more]], axis=1))[0]
    return q


def pick(v: Any, over: int) -> Any:
    """Rows of v (m, r) that determine the others: r by pivoted QR, then ``over`` likewise."""
    import scipy.linalg

    m, r = v.shape
    rows = scipy.linalg.qr(v.T, mode="r", pivoting=True, check_finite=False)[1][:r]
    rest = np.setdiff1d(np.arange(m), rows)
    if not over or not rest.size:
        return rows
    second = scipy.linalg.qr(v[rest].T, mode="r", pivoting=True, check_finite=False)[1][:over]
    return np.concatenate([rows, rest[second[:r]]])


def _over(rank: int, d: int, sweep: int) -> int:
    return 2 + sweep + rank // (2 if d < 4 else 4)


def _real(columns: Any) -> Any:
    if columns.dtype.kind != "c":
        return columns
    return np.concatenate([columns.real, columns.imag], axis=1)


def _core(c: Any, sets: list[Any], bases: list[Any]) -> Any:
    """From coefficients in the last variable at the chosen points of the others."""
    matrices = []
    for s, q in zip(sets[:-1], bases[:-1], strict=True):
        matrices.append(np.linalg.pinv(_chebyshev.basis(s, q.shape[0]) @ q))
    matrices.append(np.ascontiguousarray(bases[-1].T))
    return _compress.mixed_products(c, matrices)
