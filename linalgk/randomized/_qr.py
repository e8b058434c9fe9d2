"""QR of tall matrices by a sketch and Cholesky, with and without column pivoting."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate
from linalgk._dispatch import Explanation
from linalgk._members import Given, enter, report
from linalgk.errors import NonFiniteError
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._parts import indices, information, stacked, whole_rank
from linalgk.randomized._qr_steps import Factors, pivoted, plain
from linalgk.sketch import Philox
from linalgk.typing import Array, OnFail

CholqrMethod: TypeAlias = Literal["auto", "sketched", "cholqr2", "shifted", "householder"]
PivotedMethod: TypeAlias = Literal["auto", "cqrrpt", "geqp3"]
METHODS = get_args(CholqrMethod)
PIVOTED_METHODS = get_args(PivotedMethod)
# Rows of the sketch by column: its distortion is about 3**-0.5.
_ROWS = 3
# How many more rows than columns it takes for a sketch to be worth its while.
_TALL = 6


@dataclasses.dataclass(frozen=True, eq=False)
class QR:
    """``a = Q @ R``; unpacks as ``Q, R``.

    Attributes
    ----------
    Q : array, shape (..., m, r)
        Orthonormal columns, ``r = min(m, n)``.
    R : array, shape (..., r, n)
        Upper triangular.
    info : RandomInfo
    """

    Q: Any
    R: Any
    info: RandomInfo

    def __iter__(self) -> Iterator[Any]:
        """``Q, R``."""
        return iter((self.Q, self.R))


@dataclasses.dataclass(frozen=True, eq=False)
class PivotedQR:
    """``a[..., perm] = Q @ R``; unpacks as ``Q, R, perm``.

    Attributes
    ----------
    Q : array, shape (..., m, r)
        Orthonormal columns.
    R : array, shape (..., r, n)
        Upper trapezoidal.
    perm : array of int, shape (..., n)
        The order of the columns.
    rank : int or array of int, shape (...)
        r. In a batch r is the largest rank; beyond its own a member has zero columns in Q and zero
        rows in R.
    info : RandomInfo
    """

    Q: Any
    R: Any
    perm: Any
    rank: Any
    info: RandomInfo

    def __iter__(self) -> Iterator[Any]:
        """``Q, R, perm``."""
        return iter((self.Q, self.R, self.perm))


def cholqr(
    a: Array,
    /,
    *,
    method: CholqrMethod = "auto",
    k: int | None = None,
    nnz: int = 8,
    rng: Any = 0,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> QR:
    r"""QR factorization of tall matrices by products: a sketch, triangular solves, Cholesky.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape.
    method : {"auto", "sketched", "cholqr2", "shifted", "householder"}
        See Notes. ``auto`` is ``sketched`` where m is at least twice ``k``, else ``householder``.
    k : int, optional
        Rows of the sketch, at least n; default ``3 n``.
    nnz : int
        Nonzeros in each column of the sketch, a `SparseStack`.
    rng : seed, Generator or Philox
        Of the sketch. The default 0 gives the same factors every time.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that hold NaN or infinity do.

    Returns
    -------
    QR
        ``Q, R`` in the library of ``a``. ``info.error_estimate`` bounds the loss of orthogonality
        ``||Q^H Q - I||_2``: ``8 n^(1/2) eps kappa^2``, where kappa, the condition number of what
        was factored last, is computed; ``(8 n^(1/2) + 4 m^(1/2)) eps`` of ``householder``.
        ``info.residual`` is ``n^(1/2) eps``, or ``(n^(1/2) + m^(1/2)) eps``, of which
        ``||A - Q R||_F / ||A||_F`` is a small multiple. ``info.method`` ends in ``+householder``
        where Cholesky could not do it.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.

    See Also
    --------
    qr_pivoted : with the columns in order of importance.

    Notes
    -----
    ``sketched`` [1]_: with the triangle :math:`R_s` of ``S A`` all singular values of
    :math:`A R_s^{-1}` lie in :math:`[1/(1+\eta), 1/(1-\eta)]`, :math:`\eta \approx (n/k)^{1/2}`,
    whatever A is, and Cholesky's factor of its Gram matrix is safe up to condition numbers of A
    near 1/eps: ``3 m n^2`` flops, all of them products. Where :math:`R_s` shows that A has a
    condition number of 10 or so, its own Gram matrix is taken: ``2 m n^2``.

    ``cholqr2``: Cholesky of ``A^H A``, twice, ``4 m n^2`` flops; for condition numbers below
    ``eps^(-1/2)``. ``shifted`` [2]_: once more before, with the shift
    ``11 (m n + n (n + 1)) eps ||A||^2``; up to about ``1 / eps``, ``6 m n^2`` flops.

    ``householder``: LAPACK's, or the library's. It takes over wherever a Cholesky factorization
    fails or has lost too much, for matrices that are deficient in rank among others, so that Q
    is always orthonormal. Then trailing diagonal entries of R are zero to rounding.

    References
    ----------
    .. [1] A. J. Higgins, D. B. Szyld, E. G. Boman, I. Yamazaki, "Analysis of randomized
       Householder-Cholesky QR factorization with multisketching", Numer. Math. (2025),
       arXiv:2309.05868: rand_cholQR.
    .. [2] T. Fukaya, R. Kannan, Y. Nakatsukasa, Y. Yamamoto, Y. Yanagisawa, "Shifted Cholesky QR
       for computing the QR factorization of ill-conditioned matrices", SIAM J. Sci. Comput. 42
       (2020).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.vander(np.linspace(0, 1, 4000), 10)
    >>> Q, R = lk.cholqr(a)
    >>> bool(np.allclose(Q @ R, a, atol=1e-14)), bool(np.allclose(Q.T @ Q, np.eye(10)))
    (True, True)
    """
    _validate.choice("method", method, METHODS)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads():
        given = enter("cholqr", a, host=True)
        rows, nnz = _sizes(given, k, nnz)
        chosen, _ = choose_cholqr(*given.shape, rows, method=method)
        source = Philox(rng)
        found = [plain(x, chosen, rows, nnz, source) for x in _members(given)]
        good = np.array([f.sound for f in found], bool)
        r = min(given.shape)
        info = information(
            given, _name(chosen, found), good,
            residual=[f.residual for f in found],
            error=[f.error for f in found], rank=[r for _ in found],
            passes=max((f.passes for f in found), default=0), seed=source.key,
        )  # fmt: skip
        answer = QR(
            stacked(given, [f.q for f in found], good, (given.shape[0], r)),
            stacked(given, [f.r for f in found], good, (r, given.shape[1])),
            info,
        )
        if check:
            msg = "cholqr: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, given.batch, policy, answer)
        return answer


def qr_pivoted(
    a: Array,
    /,
    *,
    method: PivotedMethod = "auto",
    rank: int | None = None,
    tol: float | None = None,
    k: int | None = None,
    nnz: int = 8,
    rng: Any = 0,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> PivotedQR:
    r"""QR factorization with column pivoting, of tall matrices by products only.

    ``a[:, perm] = Q R``; the columns that matter most come first, and Q and R end at the rank.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape.
    method : {"auto", "cqrrpt", "geqp3"}
        See Notes. ``auto`` is ``cqrrpt`` where m is at least twice ``k``, else ``geqp3``.
    rank : int, optional
        Columns of Q, at most ``min(m, n)``.
    tol : float, optional
        ``||a[:, perm] - Q R||_F <= tol ||a||_F`` with as few columns of Q as the pivots allow.
        Default: the numerical rank, ``tol = (16 + n^(1/2)) eps``, which is also the least positive
        one. 0 keeps all ``min(m, n)`` columns.
    k : int, optional
        Rows of the sketch, at least n; default ``3 n``.
    nnz : int
        Nonzeros in each column of the sketch, a `SparseStack`.
    rng : seed, Generator or Philox
        Of the sketch. The default 0 gives the same factors every time.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that hold NaN or infinity do.

    Returns
    -------
    PivotedQR
        ``Q, R, perm``, and ``rank``. ``info.residual`` is ``||a[:, perm] - Q R||_F / ||a||_F``,
        estimated from the sketch (without one: computed) where columns were left out, else
        rounding as in `cholqr`; ``info.error_estimate`` bounds ``||Q^H Q - I||_2`` as there.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.

    See Also
    --------
    interp_decomp, cur : columns that stand for the matrix, without Q.

    Notes
    -----
    ``cqrrpt`` [1]_: LAPACK's pivoted QR of the sketch ``S A`` gives the order of the columns, the
    rank r, and a triangle that makes the chosen columns well conditioned, whose Cholesky factor
    completes R: ``3 m r^2`` flops, and ``2 m r (n-r)`` for the rows of R beyond r columns. A
    well-conditioned matrix takes ``2 m n^2``; LAPACK's own routine takes ``4 m n^2``, half of them
    at the speed of memory. With the distortion :math:`\eta \approx (n/k)^{1/2}` of S,
    the quality of the pivots is that of LAPACK's for ``S A`` but for the factor
    :math:`(1+\eta)/(1-\eta)` [1]_: in particular
    :math:`|R_{jj}| \le \frac{1+\eta}{1-\eta} |R_{ii}|` for i < j.

    ``geqp3``: LAPACK's, on the host, for matrices that are not tall.

    References
    ----------
    .. [1] M. Melnichenko, O. Balabanov, R. Murray, J. Demmel, M. W. Mahoney, P. Luszczek,
       "CholeskyQR with randomization and pivoting for tall matrices (CQRRPT)", SIAM J. Matrix
       Anal. Appl. (2025), arXiv:2311.08316: Algorithm 3, Theorems 2.3 and 2.5.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((5000, 20)) @ rng.standard_normal((20, 30))
    >>> Q, R, perm = lk.qr_pivoted(a)
    >>> Q.shape, R.shape
    ((5000, 20), (20, 30))
    >>> bool(np.allclose(Q @ R, a[:, perm]))
    True
    """
    _validate.choice("method", method, PIVOTED_METHODS)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads():
        given = enter("qr_pivoted", a, host=True)
        m, n = given.shape
        rows, nnz = _sizes(given, k, nnz)
        most = min(m, n) if rank is None else whole_rank(rank, given.shape)
        tol = _tolerance(tol, given)
        chosen, _ = choose_pivoted(m, n, rows, method=method)
        source = Philox(rng)
        found = [pivoted(x, chosen, rows, nnz, source, most, tol) for x in _members(given)]
        good = np.array([f.sound for f in found], bool)
        ranks = [f.q.shape[1] for f in found]
        top = max(ranks, default=most if not math.prod(given.batch) else 0)
        info = information(
            given, _name(chosen, found), good, residual=[f.residual for f in found],
            error=[f.error for f in found], rank=ranks,
            passes=max((f.passes for f in found), default=0), seed=source.key,
        )  # fmt: skip
        answer = PivotedQR(
            stacked(given, [f.q for f in found], good, (m, top)),
            stacked(given, [f.r for f in found], good, (top, n)),
            indices(given, [f.perm for f in found], n), info.rank, info,
        )  # fmt: skip
        if check:
            msg = "qr_pivoted: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, given.batch, policy, answer)
        return answer


# --- Choices -------------------------------------------------------------------------------------


def choose_cholqr(m: int, n: int, k: int, *, method: str = "auto") -> tuple[str, str]:
    """The method, and the reason."""
    if m < n or 0 in (m, n):
        return "householder", f"a matrix ({m}, {n}) is not tall"
    if method == "sketched" and k > m:
        return "householder", f"a sketch of k = {k} rows is not smaller than m = {m}"
    if method != "auto":
        return method, "it was asked for"
    if m >= 2 * k:
        return "sketched", f"m = {m} is large beside the k = {k} rows of a sketch: products suffice"
    return "householder", f"m = {m} is less than twice the k = {k} rows of a sketch"


def choose_pivoted(m: int, n: int, k: int, *, method: str = "auto") -> tuple[str, str]:
    """The method, and the reason."""
    if m < n or 0 in (m, n):
        return "geqp3", f"a matrix ({m}, {n}) is not tall"
    if method == "cqrrpt" and k > m:
        return "geqp3", f"a sketch of k = {k} rows is not smaller than m = {m}"
    if method != "auto":
        return method, "it was asked for"
    if m >= 2 * k:
        return "cqrrpt", f"m = {m} is large beside the k = {k} rows of a sketch: products suffice"
    return "geqp3", f"m = {m} is less than twice the k = {k} rows of a sketch"


def explain_cholqr(
    a: Any, /, *, method: CholqrMethod = "auto", k: int | None = None, nnz: int = 8, **_: Any
) -> Explanation:
    """What a call of cholqr would run."""
    _validate.choice("method", method, METHODS)
    given = enter("cholqr", a, host=True)
    (m, n), (rows, nnz) = given.shape, _sizes(given, k, nnz)
    chosen, reason = choose_cholqr(m, n, rows, method=method)
    products = {"sketched": 3.0, "cholqr2": 4.0, "shifted": 6.0, "householder": 4.0}[chosen]
    flops = products * m * n**2 + (2.0 * nnz * m * n if chosen == "sketched" else 0.0)
    return _explanation("cholqr", given, chosen, reason, flops)


def explain_qr_pivoted(
    a: Any, /, *, method: PivotedMethod = "auto", k: int | None = None, nnz: int = 8, **_: Any
) -> Explanation:
    """What a call of qr_pivoted would run."""
    _validate.choice("method", method, PIVOTED_METHODS)
    given = enter("qr_pivoted", a, host=True)
    (m, n), (rows, nnz) = given.shape, _sizes(given, k, nnz)
    chosen, reason = choose_pivoted(m, n, rows, method=method)
    flops = 3.0 * m * n**2 + 2.0 * nnz * m * n + 2.0 * rows * n**2
    flops = flops if chosen == "cqrrpt" else 4.0 * m * n * min(m, n)
    return _explanation("qr_pivoted", given, chosen, reason, flops)


def _explanation(
    function: str, given: Given, chosen: str, reason: str, flops: float
) -> Explanation:
    count, size = math.prod(given.batch), np.dtype(given.dtype).itemsize
    moved = 3.0 * count * math.prod(given.shape) * size
    return Explanation(function, chosen, reason, {}, count * flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A tall matrix of the size that is named."""
    m, n = {"small": (40, 5), "medium": (2000, 50), "large": (50_000, 200)}[size]
    return (xp.asarray(np.random.default_rng(rng).standard_normal((m, n))),), {}


# --- The door ------------------------------------------------------------------------------------


def _members(given: Given) -> list[Any]:
    return [given.flat[i, :, :] for i in range(math.prod(given.batch))]


def _sizes(given: Given, k: Any, nnz: Any) -> tuple[int, int]:
    """Rows of the sketch and nonzeros of its columns."""
    n = given.shape[1]
    nnz = _validate.integer("nnz", nnz, 1)
    rows = _ROWS * n if k is None else _validate.integer("k", k, max(1, n))
    return max(nnz, -(-rows // nnz) * nnz), nnz


def _tolerance(tol: Any, given: Given) -> float:
    least = (16 + math.sqrt(given.shape[1])) * given.eps
    if tol is None:
        return least
    value = _validate.real_between("tol", tol, 0.0, 1.0)
    if 0 < value < least:
        msg = (
            f"tol: must be 0 or at least {least:.2g}, what {given.dtype} allows for "
            f"n = {given.shape[1]}, got {value!r}"
        )
        raise ValueError(msg)
    return value


def _name(chosen: str, found: list[Factors]) -> str:
    return chosen + max((f.extra for f in found), default="")
