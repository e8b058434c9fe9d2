"""`kron_matmul`: against `numpy.kron`, for any sizes, layouts, dtypes and libraries."""

import functools
import math

import numpy as np
import pytest
from linalgk_kernels.cpu import kronecker_product as kernel

import linalgk as lk
from linalgk.errors import NonFiniteError
from linalgk.kronecker import _ops, _product

WIDE = {"float32": "float64", "float64": "float64", "complex64": "complex128"}


def draw(rng, shape, dtype):
    """Numbers of a dtype."""
    z = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        z = z + 1j * rng.standard_normal(shape)
    return z.astype(dtype)


def dense(factors):
    """The product, formed."""
    return functools.reduce(np.kron, [np.asarray(f) for f in factors])


def within(y, factors, x, dtype):
    """Whether ``|y - K x|`` is below the bound of the docstring, entry by entry.

    Factors that are multiplied out come to their sizes' product, at most 64 numbers a mode; sums
    of complex numbers have four times the error of real ones.
    """
    exact = dense([f.astype(np.clongdouble) for f in factors]) @ x.astype(np.clongdouble)
    size = dense([abs(f).astype(np.longdouble) for f in factors]) @ abs(x).astype(np.longdouble)
    terms = sum(f.shape[-1] for f in factors) + 64 + len(factors)
    unit = np.finfo(dtype).eps / 2 * (4 if np.dtype(dtype).kind == "c" else 1)
    return bool((abs(y - exact) <= terms * unit * size).all())


def cases(rng, count, limit=400):
    """Lists of shapes whose product is small enough to be formed."""
    while count:
        n = rng.integers(1, 6)
        shapes = [tuple(int(v) for v in rng.integers(1, 9, 2)) for _ in range(n)]
        if rng.random() < 0.4:
            shapes = [(p, p) for p, _ in shapes]
        if math.prod(max(s) for s in shapes) <= limit:
            count -= 1
            yield shapes


# --- Values --------------------------------------------------------------------------------------


def test_products_of_any_sizes(dtype, rng):
    for shapes in cases(rng, 40):
        factors = [draw(rng, s, dtype) for s in shapes]
        x = draw(rng, (math.prod(q for _, q in shapes), int(rng.integers(1, 20))), dtype)
        y = lk.kron_matmul(factors, x)
        assert y.dtype == dtype
        assert within(y, factors, x, dtype), shapes
        left = draw(rng, (int(rng.integers(1, 20)), math.prod(p for p, _ in shapes)), dtype)
        z = lk.kron_matmul(factors, left, side="right")
        assert within(z.T, [f.T for f in factors], left.T, dtype), shapes
        v = lk.kron_matmul(factors, x[:, 0])
        assert v.shape == y.shape[:1]
        assert within(v[:, None], factors, x[:, :1], dtype), shapes


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [([2] * 12, 3), ([3] * 7, 1), ([5] * 5, 16), ([3, 5, 7, 11], 5), ([16] * 3, 1), ([33, 70], 4)],
)
def test_larger_products_against_modes_in_higher_precision(sizes, rows, dtype, rng):
    factors = [draw(rng, (n, n), dtype) for n in sizes]
    x = draw(rng, (rows, math.prod(sizes)), dtype)
    wide = "complex256" if np.dtype(dtype).kind == "c" else "float128"
    exact = _ops.kron_matmul(
        x.astype(wide)[:, :, None], tuple(f.T.astype(wide)[None] for f in factors)
    )[..., 0]
    size = _ops.kron_matmul(
        abs(x).astype("float128")[:, :, None],
        tuple(abs(f.T).astype("float128")[None] for f in factors),
    )[..., 0]
    terms = sum(sizes) + 64 + len(sizes)
    unit = np.finfo(dtype).eps / 2 * (4 if np.dtype(dtype).kind == "c" else 1)
    for threads in (1, 2):
        with lk.config_context(num_threads=threads):
            y = lk.kron_matmul(factors, x, side="right")
        assert (abs(y - exact) <= terms * unit * size).all()


def test_every_way_through_the_kernel(rng, monkeypatch):
    """Small caches make many passes, blocks of numbers and intermediate results of small data."""
    for limits in [(2048, 1 << 22, 64, 0, 0), (4096, 2000, 128, 0, 0), (1024, 100, 64, 0, 0)]:
        for name, value in zip(("TILE", "ROW", "RUN", "ALONE", "SHARED"), limits, strict=True):
            monkeypatch.setattr(kernel, name, value)
        kernel.planned.cache_clear()
        for shapes in cases(rng, 60, 3000):
            dtype = str(rng.choice(["float32", "float64", "complex64", "complex128"]))
            sets = int(rng.choice([1, 1, 2, 3]))
            b, a = sets * int(rng.integers(1, 9)), int(rng.choice([1, 1, 2, 3, 17, 40]))
            factors = tuple(draw(rng, (sets, *s), dtype) for s in shapes)
            x = draw(rng, (b, math.prod(q for _, q in shapes), a), dtype)
            y = kernel.kron_matmul(x, factors, int(rng.integers(1, 4)))
            wide = "complex128" if np.dtype(dtype).kind == "c" else "float64"
            exact = _ops.kron_matmul(x.astype(wide), tuple(f.astype(wide) for f in factors))
            size = _ops.kron_matmul(
                abs(x).astype(wide), tuple(abs(f).astype(wide) for f in factors)
            )
            terms = 2 * (sum(q for _, q in shapes) + 64 + len(shapes))
            unit = np.finfo(dtype).eps / 2 * (4 if np.dtype(dtype).kind == "c" else 1)
            assert (abs(y - exact) <= terms * unit * size).all(), (shapes, b, sets, a, dtype)
    kernel.planned.cache_clear()


def test_threads_change_no_bit(dtype, rng):
    for sizes, rows in [([8] * 5, 1), ([8] * 4, 40), ([3, 40, 5, 6], 7)]:
        factors = [draw(rng, (n, n), dtype) for n in sizes]
        x = draw(rng, (rows, math.prod(sizes)), dtype)
        found = []
        for threads in (1, 2, 3):
            with lk.config_context(num_threads=threads):
                found.append(lk.kron_matmul(factors, x, side="right"))
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], found[2])


def test_every_row_is_what_it_is_alone(rng):
    factors = [draw(rng, (n, n), "float64") for n in (8, 8, 8)]
    x = draw(rng, (50, 512), "float64")
    x[7, 100] = np.nan
    y = lk.kron_matmul(factors, x, side="right")
    bad = np.isnan(y).any(axis=1)
    assert bad[7]
    assert not np.delete(bad, 7).any()


# --- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [True, "T", "C"])
def test_transposed_factors(flag, dtype, rng):
    shapes = [(3, 2), (4, 4), (2, 5)]
    factors = [draw(rng, s, dtype) for s in shapes]
    flags = [flag, False, flag]
    turned = [
        f if not t else f.conj().T if t == "C" else f.T for f, t in zip(factors, flags, strict=True)
    ]
    x = draw(rng, (math.prod(f.shape[1] for f in turned), 3), dtype)
    assert within(lk.kron_matmul(factors, x, trans=flags), turned, x, dtype)
    every = [f.conj().T if flag == "C" else f.T for f in factors]
    x = draw(rng, (math.prod(f.shape[1] for f in every), 3), dtype)
    assert within(lk.kron_matmul(factors, x, trans=flag), every, x, dtype)


def test_alpha_beta_out(rng):
    factors = [draw(rng, s, "float64") for s in [(3, 3), (4, 4)]]
    x, k = draw(rng, (12, 5), "float64"), dense(factors)
    out = np.ones((12, 5))
    assert lk.kron_matmul(factors, x, alpha=2, beta=-3, out=out) is out
    np.testing.assert_allclose(out, 2 * k @ x - 3, rtol=0, atol=1e-13)
    assert lk.kron_matmul(factors, x, out=out) is out
    np.testing.assert_allclose(out, k @ x, rtol=0, atol=1e-13)
    turned = np.empty((5, 12)).T
    lk.kron_matmul(factors, x, out=turned)
    np.testing.assert_allclose(turned, k @ x, rtol=0, atol=1e-13)
    v = np.empty(12)
    assert lk.kron_matmul(factors, x[:, 0], side="right", out=v) is v
    np.testing.assert_allclose(v, x[:, 0] @ k, rtol=0, atol=1e-13)
    assert lk.kron_matmul(factors, x.astype("float32"), alpha=np.float64(2)).dtype == np.float64
    single = [f.astype("float32") for f in factors]
    assert lk.kron_matmul(single, x.astype("float32"), alpha=np.float64(2)).dtype == np.float32
    complex_ = lk.kron_matmul(single, x.astype("float32"), alpha=1j)
    assert complex_.dtype == np.complex64
    np.testing.assert_allclose(complex_, 1j * (k @ x), rtol=0, atol=1e-4)


def test_batches_broadcast_as_those_of_matmul(rng):
    a, b = draw(rng, (3, 1, 2, 4), "float64"), draw(rng, (5, 3, 3), "float64")
    x = draw(rng, (3, 5, 12, 2), "float64")
    y = lk.kron_matmul([a, b], x)
    z = lk.kron_matmul([a, b], x[0, 0, :, 0])
    r = lk.kron_matmul([a, b], x[:, :, :6].swapaxes(-1, -2), side="right")
    assert y.shape == (3, 5, 6, 2)
    assert z.shape == (3, 5, 6)
    assert r.shape == (3, 5, 2, 12)
    for i in range(3):
        for j in range(5):
            k = np.kron(a[i, 0], b[j])
            np.testing.assert_allclose(y[i, j], k @ x[i, j], rtol=0, atol=1e-13)
            np.testing.assert_allclose(z[i, j], k @ x[0, 0, :, 0], rtol=0, atol=1e-13)
            np.testing.assert_allclose(r[i, j], x[i, j, :6].T @ k, rtol=0, atol=1e-13)


def test_layouts_are_read_and_never_written(rng):
    factors = [draw(rng, (4, 4), "float64") for _ in range(3)]
    k = dense(factors)
    big = draw(rng, (130, 10), "float64")
    for x in (big[::2][:64], np.asfortranarray(big[:64]), big[64:0:-1], big[:64, ::3]):
        x.flags.writeable = False
        before = x.copy()
        y = lk.kron_matmul([np.asfortranarray(f) for f in factors], x)
        np.testing.assert_allclose(y, k @ x, rtol=0, atol=1e-12)
        left = lk.kron_matmul(factors, x.T, side="right")
        np.testing.assert_allclose(left, x.T @ k, rtol=0, atol=1e-12)
        assert np.array_equal(x, before)


def test_mixed_dtypes_promote(rng):
    a, b = draw(rng, (3, 3), "float32"), draw(rng, (2, 2), "complex128")
    x = np.arange(6)
    y = lk.kron_matmul([a, b], x)
    assert y.dtype == np.complex128
    np.testing.assert_allclose(y, np.kron(a, b) @ x, rtol=0, atol=1e-13)
    whole = lk.kron_matmul([[[1, 2], [3, 4]], [[0, 1]]], [1, 2, 3, 4])
    assert whole.dtype == np.float64
    assert whole.tolist() == [10.0, 22.0]


def test_integers_are_exact(rng):
    factors = [rng.integers(-9, 9, (4, 4)) for _ in range(5)]
    x = rng.integers(-9, 9, (1024, 3))
    assert np.array_equal(lk.kron_matmul(factors, x), dense(factors) @ x)


def test_half_precision_is_stored_and_not_computed_with(rng):
    torch = pytest.importorskip("torch")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    factors = [draw(rng, (8, 8), "float32") for _ in range(3)]
    x = draw(rng, (512, 4), "float32")
    for kind in (np.float16, ml_dtypes.bfloat16):
        rounded = [f.astype(kind) for f in factors]
        y = lk.kron_matmul(rounded, x.astype(kind))
        exact = lk.kron_matmul([f.astype("f4") for f in rounded], x.astype(kind).astype("f4"))
        assert y.dtype == kind
        assert np.array_equal(y, exact.astype(kind))
    half = lk.kron_matmul([torch.tensor(f).bfloat16() for f in factors], torch.tensor(x).bfloat16())
    assert half.dtype == torch.bfloat16
    assert np.array_equal(half.float().numpy(), y.astype("f4"))


@pytest.mark.parametrize(
    ("shapes", "x"),
    [
        ([(2, 3), (4, 0)], (0, 5)),
        ([(0, 3), (4, 2)], (6, 5)),
        ([(2, 3)], (3, 0)),
        ([(2, 3)], (0, 3, 4)),
    ],
)
def test_empty(shapes, x, xp):
    factors = [xp.ones(s, dtype=xp.float32) for s in shapes]
    y = lk.kron_matmul(factors, xp.zeros(x, dtype=xp.float32))
    assert tuple(y.shape) == (*x[:-2], math.prod(s[0] for s in shapes), x[-1])
    assert y.dtype == xp.float32
    assert float(xp.sum(y)) == 0.0


def test_libraries_give_their_own_arrays(xp, dtype, rng):
    factors = [draw(rng, s, dtype) for s in [(3, 2), (4, 4), (2, 3)]]
    x = draw(rng, (2, 24, 5), dtype)
    given = [xp.asarray(f) for f in factors]
    y = lk.kron_matmul(given, xp.asarray(x))
    assert type(y) is type(given[0])
    back = np.asarray(y)
    for i in range(2):
        assert within(back[i], factors, x[i], dtype)
    v = lk.kron_matmul(given, xp.asarray(x[0, :, 0]))
    assert tuple(v.shape) == (24,)


# --- Bad input -----------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(rng):
    a, b = draw(rng, (3, 4), "float64"), draw(rng, (5, 2), "float64")
    with pytest.raises(ValueError, match=r"x: needs 4 \* 2 = 8 rows, got 7"):
        lk.kron_matmul([a, b], np.ones((7, 1)))
    with pytest.raises(ValueError, match=r"x: needs 3 \* 5 = 15 columns, got 8"):
        lk.kron_matmul([a, b], np.ones((1, 8)), side="right")
    with pytest.raises(ValueError, match="factors: needs at least 1 matrix, got 0"):
        lk.kron_matmul([], np.ones(3))
    with pytest.raises(TypeError, match="factors: must be a list of matrices, got one ndarray"):
        lk.kron_matmul(a, np.ones(4))
    with pytest.raises(ValueError, match=r"factors\[1\]: must have shape"):
        lk.kron_matmul([a, np.ones(3)], np.ones(12))
    with pytest.raises(ValueError, match="must be a vector or matrices, got a number"):
        lk.kron_matmul([a], np.float64(3))
    with pytest.raises(NonFiniteError, match=r"factors\[1\]: holds NaN or infinity"):
        lk.kron_matmul([a, b * np.nan], np.ones(8))
    assert np.isnan(lk.kron_matmul([a, b * np.nan], np.ones(8), check_finite=False)).all()
    with pytest.raises(ValueError, match="beta: other than 0 adds to out"):
        lk.kron_matmul([a, b], np.ones(8), beta=1)
    with pytest.raises(ValueError, match="trans: must be one flag, or one for each of 2 factors"):
        lk.kron_matmul([a, b], np.ones(8), trans=[True])
    with pytest.raises(ValueError, match=r"trans\[1\]: must be"):
        lk.kron_matmul([a, b], np.ones(8), trans=[True, "X"])
    with pytest.raises(ValueError, match="side: must be one of 'left', 'right'"):
        lk.kron_matmul([a, b], np.ones(8), side="up")
    with pytest.raises(ValueError, match=r"out: must have shape \(15,\)"):
        lk.kron_matmul([a, b], np.ones(8), out=np.ones(14))
    square = np.eye(8)
    with pytest.raises(ValueError, match="out: overlaps"):
        lk.kron_matmul([square], square, out=square)
    with pytest.raises(ValueError, match="do not broadcast"):
        lk.kron_matmul([np.ones((2, 3, 3))], np.ones((3, 3, 1)))
    with pytest.raises(TypeError, match="alpha: must be a number"):
        lk.kron_matmul([a, b], np.ones(8), alpha="2")
    with pytest.raises(TypeError, match="dtype must be"):
        lk.kron_matmul([a.astype(object)], np.ones(4))


def test_libraries_do_not_mix(rng):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="must share one library"):
        lk.kron_matmul([torch.eye(3)], np.ones(3))


# --- Plans and explanations ----------------------------------------------------------------------


def test_a_plan_of_specs_computes_into_out(rng):
    spec = lk.ArraySpec((8, 8), "float32")
    mul = lk.plan(lk.kron_matmul, [spec] * 4, lk.ArraySpec((6, 8**4), "float32"), side="right")
    factors = [draw(rng, (8, 8), "float32") for _ in range(4)]
    x = draw(rng, (6, 8**4), "float32")
    out = np.empty_like(x)
    assert mul(factors, x, out=out) is out
    assert np.array_equal(out, lk.kron_matmul(factors, x, side="right"))
    assert mul.status == 0
    assert mul.workspace_nbytes > 0
    assert "pass" in mul.explain().reason
    with pytest.raises(ValueError, match="make another plan"):
        mul(factors[:3], x)
    with pytest.raises(ValueError, match="not an option of a plan"):
        lk.plan(lk.kron_matmul, [spec], lk.ArraySpec((8,), "float32"), beta=1)


def test_explain_counts_what_is_done():
    spec = lk.ArraySpec((8, 8), "float64")
    said = lk.explain(
        lk.kron_matmul, [spec] * 5, lk.ArraySpec((256, 8**5), "float64"), side="right"
    )
    assert said.flops == 2 * 256 * 8**5 * 40
    assert said.bytes >= 2 * 256 * 8**5 * 8
    assert "cpu.kronecker_product" in said.implementations["kron_matmul"]
    with lk.config_context(backend="reference"):
        plain = lk.explain(lk.kron_matmul, [np.eye(2)] * 3, np.ones(8))
    assert plain.flops == 2 * 8 * 6
    assert "reference" in plain.implementations["kron_matmul"]


def test_tiny_factors_are_multiplied_out_and_large_ones_are_not():
    assert sum(kernel.merging(((2, 2),) * 20, 8, True)) == 20
    assert max(kernel.merging(((2, 2),) * 20, 8, True)) > 1
    assert kernel.merging(((32, 32),) * 3, 8, True) == (1, 1, 1)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_samples(size, xp):
    args, options = _product.sample(size, xp=xp, rng=0)
    assert lk.kron_matmul(*args, **options).shape == args[1].shape


def test_half_precision_has_an_out(rng):
    torch = pytest.importorskip("torch")
    factors = [torch.tensor(draw(rng, (4, 4), "float32")).bfloat16() for _ in range(2)]
    x = torch.tensor(draw(rng, (16, 3), "float32")).bfloat16()
    out = torch.ones((16, 3), dtype=torch.bfloat16)
    assert lk.kron_matmul(factors, x, out=out) is out
    assert torch.equal(out, lk.kron_matmul(factors, x))
    before = out.clone()
    lk.kron_matmul(factors, x, out=out, beta=2)
    exact = lk.kron_matmul([f.float() for f in factors], x.float()) + 2 * before.float()
    assert torch.equal(out, exact.bfloat16())


def test_jax_closes_over_arrays(rng):
    jax = pytest.importorskip("jax")
    factors = [jax.numpy.asarray(draw(rng, (3, 3), "float32")) for _ in range(2)]
    x = jax.numpy.asarray(draw(rng, (9, 2), "float32"))
    y = jax.jit(lambda x: lk.kron_matmul(factors, x))(x)
    assert float(abs(y - lk.kron_matmul(factors, x)).max()) < 1e-5
