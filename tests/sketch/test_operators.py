"""Operators: their entries, products with them, parts, growth, identity."""

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import sketched
from numpy.testing import assert_array_equal
from sketched import BLOCK, FAMILIES, close, make, same_bits

import linalgk as lk
from linalgk.sketch._philox import Key

K, M = 104, 300
families = pytest.mark.parametrize("family", FAMILIES)
FAR = 2**33 - 2 * BLOCK + 11


# --- Entries: another program from the same rules -------------------------------------------------


def test_entries_of_a_stack():
    """Sign and bucket of block t from word t mod 4 of the call (row, t // 4)."""
    s = lk.sketch.SparseStack(65, None, nnz=13, rng=3)[:, FAR : FAR + 40]
    want = np.zeros((65, 40))
    for i in range(40):
        for t in range(13):
            word = sketched.call(s.key, FAR + i, t // 4, 3)[t % 4]
            want[5 * t + ((word >> 1) * 5 >> 31), i] = (1 - 2 * (word & 1)) / math.sqrt(13)
    assert_array_equal(s.toarray(), want)
    assert_array_equal(s.tosparse().toarray(), want)


def test_entries_of_signs():
    """Bit r mod 128 of the call (row, r // 128)."""
    s = lk.sketch.Rademacher(300, None, rng=3)[:, FAR : FAR + 9]
    want = np.empty((300, 9))
    for i in range(9):
        for r in range(300):
            word = sketched.call(s.key, FAR + i, r // 128, 2)[r % 128 // 32]
            want[r, i] = 1 - 2 * (word >> r % 32 & 1)
    assert_array_equal(s.toarray(), want * (1 / math.sqrt(300)))


def test_entries_of_normals():
    """Of a pair of rows both come from one call, by the formula of the uniform words."""
    s = lk.sketch.Gaussian(5, None, rng=3)[:, FAR : FAR + 30]
    want = np.empty((6, 30))
    for i in range(30):
        for pair in range(3):
            w = sketched.call(s.key, FAR + i, pair, 1)
            r = math.sqrt(-2 * math.log1p(-((w[0] << 20 | w[1] >> 12) * 2.0**-52)))
            y = (w[2] << 20 | w[3] >> 12) * 2.0**-52 - 0.5
            both = [r * math.cos(math.pi / 2 * y), r * math.sin(math.pi / 2 * y)]
            both[0] *= (-1) ** (w[3] & 1)
            want[2 * pair : 2 * pair + 2, i] = both[:: -1 if w[3] & 2 else 1]
    np.testing.assert_allclose(s.toarray() * math.sqrt(5), want[:5], rtol=2e-15)
    # complex rows are pairs of real ones; float32 is the same, rounded
    z = lk.sketch.Gaussian(3, None, rng=3, dtype="complex128")[:, FAR : FAR + 30]
    np.testing.assert_allclose(z.toarray() * math.sqrt(6), want[0::2] + 1j * want[1::2], rtol=2e-15)
    small = lk.sketch.Gaussian(5, None, rng=3, dtype="float32")[:, FAR : FAR + 30].toarray()
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, s.toarray(), rtol=2e-7)


def shuffled(key, n, k):
    """The first k of a shuffle by Fisher and Yates, of 64-bit words."""
    moved = {}
    for i in range(k):
        w = sketched.call(key, i, 0, 6)
        at = i + ((w[0] << 32 | w[1]) * (n - i) >> 64)
        moved[i], moved[at] = moved.get(at, at), moved.get(i, i)
    return [moved[i] for i in range(k)]


def test_rows_of_long_blocks():
    s = lk.sketch.SRHT(300, None, rng=3, block=1 << 31)
    assert s.rows.tolist() == shuffled(s.key, 1 << 31, 300)


@pytest.mark.parametrize(("m", "block"), [(64, None), (300, 64), (100, 64), (1, 1)])
def test_entries_of_a_hadamard_sketch(m, block):
    k = min(m, 50)
    s = lk.sketch.SRHT(k, m, rng=3, block=block)
    n = s.block
    assert n == (block or 64)
    rows = s.rows
    assert rows.tolist() == shuffled(s.key, n, k)
    want = np.zeros((k, -(-m // n) * n))
    hadamard = scipy.linalg.hadamard(n)[rows]
    for b in range(-(-m // n)):
        outs = [sketched.call(s.key, b, r // 128, 5)[r % 128 // 32] >> r % 32 & 1 for r in range(k)]
        flips = [
            sketched.call(s.key, j >> 7, 0, 4)[j % 128 // 32] >> j % 32 & 1
            for j in range(b * n, b * n + n)
        ]
        signs = np.outer(1 - 2 * np.array(outs), 1 - 2 * np.array(flips))
        want[:, b * n : b * n + n] = hadamard * signs
    assert_array_equal(s.toarray(), want[:, :m] * (1 / math.sqrt(k)))


@pytest.mark.parametrize("m", [1, 2, 63, 150])
def test_entries_of_a_cosine_sketch(m):
    s = lk.sketch.SRCT(m, m, rng=4)
    c = scipy.fft.dct(np.eye(m), axis=0, norm="ortho")[s.rows]
    flips = [
        1 - 2 * (sketched.call(s.key, j >> 7, 0, 4)[j % 128 // 32] >> j % 32 & 1) for j in range(m)
    ]
    np.testing.assert_allclose(s.toarray(), c * flips, atol=1e-14)
    assert sorted(s.rows) == list(range(m))


def test_entries_of_chosen_rows():
    s = lk.sketch.RowSample([4, 0, 4], [2.0, -1.0, 0.5], 6)
    want = np.zeros((3, 6))
    want[[0, 1, 2], [4, 0, 4]] = [2.0, -1.0, 0.5]
    assert_array_equal(s.toarray(), want)
    assert_array_equal(s.tosparse().toarray(), want)
    assert_array_equal(lk.sketch.RowSample([1, 2], 3.0, 4).weights, [3.0, 3.0])
    assert_array_equal(s.indices, [4, 0, 4])


# --- Products ------------------------------------------------------------------------------------


@families
def test_products(family, dtype):
    """Within terms * eps * |S| |a|, both ways and transposed; the dtype is that of the data."""
    s = make(family, K, M)
    a, y = sketched.data(M, 9, dtype=dtype), sketched.data(K, 3, dtype=dtype, seed=2)
    given, kept = a.copy(), y.copy()
    b = s @ a
    close(b, s, a)
    plain = np.dtype("complex128" if family == "complex" else dtype)
    assert b.dtype == plain
    tall = s.T @ y
    close(tall, s, y, transpose=True)
    assert tall.dtype == plain
    turned = s.H @ y
    if family == "complex":
        close(turned.conj(), s, y.conj(), transpose=True)
        close((a.T @ s.H).conj().T, s, a.conj())
        assert s.H.toarray()[3, 2] == s.toarray()[2, 3].conj()
    else:
        same_bits(turned, tall)
        same_bits(a.T @ s.H, (s @ a).T)
    same_bits(a.T @ s.T, b.T)
    same_bits(y.T @ s, tall.T)
    for same in (s.matmat(a), s.dot(a), s.T.T @ a, s.H.H @ a):
        same_bits(same, b)
    same_bits(s.rmatmat(y), turned)
    assert s.T.shape == (M, K)
    assert_array_equal(s.T.toarray(), s.toarray().T)
    assert_array_equal(given, a)
    assert_array_equal(kept, y)


@families
def test_vectors_and_stacks(family):
    s = make(family, K, M)
    a, y = sketched.data(2, 3, M, 5), sketched.data(2, 3, K, 4)
    each, back = s @ a, s.T @ y
    assert each.shape == (2, 3, K, 5)
    assert back.shape == (2, 3, M, 4)
    same_bits(each[1, 2], s @ a[1, 2])
    same_bits(back[1, 2], s.T @ y[1, 2])
    same_bits(a.swapaxes(-1, -2) @ s.T, each.swapaxes(-1, -2))
    vector = s @ a[0, 0, :, 1]
    assert vector.shape == (K,)
    # alone or beside others; transforms and BLAS may then add in another order
    close(vector, s, a[0, 0, :, 1])
    close(each[0, 0, :, 1], s, a[0, 0, :, 1])
    if family in sketched.EXACT:
        same_bits(vector, each[0, 0, :, 1])
    assert (s.T @ y[0, 0, :, 1]).shape == (M,)
    close(s.T @ y[0, 0, :, 1], s, y[0, 0, :, 1], transpose=True)
    close(back[0, 0, :, 1], s, y[0, 0, :, 1], transpose=True)
    same_bits(a[0, 0, :, 1] @ s.T, vector)


@families
def test_many_rows(family):
    """Several blocks and tiles, begun within one of each: dense, sparse and transposed."""
    m, begin = BLOCK + 1500, 700
    s = make(family, 13, m + begin)[:, begin:]
    a, y = sketched.data(m, 2), sketched.data(s.shape[0], 2)
    close(s @ a, s, a)
    few = a * (np.arange(m) % 7 == 3)[:, None]
    close(s @ scipy.sparse.csr_array(few), s, few)
    close(s.T @ y, s, y, transpose=True)
    close(s.accumulator(2).update(a[9:], offset=9).update(a[:9], offset=0).result(), s, a)


def test_transforms_of_more_rows_than_are_taken_at_once():
    m = (1 << 18) + 5
    s, a = lk.sketch.SRHT(4, m, rng=0, block=1 << 18), sketched.data(m, 1)
    close(s @ a, s, a)
    close(s.accumulator(1).update(a[7:], offset=7).update(a[:7], offset=0).result(), s, a)
    # more rows of the sketch than a block has by itself
    s, x = lk.sketch.SRHT(1 << 15, 1 << 15, rng=0), sketched.data(1 << 15)
    assert s.block == 1 << 15
    np.testing.assert_allclose(s.T @ (s @ x), x, atol=1e-11 * abs(x).max())


@families
@pytest.mark.parametrize("dtype", ["float32", "int64", "complex128"])
def test_nothing_to_multiply(family, dtype):
    s = make(family, K, M)
    floating = "float64" if dtype == "int64" else dtype
    wanted = np.dtype("complex128" if family == "complex" else floating)
    for shape, result, back in [
        ((M, 0), (K, 0), (K, 0)), ((0, M, 4), (0, K, 4), (0, K, 4)), ((2, 0, M, 0), None, None),
    ]:  # fmt: skip
        result = result or (2, 0, K, 0)
        got = s @ np.zeros(shape, dtype)
        assert (got.shape, got.dtype) == (result, wanted)
        back = s.T @ np.zeros(result, dtype)
        assert (back.shape, back.dtype) == (shape, wanted)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("srct", "rows")])
@pytest.mark.filterwarnings("ignore:.*no reduction")
def test_no_data_rows(family):
    s = make(family, K, 0)
    assert s.shape == (K, 0)
    got = s @ np.zeros((0, 3))
    assert got.shape == (K, 3)
    assert not got.any()
    assert (s.T @ np.ones((K, 3))).shape == (0, 3)
    assert s.toarray().shape == (K, 0)
    assert (make(family, K, None) @ np.zeros((0, 3))).shape == (K, 3)
    assert (s @ np.zeros(0)).shape == (K,)
    assert s.accumulator(3).result().shape == (K, 3)
    # within a block, and without kernels
    none = make(family, K, 2 * K)[:, 5:5]
    got = none @ np.zeros((0, 3))
    assert not got.any()
    with lk.config_context(backend="reference"):
        same_bits(none @ np.zeros((0, 3)), got)


def test_the_last_numbers_of_data_rows():
    """A cosine sketch has its formula up to 2^31 rows, whose products just fit 64 bits."""
    m = 2**31
    s = lk.sketch.SRCT(5, m, rng=0)
    j = np.array([m - 2, m - 1])
    turns = [[int(i) * (2 * int(x) + 1) % (4 * m) / (4 * m) for x in j] for i in s.rows]
    want = abs(np.cos(2 * np.pi * np.array(turns))) * (2 / 5) ** 0.5
    np.testing.assert_allclose(abs(s[:, m - 2 :].toarray()), want, atol=1e-15)
    for family in ("stack8", "gaussian", "srht"):
        part = make(family, K, None)[:, 2**63 - 3 : 2**63]
        close(part @ np.ones((3, 2)), part, np.ones((3, 2)))


@families
def test_an_unknown_number_of_rows(family):
    if family in ("srct", "rows"):
        return
    s = make(family, K, None)
    assert s.shape == (K, None)
    a = sketched.data(M, 3)
    if family == "srht":
        # the block does not depend on the data's number of rows then
        assert s.block == BLOCK
        close(s @ a, s[:, :M], a)
    else:
        same_bits(s @ a, make(family, K, M) @ a)
    same_bits(s[:, 5:] @ a[5:], s[:, 5:M] @ a[5:])
    for call in (s.toarray, s.to_scipy, lambda: s.T @ np.ones(K)):
        with pytest.raises(ValueError, match=r"number of data rows m is not known; take a part"):
            call()


# --- Parts ---------------------------------------------------------------------------------------


@families
def test_parts(family, dtype):
    s, a = make(family, K, M), sketched.data(M, 4, dtype=dtype)
    dense = s.toarray()
    for begin, end in [(0, M), (0, 1), (7, 7), (127, 129), (128, 256), (5, M - 1), (M, M)]:
        part = s[:, begin:end]
        assert part.shape == (K, end - begin)
        assert_array_equal(part.toarray(), dense[:, begin:end])
        close(part @ a[begin:end], part, a[begin:end])
        y = sketched.data(K, 2, dtype=dtype)
        close(part.T @ y, part, y, transpose=True)
    assert_array_equal(s[:, 10:140][:, 5:50][:, 1:].toarray(), dense[:, 16:60])
    assert_array_equal(s[:, -20:-3].toarray(), dense[:, -20:-3])
    assert s[:, 3:1].shape == (K, 0)
    assert s[:, 100:1000].shape == (K, M - 100)
    if family not in ("srct", "rows"):
        far = make(family, K, None)[:, FAR:][:, 5:9]
        assert_array_equal(far.toarray(), make(family, K, None)[:, FAR + 5 : FAR + 9].toarray())
        close(far @ a[:4], far, a[:4])


@families
def test_parts_are_of_columns(family):
    s = make(family, K, M)
    for index in (
        0, slice(0, 3), (slice(0, 3), slice(None)), (0, 0), (slice(None), slice(0, 9, 2)),
        (slice(None), 3), (slice(None), [1, 2]), (slice(None),) * 3,
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"sketches have parts S\[:, i0:i1\]; use S.toarray"):
            s[index]
    whole = lk.sketch.SparseStack(8, None, rng=0)
    for begin, end in ((-3, None), (None, -1), (5, 2)):
        with pytest.raises(ValueError, match=r"of an unknown number of rows 0 <= i0 <= i1, got"):
            whole[:, begin:end]
    with pytest.raises(TypeError):
        whole[:, 2.5:]


def test_entries_do_not_depend_on_the_part_they_are_asked_for():
    """Any rectangle of any family, from inside, as panels of linear operators take them."""
    for family in FAMILIES:
        s = make(family, K, M)
        dense, like = s.toarray(), np.empty(0, s.dtype)
        for row, rows, col, cols in [
            (0, 1, 0, M),
            (3, 7, 125, 10),
            (K - 1, 1, M - 1, 1),
            (5, 0, 5, 3),
        ]:
            got = s._entries(like, row, rows, col, cols)
            assert_array_equal(got, dense[row : row + rows, col : col + cols])


# --- Growth --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gaussian", "complex", "rademacher", "srht", "srht_blocks"])
def test_growth_keeps_rows_before_the_scale(family):
    s = make(family, 20, M)
    big = s.grow(K)
    assert big.shape == (K, M)
    assert big == make(family, K, M)
    eps = 4 * np.finfo(float).eps
    np.testing.assert_allclose(
        big.toarray()[:20] / big.scale, s.toarray() / s.scale, rtol=eps, atol=0
    )
    assert s.shape == (20, M)
    a = sketched.data(M, 3)
    close(big @ a, big, a)
    close(s @ a, s, a)
    assert s.grow(20) == s


def test_a_stack_grows_by_whole_blocks():
    s = lk.sketch.SparseStack(24, M, nnz=4, rng=5)
    big = s.grow(32)
    assert big.shape == (36, M)
    assert (big.nnz, big.scale) == (6, 1 / math.sqrt(6))
    assert_array_equal((big.toarray()[:24] != 0), (s.toarray() != 0))
    assert_array_equal(np.sign(big.toarray()[:24]), np.sign(s.toarray()))
    assert big == lk.sketch.SparseStack(36, M, nnz=6, rng=5)
    a = sketched.data(M, 2)
    close(big @ a, big, a)


def test_who_cannot_grow():
    for family in ("count", "srct", "rows"):
        with pytest.raises(TypeError, match="cannot grow"):
            make(family, K, M).grow(120)
    for family in ("gaussian", "stack8", "srht"):
        with pytest.raises(ValueError, match="grow: k = 3 is less than the 104"):
            make(family, K, M).grow(3)
    with pytest.raises(ValueError, match=r"k = 129 is more than the 128 rows of a block; make one"):
        make("srht_blocks", K, M).grow(129)
    with pytest.raises(TypeError, match="k: must be an integer"):
        make("gaussian", K, M).grow(60.0)


# --- Identity ------------------------------------------------------------------------------------


@families
def test_pickles_copies_and_equality(family):
    s = make(family, K, M)
    for t in (s, s[:, 10:90]):
        for same in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t), copy.copy(t)):
            assert same == t
            assert hash(same) == hash(t)
            assert same.layout == 1
            assert_array_equal(same.toarray(), t.toarray())
            assert repr(same) == repr(t)
    assert s[:, 0:M] == s
    assert s[:, 1:] != s
    assert s[:, :-1] != s
    assert make(family, K, M) == s
    assert make(family, K, M, rng=6) != s
    if family != "rows":
        assert make(family, 39, M) != s
        assert make(family, K, M, rng=s.key) == s
        assert make(family, K, M, rng=np.random.default_rng(3)) == make(
            family, K, M, rng=np.random.default_rng(3)
        )
    assert s != "S"
    assert len({s, copy.deepcopy(s), s[:, 1:]}) == 2
    assert type(s).__name__ in repr(s)
    assert f"{K}" in repr(s)
    assert f"{M}" in repr(s)
    assert repr(s.T).endswith(".T")


def test_pickles_of_another_stream():
    s = make("stack8", K, M)
    with pytest.raises(ValueError, match="has layout 2 of the stream; this release makes 1"):
        s.__setstate__({**s.__getstate__(), "layout": 2})


def test_kinds_are_not_equal():
    assert lk.sketch.SparseStack(8, 9, nnz=1, rng=0) != lk.sketch.CountSketch(8, 9, rng=0)
    one, other = lk.sketch.Gaussian(8, 9, rng=0), lk.sketch.Gaussian(8, 9, rng=0, dtype="float32")
    assert one != other
    assert lk.sketch.SRHT(8, 9, rng=0, block=8) != lk.sketch.SRHT(8, 9, rng=0, block=16)
    assert_array_equal(
        lk.sketch.SparseStack(8, 9, nnz=1, rng=0).toarray(),
        lk.sketch.CountSketch(8, 9, rng=0).toarray(),
    )


def test_a_repr_says_what_makes_the_same():
    s = lk.sketch.SparseStack(16, 100, nnz=4, rng=1)[:, 3:50]
    k0, k1 = s.key
    assert repr(s) == f"SparseStack(16, 47, nnz=4, buckets=4, start=3, key=({k0}, {k1}))"
    assert lk.sketch.SparseStack(16, 100, nnz=4, rng=Key(k0, k1))[:, 3:50] == s
    long = lk.sketch.RowSample(np.arange(10_000), 1.0, 20_000)
    assert len(repr(long)) < 200


def test_fresh_entropy_and_generators():
    assert lk.sketch.CountSketch(4, 9) != lk.sketch.CountSketch(4, 9)
    gen = np.random.default_rng(0)
    assert lk.sketch.CountSketch(4, 9, rng=gen) != lk.sketch.CountSketch(4, 9, rng=gen)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("rows", "complex")])
def test_a_dtype_raises_that_of_products(family):
    kind = type(make(family, K, M))
    for dtype in sketched.DTYPES:
        if kind is lk.sketch.Gaussian and dtype.startswith("complex"):
            continue
        if kind is lk.sketch.Rademacher and dtype.startswith("complex"):
            with pytest.raises(TypeError, match=r"dtype: signs are real; use Gaussian"):
                kind(K, M, rng=5, dtype=dtype)
            continue
        s = kind(K, M, rng=5, dtype=dtype)
        assert s.dtype == s.toarray().dtype == s.T.dtype == dtype
        for given in sketched.DTYPES:
            a = sketched.data(M, 3, dtype=given)
            assert (s @ a).dtype == np.result_type(dtype, given)
            close(s @ a, kind(K, M, rng=5), a)
            y = sketched.data(K, 3, dtype=given)
            assert (s.T @ y).dtype == np.result_type(dtype, given)
    assert kind(K, M, rng=5).dtype == np.float64
    with pytest.raises(ValueError, match=r"dtype: must be one of 'float32'.*got 'float16'"):
        kind(K, M, rng=5, dtype="float16")


def test_complex_entries_and_real_data():
    for dtype in ("complex64", "complex128"):
        s = lk.sketch.Gaussian(K, M, rng=5, dtype=dtype)
        assert s.toarray().dtype == dtype
        for given in sketched.DTYPES:
            a = sketched.data(M, 3, dtype=given)
            assert (s @ a).dtype == np.result_type(dtype, given)
            close(s @ a, lk.sketch.Gaussian(K, M, rng=5, dtype="complex128"), a)
    for wrong in (lambda: s.H.T, lambda: s.T.H):
        with pytest.raises(TypeError, match="for the conjugate of a complex sketch"):
            wrong()


@families
def test_arrays_of_other_libraries(family, xp):
    plain = make(family, K, M)
    state = plain.__getstate__()
    s = copy.copy(plain)
    s._xp = xp
    dense = s.toarray()
    assert type(dense) is type(xp.asarray([1.0]))
    assert_array_equal(np.asarray(dense), plain.toarray())
    assert_array_equal(np.asarray(plain.toarray(xp=xp)), plain.toarray())
    again = pickle.loads(pickle.dumps(s))
    assert type(again.toarray()) is type(dense)
    # where it goes is no part of what it is
    assert again == plain
    assert state == plain.__getstate__()


@families
def test_for_scipy(family):
    """As SciPy's operator, through its own consistency: products, adjoint, composition."""
    s = make(family, K, M)
    op = s.to_scipy()
    a, y = sketched.data(M, 3), sketched.data(K, 3)
    same_bits(op @ a, s @ a)
    same_bits(op.H @ y, s.H @ y)
    same_bits(op @ a[:, 0], s @ a[:, 0])
    same_bits(op.rmatvec(y[:, 0]), s.H @ y[:, 0])
    assert op.shape == s.shape
    assert op.dtype == s.dtype
    np.testing.assert_allclose((op.H @ op) @ a, s.H @ (s @ a))


# --- Bad arguments -------------------------------------------------------------------------------


def test_rows_are_rounded_up_to_whole_blocks():
    assert lk.sketch.SparseStack(50, 1000, rng=0).shape == (56, 1000)
    assert lk.sketch.SparseStack(8, 1000, rng=0).shape == (8, 1000)
    assert lk.sketch.SparseStack(13, 1000, nnz=5, rng=0).shape == (15, 1000)


@pytest.mark.parametrize("family", ["stack4", "count", "gaussian", "rademacher", "srht"])
def test_more_rows_than_data_warn(family):
    kind = type(make(family, 8, 100)).__name__
    with pytest.warns(UserWarning, match=f"{kind}: k = 104 rows for m = 103 data rows") as caught:
        make(family, K, K - 1)
    assert caught[0].filename.endswith("sketched.py")
    make(family, K, K)
    make(family, K, None)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f.SparseStack(0, 9), ValueError, "k: must be at least 1, got 0"),
        (lambda f: f.Gaussian(-3, 9), ValueError, "k: must be at least 1, got -3"),
        (lambda f: f.SRHT(2.0, 9), TypeError, "k: must be an integer, got 2.0"),
        (lambda f: f.SparseStack(7, 9), ValueError, r"k: must be at least nnz = 8, .*got 7"),
        (lambda f: f.SparseStack(8, 9, nnz=0), ValueError, "nnz: must be at least 1, got 0"),
        (lambda f: f.SparseStack(2**31, None), ValueError, r"k: must be below 2\*\*31, got 2147"),
        (lambda f: f.CountSketch(8, -1), ValueError, "m: must be at least 0, got -1"),
        (lambda f: f.CountSketch(8, 2.5), TypeError, "m: must be an integer, got 2.5"),
        (lambda f: f.SRCT(9, 8), ValueError, "k: must be at most m = 8.* without replac.*got 9"),
        (lambda f: f.SRHT(9, 20, block=12), ValueError, "block: must be a power of two .*got 12"),
        (lambda f: f.SRHT(9, 20, block=8), ValueError, r"from k = 9 to 2\*\*32, got 8"),
        (lambda f: f.SRHT(9, None, block=1 << 33), ValueError, r"to 2\*\*32, got 8589934592"),
        (lambda f: f.SRCT(9, 2**31 + 1), ValueError, r"m: must be at most 2\*\*31, got 2147483649"),
        (lambda f: f.Gaussian(9, 2**63 + 1), ValueError, r"m: data rows .* below 2\*\*63, got 92"),
        (lambda f: f.SRHT(9)[:, 2**63 :][:, :1], ValueError, r"S\[:, i0:i1\]: .*below 2\*\*63, go"),
        (lambda f: f.SparseStack(1 << 20).grow(1 << 31), ValueError, r"k: must be below 2\*\*31"),
        (lambda f: f.RowSample([5], 1.0, 5), ValueError, "indices: must lie in 0 to 4, got 5 to 5"),
        (lambda f: f.RowSample([-1], 1.0, 5), ValueError, "indices: must lie in 0 to 4, got -1"),
        (lambda f: f.RowSample([1.5], 1.0, 5), ValueError, "indices: must be integers"),
        (lambda f: f.RowSample([1], [1.0, 2.0], 5), ValueError, r"one or 1 of them, got shape \(2"),
        (lambda f: f.RowSample([1], [np.nan], 5), ValueError, "weights: must be finite"),
        (lambda f: f.RowSample([1], [1j], 5), TypeError, "weights: must be real, got .*complex128"),
        (
            lambda f: f.Gaussian(3, 9).tosparse(),
            TypeError,
            "tosparse: Gaussian is dense; use toarr",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(lk.sketch)


@families
def test_shapes_that_do_not_meet(family):
    s = make(family, K, M)
    for a in (np.ones((M + 1, 3)), np.ones(M - 1), np.ones((2, K, M))):
        with pytest.raises(ValueError, match=rf"shape \(104, 300\) and a .*rows meet {M} columns"):
            s @ a
    with pytest.raises(ValueError, match=r"shape \(300, 104\) and y \(3, 3\); 3 rows meet 104 col"):
        s.T @ np.ones((3, 3))
    for wrong in (lambda: s @ 3.0, lambda: s.T @ 3.0):
        with pytest.raises(ValueError, match="got a number"):
            wrong()
    for wrong in ("x", None, {1}):
        with pytest.raises(TypeError, match="a: must be an array"):
            s @ wrong
    with pytest.raises(TypeError):
        s * np.ones(M)


def test_processes_agree():
    """Pickles and products of another process, one that hashes text in another way."""
    code = (
        "import pickle, hashlib, numpy as np, sketched\n"
        "digest = hashlib.sha256()\n"
        "for family in sketched.FAMILIES:\n"
        "    s = sketched.make(family, 104, 300)\n"
        "    digest.update(pickle.dumps(s.__getstate__(), 4) + s.toarray().tobytes())\n"
        "    if family in sketched.EXACT:\n"
        "        digest.update((s @ sketched.data(300, 7)).tobytes())\n"
        "print(digest.hexdigest())\n"
    )
    import os
    from pathlib import Path

    tests = Path(sketched.__file__).parent
    found = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | {
                "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "PYTHONHASHSEED": seed,
                "LINALGK_NUM_THREADS": seed,
            },
        ).stdout
        for seed in "12"
    ]  # fmt: skip
    assert found[0] == found[1]
    here = {}
    exec(code, {"print": lambda text: here.update(text=text + "\n")})
    assert found[0] == here["text"]
