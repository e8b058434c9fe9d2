"""Potentials of charges against the sum over all pairs."""

import pickle

import numpy as np
import pytest

from linalgk import _xp
from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.tensor import _longrange, _particles
from linalgk.tensor._longrange import (
    explain_longrange_potential,
    longrange_potential,
    sample,
)
from linalgk.tensor._neighbours import Cells


def cloud(rng, n, kind):
    """Points and charges: both signs or one, in a cube, a thin slab or two far clusters."""
    x = rng.uniform(-1, 1, (n, 3))
    if kind == "slab":
        x *= [3.0, 2.0, 0.01]
    elif kind == "clusters":
        x = 0.05 * x + np.where(np.arange(n)[:, None] % 2, 4.0, -4.0)
    q = rng.uniform(-1, 1, n)
    if kind == "positive":
        q = np.abs(q)
    return x, q


def direct(targets, x, q):
    """Potential (n,) and gradient (n, 3), without pairs at distance 0."""
    step = targets[:, None, :] - x[None, :, :]
    r = np.linalg.norm(step, axis=-1)
    inverse = np.where(r > 0, 1 / np.where(r > 0, r, 1), 0)
    return inverse @ q, -np.einsum("ij,ijk->ik", inverse**3 * q, step)


@pytest.mark.parametrize(
    ("kind", "tol"),
    [
        ("mixed", 1e-4),
        ("mixed", 1e-7),
        ("mixed", 1e-9),
        ("mixed", 1e-12),
        ("positive", 1e-7),
        ("slab", 1e-7),
        ("clusters", 1e-7),
    ],
)
def test_against_all_pairs(rng, kind, tol):
    n = 400
    x, q = cloud(rng, n, kind)
    v = longrange_potential(x, q, tol)
    assert v.converged
    assert v.error <= tol
    assert v.error >= v.long.error == v.long.certificate.sampled > 0
    low, high = np.array(v.domain).T
    y = np.concatenate([rng.uniform(low, high, (300, 3)), x])
    potential, gradient = direct(y, x, q)
    # probes are points like these; those where the error is largest may have been missed
    assert np.abs(v.eval(y) - potential).max() <= 3 * tol * v.scale
    # Bernstein's inequality two percent inside the ends
    slope = max(8 * m / w for m, w in zip(v.long.degrees, high - low, strict=True))
    assert np.abs(v.grad(y) - gradient).max() <= 3 * tol * v.scale * slope
    energy = 0.5 * q @ potential[300:]
    assert abs(v.energy() - energy) <= tol * v.scale * np.linalg.norm(q) * n**0.5 / 2
    forces = -q[:, None] * gradient[300:]
    assert np.abs(v.forces() - forces).max() <= 3 * tol * v.scale * slope
    # action and reaction
    assert np.abs(v.forces().sum(axis=0)).max() <= 3 * tol * v.scale * slope * np.linalg.norm(q)


def test_ranges_are_what_they_say(rng):
    x, q = cloud(rng, 300, "mixed")
    v = longrange_potential(x, q, 1e-8, split=0.7)
    assert v.radius == 0.7
    y = rng.uniform(-0.9, 0.9, (50, 3))
    r = np.linalg.norm(y[:, None] - x[None], axis=-1)
    gauss = np.exp(-np.multiply.outer(r**2, v.exponents)) @ v.weights
    long = gauss @ q
    assert np.abs(v.eval(y, include="long") - long).max() <= 3 * v.tol * v.scale
    near = np.where(r < 0.7, 1 / r - gauss, 0) @ q
    # one series for the Gaussians is as good as a thousandth of the tolerance
    short = v.eval(y, include="short")
    assert np.abs(short - near).max() <= 1e-2 * v.tol * v.scale + 1e-13 * np.abs(near).max()
    both = v.eval(y, include="long") + short
    np.testing.assert_array_equal(v.eval(y), both)
    np.testing.assert_array_equal(v.grad(y), v.grad(y, include="long") + v.grad(y, include="short"))
    # at a charge the short range takes its own long range back
    alone = longrange_potential(np.zeros((1, 3)), np.array([2.0]), 1e-8)
    assert alone.eval(np.zeros(3), include="short") == pytest.approx(
        -2 * alone.weights.sum(), rel=1e-10
    )
    assert abs(alone.energy()) <= alone.tol * alone.scale
    assert v.sigma == pytest.approx((2 * v.exponents.max()) ** -0.5)


def test_moving_scaling_and_reordering(rng):
    x, q = cloud(rng, 200, "mixed")
    tol = 1e-8
    v = longrange_potential(x, q, tol)
    energy, bound = v.energy(), 2 * tol * v.scale * np.abs(q).sum()
    # a shift by 1000 rounds the points to 1e-13
    assert abs(longrange_potential(x + 1000.0, q, tol).energy() - energy) <= bound
    assert abs(longrange_potential(x[::-1], q[::-1], tol).energy() - energy) <= bound
    assert abs(1e6 * longrange_potential(1e6 * x, q, tol).energy() - energy) <= bound
    assert abs(1e-20 * longrange_potential(1e-20 * x, q, tol).energy() - energy) <= bound
    assert abs(longrange_potential(x, -3 * q, tol).energy() - 9 * energy) <= 9 * bound
    # quarter turn
    turned = x[:, [1, 0, 2]] * [-1, 1, 1]
    assert abs(longrange_potential(turned, q, tol).energy() - energy) <= bound


def test_forces_are_slopes_of_the_energy(rng):
    x, q = cloud(rng, 60, "mixed")
    tol, h = 1e-10, 1e-4
    v = longrange_potential(x, q, tol)
    bent = np.zeros((60, 3))
    bent[7] = [0.3, -0.5, 0.2]
    ahead, behind = (longrange_potential(x + s * h * bent, q, tol).energy() for s in (1.0, -1.0))
    slope = (ahead - behind) / (2 * h)
    assert slope == pytest.approx(-np.sum(v.forces() * bent), abs=2e-5)


def test_libraries(xp, rng):
    x, q = cloud(rng, 80, "mixed")
    reference = longrange_potential(x, q, 1e-4)
    v = longrange_potential(xp.asarray(x), xp.asarray(q), 1e-4)
    y = rng.uniform(-0.9, 0.9, (2, 5, 3))
    given = xp.asarray(y)
    found, slopes = v.eval(given), v.grad(given, include="short")
    assert type(found) is type(given) is type(slopes)
    assert tuple(found.shape) == (2, 5)
    close = {"rtol": 1e-12, "atol": 1e-12 * v.scale}
    np.testing.assert_allclose(_xp.to_numpy(found), reference.eval(y), **close)
    expected = reference.grad(y, include="short")
    np.testing.assert_allclose(_xp.to_numpy(slopes), expected, rtol=1e-12, atol=1e-9)
    assert tuple(v.eval(given[:0, ...], include="short").shape) == (0, 5)


def test_layouts_and_pickles(rng):
    x, q = cloud(rng, 120, "mixed")
    v = longrange_potential(x, q, 1e-6)
    odd = np.asfortranarray(x)
    odd.setflags(write=False)
    strided = np.repeat(q, 2)[::2]
    w = longrange_potential(odd, strided, 1e-6)
    np.testing.assert_array_equal(w.forces(), v.forces())
    again = pickle.loads(pickle.dumps(v))
    assert again == v
    assert hash(again) == hash(v)
    assert again.energy() == v.energy()
    assert repr(again) == repr(v)
    assert "120 charges" in repr(v)
    assert v.eval(x[3]) == pytest.approx(v.eval(x)[3], rel=1e-12)
    assert v.eval(x[:0]).shape == (0,)
    assert v.grad(x[None, :5]).shape == (1, 5, 3)
    single = longrange_potential(x.astype(np.float32), q.astype(np.float32), 1e-6)
    assert single.energy() == pytest.approx(v.energy(), abs=1e-4 * v.scale)
    whole = longrange_potential([[0, 0, 0], [1, 0, 0]], [1, 1], 1e-6)
    assert whole.energy() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("n", "axes"), [(1, 0), (2, 1), (40, 1), (40, 2)])
def test_points_in_less_than_space(rng, n, axes):
    x = np.full((n, 3), 0.3)
    x[:, :axes] = rng.uniform(-2, 2, (n, axes))
    q = rng.uniform(0.5, 1, n)
    v = longrange_potential(x, q, 1e-8)
    y = rng.uniform(*np.array(v.domain).T, (30, 3))
    assert np.abs(v.eval(y) - direct(y, x, q)[0]).max() <= 3e-8 * v.scale
    assert v.energy() == pytest.approx(0.5 * q @ direct(x, x, q)[0], abs=1e-8 * n * v.scale)


@pytest.mark.parametrize("kappa", [0.3, 4.0])
def test_screened(rng, kappa):
    x, q = cloud(rng, 200, "mixed")
    v = longrange_potential(x, q, 1e-8, kappa=kappa)
    y = rng.uniform(-0.9, 0.9, (100, 3))
    step = y[:, None, :] - x[None, :, :]
    r = np.linalg.norm(step, axis=-1)
    assert np.abs(v.eval(y) - (np.exp(-kappa * r) / r) @ q).max() <= 3e-8 * v.scale
    slope = -np.exp(-kappa * r) * (kappa / r**2 + 1 / r**3) * q
    steepest = 8 * max(v.long.degrees) / 2
    expected = np.einsum("ij,ijk->ik", slope, step)
    assert np.abs(v.grad(y) - expected).max() <= 3e-8 * v.scale * steepest


def test_domain(rng):
    x, q = cloud(rng, 50, "mixed")
    v = longrange_potential(x, q, 1e-7, domain=[(-2, 2)] * 3)
    far = np.array([[1.9, -1.9, 1.9], [0.0, 0.0, 1.99]])
    assert np.abs(v.eval(far) - direct(far, x, q)[0]).max() <= 3e-7 * v.scale
    outside = np.array([[0.0, 0.0, 3.0], [np.nan, 0.0, 0.0], [0.1, 0.2, 0.3]])
    with pytest.raises(ValueError, match="outside"):
        v.eval(outside)
    found = v.eval(outside, on_fail="nan")
    assert np.isnan(found[:2]).all()
    assert np.isfinite(found[2])
    short = v.eval(outside, include="short")
    assert np.isfinite(short[[0, 2]]).all()
    assert np.isnan(short[1])


def test_no_charge_at_all():
    v = longrange_potential(np.zeros((2, 3)), np.zeros(2), 1e-7)
    assert v.energy() == 0
    assert v.eval(np.array([0.1, 0.2, 0.3])) == 0
    assert (v.forces() == 0).all()


def test_what_is_missed_is_told(rng, monkeypatch):
    x, q = cloud(rng, 30, "mixed")
    rough = _particles.basis
    monkeypatch.setattr(_particles, "basis", lambda a, s, tol: rough(a, s, 1e-3))
    with pytest.warns(ConvergenceWarning, match="longrange_potential: the error is"):
        v = longrange_potential(x, q, 1e-9)
    assert not v.converged
    assert not v.long.converged
    assert "not converged" in repr(v)
    y = rng.uniform(-0.9, 0.9, (50, 3))
    true = np.abs(v.eval(y) - direct(y, x, q)[0]).max() / v.scale
    assert v.error / 5 <= true <= 5 * v.error
    with pytest.raises(NotConvergedError, match="asked for"):
        longrange_potential(x, q, 1e-9, on_fail="raise")
    assert longrange_potential(x, q, 1e-9, on_fail="nan").error == v.error


def test_neighbours(rng):
    # more cells than particles, empty cells, targets outside
    x, q = cloud(rng, 300, "clusters")
    cells = Cells(x, q, 0.03)
    y = np.concatenate([x, rng.uniform(-6, 6, (100, 3)), [[1e150, 0, 0]]])
    r2 = np.sum((y[:, None, :] - x[None, :, :]) ** 2, axis=-1)
    found = cells.sums(y, lambda s, _: (np.cos(s), -np.sin(s)), slopes=True, threads=2)
    inside = r2 <= 0.03**2
    assert inside.sum() > 1000
    np.testing.assert_allclose(found[0], (inside * np.cos(r2)) @ q, rtol=1e-12, atol=1e-12)
    step = y[:, None, :] - x[None, :, :]
    slope = np.einsum("ij,ijk->ki", np.where(inside, -2 * np.sin(r2), 0) * q, step)
    np.testing.assert_allclose(found[1:], slope, rtol=1e-9, atol=1e-14)


BAD = {
    "points: must have shape": (np.zeros((3, 2)), np.ones(3), {}),
    "points: must have shape .* N at least 1": (np.zeros((0, 3)), np.ones(0), {}),
    "charges: must have shape": (np.eye(3), np.ones(4), {}),
    "points: 0 and 2 are both": (np.eye(3)[[0, 1, 0]], np.array([1.0, 1.0, 0.0]), {}),
    "points: must be finite, got nan": (np.array([[0.0, np.nan, 0.0]]), np.ones(1), {}),
    "charges: must be finite, got inf": (np.eye(3), np.array([1.0, np.inf, 0.0]), {}),
    "split: must satisfy": (np.eye(3), np.ones(3), {"split": 0.0}),
    "split: must be one of": (np.eye(3), np.ones(3), {"split": "best"}),
    "split: radius .* larger": (np.eye(3), np.ones(3), {"split": 1e-3}),
    "domain: must be three pairs": (np.eye(3), np.ones(3), {"domain": [(0, 1)]}),
    "domain: must be three pairs .* low < high": (np.eye(3), np.ones(3), {"domain": [(0, 0)] * 3}),
    "domain: must hold all particles": (np.eye(3), np.ones(3), {"domain": [(0, 0.5)] * 3}),
    "kappa: must satisfy": (np.eye(3), np.ones(3), {"kappa": -1.0}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    x, q, options = BAD[message]
    with pytest.raises(ValueError, match=message) as caught:
        longrange_potential(x, q, 1e-6, **options)
    assert isinstance(caught.value, NonFiniteError) == ("finite" in message)


def test_bad_kinds():
    x, q = np.eye(3), np.ones(3)
    for tol in (0.0, 1e-15, 0.5):
        with pytest.raises(ValueError, match="tol: must satisfy"):
            longrange_potential(x, q, tol)
    with pytest.raises(TypeError, match="points: must be real"):
        longrange_potential(x + 0j, q, 1e-6)
    with pytest.raises(TypeError, match="tol: must be a real number"):
        longrange_potential(x, q, "small")
    v = longrange_potential(x, q, 1e-4)
    with pytest.raises(ValueError, match="include: must be one of"):
        v.eval(x, include="near")
    with pytest.raises(ValueError, match=r"points: must have shape \(..., 3\)"):
        v.eval(np.zeros((3, 2)))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        v.eval(torch.zeros(3, requires_grad=True))
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match="traced"):
        jax.make_jaxpr(v.eval)(np.zeros(3))


def test_records():
    args, options = sample("small", rng=0)
    found = explain_longrange_potential(*args, **options)
    assert found.method == "moments"
    assert found.flops > 0
    assert longrange_potential(*args, **options).converged
    given = explain_longrange_potential(*args, split=0.5)
    assert "radius 0.5" in given.reason


def test_radius_is_balanced(rng):
    # many neighbours cost more than a finer long range, and the other way round
    few, many = (
        _longrange._request(*cloud(rng, n, "mixed"), 1e-6, "auto", None, 0.0) for n in (200, 20_000)
    )
    assert few.radius > 1.5 * many.radius


def test_no_needles():
    # sums of least terms for these have a Gaussian of weight 60 and 300000, far narrower than 1
    for ratio, tol in ((2.0**1.75, 5e-7), (2.0**2.5, 5e-7)):
        w, a = _longrange.terms(3.0, 3.0 * ratio, tol, 0.0)
        assert 3.0 * w.sum() < 5
        r = np.linspace(3.0, 3.0 * ratio, 1000)
        assert np.abs(np.exp(-np.outer(r**2, a)) @ w * r - 1).max() <= tol
