"""Least squares problems of known answers, and oracles that share no code with ours."""

import numpy as np
import pytest
import spectra
from spectra import conditioned


def gaussian(*shape, dtype="float64", seed=0):
    """Normal numbers, of complex dtype with a normal imaginary part."""
    return spectra.gaussian(shape, dtype, seed)


def problem(m, n, kappa, residual, dtype="float64", seed=0):
    """``a, b`` with ``||a|| = ||a x|| = 1`` for a solution x, and a residual of that size."""
    wide = np.result_type(dtype, "float64")
    a = conditioned(m, n, kappa, wide, seed)
    rest = gaussian(m, dtype=wide, seed=seed + 2)
    q = np.linalg.qr(a)[0]
    for _ in range(2):
        rest = rest - q @ (q.conj().T @ rest)
    x = gaussian(n, dtype=wide, seed=seed + 3)
    image = a @ (x / np.linalg.norm(x))
    b = image + residual * rest / np.linalg.norm(rest)
    return a.astype(dtype), b.astype(dtype)


def backward_error(a, b, x):
    """Formula of Karlson and Walden with the SVD of a, relative to ``||a||_F``, by columns.

    Of the least ``||[E, f ||a||_F / ||b||]||_F`` with which x is exact; at least that, and at most
    2^(1/2) of it (Gratton, Jiranek and Titley-Peloquin). Residuals are those of long doubles.
    """
    vector = b.ndim == 1
    b, x = (b[:, None], x[:, None]) if vector else (b, x)
    wide = np.clongdouble if np.result_type(a, b).kind == "c" else np.longdouble
    long = a.astype(wide)
    r = b.astype(wide) - long @ x.astype(wide)
    back = (long.conj().T @ r).astype(np.result_type(a, "float64"))
    r, a, x = (y.astype(np.result_type(y.dtype, "float64")) for y in (r, a, x))
    _, s, vh = np.linalg.svd(a.astype(back.dtype), full_matrices=False)
    size = np.sqrt((s**2).sum())
    found = []
    for j in range(b.shape[1]):
        aside, length = float(np.linalg.norm(r[:, j].astype(back.dtype))), np.linalg.norm(x[:, j])
        theta = size / np.linalg.norm(b[:, j])
        phi = theta * aside / np.hypot(1, theta * length)
        weight = np.hypot(s, phi)
        spectral = np.linalg.norm((vh @ back[:, j]) / weight)
        found.append(spectral * theta / np.hypot(1, theta * length) / size if aside else 0.0)
    return found[0] if vector else np.array(found)


def least_backward_error(a, b, x):
    """The thing itself, after Walden, Karlson and Sun; to ``eps`` only, and for small m."""
    r = b - a @ x
    size, aside, length = np.linalg.norm(a), np.linalg.norm(r), np.linalg.norm(x)
    theta = size / np.linalg.norm(b)
    phi = theta * aside / np.hypot(1, theta * length)
    unit = r / aside
    beside = np.eye(len(b)) - np.outer(unit, unit.conj())
    s = np.linalg.svd(np.hstack([a, phi * beside]), compute_uv=False)
    return min(phi, s[-1]) / size


def exact(a, b, damp=0.0, digits=80):
    """The solution to so many digits, of full column rank or with damp: float64, or complex."""
    mpmath = pytest.importorskip("mpmath")

    complex_ = np.result_type(a, b).kind == "c"
    number = mpmath.mpc if complex_ else mpmath.mpf
    with mpmath.workdps(digits):
        lift = np.vectorize(number, otypes=[object])
        a, b = lift(a), lift(b)
        turned = np.vectorize(mpmath.conj, otypes=[object])(a).T
        gram = mpmath.matrix((turned @ a).tolist()) + damp * mpmath.eye(a.shape[1])
        right = (turned @ b).reshape(a.shape[1], -1)
        x = mpmath.lu_solve(gram, mpmath.matrix(right[:, :1].tolist()))
        columns = [
            mpmath.lu_solve(gram, mpmath.matrix(right[:, j : j + 1].tolist()))
            for j in range(right.shape[1])
        ]
        x = np.array([[complex(v) if complex_ else float(v) for v in col] for col in columns]).T
    return x[:, 0] if b.ndim == 1 else x
