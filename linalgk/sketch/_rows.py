"""Rows chosen and weighted: the operator that samplers return."""

from typing import Any

import numpy as np

from linalgk import _members, _validate, _xp
from linalgk.sketch import _inputs, _ops
from linalgk.sketch._operators import Sketch


class RowSample(Sketch):
    r"""Rows i_1, ..., i_k of the data times weights: :math:`S = \sum_j w_j e_j e_{i_j}^T`.

    Parameters
    ----------
    indices : array_like, shape (k,)
        Data rows, repeated or not.
    weights : array_like, shape (k,), or float
        What they are multiplied by, such as :math:`1 / \sqrt{k p_i}` for rows that were drawn with
        probability :math:`p_i`.
    m : int
        Data rows.
    dtype, xp, device : optional
        Of `toarray`.

    Attributes
    ----------
    indices, weights : array, shape (k,)

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> S = lk.sketch.RowSample([3, 0], [1.0, 2.0], 4)
    >>> S @ np.arange(4.0)
    array([3., 0.])
    """

    _fields = ("indices", "weights")
    _random = False
    _sparse = True

    def __init__(
        self, indices: Any, weights: Any, m: int, /, *, dtype: Any = None, xp: Any = None,
        device: Any = None,
    ) -> None:  # fmt: skip
        m = _validate.integer("m", m, 0)
        found = np.asarray(_xp.to_numpy(_xp.as_array("indices", indices)))
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            msg = f"indices: must be integers of shape (k,), got {found.dtype} {found.shape}"
            raise ValueError(msg)
        if found.size and not 0 <= found.min() <= found.max() < m:
            msg = f"indices: must lie in 0 to {m - 1}, got {found.min()} to {found.max()}"
            raise ValueError(msg)
        given = np.asarray(_xp.to_numpy(_xp.as_array("weights", weights)))
        if given.dtype.kind not in "fiub":
            msg = f"weights: must be real, got dtype {given.dtype}"
            raise TypeError(msg)
        given = given.astype(np.float64)
        if given.shape not in ((), found.shape) or not np.isfinite(given).all():
            msg = f"weights: must be finite, one or {found.size} of them, got shape {given.shape}"
            raise ValueError(msg)
        self._indices = tuple(map(int, found))
        self._weights = tuple(map(float, np.broadcast_to(given, found.shape)))
        super().__init__(found.size, None, None, dtype, xp, device)
        self._m = m

    @property
    def indices(self) -> Any:
        """The data rows."""
        return np.array(self._indices, np.int64)

    @property
    def weights(self) -> Any:
        """What they are multiplied by."""
        return np.array(self._weights)

    @property
    def scale(self) -> float:
        """One: weights differ from row to row."""
        return 1.0

    def _chosen(self, offset: int, count: int) -> tuple[Any, Any]:
        """Result rows that come from these data rows, and which of those."""
        indices = self.indices - self._start - offset
        mine = np.flatnonzero((indices >= 0) & (indices < count))
        return mine, indices[mine]

    def _add(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        del finish
        xp = _xp.namespace(a)
        mine, rows = self._chosen(offset, a.shape[0])
        like = _xp.REAL[_xp.dtype_name(a)]
        weights = _xp.from_numpy(self.weights.astype(like), xp, like=a)
        if total is None and mine.size == self._k:
            return xp.take(a, _xp.from_numpy(rows, xp, like=a), axis=0) * weights[:, None]
        # zeros where the rows of other blocks go
        index = np.full(self._k, a.shape[0])
        index[mine] = rows
        padded = xp.concat([a, _ops.zeros(xp, a, (1, a.shape[1]))])
        part = xp.take(padded, _xp.from_numpy(index, xp, like=a), axis=0) * weights[:, None]
        return part if total is None else total + part

    def _add_sparse(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        if not _members.is_sparse(a):
            return _inputs.by_dense_blocks(self, a, offset, total, finish)
        mine, rows = self._chosen(offset, a.shape[0])
        part = np.zeros((self._k, a.shape[1]), a.dtype)
        part[mine] = a.tocsr()[rows].toarray() * self.weights[mine, None].astype(a.dtype)
        return part if total is None else total + part

    def _gather(self, y: Any) -> Any:
        m = self._known("S.T @ y")
        mine, rows = self._chosen(0, m)
        host = _xp.to_numpy(y)
        out = np.zeros((m, host.shape[1]), host.dtype)
        np.add.at(out, rows, host[mine] * self.weights[mine, None].astype(host.real.dtype))
        return _xp.from_numpy(out, _xp.namespace(y), like=y)

    def _entries(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        mine, found = self._chosen(col, cols)
        dense = np.zeros((self._k, cols), like.dtype)
        dense[mine, found] = self.weights[mine]
        return dense[row : row + rows]

    def tosparse(self) -> Any:
        """The matrix as a `scipy.sparse.csc_array`."""
        from scipy.sparse import csc_array

        m = self._known("tosparse")
        mine, rows = self._chosen(0, m)
        values = self.weights[mine].astype(self.dtype)
        return csc_array((values, (mine, rows)), shape=(self._k, m))

    def __repr__(self) -> str:
        """Some of the rows: there may be many."""
        indices = np.array2string(self.indices, threshold=8, separator=", ")
        start = f", start={self._start}" if self._start else ""
        return f"RowSample({indices}, m={self._m}, k={self._k}{start})"

    def _flops(self, m: int, n: int) -> float:
        return float(min(self._k, m) * n)
