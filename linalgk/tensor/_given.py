"""What functions are made of data from: values on the host, and where they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from linalgk import _validate, _xp
from linalgk.errors import NonFiniteError
from linalgk.tensor import _chebyshev, _splines
from linalgk.tensor._columns import Canonical, Dense, Tucker
from linalgk.tensor._domain import checked_domain
from linalgk.tensor._splines import Axis

GRIDS = ("chebyshev", "uniform", "cells")


def entered(x: Any) -> Any:
    """Values on the host: `Canonical`, `Tucker` or `Dense`."""
    if hasattr(x, "weights") and hasattr(x, "factors"):
        return canonical(x.weights, x.factors)
    if hasattr(x, "core") and hasattr(x, "factors") and not hasattr(x, "domain"):
        factors = [host(f"x.factors[{k}]", f) for k, f in enumerate(x.factors)]
        return Tucker(host("x.core", x.core), factors)
    x = host("x", _xp.as_array("x", x))
    if x.ndim == 0 or 0 in x.shape:
        msg = f"x: needs at least one value on every axis, got shape {tuple(x.shape)}"
        raise ValueError(msg)
    return Dense(x)


def canonical(weights: Any, factors: Sequence[Any]) -> Canonical:
    w = host("weights", _xp.as_array("weights", weights))
    columns = [
        host(f"factors[{k}]", _xp.as_array(f"factors[{k}]", f)) for k, f in enumerate(factors)
    ]
    shapes = [tuple(f.shape) for f in columns]
    if w.ndim != 1 or any(len(s) != 2 or s[1] != w.size or s[0] == 0 for s in shapes) or not shapes:
        msg = f"factors: must have the shapes (n_k, R) for weights (R,), got {shapes}, {w.shape}"
        raise ValueError(msg)
    if not w.size:
        return Canonical(np.zeros(1), [np.zeros((f.shape[0], 1)) for f in columns])
    return Canonical(w, columns)


def host(name: str, x: Any) -> Any:
    """In double precision on the host, finite."""
    if _xp.is_traced(x):
        msg = f"{name}: its values are looked at, which a traced array does not have"
        raise TypeError(msg)
    face = _xp.face(x)
    if face is None:
        msg = (
            f"{name}: must be an array, a CanonicalTensor or a TuckerTensor, got {type(x).__name__}"
        )
        raise TypeError(msg)
    y = np.asarray(_xp.to_numpy(_validate.floating(name, face.enter(x))))
    y = y.astype(np.complex128 if y.dtype.kind == "c" else np.float64, copy=False)
    if not np.isfinite(y).all():
        msg = f"{name}: holds NaN or infinity; a function needs all values"
        raise NonFiniteError(msg)
    return y


def each(name: str, x: Any, d: int, low: int) -> tuple[int, ...] | None:
    if x is None:
        return None
    items = tuple(x) if isinstance(x, Sequence | np.ndarray) else (x,) * d
    if len(items) != d:
        msg = f"{name}: must be a number or {d} of them, got {x!r}"
        raise ValueError(msg)
    return tuple(_validate.integer(name, item, low) for item in items)


def intervals(domain: Any, d: int) -> tuple[tuple[float, float], ...]:
    box = checked_domain(domain)
    if len(box) != d:
        msg = f"domain: must be {d} pairs (a, b) for {d} variables, got {len(box)}"
        raise ValueError(msg)
    return box


def axes(grid: Any, domain: Any, shape: Sequence[int]) -> tuple[Any, list[Axis]]:
    d = len(shape)
    if isinstance(grid, str):
        _validate.choice("grid", grid, GRIDS)
        box = intervals([(-1.0, 1.0)] * d if domain is None else domain, d)
        axes = [Axis(_named(grid, n), grid == "chebyshev") for n in shape]
    else:
        vectors = [host(f"grid[{k}]", _xp.as_array(f"grid[{k}]", v)) for k, v in enumerate(grid)]
        sizes = [tuple(v.shape) for v in vectors]
        if sizes != [(n,) for n in shape]:
            msg = f"grid: must be {d} vectors of the lengths {tuple(shape)}, got shapes {sizes}"
            raise ValueError(msg)
        for k, v in enumerate(vectors):
            if v.dtype.kind == "c" or not (np.diff(v) > 0).all():
                msg = f"grid[{k}]: must be real and increasing"
                raise ValueError(msg)
        if domain is None:
            domain = [(v[0], v[-1]) for v in vectors]
        box = intervals(domain, d)
        axes = [_scaled(k, v, *box[k]) for k, v in enumerate(vectors)]
    for k, axis in enumerate(axes):
        n = axis.points.size
        if not axis.chebyshev and 1 < n < _splines.LEAST:
            msg = f"x: axis {k} has {n} points; splines need {_splines.LEAST}, or 1 for a constant"
            raise ValueError(msg)
    return box, axes


def _named(grid: str, n: int) -> Any:
    if grid == "chebyshev":
        return _chebyshev.points(n)
    if n == 1:
        return np.zeros(1)
    return np.linspace(-1, 1, n) if grid == "uniform" else (np.arange(1 - n, n, 2) / n)


def _scaled(k: int, v: Any, a: float, b: float) -> Axis:
    if v.size > 1:
        for side, gap, width in (
            ("below", v[0] - a, v[1] - v[0]),
            ("above", b - v[-1], v[-1] - v[-2]),
        ):
            if gap > width * (1 + 1e-9):
                msg = (
                    f"domain[{k}]: reaches {gap:g} {side} the coordinates, more than the distance "
                    f"{width:g} between them; data do not tell what is there"
                )
                raise ValueError(msg)
    return Axis((v - 0.5 * (a + b)) * (2.0 / (b - a)), False)
