"""What is known of the error: least ranks for a tolerance, and a search for the largest error."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor import _chebyshev, _compress
from linalgk.tensor._ops import EVALUATE
from linalgk.tensor._sampling import Exhausted, Sampler

# Points of each of two kinds that every function is tested at.
SPREAD = 128
# Coefficients that are multiplied out for a bound.
DENSE = 1 << 22
# Shares of the tolerance that truncation tries to spend, in the Frobenius norm.
SHARES: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.05, 0.03)
# What the highest degrees may take of it.
TRIM = 0.1
EPS = float(np.finfo(np.float64).eps)


class Lean(NamedTuple):
    """Least ranks and degrees."""

    core: Any
    factors: tuple[Any, ...]
    bound: float  # of what was left out, at any point


class Measured(NamedTuple):
    """Differences from f at points that no construction uses."""

    error: float
    worst: Any  # (d,) where it is
    points: int


def evaluate(core: Any, factors: Any, t: Any) -> Any:
    """Values (n,) at points (d, n) of [-1, 1]^d."""
    factors = tuple(np.ascontiguousarray(f) for f in factors)
    parts = [core] if core.dtype.kind != "c" else [core.real, core.imag]
    found = [EVALUATE(t, np.ascontiguousarray(p), factors)[0] for p in parts]
    return found[0] if len(found) == 1 else found[0] + 1j * found[1]


def lean(core: Any, factors: Any, tol: float, *, shares: tuple[float, ...] = SHARES) -> Lean:
    """Truncate as far as the absolute tolerance in the maximum norm allows.

    The Frobenius norm of coefficients says little of the maximum: the largest change on a grid
    decides what may be spent.
    """
    n = {1: 401, 2: 101, 3: 41, 4: 17}[len(factors)]
    # the ends are among them, where polynomials differ most
    tables = [_chebyshev.basis(_chebyshev.points(n), f.shape[0]) for f in factors]
    before = _compress.mixed_products(core, _products(tables, factors))
    found = None
    for share in shares:
        found = _compress.compress(core, factors, tol=share * tol, trim=False)
        after = _compress.mixed_products(found.core, _products(tables, found.factors))
        if np.abs(before - after).max() <= max(tol, 8 * EPS * float(np.abs(before).max())):
            break
    assert found is not None
    # high degrees count most in derivatives, and save little
    found = _compress.compress(found.core, found.factors, tol=TRIM * share * tol)._replace(
        error=found.error + TRIM * share * tol
    )
    return Lean(found.core, found.factors, _bound(core, factors, found))


def _products(tables: Any, factors: Any) -> list[Any]:
    return [t[:, : f.shape[0]] @ f for t, f in zip(tables, factors, strict=True)]


def _bound(core: Any, factors: Any, found: Any) -> float:
    """Sum of the absolute coefficients left out, or what their number and norm make of it."""
    shape = [f.shape[0] for f in factors]
    count = math.prod(shape)
    if count > DENSE:
        return float(math.sqrt(count) * found.error)
    c = _compress.mixed_products(core, factors)
    kept = _compress.mixed_products(found.core, found.factors)
    c[tuple(slice(0, m) for m in kept.shape)] -= kept
    return float(np.abs(c).sum())


def halton(n: int, d: int, start: int = 1) -> Any:
    """Points (d, n) of [0, 1]^d in the bases 2, 3, 5, 7."""
    found = np.zeros((d, n))
    for row, base in zip(found, (2, 3, 5, 7), strict=False):
        index, weight = np.arange(start, start + n), 1.0 / base
        while index.any():
            row += weight * (index % base)
            index, weight = index // base, weight / base
    return found


def measure(sampler: Sampler, core: Any, factors: Any) -> Measured:
    """Look for the largest error: everywhere, at the edges, on fibres, and where it grows."""
    d, count, error = sampler.ndim, sampler.evaluations, 0.0
    worst = sampler.top.copy()

    def look(t: Any, values: Any = None) -> None:
        nonlocal error, worst
        missed = np.abs(sampler(t) - (evaluate(core, factors, t) if values is None else values))
        i = int(np.argmax(missed))
        if missed[i] > error:
            error, worst = float(missed[i]), t[:, i].copy()

    uniform = 2 * halton(SPREAD, d, 20) - 1
    crowded = np.sin(0.5 * np.pi * (2 * halton(SPREAD, d, 20 + SPREAD) - 1))
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * d)).reshape(d, -1)
    look(np.concatenate([uniform, crowded, corners * 0.9995], axis=1))
    try:
        for base in (sampler.top.copy(), worst):
            for k in range(d):
                t, values = _between(core, factors, base, k)
                look(t, values)
        for k in range(d):
            look(*_between(core, factors, worst, k))
        # closer and closer around the worst point, from the spacing of Chebyshev points there
        width = np.array([3.0 / f.shape[0] for f in factors])[:, None]
        cloud = 2 * halton(32, d, 500) - 1
        for _ in range(8):
            before = error
            look(np.clip(worst[:, None] + width * cloud, -1, 1))
            width = width if error > 1.1 * before else 0.5 * width
    except Exhausted:
        pass
    return Measured(error, worst, sampler.evaluations - count)


def _between(core: Any, factors: Any, base: Any, k: int) -> tuple[Any, Any]:
    """Points of a fibre through ``base`` halfway between Chebyshev points, and values there."""
    for j, f in enumerate(factors):
        row = np.ones((1, 1)) if j == k else _chebyshev.basis(base[j : j + 1], f.shape[0]) @ f
        if j != k:
            core = _compress.mixed_products(
                core, [row if i == j else None for i in range(core.ndim)]
            )
    c = factors[k] @ core.reshape(-1)
    n = 2 * max(c.shape[0], 17) - 1
    c = np.concatenate([c, np.zeros(n - c.shape[0], c.dtype)])
    t = np.repeat(base[:, None], n // 2, axis=1)
    t[k] = _chebyshev.points(n)[1::2]
    return t, _chebyshev.values(c)[1::2]
