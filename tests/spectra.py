"""Matrices of known spectra for tests, and what is asked of factors and estimates."""

import numpy as np
import pytest
import scipy.sparse
from directions import adjoint, gaussian

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
DECAYS = {
    "slow": lambda j: 1 / np.sqrt(1 + j),
    "square": lambda j: 1 / (1 + j) ** 2.0,
    "fast": lambda j: 0.7**j,
}


def decaying(m, n, decay, dtype="float64", seed=0):
    """A matrix and its singular values."""
    s = DECAYS[decay](np.arange(min(m, n)))
    wide = np.result_type(dtype, "float64")
    left = np.linalg.qr(gaussian((m, len(s)), wide, seed))[0]
    right = np.linalg.qr(gaussian((n, len(s)), wide, seed + 1))[0]
    return ((left * s) @ right.conj().T).astype(dtype), s


def low_rank(m, n, r, dtype="float64", seed=0):
    return (gaussian((m, r), dtype, seed) @ gaussian((r, n), dtype, seed + 1)).astype(dtype)


def square_of_rank(n, rank, dtype="float64", *, positive=True, seed=0):
    x = gaussian((n, rank), dtype, seed)
    y = x if positive else gaussian((n, rank), dtype, seed + 1)
    return x @ y.conj().T


def spectrum(values, dtype="float64", seed=0):
    """A Hermitian matrix with these eigenvalues."""
    wide = np.result_type(dtype, "float64")
    q = np.linalg.qr(gaussian((len(values),) * 2, wide, seed))[0]
    a = (q * values) @ q.conj().T
    return ((a + a.conj().T) / 2).astype(dtype)


def conditioned(m, n, kappa, dtype="float64", seed=0):
    wide = np.result_type(dtype, "float64")
    r = min(m, n)
    left = np.linalg.qr(gaussian((m, r), wide, seed))[0]
    right = np.linalg.qr(gaussian((n, r), wide, seed + 1))[0]
    return ((left * np.geomspace(1, 1 / kappa, r)) @ right.conj().T).astype(dtype)


def known(m, n, s, dtype="float64", seed=0):
    """A matrix with singular values s, made in double precision, and its pseudoinverse."""
    wide = np.result_type(dtype, "float64")
    u = np.linalg.qr(gaussian((m, len(s)), wide, seed))[0]
    v = np.linalg.qr(gaussian((n, len(s)), wide, seed + 1))[0]
    return ((u * s) @ adjoint(v)).astype(dtype), (v / s) @ adjoint(u)


def system(m, n, dtype="float64", seed=0):
    a = gaussian((m, n), dtype, seed)
    x = gaussian(n, dtype, seed + 10)
    return a, a @ x, x


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


def distance(x, y, norm=None):
    return np.linalg.norm(np.asarray(x) - y, norm) / np.linalg.norm(y, norm)


def defects(found):
    u, s, vh = (np.asarray(x) for x in found)
    one = np.eye(len(s))
    return np.abs(u.conj().T @ u - one).max(), np.abs(vh @ vh.conj().T - one).max()


def is_inside(estimate, true, level=0.95):
    low, high = estimate.interval(level)
    return bool(low <= true <= high)


def precise_form(a, x, name):
    """``x^H f(A) x`` to 40 digits."""
    mpmath = pytest.importorskip("mpmath")
    functions = {
        "log": mpmath.log, "inv": lambda t: 1 / t, "sqrt": mpmath.sqrt, "exp": mpmath.exp,
        "invsqrt": lambda t: 1 / mpmath.sqrt(t),
    }  # fmt: skip
    with mpmath.workdps(40):
        w, v = mpmath.eighe(mpmath.matrix(a.astype(np.result_type(a, "float64")).tolist()))
        c = v.H * mpmath.matrix(x.astype(np.result_type(x, "float64")).tolist())
        return sum(functions[name](w[i]) * abs(c[i]) ** 2 for i in range(len(x)))
