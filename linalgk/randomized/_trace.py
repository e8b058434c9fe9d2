"""Traces and diagonals of matrices that are known by their products, with their errors."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given
from linalgk.randomized._estimate import (
    Estimate,
    EstimateState,
    Found,
    Probes,
    Watch,
    check_level,
    check_square,
    check_tol,
    each,
    not_finite,
    student,
)
from linalgk.randomized._matrix import Matrix, given, members
from linalgk.randomized._trace_steps import DIAGONALS, TRACES, Context, DependentProbes, Sampled
from linalgk.sketch import Philox
from linalgk.typing import Array, AssumeA, OnFail

TraceMethod: TypeAlias = Literal["auto", "xtrace", "xnystrace", "hutchpp", "hutchinson", "exact"]
DiagonalMethod: TypeAlias = Literal["auto", "xdiag", "diagpp", "hutchinson", "exact"]
METHODS = get_args(TraceMethod)
DIAGONAL_METHODS = get_args(DiagonalMethod)
# Products where neither their number nor a target is given, and the most for a target.
_USUAL = 100
_MOST = 1000
Callback: TypeAlias = Callable[[EstimateState], bool | None]


def estimate_trace(
    a: Array,
    /,
    n_matvecs: int | None = None,
    *,
    method: TraceMethod = "auto",
    assume_a: AssumeA = "gen",
    tol: float | None = None,
    level: float = 0.95,
    probes: Probes | None = None,
    block: int | None = None,
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Estimate:
    r"""Trace of a matrix from products with random vectors, with its standard error.

    Parameters
    ----------
    a : array, sparse matrix or linear operator, shape (..., n, n)
        Real or complex; of an operator only ``a @ x`` is used. (The trace of a stored matrix is
        known exactly, see ``method="exact"``; matrices are taken to try methods with.)
    n_matvecs : int, optional
        Products with one vector to spend; with ``tol`` the most of them, ``min(n, 1000)`` by
        default. Without ``tol`` the default is ``min(n, 100)``.
    method : {"auto", "xtrace", "xnystrace", "hutchpp", "hutchinson", "exact"}
        See Notes. ``auto`` is ``xnystrace`` with ``assume_a="pos"`` and ``xtrace`` otherwise; where
        n products are allowed it is ``exact``, and below 6 of them ``hutchinson``.
    assume_a : {"gen", "her", "pos"}
        General, Hermitian, or Hermitian positive semidefinite, which ``xnystrace`` needs. The
        trace of the last two is real.
    tol : float, optional
        Relative target: products are added until half the interval at ``level`` is at most
        ``tol`` times the estimate. The interval of a number of products that depends on them is
        slightly optimistic.
    level : float
        Probability for ``tol``.
    probes : {"sphere", "signs", "normal"}, optional
        Law of the random vectors: uniform on the sphere of radius sqrt(n), random signs, or
        standard normal (complex ones for complex matrices but for signs). Default ``sphere`` for
        ``xtrace`` and ``xnystrace``, else ``signs``.
    block : int, optional
        Most columns of one product.
    rng : seed, Generator or Philox
        None takes fresh entropy; all members of a batch get the same vectors.
    check_adjoint : bool
        Test ``a.rmatmat`` against ``a.matmat`` first.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN, are not what ``assume_a`` says, or miss ``tol``. With
        ``warn`` those that miss ``tol`` keep their estimate and its true error.
    callback : callable, optional
        ``callback(state)`` after each round, with ``state.iteration, value, std_error,
        n_matvecs``; True or ``StopIteration`` stops: the member is returned as it is, with
        ``converged`` False where ``tol`` is not met, and the next one begins.
    progress : bool
        Show a bar of tqdm where it is imported, else a line on the standard error stream.

    Returns
    -------
    estimate : Estimate
        Complex for a complex matrix with ``assume_a="gen"``.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError, AsymmetricError, NotPositiveSemidefiniteError
        A member that holds NaN or infinity, or is not what ``assume_a`` says. Hermitian matrices
        are checked by the products that are computed anyway, which ``hutchinson`` has none of.
    NotConvergedError
        ``tol`` was not met.

    See Also
    --------
    estimate_diagonal, estimate_logdet, estimate_quad_form

    Notes
    -----
    ``hutchinson`` [1]_: the mean of ``w^H A w``; with m real signs the variance is
    ``2 (||S||_F^2 - sum_i s_ii^2) / m``, with normal vectors ``2 ||S||_F^2 / m``, where S is
    ``(A + A^T)/2``. Its error falls like ``m^(-1/2)``. ``hutchpp`` [2]_: the exact trace on the
    range of ``A G`` and samples on its complement, a third of the products for each; the error
    falls like ``1/m`` and is at least that of the best rank-m/3 approximation. ``xtrace`` [3]_
    does this with each of ``m/2`` vectors in turn as the sample and all others as the range, and
    ``xnystrace`` [3]_ with Nyström approximations of a semidefinite matrix, which need a product
    for a vector only. All are unbiased. Where the range is exhausted (the rank is less than
    ``m/2``, in ``xnystrace`` less than m) the answer is exact and ``std_error`` 0 or rounding.

    The standard error is that of the mean of independent samples, for ``xtrace`` and
    ``xnystrace`` of exchangeable ones, which is an estimate by experience [3]_, not a theorem.
    Costs: m products, and ``n m^2/2`` to ``4 n m^2`` flops but for ``hutchinson``.

    References
    ----------
    .. [1] M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix",
       Commun. Stat. Simul. Comput. 19 (1990).
    .. [2] R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff, "Hutch++: optimal stochastic trace
       estimation", SOSA 2021, algorithm 1.
    .. [3] E. N. Epperly, J. A. Tropp, R. J. Webber, "XTrace: making the most of every sample in
       stochastic trace estimation", SIAM J. Matrix Anal. Appl. 45 (2024), sections 2 and 3.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> decay = 0.7 ** np.arange(200.0)
    >>> t = lk.estimate_trace(np.diag(decay), 60, rng=0)
    >>> bool(abs(t.value - decay.sum()) < 4 * t.std_error + 1e-12)
    True
    >>> t.method, t.n_matvecs
    ('xtrace', 60)
    >>> lk.estimate_trace(np.diag(decay), tol=1e-3, assume_a="pos", rng=0).n_matvecs
    32
    """
    _validate.choice("method", method, METHODS)
    return _estimated(
        "estimate_trace", a, n_matvecs, method=method, assume_a=assume_a, tol=tol, level=level,
        probes=probes, block=block, rng=rng, check_adjoint=check_adjoint,
        check_finite=check_finite, on_fail=on_fail, callback=callback, progress=progress,
    )  # fmt: skip


def estimate_diagonal(
    a: Array,
    /,
    n_matvecs: int | None = None,
    *,
    method: DiagonalMethod = "auto",
    assume_a: AssumeA = "gen",
    tol: float | None = None,
    level: float = 0.95,
    probes: Probes | None = None,
    block: int | None = None,
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Estimate:
    r"""Diagonal of a matrix from products with random vectors, with the errors of its entries.

    Parameters
    ----------
    a : array, sparse matrix or linear operator, shape (..., n, n)
        Real or complex. ``xdiag`` and ``diagpp`` also use the adjoint, unless ``assume_a`` says
        that it is the same.
    n_matvecs : int, optional
        Products to spend, as in `estimate_trace`.
    method : {"auto", "xdiag", "diagpp", "hutchinson", "exact"}
        See Notes. ``auto`` is ``xdiag``; where n products are allowed it is ``exact``, and below 6
        of them ``hutchinson``.
    assume_a : {"gen", "her", "pos"}
        The diagonal of the last two is real.
    tol : float, optional
        Relative target in the 2-norm: products are added until Student's quantile at ``level``
        times ``||std_error||`` is at most ``tol`` times the norm of the estimate.
    level : float
        As in `estimate_trace`.
    probes : {"signs", "sphere", "normal"}, optional
        Law of the random vectors, by default signs, with which a diagonal matrix is exact.
    block, rng, check_adjoint, check_finite, on_fail, callback, progress
        As in `estimate_trace`.

    Returns
    -------
    estimate : Estimate
        Arrays of shape (..., n). The interval of each entry has the level asked for.

    Raises
    ------
    ValueError, TypeError, NonFiniteError, AsymmetricError, NotConvergedError
        As in `estimate_trace`.

    See Also
    --------
    estimate_trace

    Notes
    -----
    ``hutchinson`` [1]_: the mean of ``conj(w) * A w``; with m signs the variance of entry i of a
    real matrix is ``sum_(j != i) a_ij^2 / m``. ``diagpp`` [2]_: the exact diagonal of
    ``Q Q^H A``, with Q an orthonormal basis of the range of ``A G``, and samples of
    ``(I - Q Q^H) A``, in this form without bias. ``xdiag`` [3]_ leaves each of ``m/2`` vectors out
    of the basis in turn. Where the basis exhausts the range of A the answer is exact.

    References
    ----------
    .. [1] C. Bekas, E. Kokiopoulou, Y. Saad, "An estimator for the diagonal of a matrix", Appl.
       Numer. Math. 57 (2007).
    .. [2] R. A. Baston, Y. Nakatsukasa, "Stochastic diagonal estimation: probabilistic bounds and
       an improved algorithm", arXiv 2201.10684 (2022).
    .. [3] E. N. Epperly, J. A. Tropp, R. J. Webber, "XTrace", SIAM J. Matrix Anal. Appl. 45
       (2024), section 2.4.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x = np.random.default_rng(0).standard_normal((300, 4))
    >>> d = lk.estimate_diagonal(x @ x.T, 20, assume_a="pos", rng=0)
    >>> bool(np.abs(d.value - (x * x).sum(axis=1)).max() < 1e-12)
    True
    """
    _validate.choice("method", method, DIAGONAL_METHODS)
    return _estimated(
        "estimate_diagonal", a, n_matvecs, method=method, assume_a=assume_a, tol=tol, level=level,
        probes=probes, block=block, rng=rng, check_adjoint=check_adjoint,
        check_finite=check_finite, on_fail=on_fail, callback=callback, progress=progress,
    )  # fmt: skip


def choose_method(
    function: str, n: int, n_matvecs: int | None, *, assume_a: str = "gen", method: str = "auto",
    tol: float | None = None,
) -> tuple[str, str]:  # fmt: skip
    """The method, and the reason."""
    least = 6
    if method != "auto":
        return method, "it was asked for"
    if n_matvecs is not None and tol is None and n_matvecs >= n:
        return "exact", f"{n_matvecs} products are enough for all {n} columns"
    if n <= least or (n_matvecs is None and tol is None and n <= _USUAL):
        return "exact", f"there are {n} columns only"
    if n_matvecs is not None and n_matvecs < least:
        return "hutchinson", f"{n_matvecs} products are too few for a basis"
    if function == "estimate_diagonal":
        return "xdiag", "it makes the most of every product"
    if assume_a == "pos":
        return "xnystrace", "a is semidefinite: a probe takes one product"
    return "xtrace", "it makes the most of every product"


def explain_trace(
    a: Any, /, n_matvecs: int | None = None, *, method: TraceMethod = "auto",
    assume_a: AssumeA = "gen", tol: float | None = None, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of estimate_trace would run."""
    _validate.choice("method", method, METHODS)
    return _explained("estimate_trace", a, n_matvecs, method, assume_a, tol)


def explain_diagonal(
    a: Any, /, n_matvecs: int | None = None, *, method: DiagonalMethod = "auto",
    assume_a: AssumeA = "gen", tol: float | None = None, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of estimate_diagonal would run."""
    _validate.choice("method", method, DIAGONAL_METHODS)
    return _explained("estimate_diagonal", a, n_matvecs, method, assume_a, tol)


def _explained(
    function: str, a: Any, n_matvecs: int | None, method: str, assume_a: str, tol: float | None
) -> Explanation:
    _validate.choice("assume_a", assume_a, get_args(AssumeA))
    found = given(function, a)
    n, count = check_square(found), math.prod(found.batch)
    budget = _budget(n_matvecs, n, tol)
    chosen, reason = choose_method(
        function, n, n_matvecs, assume_a=assume_a, method=method, tol=tol
    )
    m = n if chosen == "exact" else budget
    entries = float(found.flat.nnz if found.sparse else n * n)
    small = {"hutchinson": 2.0 * n * m, "exact": 0.0, "xnystrace": 4.0 * n * m**2}
    flops = count * (2.0 * entries * m + small.get(chosen, 2.5 * n * m**2))
    reading = 1 if chosen in ("hutchinson", "xnystrace", "exact") else 2
    size = np.dtype(found.dtype).itemsize
    return Explanation(function, chosen, reason, {}, flops, count * reading * entries * size)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a usual call: ``"small"``, ``"medium"`` or ``"large"``."""
    n = {"small": 60, "medium": 400, "large": 2000}[size]
    source = Philox(rng)
    x = source.normal(n * n).reshape(n, n) * 0.9 ** np.arange(n)
    return (_xp.from_numpy(x @ x.T / n, xp), n // 4), {"assume_a": "pos", "rng": 0}


# --- The door ------------------------------------------------------------------------------------


def _budget(n_matvecs: int | None, n: int, tol: float | None) -> int:
    if n_matvecs is not None:
        return n_matvecs
    return min(n, _USUAL if tol is None else _MOST)


def _estimated(
    function: str, a: Any, n_matvecs: int | None, *, method: str, assume_a: str,
    tol: float | None, level: float, probes: str | None, block: int | None, rng: Any,
    check_adjoint: bool, check_finite: bool | None, on_fail: OnFail | None, callback: Any,
    progress: bool,
) -> Estimate:  # fmt: skip
    _validate.choice("assume_a", assume_a, get_args(AssumeA))
    if probes is not None:
        _validate.choice("probes", probes, get_args(Probes))
    if n_matvecs is not None:
        n_matvecs = _validate.integer("n_matvecs", n_matvecs, 1)
    if block is not None:
        block = _validate.integer("block", block, 1)
    check, policy, level = (
        _validate.check_finite(check_finite), _validate.on_fail(on_fail), check_level(level)
    )  # fmt: skip
    if method == "xnystrace" and assume_a != "pos":
        msg = f"method: 'xnystrace' needs assume_a='pos', got assume_a={assume_a!r}"
        raise ValueError(msg)
    source = Philox(rng)
    with _lag.scope(a), _config.blas_threads():
        found = given(function, a, check_adjoint=check_adjoint)
        n = check_square(found)
        target = check_tol(tol, found.eps)
        budget = _budget(n_matvecs, n, tol)
        chosen, _ = choose_method(
            function, n, n_matvecs, assume_a=assume_a, method=method, tol=target
        )
        table = TRACES if function == "estimate_trace" else DIAGONALS
        diagonal = table is DIAGONALS
        if chosen != "exact":
            if budget < table[chosen].least:
                msg = (
                    f"n_matvecs: {chosen!r} needs at least {table[chosen].least}, got {budget}; "
                    "give more, or method='hutchinson'"
                )
                raise ValueError(msg)
            # columns of a basis are at most n
            most = {"xtrace": 2 * n, "xdiag": 2 * n, "xnystrace": n}.get(chosen, budget)
            budget = min(budget, most)
        kind: Any = probes or ("sphere" if chosen in ("xtrace", "xnystrace") else "signs")
        watch = Watch(function, callback, progress)

        def solve(_: int, matrix: Matrix) -> Found:
            context = Context(matrix, source, kind, assume_a, block)
            if chosen != "exact" and n:
                try:
                    return _run(
                        table[chosen](context), context, chosen, budget, target, level, watch
                    )
                except DependentProbes:
                    pass
            return _exact(matrix, context, diagonal=diagonal)

        try:
            return each(
                function, found, members(found), solve, source.key,
                shape=(n,) if diagonal else (), real=assume_a != "gen" or not _is_complex(found),
                check=check, policy=policy, quadrature=False, method=chosen,
            )  # fmt: skip
        finally:
            watch.close()


def _is_complex(found: Given) -> bool:
    return found.dtype in _xp.COMPLEX


def _run(
    sampler: Any, context: Context, method: str, budget: int, tol: float | None, level: float,
    watch: Watch,
) -> Found:  # fmt: skip
    """Let a sampler grow until its budget is spent or the target is met."""
    spend = budget if tol is None else min(budget, sampler.first)
    slow = method == "hutchinson"
    while True:
        sampler.grow(spend)
        got: Sampled = sampler.estimate()
        half = student(level, got.dof) * _norm(got.error)
        size = _norm(got.value)
        met = tol is None or half <= tol * size
        stopped = watch(got.value, got.error, context.products.count)
        if met or stopped or spend >= budget:
            break
        # what the law of the error asks for, within reason
        ratio = 1.1 * half / (tol * size) if tol and size else math.inf
        factor = min(max(ratio**2, 1.3), 4.0) if slow else min(max(ratio, 1.5), 2.0)
        spend = min(budget, math.ceil(factor * spend))
    return _found(context, got, method, converged=met)._replace(stopped=stopped)


def _norm(x: Any) -> float:
    if not getattr(x, "ndim", 0):
        return abs(complex(x))
    return float(np.linalg.norm(np.asarray(_xp.to_numpy(x))))


def _found(context: Context, got: Sampled, method: str, *, converged: bool) -> Found:
    scale = context.products.scale or 1.0
    value = got.value
    if context.hermitian and context.matrix.is_complex:
        value = context.xp.real(value) if getattr(value, "ndim", 0) else value.real
    is_complex = context.matrix.is_complex and not context.hermitian
    slack = got.rounding * ((1 + 1j) if is_complex else 1)
    return Found(
        value * scale, got.error * scale, got.dof, (value - slack) * scale,
        (value + slack) * scale, context.products.count, method, converged=converged,
        passes=context.matrix.passes,
    )  # fmt: skip


def _exact(matrix: Matrix, context: Context, *, diagonal: bool) -> Found:
    """The diagonal of a stored matrix, or by products with unit vectors."""
    xp, n = matrix.xp, matrix.shape[0]
    if matrix.kind == "operator":
        parts = []
        step = context.products.block or max(16, (1 << 22) // max(n, 1))
        for i in range(0, n, step):
            units = np.zeros((n, min(step, n - i)), matrix.dtype)
            units[np.arange(i, i + units.shape[1]), np.arange(units.shape[1])] = 1
            y = context.products(_xp.from_numpy(units, xp, like=matrix.like))
            parts.append(xp.linalg.diagonal(y[i : i + units.shape[1], :]))
        entries = xp.concat(parts) if parts else matrix.like
    else:
        if n and not math.isfinite(matrix.norm):
            raise not_finite()
        a = matrix.a
        entries = a.diagonal() if matrix.kind == "sparse" else xp.linalg.diagonal(a)
    if n and not bool(xp.all(xp.isfinite(entries))):
        raise not_finite()
    if diagonal:
        none = xp.abs(entries) * 0
        return _found(context, Sampled(entries, none, math.inf, 0.0), "exact", converged=True)
    host = np.asarray(_xp.to_numpy(entries))
    host = host.astype(np.complex128 if host.dtype.kind == "c" else np.float64)
    total = host.sum() if n else 0.0
    rounding = 0.5 * matrix.eps * float(np.abs(host).sum())
    return _found(context, Sampled(total, 0.0, math.inf, rounding), "exact", converged=True)
