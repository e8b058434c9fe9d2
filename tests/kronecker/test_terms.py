"""Sums of Kronecker products against dense matrices, and conjugate gradients by themselves."""

import copy
import functools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from directions import adjoint, gaussian, hermitian_part
from spectra import EPS, spectrum

from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _terms_steps as steps
from linalgk.kronecker._cg import pcg
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._terms import KronTerms, explain_kronterms, sample


def dense(terms, weights=None):
    weights = [1] * len(terms) if weights is None else weights
    return sum(
        w * functools.reduce(np.kron, [f.astype(np.result_type(f, "float64")) for f in term])
        for w, term in zip(weights, terms, strict=True)
    )


def positive(n, dtype="float64", seed=0, kappa=30.0):
    return spectrum(np.geomspace(1, kappa, n), dtype, seed)


def indefinite(n, dtype="float64", seed=0):
    return spectrum(np.linspace(-2, 3, n), dtype, seed)


def backward(a, x, b):
    rest = np.linalg.norm(a @ x - b)
    return rest / (np.linalg.norm(a, 2) * np.linalg.norm(x) + np.linalg.norm(b))


# --- Products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [[(3, 3)], [(2, 4), (3, 1)], [(2, 2), (3, 3), (2, 2)]])
@pytest.mark.parametrize("weights", [None, (0.5, -2.0, 3.0), (1.0, 2.0 + 1.0j, 0.0)])
def test_products_and_entries(shapes, weights, dtype):
    terms = [[gaussian(s, dtype, 5 * t + i) for i, s in enumerate(shapes)] for t in range(3)]
    k, a = KronTerms(terms, weights), dense(terms, weights)
    made = np.result_type(dtype, "complex64" if weights and 1j in np.imag(weights) * 1j else dtype)
    assert k.shape == a.shape
    assert k.dtype == made
    tol = 20 * EPS[dtype] * np.abs(a).sum()
    assert k.toarray().dtype == made
    assert np.abs(k.toarray() - a).max() < tol
    assert np.abs(k.diagonal() - np.diagonal(a)).max() < tol
    m, n = a.shape
    for shape in ((n,), (n, 2), (2, n, 1)):
        x = gaussian(shape, dtype, 1)
        assert (k @ x).dtype == made
        assert np.abs(k @ x - a @ x).max() < tol
    for shape in ((m,), (3, m)):
        assert np.abs(gaussian(shape, dtype, 2) @ k - gaussian(shape, dtype, 2) @ a).max() < tol
    assert np.abs(k.T.toarray() - a.T).max() < tol
    assert np.abs(k.H.toarray() - adjoint(a)).max() < tol
    assert np.abs(k.to_scipy().rmatmat(np.eye(m)) - adjoint(a)).max() < tol


def test_sums_and_multiples(rng):
    a, b, c = (rng.standard_normal((2, 3)) for _ in range(3))
    d, e = rng.standard_normal((2, 2)), rng.standard_normal((2, 2))
    one, two = Kron([a, d]), Kron([b, e])
    k, full = KronTerms([one, [c, d]], [2, 3]), 2 * np.kron(a, d) + 3 * np.kron(c, d)
    other = np.kron(b, e)
    for found, want in (
        (k + k, 2 * full), (k + two, full + other), (two + k, full + other),
        (k - two, full - other), (two - k, other - full), (k - k, 0 * full), (-k, -full),
        (2 * k, 2 * full), (k * 2j, 2j * full), (k / 4, full / 4), (np.float64(3) * k, 3 * full),
    ):  # fmt: skip
        assert isinstance(found, KronTerms)
        assert np.allclose(found.toarray(), want)
    assert isinstance(one + two, KronTerms)
    for call in (lambda: k + 1, lambda: k * "x", lambda: k @ k, lambda: 1 - k, lambda: k / k):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError, match=r"terms\[2\]: needs factors of shapes \(2, 3\), \(2, 2\)"):
        k + Kron([d, a])


def test_batches_and_identity(rng):
    x, y, z = (rng.standard_normal(s) for s in ((2, 1, 3, 3), (4, 2, 2), (3, 3)))
    k = KronTerms([[x, y], [z, y]], [1, -1])
    assert k.batch == (2, 4)
    v = rng.standard_normal((6, 2))
    full = k.toarray()
    assert full.shape == (2, 4, 6, 6)
    for i in np.ndindex(2, 4):
        want = np.kron(x[i[0], 0], y[i[1]]) - np.kron(z, y[i[1]])
        assert np.allclose(full[i], want)
        assert np.allclose((k @ v)[i], want @ v)
    for other in (pickle.loads(pickle.dumps(k)), copy.deepcopy(k)):
        assert other == k
        assert hash(other) == hash(k)
    assert k != 2 * k
    assert "batch=(2, 4)" in repr(k)
    with pytest.raises(ValueError, match=r"factors may have no batch, got \(2, 4\)"):
        k.solve(v)


# --- One basis for each mode ---------------------------------------------------------------------


def definite_pairs(dtype):
    """Two terms, in each mode at least one positive or negative definite factor."""
    p, q = functools.partial(positive, dtype=dtype), functools.partial(indefinite, dtype=dtype)
    return {
        "spd": [[p(4, seed=1), p(5, seed=2)], [p(4, seed=3), p(5, seed=4)]],
        "half": [[q(4, seed=1), p(5, seed=2)], [p(4, seed=3), p(5, seed=4)]],
        "crossed": [[p(4, seed=1), q(5, seed=2)], [q(4, seed=3), -p(5, seed=4)]],
        "three": [
            [p(2, seed=1), q(3, seed=2), p(2, seed=5)],
            [p(2, seed=3), p(3, seed=4), q(2, seed=6)],
        ],
        "alike": [[p(4, seed=1), p(5, seed=2)], [2 * p(4, seed=1), p(5, seed=4)]],
    }


@pytest.mark.parametrize("name", ["spd", "half", "crossed", "three", "alike"])
@pytest.mark.parametrize("weights", [None, (1.5, -0.7)])
def test_two_terms_are_solved_exactly(name, weights, dtype):
    terms = definite_pairs(dtype)[name]
    k, a = KronTerms(terms, weights), dense(terms, weights)
    n = a.shape[0]
    for shape in ((n,), (n, 3), (2, n, 2)):
        b = gaussian(shape, dtype, 9)
        x, info = k.solve(b, return_info=True)
        assert info.method == "diagonal"
        assert x.dtype == np.dtype(dtype)
        assert x.shape == shape
        assert info.residual.shape == (() if len(shape) == 1 else (*shape[:-2], shape[-1]))
        assert info.converged.all()
        for column, rhs in zip(_columns(x), _columns(b), strict=True):
            assert backward(a, column, rhs) < 100 * EPS[dtype]
    found, want = k.slogdet(), np.linalg.slogdet(a)
    assert abs(found.sign - want.sign) < 1e-5
    assert abs(found.logabsdet - want.logabsdet) < 1e4 * EPS[dtype]


def _columns(x):
    return np.moveaxis(x, -2, 0).reshape(x.shape[-2], -1).T if x.ndim > 1 else [x]


def test_ill_conditioned_masses_do_no_harm():
    """The better conditioned factor of each mode is M, and the backward error is small."""
    for kappa in (1e4, 1e8):
        terms = [
            [positive(6, seed=1, kappa=kappa), positive(5, seed=2)],
            [positive(6, seed=3, kappa=kappa), positive(5, seed=4)],
        ]
        a, b = dense(terms), gaussian(30)
        x, info = KronTerms(terms).solve(b, return_info=True)
        assert backward(a, x, b) < 1e-14
        assert info.converged


@pytest.mark.parametrize("d", [2, 3, 4])
def test_finite_elements_in_d_dimensions(d):
    """Every mode has two factors, stiffness and mass, in d terms."""
    n = (5, 3, 4, 2)[:d]
    stiff, mass = [], []
    for m in n:
        off = np.eye(m, k=1) + np.eye(m, k=-1)
        stiff.append((m + 1) * (2 * np.eye(m) - off))
        mass.append((4 * np.eye(m) + off) / (6 * (m + 1)))
    terms = [[stiff[i] if i == j else mass[i] for i in range(d)] for j in range(d)]
    terms.append(mass)  # a reaction
    weights = [1.0] * d + [10.0]
    k, a = KronTerms(terms, weights), dense(terms, weights)
    b = gaussian((a.shape[0], 2))
    x, info = k.solve(b, return_info=True)
    assert info.method == "diagonal"
    assert backward(a, x, b) < 1e-15 * 50
    assert np.isclose(k.slogdet().logabsdet, np.linalg.slogdet(a)[1], rtol=1e-12)


def test_factors_that_commute_give_eigenvalues(dtype):
    """Polynomials of one matrix in each mode; eigenvalues of a sum with equal weights too."""
    q = [np.linalg.qr(gaussian((n, n), np.result_type(dtype, "float64"), n))[0] for n in (4, 5)]

    def factor(i, values):
        return hermitian_part((q[i] * np.asarray(values)) @ adjoint(q[i])).astype(dtype)

    terms = [
        [factor(0, [1, 0, 0, 2]), factor(1, [1, 1, 2, 2, 3])],
        [factor(0, [0, 1, 0, 2]), factor(1, [-1, 1, 2, 0, 3])],
        [factor(0, [0, 0, 1, 5]), factor(1, [4, 1, 2, 9, 1])],
    ]
    k, a = KronTerms(terms, [1, 2, -1]), dense(terms, [1, 2, -1])
    want = np.linalg.eigvalsh(a)
    top = np.abs(want).max()
    assert np.abs(k.eigvalsh() - want).max() < 50 * EPS[dtype] * top
    for shift in (0.3, -0.7, 0.5j):
        b = gaussian((20, 2), dtype, 3)
        x, info = k.solve(b, shift, return_info=True)
        assert info.method == "diagonal"
        assert backward(a + shift * np.eye(20), x, b) < 50 * EPS[dtype]
        want = np.linalg.slogdet(a + shift * np.eye(20))
        assert abs(k.slogdet(shift).logabsdet - want.logabsdet) < 2e3 * EPS[dtype]
        assert abs(k.slogdet(shift).sign - want.sign) < 2e3 * EPS[dtype]


def test_commuting_factors_whose_sum_has_equal_eigenvalues():
    """Equal weights would leave two vectors of one factor mixed."""
    q = np.linalg.qr(gaussian((5, 5)))[0]
    f, g = (q @ np.diag(d) @ q.T for d in ([1.0, 0, 0, 2, 2], [0.0, 1, 0, 2, 2]))
    terms = [[f, np.eye(2)], [g, np.eye(2)]]
    want = np.repeat([0.0, 1.0, 1.0, 4.0, 4.0], 2)
    assert np.abs(KronTerms(terms).eigvalsh() - want).max() < 1e-14


def test_a_kronecker_sum_by_its_terms():
    a, b, c = positive(3, seed=1), 1.1 * indefinite(4, seed=2), positive(2, seed=3)
    one = [np.eye(n) for n in (3, 4, 2)]
    k = KronTerms([[a, one[1], one[2]], [one[0], b, one[2]], [one[0], one[1], c]])
    assert np.allclose(k.eigvalsh(), np.linalg.eigvalsh(k.toarray()))
    b = gaussian(24)
    assert backward(k.toarray(), k.solve(b), b) < 1e-15 * 20


# --- Other ways ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, 5), (2, 3, 4)])
def test_two_general_terms(sizes, dtype):
    terms = [
        [gaussian((n, n), dtype, 10 * t + i) + 2 * np.eye(n) for i, n in enumerate(sizes)]
        for t in range(2)
    ]
    terms = [[f.astype(dtype) for f in term] for term in terms]
    for weights in ((1.0, 1.0), (-2.0, 0.5), (1.0, 1j)):
        k, a = KronTerms(terms, weights), dense(terms, weights)
        b = gaussian((a.shape[0], 2), dtype, 3)
        x, info = k.solve(b, return_info=True)
        assert info.method == "quotient"
        assert x.dtype == np.result_type(dtype, "complex64" if 1j in weights else dtype)
        assert backward(a, x, b) < 2e3 * EPS[dtype]
        found, want = k.slogdet(), np.linalg.slogdet(a)
        assert abs(found.sign - want.sign) < 1e4 * EPS[dtype]
        assert abs(found.logabsdet - want.logabsdet) < 1e4 * EPS[dtype]


def test_the_regular_term_is_inverted(rng):
    a, b = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    singular = a @ np.diag([1.0, 2.0, 0.0])
    for terms in ([[a, b], [singular, b]], [[singular, b], [a, b]]):
        k, full, rhs = KronTerms(terms), dense(terms), rng.standard_normal(9)
        assert backward(full, k.solve(rhs), rhs) < 1e-13
    other = b @ np.diag([0.0, 1.0, 1.0])
    with pytest.raises(SingularMatrixError, match="neither term has an inverse"):
        KronTerms([[singular, b], [a, other]]).solve(np.ones(9))


def test_one_term_and_multiples_of_the_identity(rng):
    a, b = rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    one, two = np.eye(3), np.eye(2)
    rhs = rng.standard_normal((6, 2))
    odd = KronTerms([[a]], [-2.0]).slogdet()
    assert np.isclose(odd.sign, np.linalg.slogdet(-2 * a)[0])
    for terms, weights, shift in (
        ([[a, b]], [3.0], 0), ([[a, b]], [-1.0], 0.5), ([[a, b], [one, 2 * two]], [1.0, 0.7], 0),
        ([[a, b], [one, two], [one, two]], [2.0, 0.7, 0.4j], 0.25), ([[a, b]], [1j], 1),
        ([[a, b], [a, b]], [1.0, 0.0], 0), ([[a, b]], [0.0], 2.0),
    ):  # fmt: skip
        k, full = KronTerms(terms, weights), dense(terms, weights) + shift * np.eye(6)
        x, info = k.solve(rhs, shift, return_info=True)
        assert info.method == "kron"
        assert backward(full, x, rhs) < 1e-14
        found, want = k.slogdet(shift), np.linalg.slogdet(full)
        assert np.isclose(found.sign, want.sign)
        assert np.isclose(found.logabsdet, want.logabsdet)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_more_terms_by_conjugate_gradients(count, sign, dtype):
    sizes = (6, 5) if count == 3 else (4, 3, 3)
    terms = [
        [positive(n, dtype, 10 * t + i, 10.0) for i, n in enumerate(sizes)] for t in range(count)
    ]
    weights = [sign * (t + 1.0) for t in range(count)]
    k, a = KronTerms(terms, weights), dense(terms, weights)
    n = a.shape[0]
    tol = 1e-4 if EPS[dtype] > 1e-10 else 1e-11
    b = gaussian((2, n, 3), dtype, 3)
    x, info = k.solve(b, tol=tol, return_info=True)
    assert info.method == "pcg"
    assert info.iterations.shape == (2, 3)
    assert (info.iterations < 25).all()
    rest = np.linalg.norm(a @ x - b, axis=-2) / np.linalg.norm(b, axis=-2)
    assert (rest <= 1.01 * tol + 40 * EPS[dtype]).all()
    assert np.abs(rest - info.residual).max() < 40 * EPS[dtype]
    alone = k.solve(b[1, :, 2], tol=tol)
    assert np.abs(alone - x[1, :, 2]).max() < 10 * tol * np.abs(alone).max()
    with pytest.raises(ValueError, match="estimate_logdet"):
        k.slogdet()


def test_the_preconditioner_knows_what_says_most():
    """Two large terms of large condition and small ones: steps do not grow with the condition."""
    steps_of = []
    for kappa in (1e1, 1e3, 1e5):
        terms = [[positive(8, seed=4 * t + i, kappa=kappa) for i in range(2)] for t in range(2)]
        terms += [[1e-3 * positive(8, seed=20 + 2 * t + i) for i in range(2)] for t in range(2)]
        k, b = KronTerms(terms), gaussian(64)
        _, info = k.solve(b, tol=1e-9, return_info=True)
        steps_of.append(int(info.iterations))
        plain = pcg(lambda x, k=k: k @ x, lambda r: r, b[:, None], 1e-9, 1000)
        assert info.iterations <= max(1, plain.iterations[0] / 3)
    assert max(steps_of) <= 8


def test_a_shift_is_a_term():
    terms = definite_pairs("float64")["spd"]
    a, b = dense(terms), gaussian((20, 2))
    k = KronTerms(terms)
    for shift in (0.5, 40.0):
        x, info = k.solve(b, shift, return_info=True)
        assert info.method == "pcg"
        assert np.linalg.norm(a @ x + shift * x - b) < 1e-9 * np.linalg.norm(b)
    with pytest.raises(AsymmetricError, match="a shift among them"):
        k.solve(b, 1j)


# --- Libraries -----------------------------------------------------------------------------------


def test_other_libraries_get_their_own_arrays(xp):
    pairs = definite_pairs("float64")
    general = [[gaussian((n, n), seed=7 * t + n) for n in (3, 2)] for t in range(2)]
    more = [*pairs["spd"], [positive(4, seed=8), positive(5, seed=9)]]
    for terms in (pairs["half"], general, more):
        mine, k = KronTerms(terms), KronTerms([[xp.asarray(f) for f in t] for t in terms])
        n = mine.shape[0]
        b = gaussian((n, 2))
        given = xp.asarray(b)
        x, info = k.solve(given, return_info=True)
        assert type(x) is type(info.residual) is type(given)
        want = mine.solve(b)
        assert np.abs(np.asarray(x) - want).max() < 1e-8 * np.abs(want).max()
        assert type(k.diagonal()) is type(given)
        assert np.abs(np.asarray(k @ given) - mine @ b).max() < 1e-11
        if terms is not more:
            assert np.isclose(float(k.slogdet().logabsdet), mine.slogdet().logabsdet)
    weights = KronTerms(general, xp.asarray([1.0, 2.0])).weights
    assert weights == (1.0, 2.0)


# --- Failures ------------------------------------------------------------------------------------


def test_sums_that_are_not_definite():
    a = [[indefinite(3, seed=4 * t + i) for i in range(2)] for t in range(3)]
    with pytest.raises(NotPositiveSemidefiniteError, match="no combination of the factors"):
        KronTerms(a).solve(np.ones(9))
    p = [[positive(3, seed=4 * t + i) for i in range(2)] for t in range(3)]
    k = KronTerms(p, [1, 1, -1.5])
    assert np.linalg.eigvalsh(k.toarray())[0] < 0
    with pytest.raises(NotPositiveSemidefiniteError, match="not positive definite"):
        k.solve(np.ones(9))
    assert np.isnan(k.solve(np.ones(9), on_fail="nan")).all()
    # where no diagonal tells it, a direction does
    x = np.array([[1.0, 3.0], [3.0, 1.0]])
    small = [[positive(2, seed=s), 1e-3 * positive(2, seed=s + 1)] for s in (1, 3)]
    hidden = KronTerms([[x, np.eye(2)], *small])
    with pytest.raises(NotPositiveSemidefiniteError):
        hidden.solve(gaussian(4))


def test_what_is_bad_in_a_column_stays_there():
    terms = definite_pairs("float64")["spd"]
    more = [*terms, [positive(4, seed=8), positive(5, seed=9)]]
    general = [[gaussian((n, n), seed=7 * t + n) for n in (4, 5)] for t in range(2)]
    for some in (terms, more, general):
        k = KronTerms(some)
        b = gaussian((20, 3))
        good = k.solve(b)
        b[3, 1] = math.nan
        with pytest.raises(NonFiniteError, match=r"b holds NaN.*\(1,\)") as caught:
            k.solve(b)
        assert caught.value.index == ((1,),)
        for found in (k.solve(b, on_fail="nan"), k.solve(b, check_finite=False)):
            assert np.isnan(found[:, 1]).all()
            assert np.abs(found[:, [0, 2]] - good[:, [0, 2]]).max() < 1e-13 * np.abs(good).max()
        with pytest.warns(ConvergenceWarning, match="b holds NaN"):
            k.solve(b, on_fail="warn")


def test_too_few_steps():
    terms = [[positive(6, seed=10 * t + i, kappa=1e4) for i in range(2)] for t in range(4)]
    k, b = KronTerms(terms), gaussian((36, 2))
    with pytest.raises(NotConvergedError, match=r"after 2 steps.*max_iter") as caught:
        k.solve(b, max_iter=2)
    assert np.isnan(caught.value.result).all()
    with pytest.warns(ConvergenceWarning):
        _, info = k.solve(b, max_iter=2, on_fail="warn", return_info=True)
    assert not info.converged.any()
    assert (info.iterations == 2).all()


def test_singular_sums():
    for pair in ((positive(2, kappa=2), spectrum([-1, 5], seed=1)), (np.eye(2), -np.eye(2))):
        with pytest.raises(SingularMatrixError, match="singular to working precision"):
            KronTerms([[pair[0], np.eye(2)], [np.eye(2), pair[1]]]).solve(np.ones(4))
    k = KronTerms([[np.diag([1.0, 2.0]), np.eye(2)], [np.eye(2), np.diag([-1.0, 5.0])]])
    with pytest.raises(SingularMatrixError, match=r"an eigenvalue is .* where the largest is 7"):
        k.solve(np.ones(4))
    assert k.slogdet() == (0, -math.inf)
    assert np.isfinite(k.solve(np.ones(4), 0.5)).all()
    with pytest.raises(SingularMatrixError, match="the sum is zero"):
        (0 * k).solve(np.ones(4))
    with pytest.raises(SingularMatrixError):
        KronTerms([[np.zeros((2, 2)), np.eye(2)]]).solve(np.ones(4))


EYE = np.eye(2)
# what the types forbid
WRONG: Any = EYE
WORD: Any = "x"
STACK = np.ones((3, 2, 2))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: KronTerms([]), ValueError, "terms: needs at least one term"),
        (lambda: KronTerms(WRONG), TypeError, "terms: must be a list of terms"),
        (lambda: KronTerms([EYE]), TypeError, r"terms\[0\]: must be a list of matrices"),
        (lambda: KronTerms([[EYE], [EYE, EYE]]), ValueError, r"terms\[1\]: needs factors of"),
        (lambda: KronTerms([[EYE]], [1, 2]), ValueError, "weights: must be one number for each"),
        (lambda: KronTerms([[EYE]], [WORD]), TypeError, r"weights\[0\]: must be a number"),
        (lambda: KronTerms([[EYE]], [math.inf]), ValueError, r"weights\[0\]: must be finite"),
        (lambda: KronTerms([[STACK], [STACK[:2]]]), ValueError, "does not broadcast"),
        (lambda: KronTerms([[np.ones((2, 3))]]).solve(np.ones(2)), ValueError, "square factors"),
        (lambda: KronTerms([[EYE, EYE]]).solve(np.ones(3)), ValueError, r"b: needs 2\*2 = 4"),
        (lambda: KronTerms([[EYE]]).solve(np.ones(2), tol=0), ValueError, "tol: must be at least"),
        (lambda: KronTerms([[EYE]]).solve(np.ones(2), max_iter=0), ValueError, "max_iter: must be"),
        (lambda: KronTerms([[EYE * math.nan]] * 2).solve(np.ones(2)), NonFiniteError, r"terms\["),
        (lambda: KronTerms([[np.triu(STACK[0])]] * 2).eigvalsh(), AsymmetricError, r"terms\[0\]\["),
        (lambda: KronTerms([[EYE]], [1j]).eigvalsh(), AsymmetricError, "weights must be real"),
        (
            lambda: KronTerms([[positive(2, seed=s)] for s in (1, 2)]).eigvalsh(),
            ValueError,
            "do not commute",
        ),
        (
            lambda: KronTerms([[gaussian((2, 2), seed=s)] * 2 for s in range(3)]).solve(np.ones(4)),
            AsymmetricError,
            "three and more terms",
        ),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_explanations_and_empty():
    args, _ = sample("small", rng=0)
    assert explain_kronterms(*args).method == "diagonal"
    assert explain_kronterms([[np.triu(np.ones((2, 2)))], [np.ones((2, 2))]]).method == "quotient"
    k = KronTerms([[np.empty((0, 0)), EYE], [np.empty((0, 0)), EYE]])
    assert k.solve(np.empty((0, 3))).shape == (0, 3)
    assert k.toarray().shape == (0, 0)
    full = KronTerms([[positive(2, seed=s), positive(2, seed=s + 1)] for s in (1, 3, 5)])
    assert full.solve(np.empty((4, 0))).shape == (4, 0)
    assert (full.solve(np.zeros(4)) == 0).all()


# --- Conjugate gradients -------------------------------------------------------------------------


def test_gradients_stop_in_as_many_steps_as_eigenvalues(dtype):
    for count in (1, 2, 4):
        a = spectrum(np.tile(np.linspace(1, 4, count), 5), dtype, 1)
        b = gaussian((a.shape[0], 3), dtype)
        found = pcg(lambda x, a=a: a @ x, lambda r: r, b, 50 * EPS[dtype], 50)
        assert (found.iterations <= count + 1).all()
        exact = pcg(lambda x, a=a: a @ x, lambda r, a=a: np.linalg.solve(a, r), b, 1e-4, 50)
        assert (exact.iterations == 1).all()


def test_columns_do_not_know_of_each_other(rng):
    """A column is what it is alone, with any others beside it."""
    a = spectrum(np.geomspace(1, 1e5, 30), seed=1)
    m = 1 / np.diagonal(a)[:, None]
    apply = lambda x: np.stack([a @ c for c in x.T], axis=1)  # noqa: E731
    b = rng.standard_normal((30, 4)) * [1e-150, 1.0, 1e200, 0.0]
    together = pcg(apply, lambda r: m * r, b, 1e-9, 500)
    for j in range(4):
        alone = pcg(apply, lambda r: m * r, b[:, j : j + 1], 1e-9, 500)
        x, y = alone.x[:, 0], together.x[:, j]
        assert np.abs(x - y).max() <= 1e-6 * np.abs(x).max()
        # sums of columns are not added up in one order
        assert abs(alone.iterations[0] - together.iterations[j]) <= 10
    assert (together.residual <= 1e-9).all()
    assert together.iterations[3] == 0


def test_gradients_know_when_they_break_down():
    b = np.ones((3, 2))
    b[:, 1] = [0, 1, 0]
    for d in ([1.0, 2.0, -1.0], [1.0, 1.0, 0.0], [1.0, math.nan, 1.0]):
        a = np.asarray(d)[:, None]
        found = pcg(lambda x, a=a: a * x, lambda r: r, b, 1e-10, 100)
        assert found.broken[0]
        assert np.isfinite(found.x).all()
    assert pcg(lambda x: x, lambda r: -r, b, 1e-10, 100).broken.all()
    fine = pcg(lambda x: x, lambda r: r, b, 1e-10, 100)
    assert not fine.broken.any()


def test_gradients_start_again_where_the_recurrence_drifts():
    """The residual that counts is the true one, and no cycle makes it larger."""
    for kappa in (1e6, 1e8):
        a = spectrum(np.geomspace(1, kappa, 100), seed=1)
        b = a @ gaussian((100, 1))
        found = pcg(lambda x, a=a: a @ x, lambda r: r, b, 1e-15, 20_000)
        assert found.residual[0] <= 1e-15
        assert np.linalg.norm(b - a @ found.x) <= 2e-15 * np.linalg.norm(b)
    a, b = np.array([[1e-3], [1e3], [1.0]]), np.array([[1.0], [1e-3], [0.0]])
    first = pcg(lambda x: a * x, lambda r: r, b, 1e-8, 1)
    assert first.iterations == 1
    assert first.residual == 1
    assert pcg(lambda x: a * x, lambda r: r, b, 1e-8, 2).residual < 1e-12


def test_gradients_stop_where_rounding_does():
    """A tol below what rounding allows costs a few restarts and not all steps."""
    a = spectrum(np.geomspace(1, 1e6, 30), "float32", 1)
    b = gaussian((30, 1), "float32")
    found = pcg(lambda x: a @ x, lambda r: r, b, 1e-12, 100_000)
    assert found.iterations[0] < 5000
    assert found.residual[0] > 1e-12
    assert not found.broken[0]
    true = np.linalg.norm(b - a @ found.x) / np.linalg.norm(b)
    assert abs(true - found.residual[0]) < 0.5 * true


def test_a_principal_pair_is_found_by_share():
    """The part of a mode that says most, not the first; noise does not turn it."""
    a, c = spectrum([1, 2, 5.0], seed=1), spectrum([1, 3, 4.0], seed=2)
    v = steps._principal([1e-6 * c, a], np.ones(2))
    off = adjoint(v) @ a @ v
    assert np.linalg.norm(off - np.diag(np.diagonal(off))) < 1e-4
