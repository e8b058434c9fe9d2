"""Least squares by a sketch that conditions the problem, and refinement to the last bit."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor
from linalgk.randomized._precondition import Backward, Sketched
from linalgk.randomized._rows import Sums, scale_of, squares

# Rounds of refinement at most; two are the rule.
_ROUNDS = 12
# Steps of an inner iteration at most.
_STEPS = 100


class Found(NamedTuple):
    """A solution and what is known about it, by columns of b where that makes sense."""

    x: Any  # (n, c)
    squares: Any  # ||b - A x||^2, float64
    rank: int
    s: Any
    backward: Any
    deviation: Any  # of the entries of x, (n, c)
    freedom: float | None
    iterations: int
    converged: bool
    method: str
    error: float
    stopped: bool = False  # by the callback


def direct(a: Any, b: Any, damp: float, cut: float) -> Found:
    """By QR and the SVD of R, in the words of any library; also for m < n."""
    xp = _xp.namespace(a)
    m, n = (int(size) for size in a.shape)
    unit, side = scale_of(_top(a)), scale_of(_top(b))
    a, b = a * (1 / unit), b * (1 / side)
    damp = damp / unit / unit
    wide, root = m < n, math.sqrt(damp)
    if wide:
        q, factor = _factor.qr(adjoint(xp, a))
        # A = R^H Q^H
        u, s, vh = _factor.svd(adjoint(xp, factor))
        back, right = q @ adjoint(xp, vh), b
    else:
        whole = _factor.triangle(xp.concat([a, b], axis=1))
        factor, right = whole[:n, :n], whole[:n, n:]
        u, s, vh = _factor.svd(factor)
        back = adjoint(xp, vh)
    host = np.asarray(_xp.to_numpy(s), np.float64)
    top = float(host[0])
    kept = np.hypot(host, root) > cut * math.hypot(top, root)
    gain = np.where(kept, host / np.where(kept, host**2 + damp, 1.0), 0.0)
    # by triangles where no direction is left out: singular vectors cost some digits
    if kept.all() and not wide:
        x = _factor.solve(*_with_damp(xp, factor, right, root))
    elif kept.all() and not damp:
        x = q @ _factor.solve(factor, right, adjoint=True)
    else:
        x = (back * _xp.from_numpy(gain.astype(_real(a)), xp, like=s)[None, :]) @ (
            adjoint(xp, u) @ right
        )
    r = b - a @ x
    size = np.asarray(_xp.to_numpy(squares(xp, r)), np.float64)
    c = adjoint(xp, a) @ r - damp * x
    t = s[:, None] * adjoint(xp, back)
    whole, aside = t, size
    if damp:
        whole = xp.concat([t, _eye(xp, t, n) * root])
        aside = size + damp * np.asarray(_xp.to_numpy(squares(xp, x)), np.float64)
    sizes = np.sqrt(np.asarray(_xp.to_numpy(squares(xp, b)), np.float64))
    backward = Backward(whole, sizes, 1.0).estimate(c, np.sqrt(aside), x, 1.0)
    weights = np.where(kept, 1 / np.where(kept, host**2 + damp, 1.0), 0.0)
    inverse = np.where(kept & (host > 0), 1 / np.where(host > 0, host, 1.0), 0.0)
    beside = np.sqrt(aside) / damp if wide and damp else _beside(xp, back, inverse, x)
    bound = _bound(xp, back, gain, weights, backward, host, x, np.sqrt(aside), beside)
    return Found(
        x * (side / unit), size * side**2, int(kept.sum()), host * unit, backward,
        bound * (side / unit), None, 0, True, "direct", _relative(xp, bound, x),
    )  # fmt: skip


def _with_damp(xp: Any, factor: Any, right: Any, root: float) -> tuple[Any, Any]:
    """Triangle and right-hand sides of the system with ``damp^(1/2) I`` below."""
    if not root:
        return factor, right
    n = int(factor.shape[0])
    below = xp.concat([_eye(xp, factor, n) * root, xp.zeros_like(right)], axis=1)
    whole = _factor.triangle(xp.concat([xp.concat([factor, right], axis=1), below], axis=0))
    return whole[:n, :n], whole[:n, n:]


def _top(a: Any) -> float:
    xp = _xp.namespace(a)
    return float(xp.max(xp.abs(a))) if math.prod(a.shape) else 0.0


def _real(a: Any) -> str:
    return _xp.REAL[_xp.dtype_name(a)]


def _eye(xp: Any, like: Any, n: int) -> Any:
    return _xp.from_numpy(np.eye(n, dtype=_xp.dtype_name(like)), xp, like=like)


def _bound(
    xp: Any, v: Any, gain: Any, weights: Any, backward: Any, s: Any, x: Any, residuals: Any,
    beside: Any = 0.0,
) -> Any:  # fmt: skip
    """First-order bound of each entry's error by the backward error: NumPy, (n, c).

    ``|dx_j| <= eta (||e_j^T A^+|| ||x|| + ||e_j^T (A^H A)^-1|| ||r||) ||A||_F``, eta at least the
    unit of rounding: x is rounded, and so is r, from which eta is estimated. ``beside`` is added
    in the parentheses: ``||(A^+)^H x||`` where x may leave the space of the rows.
    """
    backward = np.maximum(backward, float(np.finfo(_xp.dtype_name(v)).eps) / 2)
    squared = np.abs(np.asarray(_xp.to_numpy(v))).astype(np.float64) ** 2
    rows = np.sqrt(squared @ gain**2)
    rows_twice = np.sqrt(squared @ weights**2)
    length = np.sqrt(np.asarray(_xp.to_numpy(squares(xp, x)), np.float64))
    norm = math.sqrt(float((s**2).sum()))
    return norm * backward * (rows[:, None] * length + rows_twice[:, None] * residuals + beside)


def _beside(xp: Any, v: Any, inverse: Any, x: Any) -> Any:
    """``||(A^+)^H x||`` by columns, where the rank is less than the length of x; else 0."""
    if np.count_nonzero(inverse) == x.shape[0]:
        return 0.0
    c = np.abs(np.asarray(_xp.to_numpy(adjoint(xp, v) @ x))).astype(np.float64)
    return np.sqrt(((inverse[:, None] * c) ** 2).sum(axis=0))


def _relative(xp: Any, bound: Any, x: Any) -> float:
    size = math.sqrt(float(np.sum(_xp.to_numpy(squares(xp, x)))))
    return float(np.linalg.norm(bound)) / size if size else 0.0


# --- With a sketch -------------------------------------------------------------------------------


class Problem(NamedTuple):
    """A system by its passes, the sketch of it, and the units of A and b."""

    rows: Any
    sketched: Sketched
    sizes: Any  # norms of the columns of b, NumPy
    damp: float
    k: int
    scales: tuple[float, float]


def sketch_solve(problem: Problem) -> Found:
    """The solution of the sketched problem with the law of its error."""
    sk = problem.sketched
    xp, n = sk.xp, int(sk.x.shape[0])
    freedom = problem.k - sk.rank
    whiten = sk.whitener().matrix
    lengths = np.sqrt(np.asarray(_xp.to_numpy(squares(xp, adjoint(xp, whiten))), np.float64))
    residual = np.asarray(_xp.to_numpy(sk.sizes), np.float64)
    deviation = lengths[:, None] * residual[None, :] / math.sqrt(max(freedom, 1))
    if freedom <= 0:
        deviation = np.full_like(deviation, math.inf)
    estimate = Backward(sk.improved(), problem.sizes, problem.scales[0])
    # what is known of A^H r: the law of its distance from zero
    length = np.sqrt(np.asarray(_xp.to_numpy(squares(xp, sk.x)), np.float64))
    whole = np.hypot(problem.sizes, estimate.norm * problem.scales[0] * length)
    share = min(1.0, math.sqrt(sk.rank / max(freedom, 1)))
    backward = np.where(
        residual > 0,
        np.fmin(
            residual / np.where(problem.sizes > 0, problem.sizes, 1.0),
            share * residual / np.where(whole > 0, whole, 1.0),
        ),
        0.0,
    )
    size = _relative(xp, deviation, sk.x)
    scaled = residual**2 * problem.k / max(freedom, 1)
    return Found(
        sk.x, scaled, sk.rank, _undamped(estimate.s[:n], problem.damp), backward, deviation,
        float(freedom), 0, freedom > 0, "sketch_solve", size,
    )  # fmt: skip


class _Best:
    """The solution of the least backward error so far, and whether another round may help."""

    def __init__(self, eps: float) -> None:
        self.kept: Any = None
        self._eps, self._previous, self._stalled = eps, math.inf, 0

    def ended(self, worst: float, *state: Any) -> bool:
        """At rounding, or where two rounds gained less than half.

        One may: where x is far too long, its backward error is small although x is wrong.
        """
        if self.kept is None or not worst >= self.kept[0]:
            self.kept = worst, *state
        self._stalled = 0 if worst <= self._previous / 2 else self._stalled + 1
        self._previous = worst
        limit = 1 if worst <= 4 * self._eps else 2
        return worst <= self._eps / 4 or math.isnan(worst) or self._stalled >= limit


def refined(problem: Problem, method: str, told: Callable[..., bool]) -> Found:
    """The sketched solution, corrected until its backward error is that of rounding.

    Each pass gives the residual r and ``A^H r`` of the x that there is, hence its backward error,
    and a correction by the Gram matrix of ``A W``: formed once (``sketch_cholesky``), or solved
    with by conjugate gradients (``spir``) or the heavy ball (``fossils``).
    """
    rows, sk = problem.rows, problem.sketched
    alpha, beta = problem.scales
    factor = None
    x, used, gramian = sk.x, 0, method == "sketch_cholesky"
    best = _Best(rows.eps)
    measure: Backward | None = None
    for _round in range(_ROUNDS):
        sums = rows.sums(x, problem.scales, sk.whitener() if gramian and factor is None else None)
        if sums.gram is not None:
            factor = _factor.cholesky(_damped(sums.gram, problem))
            if factor is None:
                method, gramian = "spir", False
        if measure is None:
            measure = Backward(sk.improved(factor), problem.sizes, alpha)
        back, aside, backward = _judged(problem, measure, sums, x)
        worst = float(np.max(backward, initial=0.0))
        ended = best.ended(worst, x, sums.squares, backward, aside)
        if told(x, worst, _round) or ended:
            break
        y = sk.turn(back) * alpha
        if factor is not None:
            y = _factor.solve(factor, _factor.solve(factor, y, adjoint=True))
        else:
            y, steps = _inner(problem, y, method)
            used += steps
        x = x + sk.apply(y) * beta
    assert measure is not None
    return _answer(problem, best.kept, measure, method, used or _round)


def _judged(problem: Problem, measure: Backward, sums: Sums, x: Any) -> tuple[Any, Any, Any]:
    """``A^H r - damp x``, squared residuals with those of the ridge, and backward errors."""
    alpha, beta = problem.scales
    back, aside = sums.back, np.asarray(_xp.to_numpy(sums.squares), np.float64)
    if problem.damp:
        x_in_units = x * (1 / beta)
        back = back - x_in_units * (problem.damp / alpha)
        weight = np.asarray(_xp.to_numpy(squares(measure.xp, x_in_units)), np.float64)
        aside = aside + problem.damp * weight
    return back, aside, measure.estimate(back, np.sqrt(aside), x, beta)


def _undamped(values: Any, damp: float) -> Any:
    """Singular values of A from those with the ridge below."""
    return np.sqrt(np.maximum(values**2 - damp, 0.0)) if damp else values


def _answer(problem: Problem, best: Any, measure: Backward, method: str, used: int) -> Found:
    worst, x, size, backward, aside = best
    xp, (alpha, beta) = problem.sketched.xp, problem.scales
    size = np.asarray(_xp.to_numpy(size), np.float64)
    s = measure.s / alpha
    kept = np.arange(len(s)) < problem.sketched.rank
    inverse = np.where(kept & (s > 0), 1 / np.where(s > 0, s, 1.0), 0.0)
    scaled = x * (alpha / beta)
    bound = _bound(
        xp, measure.v, inverse, inverse**2, backward, s, scaled, np.sqrt(aside),
        _beside(xp, measure.v, inverse, scaled),
    )  # fmt: skip
    n = int(x.shape[0])
    values = _undamped(measure.s[:n], problem.damp)
    return Found(
        x, size * beta**2, problem.sketched.rank, values, backward, bound * (beta / alpha), None,
        used, worst <= 100 * problem.rows.eps, method, _relative(xp, bound, scaled),
    )  # fmt: skip


def _damped(gram: Any, problem: Problem) -> Any:
    """``W^H (A^H A + damp I) W``, in full precision and Hermitian."""
    xp = _xp.namespace(gram)
    gram = (gram + adjoint(xp, gram)) * 0.5
    if not problem.damp:
        return gram
    w = problem.sketched.whitener().matrix
    return gram + problem.damp * (adjoint(xp, w) @ w)


# --- Inner iterations with the Gram matrix of A W ------------------------------------------------


def _product(problem: Problem, y: Any) -> Any:
    """``W^H (A^H A + damp I) W y``."""
    x = problem.sketched.apply(y)
    back = problem.rows.project(problem.rows.a.matmat(x))
    if problem.damp:
        back = back + problem.damp * x
    return problem.sketched.turn(back)


def _inner(problem: Problem, target: Any, method: str) -> tuple[Any, int]:
    """Solve with the Gram matrix to about eight digits: rounding spoils the others."""
    if method == "fossils":
        return _heavy_ball(problem, target)
    xp = problem.sketched.xp
    tol = math.sqrt(problem.rows.eps) / 8
    y, r = xp.zeros_like(target), target
    p, size = r, squares(xp, r)
    first = xp.sqrt(size)
    for step in range(1, _STEPS + 1):
        q = _product(problem, p)
        curve = (
            xp.real(xp.sum(xp.conj(p) * q, axis=0))
            if problem.rows.a.is_complex
            else xp.sum(p * q, axis=0)
        )
        alive = (curve > 0) & (xp.sqrt(size) > tol * first)
        if not bool(xp.any(alive)):
            return y, step
        rate = xp.where(
            alive, size / xp.where(alive, curve, xp.ones_like(curve)), xp.zeros_like(curve)
        )
        y, r = y + rate * p, r - rate * q
        new = squares(xp, r)
        p = r + xp.where(size > 0, new / xp.where(size > 0, size, xp.ones_like(size)), new) * p
        size = new
        if not bool(xp.any(xp.sqrt(size) > tol * first)):
            break
    return y, step


def _heavy_ball(problem: Problem, target: Any) -> tuple[Any, int]:
    """No inner products: the rates follow from the distortion ``(n/k)^(1/2)`` of the sketch."""
    xp = problem.sketched.xp
    beta = min(0.9, problem.sketched.rank / problem.k)
    steps = max(2, math.ceil(math.log(math.sqrt(problem.rows.eps) / 8) / math.log(math.sqrt(beta))))
    y = old = xp.zeros_like(target)
    for _ in range(min(steps, _STEPS)):
        r = target - _product(problem, y)
        y, old = y + (1 - beta) ** 2 * r + beta * (y - old), y
    return y, min(steps, _STEPS)


def iterative(problem: Problem, told: Callable[..., bool]) -> Found:
    """Iterative sketching with damping and momentum: a correction by R for every pass."""
    rows, sk = problem.rows, problem.sketched
    alpha, beta = problem.scales
    momentum = min(0.9, sk.rank / problem.k)
    measure = Backward(sk.improved(), problem.sizes, alpha)
    x = old = sk.x
    best: Any = None
    stale = 0
    for step in range(2 * _STEPS):
        sums = rows.sums(x, problem.scales)
        back, aside, backward = _judged(problem, measure, sums, x)
        worst = float(np.max(backward, initial=0.0))
        stale = 0 if best is None or worst < best[0] / 2 else stale + 1
        if best is None or not worst >= best[0]:
            best = worst, x, sums.squares, backward, aside
        if told(x, worst, step) or worst <= rows.eps / 4 or stale > 30:
            break
        y = sk.turn(back) * ((1 - momentum) ** 2 * alpha)
        x, old = x + sk.apply(y) * beta + momentum * (x - old), x
    found = _answer(problem, best, measure, "iterative", step)
    # forward stable: what stays of the backward error is no failure
    return found._replace(converged=found.converged or stale > 30)


def lsqr(problem: Problem, told: Callable[..., bool]) -> Found:
    """LSQR of ``A W`` from the sketched solution, twice: the second removes what the first left."""
    rows, sk = problem.rows, problem.sketched
    xp, (alpha, beta) = sk.xp, problem.scales
    measure = Backward(sk.improved(), problem.sizes, alpha)
    x, used, best = sk.x, 0, _Best(rows.eps)
    for _round in range(_ROUNDS):
        r = rows.residual(x, beta)
        sums = Sums(rows.project(r * (1 / alpha)), squares(xp, r))
        _, aside, backward = _judged(problem, measure, sums, x)
        worst = float(np.max(backward, initial=0.0))
        ended = best.ended(worst, x, sums.squares, backward, aside)
        if told(x, worst, _round) or ended:
            break
        if problem.damp:
            r = xp.concat([r, x * (-math.sqrt(problem.damp) / beta)], axis=0)
        y, steps = _bidiagonal(problem, r)
        used += steps
        x = x + sk.apply(y) * beta
    return _answer(problem, best.kept, measure, "lsqr", used)


def _bidiagonal(problem: Problem, r: Any) -> tuple[Any, int]:
    """LSQR (Paige and Saunders) for each column, to about eight digits; with the ridge below."""
    rows, sk, m = problem.rows, problem.sketched, problem.rows.shape[0]
    xp, root = sk.xp, math.sqrt(problem.damp)
    tol = math.sqrt(rows.eps) / 8

    def forth(v: Any) -> Any:
        x = sk.apply(v)
        y = rows.a.matmat(x)
        return xp.concat([y, root * x], axis=0) if root else y

    def back(u: Any) -> Any:
        c = rows.project(u[:m, :])
        return sk.turn(c + root * u[m:, :] if root else c)

    def unit(u: Any) -> tuple[Any, Any]:
        size = xp.sqrt(squares(xp, u))
        return u / xp.where(size > 0, size, xp.ones_like(size)), size

    u, b = unit(r)
    v, a = unit(back(u))
    w, y = v, xp.zeros_like(v)
    phi, rho, first = b, a, a * b
    step = 0
    while step < _STEPS:
        step += 1
        u, b = unit(forth(v) - a * u)
        v, new = unit(back(u) - b * v)
        top = xp.sqrt(rho * rho + b * b)
        safe = xp.where(top > 0, top, xp.ones_like(top))
        c, s = rho / safe, b / safe
        y = y + (c * phi / safe) * w
        theta, rho = s * new, -c * new
        w = v - (theta / safe) * w
        phi, a = s * phi, new
        # ||W^H A^H r|| against that of the start
        if not bool(xp.any(xp.abs(phi * a * c) > tol * first)):
            break
    return y, step


def minimum_norm(problem: Problem, told: Callable[..., bool]) -> Found:
    """The shortest x of ``A x = b`` with m < n; here ``rows`` stands on the adjoint.

    ``x = A^H z`` with the preconditioner of ``A A^H``; a correction of z for every residual.
    """
    adjoint_rows, sk = problem.rows, problem.sketched
    xp, (alpha, beta) = sk.xp, problem.scales
    a = adjoint_rows.a  # of shape (n, m)
    b, n = problem.rows.b, int(a.shape[0])
    y = a.matmat(sk.whitener().matrix)
    gram = adjoint(xp, y) @ y
    factor = _factor.cholesky(_damped(gram, problem))
    z, x = xp.zeros_like(sk.x), xp.zeros_like(y[:, :1]) + xp.zeros_like(b[:1, :])
    measure = Backward(sk.improved(factor), problem.sizes, alpha)
    best = _Best(sk_eps(problem))
    for _round in range(_ROUNDS):
        rest = (b - a.rmatmat(x)) * (1 / beta)
        size = squares(xp, rest)
        r = rest - (problem.damp / beta) * z if problem.damp else rest
        host = np.asarray(_xp.to_numpy(squares(xp, r)), np.float64)
        length = np.sqrt(np.asarray(_xp.to_numpy(squares(xp, x)), np.float64))
        scale = np.hypot(problem.sizes, measure.norm * alpha * length)
        backward = np.where(host > 0, np.sqrt(host) * beta / np.where(scale > 0, scale, 1.0), 0.0)
        worst = float(np.max(backward, initial=0.0))
        ended = best.ended(worst, x, size, backward)
        if told(x, worst, _round) or ended:
            break
        step = sk.turn(r) if factor is None else _solved(factor, sk.turn(r))
        # not A^H z: z is as large as the square of the condition number
        z, x = z + sk.apply(step) * beta, x + y @ step * beta
    worst, x, size, backward = best.kept
    s = measure.s / alpha
    # rows of A^+ are at most 1/s_r long, and so is what leaves the space of the rows of A
    least = s[: sk.rank][-1] if sk.rank else math.inf
    least_backward = np.maximum(backward, sk_eps(problem) / 2)
    length = np.sqrt(np.asarray(_xp.to_numpy(squares(xp, x * (alpha / beta))), np.float64))
    bound = np.ones((n, 1)) * (
        math.sqrt(2) * measure.norm / least * least_backward * length
    )[None, :]  # fmt: skip
    squared = np.asarray(_xp.to_numpy(size), np.float64) * beta**2
    return Found(
        x, squared, sk.rank, _undamped(measure.s[: min(a.shape)], problem.damp), backward,
        bound * (beta / alpha), None, _round, worst <= 100 * sk_eps(problem), "minimum_norm",
        _relative(xp, bound, x * (alpha / beta)),
    )  # fmt: skip


def _solved(factor: Any, y: Any) -> Any:
    return _factor.solve(factor, _factor.solve(factor, y, adjoint=True))


def sk_eps(problem: Problem) -> float:
    return float(problem.rows.a.eps)
