"""Errors and times of linalgk, NumPy and SciPy beside each other, for the first chapter."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour import _peers, _plots
from linalgk.tour._covariances import REL_DAMP, damped, identity_error, size
from linalgk.tour._page import Figure, Heading, Num, Table, Text, duration, ratio, scientific
from linalgk.tour._timing import interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._covariances import Data
    from linalgk.tour._page import Options, Page
    from linalgk.tour._timing import Timed

    Array = NDArray[Any]

__all__ = [
    "Row",
    "has_mpmath",
    "reference",
    "time_digits",
    "time_large",
    "time_table",
    "time_windows32",
    "time_windows64",
]

DIGITS_OF_REFERENCE = 50


@dataclass(frozen=True)
class Row:
    """One line of the time table: the work, and of each contender the time and the error."""

    work: str
    times: dict[str, Timed]
    errors: dict[str, float]


def reference(data: Data, options: Options, page: Page) -> None:
    """Forward errors of three windows: the easiest, a median one and the hardest."""
    from linalgk.testing import relative_error

    name, oracle = _oracle()
    kappa = data.kappa
    order = np.argsort(kappa)
    easiest, median, hardest = order[0], order[len(order) // 2], order[-1]
    double, single = np.dtype("float64"), np.dtype("float32")
    cases: list[tuple[str, int, np.dtype[Any]]] = [
        ("hardest", hardest, double),
        ("hardest", hardest, single),
    ]
    if not options.quick:
        cases = [("easiest", easiest, double), ("median", median, double), *cases]
    rows: list[list[str | Num]] = []
    groups = []
    for label, index, dtype in cases:
        # The rounded matrix is the problem; its own exact root is the answer asked for.
        a = data.windows[index].astype(dtype)
        exact = oracle(a)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            errors = {
                "linalgk": float(relative_error(lk.invsqrtm(a, assume_a="pos"), exact)),
                "NumPy": float(relative_error(_peers.numpy_invsqrtm(a), exact)),
                "SciPy": float(relative_error(_peers.scipy_invsqrtm(a), exact)),
            }
        kind = dtype.name
        unit = float(np.finfo(dtype).eps) * float(kappa[index])
        rows.append(
            [
                f"{label}, {kind}",
                scientific(float(kappa[index])),
                *(scientific(error) for error in errors.values()),
                scientific(unit),
            ]
        )
        bars = [(peer, error, str(scientific(error))) for peer, error in errors.items()]
        groups.append((f"{label}, {kind}, κ = {scientific(float(kappa[index]))}", bars))
        if label == "hardest" and dtype == double:
            page.headlines.append(
                (f"error against {name} reference, κ = {rows[-1][1]}", _side_by_side(errors))
            )
    page.add(
        Heading(f"Errors against a {name} reference"),
        Text(
            f"Some of the windows against their inverse square roots in {name} arithmetic, from "
            "the best to the worst conditioned. eps·κ is the size of error that rounding the input "
            "alone can cause. NumPy computes float32 in float64 inside."
        ),
        Table(
            "‖W − W_exact‖ / ‖W_exact‖",
            ["window", "κ", "linalgk", "NumPy", "SciPy", "eps·κ"],
            rows,
            best=frozenset((i, 2 + _smallest(row[2:5])) for i, row in enumerate(rows)),
        ),
    )
    if _plots.available():
        page.add(
            Figure(
                "The same errors. Shorter is better; one logarithmic scale for all.",
                "Bar charts of relative errors of linalgk, NumPy and SciPy.",
                _plots.bars(groups, prefix="errors", log=True),
            )
        )


def _oracle() -> tuple[str, Callable[[Array], Array]]:
    """The most precise reference that can be had, and what to call it."""
    from linalgk.testing import mp_invsqrtm, reference_invsqrtm

    if has_mpmath():
        return f"{DIGITS_OF_REFERENCE}-digit", lambda a: mp_invsqrtm(a, dps=DIGITS_OF_REFERENCE)
    return "32-digit", lambda a: reference_invsqrtm(a.astype(np.float64))


def time_windows64(data: Data, options: Options) -> Row:
    """Inverse roots of a third of the windows."""
    return _time_inverse(data.windows[::3], 0.0, options)


def time_windows32(data: Data, options: Options) -> Row:
    """The same in single precision."""
    return _time_inverse(data.windows[::3].astype(np.float32), 0.0, options)


def time_digits(data: Data, options: Options) -> Row | None:
    """Damped inverse roots of the digits, if there are any."""
    return None if data.digits is None else _time_inverse(data.digits, REL_DAMP, options)


def _time_inverse(a: Array, rel_damp: float, options: Options) -> Row:
    shifted = damped(a) if rel_damp else a
    times = _timed(
        {
            "linalgk": lambda: lk.invsqrtm(a, assume_a="pos", rel_damp=rel_damp),
            "NumPy": lambda: _peers.numpy_invsqrtm(a, rel_damp),
            # SciPy is given the shift ready-made: finding it would cost it a decomposition.
            "SciPy": lambda: _peers.scipy_invsqrtm(shifted),
        },
        options,
    )
    errors = {
        name: float(identity_error(timed.result, shifted).max()) for name, timed in times.items()
    }
    return Row(f"inverse root, {size(a)}, {a.dtype}", times, errors)


def time_large(data: Data, options: Options) -> Row:
    """Root of one larger matrix."""
    a = data.large
    times = _timed(
        {
            "linalgk": lambda: lk.sqrtm(a, assume_a="pos"),
            "NumPy": lambda: _peers.numpy_sqrtm(a),
            "SciPy": lambda: _peers.scipy_sqrtm(a),
        },
        options,
    )
    scale = np.linalg.norm(a)
    errors = {
        name: float(np.linalg.norm(timed.result @ timed.result - a) / scale)
        for name, timed in times.items()
    }
    return Row(f"root, {size(a)}, {a.dtype}", times, errors)


def _timed(contenders: Mapping[str, Callable[[], Array]], options: Options) -> dict[str, Timed]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return interleaved(
            contenders, rounds=2 if options.quick else 6, budget=0.0 if options.quick else 0.4
        )


def time_table(rows: Sequence[Row], options: Options, page: Page) -> None:
    """Write times and errors as a table, bars and headlines."""
    table: list[list[str | Num]] = []
    groups = []
    for row in rows:
        base = row.times["linalgk"].seconds
        for name, timed in row.times.items():
            table.append(
                [
                    row.work if name == "linalgk" else "",
                    name,
                    duration(timed.seconds),
                    ratio(timed.seconds / base),
                    scientific(row.errors[name]),
                ]
            )
        groups.append(
            (row.work, [(n, t.seconds, str(duration(t.seconds))) for n, t in row.times.items()])
        )
        if row is rows[0] or row is rows[-1]:
            speeds = ", ".join(
                f"{ratio(timed.seconds / base)} as fast as {name}"
                for name, timed in row.times.items()
                if name != "linalgk"
            )
            page.headlines.append((row.work, f"{duration(base)}: {speeds}"))
    page.add(
        Heading("Time for the same work"),
        Text(
            "Shortest of a few rounds, the libraries taking turns in one process, each with the "
            "threads it chooses and each allocating its own result. NumPy: eigh and two "
            "products. SciPy: sqrtm, and inv for the inverse. The error is the largest |W C W − "
            "I| of any member, and ‖RR − C‖ / ‖C‖ for the root. python -m linalgk bench measures "
            "with a process per library."
            + (" This was a quick run: read the times as a rough guide." if options.quick else "")
        ),
        Table(
            "",
            ["work", "library", "time", "relative to linalgk", "error"],
            table,
            best=frozenset(
                (i + _smallest([line[2] for line in table[i : i + 3]]), 2)
                for i in range(0, len(table), 3)
            ),
        ),
    )
    if _plots.available():
        page.add(
            Figure(
                "The same times. Shorter is better; each plot has its own scale from zero.",
                "Bar charts of times of linalgk, NumPy and SciPy.",
                _plots.bars(groups, prefix="times", log=False),
            )
        )


def _smallest(cells: Sequence[str | Num]) -> int:
    """Position of the smallest number."""
    values = [cell.value if isinstance(cell, Num) else np.inf for cell in cells]
    return values.index(min(values))


def _side_by_side(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {scientific(value)}" for name, value in values.items())


def has_mpmath() -> bool:
    """Whether there is a 50-digit reference."""
    try:
        import mpmath  # noqa: F401
    except ImportError:
        return False
    return True
