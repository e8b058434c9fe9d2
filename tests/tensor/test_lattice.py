"""Lattice sums against the sum over all charges, and Madelung constants of the literature."""

import pickle

import numpy as np
import pytest

from linalgk.errors import ConvergenceWarning
from linalgk.tensor import _lattice
from linalgk.tensor._lattice import (
    explain_lattice_sum,
    lattice_sum,
    sample,
)
from linalgk.tensor._madelung import explain_madelung_constant, madelung_constant

# J. M. Borwein et al., "Lattice sums then and now", 2013; zinc blende by the same integral in
# 25 digits.
MADELUNG = {
    "NaCl": 1.7475645946331821906,
    "CsCl": 1.7626747730709883979,
    "ZnS": 1.6380550533887894237,
}


def direct(targets, x, q):
    """Potential (n,) and gradient (n, 3), without pairs at distance 0."""
    step = targets[:, None, :] - x[None, :, :]
    r = np.linalg.norm(step, axis=-1)
    inverse = np.where(r > 0, 1 / np.where(r > 0, r, 1), 0)
    return inverse @ q, -np.einsum("ij,ijk->ik", inverse**3 * q, step)


def rock_salt(n):
    """Signs along an axis, half charges at the ends: Evjen's cube."""
    sign = (-1.0) ** (np.arange(n) - n // 2)
    sign[[0, -1]] /= 2
    return [sign] * 3


@pytest.mark.parametrize("kind", MADELUNG)
def test_infinite_crystals(kind):
    # rounding of some hundred terms of size 1
    assert madelung_constant(kind) == pytest.approx(MADELUNG[kind], abs=2e-13)


@pytest.mark.parametrize("tol", [1e-5, 1e-12])
def test_cube_of_rock_salt(rng, tol):
    v = lattice_sum(9, charges=rock_salt(9), tol=tol)
    x, q = v.points, v.charges
    assert abs(q.sum()) < 1e-12
    assert v.converged
    assert v.error <= tol
    low, high = np.array(v.domain).T
    y = np.concatenate([rng.uniform(low, high, (200, 3)), x[:100], np.zeros((1, 3))])
    potential, gradient = direct(y, x, q)
    assert np.abs(v.eval(y) - potential).max() <= 3 * tol * v.scale
    slope = max(8 * m / w for m, w in zip(v.long.degrees, high - low, strict=True))
    assert np.abs(v.grad(y) - gradient).max() <= 3 * tol * v.scale * slope
    energy = 0.5 * q @ direct(x, x, q)[0]
    assert abs(v.energy() - energy) <= tol * v.scale * np.abs(q).sum()


def test_evjen_converges_to_the_constant():
    errors = [
        abs(-lattice_sum(n, charges=rock_salt(n), tol=1e-8).eval(np.zeros(3)) - MADELUNG["NaCl"])
        for n in (5, 9, 17)
    ]
    # multipoles of Evjen's cell vanish up to the order that gives n^-4 or more
    assert errors[1] < errors[0] / 2**4
    assert errors[2] < errors[1] / 2**3.5


def test_boxes_with_a_basis(rng):
    """Caesium chloride on a half lattice: two products of charges; unequal counts and spacings."""
    counts = (7, 5, 9)
    even = [(np.arange(n) % 2 == 0).astype(float) for n in counts]
    charges = [np.stack([e, 1 - e], axis=1) for e in even]
    charges[0] = charges[0] * [1.0, -1.0]
    v = lattice_sum(counts, (0.5, 0.6, 0.7), charges=charges, tol=1e-8)
    x, q = v.points, v.charges
    assert (q == 1).sum() == 4 * 3 * 5
    assert (q == -1).sum() == 3 * 2 * 4
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-14)
    y = rng.uniform(*np.array(v.domain).T, (100, 3))
    assert np.abs(v.eval(y) - direct(y, x, q)[0]).max() <= 3e-8 * v.scale
    assert max(v.long.ranks) <= 2 * v.weights.size


def test_rank_does_not_grow():
    small, large = (lattice_sum(n, tol=1e-7) for n in (16, 48))
    assert max(large.long.ranks) <= max(small.long.ranks) + 6
    # the lattice is its own mirror image
    y = np.array([[0.5, 0.5, 0.0]])
    assert large.eval(y) == pytest.approx(large.eval(-y), rel=1e-6)


def test_sites_are_sites_however_they_are_rounded():
    v = lattice_sum(7, 0.1, tol=1e-8)
    site = v.points[2 * 49 + 3 * 7 + 4]
    near = np.nextafter(site, 10.0)
    assert v.eval(near) == pytest.approx(v.eval(site), rel=1e-12)
    expected = direct(site[None], v.points, v.charges)[0][0]
    assert v.eval(site) == pytest.approx(expected, rel=1e-6)


def test_canonical_tensor_on_a_grid(rng):
    v = lattice_sum((4, 5, 6), charges=[np.ones(4), (-1.0) ** np.arange(5), np.ones(6)], tol=1e-9)
    axes = [np.sort(rng.uniform(-2, 2, n)) for n in (6, 7, 8)]
    t = v.canonical(*axes)
    assert tuple(t.shape) == (6, 7, 8)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    expected = direct(grid, v.points, v.charges)[0]
    allowed = 1e-9 * direct(grid, v.points, np.abs(v.charges))[0]
    assert (np.abs(np.asarray(t.toarray()).reshape(-1) - expected) <= allowed + 1e-13).all()
    with pytest.raises(ValueError, match="meets a charge"):
        v.canonical(v.sources.axes[0], [0.1, 0.0], v.sources.axes[2][:2])
    with pytest.raises(TypeError, match="three vectors"):
        v.canonical(axes[0])
    with pytest.raises(ValueError, match="must be vectors"):
        v.canonical(axes[0], axes[1], np.zeros((2, 2)))


def test_single_site_and_pickle():
    v = lattice_sum(1, 2.0, tol=1e-8)
    assert v.eval(np.array([0.6, 0.0, 0.8])) == pytest.approx(1.0, abs=3e-8 * v.scale)
    assert v.eval(np.zeros(3)) == pytest.approx(0.0, abs=3e-8 * v.scale)
    again = pickle.loads(pickle.dumps(v))
    assert again == v
    assert again != lattice_sum(2)
    assert again.energy() == v.energy()
    assert again.canonical([0.5], [0.5], [0.5]).shape == (1, 1, 1)
    line = lattice_sum((5, 1, 1), tol=1e-8)
    assert line.eval(np.zeros(3)) == pytest.approx(2 * (1 + 0.5), abs=3e-8 * line.scale)


def test_what_is_missed_is_told(monkeypatch):
    monkeypatch.setattr(_lattice, "_series", _rough(_lattice._series))
    with pytest.warns(ConvergenceWarning, match="lattice_sum: the error is"):
        v = lattice_sum(5, tol=1e-9)
    assert not v.converged


def _rough(series):
    def cut(*args):
        c, values = series(*args)
        return c[:12], values

    return cut


BAD = {
    "counts: must be a number or three": ({"counts": (3, 3)}, ValueError),
    r"counts\[1\]: must be at least 1": ({"counts": (3, 0, 3)}, ValueError),
    r"counts\[0\]: must be an integer": ({"counts": 2.5}, TypeError),
    r"spacing\[2\]: must satisfy": ({"spacing": (1.0, 1.0, 0.0)}, ValueError),
    "charges: must be three arrays": ({"charges": [np.ones(3)]}, ValueError),
    r"charges\[1\]: must have shape": (
        {"charges": [np.ones(3), np.ones(4), np.ones(3)]},
        ValueError,
    ),
    "charges: must have one number B": (
        {"charges": [np.ones((3, 2)), np.ones(3), np.ones(3)]},
        ValueError,
    ),
    "tol: must satisfy": ({"tol": 0.0}, ValueError),
    "split: must satisfy": ({"split": -1.0}, ValueError),
    "domain: must hold all sites": ({"domain": [(0, 1)] * 3}, ValueError),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    options, error = BAD[message]
    with pytest.raises(error, match=message):
        lattice_sum(**{"counts": 3, **options})
    with pytest.raises(ValueError, match="kind: must be one of"):
        madelung_constant("LiF")


def test_records():
    args, options = sample("small", rng=0)
    assert explain_lattice_sum(*args, **options).method == "assembled"
    assert lattice_sum(*args, **options).converged
    assert explain_madelung_constant("ZnS").method == "theta"
