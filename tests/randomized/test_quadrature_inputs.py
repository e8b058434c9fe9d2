"""Log-determinants and quadratic forms: kinds of input, failures."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from spectra import EPS, gaussian, grid, spectrum

import linalgk as lk
from linalgk.errors import (
    AsymmetricError,
    NonFiniteError,
    NotPositiveSemidefiniteError,
)
from linalgk.randomized._quadrature import choose_method

NAMES = ["log", "inv", "sqrt", "exp", "invsqrt"]
CALLS = {
    "log": np.log, "inv": lambda t: 1 / t, "sqrt": np.sqrt, "exp": np.exp,
    "invsqrt": lambda t: t**-0.5,
}  # fmt: skip


# --- Kinds of input ------------------------------------------------------------------------------


def test_batches_and_members_alone():
    a = np.stack([spectrum(np.linspace(1, 2 + i, 50), seed=i) for i in range(6)]).reshape(
        2, 3, 50, 50
    )
    low = np.full((2, 3), 0.99)
    e = lk.estimate_logdet(a, method="slq", rng=4, tol=0.02, bounds=(low, 10))
    assert e.value.shape == e.bounds[0].shape == e.dof.shape == (2, 3)
    alone = lk.estimate_logdet(a[1, 2], method="slq", rng=4, tol=0.02, bounds=(0.99, 10))
    assert e.value[1, 2] == alone.value
    assert e.interval()[0][1, 2] == alone.interval()[0]
    x = gaussian((2, 3, 50, 4))
    forms = lk.estimate_quad_form(a, "exp", x, steps=5)
    assert forms.value.shape == forms.interval()[1].shape == (2, 3, 4)
    one = lk.estimate_quad_form(a[1, 2], "exp", x[1, 2], steps=5)
    assert (forms.value[1, 2] == one.value).all()
    assert (forms.bounds[0][1, 2] == one.bounds[0]).all()
    vectors = lk.estimate_quad_form(a, "exp", x[..., 0], steps=5)
    assert np.abs(vectors.value / forms.value[..., 0] - 1).max() < 1e-13
    assert pickle.loads(pickle.dumps(e)).value[0, 0] == e.value[0, 0]


def test_empty():
    e = lk.estimate_logdet(np.zeros((0, 0)))
    assert (e.value, e.std_error, e.interval()) == (0, 0, (0, 0))
    assert lk.estimate_logdet(np.zeros((0, 3, 3), "float32")).value.dtype == np.float32
    assert lk.estimate_quad_form(np.zeros((0, 0)), "log", np.zeros((0, 2))).value.tolist() == [0, 0]
    assert lk.estimate_quad_form(np.eye(3), "log", np.zeros((3, 0))).value.shape == (0,)
    assert lk.estimate_quad_form(np.zeros((0, 0)), "log").value == 0


@pytest.mark.parametrize("name", ["log", "exp"])
def test_layouts_sparse_and_operators(name, dtype):
    a = spectrum(np.linspace(1, 3, 60), dtype)
    x = gaussian((60, 3), dtype)
    options = {"bounds": (0.99, 3.1), "rng": 4}
    form = lk.estimate_quad_form(a, name, x, steps=6, **options)
    trace = lk.estimate_quad_form(a, name, n_matvecs=60, **options)
    bound = 200 * EPS[dtype]
    fortran, before = np.asfortranarray(a), a.copy()
    fortran.flags.writeable = False
    frozen = np.asfortranarray(x)
    frozen.flags.writeable = False
    strided = np.repeat(a, 2, axis=0)[::2]
    for other in (fortran, strided, scipy.sparse.csr_array(a), scipy.sparse.coo_array(a),
                  scipy.sparse.csr_matrix(a), aslinearoperator(a)):  # fmt: skip
        got = lk.estimate_quad_form(other, name, frozen, steps=6, **options)
        assert np.abs(got.value / form.value - 1).max() < bound
        again = lk.estimate_quad_form(other, name, n_matvecs=60, **options)
        assert abs(again.value / trace.value - 1) < bound
    assert (a == before).all()
    assert form.value.dtype == np.zeros(0, dtype).real.dtype


def test_other_libraries(xp):
    a = np.stack([spectrum(np.linspace(1, 2 + i, 50), seed=i) for i in range(2)])
    x = gaussian((2, 50, 3))
    theirs, vectors = xp.asarray(a), xp.asarray(x)
    options = {"bounds": (0.99, 4), "rng": 4}
    for mine, other in (
        (lk.estimate_logdet(a, 80, **options), lk.estimate_logdet(theirs, 80, **options)),
        (lk.estimate_logdet(a, **options), lk.estimate_logdet(theirs, **options)),
        (lk.estimate_logdet(a, 80, deflate=9, **options),
         lk.estimate_logdet(theirs, 80, deflate=9, **options)),
        (lk.estimate_quad_form(a, "inv", x, **options),
         lk.estimate_quad_form(theirs, "inv", vectors, **options)),
        (lk.estimate_quad_form(a, "exp", tol=0.1, rng=4),
         lk.estimate_quad_form(theirs, "exp", tol=0.1, rng=4)),
    ):  # fmt: skip
        assert type(other.value) is type(theirs)
        assert type(other.bounds[0]) is type(theirs)
        assert np.abs(lk.testing.to_numpy(other.value) / mine.value - 1).max() < 1e-10
        for end, wanted in zip(other.interval(), mine.interval(), strict=True):
            assert np.abs(lk.testing.to_numpy(end) - wanted).max() < 1e-7 * np.abs(wanted).max()


def test_arrays_of_a_device_stay_there(cuda):
    a, x = spectrum(np.linspace(1, 3, 50)), gaussian((50, 3))
    there = cuda.array(a)
    options = {"bounds": (0.99, 4), "rng": 4}
    for mine, other in (
        (lk.estimate_logdet(a, 80, **options), lk.estimate_logdet(there, 80, **options)),
        (lk.estimate_logdet(a, **options), lk.estimate_logdet(there, **options)),
        (lk.estimate_quad_form(a, "inv", x, **options),
         lk.estimate_quad_form(there, "inv", cuda.array(x), **options)),
        (lk.estimate_quad_form(a, "exp", tol=0.1, rng=4),
         lk.estimate_quad_form(there, "exp", tol=0.1, rng=4)),
    ):  # fmt: skip
        assert type(other.value) is type(there)
        assert np.abs(cuda.host(other.value) / mine.value - 1).max() < 1e-10
        assert np.abs(cuda.host(other.bounds[0]) - mine.bounds[0]).max() < 1e-7


def test_complex_in_other_libraries(xp):
    a, x = spectrum(np.linspace(1, 2, 40), "complex128"), gaussian(40, "complex128")
    mine = lk.estimate_quad_form(a, "log", x, steps=5, bounds=(0.99, 3))
    other = lk.estimate_quad_form(xp.asarray(a), "log", xp.asarray(x), steps=5, bounds=(0.99, 3))
    assert abs(float(other) / mine.value - 1) < 1e-12
    true = np.log(np.linspace(1, 2, 40)).sum()
    assert abs(float(lk.estimate_logdet(xp.asarray(a), 60, rng=0)) / true - 1) < 0.2


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_huge_and_tiny_entries(scale):
    values = np.linspace(1, 3, 50)
    a, x = spectrum(values), gaussian(50)
    shift = 50 * math.log(scale)
    for options in (
        {},
        {"method": "slq", "n_matvecs": 100},
        {"method": "slq", "n_matvecs": 100, "deflate": 8},
    ):
        e = lk.estimate_logdet(a, rng=0, **options)
        for matrix in (a * scale, scipy.sparse.csr_array(a * scale)):
            if options or isinstance(matrix, np.ndarray):
                far = lk.estimate_logdet(matrix, rng=0, **options)
                assert abs(far.value - shift - e.value) < 1e-9
    form = lk.estimate_quad_form(a, "sqrt", x, rng=0)
    far = lk.estimate_quad_form(a * scale, "sqrt", x, rng=0)
    assert abs(far.value / math.sqrt(scale) / form.value - 1) < 1e-9
    far = lk.estimate_quad_form(a, "inv", x * scale**0.9, rng=0)
    assert abs(far.value / scale**1.8 / lk.estimate_quad_form(a, "inv", x).value - 1) < 1e-9


def test_seeds_and_blocks():
    a, _ = grid(6)
    e = lk.estimate_logdet(a, 100, rng=3)
    assert lk.estimate_logdet(a, 100, rng=e.seed).value == e.value
    assert lk.estimate_logdet(a, 100, rng=4).value != e.value
    assert lk.estimate_logdet(a, 100).value != lk.estimate_logdet(a, 100).value
    one = lk.estimate_logdet(a, 100, rng=3, steps=6, block=1)
    assert abs(one.value / lk.estimate_logdet(a, 100, rng=3, steps=6).value - 1) < 1e-12
    lk.estimate_logdet(a, 30, progress=True)


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cholesky", "slq"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan(method, bad):
    a = np.stack([spectrum(np.linspace(1, 2, 40))] * 3)
    a[1, 5, 5] = bad
    options = {"method": method, "rng": 0, "tol": 0.05}
    with pytest.raises(NonFiniteError, match=r"a holds NaN or infinity \(batch members \(1,\)\)"):
        lk.estimate_logdet(a, **options)
    quiet = lk.estimate_logdet(a, on_fail="nan", **options)
    assert np.isnan(quiet.value).tolist() == [False, True, False]
    assert quiet.converged.tolist() == [True, False, True]
    assert quiet.value[2] == lk.estimate_logdet(a[2], **options).value
    assert np.isnan(lk.estimate_logdet(a, check_finite=False, **options).value[1])
    for other in (scipy.sparse.csr_array(a[1]), aslinearoperator(a[1])):
        with pytest.raises(NonFiniteError, match="NaN"):
            lk.estimate_logdet(other)
        with pytest.raises(NonFiniteError, match="NaN"):
            lk.estimate_quad_form(other, "exp", np.ones(40))
    with pytest.raises(ValueError, match="x: holds NaN"):
        lk.estimate_quad_form(a[0], "exp", np.full(40, math.nan))


@pytest.mark.parametrize("method", ["cholesky", "slq"])
def test_wrong_structure(method):
    s = spectrum(np.linspace(1, 2, 50))
    s[3, 7] += 1e-4
    with pytest.raises(AsymmetricError, match="symmetrise"):
        lk.estimate_logdet(s, method=method)
    for values in (np.linspace(-1, 2, 50), np.concatenate([np.zeros(45), np.arange(1.0, 6)])):
        with pytest.raises(NotPositiveSemidefiniteError, match="a is not positive definite"):
            lk.estimate_logdet(spectrum(values), method=method)
    with pytest.raises(NotPositiveSemidefiniteError, match="diagonal"):
        lk.estimate_logdet(scipy.sparse.csr_array(np.diag([1.0, -1, 2, 3, 4, 5, 6])))
    with pytest.raises(NotPositiveSemidefiniteError, match="not positive definite"):
        lk.estimate_logdet(spectrum(np.linspace(-1, 2, 50)), method="slq", deflate=50)


def test_asymmetry_is_found_in_all_kinds(dtype):
    s = spectrum(np.linspace(1, 2, 50), dtype)
    s[3, 7] += 0.1
    for seed in range(20):
        for other in (s, scipy.sparse.csr_array(s), aslinearoperator(s)):
            with pytest.raises(AsymmetricError, match="a is not Hermitian"):
                lk.estimate_quad_form(other, "exp", n_matvecs=30, rng=seed)
            with pytest.raises(AsymmetricError, match="a is not Hermitian"):
                lk.estimate_quad_form(other, "exp", gaussian(50), rng=seed)


def test_symmetric_matrices_pass(dtype):
    """The tolerance is wide enough for rounding: 60 seeds, ill-conditioned matrices."""
    for seed in range(60):
        s = spectrum(np.geomspace(1e-3, 1, 90), dtype, seed)
        e = lk.estimate_quad_form(s, "exp", n_matvecs=30, rng=seed)
        assert e.std_error > 0


def test_bounds_are_checked():
    a = spectrum(np.linspace(1, 2, 50))
    for bounds, words in (
        ((1.5, 3), "outside of"), ((0.5, 1.5), "outside of"), ((3, 1), "lower one must not"),
        ((1, 2, 3), "a pair"), (1.0, "a pair"), (([1.0], 2), "batch shape"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            lk.estimate_logdet(a, method="slq", bounds=bounds)


def test_a_wrong_adjoint_is_found():
    a = spectrum(np.linspace(1, 2, 50))
    wrong = LinearOperator((50, 50), matvec=lambda x: a @ x, rmatvec=lambda x: 2 * x, dtype=float)
    with pytest.raises(ValueError, match="adjoint is not that of the product"):
        lk.estimate_logdet(wrong, check_adjoint=True)
    assert lk.estimate_logdet(wrong, tol=0.1).value > 0


def test_bad_arguments():
    a = np.eye(30)
    form = lk.estimate_quad_form
    cases = [
        (ValueError, "n, n", lambda: lk.estimate_logdet(np.ones((3, 4)))),
        (ValueError, "method: must be one of", lambda: lk.estimate_logdet(a, method="lu")),
        (ValueError, "for dense arrays",
         lambda: lk.estimate_logdet(scipy.sparse.csr_array(a), method="cholesky")),
        (ValueError, "n_matvecs: must be at least 3", lambda: lk.estimate_logdet(a, 2)),
        (ValueError, "above steps", lambda: lk.estimate_logdet(a, 10, steps=10)),
        (ValueError, "steps: must be at least 1", lambda: lk.estimate_logdet(a, steps=0)),
        (ValueError, "deflate: must be at most n", lambda: lk.estimate_logdet(a, deflate=31)),
        (ValueError, "deflate: must be at least 0", lambda: lk.estimate_logdet(a, deflate=-1)),
        (ValueError, "deflate [+] 6", lambda: lk.estimate_logdet(a, 12, deflate=10)),
        (ValueError, "tol: must be at least", lambda: lk.estimate_logdet(a, tol=1e-16)),
        (ValueError, "probes: must be one of", lambda: lk.estimate_logdet(a, probes="cube")),
        (ValueError, "level", lambda: lk.estimate_logdet(a, level=1)),
        (ValueError, "f: must be one of", lambda: form(a, "sin", np.ones(30))),
        (TypeError, "f: must be a name or callable", lambda: form(a, 3, np.ones(30))),
        (ValueError, "derivative_signs", lambda: form(a, "log", derivative_signs=(1, 1))),
        (ValueError, "derivative_signs", lambda: form(a, np.sin, derivative_signs=(1, 2))),
        (ValueError, "x: must have shape", lambda: form(a, "log", np.ones(29))),
        (TypeError, "x: is complex", lambda: form(a, "log", np.ones(30) * 1j)),
        (ValueError, "n_matvecs: is for the trace",
         lambda: form(a, "log", np.ones(30), n_matvecs=9)),
    ]  # fmt: skip
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()


def test_choice_of_the_method():
    assert choose_method(100, dense=True)[0] == "cholesky"
    assert choose_method(100, dense=True, n_matvecs=50)[0] == "slq"
    assert choose_method(100, dense=False)[0] == "slq"
    assert choose_method(5000, dense=True)[0] == "slq"
    assert choose_method(5000, dense=True, method="cholesky")[0] == "cholesky"
