"""Matrix functions of arrays whose values are not known yet: JAX under ``jit`` and ``vmap``.

The same algorithms without a look at any value: no member is routed by what it is, nothing is
raised; members that fail hold NaN, and `Info` says which.
"""

import functools
import math
import sys
from typing import Any

import numpy as np

from linalgk import _results, _validate, _xp
from linalgk.matfun import _ops
from linalgk.matfun._minimax import newton_table, schedule
from linalgk.matfun._rational import series
from linalgk.matfun._spectral import Call, Scalar, evaluate

# Share of the norm down to which a schedule of fixed steps serves where nothing is known.
LOWER = {"float32": 1e-4, "float64": 1e-8}
# Methods whose number of steps does not follow from the values.
FIXED = ("eigh", "minimax", "newton_schulz", "taylor")


def compute(name: str, x: Any, call: Call, damp: Any, rel_damp: Any, return_info: bool) -> Any:
    """The function of x, shape (..., n, n), and an `Info` if asked for."""
    function, n = call.function, x.shape[-1]
    method = "eigh" if call.method == "auto" else call.method
    small = function.name == "power" and function.power.denominator == 1
    if call.assume_a is None:
        msg = f"{name}: assume_a must be given under jax.jit and jax.vmap, where no value is known"
        raise ValueError(msg)
    if (call.assume_a == "gen" or method not in FIXED) and not small:
        msg = (
            f"{name}: under jax.jit and jax.vmap only methods with a fixed number of steps, "
            f"{', '.join(FIXED)}, for Hermitian matrices (assume_a='pos' or 'her')"
        )
        raise ValueError(msg)
    xp = _xp.namespace(x)
    batch = tuple(x.shape[:-2])
    a = xp.reshape(x, (math.prod(batch), n, n))
    if call.assume_a != "gen":
        a = 0.5 * (a + _ops.adjoint(a))
    a = a + _per_member(damp, a) * _ops.eye_like(a)
    if function.name == "power" and function.power.denominator == 1 and call.assume_a == "gen":
        result, good, steps, method = _integer(a, function), None, 0, "products"
    elif method == "eigh":
        a, result, good = _by_eigenvectors(a, call, rel_damp)
        steps = 0
    else:
        a, result, steps = _by_steps(a, call, method, rel_damp)
        good = None
    finite = xp.all(xp.isfinite(xp.abs(result)), axis=(-2, -1))
    finite = finite & xp.all(xp.isfinite(xp.abs(a)), axis=(-2, -1))
    good = finite if good is None else good & finite
    result = xp.where(good[:, None, None], result, xp.full_like(result, float("nan")))
    answer = xp.reshape(result, tuple(x.shape))
    if not return_info:
        return answer
    return answer, _info(a, result, good, function, method, steps, batch)


@functools.cache
def prepare() -> None:
    """Let JAX take results apart and put them together again."""
    arrays = ["iterations", "converged", "residual", "error_estimate"]
    tree_util = sys.modules["jax"].tree_util
    tree_util.register_dataclass(_results.Info, data_fields=arrays, meta_fields=["method"])


def is_traced(x: Any) -> bool:
    """Whether values are unknown, under a transformation of JAX; derivatives are refused."""
    if not isinstance(x, sys.modules["jax"].core.Tracer):
        return False
    if type(x).__name__ in ("JVPTracer", "LinearizeTracer"):
        msg = "array: derivatives of this function are not available yet; use jax.lax.stop_gradient"
        raise TypeError(msg)
    return True


def _per_member(value: Any, like: Any) -> Any:
    """A number, or one per member, as (b, 1, 1) in the dtype of ``like``."""
    xp = _xp.namespace(like)
    flat = xp.reshape(xp.asarray(value), (-1,))
    return xp.astype(flat, like.dtype)[:, None, None]


def _by_eigenvectors(a: Any, call: Call, rel_damp: Any) -> tuple[Any, Any, Any]:
    xp, function = _xp.namespace(a), call.function
    name = _xp.dtype_name(a)
    n, eps = a.shape[-1], float(np.finfo(_xp.REAL[name]).eps)
    largest = xp.max(xp.abs(a), axis=(-2, -1))
    usable = xp.isfinite(largest) & (largest > 0)
    shift = xp.ceil(xp.log2(xp.where(usable, largest, xp.ones_like(largest))) / function.root)
    scale = 2.0 ** (shift * function.root)
    w, v = xp.linalg.eigh(a / xp.astype(scale, a.dtype)[:, None, None])
    top = xp.max(w, axis=-1)
    extra = xp.real(_per_member(rel_damp, a))[:, 0, 0] * xp.maximum(top, xp.zeros_like(top))
    w = w + extra[:, None]
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
    return a, x if signed and function.fractional else 0.5 * (x + _ops.adjoint(x)), good


def _by_steps(a: Any, call: Call, method: str, rel_damp: Any) -> tuple[Any, Any, int]:
    """A fixed number of products."""
    xp, function = _xp.namespace(a), call.function
    real = _xp.REAL[_xp.dtype_name(a)]
    size = xp.abs(a)
    top = xp.linalg.eigvalsh(a)[:, -1] if _given(rel_damp) else 0 * size[:, 0, 0]
    extra = xp.real(_per_member(rel_damp, a))[:, 0, 0] * top
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


def _integer(a: Any, function: Scalar) -> Any:
    xp, rest = _xp.namespace(a), function.power.numerator
    a, rest = (xp.linalg.inv(a), -rest) if rest < 0 else (a, rest)
    return _ops.repeated_squaring(a, rest)


def _info(
    a: Any, x: Any, good: Any, function: Scalar, method: str, steps: int, batch: tuple[int, ...]
) -> _results.Info:
    xp, n = _xp.namespace(a), a.shape[-1]
    unknown = xp.real(x)[:, 0, 0] * float("nan") if n else xp.zeros_like(xp.real(x[:, 0, 0]))
    residual, error = unknown, unknown
    r = function.power

    def norm(y: Any) -> Any:
        return xp.sqrt(xp.sum(xp.abs(y) ** 2, axis=(-2, -1)))

    def power(y: Any, p: int) -> Any:
        product = _ops.eye_like(y)
        for _ in range(p):
            product = product @ y
        return product

    if function.name == "sign":
        residual = norm(x @ x - _ops.eye_like(x)) / n**0.5
    elif function.name == "power" and r.denominator <= 64:
        den, num = r.denominator, abs(r.numerator)
        if r < 0:
            defect = norm(power(x, den) @ power(a, num) - _ops.eye_like(x))
            residual, error = defect / n**0.5, defect / den
        else:
            residual = norm(power(x, den) - power(a, num)) / norm(power(a, num))
    fields = {
        "iterations": xp.where(good, steps, 0), "converged": good,
        "residual": residual, "error_estimate": error,
    }  # fmt: skip
    return _results.Info(method, **{k: xp.reshape(v, batch) for k, v in fields.items()})


def options(
    call_options: dict[str, Any], function: Scalar, methods: tuple[str, ...], n: int,
    batch: tuple[int, ...], checked: Any,
) -> Call:  # fmt: skip
    """The options of a call whose damping may be traced too."""
    if call_options.get("out") is not None:
        msg = "out: JAX arrays cannot be written to"
        raise TypeError(msg)
    _validate.on_fail(call_options.get("on_fail"))
    call: Call = checked(
        function, methods, call_options.get("assume_a"), call_options.get("method", "auto"),
        call_options.get("tol"), call_options.get("steps"), 0, call_options.get("rcond"), batch, n,
    )  # fmt: skip
    return call
