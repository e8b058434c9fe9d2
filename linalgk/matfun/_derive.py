"""What the derivatives of matrix functions do at their door, and their two directions."""

import functools
import math
import operator
import sys
from fractions import Fraction
from typing import Any

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._results import Info
from linalgk.matfun import _frechet, _ops
from linalgk.matfun._apply import apply, checked, entered
from linalgk.matfun._lyapunov import solve_sylvester
from linalgk.matfun._pairs import Derivative
from linalgk.matfun._paths import empty, scan, solve
from linalgk.matfun._polar import polar
from linalgk.matfun._report import finish
from linalgk.matfun._spectral import ASYMMETRIC, OK, Call, Scalar

_HALF = Fraction(1, 2)


def derive(
    name: str, function: Scalar, methods: tuple[str, ...], a: Any, g: Any, *, forward: bool,
    assume_a: Any = None, damp: Any = 0, rel_damp: Any = 0, rcond: Any = None,
    check_finite: Any = None, on_fail: Any = None,
) -> Derivative:  # fmt: skip
    options: dict[str, Any] = {"assume_a": assume_a}
    if name in ("invsqrtm", "inv_root"):
        options |= {"damp": damp, "rel_damp": rel_damp, "rcond": rcond}
    if is_traced(a, g):
        evaluate = functools.partial(apply, name, function, methods, **options, return_info=True)
        return by_jax(evaluate, (a,), (g,), forward)
    with _lag.scope(a):
        original, face, x, scalar = entered(a)
        like, _, y, _ = entered(g)
        _xp.same_family(a=original, **{"da" if forward else "g": like})
        xp = _xp.namespace(x)
        n, batch = _validate.square("a", x), tuple(x.shape[:-2])
        if tuple(y.shape) != tuple(x.shape):
            msg = f"{'da' if forward else 'g'}: must have the shape of a, {tuple(x.shape)}, got "
            raise ValueError(msg + str(tuple(y.shape)))
        dtype = xp.result_type(x, y)
        x, y = xp.astype(x, dtype, copy=False), xp.astype(y, dtype, copy=False)
        check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
        call = checked(function, methods, assume_a, "auto", None, None, rel_damp, rcond, batch, n)
        flat, way = (_lag.contiguous(xp.reshape(t, (math.prod(batch), n, n))) for t in (x, y))
        flat = _shifted(flat, _validate.per_member("damp", damp, batch))
        found, value, derivative, method = _computed(flat, way, call, forward)
        good = found.status == OK

        def hand(array: Any) -> Any:
            array = array[0, 0, 0] if scalar else xp.reshape(array, (*batch, *array.shape[1:]))
            return face.leave(array, original)

        zero = np.zeros(len(good), np.int64)
        real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(flat)])
        nan = xp.full((len(good),), float("nan"), dtype=real)
        mark, count = (_xp.from_numpy(t, xp, like=flat) for t in (good, zero))
        fields = [
            face.leave(xp.reshape(t, batch), original)
            for t in (count, mark, nan, nan)
        ]  # fmt: skip
        result = Derivative((hand(value), hand(derivative)), Info(method, *fields))
        finish(f"{name}_{'jvp' if forward else 'vjp'}", function, flat, found, result, None, batch,
               check, policy)  # fmt: skip
        return result


def _shifted(flat: Any, damp: Any) -> Any:
    if not damp.any():
        return flat
    shift = _xp.from_numpy(damp, _xp.namespace(flat), like=flat, dtype=flat.dtype)
    return flat + shift[:, None, None] * _ops.eye_like(flat)


def _computed(flat: Any, way: Any, call: Call, forward: bool) -> tuple[Any, Any, Any, str]:
    """The function with its statuses, its value, the derivative, and how."""
    if 0 in flat.shape:
        return empty(flat), flat, way, "none"
    hermitian = call.assume_a in ("her", "pos")
    if call.assume_a is None:
        status, _, _, _ = scan(flat, call)
        hermitian = call.rel_damp is not None or not (status == ASYMMETRIC).any()
    if hermitian:
        # careless asymmetry is taken out of the argument, and of the direction with it
        part = half if call.assume_a is not None else _same
        found, spectrum = _frechet.spectral(flat, call)
        shape = _frechet.shape_of(call, _xp.dtype_name(flat))
        way = part(way)
        if forward:
            y = _frechet.first(spectrum, _with_top(spectrum, way, call), shape)
        else:
            # L(A, G^H)^H: complex values of negative eigenvalues are conjugate
            y = _ops.adjoint(_frechet.first(spectrum, _ops.adjoint(way), shape))
            y = part(_by_top(spectrum, y, call))
        return found, found.x, y, "eigh"
    if not forward:
        flat = _lag.contiguous(_ops.adjoint(flat))
    found, y, method = _without_symmetry(flat, way, call)
    x = found.x if forward else _ops.adjoint(found.x)
    return found, x, y, method


def _same(x: Any) -> Any:
    return x


def half(x: Any) -> Any:
    return 0.5 * (x + _ops.adjoint(x))


def _without_symmetry(flat: Any, way: Any, call: Call) -> tuple[Any, Any, str]:
    found = solve(flat, call)
    function, n = call.function, flat.shape[-1]
    if function.name == "power" and abs(function.power) == _HALF:
        z = found.x
        right = -(z @ z) @ way @ (z @ z) if function.inverse else way
        return found, solve_sylvester(z, z, right, on_fail="nan"), "sylvester"
    whole = solve(_frechet.doubled(flat, way), call)
    return found, whole.x[:, :n, n:], "block"


def _top(spectrum: _frechet.Spectrum) -> Any:
    """Weights of the eigenvectors of the largest eigenvalue, which may be repeated."""
    w = spectrum.w
    xp = _xp.namespace(w)
    high = xp.max(w, axis=-1, keepdims=True)
    eps = float(np.finfo(_xp.dtype_name(w)).eps)
    tops = xp.astype((w >= high * (1 - w.shape[-1] * eps)) & (high > 0), w.dtype)
    count = xp.sum(tops, axis=-1, keepdims=True)
    return tops / xp.where(count > 0, count, xp.ones_like(count))


def _rayleigh(spectrum: _frechet.Spectrum, way: Any) -> tuple[Any, Any]:
    """The projector on the largest eigenvalue's space, of trace one, in the library of way."""
    xp, v = _xp.namespace(way), spectrum.v
    weights = _top(spectrum)
    if isinstance(weights, np.ndarray) and not isinstance(way, np.ndarray):
        weights = _xp.from_numpy(weights, xp, like=way)
    return (v * xp.astype(weights, v.dtype)[:, None, :]) @ _ops.adjoint(v), xp


def _ratio(call: Call, like: Any) -> Any:
    xp = _xp.namespace(like)
    return _xp.from_numpy(call.rel_damp, xp, like=like, dtype=like.dtype)[:, None, None]


def _with_top(spectrum: _frechet.Spectrum, way: Any, call: Call) -> Any:
    """The direction of ``A + rel_damp lambda_max I``."""
    if call.rel_damp is None:
        return way
    projector, xp = _rayleigh(spectrum, way)
    slope = xp.sum(projector * xp.conj(way), axis=(-2, -1))
    slope = xp.astype(xp.real(slope), way.dtype)
    return way + _ratio(call, way) * slope[:, None, None] * _ops.eye_like(way)


def _by_top(spectrum: _frechet.Spectrum, y: Any, call: Call) -> Any:
    if call.rel_damp is None:
        return y
    projector, xp = _rayleigh(spectrum, y)
    trace = xp.sum(y * _ops.eye_like(y), axis=(-2, -1))
    trace = xp.astype(xp.real(trace), y.dtype)
    return y + _ratio(call, y) * trace[:, None, None] * projector


# ---- traced by JAX ----


def is_traced(*arrays: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and any(isinstance(x, jax.core.Tracer) for x in arrays)


def by_jax(evaluate: Any, primals: Any, others: Any, forward: bool) -> Derivative:
    """JAX's own differentiation, by our rules; ``evaluate`` returns a value and an `Info`."""
    jax = sys.modules["jax"]
    if forward:
        value, tangent, info = jax.jvp(evaluate, primals, others, has_aux=True)
        return Derivative((value, tangent), info)
    value, pull, info = jax.vjp(evaluate, *primals, has_aux=True)
    return Derivative((value, *pull(*others)), info)


def summed(x: Any, like: Any) -> Any:
    """Over the dimensions that were broadcast."""
    xp = _xp.namespace(x)
    extra = x.ndim - like.ndim
    x = xp.sum(x, axis=tuple(range(extra))) if extra else x
    axes = tuple(i for i, k in enumerate(like.shape) if k == 1 and x.shape[i] > 1)
    return xp.sum(x, axis=axes, keepdims=True) if axes else x


# ---- polar factors ----


def derive_polar(a: Any, given: tuple[Any, ...], side: Any, options: Any) -> Derivative:
    """Forward with one direction, backward with two cotangents."""
    value = polar(a, side=side, **options)
    with _lag.scope(a):
        original, face, x, _ = entered(a)
        names = ("da",) if len(given) == 1 else ("gu", "gh")
        others = [entered(y) for y in given]
        _xp.same_family(a=original, **dict(zip(names, (o[0] for o in others), strict=True)))
        m, n = x.shape[-2:]
        wanted = [tuple(x.shape), (*x.shape[:-2], *[n if side == "right" else m] * 2)]
        for name, o, shape in zip(names, others, wanted, strict=False):
            if tuple(o[2].shape) != shape:
                msg = f"{name}: must have shape {shape}, got {tuple(o[2].shape)}"
                raise ValueError(msg)
        xp = _xp.namespace(x)
        # the core has a small factor: A = U H with m >= n, or its adjoint
        wide = m < n
        outer = wide == (side == "right")
        u, h = (face.enter(y) for y in value)
        if 0 in x.shape:
            zeros = [face.leave(xp.zeros_like(y), original) for y in (u, h, x)]
            still = tuple(zeros[:2]) if len(given) == 1 else zeros[2]
            return Derivative((value, still), value.info)
        flat = [_flat(y) for y in (u, h, *(o[2] for o in others))]
        u, h, *ways = (xp.astype(y, u.dtype, copy=False) for y in flat)
        u = _ops.adjoint(u) if wide else u
        small = half(_ops.adjoint(u) @ h @ u) if outer else h
        whole = xp.all(xp.isfinite(xp.abs(u)), axis=(-2, -1))
        u, small = (xp.where(whole[:, None, None], y, xp.zeros_like(y)) for y in (u, small))
        threads = _config.num_threads()
        if len(ways) == 1:
            da = _ops.adjoint(ways[0]) if wide else ways[0]
            du, dh = _frechet.polar_forward(u, small, da, threads)
            if outer:
                part = du @ small @ _ops.adjoint(u)
                dh = u @ dh @ _ops.adjoint(u) + part + _ops.adjoint(part)
            du = _ops.adjoint(du) if wide else du
            derived = [_marked(du, whole, ways), _marked(dh, whole, ways)]
            hand = [face.leave(xp.reshape(y, s), original) for y, s in
                    zip(derived, wanted, strict=True)]  # fmt: skip
            return Derivative((value, tuple(hand)), value.info)
        gu, gh = ways
        gu, gh = _ops.adjoint(gu) if wide else gu, half(gh)
        if outer:
            gu, gh = gu + 2 * gh @ u @ small, _ops.adjoint(u) @ gh @ u
        ga = _frechet.polar_backward(u, small, gu, gh, threads)
        ga = _marked(_ops.adjoint(ga) if wide else ga, whole, ways)
        return Derivative((value, face.leave(xp.reshape(ga, wanted[0]), original)), value.info)


def _flat(x: Any) -> Any:
    xp = _xp.namespace(x)
    return _lag.contiguous(xp.reshape(x, (math.prod(x.shape[:-2]), *x.shape[-2:])))


def _marked(y: Any, whole: Any, ways: list[Any]) -> Any:
    """NaN in members that have no factors, unless nobody asks for them."""
    xp = _xp.namespace(y)
    directed = [xp.any(x != 0, axis=(-2, -1)) for x in ways]
    asked = functools.reduce(operator.or_, directed) & ~whole
    return xp.where(asked[:, None, None], xp.full_like(y, float("nan")), y)


def polar_by_jax(evaluate: Any, a: Any, others: Any, forward: bool) -> Derivative:
    """As `by_jax`, for a pair of factors."""
    jax = sys.modules["jax"]

    def both(x: Any) -> Any:
        found = evaluate(x)
        return tuple(found), found

    if forward:
        _, tangents, value = jax.jvp(both, (a,), others, has_aux=True)
        return Derivative((value, tangents), value.info)
    _, pull, value = jax.vjp(both, a, has_aux=True)
    return Derivative((value, *pull(tuple(others))), value.info)
