"""The tour's chapter on Kronecker products: its process, its checks, what it says of both."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

import linalgk as lk
from linalgk import tour
from linalgk.tour import _grid_gp, _kron_times, _plots, kronecker
from linalgk.tour._covariances import photographs
from linalgk.tour._grid_gp import LINES, SCATTERED, SEEN, Dense, Model
from linalgk.tour._page import Figure, Num, Options, Page, Table, Text
from linalgk.tour._timing import Timed

EPS = float(np.finfo(float).eps)
MODEL = Model("3/2", (3.0, 2.0), 900.0, 150.0, 0.0)
SHAPE = (7, 6)


def tables(blocks):
    return [b for b in blocks if isinstance(b, Table)]


def words(blocks):
    return " ".join(b.text for b in blocks if isinstance(b, Text))


@pytest.fixture(scope="module")
def scene():
    """Every fourth pixel of the photograph's part."""
    whole = kronecker._scene(photographs()["camera"], np.random.default_rng(0), quick=True)
    picture = whole.photograph[::2, ::2]
    rng = np.random.default_rng(1)
    noisy = picture + kronecker.NOISE * rng.standard_normal(picture.shape)
    return kronecker._Scene(picture, noisy, _grid_gp.damage(picture.shape, kronecker.SHARE, rng))


@pytest.fixture(scope="module")
def model(scene):
    return _grid_gp.fit(scene.y).models[0]


@pytest.fixture(scope="module")
def holes():
    return np.random.default_rng(5).random(SHAPE) > 0.3


# --- the picture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 60), (256, 240), (90, 200)])
def test_damage_is_a_share_a_word_and_a_scratch(shape):
    state = _grid_gp.damage(shape, 0.3, np.random.default_rng(0))
    lines = state == LINES
    rest = state[~lines]
    # five standard deviations of the share
    assert abs(np.mean(rest == SCATTERED) - 0.3) < 5 * math.sqrt(0.21 / rest.size)
    assert set(np.unique(state)) == {SEEN, SCATTERED, LINES}
    # the word is there, as large as it may be
    word = np.array([[letter == "#" for letter in row] for row in _grid_gp._WORD])
    scale = min(int(0.35 * shape[0]) // word.shape[0], int(0.85 * shape[1]) // word.shape[1])
    big = np.kron(word, np.ones((scale, scale))) > 0
    rows, columns = np.nonzero(lines[int(0.6 * shape[0]) :])
    assert len(rows) == big.sum()
    assert np.ptp(columns) + 1 == scale * np.ptp(np.nonzero(word)[1]) + scale
    # and above it a scratch from side to side
    scratch = np.nonzero(lines[: int(0.6 * shape[0])])[1]
    assert scratch.min() < 0.15 * shape[1] < 0.85 * shape[1] < scratch.max()


def test_scene_adds_the_noise_that_it_names(scene):
    off = scene.noisy - scene.photograph
    assert abs(off.std() / kronecker.NOISE - 1) < 5 / math.sqrt(2 * off.size)
    assert abs(scene.y.mean()) < 1e-12 * abs(scene.noisy).max()
    assert scene.rms(scene.noisy) == pytest.approx(np.sqrt(np.mean(off**2)))


# --- the process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothness", _grid_gp.SMOOTHNESS)
def test_kernels_are_those_of_matern(smoothness):
    from scipy.special import gamma, kv

    nu, lengths = _grid_gp.SMOOTHNESS[smoothness], (0.7, 5.0)
    found = _grid_gp.matern(9, lengths, smoothness)
    for k, length in zip(found, lengths, strict=True):
        t = math.sqrt(2 * nu) * np.arange(1, 9) / length
        want = 2 ** (1 - nu) / gamma(nu) * t**nu * kv(nu, t)
        np.testing.assert_allclose(k[0], [1.0, *want], rtol=1e-13)
        np.testing.assert_array_equal(k, k.T)
        np.testing.assert_array_equal(k[3, 3:], k[0, :6])


@pytest.mark.parametrize("smoothness", _grid_gp.SMOOTHNESS)
def test_evidence_is_a_density(smoothness):
    from scipy.stats import multivariate_normal

    y = np.random.default_rng(2).standard_normal(SHAPE)
    down, across = (_grid_gp.matern(n, (1.5, 4.0), smoothness) for n in SHAPE)
    pairs = lk.Kron([down[:, None], across[None]], assume_a="pos")
    values, variances = _grid_gp.evidence(y, pairs, 0.3)
    for i, a in enumerate(down):
        for j, b in enumerate(across):
            matrix = np.kron(a, b) + 0.3 * np.eye(y.size)
            densities = [
                multivariate_normal(cov=c * variances[i, j] * matrix).logpdf(y.ravel())
                for c in (0.99, 1.0, 1.01)
            ]
            assert values[i, j] == pytest.approx(densities[1], rel=1e-10)
            assert densities[1] > max(densities[::2])


@pytest.mark.parametrize("smoothness", _grid_gp.SMOOTHNESS)
def test_fit_finds_what_made_the_data(smoothness):
    true = Model(smoothness, (6.0, 12.0), 900.0, 200.0, 0.0)
    rng, shape = np.random.default_rng(3), (72, 64)
    kernel = lk.Kron(list(true.factors(shape)), assume_a="pos")
    y = kernel.cholesky() @ rng.standard_normal(kernel.shape[0])
    y = (y + math.sqrt(true.noise) * rng.standard_normal(y.shape)).reshape(shape)
    found = _grid_gp.fit(y)
    best = found.models[0]
    assert best.smoothness == smoothness
    # the grid of parameters has steps of 2^(1/2)
    assert abs(best.noise / true.noise - 1) < 0.1
    for length, want in zip(best.lengths, true.lengths, strict=True):
        assert 1 / 1.5 < length / want < 1.5
    assert found.likelihoods == 27 * found.eigendecompositions / 6
    # what it says is the density, and no neighbour is better
    ratio = best.noise / best.variance
    for d, a, r in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (0.5, 1, 1), (1, 0.5, 1)):
        near = replace(best, lengths=(d**0.5 * best.lengths[0], a**0.5 * best.lengths[1]))
        pair = [f / s for f, s in zip(near.factors(shape), (best.variance, 1), strict=True)]
        value, _ = _grid_gp.evidence(y, lk.Kron(pair, assume_a="pos"), ratio * r**0.5)
        if (d, a, r) == (1, 1, 1):
            assert value == pytest.approx(best.evidence, rel=1e-12)
        else:
            assert value < best.evidence


def test_dense_matrices_are_the_definition(holes):
    y = np.random.default_rng(4).standard_normal(SHAPE)
    k = np.kron(*MODEL.factors(SHAPE))
    at = holes.ravel()
    part = k[at][:, at] + MODEL.noise * np.eye(at.sum())
    dense = Dense(MODEL, holes)
    np.testing.assert_allclose(dense.logdet, np.linalg.slogdet(part)[1], rtol=1e-13)
    np.testing.assert_allclose(dense.weights(y[holes]), np.linalg.solve(part, y[holes]), rtol=1e-10)
    want = k[:, at] @ np.linalg.solve(part, y[holes])
    np.testing.assert_allclose(dense.mean(y[holes]).ravel(), want, rtol=1e-10)
    told = k[:, at] @ np.linalg.solve(part, k[at])
    np.testing.assert_allclose(dense.variance().ravel(), np.diag(k - told), rtol=1e-10)


def test_variance_by_squared_eigenvectors_is_the_dense_one():
    want = Dense(MODEL, np.ones(SHAPE, bool)).variance()
    np.testing.assert_allclose(_grid_gp.posterior_variance(MODEL, SHAPE), want, rtol=1e-12)


@pytest.mark.stat
def test_deviations_have_the_variance_of_the_law(holes):
    """Fails by chance with probability 42 * 7e-6 (z <= 4.5 for each pixel)."""
    count = 4000
    kernel = lk.Kron(list(MODEL.factors(SHAPE)), assume_a="pos")
    rng = np.random.default_rng(0)
    drawn = _grid_gp.deviations(kernel, MODEL.noise, holes, count, 1e-8, rng)
    assert drawn.shape == (count, *SHAPE)
    z = np.mean(drawn**2, axis=0) / Dense(MODEL, holes).variance() - 1
    assert np.abs(z).max() < 4.5 * math.sqrt(2 / count)


# --- checks --------------------------------------------------------------------------------------


def test_pictures_are_those_of_dense_matrices(model, scene):
    part = kronecker._Scene(
        *(x[20:44, 10:32] for x in (scene.photograph, scene.noisy, scene.state))
    )
    clean, restored = kronecker._denoised(part, model), kronecker._inpainted(part, model)
    every, few = Dense(model, np.ones(part.y.shape, bool)), Dense(model, part.seen)
    np.testing.assert_allclose(clean.picture, part.mean + every.mean(part.y.ravel()), rtol=1e-11)
    np.testing.assert_allclose(clean.predicted, np.sqrt(every.variance().mean()), rtol=1e-11)
    y = part.y[part.seen]
    off = np.linalg.norm(restored.picture - part.mean - few.mean(y))
    # K (K + s)^-1 has a norm below the condition number
    top = model.variance * part.y.size
    assert off < kronecker.TOL * np.linalg.norm(y) * top / model.noise
    assert clean.residual < 100 * EPS
    assert EPS < restored.residual < kronecker.TOL
    assert restored.steps > 0
    exact = -0.5 * (y @ few.weights(y) + few.logdet + len(y) * np.log(2 * np.pi)) / len(y)
    value, low, high = restored.evidence
    assert low <= value <= high
    assert value == pytest.approx(exact, rel=1e-6)


def test_exact_answers_are_exact(model, scene):
    part = kronecker._Scene(*(x[:24, :22] for x in (scene.photograph, scene.noisy, scene.state)))
    rng = np.random.default_rng(0)
    check = kronecker._lines(part, model, rng)
    rng = np.random.default_rng(0)
    rows, columns = (rng.random(n) > kronecker.SHARE / 2 for n in part.y.shape)
    dense = Dense(model, np.outer(rows, columns))
    assert check.points == rows.sum() * columns.sum() < part.y.size
    assert check.exact == pytest.approx(dense.logdet, rel=1e-12)
    assert 0 < check.differences["solution"] < 1e-4


@pytest.mark.stat
def test_estimates_are_right(model, scene):
    """Fixed seeds; another seed fails with a probability of 10 %: two intervals of 95 %."""
    checks = [
        kronecker._lines(scene, model, np.random.default_rng(0)),
        kronecker._crop(scene, model, edge=24),
    ]
    for check in checks:
        assert check.interval[0] < check.estimate < check.interval[1]
        assert check.interval[0] <= check.exact <= check.interval[1]
    off = checks[1].differences
    assert max(off["denoised"], off["variance"]) < 1e-11
    assert 0 < off["restored"] < 1e-4


def test_nearest_pixels_are_seen(scene):
    nearest, far = kronecker._nearest(scene)
    np.testing.assert_array_equal(nearest[scene.seen], scene.noisy[scene.seen])
    at = np.argwhere(scene.seen)
    for i, j in np.argwhere(~scene.seen)[::50]:
        distances = np.hypot(*(at - (i, j)).T)
        assert far[i, j] == pytest.approx(distances.min())
        assert nearest[i, j] in scene.noisy[scene.seen][distances <= distances.min() + 1e-9]


# --- what the chapter says -----------------------------------------------------------------------


def test_chapter_walks_through_its_steps(scene, monkeypatch):
    monkeypatch.setattr(kronecker, "_scene", lambda *_, **__: scene)
    monkeypatch.setattr(_kron_times, "peers", list)
    page = tour._walk(kronecker, Options(quick=True), progress=False)
    assert len(page.headlines) == 5
    numbers = [
        c.value for t in tables(page.blocks) for r in t.rows for c in r if isinstance(c, Num)
    ]
    assert len(numbers) > 40
    assert np.isfinite(numbers).all()
    assert bool(page.left_out) != _plots.available()
    assert sum(isinstance(b, Figure) for b in page.blocks) == 3 * _plots.available()
    said = words(page.blocks)
    assert "Not installed, and not here: linear_operator, pyfastkron." in said
    assert "an extrapolation" in said


def test_chapter_without_matplotlib(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not _plots.available()
    assert kronecker._pictures(scene, None, None, None) == []


@pytest.fixture
def told(scene):
    """A restored picture and drawn errors that are known."""
    rng = np.random.default_rng(7)
    picture = scene.photograph + 3.0 * (1 + scene.state)
    restored = kronecker._Inpainted(picture, 1e-7, 12, (-4.0, -4.1, -3.9), 0.5)
    clean = kronecker._Denoised(None, scene.photograph + 2.0, 2.5, 1e-15, 0.25)
    draws = rng.standard_normal((2, *scene.y.shape))
    return clean, restored, draws


def test_errors_are_those_of_the_pictures(scene, told):
    clean, restored, draws = told
    page = Page()
    (found,) = tables(kronecker._errors(scene, clean, restored, draws, page))
    rows = {row[0]: [cell.value for cell in row[1:]] for row in found.rows}
    assert rows["denoised, from all pixels"][1:] == pytest.approx([2.0] * 4)
    assert rows["denoised, from all pixels"][0] == pytest.approx(20 * np.log10(255 / 2))
    assert rows["restored, from what is left"][2:] == pytest.approx([3.0, 6.0, 9.0])
    places = [scene.state == place for place in (SEEN, SCATTERED, LINES)]
    want = [np.sqrt(np.mean(draws[:, place] ** 2)) for place in places]
    assert rows["restored, predicted"][2:] == pytest.approx(want)
    assert "rms error 2.00, predicted 2.50" in page.headlines[0][1]
    assert f"{np.sum(~scene.seen):,} pixels missing" in page.headlines[1][0]


def test_plot_has_a_point_for_each_distance(scene, told, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(_plots, "svg", lambda figure, prefix: drawn.append(figure) or "<svg/>")
    _, restored, draws = told
    far = kronecker._nearest(scene)[1]
    kronecker._by_distance(scene, restored, draws, far)
    true, predicted = (line.get_xydata() for line in drawn[0].axes[0].lines)
    distances = [d for d in np.unique(far) if np.sum(far == d) >= 30]
    np.testing.assert_allclose(true[:, 0], distances)
    for d, x, y in zip(distances, true[:, 1], predicted[:, 1], strict=True):
        off = restored.picture - scene.photograph
        assert x == pytest.approx(np.sqrt(np.mean(off[far == d] ** 2)))
        assert y == pytest.approx(np.sqrt(np.mean(draws[:, far == d] ** 2)))


@pytest.mark.parametrize(("exact", "answer"), [(10.5, "yes"), (11.5, "no"), (8.5, "no")])
def test_a_wrong_interval_is_told(exact, answer):
    right = kronecker._Check("lines", 7, 10.0, (9.0, 11.0), 10.0, {"solution": 1e-9})
    page = Page()
    (found,) = tables(kronecker._checks([right, replace(right, exact=exact)], page))
    assert [row[-1] for row in found.rows] == ["yes", answer]
    assert page.headlines[0][1] == "10.0 ± 1.0; exactly 10.0"


def test_likelihood_says_which_kernel_was_better(scene):
    models = [replace(MODEL, evidence=-100.0), replace(MODEL, smoothness="1/2", evidence=-130.0)]
    page = Page()
    found = _grid_gp.Fit(models, 54, 12)
    blocks = kronecker._likelihood(scene, found, 1.5, page)
    (table,) = tables(blocks)
    assert [row[-1].value for row in table.rows] == [0.0, -30.0]
    assert f"{MODEL.noise**0.5:.2f}, 20 was added" in page.headlines[0][1]
    assert "54 likelihoods" in words(blocks)
    assert "12 eigendecompositions" in words(blocks)


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [1.0, 8.0])
def test_times_are_those_that_were_taken(scene, model, monkeypatch, ours):
    seconds = {"linalgk": ours, "NumPy": 2.0, "SciPy": 4.0, "SciPy, dense": 3.0}
    monkeypatch.setattr(
        _kron_times,
        "interleaved",
        lambda calls, **_: {name: Timed(seconds[name], call()) for name, call in calls.items()},
    )
    page, options = Page(), Options(quick=True)
    blocks = _kron_times.table(scene.y, scene.seen, model, 1e-6, [], options, page)
    (found,) = tables(blocks)
    assert [row[1] for row in found.rows] == [
        *("linalgk", "NumPy"), *("linalgk", "SciPy, dense"), *("linalgk", "SciPy"),
        *("linalgk", "NumPy"),
    ]  # fmt: skip
    assert [row[2].value for row in found.rows] == [seconds[row[1]] for row in found.rows]
    assert found.best == {(i + (ours > 1), 2) for i in range(0, 8, 2)}
    errors = [row[4].value for row in found.rows]
    assert max(errors[:4] + errors[6:]) < 1e-12
    assert 0 < max(errors[4:6]) < 1e-6
    # 24 x 24 pixels were done
    long = _kron_times._long(3.0 * (scene.y.size / 576) ** 3)
    assert long in words(blocks)
    assert long in page.headlines[0][1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.21 s"), (130.0, "2.17 minutes"), (9000.0, "2.5 hours"), (400000.0, "4.63 days")],
)
def test_long_times_for_people(seconds, text):
    assert _kron_times._long(seconds) == text


def test_peers_that_are_not_there_are_left_out(monkeypatch):
    for module in _kron_times.LIBRARIES.values():
        monkeypatch.setitem(sys.modules, module, None)
    assert _kron_times.peers() == []


@pytest.mark.parametrize("name", _kron_times.LIBRARIES)
def test_peers_compute_the_same(name, scene, model):
    if name not in _kron_times.peers():
        pytest.skip(f"{name} is not installed")
    factors = model.factors(scene.y.shape)
    task = _kron_times._Task(scene.y, scene.seen, model, factors, 1e-6, [name], Options(quick=True))
    row = _kron_times._products(task)
    assert row.errors[name] < 1e-13
    if name == _kron_times.OPERATOR:
        row = _kron_times._likelihood(task)
        assert row.errors[name] < 1e-11
        logdets = [timed.result[1] for timed in row.times.values()]
        np.testing.assert_allclose(logdets, logdets[0], rtol=1e-12)
