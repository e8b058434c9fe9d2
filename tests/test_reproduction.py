"""The fast differentiable root has the errors that the page says, and the page says what is stored.

No time is asserted: those of the page are what one machine measured.
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from linalgk_bench import gradients, paper

import linalgk as lk
from linalgk.testing import relative_error, spd_matrix

DOCS = Path(__file__).parents[1] / "docs"
BENCH = [p for p in gradients.PROBLEMS if p.shape != (1, 256, 256)]


@pytest.fixture(scope="module")
def torch():
    library = pytest.importorskip("torch")
    before = library.get_num_threads()
    library.set_num_threads(1)
    yield library
    library.set_num_threads(before)


@pytest.fixture(scope="module")
def result():
    return json.loads((DOCS / "_generated" / "reproduction.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def maker():
    return runpy.run_path(str(DOCS / "make_reproduction.py"), run_name="make_reproduction")


def exact(a):
    w, v = np.linalg.eigh(a)
    return (v * np.sqrt(np.maximum(w, 0))[..., None, :]) @ np.swapaxes(v, -1, -2)


def difference(x, want):
    return float(np.max(relative_error(np.asarray(x), want)))


# --- coefficients --------------------------------------------------------------------------------


def test_pade_coefficients_are_the_published_ones():
    p, q = paper.pade_coefficients(5)
    assert list(map(float, p)) == [1, -2.75, 2.75, -1.203125, 0.21484375, -0.0107421875]
    assert list(map(float, q)) == [1, -2.25, 1.75, -0.546875, 0.05859375, -0.0009765625]


@pytest.mark.parametrize("order", [1, 2, 5, 7])
def test_pade_matches_the_series_to_twice_its_order(order):
    p, q = paper.pade_coefficients(order)
    series = paper.taylor_coefficients(2 * order + 1)
    product = [
        sum(q[i] * series[k - i] for i in range(min(k, order) + 1)) for k in range(2 * order + 2)
    ]
    assert product[: order + 1] == p
    assert product[order + 1 : -1] == [0] * order
    assert product[-1] != 0


def test_taylor_coefficients_multiply_to_what_they_should():
    degree = 12
    root, inverse = paper.taylor_coefficients(degree), paper.taylor_coefficients(degree, True)
    for x, y, want in ((root, root, [1, -1]), (root, inverse, [1]), (inverse, inverse, None)):
        product = [sum(x[i] * y[k - i] for i in range(k + 1)) for k in range(degree + 1)]
        assert product == ([1] * len(product) if want is None else want + [0] * (13 - len(want)))


@pytest.mark.parametrize(
    ("x", "mpa", "mtp"),
    [(0.5, "8e-09", "1e-05"), (0.1, "1.5e-03", "4e-02"), (0.01, "0.25", "0.94"),
     (1e-3, "2.0", "4.6"), (1e-4, "8.1", None)],
)  # fmt: skip
def test_error_by_share_of_the_norm(x, mpa, mtp):
    for method, shown in (("MPA", mpa), ("MTP", mtp)):
        if shown is not None:
            digits = len(shown.partition("e")[0].replace(".", "").lstrip("0"))
            error = float(paper.scalar_error(x, method))
            assert error == pytest.approx(float(shown), rel=0.6 * 10 ** (1 - digits))


# --- root and gradient ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["MPA", "MTP"])
def test_matrices_have_the_error_of_their_eigenvalues(torch, method):
    a = spd_matrix(6, 50.0, batch=(3,))
    w, v = np.linalg.eigh(a)
    share = w / np.linalg.norm(w, axis=-1, keepdims=True)
    x = paper.methods().forward(torch.from_numpy(a), method).numpy()
    found = np.einsum("bji,bjk,bki->bi", v, x, v) / np.sqrt(w) - 1
    np.testing.assert_allclose(found, paper.scalar_error(share, method), rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("method", ["MPA", "MTP"])
def test_zero_is_not_zero(torch, method):
    x = paper.methods().forward(torch.diag(torch.tensor([1.0, 0.0], dtype=float))[None], method)
    least = 1 / 11 if method == "MPA" else float(sum(paper.taylor_coefficients(10)))
    assert float(x[0, 1, 1]) == pytest.approx(least)


@pytest.mark.parametrize("method", ["MPA", "MTP"])
@pytest.mark.parametrize("inverse", [False, True])
def test_converges_where_it_should(torch, method, inverse):
    # near the identity of order 2, and with enough terms and steps, both are exact
    a = torch.from_numpy(spd_matrix(2, 1.5, batch=(5,))).requires_grad_()
    g = torch.from_numpy(gradients.make((5, 2, 2), "float64")["g"])
    size = 12 if method == "MPA" else 80
    x = paper.methods().root(a, method, inverse=inverse, size=size, steps=24)
    by_a = torch.autograd.grad(x, a, g)[0]
    reference = lk.grad.invsqrtm_vjp if inverse else lk.grad.sqrtm_vjp
    value, want, *_ = reference(a.detach().numpy(), g.numpy(), assume_a="pos")
    assert difference(x.detach(), value) < 1e-12
    assert difference(by_a, want) < 1e-12


def test_members_do_not_see_each_other(torch):
    # the published code takes a norm of the whole batch
    a = torch.from_numpy(spd_matrix(5, 4.0, batch=(16,)) * 4.0 ** np.arange(16)[:, None, None])
    g = torch.from_numpy(gradients.make((16, 5, 5), "float64")["g"])
    root = paper.methods().root

    def grad(a, g):
        a = a.clone().requires_grad_()
        return torch.autograd.grad(root(a, "MPA", inverse=True), a, g)[0]

    together = grad(a, g)
    alone = torch.cat([grad(a[k : k + 1], g[k : k + 1]) for k in range(16)])
    assert difference(together, alone.numpy()) < 1e-13


def steps_error(torch, n, kappa, steps):
    arrays = {"a": spd_matrix(n, kappa), "g": gradients.make((n, n), "float64")["g"]}
    x, g = (torch.from_numpy(y)[None] for y in (exact(arrays["a"]), arrays["g"]))
    y = paper.methods().lyapunov(x, g, steps)[0]
    return difference(y, gradients.reference(arrays))


@pytest.mark.parametrize(
    ("kappa", "low", "high"),
    [(1e1, 0, 1e-9), (1e2, 1e-3, 1e-2), (1e3, 0.2, 0.4), (1e4, 0.5, 0.8), (1e6, 0.9, 1.0)],
)
def test_eight_steps_are_too_few(torch, kappa, low, high):
    # the more the larger the order, because the norm is Frobenius'
    assert low <= steps_error(torch, 4, kappa, 8) < high
    assert steps_error(torch, 32, kappa, 8) > low


@pytest.mark.parametrize("n", [4, 32])
def test_twenty_four_steps_are_enough(torch, n):
    assert max(steps_error(torch, n, kappa, 24) for kappa in (1e1, 1e2, 1e3, 1e4, 1e6)) < 1e-13


# --- the bench's problems ------------------------------------------------------------------------


@pytest.mark.parametrize("problem", BENCH, ids=lambda p: p.name)
def test_reference_solves_the_lyapunov_equation(problem):
    arrays = problem.make()
    assert all(arrays[name].shape == problem.shape for name in problem.args)
    assert all(x.dtype == problem.dtype for x in arrays.values())
    x, s = exact(arrays["a"].astype(float)), problem.reference(arrays)
    assert difference(x @ s + s @ x, arrays["g"].astype(float)) < 1e-12


@pytest.mark.parametrize("problem", BENCH, ids=lambda p: p.name)
def test_ours_is_a_hundred_times_more_accurate(torch, problem):
    arrays = problem.make()
    want = problem.reference(arrays)
    ours = problem.error(np.asarray(gradients.linalgk(problem, arrays)()), want)
    assert ours <= problem.error_bound
    for peer in gradients.PEERS:
        if peer.name in (gradients.MPA, gradients.MTP):
            theirs = problem.error(peer.export(peer.prepare(problem, arrays)()), want)
            assert theirs >= 100 * ours


def test_contenders_solve_the_same_problem(torch):
    problem = BENCH[-1]
    arrays = problem.make()
    want = problem.reference(arrays)
    bounds = {gradients.EIGH: 1e-4, gradients.SQRTH: 1e-4, gradients.MPA: 0.3, gradients.MTP: 0.5}
    for peer in gradients.PEERS:
        assert peer.accepts(problem)
        try:
            call = peer.prepare(problem, arrays)
        except gradients.Unavailable:
            continue
        first, second = peer.export(call()), peer.export(call())
        assert not np.shares_memory(first, second)
        assert problem.error(second, want) < bounds[peer.variant_of or peer.name]
    by_svd = gradients.forward_backward(gradients.svd_root, arrays)()
    assert problem.error(np.asarray(by_svd), want) < 1e-4


# --- the page ------------------------------------------------------------------------------------


def test_stored_numbers_are_complete(result, maker):
    shapes = ["x".join(map(str, s)) for s in maker["SHAPES"]]
    assert list(dict.fromkeys(r["shape"] for r in result["times"])) == shapes
    assert {r["d"] for r in result["accuracy"]} == set(maker["DIMENSIONS"])
    assert {(r["n"], r["steps"]) for r in result["steps"]} == {
        (n, k) for n in maker["ORDERS"] for k in maker["STEPS"]
    }
    assert {r["kappa"] for r in result["gradients"]} == set(maker["KAPPAS"])
    assert result["paper"] == maker["PAPER"]


def test_stored_numbers_say_what_the_page_says(result, maker):
    mean = {(r["method"], r["d"]): r["mean"] for r in result["accuracy"]}
    ends = maker["DIMENSIONS"][0], maker["DIMENSIONS"][-1]
    for method in ("MTP", "MPA"):
        for d, read in zip(ends, result["paper"]["errors"][method], strict=True):
            assert mean[method, d] == pytest.approx(read, rel=0.04)
    for d, read in zip(ends, result["paper"]["errors"]["NS"], strict=True):
        assert mean["NS, trace", d] == pytest.approx(read, rel=0.25)
        assert mean["NS", d] < mean["MPA", d]
    for row in result["steps"]:
        if row["steps"] == 24:
            assert row["error"] < 1e-13
    error = {(r["shape"], r["method"]): r["error"] for r in result["times"]}
    for row in result["times"]:
        assert row["ms"] > 0
        assert row["error"] >= error[row["shape"], "linalgk"]
        if row["method"] in ("linalgk", "eigh", "SVD"):
            assert row["error"] < 1e-4
        else:
            assert row["error"] > 0.01


def test_stored_numbers_are_those_of_today(torch, result, maker):
    for rows, key in ((maker["steps_left"](), "steps"), (maker["accuracy"](2), "accuracy")):
        stored = result[key]
        assert len(rows) == len(stored)
        for new, old in zip(rows, stored, strict=True):
            if key == "steps" and old["error"] > 1e-6:
                assert new == {**old, "error": pytest.approx(old["error"], rel=0.02)}
            elif key == "accuracy" and old["method"] != "linalgk":
                # two of the twenty members
                assert new["mean"] == pytest.approx(old["mean"], rel=0.3)


def test_tables_come_from_the_stored_numbers(result):
    # in an interpreter of its own, as the build runs it
    command = [sys.executable, str(DOCS / "make_reproduction.py")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert out.stdout.count(".. list-table::") == 4
    assert result["date"] in out.stdout
    for row in result["times"]:
        assert f"{row['ms']:g} ({row['error']:.0e})" in out.stdout


# --- batch normalisation -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("sklearn")
    return runpy.run_path(str(DOCS / "examples" / "batch_normalisation.py"))


def test_example_centres_and_scales(example):
    eye = np.eye(16)
    for layer, covs in zip(example["layers"], example["plain"], strict=True):
        assert layer.injective
        mean = lk.bures_barycenter(covs)
        assert difference(mean, eye) < 1e-9
        variance = lk.bures_distance(covs, mean, squared=True).mean()
        assert variance == pytest.approx(1, rel=1e-3)  # but for eps
        assert np.array_equal(covs, np.swapaxes(covs, -1, -2))
        assert np.linalg.eigvalsh(covs).min() > 0
    assert example["known"](example["plain"]) > example["known"](example["devices"])
    assert example["known"](example["general"]) > example["known"](example["devices"])


def test_example_has_a_bias_and_a_spread(example):
    bias, covs = spd_matrix(16, 10.0), example["first"]
    layer = example["BatchNorm"](16, spread=0.1, bias=bias)
    out = layer(covs)
    assert layer.injective
    assert difference(lk.bures_barycenter(out), bias) < 1e-9
    assert lk.bures_distance(out, bias, squared=True).mean() == pytest.approx(0.01, rel=1e-3)


def test_example_follows_its_running_values(example):
    covs = example["first"]
    layer = example["BatchNorm"](16, momentum=0.5)
    layer(covs)
    mean = lk.bures_barycenter(covs)
    between = lk.bures_barycenter(np.stack([np.eye(16), mean]), [0.5, 0.5], tol=1e-13)
    assert difference(layer.running_mean, between) < 1e-9
    for _ in range(30):
        layer(covs)
    assert difference(layer.running_mean, mean) < 1e-7
    alone = np.stack([layer(c[None], training=False)[0] for c in covs[:3]])
    assert difference(alone, layer(covs)[:3]) < 1e-7


def test_example_in_the_geometry_of_a_metric(example):
    covs, metric = example["first"], spd_matrix(16, 5.0)
    out = example["BatchNorm"](16, metric=metric)(covs)
    entered = lk.invsqrtm(metric) @ covs @ lk.invsqrtm(metric)
    want = example["BatchNorm"](16)(0.5 * (entered + np.swapaxes(entered, -1, -2)))
    assert difference(out, want) < 1e-9
