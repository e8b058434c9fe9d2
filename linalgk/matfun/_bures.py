"""Bures-Wasserstein geometry of positive semidefinite matrices: distance, map, barycentre."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np

from linalgk import _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._results import Info
from linalgk.matfun import _ops, _traced
from linalgk.matfun._bures_door import (
    Fault,
    asymmetry,
    broadcast,
    describe,
    enter,
    finished,
    flattened,
    lengths,
    listed,
    real_power,
    same_order,
    shares,
    stack,
    worst_of,
)
from linalgk.matfun._bures_steps import (
    BarycenterState,
    choose_method,
    definite,
    distances,
    factored,
    fixed_point,
    members_of,
    metric_root,
    polar_factor,
    squared_factor,
)
from linalgk.matfun._spectral import (
    FAILED,
    NONFINITE,
    OK,
    blank,
    blas_for,
    frobenius,
    usable,
)
from linalgk.typing import ArrayT, OnFail


class _Options(TypedDict, total=False):
    assume_a: Literal["pos"] | None
    check_finite: bool | None
    on_fail: OnFail | None


class _DistanceOptions(_Options, total=False):
    mean_a: Any
    mean_b: Any
    squared: bool
    metric: Any
    power: float


class _BarycenterOptions(_Options, total=False):
    tol: float | None
    max_iter: int
    callback: "Callable[[BarycenterState], bool | None] | None"
    start: Any
    metric: Any
    power: float


@overload
def bures_distance(
    a: ArrayT, b: ArrayT, /, *, return_info: Literal[True], **options: Unpack[_DistanceOptions]
) -> tuple[ArrayT, Info]: ...
@overload
def bures_distance(
    a: ArrayT, b: ArrayT, /, *, return_info: Literal[False] = ...,
    **options: Unpack[_DistanceOptions],
) -> ArrayT: ...  # fmt: skip
def bures_distance(
    a: ArrayT,
    b: ArrayT,
    /,
    *,
    mean_a: Any = None,
    mean_b: Any = None,
    squared: bool = False,
    metric: Any = None,
    power: float = 1.0,
    assume_a: Literal["pos"] | None = "pos",
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    """Bures-Wasserstein distance of positive semidefinite matrices.

    With means it is the 2-Wasserstein or Fréchet distance of Gaussians; ``squared`` gives the FID.

    Parameters
    ----------
    a, b : array, shape (..., n, n)
        float32, float64, complex64 or complex128; integers become float64. Hermitian positive
        semidefinite. Leading dimensions broadcast: ``a[:, None], b[None]`` gives all pairs, with
        one factorization of each matrix.
    mean_a, mean_b : array, shape (..., n), optional
        Both or none.
    squared : bool
        The square of the distance.
    metric : array, shape (n, n), optional
        Positive definite M of the generalized geometry, see Notes.
    power : float
        Exponent of the power-deformed geometry, not zero; negative ones need definite matrices.
    assume_a : {"pos"}, optional
        An asymmetry up to ``eps**0.5`` of the largest entry is taken as carelessness; None
        tolerates ``n eps``.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What a numerical failure does; with the last two the bad members hold NaN.
    return_info : bool
        Also return an `Info`.

    Returns
    -------
    d : array, shape (...)
        Distances, real, in the library and device of ``a``.
    info : Info
        Only with ``return_info``. ``method`` names the forms that members took,
        ``error_estimate`` is the order of the relative error of the distance; ``residual`` is NaN.

    Raises
    ------
    ValueError
        Shape, NaN or infinity (`NonFiniteError`), asymmetry (`AsymmetricError`).
    TypeError
        Not an array, or a dtype that is not supported.
    NotPositiveSemidefiniteError
        An eigenvalue below ``-n eps`` of the largest.
    SingularMatrixError
        Negative ``power`` of a singular matrix, or a singular ``metric``.

    See Also
    --------
    bures_map, bures_barycenter

    Notes
    -----
    ``d^2 = ||m_a - m_b||^2 + tr A + tr B - 2 ||A^(1/2) B^(1/2)||_*`` [1]_. The nuclear norm is the
    sum of the singular values of ``F_B^H F_A`` with ``A = F_A F_A^H``, ``B = F_B F_B^H`` by
    Cholesky (eigenvectors for a singular matrix): no root of a matrix, no squared condition.

    Members choose their form. ``svdvals``: two Cholesky factors, a product and singular values,
    about ``5 n^3`` flops. ``eigvalsh``, for n > 256 and factors of moderate condition: the
    singular values from the eigenvalues of the product's square, ``5 n^3`` with half of the
    memory traffic (0.6 of the time at n = 2048), where their error is small enough. Where these
    cancel, ``lyapunov``: ``X A + A X + X A X = B - A`` by a fixed point in the eigenvectors of A,
    ``d^2 = ||X A^(1/2)||^2``, which starts from the difference of the arguments and so loses no
    digit (``12 n^3`` and ``2 n^3`` a step); for singular matrices and matrices that are not near
    ``procrustes``: ``d^2 = ||F_A - F_B U||_F^2`` with the unitary polar factor U of ``F_B^H F_A``
    (``25 n^3``). Cancelling means ``d^2 < tr(A + B)/64``, and for n > 256, where the careful forms
    cost, ``eps^(1/4) tr(A + B)``.

    However small d is, its relative error is some eps where A and B differ along the large
    eigenvalues, and at most about ``eps kappa(A)`` where they differ along the smallest: that is
    how the problem is conditioned. For n > 256 it may reach ``eps^(3/4)``. ``procrustes`` has the
    absolute error ``eps kappa^(1/2) ||A||^(1/2)``, for singular matrices ``(eps ||A||)^(1/2)``.

    ``power=t`` and ``metric=M`` compute the distance of ``M^(-1/2) A^t M^(-1/2)`` and
    ``M^(-1/2) B^t M^(-1/2)`` (of the means as they are) divided by ``|t|``: for t = 1 that is
    ``d^2 = tr(M^-1 A) + tr(M^-1 B) - 2 tr (M^-1 A M^-1 B)^(1/2)`` of the generalized geometry
    [2]_, for M = I the power deformation [3]_. A power other than 1 rounds before the difference
    is taken, so that tiny distances have an absolute error.

    References
    ----------
    .. [1] R. Bhatia, T. Jain, Y. Lim, "On the Bures-Wasserstein distance between positive definite
       matrices", Expositiones Mathematicae 37 (2019).
    .. [2] A. Han, B. Mishra, P. Jawanpuria, J. Gao, "Learning with symmetric positive definite
       matrices via generalized Bures-Wasserstein geometry", GSI 2023 (arXiv:2110.10464).
    .. [3] Y. Thanwerdas, X. Pennec, "The geometry of mixed-Euclidean metrics on symmetric positive
       definite matrices", Differential Geometry and its Applications 81 (2022).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, b = np.diag([4.0, 9.0]), np.diag([1.0, 1.0])
    >>> float(lk.bures_distance(a, b, squared=True).round(12))
    5.0
    >>> lk.bures_distance(np.stack([a, b])[:, None], np.stack([a, b])[None]).round(6)
    array([[0.      , 2.236068],
           [2.236068, 0.      ]])
    """
    traced = _traced.face(a, b, mean_a, mean_b, metric)
    if traced is not None:
        options = {
            "mean_a": mean_a, "mean_b": mean_b, "squared": squared, "metric": metric,
            "power": power, "assume_a": assume_a, "check_finite": check_finite, "on_fail": on_fail,
        }  # fmt: skip
        if return_info:
            msg = "bures_distance: return_info is not for results that are differentiated or traced"
            raise TypeError(msg)
        return traced.bures_distance(a, b, bures_distance, options)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    t, tolerance = real_power(power), asymmetry(assume_a)
    if (mean_a is None) != (mean_b is None):
        msg = "mean_a and mean_b: give both or none; a missing mean is not taken as zero"
        raise ValueError(msg)
    given = {"a": a, "b": b, "mean_a": mean_a, "mean_b": mean_b, "metric": metric}
    with _lag.scope(a):
        x, face, xp = enter("bures_distance", given)
        n = same_order(x, "a", "b", "metric")
        batches = [x["a"].shape[:-2], x["b"].shape[:-2]]
        for name in ("mean_a", "mean_b"):
            if name in x:
                if x[name].ndim == 0 or x[name].shape[-1] != n:
                    msg = f"{name}: must have shape (..., {n}) as a, got {tuple(x[name].shape)}"
                    raise ValueError(msg)
                batches.append(x[name].shape[:-1])
        batch = broadcast(batches, "a, b, mean_a and mean_b")
        root = metric_root(x.get("metric"), tolerance)
        members, pick = {}, {}
        for name in ("a", "b"):
            own = tuple(x[name].shape[:-2])
            members[name] = members_of(flattened(x[name]), tolerance, t, root)
            numbers = np.arange(math.prod(own)).reshape(own)
            pick[name] = np.broadcast_to(numbers, batch).reshape(-1)
        found = distances(members["a"], members["b"], pick["a"], pick["b"], root)
        faults = [
            Fault(name, members[name].status[pick[name]], members[name].detail[pick[name]])
            for name in ("a", "b")
        ]
        distance = np.ldexp(np.sqrt(found.square), found.unit) / abs(t)
        with np.errstate(over="ignore"):
            square = np.ldexp(found.square, 2 * found.unit) / t**2
        value = square if squared else distance
        if mean_a is not None:
            for name in ("mean_a", "mean_b"):
                finite = np.isfinite(np.abs(_xp.to_numpy(x[name]))).all(axis=-1)
                status = np.where(np.broadcast_to(finite, batch).reshape(-1), OK, NONFINITE)
                faults.append(Fault(name, status, np.zeros(len(status))))
            with np.errstate(invalid="ignore", over="ignore"):
                shift = xp.broadcast_to(x["mean_a"] - x["mean_b"], (*batch, n))
                apart = lengths(xp.reshape(shift, (math.prod(batch), n, 1)))
                value = value + apart**2 if squared else np.hypot(value, apart)
        good = np.all([fault.status == OK for fault in faults], axis=0)
        real = _xp.REAL[_xp.dtype_name(x["a"])]

        def hand(numbers: Any, dtype: str = real) -> Any:
            with np.errstate(over="ignore"):
                numbers = np.asarray(numbers).astype(dtype).reshape(batch)
            return face.leave(_xp.from_numpy(numbers, xp, like=x["a"]), a)

        result = hand(np.where(good, value, np.nan))
        if isinstance(result, np.ndarray):
            result = result[()]  # a number, as NumPy's own reductions return
        complete = result
        if return_info:
            error = np.where(good, found.error, np.nan)
            info = Info(
                found.method, hand(np.where(good, found.steps, 0), "int64"), hand(good, "bool"),
                hand(np.full(len(good), np.nan)), hand(error),
            )  # fmt: skip
            complete = result, info
        return finished("bures_distance", faults, batch, complete, check, policy)


@overload
def bures_map(
    a: ArrayT, b: ArrayT, /, *, return_info: Literal[True], **options: Unpack[_Options]
) -> tuple[ArrayT, Info]: ...
@overload
def bures_map(
    a: ArrayT, b: ArrayT, /, *, return_info: Literal[False] = ..., **options: Unpack[_Options]
) -> ArrayT: ...
def bures_map(
    a: ArrayT,
    b: ArrayT,
    /,
    *,
    assume_a: Literal["pos"] | None = "pos",
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    """Optimal transport map of centred Gaussians: the positive T with ``T A T = B``.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `bures_distance`, and not singular.
    b : array, shape (..., n, n)
        As in `bures_distance`; leading dimensions broadcast.
    assume_a, check_finite, on_fail, return_info
        As in `bures_distance`.

    Returns
    -------
    t : array, shape (..., n, n)
        Exactly Hermitian, in the library and device of ``a``. ``T - I`` is the direction of the
        geodesic from A to B, and ``I - T`` the gradient of ``d^2`` with respect to A.
    info : Info
        Only with ``return_info``. ``residual`` is ``||T A T - B|| / ||B||``; ``error_estimate``
        is NaN.

    Raises
    ------
    ValueError, TypeError, NotPositiveSemidefiniteError
        As in `bures_distance`.
    SingularMatrixError
        An eigenvalue of ``a`` is ``<= eps`` times the largest.

    Notes
    -----
    ``T = A^(-1/2) (A^(1/2) B A^(1/2))^(1/2) A^(-1/2)`` [1]_. With ``A = L L^H``, ``B = F F^H`` and
    the unitary polar factor U of ``F^H L`` it is ``F U L^-1``: two Cholesky factors, a singular
    value decomposition and a solve, about ``30 n^3`` flops. The relative error is about
    ``eps kappa(A)``; through the root ``(L^H B L)^(1/2)`` it would be ``eps kappa(A)^2``.

    References
    ----------
    .. [1] R. Bhatia, T. Jain, Y. Lim, "On the Bures-Wasserstein distance between positive definite
       matrices", Expositiones Mathematicae 37 (2019).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.bures_map(np.diag([4.0, 9.0]), np.diag([1.0, 36.0])).round(12)
    array([[0.5, 0. ],
           [0. , 2. ]])
    """
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    tolerance = asymmetry(assume_a)
    with _lag.scope(a):
        x, face, xp = enter("bures_map", {"a": a, "b": b})
        n = same_order(x, "a", "b")
        batch = broadcast([x["a"].shape[:-2], x["b"].shape[:-2]], "a and b")
        flat = {k: flattened(xp.broadcast_to(v, (*batch, n, n))) for k, v in x.items()}
        source = definite(members_of(flat["a"], tolerance))
        target = members_of(flat["b"], tolerance)
        bad = (source.status != OK) | (target.status != OK)
        left, right = (usable(m.matrix, np.where(bad, FAILED, OK)) for m in (source, target))
        result, residual = left, np.zeros(len(bad))
        if math.prod(left.shape):
            verdict = np.where(bad, FAILED, OK)
            fa, fb = usable(source.factor, verdict), usable(target.factor, verdict)
            with blas_for(left):
                rotated = fb @ polar_factor(_ops.adjoint(fb) @ fa)
                result = xp.linalg.solve(_ops.adjoint(fa), _ops.adjoint(rotated))
            result = 0.5 * (result + _ops.adjoint(result))
            if return_info:
                size = frobenius(right)
                residual = frobenius(result @ left @ result - right)
                residual = residual / np.where(size > 0, size, 1.0)
            result = _ops.scaled(result, target.unit - source.unit)
        result = xp.reshape(blank(result, bad), (*batch, n, n))
        complete = result = face.leave(result, a)
        if return_info:
            info = describe("procrustes", ~bad, 0, residual, batch, face, xp, x["a"], a)
            complete = result, info
        faults = [
            Fault("a", source.status, source.detail), Fault("b", target.status, target.detail)
        ]  # fmt: skip
        return finished("bures_map", faults, batch, complete, check, policy)


@overload
def bures_barycenter(
    covs: ArrayT | Sequence[ArrayT], weights: Any = ..., /, *, return_info: Literal[True],
    **options: Unpack[_BarycenterOptions],
) -> tuple[ArrayT, Info]: ...  # fmt: skip
@overload
def bures_barycenter(
    covs: ArrayT | Sequence[ArrayT], weights: Any = ..., /, *, return_info: Literal[False] = ...,
    **options: Unpack[_BarycenterOptions],
) -> ArrayT: ...  # fmt: skip
def bures_barycenter(
    covs: Any,
    weights: Any = None,
    /,
    *,
    tol: float | None = None,
    max_iter: int = 200,
    callback: Callable[[BarycenterState], bool | None] | None = None,
    start: Any = None,
    metric: Any = None,
    power: float = 1.0,
    assume_a: Literal["pos"] | None = "pos",
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    """Bures-Wasserstein barycentre: the S with the least ``sum_i w_i d(S, A_i)^2``.

    Parameters
    ----------
    covs : array, shape (..., k, n, n), or list of k arrays, shape (..., n, n)
        Matrices as in `bures_distance`; at least one with a positive weight should be definite,
        which makes the barycentre unique.
    weights : array, shape (k,) or (..., k), optional
        Not negative; they are divided by their sum. Default: equal weights.
    tol : float, optional
        Relative change of a factor of S at which a member is finished; default ``eps**0.75``.
    max_iter : int
        Steps after which a member counts as a failure.
    callback : callable, optional
        Gets a `BarycenterState` after each step; True or ``StopIteration`` stops, and members
        that are not finished are returned as they are, ``info.converged`` False.
    start : array, shape (..., n, n), optional
        Where to start; default the weighted mean.
    metric, power
        As in `bures_distance`: the barycentre in that geometry.
    assume_a, check_finite, on_fail, return_info
        As in `bures_distance`.

    Returns
    -------
    s : array, shape (..., n, n)
        Exactly Hermitian, in the library and device of ``covs``.
    info : Info
        Only with ``return_info``. ``residual`` is
        ``||S - sum_i w_i (S^(1/2) A_i S^(1/2))^(1/2)|| / ||S||`` before the last step (with
        ``metric`` or ``power`` in their coordinates); ``error_estimate`` is NaN.

    Raises
    ------
    ValueError, TypeError, NotPositiveSemidefiniteError, SingularMatrixError
        As in `bures_distance`; also for weights that are negative or sum to no positive number.
    NotConvergedError
        ``max_iter`` steps did not reach ``tol``.

    Notes
    -----
    The fixed point ``S <- S^(-1/2) (sum_i w_i (S^(1/2) A_i S^(1/2))^(1/2))^2 S^(-1/2)`` [1]_ in
    factors: with ``S = F F^H`` and ``A_i = F_i F_i^H`` it is ``F <- sum_i w_i F_i U_i``, U_i the
    unitary polar factor of ``F_i^H F``: no inverse and no squared condition, and singular matrices
    need nothing special. A step is k singular value decompositions, about ``25 k n^3`` flops. The
    functional never grows; the convergence is linear, fast where the matrices are of moderate
    condition or nearly commute (commuting matrices are done in one step). The change of F cannot
    be told from rounding below about ``eps kappa^(1/2)``, so that the default ``tol`` can be
    reached for a condition of S up to ``eps^(-1/2)``. The step bounds the distance to the fixed
    point only up to ``1/(1 - rate)``.

    References
    ----------
    .. [1] P. C. Álvarez-Esteban, E. del Barrio, J. A. Cuesta-Albertos, C. Matrán, "A fixed-point
       approach to barycenters in Wasserstein space", J. Math. Anal. Appl. 441 (2016).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> covs = np.stack([np.diag([1.0, 16.0]), np.diag([9.0, 4.0])])
    >>> lk.bures_barycenter(covs).round(12)
    array([[4., 0.],
           [0., 9.]])
    """
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    t, tolerance = real_power(power), asymmetry(assume_a)
    max_iter = _validate.integer("max_iter", max_iter, 1)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 2.0**-53, 1.0)
    if callback is not None and not callable(callback):
        msg = f"callback: must be callable, got {type(callback).__name__}"
        raise TypeError(msg)
    given = listed(covs)
    like = next(iter(given.values()))
    with _lag.scope(like):
        x, face, xp = enter("bures_barycenter", {**given, "start": start, "metric": metric})
        stacked = stack([x[name] for name in given])
        n, batch, k = stacked.shape[-1], tuple(stacked.shape[:-3]), stacked.shape[-3]
        same_order({**x, "covs": stacked}, "covs", *(w for w in ("start", "metric") if w in x))
        share = shares(weights, batch, k)
        root = metric_root(x.get("metric"), tolerance)
        count, real = math.prod(batch), _xp.REAL[_xp.dtype_name(stacked)]
        every = members_of(flattened(stacked), tolerance, t, root)
        status, detail = every.status.reshape(count, k), every.detail.reshape(count, k)
        faults = [worst_of(status, detail)]
        bad = faults[0].status != OK
        first = None
        if start is not None:
            given_start = xp.broadcast_to(x["start"], (*batch, n, n))
            first = members_of(flattened(given_start), tolerance, t, root)
            faults.append(Fault("start", first.status, first.detail))
            bad |= first.status != OK
        factor, unit = flattened(stacked)[:count, ...], np.zeros(count, int)
        change = residual = np.zeros(count)
        steps, done = np.zeros(count, int), ~bad
        if count and n:
            unit = every.unit.reshape(count, k).max(axis=1)
            scaled = _ops.scaled(every.factor, every.unit - np.repeat(unit, k))
            parts = xp.reshape(scaled, (count, k, n, n))
            w = _xp.from_numpy(share, xp, like=stacked, dtype=real)
            w = xp.astype(w, stacked.dtype)[:, :, None, None]
            if first is not None:
                factor = _ops.scaled(first.factor, first.unit - unit)
            else:
                mean = xp.sum(w * (parts @ _ops.adjoint(parts)), axis=1)
                factor = factored(usable(mean, np.where(bad, FAILED, OK)))[0]
            eps = float(np.finfo(real).eps)
            factor, steps, change, residual, stopped = fixed_point(
                factor, parts, w, bad, tol or eps**0.75, max_iter, callback
            )
            done = ~bad & (change <= (tol or eps**0.75))
            if not stopped:
                late = np.where(bad | done, OK, FAILED)
                faults.append(Fault("covs", late, change))
                bad = bad | ~done
        result = squared_factor(factor, unit, t, root)
        result = xp.reshape(blank(result, bad), (*batch, n, n))
        complete = result = face.leave(result, like)
        if return_info:
            info = describe("procrustes", done, steps, residual, batch, face, xp, stacked, like)
            complete = result, info
        return finished("bures_barycenter", faults, batch, complete, check, policy)


def explain(name: str, covs: Any, *_others: Any, **_options: Any) -> Explanation:
    """What a call would run for members that are neither near each other nor singular."""
    x, _, _ = enter(name, listed(covs))
    some = next(iter(x.values()))
    n, members = int(some.shape[-1]), math.prod(some.shape[:-2])
    method, reason = choose_method(n)
    reason += "; members near each other or singular take more careful forms"
    if name != "bures_distance":
        method, reason = "procrustes", "polar factors of products of Cholesky factors"
    flat = _xp.namespace(some).reshape(some, (members, n, n))
    _, why = _ops.HERMITIAN_SCAN.choose(flat)
    how = why if "<" in why else f"reference ({why})"
    planes = 2 if _xp.dtype_name(some) in _xp.COMPLEX else 1
    units = {"svdvals": 8.0, "eigvalsh": 6.0, "procrustes": 25.0}[method]
    itemsize = np.dtype(_xp.dtype_name(some)).itemsize
    flops = units * n**3 * members * planes**2 * len(x)
    nbytes = 2.0 * members * n * n * itemsize * len(x)
    return Explanation(name, method, reason, {"hermitian_scan": how}, flops, nbytes)
