"""Eigenvectors of real symmetric matrices of small order: Householder, then implicit QL [1].

Up to some hundred rows LAPACK's divide and conquer spends its time in calls; these loops run along
rows, so that the compiler fills vector registers, and a batch needs no other parallelism than its
members. About ``9 n^3`` flops; the rotations wait for one square root and one division each.

.. [1] H. Bowdler, R. S. Martin, C. Reinsch, J. H. Wilkinson, "The QR and QL algorithms for
   symmetric matrices", Numer. Math. 11 (1968).
"""

import functools
import math

import numpy as np

from ._preset import njit as preset

# Sums of rows may be taken in vector order: it is the same order for every member of that size.
njit = functools.partial(preset, fastmath={"contract", "reassoc", "nsz"})
helper = functools.partial(njit, no_cpython_wrapper=True)

_LANES = 16  # of single precision in the widest register
# EISPACK allows 30 turns for an eigenvalue, of which two or three are the rule.
_TURNS = 60


@helper
def _reduce(a, d, e, h, p):
    """The lower triangle of a to tridiagonal form, diagonal d and e beside it, last row first.

    Row i of a keeps the vector v of the reflector ``I - v v^T / h_i``, followed by zeros.
    """
    n, kind = a.shape[0], a.dtype.type
    half = kind(0.5)
    for i in range(n - 1, 0, -1):
        row = a[i]
        d[i], row[i] = row[i], 0
        rest = kind(0)
        for k in range(i - 1):
            rest += row[k] * row[k]
        f = row[i - 1]
        if rest == 0:
            e[i], h[i] = f, 0
            continue
        g = np.sqrt(rest + f * f)
        if f > 0:
            g = -g
        e[i], h[i] = g, rest + f * f - f * g
        row[i - 1] = f - g
        inverse = 1 / h[i]
        for j in range(i):
            p[j] = 0
        for j in range(i):
            other, v, total = a[j], row[j], kind(0)
            for k in range(j):
                total += other[k] * row[k]
                p[k] += v * other[k]
            p[j] += total + other[j] * v
        middle = kind(0)
        for j in range(i):
            p[j] *= inverse
            middle += p[j] * row[j]
        middle *= half * inverse
        for j in range(i):
            p[j] -= middle * row[j]
        for j in range(i):
            other, v, q = a[j], row[j], p[j]
            for k in range(j + 1):
                other[k] -= v * p[k] + q * row[k]
    d[0], e[0] = a[0, 0], 0


@helper
def _accumulate(a, h, z):
    """Rows of z become the columns of the product of reflectors."""
    n, kind = a.shape[0], a.dtype.type
    for j in range(n):
        for k in range(n):
            z[j, k] = 0
        z[j, j] = 1
    for i in range(1, n):
        if h[i] == 0:
            continue
        row, inverse = a[i], 1 / h[i]
        # the zeros behind a reflector fill up the last vector register
        stop = min((i + _LANES - 1) // _LANES * _LANES, n)
        for j in range(i):
            own, total = z[j], kind(0)
            for k in range(stop):
                total += own[k] * row[k]
            total *= inverse
            for k in range(stop):
                own[k] -= total * row[k]


@helper
def _rotate(d, e, z):
    """Implicit QL on diagonal d and off-diagonal e[1:], rotating rows of z; True if it fails."""
    n, kind = d.shape[0], d.dtype.type
    one, two = kind(1), kind(2)
    for i in range(1, n):
        e[i - 1] = e[i]
    e[n - 1] = 0
    for low in range(n):
        for turn in range(_TURNS):
            m = low
            while m < n - 1:
                size = abs(d[m]) + abs(d[m + 1])
                if abs(e[m]) + size == size:
                    break
                m += 1
            if m == low:
                break
            if turn == _TURNS - 1:
                return True
            g = (d[low + 1] - d[low]) / (two * e[low])
            r = np.sqrt(g * g + one)
            g = d[m] - d[low] + e[low] / (g + (r if g >= 0 else -r))
            s, c, p = one, one, kind(0)
            split = False
            for i in range(m - 1, low - 1, -1):
                f, b = s * e[i], c * e[i]
                r = np.sqrt(f * f + g * g)
                e[i + 1] = r
                if r == 0:
                    d[i + 1] -= p
                    e[m] = 0
                    split = True
                    break
                inverse = one / r
                s, c = f * inverse, g * inverse
                g = d[i + 1] - p
                r = (d[i] - g) * s + two * c * b
                p = s * r
                d[i + 1] = g + p
                g = c * r - b
                lower, upper = z[i], z[i + 1]
                for k in range(n):
                    x, y = lower[k], upper[k]
                    upper[k] = s * x + c * y
                    lower[k] = c * x - s * y
            if not split:
                d[low] -= p
                e[low], e[m] = g, 0
    return False


@helper
def _sort(d, z):
    n = d.shape[0]
    for i in range(n - 1):
        k = i
        for j in range(i + 1, n):
            if d[j] < d[k]:
                k = j
        if k != i:
            d[i], d[k] = d[k], d[i]
            for j in range(n):
                z[i, j], z[k, j] = z[k, j], z[i, j]


@njit
def eigh_range(w, z, start, stop):
    """Eigenvalues ascending into w (b, n) and eigenvectors into the rows of z; NaN where it fails.

    z holds the matrices at first, of which the lower triangles are read. Both arrays have one
    dtype, are contiguous and writable: other types would be compiled again, and might round in
    another order.
    """
    n = z.shape[1]
    work, rest = np.zeros((n, n), w.dtype), np.empty((3, n), w.dtype)
    e, h, p = rest[0], rest[1], rest[2]
    for item in range(start, stop):
        d, rows, top = w[item], z[item], 0.0
        for i in range(n):
            for j in range(i + 1):
                top = max(top, abs(float(rows[i, j])))
        # near one, so that no square leaves the range
        shift = math.frexp(top)[1] if 0 < top < np.inf else 0
        down, up = w.dtype.type(2.0 ** (-shift // 2)), w.dtype.type(2.0 ** (-shift - -shift // 2))
        for i in range(n):
            for j in range(i + 1):
                work[i, j] = rows[i, j] * down * up
        _reduce(work, d, e, h, p)
        _accumulate(work, h, rows)
        if _rotate(d, e, rows):
            d[:] = np.nan
        else:
            _sort(d, rows)
        for i in range(n):
            d[i] = d[i] / down / up
