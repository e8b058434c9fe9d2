"""Lewis weights: how much each row matters to the p-norms of the column space."""

import math
from typing import Any

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import adjoint, enter, finite_members, make_info, rank_cut, report
from linalgk.errors import NonFiniteError, NotConvergedError
from linalgk.sketch._leverage import hand_back, row_squares, triangle, zeros
from linalgk.typing import Array, OnFail

_WIDE = {"float32": "float64", "complex64": "complex128"}


def lewis_weights(
    a: Array,
    /,
    p: float,
    *,
    tol: float | None = None,
    max_iter: int = 1000,
    rcond: float | None = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    """Lewis weights of the rows, the leverage scores of the p-norm.

    The one positive solution of ``w_i = (a_i^H (A^H W^(1-2/p) A)^-1 a_i)^(p/2)``, ``W = diag(w)``:
    the weights are the leverage scores of ``W^(1/2-1/p) A``. They lie in [0, 1] and add up to the
    rank of A.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape.
    p : float
        Positive and finite. For ``p = 2`` the weights are the leverage scores.
    tol : float, optional
        Wanted relative accuracy of every weight, at least ``256 eps``. Default ``1e-10``. Computed
        in float64, for JAX arrays without 64 bits in float32 with ``tol = 256 eps``.
    max_iter : int
        Cap of the iterations.
    rcond : float, optional
        Singular values up to ``rcond`` times the largest count as zero. Default
        ``max(m, n) eps``.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN or infinity, or that did not converge.
    return_info : bool
        Also return an `Info`.

    Returns
    -------
    w : array, shape (..., m)
        Real, in the library and on the device of ``a``. Rows of zeros have weight zero.
    info : Info
        Only with ``return_info``. ``residual`` is the largest ``|log(F_i(w) / w_i)|`` with F the
        right-hand side above, at the last weights it was computed for; ``error_estimate`` is
        ``residual / min(1, p/2)``.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    NotConvergedError
        ``max_iter`` was reached.

    See Also
    --------
    leverage_scores, sample_rows

    Notes
    -----
    Rows drawn with probabilities ``w_i / n`` preserve ``||A x||_p`` for all x with about
    ``n log n / eps^2`` samples for ``1 <= p <= 2`` and ``n^(p/2)`` of them for ``p > 2`` [1]_.
    Row i has at most the share ``w_i`` of ``||A x||_p^p`` for ``p <= 2``, and at most
    ``n^(p/2-1) w_i`` for ``p > 2``.

    The iteration is ``w <- w^(1-t) F(w)^t``. For ``p <= 2`` the step ``t = 1`` contracts the error
    of ``log w`` by ``1 - p/2`` in the largest norm [1]_. For ``p > 2`` the step ``t = 2/p`` sets w
    to the leverage scores of ``W^(1/2-1/p) A``. In ``v = w^(1-2/p)`` it is a step of majorization
    and minimization of the convex potential ``-log det(A^H V A) + (1-2/p) sum v_i^(p/(p-2))`` [2]_
    whose minimum the Lewis weights are: ``log det`` is convex in ``log v``, so that its tangent
    there majorizes, and the potential falls in every step, for every ``p``. The error falls by
    ``1 - 2/p`` a step in the end. Both are what is fallen back to: first comes ``t = 4/(2+p)``,
    which is the best there is near the solution, where it contracts by ``|2-p|/(2+p)``; it is kept
    as long as the residual falls faster than the safe step guarantees.

    An iteration costs ``4 m n^2`` flops of products and ``10 n^3``. The basis of the column space
    that it computes in is the last iteration's, made orthonormal for the new weights, so that the
    error of a weight is ``eps`` times a small constant and the condition of A, also of weights
    that are tiny; nothing of the error is carried on.

    References
    ----------
    .. [1] M. B. Cohen, R. Peng, "Lp row sampling by Lewis weights", STOC 2015.
    .. [2] M. Fazel, Y. T. Lee, S. Padmanabhan, A. Sidford, "Computing Lewis weights to high
       precision", SODA 2022: the potential.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.array([[1.0], [2.0], [1.0]])      # one column: |a_i|^p / sum |a_j|^p
    >>> lk.lewis_weights(a, 1.0).round(9)
    array([0.25, 0.5 , 0.25])
    >>> b = np.random.default_rng(0).standard_normal((50, 4))
    >>> w, info = lk.lewis_weights(b, 6.0, return_info=True)
    >>> float(w.sum().round(9)), bool(info.residual < 1e-10)
    (4.0, True)
    """
    p = _validate.real_between("p", p, 0.0, math.inf, low_open=True)
    max_iter = _validate.integer("max_iter", max_iter, 1)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads():
        given = enter("lewis_weights", a)
        m, n = given.shape
        cut = rank_cut(rcond, given)
        good, flat = finite_members(given)
        # logarithms of weights near 1e-30 are too coarse in float32
        xp, count = _xp.namespace(flat), len(good)
        flat = xp.astype(flat, _xp.dtype_of(xp, _WIDE.get(given.dtype, given.dtype)), copy=False)
        eps = float(np.finfo(_xp.dtype_name(flat)).eps)
        target = max(1e-10, 256 * eps)
        if tol is not None:
            target = _validate.real_between("tol", tol, 256 * eps, 1.0)
        target = max(target * min(1.0, p / 2), 64 * eps)
        iterations, residual = np.zeros(count), np.zeros(count)
        weights = zeros(given, (count, m))
        if 0 not in (count, m, n):
            rows = []
            for i in range(count):
                w, iterations[i], residual[i] = _lewis(flat[i, :, :], p, target, max_iter, cut)
                rows.append(w)
            weights = xp.astype(xp.stack(rows), weights.dtype, copy=False)
        late = good & ~(residual <= target)
        weights = hand_back(given, weights, good & ~late)
        answer = weights
        if return_info:
            method = "contraction" if p <= 2 else "majorization"
            bound = residual / min(1.0, p / 2)
            info = make_info(given, method, good & ~late, iterations, residual, bound)
            answer = weights, info
        if check:
            msg = "lewis_weights: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, given.batch, policy, answer)
        worst = float(residual[late].max()) if late.any() else 0.0
        msg = (
            f"lewis_weights: the residual is {worst:.1e} after {max_iter} iterations"
            f"{{}}; give a larger max_iter or tol"
        )
        report(NotConvergedError, msg, late, given.batch, policy, answer)
        return answer


def explain_lewis(a: Any, /, p: float, **_: Any) -> Explanation:
    """What a call of lewis_weights would run."""
    p = _validate.real_between("p", p, 0.0, math.inf, low_open=True)
    given = enter("lewis_weights", a)
    (m, n), count = given.shape, math.prod(given.batch)
    method = "contraction" if p <= 2 else "majorization"
    rate = abs(2 - p) / (2 + p)
    steps = 1 if rate == 0 else 1 + math.ceil(math.log(1e-10) / math.log(rate))
    reason = f"p = {p:g}; about {steps} iterations, the error falls by {rate:.2g} in each"
    flops = count * (4.0 * m * n**2 + 22.0 * n**3 + steps * (4.0 * m * n**2 + 10.0 * n**3))
    size = np.dtype(given.dtype).itemsize
    return Explanation(
        "lewis_weights", method, reason, {}, flops, 3.0 * steps * count * m * n * size
    )


def _lewis(a: Any, p: float, tol: float, max_iter: int, cut: float) -> tuple[Any, int, float]:
    """Weights, iterations, and the last residual, which is to be at most tol."""
    xp = _xp.namespace(a)
    _, s, vh = xp.linalg.svd(triangle(a), full_matrices=False)
    rank = int(xp.sum(xp.astype(s > cut * s[0], xp.int64)))
    if not rank:
        return xp.zeros_like(row_squares(xp, a)), 0, 0.0
    basis = a @ (adjoint(xp, vh[:rank, :]) / s[None, :rank])
    leverage = row_squares(xp, basis)
    alive = leverage > 0
    power, safe, best_step = 1 - 2 / p, min(1.0, 2 / p), 4 / (2 + p)
    rate = max(1 - p / 2, 1 - 2 / p)
    log_w = min(1.0, p / 2) * xp.log(xp.where(alive, leverage, 1.0))
    tried, best = None, math.inf
    iteration, residual = 0, math.inf
    for iteration in range(1, max_iter + 1):  # noqa: B007 - it is returned
        # B <- B (B^H W^(1-2/p) B)^(-1/2): norms of its rows are what F needs, in any basis
        exponent = power * log_w
        top = xp.max(xp.where(alive, exponent, -math.inf))
        weight = xp.where(alive, xp.exp(exponent - top), 0.0)
        lam, vectors = xp.linalg.eigh(adjoint(xp, basis) @ (weight[:, None] * basis))
        lam = xp.where(lam > cut * lam[-1], lam, cut * lam[-1])
        basis = basis @ (vectors / xp.sqrt(lam)[None, :])
        quadratic = row_squares(xp, basis)
        alive = alive & (quadratic > 0)
        log_f = p / 2 * (xp.log(xp.where(alive, quadratic, 1.0)) - top)
        step = xp.where(alive, log_f - log_w, 0.0)
        residual = float(xp.max(xp.abs(step)))
        if residual <= tol:
            break
        # Every bold step that stays multiplies the least residual so far by the rate or less, so
        # that either they end it or only safe steps are left, which converge by themselves.
        if tried is not None and residual > rate * best:
            log_w, tried = tried, None
            continue
        best = min(best, residual)
        log_w, tried = log_w + best_step * step, log_w + safe * step
    return xp.where(alive, xp.exp(log_w + safe * step), 0.0), iteration, residual
