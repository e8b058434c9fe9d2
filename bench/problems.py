"""What a benchmark problem and a target are, and where to find them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]

# Each is a module of this package with a list PROBLEMS and a list PEERS.
ROOMS = ("kronecker", "matfun", "randomized", "sketch", "tensor")


@dataclass(frozen=True)
class Target:
    """A promise about linalgk's time against one contender's, from one interleaved run.

    ``kind="speedup"`` asks ``time(against) / time(linalgk) >= bound``; ``kind="share"`` asks
    ``time(linalgk) / time(against) <= bound``; ``kind="seconds"`` asks ``time(linalgk) <= bound``.
    ``alone`` takes the place of the bound where everybody has one thread.
    """

    against: str
    bound: float
    kind: Literal["speedup", "share", "seconds"] = "speedup"
    alone: float | None = None

    def with_threads(self, threads: int) -> Target:
        """Return the promise for so many threads."""
        if threads > 1 or self.alone is None:
            return self
        return Target(self.against, self.alone, self.kind)

    def judge(self, ours: float, theirs: float) -> tuple[float, bool]:
        """Return the measured ratio (or seconds) and whether it meets the bound."""
        if self.kind == "speedup":
            return theirs / ours, theirs / ours >= self.bound
        measured = ours if self.kind == "seconds" else ours / theirs
        return measured, measured <= self.bound

    def __str__(self) -> str:
        if self.kind == "speedup":
            return f"target {self.bound:g}x vs {self.against}"
        if self.kind == "share":
            return f"target at most {self.bound:g}x the time of {self.against}"
        return f"target at most {self.bound:g} s"


def worst_relative_error(result: Array, reference: Array) -> float:
    """Return the largest relative Frobenius error over the batch."""
    from linalgk.testing import relative_error

    return float(np.max(relative_error(result, reference), initial=0.0))


@dataclass(frozen=True, eq=False)
class Problem:
    """One job on one set of seeded inputs.

    Attributes
    ----------
    name : str
        Unique; words joined by hyphens, to be selected with ``-k``.
    function : str
        The public function of linalgk that does the job.
    make : callable
        Returns the arrays by name; those in `args` are passed to the function, in that order.
    reference : callable
        Takes the arrays, returns the true answer (an oracle of `linalgk.testing`), or None when
        `error` needs none.
    flops, nbytes : float
        Model of the least arithmetic and memory traffic, the same for all contenders; 0 where no
        model makes sense.
    tier : {"target", "gallery"}
        ``--quick`` runs the targets only.
    error_bound : float or None
        The error that the targets are conditional on.
    structure : str
        "pos", "gen" or "", what contenders may know about the input.
    """

    name: str
    function: str
    shape: tuple[int, ...]
    dtype: str
    make: Callable[[], Arrays]
    reference: Callable[[Arrays], Array | None]
    args: tuple[str, ...] = ("a",)
    options: Mapping[str, Any] = field(default_factory=dict)
    structure: str = ""
    flops: float = 0.0
    nbytes: float = 0.0
    targets: tuple[Target, ...] = ()
    error: Callable[[Array, Any], float] = worst_relative_error
    error_bound: float | None = None
    tier: Literal["target", "gallery"] = "gallery"


def load_room(room: str) -> Any:
    """Import the module of a room."""
    if room not in ROOMS:
        msg = f"unknown room {room!r}; there are benchmarks for {', '.join(ROOMS)}"
        raise ValueError(msg)
    return importlib.import_module(f"linalgk_bench.{room}")


def find_problem(room: str, name: str) -> Problem:
    """Return the problem of that name."""
    return next(p for p in load_room(room).PROBLEMS if p.name == name)


def matches(expression: str, name: str) -> bool:
    """Evaluate a ``-k`` expression: words that occur in `name`, joined by ``and``, ``or`` and
    ``not`` (no parentheses).
    """
    return any(
        all(
            (word.removeprefix("not ").strip().lower() in name.lower()) != word.startswith("not ")
            for word in (w.strip() for w in part.split(" and "))
        )
        for part in expression.split(" or ")
    )
