"""A Kronecker product or sum plus a diagonal matrix as an object."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self, overload

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import adjoint
from linalgk._results import Info
from linalgk.errors import AsymmetricError, NonFiniteError, NotPositiveSemidefiniteError
from linalgk.kronecker import _kronsum_steps, _modes
from linalgk.kronecker._cg import answered, check_tol, is_met, pcg, problems_of
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Factored, settle
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._kronsum import KronSum
from linalgk.kronecker._linear import (
    Linear,
    check_batch,
    check_max_iter,
    check_number,
    check_sizes,
    check_traced,
    hosted,
    register,
)
from linalgk.randomized import Estimate, estimate_logdet
from linalgk.typing import Array, OnFail

_MOST_STEPS = 1000
# Largest matrix that is formed for its determinant, which is then exact.
_FORMED = 600
# Of the bound of the condition number: what it has to be multiplied by, at most, to leave the mean.
_NEARER = 0.5


class Preconditioner(NamedTuple):
    """P near ``K + diag(d)`` with ``P^-1 = W diag(1/grid) W^H``."""

    name: str  # "mean", "kron" or "diagonal"
    vectors: list[Any]  # of the modes; none for W = I
    adjoints: list[Any]
    grid: Any  # (n,), positive
    logdet: float
    # P is K + diag(d) less this diagonal; None where P is diag(d)
    rest: Any
    # between which the eigenvalues of P^-1 (K + diag(d)) are, for positive semidefinite K
    bounds: tuple[float, float] | None

    def inward(self, r: Any) -> Any:
        """``W^H r``."""
        return _modes.times(self.adjoints, r) if self.adjoints else r

    def outward(self, r: Any) -> Any:
        """``W r``."""
        return _modes.times(self.vectors, r) if self.vectors else r

    def apply(self, r: Any) -> Any:
        """``P^-1 r``."""
        return self.outward(self.inward(r) / self.grid[:, None])


class KronPlusDiagonal(Linear):
    """``K + diag(d)`` for a Kronecker product or sum K.

    Observations on a grid with noise that differs from point to point have such a covariance.

    Parameters
    ----------
    kron : Kron, KronSum or sequence of N arrays, shapes (p_i, p_i)
        Square; a sequence stands for their product. To be solved with it has to be Hermitian.
    d : array, shape (n,), (p_1, ..., p_N) or (..., n)
        The diagonal, as a vector or on the grid; in products it may have batch axes.

    Attributes
    ----------
    kron : Kron or KronSum
    d : array, shape (..., n)
    shape, batch, dtype : tuple of int, tuple of int, dtype
        As of `Kron`.

    See Also
    --------
    linalgk.Kron.solve : a multiple of the identity instead of a diagonal.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> t = np.arange(40)
    >>> kernel = np.exp(-0.05 * np.subtract.outer(t, t) ** 2)
    >>> noise = np.random.default_rng(0).uniform(0.5, 2.0, (40, 40))
    >>> k = lk.Kron([kernel, kernel]).add_diagonal(noise)
    >>> x, info = k.solve(np.ones(1600), return_info=True)
    >>> bool(np.linalg.norm(k @ x - 1) < 1e-8), int(info.iterations) < 30
    (True, True)
    """

    def __init__(self, kron: Any, d: Array) -> None:
        self.kron: Kron | KronSum = kron if isinstance(kron, Kron | KronSum) else Kron(kron)
        rows, columns = self.kron._sizes
        if rows != columns:
            pairs = zip(rows, columns, strict=True)
            sizes = ", ".join(f"({p}, {q})" for p, q in pairs)
            msg = f"kron: needs square factors, got {sizes}"
            raise ValueError(msg)
        d = _xp.as_array("d", d)
        if len(rows) > 1 and tuple(d.shape) == rows:
            d = _xp.namespace(d).reshape(d, (-1,))
        if d.ndim == 0:
            msg = "d: is a number; use solve(b, shift=d) of the product"
            raise ValueError(msg)
        check_sizes("d", d, rows, -1)
        self.d = d
        check_batch("d", self.kron.batch, tuple(d.shape[:-1]))
        self._cache: dict[Any, Any] = {}
        register(KronPlusDiagonal, ("kron", "d"), ())
        # the library, the device and the dtypes are looked at
        self._enter()

    def _parts(self) -> dict[str, Any]:
        return {**self.kron._parts(), "d": self.d}

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        return type(self)(self.kron._mapped(f), f(self.d))

    @property
    def T(self) -> Self:
        """The transpose."""
        return type(self)(self.kron.T, self.d)

    @property
    def H(self) -> Self:
        """The conjugate transpose."""
        d = self.d
        d = _xp.namespace(d).conj(d) if _xp.dtype_name(d) in _xp.COMPLEX else d
        return type(self)(self.kron.H, d)

    def _options(self) -> tuple[Any, ...]:
        return (type(self.kron), *self.kron._options())

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.kron._sizes

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the factors and of the diagonal together."""
        return np.broadcast_shapes(self.kron.batch, tuple(self.d.shape[:-1]))

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        check_batch("x", self.batch, tuple(x.shape[:-2]))
        d = parts[-1][..., :, None] if side == "left" else parts[-1][..., None, :]
        return self.kron._multiplied(parts[:-1], x, side) + d * x

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        one = _kronsum_steps.identity(self.shape[0], parts[-1])
        return self.kron._dense(parts[:-1]) + one * parts[-1][..., None, :]

    def diagonal(self) -> Any:
        """The diagonal, shape (..., n)."""
        entered = self._enter(k=self.kron.diagonal())
        return entered.leave(entered.arrays[-1] + entered.arrays[-2])

    # --- Solutions -----------------------------------------------------------------------------

    @overload
    def solve(
        self, b: Array, /, shift: float = ..., *, tol: float | None = ...,
        max_iter: int | None = ..., check_finite: bool | None = ..., on_fail: OnFail | None = ...,
        return_info: Literal[False] = ...,
    ) -> Array: ...  # fmt: skip
    @overload
    def solve(
        self, b: Array, /, shift: float = ..., *, tol: float | None = ...,
        max_iter: int | None = ..., check_finite: bool | None = ..., on_fail: OnFail | None = ...,
        return_info: Literal[True],
    ) -> tuple[Array, Info]: ...  # fmt: skip
    def solve(
        self, b: Any, /, shift: float = 0, *, tol: float | None = None,
        max_iter: int | None = None, check_finite: bool | None = None,
        on_fail: OnFail | None = None, return_info: bool = False,
    ) -> Any:  # fmt: skip
        """Solution of ``(K + diag(d) + shift I) x = b`` for a positive definite matrix.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
        shift : real number
        tol : float, optional
            ``||b - (K + diag(d)) x|| <= tol ||b||`` for each column, or as little as rounding
            allows. Default ``eps^(2/3)``.
        max_iter : int, optional
            Most steps. Default 1000.
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
            Only with ``return_info``; arrays have one number for each column of b. ``method`` is
            ``"pcg-mean"``, ``"pcg-kron"`` or ``"pcg-diagonal"``, ``residual`` is
            ``||b - (K + diag(d)) x|| / ||b||``; the error is not estimated.

        Raises
        ------
        ValueError, TypeError
            A shape or option that does not fit; a batch of factors or diagonals.
        NonFiniteError, AsymmetricError
            An array holds NaN or infinity; a factor is not Hermitian, or d not real.
        NotPositiveSemidefiniteError
            The matrix is not positive definite.
        NotConvergedError
            ``tol`` was not met within ``max_iter`` steps.

        Notes
        -----
        Conjugate gradients with the preconditioner P that has the least bound of the condition
        number for positive semidefinite K [1]_ (twice as little as that of ``mean``):

        ``mean``, ``K + c I`` with the mean c of d, by K's eigenvectors: ``max d / min d``.

        ``kron``, ``K + D'`` with the Kronecker product D' nearest to diag(d) in logarithms, ``log
        d ~ f_1 (+) ... (+) f_N``, by the eigenvectors of ``D'^(-1/2) K D'^(-1/2)``, which is a
        Kronecker product: ``max(d/d') / min(d/d')``. For a Kronecker product K and positive d.

        ``diagonal``, diag(d): ``1 + max eigenvalue of K / min d``. For positive d.

        Where K plus the mean is not positive definite the largest d takes the place of the mean.

        A step costs two products with eigenvectors and one with K.

        References
        ----------
        .. [1] O. Axelsson, *Iterative Solution Methods*, Cambridge (1994), section 8.5: spectra of
           preconditioned matrices by quotients of quadratic forms.
        """
        check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
        check_traced("KronPlusDiagonal.solve", b, *self._parts().values())
        data: Any = _xp.as_array("b", b)
        self._check_single("solve")
        check_sizes("b", data, self._sizes[0], -2)
        number = _real("shift", shift)
        most = _MOST_STEPS if max_iter is None else check_max_iter(max_iter)
        with _lag.scope(data), _config.blas_threads(), np.errstate(all="ignore"):
            entered = hosted(self._enter(b=data))
            *parts, d, data = entered.arrays
            vector = data.ndim == 1
            data = data[:, None] if vector else data
            tol = check_tol(tol, float(np.finfo(entered.dtype).eps))
            p, norm = self._preconditioner(entered.dtype, number)
            xp = _xp.namespace(data)
            d = d + number

            def apply(x: Any) -> Any:
                return self.kron._multiplied(tuple(parts), x, "left") + d[:, None] * x

            finite = xp.all(xp.isfinite(data), axis=-2, keepdims=True)
            data = xp.where(finite, data, xp.full_like(data, float("nan")))
            found = pcg(apply, p.apply, data, tol, most)
            return answered(
                "KronPlusDiagonal.solve", f"pcg-{p.name}", found,
                problems_of(found, is_met(found, data, tol, norm), "K + diag(d)"), entered,
                vector=vector, policy=policy, check=check, info=return_info,
            )  # fmt: skip

    def _check_single(self, what: str) -> None:
        if self.batch:
            msg = (
                f"KronPlusDiagonal.{what}: factors and d may have no batch, got {self.batch}; make "
                "one object for each member"
            )
            raise ValueError(msg)

    # --- The preconditioner, kept --------------------------------------------------------------

    def _preconditioner(self, dtype: str, shift: float) -> tuple[Preconditioner, float]:
        """In a precision, and a bound of the norm of the matrix."""
        key = (_xp.REAL[dtype], shift)
        if key not in self._cache:
            self._cache = {key: self._made(_xp.REAL[dtype], shift)}
        found: tuple[Preconditioner, float] = self._cache[key]
        return found

    def _made(self, precision: str, shift: float) -> tuple[Preconditioner, float]:
        *parts, d = hosted(self._enter()).arrays
        xp = _xp.namespace(d)
        wide = xp.result_type(d.dtype, _xp.dtype_of(xp, precision))
        parts = [xp.astype(a, wide, copy=False) for a in parts]
        d = _checked_diagonal(xp.astype(d, wide, copy=False)) + shift
        f = Factored(parts, self.kron.assume_a)
        name = type(self.kron).__name__
        settle(name, [], [*f.looked.problems], (), lambda _: None)
        if not all(f.looked.hermitian):
            names = ", ".join(f"factors[{i}]" for i, h in enumerate(f.looked.hermitian) if not h)
            msg = (
                f"KronPlusDiagonal.solve: needs Hermitian factors, but {names} not Hermitian to "
                "rounding; use scipy.sparse.linalg.gmres with to_scipy()"
            )
            raise AsymmetricError(msg)
        summed = isinstance(self.kron, KronSum)
        grid = (_kronsum_steps.outer_sum if summed else _modes.outer)(f.spectral.values)
        norm = float(xp.max(xp.abs(grid)) + xp.max(xp.abs(d))) if f.size else 0.0
        if f.size == 0:
            return Preconditioner("diagonal", [], [], d, 0.0, None, None), norm
        return choose(f, grid, d, summed=summed), norm

    # --- Determinant ---------------------------------------------------------------------------

    def logdet(self, n_matvecs: int = 200, *, rng: Any = None) -> Estimate:
        """Logarithm of the determinant of a positive definite matrix.

        Parameters
        ----------
        n_matvecs : int
            Products with one vector to spend.
        rng : seed, Generator or Philox

        Returns
        -------
        estimate : Estimate
            Numbers of NumPy. Exact up to order 600.

        Raises
        ------
        ValueError, TypeError, NonFiniteError, AsymmetricError, NotPositiveSemidefiniteError
            As in `solve`.

        Notes
        -----
        ``log det P`` of the preconditioner of `solve` is known; what is estimated by
        `linalgk.estimate_logdet` is ``tr log(P^(-1/2) (K + diag(d)) P^(-1/2))``, whose matrix is
        nearer to I and has known bounds of its spectrum where K is positive semidefinite.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> t = np.arange(30)
        >>> kernel = np.exp(-0.05 * np.subtract.outer(t, t) ** 2)
        >>> noise = np.random.default_rng(0).uniform(0.5, 2.0, 900)
        >>> k = lk.Kron([kernel, kernel]).add_diagonal(noise)
        >>> low, high = k.logdet(rng=0).interval(0.999)
        >>> bool(low <= np.linalg.slogdet(k.toarray())[1] <= high)
        True
        """
        check_traced("KronPlusDiagonal.logdet", *self._parts().values())
        self._check_single("logdet")
        _validate.integer("n_matvecs", n_matvecs, 1)
        with _lag.scope(self.d), _config.blas_threads():
            entered = hosted(self._enter())
            if self.shape[0] <= _FORMED:
                matrix = np.asarray(_xp.to_numpy(self._dense(entered.arrays)))
                return estimate_logdet(matrix, method="cholesky", rng=rng)
            p, _ = self._preconditioner(entered.dtype, 0.0)
            balanced = _Balanced(self, entered, p)
            found = estimate_logdet(balanced, n_matvecs, bounds=p.bounds, rng=rng)
        return dataclasses.replace(
            found, value=found.value + p.logdet,
            enclosure=tuple(x + p.logdet for x in found.enclosure),
            bounds=None if found.bounds is None else tuple(x + p.logdet for x in found.bounds),
        )  # fmt: skip


class _Balanced:
    """``P^(-1/2) (K + diag(d)) P^(-H/2)`` for vectors of NumPy, as I plus what P lacks."""

    def __init__(self, k: KronPlusDiagonal, entered: Entered, p: Preconditioner) -> None:
        self._k, self._parts, self._p = k, entered.arrays, p
        self.shape, self.dtype = k.shape, np.dtype(entered.dtype)
        self.H = self

    def matmat(self, x: Any) -> Any:
        """The product with vectors (n,) or (n, k)."""
        if x.ndim == 1:
            return self.matmat(x[:, None])[:, 0]
        like, p = self._parts[-1], self._p
        root = _xp.namespace(like).sqrt(p.grid)[:, None]
        x = _xp.from_numpy(np.ascontiguousarray(x), _xp.namespace(like), like=like)
        if p.rest is None:
            y = self._k.kron._multiplied(self._parts[:-1], x / root, "left")
        else:
            y = p.inward(p.rest[:, None] * p.outward(x / root))
        return np.asarray(_xp.to_numpy(x + y / root))

    rmatmat = matvec = rmatvec = __matmul__ = matmat


# --- Preconditioners -----------------------------------------------------------------------------


def _checked_diagonal(d: Any) -> Any:
    """A real and finite diagonal."""
    xp = _xp.namespace(d)
    if not bool(xp.all(xp.isfinite(d))):
        msg = "d: holds NaN or infinity; a point without an observation is left out by K.masked"
        raise NonFiniteError(msg)
    if _xp.dtype_name(d) not in _xp.COMPLEX:
        return d
    if bool(xp.any(xp.imag(d) != 0)):
        msg = "d: must be real for a Hermitian matrix; use scipy.sparse.linalg.gmres"
        raise AsymmetricError(msg)
    return xp.real(d)


def choose(f: Factored, grid: Any, d: Any, *, summed: bool) -> Preconditioner:
    """The one with the least bound of the condition number, as `solve` has it.

    ``grid`` holds the eigenvalues of K, which is a Kronecker sum if ``summed``.
    """
    xp = f.xp
    low, high = float(xp.min(d)), float(xp.max(d))
    least, top = float(xp.min(grid)), float(xp.max(grid))
    definite = least >= -f.eps * f.size * top
    if not (definite and low > 0.0):
        return _by_mean(f, grid, d, definite=definite)
    bounds = {"mean": high / low, "diagonal": 1.0 + top / low, "kron": math.inf}
    near: list[Any] = []
    if not summed and high > low:
        near, bounds["kron"] = _nearest(d, f.sizes)
    name = min(bounds, key=lambda k: bounds[k] * (_NEARER if k == "mean" else 1.0))
    if name == "diagonal":
        logdet = float(xp.sum(xp.log(d)))
        return Preconditioner("diagonal", [], [], d, logdet, None, (1.0, bounds["diagonal"]))
    return _by_kron(f, d, near) if name == "kron" else _by_mean(f, grid, d, definite=True)


def _nearest(d: Any, sizes: tuple[int, ...]) -> tuple[list[Any], float]:
    """``d' = d_1 kron ... kron d_N`` with the least squares of ``log d - log d'``, and how near.

    Means of log d over all other modes; their sum counts the mean of all N - 1 times too often.
    """
    xp = _xp.namespace(d)
    log = xp.reshape(xp.log(d), sizes)
    mean = xp.mean(log)
    n = len(sizes)
    parts = [
        xp.mean(log, axis=tuple(j for j in range(n) if j != i)) - mean * ((n - 1) / n)
        for i in range(n)
    ]
    rest = xp.reshape(log, (-1,)) - _kronsum_steps.outer_sum(parts)
    return [xp.exp(p) for p in parts], math.exp(min(float(xp.max(rest) - xp.min(rest)), 700.0))


def _by_mean(f: Factored, grid: Any, d: Any, *, definite: bool) -> Preconditioner:
    xp = f.xp
    low, high, least = float(xp.min(d)), float(xp.max(d)), float(xp.min(grid))
    floor = f.eps * (float(xp.max(xp.abs(grid))) + float(xp.max(xp.abs(d))))
    # K plus the largest d is positive definite if K + diag(d) is
    c = float(xp.mean(d))
    c = c if least + c > floor else high
    if not least + c > floor:
        msg = (
            "KronPlusDiagonal: not positive definite: the least eigenvalue of K and the largest "
            f"entry of d add up to {least:.4g} + {high:.4g}"
        )
        raise NotPositiveSemidefiniteError(msg)
    grid = grid + c
    bounds = (min(1.0, low / c), max(1.0, high / c)) if definite and low > 0.0 else None
    logdet = float(xp.sum(xp.log(grid)))
    vectors, adjoints = f.spectral.vectors, f.adjoint_vectors
    return Preconditioner("mean", vectors, adjoints, grid, logdet, d - c, bounds)


def _by_kron(f: Factored, d: Any, near: list[Any]) -> Preconditioner:
    """``P = R^-1 (R K R + I) R^-1`` with ``R = D'^(-1/2)``."""
    xp = f.xp
    values, vectors = [], []
    for a, part in zip(f.looked.arrays, near, strict=True):
        r = xp.astype(1 / xp.sqrt(part), a.dtype, copy=False)
        w, v = xp.linalg.eigh(_kronsum_steps.hermitian_part(r[:, None] * a * r[None, :]))
        values.append(w)
        vectors.append(r[:, None] * v)
    grid = _modes.outer(values) + 1.0
    product = _modes.outer(near)
    ratio = d / product
    bounds = min(1.0, float(xp.min(ratio))), max(1.0, float(xp.max(ratio)))
    logdet = float(xp.sum(xp.log(grid)))
    logdet += sum(
        f.size // p * float(xp.sum(xp.log(x))) for p, x in zip(f.sizes, near, strict=True)
    )
    adjoints = [adjoint(xp, v) for v in vectors]
    return Preconditioner("kron", vectors, adjoints, grid, logdet, d - product, bounds)


def _real(name: str, x: Any) -> float:
    value = check_number(name, x)
    if value.imag != 0:
        msg = f"{name}: must be real for a Hermitian matrix, got {x!r}"
        raise ValueError(msg)
    return value.real


# --- For the record --------------------------------------------------------------------------


def explain_kronplusdiagonal(kron: Any, d: Any) -> Explanation:
    """What a solution would run."""
    k = KronPlusDiagonal(kron, d)
    k._check_single("solve")
    entered = k._enter()
    p, _ = k._preconditioner(entered.dtype, 0.0)
    sizes, n = k._sizes[0], k.shape[0]
    why = {
        "mean": "a number in place of d bounds the condition number best",
        "kron": "a Kronecker product in place of d bounds the condition number best",
        "diagonal": "d is large beside the eigenvalues of K",
    }
    runs = {"solve": "preconditioned conjugate gradients; 30 steps are assumed"}
    flops = 9.0 * sum(s**3 for s in sizes) + 180.0 * n * sum(sizes)
    moved = 4.0 * n * np.dtype(entered.dtype).itemsize
    return Explanation("KronPlusDiagonal", f"pcg-{p.name}", why[p.name], runs, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positive definite factors of the size that is named, and noise."""
    shape = {"small": (3, 4), "medium": (30, 40), "large": (300, 400)}[size]
    gen = np.random.default_rng(rng)
    factors = []
    for n in shape:
        x = gen.standard_normal((n, 2 * n))
        factors.append(xp.asarray(x @ x.T / n))
    return (factors, xp.asarray(gen.uniform(0.5, 2.0, math.prod(shape)))), {}
