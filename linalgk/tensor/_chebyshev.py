"""Chebyshev series in one variable, many at a time: columns of coefficients, on the host.

Points are those of the second kind on [-1, 1], ascending; ``m`` of them hold those of ``(m+1)/2``.
"""

from typing import Any

import numpy as np

from linalgk.tensor._ops import basis as basis


def points(m: int) -> Any:
    """``x_j = -cos(pi j / (m-1))``, exactly antisymmetric; the middle alone for m = 1."""
    j = np.arange(1 - m, m, 2)
    return np.sin(np.pi * j / (2 * max(m - 1, 1)))


def coefficients(values: Any, axis: int = 0) -> Any:
    """Coefficients of the interpolant of values at `points`, along an axis; of real or complex."""
    import scipy.fft

    m = values.shape[axis]
    if m == 1:
        return np.array(values, copy=True)
    c = scipy.fft.dct(np.flip(values, axis), type=1, axis=axis)
    c /= m - 1
    ends = [slice(None)] * c.ndim
    ends[axis] = slice(0, None, m - 1)
    c[tuple(ends)] *= 0.5
    return c


def values(c: Any, axis: int = 0) -> Any:
    """Values at `points` of the series with these coefficients: the inverse of `coefficients`."""
    import scipy.fft

    m = c.shape[axis]
    if m == 1:
        return np.array(c, copy=True)
    inner = [slice(None)] * c.ndim
    inner[axis] = slice(1, m - 1)
    c = np.array(c, copy=True)
    c[tuple(inner)] *= 0.5
    return np.flip(scipy.fft.dct(c, type=1, axis=axis), axis)


def derivative(c: Any) -> Any:
    """Coefficients (max(m-1, 1), r) of the derivatives with respect to x on [-1, 1].

    ``b_{k-1} = b_{k+1} + 2k c_k``, the first of them halved.
    """
    m = c.shape[0]
    if m == 1:
        return np.zeros_like(c)
    terms = 2.0 * np.arange(1, m).reshape(-1, *[1] * (c.ndim - 1)) * c[1:]
    b = np.empty_like(terms)
    for parity in (0, 1):
        b[parity::2] = np.cumsum(terms[parity::2][::-1], axis=0)[::-1]
    b[0] *= 0.5
    return b


def integrals(m: int) -> Any:
    """``int_-1^1 T_k`` for k < m: ``2 / (1 - k^2)`` for even k, else 0."""
    k = np.arange(m)
    return np.where(k % 2 == 0, 2.0 / np.where(k % 2 == 0, 1.0 - k * k, 1.0), 0.0)


def gram(m: int, n: int) -> Any:
    """``int_-1^1 T_j T_k`` (m, n): half the integrals of ``T_{j+k} + T_{|j-k|}``."""
    j, k = np.arange(m)[:, None], np.arange(n)[None, :]
    w = integrals(m + n)
    return 0.5 * (w[j + k] + w[np.abs(j - k)])


def chop(c: Any, tol: float) -> int:
    """How many coefficients to keep of a series resolved to the relative accuracy ``tol`` [1]_.

    All of them, ``len(c)``, where no plateau shows that it is resolved; so always for fewer than
    17. A matrix (m, r) is judged by the largest of each row.

    .. [1] J. L. Aurentz, L. N. Trefethen, "Chopping a Chebyshev series", ACM Trans. Math. Softw.
       43 (2017), section 3.
    """
    size = np.abs(c)
    size = size if size.ndim == 1 else size.max(axis=1, initial=0.0)
    n = int(size.shape[0])
    if tol >= 1:
        return 1
    if n < 17:
        return n
    envelope = np.maximum.accumulate(size[::-1])[::-1]
    if envelope[0] == 0:
        return 1
    envelope = envelope / envelope[0]
    log_tol = np.log(tol)
    j = np.arange(2, n + 1)
    j2 = np.floor(1.25 * j + 5.5).astype(np.int64)
    j, j2 = j[j2 <= n], j2[j2 <= n]
    first, second = envelope[j - 1], envelope[j2 - 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = (first == 0) | (second / first > 3 * (1 - np.log(first) / log_tol))
    if not flat.any():
        return n
    at = int(np.argmax(flat))
    plateau, end = int(j[at]) - 1, int(j2[at])
    if envelope[plateau - 1] == 0:
        return plateau
    floor = tol ** (7 / 6)
    above = int(np.count_nonzero(envelope >= floor))
    kept = envelope[:end].copy()
    if above < end:
        end = above + 1
        kept = envelope[:end].copy()
        kept[-1] = floor
    tilt = np.linspace(0, -np.log10(tol) / 3, end)
    return max(int(np.argmin(np.log10(kept) + tilt)), 1)
