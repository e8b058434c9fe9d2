"""Roots of many small Hermitian matrices: one matrix per vector lane, the whole iteration fused.

Layout (n, n, lanes): element (i, j) of as many matrices as a register has lanes. With M = A/s,
X = M or I, a step is T = a I + b M + c M^2, X <- X T^q, M <- M T^p: M tends to I and X to
X_0 M_0^(-q/p). Every factor is a polynomial of M, so products are symmetric up to rounding and
only the upper tiles are computed: n^3 instead of 2 n^3 operations each. That is safe because X is
never fed back; in the coupled form (P = Z Y) the same shortcut multiplies rounding errors by kappa
(docs/design). Floor: (2 + q + log2 p) n^3 flops per matrix and step on every FMA port; four
matrices in cache.
"""

import math

import numpy as np

from ._preset import helper as _helper
from ._preset import njit
from ._simd import (
    BYTES,
    add,
    aligned,
    allocate,
    compact,
    div,
    dot,
    entry,
    fabs,
    fma,
    gather,
    get,
    load,
    maximum,
    mul,
    product,
    put,
    release,
    scatter,
    set_entry,
    splat,
    sqrt,
    store,
    sub,
)
from ._threads import run

OK, NONFINITE, ASYMMETRIC, HARD = 0, 1, 2, 3


@_helper
def _pack(a, w, m, top, scale, report, base, n, lanes, tol, den):
    """Check, scale by a power of 2^den and symmetrise, all lanes at once.

    A complex matrix X + iY travels as the real symmetric [[X, -Y], [Y, X]].
    """
    compact()
    half = a.shape[1]
    planes = n // half
    stride = half * n
    count = a.shape[0] - base
    origin = base * stride
    zero = splat(w, 0.0)
    largest = zero
    defect = zero
    spread = zero
    poison = zero
    for p in range(planes):
        for i in range(half):
            for j in range(i + 1):
                lower = gather(a, origin + i * n + planes * j + p, stride, count)
                upper = gather(a, origin + j * n + planes * i + p, stride, count)
                set_entry(w, m, p * half + i, j, n, lower)
                set_entry(w, m, p * half + j, i, n, upper)
                # NaN and infinity times zero are NaN, which no later sum removes
                poison = fma(lower, zero, fma(upper, zero, poison))
                larger = maximum(fabs(lower), fabs(upper))
                largest = maximum(larger, largest)
                if i != j:
                    spread = maximum(larger, spread)
                gap = add(lower, upper) if p else sub(lower, upper)
                defect = maximum(fabs(gap), defect)
    store(w, top, largest)
    store(w, top + lanes, defect)
    store(w, top + 2 * lanes, fma(poison, zero, spread))
    for lane in range(lanes):
        if lane >= count:
            # lanes without a matrix of their own repeat the last one
            put(w, top + lane, get(w, top + count - 1))
            put(w, top + lanes + lane, get(w, top + lanes + count - 1))
            continue
        size = np.float64(get(w, top + lane))
        status = OK
        others = np.float64(get(w, top + 2 * lanes + lane))
        if others != others:
            status = NONFINITE
        elif get(w, top + lanes + lane) > tol * size:
            status = ASYMMETRIC
        elif others == 0.0:
            # diagonal matrices are exact elsewhere
            status = HARD
        exponent = 0
        if status == OK:
            exponent = -(-math.frexp(size)[1] // den) * den
        for k in range(4):
            put(report, 4 * (base + lane) + k, 0.0 if k else status)
        # in two factors, because one alone may leave the range of the dtype
        first = -exponent // 2
        put(w, top + lane, math.ldexp(1.0, first))
        put(w, top + lanes + lane, 0.5 * math.ldexp(1.0, -exponent - first))
        put(w, scale + lane, exponent)
    first = load(w, top)
    second = load(w, top + lanes)
    for p in range(planes):
        for i in range(half):
            for j in range(i + 1):
                row, col = p * half + i, p * half + j
                lower = mul(mul(entry(w, m, row, j, n), first), second)
                upper = mul(mul(entry(w, m, col, i, n), first), second)
                # Y is skew and stands on both sides with opposite sign; X stands twice
                value = sub(lower, upper) if p else add(lower, upper)
                other = sub(upper, lower) if p else value
                set_entry(w, m, row, j, n, value)
                set_entry(w, m, col, i, n, other)
                if planes == 2:
                    set_entry(w, m, half - p * half + j, half + i, n, value)
                    set_entry(w, m, half - p * half + i, half + j, n, other)


@_helper
def _normalise(w, m, top, n, lanes):
    """Divide each lane by an upper bound of its largest eigenvalue; store that bound at top."""
    compact()
    zero = splat(w, 0.0)
    rowmax = zero
    for i in range(n):
        rowsum = zero
        for j in range(n):
            rowsum = add(rowsum, fabs(entry(w, m, i, j, n)))
        rowmax = maximum(rowsum, rowmax)
    frobenius = sqrt(dot(w, m, m, n * n))
    # the smaller of the two, and 2^-9 more than the rounding of either sum can hide
    bound = sub(add(rowmax, frobenius), maximum(rowmax, frobenius))
    bound = mul(bound, splat(w, 1.001953125))
    store(w, top, bound)
    inverse = div(splat(w, 1.0), bound)
    for k in range(n * n):
        store(w, m + k * lanes, mul(load(w, m + k * lanes), inverse))


@_helper
def _inverse_trace(w, m, low, inv, out, n, lanes):
    """trace(M^-1) = ||L^-1||_F^2 by Cholesky, per lane; NaN or inf where a pivot is not positive.

    1/trace is a lower bound of the smallest eigenvalue, at most a factor n too small.
    """
    compact()
    zero = splat(w, 0.0)
    one = splat(w, 1.0)
    for j in range(n):
        # the reciprocal stands on the diagonal: it is what both solves need
        pivot = one
        for i in range(j, n):
            x = entry(w, m, i, j, n)
            x = sub(x, dot(w, low + i * n * lanes, low + j * n * lanes, j))
            if i == j:
                pivot = div(one, sqrt(x))
                x = one
            set_entry(w, low, i, j, n, mul(x, pivot))
    total = zero
    for j in range(n):
        for i in range(j, n):
            x = one
            if i > j:
                x = sub(zero, dot(w, low + (i * n + j) * lanes, inv + j * lanes, i - j))
            x = mul(x, entry(w, low, i, i, n))
            store(w, inv + i * lanes, x)
            total = fma(x, x, total)
    store(w, out, total)


@_helper
def _schedule(w, m, coef, bound, top, scale, table, report, base, n, lanes):
    """Copy the minimax coefficients that each lane's own eigenvalue bound asks for."""
    compact()
    eps = get(table, 1)
    width = table.shape[1]
    most = 0
    count = report.shape[0] - base
    for lane in range(lanes):
        if lane >= count:
            for k in range(n * n):
                put(w, m + k * lanes + lane, get(w, m + k * lanes + count - 1))
            put(w, scale + lanes + lane, get(w, scale + lanes + count - 1))
            continue
        item = base + lane
        trace = np.float64(get(w, bound + lane))
        # Cholesky's backward error n eps can hide that much of the smallest eigenvalue
        safe = trace * (1.005 + n * trace * eps)
        row = 0
        if get(report, 4 * item) == OK:
            row = table.shape[0]
            if trace * eps < 0.1:
                row = math.frexp(safe)[1] if safe > 1.0 else 0
            if row < table.shape[0]:
                norm = math.ldexp(np.float64(get(w, top + lane)), int(get(w, scale + lane)))
                put(report, 4 * item + 1, get(table, row * width))
                put(report, 4 * item + 2, norm / safe)
                put(report, 4 * item + 3, norm)
            else:
                put(report, 4 * item, HARD)
        if get(report, 4 * item) != OK:
            row = 0
            put(w, top + lane, np.nan)
            for k in range(n * n):
                put(w, m + k * lanes + lane, 0.0)
            for k in range(n):
                put(w, m + k * (n + 1) * lanes + lane, 1.0)
        put(w, scale + lanes + lane, row)
        steps = int(get(table, row * width))
        most = steps if steps > most else most
    for k in range(3 * most):
        for lane in range(lanes):
            row = int(get(w, scale + lanes + lane))
            put(w, coef + k * lanes + lane, get(table, row * width + 3 + k))
    return most


@_helper
def _unpack(w, x, top, scale, out, base, n, lanes, whole, num, den):
    """Write the finished lanes back at their own scale, NaN where the scale is."""
    compact()
    half = out.shape[1]
    planes = n // half
    stride = half * n
    count = out.shape[0] - base
    origin = base * stride
    for lane in range(lanes):
        if lane >= count:
            put(w, top + lane, get(w, top + count - 1))
            continue
        exponent = int(get(w, scale + lane))
        factor = np.float64(get(w, top + lane))
        factor = math.sqrt(factor) if den == 2 * num else factor ** (num / den)
        factor = np.float64(get(w, top + lane)) / factor if whole else 1.0 / factor
        put(w, top + lane, math.ldexp(factor, whole * exponent - exponent // den * num))
    factor = load(w, top)
    zero = splat(w, 0.0)
    for i in range(half):
        for j in range(i + 1):
            # adding zero turns -0 into +0, whatever step the lane's neighbours stopped at
            value = fma(entry(w, x, i, j, n), factor, zero)
            scatter(out, origin + i * n + planes * j, stride, count, value)
            scatter(out, origin + j * n + planes * i, stride, count, value)
            if planes == 2:
                value = entry(w, x, half + i, j, n)
                value = fma(value, mul(factor, zero) if i == j else factor, zero)
                scatter(out, origin + i * n + 2 * j + 1, stride, count, value)
                scatter(out, origin + j * n + 2 * i + 1, stride, count, sub(zero, value))


@njit
def _groups(a, out, report, table, whole, num, den, tol, lanes, start, stop):
    """Roots of the matrices in lane groups ``start`` to ``stop``; how many are not OK.

    a, out : (batch, n, n) real, or (batch, n, 2 n) complex as pairs, C-contiguous.
    report : (batch, 4) float64: status, steps, lower and upper bound of the eigenvalues.
    table : (rows, 3 steps + 3): row r is the schedule for eigenvalues in [2^-r, 1]: its number of
        steps, eps, zero, and the coefficients, (1, 0, 0) after the last. Matrices beyond the
        last row are HARD.
    whole, num, den : the power of A wanted, ``whole - num/den`` with whole 0 or 1.
    tol : largest asymmetry allowed, relative to the largest entry.
    lanes : matrices in a register; an argument, because LLVM would unroll every loop over a
        constant and spend its time on code that runs once for a group.
    """
    compact()
    n = a.shape[2]
    size = n * n * lanes
    # 16 elements are enough to begin at a multiple of 64 bytes
    block = allocate(out, 4 * size + (6 + table.shape[1]) * lanes + 16)
    w = aligned(block)
    # not the literal 0, which has a type of its own: every helper would be compiled for both
    m, x, t, q = size - size, size, 2 * size, 3 * size
    top = m + 4 * size
    bound = top + 3 * lanes
    scale = bound + lanes
    coef = scale + 2 * lanes
    bad = 0
    for group in range(start, stop):
        base = group * lanes
        _pack(a, w, m, top, scale, report, base, n, lanes, tol, den)
        _normalise(w, m, top, n, lanes)
        _inverse_trace(w, m, x, q, bound, n, lanes)
        steps = _schedule(w, m, coef, bound, top, scale, table, report, base, n, lanes)
        for step in range(steps):
            product(w, t, m, m, n, coef + 3 * step * lanes)
            for k in range(num):
                if step + k > 0:
                    product(w, q, x, t, n, -1)
                elif whole:
                    product(w, q, m, t, n, -1)
                else:
                    for v in range(n * n):
                        store(w, q + v * lanes, load(w, t + v * lanes))
                x, q = q, x
            rest = den if step < steps - 1 else 0
            while rest:
                if rest & 1:
                    product(w, q, m, t, n, -1)
                    m, q = q, m
                rest >>= 1
                if rest:
                    product(w, q, t, t, n, -1)
                    t, q = q, t
        _unpack(w, x, top, scale, out, base, n, lanes, whole, num, den)
        for item in range(base, base + lanes):
            if item < report.shape[0] and get(report, 4 * item) != OK:
                bad += 1
    release(block)
    return bad


def small_root(a, whole, num, den, table, tol, threads, out=None, report=None):
    """Roots of a batch (b, n, n), their report, and the number of members that need another way.

    See `_groups` for the arguments and the report; members whose status is not OK hold NaN.
    """
    batch, n, _ = a.shape
    out = np.empty_like(a) if out is None else out
    report = np.empty((batch, 4)) if report is None else report
    source, target = a, out
    if a.dtype.kind == "c":
        source, target = a.view(a.real.dtype), out.view(a.real.dtype)
    lanes = BYTES // source.itemsize
    groups = -(-batch // lanes)
    rest = source, target, report, table, whole, num, den, tol, lanes
    # below about 50 microseconds of work a second thread costs more than it saves
    if batch * n**3 < 20_000:
        return out, report, _groups(*rest, 0, groups)
    # compiled here, where no other thread waits for it
    _groups(*rest, 0, 0)
    return out, report, sum(run(lambda start, stop: _groups(*rest, start, stop), groups, threads))
