"""What tensors that are known by factors share: entering, indexing, arithmetic, comparison."""

import contextlib
import math
import numbers
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk.tensor import _indexing
from linalgk.tensor import _tensor_algebra as algebra


class Entered(NamedTuple):
    """Arrays of one dtype as they are computed with."""

    arrays: list[Any]
    face: _xp.Face
    like: Any

    @property
    def xp(self) -> Any:
        """Their namespace."""
        return _xp.namespace(self.arrays[0])

    def leave(self, x: Any) -> Any:
        """An array in the caller's library."""
        return self.face.leave(x, self.like)


def enter(named: dict[str, Any]) -> Entered:
    """Arrays by the names that errors have for them, in the dtype that they promote to."""
    given = {name: _xp.as_array(name, x) for name, x in named.items()}
    like = next(iter(given.values()))
    _xp.same_family(**given)
    face = _xp.face(like)
    assert face is not None
    if face.family == "jax" and not any(map(_xp.is_traced, given.values())):
        face, given = _on_host(face, given)
    found = [_validate.floating(name, face.enter(x)) for name, x in given.items()]
    if len({_xp.dtype_name(x) for x in found}) > 1:
        xp = _xp.namespace(found[0])
        wide = xp.result_type(*found)
        found = [x if x.dtype == wide else xp.astype(x, wide) for x in found]
    return Entered(found, face, like)


def _on_host(face: _xp.Face, given: dict[str, Any]) -> tuple[_xp.Face, dict[str, Any]]:
    """JAX's arrays in the memory of the host as NumPy's: no compilation for each shape."""
    if any(d.platform != "cpu" for x in given.values() for d in x.devices()):
        return face, given
    return face._replace(leave=_to_jax), {name: np.asarray(x) for name, x in given.items()}


def _to_jax(x: Any, _like: Any) -> Any:
    # without a compilation for each shape, which jax.numpy.asarray takes
    return sys.modules["jax"].device_put(x) if isinstance(x, np.ndarray | np.generic) else x


@contextlib.contextmanager
def scope(like: Any) -> Iterator[None]:
    """Where the array is, with the context's threads."""
    with _lag.scope(like), _config.blas_threads():
        yield


class Format(ABC):
    """A head, a core or weights, and a factor (n_k, r_k) for each mode."""

    # array * X comes to us
    __array_ufunc__ = None
    __array_priority__ = 1e6
    _head_name: ClassVar[str]
    _static: ClassVar[tuple[str, ...]] = ()
    factors: tuple[Any, ...]

    def _stored(self, head: Any, factors: Any) -> tuple[Any, tuple[Any, ...]]:
        """Checked arrays of one library and dtype; as they came where that is so already."""
        name = type(self).__name__
        if _xp.face(factors) is not None or not isinstance(factors, Sequence):
            msg = f"factors: {name} needs a list of matrices, got {type(factors).__name__}"
            raise TypeError(msg)
        if not len(factors):
            msg = f"factors: {name} needs at least one"
            raise ValueError(msg)
        named = {self._head_name: head} | {f"factors[{k}]": f for k, f in enumerate(factors)}
        entered = enter(named)
        self._check_shapes([tuple(x.shape) for x in entered.arrays])
        arrays = [
            x if _xp.face(x) is not None and _xp.dtype_name(x) == _xp.dtype_name(y)
            else entered.leave(y)
            for x, y in zip(named.values(), entered.arrays, strict=True)
        ]  # fmt: skip
        return arrays[0], tuple(arrays[1:])

    # --- What a format has to say ----------------------------------------------------------------

    @abstractmethod
    def _check_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        """Raise ValueError unless the factors fit the head."""

    def _made(self, head: Any, factors: Any, **static: Any) -> Self:
        """Another one of these arrays, which have left; nothing known but what is given."""
        kind: Callable[..., Self] = type(self)
        return kind(head, factors, **static)

    @staticmethod
    @abstractmethod
    def _dense(arrays: list[Any]) -> Any:
        """All entries."""

    @staticmethod
    @abstractmethod
    def _entries(head: Any, rows: list[Any]) -> Any:
        """The entries (N,) of rows (N, r_k) of the factors."""

    @staticmethod
    @abstractmethod
    def _contracted(head: Any, rows: dict[int, Any]) -> Any:
        """The head with some modes contracted with a row of their factors."""

    @staticmethod
    @abstractmethod
    def _sum(a: list[Any], b: list[Any]) -> tuple[Any, list[Any]]:
        """Head and factors of the sum."""

    @staticmethod
    @abstractmethod
    def _hadamard(a: list[Any], b: list[Any]) -> tuple[Any, list[Any]]:
        """Head and factors of the product entry by entry."""

    @abstractmethod
    def _constant(self, xp: Any, value: Any) -> Any:
        """The head of rank one with this number."""

    # --- What it is ------------------------------------------------------------------------------

    @property
    def _head(self) -> Any:
        return getattr(self, self._head_name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(int(f.shape[0]) for f in self.factors)

    @property
    def ndim(self) -> int:
        """Number of modes."""
        return len(self.factors)

    @property
    def dtype(self) -> Any:
        """Of the arrays, all of which have the same."""
        return self._head.dtype

    @property
    def size(self) -> int:
        """Number of entries of the tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that are stored."""
        return self._numbers() * np.dtype(_xp.dtype_name(self._head)).itemsize

    @property
    def compression(self) -> float:
        """Entries of the tensor for each number that is stored."""
        return self.size / max(self._numbers(), 1)

    def _numbers(self) -> int:
        return sum(math.prod(x.shape) for x in (self._head, *self.factors))

    def _named(self) -> dict[str, Any]:
        return {self._head_name: self._head} | {
            f"factors[{k}]": f for k, f in enumerate(self.factors)
        }

    def _enter(self) -> Entered:
        return enter(self._named())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __eq__(self, other: object) -> bool:
        """Whether all arrays are equal; equal tensors may be stored as different arrays."""
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Format)
        mine, theirs = (self._head, *self.factors), (other._head, *other.factors)
        return len(mine) == len(theirs) and all(map(_equal, mine, theirs))

    def __hash__(self) -> int:
        return hash((type(self), self.shape, tuple(self._head.shape)))

    # --- Entries ---------------------------------------------------------------------------------

    def toarray(self) -> Any:
        """All entries.

        Returns
        -------
        x : array, shape (n_1, ..., n_d)
            In the library of the factors.
        """
        with scope(self._head):
            entered = self._enter()
            return entered.leave(self._dense(entered.arrays))

    def __getitem__(self, key: Any) -> Any:
        index = _indexing.parse(key, self.shape)
        with scope(self._head):
            entered = self._enter()
            xp, (head, *factors) = entered.xp, entered.arrays
            if index.points:
                places, shape = _indexing.broadcast(index.items)
                rows = [_indexing.rows(xp, f, i) for f, i in zip(factors, places, strict=True)]
                return entered.leave(xp.reshape(self._entries(head, rows), shape))
            fixed, kept = {}, []
            for k, (f, item) in enumerate(zip(factors, index.items, strict=True)):
                if isinstance(item, int):
                    fixed[k] = f[item, :]
                else:
                    kept.append(_indexing.rows(xp, f, item))
            return self._left(entered, self._contracted(head, fixed), kept)

    def _left(self, entered: Entered, head: Any, factors: list[Any], **static: Any) -> Any:
        """What is left of the modes: a tensor, or a number of none."""
        if not factors:
            return self._scalar(entered, head)
        return self._leave(entered, head, factors, **static)

    def _leave(self, entered: Entered, head: Any, factors: list[Any], **static: Any) -> Self:
        return self._made(entered.leave(head), [entered.leave(f) for f in factors], **static)

    @staticmethod
    def _scalar(entered: Entered, head: Any) -> Any:
        return algebra.number(entered.xp.reshape(head, ()))

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Any:
        """Sum over some modes.

        Parameters
        ----------
        axis : int or tuple of int, optional
            Default: all.

        Returns
        -------
        s : number, or a tensor of this format
            Of the modes that are left.
        """
        axes = range(self.ndim) if axis is None else np.atleast_1d(axis).tolist()
        chosen = [self._mode(a) for a in axes]
        with scope(self._head):
            entered = self._enter()
            head, *factors = entered.arrays
            rows = {k: entered.xp.sum(factors[k], axis=0) for k in chosen}
            kept = [f for k, f in enumerate(factors) if k not in rows]
            return self._left(entered, self._contracted(head, rows), kept)

    def _mode(self, mode: Any) -> int:
        if not isinstance(mode, int | np.integer) or not -self.ndim <= mode < self.ndim:
            msg = f"mode: must be an integer in [-{self.ndim}, {self.ndim}), got {mode!r}"
            raise ValueError(msg)
        return int(mode) % self.ndim

    def mode_product(self, matrix: Any, mode: int) -> Any:
        """Product with a matrix, or a vector, in one mode.

        Parameters
        ----------
        matrix : array, shape (p, n_mode) or (n_mode,)
            Not conjugated. A vector takes the mode away.
        mode : int
            Negative from the end.

        Returns
        -------
        y : a tensor of this format, or a number
            ``Y[..., i, ...] = sum_j matrix[i, j] X[..., j, ...]``.
        """
        mode = self._mode(mode)
        matrix = _xp.as_array("matrix", matrix)
        if matrix.ndim not in (1, 2) or matrix.shape[-1] != self.shape[mode]:
            msg = (
                f"matrix: must have shape (p, {self.shape[mode]}) or ({self.shape[mode]},), "
                f"got {tuple(matrix.shape)}"
            )
            raise ValueError(msg)
        with scope(self._head):
            entered = enter(self._named() | {"matrix": matrix})
            head, *factors, matrix = entered.arrays
            if matrix.ndim == 2:
                factors[mode] = matrix @ factors[mode]
                return self._left(entered, head, factors)
            row = matrix @ factors.pop(mode)
            return self._left(entered, self._contracted(head, {mode: row}), factors)

    # --- Changed arrays --------------------------------------------------------------------------

    def _known(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._static}

    def _mapped(self, f: Callable[[Any, Any], Any]) -> Self:
        """The same of other arrays."""
        entered = self._enter()
        head, *factors = (entered.leave(f(entered.xp, x)) for x in entered.arrays)
        return self._made(head, factors, **self._known())

    def conj(self) -> Self:
        """The complex conjugate."""
        return self._mapped(algebra.conj)

    def astype(self, dtype: Any) -> Self:
        """The same tensor with numbers of another type.

        Parameters
        ----------
        dtype : dtype or str
            A floating type; not a real one for complex numbers.
        """
        name = str(dtype).rpartition(".")[2] if not isinstance(dtype, type) else dtype.__name__
        with contextlib.suppress(TypeError):
            name = np.dtype(name.rstrip("'>")).name
        _validate.choice("dtype", name, tuple(_xp.REAL))
        if name not in _xp.COMPLEX and _xp.dtype_name(self._head) in _xp.COMPLEX:
            msg = f"dtype: {name} would drop the imaginary part"
            raise TypeError(msg)
        return self._mapped(lambda xp, x: xp.astype(x, _xp.dtype_of(xp, name)))

    # --- Arithmetic ------------------------------------------------------------------------------

    def __neg__(self) -> Self:
        return self._scaled(-1.0)

    def __add__(self, other: Any) -> Any:
        if _is_number(other):
            other = self._filled(other)
        return self._combined(other, self._sum)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if not isinstance(other, type(self)) and not _is_number(other):
            return NotImplemented
        return self + (-other)

    def __rsub__(self, other: Any) -> Any:
        return NotImplemented if not _is_number(other) else (-self) + other

    def __mul__(self, other: Any) -> Any:
        return self._scaled(other) if _is_number(other) else self._combined(other, self._hadamard)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        return self._scaled(1.0 / _value(other))

    def _combined(self, other: Any, how: Callable[..., tuple[Any, list[Any]]]) -> Any:
        if not isinstance(other, type(self)):
            return NotImplemented
        self._check_same(other)
        with scope(self._head):
            entered, mine, theirs = self._pair(other)
            head, factors = how(mine, theirs)
            return self._left(entered, head, factors)

    def _check_same(self, other: Any) -> None:
        shape = tuple(int(n) for n in other.shape)
        if shape != self.shape:
            msg = f"other: must have shape {self.shape}, got {shape}"
            raise ValueError(msg)

    def _pair(self, other: "Format") -> tuple[Entered, list[Any], list[Any]]:
        """Both as lists of arrays of one dtype."""
        entered = enter(self._named() | {f"other.{k}": x for k, x in other._named().items()})
        at = 1 + self.ndim
        return entered, entered.arrays[:at], entered.arrays[at:]

    def _scaled(self, value: Any) -> Self:
        value = _value(value)
        entered = self._enter()
        head = _widened(entered.xp, entered.arrays[0], value) * value
        return self._made(entered.leave(head), self.factors, **self._known())

    def _filled(self, value: Any) -> Self:
        """The number everywhere."""
        value = _value(value)
        entered = self._enter()
        xp, (head, *factors) = entered.xp, entered.arrays
        factors = [algebra.zeros(xp, (f.shape[0], 1), f) + 1.0 for f in factors]
        one = _widened(xp, xp.ones_like(factors[0][:0, :]), value)
        head = self._constant(xp, xp.sum(one) + value)
        return self._made(entered.leave(head), [entered.leave(f) for f in factors])


def _is_number(x: Any) -> bool:
    if isinstance(x, numbers.Number | np.generic):
        return True
    return _xp.face(x) is not None and x.ndim == 0


def _value(x: Any) -> Any:
    """A number of Python, which does not promote the precision; a traced one stays."""
    if isinstance(x, numbers.Number) and not isinstance(x, np.generic):
        return x
    return algebra.number(x)


def _widened(xp: Any, x: Any, value: Any) -> Any:
    """Complex numbers where the value is."""
    if not isinstance(value, complex) or _xp.dtype_name(x) in _xp.COMPLEX:
        return x
    wide = {"float32": "complex64", "float64": "complex128"}[_xp.dtype_name(x)]
    return xp.astype(x, _xp.dtype_of(xp, wide))


def _equal(x: Any, y: Any) -> bool:
    if type(x) is not type(y) or x.dtype != y.dtype or tuple(x.shape) != tuple(y.shape):
        return False
    return np.array_equal(_xp.to_numpy(x), _xp.to_numpy(y))


def register(kind: type, head: str, static: tuple[str, ...]) -> None:
    """Let JAX, if it is there, take tensors apart and put them together again."""
    jax = sys.modules.get("jax")
    if jax is None or kind in _PYTREES:
        return
    _PYTREES.add(kind)

    def parts(x: Any) -> Any:
        return (getattr(x, head), x.factors), tuple(getattr(x, name) for name in static)

    def build(known: Any, children: Any) -> Any:
        # not checked: transformations put other things in the place of arrays
        found: Any = object.__new__(kind)
        values = zip((head, "factors", *static), (*children, *known), strict=True)
        found.__dict__.update(values)
        return found

    jax.tree_util.register_pytree_node(kind, parts, build)


_PYTREES: set[type] = set()
