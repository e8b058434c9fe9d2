"""Rows drawn at random with known probabilities, as an operator that rescales them."""

import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, enter, finite_members
from linalgk.errors import NonFiniteError
from linalgk.sketch._leverage import explain_leverage, leverage_scores
from linalgk.sketch._lewis import explain_lewis, lewis_weights
from linalgk.sketch._philox import Philox
from linalgk.sketch._rows import RowSample
from linalgk.typing import Array

RowMethod: TypeAlias = Literal["leverage", "uniform", "norm", "lewis", "root_leverage", "lp"]
Scheme: TypeAlias = Literal["iid", "systematic"]
METHODS, SCHEMES = get_args(RowMethod), get_args(Scheme)
# The stream of the user's key that rows are drawn from; _volume.py has the next ones.
_STREAM = 1


def sample_rows(
    a: Array,
    /,
    k: int,
    *,
    method: RowMethod = "leverage",
    p: float = 2.0,
    scheme: Scheme = "iid",
    probabilities: Any = None,
    rng: Any = None,
    check_finite: bool | None = None,
) -> RowSample:
    """Draw k rows with probabilities ``p_i`` and rescale them.

    The operator S has the rows ``(k p_i)^(-1/p) e_i`` for the rows i that were drawn, so that
    ``E ||S A x||_p^p = ||A x||_p^p`` for all x, and ``E S^H S = I`` for ``p = 2``.

    Parameters
    ----------
    a : array, shape (m, n)
        Real or complex; a matrix of ``scipy.sparse`` for all methods but ``lewis``.
    k : int
        Draws, at least 1. A row may be drawn several times.
    method : {"leverage", "uniform", "norm", "lewis", "root_leverage", "lp"}
        The probabilities, up to their sum: see Notes.
    p : float
        The norm that S is to keep, positive. ``root_leverage`` takes ``p <= 2``.
    scheme : {"iid", "systematic"}
        Independent draws, or equally spaced points ``(u + j)/k`` on the cumulative sum of the
        probabilities, which draw row i exactly floor or ceil of ``k p_i`` times, in ascending
        order.
    probabilities : array, shape (m,), optional
        In place of a method: not negative, with sum 1. A row of probability zero is never drawn,
        and S is unbiased for those rows only that have a positive one.
    rng : seed, Generator or Philox
        Default None takes fresh entropy.
    check_finite : bool, optional
        False: a matrix that holds NaN or infinity is not looked for.

    Returns
    -------
    S : RowSample, shape (k, m)
        With ``S.indices`` and ``S.weights``; ``S @ A`` are the rescaled rows, ``S @ b`` goes with
        them. With the same seed, more draws of scheme ``iid`` begin with the fewer ones.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit, probabilities that are negative or do not add
        up to 1, a matrix of zeros.
    NonFiniteError
        The matrix holds NaN or infinity.

    See Also
    --------
    leverage_scores, lewis_weights
    volume_sample, dpp_sample : rows drawn jointly, without repetition.

    Notes
    -----
    With the leverage scores ``l_i``, the Lewis weights ``w_i`` of order p, rank r:

    ============= ================================= ============================================
    method        ``p_i`` proportional to           samples for ``||S A x||_p = (1 +- e) ||A x||_p``
    ============= ================================= ============================================
    leverage      ``l_i``                           ``r log r / e^2`` for ``p = 2``
    uniform       1                                 ``m max_i l_i`` times ``log r / e^2``
    norm          ``||a_i||_2^p``                   none; least variance of ``A^H S^H S B``
    lewis         ``w_i``                           ``r^max(1, p/2)`` to logarithms [1]_
    root_leverage ``l_i^(p/2)``, ``p <= 2``         see [2]_
    lp            half ``l_i``, half ``s_i``        see [2]_, [3]_
    ============= ================================= ============================================

    with the bound ``s_i = min(1, m^max(0, p/2-1) l_i^(p/2))`` of the sensitivity
    ``max_x |a_i x|^p / ||A x||_p^p``, and both halves scaled to sum 1/2.

    Beyond the probabilities (`leverage_scores`, `lewis_weights`) the cost is ``O(m + k)``: an
    alias table [4]_ built by sums and searches instead of a loop. It is exact up to the rounding
    of a sum of m numbers. Rows are drawn on the host, whatever library ``a`` is from.

    For leverage scores ``E ||S A x||_2^2 = ||A x||_2^2`` with ``Var <= r/k ||A x||_2^4``.

    References
    ----------
    .. [1] M. B. Cohen, R. Peng, "Lp row sampling by Lewis weights", STOC 2015.
    .. [2] D. P. Woodruff, T. Yasuda, "Sharper bounds for lp sensitivity sampling", ICML 2023:
       root leverage scores, and leverage scores together with sensitivities for ``p > 2``.
    .. [3] A. Munteanu, S. Omlor, "Optimal bounds for lp sensitivity sampling via l2
       augmentation", ICML 2024: the same for ``p <= 2``.
    .. [4] A. J. Walker, "An efficient method for generating discrete random variables with general
       distributions", ACM Trans. Math. Softw. 3 (1977).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.random.default_rng(0).standard_normal((1000, 4))
    >>> a[0] *= 1000                                 # a row that must not be missed
    >>> S = lk.sample_rows(a, 200, rng=1)
    >>> S.shape, bool((S.indices == 0).any())
    ((200, 1000), True)
    >>> singular = np.linalg.svd((S @ a) @ np.linalg.pinv(a), compute_uv=False)[:4]
    >>> bool(0.7 < singular[3] and singular[0] < 1.3)
    True
    """
    k = _validate.integer("k", k, 1)
    _validate.choice("method", method, METHODS)
    _validate.choice("scheme", scheme, SCHEMES)
    p = _validate.real_between("p", p, 0.0, math.inf, low_open=True)
    given = one_matrix("sample_rows", a, sparse=True)
    m = given.shape[0]
    philox = Philox(rng)
    if probabilities is not None:
        prob = checked_probabilities(probabilities, m)
    else:
        prob = _probabilities(a, given, method, p, check_finite, philox)
    stream = philox.spawn(_STREAM)
    draw = systematic if scheme == "systematic" else independent
    indices = draw(prob, k, stream)
    return RowSample(indices, (k * prob[indices]) ** (-1 / p), m)


def explain_rows(
    a: Any, /, k: int, *, method: RowMethod = "leverage", p: float = 2.0,
    probabilities: Any = None, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of sample_rows would run."""
    k = _validate.integer("k", k, 1)
    _validate.choice("method", method, METHODS)
    given = one_matrix("sample_rows", a, sparse=True)
    m, n = given.shape
    flops, entries, reason = 0.0, 0.0, "it was asked for or is the default; rows on the host"
    if probabilities is not None:
        reason = "probabilities were given, so that none are computed"
    elif method == "lewis":
        part = explain_lewis(a, p)
        flops, entries, reason = part.flops, part.bytes, part.reason
    elif method in ("leverage", "root_leverage", "lp"):
        part = explain_leverage(a)
        flops, entries, reason = part.flops, part.bytes, f"scores {part.method}: {part.reason}"
    elif method == "norm":
        flops, entries = 2.0 * m * n, float(m * n * np.dtype(given.dtype).itemsize)
    flops += 20.0 * m + 4.0 * k
    return Explanation("sample_rows", method, reason, {}, flops, entries + 24.0 * (m + k))


def one_matrix(function: str, a: Any, *, name: str = "a", sparse: bool = False) -> Given:
    """An argument that is one matrix, with at least one row."""
    given = enter(function, a, sparse=sparse, name=name)
    if given.batch:
        msg = (
            f"{name}: must be one matrix, shape (m, n), got {tuple(given.original.shape)}; call "
            f"{function} once for each, with an rng of its own"
        )
        raise ValueError(msg)
    if not given.shape[0]:
        msg = f"{name}: has no rows to draw from, shape {given.shape}"
        raise ValueError(msg)
    return given


def checked_probabilities(given: Any, m: int) -> Any:
    """NumPy float64 with sum 1, or the sentence that says what they lack."""
    x = _xp.as_array("probabilities", given)
    prob = np.asarray(_xp.to_numpy(x))
    if prob.dtype.kind not in "fiu":
        msg = f"probabilities: must be real, got dtype {prob.dtype}"
        raise TypeError(msg)
    eps = float(np.finfo(prob.dtype).eps) if prob.dtype.kind == "f" else 0.0
    prob = prob.astype(np.float64)
    if prob.shape != (m,):
        msg = f"probabilities: must have shape ({m},), one for each row of a, got {prob.shape}"
        raise ValueError(msg)
    if not np.isfinite(prob).all():
        where = int(np.flatnonzero(~np.isfinite(prob))[0])
        msg = f"probabilities: must be finite, got {prob[where]} at index {where}"
        raise ValueError(msg)
    if prob.min() < 0:
        where = int(prob.argmin())
        msg = f"probabilities: must not be negative, got {prob[where]:g} at index {where}"
        raise ValueError(msg)
    total = math.fsum(prob)
    if abs(total - 1) > math.sqrt(max(eps, 2.0**-52)):
        way = "divide by the sum" if total > 0 else "give at least one row a positive one"
        msg = f"probabilities: must add up to 1, got {total:.10g}; {way}"
        raise ValueError(msg)
    return prob / total


def _probabilities(
    a: Any, given: Given, method: str, p: float, check_finite: Any, philox: Philox
) -> Any:
    m = given.shape[0]
    if method == "uniform":
        return np.full(m, 1 / m)
    if method == "root_leverage" and p > 2:
        msg = f"method: 'root_leverage' serves p <= 2, got p = {p:g}; use 'lp' or 'lewis'"
        raise ValueError(msg)
    if method == "norm":
        size = _norms(given, check_finite) ** p
    elif method == "lewis":
        size = _host(lewis_weights(a, p, check_finite=check_finite))
    else:
        size = _host(leverage_scores(a, rng=philox, check_finite=check_finite))
        if method != "leverage":
            bound = size ** (p / 2)
            if p > 2:
                # in logarithms: m^(p/2-1) overflows for large p
                with np.errstate(divide="ignore"):
                    log = (p / 2 - 1) * math.log(m) + p / 2 * np.log(size)
                bound = np.exp(np.minimum(log, 0.0))
            if method == "lp":
                bound = size / (size.sum() or 1.0) + bound / (bound.sum() or 1.0)
            size = bound
    total = size.sum()
    if not total > 0:
        reason = "holds NaN" if np.isnan(total) else "every row is zero"
        msg = f"a: {reason}, so that no row matters; use method='uniform' or give probabilities"
        raise ValueError(msg)
    return size / total


def _host(x: Any) -> Any:
    return np.asarray(_xp.to_numpy(x), dtype=np.float64)


def _norms(given: Given, check_finite: Any) -> Any:
    """Norms of rows, divided by the largest."""
    if _validate.check_finite(check_finite) and not finite_members(given)[0].all():
        msg = "a: holds NaN or infinity; remove them"
        raise NonFiniteError(msg)
    if given.sparse:
        peak = np.abs(given.flat.data).max(initial=0.0) or 1.0
        scaled = abs(given.flat / peak)
        norms = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1), np.float64).reshape(-1))
    else:
        size = np.abs(np.asarray(_xp.to_numpy(given.flat))[0])
        peak = size.max(initial=0.0) or 1.0
        norms = np.sqrt(np.sum((size / peak) ** 2, axis=1, dtype=np.float64))
    return norms / (norms.max(initial=0.0) or 1.0)


# --- Draws from known probabilities --------------------------------------------------------------


def alias_table(weights: Any) -> tuple[Any, Any]:
    """Thresholds and aliases: cell i gives i below its threshold and its alias above it.

    Walker's table in the order in which a sweep would fill it: light cells, which lack something
    to 1, are filled up from the heavy ones in turn; a heavy cell that has given too much is filled
    up from the next. Who fills whom follows from two cumulative sums, with no loop.
    """
    m = len(weights)
    mass = weights * (m / weights.sum())
    light, heavy = np.flatnonzero(mass < 1), np.flatnonzero(mass >= 1)
    threshold, alias = np.minimum(mass, 1.0), np.arange(m)
    if not len(light) or not len(heavy):
        return np.ones(m), alias
    lacks, spare = np.cumsum(1 - mass[light]), np.cumsum(mass[heavy] - 1)
    before = np.concatenate([[0.0], lacks[:-1]])
    giver = np.searchsorted(spare, before, side="right")
    alias[light] = heavy[np.minimum(giver, len(heavy) - 1)]
    # the last heavy cell has nobody behind it; what it lacks is rounding
    last = np.searchsorted(lacks, spare[:-1], side="right")
    crossed = np.minimum(last, len(light) - 1)
    given_too_much = (last < len(light)) & (before[crossed] < spare[:-1])
    lack = np.where(given_too_much, lacks[crossed] - spare[:-1], 0.0)
    threshold[heavy[:-1]] = np.clip(1 - lack, 0.0, 1.0)
    alias[heavy[:-1]] = np.where(given_too_much, heavy[1:], heavy[:-1])
    return threshold, alias


def look_up(threshold: Any, alias: Any, u: Any) -> Any:
    """Indices from pairs of uniform numbers, shape (..., 2)."""
    m = len(threshold)
    cell = np.minimum((u[..., 0] * m).astype(np.int64), m - 1)
    return np.where(u[..., 1] < threshold[cell], cell, alias[cell])


def independent(prob: Any, k: int, philox: Philox) -> Any:
    """Draws with replacement."""
    return look_up(*alias_table(prob), philox.uniform(2 * k).reshape(k, 2))


def systematic(prob: Any, k: int, philox: Philox) -> Any:
    """One uniform number and k equally spaced points on the cumulative sum."""
    upper = np.cumsum(prob)
    points = np.minimum((np.arange(k) + philox.uniform(1)) / k, 1 - 2.0**-53)
    return np.searchsorted(upper / upper[-1], points, side="right").astype(np.int64)
