"""Nearest Kronecker products: against singular values of the rearranged matrix, and structure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nearest import TWO, error_of, least_error, psd, rearranged, skew, symmetric, unit
from spectra import EPS, adjoint, gaussian

from linalgk.errors import AsymmetricError
from linalgk.kronecker import _rearranged, _structure
from linalgk.kronecker._nearest import nearest_kron


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
@pytest.mark.parametrize(("layout", "dtype"), [("C", "float64"), ("F", "complex128")])
def test_matrices_beyond_a_cache_are_read_where_they_lie(shapes, layout, dtype):
    """The strided products against the definition, and one term against the largest value."""
    (p1, q1), (p2, q2) = shapes
    a = laid(gaussian((p1 * p2, q1 * q2), dtype, 3), layout)
    own = _rearranged.Dense(a, *shapes)
    assert own.small is None
    assert np.shares_memory(own.blocks, a)
    r = rearranged(a, shapes) / own.scale
    for columns in (1, 2, 5):
        x, y = gaussian((q2 * p2, columns), dtype, 1), gaussian((p1 * q1, columns), dtype, 2)
        for found, exact in ((own.matmat(x), r @ x), (own.rmatmat(y), adjoint(r) @ y)):
            assert np.linalg.norm(found - exact) <= 1e-14 * np.linalg.norm(r) * columns
    k, info = nearest_kron(a, shapes, return_info=True)
    assert abs(error_of(a, k) - info.residual) < 1e-12
    size = info.singular_values[0]
    assert abs(info.residual - np.sqrt(1 - (size / np.linalg.norm(a)) ** 2)) < 1e-10
    gram = r @ adjoint(r) if r.shape[0] < r.shape[1] else adjoint(r) @ r
    if len(gram) < 500:
        top = np.sqrt(np.linalg.eigvalsh(gram)[-1]) * own.scale
        assert abs(size / top - 1) < 1e-12


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
        k, info = nearest_kron(a + 0.1 * third, [(4, 4), (3, 3)], 2, method=method,
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
    terms = [np.kron(u[:, t].reshape(4, 4), v[:, t].reshape(5, 5)) * 100.0**-t for t in range(6)]
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


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
def test_hermitian_factors_without_trace_or_sum(method):
    """Nothing says what their signs should be but their largest entries."""
    for x in (np.array([[0, 1j], [-1j, 0]]), np.diag([1.0, -1]), np.array([[1, 1j], [-1j, -1]])):
        a = np.kron(symmetric(3, "complex128"), x)
        k = nearest_kron(a, [(3, 3), (2, 2)], method=method)
        assert all((f == adjoint(f)).all() for f in k.factors)
        assert error_of(a, k) < 1e-14


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


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
def test_skew_factors_where_they_are_nearer(method):
    """Power steps begin with a symmetric matrix, which is orthogonal to them, and noise."""
    a = np.kron(skew(6, 1), skew(5, 2)) + 0.05 * symmetric(30, seed=3)
    k = nearest_kron(a, TWO, method=method)
    assert all((f == -f.T).all() for f in k.factors)
    assert abs(error_of(a, k) - least_error(a, TWO, 1)[0]) < 1e-14
    k = nearest_kron(a, TWO, assume_a="pos")
    assert all((f == f.T).all() for f in k.factors)
    # no symmetric matrix sees anything of an exact one
    turn = np.array([[0.0, 1], [-1, 0]])
    k = nearest_kron(np.kron(turn, turn), [(2, 2), (2, 2)], method=method)
    assert np.abs(k.toarray() - np.kron(turn, turn)).max() < 1e-14
    # of two that are as near the symmetric one is taken
    same = np.kron(np.diag([1.0, -1]), np.eye(2)) + np.kron(turn, turn)
    k = nearest_kron(same, [(2, 2), (2, 2)], method=method)
    assert all((f == f.T).all() for f in k.factors)


def test_hermitian_pairs_do_not_depend_on_phases():
    """A singular vector may come as a skew matrix, which is i times a Hermitian one."""
    a = np.kron(symmetric(3, "complex128"), symmetric(2, "complex128", 1))
    own = _rearranged.Dense(a, (3, 3), (2, 2))
    v = symmetric(2, "complex128", 1).conj().reshape(-1, 1)
    for phase in (1, 1j, 0.6 + 0.8j):
        found, kinds = _structure.hermitian_pairs(own, phase * v / np.linalg.norm(v), 1, (1, -1))
        assert abs(abs(np.vdot(found, v)) / np.linalg.norm(v) - 1) < 1e-14
        assert kinds == [1]


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
@pytest.mark.parametrize("across", [True, False])
def test_signs_are_kept_where_the_largest_singular_value_is_double(method, across):
    """``x x^T kron z z^T + y y^T kron w w^T``: any mixture is nearest, only some are semidefinite.

    Rounding, of the sign that is worst, decides which ones LAPACK finds.
    """
    first = [np.ones(n) if across else np.arange(float(n)) for n in (6, 5)]
    (x, y), (z, w) = (
        np.linalg.qr(np.column_stack([v, gaussian((len(v), 2), seed=5)]))[0].T[1:] for v in first
    )
    x, y, z, w = (np.outer(v, v) for v in (x, y, z, w))
    a = np.kron(x, z) + np.kron(y, w) - 1e-12 * (np.kron(x, w) + np.kron(y, z))
    k = nearest_kron(a, TWO, method=method)
    assert abs(error_of(a, k) - np.sqrt(0.5)) < 1e-11
    for f in k.factors:
        assert np.linalg.eigvalsh(f)[0] >= -1e-14
    a = np.kron(unit(6, 0), unit(5, 0)) + np.kron(unit(6, 2), unit(5, 1))
    a -= 1e-12 * (np.kron(unit(6, 0), unit(5, 1)) + np.kron(unit(6, 2), unit(5, 0)))
    for f in nearest_kron(a, TWO, method=method).factors:
        assert f.min() >= 0


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
def test_nonnegative_matrices_have_nonnegative_factors(method):
    a = np.abs(gaussian((18, 40))) * (gaussian((18, 40), seed=7) > 0.5)
    shapes = [(3, 8), (6, 5)]
    k = nearest_kron(a, shapes, method=method)
    assert min(f.min() for f in k.factors) >= 0
    assert abs(error_of(a, k) - least_error(a, shapes, 1)[0]) < 1e-13
    # two parts that have nothing to do with each other: rounding of one in the other has any sign
    one, two = (np.abs(gaussian((6, 5), seed=i)) * (np.arange(5) % 2 == i) for i in (0, 1))
    apart = np.kron(np.diag([1.0, 2, 3, 0, 0, 0]), one) + np.kron(
        np.diag([0.0, 0, 0, 1, 2, 1]), two
    )
    k = nearest_kron(apart, [(6, 6), (6, 5)], method=method)
    assert min(f.min() for f in k.factors) >= 0


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
