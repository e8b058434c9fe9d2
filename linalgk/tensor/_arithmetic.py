"""Sums, products and powers of functions, and functions of functions."""

import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from linalgk import _validate
from linalgk.errors import NonFiniteError
from linalgk.tensor import _chebyshev, _construct
from linalgk.tensor._combine import (
    F,
    absolute,
    at_points,
    eps,
    grid_shape,
    grid_values,
    same_domain,
    settle,
    total,
)
from linalgk.tensor._compress import truncate
from linalgk.tensor._extrema import extremum

# Numbers of an intermediate array of a product; above it the product is constructed by sampling.
LARGEST = 1 << 25
# Numbers of a factor of a product whose singular values are taken.
WIDEST = 1 << 23
# Least tolerance of a construction: values of a function have rounding errors.
CONSTRUCTED = 5e-13
# Values on which a composition's sensitivity is looked at.
PROBES = 1 << 12


# --- Operands ------------------------------------------------------------------------------------


def _number(other: Any) -> Any:
    """A number as one of Python's or NumPy's, None for anything else."""
    if isinstance(other, np.ndarray) and other.ndim == 0:
        other = other[()]
    if isinstance(other, np.bool_):
        other = float(other)
    if not isinstance(other, numbers.Number):
        return None
    number: Any = other
    if not isinstance(other, np.generic):
        # NumPy knows neither fractions nor decimals
        is_complex = isinstance(other, numbers.Complex) and not isinstance(other, numbers.Real)
        number = complex(number) if is_complex else float(number)
    value = complex(number)
    if not (math.isfinite(value.real) and math.isfinite(value.imag)):
        msg = f"other: must be finite, got {other!r}"
        raise NonFiniteError(msg)
    return number


def _constant(f: F, number: Any) -> F:
    """A number as a function on the domain of f."""
    core = np.full((1,) * f.ndim, number, dtype=np.result_type(f.dtype, number))
    factors = [np.ones((1, 1), core.dtype.type(0).real.dtype)] * f.ndim
    return type(f)(core, factors, f.domain, scale=float(abs(number)), method="constant")


def _pair(f: F, other: Any) -> F | None:
    """The other operand as a function on the same domain; None where it is none."""
    if isinstance(other, type(f)):
        same_domain(f, other)
        return other
    number = _number(other)
    return None if number is None else _constant(f, number)


# --- Sums ----------------------------------------------------------------------------------------


def add(f: F, other: Any) -> F:
    """``f + other``."""
    g = _pair(f, other)
    if g is None:
        return NotImplemented  # type: ignore[no-any-return]
    shape = grid_shape([max(m) + 1 for m in zip(f.degrees, g.degrees, strict=True)])
    exact = sum(grid_values(h.core, h.factors, shape) for h in (f, g))
    core, bases = total([(f.core, f.factors), (g.core, g.factors)])
    errors = [absolute(h) for h in (f, g)]
    return settle(
        [f, g], core, bases, method="add", inherited=sum(errors), tol=max(errors),
        exact=exact, shape=shape,
    )  # fmt: skip


def recompress(f: F, tol: Any) -> F:
    """The least ranks and degrees for this tolerance."""
    tol = _validate.real_between("tol", tol, 0.0, 1.0)
    return settle(
        [f], f.core, f.factors, method=f.method, inherited=f.error * f.scale, tol=tol * f.scale
    )


def part(f: F, name: str) -> F:
    """The real or imaginary part."""
    if f.dtype.kind != "c":
        return f if name == "real" else _constant(f, f.dtype.type(0))
    return settle([f], getattr(f.core, name), f.factors, method=name, inherited=absolute(f))


def conj(f: F) -> F:
    """The complex conjugate."""
    return f._with(f.core.conj(), f.factors) if f.dtype.kind == "c" else f


# --- Products ------------------------------------------------------------------------------------


def multiply(f: F, other: Any) -> F:
    """``f * other``."""
    number = None if isinstance(other, type(f)) else _number(other)
    if number is not None:
        return _scaled(f, number)
    g = _pair(f, other)
    if g is None:
        return NotImplemented  # type: ignore[no-any-return]
    lengths = [m + n + 1 for m, n in zip(f.degrees, g.degrees, strict=True)]
    inherited = absolute(f) * g.scale + absolute(g) * f.scale + absolute(f) * absolute(g)
    tol = max(inherited / 2, eps(np.result_type(f.dtype, g.dtype)) * f.scale * g.scale)
    found = _product(f, g, lengths, 0.3 * tol)
    if found is None:
        return _constructed(
            lambda *x: f(*x) * g(*x), [f, g], tol / max(f.scale * g.scale, 1e-300), "multiply",
            lambda _: inherited,
        )  # fmt: skip
    shape = grid_shape(lengths)
    exact = grid_values(f.core, f.factors, shape) * grid_values(g.core, g.factors, shape)
    return settle(
        [f, g], *found, method="multiply", inherited=inherited, tol=tol, exact=exact, shape=shape
    )


def _scaled(f: F, number: Any, by: Callable[[Any, Any], Any] = operator.mul) -> F:
    """Multiplied by a number, or divided."""
    if number == 0:
        return _constant(f, np.result_type(f.dtype, number).type(0))
    # NumPy's promotion: a Python number keeps the precision
    core = by(f.core, number)
    real = core.dtype.type(0).real.dtype
    factors = [c.astype(real, copy=False) for c in f.factors]
    return f._with(core, factors, scale=by(f.scale, float(abs(number))))


def _product(f: Any, g: Any, lengths: list[int], tol: float) -> tuple[Any, Any] | None:
    """Core and factors of the product, None where what they are made of is too large.

    Either of the values on the whole grid, or of the Khatri-Rao products of the factors' values,
    each first reduced to what the two cores let through.
    """
    pairs = [r * s for r, s in zip(f.ranks, g.ranks, strict=True)]
    on_grid = math.prod(lengths)
    # operations: a Gram matrix of each unfolding; a singular value decomposition of each factor
    costs = (
        on_grid * sum(lengths),
        20 * sum(n * p * min(n, p) for n, p in zip(lengths, pairs, strict=True))
        + math.prod(pairs[1:]) * min(lengths[0], pairs[0]) * max(f.ranks[0], pairs[-1]),
    )
    if on_grid <= LARGEST and costs[0] <= costs[1]:
        return _grid_product(f, g, lengths, tol)
    if max(n * p for n, p in zip(lengths, pairs, strict=True)) <= WIDEST:
        found = _khatri_rao_product(f, g, lengths, tol)
        if found is not None:
            return found
    return _grid_product(f, g, lengths, tol) if on_grid <= LARGEST else None


def _grid_product(f: Any, g: Any, lengths: list[int], tol: float) -> tuple[Any, Any]:
    c = grid_values(f.core, f.factors, lengths) * grid_values(g.core, g.factors, lengths)
    for k in range(c.ndim):
        c = _chebyshev.coefficients(c, k)
    found = truncate(c, tol=tol)
    return found.core, found.factors


def _khatri_rao_product(f: Any, g: Any, lengths: list[int], tol: float) -> tuple[Any, Any] | None:
    bases, maps = [], []
    for k, n in enumerate(lengths):
        a, b = (at_points(h.factors[k].astype(np.float64), n) for h in (f, g))
        columns = _chebyshev.coefficients((a[:, :, None] * b[:, None, :]).reshape(n, -1))
        # the size of a slice of the core is how much its column matters
        weight = np.multiply.outer(_slices(f, k), _slices(g, k)).reshape(-1)
        u, s, _ = np.linalg.svd(columns * weight, full_matrices=False)
        tails = np.sqrt(np.cumsum((s**2)[::-1])[::-1])
        keep = max(int(np.count_nonzero(tails > tol / len(lengths))), 1)
        u = u[:, :keep]
        bases.append(u)
        maps.append((u.T @ columns).reshape(keep, a.shape[1], b.shape[1]))
    ranks = [r * s for r, s in zip(f.ranks, g.ranks, strict=True)]
    if maps[0].shape[0] * math.prod(ranks[1:]) > LARGEST:
        return None
    return _contracted(f.core, g.core, maps), bases


def _contracted(a: Any, b: Any, maps: list[Any]) -> Any:
    """``sum_ij M_1[:, i_1, j_1] x ... x M_d[:, i_d, j_d] a[i] b[j]`` without the product a x b."""
    p, r, s = maps[0].shape
    x = np.moveaxis(maps[0], 2, 1).reshape(p * s, r) @ a.reshape(r, -1)
    x = np.moveaxis(x.reshape(p, s, -1), 1, 2).reshape(-1, s) @ b.reshape(s, -1)
    x = x.reshape(p, *a.shape[1:], *b.shape[1:])
    for m in maps[1:]:
        # modes: those done, the rest of a, the rest of b
        rest = a.ndim - 1
        done = x.ndim - rest - (b.ndim - 1)
        x = np.moveaxis(x, (done, done + rest), (-2, -1))
        x = np.tensordot(x, m, axes=((-2, -1), (1, 2)))
        a, b = a[0], b[0]
        x = np.moveaxis(x, -1, done)
    return x


def _slices(f: Any, k: int) -> Any:
    flat = np.moveaxis(f.core, k, 0).reshape(f.ranks[k], -1)
    return np.linalg.norm(flat.astype(np.result_type(flat.dtype, np.float64)), axis=1)


# --- Quotients and powers ------------------------------------------------------------------------


def divide(f: F, other: Any) -> F:
    """``f / other``."""
    number = None if isinstance(other, type(f)) else _number(other)
    if number is not None:
        if number == 0:
            msg = "other: must not be zero"
            raise ZeroDivisionError(msg)
        return _scaled(f, number, operator.truediv)
    g = _pair(f, other)
    if g is None:
        return NotImplemented  # type: ignore[no-any-return]
    return _quotient(f, g)


def over(number: Any, f: F) -> F:
    """``number / f``."""
    value = _number(number)
    if value is None:
        return NotImplemented  # type: ignore[no-any-return]
    return _quotient(_constant(f, value), f)


def _quotient(f: F, g: F) -> F:
    least = _least(g)
    relative = f.error + g.error * g.scale / least

    def inherited(scale: float) -> float:
        return (absolute(f) + scale * absolute(g)) / least

    return _constructed(lambda *x: f(*x) / g(*x), [f, g], relative, "divide", inherited)


def _least(g: Any) -> float:
    """The least absolute value; an error where the function has a zero, as far as can be told."""
    if g.dtype.kind == "c":
        square = multiply(g, conj(g)).real
        least = math.sqrt(max(extremum(square, -1).value - absolute(square), 0.0))
    else:
        shape = grid_shape([1] * g.ndim)
        sign = 1 if grid_values(g.core, g.factors, shape).flat[0] > 0 else -1
        least = sign * extremum(g, -sign).value
    if least <= absolute(g):
        got = "values of either sign" if least < -absolute(g) else "a zero up to its error"
        msg = f"other: must have no zeros in the domain to be divided by, got {got}"
        raise ValueError(msg)
    return float(least)


def power(f: F, n: Any) -> F:
    """``f**n`` for an integer, by squaring."""
    if isinstance(n, bool) or not isinstance(n, numbers.Integral):
        if not isinstance(n, numbers.Number):
            return NotImplemented  # type: ignore[no-any-return]
        msg = f"power: must be an integer, got {n!r}; f.compose(lambda v: v**{n!r}) takes others"
        raise TypeError(msg)
    n = operator.index(n)
    one = _constant(f, f.dtype.type(1))
    if n < 0:
        return _quotient(one, power(f, -n))
    if n < 2:
        return f if n else one
    root = power(f, n // 2)
    square = multiply(root, root)
    return multiply(square, f) if n % 2 else square


def compose(f: F, func: Callable[[Any], Any], tol: Any) -> F:
    """``func(f)``, constructed anew."""
    if not callable(func):
        msg = f"func: must be callable, got {type(func).__name__}"
        raise TypeError(msg)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 0.0, 1.0, low_open=True)
    probes = grid_values(f.core, f.factors, grid_shape([m + 1 for m in f.degrees], PROBES))
    probes = probes.reshape(-1)

    def inherited(_: float) -> float:
        """What an error of f makes of func, where it is seen to be defined."""
        step = absolute(f)
        with np.errstate(all="ignore"):
            here = np.asarray(func(probes))
            moved = [np.abs(np.asarray(func(probes + s)) - here) for s in (-step, step)]
        changes = np.concatenate([m[np.isfinite(m)] for m in moved])
        return float(np.max(changes, initial=0.0))

    return _constructed(
        lambda *x: func(f(*x)), [f], f.error if tol is None else tol, "compose", inherited,
        exact=tol is not None,
    )  # fmt: skip


def _constructed(
    func: Callable[..., Any], parents: Sequence[F], tol: float, method: str,
    inherited: Callable[[float], float], *, exact: bool = False,
) -> F:  # fmt: skip
    """A function sampled anew, with the errors of what it is made of."""
    first = parents[0]
    real = np.result_type(*[f.factors[0].dtype for f in parents])
    tol = tol if exact else min(max(tol, CONSTRUCTED, 10 * eps(real)), 0.1)
    h = _construct.constructed(func, first.domain, tol=tol)
    scale = h.scale
    extra = inherited(scale)
    relative = extra / scale if scale else 0.0
    certificate = h.certificate._replace(tail=h.certificate.tail + relative)
    made = type(first)(
        h.core, h.factors, h.domain, error=h.error + relative, scale=scale,
        converged=h.converged and all(f.converged for f in parents), method=method,
        certificate=certificate, evaluations=h.evaluations,
    )  # fmt: skip
    return made if made.factors[0].dtype == real else made.astype(real)
