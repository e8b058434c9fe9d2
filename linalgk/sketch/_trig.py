"""Sketches by fast transforms: random signs, Hadamard or cosine transform, sampled rows."""

import functools
import math
from typing import Any, Self

import numpy as np

from linalgk import _members, _validate, _xp
from linalgk.sketch import _inputs, _ops
from linalgk.sketch._hadamard_ops import FWHT
from linalgk.sketch._hadamard_ops import SRHT as SRHT_OP
from linalgk.sketch._operators import Sketch, size, threads
from linalgk.sketch._philox import SRHT_OUT, SRHT_ROWS, SRHT_SIGNS, Key

_TILE = 1 << 10


@functools.lru_cache(64)
def permuted(key: Key, n: int, k: int) -> Any:
    """The first k of a random permutation of n: of a larger k the first are the same."""
    w0, w1, _, _ = _ops.philox(np.arange(k), 0, SRHT_ROWS, *key)
    left = np.uint64(n) - np.arange(k, dtype=np.uint64)
    # of 64 random bits times the number left, the high half
    step = (w0 * left + ((w1 * left) >> np.uint64(32))) >> np.uint64(32)
    moved: dict[int, int] = {}
    rows = np.empty(k, np.int64)
    for i, by in enumerate(step.tolist()):
        rows[i] = moved.get(i + by, i + by)
        moved[i + by] = moved.get(i, i)
    rows.flags.writeable = False
    return rows


class _Signed(Sketch):
    """What the transforms share: signs of the data rows."""

    _key: Any

    def _flips(self, like: Any, offset: int, count: int) -> Any:
        """Ones, as uint8, where a data row is negated."""
        where = self._start + offset, SRHT_SIGNS
        signs = _ops.SIGNS(like, count, *self._key, *where, threads())
        xp = _xp.namespace(signs)
        return xp.astype(signs < 0, xp.uint8)


class SRHT(_Signed):
    r"""Subsampled randomized Hadamard transform, block by block.

    .. math:: S = k^{-1/2} \begin{bmatrix} E_1 R H D_1 & E_2 R H D_2 & \cdots \end{bmatrix}

    with the Hadamard matrix H of a block of :math:`2^p` data rows, signs :math:`D_b` of the rows of
    each, the same k sampled rows R for all of them, and output signs :math:`E_b` [1]_. With one
    block it is the usual transform [2]_; with more it needs no padding beyond the last block, and
    its sums can be merged.

    Parameters
    ----------
    k : int
        Rows.
    m : int or None
        Data rows; None if their number is not known.
    block : int, optional
        Rows of a block, a power of two and at least k; by default 2^14, less for fewer rows, more
        for larger k.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype, xp, device : optional
        Of `toarray`; a dtype also raises that of products.

    Notes
    -----
    ``S @ a`` takes :math:`p\, m n` additions and reads a once; its bits are the same everywhere.
    Rows are sampled without replacement, so that with k = 2^p and one block S is orthogonal.

    References
    ----------
    .. [1] O. Balabanov, M. Beaupère, L. Grigori, V. Lederer, "Block subsampled randomized Hadamard
       transform for Nyström approximation on distributed architectures", ICML 2023.
    .. [2] J. A. Tropp, "Improved analysis of the subsampled randomized Hadamard transform", Adv.
       Adapt. Data Anal. 3 (2011).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> S = lk.sketch.SRHT(8, 8, rng=0)
    >>> np.allclose(S.toarray().T @ S.toarray(), np.eye(8))
    True
    """

    _fields = ("power",)
    _op = SRHT_OP

    def __init__(
        self, k: int, m: int | None = None, *, block: int | None = None, rng: Any = None,
        dtype: Any = None, xp: Any = None, device: Any = None,
    ) -> None:  # fmt: skip
        k = size(k)
        if block is None:
            rows = _ops.BLOCK if m is None else min(_validate.integer("m", m, 0), _ops.BLOCK)
            self._power = (max(k, rows, 1) - 1).bit_length()
        else:
            block = _validate.integer("block", block, 1)
            if block & (block - 1) or not k <= block <= 1 << 32:
                msg = f"block: must be a power of two from k = {k} to 2**32, got {block}"
                raise ValueError(msg)
            self._power = block.bit_length() - 1
        super().__init__(k, m, rng, dtype, xp, device)

    @property
    def _block(self) -> int:  # type: ignore[override]
        return 1 << int(self._power)

    @property
    def block(self) -> int:
        """Data rows that are transformed together."""
        return self._block

    @property
    def scale(self) -> float:
        """``1 / sqrt(k)``."""
        return 1 / math.sqrt(self._k)

    def grow(self, k: int, /) -> Self:
        """More rows, up to the rows of a block; those there are stay, before the scale."""
        k = self._larger(k)
        if k > self._block:
            msg = (
                f"grow: k = {k} is more than the {self._block} rows of a block; make one with "
                f"SRHT({k}, m)"
            )
            raise ValueError(msg)
        return self._with(k=k)

    @property
    def rows(self) -> Any:
        """Sampled rows of the Hadamard matrix, shape (k,)."""
        return permuted(self._key, self._block, self._k)

    def _outs(self, like: Any, block: int) -> Any:
        signs = _ops.SIGN_TILE(like, self._k, 1, *self._key, 0, block, SRHT_OUT, threads())
        xp = _xp.namespace(signs)
        return xp.astype(signs[:, 0] < 0, xp.uint8)

    def _add(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        xp, n = _xp.namespace(a), self._block
        picks = _xp.from_numpy(self.rows, xp, like=a)
        at, m = 0, a.shape[0]
        while at < m or total is None:
            row = self._start + offset + at
            end = min(m, at + n - row % n)
            rows = a[at:end, :]
            flips = self._flips(a, offset + at, end - at)
            if row % n:
                # a part that begins within a block: its own rows further down
                before = _ops.zeros(xp, a, (row % n, a.shape[1]))
                rows = xp.concat([before, rows])
                unturned = np.zeros(row % n, np.uint8)
                flips = xp.concat([_xp.from_numpy(unturned, xp, like=a), flips])
            total = SRHT_OP(
                rows, flips, picks, self._outs(a, row // n), self._power, threads(), total
            )
            at = max(end, at + 1)
        return total * _ops.scalar(xp, self.scale, total) if finish else total

    def _gather(self, y: Any) -> Any:
        xp, n, m = _xp.namespace(y), self._block, self._known("S.T @ y")
        index = np.full(n, self._k)
        index[self.rows] = np.arange(self._k)
        back = _xp.from_numpy(index, xp, like=y)
        zero, parts, at = _ops.zeros(xp, y, (1, y.shape[1])), [], 0
        real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(y)])
        while at < m:
            row = self._start + at
            end = min(m, at + n - row % n)
            outs = 1 - 2 * xp.astype(self._outs(y, row // n), real)
            spread = xp.take(xp.concat([y * outs[:, None], zero]), back, axis=0)
            x = FWHT(spread[None, :, :], self.scale, threads())[0, :, :]
            flips = 1 - 2 * xp.astype(self._flips(y, at, end - at), real)
            parts.append(x[row % n : row % n + end - at, :] * flips[:, None])
            at = end
        return xp.concat(parts) if parts else _ops.zeros(xp, y, (0, y.shape[1]))

    def _entries(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        real = np.empty(0, like.real.dtype)
        j = self._start + col + np.arange(cols)
        chosen = self.rows[row : row + rows, None]
        odd = np.bitwise_count(chosen & (j % self._block)) & 1
        odd ^= self._flips(real, col, cols)
        for block in range(j[0] // self._block, j[-1] // self._block + 1) if cols else ():
            mine = j // self._block == block
            odd[:, mine] ^= self._outs(real, block)[row : row + rows, None]
        return ((1 - 2.0 * odd) * self.scale).astype(like.dtype)

    def _flops(self, m: int, n: int) -> float:
        return 1.0 * self._power * m * n


class SRCT(_Signed):
    r"""Subsampled randomized cosine transform: any number of data rows, without padding.

    .. math:: S = \sqrt{m / k}\; R\, C\, D

    with random signs D, the orthonormal discrete cosine transform C (type 2) and k of its rows,
    sampled without replacement. The transform is SciPy's on the CPU and a Fourier transform of
    other libraries.

    Parameters
    ----------
    k : int
        Rows, at most m.
    m : int
        Data rows, at most 2^31.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype, xp, device : optional
        Of `toarray`; a dtype also raises that of products.

    Notes
    -----
    ``S @ a`` takes about :math:`2.5\, m n \log_2 m` flops. Entries are given by a formula, so that
    parts and accumulators work, by products with tiles of :math:`2 k m n` flops.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> S = lk.sketch.SRCT(6, 6, rng=0)
    >>> np.allclose(S.toarray() @ S.toarray().T, np.eye(6))
    True
    """

    _fields = ("whole",)
    _sparse = True

    def __init__(
        self, k: int, m: int, *, rng: Any = None, dtype: Any = None, xp: Any = None,
        device: Any = None,
    ) -> None:  # fmt: skip
        k, m = size(k), _validate.integer("m", m, 1)
        if k > m:
            msg = f"k: must be at most m = {m}, as rows are sampled without replacement, got {k}"
            raise ValueError(msg)
        if m > 1 << 31:
            msg = f"m: must be at most 2**31, got {m}; an SRHT takes any number of data rows"
            raise ValueError(msg)
        self._whole = m
        super().__init__(k, m, rng, dtype, xp, device)

    @property
    def scale(self) -> float:
        """``sqrt(m / k)``."""
        return math.sqrt(self._whole / self._k)

    @property
    def rows(self) -> Any:
        """Sampled rows of the transform, shape (k,)."""
        return permuted(self._key, self._whole, self._k)

    def _apply(self, a: Any) -> Any:
        if a.shape[0] != self._whole:
            return super()._apply(a)
        a = _inputs.rows_of(self, a)
        xp = _xp.namespace(a)
        real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(a)])
        signed = a * (1 - 2 * xp.astype(self._flips(a, 0, a.shape[0]), real))[:, None]
        picks = _xp.from_numpy(self.rows, xp, like=a)
        if xp is np:
            import scipy.fft

            turned = scipy.fft.dct(
                signed, axis=0, norm="ortho", workers=threads(), overwrite_x=True
            )
            return turned[picks] * real.type(self.scale)
        turned = xp.take(_cosines(xp, signed), picks, axis=0)
        first = np.where(self.rows == 0, 0.5**0.5, 1.0)[:, None]
        factor = self.scale * math.sqrt(2 / self._whole)
        return turned * _xp.from_numpy(
            first * factor, xp, like=a, dtype=str(real).rpartition(".")[2]
        )

    def _tile(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        """Entries without the scale, from integers: an angle never grows beyond a turn."""
        m = self._whole
        chosen = self.rows[row : row + rows, None]
        odd = 2 * (self._start + col + np.arange(cols)) + 1
        angle = (chosen * odd) % (4 * m) * (math.pi / (2 * m))
        first = np.where(chosen == 0, math.sqrt(1 / m), math.sqrt(2 / m))
        flips = self._flips(np.empty(0), col, cols)
        return (np.cos(angle) * first * (1 - 2.0 * flips)).astype(like.dtype)

    def _entries(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        return self._tile(like, row, rows, col, cols) * like.real.dtype.type(self.scale)

    def _add(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        xp = _xp.namespace(a)
        total = _ops.zeros(xp, a, (self._k, a.shape[1])) if total is None else total
        for at in range(0, a.shape[0], _TILE):
            rows = a[at : min(at + _TILE, a.shape[0]), :]
            tile = self._tile(np.empty(0), 0, self._k, offset + at, rows.shape[0])
            name = _xp.REAL[_xp.dtype_name(a)]
            total = total + xp.astype(_xp.from_numpy(tile.astype(name), xp, like=a), a.dtype) @ rows
        return total * _ops.scalar(xp, self.scale, total) if finish else total

    def _add_sparse(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        if not _members.is_sparse(a):
            return _inputs.by_dense_blocks(self, a, offset, total, finish)
        return by_tiles(self, a, offset, total, finish)

    def _gather(self, y: Any) -> Any:
        xp, m = _xp.namespace(y), self._known("S.T @ y")
        host = _xp.to_numpy(y)
        if m == self._whole:
            import scipy.fft

            spread = np.zeros((m, y.shape[1]), host.dtype)
            spread[self.rows] = host
            x = scipy.fft.idct(spread, axis=0, norm="ortho", workers=threads(), overwrite_x=True)
            signs = 1 - 2 * self._flips(host, 0, m).astype(host.real.dtype)
            x *= (signs * host.real.dtype.type(self.scale))[:, None]
        else:
            tiles = [
                self._entries(host, 0, self._k, at, min(_TILE, m - at)).T @ host
                for at in range(0, m, _TILE)
            ]
            x = np.concatenate([host[:0], *tiles])
        return _xp.from_numpy(x, xp, like=y)


def _cosines(xp: Any, x: Any) -> Any:
    """``sum_j x_j cos(pi (2 j + 1) i / 2 m)`` by a Fourier transform of the reordered rows."""
    if _xp.dtype_name(x) in _xp.COMPLEX:
        return _cosines(xp, xp.real(x)) + 1j * _cosines(xp, xp.imag(x))
    m = x.shape[0]
    # Makhoul (1980): even rows first, then the odd ones backwards
    order = np.concatenate([np.arange(0, m, 2), np.arange(m - 1 - m % 2, 0, -2)])
    name = _xp.dtype_name(x)
    wide = {"float32": "complex64", "float64": "complex128"}[name]
    y = xp.take(x, _xp.from_numpy(order, xp, like=x), axis=0)
    y = xp.fft.fft(xp.astype(y, _xp.dtype_of(xp, wide)), axis=0)
    turn = np.exp(-0.5j * math.pi * np.arange(m) / m).astype(wide)[:, None]
    return xp.real(y * _xp.from_numpy(turn, xp, like=x))


def by_tiles(s: Any, a: Any, offset: int, total: Any, finish: bool) -> Any:
    """A dense operator, tile by tile, times rows of a SciPy sparse matrix."""
    a = a.tocsr()
    total = np.zeros((s.shape[0], a.shape[1]), a.dtype) if total is None else total
    for at in range(0, a.shape[0], _TILE):
        rows = a[at : at + _TILE]
        tile = s._tile(np.empty(0, a.real.dtype), 0, s.shape[0], offset + at, rows.shape[0])
        total = total + (rows.T @ tile.T).T
    return total * total.real.dtype.type(s.scale) if finish else total
