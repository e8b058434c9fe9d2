"""Kronecker products in the comparison on a GPU: with NumPy in the place of CuPy, and emulated."""

import json

import emulated
import numpy as np
import pytest
from faked import FakeCupy
from linalgk_bench import cuda, cuda_kronecker, cuda_problems, run

import linalgk as lk


def tiny():
    """One of every kind in the list."""
    make = cuda_kronecker.product_problem
    return [
        make(5, 8, 2, "float32"), make(4, 3, 3, "float64"), make(1, 2, 6, "float32"),
        make(2, 66, 1, "float64"),
    ]  # fmt: skip


TINY = {problem.name: problem for problem in tiny()}


@pytest.fixture
def device():
    return cuda.Device(FakeCupy())


@pytest.mark.parametrize("problem", TINY.values(), ids=TINY)
def test_judges_tell_right_from_wrong(device, problem):
    a = problem.make(device)
    assert a[0].shape == problem.shape
    assert {x.dtype for x in a} == {np.dtype(problem.dtype)}
    error = problem.judge(device, a)
    y = cuda_problems._linalgk(device, problem, a)()
    assert error(y) <= problem.error_bound
    assert error(y * (1 + 1e-3)) > 5e-4
    for row in range(len(y)):
        worse = y.copy()
        worse[row, 1] += 1  # wherever it stands
        assert error(worse) > 1e-2
        worse[row, -1] = np.nan
        assert np.isnan(error(worse))


@pytest.mark.parametrize("problem", TINY.values(), ids=TINY)
def test_contenders_solve_the_problem(device, problem):
    pytest.importorskip("torch")
    a = problem.make(device)
    error = problem.judge(device, a)
    names = [c.name for c in cuda_kronecker.CONTENDERS if c.accepts(problem)]
    assert len(names) == 3
    for contender in cuda_kronecker.CONTENDERS:
        answer = cuda_problems.as_array(device, contender.prepare(device, problem, a)())
        assert answer.shape == problem.shape
        assert error(answer) <= problem.error_bound, contender.name


@pytest.mark.parametrize("problem", TINY.values(), ids=TINY)
def test_products_on_the_emulated_device(device, problem):
    """The same call, through the launches that a GPU gets, and without a look at the answer."""
    a = problem.make(device)
    with emulated.device() as gpu, lk.config_context(backend="kernel"):
        y = gpu.host(cuda_problems._linalgk(gpu, problem, tuple(map(gpu.array, a)))())
        assert set(gpu.layer.launched) <= {"kron_tiles", "kron_mode"}
        assert gpu.layer.launched
        assert gpu.looks == 0
    assert problem.judge(device, a)(y) <= problem.error_bound


@pytest.mark.gpu
def test_all_take_part_on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_problems, "PROBLEMS", tiny())
    argv = ["--device", "cuda", "--rounds", "1", "--budget", "0.001", "--json", str(tmp_path)]
    assert run.main(argv) == 0
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert [row for row in result["rows"] if "failed" in row] == []
    for row in result["rows"]:
        assert row["error"] is None or row["error"] <= TINY[row["problem"]].error_bound, row
