"""Products and functions by modes, for arrays of which some may be complex."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk.kronecker import _apply


def outer(vectors: Sequence[Any]) -> Any:
    """The Kronecker product of vectors (..., p_i)."""
    xp, found = _xp.namespace(vectors[0]), vectors[0]
    for w in vectors[1:]:
        found = found[..., :, None] * w[..., None, :]
        found = xp.reshape(found, (*found.shape[:-2], found.shape[-2] * found.shape[-1]))
    return found


def times(factors: Sequence[Any], x: Any, side: str = "left") -> Any:
    """The product, where only one of both may be complex."""
    xp = _xp.namespace(x)
    mixed = _xp.dtype_name(x) in _xp.COMPLEX
    if _xp.dtype_name(factors[0]) in _xp.COMPLEX:
        x = x if mixed else xp.astype(x, factors[0].dtype)
        return _apply.multiply(factors, x, side=side)
    axis = -1 if side == "left" else -2
    return by_parts(lambda z: _apply.multiply(factors, z, side=side), x, axis)


def by_parts(function: Callable[[Any], Any], x: Any, axis: int = -1) -> Any:
    """A real linear function of x, of real and imaginary part at once where it is complex."""
    xp = _xp.namespace(x)
    if _xp.dtype_name(x) not in _xp.COMPLEX:
        return function(x)
    y = function(xp.concat([xp.real(x), xp.imag(x)], axis=axis))
    n = x.shape[axis]
    if axis == -1:
        return join(xp, y[..., :n], y[..., n:], x.dtype)
    return join(xp, y[..., :n, :], y[..., n:, :], x.dtype)


def join(xp: Any, re: Any, im: Any, dtype: Any) -> Any:
    """A complex array of its parts."""
    if xp is np:
        z = np.empty(re.shape, dtype)
        z.real, z.imag = re, im
        return z
    return xp.astype(re, dtype) + 1j * xp.astype(im, dtype)


def in_mode(function: Callable[[Any], Any], x: Any, sizes: Sequence[int], i: int) -> Any:
    """A function of columns (..., p_i, m), of the mode i of x (..., K, n)."""
    xp = _xp.namespace(x)
    batch, n = tuple(x.shape[:-2]), x.shape[-1]
    before, p, after = math.prod(sizes[:i]), sizes[i], math.prod(sizes[i + 1 :]) * n
    k = len(batch)
    x = xp.reshape(x, (*batch, before, p, after))
    turn = (*range(k), k + 1, k, k + 2)
    y = function(xp.reshape(xp.permute_dims(x, turn), (*batch, p, before * after)))
    batch = tuple(y.shape[:-2])
    k = len(batch)
    y = xp.permute_dims(xp.reshape(y, (*batch, p, before, after)), (*range(k), k + 1, k, k + 2))
    return xp.reshape(y, (*batch, math.prod(sizes), n))


def plus(w: Any, shift: Any, *, column: bool = True) -> Any:
    """``w + shift`` for w (..., K), and a number or an array (...)."""
    xp = _xp.namespace(w)
    if isinstance(shift, complex) and _xp.dtype_name(w) not in _xp.COMPLEX:
        w = xp.astype(w, _xp.dtype_of(xp, widened(_xp.dtype_name(w))))
    if getattr(shift, "ndim", 0) and column:
        shift = shift[..., None]
    return w + shift


def widened(dtype: str) -> str:
    """The complex dtype of the same precision."""
    return {"float32": "complex64", "float64": "complex128"}.get(dtype, dtype)


def is_complex(x: Any) -> bool:
    """Whether a number or an array is."""
    if isinstance(x, int | float | complex):
        return isinstance(x, complex)
    return _xp.dtype_name(x) in _xp.COMPLEX


def shape_of(shift: Any) -> tuple[int, ...]:
    return tuple(getattr(shift, "shape", ()))


def size_of(shift: Any) -> Any:
    return (
        abs(shift) if isinstance(shift, int | float | complex) else _xp.namespace(shift).abs(shift)
    )


def fits(d: Any, c: Any) -> bool:
    """Whether ``c / d[..., None]`` has the shape of c."""
    return bool(np.broadcast_shapes((*d.shape, 1), c.shape) == c.shape)


def where(x: Any) -> dict[str, Any]:
    """The device of an array, as its library takes it."""
    return {} if isinstance(x, np.ndarray) else {"device": x.device}
