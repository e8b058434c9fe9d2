"""Bases in which sums of Kronecker products are diagonal, or nearly so.

Factors are unbatched, have entered in one dtype and are small beside what they act on.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import _modes

# Off-diagonal entries up to this many times what rounding explains are none.
_ROUNDING = 16.0
# A factor says much if its share of the sum is this part of the largest one.
_MUCH = 0.1


class Mode(NamedTuple):
    """Columns V with ``V^H M V = I`` that make the factors of one mode diagonal, as well as may be.

    ``diagonals`` are those of ``V^H F V``, real, one for each term.
    """

    vectors: Any
    diagonals: list[Any]
    exact: bool
    unitary: bool  # M = I
    logdet: float  # of M


class Basis(NamedTuple):
    """One `Mode` for each mode."""

    modes: list[Mode]
    adjoints: list[Any]

    @property
    def exact(self) -> bool:
        """Whether the sum is diagonal in it."""
        return all(m.exact for m in self.modes)

    @property
    def unitary(self) -> bool:
        """Whether the sum's own eigenvectors are in it."""
        return all(m.unitary for m in self.modes)

    def grid(self, weights: Sequence[complex]) -> Any:
        """The diagonal (n,) of ``V^H K V``, complex where a weight is."""
        parts = [[m.diagonals[t] for m in self.modes] for t in range(len(weights))]
        xp = _xp.namespace(self.modes[0].vectors)
        total: Any = None
        for w, part in zip(weights, parts, strict=True):
            y = _modes.outer(part)
            if isinstance(w, complex):
                y = xp.astype(y, _xp.dtype_of(xp, _modes.widened(_xp.dtype_name(y))))
            total = w * y if total is None else total + w * y
        return total

    def divided(self, grid: Any, b: Any) -> Any:
        """``V [(V^H b) / grid]`` for b (..., n, k)."""
        c = _modes.times(self.adjoints, b) / grid[:, None]
        return _modes.times([m.vectors for m in self.modes], c)


class Indefinite(Exception):
    """There is no combination of the factors of a mode that is seen to be definite."""

    def __init__(self, mode: int) -> None:
        super().__init__(mode)
        self.mode = mode


def find_basis(
    terms: Sequence[Sequence[Any]], weights: Sequence[complex], *, rotate_only: bool = False
) -> Basis:
    """For Hermitian factors: one that makes all terms diagonal, if there is one.

    Of each mode unitary eigenvectors are tried first; they serve where factors commute. Next, the
    eigenvectors of a pencil (G, M). M is definite: a factor, or the partial trace of the sum, which
    is definite if the sum is. G is the principal one among the others by their share of the sum.
    With ``rotate_only`` there is only the first.
    """
    norms = np.array([[_norm(f) for f in term] for term in terms])
    traces = np.array([[_trace(f) / max(int(f.shape[0]), 1) for f in term] for term in terms])
    modes = []
    for i in range(len(terms[0])):
        factors = [term[i] for term in terms]
        others = np.delete(norms, i, axis=1).prod(axis=1)
        share = np.abs(np.asarray(weights)) * others
        found = _rotated(factors, share)
        if not found.exact and not rotate_only:
            rest = np.delete(traces, i, axis=1).prod(axis=1)
            found = _sheared(i, factors, share, np.asarray(weights).real * rest)
        modes.append(found)
    xp = _xp.namespace(terms[0][0])
    return Basis(modes, [adjoint(xp, m.vectors) for m in modes])


def _rotated(factors: Sequence[Any], share: Any) -> Mode:
    """By eigenvectors of a combination of the factors."""
    v = _principal(factors, share)
    diagonals, exact = _diagonals(factors, v, [_norm(f) for f in factors])
    return Mode(v, diagonals, exact, True, 0.0)


def _sheared(i: int, factors: Sequence[Any], share: Any, rest: Any) -> Mode:
    """By eigenvectors of a pencil (G, M), M the best conditioned definite candidate.

    If that makes not all factors diagonal, M is one of those that say much.
    """
    partial: Any = sum(float(r) * f for r, f in zip(rest, factors, strict=True))
    said = share * [_norm(f) for f in factors]
    definite = []
    for candidate, much in zip(
        (*factors, partial), (*(said >= _MUCH * said.max()), True), strict=True
    ):
        w, q = _xp.namespace(candidate).linalg.eigh(candidate)
        low, high = float(w[0]), float(w[-1])
        if high < 0.0:
            w, low, high = -w, -high, -low
        if low > _eps(candidate) * int(candidate.shape[0]) * high:
            definite.append((low / high, bool(much), w, q))
    if not definite:
        raise Indefinite(i)
    best = max(definite, key=lambda d: d[0])
    found = _of_pencil(factors, share, best[2], best[3])
    much = [d for d in definite if d[1]]
    if found.exact or not much or best[1]:
        return found
    best = max(much, key=lambda d: d[0])
    return _of_pencil(factors, share, best[2], best[3])


def _of_pencil(factors: Sequence[Any], share: Any, w: Any, q: Any) -> Mode:
    """With ``M = Q diag(w) Q^H``, w positive."""
    xp = _xp.namespace(q)
    s = q / xp.astype(xp.sqrt(w), q.dtype, copy=False)[None, :]
    inside = [_hermitian_part(adjoint(xp, s) @ f @ s) for f in factors]
    v = s @ _principal(inside, share)
    top = float(xp.max(1 / w))
    diagonals, exact = _diagonals(factors, v, [_norm(f) * top for f in factors])
    return Mode(v, diagonals, exact, False, float(xp.sum(xp.log(w))))


def _principal(factors: Sequence[Any], share: Any) -> Any:
    """Eigenvectors of the combination of factors, less their multiples of I, that says most.

    Coefficients are those of the dominant part of the factors as vectors, each by its share; they
    are made unequal, so that eigenvalues of commuting factors do not meet.
    """
    xp, n = _xp.namespace(factors[0]), int(factors[0].shape[0])
    one = xp.eye(n, dtype=factors[0].dtype, **_modes.where(factors[0]))
    rest = [f - (_trace(f) / n) * one for f in factors]
    sizes = [_norm(r) for r in rest]
    eps = _eps(factors[0])
    kept = [
        k for k, (r, f) in enumerate(zip(sizes, factors, strict=True)) if r > n * eps * _norm(f)
    ]
    if not kept:
        return one
    rest = [rest[k] / sizes[k] for k in kept]
    gram = np.array([[_inner(x, y) for y in rest] for x in rest])
    scale = np.array([share[k] * sizes[k] for k in kept])
    scale = scale / scale.max() if scale.max() > 0 else np.ones_like(scale)
    _, vectors = np.linalg.eigh(scale[:, None] * gram * scale)
    c = scale * vectors[:, -1] * (1.0 + 0.25 * np.cos(1.0 + np.arange(len(kept))))
    total: Any = sum(float(x) * r for x, r in zip(c, rest, strict=True))
    _, v = xp.linalg.eigh(_hermitian_part(total))
    return v


def _diagonals(factors: Sequence[Any], v: Any, sizes: Sequence[float]) -> tuple[list[Any], bool]:
    """Real diagonals of ``V^H F V``, and whether the rest is rounding beside the sizes."""
    xp, n, exact = _xp.namespace(v), int(v.shape[0]), True
    one = xp.eye(n, dtype=v.dtype, **_modes.where(v))
    found = []
    for f, size in zip(factors, sizes, strict=True):
        y = adjoint(xp, v) @ f @ v
        d = xp.linalg.diagonal(y)
        off = _norm(y - one * d[None, :])
        exact = exact and off <= _ROUNDING * n * _eps(v) * size
        found.append(_real(d))
    return found, exact


# --- Numbers of a matrix -------------------------------------------------------------------------


def bound(terms: Sequence[Sequence[Any]], weights: Sequence[complex]) -> float:
    """Of the 2-norm of a sum of Hermitian terms: by row sums of the factors."""
    total = 0.0
    for term, w in zip(terms, weights, strict=True):
        total += abs(w) * math.prod(_rows(f) for f in term)
    return total


def _rows(f: Any) -> float:
    xp = _xp.namespace(f)
    return float(xp.max(xp.sum(xp.abs(f), axis=-1))) if f.shape[-1] else 0.0


def multiple_of_identity(f: Any) -> complex | None:
    """The number c of an f that is ``c I`` to the bit, else None."""
    xp, n = _xp.namespace(f), int(f.shape[0])
    if n == 0 or f.shape[1] != n:
        return None
    one = xp.eye(n, dtype=f.dtype, **_modes.where(f))
    return complex(f[0, 0]) if bool(xp.all(f == f[0, 0] * one)) else None


def _hermitian_part(a: Any) -> Any:
    return 0.5 * (a + adjoint(_xp.namespace(a), a))


def _norm(x: Any) -> float:
    return float(_xp.namespace(x).linalg.matrix_norm(x))


def _inner(x: Any, y: Any) -> float:
    """Real part of the inner product of Hermitian matrices."""
    xp = _xp.namespace(x)
    return float(xp.sum(_real(xp.conj(x) * y if _is_complex(x) else x * y)))


def _trace(x: Any) -> float:
    return float(_real(_xp.namespace(x).linalg.trace(x)))


def _real(x: Any) -> Any:
    return _xp.namespace(x).real(x) if _is_complex(x) else x


def _is_complex(x: Any) -> bool:
    return _xp.dtype_name(x) in _xp.COMPLEX


def _eps(x: Any) -> float:
    return float(np.finfo(_xp.REAL[_xp.dtype_name(x)]).eps)
