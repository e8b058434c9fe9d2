"""Kronecker sums, sums of products and what is added to a diagonal: on a device, and traced."""

import numpy as np
import pytest
from directions import gaussian
from spectra import spectrum

from linalgk.kronecker._diagonal import KronPlusDiagonal
from linalgk.kronecker._kronsum import KronSum
from linalgk.kronecker._terms import KronTerms


def positive(n, seed):
    return spectrum(np.geomspace(1, 20, n), seed=seed)


def general(n, seed):
    return gaussian((n, n), seed=seed) / n**0.5 + 2 * np.eye(n)


def agree(cuda, found, want):
    assert type(found) is type(cuda.array(np.ones(1)))
    size = max(1.0, np.abs(want).max())
    assert np.abs(cuda.host(found) - want).max() < 1e-9 * size


@pytest.mark.parametrize("sizes", [(4, 6), (3, 2, 4)])
@pytest.mark.parametrize("make", [positive, general])
def test_sums_stay_on_the_device(cuda, make, sizes):
    factors = [make(n, n) for n in sizes]
    mine, k = KronSum(factors), KronSum([cuda.array(f) for f in factors])
    b = gaussian((24, 2))
    for call in (
        lambda k, b: k @ b, lambda k, b: k.solve(b), lambda k, b: k.solve(b, 1j),
        lambda k, b: k.expm(0.01) @ b, lambda k, b: k.slogdet(0.5).logabsdet,
        lambda k, b: k.diagonal(),
    ):  # fmt: skip
        agree(cuda, call(k, cuda.array(b)), call(mine, b))
    if make is positive:
        agree(cuda, k.eigh(5).eigenvalues, mine.eigh(5).eigenvalues)
        agree(cuda, k.cond(), mine.cond())


def test_eigenvalues_on_both_sides_of_the_axis(cuda):
    """Newton's iteration does not serve: eigenvectors, or Schur forms from the host, do."""
    jordan = np.eye(4, k=1) - 0.5 * np.eye(4)
    for factors in ([gaussian((4, 4), seed=1), gaussian((5, 5), seed=2)], [jordan, -3 * jordan.T]):
        n = factors[1].shape[0] * 4
        k, b = KronSum(factors), gaussian((n, 2))
        found = KronSum([cuda.array(f) for f in factors]).solve(cuda.array(b))
        agree(cuda, found, k.solve(b))


def test_right_sides_of_low_rank(cuda):
    a, b, u, v = positive(12, 1), positive(10, 2), gaussian((12, 1)), gaussian((10, 1), seed=1)
    want = KronSum([a, b]).solve_lowrank(u, v)
    found = KronSum([cuda.array(a), cuda.array(b)]).solve_lowrank(cuda.array(u), cuda.array(v))
    agree(cuda, found.toarray(), want.toarray())
    agree(cuda, found.D, want.D)


def test_terms_and_diagonals(cuda):
    pairs = [[positive(4, t), positive(5, t + 9)] for t in range(3)]
    b = gaussian((20, 2))
    for terms in (pairs[:2], pairs, [[general(4, t), general(5, t)] for t in range(2)]):
        mine = KronTerms(terms)
        k = KronTerms([[cuda.array(f) for f in term] for term in terms])
        agree(cuda, k @ cuda.array(b), mine @ b)
        agree(cuda, k.solve(cuda.array(b)), mine.solve(b))
    d = np.random.default_rng(0).uniform(0.5, 2.0, 20)
    mine = KronPlusDiagonal(pairs[0], d)
    k = KronPlusDiagonal([cuda.array(f) for f in pairs[0]], cuda.array(d))
    agree(cuda, k @ cuda.array(b), mine @ b)
    agree(cuda, k.solve(cuda.array(b)), mine.solve(b))


def test_trees_of_jax():
    """Products of objects that are arguments of traced functions, and their derivatives."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    a, b = (jax.numpy.asarray(positive(n, n)) for n in (2, 3))
    d, x = jax.numpy.linspace(1.0, 2.0, 6), gaussian(6)
    given = jax.numpy.asarray(x)
    for k, count in (
        (KronSum([a, b]), 2), (KronTerms([[a, b], [b @ b, a]][:1], [2.0]), 2),
        (KronPlusDiagonal([a, b], d), 3),
    ):  # fmt: skip
        leaves, tree = jax.tree_util.tree_flatten(k)
        assert len(leaves) == count
        assert jax.tree_util.tree_unflatten(tree, leaves) == k
        want = np.asarray(k.toarray()) @ x
        found = jax.jit(lambda k, z: k @ z)(k, given)
        assert np.abs(np.asarray(found) - want).max() < 1e-13
        slope, _ = jax.grad(lambda k, z: jax.numpy.sum((k @ z) ** 2), argnums=(0, 1))(k, given)
        step = jax.tree_util.tree_map(lambda t: 1e-6 * t, k)
        moved = jax.tree_util.tree_map(lambda t, s: t + s, k, step)
        rise = float(jax.numpy.sum((moved @ given) ** 2) - jax.numpy.sum((k @ given) ** 2))
        pairs = zip(*map(jax.tree_util.tree_leaves, (slope, step)), strict=True)
        assert np.isclose(rise, sum(float(jax.numpy.sum(p * q)) for p, q in pairs), rtol=1e-4)
        with pytest.raises(TypeError, match="cannot be traced"):
            jax.jit(lambda k, z: k.solve(z))(k, given)
