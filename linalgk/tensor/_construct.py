"""From a sampled function to the Chebyshev-Tucker series of least size: attempts and choices."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor import _certify, _cross, _degrees, _grid
from linalgk.tensor._certify import SHARES
from linalgk.tensor._function import Certificate, ChebTucker
from linalgk.tensor._sampling import Sampler

# A grid of so many points is made without a second thought.
CHEAP, CHEAP_SLOW = 2_500_000, 30_000
# What a function that no degree resolves may cost: it will not be met anyway.
HOPELESS_CROSS, HOPELESS_GRID, HOPELESS_RANK = 12_000_000, 1_000_000, 128
# Evaluations kept back for the certificate.
KEPT = 4000
ATTEMPTS = 3
FIBRES = 8


class Plan(NamedTuple):
    """What was asked for."""

    tol: float
    method: str
    longest: int
    budget: int
    rng: Any
    real: str


def approximated(sampler: Sampler, plan: Plan) -> ChebTucker:
    d = sampler.ndim
    axes, coarse = _degrees.explore(sampler)
    eps = max(sampler.eps, float(np.finfo(plan.real).eps))
    tol = max(plan.tol, 4 * eps)
    through = sampler.top[:, None]
    best: ChebTucker | None = None
    for attempt in range(ATTEMPTS):
        inner = tol / (10 * 4**attempt)
        if sampler.scale == 0.0:
            built, hopeless, method = _zero(d), False, "grid"
        else:
            degrees = _degrees.find(
                sampler, inner, fibres=FIBRES << attempt, through=through, longest=plan.longest,
                rng=plan.rng,
            )  # fmt: skip
            hopeless = not all(degrees.resolved)
            seeds = axes, coarse
            built, method = _built(sampler, plan, degrees, inner, tol, seeds)
        found, worst = _leanest(sampler, plan, built, method, tol, hopeless)
        error = found.error
        if best is None or error < best.error:
            improved = best is None or error < 0.5 * best.error
            best = found
        else:
            improved = False
        if error <= tol or hopeless or not improved or sampler.left < 4 * KEPT:
            break
        through = np.concatenate([through, worst[:, None], sampler.top[:, None]], axis=1)
    assert best is not None
    return best._with(best.core, best.factors, evaluations=sampler.evaluations)


def _leanest(
    sampler: Sampler, plan: Plan, built: _grid.Built, method: str, tol: float, hopeless: bool
) -> tuple[ChebTucker, Any]:  # fmt: skip
    """With the least ranks whose measured error allows them, and where that error is."""
    eps = max(sampler.eps, float(np.finfo(plan.real).eps))
    cast = {"f": plan.real, "c": {"float32": "complex64", "float64": "complex128"}[plan.real]}
    spend = tol * sampler.scale
    # ranks are of no use against an error of the degrees, and cheap to keep
    tries = ((0.2, (1.0,)),) if hopeless else ((0.8, SHARES), (0.4, SHARES), (0.1, SHARES))
    if hopeless:
        spend = max(spend, built.tail / 10)
    for share, shares in tries:
        lean = _certify.lean(built.core, built.factors, share * spend, shares=shares)
        factors = [u.astype(plan.real) for u in lean.factors]
        core = lean.core.astype(cast[lean.core.dtype.kind])
        measured = _certify.measure(
            sampler, core.astype(lean.core.dtype), [u.astype(np.float64) for u in factors]
        )
        if measured.error <= spend or hopeless:
            break
    scale = sampler.scale or 1.0
    tail, sampled = built.tail / scale, measured.error / scale
    error = max(sampled, tail)
    result = ChebTucker(
        core, factors, sampler.domain, error=error, scale=sampler.scale, method=method,
        converged=plan.tol >= 4 * eps and error <= max(2 * plan.tol, 64 * eps),
        certificate=Certificate(
            tail, (lean.bound + built.lost) / scale, sampled, measured.points
        ),
    )  # fmt: skip
    return result, measured.worst


def _built(
    sampler: Sampler, plan: Plan, degrees: _degrees.Degrees, inner: float, tol: float,
    seeds: tuple[Any, Any],
) -> tuple[_grid.Built, str]:  # fmt: skip
    d, scale = sampler.ndim, sampler.scale
    hopeless = not all(degrees.resolved)
    fine = max(inner, 2 * degrees.noise) * scale
    target = 0.5 * tol * scale
    if hopeless:
        fine, target = max(fine, degrees.tail / 300), max(target, degrees.tail / 3)
    lengths = [
        min(_grid.padded(m), plan.longest) if ok else m
        for m, ok in zip(degrees.lengths, degrees.resolved, strict=True)
    ]
    count = math.prod(lengths)
    cheap = CHEAP if sampler.vectorized else CHEAP_SLOW
    largest = _largest(sampler, plan)
    by_grid = d == 1 or plan.method == "grid" or (not hopeless and count <= min(cheap, largest))
    crossed = None
    if not by_grid or plan.method == "cross":
        limit = max(count // 2, cheap) if plan.method == "auto" else sampler.limit
        highest = plan.longest
        if hopeless and plan.method == "auto":
            limit = HOPELESS_CROSS if sampler.vectorized else 10 * CHEAP_SLOW
            highest = HOPELESS_RANK
        crossed = _cross.build(
            sampler, lengths, fine, target,
            start=_cross.starting_points(*seeds, sampler.top, fine), longest=plan.longest,
            highest=highest, limit=min(limit, max(sampler.left - KEPT, 0)), rng=plan.rng,
        )  # fmt: skip
        if crossed is not None and (crossed.missed <= target or plan.method == "cross"):
            return crossed, "cross"
    largest = _largest(sampler, plan)
    if hopeless and plan.method == "auto" and d > 1:
        largest = min(largest, HOPELESS_GRID if sampler.vectorized else CHEAP_SLOW)
    fitting = _fitted(lengths, largest)
    longest = plan.longest if fitting == lengths else max(fitting)
    gridded = _grid.build(sampler, fitting, fine, largest=largest, longest=longest)
    if crossed is not None and fitting != lengths:
        t = plan.rng.uniform(-1, 1, (d, _cross.PROBES))
        missed = np.abs(sampler(t) - _certify.evaluate(gridded.core, gridded.factors, t)).max()
        if crossed.missed < missed:
            return crossed, "cross"
    return gridded, "grid"


def _largest(sampler: Sampler, plan: Plan) -> int:
    """Points of a grid: its values, their coefficients and two copies have to fit."""
    return max(min(plan.budget // 32, sampler.left - KEPT), 1)


def _fitted(lengths: list[int], largest: int) -> list[int]:
    """Fewer points in the longest variables until the grid is small enough."""
    lengths = list(lengths)
    while math.prod(lengths) > largest and max(lengths) > 2:
        k = int(np.argmax(lengths))
        lengths[k] = max(2, int(0.9 * lengths[k]))
    return lengths


def _zero(d: int) -> _grid.Built:
    return _grid.Built(np.zeros((1,) * d), (np.ones((1, 1)),) * d, 0.0, [1] * d, 0.0, 0.0)
