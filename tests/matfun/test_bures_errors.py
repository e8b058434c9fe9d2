"""Bures-Wasserstein functions: bad input, a clear error, other members unharmed."""

import pickle

import numpy as np
import pytest

import linalgk as lk
from linalgk.matfun._bures import bures_barycenter, bures_distance, bures_map
from linalgk.testing import spd_matrix

E = lk.errors


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda a: bures_distance(a[:, :2], a), ValueError, r"a: must have shape \(\.\.\., n, n\)"),
        (lambda a: bures_distance(a, np.eye(2)), ValueError, "a has n = 3, b has n = 2"),
        (lambda a: bures_distance(None, a), TypeError, "a: must be an array"),
        (lambda a: bures_distance(a, None), TypeError, "b: must be an array"),
        (lambda a: bures_distance([a, a], a), TypeError, "list of arrays"),
        (lambda a: bures_distance(a.astype("float16"), a), TypeError, "a: dtype"),
        (lambda a: bures_distance(np.stack([a] * 2), np.stack([a] * 3)), ValueError, "broadcast"),
        (lambda a: bures_distance(a, a, mean_a=np.ones(3)), ValueError, "both or none"),
        (lambda a: bures_distance(a, a, mean_a=a[:, :2], mean_b=a), ValueError, "mean_a"),
        (lambda a: bures_distance(a, a, metric=np.eye(2)), ValueError, "metric has n = 2"),
        (lambda a: bures_distance(a, a, metric=np.stack([a, a])), ValueError, "one matrix"),
        (lambda a: bures_distance(a, a, metric=-a), E.NotPositiveSemidefiniteError, "metric"),
        (lambda a: bures_distance(a, a, metric=0 * a), E.SingularMatrixError, "metric"),
        (lambda a: bures_distance(a, a, power=0), ValueError, "power: must not be 0"),
        (lambda a: bures_distance(a, a, power=9), ValueError, "power"),
        (lambda a: bures_barycenter(a), ValueError, r"covs: must have shape \(\.\.\., k, n, n\)"),
        (lambda a: bures_barycenter([a, np.eye(2)]), ValueError, "same order, got 3, 2"),
        (lambda a: bures_barycenter([a, np.ones(3)]), ValueError, r"covs\[1\]"),
        (lambda a: bures_barycenter(np.empty((0, 3, 3))), ValueError, "at least one"),
        (lambda a: bures_barycenter([]), ValueError, "covs"),
        (lambda a: bures_barycenter(None), TypeError, "covs: must be an array"),
        (lambda a: bures_barycenter([a, a], [1.0]), ValueError, r"weights: must have shape \(2,\)"),
        (lambda a: bures_barycenter([a, a], [1.0, -1.0]), ValueError, "negative, got -1"),
        (lambda a: bures_barycenter([a, a], [np.nan, 1.0]), ValueError, "finite"),
        (lambda a: bures_barycenter([a, a], [0.0, 0.0]), ValueError, "positive sum"),
        (lambda a: bures_barycenter([a, a], ["x", "y"]), TypeError, "weights"),
        (lambda a: bures_barycenter([a, a], start=np.eye(2)), ValueError, "start has n = 2"),
        (lambda a: bures_barycenter([a, a], tol=0.0), ValueError, "tol"),
        (lambda a: bures_barycenter([a, a], max_iter=0), ValueError, "max_iter"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call(spd_matrix(3, 10.0, rng=0))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"power": "x"}, TypeError),
        ({"assume_a": "gen"}, ValueError),
        ({"on_fail": "ignore"}, ValueError),
        ({"callback": 3}, TypeError),
    ],
)
def test_bad_options(options, error):
    with pytest.raises(error, match=next(iter(options))):
        bures_barycenter([np.eye(3), np.eye(3)], **options)
    if "callback" not in options:
        with pytest.raises(error, match=next(iter(options))):
            bures_distance(np.eye(3), np.eye(3), **options)


def test_mixed_libraries():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match=r"a is .*b is"):
        bures_distance(np.eye(3), strict.asarray(np.eye(3)))
    with pytest.raises(TypeError, match=r"covs\[0\] is .*covs\[1\] is"):
        bures_barycenter([np.eye(3), strict.asarray(np.eye(3))])


def broken(kind, n=4):
    """A batch (2, 3) whose members (0, 1) and (1, 2) are bad."""
    a = spd_matrix(n, 10.0, batch=(2, 3), rng=0)
    for index in ((0, 1), (1, 2)):
        if kind == "nan":
            a[(*index, n - 1, 0)] = np.nan
        elif kind == "inf":
            a[(*index, 0, 0)] = np.inf
        elif kind == "indefinite":
            a[index] -= np.eye(n)
        elif kind == "singular":
            a[index] = np.ones((n, n))
        elif kind == "asymmetric":
            a[(*index, 0, n - 1)] += 0.5
    return a


KINDS = [
    ("nan", E.NonFiniteError, "NaN or infinity"),
    ("inf", E.NonFiniteError, "NaN or infinity"),
    ("indefinite", E.NotPositiveSemidefiniteError, "negative eigenvalue -"),
    ("asymmetric", E.AsymmetricError, "not Hermitian"),
    ("singular", E.SingularMatrixError, "singular"),
]
FUNCTIONS = {
    "distance": bures_distance,
    "distance of b": lambda a, b, **o: bures_distance(b, a, **o),
    "distance of powers": lambda a, b, **o: bures_distance(a, b, power=-1, **o),
    "map": bures_map,
    "barycentre": lambda a, b, **o: bures_barycenter([b, a], **o),
    "start": lambda a, b, **o: bures_barycenter([b, b], start=a, **o),
}


@pytest.mark.parametrize(("kind", "error", "text"), KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("policy", ["raise", "warn", "nan"])
def test_bad_members_are_named_and_the_others_unharmed(name, kind, error, text, policy):
    f = FUNCTIONS[name]
    if kind == "singular" and name not in ("map", "distance of powers"):
        pytest.skip("singular matrices are served here; only a map and negative powers refuse")
    a, b = broken(kind), spd_matrix(4, 10.0, batch=(2, 3), rng=1)
    bad = np.zeros((2, 3), bool)
    bad[0, 1] = bad[1, 2] = True
    good = f(a[~bad], b[~bad])
    if policy == "raise":
        with pytest.raises(error, match=text) as caught:
            f(a, b, return_info=True)
        assert caught.value.index == ((0, 1), (1, 2))
        assert "(0, 1), (1, 2)" in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert again.index == caught.value.index
        x, info = caught.value.result
    elif policy == "warn":
        with pytest.warns(E.ConvergenceWarning, match=text) as record:
            x, info = f(a, b, return_info=True, on_fail="warn")
        assert record[0].filename == __file__
    else:
        with lk.config_context(on_fail="nan"):
            x, info = f(a, b, return_info=True)
    assert np.isnan(x[bad]).all()
    np.testing.assert_array_equal(x[~bad], good)
    np.testing.assert_array_equal(info.converged, ~bad)


def test_sentences_name_the_argument():
    a, bad = np.eye(3), -np.eye(3)
    with pytest.raises(E.NotPositiveSemidefiniteError, match=r"bures_distance: b .* -1 "):
        bures_distance(a, bad)
    with pytest.raises(E.NotPositiveSemidefiniteError, match="matrix 2 of covs"):
        bures_barycenter([a, a, bad])
    with pytest.raises(E.NonFiniteError, match="mean_b holds NaN"):
        bures_distance(a, a, mean_a=np.zeros(3), mean_b=np.full(3, np.nan))
    with pytest.raises(E.NotPositiveSemidefiniteError) as caught:
        bures_map(a, bad)
    assert caught.value.index == ((),)
    assert np.isnan(caught.value.result).all()


def test_check_finite_off_is_silent():
    a = broken("nan")
    d = bures_distance(a, np.eye(4), check_finite=False)
    assert np.isnan(d).sum() == 2
    with lk.config_context(check_finite=False):
        np.testing.assert_array_equal(bures_distance(a, np.eye(4)), d)


def test_asymmetry():
    a = spd_matrix(4, 10.0, rng=0)
    b = a.copy()
    b[0, 1] += 1e-9
    assert bures_distance(a, b) < 1e-8
    with pytest.raises(E.AsymmetricError, match=r"max \|A - A\^H\|"):
        bures_distance(a, b, assume_a=None)
