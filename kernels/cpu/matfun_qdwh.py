"""Polar factors by LU and Cholesky factors: scaled Newton steps, Halley steps, one polynomial.

Fortran sees the transpose of a row-major matrix, whose unitary factor is the transpose of ours:
square matrices are treated as Fortran sees them. Flops in the comments are of real matrices.
"""

import math

import numpy as np

from ._lapack import fortran, herk
from ._preset import njit
from ._threads import run
from .matfun_eigh import mirror

OK, HARD = 0, 1
_BLOCK = 32
# Up to this order NumPy's loops of matrix times vector stay on the thread that called them.
_SERIAL = 256
# Up to this weight the error of a Cholesky factor of I + c X^H X, about eps c^(1/2) / 2, is less
# than those of the LU factors that would replace it.
_MOST_WEIGHT = 1000.0
_MOST_STEPS, _MOST_PASSES = 12, 4
# c_q: what the series of (1 - r)^(-1/2) to r^(q - 1) leaves out begins with c_q r^q.
_NEXT = {2: 3 / 8, 3: 5 / 16, 5: 63 / 256}
# Up to this condition the Gram matrix alone gives a unitary factor: its errors grow by the square.
_PLAIN = 3.0


def polar(a, left, threads):
    """See ``polar`` in ``linalgk/matfun/_ops.py``."""
    batch, m, n = a.shape
    u, h, report = (
        np.empty(a.shape, a.dtype),
        np.empty((batch, n, n), a.dtype),
        np.zeros((batch, 4)),
    )

    def work(start, stop):
        space = _Space(n, a.dtype)
        with np.errstate(all="ignore"):  # a singular member has its own status
            for item in range(start, stop):
                if m == n:
                    report[item] = _square(a[item], u[item], h[item], left, space)
                else:
                    report[item] = _tall(a[item], u[item], h[item], space)

    run(work, batch, threads)
    return u, h, report


def polar_svd(a, left, threads):
    """The same by singular values."""
    batch, m, n = a.shape
    u, h, report = (
        np.empty(a.shape, a.dtype),
        np.empty((batch, n, n), a.dtype),
        np.zeros((batch, 4)),
    )

    def some(start, stop):
        w, s, vh = np.linalg.svd(a[start:stop], full_matrices=False)
        np.matmul(w, vh, out=u[start:stop])
        v = w if left and m == n else np.conj(np.swapaxes(vh, -1, -2))
        np.matmul(v * s[:, None, :], np.conj(np.swapaxes(v, -1, -2)), out=h[start:stop])
        report[start:stop, 1] = s[:, -1]
        for item in range(start, stop):
            hermitian_part(h[item])
        factors = (h[start:stop], u[start:stop])
        gap = np.matmul(*(factors if left and m == n else factors[::-1]))
        gap -= a[start:stop]
        size = np.abs(gap).astype(np.float64)
        report[start:stop, 0] = np.sqrt((size**2).sum(axis=(1, 2)))

    def work(start, stop):
        # enough at a time to forget what a call costs, and little enough for the cache
        size = max(1, 2**16 // (m * n))
        for first in range(start, stop, size):
            last = min(first + size, stop)
            try:
                some(first, last)
            except np.linalg.LinAlgError:
                for item in range(first, last):
                    try:
                        some(item, item + 1)
                    except np.linalg.LinAlgError:
                        report[item, 3] = HARD

    run(work, batch, threads)
    return u, h, report


class _Space:
    """Workspace of one thread; of the matrices only upper triangles mean something."""

    def __init__(self, n, dtype):
        self.dtype, self.n = dtype, n
        self.eps = float(np.finfo(dtype).eps)
        self.one, self.two = np.zeros((n, n), dtype), np.zeros((n, n), dtype)
        self.pivots, self.work = np.empty(n, np.int32), np.empty(64 * n, dtype)
        self.adjoint = b"C" if dtype.kind == "c" else b"T"
        self.hemm = "hemm" if dtype.kind == "c" else "symm"
        self.diagonal = np.arange(n)
        self.start = np.random.default_rng(0).standard_normal(n).astype(dtype)


def _square(a, u, h, left, space):
    """Factors of a square matrix, and their line of the report."""
    np.copyto(u, a)
    low, steps = _unitary(u, h, space)
    if not steps:
        return 0.0, 0.0, 0, HARD
    n = space.n
    # 2 n^3: Fortran sees U^T and A^T, and M^T = A^T (U^T)^H or (U^T)^H A^T
    first, second, forms = (u, a, (space.adjoint, b"N")) if left else (a, u, (b"N", space.adjoint))
    fortran("blas", "gemm", space.dtype, *forms, n, n, n, 1.0, first, n, second, n, 0.0, h, n)
    return math.sqrt(hermitian_part(h)), low, steps, OK


def _unitary(y, other, space):
    """Overwrite y by its unitary factor; lower bound of its singular values and steps, 0 if none.

    Newton: 2 n^3 flops; Halley: 3 1/3 n^3; the polynomial: 3, 4 or 5 n^3. ``other`` is workspace.
    """
    g, t, eps = space.one, space.two, space.eps
    high = _norm(y, space)
    smallest, low, weights = 0.0, 0.0, None
    for step in range(1, _MOST_STEPS if high > 0 else 0):
        if weights is None or weights[2] > _MOST_WEIGHT:
            if not _invert(y, t, space):
                break
            if weights is None:
                smallest = low = 1 / _norm(t, space)
                if not low > 4 * eps * high:
                    break
            scale = 1 / math.sqrt(low * high)
            average(y, t, 0.5 * scale, 0.5 / scale)
            ratio = math.sqrt(high / low)
            low, high = 1.0, 0.5 * (ratio + 1 / ratio)
        else:
            herk(y, g, 1.0)
            # both are bounds, the second one by estimates of the ends
            gap = min(defect(g), max(high**2 - 1, 1 - low**2))
            order = next((q for q, c in _NEXT.items() if c * gap**q <= eps), 0)
            if order and gap < 0.5:
                _finish(y, other, order, space)
                return smallest, step
            _halley(y, weights, high, space)
            low, high = _halley_value(low / high, weights), 1.0
        weights = _weights(low / high)
    return 0.0, 0


def _invert(y, t, space):
    """Whether t could be made the inverse of y."""
    n, dtype, work = space.n, space.dtype, space.work
    np.copyto(t, y)
    if fortran("lapack", "getrf", dtype, n, n, t, n, space.pivots, 0):
        return False
    return not fortran("lapack", "getri", dtype, n, t, n, space.pivots, work, work.size, 0)


def _weights(low):
    """The dynamic weights of Nakatsukasa, Bai and Gygi (2010), eq. 3.5, for values in [low, 1].

    As p, q and c of ``p X + q X (I + c X^H X)^-1``.
    """
    low = min(low, 1 - 1e-8)
    square = low * low
    d = math.cbrt(4 * (1 - square) / square**2)
    root = math.sqrt(1 + d)
    a = root + 0.5 * math.sqrt(8 - 4 * d + 8 * (2 - square) / (square * root))
    b = 0.25 * (a - 1) ** 2
    c = a + b - 1
    return b / c, a - b / c, c


def _halley_value(x, weights):
    p, q, c = weights
    return x * (p + q / (1 + c * x * x))


def _halley(y, weights, high, space):
    """``X <- p X + q X (I + c X^H X)^-1`` of ``X = y / high``; space.one holds ``I - y^H y``."""
    p, q, c = weights
    n, dtype, g, t = space.n, space.dtype, space.one, space.two
    c /= high**2
    halley_matrix(g, c)
    # positive definite by far, so that no pivot can fail
    fortran("lapack", "potrf", dtype, b"L", n, g, n, 0)
    np.multiply(y, q / high, out=t)
    for form in (b"N", space.adjoint):
        fortran("blas", "trsm", dtype, b"L", b"L", form, b"N", n, n, 1.0, g, n, t, n)
    y *= p / high
    y += t


def _finish(y, x, order, space):
    """``X <- X (I - R)^(-1/2)`` by ``order`` terms of the series; space.one holds R, x is work."""
    n, r, p = space.n, space.one, space.two
    if order == 2:
        np.multiply(r, 0.5, out=p)
    else:
        mirror(r[None], 0, 1)
        np.copyto(p, r)
    if order == 3:
        herk(r, p, 0.375, 0.5)
    elif order == 5:
        # r/2 + 3/8 r^2 + 5/16 r^3 + 35/128 r^4 by two squares: e w^2 + f r + g, w = r^2 + s r + t
        e, s = 35 / 128, 4 / 7
        t = 0.5 * (48 / 35 - s * s)
        herk(r, p, 1.0, s)
        p[space.diagonal, space.diagonal] += t
        mirror(p[None], 0, 1)
        r *= 0.5 - 2 * e * s * t
        r[space.diagonal, space.diagonal] -= e * t * t
        herk(p, r, e, 1.0)
        p = r
    np.copyto(x, y)
    fortran("blas", space.hemm, space.dtype, b"L", b"L", n, n, 1.0, p, n, x, n, 1.0, y, n)


def _norm(y, space):
    """1.5 times the largest singular value as eight steps of the power method see it.

    They see less than 2/3 of it only if the start is ten times as orthogonal as usual.
    """
    n, size = space.n, 0.0
    v, w = space.start.copy(), np.empty(n, space.dtype)
    for _ in range(8):
        if n <= _SERIAL:
            v = (y @ v).conj() @ y
            np.conj(v, out=v)
        else:
            # Fortran sees y^T
            _times(b"T", y, v, w, space)
            np.conj(w, out=w)
            _times(b"N", y, w, v, space)
            np.conj(v, out=v)
        size = math.sqrt(float((np.abs(v).astype(np.float64) ** 2).sum()))
        if not 0 < size < math.inf:
            return size
        v /= size
    return 1.5 * math.sqrt(size)


def _times(form, y, v, w, space):
    n = space.n
    fortran("blas", "gemv", space.dtype, form, n, n, 1.0, y, n, v, 1, 0.0, w, 1)


def _tall(a, q, h, space):
    """Factors of a matrix with more rows than columns, and their line of the report.

    ``A = Q R`` by the Cholesky factors of Gram matrices, twice or more, and the factors of R: 5 m
    n^2 flops if twice. The last of the triangles goes into the small factor. With a condition near
    one the first of them will do, 3 m n^2.
    """
    (m, n), dtype = a.shape, space.dtype
    g, triangle, shifted = np.zeros((n, n), dtype), None, False
    source = a
    for _ in range(_MOST_PASSES):
        herk(source, g, 1.0)
        gram = g.copy()
        last = False
        if fortran("lapack", "potrf", dtype, b"L", n, g, n, 0):
            if shifted or triangle is not None:
                break
            # Fukaya et al. (2020), section 3: a quotient that the next passes can serve
            shifted = True
            trace = float(np.einsum("ii->", gram).real)
            np.copyto(g, gram)
            g[space.diagonal, space.diagonal] += 5.5 * (m * n + n * n + n) * space.eps * trace
            if fortran("lapack", "potrf", dtype, b"L", n, g, n, 0):
                break
        elif triangle is not None:
            last = defect(gram) < 0.1
        if triangle is None:
            triangle = np.triu(g)
            last = not shifted and _condition(triangle, space) <= _PLAIN
        else:
            fortran("blas", "trmm", dtype, b"R", b"L", b"N", b"N", n, n, 1.0, g, n, triangle, n)
        if last:
            break
        if source is a:
            np.copyto(q, a)
            source = q
        fortran("blas", "trsm", dtype, b"L", b"L", b"N", b"N", n, m, 1.0, g, n, q, n)
    else:
        last = False
    if not last:
        return 0.0, 0.0, 0, HARD
    small = np.empty((n, n), dtype)
    line = _square(triangle, small, h, False, space)
    if line[-1] == OK:
        fortran("blas", "trsm", dtype, b"R", b"L", b"N", b"N", n, n, 1.0, g, n, small, n)
        rows = max(1, 2**18 // n)
        for i in range(0, m, rows):
            part = source[i : i + rows]
            part = part.copy() if source is q else part
            fortran(
                "blas", "gemm", dtype, b"N", b"N", n, len(part), n, 1.0, small, n, part, n, 0.0,
                q[i : i + rows], n,
            )  # fmt: skip
    return line


def _condition(triangle, space):
    """About twice the condition of an upper triangle at least, infinite if it is singular."""
    n, t = space.n, space.two
    np.copyto(t, triangle)
    if fortran("lapack", "trtri", space.dtype, b"L", b"N", n, t, n, 0):
        return math.inf
    found = _norm(triangle, space) * _norm(t, space) / 1.5**2
    t[...] = 0
    return found


@njit
def defect(g):
    """Overwrite the upper triangle of g by that of ``I - G``; its Frobenius norm."""
    n, total = g.shape[0], 0.0
    for i in range(n):
        for j in range(i, n):
            x = (1 if i == j else 0) - g[i, j]
            g[i, j] = x
            total += (1.0 if i == j else 2.0) * (x.real * x.real + x.imag * x.imag)
    return math.sqrt(total)


@njit
def halley_matrix(g, c):
    """Upper triangle of ``I + c G`` in place of that of ``I - G``."""
    n = g.shape[0]
    c = g.real.dtype.type(c)
    for i in range(n):
        for j in range(i, n):
            g[i, j] *= -c
        g[i, i] += 1 + c


@njit
def average(y, w, p, q):
    """``y <- p y + q w^H``, block by block so that both stay in cache."""
    n = y.shape[0]
    p, q = y.real.dtype.type(p), y.real.dtype.type(q)
    for i0 in range(0, n, _BLOCK):
        for j0 in range(0, n, _BLOCK):
            for i in range(i0, min(i0 + _BLOCK, n)):
                for j in range(j0, min(j0 + _BLOCK, n)):
                    y[i, j] = p * y[i, j] + q * np.conj(w[j, i])


@njit
def hermitian_part(h):
    """Overwrite h by its Hermitian part; the squared Frobenius norm of the other part."""
    n, total = h.shape[0], 0.0
    for i0 in range(0, n, _BLOCK):
        for j0 in range(i0, n, _BLOCK):
            for i in range(i0, min(i0 + _BLOCK, n)):
                for j in range(max(j0, i), min(j0 + _BLOCK, n)):
                    x, y = h[i, j], np.conj(h[j, i])
                    gap = x - y
                    total += (0.25 if i == j else 0.5) * (gap.real * gap.real + gap.imag * gap.imag)
                    middle = (x + y) / 2
                    h[i, j] = middle
                    h[j, i] = np.conj(middle)
    return total
