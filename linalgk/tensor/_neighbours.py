"""Sums over the particles within a radius, cell by cell."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from linalgk._pieces import mapped

# Targets of a piece of work, and most cells along an axis.
PIECE = 1 << 12
CELLS = 1 << 20
# Candidates for neighbours that are looked at together, in a cache.
BLOCK = 1 << 14

# Values (n,), and derivatives by r^2 where asked for, at squared distances in [0, radius^2].
Kernel = Callable[[Any, bool], tuple[Any, Any]]


class Cells:
    """Particles sorted into cubes of the radius's edge, the last axis running fastest."""

    def __init__(self, points: Any, charges: Any, radius: float) -> None:
        self.radius = radius
        self.low = points.min(axis=0)
        cells = self._cells(points)
        self.shape = cells.max(axis=0) + 1
        keys = self._key(cells)
        order = np.argsort(keys, kind="stable")
        self.keys, self.starts = np.unique(keys[order], return_index=True)
        self.starts = np.append(self.starts, keys.size)
        self.points, self.charges = points[order], charges[order]

    def _cells(self, points: Any) -> Any:
        # far points stay integers
        return np.clip(np.floor((points - self.low) / self.radius), -2, CELLS).astype(np.int64)

    def _key(self, cells: Any) -> Any:
        return (cells[..., 0] * self.shape[1] + cells[..., 1]) * self.shape[2] + cells[..., 2]

    def sums(self, targets: Any, kernel: Kernel, *, slopes: bool, threads: int) -> Any:
        """``sum_j q_j k(|x - y_j|^2)`` over the neighbours y_j of targets x (n, 3): (1, n).

        With ``slopes`` the derivatives by x follow: (4, n).
        """
        n = targets.shape[0]
        found = np.zeros((4 if slopes else 1, n))
        cells = self._cells(targets)
        order = np.lexsort(cells.T[::-1])
        sorted_cells = cells[order]
        changes = np.any(sorted_cells[1:] != sorted_cells[:-1], axis=1)
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [n]]) if n else np.zeros(1, int)

        def piece(first: int, last: int) -> None:
            for i in range(first, last):
                near = self._near(sorted_cells[starts[i]])
                if not near.size:
                    continue
                step = max(1, BLOCK // near.size)
                for j in range(starts[i], starts[i + 1], step):
                    rows = order[j : min(j + step, starts[i + 1])]
                    found[:, rows] = self._block(targets[rows], near, kernel, slopes)

        # pieces of about as many targets each
        marks = np.unique(np.searchsorted(starts, np.arange(0, n + PIECE, PIECE)))
        marks = np.minimum(marks, starts.size - 1)
        pieces = [(int(a), int(b)) for a, b in itertools.pairwise(marks) if b > a]
        for _ in mapped(piece, pieces, threads=threads):
            pass
        return found

    def _near(self, cell: Any) -> Any:
        """Numbers of the particles in the 27 cells about one."""
        low = np.maximum(cell - 1, 0)
        high = np.minimum(cell + 1, self.shape - 1)
        if (low > high).any():
            return np.zeros(0, np.int64)
        first = np.arange(low[0], high[0] + 1)[:, None] * self.shape[1]
        rows = (first + np.arange(low[1], high[1] + 1)).ravel() * self.shape[2]
        begin = self.starts[np.searchsorted(self.keys, rows + low[2])]
        end = self.starts[np.searchsorted(self.keys, rows + high[2], side="right")]
        runs = [np.arange(a, b) for a, b in zip(begin, end, strict=True) if b > a]
        return np.concatenate(runs) if runs else np.zeros(0, np.int64)

    def _block(self, x: Any, near: Any, kernel: Kernel, slopes: bool) -> Any:
        y = self.points[near]
        steps = [np.subtract.outer(x[:, k], y[:, k]) for k in range(3)]
        square = steps[0] * steps[0]
        for step in steps[1:]:
            square += step * step
        inside = np.flatnonzero(square <= self.radius**2)
        value, slope = kernel(square.ravel()[inside], slopes)
        table = np.zeros(square.size)
        table[inside] = value
        q = self.charges[near]
        found = np.empty((4 if slopes else 1, x.shape[0]))
        found[0] = table.reshape(square.shape) @ q
        if slopes:
            table[inside] = 2.0 * slope
            weighted = table.reshape(square.shape) * q
            for k, step in enumerate(steps):
                found[1 + k] = np.sum(weighted * step, axis=1)
        return found
