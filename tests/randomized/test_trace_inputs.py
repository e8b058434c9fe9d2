"""Traces and diagonals: kinds of input, what comes back, failures."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from spectra import EPS, gaussian, spectrum

import linalgk as lk
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotPositiveSemidefiniteError,
)
from linalgk.randomized._trace import choose_method

ALL = [
    ("xtrace", "gen"), ("xtrace", "her"), ("xnystrace", "pos"), ("hutchpp", "gen"),
    ("hutchpp", "pos"), ("hutchinson", "gen"),
]  # fmt: skip


# --- Kinds of input ------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "assume"), ALL)
def test_dtypes_agree_with_doubles(method, assume, dtype):
    a = spectrum(0.7 ** np.arange(80.0), dtype)
    t = lk.estimate_trace(a, 30, method=method, assume_a=assume, rng=3)
    wide = lk.estimate_trace(
        a.astype(np.result_type(dtype, "float64")), 30, method=method, assume_a=assume, rng=3
    )
    assert np.asarray(t.std_error).dtype == np.zeros(0, dtype).real.dtype
    assert abs(t.value - wide.value) < 64 * EPS[dtype] * math.sqrt(80) * np.linalg.norm(a)


def test_batches_and_members_alone():
    a = gaussian((2, 3, 60, 60))
    t = lk.estimate_trace(a, 20, rng=4)
    assert t.value.shape == t.std_error.shape == t.dof.shape == t.n_matvecs.shape == (2, 3)
    assert t.value[1, 2] == lk.estimate_trace(a[1, 2], 20, rng=4).value
    low, high = t.interval(0.9)
    assert (low < t.value).all()
    assert (t.value < high).all()
    one = lk.estimate_trace(a[1, 2], 20, rng=4).interval(0.9)
    assert (low[1, 2], high[1, 2]) == one
    d = lk.estimate_diagonal(a, 20, rng=4)
    assert d.value.shape == (2, 3, 60)
    assert (d.interval()[1][1, 2] == lk.estimate_diagonal(a[1, 2], 20, rng=4).interval()[1]).all()


def test_layouts_sparse_and_operators(dtype):
    a = gaussian((60, 60), dtype)
    t = lk.estimate_trace(a, 20, rng=4)
    d = lk.estimate_diagonal(a, 20, rng=4)
    bound = 64 * EPS[dtype] * math.sqrt(60) * np.linalg.norm(a)
    fortran, before = np.asfortranarray(a), a.copy()
    fortran.flags.writeable = False
    strided = np.repeat(a, 2, axis=0)[::2]
    for other in (fortran, strided, scipy.sparse.csr_array(a), scipy.sparse.coo_array(a),
                  aslinearoperator(a)):  # fmt: skip
        assert abs(lk.estimate_trace(other, 20, rng=4).value - t.value) < bound
        assert np.abs(lk.estimate_diagonal(other, 20, rng=4).value - d.value).max() < bound
    assert (a == before).all()


def test_integers_and_lists():
    t = lk.estimate_trace([[2, 1], [1, 3]])
    assert float(t) == 5
    assert t.value.dtype == np.float64


def test_operators_without_an_adjoint():
    a = gaussian((50, 50))
    operator = LinearOperator((50, 50), matvec=lambda x: a @ x, dtype=a.dtype)
    assert (
        abs(lk.estimate_trace(operator, 20, rng=0).value - lk.estimate_trace(a, 20, rng=0).value)
        < 1e-11
    )
    s = a + a.T
    operator = LinearOperator((50, 50), matvec=lambda x: s @ x, dtype=a.dtype)
    assert lk.estimate_diagonal(operator, 20, assume_a="her", rng=0).method == "xdiag"


def test_other_libraries(xp):
    a = gaussian((2, 50, 50))
    theirs = xp.asarray(a)
    mine = lk.estimate_trace(a, 20, rng=4)
    for method in ("xtrace", "hutchpp", "hutchinson"):
        mine = lk.estimate_trace(a, 20, method=method, rng=4)
        t = lk.estimate_trace(theirs, 20, method=method, rng=4)
        assert type(t.value) is type(theirs)
        assert type(t.info.converged) is type(theirs)
        assert np.abs(lk.testing.to_numpy(t.value) - mine.value).max() < 1e-10
        for end, wanted in zip(t.interval(), mine.interval(), strict=True):
            assert np.abs(lk.testing.to_numpy(end) - wanted).max() < 1e-9
    for method in ("xdiag", "diagpp", "hutchinson"):
        mine = lk.estimate_diagonal(a, 20, method=method, rng=4)
        d = lk.estimate_diagonal(theirs, 20, method=method, rng=4)
        assert np.abs(lk.testing.to_numpy(d.value) - mine.value).max() < 1e-10
        assert np.abs(lk.testing.to_numpy(d.std_error) - mine.std_error).max() < 1e-10
        assert np.abs(lk.testing.to_numpy(d.interval()[0]) - mine.interval()[0]).max() < 1e-9
    square = theirs[0, ...] @ theirs[0, ...].T
    t = lk.estimate_trace(square, 20, assume_a="pos", rng=4)
    wanted = lk.estimate_trace(a[0] @ a[0].T, 20, assume_a="pos", rng=4)
    assert abs(float(t) - wanted.value) < 1e-9
    assert lk.estimate_trace(theirs, 50).method == "exact"


def test_arrays_of_a_device_stay_there(cuda):
    a = gaussian((2, 50, 50))
    for method in ("xtrace", "hutchpp", "hutchinson"):
        t = lk.estimate_trace(cuda.array(a), 20, method=method, rng=4)
        wanted = lk.estimate_trace(a, 20, method=method, rng=4)
        assert type(t.value) is type(cuda.array(a))
        assert np.abs(cuda.host(t.value) - wanted.value).max() < 1e-10
        assert np.abs(cuda.host(t.interval()[1]) - wanted.interval()[1]).max() < 1e-9
    s = a[0] @ a[0].T
    t = lk.estimate_trace(cuda.array(s), 20, assume_a="pos", rng=4)
    assert abs(float(t) - lk.estimate_trace(s, 20, assume_a="pos", rng=4).value) < 1e-9
    for method in ("xdiag", "diagpp", "hutchinson"):
        d = lk.estimate_diagonal(cuda.array(a), 20, method=method, rng=4)
        wanted = lk.estimate_diagonal(a, 20, method=method, rng=4)
        assert np.abs(cuda.host(d.value) - wanted.value).max() < 1e-10
        assert np.abs(cuda.host(d.std_error) - wanted.std_error).max() < 1e-10


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize(("method", "assume"), ALL)
def test_huge_and_tiny_entries(method, assume, scale):
    a = spectrum(0.8 ** np.arange(60.0))
    t = lk.estimate_trace(a, 24, method=method, assume_a=assume, rng=1)
    far = lk.estimate_trace(scale * a, 24, method=method, assume_a=assume, rng=1)
    assert abs(far.value / scale - t.value) < 1e-12
    assert abs(far.std_error / scale - t.std_error) < 1e-9 * t.std_error + 1e-13
    d = lk.estimate_diagonal(scale * a, 24, rng=1)
    assert np.abs(d.value / scale - lk.estimate_diagonal(a, 24, rng=1).value).max() < 1e-12


# --- The result ----------------------------------------------------------------------------------


def test_estimates_unpack_pickle_and_show():
    a = spectrum(np.linspace(1, 2, 80))
    t = lk.estimate_trace(a, 20, rng=0)
    value, error = t
    assert (value, error) == (t.value, t.std_error)
    assert isinstance(t, lk.Estimate)
    assert float(t) == t.value == complex(t)
    copy = pickle.loads(pickle.dumps(t))
    assert copy.interval() == t.interval()
    assert repr(t).startswith("Estimate(1")
    assert "method='xtrace', n_matvecs=20" in repr(t)
    assert "shape (80,)" in repr(lk.estimate_diagonal(a, 20))
    assert t.bounds is None
    assert t.info.method == t.method
    assert t.info.seed == t.seed
    assert abs(t.info.error_estimate - error / value) < 1e-15
    # Student's quantile with 9 degrees of freedom
    low, high = t.interval(0.95)
    assert abs((high - low) / 2 / error - 2.262157) < 1e-5
    assert t.interval(0.99)[0] < low
    for level in (0, 1, 1.5):
        with pytest.raises(ValueError, match="level"):
            t.interval(level)


def test_one_probe_has_no_error():
    t = lk.estimate_trace(gaussian((30, 30)), 2, rng=0)
    assert t.method == "hutchinson"
    one = lk.estimate_diagonal(gaussian((30, 30)), 2, method="hutchinson", rng=0)
    assert np.isfinite(one.std_error).all()
    assert t.dof == 1


def test_complex_values():
    a = gaussian((60, 60), "complex128")
    t = lk.estimate_trace(a, 30, rng=0)
    low, high = t.interval(0.999)
    assert low.real < np.trace(a).real < high.real
    assert low.imag < np.trace(a).imag < high.imag
    with pytest.raises(TypeError):
        float(t)
    assert complex(t) == t.value


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("method", "assume"), [*ALL, ("exact", "gen")])
def test_nan(method, assume, bad):
    a = np.stack([spectrum(np.linspace(1, 2, 40))] * 3)
    a[1, 5, 5] = bad
    options = {"method": method, "assume_a": assume, "rng": 0}
    with pytest.raises(
        NonFiniteError, match=r"a holds NaN or infinity \(batch members \(1,\)\)"
    ) as e:
        lk.estimate_trace(a, 20, **options)
    assert e.value.index == ((1,),)
    quiet = lk.estimate_trace(a, 20, on_fail="nan", **options)
    assert np.isnan(quiet.value).tolist() == [False, True, False]
    assert quiet.converged.tolist() == [True, False, True]
    alone = lk.estimate_trace(a[2], 20, **options)
    assert quiet.value[2] == alone.value
    with pytest.warns(ConvergenceWarning):
        lk.estimate_trace(a, 20, on_fail="warn", **options)
    assert np.isnan(lk.estimate_trace(a, 20, check_finite=False, **options).value[1])
    d = lk.estimate_diagonal(a, 20, on_fail="nan", rng=0)
    assert np.isnan(d.value[1]).all()
    assert np.isfinite(d.value[[0, 2]]).all()


def test_nan_in_other_kinds():
    a = spectrum(np.linspace(1, 2, 40))
    a[3, 4] = math.nan
    for other in (scipy.sparse.csr_array(a), aslinearoperator(a)):
        with pytest.raises(NonFiniteError, match="NaN"):
            lk.estimate_trace(other, 20)
        with pytest.raises(NonFiniteError, match="NaN"):
            lk.estimate_diagonal(other, 20)


def test_wrong_structure():
    a = gaussian((50, 50))
    for method, assume in (("xtrace", "her"), ("xnystrace", "pos"), ("hutchpp", "her")):
        with pytest.raises(AsymmetricError, match="a is not Hermitian"):
            lk.estimate_trace(a, 20, method=method, assume_a=assume, rng=0)
    with pytest.raises(AsymmetricError, match="a is not Hermitian"):
        lk.estimate_diagonal(a, 20, assume_a="her", rng=0)
    # one pair of entries is enough
    s = spectrum(np.linspace(1, 2, 50))
    s[3, 7] += 1e-4
    with pytest.raises(AsymmetricError, match="symmetrise"):
        lk.estimate_trace(s, 20, assume_a="pos", rng=0)
    indefinite = spectrum(np.linspace(-1, 2, 50))
    with pytest.raises(NotPositiveSemidefiniteError, match="assume_a"):
        lk.estimate_trace(indefinite, 20, assume_a="pos", rng=0)
    assert lk.estimate_trace(indefinite, 20, assume_a="her", rng=0).std_error > 0


def test_a_wrong_adjoint_is_found():
    a = gaussian((50, 50))
    wrong = LinearOperator((50, 50), matvec=lambda x: a @ x, rmatvec=lambda x: a @ x, dtype=float)
    with pytest.raises(ValueError, match="adjoint is not that of the product"):
        lk.estimate_diagonal(wrong, 20, check_adjoint=True)
    right = LinearOperator((50, 50), matvec=lambda x: a @ x, rmatvec=lambda x: a.T @ x, dtype=float)
    assert lk.estimate_diagonal(right, 20, check_adjoint=True).method == "xdiag"


def test_bad_arguments():
    a = np.eye(30)
    cases = [
        (ValueError, "n, n", lambda: lk.estimate_trace(np.ones((3, 4)), 2)),
        (ValueError, "a: must have shape", lambda: lk.estimate_trace(np.ones(3), 2)),
        (ValueError, "method: must be one of", lambda: lk.estimate_trace(a, 9, method="slq")),
        (ValueError, "assume_a: must be", lambda: lk.estimate_trace(a, 9, assume_a="sym")),
        (ValueError, "needs assume_a='pos'", lambda: lk.estimate_trace(a, 9, method="xnystrace")),
        (ValueError, "n_matvecs: 'xtrace' needs at least 4, got 3",
         lambda: lk.estimate_trace(a, 3, method="xtrace")),
        (ValueError, "n_matvecs: must be at least 1", lambda: lk.estimate_trace(a, 0)),
        (TypeError, "n_matvecs: must be an integer", lambda: lk.estimate_trace(a, 2.5)),
        (ValueError, "probes: must be one of", lambda: lk.estimate_trace(a, 9, probes="cube")),
        (ValueError, "block: must be at least 1", lambda: lk.estimate_trace(a, 9, block=0)),
        (ValueError, "tol: must be at least", lambda: lk.estimate_trace(a, 9, tol=1e-16)),
        (ValueError, "level", lambda: lk.estimate_trace(a, 9, tol=0.1, level=1.0)),
        (ValueError, "at least 5", lambda: lk.estimate_diagonal(a, 4, method="diagpp")),
        (ValueError, "method: must be one of", lambda: lk.estimate_diagonal(a, 9, method="xtrace")),
        (TypeError, "a: must be an array", lambda: lk.estimate_trace("a", 9)),
    ]  # fmt: skip
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()


def test_tensors_that_require_grad():
    torch = pytest.importorskip("torch")
    a = torch.eye(20, requires_grad=True)
    with pytest.raises(TypeError, match="requires grad"):
        lk.estimate_trace(a, 10)


def test_choice_of_the_method():
    trace, diagonal = "estimate_trace", "estimate_diagonal"
    assert choose_method(trace, 1000, 50)[0] == "xtrace"
    assert choose_method(trace, 1000, 50, assume_a="pos")[0] == "xnystrace"
    assert choose_method(diagonal, 1000, 50)[0] == "xdiag"
    assert choose_method(trace, 1000, 4)[0] == "hutchinson"
    assert choose_method(trace, 1000, 1000)[0] == "exact"
    assert choose_method(trace, 1000, 1000, tol=0.1)[0] == "xtrace"
    assert choose_method(trace, 1000, 9, method="hutchpp")[0] == "hutchpp"
