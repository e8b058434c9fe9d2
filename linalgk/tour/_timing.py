"""Time contenders beside each other in one process, as evenly as one process allows."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from linalgk.tour._page import Num, Table, duration, ratio, scientific

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Row", "Timed", "imported", "interleaved", "times_table"]

# OpenBLAS threads spin for about this long after their last job and would slow whoever runs next.
_SETTLE = 0.02


@dataclass(frozen=True)
class Timed:
    """The shortest time of one contender and what it computed."""

    seconds: float
    result: Any


@dataclass(frozen=True)
class Row:
    """One work: of each contender, linalgk among them, the time and the error."""

    work: str
    times: Mapping[str, Timed]
    errors: Mapping[str, float]


def imported(libraries: Mapping[str, str]) -> list[str]:
    """Import modules by the names of their libraries, and name those that are there."""
    found = []
    for name, module in libraries.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import_module(module)
        except (ImportError, OSError, RuntimeError):
            continue
        found.append(name)
    return found


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int = 6, budget: float = 0.4
) -> dict[str, Timed]:
    """Run the contenders in turn, A B C A B C, and keep each one's minimum.

    Parameters
    ----------
    contenders : mapping of str to callable
        Each allocates its own output.
    rounds : int, default 6
        Rounds at most.
    budget : float, default 0.4
        Seconds after which no further round is begun; two rounds run at least.

    Returns
    -------
    dict of str to Timed
    """
    best = {name: Timed(float("inf"), None) for name in contenders}
    begun = time.perf_counter()
    for done in range(max(rounds, 2)):
        if done >= 2 and time.perf_counter() - begun > budget:
            break
        for name, call in contenders.items():
            time.sleep(_SETTLE)
            start = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - start
            best[name] = Timed(min(best[name].seconds, seconds), result)
    return best


def times_table(work: Iterable[Row]) -> Table:
    """Times and errors, the shortest time of each work set off.

    Parameters
    ----------
    work : iterable of Row

    Returns
    -------
    Table
    """
    rows: list[list[str | Num]] = []
    best = set()
    for row in work:
        quickest = min(row.times.values(), key=lambda timed: timed.seconds)
        base = row.times["linalgk"].seconds
        for name, timed in row.times.items():
            if timed is quickest:
                best.add((len(rows), 2))
            rows.append(
                [
                    row.work if name == "linalgk" else "",
                    name,
                    duration(timed.seconds),
                    ratio(timed.seconds / base),
                    scientific(row.errors[name]),
                ]
            )
    columns = ["work", "library", "time", "relative to linalgk", "error"]
    return Table("", columns, rows, best=frozenset(best))
