"""Interpolative decomposition: columns or rows of a matrix that stand for all of it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, report
from linalgk.errors import NonFiniteError
from linalgk.randomized import _pivots
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import Matrix, given, members, norm
from linalgk.randomized._parts import indices, information, stacked, whole_rank
from linalgk.sketch import Philox, SparseStack
from linalgk.typing import Array, OnFail

InterpMethod: TypeAlias = Literal["auto", "lupp", "cpqr", "srrqr", "deim", "leverage", "norm"]
METHODS = get_args(InterpMethod)
# Blocks of the sketch that coefficients are fitted to; one more, independent, measures the error.
_BLOCKS = 4
# Rows of a block at least; where a tolerance is to be met, its standard deviation is 1/8 or less.
_LEAST, _SURE = 16, 32
# Entries of a sketch up to which its pivoted QR takes no time, and flops of a column that take as
# long as to read a row's worth.
_QUICK, _READ = 100_000, 20
# Rank of a first try to meet a tolerance.
_FIRST = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Skeleton:
    """``a ~ a[:, idx] @ proj``, with ``rows`` ``a ~ proj @ a[idx, :]``; unpacks as ``idx, proj``.

    Attributes
    ----------
    idx : array of int, shape (..., r)
        Columns (rows), the first one chosen first.
    proj : array, shape (..., r, n) or (..., m, r)
        Coefficients; ``proj[:, idx]`` (``proj[idx, :]``) is the identity, exactly.
    info : RandomInfo
    """

    idx: Any
    proj: Any
    info: RandomInfo

    def __iter__(self) -> Iterator[Any]:
        """``idx, proj``."""
        return iter((self.idx, self.proj))


def interp_decomp(
    a: Array,
    /,
    rank: int | None = None,
    *,
    tol: float | None = None,
    rows: bool = False,
    method: InterpMethod = "auto",
    oversample: int | None = None,
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Skeleton:
    r"""Interpolative decomposition: a few columns, or rows, and coefficients that give all others.

    Parameters
    ----------
    a : array, shape (..., m, n), sparse matrix or operator
        Real or complex matrices, any batch shape; one sparse matrix or ``LinearOperator``.
    rank : int, optional
        Columns, at most ``min(m, n)``; with ``tol`` at most so many. One of the two is needed.
    tol : float, optional
        ``||a - a[:, idx] proj||_F <= tol ||a||_F`` with as few columns as the pivots show. It is
        met with three standard deviations of the error's estimate to spare. At least
        ``(64 + 4 max(m, n)^(1/2)) eps``. In a batch all members get the largest rank needed.
    rows : bool
        Choose rows.
    method : {"auto", "lupp", "cpqr", "srrqr", "deim", "leverage", "norm"}
        How columns are chosen; see Notes. ``auto`` is ``cpqr``, and ``lupp`` where the rank is
        above about ``(5 m)^(1/2)``.
    oversample : int, optional
        The sketch has ``rank + oversample`` rows or a few more. Default ``4 rank + 10``.
    rng : seed, Generator or Philox
        Of the sketch; ``info.seed`` repeats it.
    check_adjoint : bool
        Test an operator's adjoint against it first.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that hold NaN or infinity do.

    Returns
    -------
    Skeleton
        ``idx, proj`` in the library of ``a``; NumPy for sparse matrices and operators. Columns of
        bad members are 0, 1, .... ``info.error_estimate`` is ``||a - a[:, idx] proj||_F / ||a||_F``
        by rows of the sketch that nothing else has used: the mean of its square is the square of
        the error, its relative standard deviation at most ``1/(2 b)^(1/2)`` for ``b >= 16`` rows.
        Where the matrix is no larger than the sketch, it is computed exactly.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.

    See Also
    --------
    cur : columns and rows.
    qr_pivoted : an orthonormal basis of the columns, in their order.

    Notes
    -----
    The matrix is read once, by a `SparseStack` S with five nonzeros in a column: ``5 m n``
    additions. Columns are chosen and coefficients fitted by the sketch Y of its first four blocks:
    ``proj = Y[:, idx]^+ Y``, about ``2 k r n`` flops. With k rows the error is
    ``(1 + r / (k - r - 1))^(1/2)`` times that of the best coefficients in the mean (for Gaussian
    S and columns that do not depend on it), 1.12 by default. With ``tol`` k is doubled, and the
    matrix read again, until the error's estimate meets it.

    The columns are those of Y, or of ``2 r + 10`` random combinations of its rows where it is
    large: ``lupp`` are pivots of Gaussian elimination of their transpose (r combinations), the
    fastest [1]_; ``cpqr`` those of pivoted QR;
    ``srrqr`` of strong rank-revealing QR [2]_: then ``|proj| <= 2``, and without a sketch
    ``||a - a[:, idx] proj||_2 <= (1 + 4 r (n - r))^(1/2) s_{r+1}``;
    ``deim`` is elimination of the leading singular vectors [3]_;
    ``leverage`` and ``norm`` draw without replacement by the rows of these and by the columns'
    norms. In practice ``cpqr`` loses a factor of 1.2 to 3 against the best rank-r approximation
    and ``lupp`` up to 1.5 times that, though no bound better than ``2^r`` holds for all matrices.

    References
    ----------
    .. [1] Y. Dong, P.-G. Martinsson, "Simpler is better: a comparative study of randomized
       pivoting algorithms for CUR and interpolative decompositions", Adv. Comput. Math. 49 (2023),
       arXiv:2104.05877.
    .. [2] M. Gu, S. C. Eisenstat, "Efficient algorithms for computing a strong rank-revealing QR
       factorization", SIAM J. Sci. Comput. 17 (1996).
    .. [3] D. C. Sorensen, M. Embree, "A DEIM induced CUR factorization", SIAM J. Sci. Comput. 38
       (2016).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x, y = np.linspace(0, 1, 500), np.linspace(2, 3, 400)
    >>> a = 1 / np.abs(x[:, None] - y[None, :])
    >>> found = lk.interp_decomp(a, tol=1e-8, rng=0)
    >>> idx, proj = found
    >>> bool(np.linalg.norm(a - a[:, idx] @ proj) <= 1e-8 * np.linalg.norm(a)), len(idx) < 12
    (True, True)
    """
    _validate.choice("method", method, METHODS)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads(), _config.config_context(check_finite=False):
        it = given("interp_decomp", a, check_adjoint=check_adjoint)
        want = wanted(it, rank, tol, oversample)
        source = Philox(rng)
        sides = [x.H if rows else x for x in members(it)]
        found = uniform(
            [lambda rank, x=x: interpolated(x, want, method, source, rank) for x in sides]
        )
        good = np.array([f.sound for f in found], bool)
        r = max((len(f.index) for f in found), default=want.rank or 0)
        n = it.shape[0 if rows else 1]
        parts = [f.proj.conj().T if rows else f.proj for f in found]
        library = members(it)[0] if found else None
        parts = [x if library is None else _dense(library, x) for x in parts]
        answer = Skeleton(
            indices(it, [f.index for f in found], r),
            stacked(it, parts, good, (n, r) if rows else (r, n)),
            information(
                it, found[0].method if found else method, good,
                residual=[f.error for f in found], error=[f.error for f in found],
                rank=[r for _ in found], passes=max((f.passes for f in found), default=0),
                seed=source.key,
            ),
        )  # fmt: skip
        if check:
            msg = "interp_decomp: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, it.batch, policy, answer)
        return answer


def choose_method(m: int, rank: int, *, method: str = "auto") -> tuple[str, str]:
    """The method, and the reason."""
    if method != "auto":
        return method, "it was asked for"
    if (2 * rank + 10) ** 2 <= _READ * m:
        return "cpqr", "its pivots are the better ones, and take no longer than reading the matrix"
    return "lupp", f"pivoted QR for rank {rank} takes longer than reading the matrix"


def explain_interp_decomp(
    a: Any, /, rank: int | None = None, *, tol: float | None = None, rows: bool = False,
    method: InterpMethod = "auto", oversample: int | None = None, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of interp_decomp would run; with ``tol`` for the rank of the first try."""
    _validate.choice("method", method, METHODS)
    it = given("interp_decomp", a)
    want = wanted(it, rank, tol, oversample)
    m, n = it.shape[::-1] if rows else it.shape
    r = want.first(min(m, n))
    k = want.rows(r)
    chosen, reason = choose_method(m, r, method=method)
    entries = float(it.flat.nnz if it.sparse else math.prod(it.batch) * m * n)
    flops = (_BLOCKS + 1) * entries + 4.0 * math.prod(it.batch) * k * r * n
    size = np.dtype(it.dtype).itemsize
    return Explanation("interp_decomp", chosen, reason, {}, flops, entries * size)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A matrix of decaying singular values, and a rank."""
    m, n, r = {"small": (60, 40, 5), "medium": (800, 500, 20), "large": (6000, 4000, 100)}[size]
    gen = np.random.default_rng(rng)
    scale = 0.8 ** np.arange(2 * r)
    a = (gen.standard_normal((m, 2 * r)) * scale) @ gen.standard_normal((2 * r, n))
    return (xp.asarray(a), r), {"rng": 0}


# --- What is wanted ------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """Rank, tolerance, rows of the sketch beyond the rank."""

    rank: int | None
    tol: float | None
    oversample: int | None

    def first(self, most: int) -> int:
        """The rank to try first."""
        if self.rank is not None and self.tol is None:
            return self.rank
        return min(_FIRST, most if self.rank is None else self.rank)

    def rows(self, rank: int) -> int:
        """Of the part of the sketch that is fitted to."""
        over = 4 * rank + 10 if self.oversample is None else self.oversample
        return max(rank + over, _BLOCKS * (_LEAST if self.tol is None else _SURE))


def wanted(it: Given, rank: Any, tol: Any, oversample: Any) -> Wanted:
    """The arguments, looked at."""
    if rank is None and tol is None:
        msg = "rank, tol: one of them is needed"
        raise ValueError(msg)
    if rank is not None:
        rank = whole_rank(rank, it.shape)
    if tol is not None:
        least = (64 + 4 * math.sqrt(max(*it.shape, 1))) * it.eps
        tol = _validate.real_between("tol", tol, 0.0, 1.0)
        if tol < least:
            msg = (
                f"tol: must be at least {least:.2g}, what {it.dtype} allows for a matrix "
                f"{it.shape}, got {tol!r}"
            )
            raise ValueError(msg)
    if oversample is not None:
        oversample = _validate.integer("oversample", oversample, 0)
    return Wanted(rank, tol, oversample)


# --- One pass ------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """A sketch y (k, n) on the host, one that is independent of it, and the norm of the matrix."""

    y: Any
    test: Any
    size: float
    exact: bool  # y is the matrix itself
    sound: bool


def sampled_matrix(a: Matrix, k: int, source: Philox) -> Sample:
    """By one pass."""
    m = a.shape[0]
    b = -(-k // _BLOCKS)
    if (_BLOCKS + 1) * b >= m:
        # products with the units of the smaller side
        y = host(a.rows(np.arange(m)) if a.kind == "operator" else a.toarray())
        size = norm(y)
        y = y if (unit := _unit(size)) == 1 else y * unit
        return Sample(y, y, size * unit, True, math.isfinite(size))
    s = SparseStack((_BLOCKS + 1) * b, m, nnz=_BLOCKS + 1, rng=source.spawn(1))
    sketch = host(a.sketched(s))
    size = norm(sketch)
    if (unit := _unit(size)) != 1:
        sketch = sketch * unit
    # of one block each column has one sign: its own scale is 1
    test = sketch[_BLOCKS * b :] * (1 / s.scale)
    return Sample(sketch[: _BLOCKS * b], test, size * unit, False, math.isfinite(size))


def _unit(size: float) -> float:
    """A power of two that keeps products in range, 1 for nearly all."""
    if 1e-18 < size < 1e18 or not 0 < size < math.inf:
        return 1.0
    return math.ldexp(1.0, min(1000, -math.frexp(size)[1]))


def error_of(sample: Sample, index: Any, proj: Any) -> float:
    """``||A - A[:, index] proj||_F / ||A||_F``."""
    if sample.size == 0:
        return 0.0
    return norm(sample.test - sample.test[:, index] @ proj) / sample.size


def mixed(y: Any, k: int, source: Philox) -> Any:
    """Random combinations (k, n) of the rows, where there are more."""
    if len(y) <= k:
        return y
    real = np.zeros(0, y.dtype).real.dtype
    g = np.reshape(source.spawn(2).normal(k * len(y)), (k, len(y))).astype(real)
    return g @ y


def _combined(y: Any, rank: int) -> int:
    """How many combinations of the rows columns are chosen by: few where y is large."""
    return 2 * rank + 10 if y.size > _QUICK else len(y)


def leading(y: Any, rank: int, source: Philox) -> tuple[Any, Any]:
    """Leading right singular vectors (n, rank) and singular values, of combinations where large."""
    return _pivots.right_basis(mixed(y, _combined(y, rank), source), rank)


def chosen_columns(y: Any, rank: int, method: str, source: Philox, cut: float) -> Any:
    """Indices of columns of y, or of all that y stands for."""
    n = y.shape[1]
    if rank == 0 or not y.size:
        return np.arange(rank)
    if method == "srrqr":
        return _pivots.strong(y, rank, cut).index
    if method == "cpqr":
        return _pivots.geqp3(mixed(y, _combined(y, rank), source)).perm[:rank]
    if method == "norm":
        weights = _pivots.squares(y, 0)
    elif method == "lupp":
        return _pivots.lupp(mixed(y, rank, source), rank)
    else:
        w, _ = leading(y, rank, source)
        if method == "deim":
            return _pivots.deim(w)
        weights = _pivots.squares(w, 1)
    assert len(weights) == n
    return _pivots.sampled(weights, rank, source.spawn(3))


# --- One matrix ----------------------------------------------------------------------------------


class Found(NamedTuple):
    """A skeleton of one matrix, on the host, and the sketch that it comes from."""

    index: Any
    proj: Any
    error: float
    passes: int
    method: str
    sample: Any = None
    sound: bool = True


def interpolated(
    a: Matrix, want: Wanted, method: str, source: Philox, rank: int | None = None
) -> Found:
    """Of the rank that is given, or that the tolerance needs."""
    m, n = a.shape
    most = min(m, n) if want.rank is None else want.rank
    cut = max(m, n, 1) * a.eps
    fixed = rank if rank is not None else want.rank if want.tol is None else None
    if 0 in (m, n):
        return Found(np.arange(0), np.zeros((0, n), a.dtype), 0.0, 0, method)
    r = want.first(min(m, n)) if fixed is None else fixed
    k, before = want.rows(r), a.passes
    while True:
        sample = sampled_matrix(a, k, source)
        name, _ = choose_method(m, r, method=method)
        if not sample.sound:
            bad = min(most if fixed is None else fixed, n)
            return Found(
                np.arange(bad), np.zeros((bad, n), a.dtype), math.nan,
                max(1, a.passes - before), name, sample, sound=False,
            )  # fmt: skip
        if fixed is not None:
            found = _fit(sample, fixed, name, source, cut)
            error = error_of(sample, *found)
            return Found(*found, error, max(1, a.passes - before), name, sample)
        met = _least(sample, want, most, name, source, cut)
        if met is not None:
            return Found(*met, max(1, a.passes - before), name, sample)
        k *= 2


def _fit(
    sample: Sample, rank: int, method: str, source: Philox, cut: float
) -> _pivots.Interpolation:
    if method == "srrqr" and rank:
        return _pivots.strong(sample.y, rank, cut)
    index = chosen_columns(sample.y, rank, method, source, cut)
    return _pivots.fitted(sample.y, index, cut)


def _least(
    sample: Sample, want: Wanted, most: int, method: str, source: Philox, cut: float
) -> tuple[Any, Any, float] | None:
    """The least rank that meets the tolerance; None if the sketch is too small to tell."""
    assert want.tol is not None
    rows = len(sample.y)
    top = most if sample.exact else min(most, rows // 4)
    tails = _pivots.tails(_pivots.geqp3(sample.y).r)
    spare = np.ones(len(tails))
    if not sample.exact:
        # of the sketch r columns take r of the degrees of freedom, and fitting costs as much
        spare = rows / np.maximum(rows - np.arange(len(tails)), 1)
    below = np.flatnonzero(tails * spare <= want.tol)
    r = min(int(below[0]) if len(below) else len(tails) - 1, top)
    sure = 1.0 if sample.exact else 1 + 3 / math.sqrt(2 * len(sample.test))
    while True:
        found = _fit(sample, r, method, source, cut)
        error = error_of(sample, *found)
        if error * sure <= want.tol or r == most:
            return *found, error
        if r == top:
            return None
        r = min(top, r + max(1, r // 16))


def uniform(tries: list[Any]) -> list[Any]:
    """All members with the rank of the largest."""
    found = [attempt(None) for attempt in tries]
    rank = max((len(f.index) for f in found if f.sound), default=None)
    return [
        f if rank is None or len(f.index) == rank else attempt(rank)
        for f, attempt in zip(found, tries, strict=True)
    ]


def host(x: Any) -> Any:
    """As NumPy's."""
    return np.asarray(_xp.to_numpy(x))


def _dense(like: Matrix, x: Any) -> Any:
    return _xp.from_numpy(np.ascontiguousarray(x), like.xp, like=like.like)
