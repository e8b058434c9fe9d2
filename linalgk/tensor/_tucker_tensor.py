"""Tucker tensors: a small core and a matrix for each mode."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from linalgk import _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import NonFiniteError
from linalgk.tensor import _tensor_algebra as algebra
from linalgk.tensor import _unfold
from linalgk.tensor._canonical import inner, permutation
from linalgk.tensor._format import Format, register, scope
from linalgk.typing import Array


class TuckerTensor(Format):
    r"""A tensor as a core with a matrix in each mode.

    .. math:: X_{i_1 \dots i_d} = \sum_{j_1 \dots j_d} G_{j_1 \dots j_d}
              (U_1)_{i_1 j_1} \cdots (U_d)_{i_d j_d}

    Parameters
    ----------
    core : array, shape (r_1, ..., r_d)
        Real or complex.
    factors : sequence of d arrays, shapes (n_k, r_k)
        Any matrices. Arrays of one library; dtypes promote.
    error : float, optional
        Relative error in the Frobenius norm to what it was made from; NaN if not known.
    method : str, optional
        How it was made.
    converged : bool, optional
        Whether the error is as small as was asked for.
    iterations : int, optional
        Sweeps over all modes that it took.

    Attributes
    ----------
    core, factors
        As given, all in one dtype.
    shape, ranks : tuple of int
        ``(n_1, ..., n_d)`` and ``(r_1, ..., r_d)``.
    error : float
        As given. It stays with multiples, conjugates and permutations; sums, products and parts
        of a tensor have NaN, since relative errors do not carry over.
    method : str
        As given.
    converged, iterations : bool, int
        As given.

    See Also
    --------
    linalgk.tucker : of a dense or canonical tensor, to a tolerance.
    CanonicalTensor : a sum of outer products.

    Notes
    -----
    ``X[index]`` takes integers, slices, ``...`` and one vector of integers (or a mask) for each of
    some modes; integers take their mode away, in the place where it stands, and a number is left
    where all are. Two or more arrays of integers are points: they broadcast with each other and
    with the integers, as in NumPy, leave no slice, and give an array of entries. ``None`` is an
    error.

    ``+`` and ``-`` put factors side by side and cores on a diagonal, so that ranks add; ``*`` of
    two tensors multiplies entries, and ranks; numbers are added and multiplied too. All are exact,
    and `recompress` finds the least ranks afterwards.

    References
    ----------
    .. [1] T. G. Kolda, B. W. Bader, "Tensor decompositions and applications", SIAM Review 51
       (2009), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from linalgk.tensor import TuckerTensor
    >>> i = np.stack([np.ones(4), np.arange(4.0)], axis=1)
    >>> x = TuckerTensor([[0.0, 1.0], [1.0, 0.0]], [i, i])   # i + j
    >>> x
    TuckerTensor(shape=(4, 4), ranks=(2, 2), error=nan, dtype=float64)
    >>> x[3, 2]
    5.0
    >>> (x * x)[1:, 2].toarray()
    array([ 9., 16., 25.])
    >>> (x * x).recompress(1e-12).ranks
    (3, 3)
    """

    _head_name: ClassVar[str] = "core"
    _static: ClassVar[tuple[str, ...]] = ("error", "method", "converged", "iterations")

    def __init__(
        self, core: Array, factors: Sequence[Array], *, error: float = math.nan,
        method: str = "given", converged: bool = True, iterations: int = 0,
    ) -> None:  # fmt: skip
        self.core, self.factors = self._stored(core, factors)
        # one object for all NaN, which is equal to itself in JAX's comparison of structures
        self.error = math.nan if math.isnan(error) else float(error)
        self.method, self.converged = str(method), bool(converged)
        self.iterations = int(iterations)
        register(TuckerTensor, "core", self._static)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Shape of the core."""
        return tuple(int(r) for r in self.core.shape)

    def __repr__(self) -> str:
        state = "" if self.converged else ", not converged"
        return (
            f"TuckerTensor(shape={self.shape}, ranks={self.ranks}, error={self.error:.2g}{state}, "
            f"dtype={_xp.dtype_name(self.core)})"
        )

    # --- Format ----------------------------------------------------------------------------------

    def _check_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        core, *factors = shapes
        if len(core) != len(factors):
            msg = f"core: must have a mode for each of {len(factors)} factors, got shape {core}"
            raise ValueError(msg)
        for k, shape in enumerate(factors):
            if len(shape) != 2 or shape[1] != core[k]:
                msg = (
                    f"factors[{k}]: must have shape (n, {core[k]}) for a core of shape {core}, "
                    f"got {shape}"
                )
                raise ValueError(msg)

    @staticmethod
    def _dense(arrays: list[Any]) -> Any:
        return algebra.products(arrays[0], arrays[1:])

    @staticmethod
    def _entries(head: Any, rows: list[Any]) -> Any:
        return algebra.entries(head, rows)

    @staticmethod
    def _contracted(head: Any, rows: dict[int, Any]) -> Any:
        return algebra.contracted(head, rows)

    @staticmethod
    def _sum(a: list[Any], b: list[Any]) -> tuple[Any, list[Any]]:
        return algebra.tucker_sum(a, b)

    @staticmethod
    def _hadamard(a: list[Any], b: list[Any]) -> tuple[Any, list[Any]]:
        return algebra.hadamard(a, b)

    def _constant(self, xp: Any, value: Any) -> Any:
        return xp.reshape(value, (1,) * self.ndim)

    # --- Norms -----------------------------------------------------------------------------------

    def orthogonalized(self) -> Self:
        """The same tensor with orthonormal columns in all factors, by QR.

        Returns
        -------
        x : TuckerTensor
            Ranks at most ``min(n_k, r_k)``.
        """
        with scope(self.core):
            entered = self._enter()
            core, factors = algebra.orthogonalized(entered.arrays[0], entered.arrays[1:])
            return self._leave(entered, core, factors, **self._known())

    def norm(self) -> Any:
        """Frobenius norm, of the core that belongs to orthonormal factors.

        Returns
        -------
        norm : float

        Notes
        -----
        Relative error of rounding even of sums that cancel nearly: to ``eps`` times the norms of
        what cancels, not its root. ``2 (n_1 r_1^2 + ...)`` operations and a product with the core.
        """
        with scope(self.core):
            entered = self._enter()
            core, _ = algebra.orthogonalized(entered.arrays[0], entered.arrays[1:])
            return algebra.frobenius(entered.xp, core)

    def inner(self, other: Any) -> Any:
        """Sum of ``conj(self) * other`` over all entries.

        Parameters
        ----------
        other : TuckerTensor, CanonicalTensor or array, shape (n_1, ..., n_d)

        Returns
        -------
        s : float or complex
        """
        return inner(self, other)

    # --- Changed ---------------------------------------------------------------------------------

    def recompress(
        self, tol: float | None = None, *, ranks: int | Sequence[int] | None = None
    ) -> Self:
        """With the least ranks for a tolerance, or the best found for given ranks.

        Parameters
        ----------
        tol : float, optional
            Of the change, in the Frobenius norm and relative to that of the tensor. Default, where
            no ranks are given: a few roundings.
        ranks : int or sequence of d int, optional
            Of the result, at most; in place of ``tol``.

        Returns
        -------
        x : TuckerTensor
            Orthonormal factors. ``error`` is the change together with the error that was there
            before, ``e + change (1 + e)``.

        Raises
        ------
        NonFiniteError
            If the tensor holds NaN or infinity.

        Notes
        -----
        QR of the factors, then sequentially truncated higher-order singular values of the small
        core [1]_, whose discarded parts are orthogonal to each other: the change is the root of
        the sum of their squares, and ranks are at most those of the best such tensor for
        ``tol / sqrt(d)``. Where Gram matrices decided, the change is measured instead.

        References
        ----------
        .. [1] N. Vannieuwenhoven, R. Vandebril, K. Meerbergen, "A new truncation strategy for the
           higher-order singular value decomposition", SIAM J. Sci. Comput. 34 (2012).
        """
        if _xp.is_traced(self.core):
            msg = "recompress: ranks depend on values and cannot be traced; call it outside"
            raise TypeError(msg)
        if tol is not None and ranks is not None:
            msg = "ranks: give ranks or tol, not both"
            raise ValueError(msg)
        wanted = None if ranks is None else rank_list(ranks, self.shape)
        if tol is not None:
            tol = _validate.real_between("tol", tol, 0.0, 1.0)
        with scope(self.core):
            entered = self._enter()
            core, factors = algebra.orthogonalized(entered.arrays[0], entered.arrays[1:])
            core, bases, change = truncated(core, tol=tol, ranks=wanted)
            factors = [q @ u for q, u in zip(factors, bases, strict=True)]
            before = 0.0 if math.isnan(self.error) else self.error
            converged = self.converged and (tol is None or change <= tol)
            return self._leave(
                entered, core, factors, error=before + change * (1.0 + before),
                method="st_hosvd", converged=converged,
            )  # fmt: skip

    def transpose(self, axes: Sequence[int] | None = None) -> Self:
        """Modes in another order, reversed by default."""
        order = permutation(axes, self.ndim)
        with scope(self.core):
            entered = self._enter()
            core = entered.leave(entered.xp.permute_dims(entered.arrays[0], tuple(order)))
            return self._made(core, [self.factors[k] for k in order], **self._known())

    @property
    def T(self) -> Self:
        """Modes in reverse order."""
        return self.transpose()


def rank_list(ranks: Any, shape: Sequence[int]) -> list[int]:
    """A rank for each mode, no larger than the mode."""
    given = [ranks] * len(shape) if not isinstance(ranks, Sequence) else list(ranks)
    if len(given) != len(shape):
        msg = f"ranks: must be a number or one for each of {len(shape)} modes, got {len(given)}"
        raise ValueError(msg)
    return [
        min(_validate.integer(f"ranks[{k}]", r, 1), max(n, 1))
        for k, (r, n) in enumerate(zip(given, shape, strict=True))
    ]


def truncated(
    core: Any, *, tol: float | None, ranks: Sequence[int] | None
) -> tuple[Any, list[Any], float]:
    """Core, orthonormal factors and the relative change, of a dense tensor that entered."""
    xp = _xp.namespace(core)
    norm = algebra.frobenius(xp, core)
    if not math.isfinite(norm):
        msg = "core: the tensor holds NaN or infinity, or overflows"
        raise NonFiniteError(msg)
    # squares stay in range
    scale = norm if norm > 0 else 1.0
    core = core / scale
    if ranks is None and tol is None:
        tol = 16 * float(np.finfo(_xp.dtype_name(core)).eps)
    core, factors, lost = shrunk(core, budget=None if tol is None else tol**2, ranks=ranks)
    return core * scale, factors, math.sqrt(lost)


def shrunk(
    core: Any, *, budget: float | None = None, ranks: Sequence[int] | None = None
) -> tuple[Any, list[Any], float]:
    """Core, orthonormal factors and squared error of a dense tensor of norm one that entered.

    What one round of all modes leaves of the budget may take ranks from the first of them in the
    next. Tails of Gram matrices have the error of their rounding, so that then the error is
    measured, and the rounds are done again without them if it is above the budget.
    """
    if ranks is not None:
        found = _unfold.st_hosvd(core, ranks=possible(ranks, core.shape))
        return found.core, list(found.factors), _measured(core, found)
    assert budget is not None
    for method in ("auto", "lq"):
        found = _rounds(core, budget, method)
        lost = _measured(core, found)
        if lost <= budget:
            break
    return found.core, list(found.factors), lost


def _rounds(core: Any, budget: float, method: str) -> _unfold.Truncated:
    found = _unfold.st_hosvd(core, budget=budget, method=method)
    while True:
        left = max(budget - found.squared_error, 0.0)
        more = _unfold.st_hosvd(found.core, budget=left, method=method)
        if more.core.shape == found.core.shape:
            return found
        factors = tuple(f @ g for f, g in zip(found.factors, more.factors, strict=True))
        lost = found.squared_error + more.squared_error
        found = _unfold.Truncated(more.core, factors, lost, found.methods + more.methods)


def _measured(core: Any, found: _unfold.Truncated) -> float:
    """Squared error."""
    if "gram" not in found.methods:
        return found.squared_error
    return _unfold.squared_residual(core, found.core, found.factors)


def possible(ranks: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Ranks that a tensor of this shape can have: none above the product of the others."""
    found = [min(r, n) for r, n in zip(ranks, shape, strict=True)]
    for k in sorted(range(len(found)), key=found.__getitem__, reverse=True):
        found[k] = min(found[k], math.prod(found[:k]) * math.prod(found[k + 1 :]))
    return found


def explain_tucker_tensor(core: Any, factors: Any, **_: Any) -> Explanation:
    """What all entries of the tensor would cost."""
    x = TuckerTensor(core, factors)
    ranks, flops = list(x.ranks), 0.0
    for k, n in enumerate(x.shape):
        flops += 2.0 * n * math.prod(ranks)
        ranks[k] = n
    name = _xp.dtype_name(x.core)
    itemsize = np.dtype(name).itemsize
    reason = f"the array has {x.compression:.3g} times as many numbers as core and factors"
    flops *= 4.0 if name in _xp.COMPLEX else 1.0
    moved = float(x.nbytes + x.size * itemsize)
    return Explanation("TuckerTensor", "mode products", reason, {}, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Cubes of 6, 64 and 256."""
    n, r = {"small": (6, 2), "medium": (64, 8), "large": (256, 20)}[size]
    rng = np.random.default_rng(rng)
    factors = [xp.asarray(rng.standard_normal((n, r))) for _ in range(3)]
    return (xp.asarray(rng.standard_normal((r, r, r))), factors), {}
