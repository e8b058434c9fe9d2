"""What comes in at the door of `Masked`, and what is said when it goes out."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._results import Info
from linalgk.errors import (
    NonFiniteError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Problem
from linalgk.kronecker._masked_solve import Solved

# --- Arguments -----------------------------------------------------------------------------------


def read_mask(mask: Any, sizes: tuple[int, ...]) -> Any:
    """On the host, in the shape of the grid; a copy that nobody else writes to."""
    mask = _xp.as_array("mask", mask)
    if _xp.dtype_name(mask) != "bool":
        msg = f"mask: must hold bools, True where observed, got {_xp.dtype_name(mask)}"
        raise TypeError(msg)
    shape, total = tuple(int(n) for n in mask.shape), math.prod(sizes)
    if shape not in (sizes, (total,)):
        product = "*".join(map(str, sizes))
        msg = f"mask: must have the shape {sizes} of the grid or {product} = {total} entries, got "
        raise ValueError(msg + f"{shape}")
    found = np.array(_xp.to_numpy(mask), bool).reshape(sizes)
    found.flags.writeable = False
    return found


def noise(shift: Any, batch: tuple[int, ...]) -> Any:
    """Not negative, NumPy float64 of the shape of the batch."""
    if isinstance(shift, np.generic) or (_xp.face(shift) is not None and not shift.ndim):
        shift = float(shift)
    return np.asarray(_validate.per_member("shift", shift, batch)).reshape(batch)


def tolerance(tol: Any, dtype: str) -> float:
    eps = float(np.finfo(dtype).eps)
    if tol is None:
        return math.sqrt(eps)
    value = _validate.real_between("tol", tol, 0.0, 1.0, low_open=True)
    if value < 8 * eps:
        msg = f"tol: must be at least {8 * eps:.1e}, 8 eps of the dtype, got {value!r}"
        raise ValueError(msg)
    return value


def definite(xp: Any, w: Any, d: Any, shift: Any, unit: float) -> list[Problem]:
    """Members whose least eigenvalue is not positive to working precision."""
    least, top = (
        np.asarray(_xp.to_numpy(x), np.float64)
        for x in (xp.min(d, axis=-1), xp.max(xp.abs(w), axis=-1))
    )
    floor = 2 * unit * (top + shift)
    found = []
    negative, zero = least < -floor, (least >= -floor) & ~(least > floor)
    for error, bad in ((NotPositiveSemidefiniteError, negative), (SingularMatrixError, zero)):
        if not bad.any():
            continue
        at = np.unravel_index(np.argmax(bad), bad.shape)
        what = (
            f"the whole grid's K has the eigenvalue {least[at] - shift[at]:.3g} and the largest "
            f"{top[at]:.3g}, so that K + shift I is "
        )
        if error is SingularMatrixError:
            what += f"singular to working precision{{}}; give a shift above {2 * floor[at]:.1e}"
        else:
            what += "not positive definite{}; give a larger shift"
        found.append(Problem(error, what, bad))
    return found


# --- Answers -------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What became of the members of a batch, NumPy."""

    bad: Any  # (...): whether their matrix allows no solution
    met: Any  # (..., k): whether columns are as good as was asked for
    said: list[tuple[Any, str, Any]]  # error, sentence, members


def members(problems: Sequence[Problem], batch: tuple[int, ...]) -> Any:
    """Those that have any problem."""
    found = np.zeros(batch, bool)
    for problem in problems:
        found = found | problem.bad
    return found


def sentences(problems: Sequence[Problem], batch: tuple[int, ...]) -> list[tuple[Any, str, Any]]:
    """Errors, sentences and members of the whole batch."""
    return [(p.error, p.sentence, np.broadcast_to(p.bad, batch)) for p in problems]


def verdict(
    problems: Sequence[Problem], b: Any, found: Solved, tol: float, batch: tuple[int, ...],
    max_iter: int,
) -> Verdict:  # fmt: skip
    """What to say of solutions for b (..., n, k)."""
    bad, said = members(problems, batch), sentences(problems, batch)
    finite = _columns(_xp.namespace(b).all(_xp.namespace(b).isfinite(b), axis=-2), batch)
    residual = _columns(found.residual, batch)
    # a NaN is not
    met = (residual <= tol) & ~bad[..., None]
    if not finite.all():
        text = "b holds NaN or infinity{}; remove them, or pass on_fail='nan'"
        said.append((NonFiniteError, text, ~finite.all(axis=-1)))
    late = (~met & finite).any(axis=-1) & ~bad
    if late.any():
        steps = int(_columns(found.iterations, batch).max())
        value = float(np.where(finite, residual, 0.0)[late].max())
        way = (
            f"allow more than max_iter = {max_iter}" if 2 * steps >= max_iter
            else "rounding allows no less, a wider dtype does"
        )  # fmt: skip
        text = (
            f"the residual is {value:.1e} of b{{}} after {steps} steps, above tol = {tol:.1e}; "
            f"{way}; or give a larger tol or shift"
        )
        said.append((NotConvergedError, text, late))
    return Verdict(bad, met, said)


def blanked(x: Any, blank: Any) -> Any:
    """NaN in columns (..., k or 1) of x (..., n, k)."""
    if not blank.any():
        return x
    xp = _xp.namespace(x)
    mask = _xp.from_numpy(np.ascontiguousarray(blank), xp, like=x)
    return xp.where(mask[..., None, :], xp.full_like(x, math.nan), x)


def info(entered: Entered, found: Solved, seen: Verdict, batch: tuple[int, ...]) -> Info:
    """The worst column of each member."""
    real = _xp.REAL[entered.dtype]

    def worst(x: Any) -> Any:
        values = np.where(seen.bad[..., None], math.nan, _columns(x, batch))
        return values.max(axis=-1, initial=0.0).astype(real)

    fields = {
        "iterations": _columns(found.iterations, batch).max(axis=-1, initial=0),
        "converged": seen.met.all(axis=-1),
        "residual": worst(found.residual),
        "error_estimate": worst(found.error),
    }
    like = entered.arrays[0]
    xp = _xp.namespace(like)
    arrays = {
        key: entered.face.leave(_xp.from_numpy(np.asarray(x), xp, like=like), entered.like)
        for key, x in fields.items()
    }
    return Info(method=found.method, **arrays)


def _columns(x: Any, batch: tuple[int, ...]) -> Any:
    """Numbers of columns (..., k) on the host."""
    return np.asarray(_xp.to_numpy(x)).reshape(*batch, x.shape[-1])
