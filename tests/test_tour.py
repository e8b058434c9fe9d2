"""The tour: one quick run as a process, one in this process without the extras, and the parts."""

import io
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module

import numpy as np
import pytest

from linalgk import tour
from linalgk.data import PHOTOGRAPHS, photograph
from linalgk.tour import (
    _covariances,
    _plots,
    functions,
    kronecker,
    matfun,
    randomized,
    sketch,
    tensor,
)
from linalgk.tour._page import (
    Code,
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
from linalgk.tour._progress import Progress
from linalgk.tour._report import report
from linalgk.tour._timing import interleaved

EXTRAS = ("matplotlib", "tqdm", "sklearn", "mpmath")
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Checks nesting while it reads, and keeps what the tests ask about."""

    def __init__(self):
        super().__init__()
        self.stack, self.numbers, self.images, self.ids, self.links = [], [], [], [], []
        self.headings, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "data":
            self.numbers.append(float(values["value"]))
        if tag == "img":
            self.images.append(values["src"])
            assert values["alt"]
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [values[name] for name in ("href", "src", "xlink:href") if name in values]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.stack and self.stack[-1] in ("h2", "h3"):
            self.headings.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.stack == []
    return reader


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    command = [sys.executable, "-m", "linalgk", "tour", "--quick", "--out", str(folder)]
    environ = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done, folder / tour.REPORT


@pytest.fixture
def no_extras(monkeypatch):
    for name in [*EXTRAS, *sys.modules]:
        if name.partition(".")[0] in EXTRAS:
            monkeypatch.setitem(sys.modules, name, None)


# --- Whole runs ----------------------------------------------------------------------------------


def test_terminal_summary(quick_run):
    done, path = quick_run
    assert done.stderr == ""
    for chapter in (matfun, functions, sketch, randomized, kronecker, tensor):
        assert chapter.TITLE in done.stdout
    for word in ("kernels ready", "50-digit", "as fast as SciPy", "as fast as NumPy", str(path)):
        assert word in done.stdout
    assert len(done.stdout.splitlines()) < 12 * len(tour.CHAPTERS)


def test_report_is_whole(quick_run):
    reader = read(quick_run[1].read_text(encoding="utf-8"))
    assert matfun.TITLE in reader.headings
    assert "This machine" in reader.headings
    assert len(reader.numbers) > 20
    assert all(math.isfinite(number) for number in reader.numbers)
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.tags.count("svg") == 9
    assert len(reader.images) == 9


def test_report_fetches_nothing(quick_run):
    reader = read(quick_run[1].read_text(encoding="utf-8"))
    assert "script" not in reader.tags
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in reader.links)


def test_report_follows_the_page_into_dark_mode(quick_run):
    html = quick_run[1].read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in html
    assert "currentColor" in html
    assert _plots._INK not in html


def test_good_members_are_unharmed(quick_run):
    text = "".join(read(quick_run[1].read_text(encoding="utf-8")).text)
    assert text.count("same bits") == 4
    assert text.count("filled with NaN") == 2


def test_sketches_are_the_same_however_they_were_made(quick_run):
    text = read(quick_run[1].read_text(encoding="utf-8")).text
    assert text.count("identical") == 5
    assert "different" not in text


def test_tour_without_extras(no_extras, tmp_path):
    stream = io.StringIO()
    done = tour.run(tmp_path / "new" / "report.html", quick=True, stream=stream)
    assert done.report == tmp_path / "new" / "report.html"
    assert list(done.pages) == list(tour.CHAPTERS)
    reader = read(done.report.read_text(encoding="utf-8"))
    assert "svg" not in reader.tags
    assert reader.images == []
    assert all(math.isfinite(number) for number in reader.numbers)
    for what in ("digits", "Plots", "50-digit"):
        assert any(what in note for note in done.pages["matfun"].left_out)
    for what in ("digits", "Plots"):
        for chapter in ("sketch", "randomized"):
            assert any(what in note for note in done.pages[chapter].left_out)
    for chapter in ("kronecker", "tensor"):
        assert any("Plots" in note for note in done.pages[chapter].left_out)
    assert any("32-digit" in label for label, _ in done.pages["matfun"].headlines)
    for output in (stream.getvalue(), "".join(reader.text)):
        assert output.count("pip install 'linalgk[tour]'") == 10


def test_a_report_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(tour, "compile_kernels", lambda **_: pytest.fail("too late"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        tour.run(tmp_path / "file" / "report.html")


# --- Chapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tour.CHAPTERS)
def test_chapters_have_the_face_of_a_chapter(name):
    chapter = import_module(f"linalgk.tour.{name}")
    assert chapter.TITLE
    assert all(isinstance(label, str) for label in chapter.STEPS)
    assert callable(chapter.run)


@pytest.mark.parametrize(("yields", "fits"), [(0, True), (2, True), (3, False)])
def test_walk_counts_steps(yields, fits):
    class Chapter:
        TITLE = "title"
        STEPS = ("one", "two")

        @staticmethod
        def run(options):
            for _ in range(yields):
                yield
            return Page(left_out=["done"])

    if fits:
        assert tour._walk(Chapter, None, progress=False).left_out == ["done"]
    else:
        with pytest.raises(RuntimeError, match="title"):
            tour._walk(Chapter, None, progress=False)


def test_local_covariances_are_covariances():
    image = np.random.default_rng(1).integers(0, 256, (24, 32)).astype(float)
    found = _covariances.local_covariances(image, patch=3, window=8, step=8)
    assert found.shape == (3 * 4, 9, 9)
    window = image[8:16, 16:24]
    rows = [window[i : i + 3, j : j + 3].ravel() for i in range(6) for j in range(6)]
    np.testing.assert_allclose(found[1 * 4 + 2], np.cov(np.array(rows).T), rtol=1e-12)


def test_digit_covariances():
    digits = _covariances.digit_classes()
    assert digits.shape == (10, 64, 64)
    assert (np.linalg.matrix_rank(digits, hermitian=True) < 64).all()


# --- Parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs(name):
    image = photograph(name)
    assert (image.shape, image.dtype) == ((512, 512), np.uint8)
    assert image.std() > 10


def test_unknown_photograph():
    with pytest.raises(ValueError, match=r"camera, brick; got 'lena'"):
        photograph("lena")


def test_report_escapes_everything():
    evil = '<script>alert("x")</script>&amp;'
    blocks = [Heading(evil), Text(evil), Code(evil), Figure(evil, evil, b"png")]
    blocks.append(Table(evil, [evil, "n"], [[evil, Num(1.0, evil)]]))
    page = Page(blocks, [(evil, evil)], [evil])
    machine = [(evil, [evil])]
    html = report([("a", evil, page)], machine=machine, summary=evil, notes=[evil])
    reader = read(html)
    assert "script" not in reader.tags
    assert "".join(reader.text).count(evil) == 16


def test_report_names_several_chapters():
    html = report([("a", "First", Page()), ("b", "Second", Page())], machine=[], summary="")
    reader = read(html)
    assert {"#a", "#b"} <= set(reader.links)
    assert {"a", "b"} <= set(reader.ids)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (scientific(1.26e-12), "1.3e-12"),
        (scientific(3.0), "3.0e0"),
        (scientific(0.0), "0"),
        (duration(2.5), "2.5 s"),
        (duration(0.0312), "31.2 ms"),
        (duration(4.56e-5), "45.6 µs"),
        (duration(1e-9), "0.001 µs"),
        (ratio(3.14), "3.1×"),
    ],
)
def test_numbers_for_people(number, text):
    assert str(number) == text


def test_missing_names_the_extra():
    assert "pip install 'linalgk[tour]'" in missing("tqdm", what="Bars")


def test_interleaved_takes_turns_and_keeps_results():
    calls = []
    contenders = {name: (lambda name=name: calls.append(name) or name) for name in "ab"}
    timed = interleaved(contenders, rounds=3, budget=60)
    assert calls == list("ababab")
    assert {name: t.result for name, t in timed.items()} == {"a": "a", "b": "b"}
    calls.clear()
    interleaved(contenders, rounds=3, budget=0)
    assert calls == list("abab")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drive(stream, **options):
    with Progress(2, "title", stream=stream, **options) as bar:
        bar.begin("one")
        bar.begin("two")
    return stream.getvalue()


def test_progress_with_tqdm():
    pytest.importorskip("tqdm")
    written = drive(Terminal())
    assert "title: two" in written
    assert "1/2" in written


def test_progress_without_tqdm(no_extras):
    written = drive(Terminal())
    assert "[0/2] title: one" in written
    assert "[1/2] title: two" in written
    assert written.endswith("\r")


def test_progress_stays_out_of_files():
    assert drive(io.StringIO()) == ""
    assert drive(Terminal(), enabled=False) == ""
