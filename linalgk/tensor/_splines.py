"""Values on any grid of one variable to Chebyshev series: splines, and what they are worth.

A spline of odd order p (cubic: 3) with not-a-knot ends is exact for polynomials of that degree; on
smooth data halving the spacing divides its error by ``2^(p+1)``. How far it is from the truth
shows where every second point is left out: the difference there, divided by that factor if it
fell so from every fourth to every second point, is what is left with all of them.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor import _chebyshev

ORDERS = (3, 5, 7, 9)
# Points without which no second half could be judged.
LEAST = 5


class Axis(NamedTuple):
    """Where the values of one variable are, on [-1, 1]."""

    points: Any
    chebyshev: bool

    @property
    def open(self) -> bool:
        """Whether an end of the interval lies outside of the points, as with cells."""
        slack = 1e-12
        return bool(self.points[0] > -1 + slack or self.points[-1] < 1 - slack)


def interpolate(x: Any, columns: Any, at: Any, order: int) -> Any:
    """Columns (n, r) at other points, by splines of this order or less."""
    from scipy.interpolate import make_interp_spline

    if columns.dtype.kind == "c":
        both = interpolate(x, np.concatenate([columns.real, columns.imag], axis=1), at, order)
        r = columns.shape[1]
        return both[:, :r] + 1j * both[:, r:]
    n = x.size
    if n == 1:
        return np.repeat(columns, at.size, axis=0)
    order = min(order, n - 1 - n % 2 if n > 2 else 1)
    return make_interp_spline(x, columns, k=order)(at)


def left_out(axis: Axis, fibres: Any, order: int, step: int) -> float:
    """The largest error at the points left out when every ``step``-th is kept."""
    x, n = axis.points, axis.points.size
    worst = 0.0
    # from either end and shifted, so that no interval is the shorter one in all patterns
    starts = {0, step // 2} if axis.open else {0, (n - 1) % step, step // 2}
    for start in starts:
        kept = np.zeros(n, bool)
        kept[start::step] = True
        if not axis.open:
            kept[[0, -1]] = True
        if kept.sum() < 2 or kept.all():
            return np.inf
        found = interpolate(x[kept], fibres[kept], x[~kept], order)
        worst = max(worst, float(np.abs(found - fibres[~kept]).max(initial=0.0)))
    return worst


def judged(axis: Axis, fibres: Any, orders: tuple[int, ...] = ORDERS) -> tuple[int, float]:
    """The best order for the fibres (n, s), and the error that it leaves."""
    n = axis.points.size
    if n == 1:
        return 1, 0.0
    best = (orders[0], np.inf)
    for order in orders:
        if n < 2 * (order + 1) and order > orders[0]:
            break
        second = left_out(axis, fibres, order, 2)
        fourth = left_out(axis, fibres, order, 4) if n >= 4 * (order + 1) else np.inf
        fell = second / fourth if 0 < fourth < np.inf else 1.0
        # as fast as it should, or what is not smooth has only been missed by every fourth point
        fell = fell if fell <= 2 * 0.5 ** (order + 1) else 1.0
        error = second * max(fell, 0.5 ** (order + 1))
        if error < best[1]:
            best = (order, error)
    return best


def tail(c: Any) -> float:
    """What the coefficients beyond the last ones of any column may add up to.

    Sums of ``j^-p`` from m on, ``m^(1-p) / (p - 1)``, with the last ones and the p of the last
    quarter; a geometric series counts as one of a high p.
    """
    m = c.shape[0]
    if m == 1:
        return 0.0
    envelope = np.maximum.accumulate(np.abs(c).max(axis=1, initial=0.0)[::-1])[::-1]
    last = float(envelope[-max(2, m // 16) if m > 4 else -1])
    before = float(envelope[(3 * m) // 4 - max(2, m // 16) if m > 8 else 0])
    if last == 0.0:
        return 0.0
    p = math.log(before / last) / math.log(4 / 3)
    # interpolation folds them back, and an error of p must not make it too small
    return float(2 * last * m / min(max(p - 1.5, 0.5), m))


def series(
    axis: Axis, columns: Any, fibres: Any, mix: Any, *, order: int, budget: float,
    reach: Any, degree: int | None,
) -> Any:  # fmt: skip
    """Chebyshev coefficients (m, r) of columns (n, r).

    ``fibres = columns @ mix`` are values of the function along this axis, in which the difference
    is measured. Without a degree there are as many coefficients as the budget needs, where each
    column counts with its ``reach``.
    """
    x = axis.points
    if axis.chebyshev:
        c = _chebyshev.coefficients(columns)
        if degree is not None:
            c = c[: degree + 1]
    elif degree is not None:
        at = _chebyshev.points(degree + 1)
        c = _chebyshev.coefficients(interpolate(x, columns, at, order))
    else:
        c = _resolved(axis, columns, fibres, mix, order, budget)
    return c if degree is not None else trimmed(c, reach, budget)


def trimmed(c: Any, reach: Any, budget: float) -> Any:
    """Without the last coefficients, as far as their sum is within the budget."""
    tails = np.cumsum((np.abs(c) @ reach)[::-1])[::-1]
    return c[: max(int(np.count_nonzero(tails > budget)), 1)]


def _resolved(
    axis: Axis, columns: Any, fibres: Any, mix: Any, order: int, budget: float
) -> Any:  # fmt: skip
    """The fewest points, doubled and doubled, whose polynomial is the spline."""
    x, m = axis.points, 33
    most = 8 * max(x.size, 8)
    while True:
        c = _chebyshev.coefficients(interpolate(x, columns, _chebyshev.points(m), order))
        here = c @ mix
        if m > most or (tail(here) <= budget and _mismatch(x, c, fibres, mix) <= budget):
            return c
        m = 2 * m - 1


def _mismatch(x: Any, c: Any, fibres: Any, mix: Any) -> float:
    return float(np.abs(_chebyshev.basis(x, c.shape[0]) @ (c @ mix) - fibres).max(initial=0.0))
