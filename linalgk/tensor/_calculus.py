"""Integrals, derivatives and inner products: small matrices for each mode, no grid."""

import operator
from typing import Any

import numpy as np

from linalgk import _validate
from linalgk.tensor import _chebyshev
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
from linalgk.tensor._compress import mixed_products
from linalgk.tensor._unfold import mode_product

# --- Integrals -----------------------------------------------------------------------------------


def integrate(f: Any, axis: Any) -> Any:
    """Integral over all variables, a number, or over some, a function of the others."""
    chosen = range(f.ndim) if axis is None else _axes(axis, f.ndim)
    if not len(chosen):
        return f
    core, volume = f.core.astype(_double(f)), 1.0
    for k in sorted(chosen, reverse=True):
        a, b = f.domain[k]
        volume *= b - a
        moments = _chebyshev.integrals(f.degrees[k] + 1) @ f.factors[k].astype(np.float64)
        core = np.moveaxis(core, k, -1) @ (0.5 * (b - a) * moments)
    if len(chosen) == f.ndim:
        return complex(core) if core.dtype.kind == "c" else float(core)
    rest = [k for k in range(f.ndim) if k not in chosen]
    return settle(
        [f], core, [f.factors[k] for k in rest], method="integrate",
        inherited=absolute(f) * volume, domain=[f.domain[k] for k in rest],
    )  # fmt: skip


def _double(f: Any) -> Any:
    return np.complex128 if f.dtype.kind == "c" else np.float64


def _axes(axis: Any, ndim: int) -> list[int]:
    found = [_axis(k, ndim) for k in (axis if isinstance(axis, tuple | list) else (axis,))]
    if len(set(found)) < len(found):
        msg = f"axis: must name each variable once, got {axis}"
        raise ValueError(msg)
    return found


def _axis(axis: Any, ndim: int) -> int:
    try:
        k = operator.index(axis)
    except TypeError:
        msg = f"axis: must be an integer, got {type(axis).__name__}"
        raise TypeError(msg) from None
    if not -ndim <= k < ndim:
        msg = f"axis: must be from {-ndim} to {ndim - 1} for {ndim} variables, got {k}"
        raise ValueError(msg)
    return k % ndim


# --- Derivatives ---------------------------------------------------------------------------------


def diff(f: F, axis: Any, order: Any) -> F:
    """Derivative by one variable."""
    k, order = _axis(axis, f.ndim), _validate.integer("order", order, 0)
    if order == 0:
        return f
    factors = list(f.factors)
    factors[k] = _derived(f, k, order)
    return settle([f], f.core, factors, method="diff", inherited=absolute(f) * _growth(f, k, order))


def laplacian(f: F) -> F:
    """Sum of the second derivatives by all variables."""
    terms = []
    for k in range(f.ndim):
        factors = list(f.factors)
        factors[k] = _derived(f, k, 2)
        terms.append((f.core, factors))
    shape = grid_shape([m + 1 for m in f.degrees])
    values = [grid_values(core, factors, shape) for core, factors in terms]
    # a harmonic function's terms cancel: rounding is measured by the terms
    rounding = eps(f.dtype) * sum(float(np.max(np.abs(v))) for v in values)
    inherited = absolute(f) * sum(_growth(f, k, 2) for k in range(f.ndim))
    core, bases = total(terms)
    return settle(
        [f], core, bases, method="laplacian", inherited=inherited, tol=rounding,
        exact=sum(values), shape=shape,
    )  # fmt: skip


def _derived(f: Any, k: int, order: int) -> Any:
    """The factor's derivative, in double precision."""
    a, b = f.domain[k]
    c = f.factors[k].astype(np.float64)
    for _ in range(order):
        c = _chebyshev.derivative(c) * (2.0 / (b - a))
    return c


def _growth(f: Any, k: int, order: int) -> float:
    """How much larger an error may get: the derivative of ``T_n`` at an end of the interval.

    That is what V. A. Markov's inequality allows a polynomial of degree n. Here n is the first
    degree that was left out.
    """
    a, b = f.domain[k]
    n, growth = max(f.degrees[k] + 1, order), 1.0
    for j in range(order):
        growth *= (n * n - j * j) / (2 * j + 1) * (2.0 / (b - a))
    return growth


# --- Inner products ------------------------------------------------------------------------------


def inner(f: Any, g: Any) -> Any:
    """Integral of ``conj(f) g``."""
    if not isinstance(g, type(f)):
        msg = f"other: must be a ChebTucker, got {type(g).__name__}"
        raise TypeError(msg)
    same_domain(f, g)
    y = g.core.astype(_double(g))
    for k in range(f.ndim):
        # enough points for the product's degree
        n = f.degrees[k] + g.degrees[k] + 1
        y = _product(y, _weighted(f, k, n).T @ _weighted(g, k, n), k)
    value = np.vdot(f.core.astype(_double(f)), y)
    return complex(value) if value.dtype.kind == "c" else float(value)


def norm(f: Any) -> float:
    """Root of the integral of ``|f|^2``, from triangles and not from a square that cancels."""
    triangles = [
        np.linalg.qr(_weighted(f, k, 2 * f.degrees[k] + 1), mode="r") for k in range(f.ndim)
    ]
    return float(np.linalg.norm(mixed_products(f.core.astype(_double(f)), triangles)))


def _product(x: Any, matrix: Any, mode: int) -> Any:
    if x.dtype.kind == "c":
        matrix = matrix.astype(x.dtype)
    return mode_product(np.ascontiguousarray(x), np.ascontiguousarray(matrix), mode)


def _weighted(f: Any, k: int, n: int) -> Any:
    """Values of the factor at n points, times the roots of the Clenshaw-Curtis weights."""
    a, b = f.domain[k]
    values = at_points(f.factors[k].astype(np.float64), n)
    return np.sqrt(0.5 * (b - a) * weights(n))[:, None] * values


def weights(n: int) -> Any:
    """Of the integral over [-1, 1] at n Chebyshev points, exact below degree n; all positive."""
    import scipy.fft

    if n == 1:
        return np.full(1, 2.0)
    w = scipy.fft.dct(_chebyshev.integrals(n), type=1) / (n - 1)
    w[[0, -1]] *= 0.5
    return w
