"""Derivatives of products with Kronecker products: by the factors and by what they act on."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk.kronecker import _door
from linalgk.kronecker._apply import multiply
from linalgk.kronecker._ops import KRON
from linalgk.kronecker._product import SIDES, _fit, transposed, turned


class Flat(NamedTuple):
    """Sets of factors and a batch of data, as the primitive takes them."""

    factors: tuple[Any, ...]  # (c, p_i, q_i)
    shapes: tuple[tuple[int, ...], ...]  # of the factors as they were
    full: tuple[int, ...]  # the batch that all broadcast to
    sets: tuple[int, ...]  # the part of it, at the front, that factors differ along; c in all
    side: str

    def put(self, x: Any) -> Any:
        """(..., K, n), or (..., m, K) on the right, as (b, K, n)."""
        xp = _xp.namespace(x)
        if tuple(x.shape[:-2]) != self.full:
            x = xp.broadcast_to(x, (*self.full, *x.shape[-2:]))
        rows, columns = (int(n) for n in x.shape[-2:])
        count = math.prod(self.full)
        flat = (count, rows, columns) if self.side == "left" else (count * rows, columns, 1)
        return xp.reshape(_lag.contiguous(x), flat)

    def take(self, y: Any, like: Any) -> Any:
        """(b, K, n) in the shape of an array that was put, summed over what was broadcast."""
        xp = _xp.namespace(y)
        shape = tuple(int(n) for n in like.shape)
        return _fitted(xp.reshape(y, (*self.full, *shape[-2:])), shape)


def flatten(factors: Sequence[Any], batch: tuple[int, ...], side: str) -> Flat:
    """Factors for data of a batch shape, in no more copies than they need.

    Axes at the end of the batch that no factor has belong to the data.
    """
    xp = _xp.namespace(factors[0])
    shapes = tuple(tuple(int(n) for n in f.shape) for f in factors)
    own = np.broadcast_shapes(*(s[:-2] for s in shapes))
    full = np.broadcast_shapes(own, batch)
    kept = (1,) * (len(full) - len(own)) + own
    while kept and kept[-1] == 1:
        kept = kept[:-1]
    sets = tuple(full[: len(kept)])
    flat = []
    for f, s in zip(factors, shapes, strict=True):
        lead = ((1,) * (len(full) - len(s) + 2) + s[:-2])[: len(sets)]
        if lead != s[:-2]:
            f = xp.reshape(f, (*lead, *s[-2:]))
        if lead != sets:
            f = xp.broadcast_to(f, (*sets, *s[-2:]))
        f = xp.matrix_transpose(f) if side == "right" else f
        flat.append(_lag.contiguous(xp.reshape(f, (math.prod(sets), *f.shape[-2:]))))
    return Flat(tuple(flat), shapes, tuple(full), sets, side)


def product(factors: Sequence[Any], x: Any) -> Any:
    """``K x`` for x (..., K, n), where axes of size one are no reason to copy factors."""
    flat = flatten(factors, tuple(x.shape[:-2]), "left")
    p, q = ([int(f.shape[axis]) for f in flat.factors] for axis in (-2, -1))
    y = _modes(flat, flat.put(x), 0, len(p), q, p, turned=False)
    return _xp.namespace(y).reshape(y, (*flat.full, math.prod(p), y.shape[-1]))


def factor_gradients(
    factors: Sequence[Any], x: Any, g: Any, *, side: str = "left",
    wanted: Sequence[bool] | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Gradients by the factors of a loss whose gradient by ``y = K x`` is ``g``; None if unwanted.

    Factors (..., p_i, q_i), x (..., K, n) and g (..., P, n); on the right x (..., m, P) and g
    (..., m, K). All have entered, in one dtype. Each gradient has the shape of its factor.
    """
    return gradients(factors, x, g, side=side, wanted=wanted, by_x=False)[0]


def gradients(
    factors: Sequence[Any], x: Any, g: Any, *, side: str = "left",
    wanted: Sequence[bool] | None = None, by_x: bool = True,
) -> tuple[tuple[Any, ...], Any]:  # fmt: skip
    """As `factor_gradients`, and the gradient ``K^H g`` by x, to which the same products lead.

    ``dF_i = U_i V_i^H``, unfolded by mode i, with ``U = (F_1^H kron ... kron F_(i-1)^H kron I) g``
    and ``V = (I kron F_(i+1) kron ... kron F_N) x``: every U is a product with the one before,
    every V with the one behind; factors side by side that nobody asks for are one product.
    """
    xp = _xp.namespace(x)
    count = len(factors)
    ask = [True] * count if wanted is None else list(wanted)
    flat = flatten(factors, np.broadcast_shapes(tuple(x.shape[:-2]), tuple(g.shape[:-2])), side)
    p = [int(f.shape[-2]) for f in flat.factors]
    q = [int(f.shape[-1]) for f in flat.factors]
    asked = [i for i in range(count) if ask[i]]
    # with U conjugated no other array of this size has to be
    u = _conj(flat.put(g))
    right = _suffixes(flat, flat.put(x), asked, q, p)
    found: list[Any] = [None] * count
    done = 0
    for i in asked:
        u = _modes(flat, u, done, i, q, p, turned=True)
        done = i
        y = _contracted(u, right.pop(), math.prod(flat.sets), math.prod(q[:i]), p[i], q[i])
        y = _conj(xp.matrix_transpose(y) if side == "right" else y)
        lead = (1,) * (len(flat.full) - len(flat.sets))
        y = xp.reshape(y, (*flat.sets, *lead, *y.shape[1:]))
        found[i] = _fitted(y, flat.shapes[i])
    if not by_x:
        return tuple(found), None
    u = _modes(flat, u, done, count, q, p, turned=True)
    return tuple(found), flat.take(_conj(u), x)


def _suffixes(flat: Flat, x: Any, asked: list[int], q: list[int], p: list[int]) -> list[Any]:
    """``(I kron F_(i+1) kron ... F_N) x`` for the modes that are asked for, the first one last."""
    found, done = [], len(p)
    for i in reversed(asked):
        x = _modes(flat, x, i + 1, done, q, p, turned=False)
        done = i + 1
        found.append(x)
    return found


def _modes(
    flat: Flat, x: Any, start: int, stop: int, q: list[int], p: list[int], *, turned: bool
) -> Any:  # fmt: skip
    """Factors ``start:stop`` on their modes; on what ``K`` gives transposed, else on what it takes.

    Modes before have sizes q, those behind sizes p, in both directions.
    """
    if start == stop:
        return x
    xp = _xp.namespace(x)
    factors = flat.factors[start:stop]
    if turned:
        factors = tuple(_lag.contiguous(xp.matrix_transpose(f)) for f in factors)
    inside = math.prod((p if turned else q)[start:stop])
    outside = math.prod((q if turned else p)[start:stop])
    b, _, n = x.shape
    before, behind = math.prod(q[:start]), math.prod(p[stop:]) * n
    if 0 in (b, before, inside, outside, behind):
        return xp.zeros((b, before * outside * math.prod(p[stop:]), n), dtype=x.dtype, **_on(x))
    x = xp.reshape(x, (b * before, inside, behind))
    x = KRON(x, factors, _config.num_threads(), None)
    return xp.reshape(x, (b, before * outside * math.prod(p[stop:]), n))


# Matrices with fewer columns are gathered, because a product of many of them is slow.
_FEW = 32


def _contracted(u: Any, v: Any, c: int, before: int, p: int, q: int) -> Any:
    """``sum_j U_j V_j^T`` over all but the mode; (c, p, q)."""
    xp = _xp.namespace(u)
    if 0 in u.shape or 0 in v.shape:
        return xp.zeros((c, p, q), dtype=u.dtype, **_on(u))
    each = u.shape[0] // c * before
    behind = math.prod(u.shape) // (c * each * p)
    u, v = xp.reshape(u, (c, each, p, behind)), xp.reshape(v, (c, each, q, behind))
    if behind == 1:
        return xp.matmul(xp.matrix_transpose(u[..., 0]), v[..., 0])
    if each == 1:
        return xp.matmul(u[:, 0, ...], xp.matrix_transpose(v[:, 0, ...]))
    if behind >= max(_FEW, q):
        return xp.sum(xp.matmul(u, xp.matrix_transpose(v)), axis=1)
    u, v = (xp.reshape(xp.permute_dims(t, (0, 2, 1, 3)), (c, t.shape[2], -1)) for t in (u, v))
    return xp.matmul(u, xp.matrix_transpose(v))


def _fitted(y: Any, shape: tuple[int, ...]) -> Any:
    """Summed over the axes that an array of this shape was broadcast along."""
    xp = _xp.namespace(y)
    lead = (1,) * (y.ndim - len(shape)) + shape
    axes = tuple(i for i in range(y.ndim - 2) if lead[i] == 1 and y.shape[i] != 1)
    y = xp.sum(y, axis=axes, keepdims=True) if axes else y
    return xp.reshape(y, shape)


def _conj(x: Any) -> Any:
    return _xp.namespace(x).conj(x) if _xp.dtype_name(x) in _xp.COMPLEX else x


def _on(x: Any) -> dict[str, Any]:
    """The device of an array, as its library takes it."""
    return {} if isinstance(x, np.ndarray) else {"device": x.device}


# ---- for callers without PyTorch and JAX ---------------------------------------------------------


class KronGradients(NamedTuple):
    """A product, and gradients by the factors and by the array that it was taken with."""

    value: Any
    factors: tuple[Any, ...]
    x: Any


class KronTangent(NamedTuple):
    """A product and its derivative in a direction."""

    value: Any
    derivative: Any


def kron_matmul_vjp(
    factors: Sequence[Any], x: Any, g: Any, /, *, side: Literal["left", "right"] = "left",
    trans: Sequence[bool | str] | bool | str | None = None,
) -> KronGradients:  # fmt: skip
    """Gradients of a loss by factors and array from its gradient by their `kron_matmul`.

    Parameters
    ----------
    factors : sequence of N arrays, shapes (..., p_i, q_i)
        As in `kron_matmul`.
    x : array, shape (K,), (..., K, n) or, on the right, (..., m, K)
        As in `kron_matmul`.
    g : array, of the shape of ``kron_matmul(factors, x)``
        Gradient by the product.
    side, trans
        As in `kron_matmul`.

    Returns
    -------
    value : array
        ``kron_matmul(factors, x)``.
    factors : tuple of N arrays
        D_i in the shape of F_i, with ``Re <G, dY> = sum_i Re <D_i, dF_i> + Re <D_x, dX>`` for all
        directions; real for a real factor. Summed over batch axes that a factor does not have.
    x : array
        D_x in the shape of x: the product of G with the adjoint factors.

    Raises
    ------
    TypeError, ValueError
        As `kron_matmul` does.

    See Also
    --------
    kron_matmul_jvp : forward.

    Notes
    -----
    ``D_i`` is the product of the unfoldings by mode i of ``(F_1 kron ... kron F_(i-1) kron I)^H G``
    and ``(I kron F_(i+1) kron ... kron F_N) X`` [1]_. Each of those is the product of one factor
    with the one before: ``2 N - 1`` products by one mode and N of unfoldings for all gradients
    together, ``3 - 1/N`` times the operations of the product itself. Memory for N arrays of the
    size of x. The relative error is that of these products.

    References
    ----------
    .. [1] T. G. Kolda, B. W. Bader, "Tensor decompositions and applications", SIAM Review 51
       (2009), equation (2.1) and section 2.6.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, b = np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])
    >>> value, by_factors, by_x = lk.grad.kron_matmul_vjp([a, b], np.array([1.0, 1.0]), np.ones(2))
    >>> value
    array([ 9., 12.])
    >>> by_factors[0], by_x
    (array([[7., 7.]]), array([ 7., 14.]))
    """
    _validate.choice("side", side, SIDES)
    given = _door.matrices("factors", factors)
    flags = transposed(trans, len(given))
    x, g = _xp.as_array("x", x), _xp.as_array("g", g)
    vector = _fit(given, x, side, flags)
    with _lag.scope(x):
        entered = _entered(given, x=x, g=g)
        inside, (u, h) = turned(entered.arrays[:-2], flags), entered.arrays[-2:]
        u = _widened(u, side) if vector else u
        value = multiply(inside, u, side=side)
        shape = _narrowed(value, side).shape if vector else value.shape
        if tuple(g.shape) != tuple(shape):
            msg = f"g: must have the shape of the product, {tuple(shape)}, got {tuple(g.shape)}"
            raise ValueError(msg)
        h = _xp.namespace(h).reshape(h, value.shape)
        found, by_x = gradients(inside, u, h, side=side)
        by_factors = turned(found, flags)
        value, by_x = (_narrowed(y, side) if vector else y for y in (value, by_x))
        return KronGradients(
            entered.leave(value),
            tuple(_left(y, f, entered) for y, f in zip(by_factors, given, strict=True)),
            _left(by_x, x, entered),
        )


def kron_matmul_jvp(
    factors: Sequence[Any], x: Any, dfactors: Sequence[Any], dx: Any, /, *,
    side: Literal["left", "right"] = "left",
    trans: Sequence[bool | str] | bool | str | None = None,
) -> KronTangent:  # fmt: skip
    """Derivative of `kron_matmul` in a direction.

    Parameters
    ----------
    factors, x
        As in `kron_matmul`.
    dfactors : sequence of N arrays or None, shapes of the factors
        Directions; None for a factor that does not move.
    dx : array or None, shape of x
        Direction.
    side, trans
        As in `kron_matmul`.

    Returns
    -------
    value, derivative : array
        ``K x`` and ``K dx + sum_i (F_1 kron ... kron dF_i kron ... kron F_N) x``.

    Raises
    ------
    TypeError, ValueError
        As `kron_matmul` does; also if a direction is not of the shape of what it moves.

    See Also
    --------
    kron_matmul_vjp : backward.

    Notes
    -----
    Modes go from the last to the first; each takes the product and its derivative a step further,
    ``dV <- F_i dV + dF_i V`` before ``V <- F_i V``: about three times the operations of the product
    itself.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, b, x = np.array([[2.0]]), np.array([[3.0]]), np.array([1.0])
    >>> lk.grad.kron_matmul_jvp([a, b], x, [np.array([[1.0]]), None], np.array([1.0])).derivative
    array([9.])
    """
    _validate.choice("side", side, SIDES)
    given = _door.matrices("factors", factors)
    flags = transposed(trans, len(given))
    x = _xp.as_array("x", x)
    vector = _fit(given, x, side, flags)
    if not isinstance(dfactors, Sequence) or len(dfactors) != len(given):
        msg = f"dfactors: must have one direction, or None, for each of {len(given)} factors"
        raise ValueError(msg)
    moved = {f"factors[{i}]": f for i, f in enumerate(given)} | {"x": x}
    ways = {
        f"d{name}": _way(f"d{name}", way, f)
        for (name, f), way in zip(moved.items(), (*dfactors, dx), strict=True)
        if way is not None
    }
    with _lag.scope(x):
        entered = _door.enter(moved | ways)
        named = dict(zip((*moved, *ways), entered.arrays, strict=True))
        fs, dfs = ([named.get(f"{d}factors[{i}]") for i in range(len(given))] for d in ("", "d"))
        flat, dflat = named["x"], named.get("dx")
        fs = turned(fs, flags)
        dfs = [None if d is None else turned([d], (t,))[0] for d, t in zip(dfs, flags, strict=True)]
        if vector:
            flat, dflat = (None if y is None else _widened(y, side) for y in (flat, dflat))
        value, derivative = _tangent(fs, flat, dfs, dflat, side)
        value, derivative = (_narrowed(y, side) if vector else y for y in (value, derivative))
        return KronTangent(entered.leave(value), entered.leave(derivative))


def _tangent(
    factors: list[Any], x: Any, ways: list[Any], dx: Any, side: str
) -> tuple[Any, Any]:  # fmt: skip
    """The product and its derivative, by Horner's rule over the modes."""
    xp = _xp.namespace(x)
    moving = [f if d is None else d for f, d in zip(factors, ways, strict=True)]
    flat = flatten(factors, tuple(x.shape[:-2]), side)
    # directions have the shapes of factors and go the same way
    dflat = flatten(moving, tuple(x.shape[:-2]), side)
    p, q = ([int(f.shape[axis]) for f in flat.factors] for axis in (-2, -1))
    v, dv = flat.put(x), None if dx is None else flat.put(dx)
    for i in reversed(range(len(p))):
        dv = None if dv is None else _modes(flat, dv, i, i + 1, q, p, turned=False)
        if ways[i] is not None:
            step = _modes(dflat, v, i, i + 1, q, p, turned=False)
            dv = step if dv is None else dv + step
        v = _modes(flat, v, i, i + 1, q, p, turned=False)
    rows, columns = (int(n) for n in x.shape[-2:])
    shape = (math.prod(p), columns) if side == "left" else (rows, math.prod(p))
    dv = xp.zeros_like(v) if dv is None else dv
    v, dv = (xp.reshape(y, (*flat.full, *shape)) for y in (v, dv))
    return v, dv


def _entered(factors: list[Any], **others: Any) -> _door.Entered:
    return _door.enter({f"factors[{i}]": f for i, f in enumerate(factors)} | others)


def _way(name: str, way: Any, like: Any) -> Any:
    """A direction of the shape of what it moves."""
    way = _xp.as_array(name, way)
    if tuple(way.shape) != tuple(like.shape):
        msg = f"{name}: must have the shape of {name[1:]}, {tuple(like.shape)}, got "
        raise ValueError(msg + str(tuple(way.shape)))
    return way


def _left(y: Any, like: Any, entered: _door.Entered) -> Any:
    """A gradient by an argument: real where that is."""
    real = _xp.dtype_name(y) in _xp.COMPLEX and _xp.dtype_name(like) not in _xp.COMPLEX
    return entered.leave(_xp.namespace(y).real(y) if real else y)


def _widened(x: Any, side: str) -> Any:
    return x[:, None] if side == "left" else x[None, :]


def _narrowed(x: Any, side: str) -> Any:
    return x[..., 0] if side == "left" else x[..., 0, :]
