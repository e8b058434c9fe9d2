"""Systems with sums of Kronecker products: which way they go, and the ways."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk.errors import (
    AsymmetricError,
    MemberError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _modes
from linalgk.kronecker import _terms_steps as steps
from linalgk.kronecker._cg import Iterated, direct, is_met, pcg, problems_of
from linalgk.kronecker._determinant import of_eigenvalues
from linalgk.kronecker._factored import Problem
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._terms_steps import Basis

# LAPACK's eigenvalues are right to a modest multiple of eps ||A||, for small orders too.
_FEW = 16


class Plan(NamedTuple):
    """How systems are solved; terms and weights hold a shift as a term."""

    method: str  # "kron", "diagonal", "pcg" or "quotient"
    reason: str
    terms: list[tuple[Any, ...]]
    weights: list[Any]
    basis: Basis | None = None
    grid: Any = None
    # K = weight * inner (krons[0] + shift), inner = krons[1] if there are two
    krons: tuple[Kron, ...] = ()
    weight: complex = 1.0
    shift: complex = 0.0


def plan_for(
    terms: Sequence[tuple[Any, ...]], weights: Sequence[Any], shift: complex, *, hermitian: bool
) -> Plan:
    """For unbatched square factors that have entered."""
    one = tuple(_one(f) for f in terms[0])
    pairs = [(t, w) for t, w in zip(terms, weights, strict=True) if w != 0]
    terms, weights = [t for t, _ in pairs], [w for _, w in pairs]
    number: Any = shift.real if shift.imag == 0 else shift
    if not terms:
        return _by_kron(one, number, 0j, "there is but a shift")
    if len(terms) == 1 or 0 in [int(f.shape[0]) for f in one]:
        return _by_kron(terms[0], weights[0], shift, "there is one term")
    if hermitian:
        plan = _hermitian(terms, weights, number)
        if plan is not None:
            return plan
    kept = [
        (t, w) for t, w in zip(terms, weights, strict=True)
        if any(steps.multiple_of_identity(f) is None for f in t)
    ]  # fmt: skip
    for t, w in zip(terms, weights, strict=True):
        multiples = [steps.multiple_of_identity(f) for f in t]
        if all(c is not None for c in multiples):
            shift = shift + w * math.prod(c for c in multiples if c is not None)
    if len(kept) <= 1:
        term, w = kept[0] if kept else (one, shift)
        reason = "all but one term are multiples of I"
        return _by_kron(term, w, shift if kept else 0j, reason)
    if len(kept) == 2 and shift == 0:
        return _quotient(kept)
    if hermitian and not any(isinstance(w, complex) for w in (*weights, number)):
        msg = (
            "KronTerms: no combination of the factors of a mode is definite, so that the sum is "
            "neither positive nor negative definite; use scipy.sparse.linalg.minres with "
            "K.to_scipy()"
        )
        raise NotPositiveSemidefiniteError(msg)
    msg = (
        "KronTerms: three and more terms, a shift among them, need Hermitian factors and real "
        "weights; use scipy.sparse.linalg.gmres(K.to_scipy(), b)"
    )
    raise AsymmetricError(msg)


def _hermitian(terms: Sequence[tuple[Any, ...]], weights: Sequence[Any], shift: Any) -> Plan | None:
    """By a basis, or None where there is none."""
    terms, weights = list(terms), list(weights)
    if shift != 0:
        one = tuple(_one(f) for f in terms[0])
        terms, weights = [*terms, one], [*weights, shift]
    try:
        basis = steps.find_basis(terms, weights)
    except steps.Indefinite:
        return None
    grid = basis.grid(weights)
    if basis.exact:
        reason = (
            "factors of a mode commute"
            if basis.unitary
            else ("one basis for each mode makes all its factors diagonal")
        )
        return Plan("diagonal", reason, terms, weights, basis, grid)
    if any(isinstance(w, complex) for w in weights):
        return None
    reason = "no basis makes all factors of a mode diagonal"
    return Plan("pcg", reason, terms, weights, basis, grid)


def _one(f: Any) -> Any:
    """The identity beside a factor."""
    return _xp.namespace(f).eye(f.shape[0], dtype=f.dtype, **_modes.where(f))


def _by_kron(term: tuple[Any, ...], w: Any, shift: complex, reason: str) -> Plan:
    if w == 0:
        msg = "KronTerms: the sum is zero; give a shift, or weights other than 0"
        raise SingularMatrixError(msg)
    krons = (Kron(list(term)),)
    return Plan("kron", reason, [term], [w], krons=krons, weight=w, shift=shift / w)


def _quotient(pairs: Sequence[tuple[Any, Any]]) -> Plan:
    """``w_1 A + w_2 C = w_1 C (C^-1 A + w_2 / w_1)``, C the better conditioned term."""
    terms = [t for t, _ in pairs]
    krons = [Kron(list(t)) for t in terms]
    conditions = [float(k.cond()) for k in krons]
    if not any(math.isfinite(c) for c in conditions):
        msg = (
            "KronTerms: neither term has an inverse, and there is no basis in which both are "
            "diagonal; use scipy.sparse.linalg.gmres(K.to_scipy(), b)"
        )
        raise SingularMatrixError(msg)
    inner = int(np.argmin(conditions))
    (a, w), (c, v) = pairs[1 - inner], pairs[inner]
    xp = _xp.namespace(a[0])
    ratio = Kron([xp.linalg.solve(y, x) for x, y in zip(a, c, strict=True)])
    return Plan(
        "quotient", "two terms, not Hermitian", terms, [p[1] for p in pairs],
        krons=(ratio, krons[inner]), weight=w, shift=v / w,
    )  # fmt: skip


# --- Solutions -----------------------------------------------------------------------------------


def run(plan: Plan, b: Any, tol: float, most: int) -> tuple[Iterated, list[Problem]]:
    """Solutions for b (..., n, k), and what is wrong with some columns."""
    xp = _xp.namespace(b)

    def apply(x: Any) -> Any:
        total: Any = None
        for w, term in zip(plan.weights, plan.terms, strict=True):
            y = _modes.times(term, x)
            total = w * y if total is None else total + w * y
        return total

    finite = xp.all(xp.isfinite(b), axis=-2, keepdims=True)
    b = xp.where(finite, b, xp.full_like(b, float("nan")))
    if plan.basis is None:
        found = _by_krons(plan, apply, xp.where(finite, b, xp.zeros_like(b)))
        found = _marked(found, finite)
        return found, problems_of(found, xp.isfinite(found.residual))
    norm = steps.bound(plan.terms, plan.weights)
    bad = _unfit(plan)
    if bad is not None:
        return _refused(b, *bad)
    if plan.method == "diagonal":
        clean = xp.where(finite, b, xp.zeros_like(b))
        x = plan.basis.divided(plan.grid, clean)
        found = direct(x, clean - apply(x), clean)
        met = is_met(found, clean, max(tol, 1e3 * _eps(b)), norm)
        if bool(xp.all(met)) or _sign(plan.grid) == 0:
            found = _marked(found, finite)
            return found, problems_of(found, met)
    sign = float(_sign(plan.grid))
    found = pcg(
        lambda x: sign * apply(x), lambda r: plan.basis.divided(sign * plan.grid, r), b, tol, most  # type: ignore[union-attr]
    )  # fmt: skip
    found = found._replace(x=sign * found.x)
    return found, problems_of(found, is_met(found, b, tol, norm), "K" if sign > 0 else "-K")


def _by_krons(plan: Plan, apply: Any, b: Any) -> Iterated:
    x = b / plan.weight
    if len(plan.krons) == 2:
        x = plan.krons[1].solve(x)
    x = plan.krons[0].solve(x, plan.shift)
    if plan.method == "kron":
        rest = b - apply(x) - (plan.weight * plan.shift) * x
    else:
        rest = b - apply(x)
    return direct(x, rest, b)


def _unfit(plan: Plan) -> tuple[type[MemberError], str] | None:
    """Whether the diagonal has a zero, or, where it is to precondition, not one sign."""
    xp, grid = _xp.namespace(plan.grid), plan.grid
    size: Any = None
    assert plan.basis is not None
    for w, t in zip(plan.weights, range(len(plan.terms)), strict=True):
        y = abs(w) * _modes.outer([xp.abs(m.diagonals[t]) for m in plan.basis.modes])
        size = y if size is None else size + y
    most = max(*(int(f.shape[0]) for f in plan.terms[0]), _FEW)
    # what cancels leaves rounding errors of what it was, the rest is right to a few roundings
    top = xp.max(size)
    noise = xp.where(xp.abs(grid) < 0.5 * size, most * _eps(size) * top, _eps(size) * top)
    low = float(xp.min(xp.abs(grid)))
    if plan.method == "diagonal":
        if bool(xp.any(~(xp.abs(grid) > noise))):
            return SingularMatrixError, (
                f"an eigenvalue is {low:.1e} where the largest is {float(top):.1e}{{}}, so that "
                "the sum is singular to working precision; change the shift"
            )
        return None
    if _sign(grid) == 0:
        return NotPositiveSemidefiniteError, (
            f"the sum is not positive definite: x^H K x is {float(xp.min(grid)):.3g} for one x and "
            f"{float(xp.max(grid)):.3g} for another{{}}"
        )
    return None


def _sign(grid: Any) -> int:
    """1 or -1 of real numbers that all have this sign, else 0."""
    xp = _xp.namespace(grid)
    if _xp.dtype_name(grid) in _xp.COMPLEX:
        return 0
    return int(bool(xp.all(grid > 0))) - int(bool(xp.all(grid < 0)))


def _refused(b: Any, error: type[MemberError], sentence: str) -> tuple[Iterated, list[Problem]]:
    """No solution for any column."""
    xp = _xp.namespace(b)
    found = direct(xp.full_like(b, float("nan")), b, b)
    return found, [Problem(error, sentence, np.ones(tuple(found.iterations.shape), bool))]


def _marked(found: Iterated, finite: Any) -> Iterated:
    """NaN for the columns of which b is not finite."""
    xp = _xp.namespace(found.x)
    nan = xp.full_like(found.residual, float("nan"))
    return found._replace(residual=xp.where(finite[..., 0, :], found.residual, nan))


def _eps(x: Any) -> float:
    return float(np.finfo(_xp.REAL[_xp.dtype_name(x)]).eps)


# --- Determinants --------------------------------------------------------------------------------


def determinant(plan: Plan) -> tuple[Any, Any]:
    """Sign and logarithm of ``|det K|``."""
    sizes = [int(f.shape[0]) for f in plan.terms[0]]
    n = math.prod(sizes)
    if plan.basis is not None:
        sign, log = of_eigenvalues(plan.grid, real=False)
        more = sum(n // p * m.logdet for p, m in zip(sizes, plan.basis.modes, strict=True))
        return sign, log + more
    sign, log = plan.krons[0].slogdet(plan.shift)
    if len(plan.krons) == 2:
        other = plan.krons[1].slogdet()
        sign, log = sign * other.sign, log + other.logabsdet
    w = complex(plan.weight)
    # a power of a number of size one, without the error of a large exponent
    angle = math.remainder(n * math.atan2(w.imag, w.real), 2.0 * math.pi)
    turn: Any = complex(math.cos(angle), math.sin(angle))
    if w.imag == 0:
        turn = -1.0 if w.real < 0 and n % 2 else 1.0
    return sign * turn, log + n * math.log(abs(w))
