"""What stands beside a sketch: arrays of any library, sparse matrices, operators, blocks, Dask."""

import math
import sys
import warnings
from typing import Any

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import is_cupyx, is_operator, is_sparse
from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.sketch import _blocks, _ops

# What a dense panel of an operator may take, where a linear operator is to be sketched.
_PANEL_BYTES = 1 << 26


def conjugated(x: Any) -> Any:
    """The conjugate of an array or a sparse matrix."""
    if hasattr(x, "conj"):
        return x.conj()
    return x.conjugate() if hasattr(x, "conjugate") else _xp.namespace(x).conj(x)


def transposed(a: Any) -> Any:
    """The matrix transpose; a vector as it is."""
    if isinstance(a, _blocks.RowBlocks):
        msg = "a @ S.T: RowBlocks hold the data rows; write S @ blocks"
        raise TypeError(msg)
    a = a if hasattr(a, "shape") else _xp.as_array("a", a)
    if getattr(a, "ndim", 2) < 2:
        return a
    if getattr(a, "ndim", 2) > 2:
        return a.swapaxes(-1, -2) if hasattr(a, "swapaxes") else a.mT
    return a.T


# infinities that meet are told of by `checked`
@np.errstate(over="ignore", invalid="ignore")
def product(s: Any, a: Any) -> Any:
    """``S @ a``."""
    if not isinstance(s.key, tuple):
        # the key is traced: nothing is known before JAX runs
        return _jax().product(s, _floating(s, sys.modules["jax"].numpy.asarray(a)))
    if isinstance(a, _blocks.RowBlocks):
        return _blocks.sketched(s, a)
    if _blocks.is_dask(a):
        return _blocks.lazily(s, a)
    if is_sparse(a):
        return _sparse(s, a)
    if is_cupyx(a):
        rows_meet(s, a.shape)
        return checked(by_dense_blocks(s, a.tocsr(), 0, None, True))
    mine = _xp.face(a)
    if mine is None and is_operator(a):
        return _of_operator(s, a)
    a = _xp.as_array("a", a)
    mine = _xp.face(a)
    assert mine is not None
    if mine.family == "jax" and _of_jax(a):
        return _jax().product(s, _floating(s, a))
    with _lag.scope(a):
        return left(checked(_dense(s, entered(a))), a)


# infinities that meet are told of by `checked`
@np.errstate(over="ignore", invalid="ignore")
def gathered(s: Any, y: Any, *, conjugate: bool) -> Any:
    """``S.T @ y`` or ``S.H @ y``."""
    m = s._known("S.T @ y")
    if not isinstance(s.key, tuple):
        return _jax().gathered(s, _floating(s, sys.modules["jax"].numpy.asarray(y)), conjugate)
    if is_sparse(y):
        y = y.toarray()
    y = _xp.as_array("y", y)
    mine = _xp.face(y)
    assert mine is not None
    if mine.family == "jax" and _of_jax(y):
        return _jax().gathered(s, _floating(s, y), conjugate)
    with _lag.scope(y):
        return left(checked(_back(s, entered(y), m, conjugate), "S.T @ y: y"), y)


def _back(s: Any, y: Any, m: int, conjugate: bool) -> Any:
    """The transpose times an array that has entered."""
    xp = _xp.namespace(y)
    y = _floating(s, y)
    flat, batch = _matrices(s, y, s.shape[0], "S.T @ y", "y")
    flat = xp.conj(flat) if conjugate else flat
    parts = [s._gather(flat[i, :, :]) for i in range(flat.shape[0])]
    result = _stacked(s, xp, parts, batch, m, y)
    return xp.conj(result) if conjugate else result


def entered(a: Any) -> Any:
    """An array as kernels take it; JAX's, which its face leaves as they are, as NumPy's."""
    mine = _xp.face(a)
    assert mine is not None
    return np.asarray(a) if mine.family == "jax" else mine.enter(a)


def left(result: Any, like: Any) -> Any:
    """A result in the library that `entered` took ``like`` from; as it is if that was no array."""
    mine = _xp.face(like)
    if mine is None:
        return result
    if mine.family == "jax":
        return sys.modules["jax"].numpy.asarray(result)
    return mine.leave(result, like)


def _dense(s: Any, a: Any) -> Any:
    """Of an array that has entered, shape (..., m, n) or (m,)."""
    xp = _xp.namespace(a)
    flat, batch = _matrices(s, a, s.shape[1], "S @ a", "a")
    parts = [s._apply(flat[i, :, :]) for i in range(flat.shape[0])]
    return _stacked(s, xp, parts, batch, s.shape[0], a)


def _matrices(s: Any, a: Any, m: int | None, what: str, name: str) -> tuple[Any, tuple[int, ...]]:
    """As a stack of matrices, and the shape of the stack."""
    if a.ndim == 0:
        msg = f"{what}: {name} must have shape (m,) or (..., m, n), got a number"
        raise ValueError(msg)
    rows = a.shape[-2] if a.ndim > 1 else a.shape[0]
    if m is not None and rows != m:
        shape = tuple(s.shape) if name == "a" else tuple(s.T.shape)
        msg = (
            f"{what}: the operator has shape {shape} and {name} {tuple(a.shape)}; "
            f"{rows} rows meet {m} columns"
        )
        raise ValueError(msg)
    xp = _xp.namespace(a)
    if a.ndim == 1:
        return xp.reshape(a, (1, -1, 1)), ()
    if a.ndim == 2:
        return a[None, :, :], ()
    batch = tuple(a.shape[:-2])
    return xp.reshape(a, (math.prod(batch), *a.shape[-2:])), batch


def _stacked(s: Any, xp: Any, parts: list[Any], batch: tuple[int, ...], rows: int, a: Any) -> Any:
    if a.ndim == 1:
        return parts[0][:, 0]
    if a.ndim == 2:
        return parts[0]
    if not parts:
        none = _ops.zeros(xp, a, (*batch, rows, a.shape[-1]))
        return xp.astype(none, _xp.dtype_of(xp, outcome(s, a)))
    return xp.reshape(xp.stack(parts), (*batch, *parts[0].shape))


def _floating(s: Any, a: Any) -> Any:
    """The data in the dtype that the product will have."""
    a = _validate.floating("a", a)
    dtype = _xp.dtype_name(a)
    if s._dtype is None or s._dtype == dtype:
        return a
    wanted = np.result_type(s._dtype, dtype).name
    # a complex operator computes with real data as they are
    if s._complex and dtype not in _xp.COMPLEX:
        wanted = _xp.REAL[wanted]
    if wanted == dtype:
        return a
    xp = _xp.namespace(a)
    return xp.astype(a, _xp.dtype_of(xp, wanted))


def dtype_in(s: Any, dtype: Any) -> Any:
    """In which dtype data of this one are added."""
    return _floating(s, np.empty(0, dtype)).dtype


def outcome(s: Any, a: Any) -> str:
    """The dtype of a product."""
    dtype = _xp.dtype_name(_floating(s, a))
    return str(np.result_type(dtype, s._dtype).name) if s._complex else dtype


def rows_of(s: Any, a: Any) -> Any:
    """A piece of data as kernels take it: floating, strides of whole elements."""
    a = _floating(s, a)
    if isinstance(a, np.ndarray) and any(step % a.real.itemsize for step in a.strides):
        return np.ascontiguousarray(a)
    return a


def checked(result: Any, what: str = "S @ a: a") -> Any:
    """The result, unless NaN or infinity in the data shows in it."""
    config = _config.current()
    if not config.check_finite or config.on_fail == "nan":
        return result
    xp = _xp.namespace(result)
    if xp is not np and xp.__name__.startswith("jax"):
        return result
    good = xp.isfinite(result)
    if bool(xp.all(good)):
        return result
    host = _xp.to_numpy(good)
    members: list[tuple[int, ...]] = [()]
    if host.ndim > 2:
        members = [tuple(map(int, i)) for i in np.argwhere(~host.all(axis=(-2, -1)))]
    columns: Any = []
    if host.ndim > 1:
        columns = np.flatnonzero(~host.reshape(-1, host.shape[-1]).all(axis=0))
    where = f" in column {columns[0]}" if len(columns) else ""
    where += f" of member {members[0]}" if host.ndim > 2 else ""
    msg = (
        f"{what} holds NaN or infinity, or values too large to add{where}; "
        "config_context(check_finite=False) lets them through"
    )
    if config.on_fail == "raise":
        raise NonFiniteError(msg, tuple(members), result)
    warnings.warn(msg, ConvergenceWarning, stacklevel=5)
    return result


def rows_meet(s: Any, shape: tuple[int, ...]) -> None:
    m = s.shape[1]
    if m is not None and shape[0] != m:
        msg = (
            f"S @ a: the operator has shape {tuple(s.shape)} and a {tuple(shape)}; "
            f"{shape[0]} rows meet {m} columns"
        )
        raise ValueError(msg)


def _sparse(s: Any, a: Any) -> Any:
    rows_meet(s, a.shape)
    if a.ndim == 1:
        return _sparse(s, a.reshape(-1, 1))[:, 0]
    wanted = dtype_in(s, a.dtype)
    a = a if a.dtype == wanted else a.astype(wanted)
    total, m = None, a.shape[0]
    # each piece reads and writes the whole result, which may be larger than sparse data
    pieces = s._pieces(m, chunks=8)
    if len(pieces) > 1:
        a = a.tocsr()
    for begin, end in pieces:
        piece = a if len(pieces) == 1 else a[begin:end]
        total = s._add_sparse(piece, begin, total, end == m)
    if total is None:
        total = s._add(np.zeros((0, a.shape[1]), wanted), 0, None, True)
    return checked(total)


def by_dense_blocks(s: Any, a: Any, offset: int, total: Any, finish: bool) -> Any:
    """Rows of a sparse matrix as dense blocks, one after the other."""
    m, a = a.shape[0], a.tocsr()
    if m == 0:
        return s._add(rows_of(s, a.toarray()), offset, total, finish)
    # a block of the operator, or less where the rows are long
    step = s._block
    begin = 0
    while begin < m:
        end = min(m, ((s._start + offset + begin) // step + 1) * step - s._start - offset)
        rows = rows_of(s, a[begin:end].toarray())
        total = s._add(rows, offset + begin, total, finish and end == m)
        begin = end
    return total


def _of_operator(s: Any, a: Any) -> Any:
    """``(A^H S^H)^H`` by panels of rows of S."""
    rows_meet(s, a.shape)
    m, n = a.shape
    k = s.shape[0]
    data = np.empty(0, getattr(a, "dtype", None) or np.float64)
    dtype = np.dtype(outcome(s, data))
    each = max(1, min(k, _PANEL_BYTES // max(1, m * 8)))
    like = np.empty(0, dtype if s._complex else dtype.type(0).real.dtype)
    result = np.empty((k, n), dtype)
    for row in range(0, k, each):
        rows = min(each, k - row)
        panel = np.conj(s._entries(like, row, rows, 0, m).T)
        back = a.rmatmat(panel) if hasattr(a, "rmatmat") else a.H @ panel
        result[row : row + rows] = np.conj(np.asarray(back).T)
    return checked(result)


def _of_jax(a: Any) -> bool:
    """Whether JAX itself has to compute: values unknown, or on a device of its own."""
    return _xp.is_traced(a) or any(d.platform != "cpu" for d in a.devices())


def _jax() -> Any:
    from linalgk.interop import _jax_sketch

    return _jax_sketch


def _runs(op: Any, like: Any) -> dict[str, str]:
    """The implementation of an operator's primitive for such an array."""
    if op is None:
        return {}
    chosen, why = op.choose(like)
    return {op.name: why if chosen is not None else f"reference: {why}"}


def explain(s: Any, a: Any) -> Explanation:
    """What ``S @ a`` would run."""
    name, k = f"{type(s).__name__} @ a", s.shape[0]
    a = a if hasattr(a, "shape") else _xp.as_array("a", a)
    # what is not known counts as nothing
    shape = [0 if size is None or math.isnan(size) else size for size in a.shape]
    if not shape:
        msg = "S @ a: a must have shape (m,) or (..., m, n), got a number"
        raise ValueError(msg)
    rows = shape[-2] if len(shape) > 1 else shape[0]
    n = math.prod([*shape[:-2], *shape[-1:]]) if len(shape) > 1 else 1
    nbytes = 8.0 * (rows + k) * n
    if isinstance(a, _blocks.RowBlocks) or _blocks.is_dask(a):
        reason = "blocks of rows are sketched one by one and added in ascending order"
        return Explanation(name, "blocks", reason, {}, s._flops(rows, n), nbytes)
    if is_sparse(a) and s._sparse:
        reason = "only stored entries are added"
        runs = _runs(s._sparse_op, np.empty(0, dtype_in(s, a.dtype)))
        return Explanation(name, "sparse", reason, runs, s._flops(a.nnz, 1), 12.0 * a.nnz)
    if is_sparse(a) or is_cupyx(a):
        reason = f"rows are made dense, {s._block} at a time: slower than a dense array"
        return Explanation(name, "dense_blocks", reason, {}, s._flops(rows, n), nbytes)
    mine = _xp.face(a)
    if mine is None and is_operator(a):
        reason = "rows of S are made and given to a.rmatmat, as many at once as 64 MB hold"
        return Explanation(name, "operator", reason, {}, s._flops(rows, n), 8.0 * k * rows)
    if mine is not None and mine.family == "jax" and _of_jax(a):
        reason = "values are traced or on a device of JAX: JAX's own additions"
        return Explanation(name, "jax", reason, {}, s._flops(rows, n), nbytes)
    viewed = mine is not None and mine.family in ("torch", "jax")
    runs = _runs(s._op, np.empty(0, _xp.dtype_name(a)) if viewed else a)
    return Explanation(name, "dense", "an array in memory", runs, s._flops(rows, n), nbytes)
