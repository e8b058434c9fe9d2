"""JAX's face of ``pinv(method="newton")``: the products, traced, and one rule for derivatives."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from linalgk._members import adjoint
from linalgk.randomized import _newton, _pinv


def _loop(count: int, body: Any, start: Any) -> Any:
    return jax.lax.fori_loop(0, count, body, start)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _pseudoinverse(a: Any, hermitian: bool, rcond: Any, steps: Any, tol: Any) -> Any:
    m, n = a.shape[-2:]
    if not math.prod(a.shape):
        return jnp.zeros((*a.shape[:-2], n, m), a.dtype)
    flat = jnp.reshape(a, (-1, m, n))
    flat = 0.5 * flat + 0.5 * adjoint(jnp, flat) if hermitian else flat
    good = jnp.all(jnp.isfinite(flat), axis=(1, 2))
    flat = jnp.where(good[:, None, None], flat, 0)
    tall = adjoint(jnp, flat) if m < n else flat
    x, right = _newton.newton_blind(tall, _loop, cut=rcond, tol=tol, steps=steps)
    x = adjoint(jnp, x) if m < n else x
    x = 0.5 * (x + adjoint(jnp, x)) if hermitian else x
    x = jnp.where((good & right)[:, None, None], x, math.nan)
    return jnp.reshape(x, (*a.shape[:-2], n, m))


@_pseudoinverse.defjvp
def _jvp(
    hermitian: bool, rcond: Any, steps: Any, tol: Any, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    (a,), (da,) = primals, tangents
    x = _pseudoinverse(a, hermitian, rcond, steps, tol)
    if hermitian:
        a, da = (0.5 * (y + adjoint(jnp, y)) for y in (a, da))
    turned, xh = adjoint(jnp, da), adjoint(jnp, x)
    first, second = x @ (xh @ turned), (turned @ xh) @ x
    return x, -(x @ da @ x) + first - (first @ a) @ x + second - x @ (a @ second)


def pinv(a: Any, words: dict[str, Any]) -> Any:
    """As `linalgk.pinv` of an array whose values are not known; members that fail hold NaN."""
    if words["method"] != "newton":
        msg = (
            f"pinv: method {words['method']!r} looks at values and cannot be traced or "
            "differentiated; use method='newton'"
        )
        raise TypeError(msg)
    o = _pinv._checked(words)
    if o.out is not None or o.return_info:
        which = "out" if o.out is not None else "return_info"
        msg = f"{which}: is not for traced arrays; call pinv outside"
        raise TypeError(msg)
    a = jnp.asarray(a)
    a = a if jnp.issubdtype(a.dtype, jnp.inexact) else a.astype(jnp.result_type(float))
    if a.ndim < 2 or (o.hermitian and a.shape[-2] != a.shape[-1]):
        msg = f"a: must have shape {'(..., n, n)' if o.hermitian else '(..., m, n)'}, got {a.shape}"
        raise ValueError(msg)
    eps = float(jnp.finfo(a.dtype).eps)
    if o.tol is not None and o.tol < eps:
        msg = f"tol: must be at least {eps:.3g} for {a.dtype}, got {o.tol:.3g}"
        raise ValueError(msg)
    return _pseudoinverse(a, o.hermitian, o.rcond, o.steps, o.tol)
