"""Derivatives of products by hand: dense directional derivatives, the adjoint identity, batches."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from linalgk import _xp
from linalgk.kronecker import _derivative
from linalgk.kronecker._derivative import kron_matmul_jvp, kron_matmul_vjp

SIDES = ("left", "right")
EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}


def draw(rng, shape, dtype="float64"):
    z = rng.standard_normal(shape)
    return (z + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else z).astype(dtype)


def turned(f, flag):
    return f if flag in (None, "N", False) else f.mT if flag in ("T", True) else f.conj().mT


def dense(factors, flags=None):
    """The product in double precision, batched as matmul would."""
    k = np.ones((1, 1))
    for i, f in enumerate(factors):
        f = turned(f.astype(np.result_type(f, np.float64)), flags and flags[i])
        big = k[..., :, None, :, None] * f[..., None, :, None, :]
        shape = k.shape[-2] * f.shape[-2], k.shape[-1] * f.shape[-1]
        k = big.reshape(*big.shape[:-4], *shape)
    return k


def times(factors, x, side, flags=None):
    k = dense(factors, flags)
    return k @ x if side == "left" else x @ k


def directional(factors, x, ways, dx, side, flags=None):
    """The derivative, term by term: the product is linear in each argument."""
    total = times(factors, dx, side, flags)
    for i, way in enumerate(ways):
        total = total + times([*factors[:i], way, *factors[i + 1 :]], x, side, flags)
    return total


def pairing(x, y):
    return np.vdot(x, y).real


def bound(factors, *others, dtype):
    """Of the error: one rounding for each term of each inner product in turn, by norms."""
    count = sum(f.shape[-1] + f.shape[-2] for f in factors) + 2 * len(factors)
    sizes = [np.linalg.norm(np.asarray(y, np.complex128)) for y in (*factors, *others)]
    batch = [max(float(np.prod(y.shape[:-2])), 1.0) for y in factors]
    return 4 * count * EPS[dtype] * float(np.prod(sizes)) * max(batch)


def problem(rng, shapes, batches, xbatch, n, side, dtype, flags=None):
    factors = [draw(rng, (*b, *s), dtype) for b, s in zip(batches, shapes, strict=True)]
    flags = flags or ["N"] * len(shapes)
    sizes = [turned(np.empty(s), flag).shape for s, flag in zip(shapes, flags, strict=True)]
    rows = int(np.prod([s[0 if side == "right" else 1] for s in sizes]))
    x = draw(rng, (*xbatch, *((rows, n) if side == "left" else (n, rows))), dtype)
    return factors, x


BATCHES = [
    ([(), (), ()], ()),
    ([(), (), ()], (4,)),
    ([(2,), (), (1,)], (2,)),
    ([(3, 1), (1,), ()], (1, 2)),
    ([(3, 1), (2,), ()], ()),
    ([(1, 1), (), (1,)], (3,)),
    ([(2,), (2,), (2,)], (3, 1)),
]


# ---- both directions against the dense product ----


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("batches", BATCHES)
def test_dense_products(rng, dtype, side, batches):
    factors, x = problem(rng, [(3, 2), (2, 4), (4, 3)], *batches, 2, side, dtype)
    ways = [draw(rng, f.shape, dtype) for f in factors]
    dx = draw(rng, x.shape, dtype)
    value, derivative = kron_matmul_jvp(factors, x, ways, dx, side=side)
    want, dwant = times(factors, x, side), directional(factors, x, ways, dx, side)
    assert value.shape == derivative.shape == want.shape
    assert value.dtype == derivative.dtype == dtype
    assert np.abs(value - want).max() <= bound(factors, x, dtype=dtype)
    limit = sum(
        bound([*factors[:i], way, *factors[i + 1 :]], x, dtype=dtype)
        for i, way in enumerate(ways)
    ) + bound(factors, dx, dtype=dtype)  # fmt: skip
    assert np.abs(derivative - dwant).max() <= limit
    g = draw(rng, value.shape, dtype)
    again, by_factors, by_x = kron_matmul_vjp(factors, x, g, side=side)
    assert np.abs(again - want).max() <= bound(factors, x, dtype=dtype)
    k = dense(factors)
    by_dense = k.conj().mT @ g if side == "left" else g @ k.conj().mT
    extra = tuple(range(by_dense.ndim - x.ndim))
    by_dense = by_dense.sum(extra)
    axes = tuple(i for i in range(x.ndim - 2) if x.shape[i] == 1)
    by_dense = by_dense.sum(axes, keepdims=True)
    assert by_x.shape == x.shape
    assert np.abs(by_x - by_dense).max() <= bound(factors, g, dtype=dtype)
    for i, (d, f) in enumerate(zip(by_factors, factors, strict=True)):
        assert d.shape == f.shape
        assert d.dtype == dtype
        e = draw(rng, f.shape, dtype)
        moved = times([*factors[:i], e, *factors[i + 1 :]], x, side)
        limit = bound([*factors[:i], e, *factors[i + 1 :]], x, g, dtype=dtype)
        assert abs(pairing(g, moved) - pairing(d, e)) <= limit


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("trans", ["N", "T", "C", True, ["N", "T"], ["C", False]])
def test_turned_factors(rng, side, trans):
    dtype = "complex128"
    flags = list(trans) if isinstance(trans, list) else [trans] * 2
    factors, x = problem(rng, [(3, 2), (2, 4)], [(), ()], (), 3, side, dtype, flags)
    ways, dx = [draw(rng, f.shape, dtype) for f in factors], draw(rng, x.shape, dtype)
    value, derivative = kron_matmul_jvp(factors, x, ways, dx, side=side, trans=trans)
    np.testing.assert_allclose(value, times(factors, x, side, flags), atol=1e-12)
    want = directional(factors, x, ways, dx, side, flags)
    np.testing.assert_allclose(derivative, want, atol=1e-12)
    g = draw(rng, value.shape, dtype)
    _, by_factors, by_x = kron_matmul_vjp(factors, x, g, side=side, trans=trans)
    found = sum(pairing(d, e) for d, e in zip(by_factors, ways, strict=True)) + pairing(by_x, dx)
    assert found == pytest.approx(pairing(g, want), rel=1e-12)


def test_random_sizes(rng):
    """Any sizes, orders in memory, batches and directions: the adjoint identity."""
    for _ in range(60):
        count = int(rng.integers(1, 6))
        dtype = str(rng.choice(list(EPS)))
        side = str(rng.choice(SIDES))
        shapes = [tuple(int(n) for n in rng.integers(1, 5, 2)) for _ in range(count)]
        batches = [tuple(int(rng.choice([1, 2])) for _ in range(rng.integers(0, 3)))
                   for _ in range(count)]  # fmt: skip
        factors, x = problem(rng, shapes, batches, batches[0], int(rng.integers(1, 5)), side, dtype)
        # every second number of a larger array; a matrix by columns
        x = np.asfortranarray(x) if rng.integers(2) else np.repeat(x, 2, axis=-1)[..., ::2]
        factors = [np.asfortranarray(f) if rng.integers(2) else f for f in factors]
        ways, dx = [draw(rng, f.shape, dtype) for f in factors], draw(rng, x.shape, dtype)
        for y in (x, dx, *factors, *ways):
            y.flags.writeable = False
        value, derivative = kron_matmul_jvp(factors, x, ways, dx, side=side)
        g = draw(rng, value.shape, dtype)
        _, by_factors, by_x = kron_matmul_vjp(factors, x, g, side=side)
        pairs = [*zip(by_factors, ways, strict=True), (by_x, dx)]
        found = sum(pairing(d.astype(complex), e.astype(complex)) for d, e in pairs)
        limit = sum(
            bound([*factors[:i], way, *factors[i + 1 :]], x, g, dtype=dtype)
            for i, way in enumerate(ways)
        ) + bound(factors, dx, g, dtype=dtype)  # fmt: skip
        want = pairing(g.astype(complex), directional(factors, x, ways, dx, side))
        assert abs(found - want) <= limit
        assert abs(pairing(g.astype(complex), derivative.astype(complex)) - want) <= limit


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("size", [3, 50])
def test_every_way_of_contracting(rng, n, size):
    """Few columns behind a mode and many, one matrix before it and many."""
    factors = [draw(rng, (size, 2)), draw(rng, (2, size)), draw(rng, (3, 3))]
    x = draw(rng, (2 * size * 3, n))
    g = draw(rng, (size * 2 * 3, n))
    _, by_factors, _ = kron_matmul_vjp(factors, x, g)
    for i, d in enumerate(by_factors):
        e = draw(rng, d.shape)
        want = pairing(g, times([*factors[:i], e, *factors[i + 1 :]], x, "left"))
        assert pairing(d, e) == pytest.approx(want, rel=1e-10)


def test_only_what_is_wanted(rng, monkeypatch):
    """Factors that nobody asks for are not unfolded, and those side by side are one product."""
    factors = [draw(rng, (2, 2)) for _ in range(5)]
    x, g = draw(rng, (32, 2)), draw(rng, (32, 2))
    full = _derivative.factor_gradients(factors, x, g)
    calls = []
    inner = _derivative.KRON

    def counted(*args):
        calls.append(len(args[1]))
        return inner(*args)

    monkeypatch.setattr(_derivative, "KRON", counted)
    only = _derivative.factor_gradients(factors, x, g, wanted=[False, False, True, False, False])
    assert calls == [2, 2]
    assert [y is None for y in only] == [True, True, False, True, True]
    np.testing.assert_allclose(only[2], full[2], rtol=1e-13)
    calls.clear()
    assert _derivative.factor_gradients(factors, x, g, wanted=[False] * 5) == (None,) * 5
    assert not calls
    _derivative.gradients(factors, x, g)
    # 2 N - 1 products by one mode
    assert calls == [1] * 9


def test_factors_are_shared_by_the_batch_behind(rng):
    """Trailing axes of a batch that no factor has are no reason to copy factors."""
    factors = [draw(rng, (3, 1, 2, 2)), draw(rng, (1, 1, 4, 4))]
    flat = _derivative.flatten(factors, (3, 50), "left")
    assert [f.shape for f in flat.factors] == [(3, 2, 2), (3, 4, 4)]
    assert flat.full == (3, 50)
    flat = _derivative.flatten([factors[1]], (3, 50), "left")
    assert [f.shape for f in flat.factors] == [(1, 4, 4)]
    x = draw(rng, (3, 50, 8, 2))
    np.testing.assert_allclose(
        _derivative.product(factors, x), dense(factors) @ x, rtol=1e-12, atol=1e-12
    )


# ---- vectors, nothing, dtypes, libraries ----


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_vectors(rng, side, batch):
    factors = [draw(rng, (*batch, 3, 2)), draw(rng, (2, 4))]
    x = draw(rng, (8 if side == "left" else 6,))
    ways, dx = [draw(rng, f.shape) for f in factors], draw(rng, x.shape)
    value, derivative = kron_matmul_jvp(factors, x, ways, dx, side=side)
    wide = (lambda y: y[:, None]) if side == "left" else (lambda y: y[None, :])
    narrow = (lambda y: y[..., 0]) if side == "left" else (lambda y: y[..., 0, :])
    np.testing.assert_allclose(value, narrow(times(factors, wide(x), side)), rtol=1e-12)
    want = narrow(directional(factors, wide(x), ways, wide(dx), side))
    np.testing.assert_allclose(derivative, want, rtol=1e-11, atol=1e-12)
    g = draw(rng, value.shape)
    again, by_factors, by_x = kron_matmul_vjp(factors, x, g, side=side)
    assert again.shape == value.shape
    assert by_x.shape == x.shape
    found = sum(pairing(d, e) for d, e in zip(by_factors, ways, strict=True)) + pairing(by_x, dx)
    assert found == pytest.approx(pairing(g, want), rel=1e-11)


@pytest.mark.parametrize("side", SIDES)
def test_empty(side):
    for shape, batch, n in (((0, 3), (), 2), ((3, 0), (), 2), ((2, 2), (0,), 2), ((2, 2), (), 0)):
        factors = [np.ones((*batch, *shape)), np.ones((2, 3))]
        rows = shape[1] * 3 if side == "left" else shape[0] * 2
        x = np.ones((rows, n) if side == "left" else (n, rows))
        value = kron_matmul_jvp(factors, x, factors, x, side=side).derivative
        _, by_factors, by_x = kron_matmul_vjp(factors, x, np.ones(value.shape), side=side)
        assert [d.shape for d in by_factors] == [f.shape for f in factors]
        assert by_x.shape == x.shape
        if 0 in shape:
            assert not any(d.any() for d in by_factors)
            assert not by_x.any()


def test_directions_left_out(rng):
    factors, x = [draw(rng, (2, 2)), draw(rng, (3, 3))], draw(rng, (6, 2))
    way = draw(rng, (3, 3))
    got = kron_matmul_jvp(factors, x, [None, way], None).derivative
    np.testing.assert_allclose(got, np.kron(factors[0], way) @ x, rtol=1e-12)
    assert not kron_matmul_jvp(factors, x, [None, None], None).derivative.any()


def test_mixed_dtypes(rng):
    """A real factor beside complex ones has a real gradient; the wider precision wins."""
    factors = [draw(rng, (2, 3), "float32"), draw(rng, (2, 2), "complex64")]
    factors.append(np.arange(4).reshape(2, 2))
    x = draw(rng, (12, 2))
    value = kron_matmul_jvp(factors, x, [None] * 3, None).value
    assert value.dtype == np.complex128
    g = draw(rng, value.shape, "complex128")
    _, by_factors, by_x = kron_matmul_vjp(factors, x, g)
    assert [d.dtype.name for d in by_factors] == ["float64", "complex128", "float64"]
    assert by_x.dtype == np.float64
    for i, d in enumerate(by_factors):
        e = draw(rng, d.shape, d.dtype)
        want = pairing(g, times([*factors[:i], e, *factors[i + 1 :]], x, "left"))
        assert pairing(d, e) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(rng, half):
    factors = [draw(rng, (2, 3)).astype(half), draw(rng, (3, 2)).astype(half)]
    x = draw(rng, (6, 2)).astype(half)
    value, by_factors, by_x = kron_matmul_vjp(factors, x, x)
    assert {y.dtype for y in (value, by_x, *by_factors)} == {np.dtype(half)}
    wide = kron_matmul_vjp(*[[f.astype(float) for f in factors], x.astype(float), x.astype(float)])
    # rounded once, from float32
    np.testing.assert_allclose(by_factors[0].astype(float), wide.factors[0], rtol=1e-2, atol=1e-2)


def test_every_library(xp, rng, dtype):
    factors, x = problem(rng, [(3, 2), (2, 2)], [(2,), ()], (), 3, "left", dtype)
    g = draw(rng, (2, 6, 3), dtype)
    want = kron_matmul_vjp(factors, x, g)
    given = [[_xp.from_numpy(y, xp) for y in factors], _xp.from_numpy(x, xp), _xp.from_numpy(g, xp)]
    got = kron_matmul_vjp(*given)
    assert type(got.x) is type(given[1])
    limit = 100 * EPS[dtype]
    arrays = [(*both.factors, both.x, both.value) for both in (got, want)]
    for y, z in zip(*arrays, strict=True):
        assert y.dtype == given[1].dtype
        np.testing.assert_allclose(_xp.to_numpy(y), z, atol=limit * np.abs(z).max())
    forward = kron_matmul_jvp(given[0], given[1], given[0], given[1])
    # Euler: of degree N + 1
    np.testing.assert_allclose(
        _xp.to_numpy(forward.derivative), 3 * _xp.to_numpy(forward.value),
        atol=limit * np.abs(want.value).max(),
    )  # fmt: skip


# ---- what is wrong ----

# what the types forbid
WRONG: Any = "up"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f, x: kron_matmul_vjp([], x, x), ValueError, "factors: needs at least 1"),
        (lambda f, x: kron_matmul_vjp(f[0], x, x), TypeError, "factors: must be a list"),
        (lambda f, x: kron_matmul_vjp(f, x[:-1], x), ValueError, r"needs 2 \* 3 = 6 rows, got 5"),
        (lambda f, x: kron_matmul_vjp(f, x, x[:, :1]), ValueError, r"g: must have the shape"),
        (lambda f, x: kron_matmul_vjp(f, x, x, side=WRONG), ValueError, "side: must be one of"),
        (lambda f, x: kron_matmul_vjp(f, x, x, trans=[True]), ValueError, "trans: must be one"),
        (lambda f, x: kron_matmul_jvp(f, x, f[:1], x), ValueError, "dfactors: must have one"),
        (lambda f, x: kron_matmul_jvp(f, x, f[::-1], x), ValueError, r"dfactors\[0\]: must have"),
        (lambda f, x: kron_matmul_jvp(f, x, f, x[0]), ValueError, "dx: must have the shape of x"),
    ],
)  # fmt: skip
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call([np.eye(2), np.eye(3)], np.ones((6, 2)))


def test_nothing_is_written_to(rng):
    factors, x = [draw(rng, (2, 2)), draw(rng, (3, 3))], draw(rng, (6, 2))
    before = [y.copy() for y in (*factors, x)]
    kron_matmul_vjp(factors, x, x)
    kron_matmul_jvp(factors, x, factors, x)
    for y, z in zip((*factors, x), before, strict=True):
        np.testing.assert_array_equal(y, z)
