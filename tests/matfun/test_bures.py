"""Bures-Wasserstein distance, map and barycentre: fifty digits, laws, libraries, bad input."""

import functools

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg

import linalgk as lk
from linalgk.matfun._bures import bures_barycenter, bures_distance, bures_map
from linalgk.matfun._bures_steps import choose_method, threshold
from linalgk.testing import psd_factor, random_matrix, spd_matrix

E = lk.errors
EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def hermitian(x):
    return 0.5 * (x + adjoint(x))


def unitary(n, dtype="float64", rng=0):
    return np.linalg.qr(random_matrix(n, dtype=dtype, rng=rng))[0]


def _eigh(a, **options):
    return (mp.eighe if any(mp.im(x) for x in a) else mp.eigsy)(a, **options)


@functools.cache
def _oracle(a, b, n, dtype, dps):
    with mp.workdps(dps):
        a, b = (mp.matrix(np.frombuffer(x, dtype).reshape(n, n).tolist()) for x in (a, b))
        w, q = _eigh(a)
        root = q * mp.diag([mp.sqrt(max(mp.re(x), 0)) for x in w]) * q.transpose_conj()
        inner = root * b * root
        w = _eigh((inner + inner.transpose_conj()) / 2, eigvals_only=True)
        square = sum(mp.re(a[i, i] + b[i, i]) for i in range(n))
        square -= 2 * sum(mp.sqrt(max(mp.re(x), 0)) for x in w)
        return float(mp.sqrt(max(square, 0)))


def oracle(a, b, dps=50):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return _oracle(a.tobytes(), b.tobytes(), len(a), a.dtype.str, dps)


# ---- distance: digits ----


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("kappa", [1e1, 1e4, 1e12])
def test_distances_to_fifty_digits(n, kappa, dtype):
    if kappa * EPS[dtype] > 1:
        pytest.skip("condition beyond 1/eps: rounding alone makes such a matrix indefinite")
    a = spd_matrix(n, kappa, dtype=dtype, rng=1)
    b = spd_matrix(n, kappa, dtype=dtype, rng=2) * np.asarray(1.5, a.real.dtype)
    d, info = bures_distance(a, b, return_info=True)
    assert d.dtype == a.real.dtype
    assert d.shape == ()
    # Higham 2002, theorem 10.3: A + dA with |dA| <= (n + 1) eps |A|, and a root of it
    bound = 10 * (n + 1) * EPS[dtype] * kappa**0.5 * np.linalg.norm(a, 2) ** 0.5
    assert abs(d - oracle(a, b)) <= bound
    assert info.converged
    assert np.isnan(info.residual)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-7, 1e-13])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_tiny_distances_keep_their_digits(gap, n, dtype):
    """The sum of traces would be all rounding from ``gap = eps^(1/2)`` on."""
    if gap < 4 * EPS[dtype]:
        pytest.skip("a gap below eps of this dtype: A + E rounds back to A")
    kappa = 10.0
    a = spd_matrix(n, kappa, dtype=dtype, rng=1)
    e = spd_matrix(n, 3.0, dtype=dtype, rng=2) * np.asarray(gap / kappa, a.real.dtype)
    b = hermitian(a + e).astype(dtype)
    d, info = bures_distance(a, b, return_info=True)
    want = oracle(a, b)
    assert 0 < want < gap
    # eigenvalues of A are off by a few n eps ||A||, relative to the smallest n eps kappa
    assert abs(d - want) <= 4 * n * EPS[dtype] * kappa * want
    assert info.method == "lyapunov"
    # the arguments' difference is the same from both sides, but for the order of sums
    assert abs(bures_distance(b, a) - want) <= 4 * n * EPS[dtype] * kappa * want


def test_tiny_distances_of_ill_conditioned_matrices():
    kappa, n, eps = 1e8, 5, EPS["float64"]
    a = spd_matrix(n, kappa, rng=3)
    w, v = np.linalg.eigh(a)
    along_large = hermitian(v @ np.diag([0, 0, 0, 0, 1e-9 * w[-1]]) @ v.T)
    d, info = bures_distance(a, a + along_large, return_info=True)
    # along the large eigenvalues the relative error does not see the condition, but for
    # the rounding of A + E itself, which the oracle shares
    assert abs(d / oracle(a, a + along_large) - 1) <= 1e3 * eps * kappa**0.5
    anywhere = spd_matrix(n, 3.0, rng=4) * 1e-4 / kappa
    d, info = bures_distance(a, a + anywhere, return_info=True)
    error = abs(d / oracle(a, a + anywhere) - 1)
    assert error <= 10 * eps * kappa
    assert error <= info.error_estimate * 10


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_rank_deficient_matrices(rank, dtype):
    n = 5
    f, g = (psd_factor(n, max(rank, 1), 10.0, dtype=dtype, rng=k) for k in (1, 2))
    f = f * min(rank, 1)
    a, b = hermitian(f @ adjoint(f)).astype(dtype), hermitian(g @ adjoint(g)).astype(dtype)
    full = spd_matrix(n, 10.0, dtype=dtype, rng=3)
    # a zero eigenvalue is known to n eps ||A||, its root to the root of that
    bound = 4 * (n * EPS[dtype]) ** 0.5
    for x, y in ((a, b), (b, a), (a, full), (full, a)):
        assert abs(bures_distance(x, y) - oracle(x, y)) <= bound
    near = (a * np.asarray(1 + 1e-3, a.real.dtype)).astype(dtype)
    assert abs(bures_distance(a, near) - oracle(a, near)) <= bound
    assert bures_distance(a, a) == 0


def test_low_rank_factors_give_the_procrustes_distance():
    f, g = random_matrix(8, rng=0)[:, :3], random_matrix(8, rng=1)[:, :3]
    sigma = np.linalg.svd(g.T @ f, compute_uv=False)
    want = (np.sum(f**2) + np.sum(g**2) - 2 * sigma.sum()) ** 0.5
    got = bures_distance(hermitian(f @ f.T), hermitian(g @ g.T))
    assert abs(got - want) <= (8 * 8 * EPS["float64"]) ** 0.5 * want


def test_fid_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 40)), 1.3 * rng.standard_normal((300, 40)) + 0.2
    m1, m2, s1, s2 = x.mean(0), y.mean(0), np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    fid = np.sum((m1 - m2) ** 2) + np.trace(s1 + s2 - 2 * root)
    got = bures_distance(s1, s2, mean_a=m1, mean_b=m2, squared=True)
    assert got == pytest.approx(fid, rel=1e-11)
    d = bures_distance(s1, s2, mean_a=m1, mean_b=m2)
    assert d**2 == pytest.approx(fid, rel=1e-11)


@pytest.fixture
def large(monkeypatch):
    """Orders above 32 count as large."""
    monkeypatch.setattr("linalgk.matfun._bures_steps.SERIAL", 32)


@pytest.mark.parametrize("gap", [1.0, 1e-2, 1e-9])
@pytest.mark.usefixtures("large")
def test_large_matrices(gap):
    n = 48
    a = spd_matrix(n, spectrum="wishart", rng=0)
    b = a + gap * spd_matrix(n, spectrum="wishart", rng=1)
    d, info = bures_distance(a, b, return_info=True)
    assert 0 < info.error_estimate < EPS["float64"] ** 0.75
    w, v = np.linalg.eigh(a)
    if gap == 1e-9:
        # the first order of the distance, whose second is a factor gap smaller
        e = v.T @ (b - a) @ v
        want = np.sqrt(np.sum(w * (e / (w[:, None] + w)) ** 2))
        assert d == pytest.approx(want, rel=100 * gap)
        assert info.method == "lyapunov"
    else:
        root = (v * np.sqrt(w)) @ v.T
        inner = np.linalg.eigvalsh(hermitian(root @ b @ root))
        want = np.trace(a + b) - 2 * np.sqrt(inner).sum()
        # what the subtraction leaves of n eps
        assert d**2 == pytest.approx(want, rel=20 * n * EPS["float64"] / gap**2)
        if gap == 1.0:
            assert info.method == "eigvalsh"


@pytest.mark.usefixtures("large")
def test_large_ill_conditioned_matrices_keep_singular_values():
    a, b = spd_matrix(40, 1e12, rng=0), spd_matrix(40, 1e12, rng=1)
    d, info = bures_distance(a, b, return_info=True)
    assert info.method == "svdvals"
    sigma = np.linalg.svd(lk.sqrtm(a) @ lk.sqrtm(b), compute_uv=False)
    want = np.trace(a + b) - 2 * sigma.sum()
    # the roots are good to eps kappa^(1/2)
    assert d**2 == pytest.approx(want, rel=40 * EPS["float64"] * 1e6)


def test_the_threshold_is_what_the_docstring_says():
    eps = EPS["float64"]
    assert threshold(256, eps) == 1 / 64
    assert threshold(257, eps) == eps**0.25
    assert [choose_method(n)[0] for n in (256, 257)] == ["svdvals", "eigvalsh"]


# ---- distance: laws ----


def test_distance_is_a_metric(dtype):
    a = spd_matrix(6, 1e3, batch=(7,), dtype=dtype, rng=0)
    d = bures_distance(a[:, None], a[None])
    tiny = 50 * EPS[dtype] * 1e3**0.5
    assert d.shape == (7, 7)
    np.testing.assert_allclose(d, d.T, atol=tiny)
    np.testing.assert_array_equal(np.diag(d), 0)
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + tiny).all()
    u = unitary(6, dtype)
    turned = hermitian(u @ a @ adjoint(u)).astype(dtype)
    np.testing.assert_allclose(bures_distance(turned[:, None], turned[None]), d, atol=tiny)


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("k", [-9, 1, 12])
def test_scaling_is_exact(n, k, dtype):
    a, b = spd_matrix(n, 1e2, batch=(2, 2), dtype=dtype, rng=0)
    near = (b * np.asarray(1 + 2.0**-10, b.real.dtype)).astype(dtype)
    factor = np.ldexp(1.0, 2 * k).astype(a.real.dtype)
    for other in (b, near):
        got = bures_distance(factor * a, factor * other)
        np.testing.assert_array_equal(got, np.ldexp(bures_distance(a, other), k))


def test_extreme_scales():
    a, b = spd_matrix(4, 10.0, batch=(2,), rng=0)
    d = bures_distance(a, b)
    assert (
        bures_distance(a * 2.0**1010, b, mean_a=a[0] * 1e200, mean_b=a[0], squared=True) == np.inf
    )
    for scale in (2.0**-1000, 2.0**1000):
        assert bures_distance(a * scale, b * scale) == d * scale**0.5
    assert bures_distance(a * 1e-300, b) == pytest.approx(np.trace(b) ** 0.5, rel=1e-14)
    small = (a * 2.0**100).astype("float32"), (b * 2.0**100).astype("float32")
    assert bures_distance(*small) == pytest.approx(d * 2.0**50, rel=1e-5)
    s = bures_barycenter(np.stack([a, b]) * 2.0**-1000)
    np.testing.assert_allclose(s * 2.0**1000, bures_barycenter(np.stack([a, b])), rtol=1e-10)


def test_commuting_matrices():
    u, rng = unitary(5, "complex128"), np.random.default_rng(0)
    p, q = rng.uniform(0.1, 3, (2, 5))
    a, b = (hermitian((u * w) @ adjoint(u)) for w in (p, q))
    want = np.linalg.norm(np.sqrt(p) - np.sqrt(q))
    assert bures_distance(a, b) == pytest.approx(want, rel=1e-14)
    np.testing.assert_allclose(bures_map(a, b), (u * np.sqrt(q / p)) @ adjoint(u), atol=1e-13)
    assert bures_distance(np.diag(p), np.diag(q), squared=True) == pytest.approx(want**2, rel=1e-14)


def test_means_add():
    a, b = spd_matrix(3, 10.0, batch=(2,), rng=0)
    m = np.array([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    d = bures_distance(a, b, mean_a=m, mean_b=np.zeros(3), squared=True)
    alone = bures_distance(a, b, squared=True)
    np.testing.assert_allclose(d, alone + np.array([25.0, 0.0]), rtol=1e-15)
    assert bures_distance(a, a, mean_a=m[0], mean_b=m[1]) == 5.0
    huge = bures_distance(a, b, mean_a=m * 1e200, mean_b=0 * m)
    np.testing.assert_allclose(huge, [5e200, alone**0.5], rtol=1e-14)


@pytest.mark.parametrize("power", [1.0, 0.5, 2, -0.7])
@pytest.mark.parametrize("with_metric", [False, True])
def test_metric_and_power_are_changes_of_variables(power, with_metric, dtype):
    a, b = spd_matrix(5, 20.0, batch=(2,), dtype=dtype, rng=0)
    m = spd_matrix(5, 20.0, dtype=dtype, rng=1) * 3 if with_metric else None
    w = lk.invsqrtm(m) if with_metric else np.eye(5, dtype=dtype)
    x, y = (hermitian(w @ lk.powm(c, power) @ w) for c in (a, b))
    options = {"metric": m, "power": power}
    tiny = 1e4 * EPS[dtype]
    assert bures_distance(a, b, **options) == pytest.approx(
        bures_distance(x, y) / abs(power), rel=tiny
    )
    assert bures_distance(a, b, squared=True, **options) == pytest.approx(
        bures_distance(x, y, squared=True) / power**2, rel=tiny
    )
    # a factor 4^k stays exact in the metric, whatever it is
    if power == 1:
        got = bures_distance(4 * a, 4 * b, metric=m)
        assert got == 2 * bures_distance(a, b, metric=m)


def test_generalized_distance_is_its_formula():
    a, b = spd_matrix(5, 20.0, batch=(2,), rng=0)
    m = spd_matrix(5, 20.0, rng=1)
    x, y = np.linalg.solve(m, a), np.linalg.solve(m, b)
    want = np.trace(x + y) - 2 * np.sqrt(np.linalg.eigvals(x @ y).real).sum()
    got = bures_distance(a, b, metric=m, squared=True)
    assert got == pytest.approx(want, rel=1e-11)
    # near matrices: the difference goes through the metric, and no digit with it
    for gap in (1e-6, 1e-9):
        near = a + gap * b
        w = lk.invsqrtm(m)
        want = oracle(hermitian(w @ a @ w), hermitian(w @ near @ w))
        assert bures_distance(a, near, metric=m) == pytest.approx(want, rel=1e-12 / gap)
    ratio = bures_distance(a, a + 1e-9 * b, metric=m) / bures_distance(a, a + 1e-8 * b, metric=m)
    assert ratio == pytest.approx(0.1, rel=1e-6)


# ---- map ----


@pytest.mark.parametrize("n", [1, 2, 12, 40])
def test_map_transports(n, dtype):
    a, b = spd_matrix(n, 1e2, batch=(2, 3), dtype=dtype, rng=0)
    t, info = bures_map(a, b, return_info=True)
    assert t.dtype == a.dtype
    np.testing.assert_array_equal(t, adjoint(t))
    assert (np.linalg.eigvalsh(t) > 0).all()
    bound = 10 * n * EPS[dtype] * 1e2
    error = np.linalg.norm(t @ a @ t - b, axis=(-2, -1)) / np.linalg.norm(b, axis=(-2, -1))
    assert (error <= bound).all()
    np.testing.assert_allclose(info.residual, error, atol=bound)
    # d^2 = tr (T - I) A (T - I)
    x = t - np.eye(n, dtype=dtype)
    square = np.trace(x @ a @ x, axis1=-2, axis2=-1).real
    np.testing.assert_allclose(
        square, bures_distance(a, b, squared=True), rtol=100 * bound, atol=bound**2
    )


@pytest.mark.parametrize("kappa", [1e1, 1e4, 1e8])
def test_map_is_known(kappa):
    """``B = C A C`` has the map C; through roots its error would be ``eps kappa^2``."""
    a, c = spd_matrix(8, kappa, rng=0), spd_matrix(8, 4.0, rng=1)
    t = bures_map(a, hermitian(c @ a @ c))
    np.testing.assert_allclose(t, c, atol=8 * EPS["float64"] * kappa)


def test_map_laws():
    a, b = spd_matrix(6, 1e2, batch=(2,), rng=0)
    t = bures_map(a, b)
    np.testing.assert_allclose(bures_map(b, a), np.linalg.inv(t), atol=1e-12)
    # the factor and the solve are good to n eps kappa
    bound = 6 * EPS["float64"] * 1e2
    np.testing.assert_allclose(bures_map(a, a), np.eye(6), atol=bound)
    np.testing.assert_array_equal(bures_map(a, 16 * b), 4 * t)
    np.testing.assert_array_equal(bures_map(a, 0 * b), 0 * b)
    low = psd_factor(6, 2, 10.0, rng=0)
    low = hermitian(low @ low.T)
    t = bures_map(a, low)
    assert np.linalg.norm(t @ a @ t - low) <= 1e-13 * 1e2


# ---- barycentre ----


def gradient(s, covs, weights):
    total = sum(w * bures_map(s, c) for w, c in zip(weights, covs, strict=True))
    return total - np.eye(len(s))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_barycentre_has_no_gradient(k, dtype):
    n = 5
    covs = spd_matrix(n, 10.0, batch=(k,), dtype=dtype, rng=0)
    weights = np.arange(1.0, k + 1)
    s, info = bures_barycenter(covs, weights, return_info=True)
    assert s.dtype == covs.dtype
    np.testing.assert_array_equal(s, adjoint(s))
    assert info.converged
    tol = EPS[dtype] ** 0.75
    g = gradient(s, covs, weights / weights.sum())
    # the change of F is F^-H grad, and the condition of F is at most 10^(1/2)
    assert np.linalg.norm(g) <= 50 * n * tol
    assert info.residual <= 20 * tol
    if k == 1:
        np.testing.assert_allclose(s, covs[0], atol=20 * EPS[dtype])


def test_barycentre_of_commuting_matrices():
    u, rng = unitary(6, "complex128"), np.random.default_rng(0)
    w = rng.uniform(0.1, 3, (4, 6))
    share = np.array([0.1, 0.2, 0.3, 0.4])
    covs = hermitian((u * w[:, None, :]) @ adjoint(u))
    s, info = bures_barycenter(covs, share, return_info=True)
    want = (u * (share @ np.sqrt(w)) ** 2) @ adjoint(u)
    np.testing.assert_allclose(s, want, atol=1e-13)
    assert info.iterations <= 2


def test_barycentre_laws():
    covs = spd_matrix(4, 30.0, batch=(5,), rng=0)
    weights = np.array([1.0, 2.0, 0.0, 1.0, 3.0])
    s = bures_barycenter(covs, weights)
    order = [3, 0, 4, 1, 2]
    near = {"rtol": 0, "atol": 1e-10}
    np.testing.assert_allclose(bures_barycenter(covs[order], weights[order]), s, **near)
    np.testing.assert_allclose(
        bures_barycenter(covs[[0, 1, 3, 4]], weights[[0, 1, 3, 4]]), s, **near
    )
    np.testing.assert_allclose(bures_barycenter(list(covs), 7 * weights), s, **near)
    np.testing.assert_allclose(bures_barycenter(covs, weights, start=np.eye(4)), s, **near)
    u = unitary(4)
    turned = bures_barycenter(hermitian(u @ covs @ u.T), weights)
    np.testing.assert_allclose(turned, u @ s @ u.T, **near)
    # two matrices: the point of the geodesic, ((1 - t) I + t T) A ((1 - t) I + t T)
    a, b = covs[:2]
    step = 0.7 * np.eye(4) + 0.3 * bures_map(a, b)
    np.testing.assert_allclose(bures_barycenter([a, b], [0.7, 0.3]), step @ a @ step, **near)
    d = bures_distance(a, bures_barycenter([a, b], [0.7, 0.3]))
    assert d == pytest.approx(0.3 * bures_distance(a, b), rel=1e-9)


def test_barycentre_in_other_geometries():
    covs, m = spd_matrix(4, 10.0, batch=(3,), rng=0), spd_matrix(4, 10.0, rng=1)
    root, inverse = lk.sqrtm(m), lk.invsqrtm(m)
    for power in (1.0, 0.5, -0.6):
        inner = bures_barycenter(hermitian(inverse @ lk.powm(covs, power) @ inverse))
        want = lk.powm(hermitian(root @ inner @ root), 1 / power)
        got = bures_barycenter(covs, metric=m, power=power)
        np.testing.assert_allclose(got, want, atol=1e-10)


def test_barycentre_of_singular_matrices():
    f = psd_factor(5, 3, 4.0, rng=0)
    a = hermitian(f @ f.T)
    covs = np.stack([a, 4 * a, 9 * a])
    np.testing.assert_allclose(bures_barycenter(covs), 4 * a, atol=1e-7)
    np.testing.assert_array_equal(bures_barycenter(np.zeros((2, 3, 3))), np.zeros((3, 3)))


def test_barycentre_batches_and_weights():
    covs = spd_matrix(4, 1e2, batch=(2, 3, 5), rng=0)
    weights = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 5))
    s, info = bures_barycenter(covs, weights, return_info=True)
    assert s.shape == (2, 3, 4, 4)
    assert info.iterations.shape == info.residual.shape == (2, 3)
    for i in np.ndindex(2, 3):
        alone, one = bures_barycenter(covs[i], weights[i], return_info=True)
        np.testing.assert_array_equal(alone, s[i])
        assert one.iterations == info.iterations[i]


def test_callback_and_max_iter():
    covs = spd_matrix(5, 1e3, batch=(3,), rng=0)
    seen = []
    s, info = bures_barycenter(covs, callback=seen.append, return_info=True)
    assert [state.iteration for state in seen] == list(range(1, int(info.iterations) + 1))
    changes = [float(state.change[0]) for state in seen]
    assert changes == sorted(changes, reverse=True)
    assert seen[-1].converged.all()
    early, info = bures_barycenter(covs, callback=lambda x: x.iteration == 2, return_info=True)
    assert (int(info.iterations), bool(info.converged)) == (2, False)
    np.testing.assert_allclose(early, s, rtol=0, atol=0.1)

    def stop(state):
        raise StopIteration

    assert np.isfinite(bures_barycenter(covs, callback=stop)).all()
    _, info = bures_barycenter(covs, tol=1e-2, return_info=True)
    assert info.iterations < len(seen)
    with pytest.raises(E.NotConvergedError, match="raise max_iter"):
        bures_barycenter(covs, max_iter=2)
    with pytest.warns(E.ConvergenceWarning, match="relative change of"):
        s = bures_barycenter(covs, max_iter=2, on_fail="warn")
    assert np.isnan(s).all()


# ---- batches, layouts, libraries ----


def test_broadcasting_and_members_alone():
    a, b = spd_matrix(5, 1e2, batch=(4, 1), rng=0), spd_matrix(5, 1e2, batch=(3,), rng=1)
    b[1] = a[2, 0] * (1 + 1e-9)
    d, t = bures_distance(a, b), bures_map(a, b)
    assert d.shape == (4, 3)
    assert t.shape == (4, 3, 5, 5)
    for i, j in np.ndindex(4, 3):
        assert d[i, j] == bures_distance(a[i, 0], b[j])
        np.testing.assert_array_equal(t[i, j], bures_map(a[i, 0], b[j]))
    m = np.arange(10.0).reshape(2, 1, 1, 5)
    assert bures_distance(a, b, mean_a=m, mean_b=np.zeros(5)).shape == (2, 4, 3)


def test_chunks_do_not_show(monkeypatch):
    a = spd_matrix(4, 1e2, batch=(9,), rng=0)
    want = bures_distance(a[:, None], a[None])
    monkeypatch.setattr("linalgk.matfun._bures_steps._CHUNK", 7 * 16)
    np.testing.assert_array_equal(bures_distance(a[:, None], a[None]), want)


def test_layouts(dtype):
    a, b = spd_matrix(4, 1e2, batch=(2, 3), dtype=dtype, rng=0)
    functions = (bures_distance, bures_map, lambda x, y: bures_barycenter(np.stack([x, y])))
    want = [f(a, b) for f in functions]
    wide = np.zeros((3, 8, 12), dtype)
    wide[:, ::2, ::3] = a
    read_only = a.copy()
    read_only.flags.writeable = False
    for same in (
        np.asfortranarray(a),
        wide[:, ::2, ::3],
        read_only,
        a.astype(a.dtype.newbyteorder()),
    ):
        before = same.copy()
        for f, x in zip(functions, want, strict=True):
            np.testing.assert_array_equal(f(same, b), x)
        np.testing.assert_array_equal(same, before)


def test_empty(dtype):
    for shape in ((0, 4, 4), (3, 0, 0), (2, 0, 3, 3), (0, 0)):
        x = np.empty(shape, dtype)
        d, _ = bures_distance(x, x, return_info=True)
        assert d.shape == shape[:-2]
        assert d.dtype == x.real.dtype
        assert not d.any()
        assert bures_map(x, x).shape == shape
        assert bures_map(x, x).dtype == dtype
        s = bures_barycenter([x, x], return_info=True)[0]
        assert s.shape == shape
        assert s.dtype == dtype


def test_integers_numbers_and_mixed_dtypes():
    assert bures_distance([[4, 0], [0, 9]], [[1, 0], [0, 1]], squared=True) == pytest.approx(5.0)
    assert bures_distance(np.eye(2, dtype=int), np.eye(2, dtype=int)).dtype == np.float64
    a = spd_matrix(3, 10.0, dtype="float32", rng=0)
    b = spd_matrix(3, 10.0, dtype="complex128", rng=1)
    assert bures_distance(a, b).dtype == np.float64
    assert bures_map(a, b).dtype == np.complex128
    assert bures_barycenter([a, b]).dtype == np.complex128
    assert bures_barycenter([[[4.0]], [[16.0]]]) == 9.0


def test_other_libraries(xp):
    n = 4
    a, b = spd_matrix(n, 1e2, batch=(2, 2), rng=0)
    b[1] = a[1] * (1 + 1e-9)
    x, y = xp.asarray(a), xp.asarray(b)
    got, info = bures_distance(x, y, return_info=True)
    assert type(got) is type(x)
    assert type(info.converged) is type(x)
    np.testing.assert_allclose(np.asarray(got), bures_distance(a, b), rtol=1e-10)
    got, info = bures_map(x, y, return_info=True)
    assert type(got) is type(x)
    np.testing.assert_allclose(np.asarray(got), bures_map(a, b), atol=1e-10)
    m, mean = xp.asarray(spd_matrix(n, 3.0, rng=2)), xp.asarray(np.ones(n))
    options = {"metric": m, "mean_a": mean, "mean_b": 0 * mean, "power": 0.5}
    got = bures_distance(x, y, **options)
    options |= {name: np.asarray(options[name]) for name in ("metric", "mean_a", "mean_b")}
    np.testing.assert_allclose(np.asarray(got), bures_distance(a, b, **options), rtol=1e-7)
    got, info = bures_barycenter([x[0, ...], y[0, ...]], return_info=True)
    assert type(got) is type(info.residual) is type(x)
    np.testing.assert_allclose(np.asarray(got), bures_barycenter([a[0], b[0]]), atol=1e-9)
    with pytest.raises(E.NotPositiveSemidefiniteError) as caught:
        bures_distance(x, -y)
    assert caught.value.index == ((0,), (1,))


def test_float32_libraries(xp):
    a = spd_matrix(3, 10.0, dtype="complex64", batch=(2,), rng=0)
    got = bures_distance(xp.asarray(a[0]), xp.asarray(a[1]))
    assert str(got.dtype).rpartition(".")[2] == "float32"
    assert float(got) == pytest.approx(float(bures_distance(a[0], a[1])), rel=1e-5)


def test_jax_traces_the_distance_alone():
    jax = pytest.importorskip("jax")
    a, b = (jax.numpy.asarray(spd_matrix(5, 10.0, rng=k)) for k in range(2))
    want = float(bures_distance(np.asarray(a), np.asarray(b)))
    # the traced form cancels, by tr(A + B) over the square of the distance
    eps = float(jax.numpy.finfo(a.dtype).eps)
    bound = 50 * eps * float(jax.numpy.trace(a + b)) / want**2
    assert abs(float(jax.jit(bures_distance)(a, b)) - want) <= bound * want
    with pytest.raises(TypeError, match="covs: bures_barycenter looks at values"):
        jax.jit(lk.bures_barycenter)(jax.numpy.stack([a, b]))
