"""The algorithms of the polar decomposition, for matrices with no more columns than rows.

Everything but the choice of a second method is done without a look at a value; numbers per member
stay in the library of the arrays.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _xp
from linalgk._lag import contiguous
from linalgk.matfun import _ops
from linalgk.matfun._spectral import NONFINITE, OK, SERIAL, as_factor, blank, put, take

HARD = _ops.HARD
# Weight up to which products and a solution serve: the bound of Nakatsukasa, Bai and Gygi.
MOST_WEIGHT = 100.0
# Of Halley's iteration from a bound of eps.
_MOST_STEPS = 6
# Norms between 2^-16 and 2^16 keep the squares that methods form in the range of every dtype.
_NEAR = 16


class Found(NamedTuple):
    """Factors of a flat batch; numbers per member are where U is."""

    u: Any
    h: Any
    status: Any
    steps: Any
    residual: Any  # relative to ||A||
    lower: Any  # of the singular values, relative to ||A||
    method: str
    clean: bool = False  # whether the host knows that all members are fine


class _Start(NamedTuple):
    """Members at a scale where nothing leaves the range, ``A = X 2^exponent``."""

    x: Any
    exponent: Any
    finite: Any
    size: Any  # Frobenius norms of X, one for zero matrices


def compute(a: Any, method: str, left: bool, looks: bool) -> Found:
    """Scale, decompose, and take singular values where the method has failed.

    ``left`` matters to square matrices. Without ``looks`` members that failed stay so.
    """
    start = _started(a)
    found = _SOLVERS[method](start, left)
    done, bad = _finished(start, found, method, looks)
    if not looks:
        return done
    if not np.any(_xp.to_numpy(_xp.namespace(a).any(bad))):
        return done._replace(clean=True)
    if method != "svd":
        done, _ = _finished(start, _rescued(start, found, left), "svd", looks)
    return done


def _finished(start: _Start, found: Found, method: str, looks: bool) -> tuple[Found, Any]:
    """Scaled back, with NaN in bad members, and which members ask for a look."""
    xp = _xp.namespace(start.x)
    h = _ops.scaled(found.h, start.exponent)
    whole = xp.all(xp.isfinite(xp.abs(h)), axis=(-2, -1))
    lost = _lost(start, found, method)
    hard = ~whole if looks else ~whole | lost
    status = xp.where((found.status == OK) & hard, xp.full_like(found.status, HARD), found.status)
    status = xp.where(start.finite, status, xp.full_like(status, NONFINITE))
    bad = status != OK
    return found._replace(u=blank(found.u, bad), h=blank(h, bad), status=status), bad | lost


def _lost(start: _Start, found: Found, method: str) -> Any:
    """Members that the method has not served; what stable methods leave is several times less."""
    if method == "svd":
        return found.status != OK
    limit = (16 + start.x.shape[-1]) * _eps(start.x)
    return (found.status != OK) | ~(found.residual <= limit)


def _started(a: Any) -> _Start:
    """The scale, by one pass over NumPy arrays that need no change."""
    xp, small = _xp.namespace(a), 2.0**_NEAR
    if isinstance(a, np.ndarray):
        # numbers this near to one need no scaling, nor a copy: all methods give the same bits
        real = a.reshape(len(a), -1).view(a.real.dtype)
        size = np.sqrt(np.einsum("bi,bi->b", real, real))
        easy = (size < small) & (size > 1 / small)
        none = np.zeros(len(a), int)
        if easy.all():
            return _Start(a, none, easy, size)
        top = np.where(easy, 1.0, np.maximum(real.max(axis=1), -real.min(axis=1)))
        finite = np.isfinite(top)
        exponent = np.where(finite, np.frexp(np.where(finite, top, 1.0))[1], 0)
        exponent = np.where(easy, 0, exponent)
        x = a if finite.all() else np.where(finite[:, None, None], a, _unit(a))
        x = np.ascontiguousarray(_ops.scaled(x, -exponent))
    else:
        top = xp.max(xp.abs(a), axis=(-2, -1))
        finite = xp.isfinite(top)
        x = xp.where(finite[:, None, None], a, _unit(a))
        top = xp.where(finite & (top > 0), top, xp.ones_like(top))
        exponent = xp.ceil(xp.log2(top))
        x = _ops.scaled(x, -exponent)
    return _Start(x, exponent, finite, _or_one(_ops.norms(x)))


def _unit(a: Any) -> Any:
    """One matrix with orthonormal columns, for members that nothing can be said about."""
    xp, (m, n) = _xp.namespace(a), a.shape[-2:]
    if xp is np:
        return np.eye(m, n, dtype=a.dtype)
    device = _xp._compat("array_api_compat").device(a)
    return xp.eye(m, n, dtype=a.dtype, device=device)


def larger(u: Any, h: Any) -> Any:
    """``U H U^H``, the factor on the other side; exactly Hermitian."""
    with _config.blas_threads():
        product = (u @ h) @ _ops.adjoint(u)
    return 0.5 * (product + _ops.adjoint(product))


def _rescued(start: _Start, found: Found, left: bool) -> Found:
    """Members that failed by singular values."""
    index = np.flatnonzero(np.asarray(_xp.to_numpy(_lost(start, found, found.method))))
    if not len(index):
        return found
    if len(index) == start.x.shape[0]:
        return _by_svd(start, left)
    part = _by_svd(_Start(*(take(y, index) for y in start)), left)
    fields = [put(y, index, z) for y, z in zip(found[:6], part[:6], strict=True)]
    names = Found._fields[:6]
    merged = dict(zip(names, fields, strict=True))
    return found._replace(**merged, method=f"{found.method}+svd")


# ---- methods ----


def _by_svd(start: _Start, left: bool) -> Found:
    return _reported(start, _ops.POLAR_SVD, "svd", left)


def _by_newton(start: _Start, left: bool) -> Found:
    return _reported(start, _ops.POLAR, "newton", left)


def _reported(start: _Start, op: Any, method: str, left: bool) -> Found:
    xp, x = _xp.namespace(start.x), start.x
    integer, real = (_xp.dtype_of(xp, name) for name in ("int64", _real(x)))
    blas, threads = _blas_for(x)
    with blas:
        u, h, report = op(x, left, threads)
    residual, lower = (xp.astype(report[:, k] / start.size, real) for k in (0, 1))
    steps, status = (xp.astype(report[:, k], integer) for k in (2, 3))
    return Found(u, h, status, steps, residual, lower, method)


def _by_qdwh(start: _Start, left: bool) -> Found:
    """Dynamically weighted Halley steps (Nakatsukasa, Bai and Gygi, 2010, eq. 3.5 and section 4).

    ``X <- b/c X + (a - b/c) X (I + c X^H X)^-1``: by QR factors of ``[c^(1/2) X; I]`` where c is
    large. A matrix with more rows is reduced to its triangle first. The lower bound of the singular
    values is that of an inverse, and the schedule of the smallest of them that rounding leaves.
    """
    xp, x, eps = _xp.namespace(start.x), start.x, _eps(start.x)
    blas, threads = _blas_for(x)
    with blas:
        q, r = xp.linalg.qr(x) if x.shape[-2] > x.shape[-1] else (None, x)
        inverse, _ = _ops.INVERSE(contiguous(r), threads)
        # singular matrices have no inverse, and are found out at the end
        low = 1 / _or_one(_ops.norms(inverse))
        low = xp.where(xp.isfinite(low), low, xp.zeros_like(low))
        size = xp.abs(r)
        rows, columns = (xp.max(xp.sum(size, axis=k), axis=-1) for k in (-1, -2))
        high = _or_one(xp.minimum(xp.sqrt(rows * columns), _ops.norms(r)))
        bound = xp.maximum(low / high, xp.full_like(high, eps))
        y, steps, going = r / as_factor(high, r), xp.zeros_like(high), bound < 1 - eps
        for k in range(_MOST_STEPS):
            weights, after = _weights(bound, eps)
            # two steps take a bound of eps to a weight of less than 100
            y = _ops._where(going, _by_factors(y, weights, may_be_large=k < 2), y)
            steps = steps + xp.astype(going, steps.dtype)
            bound = xp.where(going, after, bound)
            going = going & (bound < 1 - eps)
            if not _is_blind(x) and not np.any(_xp.to_numpy(going)):
                break
        y, gap = _polished(y)
        u = y if q is None else q @ y
        h, defect = _hermitian(y, r, left and q is None)
    integer = _xp.dtype_of(xp, "int64")
    status = xp.where(gap <= _nearly(x), xp.zeros_like(gap) + OK, xp.zeros_like(gap) + HARD)
    status, steps = (xp.astype(v, integer) for v in (status, steps))
    return Found(u, h, status, steps, defect / start.size, low / start.size, "qdwh")


def _weights(bound: Any, eps: float) -> tuple[Any, Any]:
    """Per member (a, b, c) for singular values in [bound, 1], and where the step takes bound."""
    xp = _xp.namespace(bound)
    low = xp.minimum(bound, xp.full_like(bound, 1 - eps))
    square = low**2
    # a product of cubic roots, because the square of the square underflows in single precision
    d = ((4 * (1 - square)) ** (1 / 3) / square ** (2 / 3)) * xp.ones_like(square)
    root = xp.sqrt(1 + d)
    a = root + 0.5 * xp.sqrt(8 - 4 * d + 8 * (2 - square) / (square * root))
    b = 0.25 * (a - 1) ** 2
    c = a + b - 1
    after = low * (a + b * square) / (1 + c * square)
    return (a, b, c), xp.minimum(after, xp.ones_like(after))


def _by_factors(y: Any, weights: Any, *, may_be_large: bool) -> Any:
    """A step: with QR where c is large, told member by member on the host."""
    if not may_be_large:
        return _by_solution(y, weights)
    if _is_blind(y):
        return _by_qr(y, weights)
    large = np.asarray(_xp.to_numpy(weights[2])) > MOST_WEIGHT
    if large.all() or not large.any():
        return _by_qr(y, weights) if large.all() else _by_solution(y, weights)
    index, others = np.flatnonzero(large), np.flatnonzero(~large)
    step = put(y, index, _by_qr(take(y, index), [take(w, index) for w in weights]))
    return put(step, others, _by_solution(take(y, others), [take(w, others) for w in weights]))


def _by_qr(y: Any, weights: Any) -> Any:
    """``b/c X + (a - b/c)/c^(1/2) Q1 Q2^H`` with ``[c^(1/2) X; I] = [Q1; Q2] R``."""
    xp, n = _xp.namespace(y), y.shape[-1]
    a, b, c = weights
    root = xp.sqrt(c)
    identity = _ops.eye_like(y) + xp.zeros_like(y)
    q, _ = xp.linalg.qr(xp.concat([as_factor(root, y) * y, identity], axis=-2))
    product = q[:, :n, :] @ _ops.adjoint(q[:, n:, :])
    return as_factor(b / c, y) * y + as_factor((a - b / c) / root, y) * product


def _by_solution(y: Any, weights: Any) -> Any:
    """``b/c X + (a - b/c) X (I + c X^H X)^-1``."""
    xp = _xp.namespace(y)
    a, b, c = weights
    z = as_factor(c, y) * (_ops.adjoint(y) @ y) + _ops.eye_like(y)
    solution = _ops.adjoint(xp.linalg.solve(z, _ops.adjoint(y)))
    return as_factor(b / c, y) * y + as_factor(a - b / c, y) * solution


def _by_gram(start: _Start, left: bool) -> Found:
    """``U = A (A^H A)^(-1/2)`` by eigenvectors, and a polynomial that makes it unitary."""
    xp, x = _xp.namespace(start.x), start.x
    blas, threads = _blas_for(x)
    with blas:
        gram = _ops.adjoint(x) @ x
        w, v = _ops.EIGH(contiguous(0.5 * (gram + _ops.adjoint(gram))), threads)
        positive = w[:, 0] > x.shape[-1] * _eps(x) * w[:, -1]
        w = xp.where(positive[:, None], w, xp.ones_like(w))
        root = xp.astype(1 / xp.sqrt(w), x.dtype)[:, None, :]
        y = x @ ((v * root) @ _ops.adjoint(v))
        u, gap = _polished(y)
        h, defect = _hermitian(u, x, left and x.shape[-2] == x.shape[-1])
    zero = xp.zeros_like(positive, dtype=_xp.dtype_of(xp, "int64"))
    status = xp.where(positive & (gap <= _nearly(x)), zero + OK, zero + HARD)
    lower = xp.sqrt(w[:, 0]) / start.size
    return Found(u, h, status, zero + 1, defect / start.size, lower, "gram")


def _polished(y: Any) -> tuple[Any, Any]:
    """``Y (I - R)^(-1/2)`` by three terms of the series, and the norm of ``R = I - Y^H Y``."""
    gram = _ops.adjoint(y) @ y
    r = _ops.eye_like(gram) - gram
    return y + y @ (0.5 * r + 0.375 * (r @ r)), _ops.norms(r)


def _hermitian(u: Any, x: Any, left: bool) -> tuple[Any, Any]:
    """The Hermitian part of ``U^H X`` or ``X U^H``, and the norm of the other part."""
    product = x @ _ops.adjoint(u) if left else _ops.adjoint(u) @ x
    turned = _ops.adjoint(product)
    return 0.5 * (product + turned), 0.5 * _ops.norms(product - turned)


_SOLVERS: dict[str, Callable[[_Start, bool], Found]] = {
    "svd": _by_svd,
    "newton": _by_newton,
    "qdwh": _by_qdwh,
    "gram": _by_gram,
}


# ---- small questions ----


def _real(x: Any) -> str:
    return _xp.REAL[_xp.dtype_name(x)]


def _eps(x: Any) -> float:
    return float(np.finfo(_real(x)).eps)


def _nearly(x: Any) -> float:
    """How far a factor may be from unitary before its last polynomial, which cubes this."""
    return math.cbrt(_eps(x))


def _or_one(x: Any) -> Any:
    xp = _xp.namespace(x)
    return xp.where(x == 0, xp.ones_like(x), x)


def _is_blind(x: Any) -> bool:
    """Whether the host does not look at numbers on the way: a device's, or perhaps traced ones."""
    face = _xp.face(x)
    return face is None or face.family in ("cupy", "jax")


def is_serial(x: Any) -> bool:
    """Whether members go one per thread: by their shape alone, as the bits may depend on it."""
    return isinstance(x, np.ndarray) and x.shape[-1] * x.shape[-2] <= SERIAL**2


def _blas_for(x: Any) -> tuple[Any, int]:
    """What BLAS may do meanwhile, and threads for members."""
    if not is_serial(x):
        return _config.blas_threads(), 1
    if max(x.shape[-2:]) <= 32:
        # BLAS takes no second thread for so little, and asking it costs more than the work
        return contextlib.nullcontext(), _config.num_threads()
    return _config.serial_blas, _config.num_threads()
