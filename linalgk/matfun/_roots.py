"""Square roots and inverse square roots of matrices."""

import math
import warnings
from typing import Any, NamedTuple, get_args

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._results import Info
from linalgk.errors import (
    ConvergenceWarning,
    MemberError,
    NonFiniteError,
    NoRealRootError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.matfun import _ops
from linalgk.matfun._minimax import newton_table, schedule_table
from linalgk.typing import ArrayT, AssumeA, OnFail, RootMethod

# Largest order whose batches stay in the fused lane kernel (a complex matrix counts twice).
SMALL = 32
# Up to this order matrices go one per thread with serial BLAS; above, BLAS has the threads.
# By the order alone, so that a result does not depend on the batch it travels in.
SERIAL = 128
# Condition (a power of two) up to which minimax steps serve A^{1/2}: their large coefficients cost
# accuracy there that eigenvectors keep. A^{-1/2} loses nothing by them.
MINIMAX_ROWS = 18

OK, NONFINITE, ASYMMETRIC, HARD = _ops.OK, _ops.NONFINITE, _ops.ASYMMETRIC, _ops.HARD
INDEFINITE, SINGULAR, NO_ROOT, FAILED = 4, 5, 6, 7


class _Call(NamedTuple):
    """Everything about one call but the array."""

    inverse: bool
    assume_a: str | None
    method: str
    tol: float | None
    steps: int | None
    rel_damp: Any  # NumPy (b,) or None
    rcond: float | None
    threads: int


class _Roots(NamedTuple):
    """Roots of a flat batch; the small arrays are NumPy, (b,)."""

    x: Any
    status: Any
    iterations: Any
    lower: Any  # smallest eigenvalue or a bound of it; NaN if unknown
    method: str


def sqrtm(
    a: ArrayT,
    /,
    *,
    assume_a: AssumeA | None = None,
    method: RootMethod = "auto",
    tol: float | None = None,
    steps: int | None = None,
    compute_dtype: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
) -> Any:
    """Principal square root of matrices: ``X @ X == A``.

    Parameters
    ----------
    a : array, shape (..., n, n)
        float32, float64, complex64 or complex128; integers become float64. Leading dimensions
        are batch. A number is its own 1 x 1 matrix.
    assume_a : {"gen", "her", "pos"}, optional
        ``"pos"``: Hermitian positive semidefinite, ``"her"``: Hermitian, ``"gen"``: do not look.
        By default a member is Hermitian if ``|a_ij - conj(a_ji)| <= n eps max|a|``.
    method : {"auto", "eigh", "minimax", "newton_schulz", "closed_form", "schur"}
        See Notes; ``linalgk.explain(linalgk.sqrtm, a)`` tells what ``"auto"`` does.
    tol : float, optional
        Relative error in the spectral norm that an iteration may leave; default roundoff.
    steps : int, optional
        Exact number of steps of an iteration instead.
    compute_dtype : dtype or str, optional
        Compute in this precision; the result keeps the dtype of ``a``.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What a numerical failure does; with the last two the bad members hold NaN.
    out : array, optional
        Where to put the result: exact shape and dtype.
    return_info : bool
        Also return an `Info` (one product more).

    Returns
    -------
    x : array, shape (..., n, n)
        Root in the library, dtype and device of ``a``; real for real ``a``. The root of a
        positive semidefinite matrix is exactly Hermitian.
    info : Info
        Only with ``return_info``. ``residual`` is ``||X X - A|| / ||A||`` and
        ``error_estimate`` a first-order bound of ``||X - A^(1/2)|| / ||A^(1/2)||`` for
        Hermitian members (NaN for others), both in the Frobenius norm.

    Raises
    ------
    ValueError
        Shape, NaN or infinity (`NonFiniteError`), asymmetry under ``assume_a="pos"``.
    TypeError
        Not an array, or a dtype that is not supported.
    NotPositiveSemidefiniteError
        A real Hermitian member (any under ``"pos"``) has an eigenvalue below ``-n eps`` of the
        largest; ``sqrtm(a + 0j)`` gives the complex root.
    NoRealRootError
        A real member has a negative real eigenvalue: pass ``a + 0j``.
    NotConvergedError
        The residual of a general member shows that no root was found.

    See Also
    --------
    invsqrtm : the inverse root.

    Notes
    -----
    ``eigh``: with ``A = V diag(w) V^H`` and ``B = V diag(w)^(1/4)`` the root is ``B B^H``, about
    ``9 n^3`` flops for the eigenvectors (half of them memory-bound) and ``n^3`` for the product.
    ``minimax``: ``T = a I + b M + c M^2, X <- X T, M <- M T^2`` from ``X = M = A/s`` with the
    coefficients of `minimax_schedule` for the member's own eigenvalue bound; products only.
    ``newton_schulz``: the same with ``T = (3 I - M)/2``. ``closed_form``: n <= 2. ``schur``:
    general matrices by SciPy (other libraries: the Denman-Beavers iteration in product form).
    ``auto`` takes ``minimax`` in one fused kernel for Hermitian n <= 32, ``eigh`` for larger
    ones and ``schur`` for the rest.

    The relative forward error of a Hermitian root is about ``eps * kappa**0.5`` [1]_, whatever
    the method; a singular matrix has a root good to ``eps**0.5``. Scaling by ``4**k`` scales the
    result by ``2**k`` exactly.

    References
    ----------
    .. [1] N. J. Higham, *Functions of Matrices*, SIAM, 2008, chapter 6.
    .. [2] N. Amsel, D. Persson, C. Musco, R. M. Gower, "The Polar Express", arXiv:2505.16932.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.sqrtm(np.array([[5.0, 4.0], [4.0, 5.0]])).round(12)
    array([[2., 1.],
           [1., 2.]])
    >>> float(lk.sqrtm(4.0))
    2.0
    """
    return _root(
        "sqrtm", a, False, assume_a, method, tol, steps, compute_dtype, check_finite, on_fail, out,
        return_info,
    )  # fmt: skip


def invsqrtm(
    a: ArrayT,
    /,
    *,
    assume_a: AssumeA | None = None,
    method: RootMethod = "auto",
    tol: float | None = None,
    steps: int | None = None,
    compute_dtype: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
    damp: Any = 0,
    rel_damp: Any = 0,
    rcond: float | None = None,
) -> Any:
    """Inverse principal square root of matrices: ``Z @ A @ Z == I``.

    Parameters
    ----------
    a, assume_a, method, tol, steps, compute_dtype, check_finite, on_fail, out, return_info
        As in `sqrtm`.
    damp : float or array, shape (...)
        The root is that of ``A + damp I``; a number or one per member.
    rel_damp : float or array, shape (...)
        Damping in units of each member's largest eigenvalue (Hermitian members only).
    rcond : float, optional
        Take the pseudo-inverse: eigenvalues ``<= rcond`` times the largest count as zero
        (Hermitian members only).

    Returns
    -------
    z : array, shape (..., n, n)
        Inverse root in the library, dtype and device of ``a``.
    info : Info
        Only with ``return_info``. ``residual`` is ``||Z A Z - I|| / sqrt(n)`` with the damped A
        (with ``rcond``: the projector onto its range for I) and ``error_estimate`` the
        first-order bound ``||Z A Z - I|| / 2`` of the relative error, both Frobenius.

    Raises
    ------
    SingularMatrixError
        An eigenvalue is ``<= eps`` times the largest and neither damping nor ``rcond`` is given.
    ValueError, TypeError, NotPositiveSemidefiniteError, NoRealRootError, NotConvergedError
        As in `sqrtm`.

    See Also
    --------
    sqrtm : the root itself.

    Notes
    -----
    Methods and costs as in `sqrtm`, with ``X = I`` at the start of an iteration. The relative
    forward error is about ``eps * kappa`` for every method; only a wider ``compute_dtype``
    lowers it. Damping needs the largest eigenvalue, so ``rel_damp`` selects ``eigh``.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.invsqrtm(np.array([[5.0, 4.0], [4.0, 5.0]])).round(12)
    array([[ 0.66666667, -0.33333333],
           [-0.33333333,  0.66666667]])
    """
    return _root(
        "invsqrtm", a, True, assume_a, method, tol, steps, compute_dtype, check_finite, on_fail,
        out, return_info, damp, rel_damp, rcond,
    )  # fmt: skip


def choose_method(n: int, dtype: str, *, hermitian: bool, spectrum: bool) -> tuple[str, str]:
    """Method for matrices of order n, and why.

    Cost model: lanes do ``4 n^3`` flops a step at a fifth of peak or better and 6 to 18 steps,
    against about ``10 n^3`` of LAPACK at a few percent of peak for small n; they cross between
    n = 32 and 64. Products at full peak would need 3 GEMMs a step, eigenvectors cost 4 to 5.
    """
    lanes = 2 * n if dtype in _xp.COMPLEX else n
    if not hermitian:
        return ("closed_form", "n <= 2") if n <= 2 else ("schur", "not Hermitian")
    if spectrum:
        return "eigh", "rel_damp and rcond need the spectrum"
    if n == 1:
        return "closed_form", "n = 1"
    if lanes <= SMALL:
        return "minimax", f"Hermitian and n <= {SMALL // (lanes // n)}: one fused kernel"
    return "eigh", "Hermitian: eigenvectors cost less than the steps of an iteration"


def _root(
    name: str, a: Any, inverse: bool, assume_a: Any, method: Any, tol: Any, steps: Any,
    compute_dtype: Any, check_finite: Any, on_fail: Any, out: Any, return_info: bool,
    damp: Any = 0, rel_damp: Any = 0, rcond: Any = None,
) -> Any:  # fmt: skip
    """Check at the door, compute on a flat batch, and hand back what came in."""
    if (
        type(a) is np.ndarray and method == "auto" and assume_a is None and out is None
        and tol is steps is compute_dtype is rcond is None and not return_info
        and type(damp) is type(rel_damp) is int and damp == rel_damp == 0
    ):  # fmt: skip
        quick = _quick(a, inverse)
        if quick is not None:
            return quick
    original = _xp.as_array("a", a)
    face = _xp.face(original)
    assert face is not None
    x = _validate.floating("a", face.enter(original))
    xp = _xp.namespace(x)
    scalar = x.ndim == 0
    x = xp.reshape(x, (1, 1)) if scalar else x
    n, batch = _validate.square("a", x), tuple(x.shape[:-2])
    dtype = _xp.dtype_name(x)
    target = None if out is None else _validate.out(out, original, tuple(x.shape), dtype)
    work_dtype = _validate.compute_dtype(compute_dtype, dtype)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    call = _checked(
        inverse, assume_a, method, tol, steps, rel_damp, rcond, batch, n, work_dtype
    )
    flat = xp.reshape(x, (math.prod(batch), n, n))
    if work_dtype != dtype:
        flat = xp.astype(flat, _xp.dtype_of(xp, work_dtype))
    flat = _damped(flat, damp, batch)
    if isinstance(flat, np.ndarray):
        flat = np.ascontiguousarray(flat)
    found = _solve(flat, call) if math.prod(flat.shape) else _empty(flat)
    result = found.x if work_dtype == dtype else xp.astype(found.x, x.dtype)
    info = None
    if return_info:
        info = _info(flat, found, call, batch, face, original)
    result = xp.reshape(result, tuple(x.shape))
    if target is not None:
        target[...] = result
    result = face.leave(result if target is None else target, original)
    if target is not None:
        result = out
    elif scalar:
        result = result[0, 0]
    return _finish(name, flat, found, call, result, info, batch, check, policy)


def _quick(a: Any, inverse: bool) -> Any:
    """The whole call for small real NumPy arrays when nothing is unusual, else None."""
    shape = a.shape
    if (
        a.ndim < 2 or shape[-1] != shape[-2] or not 1 < shape[-1] <= SMALL
        or a.dtype.char not in "fd" or not a.flags.c_contiguous or not a.dtype.isnative
        or _config.current().backend == "reference"
    ):  # fmt: skip
        return None
    flat = a if a.ndim == 3 else a.reshape((-1, *shape[-2:]))
    eps = 1.1920929e-07 if a.dtype.char == "f" else 2.220446049250313e-16
    table = _table(a.dtype.name, inverse)
    x, _, bad = _ops.SMALL_ROOT(flat, inverse, table, shape[-1] * eps, _config.num_threads())
    return None if bad else x.reshape(shape)


def _table(
    real: str, inverse: bool, method: str = "minimax", tol: Any = None, steps: Any = None
) -> Any:
    if method == "newton_schulz":
        return newton_table(real, tol, steps)
    full = inverse or tol is not None or steps is not None
    return schedule_table(real, tol, steps, 64 if full else MINIMAX_ROWS)


def _checked(
    inverse: bool, assume_a: Any, method: Any, tol: Any, steps: Any, rel_damp: Any, rcond: Any,
    batch: tuple[int, ...], n: int, dtype: str,
) -> _Call:  # fmt: skip
    if assume_a is not None:
        _validate.choice("assume_a", assume_a, get_args(AssumeA))
    _validate.choice("method", method, get_args(RootMethod))
    if tol is not None:
        tol = _validate.real_between("tol", tol, 2.0**-53, 1.0)
    if steps is not None:
        steps = _validate.integer("steps", steps, 1)
    if tol is not None and steps is not None:
        msg = "tol and steps: give one of them, got both"
        raise ValueError(msg)
    if (tol is not None or steps is not None) and method in ("eigh", "closed_form", "schur"):
        msg = f"tol and steps: method {method!r} is direct; use 'minimax' or 'newton_schulz'"
        raise ValueError(msg)
    if method == "closed_form" and n > 2:
        msg = f"method: 'closed_form' needs n <= 2, got n = {n}"
        raise ValueError(msg)
    if method == "schur" and assume_a == "pos":
        msg = "method: 'schur' is for general matrices; leave out assume_a='pos'"
        raise ValueError(msg)
    relative = _validate.per_member("rel_damp", rel_damp, batch)
    spectrum = rcond is not None or bool(relative.any())
    if rcond is not None:
        rcond = _validate.real_between("rcond", rcond, 0.0, 1.0)
    if spectrum and (method not in ("auto", "eigh") or assume_a == "gen"):
        msg = "rel_damp and rcond need the spectrum: use method='eigh' and a Hermitian matrix"
        raise ValueError(msg)
    if (tol is not None or steps is not None) and method == "auto":
        method = "minimax"
    return _Call(
        inverse, assume_a, method, tol, steps, relative if spectrum else None, rcond,
        _config.num_threads(),
    )  # fmt: skip


def _damped(flat: Any, damp: Any, batch: tuple[int, ...]) -> Any:
    absolute = _validate.per_member("damp", damp, batch)
    if not absolute.any():
        return flat
    xp = _xp.namespace(flat)
    shift = _xp.from_numpy(absolute, xp, like=flat, dtype=flat.dtype)
    return flat + shift[:, None, None] * _ops.eye_like(flat)


def _empty(flat: Any) -> _Roots:
    count = flat.shape[0]
    zeros = np.zeros(count, int)
    return _Roots(flat, zeros, zeros, np.full(count, np.nan), "none")


def _take(flat: Any, index: Any) -> Any:
    if isinstance(flat, np.ndarray):
        return flat[index]
    xp = _xp.namespace(flat)
    return xp.take(flat, _xp.from_numpy(index, xp, like=flat), axis=0)


def _merge(base: _Roots, index: Any, part: _Roots) -> _Roots:
    """``base`` with the members ``index`` replaced."""
    status, iterations, lower = base.status.copy(), base.iterations.copy(), base.lower.copy()
    status[index], iterations[index], lower[index] = part.status, part.iterations, part.lower
    order = np.arange(len(status))
    order[index] = len(status) + np.arange(len(index))
    xp = _xp.namespace(base.x)
    x = _take(xp.concat([base.x, part.x]), order)
    names = [base.method, *(m for m in part.method.split("+") if m not in base.method)]
    every = len(index) == len(status)
    method = part.method if every else "+".join(names)
    return _Roots(x, status, iterations, lower, method)


def _solve(flat: Any, call: _Call) -> _Roots:
    """Route every member to its method; members one path cannot serve go on to the next."""
    n, dtype = flat.shape[-1], _xp.dtype_name(flat)
    if call.assume_a == "gen" or call.method == "schur":
        return _general(flat, call)
    if call.method == "closed_form":
        return _general(flat, call)
    method = call.method
    if method == "auto":
        spectrum = call.rel_damp is not None
        method, _ = choose_method(n, dtype, hermitian=True, spectrum=spectrum)
    if method == "closed_form":
        return _general(flat, call)
    if method == "eigh":
        return _spectral(flat, call)
    return _iterative(flat, call, method)


def _asymmetry(call: _Call, n: int, eps: float) -> float:
    """Relative asymmetry that still counts as rounding, or as carelessness under "pos"/"her"."""
    return float(n * eps) if call.assume_a is None else float(eps) ** 0.5


def _scan(flat: Any, call: _Call) -> Any:
    """Status of each member after the structure scan, and its largest entry."""
    largest, defect = (_xp.to_numpy(v) for v in _ops.HERMITIAN_SCAN(flat, call.threads))
    eps = np.finfo(largest.dtype).eps
    status = np.where(np.isfinite(largest), OK, NONFINITE)
    with np.errstate(invalid="ignore"):
        status[defect > _asymmetry(call, flat.shape[-1], eps) * largest] = ASYMMETRIC
    return status, largest


def _rest(found: _Roots, flat: Any, call: _Call) -> _Roots:
    """Members that are not Hermitian go to the general method unless the caller said they were."""
    index = np.flatnonzero(found.status == ASYMMETRIC)
    if not len(index) or call.assume_a is not None or call.rel_damp is not None:
        return found
    return _merge(found, index, _general(_take(flat, index), call))


def _iterative(flat: Any, call: _Call, method: str) -> _Roots:
    dtype = _xp.dtype_name(flat)
    table = _table(_xp.REAL[dtype], call.inverse, method, call.tol, call.steps)
    eps = float(np.finfo(_xp.REAL[dtype]).eps)
    planes = 2 if dtype in _xp.COMPLEX else 1
    n = flat.shape[-1]
    tol = _asymmetry(call, n, eps)
    if n * planes <= SMALL:
        x, report, bad = _ops.SMALL_ROOT(flat, call.inverse, table, tol, call.threads)
    else:
        # beyond the kernel's size the definition runs, its products by the op's own kernel
        serial = _serial(flat)
        with _config.serial_blas if serial else _config.blas_threads():
            threads = call.threads if serial else 1
            x, report, bad = _ops.small_root(flat, call.inverse, table, tol, threads)
    report = np.asarray(_xp.to_numpy(report), dtype=np.float64)
    status = report[:, 0].astype(int)
    found = _Roots(x, status, report[:, 1].astype(int), report[:, 2], method)
    if not bad:
        return found
    hard = np.flatnonzero(status == HARD)
    if len(hard):
        # No lower bound of the spectrum: its eigenvalues decide, and are needed anyway.
        found = _merge(found, hard, _spectral(_take(flat, hard), call))
    return _rest(found, flat, call)


def _serial(flat: Any) -> bool:
    return isinstance(flat, np.ndarray) and flat.shape[-1] <= SERIAL


def _spectral(flat: Any, call: _Call) -> _Roots:
    """By eigenvectors; decides definiteness and singularity by the computed eigenvalues."""
    xp = _xp.namespace(flat)
    complex_ = _xp.dtype_name(flat) in _xp.COMPLEX
    n = flat.shape[-1]
    status, largest = _scan(flat, call)
    real = largest.dtype
    eps = float(np.finfo(real).eps)
    # a power of four near the largest entry, so that scaling is exact and its root too
    fine = status == OK
    positive = fine & (largest > 0)
    exponent = np.frexp(np.where(positive, largest, 1.0).astype(np.float64))[1]
    half = -(-exponent // 2)
    keep = _xp.from_numpy(fine, xp, like=flat)[:, None, None]
    h = xp.where(keep, flat, _ops.eye_like(flat)) if not fine.all() else flat
    h = _scaled(h, -2 * half)
    h = 0.5 * (h + _ops.adjoint(h))
    serial = _serial(flat)
    threads = call.threads if serial else 1
    with _config.serial_blas if serial else _config.blas_threads():
        w_device, v = _ops.EIGH(h, threads)
        w = np.asarray(_xp.to_numpy(w_device), dtype=np.float64)
        status[fine & ~np.isfinite(w).all(axis=1)] = FAILED
        root, status, lower = _spectrum(w, status, call, complex_, n, eps)
        if np.iscomplexobj(root):
            factor = _xp.from_numpy(root, xp, like=flat, dtype=flat.dtype)
            x = (v * factor[:, None, :]) @ _ops.adjoint(v)
        else:
            quarter = _xp.from_numpy(np.sqrt(root), xp, like=flat, dtype=w_device.dtype)
            b = v * xp.astype(quarter, v.dtype)[:, None, :]
            x = _ops.GRAM(b, threads)
    x = _scaled(x, -half if call.inverse else half)
    if not (status == OK).all():
        bad = _xp.from_numpy(status != OK, xp, like=flat)[:, None, None]
        x = xp.where(bad, xp.asarray(float("nan"), dtype=x.dtype), x)
    lower = np.ldexp(lower, 2 * half)
    found = _Roots(x, status, np.zeros(len(status), int), lower, "eigh")
    return _rest(found, flat, call)


def _scaled(x: Any, exponents: Any) -> Any:
    """Members times 2^exponents, exact unless they leave the range of the dtype."""
    if not exponents.any():
        return x
    xp = _xp.namespace(x)
    real = _xp.REAL[_xp.dtype_name(x)]
    # two factors, because one alone can overflow where the product does not
    first = exponents // 2
    for part in (first, exponents - first):
        factor = _xp.from_numpy(np.ldexp(1.0, part).astype(real), xp, like=x, dtype=x.dtype)
        x = x * factor[:, None, None]
    return x


def _spectrum(w: Any, status: Any, call: _Call, complex_: bool, n: int, eps: float) -> Any:
    """The function of the eigenvalues, the verdict on each member, and its smallest eigenvalue."""
    with np.errstate(all="ignore"):
        top = np.abs(w).max(axis=1)
        if call.rel_damp is not None:
            w = w + (call.rel_damp * np.maximum(w[:, -1], 0))[:, None]
            top = np.abs(w).max(axis=1)
        noise = n * eps * top
        lowest = w.min(axis=1)
        below = (status == OK) & (lowest < -noise)
        signed = complex_ and call.assume_a != "pos" and call.rcond is None
        if not signed:
            status = np.where(below, INDEFINITE, status)
        rounding = np.abs(w) <= noise[:, None] if signed else w < 0
        w = np.where(rounding & (w < 0), 0.0, w) if not signed else w
        if call.inverse and call.rcond is not None:
            kept = w > call.rcond * top[:, None]
            root = np.where(kept, 1 / np.sqrt(np.where(kept, w, 1.0)), 0.0)
        else:
            if call.inverse:
                singular = (np.abs(w) <= eps * top[:, None]).any(axis=1)
                status = np.where((status == OK) & singular, SINGULAR, status)
            if signed and below.any():
                root = np.sqrt(w.astype(complex))
            else:
                root = np.sqrt(np.maximum(w, 0.0))
            root = 1 / root if call.inverse else root
    finite = np.isfinite(root).all(axis=1) & (status == OK)
    return np.where(finite[:, None], root, 1.0), status, np.maximum(lowest, 0.0)


def _general(flat: Any, call: _Call) -> _Roots:
    """No structure assumed: closed form for n <= 2, else Schur or Denman-Beavers."""
    xp = _xp.namespace(flat)
    n, complex_ = flat.shape[-1], _xp.dtype_name(flat) in _xp.COMPLEX
    real = np.dtype(_xp.REAL[_xp.dtype_name(flat)])
    eps = float(np.finfo(real).eps)
    largest = np.asarray(_xp.to_numpy(xp.max(xp.abs(flat), axis=(-2, -1))), dtype=np.float64)
    finite = np.isfinite(largest)
    status = np.where(finite, OK, NONFINITE)
    half = -(-np.frexp(np.where(finite & (largest > 0), largest, 1.0))[1] // 2)
    keep = _xp.from_numpy(finite, xp, like=flat)[:, None, None]
    a = _scaled(xp.where(keep, flat, _ops.eye_like(flat)), -2 * half)
    closed = n <= 2 and call.method in ("auto", "closed_form")
    wide = xp.astype(a, _xp.dtype_of(xp, "complex64" if real.itemsize == 4 else "complex128"))
    x = _closed_form(wide) if closed else _ops.GENERAL_SQRT(a, call.threads)
    status, imaginary = _judge(wide, x, status, eps, n)
    if not complex_:
        status = np.where((status == OK) & imaginary, NO_ROOT, status)
        x = xp.real(x)
    x = xp.astype(x, flat.dtype)
    if call.inverse:
        x, status = _inverse(x, status, eps)
    x = _scaled(x, -half if call.inverse else half)
    bad = status != OK
    if bad.any():
        mask = _xp.from_numpy(bad, xp, like=flat)[:, None, None]
        x = xp.where(mask, xp.asarray(float("nan"), dtype=x.dtype), x)
    unknown = np.full(len(status), np.nan)
    iterations = np.zeros(len(status), int)
    return _Roots(x, status, iterations, unknown, "closed_form" if closed else "schur")


def _closed_form(a: Any) -> Any:
    """``(A + s I) / sqrt(tr A + 2 s)`` with ``s = sqrt(det A)`` for n = 2; the root for n = 1."""
    xp = _xp.namespace(a)
    if a.shape[-1] == 1:
        return xp.sqrt(a)
    det = a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0]
    s = xp.sqrt(det)
    trace = a[:, 0, 0] + a[:, 1, 1]
    # of the two roots of the determinant the one that makes both eigenvalues principal
    s = xp.where(xp.abs(trace + 2 * s) >= xp.abs(trace - 2 * s), s, -s)
    t = xp.sqrt(trace + 2 * s)
    zero = t == 0
    t = xp.where(zero, xp.ones_like(t), t)
    x = (a + s[:, None, None] * _ops.eye_like(a)) / t[:, None, None]
    multiple = a[:, 0, 1] == 0
    multiple = multiple & (a[:, 1, 0] == 0) & (a[:, 0, 0] == a[:, 1, 1])
    return xp.where(
        multiple[:, None, None], xp.sqrt(a[:, :1, :1]) * _ops.eye_like(a), x
    )


def _judge(a: Any, x: Any, status: Any, eps: float, n: int) -> Any:
    """Fail members whose root is not one; tell which are not real."""
    xp = _xp.namespace(a)

    def norm(y: Any) -> Any:
        return np.sqrt(
            np.asarray(_xp.to_numpy(xp.sum(xp.abs(y) ** 2, axis=(-2, -1))), dtype=np.float64)
        )

    with np.errstate(all="ignore"):
        size, defect, root = norm(a), norm(x @ x - a), norm(x)
        # a backward stable root has a residual of n eps ||X||^2 (Higham 2008, section 6.5)
        bound = 10 * n * eps * np.maximum(root**2, size)
        status = np.where((status == OK) & ~(defect <= bound), FAILED, status)
        imaginary = norm(xp.imag(x)) > 10 * n * eps**0.5 * root
    return status, imaginary


def _inverse(x: Any, status: Any, eps: float) -> Any:
    """Invert roots; singular where the reciprocal condition is below roundoff."""
    xp = _xp.namespace(x)
    singular = np.asarray(_xp.to_numpy(xp.linalg.svdvals(_usable(x, status))))
    low = singular[:, -1] <= eps * singular[:, 0]
    status = np.where((status == OK) & low, SINGULAR, status)
    return xp.linalg.inv(_usable(x, status)), status


def _usable(x: Any, status: Any) -> Any:
    xp = _xp.namespace(x)
    good = _xp.from_numpy(status == OK, xp, like=x)[:, None, None]
    return xp.where(good, x, _ops.eye_like(x))


def _info(
    flat: Any, found: _Roots, call: _Call, batch: tuple[int, ...], face: _xp.Face, like: Any
) -> Info:
    """Residual and error estimate from one more product."""
    xp = _xp.namespace(flat)
    x, count, n = found.x, flat.shape[0], flat.shape[-1]
    good = found.status == OK
    real = _xp.REAL[_xp.dtype_name(flat)]

    def norm(y: Any) -> Any:
        return np.sqrt(
            np.asarray(_xp.to_numpy(xp.sum(xp.abs(y) ** 2, axis=(-2, -1))), dtype=np.float64)
        )

    residual = np.full(count, np.nan)
    error = np.full(count, np.nan)
    if count and n:
        with np.errstate(all="ignore"):
            a = flat
            if call.rel_damp is not None and call.rel_damp.any():
                top = np.maximum(np.asarray(_xp.to_numpy(_top(flat, good))), 0)
                shift = _xp.from_numpy(call.rel_damp * top, xp, like=flat, dtype=flat.dtype)
                a = flat + shift[:, None, None] * _ops.eye_like(flat)
            if call.inverse:
                product = x @ a @ x
                if call.rcond is not None:
                    defect = norm(product @ product - product)
                else:
                    defect = norm(product - _ops.eye_like(flat))
                residual, error = defect / math.sqrt(n), defect / 2
            else:
                size, root, defect = norm(a), norm(x), norm(x @ x - a)
                residual = np.where(size > 0, defect / size, defect)
                # ||X - Y|| <= ||X^2 - Y^2|| / (2 sqrt(lambda_min)), and <= its square root
                first = defect / (2 * np.sqrt(found.lower))
                second = np.sqrt(math.sqrt(n) * defect)
                error = np.where(root > 0, np.fmin(first, second) / root, 0.0)
            error = np.where(np.isnan(found.lower), np.nan, error)
    fields = {
        "iterations": np.where(good, found.iterations, 0).astype(np.int64),
        "converged": good,
        "residual": np.where(good, residual, np.nan).astype(real),
        "error_estimate": np.where(good, error, np.nan).astype(real),
    }
    given = {
        key: face.leave(_xp.from_numpy(value.reshape(batch), xp, like=flat), like)
        for key, value in fields.items()
    }
    return Info(method=found.method, **given)


def _top(flat: Any, good: Any) -> Any:
    xp = _xp.namespace(flat)
    return xp.linalg.eigvalsh(_usable(flat, np.where(good, OK, FAILED)))[:, -1]


def _finish(
    name: str, flat: Any, found: _Roots, call: _Call, result: Any, info: Any,
    batch: tuple[int, ...], check: bool, policy: str,
) -> Any:  # fmt: skip
    """Report failures as asked and return."""
    complete = result if info is None else (result, info)
    status = found.status
    if (status == OK).all():
        return complete
    if (status == NONFINITE).any() and check and policy == "raise":
        raise _error(name, NONFINITE, flat, found, batch, complete)
    if call.assume_a in ("pos", "her") and (status == ASYMMETRIC).any():
        raise _error(name, ASYMMETRIC, flat, found, batch, complete)
    kinds = [k for k in np.unique(status) if k not in (OK, NONFINITE)]
    if not kinds and not check:
        return complete
    if policy == "raise":
        raise _error(name, int(kinds[0]), flat, found, batch, complete)
    if policy == "warn":
        messages = "; ".join(
            str(_error(name, int(k), flat, found, batch, None)) for k in np.unique(status) if k
        )
        warnings.warn(messages, ConvergenceWarning, stacklevel=4)
    return complete


def _error(
    name: str, kind: int, flat: Any, found: _Roots, batch: tuple[int, ...], result: Any
) -> MemberError:
    where = np.flatnonzero(found.status == kind)
    index = tuple(tuple(int(i) for i in np.unravel_index(k, batch)) if batch else () for k in where)
    bad = np.flatnonzero(found.status != OK)
    every = tuple(tuple(int(i) for i in np.unravel_index(k, batch)) if batch else () for k in bad)
    which = f" (batch members {', '.join(map(str, index[:8]))}{', …' if len(index) > 8 else ''})"
    which = which if batch else ""
    member = np.asarray(_xp.to_numpy(_take(flat, where[:1])))[0]
    if kind == NONFINITE:
        msg = f"{name}: a holds NaN or infinity{which}; remove them, or pass on_fail='nan'"
        return NonFiniteError(msg, every, result)
    if kind == ASYMMETRIC:
        defect = np.linalg.norm(member - member.conj().T) / np.linalg.norm(member)
        msg = (
            f"{name}: a is not Hermitian: ||A - A^H|| = {defect:.1e} ||A||{which}; symmetrise it "
            "first, or leave out assume_a, rel_damp and rcond"
        )
        return _Asymmetric(msg, every, result)
    if kind == INDEFINITE:
        low = np.linalg.eigvalsh(member)[0]
        msg = (
            f"{name}: a has the negative eigenvalue {low:.6g}{which}, so that no positive "
            "semidefinite root exists; pass a + 0j for the complex root, or add damping"
        )
        return NotPositiveSemidefiniteError(msg, every, result)
    if kind == SINGULAR:
        msg = (
            f"{name}: a is singular to working precision{which}; give damp=, rel_damp= or rcond=, "
            "or a wider compute_dtype"
        )
        return SingularMatrixError(msg, every, result)
    if kind == NO_ROOT:
        msg = f"{name}: a has a negative real eigenvalue and no real root{which}; pass a + 0j"
        return NoRealRootError(msg, every, result)
    msg = f"{name}: no root was found to working precision{which}; a may have none"
    return NotConvergedError(msg, every, result)


class _Asymmetric(MemberError, ValueError):
    """Input declared Hermitian is not."""


def explain_root(inverse: bool, a: Any, /, **options: Any) -> Explanation:
    """What `sqrtm` or `invsqrtm` would run."""
    name = "invsqrtm" if inverse else "sqrtm"
    original = _xp.as_array("a", a)
    face = _xp.face(original)
    assert face is not None
    x = _validate.floating("a", face.enter(original))
    xp = _xp.namespace(x)
    x = xp.reshape(x, (1, 1)) if x.ndim == 0 else x
    n, batch = _validate.square("a", x), tuple(x.shape[:-2])
    dtype = _validate.compute_dtype(options.get("compute_dtype"), _xp.dtype_name(x))
    call = _checked(
        inverse, options.get("assume_a"), options.get("method", "auto"), options.get("tol"),
        options.get("steps"), options.get("rel_damp", 0), options.get("rcond"), batch, n, dtype,
    )  # fmt: skip
    flat = xp.reshape(x, (math.prod(batch), n, n))
    flat = xp.astype(flat, _xp.dtype_of(xp, dtype))
    if isinstance(flat, np.ndarray):
        flat = np.ascontiguousarray(flat)
    hermitian, note = True, ""
    if call.assume_a == "gen":
        hermitian = False
    elif call.assume_a is None and flat.shape[0] and n:
        status, _ = _scan(flat, call)
        hermitian = bool((status != ASYMMETRIC).any())
        if hermitian and (status == ASYMMETRIC).any():
            note = f"; {int((status == ASYMMETRIC).sum())} members are not Hermitian: schur"
    method, reason = choose_method(
        n, dtype, hermitian=hermitian, spectrum=call.rel_damp is not None
    )
    if call.method != "auto":
        method, reason = call.method, "it was asked for"
    return _cost(name, method, reason + note, flat, call, n, dtype)


def _cost(
    name: str, method: str, reason: str, flat: Any, call: _Call, n: int, dtype: str
) -> Explanation:
    planes = 2 if dtype in _xp.COMPLEX else 1
    small = n * planes <= SMALL and method in ("minimax", "newton_schulz")
    used = {
        "eigh": (_ops.HERMITIAN_SCAN, _ops.EIGH, _ops.GRAM),
        "schur": (_ops.GENERAL_SQRT,),
        "closed_form": (),
    }.get(method, (_ops.SMALL_ROOT,) if small else (_ops.HERMITIAN_SCAN, _ops.ROOT_ITERATION))
    implementations = {}
    for op in used:
        _, why = op.choose(flat)
        implementations[op.name] = why if "<" in why else f"reference ({why})"
    # per member, in units of n^3: eigenvectors and product; 12 typical minimax steps; Schur
    units = {"eigh": 10.0, "schur": 28.0, "closed_form": 1.0}.get(method, 48.0 if small else 72.0)
    flops = units * n**3 * flat.shape[0] * planes**2
    itemsize = np.dtype(dtype).itemsize
    return Explanation(name, method, reason, implementations, flops, 2.0 * flat.shape[0] * n * n * itemsize)
