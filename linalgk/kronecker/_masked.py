"""A Kronecker product on some points of its grid."""

import math
import sys
from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias, cast, get_args

import numpy as np

from linalgk import _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import report
from linalgk.errors import NonFiniteError, NotConvergedError
from linalgk.kronecker import _entries, _masked_door, _masked_estimate, _masked_solve
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Factored, Problem
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._linear import Linear, check_batch, check_sizes
from linalgk.kronecker._masked_estimate import LogdetMethod
from linalgk.kronecker._masked_grid import Grid, Seats, gather, scatter, seats
from linalgk.kronecker._ops import KRON
from linalgk.randomized import Estimate
from linalgk.typing import Array, OnFail

MaskedMethod: TypeAlias = Literal["auto", "fill", "local"]
METHODS = get_args(MaskedMethod)


class Masked(Linear):
    """A Kronecker product between the observed points of its grid, ``P K P^T``, never formed.

    P picks the points where ``mask`` is True, in the order in which the grid has them (that of
    ``x[mask]``). The kernel matrix of measurements on a grid with gaps is such a matrix. Made by
    ``K.masked(mask)``; it stands in products with arrays of every library from both sides.

    Parameters
    ----------
    kron : Kron
        Of square factors.
    mask : array of bool, shape (p_1, ..., p_N) or (K,)
        Which points are observed: True is kept.

    Attributes
    ----------
    kron : Kron
    mask : NumPy array of bool, shape (p_1, ..., p_N)
    n : int
        Observed points.
    shape, batch : tuple of int, tuple of int
        ``(n, n)`` of one member; batch axes of the factors together.
    dtype : dtype

    See Also
    --------
    linalgk.Kron : the whole grid, with exact solutions and determinants.

    Notes
    -----
    In PyTorch and JAX products, `solve` and `logdet` have derivatives by factors, operands and the
    shift. Under ``jax.jit`` the last two are callbacks to the host, and failures NaN.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x = np.linspace(0, 1, 30)
    >>> k = np.exp(-0.5 * ((x[:, None] - x) / 0.2) ** 2)
    >>> seen = np.random.default_rng(0).random((30, 30)) < 0.8
    >>> A = lk.Kron([k, k], assume_a="pos").masked(seen)
    >>> y = np.sin(6 * x)[:, None] * np.cos(4 * x)
    >>> alpha = A.solve(y[seen], shift=1e-4)
    >>> bool(np.abs(A @ alpha + 1e-4 * alpha - y[seen]).max() < 1e-6)
    True
    >>> mean = (A.kron @ A.embed(alpha)).reshape(30, 30)
    >>> bool(np.abs(mean - y).max() < 0.01)
    True
    """

    def __init__(self, kron: Kron, mask: Any) -> None:
        if not isinstance(kron, Kron):
            msg = f"kron: must be a Kron, got {type(kron).__name__}"
            raise TypeError(msg)
        kron._square("masked")
        sizes = kron._sizes[0]
        self.kron, self.mask = kron, _masked_door.read_mask(mask, sizes)
        self.n = int(np.count_nonzero(self.mask))
        self._cache: dict[Any, Any] = {}
        _prepare_jax()

    # --- What `Linear` asks --------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return self.kron._parts()

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        return type(self)(self.kron._mapped(f), self.mask)

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (self.n,), (self.n,)

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the factors together."""
        return self.kron.batch

    @property
    def dtype(self) -> Any:
        """What the factors promote to."""
        return self.kron.dtype

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        xp = _xp.namespace(x)
        seen = self._seats(x)[0]
        if side == "left":
            return gather(self.kron._multiplied(parts, scatter(x, seen), side), seen)
        x = xp.matrix_transpose(scatter(xp.matrix_transpose(x), seen))
        return xp.take(self.kron._multiplied(parts, x, side), seen.index, axis=-1)

    def _product(self, x: Any, side: str) -> Any:
        if not hasattr(x, "shape") or self.kron._differentiated(x) is None:
            return super()._product(x, side)
        check_sizes("x", x, (self.n,), -2 if side == "left" else -1)
        # of differentiable pieces
        if side == "left":
            return self.restrict(self.kron @ self.embed(x))
        xp = _xp.namespace(x)
        turned = x if x.ndim == 1 else xp.matrix_transpose(x)
        whole = self.embed(turned)
        y = (whole if x.ndim == 1 else xp.matrix_transpose(whole)) @ self.kron
        return self.restrict(y) if x.ndim == 1 else xp.take(y, self._seats(y)[0].index, axis=-1)

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        return _masked_estimate.block(parts, self._seats(parts[0])[0], self.mask.shape)

    def _options(self) -> tuple[Any, ...]:
        return (*self.kron._options(), self.mask.tobytes())

    def __repr__(self) -> str:
        """Points, and what is on the grid."""
        return f"Masked({self.n} of {self.mask.size} points, {self.kron!r})"

    def _seats(self, like: Any) -> tuple[Seats, Seats]:
        """Observed and missing points, in the library of an array."""
        key = "seats", _xp.namespace(like).__name__, str(getattr(like, "device", ""))
        if key not in self._cache:
            flat = self.mask.reshape(-1)
            self._cache[key] = seats(flat, like), seats(~flat, like)
        found: tuple[Seats, Seats] = self._cache[key]
        return found

    # --- Points --------------------------------------------------------------------------------

    def embed(self, v: Array, /) -> Array:
        """Values at observed points on the whole grid, zeros elsewhere: ``P^T v``.

        Parameters
        ----------
        v : array, shape (n,) or (..., n, k)

        Returns
        -------
        x : array, shape (K,) or (..., K, k)
            Flat, in the order in which `linalgk.Kron` has the grid; ``x.reshape(mask.shape)`` of a
            vector has its modes.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> A = lk.Kron([np.eye(2), np.eye(2)]).masked([[True, False], [True, True]])
        >>> A.embed(np.array([1.0, 2.0, 3.0]))
        array([1., 0., 2., 3.])
        """
        x: Any = _xp.as_array("v", v)
        check_sizes("v", x, (self.n,), -2)
        seen = self._seats(x)[0]
        return cast(Array, scatter(x[:, None], seen)[:, 0] if x.ndim == 1 else scatter(x, seen))

    def restrict(self, x: Array, /) -> Array:
        """Values at observed points, of values on the whole grid: ``P x``.

        Parameters
        ----------
        x : array, shape (K,) or (..., K, k)

        Returns
        -------
        v : array, shape (n,) or (..., n, k)

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> A = lk.Kron([np.eye(2), np.eye(2)]).masked([[True, False], [True, True]])
        >>> A.restrict(np.arange(4.0))
        array([0., 2., 3.])
        """
        y: Any = _xp.as_array("x", x)
        check_sizes("x", y, self.kron._sizes[0], -2)
        seen = self._seats(y)[0]
        return cast(Array, gather(y[:, None], seen)[:, 0] if y.ndim == 1 else gather(y, seen))

    def diagonal(self) -> Any:
        """The diagonal, shape (..., n)."""
        entered = self._enter()
        d = _entries.diagonal(entered.arrays)
        xp = _xp.namespace(d)
        return entered.leave(xp.take(d, self._seats(d)[0].index, axis=-1))

    # --- Equations -----------------------------------------------------------------------------

    def solve(
        self, b: Array, /, shift: Any = 0, tol: float | None = None, max_iter: int = 1000, *,
        method: MaskedMethod = "auto", return_info: bool = False,
        check_finite: bool | None = None, on_fail: OnFail | None = None,
    ) -> Any:  # fmt: skip
        """Solution of ``(P K P^T + shift I) x = b`` by iteration; K has to be Hermitian.

        Parameters
        ----------
        b : array, shape (n,) or (..., n, k)
            Values at the observed points, in the order of ``y[mask]``.
        shift : float, or array of shape (...), optional
            Not negative; one for all or one for each member of the batch. In regression it is the
            variance of the noise.
        tol : float, optional
            Target for ``||b - (P K P^T + shift I) x|| / ||b||`` of each column, which is measured.
            Default ``eps^(1/2)``.
        max_iter : int, optional
            Most steps of conjugate gradients.
        method : {"auto", "fill", "local"}, optional
            Preconditioner of the missing values, see Notes. ``"fill"`` has none and suits points
            that are missing here and there, ``"local"`` those that are missing in heaps; ``"auto"``
            starts with ``"fill"``, and after some steps goes on with what goes better.
        return_info : bool, optional
            Return ``(x, info)``; ``info.iterations`` are steps, ``info.residual`` the largest of
            all columns, ``info.error_estimate`` a bound ``||r|| / ((lambda_min(K) + shift) ||x||)``
            of the relative error.
        check_finite : bool, optional
            Whether NaN and infinity are errors; default from `linalgk.config_context`.
        on_fail : {"raise", "warn", "nan"}, optional
            What a failure of some members does.

        Returns
        -------
        x : array, shape of b, with the batch axes of both
        info : Info
            With ``return_info``.

        Raises
        ------
        ValueError, TypeError
            If a shape or an option does not fit.
        NonFiniteError, AsymmetricError
            If a factor or b holds NaN or infinity, or a factor is not Hermitian.
        NotPositiveSemidefiniteError, SingularMatrixError
            If ``K + shift I`` on the whole grid is not positive definite to working precision.
        NotConvergedError
            If a column misses ``tol``; ``error.result`` has what was reached.

        Notes
        -----
        Written for all of the grid, with values y at the missing points so that the solution
        vanishes there: ``(K + s I) [x; 0] = [b; y]``. The grid's eigenvectors invert the matrix,
        and y solves ``S y = -((K + s I)^-1 [b; 0])_m`` with the missing points' block ``S =
        ((K + s I)^-1)_mm``, by conjugate gradients. Where nothing is missing nothing is left to
        solve. The residual of x is measured, and what it is too large by is solved for again.

        Why y and not x: with a smooth kernel and a fraction f of the points missing at random,
        ``s S`` has all eigenvalues in about ``[1 - f, 1]``, whatever the condition of K, so that
        the steps hardly depend on K and s: 7 to 30 for a residual of 1e-8 and f up to 0.5, where
        the kernel is smooth over some points; up to about 200 for rough kernels with little noise.
        Conjugate gradients for x [1]_ take hundreds, also preconditioned by ``P (K + s I)^-1 P^T``:
        that inverts ``P K P^T + s I`` less a Schur complement, which is nearly all of it where
        neighbours tell the missing values.

        Within holes wider than what correlates, S is near ``(K_mm + s I)^-1``, of K's condition,
        and ``"local"`` preconditions it by ``s I + D K_mm D``. The diagonal D is between 0, where a
        point's 32 observed neighbours determine it to within the noise, and 1, where they tell
        nothing. It takes 20 to 250 steps for holes of a ninth to a third of a grid of 60 x 60,
        alone or among other missing points, where ``"fill"`` takes hundreds. Large holes of large
        grids with little noise stay hard: thousands of steps.

        A step is two products with all eigenvectors, ``8 K sum p_i`` flops for a column
        (``"local"``: three products), after ``O(sum p_i^3)`` for the eigenvectors, which all
        masks, shifts and determinants share.

        References
        ----------
        .. [1] A. G. Wilson, E. Gilboa, A. Nehorai, J. P. Cunningham, "Fast kernel learning for
           multidimensional pattern extrapolation", NeurIPS 2014: conjugate gradients for x.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> k = 0.5 ** abs(np.subtract.outer(np.arange(4), np.arange(4)))
        >>> seen = np.ones((4, 4), bool)
        >>> seen[1, 2] = False
        >>> A = lk.Kron([k, k]).masked(seen)
        >>> x, info = A.solve(np.ones(15), shift=0.1, return_info=True)
        >>> bool(np.abs(A.toarray() @ x + 0.1 * x - 1).max() < 1e-7), bool(info.converged)
        (True, True)
        """
        b = _xp.as_array("b", b)
        check_sizes("b", b, (self.n,), -2)
        _validate.choice("method", method, METHODS)
        face = self._face(b, shift)
        if face is not None:
            return face.solve(
                self, b, shift, tol=tol, max_iter=max_iter, method=method, return_info=return_info,
                check_finite=check_finite, on_fail=on_fail,
            )  # fmt: skip
        policy, check = _validate.on_fail(on_fail), _validate.check_finite(check_finite)
        max_iter = _validate.integer("max_iter", max_iter, 1)
        batch = check_batch("b", self.batch, tuple(b.shape[:-2]))
        with self.kron._at_work(), np.errstate(all="ignore"):
            kron, entered = self._entered(b=b)
            tol = _masked_door.tolerance(tol, entered.dtype)
            grid, problems = self._grid(kron, entered, shift)
            z = entered.arrays[-1]
            z = z[:, None] if (vector := z.ndim == 1) else z
            if tuple(z.shape[:-2]) != batch:
                z = grid.xp.broadcast_to(z, (*batch, *z.shape[-2:]))
            if grid.dtype in _xp.COMPLEX and _xp.dtype_name(z) not in _xp.COMPLEX:
                z = grid.xp.astype(z, grid.arrays[0].dtype)
            found = _masked_solve.solve(grid, z, tol, max_iter, method)
            seen = _masked_door.verdict(problems, z, found, tol, batch, max_iter)
            blank = ~seen.met if policy == "nan" else seen.bad[..., None]
            x = _masked_door.blanked(found.x, blank)
            x = entered.leave(x[..., 0] if vector else x)
            answer = x
            if return_info:
                answer = x, _masked_door.info(entered, found, seen, batch)
            for error, sentence, which in seen.said:
                if check or error is not NonFiniteError:
                    report(error, f"Masked.solve: {sentence}", which, batch, policy, answer)
        return answer

    def logdet(
        self, shift: Any = 0, *, method: LogdetMethod = "auto", tol: float | None = None,
        n_matvecs: int | None = None, level: float = 0.95, rng: Any = None,
        check_finite: bool | None = None, on_fail: OnFail | None = None,
    ) -> Estimate:  # fmt: skip
        """Logarithm of the determinant of ``P K P^T + shift I``; K has to be Hermitian.

        Parameters
        ----------
        shift : float, or array of shape (...), optional
            As for `solve`.
        method : {"auto", "cholesky", "slq"}, optional
            Exact, by the Cholesky factor of the missing points' block or of the observed ones', or
            an estimate by stochastic Lanczos quadrature of the former. ``"auto"`` is exact where
            nothing is missing, or one of both has at most 2048 points and takes no more than about
            5e10 flops.
        tol : float, optional
            Relative target of an estimate: half the interval at ``level``, error of quadrature
            included, is at most ``tol`` times the value. Default 1e-3 where ``n_matvecs`` is not
            given.
        n_matvecs : int, optional
            Products with ``(K + shift I)^-1`` to spend, with ``tol`` the most of them.
        level : float, optional
            Probability for ``tol``.
        rng : seed, Generator or Philox, optional
            Of the random signs. None takes fresh entropy.
        check_finite, on_fail : optional
            As for `solve`.

        Returns
        -------
        estimate : Estimate
            ``value, std_error, interval(level)``; arrays of the shape of the batch. An exact one
            has ``std_error`` 0, and its ``enclosure`` is what rounding may have done.

        Raises
        ------
        ValueError, TypeError, NonFiniteError, AsymmetricError, NotPositiveSemidefiniteError, \
SingularMatrixError
            As for `solve`.
        NotConvergedError
            If ``tol`` was not met within ``n_matvecs`` or 1000 random vectors.

        Notes
        -----
        With ``A = K + s I`` on the whole grid and ``S = (A^-1)_mm`` at the missing points, ``log
        det A_oo = log det A + log det S``, Jacobi's identity for minors [1]_. The first term is the
        sum over the eigenvalues, exact. The second is small, and S well conditioned where points
        are missing here and there, see `solve`: its diagonal D is exact too, and with ``T = D^-1/2
        S D^-1/2`` so is the trace of the linear part of ``log T = (T - I) + ...``. What is left to
        random vectors [2]_ has a standard deviation of 0.7 to 5.5 for one of them, where that of
        ``log A_oo`` itself is 70 to 145 (60 x 60 points, 30 % missing, s = 0.01, RBF and Matérn
        kernels), and takes fewer steps.

        The exact block of m missing points takes ``r^2 K + m^2 p`` flops, with r rows of the grid
        that have missing points and p the points of a row (modes go into two groups, as is
        cheapest), the Cholesky factor ``m^3 / 3``, on the host; a random vector some ten products
        of ``8 K sum p_i`` flops.

        Derivatives of exact values are exact, in PyTorch up to 2048 observed points of every order.
        Those of an estimate are ``tr(A_oo^-1 dA_oo)`` with the same random vectors, an unbiased
        estimate of the derivative; it is not the derivative of the estimate.

        References
        ----------
        .. [1] R. A. Horn, C. R. Johnson, *Matrix Analysis*, Cambridge 2013, section 0.8.4.
        .. [2] S. Ubaru, J. Chen, Y. Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos
           quadrature", SIAM J. Matrix Anal. Appl. 38 (2017).

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> k = 0.5 ** abs(np.subtract.outer(np.arange(4), np.arange(4)))
        >>> seen = np.ones((4, 4), bool)
        >>> seen[1, 2] = False
        >>> A = lk.Kron([k, k]).masked(seen)
        >>> exact = np.linalg.slogdet(A.toarray() + 0.1 * np.eye(15))[1]
        >>> bool(abs(A.logdet(shift=0.1).value - exact) < 1e-12)
        True
        >>> low, high = A.logdet(shift=0.1, method="slq", rng=0).interval()
        >>> bool(low <= exact <= high)
        True
        """
        options = _masked_estimate.Options(method, tol, n_matvecs, level, rng)
        face = self._face(shift)
        if face is not None:
            return face.logdet(  # type: ignore[no-any-return]
                self, shift, options, check_finite=check_finite, on_fail=on_fail
            )
        return self._logdet(shift, options, check_finite, on_fail)[0]

    def _logdet(
        self, shift: Any, options: Any, check_finite: Any, on_fail: Any, *, gradient: bool = False
    ) -> tuple[Estimate, Any]:
        """The estimate, and for each member what its derivatives are made of."""
        policy, check = _validate.on_fail(on_fail), _validate.check_finite(check_finite)
        batch = self.batch
        with self.kron._at_work(), np.errstate(all="ignore"):
            kron, entered = self._entered()
            options.check(entered.dtype)
            grid, problems = self._grid(kron, entered, shift)
            bad = _masked_door.members(problems, batch)
            found = [
                _masked_estimate.member(one, options, gradient=gradient)
                if not bad.reshape(-1)[i] else _masked_estimate.FAILED
                for i, one in enumerate(grid.members(batch))
            ]  # fmt: skip
            said = _masked_door.sentences(problems, batch)
            late = np.array([not f.converged for f in found], bool).reshape(batch) & ~bad
            if late.any():
                text = "the error is still above tol{}; allow more n_matvecs, or a larger tol"
                said.append((NotConvergedError, text, late))
                if policy == "nan":
                    found = [f if f.converged else _masked_estimate.FAILED for f in found]
            answer = _masked_estimate.gathered(found, batch, entered, options)
            for error, sentence, which in said:
                if check or error is not NonFiniteError:
                    report(error, f"Masked.logdet: {sentence}", which, batch, policy, answer)
        return answer, (grid, found)

    # --- Entering ------------------------------------------------------------------------------

    def _face(self, *operands: Any) -> Any:
        """PyTorch's face, if tensors want derivatives, and JAX's, if values are unknown."""
        if any(_xp.is_traced(x) for x in (*self.kron.factors, *operands)):
            from linalgk.interop import _jax_masked

            return _jax_masked
        if "torch" not in sys.modules or self.kron._differentiated(*operands) is None:
            return None
        from linalgk.interop import _torch_masked

        return _torch_masked

    def _entered(self, **operands: Any) -> tuple[Kron, Entered]:
        """The grid's matrix and arrays as they are computed with.

        JAX's arrays of a CPU as NumPy's: JAX would compile every step.
        """
        arrays = self.kron._parts() | operands
        if any(_xp.face(x).family != "jax" for x in arrays.values()) or any(  # type: ignore[union-attr]
            d.platform != "cpu" for x in arrays.values() for d in x.devices()
        ):
            return self.kron, self.kron._enter(**operands)
        if "host" not in self._cache:
            self._cache["host"] = self.kron._mapped(np.asarray)
        kron: Kron = self._cache["host"]
        entered = kron._enter(**{name: np.asarray(x) for name, x in operands.items()})
        jax = sys.modules["jax"].numpy
        face = _xp.Face("jax", entered.face.enter, lambda x, _: jax.asarray(x))
        return kron, entered._replace(face=face)

    def _grid(
        self, kron: Kron, entered: Entered, shift: Any
    ) -> tuple[Grid, list[Problem]]:  # fmt: skip
        """The grid with the shift, and the members where it is not positive definite."""
        f: Factored = kron._factored(entered, hermitian=True)
        batch = self.batch
        host = _masked_door.noise(shift, batch)
        xp, real = f.xp, _xp.REAL[f.dtype]
        w = xp.broadcast_to(f.eigenvalues, (*batch, f.size))
        s: Any = float(host) if not batch else _xp.from_numpy(host.astype(real), xp, like=w)
        d = w + (s[..., None] if batch else s)
        problems = [*f.looked.problems, *f.indefinite]
        if f.size and 0 not in batch:
            bad = _masked_door.members(problems, batch)
            more = _masked_door.definite(xp, w, d, host, len(f.arrays) * f.eps)
            problems += [p._replace(bad=p.bad & ~bad) for p in more]
        bad = _masked_door.members(problems, batch)
        if bad.any():
            mask = _xp.from_numpy(bad, xp, like=d)
            d = xp.where(mask[..., None], xp.ones_like(d), d)
        return Grid(
            f.looked.arrays, f.spectral.values, f.spectral.vectors, s, d, *self._seats(d)
        ), problems


# --- JAX -----------------------------------------------------------------------------------------

_REGISTERED: list[bool] = []


def _prepare_jax() -> None:
    """Let JAX, if it is there, take objects apart and put them together again."""
    jax = sys.modules.get("jax")
    if jax is None or _REGISTERED:
        return
    _REGISTERED.append(True)

    def parts(masked: Masked) -> Any:
        return (masked.kron,), (masked.mask.shape, masked.mask.tobytes())

    def build(static: Any, children: Any) -> Masked:
        shape, points = static
        mask = np.frombuffer(points, bool).reshape(shape)
        # not checked: transformations put other things in the place of arrays
        found = object.__new__(Masked)
        found.__dict__.update(kron=children[0], mask=mask, n=int(mask.sum()), _cache={})
        return found

    jax.tree_util.register_pytree_node(Masked, parts, build)


# --- Records -------------------------------------------------------------------------------------


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a usual call of `Masked`: a grid of which a fifth is missing."""
    p = {"small": 12, "medium": 60, "large": 300}[size]
    x = np.linspace(0.0, 1.0, p)
    k = np.exp(-abs(x[:, None] - x) / 0.3)
    mask = np.random.default_rng(rng).random((p, p)) < 0.8
    factors = [_xp.from_numpy(k, xp) for _ in range(2)]
    return (Kron(factors, assume_a="pos"), _xp.from_numpy(mask, xp)), {}


def explain_masked(kron: Kron, mask: Any) -> Explanation:
    """What a call of `Masked.solve` with one right-hand side would run."""
    masked = Masked(kron, mask)
    n, total = masked.n, masked.mask.size
    sizes = masked.mask.shape
    if n == total:
        method, steps, reason = "eigh", 1, "nothing is missing: eigenvectors invert the matrix"
    else:
        method, steps = "auto", 30
        reason = (
            f"{total - n} of {total} points are missing: conjugate gradients fill them in, "
            "'fill' first and 'local' where that is slow; 30 steps are counted"
        )
    size = np.dtype(str(kron.dtype).rpartition(".")[2]).itemsize
    count = math.prod(masked.batch)
    flops = count * (10.0 * sum(p**3 for p in sizes) + steps * 4.0 * total * sum(sizes))
    moved = count * size * (sum(p * p for p in sizes) + steps * 8.0 * total)
    choice = KRON.choose(np.empty((1, total, 1)), tuple(np.empty((1, p, p)) for p in sizes))[1]
    return Explanation("Masked", method, reason, {KRON.name: choice}, flops, moved)
