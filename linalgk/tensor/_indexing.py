"""What stands in the brackets of a tensor that is known by factors."""

import numbers
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp


class Index(NamedTuple):
    """One integer, slice or array of integers for each mode."""

    items: list[Any]
    points: bool  # the arrays broadcast with each other, each place is one entry


def parse(key: Any, shape: tuple[int, ...]) -> Index:
    """Integers in range and not negative, arrays as integers of the host unless traced."""
    items = list(key) if isinstance(key, tuple) else [key]
    if any(x is None for x in items):
        msg = "index: None adds no mode here; reshape what toarray() gives"
        raise IndexError(msg)
    gaps = [i for i, x in enumerate(items) if x is Ellipsis]
    if len(gaps) > 1:
        msg = "index: at most one '...'"
        raise IndexError(msg)
    at = gaps[0] if gaps else len(items)
    missing = len(shape) - (len(items) - len(gaps))
    if missing < 0:
        msg = f"index: {len(shape)} modes, got {len(items) - len(gaps)} indices"
        raise IndexError(msg)
    items[at : at + len(gaps)] = [slice(None)] * missing
    found = [_item(x, n, mode) for mode, (x, n) in enumerate(zip(items, shape, strict=True))]
    arrays = [x for x in found if not isinstance(x, int | slice)]
    if len(arrays) < 2:
        if any(x.ndim != 1 for x in arrays):
            msg = f"index: one array of integers must be a vector, got shape {arrays[0].shape}"
            raise IndexError(msg)
        return Index(found, False)
    if any(isinstance(x, slice) for x in found):
        msg = (
            "index: several arrays are points and leave no slice; X[rows][:, columns] takes rows "
            "and columns"
        )
        raise IndexError(msg)
    return Index(found, True)


def _item(x: Any, n: int, mode: int) -> Any:
    if isinstance(x, slice):
        # in bounds, which the array API asks for
        start, stop, step = x.indices(n)
        return slice(start if start >= 0 else 0, stop if stop >= 0 else None, step)
    if isinstance(x, numbers.Integral) and not isinstance(x, bool | np.bool_):
        return _in_range(np.asarray(int(x)), n, mode)
    if isinstance(x, list | range):
        x = np.asarray(x)
        x = x.astype(np.int64) if x.size == 0 else x
    if _xp.face(x) is None:
        msg = f"index: integers, slices, '...' or arrays of integers, got {type(x).__name__}"
        raise IndexError(msg)
    if _xp.is_traced(x):
        return x
    x = np.asarray(_xp.to_numpy(x))
    if x.dtype.kind == "b":
        if x.shape != (n,):
            msg = f"index: a mask of mode {mode} must have shape ({n},), got {x.shape}"
            raise IndexError(msg)
        x = np.flatnonzero(x)
    if x.dtype.kind not in "iu":
        msg = f"index: arrays must hold integers, got {x.dtype.name}"
        raise IndexError(msg)
    return _in_range(x.astype(np.int64), n, mode)


def _in_range(x: Any, n: int, mode: int) -> Any:
    bad = (x < -n) | (x >= n)
    if bad.any():
        msg = f"index: {int(x[bad].flat[0])} is out of range for mode {mode} of size {n}"
        raise IndexError(msg)
    x = np.where(x < 0, x + n, x)
    return x if x.ndim else int(x)


def broadcast(items: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """Points as vectors of one length, and the shape that they had."""
    traced = [x for x in items if _xp.is_traced(x)]
    xp = _xp.namespace(traced[0]) if traced else np
    arrays = xp.broadcast_arrays(*[xp.asarray(x) for x in items])
    shape = tuple(int(n) for n in arrays[0].shape)
    # a copy: what NumPy broadcasts may not be written to, which other libraries mind
    flat = [xp.reshape(x, (-1,)) for x in arrays]
    return flat if traced else [np.array(x) for x in flat], shape


def rows(xp: Any, f: Any, item: Any) -> Any:
    """Rows of a factor for a slice or an array."""
    if isinstance(item, slice):
        return f[item, :]
    if isinstance(item, np.ndarray) and xp is not np:
        item = _xp.from_numpy(item, xp, like=f)
    return xp.take(f, item, axis=0)
