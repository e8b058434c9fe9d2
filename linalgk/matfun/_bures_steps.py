"""Factors, distances and fixed points of the Bures-Wasserstein geometry."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _xp
from linalgk._lag import contiguous
from linalgk.matfun import _ops
from linalgk.matfun._bures_door import (
    Fault,
    flattened,
    sentence,
)
from linalgk.matfun._spectral import (
    ASYMMETRIC,
    INDEFINITE,
    NONFINITE,
    OK,
    SERIAL,
    SINGULAR,
    blas_for,
    frobenius,
    is_serial,
    put,
    take,
    usable,
)

# Entries of the products of one chunk of pairs: all pairs of 1000 matrices need not fit in memory.
_CHUNK = 2**23
_STEPS = 30  # halvings from the largest admitted change to roundoff, and a few to spare


class BarycenterState(NamedTuple):
    """What `bures_barycenter` shows its callback; NumPy arrays over the flattened batch."""

    iteration: int
    change: Any
    residual: Any
    converged: Any


class _Members(NamedTuple):
    """A flat batch with factors, ``A = F F^H 4^unit``; the small arrays are NumPy, (b,)."""

    matrix: Any  # A / 4^unit before the metric, exactly Hermitian
    factor: Any
    unit: Any
    status: Any
    spread: Any  # lower bound of the condition of F, infinite if F is no Cholesky factor
    detail: Any  # the number for the sentence about a bad member


# ---- factors ----


def members_of(
    flat: Any, tolerance: Callable[[int, float], float], t: float = 1.0, root: Any = None
) -> _Members:
    """Factors of the members, of their power t, and under a metric with the factor ``root``."""
    count, n = flat.shape[0], flat.shape[-1]
    status, unit, detail = np.full(count, OK), np.zeros(count, int), np.zeros(count)
    if not count or not n:
        return _Members(flat, flat, unit, status, np.ones(count), detail)
    scan = _ops.HERMITIAN_SCAN(flat, _config.num_threads())
    largest, defect = (np.asarray(_xp.to_numpy(v), dtype=np.float64) for v in scan[:2])
    eps = float(np.finfo(_xp.REAL[_xp.dtype_name(flat)]).eps)
    with np.errstate(invalid="ignore"):
        status[defect > tolerance(n, eps) * largest] = ASYMMETRIC
        detail = np.where(largest > 0, defect / np.where(largest > 0, largest, 1.0), 0.0)
    status[~np.isfinite(largest)] = NONFINITE
    top = np.where((status == OK) & (largest > 0), largest, 1.0)
    # factors of matrices scaled by 4^k are those scaled by 2^k, to the bit
    unit = -(-np.frexp(top)[1] // 2)
    unit = np.where(np.abs(unit) > 8, unit, 0)  # nothing leaves the range nearer to 1
    h = flat if (status == OK).all() else usable(flat, status)
    h = _ops.scaled(h, -2 * unit)
    if defect.any():
        h = 0.5 * (h + _ops.adjoint(h))
    if t == 1:
        factor, lowest, below, spread = factored(h)
    else:
        factor, power, lowest, below, kappa = _power_factor(h, unit, t)
        spread = np.full(count, np.inf)
    detail = np.where(below, np.ldexp(lowest, 2 * unit), detail)
    status = np.where((status == OK) & below, INDEFINITE, status)
    if t != 1:
        h, unit = factor @ _ops.adjoint(factor), power
        if t < 0:
            status = np.where((status == OK) & (kappa >= 1 / eps), SINGULAR, status)
    if root is not None:
        factor = _xp.namespace(flat).linalg.solve(root.factor, factor)
        unit = unit - root.unit
    return _Members(h, factor, unit, status, spread, detail)


def factored(h: Any) -> tuple[Any, Any, Any, Any]:
    """Factor, smallest eigenvalue, whether it says indefinite, and a lower bound of cond(F)."""
    factor = _cholesky(h)
    pivots = np.asarray(_xp.to_numpy(_xp.namespace(h).linalg.diagonal(factor)).real, np.float64)
    failed = ~np.isfinite(pivots).all(axis=1) | (pivots.min(axis=1) <= 0)
    lowest, below = np.zeros(len(failed)), np.zeros(len(failed), bool)
    with np.errstate(all="ignore"):
        spread = np.where(failed, np.inf, pivots.max(axis=1) / pivots.min(axis=1))
    index = np.flatnonzero(failed)
    if len(index):
        part, _, low, under, _ = _power_factor(take(h, index), np.zeros(len(index), int), 1.0)
        factor = put(factor, index, part)
        lowest[index], below[index] = low, under
    return factor, lowest, below, spread


def _cholesky(h: Any) -> Any:
    """Lower factors; NaN where there is none."""
    xp = _xp.namespace(h)
    try:
        return xp.linalg.cholesky(h)
    except np.linalg.LinAlgError:
        # NumPy names no member; halving finds them, and no member depends on its neighbours
        half = h.shape[0] // 2
        if not half:
            return xp.full_like(h, float("nan"))
        return xp.concat([_cholesky(h[:half, ...]), _cholesky(h[half:, ...])])


def _power_factor(h: Any, unit: Any, t: float) -> tuple[Any, Any, Any, Any, Any]:
    """A factor of ``(H 4^unit)^t`` and its unit, the smallest eigenvalue of H, whether it says
    indefinite, and the condition of H.
    """
    xp, real = _xp.namespace(h), _xp.REAL[_xp.dtype_name(h)]
    with blas_for(h):
        w, v = _ops.EIGH(contiguous(h), _config.num_threads() if is_serial(h) else 1)
    w = np.asarray(_xp.to_numpy(w), dtype=np.float64)
    top, low, eps = np.abs(w).max(axis=1), w.min(axis=1), float(np.finfo(real).eps)
    below = low < -h.shape[-1] * eps * top
    with np.errstate(all="ignore"):
        spread = np.where(low > 0, top / np.where(low > 0, low, 1.0), np.inf)
        f = np.maximum(w, 0.0 if t > 0 else 1e-30) ** (t / 2)
    whole = np.floor(unit * t)
    f = f * np.exp2(unit * t - whole)[:, None]
    size = np.frexp(np.maximum(f.max(axis=1), 1e-300))[1] if t != 1 else np.zeros(len(f), int)
    f = np.ldexp(f, -size[:, None])
    factor = v * _xp.from_numpy(f, xp, like=h, dtype=h.dtype)[:, None, :]
    return factor, whole.astype(int) + size, low, below, spread


def polar_factor(x: Any) -> Any:
    """The unitary polar factors."""
    u, _, vh = _xp.namespace(x).linalg.svd(x, full_matrices=False)
    return u @ vh


def definite(m: _Members) -> _Members:
    """Members whose inverse is asked for: SINGULAR where an eigenvalue is at most eps."""
    eps = float(np.finfo(_xp.REAL[_xp.dtype_name(m.matrix)]).eps)
    # sharp only where a pivot is small
    index = np.flatnonzero((m.status == OK) & (m.spread**2 * m.matrix.shape[-1] * eps > 1e-2))
    status = m.status.copy()
    if len(index):
        w = np.asarray(_xp.to_numpy(_xp.namespace(m.matrix).linalg.eigvalsh(take(m.matrix, index))))
        status[index[w[:, 0] <= eps * w[:, -1]]] = SINGULAR
    return m._replace(status=status)


def metric_root(metric: Any, tolerance: Callable[[int, float], float]) -> _Members | None:
    if metric is None:
        return None
    m = definite(members_of(flattened(metric), tolerance))
    if m.status.any():
        fault = Fault("metric", m.status, m.detail)
        name = "metric"
        raise sentence(name, fault, int(m.status[0]), (), ((),), None)
    return m


# ---- distance ----


class _Found(NamedTuple):
    """Squared distances in units of ``4^unit``; all NumPy, (b,), but the method."""

    square: Any
    unit: Any
    steps: Any
    error: Any
    method: str


def choose_method(n: int) -> tuple[str, str]:
    """The form that well-conditioned members of order n try first, and why.

    Cost model: singular values take 5 to 6 times a product at n = 2048, eigenvalues 2, and squaring
    the product 1/2 more; below n = 256 both cost the same, and squaring only loses digits.
    """
    if n > SERIAL:
        return "eigvalsh", f"n > {SERIAL}: eigenvalues cost less than singular values"
    return "svdvals", f"n <= {SERIAL}: singular values cost no more than eigenvalues"


def threshold(n: int, eps: float) -> float:
    """Share of the traces below which ``tr A + tr B - 2 tr(...)`` counts as cancelled.

    Six bits are lost unseen; where the careful forms would cost seconds, a quarter of the digits.
    """
    return float(2.0**-6 if n <= SERIAL else eps**0.25)


def distances(a: _Members, b: _Members, ia: Any, ib: Any, root: _Members | None) -> _Found:
    """Distances of the pairs ``a[ia], b[ib]``."""
    n, count = a.factor.shape[-1], len(ia)
    zeros = np.zeros(count)
    if not count or not n:
        return _Found(zeros, zeros.astype(int), zeros.astype(int), zeros, "none")
    size = max(1, _CHUNK // n**2)
    parts = []
    for k in range(0, count, size):
        part = slice(k, k + size)
        parts.append(_pairs(_picked(a, ia[part]), _picked(b, ib[part]), root))
    used = dict.fromkeys(name for p in parts for name in p.method.split("+"))
    square, unit, steps, error = (np.concatenate([p[i] for p in parts]) for i in range(4))
    return _Found(square, unit, steps, error, "+".join(used))


def _picked(m: _Members, index: Any) -> _Members:
    if len(index) == m.factor.shape[0] and (index == np.arange(len(index))).all():
        return m
    small = (x[index] for x in (m.unit, m.status, m.spread, m.detail))
    return _Members(take(m.matrix, index), take(m.factor, index), *small)


def _pairs(a: _Members, b: _Members, root: _Members | None) -> _Found:
    n, eps = a.factor.shape[-1], float(np.finfo(_xp.REAL[_xp.dtype_name(a.factor)]).eps)
    unit = np.maximum(a.unit, b.unit)
    fa, fb = (_ops.scaled(m.factor, m.unit - unit) for m in (a, b))
    with blas_for(fa):
        product = _ops.adjoint(fb) @ fa
        whole = sum(np.ldexp(_traces(m, root), 2 * (m.unit - unit)) for m in (a, b))
        share = threshold(n, eps)
        tolerance = eps / share
        square, error = np.full(len(unit), np.nan), np.full(len(unit), np.nan)
        used = []
        squares = choose_method(n)[0] == "eigvalsh"
        quick = np.flatnonzero((a.spread * b.spread < eps**-0.25) & squares)
        if len(quick):
            used.append("eigvalsh")
            fidelity, doubt = _by_squares(_some(product, quick), eps)
            square[quick] = np.maximum(whole[quick] - 2 * fidelity, 0.0)
            # also members that cancel are settled: singular values would cancel too
            settled = (doubt <= tolerance * square[quick]) | (square[quick] < share * whole[quick])
            error[quick] = doubt / np.maximum(square[quick], doubt)
            square[quick[~settled]] = np.nan
        rest = np.flatnonzero(np.isnan(square))
        if len(rest):
            used.append("svdvals")
            sigma = _xp.namespace(product).linalg.svdvals(_some(product, rest))
            fidelity = np.asarray(_xp.to_numpy(sigma), np.float64).sum(axis=1)
            square[rest] = np.maximum(whole[rest] - 2 * fidelity, 0.0)
            error[rest] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(square > 0, error / 2 + eps * whole / square, eps)
        steps = np.zeros(len(unit), int)
        cancelled = np.flatnonzero(square < share * whole)
        if len(cancelled):
            left, right = (_picked(m, cancelled) for m in (a, b))
            careful = _careful(left, right, unit[cancelled], root, take(product, cancelled), eps)
            square[cancelled], steps[cancelled] = careful.square, careful.steps
            error[cancelled] = careful.error
            used = used if len(cancelled) < len(unit) else []
            used.append(careful.method)
    return _Found(square, unit, steps, error, "+".join(used))


def _traces(m: _Members, root: _Members | None) -> Any:
    """Traces in the members' own units."""
    if root is not None:
        return frobenius(m.factor) ** 2
    diagonal = _xp.to_numpy(_xp.namespace(m.matrix).linalg.diagonal(m.matrix))
    return np.asarray(diagonal.real, dtype=np.float64).sum(axis=1)


def _some(x: Any, index: Any) -> Any:
    return x if len(index) == x.shape[0] else take(x, index)


def _by_squares(product: Any, eps: float) -> tuple[Any, Any]:
    """Sum of the singular values from their squares, and what it may be off by."""
    w = _xp.namespace(product).linalg.eigvalsh(_ops.adjoint(product) @ product)
    w = np.asarray(_xp.to_numpy(w), np.float64)
    noise = 8 * eps * w.max(axis=1, keepdims=True)
    doubt = 2 * (noise / np.sqrt(np.maximum(w, noise))).sum(axis=1)
    return np.sqrt(np.maximum(w, 0.0)).sum(axis=1), doubt


def _careful(
    a: _Members, b: _Members, unit: Any, root: _Members | None, product: Any, eps: float
) -> _Found:
    """Squared distances of near matrices without cancellation."""
    xp = _xp.namespace(product)
    fa, fb = (_ops.scaled(m.factor, m.unit - unit) for m in (a, b))
    base, other = (_ops.scaled(m.matrix, 2 * (m.unit - unit)) for m in (a, b))
    # each entry of the difference has a relative error of one rounding
    difference = other - base
    same = _xp.to_numpy(xp.max(xp.abs(difference), axis=(-2, -1))) == 0
    if root is not None:
        for _ in range(2):
            difference = xp.linalg.solve(root.factor, _ops.adjoint(difference))
        difference = 0.5 * (difference + _ops.adjoint(difference))
        base = fa @ _ops.adjoint(fa)
        base = 0.5 * (base + _ops.adjoint(base))
    square, steps, error = _by_difference(base, difference, eps)
    used = ["lyapunov"] if np.isfinite(square).any() else []
    square = np.where(same, 0.0, square)
    index = np.flatnonzero(np.isnan(square))
    if len(index):
        used.append("procrustes")
        near, far = _some(fa, index), _some(fb, index)
        distance = frobenius(near - far @ polar_factor(_some(product, index)))
        square[index] = distance**2
        error[index] = 4 * eps * frobenius(near) / np.maximum(distance, eps)
    error = np.where(same, 0.0, error)
    return _Found(square, unit, steps, error, "+".join(used or ["lyapunov"]))


def _by_difference(a: Any, e: Any, eps: float) -> tuple[Any, Any, Any]:
    """``tr(X A X)`` for ``X A + A X + X A X = E``, steps and relative error; NaN without an X.

    With T = I + X this is ``T A T = A + E``, and T is positive for ``||X|| < 1``: it is the map,
    and ``d^2 = ||(T - I) A^(1/2)||_F^2``.
    """
    xp = _xp.namespace(a)
    threads = _config.num_threads() if is_serial(a) else 1
    w, v = _ops.EIGH(contiguous(a), threads)
    e = _ops.CONGRUENCE(contiguous(e), contiguous(v), threads)
    low, high = (np.asarray(_xp.to_numpy(x), np.float64) for x in (w[:, 0], w[:, -1]))
    positive = low > a.shape[-1] * eps * high
    error = np.full(len(low), eps)
    safe = _xp.from_numpy(positive, xp, like=a)
    w = xp.where(safe[:, None], w, xp.ones_like(w))
    sums = xp.astype(w[:, :, None] + w[:, None, :], e.dtype)
    rows = xp.astype(w, e.dtype)[:, None, :]
    half = xp.astype(xp.sqrt(w), e.dtype)[:, None, :]
    x = e / sums
    size = frobenius(x * half)
    going = positive & (frobenius(x) <= 0.5)
    found = going & (size == 0)
    steps, last = np.zeros(len(going), int), np.array(size)
    square = np.where(found, 0.0, np.nan)
    going &= ~found
    for _ in range(_STEPS):
        index = np.flatnonzero(going)
        if not len(index):
            break
        some, weights = _some(x, index), _some(rows, index)
        after = (_some(e, index) - (some * weights) @ some) / _some(sums, index)
        moved = frobenius((after - some) * _some(half, index))
        total = frobenius(after * _some(half, index))
        bounded = frobenius(after) < 1
        x = put(x, index, after) if len(index) < len(going) else after
        steps[index] += 1
        settled = (moved <= 2 * eps * total) & bounded
        square[index[settled]] = total[settled] ** 2
        # eigenvalues of A are off by eps ||A||, and entries of X with the small ones by their share
        weak = frobenius(after * _some(half, index) / _some(sums, index) ** 0.5) / total
        error[index[settled]] = (eps * (1 + high[index] * weak**2))[settled]
        # halving at least, so that the sum of all later changes is at most this one
        going[index] = ~settled & bounded & (moved <= 0.5 * last[index])
        last[index] = moved
    return square, steps, error


# ---- barycentre ----


def fixed_point(
    factor: Any, parts: Any, w: Any, bad: Any, tol: float, max_iter: int,
    callback: Callable[[BarycenterState], bool | None] | None,
) -> tuple[Any, Any, Any, Any, bool]:  # fmt: skip
    """Factor of the barycentre, steps, last change, residual before it, and whether stopped."""
    count, n = factor.shape[0], factor.shape[-1]
    xp = _xp.namespace(factor)
    steps, going = np.zeros(count, int), ~bad
    change, residual = np.full(count, np.inf), np.full(count, np.inf)
    for iteration in range(max_iter):
        index = np.flatnonzero(going)
        if not len(index):
            break
        f, members, share = (_some(x, index) for x in (factor, parts, w))
        with blas_for(f):
            product = _ops.adjoint(members) @ f[:, None, :, :]
            flat = xp.reshape(product, (-1, n, n))
            polar = xp.reshape(polar_factor(flat), tuple(product.shape))
            after = xp.sum(share * (members @ polar), axis=1)
            size, square = frobenius(after), frobenius(_ops.adjoint(f) @ f)
            defect = frobenius(_ops.adjoint(f) @ (f - after))
        change[index] = frobenius(after - f) / np.where(size > 0, size, 1.0)
        residual[index] = defect / np.where(square > 0, square, 1.0)
        factor = put(factor, index, after) if len(index) < count else after
        steps[index] += 1
        going[index] = change[index] > tol
        if callback is not None:
            state = BarycenterState(iteration + 1, change.copy(), residual.copy(), ~going & ~bad)
            try:
                stop = callback(state)
            except StopIteration:
                stop = True
            if stop:
                return factor, steps, change, residual, True
    return factor, steps, change, residual, False


def squared_factor(factor: Any, unit: Any, t: float, root: _Members | None) -> Any:
    """``F F^H 4^unit`` back from the metric and the power, exactly Hermitian."""
    if not math.prod(factor.shape):
        return factor
    xp, real = _xp.namespace(factor), _xp.REAL[_xp.dtype_name(factor)]
    if root is not None:
        factor, unit = root.factor @ factor, unit + root.unit
    values = np.ones(factor.shape[:2])
    extra = np.zeros(len(unit))
    if t != 1:
        factor, s, _ = xp.linalg.svd(factor, full_matrices=False)
        values = np.asarray(_xp.to_numpy(s), np.float64) ** (1 / t)
        extra, unit = unit / t - np.floor(unit / t), np.floor(unit / t).astype(int)
    values = _xp.from_numpy(values * np.exp2(extra)[:, None], xp, like=factor, dtype=real)
    ones = _xp.from_numpy(np.ones(len(unit)), xp, like=factor, dtype=real)
    with blas_for(factor):
        threads = _config.num_threads() if is_serial(factor) else 1
        result = _ops.GRAM(contiguous(factor), values, ones, threads)
    return _ops.scaled(result, 2 * unit)
