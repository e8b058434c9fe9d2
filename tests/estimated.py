"""Matrices of known spectra for tests of traces and quadrature."""

import numpy as np
import scipy.sparse

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def spectrum(values, dtype="float64", seed=0):
    """A Hermitian matrix with these eigenvalues."""
    wide = np.result_type(dtype, "float64")
    q = np.linalg.qr(gaussian((len(values),) * 2, wide, seed))[0]
    a = (q * values) @ q.conj().T
    return ((a + a.conj().T) / 2).astype(dtype)


def low_rank(n, rank, dtype="float64", *, positive=True, seed=0):
    x = gaussian((n, rank), dtype, seed)
    y = x if positive else gaussian((n, rank), dtype, seed + 1)
    return x @ y.conj().T


def is_inside(estimate, true, level=0.95):
    low, high = estimate.interval(level)
    return bool(low <= true <= high)


def grid(m, shift=1.0):
    """The Laplacian of a grid of m^3 nodes plus a shift, and its eigenvalues."""
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))
    a = scipy.sparse.csr_array((m**3, m**3))
    eye = scipy.sparse.eye_array
    for i in range(3):
        a = a + scipy.sparse.kron(
            scipy.sparse.kron(eye(m**i), line), eye(m ** (2 - i)), format="csr"
        )
    one = 2 - 2 * np.cos(np.pi * np.arange(1, m + 1) / (m + 1))
    eigenvalues = shift + one[:, None, None] + one[:, None] + one
    return scipy.sparse.csr_array(a + shift * eye(m**3)), eigenvalues.reshape(-1)
