"""The machinery of the bench: problems, peers, the interleaved driver, its JSON, its pages."""

import json
import operator
import os
import subprocess
import sys

import numpy as np
import pytest
from linalgk_bench import machine, matfun, report, run, startup
from linalgk_bench.contest import Contender, summarise
from linalgk_bench.peers import LINALGK, Peer
from linalgk_bench.problems import ROOMS, Target, find_problem, load_room, matches
from linalgk_bench.timing import run_round

from linalgk import testing

QUICK = ["--rounds", "2", "--budget", "0.001", "--threads", "1", "--coretype", "default"]


# --- registry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ROOMS)
def test_registry_is_sane(room):
    problems, peers = load_room(room).PROBLEMS, load_room(room).PEERS
    assert len({p.name for p in problems}) == len(problems)
    assert len({p.name for p in peers}) == len(peers)
    by_name = {peer.name: peer for peer in peers}
    for problem in problems:
        assert by_name[LINALGK].accepts(problem)
        for target in problem.targets:
            assert by_name[target.against].accepts(problem)
        assert problem.tier == "target" or not problem.targets
        assert all(part.isascii() and "/" not in part for part in problem.name.split("-"))


def test_problems_are_public_functions():
    import linalgk as lk

    assert all(callable(operator.attrgetter(p.function)(lk)) for p in matfun.PROBLEMS)


@pytest.mark.parametrize(
    "problem", [p for p in matfun.PROBLEMS if p.shape == (64, 64)], ids=lambda p: p.name
)
def test_references_solve_their_problems(problem):
    arrays = problem.make()
    a = arrays["a"].astype(np.longdouble)
    assert arrays["a"].shape == problem.shape
    assert arrays["a"].dtype == problem.dtype
    x = problem.reference(arrays)
    assert problem.error(x, x) == 0
    assert problem.error(1.5 * x, x) == pytest.approx(0.5)
    if problem.function == "invsqrtm":
        # X A X would cancel by the condition of A, this product only by its root.
        condition = np.linalg.cond(arrays["a"]) ** 0.5
        left, right = x @ testing.reference_sqrtm(arrays["a"]), np.eye(64)
    else:
        condition = 1.0
        left, right = x @ x.astype(np.longdouble), a
    difference = np.sqrt(np.sum((left - right) ** 2) / np.sum(right**2))
    assert difference < 1e-14 * condition


@pytest.mark.parametrize(
    "name", ["invsqrtm-4096x8x8-float64-log-k1e3", "sqrtm-4x4-float64-log-k1e1"]
)
def test_references_agree_with_mpmath(name):
    problem = find_problem("matfun", name)
    arrays = problem.make()
    oracle = testing.mp_invsqrtm if problem.function == "invsqrtm" else testing.mp_sqrtm
    first = (0,) * (len(problem.shape) - 2)
    reference = problem.reference(arrays)
    testing.assert_close(reference[first], oracle(arrays["a"][first]), 2.3e-16)


def test_schedule_error_is_the_deviation_from_one():
    (problem,) = (p for p in matfun.PROBLEMS if p.function == "minimax_schedule")
    lower = problem.reference(problem.make())
    newton_schulz = np.array([[1.5, -0.5, 0.0]])
    assert problem.error(newton_schulz, lower) == pytest.approx(1 - 1.5 * float(lower))
    assert problem.error(np.repeat(newton_schulz, 60, axis=0), lower) < 1e-15


@pytest.mark.parametrize("peer", matfun.PEERS, ids=lambda peer: peer.name)
def test_peers_solve_what_they_accept(peer):
    if not peer.available()[0]:
        pytest.skip(peer.available()[1])
    for name in (
        "sqrtm-64x64-float64-log-k1e4",
        "invsqrtm-64x64-float64-log-k1e4",
        "sqrtm-64x64-float64-general-k1e2",
    ):
        problem = find_problem("matfun", name)
        if not peer.accepts(problem) or peer.yardstick:
            continue
        arrays = problem.make()
        try:
            call = peer.prepare(problem, arrays)
        except matfun.Unavailable as missing:
            pytest.skip(str(missing))
        first, second = peer.export(call()), peer.export(call())
        assert first is not second
        assert not np.shares_memory(first, second)
        assert problem.error(second, problem.reference(arrays)) < 1e-10


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sqrtm", True),
        ("FLOAT64", True),
        ("not sqrtm", False),
        ("invsqrtm and float64", False),
        ("invsqrtm or float64", True),
        ("sqrtm and not float32", True),
        ("invsqrtm and float64 or 4x4 and not k1e9", True),
    ],
)
def test_selection(expression, expected):
    assert matches(expression, "sqrtm-4x4-float64") is expected


@pytest.mark.parametrize(
    ("target", "ours", "theirs", "measured", "met"),
    [
        (Target("x", 6), 1.0, 8.0, 8.0, True),
        (Target("x", 6), 1.0, 5.0, 5.0, False),
        (Target("x", 1.25, "share"), 1.2, 1.0, 1.2, True),
        (Target("x", 1.25, "share"), 1.3, 1.0, 1.3, False),
        (Target("", 0.1, "seconds"), 0.05, 0.0, 0.05, True),
        (Target("", 0.1, "seconds"), 0.2, 0.0, 0.2, False),
    ],
)
def test_targets(target, ours, theirs, measured, met):
    assert target.judge(ours, theirs) == (measured, met)


def test_a_target_is_against_the_fastest_variant():
    problem = find_problem("matfun", "invsqrtm-4096x8x8-float64-log-k1e3")
    (variant,) = (p.name for p in matfun.PEERS if p.variant_of == matfun.NUMPY_EIGH)

    def entry(name, least, median, error=0.0):
        info = {"contender": name, "error": error}
        return {"extra_info": info, "stats": {"min": least, "median": median}}

    judge = run._Pass(run._parse(QUICK), None)._judge
    entries = [entry(LINALGK, 1, 2), entry(matfun.NUMPY_EIGH, 7, 8), entry(matfun.SCIPY, 1, 1)]
    speed, error = judge("matfun", problem, entries)
    assert (speed["measured"], speed["by_medians"], speed["met"]) == (7, 4, True)
    assert error["met"] is True
    speed, _ = judge("matfun", problem, [*entries, entry(variant, 4, 10)])
    assert (speed["measured"], speed["by_medians"], speed["met"]) == (4, 4, False)
    failed = {"extra_info": {"contender": LINALGK, "error": None}, "stats": {}}
    assert [line["met"] for line in judge("matfun", problem, [failed, *entries[1:]])] == [None] * 2
    _, error = judge("matfun", problem, [entry(LINALGK, 1, 2, error=1.0)])
    assert error["met"] is False


def test_rounds_count_every_call():
    calls = []
    result = run_round(lambda: calls.append(1), 3, 0.0)
    assert result["samples"] == 1
    assert len(calls) == 1 + 3  # a warm-up, then one sample of three
    assert 0 < result["min"] == result["median"]


def test_summary_takes_the_least_of_minima_and_the_median_of_medians():
    stats = summarise([[1.0, 5.0], [2.0, 3.0], [0.5, 4.0]], 10)
    assert (stats["min"], stats["median"], stats["max"]) == (0.5, 4.0, 5.0)
    assert (stats["rounds"], stats["iterations"]) == (3, 10)
    assert summarise([[1.0, 2.0]], 1)["iqr"] == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (2.5, "2.5 s"), (0.0314, "31.4 ms"), (4.2e-6, "4.2 us"), (3e-8, "30 ns")],
)
def test_times_are_readable(value, text):
    assert report.seconds(value) == text


def test_environment_of_contenders(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    env = machine.environment(3, None)
    assert {env[name] for name in machine.THREAD_VARIABLES} == {"3"}
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["OPENBLAS_CORETYPE"] == "Haswell"
    assert machine.environment(3, "SkylakeX")["OPENBLAS_CORETYPE"] == "SkylakeX"
    assert "OPENBLAS_CORETYPE" in machine.blas_environment()
    assert "OPENBLAS_NUM_THREADS" not in machine.blas_environment()


def test_least_time_is_the_slower_of_arithmetic_and_memory():
    ceilings = {"gemm_float32": 1e9, "gemm_float64": 5e8, "stream": 1e8}
    assert machine.least_time(ceilings, "complex64", 2e9, 1e8) == 2
    assert machine.least_time(ceilings, "float64", 1e8, 3e8) == 3
    assert machine.least_time({}, "float64", 1e8, 3e8) == 0


def test_a_second_pass_only_where_the_processor_can(monkeypatch, capsys):
    monkeypatch.setattr(machine, "has_avx512", lambda: True)
    assert run._coretypes("both") == [None, "SkylakeX"]
    monkeypatch.setattr(machine, "has_avx512", lambda: False)
    assert run._coretypes("both") == [None]
    assert run._coretypes("SkylakeX") == []
    assert "no AVX-512" in capsys.readouterr().out


# --- processes -----------------------------------------------------------------------------------


def test_a_contender_survives_errors_and_crashes():
    contender = Contender("matfun", "numpy eigh", 1, None)
    try:
        assert contender.ask("nonsense")["failed"].startswith("AttributeError")
        assert contender.ask("round", problem="none", budget=0)["failed"].startswith("KeyError")
        contender._running.process.kill()
        assert "ended with status" in contender.ask("describe")["failed"]
        pools = contender.ask("describe")["pools"]
        assert pools
        assert "filepath" not in pools[0]
        assert contender.ask("ceilings", seconds=1.0, patience=0.0)["failed"].startswith(
            "no answer"
        )
    finally:
        contender.close()


def test_driver_writes_sane_results(tmp_path, capsys):
    path = tmp_path / "result.json"
    argv = ["matfun", "-k", "sqrtm-4x4", "--contenders", "scipy.linalg", "--json", str(path)]
    assert run.main([*argv, *QUICK]) == 0
    result = json.loads(path.read_text())
    rows = {b["extra_info"]["contender"]: b for b in result["benchmarks"]}
    # other peers' names may hold this one's
    assert {LINALGK, "scipy.linalg.sqrtm"} <= set(rows)
    assert not result["failures"]
    for row in rows.values():
        assert row["group"] == row["extra_info"]["problem"] == "sqrtm-4x4-float64-log-k1e1"
        assert 0 <= row["extra_info"]["error"] < 1e-14
        assert row["extra_info"]["ceiling_share"] > 0
        assert len(row["extra_info"]["rounds"]) == row["stats"]["rounds"] == 2
        assert 0 < row["stats"]["min"] <= row["stats"]["median"] <= row["stats"]["max"]
    assert rows[LINALGK]["extra_info"]["ratio"] == 1
    (target,) = result["targets"]
    peer = rows["scipy.linalg.sqrtm"]
    assert target["measured"] == pytest.approx(peer["extra_info"]["ratio"])
    assert target["met"] is (target["measured"] >= 1)
    (done,) = result["passes"]
    assert set(done["ceilings"]) == {"gemm_float32", "gemm_float64", "stream"}
    assert result["machine_info"]["cpu"]
    assert "node" not in result["machine_info"]
    printed = capsys.readouterr().out
    assert report.target_text(target).split(" (")[0] in printed

    assert report.main([str(tmp_path), "--out", str(tmp_path / "pages")]) == 0
    page = (tmp_path / "pages" / "bench_matfun.rst").read_text()
    assert result["machine_info"]["cpu"] in page
    assert "1x vs scipy.linalg.sqrtm" in page
    assert report.seconds(rows[LINALGK]["stats"]["min"]) in page
    check_rst(page)


def check_rst(page):
    core = pytest.importorskip("docutils.core")
    core.publish_string(page, settings_overrides={"halt_level": 2, "report_level": 5})


def test_missing_and_failing_contenders_are_named(monkeypatch, capsys, tmp_path):
    absent = Peer("ours to come", "no_such_library", lambda _: True, None, np.asarray)
    ours = next(peer for peer in matfun.PEERS if peer.name == LINALGK)
    # This one the worker does not know, and so its process ends at once.
    bad = Peer("unknown there", "numpy", lambda _: True, None, np.asarray)
    monkeypatch.setattr(matfun, "PEERS", [ours, absent, bad])
    path = tmp_path / "result.json"
    assert run.main(["-k", "sqrtm-4x4", "--json", str(path), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "skipped ours to come: no_such_library is not installed" in printed
    assert "unknown there  failed: the process ended" in printed
    assert "target 1x vs scipy.linalg.sqrtm: not measured" in printed
    result = json.loads(path.read_text())
    assert [b["extra_info"]["contender"] for b in result["failures"]] == ["unknown there"]
    page = report.room_rst("matfun", [result])
    assert "no_such_library is not installed" in page
    assert "failed" in page
    check_rst(page)


def test_a_page_without_results_says_how_to_get_them():
    page = report.room_rst("matfun", [])
    assert "python -m linalgk bench" in page
    check_rst(page)


def test_startup_rows():
    importing = next(row for row in startup.STARTUPS if row.name == "import-beyond-numpy")
    found = startup.measure(importing, 1, None, 1)
    assert len(found["seconds"]) == 1
    assert found["seconds"][0] > 0
    assert found["cached"] == 0
    broken = startup.Startup("broken", "raise ValueError('no luck')", importing.target)
    assert startup.measure(broken, 1, None, 1) == {"failed": "ValueError: no luck"}
    counting = "import os, pathlib\np = pathlib.Path(os.environ['NUMBA_CACHE_DIR'], 'x.nbi')\n"
    counting += "seconds = float(p.exists())\np.touch()\n"
    for warm in (False, True):
        row = startup.Startup("first-call", counting, importing.target, warm=warm)
        assert startup.measure(row, 1, None, 1) == {"seconds": [float(warm)], "cached": 1}


def test_pytest_suite_records_error_and_work(tmp_path, request):
    pytest.importorskip("pytest_benchmark")
    path = tmp_path / "bench.json"
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider"]
    command += ["-k", "sqrtm-4x4 and numpy", f"--benchmark-json={path}"]
    command += ["--benchmark-min-rounds=1", "--benchmark-max-time=0.001"]
    done = subprocess.run(
        command,
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    result = json.loads(path.read_text())
    info = {b["extra_info"]["contender"]: b["extra_info"] for b in result["benchmarks"]}
    assert set(info) == {"numpy eigh", "numpy eigh alone"}
    assert info["numpy eigh"]["error"] < 1e-14
    assert info["numpy eigh alone"]["error"] is None
    assert info["numpy eigh"]["flops"] > 0
    assert info["numpy eigh"]["bytes"] == 2 * 16 * 8
    assert {b["group"] for b in result["benchmarks"]} == {"sqrtm-4x4-float64-log-k1e1"}
    assert result["machine_info"]["node"] == ""
    check_rst(report.room_rst("matfun", [result]))


def test_a_target_may_ask_less_of_one_thread():
    target = Target("peer", 2.5, alone=1.8)
    assert str(target.with_threads(2)) == "target 2.5x vs peer"
    assert str(target.with_threads(1)) == "target 1.8x vs peer"
    assert Target("peer", 2.5).with_threads(1) == Target("peer", 2.5)
