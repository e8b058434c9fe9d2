"""Madelung constants of infinite crystals."""

import math
from typing import Any, Literal

import numpy as np

from linalgk import _validate
from linalgk._dispatch import Explanation

_FACE = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5))
# Shift of the other lattice, and whether both are face-centred.
_CRYSTALS = {
    "NaCl": ((0.5, 0.5, 0.5), True),
    "CsCl": ((0.5, 0.5, 0.5), False),
    "ZnS": ((0.25, 0.25, 0.25), True),
}


def madelung_constant(kind: Literal["NaCl", "CsCl", "ZnS"] = "NaCl", /) -> float:
    r"""Madelung constant of an infinite crystal, per distance of nearest neighbours.

    Parameters
    ----------
    kind : {"NaCl", "CsCl", "ZnS"}
        Rock salt, caesium chloride or zinc blende.

    Returns
    -------
    float
        ``M = -sum' q_n d / |x_n|``, the sum over all ions but that of charge 1 at the origin.

    Notes
    -----
    ``1/r = 2 / sqrt(pi) int_0^inf exp(-r^2 t^2) dt``, and a Gaussian summed over a lattice is a
    product of theta functions, which the functional equation sums for small t. In ``t = exp(u)``
    the trapezoidal rule of step h has the error ``exp(-pi^2 / (2 h))``, rounding at h = 0.1. About
    1e-13 in all.

    References
    ----------
    .. [1] J. M. Borwein, M. L. Glasser, R. C. McPhedran, J. G. Wan, I. J. Zucker, "Lattice sums
       then and now", Cambridge 2013, section 1.3: as Mellin transforms of theta functions.

    Examples
    --------
    >>> from linalgk.tensor import madelung_constant
    >>> round(madelung_constant("NaCl"), 10)
    1.7475645946
    """
    _validate.choice("kind", kind, _CRYSTALS)
    shift, faces = _CRYSTALS[kind]
    positive = np.array(_FACE if faces else _FACE[:1])
    negative = (positive + np.array(shift) + 0.5) % 1.0 - 0.5
    h = 0.1
    t = np.exp(np.arange(-38.0, 3.2, h))
    summed = np.zeros(t.size)
    # in pairs, which cancel without rounding for small t
    for x, y in zip(positive, negative, strict=True):
        plus, minus = (np.prod([_theta(t * t, s) for s in z], axis=0) for z in (x, y))
        summed += plus - minus
    nearest = float(np.sqrt(np.min(np.sum(negative**2, axis=1))))
    return -nearest * 2.0 / math.sqrt(math.pi) * h * float(np.sum(t * (summed - 1.0)))


def _theta(a: Any, shift: float) -> Any:
    """``sum_n exp(-a (n + shift)^2)``; for small a by the functional equation."""
    n = np.arange(-9, 10)[:, None]
    wide = np.sum(np.exp(-np.maximum(a, 1.0) * (n + shift) ** 2), axis=0)
    k = np.arange(1, 4)[:, None]
    waves = np.exp(-((math.pi * k) ** 2) / np.minimum(a, 1.0)) * np.cos(2 * math.pi * k * shift)
    narrow = np.sqrt(math.pi / np.minimum(a, 1.0)) * (1.0 + 2.0 * np.sum(waves, axis=0))
    return np.where(a >= 1.0, wide, narrow)


def explain_madelung_constant(
    kind: Literal["NaCl", "CsCl", "ZnS"] = "NaCl", /, **_: Any
) -> Explanation:
    """What a call of madelung_constant would run."""
    _validate.choice("kind", kind, _CRYSTALS)
    sites = 8 if _CRYSTALS[kind][1] else 2
    return Explanation(
        "madelung_constant", "theta", "there is one method", {}, 3.0 * 412 * 22 * sites, 8.0 * 412
    )


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A crystal for each size."""
    del xp, rng
    return ({"small": "NaCl", "medium": "CsCl", "large": "ZnS"}[size],), {}
