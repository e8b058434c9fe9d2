"""What a chapter of the tour hands back: text, tables and figures, free of HTML.

A chapter is a module with ``TITLE``, ``STEPS`` (a label per step) and ``run(options)``, a generator
that yields once before each step and returns a :class:`Page`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = [
    "Block",
    "Chapter",
    "Code",
    "Figure",
    "Heading",
    "Num",
    "Options",
    "Page",
    "Table",
    "Text",
    "count",
    "duration",
    "missing",
    "ratio",
    "scientific",
]


@dataclass(frozen=True)
class Options:
    """What the user asked of all chapters."""

    quick: bool = False


@dataclass(frozen=True)
class Num:
    """A measured number and how to print it; the report keeps both."""

    value: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Heading:
    """A section of a chapter."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Preformatted lines."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of strings and numbers; ``best`` marks the cells (row, column) to set off."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Num]]
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A drawing: SVG text or PNG bytes."""

    caption: str
    alt: str
    data: str | bytes


Block = Heading | Text | Code | Table | Figure


@dataclass
class Page:
    """The result of a chapter.

    Attributes
    ----------
    blocks : list of Block
        The chapter, from top to bottom.
    headlines : list of (str, str)
        What the terminal and the head of the report show.
    left_out : list of str
        What could not run and which package would make it run.
    """

    blocks: list[Block] = field(default_factory=list)
    headlines: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, *blocks: Block | None) -> None:
        """Append blocks; None (a figure that could not be drawn) is skipped."""
        self.blocks.extend(block for block in blocks if block is not None)


class Chapter(Protocol):
    """The face of a chapter module."""

    TITLE: str
    STEPS: Sequence[str]

    def run(self, options: Options) -> Generator[None, None, Page]:
        """Do the steps; yield once before each."""


def scientific(value: float) -> Num:
    """An error or a condition number."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return Num(float(value), f"{mantissa}e{int(exponent)}" if value else "0")


def count(value: float) -> Num:
    """A whole number with separators."""
    return Num(int(value), f"{int(value):,}")


def duration(seconds: float) -> Num:
    """A time in the unit that suits it."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    unit, scale = next((pair for pair in units if seconds >= pair[1]), units[-1])
    return Num(float(seconds), f"{seconds / scale:.3g} {unit}")


def ratio(value: float) -> Num:
    """How many times as long as the reference."""
    return Num(float(value), f"{value:.1f}×")


def missing(package: str, *, what: str, extra: str = "tour") -> str:
    """The sentence for a package that is not installed."""
    return f"{what} left out: {package} is not installed (pip install 'linalgk[{extra}]')."
