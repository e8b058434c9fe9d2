"""Square roots, inverse square roots and inverse p-th roots of matrices."""

import functools
import numbers
from fractions import Fraction
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import numpy as np

from linalgk._results import Info
from linalgk.matfun import _traced
from linalgk.matfun._apply import POLICIES, ZERO, apply, quick
from linalgk.matfun._spectral import Scalar
from linalgk.typing import ArrayT, AssumeA, OnFail, RootMethod

METHODS = get_args(RootMethod)
SQUARE_ROOT = Scalar("power", Fraction(1, 2))
INVERSE_SQUARE_ROOT = Scalar("power", Fraction(-1, 2))


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
    method : {"auto", "eigh", "minimax", "newton_schulz", "closed_form", "schur", "db", "pade", \
            "taylor"}
        See Notes; ``linalgk.explain(linalgk.sqrtm, a)`` tells what ``"auto"`` does.
    tol : float, optional
        Relative error in the spectral norm that an iteration may leave; default roundoff.
    steps : int, optional
        Exact number of steps of an iteration, of poles or of terms of the series instead.
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
    invsqrtm, inv_root : inverse roots.
    powm : any power.

    Notes
    -----
    ``eigh``: with ``A = V diag(w) V^H`` and ``B = V diag(w)^(1/4)`` the root is ``B B^H``, about
    ``9 n^3`` flops for the eigenvectors (half of them memory-bound) and ``n^3`` for the product.
    ``minimax``: ``T = a I + b M + c M^2, X <- X T, M <- M T^2`` from ``X = M = A/s`` with the
    coefficients of `minimax_schedule` for the member's own eigenvalue bound; products only, up to
    the condition that `linalgk.explain` names, and ``eigh`` beyond. ``newton_schulz``: the same
    with ``T = (3 I - M)/2``. ``pade``: ``sum_j w_j (u_j I + v_j A)^-1``, as few independent
    solves as the condition and ``tol`` need, with the poles of the Padé approximant or, for
    larger conditions, of Zolotarev's; ``taylor``: the binomial series at ``I - A/||A||_F``. With
    ``steps`` these two are the "fast differentiable square root" [3]_, of low accuracy; they take
    Hermitian matrices. ``closed_form``: diagonal matrices entry by entry, and general ones of
    n = 2. ``schur``: general matrices by SciPy. ``db``: general matrices by the scaled
    Denman-Beavers iteration in product form [1]_, 6 to 9 inverses and products; NaN where the
    residual shows a failure. ``auto`` takes ``minimax`` in one fused kernel for Hermitian
    n <= 32 and ``eigh`` for larger ones; for other matrices ``schur``, or from n = 96 on ``db``
    with ``schur`` for members that fail (in other libraries ``db`` alone).

    The relative forward error of a Hermitian root is about ``eps * kappa**0.5`` [1]_, whatever
    the method; a singular matrix has a root good to ``eps**0.5``. Scaling by ``4**k`` scales the
    result by ``2**k`` exactly.

    References
    ----------
    .. [1] N. J. Higham, *Functions of Matrices*, SIAM, 2008, chapter 6.
    .. [2] N. Amsel, D. Persson, C. Musco, R. M. Gower, "The Polar Express", arXiv:2505.16932.
    .. [3] Y. Song, N. Sebe, W. Wang, "Fast Differentiable Matrix Square Root", ICLR 2022.

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
        and (on_fail is None or on_fail in POLICIES)
    ):  # fmt: skip
        found = quick(a, SQUARE_ROOT)
        if found is not None:
            return found
    return apply(
        "sqrtm", SQUARE_ROOT, METHODS, a, assume_a=assume_a, method=method, tol=tol, steps=steps,
        compute_dtype=compute_dtype, check_finite=check_finite, on_fail=on_fail, out=out,
        return_info=return_info,
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
    inv_root : inverse p-th roots.

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
        and damp is rel_damp is ZERO and (on_fail is None or on_fail in POLICIES)
    ):  # fmt: skip
        found = quick(a, INVERSE_SQUARE_ROOT)
        if found is not None:
            return found
    return apply(
        "invsqrtm", INVERSE_SQUARE_ROOT, METHODS, a, assume_a=assume_a, method=method, tol=tol,
        steps=steps, compute_dtype=compute_dtype, check_finite=check_finite, on_fail=on_fail,
        out=out, return_info=return_info, damp=damp, rel_damp=rel_damp, rcond=rcond,
    )  # fmt: skip


@overload
def inv_root(
    a: ArrayT, p: Any, /, *, return_info: Literal[True], **options: Unpack[_InverseOptions]
) -> tuple[ArrayT, Info]: ...
@overload
def inv_root(
    a: ArrayT, p: Any, /, *, return_info: Literal[False] = ..., **options: Unpack[_InverseOptions]
) -> ArrayT: ...
def inv_root(
    a: ArrayT,
    p: Any,
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
    """Inverse principal p-th root of matrices, ``A^(-1/p)``.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `sqrtm`.
    p : int or Fraction
        Positive; ``Fraction(4, 3)`` asks for ``A^(-3/4)``.
    assume_a, method, tol, steps, compute_dtype, check_finite, on_fail, out, return_info
        As in `sqrtm`; ``db`` serves p = 1, 2, 4, 8, ...
    damp, rel_damp, rcond
        As in `invsqrtm`.

    Returns
    -------
    z : array, shape (..., n, n)
        Inverse root in the library, dtype and device of ``a``; exactly Hermitian for Hermitian
        ``a``.
    info : Info
        Only with ``return_info``. With p = d/q, ``residual`` is ``||Z^d A^q - I|| / sqrt(n)``
        (with ``rcond``: the projector onto its range for I) and ``error_estimate`` the first-order
        bound ``||Z^d A^q - I|| / d`` of the relative error, both Frobenius.

    Raises
    ------
    ValueError
        If p is not positive, and as in `sqrtm`.
    TypeError, SingularMatrixError, NotPositiveSemidefiniteError, NoRealRootError
        As in `invsqrtm`.
    NotConvergedError
        The residual of a general member shows that no root was found.

    See Also
    --------
    InverseRoot : warm-started, for a matrix that changes little by little.

    Notes
    -----
    Methods and costs as in `sqrtm`. The iterations keep M alone: ``T = a I + b M + c M^2,
    X <- X T^q, M <- M T^d``, with the best ``a, b, c`` in every step for the relative error of
    ``x^(-1/d)``, so that any p takes about as many steps as p = 2; ``newton_schulz`` is the
    coupled inverse Newton iteration [1]_ with ``T = ((d + 1) I - M)/d``. The relative forward
    error is about ``eps * kappa`` for p = 2 and no larger for others, whatever the method.
    Scaling by ``2^(d k)`` scales the result by ``2^(-q k)`` exactly.

    References
    ----------
    .. [1] C.-H. Guo, N. J. Higham, "A Schur-Newton method for the matrix pth root and its
       inverse", SIAM J. Matrix Anal. Appl. 28 (2006).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.inv_root(np.diag([16.0, 81.0]), 4).round(12)
    array([[0.5       , 0.        ],
           [0.        , 0.33333333]])
    """
    if _traced.is_compiled(a):
        options = {
            "assume_a": assume_a, "method": method, "tol": tol, "steps": steps, "out": out,
            "compute_dtype": compute_dtype, "return_info": return_info, "damp": damp,
            "rel_damp": rel_damp, "rcond": rcond,
        }  # fmt: skip
        return _traced.torch_face(a).inverse_root(a, p, options)
    function = inverse_root(p)
    if (
        type(a) is np.ndarray and method == "auto" and not return_info
        and assume_a is out is tol is steps is compute_dtype is rcond is None
        and damp is rel_damp is ZERO and (on_fail is None or on_fail in POLICIES)
    ):  # fmt: skip
        found = quick(a, function)
        if found is not None:
            return found
    return apply(
        "inv_root", function, METHODS, a, assume_a=assume_a, method=method, tol=tol, steps=steps,
        compute_dtype=compute_dtype, check_finite=check_finite, on_fail=on_fail, out=out,
        return_info=return_info, damp=damp, rel_damp=rel_damp, rcond=rcond,
    )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _inverse_root(p: Fraction) -> Scalar:
    return Scalar("power", -1 / p)


def inverse_root(p: Any) -> Scalar:
    """The function for a positive p, the same object each time."""
    if not isinstance(p, numbers.Rational) or isinstance(p, bool):
        msg = f"p: must be a positive int or Fraction, got {p!r}"
        raise TypeError(msg)
    if p <= 0:
        msg = f"p: must be positive, got {p}; powm takes any power"
        raise ValueError(msg)
    return _inverse_root(Fraction(p))
