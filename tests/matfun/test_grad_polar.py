"""Derivatives of polar factors and of Lyapunov equations by hand."""

import mpmath
import numpy as np
import pytest
from directions import adjoint, gaussian, hermitian_part, inner

import linalgk as lk
from linalgk import grad
from linalgk.testing import random_matrix, relative_error, spd_matrix

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
SHAPES = [(4, 4), (7, 4), (4, 7), (1, 1), (3, 1), (1, 3)]


def conditioned(shape, kappa, dtype, seed=0):
    """Singular values from 1 down to 1/kappa."""
    w, _, vh = np.linalg.svd(gaussian(shape, dtype, seed), full_matrices=False)
    s = np.geomspace(1, 1 / kappa, min(shape)) if min(shape) > 1 else np.ones(1)
    return ((w * s) @ vh).astype(dtype)


# ---- polar factors ----


def mp_polar(a, e, dps=50):
    """Tangents of ``A = U H``, m >= n, by singular vectors of so many digits."""
    with mpmath.workdps(dps):
        m, n = a.shape
        a, e = mpmath.matrix(a.tolist()), mpmath.matrix(e.tolist())
        w, s, vh = mpmath.svd_c(a + 0j)
        v = vh.transpose_conj()
        g = w.transpose_conj() * e * v
        inside, sym = mpmath.matrix(n, n), mpmath.matrix(n, n)
        for i in range(n):
            for j in range(n):
                inside[i, j] = (g[i, j] - mpmath.conj(g[j, i])) / (s[i] + s[j])
                sym[i, j] = g[i, j] - inside[i, j] * s[j]
        du = w * inside * vh
        if m > n:
            out = e - w * (w.transpose_conj() * e)
            du += out * v * mpmath.diag([1 / x for x in s]) * vh
        dh = v * sym * vh
        return [np.array([[complex(x[i, j]) for j in range(n)] for i in range(x.rows)])
                for x in (du, dh)]  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kappa", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_polar_to_fifty_digits(shape, side, kappa, dtype):
    kappa = min(kappa, 1e3) if dtype == "float32" else kappa
    a, e = conditioned(shape, kappa, dtype), gaussian(shape, dtype, 1)
    value, (du, dh) = grad.polar_jvp(a, e, side=side)
    assert du.dtype == dh.dtype == a.dtype
    wide = shape[0] < shape[1]
    want_u, want_h = mp_polar(adjoint(a), adjoint(e)) if wide else mp_polar(a, e)
    # a factor's derivative has the size 1/s_n, and s_n itself moves by eps
    bound = 20 * EPS[dtype] * kappa
    assert relative_error(du, adjoint(want_u) if wide else want_u) <= bound
    if wide == (side == "left"):
        assert relative_error(dh, want_h) <= bound
    else:
        # H on the longer side is the product of the others
        u, _ = value
        want = want_u @ a + adjoint(u) @ e if wide else e @ adjoint(u) + a @ adjoint(want_u)
        assert relative_error(dh, hermitian_part(want)) <= 10 * bound


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_polar_product_rules(shape, side, dtype):
    a, e = gaussian((2, 3, *shape), dtype), gaussian((2, 3, *shape), dtype, 1)
    found = grad.polar_jvp(a, e, side=side)
    (u, h), (du, dh) = found
    want = lk.polar(a, side=side)
    np.testing.assert_array_equal(u, want.U)
    np.testing.assert_array_equal(h, want.H)
    assert du.shape == u.shape
    assert dh.shape == h.shape
    assert found.info.converged.shape == (2, 3)
    # 1/s_n of these matrices is below 1e3
    tol = 1e3 * EPS[dtype] * np.linalg.norm(e)
    product = du @ h + u @ dh if side == "right" else dh @ u + h @ du
    assert np.linalg.norm(product - e) <= 100 * tol
    small = adjoint(u) @ du if shape[0] >= shape[1] else u @ adjoint(du)
    assert np.linalg.norm(small + adjoint(small)) <= 100 * tol
    assert np.linalg.norm(dh - adjoint(dh)) <= tol


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_polar_backward_is_the_adjoint(shape, side, dtype):
    a, e = gaussian((2, *shape), dtype), gaussian((2, *shape), dtype, 1)
    (u, h), (du, dh) = grad.polar_jvp(a, e, side=side)
    gu, gh = gaussian(u.shape, dtype, 2), gaussian(h.shape, dtype, 3)
    back = grad.polar_vjp(a, gu, gh, side=side)
    left = inner(gu, du) + inner(gh, dh)
    size = np.linalg.norm(gu) * np.linalg.norm(du) + np.linalg.norm(gh) * np.linalg.norm(dh)
    assert abs(left - inner(back.derivative, e)) <= 1e3 * EPS[dtype] * size
    np.testing.assert_array_equal(back.value.U, u)
    # of gh the Hermitian part counts
    again = grad.polar_vjp(a, gu, hermitian_part(gh), side=side).derivative
    assert relative_error(again, back.derivative).max() <= 100 * EPS[dtype]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_polar_against_differences(dtype):
    a, e, h = gaussian((5, 3), dtype), gaussian((5, 3), dtype, 1), 1e-5
    for side in ("right", "left"):
        ahead, behind = (lk.polar(a + t * e, side=side) for t in (h, -h))
        for got, x, y in zip(
            grad.polar_jvp(a, e, side=side).derivative, ahead, behind, strict=True
        ):
            # h^2 of the third derivative, and eps/h
            assert relative_error(got, (x - y) / (2 * h)) < 1e-7


def test_the_nuclear_norm_has_the_gradient_u():
    a = gaussian((6, 4), "float64")
    back = grad.polar_vjp(a, np.zeros((6, 4)), np.eye(4))
    assert relative_error(back.derivative, back.value.U) < 50 * EPS["float64"]


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_polar_of_singular_matrices_is_finite(shape, side, rank, dtype):
    m, n = shape
    a = gaussian((m, rank), dtype) @ gaussian((rank, n), dtype, 1)
    e = gaussian(shape, dtype, 2)
    (u, h), (du, dh) = grad.polar_jvp(a, e, side=side)
    ga = grad.polar_vjp(a, gaussian(u.shape, dtype), gaussian(h.shape, dtype), side=side).derivative
    for x in (du, dh, ga):
        assert np.isfinite(x).all()
        # singular values that rounding left count as zero
        assert np.abs(x).max() < 1e6
    if rank == 0:
        assert not du.any()


def test_polar_of_bad_input():
    a, e = gaussian((3, 4, 3), "float64"), gaussian((3, 4, 3), "float64", 1)
    good = grad.polar_jvp(a[[0, 2]], e[[0, 2]])
    a[1, 0, 0] = np.nan
    with pytest.raises(lk.errors.NonFiniteError):
        grad.polar_jvp(a, e)
    with pytest.raises(lk.errors.NonFiniteError):
        grad.polar_vjp(a, e, np.zeros((3, 3, 3)))
    (_, _), (du, dh) = found = grad.polar_jvp(a, e, on_fail="nan")
    assert found.info.converged.tolist() == [True, False, True]
    assert np.isnan(du[1]).all()
    assert np.isnan(dh[1]).all()
    np.testing.assert_allclose(du[[0, 2]], good.derivative[0], rtol=1e-10, atol=1e-13)
    e[1] = 0
    assert np.isfinite(grad.polar_jvp(a, e, on_fail="nan").derivative[0]).all()
    gh = gaussian((3, 3, 3), "float64")
    back = grad.polar_vjp(a, e, gh, on_fail="nan").derivative
    assert np.isnan(back[1]).all()
    assert np.isfinite(back[[0, 2]]).all()
    gh[1] = 0
    assert not grad.polar_vjp(a, e, gh, on_fail="nan").derivative[1].any()
    with pytest.raises(ValueError, match="da: must have shape"):
        grad.polar_jvp(np.ones((3, 4, 3)), e[0])
    with pytest.raises(ValueError, match="gh: must have shape"):
        grad.polar_vjp(e, e, e)
    with pytest.raises(ValueError, match="side"):
        grad.polar_jvp(e, e, side="above")
    for shape in ((0, 4, 3), (2, 0, 3), (2, 3, 0), (0, 0)):
        found = grad.polar_jvp(np.ones(shape), np.ones(shape))
        assert found.derivative[0].shape == shape
        assert found.derivative[1].shape == (*shape[:-2], shape[-1], shape[-1])
        assert not found.derivative[1].any()
        back = grad.polar_vjp(np.ones(shape), np.ones(shape), np.ones(found.value.H.shape))
        assert back.derivative.shape == shape


def test_polar_kinds_and_libraries():
    strict = pytest.importorskip("array_api_strict")
    a, e = gaussian((5, 3), "float64"), gaussian((5, 3), "float64", 1)
    want = grad.polar_jvp(a, e).derivative
    got = grad.polar_jvp(strict.asarray(a), strict.asarray(e)).derivative
    for x, y in zip(got, want, strict=True):
        assert type(x) is type(strict.asarray(a))
        assert relative_error(np.asarray(x), y) < 1e3 * EPS["float64"]
    with pytest.raises(TypeError, match="da"):
        grad.polar_jvp(strict.asarray(a), e)
    whole = grad.polar_jvp(np.round(3 * a).astype(int), np.ones((5, 3), int))
    assert whole.derivative[0].dtype == "float64"
    turned = grad.polar_jvp(np.asfortranarray(a), e[::-1][::-1]).derivative
    for x, y in zip(turned, want, strict=True):
        np.testing.assert_array_equal(x, y)


# ---- Lyapunov equations ----


@pytest.mark.parametrize("general", [False, True])
def test_lyapunov_product_rule(general, dtype):
    a = (random_matrix if general else spd_matrix)(6, 10.0, dtype=dtype, rng=0)
    a = a + np.eye(6, dtype=dtype) * (12 if general else 0)
    q, da, dq = (gaussian((6, 6), dtype, k) for k in range(3))
    found = grad.solve_lyapunov_jvp(a, q, da, dq)
    x, dx = found
    np.testing.assert_array_equal(x, lk.solve_lyapunov(a, q))
    left = a @ dx + dx @ adjoint(a)
    right = dq - da @ x - x @ adjoint(da)
    assert relative_error(left, right) < 1e3 * EPS[dtype]
    g = gaussian((6, 6), dtype, 7)
    back = grad.solve_lyapunov_vjp(a, q, g)
    value, by_a, by_q = back
    np.testing.assert_array_equal(value, x)
    total = inner(by_a, da) + inner(by_q, dq)
    assert abs(inner(g, dx) - total) <= 1e3 * EPS[dtype] * np.linalg.norm(g) * np.linalg.norm(dx)
    assert back.derivative is by_a


@pytest.mark.parametrize("assume_a", ["her", "pos"])
def test_lyapunov_under_a_promise(assume_a):
    a, q = spd_matrix(4, 10.0, rng=0), gaussian((4, 4), "float64")
    da, dq, g = (gaussian((4, 4), "float64", k) for k in (1, 2, 3))
    got = grad.solve_lyapunov_jvp(a, q, da, dq, assume_a=assume_a).derivative
    want = grad.solve_lyapunov_jvp(a, q, hermitian_part(da), dq).derivative
    assert relative_error(got, want) < 100 * EPS["float64"]
    _, by_a, by_q = grad.solve_lyapunov_vjp(a, q, g, assume_a=assume_a)
    np.testing.assert_array_equal(by_a, by_a.T)
    left = inner(g, got)
    assert inner(by_a, da) + inner(by_q, dq) == pytest.approx(left, rel=1e-12)


@pytest.mark.parametrize(
    ("shape_a", "shape_q"),
    [((4, 4), (3, 4, 4)), ((3, 4, 4), (4, 4)), ((2, 1, 4, 4), (3, 4, 4)), ((0, 4, 4), (4, 4))],
)
def test_lyapunov_broadcasts(shape_a, shape_q):
    a = np.broadcast_to(spd_matrix(4, 10.0, rng=0), shape_a) + 0
    q, dq = gaussian(shape_q, "float64"), gaussian(shape_q, "float64", 1)
    da = gaussian(shape_a, "float64", 2)
    x, dx = grad.solve_lyapunov_jvp(a, q, da, dq)
    batch = np.broadcast_shapes(shape_a, shape_q)
    assert dx.shape == x.shape == batch
    g = gaussian(batch, "float64", 3)
    _, by_a, by_q = grad.solve_lyapunov_vjp(a, q, g)
    assert by_a.shape == shape_a
    assert by_q.shape == shape_q
    # sums over what was broadcast
    total = inner(by_a, da) + inner(by_q, dq)
    assert total == pytest.approx(inner(g, dx), rel=1e-12, abs=1e-15)


def test_lyapunov_of_bad_input():
    a, q = spd_matrix(3, 10.0, batch=(2,), rng=0), gaussian((2, 3, 3), "float64")
    singular = np.diag([1.0, -1.0, 2.0])
    with pytest.raises(lk.errors.SingularMatrixError):
        grad.solve_lyapunov_jvp(singular, q[0], q[0], q[0])
    bad = a.copy()
    bad[1, 0, 0] = np.nan
    with pytest.raises(lk.errors.NonFiniteError):
        grad.solve_lyapunov_vjp(bad, q, q)
    found = grad.solve_lyapunov_vjp(bad, q, q, on_fail="nan")
    want = grad.solve_lyapunov_vjp(a, q, q)
    for x, y in zip(found, want, strict=True):
        np.testing.assert_allclose(x[0], y[0], rtol=1e-11, atol=1e-14)
        assert np.isnan(x[1]).all()
    assert found.info.converged.tolist() == [True, False]
    with pytest.raises(ValueError, match="q"):
        grad.solve_lyapunov_jvp(a, q[..., :2], a, q)
    with pytest.raises(TypeError):
        grad.solve_lyapunov_jvp(a, q, "da", q)
    whole = grad.solve_lyapunov_jvp(
        [[2, 0], [0, 1]], [[4, 0], [0, 2]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]
    )
    np.testing.assert_allclose(whole.derivative, [[0, 0], [0, -1]], atol=1e-15)
