"""A Kronecker product on some points of its grid, under JAX's transformations.

The iterations look at values, and so run on the host when the values are known, by a callback;
their derivatives are such equations again.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linalgk.kronecker import _derivative, _masked_estimate
from linalgk.randomized import Estimate, RandomInfo

__all__ = ["logdet", "solve"]


class Call:
    """What is known when a call is traced: everything but numbers."""

    def __init__(self, masked: Any, options: dict[str, Any]) -> None:
        self.masked, self.options = masked, options

    def there(self, factors: Sequence[Any]) -> Any:
        """The matrix of factors that are known."""
        masked = self.masked
        kron = type(masked.kron)([np.asarray(f) for f in factors], assume_a=masked.kron.assume_a)
        return kron.masked(masked.mask)

    def solution(self, factors: Sequence[Any], b: Any, shift: Any) -> Any:
        """On the host."""
        x = self.there(factors).solve(
            np.asarray(b), shift=_number(shift), on_fail="nan", **self.options
        )
        return x.astype(jnp.result_type(b, *factors), copy=False)

    def estimate(self, factors: Sequence[Any], shift: Any) -> Any:
        """Value, standard error and enclosure, on the host."""
        found = self.there(factors)._logdet(_number(shift), self.options["options"], False, "nan")
        return [np.asarray(x) for x in (found[0].value, found[0].std_error, *found[0].enclosure)]

    def slopes(self, factors: Sequence[Any], shift: Any, g: Any) -> Any:
        """Gradients of ``sum(g * value)`` by factors and shift, on the host."""
        masked = self.there(factors)
        _, (grid, found) = masked._logdet(
            _number(shift), self.options["options"], False, "nan", gradient=True
        )
        weights = np.asarray(g, np.float64).reshape(-1)
        by_factor: list[Any] = [[] for _ in factors]
        by_shift = []
        for one, result, w in zip(grid.members(masked.batch), found, weights, strict=True):
            arrays, number = [a * np.nan for a in one.arrays], np.nan
            if result.method:
                arrays, number = _masked_estimate.gradient(one, result)
            by_shift.append(w * number)
            for kept, y in zip(by_factor, arrays, strict=True):
                kept.append(w * y)
        slopes = [
            _fitted(np.stack(ys).reshape(*masked.batch, *ys[0].shape), f)
            for ys, f in zip(by_factor, factors, strict=True)
        ]
        return slopes, _fitted(np.asarray(by_shift).reshape(masked.batch), shift)


def _number(shift: Any) -> Any:
    shift = np.asarray(shift)
    return shift if shift.ndim else float(shift)


def _fitted(x: Any, like: Any) -> Any:
    """Summed over the axes that an array was broadcast along, in its dtype."""
    extra = x.ndim - like.ndim
    x = x.sum(axis=tuple(range(extra))) if extra else x
    axes = tuple(i for i in range(x.ndim) if like.shape[i] == 1 and x.shape[i] != 1)
    x = x.sum(axis=axes, keepdims=True) if axes else x
    return np.asarray(x).astype(like.dtype, copy=False)


def _struct(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _batch(factors: Sequence[Any], *others: tuple[int, ...]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(f.shape[:-2] for f in factors), *others)


# ---- equations -----------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solution(call: Call, factors: Any, b: Any, shift: Any) -> Any:
    shape = (*_batch(factors, b.shape[:-2]), *b.shape[-2:])
    kind = _struct(shape, jnp.result_type(b, *factors))
    return jax.pure_callback(call.solution, kind, factors, b, shift, vmap_method="sequential")


def _solution_forward(call: Call, factors: Any, b: Any, shift: Any) -> Any:
    x = _solution(call, factors, b, shift)
    return x, (factors, b, shift, x)


def _solution_backward(call: Call, kept: Any, g: Any) -> Any:
    factors, b, shift, x = kept
    # JAX's derivatives are bilinear: those of A^H = A are conjugates
    w = _solution(call, factors, jnp.conj(g), shift)
    arrays = [f.astype(x.dtype) for f in factors]
    embed = call.masked.embed
    found = _derivative.factor_gradients(arrays, embed(x), -embed(w))
    slopes = [
        _like(jnp.conj(0.5 * (y + jnp.conj(jnp.swapaxes(y, -1, -2)))), f)
        for y, f in zip(found, factors, strict=True)
    ]
    by_shift = -jnp.real(jnp.sum(jnp.conj(w) * x, axis=(-2, -1)))
    return slopes, _like(_summed(jnp.conj(w), b), b), _like(_summed(by_shift, shift), shift)


_solution.defvjp(_solution_forward, _solution_backward)


def _summed(x: Any, like: Any) -> Any:
    """Over the axes that an array was broadcast along."""
    extra = x.ndim - like.ndim
    x = jnp.sum(x, axis=tuple(range(extra)))
    axes = tuple(i for i in range(x.ndim) if like.shape[i] == 1 and x.shape[i] != 1)
    return jnp.sum(x, axis=axes, keepdims=True)


def _like(x: Any, like: Any) -> Any:
    """A gradient by a real array is real."""
    x = jnp.real(x) if jnp.iscomplexobj(x) and not jnp.iscomplexobj(like) else x
    return x.astype(like.dtype)


def _entered(masked: Any, shift: Any, *others: Any) -> tuple[list[Any], Any, list[Any]]:
    """Factors, the shift and other arrays in dtypes that meet."""
    arrays = [jnp.asarray(f) for f in (*masked.kron.factors, *others)]
    dtype = jnp.result_type(*arrays, jnp.float32)
    count = len(masked.kron.factors)
    own = jnp.result_type(*arrays[:count], jnp.float32)
    real = jnp.finfo(dtype).dtype
    if not jnp.issubdtype(own, jnp.complexfloating):
        own = real
    elif own != dtype:
        own = dtype
    factors = [f.astype(own) for f in arrays[:count]]
    return factors, jnp.asarray(shift, real), [x.astype(dtype) for x in arrays[count:]]


def solve(masked: Any, b: Any, shift: Any, **options: Any) -> Any:
    """As `Masked.solve`; a column that fails is NaN."""
    if options.pop("return_info"):
        msg = "Masked.solve: return_info is not for jax.jit, vmap and grad"
        raise TypeError(msg)
    for word in ("check_finite", "on_fail"):
        options.pop(word)
    factors, s, (z,) = _entered(masked, shift, b)
    vector = z.ndim == 1
    x = _solution(Call(masked, options), factors, z[:, None] if vector else z, s)
    return x[..., 0] if vector else x


# ---- determinants --------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _value(call: Call, factors: Any, shift: Any) -> Any:
    kind = _struct(_batch(factors), jnp.finfo(factors[0].dtype).dtype)
    return jax.pure_callback(call.estimate, [kind] * 4, factors, shift, vmap_method="sequential")


def _value_forward(call: Call, factors: Any, shift: Any) -> Any:
    return _value(call, factors, shift), (factors, shift)


def _value_backward(call: Call, kept: Any, ways: Any) -> Any:
    factors, shift = kept
    kinds = [_struct(f.shape, f.dtype) for f in factors], _struct(shift.shape, shift.dtype)
    slopes, by_shift = jax.pure_callback(
        call.slopes, kinds, factors, shift, ways[0], vmap_method="sequential"
    )
    return [jnp.conj(y) for y in slopes], by_shift


_value.defvjp(_value_forward, _value_backward)


def logdet(masked: Any, shift: Any, options: Any, *, check_finite: Any, on_fail: Any) -> Any:  # noqa: ARG001
    """As `Masked.logdet`; a member that fails is NaN, and of an estimate dof are not known."""
    factors, s, _ = _entered(masked, shift)
    options.check(str(factors[0].dtype))
    value, error, low, high = _value(Call(masked, {"options": options}), factors, s)
    method = _masked_estimate.choose_logdet(
        masked.n, masked.mask.size - masked.n, masked.mask.shape, options.method
    )[0]
    size = jnp.where(value == 0, 1, jnp.abs(value))
    none = jnp.zeros(value.shape, int)
    info = RandomInfo(
        method=method, iterations=none, converged=jnp.isfinite(value),
        residual=(high - low) / size, error_estimate=error / size, rank=none, passes=0,
        seed=options.source.key,
    )  # fmt: skip
    dof = np.nan if method == "slq" else np.inf
    return Estimate(value, error, (low, high), (low, high), dof, 0, info)
