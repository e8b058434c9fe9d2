"""Singular values of a matrix that is seen once: sketches that updates are added to."""

import copy
import math
import sys
import warnings
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import adjoint, is_cupyx, is_sparse
from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.randomized._matrix import norm
from linalgk.randomized._streaming_sums import (
    Maps,
    Parameters,
    StreamedSVD,
    StreamInfo,
    Sums,
    entered,
    floating_name,
    home,
    nothing,
    rounded,
    silently,
    solved,
    union,
)
from linalgk.sketch import Philox

StreamSketch: TypeAlias = Literal["SparseStack", "Gaussian"]
METHODS = get_args(StreamSketch)


class StreamingSVD:
    r"""Truncated SVD of a matrix of which every part is seen once and forgotten.

    Blocks of rows arrive in any order, and so do terms ``U V^H`` that are added to the whole
    matrix. Only linear sketches of A are kept: objects with the same seed are added where streams
    meet.

    Parameters
    ----------
    m : int or None
        Rows; None if their number is not known.
    n : int
        Columns.
    rank : int
        Singular values wanted, at most ``min(m, n)``.
    k : int, optional
        Size of the range sketches, at least ``rank``. Default ``4 rank + 1``; `SparseStack` rounds
        it up to a multiple of 8.
    s : int, optional
        Size of the core sketch, at least k. Default ``2 k + 1``.
    sketch : {"SparseStack", "Gaussian"}
        Of the test matrices. Those of the error are Gaussian.
    rng : seed, Generator or Philox
        Default None takes fresh entropy: objects that will be added need the same seed.
    dtype : dtype, optional
        Of the sketches, else that of the first block; what would lose by it is refused.
    xp, device : optional
        Library and device of the sketches, else those of the first block.

    Attributes
    ----------
    shape, rank, k, s : tuple and three int
        (m, n), and the sizes.
    key : tuple of int
        ``rng=key`` makes an object that can be added.
    nbytes : int
        Memory of the sketches.
    passes : int
        One.

    See Also
    --------
    svd_lowrank : for a matrix that can be read more than once, with a smaller error.

    Notes
    -----
    With test matrices :math:`\Upsilon` (k, m), :math:`\Omega` (k, n), :math:`\Phi` (s, m) and
    :math:`\Psi` (s, n) the object keeps [1]_

    .. math:: X = \Upsilon A, \quad Y = A \Omega^T, \quad Z = \Phi A \Psi^T

    and `result` computes, with orthonormal bases Q of Y and P of :math:`X^H`,

    .. math:: A \approx Q W P^H, \qquad W = (\Phi Q)^+ Z ((\Psi P)^+)^H ,

    whose SVD is truncated. For Gaussian test matrices, before truncation,

    .. math:: E \lVert A - Q W P^H \rVert_F^2 \le \frac{s-1}{s-k-1} \min_{\rho < k-1}
              \frac{k+\rho-1}{k-\rho-1} \sum_{j > \rho} \sigma_j^2 .

    The error is measured by 10 Gaussian rows :math:`\Theta` that nothing else depends on:
    :math:`\lVert \Theta (A - \hat A) \rVert_F^2 / 10` is unbiased for the squared error [1]_.

    A sketch that would be as large as what it sketches is not used: for ``s >= n`` the columns
    are kept as they are, and likewise for rows and k.

    ``k (m + n) + s^2 + 10 n`` numbers. A row costs ``2 n (2 zeta + k zeta / n + 10)`` flops with
    :math:`\zeta = 8` nonzeros, ``2 n (2 k + s + 10)`` with Gaussian sketches; the result
    ``4 (m + n) k^2``.

    References
    ----------
    .. [1] J. A. Tropp, A. Yurtsever, M. Udell, V. Cevher, "Streaming low-rank matrix approximation
       with an application to scientific simulation", SIAM J. Sci. Comput. 41 (2019), algorithms
       1 to 6 and theorem 5.1.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((2000, 10)) @ rng.standard_normal((10, 300))
    >>> parts = [
    ...     lk.StreamingSVD(None, 300, 10, rng=0).update(a[i : i + 500], offset=i)
    ...     for i in (1000, 0, 1500, 500)
    ... ]
    >>> total = sum(parts[1:], parts[0])
    >>> U, S, Vh = total.result()
    >>> np.allclose((U * S) @ Vh, a)
    True
    >>> a[:500] = 0
    >>> changed = total.downdate((U[:500] * S) @ Vh, offset=0).result(partial=True)
    >>> np.allclose((changed.U * changed.S) @ changed.Vh, a)
    True
    """

    passes = 1

    def __init__(
        self, m: int | None, n: int, rank: int, /, *, k: int | None = None, s: int | None = None,
        sketch: StreamSketch = "SparseStack", rng: Any = None, dtype: Any = None, xp: Any = None,
        device: Any = None,
    ) -> None:  # fmt: skip
        m = None if m is None else _validate.integer("m", m, 1)
        n = _validate.integer("n", n, 1)
        rank = _validate.integer("rank", rank, 1)
        most = n if m is None else min(m, n)
        if rank > most:
            msg = f"rank: must be at most min(m, n) = {most}, got {rank}"
            raise ValueError(msg)
        sketch = _validate.choice("sketch", sketch, METHODS)
        k = rounded(4 * rank + 1 if k is None else _validate.integer("k", k, rank), sketch)
        s = rounded(2 * k + 1 if s is None else _validate.integer("s", s, k), sketch)
        low, high = Philox(rng).key
        self._is = Parameters(m, n, rank, k, s, sketch, (low, high))
        self._dtype = None if dtype is None else floating_name(dtype)
        # where sketches are, and the library that they go back to
        self._like: Any = None
        self._library = ""
        if xp is not None:
            like = _xp.from_numpy(np.empty(0, self._dtype or "float64"), xp, device=device)
            array, library = entered(like)
            self._settle_home(array, library)
        self._begin()

    def _begin(self) -> None:
        self._maps = Maps(self._is)
        self._sums = Sums(self._is.m)
        # rows that `update` brought, and rows that other terms reach: ascending, disjoint
        self._came: list[tuple[int, int]] = []
        self._touched: list[tuple[int, int]] = []

    # --- What it is ------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int | None, int]:
        """Of A."""
        return self._is.m, self._is.n

    @property
    def rank(self) -> int:
        """Singular values of the result."""
        return self._is.rank

    @property
    def k(self) -> int:
        """Size of the range sketches."""
        return self._is.k

    @property
    def s(self) -> int:
        """Size of the core sketch."""
        return self._is.s

    @property
    def key(self) -> Any:
        """The words that stand for the seed."""
        return type(Philox(0).key)(*self._is.key)

    @property
    def dtype(self) -> Any:
        """Of the sketches, None before the first block."""
        return None if self._dtype is None else np.dtype(self._dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the sketches."""
        size = 0 if self._dtype is None else np.dtype(self._dtype).itemsize
        return sum(math.prod(x.shape) * size for x in self._sums.arrays())

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Ranges of rows that nothing was said of; behind the last one if m is known."""
        gaps, at, m = [], 0, self._is.m
        for begin, end in union(self._came + self._touched):
            if begin > at:
                gaps.append((at, begin))
            at = end
        if m is not None and at < m:
            gaps.append((at, m))
        return gaps

    def __repr__(self) -> str:
        """How much has come."""
        p, count = self._is, sum(end - begin for begin, end in self._came)
        return (
            f"StreamingSVD({p.m}, {p.n}, {p.rank}, k={p.k}, s={p.s}, sketch={p.sketch!r}, "
            f"key={p.key}, {count} rows)"
        )

    # --- Updates ---------------------------------------------------------------------------------

    def update(self, block: Any, /, *, offset: int) -> Self:
        """Add rows that have not come yet.

        Parameters
        ----------
        block : array or sparse matrix, shape (rows, n)
            Nothing of it is kept.
        offset : int
            Number of the first of them.

        Returns
        -------
        StreamingSVD
            Itself.

        Raises
        ------
        ValueError
            Rows lie outside the matrix or have come before. The object is what it was, as in the
            other cases.
        TypeError
            They are of a wider dtype than the sketches or of another library or device.
        NonFiniteError
            They hold NaN or infinity, which ``on_fail="nan"`` or ``check_finite=False`` of the
            context lets through.
        """
        begin, rows = self._rows(block, offset)
        for low, high in self._came:
            low, high = max(begin, low), min(begin + rows, high)
            if low < high:
                msg = (
                    f"offset: rows {begin} to {begin + rows} overlap rows {low} to {high}, which "
                    "have come already; update_low_rank adds to rows"
                )
                raise ValueError(msg)
        self._add_rows(block, begin, 1.0)
        self._came = union([*self._came, (begin, begin + rows)])
        return self

    def downdate(self, block: Any, /, *, offset: int) -> Self:
        """Subtract rows that have come, after which they may come again.

        Parameters
        ----------
        block : array or sparse matrix, shape (rows, n)
            The rows as they came; what differs stays in the matrix.
        offset : int
            Number of the first of them.

        Returns
        -------
        StreamingSVD
            Itself.
        """
        begin, rows = self._rows(block, offset)
        end = begin + rows
        if rows and not any(low <= begin and end <= high for low, high in self._came):
            msg = f"offset: rows {begin} to {end} have not all come, and cannot be taken away"
            raise ValueError(msg)
        self._add_rows(block, begin, -1.0)
        left = []
        for low, high in self._came:
            left += [(low, min(high, begin)), (max(low, end), high)]
        self._came = union([(low, high) for low, high in left if low < high])
        return self

    def update_low_rank(self, u: Any, v: Any, /, *, offset: int = 0, decay: float = 1.0) -> Self:
        """Let ``A <- decay A + u v^H``, in the rows from ``offset`` on.

        Parameters
        ----------
        u : array, shape (rows, r) or (rows,)
        v : array, shape (n, r) or (n,)
        offset : int
            Row of A where u begins.
        decay : float
            Factor of all that came before.

        Returns
        -------
        StreamingSVD
            Itself.
        """
        u, v = (_xp.as_array(name, x) for name, x in (("u", u), ("v", v)))
        if u.ndim not in (1, 2) or v.ndim != u.ndim or (u.ndim == 2 and u.shape[1] != v.shape[1]):
            msg = (
                f"u, v: must have shapes (rows, r) and ({self._is.n}, r), or both be vectors, got "
                f"{tuple(u.shape)} and {tuple(v.shape)}"
            )
            raise ValueError(msg)
        if v.shape[0] != self._is.n:
            msg = f"v: must have {self._is.n} rows, one for each column of A, got {tuple(v.shape)}"
            raise ValueError(msg)
        begin, rows = self._inside(u.shape[0], offset)
        decay = _validate.real_between("decay", decay, -math.inf, math.inf)
        _xp.same_family(u=u, v=v)
        with _lag.scope(u), _config.blas_threads(), silently():
            u, library, dtype = self._taken(u, "u")
            v, _, other = self._taken(v, "v")
            wide = self._settle(np.result_type(dtype, other).name, "u, v")
            xp = _xp.namespace(u)
            u, v = (xp.astype(x, _xp.dtype_of(xp, wide), copy=False) for x in (u, v))
            if u.ndim == 1:
                u, v = u[:, None], v[:, None]
            terms = self._maps.sketched(u, begin, adjoint(xp, v))
            self._refuse_nonfinite(terms, "u, v", begin, rows)
            self._settle_home(u, library)
            self._dtype = wide
            if decay != 1.0:
                self._sums.scale(decay)
            self._sums.add(terms, begin)
        self._touched = union([*self._touched, (begin, begin + rows)])
        return self

    def _add_rows(self, block: Any, begin: int, sign: float) -> None:
        with _lag.scope(block), _config.blas_threads(), silently():
            rows, library, dtype = self._taken(block, "block")
            wide = self._settle(dtype, "block")
            if is_sparse(rows) or is_cupyx(rows):
                rows = rows.tocsr()
                rows = rows if rows.dtype == wide else rows.astype(wide)
                like = rows.data
            else:
                xp = _xp.namespace(rows)
                like = rows = xp.astype(rows, _xp.dtype_of(xp, wide), copy=False)
            terms = self._maps.sketched(rows, begin)
            self._refuse_nonfinite(terms, "block", begin, rows.shape[0])
            self._settle_home(like, library)
            self._dtype = wide
            self._sums.add(terms, begin, sign)

    def _rows(self, block: Any, offset: Any) -> tuple[int, int]:
        if not (is_sparse(block) or is_cupyx(block)):
            block = _xp.as_array("block", block)
        if len(block.shape) != 2 or block.shape[1] != self._is.n:
            msg = f"block: must have shape (rows, {self._is.n}), got {tuple(block.shape)}"
            raise ValueError(msg)
        return self._inside(block.shape[0], offset)

    def _inside(self, rows: int, offset: Any) -> tuple[int, int]:
        begin, m = _validate.integer("offset", offset, 0), self._is.m
        if m is not None and begin + rows > m:
            msg = f"offset: rows {begin} to {begin + rows} do not fit a matrix of {m} rows"
            raise ValueError(msg)
        return begin, int(rows)

    def _taken(self, x: Any, name: str) -> tuple[Any, str, str]:
        """The array as it is computed with, the library that it came from, and its dtype."""
        if is_sparse(x) or is_cupyx(x):
            self._check_home(x.data, name)
            return x, "", _xp.dtype_name(_validate.floating(name, x.data[:0]))
        array, library = entered(_xp.as_array(name, x))
        array = _validate.floating(name, array)
        self._check_home(array, name)
        return array, library, _xp.dtype_name(array)

    def _check_home(self, x: Any, name: str) -> None:
        if self._like is not None and home(x) != home(self._like):
            msg = f"{name}: is of {home(x)} and the sketches of {home(self._like)}; convert one"
            raise TypeError(msg)

    def _settle_home(self, x: Any, library: str) -> None:
        """The library and device of the first array are those of all."""
        if self._like is None:
            self._like = _xp.namespace(x).reshape(x, (-1,))[:0]
            self._library = library

    def _settle(self, dtype: str, name: str) -> str:
        """The dtype of the sketches, if nothing is lost in it."""
        wanted = self._dtype or dtype
        if not np.can_cast(dtype, wanted, "safe"):
            msg = (
                f"{name}: is of {dtype} and the sketches of {wanted}; convert one of them, "
                f"the sketches by StreamingSVD(..., dtype={dtype!r})"
            )
            raise TypeError(msg)
        return wanted

    def _refuse_nonfinite(self, terms: tuple[Any, ...], name: str, begin: int, rows: int) -> None:
        if not _validate.check_finite(None) or _validate.on_fail(None) == "nan":
            return
        # each entry of A stands in Y and in X
        xp = _xp.namespace(terms[1])
        if all(bool(xp.all(xp.isfinite(x))) for x in terms[:2]):
            return
        msg = f"{name}: rows {begin} to {begin + rows} hold NaN or infinity"
        if _validate.on_fail(None) == "raise":
            raise NonFiniteError(msg)
        warnings.warn(msg, ConvergenceWarning, stacklevel=4)

    # --- Merging ---------------------------------------------------------------------------------

    def _refuse_other(self, other: "StreamingSVD") -> None:
        mine, theirs = self._is._asdict(), other._is._asdict()
        unlike = [name for name in mine if mine[name] != theirs[name]]
        if unlike:
            what = ", ".join(f"{name} = {mine[name]} and {theirs[name]}" for name in unlike)
            hint = "; give all of them the same rng" if "key" in unlike else ""
            msg = f"a += b: the sketches differ: {what}{hint}"
            raise ValueError(msg)
        if len({self._dtype, other._dtype} - {None}) > 1:
            msg = f"a += b: sketches of {self._dtype} and of {other._dtype}; convert one"
            raise TypeError(msg)
        if other._like is not None:
            self._check_home(other._like, "a += b: b")
        for begin, end in other._came:
            for low, high in self._came:
                if max(begin, low) < min(end, high):
                    msg = (
                        f"a += b: rows {max(begin, low)} to {min(end, high)} have come to both; "
                        "add rows to one of them"
                    )
                    raise ValueError(msg)

    def __iadd__(self, other: object) -> Self:
        """Add all that came to another object with the same seed."""
        if not isinstance(other, StreamingSVD):
            return NotImplemented
        self._refuse_other(other)
        self._dtype = self._dtype or other._dtype
        if self._like is None:
            self._like, self._library = other._like, other._library
        self._sums.merge(other._sums)
        self._came = union(self._came + other._came)
        self._touched = union(self._touched + other._touched)
        return self

    def __add__(self, other: object) -> "StreamingSVD":
        """All that came to both."""
        if not isinstance(other, StreamingSVD):
            return NotImplemented
        mine = copy.copy(self)
        mine += other
        return mine

    # --- State -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is kept, as plain arrays and numbers."""
        return {
            "parameters": self._is._asdict(),
            "dtype": self._dtype,
            "library": self._library,
            **self._sums.state(),
            "came": list(self._came),
            "touched": list(self._touched),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` of an object with the same parameters gave."""
        for name, mine in self._is._asdict().items():
            theirs = state["parameters"][name]
            if (tuple(theirs) if name == "key" else theirs) != mine:
                msg = f"state: is of a StreamingSVD with {name} = {theirs}, not {mine}"
                raise ValueError(msg)
        self._dtype, self._library = state["dtype"], state["library"]
        self._sums.load(state)
        self._came = [(int(b), int(e)) for b, e in state["came"]]
        self._touched = [(int(b), int(e)) for b, e in state["touched"]]
        self._like = None
        for x in self._sums.whole[:1]:
            self._like = _xp.namespace(x).reshape(x, (-1,))[:0]

    def __getstate__(self) -> dict[str, Any]:
        """Numbers and arrays: the test matrices follow from the seed."""
        # an array of no entries says where an object without data wants to be
        return self.state_dict() | {"like": None if self._sums else self._like}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._is = Parameters(**state["parameters"])
        self._begin()
        self.load_state_dict(state)
        self._like = self._like if self._sums else state["like"]

    def __eq__(self, other: object) -> bool:
        """Whether the sketches are the same, bit by bit."""
        if not isinstance(other, StreamingSVD):
            return NotImplemented
        mine, theirs = ((x._is, x._dtype, x._came, x._touched) for x in (self, other))
        return mine == theirs and self._sums.same(other._sums)

    __hash__ = None  # type: ignore[assignment]

    # --- The result ------------------------------------------------------------------------------

    def result(self, rank: int | None = None, *, partial: bool = False) -> StreamedSVD:
        """The leading singular values and vectors of what came.

        Parameters
        ----------
        rank : int, optional
            At most k; default that of the object, or less where there are fewer rows.
        partial : bool
            Whether rows may be missing, which then count as zeros.

        Returns
        -------
        StreamedSVD
            ``U, S, Vh`` and `info`, in the library of the blocks. The object goes on.

        Raises
        ------
        ValueError
            Rows are missing and may not be, or there is no row.
        NonFiniteError
            What came was not finite.
        """
        gaps = self.missing
        if gaps and not partial:
            some = ", ".join(f"{b} to {e}" for b, e in gaps[:3]) + (", ..." if gaps[3:] else "")
            msg = f"result: rows {some} have not come; result(partial=True) takes them as zeros"
            raise ValueError(msg)
        if not self._sums:
            msg = "result: nothing has come yet; update(block, offset=) adds rows"
            raise ValueError(msg)
        last = max((end for _, end in self._came + self._touched), default=1)
        rows = last if self._is.m is None else self._is.m
        most = min(self._is.k, self._is.n, rows)
        rank = min(self._is.rank, most) if rank is None else _validate.integer("rank", rank, 1)
        if rank > most:
            msg = f"rank: must be at most min(k, rows, n) = {most}, got {rank}"
            raise ValueError(msg)
        with _lag.scope(self._sums.whole[0]), _config.blas_threads():
            return self._solved(rank, rows)

    def _solved(self, rank: int, rows: int) -> StreamedSVD:
        good = all(math.isfinite(norm(x)) for x in self._sums.whole)
        if not good and _validate.check_finite(None) and _validate.on_fail(None) == "raise":
            msg = "result: what came holds NaN or infinity, or values too large to add"
            raise NonFiniteError(msg)
        found = (
            solved(self._maps, self._sums, rank, rows)
            if good
            else nothing(self._sums, rank, rows, self._is.n)
        )
        size = math.hypot(norm(found.s), found.error) if good else math.nan
        size = size if size != 0 else 1.0
        fields = {
            "residual": found.dropped / size,
            "error_estimate": found.error / size,
            "std_error": found.spread / size,
        }
        real = _xp.REAL[_xp.dtype_name(found.u)]
        info = StreamInfo(
            method="streaming",
            iterations=self._leave(np.asarray(0)),
            converged=self._leave(np.asarray(good)),
            **{key: self._leave(np.asarray(x, real)) for key, x in fields.items()},
            rank=rank,
            passes=1,
            seed=self.key,
        )
        u, s, vh = (self._leave(x) for x in found[:3])
        return StreamedSVD(u, s, vh, info)

    def _leave(self, x: Any) -> Any:
        """An array in the library of the blocks."""
        if isinstance(x, np.ndarray):
            x = _xp.from_numpy(x, _xp.namespace(self._like), like=self._like)
        if self._library == "jax":
            return sys.modules["jax"].numpy.asarray(x)
        return _xp._torch_leave(x, None) if self._library == "torch" else x


def explain_streaming(
    m: int | None, n: int, rank: int, /, *, k: int | None = None, s: int | None = None, **_: Any
) -> Explanation:
    """What all updates and a result would cost."""
    k = 4 * rank + 1 if k is None else k
    s = 2 * k + 1 if s is None else s
    rows = m or 0
    reason = "every row is seen once"
    flops = 2.0 * rows * (26 * n + 8 * k) + 4.0 * (rows + n) * k * k
    return Explanation("StreamingSVD", "streaming", reason, {}, flops, 8.0 * rows * n)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of an object."""
    del rng
    m, n, rank = {"small": (60, 20, 2), "medium": (2000, 100, 5), "large": (100_000, 500, 20)}[size]
    return (m, n, rank), {"rng": 0, "xp": xp}


# --- Small things --------------------------------------------------------------------------------
