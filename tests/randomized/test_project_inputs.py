"""Sketch and project: kinds of input, failures, what would run."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from spectra import conditioned, gaussian, system

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.randomized import _project
from linalgk.randomized._project import choose_method, explain_project

EPS = float(np.finfo(np.float64).eps)
SKETCHES = ["block", "kaczmarz", "gaussian", "sparse"]


# --- Kinds of input -------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", SKETCHES)
def test_other_libraries(xp, sketch):
    a, b, _ = system(30, 8)
    x = lk.sketch_project(xp.asarray(a), xp.asarray(b), sketch=sketch)
    assert type(x) is type(xp.asarray(a))
    assert np.linalg.norm(a @ np.asarray(x) - b) <= 1.5e-8 * np.linalg.norm(b)
    seen = []
    y, info = lk.sketch_project(
        xp.asarray(a), xp.asarray(np.stack([b, b], axis=1)), sketch=sketch, x0=None,
        return_info=True, callback=seen.append,
    )  # fmt: skip
    assert type(info.residual) is type(y) is type(seen[-1].x)
    assert y.shape == seen[-1].x.shape == (8, 2)


def test_a_device(cuda, monkeypatch):
    if cuda.layer is not None:  # CuPy's triangular solver is not emulated
        monkeypatch.setattr("linalgk.randomized._factor._library", lambda r: None)
    a, b, _ = system(60, 12)
    plain = lk.sketch_project(a, b, sketch="block", mix=False)
    for sketch in SKETCHES:
        options = {"sketch": sketch} | ({"mix": False} if sketch == "block" else {})
        x, info = lk.sketch_project(cuda.array(a), cuda.array(b), return_info=True, **options)
        found = cuda.host(x)
        assert np.linalg.norm(a @ found - b) <= 1.5e-8 * np.linalg.norm(b)
        assert type(info.residual) is type(x)
        if sketch == "block":
            assert np.abs(found - plain).max() < 1e-6


def test_gradients_are_refused_and_libraries_kept_apart():
    torch = pytest.importorskip("torch")
    a, b, _ = system(12, 4)
    with pytest.raises(TypeError, match="requires grad"):
        lk.sketch_project(torch.tensor(a, requires_grad=True), torch.tensor(b))
    with pytest.raises(TypeError, match="library"):
        lk.sketch_project(torch.tensor(a), b)
    with pytest.raises(TypeError, match="library"):
        lk.sketch_project(scipy.sparse.csr_array(a), torch.tensor(b))


def test_batches_are_members_alone():
    a = gaussian((2, 3, 20, 6))
    b = np.einsum("...ij,...j->...i", a, gaussian((2, 3, 6), seed=1))
    x, info = lk.sketch_project(a, b, return_info=True)
    assert x.shape == (2, 3, 6)
    assert info.residual.shape == info.iterations.shape == (2, 3)
    for i in np.ndindex(2, 3):
        assert (x[i] == lk.sketch_project(a[i], b[i])).all()
    several = lk.sketch_project(a, np.stack([b, -b], axis=-1), x0=np.zeros((2, 3, 6, 2)))
    assert several.shape == (2, 3, 6, 2)
    assert np.abs(several[..., 0] + several[..., 1]).max() < 1e-12


def test_layouts_integers_and_mixed_dtypes():
    a, b, _ = system(40, 10)
    x = lk.sketch_project(a, b)
    fortran = np.asfortranarray(a)
    fortran.flags.writeable = b.flags.writeable = False
    assert np.abs(lk.sketch_project(fortran, b) - x).max() < 1e-9
    assert np.abs(lk.sketch_project(np.repeat(a, 2, 1)[:, ::2], b[::-1][::-1]) - x).max() < 1e-9
    assert (fortran == a).all()
    whole = np.array([[2, 1], [1, 3]])
    assert np.abs(lk.sketch_project(whole, [3, 4]) - 1).max() < 1e-7
    assert lk.sketch_project(whole, [3, 4]).dtype == np.float64
    single = lk.sketch_project(a.astype("f4"), b, tol=1e-7)
    assert single.dtype == np.float64
    turned = lk.sketch_project(a, b * 1j)
    assert turned.dtype == np.complex128
    assert np.abs(turned - 1j * x).max() < 1e-7
    for form in (scipy.sparse.csr_array(a), scipy.sparse.linalg.aslinearoperator(a)):
        turned = lk.sketch_project(form, b * 1j)
        assert np.abs(turned - 1j * x).max() < 1e-7


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_extreme_entries(scale, sketch):
    a, b, _ = system(30, 8)
    x = lk.sketch_project(a, b, sketch=sketch)
    for one, two in ((scale, 1.0), (1.0, scale), (scale, scale)):
        y, info = lk.sketch_project(a * one, b * two, sketch=sketch, return_info=True)
        assert np.abs(y / (two / one) - x).max() < 1e-6
        assert 0 < info.residual <= 1.5e-8
        start = lk.sketch_project(a * one, b * two, sketch=sketch, x0=y)
        assert np.abs(start / (two / one) - x).max() < 1e-6
    if sketch == "block":
        small = lk.sketch_project(
            np.float32(1e-30) * a.astype("f4"), np.float32(1e-25) * b, tol=1e-5
        )
        assert np.abs(small * 1e-5 - x).max() < 1e-3


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0), (0, 5, 3), (2, 0, 4)])
def test_empty(shape):
    b = np.zeros(shape[:-1], np.float32)
    x, info = lk.sketch_project(np.zeros(shape, np.float32), b, return_info=True)
    assert x.shape == (*shape[:-2], shape[-1])
    assert x.dtype == np.float32
    assert not x.any()
    assert info.residual.shape == shape[:-2]


def test_zeros():
    a, b, _ = system(20, 5)
    x, info = lk.sketch_project(a, 0 * b, return_info=True)
    assert not x.any()
    assert (info.residual, info.error_estimate, info.iterations) == (0, 0, 0)
    x, info = lk.sketch_project(0 * a, 0 * b, return_info=True)
    assert not x.any()
    assert (info.residual, info.error_estimate) == (0, 0)
    with pytest.raises(NotConvergedError, match="inconsistent"):
        lk.sketch_project(0 * a, b)
    with pytest.raises(NotConvergedError, match="inconsistent"):
        lk.sketch_project(np.zeros((3, 0)), np.ones(3))
    # the residual of a start is relative to itself where b is zero
    x = lk.sketch_project(a, 0 * b, x0=np.ones(5))
    assert np.abs(a @ x).max() < 1e-6


def test_the_seed_replays():
    a, b, _ = system(60, 20)
    x, info = lk.sketch_project(a, b, rng=7, return_info=True)
    assert (lk.sketch_project(a, b, rng=info.seed) == x).all()
    assert (lk.sketch_project(a, b, rng=np.random.default_rng(7)) != x).any()
    assert (lk.sketch_project(a, b) == lk.sketch_project(a, b, rng=0)).all()
    for sketch in SKETCHES:
        one, two, three = (lk.sketch_project(a, b, sketch=sketch, rng=i) for i in (1, 1, 2))
        assert (one == two).all()
        assert (one != three).any()


# --- Failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", ["block", "kaczmarz"])
def test_a_system_without_a_solution(sketch):
    a = gaussian((60, 5))
    b = gaussian(60, seed=1)
    with pytest.raises(NotConvergedError, match="inconsistent") as caught:
        lk.sketch_project(a, b, sketch=sketch, return_info=True)
    x, info = caught.value.result
    assert caught.value.index == ((),)
    least = np.linalg.norm(b - a @ np.linalg.lstsq(a, b)[0]) / np.linalg.norm(b)
    assert least <= info.residual < 10
    assert not bool(info.converged)
    assert np.isfinite(x).all()
    with pytest.warns(ConvergenceWarning, match="inconsistent"):
        kept, info = lk.sketch_project(a, b, sketch=sketch, on_fail="warn", return_info=True)
    assert (kept == x).all()
    assert info.residual >= least
    nothing, info = lk.sketch_project(a, b, sketch=sketch, on_fail="nan", return_info=True)
    assert np.isnan(nothing).all()
    assert np.isnan(info.residual)


def test_steps_and_rounding_run_out():
    a, b, _ = system(60, 20)
    with pytest.raises(NotConvergedError, match="larger max_iter"):
        lk.sketch_project(a, b, max_iter=3)
    hard = conditioned(30, 30, 1e4)
    # the residual of rounding, eps ||A|| ||x|| / ||b||, is above the least tol
    b = hard @ np.linalg.svd(hard)[2][-1]
    with pytest.raises(NotConvergedError, match=r"larger tol|no longer falls"):
        lk.sketch_project(hard, b, tol=4 * EPS, block=30)
    with pytest.raises(ValueError, match="tol: must satisfy"):
        lk.sketch_project(a, b[:1].repeat(60), tol=1e-17)


def test_bad_members_do_not_touch_the_others():
    a = gaussian((4, 20, 6))
    b = np.einsum("bij,bj->bi", a, gaussian((4, 6), seed=1))
    clean = lk.sketch_project(a, b)
    a[1, 3, 2] = math.nan
    b[2, 0] = math.inf
    with pytest.raises(NonFiniteError, match=r"members \(1,\), \(2,\)") as caught:
        lk.sketch_project(a, b)
    with pytest.warns(ConvergenceWarning, match="NaN"):
        warned = lk.sketch_project(a, b, on_fail="warn")
    silent, info = lk.sketch_project(a, b, on_fail="nan", return_info=True)
    unchecked = lk.sketch_project(a, b, check_finite=False)
    for x in (caught.value.result, warned, silent, unchecked):
        assert (x[[0, 3]] == clean[[0, 3]]).all()
        assert np.isnan(x[[1, 2]]).all()
    assert info.converged.tolist() == [True, False, False, True]
    start = np.zeros((4, 6))
    start[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"\(0,\)"):
        lk.sketch_project(gaussian((4, 20, 6)), np.zeros((4, 20)), x0=start)
    holes = scipy.sparse.csr_array(a[1])
    with pytest.raises(NonFiniteError):
        lk.sketch_project(holes, np.ones(20))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sketch": "rows"}, ValueError, "sketch: must be one of"),
        ({"block": 0}, ValueError, "block: must be at least 1"),
        ({"block": 21}, ValueError, "at most the 20 rows"),
        ({"block": 2.0}, TypeError, "block: must be an integer"),
        ({"probabilities": "leverage"}, ValueError, "probabilities: must be one of"),
        ({"probabilities": np.ones(3)}, ValueError, r"shape \(20,\)"),
        ({"probabilities": -np.ones(20)}, ValueError, "not negative"),
        ({"probabilities": np.ones(20) * 1j}, TypeError, "real"),
        ({"probabilities": "norm", "sketch": "sparse"}, ValueError, "combines all rows"),
        ({"mix": True, "sketch": "gaussian"}, ValueError, "mixes anyway"),
        ({"momentum": True, "sketch": "kaczmarz"}, ValueError, "momentum: kaczmarz"),
        ({"tol": 0.0}, ValueError, "tol: must satisfy"),
        ({"tol": 1e-3, "accuracy": lambda _: 1e-3}, ValueError, "one of them"),
        ({"accuracy": 0.1}, TypeError, "accuracy: must be callable"),
        ({"callback": 3}, TypeError, "callback: must be callable"),
        ({"max_iter": -1}, ValueError, "max_iter"),
        ({"x0": np.zeros(4)}, ValueError, r"x0: must have shape \(5\)"),
        ({"x0": np.zeros((5, 1))}, ValueError, r"x0: must have shape \(5\)"),
        ({"on_fail": "ignore"}, ValueError, "on_fail"),
    ],
)
def test_bad_options(options, error, text):
    a, b, _ = system(20, 5)
    with pytest.raises(error, match=text):
        lk.sketch_project(a, b, **options)


def test_bad_shapes():
    a, b, _ = system(20, 5)
    with pytest.raises(ValueError, match=r"b: must have shape \(20\) or \(20, c\)"):
        lk.sketch_project(a, b[:-1])
    with pytest.raises(ValueError, match="a: must have shape"):
        lk.sketch_project(b, b)
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        lk.sketch_project(a, np.stack([b, b], 1), x0=np.zeros(5))
    with pytest.raises(ValueError, match="dense"):
        lk.sketch_project(scipy.sparse.csr_array(a), b, mix=True)
    with pytest.raises(TypeError):
        lk.sketch_project("a", b)


# --- What would run -------------------------------------------------------------------------------


def test_the_choice_and_its_reason():
    assert choose_method("block", 1000, 64) == (
        "block",
        "blocks of 64 rows by BLAS; single rows are bound by overhead",
    )
    for sketch in SKETCHES:
        found = explain_project(np.zeros((400, 30)), np.zeros(400), sketch=sketch)
        assert found.method == sketch
        assert found.reason
        assert found.flops > 4 * 400 * 30
    sparse = scipy.sparse.random_array((400, 30), density=0.1, rng=0)
    dense = explain_project(np.zeros((400, 30)), np.zeros(400))
    assert explain_project(sparse, np.zeros(400)).flops < dense.flops


def test_samples_run():
    for size in ("small", "medium"):
        args, options = _project.sample(size, rng=0)
        x = lk.sketch_project(*args, **options, tol=1e-3)
        assert np.linalg.norm(args[0] @ x - args[1]) <= 1e-3 * np.linalg.norm(args[1])


def test_progress(capfd):
    pytest.importorskip("tqdm")
    a, b, _ = system(60, 20)
    lk.sketch_project(a, b, progress=True)
    assert "sketch_project" in capfd.readouterr().err
    lk.sketch_project(a, b)
    assert not capfd.readouterr().err
