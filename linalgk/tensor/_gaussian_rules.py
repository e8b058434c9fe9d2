"""Positive sums of Gaussians for a radial kernel on [rmin, 1] with as few terms as we can.

The trapezoidal rule in the logarithm of the exponent, whose small exponents a Gauss rule of the
same measure replaces; then Gauss-Newton steps on a rule of fewer terms.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor._radial import Radial, make

# Exponents beyond are not numbers any more once they are scaled back.
_WIDEST = 690.0
# Gauss-Newton steps cost the cube of the terms.
_POLISHED = 110
_STEPS = 16


class Rule(NamedTuple):
    """Weights and exponents, ascending, and the largest relative error on the search's points."""

    weights: Any
    exponents: Any
    error: float


class _Cut(NamedTuple):
    """Where a trapezoidal rule ends: what a Gauss rule takes over, and what is left out."""

    theta: float  # exponents up to this become a Gauss rule
    dropped: float  # part of the tolerance spent on large exponents
    grading: float  # growth of the step to the right


class _Problem(NamedTuple):
    kernel: Radial
    rmin: float
    tol: float
    low: float  # range of log exponents that matter
    high: float
    r: Any
    envelope: Any
    value: Any
    coarse: Any = None  # the same at some of the points


def separations(rmin: float, smallest: float, count: int) -> Any:
    """Points of [rmin, 1], equal steps of log r and denser at both ends; 0 where rmin is 0."""
    s = np.arange(count) / (count - 1)
    s = 0.7 * s + 0.15 * (1 - np.cos(math.pi * s))
    low = max(rmin, smallest)
    r = low ** (1 - s)
    r[0], r[-1] = low, 1.0
    return np.concatenate([np.zeros(1), r]) if rmin == 0 else r


def least(kernel: Radial, rmin: float, tol: float) -> Rule:
    """The rule of fewest terms found for [rmin, 1]; its error may exceed ``tol`` by a little."""
    problem = _posed(kernel, rmin, tol)
    best, shorter = _searched(problem)
    low = float(problem.r[int(rmin == 0)])
    fine = _at(problem, separations(rmin, low, 8 * best.weights.size + 30))
    # a Gaussian that is great where nobody looks, below rmin, would make the sum a needle
    greatest = 2.0 * float(np.sum(best.weights))
    fewer = 4 if best.weights.size > 30 else 1
    while fewer and best.weights.size <= _POLISHED:
        size = best.weights.size - fewer
        starts = [start for start in (shorter.get(size), _shortened(best, size)) if start]
        for start in starts if size > 0 else ():
            better = _polished(problem, fine, start)
            tame = better.error <= tol and np.sum(better.weights) <= greatest
            if tame and measured(kernel, *better[:2], rmin, 1.0) <= tol:
                best = better
                break
        else:
            fewer //= 2
    return best


def measured(kernel: Radial, w: Any, a: Any, rmin: float, rmax: float) -> float:
    """The largest error on the interval, relative to the envelope, in extended precision."""
    w, a = (np.asarray(x, np.longdouble) for x in (w, a))
    smallest = min(1e-2 / math.sqrt(float(a[-1])) / rmax, 0.5)
    r = separations(rmin / rmax, smallest, 12 * w.size + 100) * np.longdouble(rmax)
    r[-1] = rmax
    if rmin > 0:
        r[0] = rmin

    def errors(at: Any) -> Any:
        with np.errstate(under="ignore"):
            total = np.exp(-np.outer(at * at, a)) @ w
            return np.abs(total - kernel.value(at)) / kernel.envelope(at, rmin)

    e = errors(r)
    largest = float(np.max(e))
    inner = e[1:-1]
    peaks = 1 + np.flatnonzero((inner >= e[:-2]) & (inner >= e[2:]) & (inner > 0.7 * largest))
    low, high = r[peaks - 1], r[peaks + 1]
    for _ in range(3 if peaks.size else 0):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 9)
        e = errors(grid.reshape(-1)).reshape(grid.shape)
        largest = max(largest, float(np.max(e)))
        at = np.clip(np.argmax(e, axis=1), 1, 7)
        rows = np.arange(peaks.size)
        low, high = grid[rows, at - 1], grid[rows, at + 1]
    return largest


def smallest_separation(rmin: float, high: float) -> float:
    """Below it every Gaussian is 1: where to begin in log r when ``rmin`` is 0."""
    return rmin if rmin > 0 else min(1e-2 * math.exp(-high / 2), 0.5)


def significant(kernel: Radial, rmin: float, tol: float) -> tuple[float, float]:
    """The logarithms of exponents between which the integrand is not negligible."""
    v = np.arange(-_WIDEST, _WIDEST, 0.25)
    r = np.array([rmin, 1.0])
    with np.errstate(over="ignore", under="ignore"):
        density = kernel.density(v)
        envelope = np.log(kernel.envelope(np.asarray(r, np.longdouble), rmin).astype(np.float64))
        # the largest over r of what one exponent contributes lies between the two at the ends
        turn = np.clip(np.exp(-v / 2), r[0], r[1])
        inner = np.log(kernel.envelope(turn, rmin))
        size = np.maximum.reduce([
            density - r[0] ** 2 * np.exp(v) - envelope[0],
            density - r[1] ** 2 * np.exp(v) - envelope[1],
            density - turn**2 * np.exp(v) - inner,
        ])  # fmt: skip
    matters = np.flatnonzero(size > math.log(tol) - 6)
    # exponents as small as they like matter where the density's tail is summed up
    first = 0 if kernel.rate else 1
    inside = matters.size > 0 and matters[0] >= first and matters[-1] < v.size - 1
    if not inside or np.max(density[matters]) > _WIDEST:
        msg = (
            "kernel: weights or exponents of its Gaussians leave the range of float64; use a "
            "larger rmin, or parameters nearer to the interval"
        )
        raise ValueError(msg)
    low, high = v[matters[0]] - 0.25, v[matters[-1]] + 0.25
    if kernel.rate:
        low = max(low, math.log(tol) - 5)
    return float(low), float(high)


def _posed(kernel: Radial, rmin: float, tol: float) -> _Problem:
    low, high = significant(kernel, rmin, tol)
    count = 200 + int(4 * min(max(high, 0.0) + 2.3, 60.0)) * max(1, int(-math.log10(tol) / 4))
    r = separations(rmin, smallest_separation(rmin, high), count)
    empty = np.empty(0)
    whole = _at(_Problem(kernel, rmin, tol, low, high, empty, empty, empty), r)
    envelope, exact = whole.envelope, whole.value
    some = slice(None, None, 7)
    return whole._replace(
        coarse=whole._replace(r=r[some], envelope=envelope[some], value=exact[some])
    )


def _at(p: _Problem, r: Any) -> _Problem:
    """The same problem with other points."""
    return p._replace(r=r, envelope=p.kernel.envelope(r, p.rmin), value=p.kernel.value(r))


# --- Trapezoidal rules ---------------------------------------------------------------------------


def _trapezoid(p: _Problem, h: float, grading: float) -> tuple[Any, Any]:
    """Weights and exponents of equal steps in u, where v = u + grading/2 softplus(u - u0)^2."""
    kernel = p.kernel
    if grading == 0:
        v = h * np.arange(math.floor(p.low / h), math.ceil(p.high / h) + 1)
        slope: Any = 1.0
    else:
        # the density's peak is where its decay to the right begins
        grid = np.linspace(p.low, p.high, 400)
        u0 = float(grid[np.argmax(kernel.density(grid))]) + 4.0
        end = u0 + (math.sqrt(1 + 2 * grading * max(p.high - u0, 0)) - 1) / grading + 3
        u = h * np.arange(math.floor(p.low / h), math.ceil(end / h) + 1)
        soft = np.logaddexp(0.0, u - u0)
        v = u + grading / 2 * soft**2
        slope = 1 + grading * soft * np.exp(-np.logaddexp(0.0, u0 - u))
        keep = v < p.high + 1
        u, v, slope = u[keep], v[keep], slope[keep]
    w = h * slope * np.exp(kernel.density(v))
    if kernel.rate:
        # all exponents before the first act like it: a geometric series
        w[0] /= -math.expm1(-kernel.rate * h)
    return w, np.exp(v)


def _gauss(w: Any, a: Any, m: int) -> tuple[Any, Any]:
    """The m-point Gauss rule of a discrete measure: Lanczos on its nodes, orthogonal twice."""
    mass = float(np.sum(w))
    Q = np.zeros((m, a.size))
    Q[0] = np.sqrt(w / mass)
    diagonal, off = np.zeros(m), np.zeros(m)
    for j in range(m):
        z = a * Q[j]
        diagonal[j] = Q[j] @ z
        for _ in range(2):
            z = z - Q[: j + 1].T @ (Q[: j + 1] @ z)
        off[j] = np.linalg.norm(z)
        if j + 1 < m:
            if off[j] <= 1e-15 * a[-1]:
                m = j + 1
                break
            Q[j + 1] = z / off[j]
    T = np.diag(diagonal[:m]) + np.diag(off[: m - 1], 1) + np.diag(off[: m - 1], -1)
    nodes, vectors = np.linalg.eigh(T)
    return mass * vectors[0] ** 2, np.maximum(nodes, a[0])


def _deviation(p: _Problem, w: Any, a: Any) -> Any:
    """Errors relative to the envelope at the search's points."""
    return (np.exp(-np.outer(p.r * p.r, a)) @ w - p.value) / p.envelope


def _attempt(p: _Problem, h: float, cut: _Cut, limit: int) -> Rule | None:
    """The trapezoidal rule with these cuts in exactly or at most ``limit`` terms."""
    w, a = _trapezoid(p, h, cut.grading)
    # what large exponents add is largest at rmin, or where they begin to fall
    near = p.r[0] if p.rmin > 0 else 0.0
    tail = np.cumsum((w * np.exp(-near * near * a))[::-1])[::-1] / p.envelope[0]
    w, a = w[tail > cut.dropped * p.tol], a[tail > cut.dropped * p.tol]
    left = int(np.searchsorted(a, cut.theta, side="right"))
    m = limit - (a.size - left)
    if m < (1 if left else 0):
        return None
    if m < left:
        # the measure as it is seen from rmin, so that short intervals need few nodes
        shift = p.rmin * p.rmin
        gw, ga = _gauss(w[:left] * np.exp(-shift * a[:left]), a[:left], m)
        w, a = np.concatenate([gw * np.exp(shift * ga), w[left:]]), np.concatenate([ga, a[left:]])
    # most attempts fail by far
    error = float(np.max(np.abs(_deviation(p.coarse, w, a)))) if p.coarse is not None else 0.0
    if error < 1.5 * p.tol:
        error = float(np.max(np.abs(_deviation(p, w, a))))
    return Rule(w, a, error)


def _cuts(p: _Problem) -> Iterator[_Cut]:
    wide = p.kernel.smoothness > 0 and p.high > 20
    for grading in (0.0, 0.03, 0.08) if wide else (0.0,):
        for theta in (128.0, 32.0, 512.0):
            for dropped in (0.3, 0.7):
                yield _Cut(theta, dropped, grading)


def _searched(p: _Problem) -> tuple[Rule, dict[int, Rule]]:
    """The shortest trapezoidal rule found, and the most accurate ones that are shorter."""
    digits = math.log(2 / p.tol)
    h = 1.2 * math.pi**2 / digits / math.sqrt(1 + p.kernel.sharpness(p.rmin) / digits)
    safe = _Cut(1.0, 0.01, 0.0)
    best: Rule | None = None
    for _ in range(60):
        found = _attempt(p, h, safe, 1 << 30)
        if found is not None and (best is None or found.error < best.error):
            best = found
        if best is not None and best.error <= p.tol:
            break
        h *= 0.9
    assert best is not None
    if best.error > p.tol:
        return best, {}
    shorter: dict[int, Rule] = {}
    improved = True
    while improved:
        improved = False
        # wide intervals cost the square of the terms
        n = best.weights.size
        for cut in list(_cuts(p))[:: 1 + 2 * (n > 150) + 3 * (n > 300)]:
            for step in np.arange(1.3, 0.8, -0.04):
                while True:
                    limit = best.weights.size - 1
                    found = _attempt(p, h * step, cut, limit) if limit else None
                    if found is None:
                        break
                    size = found.weights.size
                    if size not in shorter or found.error < shorter[size].error:
                        shorter[size] = found
                    if found.error > p.tol:
                        break
                    best, improved = found, True
    return best, shorter


# --- Polishing -----------------------------------------------------------------------------------


def _shortened(rule: Rule, terms: int) -> Rule:
    """So many terms, between those of the rule."""
    size = rule.weights.size
    at, j = np.linspace(0, size - 1, max(terms, 1)), np.arange(size)
    w, a = (np.exp(np.interp(at, j, np.log(x))) for x in rule[:2])
    return Rule(w, a, math.inf)


def _polished(p: _Problem, q: _Problem, rule: Rule) -> Rule:
    """Gauss-Newton on the logarithms of weights and exponents, reweighted towards the maximum norm.

    The logarithms keep both positive; the best approximation has this form and 2k + 1 extremes
    of alternating sign (Braess, "Nonlinear Approximation Theory", 1986, chapter VI). Errors are
    made small at the points of ``q`` and judged at those of ``p``.
    """
    size = rule.weights.size
    weighting, damp = np.ones(q.r.size), 1e-3
    x = _refitted(q, np.log(np.concatenate(rule[:2])), weighting)
    state = _linearized(q, x)
    best, best_error = x, float(np.max(np.abs(state[0])))
    for count in range(_STEPS if size > 30 else 2 * _STEPS):
        hopeless = damp > 100 or (count >= 6 and best_error > 100 * p.tol)
        if best_error <= 0.9 * p.tol or hopeless:
            break
        residual, J = state
        A = J * weighting[:, None]
        norms = np.linalg.norm(A, axis=0)
        norms = np.maximum(norms, 1e-9 * np.max(norms))
        stacked = np.zeros((q.r.size + 2 * size, 2 * size + 1))
        stacked[: q.r.size, :-1], stacked[: q.r.size, -1] = A, -weighting * residual
        stacked[q.r.size :, :-1] = np.diag(damp * norms)
        R: Any = np.linalg.qr(stacked, mode="r")
        step = np.linalg.solve(R[:-1, :-1], R[:-1, -1])
        # the valley of small residuals is curved: new weights lead back into it
        trial = _refitted(q, x + np.clip(step, -0.7, 0.7), weighting)
        after = _linearized(q, trial)
        before, now = (float(np.linalg.norm(weighting * s[0])) for s in (state, after))
        if not now < before * 1.0001:
            damp *= 10
            continue
        x, state, damp = trial, after, max(damp / 5, 1e-14)
        error = np.abs(state[0])
        peak = float(np.max(error))
        if peak < best_error:
            best, best_error = x, peak
        if now > 0.8 * before or peak < 3 * p.tol:
            weighting = weighting * np.sqrt(error / peak + 0.05)
            weighting /= np.max(weighting)
    order = np.argsort(best[size:])
    w, a = np.exp(best[:size])[order], np.exp(best[size:])[order]
    return Rule(w, a, float(np.max(np.abs(_deviation(p, w, a)))))


def _refitted(p: _Problem, x: Any, weighting: Any) -> Any:
    """The best weights for the exponents, where they are positive."""
    size = x.size // 2
    a = np.exp(x[size:])
    terms = np.exp(x[:size] - np.outer(p.r * p.r, a)) * (weighting / p.envelope)[:, None]
    missing = weighting * p.value / p.envelope - np.sum(terms, axis=1)
    change = np.linalg.lstsq(terms, missing, rcond=1e-14)[0]
    if np.min(change) <= -0.9:
        return x
    return np.concatenate([x[:size] + np.log1p(change), x[size:]])


def _linearized(p: _Problem, x: Any) -> tuple[Any, Any]:
    size = x.size // 2
    w, a = np.exp(x[:size]), np.exp(x[size:])
    y = np.outer(p.r * p.r, a)
    terms = w * np.exp(-y) / p.envelope[:, None]
    residual = np.sum(terms, axis=1) - p.value / p.envelope
    return residual, np.concatenate([terms, -y * terms], axis=1)


@functools.lru_cache(maxsize=256)
def kept(name: str, parameters: tuple[tuple[str, float], ...], rmin: float, tol: float) -> Rule:
    """`least` for the kernel of that name, read-only."""
    rule = least(make(name, dict(parameters)), rmin, tol)
    for x in (rule.weights, rule.exponents):
        x.flags.writeable = False
    return rule
