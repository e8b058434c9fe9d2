"""Largest and smallest values of a function: a grid, and Newton's method from its best points."""

from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor import _chebyshev
from linalgk.tensor._combine import grid_shape, tables
from linalgk.tensor._unfold import mode_products

# Points of the grid, those that are held at a time, and those that are refined.
POINTS = 1 << 22
SLAB = 1 << 19
STARTS = 24
STEPS = 40


class Extremum(NamedTuple):
    """A largest or smallest value and where it is.

    Attributes
    ----------
    value : float
        The value there.
    point : tuple of float
        The point: ``f(*point)`` is the value up to rounding.
    """

    value: float
    point: tuple[float, ...]


def extremum(f: Any, sign: int) -> Extremum:
    """The largest value of ``sign * f``, times the sign."""
    if f.dtype.kind == "c":
        msg = f"f: must be real to have a largest value, got {f.dtype.name}; take .real or .imag"
        raise TypeError(msg)
    core = sign * f.core.astype(np.float64)
    factors = [c.astype(np.float64) for c in f.factors]
    t = _starts(core, factors)
    value, best = _refined(core, factors, t)
    point = tuple(
        a if x == -1 else b if x == 1 else min(max(0.5 * (a + b) + 0.5 * (b - a) * x, a), b)
        for x, (a, b) in zip(best.tolist(), f.domain, strict=True)
    )
    return Extremum(sign * value, point)


# --- The grid ------------------------------------------------------------------------------------


def _starts(core: Any, factors: list[Any]) -> Any:
    """The highest points (n, d) of the grid that no neighbour along an axis exceeds."""
    lengths = [c.shape[0] for c in factors]
    # one more than twice the degree, and one where nothing depends on the variable
    shape = grid_shape([m + 1 if m > 1 else 1 for m in lengths], POINTS)
    axes = tables(factors, shape)
    others = mode_products(core, [None, *axes[1:]]) if core.ndim > 1 else core
    others = others.reshape(core.shape[0], -1)
    step = max(1, SLAB // max(others.shape[1], 1))
    found: list[tuple[Any, Any]] = []
    for i in range(0, shape[0], step):
        low, high = max(i - 1, 0), min(i + step + 1, shape[0])
        v = (axes[0][low:high] @ others).reshape(-1, *shape[1:])
        peak = _peaks(v)
        peak[: i - low] = False
        peak[min(i + step, shape[0]) - low :] = False
        at = np.flatnonzero(peak)
        values = v.reshape(-1)[at]
        if at.size > STARTS:
            kept = np.argpartition(values, -STARTS)[-STARTS:]
            at, values = at[kept], values[kept]
        found.append((at + low * others.shape[1], values))
    at, values = (np.concatenate(x) for x in zip(*found, strict=True))
    at = at[np.argsort(-values, kind="stable")[:STARTS]]
    indices = np.unravel_index(at, shape)
    return np.stack([_chebyshev.points(n)[i] for n, i in zip(shape, indices, strict=True)], axis=1)


def _peaks(v: Any) -> Any:
    peak = np.ones(v.shape, dtype=bool)
    for k in range(v.ndim):
        below = [slice(None)] * v.ndim
        above = [slice(None)] * v.ndim
        below[k], above[k] = slice(None, -1), slice(1, None)
        lower, upper = v[tuple(below)], v[tuple(above)]
        peak[tuple(below)] &= lower >= upper
        peak[tuple(above)] &= upper >= lower
    return peak


# --- Newton's method in the box ------------------------------------------------------------------


def _refined(core: Any, factors: list[Any], t: Any) -> tuple[float, Any]:
    """Value and point of the highest that Newton's method finds from these points, all at once.

    A variable at its bound stays there as long as the function grows across it. The Hessian of
    the others is made negative definite, steps are clipped to the box and halved until the
    function does not fall.
    """
    rows = [_padded(c) for c in factors]
    value = _derivatives(core, rows, t, 0)[0]
    spread = float(np.sum(np.abs(core)))
    slack = 4 * float(np.finfo(np.float64).eps) * spread
    active = np.ones(t.shape[0], dtype=bool)
    for _ in range(STEPS):
        if not active.any():
            break
        here = t[active]
        _, gradient, hessian = _derivatives(core, rows, here, 2)
        step = _direction(here, gradient, hessian)
        start, alpha = value[active], np.ones(here.shape[0])
        best, height = here.copy(), start.copy()
        waiting = np.any(step != 0, axis=1)
        for _ in range(30):
            if not waiting.any():
                break
            trial = np.clip(here[waiting] + alpha[waiting, None] * step[waiting], -1, 1)
            v = _derivatives(core, rows, trial, 0)[0]
            index = np.flatnonzero(waiting)
            good = v >= start[index] - (slack if alpha[index].min() == 1 else 0)
            best[index[good]], height[index[good]] = trial[good], v[good]
            waiting[index[good]] = False
            alpha[index] *= 0.5
        moved = np.max(np.abs(best - here), axis=1)
        t[active], value[active] = best, height
        active[active] = moved > 4e-16
    winner = int(np.argmax(value))
    return float(value[winner]), t[winner]


def _padded(c: Any) -> tuple[Any, Any, Any]:
    """Coefficients of a factor and of its first two derivatives, of one length."""
    found = [c]
    for _ in range(2):
        d = _chebyshev.derivative(found[-1])
        found.append(np.concatenate([d, np.zeros((c.shape[0] - d.shape[0], c.shape[1]))]))
    return found[0], found[1], found[2]


def _direction(t: Any, gradient: Any, hessian: Any) -> Any:
    """Newton's step in the free variables, towards larger values whatever the curvature."""
    bound = ((t <= -1) & (gradient <= 0)) | ((t >= 1) & (gradient >= 0))
    free = ~bound
    g = np.where(free, gradient, 0.0)
    h = np.where(free[:, :, None] & free[:, None, :], hessian, 0.0)
    curvature, vectors = np.linalg.eigh(h)
    size = np.abs(curvature)
    floor = 1e-10 * np.max(size, axis=1, keepdims=True) + np.finfo(np.float64).tiny
    along = np.einsum("nij,ni->nj", vectors, g)
    step = np.einsum("nij,nj->ni", vectors, along / np.maximum(size, floor))
    length = np.max(np.abs(step), axis=1, keepdims=True)
    # no further than a quarter of the box at once
    return np.where(free, step * np.minimum(1.0, 0.5 / np.maximum(length, 0.5)), 0.0)


def _derivatives(core: Any, rows: list[Any], t: Any, order: int) -> tuple[Any, ...]:
    """Values (n,), and for order 2 gradients (n, d) and Hessians (n, d, d) with respect to t."""
    d = t.shape[1]
    angles = np.arccos(t)
    at = []
    for k, coefficients in enumerate(rows):
        # a recurrence takes a step for each degree, for a few points only
        table = np.cos(np.multiply.outer(angles[:, k], np.arange(coefficients[0].shape[0])))
        at.append([table @ c for c in coefficients[: order + 1]])
    values = [a[0] for a in at]
    value = _contracted(core, values)
    if order == 0:
        return (value,)
    gradient = np.empty(t.shape)
    hessian = np.empty((*t.shape, d))
    for j in range(d):
        first = [*values[:j], at[j][1], *values[j + 1 :]]
        gradient[:, j] = _contracted(core, first)
        for k in range(j + 1):
            second = list(first)
            second[k] = at[k][2] if j == k else at[k][1]
            hessian[:, j, k] = hessian[:, k, j] = _contracted(core, second)
    return value, gradient, hessian


def _contracted(core: Any, rows: list[Any]) -> Any:
    """The core with a row (n, r_k) for each of its modes: (n,)."""
    x = core.reshape(1, -1)
    for row in rows:
        n, r = row.shape
        x = (row[:, None, :] @ x.reshape(x.shape[0], r, -1)).reshape(n, -1)
    return x[:, 0]
