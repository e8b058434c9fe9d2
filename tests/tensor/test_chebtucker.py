"""chebtucker: tolerances met at points it has not seen, errors it owns up to, and bad input."""

import math
import warnings

import numpy as np
import pytest

from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.tensor import _chebtucker
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._chebtucker import chebtucker, explain_chebtucker
from linalgk.tensor._function import ChebTucker

CUBE = [(-1.0, 1.0)] * 3
SMOOTH = {
    "gauss 1-D": (lambda x: np.exp(-20 * (x - 0.3) ** 2), [(-1.0, 2.0)]),
    "oscillation 1-D": (lambda x: np.sin(60 * x), [(0.0, 1.0)]),
    "runge 2-D": (lambda x, y: 1 / (1 + 25 * (x * x + y * y)), [(-1.0, 1.0)] * 2),
    "product 2-D": (lambda x, y: np.cos(15 * x * y + y), [(-1.0, 1.0), (0.0, 2.0)]),
    "ridge 3-D": (lambda x, y, z: np.tanh(2 * (x + y + z)), CUBE),
    "wave 3-D": (lambda x, y, z: np.cos(5 * (x + y + z)), CUBE),
    "complex 3-D": (lambda x, y, z: np.exp(1j * (3 * x + 2 * y * z)), CUBE),
    "pole 4-D": (lambda x, y, z, w: 1 / (4 + x * y + z * w), [(-1.0, 1.0)] * 4),
}


def _points(domain, n, seed=11):
    """Half of them anywhere, half on edges and faces, where polynomials differ most."""
    generator = np.random.default_rng(seed)
    rows = [generator.uniform(a, b, n) for a, b in domain]
    for row, (a, b) in zip(rows, domain, strict=True):
        row[n // 2 :] = np.where(
            generator.random(n - n // 2) < 0.5,
            generator.choice([a, b], n - n // 2),
            row[n // 2 :],
        )
    return rows


def _error(g, f, n=4000):
    x = _points(g.domain, n)
    return float(np.abs(g(*x) - f(*x)).max()) / g.scale


@pytest.mark.parametrize("name", SMOOTH)
def test_meets_the_tolerance_at_points_it_has_not_seen(name):
    f, domain = SMOOTH[name]
    sizes = []
    for tol in (1e-4, 1e-8, 1e-12):
        g = chebtucker(f, domain, tol=tol)
        assert g.converged
        assert g.error <= tol
        assert _error(g, f) <= 1.5 * tol
        for u in g.factors:
            np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-13)
        sizes.append((*g.degrees, *g.ranks))
    # every evaluation pays for degrees and ranks: no more of them than the tolerance takes
    assert all(a <= b <= c for a, b, c in zip(*sizes, strict=True))
    assert math.prod(sizes[0]) < 0.8 * math.prod(sizes[2])


@pytest.mark.parametrize(
    ("f", "degrees", "ranks"),
    [
        (lambda x, y, z: x**3 * y**2 + z, (3, 2, 1), (2, 2, 2)),
        (lambda x, y, z: (1 + x**5) * (2 - y) * (z**2 + z**6), (5, 1, 6), (1, 1, 1)),
        (lambda x, y, z: 4.0, (0, 0, 0), (1, 1, 1)),
        (lambda x, y, z: x > 2, (0, 0, 0), (1, 1, 1)),
    ],
)  # fmt: skip
def test_polynomials_are_exact(f, degrees, ranks):
    g = chebtucker(f, [(-1.0, 2.0), (0.0, 1.0), (-3.0, 0.5)])
    assert (g.degrees, g.ranks) == (degrees, ranks)
    assert g.error <= 1e-13
    x = _points(g.domain, 500)
    np.testing.assert_allclose(g(*x), np.broadcast_to(f(*x), 500), rtol=0, atol=1e-13 * g.scale)


def test_a_function_of_one_variable_takes_one_pair():
    g = chebtucker(np.exp, (0, 2), tol=1e-13)
    assert g.domain == ((0.0, 2.0),)
    assert abs(g(1.25) - np.exp(1.25)) <= 1e-13 * g.scale


def test_degrees_follow_each_variable():
    g = chebtucker(lambda x, y, z: np.cos(400 * x) * (1 + y**3) * (2 + z), CUBE)
    assert 400 < g.degrees[0] < 500
    assert g.degrees[1:] == (3, 1)
    assert g.ranks == (1, 1, 1)


def test_a_narrow_peak_is_found():
    def f(x, y, z):
        return np.exp(-500 * ((x - 0.3) ** 2 + (y + 0.4) ** 2 + (z - 0.77) ** 2))

    g = chebtucker(f, CUBE, tol=1e-8)
    assert g.ranks == (1, 1, 1)
    assert g.scale == pytest.approx(1, rel=0.01)
    generator = np.random.default_rng(2)
    near = [c + generator.normal(0, 0.05, 2000) for c in (0.3, -0.4, 0.7)]
    assert np.abs(g(*near) - f(*near)).max() <= 1e-8
    assert g.error <= 1e-8
    # its maximum is far above the norm of its coefficients
    h = chebtucker(lambda *x: np.exp(-100 * sum((t - 0.1) ** 2 for t in x)), [(-1, 1)] * 4)
    assert h.ranks == (1, 1, 1, 1)
    assert h.error <= 1e-10


def test_published_ranks():
    # measured at a fixed degree with errors of 7e-9, 8e-15, 2e-7 and 1e-7: kron_tucker 2.4
    functions = [
        (lambda x, y, z: 1 / (1 + 25 * (x * x + y * y + z * z)), 12),
        (lambda x, y, z: np.cos(10 * (x + y + z)), 2),
        (lambda x, y, z: np.tanh(5 * (x + y + z)), 43),
        (lambda x, y, z: 1 / (1 + x * x + y * y + z * z), 6),
    ]
    for f, rank in functions:
        g = chebtucker(f, CUBE, tol=1e-7)
        assert max(g.ranks) <= rank
        assert _error(g, f) <= 1e-7


@pytest.mark.parametrize("unit", [1e-250, 1e250])
def test_no_square_of_a_value_over_or_underflows(unit):
    g = chebtucker(lambda x, y: unit * np.exp(x * y), [(-1, 1)] * 2, tol=1e-12)
    assert g.converged
    assert g.scale == pytest.approx(unit * np.e)
    assert abs(g(0.5, 0.5) / unit - np.exp(0.25)) <= 3e-12


def test_near_machine_precision():
    g = chebtucker(lambda x, y, z: 1 / (1 + x * x + y * y + z * z), CUBE, tol=1e-14)
    assert g.converged
    assert max(g.ranks) <= 14
    assert g.integrate() == pytest.approx(4.2868540623018418827, rel=1e-14)


# --- Functions that no series meets --------------------------------------------------------------

HARD = {
    # with points around which the error is largest
    "cusp": (lambda x, y, z: np.exp(-2 * np.sqrt(x * x + y * y + (z - 0.4) ** 2)), (0, 0, 0.4)),
    "kink": (lambda x, y, z: np.abs(x - 0.1) + y * z, (0.1, 0, 0)),
    "kink 1-D": (lambda x: np.abs(x - 0.1), (0.1,)),
    "jump": (lambda x, y: np.where(x > 0.3, 1.0, -1.0) * (1 + y), (0.3, 1.0)),
    "root": (lambda x, y: np.sqrt(2 + x + y), (-1, -1)),
}


@pytest.mark.parametrize("name", HARD)
def test_a_warned_object_knows_its_true_error(name):
    f, where = HARD[name]
    domain = [(-1.0, 1.0)] * len(where)
    with pytest.warns(ConvergenceWarning, match=r"relative error of .* not tol = 1\.0e-09"):
        g = chebtucker(f, domain, tol=1e-9, max_degree=500)
    assert not g.converged
    generator = np.random.default_rng(7)
    seen = [_error(g, f)]
    for width in (0.1, 0.01, 0.001):
        x = [np.clip(c + generator.uniform(-width, width, 4000), -1, 1) for c in where]
        seen.append(np.abs(g(*x) - f(*x)).max() / g.scale)
    assert max(seen) / 2 <= g.error <= 3 * max(seen)


@pytest.mark.slow
def test_kinks_off_the_axes_fall_back_to_a_grid():
    def f(x, y):
        return np.abs(x + y)

    g = chebtucker(f, [(-1, 1)] * 2, tol=1e-8, on_fail="nan")
    assert g.method == "grid"
    seen = _error(g, f)
    assert seen / 2 <= g.error <= 3 * seen < 2e-3


def test_noise_is_an_error():
    generator = np.random.default_rng(1)

    def f(x, y):
        return np.cos(x + y) + 1e-6 * generator.standard_normal(x.shape)

    with pytest.warns(ConvergenceWarning):
        g = chebtucker(f, [(-1, 1)] * 2, tol=1e-9, max_degree=100)
    assert 2e-6 <= g.error <= 2e-5


def test_what_a_failure_does(recwarn):
    def f(x, y):
        return np.abs(x - 0.1) * y

    silent = chebtucker(f, [(-1, 1)] * 2, tol=1e-6, max_degree=64, on_fail="nan")
    assert not silent.converged
    assert not recwarn.list
    with pytest.raises(NotConvergedError, match="max_degree") as caught:
        chebtucker(f, [(-1, 1)] * 2, tol=1e-6, max_degree=64, on_fail="raise")
    assert caught.value.result == silent
    with pytest.warns(ConvergenceWarning, match="below 8.9e-16, the precision") as warned:
        g = chebtucker(lambda x: 1 + x, (0, 1), tol=1e-17)
    assert warned[0].filename == __file__
    assert not g.converged
    assert g.error <= 1e-14


def test_what_may_be_spent():
    def f(x, y, z):
        return 1 / (1 + 20 * (x * x + y * y + z * z))

    for limits in ({"budget": 1 << 20}, {"max_evaluations": 40_000}):
        for method in ("grid", "cross"):
            g = chebtucker(f, CUBE, tol=1e-10, method=method, on_fail="nan", **limits)
            assert g.evaluations <= 40_000 or "budget" in limits
            assert g.converged == (_error(g, f) <= 2e-10)
            assert g.error >= _error(g, f) / 3
    for few in (1, 8, 2000, 6000):
        with pytest.raises(ValueError, match=f"max_evaluations: {few} are not enough"):
            chebtucker(f, CUBE, max_evaluations=few)
    for degree in (0, 1, 5):
        g = chebtucker(f, CUBE, max_degree=degree, on_fail="nan")
        assert max(g.degrees) <= degree
        assert 0.4 < _error(g, f) / g.error < 1.2


# --- How f is called ------------------------------------------------------------------------------


def test_evaluations_are_counted_and_the_seed_replays():
    count = 0

    def f(x, y):
        nonlocal count
        assert x.shape == y.shape
        assert x.ndim == 1
        assert x.min() >= 2
        assert y.max() <= 7
        count += x.size
        return np.sin(x * y)

    first = chebtucker(f, [(2, 3), (5, 7)], rng=3)
    assert first.evaluations == count
    assert first.certificate.points >= 256
    again = chebtucker(f, [(2, 3), (5, 7)], rng=3)
    assert again == first
    other = chebtucker(f, [(2, 3), (5, 7)], rng=np.random.default_rng(4))
    assert other.evaluations != 0
    assert np.abs(other(2.5, 6.0) - first(2.5, 6.0)) <= 2e-10


def test_single_numbers():
    kinds = set()

    def f(x, y):
        kinds.add(type(x))
        return math.exp(x) if y > -1 else math.nan

    g = chebtucker(f, [(0, 1), (0, 2)], vectorized=False)
    assert kinds == {float}
    assert g.ranks == (1, 1)
    assert abs(g(0.3, 1.1) - math.exp(0.3)) <= 1e-10
    with pytest.raises(ValueError, match="ambiguous") as caught:
        chebtucker(f, [(0, 1), (0, 2)])
    assert "vectorized=False" in caught.value.__notes__[0]


def test_other_libraries(xp):
    def f(x, y):
        assert type(x) is type(xp.asarray(1.0))
        return xp.exp(x) * xp.sin(3 * y)

    g = chebtucker(f, [(-1, 1)] * 2, tol=1e-11, xp=xp)
    assert isinstance(g.core, np.ndarray)
    assert abs(g(0.2, 0.7) - np.exp(0.2) * np.sin(2.1)) <= 1e-11 * g.scale


def test_dtypes(dtype):
    g = chebtucker(lambda x, y: np.sin(3 * x * y), [(-1, 1)] * 2, dtype=dtype)
    single = dtype in ("float32", "complex64")
    assert g.dtype == dtype
    assert g.factors[0].dtype == ("float32" if single else "float64")
    assert g.converged
    assert _error(g, lambda x, y: np.sin(3 * x * y)) <= (1e-5 if single else 1e-10)


def test_values_in_single_precision_are_not_trusted_further():
    with pytest.warns(ConvergenceWarning, match=r"below 4\.8e-07, the precision"):
        g = chebtucker(lambda x: np.exp(x).astype("float32"), (0, 1), tol=1e-10)
    assert g.error <= 5e-7
    assert g.degrees[0] < 12


@pytest.mark.parametrize(
    ("f", "error", "words"),
    [
        (lambda x, y: np.log(x), NonFiniteError, r"f: returned (nan|-inf) at \(-0\..*, "),
        (lambda x, y: 1 / (x * x + y * y), NonFiniteError, r"inf at \(0\.0, 0\.0\)"),
        (lambda x, y: x / np.abs(x).max() + y, ValueError, "mixes points.*vectorized=False"),
        (lambda x, y: np.sum(x * y), ValueError, "mixes points"),
        (lambda x, y: np.outer(x, y), ValueError, r"shape of its arguments, \(5,\), got \(5, 5\)"),
        (lambda x, y: (x + y)[:1], ValueError, r"got \(1,\)"),
        (lambda x, y: None, TypeError, "real or complex numbers"),
        (lambda x, y: np.array(["a"] * x.size), TypeError, "real or complex numbers"),
    ],
)  # fmt: skip
def test_functions_that_answer_wrongly(f, error, words):
    with np.errstate(all="ignore"), pytest.raises(error, match=words):
        chebtucker(f, [(-1, 1)] * 2)


def test_bad_domains():
    for domain in (
        [(0, 0)], [(1, -1)], [(0, np.inf)], [(np.nan, 1)], [(0, 1, 2)], [], [(0, 1)] * 5, 3, "ab",
        [(0, 1), (0,)], (-1e308, 1e308),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="domain: must"):
            chebtucker(lambda *x: x[0], domain)


def test_bad_options():
    for options, error in (
        ({"tol": 0.0}, ValueError), ({"tol": -1.0}, ValueError), ({"tol": "1"}, TypeError),
        ({"method": "tt"}, ValueError), ({"max_degree": -1}, ValueError),
        ({"max_degree": 2.5}, TypeError), ({"budget": 0}, ValueError),
        ({"on_fail": "ignore"}, ValueError), ({"dtype": "int32"}, ValueError),
        ({"grid": "uniform"}, TypeError), ({"max_evaluations": 0}, ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match=next(iter(options))):
            chebtucker(lambda x: x, (0, 1), **options)


# --- Values in place of a function, and records ---------------------------------------------------


def test_values_may_be_given():
    t = -np.cos(np.pi * np.arange(33) / 32)
    g = chebtucker(np.exp(t[:, None] * t), [(-1, 1)] * 2, tol=1e-12)
    assert isinstance(g, ChebTucker)
    assert abs(g(0.3, -0.6) - np.exp(-0.18)) <= 1e-12 * g.scale
    columns = np.stack([np.exp(t), np.cos(t)], axis=1)
    h = chebtucker(CanonicalTensor(np.array([1.0, 2.0]), [columns, columns]), [(-1, 1)] * 2)
    expected = np.exp(0.3 - 0.6) + 2 * np.cos(0.3) * np.cos(0.6)
    assert abs(h(0.3, -0.6) - expected) <= 1e-9


def test_records():
    (f, domain), options = _chebtucker.sample("small")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g = chebtucker(f, domain, **options)
    told = explain_chebtucker(f, domain, **options)
    assert told.method == g.method == "grid"
    assert told.flops > 0
    assert explain_chebtucker(f, [(0, 1)] * 4).method == "cross"
    assert explain_chebtucker(f, domain, method="cross").reason == "it was asked for"
    assert explain_chebtucker(np.zeros((3, 3)), domain).method == "data"
