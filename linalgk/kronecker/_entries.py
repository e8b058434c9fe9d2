"""Entries of a Kronecker product, from entries of its factors; arrays have entered."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk.kronecker._modes import outer


def toarray(arrays: Sequence[Any]) -> Any:
    """The matrix (..., P, Q)."""
    xp, k = _xp.namespace(arrays[0]), arrays[0]
    if len(arrays) == 1:
        # the factor is the caller's
        return xp.asarray(k, copy=True)
    for f in arrays[1:]:
        k = k[..., :, None, :, None] * f[..., None, :, None, :]
        p, r, q, s = k.shape[-4:]
        k = xp.reshape(k, (*k.shape[:-4], p * r, q * s))
    return k


def diagonal(arrays: Sequence[Any]) -> Any:
    """Entries (..., min(P, Q)) with equal indices."""
    xp = _xp.namespace(arrays[0])
    if all(f.shape[-2] == f.shape[-1] for f in arrays):
        found = outer([xp.linalg.diagonal(f) for f in arrays])
        return xp.asarray(found, copy=True) if len(arrays) == 1 else found
    index = np.arange(min(math.prod(f.shape[axis] for f in arrays) for axis in (-2, -1)))
    return _gathered(arrays, index, index)


def trace(arrays: Sequence[Any]) -> Any:
    """Sum of the diagonal (...)."""
    xp = _xp.namespace(arrays[0])
    if not all(f.shape[-2] == f.shape[-1] for f in arrays):
        return xp.sum(diagonal(arrays), axis=-1)
    found = xp.linalg.trace(arrays[0])
    for f in arrays[1:]:
        found = found * xp.linalg.trace(f)
    return found


def getitem(arrays: Sequence[Any], index: Any) -> Any:
    """``K[rows, columns]`` by NumPy's rules, behind the batch."""
    sizes = [math.prod(int(f.shape[axis]) for f in arrays) for axis in (-2, -1)]
    rows, columns = (
        _places(part, n, axis)
        for axis, (part, n) in enumerate(zip(_pair(index), sizes, strict=True))
    )
    if rows is None and columns is None:
        return toarray(arrays)
    if columns is None:
        return _lines(arrays, rows, -2)
    if rows is None:
        xp = _xp.namespace(arrays[0])
        found = _lines([xp.matrix_transpose(f) for f in arrays], columns, -2)
        # the axis of all rows comes first
        kept = max(f.ndim for f in arrays) - 2
        turn = (*range(kept), found.ndim - 1, *range(kept, found.ndim - 1))
        return xp.permute_dims(found, turn)
    if isinstance(rows, range) and isinstance(columns, range):
        return _gathered(arrays, _array(rows)[:, None], _array(columns)[None, :])
    if isinstance(rows, range):
        rows = _array(rows).reshape(-1, *[1] * np.ndim(columns))
    elif isinstance(columns, range):
        rows, columns = np.asarray(rows)[..., None], _array(columns)
    return _gathered(arrays, rows, columns)


def _pair(index: Any) -> tuple[Any, Any]:
    parts = list(index) if isinstance(index, tuple) else [index]
    dots = [k for k, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1 or len(parts) - len(dots) > 2:
        msg = f"K[...]: takes a row and a column, got {len(parts)} indices"
        raise IndexError(msg)
    missing = [slice(None)] * (2 - len(parts) + len(dots))
    if dots:
        parts[dots[0] : dots[0] + 1] = missing
    else:
        parts += missing
    return parts[0], parts[1]


def _places(part: Any, n: int, axis: int) -> Any:
    """None for all, a range, an integer, or an array of integers."""
    if isinstance(part, slice):
        found = range(*part.indices(n))
        return None if found == range(n) else found
    if part is None:
        msg = "K[...]: None adds no axis here; index the array that K[...] gives"
        raise TypeError(msg)
    if not isinstance(part, bool | np.bool_) and hasattr(part, "__index__") and not _shape(part):
        place = operator.index(part)
        if not -n <= place < n:
            raise IndexError(_outside(place, n, axis))
        return place % n
    array = np.asarray(_xp.to_numpy(part) if _xp.face(part) is not None else part)
    if array.dtype == bool:
        if array.shape != (n,):
            msg = f"K[...]: a mask of axis {axis} needs shape ({n},), got {array.shape}"
            raise IndexError(msg)
        return np.flatnonzero(array)
    if not array.size and array.dtype == float:
        array = array.astype(np.int64)  # an empty list
    if array.dtype.kind not in "iu":
        msg = f"K[...]: indices must be integers, slices or masks, got {array.dtype}"
        raise TypeError(msg)
    array = array.astype(np.int64)
    wrong = array[(array < -n) | (array >= n)]
    if wrong.size:
        raise IndexError(_outside(int(wrong[0]), n, axis))
    return np.where(array < 0, array + n, array)


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", ()))


def _outside(place: int, n: int, axis: int) -> str:
    return f"K[...]: index {place} is out of bounds for axis {axis} of size {n}"


def _array(places: Any) -> Any:
    if isinstance(places, range):
        return np.arange(places.start, places.stop, places.step)
    return places


def _digits(places: Any, sizes: Sequence[int]) -> list[Any]:
    """Indices into the factors of indices into the product; integers may be of any size."""
    found = []
    for n in reversed(sizes):
        found.append(places % n if n else places)
        places = places // n if n else places
    return found[::-1]


def _index(places: Any, like: Any) -> Any:
    """A flat index array in the library of an array."""
    flat = np.asarray(places, dtype=np.int64).reshape(-1)
    return _xp.from_numpy(flat, _xp.namespace(like), like=like)


def _lines(arrays: Sequence[Any], places: Any, axis: int) -> Any:
    """Rows (..., *shape of places, Q), as rows of the factors times each other."""
    places = _array(places)
    shape, found = np.shape(places), None
    sizes = [int(f.shape[axis]) for f in arrays]
    for f, place in zip(arrays, _digits(places, sizes), strict=True):
        xp = _xp.namespace(f)
        rows = xp.take(f, _index(place, f), axis=-2)
        if found is None:
            found = rows
            continue
        found = found[..., :, None] * rows[..., None, :]
        found = xp.reshape(found, (*found.shape[:-2], found.shape[-2] * found.shape[-1]))
    assert found is not None
    return _xp.namespace(found).reshape(found, (*found.shape[:-2], *shape, found.shape[-1]))


def _gathered(arrays: Sequence[Any], rows: Any, columns: Any) -> Any:
    """Entries at pairs of indices that broadcast."""
    shape = np.broadcast_shapes(np.shape(rows), np.shape(columns))
    r = _digits(rows, [int(f.shape[-2]) for f in arrays])
    c = _digits(columns, [int(f.shape[-1]) for f in arrays])
    found = None
    for f, i, j in zip(arrays, r, c, strict=True):
        xp, n = _xp.namespace(f), int(f.shape[-1])
        flat = xp.reshape(f, (*f.shape[:-2], f.shape[-2] * n))
        piece = xp.take(flat, _index(i * n + j, f), axis=-1)
        found = piece if found is None else found * piece
    assert found is not None
    return _xp.namespace(found).reshape(found, (*found.shape[:-1], *shape))
