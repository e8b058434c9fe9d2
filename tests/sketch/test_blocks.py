"""RowBlocks: what is read, how often, and what is refused."""

import numpy as np
import pytest
import scipy.sparse
import sketched
from sketched import make, same_bits

import linalgk as lk

K, M, N = 104, 300, 3


@pytest.fixture
def a():
    return sketched.data(M, N)


def pieces(a, step=70):
    return [a[i : i + step] for i in range(0, len(a), step)]


def test_a_sequence_is_read_again(a):
    s, blocks = make("stack8", K, M), lk.RowBlocks(pieces(a))
    assert not blocks.once
    for count in (1, 2):
        same_bits(s @ blocks, s @ a)
        assert blocks.passes == count
    assert blocks.shape == (None, N)
    assert repr(blocks) == "RowBlocks(shape=(None, 3), read again and again)"


def test_a_callable_is_called_for_each_pass(a):
    calls = []

    def source():
        calls.append(1)
        yield from pieces(a)

    s, blocks = make("stack8", K, None), lk.RowBlocks(source, shape=(M, N))
    assert (blocks.once, calls) == (False, [])
    same_bits(s @ blocks, s @ a)
    same_bits(s @ blocks, s @ a)
    assert (len(calls), blocks.passes) == (2, 2)
    assert blocks.shape == (M, N)


def test_an_iterator_is_read_once(a):
    s, blocks = make("stack8", K, M), lk.RowBlocks(iter(pieces(a)))
    assert blocks.once
    same_bits(s @ blocks, s @ a)
    with pytest.raises(RuntimeError, match=r"the iterator has been read; pass a sequence or a cal"):
        s @ blocks
    assert blocks.passes == 1
    assert repr(blocks) == "RowBlocks(shape=(None, 3), read once)"


@pytest.mark.parametrize("family", sketched.FAMILIES)
def test_every_family(family, a):
    s = make(family, K, M)
    sketched.close(s @ lk.RowBlocks(pieces(a)), s, a)


def test_blocks_of_any_kind(a, xp):
    """Lists are no blocks; sparse ones and arrays of other libraries are."""
    s = make("stack8", K, M)
    got = s @ lk.RowBlocks([xp.asarray(block.copy()) for block in pieces(a)])
    assert type(got) is type(xp.asarray(a))
    same_bits(np.asarray(got), s @ a)
    for form in (scipy.sparse.csr_array, scipy.sparse.coo_matrix):
        got = s @ lk.RowBlocks([form(block) for block in pieces(a)])
        assert type(got) is np.ndarray
        same_bits(got, s @ a)


def test_pairs_of_matrix_and_right_hand_side(a):
    b = sketched.data(M)
    s, pairs = make("stack8", K, M), list(zip(pieces(a), pieces(b), strict=True))
    same_bits(s @ lk.RowBlocks(pairs), s @ a)
    converted = list(lk.RowBlocks(pairs, dtype="float32"))
    assert {x.dtype for pair in converted for x in pair} == {np.dtype("float32")}
    with pytest.raises(ValueError, match="block 1 has 70 rows and its right-hand side 69"):
        list(lk.RowBlocks([pairs[0], (pairs[1][0], pairs[1][1][1:])]))


def test_blocks_are_converted(a, xp):
    s = make("stack8", K, M)
    blocks = lk.RowBlocks([xp.asarray(block.copy()) for block in pieces(a)], dtype="float32")
    assert blocks.dtype == np.float32
    same_bits(np.asarray(s @ blocks), s @ a.astype("float32"))
    counts = np.arange(M * N).reshape(M, N) % 11
    sparse = lk.RowBlocks([scipy.sparse.csr_array(x) for x in pieces(counts)], dtype="float32")
    same_bits(s @ sparse, s @ counts.astype("float32"))
    same_bits(s @ lk.RowBlocks(pieces(counts)), s @ counts)
    # without a conversion the first block decides, and nothing is lost
    with pytest.raises(TypeError, match="block: is of float64 and the sum of float32"):
        s @ lk.RowBlocks([a[:70].astype("float32"), a[70:]])


def test_no_blocks():
    s = make("stack8", K, None)
    for shape in ((0, N), (None, N)):
        got = s @ lk.RowBlocks([], shape=shape, dtype="float32")
        assert (got.shape, got.dtype) == ((K, N), np.float32)
        assert not got.any()
    assert (s @ lk.RowBlocks([], shape=(0, N), dtype="int64")).dtype == np.float64
    assert (s @ lk.RowBlocks([np.ones((0, 2)), np.ones((1, 2)), np.ones((0, 2))])).shape == (K, 2)
    with pytest.raises(ValueError, match=r"there are no blocks and no shape=\(m, n\)"):
        s @ lk.RowBlocks([])
    with pytest.raises(ValueError, match="rows 0 to 300 have not come"):
        make("stack8", K, M) @ lk.RowBlocks([], shape=(None, N))


def test_parts_begin_with_the_first_block(a):
    s = make("stack8", K, M + 55)[:, 55:]
    same_bits(s @ lk.RowBlocks(pieces(a)), s @ a)


def test_numbers_of_rows_that_do_not_meet(a):
    s = make("stack8", K, M)
    for source, shape, message in [
        (pieces(a), (M - 1, N), "operator has 300 columns and the blocks 299 rows"),
        (pieces(a[:-1]), None, "rows 299 to 300 have not come"),
        ([*pieces(a), a[:1]], None, "rows 300 to 301 do not fit an operator with 300 columns"),
        (pieces(a[:-1]), (M, N), "shape says 300 rows, the blocks have 299"),
        (pieces(a), (M, 4), r"block 0 must have shape \(rows, 4\), got \(70, 3\)"),
        ([a[:9], a[9:, :2]], None, r"block 1 must have shape \(rows, 3\), got \(291, 2\)"),
        ([a[0]], None, r"block 0 must have shape \(rows, n\), got \(3,\)"),
        ([[1.0, 2.0]], None, r"block 0 must have shape \(rows, n\), got \(\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            s @ lk.RowBlocks(source, shape=shape)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (3, {}, TypeError, "source: must be an iterable of row blocks.* got int"),
        (np.ones((4, 2)), {}, TypeError, r"source: an array is one block; .* \[a\] for one block"),
        ([], {"shape": (3,)}, ValueError, r"shape: must be \(m, n\) with m None"),
        ([], {"shape": (-1, 2)}, ValueError, r"shape\[0\]: must be at least 0, got -1"),
        ([], {"shape": (3, 2.0)}, TypeError, r"shape\[1\]: must be an integer, got 2.0"),
    ],
)
def test_what_is_no_source(source, options, error, message):
    with pytest.raises(error, match=message):
        lk.RowBlocks(source, **options)


def test_blocks_stand_on_the_right(a):
    s = make("stack8", K, M)
    with pytest.raises(TypeError, match=r"RowBlocks hold the data rows; write S @ blocks"):
        lk.RowBlocks(pieces(a)) @ s.T


def test_nan_in_a_block(a):
    a[100, 1] = np.nan
    with pytest.raises(lk.errors.NonFiniteError, match="rows 70 to 140 hold NaN or infinity in c"):
        make("stack8", K, M) @ lk.RowBlocks(pieces(a))
