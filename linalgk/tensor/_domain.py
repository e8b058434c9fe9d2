"""The box that a function lives on."""

import math
from typing import Any

import numpy as np


def checked_domain(domain: Any) -> tuple[tuple[float, float], ...]:
    """1 to 4 intervals."""
    try:
        pairs = np.asarray(domain, dtype=np.float64)
    except (TypeError, ValueError):
        pairs = np.empty(0)
    if pairs.shape == (2,):
        pairs = pairs[None, :]
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not 1 <= pairs.shape[0] <= 4:
        msg = f"domain: must be 1 to 4 pairs (a, b), got {domain!r}"
        raise ValueError(msg)
    for k, (a, b) in enumerate(pairs.tolist()):
        if not (a < b and math.isfinite(b - a)):
            msg = f"domain: must have a < b, both finite, in every variable, got ({a}, {b}) in {k}"
            raise ValueError(msg)
    return tuple((a, b) for a, b in pairs.tolist())
