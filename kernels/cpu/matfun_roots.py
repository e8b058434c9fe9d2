"""Roots of many small Hermitian matrices: one matrix per vector lane, the whole iteration fused.

Layout (n, n, lanes): element (i, j) of as many matrices as a register has lanes. With M = A/s,
X = M or I, a step is T = a I + b M + c M^2, X <- X T, M <- M T T. Every factor is a polynomial
of M, so products are symmetric up to rounding and only the upper tiles are computed: n^3
instead of 2 n^3 operations each. That is safe because X is never fed back; in the coupled form
(P = Z Y) the same shortcut multiplies rounding errors by kappa (docs/design).
Floor: 4 n^3 flops per matrix and step on every FMA port; four matrices in cache.
"""

import math

import numpy as np

from ._preset import helper as _helper
from ._preset import njit
from ._simd import BYTES, TILE, add, div, fabs, fma, load, maximum, mul, splat, sqrt, store, sub
from ._simd import tile as _tile
from ._threads import run

OK, NONFINITE, ASYMMETRIC, HARD = 0, 1, 2, 3



def _blocks(fused):
    """Upper-triangle loop over tiles; rows and columns left over go one by one."""
    square, column, single = _tile(TILE, TILE, fused), _tile(TILE, 1, fused), _tile(1, 1, fused)

    @_helper
    def multiply(w, c, a, b, n, coef):
        whole = n - n % TILE
        for i in range(0, whole, TILE):
            for j in range(i, whole, TILE):
                square(w, c, a, b, n, i, j, coef)
            for j in range(whole, n):
                column(w, c, a, b, n, i, j, coef)
        for i in range(whole, n):
            for j in range(i, n):
                single(w, c, a, b, n, i, j, coef)

    return multiply


_multiply = _blocks(False)
_polynomial = _blocks(True)


@_helper
def _pack(a, w, y, scale, report, base, n, lanes, tol):
    """Lane by lane: check, scale by a power of four, symmetrise; identity where unfit.

    A complex matrix X + iY travels as the real symmetric [[X, -Y], [Y, X]].
    """
    half = a.shape[1]
    planes = a.shape[3]
    for lane in range(lanes):
        item = base + lane
        status = OK
        factor = 1.0
        scale[lane] = 1.0
        if item < a.shape[0]:
            largest = 0.0
            defect = 0.0
            finite = True
            for i in range(half):
                for j in range(i + 1):
                    for p in range(planes):
                        lower = np.float64(a[item, i, j, p])
                        upper = np.float64(a[item, j, i, p])
                        if p == 1:
                            upper = -upper
                        # inf - inf and NaN both fail the comparison with itself
                        if lower - lower != 0.0 or upper - upper != 0.0:
                            finite = False
                        largest = max(largest, abs(lower), abs(upper))
                        defect = max(defect, abs(lower - upper))
            if not finite:
                status = NONFINITE
            elif defect > tol * largest:
                status = ASYMMETRIC
            elif largest == 0.0:
                status = HARD
            else:
                exponent = math.frexp(largest)[1]
                exponent += exponent & 1
                factor = math.ldexp(1.0, -exponent)
                scale[lane] = math.ldexp(1.0, exponent // 2)
            report[item, 0] = status
            report[item, 1:] = 0.0
        if item >= a.shape[0] or status != OK:
            for i in range(n):
                for j in range(n):
                    w[y + (i * n + j) * lanes + lane] = 1.0 if i == j else 0.0
        else:
            for i in range(half):
                for j in range(i + 1):
                    lower = np.float64(a[item, i, j, 0]) * factor
                    upper = np.float64(a[item, j, i, 0]) * factor
                    value = 0.5 * lower + 0.5 * upper
                    w[y + (i * n + j) * lanes + lane] = value
                    w[y + (j * n + i) * lanes + lane] = value
                    if planes == 2:
                        lower = np.float64(a[item, i, j, 1]) * factor
                        upper = np.float64(a[item, j, i, 1]) * factor
                        imag = 0.5 * lower - 0.5 * upper
                        k, m = half + i, half + j
                        w[y + (k * n + m) * lanes + lane] = value
                        w[y + (m * n + k) * lanes + lane] = value
                        w[y + (k * n + j) * lanes + lane] = imag
                        w[y + (j * n + k) * lanes + lane] = imag
                        w[y + (m * n + i) * lanes + lane] = -imag
                        w[y + (i * n + m) * lanes + lane] = -imag


@_helper
def _normalise(w, y, top, n, lanes):
    """Divide each lane by an upper bound of its largest eigenvalue; store that bound at top."""
    zero = sub(load(w, y), load(w, y))
    square = zero
    rowmax = zero
    for i in range(n):
        rowsum = zero
        for j in range(n):
            x = load(w, y + (i * n + j) * lanes)
            square = fma(x, x, square)
            rowsum = add(rowsum, fabs(x))
        rowmax = maximum(rowsum, rowmax)
    frobenius = sqrt(square)
    bound = sub(add(rowmax, frobenius), maximum(rowmax, frobenius))
    store(w, top, bound)
    for lane in range(lanes):
        # rounding in the two sums is at most n^2 eps: two units of 2^-10 cover every n here
        w[top + lane] = w[top + lane] * w.dtype.type(1.001953125)
    bound = load(w, top)
    for k in range(n * n):
        store(w, y + k * lanes, div(load(w, y + k * lanes), bound))


@_helper
def _inverse_trace(w, y, low, inv, out, n, lanes):
    """trace(Y^-1) = ||L^-1||_F^2 by Cholesky, per lane; NaN or inf where a pivot is not positive.

    1/trace is a lower bound of the smallest eigenvalue, at most a factor n too small.
    """
    zero = sub(load(w, y), load(w, y))
    one = add(zero, splat(w.dtype.type(1.0)))
    total = zero
    for j in range(n):
        for i in range(j, n):
            x = load(w, y + (i * n + j) * lanes)
            even = zero
            odd = zero
            k = 0
            while k + 1 < j:
                li = load(w, low + (i * n + k) * lanes)
                lj = load(w, low + (j * n + k) * lanes)
                even = fma(li, lj, even)
                li = load(w, low + (i * n + k + 1) * lanes)
                lj = load(w, low + (j * n + k + 1) * lanes)
                odd = fma(li, lj, odd)
                k += 2
            if k < j:
                li = load(w, low + (i * n + k) * lanes)
                even = fma(li, load(w, low + (j * n + k) * lanes), even)
            x = sub(x, add(even, odd))
            if i == j:
                pivot = div(one, sqrt(x))
                # the reciprocal stands on the diagonal: it is what both solves need
                store(w, low + (j * n + j) * lanes, pivot)
            else:
                store(w, low + (i * n + j) * lanes, mul(x, load(w, low + (j * n + j) * lanes)))
    for j in range(n):
        x = load(w, low + (j * n + j) * lanes)
        store(w, inv + j * lanes, x)
        total = fma(x, x, total)
        for i in range(j + 1, n):
            even = zero
            odd = zero
            k = j
            while k + 1 < i:
                even = fma(load(w, low + (i * n + k) * lanes), load(w, inv + k * lanes), even)
                odd = fma(
                    load(w, low + (i * n + k + 1) * lanes), load(w, inv + (k + 1) * lanes), odd
                )
                k += 2
            if k < i:
                even = fma(load(w, low + (i * n + k) * lanes), load(w, inv + k * lanes), even)
            x = mul(sub(zero, add(even, odd)), load(w, low + (i * n + i) * lanes))
            store(w, inv + i * lanes, x)
            total = fma(x, x, total)
    store(w, out, total)


@_helper
def _schedule(w, m, coef, bound, top, scale, table, report, base, n, lanes):
    """Per lane the minimax steps for its own eigenvalue bound; steps of the identity after them."""
    eps = np.finfo(w.dtype).eps
    most = 0
    for lane in range(lanes):
        item = base + lane
        trace = np.float64(w[bound + lane])
        row = 0
        if item < report.shape[0] and report[item, 0] == OK:
            # Cholesky's backward error n eps can hide that much of the smallest eigenvalue
            margin = 1.005 + n * trace * eps
            if trace < 0.1 / eps:
                row = max(int(math.ceil(math.log2(trace * margin))), 0)
            if trace < 0.1 / eps and row < table.shape[0]:
                norm = np.float64(w[top + lane]) * scale[lane] * scale[lane]
                report[item, 1] = table[row, 0, 0]
                report[item, 2] = norm / (trace * margin)
                report[item, 3] = norm
            else:
                row = 0
                report[item, 0] = HARD
                for k in range(n * n):
                    w[m + k * lanes + lane] = 1.0 if k % (n + 1) == 0 else 0.0
        most = max(most, int(table[row, 0, 0]))
        w[bound + lane] = row
    for step in range(most):
        for lane in range(lanes):
            row = int(w[bound + lane])
            done = step >= int(table[row, 0, 0])
            for k in range(3):
                value = table[row, step + 1, k]
                if done:
                    value = 1.0 if k == 0 else 0.0
                w[coef + (3 * step + k) * lanes + lane] = value
    return most


@_helper
def _unpack(w, x, top, scale, out, report, base, n, lanes, inverse):
    """Write the finished lanes back at their own scale, NaN for the others; count those."""
    half = out.shape[1]
    planes = out.shape[3]
    bad = 0
    for lane in range(min(lanes, out.shape[0] - base)):
        item = base + lane
        factor = math.sqrt(np.float64(w[top + lane])) * scale[lane]
        if inverse:
            factor = 1.0 / factor
        if report[item, 0] != OK:
            bad += 1
            factor = np.nan
        for i in range(half):
            for j in range(i + 1):
                # adding zero turns -0 into +0, whatever step the lane's neighbours stopped at
                value = np.float64(w[x + (i * n + j) * lanes + lane]) * factor + 0.0
                out[item, i, j, 0] = value
                out[item, j, i, 0] = value
                if planes == 2:
                    value = np.float64(w[x + ((half + i) * n + j) * lanes + lane]) * factor + 0.0
                    if i == j:
                        value *= 0.0
                    out[item, i, j, 1] = value
                    out[item, j, i, 1] = 0.0 - value
    return bad


@njit
def _groups(a, out, report, table, inverse, tol, start, stop):
    """Roots of the matrices in lane groups ``start`` to ``stop``; the number that need another way.

    a, out : (batch, n, n, 1) real or (batch, n, n, 2) complex as pairs, C-contiguous.
    report : (batch, 4) float64: status, steps, lower and upper bound of the eigenvalues.
    table : (rows, steps + 1, 3): row r is the schedule for eigenvalues in [2^-r, 1]; its first
        entry is the number of steps. Matrices beyond the last row are HARD.
    inverse : whether A^(-1/2) is wanted instead of A^(1/2).
    tol : largest asymmetry allowed, relative to the largest entry.
    """
    n = a.shape[1] * a.shape[3]
    lanes = BYTES // a.itemsize
    unit = 64 // a.itemsize
    size = n * n * lanes
    w = np.empty(4 * size + (2 + 3 * table.shape[1]) * lanes + unit, out.dtype)
    # vectors that straddle a cache line cost two loads
    m = (-(w.ctypes.data // a.itemsize)) % unit
    x, t, q = m + size, m + 2 * size, m + 3 * size
    top = m + 4 * size
    bound = top + lanes
    coef = bound + lanes
    scale = np.empty(lanes, np.float64)
    bad = 0
    for group in range(start, stop):
        base = group * lanes
        _pack(a, w, m, scale, report, base, n, lanes, tol)
        _normalise(w, m, top, n, lanes)
        _inverse_trace(w, m, x, q, bound, n, lanes)
        steps = _schedule(w, m, coef, bound, top, scale, table, report, base, n, lanes)
        for step in range(steps):
            _polynomial(w, t, m, m, n, coef + 3 * step * lanes)
            first = 0
            if step == 0 and inverse:
                # X = I: the product X T is T
                x, t = t, x
                first = 1
            right = x if first == 1 else t
            # X T (X = M at first), then M T, then (M T) T; one call, compiled into here once
            for k in range(first, 1 if step == steps - 1 else 3):
                left = m if k == 1 or step == 0 and k == 0 else (x if k == 0 else q)
                _multiply(w, m if k == 2 else q, left, right, n, coef)
                if k == 0:
                    x, q = q, x
        bad += _unpack(w, x, top, scale, out, report, base, n, lanes, inverse)
    return bad


def small_root(a, inverse, table, tol, threads):
    """Roots of a batch (b, n, n), their report, and the number of members that need another way.

    See `_groups` for the report; members with a status other than OK hold NaN.
    """
    batch, n, _ = a.shape
    out = np.empty_like(a)
    report = np.empty((batch, 4))
    planes = 1
    real = a.dtype
    if real.kind == "c":
        planes, real = 2, a.real.dtype
    shape = (batch, n, n, planes)
    source = a.view(real).reshape(shape)
    target = out.view(real).reshape(shape)
    groups = -(-batch * real.itemsize // BYTES)
    # below about 50 microseconds of work a second thread costs more than it saves
    if threads == 1 or batch * (n * planes) ** 3 < 20_000:
        return out, report, _groups(source, target, report, table, inverse, tol, 0, groups)
    bad = run(
        lambda start, stop: _groups(
            source, target, report, table, inverse, tol, start, stop
        ),
        groups,
        threads,
    )
    return out, report, sum(bad)
