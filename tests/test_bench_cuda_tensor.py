"""Chebyshev-Tucker functions in the comparison on a GPU: with NumPy for CuPy, and emulated."""

import emulated
import numpy as np
import pytest
from faked import FakeCupy
from linalgk_bench import cuda, cuda_problems, cuda_tensor

import linalgk as lk

TINY = [cuda_tensor.evaluate_problem(100, 12, 3, dtype) for dtype in ("float32", "float64")]


@pytest.mark.parametrize("problem", TINY, ids=lambda p: p.name)
def test_contenders_solve_the_problem_and_judges_see_errors(problem, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(cuda_tensor, "BLOCK", 64)
    device = cuda.Device(FakeCupy())
    a = problem.make(device)
    error = problem.judge(device, a)
    assert len([c for c in cuda_tensor.CONTENDERS if c.accepts(problem)]) == 2
    calls = [cuda_problems._linalgk(device, problem, a)]
    calls += [c.prepare(device, problem, a) for c in cuda_tensor.CONTENDERS]
    for call in calls:
        y = np.array(cuda_problems.as_array(device, call()))
        assert y.shape == (100,)
        assert error(y) <= problem.error_bound
        y[7] += abs(y).max()
        assert error(y) > 0.5


@pytest.mark.parametrize("problem", TINY, ids=lambda p: p.name)
def test_values_on_the_emulated_device(problem):
    """The same call, through the launch that a GPU gets, and without a look at the answer."""
    device = cuda.Device(FakeCupy())
    a = problem.make(device)
    with emulated.device() as gpu, lk.config_context(backend="kernel"):
        y = gpu.host(cuda_problems._linalgk(gpu, problem, tuple(map(gpu.array, a)))())
        assert set(gpu.layer.launched) == {"tucker_points"}
        assert gpu.looks == 0
    assert problem.judge(device, a)(y) <= problem.error_bound
