"""The tour's chapter on sketching: its laws, its graph, and what it says of both."""

import numpy as np
import pytest

import linalgk as lk
from linalgk.tour import sketch
from linalgk.tour._page import Page, Table
from linalgk.tour._pixel_graph import pixel_graph, superpixels


def tall(m=300, d=6, seed=0):
    """Orthonormal columns, rows of very different lengths."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((m, d)) * np.exp(1.5 * rng.standard_normal((m, 1)))
    return sketch._dense("random", a)


@pytest.fixture(scope="module")
def image():
    """Two halves, the right one brighter, and a little noise."""
    noise = np.random.default_rng(0).standard_normal((24, 32))
    return 60.0 * (np.arange(32) >= 15) + noise


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.stat
@pytest.mark.parametrize(
    "make",
    [
        lambda seed: lk.sketch.SparseStack(40, 300, rng=seed),
        lambda seed: lk.sketch.CountSketch(40, 300, rng=seed),
        lambda seed: lk.sketch.Gaussian(40, 300, rng=seed),
        lambda seed: lk.sketch.SRHT(40, 300, rng=seed),
        lambda seed: lk.sketch.SRHT(40, 300, block=64, rng=seed),
    ],
    ids=["stack", "count", "gaussian", "srht", "blocks"],
)
def test_law_is_the_mean(make):
    """Fails by chance with probability 1e-5 for each (z <= 4.5)."""
    data = tall()
    off = [sketch._spectrum(make(seed) @ data.a, data)[2] for seed in range(1200)]
    z = (np.mean(off) - sketch._law(make(0), data)) / (np.std(off) / len(off) ** 0.5)
    assert abs(z) <= 4.5


def test_all_rows_of_a_transform_distort_nothing():
    data = tall(64, 5)
    s = lk.sketch.SRHT(64, 64, rng=3)
    low, high, off = sketch._spectrum(s @ data.a, data)
    assert abs(sketch._law(s, data)) < 1e-14
    assert max(high - 1, 1 - low, off) < 1e-13


@pytest.mark.parametrize("family", sketch.FAMILIES)
def test_products_are_those_of_the_sketches(family):
    data = tall(500)
    for s, product in sketch._products(family, [16, 40, 64], data.a, 5):
        np.testing.assert_allclose(product, s @ data.a, rtol=0, atol=1e-14)


def test_columns_that_are_zero_have_no_part():
    a = np.random.default_rng(1).standard_normal((200, 5))
    a[:, [1, 3]] = 0
    data = sketch._dense("random", a)
    assert (data.d, data.a.shape) == (3, (200, 3))
    np.testing.assert_allclose(data.a.T @ data.a, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(data.square, ((data.a**2).sum(axis=1) ** 2).sum())


def test_text_names_heavy_rows():
    a = np.random.default_rng(1).standard_normal((200, 3))
    assert sketch._coherence([sketch._dense("noise", a)]) == ""
    a[7] *= 1e4
    assert "1 rows of the spike" in sketch._coherence([sketch._dense("spike", a)])


# --- graph ---------------------------------------------------------------------------------------


def test_superpixels_of_a_flat_image_are_squares():
    labels = superpixels(np.zeros((24, 32)), edge=8)
    np.testing.assert_array_equal(labels, np.arange(12).reshape(3, 4).repeat(8, 0).repeat(8, 1))


def test_superpixels_keep_to_one_side_of_an_edge(image):
    labels = superpixels(image, edge=8)
    assert not set(labels[:, :15].ravel()) & set(labels[:, 15:].ravel())
    assert set(labels.ravel()) == set(range(labels.max() + 1))


def test_superpixels_where_the_edge_does_not_divide():
    labels = superpixels(np.zeros((10, 9)), edge=4)
    assert labels.shape == (10, 9)
    assert labels.max() == 8


def test_graph(image):
    graph = pixel_graph(image, edge=8)
    b = graph.incidence.toarray()
    assert len(b) == 24 * 31 + 23 * 32
    np.testing.assert_allclose(b.sum(axis=1), 0, atol=1e-15)
    u = b @ graph.basis
    np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-10)
    scores = lk.leverage_scores(b[:, 1:])
    np.testing.assert_allclose(graph.square, scores @ scores, rtol=1e-9)
    assert abs(graph.values[0]) < 1e-13


def test_second_eigenvector_cuts_at_the_edge(image):
    graph = pixel_graph(image, edge=8)
    picture = np.sign(graph.picture(graph.vectors[:, 1]))
    assert picture.shape == image.shape
    assert abs(picture[:, :15].sum() - picture[:, 15:].sum()) == image.size


# --- what the chapter says -----------------------------------------------------------------------


class Wrong:
    """A sum with one bit too many."""

    def __init__(self, s, a, part=None):
        self.sum = s @ a
        self.sum[0, 0] = np.nextafter(self.sum[0, 0], np.inf)

    def __iadd__(self, other):
        return self

    def result(self):
        return self.sum


def test_one_wrong_bit_is_called_different(image, monkeypatch):
    graph = pixel_graph(image, edge=8)
    every = np.random.default_rng(0).standard_normal((600, 4))
    for wrong, words in ((False, {"identical"}), (True, {"identical", "different"})):
        if wrong:
            monkeypatch.setattr(sketch, "_shuffled", Wrong)
        rows = next(b for b in sketch._bits(every, graph) if isinstance(b, Table)).rows
        assert {row[2] for row in rows} == words
        assert [row[2] for row in rows[2:]] == ["different" if wrong else "identical"] * 3


def test_residuals_obey_their_bound():
    a = np.random.default_rng(2).standard_normal((4000, sketch.EDGE**2))
    data = sketch._dense("random", a)
    blocks = sketch._least_squares(a, data, 2)
    for row in next(b for b in blocks if isinstance(b, Table)).rows:
        _, square, _, worst, bound = (cell.value for cell in row)
        assert 1 <= square <= worst + 1e-12 <= bound + 1e-12


def test_eigenvalues_obey_their_bounds(image):
    graph = pixel_graph(image, edge=8)
    blocks = sketch._segments(image, graph)
    low, high = next(b for b in blocks if isinstance(b, Table)).rows
    assert low[1].value <= low[2].value + 1e-9
    assert high[2].value <= high[1].value + 1e-9


def test_headline_holds_what_was_measured():
    data = tall(2000, 8)
    points = sketch._measure(data, ("SparseStack", "Gaussian"), (4, 8), 3)
    page = Page()
    blocks = sketch._distortions([data], [points], page)
    rows = next(b for b in blocks if isinstance(b, Table)).rows
    assert [row[1] for row in rows] == ["SparseStack", "Gaussian"]
    assert f"{rows[0][5]} to {rows[0][5]}" in page.headlines[0][1]
    q = np.linalg.qr(data.a)[0]
    etas = []
    for seed in range(3):
        values = np.linalg.svd(lk.sketch.SparseStack(64, 2000, rng=seed) @ q, compute_uv=False)
        etas.append(max(values[0] - 1, 1 - values[-1]))
    assert rows[0][5].value == pytest.approx(np.mean(etas), rel=1e-10)
