"""From a function to the Chebyshev-Tucker series of least size: attempts and choices."""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk.errors import ConvergenceWarning, NotConvergedError
from linalgk.tensor import _certify, _cross, _degrees, _grid
from linalgk.tensor._sampling import Exhausted, Sampler
from linalgk.tensor._series import Certificate, Series

# Highest degrees that are tried, by number of variables.
LONGEST = {1: 1 << 16, 2: 1 << 12, 3: 1 << 10, 4: 1 << 8}
# A grid of so many points is made without a second thought.
CHEAP, CHEAP_SLOW = 2_500_000, 30_000
# What a function that no degree resolves may cost: it will not be met anyway.
HOPELESS_CROSS, HOPELESS_GRID, HOPELESS_RANK = 12_000_000, 1_000_000, 128
# Tolerances below so many eps are out of reach.
PRECISION = 4
# Evaluations kept back for the certificate.
KEPT = 4000
ATTEMPTS, TRIES = 3, 4
FIBRES = 8


class Plan(NamedTuple):
    """What was asked for."""

    tol: float
    method: str
    longest: int
    budget: int
    rng: Any
    real: str
    eps: float  # of the values and the coefficients

    @property
    def reached(self) -> float:
        """The tolerance that is worked for."""
        return max(self.tol, PRECISION * self.eps)

    def met(self, error: float) -> bool:
        """Whether an error is small enough to be called converged."""
        return self.tol >= PRECISION * self.eps and error <= max(2 * self.tol, 64 * self.eps)


def approximated(sampler: Sampler, plan: Plan) -> Series:
    """Try, measure the error, and try harder; `Exhausted` where not even one try was possible."""
    axes, coarse = _degrees.explore(sampler)
    unit = sampler.normalize()
    coarse = coarse / unit
    through = sampler.top[:, None]
    best: Series | None = None
    for attempt in range(ATTEMPTS):
        try:
            found, worst, hopeless = _attempt(sampler, plan, attempt, through, (axes, coarse))
        except Exhausted:
            if best is None:
                raise
            break
        improved = best is None or found.error < 0.8 * best.error
        best = found if best is None or found.error < best.error else best
        if found.error <= plan.reached or hopeless or not improved:
            break
        through = np.concatenate([through, worst[:, None], sampler.top[:, None]], axis=1)
    assert best is not None
    return best._with(
        best.core * unit, best.factors, scale=best.scale * unit, evaluations=sampler.evaluations
    )


def _attempt(
    sampler: Sampler, plan: Plan, attempt: int, through: Any, seeds: tuple[Any, Any]
) -> tuple[Series, Any, bool]:  # fmt: skip
    """A series, where its error is, and whether more effort is in vain."""
    if sampler.scale == 0.0:
        return *_leanest(sampler, plan, _zero(sampler.ndim), "grid", False), False
    inner = plan.reached / (10 * 4**attempt)
    degrees = _degrees.find(
        sampler, inner, fibres=FIBRES << attempt, through=through, longest=plan.longest,
        rng=plan.rng,
    )  # fmt: skip
    hopeless = not all(degrees.resolved)
    built, method = _built(sampler, plan, degrees, inner, seeds)
    return *_leanest(sampler, plan, built, method, hopeless), hopeless


def _leanest(
    sampler: Sampler, plan: Plan, built: _grid.Built, method: str, hopeless: bool
) -> tuple[Series, Any]:  # fmt: skip
    """With the least ranks whose measured error allows them, and where that error is."""
    spend = plan.reached * sampler.scale
    share, shares, tries = 0.8, _certify.SHARES, TRIES
    if hopeless:
        # low ranks are of little use beside a large error of the degrees
        spend, share, shares, tries = max(spend, built.tail / 10), 0.2, (1.0,), 1
    found: tuple[Series, Any] | None = None
    for _ in range(tries):
        lean = _certify.lean(built.core, built.factors, share * spend, shares=shares)
        real = "complex64" if plan.real == "float32" else "complex128"
        core = lean.core.astype(real if lean.core.dtype.kind == "c" else plan.real)
        factors = [u.astype(plan.real) for u in lean.factors]
        try:
            measured = _certify.measure(
                sampler, core.astype(lean.core.dtype), [u.astype(np.float64) for u in factors]
            )
        except Exhausted:
            if found is None:
                raise
            break
        scale = sampler.scale or 1.0
        tail, sampled = built.tail / scale, measured.error / scale
        bound = (lean.bound + built.lost) / scale
        result = Series(
            core, factors, sampler.domain, error=max(sampled, tail), scale=sampler.scale,
            method=method, converged=plan.met(max(sampled, tail)),
            certificate=Certificate(tail, bound, sampled, measured.points),
        )  # fmt: skip
        before = found
        if before is None or result.error < before[0].error:
            found = result, measured.worst
        if measured.error <= spend or (before and result.error > 0.9 * before[0].error):
            break
        # of a narrow peak the maximum is many times the norm
        share *= min(max(0.7 * spend / measured.error, 0.02), 0.5)
    assert found is not None
    return found


def _built(
    sampler: Sampler, plan: Plan, degrees: _degrees.Degrees, inner: float, seeds: tuple[Any, Any]
) -> tuple[_grid.Built, str]:  # fmt: skip
    d, scale = sampler.ndim, sampler.scale
    hopeless = not all(degrees.resolved)
    fine = max(inner, 2 * degrees.noise) * scale
    target = max(0.2 * plan.reached, 24 * plan.eps) * scale
    if hopeless:
        fine, target = max(fine, degrees.tail / 300), max(target, degrees.tail / 3)
    lengths = [
        min(_grid.padded(m), plan.longest) if ok else m
        for m, ok in zip(degrees.lengths, degrees.resolved, strict=True)
    ]
    count = math.prod(lengths)
    cheap = CHEAP if sampler.vectorized else CHEAP_SLOW
    largest = _largest(sampler, plan)
    if hopeless:
        cheap = min(cheap, HOPELESS_GRID)
    by_grid = d == 1 or plan.method == "grid" or count <= min(cheap, largest)
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
            highest=highest, limit=min(limit, sampler.left - _reserve(sampler)),
            largest=plan.budget // 32, rng=plan.rng,
        )  # fmt: skip
        if crossed is not None and (crossed.missed <= 5 * target or plan.method == "cross"):
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
    return max(min(plan.budget // 32, sampler.left - _reserve(sampler)), 1)


def _reserve(sampler: Sampler) -> int:
    return min(KEPT, sampler.left // 4)


def _fitted(lengths: list[int], largest: int) -> list[int]:
    """Fewer points in the longest variables until the grid is small enough."""
    lengths = list(lengths)
    while math.prod(lengths) > largest and max(lengths) > 2:
        k = int(np.argmax(lengths))
        lengths[k] = max(2, int(0.9 * lengths[k]))
    return lengths


def _zero(d: int) -> _grid.Built:
    return _grid.Built(np.zeros((1,) * d), (np.ones((1, 1)),) * d, 0.0, [1] * d, 0.0, 0.0)


# --- The whole -----------------------------------------------------------------------------------


def constructed(
    f: Any, box: Any, *, tol: float | None, vectorized: bool = True, method: str = "auto",
    max_degree: int | None = None, budget: int = 1 << 30, max_evaluations: int | None = None,
    rng: Any = 0, policy: str = "warn", xp: Any = None, device: Any = None,
    dtype: str = "float64",
) -> Series:  # fmt: skip
    """What `chebtucker` does with a function once its domain and dtype are settled."""
    real = _xp.REAL[dtype]
    default = 1e-5 if real == "float32" else 1e-10
    tol = default if tol is None else _validate.real_between("tol", tol, 0.0, 1.0, low_open=True)
    d = len(box)
    degree = LONGEST[d] if max_degree is None else _validate.integer("max_degree", max_degree, 0)
    budget = _validate.integer("budget", budget, 1)
    limit = (1 << 26 if vectorized else 1 << 22) if max_evaluations is None else max_evaluations
    limit = _validate.integer("max_evaluations", limit, 1)
    try:
        sampler = Sampler(f, box, vectorized=bool(vectorized), limit=limit, xp=xp, device=device)
        eps = max(sampler.eps, float(np.finfo(real).eps))
        plan = Plan(tol, method, degree + 1, budget, np.random.default_rng(rng), real, eps)
        result = approximated(sampler, plan)
    except Exhausted:
        msg = (
            f"max_evaluations: {limit} are not enough to look at a few fibres of a function of {d} "
            "variables; allow more"
        )
        raise ValueError(msg) from None
    if dtype in _xp.COMPLEX:
        result = result._with(result.core.astype(dtype), result.factors)
    return _answered(result, plan, policy)


def _answered(result: Series, plan: Plan, policy: str) -> Series:
    if result.converged or policy == "nan":
        return result
    why = (
        "f may have a cusp, a jump or noise, or need a higher max_degree, budget or max_evaluations"
    )
    if plan.tol < plan.reached:
        why = f"it is below {plan.reached:.1e}, the precision of the values and coefficients"
    msg = (
        f"chebtucker: reached a relative error of {result.error:.1e} with degrees {result.degrees} "
        f"and ranks {result.ranks}, not tol = {plan.tol:.1e}: {why}"
    )
    if policy == "raise":
        raise NotConvergedError(msg, result=result)
    warnings.warn(msg, ConvergenceWarning, stacklevel=4)
    return result
