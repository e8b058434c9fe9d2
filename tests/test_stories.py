"""What the documentation shows runs, and what it says holds."""

import contextlib
import doctest
import functools
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

import linalgk as lk
from linalgk.testing import assert_close

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.glob("*.rst"))
BAD = {(0, 2), (3, 0), (3, 5)}


def run(name, **options):
    return runpy.run_path(str(DOCS / name), **options)


# --- Stories -------------------------------------------------------------------------------------


@pytest.fixture
def story_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("examples/story_01_data.py")
    with pytest.warns(lk.errors.ConvergenceWarning) as caught:
        names = run("examples/story_01.py")
    return names, [str(w.message) for w in caught], capsys.readouterr().out


def test_story_1_names_the_three_bad_members_and_no_others(story_1):
    names, messages, out = story_1
    C, bad = names["C"], names["bad"]
    assert C.shape == (4, 6, 64, 64)
    assert C.dtype == np.float32
    assert bad.shape == C.shape[:2]
    assert bad.dtype == bool
    assert set(zip(*np.nonzero(bad), strict=True)) == BAD
    assert len(messages) == 1
    assert all(str(member) in messages[0] for member in BAD)
    count, estimate = out.split()
    assert count == "3"
    assert 0 < float(estimate) < 1e-6


def test_story_1_computes_the_others_as_if_they_were_alone(story_1):
    names, _, _ = story_1
    C, R, W, info, bad = (names[key] for key in ("C", "R", "W", "info", "bad"))
    assert R.dtype == W.dtype == np.float32
    assert np.isnan(R[bad]).all()
    assert np.isnan(W[bad]).all()
    assert np.isnan(info.error_estimate[bad]).all()
    assert np.isfinite(info.error_estimate[~bad]).all()
    wide = C[~bad].astype(np.float64)
    w, v = np.linalg.eigh(wide)
    # rank 20 of 64 in single precision: backward error n eps, and the root's error its square root
    eps = np.finfo(np.float32).eps
    assert_close(R[~bad].astype(float) @ R[~bad], wide, 64 * eps)
    damped = w + 1e-6 * w[:, -1:]
    exact = (v / np.sqrt(damped)[:, None, :]) @ v.mT
    # computed in double precision with a condition of 1e6, and rounded once
    assert_close(W[~bad], exact, 2 * eps)
    assert (w[:, 0] < 1e-5 * w[:, -1]).sum() == 7  # subject 1 and the dead channel
    with lk.config_context(on_fail="nan"):
        assert np.array_equal(lk.sqrtm(C[1, 4], assume_a="pos"), R[1, 4])


def test_story_1_complex_root(story_1):
    names, _, _ = story_1
    Z = names["Z"]
    assert np.iscomplexobj(Z)
    h = 0.5**0.5
    assert_close(Z, np.array([[h, -h], [h, h]]), 1e-15)
    with pytest.raises(np.linalg.LinAlgError):
        lk.sqrtm(-np.eye(2))
    assert_close(lk.sqrtm(-np.eye(2) + 0j), 1j * np.eye(2), 1e-15)


# of the compiler itself
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_story_2_an_optimizer_in_torch(capsys):
    torch = pytest.importorskip("torch")
    names = run("examples/story_02.py")
    assert capsys.readouterr().out.split() == ["tensor(True)", "True"]
    for p, buf in zip(names["params"], names["bufs"], strict=True):
        assert p.dtype == torch.bfloat16
        want = -0.02 * lk.orthogonalize(buf.double(), steps=5)
        # half an ulp of bfloat16 for the factor and half for the product
        assert (p.double() - want).norm() <= 2.0**-7 * want.norm()
    again = lk.InverseRoot(4, rel_damp=1e-12)
    again.load_state_dict(names["ckpt"]["roots"])
    assert torch.equal(torch.as_tensor(again.value), names["Z"])


def test_story_3_whitening_in_jax(capsys):
    pytest.importorskip("jax")
    names = run("examples/story_03.py")
    assert capsys.readouterr().out.startswith("(4, 50, 3) True (7, 3, 3)")
    s, f, a = (names[name] for name in ("S", "f", "a"))
    # JAX without x64: sums of fewer than 500 float32 numbers below one (8 * 10 000 in 256 rows)
    terms = np.bincount(s.tosparse().indices).max()
    assert terms < 500
    atol = terms**2 * np.finfo(np.float32).eps * s.scale
    np.testing.assert_allclose(np.asarray(f(s, a)), s @ np.asarray(a, np.float64), atol=atol)
    assert np.asarray(names["q"].info.converged).all()
    # all rows are alike, so that the loss depends on the mean of the three columns alone: moving
    # every entry by the same amount changes its scale, to which whitening is blind but for damping
    assert abs(np.asarray(names["g"]).sum()) < 1e-2


def test_story_5_knows_its_error_at_the_cusp(capsys):
    names = run("examples/story_05.py")
    rho, rng = names["rho"], np.random.default_rng(1)
    assert not rho.converged
    assert rho.error > 1e-8
    assert len(names["caught"]) == 1
    assert issubclass(names["caught"][0].category, lk.errors.ConvergenceWarning)
    assert "ChebTucker on [-6, 6] x [-6, 6] x [-6, 6]" in capsys.readouterr().out
    # by the nucleus and everywhere: the largest value is 1
    near = rng.normal(0, 0.05, (3, 20_000)) + np.array([[0], [0], [0.7]])
    for x in (near, rng.uniform(-6, 6, (3, 20_000))):
        truth = np.exp(-2 * np.sqrt(x[0] ** 2 + x[1] ** 2 + (x[2] - 0.7) ** 2))
        assert abs(rho(*x) - truth).max() <= 3 * rho.error
    # |error| <= rho.error everywhere would allow more
    assert abs(names["q"] - np.pi) < 1e-3
    assert abs(names["line"](0.7) - np.pi / 2) < 1e-3
    assert names["fx"].shape == (1000,)
    assert names["grid"].shape == (40, 50, 60)
    np.testing.assert_allclose(
        names["grid"][3, 4, 5], rho(names["xs"][3], names["ys"][4], names["zs"][5]), atol=1e-12
    )
    r = np.geomspace(1e-3, 20, 1000)
    assert abs(np.exp(-np.outer(r * r, names["a"])) @ names["w"] * r - 1).max() <= 1e-10


@pytest.fixture(scope="module")
def story_8(tmp_path_factory):
    pytest.importorskip("dask")
    out = io.StringIO()
    with contextlib.chdir(tmp_path_factory.mktemp("story")), contextlib.redirect_stdout(out):
        run("examples/story_08_data.py")
        names = run("examples/story_08.py")
        names["loaded"] = [names["A"].compute(), names["b"].compute()]
        names["U"] = names["r"].U.compute()
        names["rows"] = np.concatenate([np.load(f) for f in names["files"]])
    return names, out.getvalue()


def lowrank_error(a, found):
    u, s, vh = (np.asarray(x, np.float64) for x in found)
    return np.linalg.norm(a - (u * s) @ vh) / np.linalg.norm(a)


def least_error(a, rank):
    s = np.linalg.svd(a, compute_uv=False)
    return np.linalg.norm(s[rank:]) / np.linalg.norm(s)


def test_story_8_factors_of_a_dask_array_and_of_blocks(story_8):
    names, out = story_8
    r, r2 = names["r"], names["r2"]
    assert type(r.U).__module__.startswith("dask")
    assert (type(r.S), type(r.Vh)) == (np.ndarray, np.ndarray)
    assert r.S.dtype == r.Vh.dtype == np.float32
    assert r.info.passes == r2.info.passes == 2
    assert names["U"].dtype == np.float32
    for a, found, u in ((names["loaded"][0], r, names["U"]), (names["rows"], r2, r2.U)):
        error = lowrank_error(a, (u, found.S, found.Vh))
        # of data in blocks the error is computed, in the precision of the data
        assert abs(error - found.info.error_estimate) < 1e-4 * error
        # two passes; the first one's sketch has four rows and more for every singular value
        assert error < 1.1 * least_error(a, len(found.S))
    assert str(r.info.error_estimate) in out


def test_story_8_intervals_of_least_squares(story_8):
    names, _ = story_8
    a, b = (x.astype(np.float64) for x in names["loaded"])
    x = np.linalg.lstsq(a, b)[0]
    inside = (names["lo"] <= x) & (x <= names["hi"])
    # 95 expected of 100, which depend on each other
    assert inside.sum() >= 85
    # the data were made with ten ones, and noise of 0.1 over singular values of 4
    assert np.abs(x[:10] - 1).max() < 0.1
    assert names["fit"].info.passes == 1


def test_story_8_streams_and_shards(story_8):
    names, out = story_8
    assert "blocks of an iterator can be read once" in out
    r3, r4 = names["r3"], names["r4"]
    assert (r3.info.method, r3.info.passes) == ("streaming", 1)
    # the parts add up to the stream, bit for bit
    assert all(np.array_equal(x, y) for x, y in zip(r3, r4, strict=True))
    error = lowrank_error(names["rows"], r4)
    # ten Gaussian rows: chi-square with 10 degrees of freedom and more, P < 1e-5 beyond
    assert 0.3 < error / r4.info.error_estimate < 3
    assert error < 2 * least_error(names["rows"], 50)


def test_story_9_lists_everything_and_writes_valid_json(capsys):
    def reject(name):
        raise ValueError(name)

    run("examples/story_09.py")
    lines = capsys.readouterr().out.splitlines()
    records = [json.loads(line, parse_constant=reject) for line in lines if line.startswith("{")]
    *rows, config = records
    assert [row["function"] for row in rows] == [f.name for f in lk.functions()]
    for row in rows:
        assert row["method"]
        assert row["reason"]
        assert row["flops"] > 0
        assert row["bytes"] > 0
        assert row["seconds"] > 0
    assert set(config) >= {"linalgk", "packages", "blas", "threads", "cpu"}
    listed = [line for line in lines if not line.startswith("{")]
    assert len(listed) == sum(len(f.methods) * len(f.ops) for f in lk.functions())
    assert any(line.startswith("fwht butterflies fwht ") for line in listed)
    assert any(line.startswith("inv_root eigh ") for line in listed)


def test_story_10(capsys):
    names = run("examples/story_10.py")
    out = capsys.readouterr().out
    assert "minimax" in out
    assert "0 members failed" in out
    a, z = names["layers"].astype(float), names["Z"].astype(float)
    n, eps = a.shape[-1], float(np.finfo(np.float32).eps)
    damped = a + 1e-6 * np.linalg.eigvalsh(a)[:, -1:, None] * np.eye(n)
    # theory: the condition of the matrix, here 1e4, times the precision
    w, v = np.linalg.eigh(damped)
    assert_close(z, (v * w[:, None, :] ** -0.25) @ v.mT, 10 * eps * 1e4)
    assert "kron_matmul: method 'modes'" in out
    # rows of ones: the sums of the columns of each factor, four inner products of 16 terms
    sums, bounds = (
        [f(x.astype(float)).sum(axis=0) for x in names["F"]] for f in (np.asarray, np.abs)
    )
    exact, bound = (functools.reduce(np.kron, x) for x in (sums, bounds))
    assert (abs(names["Y"] - exact) <= 4 * 17 * eps / 2 * bound).all()


# --- SciPy's documented examples of sqrtm --------------------------------------------------------


def test_scipy_documented_example():
    a = np.array([[1.0, 3.0], [1.0, 4.0]])
    r = lk.sqrtm(a)
    assert_close(r, np.array([[0.75592895, 1.13389342], [0.37796447, 1.88982237]]), 1e-8)
    assert_close(r, scipy.linalg.sqrtm(a), 1e-14)
    assert_close(r.dot(r), a, 1e-14)


# --- Pages and examples --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_page_doctests(page):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testfile(
        str(DOCS / page), module_relative=False, optionflags=flags, encoding="utf-8"
    )
    assert failed == 0


def test_ten_explanations(capsys):
    run("examples/explain_ten.py")
    parts = capsys.readouterr().out.split("# ")[1:]
    methods = [part.split("method '")[1].split("'")[0] for part in parts]
    assert methods == [
        *("minimax", "minimax", "eigh", "minimax", "eigh"),
        *("schur", "eigh", "minimax", "minimax", "minimax"),
    ]
    assert all("because" in part and "flops" in part for part in parts)


def test_half_products_are_harmless_in_the_m_form_only(capsys):
    names = run("examples/coupled_form.py")
    capsys.readouterr()
    a, root, schedule = names["a"], names["root"], names["schedule"]
    error = {
        (form, product): float(
            lk.testing.relative_error(names[form](a, schedule, names[product]), root)
        )
        for form in ("m_form", "coupled_form")
        for product in ("full", "half")
    }
    claim = 10 * np.finfo(float).eps * names["kappa"] ** 0.5
    assert max(error["m_form", "half"], error["m_form", "full"]) < claim
    assert error["coupled_form", "full"] < claim
    assert error["coupled_form", "half"] > 1e4 * claim


@pytest.mark.parametrize("table", ["functions", "ops", "schedule_steps", "accuracy"])
def test_tables_print_rst(table):
    # in an interpreter of its own, as the build runs it: the scripts import a neighbour
    command = [sys.executable, str(DOCS / "tables" / f"{table}.py")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert ".. list-table::" in out.stdout
    if table == "functions":
        assert all(
            f"~linalgk.{f.name}`" in out.stdout for f in lk.functions() if f.room == "matfun"
        )
    if table == "sketch_functions":
        some = [f.name for f in lk.functions() if f.room == "sketch"]
        assert all(f".{name}`" in out.stdout for name in some)
    if table == "ops":
        assert all(f"``{op.name}``" in out.stdout for op in lk.ops())


def test_reference_lists_every_public_name():
    pages = "".join(p.read_text(encoding="utf-8") for p in (DOCS / "api").glob("*.rst"))
    listed = {line.strip() for line in pages.splitlines()}
    for name in lk.__all__:
        if name in ("errors", "grad", "sketch", "testing", "typing"):
            assert (DOCS / "api" / f"{name}.rst").exists()
        else:
            assert name in listed
    assert set(lk.testing.__all__) - {"Spectrum"} <= listed


# --- The committed accuracy table ----------------------------------------------------------------


@pytest.fixture(scope="module")
def accuracy():
    return json.loads((DOCS / "_generated" / "accuracy.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def maker():
    return run("make_accuracy.py", run_name="make_accuracy")


def test_accuracy_table_keeps_its_claims(accuracy):
    assert accuracy["factor"] == 10
    for row in accuracy["rows"]:
        eps = float(np.finfo(row["dtype"]).eps)
        claim = 10 * eps * row["kappa"] ** (0.5 if row["function"] == "sqrtm" else 1.0)
        assert row["error"] <= claim, row
        if row["error_estimate"] is not None and row["compute_dtype"] == row["dtype"]:
            # an upper bound to first order, and to the rounding of the residual
            assert row["error"] <= 1.5 * row["error_estimate"] + 2 * eps, row


def test_accuracy_table_is_complete(accuracy, maker):
    fields = ("function", "asked", "dtype", "compute_dtype", "n", "kappa")
    assert [tuple(row[f] for f in fields) for row in accuracy["rows"]] == list(maker["keys"]())
    methods = {m for f in lk.functions() if f.name == "sqrtm" for m in f.methods}
    assert {row["asked"] for row in accuracy["rows"]} == methods - {"taylor"}
    assert {f"inv_root({p})" for p in (3, 4, 8)} < {row["function"] for row in accuracy["rows"]}
    kappas = {dtype: [] for dtype in ("float64", "complex128", "float32", "complex64")}
    for row in accuracy["rows"]:
        kappas[row["dtype"]].append(row["kappa"])
    assert max(kappas["float64"]) == max(kappas["complex128"]) == 1e15
    assert max(kappas["float32"]) == max(kappas["complex64"]) == 1e6


def check_again(maker, keys):
    references = {}
    for key in keys:
        row = maker["measure"](*key, references=references)
        function, _, dtype, _, _, kappa = key
        claim = 10 * float(np.finfo(dtype).eps) * kappa ** maker["POWER"][function]
        assert row["error"] <= claim, row


def test_accuracy_today_at_the_edge(maker):
    check_again(maker, [k for k in maker["keys"]() if k[2] == "float64" and k[5] == 1e15])


@pytest.mark.slow
def test_accuracy_today_everywhere(maker):
    check_again(maker, maker["keys"]())
