"""Lists of arrays: grouped by shape, each as it would be alone."""

import numpy as np
import pytest

import linalgk as lk


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(3, 5), (4, 4), (3, 5), (2, 3, 5), (4, 4), (3, 5)]
    found = [rng.standard_normal(shape) for shape in shapes]
    found[5] = found[5].astype(np.float32)
    return found


def test_each_as_alone_in_one_call_a_shape(monkeypatch):
    some, calls = arrays(), []

    def counted(x, **options):
        calls.append(x.shape)
        return lk.orthogonalize(x, **options)

    got = lk.foreach(counted, some, coeffs="muon")
    assert calls == [(2, 3, 5), (2, 4, 4), (1, 2, 3, 5), (1, 3, 5)]
    for x, y in zip(some, got, strict=True):
        want = lk.orthogonalize(x, coeffs="muon")
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, want)


def test_arguments_and_info():
    some = [np.eye(3) * 16, np.eye(2) * 81, np.eye(3)]
    got = lk.foreach(lk.inv_root, some, 4, return_info=True)
    assert [float(x[0, 0]) for x, _ in got] == [0.5, 1 / 3, 1.0]
    for x, info in got:
        assert x.ndim == 2
        assert info.converged.shape == ()
        assert info.converged


def test_libraries_stay_themselves(xp):
    some = [xp.asarray(x) for x in arrays()]
    got = lk.foreach(lk.orthogonalize, [*some, np.ones((3, 5))])
    assert type(got[-1]) is np.ndarray
    for x, y in zip(some, got, strict=False):
        assert type(x) is type(y)
        assert tuple(x.shape) == tuple(y.shape)


def test_failures_name_positions_and_leave_the_others():
    some = arrays()
    some[2][1, 1] = np.nan
    some[3][1, 0, 0] = np.inf
    with pytest.raises(lk.errors.NonFiniteError, match="positions in arrays: 2, 3") as caught:
        lk.foreach(lk.orthogonalize, some)
    assert caught.value.index == ((2,), (3, 1))
    result = caught.value.result
    for k in (0, 1, 4, 5):
        np.testing.assert_array_equal(result[k], lk.orthogonalize(some[k]))
    assert np.isnan(result[2]).all()
    np.testing.assert_array_equal(result[3][0], lk.orthogonalize(some[3][0]))
    silent = lk.foreach(lk.orthogonalize, some, on_fail="nan")
    assert np.isnan(silent[2]).all()


def test_nothing_and_what_is_no_list():
    assert lk.foreach(lk.sqrtm, []) == []
    with pytest.raises(TypeError, match="must be a list of arrays"):
        lk.foreach(lk.sqrtm, np.eye(3)[None])
    with pytest.raises(TypeError, match="item 1 is no array but list"):
        lk.foreach(lk.sqrtm, [np.eye(2), [[1.0]]])
