"""Odd polynomials that orthogonalize, by the names they have in the field."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linalgk.matfun._minimax import best_odd_polynomial

# Rows a, b, c of a x + b x^3 + c x^5, one a step; the last row is repeated.
PUBLISHED = {
    # K. Jordan et al., "Muon", 2024: not convergent by design, singular values end in (0.7, 1.2)
    "muon": ((3.4445, -4.7750, 2.0315),),
    # J. You, 2024
    "you": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    # E. Grishina, M. Smirnov, M. Rakhuba, arXiv:2506.10935, 2025
    "cans": (
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    # T. Boissin et al., "Turbo-Muon", 2025; after a scaling of the rows
    "aol": (
        (4.0098, -7.0585, 2.4635),
        (3.4585, -5.5479, 2.5959),
        (2.7573, -3.2939, 1.4254),
        (2.7215, -3.0494, 1.3169),
    ),
}
# Converges from where the others stop: Newton-Schulz of order five.
_LAST = (1.875, -1.25, 0.375)
# Of N. Amsel et al., arXiv:2505.16932: smallest singular value, and the share of the largest below
# which a step does not aim.
_LOWER, _CUSHION = 1e-3, 0.02407327424182761


@functools.lru_cache(maxsize=64)
def named(name: str, steps: int, safety: float = 1.0) -> NDArray[np.float64]:
    """Coefficients (steps, 3) of a family."""
    rows = polar_express(steps, safety) if name == "polar_express" else PUBLISHED[name]
    found = [rows[min(k, len(rows) - 1)] for k in range(steps)]
    table = np.array(found, dtype=np.float64).reshape(steps, 3)
    table.flags.writeable = False
    return table


def polar_express(steps: int, safety: float = 1.0) -> tuple[tuple[float, float, float], ...]:
    """The schedule of Amsel et al. by linalgk's own Remez exchange.

    Each step is the best polynomial on [max(low, cushion high), high], scaled so that its values at
    low and high lie evenly about one. ``safety`` divides the arguments of all steps but the last.
    """
    low, high = _LOWER, 1.0
    rows: list[tuple[float, float, float]] = []
    for _ in range(steps):
        a, b, c = best_odd_polynomial(max(low, _CUSHION * high), high)

        def value(x: float, a: float = a, b: float = b, c: float = c) -> float:
            return x * (a + x * x * (b + x * x * c))

        centre = 2 / (value(low) + value(high))
        a, b, c = a * centre, b * centre, c * centre
        low, high = centre * value(low), 2 - centre * value(low)
        rows.append((a, b, c))
    scale = [safety if k + 1 < steps else 1.0 for k in range(steps)]
    return tuple((a / s, b / s**3, c / s**5) for (a, b, c), s in zip(rows, scale, strict=True))


def explicit(coeffs: Any, steps: int | None) -> NDArray[np.float64]:
    """Coefficients given as one triple or several; the last is repeated up to ``steps``."""
    try:
        table = np.array(coeffs, dtype=np.float64)
    except (TypeError, ValueError):
        table = np.empty(0)
    if table.ndim == 1:
        table = table[None]
    if table.ndim != 2 or table.shape[-1] != 3 or not len(table) or not np.isfinite(table).all():
        msg = "coeffs: must be a name or finite triples a, b, c of a x + b x^3 + c x^5, one a step"
        raise ValueError(msg)
    wanted = len(table) if steps is None else steps
    return table[np.minimum(np.arange(wanted), len(table) - 1)]
