"""JAX: products, solutions and determinants under jit, vmap and derivatives of both modes."""

import numpy as np
import pytest

from linalgk.kronecker import kron_matmul
from linalgk.kronecker._derivative import kron_matmul_jvp, kron_matmul_vjp
from linalgk.kronecker._kron import Kron

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy
from linalgk.interop import _jax_kron  # noqa: E402

DTYPES = pytest.mark.parametrize("dtype", ["float64", "complex128"])
TWICE = {
    "forward over backward": jax.hessian,
    "backward over backward": lambda f, i: jax.jacrev(jax.jacrev(f, i), i),
    "backward over forward": lambda f, i: jax.jacrev(jax.jacfwd(f, i), i),
    "forward over forward": lambda f, i: jax.jacfwd(jax.jacfwd(f, i), i),
}


def draw(*shape, dtype="float64", seed=0):
    rng = np.random.default_rng([seed, *shape])
    z = rng.standard_normal(shape)
    z = z + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else z
    return jnp.asarray(z, dtype)


def made(x, kind):
    """A factor of that kind, far from singular."""
    eye = jnp.eye(x.shape[-1], dtype=x.dtype)
    turned = jnp.conj(jnp.matrix_transpose(x))
    if kind == "pos":
        return x @ turned + eye
    return 0.5 * (x + turned) + 3 * eye if kind == "her" else x + 3 * eye


def dense(factors):
    k = jnp.ones((1, 1))
    for f in factors:
        big = k[..., :, None, :, None] * f[..., None, :, None, :]
        shape = k.shape[-2] * f.shape[-2], k.shape[-1] * f.shape[-1]
        k = big.reshape(*big.shape[:-4], *shape)
    return k


def size(x):
    return jnp.sum(jnp.real(x * jnp.conj(x)))


def told(f, args):
    """Value, gradients and the derivative in a direction, compiled in one piece."""
    axes = tuple(range(len(args)))
    ways = tuple(draw(*z.shape, dtype=z.dtype, seed=1) for z in args)

    def all_of_it(args, ways):
        along = jax.jvp(f, args, ways)
        return f(*args), jax.grad(lambda *z: size(f(*z)), axes)(*args), along

    return jax.jit(all_of_it)(tuple(args), ways)


def agree(f, want, args):
    close(told(f, args), told(want, args))


def close(x, y, tol=1e-9):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol)


# ---- products ----


@DTYPES
@pytest.mark.parametrize("side", ["left", "right"])
def test_products(dtype, side):
    a, b = draw(3, 2, dtype=dtype), draw(2, 3, dtype=dtype)
    x = draw(*((6, 2) if side == "left" else (2, 6)), dtype=dtype)

    def f(a, b, x):
        return kron_matmul([a, b], x, side=side)

    def want(a, b, x):
        return dense([a, b]) @ x if side == "left" else x @ dense([a, b])

    args = a, b, x
    agree(f, want, args)
    many = draw(4, 3, 2, dtype=dtype)
    close(
        jax.jit(jax.vmap(f, (0, None, None)))(many, b, x),
        jax.vmap(want, (0, None, None))(many, b, x),
    )
    many = draw(4, *x.shape, dtype=dtype)
    close(
        jax.jit(jax.vmap(f, (None, None, 0)))(a, b, many),
        jax.vmap(want, (None, None, 0))(a, b, many),
    )


def test_plain_functions_of_derivatives_are_traced_too():
    a, b, x = draw(3, 2), draw(2, 3), draw(6, 2)
    g = draw(6, 2, seed=2)
    y, pull = jax.vjp(lambda a, b, x: dense([a, b]) @ x, a, b, x)
    found = jax.jit(lambda a, b, x, g: kron_matmul_vjp([a, b], x, g))(a, b, x, g)
    close((found.value, *found.factors, found.x), (y, *pull(g)))
    ways = draw(3, 2, seed=3), draw(2, 3, seed=3), draw(6, 2, seed=3)
    want = jax.jvp(lambda a, b, x: dense([a, b]) @ x, (a, b, x), ways)
    run = jax.jit(lambda a, b, x, *z: kron_matmul_jvp([a, b], x, z[:2], z[2]))
    close(tuple(run(a, b, x, *ways)), want)


def test_single_precision_and_vectors():
    a, b, x = (draw(*s, dtype="float32") for s in ((3, 2), (2, 3), (6,)))
    y = jax.jit(lambda a, b, x: kron_matmul([a, b], x))(a, b, x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, dense([a, b]) @ x, rtol=1e-5, atol=1e-5)
    assert jax.jit(lambda a, x: kron_matmul([a, a.T], x))(a, x.astype("complex64")).dtype == (
        jnp.complex64
    )


# ---- solutions ----

CASES = [
    ("gen", "float64", None), ("pos", "float64", None), ("her", "complex128", None),
    ("pos", "float64", 0.5), ("her", "complex128", 0.5), ("gen", "float64", 0.5),
    ("her", "complex128", 0.5 + 1j),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "dtype", "shift"), CASES)
def test_solutions(kind, dtype, shift):
    args = [draw(2, 2, dtype=dtype), draw(3, 3, dtype=dtype), draw(6, 2, dtype=dtype)]
    args += [] if shift is None else [jnp.asarray(shift)]

    def f(a, c, b, s=0):
        return Kron([made(a, kind), made(c, kind)], assume_a=kind).solve(b, s)

    def want(a, c, b, s=0):
        return jnp.linalg.solve(dense([made(a, kind), made(c, kind)]) + s * jnp.eye(6), b)

    agree(f, want, args)
    many = draw(3, 6, 2, dtype=dtype)
    each = (None, None, 0, *[None] * (len(args) - 3))
    args[2] = many
    close(jax.jit(jax.vmap(f, each))(*args), jax.vmap(want, each)(*args))


@pytest.mark.parametrize("order", TWICE)
def test_solutions_twice(order):
    """With equal eigenvalues, whose vectors have no derivative."""
    args = 2 * jnp.eye(2), jnp.eye(3), draw(6, 1), jnp.asarray(0.5)

    def part(x):
        return 0.5 * (x + x.T)

    def f(a, c, b, s):
        return size(Kron([part(a), part(c)], assume_a="her").solve(b, s))

    def want(a, c, b, s):
        return size(jnp.linalg.solve(dense([part(a), part(c)]) + s * jnp.eye(6), b))

    twice = [
        jax.jit(lambda *z, g=g, t=t: [t(g, i)(*z) for i in (0, 3)])(*args)
        for g, t in ((f, TWICE[order]), (want, jax.hessian))
    ]
    close(*twice)


# ---- determinants ----


@pytest.mark.parametrize(("kind", "dtype", "shift"), CASES)
def test_determinants(kind, dtype, shift):
    args = [draw(2, 2, dtype=dtype), draw(3, 3, dtype=dtype)]
    args += [] if shift is None else [jnp.asarray(shift)]

    def both(pair):
        sign, log = pair
        return log + jnp.real(sign) + 2 * jnp.imag(sign)

    def f(a, c, s=0):
        return both(Kron([made(a, kind), made(c, kind)], assume_a=kind).slogdet(s))

    def want(a, c, s=0):
        k = dense([made(a, kind), made(c, kind)]) + s * jnp.eye(6)
        return both(jnp.linalg.slogdet(k))

    agree(f, want, args)


def determinant(kinds, i=1):
    """The rule by itself, and what it should be."""

    def part(x, kind):
        return x if kind == "gen" else 0.5 * (x + jnp.conj(x.T))

    def f(a, c, s):
        parts = [part(x, k) for x, k in zip((a, c), kinds, strict=True)]
        return _jax_kron.slogdet(parts, kinds, s)[i]

    def want(a, c, s):
        parts = [part(x, k) for x, k in zip((a, c), kinds, strict=True)]
        return jnp.linalg.slogdet(dense(parts) + s * jnp.eye(6))[i]

    return f, want


@pytest.mark.parametrize("order", TWICE)
@pytest.mark.parametrize("kinds", [("her", "her"), ("gen", "gen"), ("gen", "her")])
def test_second_derivatives_of_the_rule(order, kinds):
    f, want = determinant(kinds)
    for equal in (False, True):
        if equal and "gen" in kinds:
            continue
        args = (2 * jnp.eye(2), jnp.eye(3)) if equal else (draw(2, 2), draw(3, 3))
        args = (*args, jnp.asarray(0.5))
        found = [
            jax.jit(lambda *z, g=g, t=t: everything(g, t, z))(*args)
            for g, t in ((f, TWICE[order]), (want, jax.hessian))
        ]
        close(*found)


def everything(f, twice, args):
    first = [jax.grad(f, i)(*args) for i in range(3)]
    cross = jax.jacfwd(jax.grad(f, 0), (1, 2))(*args)
    return f(*args), first, [twice(f, i)(*args) for i in range(3)], cross


def test_the_rule_in_batches():
    f, want = determinant(("her", "her"))
    a, c, s = draw(4, 2, 2), draw(3, 3), jnp.asarray([0.5, 1.0, 2.0])
    for axes, args in (((0, None, None), (a, c, s[0])), ((None, None, 0), (a[0], c, s))):
        for transform in (jax.grad, jax.hessian):
            found = jax.jit(jax.vmap(transform(f, 0), axes))(*args)
            close(found, jax.jit(jax.vmap(transform(want, 0), axes))(*args))
    # factors and shifts that broadcast, without vmap
    sign, log, values = _jax_kron.slogdet([a @ jnp.matrix_transpose(a), jnp.eye(3)[None]],
                                          ("her", "her"), s[0])  # fmt: skip
    assert log.shape == sign.shape == (4,)
    assert [w.shape for w in values] == [(4, 2), (1, 3)]


def test_singular_members_keep_their_values():
    a, c = jnp.diag(jnp.asarray([1.0, 2.0])), jnp.eye(3)
    f, _ = determinant(("her", "her"))
    value, grads = jax.value_and_grad(f, (0, 2))(a, c, jnp.asarray(-1.0))
    assert value == -jnp.inf
    assert not np.isfinite(grads[1])
    # the others of a batch are right
    g = jax.vmap(jax.grad(f, 0), (None, None, 0))(a, c, jnp.asarray([-1.0, 1.0]))
    assert not np.isfinite(g[0]).all()
    close(g[1], jax.grad(f, 0)(a, c, jnp.asarray(1.0)))


@pytest.mark.parametrize("third", [jax.grad, jax.jacfwd, lambda f: jax.jit(jax.jacrev(f))])
def test_third_derivatives_are_refused(third):
    f, _ = determinant(("her", "her"))
    a, c = draw(2, 2), draw(3, 3)
    with pytest.raises(TypeError, match="third derivatives with a shift are not offered"):
        third(lambda s: jax.hessian(f, 2)(a, c, s))(jnp.asarray(0.7))
    with pytest.raises(TypeError, match="third derivatives with a shift are not offered"):
        third(lambda s: jax.grad(lambda a: jax.hessian(f, 2)(a, c, s).sum())(a).sum())(
            jnp.asarray(0.7)
        )
