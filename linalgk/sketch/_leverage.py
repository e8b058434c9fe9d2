"""Leverage scores: how much each row matters to the column space."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import (
    Given,
    adjoint,
    enter,
    finite_members,
    is_sparse,
    make_info,
    rank_cut,
    report,
)
from linalgk.errors import NonFiniteError
from linalgk.sketch._stack import SparseStack
from linalgk.typing import Array, OnFail

LeverageMethod: TypeAlias = Literal["auto", "exact", "sketched"]
METHODS = get_args(LeverageMethod)
# Rows of the sketch by column: the distortion is about 12**-0.5.
_ROWS = 12
# Entries of a block of rows that is computed with at once.
_BLOCK = 2**20


def leverage_scores(
    a: Array,
    /,
    *,
    method: LeverageMethod = "auto",
    damp: Any = 0,
    k: int | None = None,
    rcond: float | None = None,
    rng: Any = 0,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    """Leverage scores of the rows, with ``damp`` those of ridge regression.

    ``l_i = a_i^H (A^H A + damp I)^+ a_i`` is the largest share that row i can have in
    ``||A x||^2 + damp ||x||^2``. The scores lie in [0, 1] and add up to the rank of A.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape; one ``scipy.sparse`` matrix as well.
    method : {"auto", "exact", "sketched"}
        See Notes. ``auto`` is ``exact``, for a sparse matrix with ``m > 16 n`` it is
        ``sketched``.
    damp : float or array, shape (...)
        Ridge, not negative; one number or one per member.
    k : int, optional
        Rows of the sketch, at least ``2 n``. Default ``12 n``. Where ``k >= m`` the scores are
        ``exact``.
    rcond : float, optional
        Singular values up to ``rcond`` times the largest count as zero. Default
        ``max(m, n) eps``.
    rng : seed, Generator or Philox
        Of the sketch. The default 0 gives the same scores every time.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that hold NaN or infinity do.
    return_info : bool
        Also return an `Info`.

    Returns
    -------
    scores : array, shape (..., m)
        Real, in the library and on the device of ``a``.
    info : Info
        Only with ``return_info``. ``error_estimate`` bounds the relative error of the scores:
        measured for ``sketched`` (see Notes), ``eps s_1/s_r`` for ``exact``. ``residual`` is the
        relative defect of the sum of the scores.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.

    See Also
    --------
    lewis_weights : the same for the p-norm.
    sample_rows : rows drawn with probabilities of this kind.

    Notes
    -----
    ``exact``: with ``A = Q R`` and ``R = U S V^H``,
    ``l_i = ||e_i^T Q U S (S^2 + damp I)^(-1/2)||^2``, and simply ``||e_i^T Q||^2`` where the rank
    is full and ``damp`` is zero. About ``4 m n^2`` flops. Scores of a matrix that is deficient in
    rank add up to the rank. A sparse matrix is never made dense as a whole: its triangle is built
    up over blocks of rows, and ``l_i`` are the norms of the rows of
    ``A V (S^2 + damp I)^(-1/2)``.

    ``sketched`` [1]_: the triangle of ``S A`` with a `SparseStack` S of k rows takes the place of
    that of A, and the norms of all rows are computed without a second sketch: ``24 n^3 + 2 m n^2``
    flops, nearly all of them products. A sketch that changes no length in the column space by
    more than the factor ``1 +- eta`` gives ``l_i / (1 + eta)^2 <= est_i <= l_i / (1 - eta)^2``,
    with ``eta`` about ``(n/k)^(1/2)``. With ``return_info`` the extreme singular values of
    ``A V S^-1`` are measured (``m n^2`` flops more) and ``error_estimate`` is a certificate:
    no score is further from its true value than by the factor ``1 + error_estimate``.

    References
    ----------
    .. [1] P. Drineas, M. Magdon-Ismail, M. W. Mahoney, D. P. Woodruff, "Fast approximation of
       matrix coherence and statistical leverage", J. Mach. Learn. Res. 13 (2012).
    .. [2] A. E. Alaoui, M. W. Mahoney, "Fast randomized kernel ridge regression with statistical
       guarantees", NeurIPS 2015: scores with a ridge.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> lk.leverage_scores(a).round(12)
    array([0.5, 0.5, 1. ])
    >>> lk.leverage_scores(a, damp=1.0).round(12)
    array([0.33333333, 0.33333333, 0.9       ])
    >>> tall = np.random.default_rng(0).standard_normal((2000, 5))
    >>> scores, info = lk.leverage_scores(tall, method="sketched", return_info=True)
    >>> worst = np.abs(scores / lk.leverage_scores(tall) - 1).max()
    >>> bool(worst <= info.error_estimate < 1)
    True
    """
    _validate.choice("method", method, METHODS)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads():
        given = enter("leverage_scores", a, sparse=True)
        m, n = given.shape
        cut, rows = rank_cut(rcond, given), _rows(k, n)
        damps = _validate.per_member("damp", damp, given.batch)
        chosen, _ = choose_method(m, n, rows, sparse=given.sparse, method=method)
        good, flat = finite_members(given)
        none = np.zeros(len(good))
        if 0 in (len(good), m, n):
            found = _Scores(zeros(given, (len(good), m)), none, none)
        elif chosen == "exact" and not given.sparse:
            found = _exact(flat, damps, cut)
        else:
            sketch = SparseStack(rows, m, nnz=8, rng=rng) if chosen == "sketched" else None
            members = [flat] if given.sparse else [flat[i, :, :] for i in range(len(good))]
            found = _approximate(members, damps, cut, sketch, measure=return_info)
        scores = hand_back(given, found.values, good)
        answer = scores
        if return_info:
            answer = scores, make_info(given, chosen, good, none, found.defect, found.error)
        if check:
            msg = "leverage_scores: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, given.batch, policy, answer)
        return answer


def choose_method(
    m: int, n: int, k: int, *, sparse: bool = False, method: str = "auto"
) -> tuple[str, str]:
    """The method, and the reason."""
    if k >= m:
        return "exact", f"a sketch of k = {k} rows is not smaller than m = {m}"
    if method != "auto":
        return method, "it was asked for"
    if sparse and m > 16 * n:
        return "sketched", "a is sparse and tall: its triangle costs 2 m n^2, a sketch's 24 n^3"
    return "exact", "it costs a few times what a sketch costs, and its error is rounding"


def explain_leverage(
    a: Any, /, *, method: LeverageMethod = "auto", k: int | None = None, **_: Any
) -> Explanation:
    """What a call of leverage_scores would run."""
    _validate.choice("method", method, METHODS)
    given = enter("leverage_scores", a, sparse=True)
    m, n = given.shape
    rows, count = _rows(k, n), math.prod(given.batch)
    chosen, reason = choose_method(m, n, rows, sparse=given.sparse, method=method)
    entries = float(given.flat.nnz if given.sparse else count * m * n)
    flops = 4.0 * count * m * n**2 + 22.0 * count * n**3
    if chosen == "sketched":
        flops = 16.0 * entries + 2.0 * count * rows * n**2 + 2.0 * entries * n
    size = np.dtype(given.dtype).itemsize
    return Explanation("leverage_scores", chosen, reason, {}, flops, entries * size)


# --- The algorithms ------------------------------------------------------------------------------


class _Scores(NamedTuple):
    """Scores of the members, bounds of their relative errors, defects of their sums."""

    values: Any
    error: Any
    defect: Any


def _gain(xp: Any, s: Any, damps: Any, cut: float) -> Any:
    """``s / (s^2 + damp)^(1/2)``, zero beyond the numerical rank."""
    shift = xp.sqrt(_xp.from_numpy(damps, xp, like=s, dtype=s.dtype))[:, None]
    kept = s > cut * s[:, :1]
    return xp.where(kept, s / xp.where(kept, xp.hypot(s, shift + 0 * s), 1.0), 0.0)


def _exact(flat: Any, damps: Any, cut: float) -> _Scores:
    xp = _xp.namespace(flat)
    q, r = xp.linalg.qr(flat)
    u, s, _ = xp.linalg.svd(r, full_matrices=False)
    gain = _gain(xp, s, damps, cut)
    host, values = np.asarray(_xp.to_numpy(s), np.float64), np.asarray(_xp.to_numpy(gain))
    # The rows of Q as they are where nothing is cut or damped: a product less. Told member by
    # member, so that the bits do not depend on the others.
    plain = (damps == 0) & values.all(axis=-1)
    basis = q
    if not plain.all():
        basis = (q @ u) * gain[:, None, :]
        if plain.any():
            basis = xp.where(_xp.from_numpy(plain, xp, like=q)[:, None, None], q, basis)
    scores = row_squares(xp, basis)
    return _Scores(scores, _sensitivity(host, values, s), _defect(scores, values))


def _approximate(
    members: list[Any], damps: Any, cut: float, sketch: Any, *, measure: bool
) -> _Scores:
    """Norms of the rows of ``A V (S^2 + damp I)^(-1/2)``, with S and V of A or of its sketch."""
    found, errors, defects = [], [], []
    for a, damp in zip(members, damps, strict=True):
        r = triangle(a) if sketch is None else triangle(sketch @ a)
        xp = _xp.namespace(r)
        _, s, vh = xp.linalg.svd(r, full_matrices=False)
        gain = _gain(xp, s[None, :], np.array([damp]), cut)[0, :]
        host, values = np.asarray(_xp.to_numpy(s), np.float64), np.asarray(_xp.to_numpy(gain))
        scale = xp.where(s > 0, gain / xp.where(s > 0, s, 1.0), 0.0)
        whiten = adjoint(xp, vh) * scale[None, :]
        rows, gram = [], 0
        for block in _blocks(a):
            product = block @ whiten
            rows.append(row_squares(xp, product))
            if measure and sketch is not None:
                gram = gram + adjoint(xp, product) @ product
        scores = xp.concat(rows)
        error = _sensitivity(host[None], values[None], s)[0]
        if measure and sketch is not None and values.any():
            # singular values of [A; damp^(1/2) I] V (S^2 + damp I)^(-1/2)
            gram = _xp.to_numpy(gram + damp * (adjoint(xp, whiten) @ whiten))
            rank = np.count_nonzero(values)
            square = np.linalg.eigvalsh(gram[:rank, :rank])
            error = float(max(square[-1], 1 / square[0]) - 1) if square[0] > 0 else math.inf
        found.append(scores)
        errors.append(error)
        defects.append(_defect(scores[None, :], values[None])[0])
    xp = _xp.namespace(found[0])
    return _Scores(xp.stack(found), np.array(errors), np.array(defects))


# --- Rows, triangles, blocks ---------------------------------------------------------------------


def row_squares(xp: Any, x: Any) -> Any:
    """Squared norms of rows."""
    if _xp.dtype_name(x) in _xp.COMPLEX:
        return xp.sum(xp.real(x) ** 2 + xp.imag(x) ** 2, axis=-1)
    return xp.sum(x * x, axis=-1)


def _blocks(a: Any) -> list[Any]:
    m, n = a.shape
    rows = max(256, _BLOCK // max(1, n))
    return [a[i : min(i + rows, m), :] for i in range(0, m, rows)]


def triangle(a: Any) -> Any:
    """R of A = Q R."""
    if is_sparse(a):
        r: Any = np.zeros((0, a.shape[1]), a.dtype)
        for block in _blocks(a):
            r = np.linalg.qr(np.concatenate([r, block.toarray()]), mode="r")
        return r
    xp = _xp.namespace(a)
    return np.linalg.qr(a, mode="r") if xp is np else xp.linalg.qr(a)[1]


def _sensitivity(s: Any, gain: Any, like: Any) -> Any:
    """``eps s_1 / s_r`` of each member."""
    least = np.where(gain > 0, s, np.inf).min(axis=-1)
    return np.finfo(_xp.dtype_name(like)).eps * s[..., 0] / np.where(least < np.inf, least, 1.0)


def _defect(scores: Any, gain: Any) -> Any:
    """How far the sum of the scores is from the effective dimension, relative to it."""
    wanted = (gain.astype(np.float64) ** 2).sum(axis=-1)
    total = np.asarray(_xp.to_numpy(scores), np.float64).sum(axis=-1)
    return np.abs(total - wanted) / np.where(wanted > 0, wanted, 1.0)


# --- The door ------------------------------------------------------------------------------------


def _rows(k: Any, n: int) -> int:
    """Rows of the sketch, a multiple of its 8 entries by column."""
    least = 2 * n
    rows = _ROWS * n if k is None else _validate.integer("k", k, max(1, least))
    return max(8, -(-rows // 8) * 8)


def zeros(given: Given, shape: tuple[int, int]) -> Any:
    real = _xp.REAL[given.dtype]
    xp = np if given.sparse else _xp.namespace(given.flat)
    return _xp.from_numpy(np.zeros(shape, real), xp, like=given.flat)


def hand_back(given: Given, values: Any, good: Any) -> Any:
    """Values of shape (b, m) with NaN in the bad members, as the caller's arrays."""
    xp = _xp.namespace(values)
    if not good.all():
        mask = _xp.from_numpy(good, xp, like=values)[:, None]
        values = xp.where(mask, values, xp.full_like(values, math.nan))
    return given.face.leave(xp.reshape(values, (*given.batch, given.shape[0])), given.original)
