"""`Masked` under JAX's transformations, against dense matrices."""

import functools

import numpy as np
import pytest

import linalgk as lk

jax = pytest.importorskip("jax")
jnp = jax.numpy

SEEN = np.random.default_rng(0).random((7, 6)) < 0.7
N = int(SEEN.sum())


@pytest.fixture(autouse=True)
def _wide():
    jax.config.update("jax_enable_x64", True)


def factors_of(ell):
    x, y = jnp.linspace(0, 1, 7), jnp.linspace(0, 1, 6)
    return [jnp.exp(-0.5 * ((u[:, None] - u) / e) ** 2) for u, e in ((x, ell[0]), (y, ell[1]))]


def block(factors, shift):
    flat = SEEN.reshape(-1)
    return jnp.kron(*factors)[flat][:, flat] + shift * jnp.eye(N)


def close(found, wanted, rtol=1e-9):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, atol=rtol * np.abs(y).max())


@functools.cache
def right_hand_side():
    return jnp.asarray(np.random.default_rng(1).standard_normal(N))


def likelihood(ell, shift, r, **options):
    A = lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN)
    return r @ A.solve(r, shift=shift, tol=1e-12) + A.logdet(shift=shift, **options).value


def dense(ell, shift, r):
    matrix = block(factors_of(ell), shift)
    return r @ jnp.linalg.solve(matrix, r) + jnp.linalg.slogdet(matrix)[1]


def test_likelihoods():
    args = jnp.array([0.3, 0.5]), 0.05, right_hand_side()
    wanted = jax.jit(jax.value_and_grad(dense, (0, 1, 2)))(*args)
    close(jax.jit(jax.value_and_grad(likelihood, (0, 1, 2)))(*args), wanted)
    # all unit vectors: exact too
    sampled = functools.partial(likelihood, method="slq", n_matvecs=4000, rng=0)
    close(jax.jit(jax.value_and_grad(sampled, (0, 1, 2)))(*args), wanted)


def test_derivatives_of_solutions_are_derived_again_and_mapped():
    r = right_hand_side()

    def size(ell):
        A = lk.Kron(factors_of(ell), assume_a="pos").masked(SEEN)
        return jnp.sum(A.solve(r, shift=0.05, tol=1e-13) ** 2)

    def size_of_dense(ell):
        return jnp.sum(jnp.linalg.solve(block(factors_of(ell), 0.05), r) ** 2)

    ell = jnp.array([0.3, 0.5])
    twice = jax.jit(jax.jacrev(jax.grad(size)))(ell)
    close(twice, jax.jit(jax.jacrev(jax.grad(size_of_dense)))(ell), 1e-8)
    several = jnp.stack([ell, 0.7 * ell])
    close(jax.jit(jax.vmap(size))(several), jax.jit(jax.vmap(size_of_dense))(several))


def test_complex_factors():
    rng = np.random.default_rng(2)
    parts = [
        jnp.asarray(rng.standard_normal((p, p)) + 1j * rng.standard_normal((p, p))) for p in (7, 6)
    ]
    b = right_hand_side() * jnp.exp(1j * jnp.arange(N))

    def loss(parts, b, shift, direct):
        factors = [p @ p.conj().T / 6 + jnp.eye(len(p)) for p in parts]
        if direct:
            matrix = block(factors, shift)
            x, log = jnp.linalg.solve(matrix, b), jnp.linalg.slogdet(matrix)[1]
        else:
            A = lk.Kron(factors, assume_a="pos").masked(SEEN)
            x, log = A.solve(b, shift=shift, tol=1e-12), A.logdet(shift=shift).value
        return jnp.sum(jnp.abs(x * jnp.arange(N)) ** 2) + log

    found, wanted = (
        jax.jit(jax.grad(functools.partial(loss, direct=way), (0, 1, 2)))(parts, b, 0.3)
        for way in (False, True)
    )
    close(found, wanted)


def test_a_batch_and_a_shift_for_each():
    first = jnp.stack([factors_of((e, 1.0))[0] for e in (0.3, 0.6)])
    shift, r = jnp.array([0.1, 0.2]), right_hand_side()

    def both(first, shift, r, direct):
        second = factors_of((1.0, 0.5))[1]
        if direct:
            matrices = [block([f, second], s) for f, s in zip(first, shift, strict=True)]
            x = jnp.stack([jnp.linalg.solve(m, r) for m in matrices])
            log = jnp.stack([jnp.linalg.slogdet(m)[1] for m in matrices])
        else:
            A = lk.Kron([first, second], assume_a="pos").masked(SEEN)
            x, log = A.solve(r, shift=shift, tol=1e-12), A.logdet(shift=shift).value
        return jnp.sum(x**2) + log @ jnp.array([1.0, -2.0])

    found, wanted = (
        jax.jit(jax.grad(both, (0, 1, 2)), static_argnums=3)(first, shift, r, way)
        for way in (False, True)
    )
    close(found[1:], wanted[1:])
    # of the Hermitian part, where a factor is moved
    close(found[0], 0.5 * (wanted[0] + wanted[0].mT))


def test_values_as_outside_of_a_trace():
    factors, r = factors_of((0.3, 0.5)), right_hand_side()
    A = lk.Kron(factors, assume_a="pos").masked(SEEN)
    plain = A.solve(r, shift=0.1)
    close(jax.jit(lambda B, b: B.solve(b, shift=0.1))(A, r), plain, 1e-7)
    close(jax.jit(lambda B, b: B.solve(b, shift=0.1))(A, jnp.stack([r, r], 1))[:, 0], plain, 1e-7)
    close(jax.jit(lambda v: A @ v)(r), A @ r)
    close(jax.jit(jax.grad(lambda v: jnp.sum((A @ v) ** 2)))(r), 2 * (A @ (A @ r)))
    close(jax.jit(lambda B: (B.toarray(), B.diagonal()))(A), (A.toarray(), A.diagonal()))
    leaves, tree = jax.tree.flatten(A)
    assert jax.tree.unflatten(tree, leaves) == A
    close(jax.jit(lambda B: B.embed(B.restrict(jnp.ones(42))))(A), A.embed(jnp.ones(N)))
    estimate = jax.jit(lambda B: tuple(B.logdet(shift=0.1, method="slq", rng=0, tol=0.01)))(A)
    outside = A.logdet(shift=0.1, method="slq", rng=0, tol=0.01)
    close(estimate, tuple(outside))
    with pytest.raises(TypeError, match="return_info"):
        jax.jit(lambda b: A.solve(b, shift=0.1, return_info=True)[0])(r)


def test_failures_are_nan_under_a_trace():
    first = jnp.stack([factors_of((0.3, 1.0))[0], -factors_of((0.3, 1.0))[0]])
    A = lk.Kron([first, factors_of((1.0, 0.5))[1]]).masked(SEEN)
    r = right_hand_side()
    x = jax.jit(lambda b: A.solve(b, shift=0.1))(r)
    assert np.isnan(x).all(axis=-1).tolist() == [False, True]
    value = jax.jit(lambda s: A.logdet(shift=s).value)(0.1)
    assert np.isnan(value).tolist() == [False, True]
