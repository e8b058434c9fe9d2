"""What sums of Kronecker products share: products from both sides, comparison, SciPy's face."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._members import adjoint
from linalgk.errors import NonFiniteError
from linalgk.kronecker import _door
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Problem
from linalgk.typing import AssumeA


class Linear(ABC):
    """A matrix that is known by a few small arrays.

    Attributes
    ----------
    shape : tuple of int
        Of one member.
    batch : tuple of int
        Batch axes of the arrays together.
    dtype : dtype
        What the arrays promote to.
    """

    __array_ufunc__ = None
    __array_priority__ = 1e6
    ndim = 2
    _cache: dict[Any, Any]

    # --- What a family has to say --------------------------------------------------------------

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """The caller's arrays, by the names that errors have for them."""

    @abstractmethod
    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        """The same of other arrays."""

    @property
    @abstractmethod
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Rows and columns of the modes."""

    @abstractmethod
    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        """The product with x (..., n, k), or on the right (..., m, n), of arrays that entered."""

    @abstractmethod
    def _dense(self, parts: tuple[Any, ...]) -> Any:
        """The matrix (..., m, n)."""

    @property
    @abstractmethod
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the arrays together."""

    # --- Shape ---------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Of one member."""
        rows, columns = self._sizes
        return math.prod(rows), math.prod(columns)

    @property
    def dtype(self) -> Any:
        """What the arrays promote to."""
        entered = self._enter()
        x = entered.arrays[0]
        return entered.leave(_xp.namespace(x).reshape(x, (-1,))[:0]).dtype

    def _enter(self, **operands: Any) -> Entered:
        return _door.enter(self._parts() | operands)

    @property
    def T(self) -> Self:
        """The transpose."""
        return self._mapped(lambda x: _namespace(x).matrix_transpose(x) if x.ndim > 1 else x)

    @property
    def H(self) -> Self:
        """The conjugate transpose."""
        return self._mapped(lambda x: adjoint(_namespace(x), x) if x.ndim > 1 else _conjugate(x))

    # --- Products ------------------------------------------------------------------------------

    def __matmul__(self, x: Any) -> Any:
        """``K x`` for x (n,) or (..., n, k)."""
        return self._product(x, "left")

    def __rmatmul__(self, x: Any) -> Any:
        """``x K`` for x (m,) or (..., k, m)."""
        return self._product(x, "right")

    def _product(self, x: Any, side: str) -> Any:
        if _xp.face(x) is None and not isinstance(x, list | tuple):
            return NotImplemented
        left = side == "left"
        x = _xp.as_array("x", x)
        check_sizes("x", x, self._sizes[1 if left else 0], -2 if left else -1)
        with _lag.scope(x), _config.blas_threads():
            entered = self._enter(x=x)
            *parts, x = entered.arrays
            if x.ndim > 1:
                return entered.leave(self._multiplied(tuple(parts), x, side))
            y = self._multiplied(tuple(parts), x[:, None] if left else x[None, :], side)
            return entered.leave(y[..., 0] if left else y[..., 0, :])

    def matmat(self, x: Any) -> Any:
        """``K x``."""
        return self.__matmul__(x)

    matvec = dot = matmat

    def rmatmat(self, y: Any) -> Any:
        """``K^H y``."""
        return self.H @ y

    rmatvec = rmatmat

    def toarray(self) -> Any:
        """The matrix, shape (..., m, n)."""
        entered = self._enter()
        return entered.leave(self._dense(entered.arrays))

    def to_scipy(self) -> Any:
        """The same as a `scipy.sparse.linalg.LinearOperator` of NumPy arrays."""
        from scipy.sparse.linalg import LinearOperator

        if self.batch:
            msg = f"to_scipy: SciPy's operators have no batch, here {self.batch}"
            raise ValueError(msg)
        host = self._mapped(lambda x: np.asarray(_xp.to_numpy(x)))
        turned = host.H
        return LinearOperator(
            host.shape, dtype=host.dtype, matvec=host.matmat, matmat=host.matmat,
            rmatvec=turned.matmat, rmatmat=turned.matmat,
        )  # fmt: skip

    # --- Identity ------------------------------------------------------------------------------

    def _options(self) -> tuple[Any, ...]:
        """What makes two objects of equal arrays differ."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be computed again."""
        return self.__dict__ | {"_cache": {}}

    def __eq__(self, other: object) -> bool:
        """Whether all arrays are equal."""
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Linear)
        if self._options() != other._options():
            return False
        mine, theirs = self._parts(), other._parts()
        return mine.keys() == theirs.keys() and all(_equal(mine[k], theirs[k]) for k in mine)

    def __hash__(self) -> int:
        return hash((type(self), self._sizes, self.batch))

    def __repr__(self) -> str:
        rows, columns = self._sizes
        sizes = ", ".join(f"({p}, {q})" for p, q in zip(rows, columns, strict=True))
        batch = f", batch={self.batch}" if self.batch else ""
        return f"{type(self).__name__}([{sizes}]{batch}, dtype={self.dtype})"


def register(kind: type, arrays: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Let JAX, if it is there, take objects apart by these attributes and put them together again.

    The others, which have to be hashable, are static.
    """
    jax = sys.modules.get("jax")
    if jax is None or kind in _PYTREES:
        return
    _PYTREES.add(kind)

    def parts(k: Any) -> Any:
        return [getattr(k, n) for n in arrays], tuple(getattr(k, n) for n in others)

    def build(static: Any, children: Any) -> Any:
        # not checked: transformations put other things in the place of arrays
        found: Any = object.__new__(kind)
        values = zip((*arrays, *others), (*children, *static), strict=True)
        found.__dict__.update(values, _cache={})
        return found

    jax.tree_util.register_pytree_node(kind, parts, build)


_PYTREES: set[type] = set()


# --- Checks --------------------------------------------------------------------------------------


def check_sizes(name: str, x: Any, sizes: tuple[int, ...], axis: int) -> None:
    """The axis -2 of x, or of a vector its only one, has as many entries as the modes together."""
    total = math.prod(sizes)
    shape = tuple(int(n) for n in x.shape)
    if not shape:
        msg = f"{name}: must be a vector or matrices, got a number"
        raise ValueError(msg)
    got = shape[0] if len(shape) == 1 else shape[axis]
    if got != total:
        what = "entries" if len(shape) == 1 else "rows" if axis == -2 else "columns"
        product = f"{'*'.join(map(str, sizes))} = {total}" if len(sizes) > 1 else f"{total}"
        msg = f"{name}: needs {product} {what}, got {got} in shape {shape}"
        raise ValueError(msg)


def check_batch(name: str, batch: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """What two batches broadcast to."""
    try:
        return np.broadcast_shapes(batch, other)
    except ValueError:
        msg = f"{name}: batch {other} does not broadcast with that of the factors, {batch}"
        raise ValueError(msg) from None


def check_number(name: str, x: Any) -> complex:
    """A finite number, as complex."""
    if isinstance(x, bool) or not isinstance(x, int | float | complex | np.number):
        if _xp.face(x) is None or len(getattr(x, "shape", (1,))):
            msg = f"{name}: must be a number, got {type(x).__name__}"
            raise TypeError(msg)
        x = np.asarray(_xp.to_numpy(x))[()]
    value = complex(x)
    if not np.isfinite(value):
        msg = f"{name}: must be finite, got {x!r}"
        raise ValueError(msg)
    return value


def finite(name: str, x: Any) -> tuple[Any, list[Problem]]:
    """Matrices (..., n, k) with zeros for those that are not finite, and which those are."""
    xp = _xp.namespace(x)
    good = xp.all(xp.isfinite(x), axis=(-2, -1))
    bad = ~np.asarray(_xp.to_numpy(good))
    if not bad.any():
        return x, []
    sentence = f"{name} holds NaN or infinity{{}}; remove them, or pass on_fail='nan'"
    x = xp.where(good[..., None, None], x, xp.zeros_like(x))
    return x, [Problem(NonFiniteError, sentence, bad)]


def check_traced(what: str, *arrays: Any) -> None:
    """Values are looked at, which a trace does not know."""
    if any(_xp.is_traced(x) for x in arrays):
        msg = f"{what} looks at values and cannot be traced; call it outside of jax.jit"
        raise TypeError(msg)


def check_max_iter(x: Any) -> int:
    """A number of steps."""
    return _validate.integer("max_iter", x, 1)


def _namespace(x: Any) -> Any:
    return _xp.namespace(x)


def _conjugate(x: Any) -> Any:
    return _namespace(x).conj(x) if _xp.dtype_name(x) in _xp.COMPLEX else x


def _equal(x: Any, y: Any) -> bool:
    if tuple(x.shape) != tuple(y.shape) or type(x) is not type(y):
        return False
    return bool(_namespace(x).all(x == y))


def kinds_of(assume_a: Any, count: int) -> tuple[Any, ...]:
    """What is known of each factor."""
    kinds = [assume_a] * count if assume_a is None or isinstance(assume_a, str) else list(assume_a)
    if len(kinds) != count:
        msg = f"assume_a: must be one word, or one for each of {count} factors, got {len(kinds)}"
        raise ValueError(msg)
    for kind in kinds:
        if kind is not None:
            _validate.choice("assume_a", kind, get_args(AssumeA))
    return tuple(kinds)


def hosted(entered: Entered) -> Entered:
    """JAX's arrays in the host's memory as NumPy's, which LAPACK and kernels take."""
    if entered.face.family != "jax":
        return entered
    if not all(d.platform == "cpu" for x in entered.arrays for d in x.devices()):
        return entered
    arrays = tuple(np.asarray(x) for x in entered.arrays)
    face = entered.face._replace(leave=_to_jax)
    return entered._replace(arrays=arrays, face=face)


def _to_jax(x: Any, _like: Any) -> Any:
    return sys.modules["jax"].numpy.asarray(x) if isinstance(x, np.ndarray | np.generic) else x


def widened(entered: Entered, number: complex) -> Entered:
    """Complex arrays where a number is."""
    if number.imag == 0 or entered.dtype in _xp.COMPLEX:
        return entered
    name = {"float32": "complex64", "float64": "complex128"}[entered.dtype]
    xp = _xp.namespace(entered.arrays[0])
    wide = _xp.dtype_of(xp, name)
    arrays = tuple(xp.astype(a, wide) for a in entered.arrays)
    return entered._replace(arrays=arrays, dtype=name, stored=name)
