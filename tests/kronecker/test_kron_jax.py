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

TWICE = {
    "forward over backward": jax.hessian,
    "backward over backward": lambda f, i: jax.jacrev(jax.jacrev(f, i), i),
    "backward over forward": lambda f, i: jax.jacrev(jax.jacfwd(f, i), i),
    "forward over forward": lambda f, i: jax.jacfwd(jax.jacfwd(f, i), i),
}
# the others are slow to compile
ORDERS = [
    "backward over backward",
    *(pytest.param(o, marks=pytest.mark.slow) for o in TWICE if o != "backward over backward"),
]


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


def part(x, kind):
    return x if kind == "gen" else 0.5 * (x + jnp.conj(jnp.matrix_transpose(x)))


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


@pytest.mark.parametrize(("dtype", "side"), [("float64", "left"), ("complex128", "right")])
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


def test_known_arrays_beside_traced_ones():
    a, b, x = draw(3, 2), draw(2, 3), draw(6, 2)
    found = jax.vmap(lambda a: kron_matmul([a, b], x))(jnp.stack([a, 2 * a]))
    close(found, jnp.stack([kron_matmul([a, b], x), kron_matmul([2 * a, b], x)]))
    c = made(draw(2, 2), "pos")
    found = jax.grad(lambda b: Kron([c, np.eye(3) + c[0, 0]], assume_a="pos").solve(b).sum())(x)
    close(found, np.linalg.solve(dense([c, np.eye(3) + c[0, 0]]), np.ones((6, 2))))


def test_single_precision_and_vectors():
    a, b, x = (draw(*s, dtype="float32") for s in ((3, 2), (2, 3), (6,)))
    y = jax.jit(lambda a, b, x: kron_matmul([a, b], x))(a, b, x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, dense([a, b]) @ x, rtol=1e-5, atol=1e-5)
    assert jax.jit(lambda a, x: kron_matmul([a, a.T], x))(a, x.astype("complex64")).dtype == (
        jnp.complex64
    )


# ---- solutions ----

# compiling takes a second for each
CASES = [
    ("gen", "float64", None), ("pos", "float64", 0.5),
    pytest.param("gen", "float64", 0.5, marks=pytest.mark.slow),
    pytest.param("her", "complex128", None, marks=pytest.mark.slow),
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


@pytest.mark.parametrize("order", ORDERS)
def test_solutions_twice(order):
    """With equal eigenvalues, whose vectors have no derivative."""
    b, s = draw(4), jnp.asarray(0.5)

    def f(z):
        a, c, s = z[:4].reshape(2, 2), z[4:8].reshape(2, 2), z[8]
        return b @ Kron([part(a, "her"), part(c, "her")], assume_a="her").solve(b, s)

    z = jnp.concatenate([2 * jnp.eye(2).ravel(), jnp.eye(2).ravel(), s[None]])
    # b^T X b: X dK X to and fro, and the rest by differences of the exact first derivative
    first, second = jax.jit(lambda z: (jax.grad(f)(z), TWICE[order](f, 0)(z)))(z)
    np.testing.assert_allclose(first, quadratic(z, b), rtol=1e-9)
    step = 1e-5
    for i, e in enumerate(step * np.eye(9)):
        slope = (quadratic(z + e, b) - quadratic(z - e, b)) / (2 * step)
        # step^2 times the fourth derivative of a fraction of size one, eps over step
        np.testing.assert_allclose(second[i], slope, atol=1e-7)


def quadratic(z, b):
    """The derivative of ``b^T (A kron C + s)^-1 b`` by the entries of all."""
    z, b = np.asarray(z), np.asarray(b)
    a, c = (np.asarray(part(x.reshape(2, 2), "her")) for x in (z[:4], z[4:8]))
    x = np.linalg.solve(np.kron(a, c) + z[8] * np.eye(4), b)
    entries = [np.asarray(part(e.reshape(2, 2), "her")) for e in np.eye(4)]
    ways = [np.kron(e, c) for e in entries] + [np.kron(a, e) for e in entries]
    return -np.array([x @ way @ x for way in (*ways, np.eye(4))])


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


def rule(kinds):
    """The logarithm by itself."""

    def f(a, c, s):
        parts = [part(x, k) for x, k in zip((a, c), kinds, strict=True)]
        return _jax_kron.slogdet(parts, kinds, s)[1]

    return f


def exact(a, c, s, kinds):
    """Derivatives of ``log det K`` by all entries: ``tr X dK`` and ``-tr X dK X dK + tr X ddK``."""
    a, c, s = (np.asarray(x) for x in (a, c, s))
    entries = [
        [part(e.reshape(x.shape), k) for e in np.eye(x.size)]
        for x, k in zip((a, c), kinds, strict=True)
    ]
    a, c = (np.asarray(part(x, k)) for x, k in zip((a, c), kinds, strict=True))
    k = np.kron(a, c) + s * np.eye(len(a) * len(c))
    ways = [np.kron(e, c) for e in entries[0]] + [np.kron(a, e) for e in entries[1]]
    ways.append(np.eye(len(k)))
    x = np.linalg.inv(k)
    first = np.array([np.trace(x @ way) for way in ways])
    second = np.array([[-np.trace(x @ one @ x @ two) for two in ways] for one in ways])
    for i, e in enumerate(entries[0]):
        for j, g in enumerate(entries[1]):
            term = np.trace(x @ np.kron(e, g))
            second[i, a.size + j] += term
            second[a.size + j, i] += term
    return np.linalg.slogdet(k)[1], first, second


def flat(f, a, c):
    """With all entries, and the shift, in one vector."""

    def g(z):
        return f(z[: a.size].reshape(a.shape), z[a.size : -1].reshape(c.shape), z[-1])

    return g


@pytest.mark.parametrize(
    ("order", "kinds"),
    [*((order, ("her", "her")) for order in TWICE), ("forward over backward", ("gen", "her"))],
)
def test_second_derivatives_of_the_rule(order, kinds):
    """With equal eigenvalues too, where those of JAX are not numbers."""
    run = None
    for equal in (False, True):
        a, c = (2 * jnp.eye(2), jnp.eye(2)) if equal else (draw(2, 2), draw(2, 2, seed=1))
        s = jnp.asarray(0.5)
        z = jnp.concatenate([a.ravel(), c.ravel(), s[None]])
        f = flat(rule(kinds), a, c)
        run = run or jax.jit(lambda z, f=f: (f(z), jax.grad(f)(z), TWICE[order](f, 0)(z)))
        close(run(z), exact(a, c, s, kinds))


def test_the_rule_in_batches():
    a, c, s = draw(3, 2, 2), draw(2, 2), jnp.asarray([0.5, 1.0, 2.0])
    f = rule(("her", "her"))

    def run(a, c, s):
        each = jax.vmap(jax.grad(f, (0, 2)), (0, None, 0))(a, c, s)
        sign, log, values = _jax_kron.slogdet([part(a, "her"), part(c, "her")[None]],
                                              ("her", "her"), s)  # fmt: skip
        return each, sign, log, values

    each, sign, log, values = jax.jit(run)(a, c, s)
    assert [w.shape for w in values] == [(3, 2), (1, 2)]
    for i in range(3):
        value, first, _ = exact(a[i], c, s[i], ("her", "her"))
        close((each[0][i].ravel(), each[1][i], log[i]), (first[:4], first[-1], value))
    assert sign.shape == (3,)


def test_singular_members_keep_their_values():
    a, c, s = jnp.diag(jnp.asarray([1.0, 2.0])), jnp.eye(2), jnp.asarray([-1.0, 1.0])
    f = rule(("her", "her"))
    value, grads = jax.jit(jax.vmap(jax.value_and_grad(f, (0, 2)), (None, None, 0)))(a, c, s)
    assert value[0] == -jnp.inf
    assert not np.isfinite(grads[0][0]).all()
    assert not np.isfinite(grads[1][0])
    want, first, _ = exact(a, c, s[1], ("her", "her"))
    close((value[1], grads[0][1].ravel(), grads[1][1]), (want, first[:4], first[-1]))


@pytest.mark.parametrize("third", [jax.grad, jax.jacfwd, lambda f: jax.jit(jax.jacrev(f))])
def test_third_derivatives_are_refused(third):
    """When they are traced, by whichever of the three it is that nobody has."""
    f, a, c = rule(("her", "her")), draw(2, 2), draw(2, 2)
    for g in (
        lambda s: jax.hessian(f, 2)(a, c, s),
        lambda s: jax.grad(lambda a: jax.grad(f, 2)(a, c, s))(a).sum(),
        lambda s: jax.jacfwd(lambda a: jax.jacfwd(f, 0)(a, c, s).sum())(a).sum(),
    ):
        jax.make_jaxpr(g)(0.7)
        with pytest.raises(TypeError, match="third derivatives with a shift are not offered"):
            jax.make_jaxpr(third(g))(0.7)
