"""Directives that fill a page at build time, so that nothing measured or listed is typed by hand.

``program-output`` runs a script and shows what it prints, as a literal block or, with ``:rst:``, as
part of the page. ``include-generated`` includes a file of ``_generated/`` or says that it is not
there. ``markdown-file`` includes a file of plain Markdown (headings, lists, links, inline code).
"""

import functools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

MARKER = re.compile(r"^(#{1,4}) +(.*)$")
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


@functools.cache
def output(scripts: tuple[Path, ...]) -> str:
    """What the last script prints when all run one after another in an empty folder."""
    text = ""
    with tempfile.TemporaryDirectory() as folder:
        for script in scripts:
            done = subprocess.run(
                [sys.executable, str(script)],
                cwd=folder,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
            )
            if done.returncode:
                msg = f"{script.name} failed:\n{done.stderr}"
                raise RuntimeError(msg)
            text = done.stdout
    return text.rstrip()


class Generated(SphinxDirective):
    """A directive whose content is rst made at build time."""

    def parsed(self, text: str, source: Path) -> list[nodes.Node]:
        self.content = StringList(text.splitlines(), source=str(source))
        self.content_offset = 0
        return self.parse_content_to_nodes(allow_section_headings=True)

    def path(self, name: str) -> Path:
        found = Path(self.env.srcdir, name)
        if found.exists():
            self.env.note_dependency(str(found))
        return found


class ProgramOutput(Generated):
    """``.. program-output:: [first.py ...] script.py``."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"rst": directives.flag}

    def run(self) -> list[nodes.Node]:
        scripts = tuple(self.path(name) for name in self.arguments[0].split())
        try:
            text = output(scripts)
        except RuntimeError as error:
            raise self.error(str(error)) from None
        if "rst" in self.options:
            return self.parsed(text, scripts[-1])
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        return [block]


class IncludeGenerated(Generated):
    """``.. include-generated:: name.rst``; its content stands in where the file is missing."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        source = self.path(f"_generated/{self.arguments[0]}")
        if not source.exists():
            return self.parse_content_to_nodes()
        return self.parsed(source.read_text(encoding="utf-8"), source)


class MarkdownFile(Generated):
    """``.. markdown-file:: ../NAME.md``, without its first heading."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        source = self.path(self.arguments[0])
        return self.parsed(to_rst(source.read_text(encoding="utf-8")), source)


def to_rst(text: str) -> str:
    """The little Markdown that a changelog needs, as reStructuredText."""
    lines: list[str] = []
    for line in text.splitlines():
        heading = MARKER.match(line)
        if heading and len(heading[1]) == 1:
            continue
        if heading:
            title = heading[2].strip("[]")
            lines += ["", title, ("=-~"[len(heading[1]) - 2]) * len(title), ""]
            continue
        line = re.sub(r"`([^`]+)`", r"``\1``", line)
        lines.append(LINK.sub(r"`\1 <\2>`__", re.sub(r"^( *)- ", r"\1* ", line)))
    return "\n".join(lines).strip()


def readable(_app, what, name, _obj, _options, lines) -> None:
    """Docstrings as they are read in the source, made fit for Sphinx.

    References of `linalgk.testing` stand in the module and are cited from its functions. Sphinx
    knows the citations of one docstring only, so that these become a numbered list and numbers.
    """
    for i, line in enumerate(lines):
        line = line.replace("(*batch", r"(\*batch")
        # an initial would begin a list: "N. J. Higham"
        line = re.sub(r"^(\.\. \[\d\] )(?=[A-Z]\. )", r"\1\\", line)
        if name.startswith("linalgk.testing"):
            line = re.sub(r"\[(\d)\]_", r"[\1]", line)
            if what == "module":
                line = re.sub(r"^\.\. \[\d\] ", "#. ", line)
        lines[i] = line


def setup(app):
    # before numpydoc, which looks for the citations
    app.connect("autodoc-process-docstring", readable, priority=100)
    app.add_directive("program-output", ProgramOutput)
    app.add_directive("include-generated", IncludeGenerated)
    app.add_directive("markdown-file", MarkdownFile)
    return {"parallel_read_safe": True, "version": "1"}
