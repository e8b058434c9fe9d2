"""Eigenvalues and singular values of a Kronecker product, all or the largest, and its norms."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import _leading, _modes
from linalgk.kronecker._factored import Factored
from linalgk.kronecker._linear import Linear


class Eigh(NamedTuple):
    """Eigenvalues, and eigenvectors in columns: an array, or an operator where all are wanted."""

    eigenvalues: Any
    eigenvectors: Any


class Svd(NamedTuple):
    """``K = U diag(S) Vh``; U and Vh are arrays, or operators where all are asked for."""

    U: Any
    S: Any
    Vh: Any


class LeastSquares(NamedTuple):
    """Solution of a least squares problem, as NumPy has it."""

    x: Any
    residuals: Any
    rank: Any
    s: Any


class Sorted(Linear):
    """A Kronecker product whose columns, or rows, are in another order.

    Attributes
    ----------
    factors : tuple of array, shape (..., p_i, q_i)
    order : array of int, shape (..., R)
        NumPy's: the column (row) of the product that stands at each place.
    """

    def __init__(self, factors: Sequence[Any], order: Any, *, rows: bool = False) -> None:
        self.factors, self.order, self._rows = tuple(factors), order, rows
        self._cache: dict[Any, Any] = {}

    def _parts(self) -> dict[str, Any]:
        return {f"factors[{i}]": f for i, f in enumerate(self.factors)}

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        return type(self)([f(x) for x in self.factors], self.order, rows=self._rows)

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows, columns = (tuple(int(f.shape[axis]) for f in self.factors) for axis in (-2, -1))
        return rows, columns

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the factors together."""
        return np.broadcast_shapes(*(tuple(f.shape[:-2]) for f in self.factors))

    @property
    def T(self) -> Self:
        """The transpose."""
        turned = super().T
        turned._rows = not self._rows
        return turned

    @property
    def H(self) -> Self:
        """The conjugate transpose."""
        turned = super().H
        turned._rows = not self._rows
        return turned

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        axis = -2 if side == "left" else -1
        # the order is met before the factors, or behind them
        if self._rows == (side == "left"):
            return self._taken(_modes.times(parts, x, side), self.order, axis)
        back = np.argsort(self.order, axis=-1)
        return _modes.times(parts, self._taken(x, back, axis), side)

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        from linalgk.kronecker._entries import toarray

        return self._taken(toarray(parts), self.order, -2 if self._rows else -1)

    def _taken(self, x: Any, order: Any, axis: int) -> Any:
        xp = _xp.namespace(x)
        if order.ndim == 1:
            return xp.take(x, _xp.from_numpy(order, xp, like=x), axis=axis)
        other = x.shape[-1 if axis == -2 else -2]
        batch = np.broadcast_shapes(order.shape[:-1], tuple(x.shape[:-2]))
        wide = order[..., :, None] if axis == -2 else order[..., None, :]
        shape = (order.shape[-1], other) if axis == -2 else (other, order.shape[-1])
        index = np.ascontiguousarray(np.broadcast_to(wide, (*batch, *shape)))
        x = xp.broadcast_to(x, (*batch, *x.shape[-2:]))
        return xp.take_along_axis(x, _xp.from_numpy(index, xp, like=x), axis=axis)

    def _options(self) -> tuple[Any, ...]:
        return (self._rows, self.order.shape, self.order.tobytes())

    def __repr__(self) -> str:
        return f"Sorted(shape={self.shape}, dtype={self.dtype})"


class KronPinv(Linear):
    """A pseudoinverse by singular vectors, ``(kron V_i) diag(w) (kron U_i)^H``; see `Kron.pinv`.

    Attributes
    ----------
    left, right : tuple of array
        ``V_i`` and ``U_i^H``.
    weights : array, shape (..., R)
        ``1/sigma``, zero for products of singular values that do not count.
    rank : int, or array of int, shape (...)
        How many count.
    """

    def __init__(self, left: Sequence[Any], weights: Any, right: Sequence[Any], rank: Any) -> None:
        self.left, self.weights, self.right = tuple(left), weights, tuple(right)
        self.rank = rank
        self._cache: dict[Any, Any] = {}

    def _parts(self) -> dict[str, Any]:
        left = {f"left[{i}]": f for i, f in enumerate(self.left)}
        right = {f"right[{i}]": f for i, f in enumerate(self.right)}
        return left | right | {"weights": self.weights}

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        left, right = ([f(x) for x in part] for part in (self.left, self.right))
        return type(self)(left, f(self.weights), right, self.rank)

    def _turned(self, f: Callable[[Any], Any]) -> Self:
        left, right = ([f(x) for x in part] for part in (self.right, self.left))
        return type(self)(left, self.weights, right, self.rank)

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (
            tuple(int(f.shape[-2]) for f in self.left),
            tuple(int(f.shape[-1]) for f in self.right),
        )

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the factors together."""
        return np.broadcast_shapes(*(tuple(f.shape[:-2]) for f in (*self.left, *self.right)))

    @property
    def T(self) -> Self:
        """The transpose."""
        return self._turned(lambda x: _xp.namespace(x).matrix_transpose(x))

    @property
    def H(self) -> Self:
        """The conjugate transpose."""
        return self._turned(lambda x: adjoint(_xp.namespace(x), x))

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        n = len(self.left)
        first, last, weights = parts[n:-1], parts[:n], parts[-1]
        if side == "right":
            first, last, weights = last, first, weights[..., None, :]
        else:
            weights = weights[..., None]
        return _modes.times(last, weights * _modes.times(first, x, side), side)

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        from linalgk.kronecker._entries import toarray

        n = len(self.left)
        left = toarray(parts[:n]) * parts[-1][..., None, :]
        return _modes.times(parts[n:-1], left, "right")

    def __repr__(self) -> str:
        return f"KronPinv(shape={self.shape}, rank={self.rank}, dtype={self.dtype})"


# --- Spectra -------------------------------------------------------------------------------------


def descending(f: Factored) -> tuple[Any, Any]:
    """Singular values (..., R) and the order that sorts them, both NumPy."""
    if "descending" not in f.eigen:
        s = np.asarray(_xp.to_numpy(_modes.outer(f.svd[1])))
        order = np.argsort(-s, axis=-1, kind="stable")
        f.eigen["descending"] = np.take_along_axis(s, order, axis=-1), order
    found: tuple[Any, Any] = f.eigen["descending"]
    return found


def ascending(f: Factored) -> tuple[Any, Any]:
    """Eigenvalues (..., K) of Hermitian factors and the order that sorts them, both NumPy."""
    if "ascending" not in f.eigen:
        w = np.asarray(_xp.to_numpy(f.eigenvalues))
        order = np.argsort(w, axis=-1, kind="stable")
        f.eigen["ascending"] = np.take_along_axis(w, order, axis=-1), order
    found: tuple[Any, Any] = f.eigen["ascending"]
    return found


def leading(f: Factored, lists: Sequence[Any], k: int) -> tuple[Any, list[Any]]:
    """The k largest products (..., k), and for each factor the indices (..., k) that give them."""
    host = [np.asarray(_xp.to_numpy(w)) for w in lists]
    flat = [
        np.broadcast_to(w, (*f.batch, w.shape[-1])).reshape(math.prod(f.batch), w.shape[-1])
        for w in host
    ]
    pairs = [_leading.largest([w[m] for w in flat], k) for m in range(math.prod(f.batch))]
    values = np.array([pair[0] for pair in pairs]).reshape(*f.batch, k)
    values = values.astype(host[0].dtype)
    places = np.array([pair[1] for pair in pairs]).reshape(*f.batch, k, len(host))
    return placed(f, values), [places[..., i] for i in range(len(host))]


def columns(f: Factored, vectors: Sequence[Any], places: Sequence[Any]) -> Any:
    """Columns (..., n, k) of a Kronecker product, each by its column in every factor."""
    xp, found = f.xp, None
    for v, index in zip(vectors, places, strict=True):
        if index.ndim == 1:
            part = xp.take(v, _xp.from_numpy(np.ascontiguousarray(index), xp, like=v), axis=-1)
        else:
            v = xp.broadcast_to(v, (*f.batch, *v.shape[-2:]))
            shape = (*f.batch, v.shape[-2], index.shape[-1])
            wide = np.ascontiguousarray(np.broadcast_to(index[..., None, :], shape))
            part = xp.take_along_axis(v, _xp.from_numpy(wide, xp, like=v), axis=-1)
        if found is None:
            found = part
            continue
        found = found[..., :, None, :] * part[..., None, :, :]
        p, q, k = found.shape[-3:]
        found = xp.reshape(found, (*found.shape[:-3], p * q, k))
    return found


def placed(f: Factored, x: Any) -> Any:
    """A copy of a result of the host, beside the factors."""
    return _xp.from_numpy(np.array(x, order="C"), f.xp, like=f.arrays[0])


def weights(f: Factored, rcond: float) -> tuple[Any, Any]:
    """``1/sigma`` (..., R) of the products that count, and how many (...), NumPy."""
    xp, sigma = f.xp, _modes.outer(f.svd[1])
    if 0 in sigma.shape:
        return sigma, np.zeros(f.batch, np.int64)
    # of subnormal numbers there is no inverse
    tiny = float(np.finfo(f.dtype).tiny)
    top = xp.max(sigma, axis=-1)[..., None]
    kept = (sigma > rcond * top) & (sigma >= tiny)
    one = xp.ones_like(sigma)
    found = xp.where(kept, one / xp.where(kept, sigma, one), xp.zeros_like(sigma))
    count = xp.sum(xp.astype(kept, xp.int64), axis=-1)
    return found, np.asarray(_xp.to_numpy(count))


def default_rcond(f: Factored) -> float:
    """What rounding makes of a zero: each factor's singular values are known to n eps."""
    return f.eps * sum(max(int(n) for n in a.shape[-2:]) for a in f.arrays)


# --- Norms ---------------------------------------------------------------------------------------

ORDERS = (2, -2, "fro", "nuc", 1, math.inf)


def norm(f: Factored, order: Any) -> Any:
    """A norm (...) of the product: the product of those of the factors."""
    if order in (2, -2, "nuc"):
        return _product(_of_values(s, order) for s in f.svd[1])
    return _product(_entrywise(a, order) for a in f.looked.arrays)


def cond(f: Factored, order: Any) -> Any:
    """The condition number (...), infinite of a singular matrix."""
    xp, found = f.xp, []
    for i, a in enumerate(f.looked.arrays):
        if order in (2, -2):
            s = f.svd[1][i]
            high, low = (s[..., 0], s[..., -1]) if order == 2 else (s[..., -1], s[..., 0])
        else:
            inverse = f.inverses[i]
            eye = xp.eye(a.shape[-1], dtype=a.dtype, **_modes.where(a))
            eye = xp.broadcast_to(eye, a.shape)
            x = inverse.solve(eye) if inverse.matrix is None else inverse.matrix
            high, low = _entrywise(a, order), 1 / _safe(_entrywise(x, order))
            bad = _xp.from_numpy(np.asarray(inverse.singular), xp, like=a)
            low = xp.where(bad, xp.zeros_like(low), low)
        zero = low == 0
        ratio = high / xp.where(zero, xp.ones_like(low), low)
        found.append(xp.where(zero, xp.full_like(ratio, math.inf), ratio))
    return _product(found)


def _safe(x: Any) -> Any:
    xp = _xp.namespace(x)
    return xp.where(x == 0, xp.ones_like(x), x)


def _product(items: Any) -> Any:
    found = None
    for x in items:
        found = x if found is None else found * x
    return found


def _of_values(s: Any, order: Any) -> Any:
    xp = _xp.namespace(s)
    if order == "nuc":
        return xp.sum(s, axis=-1)
    if s.shape[-1] == 0:
        return xp.sum(s, axis=-1)
    return s[..., 0] if order == 2 else s[..., -1]


def _entrywise(a: Any, order: Any) -> Any:
    xp = _xp.namespace(a)
    size = xp.abs(a)
    if 0 in a.shape[-2:]:
        return xp.sum(size, axis=(-2, -1))
    if order == "fro":
        # relative to the largest entry, whose square may leave the range of the dtype
        top = xp.max(size, axis=(-2, -1))
        safe = _safe(top)
        return xp.sqrt(xp.sum((size / safe[..., None, None]) ** 2, axis=(-2, -1))) * top
    return xp.max(xp.sum(size, axis=-2 if order == 1 else -1), axis=-1)
