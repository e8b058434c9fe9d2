"""What a contender is, and how it is asked whether it can take part."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from linalgk_bench.problems import Array, Arrays, Problem, load_room

LINALGK = "linalgk"

DISTRIBUTIONS = (
    "fbpca", "imate", "jax", "librla", "linalgk", "linear_operator", "numba", "numpy", "pyfastkron",
    "pychebyshev", "pykronecker", "pyttb", "scikit-learn", "scipy", "tbb", "teneva", "tensorly",
    "torch",
)  # fmt: skip


class Unavailable(Exception):
    """The installed library cannot solve the problem; the message says why."""


@dataclass(frozen=True)
class Peer:
    """One way of one library to solve a room's problems.

    Attributes
    ----------
    name : str
        As printed and as named by targets.
    library : str
        Import name; the only library that the contender's process loads, NumPy aside.
    accepts : callable
        Whether the contender can be asked to solve a problem.
    prepare : callable
        ``prepare(problem, arrays)`` imports the library, converts the inputs once and returns a
        callable without arguments that solves the problem into freshly allocated output. Raises
        `Unavailable`.
    export : callable
        Turns that output into a NumPy array, outside the timing.
    yardstick : bool
        True when the output is not the answer (a time to compare with, such as a bare ``eigh``).
    threads : int or None
        Threads for a contender that is faster with fewer than the others have.
    variant_of : str
        The contender whose targets this one counts for as well: the faster of the two is compared.
    """

    name: str
    library: str
    accepts: Callable[[Problem], bool]
    prepare: Callable[[Problem, Arrays], Callable[[], Any]]
    export: Callable[[Any], Array]
    yardstick: bool = False
    threads: int | None = None
    variant_of: str = ""

    def available(self) -> tuple[bool, str]:
        """Return whether the library is installed, else the reason, without importing it."""
        spec = importlib.util.find_spec(self.library)
        if spec is None or spec.origin is None:  # a bare folder of that name is no library
            return False, f"{self.library} is not installed"
        return True, ""


def find_peer(room: str, name: str) -> Peer:
    """Return the contender of that name."""
    return next(p for p in load_room(room).PEERS if p.name == name)


def versions() -> dict[str, str]:
    """Return the versions of the installed libraries that contenders use."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
