"""What all sketches share: shape, products, slices, growth, pickles, equality."""

import itertools
import operator
import sys
import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.sketch import _inputs, _ops
from linalgk.sketch._accumulator import Accumulator
from linalgk.sketch._philox import LAYOUT, Key, dtype_name, imported, key_of, leave

_DTYPES = ("float32", "float64", "complex64", "complex128")


class Sketch(ABC):
    """A random k x m matrix S that is applied and not stored.

    Its entries are functions of the seed and of their place, so that a part of it, the same
    operator on another device, in another process or for more rows has the same entries. It stands
    in products with NumPy, CuPy, PyTorch, JAX and Dask arrays, SciPy's and CuPy's sparse matrices,
    linear operators and `RowBlocks`: ``S @ a``, ``a @ S.T``, ``S.T @ y``, ``y @ S``. A product has
    the dtype of the data.

    Attributes
    ----------
    shape : tuple
        (k, m); m is None if the number of data rows is not known.
    dtype : dtype
        Of `toarray`; complex Gaussian sketches give complex products.
    key : tuple of int
        The two words that stand for the seed; ``rng=S.key`` makes the same operator.
    layout : int
        Number of the stream's layout, kept by pickles.
    scale : float
        By which the products of signs or normals are multiplied at the end.
    """

    __array_ufunc__ = None
    __array_priority__ = 1e6
    ndim = 2
    # data rows whose sums are kept apart; rows taken at once
    _block = _ops.BLOCK
    _chunk = 8 * _ops.BLOCK
    # parameters besides those of every sketch
    _fields: ClassVar[tuple[str, ...]] = ()
    _random = True
    # whether sparse data are added as they are stored
    _sparse = False
    # whether entries are complex, for which real data need not be
    _complex = False
    # data rows have numbers below it: what NumPy counts with a sign
    _most: ClassVar[float] = 1 << 63

    def __init__(self, k: Any, m: Any, rng: Any, dtype: Any, xp: Any, device: Any) -> None:
        self._k, self._start = k, 0
        self._m = None if m is None else _validate.integer("m", m, 0)
        self._within("m", self._m or 0)
        self._key: Any = key_of(rng) if self._random else Key(0, 0)
        self._dtype = None if dtype is None else _dtype_name(dtype)
        self._xp, self._device = xp, device
        self.layout = LAYOUT
        if m is not None and k > m:
            warnings.warn(
                f"{type(self).__name__}: k = {k} rows for m = {m} data rows is no reduction",
                # of the caller, however many constructors call each other
                stacklevel=1 + sum("__init__" in c.__dict__ for c in type(self).__mro__[:-1]),
            )
        _register(type(self))

    # --- What a family has to say --------------------------------------------------------------

    @property
    @abstractmethod
    def scale(self) -> float:
        """Factor of the products, applied last."""

    @abstractmethod
    def _add(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        """``total`` plus the rows a that stand at ``offset``, times the scale if finished."""

    @abstractmethod
    def _gather(self, y: Any) -> Any:
        """The transpose times y (k, n)."""

    @abstractmethod
    def _entries(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        """Entries (rows, cols) from (row, col) on, scaled."""

    def _add_sparse(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        """The same of rows in SciPy's form; here by dense blocks."""
        return _inputs.by_dense_blocks(self, a, offset, total, finish)

    # --- Shape and parts -----------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int | None]:
        """Rows of the sketch and of the data."""
        return self._k, self._m

    @property
    def dtype(self) -> Any:
        """The dtype of `toarray`."""
        return np.dtype(self._dtype or "float64")

    @property
    def key(self) -> Any:
        """The words that stand for the seed."""
        return self._key

    @property
    def T(self) -> "Transpose":
        """The transpose."""
        return Transpose(self, conjugate=False)

    @property
    def H(self) -> "Transpose":
        """The conjugate transpose."""
        return Transpose(self, conjugate=True)

    def _with(self, **changes: Any) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        for name, value in changes.items():
            setattr(other, f"_{name}", value)
        return other

    def __getitem__(self, index: Any) -> Self:
        """``S[:, i0:i1]``: the part that meets the data rows i0 to i1."""
        rows, cols = index if isinstance(index, tuple) and len(index) == 2 else (index, None)
        if rows != slice(None) or not isinstance(cols, slice) or cols.step not in (None, 1):
            msg = "S[...]: sketches have parts S[:, i0:i1]; use S.toarray() for single entries"
            raise TypeError(msg)
        if self._m is None:
            begin = 0 if cols.start is None else operator.index(cols.start)
            end = None if cols.stop is None else operator.index(cols.stop)
            if begin < 0 or (end is not None and end < begin):
                msg = f"S[:, i0:i1]: of an unknown number of rows 0 <= i0 <= i1, got {begin}:{end}"
                raise ValueError(msg)
        else:
            begin, end, _ = cols.indices(self._m)
            end = max(begin, end)
        return self._part(begin, end)

    def _part(self, begin: int, end: int | None) -> Self:
        self._within("S[:, i0:i1]", begin if end is None else end)
        return self._with(start=self._start + begin, m=None if end is None else end - begin)

    def toarray(self, *, xp: Any = None, device: Any = None) -> Any:
        """The matrix (k, m), stored.

        Examples
        --------
        >>> import linalgk as lk
        >>> lk.sketch.CountSketch(2, 3, rng=0).toarray().shape
        (2, 3)
        """
        xp, device = (self._xp if xp is None else xp), (self._device if device is None else device)
        m = self._known("toarray")
        dense = self._entries(np.empty(0, self.dtype), 0, self._k, 0, m)
        return leave(dense, xp, device) if xp in (None, np) else _xp.from_numpy(
            dense, xp, device=device
        )  # fmt: skip

    def tosparse(self) -> Any:
        """The matrix as a `scipy.sparse.csc_array`; for sketches with few nonzeros a column."""
        msg = f"tosparse: {type(self).__name__} is dense; use toarray()"
        raise TypeError(msg)

    def _within(self, name: str, end: int) -> None:
        if self._start + end > self._most:
            msg = f"{name}: data rows must have numbers below 2**63, got {self._start + end}"
            raise ValueError(msg)

    def _known(self, name: str) -> int:
        if self._m is None:
            msg = f"{name}: the number of data rows m is not known; take a part S[:, :m]"
            raise ValueError(msg)
        return self._m

    def grow(self, k: int, /) -> Self:
        """The sketch with k rows, of which the first are those it has, before the common scale."""
        msg = f"grow: a {type(self).__name__} cannot grow; make one with k = {k}"
        raise TypeError(msg)

    def _larger(self, k: int) -> int:
        k = _validate.integer("k", k, 1)
        if k < self._k:
            msg = f"grow: k = {k} is less than the {self._k} rows there are"
            raise ValueError(msg)
        return k

    # --- Products --------------------------------------------------------------------------------

    def __matmul__(self, a: Any) -> Any:
        """``S @ a`` for data (..., m, n), vectors (m,), sparse matrices, operators, blocks."""
        return _inputs.product(self, a)

    def __rmatmul__(self, a: Any) -> Any:
        """``a @ S``."""
        return _inputs.transposed(self.T @ _inputs.transposed(a))

    def matmat(self, a: Any) -> Any:
        """``S @ a``."""
        return self @ a

    matvec = dot = matmat

    def rmatmat(self, y: Any) -> Any:
        """``S.H @ y``."""
        return self.H @ y

    rmatvec = rmatmat

    def _apply(self, a: Any) -> Any:
        """The sketch of all rows a (m, n)."""
        total, m = None, a.shape[0]
        for begin, end in self._pieces(m):
            rows = _inputs.rows_of(self, a[begin:end, :])
            total = self._add(rows, begin, total, end == m)
        return self._add(_inputs.rows_of(self, a), 0, None, True) if total is None else total

    def _pieces(self, m: int, chunks: int = 1) -> list[tuple[int, int]]:
        """Ranges of data rows that end where so many chunks do."""
        step = max(chunks * self._chunk, self._block)
        first = -(-(self._start + 1) // step) * step - self._start
        ends = [0, *range(min(first, m), m, step), m] if m else []
        return list(itertools.pairwise(ends))

    def accumulator(self, d: int | None = None, /, *, dtype: Any = None) -> Accumulator:
        """A sum over blocks of rows that come in any order, from anywhere.

        Parameters
        ----------
        d : int, optional
            Columns of the data; None for a vector.
        dtype : dtype, optional
            Of the sums, else that of the first block; blocks that would lose by it are refused.

        Returns
        -------
        Accumulator
            ``update(block, offset=)``, ``+=`` and ``result()``, whose bits are those of the
            product with all rows at once.
        """
        return Accumulator(self, d, None if dtype is None else _dtype_name(dtype))

    def to_scipy(self) -> Any:
        """The same as a `scipy.sparse.linalg.LinearOperator`."""
        from scipy.sparse.linalg import LinearOperator

        shape = (self._k, self._known("to_scipy"))
        return LinearOperator(
            shape, dtype=self.dtype, matvec=self.matvec, rmatvec=self.rmatvec, matmat=self.matmat,
            rmatmat=self.rmatmat,
        )  # fmt: skip

    def explain(self, a: Any, /) -> Explanation:
        """What ``S @ a`` would run, why, and its cost."""
        return _inputs.explain(self, a)

    # what `explain` tells: the primitive, flops for n columns of m rows
    _op: Any = None
    _sparse_op: Any = None

    def _flops(self, m: int, n: int) -> float:
        return 2.0 * float(self._k) * m * n

    # --- Identity --------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        names = ("k", "m", "start", "dtype", *self._fields)
        return {"layout": self.layout} | {name: getattr(self, f"_{name}") for name in names}

    def __getstate__(self) -> dict[str, Any]:
        """Plain numbers and names."""
        xp = getattr(self._xp, "__name__", None)
        key = tuple(int(x) for x in self._key)
        return self._state() | {"key": key, "xp": xp, "device": str(self._device or "")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        self.layout = state.pop("layout")
        if self.layout != LAYOUT:
            msg = f"pickle: has layout {self.layout} of the stream; this release makes {LAYOUT}"
            raise ValueError(msg)
        xp, device = state.pop("xp"), state.pop("device")
        self._key = Key(*state.pop("key"))
        self._xp, self._device = imported(xp), device or None
        for name, value in state.items():
            setattr(self, f"_{name}", value)
        _register(type(self))

    def __eq__(self, other: object) -> bool:
        """Whether all entries are the same by construction."""
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Sketch)
        return (tuple(self._key), self._state()) == (tuple(other._key), other._state())

    def __hash__(self) -> int:
        return hash((type(self), self._key, self._k, self._m, self._start))

    def __repr__(self) -> str:
        """The call, with the key."""
        more = "".join(f", {name}={getattr(self, '_' + name)!r}" for name in self._fields)
        start = f", start={self._start}" if self._start else ""
        return f"{type(self).__name__}({self._k}, {self._m}{more}{start}, key={tuple(self._key)})"


class Transpose:
    """The transpose, or conjugate transpose, of a sketch: (m, k)."""

    __array_ufunc__ = None
    __array_priority__ = 1e6
    ndim = 2

    def __init__(self, sketch: Sketch, *, conjugate: bool) -> None:
        self._sketch = sketch
        # of a real matrix there is one transpose
        self._conjugate = conjugate and sketch._complex

    @property
    def shape(self) -> tuple[int | None, int]:
        """Rows of the data and of the sketch."""
        k, m = self._sketch.shape
        return m, k

    @property
    def dtype(self) -> Any:
        """The dtype of `toarray`."""
        return self._sketch.dtype

    @property
    def T(self) -> Any:
        """The sketch, conjugated for a conjugate transpose."""
        if self._conjugate:
            msg = "S.H.T: write xp.conj(S @ xp.conj(a)) for the conjugate of a complex sketch"
            raise TypeError(msg)
        return self._sketch

    @property
    def H(self) -> Any:
        """The sketch; of a complex transpose that is not conjugated there is none."""
        if self._sketch._complex and not self._conjugate:
            msg = "S.T.H: write xp.conj(S @ xp.conj(a)) for the conjugate of a complex sketch"
            raise TypeError(msg)
        return self._sketch

    def toarray(self, *, xp: Any = None, device: Any = None) -> Any:
        """The matrix (m, k), stored."""
        dense = self._sketch.toarray(xp=xp, device=device).T
        return _inputs.conjugated(dense) if self._conjugate else dense

    def __matmul__(self, y: Any) -> Any:
        """``S.T @ y`` for y (..., k, n) or (k,)."""
        return _inputs.gathered(self._sketch, y, conjugate=self._conjugate)

    def __rmatmul__(self, a: Any) -> Any:
        """``a @ S.T`` for data (..., n, m) or (m,)."""
        if not self._conjugate:
            return _inputs.transposed(self._sketch @ _inputs.transposed(a))
        turned = _inputs.conjugated(_inputs.transposed(a))
        return _inputs.conjugated(_inputs.transposed(self._sketch @ turned))

    def __repr__(self) -> str:
        """The sketch, transposed."""
        return f"{self._sketch!r}.{'H' if self._conjugate else 'T'}"


def size(k: Any, name: str = "k") -> int:
    """A number of rows."""
    return _validate.integer(name, k, 1)


def few(k: int) -> int:
    """A number of rows that leaves a bit of a word for a sign."""
    if k >= 1 << 31:
        msg = f"k: must be below 2**31, got {k}"
        raise ValueError(msg)
    return k


def threads() -> int:
    """Threads of the context."""
    return _config.num_threads()


def _dtype_name(dtype: Any) -> str:
    return str(_validate.choice("dtype", dtype_name(dtype), _DTYPES))


def _register(kind: type) -> None:
    """Let JAX, if it is there, take sketches apart."""
    if "jax" in sys.modules:
        from linalgk.interop import _jax_sketch

        _jax_sketch.register(kind)
