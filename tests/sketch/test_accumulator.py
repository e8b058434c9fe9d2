"""Accumulators: what they take, refuse, keep and travel with."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
import sketched
from sketched import BLOCK, FAMILIES, close, make, same_bits

import linalgk as lk

K, M = 104, 300
families = pytest.mark.parametrize("family", FAMILIES)


def state(acc):
    """All that can be seen of it."""
    return pickle.dumps({**acc.state_dict(), "missing": acc.missing, "nbytes": acc.nbytes})


@families
def test_blocks_in_any_order(family, dtype):
    s, a = make(family, K, M), sketched.data(M, 5, dtype=dtype)
    acc = s.accumulator(5)
    for low, high in ((200, M), (0, 70), (150, 200), (70, 150)):
        assert acc.update(a[low:high], offset=low) is acc
    got = acc.result()
    close(got, s, a)
    assert got.dtype == (s @ a).dtype
    assert acc.shape == got.shape == (K, 5)
    # asked again it says the same, and what was given away is not kept
    got *= 0
    close(acc.result(), s, a)


@families
def test_parts_as_operators(family):
    """Of a part the rows are counted from its own first."""
    s = make(family, K, M)[:, 40:290]
    a = sketched.data(250, 2)
    acc = s.accumulator(2)
    for low, high in ((100, 250), (0, 100)):
        acc.update(a[low:high], offset=low)
    close(acc.result(), s, a)
    with pytest.raises(ValueError, match="rows 249 to 251 do not fit an operator with 250 col"):
        s.accumulator(2).update(a[:2], offset=249)


@families
def test_vectors(family):
    s, a = make(family, K, M), sketched.data(M)
    acc = s.accumulator()
    acc.update(a[100:], offset=100).update(a[:100].tolist(), offset=0)
    close(acc.result(), s, a)
    assert acc.shape == acc.result().shape == (K,)
    sparse = scipy.sparse.coo_array(np.where(a > 0, a, 0))
    close(s.accumulator().update(sparse, offset=0).result(), s, sparse.toarray())
    with pytest.raises(ValueError, match=r"block: must have shape \(rows,\), got \(300, 2\)"):
        s.accumulator().update(np.ones((M, 2)), offset=0)


def test_adding_and_merging():
    s, a = make("stack8", K, M), sketched.data(M, 3)
    one = s.accumulator(3).update(a[:100], offset=0)
    two = s.accumulator(3).update(a[100:], offset=100)
    before = state(one), state(two)
    both = one + two
    assert (state(one), state(two)) == before
    same_bits(both.result(), s @ a)
    same_bits((two + one).result(), s @ a)
    kept = one
    one += two
    assert one is kept
    same_bits(one.result(), s @ a)
    assert state(two) == before[1]
    # nothing added is nothing
    same_bits((both + s.accumulator(3)).result(), s @ a)
    same_bits((s.accumulator(3) + both).result(), s @ a)
    with pytest.raises(TypeError):
        one + 3
    with pytest.raises(TypeError):
        one += a


def test_memory_of_rows_in_order_and_not():
    """One result and the rows of one block; out of order a result for every block."""
    m, k, d = 6 * BLOCK, 16, 4
    s = lk.sketch.SparseStack(k, m, rng=0)
    a = np.ones((BLOCK // 2 + 3, d), "float32")
    acc, most = s.accumulator(d), 0
    for low in range(0, m, len(a)):
        acc.update(a[: m - low], offset=low)
        most = max(most, acc.nbytes)
    assert most <= (k + BLOCK) * d * 4
    assert acc.nbytes == k * d * 4
    assert acc.missing == []
    late = s.accumulator(d)
    for block in range(5, 0, -1):
        late.update(np.ones((BLOCK, d), "float32"), offset=block * BLOCK)
        assert late.nbytes == (6 - block) * k * d * 4
    late.update(np.ones((BLOCK, d), "float32"), offset=0)
    assert late.nbytes == k * d * 4
    same_bits(late.result(), acc.result())


def test_rows_that_are_kept_are_copies():
    """What the caller does with a block afterwards is no matter; it is not changed."""
    s, a = make("stack8", K, M), sketched.data(M, 3)
    room, acc = np.empty((100, 3)), s.accumulator(3)
    for low in (200, 0, 100):
        room[...] = a[low : low + 100]
        acc.update(room, offset=low)
        np.testing.assert_array_equal(room, a[low : low + 100])
    same_bits(acc.result(), s @ a)
    kept = scipy.sparse.csr_array(a[:100])
    acc = s.accumulator(3).update(kept, offset=0)
    kept.data[:] = 0
    acc.update(a[100:], offset=100)
    same_bits(acc.result(), s @ a)


@families
def test_rows_that_have_not_come(family):
    s, a = make(family, K, M), sketched.data(M, 2)
    acc = s.accumulator(2).update(a[50:60], offset=50).update(a[100:200], offset=100)
    assert acc.missing == [(0, 50), (60, 100), (200, 300)]
    with pytest.raises(ValueError, match=r"result: rows 0 to 50, 60 to 100, 200 to 300 have not"):
        acc.result()
    filled = np.zeros_like(a)
    filled[50:60], filled[100:200] = a[50:60], a[100:200]
    close(acc.result(partial=True), s, filled)
    acc.update(a[:50], offset=0).update(a[60:100], offset=60).update(a[200:], offset=200)
    close(acc.result(), s, a)
    empty = s.accumulator(2).result(partial=True)
    assert empty.shape == (K, 2)
    assert not empty.any()


def test_missing_blocks():
    """What is there is added in ascending order, too: three sums of one size that stand apart."""
    m, half = 5 * BLOCK, BLOCK // 2
    s, a = lk.sketch.SparseStack(16, m, rng=0), sketched.data(2 * BLOCK + 5, 3)
    acc = s.accumulator(3).update(a, offset=BLOCK + half)
    assert acc.missing == [(0, BLOCK + half), (3 * BLOCK + half + 5, m)]
    filled = np.zeros((m, 3))
    filled[BLOCK + half : 3 * BLOCK + half + 5] = a
    same_bits(acc.result(partial=True), s @ filled)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("srct", "rows")])
def test_an_unknown_number_of_rows(family):
    """Rows end where they end; between them none may be missing."""
    s, a = make(family, K, None), sketched.data(M, 2)
    acc = s.accumulator(2).update(a[100:], offset=100)
    assert acc.missing == [(0, 100)]
    with pytest.raises(ValueError, match="rows 0 to 100 have not come"):
        acc.result()
    acc.update(a[:100], offset=0)
    close(acc.result(), s[:, :M], a)
    same_bits(acc.result(), s @ a)
    more = sketched.data(50, 2)
    acc.update(more, offset=M)
    close(acc.result(), s[:, : M + 50], np.concatenate([a, more]))


# --- Refusals ------------------------------------------------------------------------------------


@families
def test_a_refused_block_changes_nothing(family):
    s, a = make(family, K, M), sketched.data(M, 3)
    acc = s.accumulator(3)
    acc.update(a[:60], offset=0).update(a[100:200], offset=100)
    before, partial = state(acc), acc.result(partial=True)
    bad = a[200:260].copy()
    bad[3, 1] = np.nan
    for block, offset, message in [
        (a[200:], 201, r"offset: rows 201 to 301 do not fit an operator with 300 columns"),
        (a[200:], 150, r"offset: rows 150 to 250 overlap rows 150 to 200, which have come already"),
        (a[50:70], 50, r"rows 50 to 70 overlap rows 50 to 60, which have come"),
        (a[:300], 0, r"rows 0 to 300 overlap rows 0 to 60, which have come"),
        (a[199:202], 199, r"rows 199 to 202 overlap rows 199 to 200"),
        (a[:60, :2], 60, r"block: must have shape \(rows, 3\), got \(60, 2\)"),
        (a[60], 60, r"block: must have shape \(rows, 3\), got \(3,\)"),
        (a[None, :5], 60, r"block: must have shape \(rows, 3\), got \(1, 5, 3\)"),
        (bad, 200, r"block: rows 200 to 260 hold NaN or infinity in column 1"),
        (scipy.sparse.csr_array(bad), 200, "block: rows 200 to 260 hold NaN or infinity"),
        (a[60:70], -1, "offset: must be at least 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            acc.update(block, offset=offset)
        assert state(acc) == before
    for block, offset, message in [
        (a[60:70].astype(complex), 60, "block: is of complex128 and the sum of float64; convert"),
        (a[60:70], 60.0, "offset: must be an integer, got 60.0"),
        ("rows", 60, "block: must be an array"),
        (a[60:70].astype("float16"), 60, "a: dtype must be float32"),
    ]:
        with pytest.raises(TypeError, match=message):
            acc.update(block, offset=offset)
        assert state(acc) == before
    same_bits(acc.result(partial=True), partial)
    acc.update(a[60:100], offset=60).update(a[200:], offset=200)
    close(acc.result(), s, a)


def test_overlaps_with_blocks_that_are_summed():
    m = 3 * BLOCK
    s, a = lk.sketch.CountSketch(8, m, rng=0), np.ones((BLOCK, 1))
    acc = s.accumulator(1).update(a, offset=0).update(a, offset=2 * BLOCK)
    for offset, low, high in [
        (5, 5, BLOCK), (BLOCK - 1, BLOCK - 1, BLOCK), (BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1)
    ]:  # fmt: skip
        text = f"rows {offset} to {offset + BLOCK} overlap rows {low} to {high}, which have come"
        with pytest.raises(ValueError, match=text):
            acc.update(a, offset=offset)
    acc.update(a, offset=BLOCK)
    assert abs(acc.result()).sum() <= m


def test_a_refused_merge_changes_nothing():
    s, a = make("stack8", K, M), sketched.data(M, 3)
    acc = s.accumulator(3).update(a[:100], offset=0)
    before = state(acc)
    other = lk.sketch.SparseStack(K, M, rng=6)
    for wrong, message in [
        (
            other.accumulator(3).update(a, offset=0),
            r"operators differ: SparseStack.*key=.*and",
        ),
        (s[:, 1:].accumulator(3), "operators differ"),
        (s.accumulator(2), "3 columns of float64 and 2 of None"),
        (s.accumulator(), "3 columns of float64 and None of None"),
        (s.accumulator(3, dtype="float32"), "3 columns of float64 and 3 of float32"),
        (s.accumulator(3).update(a[50:150], offset=50), "rows 50 to 150 overlap rows 50 to 100"),
        (acc, "rows 0 to 100 overlap rows 0 to 100"),
    ]:
        with pytest.raises(ValueError, match=message):
            acc += wrong
        with pytest.raises(ValueError, match=message):
            acc + wrong
        assert state(acc) == before


def test_dtypes():
    """The first block decides, or the argument; nothing is lost silently."""
    s, a = make("stack8", K, M), sketched.data(M, 2, dtype="float32")
    acc = s.accumulator(2).update(a[:100].astype(float), offset=0).update(a[100:], offset=100)
    same_bits(acc.result(), s @ a.astype(float))
    acc = s.accumulator(2).update(a[:100], offset=0)
    with pytest.raises(TypeError, match=r"is of float64 and the sum of float32; .*dtype='float64'"):
        acc.update(a[100:].astype(float), offset=100)
    wide = s.accumulator(2, dtype="complex128")
    wide.update(a[:100], offset=0).update(a[100:].astype("complex64"), offset=100)
    same_bits(wide.result(), s @ a.astype(complex))
    counts = np.arange(M)[:, None] % [7, 5]
    same_bits(s.accumulator(2).update(counts, offset=0).result(), s @ counts)
    raised = lk.sketch.SparseStack(K, M, rng=5, dtype="float64")
    for block in (a, scipy.sparse.csr_array(a)):
        same_bits(raised.accumulator(2).update(block, offset=0).result(), raised @ a)
    for dtype in ("float32", "complex64"):
        empty = s.accumulator(2, dtype=dtype).result(partial=True)
        assert empty.dtype == dtype
    with pytest.raises(ValueError, match=r"dtype: must be one of .* got 'int64'"):
        s.accumulator(2, dtype="int64")
    torch = pytest.importorskip("torch")
    assert s.accumulator(2, dtype=torch.float32).result(partial=True).dtype == np.float32


def test_libraries_do_not_mix():
    strict = pytest.importorskip("array_api_strict")
    s, a = make("stack8", K, M), np.ones((M, 2))
    acc = s.accumulator(2).update(a[:100], offset=0)
    other = s.accumulator(2).update(strict.asarray(a[100:]), offset=100)
    before = state(acc)
    with pytest.raises(TypeError, match="block: is of array_api_strict and the sum of numpy"):
        acc.update(strict.asarray(a[100:]), offset=100)
    with pytest.raises(TypeError, match=r"acc \+= other: is of array_api_strict and the sum of nu"):
        acc += other
    assert state(acc) == before
    same_bits(acc.update(scipy.sparse.csr_array(a[100:]), offset=100).result(), s @ a)


def test_nan_where_it_is_let_through():
    s, a = make("stack8", K, M), sketched.data(M, 2)
    a[3, 1] = np.inf
    with lk.config_context(check_finite=False):
        acc = s.accumulator(2).update(a, offset=0)
        same_bits(acc.result(), s @ a)
    with lk.config_context(on_fail="nan"):
        same_bits(s.accumulator(2).update(a, offset=0).result(), s @ a)
    with lk.config_context(on_fail="warn"):
        with pytest.warns(lk.errors.ConvergenceWarning, match="block: rows 0 to 300 hold") as told:
            acc = s.accumulator(2).update(a, offset=0)
        assert told[0].filename == __file__
        with pytest.warns(lk.errors.ConvergenceWarning, match="result: a block holds NaN"):
            acc.result()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "rows"])
def test_sums_that_overflow(family):
    """As the product does, and without NumPy's warnings."""
    s, huge = make(family, K, M), np.full((M, 2), 1e308)
    acc = s.accumulator(2).update(huge[200:], offset=200).update(huge[:200], offset=0)
    for call in (lambda: s @ huge, acc.result):
        with pytest.raises(lk.errors.NonFiniteError, match=r"a.* holds .*too large to add"):
            call()


# --- Travel --------------------------------------------------------------------------------------


@families
def test_pickles_copies_and_states(family):
    s, a = make(family, K, M), sketched.data(M, 3)
    acc = s.accumulator(3).update(a[:100], offset=0).update(a[200:250], offset=200)
    fresh = s.accumulator(3)
    fresh.load_state_dict(acc.state_dict())
    for same in (pickle.loads(pickle.dumps(acc)), copy.deepcopy(acc), fresh):
        assert same.missing == acc.missing
        assert repr(same) == repr(acc)
        same.update(a[100:200], offset=100).update(a[250:], offset=250)
        close(same.result(), s, a)
    # none of them was one with the first
    assert acc.missing == [(100, 200), (250, 300)]
    assert "d=3, 150 rows" in repr(acc)
    for part, name in ((s[:, 1:], "m"), (s[:, : M - 1], "m")):
        with pytest.raises(ValueError, match=f"state: is of a sketch with {name} = 300, not 299"):
            part.accumulator(3).load_state_dict(acc.state_dict())
    if family != "rows":
        with pytest.raises(ValueError, match=r"state: is of a sketch with key = \["):
            make(family, K, M, rng=6).accumulator(3).load_state_dict(acc.state_dict())
    with pytest.raises(ValueError, match="with d = 3, not 4"):
        s.accumulator(4).load_state_dict(acc.state_dict())


def test_states_are_plain():
    m = 3 * BLOCK
    s = lk.sketch.SparseStack(16, m, rng=0)
    acc = s.accumulator(1)
    for low in (0, 2 * BLOCK):
        acc.update(np.ones((BLOCK + 5, 1))[: m - low], offset=low)

    def plain(x):
        if isinstance(x, dict):
            return all(isinstance(key, str | int) and plain(value) for key, value in x.items())
        if isinstance(x, list | tuple):
            return all(map(plain, x))
        return x is None or isinstance(x, str | int | float | np.ndarray)

    assert plain(acc.state_dict())


@families
def test_other_libraries(family, xp):
    """Blocks of a library give results of it, also after a merge; not all need be of it."""
    s, a = make(family, K, M), sketched.data(M, 2)
    one = s.accumulator(2).update(xp.asarray(a[:100].copy()), offset=0)
    two = s.accumulator(2).update(xp.asarray(a[100:].copy()), offset=100)
    for acc in (one + two, two + one, pickle.loads(pickle.dumps(one)) + two):
        got = acc.result()
        assert type(got) is type(xp.asarray(a))
        close(got, s, a)
    same_bits(np.asarray((one + two).result()), np.asarray((two + one).result()))
