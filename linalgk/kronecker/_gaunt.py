"""Products of functions on the sphere that are given by their spherical harmonics."""

import functools
import math
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.kronecker import _blocks, _door
from linalgk.typing import ArrayT

GauntMethod: TypeAlias = Literal["auto", "dense", "separable"]
METHODS = get_args(GauntMethod)
# How many times the operations of a separable transform a dense one may take: it is one product.
_DENSE = 2.25


def gaunt_product(
    x: ArrayT,
    y: ArrayT,
    /,
    lmax: int | None = None,
    *,
    method: GauntMethod = "auto",
    out: Any = None,
) -> ArrayT:
    r"""Spherical harmonics of the product of two functions on the sphere.

    .. math:: z_{lm} = \sum_{l_1 m_1} \sum_{l_2 m_2} x_{l_1 m_1} y_{l_2 m_2}
              \int Y_{l_1 m_1} Y_{l_2 m_2} Y_{lm}\, d\Omega,

    the Gaunt tensor product of equivariant networks.

    Parameters
    ----------
    x, y : array, shapes (..., (L1 + 1)^2) and (..., (L2 + 1)^2)
        Coefficients of orthonormal real spherical harmonics; that of degree l and order m, from
        -l to l, is at ``l^2 + l + m``. Batch and channel axes broadcast.
    lmax : int, optional
        Degree of the result. Default ``L1 + L2``, the degree of the product.
    method : {"auto", "dense", "separable"}, optional
        How the grid is reached, see Notes.
    out : array, optional
        Where to put the result; it may not overlap x nor y.

    Returns
    -------
    z : array, shape (..., (lmax + 1)^2)
        Coefficients in the same order; those beyond ``L1 + L2`` are zero.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or no numbers.
    ValueError
        If a last axis does not have ``(L + 1)^2`` entries, or batch axes do not broadcast.

    Notes
    -----
    Both functions are evaluated on a grid, multiplied there, and expanded again [1]_. The integrals
    are exact: with ``L = L1 + L2 + lmax`` the integrand is a polynomial of that degree in
    :math:`\cos\theta` for all that does not vanish in :math:`\varphi`, for which
    ``ceil((L + 1) / 2)`` Gauss-Legendre nodes and ``L + 1`` equidistant angles are enough.

    ``separable`` evaluates by Legendre functions for each order and by a Fourier sum for each node,
    O(lmax^3) operations where the sum over all coefficients takes O(lmax^6), or O(lmax^5) of those
    that are not zero; ``dense`` multiplies with the harmonics at all points, O(lmax^4) in one
    product, which is faster for small degrees. Tables are computed once for each size and kept.

    The harmonics have no Condon-Shortley phase: :math:`Y_{lm} = \sqrt2 (-1)^m \Re Y_l^m` and
    :math:`Y_{l,-m} = \sqrt2 (-1)^m \Im Y_l^m` for m > 0 in terms of SciPy's ``sph_harm_y``, so that
    degree 1 is ``(3 / 4 pi)^(1/2) (y, z, x)``. Coefficients by another norm are scaled first.

    The error is that of three matrix products: a small multiple of
    :math:`u\,L\,\|x\| \|y\|`, u the unit roundoff; tables are right to the last bit or so, up to
    degrees of several hundred. NaN and infinity stay in their member.

    This product is symmetric in x and y: it has the Clebsch-Gordan paths with even
    ``l1 + l2 + l`` only, each with one fixed weight, and no antisymmetric ones (of two vectors it
    gives the scalar and the symmetric traceless product, never the cross product). It is less
    expressive than the full tensor product, which is where its speed comes from [2]_.

    References
    ----------
    .. [1] S. Luo, T. Chen, A. S. Krishnapriyan, "Enabling efficient equivariant operations in the
       Fourier basis via Gaunt tensor products", ICLR (2024), arXiv:2401.10216.
    .. [2] Y. Xie, A. Daigavane, M. Kotak, T. Smidt, "The price of freedom: exploring
       expressivity and runtime tradeoffs in equivariant tensor products", ICML (2025),
       arXiv:2506.13523: also where the grid is recommended.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> z = np.array([0.0, 0.0, 1.0, 0.0])  # cos(theta), up to its norm
    >>> c = lk.gaunt_product(z, z)  # its square: a constant and degree 2
    >>> np.flatnonzero(np.abs(c) > 1e-12)
    array([0, 6])
    >>> bool(np.isclose(c[0], 1 / np.sqrt(4 * np.pi)))
    True
    """
    _validate.choice("method", method, METHODS)
    x, y = (cast(Any, _xp.as_array(name, a)) for name, a in (("x", x), ("y", y)))
    first, second = _degree("x", x), _degree("y", y)
    lmax = first + second if lmax is None else _validate.integer("lmax", lmax, 0)
    batch = _batch(x, y)
    shape = (*batch, (lmax + 1) ** 2)
    named = {"x": x, "y": y}
    with _lag.scope(x), _config.blas_threads():
        entered = _door.enter(named)
        view = None if out is None else _blocks.target(out, entered, named, shape)
        f, g = entered.arrays
        z = _computed(f, g, (first, second, lmax), batch, method)
        if view is None:
            return cast(ArrayT, entered.leave(z))
        _blocks.put(z, view, entered)
        return cast(ArrayT, out)


def real_harmonics(lmax: int, theta: Any, phi: Any) -> Any:
    """Orthonormal real spherical harmonics, ((lmax + 1)^2, points); NumPy only.

    Row ``l^2 + l + m``, in the convention of `gaunt_product`. ``theta`` is the angle from the pole.
    """
    theta, phi = (np.asarray(t, np.longdouble) for t in (theta, phi))
    values = _legendre_functions(lmax, np.cos(theta), np.sin(theta))
    waves = _waves(lmax, phi)
    degree, order = _degrees(lmax)
    sine = (order < 0).astype(int)
    found = values[np.abs(order), degree] * waves[sine, np.abs(order)]
    return found.astype(np.float64)


# --- The door -------------------------------------------------------------------------------------


def _degree(name: str, x: Any) -> int:
    """The degree L of (..., (L + 1)^2) coefficients."""
    count = int(x.shape[-1]) if x.ndim else 0
    degree = math.isqrt(count) - 1
    if degree < 0 or (degree + 1) ** 2 != count:
        least = (degree + 1) ** 2
        near = f"{least} or {(degree + 2) ** 2}" if degree >= 0 else "1 or 4"
        msg = (
            f"{name}: its last axis must have (L + 1)^2 entries, one for each degree l <= L and "
            f"order, such as {near}, got shape {tuple(x.shape)}"
        )
        raise ValueError(msg)
    return degree


def _batch(x: Any, y: Any) -> tuple[int, ...]:
    """What the axes before the last broadcast to."""
    shapes = tuple(x.shape[:-1]), tuple(y.shape[:-1])
    try:
        return tuple(int(n) for n in np.broadcast_shapes(*shapes))
    except ValueError:
        msg = f"x, y: batch shapes {shapes[0]} and {shapes[1]} do not broadcast"
        raise ValueError(msg) from None


# --- The product ----------------------------------------------------------------------------------


class Grid(NamedTuple):
    """Numbers of Gauss-Legendre nodes and of angles."""

    nodes: int
    angles: int


def grid(first: int, second: int, lmax: int) -> Grid:
    """The least for which integrals of three harmonics of these degrees are exact."""
    total = first + second + lmax
    return Grid(-(-(total + 1) // 2), total + 1)


def choose_method(
    degrees: tuple[int, int, int], *, method: GauntMethod = "auto"
) -> tuple[str, str]:  # fmt: skip
    """The method, and the reason."""
    if method != "auto":
        return method, "it was asked for"
    dense, separable = costs(degrees)
    what = f"{dense} operations for a member, {separable} by separate angles"
    if dense <= _DENSE * separable:
        return "dense", f"one product each is the faster way for small degrees: {what}"
    return "separable", f"a dense transform takes {what}"


def costs(degrees: tuple[int, int, int]) -> tuple[int, int]:
    """Operations of a dense and of a separable transform of one member."""
    points = grid(*degrees)
    dense = sum(2 * (n + 1) ** 2 * points.nodes * points.angles for n in degrees)
    separable = sum(
        4 * (n + 1) ** 2 * points.nodes + 4 * (n + 1) * points.nodes * points.angles
        for n in degrees
    )
    return dense, separable


def _computed(
    x: Any, y: Any, degrees: tuple[int, int, int], batch: tuple[int, ...], method: GauntMethod
) -> Any:
    """The coefficients (..., (lmax + 1)^2)."""
    xp, count = _xp.namespace(x), math.prod(batch)
    wanted, lmax = degrees[2], min(degrees[2], degrees[0] + degrees[1])
    degrees = degrees[0], degrees[1], lmax
    size = (lmax + 1) ** 2
    where = _blocks.place(x)
    if not count:
        return xp.zeros((*batch, (wanted + 1) ** 2), dtype=x.dtype, **where)
    points = grid(*degrees)
    chosen, _ = choose_method(degrees, method=method)
    transform = Dense if chosen == "dense" else Separable
    run: Dense | Separable = transform(degrees, points, x)
    x, y = (_flat(a, batch) for a in (x, y))
    each = points.nodes * points.angles
    pieces = _blocks.ranges(count, each, _blocks.entries(x) // 4)
    # members without a batch meet all others, and are evaluated once
    fixed = [run.values(i, a) if a.shape[0] == 1 < count else None for i, a in enumerate((x, y))]

    def work(start: int, stop: int) -> Any:
        f, g = (
            value if value is not None else run.values(i, a[start:stop, :])
            for i, (a, value) in enumerate(zip((x, y), fixed, strict=True))
        )
        return run.coefficients(f * g)

    host = isinstance(x, np.ndarray)
    found = list(_blocks.mapped(work, pieces, host=host))
    z = found[0] if len(found) == 1 else xp.concat(found)
    if wanted > lmax:
        more = xp.zeros((count, (wanted + 1) ** 2 - size), dtype=z.dtype, **where)
        z = xp.concat([z, more], axis=1)
    return xp.reshape(z, (*batch, (wanted + 1) ** 2))


def _flat(x: Any, batch: tuple[int, ...]) -> Any:
    """(count, n), or (1, n) where there is one member for all."""
    xp, n = _xp.namespace(x), int(x.shape[-1])
    if math.prod(x.shape[:-1]) != 1 and tuple(x.shape[:-1]) != batch:
        x = xp.broadcast_to(x, (*batch, n))
    return xp.reshape(x, (-1, n))


class Dense:
    """Values at all points by one product, (members, points)."""

    def __init__(self, degrees: tuple[int, int, int], points: Grid, like: Any) -> None:
        dtype, xp = _xp.dtype_name(like), _xp.namespace(like)
        self._tables = [
            _xp.from_numpy(_harmonics(n, *points, dtype, i == 2), xp, like=like)
            for i, n in enumerate(degrees)
        ]

    def values(self, which: int, x: Any) -> Any:
        """Of coefficients (members, n)."""
        return _xp.namespace(x).matmul(x, self._tables[which])

    def coefficients(self, f: Any) -> Any:
        """Of values."""
        xp = _xp.namespace(f)
        return xp.matmul(f, xp.matrix_transpose(self._tables[2]))


class Separable:
    """Values by orders and then by angles, (angles, nodes, members)."""

    def __init__(self, degrees: tuple[int, int, int], points: Grid, like: Any) -> None:
        dtype, xp = _xp.dtype_name(like), _xp.namespace(like)

        def mine(table: Any) -> Any:
            return _xp.from_numpy(table, xp, like=like)

        self._degrees, self._points = degrees, points
        self._legendre = {n: mine(_legendre(n, points.nodes, dtype)) for n in set(degrees)}
        self._fourier = {n: mine(_fourier(n, points.angles, dtype)) for n in set(degrees)}
        self._weights = mine(_weights(*points, dtype))
        self._where = {n: mine(_gather(n)) for n in set(degrees[:2])}
        self._back = mine(_scatter(degrees[2]))

    def values(self, which: int, x: Any) -> Any:
        """Of coefficients (members, n)."""
        xp, n = _xp.namespace(x), self._degrees[which]
        members, orders = int(x.shape[0]), n + 1
        rows = xp.concat([xp.matrix_transpose(x), xp.zeros_like(x[:, :1].T)])
        ordered = xp.reshape(xp.take(rows, self._where[n], axis=0), (2, orders, orders, members))
        waves = xp.matmul(self._legendre[n], ordered)  # (2, order, node, member)
        waves = xp.reshape(waves, (2 * orders, self._points.nodes * members))
        return xp.reshape(
            xp.matmul(self._fourier[n], waves), (self._points.angles, self._points.nodes, members)
        )

    def coefficients(self, f: Any) -> Any:
        """Of values."""
        xp, n = _xp.namespace(f), self._degrees[2]
        members, orders, nodes = int(f.shape[-1]), n + 1, self._points.nodes
        f = xp.reshape(f, (self._points.angles, nodes * members))
        waves = xp.matmul(xp.matrix_transpose(self._fourier[n]), f)
        waves = xp.reshape(waves, (2, orders, nodes, members)) * self._weights[:, None]
        rows = xp.matmul(xp.matrix_transpose(self._legendre[n]), waves)
        rows = xp.reshape(rows, (2 * orders * orders, members))
        return xp.matrix_transpose(xp.take(rows, self._back, axis=0))


# --- Tables ---------------------------------------------------------------------------------------
# In extended precision, where the machine has it, and rounded once at the end: next to the poles
# nodes and recurrences lose l^2 units.


@functools.lru_cache(maxsize=64)
def _nodes(count: int) -> tuple[Any, Any]:
    """Gauss-Legendre nodes and weights, by Newton's method from Tricomi's approximation."""
    i = np.arange(1, count + 1, dtype=np.longdouble)
    pi = np.longdouble("3.14159265358979323846264338327950288")
    x = np.cos(pi * (i - 0.25) / (count + 0.5))
    for _ in range(6):
        before, now = np.ones_like(x), x
        for k in range(2, count + 1):
            before, now = now, ((2 * k - 1) * x * now - (k - 1) * before) / k
        slope = count * (before - x * now) / (1 - x * x)
        x = x - now / slope
    return x, 2 / ((1 - x * x) * slope * slope)


def _legendre_functions(lmax: int, x: Any, s: Any) -> Any:
    """(order, degree, points), so normalized that harmonics are these times cosines and sines.

    ``P_l^m = a (x P_(l-1)^m - P_(l-2)^m / a')``, ``a = ((4 l^2 - 1) / (l^2 - m^2))^(1/2)`` and a'
    that of l - 1; stable for all m <= l.
    """
    table = np.zeros((lmax + 1, lmax + 1, *x.shape), np.longdouble)
    start = np.full(x.shape, 1 / np.sqrt(4 * np.arccos(np.longdouble(-1))))
    for m in range(lmax + 1):
        if m:
            start = start * s * np.sqrt(np.longdouble(2 * m + 1) / (2 * m))
        scale = np.sqrt(np.longdouble(2 if m else 1))
        before, now, last = np.zeros_like(start), scale * start, np.longdouble(1)
        table[m, m] = now
        for l in range(m + 1, lmax + 1):  # noqa: E741 - the degree is called l
            a = np.sqrt(np.longdouble(4 * l * l - 1) / (l * l - m * m))
            before, now, last = now, a * (x * now - before / last), a
            table[m, l] = now
    return table


def _waves(lmax: int, phi: Any) -> Any:
    """Cosines and sines, (2, order, points)."""
    angles = np.arange(lmax + 1, dtype=np.longdouble)[:, None] * phi
    return np.stack([np.cos(angles), np.sin(angles)])


def _degrees(lmax: int) -> tuple[Any, Any]:
    """Degree and order of each coefficient."""
    at = np.arange((lmax + 1) ** 2)
    degree = np.sqrt(at + 0.5).astype(int)
    return degree, at - degree * (degree + 1)


def _angles(count: int) -> Any:
    return np.arange(count, dtype=np.longdouble) * (2 * np.arccos(np.longdouble(-1)) / count)


@functools.lru_cache(maxsize=24)
def _legendre(lmax: int, nodes: int, dtype: str) -> Any:
    """(order, node, degree)."""
    x, _ = _nodes(nodes)
    table = _legendre_functions(lmax, x, np.sqrt((1 - x) * (1 + x)))
    return _kept(np.moveaxis(table, 1, 2), dtype)


@functools.lru_cache(maxsize=24)
def _fourier(lmax: int, angles: int, dtype: str) -> Any:
    """(angle, cosines and then sines)."""
    return _kept(_waves(lmax, _angles(angles)).reshape(-1, angles).T, dtype)


@functools.lru_cache(maxsize=24)
def _weights(nodes: int, angles: int, dtype: str) -> Any:
    """Of the points with each node."""
    return _kept(_nodes(nodes)[1] * (2 * np.arccos(np.longdouble(-1)) / angles), dtype)


@functools.lru_cache(maxsize=24)
def _harmonics(lmax: int, nodes: int, angles: int, dtype: str, weighted: bool) -> Any:
    """(coefficient, point), with the weights of the points or without."""
    x, w = _nodes(nodes)
    values = _legendre_functions(lmax, x, np.sqrt((1 - x) * (1 + x)))
    if weighted:
        values = values * (w * (2 * np.arccos(np.longdouble(-1)) / angles))
    waves = _waves(lmax, _angles(angles))
    degree, order = _degrees(lmax)
    found = values[np.abs(order), degree][:, :, None]
    found = found * waves[(order < 0).astype(int), np.abs(order)][:, None, :]
    return _kept(found.reshape(len(degree), -1), dtype)


def _kept(table: Any, dtype: str) -> Any:
    table = np.ascontiguousarray(table, dtype)
    table.flags.writeable = False
    return table


@functools.lru_cache(maxsize=24)
def _gather(lmax: int) -> Any:
    """For cosines and sines, order and degree: where the coefficient is, or one beyond the end."""
    half, order, degree = np.ogrid[:2, : lmax + 1, : lmax + 1]
    at = degree**2 + degree + np.where(half == 1, -order, order)
    there = (degree >= order) & ((half == 0) | (order > 0))
    return np.where(there, at, (lmax + 1) ** 2).reshape(-1)


@functools.lru_cache(maxsize=24)
def _scatter(lmax: int) -> Any:
    """For each coefficient: its place among cosines and sines, orders and degrees."""
    degree, order = _degrees(lmax)
    return ((order < 0) * (lmax + 1) + np.abs(order)) * (lmax + 1) + degree


# --- What a call would run ------------------------------------------------------------------------


def explain_gaunt_product(
    x: Any, y: Any, /, lmax: int | None = None, *, method: GauntMethod = "auto", **_: Any
) -> Explanation:
    """What a call would run."""
    _validate.choice("method", method, METHODS)
    x, y = (_xp.as_array(name, a) for name, a in (("x", x), ("y", y)))
    first, second = _degree("x", x), _degree("y", y)
    lmax = first + second if lmax is None else _validate.integer("lmax", lmax, 0)
    degrees = first, second, min(lmax, first + second)
    entered = _door.enter({"x": x, "y": y})
    chosen, reason = choose_method(degrees, method=method)
    count, points = math.prod(_batch(x, y)), grid(*degrees)
    operations = dict(zip(("dense", "separable"), costs(degrees), strict=True))[chosen]
    real = 4.0 if entered.dtype in _xp.COMPLEX else 1.0
    flops = real * count * (operations + points.nodes * points.angles)
    numbers = math.prod(x.shape) + math.prod(y.shape) + count * (lmax + 1) ** 2
    moved = float(np.dtype(entered.dtype).itemsize * numbers)
    return Explanation("gaunt_product", chosen, reason, {}, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Two batches of coefficients, and the degree of the product that is kept."""
    batch, degree = {"small": (3, 2), "medium": (256, 4), "large": (2000, 8)}[size]
    generator = np.random.default_rng(rng)
    x, y = (xp.asarray(generator.standard_normal((batch, (degree + 1) ** 2))) for _ in range(2))
    return (x, y, degree), {}
