"""The ridge path of one factorization, and its sums over an ensemble."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint


class Problem(NamedTuple):
    """What is the same for all members of an ensemble; arrays on a flat batch."""

    b: Any  # (B, m, c), centred if there is an intercept
    alphas: Any  # (L,), real
    cut: float
    intercept: bool
    scores: bool


@dataclasses.dataclass
class Sums:
    """Over the members of an ensemble, from which its means follow."""

    count: int = 0
    df: Any = 0  # (B, L), without the intercept
    inverse: Any = 0  # (B, L), sum of unit / (s^2 + alpha)
    rank: Any = 0  # (B, 1)
    residual: Any = 0  # (B, m, L, c), in units of their own
    squares: Any = 0  # (B, L, c), sum over members of ||residual||^2
    trace: Any = 0  # (B, L), of I - L in the same units
    left_out: Any = 0  # (B, m, L, c)
    unit: Any = None  # (B, 1): s_1^2 of the first member
    singular: Any = False  # (B, L)
    condition: Any = 0  # (B, L)


def add_member(z: Any, problem: Problem, sums: Sums) -> Any:
    """Coefficients (B, k, L c) of ridge regression on z (B, m, k); its sums are added."""
    xp = _xp.namespace(z)
    b, alphas = problem.b, problem.alphas[None, :, None]
    count, m, k = z.shape
    free = m - problem.intercept
    u, s, vh = xp.linalg.svd(z, full_matrices=False)
    r = s.shape[-1]
    kept = s > problem.cut * s[:, :1]
    rank = xp.sum(xp.astype(kept, s.dtype), axis=-1)[:, None]
    s = xp.where(kept, s, xp.zeros_like(s))
    u = xp.where(kept[:, None, :], u, xp.zeros_like(u))
    uy = adjoint(xp, u) @ b
    shifted = xp.where(kept[:, None, :], (s * s)[:, None, :] + alphas, xp.ones_like(alphas))
    inside = kept[:, None, :] & (shifted != 0)
    inverse = xp.where(inside, 1 / xp.where(inside, shifted, xp.ones_like(shifted)), 0 * shifted)
    top = s[:, :1] ** 2
    unit = xp.where(top > 0, top, xp.ones_like(top)) if sums.unit is None else sums.unit
    sums.unit, sums.count = unit, sums.count + 1
    _conditions(xp, sums, problem, s, kept, rank, k, shifted)

    gain = inverse * s[:, None, :]
    shape = (count, r, gain.shape[1] * b.shape[-1])
    weights = xp.reshape(xp.permute_dims(gain, (0, 2, 1))[..., None] * uy[:, :, None, :], shape)
    coef = adjoint(xp, vh) @ weights
    fill = xp.sum(gain * s[:, None, :], axis=-1)
    sums.df = sums.df + fill
    sums.inverse = sums.inverse + xp.sum(unit[:, :, None] * inverse, axis=-1)
    sums.rank = sums.rank + rank
    if problem.scores:
        _score(xp, sums, problem, u, s, kept, inverse, uy, rank, free)
    return coef


def _conditions(
    xp: Any, sums: Sums, problem: Problem, s: Any, kept: Any, rank: Any, k: int, shifted: Any
) -> None:
    """Where a ridge has no minimum, and how sensitive the others are."""
    flat = problem.alphas[None, :]
    eps = float(np.finfo(_xp.dtype_name(s)).eps)
    least = xp.min(xp.where(kept, s * s, xp.full_like(s, math.inf)), axis=-1)[:, None]
    least = xp.where(rank < k, xp.zeros_like(least), least)
    margin = xp.where(flat < 0, least + flat, xp.ones_like(least + flat))
    bad = margin <= eps * xp.abs(flat)
    sums.singular = sums.singular | bad if sums.count > 1 else bad
    low = xp.min(xp.where(kept[:, None, :], xp.abs(shifted), math.inf + 0 * shifted), axis=-1)
    ratio = (s[:, :1] ** 2 + flat) / xp.where(low > 0, low, xp.ones_like(low))
    here = xp.sqrt(xp.abs(ratio))
    sums.condition = here if sums.count == 1 else xp.maximum(sums.condition, here)


def _score(
    xp: Any, sums: Sums, problem: Problem, u: Any, s: Any, kept: Any, inverse: Any, uy: Any,
    rank: Any, free: int,
) -> None:  # fmt: skip
    """Residuals ``(I - L) b``, their traces and diagonals.

    All are proportional to alpha where the rank is that of the rows; there they are divided by it,
    so that an alpha of zero, which interpolates, has its limit.
    """
    b, flat, unit = problem.b, problem.alphas[None, :], sums.unit
    m, eps = b.shape[1], float(np.finfo(_xp.dtype_name(s)).eps)
    if s.shape[-1] < free:
        weight = xp.where(kept[:, None, :], flat[:, :, None] * inverse, 0 * inverse)
        rest = xp.ones_like(sums.df)
    else:
        weight = unit[:, :, None] * inverse
        nonzero = xp.where(flat == 0, eps**2 * unit, flat + 0 * unit)
        rest = xp.where(rank < free, unit / nonzero, xp.zeros_like(nonzero))
    spread = xp.permute_dims(weight - rest[:, :, None], (0, 2, 1))
    count, r, many = spread.shape
    c = b.shape[-1]
    moved = u @ xp.reshape(spread[..., None] * uy[:, :, None, :], (count, r, many * c))
    residual = xp.reshape(moved, (count, m, many, c))
    residual = residual + rest[:, None, :, None] * b[:, :, None, :]
    power = _squares(xp, u)
    diagonal = power @ spread + rest[:, None, :] * (1 - problem.intercept / m)
    positive = (diagonal > 0)[..., None]
    safe = xp.where(positive, diagonal[..., None], xp.ones_like(diagonal[..., None]))
    left_out = xp.where(positive, residual / safe, xp.full_like(residual, math.inf))
    sums.residual = sums.residual + residual
    sums.squares = sums.squares + xp.sum(_squares(xp, residual), axis=1)
    sums.trace = sums.trace + xp.sum(weight, axis=-1) + rest * (free - rank)
    sums.left_out = sums.left_out + left_out


def _squares(xp: Any, x: Any) -> Any:
    if _xp.dtype_name(x) in _xp.COMPLEX:
        return xp.real(x) ** 2 + xp.imag(x) ** 2
    return x * x


class Scores(NamedTuple):
    """Estimates of the prediction error, (B, L, c) each."""

    gcv: Any
    unsketched: Any
    loo: Any


def scores(sums: Sums, m: int) -> Scores:
    """From the sums of all members."""
    xp, k = _xp.namespace(sums.trace), sums.count
    trace = (sums.trace / (k * m))[..., None]
    zero = trace == 0
    scale = m * xp.where(zero, xp.ones_like(trace), trace) ** 2
    together = xp.sum(_squares(xp, sums.residual), axis=1)
    gcv = together / k**2 / scale
    # 2 R_2 - R_1 of all pairs: the mean of products of residuals of two members
    apart = (
        (together - sums.squares) / (k * (k - 1)) / scale if k > 1 else xp.full_like(gcv, math.nan)
    )
    loo = xp.sum(_squares(xp, sums.left_out), axis=1) / (m * k**2)
    infinite = xp.full_like(gcv, math.inf)
    return Scores(*(xp.where(zero, infinite, x) for x in (gcv, apart, loo)))
