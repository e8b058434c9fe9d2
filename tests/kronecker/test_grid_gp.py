"""The examples on grids with gaps: story 4, and Gaussian-process regression from `Kron` alone."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "grid_gp.py"), run_name="grid_gp")


@pytest.fixture
def problem():
    """A grid of 14 x 11 points, and parameters that fit nothing in particular."""
    rng = np.random.default_rng(3)
    x, y = np.linspace(0, 1, 14), np.linspace(0, 1, 11)
    z = np.sin(8 * x)[:, None] * np.cos(6 * y) + 0.2 * rng.standard_normal((14, 11))
    theta = np.array([0.2, np.log(0.3), 1.2, np.log(0.4), 0.9, np.log(0.05)])
    return x, y, z, theta, rng.random(z.shape) < 0.7


def dense(example, x, y, values, theta, seen):
    """Negative log-likelihood, and the prediction everywhere, of formed matrices."""
    k1, k2 = (example["kernel"](u, *t)[0] for u, t in ((x, theta[1:3]), (y, theta[3:5])))
    k = np.exp(theta[0]) * np.kron(k1, k2)
    at = seen.reshape(-1)
    a = k[np.ix_(at, at)] + np.exp(theta[5]) * np.eye(at.sum())
    alpha = np.linalg.solve(a, values)
    nll = values @ alpha + np.linalg.slogdet(a)[1] + len(values) * np.log(2 * np.pi)
    return 0.5 * nll, (k[:, at] @ alpha).reshape(seen.shape)


def slopes(function, theta):
    """Central differences; their error is about 1e-5 of functions of this size."""
    h = 1e-5
    return np.array([(function(theta + h * e) - function(theta - h * e)) / (2 * h)
                     for e in np.eye(len(theta))])  # fmt: skip


def test_likelihood_in_closed_form(example, problem):
    x, y, z, theta, _ = problem
    nll, gradient = example["whole"](x, y, z, theta)
    full = np.ones(z.shape, bool)
    assert abs(nll - dense(example, x, y, z.reshape(-1), theta, full)[0]) < 1e-8
    wanted = slopes(lambda t: example["whole"](x, y, z, t)[0], theta)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5 * np.abs(wanted).max())


def test_likelihood_with_gaps(example, problem):
    x, y, z, theta, seen = problem
    r = z[seen]
    nll, error, mean, gradient, told = example["gappy"](x, y, r, seen, theta, n_probes=400)
    wanted, prediction = dense(example, x, y, r, theta, seen)
    assert error == 0
    assert abs(nll - wanted) < 1e-4
    np.testing.assert_allclose(mean, prediction, atol=1e-4)
    exact = slopes(lambda t: dense(example, x, y, r, t, seen)[0], theta)
    # six derivatives within 5 standard errors of 400 vectors: P < 1e-5
    assert (np.abs(gradient - exact) < 5 * told + 1e-3).all()


def test_gradient_by_torch(example, problem):
    pytest.importorskip("torch")
    x, y, z, theta, seen = problem
    r = z[seen]
    found = example["by_torch"](x, y, r, seen, theta)
    exact = slopes(lambda t: dense(example, x, y, r, t, seen)[0], theta)
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


def test_regression_at_reduced_size(example, capsys):
    """Noise of 0.1 on a wave of 4 points; a fifth is missing."""
    names = example["main"](64, steps=8)
    out = capsys.readouterr().out
    assert "64 x 64 points" in out
    assert "error at missing points" in out
    theta = names["theta"]
    assert abs(np.exp(theta[5]) ** 0.5 - 0.1) < 0.01
    np.testing.assert_allclose(np.abs(theta[[2, 4]]), 100 / (2 * np.pi), rtol=0.02)
    # about 20 numbers are learnt from 3277: the noise is averaged down at both kinds of points
    assert max(names["size"].values()) < 0.02


def test_story_4(capsys):
    pytest.importorskip("torch")
    names = runpy.run_path(str(EXAMPLES / "story_04.py"))
    out = capsys.readouterr().out
    assert " of 432 points, Kron([(24, 24), (18, 18)]" in out
    # the same by dense matrices, in the script itself; noise of 0.1
    assert names["ld"].method == "cholesky"
    assert names["ld"].std_error == 0
    assert names["ell"].grad.shape == (2,)
    assert names["gap"].square().mean().sqrt() < 0.08
    assert names["mean"].requires_grad
    assert names["sign"] == 1
