"""The comparison on a GPU, with NumPy and the wall clock in the place of CuPy and its events."""

import dataclasses
import functools
import json
import operator
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from faked import FakeCupy, fake_cupyx, tiny_randomized, tiny_roots, tiny_sketches
from linalgk_bench import (
    cuda,
    cuda_kronecker,
    cuda_parts,
    cuda_problems,
    cuda_randomized,
    cuda_sketch,
    cuda_tensor,
    report,
    run,
)
from linalgk_bench.cuda_parts import Contender
from linalgk_bench.cuda_problems import CUPY_EIGH, TORCH_EIGH
from linalgk_bench.peers import LINALGK
from linalgk_bench.problems import Target

import linalgk as lk
from linalgk import cli, testing

TINY = ["--rounds", "2", "--budget", "0.001"]
NAN = "linalgk (on_fail='nan')"


# --- what is run ---------------------------------------------------------------------------------


@pytest.fixture
def device():
    return cuda.Device(FakeCupy())


def rivals(problem):
    """Who else has to be there."""
    if problem.power:
        return {NAN, CUPY_EIGH, f"{CUPY_EIGH} alone", TORCH_EIGH}
    if problem.solve is None and problem.function != "fwht":
        return {NAN, "scipy on the CPU"}
    solvers = cuda_randomized
    if problem.function == "pinv":
        torch_pinv = solvers.TORCH_PINV if len(problem.shape) == 2 else solvers.TORCH_HERMITIAN
        return {solvers.CUPY_PINV, torch_pinv}
    if problem.function == "svd_lowrank":
        more = {solvers.CUPY_SVD} if problem.dtype == "float32" else set()
        return {solvers.TORCH_SVD} | more
    csr = {NAN, cuda_sketch.CSR, cuda_sketch.CSR_F}
    triangles = {solvers.CUPY_QR, solvers.TORCH_QR}
    numbers = {"words": {cuda_sketch.GENERATOR}}
    numbers["normals"] = numbers["words"] | {cuda_sketch.CURAND, cuda_sketch.TORCH_RANDN}
    return {
        "kron_matmul": {
            cuda_kronecker.MODES,
            cuda_kronecker.SHUFFLE,
            cuda_kronecker.TORCH_MODES,
        },
        "ChebTucker": {cuda_tensor.GEMM, cuda_tensor.TORCH_GEMM},
        "fwht": {cuda_sketch.RADIX, cuda_sketch.GEMM, cuda_sketch.DCT, cuda_sketch.HOST_DCT},
        "sketch.SparseStack": csr,
        "sketch.CountSketch": csr | {cuda_sketch.SCATTER, cuda_sketch.ATOMICS},
        "sketch.SRHT": {NAN, cuda_sketch.DCT_SKETCH},
        "sketch.Philox": numbers.get(problem.options.get("kind")),
        "lstsq": {solvers.CUPY_LSTSQ, solvers.TORCH_LSTSQ},
        "cholqr": triangles,
        "qr_pivoted": triangles | {solvers.HOST_PIVOTED},
        "estimate_logdet": {solvers.CUPY_SLOGDET, solvers.TORCH_SLOGDET},
    }[problem.function]


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(cuda, "_import_cupy", FakeCupy)
    monkeypatch.setattr(
        cuda_problems, "PROBLEMS", tiny_roots() + tiny_sketches() + tiny_randomized()
    )
    for name, module in fake_cupyx().items():
        monkeypatch.setitem(sys.modules, name, module)


def check_rst(page):
    core = pytest.importorskip("docutils.core")
    core.publish_string(page, settings_overrides={"halt_level": 2, "report_level": 5})


# --- the lists -----------------------------------------------------------------------------------


def test_lists_are_sane():
    problems, contenders = cuda_problems.PROBLEMS, cuda_problems.CONTENDERS
    assert len({p.name for p in problems}) == len(problems)
    by_name = {c.name: c for c in contenders}
    assert len(by_name) == len(contenders)
    tiers = [p.tier for p in problems]
    assert tiers == sorted(tiers, reverse=True)  # targets first
    for problem in problems:
        assert callable(operator.attrgetter(problem.function)(lk))
        assert all(part.isascii() and "/" not in part for part in problem.name.split("-"))
        assert by_name[LINALGK].accepts(problem)
        assert {c.name for c in contenders if c.accepts(problem)} == {LINALGK} | rivals(problem)
        assert problem.flops > 0 or problem.function == "sketch.Philox"
        written = problem.options.get("k", 0) * problem.shape[-1] or np.prod(problem.shape)
        read = 0 if problem.function == "sketch.Philox" else np.prod(problem.shape)
        least = (read + written) * np.dtype(problem.dtype).itemsize
        if problem in (*cuda_randomized.PROBLEMS, *cuda_tensor.PROBLEMS):
            assert problem.nbytes > 0
        else:
            assert problem.nbytes == least
        assert all(by_name[target.against].accepts(problem) for target in problem.targets)
        assert problem.tier == "target" or not problem.targets
    promised = {p.name: [t.bound for t in p.targets] for p in problems if p.tier == "target"}
    assert promised == {
        **{f"invsqrtm-8192x{n}x{n}-float32-log-k1e3": [3] for n in (8, 16, 32)},
        "invsqrtm-500x100x100-float32-log-k1e3": [1.5],
        "sqrtm-2048x2048-float32-log-k1e3-tol1e-5": [2],
        "sqrtm-1024x1024-float64-general": [],
    }
    bounds = {p.name: p.error_bound for p in problems}
    assert bounds["sqrtm-2048x2048-float32-log-k1e3-tol1e-5"] == 1e-5
    assert bounds["sqrtm-1024x1024-float64-general"] == 1e-10


def test_matrices_have_the_spectrum_of_their_name(device):
    a = cuda_problems.spd_matrices(device, (3, 7, 7), "float64", 1e3)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(a), np.tile(np.geomspace(1e-3, 1, 7), (3, 1)), rtol=1e-11
    )
    assert (a == np.swapaxes(a, -1, -2)).all()
    assert not np.allclose(a[0], a[1])
    assert (a == cuda_problems.spd_matrices(device, (3, 7, 7), "float64", 1e3)).all()


def test_the_host_decomposes_where_the_device_cannot(device, monkeypatch):
    expected = cuda_problems.spd_matrices(device, (2, 4, 4), "float32", 10.0)

    def missing(_):
        raise ImportError("libcusolver.so.12 not found")

    monkeypatch.setattr(device.xp, "linalg", types.SimpleNamespace(qr=missing), raising=False)
    assert (cuda_problems.spd_matrices(device, (2, 4, 4), "float32", 10.0) == expected).all()


@pytest.mark.parametrize("problem", tiny_roots(), ids=lambda p: p.name)
def test_judges_tell_right_from_wrong(device, problem):
    a = problem.make(device)
    assert a.shape == problem.shape
    assert a.dtype == problem.dtype
    error = problem.judge(device, a)
    x = getattr(lk, problem.function)(a, *problem.args, **problem.options)
    assert error(x) <= (problem.error_bound or 1e-12)
    assert error(x * (1 + 1e-3)) > 2e-4
    bad = x.copy()
    bad[(-1,) * bad.ndim] = np.nan
    assert np.isnan(error(bad))
    worse = x.copy()
    worse[..., -1, 0] *= 1.5
    assert error(worse) > 1e-3


def test_errors_are_those_of_the_oracles(device):
    single, double = (
        cuda_problems.root_problem("invsqrtm", (20, 6, 6), dtype)
        for dtype in ("float32", "float64")
    )
    a = single.make(device)
    x = lk.invsqrtm(a)
    expected = np.max(testing.relative_error(x, testing.reference_invsqrtm(a)))
    assert single.judge(device, a)(x) == pytest.approx(expected, rel=1e-6)
    a = double.make(device)
    x = testing.reference_invsqrtm(a)
    assert double.judge(device, a)(x) == 0
    for member in (0, -1):  # both ends are among the members that are looked at
        wrong = x.copy()
        wrong[member] *= 2
        assert double.judge(device, a)(wrong) == pytest.approx(1)


def test_an_involution_is_not_yet_the_sign(device):
    problem = cuda_problems.general_problem("signm", 9, cuda_problems._sign_residual)
    a = problem.make(device)
    assert abs(np.trace(lk.signm(a))) < 8  # there are eigenvalues on both sides
    assert problem.judge(device, a)(np.eye(9)) > 0.1


# --- the device ----------------------------------------------------------------------------------


def test_the_flush_exceeds_the_cache_and_stands_before_every_sample(device, monkeypatch):
    assert device._buffer.nbytes >= 2 * device.describe()["l2_bytes"]
    happened = []
    flush = device.flush
    monkeypatch.setattr(device, "flush", lambda: (happened.append("flush"), flush()))
    cuda._samples(device, lambda: happened.append("call"), 0.002, flush=True)
    assert happened[:4] == ["flush", "call", "flush", "call"]
    before = device._buffer[0]
    device.flush()
    assert (device._buffer == before + 1).all()


def test_seconds_are_per_call(device):
    ticks = iter((1.0, 3.0))
    device.xp.cuda.Event = lambda: types.SimpleNamespace(
        record=lambda _: None, synchronize=lambda: None, time=next(ticks)
    )
    calls = []
    assert device.seconds(lambda: calls.append(1), 4) == pytest.approx(0.5)
    assert len(calls) == 4


def test_the_device_is_described(device, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    about = device.describe()
    assert about["name"] == "Test Device (1)"
    assert about["compute_capability"] == "9.0"
    assert about["driver"] == ""
    assert (about["cuda_driver"], about["cuda_runtime"]) == ("13.2", "12.9")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 580.1\necho 580.1\n")
    smi.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(smi))
    assert device.describe()["driver"] == "580.1"
    smi.write_text("#!/bin/sh\necho no devices\nexit 9\n")
    assert device.describe()["driver"] == ""
    smi.unlink()
    assert device.describe()["driver"] == ""


def test_cupy_has_what_is_asked_of_it():
    cupy = pytest.importorskip("cupy")
    names = """cuda.Event cuda.Stream.null cuda.get_elapsed_time cuda.runtime.getDevice
        cuda.runtime.getDeviceCount cuda.runtime.getDeviceProperties cuda.runtime.driverGetVersion
        cuda.runtime.runtimeGetVersion cuda.runtime.deviceSynchronize asnumpy asarray copyto
        get_default_memory_pool from_dlpack linalg.eigh linalg.qr matmul swapaxes zeros empty_like
        sqrt sum max trace eye ndarray reshape stack asfortranarray ElementwiseKernel
        random.default_rng random.RandomState random.Generator.integers
        random.Generator.standard_normal"""
    for name in names.split():
        assert functools.reduce(getattr, name.split("."), cupy) is not None
    import cupyx.scipy.fft
    import cupyx.scipy.sparse

    assert callable(cupyx.scatter_add)
    assert callable(cupyx.scipy.fft.dct)
    assert callable(cupyx.scipy.sparse.csr_matrix)


@pytest.mark.parametrize("cause", ["no CuPy", "no driver", "no device"])
def test_without_a_gpu_there_is_a_sentence(monkeypatch, capsys, cause):
    def no_cupy():
        raise ImportError("No module named 'cupy'")

    def no_driver():
        found = FakeCupy()
        found.cuda.runtime.getDeviceCount = lambda: 1 / 0
        return found

    causes = {"no CuPy": no_cupy, "no driver": no_driver, "no device": lambda: FakeCupy(0)}
    monkeypatch.setattr(cuda, "_import_cupy", causes[cause])
    assert cli.main(["bench", "--device", "cuda", "--json", "/nowhere/at/all"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("linalgk: --device cuda needs ")
    assert "--device cpu" in printed.err
    assert len(printed.err.splitlines()) == 1
    hint = {"no CuPy": "linalgk[cuda13]", "no driver": "driver", "no device": "CUDA_VISIBLE"}
    assert hint[cause] in printed.err


# --- turns ---------------------------------------------------------------------------------------


def contender(name, call, **rest):
    return Contender(name, lambda _: True, lambda *_: call, **rest)


def contest(device, contenders, *, rounds=2, clock=None):
    problem = tiny_roots()[0]
    return cuda.run_contest(
        device, problem, contenders, rounds, 1e-4, clock or cuda.Clock(1e3)
    )  # fmt: skip


def answer():
    problem = tiny_roots()[0]
    return lk.invsqrtm(problem.make(cuda.Device(FakeCupy())))


def test_contenders_take_turns(device):
    x, order = answer(), []
    first = contender("first", lambda: (order.append("first"), x)[1])
    second = contender("second", lambda: (order.append("second"), x)[1])
    rows = contest(device, [first, second], rounds=3)
    changes = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert changes == ["first", "second"] * 4  # the first call, then three turns
    for row in rows:
        assert len(row["turns"]) == 3
        assert row["count"] >= 3
        assert 0 < row["min"] <= row["hot"]
        assert row["flushed"] > 0
        assert row["queued"] > 0
        assert "samples" not in row


def test_failures_are_rows(device):
    def breaks():
        raise RuntimeError("out of\n  luck")

    counter = iter(range(100))
    late = contender("late", lambda: answer() if next(counter) < 2 else breaks())
    rows = contest(
        device,
        [
            contender("at once", breaks),
            contender("wrong", lambda: answer() * np.nan),
            late,
            contender("well", answer),
            Contender("unprepared", lambda _: True, lambda *_: breaks()),
        ],
    )
    failed = {row["contender"]: row.get("failed") for row in rows}
    assert failed == {
        "at once": "RuntimeError: out of luck",
        "wrong": "the answer is not finite",
        "late": "RuntimeError: out of luck",
        "well": None,
        "unprepared": "RuntimeError: out of luck",
    }
    assert all(("hot" in row) is (row["contender"] == "well") for row in rows)


def test_a_slow_contender_is_timed_once(device, monkeypatch):
    monkeypatch.setattr(cuda, "SLOW", 0.0)
    calls = []
    (row,) = contest(device, [contender("slow", lambda: (calls.append(1), answer())[1])])
    assert len(calls) == 2
    assert row["count"] == 1
    assert row["hot"] > 0
    assert row["flushed"] is row["queued"] is None
    assert np.isfinite(row["error"])


def test_a_yardstick_of_the_host_is_timed_once(device):
    calls = []
    host = contender("host", lambda: calls.append(1), yardstick=True, on_host=True)
    (row,) = contest(device, [host])
    assert len(calls) == row["count"] == 1
    assert row["error"] is row["flushed"] is None


def test_when_the_time_is_out_the_rest_is_skipped(device):
    class Ending:
        reason = "no time"

        def __init__(self, looks):
            self.looks = looks

        @property
        def over(self):
            self.looks -= 1
            return self.looks < 0

    pair = [contender("first", answer), contender("second", answer)]
    skipped = {}
    for looks in range(6):
        rows = contest(device, pair, clock=Ending(looks))
        skipped[looks] = [row["contender"] for row in rows if "skipped" in row]
    # two looks before the first calls, two in either turn; one turn is enough
    assert skipped == {
        0: ["first", "second"], 1: ["first", "second"], 2: ["first", "second"],
        3: ["second"], 4: [], 5: [],
    }  # fmt: skip
    assert len(rows[0]["turns"]) == 2
    assert len(rows[1]["turns"]) == 1


# --- the command ---------------------------------------------------------------------------------


def test_the_whole_command(fake, monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch")
    broken = Contender("broken", lambda p: p.name.startswith("sqrtm-8"), lambda *_: 1 / 0)
    absent = contender("absent", answer, missing=lambda: "absent is not installed")
    unwell = contender("unwell", answer, missing=lambda: 1 / 0)
    # PyTorch's take part on the CPU
    usual = [dataclasses.replace(c, missing=lambda: "") for c in cuda_problems.CONTENDERS]
    monkeypatch.setattr(cuda_problems, "CONTENDERS", [*usual, broken, absent, unwell])
    assert cli.main(["bench", "--device", "cuda", "--json", str(tmp_path / "new"), *TINY]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "new" / "test-device-1.json"
    assert f"wrote {path}" in printed
    result = json.loads(path.read_text())
    assert result["kind"] == cuda.KIND
    assert result["versions"]["cupy"] == "0.1"
    assert {"linalgk", "numpy"} <= set(result["versions"])
    assert "node" not in result["machine_info"]
    assert set(result["ceilings"]) == {"gemm_float32", "gemm_float64", "stream"}
    assert result["left_out"] == {
        "absent": "absent is not installed",
        "unwell": "ZeroDivisionError: division by zero",
    }
    assert result["skipped"] == {}

    yardsticks = {c.name for c in usual if c.yardstick}
    for problem in cuda_problems.PROBLEMS:
        rows = {r["contender"]: r for r in result["rows"] if r["problem"] == problem.name}
        more = {"broken"} if problem.name.startswith("sqrtm-8") else set()
        assert set(rows) == {LINALGK} | rivals(problem) | more
        assert rows[LINALGK]["ratio"] == 1
        for name, row in rows.items():
            if name == "broken":
                assert row["failed"].startswith("ZeroDivisionError")
                continue
            assert "failed" not in row, row
            assert row["ratio"] == pytest.approx(row["hot"] / rows[LINALGK]["hot"], rel=1e-3)
            if name in yardsticks:
                assert row["error"] is None
                assert "of_copy" not in row
            else:
                assert row["error"] <= (problem.error_bound or 1e-12)
                if row["dtype"] != "uint32":
                    rate = result["ceilings"][f"gemm_{row['dtype']}"]
                    share = row["flops"] / row["flushed"] / rate
                    assert row["of_gemm"] == pytest.approx(share, rel=1e-2)
                share = row["bytes"] / row["flushed"] / result["ceilings"]["stream"]
                assert row["of_copy"] == pytest.approx(share, rel=1e-2)

    verdicts = {(line["problem"], line["target"]): line["met"] for line in result["targets"]}
    easy, hard, general = (problem.name for problem in cuda_problems.PROBLEMS[:3])
    assert verdicts[easy, f"target 1e-09x vs {CUPY_EIGH}"] is True
    assert verdicts[hard, f"target 1e+09x vs {CUPY_EIGH}"] is False
    assert verdicts[hard, "error at most 1.0e-05"] is True
    assert verdicts[general, "residual at most 1.0e-10"] is True
    for line in result["targets"]:
        assert report.target_text(line) in printed
    assert "Test Device (1)" in printed
    assert "broken" in printed
    assert "left out absent: absent is not installed" in printed

    assert report.main([str(tmp_path / "new"), "--out", str(tmp_path / "pages")]) == 0
    page = (tmp_path / "pages" / "bench_cuda.rst").read_text()
    check_rst(page)
    assert "Test Device (1)" in page
    assert result["datetime"][:10] in page
    ours = next(row for row in result["rows"] if row["contender"] == LINALGK)
    assert report.seconds(ours["hot"]) in page
    assert "absent is not installed" in page
    # a result of the GPU is none of the CPU's
    assert "No results" in (tmp_path / "pages" / "bench_matfun.rst").read_text()


def test_selection_and_a_named_file(fake, tmp_path, capsys):
    path = tmp_path / "one.json"
    argv = ["--device", "cuda", "-k", "invsqrtm or logm", "--quick", "--contenders", "alone"]
    assert run.main([*argv, "--json", str(path), *TINY]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(row["problem"], row["contender"]) for row in rows] == [
        (cuda_problems.PROBLEMS[0].name, LINALGK),
        (cuda_problems.PROBLEMS[0].name, f"{CUPY_EIGH} alone"),
    ]
    assert "not measured" in capsys.readouterr().out  # the target's rival was not asked


def test_no_problem_begins_after_the_limit(fake, tmp_path, capsys):
    argv = ["--device", "cuda", "--limit", "1e-9", "--json", str(tmp_path), *TINY]
    assert run.main(argv) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "test-device-1.json").read_text())
    assert not result["rows"]
    for problem in cuda_problems.PROBLEMS:
        assert f"{problem.name}\n  skipped: the time limit of 1e-09 s was reached" in printed
        assert problem.name in result["skipped"]
    check_rst(report.cuda_rst([result], cuda_problems.PROBLEMS))


def test_a_broken_device_ends_in_rows_and_not_in_a_traceback(fake, monkeypatch, tmp_path, capsys):
    def broken(*_):
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access")

    monkeypatch.setattr(cuda.Device, "put", broken)
    monkeypatch.setattr(cuda.Device, "free", broken)
    assert run.main(["--device", "cuda", "--json", str(tmp_path), *TINY]) == 0
    printed = capsys.readouterr().out
    assert "ceilings not measured: RuntimeError" in printed
    assert "memory not freed: RuntimeError" in printed
    result = json.loads((tmp_path / "test-device-1.json").read_text())
    assert set(result["skipped"]) == {p.name for p in cuda_problems.PROBLEMS}
    check_rst(report.cuda_rst([result], cuda_problems.PROBLEMS))


def test_a_file_that_cannot_be_written_is_said_before_the_run(fake, tmp_path, capsys):
    (tmp_path / "file").touch()
    where = str(tmp_path / "file" / "below")
    assert run.main(["--device", "cuda", "--json", where, *TINY]) == 2
    assert "file" in capsys.readouterr().err


def test_the_file_is_named_after_the_device():
    assert cuda.result_path("x", "NVIDIA H200") == Path("x/nvidia-h200.json")
    assert cuda.result_path("x", "NVIDIA H100 80GB HBM3 ") == Path("x/nvidia-h100-80gb-hbm3.json")
    assert cuda.result_path("x/y.json", "NVIDIA H200") == Path("x/y.json")


def test_the_way_of_an_answer_to_the_judge(device):
    torch = pytest.importorskip("torch")
    x = cuda_problems.as_array(device, torch.eye(2))
    assert isinstance(x, np.ndarray)
    assert cuda_problems.as_array(device, x) is x


def test_torch_is_left_out_by_name(monkeypatch):
    monkeypatch.setattr(cuda_parts.importlib.util, "find_spec", lambda _: None)
    assert cuda_parts.torch_missing() == "torch is not installed"
    monkeypatch.undo()
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_parts.torch_missing().endswith("finds no CUDA device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda_parts.torch_missing() == ""


# --- targets and pages ---------------------------------------------------------------------------


def row(name, hot, flushed=None, error=None):
    return {"contender": name, "hot": hot, "flushed": flushed, "error": error}


def test_targets_are_judged_by_hot_medians():
    problem = cuda_problems.root_problem("sqrtm", (9, 9), targets=(Target(CUPY_EIGH, 2),))
    ours = row(LINALGK, 1.0, 2.0, 0.0)
    speed, error = cuda.judge_targets(problem, [ours, row(CUPY_EIGH, 3.0, 3.0)])
    assert (speed["measured"], speed["met"]) == (3, True)
    assert "1.50x met" not in report.target_text(speed)
    assert "1.50x with the L2 cache flushed" in report.target_text(speed)
    assert error["met"] is True
    speed, _ = cuda.judge_targets(problem, [ours, row(CUPY_EIGH, 1.9)])
    assert (speed["measured"], speed["met"], "note" in speed) == (1.9, False, False)
    failed = {"contender": LINALGK, "failed": "why"}
    lines = cuda.judge_targets(problem, [failed, row(CUPY_EIGH, 3.0)])
    assert [line["met"] for line in lines] == [None, None]
    _, error = cuda.judge_targets(problem, [row(LINALGK, 1.0, 1.0, error=1.0)])
    assert error["met"] is False


def test_the_page_says_what_is_measured_and_when(fake, tmp_path, capsys):
    problems = cuda_problems.PROBLEMS
    page = report.cuda_rst([], problems)
    assert "No GPU figure has been measured yet" in page
    assert page.count("not measured yet") == len(problems)
    assert f"1e+09x vs {CUPY_EIGH}" in page
    check_rst(page)

    argv = ["--device", "cuda", "-k", "logm or signm", "--json", str(tmp_path), *TINY]
    assert run.main(argv) == 0
    (result,) = report.load([tmp_path])
    result["datetime"] = "2030-01-02T00:00:00"
    page = report.cuda_rst([result], problems)
    assert "No GPU figure" not in page
    assert page.count("not measured yet") == len(problems) - 2
    assert page.count("Test Device (1), 2030-01-02") == 2
    assert "(residual)" in page

    message = "Odd: a|b|c `x` *y z_ \\ w"
    for entry in result["rows"]:
        if entry["contender"] == LINALGK:
            for key in ("hot", "flushed", "queued", "min", "ratio"):
                entry.pop(key)
            entry["failed"] = message
    result["left_out"]["it"] = message
    page = report.cuda_rst([result], problems)
    assert page.count("failed (Test Device (1), 2030-01-02)") == 2
    check_rst(page)


def test_the_stored_page_is_the_one_of_the_stored_results(request):
    root = request.config.rootpath
    results = [r for r in report.load([root / "bench" / "results"]) if r.get("kind") == cuda.KIND]
    stored = (root / "docs" / "_generated" / "bench_cuda.rst").read_text(encoding="utf-8")
    again = "python -m linalgk_bench.report bench/results --out docs/_generated"
    assert stored == report.cuda_rst(results, cuda_problems.PROBLEMS), again


@pytest.mark.gpu
def test_on_a_gpu(tmp_path, capsys):
    argv = ["--device", "cuda", "-k", "8192x8x8-float32", "--json", str(tmp_path), *TINY]
    assert run.main(argv) == 0
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    rows = {row["contender"]: row for row in result["rows"]}
    assert {LINALGK, NAN, CUPY_EIGH} <= set(rows)
    assert "failed" not in rows[CUPY_EIGH]
    assert rows[CUPY_EIGH]["error"] < 1e-3
    assert 0 < rows[CUPY_EIGH]["of_copy"] < 1
