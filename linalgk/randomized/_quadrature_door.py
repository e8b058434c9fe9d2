"""The door of log-determinants and quadratic forms: options, functions, ends of the spectrum."""

import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import Given
from linalgk.randomized._estimate import (
    Estimate,
    Found,
    Probes,
    Watch,
    check_level,
    check_square,
    check_tol,
    each,
    not_positive,
)
from linalgk.randomized._lanczos import FUNCTIONS, Function, Spectrum
from linalgk.randomized._matrix import Matrix, members
from linalgk.randomized._slq import Plan, gershgorin
from linalgk.sketch import Philox


class Options:
    """What both functions take."""

    def __init__(
        self, function: str, n_matvecs: Any, tol: Any, level: Any, steps: Any,
        probes: Any, block: Any, check_finite: Any, on_fail: Any, callback: Any, progress: bool,
    ) -> None:  # fmt: skip
        self.function, self.tol, self.level = function, tol, check_level(level)
        least = 1 if n_matvecs is None else n_matvecs
        self.budget = None if n_matvecs is None else _validate.integer("n_matvecs", least, 3)
        self.steps = None if steps is None else _validate.integer("steps", steps, 1)
        self.block = None if block is None else _validate.integer("block", block, 1)
        if probes is not None:
            _validate.choice("probes", probes, get_args(Probes))
        self.kind: Any = probes or "signs"
        if self.budget is not None and self.steps is not None and self.budget <= self.steps:
            msg = f"n_matvecs: must be above steps = {self.steps}, got {self.budget}"
            raise ValueError(msg)
        self.check = _validate.check_finite(check_finite)
        self.policy = _validate.on_fail(on_fail)
        self.watch = Watch(function, callback, progress)

    def plan(self, found: Given, f: Function) -> tuple[int, Plan]:
        n = check_square(found)
        tol = check_tol(self.tol, found.eps)
        return n, Plan(f, self.steps, tol, self.level, self.budget, self.kind, self.block)

    def each(
        self, found: Given, solve: Callable[[int, Matrix], Found], source: Philox,
        shape: tuple[int, ...], method: str,
    ) -> Estimate:  # fmt: skip
        try:
            return each(
                self.function, found, members(found), solve, source.key, shape=shape, real=True,
                check=self.check, policy=self.policy, quadrature=True, method=method,
            )  # fmt: skip
        finally:
            self.watch.close()


def function_of(f: Any, signs: Any) -> Function:
    if isinstance(f, str):
        _validate.choice("f", f, FUNCTIONS)
        if signs is not None:
            msg = f"derivative_signs: are those of a callable f; they are known of {f!r}"
            raise ValueError(msg)
        return FUNCTIONS[f]
    if not callable(f):
        msg = f"f: must be a name or callable, got {type(f).__name__}"
        raise TypeError(msg)
    signs = getattr(f, "derivative_signs", None) if signs is None else signs
    even, odd = (0, 0) if signs is None else signs
    for sign in (even, odd):
        _validate.choice("derivative_signs", sign, (-1, 0, 1))
    return Function(getattr(f, "__name__", "f"), f, int(even), int(odd))


def ends_of(bounds: Any, found: Given) -> list[tuple[float, float]]:
    """Lower and upper end for each member, NaN where not given."""
    count = math.prod(found.batch)
    if bounds is None:
        return [(math.nan, math.nan)] * count
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        msg = f"bounds: must be a pair of the least and the largest eigenvalue, got {bounds!r}"
        raise ValueError(msg)
    columns = []
    for end in bounds:
        values = np.asarray(math.nan if end is None else _xp.to_numpy(end), np.float64)
        if values.shape not in ((), found.batch):
            msg = (
                f"bounds: must be numbers or have the batch shape {found.batch}, got {values.shape}"
            )
            raise ValueError(msg)
        columns.append(np.broadcast_to(values, found.batch).reshape(-1))
    low, high = columns
    if (low > high).any():
        msg = f"bounds: the lower one must not be above the upper one, got {bounds!r}"
        raise ValueError(msg)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def spectrum_of(a: Matrix, ends: tuple[float, float], f: Function) -> tuple[Spectrum, float]:
    """The better of what the caller and Gershgorin know."""
    known, least = Spectrum(-math.inf, math.inf, False, False), math.inf
    if math.isnan(ends[0]) or math.isnan(ends[1]):
        known, least = gershgorin(a)
    if f.domain == "positive" and least <= 0:
        why = f"a is not positive definite{{}}: the least entry of its diagonal is {least:.3g}"
        raise not_positive(why)
    low, high = known.low, known.high
    sure_low, sure_high = known.sure_low, known.sure_high
    if not math.isnan(ends[0]):
        low, sure_low = max(low, ends[0]), True
    if not math.isnan(ends[1]):
        high, sure_high = min(high, ends[1]), True
    return Spectrum(low, high, sure_low, sure_high), least


def vectors_of(x: Any, found: Given) -> tuple[list[Any], tuple[int, ...]]:
    """Rows (k, n) for each member, and the shape of a member's values."""
    n = found.shape[0]
    x = _xp.as_array("x", x)
    if not (found.sparse or found.operator):
        _xp.same_family(a=found.original, x=x)
    flat = _validate.floating("x", _xp.face(x).enter(x))  # type: ignore[union-attr]
    if isinstance(found.flat, np.ndarray):
        flat = np.asarray(flat)
    batch = found.batch
    if tuple(flat.shape) == (*batch, n):
        flat = flat[..., None]
        shape: tuple[int, ...] = ()
    elif flat.ndim == len(batch) + 2 and tuple(flat.shape[:-1]) == (*batch, n):
        shape = (int(flat.shape[-1]),)
    else:
        msg = f"x: must have shape {(*batch, n)} or {(*batch, n, 'k')}, got {tuple(flat.shape)}"
        raise ValueError(msg)
    xp = _xp.namespace(flat)
    if _xp.dtype_name(flat) in _xp.COMPLEX and found.dtype not in _xp.COMPLEX:
        msg = f"x: is complex and a is {found.dtype}; pass a + 0j"
        raise TypeError(msg)
    flat = xp.astype(flat, _xp.dtype_of(xp, found.dtype), copy=False)
    flat = xp.reshape(flat, (math.prod(batch), n, shape[0] if shape else 1))
    turned = [xp.matrix_transpose(flat[i, :, :]) for i in range(flat.shape[0])]
    return [np.ascontiguousarray(t) if xp is np else t for t in turned], shape
