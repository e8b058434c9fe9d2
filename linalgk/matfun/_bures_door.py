"""What the Bures-Wasserstein functions check at the door and say at the end."""

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._lag import contiguous
from linalgk._results import Info
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    MemberError,
    NonFiniteError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.matfun import _traced
from linalgk.matfun._spectral import (
    ASYMMETRIC,
    INDEFINITE,
    NONFINITE,
    OK,
    SINGULAR,
    frobenius,
)

_OPTIONAL = ("mean_a", "mean_b", "metric", "start")


class Fault(NamedTuple):
    """Bad members of one argument, told over the batch of the result."""

    name: str
    status: Any
    detail: Any
    where: Any = ""


def real_power(power: Any) -> float:
    t = _validate.real_between("power", power, -8.0, 8.0)
    if abs(t) < 2.0**-10:
        msg = (
            f"power: must not be 0 or nearly so, got {power!r}; distances of logarithms are others"
        )
        raise ValueError(msg)
    return t


def asymmetry(assume_a: Any) -> Callable[[int, float], float]:
    """Relative asymmetry that is rounding, or carelessness, from the order and eps."""
    if assume_a is None:
        return lambda n, eps: n * eps
    _validate.choice("assume_a", assume_a, ("pos",))
    return lambda _, eps: math.sqrt(eps)


def listed(covs: Any) -> dict[str, Any]:
    """The arrays of the argument by the name that a sentence gives them."""
    if isinstance(covs, list | tuple) and any(_xp.face(c) is not None for c in covs):
        return {f"covs[{i}]": c for i, c in enumerate(covs)}
    return {"covs": covs}


def stack(arrays: list[Any]) -> Any:
    if len(arrays) > 1 or arrays[0].ndim == 2:
        for i, x in enumerate(arrays):
            _validate.square(f"covs[{i}]" if len(arrays) > 1 else "covs", x)
        if len(arrays) == 1:
            msg = f"covs: must have shape (..., k, n, n) or be a list, got {arrays[0].shape}"
            raise ValueError(msg)
        if len({x.shape[-1] for x in arrays}) > 1:
            orders = ", ".join(str(x.shape[-1]) for x in arrays)
            msg = f"covs: all matrices must have the same order, got {orders}"
            raise ValueError(msg)
        shape = broadcast([x.shape[:-2] for x in arrays], "covs")
        xp = _xp.namespace(arrays[0])
        shape = (*shape, *arrays[0].shape[-2:])
        return xp.stack([xp.broadcast_to(x, shape) for x in arrays], axis=-3)
    _validate.square("covs", arrays[0])
    if arrays[0].shape[-3] == 0:
        msg = f"covs: needs at least one matrix, got shape {tuple(arrays[0].shape)}"
        raise ValueError(msg)
    return arrays[0]


def enter(function: str, given: dict[str, Any]) -> tuple[dict[str, Any], _xp.Face, Any]:
    """All arrays in one library and dtype, the face of the first, and the namespace."""
    given = {k: x for k, x in given.items() if x is not None or k not in _OPTIONAL}
    arrays = {name: _xp.as_array(name, x) for name, x in given.items()}
    face = _xp.face(next(iter(arrays.values())))
    assert face is not None
    _xp.same_family(**arrays)
    if face.family == "jax":
        _traced.prepare()
        for name, x in arrays.items():
            if isinstance(x, sys.modules["jax"].core.Tracer):
                msg = f"{name}: {function} looks at values and cannot be traced; call it outside"
                raise TypeError(msg)
    entered = {k: _validate.floating(k, face.enter(x)) for k, x in arrays.items()}
    xp = _xp.namespace(next(iter(entered.values())))
    dtype = xp.result_type(*entered.values())
    return {k: xp.astype(x, dtype, copy=False) for k, x in entered.items()}, face, xp


def same_order(x: dict[str, Any], *names: str) -> int:
    """The common order of square arrays; a metric is one matrix."""
    orders = {name: _validate.square(name, x[name]) for name in names if name in x}
    if len(set(orders.values())) > 1:
        got = ", ".join(f"{name} has n = {n}" for name, n in orders.items())
        msg = f"{' and '.join(orders)}: must have the same order, got: {got}"
        raise ValueError(msg)
    if "metric" in orders and x["metric"].ndim > 2:
        msg = f"metric: must be one matrix, shape (n, n), got {tuple(x['metric'].shape)}"
        raise ValueError(msg)
    return orders[names[0]]


def broadcast(shapes: list[Any], names: str) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        got = ", ".join(str(tuple(s)) for s in shapes)
        msg = f"{names}: leading dimensions must broadcast, got {got}"
        raise ValueError(msg) from None


def flattened(x: Any) -> Any:
    shape = tuple(x.shape)
    return contiguous(_xp.namespace(x).reshape(x, (math.prod(shape[:-2]), *shape[-2:])))


def shares(weights: Any, batch: tuple[int, ...], k: int) -> Any:
    """Weights with sum 1, NumPy (b, k)."""
    if weights is None:
        return np.full((math.prod(batch), k), 1 / k)
    x = np.asarray(_xp.to_numpy(_xp.as_array("weights", weights)))
    if x.dtype.kind not in "biuf":
        msg = f"weights: must be real numbers, got dtype {x.dtype}"
        raise TypeError(msg)
    w = x.astype(np.float64)
    if w.ndim == 0 or w.shape[-1] != k or w.shape[:-1] not in ((), batch):
        msg = f"weights: must have shape ({k},) or {(*batch, k)}, got {w.shape}"
        raise ValueError(msg)
    if not (np.isfinite(w) & (w >= 0)).all():
        msg = f"weights: must be finite and not negative, got {w[~(np.isfinite(w) & (w >= 0))][0]}"
        raise ValueError(msg)
    if w.size and not (w.sum(axis=-1) > 0).all():
        msg = "weights: must have a positive sum, got only zeros; leave them out for equal weights"
        raise ValueError(msg)
    w = w / w.max(axis=-1, keepdims=True, initial=0)  # so that the sum stays in range
    w = w / w.sum(axis=-1, keepdims=True)
    return np.broadcast_to(w, (*batch, k)).reshape(-1, k)


def lengths(x: Any) -> Any:
    return frobenius(x) if math.prod(x.shape) else np.zeros(x.shape[0])


def describe(
    method: str, good: Any, steps: Any, residual: Any, batch: tuple[int, ...], face: _xp.Face,
    xp: Any, x: Any, like: Any,
) -> Info:  # fmt: skip
    real = _xp.REAL[_xp.dtype_name(x)]
    nan = np.full(len(good), np.nan)
    fields = (
        np.broadcast_to(steps, good.shape).astype(np.int64), good,
        np.broadcast_to(residual, good.shape).astype(real), nan.astype(real),
    )  # fmt: skip
    arrays = (_xp.from_numpy(v.reshape(batch), xp, like=x) for v in fields)
    return Info(method, *(face.leave(v, like) for v in arrays))


def worst_of(status: Any, detail: Any) -> Fault:
    """One verdict on the k matrices of each member: the first kind in the order of the codes."""
    codes = np.where(status == OK, 99, status)
    worst = codes.argmin(axis=1)
    rows = np.arange(len(status))
    return Fault("covs", status[rows, worst], detail[rows, worst], worst)


def finished(
    name: str, faults: list[Fault], batch: tuple[int, ...], complete: Any, check: bool, policy: str
) -> Any:
    """Report failures as asked and return."""
    bad = np.any([fault.status != OK for fault in faults], axis=0)
    if not bad.any() or policy == "nan":
        return complete
    every = _index(np.flatnonzero(bad), batch)
    found = sorted(
        (int(kind), k)
        for k, fault in enumerate(faults)
        for kind in np.unique(fault.status)
        if kind != OK and (check or kind != NONFINITE)
    )
    # NONFINITE sorts first: bad data explain the other failures
    errors = [sentence(name, faults[k], kind, batch, every, complete) for kind, k in found]
    if not errors:
        return complete
    if policy == "raise":
        raise errors[0]
    warnings.warn("; ".join(map(str, errors)), ConvergenceWarning, stacklevel=3)
    return complete


def _index(numbers: Any, batch: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    if not batch:
        return ((),) * len(numbers)
    return tuple(tuple(int(i) for i in np.unravel_index(k, batch)) for k in numbers)


def sentence(
    name: str, fault: Fault, kind: int, batch: tuple[int, ...],
    every: tuple[tuple[int, ...], ...], result: Any,
) -> MemberError:  # fmt: skip
    numbers = np.flatnonzero(fault.status == kind)
    index = _index(numbers, batch)
    which = f" (batch members {', '.join(map(str, index[:8]))}{', …' if len(index) > 8 else ''})"
    which = which if batch else ""
    detail, x = float(fault.detail[numbers[0]]), fault.name
    if not isinstance(fault.where, str):
        x = f"matrix {int(fault.where[numbers[0]])} of {x}"
    if kind == NONFINITE:
        msg = f"{name}: {x} holds NaN or infinity{which}; remove them, or pass on_fail='nan'"
        return NonFiniteError(msg, every, result)
    if kind == ASYMMETRIC:
        msg = (
            f"{name}: {x} is not Hermitian: max |A - A^H| = {detail:.1e} max |A|{which}; "
            "symmetrise it first"
        )
        return AsymmetricError(msg, every, result)
    if kind == INDEFINITE:
        msg = (
            f"{name}: {x} has the negative eigenvalue {detail:.6g}{which} and must be positive "
            "semidefinite; add a multiple of the identity"
        )
        return NotPositiveSemidefiniteError(msg, every, result)
    if kind == SINGULAR:
        msg = f"{name}: {x} is singular to working precision{which}; add a multiple of the identity"
        return SingularMatrixError(msg, every, result)
    msg = (
        f"{name}: max_iter steps left a relative change of {detail:.1e}{which}; raise max_iter or "
        "tol, or pass a start"
    )
    return NotConvergedError(msg, every, result)
