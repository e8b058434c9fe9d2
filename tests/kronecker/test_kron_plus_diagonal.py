"""Kronecker products and sums plus a diagonal, against dense matrices."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from directions import adjoint, gaussian
from spectra import EPS, spectrum

from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
)
from linalgk.kronecker import _diagonal
from linalgk.kronecker._cg import pcg
from linalgk.kronecker._diagonal import KronPlusDiagonal, explain_kronplusdiagonal, sample
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._kronsum import KronSum


def positive(n, dtype="float64", seed=0, kappa=30.0):
    return spectrum(np.geomspace(1, kappa, n), dtype, seed)


def smooth(n, length=4.0):
    """A kernel matrix that is singular to rounding."""
    t = np.arange(n) / length
    return np.exp(-0.5 * np.subtract.outer(t, t) ** 2)


def noise(shape, low=0.5, high=2.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def wide(x):
    return np.asarray(x, np.result_type(x, "float64"))


# --- Products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kron, KronSum])
def test_products_and_entries(kind, dtype):
    factors = [gaussian((n, n), dtype, n) for n in (3, 4)]
    d = gaussian(12, dtype, 1)
    k = KronPlusDiagonal(kind(factors), d)
    a = kind([wide(f) for f in factors]).toarray() + np.diag(wide(d))
    tol = 50 * EPS[dtype]
    assert k.shape == (12, 12)
    assert k.dtype == np.dtype(dtype)
    assert np.abs(k.toarray() - a).max() < tol * np.abs(a).max()
    assert np.abs(k.diagonal() - np.diagonal(a)).max() < tol
    for shape in ((12,), (12, 3), (2, 12, 2)):
        x = gaussian(shape, dtype, 2)
        assert np.abs(k @ x - a @ x).max() < tol * np.abs(a @ x).max()
        if len(shape) < 3:
            assert np.abs(x.T @ k - x.T @ a).max() < tol * np.abs(x.T @ a).max()
    assert np.abs(k.T.toarray() - a.T).max() < tol * np.abs(a).max()
    assert np.abs(k.H.toarray() - adjoint(a)).max() < tol * np.abs(a).max()
    assert np.abs(k.to_scipy().rmatmat(np.eye(12)) - adjoint(a)).max() < tol * np.abs(a).max()


def test_diagonals_on_the_grid_and_in_batches(rng):
    factors, d = [positive(3), positive(4)], noise((3, 4))
    k = KronPlusDiagonal(factors, d)
    assert k == KronPlusDiagonal(Kron(factors), d.reshape(-1))
    assert k == Kron(factors).add_diagonal(d)
    assert k != KronPlusDiagonal(KronSum(factors), d)
    assert k.d.shape == (12,)
    many = KronPlusDiagonal(factors, np.stack([d.reshape(-1), 2 * d.reshape(-1)]))
    assert many.batch == (2,)
    x = rng.standard_normal(12)
    assert np.allclose((many @ x)[0], k @ x)
    assert np.allclose(many.toarray()[0], k.toarray())
    assert np.allclose(many.diagonal()[0], k.diagonal())
    for call in (lambda: many.solve(x), many.logdet):
        with pytest.raises(ValueError, match=r"may have no batch, got \(2,\)"):
            call()
    k.solve(x)
    for other in (pickle.loads(pickle.dumps(k)), copy.deepcopy(k)):
        assert other == k
        assert hash(other) == hash(k)


# --- Solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kron, KronSum])
@pytest.mark.parametrize("sizes", [(6,), (5, 6), (3, 4, 3)])
def test_solutions(kind, sizes, dtype):
    factors = [positive(n, dtype, n) for n in sizes]
    d = noise(math.prod(sizes)).astype(EPS_REAL[dtype])
    k = KronPlusDiagonal(kind(factors), d)
    a = kind([wide(f) for f in factors]).toarray() + np.diag(wide(d))
    n = a.shape[0]
    tol = 1e-4 if EPS[dtype] > 1e-10 else 1e-11
    for shape in ((n,), (2, n, 3)):
        b = gaussian(shape, dtype, 1)
        x, info = k.solve(b, tol=tol, return_info=True)
        assert x.dtype == np.dtype(dtype)
        assert x.shape == shape
        axis = -1 if len(shape) == 1 else -2
        rest = np.linalg.norm(a @ x - b, axis=axis) / np.linalg.norm(b, axis=axis)
        assert (rest <= 1.01 * tol + 100 * EPS[dtype]).all()
        assert info.iterations.shape == info.residual.shape == rest.shape
        assert (info.iterations <= 30).all()
        y = k.solve(b, 3.0, tol=tol)
        assert np.linalg.norm(a @ y + 3 * y - b) <= 2 * tol * np.linalg.norm(b)
    # a constant diagonal is a shift: one step
    same = KronPlusDiagonal(kind(factors), np.full(n, 0.7, EPS_REAL[dtype]))
    b = gaussian(n, dtype, 2)
    x, info = same.solve(b, tol=tol, return_info=True)
    assert info.iterations == 1
    assert np.abs(x - kind(factors).solve(b, 0.7)).max() <= 2 * tol * np.abs(x).max()


EPS_REAL = {
    "float32": "float32", "float64": "float64", "complex64": "float32", "complex128": "float64"
}  # fmt: skip


def test_an_exact_kronecker_diagonal_takes_one_step(rng):
    parts = [np.exp(rng.uniform(-4, 4, n)) for n in (8, 9)]
    k = KronPlusDiagonal([smooth(8), smooth(9)], np.kron(*parts))
    _, info = k.solve(rng.standard_normal(72), return_info=True)
    assert info.method == "pcg-kron"
    assert info.iterations <= 2
    found = k.logdet(rng=0)
    assert np.isclose(found.value, np.linalg.slogdet(k.toarray())[1], rtol=1e-12)


def diagonals():
    rng = np.random.default_rng(5)
    product = np.kron(np.exp(rng.uniform(-3, 3, 20)), np.exp(rng.uniform(-3, 3, 20)))
    return {
        "mean": noise(400),
        "kron": product * rng.uniform(0.5, 2.0, 400),
        "diagonal": np.where(rng.uniform(size=400) < 0.05, 1e5, 1.0),
    }


@pytest.mark.parametrize("name", ["mean", "kron", "diagonal"])
def test_the_preconditioner_is_chosen_by_its_bound(name):
    """By rule, better than no preconditioner, and with eigenvalues where they are said to be."""
    d = diagonals()[name]
    k = KronPlusDiagonal([smooth(20), smooth(20)], d)
    b = gaussian(400)
    x, info = k.solve(b, tol=1e-9, return_info=True)
    assert info.method == f"pcg-{name}"
    assert explain_kronplusdiagonal(k.kron, d).method == f"pcg-{name}"
    a = k.toarray()
    assert np.linalg.norm(a @ x - b) <= 1.01e-9 * np.linalg.norm(b)
    p, _ = k._preconditioner("float64", 0.0)
    inverse = p.apply(np.eye(400))
    values = np.linalg.eigvals(inverse @ a).real
    low, high = p.bounds
    assert low * (1 - 1e-9) <= values.min()
    assert values.max() <= high * (1 + 1e-9)
    assert np.isclose(p.logdet, -np.linalg.slogdet(inverse)[1], rtol=1e-9)
    plain = pcg(lambda z: k @ z, lambda r: r, b[:, None], 1e-9, 2000)
    assert info.iterations < plain.iterations[0]


def test_negative_entries_of_the_diagonal():
    """The sum is definite though d and its mean are not."""
    factors = [positive(5, seed=1), positive(4, seed=2)]
    d = noise(20, -0.9, 0.1)
    assert d.mean() < 0
    k = KronPlusDiagonal(factors, d)
    b = gaussian(20)
    assert np.linalg.norm(k @ k.solve(b) - b) < 1e-9
    # K + mean(d) is indefinite, K + diag(d) is not
    weak = KronPlusDiagonal(
        [np.diag([1e-3, 1.0, 1.0]), np.eye(2)], [2.0, 2, -0.9, -0.9, -0.9, -0.9]
    )
    assert np.mean(weak.d) + 1e-3 > 0 > np.sort(weak.d)[0]
    other = KronPlusDiagonal([np.diag([1e-3, 9.0, 9.0]), np.eye(2)], [2.0, 2, -5, -5, -5, -5.0])
    assert np.mean(other.d) + 1e-3 < 0
    for some in (weak, other):
        rhs = gaussian(6)
        assert np.linalg.norm(some @ some.solve(rhs) - rhs) < 1e-9


# --- Determinants --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean", "kron", "diagonal"])
def test_determinants(name, monkeypatch):
    """Exact for small matrices; else the interval for 0.9999 holds the true value, seeds fixed."""
    d = diagonals()[name]
    k = KronPlusDiagonal([smooth(20), smooth(20)], d)
    want = np.linalg.slogdet(k.toarray())[1]
    exact = k.logdet()
    assert np.isclose(exact.value, want, rtol=1e-13)
    assert exact.std_error == 0
    monkeypatch.setattr(_diagonal, "_FORMED", 0)
    misses = 0
    for seed in range(5):
        found = k.logdet(100, rng=seed)
        assert found.n_matvecs <= 100
        low, high = found.interval(0.9999)
        assert low <= want <= high
        assert found.bounds[0] <= found.value <= found.bounds[1]
        misses += not found.interval(0.5)[0] <= want <= found.interval(0.5)[1]
    assert misses < 5


def test_a_determinant_of_complex_factors(monkeypatch):
    monkeypatch.setattr(_diagonal, "_FORMED", 0)
    factors = [positive(6, "complex128", 1), positive(7, "complex128", 2)]
    k = KronPlusDiagonal(factors, noise(42))
    low, high = k.logdet(60, rng=1).interval(0.9999)
    assert low <= np.linalg.slogdet(k.toarray())[1] <= high


# --- Libraries and failures ----------------------------------------------------------------------


def test_other_libraries_get_their_own_arrays(xp, monkeypatch):
    monkeypatch.setattr(_diagonal, "_FORMED", 0)
    factors, d, b = [positive(5), positive(4)], noise(20), gaussian((20, 2))
    given = [xp.asarray(f) for f in factors], xp.asarray(d)
    mine, k = KronPlusDiagonal(factors, d), KronPlusDiagonal(*given)
    x, info = k.solve(xp.asarray(b), return_info=True)
    assert type(x) is type(info.residual) is type(given[1])
    assert np.abs(np.asarray(x) - mine.solve(b)).max() < 1e-9
    assert np.abs(np.asarray(k @ xp.asarray(b)) - mine @ b).max() < 1e-12
    assert np.abs(np.asarray(k.diagonal()) - mine.diagonal()).max() < 1e-12
    assert np.isclose(float(k.logdet(30, rng=0)), float(mine.logdet(30, rng=0)))


def test_frameworks_are_told_what_is_not_offered():
    torch = pytest.importorskip("torch")
    leaf = torch.ones(2, dtype=torch.float64, requires_grad=True)
    k = KronPlusDiagonal([torch.eye(2, dtype=torch.float64)], leaf.detach())
    with pytest.raises(TypeError, match="requires grad"):
        k.solve(leaf)


def test_what_is_bad_in_a_column_stays_there():
    k = KronPlusDiagonal([positive(5), positive(4)], noise(20))
    b = gaussian((20, 3))
    good = k.solve(b)
    b[2, 1] = math.inf
    with pytest.raises(NonFiniteError, match=r"b holds NaN.*\(1,\)"):
        k.solve(b)
    found = k.solve(b, on_fail="nan")
    assert np.isnan(found[:, 1]).all()
    assert np.abs(found[:, [0, 2]] - good[:, [0, 2]]).max() < 1e-14


def test_what_is_not_definite_or_too_slow():
    k = KronPlusDiagonal([positive(5), positive(4)], -noise(20) * 1e3)
    with pytest.raises(NotPositiveSemidefiniteError, match="least eigenvalue of K and the largest"):
        k.solve(np.ones(20))
    d = np.ones(20)
    d[3] = -50
    hidden = KronPlusDiagonal([positive(5), positive(4)], d)
    assert np.linalg.eigvalsh(hidden.toarray())[0] < 0
    with pytest.raises(NotPositiveSemidefiniteError):
        hidden.solve(gaussian(20))
    slow = KronPlusDiagonal([positive(10), positive(10)], noise(100, 0.01, 90))
    with pytest.raises(NotConvergedError, match="after 1 steps"):
        slow.solve(gaussian(100), max_iter=1)
    with pytest.warns(ConvergenceWarning):
        slow.solve(gaussian(100), max_iter=1, on_fail="warn")


EYE = np.eye(2)
# what the types forbid
COMPLEX: Any = 1j


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: KronPlusDiagonal([EYE, EYE], np.ones(3)), ValueError, r"d: needs 2\*2 = 4"),
        (lambda: KronPlusDiagonal([EYE, EYE], 3.0), ValueError, "d: is a number"),
        (lambda: KronPlusDiagonal([np.ones((2, 3))], np.ones(2)), ValueError, "square factors"),
        (lambda: KronPlusDiagonal(EYE, np.ones(2)), TypeError, "must be a list of matrices"),
        (lambda: KronPlusDiagonal([EYE], "xx"), TypeError, "d: must be an array"),
        (
            lambda: KronPlusDiagonal([np.triu(np.ones((2, 2)))], np.ones(2)).solve(np.ones(2)),
            AsymmetricError,
            r"factors\[0\] not Hermitian",
        ),
        (lambda: KronPlusDiagonal([EYE], [1, 1j]).solve(np.ones(2)), AsymmetricError, "d: must be"),
        (lambda: KronPlusDiagonal([EYE], [1, math.inf]).solve(np.ones(2)), NonFiniteError, "d: h"),
        (
            lambda: KronPlusDiagonal([EYE * math.nan], np.ones(2)).solve(np.ones(2)),
            NonFiniteError,
            r"factors\[0\]",
        ),
        (lambda: KronPlusDiagonal([EYE], np.ones(2)).solve(np.ones(3)), ValueError, "b: needs 2"),
        (lambda: KronPlusDiagonal([EYE], EYE[0]).solve(EYE[0], COMPLEX), ValueError, "shift: "),
        (lambda: KronPlusDiagonal([EYE], np.ones(2)).logdet(0), ValueError, "n_matvecs: must be"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_empty_and_the_record():
    k = KronPlusDiagonal([np.empty((0, 0)), EYE], np.empty(0))
    assert k.solve(np.empty((0, 3))).shape == (0, 3)
    assert k.toarray().shape == (0, 0)
    args, _ = sample("small", rng=0)
    assert "pcg" in explain_kronplusdiagonal(*args).method
