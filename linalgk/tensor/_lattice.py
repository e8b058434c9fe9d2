"""Potentials of finite lattices, whose rank does not grow with them."""

import math
import numbers
from typing import Any, Literal, NamedTuple

import numpy as np

from linalgk import _config, _validate
from linalgk._dispatch import Explanation
from linalgk._pieces import mapped
from linalgk.tensor import _chebyshev, _longrange, _particles
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._function import ChebTucker
from linalgk.tensor._potential import LongRangePotential, reported
from linalgk.typing import OnFail

# Candidates for neighbours that are looked at together, in a cache, and targets of a piece.
BLOCK = 1 << 14
PIECE = 1 << 10
# Most canonical terms: their cube is a core.
TERMS = 512


class Lattice:
    """Charges ``sum_b c_1b[i] c_2b[j] c_3b[k]`` at ``origin + spacing * (i, j, k)``."""

    def __init__(self, origin: Any, spacing: Any, factors: tuple[Any, ...]) -> None:
        self.origin, self.spacing, self.factors = origin, spacing, factors

    @property
    def axes(self) -> list[Any]:
        """Coordinates along each axis."""
        found = zip(self.origin, self.spacing, self.factors, strict=True)
        return [o + s * np.arange(c.shape[0]) for o, s, c in found]

    @property
    def points(self) -> Any:
        """Positions (N, 3), the last index running fastest."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, 3)

    @property
    def charges(self) -> Any:
        """Charges (N,)."""
        a, b, c = self.factors
        pairs = (a[:, None, :] * b[None, :, :]).reshape(-1, a.shape[1])
        return (pairs @ c.T).reshape(-1)

    def near(self, targets: Any, kernel: Any, radius: float, slopes: bool) -> Any:
        """Sums over neighbours as of `Cells.sums`."""
        found = np.zeros((4 if slopes else 1, targets.shape[0]))
        reach = [math.ceil(radius / s) for s in self.spacing]
        step = max(1, BLOCK // math.prod(2 * k + 2 for k in reach))

        def piece(first: int, last: int) -> None:
            for i in range(first, last, step):
                rows = slice(i, min(i + step, last))
                found[:, rows] = self._block(targets[rows], reach, kernel, radius, slopes)

        n = targets.shape[0]
        pieces = [(i, min(i + PIECE, n)) for i in range(0, n, PIECE)]
        for _ in mapped(piece, pieces, threads=_config.num_threads()):
            pass
        return found

    def _block(self, x: Any, reach: Any, kernel: Any, radius: float, slopes: bool) -> Any:
        steps, charges = [], []
        for k, c in enumerate(self.factors):
            length = c.shape[0]
            place = (x[:, k] - self.origin[k]) / self.spacing[k]
            base = np.floor(np.clip(place, -reach[k] - 2.0, length + reach[k] + 2.0))
            index = base.astype(np.int64)[:, None] + np.arange(-reach[k], reach[k] + 2)
            step = x[:, k, None] - (self.origin[k] + self.spacing[k] * index)
            # coordinates of the same site may be rounded otherwise
            rounding = (
                8
                * np.finfo(np.float64).eps
                * np.maximum(np.abs(x[:, k, None]), self.spacing[k] * length)
            )
            steps.append(np.where(np.abs(step) <= rounding, 0.0, step))
            there = (index >= 0) & (index < length)
            charges.append(there[:, :, None] * c[np.clip(index, 0, length - 1)])
        square = (
            steps[0][:, :, None, None] ** 2
            + steps[1][:, None, :, None] ** 2
            + steps[2][:, None, None, :] ** 2
        )
        inside = np.flatnonzero(square <= radius**2)
        value, slope = kernel(square.reshape(-1)[inside], slopes)
        table = np.zeros(square.size)
        table[inside] = value
        found = [_contracted(table.reshape(square.shape), charges)]
        if slopes:
            table[inside] = 2.0 * slope
            for k, step in enumerate(steps):
                moved = [c * step[:, :, None] if j == k else c for j, c in enumerate(charges)]
                found.append(_contracted(table.reshape(square.shape), moved))
        return np.stack(found)


def _contracted(table: Any, charges: Any) -> Any:
    """``sum_ijk table[p, i, j, k] sum_b c_1[p, i, b] c_2[p, j, b] c_3[p, k, b]``."""
    one, two, three = charges
    total = np.matmul(table, three[:, None, :, :])
    return np.sum(np.sum(total * two[:, None, :, :], axis=2) * one, axis=(1, 2))


class LatticePotential(LongRangePotential):
    """The potential of a finite lattice; see `LongRangePotential`."""

    sources: Lattice

    def canonical(self, *axes: Any, tol: float | None = None) -> CanonicalTensor:
        """The whole potential on a grid, as a canonical tensor.

        Parameters
        ----------
        *axes : array, shape (n_k,)
            Coordinates of the grid, which meets no charge.
        tol : float, optional
            Error of the kernel relative to it; that of the potential by default.

        Returns
        -------
        CanonicalTensor, shape (n_1, n_2, n_3)
            Of rank J B for J Gaussians and B products of charges, whatever the number of cells.

        Notes
        -----
        ``w_j sum_i c[i] exp(-a_j (x - y_i)^2)`` are the assembled canonical vectors of [1]_, from
        the least distance of the grid to a charge on.

        References
        ----------
        .. [1] V. Khoromskaia, B. N. Khoromskij, "Grid-based lattice summation of electrostatic
           potentials by assembled rank-structured tensor approximation", Comput. Phys. Commun.
           185 (2014).

        Examples
        --------
        >>> import numpy as np
        >>> from linalgk.tensor import lattice_sum
        >>> v = lattice_sum((4, 4, 4), tol=1e-6)
        >>> x = np.linspace(-1, 1, 6)
        >>> t = v.canonical(x, x, x)
        >>> t.shape
        (6, 6, 6)
        """
        if len(axes) != 3:
            msg = f"axes: needs three vectors, got {len(axes)}"
            raise TypeError(msg)
        grid = [_longrange.host(f"axes[{k}]", x) for k, x in enumerate(axes)]
        if any(x.ndim != 1 or not x.size for x in grid):
            msg = f"axes: must be vectors, got shapes {[x.shape for x in grid]}"
            raise ValueError(msg)
        tol = self.tol if tol is None else _tolerance(tol)
        sites = self.sources.axes
        apart = [np.abs(x[:, None] - y[None, :]) for x, y in zip(grid, sites, strict=True)]
        least = math.sqrt(sum(float(d.min()) ** 2 for d in apart))
        most = math.sqrt(sum(float(d.max()) ** 2 for d in apart))
        if least <= 1e-9 * most:
            msg = "axes: the grid meets a charge, where the potential is infinite; shift the grid"
            raise ValueError(msg)
        w, a = _longrange.terms(least, max(most, 2.0 * least), tol, self.kappa)
        factors = [
            _assembled(x, y, c, a)
            for x, y, c in zip(grid, sites, self.sources.factors, strict=True)
        ]
        return CanonicalTensor(np.repeat(w, self.sources.factors[0].shape[1]), factors)


def _assembled(x: Any, y: Any, c: Any, exponents: Any) -> Any:
    """``sum_i c[i, b] exp(-a_j (x - y_i)^2)``: (n, J B)."""
    square = (x[:, None] - y[None, :]) ** 2
    return np.concatenate([np.exp(-a * square) @ c for a in exponents], axis=1)


def lattice_sum(
    counts: Any, spacing: Any = 1.0, *, charges: Any = None, tol: float = 1e-8,
    split: float | Literal["auto"] = "auto", domain: Any = None, kappa: float = 0.0,
    on_fail: OnFail | None = None,
) -> LatticePotential:  # fmt: skip
    r"""Potential of a finite lattice of point charges, of a rank that does not grow with it.

    Parameters
    ----------
    counts : int or sequence of three int
        Charges along each axis.
    spacing : float or sequence of three float
        Distances along each axis; the lattice is centred on the origin.
    charges : sequence of three arrays, shapes (L_k,) or (L_k, B), optional
        The charge at site (i, j, k) is ``c_1[i] c_2[j] c_3[k]``, or a sum of B such products. All
        charges are 1 by default. Rock salt has ``(-1.0)**numpy.arange(L)`` along each axis.
    tol : float
        Absolute error relative to the largest long-range potential, as in
        `longrange_potential`.
    split : float or "auto"
        Radius up to which neighbours are summed; ``"auto"`` is two spacings, or more for
        lattices of more than 400 sites along an axis.
    domain : sequence of three pairs of float, optional
        Box to evaluate in; holds all sites.
    kappa : float
        Inverse screening length: a unit charge has the potential ``exp(-kappa r) / r``.
    on_fail : {"raise", "warn", "nan"}, optional
        What becomes of an error above ``tol``: a `ConvergenceWarning` unless asked otherwise.

    Returns
    -------
    LatticePotential
        A `LongRangePotential` that also gives a canonical tensor on a grid.

    Notes
    -----
    A Gaussian summed over a lattice is a product of sums along the axes [1]_: the long range of J
    Gaussians and B products of charges has a canonical rank J B, found in
    ``O(J B m (L_1 + L_2 + L_3))`` operations for series of m coefficients. No charge is enumerated.

    References
    ----------
    .. [1] V. Khoromskaia, B. N. Khoromskij, "Grid-based lattice summation of electrostatic
       potentials by assembled rank-structured tensor approximation", Comput. Phys. Commun. 185
       (2014).

    Examples
    --------
    A cube of rock salt with half charges on its faces, after Evjen:

    >>> import numpy as np
    >>> from linalgk.tensor import lattice_sum, madelung_constant
    >>> sign = (-1.0) ** np.arange(-10, 11)
    >>> sign[[0, -1]] /= 2
    >>> v = lattice_sum(21, charges=[sign] * 3)
    >>> bool(abs(-v.eval(np.zeros(3)) - madelung_constant("NaCl")) < 1e-4)
    True
    """
    request = _request(counts, spacing, charges, tol, split, domain, kappa)
    policy = "warn" if on_fail is None else _validate.on_fail(on_fail)
    lattice, box, tol = request.lattice, request.box, request.tol
    w, a = _longrange.gaussians(request.radius, box, tol, request.kappa)
    finer = _longrange.gaussians(request.radius, box, tol / 50, request.kappa)
    rng = np.random.default_rng(0)
    sites = np.stack([rng.choice(y, _longrange.PROBES) for y in lattice.axes], axis=1)
    x = _longrange.probes(box, sites)
    exact = _summed(lattice, x, w, a)
    scale = max(float(np.abs(exact).max()), _largest(lattice) * float(np.sum(w)))
    long = _long(lattice, box, (w, a), (exact, scale, x), tol)
    missed = _missed(lattice, x, exact, (w, a), request.radius, finer) / (scale or 1.0)
    error = long.error + missed
    found = LatticePotential(
        long, lattice, request.radius, (w, a), error=error, tol=tol, kappa=request.kappa
    )
    return reported("lattice_sum", found, policy)


def _long(lattice: Lattice, box: Any, gaussians: Any, known: Any, tol: float) -> ChebTucker:
    exact, scale, x = known
    w, a = gaussians
    if scale == 0.0:
        return _longrange.nothing(box)
    terms = lattice.factors[0].shape[1]
    repeated = np.repeat(w, terms)
    best: ChebTucker | None = None
    share = 0.1 * tol
    for _ in range(_longrange.ATTEMPTS):
        series = [_series(lattice, k, box[k], a, 0.1 * share) for k in range(3)]
        peaks = [np.abs(v).max(axis=0) for _, v in series]
        factors = []
        tail = 0.0
        for k, (c, _) in enumerate(series):
            others = np.prod([p for j, p in enumerate(peaks) if j != k], axis=0)
            sizes = (np.abs(c) * (repeated * others / scale)).max(axis=1)
            keep = max(int(np.count_nonzero(np.maximum.accumulate(sizes[::-1]) > share / 10)), 1)
            tail = max(tail, float(sizes[keep:].max(initial=0.0)))
            factors.append(c[:keep])
        core = np.zeros((repeated.size,) * 3)
        np.einsum("iii->i", core)[:] = repeated
        found = _longrange.certified(
            core, factors, box, share * scale, (exact, scale, tail), x, method="assembled"
        )
        if best is None or found.error < best.error:
            best = found
        if best.error <= tol:
            break
        share /= 10
    assert best is not None
    return best._with(best.core, best.factors, converged=best.error <= tol)


def _series(lattice: Lattice, k: int, ends: Any, exponents: Any, tol: float) -> tuple[Any, Any]:
    """Chebyshev coefficients and values of the assembled vectors along an axis."""
    low, high = ends
    half = 0.5 * (high - low)
    m = _particles.length(float(exponents.max()) * half**2, tol)
    while True:
        x = low + half * (_chebyshev.points(m) + 1.0)
        values = _assembled(x, lattice.axes[k], lattice.factors[k], exponents)
        c = _chebyshev.coefficients(values)
        sizes = np.abs(c) / (np.abs(values).max(axis=0) + np.finfo(np.float64).tiny)
        if sizes[-max(m // 16, 2) :].max() <= max(tol, 1e-14) or m >= _particles.LONGEST:
            return c, values
        m = m * 5 // 4 + 4


def _summed(lattice: Lattice, x: Any, w: Any, a: Any) -> Any:
    """The sum of Gaussians itself at points (n, 3)."""
    found = zip(x.T, lattice.axes, lattice.factors, strict=True)
    one, two, three = (_assembled(t, y, c, a) for t, y, c in found)
    return (one * two * three) @ np.repeat(w, lattice.factors[0].shape[1])


def _largest(lattice: Lattice) -> float:
    """Bound of the charges, exact for one product."""
    return float(np.sum(np.prod([np.abs(c).max(axis=0) for c in lattice.factors], axis=0)))


def _missed(
    lattice: Lattice, x: Any, exact: Any, gaussians: Any, radius: float, finer: Any
) -> float:
    """The largest sum missed at points x beyond the radius, by finer Gaussians for the kernel.

    The difference summed over the whole lattice, less that of the neighbours.
    """

    def difference(square: Any, _slopes: bool) -> tuple[Any, Any]:
        found = [np.exp(-np.multiply.outer(square, a)) @ w for w, a in (finer, gaussians)]
        return found[0] - found[1], None

    near = lattice.near(x, difference, radius, False)[0]
    return float(np.abs(_summed(lattice, x, *finer) - exact - near).max())


# --- What comes in -------------------------------------------------------------------------------


class _Request(NamedTuple):
    lattice: Lattice
    tol: float
    radius: float
    box: Any  # (3, 2)
    kappa: float


def _request(
    counts: Any, spacing: Any, charges: Any, tol: Any, split: Any, domain: Any, kappa: Any
) -> _Request:
    lengths = [
        _validate.integer(f"counts[{k}]", n, 1) for k, n in enumerate(_three("counts", counts))
    ]
    steps = [
        _validate.real_between(f"spacing[{k}]", s, 0.0, math.inf, low_open=True)
        for k, s in enumerate(_three("spacing", spacing))
    ]
    tol = _tolerance(tol)
    kappa = _validate.real_between("kappa", kappa, 0.0, math.inf)
    factors = _factors(lengths, charges)
    origin = -0.5 * np.array(steps) * (np.array(lengths) - 1)
    lattice = Lattice(origin, np.array(steps), factors)
    axes = lattice.axes
    corners = np.stack([[y[0] for y in axes], [y[-1] for y in axes]])
    if max(lengths) == 1 and domain is None:
        domain = np.outer(steps, [-0.5, 0.5])
    box = _longrange.box_of(corners, domain, "sites")
    if isinstance(split, str):
        _validate.choice("split", split, ("auto",))
        radius = max(2.0 * max(steps), float((box[:, 1] - box[:, 0]).max()) / 200.0)
    else:
        radius = _validate.real_between("split", split, 0.0, math.inf, low_open=True)
    return _Request(lattice, tol, radius, box, kappa)


def _tolerance(tol: Any) -> float:
    return _validate.real_between("tol", tol, _longrange.TIGHTEST, _longrange.LOOSEST)


def _three(name: str, x: Any) -> list[Any]:
    if isinstance(x, numbers.Number):
        return [x] * 3
    found = list(x)
    if len(found) != 3:
        msg = f"{name}: must be a number or three, got {len(found)}"
        raise ValueError(msg)
    return found


def _factors(lengths: list[int], charges: Any) -> tuple[Any, ...]:
    if charges is None:
        return tuple(np.ones((n, 1)) for n in lengths)
    given = list(charges)
    if len(given) != 3:
        msg = f"charges: must be three arrays, one for each axis, got {len(given)}"
        raise ValueError(msg)
    found = [_longrange.host(f"charges[{k}]", c) for k, c in enumerate(given)]
    for k, (c, n) in enumerate(zip(found, lengths, strict=True)):
        if c.ndim not in (1, 2) or c.shape[0] != n:
            msg = f"charges[{k}]: must have shape ({n},) or ({n}, B), got {c.shape}"
            raise ValueError(msg)
    columns = [c[:, None] if c.ndim == 1 else c for c in found]
    terms = {c.shape[1] for c in columns}
    if len(terms) > 1 or not 1 <= columns[0].shape[1] <= TERMS // 16:
        msg = (
            "charges: must have one number B of columns, from 1 to "
            f"{TERMS // 16}, got {[c.shape[1] for c in columns]}"
        )
        raise ValueError(msg)
    return tuple(columns)


def explain_lattice_sum(
    counts: Any, spacing: Any = 1.0, *, charges: Any = None, tol: float = 1e-8,
    split: float | Literal["auto"] = "auto", domain: Any = None, kappa: float = 0.0, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of lattice_sum would run."""
    request = _request(counts, spacing, charges, tol, split, domain, kappa)
    half = 0.5 * (request.box[:, 1] - request.box[:, 0])
    sizes = [
        _particles.length(math.log(1 / request.tol) * (h / request.radius) ** 2, request.tol)
        for h in half
    ]
    columns = 16.0 * request.lattice.factors[0].shape[1]
    flops = (
        4.0
        * columns
        * sum(m * c.shape[0] for m, c in zip(sizes, request.lattice.factors, strict=True))
    )
    reason = f"a Gaussian on a lattice is a product of sums; radius {request.radius:.3g}"
    return Explanation(
        "lattice_sum", "assembled", reason, {}, flops + 6.0 * columns**4, 8.0 * columns**3
    )


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A cube of rock salt, beginning with an ion of either sign."""
    n = {"small": 6, "medium": 24, "large": 100}[size]
    sign = np.random.default_rng(rng).choice([-1.0, 1.0]) * (-1.0) ** np.arange(n)
    return (n,), {"charges": [xp.asarray(sign)] * 3, "tol": 1e-6}
