"""A sparse-stack sketch times dense and sparse matrices: additions only, in one fixed order.

Each data row is added to, or subtracted from, one row of every block of the result. A panel of
columns of the result stays in the second-level cache while the rows of the data pass by: the data
are read once, and each of their rows costs ``nnz`` loads and stores in cache. Within a block of
2^14 data rows the additions come in ascending row order, the partial sums of blocks are added in
ascending order, and the scale is multiplied last: neither the layout, nor the number of threads,
nor the width of a panel changes a bit.
"""

import numpy as np

from ._preset import helper as _helper
from ._preset import njit
from ._simd import (
    BYTES,
    add,
    aligned,
    allocate,
    compact,
    fma,
    get,
    load,
    mul,
    pointer,
    prefetch,
    put,
    release,
    splat,
    store,
    transpose,
)
from ._threads import run

BLOCK = 1 << 14
# What a panel of the result may take of the second-level cache.
_PANEL_BYTES = 3 << 18
# Rows that are copied together where the data are not in row order.
_STRIP = 256
# Additions that cost less than waking a second thread.
_SMALL = 1 << 18


@_helper
def _copy(strip, a, row_step, col_step, planes, row, rows, col, cols, width, lanes):
    """Rows and columns of strided data as (rows, width), zeros where there are none."""
    compact()
    whole_rows = whole_cols = 0
    if row_step == 1 and planes == 1:
        whole_rows, whole_cols = rows // lanes * lanes, cols // lanes * lanes
    for c in range(0, whole_cols, lanes):
        for i in range(0, whole_rows, lanes):
            at = row + i + (col + c) * col_step
            transpose(a, at, col_step, strip, i * width + c, width)
    for c in range(width):
        begin = whole_rows if c < whole_cols else 0
        if c < cols:
            j = col + c
            base = row * row_step + (j // planes) * col_step + j % planes
            for i in range(begin, rows):
                put(strip, i * width + c, get(a, base + i * row_step))
        else:
            for i in range(rows):
                put(strip, i * width + c, 0.0)


@_helper
def _scatter4(
    panel, signs, a, step, rows, h, m, low, high, row, base, lanes, coming, ahead, shift, far, near
):  # fmt: skip
    """Row i also asks for what is read later: four registers of ``coming``, from element
    ``ahead + (i >> shift) * far + (i & (2^shift - 1)) * near`` on.
    """
    compact()
    rest = (1 << shift) - 1
    for i in range(rows):
        at = i * step
        later = ahead + (i >> shift) * far + (i & rest) * near
        for v in range(4):
            prefetch(coming, later + v * lanes)
        # the product with a sign is exact, so that fusing it changes nothing
        v0 = load(a, at)
        v1 = load(a, at + lanes)
        v2 = load(a, at + 2 * lanes)
        v3 = load(a, at + 3 * lanes)
        for t in range(low, high):
            place = np.intp(h[t * m + row + i])
            sign = splat(panel, np.float64(get(signs, place & 1)))
            to = ((place >> 1) - base) * (4 * lanes)
            store(panel, to, fma(sign, v0, load(panel, to)))
            store(panel, to + lanes, fma(sign, v1, load(panel, to + lanes)))
            store(panel, to + 2 * lanes, fma(sign, v2, load(panel, to + 2 * lanes)))
            store(panel, to + 3 * lanes, fma(sign, v3, load(panel, to + 3 * lanes)))


@_helper
def _scatter_narrow(panel, signs, a, step, rows, h, m, low, high, row, base, width):
    """A column or two, entry by entry."""
    compact()
    for i in range(rows):
        for t in range(low, high):
            place = np.intp(h[t * m + row + i])
            sign, to = get(signs, place & 1), ((place >> 1) - base) * width
            for c in range(width):
                put(panel, to + c, get(panel, to + c) + sign * get(a, i * step + c))


@_helper
def _scatter_wide(panel, signs, a, step, rows, h, m, low, high, row, base, lanes, vectors):
    """Any width; for one or two additions a row the wider the better."""
    compact()
    for i in range(rows):
        at = i * step
        for v in range(vectors):
            prefetch(a, at + 8 * step + v * lanes)
        for t in range(low, high):
            place = np.intp(h[t * m + row + i])
            sign = splat(panel, np.float64(get(signs, place & 1)))
            to = ((place >> 1) - base) * (vectors * lanes)
            for v in range(vectors):
                here = to + v * lanes
                store(panel, here, fma(sign, load(a, at + v * lanes), load(panel, here)))


@_helper
def _flush(out, panel, signs, k, width, lanes, at, cols, n, fresh, last):
    """Add a block's partial sums to the result and clear them; the scale after the last."""
    compact()
    scale = splat(panel, np.float64(get(signs, 2)))
    zero = splat(panel, 0.0)
    for r in range(k):
        c = 0
        while c + lanes <= cols:
            prefetch(out, at + (r + 8) * n + c)
            value = load(panel, r * width + c)
            store(panel, r * width + c, zero)
            if not fresh:
                value = add(load(out, at + r * n + c), value)
            if last:
                value = mul(value, scale)
            store(out, at + r * n + c, value)
            c += lanes
        while c < cols:
            x = get(panel, r * width + c)
            put(panel, r * width + c, 0.0)
            if not fresh:
                x = get(out, at + r * n + c) + x
            put(out, at + r * n + c, x * get(signs, 2) if last else x)
            c += 1


@njit
def _apply(
    out, h, m, nnz, signs, data, row_step, col_step, planes, first, groups, rows_each, fresh,
    finish, vectors, lanes, start, stop,
):  # fmt: skip
    """Panels start to stop: (columns, some blocks of rows); see `stack_apply`.

    h : flat, the places of all rows in the first block of rows of the result, then in the next.
    """
    compact()
    n = out.shape[1]
    width = vectors * lanes if vectors else n
    size = signs.itemsize
    panels = -(-n // width)
    most = -(-nnz // groups)
    room = allocate(signs, most * rows_each * width + 16)
    panel = aligned(room)
    other = allocate(signs, _STRIP * width + 16)
    strip = aligned(other)
    a = pointer(signs, data)
    turn = 0
    while width << (turn + 1) <= _STRIP:
        turn += 1
    for item in range(start, stop):
        col = item % panels * width
        low = item // panels * nnz // groups
        high = (item // panels + 1) * nnz // groups
        base, k = low * rows_each, (high - low) * rows_each
        cols = min(width, n - col)
        direct = col_step == planes and cols == width
        far = 0 if direct else col_step
        near = row_step if direct else width
        i = 0
        while i + lanes <= k * width:
            store(panel, i, splat(panel, 0.0))
            i += lanes
        while i < k * width:
            put(panel, i, 0.0)
            i += 1
        row = 0
        while row < m:
            end = min(m, ((first + row) // BLOCK + 1) * BLOCK - first)
            begun = fresh and row == 0
            while row < end:
                rows = end - row if direct else min(_STRIP, end - row)
                if direct:
                    source, step = pointer(signs, data + (row * row_step + col) * size), row_step
                    ahead, shift = (row + 8) * row_step + col, 40
                else:
                    _copy(strip, a, row_step, col_step, planes, row, rows, col, cols, width, lanes)
                    source, step = strip, width
                    # the next strip of data in column order, a piece of a column for each row
                    ahead, shift = row + rows + col * col_step, turn
                if vectors == 0:
                    _scatter_narrow(
                        panel, signs, source, step, rows, h, m, low, high, row, base, width
                    )
                elif vectors == 4:
                    _scatter4(
                        panel, signs, source, step, rows, h, m, low, high, row, base, lanes, a,
                        ahead, shift, far, near,
                    )  # fmt: skip
                else:
                    _scatter_wide(
                        panel, signs, source, step, rows, h, m, low, high, row, base, lanes, vectors
                    )
                row += rows
            at = base * n + col
            _flush(out, panel, signs, k, width, lanes, at, cols, n, begun, finish and end == m)
    release(room)
    release(other)


def _signs(dtype, scale):
    return np.array([1.0, -1.0, scale], dtype)


def _result(total, shape, dtype):
    """Where sums go, as reals, and what is returned."""
    out = np.empty(shape, dtype) if total is None else total
    return out, out.view(out.real.dtype)


def _vectors(k, nnz, registers, threads):
    """Registers in a row of a panel."""
    if nnz <= 2 and registers > 4 * threads:
        return min(16, -(-registers // threads))
    if k * 4 * BYTES > _PANEL_BYTES:
        return 1
    # panels of the same width
    return -(-registers // -(-registers // 4)) if registers else 1


def stack_apply(a, h, k, first, scale, threads, total=None, finish=True):
    """The sketch (k, n) of the rows of a (m, n), whose places are h (m, nnz).

    first : where the first row stands in its block of 2^14.
    total : the sum of the blocks before, which is added to and returned.
    finish : whether the scale is multiplied.
    """
    m, nnz = h.shape
    n = a.shape[1]
    if m == 0 and total is None:
        return np.zeros((k, n), a.dtype)
    result, out = _result(total, (k, n), a.dtype)
    signs = _signs(out.dtype, scale)
    if m == 0:
        return np.multiply(result, signs[2], out=result) if finish else result
    planes = 2 if a.dtype.kind == "c" else 1
    size = out.itemsize
    lanes = BYTES // size
    if m * nnz * n * planes < _SMALL:
        threads = 1
    vectors = 0 if n * planes <= 2 else _vectors(k, nnz, -(-n * planes // lanes), threads)
    panels = -(-n * planes // (vectors * lanes)) if vectors else min(n, 1)
    # fewer panels than threads: each takes some of the blocks of rows
    groups = min(nnz, -(-threads // panels)) if 0 < panels < threads else 1
    rest = (
        h.ravel(order="F"), m, nnz, signs, a.__array_interface__["data"][0],
        a.strides[0] // size, a.strides[1] // size, planes, first, groups, k // nnz,
        total is None, finish, vectors, lanes,
    )  # fmt: skip
    run(lambda start, stop: _apply(out, *rest, start, stop), panels * groups, threads)
    return result


@_helper
def _add_entries(partial, signs, data, indices, h, nnz, low, high, planes):
    """Entries low to high of a column into a block's partial sums."""
    for at in range(low, high):
        row = np.intp(indices[at])
        for t in range(nnz):
            place = np.intp(h[row * nnz + t])
            sign, to = signs[place & 1], planes * (place >> 1)
            for p in range(planes):
                partial[to + p] += sign * data[planes * at + p]


@njit
def _apply_columns(
    out, h, nnz, signs, data, indices, indptr, first, planes, fresh, each, start, stop
):  # fmt: skip
    """Groups start to stop, of ``each`` columns of a sparse matrix; see `stack_apply_csc`."""
    k = out.shape[0]
    n = len(indptr) - 1
    # a group of columns fills cache lines of the result
    totals = np.empty((each, planes * k), out.dtype)
    partial = np.zeros(planes * k, out.dtype)
    for group in range(start, stop):
        cols = min(each, n - group * each)
        for c in range(cols):
            col = group * each + c
            total = totals[c]
            for r in range(k):
                for p in range(planes):
                    total[planes * r + p] = 0.0 if fresh else out[r, planes * col + p]
            at = np.intp(indptr[col])
            last = np.intp(indptr[col + 1])
            while at < last:
                begin = at
                end = ((first + np.intp(indices[at])) // BLOCK + 1) * BLOCK - first
                while at < last and indices[at] < end:
                    at += 1
                _add_entries(partial, signs, data, indices, h, nnz, begin, at, planes)
                if (at - begin) * nnz * 4 > k:
                    for i in range(planes * k):
                        total[i] += partial[i]
                        partial[i] = 0.0
                    continue
                # few of many: each place once, what was not touched would add zero
                for i in range(begin, at):
                    for t in range(nnz):
                        to = planes * (np.intp(h[np.intp(indices[i]) * nnz + t]) >> 1)
                        for p in range(planes):
                            total[to + p] += partial[to + p]
                            partial[to + p] = 0.0
        base = group * each * planes
        done = 0
        if planes == 1 and cols == each:
            # squares of a register's lanes, so that rows of the result are written whole
            done = k // each * each
            for c in range(each):
                for r in range(done):
                    totals[c, r] *= signs[2]
            for r in range(0, done, each):
                transpose(totals, r, k, out, r * n + base, n)
        for r in range(done, k):
            for c in range(cols):
                for p in range(planes):
                    out[r, base + planes * c + p] = totals[c, planes * r + p] * signs[2]


def stack_apply_csc(data, indices, indptr, h, k, first, scale, threads, total=None, finish=True):
    """The same of a sparse matrix whose columns are stored, rows ascending in each."""
    n = len(indptr) - 1
    result, out = _result(total, (k, n), data.dtype)
    signs = _signs(out.dtype, scale if finish else 1.0)
    planes = 2 if data.dtype.kind == "c" else 1
    work = len(data) * h.shape[1] * planes
    # a row's places lie together, because rows come in no order
    nnz = h.shape[1]
    rest = (
        h.ravel(),
        nnz,
        signs,
        data.view(out.dtype),
        indices,
        indptr,
        first,
        planes,
        total is None,
    )
    threads = threads if work + result.size >= _SMALL else 1
    each = BYTES // out.itemsize
    run(lambda start, stop: _apply_columns(out, *rest, each, start, stop), -(-n // each), threads)
    return result


@njit
def _gather(out, y, h, nnz, signs, lanes, start, stop):
    """Rows start to stop of the transpose applied to y; h as in `_apply`."""
    m, n = out.shape
    scale = splat(y, np.float64(signs[2]))
    zero = splat(y, 0.0)
    for i in range(start, stop):
        c = 0
        while c + lanes <= n:
            total = zero
            for t in range(nnz):
                place = np.intp(h[t * m + i])
                sign = splat(y, np.float64(get(signs, place & 1)))
                total = fma(sign, load(y, (place >> 1) * n + c), total)
            store(out, i * n + c, mul(total, scale))
            c += lanes
        while c < n:
            x = signs[0] - signs[0]
            for t in range(nnz):
                place = np.intp(h[t * m + i])
                x += get(signs, place & 1) * get(y, (place >> 1) * n + c)
            put(out, i * n + c, x * signs[2])
            c += 1


def stack_gather(y, h, scale, threads):
    """The transpose times y (k, n): rows (m, n) that are sums of ``nnz`` rows of y, in order."""
    result = np.empty((h.shape[0], y.shape[1]), y.dtype)
    out, source = (x.view(x.real.dtype) for x in (result, y))
    signs = _signs(out.dtype, scale)
    if h.size * source.shape[1] < _SMALL:
        threads = 1
    lanes = BYTES // out.itemsize
    rest = h.ravel(order="F"), h.shape[1], signs, lanes
    run(lambda start, stop: _gather(out, source, *rest, start, stop), h.shape[0], threads)
    return result
