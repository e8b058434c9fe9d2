"""Equations on the observed points of a grid: the missing values are filled in.

Steps to a residual of 1e-8 on 60 x 60 points, by which the ways here were chosen: conjugate
gradients for the observed points without a preconditioner, and with ``P (K + s I)^-1 P^T``; for the
missing points with none ("fill") and with ``s I + D K_mm D`` ("local"). Lengths are in units of the
grid's side.

=============================  =====  =====  ======  =====  ======
kernel, missing                s      plain  P..P^T  fill   local
=============================  =====  =====  ======  =====  ======
RBF 0.2, 30 %                  1e-4   > 500  > 500      17      18
RBF 0.2, 50 %                  1e-2     264    189      20      19
RBF 0.05, 30 %                 1e-4   > 500  > 500      55      39
Matern 1/2 0.2, 30 %           1e-4   > 500    349      74     357
Matern 3/2 0.2, 50 %           1e-2     484    321      31      29
RBF 0.05, a ninth in one hole  1e-2     493     46     141      36
the same and 20 %              1e-2   > 500    239     233      45
=============================  =====  =====  ======  =====  ======
"""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk.kronecker import _masked_local
from linalgk.kronecker._cg import norms, pcg
from linalgk.kronecker._masked_grid import Grid, gather, scatter

# Steps after which another preconditioner is tried, if more than so many are still to come.
_TRIAL = 32
_WORTH = 48
# Products with all factors in a step.
_PRODUCTS = {"fill": 2, "local": 3}


class Solved(NamedTuple):
    """Solutions (..., n, k) and of each column (..., k) how it went."""

    x: Any
    residual: Any  # ||b - A_oo x|| / ||b|| as it is; NaN of a NaN in b
    error: Any  # no less than the relative error of x, to first order
    iterations: Any
    method: str


def solve(grid: Grid, b: Any, tol: float, max_iter: int, method: str) -> Solved:
    """``A_oo x = b`` for b (..., n, k) on the observed points.

    With ``A [x; g] = [b; y]`` on all of the grid, ``A_oo x = b - K_om g``: the y for which g
    vanishes solves ``(A^-1)_mm y = -(A^-1 [b; 0])_m``. What g leaves is measured, and corrected.
    """
    xp = grid.xp
    size = norms(b)
    finite = xp.isfinite(size)
    unit = xp.where(finite & (size > 0), size, xp.ones_like(size))
    b = xp.where(finite[..., None, :], b, xp.zeros_like(b)) / _column(unit, b)
    missing = Missing(grid, method)
    x, r, left = xp.zeros_like(b), b, norms(b)
    steps = xp.zeros_like(left, dtype=_xp.dtype_of(xp, "int64"))
    # how much larger a residual is than the g that it comes of
    ratio = grid.rms()
    going = left > tol
    while bool(xp.any(going)):
        z = grid.inverse(scatter(r, grid.seen))
        if grid.m:
            c = -gather(z, grid.hidden)
            wanted = 0.5 * tol / ratio if ratio else 1.0
            room = max_iter - int(xp.max(steps))
            y, taken, ghost = missing(c, wanted, going, room)
            z = z + grid.inverse(scatter(y, grid.hidden))
            steps = steps + xp.where(going, taken, xp.zeros_like(taken))
        new = x + gather(z, grid.seen)
        rest = b - grid.observed(new)
        now = norms(rest)
        better = going & (now < left)
        # else rounding, or the number of steps, allows no more
        again = better & (now > tol) & (now < 0.5 * left) & (steps < max_iter)
        if grid.m:
            ratio = _largest(xp, now, ghost, going, ratio)
        x = xp.where(better[..., None, :], new, x)
        r = xp.where(better[..., None, :], rest, r)
        left, going = xp.where(better, now, left), again
    length = norms(x)
    scale = xp.min(grid.d, axis=-1)[..., None] * length
    # of nothing at all the error is nothing, or all of the solution
    none = xp.where(left > 0, xp.full_like(left, math.inf), xp.zeros_like(left))
    error = xp.where(length > 0, left / xp.where(length > 0, scale, xp.ones_like(scale)), none)
    nan = xp.full_like(left, math.nan)
    x = xp.where(finite[..., None, :], x * _column(unit, b), xp.full_like(b, math.nan))
    left, error = (xp.where(finite, v, nan) for v in (left, error))
    return Solved(x, left, error, steps, missing.name)


def solve_missing(grid: Grid, c: Any, tol: float, max_iter: int) -> tuple[Any, float]:
    """``(A^-1)_mm y = c`` for c (..., m, k), and the largest relative residual."""
    xp, size = grid.xp, norms(c)
    top = float(xp.max(size))
    y, _, left = Missing(grid, "auto")(c, tol * float(xp.min(size)), size > 0, max_iter)
    return y, float(xp.max(left)) / top


class Missing:
    """Conjugate gradients for ``(A^-1)_mm y = c``.

    Its eigenvalues lie between 1 - f and 1, in units of 1/s, where a fraction f is missing here and
    there and K is smooth: no preconditioner is as good as none. Within holes, wider than what
    correlates, it is near ``K_mm + s I`` inverted. Which of both cases it is, the steps tell.
    """

    def __init__(self, grid: Grid, method: str) -> None:
        self.grid, self.kind = grid, method
        self.used: list[str] = []
        # digits for each product with a factor of the grid, as it went last
        self.rates: dict[str, float] = {}
        self._weights: Any = None

    @property
    def name(self) -> str:
        """What ran."""
        return "+".join(self.used) or "eigh"

    def __call__(self, c: Any, wanted: float, going: Any, room: int) -> tuple[Any, Any, Any]:
        """Columns of y, steps, and norms of what is left of c.

        Each goes down to ``wanted``, or as far as ``room`` steps take it.
        """
        xp = self.grid.xp
        # columns that are done take no steps
        rest = c = xp.where(going[..., None, :], c, xp.zeros_like(c))
        y, left = xp.zeros_like(c), norms(c)
        taken = xp.zeros_like(left, dtype=_xp.dtype_of(xp, "int64"))
        kind, some = "fill" if self.kind == "auto" else self.kind, _TRIAL
        while True:
            more, steps, now = self._run(
                kind, rest, wanted, min(room, some) if self.kind == "auto" else room
            )
            most = int(xp.max(steps))
            y, taken, room = y + more, taken + steps, room - most
            going = going & (now > wanted)
            done = not bool(xp.any(going)) or most == 0
            if done or self.kind != "auto" or room <= 0:
                return y, taken, now
            self.rates[kind] = self._rate(kind, left, now, most, going)
            kind = self._next(kind, now, wanted, going)
            left, some = now, 2 * some
            rest = c - self.grid.schur(y)

    def _rate(self, kind: str, before: Any, left: Any, steps: int, going: Any) -> float:
        xp = self.grid.xp
        gain = left / xp.where(before > 0, before, xp.ones_like(before))
        least = float(xp.max(xp.where(going, gain, xp.zeros_like(gain))))
        return -math.log(min(1.0, least)) / (steps * _PRODUCTS[kind])

    def _next(self, kind: str, left: Any, wanted: float, going: Any) -> str:
        """The one that went better, once both have been tried."""
        rates, other = self.rates, "local" if kind == "fill" else "fill"
        if other in rates:
            return kind if rates[kind] > rates[other] else other
        xp = self.grid.xp
        far = math.log(float(xp.max(xp.where(going, left, xp.zeros_like(left)))) / wanted)
        return kind if far < rates[kind] * _PRODUCTS[kind] * _WORTH else other

    def _run(self, kind: str, c: Any, wanted: float, room: int) -> tuple[Any, Any, Any]:
        grid, xp, size = self.grid, self.grid.xp, norms(c)
        if kind not in self.used:
            self.used.append(kind)
        top = float(xp.max(xp.where(xp.isfinite(size), size, xp.zeros_like(size))))
        tol = min(0.1, wanted / top) if top > 0 else 0.1
        how = (lambda r: r) if kind == "fill" else self._local
        found = pcg(grid.schur, how, c, tol, room)
        return found.x, found.iterations, found.residual * size

    def _local(self, r: Any) -> Any:
        """``(s I + D K_mm D) r``."""
        grid = self.grid
        if self._weights is None:
            self._weights = _local_weights(grid)
        d = self._weights
        y = gather(grid.kernel(scatter(d * r, grid.hidden)), grid.hidden)
        return grid.shifted(r) + d * y


def _local_weights(grid: Grid) -> Any:
    """D for all members, (..., m, 1)."""
    batch = tuple(grid.d.shape[:-1])
    found = [
        _masked_local.weights(
            [np.asarray(_xp.to_numpy(a)) for a in one.arrays], one.seen.points, one.hidden.points,
            float(one.shift),
        )
        for one in grid.members(batch)
    ]  # fmt: skip
    host = np.stack(found).reshape(*batch, grid.m, 1).astype(_xp.REAL[grid.dtype])
    return _xp.from_numpy(host, grid.xp, like=grid.d)


def _largest(xp: Any, x: Any, y: Any, where: Any, default: float) -> float:
    """The largest ratio of some columns."""
    use = where & (y > 0)
    if not bool(xp.any(use)):
        return default
    one = xp.ones_like(y)
    return float(xp.max(xp.where(use, x / xp.where(use, y, one), xp.zeros_like(x))))


def _column(x: Any, like: Any) -> Any:
    """Real numbers (..., k) as factors of the columns of (..., n, k)."""
    return _xp.namespace(x).astype(x, like.dtype)[..., None, :]
