"""What the results of this room carry."""

import dataclasses
from typing import Any

from linalgk._results import Info


@dataclasses.dataclass(frozen=True, eq=False)
class RandomInfo(Info):
    """`Info` of a randomized result.

    Attributes
    ----------
    rank : int or array of int
        Of the result, one number or one per member.
    passes : int
        How often all of the data were read, for one member.
    seed : tuple of int
        ``rng=seed`` gives the same result.
    """

    rank: Any
    passes: int
    seed: Any
