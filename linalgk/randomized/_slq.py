"""Quadratic forms by quadrature, their mean over probes, and what is deflated before."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor
from linalgk.randomized._estimate import (
    CHECK,
    DEFLATION,
    PROBES,
    Found,
    Probes,
    Watch,
    draw,
    not_finite,
    not_positive,
    student,
)
from linalgk.randomized._lanczos import (
    UNKNOWN,
    Function,
    Lanczos,
    Rule,
    Spectrum,
    brackets,
    check_symmetry,
    scale_of,
)
from linalgk.randomized._matrix import Matrix
from linalgk.sketch import Philox

# Steps of Lanczos' process at most, and before the first look.
MOST_STEPS = 80
_FIRST = 3
# Probes of the first block: the least number with which Student's quantile is bearable.
_PILOT = 4
# Numbers of a block of probes, for the cache.
_CACHE = 1 << 17


class Plan(NamedTuple):
    """What is asked for."""

    f: Function
    steps: int | None
    tol: float | None
    level: float
    budget: int | None  # products
    kind: Probes
    block: int | None


# --- The spectrum --------------------------------------------------------------------------------


def gershgorin(a: Matrix) -> tuple[Spectrum, float]:
    """Bounds from sums of rows of a stored Hermitian matrix, and its least diagonal entry."""
    xp, n = a.xp, a.shape[0]
    if a.kind == "operator" or n == 0:
        return UNKNOWN, math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        if a.kind == "sparse":
            diagonal = np.asarray(_xp.to_numpy(a.a.diagonal()))
            sums = _sparse_sums(a)
        else:
            diagonal = np.asarray(_xp.to_numpy(xp.linalg.diagonal(a.a)))
            step = max(1, (1 << 20) // n)
            parts = [
                xp.sum(xp.abs(a.a[i : min(i + step, n), :]), axis=1) for i in range(0, n, step)
            ]
            sums = np.asarray(_xp.to_numpy(xp.concat(parts)))
            a.passes += 1
        sums = sums.astype(np.float64, copy=False)
        center = diagonal.real.astype(np.float64, copy=False)
        reach = sums - np.abs(diagonal)
        low, high = float((center - reach).min()), float((center + reach).max())
        top = float(sums.max())
        slack = 4 * a.eps * top
    if not math.isfinite(top):
        # huge entries have infinite sums; what is not a number shows in products
        return UNKNOWN, float(center.min())
    return Spectrum(low - slack, high + slack, True, True), float(center.min())


def _sparse_sums(a: Matrix) -> Any:
    if not isinstance(a.a.data, np.ndarray):
        ones = _xp.from_numpy(np.ones(a.shape[0], _xp.REAL[a.dtype]), a.xp, like=a.like)
        return np.asarray(_xp.to_numpy(abs(a.a) @ ones))
    starts = a.a.indptr[:-1]
    if not a.a.data.size:
        return np.zeros(a.shape[0])
    sums = np.add.reduceat(np.abs(a.a.data), np.minimum(starts, a.a.data.size - 1))
    # reduceat gives the entry itself for an empty row
    return np.where(a.a.indptr[1:] > starts, sums, 0.0)


# --- A block of processes ------------------------------------------------------------------------


def run(
    a: Any, x: Any, f: Function, spectrum: Spectrum, steps: int | None, scale: float | None,
    enough: Callable[[Rule], bool], check: Any = None, first: int = _FIRST,
    cap: int = MOST_STEPS,
) -> tuple[Rule, Lanczos]:  # fmt: skip
    """Processes from the rows of x until the rules are good enough."""
    process = Lanczos(a, x, scale)
    most = min(a.shape[0], cap if steps is None else steps)
    found, before, look = None, None, most if steps is not None else min(first, most)
    while True:
        process.step()
        if process.k == 1 and check is not None:
            check_symmetry(a, process.before, process.first, check, process.scale or 1.0)
            process.first = None
        done = process.k >= most or not process.alive.any()
        if process.k >= look - 1 or done:
            found = brackets(process, f, spectrum, before)
            _check_domain(found, f, spectrum, process)
            before = found.value / np.where(process.weight > 0, process.weight, 1.0)
            if done or (process.k >= look and enough(found)):
                return found, process
            if process.k >= look:
                look = process.k + max(1, process.k // 6)


def _check_domain(found: Rule, f: Function, spectrum: Spectrum, process: Lanczos) -> None:
    top = max(abs(found.least), abs(found.largest))
    slack = process.eps * top * 64
    if f.domain != "real":
        least = -slack if f.domain == "nonnegative" else min(slack, _slack_of(spectrum, slack))
        if found.least <= least and not (found.least == 0 and f.domain == "nonnegative"):
            what = "semidefinite" if f.domain == "nonnegative" else "definite"
            why = (
                f"a is not positive {what} to working precision{{}}: a Ritz value is "
                f"{found.least:.3g} and the largest {found.largest:.3g}"
            )
            raise not_positive(why)
    if not np.isfinite(found.value).all():
        msg = f"f: {f.name} is not finite at a Ritz value between {found.least:.3g} and " \
              f"{found.largest:.3g}"  # fmt: skip
        raise ValueError(msg)
    if found.least < spectrum.low - slack or found.largest > spectrum.high + slack:
        msg = (
            f"bounds: eigenvalues reach from below {found.least:.6g} to above "
            f"{found.largest:.6g}, outside of [{spectrum.low:.6g}, {spectrum.high:.6g}]"
        )
        raise ValueError(msg)


def _slack_of(spectrum: Spectrum, slack: float) -> float:
    """Eigenvalues that are known to be positive may be as small as they like."""
    return 0.0 if spectrum.sure_low and spectrum.low > 0 else slack


# --- Means over probes ---------------------------------------------------------------------------


class Collected:
    """Rules of all probes so far."""

    def __init__(self) -> None:
        self.values, self.lows, self.highs = np.zeros(0), np.zeros(0), np.zeros(0)
        self.sure = (True, True)
        self.steps = 0

    def add(self, found: Rule, steps: int) -> None:
        self.values = np.concatenate([self.values, found.value])
        self.lows = np.concatenate([self.lows, found.low])
        self.highs = np.concatenate([self.highs, found.high])
        self.sure = (self.sure[0] and found.sure[0], self.sure[1] and found.sure[1])
        self.steps = max(self.steps, steps)

    def mean(self) -> tuple[float, float, float]:
        """Mean, standard error, degrees of freedom."""
        return _mean(self.values)

    def reach(self) -> float:
        """How far the mean may be from that of the true values."""
        value = float(self.values.mean())
        return max(value - float(self.lows.mean()), float(self.highs.mean()) - value)


def _mean(values: Any) -> tuple[float, float, float]:
    m = len(values)
    mean = float(values.mean())
    if m < 2:
        return mean, math.inf, 0.0
    spread = math.sqrt(float(((values - mean) ** 2).sum()) / (m - 1) / m)
    return mean, spread, float(m - 1)


def trace_of(
    a: Any, plan: Plan, spectrum: Spectrum, source: Philox, watch: Watch, *, offset: float = 0.0,
    spent: int = 0, check: bool = True, give_up: Callable[[int], bool] | None = None,
) -> Found | None:  # fmt: skip
    """``offset + tr f(A)`` from probes; None if ``give_up`` says so of the probes still to come."""
    n = a.shape[0]
    got = Collected()
    budget = plan.budget
    left = math.inf if budget is None else budget - spent
    if n <= _PILOT or (budget is not None and plan.tol is None and left >= n * min(n, MOST_STEPS)):
        return _basis(a, plan, spectrum, offset, spent)
    probes, scale = source.spawn(PROBES), None
    if spectrum.sure_low and spectrum.sure_high:
        scale = scale_of(max(abs(spectrum.low), abs(spectrum.high)), a.dtype)
    side = draw(a, source.spawn(CHECK), "normal", 0, 1)[0, :] if check else None
    # of log det(s A) = n log s + log det A no digit beyond eps n is known
    floor = 64 * a.eps * n if plan.f.name == "log" else 0.0
    products = spent + (1 if check else 0)
    left -= products - spent
    wanted, first = _pilot(plan, left), _FIRST
    most = max(wanted, 1000) if budget is None else 1 << 62

    def enough(found: Rule) -> bool:
        """Whether the error of quadrature is small beside what is wanted, or beside sampling."""
        values = np.concatenate([got.values, found.value])
        width = (float((found.high - found.low).sum()) + float((got.highs - got.lows).sum())) / len(
            values
        )
        mean, error, _ = _mean(values)
        if plan.tol is not None:
            return width <= 0.25 * plan.tol * abs(mean + offset) + floor
        ahead = max(1.0, left / max(1, len(values) * process_steps))
        return width <= 0.1 * error / math.sqrt(ahead)

    process_steps = 8
    block = plan.block or min(32, max(_PILOT, _CACHE // n))
    while True:
        start, stop = len(got.values), min(wanted, len(got.values) + block)
        x = draw(a, probes, plan.kind, start, stop)
        cap = MOST_STEPS
        if budget is not None:
            cap = max(1, min(cap, (budget - products) // (stop - start)))
        found, process = run(
            a, x, plan.f, spectrum, plan.steps, scale, enough, side, max(_FIRST, first - 1), cap
        )
        side, scale, first = None, process.scale, process.k
        products += process.products
        got.add(found, process.k)
        mean, error, dof = got.mean()
        value = mean + offset
        stopped = watch(value, error, products)
        if stop < wanted and not stopped:
            continue
        half = student(plan.level, dof) * error if error else 0.0
        met = plan.tol is None or half + got.reach() <= plan.tol * abs(value) + floor
        if stopped or (met and plan.tol is not None):
            break
        if plan.tol is None:
            wanted = min(most, int((budget or 0) - products) // process.k + stop)
        else:
            room = max(0.5 * plan.tol * abs(value), plan.tol * abs(value) - got.reach())
            # Student's quantile falls with the number of probes
            need = stop * (half / room) ** 2 if room else math.inf
            if give_up is not None and give_up(int(min(need, 1e9)) * process.k):
                return None
            wanted = int(
                min(most, max(stop + 2, min(1.1 * need, 4 * stop)) if half > room else stop)
            )
            if budget is not None:
                wanted = min(wanted, (budget - products) // process.k + stop)
        # more probes do not make up for too few steps
        coarse = plan.tol is not None and got.reach() > plan.tol * abs(value) + floor
        if wanted <= stop or (coarse and process.k >= (plan.steps or MOST_STEPS)):
            break
    low, high = float(got.lows.mean()) + offset, float(got.highs.mean()) + offset
    return Found(
        value, error, dof, low, high, products, "slq", got.steps, bool(met), got.sure,
        getattr(a, "passes", 0), stopped=stopped,
    )  # fmt: skip


def _pilot(plan: Plan, left: float) -> int:
    """Probes of the first block."""
    steps = plan.steps or _FIRST
    return int(max(1, min(_PILOT, left // steps))) if left != math.inf else _PILOT


def _basis(a: Any, plan: Plan, spectrum: Spectrum, offset: float, spent: int) -> Found:
    """The trace from the unit vectors: no sampling error."""
    n = a.shape[0]
    units = _xp.from_numpy(np.eye(n, dtype=a.dtype), a.xp, like=a.like)
    goal = plan.tol or math.sqrt(a.eps)

    def enough(found: Rule) -> bool:
        return bool(abs(found.high - found.low).sum() <= goal * abs(found.value.sum()))

    block = plan.block or min(64, max(8, _CACHE // n))
    got, products, scale = Collected(), spent, None
    for i in range(0, n, block):
        found, process = run(
            a, units[i : min(i + block, n), :], plan.f, spectrum, plan.steps, scale, enough
        )
        scale = process.scale
        products += process.products
        got.add(found, process.k)
    value, low, high = (
        float(x.sum()) + offset for x in (got.values, got.lows, got.highs)
    )  # fmt: skip
    met = plan.tol is None or max(high - value, value - low) <= plan.tol * abs(value)
    return Found(
        value, 0.0, math.inf, low, high, products, "slq", got.steps, met, got.sure,
        getattr(a, "passes", 0),
    )  # fmt: skip


# --- Deflation -----------------------------------------------------------------------------------


class Deflated:
    """``P^(-1/2) A P^(-1/2)`` with ``P = U diag(w) U^H + mu (I - U U^H)``."""

    def __init__(self, a: Matrix, u: Any, w: Any, mu: float) -> None:
        self.a, self.xp, self.dtype, self.like = a, a.xp, a.dtype, a.like
        self.eps, self.is_complex, self.shape = a.eps, a.is_complex, a.shape
        self.u, self.mu = u, mu
        gain = (np.sqrt(mu / w) - 1).astype(_xp.REAL[a.dtype])
        self.gain = _xp.from_numpy(gain, a.xp, like=a.like)
        self.low, self.high = min(mu, float(w.min())), max(mu, float(w.max()))
        self.logdet = float(np.log(w).sum()) + (a.shape[0] - len(w)) * math.log(mu)

    @property
    def passes(self) -> int:
        """Of the matrix."""
        return self.a.passes

    def _half(self, x: Any) -> Any:
        """``mu^(1/2) P^(-1/2) x``."""
        inside = adjoint(self.xp, self.u) @ x
        gain = self.gain if x.ndim == 1 else self.gain[:, None]
        return x + self.u @ (gain * inside)

    def matmat(self, x: Any) -> Any:
        """The product, for x (n, k) or (n,)."""
        return self._half(self.a.matmat(self._half(x))) / self.mu

    def spectrum(self, of: Spectrum) -> Spectrum:
        """What is known of it."""
        low = of.low / self.high if of.sure_low and of.low > 0 else -math.inf
        high = of.high / self.low if of.sure_high else math.inf
        return Spectrum(low, high, math.isfinite(low), math.isfinite(high))


def deflate(a: Matrix, rank: int, source: Philox) -> Deflated:
    """From the Nyström approximation of this rank, and the mean of what it leaves."""
    xp, n = a.xp, a.shape[0]
    x = draw(a, source.spawn(DEFLATION), "normal", 0, rank)
    omega, _ = _factor.qr(xp.matrix_transpose(x))
    y = a.matmat(omega)
    top = float(xp.max(xp.abs(y)))
    if not math.isfinite(top):
        raise not_finite()
    scale = math.ldexp(1.0, math.frexp(top or 1.0)[1])
    y = y / scale
    rows = xp.matrix_transpose(omega), xp.matrix_transpose(y)
    check_symmetry(a, *rows, draw(a, source.spawn(CHECK), "normal", 0, 1)[0, :], scale)
    h = adjoint(xp, omega) @ y
    host = np.asarray(_xp.to_numpy(h)).astype(np.complex128 if a.is_complex else np.float64)
    size = float(np.linalg.norm(host))
    least = float(np.linalg.eigvalsh(0.5 * (host + host.conj().T))[0])
    if least <= -64 * a.eps * size:
        why = "a is not positive definite{}: x^H A x is negative for some x"
        raise not_positive(why)
    nu = a.eps * size
    h = 0.5 * (h + adjoint(xp, h)) + nu * (adjoint(xp, omega) @ omega)
    upper = _factor.cholesky(h)
    if upper is None:
        w, v = _factor.eigh(h)
        floor = xp.where(w > nu, w, w * 0 + nu)
        b = (y + nu * omega) @ (v / xp.sqrt(floor)[None, :])
    else:
        b = _factor.right_solve(y + nu * omega, upper)
    u, s, _ = _factor.svd(b)
    w = np.asarray(_xp.to_numpy(s), np.float64) ** 2 - nu
    kept = int(np.count_nonzero(w > 16 * nu))
    # the mean of the rest, from the trace where it is known and else the least that is known
    mu = float(w[kept - 1]) if kept else 1.0
    if a.kind != "operator" and n > kept:
        diagonal = a.a.diagonal() if a.kind == "sparse" else xp.linalg.diagonal(a.a)
        total = float(np.asarray(_xp.to_numpy(diagonal)).real.astype(np.float64).sum()) / scale
        rest = (total - float(w[:kept].sum())) / (n - kept)
        mu = rest if rest > 0 else mu
    return Deflated(a, u[:, :kept], scale * w[:kept], scale * mu)
