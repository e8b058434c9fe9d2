"""Bad input: a clear error, nothing lost, other members unharmed."""

import pickle

import numpy as np
import pytest

import linalgk as lk
from linalgk.testing import spd_matrix

E = lk.errors


@pytest.mark.parametrize("f", [lk.sqrtm, lk.invsqrtm])
@pytest.mark.parametrize(
    ("a", "error", "text"),
    [
        (np.ones(3), ValueError, r"a: must have shape \(\.\.\., n, n\), got \(3,\)"),
        (np.ones((2, 3)), ValueError, r"got \(2, 3\)"),
        (np.ones((4, 2, 3)), ValueError, r"got \(4, 2, 3\)"),
        (np.eye(3, dtype="float16"), TypeError, "float16"),
        (np.eye(3, dtype="longdouble"), TypeError, "dtype"),
        (np.array([["a"]]), TypeError, "dtype"),
        (np.array([[None]]), TypeError, "dtype"),
        ("text", TypeError, "a: must be an array"),
        (None, TypeError, "a: must be an array"),
        ([np.eye(2), np.eye(2)], TypeError, "list of arrays"),
        ([[1.0, 2.0], [3.0]], ValueError, "rectangular"),
        (np.ma.masked_array(np.eye(2), mask=np.eye(2) > 0), TypeError, "masked"),
    ],
)
def test_what_is_no_square_matrix(f, a, error, text):
    with pytest.raises(error, match=text):
        f(a)


def test_sparse_matrices_are_told_apart():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="toarray"):
        lk.sqrtm(sparse.eye_array(3))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "magic"}, ValueError, "method"),
        ({"assume_a": "sym"}, ValueError, "assume_a"),
        ({"on_fail": "ignore"}, ValueError, "on_fail"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"tol": "x"}, TypeError, "tol"),
        ({"steps": 0}, ValueError, "steps"),
        ({"tol": 1e-3, "steps": 3}, ValueError, "tol and steps"),
        ({"method": "eigh", "tol": 1e-3}, ValueError, "direct"),
        ({"method": "closed_form"}, ValueError, "n <= 2"),
        ({"method": "schur", "assume_a": "pos"}, ValueError, "general"),
        ({"compute_dtype": "float16"}, ValueError, "compute_dtype"),
        ({"compute_dtype": "complex128"}, ValueError, "complex"),
        ({"rel_damp": 1e-3, "steps": 9}, ValueError, "spectrum"),
        ({"rcond": 1e-3, "tol": 1e-3}, ValueError, "spectrum"),
        ({"damp": -1.0}, ValueError, "damp"),
        ({"damp": np.ones(2)}, ValueError, "damp"),
        ({"damp": "x"}, TypeError, "damp"),
        ({"rel_damp": float("nan")}, ValueError, "rel_damp"),
        ({"rcond": 2.0}, ValueError, "rcond"),
        ({"rel_damp": 0.1, "method": "minimax"}, ValueError, "spectrum"),
        ({"rel_damp": 0.1, "assume_a": "gen"}, ValueError, "spectrum"),
    ],
)
def test_bad_options(options, error, text):
    with pytest.raises(error, match=text):
        lk.invsqrtm(np.eye(4), **options)


def test_mixed_libraries():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match=r"a is .*damp is"):
        lk.invsqrtm(np.eye(3), damp=strict.asarray(1.0))
    with pytest.raises(TypeError, match="out"):
        lk.sqrtm(np.eye(3), out=strict.asarray(np.eye(3)))


# ---- numerical failures, by kind ----


def broken(kind, n):
    """A batch (2, 3) whose members (0, 1) and (1, 2) are bad."""
    a = spd_matrix(n, 10.0, batch=(2, 3), rng=0)
    for index in ((0, 1), (1, 2)):
        if kind == "nan":
            a[(*index, n - 1, 0)] = np.nan
        elif kind == "inf":
            a[(*index, 0, n - 1)] = np.inf
        elif kind == "indefinite":
            a[index] -= 2 * np.eye(n)
        elif kind == "singular":
            a[index] = 0
            a[(*index, 0, 0)] = 1
        elif kind == "asymmetric":
            a[(*index, 0, n - 1)] += 0.5
        elif kind == "negative real":
            a[index] = np.triu(np.ones((n, n))) - 2 * np.eye(n)
        elif kind == "no root":
            a[index] = np.eye(n, k=1)
    return a


KINDS = [
    ("nan", lk.sqrtm, {}, E.NonFiniteError, "NaN or infinity"),
    ("inf", lk.invsqrtm, {}, E.NonFiniteError, "NaN or infinity"),
    ("indefinite", lk.sqrtm, {}, E.NotPositiveSemidefiniteError, "negative eigenvalue -"),
    ("indefinite", lk.invsqrtm, {}, E.NotPositiveSemidefiniteError, "pass a \\+ 0j"),
    ("singular", lk.invsqrtm, {}, E.SingularMatrixError, "damp"),
    ("asymmetric", lk.sqrtm, {"assume_a": "pos"}, E.AsymmetricError, "not Hermitian"),
    ("asymmetric", lk.invsqrtm, {"rel_damp": 0.1}, E.AsymmetricError, "not Hermitian"),
    ("negative real", lk.sqrtm, {}, E.NoRealRootError, "pass a \\+ 0j"),
    ("negative real", lk.invsqrtm, {}, E.NoRealRootError, "pass a \\+ 0j"),
    ("no root", lk.sqrtm, {}, E.NotConvergedError, "no root"),
]


@pytest.mark.parametrize(("kind", "f", "options", "error", "text"), KINDS)
@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("policy", ["raise", "warn", "nan"])
def test_bad_members_are_named_and_the_others_unharmed(kind, f, options, error, text, n, policy):
    a = broken(kind, n)
    bad = np.zeros((2, 3), bool)
    bad[0, 1] = bad[1, 2] = True
    good = f(a[~bad], **options)
    if policy == "raise":
        with pytest.raises(error, match=text) as caught:
            f(a, return_info=True, on_fail=policy, **options)
        assert caught.value.index == ((0, 1), (1, 2))
        assert "(0, 1), (1, 2)" in str(caught.value)
        assert isinstance(caught.value, (np.linalg.LinAlgError, ValueError))
        x, info = caught.value.result
    elif policy == "warn":
        with pytest.warns(E.ConvergenceWarning, match=text):
            x, info = f(a, return_info=True, on_fail=policy, **options)
    else:
        with lk.config_context(on_fail="nan"):
            x, info = f(a, return_info=True, **options)
    assert np.isnan(x[bad]).all()
    np.testing.assert_array_equal(x[~bad], good)
    np.testing.assert_array_equal(info.converged, ~bad)
    assert np.isnan(info.error_estimate[bad]).all()


def test_check_finite_off_is_silent():
    a = broken("nan", 5)
    for n in (5, 40):
        a = broken("nan", n)
        x = lk.sqrtm(a, check_finite=False)
        assert np.isnan(x[0, 1]).all()
        assert np.isfinite(x[0, 0]).all()
        with lk.config_context(check_finite=False):
            np.testing.assert_array_equal(lk.sqrtm(a), x)


def test_two_kinds_at_once_are_both_named():
    a = broken("nan", 5)
    a[1, 0] = -np.eye(5)
    with pytest.raises(E.NonFiniteError) as caught:
        lk.sqrtm(a)
    assert caught.value.index == ((0, 1), (1, 0), (1, 2))
    with pytest.warns(E.ConvergenceWarning, match=r"NaN or infinity.*negative eigenvalue"):
        lk.sqrtm(a, on_fail="warn")


def test_single_matrix_has_an_empty_index():
    with pytest.raises(E.NotPositiveSemidefiniteError) as caught:
        lk.sqrtm(-np.eye(3))
    assert caught.value.index == ((),)
    assert np.isnan(caught.value.result).all()


def test_errors_survive_a_process_pool():
    with pytest.raises(E.MemberError) as caught:
        lk.sqrtm(broken("indefinite", 3))
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert (str(again), again.index) == (str(caught.value), caught.value.index)
    np.testing.assert_array_equal(again.result, caught.value.result)


def test_rounding_is_no_indefiniteness():
    # a Gram matrix of too few vectors has eigenvalues -1e-17
    x = np.random.default_rng(0).standard_normal((30, 10))
    for a in (x @ x.T, (x @ x.T).astype("float32")):
        root = lk.sqrtm(a, assume_a="pos")
        assert np.abs(root @ root - a).max() < 100 * np.finfo(a.dtype).eps * np.abs(a).max()


def test_nearly_symmetric_is_hermitian_and_more_is_not():
    a = spd_matrix(10, 10.0, rng=0)
    b = a.copy()
    b[0, 1] *= 1 + 2e-16
    np.testing.assert_array_equal(lk.sqrtm(b), lk.sqrtm(b).T)
    b[0, 1] += 1e-9
    x, info = lk.sqrtm(b, return_info=True)
    assert info.method == "schur"
    assert np.abs(x @ x - b).max() < 1e-14
    # declared positive definite, the same asymmetry is taken as carelessness
    np.testing.assert_array_equal(lk.sqrtm(b, assume_a="pos"), lk.sqrtm(b, assume_a="pos").T)
