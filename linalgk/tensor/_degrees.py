"""How many Chebyshev coefficients a function needs in each variable, from a few of its fibres.

A fibre is the function along one variable, all others held fixed. It is sampled on nested grids of
2^k + 1 points until its coefficients reach a plateau [1]_ and foretell values between the points.

.. [1] J. L. Aurentz, L. N. Trefethen, "Chopping a Chebyshev series", ACM Trans. Math. Softw. 43
   (2017).
"""

from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor import _chebyshev
from linalgk.tensor._sampling import Sampler

# Points a side of the first look, by number of variables; smaller where f takes single numbers.
COARSE = {1: 65, 2: 33, 3: 17, 4: 9}
COARSE_SLOW = {1: 65, 2: 17, 3: 9, 4: 5}
# Points of a fibre along which the maximum is followed.
CLIMB = 65


class Degrees(NamedTuple):
    """Numbers of coefficients."""

    lengths: list[int]
    resolved: list[bool]
    tail: float  # absolute size of the last coefficients, the worst of all variables
    noise: float  # rounding of f's values relative to its scale


def explore(sampler: Sampler) -> tuple[list[Any], Any]:
    """A coarse grid and its values, after which ``sampler.top`` is near the largest value.

    A narrow peak shows as a small value near it, and one fibre after the other leads up to it.
    """
    n = (COARSE if sampler.vectorized else COARSE_SLOW)[sampler.ndim]
    axes = [_chebyshev.points(n)] * sampler.ndim
    values = sampler.grid(axes)
    if sampler.scale == 0.0:
        return axes, values
    line = np.linspace(-1, 1, CLIMB)
    for turn in range(8):
        before = sampler.scale
        for k in range(sampler.ndim):
            window = (
                line if turn == 0 else np.clip(sampler.top[k] + line * 0.5 ** (2 * turn), -1, 1)
            )
            t = np.repeat(sampler.top[:, None], CLIMB, axis=1)
            t[k] = window
            sampler(t)
        if sampler.scale <= 1.02 * before and turn:
            break
    return axes, values


def find(
    sampler: Sampler, tol: float, *, fibres: int, through: Any, longest: int, rng: Any
) -> Degrees:
    """Lengths for coefficients down to ``tol * sampler.scale``.

    ``through`` (d, q) are points that fibres have to pass, besides random ones.
    """
    found = [_one(sampler, k, tol, fibres, through, longest, rng) for k in range(sampler.ndim)]
    eps = sampler.eps
    noise = eps + sum(f[3] for f in found)
    return Degrees([f[0] for f in found], [f[1] for f in found], max(f[2] for f in found), noise)


def _one(
    sampler: Sampler, k: int, tol: float, fibres: int, through: Any, longest: int, rng: Any
) -> tuple[int, bool, float, float]:
    d = sampler.ndim
    a, b = sampler.domain[k]
    base = through[:, :1]
    if d > 1:
        base = np.concatenate([through, rng.uniform(-1, 1, (d, fibres))], axis=1)
    probes = rng.uniform(-1, 1, 3)
    n = min(17, longest)
    values = _fibres(sampler, base, k, _chebyshev.points(n))
    aside = _fibres(sampler, base, k, probes)
    while True:
        c = _chebyshev.coefficients(values)
        top = float(np.abs(c).max())
        if top == 0.0 and not aside.any():
            return 1, True, 0.0, 0.0
        scale = sampler.scale
        slopes = np.abs(_chebyshev.values(_chebyshev.derivative(c))) / scale
        slope = float(np.sqrt(np.mean(slopes**2, axis=0)).max())
        # t is known to eps * |x| / (half the width)
        noise = sampler.eps * slope * max(abs(a), abs(b)) / (0.5 * (b - a))
        wanted = max(tol, 2 * (noise + sampler.eps)) * scale
        kept = _kept(c, wanted)
        if kept < n or n == 1:
            missed = np.abs(np.polynomial.chebyshev.chebval(probes, c[:kept]).T - aside).max()
            if missed <= 20 * wanted:
                return kept, True, float(np.abs(c[kept:]).max(initial=0.0)), noise
        if n == longest:
            return n, False, float(np.abs(c[-(n // 16 + 1) :]).max()), noise
        if 2 * n - 1 <= longest:
            n = 2 * n - 1
            finer = np.empty((n, values.shape[1]), values.dtype)
            finer[::2] = values
            between = _fibres(sampler, base, k, _chebyshev.points(n)[1::2])
            finer = finer.astype(np.result_type(finer, between), copy=False)
            finer[1::2] = between
            values = finer
        else:
            n = longest
            values = _fibres(sampler, base, k, _chebyshev.points(n))


def _kept(c: Any, wanted: float) -> int:
    """Coefficients to keep for this absolute accuracy; all where it is not reached."""
    top = float(np.abs(c).max())
    if top <= wanted:
        return 1
    if c.shape[0] >= 17:
        return int(_chebyshev.chop(c, wanted / top))
    small = np.abs(c).max(axis=1) <= wanted
    return int(c.shape[0] - np.argmin(small[::-1]))


def _fibres(sampler: Sampler, base: Any, k: int, line: Any) -> Any:
    """Values (len(line), q) along variable k through the columns of base (d, q)."""
    q = base.shape[1]
    t = np.repeat(base[:, None, :], len(line), axis=1)
    t[k] = line[:, None]
    return sampler(t.reshape(base.shape[0], -1)).reshape(len(line), q)
