"""Slices: what is drawn are the function's values, and nothing global changes."""

import sys

import numpy as np
import pytest

from linalgk.tensor import _chebyshev
from linalgk.tensor._function import ChebTucker

DOMAIN = [(-1.0, 1.0), (0.0, 2.0), (3.0, 4.0), (-2.0, 0.0)]

pytest.importorskip("matplotlib")


def function(d, complex_values=False):
    """Sum of powers of two products, all different in all variables."""
    rng = np.random.default_rng(5)
    core = rng.standard_normal([2] * d) + (
        1j * rng.standard_normal([2] * d) if complex_values else 0
    )
    return ChebTucker(core, [rng.standard_normal((4 + k, 2)) for k in range(d)], DOMAIN[:d])


@pytest.mark.parametrize("complex_values", [False, True])
def test_curve(complex_values):
    f = function(1, complex_values)
    figure = f.plot(n=50)
    (ax,) = figure.axes
    for line, part in zip(ax.lines, ("real", "imag"), strict=False):
        x, y = line.get_data()
        np.testing.assert_allclose(y, getattr(f(x), part), atol=1e-14)
    assert len(ax.lines) == 1 + complex_values
    assert x[0] == -1
    assert x[-1] == 1


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("complex_values", [False, True])
def test_images(d, complex_values):
    f = function(d, complex_values)
    at = [0.5, 0.5, 3.25, -1.5][:d]
    figure = f.plot(at=at, n=21)
    panels = [(0, 1), (0, 2), (1, 2)] if d > 2 else [(0, 1)]
    images = [ax for ax in figure.axes if ax.images]
    assert len(images) == len(panels)
    assert len(figure.axes) == len(panels) + 1
    for ax, (i, j) in zip(images, panels, strict=True):
        image = ax.images[0]
        points = [np.full((21, 21), t) for t in at]
        points[i], points[j] = np.meshgrid(
            np.linspace(*DOMAIN[i], 21), np.linspace(*DOMAIN[j], 21), indexing="ij"
        )
        want = f(*points)
        want = np.abs(want) if complex_values else want
        np.testing.assert_allclose(np.asarray(image.get_array()), want.T, atol=1e-13)
        assert tuple(image.get_extent()) == (*DOMAIN[i], *DOMAIN[j])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("xyzw"[i], "xyzw"[j])
        assert image.origin == "lower"
    assert len({ax.images[0].get_clim() for ax in images}) == 1


def test_chosen_axes_and_the_callers_figure():
    from matplotlib.figure import Figure

    f = function(4)
    figure = Figure()
    ax = figure.subplots()
    assert f.plot(axes=(3, 1), ax=ax, cmap="viridis", n=9) is figure
    image = ax.images[0]
    assert image.get_cmap().name == "viridis"
    x, y = np.linspace(-2, 0, 9)[2], np.linspace(0, 2, 9)[7]
    assert np.isclose(np.asarray(image.get_array())[7, 2], f(0.0, y, 3.5, x))
    assert "x = 0, z = 3.5" in ax.get_title()
    line = f.plot(axes=[2], at=[0.1, 0.2, 3.3, -0.4], n=5).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), f(0.1, 0.2, np.linspace(3, 4, 5), -0.4))
    with pytest.raises(ValueError, match="one slice"):
        f.plot(ax=ax)


def test_no_global_state(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    figure = function(3).plot(n=12)
    figure.savefig(tmp_path / "slices.png")
    assert (tmp_path / "slices.png").stat().st_size > 1000
    assert ("matplotlib.pyplot" in sys.modules) == before
    if before:
        assert figure.number not in sys.modules["matplotlib.pyplot"].get_fignums()


def test_missing_matplotlib_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"linalgk\[tour\]"):
        function(2).plot()


BAD = [
    ({"at": [0.0]}, ValueError, "2 coordinates"),
    ({"at": [0.0, 5.0]}, ValueError, r"at\[1\].*\[0, 2\], got 5"),
    ({"axes": (0, 0)}, ValueError, "different axes"),
    ({"axes": (2,)}, ValueError, "different axes of 2"),
    ({"axes": ()}, ValueError, "one to three"),
    ({"n": 1}, ValueError, "n: must be at least 2"),
    ({"n": 2.5}, TypeError, "integer"),
]


def test_bad_input():
    for options, error, match in BAD:
        with pytest.raises(error, match=match):
            function(2).plot(**options)


def test_tables_are_those_of_the_points():
    """The grid ends exactly at the ends of the domain."""
    f = function(1)
    line = f.plot(n=2).axes[0].lines[0]
    ends = _chebyshev.basis(np.array([-1.0, 1.0]), 4) @ f.factors[0] @ f.core
    np.testing.assert_allclose(line.get_ydata(), ends, atol=1e-14)
