"""A progress bar: tqdm's where installed, else a counter line; nothing where nobody watches."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Progress"]


class Progress:
    """Count steps on a terminal.

    Parameters
    ----------
    total : int
        Number of steps.
    title : str
        Stands in front of the bar.
    enabled : bool, default True
        False never writes; True writes only if `stream` is a terminal, because a log file keeps
        every redrawn line.
    stream : text file, optional
        Default ``sys.stderr``, so that the output proper can be piped.
    """

    def __init__(
        self, total: int, title: str, *, enabled: bool = True, stream: TextIO | None = None
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._on = enabled and self._stream.isatty()
        self._total, self._title = total, title
        self._begun = self._width = 0
        self._bar: Any = None
        if self._on:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            form = "{desc:<38.38}|{bar:24}| {n_fmt:>3}/{total_fmt} {elapsed}"
            # tqdm's own guess is 0, an invisible bar, where a terminal reports no size.
            size = shutil.get_terminal_size()
            self._bar = tqdm(
                total=total,
                desc=title,
                file=self._stream,
                leave=False,
                bar_format=form,
                ncols=size.columns,
                nrows=size.lines,
            )

    def begin(self, label: str) -> None:
        """Start the next step; the one before is done."""
        self._begun += 1
        self._show(self._begun - 1, f"{self._title}: {label}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._on:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()

    def _show(self, done: int, text: str) -> None:
        if self._bar is not None:
            self._bar.n = done
            self._bar.set_description_str(text)
        elif self._on:
            line = f"[{done}/{self._total}] {text}"[:79]
            self._stream.write("\r" + line.ljust(self._width))
            self._stream.flush()
            self._width = len(line)
