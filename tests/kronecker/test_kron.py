"""The object: products, algebra, entries, identity, libraries and bad input against numpy.kron."""

import copy
import functools
import itertools
import pickle

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse.linalg
from directions import gaussian
from spectra import EPS

import linalgk as lk
from linalgk import _xp
from linalgk.errors import NonFiniteError
from linalgk.kronecker._kron import Kron, explain_kron, sample

SHAPES = [
    [(3, 4)],
    [(2, 3), (4, 2)],
    [(1, 5), (3, 1), (2, 2)],
    [(4, 4), (1, 1), (3, 3)],
    [(2, 1), (1, 3), (3, 2), (2, 2)],
]


def factors_of(shapes, dtype="float64", seed=0):
    return [gaussian(s, dtype, seed + i) for i, s in enumerate(shapes)]


def dense(factors):
    """In double precision, batched."""

    def pair(a, b):
        c = a[..., :, None, :, None] * b[..., None, :, None, :]
        return c.reshape(*c.shape[:-4], c.shape[-4] * c.shape[-3], c.shape[-2] * c.shape[-1])

    wide = [np.asarray(f, np.result_type(f, np.float64)) for f in factors]
    return functools.reduce(pair, wide)


def bound(factors, x, dtype):
    """Rounding of the inner products of each mode, by norms."""
    count = sum(sum(f.shape[-2:]) for f in factors)
    return count * EPS[dtype] * np.prod([np.linalg.norm(f) for f in factors]) * np.linalg.norm(x)


# --- Products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", SHAPES)
def test_products_from_both_sides(shapes, dtype, rng):
    factors = factors_of(shapes, dtype)
    K, D = Kron(factors), dense(factors)
    assert K.shape == D.shape == (K.shape[0], K.shape[1])
    assert K.dtype == np.dtype(dtype)
    for n in ((), (1,), (5,), (2, 3)):
        batch, rest = n[:-1], n[-1:]
        x = gaussian((*batch, D.shape[1], *rest), dtype, 7)
        y = K @ x
        assert y.dtype == np.dtype(dtype)
        assert y.shape == (D @ x).shape
        assert np.linalg.norm(y - D @ x) <= bound(factors, x, dtype)
        z = gaussian((*batch, *rest, D.shape[0]), dtype, 8)
        assert np.linalg.norm(z @ K - z @ D) <= bound(factors, z, dtype)


def test_complex_data_and_real_factors_and_the_other_way(rng):
    factors = factors_of([(3, 2), (2, 4)])
    x = gaussian((8, 3), "complex128")
    y, D = Kron(factors) @ x, dense(factors)
    assert y.dtype == np.complex128
    assert np.abs(y - D @ x).max() < 1e-13
    assert np.abs(x.real[:6].T @ Kron(factors) - x.real[:6].T @ D).max() < 1e-13
    assert np.abs(x[:6].T @ Kron(factors) - x[:6].T @ D).max() < 1e-13
    twisted = [factors[0] + 1j, factors[1]]
    assert (Kron(twisted) @ x.real).dtype == np.complex128
    assert np.abs(Kron(twisted) @ x.real - dense(twisted) @ x.real).max() < 1e-13
    single = gaussian((8, 3), "complex64")
    assert (Kron([f.astype("float32") for f in factors]) @ single).dtype == np.complex64
    assert (Kron(factors) @ single).dtype == np.complex128


def test_every_library(xp, rng):
    hosts = [gaussian((2, 3, 2)), gaussian((3, 3), seed=1)]
    K = Kron([xp.asarray(f) for f in hosts])
    D = dense(hosts)
    few = xp.__name__ == "jax.numpy"
    for host in (gaussian((4, 1, 6, 2)), gaussian(6), gaussian((6, 2)))[: 1 if few else 3]:
        x = xp.asarray(host)
        y = K @ x
        assert type(y) is type(x)
        assert np.allclose(_xp.to_numpy(y), D @ host)
    left = gaussian((2, 9))
    # the strict library meets nothing but itself
    z = xp.asarray(left)
    found = K.__rmatmul__(z) if xp.__name__ == "array_api_strict" else z @ K
    assert np.allclose(_xp.to_numpy(found), left @ D)
    if xp.__name__ == "jax.numpy":
        # compiles every step for every shape
        assert np.allclose(K[:, 4], D[..., 4])
        return
    for other, wanted in ((K.T, D.mT), (K.H, D.mT), (-K, -D), (K / 2, D / 2), (3 * K, 3 * D)):
        assert np.allclose(_xp.to_numpy(other.toarray()), wanted)
    for index in ((0, 1), (slice(1, 3), [0, 2]), 4):
        behind = index if isinstance(index, tuple) else (index,)
        assert np.allclose(_xp.to_numpy(K[index]), D[(slice(None), *behind)])
    assert np.allclose(_xp.to_numpy(K.diagonal()), np.diagonal(D, axis1=1, axis2=2))
    assert np.allclose(_xp.to_numpy(K.trace()), np.trace(D[:, :6, :6], axis1=1, axis2=2))


def test_layouts_are_read_and_never_written_to(rng):
    plain = factors_of([(3, 4), (2, 5)])
    D, x = dense(plain), gaussian((20, 3))
    wanted = D @ x
    wide = [np.repeat(np.repeat(f, 2, 0), 3, 1) for f in plain]
    for change in (
        np.asfortranarray,
        lambda a: np.ascontiguousarray(a[::-1])[::-1],
        lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
        lambda a: a.astype(a.dtype.newbyteorder("S")),
    ):
        factors, data = [change(f) for f in plain], change(x)
        for a in (*factors, data):
            a.flags.writeable = False
        assert np.abs(Kron(factors) @ data - wanted).max() < 1e-13
    strided = [w[::2, ::3] for w in wide]
    assert np.abs(Kron(strided) @ x - wanted).max() < 1e-13


def test_property_of_random_shapes_and_dtypes():
    rng = np.random.default_rng(5)
    names = ["float32", "float64", "complex64", "complex128", "int32", "bool"]
    for _ in range(60):
        count = int(rng.integers(1, 5))
        factors = []
        for i in range(count):
            shape = tuple(rng.integers(1, 5, 2))
            batch = [(), (2,), (3, 1), (1, 2)][rng.integers(4)]
            name = names[rng.integers(6)]
            kind = "float64" if name in ("int32", "bool") else name
            a = 3 * gaussian((*batch, *shape), kind, int(rng.integers(1000)) + i)
            factors.append(a.astype(name))
        K, D = Kron(factors), dense(factors)
        wide = [f.astype(np.float64) if f.dtype.kind in "ib" else f for f in factors]
        assert K.dtype == np.result_type(*wide)
        assert K.batch == D.shape[:-2]
        x = gaussian((3, 2, D.shape[-1], 2), K.dtype.name, 3)
        assert (K @ x).dtype == K.dtype
        # one rounding for each term of each inner product, all of one sign at worst
        worst = np.abs(D) @ np.abs(x)
        limit = sum(sum(f.shape[-2:]) for f in factors) * EPS[K.dtype.name]
        assert (np.abs(K @ x - D @ x) <= limit * worst).all()
        assert np.allclose(K.toarray(), D, rtol=count * 4 * EPS[K.dtype.name], atol=0)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_storage(half):
    factors = [f.astype(half) for f in factors_of([(3, 4), (2, 2)])]
    D = dense([f.astype("float64") for f in factors])
    x = gaussian((8, 2)).astype(half)
    y = Kron(factors) @ x
    assert y.dtype == Kron(factors).dtype == half
    eps = float(ml_dtypes.finfo(half).eps)
    assert (
        np.abs(y.astype(float) - D @ x.astype(float)).max() <= eps * np.abs(D).sum(axis=1).max() * 3
    )
    assert (Kron(factors) @ x.astype("float32")).dtype == np.float32
    assert (Kron(factors) @ x.astype("complex64")).dtype == np.complex64


@pytest.mark.parametrize("shapes", [[(0, 3), (2, 2)], [(3, 0), (2, 2)], [(0, 0)], [(2, 2)]])
def test_empty(shapes):
    factors = factors_of(shapes, "float32")
    K, D = Kron(factors), dense(factors)
    for n in (0, 3):
        y = K @ np.ones((D.shape[1], n), "float32")
        assert y.shape == (D.shape[0], n)
        assert y.dtype == np.float32
        assert not y.any() or D.size
    empty = Kron([np.ones((0, *s)) for s in shapes])
    assert (empty @ np.ones((D.shape[1], 2))).shape == (0, D.shape[0], 2)
    assert K.toarray().shape == D.shape
    assert K.diagonal().shape == (min(D.shape),)


# --- Algebra -------------------------------------------------------------------------------------


def test_algebra_of_factors(dtype):
    a, b = factors_of([(3, 4), (2, 3)], dtype), factors_of([(4, 2), (3, 3)], dtype, 9)
    K, L, D, E = Kron(a), Kron(b), dense(a), dense(b)
    tol = 50 * EPS[dtype]
    for found, wanted in (
        (K @ L, D @ E), (K.T, D.T), (K.H, D.conj().T), (K.conj(), D.conj()), (-K, -D),
        (K * 3, 3 * D), (K / 3, D / 3), ((L.T @ K.T).T, D @ E), (np.float64(2) * K, 2 * D),
        (K * np.asarray(0.5, dtype), D / 2),
    ):  # fmt: skip
        assert isinstance(found, Kron)
        assert found.dtype == np.dtype(dtype)
        assert np.linalg.norm(found.toarray() - wanted) <= tol * np.linalg.norm(wanted)
    twisted = (1 + 2j) * K
    assert twisted.dtype == np.result_type(dtype, "complex64")
    assert np.linalg.norm(twisted.toarray() - (1 + 2j) * D) <= tol * np.linalg.norm(D) * 3


def test_what_is_known_goes_along():
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    K = Kron([a, a, a], assume_a=["pos", "her", "gen"])
    assert K.assume_a == ("pos", "her", "gen")
    assert K.T.assume_a == K.H.assume_a == K.conj().assume_a == (2 * K).assume_a == K.assume_a
    assert (-K).assume_a == (-2 * K).assume_a == ("her", "her", "gen")
    assert (1j * K).assume_a == ("gen", "her", "gen")
    assert (np.asarray(2.0) * K).assume_a == ("her", "her", "gen")
    assert (Kron([a], assume_a="pos") @ Kron([a], assume_a="pos")).assume_a == (None,)
    assert Kron([a, a]).assume_a == (None, None)


def test_what_is_made_of_a_product():
    a = factors_of([(3, 3), (2, 2)])
    K, L = Kron(a), Kron(factors_of([(3, 3), (2, 2)], seed=5))
    D, E = K.toarray(), L.toarray()
    assert np.allclose((K + L).toarray(), D + E)
    assert np.allclose((K - L).toarray(), D - E)
    assert np.allclose((K + (K + L)).toarray(), 2 * D + E)
    definite = Kron([f @ f.T + np.eye(len(f)) for f in a], assume_a="pos")
    d = np.arange(1.0, 7.0)
    assert np.allclose(definite.add_diagonal(d).toarray(), definite.toarray() + np.diag(d))
    seen = np.array([[True, False], [True, True], [False, True]])
    kept = definite.toarray()[np.ix_(seen.ravel(), seen.ravel())]
    assert np.allclose(definite.masked(seen).toarray(), kept)


def test_integers_are_scaled_in_double_precision():
    K = Kron([np.array([[1, 2], [3, 4]]), np.array([[1, 0]])])
    assert (K @ np.array([1, 2, 3, 4])).tolist() == [7.0, 15.0]
    assert ((K * 0.5) @ np.array([1, 2, 3, 4])).tolist() == [3.5, 7.5]
    assert K.dtype == (K / 2).dtype == np.float64


def test_products_that_do_not_fit():
    K = Kron(factors_of([(2, 3), (4, 2)]))
    with pytest.raises(ValueError, match=r"\(3, 2\), rows \(2, 3\); multiply K1 @ \(K2 @ x\)"):
        K @ Kron(factors_of([(2, 2), (3, 3)]))
    with pytest.raises(ValueError, match="total sizes differ"):
        K @ Kron(factors_of([(2, 2)]))
    for wrong in (True, "2", [1.0], np.ones(3)):
        with pytest.raises(TypeError):
            K * wrong
        with pytest.raises(TypeError):
            K / wrong
    with pytest.raises(TypeError):
        K + 1
    with pytest.raises(TypeError):
        K - np.ones((8, 6))


# --- Entries -------------------------------------------------------------------------------------

INDICES = [
    3, -1, np.int32(2), (1, 2), (-1, -6), (slice(None), 4), (2, slice(None)), slice(1, 7, 2), ...,
    (slice(None, None, -1), slice(4, 1, -2)), (..., 0), (0, ...), ([0, 3, -1], [1, 1, 2]),
    [2, 2, 5], ([[0], [7]], [1, 2, 3]), (np.array([[1, 2], [3, 4]]), slice(2, 4)),
    (slice(2, 5), np.array([[1], [0]])),
    (slice(None), [[0, 1]]), np.arange(8) % 3 == 0, (np.arange(8) > 5, slice(None)),
    (slice(None), np.arange(6) < 2), (3, [0, 1]), ([], 0), [], (np.zeros(0, int), slice(None)),
    slice(3, 3), (slice(0, 0), slice(1, 2)), (),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_entries_by_the_rules_of_numpy(index):
    factors = factors_of([(2, 3), (4, 2)], "complex128")
    K, D = Kron(factors), dense(factors)
    assert np.shape(K[index]) == np.shape(D[index])
    assert np.allclose(K[index], D[index], rtol=1e-15, atol=0)
    many = Kron([np.stack([factors[0], 2 * factors[0]]), factors[1]])
    for k in range(2):
        assert np.allclose(many[index][k], many.toarray()[k][index], rtol=1e-15, atol=0)


def test_entries_of_a_matrix_too_large_to_form():
    n = 1000
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((n, n)) for _ in range(4)]
    K = Kron(factors)
    place = [17, 400, 999, 3], [5, 0, 998, 42]
    i, j = (functools.reduce(lambda total, d: total * n + d, digits) for digits in place)
    wanted = np.prod([f[r, c] for f, r, c in zip(factors, *place, strict=True)])
    assert np.isclose(K[i, j], wanted, rtol=1e-14)
    assert K[i - 1 : i + 2, [j, 7]].shape == (3, 2)
    assert np.isclose(K[i - 1 : i + 2, [j, 7]][1, 0], wanted, rtol=1e-14)
    assert np.isclose(K.trace(), np.prod([np.trace(f) for f in factors]))


@pytest.mark.parametrize("shapes", [*SHAPES, [(2, 3), (3, 2)], [(3, 2), (2, 3), (2, 2)]])
def test_diagonal_and_trace(shapes):
    factors = factors_of(shapes)
    D = dense(factors)
    assert np.allclose(Kron(factors).diagonal(), np.diagonal(D), rtol=1e-14)
    assert np.isclose(Kron(factors).trace(), np.trace(D), rtol=1e-12, atol=1e-13)


def test_results_are_the_callers_own():
    a = np.eye(3)
    K = Kron([a])
    for x in (K.toarray(), K.diagonal(), K[:, :], K @ np.eye(3), K.inv().factors[0]):
        x[...] = 7
    assert (a == np.eye(3)).all()
    assert (K.inv().factors[0] == np.eye(3)).all()


def test_indices_out_of_range():
    K = Kron(factors_of([(2, 3), (4, 2)]))
    for wrong, error in (
        (8, IndexError), ((0, 6), IndexError), ((0, -7), IndexError), ([0, 9], IndexError),
        ((0, 0, 0), IndexError), ((..., ...), IndexError), (np.ones(3, bool), IndexError),
        (0.5, TypeError), ("a", TypeError), (None, TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            K[wrong]
    with pytest.raises(IndexError, match="index 8 is out of bounds for axis 0 of size 8"):
        K[8]


# --- Identity ------------------------------------------------------------------------------------


def test_copies_pickles_and_comparison():
    factors = factors_of([(3, 3), (2, 2)])
    K = Kron(factors, assume_a="gen")
    K.solve(np.ones(6))
    for twin in (copy.copy(K), copy.deepcopy(K), pickle.loads(pickle.dumps(K))):
        assert twin == K
        assert hash(twin) == hash(K)
        assert twin.assume_a == K.assume_a
        assert (twin @ np.ones(6) == K @ np.ones(6)).all()
    assert Kron(factors) != K
    assert Kron(factors[::-1], assume_a="gen") != K
    assert Kron([factors[0], 2 * factors[1]], assume_a="gen") != K
    assert K != 3
    assert len(pickle.dumps(K)) < 2000


def test_repr_tells_the_factors():
    a = np.ones((2, 3), "float32")
    assert repr(Kron([a, a[:, :2]])) == "Kron([(2, 3), (2, 2)], dtype=float32)"
    b = np.ones((5, 2, 2))
    assert repr(Kron([b, b], assume_a="her")) == (
        "Kron([(2, 2), (2, 2)], batch=(5,), dtype=float64, assume_a='her')"
    )
    assert "['gen', None]" in repr(Kron([b, b], assume_a=["gen", None]))


def test_as_an_operator_of_scipy():
    a = gaussian((5, 5))
    factors = [a @ a.T + np.eye(5), gaussian((3, 3)) + 4 * np.eye(3)]
    K, D = Kron(factors), dense(factors)
    A = K.to_scipy()
    assert isinstance(A, scipy.sparse.linalg.LinearOperator)
    b = gaussian(15)
    for x in (A @ b, A.matvec(b), K.matvec(b), K.matmat(b)):
        assert np.allclose(x, D @ b)
    assert np.allclose(A.H @ b, D.T @ b)
    assert np.allclose(K.rmatvec(b), D.T @ b)
    x, code = scipy.sparse.linalg.gmres(A, b, rtol=1e-12)
    assert code == 0
    assert np.allclose(D @ x, b)
    with pytest.raises(ValueError, match="no batch"):
        Kron([np.ones((2, 3, 3))]).to_scipy()
    # our own solvers take it as it is
    found = lk.svd_lowrank(K, 3, rng=0).S
    assert np.allclose(found, np.linalg.svd(D, compute_uv=False)[:3])


# --- Bad input -----------------------------------------------------------------------------------


def test_bad_factors():
    a = np.ones((2, 2))
    for wrong, error, match in (
        ([], ValueError, "at least 1"), (a, TypeError, "list of matrices"),
        ("ab", TypeError, "list"), (iter([a]), TypeError, "list"),
        ([np.ones(3)], ValueError, r"factors\[0\]: must have shape"),
        ([a, "b"], TypeError, r"factors\[1\]"), ([a, a.astype(object)], TypeError, r"factors\[1\]"),
        ([np.ones((2, 2, 2)), np.ones((3, 2, 2))], ValueError, r"broadcast.*\(3, 2, 2\)"),
        ([np.ma.masked_array(a)], TypeError, "filled"),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            Kron(wrong)
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="one library, got numpy, torch"):
        Kron([a, torch.ones(2, 2)])
    with pytest.raises(TypeError, match="share one library"):
        Kron([a]) @ torch.ones(2)
    assert Kron([[[1, 2], [3, 4]], ((1.0,),)]).toarray().tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_bad_words():
    a = np.ones((2, 3))
    with pytest.raises(ValueError, match="must be square for assume_a='pos'"):
        Kron([a], assume_a="pos")
    with pytest.raises(ValueError, match="assume_a: must be one of"):
        Kron([a], assume_a="sym")
    with pytest.raises(ValueError, match="one for each of 1"):
        Kron([a], assume_a=["gen", "gen"])


def test_sizes_that_do_not_fit_are_told_as_products():
    K = Kron(factors_of([(2, 3), (2, 4), (2, 5)]))
    with pytest.raises(ValueError, match=r"x: needs 3\*4\*5 = 60 rows, got 59 in shape \(59, 2\)"):
        K @ np.ones((59, 2))
    with pytest.raises(ValueError, match=r"needs 2\*2\*2 = 8 columns, got 60"):
        np.ones((2, 60)) @ K
    with pytest.raises(ValueError, match="60 entries, got 8"):
        K @ np.ones(8)
    with pytest.raises(ValueError, match="got a number"):
        K @ np.float64(2)
    with pytest.raises(ValueError, match="does not broadcast"):
        Kron([np.ones((3, 2, 2))]) @ np.ones((2, 2, 1))
    with pytest.raises(TypeError, match="toarray"):
        K @ scipy.sparse.eye_array(60)


def test_values_that_are_not_finite_stay_in_their_member():
    good = gaussian((3, 2, 2))
    bad = good.copy()
    bad[1, 0, 0] = np.nan
    x = gaussian((4, 2))
    y, wanted = Kron([bad, np.eye(2)]) @ x, Kron([good, np.eye(2)]) @ x
    assert np.isnan(y[1]).any()
    assert (y[[0, 2]] == wanted[[0, 2]]).all()
    with pytest.raises(NonFiniteError, match=r"norm: factors\[0\] .*batch members \(1,\)"):
        Kron([bad, np.eye(2)]).norm()


def test_tensors_with_gradients_are_not_detached_silently():
    torch = pytest.importorskip("torch")
    a = torch.eye(3, requires_grad=True)
    K = Kron([a, torch.eye(2)])
    assert (K.shape, K.dtype, K.batch) == ((6, 6), torch.float32, ())
    assert K.T.H.factors[0].requires_grad
    for call in (
        K.toarray,
        K.diagonal,
        K.eigh,
        K.svd,
        K.pinv,
        K.norm,
        K.inv,
        K.cholesky,
        lambda: K[0],
    ):
        with pytest.raises(TypeError, match="requires grad"):
            call()
    with torch.no_grad():
        assert (K.toarray() == torch.eye(6)).all()


# --- Record --------------------------------------------------------------------------------------


def test_record():
    for size, xp in itertools.product(("small", "medium"), (np,)):
        args, kwargs = sample(size, xp=xp, rng=0)
        told = explain_kron(*args, **kwargs)
        assert told.function == "Kron"
        assert told.method == "cholesky"
        assert told.flops > 0
        assert told.bytes == sum(a.nbytes for a in args[0])
    assert explain_kron([np.ones((2, 3))]).method == "svd"
    assert explain_kron([np.eye(2)]).method == "lu"
