"""Charges of a crystal and of a cloud: their potentials by functions, and by direct sums."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tensor import lattice_sum
from linalgk.tour._timing import Row, Timed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = [
    "CHECKED",
    "SHOWN_TOL",
    "Cloud",
    "Cube",
    "Estimate",
    "Slab",
    "all_pairs",
    "clocked",
    "cloud",
    "cube",
    "planet",
    "slab",
]

# Of the potential of the cloud that is drawn and timed.
SHOWN_TOL = 1e-6
# How many points have their sums checked in extended precision.
CHECKED = 16
# Pairs at a time, whose distances stay in the cache.
_PAIRS = 1 << 15


def clocked(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


# --- a crystal -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cube:
    """The potential at the middle of a cube of rock salt, by factors and one by one."""

    potential: Any
    value: float
    direct: float
    seconds: float
    direct_seconds: float

    @property
    def off(self) -> float:
        """By what the values differ, relative to what the tolerance is relative to."""
        return abs(self.value - self.direct) / float(self.potential.scale)


def cube(edge: int, tol: float) -> Cube:
    """Charges on faces, edges and corners are halved once, twice and thrice, after Evjen."""
    i = np.arange(edge) - edge // 2
    signs = (-1.0) ** i
    signs[[0, -1]] /= 2

    def ours() -> Any:
        potential = lattice_sum(edge, charges=[signs] * 3, tol=tol)
        return potential, -float(potential.eval(np.zeros(3)))

    def one_by_one() -> float:
        square = np.add.outer(np.add.outer(i**2, i**2), i**2).astype(float)
        square[edge // 2, edge // 2, edge // 2] = np.inf
        return -float(np.einsum("i,j,k,ijk", signs, signs, signs, 1 / np.sqrt(square)))

    (potential, value), seconds = clocked(ours)
    direct, direct_seconds = clocked(one_by_one)
    return Cube(potential, value, direct, seconds, direct_seconds)


@dataclass(frozen=True)
class Slab:
    """Potential in two planes: across the slab, past ions, and in front of its surface."""

    potential: Any
    panels: tuple[tuple[str, Array], ...]
    extents: tuple[tuple[float, float, float, float], ...]
    row: Row


def slab(counts: tuple[int, int, int], tol: float, pixels: int) -> Slab:
    """Of whole ions, at pixels^2 points of each plane; direct sums at a few of them."""
    signs = [(-1.0) ** np.arange(n) for n in counts]
    top = 0.5 * (counts[2] - 1)
    box = [(-0.5 * n, 0.5 * n) for n in counts[:2]] + [(-top - 3.5, top + 3.5)]
    x, z = np.linspace(-6, 6, pixels), np.linspace(-top - 3, top + 3, pixels)
    # rows of ions lie at halves: this plane passes by them
    across = np.stack(np.broadcast_arrays(x, 0.2, z[:, None]), axis=-1)
    above = np.stack(np.broadcast_arrays(x, x[:, None], top + 0.5), axis=-1)

    def ours() -> tuple[Any, list[Array]]:
        potential = lattice_sum(counts, charges=signs, tol=tol, domain=box)
        return potential, [potential.eval(plane) for plane in (across, above)]

    (potential, panels), seconds = clocked(ours)
    every = np.concatenate([plane.reshape(-1, 3) for plane in (across, above)])
    some = np.random.default_rng(0).choice(len(every), CHECKED, replace=False)
    direct, direct_seconds = clocked(lambda: _potential(potential, every[some]))
    exact = _potential(potential, every[some], np.longdouble)
    found = np.concatenate([panel.ravel() for panel in panels])[some]
    times = {
        "linalgk": Timed(seconds, None),
        "NumPy": Timed(direct_seconds * len(every) / CHECKED, None),
    }
    errors = {
        name: float(np.abs(v - exact).max() / potential.scale)
        for name, v in (("linalgk", found), ("NumPy", direct))
    }
    work = f"potential of {potential.charges.size:,} ions at {len(every):,} points"
    return Slab(
        potential,
        (("across, past ions", panels[0]), ("half a distance above", panels[1])),
        ((x[0], x[-1], z[0], z[-1]), (x[0], x[-1], x[0], x[-1])),
        Row(work, times, errors),
    )


def _potential(potential: Any, targets: Array, dtype: Any = float) -> Array:
    """Sums over all charges at points that are none of them."""
    sites, charges = potential.points.astype(dtype), potential.charges.astype(dtype)
    rows = [
        charges @ (1 / np.sqrt(np.sum((sites - x) ** 2, axis=1))) for x in targets.astype(dtype)
    ]
    return np.stack(rows)


# --- a cloud -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """Charges, their sums over all pairs, and the same to tolerances."""

    points: Array
    charges: Array
    potential: Array
    forces: Array
    seconds: float
    rounding: float  # of these forces, as errors of forces
    estimates: tuple[Estimate, ...]

    @property
    def energy(self) -> float:
        """Of all pairs."""
        return 0.5 * float(self.charges @ self.potential)

    @property
    def shown(self) -> Estimate:
        """That of the tolerance `SHOWN_TOL`."""
        return next(e for e in self.estimates if e.potential.tol == SHOWN_TOL)

    @property
    def row(self) -> Row:
        """Times of energy and forces."""
        e = self.shown
        return Row(
            f"energy and forces of {len(self.charges):,} charges",
            {
                "linalgk": Timed(e.making + e.energy_seconds + e.forces_seconds, None),
                "NumPy": Timed(self.seconds, None),
            },
            {"linalgk": e.forces, "NumPy": self.rounding},
        )


@dataclass(frozen=True)
class Estimate:
    """What a tolerance gave: errors as in the table, and times."""

    potential: Any
    values: float
    energy: float
    forces: float
    making: float
    energy_seconds: float
    forces_seconds: float


def planet(n: int, rng: Any) -> tuple[Array, Array]:
    """Positive charges in a ball, twice as many negative ones in a ring around it."""
    inner = n // 3
    ball = 0.3 * rng.standard_normal((inner, 3))
    angle = rng.uniform(0, 2 * np.pi, n - inner)
    circle = np.stack([1.3 * np.cos(angle), 1.3 * np.sin(angle), 0 * angle], axis=1)
    ring = circle + 0.1 * rng.standard_normal(circle.shape)
    return np.concatenate([ball, ring]), np.repeat([1.0, -1.0], [inner, n - inner])


def cloud(n: int, tols: Sequence[float]) -> Cloud:
    """All pairs of n charges, and estimates to tolerances, `SHOWN_TOL` among them."""
    rng = np.random.default_rng(0)
    points, charges = planet(n, rng)
    (potential, forces), seconds = clocked(lambda: all_pairs(points, charges))
    energy = 0.5 * float(charges @ potential)
    typical = float(np.sqrt(np.mean(forces**2)))
    estimates = []
    for tol in tols:
        v, making = clocked(lambda tol=tol: lk.longrange_potential(points, charges, tol))  # type: ignore[misc]
        u, once = clocked(v.energy)
        f, twice = clocked(v.forces)
        off = float(np.abs(v.eval(points) - potential).max() / v.scale)
        far = float(np.abs(f - forces).max() / typical)
        estimates.append(Estimate(v, off, abs(u / energy - 1), far, making, once, twice))
    some = rng.choice(n, CHECKED, replace=False)
    exact = all_pairs(points, charges, some, np.longdouble)[1]
    rounding = float(np.abs(forces[some] - exact).max() / typical)
    return Cloud(points, charges, potential, forces, seconds, rounding, tuple(estimates))


def all_pairs(
    points: Array, charges: Array, rows: Array | None = None, dtype: Any = float
) -> tuple[Array, Array]:
    """Potential at all charges, or some, due to all others, and the forces on them."""
    p, q = points.astype(dtype), charges.astype(dtype)
    rows = np.arange(len(p)) if rows is None else rows
    potential, forces = np.empty(len(rows), dtype), np.empty((len(rows), 3), dtype)
    step = max(1, _PAIRS // len(p))
    for i in range(0, len(rows), step):
        part = rows[i : i + step]
        away = [p[part, k, None] - p[:, k] for k in range(3)]
        square = away[0] ** 2 + away[1] ** 2 + away[2] ** 2
        square[np.arange(len(part)), part] = np.inf
        inverse = 1 / np.sqrt(square)
        potential[i : i + step] = inverse @ q
        pull = q[part, None] * q * inverse / square
        for k in range(3):
            forces[i : i + step, k] = np.sum(pull * away[k], axis=1)
    return potential, forces
