"""Directions and products that tests of derivatives share."""

import numpy as np


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def hermitian_part(x):
    return 0.5 * (x + adjoint(x))


def inner(x, y):
    return np.sum(np.conj(x) * y).real


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)
