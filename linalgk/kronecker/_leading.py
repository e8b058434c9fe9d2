"""The largest products of one number from each of several lists, without forming all."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def largest(lists: Sequence[Any], k: int) -> tuple[Any, Any]:
    """Values (k,) in descending order, and where they come from (k, N); ties in order of index.

    A product of some lists can be among the k largest in the end only if it is among the k largest
    or the k smallest of its kind, because what it is still multiplied by has one sign.
    """
    values, places = np.asarray(lists[0]), np.arange(len(lists[0]))[:, None]
    for last, other in zip(_flags(len(lists)), lists[1:], strict=True):
        other = np.asarray(other)
        i, j = _candidates(values, other, k, smallest=not last)
        values, places = values[i] * other[j], np.concatenate([places[i], j[:, None]], axis=1)
    order = np.lexsort((*places.T[::-1], -values))[:k]
    return values[order], places[order]


def _flags(count: int) -> list[bool]:
    """Which of the products is the last."""
    return [False] * (count - 2) + [True] if count > 1 else []


def _candidates(x: Any, y: Any, k: int, *, smallest: bool) -> tuple[Any, Any]:
    """Pairs (i, j) that hold the k largest, and if asked the k smallest, products of x and y."""
    i, j = _top(x, y, k)
    if smallest:
        a, b = _top(x, -y, k)
        both = np.unique(np.stack([np.append(i, a), np.append(j, b)]), axis=1)
        i, j = both
    return i, j


def _top(x: Any, y: Any, k: int) -> tuple[Any, Any]:
    """Pairs of the k largest products, from what is monotone in both.

    Of sorted lists the pair (i, j) has (i + 1)(j + 1) - 1 products before it that are no smaller.
    """
    rows, columns = [], []
    # products that are positive or zero: the largest sizes; those that are negative: the smallest
    for of_x, of_y, way in (
        (x >= 0, y >= 0, -1), (x < 0, y < 0, -1), (x >= 0, y < 0, 1), (x < 0, y >= 0, 1)
    ):  # fmt: skip
        i, j = (_sorted(z, part, way) for z, part in ((x, of_x), (y, of_y)))
        p, q = _under_hyperbola(len(i), len(j), k)
        rows.append(i[p])
        columns.append(j[q])
    i, j = np.concatenate(rows), np.concatenate(columns)
    order = np.lexsort((j, i, -(x[i] * y[j])))[:k]
    return i[order], j[order]


def _sorted(z: Any, part: Any, way: int) -> Any:
    """Indices of a part, by size in descending (-1) or ascending order."""
    index = np.flatnonzero(part)
    return index[np.argsort(way * np.abs(z[index]), kind="stable")]


def _under_hyperbola(m: int, n: int, k: int) -> tuple[Any, Any]:
    """Pairs with (p + 1)(q + 1) <= k, p < m and q < n."""
    counts = np.minimum(n, k // np.arange(1, min(m, k) + 1))
    p = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return p, np.arange(len(p)) - np.repeat(starts, counts)
