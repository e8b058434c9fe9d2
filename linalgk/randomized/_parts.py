"""What a result of matrices is made of: members put together in the caller's library."""

import math
from typing import Any

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import Given
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import vectors_of


def whole_rank(rank: Any, shape: tuple[int, int]) -> int:
    """A rank that a matrix of this shape can have."""
    value = _validate.integer("rank", rank, 0)
    if value > min(shape):
        msg = f"rank: must be at most min(m, n) = {min(shape)}, got {value}"
        raise ValueError(msg)
    return value


def library(given: Given) -> tuple[Any, Any]:
    """Namespace and an array for the dense parts of a result."""
    if given.sparse:
        return _xp.namespace(given.flat.data), given.flat.data
    if given.operator:
        like = vectors_of(given)
        return _xp.namespace(like), like
    return _xp.namespace(given.flat), given.flat


def fielded(given: Given, x: Any) -> Any:
    """Host numbers (b, ...) as the caller's array of batch shape."""
    xp, like = library(given)
    x = np.asarray(x.reshape((*given.batch, *x.shape[1:])), order="C")
    return given.leave(_xp.from_numpy(x, xp, like=like))


def stacked(given: Given, parts: list[Any], good: Any, shape: tuple[int, int]) -> Any:
    """Matrices of the members as the caller's array, NaN for the bad, zeros where too small."""
    xp, like = library(given)
    if len(parts) == 1 and not given.batch and tuple(parts[0].shape) == shape and good[0]:
        return given.leave(parts[0])
    whole = []
    for part, sound in zip(parts, good, strict=True):
        if sound and tuple(part.shape) == shape:
            whole.append(part)
            continue
        fill = np.full(shape, 0.0 if sound else math.nan).astype(given.dtype)
        if sound:
            fill[: part.shape[0], : part.shape[1]] = _xp.to_numpy(part)
        whole.append(_xp.from_numpy(fill, xp, like=like))
    if not whole:
        empty = np.zeros((*given.batch, *shape), given.dtype)
        return given.leave(_xp.from_numpy(empty, xp, like=like))
    return given.leave(xp.reshape(xp.stack(whole), (*given.batch, *shape)))


def indices(given: Given, parts: list[Any], count: int) -> Any:
    """Indices of the members as the caller's array."""
    host = np.stack(parts) if parts else np.zeros((0, count))
    return fielded(given, host.astype(np.int64))


def information(
    given: Given, method: str, good: Any, *, residual: list[float], error: list[float],
    rank: list[int], passes: int, seed: Any, iterations: list[int] | None = None,
) -> RandomInfo:  # fmt: skip
    """The fields as arrays of batch shape in the caller's library."""
    real = _xp.REAL[given.dtype]

    def array(values: Any, dtype: str) -> Any:
        return fielded(given, np.asarray(values, dtype))

    return RandomInfo(
        method=method,
        iterations=array([0] * len(good) if iterations is None else iterations, "int64"),
        converged=array(good, "bool"),
        residual=array(np.where(good, residual, math.nan), real),
        error_estimate=array(np.where(good, error, math.nan), real),
        rank=rank[0] if not given.batch else array(rank, "int64"),
        passes=passes,
        seed=seed,
    )
