"""Sketches under JAX's transformations: pytrees whose one leaf is the key.

What is random is made on the host, by the kernels and therefore with the bits it has everywhere: at
once where the key is known, by a callback where it is traced. JAX does the additions, in its own
order.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linalgk import _xp
from linalgk.sketch import SRHT, RowSample, Sketch
from linalgk.sketch._hadamard_ops import butterflies
from linalgk.sketch._philox import Key

_known: set[type] = set()


def register(kind: type) -> None:
    """Let JAX take sketches of this class apart and put them together again."""
    if kind not in _known:
        _known.add(kind)
        jax.tree_util.register_pytree_node(kind, _flatten, _build)


def _flatten(s: Any) -> tuple[tuple[Any, ...], Any]:
    key = np.array(s._key, np.uint32) if isinstance(s._key, Key) else s._key
    return (key,), (type(s), tuple(s._state().items()))


def _build(aux: Any, leaves: Any) -> Any:
    kind, state = aux
    s: Any = object.__new__(kind)
    (key,) = leaves
    concrete = isinstance(key, np.ndarray | jax.Array) and not isinstance(key, jax.core.Tracer)
    # transformations put other things in the place of leaves
    s._key = Key(*map(int, key)) if concrete and key.shape == (2,) else key
    s._xp = s._device = None
    for name, value in state:
        setattr(s, name if name == "layout" else f"_{name}", value)
    return s


def _fetched(s: Any, make: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any) -> Any:
    """What the host makes of the key."""
    if isinstance(s._key, Key):
        return jnp.asarray(np.asarray(make(s), dtype))

    def at_run_time(key: Any) -> Any:
        return np.asarray(make(s._with(key=Key(*map(int, key)))), dtype)

    kind = jax.ShapeDtypeStruct(shape, dtype)
    return jax.pure_callback(at_run_time, kind, s._key, vmap_method="sequential")


def product(s: Any, a: Any) -> Any:
    """``S @ a`` for a (..., m, n) or (m,)."""
    m, rows = s.shape[1], a.shape[-2] if a.ndim > 1 else a.shape[0]
    if m is not None and rows != m:
        msg = f"S @ a: the operator has shape {s.shape} and a {a.shape}; {rows} rows meet {m}"
        raise ValueError(msg)
    if a.ndim == 1:
        return _product(s, a[:, None])[:, 0]
    if a.ndim == 2:
        return _product(s, a)
    flat = jnp.reshape(a, (math.prod(a.shape[:-2]), *a.shape[-2:]))
    found = jax.vmap(lambda x: _product(s, x))(flat)
    return jnp.reshape(found, (*a.shape[:-2], *found.shape[-2:]))


def gathered(s: Any, y: Any, conjugate: bool) -> Any:
    """``S.T @ y`` or ``S.H @ y``."""
    k, m = s.shape
    rows = y.shape[-2] if y.ndim > 1 else y.shape[0]
    if rows != k:
        msg = f"S.T @ y: the operator has shape {(m, k)} and y {y.shape}; {rows} rows meet {k}"
        raise ValueError(msg)
    if s._complex:
        dense = _entries(s, m, y.dtype)
        return jnp.matmul(jnp.conj(dense.T) if conjugate else dense.T, y)
    like = jax.ShapeDtypeStruct((*y.shape[:-2], m, *y.shape[-1:]) if y.ndim > 1 else (m,), y.dtype)
    return jax.linear_transpose(lambda a: product(s, a), like)(y)[0]


def _product(s: Sketch, a: Any) -> Any:
    part = s if s.shape[1] is not None else s[:, : a.shape[0]]
    if isinstance(s, RowSample):
        if not a.shape[0]:
            return jnp.zeros((s.shape[0], a.shape[1]), a.dtype)
        rows = s.indices - s._start
        weights = np.where((rows >= 0) & (rows < a.shape[0]), s.weights, 0.0)
        chosen = a[np.clip(rows, 0, a.shape[0] - 1)]
        return chosen * jnp.asarray(weights, a.real.dtype)[:, None]
    if hasattr(part, "_hashes"):
        return _stack(part, a)
    if isinstance(part, SRHT):
        return _hadamard(part, a)
    return jnp.matmul(_entries(part, a.shape[0], a.dtype), a)


def _entries(s: Any, m: int, dtype: Any) -> Any:
    """The operator, stored."""
    real = np.dtype(_xp.REAL[np.dtype(dtype).name])
    wanted = np.result_type(real, np.complex64) if s._complex else real
    like = np.empty(0, wanted)
    return _fetched(s, lambda x: x._entries(like, 0, x.shape[0], 0, m), (s.shape[0], m), wanted)


def _stack(s: Any, a: Any) -> Any:
    """Additions to places, one block of rows of the operator after the other."""
    m = a.shape[0]
    nnz = s._hashes(np.empty(0), 0, 0).shape[1] if isinstance(s._key, Key) else s.nnz
    h = _fetched(s, lambda x: x._hashes(np.empty(0), 0, m), (m, nnz), np.uint32)
    total = jnp.zeros((s.shape[0], a.shape[1]), a.dtype)
    for t in range(nnz):
        sign = 1 - 2 * (h[:, t] & 1).astype(a.real.dtype)
        total = total.at[(h[:, t] >> 1).astype(jnp.int32)].add(sign[:, None] * a)
    return total * jnp.asarray(s.scale, a.real.dtype)


def _hadamard(s: Any, a: Any) -> Any:
    """All blocks at once; their sums in ascending order."""
    m, n = a.shape
    real, size, first = a.real.dtype, s.block, s._start % s.block
    blocks = -(-(first + m) // size) if m else 0
    one = np.empty(0)
    flips = _fetched(s, lambda x: 1 - 2.0 * x._flips(one, 0, m), (m,), real)
    block = s._start // size

    def turns(x: Any) -> Any:
        return np.stack([1 - 2.0 * x._outs(one, block + b) for b in range(blocks)])

    picks = _fetched(s, lambda x: x.rows, (s.shape[0],), np.int32)
    if not blocks:
        return jnp.zeros((s.shape[0], n), a.dtype)
    outs = _fetched(s, turns, (blocks, s.shape[0]), real)
    padded = jnp.pad(a * flips[:, None], ((first, blocks * size - first - m), (0, 0)))
    x = butterflies(jnp, jnp.reshape(padded, (blocks, size, n)), 1.0)[:, picks, :]
    x = x * outs[:, :, None]
    total = x[0]
    for part in x[1:]:
        total = total + part
    return total * jnp.asarray(s.scale, real)
