"""Square roots: oracles in 50 digits, identities, scaling, batches, layouts, libraries."""

import functools

import numpy as np
import pytest
import scipy.linalg

import linalgk as lk
from linalgk.testing import mp_invsqrtm, mp_sqrtm, random_matrix, relative_error, spd_matrix

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
FUNCTIONS = pytest.mark.parametrize("name", ["sqrtm", "invsqrtm"])
HERMITIAN_METHODS = ["auto", "eigh", "minimax", "newton_schulz"]


def condition(name, kappa):
    """Condition number of the function at a matrix of condition kappa (Higham 2008, section 6)."""
    return kappa**0.5 if name == "sqrtm" else kappa


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


# ---- oracles ----


@functools.cache
def fifty_digits(name, kappa, spectrum, dtype):
    a = spd_matrix(16, kappa, spectrum=spectrum, dtype=dtype, rng=3)
    return a, (mp_sqrtm if name == "sqrtm" else mp_invsqrtm)(a)


@FUNCTIONS
@pytest.mark.parametrize("method", HERMITIAN_METHODS)
@pytest.mark.parametrize("kappa", [1e1, 1e3, 1e6, 1e9, 1e12, 1e15])
@pytest.mark.parametrize("spectrum", ["log", "clustered"])
def test_fifty_digits(name, method, kappa, spectrum, dtype):
    # beyond 1/eps a lower precision matrix is not definite any more
    kappa = min(kappa, 1e6) if EPS[dtype] > 1e-10 else kappa
    a, want = fifty_digits(name, kappa, spectrum, dtype)
    got = getattr(lk, name)(a, method=method)
    assert got.dtype == a.dtype
    assert relative_error(got, want) <= 10 * EPS[dtype] * condition(name, kappa)
    np.testing.assert_array_equal(got, adjoint(got))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 12, 13, 31, 32, 33, 50, 130])
@FUNCTIONS
def test_every_size(name, n, dtype):
    kappa = 1e3
    a = spd_matrix(n, kappa, dtype=dtype, rng=n)
    wide = a.astype("complex128" if a.dtype.kind == "c" else "float64")
    got = getattr(lk, name)(a)
    if EPS[dtype] > 1e-10:
        want = getattr(lk, name)(wide, method="eigh")
    elif n <= 13:
        want = (mp_sqrtm if name == "sqrtm" else mp_invsqrtm)(a)
    else:
        w, v = np.linalg.eigh(a)
        want = (v * w[:, None].T ** (0.5 if name == "sqrtm" else -0.5)) @ adjoint(v)
    # the comparison value of the last branch carries an error of the same size
    assert relative_error(got, want) <= 20 * EPS[dtype] * condition(name, kappa)


def test_general_matrices_against_mpmath():
    mpmath = pytest.importorskip("mpmath")
    a = random_matrix(8, rng=5)
    with mpmath.workdps(40):
        want = np.array(mpmath.sqrtm(mpmath.matrix(a.tolist())).tolist(), dtype=complex)
    got = lk.sqrtm(a)
    assert got.dtype == np.float64
    # Higham 2008, (6.13): alpha(X) kappa eps, both moderate here
    assert relative_error(got, want) < 1e-12
    inverse = lk.invsqrtm(a)
    assert relative_error(inverse @ a @ inverse, np.eye(8)) < 1e-11


def test_scipy_documented_examples():
    a = np.array([[1.0, 3.0], [1.0, 4.0]])
    r = lk.sqrtm(a)
    np.testing.assert_allclose(r, [[0.75592895, 1.13389342], [0.37796447, 1.88982237]], rtol=1e-8)
    np.testing.assert_allclose(r.dot(r), a, rtol=1e-14)
    np.testing.assert_allclose(r, scipy.linalg.sqrtm(a), rtol=1e-13)


# ---- closed forms ----


def test_two_by_two_closed_form_is_principal():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((400, 2, 2)) + 1j * rng.standard_normal((400, 2, 2))
    x = lk.sqrtm(a)
    assert (np.linalg.eigvals(x).real > 0).all()
    assert relative_error(x @ x, a).max() < 1e-12
    for k in range(0, 400, 40):
        np.testing.assert_allclose(x[k], scipy.linalg.sqrtm(a[k]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "a",
    [
        np.array([[4.0, 1.0], [0.0, 4.0]]),  # defective
        np.array([[0.0, -1.0], [1.0, 0.0]]),  # rotation: eigenvalues +-i
        np.array([[1.0, 1e8], [0.0, 1.0]]),
        np.array([[3.0, 0.0], [0.0, 3.0]]),
        np.array([[0.0, 0.0], [0.0, 9.0]]),
        np.zeros((2, 2)),
    ],
)
def test_two_by_two_special(a):
    x = lk.sqrtm(a)
    assert x.dtype == np.float64
    np.testing.assert_allclose(x @ x, a, rtol=1e-12, atol=1e-12 * np.abs(a).max())


def test_scalars_and_nested_numbers():
    assert lk.sqrtm(4.0) == 2.0
    assert lk.sqrtm(4) == 2.0
    assert lk.sqrtm(np.float32(4)).dtype == np.float32
    assert lk.sqrtm(-4 + 0j) == 2j
    assert lk.invsqrtm(4.0) == 0.5
    np.testing.assert_allclose(lk.sqrtm([[4, 0], [0, 9]]), [[2.0, 0], [0, 3.0]], rtol=1e-15)


# ---- identities ----


@FUNCTIONS
def test_definition(name, dtype):
    a = spd_matrix(20, 1e4, batch=(2, 3), dtype=dtype, rng=1)
    x = getattr(lk, name)(a)
    assert x.shape == a.shape
    identity = np.eye(20, dtype=dtype)
    defect = x @ x - a if name == "sqrtm" else x @ a @ x - identity
    size = np.linalg.norm(a, axis=(-2, -1)) if name == "sqrtm" else 20**0.5
    # twice the forward error of X, or of Z
    bound = 20 * EPS[dtype] * condition(name, 1e4)
    assert (np.linalg.norm(defect, axis=(-2, -1)) / size <= bound).all()


@pytest.mark.parametrize("n", [2, 6, 17, 40])
def test_congruence_by_a_permutation(n):
    a = spd_matrix(n, 1e3, rng=2)
    p = np.random.default_rng(0).permutation(n)
    want = lk.sqrtm(a)[np.ix_(p, p)]
    assert relative_error(lk.sqrtm(a[np.ix_(p, p)]), want) < 20 * EPS["float64"] * 1e3**0.5


@FUNCTIONS
@pytest.mark.parametrize("n", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("k", [-60, -31, 17, 60])
def test_scaling_by_powers_of_four_is_exact(name, n, k, dtype):
    a = spd_matrix(n, 10.0, dtype=dtype, rng=4)
    a = a.astype(dtype)
    if EPS[dtype] > 1e-10 and abs(k) > 55:
        k = int(np.sign(k)) * 55  # entries of 1e-3 stay normal numbers in float32
    two = np.ldexp(np.ones(1, a.real.dtype), k)[0]
    scaled = a * two * two
    assert (scaled / two / two == a).all()
    x = getattr(lk, name)(a)
    got = getattr(lk, name)(scaled)
    np.testing.assert_array_equal(got, x * two if name == "sqrtm" else x / two)


@pytest.mark.parametrize("method", HERMITIAN_METHODS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_in_single_precision(method, scale):
    a = (spd_matrix(12, 1e2, rng=0) * scale).astype("float32")
    x = lk.sqrtm(a, method=method).astype(float)
    assert relative_error(x @ x, a.astype(float)) < 1e-5


@pytest.mark.parametrize("n", [3, 40])
@pytest.mark.parametrize("exponent", [-100, 0, 100])
def test_residuals_do_not_leave_the_range(n, exponent):
    a = spd_matrix(n, 10.0, dtype="float32", rng=0)
    scaled = np.ldexp(a, exponent)
    for f in (lk.sqrtm, lk.invsqrtm):
        _, want = f(a, return_info=True)
        _, info = f(scaled, return_info=True)
        assert info.residual == pytest.approx(want.residual, rel=1e-3)
        assert info.error_estimate == pytest.approx(want.error_estimate, rel=1e-3)


@pytest.mark.parametrize("n", [3, 40])
def test_entries_near_the_largest_number_are_finite(n, dtype):
    top = np.finfo(dtype).max / 2
    x = lk.sqrtm(np.eye(n, dtype=dtype) * top * 1.9)
    assert relative_error(x, np.eye(n) * (1.9 * float(top)) ** 0.5) < 10 * EPS[dtype]


# ---- singular, rank deficient, indefinite ----


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_rank_deficient_has_a_real_root_without_warning(n, dtype):
    a = spd_matrix(n, spectrum="rank_deficient", dtype=dtype, rng=0)
    x = lk.sqrtm(a)
    assert x.dtype == a.dtype
    assert relative_error(x @ x, a) <= 20 * n * EPS[dtype]
    assert np.linalg.eigvalsh(x).min() >= -n * EPS[dtype]


def test_zero_matrix():
    for n in (1, 2, 5, 40):
        np.testing.assert_array_equal(lk.sqrtm(np.zeros((n, n))), np.zeros((n, n)))
        with pytest.raises(lk.errors.SingularMatrixError):
            lk.invsqrtm(np.zeros((n, n)))


@pytest.mark.parametrize("n", [3, 12, 40])
def test_complex_root_of_an_indefinite_matrix_on_request(n):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((n, n))
    a = a + a.T
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError, match=r"negative eigenvalue.*0j"):
        lk.sqrtm(a)
    x = lk.sqrtm(a + 0j)
    assert relative_error(x @ x, a) < 1e-13
    np.testing.assert_allclose(lk.sqrtm(-np.eye(n) + 0j), 1j * np.eye(n), atol=1e-15)


def test_indefinite_members_leave_definite_ones_their_bits():
    a = spd_matrix(20, 10.0, batch=(3,), dtype="complex128", rng=0)
    want = lk.sqrtm(a)
    mixed = np.concatenate([a, a[:1] - 0.5 * np.eye(20)])
    x = lk.sqrtm(mixed)
    np.testing.assert_array_equal(x[:3], want)
    assert relative_error(x[3] @ x[3], mixed[3]) < 1e-13
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError):
        lk.sqrtm(mixed, assume_a="pos")
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError):
        lk.sqrtm(np.array([[-4 + 0j]]), assume_a="pos")


def test_singular_only_at_eps():
    eps = EPS["float64"]
    for n in (3, 40):
        w = np.ones(n)
        w[0] = 4 * eps
        np.testing.assert_allclose(np.diag(lk.invsqrtm(np.diag(w))), w**-0.5, rtol=1e-10)
        w[0] = eps / 2
        with pytest.raises(lk.errors.SingularMatrixError, match="damp"):
            lk.invsqrtm(np.diag(w))


# ---- damping ----


@pytest.mark.parametrize("n", [2, 6, 40])
def test_damping(n, dtype):
    a = spd_matrix(n, 1e2, batch=(3,), dtype=dtype, rng=0)
    top = np.linalg.eigvalsh(a)[:, -1]
    eye = np.eye(n, dtype=dtype)
    bound = 50 * EPS[dtype] * 1e2
    damp = np.array([0.0, 0.5, 2.0])
    want = lk.invsqrtm((a + damp[:, None, None] * eye).astype(dtype))
    assert (relative_error(lk.invsqrtm(a, damp=damp), want) <= bound).all()
    want = lk.invsqrtm((a + (0.1 * top)[:, None, None] * eye).astype(dtype))
    assert (relative_error(lk.invsqrtm(a, rel_damp=0.1), want) <= bound).all()
    per_member = np.array([0.1, 0.2, 0.0])
    want = lk.invsqrtm((a + (per_member * top)[:, None, None] * eye).astype(dtype))
    assert (relative_error(lk.invsqrtm(a, rel_damp=per_member), want) <= bound).all()


@pytest.mark.parametrize("n", [4, 40])
def test_damped_singular_and_pseudo_inverse(n):
    a = spd_matrix(n, spectrum="rank_deficient", rng=0)
    z, info = lk.invsqrtm(a, rel_damp=1e-6, return_info=True)
    assert info.converged
    top = np.linalg.eigvalsh(a)[-1]
    w = np.linalg.eigvalsh(z)
    assert w[-1] == pytest.approx((1e-6 * top) ** -0.5, rel=1e-6)
    z, info = lk.invsqrtm(a, rcond=1e-10, return_info=True)
    pinv = np.linalg.pinv(a, rcond=1e-10, hermitian=True)
    assert relative_error(z @ z, pinv) < 1e-10
    assert info.residual < 1e-12


# ---- options ----


@pytest.mark.parametrize("method", ["minimax", "newton_schulz"])
@pytest.mark.parametrize("n", [10, 40])
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6])
@FUNCTIONS
def test_tolerance_is_met_with_fewer_steps(name, method, n, tol):
    a = spd_matrix(n, 1e4, rng=0)
    want = getattr(lk, name)(a, method="eigh")
    got, info = getattr(lk, name)(a, method=method, tol=tol, return_info=True)
    # tol bounds every eigenvalue's relative error, hence the spectral norm's
    assert np.linalg.norm(got - want, 2) <= tol * np.linalg.norm(want, 2)
    _, full = getattr(lk, name)(a, method=method, return_info=True)
    if full.method == method:
        assert info.iterations < full.iterations


@pytest.mark.parametrize("n", [10, 40])
def test_exact_steps(n):
    a = spd_matrix(n, 10.0, rng=0)
    _, info = lk.invsqrtm(a, method="newton_schulz", steps=3, return_info=True)
    assert info.iterations == 3
    _, info = lk.invsqrtm(a, steps=4, return_info=True)
    assert (info.iterations, info.method) == (4, "minimax")
    assert info.residual < 1e-4


def test_compute_dtype():
    a = spd_matrix(24, 1e6, dtype="float32", rng=0)
    want = mp_invsqrtm(a[:12, :12])
    low = lk.invsqrtm(a[:12, :12])
    high = lk.invsqrtm(a[:12, :12], compute_dtype="float64")
    assert high.dtype == np.float32
    assert relative_error(high, want) <= 2 * EPS["float32"]
    assert relative_error(low, want) > 10 * relative_error(high, want)
    assert lk.sqrtm(a, compute_dtype=np.float64).dtype == np.float32


def test_info_fields_bound_the_error(dtype):
    a = spd_matrix(12, 1e3, batch=(2, 2), dtype=dtype, rng=0)
    for name, oracle in (("sqrtm", mp_sqrtm), ("invsqrtm", mp_invsqrtm)):
        for method in HERMITIAN_METHODS:
            x, info = getattr(lk, name)(a, method=method, return_info=True)
            assert info.converged.shape == info.residual.shape == info.iterations.shape == (2, 2)
            assert info.converged.all()
            assert info.method == ("minimax" if method == "auto" else method)
            assert (info.iterations > 0).all() == (info.method != "eigh")
            error = [[relative_error(x[i, j], oracle(a[i, j])) for j in (0, 1)] for i in (0, 1)]
            # a first-order bound evaluated in working precision: allow its own rounding
            slack = 20 * EPS[dtype]
            assert (np.array(error) <= info.error_estimate * 1.1 + slack).all()
            assert (info.error_estimate < 1e3 * EPS[dtype] * 1e3).all()


def test_out():
    a = spd_matrix(6, 10.0, batch=(3,), rng=0)
    want = lk.sqrtm(a)
    for out in (np.empty_like(a), np.empty((3, 6, 12))[:, :, ::2], np.empty(a.shape, order="F")):
        assert lk.sqrtm(a, out=out) is out
        np.testing.assert_array_equal(out, want)
    with pytest.raises(ValueError, match="shape"):
        lk.sqrtm(a, out=np.empty((6, 6)))
    with pytest.raises(TypeError, match="dtype"):
        lk.sqrtm(a, out=np.empty(a.shape, "float32"))
    with pytest.raises(ValueError, match="overlaps"):
        lk.sqrtm(a, out=a)
    with pytest.raises(TypeError, match="out"):
        lk.sqrtm(a, out=[1])
    locked = np.empty_like(a)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        lk.sqrtm(a, out=locked)


# ---- layouts and batches ----


@pytest.mark.parametrize("n", [5, 40])
def test_layouts_give_the_same_bits_and_leave_the_input_alone(n, dtype):
    a = spd_matrix(n, 1e2, batch=(4,), dtype=dtype, rng=0)
    want = lk.sqrtm(a)
    locked = a.copy()
    locked.flags.writeable = False
    strided = np.zeros((8, n, 2 * n), dtype)[::2, :, ::2]
    strided[...] = a
    for view in (locked, strided, np.asfortranarray(a), a.astype(a.dtype.newbyteorder())):
        before = view.copy()
        np.testing.assert_array_equal(lk.sqrtm(view), want)
        np.testing.assert_array_equal(view, before)


@pytest.mark.parametrize("n", [2, 4, 9, 20, 40])
@FUNCTIONS
def test_a_member_does_not_see_its_batch(name, n, dtype):
    easy = spd_matrix(n, 2.0, batch=(40,), dtype=dtype, rng=0)
    hard = spd_matrix(n, 1e4, batch=(41,), dtype=dtype, rng=1)
    f = getattr(lk, name)
    mixed = np.concatenate([easy, hard])[np.random.default_rng(0).permutation(81)]
    together = f(mixed)
    for k in range(0, 81, 9):
        np.testing.assert_array_equal(together[k], f(mixed[k]))
    with lk.config_context(num_threads=1):
        np.testing.assert_array_equal(f(mixed), together)
    with lk.config_context(num_threads=5):
        np.testing.assert_array_equal(f(mixed), together)


def test_empty():
    for shape in ((0, 3, 3), (4, 0, 0), (0, 0), (2, 0, 5, 5)):
        for d in EPS:
            x, info = lk.sqrtm(np.empty(shape, d), return_info=True)
            assert x.shape == shape
            assert x.dtype == d
            assert info.converged.shape == shape[:-2]
    assert lk.invsqrtm(np.empty((0, 40, 40), int)).dtype == np.float64


# ---- array libraries ----


@FUNCTIONS
@pytest.mark.parametrize("n", [1, 4, 40])
def test_other_libraries_give_the_same_answers(name, n, dtype, xp):
    a = spd_matrix(n, 1e2, batch=(3,), dtype=dtype, rng=0)
    want = getattr(lk, name)(a)
    given = xp.asarray(a)
    got, info = getattr(lk, name)(given, return_info=True)
    assert type(got) is type(given)
    assert got.dtype == given.dtype
    assert type(info.converged) is type(given)
    bound = 50 * EPS[dtype] * condition(name, 1e2)
    assert (relative_error(np.asarray(got), want) <= bound).all()


def test_general_matrices_in_other_libraries(xp):
    a = random_matrix(6, rng=0)
    got = lk.sqrtm(xp.asarray(a))
    assert relative_error(np.asarray(got), lk.sqrtm(a)) < 1e-12


def test_torch_details():
    torch = pytest.importorskip("torch")
    b = torch.eye(3, dtype=torch.complex64).conj()
    assert lk.sqrtm(b).dtype == torch.complex64
    assert isinstance(lk.sqrtm(torch.tensor(4.0)), torch.Tensor)
    out = torch.empty(3, 3, dtype=torch.float64)
    assert lk.sqrtm(4 * torch.eye(3, dtype=torch.float64), out=out) is out
    assert relative_error(out, 2 * np.eye(3)) <= 10 * EPS["float64"]
