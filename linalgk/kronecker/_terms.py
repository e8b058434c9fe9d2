"""Sums of Kronecker products as an object."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, overload

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._results import Info
from linalgk.errors import AsymmetricError
from linalgk.kronecker import _door, _modes
from linalgk.kronecker import _terms_solve as systems
from linalgk.kronecker import _terms_steps as steps
from linalgk.kronecker._cg import answered, check_tol
from linalgk.kronecker._determinant import SignedLog
from linalgk.kronecker._door import Entered
from linalgk.kronecker._entries import diagonal, toarray
from linalgk.kronecker._factored import Factored
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._linear import (
    Linear,
    check_batch,
    check_max_iter,
    check_number,
    check_sizes,
    check_traced,
    hosted,
    register,
    widened,
)
from linalgk.kronecker._terms_solve import Plan
from linalgk.typing import Array, OnFail

_MOST_STEPS = 1000


class KronTerms(Linear):
    """Sum of Kronecker products ``sum_t w_t (F_t1 kron F_t2 kron ... kron F_tN)``.

    Parameters
    ----------
    terms : sequence of terms
        Each one a sequence of N arrays, shapes (..., p_i, q_i), or a `Kron`; the modes have the
        same sizes in all terms. Batch axes broadcast.
    weights : sequence of numbers, optional
        One for each term; default ones.

    Attributes
    ----------
    terms : tuple of tuples of arrays
    weights : tuple of numbers
    shape, batch, dtype : tuple of int, tuple of int, dtype
        As of `Kron`.

    See Also
    --------
    linalgk.KronSum : ``A kron I + I kron B``, of matrices that need not be Hermitian too.

    Notes
    -----
    Sums and multiples are `KronTerms` again: ``K + L``, ``K - L``, ``2 * K``, ``K / 3``, where L
    may be a `Kron`. A product costs as much as those with the terms.

    Examples
    --------
    A finite element Laplacian on a square: stiffness and mass in both directions.

    >>> import numpy as np
    >>> from linalgk.kronecker import KronTerms
    >>> n = 30
    >>> off = np.eye(n, k=1) + np.eye(n, k=-1)
    >>> stiff, mass = (n + 1) * (2 * np.eye(n) - off), (4 * np.eye(n) + off) / (6 * (n + 1))
    >>> k = KronTerms([[stiff, mass], [mass, stiff]])
    >>> b = np.kron(mass, mass) @ np.ones(n * n)
    >>> u, info = k.solve(b, return_info=True)
    >>> info.method, bool(np.linalg.norm(k @ u - b) <= 1e-12 * np.linalg.norm(b))
    ('diagonal', True)
    """

    def __init__(self, terms: Sequence[Any], weights: Sequence[complex] | None = None) -> None:
        self.terms: tuple[tuple[Any, ...], ...] = _terms_of(terms)
        self.weights: tuple[Any, ...] = _weights_of(weights, len(self.terms))
        batch: tuple[int, ...] = ()
        sizes = self._sizes
        for t, term in enumerate(self.terms):
            own = tuple(tuple(int(f.shape[axis]) for f in term) for axis in (-2, -1))
            if own != sizes:
                msg = (
                    f"terms[{t}]: needs factors of shapes {_shapes(*sizes)} as terms[0] has, got "
                    f"{_shapes(*own)}"
                )
                raise ValueError(msg)
            for i, f in enumerate(term):
                batch = check_batch(f"terms[{t}][{i}]", batch, tuple(f.shape[:-2]))
        self._cache: dict[Any, Any] = {}
        register(KronTerms, ("terms",), ("weights",))
        # the library, the device and the dtypes are looked at
        self._enter()

    def _parts(self) -> dict[str, Any]:
        return {
            f"terms[{t}][{i}]": f for t, term in enumerate(self.terms) for i, f in enumerate(term)
        }

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        return type(self)([[f(x) for x in term] for term in self.terms], self.weights)

    def _options(self) -> tuple[Any, ...]:
        return (self.weights, len(self.terms))

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        first = self.terms[0]
        return tuple(int(f.shape[-2]) for f in first), tuple(int(f.shape[-1]) for f in first)

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the factors together."""
        return np.broadcast_shapes(*(tuple(f.shape[:-2]) for f in self._parts().values()))

    def _enter(self, **operands: Any) -> Entered:
        number = 1j if any(isinstance(w, complex) for w in self.weights) else 1.0
        return widened(super()._enter(**operands), complex(number))

    @property
    def H(self) -> Self:
        """The conjugate transpose."""
        turned = super().H
        turned.weights = tuple(w.conjugate() for w in self.weights)
        return turned

    def _split(self, parts: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Arrays by term."""
        n = len(self.terms[0])
        return [tuple(parts[t * n : (t + 1) * n]) for t in range(len(self.terms))]

    def _summed(self, parts: Sequence[Any], of: Callable[[tuple[Any, ...]], Any]) -> Any:
        total: Any = None
        for w, term in zip(self.weights, self._split(parts), strict=True):
            y = of(term)
            y = y if w == 1 else w * y
            total = y if total is None else total + y
        return total

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        check_batch("x", self.batch, tuple(x.shape[:-2]))
        return self._summed(parts, lambda term: _modes.times(term, x, side))

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        return self._summed(parts, toarray)

    def diagonal(self) -> Any:
        """Entries with equal indices, shape (..., n)."""
        entered = self._enter()
        return entered.leave(self._summed(entered.arrays, diagonal))

    # --- Sums and multiples --------------------------------------------------------------------

    def __add__(self, other: Any) -> "KronTerms":
        if isinstance(other, Kron):
            other = KronTerms([other])
        if not isinstance(other, KronTerms):
            return NotImplemented
        return KronTerms([*self.terms, *other.terms], [*self.weights, *other.weights])

    def __radd__(self, other: Any) -> "KronTerms":
        return KronTerms([other]) + self if isinstance(other, Kron) else NotImplemented

    def __sub__(self, other: Any) -> "KronTerms":
        return (
            self + -1.0 * _as_terms(other)
            if isinstance(other, Kron | KronTerms)
            else NotImplemented
        )

    def __rsub__(self, other: Any) -> "KronTerms":
        return _as_terms(other) + -1.0 * self if isinstance(other, Kron) else NotImplemented

    def __neg__(self) -> "KronTerms":
        return -1.0 * self

    def __mul__(self, c: Any) -> "KronTerms":
        if not isinstance(c, numbers.Number):
            return NotImplemented
        return KronTerms(self.terms, [plain(check_number("c", c)) * w for w in self.weights])

    __rmul__ = __mul__

    def __truediv__(self, c: Any) -> "KronTerms":
        return (
            self * (1.0 / check_number("c", c)) if isinstance(c, numbers.Number) else NotImplemented
        )

    # --- Solutions -----------------------------------------------------------------------------

    @overload
    def solve(
        self, b: Array, /, shift: complex = ..., *, tol: float | None = ...,
        max_iter: int | None = ..., check_finite: bool | None = ..., on_fail: OnFail | None = ...,
        return_info: Literal[False] = ...,
    ) -> Array: ...  # fmt: skip
    @overload
    def solve(
        self, b: Array, /, shift: complex = ..., *, tol: float | None = ...,
        max_iter: int | None = ..., check_finite: bool | None = ..., on_fail: OnFail | None = ...,
        return_info: Literal[True],
    ) -> tuple[Array, Info]: ...  # fmt: skip
    def solve(
        self, b: Any, /, shift: complex = 0, *, tol: float | None = None,
        max_iter: int | None = None, check_finite: bool | None = None,
        on_fail: OnFail | None = None, return_info: bool = False,
    ) -> Any:  # fmt: skip
        """Solution of ``(K + shift I) x = b``.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
        shift : number
        tol : float, optional
            Of an iteration: ``||b - (K + shift) x|| <= tol ||b||`` of each column, or as little as
            rounding allows. Default ``eps^(2/3)``.
        max_iter : int, optional
            Most steps of an iteration. Default 1000.
        check_finite : bool, optional
            Whether NaN or infinity is an error. Default True.
        on_fail : {"raise", "warn", "nan"}, optional
            What a failure of some columns does. Default "raise".
        return_info : bool
            Also return an `Info`.

        Returns
        -------
        x : array, shape of b
        info : Info
            Only with ``return_info``; arrays have one number for each column of b. ``residual`` is
            ``||b - (K + shift) x|| / ||b||``; the error is not estimated.

        Raises
        ------
        ValueError, TypeError
            A shape or option that does not fit; factors with a batch.
        NonFiniteError
            A factor or b holds NaN or infinity.
        AsymmetricError
            Three and more terms of which a factor is not Hermitian.
        NotPositiveSemidefiniteError
            An iteration is needed, and the sum is not positive definite.
        SingularMatrixError
            An eigenvalue is zero to working precision.
        NotConvergedError
            ``tol`` was not met within ``max_iter`` steps.

        Notes
        -----
        ``diagonal``, Hermitian factors that have one basis for each mode in which all are
        diagonal: unitary where they commute, else with ``V^H F V`` diagonal by a generalized
        eigenproblem (G, M), M definite [1]_. For two terms one definite factor in each mode is
        enough; for more, two different factors in each mode are, as in finite element matrices
        ``S kron M kron M + M kron S kron M + M kron M kron S`` [2]_. Exact, by two products and a
        division; eigenvalues may have both signs.

        ``pcg``, other Hermitian sums, positive (or negative) definite: conjugate gradients,
        preconditioned by the diagonal of the sum in the basis of the two parts that say most in
        each mode, one of them the partial trace or the best conditioned factor.

        ``quotient``, two terms A and C that are not Hermitian: ``C^-1 A`` by modes and `Kron.solve`
        with a shift; the term with the smaller condition number is inverted.

        ``kron``, one term: `Kron.solve`. Multiples of the identity are no terms but shifts.

        Decompositions are made once for a shift; b and the result are all that is large. Values
        are looked at on the host: small numbers of factors.

        References
        ----------
        .. [1] G. H. Golub, C. F. Van Loan, *Matrix Computations*, Johns Hopkins (2013), section
           8.7.2.
        .. [2] R. E. Lynch, J. R. Rice, D. H. Thomas, "Direct solution of partial difference
           equations by tensor product methods", Numer. Math. 6 (1964).

        Examples
        --------
        >>> import numpy as np
        >>> from linalgk.kronecker import KronTerms
        >>> rng = np.random.default_rng(0)
        >>> def spd(n):
        ...     x = rng.standard_normal((n, 3 * n))
        ...     return x @ x.T / n
        >>> k = KronTerms([[spd(20), spd(30)] for _ in range(3)])
        >>> x, info = k.solve(np.ones(600), tol=1e-10, return_info=True)
        >>> info.method, bool(info.residual <= 1e-10)
        ('pcg', True)
        """
        check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
        check_traced("KronTerms.solve", b, *self._parts().values())
        data: Any = _xp.as_array("b", b)
        self._check_square("solve")
        check_sizes("b", data, self._sizes[0], -2)
        number = check_number("shift", shift)
        most = _MOST_STEPS if max_iter is None else check_max_iter(max_iter)
        with _lag.scope(data), _config.blas_threads(), np.errstate(all="ignore"):
            entered = hosted(widened(self._enter(b=data), number))
            data = entered.arrays[-1]
            vector = data.ndim == 1
            data = data[:, None] if vector else data
            tol = check_tol(tol, float(np.finfo(entered.dtype).eps))
            plan = self._planned(entered.dtype, number)
            found, problems = systems.run(plan, data, tol, most)
            return answered(
                "KronTerms.solve", plan.method, found, problems, entered, vector=vector,
                policy=policy, check=check, info=return_info,
            )  # fmt: skip

    def _planned(self, dtype: str, shift: complex) -> Plan:
        """How to solve in a precision; what is decomposed is kept."""
        precision = _xp.REAL[dtype]
        key = (precision, shift)
        if key not in self._cache:
            # one shift at a time: bases are as large as the factors
            self._cache = {key: self._looked_at(precision, shift)}
        found: Plan = self._cache[key]
        return found

    def _looked_at(self, precision: str, shift: complex) -> Plan:
        entered = hosted(super()._enter())
        xp = _xp.namespace(entered.arrays[0])
        wide = xp.result_type(entered.arrays[0].dtype, _xp.dtype_of(xp, precision))
        arrays = [xp.astype(a, wide, copy=False) for a in entered.arrays]
        _door.check_finite("terms", arrays)
        terms = self._split(arrays)
        hermitian = all(self._hermitian(arrays))
        return systems.plan_for(terms, list(self.weights), shift, hermitian=hermitian)

    def _hermitian(self, arrays: Sequence[Any]) -> tuple[bool, ...]:
        return Factored(arrays).looked.hermitian

    def _check_square(self, what: str) -> None:
        rows, columns = self._sizes
        if rows != columns:
            msg = f"KronTerms.{what}: needs square factors, got {_shapes(rows, columns)}"
            raise ValueError(msg)
        if self.batch:
            msg = (
                f"KronTerms.{what}: factors may have no batch, got {self.batch}; make one object "
                "for each member"
            )
            raise ValueError(msg)

    # --- Eigenvalues ---------------------------------------------------------------------------

    def slogdet(self, shift: complex = 0) -> SignedLog:
        """Sign and logarithm of the absolute value of ``det(K + shift I)``.

        Parameters
        ----------
        shift : number

        Returns
        -------
        sign, logabsdet : arrays, shape ()

        Raises
        ------
        ValueError
            If there is no basis in which all terms are diagonal: use `linalgk.estimate_logdet`.

        Notes
        -----
        In the cases ``diagonal``, ``quotient`` and ``kron`` of `solve`. With ``V^H M V = I`` it is
        ``sum log |diagonal| + sum_i n / n_i log det M_i``.

        Examples
        --------
        >>> import numpy as np
        >>> from linalgk.kronecker import KronTerms
        >>> a, c = np.diag([1.0, 2.0]), np.array([[2.0, 1.0], [1.0, 2.0]])
        >>> k = KronTerms([[a, a], [c, c]])
        >>> bool(np.isclose(k.slogdet().logabsdet, np.linalg.slogdet(k.toarray())[1]))
        True
        """
        check_traced("KronTerms.slogdet", *self._parts().values())
        self._check_square("slogdet")
        number = check_number("shift", shift)
        like = self.terms[0][0]
        with _lag.scope(like), _config.blas_threads(), np.errstate(all="ignore"):
            entered = hosted(widened(self._enter(), number))
            plan = self._planned(entered.dtype, number)
            if plan.method == "pcg":
                msg = (
                    "KronTerms.slogdet: there is no basis in which all terms are diagonal; use "
                    "linalgk.estimate_logdet(K)"
                )
                raise ValueError(msg)
            sign, log = systems.determinant(plan)
            if entered.dtype not in _xp.COMPLEX and _xp.dtype_name(sign) in _xp.COMPLEX:
                sign = _xp.namespace(sign).real(sign)
            return SignedLog(entered.leave(sign), entered.leave(log))

    def eigvalsh(self) -> Any:
        """Eigenvalues, ascending, of a sum whose factors commute in each mode.

        Returns
        -------
        eigenvalues : array, shape (n,)

        Raises
        ------
        AsymmetricError
            If a factor is not Hermitian or a weight not real.
        ValueError
            If factors of a mode do not commute: eigenvalues are not known by the factors then.
            `linalgk.eigh_lowrank` finds the largest ones.

        Examples
        --------
        >>> import numpy as np
        >>> from linalgk.kronecker import KronTerms
        >>> a = np.diag([1.0, 2.0])
        >>> KronTerms([[a, a], [np.eye(2), np.eye(2)]]).eigvalsh()
        array([2., 3., 3., 5.])
        """
        check_traced("KronTerms.eigvalsh", *self._parts().values())
        self._check_square("eigvalsh")
        with _lag.scope(self.terms[0][0]), _config.blas_threads():
            entered = hosted(self._enter())
            arrays = entered.arrays
            _door.check_finite("terms", arrays)
            if entered.dtype in _xp.COMPLEX and any(isinstance(w, complex) for w in self.weights):
                msg = "KronTerms.eigvalsh: weights must be real"
                raise AsymmetricError(msg)
            if not all(self._hermitian(arrays)):
                raise AsymmetricError(self._asymmetric("eigvalsh", arrays))
            basis = steps.find_basis(self._split(arrays), self.weights, rotate_only=True)
            if not basis.exact:
                msg = (
                    "KronTerms.eigvalsh: the factors of a mode do not commute, so that they do not "
                    "tell the eigenvalues; use linalgk.eigh_lowrank(K, rank)"
                )
                raise ValueError(msg)
            grid = basis.grid(self.weights)
            return entered.leave(_xp.namespace(grid).sort(grid))

    def _asymmetric(self, what: str, arrays: Sequence[Any]) -> str:
        flags = zip(self._parts(), self._hermitian(arrays), strict=True)
        names = ", ".join(name for name, flag in flags if not flag)
        return f"KronTerms.{what}: needs Hermitian factors, but {names} not Hermitian to rounding"


# --- The door ------------------------------------------------------------------------------------


def _terms_of(terms: Any) -> tuple[tuple[Any, ...], ...]:
    """Lists of factors."""
    if isinstance(terms, Linear | str) or not isinstance(terms, Sequence):
        msg = f"terms: must be a list of terms, each a list of matrices or a Kron, got {terms!r}"
        raise TypeError(msg)
    if not len(terms):
        msg = "terms: needs at least one term, got none"
        raise ValueError(msg)
    found = []
    for t, term in enumerate(terms):
        factors = term.factors if isinstance(term, Kron) else term
        found.append(tuple(_door.matrices(f"terms[{t}]", factors)))
    return tuple(found)


def _weights_of(weights: Any, count: int) -> tuple[Any, ...]:
    """Python's numbers."""
    if weights is None:
        return (1.0,) * count
    if _xp.face(weights) is not None:
        weights = np.asarray(_xp.to_numpy(weights)).tolist()
    if not isinstance(weights, Sequence) or len(weights) != count:
        msg = f"weights: must be one number for each of {count} terms, got {weights!r}"
        raise ValueError(msg)
    return tuple(plain(check_number(f"weights[{t}]", w)) for t, w in enumerate(weights))


def plain(z: complex) -> Any:
    """A float where it can be one."""
    return z.real if z.imag == 0 else z


def _as_terms(x: Any) -> KronTerms:
    return x if isinstance(x, KronTerms) else KronTerms([x])


def _shapes(rows: Sequence[int], columns: Sequence[int]) -> str:
    return ", ".join(f"({p}, {q})" for p, q in zip(rows, columns, strict=True))


# --- For the record --------------------------------------------------------------------------


def explain_kronterms(terms: Any, weights: Any = None) -> Explanation:
    """What a solution would run."""
    k = KronTerms(terms, weights)
    k._check_square("solve")
    entered = hosted(k._enter())
    plan = k._planned(entered.dtype, 0j)
    sizes, n = k._sizes[0], k.shape[0]
    count = len(k.terms)
    product = 2.0 * n * sum(sizes)
    once = 27.0 * sum(s**3 for s in sizes)
    times = {"kron": 1.0, "quotient": 3.0, "diagonal": 4.0 + count, "pcg": 30.0 * (2.0 + count)}
    size = np.dtype(entered.dtype).itemsize
    runs = {
        "kron": "Kron.solve",
        "quotient": "C^-1 A by modes, and Kron.solve with a shift",
        "diagonal": "two products with the basis and a division",
        "pcg": "conjugate gradients preconditioned in the basis of two parts; 30 steps are assumed",
    }
    return Explanation(
        "KronTerms", plan.method, plan.reason, {"solve": runs[plan.method]},
        once + product * times[plan.method], 3.0 * n * size,
    )  # fmt: skip


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Two terms with positive definite factors of the size that is named."""
    shape = {"small": (3, 4), "medium": (30, 40), "large": (200, 300)}[size]
    gen = np.random.default_rng(rng)

    def factor(n: int) -> Any:
        x = gen.standard_normal((n, 2 * n))
        return xp.asarray(x @ x.T / n)

    return ([[factor(n) for n in shape] for _ in range(2)],), {}
