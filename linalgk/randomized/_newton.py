"""Pseudoinverses by products alone: Newton-Schulz of degree five, scaled by Chebyshev polynomials.

``V_0 = alpha A^H`` with an alpha of each member; ``R = V A`` has eigenvalues in [0, 1]. A step is
``V <- q(R) V`` with ``x q(x) = p(x)``, so that R becomes p(R). The classical p is
``1 - (1 - x)^2``, under which a small eigenvalue doubles for two products; here [1]_ [2]_

    p(x) = 1 - T_5((u + l - 2 x) / (u - l)) / T_5((u + l) / (u - l)),

the polynomial of degree five with p(0) = 0 nearest to one on [l, u], multiplies ``l/u`` by 25 for
four (``25^(1/4) = 2.24`` a product; degrees 2, 3, 4, 7 reach 2, 2.08, 2, 2.18). The interval of one
step is the image of that before, so that the schedule is known before any matrix is. What is left
is done by ``p(x) = 1 - (1 - x)^5``.

Equal ripples would take an eigenvalue that is one already back to near l, and what rounding did to
it would be multiplied with it afterwards (observed: errors of 1e-11 at condition 100). Hence l is
at least ``u/50`` in the formula: a step then multiplies by about 20, and no eigenvalue falls back.

Every step multiplies what rounding has left in the null spaces [2]_. Hence the last step is
``V <- (3 R - 2 R^2) V``, quadratic where R is near a projector and zero where R is.

.. [1] V. Pan, R. Schreiber, "An improved Newton iteration for the generalized inverse of a matrix,
   with applications", SIAM J. Sci. Stat. Comput. 12 (1991).
.. [2] T. Soderstrom, G. W. Stewart, "On the numerical properties of an iterative method for
   computing the Moore-Penrose generalized inverse", SIAM J. Numer. Anal. 11 (1974).
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint

# Most steps: a singular value at eps, and some.
MOST = 40
# What the plain steps need after the schedule, for ends of at least one half.
_HYPER = (5.0, -10.0, 10.0, -5.0, 1.0)
# An upper bound of eigenvalues is one after rounding, too.
_ROOM = 1.01
# Ends of intervals are at least this share of the other: what is served already does not become
# small again, with its rounding errors to be multiplied after it.
CUSHION = 0.02


class Newton(NamedTuple):
    """Pseudoinverses (b, n, m), and of each member steps, defect, rank and failure (NumPy)."""

    x: Any
    steps: Any
    defect: Any
    rank: Any
    failed: Any


@functools.lru_cache(maxsize=64)
def schedule(low: float) -> tuple[tuple[float, ...], ...]:
    """Coefficients of q, ascending, of the steps that take [low, 1] to within [1/2, 3/2]."""
    found: list[tuple[float, ...]] = []
    least, u = low, 1.0
    while least < 0.5 and len(found) < MOST:
        # p(u) is the new u, of which a hair more would become 16 times as much in each step
        u *= _ROOM
        end = max(least, CUSHION * u)
        gap = u - end
        # T_5(1 + e) - 1 without cancellation, e = 2 end / (u - end)
        excess = 2 * math.sinh(5 * math.asinh(math.sqrt(end / gap))) ** 2
        p: Any = np.polynomial.Chebyshev.basis(5)(np.polynomial.Polynomial([(u + end), -2]) / gap)
        coeffs = tuple(float(-c / (1 + excess)) for c in p.coef[1:])
        found.append(coeffs)
        ripple = excess / (1 + excess)
        # below the interval p rises
        value = least * float(np.polynomial.polynomial.polyval(least, coeffs))
        least = ripple if end == least else value
        u = 2 - ripple
    return tuple(found)


def plan(real: str, cut: float | None, tol: float | None) -> tuple[Any, float, float]:
    """Schedule, defect that ends the iteration, and the singular values that are served."""
    eps = float(np.finfo(real).eps)
    cut = eps**0.5 if cut is None else max(cut, eps)
    wanted = (tol if tol is not None else eps) ** 0.5
    return schedule(cut**2), min(wanted, 0.1), cut


def fixed_steps(real: str, cut: float | None, tol: float | None) -> int:
    """How many steps serve every member whose singular values lie above the cut."""
    table, wanted, _ = plan(real, cut, tol)
    # (1/2)^(5^k) <= wanted; one step more where the bound of the norm was not close
    return len(table) + math.ceil(math.log(math.log2(1 / wanted), 5)) + 1


def step(v: Any, r: Any, square: Any, coeffs: Any) -> Any:
    """``q(R) V``."""
    c0, c1, c2, c3, c4 = coeffs
    q = square @ (c3 * r + c4 * square) + (c1 * r + c2 * square)
    return q @ v + c0 * v


def last_step(v: Any, r: Any, square: Any) -> Any:
    """``(3 R - 2 R^2) V``."""
    return (3 * r - 2 * square) @ v


def start(a: Any) -> Any:
    """``alpha A^H`` with ``alpha ||A||_2^2 <= 1``, (b, n, m)."""
    xp = _xp.namespace(a)
    size = xp.abs(a)
    bound = xp.max(xp.sum(size, axis=-1), axis=-1) * xp.max(xp.sum(size, axis=-2), axis=-1)
    bound = xp.minimum(bound, xp.sum(size * size, axis=(-2, -1))) * _ROOM
    bound = xp.where(bound > 0, bound, xp.ones_like(bound))
    return adjoint(xp, a) * xp.astype(1 / bound, a.dtype)[:, None, None]


def powers(a: Any) -> Any:
    """By what power of two members are divided, so that their largest entries are near one."""
    xp = _xp.namespace(a)
    top = xp.max(xp.abs(a), axis=(-2, -1))
    usable = (top > 0) & xp.isfinite(top)
    return xp.round(xp.log2(xp.where(usable, top, xp.ones_like(top))))


def scaled(a: Any, power: Any) -> Any:
    """Times powers of two in two halves, which are in the range of the dtype."""
    xp = _xp.namespace(a)
    half = xp.floor(power / 2)
    for part in (half, power - half):
        a = a * xp.astype(2.0**part, a.dtype)[:, None, None]
    return a


def defects(xp: Any, r: Any, square: Any) -> Any:
    """``||R - R^2||_F`` of each member."""
    gap = xp.abs(r - square)
    return xp.sqrt(xp.sum(gap * gap, axis=(-2, -1)))


def newton(a: Any, *, cut: float | None, tol: float | None, steps: int | None) -> Newton:
    """Of members (b, m, n) with m >= n whose values are known; each ends when it is done.

    Rank is the trace of R.
    """
    xp = _xp.namespace(a)
    real = _xp.REAL[_xp.dtype_name(a)]
    table, wanted, _ = plan(real, cut, tol)
    exponent = powers(a)
    a = _rows_in_order(scaled(a, -exponent))
    v, count = start(a), a.shape[0]
    taken = np.zeros(count, np.int64)
    defect, rank = np.full(count, math.nan), np.zeros(count)
    failed = np.zeros(count, bool)
    done: list[Any] = [None] * count
    active = np.arange(count)
    for k in range(MOST if steps is None else steps):
        r = v @ a
        square = r @ r
        gap = np.asarray(_xp.to_numpy(defects(xp, r, square)), np.float64)
        taken[active] += 1
        before, defect = defect, defect.copy()
        defect[active] = gap
        if steps is None:
            # NaN ends as well, and what rounding keeps from becoming less
            ready = np.isnan(gap)
            if k >= len(table):
                ratio = gap / before[active]
                ready = ~(gap > wanted) | ((gap < 1e-2) & (ratio > 0.3) & (ratio < 2))
            final = ready | (k == MOST - 1)
            failed[active[final & (~ready | np.isnan(gap))]] = True
        else:
            final = np.full(len(active), k == steps - 1)
        if final.any():
            which = np.flatnonzero(final)
            trace = xp.sum(xp.real(xp.linalg.diagonal(r) if xp is not np else np.einsum(
                "bii->bi", r)), axis=-1)  # fmt: skip
            trace = np.asarray(_xp.to_numpy(trace), np.float64)
            for i in which:
                one = slice(int(i), int(i) + 1)
                done[active[i]] = last_step(v[one, :, :], r[one, :, :], square[one, :, :])
                rank[active[i]] = trace[i]
        if final.all():
            break
        q = table[k] if k < len(table) else _HYPER
        if final.any():
            keep = np.flatnonzero(~final)
            index = _xp.from_numpy(keep, xp, like=a)
            a, v, r, square = (xp.take(x, index, axis=0) for x in (a, v, r, square))
            active = active[keep]
        v = step(v, r, square, q)
    x = xp.concat(done) if count else v
    return Newton(scaled(x, -exponent), taken, defect, rank, failed)


def solve(
    a: Any, *, hermitian: bool, cut: float | None, tol: float | None, steps: int | None
) -> Newton:
    """Of members (b, m, n) of any shape; Hermitian ones first by LU factors."""
    xp, (count, m, n) = _xp.namespace(a), a.shape
    eps = float(np.finfo(_xp.dtype_name(a)).eps)
    a = 0.5 * a + 0.5 * adjoint(xp, a) if hermitian else a
    tall = adjoint(xp, a) if m < n else a
    taken, defect, rank = np.zeros(count, np.int64), np.zeros(count), np.full(count, n + 0.0)
    todo, x, failed = np.arange(count), a, np.zeros(count, bool)
    if hermitian and steps is None and cut is None:
        x, defect = direct(tall)
        # what rounding does to a worse inverse may be most of it
        todo = np.flatnonzero(~(defect <= (eps**0.5 if tol is None else max(tol, n * eps))))
    if len(todo):
        part = tall
        if len(todo) < count:
            part = xp.take(tall, _xp.from_numpy(todo, xp, like=tall), axis=0)
        found = newton(part, cut=cut, tol=tol, steps=steps)
        taken[todo], defect[todo], failed[todo] = found.steps, found.defect, found.failed
        rank[todo] = np.where(np.isfinite(found.rank), found.rank, 0)
        if len(todo) == count:
            x = found.x
        else:
            places = dict(zip(todo.tolist(), range(len(todo)), strict=True))
            x = xp.concat([
                found.x[places[i] : places[i] + 1, :, :] if i in places else x[i : i + 1, :, :]
                for i in range(count)
            ])  # fmt: skip
    x = 0.5 * x + 0.5 * adjoint(xp, x) if hermitian else x
    x = adjoint(xp, x) if m < n else x
    return Newton(x, taken, defect, np.rint(rank).astype(np.int64), failed)


def newton_blind(
    a: Any, loop: Any, *, cut: float | None, tol: float | None, steps: int | None
) -> Any:
    """The same of (b, m, n), m >= n, whose values nobody may look at: X, and which are right.

    ``loop(count, body, start)`` is that of a library in which loops are compiled.
    """
    xp = _xp.namespace(a)
    real = _xp.REAL[_xp.dtype_name(a)]
    table, wanted, _ = plan(real, cut, tol)
    exponent = powers(a)
    a = scaled(a, -exponent)
    count = fixed_steps(real, cut, tol) if steps is None else steps
    rows = (*table[: count - 1], *[_HYPER] * (count - 1 - len(table)))
    coeffs = _xp.from_numpy(np.reshape(np.array(rows, real), (-1, 5)), xp, dtype=a.dtype)

    def body(k: Any, v: Any) -> Any:
        r = v @ a
        return step(v, r, r @ r, [coeffs[k, i] for i in range(5)])

    v = loop(count - 1, body, start(a)) if count > 1 else start(a)
    r = v @ a
    square = r @ r
    defect = defects(xp, r, square)
    # more than rounding does within the schedule: a singular value on its way
    good = defect <= max(30 * float(np.finfo(real).eps) ** 0.5, 2 * wanted)
    good = good if steps is None else xp.isfinite(defect)
    return scaled(last_step(v, r, square), -exponent), good


def direct(a: Any) -> tuple[Any, Any]:
    """Inverses (b, n, n) by LU factors, and which members have one that the residual confirms.

    ``||I - V A||_F <= 1/10``, of members of norm about one.
    """
    xp = _xp.namespace(a)
    exponent = powers(a)
    a = _rows_in_order(scaled(a, -exponent))
    v = _inverse(xp, a)
    residual = v @ a
    identity = xp.eye(a.shape[-1], dtype=a.dtype) if xp is np else _eye(xp, a)
    gap = xp.abs(residual - identity)
    defect = np.asarray(_xp.to_numpy(xp.sqrt(xp.sum(gap * gap, axis=(-2, -1)))), np.float64)
    return scaled(v, -exponent), defect


def _eye(xp: Any, a: Any) -> Any:
    return _xp.from_numpy(np.eye(a.shape[-1]), xp, like=a, dtype=a.dtype)


def _inverse(xp: Any, a: Any) -> Any:
    try:
        return xp.linalg.inv(a)
    except Exception as error:
        # each library has a class of its own
        if "inAlg" not in type(error).__name__:
            raise
    if a.shape[0] == 1:
        return xp.full_like(a, math.nan)
    return xp.concat([_inverse(xp, a[i : i + 1, :, :]) for i in range(a.shape[0])])


def _rows_in_order(a: Any) -> Any:
    """In C order: products of a member are the same bits in any batch."""
    return np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a
