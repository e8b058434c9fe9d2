"""One matrix by its products: dense, sparse or an operator, in the words of its library."""

import math
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import Given, enter, is_cupyx, is_sparse
from linalgk.sketch import Philox, Sketch

# Entries that are looked at at once.
_BLOCK = 1 << 20


class Matrix:
    """A matrix (m, n) that answers products, whatever holds it.

    Attributes
    ----------
    a : array, sparse matrix or operator
    kind : {"dense", "sparse", "operator"}
    shape, dtype : tuple of int, str
    xp : namespace of dense vectors that meet it
    like : array, shape (0,)
        Of that library, device and dtype.
    passes : int
        How often all of it was read.
    """

    def __init__(self, a: Any, kind: str, dtype: str, like: Any) -> None:
        self.a, self.kind, self.dtype, self.like = a, kind, dtype, like
        self.shape = int(a.shape[0]), int(a.shape[1])
        self.xp = _xp.namespace(like)
        self.passes = 0
        self._norm: float | None = None

    @property
    def eps(self) -> float:
        """Unit of rounding, 2u."""
        return float(np.finfo(self.dtype).eps)

    @property
    def is_complex(self) -> bool:
        """Whether entries are complex."""
        return self.dtype in _xp.COMPLEX

    # NaN and infinities that come of it are the callers' to report
    @np.errstate(over="ignore", invalid="ignore")
    def matmat(self, x: Any) -> Any:
        """``A x`` for x (n, k) or (n,)."""
        self.passes += 1
        if self.kind == "operator":
            return _operator_product(self.a, x, self.dtype)
        return self.a @ x

    @np.errstate(over="ignore", invalid="ignore")
    def rmatmat(self, y: Any) -> Any:
        """``A^H y`` for y (m, k) or (m,)."""
        self.passes += 1
        if self.kind == "operator":
            return _operator_adjoint(self.a, y, self.dtype)
        turned = self.a.T if self.a.ndim == 2 else self.xp.matrix_transpose(self.a)
        if not self.is_complex:
            return turned @ y
        # the small factor is conjugated, not the matrix
        return self.xp.conj(turned @ self.xp.conj(y))

    def sketched(self, s: Sketch) -> Any:
        """``S A`` (k, n)."""
        self.passes += 1
        if self.kind == "operator" and self.xp is not np:
            # sketches give an operator panels of the host
            back = _operator_adjoint(self.a, self._panel(s), self.dtype)
            return self.xp.conj(back.T) if self.is_complex else back.T
        return s @ self.a

    def sketched_rows(self, s: Sketch) -> Any:
        """``A S^T`` (m, k) for a real S of n columns."""
        self.passes += 1
        if self.kind == "operator":
            return _operator_product(self.a, self._panel(s), self.dtype)
        product = s @ self.a.T
        return product.T

    def rows(self, index: Any) -> Any:
        """Rows as a dense array (k, n)."""
        index = np.asarray(index)
        if self.kind == "operator":
            return self.xp.conj(self.rmatmat(self._units(self.shape[0], index)).T)
        if self.kind == "sparse":
            return self.a[index, :].toarray()
        return self.xp.take(self.a, _xp.from_numpy(index, self.xp, like=self.like), axis=0)

    def columns(self, index: Any) -> Any:
        """Columns as a dense array (m, k)."""
        index = np.asarray(index)
        if self.kind == "operator":
            return self.matmat(self._units(self.shape[1], index))
        if self.kind == "sparse":
            return self.a[:, index].toarray()
        return self.xp.take(self.a, _xp.from_numpy(index, self.xp, like=self.like), axis=1)

    def toarray(self) -> Any:
        """All of it, dense."""
        if self.kind == "dense":
            return self.a
        if self.kind == "sparse":
            return self.a.toarray()
        return self.matmat(self._units(self.shape[1], np.arange(self.shape[1])))

    def _panel(self, s: Sketch) -> Any:
        """``S^T`` (m, k), stored."""
        panel = s.T.toarray(xp=np).astype(self.dtype, copy=False)
        return _xp.from_numpy(panel, self.xp, like=self.like)

    def _units(self, size: int, index: Any) -> Any:
        units = np.zeros((size, len(index)), self.dtype)
        units[index, np.arange(len(index))] = 1
        return _xp.from_numpy(units, self.xp, like=self.like)

    @property
    def norm(self) -> float:
        """Frobenius norm; NaN of an operator, infinite or NaN where entries are."""
        if self._norm is None:
            self._norm = math.nan
            if self.kind == "sparse":
                self._norm = norm(self.a.data)
            elif self.kind == "dense":
                self.passes += 1
                self._norm = norm(self.a)
        return self._norm

    @property
    def H(self) -> "Matrix":
        """The adjoint, by the same products."""
        return _Adjoint(self)

    def normals(self, source: Philox, rows: int, count: int) -> Any:
        """Standard normal numbers (rows, count), real, in this library."""
        real = _xp.REAL[self.dtype]
        x = np.reshape(source.normal(rows * count), (rows, count)).astype(real, copy=False)
        return _xp.from_numpy(x, self.xp, like=self.like)


class _Adjoint(Matrix):
    """Products with the adjoint; counts what the matrix counts."""

    def __init__(self, of: Matrix) -> None:
        self.of = of
        self.a, self.kind, self.dtype, self.like = of.a, of.kind, of.dtype, of.like
        self.shape = of.shape[1], of.shape[0]
        self.xp = of.xp

    @property
    def passes(self) -> int:  # type: ignore[override]
        return self.of.passes

    @property
    def norm(self) -> float:
        return self.of.norm

    @property
    def H(self) -> Matrix:
        return self.of

    def matmat(self, x: Any) -> Any:
        return self.of.rmatmat(x)

    def rmatmat(self, y: Any) -> Any:
        return self.of.matmat(y)

    def sketched(self, s: Sketch) -> Any:
        x = self.of.sketched_rows(s).T
        return self.xp.conj(x) if self.is_complex else x

    def sketched_rows(self, s: Sketch) -> Any:
        x = self.of.sketched(s).T
        return self.xp.conj(x) if self.is_complex else x

    def rows(self, index: Any) -> Any:
        x = self.of.columns(index).T
        return self.xp.conj(x) if self.is_complex else x

    def columns(self, index: Any) -> Any:
        x = self.of.rows(index).T
        return self.xp.conj(x) if self.is_complex else x

    def toarray(self) -> Any:
        x = self.of.toarray().T
        return self.xp.conj(x) if self.is_complex else x


def norm(a: Any) -> float:
    """Frobenius norm of an array, by blocks, without overflow."""
    xp = _xp.namespace(a)
    total = _squares(xp, a)
    if math.isfinite(total) and total > 1e-280 and _xp.dtype_name(a) in ("float64", "complex128"):
        return math.sqrt(total)
    if math.isfinite(total) and total > 1e-30:
        return math.sqrt(total)
    top = float(xp.max(xp.abs(a))) if math.prod(a.shape) else 0.0
    if top == 0 or not math.isfinite(top):
        return top
    scale = math.ldexp(1.0, -math.frexp(top)[1])
    return math.sqrt(_squares(xp, a * scale)) / scale


def _squares(xp: Any, a: Any) -> float:
    if not math.prod(a.shape):
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        if xp is np:
            # nrm2's cousin: no temporary
            flat = a.ravel(order="K")
            return sum(
                float(np.vdot(x, x).real)
                for x in (flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK))
            )
        size = xp.abs(a)
        return float(xp.sum(size * size))


def _operator_product(a: Any, x: Any, dtype: str) -> Any:
    y = a.matmat(x) if x.ndim == 2 and hasattr(a, "matmat") else a @ x
    return y if not isinstance(y, np.ndarray) else y.astype(dtype, copy=False)


def _operator_adjoint(a: Any, y: Any, dtype: str) -> Any:
    if hasattr(a, "rmatmat") and hasattr(a, "rmatvec"):
        x = a.rmatmat(y) if y.ndim == 2 else a.rmatvec(y)
    else:
        x = a.H @ y
    return x if not isinstance(x, np.ndarray) else x.astype(dtype, copy=False)


def given(function: str, a: Any, *, check_adjoint: bool = False, name: str = "a") -> Given:
    """What the functions of this room take: dense with a batch, sparse, or an operator."""
    found = enter(function, a, sparse=True, operator=True, host=True, name=name)
    if check_adjoint:
        for member in members(found):
            _check_adjoint(member, name)
    return found


def members(given: Given) -> list[Matrix]:
    """The matrices of a batch."""
    if given.sparse:
        return [Matrix(given.flat, "sparse", given.dtype, given.flat.data[:0])]
    if given.operator:
        return [Matrix(given.flat, "operator", given.dtype, vectors_of(given))]
    like = given.flat.reshape(-1)[:0] if isinstance(given.flat, np.ndarray) else _none(given.flat)
    return [
        Matrix(given.flat[i, :, :], "dense", given.dtype, like)
        for i in range(math.prod(given.batch))
    ]


def vectors_of(given: Given) -> Any:
    """An empty vector of the library that an operator multiplies."""
    like = np.empty(0, given.dtype)
    if type(given.flat).__module__.startswith("cupyx"):
        return _xp.from_numpy(like, _xp.cupy())
    return like


def _none(flat: Any) -> Any:
    return _xp.namespace(flat).reshape(flat, (-1,))[:0]


def _check_adjoint(a: Matrix, name: str) -> None:
    """``<A x, y> = <x, A^H y>`` for random x and y, to rounding."""
    source = Philox(0)
    x, y = (a.normals(source.spawn(1 + i), size, 1) for i, size in enumerate(reversed(a.shape)))
    x, y = (a.xp.astype(v, _xp.dtype_of(a.xp, a.dtype)) for v in (x, y))
    if a.is_complex:
        x = x * (1 + 1j)
    ax, ay = a.matmat(x), a.rmatmat(y)
    left = complex(a.xp.sum(a.xp.conj(y) * ax))
    right = complex(a.xp.sum(a.xp.conj(ay) * x))
    size = max(norm(ax) * norm(y), norm(ay) * norm(x))
    if not abs(left - right) <= max(a.shape) * 8 * a.eps * size:
        msg = (
            f"{name}: the adjoint is not that of the product: <y, A x> = {left:.6g} and "
            f"<A^H y, x> = {right:.6g} for random x and y; correct rmatmat"
        )
        raise ValueError(msg)


__all__ = ["Matrix", "given", "is_cupyx", "is_sparse", "members", "norm", "vectors_of"]
