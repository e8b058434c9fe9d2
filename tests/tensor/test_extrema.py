"""Largest and smallest values inside, on faces, edges and corners."""

import numpy as np
import pytest

from linalgk.tensor._chebtucker import chebtucker
from linalgk.tensor._function import ChebTucker

TOL = 1e-12


@pytest.mark.parametrize(
    ("func", "domain", "value", "point"),
    [
        # inside, off the grid
        (lambda x, y, z: np.exp(-(x - 0.31) ** 2 - 2 * (y + 0.17) ** 2 - (z - 2.2) ** 2),
         [(-1, 1), (-1, 1), (2, 3)], 1.0, (0.31, -0.17, 2.2)),
        # on a face, where the gradient is not zero
        (lambda x, y, z: x - (y - 0.4) ** 2 - (z - x * y) ** 2, [(-1, 2)] * 3, 2.0,
         (2.0, 0.4, 0.8)),
        # on an edge
        (lambda x, y, z: x + 3 * y - (z - 0.123) ** 2, [(0, 1)] * 3, 4.0, (1.0, 1.0, 0.123)),
        # in a corner
        (lambda x, y, z: x - 2 * y + 0.5 * z + x * z, [(0, 1)] * 3, 2.5, (1.0, 0.0, 1.0)),
        # one variable does nothing
        (lambda x, y: np.cos(3 * (x - 0.05)) + 0 * y, [(-1, 1), (-1, 1)], 1.0, (0.05, None)),
        (lambda x: np.sin(40 * x) * x, [(0, 1)], None, None),
        (lambda x, y, z, w: -(x - 0.1) ** 2 - (y * z - 0.2) ** 2 + w - (z - 1) ** 2,
         [(-1, 1)] * 4, 1.0, (0.1, 0.2, 1.0, 1.0)),
    ],
    ids=["inside", "face", "edge", "corner", "flat", "1-D", "4-D"],
)  # fmt: skip
def test_largest_and_smallest(func, domain, value, point):
    f = chebtucker(func, domain, tol=TOL)
    found = f.max()
    if value is None:
        x = np.linspace(0, 1, 200001)
        value, point = np.max(func(x)), (x[np.argmax(func(x))],)
        # a parabola between two samples: f'' is at most 1600, the samples are 5e-6 apart
        slack, near = 1600 * (5e-6) ** 2, 1e-5
    else:
        slack, near = 0.0, 1e-5
    bound = 4 * TOL * f.scale + slack
    assert abs(found.value - value) <= bound
    assert type(found.value) is float
    for x, exact, (a, b) in zip(found.point, point, domain, strict=True):
        assert a <= x <= b
        assert exact is None or abs(x - exact) <= near
        if exact in (a, b):
            assert x == exact
    # the point is where the function has the value, and the smallest is the negative's largest
    assert abs(f(*found.point) - found.value) <= 1e-13 * f.scale
    least = (-f).min()
    assert least.value == -found.value
    assert least.point == found.point


def test_the_higher_of_two_peaks_that_are_nearly_equal():
    # the lower one lies on a point of the grid and looks higher there
    def peaks(x, y):
        return np.exp(-60 * (x**2 + y**2)) + (1 + 1e-6) * np.exp(
            -60 * ((x + 0.653) ** 2 + (y + 0.571) ** 2)
        )

    f = chebtucker(peaks, [(-1, 1)] * 2, tol=TOL)
    found = f.max()
    assert abs(found.value - (1 + 1e-6)) <= 1e-11
    np.testing.assert_allclose(found.point, (-0.653, -0.571), atol=1e-8)
    # nothing above it at a hundred thousand points
    x = np.random.default_rng(3).uniform(-1, 1, (2, 100_000))
    assert f(*x).max() <= found.value


def test_a_grid_in_slabs_finds_the_same(monkeypatch):
    from linalgk.tensor import _extrema

    f = chebtucker(
        lambda x, y, z: np.sin(5 * x + 1) * np.cos(4 * y) * np.sin(3 * z) + x, [(-1, 1)] * 3
    )
    whole = f.max(), f.min()
    for name, value in (("SLAB", 1000), ("POINTS", 4000)):
        monkeypatch.setattr(_extrema, name, value)
        for found, wanted in zip((f.max(), f.min()), whole, strict=True):
            assert abs(found.value - wanted.value) <= 1e-13
            np.testing.assert_allclose(found.point, wanted.point, atol=1e-7)


def test_degenerate_functions():
    constant = ChebTucker(np.full((1, 1), 3.0), [np.ones((1, 1))] * 2, [(0, 1), (2, 5)])
    assert constant.max().value == constant.min().value == 3.0
    assert constant.max().point == (0.5, 3.5)
    # a fourfold minimum, where Newton's steps shrink by thirds only
    flat = chebtucker(lambda x, y: (x - 0.3) ** 4 + (y + 0.1) ** 4, [(-1, 1)] * 2, tol=1e-14)
    assert abs(flat.min().value) <= 1e-13
    # a ridge of largest values
    ridge = chebtucker(lambda x, y: 1 - (x - y) ** 2, [(-1, 1)] * 2, tol=1e-14)
    assert abs(ridge.max().value - 1) <= 1e-13


def test_complex_values_have_no_order():
    f = chebtucker(lambda x: np.exp(1j * x), [(0, 1)])
    for find in (f.max, f.min):
        with pytest.raises(TypeError, match="real"):
            find()
    assert abs(f.imag.max().value - np.sin(1)) <= 1e-9
