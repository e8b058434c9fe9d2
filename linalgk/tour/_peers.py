"""How a NumPy or SciPy user writes the same thing today."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["numpy_invsqrtm", "numpy_sqrtm", "scipy_invsqrtm", "scipy_sqrtm", "scipy_sqrtm_quietly"]


def numpy_invsqrtm(a: Array, rel_damp: float = 0.0) -> Array:
    """Inverse square root by ``numpy.linalg.eigh``."""
    w, v = np.linalg.eigh(a)
    w = w + rel_damp * w[..., -1:]
    return np.asarray((v / np.sqrt(w)[..., None, :]) @ v.mT)


def numpy_sqrtm(a: Array) -> Array:
    """Square root by ``numpy.linalg.eigh``."""
    w, v = np.linalg.eigh(a)
    return np.asarray((v * np.sqrt(np.maximum(w, 0))[..., None, :]) @ v.mT)


def scipy_sqrtm(a: Array) -> Array:
    """``scipy.linalg.sqrtm``, member by member where this SciPy has no batches."""
    from scipy import linalg

    try:
        return np.asarray(linalg.sqrtm(a))
    except ValueError:
        if a.ndim == 2:
            raise
        return np.stack([linalg.sqrtm(member) for member in a])


def scipy_invsqrtm(a: Array) -> Array:
    """``scipy.linalg.inv`` of ``scipy.linalg.sqrtm``."""
    from scipy import linalg

    root = scipy_sqrtm(a)
    try:
        return np.asarray(linalg.inv(root))
    except ValueError:
        if a.ndim == 2:
            raise
        return np.stack([linalg.inv(member) for member in root])


def scipy_sqrtm_quietly(a: Array) -> Array:
    """``scipy.linalg.sqrtm`` without its warnings about singular matrices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scipy_sqrtm(a)
