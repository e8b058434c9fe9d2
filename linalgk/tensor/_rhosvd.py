"""Canonical to Tucker: reduced higher-order singular values, with the weights in the bound.

For columns of length one, orthogonal projections P_k and ``T = sum_r w_r u_1r o ... o u_dr``

    ||T - P_1 ... P_d T||^2 <= sum_k ||(I - P_k) T||^2,
    ||(I - P_k) T|| <= sum_r |w_r| ||(I - P_k) u_kr|| <= (S tail_k)^(1/2),  S = sum_r |w_r|,

where tail_k is the sum of the squared singular values left out of the side matrix of mode k, the
columns u_kr times |w_r|^(1/2) [1]_ (there without weights). What is projected is orthogonal to
what is left, so that the truncation of the small core adds its squared error.

.. [1] B. N. Khoromskij, V. Khoromskaia, "Multigrid accelerated tensor approximation of function
   related multidimensional arrays", SIAM J. Sci. Comput. 31 (2009), Theorem 2.5.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import adjoint
from linalgk.errors import NonFiniteError
from linalgk.tensor import _tensor_algebra as algebra
from linalgk.tensor import _unfold
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._format import scope
from linalgk.tensor._tucker_tensor import TuckerTensor, rank_list, shrunk

# Of the tolerance, what the first projection may use; the squares add, so that it costs one
# percent of what is left for the core.
SHARE = 0.1
# Rows of the random matrices that estimate the norm.
SKETCH = 8
# Roundings of the sum of |weights|, about what the steps together lose.
ROUNDING = 20.0
# Numbers of a core where ranks are given, which are raised as far as this allows.
CORE = 1 << 24

Blocks = Callable[[], Iterable[tuple[Any, Sequence[Any]]]]


class Reduced(NamedTuple):
    """``core x_1 Q_1 ... x_d Q_d`` with orthonormal columns, not truncated further."""

    core: Any
    factors: list[Any]
    error: float  # bound of the Frobenius norm of what the projection lost
    rounding: float  # about what rounding may have lost


def from_canonical(
    t: CanonicalTensor, *, tol: float | None = None, ranks: Any = None, method: str = "auto"
) -> TuckerTensor:
    """A `TuckerTensor` of a canonical tensor, without its entries.

    ``tol`` is relative to the Frobenius norm of ``t``, and ``error`` of the result a bound of the
    relative error with about what rounding adds; ``converged`` says whether it is within ``tol``.
    No warning is given here. ``ranks`` instead of ``tol``: an integer or one for each mode.
    Neither: to a few roundings. ``method`` is ``"auto"`` or ``"rhosvd"``.
    """
    _validate.choice("method", method, ("auto", "rhosvd"))
    if _xp.is_traced(t.weights):
        msg = "tucker: ranks depend on values and cannot be traced; call it outside"
        raise TypeError(msg)
    with scope(t.weights):
        entered = t._enter()
        weights, *factors = entered.arrays
        width = max(4 * max(t.shape), algebra.BLOCK // max(1, max(t.shape)))

        def blocks() -> Iterable[tuple[Any, Sequence[Any]]]:
            for i in range(0, max(t.rank, 1), width):
                j = min(i + width, t.rank)
                yield weights[i:j], [f[:, i:j] for f in factors]

        core, bases, error, converged = _tucker(blocks, tol, ranks, t.shape, _eps(weights))
        xp = entered.xp
        core, *bases = (entered.leave(xp.astype(x, weights.dtype)) for x in (core, *bases))
        return TuckerTensor(core, bases, error=error, method="rhosvd", converged=converged)


def from_blocks(
    blocks: Blocks, shape: Sequence[int], *, tol: float | None = None, ranks: Any = None
) -> TuckerTensor:
    """The same of columns that come in blocks, for more of them than memory holds.

    ``blocks()`` gives anew each time the pairs ``(weights (B,), [(n_1, B), ..., (n_d, B)])`` of
    NumPy arrays (or of another library that has entered). It is called twice, seldom three times;
    the work is done in double precision.
    """
    core, bases, error, converged = _tucker(blocks, tol, ranks, tuple(shape), _EPS)
    return TuckerTensor(core, bases, error=error, method="rhosvd", converged=converged)


_EPS = float(np.finfo(np.float64).eps)


def _eps(x: Any) -> float:
    return float(np.finfo(_xp.dtype_name(x)).eps)


def _tucker(
    blocks: Blocks, tol: float | None, ranks: Any, shape: tuple[int, ...], eps: float
) -> tuple[Any, list[Any], float, bool]:
    """Core, factors, relative error, and whether that is within the tolerance."""
    if tol is not None and ranks is not None:
        msg = "ranks: give ranks or tol, not both"
        raise ValueError(msg)
    wanted = None if ranks is None else rank_list(ranks, shape)
    aim = 16 * eps if tol is None else _validate.real_between("tol", tol, 0.0, 1.0)
    reduced = reduce(blocks, aim, wanted)
    xp = _xp.namespace(reduced.core)
    norm = algebra.frobenius(xp, reduced.core)
    scale = norm if norm > 0 else 1.0
    if not math.isfinite(norm):
        msg = "weights, factors: hold NaN or infinity, or their products overflow"
        raise NonFiniteError(msg)
    lost = (reduced.error / scale) ** 2
    core, bases, cut = shrunk(
        reduced.core / scale,
        budget=None if wanted is not None else max(aim**2 - lost, 0.0),
        ranks=wanted,
    )
    factors = [q @ u for q, u in zip(reduced.factors, bases, strict=True)]
    # single precision is computed in double where the library has it, and rounded at the end
    rounding = reduced.rounding / scale + (eps if eps > _eps(reduced.core) else 0.0)
    error = math.sqrt(lost + cut + rounding**2) if norm > 0 else 0.0
    return core * scale, factors, error, tol is None or error <= tol


# --- The first projection ------------------------------------------------------------------------


def reduce(blocks: Blocks, tol: float, ranks: Sequence[int] | None = None) -> Reduced:
    """Bases of the side matrices, and the core that belongs to them.

    The error is at most ``2 SHARE tol`` of the norm of the core where no ranks are given, or where
    the ranks leave room.
    """
    total, sides, guess = _sides(blocks)
    if not math.isfinite(total):
        msg = "weights, factors: hold NaN or infinity, or their products overflow"
        raise NonFiniteError(msg)
    spectra = [_spectrum(side) for side in sides]
    # an estimate may be too large by chance; too small costs a few columns
    norm = guess / 4
    while True:
        # (SHARE tol norm)^2 / d over the sum of |weights|, in an order that does not overflow
        share = (SHARE * tol) ** 2 / len(sides)
        budget = share * (norm / total) * norm if total > 0 else 0.0
        chosen = [_cut(s, budget) for _, s in spectra]
        if ranks is not None:
            chosen = _limited(chosen, ranks)
        tails = [float(np.sum(s[r:] ** 2)) for (_, s), r in zip(spectra, chosen, strict=True)]
        bases = [u[:, :r] for (u, _), r in zip(spectra, chosen, strict=True)]
        core = _projected(blocks, bases)
        size = algebra.frobenius(_xp.namespace(core), core)
        error = math.sqrt(total) * math.sqrt(math.fsum(tails))
        if ranks is not None or error <= 2 * SHARE * tol * size or size >= norm:
            return Reduced(core, bases, error, ROUNDING * _eps(core) * total)
        # the norm of a projection is a lower bound: the second time is the last
        norm = size


def _sides(blocks: Blocks) -> tuple[float, list[Any], float]:
    """Sum of |weights|, side matrices up to rotations of columns, and an estimate of the norm."""
    total, sketch = 0.0, None
    sides: list[Any] = []
    tests: list[Any] = []
    for block in blocks():
        weights, columns, inverses = algebra.columns(*block)
        xp = _xp.namespace(weights)
        size = xp.abs(weights)
        total += float(xp.sum(size))
        if not math.isfinite(total):
            break
        root = xp.sqrt(size)
        scaled = [u * (root * a) for u, a in zip(columns, inverses, strict=True)]
        sides = [
            _narrow(xp, side) for side in (
                [xp.concat([a, b], axis=1) for a, b in zip(sides, scaled, strict=True)]
                if sides else scaled
            )
        ]  # fmt: skip
        tests = tests or [_gaussian(u) for u in columns]
        part = project(weights, _products(tests, columns, inverses))
        sketch = part if sketch is None else sketch + part
    if sketch is None or not math.isfinite(total):
        return math.nan, sides, math.nan
    spread = SKETCH ** (len(sides) / 2)
    return total, sides, algebra.frobenius(_xp.namespace(sketch), sketch) / spread


def _narrow(xp: Any, side: Any) -> Any:
    """L with ``L L^H = side side^H``, no wider than high."""
    if side.shape[1] <= side.shape[0]:
        return side
    return _unfold.triangle(side, 0) if side.shape[0] else xp.zeros_like(side[:, :0])


def _gaussian(like: Any) -> Any:
    """A random matrix whose products keep squared norms in the mean."""
    g = np.random.default_rng(like.shape[0]).standard_normal((SKETCH, like.shape[0]))
    xp = _xp.namespace(like)
    return xp.astype(_xp.from_numpy(g, xp, like=like), like.dtype)


def _spectrum(side: Any) -> tuple[Any, Any]:
    """Left singular vectors and, on the host, singular values."""
    xp = _xp.namespace(side)
    q, r = algebra.qr(xp, side)
    if 0 in r.shape:
        return q, np.zeros(0)
    u, s, _ = xp.linalg.svd(r, full_matrices=False)
    return q @ u, np.asarray(_xp.to_numpy(s), dtype=np.float64)


def _cut(s: Any, budget: float) -> int:
    """The fewest singular values, one at least, whose squared tail is within the budget."""
    tails = np.concatenate([np.cumsum(s[::-1] ** 2)[::-1], [0.0]])
    return min(max(int(np.argmax(tails <= budget)), 1), int(s.size))


def _limited(chosen: list[int], ranks: Sequence[int]) -> list[int]:
    """Fewer columns where the core would be large, but as many as the ranks."""
    chosen = list(chosen)
    while math.prod(chosen) > CORE:
        room = [c - r for c, r in zip(chosen, ranks, strict=True)]
        k = room.index(max(room))
        if room[k] <= 0:
            break
        chosen[k] = max(ranks[k], int(0.9 * chosen[k]))
    return chosen


def _projected(blocks: Blocks, bases: Sequence[Any]) -> Any:
    """``T x_1 Q_1^H ... x_d Q_d^H``."""
    core = None
    for block in blocks():
        weights, columns, inverses = algebra.columns(*block)
        turned = [adjoint(_xp.namespace(q), q) for q in bases]
        part = project(weights, _products(turned, columns, inverses))
        core = part if core is None else core + part
    assert core is not None
    return core


def _products(matrices: Sequence[Any], columns: Sequence[Any], inverses: Sequence[Any]) -> Any:
    """Products with columns of length one."""
    return [(q @ u) * a for q, u, a in zip(matrices, columns, inverses, strict=True)]


def project(weights: Any, projected_factors: Sequence[Any]) -> Any:
    """Core (r_1, ..., r_d) of weights (R,) and projected columns ``Q_k^H U_k`` (r_k, R).

    ``2 R r_1 ... r_d`` operations in blocks of columns; cores of several calls add up.
    """
    return algebra.summed(weights, projected_factors)
