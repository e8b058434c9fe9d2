"""The page on the Chebyshev-Tucker format says what is stored, and what is stored is what holds.

No time is asserted, and nothing needs the authors' data.
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from linalgk_bench import chebtuck

import linalgk as lk

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def result():
    return json.loads((DOCS / "_generated" / "chebtuck.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def maker():
    return runpy.run_path(str(DOCS / "make_chebtuck.py"), run_name="make_chebtuck")


# --- what is stored ------------------------------------------------------------------------------


def test_newton_ranks_and_errors_are_not_above_the_table(result, maker):
    table = maker["PUBLISHED"]
    assert [r["n"] for r in result["newton"]] == list(table)
    for row in (*result["newton"], *result["newton_published"]):
        terms, long, rank, _, _ = table[row["n"]]
        assert row["terms"] <= terms
        assert row["long"] == long
        for found in (row["asked"], row["equal"]):
            assert found["rank"] <= rank
            assert found["error"] <= found["claimed"] <= found["tol"]
            assert found["converged"]
        assert row["asked"]["tol"] == 1e-7
        assert row["equal"]["tol"] == maker["reached"](row["n"])
    for row in result["newton"]:
        assert row["kernel"] <= 1e-7


def test_published_rows_are_those_of_the_table(result, maker):
    for row in result["newton_published"]:
        terms, _, rank, errors, whole = maker["PUBLISHED"][row["n"]]
        assert (row["terms"], row["fixed_rank"]) == (terms, rank)
        assert row["fixed"] == pytest.approx(errors, rel=0.05)
        assert row["whole"] == pytest.approx(whole, rel=0.04)
        # the mean of 1/r over a cube with a corner at the origin is not its value at the centre
        assert row["kernel"] == pytest.approx(1.1900386819897766 * 0.75**0.5 - 1, rel=0.01)
    ours = {r["n"]: r["sharpest"] for r in result["newton"]}
    assert all(ours[r["n"]] > r["sharpest"] for r in result["newton_published"])


def test_adaptive_degree_catches_what_a_fixed_one_misses(result):
    last = result["newton"][-1]
    assert last["n"] == 4096
    assert last["fixed"][0] > 1e-4
    assert last["asked"]["degree"] > 128
    assert last["asked"]["error"] <= 1e-7
    for row in result["newton"]:
        assert min(row["whole"]) > 1e-4
    for row in result["whole"]:
        assert not row["converged"]
        assert row["error"] > 0.1


def test_molecule_reaches_what_was_asked(result):
    rows = {r["method"]: r for r in result["molecule"]}
    assert all(r["terms"] == 743 for r in rows.values())
    splines = rows["algorithm 4, m = 129, tol 1e-13"]["relative"]
    for name in ("algorithm 4, m = 129", "algorithm 3, m = 129"):
        assert rows[name]["ranks"] == [40, 40, 47]
        # a tighter tolerance does not help: it is the splines
        assert rows[name]["relative"] == pytest.approx(splines, rel=0.01)
        assert splines > 1e-6
    for name, tol in (
        ("linalgk", 1e-7), ("linalgk, tol 1e-5", 1e-5), ("linalgk, tol 1e-3", 1e-3),
        ("linalgk, from all values", 1e-7),
    ):  # fmt: skip
        assert rows[name]["relative"] <= rows[name]["claimed"] <= tol
        assert max(rows[name]["ranks"]) <= 47
        assert rows[name]["converged"]


def test_charges_meet_the_tolerance_at_ranks_that_stay(result, maker):
    for radius in maker["RADII"]:
        rows = [r for r in result["clouds"] if r["radius"] == radius]
        assert [r["charges"] for r in rows] == list(maker["COUNTS"])
        assert all(max(r["error"], r["total"], r["claimed"]) <= 1e-7 for r in rows)
        # errors are relative to a scale, which the Gaussians at zero are part of
        assert all(r["peak"] < 10 for r in rows)
        hundreds = [max(r["ranks"]) for r in rows if r["charges"] >= 100]
        assert max(hundreds) <= 1.2 * min(hundreds)


def test_lattice_reaches_what_was_asked(result):
    for rows in (result["lattice_published"], result["lattice"][:3]):
        fixed, _, ours = rows
        assert fixed["relative"] > 1e-6
        assert ours["relative"] <= ours["claimed"] <= 1e-7
        assert all(a <= b for a, b in zip(ours["ranks"], fixed["ranks"], strict=True))
    free = result["lattice"][-1]
    assert free["charges"] == 24 * 24 * 4 + 23 * 23 * 4
    assert max(free["relative"], free["total"], free["claimed"]) <= 1e-7
    assert free["whole"] <= 50
    assert max(free["ranks"]) <= free["terms"]


def test_functions_reach_what_was_asked(result, maker):
    for name, (_, ks) in chebtuck.SPEEDUP.items():
        for method in ("grid", "cross"):
            own = [r for r in result["speedup"] if (r["function"], r["method"]) == (name, method)]
            assert [r["k"] for r in own] == pytest.approx(ks, rel=1e-5)
            assert all(r["ran"] == method and r["converged"] for r in own)
            assert all(max(r["error"], r["claimed"]) <= maker["SPEEDUP_TOL"] for r in own)
    peaks = {r["method"]: r["evaluations"] for r in result["speedup"] if r["k"] == 128}
    assert peaks["cross"] < 0.1 * peaks["grid"]


def test_tables_come_from_the_stored_numbers(result):
    # in an interpreter of its own, as the build runs it
    command = [sys.executable, str(DOCS / "make_chebtuck.py")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert out.stdout.count(".. list-table::") == 6
    assert result["date"] in out.stdout
    for row in result["newton"]:
        assert f"{row['asked']['error']:.1e}" in out.stdout
    for row in result["speedup"]:
        assert f"{row['evaluations']:,}" in out.stdout


# --- what holds today ----------------------------------------------------------------------------


def test_smallest_row_is_the_one_of_today(result, maker):
    ((row,), _) = maker["newton"](sizes=(256,))
    old = result["newton"][0]
    assert row["kernel"] <= 1e-7
    assert abs(row["terms"] - old["terms"]) <= 1
    assert row["fixed_rank"] == old["fixed_rank"]
    assert row["whole"] == pytest.approx(old["whole"], rel=0.05)
    assert row["fixed"] == pytest.approx(old["fixed"], rel=0.5)
    rank = maker["PUBLISHED"][256][2]
    for found in (row["asked"], row["equal"]):
        assert found["rank"] <= rank
        assert found["error"] <= found["tol"]


def test_whole_kernel_is_not_called_converged(maker):
    (row,) = maker["whole"](64)
    assert not row["converged"]
    assert row["tail"] > 0.1


def test_fixed_degree_is_the_series_of_its_values():
    # both algorithms give the polynomial through the values where data are a cubic
    n, m = 16, 9
    x = chebtuck.cells(n)
    columns = [np.stack([x**3 - x, 1 + x**2, x], axis=1) for _ in range(3)]
    t = lk.CanonicalTensor([1.0, -2.0, 0.5], columns)
    series = chebtuck.interpolated(t, m)
    for full in (False, True):
        f = chebtuck.fixed(series, 1e-7, full=full)
        assert f.ranks == (3, 3, 3)
        assert all(np.allclose(q.T @ q, np.eye(3), atol=1e-12) for q in f.factors)
        (gap,), top = chebtuck.slice_errors([f], t, range(n))
        assert top == pytest.approx(np.abs(t.toarray()).max())
        assert gap <= 1e-12 * top
    least = chebtuck.fixed(chebtuck.part(series, [1]))
    assert least.ranks == (1, 1, 1)
    (gap,), top = chebtuck.slice_errors([least], t, [3])
    assert gap > 0.01 * top


def test_published_archives_are_read(tmp_path, maker):
    t, _ = chebtuck.newton(32)
    np.savez(tmp_path / "one.npz", weights=t.weights, U=t.factors[0], n=32)
    np.savez(tmp_path / "three.npz", weights=t.weights, U1=t.factors[0], U2=t.factors[1],
             U3=t.factors[2])  # fmt: skip
    for name in ("one", "three"):
        found, _ = chebtuck.published(tmp_path / f"{name}.npz")
        assert found.shape == (32, 32, 32)
        assert found[3, 4, 5] == t[3, 4, 5]
    assert maker["newton_published"](tmp_path) == []
    errors = maker["kernel_errors"](t, 32)
    assert errors["away"] <= errors["kernel"] <= 1.01e-7


def test_direct_sums_are_those_of_the_kernel():
    points, charges = chebtuck.cloud(5)
    weights, exponents = lk.gaussian_sum("newton", 0.5, 4.0, 1e-6)
    x = points + np.array([2.0, 0.0, 0.0])
    apart = np.linalg.norm(x[:, None] - points[None], axis=-1)
    assert apart.min() > 0.5
    found = chebtuck.gaussians_at(x, points, charges, weights, exponents)
    assert np.abs(found - (1 / apart) @ charges).max() <= 1e-6 * (1 / apart).sum(axis=1).max()
