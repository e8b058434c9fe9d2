"""Spectra, least squares, powers, norms: dense oracles, thresholds on products, bad members."""

import functools
import itertools
from fractions import Fraction

import numpy as np
import pytest
from directions import adjoint, gaussian
from spectra import EPS, conditioned, known, spectrum

from linalgk.errors import (
    AsymmetricError,
    NonFiniteError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _leading
from linalgk.kronecker._kron import Kron

RECTANGLES = [
    [(3, 2), (2, 4)],
    [(4, 4), (2, 2)],
    [(2, 5), (3, 1), (2, 2)],
    [(5, 3)],
    [(2, 3), (3, 4)],
]


def dense(factors):
    return functools.reduce(
        np.kron, [np.asarray(f, np.result_type(f, np.float64)) for f in factors]
    )


def factors_of(shapes, dtype="float64", seed=0):
    return [gaussian(s, dtype, seed + i) for i, s in enumerate(shapes)]


def hermitian(n, dtype="float64", seed=0):
    a = gaussian((n, n), dtype, seed)
    return (a + adjoint(a)) / 2


def positive(n, dtype="float64", seed=0):
    a = gaussian((n, n), dtype, seed)
    return (a @ adjoint(a) + np.eye(n)).astype(dtype)


# --- The largest products ------------------------------------------------------------------------


def test_largest_products_of_any_signs():
    """All orders, signs, zeros, ties and lengths, against sorting all products."""
    rng = np.random.default_rng(3)
    for _ in range(400):
        lists = []
        for _ in range(int(rng.integers(1, 5))):
            n = int(rng.integers(1, 7))
            kinds = [rng.standard_normal(n), -rng.random(n), rng.random(n), rng.integers(-2, 3, n)]
            lists.append(kinds[rng.integers(4)].astype(float))
        every = functools.reduce(lambda x, y: np.multiply.outer(x, y).ravel(), lists)
        k = int(rng.integers(1, len(every) + 1))
        values, places = _leading.largest(lists, k)
        assert (values == np.sort(every)[::-1][:k]).all()
        flat = np.ravel_multi_index(places.T, [len(x) for x in lists])
        assert len(set(flat)) == k
        assert (every[flat] == values).all()


def test_largest_products_of_many():
    """10^15 products, of which none is formed: the largest are near the corner."""
    rng = np.random.default_rng(0)
    lists = [np.sort(rng.standard_normal(1000)) for _ in range(5)]
    values, places = _leading.largest(lists, 50)
    assert (np.diff(values) <= 0).all()
    ends = [np.r_[0:30, 970:1000]] * 5
    best = functools.reduce(
        lambda x, y: np.sort(np.multiply.outer(x, y).ravel())[np.r_[0:2000, -2000:0]],
        [x[e] for x, e in zip(lists, ends, strict=True)],
    )
    assert np.allclose(values, np.sort(best)[::-1][:50], rtol=1e-14)
    assert np.allclose(
        np.prod([x[p] for x, p in zip(lists, places.T, strict=True)], axis=0), values
    )


# --- Eigenvalues ---------------------------------------------------------------------------------


@pytest.mark.parametrize("assume", ["her", "pos", None])
def test_eigenvalues_and_eigenvectors(assume, dtype):
    make = positive if assume == "pos" else hermitian
    factors = [make(n, dtype, n) for n in (3, 2, 3)]
    K, D = Kron(factors, assume_a=assume), dense(factors)
    tol = 100 * EPS[dtype] * np.linalg.norm(D, 2)
    wanted = np.linalg.eigvalsh(D)
    w, V = K.eigh()
    assert w.dtype == np.zeros(0, dtype).real.dtype
    assert V.shape == (18, 18)
    assert V.dtype == np.dtype(dtype)
    assert np.abs(w - wanted).max() <= tol
    vectors = V.toarray()
    assert np.abs(D @ vectors - vectors * w).max() <= tol
    assert np.abs(adjoint(vectors) @ vectors - np.eye(18)).max() <= 100 * EPS[dtype]
    for k in (1, 5, 18):
        w, v = K.eigh(k)
        assert v.shape == (18, k)
        assert np.abs(w - wanted[::-1][:k]).max() <= tol
        assert np.abs(D @ v - v * w).max() <= tol
        assert np.abs(adjoint(v) @ v - np.eye(k)).max() <= 100 * EPS[dtype]


def test_sorted_vectors_are_an_operator():
    factors = [hermitian(3), np.stack([hermitian(2, seed=s) for s in (1, 2)])]
    V = Kron(factors).eigh().eigenvectors
    A = V.toarray()
    for x in (gaussian(6), gaussian((6, 2)), gaussian((2, 6, 3))):
        assert np.allclose(V @ x, A @ x)
        assert np.allclose(V.H @ x, A.mT @ x)
        y = x if x.ndim == 1 else x.mT
        assert np.allclose(y @ V, y @ A)
        assert np.allclose(y @ V.T, y @ A.mT)
    assert np.allclose(V.T.toarray(), A.mT)
    assert V == V.T.T
    assert V != V.T
    single = Kron([hermitian(3), hermitian(2, seed=1)]).eigh().eigenvectors
    assert np.allclose(single.to_scipy() @ np.eye(6), single.toarray())
    assert repr(single) == "Sorted(shape=(6, 6), dtype=float64)"


def test_negative_eigenvalues_pair_up():
    w, v = Kron([np.diag([-3.0, 1.0]), np.diag([-5.0, 2.0, 0.5])]).eigh(3)
    assert w.tolist() == [15.0, 2.0, 0.5]
    assert np.abs(v).argmax(axis=0).tolist() == [0, 4, 5]
    batch = np.stack([np.diag([-3.0, 1.0]), np.diag([2.0, -1.0])])
    w, _ = Kron([batch, np.diag([-5.0, 2.0, 0.5])]).eigh(2)
    assert w.tolist() == [[15.0, 2.0], [5.0, 4.0]]


def test_a_spectrum_too_large_to_form():
    rng = np.random.default_rng(0)
    factors = [spectrum(rng.random(40) + 0.1, seed=s) for s in range(4)]
    K = Kron(factors, assume_a="pos")
    u, s, vh = K.svd(3)
    assert u.shape == vh.shape[::-1] == (40**4, 3)
    assert np.isclose(s[0], K.norm(2), rtol=1e-12)
    assert np.linalg.norm(K @ vh.T[:, 0] - s[0] * u[:, 0]) <= 1e-12


# --- Singular values -----------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", RECTANGLES)
def test_singular_values_and_vectors(shapes, dtype):
    factors = factors_of(shapes, dtype)
    K, D = Kron(factors), dense(factors)
    rank = int(np.prod([min(s) for s in shapes]))
    wanted = np.linalg.svd(D, compute_uv=False)
    tol = 50 * EPS[dtype] * wanted[0]
    U, S, Vh = K.svd()
    assert (U.shape, S.shape, Vh.shape) == ((D.shape[0], rank), (rank,), (rank, D.shape[1]))
    assert np.abs(S - wanted[:rank]).max() <= tol
    assert (wanted[rank:] <= tol).all()
    assert np.abs((U.toarray() * S) @ Vh.toarray() - D).max() <= tol
    x = gaussian((rank, 2), dtype, 9)
    assert np.abs(U @ x - U.toarray() @ x).max() <= tol
    assert np.abs(Vh.H @ x - adjoint(Vh.toarray()) @ x).max() <= tol
    for k in (1, rank):
        u, s, vh = K.svd(k)
        assert np.abs(s - wanted[:k]).max() <= tol
        best = np.linalg.norm((u * s) @ vh - D, 2)
        assert abs(best - (wanted[k] if k < len(wanted) else 0)) <= tol


@pytest.mark.parametrize("shapes", RECTANGLES)
def test_norms_and_conditions(shapes, dtype):
    factors = factors_of(shapes, dtype)
    K, D = Kron(factors), dense(factors)
    for order in ("fro", 2, "nuc", 1, np.inf):
        assert np.isclose(K.norm(order), np.linalg.norm(D, order), rtol=200 * EPS[dtype])
        assert K.norm(order).dtype == np.zeros(0, dtype).real.dtype
    s = np.sort(functools.reduce(np.kron, [np.linalg.svd(f, compute_uv=False) for f in factors]))
    tol = 100 * EPS[dtype] * s[-1] / s[0]
    assert np.isclose(K.norm(-2), s[0], rtol=tol)
    assert np.isclose(K.cond(), s[-1] / s[0], rtol=tol)
    assert np.isclose(K.cond(-2), s[0] / s[-1], rtol=tol)
    if all(p == q for p, q in shapes):
        for p in (1, np.inf, "fro"):
            assert np.isclose(K.cond(p), np.linalg.cond(D, p), rtol=tol)


def test_conditions_of_singular_matrices():
    for p in (1, np.inf, "fro"):
        assert Kron([np.ones((2, 2)), np.eye(2)]).cond(p) == np.inf
    assert Kron([np.diag([1.0, 0.0]), np.eye(2)]).cond() == np.inf
    batch = Kron([np.stack([np.diag([1.0, 0.0]), np.diag([1.0, 4.0])]), np.diag([1.0, 2.0])])
    for p in (2, 1):
        assert batch.cond(p).tolist() == [np.inf, 8.0]
    with pytest.raises(ValueError, match="square"):
        Kron([np.ones((2, 3))]).cond(1)
    with pytest.raises(ValueError, match="must be one of"):
        Kron([np.eye(2)]).cond(3)
    with pytest.raises(ValueError, match="empty"):
        Kron([np.ones((0, 2))]).norm()


def test_norms_that_would_overflow():
    K = Kron([1e200 * np.eye(2), 1e-200 * np.eye(3)])
    assert np.isclose(K.norm(), 6**0.5)
    assert np.isclose(K.cond("fro"), 6.0)


# --- Least squares -------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", RECTANGLES)
def test_least_squares(shapes, dtype):
    factors = factors_of(shapes, dtype)
    K, D = Kron(factors), dense(factors)
    s = np.linalg.svd(D, compute_uv=False)
    s = s[: int(np.prod([min(f.shape) for f in factors]))]
    tol = 100 * EPS[dtype] * (s[0] / s[-1]) ** 2
    for b in (gaussian(D.shape[0], dtype), gaussian((D.shape[0], 2), dtype)):
        x, residuals, rank, values = K.lstsq(b)
        wanted = np.linalg.pinv(D, rcond=s[-1] / s[0] / 2) @ b
        assert x.dtype == np.dtype(dtype)
        assert np.linalg.norm(x - wanted) <= tol * np.linalg.norm(wanted)
        assert rank == len(s)
        assert np.allclose(values, s, rtol=tol)
        rest = np.atleast_1d((np.abs(b - D @ x) ** 2).sum(axis=0))
        assert np.allclose(
            residuals, rest, rtol=1e-3, atol=100 * EPS[dtype] * np.linalg.norm(b) ** 2
        )
        assert np.linalg.norm(K.pinv() @ b - wanted) <= tol * np.linalg.norm(wanted)
    numpys = np.linalg.lstsq(D.astype(dtype), b, rcond=None)
    if len(s) == min(D.shape) and D.shape[0] > D.shape[1]:
        assert np.allclose(residuals, numpys[1], rtol=1e-3)


def test_the_threshold_is_for_products():
    """No threshold for each factor keeps the same products: 0.3 0.3 may go and 0.1 stay."""
    first, exact = known(4, 3, [1.0, 0.3, 0.02])
    second, _ = known(3, 4, [1.0, 0.3, 0.1], seed=5)
    D = np.kron(first, second)
    sigma = np.multiply.outer([1.0, 0.3, 0.02], [1.0, 0.3, 0.1]).ravel()
    b = gaussian(12)
    for rcond in (0.5, 0.2, 0.095, 0.05, 0.025, 0.004, 0.001, 0):
        P = Kron([first, second]).pinv(rcond)
        wanted = np.linalg.pinv(D, rcond=rcond if rcond else 1e-6)
        assert P.rank == (sigma > rcond).sum()
        assert np.abs(P.toarray() - wanted).max() <= 1e-12 * np.linalg.norm(wanted, 2)
        x, _, rank, _ = Kron([first, second]).lstsq(b, rcond)
        assert rank == P.rank
        assert np.linalg.norm(x - wanted @ b) <= 1e-12 * np.linalg.norm(wanted, 2)
    by_factors = np.kron(np.linalg.pinv(first, rcond=0.05), np.linalg.pinv(second, rcond=0.05))
    assert np.linalg.norm(by_factors - np.linalg.pinv(D, rcond=0.05)) > 1
    assert np.abs(Kron([first]).pinv().toarray() - exact).max() < 1e-12


def test_rounding_is_no_rank(dtype):
    a = gaussian((6, 2), dtype) @ gaussian((2, 5), dtype, 1)
    b = gaussian((4, 3), dtype, 2) @ gaussian((3, 4), dtype, 3)
    K = Kron([a, b])
    P, D = K.pinv(), np.kron(a, b)
    assert P.rank == K.lstsq(np.ones(24, dtype))[2] == 6
    tol = 1e3 * EPS[dtype] * np.linalg.norm(D, 2) * np.linalg.norm(P.toarray(), 2)
    assert np.linalg.norm(D @ P.toarray() @ D - D) <= tol * np.linalg.norm(D, 2)


def test_the_pseudoinverse_is_an_operator():
    factors = [gaussian((2, 3, 2), "complex128"), gaussian((2, 4), "complex128", 1)]
    P = Kron(factors).pinv()
    A = P.toarray()
    D = Kron(factors).toarray()
    assert (P.shape, P.batch, P.rank.tolist()) == ((8, 6), (2,), [4, 4])
    assert np.abs(A - np.linalg.pinv(D)).max() < 1e-12
    for Q, B in ((P, A), (P.T, A.mT), (P.H, A.conj().mT), (P.H.T, A.conj())):
        assert np.allclose(Q.toarray(), B)
        for x in (gaussian(Q.shape[1]), gaussian((2, Q.shape[1], 3))):
            assert np.allclose(Q @ x, B @ x)
        y = gaussian((3, Q.shape[0]))
        assert np.allclose(y @ Q, y @ B)
    single = Kron([gaussian((3, 2))]).pinv()
    assert np.allclose(single.to_scipy() @ np.eye(3), single.toarray())
    assert repr(single) == "KronPinv(shape=(2, 3), rank=2, dtype=float64)"
    assert np.allclose((single.H @ np.ones(2)), single.toarray().T @ np.ones(2))


def test_zero_has_a_pseudoinverse():
    for factors in (
        [np.zeros((3, 2)), np.ones((2, 2))],
        [np.full((1, 1), 5e-324), np.ones((2, 1))],
    ):
        P = Kron(factors).pinv()
        assert P.rank == 0
        assert not P.toarray().any()
        assert not Kron(factors).lstsq(np.ones(P.shape[1]))[0].any()
    x, residuals, rank, s = Kron([np.ones((0, 2)), np.ones((3, 1))]).lstsq(np.ones(0))
    assert (x.tolist(), residuals.tolist(), rank, s.tolist()) == ([0.0, 0.0], [0.0], 0, [])


# --- Factors of the product ----------------------------------------------------------------------


def test_cholesky_and_qr(dtype):
    factors = [positive(3, dtype), positive(4, dtype, 1)]
    L, D = Kron(factors, assume_a="pos").cholesky(), dense(factors)
    tol = 50 * EPS[dtype] * np.linalg.norm(D, 2)
    assert not np.triu(L.toarray(), 1).any()
    assert np.abs((L @ L.H).toarray() - D).max() <= tol
    rectangular = factors_of([(4, 2), (3, 3)], dtype)
    Q, R = Kron(rectangular).qr()
    assert (Q.shape, R.shape) == ((12, 6), (6, 6))
    assert np.abs((Q.H @ Q).toarray() - np.eye(6)).max() <= 50 * EPS[dtype]
    assert np.abs((Q @ R).toarray() - dense(rectangular)).max() <= tol
    assert np.abs(np.tril(R.toarray(), -1)).max() == 0


def test_matrices_without_a_cholesky_factor():
    with pytest.raises(
        NotPositiveSemidefiniteError, match=r"cholesky: factors\[1\].*eigenvalue -1"
    ):
        Kron([np.eye(2), np.diag([1.0, -1.0])]).cholesky()
    with pytest.raises(SingularMatrixError, match=r"factors\[0\].*zero to working precision"):
        Kron([np.diag([1.0, 0.0]), np.eye(2)], assume_a="pos").cholesky()
    with pytest.raises(AsymmetricError, match=r"factors\[1\] is not Hermitian"):
        Kron([np.eye(2), np.triu(np.ones((2, 2)))]).cholesky()
    batch = np.stack([np.diag([1.0, -1.0]), np.diag([4.0, 9.0])])
    L = Kron([batch, np.eye(2)]).cholesky(on_fail="nan")
    assert np.isnan(L.toarray()[0]).any()
    assert (np.diagonal(L.toarray()[1]) == [2, 2, 3, 3]).all()


@pytest.mark.parametrize("t", [0, 1, 2, 3, -1, -2])
def test_integer_powers_of_general_factors(t, dtype):
    factors = [conditioned(3, 3, 4.0, dtype), conditioned(2, 2, 3.0, dtype, 5)]
    found = Kron(factors).powm(t)
    wanted = np.linalg.matrix_power(dense(factors), t)
    assert isinstance(found, Kron)
    assert (
        np.linalg.norm(found.toarray() - wanted) <= 1e3 * EPS[dtype] * np.linalg.norm(wanted) * 12
    )


def test_powers_of_positive_definite_factors(dtype):
    factors = [spectrum([1.0, 4.0, 0.25], dtype), spectrum([9.0, 2.0], dtype, seed=2)]
    K, D = Kron(factors, assume_a="pos"), dense(factors)
    w, v = np.linalg.eigh(D)
    for found, t in (
        (K.powm(0.3), 0.3), (K.powm(Fraction(1, 2)), 0.5), (K.powm(-0.5), -0.5), (K.sqrtm(), 0.5),
        (K.inv_root(4), -0.25), (K.inv_root(Fraction(3, 2)), -2 / 3), (K.powm(2.0), 2),
        (K.inv(), -1),
    ):  # fmt: skip
        wanted = (v * w**t) @ adjoint(v)
        assert found.assume_a == ("pos", "pos")
        assert np.linalg.norm(found.toarray() - wanted) <= 500 * EPS[dtype] * np.linalg.norm(wanted)
    assert Kron([hermitian(2)], assume_a="her").powm(2).assume_a == ("pos",)
    assert Kron([hermitian(2)], assume_a="her").powm(3).assume_a == ("her",)


def test_powers_that_do_not_exist():
    K = Kron([np.eye(2), np.diag([1.0, -4.0])])
    for call in (K.sqrtm, lambda: K.powm(0.5), lambda: K.inv_root(2)):
        with pytest.raises(NotPositiveSemidefiniteError, match=r"factors\[1\].*eigenvalue -4"):
            call()
    with pytest.raises(AsymmetricError, match=r"powm: factors\[0\]"):
        Kron([np.triu(np.ones((2, 2)))]).powm(0.5)
    with pytest.raises(SingularMatrixError, match=r"inv_root: factors\[0\]"):
        Kron([np.diag([1.0, 0.0])]).inv_root(2)
    with pytest.raises(TypeError, match="t: must be"):
        K.powm("2")
    with pytest.raises(ValueError, match="needs square factors"):
        Kron([np.ones((2, 3))]).sqrtm()


# --- Batches and bad input -----------------------------------------------------------------------


def test_batches_are_their_members():
    a = np.stack([positive(3, seed=s) for s in range(4)]).reshape(2, 2, 3, 3)
    b = np.stack([hermitian(2, seed=s) for s in (8, 9)])
    K = Kron([a, b])
    w, v = K.eigh(3)
    values, V = K.eigh()
    U, S, Vh = K.svd()
    x = K.lstsq(np.ones((6, 1)))
    for i in itertools.product(range(2), range(2)):
        one = Kron([a[i], b[i[1]]])
        assert np.allclose(w[i], one.eigh(3).eigenvalues)
        assert np.allclose(values[i], one.eigh().eigenvalues)
        D = one.toarray()
        assert np.allclose(D @ v[i], v[i] * w[i])
        assert np.allclose(D @ V.toarray()[i], V.toarray()[i] * values[i])
        assert np.allclose(U.toarray()[i] * S[i] @ Vh.toarray()[i], D)
        assert np.allclose(x.x[i], np.linalg.solve(D, np.ones((6, 1))))
        assert np.isclose(K.norm("nuc")[i], one.norm("nuc"))
        assert np.isclose(K.cond(1)[i], one.cond(1))
        assert np.allclose(K.inv().toarray()[i], np.linalg.inv(D))


def test_bad_members_leave_the_others():
    a = np.stack([positive(3, seed=s) for s in range(3)])
    bad = a.copy()
    bad[1, 2, 2] = np.inf
    other = positive(2)
    K, good = Kron([bad, other]), Kron([a, other])
    for name, args in (
        ("eigh", ()), ("eigh", (2,)), ("svd", ()), ("svd", (2,)), ("pinv", ()), ("inv", ()),
        ("lstsq", (np.ones((6, 1)),)), ("qr", ()), ("cholesky", ()),
    ):  # fmt: skip
        with pytest.raises(
            NonFiniteError, match=rf"{name}: factors\[0\] .*members \(1,\)"
        ) as caught:
            getattr(K, name)(*args)
        assert caught.value.index == ((1,),)
        found = getattr(K, name)(*args, on_fail="nan")
        wanted = getattr(good, name)(*args)
        parts = [found, wanted] if not isinstance(found, tuple) else [found[0], wanted[0]]
        mine, theirs = (x.toarray() if hasattr(x, "toarray") else x for x in parts)
        assert np.isnan(mine[1]).any()
        assert np.allclose(mine[[0, 2]], theirs[[0, 2]])


def test_what_is_refused():
    with pytest.raises(AsymmetricError, match=r"eigh: factors\[1\] is not Hermitian"):
        Kron([np.eye(2), np.triu(np.ones((2, 2)))]).eigh()
    with pytest.raises(AsymmetricError):
        Kron([np.triu(np.ones((2, 2)))], assume_a="gen").eigh()
    with pytest.raises(NotPositiveSemidefiniteError, match="eigenvalue -1"):
        Kron([np.diag([1.0, -1.0])], assume_a="pos").eigh()
    K = Kron([np.eye(2), np.ones((3, 2))])
    for call, match in (
        (K.eigh, "square factors"), (K.inv, "use lstsq or pinv"), (K.cholesky, "square"),
        (lambda: K.svd(5), "at most 4, how many there are, got 5"),
        (lambda: K.svd(0), "at least 1"),
        (lambda: K.pinv(-0.1), "rcond"), (lambda: K.lstsq(np.ones(5)), r"2\*3 = 6 entries, got 5"),
        (lambda: K.norm(3), "ord: must be one of"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(TypeError, match="rank: must be an integer"):
        K.svd(1.5)
