"""Random numbers that are functions of where they stand: Philox4x32-10 with one counter layout.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The counter is
(j low, j high, sub, tag). A block of calls fills one row per word, so that every loop runs along
lanes. Normals use nothing but IEEE operations in a fixed order, so that any machine computes the
same bits. Floor: 20 vector products per 8 calls, 0.6 cycles a word; a pair of normals costs one
division and one square root more.
"""

import functools
import math

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._threads import run

# Without `contract`: a fused product would round differently from machine to machine.
_njit = functools.partial(
    numba.njit, cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True
)
_helper = functools.partial(_njit, no_cpython_wrapper=True)

# Calls of one block: its words (8 KB) and normals (8 KB) stay in the first-level cache.
_CALLS = 512
# Fewer numbers than this cost less than waking a second thread.
_SMALL = 1 << 17

_ONE = np.uint64(0x3FF0000000000000)
_ROOT_HALF = np.uint64(0x3FE6A09E667F3BCD)
_MANTISSA = np.uint64(0xFFFFFFFFFFFFF)
_TWO_52 = np.uint64(0x4330000000000000)


@intrinsic
def _as_double(typingctx, x):
    """The double with these bits."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), codegen


@intrinsic
def _as_bits(typingctx, x):
    """The bits of a double."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), codegen


@_helper
def _philox(c0, c1, c2, c3, k0, k1):
    """The four words of one call."""
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * np.uint64(c0)
        p1 = np.uint64(0xCD9E8D57) * np.uint64(c2)
        c0 = np.uint32(np.uint32(p1 >> np.uint64(32)) ^ c1 ^ k0)
        c2 = np.uint32(np.uint32(p0 >> np.uint64(32)) ^ c3 ^ k1)
        c1 = np.uint32(p1)
        c3 = np.uint32(p0)
        k0 = np.uint32(k0 + np.uint32(0x9E3779B9))
        k1 = np.uint32(k1 + np.uint32(0xBB67AE85))
    return c0, c1, c2, c3


@_helper
def _calls(words, count, k0, k1, j, sub, tag):
    """Words (4, >= count) of the calls at j, j + 1, ..."""
    for i in range(np.uint64(count)):
        at = np.uint64(j + np.uint64(i))
        w0, w1, w2, w3 = _philox(
            np.uint32(at), np.uint32(at >> np.uint64(32)), np.uint32(sub), np.uint32(tag),
            np.uint32(k0), np.uint32(k1),
        )  # fmt: skip
        words[0, i] = w0
        words[1, i] = w1
        words[2, i] = w2
        words[3, i] = w3


@_helper
def _fraction(high, low):
    """A double in [1, 2) of 52 random bits."""
    return _as_double((np.uint64(high) << np.uint64(20)) | (np.uint64(low) >> np.uint64(12)) | _ONE)


@_helper
def _pair(w0, w1, w2, w3):
    """Two independent normals of one call: Box and Muller's, with polynomials of our own.

    Minimax over their intervals to 3e-16, 3e-18, 5e-19; linalgk/sketch/_ops.py says the same in
    NumPy's words, and the CUDA twin in C's.
    """
    u = 2.0 - _fraction(w0, w1)
    # u = 2^e f with f between sqrt(1/2) and sqrt(2)
    h = _as_bits(u) + (_ONE - _ROOT_HALF)
    e = _as_double((h >> np.uint64(52)) | _TWO_52) - 4503599627371519.0
    f = _as_double((h & _MANTISSA) + _ROOT_HALF)
    s = (f - 1.0) / (f + 1.0)
    z = s * s
    p = 0.14617872952506913
    p = p * z + 0.15331596932448704
    p = p * z + 0.18182893219785845
    p = p * z + 0.222222110728223
    p = p * z + 0.28571428626399387
    p = p * z + 0.39999999999898445
    p = p * z + 0.666666666666667
    r = math.sqrt(-2.0 * (e * 0.6931471805599453 + s * (2.0 + z * p)))
    # an angle of an eighth of the circle to either side; the rest is a sign and an exchange
    y = _fraction(w2, w3) - 1.5
    t = y * y
    p = 5.633721005314096e-08
    p = p * t - 3.5986417543868745e-06
    p = p * t + 0.00016044115029163048
    p = p * t - 0.004681754132282415
    p = p * t + 0.07969262624603957
    p = p * t - 0.6459640975062443
    p = p * t + 1.5707963267948966
    sine = _as_bits(r * (y * p))
    p = -6.329400451286434e-09
    p = p * t + 4.7106784363094807e-07
    p = p * t - 2.5202039028895784e-05
    p = p * t + 0.000919260274546957
    p = p * t - 0.02086348076334078
    p = p * t + 0.2536695079010478
    p = p * t - 1.2337005501361697
    cosine = _as_bits(r * (1.0 + t * p)) ^ (np.uint64(w3) << np.uint64(63))
    bit = (np.uint64(w3) >> np.uint64(1)) & np.uint64(1)
    exchange = (cosine ^ sine) & (np.uint64(0) - bit)
    return _as_double(cosine ^ exchange), _as_double(sine ^ exchange)


@_helper
def _pairs(z, words, count):
    for i in range(np.uint64(count)):
        first, second = _pair(words[0, i], words[1, i], words[2, i], words[3, i])
        z[0, i] = first
        z[1, i] = second


# --- Lines: the n-th number of a stream ----------------------------------------------------------


@_njit
def _words(pairs, k0, k1, tag, start, stop):
    """Calls start to stop, two pairs of words each, the first of a pair in its low half.

    Words stay in 64-bit lanes, where products need them: high halves are rubbish until masked.
    """
    low, half, one = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(1)
    for i in range(np.uint64(stop - start)):
        c0 = np.uint64(np.uint64(start) + i)
        c1 = c0 >> half
        c2 = np.uint64(0)
        c3 = np.uint64(tag)
        key0, key1 = np.uint64(k0), np.uint64(k1)
        for _ in range(10):
            p0 = (c0 & low) * np.uint64(0xD2511F53)
            p1 = (c2 & low) * np.uint64(0xCD9E8D57)
            c0 = (p1 >> half) ^ c1 ^ key0
            c2 = (p0 >> half) ^ c3 ^ key1
            c1 = p1
            c3 = p0
            key0 = key0 + np.uint64(0x9E3779B9)
            key1 = key1 + np.uint64(0xBB67AE85)
        pairs[i + i] = (c0 & low) | (c1 << half)
        pairs[i + i + one] = (c2 & low) | (c3 << half)


@_helper
def _fractions(z, words, count):
    for i in range(np.uint64(count)):
        z[0, i] = _fraction(words[0, i], words[1, i]) - 1.0
        z[1, i] = _fraction(words[2, i], words[3, i]) - 1.0


@_njit
def _doubles(out, normal, k0, k1, tag, start, stop):
    """Calls start to stop, two numbers each: normals, or uniform ones."""
    words = np.empty((4, _CALLS), np.uint32)
    z = np.empty((2, _CALLS), np.float64)
    two = np.uint64(2)
    for at in range(start, stop, _CALLS):
        count = min(_CALLS, stop - at)
        _calls(words, count, k0, k1, np.uint64(at), 0, tag)
        if normal:
            _pairs(z, words, count)
        else:
            _fractions(z, words, count)
        base = np.uint64(at - start) * two
        for i in range(np.uint64(count)):
            out[base + two * i] = z[0, i]
            out[base + two * i + np.uint64(1)] = z[1, i]


def _uniforms(out, *rest):
    _doubles(out, False, *rest)


def _normals(out, *rest):
    _doubles(out, True, *rest)


@_njit
def _signs(out, k0, k1, tag, start, stop):
    """Bits of calls start to stop: 128 signs each, bit 1 for -1."""
    words = np.empty((4, _CALLS), np.uint32)
    for at in range(start, stop, _CALLS):
        count = min(_CALLS, stop - at)
        _calls(words, count, k0, k1, np.uint64(at), 0, tag)
        for i in range(count):
            for w in range(4):
                word = words[w, i]
                base = np.uint64(128 * (at - start + i) + 32 * w)
                for bit in range(np.uint64(32)):
                    one = np.float64((word >> np.uint32(bit)) & np.uint32(1))
                    out[base + bit] = 1.0 - (one + one)


def _line(fill, each, dtype, n, k0, k1, start, tag, threads):
    """Numbers start to start + n of a line whose calls give ``each``."""
    first, last = start // each, -(-(start + n) // each)
    out = np.empty((last - first) * each, dtype)
    # pieces of whole blocks, so that threads do not meet in a cache line
    pieces = -(-(last - first) // _CALLS)

    def part(low, high):
        low, high = first + low * _CALLS, min(first + high * _CALLS, last)
        fill(out[(low - first) * each : (high - first) * each], k0, k1, tag, low, high)

    run(part, pieces, threads if n >= _SMALL else 1)
    return out[start - first * each : start - first * each + n]


def words(like, n, k0, k1, start, tag, threads):
    """32-bit words ``start`` to ``start + n`` of a stream."""
    first = start // 4 * 4
    pairs = _line(_words, 2, np.uint64, -(-(start + n - first) // 4) * 2, k0, k1, first // 2, tag,
                  threads)  # fmt: skip
    return pairs.view(np.uint32)[start - first :][:n]


def uniforms(like, n, k0, k1, start, tag, threads):
    """Doubles in [0, 1), multiples of 2^-52."""
    return _line(_uniforms, 2, np.float64, n, k0, k1, start, tag, threads)


def normals(like, n, k0, k1, start, tag, threads):
    """Normals in the real dtype of ``like``, rounded from float64."""
    return _line(_normals, 2, like.real.dtype, n, k0, k1, start, tag, threads)


def signs(like, n, k0, k1, start, tag, threads):
    """+1 and -1 in the real dtype of ``like``."""
    return _line(_signs, 128, like.real.dtype, n, k0, k1, start, tag, threads)


@_helper
def _wide(a, b):
    """The 128-bit product of two 64-bit numbers: high and low half."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1 = a & mask, a >> half
    b0, b1 = b & mask, b >> half
    low = a0 * b0
    middle = a1 * b0 + (low >> half)
    other = a0 * b1 + (middle & mask)
    high = a1 * b1 + (middle >> half) + (other >> half)
    return high, (other << half) | (low & mask)


@_njit
def _integers(out, high, k0, k1, tag, start, stop):
    """Lemire, "Fast random integer generation in an interval" (2019): exact, by rejection."""
    threshold = (np.uint64(0) - high) % high
    for i in range(start, stop):
        at = np.uint64(i)
        attempt = np.uint32(0)
        while True:
            w0, w1, w2, w3 = _philox(
                np.uint32(at), np.uint32(at >> np.uint64(32)), attempt, np.uint32(tag),
                np.uint32(k0), np.uint32(k1),
            )  # fmt: skip
            value, rest = _wide((np.uint64(w0) << np.uint64(32)) | np.uint64(w1), high)
            if rest >= threshold:
                break
            value, rest = _wide((np.uint64(w2) << np.uint64(32)) | np.uint64(w3), high)
            if rest >= threshold:
                break
            attempt = np.uint32(attempt + np.uint32(1))
        out[i - start] = np.int64(value)


def integers(like, n, high, k0, k1, start, tag, threads):
    """Integers in [0, high), each equally likely."""
    out = np.empty(n, np.int64)

    def part(low, stop):
        _integers(out[low:stop], np.uint64(high), k0, k1, tag, start + low, start + stop)

    run(part, n, threads if n >= _SMALL else 1)
    return out


# --- Tiles: rows and columns of an operator ------------------------------------------------------


@_njit
def _normal_tile(out, k0, k1, row, col, tag, start, stop):
    """Pairs of rows start to stop: out[r, c] is number row + r of data row col + c."""
    words = np.empty((4, _CALLS), np.uint32)
    z = np.empty((2, _CALLS), np.float64)
    rows, cols = out.shape
    for pair in range(start, stop):
        top = 2 * pair - row
        for at in range(0, cols, _CALLS):
            count = min(_CALLS, cols - at)
            _calls(words, count, k0, k1, np.uint64(col + at), pair, tag)
            _pairs(z, words, count)
            for half in range(2):
                if 0 <= top + half < rows:
                    for i in range(count):
                        out[top + half, at + i] = z[half, i]


def normal_tile(like, rows, cols, k0, k1, row, col, tag, threads, out=None):
    """Normals (rows, cols) of an operator from entry (row, col) on."""
    out = np.empty((rows, cols), like.real.dtype) if out is None else out
    first, last = row // 2, -(-(row + rows) // 2)
    threads = threads if rows * cols >= _SMALL else 1
    run(
        lambda low, high: _normal_tile(out, k0, k1, row, col, tag, first + low, first + high),
        last - first,
        threads,
    )
    return out


@_njit
def _sign_tile(out, k0, k1, row, col, tag, start, stop):
    """Columns start to stop."""
    words = np.empty((4, _CALLS), np.uint32)
    rows = out.shape[0]
    for group in range(row // 128, -(-(row + rows) // 128)):
        low = max(128 * group - row, 0)
        high = min(128 * group + 128 - row, rows)
        for at in range(start, stop, _CALLS):
            count = min(_CALLS, stop - at)
            _calls(words, count, k0, k1, np.uint64(col + at), group, tag)
            for r in range(low, high):
                bit = (row + r) % 128
                shift = np.uint32(bit % 32)
                for i in range(count):
                    one = np.float64((words[bit // 32, i] >> shift) & np.uint32(1))
                    out[r, at + i] = 1.0 - (one + one)


def sign_tile(like, rows, cols, k0, k1, row, col, tag, threads, out=None):
    """Signs (rows, cols) of an operator from entry (row, col) on."""
    out = np.empty((rows, cols), like.real.dtype) if out is None else out
    # along the columns, because few operators have many groups of 128 rows
    run(
        lambda low, high: _sign_tile(out, k0, k1, row, col, tag, low, high),
        cols,
        threads if rows * cols >= _SMALL else 1,
    )
    return out


@_njit
def _hashes(out, k0, k1, col, tag, buckets, start, stop):
    """Places of data rows start to stop: bucket and sign for each of the blocks of rows."""
    words = np.empty((4, _CALLS), np.uint32)
    nnz = out.shape[1]
    for at in range(start, stop, _CALLS):
        count = min(_CALLS, stop - at)
        for group in range(-(-nnz // 4)):
            _calls(words, count, k0, k1, np.uint64(col + at), group, tag)
            for w in range(min(4, nnz - 4 * group)):
                block = 4 * group + w
                base = np.uint64(block) * np.uint64(buckets)
                for i in range(count):
                    word = np.uint64(words[w, i])
                    place = base + (((word >> np.uint64(1)) * np.uint64(buckets)) >> np.uint64(31))
                    out[at + i, block] = np.uint32((place << np.uint64(1)) | (word & np.uint64(1)))


def stack_hashes(like, m, k0, k1, col, tag, nnz, buckets, threads):
    """``bucket << 1 | negative`` (m, nnz) of the data rows from ``col`` on."""
    # one column after the other, as they are made and read
    out = np.empty((m, nnz), np.uint32, order="F")
    pieces = -(-m // _CALLS)

    def part(low, high):
        _hashes(out, k0, k1, col, tag, buckets, low * _CALLS, min(high * _CALLS, m))

    run(part, pieces, threads if m * nnz >= _SMALL else 1)
    return out
