"""Algebra of cores and factors: one library and one dtype, in array-API words.

A Tucker tensor is ``core x_1 U_1 ... x_d U_d``, a canonical one ``sum_r w_r u_r o v_r o ...``.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import mttkrp
from linalgk.tensor import _unfold

# Numbers of an intermediate array that entries or a projection hold at a time.
BLOCK = 1 << 21


def conj(xp: Any, x: Any) -> Any:
    """Complex conjugate, of real numbers themselves."""
    return xp.conj(x) if _xp.dtype_name(x) in _xp.COMPLEX else x


def double(xp: Any, x: Any) -> Any:
    """In double precision, where the library has it."""
    wide = _xp.dtype_of(xp, "complex128" if _xp.dtype_name(x) in _xp.COMPLEX else "float64")
    return x if x.dtype == wide else xp.astype(x, wide)


def frobenius(xp: Any, x: Any) -> Any:
    """Norm of all entries without overflow, a number or a traced one."""
    if math.prod(x.shape) == 0:
        return 0.0
    size = double(xp, xp.abs(x))
    top = xp.max(size)
    top = xp.where(top > 0, top, xp.ones_like(top))
    return number(top * xp.sqrt(xp.sum((size / top) ** 2)))


def number(x: Any) -> Any:
    """A Python number; a traced one stays."""
    if _xp.is_traced(x):
        return x
    y = np.asarray(_xp.to_numpy(x))[()]
    return complex(y) if y.dtype.kind == "c" else float(y)


def zeros(xp: Any, shape: tuple[int, ...], like: Any) -> Any:
    """Zeros on the device of another array, which a traced one does not name."""
    known = not isinstance(like, np.ndarray) and not _xp.is_traced(like)
    return xp.zeros(shape, dtype=like.dtype, **({"device": like.device} if known else {}))


def qr(xp: Any, f: Any) -> tuple[Any, Any]:
    """Orthonormal columns and a triangle, also of nothing."""
    n, r = f.shape
    if 0 in (n, r):
        return zeros(xp, (n, 0), f), zeros(xp, (0, r), f)
    q, r = xp.linalg.qr(f)
    return q, r


# --- Tucker --------------------------------------------------------------------------------------


def products(x: Any, factors: Sequence[Any]) -> Any:
    """``X x_1 F_1 ... x_d F_d``; also of sizes zero."""
    if any(0 in f.shape for f in factors):
        for mode, f in enumerate(factors):
            x = _unfold.mode_product(x, f, mode)
        return x
    return _unfold.mode_products(x, factors)


def orthogonalized(core: Any, factors: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The same tensor with orthonormal columns: triangles go into the core."""
    xp = _xp.namespace(core)
    reduced = [qr(xp, f) for f in factors]
    return products(core, [r for _, r in reduced]), [q for q, _ in reduced]


def contracted(core: Any, rows: dict[int, Any]) -> Any:
    """The core times a vector in some modes, which go."""
    xp = _xp.namespace(core)
    for mode in sorted(rows, reverse=True):
        row = rows[mode]
        core = _unfold.mode_product(core, xp.reshape(row, (1, row.shape[0])), mode)
        core = xp.reshape(core, (*core.shape[:mode], *core.shape[mode + 1 :]))
    return core


def entries(core: Any, rows: Sequence[Any]) -> Any:
    """``core x_1 a_1 ... x_d a_d`` for the rows a_k of d matrices (N, r_k): (N,).

    From the first mode to the last, ``N (r_1 ... r_d + r_2 ... r_d + ...)`` products.
    """
    xp = _xp.namespace(core)
    count, wide = rows[0].shape[0], max(1, math.prod(core.shape[1:]))
    step = max(1, BLOCK // wide)
    flat = xp.reshape(core, (core.shape[0], math.prod(core.shape[1:])))
    parts = []
    for i in range(0, max(count, 1), step):
        j = min(i + step, count)
        block = [row[i:j, :] for row in rows]
        total = block[0] @ flat
        for row in block[1:]:
            n, r = row.shape
            rest = total.shape[1] // max(r, 1)
            total = xp.reshape(row[:, None, :] @ xp.reshape(total, (n, r, rest)), (n, rest))
        parts.append(total[:, 0])
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def tucker_sum(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Factors side by side, cores on the diagonal of a core of blocks."""
    xp = _xp.namespace(a[0])
    first, second = _padded(xp, a[0], b[0].shape, True), _padded(xp, b[0], a[0].shape, False)
    return first + second, [xp.concat([f, g], axis=1) for f, g in zip(a[1:], b[1:], strict=True)]


def _padded(xp: Any, core: Any, by: Sequence[int], behind: bool) -> Any:
    for mode, extra in enumerate(by):
        shape = (*core.shape[:mode], extra, *core.shape[mode + 1 :])
        parts = [core, zeros(xp, shape, core)]
        core = xp.concat(parts if behind else parts[::-1], axis=mode)
    return core


def hadamard(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Rows of the factors multiply as Kronecker products do, and so do the cores."""
    xp = _xp.namespace(a[0])
    d = a[0].ndim
    x = xp.reshape(a[0], tuple(n for r in a[0].shape for n in (r, 1)))
    y = xp.reshape(b[0], tuple(n for r in b[0].shape for n in (1, r)))
    core = xp.reshape(x * y, tuple(a[0].shape[k] * b[0].shape[k] for k in range(d)))
    return core, row_products(xp, a[1:], b[1:])


def row_products(xp: Any, a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    """Rows (n, r s) of products of the rows of (n, r) and (n, s)."""
    return [
        xp.reshape(f[:, :, None] * g[:, None, :], (f.shape[0], f.shape[1] * g.shape[1]))
        for f, g in zip(a, b, strict=True)
    ]


def tucker_inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """``<A, B>`` with A conjugated: the core of B seen in the factors of A."""
    xp = _xp.namespace(a[0])
    seen = products(
        b[0], [adjoint(xp, f) @ g for f, g in zip(a[1:], b[1:], strict=True)]
    )  # fmt: skip
    return xp.sum(conj(xp, a[0]) * seen)


def dense_inner(a: Sequence[Any], x: Any) -> Any:
    """``<A, X>`` of a Tucker tensor, which is conjugated, and a dense one."""
    xp = _xp.namespace(x)
    return xp.sum(conj(xp, a[0]) * products(x, [adjoint(xp, f) for f in a[1:]]))


def mixed_inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """``<A, B>`` of a Tucker tensor, which is conjugated, and a canonical one."""
    xp = _xp.namespace(a[0])
    rows = [
        xp.matrix_transpose(adjoint(xp, f) @ g) for f, g in zip(a[1:], b[1:], strict=True)
    ]  # fmt: skip
    return xp.sum(b[0] * entries(conj(xp, a[0]), rows))


# --- Canonical -----------------------------------------------------------------------------------


def columns(weights: Any, factors: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
    """Weights of columns of length one, the columns, and what makes their length one.

    All in double precision. Columns whose squares are in range stay as they are; those of zeros
    have the factor one.
    """
    xp = _xp.namespace(weights)
    weights, found, inverses = double(xp, weights), [], []
    for f in factors:
        f = double(xp, f)
        f, length = _lengths(xp, f)
        found.append(f)
        inverses.append(1.0 / length[1])
        weights = weights * (length[0] * length[1])
    return weights, found, inverses


def _lengths(xp: Any, f: Any) -> tuple[Any, tuple[Any, Any]]:
    """Columns, by what they were divided, and their lengths then."""
    one = xp.ones_like(xp.sum(xp.abs(f[:0, :]), axis=0))
    square = _squares(xp, f)
    # of squares in this range neither the root nor its inverse has lost anything
    tiny = float(np.finfo(_xp.dtype_name(square)).tiny) ** 0.6
    fit = (square > tiny) & (square < 1 / tiny)
    if not _xp.is_traced(f) and bool(xp.all(fit)):
        return f, (one, xp.sqrt(square))
    top = xp.max(xp.abs(f), axis=0) if 0 not in f.shape else one
    top = xp.where(top > 0, top, one)
    f = f / top
    square = _squares(xp, f)
    return f, (top, xp.sqrt(xp.where(square > 0, square, one)))


def _squares(xp: Any, f: Any) -> Any:
    if isinstance(f, np.ndarray):
        parts = (f.real, f.imag) if f.dtype.kind == "c" else (f,)
        return sum(np.einsum("ij,ij->j", p, p) for p in parts)
    return xp.sum(xp.abs(f) ** 2, axis=0)


def unit_columns(weights: Any, factors: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Columns of norm one, or zero; their norms go into the weights, in double precision."""
    weights, found, inverses = columns(weights, factors)
    return weights, [f * inverse for f, inverse in zip(found, inverses, strict=True)]


def summed(weights: Any, factors: Sequence[Any]) -> Any:
    """``sum_r w_r z1_r o z2_r o ...`` (r_1, ..., r_d), of blocks of columns.

    ``(Z_1 w) (Z_2 kr ... kr Z_d)^T``: ``2 R r_1 ... r_d`` operations, all in matrix products.
    """
    xp = _xp.namespace(weights)
    shape = tuple(f.shape[0] for f in factors)
    if len(factors) == 1:
        return factors[0] @ weights
    wide = max(1, math.prod(shape[1:]))
    step = max(64, BLOCK // wide)
    total = None
    for i in range(0, max(weights.shape[0], 1), step):
        j = min(i + step, weights.shape[0])
        block = [f[:, i:j] for f in factors]
        rest = block[1]
        for f in block[2:]:
            rest = xp.reshape(
                rest[:, None, :] * f[None, :, :], (rest.shape[0] * f.shape[0], f.shape[1])
            )
        part = (block[0] * weights[i:j]) @ xp.matrix_transpose(rest)
        total = part if total is None else total + part
    return xp.reshape(total, shape)


def column_inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """``<A, B>`` of canonical tensors, A conjugated: ``w^H (A_1^H B_1 * A_2^H B_2 * ...) v``."""
    xp = _xp.namespace(a[0])
    step = max(1, BLOCK // max(1, b[0].shape[0]))
    total = None
    for i in range(0, max(a[0].shape[0], 1), step):
        gram, j = None, min(i + step, a[0].shape[0])
        for f, g in zip(a[1:], b[1:], strict=True):
            part = adjoint(xp, f[:, i:j]) @ g
            gram = part if gram is None else gram * part
        part = xp.sum(conj(xp, a[0][i:j]) * (gram @ b[0]))
        total = part if total is None else total + part
    return total


def column_dense_inner(a: Sequence[Any], x: Any) -> Any:
    """``<A, X>`` of a canonical tensor, which is conjugated, and a dense one."""
    xp = _xp.namespace(x)
    conjugated = [conj(xp, f) for f in a[1:]]
    if x.ndim == 1:
        return xp.sum(conj(xp, a[0]) * (x @ conjugated[0]))
    seen = mttkrp(x, conjugated, 0, check_finite=False)
    return xp.sum(conj(xp, a[0]) * xp.sum(conjugated[0] * seen, axis=0))
