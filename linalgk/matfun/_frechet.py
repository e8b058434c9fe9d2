"""Fréchet derivatives of functions of flat batches of matrices, (b, n, n).

With eigenvectors at hand, ``L(A, G) = V (f[w_i, w_j] * V^H G V) V^H`` (Daleckii-Krein), exact and
finite at repeated eigenvalues. Without symmetry, the function of ``[[A, G], [0, A]]``.
"""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk.matfun import _divided, _ops, _static
from linalgk.matfun._lyapunov import solve_lyapunov
from linalgk.matfun._paths import asymmetry, scan, solve
from linalgk.matfun._spectral import (
    OK,
    Call,
    Result,
    Scalar,
    assemble,
    blank,
    blas_for,
    decompose,
    evaluate,
    put,
    take,
    usable,
)

# Largest order of the short way, for which no BLAS takes a second thread, and largest entry.
SMALL, _WIDE = 64, 1e12
_EPS = {name: float(np.finfo(name).eps) for name in ("float32", "float64")}
_HALF = Fraction(1, 2)
ROOT = Scalar("power", _HALF)


class Spectrum(NamedTuple):
    """Eigenvalues (b, n) and eigenvectors (b, n, n) of Hermitian matrices."""

    w: Any
    v: Any


class Shape(NamedTuple):
    """What a derivative has to know of a call."""

    function: Scalar
    rcond: float | None = None
    signed: bool = False
    threads: int = 1
    floor: float | None = None  # what counts as zero relative to the largest, if not eps


def shape_of(call: Call, dtype: str) -> Shape:
    """The same for a call on arrays of this dtype."""
    signed = dtype in _xp.COMPLEX and call.assume_a != "pos" and call.rcond is None
    return Shape(call.function, call.rcond, signed and call.function.fractional, call.threads)


def spectral(flat: Any, call: Call) -> tuple[Result, Spectrum]:
    """The function and what its derivatives need; members that are not Hermitian are failures."""
    if _xp.is_cuda(flat):
        return _spectral_on_device(flat, call)
    short = quick(flat, call, call.threads)
    if short is not None:
        return short
    status, largest, _, exact = scan(flat, call)
    bad = status != OK
    a = usable(flat, status) if bad.any() else flat
    found = decompose(a, np.where(bad, 1.0, largest), exact, call)
    result = assemble(a, found, call)
    status = np.where(bad, status, result.status)
    w = found.w
    if call.rel_damp is not None:
        w = w + (call.rel_damp * np.maximum(w.max(axis=1), 0))[:, None]
    w = np.ldexp(w, found.shift[:, None])
    w = np.where((status != OK)[:, None], np.nan, w)
    if not isinstance(flat, np.ndarray):
        real = _xp.REAL[_xp.dtype_name(flat)]
        w = _xp.from_numpy(w, _xp.namespace(flat), like=flat, dtype=real)
    return result._replace(x=blank(result.x, status != OK), status=status), Spectrum(w, found.v)


def quick(flat: Any, call: Call, threads: int) -> tuple[Result, Spectrum] | None:
    """The same in few calls, for small real matrices that are clearly positive definite."""
    if not isinstance(flat, np.ndarray) or flat.dtype.kind != "f" or flat.shape[-1] > SMALL:
        return None
    plain = _plain(call.function)
    if plain is None or call.rel_damp is not None or call.rcond is not None:
        return None
    largest, defect, _ = _ops.HERMITIAN_SCAN(flat, threads)
    eps = _EPS[flat.dtype.name]
    h = flat
    if defect.any():
        if not (defect <= asymmetry(call, flat.shape[-1], eps) * largest).all():
            return None
        h = 0.5 * (flat + _ops.adjoint(flat))
    w, v = _ops.EIGH(h, threads)
    wide = w.astype(np.float64, copy=False)
    low, high = wide[:, 0], wide[:, -1]
    # in this range powers neither overflow nor underflow; NaN is nowhere
    if not ((low > 2 * eps * high) & (high < _WIDE) & (low > 1 / _WIDE)).all():
        return None
    # of mantissas near one, so that scaled matrices have the same digits
    step, over, half = plain
    units = -(-np.frexp(high)[1] // step)
    near = np.ldexp(wide, -step * units[:, None])
    f = np.sqrt(near) if half else evaluate(call.function, near)
    f = 1 / f if half and over < 0 else f
    scale = np.ldexp(1.0, units * over).astype(flat.dtype)
    x = _ops.GRAM(v, np.sqrt(f).astype(flat.dtype), scale, threads)
    good = np.zeros(len(w), int)
    return Result(x, good, good, low, "eigh"), Spectrum(wide, v)


@functools.lru_cache(maxsize=64)
def _plain(function: Scalar) -> tuple[int, int, bool] | None:
    """Root, numerator, and whether it is a square root or its inverse; asked once, being slow."""
    if function.factors is None:
        return None
    r = function.power
    return function.root, r.numerator, abs(r) == _HALF


def _spectral_on_device(flat: Any, call: Call) -> tuple[Result, Spectrum]:
    xp = _xp.namespace(flat)
    status, _, _, _ = scan(flat, call)
    damp = 0 if call.rel_damp is None else call.rel_damp
    found = _static.by_spectrum(usable(flat, status), call._replace(rel_damp=None), damp)
    if not (_xp.to_numpy(found.good) & (status == OK)).all():
        # it looks at every member and finds the words
        status = solve(flat, call._replace(method="eigh")).status
    x = blank(found.x, status != OK)
    zeros = np.zeros(len(status), int)
    lower = _xp.to_numpy(xp.min(found.w, axis=-1)).astype(np.float64)
    bad = _xp.from_numpy(status != OK, xp, like=flat)
    w = xp.where(bad[:, None], xp.full_like(found.w, float("nan")), found.w)
    return Result(x, status, zeros, lower, "eigh"), Spectrum(w, found.v)


def _rule(w: Any, shape: Shape, eps: float) -> _divided.Rule:
    """The convention for numbers that are zero to the eps of the matrices."""
    xp = _xp.namespace(w)
    top = xp.max(xp.abs(w), axis=-1)[:, None, None]
    # what a root takes for zero, as an inverse does for singular
    null = (eps if shape.floor is None else shape.floor) * top
    if not shape.function.fractional or shape.function.inverse:
        null = -xp.ones_like(top)
    cut = None if shape.rcond is None else shape.rcond * top
    return _divided.Rule(shape.function, null, cut, shape.signed)


def _prepared(w: Any, shape: Shape, eps: float) -> Any:
    """Eigenvalues as the function took them: what rounding left below zero is zero."""
    xp = _xp.namespace(w)
    if not shape.function.fractional:
        return w
    clamped = xp.maximum(w, xp.zeros_like(w))
    if not shape.signed:
        return clamped
    top, low = xp.max(xp.abs(w), axis=-1), xp.min(w, axis=-1)
    return xp.where((low >= -w.shape[-1] * eps * top)[:, None], clamped, w)


def _usable(spectrum: Spectrum) -> tuple[Spectrum, Any]:
    """Something in place of members that failed, whose eigenvalues are NaN, and which they are."""
    w, v = spectrum
    xp = _xp.namespace(w)
    bad = ~xp.all(xp.isfinite(w), axis=-1)
    if isinstance(bad, np.ndarray) and not bad.any():
        return spectrum, None
    w = xp.where(bad[:, None], xp.ones_like(w), w)
    return Spectrum(w, xp.where(bad[:, None, None], _ops.eye_like(v), v)), bad


def _answered(y: Any, bad: Any, *directions: Any) -> Any:
    """NaN in members that failed, but zero where a direction is: nobody asked for those."""
    if bad is None:
        return y
    xp = _xp.namespace(y)
    asked = bad
    for g in directions:
        asked = asked & xp.any(g != 0, axis=(-2, -1))
    y = xp.where(bad[:, None, None], xp.zeros_like(y), y)
    return xp.where(asked[:, None, None], xp.full_like(y, float("nan")), y)


def roots_of(spectrum: Spectrum, shape: Shape) -> Any:
    """Roots of the eigenvalues, if they are all it takes: of clearly positive ones, for NumPy."""
    w, r = spectrum.w, shape.function.power
    if shape.function.name != "power" or abs(r) != _HALF or shape.rcond is not None:
        return None
    if not isinstance(w, np.ndarray) or not isinstance(spectrum.v, np.ndarray) or not w.size:
        return None
    eps = _EPS[_xp.REAL[spectrum.v.dtype.name]]
    if not ((w[:, 0] > eps * w[:, -1]) & (w[:, 0] > 1 / _WIDE) & (w[:, -1] < _WIDE)).all():
        return None
    return np.sqrt(w)


def first(spectrum: Spectrum, g: Any, shape: Shape, part: bool = False) -> Any:
    """``L(A, G)`` for any G, Hermitian or not; with ``part`` its Hermitian part."""
    if 0 in g.shape:
        return g
    y = roots_of(spectrum, shape)
    if y is not None:
        return _ops.ROOT_DERIVATIVE(
            g, spectrum.v, y, shape.function.inverse, part, shape.threads
        )  # fmt: skip
    (w, v), bad = _usable(spectrum)
    eps, given = _EPS[_xp.REAL[_xp.dtype_name(v)]], g
    w = _prepared(w, shape, eps)
    with np.errstate(all="ignore"), blas_for(g):
        w, unit = _near_one(w, shape, 1)
        kernel = _divided.first(_rule(w, shape, eps), w[:, :, None], w[:, None, :])
        inner = _product(_ops.adjoint(v), _product(g, v, shape), shape)
        inner = _xp.namespace(g).astype(kernel, g.dtype) * inner
        y = unit(_product(v, _product(inner, _ops.adjoint(v), shape), shape))
    y = 0.5 * (y + _ops.adjoint(y)) if part else y
    return _answered(y, bad, given)


def _near_one(w: Any, shape: Shape, order: int) -> tuple[Any, Callable[[Any], Any]]:
    """Eigenvalues in units of a power of two, and what puts it back into a derivative.

    A divided difference of that order of ``x^t`` is homogeneous of degree ``t - order``, one of
    the logarithm of degree ``-order``.
    """
    xp, function = _xp.namespace(w), shape.function
    if not w.shape[-1]:
        return w, lambda y: y
    top = xp.max(xp.abs(w), axis=-1)
    top = xp.where(xp.isfinite(top) & (top > 0), top, xp.ones_like(top))
    root = function.root
    if isinstance(w, np.ndarray):
        units = -(-np.frexp(top)[1] // root)
        near = np.ldexp(w, -root * units[:, None])
    else:
        units = xp.ceil(xp.log2(top) / root)
        half = (2.0 ** (-units * (root / 2)))[:, None]
        near = w * half * half
    if function.name != "power" or root == function.power.denominator:
        over = function.power.numerator if function.name == "power" else 0
        exponent = units * (over - order * root)
        return near, lambda y: _ops.scaled(y, exponent)
    degree = float(function.power) - order

    def unit(y: Any) -> Any:
        # a power that is no root of a useful order
        space = _xp.namespace(y)
        half = _xp.from_numpy(2.0 ** (units * (degree / 2)), space, like=y) if isinstance(
            units, np.ndarray) else 2.0 ** (units * (degree / 2))  # fmt: skip
        half = space.astype(half, y.dtype)[:, None, None]
        return y * half * half

    return near, unit


def _in_turn(n: int, step: Callable[[int, Any], Any], total: Any) -> Any:
    for k in range(n):
        total = step(k, total)
    return total


def second(
    spectrum: Spectrum, g: Any, e: Any, shape: Shape, loop: Callable[..., Any] = _in_turn
) -> Any:  # fmt: skip
    """``d/dE L(A, G)``: ``V [sum_k f[w_i, w_k, w_j] (g_ik e_kj + e_ik g_kj)] V^H``.

    ``loop`` is for a compiler that would write out every turn.
    """
    (w, v), bad = _usable(spectrum)
    xp, given = _xp.namespace(g), (g, e)
    n, eps = v.shape[-1], _EPS[_xp.REAL[_xp.dtype_name(v)]]
    w, unit = _near_one(_prepared(w, shape, eps), shape, 2)
    rule = _rule(w, shape, eps)
    with np.errstate(all="ignore"), blas_for(g):
        left = _ops.adjoint(v)
        g, e = (_product(left, _product(x, v, shape), shape) for x in (g, e))

        def step(k: int, total: Any) -> Any:
            kernel = _divided.second(rule, w[:, :, None], w[:, k, None, None], w[:, None, :])
            pairs = g[:, :, k, None] * e[:, None, k, :] + e[:, :, k, None] * g[:, None, k, :]
            return total + xp.astype(kernel, g.dtype) * pairs

        total = loop(n, step, xp.zeros_like(g))
        y = unit(_product(v, _product(total, left, shape), shape))
    return _answered(y, bad, *given)


def _product(a: Any, b: Any, shape: Shape) -> Any:
    if isinstance(a, np.ndarray):
        return _ops.MATMUL(a, b, shape.threads)
    return a @ b


def of_root(x: Any, g: Any, threads: int, method: str = "eigh") -> Any:
    """The solution of ``X Y + Y X = G`` for a positive semidefinite root X.

    ``minimax``: products only, but for members that it does not serve. The kernel of X gets zero:
    what a square takes for zero, or what a polar factor leaves there (``polar``).
    """
    xp = _xp.namespace(x)
    y, left = g, np.ones(x.shape[0], bool)
    if method == "minimax":
        y = solve_lyapunov(x, g, assume_a="pos", method="minimax", on_fail="nan")
        left = ~np.asarray(_xp.to_numpy(xp.all(xp.isfinite(xp.abs(y)), axis=(-2, -1))))
    if left.any():
        index = np.flatnonzero(left)
        some = take(x, index)
        whole = xp.all(xp.isfinite(xp.abs(some)), axis=(-2, -1))
        w, v = _ops.EIGH(_ops._where(whole, some, _ops.eye_like(some)), threads)
        floor = nothing(x) ** 2 if method == "polar" else None
        w = w.astype(np.float64) if isinstance(w, np.ndarray) else w  # squares stay in range
        w = xp.where(whole[:, None], w**2, xp.full_like(w, float("nan")))
        part = first(Spectrum(w, v), take(g, index), Shape(ROOT, threads=threads, floor=floor))
        y = put(y, index, part)
    return y


def nothing(h: Any) -> float:
    """What rounding leaves of a zero eigenvalue of a polar factor, relative to the largest."""
    return float(4 * h.shape[-1] * np.finfo(_xp.REAL[_xp.dtype_name(h)]).eps)


def pseudo_inverse(h: Any, threads: int) -> Any:
    """Of positive semidefinite matrices; what is zero to working precision stays zero."""
    xp = _xp.namespace(h)
    w, v = _ops.EIGH(h, threads)
    kept = w > nothing(h) * w[:, -1:]
    factor = xp.where(kept, 1 / xp.where(kept, w, xp.ones_like(w)), xp.zeros_like(w))
    return (v * xp.astype(factor, v.dtype)[:, None, :]) @ _ops.adjoint(v)


def polar_forward(u: Any, h: Any, da: Any, threads: int) -> tuple[Any, Any]:
    """Tangents of ``A = U H`` with ``U^H U = I`` in the direction dA.

    ``U^H dU = Om`` is skew with ``H Om + Om H = U^H dA - dA^H U``; a tall U also turns out of its
    range.
    """
    inner = _ops.adjoint(u) @ da
    turn = of_root(h, inner - _ops.adjoint(inner), threads, "polar")
    du = u @ turn
    if u.shape[-2] > u.shape[-1]:
        du = du + (da - u @ inner) @ pseudo_inverse(h, threads)
    dh = inner - turn @ h
    return du, 0.5 * (dh + _ops.adjoint(dh))


def polar_backward(u: Any, h: Any, gu: Any, gh: Any, threads: int) -> Any:
    """The adjoint of `polar_forward`."""
    gh = 0.5 * (gh + _ops.adjoint(gh))
    inner = _ops.adjoint(u) @ gu
    right = inner - gh @ h
    turn = of_root(h, 0.5 * (right - _ops.adjoint(right)), threads, "polar")
    ga = u @ (2 * turn + gh)
    if u.shape[-2] > u.shape[-1]:
        ga = ga + (gu - u @ inner) @ pseudo_inverse(h, threads)
    return ga


def doubled(a: Any, g: Any) -> Any:
    """``[[A, G], [0, A]]``, whose function holds ``L(A, G)`` in the upper right corner."""
    xp = _xp.namespace(a)
    upper = xp.concat([a, g], axis=-1)
    lower = xp.concat([xp.zeros_like(g), a], axis=-1)
    return xp.concat([upper, lower], axis=-2)
