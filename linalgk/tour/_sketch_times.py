"""Times of sketches beside those of NumPy and SciPy, with the distortion each had for its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour import _plots
from linalgk.tour._covariances import EDGE, size
from linalgk.tour._page import Figure, Heading, Text, duration, ratio
from linalgk.tour._timing import Row, interleaved, times_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from linalgk.tour._page import Block, Options, Page
    from linalgk.tour._pixel_graph import Graph
    from linalgk.tour._timing import Timed

    Array = NDArray[Any]

__all__ = ["table"]


def table(every: Array, some: Array, graph: Graph, options: Options, page: Page) -> list[Block]:
    """Write times and errors as a table, bars and a headline."""
    work = (
        _time_stack(every, options),
        _time_count(every, options),
        _time_graph(graph, options),
        _time_gaussian(some, options),
        _time_least_squares(every, options),
    )
    ours, theirs = (work[0].times[name].seconds for name in ("linalgk", "SciPy"))
    page.headlines.append(
        (
            work[0].work,
            f"{duration(ours)}: {ratio(theirs / ours)} as fast as SciPy's sparse product",
        )
    )
    blocks: list[Block] = [
        Heading("Time for the same work"),
        Text(
            "Shortest of a few rounds, the libraries taking turns in one process, each with the "
            "threads it chooses. linalgk's times include making S. SciPy gets the SparseStack "
            "ready-made as a sparse matrix; its CountSketch is clarkson_woodruff_transform. "
            "NumPy draws a Gaussian matrix and multiplies. The error is the distortion of the "
            "result; for least squares, over all rows by NumPy and over the sketched ones by "
            "linalgk, by how much the residual exceeds the least one."
            + (" This was a quick run: read the times as a rough guide." if options.quick else "")
        ),
        times_table(work),
    ]
    if _plots.available():
        groups = [
            (r.work, [(n, t.seconds, str(duration(t.seconds))) for n, t in r.times.items()])
            for r in work
        ]
        blocks.append(
            Figure(
                "The same times. Shorter is better; each plot has its own scale from zero.",
                "Bar charts of times of linalgk, NumPy and SciPy.",
                _plots.bars(groups, prefix="sketch-times", log=False),
            )
        )
    return blocks


def _timed(contenders: Mapping[str, Callable[[], Any]], options: Options) -> dict[str, Timed]:
    return interleaved(
        contenders, rounds=2 if options.quick else 6, budget=0.0 if options.quick else 0.3
    )


def _row(work: str, times: Mapping[str, Timed], gram: Array) -> Row:
    """Errors are distortions, from the Gram matrices of the data and of the results."""
    values, vectors = np.linalg.eigh(gram)
    good = values > 1e-13 * values[-1]
    basis = vectors[:, good] / np.sqrt(values[good])
    errors = {}
    for name, timed in times.items():
        mapped = timed.result @ basis
        low, high = np.sqrt(np.maximum(np.linalg.eigvalsh(mapped.T @ mapped)[[0, -1]], 0))
        errors[name] = float(max(high - 1, 1 - low))
    return Row(work, times, errors)


def _time_stack(every: Array, options: Options) -> Row:
    k, m = 512, len(every)
    ready = lk.sketch.SparseStack(k, m, rng=0).tosparse()
    times = _timed(
        {
            "linalgk": lambda: lk.sketch.SparseStack(k, m, rng=0) @ every,
            "SciPy": lambda: ready @ every,
        },
        options,
    )
    return _row(f"SparseStack of {size(every)} to {k} rows", times, every.T @ every)


def _time_count(every: Array, options: Options) -> Row:
    from scipy.linalg import clarkson_woodruff_transform

    k, m = 512, len(every)
    times = _timed(
        {
            "linalgk": lambda: lk.sketch.CountSketch(k, m, rng=0) @ every,
            "SciPy": lambda: clarkson_woodruff_transform(every, k, 0),
        },
        options,
    )
    return _row(f"CountSketch of {size(every)} to {k} rows", times, every.T @ every)


def _time_graph(graph: Graph, options: Options) -> Row:
    a = graph.incidence
    m, n = a.shape
    ready = lk.sketch.SparseStack(4 * n, m, rng=0).tosparse()
    times = _timed(
        {
            "linalgk": lambda: lk.sketch.SparseStack(4 * n, m, rng=0) @ a,
            # dense, as linalgk's is and as what follows needs it
            "SciPy": lambda: (ready @ a).toarray(),
        },
        options,
    )
    return _row(f"SparseStack of the sparse {size(a)} to {4 * n:,}", times, (a.T @ a).toarray())


def _time_gaussian(some: Array, options: Options) -> Row:
    k, m = 256, len(some)

    def stored() -> Array:
        return np.asarray(np.random.default_rng(0).standard_normal((k, m)) @ some / k**0.5)

    times = _timed(
        {"linalgk": lambda: lk.sketch.Gaussian(k, m, rng=0) @ some, "NumPy": stored}, options
    )
    return _row(f"Gaussian sketch of {size(some)} to {k} rows", times, some.T @ some)


def _time_least_squares(every: Array, options: Options) -> Row:
    k, m = 2048, len(every)
    middle = (EDGE // 2) * EDGE + EDGE // 2
    target = np.ascontiguousarray(every[:, middle])
    others = np.delete(every, middle, axis=1)

    def sketched() -> Array:
        small = lk.sketch.SparseStack(k, m, rng=0) @ every
        x = np.linalg.lstsq(np.delete(small, middle, axis=1), small[:, middle], rcond=None)[0]
        return np.asarray(x)

    times = _timed(
        {
            "linalgk": sketched,
            "NumPy": lambda: np.linalg.lstsq(others, target, rcond=None)[0],
        },
        options,
    )
    residuals = {name: np.linalg.norm(others @ t.result - target) for name, t in times.items()}
    least = min(residuals.values())
    errors = {name: float(value / least - 1) for name, value in residuals.items()}
    return Row(f"least squares, {size(others)}, k = {k:,}", times, errors)
