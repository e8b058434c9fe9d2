"""Which way to a Tucker decomposition takes the least work."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from linalgk import _xp
from linalgk.tensor import _sketched, _unfold


class Choice(NamedTuple):
    """A method, why, and about how many operations it takes."""

    method: str
    reason: str
    flops: float


def choose_method(
    shape: Sequence[int], dtype: str, tol: float | None, ranks: Sequence[int] | None,
    method: str = "auto",
) -> Choice:  # fmt: skip
    """The method for an array in memory, by its operations.

    The first mode, which sees all N entries, takes ``N n`` by a Gram matrix, a symmetric product,
    or ``2 N (s + l)`` by projections of the others on l columns, the multiple of eight nearest to
    ``r + 10``, after a look at ``s >= 8`` random combinations; products that narrow have two thirds
    of the speed. The rest is the same: ``2 N r`` of a product, the other modes, ``10 n^3`` of
    eigenvectors for each.
    """
    weight = 4.0 if dtype in _xp.COMPLEX else 1.0
    first, *others = _unfold.order(shape, list(range(len(shape))), ranks)
    entries, n = float(math.prod(shape)), max(shape[first], 1)
    gram = entries * n
    projections = math.inf
    if ranks is not None and len(shape) > 1:
        widths, rows = _sketched.widths_of(shape, ranks, first)
        projections = 1.5 * 2.0 * entries * (rows + max(widths[j] for j in others))
    rest = 0.0
    for mode in (first, *others):
        n = max(shape[mode], 1)
        r = max(1, n // 4) if ranks is None else min(ranks[mode], n)
        rest += (0.0 if mode == first else entries * n) + 10.0 * n**3 + 2.0 * entries * r
        entries *= r / n
    costs = {"st_hosvd": weight * (gram + rest), "randomized": weight * (projections + rest)}
    if method == "hooi":
        return Choice("hooi", "it was asked for", costs["st_hosvd"])
    if method != "auto":
        flops = costs.get(method, 2 * costs["st_hosvd"])
        least = _sketched.VERIFIABLE[_xp.REAL[dtype]]
        if method == "randomized" and tol is not None and tol <= least:
            why = f"norms in {dtype} cannot verify tol={tol:g} of a projection"
            return Choice("randomized+st_hosvd", why, costs["st_hosvd"])
        return Choice(method, "it was asked for", flops)
    if ranks is None or len(shape) == 1:
        return Choice("st_hosvd", "ranks follow from tol", costs["st_hosvd"])
    best = min(costs, key=lambda name: costs[name])
    other = max(costs.values())
    return Choice(
        best, f"it takes {costs[best]:.2g} operations, the other {other:.2g}", costs[best]
    )
