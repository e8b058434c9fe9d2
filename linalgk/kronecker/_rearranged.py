"""A matrix rearranged so that Kronecker products have rank one [Van Loan and Pitsianis].

Row ``(i, j)`` of ``R(A)``, a p_1 q_1 x p_2 q_2 matrix, is the block (i, j) of A written as a row:
``R(L kron R) = vec(L) vec(R)^T``. It answers products and is not formed: of an array by strided
views, of a sparse matrix in place of it, of an operator by its columns, of a stream of gradients by
passes. All numbers are in units of ``scale``, a power of two, so that squares stay in range.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import adjoint
from linalgk.errors import NonFiniteError

# Entries of a block whose temporaries stay in a cache.
_BLOCK = 1 << 17
# Entries up to which a rearranged copy costs nothing worth talking about.
SMALL = 1 << 17
# Entries up to which an operator is multiplied by the identity once and for all.
_FORMED = 1 << 24
# Entries of a sparse model that is compared with the matrix entry by entry.
_FILLED = 1 << 22
# Columns up to which a product by columns beats one with a narrow matrix.
_FEW = 2
# Vectors that measure what a stream has beyond the factors.
PROBES = 16


class Term(NamedTuple):
    """``u kron v``: columns vec(L_t) and conj(vec(R_t)), so that R(A) is about ``U V^H``."""

    u: Any  # (m, k)
    v: Any  # (n, k)


class Rearranged(ABC):
    """R(A) by products.

    Attributes
    ----------
    left, right : tuple of int
        Shapes (p_1, q_1) and (p_2, q_2).
    shape : tuple of int
        ``(p_1 q_1, p_2 q_2)``.
    dtype : str
    xp, like : namespace and an array of it
    scale : float
        What entries are divided by.
    passes : int
        How often all of A was read.
    finite : bool
        False where an entry is seen to be NaN or infinite.
    least : float
        The least entry; -infinite where it is not known.
    """

    finite = True
    least = -math.inf

    def __init__(self, left: Any, right: Any, dtype: str, like: Any) -> None:
        self.left, self.right, self.dtype, self.like = left, right, dtype, like
        self.shape = left[0] * left[1], right[0] * right[1]
        self.xp = _xp.namespace(like)
        self.scale, self.passes = 1.0, 0

    @property
    def eps(self) -> float:
        """Unit of rounding, 2u."""
        return float(np.finfo(self.dtype).eps)

    @abstractmethod
    def matmat(self, x: Any) -> Any:
        """``R(A) x / scale`` for x (n, c)."""

    @abstractmethod
    def rmatmat(self, y: Any) -> Any:
        """``R(A)^H y / scale`` for y (m, c)."""

    @abstractmethod
    def squares(self) -> float:
        """``||A||_F^2 / scale^2``."""

    def residual(self, term: Term | None) -> float | None:  # noqa: ARG002
        """``||R(A) - U V^H||_F / scale`` from the entries; None where that costs too much."""
        return None

    def conj(self, x: Any) -> Any:
        """The conjugate where there is one."""
        return self.xp.conj(x) if self.dtype in _xp.COMPLEX else x

    def host(self, x: Any) -> Any:
        """A small array on the host, in double precision."""
        wide = np.complex128 if self.dtype in _xp.COMPLEX else np.float64
        return np.asarray(_xp.to_numpy(x), wide)

    def device(self, x: Any) -> Any:
        """A small array of the host in this library and dtype."""
        return _xp.from_numpy(np.ascontiguousarray(x).astype(self.dtype), self.xp, like=self.like)


def scale_of(top: float) -> float:
    """The power of two by which numbers up to ``top`` are divided."""
    return math.ldexp(1.0, math.frexp(top)[1]) if top > 0 and math.isfinite(top) else 1.0


# --- Arrays --------------------------------------------------------------------------------------


class Dense(Rearranged):
    """Of a matrix in memory, which is read where it lies.

    A block row i of A is a stack of p_2 matrices (q_1, q_2) with rows that BLAS can step through;
    of a tall matrix with few columns the strips (p_1, q_2) of all blocks (., j) are longer.
    """

    def __init__(self, a: Any, left: Any, right: Any) -> None:
        self.turned = isinstance(a, np.ndarray) and a.strides[0] < a.strides[1] and a.shape[1] > 1
        # a Fortran array is the C array of the transpose, whose factors are the transposes
        a = a.T if self.turned else a
        if isinstance(a, np.ndarray) and (min(a.strides) < 0 or a.strides[1] != a.itemsize):
            a = np.ascontiguousarray(a)
        super().__init__(left, right, _xp.dtype_name(a), a)
        (p1, q1), (p2, q2) = (s[::-1] if self.turned else s for s in (left, right))
        self.sizes = p1, p2, q1, q2
        self.blocks = self.xp.reshape(a, (p1, p2, q1, q2))
        self.tall = q1 * q2 < 64 and p1 > 16 * q1
        self.least, top = extent(self.xp, a)
        self.finite = math.isfinite(top)
        self.scale = scale_of(top)
        self.small: Any = None
        if math.prod(self.sizes) <= SMALL:
            self.small = self.formed()

    def formed(self) -> Any:
        """R(A) / scale, a copy."""
        p1, p2, q1, q2 = self.sizes
        order = (2, 0, 3, 1) if self.turned else (0, 2, 1, 3)
        copy = self.xp.permute_dims(self.blocks, order)
        return self.xp.reshape(copy, (p1 * q1, p2 * q2)) * (1 / self.scale)

    def _inward(self, x: Any, shape: tuple[int, int]) -> Any:
        """Columns as matrices of the factor that the stored array has."""
        xp = self.xp
        if self.turned:
            x = xp.permute_dims(xp.reshape(x, (*shape, -1)), (1, 0, 2))
            return xp.reshape(x, (*shape[::-1], -1))
        return xp.reshape(x, (*shape, -1))

    def _outward(self, y: Any) -> Any:
        y = self.xp.permute_dims(y, (1, 0, 2)) if self.turned else y
        return self.xp.reshape(y, (-1, y.shape[-1]))

    def matmat(self, x: Any) -> Any:
        self.passes += 1
        if self.small is not None:
            return self.small @ x
        if 1 < x.shape[1] <= _FEW and self.xp is np:
            return np.concatenate([self._matmat(x[:, i : i + 1]) for i in range(x.shape[1])], 1)
        return self._matmat(x)

    def _matmat(self, x: Any) -> Any:
        xp = self.xp
        x = self._inward(x * (1 / self.scale), self.right)
        if self.tall:
            strips = xp.permute_dims(self.blocks, (2, 1, 0, 3))
            y = xp.permute_dims(xp.sum(xp.matmul(strips, x), axis=1), (1, 0, 2))
            return self._outward(y)
        parts = [
            xp.sum(xp.matmul(self.blocks[i:j, ...], x), axis=1) for i, j in self._ranges(x.shape[2])
        ]
        return self._outward(parts[0] if len(parts) == 1 else xp.concat(parts, axis=0))

    def rmatmat(self, y: Any) -> Any:
        self.passes += 1
        if self.small is not None:
            return adjoint(self.xp, self.small) @ y
        # the narrow factor is conjugated, not the matrix
        y = self.conj(y)
        if 1 < y.shape[1] <= _FEW and self.xp is np:
            x = np.concatenate([self._rmatmat(y[:, i : i + 1]) for i in range(y.shape[1])], 1)
        else:
            x = self._rmatmat(y)
        return self.conj(x)

    def _rmatmat(self, y: Any) -> Any:
        xp = self.xp
        y = self._inward(y * (1 / self.scale), self.left)
        if self.tall:
            strips = xp.permute_dims(self.blocks, (2, 1, 3, 0))
            y = xp.permute_dims(y, (1, 0, 2))
            return self._outward(xp.sum(xp.matmul(strips, y[:, None, ...]), axis=0))
        total: Any = None
        for i, j in self._ranges(y.shape[2]):
            rows = xp.permute_dims(self.blocks[i:j, ...], (0, 1, 3, 2))
            part = xp.sum(xp.matmul(rows, y[i:j, None, ...]), axis=0)
            total = part if total is None else total + part
        return self._outward(total)

    def _ranges(self, columns: int) -> Iterator[tuple[int, int]]:
        """Block rows whose products stay in a cache, on the host."""
        p1, p2, q1, q2 = self.sizes
        step = p1 if self.xp is not np else max(1, _BLOCK // max(1, p2 * max(q1, q2) * columns))
        return ((i, min(i + step, p1)) for i in range(0, p1, step))

    def squares(self) -> float:
        return self._sum(None)

    def residual(self, term: Term | None) -> float:
        self.passes += 1
        return math.sqrt(self._sum(term))

    def _sum(self, term: Term | None) -> float:
        """Squares of the entries of ``A - sum_t L_t kron R_t``, by blocks of rows."""
        xp, total = self.xp, 0.0
        p1, p2, q1, q2 = self.sizes
        step = max(1, _BLOCK * (1 if xp is np else 64) // max(1, p2 * q1 * q2))
        if term is not None:
            u = self._inward(term.u, self.left)
            v = adjoint(xp, xp.reshape(self._inward(term.v, self.right), (p2 * q2, -1)))
        for i in range(0, p1, step):
            j = min(i + step, p1)
            rows = self.blocks[i:j, ...] * (1 / self.scale)
            if term is not None:
                model = xp.reshape(xp.matmul(u[i:j, ...], v), (-1, q1, p2, q2))
                rows = rows - xp.permute_dims(model, (0, 2, 1, 3))
            total += _squares(xp, rows)
        return total


def extent(xp: Any, a: Any) -> tuple[float, float]:
    """The least entry, -infinite of a complex array, and the largest modulus.

    That is NaN or infinite where an entry is, and of a complex array too small by at most 2^(1/2).
    """
    if not math.prod(a.shape):
        return 0.0, 0.0
    complex_ = _xp.dtype_name(a) in _xp.COMPLEX
    parts = [xp.real(a), xp.imag(a)] if complex_ else [a]
    ends = [(float(xp.min(x)), float(xp.max(x))) for x in parts]
    if any(math.isnan(x) for end in ends for x in end):
        return math.nan, math.nan
    top = max(max(high, -low) for low, high in ends)
    return -math.inf if complex_ else ends[0][0], top


def _squares(xp: Any, a: Any) -> float:
    if xp is np:
        flat = a.ravel(order="K")
        wide = flat.astype(np.complex128 if flat.dtype.kind == "c" else np.float64, copy=False)
        return float(np.vdot(wide, wide).real)
    size = xp.abs(a)
    return float(xp.sum(size * size))


# --- Sparse matrices -----------------------------------------------------------------------------


class Sparse(Rearranged):
    """Of a sparse matrix: the same entries at other places."""

    def __init__(self, a: Any, left: Any, right: Any) -> None:
        super().__init__(left, right, _xp.dtype_name(a.data), a.data[:0])
        (p2, q2), (_, q1) = right, left
        # places are found on the host, once
        entries = on_host(a).tocoo()
        rows, columns = (x.astype(np.int64) for x in (entries.row, entries.col))
        places = (rows // p2) * q1 + columns // q2, (rows % p2) * q2 + columns % q2
        self.least, top = extent(np, entries.data)
        self.least = min(self.least, 0.0)
        self.finite = math.isfinite(top)
        self.scale = scale_of(top)
        import scipy.sparse

        # adds up what stands twice at one place
        self.entries = scipy.sparse.csr_matrix(
            (entries.data * (1 / self.scale), places), shape=self.shape
        )
        self.matrix = type(a)(self.entries) if hasattr(a, "get") else self.entries

    def matmat(self, x: Any) -> Any:
        self.passes += 1
        return self.matrix @ x

    def rmatmat(self, y: Any) -> Any:
        self.passes += 1
        return self.conj(self.matrix.T @ self.conj(y))

    def squares(self) -> float:
        return _squares(np, self.entries.data)

    def residual(self, term: Term | None) -> float | None:
        """Where the model has few entries, too."""
        if term is None:
            return math.sqrt(self.squares())
        u, v = (self.host(x) for x in term)
        filled = sum(
            float(np.count_nonzero(u[:, t])) * float(np.count_nonzero(v[:, t]))
            for t in range(u.shape[1])
        )
        if filled > max(_FILLED, 8 * self.entries.nnz):
            return None
        import scipy.sparse

        rest = self.entries
        for t in range(u.shape[1]):
            column, row = (scipy.sparse.csr_matrix(x) for x in (u[:, t : t + 1], v[None, :, t]))
            rest = rest - column @ row.conj()
        return math.sqrt(_squares(np, rest.data))


def on_host(a: Any) -> Any:
    """SciPy's matrix of the same entries."""
    return a.get() if hasattr(a, "get") and hasattr(a, "nnz") else a


# --- Operators -----------------------------------------------------------------------------------


class ByColumns(Rearranged):
    """Of a linear operator: every product asks for all of its columns, a few at a time."""

    def __init__(self, a: Any, left: Any, right: Any, dtype: str, like: Any) -> None:
        super().__init__(left, right, dtype, like)
        self.a = a
        # the first columns say how large entries are
        first = next(self._panels())[1]
        self.scale = scale_of(extent(self.xp, first)[1])

    def _panels(self) -> Iterator[tuple[int, Any]]:
        """Block columns (p_1, p_2 q_2) for j = 0, 1, ..."""
        (p1, q1), (p2, q2) = self.left, self.right
        for j in range(q1):
            units = np.zeros((q1 * q2, q2), self.dtype)
            units[j * q2 : (j + 1) * q2, :] = np.eye(q2)
            panel = columns_of(self.a, _xp.from_numpy(units, self.xp, like=self.like), self.dtype)
            yield j, self.xp.reshape(panel, (p1, p2 * q2))

    def matmat(self, x: Any) -> Any:
        self.passes += 1
        x = x * (1 / self.scale)
        y = self.xp.stack([panel @ x for _, panel in self._panels()], axis=1)
        return self.xp.reshape(y, (self.shape[0], -1))

    def rmatmat(self, y: Any) -> Any:
        self.passes += 1
        (p1, q1), total = self.left, None
        y = self.xp.reshape(self.conj(y) * (1 / self.scale), (p1, q1, -1))
        for j, panel in self._panels():
            part = self.xp.matrix_transpose(panel) @ y[:, j, :]
            total = part if total is None else total + part
        return self.conj(total)

    def squares(self) -> float:
        self.passes += 1
        return sum(_squares(self.xp, panel * (1 / self.scale)) for _, panel in self._panels())

    def residual(self, term: Term | None) -> float:
        self.passes += 1
        total, (p1, q1) = 0.0, self.left
        if term is not None:
            u = self.xp.reshape(term.u, (p1, q1, -1))
            v = adjoint(self.xp, term.v)
        for j, panel in self._panels():
            rest = panel * (1 / self.scale)
            total += _squares(self.xp, rest if term is None else rest - u[:, j, :] @ v)
        return math.sqrt(total)


def columns_of(a: Any, x: Any, dtype: str) -> Any:
    """``A x`` for an operator."""
    y = a.matmat(x) if hasattr(a, "matmat") else a @ x
    return y.astype(dtype, copy=False) if isinstance(y, np.ndarray) else y


def of_operator(a: Any, left: Any, right: Any, dtype: str, like: Any) -> Rearranged:
    """By products with the identity, once where the matrix fits memory well."""
    rows, columns = left[0] * right[0], left[1] * right[1]
    if rows * columns > _FORMED:
        return ByColumns(a, left, right, dtype, like)
    units = _xp.from_numpy(np.eye(columns, dtype=dtype), _xp.namespace(like), like=like)
    return Dense(columns_of(a, units, dtype), left, right)


# --- Streams -------------------------------------------------------------------------------------


class Moments(Rearranged):
    """Of ``sum_t vec(G_t) vec(G_t)^H``: ``R(A) vec(X) = vec(sum_t G_t X G_t^H)``.

    ``vec`` writes rows after one another. One read of the source is one product.
    """

    def __init__(self, source: "Gradients", seed: Callable[[int], Any]) -> None:
        (m, n), first = source.shape, source.first
        super().__init__((m, m), (n, n), source.dtype, first)
        self.source = source
        self.scale = scale_of(extent(self.xp, first)[1]) ** 2
        self._seed = seed
        self._sketch: tuple[Any, Any] | None = None

    def matmat(self, x: Any) -> Any:
        self.passes += 1
        (m, _), (n, _), xp, total = self.left, self.right, self.xp, None
        x = xp.permute_dims(xp.reshape(x * (1 / self.scale), (n, n, -1)), (2, 0, 1))
        for g in self.source:
            g = g[:, None, ...]
            part = xp.sum(xp.matmul(xp.matmul(g, x), adjoint(xp, g)), axis=0)
            total = part if total is None else total + part
        return xp.reshape(xp.permute_dims(total, (1, 2, 0)), (m * m, -1))

    def rmatmat(self, y: Any) -> Any:
        self.passes += 1
        (m, _), (n, _), xp, total = self.left, self.right, self.xp, None
        y = xp.permute_dims(xp.reshape(y * (1 / self.scale), (m, m, -1)), (2, 0, 1))
        for g in self.source:
            g = g[:, None, ...]
            part = xp.sum(xp.matmul(xp.matmul(adjoint(xp, g), y), g), axis=0)
            total = part if total is None else total + part
        return xp.reshape(xp.permute_dims(total, (1, 2, 0)), (n * n, -1))

    def sides(self, probes: int) -> tuple[Any, Any, float]:
        """``sum G G^H``, ``sum G^T conj(G)`` and ``sum ||G||^2``, and a sketch, in one read."""
        self.passes += 1
        xp, unit, z = self.xp, 1 / math.sqrt(self.scale), self._probes(probes)
        left: Any = 0
        right: Any = 0
        image: Any = 0
        for g in self.source:
            g = g * unit
            left = left + xp.sum(xp.matmul(g, adjoint(xp, g)), axis=0)
            right = right + xp.sum(xp.matmul(xp.matrix_transpose(g), self.conj(g)), axis=0)
            image = image + self._imaged(g, z)
        self._sketch = z, image
        return left, right, float(xp.real(xp.linalg.trace(left)))

    def _imaged(self, g: Any, z: Any) -> Any:
        rows = self.xp.reshape(g, (g.shape[0], -1))
        return self.xp.matrix_transpose(rows) @ (self.conj(rows) @ z)

    def _probes(self, count: int) -> Any:
        rows = self.left[0] * self.right[0]
        z = self._seed(rows * count).reshape(rows, count)
        return self.device(z)

    def squares(self) -> float:
        """Estimated, as the residual is."""
        return (self.residual(None) or 0.0) ** 2

    def residual(self, term: Term | None) -> float:
        """Estimated from products with random vectors z: ``E ||B z||^2 = ||B||_F^2``."""
        if self._sketch is None:
            self.sides(PROBES)
        assert self._sketch is not None
        z, image = self._sketch
        (m, _), (n, _), xp = self.left, self.right, self.xp
        if term is not None:
            x = xp.reshape(z, (m, n, -1))
            for t in range(term.u.shape[1]):
                one = xp.reshape(term.u[:, t], (m, m))
                two = xp.reshape(self.conj(term.v[:, t]), (n, n))
                # (L kron R) z = L Z R^T
                y = xp.matmul(xp.matmul(one, xp.permute_dims(x, (2, 0, 1))), two.T)
                image = image - xp.reshape(xp.permute_dims(y, (1, 2, 0)), (m * n, -1))
        return math.sqrt(_squares(xp, image) / z.shape[1])


class Gradients:
    """A source of matrices of one shape, or of stacks of them, that is read once or again.

    Attributes
    ----------
    shape : tuple of int
        (m, n) of one matrix.
    dtype : str
    first : array
        The first stack (b, m, n).
    like : array
        The first item as it came.
    once : bool
        Whether it can be read once only.
    """

    def __init__(self, source: Any, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.once = not callable(source) and iter(source) is source
        self._source = source
        self._kept: Any = self._items()
        try:
            self.like = next(self._kept)
        except StopIteration:
            msg = "a: the stream holds no gradients"
            raise ValueError(msg) from None
        self.dtype = ""
        self.first = self._stack(self.like)
        self.dtype = _xp.dtype_name(self.first)

    def _items(self) -> Iterator[Any]:
        return iter(self._source() if callable(self._source) else self._source)

    def __iter__(self) -> Iterator[Any]:
        """Stacks (b, m, n), entered, in the dtype of the first."""
        items, self._kept = self._kept, None
        if items is not None:
            yield self.first
        elif self.once:
            msg = (
                "a: the iterator has been read; pass a list, or a callable that returns an "
                "iterator, or use method='moments'"
            )
            raise RuntimeError(msg)
        else:
            items = self._items()
        for item in items:
            yield self._stack(item)

    def _stack(self, item: Any) -> Any:
        item = _xp.as_array("a", item)
        if item.ndim < 2 or tuple(item.shape[-2:]) != self.shape:
            msg = (
                f"a: gradients must have shape (..., {self.shape[0]}, {self.shape[1]}) by shapes, "
                f"got {tuple(item.shape)}"
            )
            raise ValueError(msg)
        _xp.same_family(**{"the first gradient": self.like, "another": item})
        face = _xp.face(item)
        assert face is not None
        # JAX compiles every product anew for every shape, and on a CPU its memory can be read
        host = face.family == "jax" and all(d.platform == "cpu" for d in item.devices())
        x = _validate.floating("a", np.asarray(item) if host else face.enter(item))
        xp = _xp.namespace(x)
        x = xp.reshape(x, (math.prod(x.shape[:-2]), *self.shape))
        if not bool(xp.all(xp.isfinite(x))):
            msg = "a: a gradient holds NaN or infinity; leave it out"
            raise NonFiniteError(msg)
        return x if not self.dtype else xp.astype(x, _xp.dtype_of(xp, self.dtype), copy=False)


def is_stream(a: Any) -> bool:
    """Whether it gives gradients one after the other."""
    if isinstance(a, Sequence) and not isinstance(a, str | bytes):
        return any(_xp.face(x) is not None and getattr(x, "ndim", 0) >= 2 for x in a[:1])
    if _xp.face(a) is not None or hasattr(a, "shape"):
        return False
    return callable(a) or (hasattr(a, "__iter__") and not isinstance(a, str | bytes))
