"""Real covariance matrices: patches of the two photographs, and handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = [
    "EDGE",
    "REL_DAMP",
    "Data",
    "Samples",
    "conditions",
    "covariance",
    "damped",
    "identity_error",
    "patches",
    "read",
    "size",
]

REL_DAMP = 1e-6
EDGE = 8  # of the patches that are whitened as samples; 64 pixels, as many as a digit has


@dataclass(frozen=True)
class Samples:
    """Centred samples (rows) with their mean and covariance."""

    centred: Array
    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Data:
    """The input of the chapter: what was read, and the covariances made of it."""

    images: dict[str, Array]
    windows: Array
    kappa: Array  # condition number of each window
    samples: Samples
    large: Array
    digits: Array | None


def read(*, quick: bool) -> Data:
    """Everything the chapter works on; with `quick` fewer matrices, and smaller ones."""
    images = photographs()
    step = 32 if quick else 8
    windows = [local_covariances(image, step=step) for image in images.values()]
    coarse = 8 if quick else 4
    rows = [patches(i, EDGE, EDGE, step=coarse) for i in images.values()]
    shape, wide_step = ((8, 16), 16) if quick else ((16, 24), 8)
    wide = [patches(i, *shape, step=wide_step) for i in images.values()]
    stacked = np.concatenate(windows)
    return Data(
        images=images,
        windows=stacked,
        kappa=conditions(stacked),
        samples=covariance(np.concatenate(rows)),
        large=covariance(np.concatenate(wide)).covariance,
        digits=digit_classes(),
    )


def photographs() -> dict[str, Array]:
    """Load both photographs in double precision, by name."""
    from linalgk.data import PHOTOGRAPHS, photograph

    return {name: photograph(name).astype(np.float64) for name in PHOTOGRAPHS}


def patches(image: Array, height: int, width: int, *, step: int) -> Array:
    """Patches of an image as rows.

    Parameters
    ----------
    image : array, shape (m, n)
    height, width : int
        Size of a patch.
    step : int
        Distance between neighbouring patches.

    Returns
    -------
    array, shape (count, height * width)
    """
    views = sliding_window_view(image, (height, width))[::step, ::step]
    return views.reshape(-1, height * width)


def covariance(rows: Array) -> Samples:
    """Centre samples and take their covariance."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Samples(centred, mean, centred.T @ centred / (len(rows) - 1))


def local_covariances(image: Array, *, patch: int = 4, window: int = 16, step: int = 8) -> Array:
    """Covariance of the patches inside each window of an image.

    Parameters
    ----------
    image : array, shape (m, n)
    patch, window : int
        Edge lengths in pixels.
    step : int
        Distance between neighbouring windows.

    Returns
    -------
    array, shape (windows, patch**2, patch**2)
    """
    inside = window - patch + 1
    views = sliding_window_view(image, (patch, patch))
    # A window of patches is a window over the first two axes of the view of all patches.
    views = sliding_window_view(views, (inside, inside), axis=(0, 1))[::step, ::step]
    rows = np.moveaxis(views, (-2, -1), (2, 3)).reshape(-1, inside**2, patch**2)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(np.matmul(rows.mT, rows) / (inside**2 - 1))


def digit_classes() -> Array | None:
    """Covariance of the pixels of each handwritten digit, or None without scikit-learn.

    Returns
    -------
    array, shape (10, 64, 64), or None
        Singular: pixels at the border are blank in every picture of a class.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return None
    digits = load_digits()
    classes = (digits.data[digits.target == digit] for digit in range(10))
    return np.stack([covariance(rows).covariance for rows in classes])


def identity_error(w: Array, c: Array) -> Array:
    """Largest entry of |W C W - I| of each member, evaluated in double precision."""
    wide = w.astype(np.float64)
    off = np.abs(wide @ c.astype(np.float64) @ wide - np.eye(c.shape[-1]))
    return np.asarray(off.max(axis=(-2, -1)))


def damped(a: Array) -> Array:
    """``C + rel_damp λ_max I``, what the damped inverse root refers to."""
    top = np.linalg.eigvalsh(a)[..., -1]
    return np.asarray(a + (REL_DAMP * top)[..., None, None] * np.eye(a.shape[-1], dtype=a.dtype))


def conditions(a: Array) -> Array:
    """Condition number of each member."""
    w = np.linalg.eigvalsh(a)
    return np.asarray(w[..., -1] / w[..., 0])


def size(a: Array) -> str:
    """Shape for people."""
    return " × ".join(f"{n:,}" for n in a.shape)
