"""What stands beside a sketch: layouts, sparse matrices, operators, other libraries, NaN."""

import sys
import types

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import sketched
from numpy.testing import assert_array_equal
from sketched import BLOCK, FAMILIES, close, make, same_bits

import linalgk as lk

K, M = 104, 300
families = pytest.mark.parametrize("family", FAMILIES)
FORMATS = ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"]


# --- Layouts of arrays ---------------------------------------------------------------------------


def layouts(a):
    """The same numbers, in memory in many ways."""
    m, n = a.shape
    yield "F", np.asfortranarray(a)
    wide = np.zeros((2 * m, 3 * n), a.dtype)
    wide[::2, ::3] = a
    yield "strided", wide[::2, ::3]
    yield "reversed", a[::-1, ::-1].copy()[::-1, ::-1]
    yield "reversed F", np.asfortranarray(a[::-1])[::-1]
    still = a.copy()
    still.flags.writeable = False
    yield "read-only", still
    yield "other endian", a.astype(a.dtype.newbyteorder())
    room = np.zeros(a.nbytes + 1, np.uint8)
    odd = room[1:].view(a.dtype).reshape(m, n)
    odd[...] = a
    yield "unaligned", odd
    packed = np.zeros((m, n), [("tag", "u1"), ("x", a.dtype)])
    packed["x"] = a
    yield "fields", packed["x"]
    yield "stack", np.stack([a, a], axis=-1)[..., 0]


@families
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_memory_layouts(family, dtype):
    """The same bits, BLAS aside, and nothing is written to."""
    s = make(family, K, M)
    a, y = sketched.data(M, 6, dtype=dtype), sketched.data(K, 6, dtype=dtype)
    want, back = s @ a, s.T @ y
    for (_, x), (_, z) in zip(layouts(a), layouts(y), strict=True):
        got, gone = s @ x, s.T @ z
        if family in (*sketched.EXACT, "rows"):
            same_bits(got, want)
            same_bits(gone, back)
        else:
            close(got, s, a)
            close(gone, s, y, transpose=True)
            assert got.dtype == want.dtype
        assert_array_equal(x, a)
        assert_array_equal(z, y)
    repeated = np.broadcast_to(a[:, :1], (M, 6))
    close(s @ repeated, s, repeated)


@families
def test_integers_and_lists(family):
    s = make(family, K, M)
    a = np.random.default_rng(0).integers(-9, 10, (M, 3))
    want = s @ a.astype(float)
    for given in (a, a.astype("int8"), a.tolist(), [list(map(float, row)) for row in a]):
        same_bits(s @ given, want)
    same_bits(s @ (a > 0), s @ (a > 0).astype(float))
    same_bits(s @ abs(a).astype("uint16"), s @ abs(a).astype(float))
    same_bits(s @ a[:, 0].tolist(), s @ a[:, 0].astype(float))
    for wrong in (a.astype("float16"), a.astype("longdouble"), a.astype(object)):
        with pytest.raises(TypeError, match="a: dtype must be float32, float64"):
            s @ wrong


def test_memory_mapped_files(tmp_path):
    """More than one piece of it; each is read in turn."""
    rows = 9 * BLOCK + 7
    a = np.memmap(tmp_path / "a", "float32", "w+", shape=(rows, 3))
    a[...] = sketched.data(rows, 3, dtype="float32")
    a.flush()
    still = np.memmap(tmp_path / "a", "float32", "r", shape=(rows, 3))
    for s in (lk.sketch.SparseStack(64, rows, rng=0), lk.sketch.SRHT(64, rows, rng=0)):
        got = s @ still
        assert type(got) is np.ndarray
        same_bits(got, s @ np.array(a))


def test_subclasses_of_arrays():
    s = make("stack8", K, M)
    a = sketched.data(M, 2)
    assert type(s @ a.view(type("Mine", (np.ndarray,), {}))) is np.ndarray
    with pytest.raises(TypeError, match=r"a: a masked array has no values where it is masked"):
        s @ np.ma.masked_array(a)
    with pytest.raises(TypeError, match="a: a list of arrays is not an array"):
        s @ [a, a]


# --- SciPy's sparse matrices ---------------------------------------------------------------------


def sparse(rows=M, cols=7, dtype="float64", density=0.1, seed=3):
    """A canonical coo_array, with a column and a row that are empty."""
    gen = np.random.default_rng(seed)
    dense = sketched.data(rows, cols, dtype=dtype) * (gen.random((rows, cols)) < density)
    dense[:, 2] = dense[5] = 0
    return scipy.sparse.coo_array(dense)


def as_format(a, name, kind):
    return getattr(scipy.sparse, f"{name}_{kind}")(a)


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@families
def test_sparse_formats(family):
    s, coo = make(family, K, M), sparse()
    for form in FORMATS:
        for kind in ("array", "matrix"):
            a = as_format(coo, form, kind)
            kept = a.copy()
            got = s @ a
            assert type(got) is np.ndarray
            close(got, s, a.toarray())
            assert_array_equal(a.toarray(), kept.toarray())
            same_bits(a.T @ s.T, got.T)
            if isinstance(s, lk.sketch.SparseStack):
                same_bits(got, s @ a.toarray())


@families
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_sparse_dtypes(family, dtype):
    s = make(family, K, M)
    a = sparse(dtype=dtype).tocsr()
    got = s @ a
    assert got.dtype == ("complex128" if family == "complex" else dtype)
    close(got, s, a.toarray())
    if family == "stack8":
        same_bits(got, s @ a.toarray())
        swapped = a.copy()
        swapped.data = swapped.data.astype(swapped.dtype.newbyteorder())
        same_bits(s @ swapped, got)
        same_bits(s[:, 7:] @ a[7:], s[:, 7:] @ a.toarray()[7:])
    y = scipy.sparse.csr_array(sketched.data(K, 3, dtype=dtype))
    close(s.T @ y, s, y.toarray(), transpose=True)


@families
def test_sparse_entries_in_no_order_twice_and_zero(family):
    """Unsorted, duplicate and stored zero entries: what SciPy itself makes of them; not changed."""
    s = make(family, K, M)
    gen = np.random.default_rng(4)
    row, col = gen.integers(0, M, 400), gen.integers(0, 7, 400)
    value = np.where(gen.random(400) < 0.1, 0.0, sketched.data(400))
    coo = scipy.sparse.coo_array((value, (row, col)), shape=(M, 7))
    raw = scipy.sparse.csc_array((7, M))
    order = np.argsort(col, kind="stable")
    raw = scipy.sparse.csc_array(
        (value[order], row[order], np.cumsum([0, *np.bincount(col, minlength=7)])), shape=(M, 7)
    )
    assert not raw.has_sorted_indices
    rows = raw.T.copy()
    for a in (coo, raw, rows.T, coo.tocsr(copy=True)):
        before = [x.copy() for x in (a.data, *(a.coords if a.format == "coo" else (a.indices,)))]
        close(s @ a, s, a.toarray())
        after = [a.data, *(a.coords if a.format == "coo" else (a.indices,))]
        for x, z in zip(before, after, strict=True):
            assert_array_equal(x, z)


def test_sparse_bits_are_the_dense_ones():
    """Over several blocks and pieces, for parts that begin in a block, both orders of storage."""
    rows = 10 * BLOCK + 100
    gen = np.random.default_rng(5)
    where = np.sort(gen.choice(rows * 5, 6000, replace=False))
    value = sketched.data(6000, dtype="float32")
    a = scipy.sparse.csr_array((value, np.divmod(where, 5)), shape=(rows, 5))
    dense = a.toarray()
    for s in (
        make("stack8", 64, rows), make("count", 64, rows), make("stack13", 65, None),
        make("stack8", 4000, rows),
    ):  # fmt: skip
        for begin in (0, 5000, BLOCK):
            want = s[:, begin:] @ dense[begin:]
            same_bits(s[:, begin:] @ a[begin:], want)
            same_bits(s[:, begin:] @ a[begin:].tocsc(), want)


def test_sparse_integers_vectors_and_emptiness():
    s = make("stack8", K, M)
    a = scipy.sparse.random_array((M, 4), density=0.2, rng=0, format="csr")
    counts = (a * 10).astype(np.int16)
    same_bits(s @ counts, s @ counts.toarray())
    same_bits(s @ (a > 0.5), s @ (a > 0.5).toarray())
    vector = scipy.sparse.coo_array(a.toarray()[:, 0])
    same_bits(s @ vector, s @ vector.toarray())
    for shape in ((M, 0), (M, 4)):
        got = s @ scipy.sparse.csr_array(shape, dtype="float32")
        assert (got.shape, got.dtype) == ((K, shape[1]), np.float32)
    nothing = make("stack8", K, None) @ scipy.sparse.csr_array((0, 4))
    assert nothing.shape == (K, 4)
    with pytest.raises(ValueError, match="299 rows meet 300 columns"):
        s @ a[1:]
    with pytest.raises(TypeError, match="dtype must be float32"):
        s @ a.astype(np.longdouble)
    long = a.copy()
    long.indices, long.indptr = long.indices.astype("int64"), long.indptr.astype("int64")
    same_bits(s @ long, s @ a)


class _Device:
    """Like a matrix of cupyx.scipy.sparse, as far as a sketch asks: rows, copies, dense blocks."""

    ndim = 2

    def __init__(self, a):
        self.a = a.tocsr()
        self.shape, self.dtype, self.data = a.shape, a.dtype, self.a.data

    T = property(lambda self: _Device(self.a.T))

    def tocsr(self):
        return self

    def toarray(self):
        return self.a.toarray()

    def __getitem__(self, index):
        return _Device(self.a[index])

    def astype(self, dtype):
        return _Device(self.a.astype(dtype))

    def copy(self):
        return _Device(self.a.copy())


_Device.__module__ = "cupyx.scipy.sparse._csr"


@families
def test_sparse_matrices_of_a_device(family):
    """Blocks of rows are made dense by their own library."""
    s, a = make(family, K, M), sparse()
    close(s @ _Device(a), s, a.toarray())
    got = s.accumulator(7).update(_Device(a), offset=0).result()
    close(got, s, a.toarray())
    with pytest.raises(ValueError, match="300 rows meet 299 columns"):
        s[:, 1:] @ _Device(a)
    assert s.explain(_Device(a)).method == "dense_blocks"
    if family in sketched.EXACT:
        same_bits(s @ _Device(a), s @ a.toarray())


# --- Operators -----------------------------------------------------------------------------------


@families
def test_linear_operators(family):
    s = make(family, K, M)
    for dtype in sketched.DTYPES:
        a = sketched.data(M, 5, dtype=dtype)
        op = scipy.sparse.linalg.aslinearoperator(a)
        bare = scipy.sparse.linalg.LinearOperator(
            (M, 5), matvec=a.__matmul__, rmatvec=a.conj().T.__matmul__, dtype=dtype
        )
        for given in (op, bare):
            got = s @ given
            assert got.dtype == ("complex128" if family == "complex" else dtype)
            close(got, s, a)


def test_operators_that_have_only_an_adjoint(monkeypatch):
    """Any object with shape and .H, such as another sketch, in panels of rows."""
    s, inner = make("stack8", 16, K), make("complex", K, M)
    close(s @ inner, s, inner.toarray())
    assert (s @ inner).shape == (16, M)
    whole = s @ inner
    from linalgk.sketch import _inputs

    monkeypatch.setattr(_inputs, "_PANEL_BYTES", 3 * 8 * K)
    np.testing.assert_allclose(s @ inner, whole, rtol=1e-13)
    thing = types.SimpleNamespace(shape=(K, 3), H=np.ones((3, K)))
    close(s @ thing, s, np.ones((K, 3)))
    with pytest.raises(ValueError, match="300 rows meet 104 columns"):
        s @ make("stack8", K, M).T


# --- Other libraries -----------------------------------------------------------------------------


@families
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_other_libraries(family, xp, dtype):
    s = make(family, K, M)
    a, y = sketched.data(M, 3, dtype=dtype), sketched.data(K, 3, dtype=dtype)
    mine, theirs = xp.asarray(a), xp.asarray(y)
    got = s @ mine
    assert type(got) is type(mine)
    close(got, s, a)
    back = s.T @ theirs
    assert type(back) is type(mine)
    close(back, s, y, transpose=True)
    assert type(s.H @ theirs) is type(mine)
    close(np.conj(np.asarray(s.H @ theirs)), s, np.conj(y), transpose=True)
    if not type(mine).__module__.startswith("array_api_strict"):
        # which refuses what it does not know
        left = xp.asarray(a.T.copy()) @ s.T
        assert type(left) is type(mine)
        np.testing.assert_array_equal(left, np.asarray(got).T)
        assert (xp.asarray(y.T.copy()) @ s).shape == (3, M)
    if family in sketched.EXACT:
        same_bits(np.asarray(got), s @ a)
    assert (s @ xp.asarray(sketched.data(2, M, 3, dtype=dtype))).shape == (2, K, 3)
    assert (s @ xp.asarray(a[:, 0].copy())).shape == (K,)
    assert (s @ xp.asarray(np.zeros((0, M, 3), dtype))).shape == (0, K, 3)
    assert (s[:, 9:] @ xp.asarray(a[9:].copy())).shape == (K, 3)


def test_torch_tensors_that_require_grad():
    torch = pytest.importorskip("torch")
    s = make("stack8", K, M)
    with pytest.raises(TypeError, match="requires grad would be detached silently"):
        s @ torch.ones(M, requires_grad=True)
    lazily = torch.ones(M, 2, dtype=torch.complex128).conj()
    assert (s @ lazily).dtype == torch.complex128


# --- NaN, explanations ---------------------------------------------------------------------------


@families
def test_what_is_not_finite_is_named(family):
    s, a, value = make(family, K, M), sketched.data(M, 4), np.inf if family == "count" else np.nan
    row = 7 if family != "rows" else int(s.indices[0])
    a[row, 2] = value
    with pytest.raises(lk.errors.NonFiniteError, match=r"a holds NaN or inf.* in column 2; config"):
        s @ a
    with pytest.raises(lk.errors.NonFiniteError, match="in column 2"):
        s @ scipy.sparse.csr_array(a)
    with pytest.raises(lk.errors.NonFiniteError, match="in column 1 of member"):
        s @ np.stack([a[:, :2], a[:, 1:3]])
    with pytest.raises(lk.errors.NonFiniteError, match="y holds NaN"):
        s.T @ np.full(K, value)
    for options in ({"check_finite": False}, {"on_fail": "nan"}):
        with lk.config_context(**options), np.errstate(invalid="ignore"):
            got = s @ a
        assert not np.isfinite(got[:, 2]).all()
        assert np.isfinite(got[:, [0, 1, 3]]).all()
    for given in (a, scipy.sparse.csr_array(a)):
        with (
            lk.config_context(on_fail="warn"),
            pytest.warns(lk.errors.ConvergenceWarning, match="NaN or infinity.* in column 2"),
        ):
            s @ given


@pytest.mark.parametrize("family", ["gaussian", "rademacher", "complex"])
def test_infinities_meet_in_silence_on_every_thread(family):
    """Threads do not share the error states of the caller; warnings here are errors."""
    s, a = make(family, K, 3 * BLOCK), np.ones((3 * BLOCK, 4))
    a[::99], a[1::99] = np.inf, -np.inf
    with lk.config_context(check_finite=False, num_threads=2):
        assert np.isnan(s @ a).all()
        assert np.isnan(s.T @ np.tile([np.inf, -np.inf], (K, 2))).any()
    with lk.config_context(num_threads=2), pytest.raises(lk.errors.NonFiniteError, match="large"):
        s @ np.full((3 * BLOCK, 4), 1e308)


def test_nested_numbers_stand_on_the_left():
    s = make("stack8", K, 3 * K)
    a = [[float(i * j % 7) for j in range(3 * K)] for i in range(2)]
    same_bits(a @ s.T, np.array(a) @ s.T)
    same_bits([1.0] * K @ s, np.ones(K) @ s)
    for wrong in (3.0, "x", None):
        with pytest.raises((TypeError, ValueError), match="got"):
            wrong @ s.T


@families
def test_explanations(family, xp):
    s = make(family, K, M)
    a = np.ones((M, 3))
    for given, method in [
        (a, "dense"), (a.tolist(), "dense"), (a[:, 0], "dense"), (np.ones((2, M, 3)), "dense"),
        (xp.asarray(a), "dense"), (lk.RowBlocks([a]), "blocks"),
        (scipy.sparse.linalg.aslinearoperator(a), "operator"),
    ]:  # fmt: skip
        told = s.explain(given)
        assert told.method == method
        assert told.function == f"{type(s).__name__} @ a"
        assert "because" in str(told)
        if method == "dense":
            assert told.flops > 0
            assert told.flops == s.explain(np.ones(np.shape(given))).flops
    assert s.explain(scipy.sparse.csr_array(a)).method == (
        "dense_blocks" if family.startswith("srht") else "sparse"
    )
    if "torch" in sys.modules and family == "stack8":
        assert "stack_apply" in s.explain(xp.asarray(a)).implementations
    with pytest.raises(ValueError, match="got a number"):
        s.explain(np.array(3.0))
    with pytest.raises(ValueError, match="got a number"):
        s.explain(3.0)
