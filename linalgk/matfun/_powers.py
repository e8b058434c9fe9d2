"""Powers, signs and logarithms of matrices."""

import numbers
from fractions import Fraction
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

from linalgk import _validate
from linalgk._results import Info
from linalgk.matfun import _traced
from linalgk.matfun._apply import apply
from linalgk.matfun._spectral import Scalar
from linalgk.typing import ArrayT, AssumeA, LogMethod, OnFail, PowerMethod, SignMethod

SIGN, LOG = Scalar("sign"), Scalar("log")
POWER_METHODS, SIGN_METHODS = get_args(PowerMethod), get_args(SignMethod)
LOG_METHODS = get_args(LogMethod)


class _Options(TypedDict, total=False):
    assume_a: AssumeA | None
    method: Any
    compute_dtype: Any
    check_finite: bool | None
    on_fail: OnFail | None
    out: Any


class _SignOptions(_Options, total=False):
    tol: float | None
    steps: int | None


@overload
def powm(
    a: ArrayT, t: Any, /, *, return_info: Literal[True], **options: Unpack[_Options]
) -> tuple[ArrayT, Info]: ...
@overload
def powm(
    a: ArrayT, t: Any, /, *, return_info: Literal[False] = ..., **options: Unpack[_Options]
) -> ArrayT: ...
def powm(
    a: ArrayT,
    t: Any,
    /,
    *,
    assume_a: AssumeA | None = None,
    method: PowerMethod = "auto",
    compute_dtype: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
) -> Any:
    """Principal power of matrices, ``A^t`` for real t.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `sqrtm`.
    t : int, float or Fraction
        An integer power needs no eigenvalues; ``A^0`` is I.
    assume_a
        As in `sqrtm`.
    method : {"auto", "eigh", "minimax", "schur", "products"}
        See Notes.
    compute_dtype, check_finite, on_fail, out, return_info
        As in `sqrtm`.

    Returns
    -------
    x : array, shape (..., n, n)
        Power in the library, dtype and device of ``a``; exactly Hermitian for Hermitian ``a``.
    info : Info
        Only with ``return_info``. For t = q/d with a small d, ``residual`` is
        ``||X^d - A^q|| / ||A^q||`` (``||X^d A^|q| - I|| / sqrt(n)`` for negative t) and
        ``error_estimate`` its first-order bound for Hermitian members; NaN for other t.

    Raises
    ------
    ValueError, TypeError, NotPositiveSemidefiniteError, NoRealRootError
        As in `sqrtm`; the last two for fractional t only.
    SingularMatrixError
        Negative t and an eigenvalue ``<= eps`` times the largest.
    NotConvergedError
        A general member has no power of this kind.

    See Also
    --------
    sqrtm, inv_root : roots, with more methods and damping.

    Notes
    -----
    Hermitian matrices: ``V diag(w^t) V^H`` (``eigh``), or for n <= 32 and a power that is a root
    the fused kernel (``minimax``). Others: repeated squaring for integer t (``products``), the
    Schur-Padé algorithm [1]_ otherwise (``schur``; in other libraries square roots by
    Denman-Beavers, partial fractions and squarings). The relative forward error is about
    ``eps |t| kappa`` for negative t and less for others.

    References
    ----------
    .. [1] N. J. Higham, L. Lin, "An improved Schur-Padé algorithm for fractional powers of a
       matrix", SIAM J. Matrix Anal. Appl. 34 (2013).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.powm(np.array([[5.0, 4.0], [4.0, 5.0]]), 1.5).round(12)
    array([[14., 13.],
           [13., 14.]])
    """
    if _traced.is_compiled(a):
        options = {
            "assume_a": assume_a, "method": method, "out": out, "compute_dtype": compute_dtype,
            "return_info": return_info,
        }  # fmt: skip
        return _traced.torch_face(a).power(a, t, options)
    return apply(
        "powm", power(t), POWER_METHODS, a, assume_a=assume_a, method=method,
        compute_dtype=compute_dtype, check_finite=check_finite, on_fail=on_fail, out=out,
        return_info=return_info,
    )  # fmt: skip


def power(t: Any) -> Scalar:
    """The function for a real t."""
    value = _validate.real_between("t", t, -1e3, 1e3)
    return Scalar("power", Fraction(t if isinstance(t, numbers.Rational) else value))


@overload
def signm(
    a: ArrayT, /, *, return_info: Literal[True], **options: Unpack[_SignOptions]
) -> tuple[ArrayT, Info]: ...
@overload
def signm(
    a: ArrayT, /, *, return_info: Literal[False] = ..., **options: Unpack[_SignOptions]
) -> ArrayT: ...
def signm(
    a: ArrayT,
    /,
    *,
    assume_a: AssumeA | None = None,
    method: SignMethod = "auto",
    tol: float | None = None,
    steps: int | None = None,
    compute_dtype: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
) -> Any:
    """Sign of matrices: the function that is 1 right and -1 left of the imaginary axis.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `sqrtm`.
    assume_a
        As in `sqrtm`.
    method : {"auto", "eigh", "minimax", "newton_schulz", "newton", "pade"}
        See Notes.
    tol : float, optional
        ``||X^2 - I||`` that a method of products may leave; default roundoff.
    steps : int, optional
        Exact number of its steps instead.
    compute_dtype, check_finite, on_fail, out, return_info
        As in `sqrtm`.

    Returns
    -------
    s : array, shape (..., n, n)
        Sign in the library, dtype and device of ``a``; exactly Hermitian for Hermitian ``a``.
    info : Info
        Only with ``return_info``. ``residual`` is ``||S^2 - I|| / sqrt(n)``; ``error_estimate``
        is NaN.

    Raises
    ------
    ValueError, TypeError
        As in `sqrtm`.
    SingularMatrixError
        An eigenvalue is zero to working precision.
    NotConvergedError
        An eigenvalue lies on, or too near, the imaginary axis.

    Notes
    -----
    ``eigh``: Hermitian matrices, ``2 V_+ V_+^H - I``. ``newton``: ``X <- (mu X + (mu X)^-1)/2``
    with ``mu = |det X|^(-1/n)`` [1]_ until the steps are small, then products only; 6 to 9
    inverses. ``pade``: ``X <- X/m sum_j (X^2 + a_j I)^-1 / x_j`` [2]_, m = 4 independent solves a
    step and order 8 of convergence. ``minimax`` and ``newton_schulz``: Hermitian matrices by
    products only. The conditioning is that of the eigenvalues' distance from the axis.

    References
    ----------
    .. [1] N. J. Higham, *Functions of Matrices*, SIAM, 2008, sections 5.5 and 5.8.
    .. [2] C. Kenney, A. J. Laub, "Rational iterative methods for the matrix sign function",
       SIAM J. Matrix Anal. Appl. 12 (1991).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.signm(np.array([[1.0, 4.0], [1.0, 1.0]])).round(12)
    array([[0. , 2. ],
           [0.5, 0. ]])
    """
    return apply(
        "signm", SIGN, SIGN_METHODS, a, assume_a=assume_a, method=method, tol=tol, steps=steps,
        compute_dtype=compute_dtype, check_finite=check_finite, on_fail=on_fail, out=out,
        return_info=return_info,
    )  # fmt: skip


@overload
def logm(
    a: ArrayT, /, *, return_info: Literal[True], **options: Unpack[_Options]
) -> tuple[ArrayT, Info]: ...
@overload
def logm(
    a: ArrayT, /, *, return_info: Literal[False] = ..., **options: Unpack[_Options]
) -> ArrayT: ...
def logm(
    a: ArrayT,
    /,
    *,
    assume_a: AssumeA | None = None,
    method: LogMethod = "auto",
    compute_dtype: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
) -> Any:
    """Principal logarithm of matrices: ``expm(X) == A``.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `sqrtm`.
    assume_a
        As in `sqrtm`.
    method : {"auto", "eigh", "schur"}
        See Notes.
    compute_dtype, check_finite, on_fail, out, return_info
        As in `sqrtm`.

    Returns
    -------
    x : array, shape (..., n, n)
        Logarithm in the library, dtype and device of ``a``; real for real ``a``, exactly
        Hermitian for positive definite ``a``.
    info : Info
        Only with ``return_info``. ``residual`` is ``||exp(X) - A|| / ||A||`` and
        ``error_estimate`` a first-order bound of the relative error for Hermitian members (NaN for
        others), both in the Frobenius norm.

    Raises
    ------
    ValueError, TypeError, NotPositiveSemidefiniteError, NoRealRootError
        As in `sqrtm`.
    SingularMatrixError
        An eigenvalue is ``<= eps`` times the largest.
    NotConvergedError
        A general member has no logarithm.

    Notes
    -----
    ``eigh``: Hermitian matrices, ``V diag(log w) V^H``. ``schur``: inverse scaling and squaring
    [1]_ of the Schur factor, square roots until it is near I and then partial fractions with
    Gauss-Legendre nodes (in other libraries on the matrix itself, with Denman-Beavers roots). The
    absolute forward error is about ``eps * kappa``.

    References
    ----------
    .. [1] N. J. Higham, *Functions of Matrices*, SIAM, 2008, section 11.5.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.logm(np.array([[5.0, 4.0], [4.0, 5.0]])).round(6)
    array([[1.098612, 1.098612],
           [1.098612, 1.098612]])
    """
    return apply(
        "logm", LOG, LOG_METHODS, a, assume_a=assume_a, method=method,
        compute_dtype=compute_dtype, check_finite=check_finite, on_fail=on_fail, out=out,
        return_info=return_info,
    )  # fmt: skip
