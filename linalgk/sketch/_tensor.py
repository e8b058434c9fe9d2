"""Sketches of tensor products: of products of factors without the product, of data by its index."""

import functools
import math
import numbers
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from linalgk import _members, _validate, _xp
from linalgk.sketch import _inputs, _ops
from linalgk.sketch._hadamard_ops import FWHT
from linalgk.sketch._operators import Sketch, few, size, threads
from linalgk.sketch._philox import KRON, TENSOR
from linalgk.sketch._stack import Hashed, add_columns

# Sizes of modes of which all draws are kept; numbers in a tile of entries, or transformed at once.
_TABLE = 1 << 20
_ENTRIES = 1 << 20
_TRANSFORMED = 1 << 23
# Counters behind those of the modes.
_BEHIND = 1 << 16

_Times = Callable[[Any, Any], Any]


class _Modes(Sketch):
    """An operator on tensors: data row J stands for (j_1, ..., j_q), the last index fastest."""

    _fields: ClassVar[tuple[str, ...]] = ("modes",)
    _sparse = True
    # numbers of data rows are split into indices before anything is counted with them
    _most = math.inf
    # what was drawn for each mode; not a part of the state
    _tables: Any = None

    def __init__(
        self, k: int, shape: Any, *, rng: Any = None, dtype: Any = None, xp: Any = None,
        device: Any = None,
    ) -> None:  # fmt: skip
        self._modes = _mode_sizes(shape)
        super().__init__(few(size(k)), math.prod(self._modes), rng, dtype, xp, device)

    @property
    def modes(self) -> tuple[int, ...]:
        """The shape of the tensors."""
        return self._modes

    def _with(self, **changes: Any) -> Self:
        other = super()._with(**changes)
        if "key" in changes:
            other._tables = None
        return other

    @property
    def _whole(self) -> bool:
        return self._start == 0 and self._m == math.prod(self._modes)

    def _digits(self, at: int, count: int) -> list[Any]:
        """The index in each mode of the data rows from ``at`` on, a number of any size."""
        found, carry = [], np.arange(count)
        for n in reversed(self._modes):
            at, rest = divmod(at, n)
            index = carry + rest
            # NumPy divides by a number much faster than it takes the rest
            carry = index // n
            found.append(index - n * carry)
        return found[::-1]

    @abstractmethod
    def _drawn(self, sub: int, j: Any) -> Any:
        """What is random about the indices j of one mode."""

    def _look(self, sub: int, n: int, at: Any = None) -> Any:
        """The same of the indices ``at``, or of all n, out of a table if n is not too large."""
        if n > _TABLE:
            return self._drawn(sub, np.arange(n) if at is None else at)
        if self._tables is None:
            self._tables = {}
        table = self._tables.get(sub)
        if table is None:
            table = self._tables[sub] = self._drawn(sub, np.arange(n))
        return table if at is None else table[at]

    def kron(self, *factors: Any) -> Any:
        """``S @ kron(A_1, ..., A_q)``, without the Kronecker product.

        Parameters
        ----------
        *factors : array or sparse matrix, shape (n_t, d_t) or (n_t,)
            One for each mode. Real and complex ones, dense and sparse ones may be mixed; arrays
            are of one library, which also is the result's.

        Returns
        -------
        array, shape (k, d_1 ... d_q), or (k,) of vectors
            Column (i_1, ..., i_q), the last index fastest, is the sketch of the Kronecker product
            of column i_1 of A_1, ..., column i_q of A_q.

        See Also
        --------
        khatri_rao : of columns with the same index only.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> a, b = np.random.default_rng(0).standard_normal((2, 30, 4))
        >>> S = lk.sketch.TensorSketch(64, (30, 30), rng=0)
        >>> S.kron(a, b).shape
        (64, 16)
        >>> np.allclose(S.kron(a, b), S @ np.kron(a, b))
        True
        """
        return self._product("kron", factors, _each_with_each)

    def khatri_rao(self, *factors: Any) -> Any:
        """The sketch of the columnwise Kronecker product, without that product.

        Parameters
        ----------
        *factors : array or sparse matrix, shape (n_t, d) or (n_t,)
            One for each mode, all with d columns; else as for `kron`.

        Returns
        -------
        array, shape (k, d), or (k,) of vectors
            Column i is the sketch of the Kronecker product of the columns i. With all factors equal
            to X, whose columns are points, it is a feature map of the kernel ``(x^H y)^q``.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> x = np.random.default_rng(0).standard_normal((30, 4))
        >>> S = lk.sketch.TensorSketch(400, (30, 30), rng=0)
        >>> features = S.khatri_rao(x, x)
        >>> kernel = (x.T @ x) ** 2
        >>> bool(abs(features.T @ features - kernel).max() < 0.2 * kernel.max())
        True
        """
        return self._product("khatri_rao", factors, _column_by_column)

    def _product(self, name: str, factors: tuple[Any, ...], times: _Times) -> Any:
        if not isinstance(self._key, tuple):
            msg = f"S.{name}: cannot be traced by JAX; call it outside of jit, vmap and grad"
            raise TypeError(msg)
        if not self._whole:
            msg = f"S.{name}: a part S[:, i0:i1] has no modes; use the operator it was taken from"
            raise ValueError(msg)
        if len(factors) != len(self._modes):
            msg = (
                f"S.{name}: needs {len(self._modes)} factors, one for each mode of "
                f"{self._modes}, got {len(factors)}"
            )
            raise ValueError(msg)
        found = {f"factors[{t}]": _array(f"factors[{t}]", a) for t, a in enumerate(factors)}
        dense = {which: a for which, a in found.items() if not _members.is_sparse(a)}
        _xp.same_family(**dense)
        matrices = [
            self._matrix(f"S.{name}: {which}", t, a) for t, (which, a) in enumerate(found.items())
        ]
        columns = [int(x.shape[1]) for x in matrices]
        if times is _column_by_column and len(set(columns)) > 1:
            msg = f"S.{name}: all factors must have the same number of columns, got {columns}"
            raise ValueError(msg)
        # infinities meet; what comes of them is told below
        with np.errstate(over="ignore", invalid="ignore"):
            result = self._of_factors(_alike(matrices), times)
        result = _inputs.checked(result, f"S.{name}: a factor")
        if all(a.ndim == 1 for a in found.values()):
            result = result[:, 0]
        if not dense:
            return result
        like = next(iter(dense.values()))
        return _inputs.left(result, like)

    def _matrix(self, what: str, t: int, a: Any) -> Any:
        """A factor as (n_t, d_t), floating, where it is computed."""
        n, shape = self._modes[t], tuple(a.shape)
        if len(shape) not in (1, 2) or shape[0] != n:
            msg = (
                f"{what} must have shape ({n}, d) or ({n},), mode {t} of {self._modes}, got {shape}"
            )
            raise ValueError(msg)
        if _members.is_sparse(a):
            dtype = _inputs._floating(self, np.empty(0, a.dtype)).dtype
            a = a if a.dtype == dtype else a.astype(dtype)
            return a.reshape(-1, 1) if len(shape) == 1 else a
        x = _inputs.entered(a)
        return _inputs.rows_of(self, x[:, None] if len(shape) == 1 else x)

    @abstractmethod
    def _of_factors(self, factors: list[Any], times: _Times) -> Any:
        """The sketch of a product of factors; ``times`` tells of which columns."""


def _mode_sizes(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, str | numbers.Number) or not hasattr(shape, "__iter__"):
        msg = f"shape: must be a sequence of mode sizes, such as (100, 200), got {shape!r}"
        raise TypeError(msg)
    modes = tuple(_validate.integer(f"shape[{t}]", n, 1) for t, n in enumerate(shape))
    if not 1 <= len(modes) < _BEHIND:
        msg = f"shape: must have 1 to {_BEHIND - 1} modes, got {len(modes)}"
        raise ValueError(msg)
    if max(modes) > 1 << 32:
        msg = f"shape: mode sizes must be at most 2**32, got {max(modes)}"
        raise ValueError(msg)
    return modes


def _array(name: str, a: Any) -> Any:
    if _members.is_cupyx(a):
        return a.toarray()
    return a if _members.is_sparse(a) else _xp.as_array(name, a)


def _alike(matrices: list[Any]) -> list[Any]:
    """All in one dtype; sparse ones dense where others are not NumPy's."""
    dtype = np.result_type(*(_xp.dtype_name(x) for x in matrices)).name
    like = next((x for x in matrices if not _members.is_sparse(x)), np.empty(0))
    xp = _xp.namespace(like)
    found = []
    for a in matrices:
        x = a
        if _members.is_sparse(x) and xp is not np:
            x = _ops._given(x.toarray(), like)
        if _xp.dtype_name(x) != dtype:
            x = x.astype(dtype) if xp is np else xp.astype(x, _xp.dtype_of(xp, dtype))
        found.append(x)
    return found


def _each_with_each(x: Any, y: Any) -> Any:
    """All products of a column of x and one of y, those of y fastest."""
    both = x[:, :, None] * y[:, None, :]
    return _xp.namespace(x).reshape(both, (x.shape[0], x.shape[1] * y.shape[1]))


def _column_by_column(x: Any, y: Any) -> Any:
    return x * y


class TensorSketch(_Modes, Hashed):
    r"""CountSketch of tensors whose hashes add over the modes, so that products cost FFTs.

    .. math:: S e_J = s_1(j_1) \cdots s_q(j_q) \, e_{h(J)}, \qquad
              h(J) = h_1(j_1) + \dots + h_q(j_q) \bmod k

    for :math:`J = (j_1, \dots, j_q)`, with signs and rows of each mode uniform and independent [1]_
    [2]_. The sketch of :math:`x_1 \otimes \dots \otimes x_q` is the circular convolution of
    CountSketches of its factors: `kron` and `khatri_rao` never see the product. Of more than three
    modes it is a binary tree of such sketches of two modes [3]_, whose inner results get hashes of
    their own: its error grows with q and not with :math:`3^q`.

    Parameters
    ----------
    k : int
        Rows. FFTs are fast for products of small primes.
    shape : sequence of int
        Sizes of the modes, each at most 2^32; their product is m, and the last index is the
        fastest, as in `numpy.kron` and ``x.reshape(-1)``.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype, xp, device : optional
        Of `toarray`; a dtype also raises that of products.

    Attributes
    ----------
    modes : tuple of int
        The sizes of the modes.

    Notes
    -----
    ``S @ a`` of data with m rows is that of a `CountSketch`, bits included: one addition for each
    entry. Products of factors cost one addition for each entry (of sparse ones: each stored entry),
    an FFT of length k for each of their columns and one for each column of the result, and agree
    with ``S @ kron(...)`` to rounding: a column's error is a small multiple of ``u log k`` times
    the product of the 1-norms of its factors.

    :math:`E \, (S x)^H S y = x^H y`, and for matrices of m rows, with :math:`v = 2 + 3^q` for up to
    three modes [2]_ and :math:`v = k ((1 + 11/k)^{q - 1} - 1)` for more,

    .. math:: P(\lVert X^T S^T S Y - X^T Y \rVert_F > \varepsilon \lVert X \rVert_F
              \lVert Y \rVert_F) \le \frac{v}{k \varepsilon^2} .

    References
    ----------
    .. [1] N. Pham, R. Pagh, "Fast and scalable polynomial kernels via explicit feature maps",
       KDD 2013.
    .. [2] H. Avron, H. L. Nguyen, D. P. Woodruff, "Subspace embeddings for the polynomial kernel",
       NIPS 2014.
    .. [3] T. D. Ahle, M. Kapralov, J. B. T. Knudsen, R. Pagh, A. Velingker, D. P. Woodruff,
       A. Zandieh, "Oblivious sketching of high-degree polynomial kernels", SODA 2020.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> S = lk.sketch.TensorSketch(16, (5, 6, 7), rng=0)
    >>> S.shape
    (16, 210)
    >>> x, y, z = np.ones(5), np.arange(6.0), np.arange(7.0)
    >>> np.allclose(S.kron(x, y, z), S @ np.kron(np.kron(x, y), z))
    True
    >>> big = lk.sketch.TensorSketch(64, (10_000,) * 6, rng=0)  # for 10^24 data rows
    >>> big.kron(*np.ones((6, 10_000))).shape
    (64,)
    """

    def grow(self, k: int, /) -> NoReturn:
        """Refused: with another k all places change."""
        msg = f"grow: a TensorSketch cannot grow; make one with k = {k}"
        raise TypeError(msg)

    def _drawn(self, sub: int, j: Any) -> Any:
        """``row << 1 | negative``."""
        parts = [np.empty(0, np.int64)]
        for at in range(0, j.size, _BEHIND):
            w = _ops.philox(j[at : at + _BEHIND], sub, TENSOR, *self._key)[0]
            row = ((w >> np.uint64(1)) * np.uint64(self._k)) >> np.uint64(31)
            parts.append((row << np.uint64(1) | w & np.uint64(1)).astype(np.int64))
        return np.concatenate(parts)

    def _tree(self, leaf: Any, again: Any, joined: Any, begin: int = 0, end: int = 0) -> Any:
        """Modes joined; of more than three in pairs of halves, inner ones hashed once more."""
        q = len(self._modes)
        end = end or q
        if q <= 3:
            return joined([leaf(t) for t in range(q)])

        def child(begin: int, end: int) -> Any:
            if end - begin == 1:
                return leaf(begin)
            # a node is known by where it is cut in two
            sub = _BEHIND + (begin + end) // 2
            return again(sub, self._tree(leaf, again, joined, begin, end))

        middle = (begin + end) // 2
        return joined([child(begin, middle), child(middle, end)])

    def _hashes(self, like: Any, offset: int, count: int) -> Any:
        h = np.empty((count, 1), np.uint32)
        # so many that what is between stays in cache
        step = 1 << 12
        for at in range(0, count, step):
            some = min(step, count - at)
            h[at : at + some, 0] = self._packed(self._digits(self._start + offset + at, some))
        return _ops._given(h, like)

    def _packed(self, digits: list[Any]) -> Any:
        def again(sub: int, h: Any) -> Any:
            return self._look(sub, self._k, h >> 1) ^ (h & 1)

        def joined(parts: list[Any]) -> Any:
            row = sum(h >> 1 for h in parts)
            row -= row // self._k * self._k
            return row << 1 | functools.reduce(np.bitwise_xor, parts) & 1

        return self._tree(lambda t: self._look(t, self._modes[t], digits[t]), again, joined)

    def _of_factors(self, factors: list[Any], times: _Times) -> Any:
        def leaf(t: int) -> Any:
            return self._counted(factors[t], self._look(t, self._modes[t]))

        def again(sub: int, x: Any) -> Any:
            return self._counted(x, self._look(sub, self._k))

        return self._tree(leaf, again, lambda parts: _convolved(parts, times))

    def _counted(self, a: Any, h: Any) -> Any:
        """The CountSketch of a with hashes h."""
        h = h.astype(np.uint32)[:, None]
        if _members.is_sparse(a):
            return add_columns(self, lambda *_: h, a, 0, None, True)
        return _ops.STACK_APPLY(a, _ops._given(h, a), self._k, 0, 1.0, threads())


def _convolved(parts: list[Any], times: _Times) -> Any:
    """Circular convolutions of columns, by FFTs."""
    xp, k = _xp.namespace(parts[0]), parts[0].shape[0]
    if len(parts) == 1:
        return parts[0]
    options: dict[str, Any] = {}
    fft = xp.fft
    if xp is np:
        import scipy.fft

        # NumPy's own knows no threads
        fft, options = scipy.fft, {"workers": threads()}
    if _xp.dtype_name(parts[0]) in _xp.COMPLEX:
        spectra = [fft.fft(x, axis=0, **options) for x in parts]
        return fft.ifft(functools.reduce(times, spectra), axis=0, **options)
    spectra = [fft.rfft(x, axis=0, **options) for x in parts]
    return fft.irfft(functools.reduce(times, spectra), n=k, axis=0, **options)


class KroneckerSRHT(_Modes):
    r"""Sampled rows of a Kronecker product of Hadamard transforms with random signs.

    .. math:: S = k^{-1/2} R \, (H_1 D_1 \otimes \dots \otimes H_q D_q)

    with diagonal matrices :math:`D_t` of random signs, Hadamard matrices :math:`H_t` of +1 and -1,
    to whose order :math:`N_t`, a power of two, mode t is padded with zeros, and R taking k rows,
    drawn uniformly with replacement [1]_ [2]_. The sketch of a product of factors is the product of
    their sampled transforms: `kron` and `khatri_rao` never see it.

    Parameters
    ----------
    k : int
        Rows.
    shape : sequence of int
        Sizes of the modes, each at most 2^32; their product is m, and the last index is the
        fastest, as in `numpy.kron` and ``x.reshape(-1)``.
    rng : int, numpy.random.Generator or None
        Seed; None takes fresh entropy.
    dtype, xp, device : optional
        Of `toarray`; a dtype also raises that of products.

    Attributes
    ----------
    modes : tuple of int
        The sizes of the modes.

    Notes
    -----
    All entries are :math:`\pm k^{-1/2}`: those of row i and column J have the sign
    :math:`\prod_t D_t(j_t) (-1)^{|j_t \wedge r_{it}|}`, where the ones are counted that :math:`j_t`
    and the sampled index :math:`r_{it}` have in common. :math:`E \, S^T S = I`; a subspace of
    dimension d is kept for :math:`k \sim d` times a power of logarithms that grows with q [2]_.

    ``S @ a`` and ``S.T @ y`` transform the padded data, :math:`N \log_2 N` additions a column for
    :math:`N = \prod N_t`; sparse data, parts ``S[:, i0:i1]`` and accumulators cost 2 k flops an
    entry instead, and agree to rounding. Products of factors cost :math:`N_t \log_2 N_t` additions
    a column of a factor and q k multiplications a column of the result.

    References
    ----------
    .. [1] C. Battaglino, G. Ballard, T. G. Kolda, "A practical randomized CP tensor decomposition",
       SIAM J. Matrix Anal. Appl. 39 (2018).
    .. [2] R. Jin, T. G. Kolda, R. Ward, "Faster Johnson-Lindenstrauss transforms via Kronecker
       products", Information and Inference 10 (2021).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> S = lk.sketch.KroneckerSRHT(16, (5, 6, 7), rng=0)
    >>> abs(S.toarray()).max()
    np.float64(0.25)
    >>> x, y, z = np.ones(5), np.arange(6.0), np.arange(7.0)
    >>> np.allclose(S.kron(x, y, z), S @ np.kron(np.kron(x, y), z))
    True
    """

    _op = FWHT

    @property
    def scale(self) -> float:
        """``1 / sqrt(k)``."""
        return 1 / math.sqrt(self._k)

    def grow(self, k: int, /) -> Self:
        """More rows; those there are stay, before the scale."""
        return self._with(k=few(self._larger(k)))

    @property
    def _powers(self) -> list[int]:
        """Exponents of the orders of the Hadamard matrices."""
        return [(n - 1).bit_length() for n in self._modes]

    def _drawn(self, sub: int, j: Any) -> Any:
        """Whether the sign is negative."""
        calls, where = np.unique(j >> 7, return_inverse=True)
        w = np.stack(_ops.philox(calls, sub, KRON, *self._key)).astype(np.uint32)
        return w[(j & 127) >> 5, where] >> (j & 31).astype(np.uint32) & np.uint32(1)

    def _rows(self) -> list[Any]:
        """Of each mode: the sampled indices (k,), below 2^32."""
        i = np.arange(self._k)
        words = (_ops.philox(i, _BEHIND + t, KRON, *self._key)[0] for t in range(len(self._modes)))
        return [w >> np.uint64(32 - p) for w, p in zip(words, self._powers, strict=True)]

    # --- By transforms ---------------------------------------------------------------------------

    def _of_factors(self, factors: list[Any], times: _Times) -> Any:
        found = []
        for t, (a, row) in enumerate(zip(factors, self._rows(), strict=True)):
            x = a.toarray() if _members.is_sparse(a) else a
            xp = _xp.namespace(x)
            x = self._transformed(_flipped(x, self._look(t, self._modes[t])), t, t + 1)
            found.append(xp.take(x, _ops._given(row.astype(np.int64), x), axis=0))
        total = functools.reduce(times, found)
        return total * _ops.scalar(_xp.namespace(total), self.scale, total)

    def _transformed(self, x: Any, begin: int, end: int) -> Any:
        """Modes ``begin`` to ``end`` padded and transformed, all by one transform: it is theirs."""
        sizes = self._modes[begin:end]
        orders = tuple(1 << p for p in self._powers[begin:end])
        xp, n = _xp.namespace(x), x.shape[1]
        if orders != sizes:
            padded = _ops.zeros(xp, x, (*orders, n))
            padded[(*map(slice, sizes), ...)] = xp.reshape(x, (*sizes, n))
            x = padded
        return FWHT(xp.reshape(x, (1, math.prod(orders), n)), 1.0, threads())[0, :, :]

    def _flips(self) -> Any:
        """Whether data rows are negated, (m,), of all."""
        modes = [self._look(t, n) for t, n in enumerate(self._modes)]
        return functools.reduce(lambda x, y: np.bitwise_xor.outer(x, y).ravel(), modes)

    def _picks(self) -> Any:
        """The sampled rows (k,) of the long transform."""
        total = np.zeros(self._k, np.int64)
        for row, p in zip(self._rows(), self._powers, strict=True):
            total = total << p | row.astype(np.int64)
        return total

    def _columns(self, n: int) -> list[slice]:
        """Columns that are transformed at once."""
        step = max(1, _TRANSFORMED >> sum(self._powers))
        return [slice(at, min(n, at + step)) for at in range(0, max(1, n), step)]

    def _apply(self, a: Any) -> Any:
        if not self._whole:
            return super()._apply(a)
        a = _inputs.rows_of(self, a)
        xp, flips, parts = _xp.namespace(a), self._flips(), []
        picks = _ops._given(self._picks(), a)
        for cols in self._columns(a.shape[1]):
            x = self._transformed(_flipped(a[:, cols], flips), 0, len(self._modes))
            parts.append(xp.take(x, picks, axis=0) * _ops.scalar(xp, self.scale, a))
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)

    def _gather(self, y: Any) -> Any:
        xp, m = _xp.namespace(y), self._known("S.T @ y")
        scale = _ops.scalar(xp, self.scale, y)
        if not self._whole:
            tiles = (_ops._given(e.astype(_xp.dtype_name(y)), y) for _, e in self._tiles(0, m))
            return (
                xp.concat([_ops.zeros(xp, y, (0, y.shape[1])), *(e.T @ y for e in tiles)]) * scale
            )
        host, flips, parts = _xp.to_numpy(y), self._flips(), []
        picks, inside = self._picks(), (*map(slice, self._modes), ...)
        orders = tuple(1 << p for p in self._powers)
        for cols in self._columns(y.shape[1]):
            some = host[:, cols]
            spread = np.zeros((1, math.prod(orders), some.shape[1]), host.dtype)
            np.add.at(spread[0], picks, some)
            x = FWHT(_ops._given(spread, y), 1.0, threads())
            x = xp.reshape(x, (*orders, some.shape[1]))[inside]
            parts.append(_flipped(xp.reshape(x, (m, some.shape[1])), flips) * scale)
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)

    # --- By entries ------------------------------------------------------------------------------

    def _signs(self, rows: slice, at: int, count: int) -> Any:
        """Entries, not scaled, of data rows from ``at`` on: +1 and -1, int8."""
        digits = self._digits(self._start + at, count)
        odd = np.zeros((1, count), np.uint32)
        for t, (row, j) in enumerate(zip(self._rows(), digits, strict=True)):
            # ones are counted of all modes at once: only whether they are odd matters
            odd = odd ^ self._look(t, self._modes[t], j)
            odd = odd ^ (row[rows, None].astype(np.uint32) & j.astype(np.uint32))
        return 1 - 2 * (np.bitwise_count(odd) & 1).view(np.int8)

    def _tiles(self, offset: int, count: int) -> Any:
        """Data rows and their entries, as many as a tile holds."""
        step = max(1, min(_ops.BLOCK, _ENTRIES // self._k))
        for at in range(0, count, step):
            some = min(step, count - at)
            yield slice(at, at + some), self._signs(slice(None), offset + at, some)

    def _add(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        xp, dtype = _xp.namespace(a), _xp.dtype_name(a)
        part = _ops.zeros(xp, a, (self._k, a.shape[1]))
        for rows, entries in self._tiles(offset, a.shape[0]):
            part = part + _ops._given(entries.astype(dtype), a) @ a[rows, :]
        return self._joined(xp, part, total, finish)

    def _add_sparse(self, a: Any, offset: int, total: Any, finish: bool) -> Any:
        if not _members.is_sparse(a):
            return _inputs.by_dense_blocks(self, a, offset, total, finish)
        a = a.tocsr()
        part = np.zeros((self._k, a.shape[1]), a.dtype)
        for rows, entries in self._tiles(offset, a.shape[0]):
            part += (a[rows].T @ entries.T.astype(a.dtype)).T
        return self._joined(np, part, total, finish)

    def _joined(self, xp: Any, part: Any, total: Any, finish: bool) -> Any:
        total = part if total is None else total + part
        return total * _ops.scalar(xp, self.scale, total) if finish else total

    def _entries(self, like: Any, row: int, rows: int, col: int, cols: int) -> Any:
        signs = self._signs(slice(row, row + rows), col, cols)
        return signs.astype(like.dtype) * _ops.scalar(np, self.scale, like)

    def _flops(self, m: int, n: int) -> float:
        if not self._whole or m != self._m:
            return super()._flops(m, n)
        return float(sum(self._powers) * (n << sum(self._powers)))


def _flipped(x: Any, flips: Any) -> Any:
    """Rows negated where ``flips`` has ones."""
    signs = 1 - 2 * flips.astype(np.int8)
    return x * _ops._given(signs, x, _xp.REAL[_xp.dtype_name(x)])[:, None]
