"""Rank one in more than two factors: higher-order power steps from good beginnings.

The factors stand in two groups, so that each sweep reads the matrix twice, by the products of its
rearrangement; within a group all is small and on the host.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk.kronecker import _structure
from linalgk.kronecker._rearranged import Dense, Rearranged
from linalgk.kronecker._triplets import leading

# Sweeps within a group before the matrix is read again.
_INNER = 8


class RankOne(NamedTuple):
    """Unit factors on the host, the size, the last change of a factor, and sweeps."""

    factors: list[Any]
    size: float
    change: float
    sweeps: int


def middle(shapes: Sequence[tuple[int, int]]) -> int:
    """Where to cut, so that the two groups have the fewest entries together."""
    sizes = [p * q for p, q in shapes]
    cuts = range(1, len(sizes))
    return min(cuts, key=lambda h: (math.prod(sizes[:h]) + math.prod(sizes[h:]), h))


def product(factors: Sequence[Any]) -> Any:
    """The Kronecker product of small matrices."""
    k = factors[0]
    for f in factors[1:]:
        k = np.kron(k, f)
    return k


def group(shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The shape of a product of matrices with these shapes."""
    return math.prod(p for p, _ in shapes), math.prod(q for _, q in shapes)


def hierarchical(y: Any, shapes: Sequence[tuple[int, int]]) -> list[Any]:
    """Unit factors of a matrix on the host: the best two groups, then the same of each."""
    if len(shapes) == 1:
        return [_unit(y)]
    h = middle(shapes)
    left, right = group(shapes[:h]), group(shapes[h:])
    a = Dense(y, left, right)
    seed = _structure.seed_vector(np, y, right)
    # a start that depends on the matrix only: it meets the dominant vector unless they are
    # orthogonal by symmetry, which the second column breaks
    lean = np.cos(np.arange(1.0, seed.shape[0] + 1))[:, None] * (0.01 / math.sqrt(seed.shape[0]))
    found = leading(a, 1, (seed + lean).astype(y.dtype), 100)
    v = found.v if len(found.s) else seed.astype(y.dtype)
    u = a.matmat(v)
    one, two = np.reshape(u, left), np.reshape(np.conj(v), right)
    return hierarchical(one, shapes[:h]) + hierarchical(two, shapes[h:])


def power_steps(
    a: Rearranged, shapes: Sequence[tuple[int, int]], h: int, factors: list[Any],
    kinds: list[int] | None, max_iter: int,
) -> RankOne:  # fmt: skip
    """Sweeps from these unit factors until none changes.

    Each factor in turn is the best one beside the others: the size never falls.
    """
    sweeps, change, size = 0, math.inf, 0.0
    aim = 64 * a.eps
    left, right = group(shapes[:h]), group(shapes[h:])
    while sweeps < max_iter and change > aim:
        before = factors
        x = a.device(np.conj(product(factors[h:])).reshape(-1, 1))
        y = a.host(a.matmat(x)).reshape(left)
        first, _ = _swept(y, shapes[:h], factors[:h], kinds and kinds[:h], aim)
        x = a.device(product(first).reshape(-1, 1))
        z = np.conj(a.host(a.rmatmat(x))).reshape(right)
        second, size = _swept(z, shapes[h:], factors[h:], kinds and kinds[h:], aim)
        factors = first + second
        sweeps += 1
        if not size > 0:
            return RankOne(factors, size, 0.0 if size == 0 else math.nan, sweeps)
        change = max(float(np.linalg.norm(x - y)) for x, y in zip(factors, before, strict=True))
    return RankOne(factors, size, change, sweeps)


def _swept(
    y: Any, shapes: Sequence[tuple[int, int]], factors: list[Any], kinds: Any, aim: float
) -> tuple[list[Any], float]:
    """The factors of a group for what the other group leaves of A."""
    n = len(shapes)
    sizes = [p for p, _ in shapes] + [q for _, q in shapes]
    order = [i for pair in zip(range(n), range(n, 2 * n), strict=True) for i in pair]
    t = y.reshape(sizes).transpose(order).reshape([p * q for p, q in shapes])
    factors, size = list(factors), 0.0
    for _ in range(1 if n == 1 else _INNER):
        change = 0.0
        for i in range(n):
            x = _contracted(t, factors, i).reshape(shapes[i])
            if kinds:
                p = shapes[i][0]
                x = _structure.part(np, x.reshape(-1, 1), p, kinds[i]).reshape(shapes[i])
            size = float(np.linalg.norm(x))
            if not size > 0:
                return factors, size
            x = x / size
            change = max(change, float(np.linalg.norm(x - factors[i])))
            factors[i] = x
        if change <= aim:
            break
    return factors, size


def _contracted(t: Any, factors: list[Any], skip: int) -> Any:
    """``T`` times the conjugates of all factors but one."""
    for f in reversed(factors[skip + 1 :]):
        t = t.reshape(-1, f.size) @ np.conj(f.reshape(-1))
    for f in factors[:skip]:
        t = np.conj(f.reshape(-1)) @ t.reshape(f.size, -1)
    return t


def _unit(x: Any) -> Any:
    size = float(np.linalg.norm(x))
    return x / size if size > 0 else x
