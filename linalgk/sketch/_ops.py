"""Primitives of the room: what each computes, in NumPy's or array-API words, and where kernels are.

The first argument says library, device and dtype; of random numbers it is only an example. A key is
two integers, a counter ``(j low, j high, sub, tag)``. Results are bits, not numbers near them: each
kernel gives what its reference gives, additions in the same order.
"""

import functools
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Implementation, Op
from linalgk.sketch._hadamard_ops import FWHT, SRHT

ALL = ("float32", "float64", "complex64", "complex128")
# Data rows whose sums are kept apart.
BLOCK = 1 << 14

Words = tuple[Any, Any, Any, Any]


# --- Random numbers ------------------------------------------------------------------------------


def philox(j: Any, sub: Any, tag: int, k0: int, k1: int) -> Words:
    """Philox4x32-10: four words, as uint64, of the calls at counters j and sub."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    j, sub = np.asarray(j, np.uint64), np.asarray(sub, np.uint64)
    c0, c1, c2 = j & low, j >> half, sub & low
    c3, key0, key1 = np.uint64(tag), k0, k1
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c2 = (p1 >> half) ^ c1 ^ np.uint64(key0), (p0 >> half) ^ c3 ^ np.uint64(key1)
        c1, c3 = p1 & low, p0 & low
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def fraction(high: Any, low: Any) -> Any:
    """Doubles in [1, 2) of 52 random bits."""
    bits = (high << np.uint64(20)) | (low >> np.uint64(12)) | np.uint64(0x3FF0000000000000)
    return bits.view(np.float64)


def _polynomial(x: Any, *coeffs: float) -> Any:
    value = np.full_like(x, coeffs[0])
    for c in coeffs[1:]:
        value = value * x + c
    return value


def normal_pair(w0: Any, w1: Any, w2: Any, w3: Any) -> tuple[Any, Any]:
    """Two independent normals: ``r cos`` and ``r sin``, ``r^2 = -2 log u``, by IEEE operations.

    The logarithm is that of 2^e f, ``e log 2 + 2 artanh s`` with s = (f - 1)/(f + 1) and f within
    a factor of sqrt(2) of one; the angle lies within an eighth of the circle of zero, a sign and an
    exchange make it any. Polynomials are minimax, of relative errors 3e-16, 3e-18 and 5e-19.
    """
    u = 2.0 - fraction(w0, w1)
    one, root = np.uint64(0x3FF0000000000000), np.uint64(0x3FE6A09E667F3BCD)
    h = u.view(np.uint64) + (one - root)
    e = (h >> np.uint64(52)).astype(np.float64) - 1023.0
    f = ((h & np.uint64(0xFFFFFFFFFFFFF)) + root).view(np.float64)
    s = (f - 1.0) / (f + 1.0)
    z = s * s
    p = _polynomial(
        z, 0.14617872952506913, 0.15331596932448704, 0.18182893219785845, 0.222222110728223,
        0.28571428626399387, 0.39999999999898445, 0.666666666666667,
    )  # fmt: skip
    r = np.sqrt(-2.0 * (e * 0.6931471805599453 + s * (2.0 + z * p)))
    y = fraction(w2, w3) - 1.5
    t = y * y
    sine = y * _polynomial(
        t, 5.633721005314096e-08, -3.5986417543868745e-06, 0.00016044115029163048,
        -0.004681754132282415, 0.07969262624603957, -0.6459640975062443, 1.5707963267948966,
    )  # fmt: skip
    cosine = 1.0 + t * _polynomial(
        t, -6.329400451286434e-09, 4.7106784363094807e-07, -2.5202039028895784e-05,
        0.000919260274546957, -0.02086348076334078, 0.2536695079010478, -1.2337005501361697,
    )  # fmt: skip
    sine, cosine = r * sine, r * cosine
    cosine = np.where(w3 & np.uint64(1), -cosine, cosine)
    swap = (w3 & np.uint64(2)) != 0
    return np.where(swap, sine, cosine), np.where(swap, cosine, sine)


def _given(x: Any, like: Any, dtype: str = "") -> Any:
    """A NumPy array in the library and on the device of ``like``."""
    if dtype:
        x = x.astype(dtype)
    return _xp.from_numpy(x, _xp.namespace(like), like=like)


def _real(like: Any) -> str:
    return _xp.REAL[_xp.dtype_name(like)]


def _line(n: int, start: int, each: int, make: Any) -> Any:
    """Numbers start to start + n of calls that give ``each``."""
    first = start // each
    columns = make(np.arange(first, -(-(start + n) // each), dtype=np.uint64))
    return np.stack(columns, axis=-1).reshape(-1)[start - first * each :][:n]


def words(like: Any, n: int, k0: int, k1: int, start: int, tag: int, threads: int = 1) -> Any:
    """32-bit words ``start`` to ``start + n`` of a stream."""
    line = _line(n, start, 4, lambda j: philox(j, 0, tag, k0, k1))
    return _given(line.astype(np.uint32), like)


def uniforms(like: Any, n: int, k0: int, k1: int, start: int, tag: int, threads: int = 1) -> Any:
    """Doubles in [0, 1), multiples of 2^-52."""

    def pair(j: Any) -> tuple[Any, Any]:
        w = philox(j, 0, tag, k0, k1)
        return fraction(w[0], w[1]) - 1.0, fraction(w[2], w[3]) - 1.0

    return _given(_line(n, start, 2, pair), like)


def normals(like: Any, n: int, k0: int, k1: int, start: int, tag: int, threads: int = 1) -> Any:
    """Normals in the real dtype of ``like``, rounded from float64."""
    line = _line(n, start, 2, lambda j: normal_pair(*philox(j, 0, tag, k0, k1)))
    return _given(line, like, _real(like))


def _bits(w: Words) -> list[Any]:
    return [(x >> np.uint64(bit)) & np.uint64(1) for x in w for bit in range(32)]


def signs(like: Any, n: int, k0: int, k1: int, start: int, tag: int, threads: int = 1) -> Any:
    """+1 and -1 in the real dtype of ``like``."""
    line = _line(n, start, 128, lambda j: _bits(philox(j, 0, tag, k0, k1)))
    return _given(1.0 - 2.0 * line, like, _real(like))


def integers(
    like: Any, n: int, high: int, k0: int, k1: int, start: int, tag: int, threads: int = 1
) -> Any:
    """Integers in [0, high), each equally likely: Lemire's product, with rejection.

    Word pairs of the calls (j, 0), (j, 1), ... are tried in turn for the j-th number.
    """
    threshold = ((1 << 64) - high) % high
    found = []
    for j in range(start, start + n):
        sub, value, rest = 0, 0, -1
        while rest < threshold:
            w = [int(x) for x in philox(j, sub // 2, tag, k0, k1)]
            product = ((w[2 * (sub % 2)] << 32) | w[2 * (sub % 2) + 1]) * high
            value, rest, sub = product >> 64, product & ((1 << 64) - 1), sub + 1
        found.append(value)
    return _given(np.array(found, np.int64), like)


def normal_tile(
    like: Any, rows: int, cols: int, k0: int, k1: int, row: int, col: int, tag: int,
    threads: int = 1,
) -> Any:  # fmt: skip
    """Normals (rows, cols) of an operator from entry (row, col) on, in the dtype of ``like``."""
    pairs = np.arange(row // 2, -(-(row + rows) // 2), dtype=np.uint64)
    j = np.arange(col, col + cols, dtype=np.uint64)
    both = normal_pair(*philox(j, pairs[:, None], tag, k0, k1))
    tile = np.stack(both, axis=1).reshape(2 * pairs.size, cols)[row % 2 :][:rows]
    return _given(tile, like, _real(like))


def sign_tile(
    like: Any, rows: int, cols: int, k0: int, k1: int, row: int, col: int, tag: int,
    threads: int = 1,
) -> Any:  # fmt: skip
    """Signs (rows, cols) of an operator from entry (row, col) on."""
    groups = np.arange(row // 128, -(-(row + rows) // 128), dtype=np.uint64)
    j = np.arange(col, col + cols, dtype=np.uint64)
    bits = _bits(philox(j, groups[:, None], tag, k0, k1))
    tile = np.stack(bits, axis=1).reshape(128 * groups.size, cols)[row % 128 :][:rows]
    return _given(1.0 - 2.0 * tile, like, _real(like))


def stack_hashes(
    like: Any, m: int, k0: int, k1: int, col: int, tag: int, nnz: int, buckets: int,
    threads: int = 1,
) -> Any:  # fmt: skip
    """``row << 1 | negative`` (m, nnz): where data rows from ``col`` on go, block by block."""
    groups = np.arange(-(-nnz // 4), dtype=np.uint64)
    j = np.arange(col, col + m, dtype=np.uint64)
    w = np.stack(philox(j[:, None], groups, tag, k0, k1), axis=-1)
    w = w.reshape(m, 4 * groups.size)[:, :nnz]
    b, one = np.uint64(buckets), np.uint64(1)
    place = np.arange(nnz, dtype=np.uint64) * b + (((w >> one) * b) >> np.uint64(31))
    return _given(((place << one) | (w & one)).astype(np.uint32), like)


# --- Sketches ------------------------------------------------------------------------------------


def stack_apply(
    a: Any, h: Any, k: int, first: int, scale: float, threads: int = 1, total: Any = None,
    finish: bool = True,
) -> Any:  # fmt: skip
    """The sketch (k, n) of the rows of a (m, n), whose places are h (m, nnz).

    Within a block of 2^14 data rows additions come in ascending row order, from zero; sums of
    blocks are added in ascending order; the scale is multiplied last.

    first : where the first row stands in its block.
    total : the sum of the blocks before, which is added to.
    finish : whether the scale is multiplied.
    """
    xp = _xp.namespace(a)
    places = _xp.to_numpy(h)
    m, n = a.shape
    begin = 0
    while begin < m:
        end = min(m, ((first + begin) // BLOCK + 1) * BLOCK - first)
        partial = _rows_by_place(xp, a[begin:end, :], places[begin:end], k)
        total = partial if total is None else total + partial
        begin = end
    if total is None:
        total = zeros(xp, a, (k, n))
    return total * scalar(xp, scale, total) if finish else total


def scalar(xp: Any, value: float, like: Any) -> Any:
    """A number in the dtype of an array, where a Python float would be rounded late."""
    if xp is np:
        return like.real.dtype.type(value)
    return value


def zeros(xp: Any, like: Any, shape: tuple[int, ...]) -> Any:
    """Zeros in the library, dtype and device of ``like``."""
    if xp is np:
        return np.zeros(shape, like.dtype)
    device = _xp._compat("array_api_compat").device(like)
    return xp.zeros(shape, dtype=like.dtype, device=device)


def _rows_by_place(xp: Any, a: Any, places: Any, k: int) -> Any:
    """Sums of one block: each result row takes its data rows in turn, all result rows at once."""
    rows, nnz = places.shape
    where = (places >> 1).astype(np.int64).ravel()
    order = np.argsort(where, kind="stable")
    counts = np.bincount(where, minlength=k)
    deepest = int(counts.max(initial=0))
    rank = np.arange(rows * nnz) - np.repeat(np.cumsum(counts) - counts, counts)
    source = np.full((deepest, k), rows)
    source[rank, where[order]] = order // nnz
    sign = np.ones((deepest, k))
    sign[rank, where[order]] = 1.0 - 2.0 * (places.ravel()[order] & 1)
    padded = xp.concat([a, zeros(xp, a, (1, a.shape[1]))])
    total = zeros(xp, a, (k, a.shape[1]))
    for index, s in zip(source, sign, strict=True):
        taken = xp.take(padded, _given(index, a), axis=0)
        total = total + taken * _given(s, a, _real(a))[:, None]
    return total


def stack_apply_csc(
    data: Any, indices: Any, indptr: Any, h: Any, k: int, first: int, scale: float,
    threads: int = 1, total: Any = None, finish: bool = True,
) -> Any:  # fmt: skip
    """The same of a sparse matrix whose columns are stored, rows ascending in each."""
    m, n = h.shape[0], len(indptr) - 1
    dense = np.zeros((m, n), data.dtype)
    for col in range(n):
        part = slice(indptr[col], indptr[col + 1])
        dense[indices[part], col] = data[part]
    return stack_apply(dense, h, k, first, scale, threads, total, finish)


def stack_gather(y: Any, h: Any, scale: float, threads: int = 1) -> Any:
    """The transpose times y (k, n): rows (m, n), each a sum of ``nnz`` rows of y in order."""
    xp = _xp.namespace(y)
    places = _xp.to_numpy(h)
    total = zeros(xp, y, (places.shape[0], y.shape[1]))
    for column in places.T:
        sign = _given(1.0 - 2.0 * (column & 1), y, _real(y))
        taken = xp.take(y, _given((column >> 1).astype(np.int64), y), axis=0)
        total = total + taken * sign[:, None]
    return total * scalar(xp, scale, total)


def _entries(like: Any, rows: int, cols: int, normal: bool, *where: int) -> Any:
    # by the op, so that a device makes its own tiles
    return (NORMAL_TILE if normal else SIGN_TILE)(like, rows, cols, *where, 1)


def dense_apply(
    a: Any, k: int, normal: bool, k0: int, k1: int, col: int, tag: int, threads: int = 1,
    total: Any = None,
) -> Any:  # fmt: skip
    """``total`` plus the rows a (m, n) sketched: k rows, entries of variance one.

    normal : whether entries are normal, else signs.
    col : the number of the first data row.
    """
    xp = _xp.namespace(a)
    total = zeros(xp, a, (k, a.shape[1])) if total is None else total
    for at in range(0, a.shape[0], BLOCK):
        rows = a[at : min(at + BLOCK, a.shape[0]), :]
        tile = _entries(a, k, rows.shape[0], normal, k0, k1, 0, col + at, tag)
        total = total + xp.astype(tile, a.dtype) @ rows
    return total


def dense_gather(
    y: Any, m: int, normal: bool, k0: int, k1: int, col: int, tag: int, threads: int = 1
) -> Any:
    """The transpose times y (k, n): rows (m, n) from number ``col`` on."""
    xp = _xp.namespace(y)
    parts = [zeros(xp, y, (0, y.shape[1]))]
    for at in range(0, m, BLOCK):
        tile = _entries(y, y.shape[0], min(BLOCK, m - at), normal, k0, k1, 0, col + at, tag)
        parts.append(xp.astype(tile, y.dtype).T @ y)
    return xp.concat(parts)


# --- Records -------------------------------------------------------------------------------------


def _cpu(module: str, symbol: str, dtypes: tuple[str, ...] = ALL) -> Implementation:
    return Implementation("cpu", dtypes, f"linalgk_kernels.cpu.sketch_{module}", symbol)


def _cuda(module: str, symbol: str, dtypes: tuple[str, ...] = ALL) -> Implementation:
    return Implementation("cuda", dtypes, f"linalgk_kernels.cuda.sketch_{module}", symbol)


def _both(module: str, symbol: str, dtypes: tuple[str, ...] = ALL) -> tuple[Implementation, ...]:
    return _cpu(module, symbol, dtypes), _cuda(module, symbol, dtypes)


def _numbers(function: Any, *middle: Any) -> Op:
    """A line of 77 numbers from the 5th on."""
    name = function.__name__
    kernels = _both("philox", name)
    return Op(
        name, "sketch", function, kernels,
        lambda dtype: (np.zeros(1, dtype), 77, *middle, 1, 2, 5, 9, 1),
    )  # fmt: skip


def _tile(function: Any) -> Op:
    kernels = _both("philox", function.__name__)
    return Op(
        function.__name__, "sketch", function, kernels,
        lambda dtype: (np.zeros(1, dtype), 133, 5, 1, 2, 3, 11, 9, 1),
    )  # fmt: skip


def _data(dtype: str, rows: int, cols: int) -> Any:
    gen = np.random.default_rng(rows)
    x = gen.standard_normal((rows, cols, 2))
    return (x @ [1, 1j] if dtype in _xp.COMPLEX else x[..., 0]).astype(dtype)


@functools.cache
def _places(m: int) -> Any:
    # in the order that the kernel has, so that compiling ahead compiles for it
    return np.asfortranarray(stack_hashes(np.zeros(1), m, 1, 2, 0, 3, 3, 4))


WORDS = _numbers(words)
UNIFORMS = _numbers(uniforms)
NORMALS = _numbers(normals)
SIGNS = _numbers(signs)
INTEGERS = _numbers(integers, 10)
NORMAL_TILE = _tile(normal_tile)
SIGN_TILE = _tile(sign_tile)
STACK_HASHES = Op(
    "stack_hashes", "sketch", stack_hashes, _both("philox", "stack_hashes"),
    lambda dtype: (np.zeros(1, dtype), 37, 1, 2, 5, 3, 6, 7, 1),
)  # fmt: skip
STACK_APPLY = Op(
    "stack_apply", "sketch", stack_apply, _both("stack", "stack_apply"),
    lambda dtype: (_data(dtype, 50, 7), _places(50), 12, BLOCK - 20, 0.5, 1),
)  # fmt: skip


def _sample_csc(dtype: str) -> tuple[Any, ...]:
    """Every third entry of seven columns."""
    rows = np.concatenate([np.arange(col % 3, 50, 3) for col in range(7)]).astype(np.int32)
    ends = np.cumsum([0, *(len(range(col % 3, 50, 3)) for col in range(7))]).astype(np.int32)
    values = _data(dtype, rows.size, 1)[:, 0].copy()
    return values, rows, ends, _places(50), 12, BLOCK - 20, 0.5, 1


STACK_APPLY_CSC = Op(
    "stack_apply_csc", "sketch", stack_apply_csc, (_cpu("stack", "stack_apply_csc"),), _sample_csc
)
STACK_GATHER = Op(
    "stack_gather", "sketch", stack_gather, _both("stack", "stack_gather"),
    lambda dtype: (_data(dtype, 12, 19), _places(50), 0.5, 1),
)  # fmt: skip
DENSE_APPLY = Op(
    "dense_apply", "sketch", dense_apply, (_cpu("dense", "dense_apply"),),
    lambda dtype: (_data(dtype, 50, 7), 12, True, 1, 2, 3, 9, 1),
)  # fmt: skip
DENSE_GATHER = Op(
    "dense_gather", "sketch", dense_gather, (_cpu("dense", "dense_gather"),),
    lambda dtype: (_data(dtype, 12, 7), 50, False, 1, 2, 3, 9, 1),
)  # fmt: skip
OPS: tuple[Op, ...] = (
    WORDS, UNIFORMS, NORMALS, SIGNS, INTEGERS, NORMAL_TILE, SIGN_TILE, STACK_HASHES, STACK_APPLY,
    STACK_APPLY_CSC, STACK_GATHER, DENSE_APPLY, DENSE_GATHER, FWHT, SRHT,
)  # fmt: skip
