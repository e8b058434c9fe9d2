"""Canonical tensors: sums of outer products of vectors."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Explanation
from linalgk.tensor import _tensor_algebra as algebra
from linalgk.tensor._format import Entered, Format, enter, register, scope
from linalgk.typing import Array


class CanonicalTensor(Format):
    r"""Sum of R outer products, known by its vectors.

    .. math:: X_{i_1 \dots i_d} = \sum_{r=1}^R w_r\, (A_1)_{i_1 r} \cdots (A_d)_{i_d r}

    Parameters
    ----------
    weights : array, shape (R,)
        Real or complex.
    factors : sequence of d arrays, shapes (n_k, R)
        Columns of any length; they need not be independent. Arrays of one library; dtypes promote.

    Attributes
    ----------
    weights, factors
        As given, all in one dtype.
    shape, rank : tuple of int, int
        ``(n_1, ..., n_d)``, and R, the number of terms.

    See Also
    --------
    TuckerTensor : a small core in place of R weights.
    linalgk.tucker : that of a canonical tensor, to a tolerance.

    Notes
    -----
    ``X[index]`` takes integers, slices, ``...`` and one vector of integers as NumPy does; integers
    take their mode away, and a number is left where all are. Two or more arrays of integers are
    points: they broadcast with each other and with the integers, leave no slice, and give an array
    of entries, for ``N R d`` operations.

    ``+``, ``-`` put terms side by side, ``*`` of two multiplies their ranks; numbers are added and
    multiplied too. All are exact.

    Examples
    --------
    >>> import numpy as np
    >>> from linalgk.tensor import CanonicalTensor
    >>> a = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> t = CanonicalTensor([1.0, 1.0], [a, a, a])   # 1 + i j k
    >>> t
    CanonicalTensor(shape=(3, 3, 3), rank=2, dtype=float64)
    >>> t[2, 1, 2]
    5.0
    >>> t[:, 1, 1].toarray()
    array([1., 2., 3.])
    """

    _head_name: ClassVar[str] = "weights"

    def __init__(self, weights: Array, factors: Sequence[Array]) -> None:
        self.weights, self.factors = self._stored(weights, factors)
        register(CanonicalTensor, "weights", ())

    @property
    def rank(self) -> int:
        """Number of terms."""
        return int(self.weights.shape[0])

    def __repr__(self) -> str:
        name = _xp.dtype_name(self.weights)
        return f"CanonicalTensor(shape={self.shape}, rank={self.rank}, dtype={name})"

    # --- Format ----------------------------------------------------------------------------------

    def _check_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        weights, *factors = shapes
        if len(weights) != 1:
            msg = f"weights: must be a vector, got shape {weights}"
            raise ValueError(msg)
        for k, shape in enumerate(factors):
            if len(shape) != 2 or shape[1] != weights[0]:
                msg = (
                    f"factors[{k}]: must have shape (n, {weights[0]}), a column for each weight, "
                    f"got {shape}"
                )
                raise ValueError(msg)

    @staticmethod
    def _dense(arrays: list[Any]) -> Any:
        return algebra.summed(arrays[0], arrays[1:])

    @staticmethod
    def _entries(head: Any, rows: list[Any]) -> Any:
        total = rows[0]
        for row in rows[1:]:
            total = total * row
        return total @ head

    @staticmethod
    def _contracted(head: Any, rows: dict[int, Any]) -> Any:
        for row in rows.values():
            head = head * row
        return head

    @staticmethod
    def _scalar(entered: Entered, head: Any) -> Any:
        return algebra.number(entered.xp.sum(head))

    @staticmethod
    def _sum(a: list[Any], b: list[Any]) -> tuple[Any, list[Any]]:
        xp = _xp.namespace(a[0])
        factors = [xp.concat([f, g], axis=1) for f, g in zip(a[1:], b[1:], strict=True)]
        return xp.concat([a[0], b[0]]), factors

    @staticmethod
    def _hadamard(a: list[Any], b: list[Any]) -> tuple[Any, list[Any]]:
        xp = _xp.namespace(a[0])
        head = xp.reshape(a[0][:, None] * b[0][None, :], (a[0].shape[0] * b[0].shape[0],))
        return head, algebra.row_products(xp, a[1:], b[1:])

    def _constant(self, xp: Any, value: Any) -> Any:
        return xp.reshape(value, (1,))

    # --- Norms -----------------------------------------------------------------------------------

    def norm(self) -> Any:
        """Frobenius norm, from the inner products of the columns.

        Returns
        -------
        norm : float

        Notes
        -----
        ``||X||^2 = w^H (A_1^H A_1 * ... * A_d^H A_d) w``, of columns of length one in double
        precision; ``R^2 (n_1 + ... + n_d)`` operations. Terms that cancel to less than
        ``1e-8 sum |w_r|`` leave no correct digit: `linalgk.tucker` of the tensor has a norm to
        about ``1e-16 sum |w_r|``.
        """
        with scope(self.weights):
            entered = self._enter()
            weights, units = algebra.unit_columns(entered.arrays[0], entered.arrays[1:])
            xp = entered.xp
            if self.rank == 0:
                return 0.0
            top = xp.max(xp.abs(weights))
            top = xp.where(top > 0, top, xp.ones_like(top))
            parts = [weights / top, *units]
            square = xp.abs(algebra.column_inner(parts, parts))
            return algebra.number(top * xp.sqrt(square))

    def inner(self, other: Any) -> Any:
        """Sum of ``conj(self) * other`` over all entries.

        Parameters
        ----------
        other : CanonicalTensor, TuckerTensor or array, shape (n_1, ..., n_d)

        Returns
        -------
        s : float or complex
        """
        return inner(self, other)

    def normalized(self) -> Self:
        """The same tensor with columns of length one, whose lengths are in the weights."""
        with scope(self.weights):
            entered = self._enter()
            xp, dtype = entered.xp, entered.arrays[0].dtype
            weights, units = algebra.unit_columns(entered.arrays[0], entered.arrays[1:])
            factors = [entered.leave(xp.astype(f, dtype)) for f in units]
            return self._made(entered.leave(xp.astype(weights, dtype)), factors)

    def transpose(self, axes: Sequence[int] | None = None) -> Self:
        """Modes in another order, reversed by default."""
        order = permutation(axes, self.ndim)
        return self._made(self.weights, [self.factors[k] for k in order])

    @property
    def T(self) -> Self:
        """Modes in reverse order."""
        return self.transpose()


def permutation(axes: Sequence[int] | None, d: int) -> list[int]:
    """The order of d modes."""
    order = list(range(d))[::-1] if axes is None else [int(a) for a in axes]
    if any(not -d <= a < d for a in order) or sorted(a % d for a in order) != list(range(d)):
        msg = f"axes: must be a permutation of {tuple(range(d))}, got {tuple(order)}"
        raise ValueError(msg)
    return [a % d for a in order]


def inner(a: Format, b: Any) -> Any:
    """``<A, B>`` of any two formats, or of one and a dense array; A is conjugated."""
    if not isinstance(b, Format):
        b = _xp.as_array("other", b)
    a._check_same(b)
    with scope(a._head):
        if isinstance(b, Format):
            entered, mine, theirs = a._pair(b)
        else:
            entered = enter(a._named() | {"other": b})
            mine, theirs = entered.arrays[:-1], entered.arrays[-1]
        if math.prod(a.shape) == 0:
            return algebra.number(entered.xp.zeros((), dtype=entered.arrays[0].dtype))
        return algebra.number(_inner(_kind(a), _kind(b), mine, theirs))


def _kind(x: Any) -> str:
    """``"core"`` of a Tucker tensor, ``"weights"`` of a canonical one, nothing of an array."""
    return x._head_name if isinstance(x, Format) else ""


def _inner(a: str, b: str, mine: Any, theirs: Any) -> Any:
    if a == "core":
        if b == "core":
            return algebra.tucker_inner(mine, theirs)
        if b == "weights":
            return algebra.mixed_inner(mine, theirs)
        return algebra.dense_inner(mine, theirs)
    if b == "core":
        found = algebra.mixed_inner(theirs, mine)
        return algebra.conj(_xp.namespace(mine[0]), found)
    if b == "weights":
        return algebra.column_inner(mine, theirs)
    return algebra.column_dense_inner(mine, theirs)


def explain_canonical_tensor(weights: Any, factors: Any, **_: Any) -> Explanation:
    """What all entries of the tensor would cost."""
    t = CanonicalTensor(weights, factors)
    name = _xp.dtype_name(t.weights)
    reason = f"the array has {t.compression:.3g} times as many numbers as weights and factors"
    flops = 2.0 * t.rank * t.size * (4.0 if name in _xp.COMPLEX else 1.0)
    moved = float(t.nbytes + t.size * np.dtype(name).itemsize)
    return Explanation("CanonicalTensor", "blocks of columns", reason, {}, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Cubes of 6, 64 and 256."""
    n, rank = {"small": (6, 4), "medium": (64, 100), "large": (256, 1000)}[size]
    rng = np.random.default_rng(rng)
    factors = [xp.asarray(rng.standard_normal((n, rank))) for _ in range(3)]
    return (xp.asarray(rng.standard_normal(rank)), factors), {}
