"""Third chapter: tall matrices become small ones, and how far that changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour import _plots, _sketch_times
from linalgk.tour._covariances import EDGE, patches, photographs, size
from linalgk.tour._page import (
    Code,
    Figure,
    Heading,
    Num,
    Page,
    Table,
    Text,
    count,
    missing,
)
from linalgk.tour._pixel_graph import pixel_graph

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._page import Block, Options
    from linalgk.tour._pixel_graph import Graph

    Array = NDArray[Any]

__all__ = ["STEPS", "TITLE", "run"]

TITLE = "Sketching: tall data made small"
STEPS = (
    "reading digits and patches",
    "distortion of the digits",
    "distortion of the patches",
    "pixel graph",
    "distortion of the pixel graph",
    "least squares",
    "blocks in any order",
    "timing",
)
# Rows of a sketch by rank of the data; one of them stands in the table.
FACTORS: tuple[float, ...] = (1.5, 2, 4, 8, 16, 32)
SHOWN = 8
HEAVY = 0.9
FAMILIES = {
    "SparseStack": lk.sketch.SparseStack,
    "CountSketch": lk.sketch.CountSketch,
    "SRHT": lk.sketch.SRHT,
    "Gaussian": lk.sketch.Gaussian,
}
COLOURS = {
    "SparseStack": _plots.COLOURS["linalgk"],
    "CountSketch": _plots.COLOURS["SciPy"],
    "SRHT": "#c2569a",
    "Gaussian": _plots.COLOURS["NumPy"],
}
MARKERS = {"SparseStack": "o", "CountSketch": "s", "SRHT": "^", "Gaussian": "D"}


def run(options: Options) -> Generator[None, None, Page]:
    """Do the chapter; yields before each of `STEPS`."""
    page = Page()
    seeds = 3 if options.quick else 5
    yield
    image = photographs()["camera"]
    every = patches(image, EDGE, EDGE, step=2 if options.quick else 1)
    some = patches(image, EDGE, EDGE, step=4 if options.quick else 2)
    digits = _digits()
    if digits is None:
        page.left_out.append(missing("scikit-learn", what="Handwritten digits"))
    if not _plots.available():
        page.left_out.append(missing("matplotlib", what="Plots"))
    page.add(_introduction())
    talls: list[_Tall] = []
    points: list[list[_Point]] = []
    yield
    if digits is not None:
        talls.append(_dense("handwritten digits", digits))
        points.append(_measure(talls[-1], tuple(FAMILIES), FACTORS, seeds))
    yield
    talls.append(_dense("patches of a photograph", some))
    few = FACTORS[:5] if options.quick else FACTORS
    points.append(_measure(talls[-1], tuple(FAMILIES), few, seeds))
    yield
    graph = pixel_graph(image, edge=32 if options.quick else 20)
    yield
    talls.append(_of_graph(graph))
    # so many columns leave little to chance: one seed
    few = FACTORS[:4] if options.quick else FACTORS[:5]
    points.append(_measure(talls[-1], ("SparseStack", "CountSketch"), few, 1))
    page.add(*_distortions(talls, points, page))
    page.add(*_segments(image, graph))
    yield
    page.add(*_least_squares(some, talls[-2], seeds))
    yield
    page.add(*_bits(every, graph))
    yield
    page.add(*_sketch_times.table(every, some, graph, options, page))
    page.add(*_explanations(every, graph))
    return page


def _introduction() -> Text:
    return Text(
        "A sketch S @ A adds the many rows of A, with random signs or weights, to few. What A x "
        "measures stays: with U an orthonormal basis of the columns of A, all singular values of "
        "S U lie between 1 − η and 1 + η, and so no length |A x| changes by more than that. η is "
        "the distortion. It depends on the number k of rows of the sketch and on the rank d, not "
        "on how many rows A has: for Gaussian sketches it tends to √(d/k)."
    )


# --- data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tall:
    """A tall matrix ``a`` whose columns times ``basis`` are orthonormal (None: already are)."""

    name: str
    what: str
    a: Any
    basis: Array | None
    d: int
    square: float  # sum of the squares of the leverage scores
    heavy: int = 0  # rows whose score is above HEAVY


def _digits() -> Array | None:
    """Pixels of the handwritten digits (1797, 64), or None without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return None
    return np.asarray(load_digits().data)


def _dense(name: str, a: Array) -> _Tall:
    """The orthonormal columns of a matrix, some of whose columns may be zero."""
    q, r = np.linalg.qr(a)
    left, s, _ = np.linalg.svd(r)
    u = q @ left[:, s > 1e-10 * s[0]]
    scores = lk.leverage_scores(a)
    heavy = int((scores > HEAVY).sum())
    return _Tall(name, size(a), u, None, u.shape[1], float(scores @ scores), heavy)


def _of_graph(graph: Graph) -> _Tall:
    basis = graph.basis
    a = graph.incidence
    return _Tall("pixel graph, sparse", size(a), a, basis, basis.shape[1], graph.square)


# --- distortion ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """What the sketches of one family with k rows did, seed by seed."""

    family: str
    k: int
    smallest: Array  # singular values of S U
    largest: Array
    off: Array  # |U'S'SU - I|_F^2
    law: float  # its expectation

    @property
    def eta(self) -> Array:
        """Distortions."""
        return np.asarray(np.maximum(self.largest - 1, 1 - self.smallest))


def _measure(
    tall: _Tall, families: Sequence[str], factors: Sequence[float], seeds: int
) -> list[_Point]:
    ks = [8 * round(factor * tall.d / 8) for factor in factors]
    # without a reduction there is nothing to show
    ks = [k for k in ks if k < tall.a.shape[0]]
    points = []
    for family in families:
        found: dict[int, list[tuple[float, float, float]]] = {k: [] for k in ks}
        laws: dict[int, float] = {}
        for seed in range(seeds):
            for s, product in _products(family, ks, tall.a, seed):
                k = s.shape[0]
                found[k].append(_spectrum(product, tall))
                laws[k] = laws[k] if k in laws else _law(s, tall)
        for k in ks:
            smallest, largest, off = np.array(found[k]).T
            points.append(_Point(family, k, smallest, largest, off, laws[k]))
    return points


def _products(family: str, ks: Sequence[int], a: Any, seed: int) -> Iterator[tuple[Any, Array]]:
    """The sketches with k rows, and what they make of a."""
    kind, m = FAMILIES[family], a.shape[0]
    if family in ("SparseStack", "CountSketch"):
        for k in ks:
            s = kind(k, m, rng=seed)
            yield s, s @ a
        return
    # the others keep their rows when they grow: the largest contains all
    largest = kind(max(ks), m, rng=seed)
    product = largest @ a
    for k in ks:
        s = kind(k, m, rng=seed)
        yield s, product[:k] * (s.scale / largest.scale)


def _spectrum(product: Array, tall: _Tall) -> tuple[float, float, float]:
    """Extreme singular values of S U, and |U'S'SU - I|_F^2."""
    gram = product.T @ product
    if tall.basis is not None:
        gram = tall.basis.T @ gram @ tall.basis
    values = np.linalg.eigvalsh(gram)
    low, high = np.sqrt(np.maximum(values[[0, -1]], 0))
    return float(low), float(high), float(((values - 1) ** 2).sum())


def _law(s: Any, tall: _Tall) -> float:
    """Expectation of |U'S'SU - I|_F^2 over the seeds, exact."""
    k, d = int(s.shape[0]), tall.d
    if isinstance(s, lk.sketch.Gaussian):
        return (d * d + d) / k
    plain = (d * d + d - 2 * tall.square) / k
    if not isinstance(s, lk.sketch.SRHT):
        return plain
    # rows of the transform are drawn without replacement, the same for every block
    less = 0.0
    for start in range(0, len(tall.a), s.block):
        rows = tall.a[start : start + s.block]
        gram, lengths = rows.T @ rows, (rows * rows).sum(axis=1)
        less += np.trace(gram) ** 2 + (gram * gram).sum() - 2 * (lengths @ lengths)
    return float(plain - (k - 1) / (k * (s.block - 1)) * less)


def _distortions(
    talls: Sequence[_Tall], points: Sequence[Sequence[_Point]], page: Page
) -> list[Block]:
    rows: list[list[str | Num]] = []
    for tall, found in zip(talls, points, strict=True):
        shown = [p for p in found if p.k == _shown(tall)]
        for i, p in enumerate(shown):
            rows.append(
                [
                    f"{tall.name}, {tall.what}, rank {tall.d:,}" if i == 0 else "",
                    p.family,
                    count(p.k),
                    _three(p.smallest.min()),
                    _three(p.largest.max()),
                    _three(p.eta.mean()),
                    _three((tall.d / p.k) ** 0.5),
                    _three(p.off.mean() / p.law),
                ]
            )
    stack = [p for t, f in zip(talls, points, strict=True) for p in f if p.k == _shown(t)]
    etas = [p.eta.mean() for p in stack if p.family == "SparseStack"]
    laws = [p.off.mean() / p.law for found in points for p in found]
    page.headlines.append(
        (
            f"sketched {len(talls)} tall matrices to {SHOWN} rows a dimension",
            f"distortion {min(etas):.3f} to {max(etas):.3f}, √(d/k) = {SHOWN**-0.5:.3f}; mean of "
            f"‖UᵀSᵀSU − I‖² {min(laws):.2f} to {max(laws):.2f} of its law",
        )
    )
    blocks: list[Block] = [
        Heading("Distortion and its law"),
        Text(
            "A digit is a row of 64 pixels, and so is a patch. The sparse matrix has a row for "
            "every pair of neighbouring pixels and a column for every superpixel of the photograph "
            "below; it is sketched as it is stored." + _coherence(talls)
        ),
        Text(
            "The last column holds an exact law against the measurement. With leverage scores ℓ "
            "the mean of ‖UᵀSᵀSU − I‖² over all seeds is (d² + d − 2Σℓ²)/k for sparse sketches, "
            "(d² + d)/k for Gaussian ones, and less for SRHT, which draws its rows without "
            "replacement. What is left beside 1 is the chance of a few seeds."
        ),
        Table(
            f"Sketches with k = {SHOWN} d rows: extreme singular values of S U of all seeds, mean "
            "distortion, mean square against its law",
            ["data", "sketch", "k", "smallest", "largest", "η", "√(d/k)", "‖·‖² / law"],
            rows,
        ),
    ]
    if _plots.available():
        blocks.append(_curves(talls, points))
    return blocks


def _coherence(talls: Sequence[_Tall]) -> str:
    """Why sparse sketches of some data can stray from the line."""
    parts = [f"{t.heavy} rows of the {t.name}" for t in talls if t.heavy]
    if not parts:
        return ""
    return (
        f" {' and '.join(parts)} have a leverage score above {HEAVY:g}: hardly another row has a "
        "part in their directions. CountSketch may add one of them to another heavy row, which "
        "mixes both; SparseStack spreads each over eight."
    )


def _three(value: float) -> Num:
    """A number near one."""
    return Num(float(value), f"{value:.3f}")


def _shown(tall: _Tall) -> int:
    return 8 * round(SHOWN * tall.d / 8)


def _curves(talls: Sequence[_Tall], points: Sequence[Sequence[_Point]]) -> Figure:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = _plots.new_figure(8.6, 3.4)
    panels = np.atleast_1d(figure.subplots(1, len(talls), sharey=True))
    for axes, tall, found in zip(panels, talls, points, strict=True):
        ks = sorted({p.k for p in found})
        line = np.geomspace(ks[0] / 1.15, ks[-1] * 1.15, 50)
        axes.loglog(line, np.sqrt(tall.d / line), "--", lw=1.2, color="#5d6878", label="√(d/k)")
        families = list(dict.fromkeys(p.family for p in found))
        for i, family in enumerate(families):
            mine = [p for p in found if p.family == family]
            # side by side, or they would hide each other
            x = np.array([p.k for p in mine]) * 1.05 ** (i - (len(families) - 1) / 2)
            mean = np.array([p.eta.mean() for p in mine])
            reach = [[m - p.eta.min(), p.eta.max() - m] for m, p in zip(mean, mine, strict=True)]
            axes.errorbar(
                x,
                mean,
                yerr=np.transpose(reach),
                fmt=MARKERS[family],
                ms=4,
                lw=1.2,
                color=COLOURS[family],
                label=family,
            )
        axes.set_title(f"{tall.name}\nd = {tall.d:,}", loc="left", fontsize=10, color="#7b8794")
        axes.set_xlabel("rows k of the sketch")
        # the first two would touch
        axes.set_xticks(ks[1:], [f"{k:,}" for k in ks[1:]])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.set_yticks([0.18, 0.25, 0.35, 0.5, 0.7, 1.0])
        axes.yaxis.set_major_formatter(ScalarFormatter())
    panels[0].set_ylabel("distortion η")
    panels[0].legend(frameon=False, fontsize=9)
    return Figure(
        "Distortion against the rows of the sketch: mean of the seeds, bars from the least to the "
        "largest. The dashed line is the law.",
        "Log-log plots of distortion against rows of the sketch, one for each matrix, along a "
        "falling line.",
        _plots.svg(figure, "distortion"),
    )


# --- the graph -----------------------------------------------------------------------------------


def _segments(image: Array, graph: Graph) -> list[Block]:
    """The eigenvector that cuts the photograph in two, from the graph and from its sketch."""
    edges, n = graph.incidence.shape
    k = 4 * n
    s = lk.sketch.SparseStack(k, edges, rng=0)
    product = s @ graph.incidence
    roots = graph.roots
    values, vectors = np.linalg.eigh(product.T @ product / roots / roots[:, None])
    low, high, _ = _spectrum(product, _of_graph(graph))
    ratios = values[1:] / graph.values[1:]
    exact = graph.vectors[:, 1]
    mine = vectors[:, 1] * np.sign(vectors[:, 1] @ exact)
    rows: list[list[str | Num]] = [
        ["smallest", *map(_three, (low**2, ratios.min()))],
        ["largest", *map(_three, (high**2, ratios.max()))],
    ]
    blocks: list[Block] = [
        Heading("A photograph cut by a sketch of its graph"),
        Text(
            f"Row e of the matrix B belongs to one of {edges:,} pairs of neighbouring pixels: the "
            "root of a weight, large where the two gray levels are close, at one superpixel and "
            f"minus that at the other. BᵀB is the Laplacian of {n:,} superpixels. Its second "
            "eigenvector, scaled by the degrees, cuts the photograph where that costs least. BᵀB "
            "itself is cheap for a matrix this sparse, so that it can judge the sketch. "
            f"(SB)ᵀ(SB) with k = {k:,} rows has eigenvalues within the squared singular values of "
            f"S U of the exact ones; the angle between the two second eigenvectors is "
            f"{np.degrees(np.arccos(min(1.0, abs(float(exact @ mine))))):.0f}°."
        ),
        Table(
            "Eigenvalues of the sketched Laplacian, relative to the exact ones",
            ["", "bound", "measured"],
            rows,
        ),
    ]
    if _plots.available():
        panels = [
            ("photograph", image),
            ("second eigenvector", graph.picture(exact)),
            (f"the same from a sketch of {k:,} rows", graph.picture(mine)),
        ]
        blocks.append(
            Figure(
                "Superpixels in the gray level of their entry in the second eigenvector, of BᵀB "
                "and of (SB)ᵀ(SB).",
                "A photograph of a man with a camera, and two nearly equal pictures of its parts "
                "in flat gray levels.",
                _plots.tiles(panels, height=2.9),
            )
        )
    return blocks


# --- least squares -------------------------------------------------------------------------------


def _least_squares(some: Array, tall: _Tall, seeds: int) -> list[Block]:
    """Predict a pixel from those around it: all rows against the sketched ones."""
    # in the coordinates of U the residual of all rows is that of d rows
    exact = tall.a.T @ some
    middle = (EDGE // 2) * EDGE + EDGE // 2
    n = some.shape[1] - 1
    least = _residual(exact, exact, middle)
    rows: list[list[str | Num]] = []
    for k in (_shown(tall) // 4, _shown(tall), 4 * _shown(tall)):
        ratios, etas = [], []
        for seed in range(seeds):
            product = lk.sketch.SparseStack(k, len(some), rng=seed) @ tall.a
            low, high, _ = _spectrum(product, tall)
            etas.append(max(high - 1, 1 - low))
            ratios.append(_residual(product @ exact, exact, middle) / least)
        squares = np.square(ratios).mean()
        law, bound = 1 + n / (k - n - 1), (1 + max(etas)) / (1 - max(etas))
        rows.append(
            [
                count(k),
                *map(_three, (squares**0.5, law**0.5, max(ratios), bound)),
            ]
        )
    return [
        Heading("Least squares from a sketch"),
        Text(
            f"A pixel of a patch is predicted from the {n} others, by least squares over all "
            f"{len(some):,} patches and over the rows of a SparseStack. The residual of the latter "
            "on all patches exceeds the least possible one by a factor whose square is 1 + n/(k − "
            "n − 1) in the mean of Gaussian sketches, and which (1 + η)/(1 − η) bounds."
        ),
        Table(
            "Residual, relative to the least possible one",
            ["k", "root mean square", "Gaussian law", "worst seed", "its bound"],
            rows,
        ),
    ]


def _residual(fit: Array, on: Array, column: int) -> float:
    """Fit a column by the others on some rows; the residual on others."""
    others = np.delete(np.arange(fit.shape[1]), column)
    x = np.linalg.lstsq(fit[:, others], fit[:, column], rcond=None)[0]
    return float(np.linalg.norm(on[:, others] @ x - on[:, column]))


# --- bits ----------------------------------------------------------------------------------------


def _bits(every: Array, graph: Graph) -> list[Block]:
    """The same sketch in several ways."""
    incidence = graph.incidence
    stack = lk.sketch.SparseStack(512, len(every), rng=1)
    of_graph = lk.sketch.SparseStack(512, incidence.shape[0], rng=1)
    whole, whole_graph = stack @ every, of_graph @ incidence
    with lk.config_context(num_threads=1):
        single = stack @ every
    halves = [_shuffled(of_graph, incidence, part) for part in (0, 1)]
    halves[1] += halves[0]
    cases = [
        ("patches, columns stored together", stack @ np.asfortranarray(every), whole),
        ("patches, 1 thread", single, whole),
        ("patches, by blocks in random order", _shuffled(stack, every).result(), whole),
        ("graph, by blocks in random order", _shuffled(of_graph, incidence).result(), whole_graph),
        ("graph, two sums of half the blocks, merged", halves[1].result(), whole_graph),
    ]
    rows: list[list[str | Num]] = [
        [label, size(x), "identical" if np.array_equal(x, y) else "different"]
        for label, x, y in cases
    ]
    return [
        Heading("Rows may come in any order, from anywhere"),
        Text(
            "S.accumulator takes blocks of rows as they come, and adds up to what S @ A gives for "
            "all rows at once, bit for bit. Sums made in several places can be added."
        ),
        Table("", ["how the sketch was made", "size", "bits, against S @ A"], rows),
    ]


def _shuffled(s: Any, a: Any, part: int | None = None, pieces: int = 24) -> Any:
    """An accumulator that got the rows by blocks of random lengths; of these every other one."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(1, a.shape[0]), pieces - 1, replace=False)).tolist()
    blocks = list(zip([0, *cuts], [*cuts, a.shape[0]], strict=True))
    acc = s.accumulator(a.shape[1])
    for i in rng.permutation(pieces).tolist():
        begin, end = blocks[i]
        if part is None or i % 2 == part:
            acc.update(a[begin:end], offset=begin)
    return acc


def _explanations(every: Array, graph: Graph) -> list[Block]:
    cases = [
        (lk.sketch.SparseStack(512, len(every), rng=0), "patches", every),
        (lk.sketch.Gaussian(512, len(every), rng=0), "patches", every),
        (lk.sketch.SparseStack(4096, graph.incidence.shape[0], rng=0), "graph", graph.incidence),
    ]
    lines = [f">>> {type(s).__name__}.explain({name})\n{s.explain(a)}" for s, name, a in cases]
    return [
        Heading("Which way, and why"),
        Text("S.explain(A) says what S @ A would run, without computing."),
        Code("\n\n".join(lines)),
    ]
