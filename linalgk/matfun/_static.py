"""Matrix functions without a look at any value: no member is routed by it, nothing is raised.

For arrays whose values are not known yet (JAX under ``jit`` and ``vmap``) and for devices that must
not be waited for. Members that fail are False in ``good``.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _results, _xp
from linalgk.matfun import _ops
from linalgk.matfun._minimax import newton_table, schedule
from linalgk.matfun._rational import series
from linalgk.matfun._spectral import Call, Scalar, evaluate

# Share of the norm down to which a schedule of fixed steps serves where nothing is known.
LOWER = {"float32": 1e-4, "float64": 1e-8}


def damped(a: Any, damp: Any) -> Any:
    """``A + damp I`` with a number, or one per member."""
    return a + per_member(damp, a) * _ops.eye_like(a)


def accepted(a: Any, x: Any, good: Any) -> tuple[Any, Any]:
    """The result with NaN in the members that are not good, and which are."""
    xp = _xp.namespace(a)
    finite = xp.all(xp.isfinite(xp.abs(x)), axis=(-2, -1))
    finite = finite & xp.all(xp.isfinite(xp.abs(a)), axis=(-2, -1))
    good = finite if good is None else good & finite
    return xp.where(good[:, None, None], x, xp.full_like(x, float("nan"))), good


def per_member(value: Any, like: Any) -> Any:
    """A number, or one per member, as (b, 1, 1) in the dtype of ``like``."""
    xp = _xp.namespace(like)
    if isinstance(value, int | float):
        value = np.asarray(float(value))
    on_host = isinstance(value, np.ndarray) and xp is not np
    value = _xp.from_numpy(value, xp, like=like) if on_host else xp.asarray(value)
    flat = xp.reshape(value, (-1,))
    return xp.astype(flat, like.dtype)[:, None, None]


class Spectral(NamedTuple):
    """A function, the matrix with its damping, which members are good, and the eigenvectors."""

    a: Any
    x: Any
    good: Any
    w: Any
    v: Any


def by_eigenvectors(a: Any, call: Call, rel_damp: Any) -> tuple[Any, Any, Any]:
    found = by_spectrum(a, call, rel_damp)
    return found.a, found.x, found.good


def by_spectrum(a: Any, call: Call, rel_damp: Any) -> Spectral:
    """By eigenvectors; w as computed, with the damping."""
    xp, function = _xp.namespace(a), call.function
    name = _xp.dtype_name(a)
    n, eps = a.shape[-1], float(np.finfo(_xp.REAL[name]).eps)
    largest = xp.max(xp.abs(a), axis=(-2, -1))
    usable = xp.isfinite(largest) & (largest > 0)
    shift = xp.ceil(xp.log2(xp.where(usable, largest, xp.ones_like(largest))) / function.root)
    scale = 2.0 ** (shift * function.root)
    w, v = _ops.EIGH(a / xp.astype(scale, a.dtype)[:, None, None], call.threads)
    top = xp.max(w, axis=-1)
    extra = xp.real(per_member(rel_damp, a))[:, 0, 0] * xp.maximum(top, xp.zeros_like(top))
    w = w + extra[:, None]
    whole = w * scale[:, None]
    a = a + xp.astype(extra * scale, a.dtype)[:, None, None] * _ops.eye_like(a)
    top, lowest = xp.max(xp.abs(w), axis=-1), xp.min(w, axis=-1)
    good = xp.isfinite(top)
    signed = name in _xp.COMPLEX and call.assume_a != "pos" and call.rcond is None
    definite = lowest >= -n * eps * top
    if function.fractional and signed:
        zero = xp.zeros_like(w)
        w = xp.astype(xp.where(definite[:, None], xp.maximum(w, zero), w), a.dtype)
    elif function.fractional:
        good = good & definite
        w = xp.maximum(w, xp.zeros_like(w))
    elif call.assume_a == "pos":
        good = good & definite
    kept = xp.abs(w) > (call.rcond or 0.0) * top[:, None]
    if call.rcond is not None:
        w = xp.where(kept, w, xp.ones_like(w))
    elif function.inverse or function.name != "power":
        noise = n * eps if function.name == "sign" else eps
        good = good & xp.all(xp.abs(w) > noise * top[:, None], axis=-1)
    f = evaluate(function, w)
    if function.name == "power":
        f = f * (scale ** float(function.power))[:, None]
    elif function.name == "log":
        f = f + xp.log(scale)[:, None]
    if call.rcond is not None:
        f = xp.where(kept, f, xp.zeros_like(f))
    x = (v * xp.astype(f, a.dtype)[:, None, :]) @ _ops.adjoint(v)
    x = x if signed and function.fractional else 0.5 * (x + _ops.adjoint(x))
    return Spectral(a, x, good, whole, v)


def by_steps(a: Any, call: Call, method: str, rel_damp: Any) -> tuple[Any, Any, int]:
    """A fixed number of products."""
    xp, function = _xp.namespace(a), call.function
    real = _xp.REAL[_xp.dtype_name(a)]
    size = xp.abs(a)
    top = xp.linalg.eigvalsh(a)[:, -1] if _given(rel_damp) else 0 * size[:, 0, 0]
    extra = xp.real(per_member(rel_damp, a))[:, 0, 0] * top
    a = a + xp.astype(extra, a.dtype)[:, None, None] * _ops.eye_like(a)
    size = xp.abs(a)
    rows = xp.max(xp.sum(size, axis=-1), axis=-1)
    frobenius = xp.sqrt(xp.sum(size**2, axis=(-2, -1)))
    bound = frobenius if method == "taylor" else 1.001 * xp.minimum(rows, frobenius)
    bound = xp.where(bound > 0, bound, xp.ones_like(bound))
    m = a / xp.astype(bound, a.dtype)[:, None, None]
    if function.name == "sign":
        x, steps = _sign(m, call, method, real)
        return a, x, steps
    factors = function.factors
    assert factors is not None
    whole, num, den = factors
    identity = _ops.eye_like(m) + 0 * m
    if method == "taylor":
        steps = call.steps or 10
        x = series(m, float(function.power), steps)
    else:
        table = _table(call, method, real, den, rel_damp)
        steps = len(table)
        coeffs = _xp.from_numpy(np.ascontiguousarray(table)[None], xp, like=a, dtype=a.dtype)
        x = _ops.root_iteration(m, m if whole else identity, coeffs, num, den)
    factor = bound ** float(function.power)
    return a, x * xp.astype(factor, a.dtype)[:, None, None], steps


def _given(value: Any) -> bool:
    return not isinstance(value, int | float) or value != 0


def _table(call: Call, method: str, real: str, root: int, rel_damp: Any) -> Any:
    lower = LOWER[real]
    if isinstance(rel_damp, int | float) and rel_damp > 0:
        lower = max(lower, float(rel_damp) / 10)
    tol = call.tol or 2 * float(np.finfo(real).eps)
    if method == "newton_schulz":
        rows = max(1, math.ceil(-math.log2(lower)) + 1)
        flat = newton_table(real, tol, call.steps, rows, root)[-1]
        return flat[3:].reshape(-1, 3)[: int(flat[0])]
    return schedule(lower ** (1 / root), None if call.steps else tol, call.steps, root=root)


def _sign(m: Any, call: Call, method: str, real: str) -> tuple[Any, int]:
    table = _table(call, method, real, 2, 0)
    x, identity = m, _ops.eye_like(m)
    for a, b, c in table.tolist():
        square = x @ x
        x = x @ (a * identity + b * square + c * (square @ square))
        x = 0.5 * (x + _ops.adjoint(x))
    return x, len(table)


def integer(a: Any, function: Scalar) -> Any:
    xp, rest = _xp.namespace(a), function.power.numerator
    a, rest = (xp.linalg.inv(a), -rest) if rest < 0 else (a, rest)
    return _ops.repeated_squaring(a, rest)


def info(
    a: Any, x: Any, good: Any, function: Scalar, method: str, steps: Any, batch: tuple[int, ...],
    lower: Any = None, projected: bool = False,
) -> _results.Info:  # fmt: skip
    """What `_report.make_info` says, without a look; ``projected``: x is a pseudo-inverse."""
    xp, n = _xp.namespace(a), a.shape[-1]
    unknown = xp.real(x)[:, 0, 0] * float("nan") if n else xp.zeros_like(xp.real(x[:, 0, 0]))
    residual, error = unknown, unknown
    r = function.power

    def power(y: Any, p: int) -> Any:
        product = y if p else _ops.eye_like(y)
        for _ in range(p - 1):
            product = product @ y
        return product

    if function.name == "sign":
        residual = _ops.norms(x @ x - _ops.eye_like(x)) / n**0.5
    elif function.name == "power" and r.denominator <= 64:
        den, num = r.denominator, abs(r.numerator)
        if r < 0:
            # factors on both sides of A, whose scale their product takes away again
            half = den // 2
            product = power(a, num) @ power(x, den - half)
            product = power(x, half) @ product if half else product
            defect = _ops.norms(
                product @ product - product if projected else product - _ops.eye_like(x)
            )
            residual, error = defect / n**0.5, defect / den
        else:
            wanted = power(a, num)
            defect, size = _ops.norms(power(x, den) - wanted), _ops.norms(wanted)
            residual = xp.where(size > 0, defect / size, defect)
            if lower is not None:
                # see _report._defects
                low = xp.astype(lower, defect.dtype) ** (float(r) * (den - 1))
                first, own = defect / (den * low), _ops.norms(x)
                second = (n ** ((den - 1) / 2) * defect) ** (1 / den)
                least = xp.where(first < second, first, second) if num == 1 else first
                error = xp.where(own > 0, least / own, xp.zeros_like(own))
    counts = xp.zeros_like(good, dtype=_xp.dtype_of(xp, "int64")) + steps
    fields = {
        "iterations": xp.where(good, counts, xp.zeros_like(counts)), "converged": good,
        "residual": residual, "error_estimate": error,
    }  # fmt: skip
    return _results.Info(method, **{k: xp.reshape(v, batch) for k, v in fields.items()})
