"""A Chebyshev-Tucker function at scattered points, a block of points after another.

Points lie across vectors. For a block the polynomials come by recurrence, the factors' values by
the microkernel of `_tiles`, and so does the contraction of the core with its last modes; over the
first ones is summed as rows come. Whatever the number of variables, the kernel has four places for
them: who is not there is the constant 1. Floor: ``sum m_k r_k + prod r_k`` FMAs for each point at
two FMA units of each core.
"""

import functools

import numpy as np

from ._preset import helper, njit
from ._threads import run
from ._tiles import product

# Points of a block, and rows of a part of the core that is contracted at a time: both fit a core's
# second cache with the table of polynomials.
POINTS, ROWS = 64, 256


@helper
def _reduced(w, first, e, s):
    """``s = sum_b e[b] w[first + b]``, by points."""
    for p in range(POINTS):
        s[p] = 0
    for b in range(e.shape[0]):
        for p in range(POINTS):
            s[p] += e[b, p] * w[first + b, p]


@helper
def _added(total, e, s):
    for p in range(POINTS):
        total[p] += e[p] * s[p]


@njit
def _sweep(like, x, row, places, sizes, core, with_slopes, y, start, stop):
    size, n = like.itemsize, x.shape[1]
    ra, rb, rc, rd = sizes[0, 1], sizes[1, 1], sizes[2, 1], sizes[3, 1]
    inner, step = rc * rd, max(ROWS // rb, 1)
    polynomials = np.empty((max(sizes[:, 0].max(), 2), POINTS), like.dtype)
    offsets = np.zeros(5, np.int64)
    for k in range(4):
        offsets[k + 1] = offsets[k] + sizes[k, 1]
    # values of the factors and of their derivatives
    e = np.ones((offsets[4], POINTS), like.dtype)
    de = np.zeros((offsets[4] if with_slopes else 0, POINTS), like.dtype)
    joined = np.empty((inner, POINTS), like.dtype)
    w = np.empty((min(step, ra) * rb, POINTS), like.dtype)
    t, s = np.zeros(POINTS, like.dtype), np.empty(POINTS, like.dtype)
    totals = np.empty((5, POINTS), like.dtype)
    ea, eb = e[: offsets[1]], e[offsets[1] : offsets[2]]
    for block in range(start, stop):
        first = block * POINTS
        count = min(POINTS, n - first)
        for k in range(4):
            if row[k] < 0:
                continue
            for p in range(count):
                t[p] = x[row[k], first + p]
            m, r = sizes[k]
            for p in range(POINTS):
                polynomials[0, p] = 1
                polynomials[1, p] = t[p]
            for j in range(2, m):
                for p in range(POINTS):
                    polynomials[j, p] = 2 * t[p] * polynomials[j - 1, p] - polynomials[j - 2, p]
            for i in range(2 if with_slopes else 1):
                target = e if i == 0 else de
                product(
                    like, places[i, k], 1, r, polynomials.ctypes.data, POINTS, m,
                    target.ctypes.data + offsets[k] * POINTS * size, POINTS, r, POINTS, 0,
                )  # fmt: skip
        totals[:] = 0
        # the third and fourth variable's derivatives change what the core meets
        for kind in range(3 if with_slopes else 1):
            if kind == 1 and row[2] < 0:
                continue
            third = de if kind == 1 else e
            fourth = de if kind == 2 else e
            for c in range(rc):
                for d in range(rd):
                    for p in range(POINTS):
                        joined[c * rd + d, p] = third[offsets[2] + c, p] * fourth[offsets[3] + d, p]
            target = totals[0] if kind == 0 else totals[2 + kind]
            for a0 in range(0, ra, step):
                many = min(step, ra - a0)
                product(
                    like, core + a0 * rb * inner * size, inner, 1, joined.ctypes.data, POINTS,
                    inner, w.ctypes.data, POINTS, many * rb, POINTS, 0,
                )  # fmt: skip
                for a in range(many):
                    _reduced(w, a * rb, eb, s)
                    _added(target, ea[a0 + a], s)
                    if with_slopes and kind == 0:
                        _added(totals[1], de[a0 + a], s)
                        _reduced(w, a * rb, de[offsets[1] : offsets[2]], s)
                        _added(totals[2], ea[a0 + a], s)
        for p in range(count):
            y[0, first + p] = totals[0, p]
        if with_slopes:
            for k in range(4):
                if row[k] >= 0:
                    for p in range(count):
                        y[1 + row[k], first + p] = totals[1 + k, p]


def tucker_evaluate(x, core, factors, slopes=(), threads=1):
    """As `linalgk.tensor._ops.evaluate`, for C-contiguous arrays of one dtype."""
    d, n = x.shape
    y = np.empty((1 + len(slopes), n), x.dtype)
    row, sizes = np.full(4, -1), np.ones((4, 2), np.int64)
    places = np.zeros((2, 4), np.int64)
    for k, place in enumerate(PLACES[d]):
        row[place], sizes[place] = k, factors[k].shape
        for i, given in enumerate((factors, slopes)[: 2 if slopes else 1]):
            places[i, place] = given[k].ctypes.data

    def part(start, stop):
        _sweep(
            _like(x.dtype), x, row, places, sizes, core.ctypes.data, bool(slopes), y, start, stop
        )

    run(part, -(-n // POINTS), threads)
    return y


# Where the variables of a function stand: of three, two are summed over as rows come.
PLACES = {1: (3,), 2: (1, 3), 3: (0, 1, 3), 4: (0, 1, 2, 3)}


@functools.cache
def _like(dtype):
    return np.empty(0, dtype)
