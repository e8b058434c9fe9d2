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
from linalgk.matfun._root_paths import (
    ASYMMETRIC,
    FAILED,
    INDEFINITE,
    NO_ROOT,
    NONFINITE,
    OK,
    SINGULAR,
    Call,
    Roots,
    frobenius,
    take,
    usable,
)


def make_info(
    flat: Any, found: Roots, call: Call, batch: tuple[int, ...], face: _xp.Face, like: Any
) -> Info:
    """Residual and error estimate from one more product."""
    xp = _xp.namespace(flat)
    x, count, n = found.x, flat.shape[0], flat.shape[-1]
    good = found.status == OK
    real = _xp.REAL[_xp.dtype_name(flat)]
    residual = np.zeros(count)
    error = np.zeros(count)
    if count and n:
        with np.errstate(all="ignore"):
            a = flat
            if call.rel_damp is not None and call.rel_damp.any():
                top = np.maximum(np.asarray(_xp.to_numpy(_top(flat, good))), 0)
                shift = _xp.from_numpy(call.rel_damp * top, xp, like=flat, dtype=flat.dtype)
                a = flat + shift[:, None, None] * _ops.eye_like(flat)
            if call.inverse:
                product = x @ a @ x
                if call.rcond is not None:
                    defect = frobenius(product @ product - product)
                else:
                    defect = frobenius(product - _ops.eye_like(flat))
                residual, error = defect / math.sqrt(n), defect / 2
            else:
                size, root, defect = frobenius(a), frobenius(x), frobenius(x @ x - a)
                residual = np.where(size > 0, defect / size, defect)
                # ||X - Y|| <= ||X^2 - Y^2|| / (2 sqrt(lambda_min)), and <= its square root
                first = defect / (2 * np.sqrt(found.lower))
                second = np.sqrt(math.sqrt(n) * defect)
                error = np.where(root > 0, np.fmin(first, second) / root, 0.0)
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


def _top(flat: Any, good: Any) -> Any:
    xp = _xp.namespace(flat)
    return xp.linalg.eigvalsh(usable(flat, np.where(good, OK, FAILED)))[:, -1]


def finish(
    name: str, flat: Any, found: Roots, result: Any, info: Any,
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
    errors = [_error(name, k, flat, found, batch, complete) for k in kinds]
    if policy == "raise":
        raise errors[0]
    warnings.warn("; ".join(map(str, errors)), ConvergenceWarning, stacklevel=4)
    return complete


def _error(
    name: str, kind: int, flat: Any, found: Roots, batch: tuple[int, ...], result: Any
) -> MemberError:
    where = np.flatnonzero(found.status == kind)
    index = tuple(tuple(int(i) for i in np.unravel_index(k, batch)) if batch else () for k in where)
    bad = np.flatnonzero(found.status != OK)
    every = tuple(tuple(int(i) for i in np.unravel_index(k, batch)) if batch else () for k in bad)
    which = f" (batch members {', '.join(map(str, index[:8]))}{', …' if len(index) > 8 else ''})"
    which = which if batch else ""
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
        msg = (
            f"{name}: a has the negative eigenvalue {low:.6g}{which}, so that no positive "
            "semidefinite root exists; pass a + 0j for the complex root, or add damping"
        )
        return NotPositiveSemidefiniteError(msg, every, result)
    if kind == SINGULAR:
        msg = (
            f"{name}: a is singular to working precision{which}; give damp=, rel_damp= or rcond=, "
            "or a wider compute_dtype"
        )
        return SingularMatrixError(msg, every, result)
    if kind == NO_ROOT:
        msg = f"{name}: a has a negative real eigenvalue and no real root{which}; pass a + 0j"
        return NoRealRootError(msg, every, result)
    msg = f"{name}: no root was found to working precision{which}; a may have none"
    return NotConvergedError(msg, every, result)
