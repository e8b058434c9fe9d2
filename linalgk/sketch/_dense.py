"""Dense sketches, made tile by tile inside the product and never stored."""

import math
from typing import Any, ClassVar, Self

import numpy as np

from linalgk import _config, _members, _xp
from linalgk.sketch import _inputs, _ops
from linalgk.sketch._operators import Sketch, size, threads
from linalgk.sketch._philox import GAUSSIAN, RADEMACHER

_WIDTH = 1 << 10


class _Dense(Sketch):
    """Independent entries of variance 1 / k."""

    _op = _ops.DENSE_APPLY
    _sparse = True
    _normal: ClassVar[bool]
    _tag: ClassVar[int]

    def __init__(
        self, k: int, m: int | None = None, *, rng: Any = None, dtype: Any = None, xp: Any = None,
        device: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(size(k), m, rng, dtype, xp, device)
        if self._complex and not self._normal:
            msg = "dtype: signs are real; use Gaussian(dtype='complex128') for complex entries"
            raise TypeError(msg)

    @property
    def scale(self) -> float:
        """``1 / sqrt(k)``; of complex entries, whose two parts have variance one, 1 / sqrt(2 k)."""
        return 1 / math.sqrt(self._rows)

    @property
    def _complex(self) -> bool:  # type: ignore[override]
        return self._dtype in _xp.COMPLEX

    @property
    def _rows(self) -> int:
        """Real rows: a complex one is a pair."""
        return int(2 * self._k if self._complex else self._k)

    def grow(self, k: int, /) -> Self:
        """More rows; those there are stay, before the scale."""
        return self._with(k=self._larger(k))

    def _add(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        where = self._normal, *self._key, self._start + offset, self._tag
        with _config.serial_blas:
            part = _ops.DENSE_APPLY(a, self._rows, *where, threads())
        return self._joined(part, total, finish)

    def _joined(self, part: Any, total: Any, finish: bool) -> Any:
        if self._complex:
            part = part[0::2, :] + 1j * part[1::2, :]
        total = part if total is None else total + part
        return total * self.scale if finish else total

    def _add_sparse(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        if not _members.is_sparse(a):
            return _inputs.by_dense_blocks(self, a, offset, total, finish)
        a = a.tocsr()
        part = np.zeros((self._rows, a.shape[1]), a.dtype)
        for at in range(0, a.shape[0], _WIDTH):
            rows = a[at : at + _WIDTH]
            tile = self._tile(np.empty(0, a.dtype), 0, self._rows, offset + at, rows.shape[0])
            part += (rows.T @ tile.T).T
        return self._joined(part, total, finish)

    def _tile(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        op = _ops.NORMAL_TILE if self._normal else _ops.SIGN_TILE
        where = row, self._start + col, self._tag
        return op(like, rows, cols, *self._key, *where, threads())

    def _gather(self, y: Any) -> Any:
        xp, m = _xp.namespace(y), self._known("S.T @ y")
        if self._complex:
            # columns of the pairs: Z1^T y + i Z2^T y
            pairs = _ops.zeros(xp, y, (self._rows, 2 * y.shape[1]))
            pairs[0::2, : y.shape[1]] = y
            pairs[1::2, y.shape[1] :] = y
            y = pairs
        where = self._normal, *self._key, self._start, self._tag
        with _config.serial_blas:
            x = _ops.DENSE_GATHER(y, m, *where, threads())
        if self._complex:
            half = x.shape[1] // 2
            x = x[:, :half] + 1j * x[:, half:]
        return x * self.scale

    def _entries(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        if not self._complex:
            # rounded once: the sketch of the identity
            tile = self._tile(like, row, rows, col, cols)
            return tile * tile.dtype.type(self.scale)
        tile = self._tile(like, 2 * row, 2 * rows, col, cols)
        entries = (tile[0::2] + 1j * tile[1::2]) * tile.dtype.type(self.scale)
        return entries.astype(np.result_type(tile.dtype, np.complex64), copy=False)


class Gaussian(_Dense):
    r"""Independent normal entries of variance 1/k.

    The sketch with the sharpest laws: for a k x m operator and orthonormal U with d columns the
    singular values of S U lie within :math:`1 \pm (\sqrt{d/k} + t)` but for a probability of
    :math:`2 e^{-k t^2 / 2}` [1]_. Entries are made tile by tile in cache, multiplied by BLAS and
    forgotten, so that no k x m matrix is ever stored.

    Parameters
    ----------
    k : int
        Rows.
    m : int or None
        Data rows; None if their number is not known.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype : dtype, optional
        Of `toarray`; with a complex one entries are complex normal and products complex.
    xp, device : optional
        Of `toarray`.

    Notes
    -----
    ``S @ a`` takes 2 k m n flops and k m / 2 pairs of normals. Entries have the same bits
    everywhere, products the same but for rounding; on the CPU they do not depend on threads.
    float32 entries are the float64 ones, rounded.

    References
    ----------
    .. [1] K. R. Davidson, S. J. Szarek, "Local operator theory, random matrices and Banach
       spaces", Handbook of the Geometry of Banach Spaces 1 (2001), theorem II.13.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> S = lk.sketch.Gaussian(4, 1_000_000_000, rng=0)  # 32 GB, were it stored
    >>> part = S[:, 999_999_990:]
    >>> (part @ np.ones(10)).shape
    (4,)
    >>> np.allclose(S.grow(8)[:, :5].toarray()[:4] * 2**0.5, S[:, :5].toarray())
    True
    """

    _normal, _tag = True, GAUSSIAN


class Rademacher(_Dense):
    r"""Independent signs times :math:`k^{-1/2}`.

    Like `Gaussian` in all second moments, with bounded entries, 128 of which cost one call of the
    generator.

    Parameters
    ----------
    k : int
        Rows.
    m : int or None
        Data rows; None if their number is not known.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype, xp, device : optional
        Of `toarray`; real.

    Examples
    --------
    >>> import linalgk as lk
    >>> abs(lk.sketch.Rademacher(4, 9, rng=0).toarray()).max()
    np.float64(0.5)
    """

    _normal, _tag = False, RADEMACHER
