"""The Kronecker sum as an object."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import AsymmetricError
from linalgk.kronecker import _adi, _door, _spectrum
from linalgk.kronecker import _kronsum_steps as steps
from linalgk.kronecker._adi import LowRankSolution
from linalgk.kronecker._cg import check_tol
from linalgk.kronecker._determinant import SignedLog, of_eigenvalues
from linalgk.kronecker._factored import Factored, Looked, settle
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._linear import (
    Linear,
    check_batch,
    check_number,
    check_sizes,
    check_traced,
    finite,
    hosted,
    kinds_of,
    register,
    widened,
)
from linalgk.kronecker._spectrum import Eigh, Sorted
from linalgk.typing import Array, ArrayT, AssumeA, OnFail

Which: TypeAlias = Literal["largest", "smallest"]


class KronSum(Linear):
    """Kronecker sum of square matrices, known by its factors.

    ``sum_i I kron ... kron A_i kron ... kron I``: a matrix of order ``n_1 n_2 ... n_d`` that acts
    on tensors of d modes, each factor on its mode. Laplacians of grids are such sums, and for d = 2
    ``K vec(X) = vec(A X + X B^T)`` with the rows of X one after the other.

    Parameters
    ----------
    factors : sequence of d arrays, shapes (..., n_i, n_i)
        Of one library; mixed dtypes promote. Batch axes broadcast.
    assume_a : {"gen", "her", "pos"} or a sequence of them, optional
        General, Hermitian or Hermitian positive semidefinite factors. By default it is found out
        which are Hermitian to rounding.

    Attributes
    ----------
    factors : tuple of arrays
    assume_a : tuple of str or None
    shape, batch : tuple of int, tuple of int
        ``(n, n)`` of one member, ``n = n_1 n_2 ... n_d``; batch axes of the factors together.
    dtype : dtype

    See Also
    --------
    linalgk.Kron : a Kronecker product.
    linalgk.kronecker.KronTerms : sums of any Kronecker products.
    linalgk.solve_sylvester : ``A X + X B = Q`` of matrices.

    Notes
    -----
    A product costs ``2 n (n_1 + ... + n_d)`` flops for each column. Eigenvalues are all sums of one
    eigenvalue of each factor, eigenvectors the Kronecker products of theirs [1]_; decompositions of
    the factors are made once and kept.

    References
    ----------
    .. [1] R. A. Horn, C. R. Johnson, *Topics in Matrix Analysis*, Cambridge (1991), section 4.4.

    Examples
    --------
    A Poisson equation on a square:

    >>> import numpy as np, linalgk as lk
    >>> n = 50
    >>> line = (n + 1) ** 2 * (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
    >>> laplacian = lk.KronSum([line, line])
    >>> u = laplacian.solve(np.ones(n * n))
    >>> bool(np.abs(laplacian @ u - 1).max() < 1e-9)
    True
    >>> round(float(u.max()), 3)
    0.074
    """

    def __init__(
        self, factors: Any, *, assume_a: AssumeA | Sequence[AssumeA | None] | None = None
    ) -> None:
        self.factors: tuple[Any, ...] = tuple(_door.matrices("factors", factors))
        for i, f in enumerate(self.factors):
            _validate.square(f"factors[{i}]", f)
        self.assume_a: tuple[AssumeA | None, ...] = kinds_of(assume_a, len(self.factors))
        batch: tuple[int, ...] = ()
        for i, f in enumerate(self.factors):
            batch = check_batch(f"factors[{i}]", batch, tuple(f.shape[:-2]))
        self._cache: dict[Any, Any] = {}
        register(KronSum, ("factors",), ("assume_a",))
        # the library, the device and the dtypes are looked at
        self._enter()

    def _parts(self) -> dict[str, Any]:
        return {f"factors[{i}]": f for i, f in enumerate(self.factors)}

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        return type(self)([f(a) for a in self.factors], assume_a=list(self.assume_a))

    def _options(self) -> tuple[Any, ...]:
        return self.assume_a

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        sizes = tuple(int(f.shape[-1]) for f in self.factors)
        return sizes, sizes

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the factors together."""
        return np.broadcast_shapes(*(tuple(f.shape[:-2]) for f in self.factors))

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        check_batch("x", self.batch, tuple(x.shape[:-2]))
        return steps.product(parts, x, side)

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        return steps.dense(parts)

    def diagonal(self) -> Any:
        """The diagonal, shape (..., n)."""
        entered = self._enter()
        diagonals = [_xp.namespace(f).linalg.diagonal(f) for f in entered.arrays]
        return entered.leave(steps.outer_sum(diagonals))

    # --- Solutions -----------------------------------------------------------------------------

    def solve(
        self, b: ArrayT, /, shift: complex = 0, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> ArrayT:  # fmt: skip
        """Solution of ``(K + shift I) x = b``.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
            Batch axes broadcast with those of the factors.
        shift : number
            A complex one makes a complex result.
        check_finite : bool, optional
            Whether NaN or infinity is an error. Default True.
        on_fail : {"raise", "warn", "nan"}, optional
            What a failure of some members does. Default "raise".

        Returns
        -------
        x : array, shape of b, with the batch axes of both
            Real where the factors, b and the shift are.

        Raises
        ------
        ValueError, TypeError
            A shape or option that does not fit.
        NonFiniteError, AsymmetricError
            A factor or b holds NaN or infinity; a factor that was declared Hermitian is not.
        NotPositiveSemidefiniteError
            A factor that was declared positive semidefinite has a negative eigenvalue.
        SingularMatrixError
            A sum of eigenvalues and the shift is zero to working precision; the message has it.

        Notes
        -----
        ``eigh``, where all factors are Hermitian: with ``A_i = V_i diag(w_i) V_i^H``, once for all
        solutions and shifts, and ``V = V_1 kron ... kron V_d``, ``x = V [(V^H b) / (w_1 (+) ... (+)
        w_d + shift)]``, ``4 n (n_1 + ... + n_d)`` flops a column.

        ``sylvester``, two factors of which one is not Hermitian: `linalgk.solve_sylvester`.

        ``schur``, otherwise: eigenvectors of all factors, refined once, where their condition is
        below 1000, else complex Schur forms of the factors that are not Hermitian and back
        substitution, halves of a mode at a time [1]_, in the library of b. Both are made once, by
        LAPACK, on the host for other libraries than NumPy: factors are small beside b. A device
        also takes it where the method of `solve_sylvester` there does not serve.

        The relative error is about ``n_max eps ||K|| / min |sum of eigenvalues|`` for Hermitian
        factors. JAX's arrays in the host's memory are computed with as NumPy's.

        References
        ----------
        .. [1] M. Chen, D. Kressner, "Recursive blocked algorithms for linear systems with Kronecker
           product structure", Numer. Algorithms 84 (2020).

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> k = lk.KronSum([np.diag([1.0, 2.0]), np.array([[1.0, 1.0], [0.0, 3.0]])])
        >>> k.solve(np.array([3.0, 4.0, 4.0, 5.0])).round(12)
        array([1., 1., 1., 1.])
        """
        check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
        check_traced("KronSum.solve", b, *self.factors)
        x: Any = _xp.as_array("b", b)
        check_sizes("b", x, self._sizes[0], -2)
        number = check_number("shift", shift)
        with _lag.scope(x), _config.blas_threads(), np.errstate(all="ignore"):
            entered = hosted(widened(self._enter(b=x), number))
            data = entered.arrays[-1]
            vector = data.ndim == 1
            data = data[:, None] if vector else data
            batch = check_batch("b", self.batch, tuple(data.shape[:-2]))
            data, problems = finite("b", data)
            y, more = steps.solve(self._factored(entered.dtype), data, number)

            def leave(answers: Sequence[Any]) -> Any:
                return entered.leave(answers[0][..., 0] if vector else answers[0])

            found: ArrayT = settle(
                "KronSum.solve", [y], [*problems, *more], batch, leave, policy=policy, check=check
            )
            return found

    def _factored(self, dtype: str) -> Factored:
        """What is known of the factors, in this precision or in their own if it is wider."""
        arrays = list(hosted(self._enter()).arrays)
        own, wanted = (_xp.REAL[d] for d in (_xp.dtype_name(arrays[0]), dtype))
        precision = "float64" if "float64" in (own, wanted) else own
        if precision not in self._cache:
            if precision != own:
                xp = _xp.namespace(arrays[0])
                wide = xp.result_type(arrays[0].dtype, _xp.dtype_of(xp, precision))
                arrays = [xp.astype(a, wide) for a in arrays]
            self._cache[precision] = Factored(arrays, self.assume_a)
        found: Factored = self._cache[precision]
        return found

    # --- Functions -----------------------------------------------------------------------------

    def expm(self, t: complex = 1) -> Kron:
        """Exponential ``exp(t K)``, a Kronecker product.

        Parameters
        ----------
        t : number
            A complex one makes complex factors.

        Returns
        -------
        exponential : Kron
            ``exp(t A_1) kron ... kron exp(t A_d)``.

        Raises
        ------
        NonFiniteError
            If a factor holds NaN or infinity.

        Notes
        -----
        ``exp(A (+) B) = exp(A) kron exp(B)`` [1]_, because the terms commute. Hermitian factors go
        by their eigenvectors; others by `scipy.linalg.expm`, in other libraries than NumPy by
        scaling and squaring of the Padé approximant [13/13] [2]_.

        References
        ----------
        .. [1] N. J. Higham, *Functions of Matrices*, SIAM (2008), theorem 10.9.
        .. [2] N. J. Higham, "The scaling and squaring method for the matrix exponential revisited",
           SIAM J. Matrix Anal. Appl. 26 (2005).

        Examples
        --------
        Heat on a square after a time of 0.1:

        >>> import numpy as np, linalgk as lk
        >>> line = np.eye(3, k=1) + np.eye(3, k=-1) - 2 * np.eye(3)
        >>> heat = lk.KronSum([line, line]).expm(0.1)
        >>> (heat @ np.ones(9)).round(3)
        array([0.826, 0.901, 0.826, 0.901, 0.983, 0.901, 0.826, 0.901, 0.826])
        """
        number = check_number("t", t)
        check_traced("KronSum.expm", *self.factors)
        like = self.factors[0]
        with _lag.scope(like), _config.blas_threads():
            entered = hosted(widened(self._enter(), number))
            found = self._looked("expm")
            scale = number if entered.dtype in _xp.COMPLEX else number.real
            arrays: list[Any] = []
            kinds: list[AssumeA | None] = []
            for i, hermitian in enumerate(found.hermitian):
                xp, a = _xp.namespace(entered.arrays[i]), entered.arrays[i]
                # a Hermitian matrix times a complex number is none
                real = hermitian and number.imag == 0
                a = xp.astype(found.arrays[i], a.dtype, copy=False) if real else a
                arrays.append(entered.leave(steps.expm(a * scale, real)))
                kinds.append("her" if real else None)
        return Kron(arrays, assume_a=kinds)

    def _looked(self, what: str) -> Looked:
        """Factors without problems, or the exception that says which there are."""
        found = self._factored("float32").looked
        settle(f"KronSum.{what}", [], found.problems, self.batch, lambda _: None)
        return found

    def slogdet(
        self, shift: complex = 0, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> SignedLog:  # fmt: skip
        """Sign and logarithm of the absolute value of ``det(K + shift I)``.

        Parameters
        ----------
        shift : number
        check_finite, on_fail
            As in `solve`.

        Returns
        -------
        sign, logabsdet : arrays, shape of the batch
            A singular matrix has the sign 0 and the logarithm -inf.

        Notes
        -----
        A sum over all sums of eigenvalues: ``n`` operations once the eigenvalues of the factors are
        known. Those of factors that are not Hermitian are LAPACK's, found on the host.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> sign, logabsdet = lk.KronSum([np.diag([1.0, 2.0]), np.diag([1.0, 3.0])]).slogdet()
        >>> float(sign), round(float(np.exp(logabsdet)))
        (1.0, 120)
        """
        check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
        check_traced("KronSum.slogdet", *self.factors)
        number = check_number("shift", shift)
        with _lag.scope(self.factors[0]), _config.blas_threads(), np.errstate(all="ignore"):
            entered = hosted(widened(self._enter(), number))
            f = self._factored(entered.dtype)
            total, _ = steps.sums(f, number)
            sign, log = of_eigenvalues(total, real=entered.dtype not in _xp.COMPLEX)
            pair = settle(
                "KronSum.slogdet", [sign, log], [*f.looked.problems, *f.indefinite], self.batch,
                lambda answers: [entered.leave(x) for x in answers], policy=policy, check=check,
            )  # fmt: skip
        return SignedLog(*pair)

    def eigh(self, rank: int | None = None, *, which: Which = "largest") -> Eigh:
        """Eigenvalues and eigenvectors of a sum of Hermitian factors.

        Parameters
        ----------
        rank : int, optional
            How many; None for all.
        which : {"largest", "smallest"}
            With ``rank``, which end of the spectrum.

        Returns
        -------
        eigenvalues : array, shape (..., n) or (..., rank)
            All in ascending order; the largest in descending, the smallest in ascending order.
        eigenvectors : operator, shape (n, n), or array, shape (..., n, rank)
            In columns. All together are a product of the factors' eigenvectors with its columns in
            order, never formed but by ``toarray()``.

        Raises
        ------
        AsymmetricError
            If a factor is not Hermitian.

        Notes
        -----
        Decompositions of the factors, kept; for ``rank`` then a few ``rank log rank`` operations on
        the host and the columns.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> k = lk.KronSum([np.diag([1.0, 2.0]), np.diag([10.0, 30.0])])
        >>> k.eigh(3).eigenvalues
        array([32., 31., 12.])
        >>> w, v = k.eigh()
        >>> bool(np.allclose(v @ (w * (v.T @ np.ones(4))), k @ np.ones(4)))
        True
        """
        check_traced("KronSum.eigh", *self.factors)
        n = self.shape[0]
        if rank is not None and _validate.integer("rank", rank, 0) > n:
            msg = f"rank: must be at most {n}, the order of the matrix, got {rank}"
            raise ValueError(msg)
        _validate.choice("which", which, get_args(Which))
        with _lag.scope(self.factors[0]), _config.blas_threads():
            entered, f = hosted(self._enter()), self._hermitian("eigh")
            vectors = f.spectral.vectors
            if rank is None:
                w = np.asarray(_xp.to_numpy(steps.outer_sum(f.spectral.values)))
                order = np.argsort(w, axis=-1, kind="stable")
                values = _spectrum.placed(f, np.take_along_axis(w, order, axis=-1))
                return Eigh(
                    entered.leave(values), Sorted([entered.leave(v) for v in vectors], order)
                )
            values, places = steps.extreme(f, rank, 1.0 if which == "largest" else -1.0)
            columns = _spectrum.columns(f, vectors, places)
            return Eigh(entered.leave(_spectrum.placed(f, values)), entered.leave(columns))

    def cond(self) -> Any:
        """Condition number in the 2-norm, of Hermitian factors.

        Returns
        -------
        condition : array, shape of the batch
            The largest of all ``|sums of eigenvalues|`` over the smallest, infinite if that is 0.

        Raises
        ------
        AsymmetricError
            If a factor is not Hermitian: its singular values do not tell those of the sum.
        """
        check_traced("KronSum.cond", *self.factors)
        with _lag.scope(self.factors[0]), _config.blas_threads(), np.errstate(all="ignore"):
            entered = hosted(self._enter())
            f = self._hermitian("cond")
            size = f.xp.abs(steps.outer_sum(f.spectral.values))
            if f.size == 0:
                return entered.leave(f.xp.sum(size, axis=-1))
            return entered.leave(f.xp.max(size, axis=-1) / f.xp.min(size, axis=-1))

    def _hermitian(self, what: str, way: str = "") -> Factored:
        """The factors, if all are Hermitian."""
        found = self._looked(what)
        if not all(found.hermitian):
            names = ", ".join(f"factors[{i}]" for i, h in enumerate(found.hermitian) if not h)
            msg = (
                f"KronSum.{what}: needs Hermitian factors, but {names} not Hermitian to rounding; "
                f"{way}assume_a='her' takes the Hermitian part of what is nearly so"
            )
            raise AsymmetricError(msg)
        return self._factored("float32")

    # --- Right-hand sides of low rank ----------------------------------------------------------

    def solve_lowrank(
        self, u: Array, v: Array, /, *, tol: float | None = None,
        intervals: tuple[tuple[float, float], tuple[float, float]] | None = None,
    ) -> LowRankSolution:  # fmt: skip
        r"""Solution of low rank of ``A X + X B^T = U V^H``, the sum of two factors A and B.

        ``X.reshape(-1)`` is ``solve((U V^H).reshape(-1))``, but neither is formed.

        Parameters
        ----------
        u : array, shape (m, k)
        v : array, shape (n, k)
            The right-hand side by two factors.
        tol : float, optional
            Relative error in the Frobenius norm. Default ``eps^(2/3)``.
        intervals : two pairs of numbers, optional
            Lower and upper ends of what holds the spectra of A and of B. By default those of
            Hermitian factors; needed where a factor is not Hermitian.

        Returns
        -------
        solution : LowRankSolution
            ``X = Z diag(D) W^H`` with ``.iterations``, a bound of the error ``.bound`` and the
            ``.residual``; unpacks as ``Z, D, W``.

        Raises
        ------
        ValueError, TypeError
            A shape or option that does not fit; a batch; a factor that is not Hermitian, and no
            ``intervals``.
        SingularMatrixError
            The sums of eigenvalues, or of the ends of ``intervals``, are not all of one sign.
        NonFiniteError
            An array holds NaN or infinity.
        NotConvergedError
            The residual is larger than ``tol``: ``intervals`` that do not hold the spectra.

        Notes
        -----
        Factored alternating directions [1]_ with the shifts that Zolotarev's third problem gives
        for two intervals, by elliptic functions: their number is known beforehand [2]_,

        .. math:: J = \lceil \log(16 \gamma) \log(8 / tol) / \pi^2 \rceil

        with the cross-ratio ``gamma = |c - a| |d - b| / (|c - b| |d - a|)`` of the spectra [a, b]
        of A and [c, d] of -B: 39 for ``tol = 1e-10`` and conditions 1e6. Half of ``tol`` is left
        for the cut to ``rank <= J k`` columns. Hermitian factors are decomposed once, and all
        steps are divisions; others take two solutions of linear systems a step.

        ``8 eps (||A|| + ||B||) / min |sum of eigenvalues|`` of the bound stand for rounding.

        References
        ----------
        .. [1] P. Benner, R.-C. Li, N. Truhar, "On the ADI method for Sylvester equations", J.
           Comput. Appl. Math. 233 (2009).
        .. [2] B. Beckermann, A. Townsend, "Bounds on the singular values of matrices with
           displacement structure", SIAM Rev. 61 (2019).
        .. [3] D. Fortunato, A. Townsend, "Fast Poisson solvers for spectral methods", IMA J. Numer.
           Anal. 40 (2020).

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> line = 101.0**2 * (2 * np.eye(100) - np.eye(100, k=1) - np.eye(100, k=-1))
        >>> one = np.ones((100, 1))
        >>> x = lk.KronSum([line, line]).solve_lowrank(one, one, tol=1e-8)
        >>> x.rank < 20, x.bound < 1e-8
        (True, True)
        >>> dense = lk.KronSum([line, line]).solve(np.ones(10_000)).reshape(100, 100)
        >>> bool(np.linalg.norm(x.toarray() - dense) <= x.bound * np.linalg.norm(dense))
        True
        """
        check_traced("KronSum.solve_lowrank", u, v, *self.factors)
        if len(self.factors) != 2 or self.batch:
            msg = (
                "KronSum.solve_lowrank: needs two factors and no batch, got "
                f"{len(self.factors)} factors and batch {self.batch}"
            )
            raise ValueError(msg)
        left: Any = _xp.as_array("u", u)
        right: Any = _xp.as_array("v", v)
        self._check_sides(left, right)
        if intervals is not None:
            intervals = _adi.check_intervals(intervals)
        with _lag.scope(left), _config.blas_threads():
            entered = hosted(self._enter(u=left, v=right))
            *_, left, right = entered.arrays
            _door.check_finite("u, v", [left, right])
            self._looked("solve_lowrank")
            f = self._factored(entered.dtype)
            tol = check_tol(tol, f.eps)
            if intervals is None:
                self._hermitian("solve_lowrank", "give intervals=, or ")
            found, good = _adi.solve(f, left, right, tol, intervals)
            z, size, w = (entered.leave(x) for x in found)
        found = LowRankSolution(z, size, w, found.iterations, found.bound, found.residual)
        if not good:
            raise _adi.failed(found)
        return found

    def _check_sides(self, u: Any, v: Any) -> None:
        m, n = self._sizes[0]
        for name, x, size in (("u", u, m), ("v", v, n)):
            if x.ndim != 2 or x.shape[0] != size:
                msg = f"{name}: must have shape ({size}, k), got {tuple(x.shape)}"
                raise ValueError(msg)
        if u.shape[1] != v.shape[1]:
            msg = f"v: needs {u.shape[1]} columns as u has, got {v.shape[1]}"
            raise ValueError(msg)


# --- For the record --------------------------------------------------------------------------


def explain_kronsum(
    factors: Any, *, assume_a: AssumeA | Sequence[AssumeA | None] | None = None
) -> Explanation:
    """What a solution would run."""
    k = KronSum(factors, assume_a=assume_a)
    found = k._factored("float32").looked
    xp = _xp.namespace(found.arrays[0])
    hermitian = all(found.hermitian)
    method, reason = steps.choose_method(count=len(k.factors), hermitian=hermitian)
    sizes, n = k._sizes[0], k.shape[0]
    size = np.dtype(_xp.dtype_name(found.arrays[0])).itemsize
    once = {"eigh": 9.0, "sylvester": 25.0, "schur": 25.0}[method] * sum(s**3 for s in sizes)
    runs = {
        "eigh": "eigenvectors of the factors, once; two products with them and a division",
        "sylvester": "linalgk.solve_sylvester: LAPACK's Schur forms",
        "schur": "eigenvectors if their condition is below 1e3, else Schur forms and substitution",
    }[method]
    if method == "sylvester" and xp is not np:
        runs = "linalgk.solve_sylvester: Newton's iteration for the sign; where it does not serve, "
        runs += "eigenvectors or Schur forms of the factors from LAPACK on the host"
    flops = once + (4.0 if method == "eigh" else 10.0) * n * sum(sizes)
    return Explanation("KronSum", method, reason, {"solve": runs}, flops, 3.0 * n * size)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positive definite factors of the size that is named."""
    shape = {"small": (3, 4), "medium": (30, 40), "large": (100, 120, 80)}[size]
    gen = np.random.default_rng(rng)
    factors = []
    for n in shape:
        x = gen.standard_normal((n, 2 * n))
        factors.append(xp.asarray(x @ x.T / n))
    return (factors,), {}
