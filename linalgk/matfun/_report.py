"""What is said about roots: residuals and error estimates, failures and their sentences."""

import math
import warnings
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._results import Info
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    MemberError,
    NonFiniteError,
    NoRealRootError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.matfun import _ops
from linalgk.matfun._spectral import (
    ASYMMETRIC,
    FAILED,
    INDEFINITE,
    NO_ROOT,
    NONFINITE,
    OK,
    SINGULAR,
    Call,
    Result,
    Scalar,
    frobenius,
    take,
    usable,
)


def make_info(
    flat: Any, found: Result, call: Call, batch: tuple[int, ...], face: _xp.Face, like: Any
) -> Info:
    """Residual and error estimate from a few more products."""
    xp = _xp.namespace(flat)
    count, n = flat.shape[0], flat.shape[-1]
    good = found.status == OK
    real = _xp.REAL[_xp.dtype_name(flat)]
    residual, error = np.zeros(count), np.zeros(count)
    if count and n:
        with np.errstate(all="ignore"):
            a = flat
            if call.rel_damp is not None and call.rel_damp.any():
                top = np.maximum(np.asarray(_xp.to_numpy(_top(flat, good))), 0)
                shift = _xp.from_numpy(call.rel_damp * top, xp, like=flat, dtype=flat.dtype)
                a = flat + shift[:, None, None] * _ops.eye_like(flat)
            residual, error = _defects(a, found, call)
            error = np.where(np.isnan(found.lower), np.nan, error)
    fields = {
        "iterations": np.where(good, found.iterations, 0).astype(np.int64),
        "converged": good,
        "residual": np.where(good, residual, np.nan).astype(real),
        "error_estimate": np.where(good, error, np.nan).astype(real),
    }
    given = {
        key: face.leave(_xp.from_numpy(value.reshape(batch), xp, like=flat), like)
        for key, value in fields.items()
    }
    return Info(method=found.method, **given)


def _defects(a: Any, found: Result, call: Call) -> tuple[Any, Any]:
    """The residual that the docstring of the function defines, and what it says of the error."""
    x, n, r = found.x, a.shape[-1], call.function.power
    unknown = np.full(a.shape[0], np.nan)
    if call.function.name == "sign":
        return frobenius(x @ x - _ops.eye_like(a)) / math.sqrt(n), unknown
    size, norm = frobenius(a), frobenius(x)
    if call.function.name == "log":
        defect = frobenius(_exp(x) - a)
        return defect / size, np.where(norm > 0, defect / found.lower / norm, 0.0)
    if r.denominator > 64:
        return unknown, unknown
    den, num = r.denominator, abs(r.numerator)
    if r < 0:
        half = den // 2
        product = _times(_times(_times(None, x, half), a, num), x, den - half)
        if call.rcond is not None:
            defect = frobenius(product @ product - product)
        else:
            defect = frobenius(product - _ops.eye_like(a))
        return defect / math.sqrt(n), defect / den
    power, wanted = _times(None, x, den), _times(None, a, num)
    if wanted is None:
        wanted = _ops.eye_like(a)
    defect, size = frobenius(power - wanted), frobenius(wanted)
    residual = np.where(size > 0, defect / size, defect)
    # ||X - Y|| <= ||X^p - Y^p|| / (p lambda_min^((p-1)/p)), and for roots <= its p-th root
    first = defect / (den * found.lower ** (float(r) * (den - 1)))
    second = (n ** ((den - 1) / 2) * defect) ** (1 / den) if num == 1 else first
    return residual, np.where(norm > 0, np.fmin(first, second) / norm, 0.0)


def _times(product: Any, factor: Any, count: int) -> Any:
    for _ in range(count):
        product = factor if product is None else product @ factor
    return product


def _exp(x: Any) -> Any:
    """Exponential by scaling and squaring of the Taylor series."""
    xp = _xp.namespace(x)
    top = float(frobenius(x).max(initial=0.0))
    squarings = max(0, math.frexp(top)[1] + 1) if math.isfinite(top) else 0
    identity, scaled = _ops.eye_like(x), x / 2.0**squarings
    total = identity + xp.zeros_like(x)
    for k in range(16, 0, -1):
        total = identity + scaled @ total / k
    for _ in range(squarings):
        total = total @ total
    return total


def _top(flat: Any, good: Any) -> Any:
    xp = _xp.namespace(flat)
    return xp.linalg.eigvalsh(usable(flat, np.where(good, OK, FAILED)))[:, -1]


def finish(
    name: str, function: Scalar, flat: Any, found: Result, result: Any, info: Any,
    batch: tuple[int, ...], check: bool, policy: str,
) -> Any:  # fmt: skip
    """Report failures as asked and return."""
    complete = result if info is None else (result, info)
    status = found.status
    if (status == OK).all():
        return complete
    kinds = [int(k) for k in np.unique(status) if k != OK and (check or k != NONFINITE)]
    if not kinds or policy == "nan":
        return complete
    # NONFINITE sorts first: bad data explain the other failures
    errors = [_error(name, function, k, flat, found, batch, complete) for k in kinds]
    if policy == "raise":
        raise errors[0]
    warnings.warn("; ".join(map(str, errors)), ConvergenceWarning, stacklevel=5)
    return complete


def _error(
    name: str, function: Scalar, kind: int, flat: Any, found: Result, batch: tuple[int, ...],
    result: Any,
) -> MemberError:  # fmt: skip
    where = np.flatnonzero(found.status == kind)
    index = tuple(tuple(int(i) for i in np.unravel_index(k, batch)) if batch else () for k in where)
    bad = np.flatnonzero(found.status != OK)
    every = tuple(tuple(int(i) for i in np.unravel_index(k, batch)) if batch else () for k in bad)
    which = f" (batch members {', '.join(map(str, index[:8]))}{', …' if len(index) > 8 else ''})"
    which = which if batch else ""
    noun = {"log": "logarithm", "sign": "sign"}.get(function.name, "root")
    if function.name == "power" and abs(function.power.numerator) != 1:
        noun = "power"
    member = np.asarray(_xp.to_numpy(take(flat, where[:1])))[0]
    if kind == NONFINITE:
        msg = f"{name}: a holds NaN or infinity{which}; remove them, or pass on_fail='nan'"
        return NonFiniteError(msg, every, result)
    if kind == ASYMMETRIC:
        defect = np.linalg.norm(member - member.conj().T) / np.linalg.norm(member)
        msg = (
            f"{name}: a is not Hermitian: ||A - A^H|| = {defect:.1e} ||A||{which}; symmetrise it "
            "first, or leave out assume_a, rel_damp and rcond"
        )
        return AsymmetricError(msg, every, result)
    if kind == INDEFINITE:
        low = np.linalg.eigvalsh(member)[0]
        exists = "positive semidefinite root" if noun == "root" else f"real {noun}"
        msg = (
            f"{name}: a has the negative eigenvalue {low:.6g}{which}, so that no {exists} exists; "
            f"pass a + 0j for the complex {noun}{', or add damping' if noun == 'root' else ''}"
        )
        return NotPositiveSemidefiniteError(msg, every, result)
    if kind == SINGULAR and function.name == "sign":
        msg = (
            f"{name}: a has an eigenvalue that is zero to working precision{which}: it has no sign"
        )
        return SingularMatrixError(msg, every, result)
    if kind == SINGULAR:
        ways = "give damp=, rel_damp= or rcond=, or a wider compute_dtype"
        ways = f"it has no {noun}" if function.name == "log" else ways
        msg = f"{name}: a is singular to working precision{which}; {ways}"
        return SingularMatrixError(msg, every, result)
    if kind == NO_ROOT:
        msg = f"{name}: a has a negative real eigenvalue and no real {noun}{which}; pass a + 0j"
        return NoRealRootError(msg, every, result)
    reason = "a may have none"
    if function.name == "sign":
        reason = "an eigenvalue lies on or too near the imaginary axis, where the sign jumps"
    msg = f"{name}: no {noun} was found to working precision{which}; {reason}"
    return NotConvergedError(msg, every, result)
