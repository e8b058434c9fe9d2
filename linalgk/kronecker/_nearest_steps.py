"""The nearest sum of Kronecker products of one matrix, by products of its rearrangement."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import _structure
from linalgk.kronecker._factoring import group, hierarchical, middle, power_steps, product
from linalgk.kronecker._rearranged import PROBES, Dense, Moments, Rearranged, Term
from linalgk.kronecker._triplets import EQUAL, leading, rounding
from linalgk.sketch import Philox

# Terms that are tried first where the rank is to be found.
_FIRST = 4


class NotFiniteError(Exception):
    """A product holds NaN or infinity."""


class Ask(NamedTuple):
    """What is asked of one member."""

    shapes: list[tuple[int, int]]
    rank: int | None
    tol: float | None
    method: str
    kind: str  # "gen", "her", "pos"
    max_iter: int
    seed: Philox


class Found(NamedTuple):
    """Terms of one member, as factors on the host, and how good they are."""

    terms: list[list[Any]]
    s: Any
    error: float  # relative, in the Frobenius norm
    residual: float  # of the singular vectors, relative to s_1
    steps: int
    passes: int
    method: str


class Pairs(NamedTuple):
    """Columns u (m, k) of norm one and v (n, k): R(A) is about ``U V^H``."""

    term: Term
    kinds: list[int] | None
    residual: float
    steps: int


def solve(a: Rearranged, ask: Ask) -> Found:
    """The terms that the method finds, and the error they leave."""
    if len(ask.shapes) > 2:
        return _several(a, ask)
    norm = None
    if ask.method == "moments":
        assert isinstance(a, Moments)
        pairs = _moments(a)
    elif ask.tol is None:
        assert ask.rank is not None
        pairs = _pairs(a, ask, ask.rank)
    else:
        pairs, norm = _as_many(a, ask)
    error = _error(a, pairs.term, norm)
    return _found(a, pairs, error, ask.method)


def _found(a: Rearranged, pairs: Pairs, error: float, method: str) -> Found:
    u, v = a.host(pairs.term.u), a.host(pairs.term.v)
    terms, s = [], []
    for t in range(u.shape[1]):
        size = float(np.linalg.norm(v[:, t]))
        one, two = u[:, t].reshape(a.left), np.conj(v[:, t]).reshape(a.right)
        two = two / size if size > 0 else two
        terms.append(_structure.balanced([one, two], size, a.eps))
        s.append(size)
    root = math.sqrt(a.scale)
    terms = [[f * root for f in term] for term in terms]
    return Found(terms, np.array(s) * a.scale, error, pairs.residual, pairs.steps, a.passes, method)


# --- Two factors ---------------------------------------------------------------------------------


def _pairs(a: Rearranged, ask: Ask, k: int) -> Pairs:
    """The k leading pairs, of the kinds that the matrix has."""
    xp, m, n = a.xp, *a.shape
    k = min(k, m, n)
    if ask.method == "svd":
        v, residual, steps = _by_svd(a, k), a.eps, 0
    elif ask.method == "power":
        v, residual, steps = _by_power(a, ask)
    else:
        normals = ask.seed.normal(n * k).reshape(k, n).T
        if a.dtype in _xp.COMPLEX:
            normals = normals + 1j * ask.seed.spawn(1).normal(n * k).reshape(k, n).T
        found = leading(a, k, _structure.start(a, k, normals), ask.max_iter)
        v, residual, steps = found.v, found.residual, found.steps
    if not math.isfinite(residual):
        raise NotFiniteError
    kinds = None
    if ask.kind != "gen":
        v, kinds = _structure.hermitian_pairs(a, v, k, (1,) if ask.kind == "pos" else (1, -1))
    positive = a.least >= 0 and k == 1
    if positive:
        v = xp.abs(v)
    w = a.matmat(v)
    sizes = _lengths(a, w)
    # beyond the rank there is nothing
    count = int(np.sum(sizes > 0))
    if count < sizes.shape[1]:
        v, w, sizes, kinds = v[:, :count], w[:, :count], sizes[:, :count], kinds and kinds[:count]
    if count == 0:
        return Pairs(Term(w, v), kinds, 0.0, steps)
    u = _of_kinds(xp, w * a.device(1 / sizes), a.left[0], kinds)
    # the best v beside these u, which are orthonormal but for rounding
    gram = a.host(adjoint(xp, u) @ u)
    v = a.rmatmat(u) @ a.device(np.linalg.inv(gram))
    return Pairs(Term(u, _of_kinds(xp, v, a.right[0], kinds)), kinds, residual, steps)


def _lengths(a: Rearranged, w: Any) -> Any:
    """Norms of columns as a row on the host."""
    return np.linalg.norm(a.host(w), axis=0, keepdims=True)


def _of_kinds(xp: Any, x: Any, size: int, kinds: list[int] | None) -> Any:
    if kinds is None:
        return x
    columns = [_structure.part(xp, x[:, i : i + 1], size, sign) for i, sign in enumerate(kinds)]
    return columns[0] if len(columns) == 1 else xp.concat(columns, axis=1)


def _by_svd(a: Rearranged, k: int) -> Any:
    """Right singular vectors by LAPACK, or by what the library has."""
    xp = a.xp
    assert isinstance(a, Dense)
    _, s, vh = xp.linalg.svd(a.formed(), full_matrices=False)
    s = a.host(s).real
    if not np.isfinite(s).all():
        raise NotFiniteError
    k = min(k, int(np.sum(s > rounding(a) * s[0])))
    if k != 1:
        return adjoint(xp, vh[:k, :])
    # of several equal ones the limit of power steps from the start that keeps signs
    equal = adjoint(xp, vh[: int(np.sum(s >= s[0] * (1 - EQUAL))), :])
    c = a.host(adjoint(xp, equal) @ _structure.seed_vector(xp, a.like, a.right))
    size = float(np.linalg.norm(c))
    return equal @ a.device(c / size) if size > 1e-3 else equal[:, :1]


def _by_power(a: Rearranged, ask: Ask) -> tuple[Any, float, int]:
    """Power steps, which keep nothing but two vectors."""
    v = _structure.seed_vector(a.xp, a.like, a.right)
    if not isinstance(a, Moments):
        # a semidefinite matrix has no dominant vector that is orthogonal to the identity; others
        # may have one
        noise = ask.seed.normal(a.shape[1]).reshape(-1, 1)
        v = v + a.device(noise * (0.01 / math.sqrt(a.shape[1])))
    residual, step = math.inf, 0
    while step < ask.max_iter and residual > 64 * a.eps:
        step += 1
        u = a.matmat(v)
        size = float(_lengths(a, u)[0, 0])
        if size == 0:
            return v[:, :0], 0.0, step
        z = a.rmatmat(u * (1 / size))
        top = float(_lengths(a, z)[0, 0])
        if not math.isfinite(top):
            raise NotFiniteError
        z = z * (1 / top)
        residual, v = float(np.linalg.norm(a.host(z) - a.host(v))), z
    return v, residual, step


def _moments(a: Moments) -> Pairs:
    """One power step from two identities [Morwani et al.], of the right trace."""
    left, right, trace = a.sides(PROBES)
    if not trace > 0:
        empty = a.device(np.zeros((a.shape[0], 0))), a.device(np.zeros((a.shape[1], 0)))
        return Pairs(Term(*empty), None, 0.0, 1)
    xp, (m, n) = a.xp, a.shape
    u = _structure.part(xp, xp.reshape(left, (m, 1)), a.left[0], 1)
    v = a.conj(_structure.part(xp, xp.reshape(right, (n, 1)), a.right[0], 1))
    size = float(_lengths(a, u)[0, 0])
    return Pairs(Term(u * (1 / size), v * (size / trace)), [1], math.nan, 1)


def _as_many(a: Rearranged, ask: Ask) -> tuple[Pairs, float]:
    """As few pairs as reach the tolerance."""
    assert ask.tol is not None
    most = min(a.shape) if ask.rank is None else min(ask.rank, *a.shape)
    norm = math.sqrt(a.squares())
    k = min(_FIRST, most)
    while True:
        pairs = _pairs(a, ask, k)
        sizes = np.linalg.norm(a.host(pairs.term.v), axis=0)
        rest = _rest(a, pairs.term, norm)
        # squares of what is left with 0, 1, ... terms
        left = rest**2 + np.append(np.cumsum(sizes[::-1] ** 2)[::-1], 0.0)
        reached = np.flatnonzero(np.sqrt(left) <= ask.tol * norm)
        if len(reached) or k == most or len(sizes) < k:
            count = int(reached[0]) if len(reached) else len(sizes)
            term = Term(pairs.term.u[:, :count], pairs.term.v[:, :count])
            return pairs._replace(term=term, kinds=pairs.kinds and pairs.kinds[:count]), norm
        k = min(2 * k, most)


def _rest(a: Rearranged, term: Term, norm: float) -> float:
    """``||A - sum||`` from the entries, or from the norms where that costs too much."""
    if term.u.shape[1] == 0:
        return norm
    found = a.residual(term)
    if found is None:
        total = float(np.sum(np.abs(a.host(term.v)) ** 2))
        found = math.sqrt(max(norm**2 - total, 0.0))
    return found


def _error(a: Rearranged, term: Term, norm: float | None) -> float:
    norm = math.sqrt(a.squares()) if norm is None else norm
    rest = _rest(a, term, norm)
    return 0.0 if rest == 0 else rest / norm if norm > 0 else math.nan


# --- More than two -------------------------------------------------------------------------------


def _several(a: Rearranged, ask: Ask) -> Found:
    """The best of two beginnings: from singular vectors, and from matrices that keep signs."""
    shapes, h = ask.shapes, middle(ask.shapes)
    two = ask._replace(shapes=[group(shapes[:h]), group(shapes[h:])], method="lanczos")
    pairs = _pairs(a, two, 1)
    if pairs.term.u.shape[1] == 0:
        return Found([], np.zeros(0), 0.0, 0.0, pairs.steps, a.passes, "als")
    u, v = a.host(pairs.term.u)[:, 0], np.conj(a.host(pairs.term.v)[:, 0])
    first = hierarchical(u.reshape(a.left), shapes[:h]) + hierarchical(
        v.reshape(a.right), shapes[h:]
    )
    seeds = [_structure.seed_vector(np, u, shape).reshape(shape) for shape in shapes]
    best, steps = None, pairs.steps
    for begin in (first, seeds):
        kinds: list[int] | None = None
        if ask.kind != "gen":
            kinds = [_kind(f, ask.kind, a.dtype) for f in begin]
            begin = [_projected(f, sign) for f, sign in zip(begin, kinds, strict=True)]
        found = power_steps(a, shapes, h, begin, kinds, ask.max_iter)
        steps += found.sweeps
        # among equals the one that keeps signs
        if best is None or found.size >= best.size * (1 - EQUAL):
            best = found
    assert best is not None
    if a.least >= 0:
        # no worse, and sweeps keep it so
        moduli = [np.abs(f) for f in best.factors]
        plus = [1 for _ in shapes] if ask.kind != "gen" else None
        best = power_steps(a, shapes, h, moduli, plus, ask.max_iter)
        steps += best.sweeps
    root = a.scale ** (1 / len(shapes))
    left = a.device(product(best.factors[:h]).reshape(-1, 1))
    right = a.device(np.conj(product(best.factors[h:])).reshape(-1, 1) * best.size)
    error = _error(a, Term(left, right), None)
    terms = [[f * root for f in _structure.balanced(best.factors, best.size, a.eps)]]
    return Found(terms, np.array([best.size * a.scale]), error, best.change, steps, a.passes, "als")


def _kind(f: Any, asked: str, dtype: str) -> int:
    """1 for Hermitian, -1 for skew."""
    if asked == "pos" or dtype in _xp.COMPLEX:
        return 1
    return _structure.kind(np, f.reshape(-1, 1), f.shape[0])


def _projected(f: Any, sign: int) -> Any:
    x = _structure.part(np, f.reshape(-1, 1), f.shape[0], sign).reshape(f.shape)
    size = float(np.linalg.norm(x))
    return x / size if size > 0 else x
