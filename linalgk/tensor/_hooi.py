"""Alternating improvement of all modes of a Tucker decomposition: HOOI, also with adaptive ranks.

All sweeps are done on the core of an ST-HOSVD that keeps a little more than was asked for.

.. [1] L. De Lathauwer, B. De Moor, J. Vandewalle, "On the best rank-1 and rank-(R1, ..., RN)
   approximation of higher-order tensors", SIAM J. Matrix Anal. Appl. 21 (2000), algorithm 4.2.
.. [2] C. Xiao, C. Yang, "A rank-adaptive higher-order orthogonal iteration algorithm for truncated
   Tucker decomposition", arXiv:2110.12564 (2021), algorithm 2.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.tensor import _unfold

# Gains of a sweep below this part of the squared error end the iteration, if ...
_GAIN = 1e-3
# ... no subspace turns by more than this sine, or gains are below the second part. Columns beyond
# what the tensor has may turn forever.
_ANGLE = 1e-3
_NOTHING = 1e-6
# Part of the squared tolerance that goes into the core on which the sweeps are done.
_OUTER = 1e-4


class State(NamedTuple):
    """What a callback sees after a sweep.

    Attributes
    ----------
    iteration : int
        Sweeps done.
    ranks : tuple of int
    error : float
        Relative error.
    """

    iteration: int
    ranks: tuple[int, ...]
    error: float


class Improved(NamedTuple):
    """An improved decomposition."""

    core: Any
    factors: tuple[Any, ...]
    iterations: int
    settled: bool


def hooi(
    x: Any, square: float, *, ranks: Sequence[int] | None = None, budget: float | None = None,
    method: str = "auto", max_iter: int = 50, callback: Callable[[State], Any] | None = None,
) -> Improved:  # fmt: skip
    """Of fixed ranks, or of the least ranks found with squared error at most ``budget``."""
    if ranks is not None:
        more = [min(n, 2 * r + 4) for n, r in zip(x.shape, ranks, strict=True)]
        outer = _unfold.st_hosvd(x, ranks=more, method=method)
        inner = _unfold.st_hosvd(outer.core, ranks=ranks, method=method)
        left = None
    else:
        assert budget is not None
        outer = _unfold.st_hosvd(x, budget=_OUTER * budget, method=method)
        left = max(budget - outer.squared_error, 0.0)
        inner = _unfold.st_hosvd(outer.core, budget=left, method=method)
    inside = _Sweeps(outer.core, square, outer.squared_error, method)
    found = inside.run(inner.factors, ranks, left, max_iter, callback)
    factors = tuple(u @ v for u, v in zip(outer.factors, found.factors, strict=True))
    return found._replace(factors=factors)


class _Sweeps:
    """The iteration on a tensor c that is small already."""

    def __init__(self, c: Any, square: float, outside: float, method: str) -> None:
        self.c, self.square, self.outside, self.method = c, square, outside, method
        self.all = _unfold.squared_norm(c)

    def run(
        self, factors: Sequence[Any], ranks: Sequence[int] | None, budget: float | None,
        max_iter: int, callback: Callable[[State], Any] | None,
    ) -> Improved:  # fmt: skip
        """Sweep until nothing is gained any more."""
        us = list(factors)
        core = _projected(self.c, us, None)
        error, done, settled = self.lost(core, us), 0, False
        while done < max_iter and not settled:
            before, old = error, list(us)
            core = self.sweep(us, ranks, budget)
            error, done = self.lost(core, us), done + 1
            least = max(error, _unfold.close(self.c) * 1e-3 * self.square)
            same = all(u.shape == v.shape for u, v in zip(us, old, strict=True))
            gained = (before - error) / max(least, 1e-300) if same else math.inf
            still = gained <= _GAIN
            settled = still and (gained <= _NOTHING or all(map(_near, old, us)))
            if callback is not None and _stops(callback, self.state(core, error, done)):
                break
            if done == max_iter:
                settled = still
        return Improved(core, tuple(us), done, settled or max_iter == 0)

    def sweep(self, us: list[Any], ranks: Sequence[int] | None, budget: float | None) -> Any:
        """Every mode once; the core that belongs to the factors afterwards."""
        core = None
        for mode in range(self.c.ndim):
            y = _projected(self.c, us, mode)
            if ranks is not None:
                found = _unfold.leading(y, mode, rank=ranks[mode], method=self.method)
            else:
                assert budget is not None
                rest = max(budget - self.lost(y, us, mode), 0.0)
                found = _unfold.leading(y, mode, budget=rest, method=self.method)
                # rounding may ask for more than there was, which is known to be enough
                if found.vectors.shape[1] > us[mode].shape[1]:
                    found = _unfold.leading(y, mode, rank=us[mode].shape[1], method=self.method)
            us[mode] = found.vectors
            core = _unfold.mode_product(y, adjoint(_xp.namespace(y), us[mode]), mode)
        return core

    def lost(self, y: Any, us: Sequence[Any], mode: int | None = None) -> float:
        """Squared error of these factors within c, all but the one of ``mode``."""
        left = self.all - _unfold.squared_norm(y)
        if left > _unfold.close(self.c) * self.all or self.all == 0.0:
            return left
        factors = list(us)
        if mode is not None:
            n, xp = self.c.shape[mode], _xp.namespace(self.c)
            factors[mode] = xp.eye(n, dtype=self.c.dtype, **_unfold.where(self.c))
        return _unfold.squared_residual(self.c, y, factors)

    def state(self, core: Any, error: float, done: int) -> State:
        """What the callback sees."""
        whole = (error + self.outside) / self.square if self.square else 0.0
        return State(done, tuple(core.shape), math.sqrt(max(whole, 0.0)))


def _projected(c: Any, us: Sequence[Any], skip: int | None) -> Any:
    """``C x_j U_j^H`` over all j but ``skip``, the modes that shrink most first."""
    xp = _xp.namespace(c)
    modes = [j for j in range(c.ndim) if j != skip]
    for j in sorted(modes, key=lambda j: us[j].shape[1] / max(us[j].shape[0], 1)):
        c = _unfold.mode_product(c, adjoint(xp, us[j]), j)
    return c


def _near(old: Any, new: Any) -> bool:
    """Whether the subspaces have angles with sines of at most ``_ANGLE``."""
    xp = _xp.namespace(old)
    if old.shape != new.shape:
        return False
    off = old - new @ (adjoint(xp, new) @ old)
    return math.sqrt(_unfold.squared_norm(off)) <= _ANGLE


def _stops(callback: Callable[[State], Any], state: State) -> bool:
    try:
        return callback(state) is True
    except StopIteration:
        return True
