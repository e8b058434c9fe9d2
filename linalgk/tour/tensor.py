"""Sixth chapter: the potential of a crystal and of a cloud of charges, functions and tensors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tensor import lattice_sum, madelung_constant
from linalgk.tour import _plots, _tensor_times
from linalgk.tour._page import (
    Code,
    Figure,
    Heading,
    Num,
    Page,
    Table,
    Text,
    count,
    duration,
    missing,
    scientific,
)
from linalgk.tour._timing import Row, Timed, times_table

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._page import Block, Options

    Array = NDArray[Any]

__all__ = ["STEPS", "TITLE", "run"]

TITLE = "Tensors: a crystal and a cloud of charges"
STEPS = (
    "cubes of rock salt",
    "a slab of rock salt",
    "a cloud of charges",
    "sums of Gaussians",
    "functions of three variables",
    "values",
    "loading peers",
    "tensors",
)
# Of rock salt, after Borwein et al., "Lattice sums then and now".
MADELUNG = 1.7475645946331821906
LATTICE_TOL = 1e-10
SHOWN_TOL = 1e-6
# How many charges have their sums checked in extended precision.
CHECKED = 16
# Pairs at a time, whose distances stay in the cache.
_PAIRS = 1 << 15


def run(options: Options) -> Generator[None, None, Page]:
    """Do the chapter; yields before each of `STEPS`."""
    page, quick = Page(), options.quick
    if not _plots.available():
        page.left_out.append(missing("matplotlib", what="Plots"))
    yield
    cubes = [_cube(edge) for edge in ((11, 21, 41) if quick else (11, 21, 41, 81))]
    known, seconds = _clocked(madelung_constant)
    page.add(*_introduction(), *_crystal(cubes, known, seconds, page))
    yield
    slab = _slab((24, 24, 6) if quick else (60, 60, 8), pixels=60 if quick else 120)
    page.add(*_slices(slab))
    yield
    cloud = _cloud(800 if quick else 3000, (1e-4, 1e-6) if quick else (1e-4, 1e-6, 1e-8))
    page.add(*_charges(cloud, page), *_views(cloud, pixels=60 if quick else 110))
    yield
    page.add(*_gaussians())
    yield
    functions = [_function(name, 1e-5 if quick else 1e-10) for name in FUNCTIONS]
    page.add(*_functions(functions, page))
    yield
    runge = functions[0]
    work = [
        slab.row,
        cloud.row,
        _tensor_times.values(runge.name, runge.call, runge.series, options),
    ]
    page.add(*_times(work, page, quick=quick))
    yield
    names = _tensor_times.peers()
    yield
    film = _tensor_times.film(*((24, 64) if quick else (64, 128)))
    points = np.linspace(-1, 1, 40 if quick else 100)
    grid = runge.call(*np.meshgrid(points, points, points, indexing="ij"))
    done = [
        _tensor_times.compressed(what, data, tol, names, options)
        for what, data, tol in (
            ("frames of a film", film, 0.08),
            ("1 / (1 + 25 r²) on a grid", grid, 1e-4),
            ("1 / (1 + 25 r²) on a grid", grid, 1e-10),
        )
    ]
    page.add(*_tensor_times.shown(done, names, quick=quick), *_frames(done[0]))
    page.headlines.append(_headline(done[-1]))
    page.add(*_explanations(cloud, film))
    return page


def _clocked(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


# --- a crystal -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cube:
    """The potential at the middle of a cube of rock salt, by factors and one by one."""

    potential: Any
    value: float
    direct: float
    seconds: float
    direct_seconds: float


def _cube(edge: int) -> _Cube:
    """Charges on faces, edges and corners are halved once, twice and thrice, after Evjen."""
    i = np.arange(edge) - edge // 2
    signs = (-1.0) ** i
    signs[[0, -1]] /= 2

    def ours() -> Any:
        potential = lattice_sum(edge, charges=[signs] * 3, tol=LATTICE_TOL)
        return potential, -float(potential.eval(np.zeros(3)))

    def one_by_one() -> float:
        square = np.add.outer(np.add.outer(i**2, i**2), i**2).astype(float)
        square[edge // 2, edge // 2, edge // 2] = np.inf
        return -float(np.einsum("i,j,k,ijk", signs, signs, signs, 1 / np.sqrt(square)))

    (potential, value), seconds = _clocked(ours)
    direct, direct_seconds = _clocked(one_by_one)
    return _Cube(potential, value, direct, seconds, direct_seconds)


@dataclass(frozen=True)
class _Slab:
    """Potential in two planes: across the slab, through ions, and in front of its surface."""

    potential: Any
    panels: tuple[tuple[str, Array], ...]
    extents: tuple[tuple[float, float, float, float], ...]
    row: Row


def _slab(counts: tuple[int, int, int], pixels: int) -> _Slab:
    signs = [(-1.0) ** np.arange(n) for n in counts]
    top = 0.5 * (counts[2] - 1)
    box = [(-0.5 * n, 0.5 * n) for n in counts[:2]] + [(-top - 3.5, top + 3.5)]
    x, z = np.linspace(-6, 6, pixels), np.linspace(-top - 3, top + 3, pixels)
    # rows of ions lie at halves
    across = np.stack(np.broadcast_arrays(x, 0.5, z[:, None]), axis=-1)
    above = np.stack(np.broadcast_arrays(x, x[:, None], top + 0.5), axis=-1)

    def ours() -> tuple[Any, list[Array]]:
        potential = lattice_sum(counts, charges=signs, tol=LATTICE_TOL, domain=box)
        return potential, [potential.eval(plane) for plane in (across, above)]

    (potential, panels), seconds = _clocked(ours)
    every = np.concatenate([plane.reshape(-1, 3) for plane in (across, above)])
    some = np.random.default_rng(0).choice(len(every), CHECKED, replace=False)
    direct, direct_seconds = _clocked(lambda: _potential(potential, every[some]))
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
    return _Slab(
        potential,
        (("across, through ions", panels[0]), ("half a distance above", panels[1])),
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
class _Cloud:
    """Charges, their sums over all pairs, and the same to tolerances."""

    points: Array
    charges: Array
    potential: Array
    forces: Array
    seconds: float
    estimates: tuple[_Estimate, ...]
    row: Row

    @property
    def energy(self) -> float:
        """Of all pairs."""
        return 0.5 * float(self.charges @ self.potential)


@dataclass(frozen=True)
class _Estimate:
    """What a tolerance gave: errors as in the table, and times."""

    potential: Any
    values: float
    energy: float
    forces: float
    making: float
    energy_seconds: float
    forces_seconds: float


def _planet(n: int, rng: Any) -> tuple[Array, Array]:
    """Positive charges in a ball, as many negative ones in a ring around it."""
    half = n // 2
    ball = 0.3 * rng.standard_normal((half, 3))
    angle = rng.uniform(0, 2 * np.pi, n - half)
    circle = np.stack([1.3 * np.cos(angle), 1.3 * np.sin(angle), 0 * angle], axis=1)
    ring = circle + 0.1 * rng.standard_normal(circle.shape)
    return np.concatenate([ball, ring]), np.repeat([1.0, -1.0], [half, n - half])


def _cloud(n: int, tols: Sequence[float]) -> _Cloud:
    rng = np.random.default_rng(0)
    points, charges = _planet(n, rng)
    (potential, forces), seconds = _clocked(lambda: _all_pairs(points, charges))
    energy = 0.5 * float(charges @ potential)
    typical = float(np.sqrt(np.mean(forces**2)))
    estimates = []
    for tol in tols:
        v, making = _clocked(lambda tol=tol: lk.longrange_potential(points, charges, tol))  # type: ignore[misc]
        u, once = _clocked(v.energy)
        f, twice = _clocked(v.forces)
        off = float(np.abs(v.eval(points) - potential).max() / v.scale)
        far = float(np.abs(f - forces).max() / typical)
        estimates.append(_Estimate(v, off, abs(u / energy - 1), far, making, once, twice))
    some = rng.choice(n, CHECKED, replace=False)
    exact = _all_pairs(points, charges, some, np.longdouble)[1]
    shown = next(e for e in estimates if e.potential.tol == SHOWN_TOL)
    ours = shown.making + shown.energy_seconds + shown.forces_seconds
    row = Row(
        f"energy and forces of {n:,} charges",
        {"linalgk": Timed(ours, None), "NumPy": Timed(seconds, None)},
        {"linalgk": shown.forces, "NumPy": float(np.abs(forces[some] - exact).max() / typical)},
    )
    return _Cloud(points, charges, potential, forces, seconds, tuple(estimates), row)


def _all_pairs(
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


# --- functions -----------------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "1 / (1 + 25 r²)": lambda x, y, z: 1 / (1 + 25 * (x**2 + y**2 + z**2)),
    "tanh(5 (x + y + z))": lambda x, y, z: np.tanh(5 * (x + y + z)),
    "cos(10 (x + y + z))": lambda x, y, z: np.cos(10 * (x + y + z)),
}
# Derivatives by x, and integrals over [-1, 1]^3, to 20 digits.
SLOPES: tuple[Callable[..., Any], ...] = (
    lambda x, y, z: -50 * x / (1 + 25 * (x**2 + y**2 + z**2)) ** 2,
    lambda x, y, z: 5 / np.cosh(5 * (x + y + z)) ** 2,
    lambda x, y, z: -10 * np.sin(10 * (x + y + z)),
)
INTEGRALS = (0.47257058334513468486, 0.0, (2 * np.sin(10.0) / 10) ** 3)


@dataclass(frozen=True)
class _Function:
    """A function, its series, and the largest errors of values and slopes, and of the integral."""

    name: str
    call: Callable[..., Array]
    series: lk.ChebTucker
    tol: float
    seconds: float
    values: float
    slopes: float
    integral: float


def _function(name: str, tol: float) -> _Function:
    f = FUNCTIONS[name]
    slope, integral = dict(zip(FUNCTIONS, zip(SLOPES, INTEGRALS, strict=True), strict=True))[name]
    series, seconds = _clocked(lambda: lk.chebtucker(f, [(-1, 1)] * 3, tol=tol))
    x = np.random.default_rng(1).uniform(-1, 1, (3, 20_000))
    want = slope(*x)
    return _Function(
        name, f, series, tol, seconds,
        values=float(np.abs(series(*x) - f(*x)).max() / series.scale),
        slopes=float(np.abs(series.diff(0)(*x) - want).max() / np.abs(want).max()),
        integral=abs(series.integrate() - integral) / series.scale,
    )  # fmt: skip


# --- what it says --------------------------------------------------------------------------------


def _introduction() -> list[Block]:
    return [
        Text(
            "1/r is a sum of Gaussians, and a Gaussian is a product of functions of one variable. "
            "So the potential of many charges, but for what near neighbours add, is a small "
            "tensor of coefficients with a factor for each variable: lk.longrange_potential for "
            "charges anywhere, linalgk.tensor.lattice_sum for a crystal. lk.chebtucker makes the "
            "same of any function, lk.tucker of an array. Each of them is given a tolerance and "
            "says what error it has; both are compared here with what was found."
        )
    ]


def _crystal(cubes: Sequence[_Cube], known: float, seconds: float, page: Page) -> list[Block]:
    rows: list[list[str | Num]] = [
        [
            f"{'{0} × {0} × {0}'.format(round(c.potential.charges.size ** (1 / 3)))}",
            count(c.potential.charges.size),
            _fixed(c.value, 12),
            scientific(abs(c.value - c.direct)),
            scientific(abs(c.value - MADELUNG)),
            _ranks(c.potential.long.ranks),
            duration(c.seconds),
            duration(c.direct_seconds),
        ]
        for c in cubes
    ]
    last, off = cubes[-1], abs(known - MADELUNG)
    page.headlines += [
        (
            "Madelung constant of rock salt",
            f"{known:.13f}, off by {scientific(off)}, in {duration(seconds)}",
        ),
        (
            f"potential function of {last.potential.charges.size:,} ions",
            f"ranks {_ranks(last.potential.long.ranks)} in {duration(last.seconds)}; at its middle "
            f"off the direct sum by {scientific(abs(last.value - last.direct))}",
        ),
    ]
    return [
        Heading("Rock salt"),
        Text(
            "The potential at an ion due to all others, in cubes with half charges on their "
            "faces, tends to the Madelung constant of the infinite crystal, 1.74756459463318. "
            f"lattice_sum was asked for {scientific(LATTICE_TOL)} relative to the largest "
            "potential of the long range. Its ranks hardly grow with the crystal, and its time is "
            "that of a function on the whole cube; the direct sum, by NumPy, is one value only. "
            f"madelung_constant() sums the infinite crystal in {duration(seconds)}, off by "
            f"{scientific(off)}."
        ),
        Table(
            "",
            ["cube", "ions", "at the middle", "off the direct sum", "off the infinite crystal",
             "ranks", "time, function and value", "time, direct value"],
            rows,
        ),
    ]  # fmt: skip


def _slices(slab: _Slab) -> list[Block]:
    errors, v = slab.row.errors, slab.potential
    blocks: list[Block] = [
        Text(
            f"A slab of {v.charges.size:,} whole ions, in two planes: {slab.row.work} took "
            f"{duration(slab.row.times['linalgk'].seconds)}, the making included. Errors, relative "
            f"to the largest potential of the long range: asked for {scientific(v.tol)}, said to "
            f"be {scientific(v.error)}, found to be {scientific(errors['linalgk'])} at {CHECKED} "
            "of the points, against sums in extended precision."
        )
    ]
    if _plots.available():
        blocks.append(
            Figure(
                "Potential of the slab, red positive and blue negative, colours saturated near "
                "ions. Outside it fades within a distance of ions.",
                "Two maps: alternating red and blue discs in a band, and a faint checkerboard.",
                _maps(slab.panels, slab.extents),
            )
        )
    return blocks


def _charges(cloud: _Cloud, page: Page) -> list[Block]:
    rows: list[list[str | Num]] = [
        [
            scientific(e.potential.tol),
            scientific(e.values),
            scientific(e.energy),
            scientific(e.forces),
            _ranks(e.potential.long.ranks),
            count(e.potential.weights.size),
            duration(e.making),
            duration(e.energy_seconds),
            duration(e.forces_seconds),
        ]
        for e in cloud.estimates
    ]
    rows.append(["NumPy", *["–"] * 7, duration(cloud.seconds)])
    row, n = cloud.row, len(cloud.charges)
    shown = next(e for e in cloud.estimates if e.potential.tol == SHOWN_TOL)
    page.headlines.append(
        (
            f"{row.work}, {scientific(SHOWN_TOL)} asked for",
            f"{duration(row.times['linalgk'].seconds)}, all pairs by NumPy "
            f"{duration(row.times['NumPy'].seconds)}; errors: potential "
            f"{scientific(shown.values)}, energy {scientific(shown.energy)}",
        )
    )
    return [
        Heading("A cloud of charges"),
        Text(
            f"{n // 2:,} positive charges in a ball and {n - n // 2:,} negative ones in a ring "
            "around it. lk.longrange_potential keeps the wide Gaussians of all charges as one "
            "function and leaves the narrow ones to near neighbours. The tolerance is one of the "
            "potential, relative to the largest of the long range; the error of the energy is "
            "relative to it, that of the forces to their root mean square. The last line is the "
            "sum over all pairs by NumPy, in blocks that stay in the cache, for energy and forces "
            "together; its work grows with the square of the number of charges, that of the "
            "function and its neighbours more slowly."
        ),
        Table(
            "Errors found at all charges",
            ["asked for", "potential", "energy", "forces", "ranks", "Gaussians", "making",
             "energy, time", "forces, time"],
            rows,
        ),
    ]  # fmt: skip


def _views(cloud: _Cloud, pixels: int) -> list[Block]:
    if not _plots.available():
        return []
    v = next(e.potential for e in cloud.estimates if e.potential.tol == SHOWN_TOL)
    (x0, x1), (y0, y1), (z0, z1) = v.domain
    x, y, z = (np.linspace(*ends, pixels)[1:-1] for ends in v.domain)
    planes = (
        ("from above, z = 0", np.stack(np.broadcast_arrays(x, y[:, None], 0.0), axis=-1)),
        ("from the side, y = 0", np.stack(np.broadcast_arrays(x, 0.0, z[:, None]), axis=-1)),
    )
    panels = [(name, v.eval(plane)) for name, plane in planes]
    return [
        Figure(
            "Potential of the cloud in two planes, red positive and blue negative.",
            "Two maps: a red disc in a blue ring, and a red disc between two blue ones.",
            _maps(panels, ((x0, x1, y0, y1), (x0, x1, z0, z1))),
        )
    ]


def _maps(
    panels: Sequence[tuple[str, Array]], extents: Sequence[tuple[float, float, float, float]]
) -> bytes:
    """Values in planes in colours, white where they vanish."""
    widths = [(right - left) / (top - bottom) for left, right, bottom, top in extents]
    height = min(3.4, 8.4 / sum(widths))
    figure = _plots.new_figure(height * sum(widths) + 0.2, height + 0.3)
    for axes, (title, values), extent in zip(
        figure.subplots(1, len(panels), width_ratios=widths), panels, extents, strict=True
    ):
        most = float(np.nanquantile(np.abs(values), 0.97))
        axes.imshow(
            values, origin="lower", extent=extent, cmap="RdBu_r", vmin=-most, vmax=most,
            interpolation="bilinear",
        )  # fmt: skip
        axes.set_axis_off()
        axes.set_title(title, loc="left", fontsize=10, color="#7b8794")
    return _plots.png(figure)


def _gaussians() -> list[Block]:
    r = np.geomspace(1, 1000, 10_007)
    rows: list[list[str | Num]] = []
    for tol in (1e-4, 1e-8, 1e-12):
        (w, a), seconds = _clocked(lambda tol=tol: lk.gaussian_sum("newton", 1.0, 1000.0, tol))  # type: ignore[misc]
        off = np.abs(r * (np.exp(-np.outer(r**2, a)) @ w) - 1).max()
        rows.append([scientific(tol), count(w.size), scientific(float(off)), duration(seconds)])
    return [
        Text(
            "Where the Gaussians come from: lk.gaussian_sum is given an interval and a tolerance. "
            f"Of 1/r for r from 1 to 1000, relative errors at {r.size:,} points:"
        ),
        Table("", ["asked for", "Gaussians", "error found", "time"], rows),
    ]


def _functions(functions: Sequence[_Function], page: Page) -> list[Block]:
    rows: list[list[str | Num]] = [
        [
            f.name,
            scientific(f.tol),
            scientific(f.series.error),
            scientific(f.values),
            scientific(f.slopes),
            scientific(f.integral),
            _ranks(f.series.degrees),
            _ranks(f.series.ranks),
            count(f.series.evaluations),
            duration(f.seconds),
        ]
        for f in functions
    ]
    first = functions[0]
    page.headlines.append(
        (
            f"{first.name} in a cube, {scientific(first.tol)} asked for",
            f"{scientific(first.values)} found, in {duration(first.seconds)}; integral off by "
            f"{scientific(first.integral)}",
        )
    )
    return [
        Heading("Functions of three variables"),
        Text(
            "lk.chebtucker(f, [(-1, 1)] * 3) calls f where it chooses and returns a function that "
            "can be evaluated, differentiated and integrated. Said is its attribute error; found "
            "are the largest differences at 20,000 random points, of values relative to the "
            "largest value, of derivatives by x to the largest derivative. Integrals over the "
            "cube are compared with closed forms, the first with 20 digits of a one-dimensional "
            "integral. Derivatives lose some digits, as they must."
        ),
        Table(
            "",
            ["function", "asked for", "said", "values", "derivatives", "integral", "degrees",
             "ranks", "calls", "time"],
            rows,
        ),
    ]  # fmt: skip


def _times(work: Sequence[Row], page: Page, *, quick: bool) -> list[Block]:
    last = work[-1]
    ours, theirs = (last.times[name].seconds for name in ("linalgk", "NumPy, einsum"))
    page.headlines.append(
        (
            last.work,
            f"{duration(ours)}, by chebval and einsum {duration(theirs)}, extrapolated; error "
            f"{scientific(last.errors['linalgk'])}",
        )
    )
    return [
        Heading("Time for the same work"),
        Text(
            "Potentials include the making of the function. By NumPy the sum for the slab was "
            f"taken at {CHECKED} points, einsum of chebval of the factors at 4,000, and chebval3d "
            "of all coefficients at 10: their times are extrapolated to all points, as the work "
            "is proportional to them. Errors are those of the chapter: of the potential, of "
            "forces relative to their root mean square, of values; NumPy's sums are compared with "
            "extended precision."
            + (" This was a quick run: read the times as a rough guide." if quick else "")
        ),
        times_table(work),
    ]


def _frames(film: _tensor_times.Compressed) -> list[Block]:
    if not _plots.available():
        return []
    middle = len(film.data) // 2
    return [
        Figure(
            f"A frame of the film, and the same from {np.prod(film.tensor.ranks):,} numbers of a "
            "core and three factors.",
            "A photograph, and the same with fine details blurred.",
            _plots.tiles(
                [
                    ("frame", film.data[middle]),
                    ("compressed", np.asarray(film.tensor[middle].toarray())),
                ],
                height=2.6,
                same_scale=True,
            ),
        )
    ]


def _headline(done: _tensor_times.Compressed) -> tuple[str, str]:
    others = "".join(
        f"; {name} {scientific(off)}" for name, off in done.errors.items() if name != "linalgk"
    )
    return (
        f"tensor of {done.data.size:,} numbers, {scientific(done.tol)} asked for",
        f"{scientific(done.errors['linalgk'])} found, ranks {_ranks(done.tensor.ranks)}, in "
        f"{duration(done.seconds['linalgk'])}{others}",
    )


def _explanations(cloud: _Cloud, film: Array) -> list[Block]:
    lines = [
        ">>> lk.explain(lk.longrange_potential, points, charges, 1e-06)\n"
        f"{lk.explain(lk.longrange_potential, cloud.points, cloud.charges, SHOWN_TOL)}",
        f">>> lk.explain(lk.tucker, film, tol=0.08)\n{lk.explain(lk.tucker, film, tol=0.08)}",
    ]
    return [
        Heading("Which way, and why"),
        Text("lk.explain answers without computing."),
        Code("\n\n".join(lines)),
    ]


def _ranks(ranks: Sequence[int]) -> str:
    return " × ".join(map(str, ranks))


def _fixed(value: float, digits: int) -> Num:
    return Num(float(value), f"{value:.{digits}f}")
