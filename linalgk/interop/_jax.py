"""JAX's face: derivatives of any mode, as primitives with rules of their own.

`custom_jvp` would be taken apart by the first of two nested derivatives, so that the second would
differentiate eigenvectors; a primitive stays what it is under every transformation.
"""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from linalgk.interop._shared import composed, largest
from linalgk.matfun import _frechet, _ops, _static, _sylvester
from linalgk.matfun._spectral import Call, Scalar

_INVERSE = Scalar("power", Fraction(-1))


def _flat(x: Any) -> Any:
    return jnp.reshape(x, (-1, *x.shape[-2:]))


def _known(name: str, compute: Callable[..., Any], like: int) -> Primitive:
    """A primitive of equally batched arrays, whose result is shaped as argument ``like``."""
    primitive = Primitive(f"linalgk_{name}")

    def run(*arrays: Any, **options: Any) -> Any:
        return compute(*arrays, **options)

    @functools.lru_cache(maxsize=64)
    def compiled(**options: Any) -> Any:
        # one function for each set of options, because JAX compiles by the function's identity
        return jax.jit(functools.partial(run, **options))

    @primitive.def_impl
    def _(*arrays: Any, **options: Any) -> Any:
        return compiled(**options)(*arrays)

    @primitive.def_abstract_eval
    def _(*arrays: Any, **_options: Any) -> Any:
        return jax.core.ShapedArray(arrays[like].shape, arrays[like].dtype)

    def batched(arrays: Any, axes: Any, **options: Any) -> Any:
        size = next(x.shape[i] for x, i in zip(arrays, axes, strict=True) if i is not None)
        moved = [
            jnp.broadcast_to(x, (size, *x.shape)) if i is None else jnp.moveaxis(x, i, 0)
            for x, i in zip(arrays, axes, strict=True)
        ]
        return primitive.bind(*moved, **options), 0

    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=False))
    return primitive


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, ad.Zero)


def _added(terms: list[Any], like: Any) -> Any:
    return functools.reduce(jnp.add, terms) if terms else ad.Zero.from_primal_value(like)


# ---- functions of Hermitian matrices; a is there to be differentiated by ----


def _value(_a: Any, x: Any, _w: Any, _v: Any, *, shape: Any) -> Any:  # noqa: ARG001
    return x


def _first(_a: Any, w: Any, v: Any, g: Any, *, shape: Any) -> Any:
    spectrum = _frechet.Spectrum(jnp.reshape(w, (-1, w.shape[-1])), _flat(v))
    return jnp.reshape(_frechet.first(spectrum, _flat(g), shape), g.shape)


def _second(_a: Any, w: Any, v: Any, g: Any, e: Any, *, shape: Any) -> Any:
    spectrum = _frechet.Spectrum(jnp.reshape(w, (-1, w.shape[-1])), _flat(v))

    def loop(n: int, step: Any, total: Any) -> Any:
        return jax.lax.fori_loop(0, n, step, total)

    return jnp.reshape(_frechet.second(spectrum, _flat(g), _flat(e), shape, loop), g.shape)


value_p = _known("value", _value, 1)
first_p = _known("frechet", _first, 3)
second_p = _known("frechet_second", _second, 3)


def _value_jvp(primals: Any, tangents: Any, *, shape: Any) -> Any:
    (a, x, w, v), da = primals, tangents[0]
    out = value_p.bind(a, x, w, v, shape=shape)
    if _is_zero(da):
        return out, ad.Zero.from_primal_value(out)
    return out, first_p.bind(a, w, v, da, shape=shape)


def _first_jvp(primals: Any, tangents: Any, *, shape: Any) -> Any:
    (a, w, v, g), (da, _, _, dg) = primals, tangents
    out = first_p.bind(a, w, v, g, shape=shape)
    terms = [] if _is_zero(da) else [second_p.bind(a, w, v, g, da, shape=shape)]
    terms += [] if _is_zero(dg) else [first_p.bind(a, w, v, dg, shape=shape)]
    return out, _added(terms, out)


def _second_jvp(primals: Any, tangents: Any, *, shape: Any) -> Any:
    (a, w, v, g, e), (da, _, _, dg, de) = primals, tangents
    if not _is_zero(da):
        msg = "third derivatives of functions of Hermitian matrices are not offered"
        raise NotImplementedError(msg)
    out = second_p.bind(a, w, v, g, e, shape=shape)
    terms = [] if _is_zero(dg) else [second_p.bind(a, w, v, dg, e, shape=shape)]
    terms += [] if _is_zero(de) else [second_p.bind(a, w, v, g, de, shape=shape)]
    return out, _added(terms, out)


def _turned(x: Any) -> Any:
    return jnp.swapaxes(x, -1, -2)


def _first_transpose(ct: Any, a: Any, w: Any, v: Any, _g: Any, *, shape: Any) -> Any:
    # transposed, not adjoint: the derivative at A^T
    return None, None, None, first_p.bind(_turned(a), w, jnp.conj(v), ct, shape=shape)


def _second_transpose(ct: Any, a: Any, w: Any, v: Any, g: Any, e: Any, *, shape: Any) -> Any:
    # symmetric in both directions
    by_g = ad.is_undefined_primal(g)
    known = _turned(e if by_g else g)
    y = second_p.bind(_turned(a), w, jnp.conj(v), known, ct, shape=shape)
    return (None, None, None, y, None) if by_g else (None, None, None, None, y)


ad.primitive_jvps[value_p] = _value_jvp
ad.primitive_jvps[first_p] = _first_jvp
ad.primitive_jvps[second_p] = _second_jvp
ad.primitive_transposes[first_p] = _first_transpose
ad.primitive_transposes[second_p] = _second_transpose


def by_eigenvectors(a: Any, call: Call, rel_damp: Any) -> tuple[Any, Any, Any]:
    """As `_static.by_eigenvectors`, with derivatives; a is Hermitian to the bit."""
    xp = jnp
    if not isinstance(rel_damp, int | float) or rel_damp:
        extra = xp.real(_static.per_member(rel_damp, a))[:, 0, 0] * xp.maximum(largest(jnp, a), 0)
        a = a + xp.astype(extra, a.dtype)[:, None, None] * _ops.eye_like(a)
    fixed = jax.lax.stop_gradient(a)
    found = _static.by_spectrum(fixed, call, 0)
    shape = _frechet.shape_of(call._replace(rel_damp=None), str(a.dtype))
    w = xp.where(found.good[:, None], found.w, xp.full_like(found.w, float("nan")))
    return a, value_p.bind(a, found.x, w, found.v, shape=shape), found.good


# ---- polar factors ----


def _of_root(_x: Any, w: Any, v: Any, g: Any) -> Any:
    spectrum = _frechet.Spectrum(jnp.reshape(w, (-1, w.shape[-1])) ** 2, _flat(v))
    shape = _frechet.Shape(_frechet.ROOT, floor=_frechet.nothing(v) ** 2)
    return jnp.reshape(_frechet.first(spectrum, _flat(g), shape), g.shape)


# X Y + Y X = G with the eigenvectors of X
of_root_p = _known("of_root", _of_root, 3)


def _of_root_jvp(primals: Any, tangents: Any) -> Any:
    (x, w, v, _g), (dx, _, _, dg) = primals, tangents
    y = of_root_p.bind(*primals)
    terms = [] if _is_zero(dg) else [dg]
    terms += [] if _is_zero(dx) else [-(dx @ y + y @ dx)]
    if not terms:
        return y, ad.Zero.from_primal_value(y)
    return y, of_root_p.bind(x, w, v, functools.reduce(jnp.add, terms))


ad.primitive_jvps[of_root_p] = _of_root_jvp
ad.primitive_transposes[of_root_p] = lambda ct, x, w, v, _g: (
    None, None, None, of_root_p.bind(_turned(x), w, jnp.conj(v), ct)
)  # fmt: skip


def _factor(_a: Any, u: Any, h: Any, *, right: bool) -> Any:
    return h if right else u


# both factors are values of one primitive each, so that a has the derivatives of both
factor_u_p = _known("polar_u", functools.partial(_factor, right=False), 1)
factor_h_p = _known("polar_h", functools.partial(_factor, right=True), 2)


def _turn(a: Any, u: Any, h: Any, da: Any) -> Any:
    u, h = factor_u_p.bind(a, u, h), factor_h_p.bind(a, u, h)
    inner = _ops.adjoint(u) @ da
    w, v = jnp.linalg.eigh(jax.lax.stop_gradient(h))
    return u, h, inner, of_root_p.bind(h, w, v, inner - _ops.adjoint(inner))


def _factor_u_jvp(primals: Any, tangents: Any) -> Any:
    (a, u, h), da = primals, tangents[0]
    out = factor_u_p.bind(a, u, h)
    if _is_zero(da):
        return out, ad.Zero.from_primal_value(out)
    u, h, inner, turn = _turn(a, u, h, da)
    du = u @ turn
    if u.shape[-2] > u.shape[-1]:
        n, eps = h.shape[-1], _frechet.nothing(h)
        call = Call(_INVERSE, "her", "eigh", None, None, None, eps, 1)
        inverse = by_eigenvectors(jnp.reshape(h, (-1, n, n)), call, 0)[1]
        du = du + (da - u @ inner) @ jnp.reshape(inverse, h.shape)
    return out, du


def _factor_h_jvp(primals: Any, tangents: Any) -> Any:
    (a, u, h), da = primals, tangents[0]
    out = factor_h_p.bind(a, u, h)
    if _is_zero(da):
        return out, ad.Zero.from_primal_value(out)
    _, h, inner, turn = _turn(a, u, h, da)
    dh = inner - turn @ h
    return out, 0.5 * (dh + _ops.adjoint(dh))


ad.primitive_jvps[factor_u_p] = _factor_u_jvp
ad.primitive_jvps[factor_h_p] = _factor_h_jvp


def polar_factors(a: Any, u: Any, h: Any) -> tuple[Any, Any]:
    """The factors of ``A = U H``, m >= n, with derivatives by a."""
    u, h = jax.lax.stop_gradient((u, h))
    # members without factors take no part
    size = jnp.sum(jnp.abs(u), (-2, -1)) + jnp.sum(jnp.abs(h), (-2, -1))
    good = (size - size == 0)[:, None, None]
    u, h = (jnp.where(good, x, jnp.zeros_like(x)) for x in (u, h))
    factors = factor_u_p.bind(a, u, h), factor_h_p.bind(a, u, h)
    u, h = (jnp.where(good, x, jnp.full_like(x, float("nan"))) for x in factors)
    return u, h


def _array(x: Any) -> Any:
    return x if x is None else jnp.asarray(x)


def bures_distance(a: Any, b: Any, _direct: Any, options: dict[str, Any]) -> Any:
    """The distance with its derivatives."""
    given = [a, b, options["mean_a"], options["mean_b"], options["metric"]]
    # under jit a constant is an array whose values are known, but not those of what is made of it
    given = [None if x is None else x + jnp.zeros((), x.dtype) for x in map(_array, given)]
    return composed(jnp, given, None, squared=options["squared"], power=options["power"])


# ---- A X + X B = Q ----


def _solve(a: Any, b: Any, q: Any, *, options: Any, lyapunov: bool, value: bool) -> Any:
    equation = _sylvester.Equation(_flat(a), None if lyapunov else _flat(b), _flat(q), 1)
    x = jnp.reshape(_sylvester.compute(equation, options).x, q.shape)
    if value:
        return x
    # nobody asks for derivatives of members that failed
    asked = jnp.any(q != 0, axis=(-2, -1), keepdims=True)
    return jnp.where(asked, x, jnp.zeros_like(x))


sylvester_p = _known("sylvester", _solve, 2)


def _sylvester_jvp(primals: Any, tangents: Any, **options: Any) -> Any:
    (a, b, _q), (da, db, dq) = primals, tangents
    out = sylvester_p.bind(*primals, **options)
    good = jax.lax.stop_gradient(jnp.isfinite(jnp.abs(out)))
    x = jnp.where(good, out, jnp.zeros_like(out))
    terms = [] if _is_zero(dq) else [dq]
    terms += [] if _is_zero(da) else [-(da @ x)]
    terms += [] if _is_zero(db) else [-(x @ db)]
    if not terms:
        return out, ad.Zero.from_primal_value(out)
    options["value"] = False
    return out, sylvester_p.bind(a, b, functools.reduce(jnp.add, terms), **options)


def _sylvester_transpose(ct: Any, a: Any, b: Any, _q: Any, **options: Any) -> Any:
    options["value"] = False
    return None, None, sylvester_p.bind(_turned(a), _turned(b), ct, **options)


ad.primitive_jvps[sylvester_p] = _sylvester_jvp
ad.primitive_transposes[sylvester_p] = _sylvester_transpose


def solve(a: Any, b: Any, q: Any, options: Any) -> Any:
    """The solution for Hermitian coefficients of one batch shape; b None for ``A^H``."""
    lyapunov = b is None
    a = 0.5 * (a + _ops.adjoint(a))
    b = a if b is None else 0.5 * (b + _ops.adjoint(b))
    plain = options._replace(return_info=False)
    return sylvester_p.bind(a, b, q, options=plain, lyapunov=lyapunov, value=True)


# ---- what has no derivative ----


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def refused(x: Any, name: str) -> Any:  # noqa: ARG001
    """The same, but whoever differentiates it is told that he cannot."""
    return x


@refused.defjvp
def _refused_jvp(name: str, _primals: Any, _tangents: Any) -> Any:
    msg = f"{name}: has no derivatives; use jax.lax.stop_gradient on its argument"
    raise TypeError(msg)
