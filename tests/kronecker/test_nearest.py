"""Nearest Kronecker products: against singular values of the rearranged matrix, and structure."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from spectra import EPS, adjoint, gaussian

from linalgk.errors import AsymmetricError, ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.kronecker import _nearest, _rearranged
from linalgk.kronecker._nearest import choose_method, explain_nearest_kron, nearest_kron

TWO = [(6, 6), (5, 5)]


def rearranged(a, shapes):
    """By the definition, block by block."""
    (p1, q1), (p2, q2) = shapes
    rows = [
        a[i * p2 : (i + 1) * p2, j * q2 : (j + 1) * q2].reshape(-1)
        for i in range(p1)
        for j in range(q1)
    ]
    return np.stack(rows)


def least_error(a, shapes, rank):
    s = np.linalg.svd(rearranged(a.astype(np.result_type(a, "float64")), shapes), compute_uv=False)
    return np.sqrt(np.sum(s[rank:] ** 2) / np.sum(s**2)), s


def error_of(a, k):
    wide = np.result_type(a, "float64")
    return np.linalg.norm(a - k.toarray().astype(wide)) / np.linalg.norm(a.astype(wide))


def psd(n, rank=None, dtype="float64", seed=0):
    x = gaussian((n, rank or n), dtype, seed)
    return x @ adjoint(x)


def symmetric(n, dtype="float64", seed=0):
    x = gaussian((n, n), dtype, seed)
    return x + adjoint(x)


def skew(n, seed=0):
    x = gaussian((n, n), seed=seed)
    return x - x.T


def unit(n, i):
    e = np.zeros((n, n))
    e[i, i] = 1
    return e


def laid(a, layout):
    """The same numbers in another place in memory."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "strided":
        return np.stack([a, a], axis=-1)[..., 0]
    if layout == "backward":
        return np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]
    if layout == "rows":
        return np.concatenate([a, a])[: len(a)]
    return a


# --- The best there is ---------------------------------------------------------------------------

size = st.integers(1, 6)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(size, size, size, size), rank=st.integers(1, 3), seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "float64", "complex64", "complex128"]),
    layout=st.sampled_from(["C", "F", "strided", "backward", "rows"]),
    method=st.sampled_from(["auto", "svd", "lanczos"]),
)  # fmt: skip
def test_the_error_is_that_of_the_singular_values_left_out(
    sizes, rank, seed, dtype, layout, method
):
    """Error and singular values to rounding, for every shape, dtype and layout."""
    p1, q1, p2, q2 = sizes
    shapes = [(p1, q1), (p2, q2)]
    rank = min(rank, p1 * q1, p2 * q2)
    a = laid(gaussian((p1 * p2, q1 * q2), dtype, seed), layout)
    a.flags.writeable = False
    k, info = nearest_kron(a, shapes, rank, method=method, return_info=True)
    best, s = least_error(a, shapes, rank)
    # absolute, in units of the norm; squares would lose half of the digits
    slack = 40 * EPS[dtype] * np.sqrt(a.size)
    assert abs(error_of(a, k) - best) <= slack
    assert abs(float(info.residual) - best) <= slack
    assert np.abs(info.singular_values - s[:rank]).max() <= slack * s[0]
    assert k.dtype == a.dtype
    assert k.shape == a.shape


@pytest.mark.parametrize(
    "shapes",
    [[(24, 24), (20, 20)], [(600, 2), (150, 1)], [(2, 600), (1, 150)], [(3, 3), (150, 150)],
     [(120, 120), (4, 4)], [(60, 2), (2, 700)]],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["C", "F"])
def test_matrices_beyond_a_cache_are_read_where_they_lie(shapes, layout):
    """The strided products against the definition, and one term against singular values."""
    (p1, q1), (p2, q2) = shapes
    a = laid(gaussian((p1 * p2, q1 * q2), seed=3), layout)
    own = _rearranged.Dense(a, *shapes)
    assert own.small is None
    assert np.shares_memory(own.blocks, a)
    r = rearranged(a, shapes) / own.scale
    for columns in (1, 2, 5):
        x, y = gaussian((q2 * p2, columns), seed=1), gaussian((p1 * q1, columns), seed=2)
        for found, exact in ((own.matmat(x), r @ x), (own.rmatmat(y), r.T @ y)):
            assert np.linalg.norm(found - exact) <= 1e-14 * np.linalg.norm(r) * columns
    k, info = nearest_kron(a, shapes, return_info=True)
    gram = r @ r.T if r.shape[0] < r.shape[1] else r.T @ r
    top = np.sqrt(np.linalg.eigvalsh(gram)[-1]) * own.scale if len(gram) < 1000 else None
    if top is not None:
        assert abs(info.singular_values[0] / top - 1) < 1e-12
    assert abs(error_of(a, k) - info.residual) < 1e-12
    assert info.residual == pytest.approx(
        np.sqrt(1 - (info.singular_values[0] / np.linalg.norm(a)) ** 2), abs=1e-10
    )


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
def test_a_kronecker_product_is_found_again(method, dtype):
    left, right = gaussian((7, 4), dtype, 1), gaussian((3, 8), dtype, 2)
    a = np.kron(left, right)
    k, info = nearest_kron(a, [(7, 4), (3, 8)], method=method, return_info=True)
    assert error_of(a, k) < 30 * EPS[dtype]
    assert info.residual < 30 * EPS[dtype]
    assert info.converged
    one, two = k.factors
    assert abs(np.linalg.norm(one) / np.linalg.norm(two) - 1) < 30 * EPS[dtype]
    # of the second factor the sum is positive
    assert abs(np.sum(two) - abs(np.sum(two))) < 1e-3 * abs(np.sum(two))


def test_terms_beyond_the_rank_are_zero():
    a = np.kron(gaussian((4, 4)), gaussian((3, 3))) + np.kron(gaussian((4, 4), seed=5), np.eye(3))
    for method in ("svd", "lanczos"):
        k, info = nearest_kron(a, [(4, 4), (3, 3)], 4, method=method, return_info=True)
        assert error_of(a, k) < 1e-14
        assert (info.singular_values[:2] > 0).all()
        assert (info.singular_values[2:] == 0).all()
        assert np.abs(k.terms[3][0]).max() == 0


def test_equal_singular_values_are_all_found():
    """A Kronecker sum of matrices without trace has two equal ones, Lanczos' nightmare."""
    x, y = np.diag([1.0, -1, 0, 0]), np.diag([1.0, -1, 0])
    a = np.kron(x / np.sqrt(2), np.eye(3) / np.sqrt(3)) + np.kron(np.eye(4) / 2, y / np.sqrt(2))
    third = 0.5 * np.kron(unit(4, 2) - unit(4, 3), unit(3, 0) + unit(3, 1) - 2 * unit(3, 2))
    for method in ("svd", "lanczos"):
        k, info = nearest_kron(a + 0.1 * third, TWO[:0] + [(4, 4), (3, 3)], 2, method=method,
                               return_info=True)  # fmt: skip
        best, s = least_error(a + 0.1 * third, [(4, 4), (3, 3)], 2)
        assert s[0] - s[1] < 1e-14
        assert abs(info.residual - best) < 1e-14
        assert abs(error_of(a + 0.1 * third, k) - best) < 1e-14


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_sizes_whose_squares_leave_the_range(scale):
    a = gaussian((30, 30))
    for method in ("svd", "lanczos", "power"):
        k, info = nearest_kron(a * scale, TWO, method=method, return_info=True)
        plain, same = nearest_kron(a, TWO, method=method, return_info=True)
        assert abs(info.residual / same.residual - 1) < 1e-12
        assert abs(info.singular_values[0] / scale / same.singular_values[0] - 1) < 1e-12
        root = scale**0.5
        for f, g in zip(k.factors, plain.factors, strict=True):
            assert np.abs(f / root - g).max() < 1e-9


@pytest.mark.parametrize("method", ["svd", "lanczos"])
def test_as_few_terms_as_reach_a_tolerance(method):
    """Singular values 1, 1e-2, ..., 1e-10: one term for each factor of a hundred."""
    shapes = [(4, 4), (5, 5)]
    u, v = (np.linalg.qr(gaussian((n * n, 6), seed=n))[0] for n in (4, 5))
    terms = [
        np.kron(u[:, t].reshape(4, 4), v[:, t].reshape(5, 5)) * 100.0**-t for t in range(6)
    ]
    a = sum(terms)
    for tol, rank in ((0.5, 1), (0.05, 1), (3e-4, 2), (3e-8, 4), (1e-11, 6)):
        k, info = nearest_kron(a, shapes, None, tol=tol, method=method, return_info=True)
        assert info.rank == len(k.terms) == rank
        assert error_of(a, k) <= tol
        assert info.residual <= tol
    k, info = nearest_kron(a, shapes, 3, tol=1e-11, method=method, return_info=True)
    assert info.rank == 3
    assert info.residual == pytest.approx(1e-6, rel=1e-3)


# --- Structure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_hermitian_matrices_have_hermitian_factors(method, dtype):
    a = np.kron(symmetric(6, dtype, 1), symmetric(5, dtype, 2))
    a = (a + 0.05 * symmetric(30, dtype, 3)).astype(dtype)
    best, _ = least_error(a, TWO, 1)
    for kind in (None, "her"):
        k = nearest_kron(a, TWO, method=method, assume_a=kind)
        assert all((f == adjoint(f)).all() for f in k.factors)
        assert abs(error_of(a, k) - best) < 100 * EPS[dtype]


@pytest.mark.parametrize("method", ["svd", "lanczos"])
def test_every_term_of_a_symmetric_matrix_is_of_one_kind(method):
    a = symmetric(30, seed=4)
    k, info = nearest_kron(a, TWO, 5, method=method, return_info=True)
    kinds = set()
    for term in k.terms:
        signs = {1 if (f == f.T).all() else -1 if (f == -f.T).all() else 0 for f in term}
        assert len(signs) == 1
        kinds |= signs
    assert kinds == {1, -1}
    best, s = least_error(a, TWO, 5)
    assert abs(info.residual - best) < 1e-13
    assert np.abs(info.singular_values - s[:5]).max() < 1e-12 * s[0]
    h = symmetric(30, "complex128", 4)
    k, info = nearest_kron(h, TWO, 5, method=method, return_info=True)
    assert all((f == adjoint(f)).all() for term in k.terms for f in term)
    assert abs(info.residual - least_error(h, TWO, 5)[0]) < 1e-13


def test_skew_factors_where_they_are_nearer():
    a = np.kron(skew(6, 1), skew(5, 2)) + 0.05 * symmetric(30, seed=3)
    k = nearest_kron(a, TWO)
    assert all((f == -f.T).all() for f in k.factors)
    assert abs(error_of(a, k) - least_error(a, TWO, 1)[0]) < 1e-14
    k = nearest_kron(a, TWO, assume_a="pos")
    assert all((f == f.T).all() for f in k.factors)


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
@pytest.mark.parametrize(("rank", "dtype"), [(30, "float64"), (2, "float64"), (3, "complex128")])
def test_semidefinite_matrices_have_semidefinite_factors(method, rank, dtype):
    a = psd(30, rank, dtype, 2)
    for kind in (None, "pos"):
        k = nearest_kron(a, TWO, method=method, assume_a=kind)
        for f in k.factors:
            w = np.linalg.eigvalsh(f)
            assert w[0] >= -20 * EPS[dtype] * w[-1]
            assert w[-1] > 0
        assert abs(error_of(a, k) - least_error(a, TWO, 1)[0]) < 1e-13


@pytest.mark.parametrize("method", ["svd", "lanczos"])
def test_signs_are_kept_where_the_largest_singular_value_is_double(method):
    """``E_11 kron E_11 + E_33 kron E_22``: any mixture is nearest, only some are semidefinite."""
    a = np.kron(unit(6, 0), unit(5, 0)) + np.kron(unit(6, 2), unit(5, 1))
    k = nearest_kron(a, TWO, method=method)
    assert abs(error_of(a, k) - np.sqrt(0.5)) < 1e-14
    for f in k.factors:
        assert f.min() >= 0
        assert np.linalg.eigvalsh(f)[0] >= 0
    q = np.linalg.qr(gaussian((6, 6)))[0]
    turn = np.kron(q, np.linalg.qr(gaussian((5, 5)))[0])
    k = nearest_kron(turn @ a @ turn.T, TWO, method=method)
    for f in k.factors:
        assert np.linalg.eigvalsh(f)[0] >= -1e-14


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
def test_nonnegative_matrices_have_nonnegative_factors(method):
    a = np.abs(gaussian((18, 40))) * (gaussian((18, 40), seed=7) > 0.5)
    shapes = [(3, 8), (6, 5)]
    k = nearest_kron(a, shapes, method=method)
    assert min(f.min() for f in k.factors) >= 0
    assert abs(error_of(a, k) - least_error(a, shapes, 1)[0]) < 1e-13


def test_what_is_hermitian_but_for_rounding_counts_as_hermitian():
    a = symmetric(30)
    off = a * (1 + 1e-15 * gaussian((30, 30), seed=5))
    assert all((f == f.T).all() for f in nearest_kron(off, TWO, assume_a=None).factors)
    a[3, 7] *= 1 + 1e-9
    factors = nearest_kron(a, TWO).factors
    assert not all((f == f.T).all() or (f == -f.T).all() for f in factors)
    assert all((f == f.T).all() for f in nearest_kron(a, TWO, assume_a="pos").factors)
    with pytest.raises(AsymmetricError, match="not Hermitian"):
        nearest_kron(gaussian((30, 30)), TWO, assume_a="her")


# --- More than two factors -----------------------------------------------------------------------


def random_starts(a, shapes, count, seed=0):
    """The best of alternating fits from random factors, in plain einsum."""
    n = len(shapes)
    t = a.reshape([p for p, _ in shapes] + [q for _, q in shapes])
    t = t.transpose([i for pair in zip(range(n), range(n, 2 * n), strict=True) for i in pair])
    t = t.reshape([p * q for p, q in shapes])
    rng, best = np.random.default_rng(seed), 0.0
    for _ in range(count):
        x = [rng.standard_normal(d) for d in t.shape]
        size = 0.0
        for _, i in itertools.product(range(25), range(n)):
            y = t
            for j in reversed(range(n)):
                if j != i:
                    y = np.tensordot(y, x[j] / np.linalg.norm(x[j]), axes=(j, 0))
            x[i], size = y, np.linalg.norm(y)
        best = max(best, size)
    return np.sqrt(max(0.0, 1 - (best / np.linalg.norm(a)) ** 2))


@pytest.mark.parametrize(
    "shapes",
    [[(3, 2), (2, 4), (5, 3)], [(1, 3), (4, 1), (2, 2)], [(2, 2), (3, 1), (2, 3), (1, 2)],
     [(2, 1), (1, 1), (2, 3), (1, 2), (2, 1)]],
)  # fmt: skip
def test_several_factors(shapes, dtype):
    """Exact products are found; near them, and for noise, nothing in reach is better."""
    factors = [gaussian(s, dtype, i) for i, s in enumerate(shapes)]
    exact = factors[0]
    for f in factors[1:]:
        exact = np.kron(exact, f)
    exact = exact.astype(dtype)
    k, info = nearest_kron(exact, shapes, return_info=True)
    assert info.method == "als"
    assert error_of(exact, k) < 60 * EPS[dtype]
    norms = [np.linalg.norm(f) for f in k.factors]
    assert max(norms) / min(norms) - 1 < 30 * EPS[dtype]
    if dtype == "float64":
        for noise in (0.3, 10.0):
            a = exact + noise * gaussian(exact.shape, seed=9)
            k, info = nearest_kron(a, shapes, return_info=True, on_fail="warn")
            assert abs(error_of(a, k) - info.residual) < 1e-13
            # a local minimum in the worst case, and here no worse than those of random starts
            assert info.residual <= random_starts(a, shapes, 6) * (1 + 0.02 * (noise > 1)) + 1e-10


def test_several_factors_keep_the_structure():
    shapes = [(3, 3), (2, 2), (4, 4)]
    a = psd(24, 3)
    for kind in (None, "pos"):
        k = nearest_kron(a, shapes, assume_a=kind)
        assert all((f == f.T).all() for f in k.factors)
        assert min(np.linalg.eigvalsh(f)[0] for f in k.factors) > -1e-14
    k = nearest_kron(np.abs(gaussian((24, 24))), shapes)
    assert min(f.min() for f in k.factors) >= 0
    a = np.kron(np.kron(skew(3), symmetric(2)), skew(4)) + 0.01 * symmetric(24)
    k = nearest_kron(a, shapes, on_fail="warn")
    kinds = [1 if (f == f.T).all() else -1 if (f == -f.T).all() else 0 for f in k.factors]
    assert kinds == [-1, 1, -1]
    h = nearest_kron(symmetric(24, "complex128"), shapes, on_fail="warn")
    assert all((f == adjoint(f)).all() for f in h.factors)
    assert nearest_kron(np.zeros((24, 24)), shapes).toarray().max() == 0


# --- Kinds of matrices ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csr_array", "csc_array", "coo_array", "csr_matrix"])
@pytest.mark.parametrize("shapes", [[(8, 6), (5, 10)], [(4, 3), (2, 2), (5, 10)]])
def test_sparse_matrices(form, shapes):
    a = scipy.sparse.random_array((40, 60), density=0.1, rng=np.random.default_rng(1))
    a = getattr(scipy.sparse, form)(a)
    before = a.toarray()
    k, info = nearest_kron(a, shapes, return_info=True)
    same, other = nearest_kron(before, shapes, return_info=True)
    assert abs(info.residual - other.residual) < 1e-12
    assert abs(error_of(before, k) - info.residual) < 1e-12
    assert min(f.min() for f in k.factors) >= 0
    assert same.shape == k.shape
    assert (a.toarray() == before).all()


def test_sparse_products_with_duplicates_and_zeros():
    """Factors have the zeros of an exact product, so that a large one is compared exactly."""
    left, right = (
        scipy.sparse.random_array((n, n), density=4 / n, rng=np.random.default_rng(n))
        for n in (90, 60)
    )
    whole = scipy.sparse.coo_array(scipy.sparse.kron(left, right))
    rows, columns = (np.concatenate([x, x]) for x in whole.coords)
    twice = scipy.sparse.coo_array((np.tile(whole.data / 2, 2), (rows, columns)), whole.shape)
    k, info = nearest_kron(twice, [(90, 90), (60, 60)], return_info=True)
    assert info.residual < 1e-14
    assert (k.factors[0][left.toarray() == 0] == 0).all()
    assert twice.nnz == 2 * whole.nnz
    hermitian = scipy.sparse.csr_array(symmetric(30, "complex128"))
    assert all((f == adjoint(f)).all() for f in nearest_kron(hermitian, TWO).factors)


@pytest.mark.parametrize("formed", [True, False])
def test_linear_operators(formed, monkeypatch):
    a = gaussian((40, 60), "complex128") + 3 * np.kron(gaussian((8, 6)), gaussian((5, 10)))
    calls = []

    def product(x):
        calls.append(x.shape)
        return a @ x

    if not formed:
        monkeypatch.setattr(_rearranged, "_FORMED", 100)
    operator = LinearOperator(a.shape, matvec=product, matmat=product, dtype=a.dtype)
    k, info = nearest_kron(operator, [(8, 6), (5, 10)], return_info=True)
    best, _ = least_error(a, [(8, 6), (5, 10)], 1)
    assert abs(info.residual - best) < 1e-13
    assert abs(error_of(a, k) - best) < 1e-13
    assert calls == [(60, 60)] if formed else {x[1] for x in calls} == {10}
    several = nearest_kron(operator, [(4, 3), (2, 2), (5, 10)], return_info=True, on_fail="warn")
    dense = nearest_kron(a, [(4, 3), (2, 2), (5, 10)], return_info=True, on_fail="warn")
    assert abs(several[1].residual - dense[1].residual) < 1e-10
    pos = nearest_kron(aslinearoperator(psd(30)), TWO, assume_a="pos")
    assert all((f == f.T).all() for f in pos.factors)


# --- Streams -------------------------------------------------------------------------------------


def moments(gradients):
    return sum(np.outer(g.reshape(-1), g.reshape(-1).conj()) for g in gradients)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_streams_reach_the_nearest_product(method, dtype):
    mix = psd(6, dtype=dtype, seed=1), psd(5, dtype=dtype, seed=2)
    gradients = [mix[0] @ gaussian((6, 5), dtype, i) @ mix[1] for i in range(20)]
    a = moments(gradients)
    best, s = least_error(a, TWO, 1)
    stacked = [np.stack(gradients[:7]), *gradients[7:]]
    for source in (gradients, lambda: iter(gradients), stacked, tuple(gradients)):
        k, info = nearest_kron(source, TWO, method=method, return_info=True)
        assert abs(error_of(a, k) - best) < 1e-12
        assert abs(info.singular_values[0] / s[0] - 1) < 1e-12
        for f in k.factors:
            assert (f == adjoint(f)).all()
            assert np.linalg.eigvalsh(f)[0] > 0
        # 16 random vectors: six standard deviations of the relative error
        assert abs(info.residual / best - 1) < 6 * 0.18
    if method == "lanczos":
        k, info = nearest_kron(gradients, TWO, 3, return_info=True)
        assert np.abs(info.singular_values / s[:3] - 1).max() < 1e-10


def test_one_pass_over_a_stream():
    """``sum G G^H kron sum G^T conj(G) / sum ||G||^2``, read once; exact for a product."""
    gradients = [gaussian((6, 5), "complex128", i) for i in range(10)]
    left = sum(g @ adjoint(g) for g in gradients)
    right = sum(g.T @ g.conj() for g in gradients)
    reads = []

    def source():
        for g in gradients:
            reads.append(1)
            yield g

    k, info = nearest_kron(source(), TWO, return_info=True)
    assert (info.method, info.passes, len(reads)) == ("moments", 1, 10)
    model = np.kron(left, right) / np.trace(left)
    assert np.abs(k.toarray() - model).max() < 1e-12 * np.abs(model).max()
    left, right = psd(6, 2, seed=3), psd(5, 3, seed=4)
    one, two = (np.linalg.cholesky(x + 1e-9 * np.eye(len(x))) for x in (left, right))
    # all vec(G) of L_i R_j^T together are a square root of the product
    exact = [np.outer(one[:, i], two[:, j]) for i in range(6) for j in range(5)]
    for given_source in (iter(exact), exact):
        k, info = nearest_kron(given_source, TWO, return_info=True)
        assert error_of(np.kron(one @ one.T, two @ two.T), k) < 1e-13
        assert info.residual < 1e-7


def test_streams_that_cannot_be_read():
    g = gaussian((6, 5))
    with pytest.raises(ValueError, match="'lanczos' cannot read a stream"):
        nearest_kron(iter([g]), TWO, method="lanczos")
    with pytest.raises(ValueError, match="no gradients"):
        nearest_kron(iter([]), TWO)
    with pytest.raises(ValueError, match=r"\(\.\.\., 6, 5\) by shapes, got \(5, 6\)"):
        nearest_kron([g, g.T], TWO)
    with pytest.raises(NonFiniteError, match="gradient holds NaN"):
        nearest_kron([g, g * np.nan], TWO)
    with pytest.raises(ValueError, match=r"must be \[\(m, m\), \(n, n\)\]"):
        nearest_kron([g], [(6, 5), (5, 5)])
    with pytest.raises(ValueError, match="known by an estimate only"):
        nearest_kron([g], TWO, None, tol=0.1)
    with pytest.raises(ValueError, match="'svd' is for arrays"):
        nearest_kron([g], TWO, method="svd")
    zero, info = nearest_kron(iter([0 * g]), TWO, return_info=True)
    assert zero.toarray().max() == info.residual == 0


# --- Libraries, batches, failures ----------------------------------------------------------------


def test_every_library(xp, dtype):
    """Methods and structure in the caller's library and dtype."""
    a = gaussian((2, 30, 30), dtype)
    a[1] = symmetric(30, dtype)
    best = [least_error(x, TWO, 1)[0] for x in a]
    for method in ("svd", "lanczos", "power"):
        k, info = nearest_kron(xp.asarray(a), TWO, method=method, return_info=True,
                               on_fail="warn")  # fmt: skip
        assert all(type(f) is type(xp.asarray(a)) for f in k.factors)
        assert k.factors[0].shape == (2, 6, 6)
        assert str(k.factors[1].dtype).endswith(dtype)
        assert np.abs(np.asarray(info.residual) - best).max() < 200 * EPS[dtype]
        f = np.asarray(k.factors[0])[1]
        assert (f == adjoint(f)).all() or (f == -f.T).all()
        assert type(info.singular_values) is type(xp.asarray(a))
    gradients = [xp.asarray(gaussian((6, 5), dtype, i)) for i in range(4)]
    assert type(nearest_kron(gradients, TWO).factors[0]) is type(gradients[0])
    three = nearest_kron(xp.asarray(a[1]), [(3, 3), (2, 2), (5, 5)], on_fail="warn")
    assert type(three.factors[2]) is type(gradients[0])


def test_large_arrays_of_a_strict_library():
    xp = pytest.importorskip("array_api_strict")
    a = gaussian((600, 700)) + 4 * np.kron(gaussian((20, 35)), gaussian((30, 20)))
    found = nearest_kron(xp.asarray(a), [(20, 35), (30, 20)], return_info=True)[1]
    same = nearest_kron(a, [(20, 35), (30, 20)], return_info=True)[1]
    assert abs(float(found.residual) - float(same.residual)) < 1e-13


def test_bad_members_leave_the_others_alone():
    a = gaussian((4, 30, 30))
    a[1, 3, 4] = np.nan
    a[2, 0, 0] = np.inf
    good = nearest_kron(a[3], TWO)
    with pytest.raises(NonFiniteError, match=r"members \(1,\), \(2,\)") as caught:
        nearest_kron(a, TWO)
    assert caught.value.index == ((1,), (2,))
    with pytest.warns(ConvergenceWarning, match="NaN or infinity"):
        nearest_kron(a, TWO, on_fail="warn")
    for options in ({"on_fail": "nan"}, {"check_finite": False}):
        k, info = nearest_kron(a, TWO, return_info=True, **options)
        assert np.isnan(k.factors[0][1:3]).all()
        assert (k.factors[0][3] == good.factors[0]).all()
        assert info.converged.tolist() == [True, False, False, True]
    operator = aslinearoperator(np.full((30, 30), np.nan))
    with pytest.raises(NonFiniteError):
        nearest_kron(operator, TWO)


def test_too_few_steps_are_a_failure():
    a = gaussian((100, 100))
    with pytest.raises(NotConvergedError, match="max_iter") as caught:
        nearest_kron(a, [(10, 10), (10, 10)], max_iter=2, method="lanczos")
    assert np.isfinite(caught.value.result.toarray()).all()
    k = nearest_kron(a, [(10, 10), (10, 10)], max_iter=2, method="lanczos", on_fail="nan")
    assert np.isnan(k.toarray()).all()


@pytest.mark.parametrize(
    ("shape", "shapes"),
    [((0, 6), [(0, 2), (5, 3)]), ((4, 0), [(2, 0), (2, 1)]), ((0, 0), [(0, 0), (3, 3)])],
)
def test_empty_matrices(shape, shapes):
    k, info = nearest_kron(np.zeros(shape, "float32"), shapes, return_info=True)
    assert k.shape == shape
    assert k.dtype == "float32"
    assert info.residual == 0
    assert nearest_kron(np.zeros((0, 30, 30)), TWO).factors[0].shape == (0, 6, 6)


def test_the_seed_replays():
    a = gaussian((100, 100))
    shapes = [(10, 10), (10, 10)]
    first, info = nearest_kron(a, shapes, method="lanczos", rng=5, return_info=True)
    again = nearest_kron(a, shapes, method="lanczos", rng=info.seed)
    assert all((f == g).all() for f, g in zip(first.factors, again.factors, strict=True))


@pytest.mark.parametrize(
    ("shapes", "options", "error", "words"),
    [
        ([(6, 6), (5, 4)], {}, ValueError, r"make 6\*4 = 24 columns, but a has 30"),
        ([(6, 6)], {}, ValueError, "two or more"),
        (6, {}, TypeError, "must be a list"),
        ([(6, 6), 5], {}, ValueError, r"shapes\[1\]"),
        (TWO, {"rank": 26}, ValueError, "at most .* = 25"),
        (TWO, {"rank": 0}, ValueError, "at least 1"),
        (TWO, {"rank": None}, TypeError, "or tol="),
        (TWO, {"rank": None, "tol": 1e-16}, ValueError, "64 eps"),
        (TWO, {"method": "als"}, ValueError, "more than two"),
        (TWO, {"method": "moments"}, ValueError, "stream of gradients"),
        (TWO, {"rank": 2, "method": "power"}, ValueError, "one term"),
        (TWO, {"method": "qr"}, ValueError, "one of"),
        ([(2, 3), (3, 2), (5, 5)], {"rank": 2}, ValueError, r"two groups of them, shapes=\["),
        ([(2, 3), (3, 2), (5, 5)], {"method": "svd"}, ValueError, "take 'als'"),
        ([(2, 3), (15, 10)], {"assume_a": "her"}, ValueError, "square factors"),
    ],
)
def test_wrong_arguments(shapes, options, error, words):
    with pytest.raises(error, match=words):
        nearest_kron(np.eye(30), shapes, **options)


def test_wrong_matrices():
    with pytest.raises(TypeError, match="'svd'|must be an array"):
        nearest_kron("a", TWO)
    with pytest.raises(ValueError, match="'svd' is for arrays"):
        nearest_kron(scipy.sparse.eye_array(30), TWO, method="svd")
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        nearest_kron(torch.eye(30, requires_grad=True), TWO)


def test_choices_and_explanations():
    assert choose_method(36, 25, 2)[0] == "svd"
    assert choose_method(900, 900, 2)[0] == "lanczos"
    assert choose_method(9, 25, 3)[0] == "als"
    assert choose_method(36, 25, 2, kind="once")[0] == "moments"
    assert choose_method(1 << 23, 25, 2, kind="stream")[0] == "power"
    for size in ("small", "medium"):
        args, kwargs = _nearest.sample(size, rng=0)
        told = explain_nearest_kron(*args, **kwargs)
        _, info = nearest_kron(*args, **kwargs, return_info=True)
        assert told.method == info.method
        assert told.flops > 0
    assert explain_nearest_kron([np.eye(3)], [(3, 3), (3, 3)]).method == "lanczos"
