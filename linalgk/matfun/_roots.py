"""Square roots and inverse square roots of matrices."""

import math
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._results import Info
from linalgk.matfun import _ops
from linalgk.matfun._root_paths import (
    ASYMMETRIC,
    SMALL,
    Call,
    choose_method,
    empty,
    scan,
    solve,
    steps_table,
)
from linalgk.matfun._root_report import finish, make_info
from linalgk.typing import ArrayT, AssumeA, OnFail, RootMethod


class _Options(TypedDict, total=False):
    assume_a: AssumeA | None
    method: RootMethod
    tol: float | None
    steps: int | None
    compute_dtype: Any
    check_finite: bool | None
    on_fail: OnFail | None
    out: Any


class _InverseOptions(_Options, total=False):
    damp: Any
    rel_damp: Any
    rcond: float | None


@overload
def sqrtm(
    a: ArrayT, /, *, return_info: Literal[True], **options: Unpack[_Options]
) -> tuple[ArrayT, Info]: ...
@overload
def sqrtm(
    a: ArrayT, /, *, return_info: Literal[False] = ..., **options: Unpack[_Options]
) -> ArrayT: ...
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
    coefficients of `minimax_schedule` for the member's own eigenvalue bound; products only, up to
    the condition that `linalgk.explain` names, and ``eigh`` beyond. ``newton_schulz``: the same
    with ``T = (3 I - M)/2``. ``closed_form``: n = 1, and general matrices of n = 2. ``schur``:
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
    if (
        type(a) is np.ndarray and method == "auto" and not return_info
        and assume_a is out is tol is steps is compute_dtype is None
        and (on_fail is None or on_fail in _POLICIES)
    ):  # fmt: skip
        quick = _quick(a, False)
        if quick is not None:
            return quick
    return _root(
        "sqrtm", a, False, assume_a, method, tol, steps, compute_dtype, check_finite, on_fail, out,
        return_info,
    )  # fmt: skip


@overload
def invsqrtm(
    a: ArrayT, /, *, return_info: Literal[True], **options: Unpack[_InverseOptions]
) -> tuple[ArrayT, Info]: ...
@overload
def invsqrtm(
    a: ArrayT, /, *, return_info: Literal[False] = ..., **options: Unpack[_InverseOptions]
) -> ArrayT: ...
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
    if (
        type(a) is np.ndarray and method == "auto" and not return_info
        and assume_a is out is tol is steps is compute_dtype is rcond is None
        and damp is rel_damp is _ZERO and (on_fail is None or on_fail in _POLICIES)
    ):  # fmt: skip
        quick = _quick(a, True)
        if quick is not None:
            return quick
    return _root(
        "invsqrtm", a, True, assume_a, method, tol, steps, compute_dtype, check_finite, on_fail,
        out, return_info, damp, rel_damp, rcond,
    )  # fmt: skip


def _root(
    name: str, a: Any, inverse: bool, assume_a: Any, method: Any, tol: Any, steps: Any,
    compute_dtype: Any, check_finite: Any, on_fail: Any, out: Any, return_info: bool,
    damp: Any = 0, rel_damp: Any = 0, rcond: Any = None,
) -> Any:  # fmt: skip
    """Check at the door, compute on a flat batch, and hand back what came in."""
    original, face, x, scalar = _entered(a)
    xp, dtype = _xp.namespace(x), _xp.dtype_name(x)
    n, batch = _validate.square("a", x), tuple(x.shape[:-2])
    for word, value in (("damp", damp), ("rel_damp", rel_damp)):
        if _xp.face(value) is not None:
            _xp.same_family(a=original, **{word: value})
    target = None if out is None else _validate.out(out, original, tuple(x.shape), dtype)
    work_dtype = _validate.compute_dtype(compute_dtype, dtype)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    call = _checked(inverse, assume_a, method, tol, steps, rel_damp, rcond, batch, n)
    flat = xp.reshape(x, (math.prod(batch), n, n))
    if work_dtype != dtype:
        flat = xp.astype(flat, _xp.dtype_of(xp, work_dtype))
    flat = _damped(flat, damp, batch)
    if isinstance(flat, np.ndarray):
        flat = np.ascontiguousarray(flat)
    found = solve(flat, call) if math.prod(flat.shape) else empty(flat)
    result = found.x if work_dtype == dtype else xp.astype(found.x, x.dtype)
    info = None
    if return_info:
        info = make_info(flat, found, call, batch, face, original)
    result = xp.reshape(result, tuple(x.shape))
    if target is not None:
        target[...] = result
    result = face.leave(result if target is None else target, original)
    if target is not None:
        result = out
    elif scalar:
        result = result[0, 0]
    return finish(name, flat, found, result, info, batch, check, policy)


_POLICIES = get_args(OnFail)
# The default, told from an array or a number by identity.
_ZERO = 0
# Native dtypes are singletons: identity is the cheapest test there is.
_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")
# What a quick call needs, by dtype, function and policy.
_prepared: dict[Any, Any] = {}


def _quick(a: Any, inverse: bool) -> Any:
    """The whole call for small real NumPy arrays when nothing is unusual, else None."""
    shape, dtype = a.shape, a.dtype
    n = shape[-1] if len(shape) > 1 else 0
    if not 1 < n <= SMALL or shape[-2] != n or not a.flags.c_contiguous:
        return None
    if dtype is not _DOUBLE and dtype is not _SINGLE:
        return None
    key = (dtype is _DOUBLE, inverse, _config.current().backend)
    ready = _prepared.get(key)
    if ready is None:
        chosen, _ = _ops.SMALL_ROOT.choose(a)
        if chosen is None:
            return None
        table = steps_table(dtype.name, inverse)
        ready = _prepared[key] = (chosen.load(), table, float(np.finfo(dtype).eps))
    run, table, eps = ready
    flat = a if len(shape) == 3 else a.reshape(-1, n, n)
    x, _, bad = run(flat, inverse, table, n * eps, _config.num_threads())
    return None if bad else x.reshape(shape)


def _entered(a: Any) -> tuple[Any, _xp.Face, Any, bool]:
    """The argument as given, its face, what is computed with, and whether it was a number."""
    original = _xp.as_array("a", a)
    face = _xp.face(original)
    assert face is not None
    x = _validate.floating("a", face.enter(original))
    scalar = x.ndim == 0
    return original, face, _xp.namespace(x).reshape(x, (1, 1)) if scalar else x, scalar


def _checked(
    inverse: bool, assume_a: Any, method: Any, tol: Any, steps: Any, rel_damp: Any, rcond: Any,
    batch: tuple[int, ...], n: int,
) -> Call:  # fmt: skip
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
    return Call(
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


def explain_root(inverse: bool, a: Any, /, **options: Any) -> Explanation:
    """What `sqrtm` or `invsqrtm` would run."""
    name = "invsqrtm" if inverse else "sqrtm"
    _, _, x, _ = _entered(a)
    xp = _xp.namespace(x)
    n, batch = _validate.square("a", x), tuple(x.shape[:-2])
    dtype = _validate.compute_dtype(options.get("compute_dtype"), _xp.dtype_name(x))
    call = _checked(
        inverse, options.get("assume_a"), options.get("method", "auto"), options.get("tol"),
        options.get("steps"), options.get("rel_damp", 0), options.get("rcond"), batch, n,
    )  # fmt: skip
    _validate.on_fail(options.get("on_fail"))
    flat = xp.reshape(x, (math.prod(batch), n, n))
    flat = xp.astype(flat, _xp.dtype_of(xp, dtype))
    if isinstance(flat, np.ndarray):
        flat = np.ascontiguousarray(flat)
    hermitian, note = True, ""
    if call.assume_a == "gen":
        hermitian = False
    elif call.assume_a is None and flat.shape[0] and n:
        status, _, _ = scan(flat, call)
        hermitian = bool((status != ASYMMETRIC).any())
        if hermitian and (status == ASYMMETRIC).any():
            note = f"; {int((status == ASYMMETRIC).sum())} members are not Hermitian: schur"
    method, reason = choose_method(
        n, dtype, hermitian=hermitian, spectrum=call.rel_damp is not None
    )
    if call.method != "auto":
        method, reason = call.method, "it was asked for"
    if method in ("minimax", "newton_schulz"):
        served = len(steps_table(dtype, inverse, method, call.tol, call.steps)) - 1
        note += f"; members of a condition beyond about 2^{served} go to eigh"
    return _cost(name, method, reason + note, flat, n, dtype)


def _cost(name: str, method: str, reason: str, flat: Any, n: int, dtype: str) -> Explanation:
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
    return Explanation(
        name, method, reason, implementations, flops, 2.0 * flat.shape[0] * n * n * itemsize
    )
