"""QR by a sketch and Cholesky of one matrix, step by step."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor, _panels, _pivots
from linalgk.randomized._matrix import norm
from linalgk.sketch import Philox, SparseStack

# Up to this condition number one Cholesky factorization does: it costs 2 digits.
_MILD = 10.0
# Up to this one of the sketch it is worth a try.
_EXPECTED = 15.0
# Numbers whose squares can be added.
_RANGE = {"float32": (1e-12, 1e12), "float64": (1e-120, 1e120)}


class Factors(NamedTuple):
    """Of one member: what it gives back and how."""

    q: Any
    r: Any
    perm: Any = None
    error: float = 0.0
    residual: float = 0.0
    passes: int = 1
    extra: str = ""
    sound: bool = True


def plain(a: Any, method: str, k: int, nnz: int, source: Philox) -> Factors:
    xp, (m, n) = _xp.namespace(a), a.shape
    if 0 in (m, n):
        r = min(m, n)
        return Factors(a[:, :r], a[:r, :], passes=0)
    if method == "householder":
        return _householder(a) if bool(xp.all(xp.isfinite(a))) else _bad(a)
    sketch, first = None, None
    if method == "sketched":
        sketch = _sketch(a, k, nnz, source)
        size = norm(sketch)
    else:
        size = norm(a)
    if not math.isfinite(size):
        return _bad(a)
    unit = _unit(size, a)
    work = a if unit == 1 else a * unit
    passes = 0 if sketch is None else 1
    if sketch is not None:
        first = _factor.triangle(sketch * unit)
        found = _completed(work, None, first)
    elif method == "cholqr2":
        found = _twice(work, size * unit)
    else:
        found = _shifted(work, size * unit)
    if found is None:
        return _householder(a)._replace(extra="+householder", passes=passes + 2)
    q, r, kappa, reads = found
    error, residual = _loss(a, kappa), _rounding(a)
    return Factors(q, r / unit, error=error, residual=residual, passes=passes + reads)


def pivoted(
    a: Any, method: str, k: int, nnz: int, source: Philox, most: int, tol: float
) -> Factors:
    xp, (m, n) = _xp.namespace(a), a.shape
    if 0 in (m, n):
        r = min(most, m, n)
        return Factors(a[:, :r], a[:r, :], np.arange(n), passes=0)
    if method == "geqp3":
        return _lapack(a, most, tol)
    sketch = _sketch(a, k, nnz, source)
    size = norm(sketch)
    if not math.isfinite(size):
        return _bad(a)
    unit = _unit(size, a)
    work = a if unit == 1 else a * unit
    perm, first = _pivots.geqp3(np.asarray(_xp.to_numpy(sketch * unit)))
    tails = _corrected(_pivots.tails(first), sketch.shape[0])
    rank = _rank(tails, most, tol, sketch.shape[0])
    order = _xp.from_numpy(perm[:rank], xp, like=a)
    first = _xp.from_numpy(first, xp, like=a)
    found = _completed(work, order, first[:rank, :rank])
    passes, extra = 3, ""
    if found is None:
        # noise was taken for rank, or the sketch lost a direction: both have small chances
        q, r = _factor.qr(xp.take(work, order, axis=1))
        error, extra = _loss_of_reflections(a), "+householder"
    else:
        q, r, kappa, reads = found
        error, passes = _loss(a, kappa), 1 + reads
    if rank < n:
        rest = xp.take(work, _xp.from_numpy(perm[rank:], xp, like=a), axis=1)
        r = xp.concat([r, adjoint(xp, q) @ rest], axis=1)
        passes += 1
    residual = _rounding(a, reflections=bool(extra))
    if rank < n:
        residual = max(residual, float(tails[rank]))
    return Factors(q, r / unit, perm, error, residual, passes, extra)


def _completed(a: Any, order: Any, first: Any) -> tuple[Any, Any, float, int] | None:
    """Q and R of the columns in that order, from the triangle of a sketch of them.

    Also the condition number of what Cholesky factored, and how often a was read.
    """
    xp, reads = _xp.namespace(a), 0
    if not first.shape[0]:
        return xp.zeros_like(a[:, :0]), first, 1.0, 0
    # Cholesky's error does not depend on the sizes of the columns
    expected = _factor.condition(_equal(xp, first))
    if not math.isfinite(expected):
        return None
    if expected <= _EXPECTED:
        # the product of all columns in their own order, so that they are copied only once
        full = order is None or order.shape[0] == a.shape[1]
        reads = 1
        square = _panels.gram(a if full else xp.take(a, order, axis=1))
        if full and order is not None:
            square = xp.take(xp.take(square, order, axis=0), order, axis=1)
        r = _factor.cholesky(square)
        kappa = math.inf if r is None else _factor.condition(_equal(xp, r))
        if kappa <= _MILD:
            return _panels.solved(a, r, order), r, kappa, 2
    return _rounds(_panels.solved(a, first, order, squared=True), first, reads + 1)


def _equal(xp: Any, r: Any) -> Any:
    """The triangle with columns of length 1."""
    size = xp.linalg.vector_norm(r, axis=0)
    return r / xp.where(size > 0, size, 1.0)


def _rounds(start: tuple[Any, Any], r: Any, reads: int) -> tuple[Any, Any, float, int] | None:
    """Cholesky of ``Q^H Q`` for as long as Q is not orthonormal enough, three times at most.

    ``start``: Q and its Gram matrix.
    """
    q, square = start
    for number in range(3):
        factor = _factor.cholesky(square if not number else _panels.gram(q))
        kappa = math.inf if factor is None else _factor.condition(factor)
        if not math.isfinite(kappa):
            return None
        q = _panels.times_inverse(q, factor)
        r = factor @ r
        if kappa <= _MILD:
            return q, r, kappa, reads
    return None


def _twice(a: Any, size: float) -> tuple[Any, Any, float, int] | None:
    """CholeskyQR2, with a shift where A needs one."""
    r = _factor.cholesky(_panels.gram(a))
    if r is None or not _factor.condition(r) < 0.1 / math.sqrt(_eps(a)):
        return _shifted(a, size)
    return _rounds(_panels.solved(a, r, squared=True), r, 2)


def _shifted(a: Any, size: float) -> tuple[Any, Any, float, int] | None:
    """Shifted CholeskyQR3 (Fukaya et al., Algorithm 4.1)."""
    xp, (m, n) = _xp.namespace(a), a.shape
    shift = 11 * (m * n + n * (n + 1)) * (_eps(a) / 2) * size**2
    square = _panels.gram(a)
    eye = _xp.from_numpy(np.eye(n), xp, like=a, dtype=square.dtype)
    r = _factor.cholesky(square + shift * eye)
    if r is None or not math.isfinite(_factor.condition(r)):
        return None
    return _rounds(_panels.solved(a, r, squared=True), r, 2)


def _householder(a: Any) -> Factors:
    q, r = _factor.qr(a)
    return Factors(q, r, error=_loss_of_reflections(a), residual=_rounding(a, reflections=True))


def _lapack(a: Any, most: int, tol: float) -> Factors:
    """LAPACK's pivoted QR: no array library has one, so that devices send the matrix over."""
    import scipy.linalg

    xp = _xp.namespace(a)
    host = np.asarray(_xp.to_numpy(a))
    if not np.isfinite(host).all():
        return _bad(a)
    q, r, perm = scipy.linalg.qr(host, mode="economic", pivoting=True, check_finite=False)
    tails = _pivots.tails(r)
    rank = min(most, _first_below(tails, tol))
    q, r = (_xp.from_numpy(np.ascontiguousarray(x), xp, like=a) for x in (q[:, :rank], r[:rank]))
    residual = max(_rounding(a, reflections=True), float(tails[rank]))
    return Factors(q, r, perm.astype(np.int64), _loss_of_reflections(a), residual, 1)


def _bad(a: Any) -> Factors:
    return Factors(a[:, :0], a[:0, :], np.arange(a.shape[1]), math.nan, math.nan, sound=False)


def _sketch(a: Any, k: int, nnz: int, source: Philox) -> Any:
    with _config.config_context(check_finite=False):
        return SparseStack(k, a.shape[0], nnz=nnz, rng=source.spawn(1)) @ a


def _corrected(tails: Any, k: int) -> Any:
    """What is left of A by what is left of its sketch, of which r columns took r of k degrees."""
    return tails * np.sqrt(k / np.maximum(k - np.arange(len(tails)), 1))


def _rank(tails: Any, most: int, tol: float, k: int) -> int:
    """Columns it takes, with three standard deviations to spare where the sketch is asked."""
    spare = np.maximum(k - np.arange(len(tails)), 1)
    # at the level of rounding there is nothing to estimate
    safe = tails * (1 + 3 / np.sqrt(2 * spare)) if tol > 1e3 * np.finfo(float).eps else tails
    return min(most, _first_below(safe, tol))


def _first_below(tails: Any, tol: float) -> int:
    below = np.flatnonzero(tails <= tol)
    # of a matrix of zeros no column is needed
    return int(below[0]) if len(below) and tol > 0 else len(tails) - 1


def _unit(size: float, a: Any) -> float:
    """A power of two that brings squares into range, 1 for nearly all."""
    low, high = _RANGE[_xp.REAL[_xp.dtype_name(a)]]
    if size == 0 or low < size < high:
        return 1.0
    return math.ldexp(1.0, -math.frexp(size)[1])


def _eps(a: Any) -> float:
    return float(np.finfo(_xp.dtype_name(a)).eps)


def _loss(a: Any, kappa: float) -> float:
    """Bound of ``||Q^H Q - I||_2`` after Cholesky, up to ten times what is found."""
    return 8 * math.sqrt(a.shape[1]) * _eps(a) * max(kappa, 1.0) ** 2


def _loss_of_reflections(a: Any) -> float:
    """The same of LAPACK's QR; equal columns are its worst case."""
    m, n = a.shape
    return (8 * math.sqrt(n) + 4 * math.sqrt(m)) * _eps(a)


def _rounding(a: Any, *, reflections: bool = False) -> float:
    """What ``||A - Q R||_F / ||A||_F`` is a small multiple of."""
    m, n = a.shape
    return (math.sqrt(n) + (math.sqrt(m) if reflections else 0.0)) * _eps(a)
