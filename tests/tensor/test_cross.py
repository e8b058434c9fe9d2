"""The cross construction, and the pieces that it is made of."""

import numpy as np
import pytest

from linalgk.tensor import _certify, _cross, _degrees, _grid
from linalgk.tensor._chebtucker import chebtucker
from linalgk.tensor._sampling import Exhausted, Sampler

CUBE = [(-1.0, 1.0)] * 3


@pytest.mark.parametrize(
    ("f", "d"),
    [
        (lambda x, y: 1 / (1 + 9 * (x * x + y * y)), 2),
        (lambda x, y, z: np.tanh(2 * (x + y + z)), 3),
        (lambda x, y, z: np.exp(2j * x * y) + 1j * z, 3),
        (lambda x, y, z, w: 1 / (4 + x * y + z * w), 4),
    ],
)
def test_cross_and_grid_agree(f, d):
    grid, cross = (chebtucker(f, [(-1, 1)] * d, tol=1e-10, method=m) for m in ("grid", "cross"))
    assert (grid.method, cross.method) == ("grid", "cross")
    assert cross.converged
    assert max(abs(a - b) for a, b in zip(grid.ranks, cross.ranks, strict=True)) <= 1
    x = np.random.default_rng(3).uniform(-1, 1, (d, 3000))
    assert np.abs(grid(*x) - cross(*x)).max() <= 2e-10 * grid.scale
    for u in cross.factors:
        np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-13)


def test_sharp_functions_take_a_small_part_of_their_grid():
    def f(x, y, z):
        return 1 / (1 + 32 * (x * x + y * y + z * z))

    g = chebtucker(f, CUBE, tol=1e-10)
    assert g.method == "cross"
    assert g.converged
    assert g.evaluations < 0.25 * np.prod([m + 1.0 for m in g.degrees])
    x = np.random.default_rng(3).uniform(-1, 1, (3, 3000))
    assert np.abs(g(*x) - f(*x)).max() <= 1e-10


def test_high_precision_is_not_lost_between_chosen_points():
    def f(x, y, z):
        return 1 / (1 + x * x + y * y + z * z)

    g = chebtucker(f, CUBE, tol=1e-14, method="cross")
    assert g.converged
    assert g.integrate() == pytest.approx(4.2868540623018418827, rel=1e-13)


@pytest.mark.parametrize("shape", [(40, 30), (40, 4000)])
def test_column_space(shape, rng):
    m, p = shape
    u = np.linalg.qr(rng.standard_normal((m, 13)))[0]
    v = np.linalg.qr(rng.standard_normal((p, 12)))[0]
    columns = (u[:, :12] * 10.0 ** -np.arange(12)) @ v.T
    # one column of a direction of its own, too small for mixtures of many to show
    columns[:, 7] = 4e-7 * u[:, 12]
    q = _cross.column_space(columns, 1e-7, None, rng)
    np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-14)
    rest = np.linalg.norm(columns - q @ (q.T @ columns), axis=0)
    assert rest.max() <= 2e-7
    assert q.shape[1] <= 11


def test_picked_rows_determine_the_others(rng):
    v = np.linalg.qr(rng.standard_normal((60, 9)))[0]
    for over in (0, 5):
        rows = _cross.pick(v, over)
        assert len(set(rows)) == 9 + over
        # the bound that QR with column pivoting comes with is 2^r; what is typical is this
        assert np.linalg.norm(np.linalg.pinv(v[rows]), 2) <= 12


def test_limits_of_the_cross():
    def f(x, y, z):
        return 1 / (1.1 + np.sin(x + 2 * y + 3 * z))

    def sampler():
        return Sampler(f, CUBE, vectorized=True, limit=10**6)

    def build(**others):
        s = sampler()
        axes, coarse = _degrees.explore(s)
        options = {"longest": 1000, "highest": 1000, "limit": 10**6, "largest": 10**6} | others
        start = _cross.starting_points(axes, coarse, s.top, 1e-3)
        rng = np.random.default_rng(0)
        return _cross.build(s, [60] * 3, 1e-5, 1e-4, start=start, rng=rng, **options)

    built = build()
    assert built.missed <= 1e-4
    assert build(limit=1000) is None
    assert build(highest=3) is None
    assert build(largest=1000) is None


# --- Sampling, degrees and certificates -----------------------------------------------------------


def test_sampler():
    s = Sampler(lambda x, y: x * y, [(1, 3), (-2, 0)], vectorized=True, limit=50)
    used = s.evaluations
    np.testing.assert_array_equal(s(np.array([[-1.0, 1.0], [-1.0, 0.0]])), [-2.0, -3.0])
    values = s.grid([np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 1.0])])
    np.testing.assert_array_equal(values, np.outer([1, 2, 3], [-2, 0]))
    assert s.evaluations == used + 8
    assert s.scale == 6
    np.testing.assert_array_equal(s.top, [1.0, -1.0])
    with pytest.raises(Exhausted):
        s.grid([np.linspace(-1, 1, 8)] * 2)
    assert s.evaluations == used + 8


def test_ends_of_the_domain_are_met_exactly():
    a, b = 0.1, 0.7
    x = Sampler(lambda x: x, [(a, b)], vectorized=True, limit=99).at(np.array([[-1.0, 1.0, 0.3]]))
    assert x[0][0] == a
    assert x[0][1] == b
    assert a < x[0][2] < b


def test_degrees_see_through_aliases():
    # at 17 points T_32 is T_0
    s = Sampler(lambda x, y: np.cos(32 * np.arccos(np.clip(x, -1, 1))) + y, [(-1, 1)] * 2,
                vectorized=True, limit=10**5)  # fmt: skip
    rng = np.random.default_rng(0)
    _degrees.explore(s)
    found = _degrees.find(s, 1e-10, fibres=4, through=s.top[:, None], longest=1025, rng=rng)
    assert found.lengths == [33, 2]
    assert found.resolved == [True, True]


def test_grid_takes_more_points_where_fibres_knew_too_little():
    def f(x, y):
        return np.cos(20 * x) + y

    s = Sampler(f, [(-1, 1)] * 2, vectorized=True, limit=10**5)
    s(np.zeros((2, 1)))
    built = _grid.build(s, [12, 3], 1e-9, largest=10**4, longest=200)
    assert built.lengths[0] > 35
    assert built.tail <= 1e-9
    measured = _certify.measure(s, built.core, built.factors)
    assert measured.error <= 1e-8
    assert measured.points > 300


def test_measure_finds_the_largest_error(rng):
    s = Sampler(lambda x, y: 0 * x, [(-1, 1)] * 2, vectorized=True, limit=10**5)
    # largest at a corner, and of a known size: sum of |c| for even degrees
    c = np.abs(rng.standard_normal((9, 9)))
    c[1::2], c[:, 1::2] = 0, 0
    found = _certify.measure(s, c, (np.eye(9), np.eye(9)))
    assert 0.97 * c.sum() <= found.error <= c.sum() * (1 + 1e-12)


def test_lean_spends_no_more_than_the_tolerance(rng):
    core = 10.0 ** -np.add.outer(np.add.outer(np.arange(12.0), np.arange(12.0)), np.arange(12.0))
    core *= rng.choice([-1, 1], core.shape)
    factors = [np.linalg.qr(rng.standard_normal((30, 12)))[0] for _ in range(3)]
    lean = _certify.lean(core, factors, 1e-6)
    assert max(lean.core.shape) < 10
    t = rng.uniform(-1, 1, (3, 2000))
    t[:, :8] = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8)
    changed = np.abs(
        _certify.evaluate(core, factors, t) - _certify.evaluate(lean.core, lean.factors, t)
    ).max()
    assert changed <= 1.3e-6
    assert changed <= lean.bound
    # ten times more would have been too much
    assert lean.bound >= 1e-8


def test_halton():
    t = _certify.halton(4, 3)
    np.testing.assert_allclose(t[0], [1 / 2, 1 / 4, 3 / 4, 1 / 8])
    np.testing.assert_allclose(t[1], [1 / 3, 2 / 3, 1 / 9, 4 / 9])
    np.testing.assert_allclose(t[2], [1 / 5, 2 / 5, 3 / 5, 4 / 5])
