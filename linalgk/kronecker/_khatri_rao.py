"""Khatri-Rao products, and products with them that are never formed."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.kronecker import _blocks, _door
from linalgk.kronecker._mttkrp_ops import MTTKRP
from linalgk.kronecker._mttkrp_steps import contracted, split
from linalgk.typing import Array, ArrayT

METHODS = ("matmul", "fold", "scale", "form", "contract")
# Up to so many columns the product is one of (p k, R) by (R, q), and turned over; matrices with
# fewer rows are not worth a product of their own.
_FEW, _SHORT = 4, 16
# Numbers of the part of the second factor that stays in the nearest cache, and of a block.
_NEAR, _BLOCK = 1 << 15, 1 << 17


def khatri_rao(mats: Sequence[Any], /, *, out: Any = None) -> Array:
    """Khatri-Rao product of matrices: the Kronecker product of their columns, one by one.

    Column r of the result is ``A_1[:, r] kron A_2[:, r] kron ... kron A_N[:, r]``.

    Parameters
    ----------
    mats : sequence of N arrays, shapes (..., n_i, R)
        One or more; batch axes broadcast. Mixed dtypes promote, integers are computed in float64,
        float16 and bfloat16 stored as they came.
    out : array, optional
        Where to put the result; it may not overlap a matrix.

    Returns
    -------
    y : array, shape (..., n_1 n_2 ... n_N, R)
        The row index of the last matrix runs fastest.

    Raises
    ------
    TypeError
        If ``mats`` is one array, or its arrays are of several libraries or no numbers.
    ValueError
        If there are no matrices, or they have different numbers of columns.

    See Also
    --------
    khatri_rao_matmul : products with it, without its memory.
    mttkrp : products of unfolded tensors with it.
    scipy.linalg.khatri_rao : of two.

    Notes
    -----
    ``n_1 ... n_N R (1 + 1/n_N + ...)`` multiplications from the first matrix to the last, N - 1
    roundings for each number. NaN and infinity stay in their column.

    References
    ----------
    .. [1] T. G. Kolda, B. W. Bader, "Tensor decompositions and applications", SIAM Review 51
       (2009), section 2.6.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.khatri_rao([np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0], [0.0, 2.0]])])
    array([[1., 2.],
           [0., 4.],
           [3., 4.],
           [0., 8.]])
    """
    given, named = _matrices(mats)
    with _lag.scope(given[0]):
        entered = _door.enter(named)
        shape = (*_batch(given), math.prod(_sizes(given)), int(given[0].shape[-1]))
        view = None if out is None else _blocks.target(out, entered, named, shape)
        y = _formed(entered.arrays, _blocks.in_place(view, entered))
        if view is None:
            return entered.leave(y)
        _blocks.put(y, view, entered)
        return out


def khatri_rao_matmul(
    mats: Sequence[Any],
    x: ArrayT,
    /,
    *,
    trans: bool = False,
    out: Any = None,
    check_finite: bool | None = None,
) -> ArrayT:
    """Product of a Khatri-Rao product, or its transpose, with a matrix, without forming it.

    Parameters
    ----------
    mats : sequence of N arrays, shapes (..., n_i, R)
        As in `khatri_rao`, of which the result is K, of shape (..., n, R) with ``n = n_1 ... n_N``.
    x : array, shape (R,) or (..., R, k); (n,) or (..., n, k) with ``trans``
        Batch axes broadcast with those of ``mats``.
    trans : bool, optional
        ``K.T @ x`` instead of ``K @ x``. There is no conjugation: for ``K^H x`` conjugate ``mats``.
    out : array, optional
        Where to put the result; it may not overlap x nor a matrix.
    check_finite : bool, optional
        Look for NaN and infinity in ``mats``. Default from `linalgk.config_context`.

    Returns
    -------
    y : array, shape (n,) or (..., n, k); (R,) or (..., R, k) with ``trans``
        In the library and on the device of x.

    Raises
    ------
    TypeError
        If ``mats`` is one array, or arrays are of several libraries or no numbers.
    ValueError
        If sizes do not fit; the message has the product of sizes.
    NonFiniteError
        If a matrix holds NaN or infinity.

    See Also
    --------
    kron_matmul : products with a Kronecker product.
    mttkrp : for tensors, by any of their modes.

    Notes
    -----
    The matrices are split in two groups, of which the Khatri-Rao products are A, of p rows, and B,
    of q rows, n = p q: ``K x`` has the blocks ``B diag(A[i, :]) x``, a product of B with p k scaled
    columns [1]_. That costs ``2 n R k`` operations, as the formed product would, ``p R k`` more
    instead of the n R of forming it, and memory for A and B, for blocks of the size of a cache and
    for the result. With one column the whole is the product ``(A diag(x)) B^T``. Where q is small,
    or less than k, K is formed block by block. ``K^T x`` contracts the tensor x over B first and
    over A then, as `mttkrp` does. On NumPy arrays blocks are shared among threads; their number
    does not change a bit.

    To first order ``|error| <= (R + N) u |K| |x|``, with n in place of R for the transpose, u
    the unit roundoff. Attention between triples [2]_, and features of low degree in general, are
    products with ``K`` and its transpose of keys and values.

    References
    ----------
    .. [1] C. G. Khatri, C. R. Rao, "Solutions to some functional equations and their applications
       to characterization of probability distributions", Sankhya A 30 (1968).
    .. [2] J. Alman, Z. Song, "How to capture higher-order correlations? Generalizing matrix
       softmax attention to Kronecker computation", ICLR (2024), arXiv:2310.04064.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> mats = [rng.standard_normal((n, 3)) for n in (4, 5, 6)]
    >>> x, y = rng.standard_normal((3, 2)), rng.standard_normal(120)
    >>> formed = lk.khatri_rao(mats)
    >>> bool(np.allclose(lk.khatri_rao_matmul(mats, x), formed @ x))
    True
    >>> bool(np.allclose(lk.khatri_rao_matmul(mats, y, trans=True), formed.T @ y))
    True
    """
    given, named = _matrices(mats)
    x = cast(Any, _xp.as_array("x", x))
    vector = _fit(given, x, trans)
    with _lag.scope(x), _config.blas_threads():
        named = {"x": x, **named}
        entered = _door.enter(named)
        data, *inside = entered.arrays
        if _validate.check_finite(check_finite) and not any(map(_xp.is_traced, inside)):
            _door.check_finite("mats", inside)
        data = data[:, None] if vector else data
        batch = np.broadcast_shapes(_batch(inside), tuple(data.shape[:-2]))
        rows = int(inside[0].shape[-1]) if trans else math.prod(_sizes(inside))
        full = (*batch, rows, int(data.shape[-1]))
        shape = full[:-1] if vector else full
        view = None if out is None else _blocks.target(out, entered, named, shape)
        room = _blocks.in_place(view, entered)
        room = None if room is None else room.reshape(full)
        y = _product(inside, data, trans, full, room)
        if view is not None and y is room:
            return cast(ArrayT, out)
        y = _xp.namespace(y).reshape(y, shape)
        if view is None:
            return cast(ArrayT, entered.leave(y))
        _blocks.put(y, view, entered)
        return cast(ArrayT, out)


# --- The door -------------------------------------------------------------------------------------


def _matrices(mats: Any) -> tuple[list[Any], dict[str, Any]]:
    """Matrices with one number of columns, and their names."""
    given = _door.matrices("mats", mats)
    columns = given[0].shape[-1]
    for i, x in enumerate(given):
        if x.shape[-1] != columns:
            msg = (
                f"mats[{i}]: must have as many columns as mats[0], {columns}, got {x.shape[-1]} "
                f"(shape {tuple(x.shape)})"
            )
            raise ValueError(msg)
    batches = [tuple(x.shape[:-2]) for x in given]
    try:
        np.broadcast_shapes(*batches)
    except ValueError:
        msg = f"mats: batch shapes {', '.join(map(str, batches))} do not broadcast"
        raise ValueError(msg) from None
    return given, {f"mats[{i}]": x for i, x in enumerate(given)}


def _fit(mats: list[Any], x: Any, trans: bool) -> bool:
    """Whether x is a vector, if its size fits."""
    if not x.ndim:
        msg = "x: must be a vector or matrices, got a number"
        raise ValueError(msg)
    sizes, vector = _sizes(mats), bool(x.ndim == 1)
    got, shape = x.shape[0 if vector else -2], tuple(x.shape)
    what = "entries" if vector else "rows"
    if not trans and got != mats[0].shape[-1]:
        columns = mats[0].shape[-1]
        msg = f"x: needs {columns} {what}, the columns of mats, got {got} (shape {shape})"
        raise ValueError(msg)
    if trans and got != math.prod(sizes):
        product = " * ".join(map(str, sizes))
        total = f"{product} = {math.prod(sizes)}" if len(sizes) > 1 else product
        msg = f"x: needs {total} {what}, got {got} (shape {shape})"
        raise ValueError(msg)
    batches = _batch(mats), () if vector else shape[:-2]
    try:
        np.broadcast_shapes(*batches)
    except ValueError:
        msg = f"mats, x: batch shapes {batches[0]} and {batches[1]} do not broadcast"
        raise ValueError(msg) from None
    return vector


def _sizes(mats: Sequence[Any]) -> list[int]:
    return [int(x.shape[-2]) for x in mats]


def _batch(mats: Sequence[Any]) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(*(tuple(x.shape[:-2]) for x in mats)))


# --- Products -------------------------------------------------------------------------------------


def _formed(mats: Sequence[Any], room: Any = None) -> Any:
    """The Khatri-Rao product, into ``room`` if that is given."""
    xp, y = _xp.namespace(mats[0]), mats[0]
    if len(mats) == 1 and room is None:
        return xp.asarray(y, copy=True)
    for number, x in enumerate(mats[1:], 2):
        batch = np.broadcast_shapes(tuple(y.shape[:-2]), tuple(x.shape[:-2]))
        p, q, r = int(y.shape[-2]), int(x.shape[-2]), int(x.shape[-1])
        left, right = y[..., :, None, :], x[..., None, :, :]
        if room is not None and number == len(mats):
            np.multiply(left, right, out=room.reshape((*batch, p, q, r)))
            return room
        y = xp.reshape(left * right, (*batch, p * q, r))
    return y


def _product(
    mats: list[Any], x: Any, trans: bool, shape: tuple[int, ...], room: Any
) -> Any:  # fmt: skip
    """The product of shape (..., rows, columns); ``room`` itself if it was put there."""
    xp = _xp.namespace(x)
    batch, count = shape[:-2], math.prod(shape[:-2])
    if 0 in shape or 0 in x.shape[-2:]:
        return xp.zeros(shape, dtype=x.dtype, **_blocks.place(x))
    rank = int(mats[0].shape[-1])
    if not batch:
        return _one(mats, x, trans, room)
    numbers = math.prod(_sizes(mats)) * rank
    if numbers * (count if _batch(mats) else 1) <= _blocks.entries(x):
        k = _formed(mats)
        return xp.matmul(xp.matrix_transpose(k) if trans else k, x)
    flat = [
        xp.reshape(xp.broadcast_to(a, (*batch, *a.shape[-2:])), (count, *a.shape[-2:]))
        for a in (x, *mats)
    ]
    y = room
    if room is None and isinstance(x, np.ndarray):
        y = np.empty(shape, x.dtype)
    spaces = [None] * count if y is None else list(y.reshape((count, *shape[-2:])))
    if numbers <= _blocks.entries(x):
        # members that are small by themselves, some at a time
        pieces = []
        for i, j in _blocks.ranges(count, numbers, _blocks.entries(x)):
            k = _formed([a[i:j, ...] for a in flat[1:]])
            part = xp.matmul(xp.matrix_transpose(k) if trans else k, flat[0][i:j, ...])
            if y is None:
                pieces.append(part)
            else:
                y.reshape((count, *shape[-2:]))[i:j] = part
        return xp.reshape(xp.concat(pieces), shape) if y is None else y
    found = [
        _one([a[i, ...] for a in flat[1:]], flat[0][i, ...], trans, space)
        for i, space in enumerate(spaces)
    ]
    return xp.reshape(xp.stack(found), (*batch, *shape[-2:])) if y is None else y


def _one(mats: list[Any], x: Any, trans: bool, room: Any) -> Any:
    """Of one member."""
    xp = _xp.namespace(x)
    sizes, k = _sizes(mats), int(x.shape[-1])
    method, at, _ = choose_method(sizes, k, trans=trans)
    if method == "matmul":
        a = xp.matrix_transpose(mats[0]) if trans else mats[0]
        return xp.matmul(a, x) if room is None else np.matmul(a, x, out=room)
    if method == "contract":
        tensor = xp.reshape(x, (*sizes, k))
        y = xp.matrix_transpose(contracted(tensor, [*mats, None], at, [len(sizes)])[len(sizes)])
        if room is None:
            return y
        room[...] = y
        return room
    a, b = _formed(mats[:at]), _formed(mats[at:])
    return _by_blocks(method, a, b, x, room)


def _by_blocks(method: str, a: Any, b: Any, x: Any, room: Any) -> Any:
    """``(A kr B) x`` for A (p, R), B (q, R) and x (R, k)."""
    xp, host = _xp.namespace(x), isinstance(x, np.ndarray)
    (p, rank), q, k = a.shape, int(b.shape[0]), int(x.shape[1])
    y = np.empty((p * q, k), x.dtype) if host and room is None else room
    cells = None if y is None else y.reshape((p, q, k))
    # other libraries get all of B at a time
    wide = max(64, _NEAR // max(rank, 1)) if host else q
    columns = [(j, min(j + wide, q)) for j in range(0, q, wide)]
    each = {"fold": k * (rank + min(wide, q)), "scale": k * (rank + min(wide, q))}.get(
        method, (rank + k) * min(wide, q)
    )
    room_each = _BLOCK if host else _blocks.entries(x)
    pieces = [(*r, *c) for c in columns for r in _blocks.ranges(p, each, room_each)]
    turned = xp.matrix_transpose(x)

    def work(i0: int, i1: int, j0: int, j1: int) -> Any:
        rows, part = a[i0:i1, :], b[j0:j1, :]
        cell = None if cells is None else cells[i0:i1, j0:j1, :]
        if method == "fold":
            scaled = xp.reshape(rows[:, None, :] * turned[None, :, :], ((i1 - i0) * k, rank))
            if cell is not None and k == 1:
                np.matmul(scaled, part.T, out=cell[:, :, 0])
                return None
            found = xp.reshape(xp.matmul(scaled, xp.matrix_transpose(part)), (i1 - i0, k, j1 - j0))
            found = xp.matrix_transpose(found)
        elif method == "scale":
            scaled = rows[:, :, None] * x[None, :, :]
            if cell is not None:
                np.matmul(part, scaled, out=cell)
                return None
            found = xp.matmul(part[None, :, :], scaled)
        else:
            formed = _formed([rows, part])
            found = xp.reshape(xp.matmul(formed, x), (i1 - i0, j1 - j0, k))
        if cell is None:
            return xp.reshape(found, ((i1 - i0) * q, k))
        cell[...] = found
        return None

    large = host and p * q * k * rank > _blocks.ENTRIES
    found = list(_blocks.mapped(work, pieces, host=large))
    return xp.concat(found) if y is None else y


def choose_method(
    sizes: Sequence[int], columns: int, *, trans: bool = False
) -> tuple[str, int, str]:
    """The method, how many matrices make the first group, and the reason.

    Beside the ``2 n R k`` operations of all methods, ``K x`` scales p R k numbers and forms groups
    of p and q rows where they have more than one matrix; ``K^T x`` is a contraction, see
    `linalgk.kronecker._mttkrp_steps.split`.
    """
    count = len(sizes)
    if count == 1:
        return "matmul", 1, "one matrix is its own Khatri-Rao product"
    if trans:
        at = split((*sizes, columns))
        return "contract", at, f"the last {count - at or 'no'} matrices are contracted first"

    def cost(at: int) -> tuple[int, int]:
        p, q = math.prod(sizes[:at]), math.prod(sizes[at:])
        return p * (columns + (at > 1)) + q * (count - at > 1), -at

    at = min(range(1, count), key=cost)
    q = math.prod(sizes[at:])
    if columns > q or q < _SHORT:
        return "form", at, f"the q = {q} rows of B are few beside the k = {columns} columns"
    if columns <= _FEW:
        return "fold", at, f"k = {columns} columns are few: one product for all scaled rows"
    return "scale", at, f"k = {columns} scaled columns are fewer than the q = {q} rows of B"


# --- What a call would run ------------------------------------------------------------------------


def explain_khatri_rao(mats: Any, /, **_: Any) -> Explanation:
    """What a call would run."""
    given, named = _matrices(mats)
    entered = _door.enter(named)
    numbers = math.prod(_batch(given)) * math.prod(_sizes(given)) * given[0].shape[-1]
    read = sum(math.prod(x.shape) for x in given)
    width, real = np.dtype(entered.dtype).itemsize, 6.0 if entered.dtype in _xp.COMPLEX else 1.0
    flops = real * numbers if len(given) > 1 else 0.0
    return Explanation(
        "khatri_rao", "form", "there is one method", {}, flops, float(width * (numbers + read))
    )


def explain_khatri_rao_matmul(
    mats: Any, x: Any, /, *, trans: bool = False, **_: Any
) -> Explanation:  # fmt: skip
    """What a call would run."""
    given, named = _matrices(mats)
    x = _xp.as_array("x", x)
    vector = _fit(given, x, trans)
    entered = _door.enter({"x": x, **named})
    sizes, rank, k = _sizes(given), int(given[0].shape[-1]), 1 if vector else int(x.shape[-1])
    batch = math.prod(np.broadcast_shapes(_batch(given), () if vector else tuple(x.shape[:-2])))
    method, at, reason = choose_method(sizes, k, trans=trans)
    numbers = math.prod(sizes) * rank
    if batch != 1 and numbers <= _blocks.entries(entered.arrays[0]):
        method, reason = "matmul", f"{numbers} numbers of each member fit the cache"
    p, n = math.prod(sizes[:at]), math.prod(sizes)
    more = p * rank * k if method in ("fold", "scale", "contract") else numbers
    real = 4.0 if entered.dtype in _xp.COMPLEX else 1.0
    flops = real * batch * (2.0 * numbers * k + (more if len(sizes) > 1 else 0))
    moved = batch * (n * k + rank * k + rank * sum(sizes)) * np.dtype(entered.dtype).itemsize
    runs = {}
    if method == "contract":
        chosen, why = MTTKRP.choose(*entered.arrays[:2], None, None, (False, False, True))
        runs["mttkrp_block"] = why if chosen is not None else f"reference ({why})"
    return Explanation("khatri_rao_matmul", method, reason, runs, flops, float(moved))


def sample_khatri_rao(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Three matrices."""
    sizes, rank = {"small": ((3, 4, 2), 5), "medium": ((30, 20, 10), 16),
                   "large": ((100, 100, 100), 32)}[size]  # fmt: skip
    generator = np.random.default_rng(rng)
    return ([xp.asarray(generator.standard_normal((n, rank))) for n in sizes],), {}


def sample_khatri_rao_matmul(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Three matrices, and what they are multiplied with."""
    (mats,), _ = sample_khatri_rao(size, xp=xp, rng=rng)
    k = {"small": 2, "medium": 16, "large": 64}[size]
    x = np.random.default_rng(rng).standard_normal((mats[0].shape[-1], k))
    return (mats, xp.asarray(x)), {}
