"""Slices through a function, drawn by matplotlib without touching its global state."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from linalgk import _validate

NAMES = "xyzw"


def plot(
    f: Any, *, at: Sequence[float] | None = None, axes: Sequence[int] | None = None, n: int = 200,
    cmap: Any = None, ax: Any = None,
) -> Any:  # fmt: skip
    """Slices of a function, as the method `ChebTucker.plot` describes."""
    point = _point(f, at)
    n = _validate.integer("n", n, 2)
    chosen = _axes(f, axes)
    panels = _panels(chosen)
    if ax is None:
        figure, places = _figure(len(panels))
    elif len(panels) > 1:
        msg = f"ax: holds one slice, and these are {len(panels)}; choose one or two axes"
        raise ValueError(msg)
    else:
        figure, places = ax.figure, [ax]
    slices = [_slice(f, point, panel, n) for panel in panels]
    limits = _limits([values for _, values in slices])
    image = None
    for place, panel, (grids, values) in zip(places, panels, slices, strict=True):
        place.set_xlabel(_name(panel[0]))
        place.set_title(_fixed(f, point, panel), fontsize="small")
        if len(panel) == 1:
            place.plot(grids[0], values.real, label="real part")
            if np.iscomplexobj(values):
                place.plot(grids[0], values.imag, label="imaginary part")
                place.legend()
            continue
        (a, b), (c, d) = (f.domain[k] for k in panel)
        image = place.imshow(
            np.abs(values).T if np.iscomplexobj(values) else values.T, origin="lower",
            extent=(a, b, c, d), aspect="auto", cmap=cmap, vmin=limits[0], vmax=limits[1],
        )  # fmt: skip
        place.set_ylabel(_name(panel[1]))
    if image is not None:
        what = "|f|" if f.core.dtype.kind == "c" else "f"
        figure.colorbar(image, ax=places, label=what)
    return figure


def _figure(count: int) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "plot: needs matplotlib, which is not installed; pip install 'linalgk[tour]' has it"
        raise ImportError(msg) from error
    figure = Figure(figsize=(4.4 * count + 0.8, 4.0), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _point(f: Any, at: Sequence[float] | None) -> tuple[float, ...]:
    if at is None:
        return tuple(0.5 * (a + b) for a, b in f.domain)
    point = tuple(float(x) for x in at)
    if len(point) != f.ndim:
        msg = f"at: must have {f.ndim} coordinates, got {len(point)}"
        raise ValueError(msg)
    for k, (x, (a, b)) in enumerate(zip(point, f.domain, strict=True)):
        if not a <= x <= b:
            msg = f"at[{k}]: must lie in the domain [{a:g}, {b:g}], got {x:g}"
            raise ValueError(msg)
    return point


def _axes(f: Any, axes: Sequence[int] | None) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(min(f.ndim, 3)))
    chosen = tuple(_validate.integer("axes", k, 0) for k in axes)
    if len(set(chosen)) != len(chosen) or not 1 <= len(chosen) <= 3 or max(chosen) >= f.ndim:
        msg = f"axes: must be one to three different axes of {f.ndim}, got {tuple(axes)!r}"
        raise ValueError(msg)
    return chosen


def _panels(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    if len(axes) < 3:
        return [axes]
    i, j, k = axes
    return [(i, j), (i, k), (j, k)]


def _slice(f: Any, point: Sequence[float], panel: Sequence[int], n: int) -> tuple[list[Any], Any]:
    grids = [np.linspace(f.domain[k][0], f.domain[k][1], n) for k in panel]
    lines = [np.array([x]) for x in point]
    for k, grid in zip(panel, grids, strict=True):
        lines[k] = grid
    values = f.on_grid(*lines)
    # the axes of a panel may come in another order than the variables
    kept = np.transpose(values, (*panel, *(k for k in range(f.ndim) if k not in panel)))
    return grids, kept.reshape([n] * len(panel))


def _limits(values: list[Any]) -> tuple[float, float]:
    """One scale of colours for all slices."""
    sizes = [np.abs(v) if np.iscomplexobj(v) else v for v in values]
    return min(float(v.min()) for v in sizes), max(float(v.max()) for v in sizes)


def _name(k: int) -> str:
    return NAMES[k] if k < len(NAMES) else f"x{k + 1}"


def _fixed(f: Any, point: Sequence[float], panel: Sequence[int]) -> str:
    rest = [f"{_name(k)} = {point[k]:.4g}" for k in range(f.ndim) if k not in panel]
    return ", ".join(rest)
