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
from ._simd import (
    BYTES,
    TILE,
    add,
    div,
    dot,
    fabs,
    fma,
    gather,
    load,
    maximum,
    mul,
    scatter,
    splat,
    sqrt,
    store,
    sub,
)
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
def _pack(a, w, m, top, scale, report, base, n, tol):
    """Check, scale by a power of four and symmetrise, all lanes at once.

    A complex matrix X + iY travels as the real symmetric [[X, -Y], [Y, X]].
    """
    lanes = BYTES // w.itemsize
    half = a.shape[1]
    planes = n // half
    stride = half * n
    count = a.shape[0] - base
    origin = base * stride
    zero = splat(w.dtype.type(0.0))
    largest = zero
    defect = zero
    poison = zero
    for i in range(half):
        for j in range(i + 1):
            for p in range(planes):
                lower = gather(a, origin + i * n + planes * j + p, stride, count)
                upper = gather(a, origin + j * n + planes * i + p, stride, count)
                # NaN and infinity times zero are NaN, which no later sum removes
                poison = fma(add(lower, upper), zero, fma(sub(lower, upper), zero, poison))
                largest = maximum(maximum(fabs(lower), fabs(upper)), largest)
                gap = add(lower, upper) if p else sub(lower, upper)
                defect = maximum(fabs(gap), defect)
    store(w, top, largest)
    store(w, top + lanes, defect)
    store(w, top + 2 * lanes, poison)
    for lane in range(lanes):
        item = base + min(lane, count - 1)
        size = np.float64(w[top + lane])
        status = OK
        if w[top + 2 * lanes + lane] != 0.0:
            status = NONFINITE
        elif w[top + lanes + lane] > tol * size:
            status = ASYMMETRIC
        elif size == 0.0:
            status = HARD
        exponent = 0
        if status == OK:
            exponent = math.frexp(size)[1]
            exponent += exponent & 1
        report[item, 0] = status
        report[item, 1:] = 0.0
        # in two factors, because one alone may leave the range of the dtype
        first = -exponent // 2
        w[top + lane] = math.ldexp(1.0, first)
        w[top + lanes + lane] = 0.5 * math.ldexp(1.0, -exponent - first)
        scale[lane] = math.ldexp(1.0, exponent // 2)
    first = load(w, top)
    second = load(w, top + lanes)
    for i in range(half):
        for j in range(i + 1):
            for p in range(planes):
                lower = gather(a, origin + i * n + planes * j + p, stride, count)
                upper = gather(a, origin + j * n + planes * i + p, stride, count)
                lower = mul(mul(lower, first), second)
                upper = mul(mul(upper, first), second)
                if p == 0:
                    value = add(lower, upper)
                    store(w, m + (i * n + j) * lanes, value)
                    store(w, m + (j * n + i) * lanes, value)
                    if planes == 2:
                        store(w, m + ((half + i) * n + half + j) * lanes, value)
                        store(w, m + ((half + j) * n + half + i) * lanes, value)
                else:
                    value = sub(lower, upper)
                    store(w, m + ((half + i) * n + j) * lanes, value)
                    store(w, m + (j * n + half + i) * lanes, value)
                    value = sub(upper, lower)
                    store(w, m + ((half + j) * n + i) * lanes, value)
                    store(w, m + (i * n + half + j) * lanes, value)


@_helper
def _normalise(w, m, top, n):
    """Divide each lane by an upper bound of its largest eigenvalue; store that bound at top."""
    lanes = BYTES // w.itemsize
    zero = splat(w.dtype.type(0.0))
    rowmax = zero
    for i in range(n):
        rowsum = zero
        for j in range(n):
            rowsum = add(rowsum, fabs(load(w, m + (i * n + j) * lanes)))
        rowmax = maximum(rowsum, rowmax)
    frobenius = sqrt(dot(w, m, m, n * n))
    # the smaller of the two, and 2^-9 more than the rounding of either sum can hide
    bound = sub(add(rowmax, frobenius), maximum(rowmax, frobenius))
    bound = mul(bound, splat(w.dtype.type(1.001953125)))
    store(w, top, bound)
    for k in range(n * n):
        store(w, m + k * lanes, div(load(w, m + k * lanes), bound))


@_helper
def _inverse_trace(w, m, low, inv, out, n):
    """trace(M^-1) = ||L^-1||_F^2 by Cholesky, per lane; NaN or inf where a pivot is not positive.

    1/trace is a lower bound of the smallest eigenvalue, at most a factor n too small.
    """
    lanes = BYTES // w.itemsize
    zero = splat(w.dtype.type(0.0))
    one = splat(w.dtype.type(1.0))
    for j in range(n):
        # the reciprocal stands on the diagonal: it is what both solves need
        pivot = one
        for i in range(j, n):
            x = load(w, m + (i * n + j) * lanes)
            x = sub(x, dot(w, low + i * n * lanes, low + j * n * lanes, j))
            if i == j:
                pivot = div(one, sqrt(x))
                x = one
            store(w, low + (i * n + j) * lanes, mul(x, pivot))
    total = zero
    for j in range(n):
        for i in range(j, n):
            x = one
            if i > j:
                x = sub(zero, dot(w, low + (i * n + j) * lanes, inv + j * lanes, i - j))
            x = mul(x, load(w, low + (i * n + i) * lanes))
            store(w, inv + i * lanes, x)
            total = fma(x, x, total)
    store(w, out, total)


@_helper
def _schedule(w, m, coef, bound, top, scale, table, report, base, n):
    """Copy the minimax coefficients that each lane's own eigenvalue bound asks for."""
    lanes = BYTES // w.itemsize
    eps = np.finfo(w.dtype).eps
    most = 0
    rows = np.empty(lanes, np.int64)
    for lane in range(lanes):
        item = min(base + lane, report.shape[0] - 1)
        trace = np.float64(w[bound + lane])
        # Cholesky's backward error n eps can hide that much of the smallest eigenvalue
        margin = 1.005 + n * trace * eps
        row = 0
        if report[item, 0] == OK:
            row = table.shape[0]
            if trace < 0.1 / eps:
                row = max(math.ceil(math.log2(trace * margin)), 0)
            if row < table.shape[0]:
                norm = np.float64(w[top + lane]) * scale[lane] * scale[lane]
                report[item, 1] = table[row, 0]
                report[item, 2] = norm / (trace * margin)
                report[item, 3] = norm
            else:
                report[item, 0] = HARD
        if report[item, 0] != OK:
            row = 0
            scale[lane] = np.nan
            for k in range(n * n):
                w[m + k * lanes + lane] = 1.0 if k % (n + 1) == 0 else 0.0
        rows[lane] = row
        most = max(most, int(table[row, 0]))
    for k in range(3 * most):
        for lane in range(lanes):
            w[coef + k * lanes + lane] = table[rows[lane], 3 + k]
    return most


@_helper
def _unpack(w, x, top, scale, out, base, n, inverse):
    """Write the finished lanes back at their own scale, NaN where the scale is."""
    lanes = BYTES // w.itemsize
    half = out.shape[1]
    planes = n // half
    stride = half * n
    count = out.shape[0] - base
    origin = base * stride
    for lane in range(lanes):
        factor = math.sqrt(np.float64(w[top + lane])) * scale[lane]
        w[top + lane] = 1.0 / factor if inverse else factor
    factor = load(w, top)
    zero = splat(w.dtype.type(0.0))
    for i in range(half):
        for j in range(i + 1):
            # adding zero turns -0 into +0, whatever step the lane's neighbours stopped at
            value = fma(load(w, x + (i * n + j) * lanes), factor, zero)
            scatter(out, origin + i * n + planes * j, stride, count, value)
            scatter(out, origin + j * n + planes * i, stride, count, value)
            if planes == 2:
                value = load(w, x + ((half + i) * n + j) * lanes)
                value = fma(value, mul(factor, zero) if i == j else factor, zero)
                scatter(out, origin + i * n + 2 * j + 1, stride, count, value)
                scatter(out, origin + j * n + 2 * i + 1, stride, count, sub(zero, value))


@njit
def _groups(a, out, report, table, inverse, tol, start, stop):
    """Roots of the matrices in lane groups ``start`` to ``stop``.

    a, out : (batch, n, n) real, or (batch, n, 2 n) complex as pairs, C-contiguous.
    report : (batch, 4) float64: status, steps, lower and upper bound of the eigenvalues.
    table : (rows, 3 steps + 3): row r is the schedule for eigenvalues in [2^-r, 1]: its number of
        steps, two zeros, and the coefficients, (1, 0, 0) after the last. Matrices beyond the last
        row are HARD.
    inverse : whether A^(-1/2) is wanted instead of A^(1/2).
    tol : largest asymmetry allowed, relative to the largest entry.
    """
    n = a.shape[2]
    lanes = BYTES // a.itemsize
    unit = 64 // a.itemsize
    size = n * n * lanes
    w = np.empty(4 * size + (4 + table.shape[1]) * lanes + unit, out.dtype)
    # vectors that straddle a cache line cost two loads
    m = (-(w.ctypes.data // a.itemsize)) % unit
    x, t, q = m + size, m + 2 * size, m + 3 * size
    top = m + 4 * size
    bound = top + 3 * lanes
    coef = bound + lanes
    scale = np.empty(lanes, np.float64)
    for group in range(start, stop):
        base = group * lanes
        _pack(a, w, m, top, scale, report, base, n, tol)
        _normalise(w, m, top, n)
        _inverse_trace(w, m, x, q, bound, n)
        steps = _schedule(w, m, coef, bound, top, scale, table, report, base, n)
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
                left = q if k == 2 else (m if k == 1 or step == 0 else x)
                _multiply(w, m if k == 2 else q, left, right, n, coef)
                if k == 0:
                    x, q = q, x
        _unpack(w, x, top, scale, out, base, n, inverse)


def small_root(a, inverse, table, tol, threads):
    """Roots of a batch (b, n, n), their report, and the number of members that need another way.

    See `_groups` for the arguments and the report; members whose status is not OK hold NaN.
    """
    batch, n, _ = a.shape
    out = np.empty_like(a)
    report = np.empty((batch, 4))
    source, target = a, out
    if a.dtype.kind == "c":
        source, target = a.view(a.real.dtype), out.view(a.real.dtype)
    groups = -(-batch * source.itemsize // BYTES)

    def work(start, stop):
        _groups(source, target, report, table, inverse, tol, start, stop)

    # below about 50 microseconds of work a second thread costs more than it saves
    run(work, groups, 1 if batch * n**3 < 20_000 else threads)
    return out, report, int(np.count_nonzero(report[:, 0]))
