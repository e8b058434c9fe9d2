"""Roots by partial fractions and by power series: independent solves, and products only.

Poles are chosen by evaluating the error on the spectrum, so that the number of solves follows from
the tolerance and the condition. The series and the poles for ``steps`` reproduce the "fast
differentiable matrix square root" [1]_, which scales by the Frobenius norm.

References
----------
.. [1] Y. Song, N. Sebe, W. Wang, "Fast Differentiable Matrix Square Root", ICLR 2022.
.. [2] N. Hale, N. J. Higham, L. N. Trefethen, "Computing A^alpha, log(A), and related matrix
   functions by contour integrals", SIAM J. Numer. Anal. 46 (2008), method 3.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linalgk import _xp
from linalgk.matfun import _ops
from linalgk.matfun._spectral import (
    FAILED,
    HARD,
    INDEFINITE,
    OK,
    SINGULAR,
    Call,
    Result,
    blank,
    blas_for,
    by_eigenvectors,
    frobenius,
    merge,
    take,
    usable,
    workers,
)

Poles = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
# More poles than this cost more than eigenvectors.
_MOST = 60


def pade_poles(alpha: float, m: int) -> Poles:
    """``u, v, w`` with ``x^-alpha ~ sum_j w_j / (u_j + v_j x)``, 0 < alpha < 1: Padé [m-1/m] at 1.

    Gauss-Jacobi quadrature of ``sin(pi alpha)/pi int u^-alpha (1-u)^(alpha-1) / (u + (1-u) x) du``
    over [0, 1].
    """
    if alpha == 1.0:
        return np.zeros(1), np.ones(1), np.ones(1)
    u, weight = _ops.jacobi_nodes(alpha, m)
    return u, 1 - u, weight


def zolotarev_poles(kappa: float, m: int, alpha: float = 0.5) -> Poles:
    """The same on [1, kappa], for alpha = 1/2 by conformal map (method 3 of [2]_).

    Other powers keep the poles, which asymptotically are the best for all of them, and fit their
    weights. The poles are ``sc(t_j | 1 - 1/kappa)^2`` at the midpoints of m equal parts of the
    quarter period; a library that takes ``1 - 1/kappa`` would have lost the digits of 1/kappa.
    """
    # quarter period and amplitude by the arithmetic-geometric mean (DLMF 22.20)
    a, b, ratios = [1.0], [kappa**-0.5], [0.0]
    while abs(a[-1] - b[-1]) > 1e-17 * a[-1] and len(a) < 40:
        ratios.append((a[-1] - b[-1]) / (a[-1] + b[-1]))
        a, b = [*a, 0.5 * (a[-1] + b[-1])], [*b, (a[-1] * b[-1]) ** 0.5]
    period = 0.5 * np.pi / a[-1]
    t = (np.arange(m) + 0.5) * period / m
    phi = 2.0 ** (len(a) - 1) * a[-1] * t
    for ratio in reversed(ratios[1:]):
        phi = 0.5 * (phi + np.arcsin(ratio * np.sin(phi)))
    pole = np.tan(phi) ** 2
    # near the pole of the tangent by symmetry: sc(K - t) = kappa^(1/2) / sc(t)
    pole[(m + 1) // 2 :] = kappa / pole[: m // 2][::-1]
    weight = 2 * period / (np.pi * m) * np.sqrt((1 + pole) * (1 + pole / kappa))
    if alpha != 0.5:
        x = kappa ** (0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, 8 * m + 50)))[:, None]
        terms = weight * pole ** (0.5 - alpha) * x**alpha / (pole + x)
        weight = weight * pole ** (0.5 - alpha) * np.linalg.lstsq(terms, np.ones(len(x)))[0]
    return pole, np.ones(m), weight


@functools.lru_cache(maxsize=256)
def poles_for(alpha: float, kappa: float, tol: float) -> tuple[Poles, str]:
    """The fewest poles for relative error ``tol`` on [1, kappa]; where they come from."""
    # denser at the ends, where the best approximations have their extrema
    x = kappa ** (0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, 600)))
    center = kappa**0.5
    # no rational function of fewer poles is good enough (Zolotarev's bound, with some slack)
    least = int(0.7 * np.log(4 / tol) * np.log(4 * kappa) / (2 * np.pi**2))
    for m in range(max(1, least), _MOST + 1):
        u, v, w = pade_poles(alpha, m)
        candidates = [((u, v / center, w * center**-alpha), "Padé")]
        if alpha < 1.0 and kappa > 1.01:
            candidates.append((zolotarev_poles(kappa, m, alpha), "Zolotarev"))
        for poles, name in candidates:
            u, v, w = poles
            value = (w / (u + v * x[:, None])).sum(axis=1)
            if np.abs(value * x**alpha - 1).max() <= tol:
                return poles, name
    msg = f"more than {_MOST} poles"
    raise ValueError(msg)


def by_poles(flat: Any, largest: Any, call: Call) -> Result:
    """``A^(whole - num/den)`` as ``A^whole (sum_j w_j (u_j I + v_j A)^-1)^..``: solves by LU."""
    xp, n = _xp.namespace(flat), flat.shape[-1]
    alpha, whole = _alpha(call)
    real = np.dtype(_xp.REAL[_xp.dtype_name(flat)])
    eps = float(np.finfo(real).eps)
    status = np.full(len(largest), OK)
    h = 0.5 * (flat + _ops.adjoint(flat))
    threads = workers(flat, call)
    with blas_for(flat), np.errstate(all="ignore"):
        x, exponent = _scaled(h, call)
        lower, count = np.full(len(largest), np.nan), np.full(len(largest), call.steps or 0)
        if call.steps is not None and whole and alpha == 0.5:
            # the [m/m] approximant of the paper: (2m+1) - 2/(2m+1) sum tan^2 / (sin^2 + cos^2 x)
            m = call.steps
            angle = np.arange(1, m + 1) * np.pi / (2 * m + 1)
            own = np.sin(angle) ** 2, np.cos(angle) ** 2, 2 / (2 * m + 1) * np.tan(angle) ** 2
            y = (2 * m + 1) * _ops.eye_like(x) - _sum(x, [own] * len(largest), threads)
            whole = 0
        elif call.steps is not None:
            y = _sum(x, [pade_poles(alpha, call.steps)] * len(largest), threads)
        else:
            w = np.asarray(_xp.to_numpy(xp.linalg.eigvalsh(usable(x, status))), dtype=np.float64)
            status, lower = _definite(w, status, n, eps), w[:, 0]
            poles, kappas = [], np.where(status == OK, w[:, -1] / w[:, 0], 1.0)
            for item, kappa in enumerate(kappas):
                # a little wider than computed, in steps that share their poles
                wide = float(2.0 ** (np.ceil(np.log2(max(kappa, 1.0)) + 0.05)))
                try:
                    (u, v, weight), _ = poles_for(alpha, wide, call.tol or 32 * eps)
                except ValueError:
                    status[item], (u, v, weight) = HARD, pade_poles(alpha, 1)
                low = w[item, 0] * 0.98 if status[item] == OK else 1.0
                poles.append((u, v / low, weight * low**-alpha))
                count[item] = len(u)
            y = _sum(usable(x, status), poles, threads)
        y = x @ y if whole else y
        y = 0.5 * (y + _ops.adjoint(y))
        y = y * _power(exponent, float(call.function.power), y)
    lower = lower * np.exp2(exponent)
    found = Result(blank(y, status != OK), status, count, lower, "pade")
    hard = np.flatnonzero(status == HARD)
    if not len(hard):
        return found
    part = by_eigenvectors(take(flat, hard), largest[hard], False, call)
    return merge(found, hard, part)


def by_series(flat: Any, call: Call) -> Result:
    """``A^(whole - num/den)`` by the binomial series at ``I - A/||A||_F``, ``steps`` terms."""
    alpha, whole = _alpha(call)
    terms = 10 if call.steps is None else call.steps
    h = 0.5 * (flat + _ops.adjoint(flat))
    x, exponent = _scaled(h, call._replace(steps=terms))
    total = series(x, 1 - alpha if whole else -alpha, terms)
    y = 0.5 * (total + _ops.adjoint(total))
    y = y * _power(exponent, float(call.function.power), y)
    status = np.where(np.isfinite(frobenius(y)), OK, FAILED)
    unknown = np.full(len(status), np.nan)
    return Result(blank(y, status != OK), status, np.full(len(status), terms), unknown, "taylor")


def series(x: Any, power: float, terms: int) -> Any:
    """``X^power`` by so many terms of the binomial series at ``I - X``."""
    identity = _ops.eye_like(x)
    e, coeff, total, term = identity - x, 1.0, identity + 0 * x, identity
    for k in range(1, terms + 1):
        coeff *= -(power - k + 1) / k
        term = term @ e
        total = total + coeff * term
    return total


def _alpha(call: Call) -> tuple[float, int]:
    factors = call.function.factors
    assert factors is not None
    whole, num, den = factors
    return num / den, whole


def _scaled(h: Any, call: Call) -> tuple[Any, Any]:
    """The matrix near norm one and the exponents of two; by the Frobenius norm for ``steps``."""
    norm = frobenius(h)
    norm = np.where(norm > 0, norm, 1.0)
    exponent = np.log2(norm) if call.steps is not None else np.ceil(np.log2(norm))
    return h * _power(-exponent, 1.0, h), exponent


def _power(exponent: Any, r: float, like: Any) -> Any:
    xp = _xp.namespace(like)
    values = _xp.from_numpy(np.exp2(r * exponent), xp, like=like, dtype=like.dtype)
    return values[:, None, None]


def _definite(w: Any, status: Any, n: int, eps: float) -> Any:
    top = np.abs(w).max(axis=1)
    status = np.where(w[:, 0] <= eps * top, SINGULAR, status)
    return np.where(w[:, 0] < -n * eps * top, INDEFINITE, status)


def _sum(x: Any, poles: list[Poles], threads: int) -> Any:
    """``sum_j w_j (u_j I + v_j X)^-1`` with each member's own poles."""
    xp = _xp.namespace(x)
    identity, total = _ops.eye_like(x), xp.zeros_like(x)
    most = max(len(p[0]) for p in poles)
    # members with fewer poles add (I)^-1 times zero
    table = np.zeros((3, len(poles), most))
    table[0] = 1.0
    for item, own in enumerate(poles):
        table[:, item, : len(own[0])] = own
    for j in range(most):
        u, v, w = (
            _xp.from_numpy(table[k, :, j], xp, like=x, dtype=x.dtype)[:, None, None]
            for k in range(3)
        )
        total = total + w * _ops.INVERSE(u * identity + v * x, threads)[0]
    return total
