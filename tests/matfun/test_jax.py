"""JAX under jit and vmap: traced algorithms, static options, NaN instead of errors."""

import numpy as np
import pytest

import linalgk as lk
from linalgk.testing import random_matrix, relative_error, spd_matrix

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

FUNCTIONS = {
    "sqrtm": lk.sqrtm,
    "invsqrtm": lk.invsqrtm,
    "inv_root": lambda a, **o: lk.inv_root(a, 4, **o),
    "powm": lambda a, **o: lk.powm(a, 0.3, **o),
    "signm": lk.signm,
    "logm": lk.logm,
}
EVERY = pytest.mark.parametrize("name", FUNCTIONS)


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 7, 7)])
def test_under_jit(name, dtype, shape):
    f = FUNCTIONS[name]
    a = 2 * spd_matrix(shape[-1], 1e2, batch=shape[:-2], dtype=dtype, rng=0)
    compiled = jax.jit(lambda x: f(x, assume_a="pos", return_info=True))
    x, info = compiled(jnp.asarray(a))
    assert x.dtype == dtype
    assert x.shape == shape
    assert relative_error(np.asarray(x), f(a)).max() <= 1e3 * np.finfo(dtype).eps * 10
    assert np.asarray(info.converged).all()
    assert info.converged.shape == info.residual.shape == shape[:-2]
    assert info.method == "eigh"
    if name not in ("powm", "logm"):
        assert (np.asarray(info.residual) < 1e4 * np.finfo(dtype).eps).all()


@EVERY
def test_under_vmap_and_both(name):
    f = FUNCTIONS[name]
    a = 2 * spd_matrix(6, 1e2, batch=(4, 3), rng=0)
    want = f(a)

    def one(x):
        return f(x, assume_a="her")

    for run in (jax.vmap(jax.vmap(one)), jax.jit(jax.vmap(one)), jax.vmap(jax.jit(jax.vmap(one)))):
        assert relative_error(np.asarray(run(jnp.asarray(a))), want).max() < 1e-11
    out, info = jax.vmap(lambda x: f(x, assume_a="her", return_info=True))(jnp.asarray(a[:, 0]))
    assert out.shape == (4, 6, 6)
    assert info.converged.shape == (4,)


@pytest.mark.parametrize("name", ["sqrtm", "invsqrtm", "inv_root", "signm"])
@pytest.mark.parametrize("options", [{"method": "minimax"}, {"method": "newton_schulz"},
                                     {"steps": 14}, {"tol": 1e-12}])  # fmt: skip
def test_fixed_steps(name, options):
    f = FUNCTIONS[name]
    a = spd_matrix(8, 1e2, batch=(3,), rng=0)
    x, info = jax.jit(lambda m: f(m, assume_a="pos", return_info=True, **options))(jnp.asarray(a))
    # the schedule serves a condition of 1e8, whose root its coefficients amplify rounding by
    assert relative_error(np.asarray(x), f(a)).max() < 1e-10
    assert info.method in ("minimax", "newton_schulz")
    assert (np.asarray(info.iterations) > 5).all()
    if "steps" in options:
        assert (np.asarray(info.iterations) == 14).all()


def test_the_series():
    a = np.eye(5) + 0.01 * spd_matrix(5, rng=0)
    got = jax.jit(lambda m: lk.sqrtm(m, assume_a="pos", method="taylor", steps=60))(jnp.asarray(a))
    want = lk.sqrtm(a, method="taylor", steps=60)
    assert relative_error(np.asarray(got), want) < 1e-13


def test_damping_may_be_traced():
    a = spd_matrix(8, 1e6, batch=(3,), rng=0)
    shift = np.array([1e-3, 1e-2, 1e-1])
    f = jax.jit(lambda m, d: lk.inv_root(m, 4, assume_a="pos", rel_damp=d))
    want = lk.inv_root(a, 4, rel_damp=shift)
    assert relative_error(np.asarray(f(jnp.asarray(a), jnp.asarray(shift))), want).max() < 1e-11
    g = jax.jit(lambda m: lk.invsqrtm(m, assume_a="pos", damp=0.5, rcond=1e-3))
    want = lk.invsqrtm(a, damp=0.5, rcond=1e-3)
    assert relative_error(np.asarray(g(jnp.asarray(a))), want).max() < 1e-11
    h = jax.jit(lambda m: lk.invsqrtm(m, assume_a="pos", rel_damp=1e-2, steps=12))
    with pytest.raises(ValueError, match="spectrum"):
        lk.invsqrtm(a, rel_damp=1e-2, steps=12)
    assert relative_error(np.asarray(h(jnp.asarray(a))), lk.invsqrtm(a, rel_damp=1e-2)).max() < 1e-9


def test_bad_members_are_nan():
    a = spd_matrix(4, 10.0, batch=(5,), rng=0)
    a[1, 0, 0] = np.nan
    a[2] *= -1
    a[3] = np.ones((4, 4))
    f = jax.jit(lambda m: lk.invsqrtm(m, assume_a="pos", return_info=True))
    x, info = f(jnp.asarray(a))
    assert np.asarray(info.converged).tolist() == [True, False, False, False, True]
    assert np.isnan(np.asarray(x)[[1, 2, 3]]).all()
    np.testing.assert_allclose(np.asarray(x)[[0, 4]], lk.invsqrtm(a[[0, 4]]), rtol=1e-12)
    root = jax.jit(lambda m: lk.sqrtm(m, assume_a="her"))(jnp.asarray(a[[0, 2]]) + 0j)
    np.testing.assert_allclose(np.asarray(root), lk.sqrtm(a[[0, 2]] + 0j), atol=1e-12)


def test_integer_powers_of_general_matrices():
    a = random_matrix(5, rng=0)
    f = jax.jit(lambda m: lk.powm(m, -2, assume_a="gen"))
    assert relative_error(np.asarray(f(jnp.asarray(a))), np.linalg.matrix_power(a, -2)) < 1e-10


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda a: lk.sqrtm(a), ValueError, "assume_a must be given"),
        (lambda a: lk.sqrtm(a, assume_a="gen"), ValueError, "eigh, minimax, newton_schulz, taylor"),
        (
            lambda a: lk.sqrtm(a, assume_a="her", method="schur"),
            ValueError,
            "fixed number of steps",
        ),
        (lambda a: lk.sqrtm(a, assume_a="her", method="pade"), ValueError, "fixed number of steps"),
        (lambda a: lk.logm(a, assume_a="gen"), ValueError, "fixed number of steps"),
        (lambda a: lk.sqrtm(a, assume_a="pos", out=a), TypeError, "out"),
        (lambda a: lk.sqrtm(a[0], assume_a="pos"), ValueError, "shape"),
    ],
)
def test_what_cannot_be_traced(call, error, text):
    with pytest.raises(error, match=text):
        jax.jit(call)(jnp.eye(3))


def test_what_has_no_derivative_says_so():
    for run in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        with pytest.raises(TypeError, match="signm: has no derivatives"):
            run(lambda a: lk.signm(a, assume_a="her").sum())(jnp.eye(3))


def test_results_are_trees():
    _, info = lk.sqrtm(2 * jnp.eye(3), return_info=True)
    leaves, tree = jax.tree_util.tree_flatten(info)
    assert len(leaves) == 4
    again = jax.tree_util.tree_unflatten(tree, leaves)
    assert again.method == info.method
    assert jax.jit(lambda i: i.residual + 1)(info) >= 1


def test_integers_without_double_precision():
    jax.config.update("jax_enable_x64", False)
    try:
        x = lk.sqrtm(jnp.asarray([[5, 4], [4, 5]]))
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(np.asarray(x), [[2, 1], [1, 2]], atol=1e-6)
    finally:
        jax.config.update("jax_enable_x64", True)


def test_constants_inside_jit():
    a = jnp.asarray(spd_matrix(4, 10.0, rng=0))
    got = jax.jit(lambda x: x + lk.invsqrtm(a, assume_a="pos"))(jnp.zeros((4, 4)))
    assert relative_error(np.asarray(got), lk.invsqrtm(np.asarray(a))) < 1e-12
