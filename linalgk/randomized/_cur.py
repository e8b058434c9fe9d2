"""CUR: a matrix by some of its columns and some of its rows."""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, report
from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.randomized import _factor, _pivots, _skeleton
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import Matrix, given, members, norm
from linalgk.randomized._parts import indices, information, stacked
from linalgk.randomized._skeleton import Found, Wanted, choose_method, host
from linalgk.sketch import Philox
from linalgk.typing import Array, OnFail

CurMethod: TypeAlias = Literal["auto", "lupp", "cpqr", "srrqr", "deim", "leverage", "norm"]
CurCore: TypeAlias = Literal["auto", "sketched", "projection", "cross"]
METHODS = get_args(CurMethod)
CORES = get_args(CurCore)
# Tries to meet a tolerance, each for columns that are better by this factor.
_TRIES, _STRICTER = 8, 1.5
# Errors of rounding and truncation in units of rcond + eps / rcond.
_SLACK = 4


class Certificate(NamedTuple):
    """How well the chosen indices carry the spaces that they stand for.

    Attributes
    ----------
    eta_p, eta_q : float or array, shape (...)
        ``||W[cols, :]^+||_2`` and ``||V[rows, :]^+||_2`` for orthonormal bases W (n, r) of the
        rows of the sketch that chose the columns, and V (m, r) of the columns C; 1 is the best.
    bound : float or array, shape (...)
        Of ``||a - C U R||_F / ||a||_F``; see `cur`.
    """

    eta_p: Any
    eta_q: Any
    bound: Any


@dataclasses.dataclass(frozen=True, eq=False)
class CUR:
    """``a ~ C @ U @ R``; unpacks as ``C, U, R``.

    Attributes
    ----------
    C : array, shape (..., m, r), or sparse matrix
        ``a[:, cols]``, bit for bit.
    U : array, shape (..., r, s)
    R : array, shape (..., s, n), or sparse matrix
        ``a[rows, :]``, bit for bit.
    cols, rows : array of int, shape (..., r) and (..., s)
    certificate : Certificate
    info : RandomInfo
    """

    C: Any
    U: Any
    R: Any
    cols: Any
    rows: Any
    certificate: Certificate
    info: RandomInfo

    def __iter__(self) -> Iterator[Any]:
        """``C, U, R``."""
        return iter((self.C, self.U, self.R))


def cur(
    a: Array,
    /,
    rank: int | None = None,
    *,
    tol: float | None = None,
    method: CurMethod = "auto",
    core: CurCore = "auto",
    extra_rows: int | None = None,
    oversample: int | None = None,
    rcond: float | None = None,
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> CUR:
    r"""CUR decomposition: columns C and rows R of the matrix itself, and a small core between.

    Parameters
    ----------
    a : array, shape (..., m, n), sparse matrix or operator
        Real or complex matrices, any batch shape; one sparse matrix or ``LinearOperator``.
    rank : int, optional
        Columns, at most ``min(m, n)``; with ``tol`` at most so many. One of the two is needed.
    tol : float, optional
        Relative error in the Frobenius norm, met with three standard deviations of its estimate
        to spare, or else there is a warning. At least ``4 (rcond + eps / rcond)``. In a batch all
        members get the largest rank needed.
    method : {"auto", "lupp", "cpqr", "srrqr", "deim", "leverage", "norm"}
        How columns and rows are chosen; see `interp_decomp`.
    core : {"auto", "sketched", "projection", "cross"}
        How U is found; see Notes. ``auto`` is ``sketched``.
    extra_rows : int, optional
        R has so many rows more than C has columns, as far as there are. Default half as many: they
        cost nothing and make the error smaller; 0 makes U square.
    oversample : int, optional
        The sketch has ``rank + oversample`` rows or a few more. Default ``4 rank + 10``.
    rcond : float, optional
        Singular values of C and R, and of the block where they meet, up to ``rcond`` times the
        largest count as zero in U. Default ``eps^(1/2)``; see Notes.
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
    CUR
        ``C, U, R`` in the library of ``a``; of a sparse matrix C and R are sparse, of an operator
        NumPy's. ``info.error_estimate`` is ``||a - C U R||_F / ||a||_F`` by rows of the sketch that
        nothing else has used, as in `interp_decomp`, with the rounding of that product.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.

    Warns
    -----
    ConvergenceWarning
        ``tol`` was not met; ``info.error_estimate`` is what was.

    See Also
    --------
    interp_decomp : columns only.
    svd_lowrank : the best approximation, whose factors are no parts of the matrix.

    Notes
    -----
    The matrix is read once, by the sketch of `interp_decomp`, which chooses the columns; rows are
    chosen by C, with the same method (extra ones where ``C C[rows]^+`` is largest), and only C and
    R are read again. An operator is applied to unit vectors for them. U is

    * ``sketched``: ``(S C)^+ (S A) R^+``, the best core for the rows that the sketch has seen
      [1]_, with no further look at A. Its error is hardly larger than that of the projection
      (1.0 to 1.15 times, for slow and for fast decay), because only what the fit loses inside the
      space of the rows is added.
    * ``projection``: ``C^+ A R^+``, the best in the Frobenius norm, by ``2 m n r`` flops and
      another pass.
    * ``cross``: ``A[rows, cols]^+``, which need not see A beyond C and R; it needs extra rows
      [2]_. Its error is up to ``eta_q`` times that of ``C C^+ A``, commonly 1.2 to 1.5 times that
      of the projection.

    A certificate comes with them: ``||A - A R^+ R|| <= eta_q ||A - V V^H A||`` holds exactly, as
    does ``||A - C C^+ A|| <= eta_p ||A - A W W^H||`` [3]_ (for singular vectors V, W both norms on
    the right are the next singular value, hence ``(eta_p + eta_q) s_{r+1}`` for the projection).
    With the coefficients P of the columns' interpolation and its measured error
    ``e = ||A - C P||_F``, all three cores have

    .. math:: \lVert A - C U R \rVert_F \le (1 + \eta_q^2)^{1/2} e,

    which is ``bound``, with ``4 (rcond + eps / rcond) ||A||_F`` added to e for truncation and
    rounding. For ``deim`` without a sketch, W and V hold the singular vectors of A, and ``bound``
    for the projection is ``(eta_p + eta_q) (s_{r+1}^2 + ... )^(1/2)`` with the same added.

    U has entries as large as the inverse of the least singular value that is kept, so that the
    product ``C U R`` loses as many digits, whatever the algorithm: truncation at ``eps^(1/2)``
    [2]_ balances both errors, and no CUR is more accurate than that. The interpolative
    decomposition is.

    References
    ----------
    .. [1] S. Wang, Z. Zhang, T. Zhang, "Towards more efficient SPSD matrix approximation and CUR
       matrix decomposition", J. Mach. Learn. Res. 17 (2016).
    .. [2] T. Park, Y. Nakatsukasa, "Accuracy and stability of CUR decompositions with
       oversampling", SIAM J. Matrix Anal. Appl. 46 (2025), arXiv:2405.06375.
    .. [3] D. C. Sorensen, M. Embree, "A DEIM induced CUR factorization", SIAM J. Sci. Comput. 38
       (2016): Lemma 4.2, Theorem 4.1.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x, y = np.linspace(0, 1, 500), np.linspace(2, 3, 400)
    >>> a = 1 / np.abs(x[:, None] - y[None, :])
    >>> found = lk.cur(a, 5, rng=0)
    >>> C, U, R = found
    >>> C.shape, U.shape, R.shape
    ((500, 5), (5, 8), (8, 400))
    >>> error = np.linalg.norm(a - C @ U @ R) / np.linalg.norm(a)
    >>> bool(error < 1e-6), bool(error < 2 * found.info.error_estimate)
    (True, True)
    """
    _validate.choice("method", method, METHODS)
    _validate.choice("core", core, CORES)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads(), _config.config_context(check_finite=False):
        it = given("cur", a, check_adjoint=check_adjoint)
        want = _skeleton.wanted(it, rank, tol, oversample)
        if extra_rows is not None:
            extra_rows = _validate.integer("extra_rows", extra_rows, 0)
        plan = _Plan(
            method, choose_core(core=core)[0], extra_rows, want, Philox(rng),
            math.sqrt(it.eps) if rcond is None
            else _validate.real_between("rcond", rcond, 0.0, 1.0),
        )  # fmt: skip
        _reachable(tol, plan.cut, it)
        found = _skeleton.uniform(
            [lambda rank, x=x: _decomposed(x, plan, rank) for x in members(it)]
        )
        answer, good = _result(it, plan, found)
        if check:
            msg = "cur: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, it.batch, policy, answer)
        missed = [f.error for f in found if f.sound and not f.met]
        if missed and policy != "nan":
            msg = f"cur: tol = {tol:g} was not met; the error is about {max(missed):.2g}"
            warnings.warn(msg, ConvergenceWarning, stacklevel=2)
        return answer


def _reachable(tol: float | None, cut: float, it: Given) -> None:
    least = _SLACK * (cut + it.eps / max(cut, it.eps))
    if tol is not None and tol < least:
        msg = (
            f"tol: must be at least {least:.2g}, what the product C U R in {it.dtype} allows with "
            f"rcond = {cut:.2g}, got {tol!r}; interp_decomp reaches smaller ones"
        )
        raise ValueError(msg)


def choose_core(*, core: str = "auto") -> tuple[str, str]:
    """How the core is found, and the reason."""
    if core != "auto":
        return core, "it was asked for"
    return "sketched", "it does not read the matrix again, and loses a few percent"


def explain_cur(
    a: Any, /, rank: int | None = None, *, tol: float | None = None, method: CurMethod = "auto",
    core: CurCore = "auto", oversample: int | None = None, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of cur would run; with ``tol`` for the rank of the first try."""
    _validate.choice("method", method, METHODS)
    _validate.choice("core", core, CORES)
    it = given("cur", a)
    want = _skeleton.wanted(it, rank, tol, oversample)
    (m, n), count = it.shape, math.prod(it.batch)
    r = want.first(min(m, n))
    chosen, why = choose_method(m, r, method=method)
    heart, reason = choose_core(core=core)
    entries = float(it.flat.nnz if it.sparse else count * m * n)
    flops = 5 * entries + 4.0 * count * (want.rows(r) * r * n + (m + n) * r**2)
    passes = 2 if heart == "projection" else 1
    flops += 2.0 * entries * r * (passes - 1)
    size = np.dtype(it.dtype).itemsize
    text = f"{why}; core {heart!r}: {reason}"
    return Explanation("cur", chosen, text, {}, flops, passes * entries * size)


sample = _skeleton.sample


# --- One matrix ----------------------------------------------------------------------------------


class _Plan(NamedTuple):
    method: str
    core: str
    extra: int | None
    want: Wanted
    source: Philox
    cut: float


class _Parts(NamedTuple):
    """Of one member; ``index`` are the columns."""

    index: Any
    rows: Any
    c: Any
    u: Any
    r: Any
    eta_p: float
    eta_q: float
    bound: float
    error: float
    passes: int
    met: bool
    method: str
    sound: bool = True


def _decomposed(a: Matrix, plan: _Plan, rank: int | None) -> _Parts:
    tol = plan.want.tol
    if rank is not None or tol is None:
        return _parts(a, plan, _columns(a, plan, plan.want, rank))
    goal = tol
    for attempt in range(_TRIES):
        least = 64 * a.eps
        found = _columns(a, plan, plan.want._replace(tol=max(goal, least)), None)
        parts = _parts(a, plan, found)
        exact = found.sample is None or found.sample.exact
        sure = 1.0 if exact else 1 + 3 / math.sqrt(2 * len(found.sample.test))
        full = len(parts.index) == (min(a.shape) if plan.want.rank is None else plan.want.rank)
        if not parts.sound or parts.error * sure <= tol:
            return parts
        if full or attempt == _TRIES - 1:
            break
        goal /= _STRICTER
    return parts._replace(met=False)


def _columns(a: Matrix, plan: _Plan, want: Wanted, rank: int | None) -> Found:
    return _skeleton.interpolated(a, want, plan.method, plan.source, rank)


def _parts(a: Matrix, plan: _Plan, found: Found) -> _Parts:
    (m, n), cols, sample = a.shape, found.index, found.sample
    r = len(cols)
    count = min(m, r + (-(-r // 2) if plan.extra is None else plan.extra))
    if not found.sound or 0 in (m, n, r):
        rows = np.arange(count)
        c, x = np.zeros((m, r), a.dtype), np.zeros((count, n), a.dtype)
        u = np.zeros((r, count), a.dtype)
        bound = found.error
        return _Parts(
            cols, rows, _like(a, c), _like(a, u), _like(a, x), 1.0, 1.0, bound, found.error,
            found.passes, True, found.method, found.sound,
        )  # fmt: skip
    c = a.columns(cols)
    left = _Basis(host(c), plan.cut)
    rows = _rows(left, found, plan, count)
    x = a.rows(rows)
    right = host(x)
    if plan.core == "cross":
        u = _cross(left.x[rows], plan.cut)
    else:
        turned = _Basis(right.conj().T, plan.cut)
        inside = found.proj @ turned.q
        if plan.core == "projection":
            product = host(a.matmat(_like(a, turned.q)))
            inside = left.inverse @ (left.q.conj().T @ product)
        u = inside @ turned.inverse.conj().T
    if sample.size == 0:
        error = 0.0
    else:
        error = norm(sample.test - (sample.test[:, cols] @ u) @ right) / sample.size
    figures = _certified(found, rows, plan, left)
    # the parts themselves are exact: sparse ones are not made dense for the caller
    kept = _kept(a, c, x, cols, rows)
    return _Parts(
        cols, rows, kept[0], _like(a, u), kept[1], *figures, error,
        found.passes + (1 if plan.core == "projection" else 0), True, found.method,
    )  # fmt: skip


class _Basis:
    """Orthonormal q (m, s) for x (m, r) of rank s, and ``x^+ = inverse q^H``."""

    def __init__(self, x: Any, cut: float) -> None:
        self.x = x
        q, t = _factor.qr(x)
        inverse = _factor.pseudoinverse(t, cut)
        self.q = q @ inverse.right.conj().T
        self.inverse = inverse.left


def _cross(block: Any, cut: float) -> Any:
    inverse = _factor.pseudoinverse(block, cut)
    return inverse.left @ inverse.right


def _rows(left: _Basis, found: Found, plan: _Plan, count: int) -> Any:
    """Indices of rows that stand for those of C, shape (count,)."""
    x, r = left.x, left.x.shape[1]
    source = plan.source.spawn(4)
    if found.method in ("leverage", "norm"):
        weights = _pivots.squares(left.q, 1)
        if found.method == "norm":
            # the rows of C P, since A itself is not read again
            (t,) = (_factor.triangle(found.proj.conj().T),)
            weights = _pivots.squares(x @ t.conj().T, 1)
        return _pivots.sampled(weights, count, source)
    if found.method == "cpqr":
        rows = _pivots.geqp3(x.conj().T).perm[:r]
    elif found.method == "srrqr":
        rows = _pivots.strong(x.T, r, plan.cut).index
    elif found.method == "deim":
        rows = _pivots.deim(_left(found.sample.y if found.sample.exact else x, r))
    else:
        rows = _pivots.lupp(x.T, r)
    if count == r:
        return rows
    # the rows that the chosen ones carry worst: those with the largest coefficients
    inverse = _factor.pseudoinverse(left.q[rows], plan.cut)
    weights = _pivots.squares(left.q @ (inverse.left @ inverse.right), 1)
    weights[rows] = -1
    more = np.argsort(-weights, kind="stable")[: count - r]
    return np.concatenate([rows, more])


def _certified(found: Found, rows: Any, plan: _Plan, left: _Basis) -> tuple[float, float, float]:
    """eta_p, eta_q and the bound."""
    sample, cols, rank, error = found.sample, found.index, len(found.index), found.error
    eta_q = _eta(left.q[rows])
    eps = float(np.finfo(left.x.dtype).eps)
    floor = _SLACK * (plan.cut + eps / max(plan.cut, eps))
    bound = math.sqrt(1 + eta_q**2) * (error + floor)
    if found.method in ("deim", "leverage"):
        w, s = _skeleton.leading(sample.y, rank, plan.source)
    else:
        least = max(sample.y.shape) * eps
        w = _Basis(_skeleton.mixed(sample.y, rank, plan.source).conj().T, least).q
    eta_p = _eta(w[cols])
    if found.method == "deim" and sample.exact and sample.size > 0:
        # W and V are the singular vectors of A
        eta_q = _eta(_left(sample.y, rank)[rows])
        if plan.core == "projection":
            bound = (eta_p + eta_q) * (norm(s[rank:]) / sample.size + floor)
    return eta_p, eta_q, bound


def _left(y: Any, rank: int) -> Any:
    """Leading left singular vectors (k, rank)."""
    return _pivots.right_basis(y.conj().T, rank)[0]


def _eta(block: Any) -> float:
    """``||block^+||_2``; infinite where columns are lost."""
    s = _factor.svdvals(block)
    if len(s) < block.shape[1] or not len(s):
        return 1.0 if not block.shape[1] else math.inf
    return float(1 / s[-1]) if s[-1] > 0 else math.inf


def _like(a: Matrix, x: Any) -> Any:
    return _xp.from_numpy(np.ascontiguousarray(x), a.xp, like=a.like)


def _kept(a: Matrix, c: Any, r: Any, cols: Any, rows: Any) -> tuple[Any, Any]:
    if a.kind == "sparse":
        return a.a[:, cols], a.a[rows, :]
    return c, r


# --- The result ----------------------------------------------------------------------------------


def _result(it: Given, plan: _Plan, found: list[_Parts]) -> tuple[CUR, Any]:
    (m, n) = it.shape
    good = np.array([f.sound for f in found], bool)
    r = max((len(f.index) for f in found), default=plan.want.rank or 0)
    s = max((len(f.rows) for f in found), default=r)
    method = found[0].method if found else plan.method
    info = information(
        it, f"{method}+{plan.core}", good, residual=[f.error for f in found],
        error=[f.error for f in found], rank=[r for _ in found],
        passes=max((f.passes for f in found), default=0), seed=plan.source.key,
    )  # fmt: skip
    figures = [
        information(
            it, "", good, residual=values, error=values, rank=[r for _ in found], passes=0, seed=()
        ).residual
        for values in ([f.eta_p for f in found], [f.eta_q for f in found], [f.bound for f in found])
    ]
    if it.sparse and good.all() and r:
        form = getattr(it.original, "format", "csr")
        c, x = (part.asformat(form) for part in (found[0].c, found[0].r))
    elif it.sparse:
        kind = type(it.flat)
        c, x = kind(found[0].c), kind(found[0].r)
    else:
        c = stacked(it, [f.c for f in found], good, (m, r))
        x = stacked(it, [f.r for f in found], good, (s, n))
    return CUR(
        c,
        stacked(it, [f.u for f in found], good, (r, s)),
        x,
        indices(it, [f.index for f in found], r),
        indices(it, [f.rows for f in found], s),
        Certificate(*figures),
        info,
    ), good
