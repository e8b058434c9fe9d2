"""The command line: real processes for what users see, invented configurations for the advice."""

import json
import subprocess
import sys

import pytest

import linalgk
from linalgk import cli

AVX2 = ["avx", "avx2", "fma"]
SKYLAKE = [*AVX2, "avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl"]
KNIGHTS_LANDING = [*AVX2, "avx512f", "avx512cd", "avx512er", "avx512pf"]


def openblas(*architectures):
    return [{"internal_api": "openblas", "architecture": name} for name in architectures]


def run(*args, cwd):
    command = [sys.executable, "-m", "linalgk", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


# --- Advice --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "blas", "coretype", "running"),
    [
        (SKYLAKE, openblas("Haswell"), "SkylakeX", ("Haswell",)),
        (SKYLAKE, openblas("Zen", "Zen"), "SkylakeX", ("Zen",)),
        (SKYLAKE, openblas("Haswell", "SkylakeX"), "SkylakeX", ("Haswell",)),
        (SKYLAKE, openblas("Sandybridge", "Haswell"), "SkylakeX", ("Sandybridge", "Haswell")),
        (AVX2, openblas("Prescott"), "Haswell", ("Prescott",)),
        (KNIGHTS_LANDING, openblas("Sandybridge"), "Haswell", ("Sandybridge",)),
    ],
)
def test_advice_names_a_faster_set(features, blas, coretype, running):
    advice = cli.blas_advice(features, blas, {})
    assert (advice.coretype, advice.running, advice.variable_set) == (coretype, running, None)
    assert f"OPENBLAS_CORETYPE={coretype}" in advice.text
    assert all(name in advice.text for name in running)


@pytest.mark.parametrize(
    ("features", "blas"),
    [
        (SKYLAKE, openblas("SkylakeX")),
        (SKYLAKE, openblas("Cooperlake", "Sapphirerapids")),
        (KNIGHTS_LANDING, openblas("Haswell")),
        (AVX2, openblas("Haswell", "Zen", "Excavator")),
        (["sse4_2"], openblas("Nehalem")),
        (["asimd", "sve"], openblas("neoversev1")),
        (SKYLAKE, [{"internal_api": "mkl", "architecture": "Haswell"}]),
        (SKYLAKE, [{"internal_api": "openblas"}]),
        (SKYLAKE, openblas(None, "NameOfTheFuture")),
        (SKYLAKE, []),
        ([], openblas("Haswell")),
    ],
)
def test_no_advice_where_nothing_is_to_be_gained(features, blas):
    assert cli.blas_advice(features, blas, {}) is None


def test_advice_says_that_the_variable_is_the_reason():
    advice = cli.blas_advice(SKYLAKE, openblas("Haswell"), {"OPENBLAS_CORETYPE": "Haswell"})
    assert advice.variable_set == "Haswell"
    assert "OPENBLAS_CORETYPE=Haswell" in advice.text
    assert "Unset" in advice.text


def test_an_empty_variable_is_no_reason():
    assert (
        "Unset" not in cli.blas_advice(SKYLAKE, openblas("Haswell"), {"OPENBLAS_CORETYPE": ""}).text
    )


# --- info ----------------------------------------------------------------------------------------


def test_describe_survives_an_empty_configuration():
    lines = dict(cli.describe({}))
    assert lines["BLAS"] == ["none found"]
    assert all(isinstance(line, str) for group in lines.values() for line in group)


def test_describe_names_owner_and_kernels(tmp_path):
    (tmp_path / "a.nbc").write_bytes(b"x" * 2_000_000)
    (tmp_path / "a.pyc").write_bytes(b"x")
    path = "/site-packages/numpy.libs/libopenblas.so"
    config = {
        "linalgk": {"version": "9.9"},
        "packages": {"numpy": "2.4.6"},
        "cpu": {"name": "Imaginary", "cores": 3, "features": SKYLAKE},
        "blas": [{"internal_api": "openblas", "architecture": "Zen", "filepath": path}],
        "threads": {"num_threads": 3, "layer": "tbb"},
        "cache": {"numba": str(tmp_path)},
        "devices": ["cpu"],
    }
    lines = {heading: " ".join(group) for heading, group in cli.describe(config)}
    assert "linalgk 9.9" in lines["versions"]
    assert "numpy 2.4.6" in lines["versions"]
    assert lines["processor"] == "Imaginary, 3 cores, AVX-512"
    assert "kernels Zen" in lines["BLAS"]
    assert lines["BLAS"].endswith("of numpy")
    assert "1 files, 2.0 MB" in lines["caches"]


def test_info_as_a_process(tmp_path):
    done = run("info", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("versions", "processor", "threads", "BLAS", "caches", linalgk.__version__):
        assert word in done.stdout


def test_info_json_as_a_process(tmp_path):
    done = run("info", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)
    assert config["linalgk"]["version"] == linalgk.__version__
    # SciPy's own BLAS counts, although nothing but the report needs it.
    assert len(config["blas"]) >= 1
    assert "advice" in config


FAKE_GEMM = """
import json, os
name = os.environ.get("OPENBLAS_CORETYPE", "own choice")
if name == "Broken":
    raise SystemExit("illegal instruction")
rate = {"SkylakeX": 30.0, "Haswell": 10.0}.get(name, 20.0)
print(json.dumps({"kernels": name, "gflops": {"float32": rate, "float64": rate / 2}}))
"""


def test_measure_compares_environments(monkeypatch):
    monkeypatch.setattr(cli, "_GEMM", FAKE_GEMM)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    measured = cli._measure(cli.Advice("SkylakeX", ("Haswell",), "Haswell", ""))
    assert [row["kernels"] for row in measured] == ["Haswell", "own choice", "SkylakeX"]
    text = "\n".join(cli._measured_lines(measured))
    assert "(2.00x)" in text
    assert "(3.00x)" in text


def test_measure_without_advice_has_one_row(monkeypatch):
    monkeypatch.setattr(cli, "_GEMM", FAKE_GEMM)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert len(cli._measure(None)) == 1


def test_measure_reports_a_setting_that_fails(monkeypatch):
    monkeypatch.setattr(cli, "_GEMM", FAKE_GEMM)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    measured = cli._measure(cli.Advice("Broken", ("Haswell",), None, ""))
    text = "\n".join(cli._measured_lines(measured))
    assert "failed: illegal instruction" in text
    assert "20.0" in text


def test_the_measuring_script_runs(monkeypatch):
    """The real one, shortened."""
    quick = cli._GEMM.replace("2048", "64").replace("+ 1.0", "+ 0.01")
    assert quick != cli._GEMM
    monkeypatch.setattr(cli, "_GEMM", quick)
    (row,) = cli._measure(None)
    assert set(row["gflops"]) == {"float32", "float64"}
    assert all(rate > 0 for rate in row["gflops"].values())


# --- warm, bench, the rest -----------------------------------------------------------------------


def test_warm_goes_on_after_a_failure(monkeypatch, capsys):
    ran = []

    def fail():
        message = "no such type"
        raise TypeError(message)

    tasks = [("bad", fail), ("good", lambda: ran.append("good"))]
    monkeypatch.setattr("linalgk._dispatch.warm_tasks", lambda: tasks)
    assert cli.main(["warm", "--no-progress"]) == 1
    out, err = capsys.readouterr()
    assert ran == ["good"]
    assert "1 kernels ready" in out
    assert "cache" in out
    assert "bad: TypeError: no such type" in err


def test_version_as_a_process(tmp_path):
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"linalgk {linalgk.__version__}\n")


def test_wrong_command_is_told_the_right_ones(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["tuor"])
    assert stop.value.code == 2
    assert "tour" in capsys.readouterr().err


def test_bench_gets_all_arguments(monkeypatch):
    seen = []
    fake = type(sys)("linalgk_bench.run")
    fake.main = lambda argv: seen.extend(argv) or 7
    monkeypatch.setitem(sys.modules, "linalgk_bench", type(sys)("linalgk_bench"))
    monkeypatch.setitem(sys.modules, "linalgk_bench.run", fake)
    assert cli.main(["bench", "--help", "matfun", "--json", "x"]) == 7
    assert seen == ["--help", "matfun", "--json", "x"]


def test_bench_names_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "linalgk_bench.run", None)
    assert cli.main(["bench"]) == 1
    assert "pip install 'linalgk[bench]'" in capsys.readouterr().err


def test_unknown_chapter(capsys):
    assert cli.main(["tour", "--chapters", "alchemy"]) == 1
    err = capsys.readouterr().err
    assert "alchemy" in err
    assert "matfun" in err


def test_interrupt_ends_quietly(monkeypatch, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_bench", interrupt)
    assert cli.main(["bench"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_import_of_the_command_line_is_light():
    code = """
import sys, linalgk
before = set(sys.modules)
import linalgk.cli
print(*set(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numba", "scipy", "matplotlib", "tqdm", "sklearn", "mpmath"}
