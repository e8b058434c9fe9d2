"""Factorizations of the factors, made once, and the solutions and determinants that they give."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint, report
from linalgk.errors import (
    AsymmetricError,
    MemberError,
    NonFiniteError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _apply, _shifted, _traced
from linalgk.kronecker._determinant import of_eigenvalues, of_powers
from linalgk.kronecker._inverse import Inverse, inverted
from linalgk.kronecker._modes import (
    by_parts,
    fits,
    in_mode,
    is_complex,
    outer,
    plus,
    shape_of,
    size_of,
    times,
    where,
)

# Condition from which a step of refinement follows the product with inverses. Those of LAPACK have
# a small left residual, ||X A - I||, and with it an error of eps times the condition by themselves.
REFINED = {True: 1e5, False: 1e2}


class Problem(NamedTuple):
    """What is wrong with some members."""

    error: type[MemberError]
    sentence: str  # with {} where the members are named
    bad: Any  # NumPy, as the batch of a factor, or of all
    factor: int | None = None  # where it is one factor's


class Spectral(NamedTuple):
    """Eigenvalues (..., p_i) ascending and eigenvectors (..., p_i, p_i) of Hermitian factors."""

    values: list[Any]
    vectors: list[Any]


class Looked(NamedTuple):
    """Factors that were looked at."""

    arrays: tuple[Any, ...]  # finite, those that are Hermitian to the bit
    hermitian: tuple[bool, ...]
    problems: list[Problem]
    bad: tuple[Any, ...]  # NumPy, as the batch of each factor


class Factored:
    """Factors in one dtype, with what was computed of them.

    Attributes
    ----------
    arrays : tuple of array, shape (..., p_i, q_i)
        As they entered.
    kinds : tuple of str or None
        ``"gen"``, ``"her"``, ``"pos"``, or None where the entries have to tell.
    traced : bool
        Whether their values are unknown.
    """

    def __init__(self, arrays: Sequence[Any], kinds: Sequence[str | None] | None = None) -> None:
        self.arrays = tuple(arrays)
        self.kinds = tuple(kinds) if kinds is not None else (None,) * len(self.arrays)
        self.xp = _xp.namespace(self.arrays[0])
        self.dtype = _xp.dtype_name(self.arrays[0])
        self.is_complex = self.dtype in _xp.COMPLEX
        self.eps = float(np.finfo(self.dtype).eps)
        self.batch = np.broadcast_shapes(*(tuple(a.shape[:-2]) for a in self.arrays))
        self.sizes = tuple(int(a.shape[-2]) for a in self.arrays)
        self.size = math.prod(self.sizes)
        self.empty = 0 in self.batch or self.size == 0
        self.traced = any(_xp.is_traced(a) for a in self.arrays)
        # what `_shifted` keeps: of factors that are not Hermitian
        self.eigen: dict[Any, Any] = {}

    # --- What the factors are ------------------------------------------------------------------

    @cached_property
    def looked(self) -> Looked:
        """Whether the factors are finite and Hermitian."""
        found, hermitian, problems, wrong = [], [], [], []
        for i, (a, kind) in enumerate(zip(self.arrays, self.kinds, strict=True)):
            square, is_hermitian = a.shape[-1] == a.shape[-2], kind in ("her", "pos")
            bad = np.zeros(tuple(a.shape[:-2]), bool)
            if 0 in a.shape:
                is_hermitian = square and kind != "gen"
            else:
                a, mine = self._finite(i, a)
                if kind != "gen" and square:
                    is_hermitian, more = self._symmetric(i, a, kind)
                    mine += more
                problems += mine
                for problem in mine:
                    bad = bad | problem.bad
            found.append(0.5 * (a + adjoint(self.xp, a)) if is_hermitian else a)
            hermitian.append(is_hermitian)
            wrong.append(bad)
        return Looked(tuple(found), tuple(hermitian), problems, tuple(wrong))

    def _finite(self, i: int, a: Any) -> tuple[Any, list[Problem]]:
        """The factor with zeros in place of members that are not finite."""
        xp = self.xp
        finite = xp.all(xp.isfinite(a), axis=(-2, -1))
        bad = ~np.asarray(_xp.to_numpy(finite))
        if not bad.any():
            return a, []
        sentence = f"factors[{i}] holds NaN or infinity{{}}; remove them, or pass on_fail='nan'"
        a = xp.where(finite[..., None, None], a, xp.zeros_like(a))
        return a, [Problem(NonFiniteError, sentence, bad, i)]

    def _symmetric(self, i: int, a: Any, kind: str | None) -> tuple[bool, list[Problem]]:
        """Whether the factor counts as Hermitian."""
        xp = self.xp
        largest = xp.max(xp.abs(a), axis=(-2, -1))
        with np.errstate(over="ignore"):
            defect = xp.max(xp.abs(a - adjoint(xp, a)), axis=(-2, -1))
        # rounding, or under "her" and "pos" carelessness
        tol = self.eps**0.5 if kind is not None else a.shape[-1] * self.eps
        bad = np.asarray(_xp.to_numpy(defect > tol * largest))
        if kind is None:
            return not bad.any(), []
        if not bad.any():
            return True, []
        at = np.unravel_index(np.argmax(bad), bad.shape)
        most, size = (float(np.asarray(_xp.to_numpy(x))[at]) for x in (defect, largest))
        sentence = (
            f"factors[{i}] is not Hermitian: |a_ij - conj(a_ji)| reaches {most / size:.1e} of its "
            f"largest entry{{}}, but assume_a is {kind!r}; symmetrise it, or leave out assume_a"
        )
        return True, [Problem(AsymmetricError, sentence, bad, i)]

    # --- Factorizations ------------------------------------------------------------------------

    @cached_property
    def spectral(self) -> Spectral:
        """Of the factors that are Hermitian; None for the others."""
        values: list[Any] = []
        vectors: list[Any] = []
        for a, hermitian in zip(self.looked.arrays, self.looked.hermitian, strict=True):
            w, v = self.xp.linalg.eigh(a) if hermitian else (None, None)
            values.append(w)
            vectors.append(v)
        return Spectral(values, vectors)

    @cached_property
    def indefinite(self) -> list[Problem]:
        """Factors declared positive semidefinite that have a negative eigenvalue."""
        found = []
        for i, (kind, w) in enumerate(zip(self.kinds, self.spectral.values, strict=True)):
            if kind == "pos" and w.shape[-1]:
                found += self._definite(i, np.asarray(_xp.to_numpy(w)))
        return found

    def _definite(self, i: int, w: Any) -> list[Problem]:
        low, top = w[..., 0], np.abs(w).max(axis=-1)
        bad = np.asarray(low < -w.shape[-1] * self.eps * top) & ~self.looked.bad[i]
        if not bad.any():
            return []
        value = float(low[np.unravel_index(np.argmax(bad), bad.shape)])
        sentence = (
            f"factors[{i}] has the negative eigenvalue {value:.6g}{{}}, but assume_a is 'pos'; "
            "declare it 'her'"
        )
        return [Problem(NotPositiveSemidefiniteError, sentence, bad, i)]

    @cached_property
    def eigenvalues(self) -> Any:
        """Of the product, (..., K), in the order in which the product of eigenvectors has them."""
        return outer(
            [
                _shifted.eigenvalues(self, i) if w is None else w
                for i, w in enumerate(self.spectral.values)
            ]
        )

    @cached_property
    def adjoint_vectors(self) -> list[Any]:
        """Of the factors that are Hermitian."""
        return [None if v is None else adjoint(self.xp, v) for v in self.spectral.vectors]

    @cached_property
    def svd(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Singular vectors and values of each factor, ``U_i diag(s_i) Vh_i``."""
        parts = [self.xp.linalg.svd(a, full_matrices=False) for a in self.looked.arrays]
        u, s, vh = ([part[k] for part in parts] for k in range(3))
        return u, s, vh

    @cached_property
    def inverses(self) -> list[Inverse]:
        """Of each factor, as a matrix or by its factorization."""
        return [
            inverted(a, kind if hermitian else "gen", self.eps)
            for a, kind, hermitian in zip(
                self.looked.arrays, self.kinds, self.looked.hermitian, strict=True
            )
        ]

    @cached_property
    def singular(self) -> list[Problem]:
        """Factors without an inverse."""
        found: list[Problem] = []
        for i, inverse in enumerate(self.inverses):
            if self.kinds[i] == "pos" and inverse.lowest is not None:
                found += self._definite(i, inverse.lowest)
            bad = inverse.singular & ~self.looked.bad[i]
            if not bad.any():
                continue
            at = np.unravel_index(np.argmax(bad), bad.shape)
            sentence = (
                f"factors[{i}] is singular to working precision{{}} (reciprocal condition "
                f"{float(inverse.rcond[at]):.1e}); use lstsq or pinv, or give a shift"
            )
            found.append(Problem(SingularMatrixError, sentence, bad, i))
        return found

    # --- Equations -----------------------------------------------------------------------------

    def solve(self, b: Any, shift: Any = None) -> tuple[Any, list[Problem]]:
        """``(K + shift) x = b`` for b (..., K, n); the shift is a number or has a batch shape."""
        if self.traced or _xp.is_traced(b) or _xp.is_traced(shift):
            return _traced.solve(self, b, shift), []
        if self.empty or 0 in b.shape:
            full = np.broadcast_shapes(self.batch, tuple(b.shape[:-2]), shape_of(shift))
            dtype = self.xp.result_type(self.arrays[0], b)
            return self.xp.zeros((*full, *b.shape[-2:]), dtype=dtype, **where(b)), []
        problems = list(self.looked.problems)
        if shift is None:
            x = by_parts(self._plain, b) if not self.is_complex else self._plain(b)
            return x, problems + self.singular
        if all(self.looked.hermitian):
            x, more = self._diagonal(b, shift)
        else:
            x, more = _shifted.solve(self, b, shift)
        return x, problems + self.indefinite + more

    def _plain(self, b: Any) -> Any:
        """Mode by mode, or by explicit inverses at once."""
        inverses, xp = self.inverses, self.xp
        if any(v.matrix is None for v in inverses):
            x = b
            for i, inverse in enumerate(inverses):
                x = in_mode(inverse.solve, x, self.sizes, i)
            return x
        matrices = [v.matrix for v in inverses]
        b = xp.astype(b, self.arrays[0].dtype, copy=False)
        x = _apply.multiply(matrices, b)
        left = all(v.left for v in inverses)
        if math.prod(v.condition for v in inverses) > REFINED[left]:
            x = x + _apply.multiply(matrices, b - _apply.multiply(self.looked.arrays, x))
        return x

    def _diagonal(self, b: Any, shift: Any) -> tuple[Any, list[Problem]]:
        """Of Hermitian factors, by eigenvectors."""
        d, problems = self.shifted(shift)
        c = times(self.adjoint_vectors, b)
        if isinstance(c, np.ndarray) and c.dtype == np.result_type(c, d) and c is not b:
            c = np.divide(c, d[..., None], out=c if d.ndim <= c.ndim - 1 and fits(d, c) else None)
        else:
            c = c / d[..., None]
        return times(self.spectral.vectors, c), problems

    def shifted(self, shift: Any) -> tuple[Any, list[Problem]]:
        """Eigenvalues of ``K + shift`` (..., K), ones for zeros, and where it is singular."""
        xp, w = self.xp, self.eigenvalues
        d = plus(w, shift)
        if self.empty:
            return d, []
        size = xp.abs(d)
        top = plus(xp.max(xp.abs(w), axis=-1), size_of(shift), column=False)
        tol = 2 * len(self.arrays) * self.eps
        hit = np.asarray(_xp.to_numpy(xp.min(size, axis=-1) <= tol * top))
        for bad in self.looked.bad:
            hit = hit & ~bad
        if not hit.any():
            return d, []
        at = np.unravel_index(np.argmax(hit), hit.shape)
        nearest = np.asarray(_xp.to_numpy(xp.argmin(size, axis=-1)))
        wide = np.broadcast_to(np.asarray(_xp.to_numpy(w)), (*hit.shape, w.shape[-1]))
        value = wide[(*at, int(nearest[at]))]
        sentence = (
            f"the shift meets the eigenvalue {value:.6g} of the product{{}}, so that K + shift I "
            "is singular to working precision; change the shift"
        )
        one = xp.ones_like(d)
        return xp.where(size == 0, one, d), [Problem(SingularMatrixError, sentence, hit)]

    # --- Determinants --------------------------------------------------------------------------

    def slogdet(self, shift: Any = None) -> tuple[Any, Any, list[Problem]]:
        """Sign and logarithm of the absolute value of ``det(K + shift)``."""
        if self.traced or _xp.is_traced(shift):
            return (*_traced.slogdet(self, shift), [])
        problems = list(self.looked.problems)
        if any(a.shape[-1] != a.shape[-2] for a in self.arrays):
            # square as a whole: of deficient rank
            xp, none = self.xp, self.xp.zeros(self.batch, dtype=self.arrays[0].dtype)
            return none, xp.full(self.batch, -math.inf, dtype=xp.real(none).dtype), problems
        if shift is None:
            pairs = [inverse.slogdet for inverse in self.inverses]
            for i, inverse in enumerate(self.inverses):
                if self.kinds[i] == "pos" and inverse.lowest is not None:
                    problems += self._definite(i, inverse.lowest)
            return (*of_powers(pairs, [self.size // max(p, 1) for p in self.sizes]), problems)
        w = self.eigenvalues
        real = not self.is_complex and not is_complex(shift)
        sign, log = of_eigenvalues(plus(w, shift), real=real)
        sign = sign if not self.is_complex else self.xp.astype(sign, self.arrays[0].dtype)
        return sign, log, problems + self.indefinite


# --- Doors ---------------------------------------------------------------------------------------


def settle(
    function: str, answers: Sequence[Any], problems: Sequence[Problem], batch: tuple[int, ...],
    leave: Callable[[Sequence[Any]], Any], *, policy: str = "raise", check: bool = True,
) -> Any:  # fmt: skip
    """Answers with NaN in bad members, in the caller's hands, and what is to be said about them.

    Answers have the shape (*batch, ...).
    """
    if not problems:
        return leave(answers)
    bad = np.zeros(batch, bool)
    for problem in problems:
        bad = bad | problem.bad
    found = []
    for x in answers:
        xp = _xp.namespace(x)
        mask = _xp.from_numpy(bad.reshape(bad.shape + (1,) * (x.ndim - bad.ndim)), xp, like=x)
        found.append(xp.where(mask, xp.full_like(x, math.nan), x))
    result = leave(found)
    for problem in problems:
        if check or problem.error is not NonFiniteError:
            which = np.broadcast_to(problem.bad, batch)
            report(problem.error, f"{function}: {problem.sentence}", which, batch, policy, result)
    return result


def _first(answers: Sequence[Any]) -> Any:
    return answers[0]


def solve(
    arrays: Sequence[Any], b: Any, shift: Any = None, kinds: Sequence[str | None] | None = None, *,
    policy: str = "raise", check: bool = True,
) -> Any:  # fmt: skip
    """``(F_1 kron ... kron F_N + shift) x = b`` for entered arrays, b (..., K, n)."""
    x, problems = Factored(arrays, kinds).solve(b, shift)
    batch = tuple(x.shape[:-2])
    return settle("solve", [x], problems, batch, _first, policy=policy, check=check)


def slogdet(
    arrays: Sequence[Any], shift: Any = None, kinds: Sequence[str | None] | None = None, *,
    policy: str = "raise", check: bool = True,
) -> Any:  # fmt: skip
    """Sign and logarithm of ``|det(F_1 kron ... kron F_N + shift)|`` for entered arrays."""
    sign, log, problems = Factored(arrays, kinds).slogdet(shift)
    batch = tuple(log.shape)
    return settle("slogdet", [sign, log], problems, batch, tuple, policy=policy, check=check)
