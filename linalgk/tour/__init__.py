"""The tour: every capability on real data, a chapter per room, ending in an HTML report."""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from linalgk.tour import _plots
from linalgk.tour._compile import compile_kernels
from linalgk.tour._page import Options
from linalgk.tour._progress import Progress
from linalgk.tour._report import report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linalgk.tour._page import Chapter, Page

__all__ = ["CHAPTERS", "REPORT", "Tour", "run"]

CHAPTERS = ("matfun", "functions", "sketch", "randomized", "kronecker", "tensor")
REPORT = "linalgk-tour.html"


@dataclass
class Tour:
    """What a tour did.

    Attributes
    ----------
    report : Path
        The HTML file.
    pages : dict of str to Page
        Content by chapter.
    seconds : dict of str to float
        Time of each chapter, without compilation.
    """

    report: Path
    pages: dict[str, Page] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    out: str | Path = REPORT,
    *,
    quick: bool = False,
    chapters: Iterable[str] | None = None,
    progress: bool = True,
    stream: TextIO | None = None,
) -> Tour:
    """Compile, run the chapters, write the report and print a summary.

    Parameters
    ----------
    out : str or Path, default "linalgk-tour.html"
        The report's file, or an existing folder to put it in.
    quick : bool, default False
        Fewer matrices and repeats.
    chapters : iterable of str, optional
        Names out of `CHAPTERS`; default all.
    progress : bool, default True
        Progress bars, where standard error is a terminal.
    stream : text file, optional
        Takes the summary; default ``sys.stdout``.

    Returns
    -------
    Tour
    """
    # Loaded first, because only libraries that are loaded can be listed.
    import scipy.linalg  # noqa: F401

    import linalgk
    from linalgk.cli import blas_advice, describe

    stream = sys.stdout if stream is None else stream
    target = _target(out)
    config = linalgk.show_config(mode="dicts") or {}
    machine = describe(config)
    advice = blas_advice(
        config.get("cpu", {}).get("features", ()), config.get("blas", ()), os.environ
    )
    if advice:
        machine.append(("advice", [advice.text]))
    print(_where(machine), file=stream, flush=True)

    compiled = compile_kernels(progress=progress)
    compile_line = f"{compiled.count} kernels ready in {compiled.seconds:.1f} s"
    print(compile_line, file=stream, flush=True)
    notes = [f"Kernel {label} failed to compile: {reason}" for label, reason in compiled.failed]
    for note in notes:
        print(note, file=stream)
    _load(progress=progress)

    done = Tour(target)
    for name in CHAPTERS if chapters is None else dict.fromkeys(chapters):
        chapter = cast("Chapter", import_module(f"linalgk.tour.{name}"))
        start = time.perf_counter()
        page = _walk(chapter, Options(quick=quick), progress=progress)
        done.pages[name], done.seconds[name] = page, time.perf_counter() - start
        print(f"\n{chapter.TITLE} ({done.seconds[name]:.1f} s)", file=stream)
        for label, text in page.headlines:
            print(f"  {label}\n    {text}", file=stream)
        for note in page.left_out:
            print(f"  {note}", file=stream)
        stream.flush()

    titled = [
        (name, cast("Chapter", import_module(f"linalgk.tour.{name}")).TITLE, page)
        for name, page in done.pages.items()
    ]
    summary = (
        f"Run on {time.strftime('%Y-%m-%d %H:%M')}{' with --quick' if quick else ''}: "
        f"{compile_line}, chapters in {sum(done.seconds.values()):.1f} s."
    )
    target.write_text(
        report(titled, machine=machine, summary=summary, notes=notes), encoding="utf-8"
    )
    print(f"\nreport: {target}", file=stream)
    return done


def _load(*, progress: bool) -> None:
    """Import what the chapters use, so that none of them pays for what all share."""
    libraries = ("scipy.linalg", "sklearn.datasets", "mpmath", "matplotlib")
    with Progress(len(libraries), "loading", enabled=progress) as bar:
        for name in libraries:
            bar.begin(name)
            # Missing ones are the chapters' business: they say what they leave out.
            with suppress(ImportError):
                import_module(name)
        # The first drawing ever makes matplotlib list the fonts of the machine.
        _plots.warm_up()


def _walk(chapter: Chapter, options: Options, *, progress: bool) -> Page:
    """Run a chapter's generator to its end, moving the bar before each step."""
    steps = chapter.run(options)
    title = chapter.TITLE.partition(":")[0]
    with Progress(len(chapter.STEPS), title, enabled=progress) as bar:
        for label in chapter.STEPS:
            try:
                next(steps)
            except StopIteration as stop:
                return cast("Page", stop.value)
            bar.begin(label)
        try:
            next(steps)
        except StopIteration as stop:
            return cast("Page", stop.value)
    msg = f"chapter {chapter.TITLE!r} yields more often than it names steps"
    raise RuntimeError(msg)


def _target(out: str | Path) -> Path:
    """The report's path, checked for writing before minutes are spent on its content."""
    target = Path(out).expanduser().resolve()
    if target.is_dir():
        target = target / REPORT
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    return target


def _where(machine: Iterable[tuple[str, list[str]]]) -> str:
    lines = dict(machine)
    return f"linalgk tour on {lines['processor'][0]}; threads: {lines['threads'][0]}"
