"""What the sketch of a system gives: a preconditioner, a first solution, a backward error."""

import math
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor
from linalgk.randomized._rows import Whitener, squares


class Sketched:
    """Factors of ``S [A b]``, with ``damp I`` below A.

    Attributes
    ----------
    root : array, shape (n, n)
        Triangle R with ``R^H R = (S A)^H S A + damp I``, or what is left of it: s V^H.
    rank : int
        Singular values of R that count.
    x : array, shape (n, c)
        Solution of the sketched problem.
    sizes : array, shape (c,)
        Norms of its residuals.
    """

    def __init__(self, sa: Any, sb: Any, damp: float, cut: float) -> None:
        xp = self.xp = _xp.namespace(sa)
        n, self.damp = int(sa.shape[1]), damp
        whole = xp.concat([sa, sb], axis=1)
        if damp:
            below = _identity(xp, sa, n) * math.sqrt(damp)
            none = xp.zeros_like(sb[:1, :]) + xp.zeros_like(below[:, :1])
            whole = xp.concat([whole, xp.concat([below, none], axis=1)], axis=0)
        with _factor.small(whole):
            factor = _factor.triangle(whole)
        missing = whole.shape[1] - factor.shape[0]
        if missing > 0:
            none = np.zeros((missing, whole.shape[1]), _xp.dtype_name(sa))
            factor = xp.concat([factor, _xp.from_numpy(none, xp, like=sa)])
        self.root, right = factor[:n, :n], factor[:n, n:]
        self.sizes = xp.sqrt(squares(xp, factor[n:, n:]))
        self._tail: Any = None
        self.rank, self.triangular = n, True
        # an estimate: the singular values decide
        if not _factor.condition(self.root) * cut < 0.1:
            self._truncate(cut)
        if self.triangular:
            self.x = _factor.solve(self.root, right)
        else:
            self.x = self._left @ (adjoint(xp, self._u) @ right)

    def _truncate(self, cut: float) -> None:
        """To the singular values above cut; stays as it is if all are."""
        xp = self.xp
        u, s, vh = _factor.svd(self.root)
        host = np.asarray(_xp.to_numpy(s))
        rank = int(np.count_nonzero(host > cut * host[0])) if len(host) else 0
        if rank == self.root.shape[1]:
            return
        self.rank, self.triangular = rank, False
        self._u, self._left = u[:, :rank], adjoint(xp, vh[:rank, :]) / s[None, :rank]
        self._tail = s[rank:, None] * vh[rank:, :]
        self.root = s[:rank, None] * vh[:rank, :]

    def apply(self, y: Any) -> Any:
        """``W y``, W the (pseudo-)inverse of R."""
        return _factor.solve(self.root, y) if self.triangular else self._left @ y

    def turn(self, c: Any) -> Any:
        """``W^H c``."""
        if self.triangular:
            return _factor.solve(self.root, c, adjoint=True)
        return adjoint(self.xp, self._left) @ c

    def whitener(self) -> Whitener:
        """W itself."""
        if not self.triangular:
            return Whitener(self._left, False)
        identity = _identity(self.xp, self.root, int(self.root.shape[0]))
        return Whitener(_factor.solve(self.root, identity), True)

    def improved(self, factor: Any = None) -> Any:
        """T (.., n) with ``T^H T = A^H A``: R, or C R with ``C^H C = W^H A^H A W``."""
        top = self.root if factor is None else factor @ self.root
        if self._tail is None or not self._tail.shape[0]:
            return top
        return self.xp.concat([top, self._tail], axis=0)


def _identity(xp: Any, like: Any, n: int) -> Any:
    eye = np.eye(n, dtype=_xp.dtype_name(like))
    return _xp.from_numpy(eye, xp, like=like)


class Backward:
    """Estimates of the backward error of least squares, after Karlson and Walden.

    Of the matrix with the triangle T, in units of ``||A||_F``: the least ``||[E, f ||A||_F /
    ||b||]||_F`` such that x solves the problem with A + E and b + f, within a factor of about
    1.4 where T is exact.
    """

    def __init__(self, t: Any, sizes: Any, unit: float) -> None:
        self.xp, self.unit = _xp.namespace(t), unit
        with _factor.small(t):
            _, s, vh = _factor.svd(t)
        self.s = np.asarray(_xp.to_numpy(s), np.float64)
        self.v = adjoint(self.xp, vh)
        scaled = self.s / self.unit
        self.norm = math.sqrt(float((scaled**2).sum())) if len(scaled) else 0.0
        self.sizes = np.asarray(sizes, np.float64)

    def estimate(self, back: Any, residuals: Any, x: Any, unit: float) -> Any:
        """Of each column: ``back`` = A^H r in units of (unit of A, unit), residuals in ``unit``."""
        xp = self.xp
        b = self.sizes / unit
        r = np.asarray(residuals, np.float64)
        length = np.sqrt(np.asarray(_xp.to_numpy(squares(xp, x / unit)), np.float64)) * self.unit
        c = np.abs(np.asarray(_xp.to_numpy(adjoint(xp, self.v) @ back))).astype(np.float64)
        if not self.norm:
            return np.zeros(len(b))
        s = (self.s / self.unit)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            theta = np.where(b > 0, self.norm / np.where(b > 0, b, 1.0), np.inf)
            # theta / (1 + theta^2 |x|^2)^(1/2), which has a limit for b = 0
            ratio = np.where(b > 0, 1 / np.hypot(1 / theta, length), 1 / length)
            weight = np.hypot(s, (ratio * r)[None, :])
            size = np.sqrt(((c / np.where(weight > 0, weight, 1.0)) ** 2).sum(axis=0))
            found = size * ratio / self.norm
            # x = 0 with b orthogonal to A is exact, and so is any x with r = 0
            found = np.where((size == 0) | (r == 0), 0.0, found)
            # the trivial perturbation f = -r, too
            return np.fmin(found, np.where(b > 0, r / np.where(b > 0, b, 1.0), found))
