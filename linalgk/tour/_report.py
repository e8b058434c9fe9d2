"""The HTML report: one file, nothing to fetch, readable in light and dark."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from linalgk.tour._page import Code, Figure, Heading, Num, Table, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from linalgk.tour._page import Block, Page

__all__ = ["report"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6878; --line: #d9dee6;
  --page: #fff; --panel: #f4f6f9; --accent: #1f5fbf; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa6b6; --line: #333c49;
    --page: #14181e; --panel: #1c222b; --accent: #7fb0ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.5rem; line-height: 1.25; margin: 3.5rem 0 1rem; padding-top: 1.5rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p { margin: .6rem 0; max-width: 44rem; }
a { color: var(--accent); }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr));
  gap: .75rem; margin: 1.25rem 0; padding: 0; }
.cards div { background: var(--panel); border-radius: .5rem; padding: .8rem 1rem; }
.cards dt { color: var(--soft); font-size: .85rem; }
.cards dd { margin: .15rem 0 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: baseline; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; }
.num { text-align: right; white-space: nowrap; }
.best { font-weight: 700; color: var(--accent); }
figure { margin: 1.5rem 0; }
figure svg, figure img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .4rem; max-width: 44rem; }
pre { background: var(--panel); border-radius: .5rem; padding: .9rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; line-height: 1.45; }
.note { border-left: 3px solid var(--accent); padding: .1rem 0 .1rem .9rem; }
"""


def report(
    pages: Sequence[tuple[str, str, Page]],
    *,
    machine: Iterable[tuple[str, Sequence[str]]],
    summary: str,
    notes: Iterable[str] = (),
) -> str:
    """Write the report as HTML.

    Parameters
    ----------
    pages : sequence of (str, str, Page)
        Name, title and content of each chapter.
    machine : iterable of (str, sequence of str)
        Headings and lines that describe where it ran.
    summary : str
        A sentence under the main heading.
    notes : iterable of str, optional
        What was left out, what failed.

    Returns
    -------
    str
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>linalgk tour</title><style>{_STYLE}</style></head><body><main>",
        f'<h1>linalgk tour</h1><p class="soft">{escape(summary)}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
    ]
    if len(pages) > 1:
        links = (f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title, _ in pages)
        parts.append(f"<nav><p>{' · '.join(links)}</p></nav>")
    for name, title, page in pages:
        parts.append(f'<section id="{escape(name)}"><h2>{escape(title)}</h2>')
        if page.headlines:
            cards = (
                f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
                for label, text in page.headlines
            )
            parts.append(f'<dl class="cards">{"".join(cards)}</dl>')
        parts.extend(f'<p class="note">{escape(note)}</p>' for note in page.left_out)
        parts.extend(_block(block) for block in page.blocks)
        parts.append("</section>")
    rows = [[heading, "; ".join(lines)] for heading, lines in machine]
    parts.append("<section><h2>This machine</h2>")
    parts.append(_table(Table("", ["", ""], rows)))
    parts.append("</section></main></body></html>\n")
    return "\n".join(parts)


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h3>{escape(text)}</h3>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Figure():
            return _figure(block)
        case Table():
            return _table(block)


def _figure(figure: Figure) -> str:
    alt = escape(figure.alt)
    if isinstance(figure.data, bytes):
        data = base64.b64encode(figure.data).decode()
        image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    else:
        image = f'<div role="img" aria-label="{alt}">{figure.data}</div>'
    return f"<figure>{image}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _table(table: Table) -> str:
    numeric = [
        any(isinstance(row[j], Num) for row in table.rows) for j in range(len(table.columns))
    ]
    head = "".join(
        f"<th{_attributes(num=numeric[j])}>{escape(name)}</th>"
        for j, name in enumerate(table.columns)
    )
    body = "".join(
        "<tr>"
        + "".join(_cell(cell, j, numeric[j], (i, j) in table.best) for j, cell in enumerate(row))
        + "</tr>"
        for i, row in enumerate(table.rows)
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    header = f"<thead><tr>{head}</tr></thead>" if any(table.columns) else ""
    return f'<div class="scroll"><table>{caption}{header}<tbody>{body}</tbody></table></div>'


def _cell(cell: str | Num, column: int, numeric: bool, best: bool) -> str:
    tag = "th" if column == 0 and not numeric else "td"
    text = escape(str(cell))
    if isinstance(cell, Num):
        # <data> carries the unrounded number for whoever reads the report with a program.
        text = f'<data value="{cell.value!r}">{text}</data>'
    return f"<{tag}{_attributes(num=numeric, best=best)}>{text}</{tag}>"


def _attributes(**classes: bool) -> str:
    names: Mapping[str, bool] = classes
    chosen = " ".join(name for name, on in names.items() if on)
    return f' class="{chosen}"' if chosen else ""
