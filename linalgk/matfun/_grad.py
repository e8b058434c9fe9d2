"""Derivatives of matrix functions in both directions: ``jvp`` forward, ``vjp`` backward."""

import functools
from typing import Any, Literal

from linalgk import _xp
from linalgk.matfun import _ops
from linalgk.matfun._derive import (
    by_jax,
    derive,
    derive_polar,
    half,
    is_traced,
    polar_by_jax,
    summed,
)
from linalgk.matfun._lyapunov import solve_lyapunov
from linalgk.matfun._pairs import Derivative
from linalgk.matfun._polar import polar
from linalgk.matfun._powers import LOG, LOG_METHODS
from linalgk.matfun._roots import INVERSE_SQUARE_ROOT, METHODS, SQUARE_ROOT, inverse_root
from linalgk.typing import AssumeA, OnFail


def sqrtm_jvp(
    a: Any, da: Any, /, *, assume_a: AssumeA | None = None, check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Derivative of the square root in a direction.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `sqrtm`.
    da : array, shape (..., n, n)
        Direction; any matrix. Under ``assume_a="her"`` or "pos" its Hermitian part counts.
    assume_a : {"gen", "her", "pos"}, optional
        As in `sqrtm`; by default "gen" for all if one member is not Hermitian.
    check_finite, on_fail
        As in `sqrtm`.

    Returns
    -------
    value : array, shape (..., n, n)
        ``sqrtm(a)``.
    derivative : array, shape (..., n, n)
        ``L(A, dA) = d/dt sqrtm(A + t dA)`` at t = 0.
    info : Info
        An attribute of the pair. ``method`` is "eigh", "sylvester" or "block"; ``converged`` is
        False in members that failed, where both arrays hold NaN (the derivative zero where the
        direction is). ``residual`` and ``error_estimate`` are NaN.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `sqrtm` does.

    See Also
    --------
    sqrtm_vjp : backward.

    Notes
    -----
    Hermitian matrices: ``L(A, E) = V (f[w_i, w_j] * V^H E V) V^H`` with divided differences of the
    scalar function that are free of cancellation and finite at repeated eigenvalues [1]_, about
    ``17 n^3`` flops. Pairs of eigenvalues that are both at most ``eps`` times the largest, where
    the derivative of a root is infinite, count as zero: the derivative along matrices of the same
    rank. Other matrices: ``X L + L X = E`` for roots, and for other functions the upper right block
    of ``f([[A, E], [0, A]])`` [1]_. The relative error is about ``eps kappa`` or less.

    References
    ----------
    .. [1] N. J. Higham, *Functions of Matrices*, SIAM, 2008, chapter 3.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x, dx = lk.grad.sqrtm_jvp(np.diag([4.0, 4.0]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> dx
    array([[0.  , 0.25],
           [0.25, 0.  ]])
    """
    options: Any = {"assume_a": assume_a, "check_finite": check_finite, "on_fail": on_fail}
    return derive("sqrtm", SQUARE_ROOT, METHODS, a, da, forward=True, **options)


def sqrtm_vjp(
    a: Any, g: Any, /, *, assume_a: AssumeA | None = None, check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Gradient of a loss by ``a`` from its gradient by ``sqrtm(a)``.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `sqrtm`.
    g : array, shape (..., n, n)
        Gradient by the value; it need not be Hermitian.
    assume_a, check_finite, on_fail
        As in `sqrtm_jvp`; under "her" and "pos" the gradient is Hermitian.

    Returns
    -------
    value : array, shape (..., n, n)
        ``sqrtm(a)``.
    derivative : array, shape (..., n, n)
        D with ``Re tr(G^H L(A, E)) = Re tr(D^H E)`` for every direction E.
    info : Info
        As in `sqrtm_jvp`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `sqrtm` does.

    See Also
    --------
    sqrtm_jvp : forward, with the method.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.array([[5.0, 4.0], [4.0, 5.0]])
    >>> lk.grad.sqrtm_vjp(a, np.eye(2)).derivative.round(12)  # of the trace: A^(-1/2)/2
    array([[ 0.33333333, -0.16666667],
           [-0.16666667,  0.33333333]])
    """
    options: Any = {"assume_a": assume_a, "check_finite": check_finite, "on_fail": on_fail}
    return derive("sqrtm", SQUARE_ROOT, METHODS, a, g, forward=False, **options)


def invsqrtm_jvp(
    a: Any, da: Any, /, *, assume_a: AssumeA | None = None, damp: Any = 0, rel_damp: Any = 0,
    rcond: float | None = None, check_finite: bool | None = None, on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Derivative of the inverse square root in a direction.

    Parameters
    ----------
    a, da, assume_a
        As in `sqrtm_jvp`.
    damp, rel_damp, rcond
        As in `invsqrtm`. The derivative of ``rel_damp`` follows the largest eigenvalue; that of
        ``rcond`` leaves the eigenvalues zero that are cut off.
    check_finite, on_fail
        As in `sqrtm_jvp`.

    Returns
    -------
    value, derivative : array, shape (..., n, n)
        ``invsqrtm(a)`` and its derivative, with `info` as in `sqrtm_jvp`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `invsqrtm` does.

    See Also
    --------
    sqrtm_jvp : the method.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.grad.invsqrtm_jvp(np.diag([1.0, 4.0]), np.eye(2)).derivative
    array([[-0.5   ,  0.    ],
           [ 0.    , -0.0625]])
    """
    options: Any = {"assume_a": assume_a, "damp": damp, "rel_damp": rel_damp, "rcond": rcond}
    options |= {"check_finite": check_finite, "on_fail": on_fail}
    return derive("invsqrtm", INVERSE_SQUARE_ROOT, METHODS, a, da, forward=True, **options)


def invsqrtm_vjp(
    a: Any, g: Any, /, *, assume_a: AssumeA | None = None, damp: Any = 0, rel_damp: Any = 0,
    rcond: float | None = None, check_finite: bool | None = None, on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Gradient of a loss by ``a`` from its gradient by ``invsqrtm(a)``.

    Parameters
    ----------
    a, g, assume_a
        As in `sqrtm_vjp`.
    damp, rel_damp, rcond, check_finite, on_fail
        As in `invsqrtm_jvp`.

    Returns
    -------
    value, derivative : array, shape (..., n, n)
        ``invsqrtm(a)`` and the gradient, with `info` as in `sqrtm_jvp`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `invsqrtm` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.grad.invsqrtm_vjp(np.diag([1.0, 4.0]), np.eye(2)).derivative
    array([[-0.5   ,  0.    ],
           [ 0.    , -0.0625]])
    """
    options: Any = {"assume_a": assume_a, "damp": damp, "rel_damp": rel_damp, "rcond": rcond}
    options |= {"check_finite": check_finite, "on_fail": on_fail}
    return derive("invsqrtm", INVERSE_SQUARE_ROOT, METHODS, a, g, forward=False, **options)


def inv_root_jvp(
    a: Any, p: Any, da: Any, /, *, assume_a: AssumeA | None = None, damp: Any = 0,
    rel_damp: Any = 0, rcond: float | None = None, check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Derivative of the inverse p-th root in a direction.

    Parameters
    ----------
    a : array, shape (..., n, n)
        As in `inv_root`.
    p : int or Fraction
        As in `inv_root`.
    da, assume_a, damp, rel_damp, rcond, check_finite, on_fail
        As in `invsqrtm_jvp`.

    Returns
    -------
    value, derivative : array, shape (..., n, n)
        ``inv_root(a, p)`` and its derivative, with `info` as in `sqrtm_jvp`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `inv_root` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.grad.inv_root_jvp(np.diag([1.0, 16.0]), 4, np.eye(2)).derivative
    array([[-0.25     ,  0.       ],
           [ 0.       , -0.0078125]])
    """
    options: Any = {"assume_a": assume_a, "damp": damp, "rel_damp": rel_damp, "rcond": rcond}
    options |= {"check_finite": check_finite, "on_fail": on_fail}
    return derive("inv_root", inverse_root(p), METHODS, a, da, forward=True, **options)


def inv_root_vjp(
    a: Any, p: Any, g: Any, /, *, assume_a: AssumeA | None = None, damp: Any = 0,
    rel_damp: Any = 0, rcond: float | None = None, check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Gradient of a loss by ``a`` from its gradient by ``inv_root(a, p)``.

    Parameters
    ----------
    a, p, g, assume_a, damp, rel_damp, rcond, check_finite, on_fail
        As in `inv_root_jvp` and `sqrtm_vjp`.

    Returns
    -------
    value, derivative : array, shape (..., n, n)
        ``inv_root(a, p)`` and the gradient, with `info` as in `sqrtm_jvp`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `inv_root` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.grad.inv_root_vjp(np.diag([1.0, 16.0]), 4, np.eye(2)).derivative
    array([[-0.25     ,  0.       ],
           [ 0.       , -0.0078125]])
    """
    options: Any = {"assume_a": assume_a, "damp": damp, "rel_damp": rel_damp, "rcond": rcond}
    options |= {"check_finite": check_finite, "on_fail": on_fail}
    return derive("inv_root", inverse_root(p), METHODS, a, g, forward=False, **options)


def logm_jvp(
    a: Any, da: Any, /, *, assume_a: AssumeA | None = None, check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Derivative of the logarithm in a direction.

    Parameters
    ----------
    a, da, assume_a, check_finite, on_fail
        As in `sqrtm_jvp`.

    Returns
    -------
    value, derivative : array, shape (..., n, n)
        ``logm(a)`` and its derivative, with `info` as in `sqrtm_jvp`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `logm` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.grad.logm_jvp(np.diag([1.0, 4.0]), np.eye(2)).derivative
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    """
    options: Any = {"assume_a": assume_a, "check_finite": check_finite, "on_fail": on_fail}
    return derive("logm", LOG, LOG_METHODS, a, da, forward=True, **options)


def logm_vjp(
    a: Any, g: Any, /, *, assume_a: AssumeA | None = None, check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Gradient of a loss by ``a`` from its gradient by ``logm(a)``.

    Parameters
    ----------
    a, g, assume_a, check_finite, on_fail
        As in `sqrtm_vjp`.

    Returns
    -------
    value, derivative : array, shape (..., n, n)
        ``logm(a)`` and the gradient, with `info` as in `sqrtm_jvp`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `logm` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.grad.logm_vjp(np.diag([1.0, 4.0]), np.eye(2)).derivative  # of log det A
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    """
    options: Any = {"assume_a": assume_a, "check_finite": check_finite, "on_fail": on_fail}
    return derive("logm", LOG, LOG_METHODS, a, g, forward=False, **options)


def solve_lyapunov_jvp(
    a: Any, q: Any, da: Any, dq: Any, /, *, assume_a: AssumeA | None = None,
    check_finite: bool | None = None, on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Derivative of the solution X of ``A X + X A^H = Q`` in a direction.

    Parameters
    ----------
    a, q : array, shape (..., n, n)
        As in `solve_lyapunov`.
    da, dq : array, shape (..., n, n)
        Direction. Under ``assume_a="her"`` or "pos" the Hermitian part of ``da`` counts.
    assume_a, check_finite, on_fail
        As in `solve_lyapunov`.

    Returns
    -------
    value, derivative : array, shape (..., n, n)
        X and dX with ``A dX + dX A^H = dQ - dA X - X dA^H``; `info` of the first solution.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `solve_lyapunov` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, zero = np.diag([1.0, 2.0]), np.zeros((2, 2))
    >>> lk.grad.solve_lyapunov_jvp(a, np.eye(2), np.eye(2), zero).derivative
    array([[-0.5  ,  0.   ],
           [ 0.   , -0.125]])
    """
    options: Any = {"assume_a": assume_a, "check_finite": check_finite, "on_fail": on_fail}
    if is_traced(a, q, da, dq):
        solve = functools.partial(solve_lyapunov, **options, return_info=True)
        return by_jax(solve, (a, q), (da, dq), True)
    x, info = solve_lyapunov(a, q, **options, return_info=True)
    da, dq = (_xp.as_array(word, y) for word, y in (("da", da), ("dq", dq)))
    da = half(da) if assume_a in ("her", "pos") else da
    dx = solve_lyapunov(a, dq - da @ x - x @ _ops.adjoint(da), **options)
    return Derivative((x, dx), info)


def solve_lyapunov_vjp(
    a: Any, q: Any, g: Any, /, *, assume_a: AssumeA | None = None,
    check_finite: bool | None = None, on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Gradients of a loss by ``a`` and ``q`` from its gradient by the solution.

    Parameters
    ----------
    a, q : array, shape (..., n, n)
        As in `solve_lyapunov`.
    g : array, shape (..., n, n)
        Gradient by the solution X.
    assume_a, check_finite, on_fail
        As in `solve_lyapunov`; under "her" and "pos" the gradient by ``a`` is Hermitian.

    Returns
    -------
    value, by_a, by_q : array, shape (..., n, n)
        X; ``-(Y X^H + Y^H X)`` and Y with ``A^H Y + Y A = G``; `info` of the first solution.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `solve_lyapunov` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x, by_a, by_q = lk.grad.solve_lyapunov_vjp(np.diag([1.0, 2.0]), np.eye(2), np.eye(2))
    >>> by_q
    array([[0.5 , 0.  ],
           [0.  , 0.25]])
    """
    options: Any = {"assume_a": assume_a, "check_finite": check_finite, "on_fail": on_fail}
    if is_traced(a, q, g):
        solve = functools.partial(solve_lyapunov, **options, return_info=True)
        return by_jax(solve, (a, q), (g,), False)
    x, info = solve_lyapunov(a, q, **options, return_info=True)
    a = _xp.as_array("a", a)
    y = solve_lyapunov(_ops.adjoint(a), g, **options)
    by_a = -(y @ _ops.adjoint(x) + _ops.adjoint(y) @ x)
    by_a = half(by_a) if assume_a in ("her", "pos") else by_a
    return Derivative((x, summed(by_a, a), summed(y, _xp.as_array("q", q))), info)


def polar_jvp(
    a: Any, da: Any, /, *, side: Literal["right", "left"] = "right",
    check_finite: bool | None = None, on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Derivative of both polar factors in a direction.

    Parameters
    ----------
    a : array, shape (..., m, n)
        As in `polar`.
    da : array, shape (..., m, n)
        Direction.
    side, check_finite, on_fail
        As in `polar`.

    Returns
    -------
    value : Polar
        U and H.
    derivative : tuple of array
        dU and dH.
    info : Info
        That of `polar`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `polar` does.

    Notes
    -----
    ``A = U H``, m >= n: ``dU = U T + (I - U U^H) dA H^-1`` with the skew solution T of
    ``H T + T H = U^H dA - dA^H U``, and ``dH = U^H dA - T H``; other shapes by transposition. The
    relative error is about ``eps ||A||/s_n``. What H has of a kernel counts as not moving.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, da = np.diag([1.0, 3.0]), np.array([[0.0, 1.0], [0.0, 0.0]])
    >>> du, dh = lk.grad.polar_jvp(a, da).derivative
    >>> du
    array([[ 0.  ,  0.25],
           [-0.25,  0.  ]])
    """
    options: Any = {"check_finite": check_finite, "on_fail": on_fail}
    if is_traced(a, da):
        return polar_by_jax(functools.partial(polar, side=side, **options), a, (da,), True)
    return derive_polar(a, (da,), side, options)


def polar_vjp(
    a: Any, gu: Any, gh: Any, /, *, side: Literal["right", "left"] = "right",
    check_finite: bool | None = None, on_fail: OnFail | None = None,
) -> Derivative:  # fmt: skip
    """Gradient of a loss by ``a`` from its gradients by both polar factors.

    Parameters
    ----------
    a : array, shape (..., m, n)
        As in `polar`.
    gu, gh : array, shapes of U and H
        Gradients by the factors; of ``gh`` the Hermitian part counts.
    side, check_finite, on_fail
        As in `polar`.

    Returns
    -------
    value : Polar
        U and H.
    derivative : array, shape (..., m, n)
        Gradient by ``a``.
    info : Info
        That of `polar`.

    Raises
    ------
    ValueError, TypeError, LinAlgError
        As `polar` does.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.diag([1.0, 3.0])
    >>> lk.grad.polar_vjp(a, np.zeros((2, 2)), np.eye(2)).derivative  # of the nuclear norm: U
    array([[1., 0.],
           [0., 1.]])
    """
    options: Any = {"check_finite": check_finite, "on_fail": on_fail}
    if is_traced(a, gu, gh):
        return polar_by_jax(functools.partial(polar, side=side, **options), a, (gu, gh), False)
    return derive_polar(a, (gu, gh), side, options)
