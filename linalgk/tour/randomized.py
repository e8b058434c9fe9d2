"""Fourth chapter: low rank and least squares by random sketches, and what they know of errors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour import _plots
from linalgk.tour._covariances import EDGE, patches, photographs, size
from linalgk.tour._page import (
    Figure,
    Heading,
    Num,
    Page,
    Table,
    Text,
    duration,
    missing,
    ratio,
    scientific,
)
from linalgk.tour._solutions import Exact
from linalgk.tour._timing import interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._page import Block, Options

    Array = NDArray[Any]

__all__ = ["STEPS", "TITLE", "run"]

TITLE = "Randomized solvers: each answer with its error"
STEPS = (
    "reading photographs and tables",
    "low rank: photograph",
    "low rank: digits",
    "polynomial",
    "regression: pixels",
    "regression: diabetes",
    "timing",
)
# The reach of the promise "predicted is true".
BAND = 3.0
LEVEL = 0.95
DEGREE = 8
# Coordinates begin here, where the polynomials of this degree have a condition number of 1e12.
FIRST = 0.04
LOW_RANK = "‖A − approximation‖ / ‖A‖"
BACKWARD = "backward error"
FORWARD = "‖x − exact‖ / ‖exact‖"
MARKERS = {
    "photograph": ("o", "#2f7de1"),
    "handwritten digits": ("s", "#d9962b"),
    "polynomial": ("^", "#c2569a"),
    "pixels": ("D", "#3f9e63"),
    "diabetes": ("v", "#8b95a3"),
}
MEANING = {
    "polynomial": ("gray levels of another photograph as a polynomial of the coordinates",),
    "pixels": ("one pixel by the 63 others of its patch",),
    "diabetes": ("a year's progress of the disease by products of ten measurements",),
}


def run(options: Options) -> Generator[None, None, Page]:
    """Do the chapter; yields before each of `STEPS`."""
    page = Page()
    yield
    images = photographs()
    tables = _tables()
    if tables is None:
        page.left_out.append(missing("scikit-learn", what="Handwritten digits and diabetes"))
    if not _plots.available():
        page.left_out.append(missing("matplotlib", what="Plots"))
    works: list[_Work] = []
    yield
    camera = images["camera"]
    works += _low_rank("photograph", camera, (10, 40) if options.quick else (10, 20, 40, 80), 40)
    yield
    if tables is not None:
        works += _low_rank("handwritten digits", tables.digits, (8, 16, 24), 16)
    yield
    works += _solved("polynomial", *_polynomial(images["brick"], step=6 if options.quick else 3))
    yield
    works += _sketched("pixels", *_pixels(images["brick"], step=4 if options.quick else 2))
    yield
    if tables is not None:
        works += _solved("diabetes", tables.products, tables.disease)
    page.add(*_predictions(works, page))
    page.add(*_pictures(camera, works, page))
    page.add(*_fits(works, page, seeds=5 if options.quick else 10))
    yield
    page.add(*_times(works, options, page))
    return page


# --- data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tables:
    """What comes with scikit-learn."""

    digits: Array  # (1797, 64) pixels
    products: Array  # (442, 65): one, ten measurements of patients, and their products by twos
    disease: Array  # (442,) progression after a year


def _tables() -> _Tables | None:
    try:
        from sklearn.datasets import load_diabetes, load_digits
    except ImportError:
        return None
    patients = load_diabetes()
    x = patients.data
    i, j = np.triu_indices(x.shape[1])
    # the square of what has two values is no new column
    new = (i != j) | np.array([len(np.unique(column)) > 2 for column in x.T])[i]
    products = np.hstack([np.ones((len(x), 1)), x, x[:, i[new]] * x[:, j[new]]])
    return _Tables(np.asarray(load_digits().data), products, np.asarray(patients.target))


def _polynomial(image: Array, *, step: int) -> tuple[Array, Array]:
    """Powers of the coordinates of pixels up to `DEGREE` each, and the gray levels."""
    image = image[::step, ::step]
    y, x = (np.linspace(FIRST, 1, n)[:, None] ** np.arange(DEGREE + 1) for n in image.shape)
    a = y[:, None, :, None] * x[None, :, None, :]
    return a.reshape(image.size, -1), image.ravel()


def _pixels(image: Array, *, step: int) -> tuple[Array, Array]:
    """All but one pixel of the patches, and that one."""
    every = patches(image, EDGE, EDGE, step=step)
    middle = (EDGE // 2) * EDGE + EDGE // 2
    return np.delete(every, middle, axis=1), every[:, middle].copy()


# --- the work ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """A method on data: what it found, what it says of its error, and what the error is."""

    data: str
    method: str
    measure: str
    a: Array
    call: Callable[..., Any]
    peers: Mapping[str, Callable[[], Any]]  # NumPy's and SciPy's ways to the same end
    judge: Callable[[Any], float]
    found: Any
    predicted: float
    true: float
    shown: bool  # in the time table
    exact: Exact | None = None
    earlier: Sequence[tuple[float, float]] = ()  # both errors of the rounds before

    @property
    def errors(self) -> list[tuple[float, float]]:
        """Predicted and true, of the result and of all that came before it."""
        return [*self.earlier, (self.predicted, self.true)]


def _low_rank(data: str, a: Array, ranks: Iterable[int], shown: int) -> list[_Work]:
    """Truncated decompositions, and columns and rows of the matrix itself."""
    norm = np.linalg.norm(a)

    def judge(found: Any) -> float:
        return float(np.linalg.norm(a - _product(found)) / norm)

    works = []
    for rank in ranks:
        factors = {"NumPy": partial(_numpy_svd, a, rank), "SciPy": partial(_scipy_svd, a, rank)}
        for name, call, peers in (
            ("rsvd, 2 passes", partial(lk.svd_lowrank, a, rank, method="rsvd", passes=2), factors),
            ("krylov, 4 passes", partial(lk.svd_lowrank, a, rank, method="krylov"), factors),
            ("CUR", partial(lk.cur, a, rank), {"SciPy": partial(_scipy_cur, a, rank)}),
        ):
            call = partial(call, rng=0)
            found = call()
            works.append(
                _Work(
                    data,
                    f"{name}, rank {rank}",
                    LOW_RANK,
                    a,
                    call,
                    peers,
                    judge,
                    found,
                    float(found.info.error_estimate),
                    judge(found),
                    rank == shown,
                )
            )
    return works


def _product(found: Any) -> Array:
    left, core, right = found
    return np.asarray((left * core if core.ndim == 1 else left @ core) @ right)


def _numpy_svd(a: Array, rank: int) -> tuple[Array, Array, Array]:
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    return u[:, :rank], s[:rank], vh[:rank]


def _scipy_svd(a: Array, rank: int) -> tuple[Array, Array, Array]:
    from scipy.sparse.linalg import svds

    u, s, vh = svds(a, rank, v0=np.ones(min(a.shape)))
    return u, s, vh


def _scipy_cur(a: Array, rank: int) -> tuple[Array, Array, Array]:
    from scipy.linalg import qr

    columns = qr(a, mode="r", pivoting=True)[1][:rank]
    rows = qr(a[:, columns].T, mode="r", pivoting=True)[1][:rank]
    c, r = a[:, columns], a[rows]
    return c, np.linalg.pinv(c) @ a @ np.linalg.pinv(r), r


def _solved(data: str, a: Array, b: Array) -> list[_Work]:
    """Least squares to rounding."""
    exact = Exact(a, b)
    works = []
    for method in ("auto", "spir", "fossils") if len(a) > 1000 else ("auto",):
        call = partial(lk.lstsq, a, b, method=method)
        rounds: list[tuple[float, Array]] = []
        found = call(callback=lambda at: rounds.append((at.backward_error, at.x[:, 0])))  # noqa: B023
        works.append(
            _Work(
                data,
                f"lstsq, {found.info.method}",
                BACKWARD,
                a,
                call,
                _least_squares(a, b),
                lambda found: exact.backward_error(getattr(found, "x", found)),
                found,
                float(found.backward_error),
                exact.backward_error(found.x),
                method == "auto",
                exact,
                [(error, exact.backward_error(x)) for error, x in rounds[:-1]],
            )
        )
    return works


def _sketched(data: str, a: Array, b: Array) -> list[_Work]:
    """Least squares of a sketch alone."""
    exact, n = Exact(a, b), a.shape[1]
    works = []
    for factor in (4, 16, 64):
        call = partial(lk.lstsq, a, b, method="sketch_solve", k=factor * n)
        found = call()
        works.append(
            _Work(
                data,
                f"lstsq, sketch_solve of {factor * n:,} rows",
                FORWARD,
                a,
                call,
                _least_squares(a, b),
                lambda found: exact.forward_error(getattr(found, "x", found)),
                found,
                float(found.info.error_estimate),
                exact.forward_error(found.x),
                factor == 16,
                exact,
            )
        )
    return works


def _least_squares(a: Array, b: Array) -> dict[str, Callable[[], Array]]:
    from scipy.linalg import lstsq

    # by default they would cut off singular values
    eps = float(np.finfo(float).eps)
    return {
        "NumPy": lambda: np.linalg.lstsq(a, b, rcond=eps)[0],
        "SciPy": lambda: np.asarray(lstsq(a, b, cond=eps, lapack_driver="gelsy")[0]),
    }


# --- what it said of its errors ------------------------------------------------------------------


def _predictions(works: Sequence[_Work], page: Page) -> list[Block]:
    """The errors that the methods told, against the true ones."""
    errors = [pair for work in works for pair in work.errors]
    least, largest = (scientific(end(p for p, _ in errors)) for end in (min, max))
    off = np.array([true / predicted for predicted, true in errors])
    good = int(((off < BAND) & (off > 1 / BAND)).sum())
    page.headlines.append(
        (
            f"predicted {len(errors)} errors, from {least} to {largest}",
            f"the true ones are {off.min():.2f} to {off.max():.2f} times as large",
        )
    )
    blocks: list[Block] = [
        Heading("Predicted and true errors"),
        Text(
            "A random sketch of a large matrix replaces it, or guides the way to the answer. "
            "Every answer comes with an estimate of its own error that needs no further look at "
            "the data: of low rank by rows of the sketch that nothing else depends on, of least "
            f"squares by the triangle of the sketch. The data: {_listed(works)}. True errors: of "
            "low rank and of sketched rows by the definition; backward errors by the formula of "
            "Karlson and Waldén with residuals in extended precision. "
            f"{good} of the {len(errors)} predictions are right within a factor of {BAND:g}."
        ),
    ]
    if _plots.available():
        blocks.append(_diagonal(works))
    return blocks


def _listed(works: Sequence[_Work]) -> str:
    sizes = {work.data: size(work.a) for work in works}
    return "; ".join(
        f"{name} ({', '.join([what, *MEANING.get(name, ())])})" for name, what in sizes.items()
    )


def _diagonal(works: Sequence[_Work]) -> Figure:
    from matplotlib.ticker import NullFormatter

    figure = _plots.new_figure(8.6, 4.2)
    whole, off = figure.subplots(1, 2, width_ratios=(1.25, 1))
    names = np.array([work.data for work in works for _ in work.errors])
    predicted, true = np.array([pair for work in works for pair in work.errors]).T
    ends = np.array([min(predicted.min(), true.min()) / 10, max(predicted.max(), true.max()) * 10])
    for axes, line in ((whole, ends), (off, np.ones(2))):
        axes.fill_between(ends, line / BAND, line * BAND, color="#8b95a3", alpha=0.3, lw=0)
        axes.loglog(ends, line, "--", lw=1.0, color="#5d6878")
        for name, (marker, colour) in MARKERS.items():
            mine = names == name
            if mine.any():
                y = true[mine] if axes is whole else true[mine] / predicted[mine]
                axes.plot(predicted[mine], y, marker, ms=5, color=colour, label=name, alpha=0.8)
        axes.set_xlim(*ends)
        axes.set_xlabel("predicted error")
    whole.set_ylim(*ends)
    whole.set_ylabel("true error")
    reach = 1.5 * max(BAND, float(np.max(true / predicted)), float(np.max(predicted / true)))
    off.set_ylim(1 / reach, reach)
    off.yaxis.set_minor_formatter(NullFormatter())
    ticks = {1 / BAND: f"1/{BAND:g}", 0.5: "1/2", 1.0: "1", 2.0: "2", BAND: f"{BAND:g}"}
    off.set_yticks(list(ticks), list(ticks.values()))
    off.set_ylabel("true error / predicted error")
    whole.legend(frameon=False, fontsize=9, loc="upper left")
    return Figure(
        "True against predicted errors, and their quotient. Dashed: the prediction is right; "
        f"gray: within a factor of {BAND:g}. Along the polynomial's markers least squares proceed "
        "to rounding; at the upper right are decompositions of low rank and solutions from a "
        "sketch alone.",
        "Two log-log plots: true errors lie along the diagonal over sixteen decades; their "
        "quotients by the predicted ones lie close to one.",
        _plots.svg(figure, "predictions"),
    )


def _pictures(image: Array, works: Sequence[_Work], page: Page) -> list[Block]:
    """The photograph from its singular vectors, and from its own columns and rows."""
    shown = {w.method.partition(",")[0]: w for w in works if w.data == "photograph" and w.shown}
    svd, cur = shown["krylov"], shown["CUR"]
    rank = len(svd.found.S)
    s = np.linalg.svd(image, compute_uv=False)
    least = float(np.linalg.norm(s[rank:]) / np.linalg.norm(s))
    share = rank * (sum(image.shape) + 1) / image.size
    page.headlines.append(
        (
            f"photograph from {rank} singular vectors, {100 * share:.0f} % of its numbers",
            f"error {scientific(svd.true)}, predicted {scientific(svd.predicted)}, "
            f"least possible {scientific(least)}",
        )
    )
    blocks: list[Block] = [
        Heading("A photograph of low rank"),
        Text(
            f"svd_lowrank reads the photograph four times for {rank} singular vectors, "
            f"{svd.true / least:.3f} times the least error there is. cur reads it once, and keeps "
            f"{rank} of its columns and {rank} of its rows as they are: "
            f"{cur.true / least:.2f} times that error, which it predicts as well "
            f"({scientific(cur.predicted)} for {scientific(cur.true)})."
        ),
    ]
    if _plots.available():
        panels = [
            ("photograph", image),
            (f"svd_lowrank, rank {rank}", _product(svd.found)),
            (f"cur, {rank} columns and rows", _product(cur.found)),
        ]
        blocks.append(
            Figure(
                "The photograph and two approximations of the same rank.",
                "A photograph of a man with a camera, and two copies with streaks.",
                _plots.tiles(panels, height=2.9, same_scale=True),
            )
        )
    return blocks


def _fits(works: Sequence[_Work], page: Page, *, seeds: int) -> list[Block]:
    """Least squares: what rounding, the condition and the sketch do to the coefficients."""
    rows: list[list[str | Num]] = []
    for work in works:
        if work.measure == BACKWARD and work.exact is not None:
            s = work.exact.s
            rows.append(
                [
                    f"{work.data}, {size(work.a)}",
                    work.method,
                    scientific(float(s[0] / s[-1])),
                    scientific(work.true),
                    scientific(work.exact.forward_error(work.found.x)),
                    scientific(float(work.found.info.error_estimate)),
                ]
            )
    hard = next(w for w in works if w.data == "polynomial")
    sketched = next(w for w in works if w.data == "pixels" and w.shown)
    inside = _coverage(sketched, seeds)
    page.headlines += [
        (
            f"least squares, {size(hard.a)}, κ = {rows[0][2]}",
            f"backward error {scientific(hard.true)}, predicted {scientific(hard.predicted)}",
        ),
        (
            f"regression of {size(sketched.a)} from a sketch alone",
            f"{100 * inside:.0f} % of the exact coefficients within their {100 * LEVEL:.0f} % "
            "intervals",
        ),
    ]
    return [
        Heading("Least squares to the last bit, or with intervals"),
        Text(
            f"Gray levels as a polynomial of degree {DEGREE} in each coordinate have a condition "
            f"number of {rows[0][2]}: normal equations would square it. lstsq takes a sketch as "
            "a preconditioner and corrects the solution until it is the exact one of a problem "
            "that differs from the given one by no more than rounding, as a direct method's is. "
            "What the condition makes of that difference in the coefficients has a bound, "
            "info.error_estimate."
        ),
        Table(
            "Solutions to rounding",
            ["data", "method", "κ", "backward error", FORWARD, "its bound"],
            rows,
        ),
        Text(
            "method='sketch_solve' reads the data once, and its coefficients have errors that do "
            "not end with rounding but follow a known law. Over "
            f"{seeds} seeds, {100 * inside:.1f} % of the exact coefficients of the pixels lie in "
            f"their intervals of {100 * LEVEL:.0f} %."
        ),
    ]


def _coverage(work: _Work, seeds: int) -> float:
    """Share of exact coefficients in their intervals."""
    assert work.exact is not None
    inside = []
    for seed in range(seeds):
        low, high = work.call(rng=seed).interval(LEVEL)
        inside.append(np.mean((low <= work.exact.x) & (work.exact.x <= high)))
    return float(np.mean(inside))


# --- time ----------------------------------------------------------------------------------------


def _times(works: Sequence[_Work], options: Options, page: Page) -> list[Block]:
    """A line for each kind of work, beside the faster one of NumPy and SciPy."""
    rows: list[list[str | Num]] = []
    best: set[tuple[int, int]] = set()
    gains = []
    for work in works:
        if not work.shown:
            continue
        times = interleaved(
            {"linalgk": work.call, **work.peers},
            rounds=2 if options.quick else 4,
            budget=0.0 if options.quick else 0.3,
        )
        ours = times.pop("linalgk")
        name = min(times, key=lambda name: times[name].seconds)
        theirs = times[name]
        gains.append(theirs.seconds / ours.seconds)
        best.add((len(rows), 4 if ours.seconds <= theirs.seconds else 7))
        rows.append(
            [
                f"{work.data}, {size(work.a)}",
                work.method,
                scientific(work.predicted),
                scientific(work.true),
                duration(ours.seconds),
                name,
                scientific(work.judge(theirs.result)),
                duration(theirs.seconds),
            ]
        )
    page.headlines.append(
        (
            f"{len(gains)} kinds of work, against the faster one of NumPy and SciPy",
            f"{ratio(float(np.median(gains)))} as fast in the middle, {ratio(min(gains))} to "
            f"{ratio(max(gains))}",
        )
    )
    return [
        Heading("Time, and what it bought"),
        Text(
            "Shortest of a few rounds, the libraries taking turns in one process, each with the "
            "threads it chooses. NumPy: svd and lstsq. SciPy: svds, lstsq by QR with pivots, and "
            "CUR by two such factorizations. Errors as in the plot; NumPy and SciPy are told to "
            "keep all singular values in least squares, and have no estimates of theirs."
            + (" This was a quick run: read the times as a rough guide." if options.quick else "")
        ),
        Table(
            "",
            [
                "data",
                "method",
                "predicted error",
                "true error",
                "time",
                "best of NumPy and SciPy",
                "its true error",
                "its time",
            ],
            rows,
            best=frozenset(best),
        ),
    ]
