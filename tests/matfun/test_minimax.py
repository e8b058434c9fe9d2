"""Laws of the minimax schedules: equioscillation, optimality, published values."""

import numpy as np
import pytest

import linalgk as lk

# Muon practice, Grishina et al. arXiv:2506.10935: five steps for [1e-3, 1], first and last rows
PUBLISHED = {
    0: (8.4703, -25.1081, 18.6293),
    1: (4.1828, -3.1087, 0.5806),
    4: (2.2737, -1.6447, 0.4162),
}


def compose(coeffs, x):
    for a, b, c in coeffs:
        x = x * (a + x * x * (b + x * x * c))
    return x


@pytest.mark.parametrize("lower", [0.9, 0.3, 1e-1, 1e-3, 1e-6, 1e-8])
@pytest.mark.parametrize("degree", [3, 5])
@pytest.mark.parametrize("tol", [1e-2, 1e-6, None])
def test_reaches_its_tolerance_on_the_whole_interval(lower, degree, tol):
    x = np.geomspace(lower, 1, 20_001)
    coeffs = lk.minimax_schedule(lower, tol=tol, degree=degree)
    # 8 eps: rounding of the composition itself, one product and two sums a step
    assert np.abs(1 - compose(coeffs, x)).max() <= max(tol or 0, 8 * np.finfo(float).eps)
    if len(coeffs) > 1:
        short = compose(coeffs[:-1], x)
        assert np.abs(1 - short).max() > (tol or 2.0**-53)


def test_one_polynomial_equioscillates():
    # the best approximation by an odd quintic touches its error 4 times with alternating sign
    (row,) = lk.minimax_schedule(0.2, steps=1)
    x = np.linspace(0.2, 1, 400_001)
    error = 1 - compose([row], x)
    peak = np.abs(error).max()
    touching = np.flatnonzero(np.abs(error) > peak * (1 - 1e-7))
    signs = np.sign(error[touching])
    runs = 1 + np.count_nonzero(np.diff(signs))
    assert runs == 4


@pytest.mark.parametrize("delta", [1e-3, -1e-3])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_no_neighbour_is_better(k, delta):
    (row,) = lk.minimax_schedule(0.1, steps=1)
    x = np.linspace(0.1, 1, 20_001)
    best = np.abs(1 - compose([row], x)).max()
    other = row.copy()
    other[k] *= 1 + delta
    assert np.abs(1 - compose([other], x)).max() > best


@pytest.mark.parametrize("k", sorted(PUBLISHED))
def test_published_coefficients(k):
    coeffs = lk.minimax_schedule(1e-3, steps=5)
    np.testing.assert_allclose(coeffs[k], PUBLISHED[k], atol=6e-5)


def test_published_step_counts():
    # Polar Express (arXiv:2505.16932) for kappa = 1e2..1e8 to 1e-3 and 1e-7
    counts = [len(lk.minimax_schedule(10.0**-k, tol=1e-3)) for k in (2, 3, 4, 6, 8)]
    assert counts == [5, 6, 8, 11, 14]
    counts = [len(lk.minimax_schedule(10.0**-k, tol=1e-7)) for k in (2, 3, 4, 6, 8)]
    assert counts == [6, 7, 9, 12, 15]


def test_safety_keeps_too_large_arguments_bounded():
    x = np.linspace(1.0, 1.05, 1001)
    plain = lk.minimax_schedule(1e-3, tol=1e-6)
    safe = lk.minimax_schedule(1e-3, tol=1e-6, safety=1.05)
    assert np.abs(1 - compose(safe, x)).max() < 1e-5
    assert np.abs(compose(plain[:3], x)).max() > 1e3
    inside = np.geomspace(1e-3, 1, 10_001)
    assert np.abs(1 - compose(safe, inside)).max() <= 1e-6


def test_shape_and_degenerate_cases():
    assert lk.minimax_schedule(1.0).shape == (0, 3)
    assert lk.minimax_schedule(0.5, steps=0).shape == (0, 3)
    assert lk.minimax_schedule(0.5, steps=7).shape == (7, 3)
    assert (lk.minimax_schedule(1e-2, degree=3)[:, 2] == 0).all()
    with pytest.raises(ValueError, match="read-only"):
        lk.minimax_schedule(0.5)[0] = 1


def test_other_namespaces(xp):
    coeffs = lk.minimax_schedule(1e-2, tol=1e-3, xp=xp, dtype="float32")
    assert coeffs.dtype == xp.float32
    np.testing.assert_allclose(np.asarray(coeffs), lk.minimax_schedule(1e-2, tol=1e-3), rtol=1e-6)


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        ({"lower": 0.0}, ValueError, "lower"),
        ({"lower": 1.5}, ValueError, "lower"),
        ({"lower": float("nan")}, ValueError, "lower"),
        ({"lower": "a"}, TypeError, "lower"),
        ({"lower": 0.1, "tol": 0.0}, ValueError, "tol"),
        ({"lower": 0.1, "steps": -1}, ValueError, "steps"),
        ({"lower": 0.1, "steps": 1.5}, TypeError, "steps"),
        ({"lower": 0.1, "tol": 1e-3, "steps": 3}, ValueError, "tol and steps"),
        ({"lower": 0.1, "degree": 4}, ValueError, "degree"),
        ({"lower": 0.1, "safety": 0.5}, ValueError, "safety"),
    ],
)
def test_bad_arguments(args, error, text):
    with pytest.raises(error, match=text):
        lk.minimax_schedule(args.pop("lower"), **args)
