"""Sketches of every family for tests, data for them, and a Philox that shares no code with ours."""

import math

import numpy as np

import linalgk as lk

BLOCK = 1 << 14
DTYPES = ("float32", "float64", "complex64", "complex128")

# family -> (rows k, data rows m, seed or generator) -> operator; k = 104 suits every nnz
FAMILIES = {
    "stack1": lambda k, m, rng=5: lk.sketch.SparseStack(k, m, nnz=1, rng=rng),
    "stack4": lambda k, m, rng=5: lk.sketch.SparseStack(k, m, nnz=4, rng=rng),
    "stack8": lambda k, m, rng=5: lk.sketch.SparseStack(k, m, rng=rng),
    "stack13": lambda k, m, rng=5: lk.sketch.SparseStack(k, m, nnz=13, rng=rng),
    "count": lambda k, m, rng=5: lk.sketch.CountSketch(k, m, rng=rng),
    "gaussian": lambda k, m, rng=5: lk.sketch.Gaussian(k, m, rng=rng),
    "complex": lambda k, m, rng=5: lk.sketch.Gaussian(k, m, rng=rng, dtype="complex128"),
    "rademacher": lambda k, m, rng=5: lk.sketch.Rademacher(k, m, rng=rng),
    "srht": lambda k, m, rng=5: lk.sketch.SRHT(k, m, rng=rng),
    "srht_blocks": lambda k, m, rng=5: lk.sketch.SRHT(k, m, rng=rng, block=128),
    "srct": lambda k, m, rng=5: lk.sketch.SRCT(k, m, rng=rng),
    "rows": lambda k, m, rng=5: lk.sketch.RowSample(
        np.random.default_rng(rng).integers(0, m, k),
        np.random.default_rng(rng).standard_normal(k),
        m,
    ),
}
# Those whose products have the same bits whatever is done.
EXACT = ("stack4", "stack8", "stack13", "count", "srht", "srht_blocks")


def make(family, k, m, rng=5):
    return FAMILIES[family](k, m, rng)


def data(*shape, dtype="float64", seed=1):
    """Normal numbers of many magnitudes, so that another order of additions shows."""
    gen = np.random.default_rng(seed)
    x = gen.standard_normal(shape) * 10.0 ** gen.integers(-3, 4, shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * gen.standard_normal(shape)
    return x.astype(dtype)


def same_bits(x, y):
    """Equal in dtype, shape and every bit."""
    x, y = np.asarray(x), np.asarray(y)
    assert x.dtype == y.dtype
    assert x.shape == y.shape
    np.testing.assert_array_equal(bits(x), bits(y))


def bits(x):
    x = np.ascontiguousarray(x)
    return x.view(np.uint8 if x.dtype.itemsize == 16 else f"u{x.itemsize}")


def terms(s):
    """Rounding errors that meet in an entry of a product: one for each number that is added."""
    if isinstance(s, lk.sketch.SparseStack):
        return int(np.bincount(s.tosparse().tocoo().coords[0], minlength=1).max())
    if isinstance(s, lk.sketch.SRHT):
        return int(math.log2(s.block)) + s.shape[1] // s.block + 1
    if isinstance(s, lk.sketch.RowSample):
        return 1
    return s.shape[1]


def close(got, s, a, transpose=False):
    """Within the bound of sums: terms times eps times the product of absolute values."""
    got = np.asarray(got)
    eps = np.finfo(got.dtype).eps
    wide = np.clongdouble if got.dtype.kind == "c" else np.longdouble
    dense = s.toarray()
    dense = dense.T if transpose else dense
    a = np.asarray(a)
    assert got.shape == (dense @ np.zeros_like(a, "complex128")).shape
    error = abs(got - dense.astype(wide) @ a.astype(wide))
    count = dense.shape[1] if transpose else terms(s)
    bound = (count + 8) * eps * (abs(dense) @ abs(a).astype("float64"))
    if isinstance(s, lk.sketch.SRCT):
        # of a Fourier transform the error is small beside the largest entry, not beside each
        bound = np.zeros_like(bound) + bound.max(axis=0, initial=0)
    assert (error <= bound).all(), (error - bound).max()


def philox(counter, key):
    """Ten rounds of Philox4x32, in whole numbers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF
        ]  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def call(key, j, sub, tag):
    """The words of a place: data row, number along the sketch, who draws."""
    return philox((j & 0xFFFFFFFF, j >> 32, sub, tag), key)
