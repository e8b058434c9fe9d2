"""Poisson's equation in a box: a Kronecker sum of operators that are diagonal in one variable.

In each variable the unknown is a combination of ``phi_k = (L_k - L_{k+2}) / sqrt(4k + 6)``, which
vanish at both ends and whose derivatives are orthonormal [1]_. Their expansion in orthonormal
Legendre polynomials is bidiagonal for each parity, ``B = U diag(s) V^T``: the columns of U are
orthonormal polynomials that vanish at the ends and have the eigenvalues ``s^-2`` of ``-d^2/dx^2``.
Only orthogonal matrices and one division take part.

.. [1] J. Shen, "Efficient spectral-Galerkin method I", SIAM J. Sci. Comput. 15 (1994), Lemma 2.1.
.. [2] W. Hackbusch, "Hierarchical matrices", appendix D.4: sinc quadrature of 1/x.
.. [3] M. H. Protter, H. F. Weinberger, "Maximum principles in differential equations", section 2.3.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate
from linalgk.errors import ConvergenceWarning
from linalgk.tensor import _chebyshev
from linalgk.tensor._combine import F
from linalgk.tensor._compress import compress, mixed_products, truncate
from linalgk.tensor._series import Certificate

# Tolerances that are taken where none is asked for, by the error of f.
TOL, LOOSEST = 1e-10, 1e-3
# Coefficients that are all formed; with more of them the solution is formed in low rank.
FULL = 1 << 20
# Functions in one variable at most.
LARGEST = 1024
# From one number of functions to the next.
GROWTH = 1.5
EPS = float(np.finfo(np.float64).eps)


def solve(f: F, tol: float | None) -> F:
    """The u with ``laplacian u = f`` and ``u = 0`` on the boundary; see `ChebTucker`."""
    asked = None if tol is None else _validate.real_between("tol", tol, 0.0, 1.0, low_open=True)
    g = f.astype(np.float64)
    half = [0.5 * (b - a) for a, b in f.domain]
    # |u| <= max|f| w^2 / 8 for the width w of any slab around the box [3]
    stretch = 0.5 * min(h * h for h in half)
    data = f.error * f.scale * stretch
    if not np.any(g.core):
        found = _nothing(f.ndim)
    else:
        found = _in_one(g, half) if f.ndim == 1 else _adaptive(g, half, stretch, data, asked)
    return _finished(f, found, data, asked)


class _Found(NamedTuple):
    """Coefficients of u, and what is known of their error, absolute."""

    core: Any
    factors: Sequence[Any]
    scale: float
    tail: float
    truncation: float
    sampled: float
    points: int
    method: str


def _finished(f: F, found: _Found, data: float, asked: float | None) -> F:
    scale = found.scale or 1.0
    tail, bound, sampled = (x / scale for x in (found.tail, found.truncation, found.sampled))
    error = tail + sampled + data / scale + 4 * float(np.finfo(f.factors[0].dtype).eps)
    tol = _goal(data, found.scale, asked)
    u = f._with(
        found.core, found.factors, error=error, scale=found.scale, converged=error <= tol,
        method=found.method, certificate=Certificate(tail, bound, sampled, found.points),
    ).astype(f.dtype)  # fmt: skip
    if not u.converged:
        why = f"{LARGEST} functions in one variable do not reach it where f is not 0 at corners"
        if data > 0.5 * tol * scale:
            why = f"the error {f.error:.1e} of f alone makes {data / scale:.1e}"
        msg = f"solve_poisson: error {error:.1e} instead of tol={tol:.1e}, because {why}; "
        warnings.warn(msg + "a larger tol accepts it", ConvergenceWarning, stacklevel=4)
    return u


def _goal(data: float, scale: float, asked: float | None) -> float:
    """The tolerance asked for, or one that the error of f leaves room for."""
    return asked or min(max(TOL, 2 * data / (scale or 1.0)), LOOSEST)


def _nothing(d: int) -> _Found:
    ones = [np.ones((1, 1)) for _ in range(d)]
    return _Found(np.zeros([1] * d), ones, 0.0, 0.0, 0.0, 0.0, 0, "poisson: zero")


# --- One variable ---------------------------------------------------------------------------------


def _in_one(f: Any, half: Sequence[float]) -> _Found:
    """Two integrals and a line: exact."""
    c = f.factors[0] @ f.core
    c = half[0] ** 2 * _integral(_integral(c))
    even, odd = c[::2].sum(), c[1::2].sum()
    c[0] -= even
    c[1] -= odd
    scale = float(np.abs(_chebyshev.basis(_chebyshev.points(4 * c.size), c.size) @ c).max())
    core = np.array([1.0, 1.0j] if c.dtype.kind == "c" else [1.0])
    parts = [c.real, c.imag] if c.dtype.kind == "c" else [c]
    r = compress(core, [np.stack(parts, axis=1)], tol=0.0, trim=False)
    return _Found(r.core, r.factors, scale, 0.0, 0.0, 0.0, 0, "poisson: integrated")


def _integral(c: Any) -> Any:
    """``b_k = (c_{k-1} - c_{k+1}) / 2k``, the first of them 0."""
    m = c.size
    k = np.arange(1, m + 1)
    longer = np.concatenate([c, np.zeros(2, c.dtype)])
    below = longer[:m].copy()
    below[0] *= 2
    return np.concatenate([np.zeros(1, c.dtype), (below - longer[2 : m + 2]) / (2 * k)])


# --- Several --------------------------------------------------------------------------------------


class _Basis(NamedTuple):
    """n polynomials of degree up to n + 1 that vanish at both ends."""

    legendre: Any  # (n + 2, n) orthonormal columns
    chebyshev: Any  # (n + 2, n) the same, as Chebyshev coefficients
    values: Any  # (n,) of -d^2/dx^2 on [-1, 1]


@functools.lru_cache(maxsize=16)
def _basis(n: int) -> _Basis:
    legendre, values = np.zeros((n + 2, n)), np.empty(n)
    for parity in (0, 1):
        k = np.arange(parity, n, 2)
        b = np.zeros((k.size + 1, k.size))
        i = np.arange(k.size)
        b[i, i] = np.sqrt(2.0 / ((2 * k + 1.0) * (4 * k + 6.0)))
        b[i + 1, i] = -np.sqrt(2.0 / ((2 * k + 5.0) * (4 * k + 6.0)))
        u, s, _ = np.linalg.svd(b, full_matrices=False)
        rows = np.arange(parity, n + 2, 2)[: k.size + 1]
        legendre[np.ix_(rows, k)] = u
        values[k] = s**-2.0
    chebyshev = _to_chebyshev(n + 2) @ (np.sqrt(np.arange(n + 2) + 0.5)[:, None] * legendre)
    for x in (legendre, chebyshev, values):
        x.flags.writeable = False
    return _Basis(legendre, chebyshev, values)


def _ratios(first: float, start: float, count: int) -> Any:
    """``Gamma(z + 1/2) / Gamma(z + 1)`` at z = start, start + 1, ..."""
    z = start + np.arange(max(count - 1, 0))
    return np.concatenate([[first], first * np.cumprod((z + 0.5) / (z + 1))])


def _to_chebyshev(m: int) -> Any:
    """Chebyshev coefficients of L_0 ... L_{m-1}, all of one sign."""
    at = _ratios(math.sqrt(math.pi), 0.0, m)
    i, j = np.arange(m)[:, None], np.arange(m)[None, :]
    used = (j >= i) & ((i + j) % 2 == 0)
    a = np.where(used, at[np.abs(j - i) // 2] * at[(i + j) // 2 % m], 0.0) * (2 / math.pi)
    a[0] *= 0.5
    return a


@functools.lru_cache(maxsize=16)
def _to_legendre(m: int) -> Any:
    """Legendre coefficients of T_0 ... T_{m-1}."""
    whole = _ratios(math.sqrt(math.pi), 0.0, m)
    halves = _ratios(2 / math.sqrt(math.pi), 0.5, m)  # at 1/2, 3/2, ...
    i, j = np.arange(m)[:, None], np.arange(m)[None, :]
    used = (j > i) & ((i + j) % 2 == 0)
    low, high = np.where(used, (j - i) // 2 - 1, 0), np.where(used, (j + i) // 2 - 1, 0)
    gap = np.where(used, (j + i + 1.0) * (j - i), 1.0)
    a = np.where(used, -j * (i + 0.5) / gap * whole[low] * halves[high], 0.0)
    d = np.arange(m)
    a[d, d] = math.sqrt(math.pi) / (2 * whole)
    a[0, 0] = 1.0
    return a


class _Solution(NamedTuple):
    """u before it is compressed: Chebyshev coefficients core x_k factors."""

    core: Any
    factors: list[Any]
    method: str


def _adaptive(
    f: Any, half: Sequence[float], stretch: float, data: float, asked: float | None
) -> _Found:
    """More functions until the solution stays what it is at points, or its residual shows it."""
    sizes = [min(max(c.shape[0] + 4, 16), LARGEST) for c in f.factors]
    points = _probes(f.ndim)
    before, gap = None, math.inf
    while True:
        u = _galerkin(f, half, sizes, asked or TOL)
        tables = [_chebyshev.basis(points, c.shape[0]) @ c for c in u.factors]
        values = mixed_products(u.core, tables)
        scale = float(np.abs(values).max())
        goal = _goal(data, scale, asked) * scale
        goal = max(goal - data, 0.25 * goal)
        tail = math.inf
        if before is not None:
            now = float(np.abs(values - before).max())
            # of an error c n^-p the differences tell what is left; without a rate all of it counts
            rate = gap / now if now else math.inf
            tail = now / (rate - 1) if 2 <= rate < math.inf else now
            gap = now
        larger = _larger(u, tables, sizes, goal)
        done = tail <= 0.5 * goal or (larger == sizes and before is not None)
        if done or before is None:
            found = _compressed(u, goal, values, points)
            residual = _residual(f, found, half, points) * stretch
            if residual <= goal:
                found, tail, done = found._replace(lost=residual), 0.0, True
            if done:
                left = (tail, found.bound, found.lost, values.size)
                return _Found(found.core, found.factors, scale, *left, u.method)
        before, sizes = values, larger


def _larger(u: _Solution, tables: list[Any], sizes: list[int], goal: float) -> list[int]:
    """More functions for variables whose last coefficients still count; for all, if none has."""
    grown = [min(LARGEST, math.ceil(GROWTH * n)) for n in sizes]
    counts = []
    for k, c in enumerate(u.factors):
        mixed = mixed_products(u.core, [c if j == k else t for j, t in enumerate(tables)])
        last = np.abs(np.moveaxis(mixed, k, 0)[2 * c.shape[0] // 3 :])
        counts.append(float(last.sum(axis=0).max()) > 0.01 * goal)
    if not any(counts):
        return grown
    return [m if more else n for m, n, more in zip(grown, sizes, counts, strict=True)]


def _probes(d: int) -> Any:
    """Points on [-1, 1] that crowd at the ends, where solutions are least smooth."""
    count = {2: 61, 3: 25}.get(d, 11)
    # multiples of the golden ratio, so that no family of polynomials has its nodes there
    t = np.sort(np.arange(1, count + 1) * (math.sqrt(5) - 1) / 2 % 1)
    return -np.cos(np.pi * t)


def _galerkin(f: Any, half: Sequence[float], sizes: Sequence[int], tol: float) -> _Solution:
    bases = [_basis(n) for n in sizes]
    right = []
    for c, b in zip(f.factors, bases, strict=True):
        coefs = (_to_legendre(c.shape[0]) @ c) / np.sqrt(np.arange(c.shape[0]) + 0.5)[:, None]
        m = min(c.shape[0], b.legendre.shape[0])
        right.append(b.legendre[:m].T @ coefs[:m])
    values = [b.values / h**2 for b, h in zip(bases, half, strict=True)]
    if math.prod(sizes) <= FULL:
        core = -mixed_products(f.core, right)
        sums = values[0]
        for v in values[1:]:
            sums = np.add.outer(sums, v)
        core /= sums
        return _Solution(core, [b.chebyshev for b in bases], "poisson: diagonalised")
    core, factors = low_rank(f.core, right, values, 0.01 * tol)
    found = [b.chebyshev @ q for b, q in zip(bases, factors, strict=True)]
    return _Solution(-core, found, "poisson: exponential sum")


def low_rank(
    core: Any, factors: Sequence[Any], values: Sequence[Any], tol: float
) -> tuple[Any, list[Any]]:
    """``(core x_k factors_k)_i / (values_1[i_1] + ... + values_d[i_d])`` as core and factors.

    ``1/x ~ sum_j w_j exp(-a_j x)`` turns it into a sum of Tucker tensors with one core; their
    columns, each weighed by what it is multiplied by, are compressed for every mode. Error below
    ``tol ||core x_k factors_k|| / min(x)`` in the Frobenius norm.
    """
    least = sum(float(v.min()) for v in values)
    weights, rates = inverse_sum(0.5 * tol)
    weights, rates = weights / least, rates / least
    decays = [np.exp(-rates * float(v.min())) for v in values]
    total = np.prod(decays, axis=0)
    bases = []
    size = [np.linalg.qr(c)[1] for c in factors]
    budget = 0.5 * tol * float(np.linalg.norm(mixed_products(core, size))) / least / core.ndim
    for k, (c, v) in enumerate(zip(factors, values, strict=True)):
        inner = mixed_products(core, [None if j == k else r for j, r in enumerate(size)])
        flat = np.moveaxis(inner, k, 0).reshape(core.shape[k], -1)
        flat = flat if flat.dtype.kind != "c" else np.concatenate([flat.real, flat.imag], axis=1)
        columns = c @ np.linalg.qr(flat.T)[1].T
        scaled = weights * total / decays[k]
        many = scaled[:, None, None] * (np.exp(-rates[:, None] * v)[:, :, None] * columns)
        wide = np.moveaxis(many, 0, 1).reshape(v.size, -1)
        # the triangle or the matrix itself, whichever is smaller
        if wide.shape[1] > wide.shape[0]:
            wide = np.linalg.qr(wide.T)[1].T
        u, s, _ = np.linalg.svd(wide, full_matrices=False)
        # the norms of J parts add up to sqrt(J) times that of all at most
        tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1] * weights.size)
        bases.append(u[:, : max(int(np.count_nonzero(tails > budget)), 1)])
    result: Any = 0.0
    for w, a in zip(weights, rates, strict=True):
        parts = [
            q.T @ (np.exp(-a * v)[:, None] * c)
            for q, c, v in zip(bases, factors, values, strict=True)
        ]
        result = result + w * mixed_products(core, parts)
    return result, bases


@functools.lru_cache(maxsize=16)
def inverse_sum(tol: float) -> tuple[Any, Any]:
    """Weights and rates with ``|1/x - sum_j w_j exp(-a_j x)| <= tol`` for all x >= 1.

    The trapezoidal rule for ``1/x = int exp(t - x e^t) dt``, whose integrand is bounded by
    ``1 / (x cos delta)`` in the strip of half-width delta: error at most
    ``2 / cos(delta) / (exp(2 pi delta / h) - 1)`` [2]_, and what the ends leave out.
    """
    share = tol / 3
    step = max(
        2 * math.pi * delta / math.log1p(2 / (share * math.cos(delta)))
        for delta in np.linspace(1.2, 1.57, 100)
    )
    low, high = math.log(share), math.log(math.log(1 / share) + 1)
    t = step * np.arange(math.floor(low / step), math.ceil(high / step) + 1)
    return step * np.exp(t), np.exp(t)


class _Compressed(NamedTuple):
    core: Any
    factors: Sequence[Any]
    bound: float  # of the sum of coefficients left out
    lost: float  # the largest change at points


def _compressed(u: _Solution, goal: float, values: Any, points: Any) -> _Compressed:
    """Of least ranks and degrees with a quarter of the tolerance at most lost at points."""
    count = math.sqrt(math.prod(c.shape[0] for c in u.factors))
    floor = 4 * EPS * float(np.linalg.norm(u.core))
    for share in (0.1, 0.04, 0.015, 0.005):
        size = max(share * goal, floor)
        first = truncate(u.core, tol=0.5 * size)
        factors = [c @ q for c, q in zip(u.factors, first.factors, strict=True)]
        r = compress(first.core, factors, tol=0.5 * size)
        tables = [_chebyshev.basis(points, c.shape[0]) @ c for c in r.factors]
        lost = float(np.abs(mixed_products(r.core, tables) - values).max())
        if lost <= 0.25 * goal:
            break
    return _Compressed(r.core, r.factors, (2 * first.error + r.error) * count, lost)


def _residual(f: Any, found: _Compressed, half: Sequence[float], points: Any) -> float:
    """``max |laplacian u - f|`` at the points of a grid that includes corners."""
    points = np.concatenate([[-1.0], points, [1.0]])
    tables = [_chebyshev.basis(points, c.shape[0]) @ c for c in found.factors]
    total = -mixed_products(f.core, [_chebyshev.basis(points, c.shape[0]) @ c for c in f.factors])
    for k, (c, h) in enumerate(zip(found.factors, half, strict=True)):
        second = _chebyshev.derivative(_chebyshev.derivative(c)) / h**2
        mixed = [*tables[:k], _chebyshev.basis(points, second.shape[0]) @ second, *tables[k + 1 :]]
        total = total + mixed_products(found.core, mixed)
    return float(np.abs(total).max())
