"""Drawing: figures as SVG in the page's text colour, or as PNG where pixels are the content."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["COLOURS", "available", "bars", "new_figure", "png", "svg", "tiles", "warm_up"]

# Of one lightness, told apart by the colour-blind, visible on white and on black.
COLOURS = {"linalgk": "#2f7de1", "NumPy": "#8b95a3", "SciPy": "#d9962b"}

# Replaced by "currentColor" in the SVG, so that axes and text follow the page into dark mode.
_INK = "#010203"


def available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def warm_up() -> None:
    """Import what drawing needs and let matplotlib find its fonts."""
    if available():
        new_figure(1, 1).canvas.draw()


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no display and no pyplot state.

    Parameters
    ----------
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style(axes: Any) -> None:
    """Thin frame, no top and right line, ink that follows the page."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
        spine.set_linewidth(0.6)
    axes.tick_params(which="both", colors=_INK, labelsize=9, width=0.6)
    axes.tick_params(which="minor", length=0)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(_INK)
        text.set_fontsize(10)
    legend = axes.get_legend()
    if legend is not None:
        for text in legend.get_texts():
            text.set_color(_INK)


def svg(figure: Any, prefix: str) -> str:
    """A figure as an ``<svg>`` element for a page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    prefix : str
        Put before every id, because the figures share one page.

    Returns
    -------
    str
    """
    from matplotlib import rc_context

    for axes in figure.axes:
        style(axes)
    buffer = io.StringIO()
    # Text stays text: it can be searched and read aloud, and the file is smaller.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.family": "sans-serif"}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r"font: ([^;\"]*px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    return text.replace(_INK, "currentColor")


def png(figure: Any) -> bytes:
    """A figure as PNG bytes, without background."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, transparent=True)
    return buffer.getvalue()


def bars(
    groups: Sequence[tuple[str, Sequence[tuple[str, float, str]]]], *, prefix: str, log: bool
) -> str:
    """Horizontal bars, a small plot per group.

    Parameters
    ----------
    groups : sequence of (str, sequence of (str, float, str))
        Title, then contender, value and label of each bar.
    prefix : str
        Name of the figure on its page.
    log : bool
        Logarithmic axis, the same for all groups; otherwise each group starts at zero with a scale
        of its own.

    Returns
    -------
    str
        SVG.
    """
    columns = 2
    rows = -(-len(groups) // columns)
    figure = new_figure(8.6, 0.35 + 1.35 * rows)
    values = [value for _, items in groups for _, value, _ in items if value > 0]
    for i, (title, items) in enumerate(groups):
        axes = figure.add_subplot(rows, columns, i + 1)
        names = [name for name, _, _ in items]
        axes.barh(
            names,
            [value for _, value, _ in items],
            color=[COLOURS[name] for name in names],
            height=0.7,
        )
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        if log and values:
            axes.set_xscale("log")
            axes.set_xlim(min(values) / 3, max(values) * 30)
        else:
            axes.set_xlim(0, 1.25 * max((value for _, value, _ in items), default=1))
            axes.set_xticks([])
            axes.spines["bottom"].set_alpha(0)
        for y, (_, value, label) in enumerate(items):
            axes.annotate(
                label,
                (value, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=_INK,
            )
        axes.tick_params(axis="y", length=0)
    return svg(figure, prefix)


def tiles(
    panels: Sequence[tuple[str, NDArray[Any]]], *, height: float = 4.0, same_scale: bool = False
) -> bytes:
    """Gray pictures beside each other.

    Parameters
    ----------
    panels : sequence of (str, array)
        Title and two-dimensional picture.
    height : float, default 4.0
        Inches.
    same_scale : bool, default False
        One gray scale for all; otherwise each picture uses the middle 99 % of its own values.

    Returns
    -------
    bytes
        PNG.
    """
    import numpy as np

    widths = [picture.shape[1] / picture.shape[0] for _, picture in panels]
    figure = new_figure(height * sum(widths) + 0.2 * (len(panels) - 1), height + 0.3)
    for axes, (title, picture) in zip(
        figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0], panels, strict=True
    ):
        sample = np.concatenate([p.ravel() for _, p in panels]) if same_scale else picture
        low, high = np.nanquantile(sample, [0.005, 0.995])
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_axis_off()
        # Between the inks of both page colours, because pixels cannot follow the page.
        axes.set_title(title, loc="left", fontsize=10, color="#7b8794")
    return png(figure)
