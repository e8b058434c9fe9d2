"""The oracles are judged by closed forms, by exact identities and by each other."""

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest

from linalgk import testing as t

EPS = float(np.finfo(np.float64).eps)
SPECTRA = get_args(t.Spectrum)
DTYPES = ("float32", "float64", "complex64", "complex128")


def eps_of(dtype: str) -> float:
    return float(np.finfo(dtype).eps)


# --- matrices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_hermitian_bit_by_bit_reproducible_and_batched(spectrum, dtype):
    a = t.spd_matrix(6, 1e3, spectrum=spectrum, batch=(2, 3), dtype=dtype, rng=7)
    assert a.shape == (2, 3, 6, 6)
    assert a.dtype == dtype
    np.testing.assert_array_equal(a, np.conj(np.swapaxes(a, -1, -2)))
    again = t.spd_matrix(6, 1e3, spectrum=spectrum, batch=(2, 3), dtype=dtype, rng=7)
    np.testing.assert_array_equal(a, again)
    assert not np.array_equal(a[0, 0], a[0, 1])
    other = t.spd_matrix(6, 1e3, spectrum=spectrum, batch=(2, 3), dtype=dtype, rng=8)
    assert not np.array_equal(a, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_spectrum_as_asked(dtype):
    n, kappa = 9, 1e3
    w = np.linalg.eigvalsh(t.spd_matrix(n, kappa, dtype=dtype).astype(complex))
    np.testing.assert_allclose(w, np.geomspace(1 / kappa, 1, n), rtol=20 * eps_of(dtype) * kappa)


def test_largest_condition_survives_rounding():
    w = np.linalg.eigvalsh(t.spd_matrix(16, 1e15))
    assert 0.7e-15 < w[0] < 1.3e-15


def test_clustered_spectrum_as_asked():
    w = np.linalg.eigvalsh(t.spd_matrix(10, 1e6, spectrum="clustered", rng=3))
    assert np.all((w[:5] > 0.99e-6) & (w[:5] < 1.02e-6))
    assert np.all((w[5:] > 0.98) & (w[5:] < 1.01))


def test_heavy_tail_is_heavier_than_log_uniform():
    w = np.linalg.eigvalsh(t.spd_matrix(200, 1e6, spectrum="heavy_tailed"))
    assert w[-1] == pytest.approx(1, rel=1e-12)
    assert w[0] >= 0.99e-6
    assert (
        np.median(w) < 1e-2
    )  # of a log-uniform spectrum of this length it is 1e-3, of its sum not
    assert w[-1] > 0.3 * np.sum(w)


def test_wishart_has_the_marchenko_pastur_edges():
    w = np.linalg.eigvalsh(t.spd_matrix(300, spectrum="wishart"))
    edges = (1 - 0.5**0.5) ** 2, (1 + 0.5**0.5) ** 2
    np.testing.assert_allclose((w[0], w[-1]), edges, rtol=0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank_deficient_product_is_exact(dtype):
    n, rank = 7, 3
    b = t.psd_factor(n, rank, dtype=dtype, rng=5)
    a = t.spd_matrix(n, spectrum="rank_deficient", dtype=dtype, rng=5)

    def exact(z):
        z = complex(z)
        return Fraction(z.real), Fraction(z.imag)

    for i in range(n):
        for j in range(n):
            real, imag = Fraction(0), Fraction(0)
            for k in range(rank):
                (p, q), (r, s) = exact(b[i, k]), exact(b[j, k])
                real, imag = real + p * r + q * s, imag + q * r - p * s
            assert (real, imag) == exact(a[i, j])
    w = np.linalg.eigvalsh(a.astype(complex))
    assert np.all(np.abs(w[: n - rank]) < 1e-14)
    assert w[n - rank] > 1e-5


def test_unknown_spectrum_is_named():
    with pytest.raises(ValueError, match="'flat'"):
        t.spd_matrix(3, spectrum="flat")


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_smallest_orders(spectrum, n):
    a = t.spd_matrix(n, spectrum=spectrum, batch=(2,))
    assert a.shape == (2, n, n)
    assert t.random_matrix(n, batch=(2,)).shape == (2, n, n)
    if n == 0 or spectrum != "rank_deficient":
        assert t.reference_invsqrtm(a).shape == (2, n, n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [6, 7])
def test_general_matrices_have_the_eigenvalues_asked(n, dtype):
    a = t.random_matrix(n, 50.0, max_angle=2.0, batch=(20,), dtype=dtype).astype(complex)
    w = np.linalg.eigvals(a)
    modulus = np.sort(np.abs(w), axis=-1)
    np.testing.assert_allclose(modulus[:, -1] / modulus[:, 0], 50, rtol=2e4 * eps_of(dtype))
    assert np.max(np.abs(np.angle(w))) < 2.0 + 2e4 * eps_of(dtype)
    assert np.max(np.abs(np.angle(w))) > 1.5
    assert np.all(t.relative_error(a, np.conj(np.swapaxes(a, -1, -2))) > 0.1)


# --- oracles -------------------------------------------------------------------------------------


def two_by_two(a, b, d):
    """Root of [[a, b], [b, d]] by its closed form, in rational and then decimal arithmetic."""
    import mpmath as mp

    with mp.workdps(60):
        s = mp.sqrt(mp.mpf(a) * d - mp.mpf(b) * b)
        r = mp.sqrt(mp.mpf(a) + d + 2 * s)
        return np.array([[float((a + s) / r), float(b / r)], [float(b / r), float((d + s) / r)]])


def test_mp_against_closed_form():
    for a, b, d in ((2.0, 1.0, 3.0), (1.0, 1e-9, 1e-17), (1e30, 3.0, 1e-3)):
        np.testing.assert_array_equal(t.mp_sqrtm([[a, b], [b, d]]), two_by_two(a, b, d))


def test_mp_refuses_what_has_no_real_root():
    with pytest.raises(ValueError, match="semidefinite"):
        t.mp_sqrtm([[1.0, 0.0], [0.0, -1e-30]])
    with pytest.raises(ValueError, match="definite"):
        t.mp_invsqrtm([[1.0, 1.0], [1.0, 1.0]])


def test_mp_root_of_a_singular_matrix():
    np.testing.assert_allclose(t.mp_sqrtm(np.ones((4, 4))), np.full((4, 4), 0.5), rtol=0)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_mp_identities_at_fifty_digits(dtype):
    import mpmath as mp

    a = t.spd_matrix(6, 1e12, dtype=dtype)
    with mp.workdps(50):
        exact = mp.matrix(a.tolist())
        eig = mp.eighe if a.dtype.kind == "c" else mp.eigsy
        w, q = eig(exact)
        root = q * mp.diag([mp.sqrt(x) for x in w]) * q.transpose_conj()
        assert mp.mnorm(root * root - exact, "f") < mp.mpf(10) ** -47
        rounded = mp.matrix(t.mp_sqrtm(a).tolist())
        assert mp.mnorm(rounded - root, "f") <= mp.mpf(EPS) * mp.mnorm(root, "f")
        inverse = mp.matrix(t.mp_invsqrtm(a).tolist())
        # The rounding of the inverse, 1e6 in norm, meets the root once.
        assert mp.mnorm(inverse * root - mp.eye(6), "f") <= mp.mpf(EPS) * mp.mnorm(inverse, "f")
        assert mp.mnorm(inverse * root - mp.eye(6), "f") > mp.mpf(10) ** -30


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("kappa", [1e1, 1e8, 1e15])
def test_references_against_mp(kappa, dtype):
    a = t.spd_matrix(8, kappa, dtype=dtype)
    t.assert_close(t.reference_sqrtm(a), t.mp_sqrtm(a), EPS)
    t.assert_close(t.reference_invsqrtm(a), t.mp_invsqrtm(a), EPS)


def test_reference_is_better_than_eigh():
    a = t.spd_matrix(8, 1e15)
    w, v = np.linalg.eigh(a)
    assert t.relative_error((v * np.sqrt(np.abs(w))) @ v.T, t.mp_sqrtm(a)) > 1e-12


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_references_of_single_precision(dtype):
    a = t.spd_matrix(8, 1e5, dtype=dtype)
    t.assert_close(t.reference_sqrtm(a), t.mp_sqrtm(a), 1e2 * EPS * 1e5**0.5)
    t.assert_close(t.reference_invsqrtm(a), t.mp_invsqrtm(a), 1e2 * EPS * 1e5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_of_a_singular_matrix_by_its_factor(dtype):
    a = t.spd_matrix(8, spectrum="rank_deficient", dtype=dtype)
    factor = t.psd_factor(8, 4, dtype=dtype)
    t.assert_close(t.reference_sqrtm(a, factor=factor), t.mp_sqrtm(a), EPS)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_general_reference_against_mp(dtype):
    a = t.random_matrix(8, dtype=dtype)
    t.assert_close(t.reference_sqrtm_general(a), t.mp_sqrtm_general(a), 2 * EPS)
    np.testing.assert_array_equal(
        t.reference_sqrtm_general(a[None])[0], t.reference_sqrtm_general(a)
    )


def test_large_reference_satisfies_its_equation():
    a = t.spd_matrix(96, 1e12)
    x, z = t.reference_sqrtm(a), t.reference_invsqrtm(a)
    assert t.relative_error(x @ x, a) < 10 * EPS
    assert t.relative_error(x @ z, np.eye(96)) < 10 * EPS * 1e6


def test_references_do_not_depend_on_the_batch():
    a = t.spd_matrix(5, 1e10, batch=(3,))
    np.testing.assert_array_equal(t.reference_invsqrtm(a)[1], t.reference_invsqrtm(a[1]))


def test_references_refuse_what_they_cannot_find():
    with pytest.raises(ArithmeticError, match=r"\[1\]"):
        t.reference_sqrtm(np.stack([np.eye(2), np.diag([1.0, -0.5])]))
    with pytest.raises(ArithmeticError):
        t.reference_sqrtm_general(np.diag([1.0, -1.0]))


# --- comparison ----------------------------------------------------------------------------------


def test_relative_error_by_hand():
    ref = np.stack([np.eye(2), 1e200 * np.eye(2), np.zeros((2, 2)), np.zeros((2, 2)), np.eye(2)])
    x = ref.copy()
    x[0, 0, 1] = 3 * 2**0.5
    x[1] *= 1.5
    x[3, 0, 0] = 1.0
    x[4, 0, 0] = np.nan
    np.testing.assert_allclose(t.relative_error(x, ref), [3, 0.5, 0, np.inf, np.nan], rtol=1e-15)


def test_relative_error_refuses_to_broadcast():
    with pytest.raises(ValueError, match="shapes differ"):
        t.relative_error(np.eye(2), np.ones((3, 2, 2)))


def test_assert_close_names_the_worst_member():
    ref = np.broadcast_to(np.eye(2), (2, 3, 2, 2))
    x = ref.copy()
    t.assert_close(x, ref, 0)
    x[0, 1] *= 1.25
    x[1, 2] *= 1.5
    with pytest.raises(AssertionError, match=r"root: .* 5\.000e-01 .* member \(1, 2\); 2 of 6"):
        t.assert_close(x, ref, 0.1, label="root")
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(AssertionError, match=r"nan .* member \(0, 0\); 3 of 6"):
        t.assert_close(x, ref, 0.1)
    with pytest.raises(AssertionError):
        t.assert_close(np.eye(2) * np.nan, np.eye(2), np.inf)


def test_other_namespaces_come_to_the_host():
    xp = pytest.importorskip("array_api_strict")
    np.testing.assert_array_equal(t.to_numpy(xp.asarray([[1.0, 2.0]])), [[1.0, 2.0]])


def test_torch_tensors_come_to_the_host():
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1.0, 2.0j]], requires_grad=True)
    np.testing.assert_array_equal(t.to_numpy(x.conj()), [[1.0, -2.0j]])
    low = torch.tensor([[1.5]], dtype=torch.bfloat16)
    np.testing.assert_array_equal(t.to_numpy(low), [[1.5]])
