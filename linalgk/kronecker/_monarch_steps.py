"""Products with Monarch matrices, and blocks of low rank, of arrays that have entered."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint

# Bytes of what lies between the two products of a chunk of columns.
_CHUNK = 1 << 22
_LEAST = 64
# Entries of blocks that are decomposed together.
_ENTRIES = 1 << 22
# Order from which LAPACK's driver for some eigenvalues, one matrix at a time, beats all of them.
_ORDER = 24


# --- Products ------------------------------------------------------------------------------------


def columns(left: Any, right: Any, x: Any, shape: tuple[int, int], turned: bool) -> Any:
    """``M x``, or ``M^T x``, for x (..., n, c)."""
    xp = _xp.namespace(x)
    (h, s, _), (k, _, p) = left.shape[-3:], right.shape[-3:]
    inner, outer = (s * h, k * p) if turned else (k * p, s * h)
    size = shape[1] if turned else shape[0]
    x = padded(xp, x, inner - x.shape[-2], x.ndim - 2)
    if isinstance(x, np.ndarray) and left.ndim == right.ndim == 3 and x.ndim == 2:
        y = _by_strides(left, right, x, outer, turned)
    else:
        y = _by_copies(xp, left, right, x, turned)
    return y[..., :size, :] if size < outer else y


def _by_copies(xp: Any, left: Any, right: Any, x: Any, turned: bool) -> Any:
    (h, s, r), (k, q, p) = left.shape[-3:], right.shape[-3:]
    batch, c = tuple(x.shape[:-2]), x.shape[-1]
    if not turned:
        z = xp.matmul(right, xp.reshape(x, (*batch, k, p, c)))
        z = _swapped(xp, xp.reshape(z, (*z.shape[:-3], r, h, c)))
        y = _swapped(xp, xp.matmul(left, z))
        return xp.reshape(y, (*y.shape[:-3], s * h, c))
    x = _swapped(xp, xp.reshape(x, (*batch, s, h, c)))
    z = _swapped(xp, xp.matmul(xp.matrix_transpose(left), x))
    z = xp.reshape(z, (*z.shape[:-3], k, q, c))
    y = xp.matmul(xp.matrix_transpose(right), z)
    return xp.reshape(y, (*y.shape[:-3], k * p, c))


def _swapped(xp: Any, x: Any) -> Any:
    """The first two of the last three axes change places."""
    n = x.ndim
    return xp.permute_dims(x, (*range(n - 3), n - 2, n - 3, n - 1))


def _by_strides(left: Any, right: Any, x: Any, outer: int, turned: bool) -> Any:
    """Both products read and write where numbers belong, a chunk of columns after the other."""
    (h, s, r), (k, q, p) = left.shape, right.shape
    c = x.shape[1]
    y = np.empty((outer, c), x.dtype)
    step = max(_LEAST, _CHUNK // max(1, x.itemsize * k * q))
    one, two = left.swapaxes(1, 2), right.swapaxes(1, 2)
    for j in range(0, c, step):
        part, into = x[:, j : j + step], y[:, j : j + step]
        w = part.shape[1]
        z = np.empty((k * q, w), x.dtype)
        if turned:
            np.matmul(one, _view(part, s, h).swapaxes(0, 1), out=_view(z, r, h).swapaxes(0, 1))
            np.matmul(two, z.reshape(k, q, w), out=_view(into, k, p))
        else:
            np.matmul(right, _view(part, k, p), out=z.reshape(k, q, w))
            np.matmul(left, _view(z, r, h).swapaxes(0, 1), out=_view(into, s, h).swapaxes(0, 1))
    return y


def _view(x: Any, outer: int, inner: int) -> Any:
    """Rows in two indices; an axis is split, which no layout forbids."""
    return x.reshape(outer, inner, x.shape[1])


def rows(left: Any, right: Any, x: Any, shape: tuple[int, int], turned: bool) -> Any:
    """The same for x (..., c, n) by rows: the transpose of the product with the transpose."""
    xp = _xp.namespace(x)
    if not (isinstance(x, np.ndarray) and left.ndim == right.ndim == 3 and x.ndim == 2):
        turned_x = xp.matrix_transpose(x)
        return xp.matrix_transpose(columns(left, right, turned_x, shape, turned))
    inner = math.prod(right.shape[:2])
    step = max(_LEAST, _CHUNK // max(1, x.itemsize * inner))
    size = shape[1] if turned else shape[0]
    y = np.empty((x.shape[0], size), x.dtype)
    for i in range(0, x.shape[0], step):
        # in a cache
        part = np.ascontiguousarray(x[i : i + step].T)
        y[i : i + step] = columns(left, right, part, shape, turned).T
    return y


# --- Projection ----------------------------------------------------------------------------------


class Grid(NamedTuple):
    """``h k`` blocks (s, p) of the rank."""

    h: int
    k: int
    s: int
    p: int
    rank: int


class Projected(NamedTuple):
    """Blocks of the factors (b, ...), and numbers of each member on the host."""

    left: Any
    right: Any
    error: Any
    excess: Any
    method: str


def project(flat: Any, grid: Grid, method: str) -> Projected:
    """Every block of the members (b, m, n) by one of its rank."""
    xp = _xp.namespace(flat)
    count, m, n = flat.shape
    h, k, s, p, rank = grid
    if 0 in flat.shape:
        left, right = (
            _xp.from_numpy(np.zeros(shape, _xp.dtype_name(flat)), xp, like=flat)
            for shape in ((count, h, s, k * rank), (count, k, rank * h, p))
        )
        return Projected(left, right, np.zeros(count), np.zeros(count), method)
    if (s * h, k * p) != (m, n):
        flat = padded(xp, padded(xp, flat, s * h - m, 1), k * p - n, 2)
    # (b, s, h, k, p) -> (b, h, k, s, p)
    view = xp.permute_dims(xp.reshape(flat, (count, s, h, k, p)), (0, 2, 3, 1, 4))
    ones, twos, rest, norm, lost = [], [], [], [], []
    for i, j, c, d in _pieces(xp, count, grid):
        part = view[i:j, c:d, ...]
        b = xp.reshape(part, (-1, s, p))
        u, vh, found = truncated(b, rank, method)
        shape = (j - i, d - c, k)
        ones.append(xp.reshape(u, (*shape, s, rank)))
        twos.append(xp.reshape(vh, (*shape, rank, p)))
        rest.append(found.rest.reshape(shape))
        norm.append(found.norm.reshape(shape))
        lost.append(found.loss.reshape(shape))
        method = method if not found.again else "gram+svd"
    left, right = _assembled(xp, ones, count), _assembled(xp, twos, count)
    left = xp.reshape(xp.permute_dims(left, (0, 1, 3, 2, 4)), (count, h, s, k * rank))
    right = xp.reshape(xp.permute_dims(right, (0, 2, 3, 1, 4)), (count, k, rank * h, p))
    total, bad, loss = (_together(x, count) for x in (norm, rest, lost))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(total > 0, bad / total, 0.0)
        excess = np.where(total > 0, loss / total, 0.0)
    return Projected(left, right, error, excess, method)


def _pieces(xp: Any, count: int, grid: Grid) -> list[tuple[int, int, int, int]]:
    """Members i to j and their strips c to d, on the host as many as fit a cache or so."""
    strip = grid.k * grid.s * grid.p
    if xp is not np or strip * grid.h * count <= _ENTRIES:
        return [(0, count, 0, grid.h)]
    if strip * grid.h <= _ENTRIES:
        step = _ENTRIES // (strip * grid.h)
        return [(i, min(i + step, count), 0, grid.h) for i in range(0, count, step)]
    step = max(1, _ENTRIES // strip)
    return [
        (i, i + 1, c, min(c + step, grid.h)) for i in range(count) for c in range(0, grid.h, step)
    ]


def _assembled(xp: Any, parts: list[Any], count: int) -> Any:
    """Pieces (members, strips, ...) in the order of `_pieces`."""
    if len(parts) == 1:
        return parts[0]
    if parts[0].shape[0] > 1 or len(parts) == count:
        return xp.concat(parts, axis=0)
    each = len(parts) // count
    members = [xp.concat(parts[i * each : (i + 1) * each], axis=1) for i in range(count)]
    return xp.concat(members, axis=0)


def _together(parts: list[Any], count: int) -> Any:
    """Root of the sum of squares of each member."""
    whole = _assembled(np, parts, count).reshape(count, -1)
    top = whole.max(axis=1, keepdims=True)
    top = np.where(top > 0, top, 1.0)
    return np.sqrt(np.sum((whole / top) ** 2, axis=1)) * top[:, 0]


def padded(xp: Any, x: Any, extra: int, axis: int) -> Any:
    """With zeros behind what there is along an axis."""
    if extra == 0:
        return x
    shape = tuple(extra if i == axis else n for i, n in enumerate(x.shape))
    if 0 in x.shape:
        zeros = _xp.from_numpy(np.zeros(shape, _xp.dtype_name(x)), xp, like=x)
    else:
        # of the same device, which a traced array does not tell
        one = xp.zeros_like(x[(slice(0, 1),) * x.ndim])
        zeros = xp.broadcast_to(one, shape)
    return xp.concat([x, zeros], axis=axis)


class Blocks(NamedTuple):
    """Norms of blocks and of what they lack, what of that a better choice might save, on the host;
    whether some were done again.
    """

    norm: Any
    rest: Any
    loss: Any
    again: bool


def truncated(b: Any, rank: int, method: str) -> tuple[Any, Any, Blocks]:
    """``U`` (n, s, rank) and ``V^H`` (n, rank, p) of equal lengths, for blocks b (n, s, p)."""
    xp = _xp.namespace(b)
    dtype = _xp.dtype_name(b)
    eps = float(np.finfo(dtype).eps)
    scale = _scales(xp, b)
    unit = _xp.from_numpy((1 / scale).astype(_xp.REAL[dtype]), xp, like=b)[:, None, None]
    b = b * unit
    again = False
    if method == "svd":
        u, vh = _by_svd(xp, b, rank)
        rest, norm = _norms(xp, b - xp.matmul(u, vh)), _norms(xp, b)
        loss = eps * norm
    else:
        u, vh, safe, wide = _by_gram(xp, b, rank)
        rest, norm = _norms(xp, b - xp.matmul(u, vh)), _norms(xp, b)
        small = min(b.shape[1:])
        bad = np.flatnonzero(~safe & (rest > 8 * math.sqrt(small) * eps * norm))
        # eigenvectors lose eps of the energy of the block, after the power step less
        loss = np.minimum(np.sqrt(small * wide) * norm, _saved(small * wide, rest, norm))
        loss += eps * norm
        if len(bad):
            again = True
            index = _xp.from_numpy(bad, xp, like=b)
            part = xp.take(b, index, axis=0)
            one, two = _by_svd(xp, part, rank)
            rest[bad] = _norms(xp, part - xp.matmul(one, two))
            loss[bad] = eps * norm[bad]
            u, vh = _put(xp, u, bad, one), _put(xp, vh, bad, two)
    one, two = _lengths(xp, u, 1), _lengths(xp, vh, 2)
    equal = np.sqrt(one * two * scale[:, None])
    real = _xp.REAL[dtype]
    one, two = (
        _xp.from_numpy((equal / np.where(x > 0, x, 1.0)).astype(real), xp, like=b)
        for x in (one, two)
    )
    found = Blocks(norm * scale, rest * scale, loss * scale, again)
    return u * one[:, None, :], vh * two[:, :, None], found


def _saved(loss: float, rest: Any, norm: Any) -> Any:
    """How much less the rest would be with a square less by ``loss norm^2``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(rest > 0, loss * norm**2 / np.where(rest > 0, rest, 1.0), 0.0)


def _by_svd(xp: Any, b: Any, rank: int) -> tuple[Any, Any]:
    u, s, vh = xp.linalg.svd(b, full_matrices=False)
    return u[:, :, :rank] * s[:, None, :rank], vh[:, :rank, :]


def _by_gram(xp: Any, b: Any, rank: int) -> tuple[Any, Any, Any, float]:
    """``B V`` and ``V^H``, which blocks this is safe for, and the eps of the Gram matrices."""
    wide_rows = b.shape[1] > b.shape[2]
    if wide_rows:
        b = adjoint(xp, b)
    wide = b
    if _xp.dtype_name(b) in ("float32", "complex64"):
        name = "float64" if _xp.dtype_name(b) == "float32" else "complex128"
        wide = xp.astype(b, _xp.dtype_of(xp, name))
    eps = float(np.finfo(_xp.dtype_name(wide)).eps)
    small = b.shape[1]
    w, u = _top(xp, xp.matmul(wide, adjoint(xp, wide)), rank)
    safe = w[:, 0] > 1e3 * small * eps * w[:, -1]
    v = xp.matmul(adjoint(xp, wide), u)
    v = _orthonormal(xp, v)
    left = xp.matmul(wide, v)
    left, v = (xp.astype(x, b.dtype) for x in (left, v))
    if wide_rows:
        # B^H = left V^H means B = V left^H
        return v, adjoint(xp, left), safe, eps
    return left, adjoint(xp, v), safe, eps


def _top(xp: Any, g: Any, rank: int) -> tuple[Any, Any]:
    """The largest eigenvalues, ascending and on the host, and their eigenvectors."""
    n = g.shape[1]
    if xp is np and n >= _ORDER and 4 * rank <= n:
        import scipy.linalg

        pairs = [
            scipy.linalg.eigh(x, subset_by_index=(n - rank, n - 1), check_finite=False) for x in g
        ]
        return np.stack([w for w, _ in pairs]), np.stack([u for _, u in pairs])
    w, u = xp.linalg.eigh(g)
    return np.asarray(_xp.to_numpy(w[:, n - rank :]), np.float64), u[:, :, n - rank :]


def _orthonormal(xp: Any, v: Any) -> Any:
    """Orthonormal columns; of one column its direction, or zero."""
    if v.shape[2] > 1:
        return xp.linalg.qr(v).Q
    size = xp.sqrt(xp.sum(xp.real(xp.conj(v) * v) if _is_complex(v) else v * v, axis=1))
    size = xp.where(size > 0, size, xp.ones_like(size))
    return v / size[:, None, :]


def _is_complex(x: Any) -> bool:
    return _xp.dtype_name(x) in _xp.COMPLEX


def _scales(xp: Any, b: Any) -> Any:
    """A power of two for each block, that of its largest entry, 1 of zeros."""
    top = np.asarray(_xp.to_numpy(xp.max(xp.abs(b), axis=(1, 2))), np.float64)
    return np.where(top > 0, np.ldexp(1.0, np.frexp(top)[1]), 1.0)


def _norms(xp: Any, b: Any) -> Any:
    """Frobenius norms on the host."""
    size = xp.abs(b)
    return np.sqrt(np.asarray(_xp.to_numpy(xp.sum(size * size, axis=(1, 2))), np.float64))


def _lengths(xp: Any, x: Any, axis: int) -> Any:
    """Norms along an axis on the host."""
    size = xp.abs(x)
    return np.sqrt(np.asarray(_xp.to_numpy(xp.sum(size * size, axis=axis)), np.float64))


def _put(xp: Any, x: Any, index: Any, values: Any) -> Any:
    """``x`` with other members at the places named."""
    if xp is np:
        x[index] = values
        return x
    order = np.arange(x.shape[0])
    order[index] = x.shape[0] + np.arange(len(index))
    where = _xp.from_numpy(order, xp, like=x)
    return xp.take(xp.concat([x, values], axis=0), where, axis=0)
