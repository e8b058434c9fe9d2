"""Values of a Chebyshev-Tucker function: at scattered points, on grids, and its derivatives."""

import math
import numbers
import warnings
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import ConvergenceWarning
from linalgk.tensor import _chebyshev
from linalgk.tensor._ops import EVALUATE
from linalgk.tensor._unfold import mode_products


def call(f: Any, points: tuple[Any, ...], on_fail: Any) -> Any:
    """Values at points: d arrays that broadcast, or numbers."""
    return _evaluated(f, points, on_fail, ())[0]


def grad(f: Any, points: tuple[Any, ...], on_fail: Any) -> Any:
    """Derivatives (d, ...) at points."""
    return _evaluated(f, points, on_fail, slopes(f))[1]


def slopes(f: Any) -> tuple[Any, ...]:
    """Coefficients of the factors' derivatives, as long as the factors."""
    found = []
    for c, (a, b) in zip(f.factors, f.domain, strict=True):
        d = _chebyshev.derivative(c) * (2.0 / (b - a))
        found.append(np.concatenate([d, np.zeros((c.shape[0] - d.shape[0], c.shape[1]), c.dtype)]))
    return tuple(s.astype(f.factors[0].dtype) for s in found)


def on_grid(f: Any, axes: tuple[Any, ...], on_fail: Any) -> Any:
    """Values on a tensor grid: a table of polynomials for each axis, then mode products."""
    entered = _enter(f, axes, on_fail, grid=True)
    if any(x.ndim != 1 for x in entered.arrays):
        msg = f"axes: must be vectors, got shapes {[tuple(x.shape) for x in entered.arrays]}"
        raise ValueError(msg)
    core, factors = _coefficients(f, entered)
    with _lag.scope(entered.like):
        tables = [
            _chebyshev.basis(x, c.shape[0]) @ c
            for x, c in zip(entered.arrays, factors, strict=True)
        ]
        y = _combined(f, [mode_products(part, tables) for part in core])
        for k, inside in enumerate(entered.inside):
            if inside is not None:
                shape = [1] * k + [-1] + [1] * (f.ndim - k - 1)
                xp = _xp.namespace(y)
                y = xp.where(xp.reshape(inside, tuple(shape)), y, math.nan)
    return entered.leave(y)


# --- Points --------------------------------------------------------------------------------------


class _Entered(NamedTuple):
    """Points in [-1, 1] of one library and dtype; masks where some are not in the domain."""

    arrays: list[Any]
    inside: list[Any]
    dtype: str
    face: Any
    like: Any
    numbers: bool

    def leave(self, y: Any) -> Any:
        return self.face.leave(y, self.like)


def _enter(f: Any, points: tuple[Any, ...], on_fail: Any, *, grid: bool) -> _Entered:
    names = "axes" if grid else "points"
    if len(points) != f.ndim:
        msg = f"{names}: a function of {f.ndim} variables needs {f.ndim} arrays, got {len(points)}"
        raise TypeError(msg)
    policy = _validate.on_fail(on_fail)
    all_numbers = all(isinstance(x, numbers.Real) for x in points)
    arrays = {
        f"{names}[{k}]": x if isinstance(x, numbers.Real) else _xp.as_array(f"{names}[{k}]", x)
        for k, x in enumerate(points)
    }
    given = {name: x for name, x in arrays.items() if not isinstance(x, numbers.Real)}
    like = next(iter(given.values()), np.zeros(()))
    if given:
        _xp.same_family(**given)
    face = _xp.face(like)
    assert face is not None
    inside_like = face.enter(like)
    xp = _xp.namespace(inside_like)
    entered = {name: _validate.floating(name, face.enter(x)) for name, x in given.items()}
    dtype = np.result_type(*[_xp.dtype_name(x) for x in entered.values()], f.factors[0].dtype)
    if dtype.kind == "c":
        msg = f"{names}: must be real, got {[_xp.dtype_name(x) for x in entered.values()]}"
        raise TypeError(msg)
    wanted = _xp.dtype_of(xp, dtype.name)
    found, masks = [], []
    for (name, x), (a, b) in zip(arrays.items(), f.domain, strict=True):
        if name in entered:
            x = entered[name]
            x = x if x.dtype == wanted else xp.astype(x, wanted)
        else:
            # on the device of the others, which a tracer of JAX does not name
            x = (
                xp.zeros_like(xp.reshape(inside_like, (-1,))[:1], dtype=wanted)[0] + float(x)
                if given and inside_like.size
                else xp.asarray(float(x), dtype=wanted)
            )
        t, mask = _scaled(xp, x, a, b, name, policy)
        found.append(t)
        masks.append(mask)
    return _Entered(found, masks, str(dtype.name), face, like, all_numbers)


def _scaled(xp: Any, x: Any, a: float, b: float, name: str, policy: str) -> tuple[Any, Any]:
    """On [-1, 1], and a mask of those that lie there, None where all do."""
    t = (x - 0.5 * (a + b)) * (2.0 / (b - a))
    slack = 1.0 + 8.0 * float(np.finfo(_xp.dtype_name(t)).eps) * max(
        1.0, max(abs(a), abs(b)) / (b - a)
    )
    inside = xp.abs(t) <= slack
    t = xp.where(inside, xp.clip(t, -1.0, 1.0), xp.zeros_like(t))
    if _xp.is_traced(x) or policy == "nan":
        return t, inside
    if bool(xp.all(inside)):
        return t, None
    outside = ~np.asarray(_xp.to_numpy(inside))
    first = float(np.asarray(_xp.to_numpy(x))[outside].reshape(-1)[0])
    msg = (
        f"{name}: {int(outside.sum())} of {outside.size} lie outside the domain [{a:g}, {b:g}], "
        f"the first at {first:g}"
    )
    if policy == "raise":
        msg += "; on_fail='nan' gives NaN there"
        raise ValueError(msg)
    warnings.warn(f"{msg}; NaN there", ConvergenceWarning, stacklevel=6)
    return t, inside


def _coefficients(f: Any, entered: _Entered) -> tuple[list[Any], list[Any]]:
    """Real cores, one or the two of a complex function, and factors where the points are."""
    like = entered.arrays[0]
    xp, dtype = _xp.namespace(like), entered.dtype
    parts = [f.core] if f.core.dtype.kind != "c" else [f.core.real, f.core.imag]
    cores = [_moved(np.ascontiguousarray(p.astype(dtype, copy=False)), xp, like) for p in parts]
    return cores, [_moved(c.astype(dtype, copy=False), xp, like) for c in f.factors]


def _moved(x: Any, xp: Any, like: Any) -> Any:
    return x if xp is np else _xp.from_numpy(x, xp, like=like)


def _combined(f: Any, parts: list[Any]) -> Any:
    return parts[0] if f.core.dtype.kind != "c" else parts[0] + 1j * parts[1]


def _evaluated(f: Any, points: Any, on_fail: Any, slopes: tuple[Any, ...]) -> tuple[Any, Any]:
    """Values (...) and derivatives (d, ...), None where no slopes are given."""
    entered = _enter(f, points, on_fail, grid=False)
    xp = _xp.namespace(entered.arrays[0])
    with _lag.scope(entered.like):
        arrays = xp.broadcast_arrays(*entered.arrays)
        shape = tuple(arrays[0].shape)
        x = _lag.contiguous(xp.stack([xp.reshape(a, (-1,)) for a in arrays]))
        cores, factors = _coefficients(f, entered)
        moved = tuple(_moved(s.astype(entered.dtype), xp, x) for s in slopes)
        rows = 1 + len(slopes)
        if x.shape[1]:
            threads = _config.num_threads()
            found = [EVALUATE(x, c, tuple(factors), moved, threads) for c in cores]
        else:
            found = [xp.zeros((rows, 0), dtype=x.dtype)] * len(cores)
        y = _combined(f, found)
        for mask in entered.inside:
            if mask is not None:
                y = xp.where(xp.reshape(xp.broadcast_to(mask, shape), (1, -1)), y, math.nan)
        y = xp.reshape(y, (rows, *shape))
    if entered.numbers:
        y = np.asarray(y)
        value = complex(y[0]) if y.dtype.kind == "c" else float(y[0])
        return value, y[1:] if slopes else None
    return entered.leave(y[0, ...]), entered.leave(y[1:, ...]) if slopes else None


# --- Records -------------------------------------------------------------------------------------


def explain_values(
    core: Any, factors: Any, domain: Any = None, *, points: int = 1, **_: Any
) -> Explanation:
    """What values at ``points`` points of such a function would cost."""
    del domain
    shapes = [tuple(int(n) for n in f.shape) for f in factors]
    planes = 2 if _xp.dtype_name(core) in _xp.COMPLEX else 1
    real = _xp.REAL[_xp.dtype_name(core)]
    ranks = math.prod(r for _, r in shapes)
    flops = 2.0 * planes * points * (sum(m * r for m, r in shapes) + ranks)
    moved = float(np.dtype(real).itemsize * points * (len(shapes) + planes))
    x = np.empty((len(shapes), 0), real)
    chosen, why = EVALUATE.choose(x, np.empty((1,) * len(shapes), real), tuple(factors))
    runs = why if chosen is not None else f"reference ({why})"
    reason = "polynomials by recurrence; a complex core is two real ones"
    return Explanation("ChebTucker", "recurrence", reason, {EVALUATE.name: runs}, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Three variables."""
    m, r = {"small": (9, 3), "medium": (65, 8), "large": (130, 20)}[size]
    rng = np.random.default_rng(rng)
    factors = [xp.asarray(np.linalg.qr(rng.standard_normal((m, r)))[0]) for _ in range(3)]
    return (xp.asarray(rng.standard_normal((r,) * 3)), factors, [(-1.0, 1.0)] * 3), {}
