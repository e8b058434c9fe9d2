"""Kronecker products under JAX's transformations: equations are differentiated as equations."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from linalgk._members import adjoint
from linalgk.kronecker import _modes, _perturbation
from linalgk.kronecker._determinant import of_eigenvalues


def fixed(x: Any) -> Any:
    """The same values, without derivatives."""
    return jax.lax.stop_gradient(x)


def equation(matvec: Callable[[Any], Any], direct: Callable[[Any, bool], Any], b: Any) -> Any:
    """The x with ``matvec(x) = b``; ``direct(b, transposed)`` solves."""
    return jax.lax.custom_linear_solve(
        matvec,
        b,
        lambda _, z: direct(z, False),
        lambda _, z: direct(z, True),
    )


# ---- determinants --------------------------------------------------------------------------------


def slogdet(arrays: Sequence[Any], kinds: Sequence[str], shift: Any) -> tuple[Any, Any, list[Any]]:
    """Sign and logarithm of ``|det(K + shift)|`` with two derivatives; eigenvalues of the factors.

    Arrays that are declared Hermitian are so to the bit. The eigenvalues are constants.
    """
    real = not any(map(jnp.iscomplexobj, (*arrays, shift)))
    dtype = jnp.result_type(*arrays, jnp.float32 if real else jnp.complex64)
    own = dtype if jnp.iscomplexobj(shift) else jnp.finfo(dtype).dtype
    sign, log, values = _slogdet((tuple(kinds), real), list(arrays), jnp.asarray(shift, own))
    return sign, log, list(values)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _slogdet(known: Any, arrays: Any, shift: Any) -> Any:
    kinds, real = known
    values = [
        jnp.linalg.eigvals(a) if kind == "gen" else jnp.linalg.eigvalsh(a)
        for a, kind in zip(arrays, kinds, strict=True)
    ]
    return *of_eigenvalues(_modes.plus(_modes.outer(values), shift), real=real), values


@_slogdet.defjvp
def _slogdet_jvp(known: Any, primals: Any, tangents: Any) -> Any:
    return jax.jvp(functools.partial(_expanded, known), primals, tangents)


def _expanded(known: Any, arrays: Any, shift: Any) -> Any:
    """The same in the first terms of Taylor's series about where it is.

    The second derivatives of eigenvalues that JAX has divide by gaps; here they are constants, and
    what depends on the factors is what they differ by from themselves.
    """
    (kinds, real), parts = known, []
    for a, kind in zip(fixed(arrays), kinds, strict=True):
        w, v = jnp.linalg.eig(a) if kind == "gen" else jnp.linalg.eigh(a)
        parts.append((w, v, jnp.linalg.inv(v) if kind == "gen" else adjoint(jnp, v)))
    values, at = [w for w, _, _ in parts], fixed(shift)
    sign, log = of_eigenvalues(_modes.plus(_modes.outer(values), at), real=real)
    bases = _perturbation.bases(parts)
    ways, dshift = [a - fixed(a) for a in arrays], shift - at
    change = _perturbation.along(bases, at, ways, dshift)
    change = change + 0.5 * _perturbation.curvature(bases, at, ways, dshift, ways, dshift)
    # all in one, because a derivative may be by one of them and then by another
    change = change + jnp.sum(guard_p.bind(jnp.concatenate([*map(jnp.ravel, (*arrays, shift))])))
    # a singular member has infinite derivatives, and a value in spite of them
    change = jnp.where(jnp.isfinite(log), change, jnp.zeros_like(change))
    if jnp.iscomplexobj(sign):
        # it turns with the imaginary part of log det
        sign = sign * jnp.exp(1j * jnp.imag(change)).astype(sign.dtype)
    return sign, log + jnp.real(change).astype(log.dtype), values


# Zero, as its derivatives are, of which there are two. A primitive, because it has to be there
# after any transformation.
guard_p = Primitive("linalgk_two_derivatives")


@guard_p.def_impl
@guard_p.def_abstract_eval
def _guard(x: Any, *_ways: Any) -> Any:
    if isinstance(x, jax.core.ShapedArray):
        return x
    return jnp.zeros_like(x)


def _guard_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    y = guard_p.bind(*primals)
    terms = []
    for i, t in enumerate(tangents):
        if isinstance(t, ad.Zero):
            continue
        if i == 0 and len(primals) > 2:
            msg = "slogdet: third derivatives with a shift are not offered"
            raise TypeError(msg)
        moved = (*primals, t) if i == 0 else (*primals[:i], t, *primals[i + 1 :])
        terms.append(guard_p.bind(*moved))
    return y, sum(terms[1:], terms[0]) if terms else ad.Zero.from_primal_value(y)


def _guard_transpose(ct: Any, *primals: Any) -> Any:
    at = [ad.is_undefined_primal(x) for x in primals]
    known = [ct if unknown else x for x, unknown in zip(primals, at, strict=True)]
    return [guard_p.bind(*known) if unknown else None for unknown in at]


def _guard_batched(arrays: Any, axes: Any) -> Any:
    size = next(x.shape[i] for x, i in zip(arrays, axes, strict=True) if i is not None)
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if i is None else jnp.moveaxis(x, i, 0)
        for x, i in zip(arrays, axes, strict=True)
    ]
    return guard_p.bind(*moved), 0


ad.primitive_jvps[guard_p] = _guard_jvp
ad.primitive_transposes[guard_p] = _guard_transpose
batching.primitive_batchers[guard_p] = _guard_batched
mlir.register_lowering(guard_p, mlir.lower_fun(_guard, multiple_results=False))
