"""Warm-started inverse roots: as good as new ones, and nothing lost when an update fails."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest

import linalgk as lk
from linalgk.testing import mp_funm, relative_error, spd_matrix

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}


def changed(a, change, rng):
    """``(1 - c) A + c G G^H`` with G from the distribution that has the covariance A."""
    rng = np.random.default_rng(rng)
    n, wide = a.shape[-1], a.astype("complex128" if a.dtype.kind == "c" else "float64")
    g = rng.standard_normal((*a.shape[:-1], 4 * n)).astype(wide.dtype)
    if a.dtype.kind == "c":
        g = (g + 1j * rng.standard_normal(g.shape)) / 2**0.5
    g = np.linalg.cholesky(wide) @ g
    b = (1 - change) * wide + change * (g @ np.conj(np.swapaxes(g, -1, -2))) / (4 * n)
    return (0.5 * (b + np.conj(np.swapaxes(b, -1, -2)))).astype(a.dtype)


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8, Fraction(4, 3)], ids=str)
@pytest.mark.parametrize("n", [5, 40])
def test_warm_updates_are_as_accurate_as_new_ones(p, n, dtype):
    kappa = 1e3
    change = 0.02 if EPS[dtype] > 1e-10 else 1e-4
    a = spd_matrix(n, kappa, dtype=dtype, rng=0)
    root = lk.InverseRoot(p)
    root.update(a)
    assert root.fresh
    warm = 0
    for k in range(4):
        a = changed(a, change, k)
        z = root.update(a)
        warm += not root.fresh
        wide = a.astype("complex128" if a.dtype.kind == "c" else "float64")
        want = lk.inv_root(wide, p, method="eigh")
        # the bound of inv_root itself
        assert relative_error(z, want) <= 10 * EPS[dtype] * kappa * 1.2 * max(1, 1 / float(p))
        np.testing.assert_array_equal(z, np.conj(z.T))
        assert z.dtype == a.dtype
        defect = np.linalg.matrix_power(z, Fraction(p).numerator) @ np.linalg.matrix_power(
            a, Fraction(p).denominator
        ) - np.eye(n)
        size = np.linalg.norm(defect) / n**0.5
        bound = 100 * EPS[dtype] * kappa ** (Fraction(p).denominator + 0.5)
        assert size <= bound
        assert root.drift <= bound
    assert warm >= 2


def test_against_fifty_digits():
    a = spd_matrix(12, 1e4, dtype="float32", rng=0)
    root = lk.InverseRoot(4)
    root.update(a)
    b = changed(a, 0.03, 0)
    z = root.update(b)
    assert not root.fresh
    want = mp_funm(b, lambda x: 1 / x**0.25)
    assert relative_error(z, want) <= 10 * EPS["float32"] * 1e4


def test_clustered_and_equal_eigenvalues_do_no_harm():
    """Perturbation of single eigenvectors would divide by their differences."""
    a = np.eye(20) + 0.0
    a[0, 0] = 100.0
    root = lk.InverseRoot(2)
    root.update(a)
    b = changed(a, 1e-3, 0)
    z = root.update(b)
    assert not root.fresh
    assert relative_error(z @ b @ z, np.eye(20)) < 1e-11


@pytest.mark.parametrize("change", [0.5, 1.0])
def test_large_changes_start_afresh(change):
    a = spd_matrix(20, 1e3, rng=0)
    root = lk.InverseRoot(2)
    root.update(a)
    b = spd_matrix(20, 1e3, rng=1) * change
    z = root.update(b)
    assert root.fresh
    np.testing.assert_array_equal(z, lk.inv_root(b, 2, method="eigh"))


def test_repeated_misses_are_not_tried_every_time():
    root = lk.InverseRoot(2)
    for k in range(12):
        root.update(spd_matrix(20, 1e3, rng=k))
        assert root.fresh
    assert root._wait > 0
    a = spd_matrix(20, 1e3, rng=0)
    states = []
    for k in range(20):
        root.update(a * (1 + 1e-9 * k))
        states.append(bool(root.fresh))
    assert not states[-1]


@pytest.mark.parametrize("options", [{"damp": 0.1}, {"rel_damp": 1e-3}, {"rel_damp": [1e-3, 1e-1]}])
def test_damping(options):
    a = spd_matrix(16, 1e6, batch=(2,), rng=0)
    root = lk.InverseRoot(4, **options)
    root.update(a)
    b = changed(a, 1e-4, 0)
    z = root.update(b)
    assert not root.fresh.any()
    want = lk.inv_root(b, 4, **options)
    assert relative_error(z, want).max() < 1e-9
    if "damp" in options:
        assert (root.drift < 1e-11).all()


def test_the_certificate_is_of_the_newest_matrix():
    a = spd_matrix(10, 1e2, rng=0)
    root = lk.InverseRoot(2)
    mutable = a.copy()
    root.update(mutable)
    mutable *= 100.0
    assert root.drift < 1e-12
    np.testing.assert_array_equal(root.value, lk.inv_root(a, 2, method="eigh"))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.eye(3), ValueError), (np.eye(4, dtype="float32"), ValueError),
        (np.ones((2, 4, 4)), ValueError), ("x", TypeError),
        (-np.eye(4), lk.errors.NotPositiveSemidefiniteError),
        (np.zeros((4, 4)), lk.errors.SingularMatrixError),
        (np.full((4, 4), np.nan), lk.errors.NonFiniteError),
        (np.triu(np.ones((4, 4))), lk.errors.AsymmetricError),
    ],
)  # fmt: skip
def test_refused_updates_leave_the_state_alone(bad, error):
    a = spd_matrix(4, 10.0, rng=0)
    root = lk.InverseRoot(2)
    root.update(a)
    before, drift = root.value.copy(), root.drift
    for _ in range(2):
        with pytest.raises(error):
            root.update(bad)
    np.testing.assert_array_equal(root.value, before)
    assert root.drift == drift
    np.testing.assert_array_equal(root.update(a * 1.001).shape, (4, 4))


def test_bad_members_keep_their_last_good_root():
    a = spd_matrix(6, 10.0, batch=(3,), rng=0)
    root = lk.InverseRoot(2)
    first = root.update(a)
    worse = 1.0001 * a
    worse[1] *= -1
    with lk.config_context(on_fail="nan"):
        z = root.update(worse)
    assert np.isnan(z[1]).all()
    assert np.isfinite(z[[0, 2]]).all()
    np.testing.assert_array_equal(root.value[1], first[1])
    np.testing.assert_array_equal(root.value[0], z[0])
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError) as caught:
        root.update(worse)
    assert caught.value.index == ((1,),)
    again = root.update(1.0002 * a)
    assert relative_error(again, lk.inv_root(1.0002 * a, 2)).max() < 1e-12


def test_members_that_fail_at_first_can_recover():
    a = spd_matrix(5, 10.0, batch=(2,), rng=0)
    broken = a.copy()
    broken[0] = np.nan
    root = lk.InverseRoot(4)
    with lk.config_context(on_fail="nan"):
        root.update(broken)
    z = root.update(a)
    assert relative_error(z, lk.inv_root(a, 4)).max() < 1e-12


def test_state_travels():
    a = spd_matrix(8, 1e2, batch=(3,), dtype="complex64", rng=0)
    root = lk.InverseRoot(4, damp=1e-3)
    root.update(a)
    b = changed(a, 0.01, 0)
    other = lk.InverseRoot(4, damp=1e-3)
    other.load_state_dict(root.state_dict())
    copies = [other, pickle.loads(pickle.dumps(root)), copy.deepcopy(root)]
    want = root.update(b)
    for same in copies:
        assert not same.fresh.any()
        got = same.update(b)
        assert not same.fresh.any()
        assert relative_error(got, want).max() < 1e-6
    assert all(isinstance(v, np.ndarray | str) for v in root.state_dict().values())
    with pytest.raises(ValueError, match="p = "):
        lk.InverseRoot(2).load_state_dict(root.state_dict())
    wrong = root.state_dict() | {"value": np.eye(2)}
    with pytest.raises(ValueError, match="value"):
        lk.InverseRoot(4).load_state_dict(wrong)


def test_before_the_first_update():
    root = lk.InverseRoot(2)
    assert root.value is None
    assert root.drift is None
    assert root.fresh is None
    empty = lk.InverseRoot(2)
    empty.load_state_dict(root.state_dict())
    assert empty.value is None
    assert "InverseRoot(2" in repr(root)
    root.update(np.eye(3))
    root.reset()
    assert root.value is None
    root.update(np.eye(5))


def test_other_libraries(xp):
    a = spd_matrix(7, 1e2, batch=(2,), rng=0)
    b = changed(a, 1e-4, 0)
    root = lk.InverseRoot(4)
    z = root.update(xp.asarray(a))
    assert type(z) is type(xp.asarray(a))
    z = root.update(xp.asarray(b))
    assert relative_error(np.asarray(z), lk.inv_root(b, 4)).max() < 1e-12
    assert not np.asarray(root.fresh).any()
    assert type(root.value) is type(z)
    assert (np.asarray(root.drift) < 1e-11).all()
    if xp is not np:
        with pytest.raises(TypeError, match="library"):
            root.update(b)


def test_empty_batches_and_orders():
    for shape in ((0, 3, 3), (2, 0, 0)):
        root = lk.InverseRoot(2)
        for _ in range(2):
            assert root.update(np.empty(shape)).shape == shape
