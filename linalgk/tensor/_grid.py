"""Construction from all values on a Chebyshev grid."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor import _chebyshev, _compress
from linalgk.tensor._sampling import Sampler

# What the first truncation may take of the tolerance: `_certify.lean` takes the rest.
SHARE = 0.03
# Coefficients of which the sum is formed for a bound.
DENSE = 1 << 22


class Built(NamedTuple):
    """A series more accurate than asked for, with real orthonormal factors."""

    core: Any
    factors: tuple[Any, ...]
    tail: float  # absolute size of the last coefficients
    lengths: list[int]
    lost: float  # bound of what its own truncation changes
    missed: float  # largest error at the construction's own probes


def build(sampler: Sampler, lengths: list[int], tol: float, *, largest: int, longest: int) -> Built:
    """By DCT of the values and a truncated HOSVD, to the absolute tolerance ``tol``.

    A variable whose last coefficients are above it gets more points, up to ``longest``, as long as
    the grid has at most ``largest``.
    """
    while True:
        c = sampler.grid([_chebyshev.points(m) for m in lengths])
        for k in range(c.ndim):
            c = _chebyshev.coefficients(c, axis=k)
        tails = [tail(np.abs(c).max(axis=_others(c.ndim, k))) for k in range(c.ndim)]
        more = [
            min(padded(3 * m // 2), longest) if t > tol else m
            for m, t in zip(lengths, tails, strict=True)
        ]
        if more == lengths or math.prod(more) > min(largest, sampler.left):
            break
        lengths = more
    if c.ndim == 1:
        parts = [c] if c.dtype.kind != "c" else [c.real, c.imag]
        core = np.array([1.0]) if c.dtype.kind != "c" else np.array([1.0, 1j])
        found = _compress.compress(core, [np.stack(parts, axis=1)], tol=SHARE * tol, trim=False)
    else:
        found = _compress.truncate(c, tol=SHARE * tol)
    lost = math.sqrt(c.size) * found.error
    if found.error and c.size <= DENSE:
        c -= _compress.mixed_products(found.core, found.factors)
        lost = float(np.abs(c).sum())
    return Built(found.core, found.factors, max(tails), lengths, lost, 0.0)


def tail(envelope: Any) -> float:
    """The largest of the last coefficients."""
    return float(envelope[-max(2, len(envelope) // 32) :].max()) if len(envelope) > 2 else 0.0


def padded(m: int) -> int:
    """A few more points than coefficients are expected, of a number that suits the DCT."""
    import scipy.fft

    return int(scipy.fft.next_fast_len(m + max(2, m // 16), real=True)) + 1


def _others(d: int, k: int) -> tuple[int, ...]:
    return tuple(j for j in range(d) if j != k)
