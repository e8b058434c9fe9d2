"""What comes back beside a pseudoinverse."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import Given
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._parts import fielded
from linalgk.sketch import Philox


@dataclasses.dataclass(frozen=True, eq=False)
class PinvInfo(RandomInfo):
    """`RandomInfo` of a pseudoinverse.

    Attributes
    ----------
    wedin_bound : array
        ``||A_r^+ - X||_2`` is at most this, up to rounding; zero for exact methods.
    reason : str
        Why the method ran.
    """

    wedin_bound: Any
    reason: str


class Result(NamedTuple):
    """Of all members; numbers as NumPy arrays (b,)."""

    x: Any  # (b, n, m), or a pair of factors
    rank: Any
    error: Any
    residual: Any
    bound: Any
    iterations: Any
    failed: Any
    passes: int
    method: str
    reason: str


def info_of(a: Given, r: Result, converged: Any, known: Any, seed: Philox) -> PinvInfo:
    real = _xp.REAL[a.dtype]

    def field(value: Any, dtype: Any = real) -> Any:
        value = np.where(known, value, math.nan) if dtype == real else value
        return fielded(a, np.asarray(value).astype(dtype))

    return PinvInfo(
        method=r.method, iterations=field(r.iterations, np.int64), converged=field(converged, bool),
        residual=field(r.residual), error_estimate=field(r.error),
        rank=field(np.where(known, r.rank, 0), np.int64), passes=r.passes, seed=tuple(seed.key),
        wedin_bound=field(r.bound), reason=r.reason,
    )  # fmt: skip
