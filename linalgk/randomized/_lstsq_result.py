"""What least squares returns, and its assembly from the members of a batch."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import Given
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._lstsq_steps import Found
from linalgk.randomized._matrix import norm
from linalgk.sketch import Philox


@dataclasses.dataclass(frozen=True, eq=False)
class LeastSquares:
    """Solution of a least squares problem; unpacks as ``x, residuals, rank, s``.

    Attributes
    ----------
    x : array, shape (..., n) or (..., n, c)
    residuals : array, shape (..., c)
        Sums of squared residuals, c = 1 for a vector. Empty for a single matrix that is
        deficient in rank or has ``m <= n``, as in NumPy; an estimate for ``sketch_solve``.
    rank : int or array of int, shape (...)
        Singular values that count.
    s : array, shape (..., min(m, n))
        Singular values of a: to 1e-5 for ``sketch_cholesky``, of the sketch (a factor ``1 +-
        (n/k)^(1/2)``) for methods that iterate.
    backward_error : float or array, shape (...) or (..., c)
        Size of the least change of a and b, relative to ``||a||_F``, for which x is exact; the
        sketched estimate of Karlson and Walden, within a factor of 2. For ``sketch_solve`` what
        is expected of it.
    std_error : array, shape of x
        For ``sketch_solve`` the standard error of x against the true solution, from the sketch
        alone. Otherwise a bound to first order of the error that `backward_error` causes.
    info : RandomInfo
        ``residual`` is ``||b - a x|| / ||b||``, ``error_estimate`` is ``||std_error|| / ||x||``.
    """

    x: Any
    residuals: Any
    rank: Any
    s: Any
    backward_error: Any
    std_error: Any
    info: RandomInfo
    freedom: Any = dataclasses.field(default=None, repr=False)

    def __iter__(self) -> Iterator[Any]:
        """``x, residuals, rank, s``."""
        return iter((self.x, self.residuals, self.rank, self.s))

    def interval(self, level: float = 0.95, /) -> tuple[Any, Any]:
        """Lower and upper ends for each entry of x.

        Parameters
        ----------
        level : float
            Probability with which each entry of the true solution lies within, by Student's
            law with ``k - rank`` degrees of freedom; exact for a Gaussian sketch. Methods other
            than ``sketch_solve`` give x plus and minus `std_error`, which is a bound.

        Returns
        -------
        low, high : array, shape of x
        """
        level = _validate.real_between("level", level, 0.0, 1.0)
        half = self.std_error
        if self.freedom is not None:
            from scipy.special import stdtrit

            xp, freedom = _xp.namespace(half), np.asarray(self.freedom)
            # without freedom the standard error is infinite
            factor = stdtrit(np.where(freedom > 0, freedom, 1.0), (1 + level) / 2)
            factor = np.maximum(factor, np.finfo(_xp.dtype_name(half)).tiny)
            factor = factor.reshape(freedom.shape + (1,) * (half.ndim - freedom.ndim))
            half = half * _xp.from_numpy(factor.astype(_xp.dtype_name(half)), xp, like=half)
        return self.x - half, self.x + half


class Options(NamedTuple):
    method: str
    rcond: float | None
    damp: float
    k: int | None
    sketch: str
    source: Philox
    callback: Callable[[Any], bool | None] | None


def assembled(
    entered: Given, found: list[Found | None], target: Any, vector: bool, options: Options,
    passes: int, sizes: Any = None,
) -> LeastSquares:  # fmt: skip
    """All members in the caller's library; NaN for those that are None."""
    xp = _xp.namespace(target)
    batch, (m, n) = entered.batch, entered.shape
    c, tail = int(target.shape[2]), () if vector else (int(target.shape[2]),)
    dtype = np.result_type(entered.dtype, _xp.dtype_name(target)).name
    real = np.dtype(_xp.REAL[dtype])
    good = np.array([x is not None and x.converged for x in found], bool)

    def back(values: list[Any], shape: tuple[int, ...], kind: Any = real) -> Any:
        host = np.zeros((len(found), *shape), kind)
        for i, value in enumerate(values):
            host[i] = math.nan if value is None else value
        x = _xp.from_numpy(host.reshape((*batch, *shape)), xp, like=target)
        return entered.leave(x)

    solutions = [x.x if x is not None else _nan(xp, target, dtype, n) for x in found]
    if solutions:
        x = xp.reshape(xp.stack(solutions), (*batch, n, *tail))
    else:
        x = _xp.from_numpy(np.zeros((*batch, n, *tail), dtype), xp, like=target)
    ranks = [0 if f is None else f.rank for f in found]
    residuals = back([None if f is None else f.squares for f in found], (c,))
    if not batch and (m <= n or ranks != [n]):
        residuals = residuals[:0]
    deviation = back(
        [None if f is None else f.deviation.reshape(n, *tail) for f in found], (n, *tail)
    )
    backward = back([None if f is None else f.backward.reshape(tail) for f in found], tail)
    lengths = [norm(target[i, :, :]) for i in range(len(found))] if sizes is None else [
        float(np.linalg.norm(sizes))
    ]  # fmt: skip
    residual = [
        None if f is None else math.sqrt(f.squares.sum()) / size if size else 0.0
        for f, size in zip(found, lengths, strict=True)
    ]
    kept = next((f for f in found if f is not None), None)
    info = RandomInfo(
        method=options.method if kept is None else kept.method,
        iterations=back([0 if f is None else f.iterations for f in found], (), np.int64),
        converged=back(list(good), (), np.bool_),
        residual=back(residual, ()),
        error_estimate=back([None if f is None else f.error for f in found], ()),
        rank=back(ranks, (), np.int64) if batch else ranks[0],
        passes=passes,
        seed=options.source.key,
    )
    return LeastSquares(
        entered.leave(x), residuals, info.rank,
        back([None if f is None else f.s for f in found], (min(m, n),)),
        backward if batch or tail else _number(backward), deviation, info,
        _freedom(found, batch),
    )  # fmt: skip


def _freedom(found: list[Found | None], batch: tuple[int, ...]) -> Any:
    """Degrees of freedom, of batch shape, where there are any."""
    known = [None if f is None else f.freedom for f in found]
    if all(x is None for x in known):
        return None
    return np.array([math.nan if x is None else x for x in known]).reshape(batch)


def _nan(xp: Any, target: Any, dtype: str, n: int) -> Any:
    host = np.full((n, int(target.shape[2])), math.nan, dtype)
    return _xp.from_numpy(host, xp, like=target)


def _number(x: Any) -> Any:
    return x[()] if isinstance(x, np.ndarray) else x
