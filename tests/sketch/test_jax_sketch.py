"""Sketches under JAX's transformations: jit, vmap, grad, operators as arguments."""

import numpy as np
import pytest

import linalgk as lk

jax = pytest.importorskip("jax")
jnp = jax.numpy

M, N, K = 700, 3, 48


@pytest.fixture(autouse=True)
def _x64():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def operators():
    gen = np.random.default_rng(1)
    sketch = lk.sketch
    return {
        "stack": sketch.SparseStack(K, M, rng=3),
        "count": sketch.CountSketch(K, M, rng=3),
        "gaussian": sketch.Gaussian(K, M, rng=3),
        "complex": sketch.Gaussian(K, M, rng=3, dtype="complex128"),
        "rademacher": sketch.Rademacher(K, M, rng=3),
        "srht": sketch.SRHT(K, M, block=64, rng=3),
        "part of srht": sketch.SRHT(K, M + 200, block=64, rng=3)[:, 100 : M + 100],
        "srct": sketch.SRCT(K, M, rng=3),
        "tensor": sketch.TensorSketch(K, (70, 10), rng=3),
        "kronecker": sketch.KroneckerSRHT(K, (70, 10), rng=3),
        "rows": sketch.RowSample(gen.integers(0, M, K), gen.random(K), M),
        "part of rows": sketch.RowSample(gen.integers(0, M + 50, K), 1.0, M + 50)[:, 25 : M + 25],
    }


OPERATORS = operators()


@pytest.fixture(params=list(OPERATORS))
def s(request):
    return OPERATORS[request.param]


@pytest.fixture
def a():
    return np.random.default_rng(0).standard_normal((M, N))


# sums of at most M products of numbers of size one, in another order
CLOSE = {"rtol": 0, "atol": M * 1e-15 * 10}


def test_products_in_every_mode(s, a):
    want = s @ a
    assert isinstance(s @ jnp.asarray(a), jax.Array)
    np.testing.assert_array_equal(np.asarray(s @ jnp.asarray(a)), want)
    passed = jax.jit(lambda s, a: s @ a)
    np.testing.assert_allclose(np.asarray(passed(s, a)), want, **CLOSE)
    np.testing.assert_allclose(np.asarray(jax.jit(lambda a: s @ a)(a)), want, **CLOSE)
    right = jax.jit(lambda s, a: a.T @ s.T)
    np.testing.assert_allclose(np.asarray(right(s, a)), want.T, **CLOSE)
    mapped = jax.vmap(lambda a: s @ a)(jnp.stack([a, -a]))
    np.testing.assert_allclose(np.asarray(mapped), np.stack([want, -want]), **CLOSE)


def test_transposes(s, a):
    y = np.random.default_rng(2).standard_normal((K, 2))
    both = jax.jit(lambda s, y: (s.T @ y, s.H @ y))(s, y)
    np.testing.assert_allclose(np.asarray(both[0]), s.T @ y, **CLOSE)
    np.testing.assert_allclose(np.asarray(both[1]), s.H @ y, **CLOSE)


def test_gradients(s, a):
    def loss(a):
        x = s @ a
        return jnp.real(x * jnp.conj(x)).sum()

    want = 2 * np.real(s.H @ (s @ a))
    got = np.asarray(jax.grad(loss)(jnp.asarray(a)))
    # K products of sums of M
    bound = (M + K) * np.finfo(float).eps * np.linalg.norm(s.toarray(), 2) ** 2
    np.testing.assert_allclose(got, want, rtol=0, atol=2 * bound * np.linalg.norm(a))


def test_single_precision(s, a):
    small = a.astype(np.float32)
    got = jax.jit(lambda s, a: s @ a)(s, small)
    # a dtype that was asked for raises that of the product
    assert got.dtype == (s @ small).dtype
    assert got.dtype == (np.complex128 if s.dtype.kind == "c" else np.float32)
    # sums of at most M products, entries and data rounded
    scale = np.max(np.abs(s.toarray()).sum(axis=1)) * np.abs(a).max()
    atol = (M + 2) * np.finfo(np.float32).eps * scale
    np.testing.assert_allclose(np.asarray(got), s @ a, rtol=0, atol=atol)


def test_trees(s):
    leaves, tree = jax.tree_util.tree_flatten(s)
    assert [leaf.shape for leaf in leaves] == [(2,)]
    assert jax.tree_util.tree_unflatten(tree, leaves) == s
    assert jax.jit(lambda s: s)(s) == s
    # what transformations put in the place of leaves
    assert jax.tree_util.tree_map(lambda _: None, s) is not None


def test_a_stack_of_operators(a):
    each = [lk.sketch.SparseStack(K, M, rng=seed) for seed in range(3)]
    stacked = jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *each)
    got = jax.vmap(lambda s: s @ a)(stacked)
    np.testing.assert_allclose(np.asarray(got), [s @ a for s in each], **CLOSE)


def test_another_seed_is_not_compiled_again(a):
    traced = []

    @jax.jit
    def apply(s, a):
        traced.append(1)
        return s @ a

    for seed in range(3):
        s = lk.sketch.SparseStack(K, M, rng=seed)
        np.testing.assert_allclose(np.asarray(apply(s, a)), s @ a, **CLOSE)
    assert len(traced) == 1


def test_vectors_and_stacks(a):
    s = OPERATORS["stack"]
    passed = jax.jit(lambda s, a: s @ a)
    np.testing.assert_allclose(np.asarray(passed(s, a[:, 0])), s @ a[:, 0], **CLOSE)
    stack = np.stack([a, 2 * a])
    np.testing.assert_allclose(np.asarray(passed(s, stack)), s @ stack, **CLOSE)


def test_no_rows(s):
    none = s[:, 5:5]
    assert jax.jit(lambda a: none @ a)(jnp.zeros((0, N))).shape == (K, N)


def test_wrong_shapes_and_unknown_rows(a):
    s = lk.sketch.SparseStack(K, M, rng=0)
    with pytest.raises(ValueError, match="700"):
        jax.jit(lambda a: s @ a)(a[:-1])
    with pytest.raises(ValueError, match="48"):
        jax.jit(lambda y: s.T @ y)(a)
    free = lk.sketch.SparseStack(K, None, rng=0)
    np.testing.assert_allclose(np.asarray(jax.jit(lambda a: free @ a)(a)), s @ a, **CLOSE)
