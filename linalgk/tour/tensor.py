"""Sixth chapter: the potential of a crystal and of a cloud of charges, functions and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tensor import madelung_constant
from linalgk.tour import _charges, _plots, _tensor_times
from linalgk.tour._charges import CHECKED, SHOWN_TOL, clocked
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
from linalgk.tour._timing import times_table

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._charges import Cloud, Cube, Slab
    from linalgk.tour._page import Block, Options
    from linalgk.tour._timing import Row

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


def run(options: Options) -> Generator[None, None, Page]:
    """Do the chapter; yields before each of `STEPS`."""
    page, quick = Page(), options.quick
    if not _plots.available():
        page.left_out.append(missing("matplotlib", what="Plots"))
    yield
    tol = 1e-6 if quick else 1e-10
    cubes = [_charges.cube(edge, tol) for edge in ((11, 21) if quick else (11, 21, 41, 61))]
    known, seconds = clocked(madelung_constant)
    page.add(*_introduction(), *_crystal(cubes, known, seconds, page))
    yield
    slab = _charges.slab((24, 24, 6) if quick else (60, 60, 8), tol, pixels=60 if quick else 120)
    page.add(*_slices(slab))
    yield
    cloud = _charges.cloud(600 if quick else 3000, (1e-4, 1e-6) if quick else (1e-4, 1e-6, 1e-8))
    page.add(*_sums(cloud, page), *_views(cloud, pixels=60 if quick else 110))
    yield
    page.add(*_gaussians((1e-4, 1e-8) if quick else (1e-4, 1e-8, 1e-12)))
    yield
    functions = [_function(name, tol) for name in FUNCTIONS]
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
    film = _tensor_times.film(*((24, 64) if quick else (40, 96)))
    points = np.linspace(-1, 1, 40 if quick else 80)
    grid = runge.call(*np.meshgrid(points, points, points, indexing="ij"))
    done = [
        _tensor_times.compressed(what, data, tol, names, options)
        for what, data, tol in (
            ("frames of a film", film, 0.05),
            (f"{runge.name} on a grid", grid, 1e-10),
        )
    ]
    page.add(*_tensor_times.shown(done, names, quick=quick), *_frames(done[0]))
    page.headlines.append(_headline(done[-1]))
    page.add(*_explanations(cloud, film))
    return page


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
INTEGRALS = (0.47257058334518568486, 0.0, (2 * np.sin(10.0) / 10) ** 3)


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
    series, seconds = clocked(lambda: lk.chebtucker(f, [(-1, 1)] * 3, tol=tol))
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


def _crystal(cubes: Sequence[Cube], known: float, seconds: float, page: Page) -> list[Block]:
    rows: list[list[str | Num]] = [
        [
            f"{'{0} × {0} × {0}'.format(round(c.potential.charges.size ** (1 / 3)))}",
            count(c.potential.charges.size),
            _fixed(c.value, 12),
            scientific(c.off),
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
            f"off the direct sum by {scientific(last.off)}",
        ),
    ]
    return [
        Heading("Rock salt"),
        Text(
            "The potential at an ion due to all others, in cubes with half charges on their "
            "faces, tends to the Madelung constant of the infinite crystal, 1.74756459463318. "
            f"lattice_sum was asked for {scientific(last.potential.tol)} relative to the largest "
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


def _slices(slab: Slab) -> list[Block]:
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
                "Potential of the slab, red positive and blue negative, in a plane 0.3 distances "
                "beside the middle of ions and in one outside. Outside it fades within a "
                "distance of ions.",
                "Two maps: alternating red and blue discs in a band, and a faint checkerboard.",
                _maps(slab.panels, slab.extents),
            )
        )
    return blocks


def _sums(cloud: Cloud, page: Page) -> list[Block]:
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
    row = cloud.row
    ours, direct = (row.times[name].seconds for name in ("linalgk", "NumPy"))
    page.headlines.append(
        (
            f"{row.work}, {scientific(SHOWN_TOL)} asked for",
            f"{duration(ours)}, all pairs by NumPy {duration(direct)}; errors: potential "
            f"{scientific(cloud.shown.values)}, energy {scientific(cloud.shown.energy)}",
        )
    )
    return [
        Heading("A cloud of charges"),
        Text(
            f"{np.sum(cloud.charges > 0):,} positive charges in a ball and "
            f"{np.sum(cloud.charges < 0):,} negative ones in a ring "
            "around it. lk.longrange_potential keeps the wide Gaussians of all charges as one "
            "function and leaves the narrow ones to near neighbours. The tolerance is one of the "
            "potential, relative to the largest of the long range; the error of the energy is "
            "relative to it, that of the forces to their root mean square. The last line is the "
            "sum over all pairs by NumPy, in blocks that stay in the cache, for energy and forces "
            "together; its work grows with the square of the number of charges, that of the "
            "function and its neighbours more slowly."
            + (" For so few charges it is the quicker one." if direct < ours else "")
        ),
        Table(
            "Errors found at all charges",
            ["asked for", "potential", "energy", "forces", "ranks", "Gaussians", "making",
             "energy, time", "forces, time"],
            rows,
        ),
    ]  # fmt: skip


def _views(cloud: Cloud, pixels: int) -> list[Block]:
    if not _plots.available():
        return []
    v = cloud.shown.potential
    (x0, x1), (y0, y1), (z0, z1) = v.domain
    x, y, z = (np.linspace(low, high, pixels)[1:-1] for low, high in v.domain)
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
        most = float(np.quantile(np.abs(values), 0.97))
        axes.imshow(
            values, origin="lower", extent=extent, cmap="RdBu_r", vmin=-most, vmax=most,
            interpolation="bilinear",
        )  # fmt: skip
        axes.set_axis_off()
        axes.set_title(title, loc="left", fontsize=10, color="#7b8794")
    return _plots.png(figure)


def _gaussians(tols: Sequence[float]) -> list[Block]:
    r = np.geomspace(1, 1000, 10_007)
    rows: list[list[str | Num]] = []
    for tol in tols:
        (w, a), seconds = clocked(lambda tol=tol: lk.gaussian_sum("newton", 1.0, 1000.0, tol))  # type: ignore[misc]
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


def _explanations(cloud: Cloud, film: Array) -> list[Block]:
    lines = [
        ">>> lk.explain(lk.longrange_potential, points, charges, 1e-06)\n"
        f"{lk.explain(lk.longrange_potential, cloud.points, cloud.charges, SHOWN_TOL)}",
        f">>> lk.explain(lk.tucker, film, tol=0.05)\n{lk.explain(lk.tucker, film, tol=0.05)}",
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
