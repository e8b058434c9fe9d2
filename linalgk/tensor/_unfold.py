"""Unfoldings of a tensor as they lie in memory, and the truncation of one mode after another.

The unfolding of mode k is the view (before, n, after) with the sizes of the modes on either side
multiplied out; nothing is transposed. The truncated columns of all modes are orthogonal to each
other, so that squared errors add up [1]_.

.. [1] N. Vannieuwenhoven, R. Vandebril, K. Meerbergen, "A new truncation strategy for the
   higher-order singular value decomposition", SIAM J. Sci. Comput. 34 (2012), Theorem 5.1.
.. [2] Z. Li, Q. Fang, G. Ballard, "Parallel Tucker decomposition with numerically accurate SVD",
   ICPP 2021: LQ in place of the Gram matrix.
.. [3] T. Fukaya, R. Kannan, Y. Nakatsukasa, Y. Yamamoto, Y. Yanagisawa, "Shifted Cholesky QR for
   computing the QR factorization of ill-conditioned matrices", SIAM J. Sci. Comput. 42 (2020).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import kron_matmul

# Bytes of a piece of an unfolding that has to be copied.
PIECE = 1 << 23
# The same where it should stay in a core's cache.
SHORT = 1 << 21
# Rows, and entries, of products that BLAS is slow at.
NARROW, FAR = 64, 1 << 17
# A Gram matrix has its eigenvalues to GUARD * eps of the largest.
GUARD = 30.0


def view(x: Any, mode: int) -> Any:
    """(before, n, after), no copy for an array in C order."""
    before, after = math.prod(x.shape[:mode]), math.prod(x.shape[mode + 1 :])
    return _xp.namespace(x).reshape(x, (before, x.shape[mode], after))


def mode_product(x: Any, f: Any, mode: int) -> Any:
    """``X x_mode F`` for F (p, n): contracts this mode of x."""
    xp = _xp.namespace(x)
    shape = (*x.shape[:mode], f.shape[0], *x.shape[mode + 1 :])
    if 0 in shape or x.shape[mode] == 0:
        return xp.zeros(shape, dtype=xp.result_type(x, f), **where(x))
    flat = view(x, mode)
    y = xp.matmul(flat[:, :, 0], xp.matrix_transpose(f)) if flat.shape[2] == 1 else f @ flat
    return xp.reshape(y, shape)


def narrow_product(x: Any, f: Any, mode: int) -> Any:
    """The same for few rows and many entries, while BLAS is held to one thread.

    By the Kronecker room's kernel, which is faster then; BLAS's own threads, still spinning after
    their last product, would hold up its threads.
    """
    if not isinstance(x, np.ndarray) or f.shape[0] > NARROW or x.size < FAR:
        return mode_product(x, f, mode)
    shape = (*x.shape[:mode], f.shape[0], *x.shape[mode + 1 :])
    flat = view(x, mode)
    if flat.shape[2] == 1:
        y = kron_matmul([f], flat[:, :, 0], side="right", trans=["T"], check_finite=False)
    else:
        y = kron_matmul([f], flat, check_finite=False)
    return y.reshape(shape)


def mode_products(x: Any, factors: Sequence[Any]) -> Any:
    """``X x_1 F_1 ... x_d F_d``, all in one call of the Kronecker room; None leaves a mode."""
    given = [f for f in factors if f is not None]
    if not given:
        return x
    xp = _xp.namespace(x)
    if len(given) < len(factors):
        for mode, f in enumerate(factors):
            x = x if f is None else mode_product(x, f, mode)
        return x
    y = kron_matmul(given, xp.reshape(x, (math.prod(x.shape),)), check_finite=False)
    return xp.reshape(y, tuple(f.shape[0] for f in given))


def squared_norm(x: Any) -> float:
    """``||x||_F^2`` summed in double precision."""
    if isinstance(x, np.ndarray):
        if 0 in x.shape:
            return 0.0
        double = _double(x)
        if x.dtype == double and x.flags.c_contiguous:
            flat = x.reshape(-1)
            return float(np.vdot(flat, flat).real)
        step = max(1, PIECE // max(1, x[:1].size * 8)) if x.ndim else 1
        parts = (x[i : i + step] for i in range(0, x.shape[0], step)) if x.ndim else (x,)
        flats = (np.ascontiguousarray(p, dtype=double).reshape(-1) for p in parts)
        return float(sum(np.vdot(f, f).real for f in flats))
    xp = _xp.namespace(x)
    wide = xp.abs(x) if _xp.dtype_name(x) in _xp.COMPLEX else x
    if _xp.dtype_name(wide) == "float32":
        wide = xp.astype(wide, _xp.dtype_of(xp, "float64"))
    return float(xp.sum(wide * wide))


def _double(x: Any) -> str:
    return "complex128" if _xp.dtype_name(x) in _xp.COMPLEX else "float64"


def where(x: Any) -> dict[str, Any]:
    """The keyword that puts a new array where x is."""
    return {} if isinstance(x, np.ndarray) else {"device": x.device}


# --- One mode ------------------------------------------------------------------------------------


def gram(x: Any, mode: int) -> Any:
    """``X_(k) X_(k)^H`` (n, n) in double precision, of pieces where modes lie on both sides."""
    flat = view(x, mode)
    xp = _xp.namespace(flat)
    before, n, after = flat.shape
    double = _xp.dtype_of(xp, _double(flat))
    total = None
    if before == 1 or after == 1:
        flat = xp.reshape(flat, (n, after) if before == 1 else (before, n))
        long = after if before == 1 else before
        step = max(1, PIECE // (8 * max(n, 1))) if flat.dtype != double else max(long, 1)
        for i in range(0, long, step):
            stop = min(i + step, long)
            piece = flat[:, i:stop] if before == 1 else flat[i:stop, :]
            piece = piece if piece.dtype == double else xp.astype(piece, double)
            part = piece @ adjoint(xp, piece) if before == 1 else _turned_gram(xp, piece)
            total = part if total is None else total + part
    else:
        step = max(1, SHORT // (8 * max(n * after, 1)))
        for i in range(0, before if after else 0, step):
            piece = flat[i : min(i + step, before), :, :]
            # one long product is faster than many short ones by more than the copy takes
            rows = xp.reshape(xp.permute_dims(piece, (1, 0, 2)), (n, -1))
            rows = rows if rows.dtype == double else xp.astype(rows, double)
            part = rows @ adjoint(xp, rows)
            total = part if total is None else total + part
    return xp.zeros((n, n), dtype=double, **where(flat)) if total is None else total


def _turned_gram(xp: Any, rows: Any) -> Any:
    turned = xp.matrix_transpose(rows)
    return turned @ (xp.conj(rows) if _xp.dtype_name(rows) in _xp.COMPLEX else rows)


def triangle(x: Any, mode: int, *, values: Any = None, vectors: Any = None) -> Any:
    """L (n, k) with ``L L^H = X_(k) X_(k)^H`` and the singular values of the unfolding to eps.

    Rows of ``V^H X_(k)`` with the eigenvectors V of the Gram matrix, given or computed, are divided
    by ``(lambda + s)^(1/2)``, ``s = n eps lambda_1``, and have a Gram matrix again, whose root is
    multiplied back. What the second one loses is eps times ``sigma^2 + s``, so that singular values
    have errors of eps, as those of a QR factorisation have, and all work is matrix products: a
    shifted Cholesky QR [3]_ with eigenvectors. Short unfoldings are factored by Householder.
    """
    flat = view(x, mode)
    xp = _xp.namespace(flat)
    before, n, after = flat.shape
    if before * after <= n:
        return xp.reshape(xp.permute_dims(flat, (1, 0, 2)), (n, before * after))
    double = _xp.dtype_of(xp, _double(flat))
    if before * after <= 4 * n:
        wide = flat if flat.dtype == double else xp.astype(flat, double)
        rows = xp.reshape(xp.permute_dims(wide, (0, 2, 1)), (before * after, n))
        # R^T, because the rows were not conjugated
        return xp.matrix_transpose(_upper(xp, rows))
    if values is None:
        values, vectors = xp.linalg.eigh(gram(x, mode))
    host = np.maximum(_host(values), 0.0)
    roots = np.sqrt(host + max(n * float(np.finfo(np.float64).eps) * host[-1], 1e-300))
    left = adjoint(xp, vectors) / _like(xp, roots[:, None], values)
    total = None
    width = max(4 * n, PIECE // (8 * n))
    for i0, i1, j0, j1 in _pieces(before, after, width):
        piece = xp.permute_dims(flat[i0:i1, :, j0:j1], (1, 0, 2))
        piece = xp.reshape(piece, (n, (i1 - i0) * (j1 - j0)))
        piece = left @ (piece if piece.dtype == double else xp.astype(piece, double))
        part = piece @ adjoint(xp, piece)
        total = part if total is None else total + part
    second, turn = xp.linalg.eigh(total)
    inner = _like(xp, np.sqrt(np.maximum(_host(second), 0.0)), values)
    return (vectors * _like(xp, roots, values)) @ (turn * inner)


def _like(xp: Any, x: Any, like: Any) -> Any:
    return x if xp is np else _xp.from_numpy(x, xp, like=like)


def _pieces(before: int, after: int, width: int) -> list[tuple[int, int, int, int]]:
    if after >= width:
        return [
            (i, i + 1, j, min(j + width, after))
            for i in range(before)
            for j in range(0, after, width)
        ]
    step = max(1, width // after)
    return [(i, min(i + step, before), 0, after) for i in range(0, before, step)]


def _upper(xp: Any, rows: Any) -> Any:
    if isinstance(rows, np.ndarray):
        import scipy.linalg

        r = scipy.linalg.qr(rows, mode="r", check_finite=False)[0]
        return r[: rows.shape[1]]
    return xp.linalg.qr(rows, mode="reduced")[1]


class Basis(NamedTuple):
    """Leading left singular vectors of an unfolding."""

    vectors: Any  # (n, r) in the dtype of the tensor
    tail: float  # sum of the squared singular values left out
    method: str  # "gram" or "lq"


def leading(
    x: Any, mode: int, *, rank: int | None = None, budget: float | None = None,
    method: str = "auto",
) -> Basis:  # fmt: skip
    """The leading ``rank`` vectors, or the fewest with squared tail at most ``budget``.

    ``"auto"`` takes the Gram matrix where its eigenvalues decide, which are good to some
    ``n eps lambda_max`` in sum, and else LQ.
    """
    xp = _xp.namespace(x)
    n = x.shape[mode]
    if 0 in x.shape:
        none = xp.eye(n, min(n, rank or 0), dtype=x.dtype, **where(x))
        return Basis(none, 0.0, "none")
    values = vectors = None
    # an unfolding with few columns has singular values of its own at no greater cost
    short = math.prod(x.shape) <= n * n
    if method in ("auto", "gram") and not short:
        values, vectors = xp.linalg.eigh(gram(x, mode))
        squares = np.maximum(_host(values)[::-1], 0.0)
        r, tail = _cut(squares, rank, budget)
        unit = float(np.finfo(_xp.dtype_name(values)).eps) * squares[0]
        decided = r == n or squares[r - 1] > GUARD * unit * math.sqrt(n)
        if rank is None:
            assert budget is not None
            decided = budget >= 4 * n * unit
        if method == "gram" or decided or squares[0] == 0.0:
            return Basis(_first(xp, xp.flip(vectors, axis=-1), r, x), tail, "gram")
    return _by_triangle(triangle(x, mode, values=values, vectors=vectors), x, rank, budget)


def of_parts(
    kept: Any, *, exact: bool, rank: int | None = None, budget: float | None = None
) -> Basis:
    """The same of a Gram matrix, or if ``exact`` of a triangle, that was summed up elsewhere."""
    if exact:
        return _by_triangle(kept, kept, rank, budget)
    xp = _xp.namespace(kept)
    values, vectors = xp.linalg.eigh(kept)
    r, tail = _cut(np.maximum(_host(values)[::-1], 0.0), rank, budget)
    return Basis(_first(xp, xp.flip(vectors, axis=-1), r, kept), tail, "gram")


def _by_triangle(low: Any, x: Any, rank: int | None, budget: float | None) -> Basis:
    """Leading vectors of an unfolding in the dtype of x from its triangle."""
    xp = _xp.namespace(low)
    n = low.shape[0]
    vectors, s, _ = xp.linalg.svd(low, full_matrices=False)
    if rank is not None and rank > vectors.shape[1]:
        # any others: the tensor has no part in them
        more = xp.eye(n, rank, dtype=vectors.dtype, **where(vectors))
        vectors = xp.linalg.qr(xp.concat([vectors, more], axis=1))[0]
    squares = _host(s) ** 2
    squares = np.concatenate([squares, np.zeros(n - squares.size)])
    r, tail = _cut(squares, rank, budget)
    return Basis(_first(xp, vectors, min(r, vectors.shape[1]), x), tail, "lq")


def _host(x: Any) -> Any:
    return np.asarray(_xp.to_numpy(x), dtype=np.float64)


def _first(xp: Any, vectors: Any, r: int, like: Any) -> Any:
    vectors = vectors[:, :r]
    if isinstance(vectors, np.ndarray):
        # neither backwards nor a part of something larger
        return np.array(vectors, dtype=like.dtype, order="C")
    return vectors if vectors.dtype == like.dtype else xp.astype(vectors, like.dtype)


def _cut(squares: Any, rank: int | None, budget: float | None) -> tuple[int, float]:
    """The rank, at least 1, and the sum of what is left out; small squares are added first."""
    tails = np.concatenate([np.cumsum(squares[::-1])[::-1], [0.0]])
    if rank is None:
        assert budget is not None
        rank = int(np.argmax(tails <= budget))
    rank = min(max(rank, 1), squares.size)
    return rank, float(tails[rank])


# --- All modes -----------------------------------------------------------------------------------


class Truncated(NamedTuple):
    """``X ~ core x_1 U_1 ... x_d U_d`` with orthonormal columns in every U."""

    core: Any
    factors: tuple[Any, ...]  # None for a mode that was left alone
    squared_error: float  # sum of the tails
    methods: tuple[str, ...]


def st_hosvd(
    x: Any, *, budget: float | None = None, ranks: Sequence[int] | None = None,
    modes: Sequence[int] | None = None, method: str = "auto",
) -> Truncated:  # fmt: skip
    """Sequentially truncated HOSVD with squared error at most ``budget``, or of these ranks.

    ``budget`` is absolute, of the squared Frobenius norm; what one mode leaves of it goes to the
    modes after it. The error is the sum of the tails exactly [1]_. Modes go in the order of few
    operations; with ``modes`` the others stay as they are.
    """
    chosen = list(range(x.ndim) if modes is None else modes)
    factors: list[Any] = [None] * x.ndim
    methods = [""] * x.ndim
    spent = 0.0
    for done, mode in enumerate(order(x.shape, chosen, ranks)):
        if ranks is not None:
            found = leading(x, mode, rank=ranks[chosen.index(mode)], method=method)
        else:
            assert budget is not None
            share = max(budget - spent, 0.0) / (len(chosen) - done)
            found = leading(x, mode, budget=share, method=method)
        factors[mode], methods[mode] = found.vectors, found.method
        spent += found.tail
        x = mode_product(x, adjoint(_xp.namespace(x), found.vectors), mode)
    return Truncated(x, tuple(factors), spent, tuple(methods))


def order(shape: Sequence[int], modes: Sequence[int], ranks: Sequence[int] | None) -> list[int]:
    """Modes in the order of few operations: a Gram matrix and a product for each.

    Without ranks a mode is expected to shrink to a quarter.
    """

    def cost(mode: int) -> tuple[float, int]:
        n = shape[mode]
        r = max(1.0, n / 4) if ranks is None else ranks[list(modes).index(mode)]
        # n of the Gram matrix and r of the product for each number, weighed by what is left
        return (n + r) / max(1.0 - r / max(n, 1), 1e-3), mode

    return sorted(modes, key=cost)


# --- What is left --------------------------------------------------------------------------------


def squared_residual(x: Any, core: Any, factors: Sequence[Any]) -> float:
    """``||X - core x_1 U_1 ... x_d U_d||_F^2``, of blocks of the first mode, in double sums."""
    total = 0.0
    entries = PIECE // 8 if isinstance(x, np.ndarray) else 1 << 26
    step = max(1, entries // max(1, math.prod(x.shape[1:])))
    for i in range(0, x.shape[0], step):
        stop = min(i + step, x.shape[0])
        y = mode_product(core, factors[0][i:stop, :], 0)
        for mode in range(1, x.ndim):
            y = mode_product(y, factors[mode], mode)
        if isinstance(y, np.ndarray) and y.dtype == x.dtype:
            np.subtract(x[i:stop], y, out=y)
        else:
            y = x[i:stop, ...] - y
        total += squared_norm(y)
    return total


def relative_error(x: Any, core: Any, factors: Sequence[Any], square: float) -> float:
    """``||X - core x_1 U_1 ...||_F / ||X||_F`` for orthonormal factors and a core that fits them.

    From ``||X||^2 - ||core||^2`` where rounding leaves that three digits, else from all entries.
    """
    if square == 0.0:
        return 0.0
    left = (square - squared_norm(core)) / square
    return math.sqrt(left if left > close(x) else squared_residual(x, core, factors) / square)


def close(x: Any) -> float:
    """Least squared relative error that a difference of squared norms can tell."""
    single = _xp.REAL[_xp.dtype_name(x)] == "float32"
    # a core that was computed in float32 has its norm to eps only
    return 1e-4 if single else 1e-11
