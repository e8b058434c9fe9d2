"""Least squares solutions in extended precision, and how far others are from them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["Exact"]

# Each round of refinement gains the digits that the condition leaves of double precision.
_ROUNDS = 5


class Exact:
    """What a least squares problem of full rank has for a solution, and what others are worth.

    Residuals are computed in ``numpy.longdouble``, whose spare digits (3 on most processors) make
    errors of double precision visible.

    Parameters
    ----------
    a : array, shape (m, n)
    b : array, shape (m,)

    Attributes
    ----------
    s : array, shape (n,)
        Singular values of a.
    """

    def __init__(self, a: Array, b: Array) -> None:
        self._q, self._r = np.linalg.qr(a)
        _, self.s, self._vh = np.linalg.svd(self._r)
        self._a, self._b = a.astype(np.longdouble), b.astype(np.longdouble)

    @cached_property
    def x(self) -> Array:
        """The solution, refined with residuals of both equations ``r = b - A x``, ``A^T r = 0``."""
        from scipy.linalg import solve_triangular

        x, r = np.zeros(len(self.s), np.longdouble), self._b
        for _ in range(_ROUNDS):
            f = (self._b - r - self._a @ x).astype(float)
            h = solve_triangular(self._r, -(self._a.T @ r).astype(float), trans="T")
            d = self._q.T @ f
            x = x + solve_triangular(self._r, d - h)
            r = r + (f - self._q @ (d - h))
        return np.asarray(x.astype(float))

    def forward_error(self, x: Array) -> float:
        """``||x - x*|| / ||x*||``."""
        return float(np.linalg.norm(x - self.x) / np.linalg.norm(self.x))

    def backward_error(self, x: Array) -> float:
        """Least change of a and b, each relative to its norm, for which x is a solution.

        The formula of Karlson and Waldén, which tends to the least change as x gets better.
        """
        r = self._b - self._a @ x
        # what the change of b may be worth beside that of a
        weight = float(np.hypot(self._size / np.linalg.norm(self.s), np.linalg.norm(x)))
        shift = float(np.sqrt(r @ r)) / weight
        back = self._vh @ (self._a.T @ r).astype(float)
        change = np.linalg.norm(back / np.hypot(self.s, shift)) / weight
        return float(change / np.linalg.norm(self.s))

    @cached_property
    def _size(self) -> float:
        return float(np.sqrt(self._b @ self._b))
