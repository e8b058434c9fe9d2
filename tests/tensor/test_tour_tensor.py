"""The tour's chapter on tensors: its charges and functions, its checks, what it says of both."""

import sys

import numpy as np
import pytest

import linalgk as lk
from linalgk import tour
from linalgk.tour import _charges, _plots, _tensor_times, tensor
from linalgk.tour._covariances import photographs
from linalgk.tour._page import Figure, Num, Options, Page, Table, Text
from linalgk.tour._timing import Row, Timed

EPS = float(np.finfo(float).eps)
QUICK = Options(quick=True)


def tables(blocks):
    return [b for b in blocks if isinstance(b, Table)]


def words(blocks):
    return " ".join(b.text for b in blocks if isinstance(b, Text))


@pytest.fixture(scope="module")
def cloud():
    return _charges.cloud(90, (1e-3, 1e-6))


@pytest.fixture(scope="module")
def slab():
    return _charges.slab((12, 14, 4), 1e-6, pixels=14)


# --- charges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [3, 7])
def test_cubes_are_those_of_evjen(edge):
    found = _charges.cube(edge, 1e-6)
    half, total = edge // 2, 0.0
    for x in np.ndindex(edge, edge, edge):
        i = np.array(x) - half
        if i.any():
            weight = 0.5 ** np.sum(abs(i) == half)
            total -= (-1.0) ** i.sum() * weight / np.linalg.norm(i)
    assert found.direct == pytest.approx(total, rel=100 * EPS)
    assert abs(found.value - total) <= 2e-6 * found.potential.scale
    assert found.off == pytest.approx(abs(found.value - found.direct) / found.potential.scale)


def test_planet_is_a_ball_in_a_ring():
    points, charges = _charges.planet(3000, np.random.default_rng(0))
    assert (np.sum(charges == 1), np.sum(charges == -1)) == (1000, 2000)
    ball, ring = points[charges > 0], points[charges < 0]
    # five standard deviations of an estimate of a standard deviation
    np.testing.assert_allclose(ball.std(axis=0), 0.3, rtol=5 / np.sqrt(2000))
    assert abs(np.hypot(ring[:, 0], ring[:, 1]).mean() - 1.3) < 0.02
    assert ring[:, 2].std() == pytest.approx(0.1, rel=0.1)


def test_all_pairs_are_derivatives_of_their_energy(cloud):
    points, charges = cloud.points, cloud.charges
    away = points[:, None] - points
    r = np.linalg.norm(away, axis=-1) + np.diag([np.inf] * len(points))
    np.testing.assert_allclose(cloud.potential, (1 / r) @ charges, rtol=1e-11)
    pull = charges[:, None] * charges / r**3
    want = np.sum(pull[..., None] * away, axis=1)
    np.testing.assert_allclose(cloud.forces, want, atol=1e-12 * abs(want).max())
    assert cloud.energy == pytest.approx(0.5 * charges @ (1 / r) @ charges)
    some = np.array([5, 0, 77])
    few = _charges.all_pairs(points, charges, some, np.longdouble)
    assert few[1].dtype == np.longdouble
    np.testing.assert_allclose(few[0].astype(float), cloud.potential[some], rtol=1e-13)
    np.testing.assert_allclose(few[1].astype(float), cloud.forces[some], rtol=1e-10)


def test_estimates_have_the_errors_that_they_name(cloud):
    assert [e.potential.tol for e in cloud.estimates] == [1e-3, 1e-6]
    typical = np.sqrt(np.mean(cloud.forces**2))
    for e in cloud.estimates:
        # probes are others than the charges
        assert e.values < 3 * e.potential.tol
        off = abs(e.potential.forces() - cloud.forces).max() / typical
        assert e.forces == pytest.approx(off)
        assert e.energy == pytest.approx(abs(e.potential.energy() / cloud.energy - 1), rel=1e-6)
    assert cloud.estimates[1].forces < cloud.estimates[0].forces
    row = cloud.row
    shown = cloud.estimates[1]
    assert row.times["linalgk"].seconds == pytest.approx(
        shown.making + shown.energy_seconds + shown.forces_seconds
    )
    assert 0 < row.errors["NumPy"] < 1e-12 < row.errors["linalgk"] == shown.forces


def test_slab_is_its_ions(slab):
    v = slab.potential
    assert v.charges.size == 12 * 14 * 4
    (_, across), (_, above) = slab.panels
    x = np.linspace(-6, 6, 14)
    left, right, bottom, top = slab.extents[0]
    assert (left, right, bottom, top) == (-6, 6, -4.5, 4.5)
    z = np.linspace(bottom, top, 14)
    for at, value in (((x[4], 0.2, z[6]), across[6, 4]), ((x[3], x[8], 2.0), above[8, 3])):
        want = v.charges @ (1 / np.linalg.norm(v.points - at, axis=1))
        assert abs(value - want) < 2e-6 * v.scale
        np.testing.assert_allclose(_charges._potential(v, np.array([at])), want, rtol=1e-10)
    assert slab.row.errors["NumPy"] < 1e-13 < slab.row.errors["linalgk"] < 2e-6
    assert "672 ions at 392 points" in slab.row.work


# --- functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("i", range(3))
def test_slopes_are_derivatives(i):
    x, y, z = np.random.default_rng(0).uniform(-1, 1, (3, 50))
    f = list(tensor.FUNCTIONS.values())[i]
    want = f(x + 1e-30j, y, z).imag / 1e-30
    np.testing.assert_allclose(tensor.SLOPES[i](x, y, z), want, rtol=1e-10, atol=1e-13)


def test_integrals_are_to_twenty_digits():
    mp = pytest.importorskip("mpmath")

    def along(t):
        # exp(-s (1 + 25 r^2)) integrated over the cube, s = t^2
        return 2 * t * mp.exp(-t * t) * (mp.sqrt(mp.pi) * mp.erf(5 * t) / (5 * t)) ** 3

    with mp.workdps(25):
        want = mp.quad(along, [0, 0.1, 0.5, 1, 2, 4, 8])
        assert abs(tensor.INTEGRALS[0] / want - 1) < EPS
    # sin and cos of sums: the product of integrals of cos, for each variable 2 sin(10) / 10
    x, w = np.polynomial.legendre.leggauss(40)
    grid = np.meshgrid(x, x, x, indexing="ij")
    for i in (1, 2):
        values = list(tensor.FUNCTIONS.values())[i](*grid)
        found = np.einsum("i,j,k,ijk", w, w, w, values)
        assert abs(found - tensor.INTEGRALS[i]) < 1e-10


@pytest.mark.parametrize("name", tensor.FUNCTIONS)
def test_functions_have_the_errors_that_they_name(name):
    done = tensor._function(name, 1e-4)
    assert done.values <= 2e-4
    # by the tolerance and the volume
    assert done.integral <= 8 * 2e-4
    assert done.values < done.slopes < 1e-1
    x = np.random.default_rng(1).uniform(-1, 1, (3, 20_000))
    off = abs(done.series(*x) - done.call(*x)).max() / done.series.scale
    assert done.values == pytest.approx(off)


def test_times_of_few_points_are_extrapolated(monkeypatch):
    f = tensor.FUNCTIONS["cos(10 (x + y + z))"]
    g = lk.chebtucker(f, [(-1, 1)] * 3, tol=1e-6)
    monkeypatch.setattr(
        _tensor_times,
        "interleaved",
        lambda calls, **_: {name: Timed(0.5, call()) for name, call in calls.items()},
    )
    row = _tensor_times.values("cosine", f, g, QUICK)
    assert row.work == "cosine at 40,000 points"
    for name, points in (("linalgk", 40_000), ("NumPy, einsum", 4000), ("NumPy, chebval3d", 10)):
        assert row.times[name].result.shape == (points,)
        assert row.times[name].seconds == 0.5 * 40_000 / points
        assert 0 < row.errors[name] <= 2e-6


# --- tensors -------------------------------------------------------------------------------------


def test_film_is_a_window_that_moves():
    film, image = _tensor_times.film(9, 40), photographs()["camera"] / 255.0
    assert film.shape == (9, 40, 40)
    rows = np.lib.stride_tricks.sliding_window_view(image, 40, axis=1)
    places = []
    for frame in film[::4]:
        found = np.argwhere((rows == frame[0]).all(axis=-1))
        places += [(i, j) for i, j in found if (image[i : i + 40, j : j + 40] == frame).all()]
    assert len(places) == 3
    assert np.ptp(places, axis=0).min() > 40


def test_compressed_tells_the_error():
    data = np.random.default_rng(0).standard_normal((6, 7, 8))
    for tol in (0.5, 1e-12):
        done = _tensor_times.compressed("noise", data, tol, _tensor_times.peers(), QUICK)
        off = np.linalg.norm(done.tensor.toarray() - data) / np.linalg.norm(data)
        assert done.errors["linalgk"] == pytest.approx(off, rel=1e-6, abs=1e-15)
        assert done.errors["linalgk"] <= tol
        assert done.ranks["linalgk"] == done.tensor.ranks
        for name in _tensor_times.peers():
            assert done.errors[name] < max(1.1 * tol, 1e-6)


def test_table_says_what_was_asked_and_found():
    data = np.zeros((5, 6, 7))
    ranks = {"linalgk": (2, 3, 4), "TensorLy": (2, 3, 4), "pyttb": (3, 3, 4)}
    seconds = {"linalgk": 2.0, "TensorLy": 3.0, "pyttb": 1.0}
    errors = {"linalgk": 0.1, "TensorLy": 0.2, "pyttb": 0.3}
    done = _tensor_times.Compressed("some", data, 0.25, None, seconds, ranks, errors)
    blocks = _tensor_times.shown([done], ["TensorLy"], quick=True)
    (found,) = tables(blocks)
    assert found.best == {(2, 6)}
    assert [row[3].value for row in found.rows] == [0.1, 0.2, 0.3]
    assert found.rows[1][2] == "ranks"
    assert found.rows[0][2].value == found.rows[2][2].value == 0.25
    assert found.rows[0][5].value == 2 * 3 * 4 + 5 * 2 + 6 * 3 + 7 * 4
    assert "Not installed, and not here: pyttb." in words(blocks)


def test_peers_that_are_not_there_are_left_out(monkeypatch):
    for module in _tensor_times.LIBRARIES.values():
        monkeypatch.setitem(sys.modules, module, None)
    assert _tensor_times.peers() == []


# --- what the chapter says -----------------------------------------------------------------------


def test_chapter_walks_through_its_steps(monkeypatch, cloud, slab):
    monkeypatch.setattr(_charges, "cloud", lambda *_: cloud)
    monkeypatch.setattr(_charges, "slab", lambda *_, **__: slab)
    monkeypatch.setattr(_tensor_times, "peers", list)
    page = tour._walk(tensor, QUICK, progress=False)
    assert len(page.headlines) == 6
    assert "1.7475645946332" in page.headlines[0][1]
    numbers = [
        c.value for t in tables(page.blocks) for r in t.rows for c in r if isinstance(c, Num)
    ]
    assert len(numbers) > 60
    assert np.isfinite(numbers).all()
    assert bool(page.left_out) != _plots.available()
    assert sum(isinstance(b, Figure) for b in page.blocks) == 3 * _plots.available()
    assert "Not installed, and not here: pyttb, TensorLy." in words(page.blocks)


def test_chapter_without_matplotlib(cloud, slab, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert tensor._views(cloud, 10) == tensor._frames(None) == []
    assert not any(isinstance(b, Figure) for b in tensor._slices(slab))


def test_madelung_constant_is_told_with_its_error():
    cube = _charges.cube(5, 1e-6)
    page = Page()
    blocks = tensor._crystal([cube], tensor.MADELUNG + 1e-7, 0.25, page)
    ((_, text), (label, _)) = page.headlines
    assert text == "1.7475646946332, off by 1.0e-7, in 250 ms"
    assert "125 ions" in label
    (row,) = tables(blocks)[0].rows
    assert row[4].value == pytest.approx(abs(cube.value - 1.7475645946331822))


@pytest.mark.parametrize("faster", [True, False])
def test_direct_sums_that_are_quicker_are_told(cloud, faster, monkeypatch):
    times = {"linalgk": Timed(2.0, None), "NumPy": Timed(1.0 if faster else 3.0, None)}
    row = Row("work", times, {"linalgk": 1e-5, "NumPy": 1e-16})
    monkeypatch.setattr(_charges.Cloud, "row", property(lambda self: row))
    assert ("quicker one" in words(tensor._sums(cloud, Page()))) == faster
