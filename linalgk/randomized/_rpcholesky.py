"""Randomly pivoted Cholesky: a semidefinite matrix from k of its columns."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, adjoint, report
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotPositiveSemidefiniteError,
)
from linalgk.randomized import _factor
from linalgk.randomized._entries import Entries, entered, real
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import given
from linalgk.randomized._parts import fielded, stacked
from linalgk.randomized._psd import target, to_device
from linalgk.sketch import Philox
from linalgk.typing import Array, OnFail

RPCholeskyMethod: TypeAlias = Literal["auto", "accelerated", "simple"]
METHODS = get_args(RPCholeskyMethod)
# Streams of the user's key.
_PROPOSALS, _COINS = 1, 2
# Residual diagonals below this many eps of what they began with are rounding.
_FLOOR = 32


@dataclasses.dataclass(frozen=True, eq=False)
class RPCholesky:
    """A partial Cholesky factorization ``A ~ F F^H``; unpacks as ``F, pivots``.

    Attributes
    ----------
    F : array, shape (..., n, k)
        Its rows at the pivots are lower triangular. Members of a batch that need fewer columns end
        with zeros.
    pivots : array of int, shape (..., k)
        Distinct, in the order of their choice; -1 where F ends with zeros.
    info : RandomInfo
        ``error_estimate`` is the trace norm of ``A - F F^H`` relative to that of A, which is no
        estimate: it is the sum of the residual diagonal. ``residual`` is the largest entry of
        ``A - F F^H``, which stands on the diagonal, relative to that of A.
    """

    F: Any
    pivots: Any
    info: RandomInfo

    def __iter__(self) -> Iterator[Any]:
        """``F, pivots``."""
        return iter((self.F, self.pivots))

    def eigh(self) -> tuple[Any, Any]:
        """Eigenvalues (..., k) of ``F F^H``, the largest first, and eigenvectors (..., n, k)."""
        u, s, _ = _xp.namespace(self.F).linalg.svd(self.F, full_matrices=False)
        return s * s, u


def rpcholesky(
    a: Array | Callable[[Any, Any], Any],
    rank: int | None = None,
    /,
    *,
    tol: float | None = None,
    method: RPCholeskyMethod = "auto",
    block: int = 120,
    diagonal: Any = None,
    n: int | None = None,
    rng: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> RPCholesky:
    r"""Partial Cholesky factorization of a semidefinite matrix with pivots drawn at random.

    Reads the diagonal and about k of the n columns: ``A ~ F F^H``. This is the way to a large
    kernel matrix that never has to be computed as a whole, and its error is known exactly.

    Parameters
    ----------
    a : array, shape (..., n, n), or callable
        Hermitian positive semidefinite. Sparse matrices and operators as well; or a kernel
        ``a(i, j)`` that returns the block (len(i), len(j)) for NumPy arrays of indices.
    rank : int, optional
        Columns of F, at most n. May be left out if ``tol`` is given.
    tol : float, optional
        Stop at the first column with ``tr(A - F F^H) <= tol tr(A)``. At least ``32 eps``.
    method : {"auto", "accelerated", "simple"}
        ``simple`` draws one pivot after the other; ``accelerated``, which is ``auto``, draws
        ``block`` of them at once and rejects some. The pivots have the same law.
    block : int
        Proposals in a round of ``accelerated``.
    diagonal : array, shape (n,), or callable, optional
        The diagonal, or ``diagonal(i)`` for an array of indices. Needed for operators; that of a
        kernel is taken from blocks ``a(i, i)`` of 64 rows if it is not given.
    n : int, optional
        Order, for a kernel whose diagonal is not given as an array.
    rng : seed, Generator or Philox
        Default None takes fresh entropy; ``info.seed`` replays the result.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN or infinity where they are read, or are not semidefinite.

    Returns
    -------
    RPCholesky
        ``F, pivots`` and `info`. k is less than ``rank`` where ``tol`` is reached or the
        residual is zero to rounding.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    AsymmetricError
        A block ``a(i, i)`` is not Hermitian to ``sqrt(eps)``.
    NotPositiveSemidefiniteError
        The diagonal of a residual is negative, beyond ``sqrt(eps)`` of the largest of A.

    Warns
    -----
    ConvergenceWarning
        ``tol`` was not reached; ``info.error_estimate`` is what was.

    See Also
    --------
    eigh_lowrank : Nystrom approximation, which reads all of A.

    Notes
    -----
    With the residual ``E = A - F F^H`` the next pivot is s with probability ``E_ss / tr(E)`` and
    the next column ``E e_s / E_ss^(1/2)`` [1]_. The expected error of k columns is at most
    ``(1 + delta)`` times the least possible trace norm for rank r, if

    .. math:: k \ge \frac{r}{\delta} + \min\left\{r \log\frac{1}{\delta\eta},\;
              r + r \log_+ \frac{2^r}{\delta}\right\}

    with the relative error eta of rank r.

    ``accelerated`` [2]_ draws b indices with these probabilities, computes their block H of E and
    goes through them in order: index i becomes a pivot with probability ``H_ii / E_ii`` and is then
    eliminated from H. This is rejection sampling of the same law, with products of
    matrices in place of single columns; up to 40 times as fast.

    ``(k + 1) n`` entries of A, ``b^2`` more in each round, and ``n k^2`` flops. An operator is
    multiplied with all proposals. Residual diagonals below ``32 eps`` of those of A count as zero.

    References
    ----------
    .. [1] Y. Chen, E. N. Epperly, J. A. Tropp, R. J. Webber, "Randomly pivoted Cholesky: practical
       approximation of a kernel matrix with few entry evaluations", Comm. Pure Appl. Math. 78
       (2025), theorem 5.1.
    .. [2] E. N. Epperly, J. A. Tropp, R. J. Webber, "Embrace rejection: kernel matrix approximation
       by accelerated randomly pivoted Cholesky", arXiv:2410.03969 (2024), algorithm 2.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x = np.random.default_rng(0).standard_normal((1000, 2))
    >>> def kernel(i, j):
    ...     return np.exp(-((x[i, None] - x[j]) ** 2).sum(-1) / 2)
    >>> F, pivots = found = lk.rpcholesky(kernel, 60, diagonal=np.ones(1000), rng=0)
    >>> everything = np.arange(1000)
    >>> error = np.trace(kernel(everything, everything) - F @ F.T) / 1000
    >>> bool(abs(error - found.info.error_estimate) < 1e-12 and error < 1e-2)
    True
    >>> lk.rpcholesky(kernel, tol=1e-2, n=1000, rng=0).F.shape[1] < 60
    True
    """
    _validate.choice("method", method, METHODS)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    block = _validate.integer("block", block, 1)
    with _lag.scope(a), _config.blas_threads():
        found, sources = entered(a, diagonal, n)
        most, columns = found.shape
        if most != columns:
            msg = f"a: must have shape (..., n, n), got (..., {most}, {columns})"
            raise ValueError(msg)
        rank, tol = target(rank, tol, most, _FLOOR * found.eps)
        chosen, _ = choose_method(block, method)
        goal = _Goal(most if rank is None else rank, tol, 1 if chosen == "simple" else block)
        philox = Philox(rng)
        parts = [_Run(source, goal, philox).result() for source in sources]
        answer = _assembled(found, parts, goal, chosen, philox)
        if check:
            msg = "rpcholesky: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, _which(parts, "finite"), found.batch, policy, answer)
        msg = (
            "a: is not Hermitian{}: a block a(i, i) differs from its adjoint by more than sqrt(eps)"
        )
        report(AsymmetricError, msg, _which(parts, "hermitian"), found.batch, policy, answer)
        lowest = min((p.lowest for p in parts if p.trouble == "definite"), default=0.0)
        msg = (
            f"a: is not positive semidefinite{{}}: after some pivots a diagonal is {lowest:.3g}; "
            "use eigh_lowrank(method='krylov')"
        )
        bad = _which(parts, "definite")
        report(NotPositiveSemidefiniteError, msg, bad, found.batch, policy, answer)
        missed = [p.error for p in parts if not p.trouble and tol is not None and p.error > tol]
        if missed:
            msg = f"tol: {tol:g} was not reached, the error is {max(missed):.3g}: raise rank"
            warnings.warn(msg, ConvergenceWarning, stacklevel=2)
        return answer


def choose_method(block: int, method: str = "auto") -> tuple[str, str]:
    """The method, and the reason."""
    if method != "auto":
        return method, "it was asked for"
    if block == 1:
        return "simple", "a block of one is one pivot after the other"
    return "accelerated", "pivots of the same law, by products of matrices"


def explain_rpcholesky(
    a: Any,
    rank: int | None = None,
    /,
    *,
    tol: float | None = None,
    method: RPCholeskyMethod = "auto",
    block: int = 120,
    diagonal: Any = None,
    n: int | None = None,
    **_: Any,
) -> Explanation:
    """What a call of rpcholesky would run."""
    _validate.choice("method", method, METHODS)
    order = n
    size = 8
    if not callable(a):
        found = given("rpcholesky", a)
        order, size = found.shape[0], np.dtype(found.dtype).itemsize
    elif order is None and hasattr(diagonal, "shape"):
        order = int(diagonal.shape[0])
    order = order or 0
    rank, _tol = target(rank, tol, max(order, rank or 0), 0.0)
    chosen, reason = choose_method(_validate.integer("block", block, 1), method)
    k = order if rank is None else rank
    return Explanation(
        "rpcholesky", chosen, reason, {}, float(order) * k * k, (k + 1.0) * order * size
    )


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call: kernel matrices of points."""
    n, rank = {"small": (20, 5), "medium": (500, 50), "large": (4000, 400)}[size]
    x = np.random.default_rng(rng).standard_normal((n, 3))
    squares = (x * x).sum(axis=1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    return (xp.asarray(np.exp(-np.maximum(distances, 0) / 2)), rank), {"rng": 0}


# --- The door ------------------------------------------------------------------------------------


class _Goal(NamedTuple):
    rank: int
    tol: float | None
    block: int


class _Part(NamedTuple):
    factor: Any
    pivots: Any
    error: float
    largest: float
    rounds: int
    passes: int
    trouble: str = ""
    lowest: float = 0.0


def _which(parts: list[_Part], trouble: str) -> Any:
    return np.array([p.trouble == trouble for p in parts], bool)


def _assembled(
    found: Given, parts: list[_Part], goal: _Goal, method: str, philox: Philox
) -> RPCholesky:
    n, dtype = found.shape[0], _xp.REAL[found.dtype]
    most = max((len(p.pivots) for p in parts if not p.trouble), default=0)
    if parts and all(p.trouble for p in parts):
        most = goal.rank if goal.tol is None else 0
    pivots, factors = np.full((len(parts), most), -1, np.int64), []
    for i, part in enumerate(parts):
        xp, k = _xp.namespace(part.factor), len(part.pivots)
        fill = np.nan if part.trouble else 0.0
        rest = np.full((n, most if part.trouble else most - k), fill, found.dtype)
        rest = _xp.from_numpy(rest, xp, like=part.factor)
        if part.trouble:
            factors.append(rest)
            continue
        factors.append(xp.concat([part.factor, rest], axis=1) if k < most else part.factor)
        pivots[i, :k] = part.pivots
    good = np.array([not p.trouble for p in parts], bool)
    fields = {
        "iterations": np.array([p.rounds for p in parts], np.int64),
        "converged": good,
        "residual": np.array([p.largest for p in parts], dtype),
        "error_estimate": np.array([p.error for p in parts], dtype),
        "rank": np.array([0 if p.trouble else len(p.pivots) for p in parts], np.int64),
    }
    info = RandomInfo(
        method=method,
        **{key: fielded(found, value) for key, value in fields.items()},
        passes=max((p.passes for p in parts), default=0),
        seed=philox.key,
    )
    return RPCholesky(
        stacked(found, factors, [True] * len(factors), (n, most)), fielded(found, pivots), info
    )


# --- The algorithm -------------------------------------------------------------------------------


class _Run:
    """One factorization."""

    def __init__(self, source: Entries, goal: _Goal, philox: Philox) -> None:
        self.source, self.goal = source, goal
        self.proposals, self.coins = philox.spawn(_PROPOSALS), philox.spawn(_COINS)
        self.matrix = source.matrix
        self.begin = source.diagonal
        self.left = np.maximum(self.begin, 0.0)
        self.trace = float(self.left.sum())
        self.noise = _FLOOR * self.matrix.eps * np.maximum(self.begin, 0.0)
        self.top = float(self.begin.max(initial=0.0))
        self.panels: list[Any] = []
        self.pivots: list[int] = []
        self.drawn = self.rounds = 0
        self.trouble, self.lowest = "", 0.0

    def result(self) -> _Part:
        before = self.matrix.passes
        if not np.isfinite(self.begin).all():
            self.trouble = "finite"
        else:
            self._judge(self.begin)
        while not self.trouble and not self._done():
            self._round()
            self.rounds += 1
        left = self.left.sum() if not self.trouble else math.nan
        largest = self.left.max(initial=0.0) if not self.trouble else math.nan
        return _Part(
            self._factor(), np.array(self.pivots, np.int64), left / (self.trace or 1.0),
            largest / (self.top or 1.0), self.rounds, self.matrix.passes - before, self.trouble,
            self.lowest,
        )  # fmt: skip

    def _done(self) -> bool:
        if len(self.pivots) >= self.goal.rank:
            return True
        if self.goal.tol is not None and self.left.sum() <= self.goal.tol * self.trace:
            return True
        return not (self.left > self.noise).any()

    def _judge(self, diagonal: Any) -> None:
        """A diagonal that no semidefinite matrix has."""
        lowest = float(diagonal.min(initial=0.0))
        if lowest < -math.sqrt(self.matrix.eps) * max(self.top, -float(self.begin.min(initial=0))):
            self.trouble, self.lowest = "definite", lowest

    def _factor(self) -> Any:
        xp = self.matrix.xp
        if not self.panels:
            empty = np.zeros((len(self.begin), 0), self.matrix.dtype)
            return _xp.from_numpy(empty, xp, like=self.matrix.like)
        return self.panels[0] if len(self.panels) == 1 else xp.concat(self.panels, axis=1)

    def _round(self) -> None:
        """Some proposals, and the columns of those that are accepted."""
        weights = np.where(self.left > self.noise, self.left, 0.0)
        index = self._draw(weights)
        block, columns = self.source.block(index)
        h = self._less(block, index, index)
        host = np.asarray(_xp.to_numpy(h))
        host = host.astype(np.result_type(host.dtype, np.float64))
        if not np.isfinite(host).all():
            self.trouble = "finite"
            return
        scale = math.sqrt(self.matrix.eps) * self.top
        if np.abs(host - host.conj().T).max() > scale:
            self.trouble = "hermitian"
            return
        gaps = np.abs(host.diagonal().real - self.left[index])
        if not self.rounds and gaps.max() > scale:
            worst = int(gaps.argmax())
            i = int(index[worst])
            msg = (
                f"diagonal: entry {i} is {self.left[i]:.6g}, and a has "
                f"{host[worst, worst].real:.6g} there; correct one of them"
            )
            raise ValueError(msg)
        chosen, triangle = self._accept(host, weights[index], self.noise[index])
        if not len(chosen):
            # what was left there has been lost to rounding
            self._judge(host.diagonal().real)
            self.left[index] = np.maximum(host.diagonal().real, 0.0)
            return
        chosen = chosen[: self.goal.rank - len(self.pivots)]
        triangle = triangle[: len(chosen), : len(chosen)]
        self._eliminate(index, chosen, triangle, columns)

    def _draw(self, weights: Any) -> Any:
        """Proposals, each with probability proportional to its weight."""
        count = self.goal.block
        ends = np.cumsum(weights)
        where = self.proposals.uniform(count, start=self.drawn) * ends[-1]
        index = np.searchsorted(ends, where, side="right")
        return np.minimum(index, np.flatnonzero(weights)[-1])

    def _accept(self, h: Any, weights: Any, noise: Any) -> tuple[Any, Any]:
        """Proposals that become pivots, and the upper triangle R with ``H = R^H R`` for them."""
        count = len(weights)
        coins = self.coins.uniform(count, start=self.drawn)
        self.drawn += count
        h, rows, chosen = h.copy(), np.zeros_like(h), list[int]()
        for i in range(count):
            size = h[i, i].real
            if size <= noise[i] or coins[i] * weights[i] >= size:
                continue
            row = h[i, i:] / math.sqrt(size)
            rows[len(chosen), i:] = row
            chosen.append(i)
            # the rest of the block without this pivot
            h[i + 1 :, i + 1 :] -= np.outer(row[1:].conj(), row[1:])
        picked = np.array(chosen, np.int64)
        return picked, rows[: len(chosen)][:, picked]

    def _less(self, block: Any, i: Any, j: Any) -> Any:
        """``block - F_i F_j^H``; i None for all rows."""
        xp = self.matrix.xp
        for panel in self.panels:
            left = panel if i is None else _rows(xp, panel, i)
            block = block - left @ adjoint(xp, _rows(xp, panel, j))
        return block

    def _eliminate(self, index: Any, chosen: Any, triangle: Any, columns: Any) -> None:
        """Columns of F for the pivots, and the diagonal that they leave."""
        xp, pivots = self.matrix.xp, index[chosen]
        if columns is None:
            columns = self.source.columns(pivots)
        else:
            columns = xp.take(columns, _xp.from_numpy(chosen, xp, like=self.matrix.like), axis=1)
        # G L^-H with L = R^H
        panel = _factor.right_solve(
            self._less(columns, None, pivots), to_device(self.matrix, triangle)
        )
        squares = real(xp.abs(panel)) ** 2
        if not np.isfinite(squares).all():
            self.trouble = "finite"
            return
        kept = len(chosen)
        if self.goal.tol is not None:
            # no column more than needed
            rest = self.left.sum() - np.cumsum(squares.sum(axis=0))
            enough = np.flatnonzero(rest <= self.goal.tol * self.trace)
            kept = min(kept, int(enough[0]) + 1) if len(enough) else kept
        left = self.left - squares[:, :kept].sum(axis=1)
        self._judge(left)
        self.left = np.maximum(left, 0.0)
        self.left[pivots[:kept]] = 0.0
        self.pivots.extend(int(i) for i in pivots[:kept])
        self._append(panel[:, :kept] if kept < len(chosen) else panel)

    def _append(self, panel: Any) -> None:
        """Panels of like widths are joined, so that they stay few."""
        self.panels.append(panel)
        while len(self.panels) > 1 and self.panels[-2].shape[1] <= 2 * self.panels[-1].shape[1]:
            last, before = self.panels.pop(), self.panels.pop()
            self.panels.append(self.matrix.xp.concat([before, last], axis=1))


def _rows(xp: Any, x: Any, index: Any) -> Any:
    return xp.take(x, _xp.from_numpy(index, xp, like=x), axis=0)
