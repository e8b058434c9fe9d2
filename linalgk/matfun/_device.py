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
    peak, so that 30 to 40 of them cost less than an eigendecomposition, which does not.
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
        yield functools.partial(_by_products, flat, call, method, structure)
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


def hardest(table: Any, whole: int, eps: float) -> Any:
    """The row of the largest condition that rounding leaves to an iteration."""
    limit = MINIMAX_LIMIT["sqrt" if whole else "inverse"]
    return table[min(len(table) - 1, limit, int(-math.log2(10 * eps)))]


def _by_products(flat: Any, call: Call, method: str, structure: Structure) -> tuple[Found, Any]:
    """The iteration with the schedule of the hardest members it serves, and what M came to."""
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
    row = hardest(steps_table(real, call.function, method, call.tol, call.steps), whole, eps)
    steps = int(row[0])
    coeffs = np.tile(row[3 : 3 + 3 * steps].reshape(1, steps, 3), (flat.shape[0], 1, 1))
    coeffs = _xp.from_numpy(coeffs, xp, like=flat, dtype=real)
    start = m if whole else _ops.eye_like(m) + xp.zeros_like(m)
    x, last = _ops.iterate(m, start, coeffs, num, den, call.threads, last=True)
    if call.steps is None:
        # an eigenvalue below the schedule's leaves M away from I; rounding alone does not
        gap = xp.abs(last - _ops.eye_like(last))
        defect = xp.sqrt(xp.sum(gap**2, axis=(-2, -1)))
        good = good & (defect <= 10 * (n * eps + den * n**0.5 * (call.tol or 0.0)))
    factor = xp.sqrt(bound) if den == 2 * num else bound ** (num / den)
    factor = bound / factor if whole else 1 / factor
    x = x * xp.astype(factor, x.dtype)[:, None, None]
    x = _ops.scaled(x, (den * whole - num) * exponent)
    return _done(Found(a, x, good, steps, method), good)


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
