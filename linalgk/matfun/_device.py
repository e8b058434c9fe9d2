"""Matrix functions of CuPy arrays: one pass that never looks, then one word that says if it served.

The host waits for nothing while the device works. Under ``on_fail="nan"`` with ``assume_a`` given
it does not wait at all; otherwise it reads one word at the end. Where that says that some member
needs another way, the next way is taken: products, eigenvectors, and last the general machinery of
`_paths`, which looks at every member and finds the right words.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from linalgk import _lag, _xp
from linalgk.matfun import _general, _ops, _static
from linalgk.matfun._minimax import schedule
from linalgk.matfun._paths import MINIMAX_LIMIT, asymmetry, steps_table
from linalgk.matfun._spectral import OK, Call, Scalar

# The Hermitian part, which members are Hermitian and finite, and their largest entries.
Structure = Callable[[], tuple[Any, Any, Any]]


class Found(NamedTuple):
    """Functions of a flat batch, every array on the device."""

    a: Any  # the matrices that the function is of, damping included
    x: Any
    good: Any  # (b,) bool
    steps: Any  # int, or one per member
    method: str
    lower: Any = None  # smallest eigenvalue or a bound of it, where known
    report: Any = None  # of the fused kernel, which holds what the three above say

    def described(self) -> "Found":
        """With ``good``, ``steps`` and ``lower`` taken from the report."""
        if self.report is None:
            return self
        xp, report = _xp.namespace(self.x), self.report
        steps = xp.astype(report[:, 1], xp.int64)
        return self._replace(good=report[:, 0] == OK, steps=steps, lower=report[:, 2])


def choose_method(
    function: Scalar, *, fits: bool, spectrum: bool, looks: bool
) -> tuple[str, str]:  # fmt: skip
    """Method for Hermitian matrices on a device, and why; ``looks``: whether the host may look.

    Cost model: a fused launch reads and writes each matrix once; products run at the device's
    peak, so that 22 to 40 of them, by condition (see `schedules`), cost less than an
    eigendecomposition, which does not.
    """
    if spectrum:
        return "eigh", "rel_damp and rcond need the spectrum"
    if function.name == "power" and function.power in range(9):
        return "products", "a small integer power"
    if function.factors is None:
        return "eigh", "Hermitian, and no iteration of products has this function"
    if fits:
        return "minimax", "Hermitian, and a block's shared memory holds four such matrices"
    if looks:
        return "minimax", "Hermitian: products run at the device's peak, eigenvectors do not"
    return "eigh", "on_fail='nan' looks at no member, and eigenvectors serve every one"


def is_blind(call: Call, policy: str) -> bool:
    """Whether nothing is read from the device."""
    return policy == "nan" and call.assume_a is not None


def compute(flat: Any, call: Call, policy: str) -> Found | None:
    """Functions of Hermitian members; None where the host has to look at the members."""
    blind = is_blind(call, policy)
    for way in _ways(flat, call, blind):
        found, word = way()
        if blind or not np.any(_xp.to_numpy(word)):
            return found
    return None


def _ways(flat: Any, call: Call, blind: bool) -> Iterator[Callable[[], tuple[Found, Any]]]:
    """The ways to the result, cheapest first; each gives a word that is not zero if it failed."""
    function, asked = call.function, call.method
    spectrum = call.rel_damp is not None
    if call.assume_a == "gen" or asked in _general.METHODS or (_is_sign(call) and asked == "pade"):
        yield functools.partial(_by_general, flat, call)
        return
    fits = kernel(flat, call) is not None
    structure = functools.cache(functools.partial(_structure, flat, call))
    if asked in ("pade", "taylor") or (asked in ("minimax", "newton_schulz") and _is_sign(call)):
        return
    if call.assume_a is None and not fits:
        hermitian = _xp.namespace(flat).all(structure()[1])
        if not np.all(_xp.to_numpy(hermitian)):
            return
    method = asked
    if asked == "auto":
        method, _ = choose_method(function, fits=fits, spectrum=spectrum, looks=not blind)
    if method == "products":
        yield functools.partial(_by_squaring, call, structure)
        return
    if method in ("minimax", "newton_schulz") and function.factors is not None:
        if fits:
            yield functools.partial(_fused, flat, call, method)
            return
        yield functools.partial(_by_products, flat, call, method, structure, blind)
    if asked in ("auto", "eigh"):
        yield functools.partial(_by_eigenvectors, call, structure)


def kernel(flat: Any, call: Call) -> Any:
    """The fused kernel's implementation, if it takes such members."""
    if call.function.factors is None or call.rel_damp is not None or not flat.size:
        return None
    return _ops.SMALL_ROOT.choose(flat)[0]


def _fused(flat: Any, call: Call, method: str) -> tuple[Found, Any]:
    """Everything in one launch; members beyond the schedule by Jacobi rotations."""
    factors = call.function.factors
    name = _xp.dtype_name(flat)
    table = steps_table(name, call.function, method, call.tol, call.steps)
    tol = asymmetry(call, flat.shape[-1], float(np.finfo(name).eps))
    run = kernel(flat, call).load("every_root")
    x, report, bad = run(flat, *(factors or ()), table, tol, call.threads)
    return Found(flat, x, None, None, method, report=report), bad


def _structure(flat: Any, call: Call) -> tuple[Any, Any, Any]:
    """The Hermitian part, which members are Hermitian and finite, and their largest entries."""
    xp = _xp.namespace(flat)
    largest, defect, _ = _ops.HERMITIAN_SCAN(flat, call.threads)
    eps = float(xp.finfo(largest.dtype).eps)
    good = xp.isfinite(largest) & (defect <= asymmetry(call, flat.shape[-1], eps) * largest)
    a = xp.where(good[:, None, None], flat, _ops.eye_like(flat))
    return _ops.SYMMETRISED(a, call.threads), good, xp.where(good, largest, largest * 0 + 1)


def _done(found: Found, good: Any) -> tuple[Found, Any]:
    xp = _xp.namespace(found.x)
    x, good = _static.accepted(found.a, found.x, good)
    return found._replace(x=x, good=good), ~xp.all(good)


def _is_sign(call: Call) -> bool:
    return call.function.name == "sign"


def _by_general(flat: Any, call: Call) -> tuple[Found, Any]:
    """Without symmetry, by products and inverses."""
    xp, found = _xp.namespace(flat), _general.compute(flat, call)
    good = found.status == OK
    return Found(flat, found.x, good, found.iterations, found.method), ~xp.all(good)


def _by_squaring(call: Call, structure: Structure) -> tuple[Found, Any]:
    a, good, _ = structure()
    x = _ops.SYMMETRISED(_ops.repeated_squaring(a, call.function.power.numerator), call.threads)
    return _done(Found(a, x, good, 0, "products"), good)


def _by_eigenvectors(call: Call, structure: Structure) -> tuple[Found, Any]:
    a, hermitian, _ = structure()
    damp = 0 if call.rel_damp is None else call.rel_damp
    a, x, good = _static.by_eigenvectors(a, call, damp)
    return _done(Found(a, x, good, 0, "eigh"), good & hermitian)


# Steps that every member takes before it is known which ones it needs.
GROWTH = 2


class Schedule(NamedTuple):
    """Steps that every member takes, a look at what M became, and the rest by what was seen."""

    growth: Any  # (g, 3)
    centre: float  # of the eigenvalues of M then, if a member is easy
    steps: Any  # (rows,) of the rest
    rest: Any  # (rows, steps, 3): row r for eigenvalues in [2^-r, 1], the last for all


@functools.lru_cache(maxsize=64)
def schedules(real: str, function: Scalar, method: str, tol: Any, steps: Any, n: int) -> Schedule:
    """The steps of members of order n, as far as they are known before M is.

    Cost model, in products of order n (a step has ``2 + num + log2 den``, 4 for square roots): the
    schedule of the largest condition served has 6 to 9 steps, that of a condition of 2^8 has 4 or
    5. An inverse or a Cholesky factor would tell the condition, but is a chain of n dependent steps
    that leaves a device idle: at these orders, in a batch or one by one, it is expected to cost
    more than the 4 to 16 products that it saves.

    What M becomes tells it for two products, if the first steps let it. Those of the hardest
    schedule do not: they spread the eigenvalues of an easy member all over (0, 1], which also costs
    it digits. The best step for [2^-r, 1] with r about 4 keeps those together, and lifts small ones
    by 2^3.5 (square roots) where the hardest schedule lifts them by 2^4.2: after two, the hardest
    members need at most one step more. Then ``G = centre I - M`` has ``||G^4||_F^(1/4)`` between
    ``||G||`` and ``n^(1/8) ||G||``, and ``centre`` less that is a lower bound of the eigenvalues.
    """
    assert function.factors is not None
    whole, _, den = function.factors
    table = steps_table(real, function, method, tol, steps)
    rows = [row[3 : 3 + 3 * int(row[0])].reshape(-1, 3) for row in table]
    limit = MINIMAX_LIMIT["sqrt" if whole else "inverse"]
    # the largest condition that rounding leaves to an iteration
    hardest = min(len(rows) - 1, limit, int(-math.log2(10 * float(np.finfo(real).eps))))
    if steps is not None or GROWTH + len(rows[3]) >= len(rows[hardest]):
        return Schedule(rows[0][:0], 1.0, np.array([len(rows[hardest])]), rows[hardest][None])
    # an easy member's ||G|| n^(1/8) / centre, so that its bound is not below centre / 4
    spread = 0.75 / n**0.125
    edge = ((1 - spread) / (1 + spread)) ** (1 / den)
    step = _growth(edge, den) if method == "minimax" else rows[0][:1]
    lower = 2.0 ** (-hardest / den)
    for _ in range(GROWTH):
        lower = min(_image(step, lower, den), edge)
    reach = math.ceil(-den * math.log2(lower))
    last = rows[reach]
    if method == "minimax":
        last = schedule(lower, max(float(table[0, 1]) / 2, tol or 0.0), root=den)
    served = [*rows[:reach], last]
    lengths = np.array([len(row) for row in served])
    rest = np.tile([1.0, 0.0, 0.0], (len(served), max(lengths), 1))
    for row, some in zip(rest, served, strict=True):
        row[: len(some)] = some
    return Schedule(np.tile(step, (GROWTH, 1)), 1 / (1 + spread), lengths, rest)


def _image(step: Any, x: float, root: int) -> float:
    a, b, c = step[0].tolist()
    return float(x * (a + x**root * (b + x**root * c)))


def _growth(edge: float, root: int) -> Any:
    """The step that maps the widest interval [2^(-r/root), 1] into [edge, 1]."""
    found = None
    for eighths in range(1, 64):
        lower = 2.0 ** (-eighths / 8 / root)
        step = schedule(lower, steps=1, root=root)
        # the images lie as far below 1 as above
        least = _image(step, lower, root)
        if found is not None and least < edge * (2 - least):
            break
        found = step / (2 - least)
    return found


def _by_products(
    flat: Any, call: Call, method: str, structure: Structure, blind: bool
) -> tuple[Found, Any]:
    """The iteration with as many steps as each member needs, and what M came to."""
    assert call.function.factors is not None
    whole, num, den = call.function.factors
    xp, n = _xp.namespace(flat), flat.shape[-1]
    real = _xp.REAL[_xp.dtype_name(flat)]
    eps = float(np.finfo(real).eps)
    a, good, largest = structure()
    good = good & (largest > 0)
    largest = xp.where(good, largest, largest * 0 + 1)
    exponent = xp.ceil(xp.log2(largest) / den)
    h = _ops.scaled(a, -den * exponent)
    size = xp.abs(h)
    rows = xp.max(xp.sum(size, axis=-1), axis=-1)
    bound = xp.minimum(rows, xp.sqrt(xp.sum(size**2, axis=(-2, -1))))
    bound = xp.where(good, bound * (1 + 2.0**-9), bound * 0 + 1)
    m = h / xp.astype(bound, h.dtype)[:, None, None]
    plan = schedules(real, call.function, method, call.tol, call.steps, n)
    x = m if whole else _ops.eye_like(m) + xp.zeros_like(m)
    x, m, steps = _iterated(m, x, plan, num, den, call.threads, blind)
    if call.steps is None:
        # an eigenvalue below the schedule's leaves M away from I; rounding alone does not
        gap = xp.abs(m - _ops.eye_like(m))
        defect = xp.sqrt(xp.sum(gap**2, axis=(-2, -1)))
        good = good & (defect <= 10 * (n * eps + den * n**0.5 * (call.tol or 0.0)))
    factor = xp.sqrt(bound) if den == 2 * num else bound ** (num / den)
    factor = bound / factor if whole else 1 / factor
    x = x * xp.astype(factor, x.dtype)[:, None, None]
    x = _ops.scaled(x, (den * whole - num) * exponent)
    return _done(Found(a, x, good, steps, method), good)


def _iterated(
    m: Any, x: Any, plan: Schedule, num: int, den: int, threads: int, blind: bool
) -> tuple[Any, Any, Any]:
    """X, M and the number of steps of each member, whatever batch it travels in."""
    xp, hardest = _xp.namespace(m), len(plan.steps) - 1

    def constant(values: Any, dtype: str) -> Any:
        return _xp.from_numpy(np.ascontiguousarray(values), xp, like=m, dtype=dtype)

    def queued(m: Any, x: Any, coeffs: Any, rows: Any) -> tuple[Any, Any]:
        own = xp.take(constant(coeffs, _xp.REAL[_xp.dtype_name(m)]), rows, axis=0)
        return _ops.iterate(m, x, own, num, den, threads, last=True)

    zero = xp.zeros_like(xp.real(m[:, 0, 0]))
    first = xp.astype(zero, _xp.dtype_of(xp, "int64"))
    if not hardest:
        x, m = queued(m, x, plan.rest, first)
        return x, m, first + int(plan.steps[0])
    x, m = queued(m, x, plan.growth[None], first)
    gap = plan.centre * _ops.eye_like(m) - m
    square = gap @ gap
    # the margin is more than rounding; what is not known, or not finite, takes the last row
    low = plan.centre - (1 + 2.0**-9) * _ops.norms(square @ square) ** 0.25
    low = xp.where(low > 2.0**-hardest, low, zero + 2.0**-hardest)
    rows = xp.astype(xp.ceil(-xp.log2(low)), first.dtype)
    steps = xp.take(constant(plan.steps, "int64"), rows, axis=0)
    # a member that is done is multiplied by I, which changes no bit, until the slowest is done; how
    # far that is, the host learns when the steps that all of them need are queued
    fewest, most = int(plan.steps.min()), int(plan.steps.max())
    slowest = None if blind else _lag.ahead(xp.max(steps))
    x, m = queued(m, x, plan.rest[:, :fewest], rows)
    most = most if slowest is None else int(slowest().item())
    if most > fewest:
        x, m = queued(m, x, plan.rest[:, fewest:most], rows)
    return x, m, steps + len(plan.growth)


class DevicePlan:
    """Decisions made; a run queues work and, unless ``on_fail="nan"``, reads one word."""

    workspace_nbytes = 0

    def __init__(self, call: Call, policy: str, damp: Any, otherwise: Callable[..., Any]) -> None:
        self._call, self._policy, self._damp = call, policy, damp
        self._otherwise = otherwise
        self.status: Any = None

    def run(self, arrays: tuple[Any, ...], out: Any) -> Any:
        with _lag.scope(arrays[0]):
            return self._run(arrays[0], out)

    def _run(self, a: Any, out: Any) -> Any:
        xp = _xp.namespace(a)
        flat = _lag.contiguous(xp.reshape(a, (-1, *a.shape[-2:])))
        flat = _static.damped(flat, self._damp) if np.any(self._damp) else flat
        found = compute(flat, self._call, self._policy)
        if found is None:
            result, good = self._otherwise(a, out)
        else:
            good = xp.reshape(found.described().good, a.shape[:-2])
            result = xp.reshape(found.x, a.shape)
            if out is not None:
                out[...] = result
                result = out
        self.status = xp.astype(~good, xp.int64)
        return result
