"""Randomized solvers in the comparison on a GPU: with NumPy in the place of CuPy, and emulated."""

import json
import sys
import types

import emulated
import numpy as np
import pytest
from faked import FakeCupy, fake_cupyx, tiny_randomized
from linalgk_bench import cuda, cuda_problems, cuda_randomized, run

TINY = {problem.name: problem for problem in tiny_randomized()}


@pytest.fixture
def device(monkeypatch):
    for name, module in fake_cupyx().items():
        monkeypatch.setitem(sys.modules, name, module)
    return cuda.Device(FakeCupy())


@pytest.mark.parametrize("problem", TINY.values(), ids=TINY)
def test_judges_tell_right_from_wrong(device, problem):
    a = problem.make(device)
    error = problem.judge(device, a)
    x = cuda_problems._linalgk(device, problem, a)()
    assert isinstance(x, np.ndarray)
    assert x.dtype == problem.dtype
    assert error(x) <= problem.error_bound
    # of QR factors the last row is the order of the columns
    last = len(x) - 1 if problem.function in ("cholqr", "qr_pivoted") else len(x)
    worse = x.copy()
    worse[:last] *= 1.2
    assert error(worse) > 5 * problem.error_bound
    for end in (0, last - 1):
        bad = x.copy()
        bad[end] = np.nan
        assert not error(bad) <= problem.error_bound


@pytest.mark.parametrize("problem", TINY.values(), ids=TINY)
def test_contenders_solve_the_problem(device, problem):
    pytest.importorskip("torch")
    a = problem.make(device)
    error = problem.judge(device, a)
    asked = [c for c in cuda_randomized.CONTENDERS if c.accepts(problem)]
    assert len(asked) >= (1 if problem.dtype == "float64" else 2)
    for contender in asked:
        call = contender.prepare(device, problem, a)
        answer = call()
        if not contender.yardstick:
            assert error(cuda_problems.as_array(device, answer)) <= problem.error_bound, contender


@pytest.mark.parametrize("problem", TINY.values(), ids=TINY)
def test_solvers_on_the_emulated_device(device, problem):
    """The same calls; the error is judged on the host."""
    host = problem.make(device)
    error = problem.judge(device, host)
    with emulated.device() as gpu:
        gpu.put = gpu.array
        strict = gpu.xp
        gpu.xp = types.SimpleNamespace(
            concatenate=strict.concat, reshape=strict.reshape, asarray=strict.asarray,
            arange=lambda n: strict.arange(n, device=gpu.device),
        )  # fmt: skip
        if problem.function == "estimate_logdet":
            there = gpu.csr(host)
        else:
            there = tuple(map(gpu.array, host)) if isinstance(host, tuple) else gpu.array(host)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(gpu.array(np.zeros(1))), "astype", _astype, raising=False)
            x = gpu.host(problem.solve(gpu, there)())
    assert error(x) <= problem.error_bound


def _astype(x, dtype):
    return x.__array_namespace__().astype(x, dtype)


@pytest.mark.gpu
def test_all_take_part_on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_problems, "PROBLEMS", tiny_randomized())
    argv = ["--device", "cuda", "--rounds", "1", "--budget", "0.001", "--json", str(tmp_path)]
    assert run.main(argv) == 0
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert [row for row in result["rows"] if "failed" in row] == []
    for row in result["rows"]:
        assert row["error"] is None or row["error"] <= TINY[row["problem"]].error_bound, row
