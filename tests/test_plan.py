"""Plans: the same answers, memory taken once, refusals that name the kinds."""

import tracemalloc

import numpy as np
import pytest

import linalgk as lk
from linalgk.testing import relative_error, spd_matrix

ROOTS = [(lk.sqrtm, ()), (lk.invsqrtm, ()), (lk.inv_root, (4,)), (lk.inv_root, (3,))]


@pytest.mark.parametrize(("f", "more"), ROOTS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 8, 8), (2, 2, 33, 33), (3, 70, 70)])
def test_a_plan_gives_what_the_function_gives(f, more, shape, dtype):
    a = spd_matrix(shape[-1], 1e3, batch=shape[:-2], dtype=dtype, rng=0)
    plan = lk.plan(f, lk.ArraySpec(shape, dtype), *more, assume_a="pos")
    assert plan.status is None
    before = a.copy()
    out = np.empty_like(a)
    assert plan(a, out=out) is out
    np.testing.assert_array_equal(a, before)
    np.testing.assert_array_equal(out, f(a, *more, assume_a="pos"))
    np.testing.assert_array_equal(plan(a), out)
    assert plan.status.shape == shape[:-2]
    assert not np.any(plan.status)
    strided = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
    plan(np.asfortranarray(a), out=strided)
    np.testing.assert_array_equal(strided, out)
    assert plan.explain().method == lk.explain(f, a, *more, assume_a="pos").method or shape[-1] == 1


@pytest.mark.parametrize("options", [{"damp": 0.1}, {"rel_damp": 1e-3}, {"rcond": 1e-6}])
@pytest.mark.parametrize("n", [6, 40])
def test_damping(options, n):
    a = spd_matrix(n, 1e5, batch=(3,), rng=0)
    plan = lk.plan(lk.inv_root, a, 4, assume_a="pos", **options)
    want = lk.inv_root(a, 4, assume_a="pos", **options)
    assert relative_error(plan(a), want).max() < 1e-12


@pytest.mark.parametrize("n", [6, 40, 150])
@pytest.mark.parametrize("p", [2, 3, 4])
def test_fixed_steps_of_products(n, p):
    a = spd_matrix(n, 1e2, batch=(3,), rng=0)
    plan = lk.plan(lk.inv_root, a, p, assume_a="pos", steps=14)
    assert plan.explain().method == "minimax"
    # a schedule that serves conditions up to 1e8 has coefficients that amplify rounding by its root
    bound = 10 * np.finfo(float).eps * 1e8**0.5
    assert relative_error(plan(a), lk.inv_root(a, p)).max() < bound
    root = lk.plan(lk.sqrtm, a, assume_a="pos", steps=16)
    assert relative_error(root(a), lk.sqrtm(a)).max() < bound
    damped = lk.plan(lk.inv_root, a, p, assume_a="pos", steps=12, rel_damp=1e-2)
    want = lk.inv_root(a, p, assume_a="pos", rel_damp=1e-2)
    # the largest eigenvalue is estimated from below, to 1e-2 or better by 20 Lanczos steps
    assert relative_error(damped(a), want).max() < 1e-2 / p


def test_scaling_is_exact_with_fixed_steps():
    a = spd_matrix(40, 1e2, rng=0)
    plan = lk.plan(lk.inv_root, a, 4, assume_a="pos", steps=12)
    np.testing.assert_array_equal(plan(a * 2.0**-400), plan(a) * 2.0**100)


@pytest.mark.parametrize("n", [8, 40, 100])
@pytest.mark.parametrize("options", [{}, {"steps": 10}])
def test_no_matrix_is_allocated(n, options):
    a = np.ascontiguousarray(spd_matrix(n, 1e2, batch=(200_000 // n**2 + 2,), rng=0))
    plan = lk.plan(lk.inv_root, a, 4, assume_a="pos", on_fail="nan", **options)
    assert plan.workspace_nbytes > a.nbytes
    out = np.empty_like(a)
    plan(a, out=out)
    tracemalloc.start()
    plan(a, out=out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # eigenvalues, statuses and one matrix of a thread, but nothing of the size of the batch
    assert peak < a.nbytes / 3


def test_failures():
    a = spd_matrix(5, 10.0, batch=(4,), rng=0)
    bad = a.copy()
    bad[1] *= -1
    bad[2, 0, 0] = np.nan
    loud = lk.plan(lk.inv_root, a, 4, assume_a="pos")
    with pytest.raises(lk.errors.MemberError) as caught:
        loud(bad)
    assert caught.value.index == ((1,), (2,))
    quiet = lk.plan(lk.inv_root, a, 4, assume_a="pos", on_fail="nan")
    got = quiet(bad)
    assert (quiet.status != 0).tolist() == [False, True, True, False]
    assert np.isnan(got[[1, 2]]).all()
    np.testing.assert_array_equal(got[[0, 3]], lk.inv_root(a, 4)[[0, 3]])
    quiet(a)
    assert not quiet.status.any()
    large = spd_matrix(40, 10.0, batch=(3,), rng=0)
    plan = lk.plan(lk.invsqrtm, large, assume_a="pos", on_fail="nan")
    large[1] *= -1
    large[2, 3, 4] = np.inf
    plan(large)
    assert (plan.status != 0).tolist() == [False, True, True]


def test_refusals():
    a = spd_matrix(4, 10.0, rng=0)
    plan = lk.plan(lk.sqrtm, a, assume_a="pos")
    for other in (np.eye(5), a.astype("float32"), np.stack([a, a]), a.tolist(), 3.0):
        with pytest.raises(ValueError, match=r"plan of sqrtm: made for ndarray \(4, 4\) float64"):
            plan(other)
    with pytest.raises(ValueError, match="got"):
        plan(a, out=np.empty((5, 5)))
    with pytest.raises(ValueError, match="assume_a"):
        lk.plan(lk.sqrtm, a)
    with pytest.raises(ValueError, match="assume_a"):
        lk.plan(lk.sqrtm, a, assume_a="gen")
    with pytest.raises(ValueError, match="out"):
        lk.plan(lk.sqrtm, a, assume_a="pos", out=a)
    with pytest.raises(
        TypeError,
        match="no plans; there are plans for fwht, inv_root, invsqrtm, kron_matmul, sqrtm",
    ):
        lk.plan(lk.logm, a)
    with pytest.raises(TypeError, match="public function"):
        lk.plan(np.linalg.inv, a)
    with pytest.raises(ValueError, match="p: must be positive"):
        lk.plan(lk.inv_root, a, -1, assume_a="pos")
    assert "Plan(sqrtm" in repr(plan)


def test_other_libraries(xp):
    a = spd_matrix(6, 10.0, batch=(2,), rng=0)
    spec = lk.ArraySpec(a.shape, "float64", xp=xp)
    plan = lk.plan(lk.inv_root, spec, 4, assume_a="pos", on_fail="nan")
    x = xp.asarray(a)
    got = plan(x)
    assert type(got) is type(x)
    assert relative_error(np.asarray(got), lk.inv_root(a, 4)).max() < 1e-12
    assert not np.asarray(plan.status).any()
    if xp is not np:
        with pytest.raises(ValueError, match="plan of inv_root"):
            plan(a)


def test_records_say_which_functions_have_plans():
    assert {f.name for f in lk.functions() if f.plan} == {
        *("fwht", "inv_root", "invsqrtm", "kron_matmul", "sqrtm"),
    }
    assert [f.to_dict()["plan"] for f in lk.functions() if f.name == "sqrtm"] == [True]
