"""Sketches in the comparison on a GPU: with NumPy in the place of CuPy, and in the emulation."""

import functools
import json
import types

import emulated
import numpy as np
import pytest
import scipy.linalg
from faked import FakeCupy, tiny_sketches
from linalgk_bench import cuda, cuda_problems, cuda_sketch, run

import linalgk as lk


@pytest.fixture
def device():
    return cuda.Device(FakeCupy())


@pytest.mark.parametrize("problem", tiny_sketches(), ids=lambda p: p.name)
def test_judges_of_sketches_tell_right_from_wrong(device, problem):
    a = problem.make(device)
    error = problem.judge(device, a)
    x = cuda_problems._linalgk(device, problem, a)()
    assert x.dtype == problem.dtype
    assert error(x) <= problem.error_bound
    if problem.function == "sketch.Philox":
        assert error(x // 2 if problem.dtype == "uint32" else x + 0.5) > problem.error_bound
    else:
        assert error(x * 3) > max(problem.error_bound, 0.5)
    if x.dtype.kind == "f":
        bad = x.copy()
        bad[(-1,) * bad.ndim] = np.nan
        assert np.isnan(error(bad))
    if problem.function in ("fwht", "sketch.SparseStack", "sketch.CountSketch"):
        for column in range(x[..., None].shape[1]):
            worse = x.copy()
            worse[..., None][1, column] += 1  # wherever it stands
            assert error(worse) > 1e-3


def test_the_reference_of_the_transform_is_the_matrix(device):
    problem = cuda_sketch.transform_problem((32, 5), "float64")
    a = problem.make(device)
    assert problem.judge(device, a)(scipy.linalg.hadamard(32) @ a) < 1e-14


@pytest.mark.parametrize("problem", tiny_sketches(), ids=lambda p: p.name)
def test_sketches_on_the_emulated_device(device, problem):
    """The same calls, through the launches that a GPU gets: kernels alone, and the host's bits."""
    host = problem.make(device)
    with emulated.device() as gpu:
        gpu.put = gpu.array
        xp, strict = types.SimpleNamespace(__name__="device"), gpu.xp
        xp.asarray = functools.partial(strict.asarray, device=gpu.device)
        gpu.xp = xp
        with lk.config_context(backend="kernel"):
            x = gpu.host(cuda_problems._linalgk(gpu, problem, problem.make(gpu))())
            assert gpu.layer.launched
            looks = gpu.looks
            if problem.looks:
                cuda_problems._linalgk_nan(gpu, problem, problem.make(gpu))()
        assert (looks, gpu.looks - looks) == (problem.looks, 0)
    np.testing.assert_array_equal(x, cuda_problems._linalgk(device, problem, host)())


@pytest.mark.gpu
def test_all_take_part_on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_problems, "PROBLEMS", tiny_sketches())
    argv = ["--device", "cuda", "--rounds", "1", "--budget", "0.001", "--json", str(tmp_path)]
    assert run.main(argv) == 0
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert [row for row in result["rows"] if "failed" in row] == []
    for row in result["rows"]:
        bound = next(p.error_bound for p in tiny_sketches() if p.name == row["problem"])
        assert row["error"] is None or row["error"] <= bound, row
