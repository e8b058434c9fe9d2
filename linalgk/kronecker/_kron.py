"""The Kronecker product as an object."""

import math
import numbers
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from linalgk import _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.kronecker import _door, _modes
from linalgk.kronecker._determinant import SignedLog
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Factored, settle
from linalgk.kronecker._kron_base import built_on, left, not_finite, number
from linalgk.kronecker._kron_functions import Functions
from linalgk.kronecker._linear import check_batch, check_sizes
from linalgk.kronecker._ops import KRON
from linalgk.typing import Array, OnFail

if TYPE_CHECKING:
    from linalgk.kronecker._diagonal import KronPlusDiagonal
    from linalgk.kronecker._masked import Masked


class Kron(Functions):
    """Kronecker product of matrices, known by its factors.

    It stands in products with arrays of every library from both sides, is solved with, inverted and
    decomposed by its factors, and never formed but by `toarray`.

    Parameters
    ----------
    factors : sequence of N arrays, shapes (..., p_i, q_i)
        Of one library, square or not; mixed dtypes promote, integers are computed in float64,
        float16 and bfloat16 in float32. Batch axes broadcast. They are kept as they are and not to
        be written to afterwards: what was computed of them is kept too. (Tensors of PyTorch may be:
        they tell.)
    assume_a : {"gen", "her", "pos"} or a sequence of them, optional
        General, Hermitian or Hermitian positive semidefinite factors, for all or for each. By
        default it is found out which are Hermitian to rounding.

    Attributes
    ----------
    factors : tuple of arrays
    assume_a : tuple of str or None
    shape, batch : tuple of int, tuple of int
        ``(P, Q)`` of one member, the products of all p_i and of all q_i; batch axes of the factors
        together.
    dtype : dtype

    See Also
    --------
    linalgk.kron_matmul : the product alone.
    linalgk.KronSum : ``A kron I + I kron B``.

    Notes
    -----
    Whatever holds of the factors holds of the product: ``(A kron B)^-1 = A^-1 kron B^-1``, and so
    for transposes, eigenvectors, singular vectors, Cholesky and QR factors and powers of positive
    semidefinite matrices [1]_. Norms, condition numbers, traces and rank are products. Costs are
    those of the factors, ``O(sum p_i^3)`` once, and of products, ``2 K sum p_i`` for a vector.

    In PyTorch products, `solve` and `slogdet` have derivatives by factors, operands and the shift;
    other methods refuse tensors that require grad. JAX traces the same three, where ``assume_a``
    is given, and failures are NaN then.

    References
    ----------
    .. [1] C. F. Van Loan, "The ubiquitous Kronecker product", J. Comput. Appl. Math. 123 (2000).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    >>> K = lk.Kron([a, b], assume_a="pos")
    >>> K @ np.array([1.0, 0.0, 0.0, 1.0])
    array([6., 1., 3., 2.])
    >>> bool(np.allclose(K.solve(K @ np.arange(4.0)), np.arange(4.0)))
    True
    >>> float(K.slogdet().logabsdet.round(12)) == round(float(np.log(81.0)), 12)
    True
    """

    def add_diagonal(self, d: Array, /) -> "KronPlusDiagonal":
        """``K + diag(d)``, solved with by iteration; see `linalgk.kronecker.KronPlusDiagonal`.

        Parameters
        ----------
        d : array, shape (..., K)
            A number stands for a multiple of the identity; `solve` has ``shift`` for that.
        """
        found: KronPlusDiagonal = built_on("KronPlusDiagonal")(self, d)
        return found

    def masked(self, mask: Array, /) -> "Masked":
        """``P K P^T`` for the grid points that are there; see `linalgk.kronecker.Masked`.

        Parameters
        ----------
        mask : array of bool, shape (K,) or (p_1, ..., p_N)
            Which rows and columns are kept.
        """
        found: Masked = built_on("Masked")(self, mask)
        return found

    # --- Equations -----------------------------------------------------------------------------

    def solve(
        self, b: Array, /, shift: Any = 0, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> Array:  # fmt: skip
        """Solution of ``(K + shift I) x = b``.

        Parameters
        ----------
        b : array, shape (K,) or (..., K, n)
            Never written to.
        shift : number, or array of shape (...), optional
            May be complex. An array has one shift for each member.
        check_finite : bool, optional
            Whether NaN and infinity are errors; default from `linalgk.config_context`.
        on_fail : {"raise", "warn", "nan"}, optional
            What a failure of some members does; NaN stands in these.

        Returns
        -------
        x : array, shape of b, with the batches of b, factors and shift
            Complex if one of these is.

        Raises
        ------
        ValueError
            If a factor is not square, or sizes do not fit.
        NonFiniteError
            If a factor or b holds NaN or infinity.
        AsymmetricError, NotPositiveSemidefiniteError
            If a factor is not what ``assume_a`` says; the message names it.
        SingularMatrixError
            If a factor is singular to working precision (a reciprocal condition below eps), or the
            shift meets an eigenvalue.

        Notes
        -----
        Without shift each factor is factorized once, by Cholesky (``"pos"``) or LU, and kept.
        Factors that are well-conditioned, up to order 1024, are inverted, so that the solution is a
        product; others are solved with mode by mode. The error is ``O(eps cond(K)) ||x||``. Beyond
        a condition of 100 (1e5 where the inverse is LAPACK's) a step of refinement makes the
        residual small too, ``O(eps) ||K|| ||x||``.

        With a shift it is the eigenvectors of the factors that are kept, so that any number of
        shifts costs two products each. Factors that are not Hermitian are diagonalized only where
        all their eigenvectors have a condition below 1000, a step of refinement follows, and
        what it changes is looked at; else ``T_1 kron ... kron T_N + shift I`` with triangular
        (Schur) factors is solved by blocks [1]_, for every shift anew: ``O(K sum p_i)`` in
        complex arithmetic.

        References
        ----------
        .. [1] C. D. Moravitz Martin, C. F. Van Loan, "Shifted Kronecker product systems", SIAM J.
           Matrix Anal. Appl. 29 (2006).

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> K = lk.Kron([np.diag([1.0, 2.0]), np.diag([1.0, 3.0])])
        >>> K.solve(np.ones(4), shift=1.0)
        array([0.5       , 0.25      , 0.33333333, 0.14285714])
        """
        face = _door.compiled()
        if face is not None:
            return face.solve(self, b, shift)
        self._square("solve")
        b = _xp.as_array("b", b)
        check_sizes("b", b, self._sizes[0], -2)
        face = self._differentiated(b, shift)
        if face is not None:
            return face.solve(self, b, shift, check_finite=check_finite, on_fail=on_fail)
        batch = check_batch("b", self.batch, tuple(b.shape[:-2]))
        policy, check = _validate.on_fail(on_fail), _validate.check_finite(check_finite)
        with self._at_work():
            entered, f, z, s = self._meet(b, shift, batch)
            vector = z.ndim == 1
            z = z[:, None] if vector else z
            x, problems = f.solve(z, s)
            if not (f.traced or _xp.is_traced(x)):
                problems = problems + not_finite("b", z)
            return settle(
                "solve", [x], problems, tuple(x.shape[:-2]),
                lambda xs: left(entered, xs[0][..., 0] if vector else xs[0]),
                policy=policy, check=check,
            )  # fmt: skip

    def _meet(
        self, b: Any, shift: Any, batch: tuple[int, ...]
    ) -> tuple[Entered, Factored, Any, Any]:
        """Factors, right-hand side and shift (None for zero) as they are computed with."""
        operands = {} if b is None else {"b": b}
        entered = self._enter(**operands)
        f = self._factored(entered)
        z = None if b is None else entered.arrays[-1]
        if isinstance(shift, np.generic):
            shift = shift.item()
        if isinstance(shift, numbers.Number) and not isinstance(shift, bool):
            value = shift if isinstance(shift, complex) else float(shift)  # type: ignore[arg-type]
            if not np.isfinite(value):
                msg = f"shift: must be finite, got {shift!r}"
                raise ValueError(msg)
            return entered, f, z, value if value else None
        if _xp.face(shift) is None:
            msg = f"shift: must be a number or an array of numbers, got {type(shift).__name__}"
            raise TypeError(msg)
        check_batch("shift", batch, tuple(shift.shape))
        s = _door.enter({"shift": shift, "factors[0]": self.factors[0]}).arrays[0]
        xp = _xp.namespace(s)
        if not _xp.is_traced(s) and not bool(xp.all(xp.isfinite(s))):
            msg = "shift: must be finite, got NaN or infinity"
            raise ValueError(msg)
        name = f.dtype
        if _xp.dtype_name(s) in _xp.COMPLEX and _xp.dtype_name(shift) in _xp.COMPLEX:
            name = _modes.widened(name)
        elif name in _xp.COMPLEX:
            name = _xp.REAL[name]
        if _xp.dtype_name(s) in _xp.COMPLEX and name not in _xp.COMPLEX:
            s = xp.real(s)
        return entered, f, z, xp.astype(s, _xp.dtype_of(xp, name), copy=False)

    def slogdet(
        self, shift: Any = 0, *, check_finite: bool | None = None, on_fail: OnFail | None = None
    ) -> SignedLog:
        """Sign and logarithm of the absolute value of ``det(K + shift I)``.

        Parameters
        ----------
        shift : number, or array of shape (...), optional
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        sign, logabsdet : arrays, shape (...)
            As NumPy has them; 0 and ``-inf`` of a singular matrix. A named tuple.

        Notes
        -----
        ``log|det K| = sum_i (K/p_i) log|det F_i|``, and the sign is that of integer powers. With a
        shift it is the sum over all eigenvalues. The factorizations are those of `solve`.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> lk.Kron([np.diag([-1.0, 1.0, 1.0]), np.eye(3)]).slogdet()
        SignedLog(sign=np.float64(-1.0), logabsdet=np.float64(0.0))
        """
        face = _door.compiled()
        if face is not None:
            return cast(SignedLog, face.slogdet(self, shift))
        rows, columns = self._sizes
        if math.prod(rows) != math.prod(columns):
            msg = f"slogdet: needs a square product, got shape {self.shape}"
            raise ValueError(msg)
        plain = isinstance(shift, int | float | complex) and shift == 0
        if rows == columns or not plain:
            self._square("slogdet")
        face = self._differentiated(shift)
        if face is not None:
            self._square("slogdet")
            found: SignedLog = face.slogdet(self, shift, check_finite=check_finite, on_fail=on_fail)
            return found
        policy, check = _validate.on_fail(on_fail), _validate.check_finite(check_finite)
        with self._at_work():
            entered, f, _, s = self._meet(None, shift, self.batch)
            sign, log, problems = f.slogdet(s)
            result: SignedLog = settle(
                "slogdet", [sign, log], problems, tuple(log.shape),
                lambda xs: SignedLog(*(number(left(entered, x)) for x in xs)),
                policy=policy, check=check,
            )  # fmt: skip
            return result


# --- Record --------------------------------------------------------------------------------------


def explain_kron(factors: Any, *, assume_a: Any = None) -> Explanation:
    """What solving with the product would do; a product with a vector is `kron_matmul`'s."""
    k = Kron(factors, assume_a=assume_a)
    entered = k._enter()
    kinds = set(k.assume_a)
    pairs = list(zip(*k._sizes, strict=True))
    if any(p != q for p, q in pairs):
        method, reason, each = "svd", "a factor is not square: lstsq and pinv are for it", 20.0
    elif kinds == {"pos"}:
        method, reason, each = "cholesky", "all factors are positive definite", 1 / 3
    else:
        method, reason, each = "lu", "a factor is not declared positive definite", 2 / 3
    reason += "; with a shift eigenvectors, or Schur forms, of the factors"
    xp = _xp.namespace(entered.arrays[0])
    x = xp.reshape(entered.arrays[0], (-1,))[:1]
    chosen, why = KRON.choose(xp.reshape(x, (1, -1, 1)), entered.arrays)
    runs = {"kron_matmul": why if chosen is not None else f"reference ({why})"}
    real = 4.0 if entered.dtype in _xp.COMPLEX else 1.0
    members = math.prod(k.batch)
    flops = real * members * sum(each * p * q * min(p, q) for p, q in pairs)
    size = np.dtype(entered.dtype).itemsize * members * sum(p * q for p, q in pairs)
    return Explanation("Kron", method, reason, runs, flops, float(size))


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positive definite factors: mixed sizes, two of 60, two of 400."""
    sizes = {"small": (2, 3, 4), "medium": (60, 60), "large": (400, 400)}[size]
    generator = np.random.default_rng(rng)
    factors = []
    for n in sizes:
        a = generator.standard_normal((n, n))
        factors.append(xp.asarray(a @ a.T / n + np.eye(n)))
    return (factors,), {"assume_a": "pos"}
