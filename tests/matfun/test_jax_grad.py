"""JAX: derivatives of every mode and order that is offered, under jit and vmap; failures."""

import numpy as np
import pytest

import linalgk as lk
from linalgk.testing import relative_error, spd_matrix

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy
FUNCTIONS = {
    "sqrtm": lk.sqrtm,
    "invsqrtm": lk.invsqrtm,
    "inv_root 3": lambda a, **o: lk.inv_root(a, 3, **o),
    "inv_root 4": lambda a, **o: lk.inv_root(a, 4, **o),
    "powm 1.7": lambda a, **o: lk.powm(a, 1.7, **o),
    "powm -2": lambda a, **o: lk.powm(a, -2, **o),
    "logm": lk.logm,
}


@pytest.fixture(autouse=True, scope="module")
def _quick_compiler():
    """Most of the time of this module is XLA's; its optimizations are not what is tested."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


EVERY = pytest.mark.parametrize("name", FUNCTIONS)
COMPLEX_OR_REAL = pytest.mark.parametrize("dtype", ["float64", "complex128"])


def hermitian_part(x):
    return 0.5 * (x + jnp.conj(jnp.swapaxes(x, -1, -2)))


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    x = x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x
    return jnp.asarray(x.astype(dtype))


def matrices(dtype="float64"):
    """Positive definite matrices, one of which is a multiple of I."""
    a = spd_matrix(2, 4.0, dtype=dtype, rng=1)
    return jnp.asarray(np.stack([a, 2 * np.eye(2, dtype=dtype)]))


def repeated(dtype="float64"):
    """Eigenvalues 1, 1, 3."""
    q = np.linalg.qr(np.asarray(gaussian((3, 3), dtype, 5)))[0]
    a = (q * np.array([1, 1, 3])) @ q.conj().T
    return jnp.asarray(0.5 * (a + a.conj().T))


def check(f, *arrays, order=2, step=1e-4):
    """All modes of both orders, in one program, against central differences of lower ones."""
    directions = [gaussian(x.shape, x.dtype, 11 + k) for k, x in enumerate(arrays)]
    places = tuple(range(len(arrays)))

    def loss(*arrays):
        found = f(*arrays)
        parts = found if isinstance(found, tuple) else (found,)
        return sum(jnp.sum(jnp.cos(jnp.arange(1, x.size + 1)).reshape(x.shape) * weight(x))
                   for x in parts)  # fmt: skip

    def weight(x):
        return jnp.real(x) + 0.5 * jnp.imag(x)

    def along(gradients):
        # as JAX has it, without a conjugate
        return sum(jnp.real(jnp.sum(g * e)) for g, e in zip(gradients, directions, strict=True))

    def forward(*arrays):
        return jax.jvp(loss, arrays, tuple(directions))[1]

    backward = jax.grad(loss, places)

    @jax.jit
    def everything(*arrays):
        found = [loss(*arrays), forward(*arrays), backward(*arrays)]
        if order == 2:
            found.append(jax.jvp(backward, arrays, tuple(directions))[1])
            found.append(jax.grad(lambda *x: along(backward(*x)), places)(*arrays))
            found.append(jax.jvp(forward, arrays, tuple(directions))[1])
        return found

    here, ahead, behind = (
        everything(*(x + s * e for x, e in zip(arrays, directions, strict=True)))
        for s in (0.0, step, -step)
    )
    slope = (ahead[0] - behind[0]) / (2 * step)
    # step^2 of the next but one derivative, and eps/step
    np.testing.assert_allclose(here[1], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(along(here[2]), here[1], rtol=1e-9, atol=1e-10)
    if order == 2:
        for x, y, z, w in zip(ahead[2], behind[2], here[3], here[4], strict=True):
            np.testing.assert_allclose(z, (x - y) / (2 * step), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(w, z, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(along(here[3]), here[5], rtol=1e-8, atol=1e-9)


# ---- against differences ----


@EVERY
def test_functions(name):
    f = FUNCTIONS[name]
    check(lambda x: f(hermitian_part(x), assume_a="pos"), matrices())


@pytest.mark.parametrize("name", ["sqrtm", "inv_root 3"])
def test_functions_of_complex_matrices(name):
    f = FUNCTIONS[name]
    check(lambda x: f(hermitian_part(x), assume_a="pos"), matrices("complex128"))


@pytest.mark.parametrize("name", ["inv_root 4", "logm"])
def test_repeated_eigenvalues(name):
    f = FUNCTIONS[name]
    check(lambda x: f(hermitian_part(x), assume_a="pos"), repeated())


@pytest.mark.parametrize("name", ["invsqrtm", "inv_root 3", "logm"])
def test_indefinite_matrices_with_complex_values(name):
    f = FUNCTIONS[name]
    q = np.linalg.qr(np.asarray(gaussian((2, 2), "complex128")))[0]
    a = jnp.asarray((q * np.array([2.0, -1.0])) @ q.conj().T)
    check(lambda x: f(hermitian_part(x), assume_a="her"), a)


@pytest.mark.parametrize(
    ("name", "options"),
    [("invsqrtm", {"damp": 0.1, "rel_damp": 0.2}), ("inv_root 3", {"rcond": 0.4})],
)
def test_damping(name, options):
    f = FUNCTIONS[name]
    # the largest eigenvalue is a simple one, the others repeated
    check(lambda x: f(hermitian_part(x), assume_a="pos", **options), repeated())


def test_damping_that_is_differentiated():
    a = jnp.asarray(spd_matrix(2, 4.0, batch=(2,), rng=1))
    both = jnp.asarray(0.3), jnp.asarray([0.3, 0.2])

    def f(x, d, r):
        return lk.invsqrtm(hermitian_part(x), assume_a="pos", damp=d, rel_damp=r)

    check(f, a, *both)


def test_relative_damping_where_the_largest_eigenvalue_is_repeated():
    h = gaussian((3, 3))

    def loss(x):
        return (lk.invsqrtm(x, assume_a="pos", rel_damp=0.5) * h).sum()

    g, second = jax.jit(lambda x: (jax.grad(loss)(x), jax.hessian(loss)(x)))(2 * jnp.eye(3))
    # -1/2 (3 I)^(-3/2) (H + 0.5 tr(H) v v^T) for a unit vector v, or a mean of such
    extra = g + 0.5 * 3**-1.5 * hermitian_part(h)
    np.testing.assert_allclose(jnp.trace(extra), -0.25 * 3**-1.5 * jnp.trace(h), rtol=1e-12)
    assert jnp.isfinite(second).all()


@COMPLEX_OR_REAL
def test_equations(dtype):
    a, b = matrices(dtype), matrices(dtype)[0]
    q = gaussian((2, 2, 2), dtype, 1)

    def lyapunov(a, q):
        return lk.solve_lyapunov(hermitian_part(a), q, assume_a="pos")

    def sylvester(a, b, q):
        return lk.solve_sylvester(hermitian_part(a), hermitian_part(b), q, assume_a="her")

    check(lyapunov, a, q)
    check(sylvester, a, b, q)


@pytest.mark.parametrize(
    ("shape", "side", "dtype"),
    [
        ((2, 2), "right", "float64"), ((3, 2), "right", "complex128"), ((2, 3), "right", "float64"),
        ((3, 2), "left", "complex128"), ((2, 3), "left", "float64"),
    ],
)  # fmt: skip
def test_polar(shape, side, dtype):
    check(
        lambda x: tuple(lk.polar(x, side=side)), gaussian(shape, dtype), order=1 + (side == "right")
    )


def test_polar_of_repeated_singular_values():
    q = jnp.asarray(np.linalg.qr(np.asarray(gaussian((3, 3))))[0])
    check(lambda x: tuple(lk.polar(x)), jnp.stack([2 * q[:, :2], q[:, :2]]))


@pytest.mark.parametrize(
    "coeffs", ["muon", "aol", "hybrid_auon"]
)  # the others follow slopes of 1e3 and more, which differences over 1e-4 do not
def test_orthogonalize(coeffs):
    x = gaussian((2, 2, 3))
    check(lambda x: lk.orthogonalize(x, coeffs=coeffs), x, order=1, step=1e-6)


@pytest.mark.parametrize("coeffs", ["polar_express", "prism"])
def test_orthogonalize_in_both_modes(coeffs):
    x = gaussian((2, 3))
    f = jax.jit(lambda x: [j(lambda x: lk.orthogonalize(x, coeffs=coeffs))(x)
                           for j in (jax.jacfwd, jax.jacrev)])  # fmt: skip
    forward, backward = f(x)
    np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-9 * np.abs(forward).max())
    # as PyTorch has it, where gradcheck passes
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    want = torch.autograd.functional.jacobian(
        lambda x: lk.orthogonalize(x, coeffs=coeffs), torch.as_tensor(np.array(x))
    )
    np.testing.assert_allclose(backward, want, rtol=1e-7, atol=1e-7 * np.abs(forward).max())


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "complex128"), ({"squared": True}, "float64"),
        ({"power": 0.5, "metric": np.diag([1.0, 2.0])}, "float64"),
    ],
    ids=["plain", "squared", "power and metric"],
)  # fmt: skip
def test_bures_distance(options, dtype):
    a = matrices(dtype)
    b = jnp.asarray(spd_matrix(2, 3.0, batch=(2,), dtype=dtype, rng=7))
    options = {k: jnp.asarray(v) if k == "metric" else v for k, v in options.items()}

    def f(a, b):
        return lk.bures_distance(hermitian_part(a), hermitian_part(b), **options)

    check(f, a, b, order=1 if options else 2)
    # known digits: the root of a difference that cancels
    np.testing.assert_allclose(jax.jit(f)(a, b), f(a, b), rtol=1e-9)


def test_bures_distance_with_means():
    a, b = matrices(), jnp.asarray(spd_matrix(2, 3.0, batch=(2,), rng=7))
    x, y = gaussian((2, 2)), gaussian((2, 2), seed=1)
    check(lambda a, x, y: lk.bures_distance(hermitian_part(a), b, mean_a=x, mean_b=y), a, x, y,
          order=1)  # fmt: skip


def test_bures_distance_of_equal_and_of_singular_matrices():
    zero, ones, eye, some = jnp.zeros((3, 3)), jnp.ones((3, 3)), jnp.eye(3), repeated()
    a = jnp.stack([some, eye, zero, ones, ones, zero])
    b = jnp.stack([some, eye, zero, zero, ones, eye])

    def loss(a, b, squared):
        return lk.bures_distance(a, b, squared=squared).sum()

    @jax.jit
    def gradients(a, b):
        return [jax.grad(loss, (0, 1))(a, b, squared) for squared in (False, True)]

    for plain, squared in zip(*gradients(a, b), strict=True):
        assert jnp.isfinite(plain).all()
        assert jnp.isfinite(squared).all()
        # equal matrices: nowhere to go
        assert jnp.abs(squared[:3]).max() < 1e-7


# ---- transformations ----


@pytest.mark.parametrize("name", ["inv_root 3"])
def test_transformations(name):
    f = FUNCTIONS[name]
    a, h = matrices(), gaussian((2, 2))

    def one(x):
        return f(x, assume_a="pos")

    def loss(x):
        return (one(x) * h).sum()

    want = jax.grad(loss)(a[0])
    # under a promise the gradient is Hermitian
    np.testing.assert_array_equal(want, want.T)
    stem, _, p = name.partition(" ")
    if stem != "powm":
        rest = [int(p)] if p else []
        by_hand = getattr(lk.grad, f"{stem}_vjp")(
            np.asarray(a[0]), *rest, np.asarray(h), assume_a="pos"
        )
        np.testing.assert_allclose(want, by_hand.derivative, rtol=1e-11, atol=1e-11)
    close = {"rtol": 1e-11, "atol": 1e-11}

    @jax.jit
    def everything(a):
        return {
            "jit": jax.grad(loss)(a[0]), "jit in grad": jax.grad(jax.jit(loss))(a[0]),
            "vmap": jax.vmap(jax.value_and_grad(loss))(a)[1][0],
            "forward": jnp.einsum("ijkl,ij->kl", jax.jacfwd(one)(a[0]), h),
            "backward": jnp.einsum("ijkl,ij->kl", jax.jacrev(one)(a[0]), h),
        }  # fmt: skip

    @jax.jit
    def hessians(a):
        return {
            "hessian": jax.hessian(loss)(a[0]), "vmap": jax.vmap(jax.hessian(loss))(a)[0],
            "reverse": jax.jacrev(jax.jacrev(loss))(a[0]),
            "forward": jax.jacfwd(jax.jacfwd(loss))(a[0]),
        }  # fmt: skip

    for got in everything(a).values():
        np.testing.assert_allclose(got, want, **close)
    found = hessians(a)
    for got in found.values():
        np.testing.assert_allclose(got, found["hessian"], **close)


def test_transformations_of_the_others():
    a, g = matrices(), gaussian((2, 3, 2))
    losses = {
        "lyapunov": (lambda x: lk.solve_lyapunov(x, x @ x, assume_a="pos").sum(), a),
        "polar": (lambda x: (lk.polar(x).U ** 3).sum(), g),
        "orthogonalize": (lambda x: (lk.orthogonalize(x, coeffs="muon") ** 3).sum(), g),
        "bures": (lambda x: lk.bures_distance(x, jnp.diag(jnp.arange(1.0, 3.0)), squared=True), a),
    }
    for name, (loss, x) in losses.items():
        one = jax.jit(jax.grad(loss))
        want = jnp.stack([one(y) for y in x])
        np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(loss)))(x), want, rtol=1e-9, atol=1e-9)
        if name == "polar":
            both = [jax.hessian(loss), jax.jacrev(jax.jacrev(loss))]
            hessian, other = jax.jit(lambda x: [jax.vmap(f)(x) for f in both])(x)  # noqa: B023
            size = float(jnp.abs(hessian).max())
            np.testing.assert_allclose(other, hessian, rtol=1e-8, atol=1e-9 * size)


def test_in_axes_and_nested_maps():
    a = matrices()[None] * jnp.arange(1.0, 4.0)[:, None, None, None]
    f = jax.jit(jax.grad(lambda x: lk.sqrtm(x, assume_a="pos").sum()))
    want = jnp.stack([jnp.stack([f(y) for y in x]) for x in a])
    np.testing.assert_allclose(jax.vmap(jax.vmap(f))(a), want, rtol=1e-12)
    moved = jax.vmap(jax.vmap(f, in_axes=2, out_axes=2), in_axes=1, out_axes=1)
    # axes of the batch at 1 and, without it, 2
    got = moved(a.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_whitening_of_ones():
    """A singular covariance, whose other eigenvalues are all equal."""

    @jax.jit
    def whiten(x):
        c = jnp.einsum("bni,bnj->bij", x, x) / x.shape[1]
        w, info = lk.invsqrtm(c, assume_a="pos", rel_damp=1e-5, return_info=True)
        return x @ w, info.converged

    x = jnp.ones((4, 50, 3))
    g = jax.grad(lambda x: whiten(x)[0].sum())(x)
    assert g.shape == x.shape
    assert jnp.isfinite(g).all()
    assert whiten(x)[1].all()
    # scaling x does not change what is white
    np.testing.assert_allclose((g * x).sum(), 0, atol=1e-6)
    again = jax.jit(jax.grad(lambda x: (jax.grad(lambda y: whiten(y)[0].sum())(x) ** 2).sum()))(x)
    assert jnp.isfinite(again).all()
    q = jax.vmap(lambda c: lk.polar(c))(jnp.ones((7, 3, 3)))
    assert q.info.converged.shape == (7,)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("name", ["sqrtm", "invsqrtm", "logm"])
def test_scale_in_single_precision(name, dtype):
    """``L(c A, c E) = c^t L(A, E)``; the range of a dtype is not left on the way."""
    f, t = FUNCTIONS[name], {"sqrtm": 0.5, "invsqrtm": -0.5, "logm": 0}[name]
    a = jnp.asarray(spd_matrix(4, 10.0, dtype=dtype, rng=0))
    e = hermitian_part(gaussian((4, 4), dtype))

    @jax.jit
    def tangent(c):
        return jax.jvp(lambda x: f(x, assume_a="pos"), (c * a,), (c * e,))[1]

    want = np.asarray(tangent(np.float32(1)))
    assert want.dtype == dtype
    for k in (-100, 100):
        got = np.asarray(tangent(np.float32(2.0**k))) * np.float32(2.0 ** (-t * k))
        # condition 10
        assert relative_error(got, want) < 100 * np.finfo(dtype).eps * 10


# ---- failures ----


def test_bad_members_have_no_part():
    a = spd_matrix(3, 10.0, batch=(4,), rng=0)
    a[1, 0, 0] = np.nan
    a[2] = -np.eye(3)
    good, bad = [0, 3], [1, 2]
    losses = {
        **{k: lambda x, f=FUNCTIONS[k]: f(x, assume_a="pos") for k in ("inv_root 3",)},
        "lyapunov": lambda x: lk.solve_lyapunov(x, jnp.eye(3), assume_a="pos"),
        "bures": lambda x: lk.bures_distance(x, jnp.diag(jnp.arange(1.0, 4.0))),
    }
    for name, f in losses.items():
        g = jax.jit(jax.grad(lambda x, f=f: jnp.nansum(f(x))))(jnp.asarray(a))
        assert jnp.isfinite(g).all(), name
        want = jax.jit(jax.grad(lambda x, f=f: f(x).sum()))(jnp.asarray(a[good]))
        np.testing.assert_allclose(g[jnp.asarray(good)], want, rtol=1e-10, atol=1e-12)
        values = jax.jit(f)(jnp.asarray(a))[jnp.asarray(bad)]
        assert jnp.isnan(values).all(), name


def test_bad_members_of_rectangular_matrices():
    g = np.array(gaussian((3, 3, 2)))
    g[1, 0, 0] = np.inf
    for f in (lambda x: lk.polar(x).U, lambda x: lk.polar(x).H, lambda x: lk.orthogonalize(x)):
        found = jax.jit(jax.grad(lambda x, f=f: jnp.nansum(f(x) ** 3)))(jnp.asarray(g))
        assert jnp.isfinite(found).all()
        assert not found[1].any()


def test_finite_answers_have_finite_gradients():
    singular = jnp.stack([jnp.diag(jnp.asarray([1.0, 0, 0])), jnp.zeros((3, 3)), jnp.ones((3, 3))])
    for f in (
        lambda x: lk.sqrtm(x, assume_a="pos"),
        lambda x: lk.invsqrtm(x, assume_a="pos", damp=1e-3),
        lambda x: lk.invsqrtm(x, assume_a="pos", rcond=1e-10),
        lambda x: lk.powm(x, 2.5, assume_a="pos"),
        lambda x: lk.orthogonalize(x),
        lambda x: lk.polar(x).U,
        lambda x: lk.polar(x).H,
    ):

        @jax.jit
        def both(x, f=f):
            value, pull = jax.vjp(f, x)
            return value, pull(value)[0], jax.jvp(f, (x,), (x,))[1]

        for found in both(singular):
            assert jnp.isfinite(found).all()


@pytest.mark.parametrize("run", [jax.grad, lambda f: jax.jit(jax.grad(f)), jax.jacfwd])
def test_what_has_no_derivative_says_so(run):
    with pytest.raises(TypeError, match="signm: has no derivatives"):
        run(lambda a: lk.signm(a, assume_a="her").sum())(jnp.eye(3))
    for f in (lambda a: lk.bures_map(a, a).sum(), lambda a: lk.bures_barycenter(a[None]).sum()):
        with pytest.raises(TypeError, match="cannot be traced"):
            run(f)(jnp.eye(3))


def test_third_derivatives_are_refused():
    with pytest.raises(NotImplementedError, match="third derivatives"):
        jax.jit(jax.jacfwd(jax.hessian(lambda a: lk.sqrtm(a, assume_a="pos").sum())))(jnp.eye(2))


# ---- by hand ----


@pytest.mark.parametrize("name", ["sqrtm", "invsqrtm", "inv_root", "logm"])
def test_derivatives_by_hand_under_jit(name):
    rest = (3,) if name == "inv_root" else ()
    a, h = matrices(), gaussian((2, 2, 2))
    for mode in ("jvp", "vjp"):
        f = getattr(lk.grad, f"{name}_{mode}")

        def run(a, h, f=f):
            found = f(a, *rest, h, assume_a="pos")
            return found.value, found.derivative, found.info.converged

        want = f(np.asarray(a), *rest, np.asarray(h), assume_a="pos")
        runs = [jax.jit(run), jax.jit(jax.vmap(run))] if name == "sqrtm" else [jax.jit(run)]
        for value, derivative, good in (f(a, h) for f in runs):
            np.testing.assert_allclose(value, want.value, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(derivative, want.derivative, rtol=1e-10, atol=1e-11)
            assert good.all()


def test_other_derivatives_by_hand_under_jit():
    a, h = matrices(), gaussian((2, 2, 2))
    options = {"assume_a": "pos"}
    forward = jax.jit(lambda *x: tuple(lk.grad.solve_lyapunov_jvp(*x, **options)))
    backward = jax.jit(lambda *x: tuple(lk.grad.solve_lyapunov_vjp(*x, **options)))
    arrays = [np.asarray(x) for x in (a, h)]
    for got, want in (
        (forward(a, h, h, h), lk.grad.solve_lyapunov_jvp(arrays[0], *[arrays[1]] * 3, **options)),
        (backward(a, h, h), lk.grad.solve_lyapunov_vjp(arrays[0], *[arrays[1]] * 2, **options)),
    ):
        assert len(got) == len(want)
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11)
    g, e = gaussian((2, 4, 2)), gaussian((2, 4, 2), seed=1)
    du, dh = jax.jit(lambda g, e: lk.grad.polar_jvp(g, e).derivative)(g, e)
    want = lk.grad.polar_jvp(np.asarray(g), np.asarray(e)).derivative
    np.testing.assert_allclose(du, want[0], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(dh, want[1], rtol=1e-9, atol=1e-10)
    ga = jax.jit(lambda g, gu, gh: lk.grad.polar_vjp(g, gu, gh).derivative)(g, e, h)
    want = lk.grad.polar_vjp(np.asarray(g), np.asarray(e), np.asarray(h)).derivative
    np.testing.assert_allclose(ga, want, rtol=1e-9, atol=1e-10)
