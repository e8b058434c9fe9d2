"""Sparse sketches: a few signs in each column, added and subtracted."""

import math
from abc import abstractmethod
from typing import Any, Self

import numpy as np

from linalgk import _members, _validate, _xp
from linalgk.sketch import _inputs, _ops
from linalgk.sketch._operators import Sketch, few, size, threads
from linalgk.sketch._philox import STACK


class Hashed(Sketch):
    """Columns of ``nnz`` signs, whose places are hashes."""

    _op = _ops.STACK_APPLY
    _sparse_op = _ops.STACK_APPLY_CSC
    _sparse = True
    _nnz = 1

    @abstractmethod
    def _hashes(self, like: Any, offset: int, count: int) -> Any:
        """``row << 1 | negative`` (count, nnz) of the data rows from ``offset`` on."""

    @property
    def nnz(self) -> int:
        """Nonzeros of a column."""
        return self._nnz

    @property
    def scale(self) -> float:
        """``1 / sqrt(nnz)``."""
        return 1 / math.sqrt(self._nnz)

    def _add(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        h = self._hashes(a, offset, a.shape[0])
        first = (self._start + offset) % self._block
        given = (total, finish) if total is not None or not finish else ()
        return _ops.STACK_APPLY(a, h, self._k, first, self.scale, threads(), *given)

    def _add_sparse(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        return add_columns(self, self._hashes, a, offset, total, finish)

    def _gather(self, y: Any) -> Any:
        xp = _xp.namespace(y)
        y = np.ascontiguousarray(y) if xp is np else y
        parts = [
            _ops.STACK_GATHER(y, self._hashes(y, at, end - at), self.scale, threads())
            for at, end in self._pieces(self._known("S.T @ y"))
        ]
        if not parts:
            return _ops.STACK_GATHER(y, self._hashes(y, 0, 0), self.scale, threads())
        return parts[0] if len(parts) == 1 else xp.concat(parts)

    def _entries(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        dense = np.zeros((rows, cols), like.dtype)
        for j, place, sign in _places(self._hashes(np.empty(0), col, cols)):
            inside = (place >= row) & (place < row + rows)
            dense[place[inside] - row, j[inside]] = sign[inside] * self.scale
        return dense

    def tosparse(self) -> Any:
        """The matrix as a `scipy.sparse.csc_array`.

        Examples
        --------
        >>> import linalgk as lk
        >>> lk.sketch.SparseStack(16, 100, rng=0).tosparse().nnz
        800
        """
        m = self._known("tosparse")
        return sparse_columns(self._hashes(np.empty(0), 0, m), self._k, self.scale, self.dtype)

    def _flops(self, m: int, n: int) -> float:
        return 2.0 * self._nnz * m * n


class SparseStack(Hashed):
    r"""Stack of ``nnz`` CountSketches: in each of nnz blocks of rows a column has one sign.

    .. math:: S = \zeta^{-1/2} \begin{bmatrix} S_1 \\ \vdots \\ S_\zeta \end{bmatrix}, \qquad
              (S_t)_{h_t(j), j} = \pm 1

    with the block's row :math:`h_t(j)` and the sign uniform and independent. This is the default:
    applied at the speed of memory, and an oblivious subspace injection with constant nnz [1]_.

    Parameters
    ----------
    k : int
        Rows; rounded up to a multiple of `nnz`, as ``shape`` shows.
    m : int or None
        Data rows; None if their number is not known.
    nnz : int, default 8
        Nonzeros of a column: 8 for least squares, 4 for range finders.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype, xp, device : optional
        Of `toarray`; a dtype also raises that of products.

    Notes
    -----
    ``S @ a`` takes :math:`\zeta m n` additions and reads a once. Bits do not depend on the layout
    of a, on threads, chunks or the device; see `Sketch`. For orthonormal U with d columns and rows
    :math:`u_i`,

    .. math:: E \lVert U^T S^T S U - I \rVert_F^2 = (d^2 + d - 2 \textstyle\sum_i
              \lVert u_i \rVert^4) / k .

    References
    ----------
    .. [1] C. Camano, E. N. Epperly, R. A. Meyer, J. A. Tropp, "Faster linear algebra algorithms
       with structured random matrices", arXiv:2508.21189 (2025).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.random.default_rng(0).standard_normal((10_000, 5))
    >>> S = lk.sketch.SparseStack(200, 10_000, rng=7)
    >>> (S @ a).shape
    (200, 5)
    >>> bool((S[:, 4000:] @ a[4000:] == S[:, 4000:].toarray() @ a[4000:]).all())
    False
    >>> np.allclose(S.tosparse() @ a, S @ a)
    True
    """

    _fields = ("nnz", "buckets")

    def __init__(
        self, k: int, m: int | None = None, *, nnz: int = 8, rng: Any = None, dtype: Any = None,
        xp: Any = None, device: Any = None,
    ) -> None:  # fmt: skip
        k, nnz = size(k), size(nnz, "nnz")
        if k < nnz:
            msg = f"k: must be at least nnz = {nnz}, one row for each block, got {k}"
            raise ValueError(msg)
        self._nnz, self._buckets = nnz, -(-k // nnz)
        super().__init__(few(self._nnz * self._buckets), m, rng, dtype, xp, device)

    def grow(self, k: int, /) -> Self:
        """More blocks of rows: k is rounded up to whole blocks, and nnz grows with it."""
        nnz = -(-self._larger(k) // self._buckets)
        return self._with(k=few(nnz * self._buckets), nnz=nnz)

    def _hashes(self, like: Any, offset: int, count: int) -> Any:
        where = self._start + offset, STACK, self._nnz, self._buckets
        return _ops.STACK_HASHES(like, count, *self._key, *where, threads())


class CountSketch(SparseStack):
    r"""One sign in each column: each data row is added to one row of the result.

    The `SparseStack` with nnz = 1. It needs :math:`k \sim d^2` rows to keep a d-dimensional
    subspace, and more than that in the maximum norm: prefer nnz = 8 unless k is that large.

    Parameters
    ----------
    k : int
        Rows.
    m : int or None
        Data rows; None if their number is not known.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype, xp, device : optional
        Of `toarray`; a dtype also raises that of products.

    References
    ----------
    .. [1] K. L. Clarkson, D. P. Woodruff, "Low-rank approximation and regression in input sparsity
       time", J. ACM 63 (2017).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> S = lk.sketch.CountSketch(4, 10, rng=0)
    >>> abs(S.toarray()).sum(axis=0).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self, k: int, m: int | None = None, *, rng: Any = None, dtype: Any = None, xp: Any = None,
        device: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(k, m, nnz=1, rng=rng, dtype=dtype, xp=xp, device=device)

    def grow(self, k: int, /) -> Self:
        """Refused: with another k all places change."""
        msg = f"grow: a CountSketch cannot grow; make one with k = {k}, or grow a SparseStack"
        raise TypeError(msg)


def _places(h: Any) -> Any:
    """Column by column of the hashes: data rows, where they go, signs."""
    j = np.arange(h.shape[0])
    for column in np.asarray(h).T:
        yield j, (column >> 1).astype(np.int64), 1.0 - 2.0 * (column & 1)


def sparse_columns(h: Any, k: int, scale: float, dtype: Any) -> Any:
    """SciPy's sparse matrix of hashes (m, nnz)."""
    from scipy.sparse import csc_array

    m, nnz = h.shape
    values = (np.where(h & 1, -1.0, 1.0) * scale).astype(dtype).ravel()
    index = np.int32 if m * nnz < 1 << 31 else np.int64
    indptr = np.arange(0, m * nnz + 1, nnz, dtype=index)
    return csc_array((values, (h >> 1).astype(index).ravel(), indptr), shape=(k, m))


def add_columns(s: Any, hashes: Any, a: Any, offset: int, total: Any, finish: bool) -> Any:
    """Rows of a sparse matrix added by columns, entry by entry; what is not NumPy's as blocks."""
    if not _members.is_sparse(a):
        return _inputs.by_dense_blocks(s, a, offset, total, finish)
    a = a.tocsc()
    if not a.has_canonical_format:
        a = a.copy()
        a.sum_duplicates()
    first = (s._start + offset) % s._block
    h = hashes(np.empty(0), offset, a.shape[0])
    values = _validate.floating("a", a.data)
    return _ops.STACK_APPLY_CSC(
        values, a.indices, a.indptr, h, s.shape[0], first, s.scale, threads(), total, finish
    )
