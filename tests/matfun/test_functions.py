"""Inverse roots, powers, signs and logarithms: oracles, identities, batches, layouts, libraries."""

import functools
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg

import linalgk as lk
from linalgk.testing import mp_funm, random_matrix, relative_error, spd_matrix

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
ROOT_METHODS = ["auto", "eigh", "minimax", "newton_schulz", "pade"]
ROOTS = [1, 2, 3, 4, 8, Fraction(4, 3), Fraction(5, 2)]


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


@functools.cache
def hermitian(kappa, dtype, n=16):
    return spd_matrix(n, kappa, dtype=dtype, rng=3)


@functools.cache
def indefinite(kappa, dtype, n=12):
    """Eigenvalues of both signs, |lambda| from 1/kappa to 1."""
    a = spd_matrix(n, kappa, dtype="complex128" if "complex" in dtype else "float64", rng=5)
    w, v = np.linalg.eigh(a)
    a = (v * np.where(np.arange(n) % 3 == 1, -w, w)) @ adjoint(v)
    return (0.5 * (a + adjoint(a))).astype(dtype)


def power(t):
    t = Fraction(t)

    def function(x):
        from mpmath import mp

        return mp.power(x, mp.mpf(t.numerator) / t.denominator)

    return function


# ---- inverse roots ----


@pytest.mark.parametrize("p", ROOTS, ids=str)
@pytest.mark.parametrize("method", ROOT_METHODS)
@pytest.mark.parametrize(
    ("dtype", "kappa"),
    # beyond 1/eps a lower precision matrix is not definite any more
    [
        (dtype, kappa)
        for dtype in EPS
        for kappa in (1e1, 1e3, 1e6, 1e9, 1e12, 1e15)
        if kappa * EPS[dtype] < 1
    ],
)
def test_inverse_roots_to_fifty_digits(p, method, kappa, dtype):
    a = hermitian(kappa, dtype)
    got, info = lk.inv_root(a, p, method=method, return_info=True)
    want = mp_funm(a, power(-1 / Fraction(p)), least=0)
    assert got.dtype == a.dtype
    np.testing.assert_array_equal(got, adjoint(got))
    # Higham 2008, section 7.1: the condition number of A^t is at most about |t| kappa
    bound = 10 * EPS[dtype] * kappa * max(1, float(1 / Fraction(p)))
    assert relative_error(got, want) <= bound
    assert info.converged
    assert info.error_estimate >= 0


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 8, Fraction(4, 3)], ids=str)
@pytest.mark.parametrize("method", ["auto", "eigh", "minimax", "newton_schulz", "pade", "db"])
def test_roots_of_two_i(p, method):
    """(15 I - 10 P + 3 P^2)/8 with the wrong coupling gives A^(-1/2) for every p."""
    if method == "db" and p not in (1, 2, 4, 8):
        with pytest.raises(ValueError, match="p = 2, 4, 8"):
            lk.inv_root(np.eye(3), p, method=method)
        return
    a = 2 * np.eye(5) + 1e-9 * (1 - np.eye(5))
    got = lk.inv_root(a, p, method=method)
    want = mp_funm(a, power(-1 / Fraction(p)))
    assert relative_error(got, want) < 40 * EPS["float64"]
    exact = lk.inv_root(2 * np.eye(5), p)
    assert relative_error(exact, 2.0 ** float(-1 / Fraction(p)) * np.eye(5)) <= EPS["float64"]


@pytest.mark.parametrize("n", [1, 2, 5, 32, 33, 70])
@pytest.mark.parametrize("p", [3, 4, Fraction(4, 3)], ids=str)
@pytest.mark.parametrize("k", [-9, 1, 9])
def test_scaling_inverse_roots_is_exact(n, p, k, dtype):
    a = spd_matrix(n, 10.0, dtype=dtype, rng=4)
    p = Fraction(p)
    got = lk.inv_root(np.ldexp(1.0, p.numerator * k).astype(a.real.dtype) * a, p)
    want = np.ldexp(1.0, -p.denominator * k).astype(a.real.dtype) * lk.inv_root(a, p)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("p", [2, 3, 4, 8])
def test_inverse_roots_are_what_they_say(p, dtype):
    a = spd_matrix(20, 1e3, batch=(2, 3), dtype=dtype, rng=1)
    z, info = lk.inv_root(a, p, return_info=True)
    defect = np.linalg.matrix_power(z, p) @ a - np.eye(20)
    assert (np.linalg.norm(defect, axis=(-2, -1)) / 20**0.5 < 20 * p * EPS[dtype] * 1e3).all()
    assert info.residual.shape == (2, 3)
    z2 = lk.inv_root(a, 2)
    assert relative_error(lk.inv_root(a, 4) @ lk.inv_root(a, 4), z2).max() < 40 * EPS[dtype] * 1e3


def test_damping_and_pseudo_inverse_roots():
    a = np.diag([16.0, 1.0, 0.0]) + 0j
    rotation = np.linalg.qr(random_matrix(3, rng=0))[0]
    a = (rotation @ a.real @ rotation.T + 0.0).round(15)
    a = 0.5 * (a + a.T)
    with pytest.raises(lk.errors.SingularMatrixError):
        lk.inv_root(a, 4)
    got = lk.inv_root(a, 4, rcond=1e-10)
    want = rotation @ np.diag([0.5, 1.0, 0.0]) @ rotation.T
    np.testing.assert_allclose(got, want, atol=1e-12)
    damped = lk.inv_root(a, 4, rel_damp=1 / 16)
    want = rotation @ np.diag([17**-0.25, 2**-0.25, 1.0]) @ rotation.T
    np.testing.assert_allclose(damped, want, atol=1e-12)
    np.testing.assert_allclose(lk.inv_root(a, 4, damp=1.0), want, atol=1e-12)


def test_mixed_batches_stop_member_by_member():
    easy, hard = spd_matrix(10, 1.5, rng=0), spd_matrix(10, 1e6, rng=0)
    batch = np.stack([easy, hard, easy])
    z, info = lk.inv_root(batch, 4, return_info=True)
    assert info.iterations[0] == info.iterations[2] < info.iterations[1]
    for k, a in enumerate(batch):
        np.testing.assert_array_equal(z[k], lk.inv_root(a, 4))


@pytest.mark.parametrize("p", [3, 4])
def test_inverse_roots_do_not_depend_on_the_batch(p, dtype):
    a = spd_matrix(7, 1e4, batch=(300,), dtype=dtype, rng=0)
    whole = lk.inv_root(a, p)
    for k in (0, 1, 150, 299):
        np.testing.assert_array_equal(whole[k], lk.inv_root(a[k], p))
    with lk.config_context(num_threads=1):
        np.testing.assert_array_equal(whole, lk.inv_root(a, p))


# ---- partial fractions and series ----


@pytest.mark.parametrize(
    ("method", "share", "error"),
    # relative error of the published code where lambda is this share of ||A||_F
    [
        ("pade", 0.5, 8e-9), ("pade", 0.1, 1.5e-3), ("pade", 0.01, 0.25), ("pade", 1e-3, 2.0),
        ("taylor", 0.5, 1e-5), ("taylor", 0.1, 4e-2), ("taylor", 0.01, 0.94),
    ],
)  # fmt: skip
def test_the_source_paper_is_reproduced(method, share, error):
    n, steps = 6, {"pade": 5, "taylor": 10}[method]
    v = np.linalg.qr(random_matrix(n, rng=0))[0]
    rest = ((1 - share**2) / (n - 1)) ** 0.5
    w = np.array([share] + [rest] * (n - 1))
    a = (v * w) @ v.T
    x = lk.sqrtm(0.5 * (a + a.T), method=method, steps=steps)
    measured = abs(v[:, 0] @ x @ v[:, 0] / share**0.5 - 1)
    assert measured == pytest.approx(error, rel=0.3)


@pytest.mark.parametrize("alpha", [0.5, 0.25, 1 / 3])
@pytest.mark.parametrize("kappa", [1.2, 1e2, 1e5])
@pytest.mark.parametrize("tol", [1e-4, 1e-10])
def test_poles_reach_their_tolerance(alpha, kappa, tol):
    from linalgk.matfun._rational import poles_for

    (u, v, w), name = poles_for(alpha, kappa, tol)
    x = np.geomspace(1, kappa, 3001)
    value = (w / (u + v * x[:, None])).sum(axis=1)
    assert np.abs(value * x**alpha - 1).max() <= 1.05 * tol
    assert name in ("Padé", "Zolotarev")
    if alpha == 0.5 and kappa > 10:
        # Zolotarev's count: error 4 exp(-(2m+1) pi^2 / (2 log(4 sqrt(kappa)))), and one to spare
        m = (np.log(4 / tol) * 2 * np.log(4 * kappa**0.5) / np.pi**2 - 1) / 2
        assert len(u) <= np.ceil(m) + 1


def test_tolerance_lowers_the_number_of_poles():
    a = spd_matrix(10, 1e4, rng=0)
    want = lk.inv_root(a, 4, method="eigh")
    counts = []
    for tol in (1e-3, 1e-6, 1e-9):
        x, info = lk.inv_root(a, 4, method="pade", tol=tol, return_info=True)
        counts.append(int(info.iterations))
        assert np.linalg.norm(x - want, 2) <= 2 * tol * np.linalg.norm(want, 2)
    assert counts == sorted(counts)
    assert counts[0] < counts[2]


# ---- powers ----


@pytest.mark.parametrize(
    "t", [-2, -1, 0, 1, 3, 0.5, -0.25, Fraction(1, 3), 0.3, -0.7, 1.7], ids=str
)
def test_powers_to_fifty_digits(t, dtype):
    a = hermitian(1e3, dtype)
    got = lk.powm(a, t)
    want = mp_funm(a, power(t))
    assert got.dtype == a.dtype
    np.testing.assert_array_equal(got, adjoint(got))
    kappa = 1e3 ** (max(1.0, abs(float(t))) if t < 0 else 1 - min(1, float(t)) * 0.5)
    assert relative_error(got, want) <= 20 * EPS[dtype] * max(1, abs(float(t))) * kappa


def test_laws_of_powers():
    a = spd_matrix(9, 1e2, batch=(4,), rng=0)
    product = lk.powm(a, 0.3) @ lk.powm(a, 0.45)
    assert relative_error(product, lk.powm(a, 0.75)).max() < 1e3 * EPS["float64"]
    assert relative_error(lk.powm(lk.powm(a, 0.7), 1 / 0.7), a).max() < 1e4 * EPS["float64"]
    np.testing.assert_array_equal(lk.powm(a, 0), np.broadcast_to(np.eye(9), a.shape))
    assert relative_error(lk.powm(a, 0.5), lk.sqrtm(a)).max() < 1e2 * EPS["float64"]


@pytest.mark.parametrize("t", [-3, -1, 0, 1, 2, 7])
@pytest.mark.parametrize("n", [1, 2, 6, 40])
def test_integer_powers_of_any_matrix(t, n):
    a = random_matrix(n, rng=0)
    with np.errstate(all="ignore"):
        want = np.linalg.matrix_power(a, t)
    bound = 1e3 * n * EPS["float64"] * np.linalg.cond(a) ** max(1, -t)
    assert relative_error(lk.powm(a, t), want) < bound
    h = indefinite(1e2, "float64")
    assert relative_error(lk.powm(h, t), np.linalg.matrix_power(h, t)) < 1e-8


@pytest.mark.parametrize("n", [3, 10, 120])
@pytest.mark.parametrize("t", [0.4, -0.4, 1.25, -2.5])
def test_general_powers_agree_with_scipy(n, t):
    a = np.eye(n) * 1.5 + random_matrix(n, rng=1) / n**0.5 * 0.5
    want = scipy.linalg.fractional_matrix_power(a, t)
    assert relative_error(lk.powm(a, t), want) < 1e-10
    with lk.config_context(backend="reference"):
        assert relative_error(lk.powm(a, t), want) < 1e-9


@pytest.mark.parametrize("p", [3, 4])
@pytest.mark.parametrize("n", [2, 3, 12, 100])
def test_general_inverse_roots(p, n):
    a = np.eye(n) * 1.5 + random_matrix(n, rng=2) / n**0.5 * 0.5
    for method in ("auto", "schur", "db"):
        if method == "db" and p == 3:
            continue
        z, info = lk.inv_root(a, p, method=method, return_info=True)
        assert relative_error(np.linalg.matrix_power(z, p) @ a, np.eye(n)) < 1e-10
        assert (np.linalg.eigvals(z).real > 0).all()
        assert info.residual < 1e-10


# ---- general square roots without Schur ----


@pytest.mark.parametrize("n", [3, 20, 100, 200])
def test_denman_beavers(n, dtype):
    a = (1.5 * np.eye(n) + random_matrix(n, dtype=dtype, rng=0) / n**0.5).astype(dtype)
    x, info = lk.sqrtm(a, method="db", return_info=True)
    assert x.dtype == a.dtype
    assert info.method == "db"
    root = np.linalg.norm(x) ** 2 / np.linalg.norm(a)
    assert info.residual <= 10 * n * EPS[dtype] * max(1, root)
    wide = scipy.linalg.sqrtm(a.astype("complex128"))
    assert relative_error(x, wide) < 1e4 * EPS[dtype]
    inverse = lk.invsqrtm(a, method="db")
    assert relative_error(inverse @ a @ inverse, np.eye(n)) < 1e4 * EPS[dtype]


def test_closed_forms_are_of_the_function_that_was_asked():
    for p in (1, 3, 4, Fraction(4, 3)):
        want = 16.0 ** float(-1 / Fraction(p))
        # a power and a reciprocal, each rounded once
        got = lk.inv_root(16.0, p, method="closed_form")
        assert abs(got - want) <= 2 * EPS["float64"] * want
    a = np.array([[2.0, 1.0], [0.0, 3.0]])
    with pytest.raises(ValueError, match="n <= 1"):
        lk.inv_root(a, Fraction(2, 3), method="closed_form")
    assert relative_error(lk.inv_root(a, 2, method="closed_form"), lk.invsqrtm(a)) < 1e-15


def test_failed_members_fall_back_to_schur():
    n = 100
    good = 1.5 * np.eye(n) + random_matrix(n, rng=0) / n**0.5
    # Denman-Beavers loses a factor of about kappa^(1/2) of the residual here, Schur does not
    bad = spd_matrix(n, 1e9, rng=1)
    batch = np.stack([good, bad])
    x, info = lk.sqrtm(batch, assume_a="gen", return_info=True)
    assert info.method == "db+schur"
    np.testing.assert_array_equal(x[0], lk.sqrtm(good))
    np.testing.assert_array_equal(x[1], lk.sqrtm(bad, assume_a="gen", method="schur"))
    assert info.residual[1] <= 10 * n * EPS["float64"]
    alone = lk.sqrtm(bad, assume_a="gen", method="db", return_info=True)[1]
    assert alone.residual > 10 * info.residual[1]


def test_no_real_root_is_told_in_large_matrices():
    a = random_matrix(100, rng=3)
    a[:, 0] = 0
    a[0, :] = 0
    a[0, 0] = -1.0
    with pytest.raises(lk.errors.NoRealRootError, match="a \\+ 0j"):
        lk.sqrtm(a)
    x = lk.sqrtm(a + 0j)
    assert relative_error(x @ x, a) < 1e-10


@pytest.mark.parametrize("f", [lk.sqrtm, lk.logm, lambda a: lk.powm(a, 0.3)])
@pytest.mark.parametrize("lower", [False, True])
def test_triangular_matrices_stay_triangular(f, lower):
    a = np.triu(random_matrix(12, rng=0), 1) * 0.3 + np.diag(np.linspace(1, 2, 12))
    a = a.T if lower else a
    x = f(a)
    assert not (np.triu(x, 1) if lower else np.tril(x, -1)).any()


# ---- sign ----

SIGN_METHODS = ["auto", "eigh", "minimax", "newton_schulz", "newton", "pade"]


@pytest.mark.parametrize("method", SIGN_METHODS)
@pytest.mark.parametrize("kappa", [1e1, 1e4])
def test_sign_of_hermitian_matrices(method, kappa, dtype):
    from mpmath import mp

    a = indefinite(kappa, dtype)
    got, info = lk.signm(a, method=method, return_info=True)
    # the derivative of the sign is at most 1/min|lambda|; Padé works with X^2, whose condition is
    # the square
    power = 2 if method == "pade" else 1
    assert relative_error(got, mp_funm(a, mp.sign)) <= 20 * EPS[dtype] * kappa**power
    assert got.dtype == a.dtype
    assert info.residual < 200 * EPS[dtype] * kappa ** (power - 1)


@pytest.mark.parametrize("n", [1, 2, 5, 30, 100])
@pytest.mark.parametrize("method", ["auto", "pade"])
def test_sign_of_general_matrices(n, method, dtype):
    # eigenvalues away from the axis, vectors that are not orthogonal
    rng = np.random.default_rng(0)
    v = np.eye(n) + 0.3 * random_matrix(n, dtype=dtype, rng=1) / n**0.5
    signs = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    w = signs * rng.uniform(0.5, 3, n)
    inverse = np.linalg.inv(v)
    a, want = ((v * s) @ inverse for s in (w, signs))
    got = lk.signm(a.astype(dtype), method=method)
    assert relative_error(got, want) < 1e3 * EPS[dtype]
    np.testing.assert_allclose(got @ a, a @ got, atol=1e3 * EPS[dtype] * np.abs(a).max())


def test_sign_agrees_with_scipy():
    a = random_matrix(20, rng=0)
    assert relative_error(lk.signm(a), scipy.linalg.signm(a)) < 1e-10


# ---- logarithm ----


@pytest.mark.parametrize("kappa", [1e1, 1e6, 1e12])
def test_logarithms_to_fifty_digits(kappa, dtype):
    from mpmath import mp

    kappa = min(kappa, 1e6) if EPS[dtype] > 1e-10 else kappa
    a = hermitian(kappa, dtype)
    got, info = lk.logm(a, return_info=True)
    want = mp_funm(a, mp.log, least=0)
    # an eigenvalue is off by eps ||A||, its logarithm by eps kappa
    assert relative_error(got, want) * np.linalg.norm(want) <= 20 * EPS[dtype] * kappa
    np.testing.assert_array_equal(got, adjoint(got))
    assert info.residual < 1e3 * EPS[dtype]


@pytest.mark.parametrize("n", [2, 3, 10, 60])
def test_general_logarithms(n, dtype):
    a = (1.5 * np.eye(n) + 0.5 * random_matrix(n, dtype=dtype, rng=0) / n**0.5).astype(dtype)
    x, info = lk.logm(a, return_info=True)
    assert x.dtype == a.dtype
    assert relative_error(x, scipy.linalg.logm(a.astype("complex128"))) < 1e4 * EPS[dtype]
    assert relative_error(scipy.linalg.expm(x), a) < 1e4 * EPS[dtype]
    assert info.residual < 1e4 * EPS[dtype]
    with lk.config_context(backend="reference"):
        assert relative_error(lk.logm(a), x) < 1e5 * EPS[dtype]


def test_laws_of_logarithms():
    a = spd_matrix(8, 1e3, rng=0)
    assert relative_error(lk.logm(lk.powm(a, 0.3)), 0.3 * lk.logm(a)) < 1e-12
    assert relative_error(lk.logm(lk.inv_root(a, 2)), -0.5 * lk.logm(a)) < 1e-11
    np.testing.assert_allclose(
        lk.logm(2.0**400 * a), lk.logm(a) + 400 * np.log(2) * np.eye(8),
        # of the size of the logarithm, and what the eigenvalues are off by
        atol=8 * EPS["float64"] * (400 + 1e3),
    )  # fmt: skip
    assert lk.logm(1.0) == 0.0
    rotation = np.array([[0.0, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(lk.logm(rotation), np.pi / 2 * rotation, atol=1e-14)


# ---- bad input ----


@pytest.mark.parametrize(
    ("p", "error"),
    [(0, ValueError), (-2, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError),
     (None, TypeError), (Fraction(-1, 2), ValueError)],
)  # fmt: skip
def test_what_is_no_root(p, error):
    with pytest.raises(error, match="p: must be"):
        lk.inv_root(np.eye(2), p)
    with pytest.raises(error, match="p: must be"):
        lk.InverseRoot(p)


@pytest.mark.parametrize("t", ["1", None, np.nan, np.inf, True, 1j])
def test_what_is_no_power(t):
    with pytest.raises((TypeError, ValueError), match="t: must"):
        lk.powm(np.eye(2), t)


@pytest.mark.parametrize("n", [1, 3, 50])
def test_signs_that_do_not_exist(n):
    a = np.diag(np.arange(n) + 0.0)
    with pytest.raises(lk.errors.SingularMatrixError, match="zero"):
        lk.signm(a)
    with pytest.raises(lk.errors.SingularMatrixError):
        lk.signm(a, assume_a="gen", method="newton")
    turn = np.kron(np.eye(n), [[0.0, -1.0], [1.0, 0.0]])
    with pytest.raises(lk.errors.NotConvergedError, match="imaginary axis"):
        lk.signm(turn)
    with pytest.raises(lk.errors.NotConvergedError, match="imaginary axis"):
        lk.signm(turn, method="pade")


def test_logarithms_and_powers_that_do_not_exist():
    with pytest.raises(lk.errors.SingularMatrixError, match="no logarithm"):
        lk.logm(np.diag([1.0, 0.0]))
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError, match="real logarithm"):
        lk.logm(np.array([[1.0, 2.0], [2.0, 1.0]]))
    np.testing.assert_allclose(lk.logm(np.diag([1.0, -1.0]) + 0j), np.diag([0, np.pi * 1j]))
    cut = np.array([[-1.0, 1.0, 0.0], [0.0, -2.0, 1.0], [0.0, 0.0, 3.0]])
    for f in (lk.logm, lk.sqrtm, lambda a: lk.powm(a, 0.3), lambda a: lk.inv_root(a, 3)):
        with pytest.raises(lk.errors.NoRealRootError, match=r"a \+ 0j"):
            f(cut)
        assert np.isfinite(f(cut + 0j)).all()
    with pytest.raises(lk.errors.SingularMatrixError):
        lk.powm(np.diag([1.0, 0.0]), -1)
    with pytest.raises(lk.errors.SingularMatrixError):
        lk.powm(np.triu(np.ones((3, 3)), 1), -1)
    with pytest.raises(lk.errors.SingularMatrixError):
        lk.logm(np.triu(np.ones((3, 3)), 1))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda a: lk.sqrtm(a, method="eigh", assume_a="gen"), "Hermitian matrices"),
        (lambda a: lk.sqrtm(a, method="db", assume_a="pos"), "general matrices"),
        (lambda a: lk.inv_root(a, 3, method="db"), "p = 2, 4, 8"),
        (lambda a: lk.inv_root(a, 4, method="closed_form"), "n <= 1"),
        (lambda a: lk.inv_root(a, 97, method="minimax"), "denominator up to 16"),
        (lambda a: lk.inv_root(a, Fraction(1, 2), method="pade"), "between -1 and 1"),
        (lambda a: lk.sqrtm(a, method="taylor", tol=1e-3), "steps"),
        (lambda a: lk.inv_root(a, 4, method="schur", rel_damp=1e-3), "spectrum"),
        (lambda a: lk.signm(a, method="db"), "method: must be one of"),
        (lambda a: lk.logm(a, method="minimax"), "method: must be one of"),
    ],
)
def test_options_that_contradict_each_other(call, text):
    with pytest.raises(ValueError, match=text):
        call(np.eye(2) + 0.1)


@pytest.mark.parametrize(
    "f",
    [lambda a, **o: lk.inv_root(a, 4, **o), lambda a, **o: lk.powm(a, 0.3, **o), lk.logm],
)
@pytest.mark.parametrize("n", [3, 40])
def test_bad_members_leave_the_others_alone(f, n):
    good = spd_matrix(n, 10.0, batch=(6,), rng=0)
    batch = good.copy()
    batch[1, 0, 0] = np.nan
    batch[4] *= -1
    with pytest.raises(lk.errors.MemberError) as caught:
        f(batch)
    assert caught.value.index == ((1,), (4,))
    got = f(batch, on_fail="nan")
    assert np.isnan(got[[1, 4]]).all()
    keep = [0, 2, 3, 5]
    np.testing.assert_array_equal(got[keep], f(good)[keep])
    np.testing.assert_array_equal(caught.value.result[keep], got[keep])
    with pytest.warns(lk.errors.ConvergenceWarning):
        f(batch, on_fail="warn")


# ---- layouts and libraries ----

EVERY = pytest.mark.parametrize(
    "f",
    [
        lambda a, **o: lk.inv_root(a, 4, **o), lambda a, **o: lk.powm(a, -0.4, **o), lk.signm,
        lk.logm,
    ],
    ids=["inv_root", "powm", "signm", "logm"],
)  # fmt: skip


@EVERY
def test_layouts(f, dtype):
    a = spd_matrix(6, 1e2, batch=(2, 5), dtype=dtype, rng=0)
    want = f(a)
    wide = np.zeros((2, 5, 12, 18), dtype)
    wide[..., ::2, ::3] = a
    read_only = a.copy()
    read_only.flags.writeable = False
    for same in (np.asfortranarray(a), wide[..., ::2, ::3], read_only):
        before = same.copy()
        np.testing.assert_array_equal(f(same), want)
        np.testing.assert_array_equal(same, before)
    out = np.empty_like(a)
    assert f(a, out=out) is out
    np.testing.assert_array_equal(out, want)
    for shape in ((0, 4, 4), (3, 0, 0), (2, 0, 3, 3)):
        assert f(np.empty(shape, dtype)).shape == shape
        assert f(np.empty(shape, dtype)).dtype == dtype


@EVERY
@pytest.mark.parametrize("n", [1, 5, 40])
def test_other_libraries(f, n, xp):
    a = 3 * spd_matrix(n, 1e2, batch=(3,), rng=0)
    x = xp.asarray(a)
    got, info = f(x, return_info=True)
    assert type(got) is type(x)
    assert relative_error(np.asarray(got), f(a)).max() < 1e-12
    assert np.asarray(info.converged).all()


def test_general_matrices_in_other_libraries(xp):
    a = 1.5 * np.eye(9) + 0.4 * random_matrix(9, rng=0)
    x = xp.asarray(a)
    for f in (lk.sqrtm, lk.signm, lk.logm, lambda m: lk.powm(m, 0.3), lambda m: lk.inv_root(m, 4)):
        assert relative_error(np.asarray(f(x)), f(a)) < 1e-10


@EVERY
def test_compute_dtype(f):
    a = spd_matrix(12, 1e3, dtype="float32", rng=0)
    got = f(a, compute_dtype="float64")
    assert got.dtype == np.float32
    assert relative_error(got, f(a.astype(float))) < 1e-7
