"""The tour's chapter on randomized solvers: its references, its data, what it says of errors."""

import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from linalgk.tour import _plots, randomized
from linalgk.tour._covariances import photographs
from linalgk.tour._page import Figure, Options, Page, Table
from linalgk.tour._solutions import Exact
from linalgk.tour._timing import Timed

EPS = float(np.finfo(float).eps)
precise = pytest.mark.skipif(
    bool(np.finfo(np.longdouble).eps > 1e-18), reason="numpy.longdouble has no spare digits here"
)


def table(blocks):
    return next(b for b in blocks if isinstance(b, Table))


@pytest.fixture(scope="module")
def crop():
    return photographs()["brick"][:160, :160]


@pytest.fixture(scope="module")
def works(crop):
    found = randomized._low_rank("photograph", crop, (10, 30), 30)
    found += randomized._solved("polynomial", *randomized._polynomial(crop, step=2))
    return found + randomized._sketched("pixels", *randomized._pixels(crop, step=2))


# --- references ----------------------------------------------------------------------------------


def rational_solution(a, b):
    """Of the normal equations, by elimination without rounding."""
    rows = [[Fraction(int(x)) for x in row] for row in np.column_stack([a.T @ a, a.T @ b])]
    for i, row in enumerate(rows):
        rows[i] = row = [x / row[i] for x in row]
        for j, other in enumerate(rows):
            if j != i:
                rows[j] = [x - other[i] * y for x, y in zip(other, row, strict=True)]
    return np.array([float(row[-1]) for row in rows])


@precise
def test_solution_of_integers_is_right_to_the_last_bits():
    t = np.arange(24)
    a, b = t[:, None] ** np.arange(7), t**3 % 7
    exact = Exact(a.astype(float), b.astype(float))
    want = rational_solution(a.astype(object), b.astype(object))
    assert exact.s[0] / exact.s[-1] > 1e8
    # refined until only the rounding of the result is left, where QR alone has lost digits
    assert exact.forward_error(want) < 2 * EPS
    assert exact.forward_error(np.linalg.lstsq(a, b)[0]) > 20 * EPS
    assert exact.forward_error(2 * want) == pytest.approx(1.0, rel=1e-12)


def least_change(a, b, x):
    """The least backward error, after Walden, Karlson and Sun, relative to the norms of a and b."""
    r, norm = b - a @ x, np.linalg.norm(a)
    theta = norm / np.linalg.norm(b)
    eta = theta * np.linalg.norm(r) / np.sqrt(1 + theta**2 * (x @ x))
    aside = np.eye(len(b)) - np.outer(r, r) / (r @ r)
    return min(eta, np.linalg.svd(np.hstack([a, eta * aside]))[1][len(b) - 1]) / norm


@pytest.mark.parametrize("off", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("columns", [(1, 1, 1, 1), (1, 10, 100, 0.1)])
def test_backward_error_is_the_least_change(off, columns):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((20, 4)) * columns, rng.standard_normal(20)
    exact = Exact(a, b)
    x = exact.x * (1 + off * rng.standard_normal(4))
    quotient = exact.backward_error(x) / least_change(a, b, x)
    # the formula is within a factor of 1.6 of it, and tends to it
    assert 1 / 1.65 < quotient < 1.65
    if off < 1e-4:
        assert quotient == pytest.approx(1.0, abs=1e-3)


@precise
def test_backward_error_of_the_solution_is_rounding(crop):
    exact = Exact(*randomized._polynomial(crop, step=2))
    assert exact.backward_error(exact.x) < EPS
    other = exact.x * (1 + 1e-6 * np.random.default_rng(0).standard_normal(len(exact.x)))
    assert exact.backward_error(other) > 1e-9


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3, 6])
def test_polynomial_has_the_condition_that_the_text_names(step):
    a, b = randomized._polynomial(photographs()["brick"], step=step)
    assert a.shape == (len(b), (randomized.DEGREE + 1) ** 2)
    assert 0.9e12 < np.linalg.cond(np.linalg.qr(a, mode="r")) < 1.2e12


def test_columns_of_the_patients_are_independent():
    pytest.importorskip("sklearn")
    tables = randomized._tables()
    assert (tables.digits.shape, tables.products.shape) == ((1797, 64), (442, 65))
    assert np.linalg.matrix_rank(tables.products) == 65


def test_pixels_are_split_from_their_neighbours(crop):
    others, pixel = randomized._pixels(crop, step=4)
    assert others.shape == (len(pixel), 63)
    assert crop[4, 4] == pixel[0]
    np.testing.assert_array_equal(np.sort([*others[0], pixel[0]]), np.sort(crop[:8, :8].ravel()))


def test_without_scikit_learn_there_are_no_tables(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert randomized._tables() is None


# --- errors --------------------------------------------------------------------------------------


@precise
def test_predictions_hold(works):
    for work in works:
        for predicted, true in work.errors:
            assert 1 / randomized.BAND < true / predicted < randomized.BAND, work.method


def test_low_rank_is_measured_against_what_is_possible(works, crop):
    s = np.linalg.svd(crop, compute_uv=False)
    for work in works:
        if work.measure == randomized.LOW_RANK:
            rank = int(work.method.split()[-1])
            least = np.linalg.norm(s[rank:]) / np.linalg.norm(s)
            # the best of all, or close to it; columns and rows: at most 1 + rank times for squares
            most = {"krylov": 1.02, "rsvd": 1.3, "CUR": 3.0}[work.method.partition(",")[0]]
            assert least * (1 - 1e-12) <= work.true <= most * least
            for peer in work.peers.values():
                assert least * (1 - 1e-12) <= work.judge(peer()) <= 3.0 * least


@precise
def test_rounds_of_least_squares_end_at_rounding(works):
    for work in works:
        if work.measure == randomized.BACKWARD:
            true = [error for _, error in work.errors]
            assert len(true) >= 2
            assert true == sorted(true, reverse=True)
            assert true[-1] < EPS < true[0]
            for peer in work.peers.values():
                assert work.judge(peer()) < 10 * EPS


def test_more_rows_of_a_sketch_err_less(works):
    errors = [work.predicted for work in works if work.data == "pixels"]
    # by a factor of two for four times as many rows
    np.testing.assert_allclose(errors[0] / errors[1], 2.0, rtol=0.25)
    np.testing.assert_allclose(errors[1] / errors[2], 2.0, rtol=0.25)


class Interval:
    """All numbers between two."""

    def __init__(self, low, high):
        self.ends = low, high

    def interval(self, level):
        return self.ends


@pytest.mark.parametrize(("low", "high", "share"), [(-1, 1, 1.0), (1, 2, 0.0)])
def test_coverage_counts_coefficients(works, low, high, share):
    work = next(w for w in works if w.data == "pixels")
    x = work.exact.x
    seeds = []

    def call(rng):
        seeds.append(rng)
        return Interval(x + low * np.abs(x), x + high * np.abs(x))

    assert randomized._coverage(replace(work, call=call), 3) == share
    assert seeds == [0, 1, 2]


# --- what the chapter says -----------------------------------------------------------------------


@precise
def test_one_wrong_prediction_is_told(works):
    total = sum(len(work.errors) for work in works)
    for wrong in (0, 1):
        told = [*works[:-wrong], replace(works[-1], predicted=1e3)] if wrong else works
        page = Page()
        text = randomized._predictions(told, page)[1].text
        assert f"{total - wrong} of the {total} predictions" in text
        assert f"predicted {total} errors" in page.headlines[0][0]
        assert ("0.00 to" in page.headlines[0][1]) == bool(wrong)


def test_plot_has_every_point(works, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(_plots, "svg", lambda figure, prefix: drawn.append(figure) or "<svg/>")
    assert isinstance(randomized._diagonal(works), Figure)
    whole, off = drawn[0].axes
    want = sorted(pair for work in works for pair in work.errors)
    for axes, y in ((whole, [t for _, t in want]), (off, [t / p for p, t in want])):
        # the first line is the diagonal
        points = sorted(tuple(xy) for line in axes.lines[1:] for xy in line.get_xydata())
        np.testing.assert_allclose(points, np.column_stack([[p for p, _ in want], y]))


def test_tables_hold_what_was_measured(works):
    page = Page()
    fits = table(randomized._fits(works, page, seeds=2)).rows
    hard = [work for work in works if work.data == "polynomial"]
    assert [row[1] for row in fits] == [work.method for work in hard]
    for row, work in zip(fits, hard, strict=True):
        assert row[3].value == work.true
        # the coefficients err by less than their bound
        assert row[4].value <= row[5].value


@pytest.mark.parametrize("ours", [1.0, 4.0])
def test_times_are_those_of_the_faster_peer(works, monkeypatch, ours):
    seconds = {"linalgk": ours, "NumPy": 3.0, "SciPy": 2.0}
    monkeypatch.setattr(
        randomized,
        "interleaved",
        lambda calls, **_: {name: Timed(seconds[name], call()) for name, call in calls.items()},
    )
    page = Page()
    found = table(randomized._times(works, Options(), page))
    shown = [work for work in works if work.shown]
    assert [row[1] for row in found.rows] == [work.method for work in shown]
    for row, work in zip(found.rows, shown, strict=True):
        assert (row[2].value, row[3].value) == (work.predicted, work.true)
        assert (row[4].value, row[5], row[7].value) == (ours, "SciPy", 2.0)
        assert row[6].value == pytest.approx(work.judge(work.peers["SciPy"]()), rel=1e-2, abs=EPS)
    assert found.best == {(i, 4 if ours < 2 else 7) for i in range(len(shown))}
    gain = "2.0×" if ours < 2 else "0.5×"
    assert page.headlines[-1][1] == f"{gain} as fast in the middle, {gain} to {gain}"


def test_pictures_are_of_one_rank(works, crop):
    page = Page()
    blocks = randomized._pictures(crop, works, page)
    assert "30 of its columns and 30 of its rows" in blocks[1].text
    assert "from 30 singular vectors" in page.headlines[0][0]
