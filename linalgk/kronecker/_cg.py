"""Conjugate gradients with a preconditioner, for many right-hand sides side by side."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _lag, _validate, _xp
from linalgk._results import Info
from linalgk.errors import NonFiniteError, NotConvergedError, NotPositiveSemidefiniteError
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Problem, settle


class Iterated(NamedTuple):
    """Solutions (..., n, k), and of each column (..., k) how it went."""

    x: Any
    iterations: Any
    residual: Any  # ||b - A x|| / ||b|| as it is, not as the recurrence has it; NaN of a NaN in b
    broken: Any  # whether A or the preconditioner turned out not to be positive definite


def pcg(
    apply: Callable[[Any], Any], precondition: Callable[[Any], Any], b: Any, tol: float,
    max_iter: int,
) -> Iterated:  # fmt: skip
    """``A x = b`` for Hermitian positive definite A and ``precondition(r)`` near ``A^-1 r``.

    Both take and give (..., n, k). A column stops at ``||b - A x|| <= tol ||b||``, at ``max_iter``
    steps, where A is found not to be positive definite, and where rounding allows no progress,
    whatever the others do.
    """
    xp = _xp.namespace(b)
    size = norms(b)
    finite = xp.isfinite(size)
    zero = xp.zeros_like(b)
    # of size one, so that no square leaves the range of the dtype
    unit = xp.where(finite & (size > 0), size, xp.ones_like(size))
    b = xp.where(finite[..., None, :], b, zero) / _column(unit, b)
    x, r, norm = zero, b, norms(b)
    steps = xp.zeros_like(size, dtype=_xp.dtype_of(xp, "int64"))
    broken = ~xp.isfinite(norm)
    going = (norm > tol) & (steps < max_iter)
    while bool(xp.any(going)):
        new, taken, lost = _cycle(apply, precondition, r, going, steps, tol, max_iter)
        new = x + new
        rest = b - apply(new)
        left = norms(rest)
        better = going & (left < norm)
        x, r = _where(better, new, x), _where(better, rest, r)
        # what the recurrence has for the residual drifts from what it is: start from there again
        again = better & ~lost & (left > tol) & (left < 0.5 * norm) & (taken < max_iter)
        norm = xp.where(better, left, norm)
        steps, broken, going = taken, broken | lost, again
    nan = xp.full_like(norm, float("nan"))
    x = _where(finite, x * _column(unit, b), xp.full_like(b, float("nan")))
    return Iterated(x, steps, xp.where(finite, norm, nan), broken & finite)


def _cycle(
    apply: Callable[[Any], Any], precondition: Callable[[Any], Any], r: Any, going: Any,
    steps: Any, tol: float, max_iter: int,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """What to add to x, steps in all, and columns without a positive curvature."""
    xp = _xp.namespace(r)
    x = p = xp.zeros_like(r)
    rz, lost = xp.ones_like(norms(r)), going & ~going
    finished = _lag.Lag(r)
    while not finished(~xp.any(going)):
        z = precondition(r)
        new = _dot(r, z)
        flat = going & ~_is_positive(new, r, z)
        lost, going = lost | flat, going & ~flat
        # the first step is along z, because p is zero
        p, rz = z + _column(_ratio(new, rz, going), r) * p, xp.where(going, new, rz)
        q = apply(p)
        curve = _dot(p, q)
        flat = going & ~_is_positive(curve, p, q)
        lost, going = lost | flat, going & ~flat
        alpha = _column(_ratio(rz, curve, going), r)
        x, r = x + alpha * p, r - alpha * q
        steps = steps + xp.astype(going, steps.dtype)
        going = going & (norms(r) > tol) & (steps < max_iter)
    return x, steps, lost


def norms(x: Any) -> Any:
    """Euclidean norm of each column of (..., n, k), NaN or infinite where one is in it."""
    xp = _xp.namespace(x)
    if x.shape[-2] == 0:
        return xp.sum(xp.abs(x), axis=-2)
    size = xp.abs(x)
    # relative to the largest entry, whose square may leave the range of the dtype
    top = xp.max(size, axis=-2)
    safe = xp.where((top > 0) & xp.isfinite(top), top, xp.ones_like(top))
    return xp.sqrt(xp.sum((size / safe[..., None, :]) ** 2, axis=-2)) * safe


def _dot(x: Any, y: Any) -> Any:
    """Real part of ``x^H y`` of each column."""
    xp = _xp.namespace(x)
    if _xp.dtype_name(x) not in _xp.COMPLEX:
        return xp.sum(x * y, axis=-2)
    return xp.sum(xp.real(x) * xp.real(y) + xp.imag(x) * xp.imag(y), axis=-2)


def _is_positive(form: Any, x: Any, y: Any) -> Any:
    """Whether ``x^H A x`` is positive beyond rounding, with y for A x.

    For a condition number k it is at least ``2 k^(1/2) / (1 + k) ||x|| ||A x||`` (Kantorovich).
    """
    eps = float(np.finfo(_xp.REAL[_xp.dtype_name(x)]).eps)
    return form > eps * norms(x) * norms(y)


def _ratio(x: Any, y: Any, where: Any) -> Any:
    """``x / y`` of some columns, 0 of the others."""
    xp = _xp.namespace(x)
    return xp.where(where, x / xp.where(where, y, xp.ones_like(y)), xp.zeros_like(x))


def _column(x: Any, like: Any) -> Any:
    """Real numbers (..., k) as factors of the columns of (..., n, k)."""
    xp = _xp.namespace(x)
    return xp.astype(x, like.dtype)[..., None, :]


def _where(columns: Any, x: Any, y: Any) -> Any:
    return _xp.namespace(x).where(columns[..., None, :], x, y)


# --- What is asked for, and whether it was met ---------------------------------------------------


def check_tol(tol: Any, eps: float) -> float:
    """A relative target that the precision allows."""
    if tol is None:
        return default_tol(eps)
    value = _validate.real_between("tol", tol, 0.0, 1.0)
    if value < 16.0 * eps:
        msg = f"tol: must be at least {16.0 * eps:.1e}, 16 eps of the dtype, got {value!r}"
        raise ValueError(msg)
    return value


def default_tol(eps: float) -> float:
    """``eps^(2/3)``: 4e-11 in double precision, 2e-5 in single."""
    return float(eps ** (2.0 / 3.0))


def is_met(found: Iterated, b: Any, tol: float, norm: float) -> Any:
    """Columns whose residual is as small as was asked for, or as rounding allows.

    ``norm`` is a bound of that of A: what rounding leaves is a small multiple of
    ``eps ||A|| ||x||``.
    """
    eps = float(np.finfo(_xp.REAL[_xp.dtype_name(b)]).eps)
    size, large = norms(b), norms(found.x)
    return (found.residual <= tol) | (found.residual * size <= 32.0 * eps * norm * large)


def problems_of(found: Iterated, met: Any, name: str = "K") -> list[Problem]:
    """What is wrong with some columns."""
    residual, broken, met, steps = (
        np.asarray(_xp.to_numpy(z)) for z in (found.residual, found.broken, met, found.iterations)
    )
    strange = np.isnan(residual)
    late = ~met & ~broken & ~strange
    problems = []
    if strange.any():
        sentence = "b holds NaN or infinity{}; remove them, or pass on_fail='nan'"
        problems.append(Problem(NonFiniteError, sentence, strange))
    if broken.any():
        sentence = (
            f"{name} is not positive definite: a direction was met where x^H {name} x is not "
            "positive beyond rounding{}"
        )
        problems.append(Problem(NotPositiveSemidefiniteError, sentence, broken))
    if late.any():
        sentence = (
            f"the residual is {residual[late].max():.1e} of b after {steps[late].max()} steps"
            "{}; allow more by max_iter, or give a larger tol"
        )
        problems.append(Problem(NotConvergedError, sentence, late))
    return problems


def answered(
    function: str, method: str, found: Iterated, problems: Sequence[Problem], entered: Entered, *,
    vector: bool, policy: str, check: bool, info: bool,
) -> Any:  # fmt: skip
    """Solutions with NaN in bad columns, in the caller's hands, and what is to be said of them."""
    xp = _xp.namespace(found.x)
    batch = tuple(int(n) for n in found.iterations.shape)
    bad = np.zeros(batch, bool)
    for problem in problems:
        bad = bad | problem.bad

    def leave(answers: Sequence[Any]) -> Any:
        x = xp.matrix_transpose(answers[0])
        x = entered.leave(x[..., 0] if vector else x)
        if not info:
            return x
        good = _xp.from_numpy(~bad, xp, like=found.x)
        fields = {
            "iterations": found.iterations, "converged": good, "residual": found.residual,
            "error_estimate": xp.full_like(found.residual, float("nan")),
        }  # fmt: skip
        return x, Info(
            method,
            **{
                k: entered.face.leave(v[..., 0] if vector else v, entered.like)
                for k, v in fields.items()
            },
        )

    turned = xp.matrix_transpose(found.x)
    return settle(function, [turned], problems, batch, leave, policy=policy, check=check)


def direct(x: Any, rest: Any, b: Any) -> Iterated:
    """What a method without iteration found, with the residual (..., n, k) that it left."""
    xp = _xp.namespace(b)
    size = norms(b)
    residual = norms(rest) / xp.where(size == 0, xp.ones_like(size), size)
    steps = xp.zeros_like(size, dtype=_xp.dtype_of(xp, "int64"))
    return Iterated(x, steps, residual, size != size)
