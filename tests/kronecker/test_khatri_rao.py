"""Khatri-Rao products and products with them: against columns of `numpy.kron`, within bounds."""

import functools
import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.linalg

import linalgk as lk
from linalgk.errors import NonFiniteError
from linalgk.kronecker import _blocks, _khatri_rao
from linalgk.kronecker._khatri_rao import choose_method, khatri_rao, khatri_rao_matmul

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}


def draw(rng, shape, dtype="float64"):
    z = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        z = z + 1j * rng.standard_normal(shape)
    return z.astype(dtype)


def formed(mats):
    """Column by column, in extended precision."""
    mats = [np.asarray(a, np.result_type(a, np.longdouble)) for a in mats]
    columns = range(mats[0].shape[1])
    return np.stack([functools.reduce(np.kron, [a[:, r] for a in mats]) for r in columns], axis=1)


def within(y, mats, x, trans=False):
    """Whether ``|y - K x|`` is below the bound of the docstring, entry by entry."""
    k = formed(mats)
    k = k.T if trans else k
    size = np.abs(k) @ np.abs(x).astype(np.longdouble)
    terms = k.shape[1] + len(mats)
    # sums of complex numbers have four times the error of real ones
    unit = EPS[y.dtype.name] / 2 * (4 if y.dtype.kind == "c" else 1)
    error = np.abs(y - k @ x.astype(k.dtype))
    return y.shape == error.shape and bool((error <= terms * unit * size).all())


def cases(rng, count):
    """Sizes of one to four matrices, and a number of columns."""
    for _ in range(count):
        sizes = [int(v) for v in rng.integers(1, 9, rng.integers(1, 5))]
        yield sizes, int(rng.integers(1, 7))


# --- Values --------------------------------------------------------------------------------------


def test_columns_are_kronecker_products(dtype, rng):
    for sizes, rank in cases(rng, 40):
        mats = [draw(rng, (n, rank), dtype) for n in sizes]
        y, exact = khatri_rao(mats), formed(mats)
        assert y.dtype == dtype
        assert y.shape == (math.prod(sizes), rank)
        unit = EPS[dtype] * (4 if y.dtype.kind == "c" else 1)
        assert (np.abs(y - exact) <= len(sizes) * unit * np.abs(exact)).all()


def test_two_are_those_of_scipy(rng):
    a, b = draw(rng, (7, 5)), draw(rng, (4, 5))
    assert np.array_equal(khatri_rao([a, b]), scipy.linalg.khatri_rao(a, b))


def test_it_is_associative_and_has_the_gram_of_a_hadamard_product(rng):
    a, b, c = (rng.integers(-9, 9, (n, 4)) for n in (3, 5, 2))
    k = khatri_rao([a, b, c])
    assert np.array_equal(k, khatri_rao([khatri_rao([a, b]), c]))
    assert np.array_equal(k.T @ k, (a.T @ a) * (b.T @ b) * (c.T @ c))


@pytest.mark.parametrize("trans", [False, True])
def test_products_of_any_sizes(trans, dtype, rng):
    for sizes, rank in cases(rng, 50):
        mats = [draw(rng, (n, rank), dtype) for n in sizes]
        k = int(rng.choice([1, 1, 2, 3, 5, 9, 30]))
        x = draw(rng, (math.prod(sizes) if trans else rank, k), dtype)
        y = khatri_rao_matmul(mats, x, trans=trans)
        assert y.dtype == dtype
        assert within(y, mats, x, trans), (sizes, rank, k)
        v = khatri_rao_matmul(mats, x[:, 0], trans=trans)
        assert v.shape == y.shape[:1]
        assert within(v[:, None], mats, x[:, :1], trans), (sizes, rank)


@pytest.mark.parametrize("method", ["fold", "scale", "form"])
def test_every_method_by_blocks(method, rng, monkeypatch):
    """Each does what all do, also where blocks end within a size, on the host and elsewhere."""
    strict = pytest.importorskip("array_api_strict")
    for near, block in [(1, 1), (1 << 15, 60), (130 * 6, 1 << 20)]:
        monkeypatch.setattr(_khatri_rao, "_NEAR", near)
        monkeypatch.setattr(_khatri_rao, "_BLOCK", block)
        monkeypatch.setattr(_blocks, "ENTRIES", block // _blocks.ELSEWHERE + 1)
        for p, q, k in [(5, 7, 1), (4, 150, 3), (1, 70, 2), (9, 1, 4)]:
            a, b, x = draw(rng, (p, 6)), draw(rng, (q, 6)), draw(rng, (6, k))
            y = _khatri_rao._by_blocks(method, a, b, x, None)
            assert within(y, [a, b], x), (near, block, p, q, k)
            out = np.full((p * q, k), np.nan)
            assert _khatri_rao._by_blocks(method, a, b, x, out) is out
            assert np.array_equal(out, y)
            other = _khatri_rao._by_blocks(method, *map(strict.asarray, (a, b, x)), None)
            assert within(np.asarray(other), [a, b], x), (near, block, p, q, k)


def test_choices():
    assert choose_method([5], 2)[:2] == ("matmul", 1)
    assert choose_method([50, 60], 1)[:2] == ("fold", 1)
    assert choose_method([50, 60], 30)[:2] == ("scale", 1)
    assert choose_method([50, 60], 100)[:2] == ("form", 1)
    assert choose_method([5000, 2], 2)[:2] == ("form", 1)
    # the group that is scaled is the small one
    assert choose_method([10, 100, 3], 16)[1] == 1
    assert choose_method([4, 5, 1000], 1)[1] == 2
    # the transpose contracts the larger group first
    assert choose_method([10, 10, 2000], 1, trans=True) == (
        "contract", 2, "the last 1 matrices are contracted first",
    )  # fmt: skip


@pytest.mark.parametrize("trans", [False, True])
def test_threads_change_no_bit(trans, rng, monkeypatch):
    monkeypatch.setattr(_khatri_rao, "_BLOCK", 2000)
    monkeypatch.setattr(_blocks, "ENTRIES", 4000)
    mats = [draw(rng, (n, 8)) for n in (30, 20, 40)]
    for k in (1, 6, 60):
        x = draw(rng, (24000 if trans else 8, k))
        found = []
        for threads in (1, 2, 3):
            with lk.config_context(num_threads=threads):
                found.append(khatri_rao_matmul(mats, x, trans=trans))
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], found[2])
        assert within(found[0], mats, x, trans)


@pytest.mark.parametrize("k", [1, 4, 24])
def test_memory_is_that_of_the_result_and_of_blocks(k, rng):
    mats = [draw(rng, (60, 32)) for _ in range(3)]
    x, y = draw(rng, (32, k)), draw(rng, (60**3, k))
    formed_ = 60**3 * 32 * 8
    for given, trans, result in [(x, False, 60**3 * k * 8), (y, True, 0)]:
        tracemalloc.start()
        khatri_rao_matmul(mats, given, trans=trans)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # A and B, and for each of two threads a few blocks
        allowed = 2 * 60**2 * 32 * 8 + 12 * 8 * max(_khatri_rao._BLOCK, _blocks.ENTRIES // 2)
        assert peak - result < allowed < 0.3 * formed_


# --- Arguments -----------------------------------------------------------------------------------


def test_batches_broadcast_as_those_of_matmul(rng):
    a, b = draw(rng, (3, 1, 4, 6)), draw(rng, (5, 7, 6))
    x, y = draw(rng, (3, 5, 6, 2)), draw(rng, (28, 2))
    k = khatri_rao([a, b])
    assert k.shape == (3, 5, 28, 6)
    z, t = khatri_rao_matmul([a, b], x), khatri_rao_matmul([a, b], y, trans=True)
    v = khatri_rao_matmul([a, b], x[0, 0, :, 0])
    assert z.shape == (3, 5, 28, 2)
    assert t.shape == (3, 5, 6, 2)
    assert v.shape == (3, 5, 28)
    for i in range(3):
        for j in range(5):
            pair = [a[i, 0], b[j]]
            assert np.array_equal(k[i, j], khatri_rao(pair))
            assert within(z[i, j], pair, x[i, j])
            assert within(t[i, j], pair, y, trans=True)
            assert within(v[i, j][:, None], pair, x[0, 0, :, :1])


@pytest.mark.parametrize("entries", [1, 100, 1 << 18])
@pytest.mark.parametrize("trans", [False, True])
def test_batches_by_members_and_by_blocks_of_them(trans, entries, rng, monkeypatch):
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.setattr(_blocks, "ENTRIES", entries)
    monkeypatch.setattr(_blocks, "ELSEWHERE", 1)
    a, b, x = draw(rng, (7, 3, 2)), draw(rng, (4, 2)), draw(rng, (7, 12 if trans else 2, 5))
    for xp, shared in itertools.product((np, strict), (False, True)):
        mats = [a[0] if shared else a, b]
        y = khatri_rao_matmul([xp.asarray(m) for m in mats], xp.asarray(x), trans=trans)
        for i in range(7):
            pair = [a[0 if shared else i], b]
            assert within(np.asarray(y)[i, ...], pair, x[i], trans)


def test_layouts_are_read_and_never_written(rng):
    big = draw(rng, (40, 12))
    views = [big[::2, ::2], np.asfortranarray(big[:20, :6]), big[19::-1, 6:], big.T[:12, :6]]
    mats = [views[0], views[1][:5], views[2][:7]]
    k = khatri_rao([m.copy() for m in mats])
    before = big.copy()
    for m in [*mats, *views]:
        m.flags.writeable = False
    assert np.array_equal(khatri_rao(mats), k)
    for x in (views[0][:6, :3], np.asfortranarray(big[:6, :3]), big[5::-1, ::4]):
        assert within(khatri_rao_matmul(mats, x), mats, x)
    y = np.asfortranarray(draw(rng, (700, 4)))
    for x in (y, y[::-1, ::3], y[:, 0], y.T.copy().T):
        found = khatri_rao_matmul(mats, x, trans=True)
        assert within(found.reshape(6, -1), mats, x.reshape(700, -1), trans=True)
    assert np.array_equal(big, before)


def test_mixed_dtypes_promote_and_integers_are_exact(rng):
    a, b = draw(rng, (3, 2), "float32"), draw(rng, (4, 2), "complex128")
    assert khatri_rao([a, b]).dtype == np.complex128
    ints = [rng.integers(-9, 9, (n, 3)) for n in (4, 5)]
    x = rng.integers(-9, 9, (3, 2))
    y = khatri_rao_matmul(ints, x)
    assert y.dtype == np.float64
    assert np.array_equal(y, formed(ints) @ x)
    assert khatri_rao([[[1, 2]], [[3, 4]]]).tolist() == [[3.0, 8.0]]


def test_out(dtype, rng):
    mats = [draw(rng, (n, 3), dtype) for n in (4, 5, 2)]
    x, y = draw(rng, (3, 2), dtype), draw(rng, (40, 2), dtype)
    for function, args, options in [
        (khatri_rao, (mats,), {}),
        (khatri_rao, (mats[:1],), {}),
        (khatri_rao_matmul, (mats, x), {}),
        (khatri_rao_matmul, (mats, x[:, 0]), {}),
        (khatri_rao_matmul, (mats[:1], x), {}),
        (khatri_rao_matmul, (mats, y), {"trans": True}),
        (khatri_rao_matmul, (mats, x[None]), {}),
    ]:
        wanted = function(*args, **options)
        for out in (np.full_like(wanted, 9), np.full((*wanted.shape, 2), 9, dtype)[..., 0]):
            assert function(*args, **options, out=out) is out
            assert np.array_equal(out, wanted)


def test_half_precision_is_stored_and_not_computed_with(rng):
    torch = pytest.importorskip("torch")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    mats, x = [draw(rng, (8, 4), "float32") for _ in range(3)], draw(rng, (4, 3), "float32")
    for kind in (np.float16, ml_dtypes.bfloat16):
        rounded, z = [m.astype(kind) for m in mats], x.astype(kind)
        exact = khatri_rao_matmul([m.astype("f4") for m in rounded], z.astype("f4"))
        out = np.zeros((512, 3), kind)
        assert khatri_rao_matmul(rounded, z, out=out) is out
        assert np.array_equal(khatri_rao_matmul(rounded, z), exact.astype(kind))
        assert np.array_equal(out, exact.astype(kind))
        assert khatri_rao(rounded).dtype == kind
    half = [torch.tensor(m).bfloat16() for m in mats]
    room = torch.zeros((512, 3), dtype=torch.bfloat16)
    y = khatri_rao_matmul(half, torch.tensor(x).bfloat16())
    assert khatri_rao_matmul(half, torch.tensor(x).bfloat16(), out=room) is room
    assert np.array_equal(y.float().numpy(), out.astype("f4"))
    assert torch.equal(y, room)
    with pytest.raises(TypeError, match=r"out: must be a bfloat16 tensor of shape \(512, 3\)"):
        khatri_rao_matmul(half, torch.tensor(x).bfloat16(), out=room.float())


@pytest.mark.parametrize(
    ("shapes", "x"),
    [([(2, 3), (0, 3)], (3, 5)), ([(2, 0), (4, 0)], (0, 5)), ([(2, 3)], (3, 0)),
     ([(2, 3), (2, 3)], (0, 3, 4))],
)  # fmt: skip
def test_empty(shapes, x, xp):
    mats = [xp.ones(s, dtype=xp.float32) for s in shapes]
    n = math.prod(s[0] for s in shapes)
    k = khatri_rao(mats)
    y = khatri_rao_matmul(mats, xp.ones(x, dtype=xp.float32))
    t = khatri_rao_matmul(mats, xp.ones((*x[:-2], n, x[-1]), dtype=xp.float32), trans=True)
    assert tuple(k.shape) == (n, shapes[0][1])
    assert tuple(y.shape) == (*x[:-2], n, x[-1])
    assert tuple(t.shape) == (*x[:-2], shapes[0][1], x[-1])
    assert y.dtype == t.dtype == k.dtype == xp.float32
    assert float(xp.sum(y)) == 0.0


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_libraries_give_their_own_arrays(xp, dtype, rng):
    mats, x = [draw(rng, (n, 4), dtype) for n in (3, 5, 2)], draw(rng, (4, 6), dtype)
    given = [xp.asarray(m) for m in mats]
    k, y = khatri_rao(given), khatri_rao_matmul(given, xp.asarray(x))
    assert type(k) is type(y) is type(given[0])
    # complex numbers may be multiplied with fused operations
    np.testing.assert_allclose(np.asarray(k), khatri_rao(mats), rtol=0, atol=40 * EPS[dtype])
    assert within(np.asarray(y), mats, x)
    t = khatri_rao_matmul(given, y, trans=True)
    assert within(np.asarray(t), mats, np.asarray(y), trans=True)


def test_of_one_matrix_it_is_a_copy(xp):
    a = xp.ones((3, 2))
    k = khatri_rao([a])
    assert k is not a
    if xp is np:
        assert not np.shares_memory(k, a)


def test_a_device_keeps_its_arrays(cuda, rng):
    mats = [draw(rng, (n, 4)) for n in (3, 5, 20)]
    there = [cuda.array(m) for m in mats]
    assert np.array_equal(cuda.host(khatri_rao(there)), khatri_rao(mats))
    for trans, k in itertools.product((False, True), (1, 6, 70)):
        x = draw(rng, (300 if trans else 4, k))
        looks = cuda.looks
        y = khatri_rao_matmul(there, cuda.array(x), trans=trans, check_finite=False)
        assert cuda.looks == looks
        assert within(cuda.host(y), mats, x, trans)


def test_jax_traces_it(rng):
    jax = pytest.importorskip("jax")
    mats, x = [draw(rng, (n, 4), "float32") for n in (3, 20)], draw(rng, (4, 2), "float32")
    y = jax.jit(lambda m, z: khatri_rao_matmul(m, z))([*map(jax.numpy.asarray, mats)], x)
    assert within(np.asarray(y), mats, x)


# --- Bad input -----------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(rng):
    a, b = draw(rng, (3, 4)), draw(rng, (5, 4))
    with pytest.raises(ValueError, match=r"mats\[1\]: must have as many columns as mats\[0\], 4"):
        khatri_rao([a, b[:, :3]])
    with pytest.raises(ValueError, match="mats: needs at least 1 matrix, got 0"):
        khatri_rao([])
    with pytest.raises(TypeError, match="mats: must be a list of matrices, got one ndarray"):
        khatri_rao(a)
    with pytest.raises(ValueError, match=r"mats: batch shapes \(2,\), \(3,\) do not broadcast"):
        khatri_rao([np.ones((2, 3, 4)), np.ones((3, 3, 4))])
    with pytest.raises(ValueError, match="x: needs 4 rows, the columns of mats, got 15"):
        khatri_rao_matmul([a, b], np.ones((15, 2)))
    with pytest.raises(ValueError, match=r"x: needs 3 \* 5 = 15 entries, got 4"):
        khatri_rao_matmul([a, b], np.ones(4), trans=True)
    with pytest.raises(ValueError, match=r"mats, x: batch shapes \(2,\) and \(3,\)"):
        khatri_rao_matmul([np.ones((2, 3, 4))], np.ones((3, 4, 1)))
    with pytest.raises(ValueError, match="got a number"):
        khatri_rao_matmul([a], np.float64(2))
    with pytest.raises(NonFiniteError, match=r"mats\[1\]: holds NaN or infinity"):
        khatri_rao_matmul([a, b * np.inf], np.ones(4))
    bad = b.copy()
    bad[2, 1] = np.nan
    y = khatri_rao_matmul([a, bad], np.ones(4), check_finite=False).reshape(3, 5)
    assert np.array_equal(np.isnan(y), np.broadcast_to(np.arange(5) == 2, (3, 5)))
    assert np.isnan(khatri_rao([a, bad])).any(axis=0).tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match=r"out: must have shape \(15, 4\)"):
        khatri_rao([a, b], out=np.ones((15, 3)))
    with pytest.raises(ValueError, match="out: overlaps"):
        khatri_rao([a], out=a)
    with pytest.raises(TypeError, match="dtype must be"):
        khatri_rao([a.astype(object)])


def test_libraries_do_not_mix_and_gradients_are_not_lost():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="must share one library"):
        khatri_rao([torch.ones((3, 2)), np.ones((3, 2))])
    with pytest.raises(TypeError, match="requires grad"):
        khatri_rao_matmul([torch.ones((3, 2), requires_grad=True)], torch.ones(2))


# --- Explanations --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "medium"])
def test_samples_and_explanations(size):
    args, options = _khatri_rao.sample_khatri_rao(size, rng=0)
    k = khatri_rao(*args, **options)
    said = _khatri_rao.explain_khatri_rao(*args, **options)
    assert said.flops == math.prod(k.shape)
    args, options = _khatri_rao.sample_khatri_rao_matmul(size, rng=0)
    y = khatri_rao_matmul(*args, **options)
    said = _khatri_rao.explain_khatri_rao_matmul(*args, **options)
    assert said.method in _khatri_rao.METHODS
    assert said.flops >= 2 * math.prod(y.shape) * args[1].shape[0]
    assert said.reason
