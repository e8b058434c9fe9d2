"""Lyapunov and Sylvester equations: oracles, laws, batches, failures, libraries, devices."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import linalgk as lk
from linalgk.matfun import _lyapunov, _sylvester
from linalgk.matfun._lyapunov import solve_lyapunov, solve_sylvester
from linalgk.testing import random_matrix, relative_error, spd_matrix, to_numpy

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
METHODS = ["eigh", "schur", "sign", "minimax"]
# Fixed schedules reach down to 1e-8 or 1e-4 of the norm; their steep start costs these digits.
LOSS = {"minimax": {"float32": 1e2, "float64": 1e5, "complex64": 1e2, "complex128": 1e5}}


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def gaussian(rng, dtype, *shape):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def coefficients(rng, method, dtype, n, batch=()):
    """What the method takes: positive definite, or with eigenvalues right of the axis."""
    if method in ("eigh", "minimax"):
        seed = int(rng.integers(1000))
        return spd_matrix(n, 20.0, batch=batch, dtype=dtype, rng=seed)
    return (2 * np.eye(n) + 0.8 * gaussian(rng, dtype, *batch, n, n) / n**0.5).astype(dtype)


def by_kronecker(a, b, q):
    """``(A (x) I + I (x) B^T) vec X = vec Q`` by rows, in double precision."""
    wide = np.complex128 if any(map(np.iscomplexobj, (a, b, q))) else np.float64
    (m, n), a, b = q.shape, a.astype(wide), b.astype(wide)
    system = np.kron(a, np.eye(n)) + np.kron(np.eye(m), b.T)
    return np.linalg.solve(system, q.astype(wide).ravel()).reshape(m, n), np.linalg.cond(system)


# ---- oracles ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 2), (1, 4), (6, 3), (5, 5)])
def test_small_equations_by_kronecker(rng, method, m, n, dtype):
    a, b = coefficients(rng, method, dtype, m), coefficients(rng, method, dtype, n)
    q = gaussian(rng, dtype, m, n)
    x, info = solve_sylvester(a, b, q, method=method, return_info=True)
    want, cond = by_kronecker(a, b, q)
    assert x.dtype == np.dtype(dtype)
    assert x.shape == (m, n)
    assert info.method == method
    bound = 20 * EPS[dtype] * cond * LOSS.get(method, {}).get(dtype, 1)
    assert relative_error(x, want) <= bound
    c = gaussian(rng, dtype, m, m)
    x = solve_lyapunov(a, c, method=method)
    assert relative_error(x, by_kronecker(a, adjoint(a), c)[0]) <= bound


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("m", "n"), [(20, 20), (70, 34), (40, 67)])
def test_larger_equations_agree_with_scipy(rng, method, m, n, dtype):
    a, b = coefficients(rng, method, dtype, m), coefficients(rng, method, dtype, n)
    q, c = gaussian(rng, dtype, m, n), gaussian(rng, dtype, m, m)
    wide = [x.astype(np.result_type(dtype, np.float64)) for x in (a, b, q, c)]
    bound = 100 * m**0.5 * EPS[dtype] * LOSS.get(method, {}).get(dtype, 1)
    x = solve_sylvester(a, b, q, method=method)
    assert relative_error(x, scipy.linalg.solve_sylvester(*wide[:3])) <= bound
    x = solve_lyapunov(a, c, method=method)
    want = scipy.linalg.solve_continuous_lyapunov(wide[0], wide[3])
    assert relative_error(x, want) <= bound


@pytest.mark.parametrize("kappa", [1e2, 1e6, 1e10, 1e14])
@pytest.mark.parametrize("method", METHODS)
def test_ill_conditioned_members_lose_what_theory_says(method, kappa):
    from mpmath import mp

    n = 6
    a = spd_matrix(n, kappa, rng=2)
    q = np.ones((n, n)) + np.eye(n)
    if method == "minimax" and kappa > 1e8:
        with pytest.raises(lk.errors.NotConvergedError, match="definite and not near singular"):
            solve_lyapunov(a, q, method=method)
        return
    with mp.workdps(50):
        w, v = mp.eigsy(mp.matrix(a.tolist()))
        middle = v.T * mp.matrix(q.tolist()) * v
        for i in range(n):
            for j in range(n):
                middle[i, j] /= w[i] + w[j]
        want = np.array((v * middle * v.T).tolist(), dtype=float)
    x, info = solve_lyapunov(a, q, method=method, return_info=True)
    error = relative_error(x, want)
    assert error <= 10 * n * EPS["float64"] * kappa * LOSS.get(method, {}).get("float64", 1)
    assert info.converged
    if method in ("eigh", "schur"):
        # backward stable: the residual knows no condition
        assert info.residual <= 10 * n * EPS["float64"]
    if method == "eigh":
        # the residual as computed is rounded itself
        assert error <= 2 * info.error_estimate + 10 * EPS["float64"] * kappa
    else:
        assert np.isnan(info.error_estimate)


# ---- laws ----


@pytest.mark.parametrize("method", METHODS)
def test_residuals_are_what_info_says(rng, method, dtype):
    a, b = (coefficients(rng, method, dtype, n, (2, 3)) for n in (9, 7))
    q = gaussian(rng, dtype, 2, 3, 9, 7)
    x, info = solve_sylvester(a, b, q, method=method, return_info=True)
    wide = np.result_type(dtype, np.float64)
    norm = [np.linalg.norm(v.astype(wide), axis=(-2, -1)) for v in (a, b, q, x)]
    defect = a.astype(wide) @ x + x.astype(wide) @ b - q
    want = np.linalg.norm(defect, axis=(-2, -1)) / ((norm[0] + norm[1]) * norm[3] + norm[2])
    assert info.residual.shape == info.converged.shape == info.iterations.shape == (2, 3)
    assert info.residual.dtype == q.real.dtype
    np.testing.assert_allclose(info.residual, want, atol=9 * EPS[dtype], rtol=1e-2)
    assert (want <= 30 * EPS[dtype] * LOSS.get(method, {}).get(dtype, 1)).all()
    assert info.converged.all()
    assert ((info.iterations > 0) == (method in ("sign", "minimax"))).all()


@pytest.mark.parametrize("method", METHODS)
def test_linear_in_the_right_hand_side(rng, method, dtype):
    a, b = (coefficients(rng, method, dtype, n) for n in (8, 5))
    q, p = gaussian(rng, dtype, 8, 5), gaussian(rng, dtype, 8, 5)
    three = np.dtype(dtype).type(3)
    x, y, z = (solve_sylvester(a, b, v, method=method) for v in (q, p, q + three * p))
    bound = 200 * EPS[dtype] * LOSS.get(method, {}).get(dtype, 1)
    assert relative_error(x + three * y, z) <= bound
    assert not solve_sylvester(a, b, 0 * q, method=method).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 4, 40])
def test_hermitian_solutions_are_exactly_so(rng, method, n, dtype):
    a, q = coefficients(rng, method, dtype, n, (3,)), gaussian(rng, dtype, 3, n, n)
    q[:2] = q[:2] + adjoint(q[:2])
    x = solve_lyapunov(a, q, method=method)
    np.testing.assert_array_equal(x[:2], adjoint(x[:2]))
    # each member by itself
    if n > 1:
        assert np.abs(x[2] - adjoint(x[2])).max() > 1e-3
    # a positive definite right-hand side of an antistable matrix has a positive definite solution
    p = solve_lyapunov(a, spd_matrix(n, 3.0, dtype=dtype, rng=0), method=method)
    assert (np.linalg.eigvalsh(p) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_transposition(rng, method, dtype):
    """``B^H X^H + X^H A^H = Q^H``."""
    a, b = (coefficients(rng, method, dtype, n) for n in (8, 5))
    q = gaussian(rng, dtype, 8, 5)
    x = solve_sylvester(a, b, q, method=method)
    y = solve_sylvester(adjoint(b), adjoint(a), adjoint(q), method=method)
    assert relative_error(adjoint(y), x) <= 200 * EPS[dtype] * LOSS.get(method, {}).get(dtype, 1)


@pytest.mark.parametrize("method", METHODS)
def test_lyapunov_is_a_sylvester_equation(rng, method, dtype):
    a, q = coefficients(rng, method, dtype, 12, (2,)), gaussian(rng, dtype, 2, 12, 12)
    x, y = solve_lyapunov(a, q, method=method), solve_sylvester(a, adjoint(a), q, method=method)
    assert relative_error(x, y).max() <= 100 * EPS[dtype] * LOSS.get(method, {}).get(dtype, 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("i", "j"), [(90, 0), (-90, 0), (0, 90), (60, -40), (-100, -100)])
def test_scaling_is_exact(rng, method, i, j, dtype):
    a, q = coefficients(rng, method, dtype, 7), gaussian(rng, dtype, 7, 7)
    left, right = (np.ldexp(1.0, k).astype(a.real.dtype) for k in (i, j))
    x = solve_lyapunov(a, q, method=method)
    if j - i < 120:
        got = solve_lyapunov(left * a, right * q, method=method)
        np.testing.assert_array_equal(got, np.ldexp(1.0, j - i).astype(a.real.dtype) * x)


@pytest.mark.parametrize("method", ["schur", "sign", "eigh", "minimax"])
def test_both_half_planes(rng, method):
    a, q = coefficients(rng, method, "float64", 20), gaussian(rng, "float64", 20, 20)
    batch = np.stack([a, -a])
    x = solve_lyapunov(batch, q, method=method)
    np.testing.assert_array_equal(x[0], solve_lyapunov(a, q, method=method))
    assert relative_error(x[1], -x[0]) < 1e-12


def test_indefinite_and_oscillating_coefficients(rng):
    """No half plane at all: eigenvectors and Schur forms do not mind."""
    w = np.array([-3.0, -1.5, 0.25, 0.7, 2.0, 5.0])
    v = np.linalg.qr(gaussian(rng, "float64", 6, 6))[0]
    a, q = (v * w) @ v.T, gaussian(rng, "float64", 6, 6)
    a = 0.5 * (a + a.T)
    want, cond = by_kronecker(a, a.T, q)
    for method in ("eigh", "schur"):
        x = solve_lyapunov(a, q, method=method)
        assert relative_error(x, want) <= 10 * cond * EPS["float64"]
    rotation = np.kron(np.eye(20), [[0.1, 3.0], [-3.0, 0.1]])
    rotation = rotation + np.triu(gaussian(rng, "float64", 40, 40), 2) / 40
    q = gaussian(rng, "float64", 40, 40)
    x = solve_lyapunov(rotation, q)
    assert relative_error(x, scipy.linalg.solve_continuous_lyapunov(rotation, q)) < 1e-11
    assert relative_error(solve_lyapunov(rotation, q, method="sign"), x) < 1e-9


def test_blocks_are_cut_beside_two_by_two_blocks(rng):
    """Every eigenvalue complex, odd sizes on one side: a middle row may be inside a block."""
    n, m = 67, 71
    a = scipy.linalg.block_diag(*([[1.0, k], [-k, 1.0]] for k in range(1, 34)), 1.0)
    b = scipy.linalg.block_diag(1.0, *([[1.0, k], [-k, 1.0]] for k in range(1, 36)))
    assert (len(a), len(b)) == (n, m)
    q = gaussian(rng, "float64", n, m)
    x = solve_sylvester(a, b, q, method="schur")
    assert relative_error(x, scipy.linalg.solve_sylvester(a, b, q)) < 1e-12


# ---- batches and layouts ----


@pytest.mark.parametrize("method", METHODS)
def test_members_do_not_depend_on_the_batch(rng, method, dtype):
    a, b = (coefficients(rng, method, dtype, n, (5,)) for n in (6, 4))
    q = gaussian(rng, dtype, 5, 6, 4)
    whole = solve_sylvester(a, b, q, method=method)
    for k in range(5):
        np.testing.assert_array_equal(whole[k], solve_sylvester(a[k], b[k], q[k], method=method))
    with lk.config_context(num_threads=1):
        np.testing.assert_array_equal(whole, solve_sylvester(a, b, q, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_leading_dimensions_broadcast(rng, method):
    a = coefficients(rng, method, "float64", 4, (2, 1))
    b = coefficients(rng, method, "float64", 3, (5,))
    q = gaussian(rng, "float64", 4, 3)
    x, info = solve_sylvester(a, b, q, method=method, return_info=True)
    assert x.shape == (2, 5, 4, 3)
    assert info.converged.shape == (2, 5)
    for i in range(2):
        for j in range(5):
            want = solve_sylvester(a[i, 0], b[j], q, method=method)
            np.testing.assert_array_equal(x[i, j], want)


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_pair_is_decomposed_once(rng, method, monkeypatch):
    a, q = coefficients(rng, method, "float64", 6), gaussian(rng, "float64", 3, 2, 6, 6)
    calls, solve = [], _sylvester._SOLVERS[method]

    def counted(near):
        calls.append(len(near.a))
        return solve(near)

    monkeypatch.setitem(_sylvester._SOLVERS, method, counted)
    x, info = solve_lyapunov(a, q, method=method, return_info=True)
    assert calls == [1]
    assert x.shape == (3, 2, 6, 6)
    assert info.converged.shape == (3, 2)
    for i in range(3):
        want = solve_lyapunov(a, q[i, 1], method=method)
        assert relative_error(x[i, 1], want) < 1e-11


def test_mixed_batches_find_their_ways(rng):
    a = np.stack([coefficients(rng, "eigh", "float64", 5), coefficients(rng, "sign", "float64", 5)])
    a, q = np.concatenate([a, a])[[0, 1, 3, 2]], gaussian(rng, "float64", 4, 5, 5)
    x, info = solve_lyapunov(a, q, return_info=True)
    assert info.method == "eigh+schur"
    for k in range(4):
        np.testing.assert_array_equal(x[k], solve_lyapunov(a[k], q[k]))
    assert np.isnan(info.error_estimate).tolist() == [False, True, True, False]


@pytest.mark.parametrize("shape", [(0, 3, 3), (0, 0), (2, 0, 0), (0, 0, 0)])
def test_empty(shape, dtype):
    a = np.zeros(shape, dtype)
    x, info = solve_lyapunov(a, a, return_info=True)
    assert x.shape == shape
    assert x.dtype == np.dtype(dtype)
    assert info.converged.shape == shape[:-2]
    b = np.zeros((3, 3), dtype)
    x = solve_sylvester(a, b, np.zeros((*shape[:-1], 3), dtype)) if 0 in shape[-1:] else x
    assert 0 in x.shape


@pytest.mark.parametrize("method", METHODS)
def test_layouts(rng, method, dtype):
    a, q = coefficients(rng, method, dtype, 6, (4,)), gaussian(rng, dtype, 4, 6, 6)
    want = solve_lyapunov(a, q, method=method)
    wide = np.zeros((4, 12, 18), dtype)
    wide[:, ::2, ::3] = a
    fortran, frozen = np.asfortranarray(a), q.copy()
    frozen.flags.writeable = False
    before = wide.copy()
    for left, right in ((wide[:, ::2, ::3], frozen), (fortran, np.asfortranarray(q)), (a, q[:])):
        np.testing.assert_array_equal(solve_lyapunov(left, right, method=method), want)
    np.testing.assert_array_equal(wide, before)
    np.testing.assert_array_equal(fortran, a)
    swapped = a.astype(a.dtype.newbyteorder())
    np.testing.assert_array_equal(solve_lyapunov(swapped, q, method=method), want)


def test_kinds_of_numbers(rng):
    x = solve_lyapunov([[2, 1], [0, 3]], [[5, 4], [4, 6]])
    np.testing.assert_allclose(x, [[0.95, 0.6], [0.6, 1.0]], rtol=1e-14)
    assert solve_lyapunov(2.0, 8.0) == 2.0
    assert solve_sylvester(2.0, 6, 8.0) == 1.0
    a, q = coefficients(rng, "sign", "float32", 4), gaussian(rng, "complex128", 4, 4)
    assert solve_lyapunov(a, q).dtype == np.complex128
    assert solve_lyapunov(a, q.real.astype("float32")).dtype == np.float32


def agree_in_library(xp, rng, kind):
    n, dtype = 5, "complex64"
    a, q = coefficients(rng, kind, dtype, n, (2,)), gaussian(rng, dtype, 2, n, n)
    want, theirs = solve_lyapunov(a, q), (xp.asarray(a), xp.asarray(q))
    x, info = solve_lyapunov(*theirs, return_info=True)
    assert type(x) is type(info.residual) is type(theirs[0])
    assert x.dtype == theirs[0].dtype
    assert relative_error(to_numpy(x), want).max() < 200 * EPS[dtype]
    lapack = xp is np or "torch" in xp.__name__
    assert info.method == ("schur" if lapack and kind == "sign" else kind)


def test_libraries(xp, rng):
    agree_in_library(xp, rng, "eigh")
    if "jax" not in xp.__name__:
        agree_in_library(xp, rng, "sign")


@pytest.mark.slow
def test_jax_compiles_every_operation_of_general_methods(rng):
    agree_in_library(pytest.importorskip("jax").numpy, rng, "sign")


def test_products_in_other_libraries(rng):
    strict = pytest.importorskip("array_api_strict")
    a, q = spd_matrix(5, 20.0, batch=(2,), rng=1), gaussian(rng, "float64", 2, 5, 5)
    x = solve_sylvester(*map(strict.asarray, (a, a[:1], q)), method="sign")
    assert relative_error(to_numpy(x), solve_sylvester(a, a[:1], q)).max() < 1e-13
    x = solve_lyapunov(strict.asarray(a), strict.asarray(q), method="minimax")
    assert relative_error(to_numpy(x), solve_lyapunov(a, q)).max() < 1e-10


def test_jax_traces_what_does_not_look(rng):
    jax = pytest.importorskip("jax")
    a = spd_matrix(5, 10.0, batch=(3,), dtype="float32", rng=0)
    q = gaussian(rng, "float32", 3, 5, 5)
    want = solve_lyapunov(a, q)
    bad = a.copy()
    bad[1, 0, 0] = np.nan

    def solve(x, y):
        return solve_lyapunov(x, y, assume_a="pos", return_info=True)

    for wrap in (lambda f: f, jax.vmap):
        x, info = jax.jit(wrap(solve))(bad, q)
        assert to_numpy(info.converged).tolist() == [True, False, True]
        assert np.isnan(to_numpy(x)[1]).all()
        assert relative_error(to_numpy(x)[[0, 2]], want[[0, 2]]).max() < 100 * EPS["float32"]
    for options in ({}, {"assume_a": "gen"}, {"assume_a": "her", "method": "sign"}):
        with pytest.raises(ValueError, match=r"jax\.jit.*assume_a"):
            jax.jit(lambda x, y, o=options: solve_lyapunov(x, y, **o))(a, q)
    # NaN of one member is nobody else's
    g = jax.grad(lambda y: solve(jax.numpy.asarray(bad), y)[0][0].sum())(jax.numpy.asarray(q))
    assert np.isfinite(to_numpy(g)[0]).all()
    assert (to_numpy(g)[2] == 0).all()


# ---- bad input ----

two = (np.eye(2), np.eye(2))
# without its types, for words that they forbid
call: Any = solve_lyapunov


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (lambda: solve_lyapunov(np.ones((2, 3)), np.eye(2)), ValueError, r"a: must have shape"),
        (lambda: solve_lyapunov(np.eye(2), np.eye(3)), ValueError, r"q: must.*2, 2\), got \(3, 3"),
        (lambda: solve_lyapunov(np.eye(2), np.ones(2)), ValueError, "q: must have shape"),
        (lambda: solve_sylvester(np.eye(2), np.ones(3), np.eye(2)), ValueError, "b: must have"),
        (
            lambda: solve_sylvester(np.eye(2), np.eye(3), np.ones((3, 2))), ValueError,
            r"orders of a and b, here \(\.\.\., 2, 3\), got \(3, 2\)",
        ),
        (
            lambda: solve_lyapunov(np.ones((2, 4, 4)), np.ones((3, 4, 4))), ValueError,
            r"solve_lyapunov: leading dimensions must broadcast, got a \(2,\), q \(3,\)",
        ),
        (lambda: solve_lyapunov(np.eye(2), "q"), TypeError, "q: must be an array"),
        (lambda: solve_lyapunov(np.eye(2, dtype="f2"), np.eye(2)), TypeError, "a: dtype must be"),
        (lambda: solve_lyapunov(np.eye(2), np.eye(2), method="db"), ValueError, "method: must be"),
        (lambda: call(*two, assume_a="sym"), ValueError, "assume_a: must be"),
        (
            lambda: solve_lyapunov(np.eye(2), np.eye(2), assume_a="gen", method="eigh"),
            ValueError, "leave out assume_a='gen'",
        ),
        (lambda: call(*two, on_fail="x"), ValueError, "on_fail: must be"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(wrong, error, text):
    with pytest.raises(error, match=text):
        wrong()


def test_libraries_that_do_not_mix():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="one library and device: a is numpy"):
        solve_lyapunov(np.eye(2), strict.eye(2))
    with pytest.raises(ValueError, match="'schur' for arrays in the host's memory"):
        solve_lyapunov(strict.eye(2), strict.eye(2), method="schur")


NAN, INF = np.nan, np.inf
BAD = {
    "nan in a": ({}, lambda a, q: a.__setitem__((1, 0, 0), NAN), "NonFinite", "a holds NaN"),
    "inf in q": ({}, lambda a, q: q.__setitem__((1, 0, 2), INF), "NonFinite", "q holds NaN"),
    "asymmetric": (
        {"assume_a": "her"}, lambda a, q: a.__setitem__((1, 0, 1), 9.0), "Asymmetric",
        "a is not Hermitian",
    ),
    "asymmetric for its method": (
        {"method": "eigh"}, lambda a, q: a.__setitem__((1, 0, 1), 9.0), "Asymmetric", "or leave",
    ),
    "indefinite": (
        {"assume_a": "pos"}, lambda a, q: a.__setitem__(1, np.diag([-1.0, 2, 3, 4])),
        "NotPositiveSemidefinite", "negative eigenvalue -1",
    ),
    "zero": ({}, lambda a, q: a.__setitem__(1, 0), "SingularMatrix", "-a.H share an eigenvalue"),
    "mirrored": (
        {}, lambda a, q: a.__setitem__(1, np.diag([1.0, -1, 3, 4])), "SingularMatrix", "share",
    ),
    "mirrored, general": (
        {"method": "schur"}, lambda a, q: a.__setitem__(1, np.diag([1.0, -1, 3, 4])),
        "SingularMatrix", "share",
    ),
    "both half planes": (
        {"method": "sign"}, lambda a, q: a.__setitem__(1, np.diag([1.0, -2, 3, 4])),
        "NotConverged", "one side of the imaginary axis",
    ),
    "on the axis": (
        {"method": "sign"},
        lambda a, q: a.__setitem__(1, np.kron(np.eye(2), [[0.0, 1], [-1, 0]])),
        "NotConverged", "method='schur'",
    ),
    "singular for products": (
        {"method": "minimax"}, lambda a, q: a.__setitem__(1, np.diag([1.0, 2, 3, 0])),
        "NotConverged", "method='eigh'",
    ),
    "out of range": (
        {}, lambda a, q: (a.__setitem__(1, 1e-200 * np.eye(4)), q.__setitem__(1, 1e200)),
        "NotConverged", "range",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_members_are_named_and_the_others_are_served(rng, kind):
    options, spoil, name, words = BAD[kind]
    a, q = spd_matrix(4, 10.0, batch=(2, 2), rng=0), gaussian(rng, "float64", 2, 2, 4, 4)
    good = solve_lyapunov(a, q, **options)
    spoil(a.reshape(4, 4, 4), q.reshape(4, 4, 4))
    copies = a.copy(), q.copy()
    error = getattr(lk.errors, f"{name}Error")
    with pytest.raises(error, match=f"solve_lyapunov: .*{words}") as caught:
        solve_lyapunov(a, q, **options)
    assert "(batch members (0, 1))" in str(caught.value)
    assert caught.value.index == ((0, 1),)
    x, info = solve_lyapunov(a, q, on_fail="nan", return_info=True, **options)
    np.testing.assert_array_equal(caught.value.result, x)
    assert info.converged.tolist() == [[True, False], [True, True]]
    assert np.isnan(info.residual[0, 1])
    assert np.isnan(x[0, 1]).all()
    keep = info.converged
    np.testing.assert_array_equal(x[keep], good[keep])
    with pytest.warns(lk.errors.ConvergenceWarning, match=words) as seen:
        solve_lyapunov(a, q, on_fail="warn", **options)
    assert seen[0].filename == __file__
    np.testing.assert_array_equal(a, copies[0])
    np.testing.assert_array_equal(q, copies[1])
    with pytest.raises(error) as alone:
        solve_lyapunov(a[0, 1], q[0, 1], **options)
    assert alone.value.index == ((),)
    assert "batch" not in str(alone.value)
    if name == "NonFinite":
        got = solve_lyapunov(a, q, check_finite=False, **options)
        np.testing.assert_array_equal(got, x)


def test_sylvester_names_the_argument(rng):
    a, b, q = (np.eye(n) * n for n in (3, 3, 3))
    bad = b.copy()
    bad[0, 2] = np.nan
    with pytest.raises(lk.errors.NonFiniteError, match="b holds NaN"):
        solve_sylvester(a, bad, q)
    with pytest.raises(lk.errors.SingularMatrixError, match="a and -b share"):
        solve_sylvester(a, -b, q)
    bad[0, 2] = 1.0
    with pytest.raises(lk.errors.AsymmetricError, match="b is not Hermitian"):
        solve_sylvester(a, bad, q, assume_a="pos")
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError, match="b has the negative"):
        solve_sylvester(2 * a, -b, q, assume_a="pos")
    # bad coefficients that all members share are bad for all
    with pytest.raises(lk.errors.SingularMatrixError) as caught:
        solve_sylvester(a, -b, np.stack([q, q]))
    assert caught.value.index == ((0,), (1,))


@pytest.mark.parametrize("n", [4, 12, 30])
def test_cancelling_eigenvalues_are_seen_through_rounding(rng, n):
    v = np.linalg.qr(gaussian(rng, "float64", n, n))[0]
    w = np.linspace(1.0, 2.0, n)
    w[0], w[-1] = -1.75, 1.75
    a = (v * w) @ v.T
    for method, x in (("eigh", 0.5 * (a + a.T)), ("schur", a)):
        with pytest.raises(lk.errors.SingularMatrixError):
            solve_lyapunov(x, np.eye(n), method=method)
    # small eigenvalues of one sign do not cancel
    a = np.diag(np.geomspace(1e-15, 1, n))
    x = solve_lyapunov(a, 2 * a)
    np.testing.assert_allclose(np.diagonal(x), 1, rtol=1e-14)


# ---- a device ----


@pytest.mark.parametrize("n", [3, 40])
def test_devices(cuda, rng, n, dtype):
    q = gaussian(rng, dtype, 2, n, n)
    for method in ("eigh", "sign", "minimax"):
        a = coefficients(rng, method, dtype, n, (2,))
        b = coefficients(rng, method, dtype, n, (2,))
        bound = 100 * n**0.5 * EPS[dtype] * LOSS.get(method, {}).get(dtype, 1)
        for want, x in (
            (solve_lyapunov(a, q), solve_lyapunov(cuda.array(a), cuda.array(q), method=method)),
            (
                solve_sylvester(a, b, q),
                solve_sylvester(*map(cuda.array, (a, b, q)), method=method),
            ),
        ):
            assert type(x) is type(cuda.array(a))
            assert relative_error(cuda.host(x), want).max() <= bound


def test_a_device_is_waited_for_once_or_never(cuda, rng):
    if cuda.looks is None:
        pytest.skip("a real device does not count looks; the emulation does")
    a = cuda.array(spd_matrix(20, 10.0, batch=(2,), rng=0))
    q = cuda.array(gaussian(rng, "float64", 2, 20, 20))
    for method in ("auto", "eigh", "minimax", "sign"):
        options = {"assume_a": "pos", "method": method}
        cuda.looks = cuda.glances = 0
        _, info = solve_lyapunov(a, q, on_fail="nan", return_info=True, **options)
        assert cuda.looks == 0
        assert (cuda.glances > 0) == (method == "sign")
        assert type(info.residual) is type(a)
        solve_lyapunov(a, q, **options)
        assert cuda.looks == 1
    cuda.looks = 0
    solve_lyapunov(a, q)
    # what is Hermitian, and whether it served
    assert cuda.looks <= 3


def test_a_device_names_bad_members(cuda, rng):
    a, q = spd_matrix(5, 10.0, batch=(3,), rng=0), gaussian(rng, "float64", 3, 5, 5)
    good = solve_lyapunov(a, q)
    a[1, 0, 0] = np.nan
    for options in ({}, {"assume_a": "pos"}, {"method": "sign"}):
        with pytest.raises(lk.errors.NonFiniteError, match="a holds NaN") as caught:
            solve_lyapunov(cuda.array(a), cuda.array(q), **options)
        assert caught.value.index == ((1,),)
        x = solve_lyapunov(cuda.array(a), cuda.array(q), on_fail="nan", **options)
        for found in (cuda.host(x), cuda.host(caught.value.result)):
            assert np.isnan(found[1]).all()
            assert relative_error(found[[0, 2]], good[[0, 2]]).max() < 1e-12


def test_mixed_batches_on_a_device(cuda, rng):
    a = np.stack([spd_matrix(5, 10.0, rng=0), coefficients(rng, "sign", "float64", 5)])
    q = gaussian(rng, "float64", 2, 5, 5)
    x, info = solve_lyapunov(cuda.array(a), cuda.array(q), return_info=True)
    assert info.method == "eigh+sign"
    assert relative_error(cuda.host(x), solve_lyapunov(a, q)).max() < 1e-12


# ---- the choice ----


def test_explain(rng):
    a, q = spd_matrix(5, 10.0, rng=0), np.eye(5)
    general = random_matrix(5, rng=0)
    assert _lyapunov.explain_lyapunov(a, q).method == "eigh"
    assert _lyapunov.explain_lyapunov(general, q).method == "schur"
    both = _lyapunov.explain_lyapunov(np.stack([a, general]), q)
    assert "1 members are not Hermitian: schur" in both.reason
    for method in METHODS:
        e = _lyapunov.explain_sylvester(a, a, q, method=method)
        assert (e.method, e.reason) == (method, "it was asked for")
        assert e.flops > 0
    strict = pytest.importorskip("array_api_strict")
    e = _lyapunov.explain_lyapunov(strict.asarray(general), strict.asarray(q))
    assert e.method == "sign"
    assert _lyapunov.choose_method(hermitian=False, schur=True)[0] == "schur"
