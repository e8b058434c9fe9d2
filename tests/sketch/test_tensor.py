"""Sketches of tensor products: factors against the product, closed forms, moments, failures."""

import functools
import itertools
import math
import pickle

import array_api_compat
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from numpy.testing import assert_array_equal
from scipy.linalg import hadamard, khatri_rao

from linalgk import _xp, config_context
from linalgk.errors import NonFiniteError
from linalgk.sketch import _tensor
from linalgk.sketch._ops import philox
from linalgk.sketch._philox import KRON, TENSOR
from linalgk.sketch._stack import CountSketch
from linalgk.sketch._tensor import KroneckerSRHT, TensorSketch

BOTH = pytest.mark.parametrize("kind", [TensorSketch, KroneckerSRHT])
SHAPES = [(7,), (5, 9), (3, 8, 5), (2, 5, 3, 4), (3, 2, 4, 1, 5)]
MIXED = [["float64", "float64"], ["complex128", "float64"], ["float32", "int64"]]


def data(rng, shape, dtype="float64"):
    if np.dtype(dtype).kind == "i":
        return rng.integers(-9, 9, shape)
    x = rng.standard_normal((*shape, 2))
    return (x @ [1, 1j] if np.dtype(dtype).kind == "c" else x[..., 0]).astype(dtype)


def product(factors):
    return functools.reduce(np.kron, factors)


def assert_close(got, want, factors, product_of, slack=8.0):
    """Columns within the law of rounding: ``u log k`` times the product of the factors' 1-norms."""
    eps = np.finfo(want.dtype).eps
    sizes = product_of([np.abs(a).sum(axis=0, keepdims=True) for a in factors])
    bound = slack * len(factors) * math.log2(4 * max(len(want), len(factors[0]))) * eps * sizes
    assert got.shape == want.shape
    assert (np.linalg.norm(got - want, axis=0) <= bound.ravel()).all()


def matrix(kind, S):
    """The operator by its definition, column by column, from the words of the generator."""
    k, modes = S.shape[0], S.modes
    dense = np.zeros(S.shape)

    def word(j, sub, tag):
        return [int(w) for w in philox(j, sub, tag, *S.key)]

    def hashed(j, sub):
        w = word(j, sub, TENSOR)[0]
        return ((w >> 1) * k) >> 31, -1 if w & 1 else 1

    def node(index, begin, end):
        """Place and sign of modes begin to end."""
        if end - begin == 1:
            return hashed(index[begin], begin)
        middle = (begin + end) // 2
        row, sign = 0, 1
        for low, high in ((begin, middle), (middle, end)):
            place, s = node(index, low, high)
            if high - low > 1:
                place, more = hashed(place, (1 << 16) + (low + high) // 2)
                s *= more
            row, sign = row + place, sign * s
        return row % k, sign

    for col, index in enumerate(itertools.product(*map(range, modes))):
        if kind is TensorSketch and len(modes) > 3:
            row, sign = node(index, 0, len(modes))
            dense[row, col] = sign
        elif kind is TensorSketch:
            places, signs = zip(*(hashed(j, t) for t, j in enumerate(index)), strict=True)
            dense[sum(places) % k, col] = math.prod(signs)
        else:
            for i in range(k):
                odd = 0
                for t, j in enumerate(index):
                    power = (modes[t] - 1).bit_length()
                    row = word(i, (1 << 16) + t, KRON)[0] >> (32 - power)
                    odd += (j & row).bit_count()
                    odd += word(j >> 7, t, KRON)[(j & 127) // 32] >> (j % 32) & 1
                dense[i, col] = (-1) ** odd / math.sqrt(k)
    return dense


# --- Entries -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("shape", [(150,), (3, 5), (2, 3, 5), (2, 3, 2, 3), (2, 2, 3, 2, 2)])
def test_entries_are_those_of_the_definition(kind, shape):
    S = kind(6, shape, rng=3)
    assert S.shape == (6, math.prod(shape))
    assert S.modes == shape
    assert_array_equal(S.toarray(), matrix(kind, S))
    assert_array_equal((S @ np.eye(math.prod(shape))), S.toarray())


def test_the_signs_of_hadamard_matrices_are_parities_of_common_ones():
    S = KroneckerSRHT(30, (4, 8, 2), rng=0)
    flips = [1.0 - 2 * S._look(t, n).astype(int) for t, n in enumerate(S.modes)]
    whole = functools.reduce(
        np.kron, [hadamard(n) * d for n, d in zip(S.modes, flips, strict=True)]
    )
    assert_array_equal(S.toarray(), whole[S._picks()] * (1 / math.sqrt(30)))


@BOTH
@pytest.mark.parametrize("dtype", [None, "float32", "complex128"])
def test_parts_and_pickles(kind, dtype):
    S = kind(8, (3, 4, 5, 2, 2), rng=1, dtype=dtype)
    dense = S.toarray()
    assert dense.dtype == (dtype or "float64")
    for begin, end in ((0, 240), (7, 100), (239, 240), (50, 50)):
        assert_array_equal(S[:, begin:end].toarray(), dense[:, begin:end])
    assert_array_equal(S[:, 5:200][:, 10:20].toarray(), dense[:, 15:25])
    other = pickle.loads(pickle.dumps(S))
    assert other == S
    assert other == kind(8, [3, 4, 5, 2, 2], rng=S.key, dtype=dtype)
    assert other != kind(8, (4, 3, 5, 2, 2), rng=S.key, dtype=dtype)
    assert_array_equal(other.toarray(), dense)
    assert "modes=(3, 4, 5, 2, 2)" in repr(S)


@BOTH
def test_parts_far_behind_what_64_bits_count(kind, rng):
    shape = (1 << 32, 3, 1 << 32, 1 << 20)
    S = kind(16, shape, rng=2)
    index = ((1 << 32) - 1, 2, 7, 5)
    at = 0
    for n, j in zip(shape, index, strict=True):
        at = at * n + j
    part = S[:, at : at + 4]
    want = np.stack(
        [kind(16, shape, rng=2)[:, at + i : at + i + 1].toarray()[:, 0] for i in range(4)], axis=1
    )
    assert_array_equal(part.toarray(), want)
    assert np.count_nonzero(want[:, 0]) == (1 if kind is TensorSketch else 16)
    x = data(rng, (4, 2))
    np.testing.assert_allclose(part @ x, want @ x, atol=1e-14)


def test_modes_of_which_no_table_is_kept_have_the_same_entries(monkeypatch):
    for kind in (TensorSketch, KroneckerSRHT):
        S = kind(8, (300, 2), rng=1)
        want = S[:, 100:400].toarray(), S.kron(np.eye(300), np.ones((2, 1)))
        with monkeypatch.context() as patch:
            patch.setattr(_tensor, "_TABLE", 4)
            S = kind(8, (300, 2), rng=1)
            got = S[:, 100:400].toarray(), S.kron(np.eye(300), np.ones((2, 1)))
        assert_array_equal(want[0], got[0])
        assert_array_equal(want[1], got[1])


def test_a_kronecker_srht_keeps_its_rows_when_it_grows():
    S = KroneckerSRHT(6, (5, 6), rng=0)
    assert_array_equal(np.sign(S.grow(20).toarray()[:6]), np.sign(S.toarray()))
    assert S.grow(20).scale == 1 / math.sqrt(20)
    with pytest.raises(ValueError, match="less than the 6 rows"):
        S.grow(5)
    with pytest.raises(TypeError, match=r"a TensorSketch cannot grow; make one with k = 9"):
        TensorSketch(6, (5, 6), rng=0).grow(9)
    with pytest.raises(TypeError, match="KroneckerSRHT is dense"):
        S.tosparse()


# --- Products ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_products_of_factors_are_those_of_the_product(kind, shape, kinds, rng):
    S = kind(7, shape, rng=1)
    factors = [data(rng, (n, 1 + t % 3), kinds[t % 2]) for t, n in enumerate(shape)]
    dtype = np.result_type(*factors)
    entries = S.toarray().astype(np.result_type(dtype, "float64"))
    want = (entries @ product(factors)).astype(dtype)
    got = S.kron(*factors)
    assert got.dtype == dtype
    assert_close(got, want, factors, product)
    square = [data(rng, (n, 3), kinds[t % 2]) for t, n in enumerate(shape)]
    want = (entries @ functools.reduce(khatri_rao, square)).astype(dtype)
    got = S.khatri_rao(*square)
    assert got.dtype == np.result_type(*square)
    assert_close(got, want, square, functools.partial(functools.reduce, khatri_rao))


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
def test_of_sparse_factors_vectors_and_nothing(kind, dtype, rng):
    S = kind(10, (20, 30, 5), rng=1)
    factors = [data(rng, (n, 3), dtype) for n in S.modes]
    factors[0][rng.random((20, 3)) < 0.7] = 0
    mixed = [scipy.sparse.csr_array(factors[0]), factors[1], scipy.sparse.coo_matrix(factors[2])]
    want = S.kron(*factors)
    for some in (mixed, [scipy.sparse.csc_array(a) for a in factors]):
        got = S.kron(*some)
        assert got.dtype == want.dtype
        assert_close(got, want, factors, product)
    vectors = [a[:, 0] for a in factors]
    assert_array_equal(S.kron(*vectors), S.khatri_rao(*[a[:, :1] for a in factors])[:, 0])
    assert S.kron(vectors[0], factors[1], vectors[2]).shape == (10, 3)
    assert S.kron(vectors[0], factors[1][:, :0], vectors[2]).shape == (10, 0)
    whole = scipy.sparse.csr_array(product(factors))
    np.testing.assert_allclose(
        S @ whole, S @ whole.toarray(), rtol=0, atol=np.finfo(dtype).eps * 1e5
    )


@BOTH
def test_a_dtype_raises_that_of_products(kind, rng):
    S = kind(6, (4, 5), rng=0, dtype="float64")
    factors = [data(rng, (n, 2), "float32") for n in S.modes]
    assert S.kron(*factors).dtype == "float64"
    assert S.kron(*[scipy.sparse.csr_array(a) for a in factors]).dtype == "float64"
    assert (S @ product(factors)).dtype == "float64"


@BOTH
def test_transposes_are_adjoint(kind, rng):
    for shape in SHAPES:
        S = kind(6, shape, rng=4)
        m, dense = math.prod(shape), S.toarray()
        for dtype in ("float64", "complex128"):
            y = data(rng, (6, 3), dtype)
            np.testing.assert_allclose(S.T @ y, dense.T @ y, rtol=0, atol=1e-14)
            part = S[:, 1 : m - 1]
            np.testing.assert_allclose(part.T @ y, dense[:, 1:-1].T @ y, rtol=0, atol=1e-14)
            a = data(rng, (m, 2), dtype)
            np.testing.assert_allclose(a.T @ S.T, (S @ a).T, rtol=0, atol=0)


def test_a_tensorsketch_is_a_countsketch_in_bits(rng, monkeypatch):
    S = TensorSketch(12, (40, 30, 50), rng=1)
    m = S.shape[1]
    a = data(rng, (m, 3)) * 10.0 ** rng.integers(-6, 6, (m, 1))
    want = S @ a
    C = CountSketch(12, m, rng=0)
    monkeypatch.setattr(C, "_hashes", S._hashes)
    assert (C @ a).tobytes() == want.tobytes()
    for threads in (1, 2):
        with config_context(num_threads=threads):
            assert (S @ np.asfortranarray(a)).tobytes() == want.tobytes()
            assert (S @ scipy.sparse.csr_array(a)).tobytes() == want.tobytes()
    acc = S.accumulator(3)
    cuts = [0, 10_000, 10_001, 30_000, 45_000, m]
    for i in rng.permutation(5):
        acc.update(a[cuts[i] : cuts[i + 1]], offset=cuts[i])
    assert acc.result().tobytes() == want.tobytes()
    assert abs(S.tosparse() - scipy.sparse.csc_array(S.toarray())).max() == 0
    np.testing.assert_allclose(S.tosparse() @ a, want, rtol=0, atol=1e-14 * np.abs(a).sum())


def test_sums_of_a_kronecker_srht_over_blocks(rng):
    S = KroneckerSRHT(9, (40, 30, 20), rng=1)
    a = data(rng, (24_000, 3))
    want = S @ a
    acc, other = S.accumulator(3), S.accumulator(3)
    for i in (16_000, 0, 8_000):
        (other if i else acc).update(a[i : i + 8_000], offset=i)
    acc += other
    np.testing.assert_allclose(acc.result(), want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(S[:, :100] @ a[:100] + S[:, 100:] @ a[100:], want, atol=1e-12)


def test_wide_data_are_transformed_by_columns(rng, monkeypatch):
    S = KroneckerSRHT(9, (5, 6), rng=1)
    a, y = data(rng, (30, 10)), data(rng, (9, 10))
    want = S @ a, S.T @ y
    monkeypatch.setattr(_tensor, "_TRANSFORMED", 200)
    assert len(S._columns(10)) == 4
    assert_array_equal(S @ a, want[0])
    assert_array_equal(S.T @ y, want[1])


@BOTH
def test_other_libraries(kind, xp, rng):
    S = kind(8, (3, 5, 6, 2), rng=1)
    factors = [data(rng, (n, 2), "complex128" if t else "float64") for t, n in enumerate(S.modes)]
    given = [xp.asarray(a) for a in factors]
    whole = data(rng, (180, 2))
    for got, want in (
        (S.kron(*given), S.kron(*factors)),
        (S.khatri_rao(*given), S.khatri_rao(*factors)),
        (S.kron(scipy.sparse.csr_array(factors[0]), *given[1:]), S.kron(*factors)),
        (S @ xp.asarray(whole), S @ whole),
        (S[:, 1:] @ xp.asarray(whole[1:]), S[:, 1:] @ whole[1:]),
        (S.T @ xp.asarray(whole[:8]), S.T @ whole[:8]),
        (S[:, 1:].T @ xp.asarray(whole[:8]), S[:, 1:].T @ whole[:8]),
    ):
        assert array_api_compat.array_namespace(got) == array_api_compat.array_namespace(given[0])
        np.testing.assert_allclose(_xp.to_numpy(got), want, rtol=0, atol=1e-12)


def test_jax_traces_products_with_data_only(rng):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    for kind in (TensorSketch, KroneckerSRHT):
        S = kind(6, (3, 4, 2, 2), rng=1)
        a = data(rng, (48, 2))
        got = jax.jit(lambda S, a: S @ a)(S, a)
        np.testing.assert_allclose(got, S @ a, rtol=0, atol=1e-13)
        with pytest.raises(TypeError, match=r"S.kron: cannot be traced by JAX"):
            jax.jit(lambda S, x: S.kron(x, x, x, x))(S, a[:3])


# --- Moments -------------------------------------------------------------------------------------


def test_the_second_moment_of_a_kronecker_srht_is_the_identity_exactly(monkeypatch):
    """Over all rows that may be drawn, each with the same probability, for any signs."""
    S = KroneckerSRHT(5, (3, 7, 6), rng=5).grow(256)
    every = np.array(list(itertools.product(range(4), range(8), range(8))))
    monkeypatch.setattr(S, "_rows", lambda: list(every.T.astype(np.uint64)))
    dense = S.toarray()
    assert_array_equal(dense.T @ dense, np.eye(126))


@pytest.mark.stat
def test_sampled_rows_are_uniform_and_independent_over_the_modes():
    """Chi-square of 128 cells; fails by chance with probability 1e-4."""
    S = KroneckerSRHT(20_000, (200, 200), rng=11)
    (i, j) = S._rows()
    counts = np.bincount((i >> np.uint64(5)) * np.uint64(16) + (j >> np.uint64(4)), minlength=128)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.stat
@pytest.mark.parametrize(("shape", "k"), [((6, 5), 8), ((4, 6, 5), 7), ((3, 4, 2, 3, 2), 8)])
def test_tensorsketches_keep_inner_products_on_average(shape, k):
    """Mean over 1000 seeds within 4.5 sigma; fails by chance with probability 7e-6 a case."""
    rng = np.random.default_rng(1)
    x, y = ([data(rng, (n, 1), "complex128") for n in shape] for _ in range(2))
    want = np.vdot(product(x), product(y))
    pairs = [np.hstack([u, v]) for u, v in zip(x, y, strict=True)]
    found = []
    for seed in range(1000):
        sx, sy = TensorSketch(k, shape, rng=seed).khatri_rao(*pairs).T
        found.append(np.vdot(sx, sy))
    for part in (np.real, np.imag):
        values = part(found)
        assert abs(values.mean() - part(want)) < 4.5 * values.std(ddof=1) / math.sqrt(1000)


def fourth_moment(factors, k):
    r"""E ||S x||^4 of a tensor product x of real vectors, sketched by the sum of their hashes.

    In Fourier's words ``||S x||^2 = 1/k sum_f prod_t |z_tf|^2``, and the modes are independent:
    ``E |z_f|^2 |z_g|^2 = A + c B``, A = ||x||_2^4, B = A - ||x||_4^4, where c counts which of
    f = g and f = -g (mod k) are true.
    """
    A = np.array([np.sum(x**2) ** 2 for x in factors])
    B = A - [np.sum(x**4) for x in factors]
    both = 2 - k % 2
    counts = k * k - 2 * k + both, 2 * (k - both), both
    return sum(n * np.prod(A + c * B) for c, n in enumerate(counts)) / k**2


@pytest.mark.stat
@pytest.mark.parametrize(("q", "k"), [(1, 6), (2, 8), (2, 7), (3, 16)])
def test_the_fourth_moment_of_a_tensorsketch_is_the_law(q, k):
    """Mean over 1500 seeds within 4.5 sigma; fails by chance with probability 7e-6 a case."""
    rng = np.random.default_rng(q)
    factors = [rng.uniform(0.5, 1.5, 9) for _ in range(q)]
    want = fourth_moment(factors, k)
    assert want <= (1 + (2 + 3**q) / k) * math.prod(np.sum(x**2) ** 2 for x in factors)
    values = np.array(
        [
            np.sum(TensorSketch(k, (9,) * q, rng=seed).kron(*factors) ** 2) ** 2
            for seed in range(1500)
        ]
    )
    assert abs(values.mean() - want) < 4.5 * values.std(ddof=1) / math.sqrt(1500)


@pytest.mark.stat
@pytest.mark.parametrize("q", [2, 3, 5])
def test_products_of_matrices_are_kept_as_the_theorem_says(q):
    """Of 150 seeds no more fail than a bound of 1/4 allows at 4.5 sigma: probability 7e-6 a case.

    And the mean square error, which the theorem bounds by v / k, is below that by 4.5 sigma.
    """
    rng = np.random.default_rng(q)
    shape, eps, delta = (6,) * q if q < 5 else (3, 2, 3, 2, 3), 0.8, 0.25
    if q <= 3:
        k = math.ceil((2 + 3**q) / (eps**2 * delta))
        v = (2 + 3**q) / k
    else:
        k = 300
        v = (1 + 11 / k) ** (q - 1) - 1
        assert v <= eps**2 * delta
    m = math.prod(shape)
    x = rng.standard_normal((m, 2))
    # one that is far from a product, one that is near to one
    y = x[:, ::-1] + 3 * product([np.ones((n, 1)) for n in shape])
    with pytest.warns(UserWarning, match="no reduction") if k > m else config_context():
        sketches = [TensorSketch(k, shape, rng=seed) for seed in range(150)]
    size = np.linalg.norm(x) * np.linalg.norm(y)
    errors = np.array([np.linalg.norm((S @ x).T @ (S @ y) - x.T @ y) / size for S in sketches])
    assert (errors > eps).sum() <= 150 * delta + 4.5 * math.sqrt(150 * delta * (1 - delta))
    square = errors**2
    assert square.mean() + 4.5 * square.std() / math.sqrt(150) < v


# --- Failures ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("k", "shape", "error", "words"),
    [
        (
            4,
            12,
            TypeError,
            r"shape: must be a sequence of mode sizes, such as \(100, 200\), got 12",
        ),
        (4, "34", TypeError, "shape: must be a sequence"),
        (4, None, TypeError, "shape: must be a sequence"),
        (4, (3, 2.5), TypeError, r"shape\[1\]: must be an integer, got 2.5"),
        (4, (3, 0), ValueError, r"shape\[1\]: must be at least 1, got 0"),
        (4, (), ValueError, "shape: must have 1 to 65535 modes, got 0"),
        (4, (3, (1 << 32) + 1), ValueError, r"shape: mode sizes must be at most 2\*\*32"),
        (0, (3, 4), ValueError, "k: must be at least 1, got 0"),
        (1 << 31, (3, 4), ValueError, r"k: must be below 2\*\*31"),
    ],
)
def test_bad_shapes(kind, k, shape, error, words):
    with pytest.raises(error, match=words):
        kind(k, shape)


@BOTH
def test_more_rows_than_data_warn(kind):
    with pytest.warns(UserWarning, match="k = 20 rows for m = 12 data rows") as caught:
        kind(20, (3, 4), rng=0)
    assert caught[0].filename == __file__


@BOTH
def test_bad_factors(kind, rng):
    S = kind(4, (3, 5), rng=0)
    a, b = data(rng, (3, 2)), data(rng, (5, 3))
    with pytest.raises(ValueError, match=r"S.kron: needs 2 factors, .* of \(3, 5\), got 1"):
        S.kron(a)
    with pytest.raises(
        ValueError, match=r"factors\[1\] must have shape \(5, d\) or \(5,\), mode 1"
    ):
        S.kron(a, a)
    with pytest.raises(ValueError, match=r"got \(1, 3, 2\)"):
        S.kron(a[None], b)
    with pytest.raises(ValueError, match=r"same number of columns, got \[2, 3\]"):
        S.khatri_rao(a, b)
    with pytest.raises(ValueError, match=r"S.khatri_rao: a part S\[:, i0:i1\] has no modes"):
        S[:, 2:].khatri_rao(a, b)
    with pytest.raises(TypeError, match=r"factors\[0\]: must be an array"):
        S.kron(object(), b)
    with pytest.raises(TypeError, match=r"dtype must be float32, .* got float16"):
        S.kron(a.astype("float16"), b)
    with pytest.raises(ValueError, match="16 rows meet 15 columns"):
        S @ np.ones(16)
    b[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"S.kron: a factor holds NaN .* in column 1"):
        S.kron(a, b)
    b[2, 1] = np.inf
    with config_context(check_finite=False):
        assert np.isfinite(S.kron(a, b)[:, 0]).all()
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(
        TypeError, match=r"factors\[0\] is numpy .* factors\[1\] is array_api_strict"
    ):
        S.kron(a, strict.asarray(b))


@BOTH
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_infinity_in_data_raises(kind, backend):
    S = kind(4, (5, 6), rng=0)
    a = np.ones((30, 2))
    a[3:5, 1] = np.inf
    with config_context(backend=backend):
        for s, x in ((S, a), (S[:, 1:], a[1:]), (S, scipy.sparse.csr_array(a))):
            with pytest.raises(NonFiniteError, match=r"S @ a: a holds NaN .* in column 1"):
                s @ x
        for s in (S, S[:, 1:]):
            with pytest.raises(NonFiniteError, match=r"S.T @ y: y holds NaN .* in column 1"):
                s.T @ a[1:5]


def test_draws_belong_to_the_key():
    for kind in BOTH.args[1]:
        S, other = (kind(4, (5, 6), rng=rng) for rng in (0, 1))
        S.toarray()
        assert_array_equal(S._with(key=other.key).toarray(), other.toarray())


def test_lists_are_factors():
    S = TensorSketch(4, (2, 3), rng=0)
    assert_array_equal(S.kron([1, 2], [1.0, 2.0, 3.0]), S.kron(np.array([1, 2]), np.arange(1.0, 4)))
    assert S.explain(np.ones((6, 2))).method == "dense"
