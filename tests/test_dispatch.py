"""Who is chosen, what is said about it, and what the records hold."""

import dataclasses
import json

import numpy as np
import pytest

import linalgk as lk
from linalgk.matfun import _ops
from linalgk.matfun._paths import choose_method
from linalgk.matfun._roots import SQUARE_ROOT


def spd(n, dtype="float64", batch=()):
    return np.broadcast_to(np.eye(n, dtype=dtype) + 0.1, (*batch, n, n))


@pytest.mark.parametrize(
    ("call", "method", "word"),
    [
        (lambda: lk.explain(lk.sqrtm, spd(4)), "minimax", "fused"),
        (lambda: lk.explain(lk.invsqrtm, spd(8, "float32", (4096,))), "minimax", "fused"),
        (lambda: lk.explain(lk.sqrtm, spd(512)), "eigh", "eigenvectors"),
        (lambda: lk.explain(lk.sqrtm, spd(10, "complex128")), "minimax", "n <= 16"),
        (lambda: lk.explain(lk.sqrtm, spd(100, "complex64")), "eigh", "eigenvectors"),
        (lambda: lk.explain(lk.sqrtm, np.triu(np.ones((9, 9)))), "schur", "not Hermitian"),
        (lambda: lk.explain(lk.invsqrtm, spd(8), rel_damp=1e-6), "eigh", "spectrum"),
        (lambda: lk.explain(lk.invsqrtm, spd(64), method="minimax", tol=1e-3), "minimax", "asked"),
        (lambda: lk.explain(lk.sqrtm, np.array([[2, 1], [1, 3]])), "minimax", "fused"),
        (lambda: lk.explain(lk.sqrtm, [[1.0, 2.0], [0.0, 4.0]]), "closed_form", "n <= 2"),
        (lambda: lk.explain(lk.minimax_schedule, 1e-3), "remez", "one method"),
    ],
)
def test_explain(call, method, word):
    e = call()
    assert e.method == method
    assert word in e.reason
    assert method in str(e)
    row = json.loads(json.dumps(e.to_dict()))
    assert row["flops"] > 0
    assert row["function"] in ("sqrtm", "invsqrtm", "minimax_schedule")


def test_explain_agrees_with_what_runs():
    for a in (spd(4), spd(40), spd(8, "complex128"), np.triu(np.ones((9, 9))) + np.eye(9)):
        _, info = lk.sqrtm(a, return_info=True)
        assert info.method == lk.explain(lk.sqrtm, a).method


def test_explain_says_when_only_the_reference_runs():
    strict = pytest.importorskip("array_api_strict")
    e = lk.explain(lk.sqrtm, strict.asarray(spd(4).copy()))
    assert all("reference" in how for how in e.implementations.values())
    with lk.config_context(backend="reference"):
        e = lk.explain(lk.sqrtm, spd(4))
    assert "reference" in e.implementations["small_root"]


def test_explain_needs_one_of_ours():
    with pytest.raises(TypeError, match="public function"):
        lk.explain(np.linalg.eigh, spd(3))


def test_backend_policy():
    a = spd(6)
    with lk.config_context(backend="reference"):
        reference = lk.sqrtm(a)
    with lk.config_context(backend="kernel"):
        kernel = lk.sqrtm(a)
        strict = pytest.importorskip("array_api_strict")
        with pytest.raises(TypeError, match="no kernel"):
            lk.sqrtm(strict.asarray(a.copy()))
    np.testing.assert_allclose(reference, kernel, rtol=1e-13)
    # really two computations
    assert _ops.SMALL_ROOT.choose(a[None])[0] is not None


@pytest.mark.parametrize(
    ("n", "dtype", "hermitian", "spectrum", "method"),
    [
        (1, "float64", True, False, "closed_form"),
        (2, "float64", True, False, "minimax"),
        (32, "float32", True, False, "minimax"),
        (33, "float32", True, False, "eigh"),
        (16, "complex64", True, False, "minimax"),
        (17, "complex64", True, False, "eigh"),
        (8, "float64", True, True, "eigh"),
        (2, "float64", False, False, "closed_form"),
        (3, "float64", False, False, "schur"),
    ],
)
def test_choice_rule(n, dtype, hermitian, spectrum, method):
    assert choose_method(SQUARE_ROOT, n, dtype, hermitian=hermitian, spectrum=spectrum)[0] == method


def test_records_are_frozen_and_plain():
    for record in (*lk.functions(), *lk.ops()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.name = "x"
        assert json.loads(json.dumps(record.to_dict()))["name"] == record.name


def test_samples_run():
    for f in lk.functions():
        for size in ("small", "medium", "large"):
            args, kwargs = f.sample(size, xp=np, rng=0)
            again, _ = f.sample(size, xp=np, rng=0)
            given, same = (x if isinstance(x, list) else [x] for x in (args[0], again[0]))
            for one, other in zip(given, same, strict=True):
                np.testing.assert_array_equal(one, other)
            assert f.function(*args, **kwargs) is not None


def test_config_context_nests_and_restores():
    from linalgk._config import current

    assert current().on_fail == "raise"
    with lk.config_context(on_fail="nan", num_threads=1):
        with lk.config_context(on_fail="warn"):
            assert (current().on_fail, current().num_threads) == ("warn", 1)
        assert current().on_fail == "nan"
    assert current().on_fail == "raise"


@pytest.mark.parametrize(
    "bad", [{"on_fail": "x"}, {"backend": "gpu"}, {"num_threads": 0}, {"num_threads": 1.5}]
)
def test_config_context_checks(bad):
    with pytest.raises(ValueError, match=next(iter(bad))), lk.config_context(**bad):
        pass


def test_show_config(capsys):
    config = lk.show_config(mode="dicts")
    assert json.loads(json.dumps(config)) == config
    assert config["threads"]["num_threads"] >= 1
    assert lk.show_config() is None
    assert "blas" in capsys.readouterr().out
    with pytest.raises(ValueError, match="mode"):
        lk.show_config(mode="x")
