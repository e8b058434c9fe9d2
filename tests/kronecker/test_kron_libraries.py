"""Kron in every library, and under JAX's transformations."""

import functools

import numpy as np
import pytest
from directions import gaussian

from linalgk import _xp
from linalgk.kronecker import _shifted
from linalgk.kronecker._kron import Kron


def make(n, kind, seed=0):
    a = gaussian((n, n), "float64", seed)
    if kind == "gen":
        return a
    return a + a.T if kind == "her" else a @ a.T + np.eye(n)


def dense(factors):
    def pair(a, b):
        c = a[..., :, None, :, None] * b[..., None, :, None, :]
        return c.reshape(*c.shape[:-4], c.shape[-4] * c.shape[-3], c.shape[-2] * c.shape[-1])

    return functools.reduce(pair, factors)


def jordan(n, value):
    return value * np.eye(n) + np.diag(np.ones(n - 1), 1)


@pytest.mark.parametrize("kind", ["pos", "gen"])
def test_solutions_and_determinants(xp, kind):
    # which JAX compiles step by step, for a second each
    jax = xp.__name__ == "jax.numpy"
    shifts = ([0.4] if kind == "pos" else [0]) if jax else [0, 0.4]
    hosts = [np.stack([make(2, kind, seed=i) for i in range(2)]), make(3, kind, seed=7)]
    K = Kron([xp.asarray(f) for f in hosts], assume_a=kind)
    D, host = dense(hosts), gaussian((6, 2))
    b = xp.asarray(host)
    for s in shifts:
        x = K.solve(b, s)
        assert type(x) is type(b)
        S = D + s * np.eye(6)
        assert np.allclose(_xp.to_numpy(x), np.linalg.solve(S, host))
        if jax and kind == "gen":
            continue
        sign, log = K.slogdet(s)
        assert type(log) is type(b)
        assert np.allclose(_xp.to_numpy(log), np.linalg.slogdet(S)[1])
        assert np.allclose(_xp.to_numpy(sign), np.linalg.slogdet(S)[0])
    if kind == "gen" and not jax:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_shifted, "EIGENVECTORS", 0.0)
            x = K.solve(b, 0.4j)
            assert np.allclose(_xp.to_numpy(x), np.linalg.solve(D + 0.4j * np.eye(6), host))


def test_jax_traces_products_solutions_and_determinants():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    factors = [jnp.asarray(make(2, "pos")), jnp.asarray(make(3, "pos", seed=1))]
    b = jnp.asarray(gaussian(6))
    D = dense([np.asarray(f) for f in factors])

    @functools.partial(jax.jit, static_argnums=3)
    def both(factors, b, s, kind):
        K = Kron(factors, assume_a=kind)
        return K @ b, K.solve(b, s), K.slogdet(s).logabsdet, K.solve(b), K.slogdet().sign

    for kind in ("pos", "gen"):
        y, x, log, plain, sign = both(factors, b, 0.3, kind)
        assert np.allclose(y, D @ b)
        assert np.allclose(x, np.linalg.solve(D + 0.3 * np.eye(6), b))
        assert np.allclose(plain, np.linalg.solve(D, b))
        assert np.allclose(log, np.linalg.slogdet(D + 0.3 * np.eye(6))[1])
        assert sign == 1
    # a failure is NaN
    y, x, log, plain, sign = both([factors[0], -factors[1]], b, 0.3, "pos")
    assert np.isfinite(y).all()
    assert np.isnan([*x, *plain, log, sign]).all()
    skew = factors[0].at[0, 1].add(1.0)
    assert np.isnan(both([skew, factors[1]], b, 0.3, "pos")[1]).all()
    defective = both([jnp.asarray(jordan(2, 1.0)), factors[1]], b, 0.3, "gen")[1]
    wanted = np.linalg.solve(dense([jordan(2, 1.0), np.asarray(factors[1])]) + 0.3 * np.eye(6), b)
    assert np.isnan(defective).all() or np.allclose(defective, wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="assume_a must be given"):
        both(factors, b, 0.3, None)
    # a product is a tree of its factors
    K = Kron(factors, assume_a="pos")
    assert np.allclose(jax.jit(lambda K, b: K @ b)(K, b), D @ b)
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda K: K.norm())(K)


@pytest.mark.parametrize("kind", ["pos", pytest.param("gen", marks=pytest.mark.slow)])
def test_jax_differentiates(kind):
    """The equation and not its steps: eigenvectors have no derivative at equal eigenvalues."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    twist = 0.7j * np.array([[0.0, 1.0], [-1.0, 0.0]])
    way = jnp.asarray(make(2, "her", 3) + twist if kind == "pos" else make(2, "gen", 3))
    other = make(3, "pos", 5) + (0.2j * (make(3, "gen") - make(3, "gen").T) if kind == "pos" else 0)
    b = jnp.asarray(gaussian(6, "complex128" if kind == "pos" else "float64"))

    def loss(t):
        K = Kron([jnp.eye(2) + t * way, jnp.asarray(other) + 0 * t], assume_a=kind)
        x = K.solve(b + 0 * t) if kind == "gen" else 0
        x = x + K.solve(b + 0 * t, 0.5 + t)
        return jnp.sum(jnp.real(x) ** 3 + jnp.imag(x)) + K.slogdet(0.5 + t).logabsdet

    h, value = 1e-5, jax.jit(loss)
    numeric = (value(h) - value(-h)) / (2 * h)
    assert np.isclose(jax.jit(jax.grad(loss))(0.0), numeric, rtol=1e-7)


def test_spectra_and_inverses(xp):
    hosts = [np.stack([make(2, "pos", i) for i in range(2)]), make(3, "pos", 7)]
    K, D = Kron([xp.asarray(f) for f in hosts]), dense(hosts)

    def host(x):
        return np.asarray(_xp.to_numpy(x))

    w, V = K.eigh()
    assert type(w) is type(K.factors[0])
    assert np.allclose(host(w), np.linalg.eigvalsh(D))
    assert np.allclose(host(K @ V.toarray()), host(V.toarray()) * host(w)[..., None, :])
    if xp.__name__ == "jax.numpy":
        return
    w, v = K.eigh(2)
    assert np.allclose(host(K @ v), host(v) * host(w)[..., None, :])
    U, S, Vh = K.svd()
    assert np.allclose(host(S), np.linalg.svd(D, compute_uv=False))
    assert np.allclose(host(U.toarray()) * host(S)[..., None, :] @ host(Vh.toarray()), D)
    assert np.allclose(host(K.svd(1).S)[:, 0], host(K.norm(2)))
    b = xp.asarray(gaussian((6, 2)))
    wanted = np.linalg.solve(D, host(b))
    x, residuals, rank, s = K.lstsq(b)
    for found in (x, K.pinv() @ b, K.inv() @ b, K.powm(-1) @ b):
        assert type(found) is type(b)
        assert np.allclose(host(found), wanted)
    assert host(rank).tolist() == [6, 6]
    assert type(residuals) is type(s) is type(rank) is type(b)
    for p in (2, 1, "fro"):
        assert np.allclose(host(K.cond(p)), np.linalg.cond(D, p))
        assert np.allclose(host(K.norm(p)), np.linalg.norm(D, p, axis=(1, 2)))
    L, R = K.cholesky(), K.sqrtm()
    assert np.allclose(host((L @ L.H).toarray()), D)
    assert np.allclose(host((R @ R).toarray()), D)
    assert np.allclose(host((K.inv_root(2) @ R).toarray()), np.eye(6))
    Q, T = K.qr()
    assert np.allclose(host((Q @ T).toarray()), D)


def test_a_device_keeps_its_arrays(cuda):
    """What the host copies are numbers about the factors."""
    hosts = [make(4, "pos"), make(5, "pos", 1)]
    D, b = dense(hosts), gaussian((20, 30))
    K = Kron([cuda.array(f) for f in hosts], assume_a="pos")
    general = Kron([cuda.array(make(4, "gen")), cuda.array(hosts[1])], assume_a=["gen", "pos"])
    G, x = dense([make(4, "gen"), hosts[1]]), cuda.array(b)
    for found, wanted in (
        (K @ x, D @ b), (K.solve(x), np.linalg.solve(D, b)),
        (K.solve(x, 0.5), np.linalg.solve(D + 0.5 * np.eye(20), b)),
        (general.solve(x), np.linalg.solve(G, b)),
        (general.solve(x, 0.5), np.linalg.solve(G + 0.5 * np.eye(20), b)),
        (K.slogdet().logabsdet, np.linalg.slogdet(D)[1]),
        (K.slogdet(2.0).logabsdet, np.linalg.slogdet(D + 2 * np.eye(20))[1]),
        (K.pinv() @ x, np.linalg.solve(D, b)), (K.lstsq(x).x, np.linalg.solve(D, b)),
        (K.eigh(3).eigenvalues, np.linalg.eigvalsh(D)[:-4:-1]), (K.norm(), np.linalg.norm(D)),
        (K.inv().toarray(), np.linalg.inv(D)), (K.cholesky().toarray(), np.linalg.cholesky(D)),
        (K[3:7, [0, 2]], D[3:7, [0, 2]]), (K.cond(1), np.linalg.cond(D, 1)),
    ):  # fmt: skip
        assert type(found) is type(x)
        assert np.allclose(cuda.host(found), wanted)
    if cuda.sizes is not None:
        assert max(cuda.sizes) <= 25


def test_tensors_that_were_written_to_are_factorized_again():
    torch = pytest.importorskip("torch")
    a = torch.eye(3, dtype=torch.float64)
    K = Kron([a, torch.eye(2, dtype=torch.float64)], assume_a="pos")
    assert np.allclose(K.solve(torch.ones(6, dtype=torch.float64)), 1.0)
    a.mul_(2)
    assert np.allclose(K.solve(torch.ones(6, dtype=torch.float64)), 0.5)
    with torch.inference_mode():
        assert Kron([torch.eye(2)]).solve(torch.ones(2), 1.0).tolist() == [0.5, 0.5]


def test_tensors_with_gradients_are_differentiated():
    torch = pytest.importorskip("torch")
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    way, b = torch.from_numpy(make(3, "her")), torch.from_numpy(gaussian(6))

    def loss(t, s):
        K = 2 * Kron([torch.eye(3, dtype=torch.float64) * 4 + t * way, torch.eye(2).double()])
        return (K.solve(b, s) * b).sum() + K.slogdet(s).logabsdet + (K @ b).pow(2).sum() + K.T[0, 0]

    def without_entries(t, s):
        K = 2 * Kron([torch.eye(3, dtype=torch.float64) * 4 + t * way, torch.eye(2).double()])
        return (K.solve(b, s) * b).sum() + K.slogdet(s).logabsdet + (b @ K).pow(2).sum()

    assert torch.autograd.gradcheck(without_entries, (t, s))
    with pytest.raises(TypeError, match="requires grad"):
        loss(t, s)
