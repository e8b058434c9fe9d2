"""`mttkrp`: against sums over all indices, for each way to split, order and block a tensor."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from linalgk_kernels.cpu import kronecker_mttkrp as kernel

import linalgk as lk
from linalgk.errors import NonFiniteError
from linalgk.kronecker import _blocks, _mttkrp, _mttkrp_ops, _mttkrp_steps
from linalgk.kronecker._khatri_rao import khatri_rao
from linalgk.kronecker._mttkrp import choose_method, mttkrp

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
SHAPES = [(3, 4), (1, 5), (4, 3, 5), (6, 1, 2), (2, 3, 4, 5), (5, 2, 1, 3, 2), (2,) * 7]


def draw(rng, shape, dtype="float64"):
    z = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        z = z + 1j * rng.standard_normal(shape)
    return z.astype(dtype)


def summed(x, mats, mode):
    """The definition, by einsum in extended precision."""
    kind = np.result_type(x, np.longdouble)
    d = x.ndim
    args = [x.astype(kind), list(range(d))]
    for i in range(d):
        if i != mode:
            args += [np.asarray(mats[i]).astype(kind), [i, d]]
    return np.einsum(*args, [mode, d])


def within(y, x, mats, mode):
    """Whether the error is below the bound of the docstring, entry by entry."""
    size = summed(np.abs(x), [None if a is None else np.abs(a) for a in mats], mode)
    terms = math.prod(x.shape) // x.shape[mode] + x.ndim
    unit = EPS[y.dtype.name] / 2 * (4 if y.dtype.kind == "c" else 1)
    error = np.abs(y - summed(x, mats, mode))
    return y.shape == error.shape and bool((error <= terms * unit * size).all())


# --- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_each_mode_and_all(shape, dtype, rng):
    x = draw(rng, shape, dtype)
    mats = [draw(rng, (n, 3), dtype) for n in shape]
    together = mttkrp(x, mats)
    assert len(together) == len(shape)
    for mode, y in enumerate(together):
        assert y.dtype == dtype
        assert within(y, x, mats, mode)
        alone = mttkrp(x, [None if i == mode else a for i, a in enumerate(mats)], mode)
        assert within(alone, x, mats, mode)
        assert np.array_equal(alone, mttkrp(x, mats, mode - len(shape)))


def test_it_is_the_unfolding_times_a_khatri_rao_product(rng):
    x = rng.integers(-9, 9, (4, 3, 5, 2))
    mats = [rng.integers(-9, 9, (n, 3)) for n in x.shape]
    for mode in range(4):
        unfolded = np.moveaxis(x, mode, 0).reshape(x.shape[mode], -1)
        k = khatri_rao(mats[:mode] + mats[mode + 1 :])
        assert np.array_equal(mttkrp(x, mats, mode), unfolded @ k)


def test_all_modes_agree_on_the_inner_product(rng):
    """``<Y_n, A_n>`` is the inner product of the tensor with the CP tensor, for every mode."""
    x = draw(rng, (9, 8, 7, 6))
    mats = [draw(rng, (n, 5)) for n in x.shape]
    cp = np.einsum("ar,br,cr,dr->abcd", *mats)
    for y, a in zip(mttkrp(x, mats), mats, strict=True):
        np.testing.assert_allclose(np.sum(y * a), np.sum(x * cp), rtol=1e-11)


@pytest.mark.parametrize("entries", [1, 40, 1 << 18])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_split_by_blocks(shape, entries, rng, monkeypatch):
    monkeypatch.setattr(_blocks, "ENTRIES", entries)
    x = draw(rng, shape)
    mats = [draw(rng, (n, 3)) for n in shape]
    for at in range(1, len(shape)):
        found = _mttkrp_steps.contracted(x, mats, at, range(len(shape)))
        for mode in range(len(shape)):
            assert within(found[mode], x, mats, mode)
            few = [None if i == mode else a for i, a in enumerate(mats)]
            alone = _mttkrp_steps.contracted(x, few, at, [mode])
            assert list(alone) == [mode]
            assert within(alone[mode], x, mats, mode)


@pytest.mark.parametrize("step", [3, 8, 256])
def test_the_kernel_is_its_reference(step, dtype, rng, monkeypatch):
    """For any tiles, strides and wants; what nobody wants is not looked at."""
    monkeypatch.setattr(kernel, "STEP", step)
    wide = {"float32": "float64", "complex64": "complex128"}.get(dtype, dtype)
    for trial in range(40):
        m, n, q, rank = (int(v) for v in rng.integers(1, 20, 4))
        rank = 70 if trial % 10 == 9 else rank
        big = draw(rng, (2 * m * n, 3 * q), dtype)
        x = [big[: m * n, :q], np.asfortranarray(big[: m * n, :q]), big[::-2, ::3],
             np.broadcast_to(big[:1, :q], (m * n, q))][trial % 4]  # fmt: skip
        given = [draw(rng, (k, rank), dtype) for k in (m, n, q)]
        given[0].flags.writeable = False
        wants = tuple(bool(v) for v in rng.integers(0, 2, 3))
        needs = [wants[1] or wants[2], wants[0] or wants[2] or not wants[1], wants[0] or wants[1]]
        few = [a if need else None for a, need in zip(given, needs, strict=True)]
        if few[0] is few[1] is None:
            continue
        found = kernel.mttkrp_block(x, *few, wants)
        sizes = [a.astype(wide) for a in (x, *given)]
        exact = _mttkrp_ops.mttkrp_block(*sizes, (True, True, True))
        bound = _mttkrp_ops.mttkrp_block(*map(np.abs, sizes), (True, True, True))
        for y, z, s, want in zip(found, exact, bound, wants, strict=True):
            assert (y is None) == (not want)
            if want:
                assert y.dtype == dtype
                terms = 4 * (m * n * q + 3) * EPS[dtype]
                assert (np.abs(y - z) <= terms * s).all()


def test_the_reference_on_request(rng):
    x, mats = draw(rng, (5, 6, 7, 3)), [draw(rng, (n, 4)) for n in (5, 6, 7, 3)]
    with lk.config_context(backend="reference"):
        found = mttkrp(x, mats)
        assert "reference" in _mttkrp.explain_mttkrp(x, mats).implementations["mttkrp_block"]
    assert "cpu" in _mttkrp.explain_mttkrp(x, mats).implementations["mttkrp_block"]
    for mode, y in enumerate(found):
        assert within(y, x, mats, mode)


def test_threads_change_no_bit(rng, monkeypatch):
    monkeypatch.setattr(_blocks, "ENTRIES", 1000)
    for shape in [(30, 20, 25), (7, 8, 9, 10), (4, 900)]:
        x, mats = draw(rng, shape), [draw(rng, (n, 6)) for n in shape]
        found = []
        for threads in (1, 2, 3):
            with lk.config_context(num_threads=threads):
                found.append([*mttkrp(x, mats), *(mttkrp(x, mats, i) for i in range(len(shape)))])
        for others in found[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_splits():
    """Two groups whose sizes, where they have several modes, are least together."""
    assert _mttkrp_steps.split((300, 300, 300)) == 2
    assert _mttkrp_steps.split((10, 300, 300)) == 2
    assert _mttkrp_steps.split((300, 300, 10)) == 1
    assert _mttkrp_steps.split((10, 10, 10, 10)) == 2
    assert _mttkrp_steps.split((5, 7)) == 1
    assert choose_method((30, 30, 30), None)[:2] == ("tree", 2)
    assert choose_method((30, 30, 30), 1)[:2] == ("first", 2)
    assert choose_method((30, 30, 30), 2)[:2] == ("last", 2)
    for shape in itertools.product((2, 5, 40), repeat=4):
        costs = {}
        for at in (1, 2, 3):
            p, q = math.prod(shape[:at]), math.prod(shape[at:])
            costs[at] = p * (at > 1) + q * (at < 3)
        assert costs[_mttkrp_steps.split(shape)] == min(costs.values())


# --- Memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["C", "F", "permuted", "every other", "reversed"])
def test_layouts_are_read_in_place(layout, rng):
    """Neither an unfolding nor the Khatri-Rao product of all others is ever there as a whole."""
    shape, rank = (40, 50, 30, 44), 8
    big = draw(rng, (2 * shape[0] if layout == "every other" else shape[0], *shape[1:]))
    x = {
        "C": lambda: big, "F": lambda: np.asfortranarray(big), "every other": lambda: big[::2],
        "permuted": lambda: np.ascontiguousarray(big.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2),
        "reversed": lambda: big[::-1, :, ::-1],
    }[layout]()  # fmt: skip
    x.flags.writeable = False
    mats = [draw(rng, (n, rank)) for n in shape]
    exact = [np.einsum("abcd,dr->abcr", x, mats[3])]
    exact = np.einsum("abcr,br,cr->ar", exact[0], mats[1], mats[2])
    for modes in (None, 0, 1, 2, 3):
        tracemalloc.start()
        y = mttkrp(x, mats, modes)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # for each of two threads and what waits for them a few blocks
        assert peak < 3 * 8 * _blocks.ENTRIES < 0.4 * x.nbytes
        if modes in (None, 0):
            y = y[0] if modes is None else y
            np.testing.assert_allclose(y, exact, rtol=0, atol=1e-11 * np.abs(exact).max())


def test_any_order_of_strides(rng, monkeypatch):
    monkeypatch.setattr(_blocks, "ENTRIES", 50)
    shape = (4, 3, 5, 2)
    base, mats = draw(rng, shape), [draw(rng, (n, 3)) for n in shape]
    for order in itertools.permutations(range(4)):
        x = np.ascontiguousarray(base.transpose(order)).transpose(np.argsort(order))
        assert np.array_equal(x, base)
        for view in (x, x[::-1, :, ::2], x[:, 1:2], np.broadcast_to(x[:, :1], shape)):
            few = [a[: view.shape[i]] for i, a in enumerate(mats)]
            for mode, y in enumerate(mttkrp(view, few)):
                assert within(y, view, few, mode)
                assert within(mttkrp(view, few, mode), view, few, mode)


# --- Arguments -----------------------------------------------------------------------------------


def test_mixed_dtypes_promote(rng):
    x, mats = draw(rng, (3, 4), "float32"), [draw(rng, (n, 2), "complex128") for n in (3, 4)]
    assert mttkrp(x, mats, 0).dtype == np.complex128
    assert mttkrp(rng.integers(0, 9, (3, 4)), [[[1], [2], [3]], None], 1).dtype == np.float64


def test_out(rng):
    x, mats = draw(rng, (3, 4, 5)), [draw(rng, (n, 2)) for n in (3, 4, 5)]
    wanted = mttkrp(x, mats)
    outs = [np.full((n, 2), np.nan) for n in (3, 4, 5)]
    assert mttkrp(x, mats, out=outs) is outs
    for y, z in zip(outs, wanted, strict=True):
        assert np.array_equal(y, z)
    out = np.full((2, 5), np.nan).T
    assert mttkrp(x, mats, 2, out=out) is out
    assert np.array_equal(out, mttkrp(x, mats, 2))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0, 2)])
def test_empty(shape, xp):
    x = xp.ones(shape, dtype=xp.float32)
    for rank in (2, 0):
        mats = [xp.ones((n, rank), dtype=xp.float32) for n in shape]
        for n, y in zip(shape, mttkrp(x, mats), strict=True):
            assert tuple(y.shape) == (n, rank)
            assert y.dtype == xp.float32
            assert float(xp.sum(y)) == 0.0


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_libraries_give_their_own_arrays(xp, dtype, rng):
    x, mats = draw(rng, (4, 5, 3), dtype), [draw(rng, (n, 2), dtype) for n in (4, 5, 3)]
    given = xp.asarray(x), [xp.asarray(a) for a in mats]
    for mode, y in enumerate(mttkrp(*given)):
        assert type(y) is type(given[0])
        assert within(np.asarray(y), x, mats, mode)
        assert within(np.asarray(mttkrp(*given, mode)), x, mats, mode)


def test_other_libraries_by_blocks(rng, monkeypatch):
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.setattr(_blocks, "ENTRIES", 1)
    x, mats = draw(rng, (9, 5, 8)), [draw(rng, (n, 2)) for n in (9, 5, 8)]
    for mode, y in enumerate(mttkrp(strict.asarray(x), [strict.asarray(a) for a in mats])):
        assert within(np.asarray(y), x, mats, mode)


def test_a_device_keeps_its_arrays(cuda, rng):
    x, mats = draw(rng, (4, 5, 3)), [draw(rng, (n, 2)) for n in (4, 5, 3)]
    there = cuda.array(x), [cuda.array(a) for a in mats]
    looks = cuda.looks
    found = mttkrp(*there, check_finite=False)
    assert cuda.looks == looks
    for mode, y in enumerate(found):
        assert within(cuda.host(y), x, mats, mode)
        assert within(cuda.host(mttkrp(*there, mode)), x, mats, mode)


def test_torch_tensors_in_any_order(rng):
    torch = pytest.importorskip("torch")
    x, mats = draw(rng, (4, 5, 3)), [draw(rng, (n, 2)) for n in (4, 5, 3)]
    turned = torch.asarray(x.transpose(2, 0, 1).copy()).permute(1, 2, 0)
    for mode, y in enumerate(mttkrp(turned, [torch.asarray(a) for a in mats])):
        assert y.is_contiguous()
        assert within(y.numpy(), x, mats, mode)
    half = mttkrp(turned.bfloat16(), [torch.asarray(a).bfloat16() for a in mats], 0)
    assert half.dtype == torch.bfloat16


def test_jax_traces_it(rng):
    jax = pytest.importorskip("jax")
    x, mats = draw(rng, (4, 5, 3), "float32"), [draw(rng, (n, 2), "float32") for n in (4, 5, 3)]
    arrays = jax.numpy.asarray(x), [jax.numpy.asarray(a) for a in mats]
    for mode, y in enumerate(jax.jit(lambda t, m: mttkrp(t, m))(*arrays)):
        assert within(np.asarray(y), x, mats, mode)


# --- Bad input -----------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(rng):
    x, mats = draw(rng, (3, 4, 5)), [draw(rng, (n, 2)) for n in (3, 4, 5)]
    with pytest.raises(ValueError, match=r"mats: needs 3 matrices, one for each mode of x, got 2"):
        mttkrp(x, mats[:2])
    with pytest.raises(
        ValueError, match=r"mats\[1\]: must have shape \(4, 2\), the size of mode 1"
    ):
        mttkrp(x, [mats[0], mats[2], mats[1]])
    with pytest.raises(ValueError, match=r"mats\[2\]: must have shape \(5, 2\)"):
        mttkrp(x, [*mats[:2], mats[2][:, :1]], 0)
    with pytest.raises(ValueError, match="only the matrix of the mode"):
        mttkrp(x, [None, *mats[1:]])
    with pytest.raises(ValueError, match="only the matrix of the mode"):
        mttkrp(x, [None, *mats[1:]], 1)
    with pytest.raises(ValueError, match="mode: must be less than 3"):
        mttkrp(x, mats, 3)
    with pytest.raises(ValueError, match="mode: must be at least -3"):
        mttkrp(x, mats, -4)
    with pytest.raises(TypeError, match="mode: must be an integer"):
        mttkrp(x, mats, "all")
    with pytest.raises(ValueError, match="x: must have two modes or more"):
        mttkrp(x[0, 0], mats[2:])
    with pytest.raises(TypeError, match="mats: must be a list of matrices, got one ndarray"):
        mttkrp(x, mats[0])
    with pytest.raises(NonFiniteError, match=r"mats\[2\]: holds NaN or infinity"):
        mttkrp(x, [None, mats[1], mats[2] * np.nan], 0)
    assert np.isnan(mttkrp(x, [None, mats[1], mats[2] * np.nan], 0, check_finite=False)).all()
    # the matrix of the mode is not read
    mttkrp(x, [mats[0] * np.nan, *mats[1:]], 0)
    with pytest.raises(TypeError, match="out: must be a list of 3 arrays"):
        mttkrp(x, mats, out=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"out: must have shape \(4, 2\)"):
        mttkrp(x, mats, 1, out=np.ones((3, 2)))
    with pytest.raises(ValueError, match="out: overlaps"):
        mttkrp(x, mats, 1, out=x[0, :, :2])


def test_gradients_are_not_lost():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        mttkrp(torch.ones((2, 3), requires_grad=True), [None, torch.ones((3, 1))], 0)


# --- Explanations --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "medium"])
def test_samples_and_explanations(size):
    args, options = _mttkrp.sample(size, rng=0)
    assert len(mttkrp(*args, **options)) == 3
    n, rank = math.prod(args[0].shape), args[1][0].shape[1]
    every, one = _mttkrp.explain_mttkrp(*args), _mttkrp.explain_mttkrp(*args, mode=1)
    assert 4 * n * rank <= every.flops <= 5 * n * rank
    assert 2 * n * rank <= one.flops <= 3 * n * rank
    assert every.method == "tree"
    assert one.method in ("first", "last")
