"""Decompositions, functions, norms and entries of a Kronecker product, by its factors."""

import math
import numbers
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Self

import numpy as np

from linalgk import _validate, _xp
from linalgk.errors import MemberError, NotPositiveSemidefiniteError, SingularMatrixError
from linalgk.kronecker import _entries, _modes, _spectrum
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Factored, Problem, settle
from linalgk.kronecker._kron_base import Factors, blanked, left, not_finite, number
from linalgk.kronecker._linear import check_batch, check_sizes, check_traced
from linalgk.kronecker._spectrum import Eigh, KronPinv, LeastSquares, Sorted, Svd
from linalgk.typing import Array, OnFail


class KronQR(NamedTuple):
    """``K = Q R``, both by their factors."""

    Q: Any
    R: Any


class Functions(Factors):
    """What is computed of the factors one by one."""

    __hash__ = Factors.__hash__

    # --- Inverses ------------------------------------------------------------------------------

    def inv(self, *, check_finite: bool | None = None, on_fail: OnFail | None = None) -> Self:
        """The inverse, as the product of the factors' inverses; `solve` is more accurate.

        Parameters
        ----------
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        Kron
        """
        self._square("inv")
        entered, f = self._look("inv")
        with self._at_work():
            problems = [*f.looked.problems, *f.singular]
            found = []
            for a, inverse in zip(f.looked.arrays, f.inverses, strict=True):
                eye = f.xp.eye(a.shape[-1], dtype=a.dtype, **_modes.where(a))
                eye = f.xp.broadcast_to(eye, a.shape)
                found.append(inverse.solve(eye) if inverse.matrix is None else inverse.matrix)
        result: Self = self._by_factors(
            "inv", entered, f, [found], problems, on_fail, check_finite,
            lambda lists: type(self)(lists[0], assume_a=list(self.assume_a)),
        )  # fmt: skip
        return result

    def pinv(
        self, rcond: float | None = None, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> KronPinv:  # fmt: skip
        """The pseudoinverse, as an operator.

        Parameters
        ----------
        rcond : float, optional
            Products of singular values up to ``rcond`` times the largest count as zero. Default
            ``eps * sum_i max(p_i, q_i)``, what rounding makes of a zero.
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        KronPinv
            With ``@``, ``.T``, ``.H``, ``toarray()``, and ``.rank``.

        Notes
        -----
        A threshold for each factor by itself would keep products that are tiny and drop others
        that are not: ``diag(1, 0.1) kron diag(1, 0.1)`` has 0.01, which no factor has. The products
        are weights between singular vectors, so that it costs two products with factors.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> K = lk.Kron([np.diag([1.0, 0.1]), np.diag([1.0, 0.1])])
        >>> K.pinv(0.05).rank, (K.pinv(0.05) @ np.ones(4)).round(12)
        (3, array([ 1., 10., 10.,  0.]))
        """
        entered, f = self._look("pinv")
        with self._at_work():
            u, _, vh = f.svd
            w, rank = _spectrum.weights(f, self._rcond(rcond, f))
            v, uh = ([_adjoint(x) for x in blanked(part, [])] for part in (vh, u))
        result: KronPinv = self._settled(
            "pinv", entered, f, [w], f.looked.problems, on_fail, check_finite,
            lambda xs: KronPinv(
                [left(entered, x) for x in v], xs[0], [left(entered, x) for x in uh],
                _counts(entered, f, rank),
            ),
        )  # fmt: skip
        return result

    def lstsq(
        self, b: Array, /, rcond: float | None = None, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> LeastSquares:  # fmt: skip
        """The x of least norm that minimizes ``||b - K x||``.

        Parameters
        ----------
        b : array, shape (P,) or (..., P, n)
        rcond : float, optional
            As for `pinv`: a threshold for products of singular values.
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        x : array, shape (Q,) or (..., Q, n)
        residuals : array, shape (..., n), n = 1 for a vector
            Sums of squares of ``b - K x``, also where NumPy has none.
        rank : int, or array of int, shape (...)
        s : array, shape (..., R)
            All products of singular values, in descending order.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> K = lk.Kron([np.ones((2, 1)), np.eye(2)])
        >>> x, residuals, rank, s = K.lstsq(np.array([1.0, 2.0, 3.0, 4.0]))
        >>> x.round(12), residuals.round(12), rank
        (array([2., 3.]), array([4.]), 2)
        """
        b = _xp.as_array("b", b)
        check_sizes("b", b, self._sizes[0], -2)
        batch = check_batch("b", self.batch, tuple(b.shape[:-2]))
        check_traced("lstsq of a Kron", *self.factors, b)
        policy, check = _validate.on_fail(on_fail), _validate.check_finite(check_finite)
        with self._at_work():
            entered = self._enter(b=b)
            f = self._factored(entered)
            z = entered.arrays[-1]
            vector = z.ndim == 1
            z = z[:, None] if vector else z
            u, _, vh = f.svd
            w, rank = _spectrum.weights(f, self._rcond(rcond, f))
            c = w[..., None] * _modes.times([_adjoint(x) for x in u], z)
            x = _modes.times([_adjoint(v) for v in vh], c)
            rest = f.xp.abs(z - _modes.times(f.looked.arrays, x))
            squares = f.xp.sum(rest * rest, axis=-2)
            s = _spectrum.placed(
                f, np.broadcast_to(_spectrum.descending(f)[0], (*batch, w.shape[-1]))
            )
            problems = f.looked.problems + not_finite("b", z)
            result: LeastSquares = settle(
                "lstsq", [x, squares, s], problems, batch,
                lambda xs: LeastSquares(
                    left(entered, xs[0][..., 0] if vector else xs[0]), left(entered, xs[1]),
                    _counts(entered, f, rank), left(entered, xs[2]),
                ),
                policy=policy, check=check,
            )  # fmt: skip
            return result

    def _rcond(self, rcond: Any, f: Factored) -> float:
        if rcond is None:
            return _spectrum.default_rcond(f)
        return _validate.real_between("rcond", rcond, 0.0, 1.0)

    # --- Decompositions ------------------------------------------------------------------------

    def eigh(
        self, rank: int | None = None, /, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> Eigh:  # fmt: skip
        """Eigenvalues and eigenvectors of a product of Hermitian factors.

        Parameters
        ----------
        rank : int, optional
            How many of the largest eigenvalues (not the largest absolute values). Default all.
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        eigenvalues : array, shape (..., K) or (..., rank)
            Ascending, as NumPy's, of all; descending where a rank is given.
        eigenvectors : operator (K, K), or array, shape (..., K, rank)
            In columns. The operator has ``@``, ``.T``, ``.H`` and ``toarray()``.

        Notes
        -----
        The largest products are found without forming all: with factors in order of size only
        pairs ``(i, j)`` with ``i j <= rank`` can be among them, ``O(rank log rank)`` for each
        factor. Two negative eigenvalues make a positive one.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> w, V = lk.Kron([np.diag([-5.0, 1.0]), np.diag([-2.0, 3.0])]).eigh(2)
        >>> w
        array([10.,  3.])
        >>> np.abs(V).argmax(axis=0)
        array([0, 3])
        """
        self._square("eigh")
        entered, f = self._look("eigh", hermitian=True)
        with self._at_work():
            problems = [*f.looked.problems, *f.indefinite]
            if rank is None:
                values, order = _spectrum.ascending(f)
                answers = [_spectrum.placed(f, values)]
                vectors = [left(entered, v) for v in blanked(f.spectral.vectors, problems)]
            else:
                k = self._count("rank", rank, self.shape[0])
                found, places = _spectrum.leading(f, f.spectral.values, k)
                answers = [found, _spectrum.columns(f, f.spectral.vectors, places)]
        result: Eigh = self._settled(
            "eigh", entered, f, answers, problems, on_fail, check_finite,
            lambda xs: Eigh(xs[0], Sorted(vectors, order)) if rank is None else Eigh(*xs),
        )  # fmt: skip
        return result

    def svd(
        self, rank: int | None = None, /, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> Svd:  # fmt: skip
        """Singular values in descending order, and singular vectors.

        Parameters
        ----------
        rank : int, optional
            How many of the largest; default all ``R = prod_i min(p_i, q_i)``, fewer than
            ``min(P, Q)`` where some factors are tall and some wide: the others are zero.
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        U : operator (P, R), or array, shape (..., P, rank)
        S : array, shape (..., R) or (..., rank)
        Vh : operator (R, Q), or array, shape (..., rank, Q)
            ``K = U diag(S) Vh``.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> K = lk.Kron([np.diag([3.0, 1.0]), np.diag([1.0, 2.0])])
        >>> K.svd().S
        array([6., 3., 2., 1.])
        >>> U, S, Vh = K.svd(1)
        >>> np.linalg.norm(K.toarray() - U * S @ Vh, 2).round(12)
        np.float64(3.0)
        """
        entered, f = self._look("svd")
        with self._at_work():
            u, s, vh = f.svd
            if rank is None:
                values, order = _spectrum.descending(f)
                answers = [_spectrum.placed(f, values)]
                us, vs = (
                    [left(entered, x) for x in blanked(part, f.looked.problems)] for part in (u, vh)
                )
            else:
                total = math.prod(int(x.shape[-1]) for x in s)
                k = self._count("rank", rank, total)
                found, places = _spectrum.leading(f, s, k)
                wide = [f.xp.matrix_transpose(x) for x in vh]
                right = f.xp.matrix_transpose(_spectrum.columns(f, wide, places))
                answers = [_spectrum.columns(f, u, places), found, right]

        def build(xs: Any) -> Svd:
            if rank is not None:
                return Svd(*xs)
            return Svd(Sorted(us, order), xs[0], Sorted(vs, order, rows=True))

        result: Svd = self._settled(
            "svd", entered, f, answers, f.looked.problems, on_fail, check_finite, build
        )
        return result

    def _count(self, name: str, value: Any, most: int) -> int:
        k = _validate.integer(name, value, 1)
        if k > most:
            msg = f"{name}: must be at most {most}, how many there are, got {k}"
            raise ValueError(msg)
        return k

    def cholesky(self, *, check_finite: bool | None = None, on_fail: OnFail | None = None) -> Self:
        """The lower triangular L with ``K = L L^H``, as the product of the factors' own.

        Parameters
        ----------
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        Kron

        Raises
        ------
        NotPositiveSemidefiniteError
            If a factor has a negative eigenvalue.
        SingularMatrixError
            If a factor has the eigenvalue zero, to working precision.
        """
        self._square("cholesky")
        entered, f = self._look("cholesky", hermitian=True)
        with self._at_work():
            problems, found = list(f.looked.problems), []
            for i, a in enumerate(f.looked.arrays):
                x, more = _cholesky(f, i, a)
                found.append(x)
                problems += more
        result: Self = self._by_factors(
            "cholesky", entered, f, [found], problems, on_fail, check_finite,
            lambda lists: type(self)(lists[0], assume_a="gen"),
        )  # fmt: skip
        return result

    def qr(self, *, check_finite: bool | None = None, on_fail: OnFail | None = None) -> KronQR:
        """``K = Q R`` with orthonormal columns of Q, both products of the factors' own.

        Parameters
        ----------
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        Q, R : Kron
            Of reduced size; R is upper triangular where no factor is wide.
        """
        entered, f = self._look("qr")
        with self._at_work():
            pairs = [f.xp.linalg.qr(a) for a in f.looked.arrays]
        result: KronQR = self._by_factors(
            "qr", entered, f, [[pair[k] for pair in pairs] for k in (0, 1)], f.looked.problems,
            on_fail, check_finite, lambda lists: KronQR(*(type(self)(x) for x in lists)),
        )  # fmt: skip
        return result

    # --- Powers --------------------------------------------------------------------------------

    def powm(
        self, t: int | float | Fraction, /, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> Self:  # fmt: skip
        """The power ``K^t``, as the product of the factors' powers.

        Parameters
        ----------
        t : int, float or Fraction
            Any integer; other powers are of positive semidefinite factors.
        check_finite, on_fail : optional
            As for `linalgk.powm`.

        Returns
        -------
        Kron
            Differentiable in PyTorch as `linalgk.powm` is.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> K = lk.Kron([np.diag([4.0, 1.0]), np.diag([9.0, 16.0])], assume_a="pos")
        >>> K.powm(0.5).diagonal()
        array([6., 8., 3., 4.])
        """
        from linalgk import matfun

        if isinstance(t, bool) or not isinstance(t, numbers.Real):
            msg = f"t: must be an int, a float or a Fraction, got {type(t).__name__}"
            raise TypeError(msg)
        whole = float(t).is_integer()
        more: dict[str, Any] = {"check_finite": check_finite, "on_fail": on_fail}
        return self._each(
            "powm",
            lambda x, kind: matfun.powm(x, t, assume_a=kind if whole else "pos", **more),
            [_powered(kind, t) if whole else "pos" for kind in self.assume_a],
        )

    def sqrtm(self, *, check_finite: bool | None = None, on_fail: OnFail | None = None) -> Self:
        """The square root ``K^(1/2)`` of positive semidefinite factors; see `linalgk.sqrtm`."""
        from linalgk import matfun

        more: dict[str, Any] = {"check_finite": check_finite, "on_fail": on_fail}
        return self._each(
            "sqrtm", lambda x, _: matfun.sqrtm(x, assume_a="pos", **more),
            ["pos"] * len(self.factors),
        )  # fmt: skip

    def inv_root(
        self, p: int | Fraction, /, *, check_finite: bool | None = None,
        on_fail: OnFail | None = None,
    ) -> Self:  # fmt: skip
        """``K^(-1/p)`` of positive definite factors; see `linalgk.inv_root`.

        Parameters
        ----------
        p : int or Fraction
            Positive.
        check_finite, on_fail : optional
            As for `linalgk.inv_root`.

        Returns
        -------
        Kron
        """
        from linalgk import matfun

        more: dict[str, Any] = {"check_finite": check_finite, "on_fail": on_fail}
        return self._each(
            "inv_root", lambda x, _: matfun.inv_root(x, p, assume_a="pos", **more),
            ["pos"] * len(self.factors),
        )  # fmt: skip

    def _each(self, name: str, function: Callable[[Any, Any], Any], kinds: Sequence[Any]) -> Self:
        """A function of `linalgk.matfun` of each factor."""
        self._square(name)
        found = []
        for i, (x, kind) in enumerate(zip(self.factors, self.assume_a, strict=True)):
            try:
                found.append(function(x, kind))
            except MemberError as error:
                msg = f"{name}: factors[{i}] as a: {error}"
                raise type(error)(msg, error.index) from error
        return type(self)(found, assume_a=list(kinds))

    # --- Numbers -------------------------------------------------------------------------------

    def cond(self, p: Any = 2) -> Any:
        """Condition number, shape (...): the product of those of the factors.

        Parameters
        ----------
        p : {2, -2, "fro", 1, inf}, optional
            The norm, as in `numpy.linalg.cond`.

        Returns
        -------
        c : array, shape (...)
            Infinite of a singular matrix.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> lk.Kron([np.diag([1.0, 4.0]), np.diag([1.0, 8.0])]).cond()
        np.float64(32.0)
        """
        _validate.choice("p", p, (2, -2, "fro", 1, math.inf))
        if p not in (2, -2):
            self._square("cond")
        return self._number("cond", lambda f: _spectrum.cond(f, p))

    def norm(self, ord: Any = "fro") -> Any:
        """A norm, shape (...): the product of those of the factors.

        Parameters
        ----------
        ord : {"fro", 2, -2, "nuc", 1, inf}, optional
            As in `numpy.linalg.norm`.

        Returns
        -------
        n : array, shape (...)
        """
        _validate.choice("ord", ord, _spectrum.ORDERS)
        return self._number("norm", lambda f: _spectrum.norm(f, ord))

    def _number(self, function: str, compute: Callable[[Factored], Any]) -> Any:
        entered, f = self._look(function)
        if any(0 in x.shape[-2:] for x in self.factors):
            msg = f"{function}: the matrix is empty, shape {self.shape}"
            raise ValueError(msg)
        with self._at_work():
            x = compute(f)
        return self._settled(
            function, entered, f, [x], f.looked.problems, None, None, lambda xs: number(xs[0])
        )

    def trace(self) -> Any:
        """Sum of the diagonal, shape (...): the product of the factors' traces, if square."""
        entered = self._enter()
        return number(left(entered, _entries.trace(entered.arrays)))

    def diagonal(self) -> Array:
        """The diagonal, shape (..., min(P, Q))."""
        entered = self._enter()
        return left(entered, _entries.diagonal(entered.arrays))

    def __getitem__(self, index: Any) -> Any:
        """``K[i, j]``, ``K[i]``, ``K[:, i0:i1]``, ``K[rows, columns]``: arrays, by NumPy's rules.

        Behind the batch, which is not indexed. Only what is asked for is computed.
        """
        entered = self._enter()
        return number(left(entered, _entries.getitem(entered.arrays, index)))


def _adjoint(x: Any) -> Any:
    xp = _xp.namespace(x)
    x = xp.matrix_transpose(x)
    return xp.conj(x) if _xp.dtype_name(x) in _xp.COMPLEX else x


def _counts(entered: Entered, f: Factored, rank: Any) -> Any:
    """Ranks: a number, or an array in the caller's library."""
    if not f.batch:
        return int(rank)
    return entered.face.leave(_spectrum.placed(f, rank), entered.like)


def _powered(kind: Any, t: Any) -> Any:
    """What is known of an integer power."""
    return "pos" if kind == "her" and t % 2 == 0 else kind


def _cholesky(f: Factored, i: int, a: Any) -> tuple[Any, list[Problem]]:
    """The Cholesky factor, and which members have none."""
    xp = f.xp
    if 0 in a.shape:
        return a, []
    try:
        x = xp.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        x = xp.full_like(a, math.nan)
    bad = ~np.asarray(_xp.to_numpy(xp.all(xp.isfinite(x), axis=(-2, -1)))) & ~f.looked.bad[i]
    if not bad.any():
        return x, []
    w = np.asarray(_xp.to_numpy(xp.linalg.eigvalsh(a)))
    top = np.abs(w).max(axis=-1)
    below = w[..., 0] < -w.shape[-1] * f.eps * top
    # one member that has none fails the call for all, in some libraries
    bad = ~f.looked.bad[i] & (w[..., 0] <= f.eps * top)
    problems = []
    for error, which, what in (
        (NotPositiveSemidefiniteError, bad & below, "has the negative eigenvalue {:.6g}"),
        (SingularMatrixError, bad & ~below, "has the eigenvalue {:.6g}, zero to working precision"),
    ):
        if which.any():
            value = float(w[..., 0][np.unravel_index(np.argmax(which), which.shape)])
            sentence = f"factors[{i}] {what.format(value)}{{}}; add a multiple of the identity"
            problems.append(Problem(error, sentence, which, i))
    eye = xp.eye(a.shape[-1], dtype=a.dtype, **_modes.where(a))
    out = _xp.from_numpy((bad | f.looked.bad[i])[..., None, None], xp, like=a)
    return xp.linalg.cholesky(xp.where(out, eye, a)), problems
