"""Composite minimax polynomials for inverse roots: the schedules of every matmul-only root."""

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linalgk import _validate, _xp

# Closer than this to sigma = 1 the best quintic is the Padé polynomial up to rounding.
_PADE_WIDTH = 5e-6


def minimax_schedule(
    lower: float,
    *,
    tol: float | None = None,
    steps: int | None = None,
    degree: int = 5,
    safety: float = 1.0,
    root: int = 2,
    xp: Any = None,
    device: Any = None,
    dtype: Any = None,
) -> Any:
    """Odd polynomials whose composition maps [lower, 1] to 1 as fast as possible.

    Step k applies ``p_k(x) = a_k x + b_k x^3 + c_k x^5``, the best uniform approximation of 1
    on the interval that the steps before it have reached (its own Remez exchange). Composing
    greedily is optimal among all compositions of polynomials of this degree [1]_. With another
    ``root`` p the powers are 1, p + 1 and 2 p + 1, which serves p-th roots as the odd polynomials
    serve square roots.

    Parameters
    ----------
    lower : float
        Smallest singular value to be served, relative to the largest: 0 < lower <= 1.
    tol : float, optional
        Stop when ``|1 - x| <= tol`` for every image x; default the unit roundoff of float64
        where ``steps`` is not given either.
    steps : int, optional
        Exact number of steps instead.
    degree : {5, 3}
        Degree of each polynomial for ``root`` 2; for 3 the last coefficient is zero.
    safety : float
        While the interval is wide (lower end below 1/2), polynomials are applied to
        ``x / safety``, so that an argument up to ``safety`` times too large, by rounding in
        half precision, still does not grow.
    root : int
        The p above; `lower` is that of the p-th roots of the eigenvalues.
    xp, device, dtype : optional
        Namespace, device and dtype of the result; default NumPy float64.

    Returns
    -------
    coeffs : array, shape (steps, 3)
        ``a, b, c`` of each step; read-only where it is a NumPy array.

    Raises
    ------
    ValueError
        If an argument is out of its range, or both ``tol`` and ``steps`` are given.

    Notes
    -----
    The number of steps grows like log log(1/lower) at the end and log(1/lower) before:
    ``lower`` = 1e-2 needs 6 quintic steps to full double precision, 1e-8 needs 15. Cost: a
    4 x 4 solve per exchange and step; schedules are cached.

    References
    ----------
    .. [1] N. Amsel, D. Persson, C. Musco, R. M. Gower, "The Polar Express", arXiv:2505.16932,
       2025, Theorem 3.1; cubic in closed form: E. Grishina, M. Smirnov, M. Rakhuba,
       arXiv:2506.10935, 2025.

    Examples
    --------
    >>> import linalgk as lk
    >>> coeffs = lk.minimax_schedule(1e-2, tol=1e-3)
    >>> coeffs.shape
    (5, 3)
    >>> x = 1e-2
    >>> for a, b, c in coeffs:
    ...     x = a * x + b * x**3 + c * x**5
    >>> bool(abs(1 - x) < 1e-3)
    True
    """
    lower = _validate.real_between("lower", lower, 0.0, 1.0, low_open=True)
    safety = _validate.real_between("safety", safety, 1.0, 2.0)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 2.0**-53, 1.0)
    if steps is not None:
        steps = _validate.integer("steps", steps, 0)
    if tol is not None and steps is not None:
        msg = "tol and steps: give one of them, got both"
        raise ValueError(msg)
    if degree not in (3, 5):
        msg = f"degree: must be 3 or 5, got {degree!r}"
        raise ValueError(msg)
    root = _validate.integer("root", root, 1)
    table = schedule(lower, tol, steps, degree, safety, root)
    if xp is None and dtype is None:
        return table
    return _xp.from_numpy(table, xp, device=device, dtype=dtype)


@functools.lru_cache(maxsize=1024)
def schedule(
    lower: float,
    tol: float | None = None,
    steps: int | None = None,
    degree: int = 5,
    safety: float = 1.0,
    root: int = 2,
) -> NDArray[np.float64]:
    """`minimax_schedule` for arguments known to be in range."""
    fit = _three_terms if degree == 5 else _two_terms
    target = 2.0**-53 if tol is None else tol
    low, high = lower, 1.0
    rows: list[tuple[float, float, float]] = []
    while len(rows) < 200 if steps is None else len(rows) < steps:
        if steps is None and max(1 - low, high - 1) <= target:
            break
        a, b, c, error = fit(low, high, root)
        if safety == 1.0 or low >= 0.5:
            low = 1 - error
        else:
            a, b, c = a / safety, b / safety ** (root + 1), c / safety ** (2 * root + 1)
            low = min(1 - error, low * (a + low**root * (b + low**root * c)))
        high = 1 + error
        rows.append((a, b, c))
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    table.flags.writeable = False
    return table


def schedule_table(
    dtype: str, tol: float | None = None, steps: int | None = None, rows: int = 64, root: int = 2
) -> NDArray[np.float64]:
    """Minimax schedules for eigenvalues in [2^-r, 1]: row r is steps, then coefficients.

    A row is its number of steps (at least one), eps of the dtype, zero, and three coefficients a
    step, those of the identity (1, 0, 0) after its last. A kernel picks the row of each matrix by
    its own eigenvalue bound.
    """
    roundoff, lowers = _rows(dtype, rows, root)
    target = None if steps is not None else max(roundoff, tol or 0.0)
    found = [schedule(lower, target, steps, root=root) for lower in lowers]
    least = [schedule(lower, steps=1, root=root) for lower in lowers]
    return _stack([f if len(f) else one for f, one in zip(found, least, strict=True)], roundoff)


def newton_table(
    dtype: str, tol: float | None = None, steps: int | None = None, rows: int = 64, root: int = 2
) -> NDArray[np.float64]:
    """As `schedule_table` for Newton: ``((p + 1) x - x^(p+1)) / p`` as often as the bound needs.

    For ``root`` p = 2 it is the Newton-Schulz iteration, for others the coupled inverse Newton
    iteration (Guo and Higham, 2006).
    """
    roundoff, lowers = _rows(dtype, rows, root)
    target = max(roundoff, tol or 0.0)
    table = []
    for lower in lowers:
        count, x = 0, lower
        while count < (steps or 1000) and (steps is not None or count == 0 or 1 - x > target):
            count, x = count + 1, x * (1 + (1 - x**root) / root)
        table.append(np.tile([1 + 1 / root, -1 / root, 0.0], (count, 1)))
    return _stack(table, roundoff)


def _rows(dtype: str, rows: int, root: int) -> tuple[float, list[float]]:
    roundoff, most = (2.0**-24, 32) if dtype == "float32" else (2.0**-53, 64)
    return roundoff, [min(2.0 ** (-r / root), 0.999) for r in range(min(rows, most))]


def _stack(coeffs: list[NDArray[np.float64]], roundoff: float) -> NDArray[np.float64]:
    table = np.zeros((len(coeffs), max(map(len, coeffs)) + 1, 3))
    table[:, :, 0] = 1.0
    for row, coeff in zip(table, coeffs, strict=True):
        row[0] = len(coeff), 2 * roundoff, 0.0
        row[1 : len(coeff) + 1] = coeff
    flat = table.reshape(len(coeffs), -1)
    flat.flags.writeable = False
    return flat


def _three_terms(low: float, high: float, root: int) -> tuple[float, float, float, float]:
    """Best ``a x + b x^(p+1) + c x^(2p+1)`` for 1 on [low, high] and its error, by Remez exchange.

    The error peaks at both ends and at the zeros of the derivative, a quadratic in x^p, which are
    known in closed form once the coefficients are.
    """
    p = root
    mid, width = 0.5 * (high + low), (high - low) / (high + low)
    if width < _PADE_WIDTH:
        # x (1 + e/p + (p+1)/(2p^2) e^2) with e = 1 - x^p about the middle
        c = (p + 1) / (2 * p * p)
        error = (p + 1) * (2 * p + 1) / 6 * width**3
        a, b = 1 + 1 / p + c, -1 / p - 2 * c
        return a / mid, b / mid ** (p + 1), c / mid ** (2 * p + 1), error
    q, r = low + 0.25 * (high - low), low + 0.75 * (high - low)
    previous = math.inf
    while True:
        x = np.array([low, q, r, high])
        signs = np.array([1.0, -1.0, 1.0, -1.0])
        system = np.stack([x, x ** (p + 1), x ** (2 * p + 1), signs], axis=1)
        a, b, c, error = np.linalg.solve(system, np.ones(4)).tolist()
        slope, curve = (p + 1) * b, (2 * p + 1) * c
        gap = math.sqrt(max(slope * slope - 4 * a * curve, 0.0))
        q = ((-slope - gap) / (2 * curve)) ** (1 / p)
        r = ((-slope + gap) / (2 * curve)) ** (1 / p)
        # the levelled error grows monotonically to its limit; rounding ends the growth
        if abs(error) <= previous * (1 + 1e-12) and previous != math.inf:
            return a, b, c, abs(error)
        previous = abs(error)


def best_odd_polynomial(low: float, high: float) -> tuple[float, float, float]:
    """Best ``a x + b x^3 + c x^5`` for 1 on [low, high]."""
    return _three_terms(low, high, 2)[:3]


def _two_terms(low: float, high: float, root: int) -> tuple[float, float, float, float]:
    """Best ``a x + b x^(p+1)`` for 1 on [low, high] and its error, in closed form.

    Both ends have the same value, so that ``a = -b s``; between them lies the peak.
    """
    p = root
    s = sum(high ** (p - k) * low**k for k in range(p + 1))
    peak = (s / (p + 1)) ** (1 / p)
    b = -2 / (peak * (s - peak**p) + low * (s - low**p))
    return -b * s, b, 0.0, abs(1 + b * low * (s - low**p))
