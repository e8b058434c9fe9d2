"""Log-determinants, quadratic forms and traces of functions, with brackets and intervals."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given
from linalgk.randomized import _factor
from linalgk.randomized._estimate import (
    CHECK,
    Estimate,
    Found,
    Probes,
    Watch,
    check_square,
    draw,
    not_finite,
    not_hermitian,
    not_positive,
)
from linalgk.randomized._lanczos import FUNCTIONS, Rule, Spectrum
from linalgk.randomized._matrix import Matrix, given
from linalgk.randomized._quadrature_door import (
    Options,
    ends_of,
    function_of,
    spectrum_of,
    vectors_of,
)
from linalgk.randomized._slq import Plan, deflate, run, trace_of
from linalgk.randomized._trace import Callback
from linalgk.sketch import Philox
from linalgk.typing import Array, OnFail

LogdetMethod: TypeAlias = Literal["auto", "slq", "cholesky"]
FunctionName: TypeAlias = Literal["log", "inv", "sqrt", "exp", "invsqrt"]
METHODS = get_args(LogdetMethod)
QUAD_FORM_METHODS = ("lanczos", "slq")
# Largest dense matrix that is factored rather than sampled.
_FACTORED = 600
# Relative target where nothing is asked for.
_TOL = 0.01


def estimate_logdet(
    a: Array,
    /,
    n_matvecs: int | None = None,
    *,
    tol: float | None = None,
    level: float = 0.95,
    bounds: tuple[Any, Any] | None = None,
    method: LogdetMethod = "auto",
    deflate: int | Literal["auto"] = 0,
    steps: int | None = None,
    probes: Probes | None = None,
    block: int | None = None,
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Estimate:
    r"""Logarithm of the determinant of a Hermitian positive definite matrix, from products.

    Parameters
    ----------
    a : array, sparse matrix or linear operator, shape (..., n, n)
        Hermitian positive definite, real or complex.
    n_matvecs : int, optional
        Products with one vector to spend; with ``tol`` the most of them, 1000 probes by default.
    tol : float, optional
        Relative target: probes and steps are added until half the interval at ``level``, error of
        quadrature included, is at most ``tol`` times the estimate. Default 0.01 where
        ``n_matvecs`` is not given either.
    level : float
        Probability for ``tol``.
    bounds : tuple of two numbers or arrays of shape (...), optional
        Least and largest eigenvalue, or numbers beyond them; None for one that is not known. The
        default takes Gershgorin's bounds of a stored matrix.
    method : {"auto", "slq", "cholesky"}
        Stochastic Lanczos quadrature, or the Cholesky factor of a dense matrix, which is exact.
        ``auto`` is ``cholesky`` for dense matrices of order up to 600 where ``n_matvecs`` is not
        given, else ``slq``.
    deflate : int or "auto"
        Rank of a Nyström approximation whose log-determinant is taken exactly and which then
        preconditions the rest, see Notes. ``auto`` tries without one first, and needs ``tol``.
    steps : int, optional
        Steps of Lanczos' process; by default as many as the error of quadrature needs, at most 80.
    probes : {"signs", "sphere", "normal"}, optional
        Law of the random vectors, by default signs.
    block : int, optional
        Most probes side by side. A block of p probes keeps the p k vectors of k steps.
    rng : seed, Generator or Philox
        None takes fresh entropy; all members of a batch get the same vectors.
    check_adjoint : bool
        Test ``a.rmatmat`` against ``a.matmat`` first.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN, are not Hermitian or not positive definite, or miss ``tol``.
    callback, progress
        As in `estimate_trace`.

    Returns
    -------
    estimate : Estimate
        ``bounds`` encloses the mean of the forms of the probes that were drawn: an end is
        infinite where it would need a bound of the spectrum that is not known. Where the least
        eigenvalue is not known to be positive, the lower end of ``enclosure`` is a guess from the
        Ritz values.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit; ``bounds`` that a Ritz value contradicts.
    NonFiniteError, AsymmetricError
        A member that holds NaN or infinity, or is not Hermitian: ``x^H A y`` is compared with
        ``(y^H A x)^*`` for the probes and a normal vector y, which takes one product more.
    NotPositiveSemidefiniteError
        A Ritz value, a diagonal entry or a pivot is not positive to working precision. Negative
        eigenvalues that no Krylov space has met stay unseen.
    NotConvergedError
        ``tol`` was not met.

    See Also
    --------
    estimate_quad_form : other functions.

    Notes
    -----
    ``log det A = tr log A`` is the mean of ``x^H log(A) x`` over random x [1]_. k steps of
    Lanczos' process from x give the k-point rule of Gauss, which is an upper bound of that form,
    and with a lower bound of the spectrum the rule of Gauss and Radau, a lower bound [2]_. The
    interval is Student's around the bracket of the means. All probes go side by side; vectors are
    orthogonalized again where the estimate of the loss [3]_ passes ``eps^(1/2)``. With p probes
    ``2 p k nnz(A) + 8 p k n`` flops; the standard error for signs is
    ``(2 sum_(i != j) |log(A)_ij|^2 / p)^(1/2)``, the error of quadrature falls like
    ``((kappa^(1/2) - 1) / (kappa^(1/2) + 1))^(2 k)``.

    ``deflate``: with a Nyström approximation ``U diag(w) U^H`` of this rank and
    ``P = U diag(w) U^H + mu (I - U U^H)``, ``log det A = log det P + tr log(P^-1/2 A P^-1/2)``
    for any P; large eigenvalues that decay fast leave little for the second term.

    References
    ----------
    .. [1] S. Ubaru, J. Chen, Y. Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos
       quadrature", SIAM J. Matrix Anal. Appl. 38 (2017).
    .. [2] G. H. Golub, G. Meurant, "Matrices, moments and quadrature with applications",
       Princeton 2010, section 6.
    .. [3] H. D. Simon, "The Lanczos algorithm with partial reorthogonalization", Math. Comp. 42
       (1984).

    Examples
    --------
    >>> import numpy as np, scipy.sparse, linalgk as lk
    >>> a = scipy.sparse.diags_array([-1.0, 3.0, -1.0], offsets=[-1, 0, 1], shape=(5000, 5000))
    >>> estimate = lk.estimate_logdet(a, tol=0.01, rng=1)
    >>> exact = 5001 * np.log((3 + 5**0.5) / 2) - 0.5 * np.log(5)
    >>> bool(abs(estimate.value - exact) < 0.01 * exact)
    True
    >>> low, high = estimate.interval()
    >>> bool(low <= exact <= high)
    True
    """
    _validate.choice("method", method, METHODS)
    if deflate != "auto":
        deflate = _validate.integer("deflate", deflate, 0)
    asked = tol is not None
    if not asked and n_matvecs is None:
        tol = _TOL
    options = Options(
        "estimate_logdet", n_matvecs, tol, level, steps, probes, block, check_finite,
        on_fail, callback, progress,
    )  # fmt: skip
    source = Philox(rng)
    with _lag.scope(a), _config.blas_threads():
        found = given("estimate_logdet", a, check_adjoint=check_adjoint)
        n, plan = options.plan(found, FUNCTIONS["log"])
        ends = ends_of(bounds, found)
        dense = not (found.sparse or found.operator)
        chosen, _ = choose_method(n, dense=dense, n_matvecs=n_matvecs, method=method)
        if chosen == "cholesky" and not dense:
            msg = "method: 'cholesky' is for dense arrays; use method='slq'"
            raise ValueError(msg)
        if deflate != "auto" and deflate > n:
            msg = f"deflate: must be at most n = {n}, got {deflate}"
            raise ValueError(msg)

        def solve(i: int, matrix: Matrix) -> Found:
            if n == 0:
                return _empty()
            if chosen == "cholesky":
                return _by_cholesky(matrix)
            return _logdet(matrix, plan, ends[i], source, options.watch, deflate)

        return options.each(found, solve, source, (), chosen)


def estimate_quad_form(
    a: Array,
    f: FunctionName | Callable[[Any], Any],
    /,
    x: Any = None,
    *,
    n_matvecs: int | None = None,
    steps: int | None = None,
    tol: float | None = None,
    level: float = 0.95,
    bounds: tuple[Any, Any] | None = None,
    derivative_signs: tuple[int, int] | None = None,
    probes: Probes | None = None,
    block: int | None = None,
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Estimate:
    r"""Quadratic forms ``x^H f(A) x`` in brackets, or the trace of ``f(A)`` from random vectors.

    Parameters
    ----------
    a : array, sparse matrix or linear operator, shape (..., n, n)
        Hermitian, real or complex; positive definite for ``log, inv, invsqrt``, semidefinite for
        ``sqrt``.
    f : {"log", "inv", "sqrt", "exp", "invsqrt"} or callable
        A callable maps a NumPy array of float64 to one of the same shape.
    x : array, shape (..., n) or (..., n, k), optional
        Vectors, the columns of a matrix. None estimates the trace.
    n_matvecs : int, optional
        Products with one vector to spend for the trace; with ``tol`` the most of them. Without
        ``x`` and ``tol`` the default target is ``tol=0.01``.
    steps : int, optional
        Steps of Lanczos' process; by default as many as the target needs, at most 80.
    tol : float, optional
        Relative target. With ``x`` for the bracket of each form, by default ``eps^(1/2)``
        (missing the default is no failure); without ``x`` as in `estimate_logdet`.
    level, bounds
        As in `estimate_logdet`.
    derivative_signs : tuple of two of -1, 0, 1, optional
        For a callable: the signs on the spectrum of its derivatives of even order (2, 4, ...)
        and of odd order (1, 3, ...), for instance ``(1, -1)`` for ``1/t``. Default is its
        attribute of this name; without it there are no bounds, and the change in the last step
        is taken for the error.
    probes, block, rng, check_adjoint, check_finite, on_fail, callback, progress
        As in `estimate_logdet`.

    Returns
    -------
    estimate : Estimate
        With ``x`` of shape (...) or (..., k): Gauss' rule, ``std_error`` 0, and the true form is
        in ``bounds`` where these are finite. Without ``x`` the trace, as in `estimate_logdet`.

    Raises
    ------
    ValueError, TypeError, NonFiniteError, AsymmetricError, NotPositiveSemidefiniteError, \
NotConvergedError
        As in `estimate_logdet`.

    See Also
    --------
    estimate_logdet

    Notes
    -----
    After k steps of Lanczos' process, ``||x||^2 e_1^T f(T_k) e_1`` is Gauss' rule [1]_: its error
    has the sign of ``f^(2k)``. With the node a at the lower end of the spectrum Radau's rule has
    an error of the sign of ``f^(2k+1)``, at the upper end of the opposite sign. Hence an upper
    bound for ``log, sqrt`` and a lower one for ``inv, invsqrt, exp`` without knowing the
    spectrum, and the other one from its lower end, for ``exp`` from the upper end. For ``sqrt``
    zero is a lower end. Gershgorin's bounds serve where they are positive.
    ``2 k nnz(A) + 8 k n`` flops for a vector. The brackets include an estimate of rounding.

    References
    ----------
    .. [1] G. H. Golub, G. Meurant, "Matrices, moments and quadrature with applications",
       Princeton 2010, theorems 6.5 and 6.6.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.diag(np.linspace(1.0, 10.0, 50)) + 0.01
    >>> x = np.ones(50)
    >>> form = lk.estimate_quad_form(a, "inv", x, steps=6)
    >>> low, high = form.bounds
    >>> bool(low <= x @ np.linalg.solve(a, x) <= high)
    True
    >>> t = lk.estimate_quad_form(a, "exp", tol=0.05, rng=0)
    >>> bool(abs(t.value - np.exp(np.linalg.eigvalsh(a)).sum()) < 0.1 * t.value)
    True
    """
    function = function_of(f, derivative_signs)
    if x is None and n_matvecs is None and tol is None:
        tol = _TOL
    options = Options(
        "estimate_quad_form", n_matvecs, tol, level, steps, probes, block, check_finite,
        on_fail, callback, progress,
    )  # fmt: skip
    if x is not None and n_matvecs is not None:
        msg = "n_matvecs: is for the trace, without x; use steps"
        raise ValueError(msg)
    source = Philox(rng)
    with _lag.scope(a), _config.blas_threads():
        found = given("estimate_quad_form", a, check_adjoint=check_adjoint)
        n, plan = options.plan(found, function)
        ends = ends_of(bounds, found)
        if x is None:

            def trace(i: int, matrix: Matrix) -> Found:
                if n == 0:
                    return _empty()
                spectrum, _ = spectrum_of(matrix, ends[i], function)
                got = trace_of(matrix, plan, spectrum, source, options.watch)
                assert got is not None
                return got

            return options.each(found, trace, source, (), "slq")
        vectors, shape = vectors_of(x, found)

        def forms(i: int, matrix: Matrix) -> Found:
            spectrum, _ = spectrum_of(matrix, ends[i], function)
            return _forms(matrix, vectors[i], shape, plan, spectrum, source)

        return options.each(found, forms, source, shape, "lanczos")


def choose_method(
    n: int, *, dense: bool, n_matvecs: int | None = None, method: str = "auto"
) -> tuple[str, str]:
    """The method of estimate_logdet, and the reason."""
    if method != "auto":
        return method, "it was asked for"
    if dense and n_matvecs is None and n <= _FACTORED:
        return "cholesky", "n^3/3 flops are no more than about 200 products with a take"
    return "slq", "a is large or known by its products: a few probes estimate the trace of log a"


def explain_logdet(
    a: Any, /, n_matvecs: int | None = None, *, method: LogdetMethod = "auto",
    deflate: int | Literal["auto"] = 0, steps: int | None = None, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of estimate_logdet would run."""
    _validate.choice("method", method, METHODS)
    found = given("estimate_logdet", a)
    n, dense = check_square(found), not (found.sparse or found.operator)
    chosen, reason = choose_method(n, dense=dense, n_matvecs=n_matvecs, method=method)
    rank = 0 if deflate == "auto" else deflate
    return _explained("estimate_logdet", found, chosen, reason, n_matvecs, steps, rank, 4)


def explain_quad_form(
    a: Any, f: Any, /, x: Any = None, *, n_matvecs: int | None = None, steps: int | None = None,
    **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of estimate_quad_form would run."""
    function_of(f, None)
    found = given("estimate_quad_form", a)
    check_square(found)
    if x is None:
        reason = "there are no vectors: the trace is wanted"
        return _explained("estimate_quad_form", found, "slq", reason, n_matvecs, steps, 0, 4)
    shape = vectors_of(x, found)[1]
    reason = "vectors are given"
    return _explained(
        "estimate_quad_form", found, "lanczos", reason, None, steps, 0, math.prod(shape)
    )


def _explained(
    function: str, found: Given, method: str, reason: str, n_matvecs: int | None,
    steps: int | None, rank: int, vectors: int,
) -> Explanation:  # fmt: skip
    n, count = found.shape[0], math.prod(found.batch)
    entries = float(found.flat.nnz if found.sparse else n * n)
    k = steps or min(n, 10)
    products = vectors * k if n_matvecs is None else n_matvecs
    flops = products * (2.0 * entries + 8.0 * n + 8.0 * n * rank) + 4.0 * n * rank**2
    reading = k
    if method == "cholesky":
        flops, reading = n**3 / 3, 1
    size = np.dtype(found.dtype).itemsize
    return Explanation(
        function, method, reason, {}, count * flops, count * reading * entries * size
    )


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a usual call of estimate_logdet."""
    n = {"small": 60, "medium": 700, "large": 2000}[size]
    x = Philox(rng).normal(n * n).reshape(n, n)
    return (_xp.from_numpy(x @ x.T / n + np.eye(n), xp),), {"tol": 0.02, "rng": 0}


def sample_quad_form(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a usual call of estimate_quad_form."""
    (a,), _ = sample(size, xp=xp, rng=rng)
    return (a, "inv", _xp.from_numpy(np.ones(a.shape[0]), xp)), {}


# --- The methods ---------------------------------------------------------------------------------


def _empty() -> Found:
    return Found(0.0, 0.0, math.inf, 0.0, 0.0, 0, "exact", sure=(True, True))


def _forms(
    a: Matrix, rows: Any, shape: tuple[int, ...], plan: Plan, spectrum: Spectrum, source: Philox
) -> Found:
    n, p = a.shape[0], int(rows.shape[0])
    top = float(a.xp.max(a.xp.abs(rows))) if n * p else 0.0
    if top == 0:
        none: Any = np.zeros(p) if shape else 0.0
        return Found(none, none, math.inf, none, none, 0, "lanczos", sure=(True, True))
    if not math.isfinite(top):
        msg = "x: holds NaN or infinity; remove them"
        raise ValueError(msg)
    # squares of the vectors stay in range
    shift = math.ldexp(1.0, math.frexp(top)[1])
    goal = math.sqrt(a.eps) if plan.tol is None else plan.tol

    def met(found: Rule) -> bool:
        return bool((found.high - found.low <= goal * np.abs(found.value)).all())

    side = draw(a, source.spawn(CHECK), "normal", 0, 1)[0, :]
    found, process = run(a, rows / shift, plan.f, spectrum, plan.steps, None, met, side)
    values = [x * shift**2 for x in (found.value, found.low, found.high)]
    value, low, high = values if shape else [float(x[0]) for x in values]
    error = np.zeros(p) if shape else 0.0
    return Found(
        value, error, math.inf, low, high, process.products + 1, "lanczos", process.k,
        plan.tol is None or met(found), found.sure, a.passes,
    )  # fmt: skip


def _logdet(
    a: Matrix, plan: Plan, ends: tuple[float, float], source: Philox, watch: Watch, rank: Any
) -> Found:
    spectrum, _ = spectrum_of(a, ends, plan.f)
    n = a.shape[0]
    if rank == "auto":
        wanted = [0]

        def give_up(products: int) -> bool:
            wanted[0] = products
            return products > 400

        got = trace_of(a, plan, spectrum, source, watch, give_up=give_up)
        if got is not None:
            return got
        rank = min(n // 4, max(16, int(math.sqrt(wanted[0]) * 4)))
    if not rank:
        got = trace_of(a, plan, spectrum, source, watch)
        assert got is not None
        return got
    return _deflated(a, plan, spectrum, source, watch, rank)


def _deflated(
    a: Matrix, plan: Plan, spectrum: Spectrum, source: Philox, watch: Watch, rank: int
) -> Found:
    if plan.budget is not None and plan.budget < rank + 6:
        msg = f"n_matvecs: must be at least deflate + 6 = {rank + 6}, got {plan.budget}"
        raise ValueError(msg)
    m = deflate(a, rank, source)
    got = trace_of(
        m, plan, m.spectrum(spectrum), source, watch, offset=m.logdet, spent=rank + 1,
        check=False,
    )  # fmt: skip
    assert got is not None
    return got._replace(method="slq+nystrom", rank=int(m.u.shape[1]))


def _by_cholesky(a: Matrix) -> Found:
    """The exact one of a dense matrix."""
    xp, n = a.xp, a.shape[0]
    size = a.norm
    if not math.isfinite(size):
        raise not_finite()
    defect = _defect(a)
    if defect > 64 * a.eps * math.sqrt(n):
        raise not_hermitian(defect)
    scale = math.ldexp(1.0, math.frexp(size or 1.0)[1])
    upper = _factor.cholesky(a.a / scale)
    pivots = np.zeros(1)
    if upper is not None:
        diagonal = np.asarray(_xp.to_numpy(xp.linalg.diagonal(upper)))
        pivots = diagonal.real.astype(np.float64)
    if pivots.min() ** 2 <= n * a.eps * pivots.max() ** 2:
        why = "a is not positive definite to working precision{}"
        raise not_positive(why)
    value = 2 * float(np.log(pivots).sum()) + n * math.log(scale)
    # backward error of the factor, over the least pivot
    slack = a.eps * math.sqrt(n) * (size / scale) / float(pivots.min()) ** 2 + a.eps * abs(value)
    a.passes += 1
    return Found(
        value, 0.0, math.inf, value - slack, value + slack, 0, "cholesky", sure=(True, True),
        passes=a.passes,
    )  # fmt: skip


def _defect(a: Matrix) -> float:
    """``||A - A^H|| / ||A||`` in the largest entries."""
    xp = a.xp
    turned = xp.matrix_transpose(a.a)
    top = float(xp.max(xp.abs(a.a)))
    return float(xp.max(xp.abs(a.a - (xp.conj(turned) if a.is_complex else turned)))) / (top or 1.0)
