"""The iteration of sketch and project: sketches of rows, their projections, momentum, and when
to stop.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor
from linalgk.randomized._matrix import Matrix, norm
from linalgk.sketch import SRCT, Philox, SparseStack

# Streams of the seed: order of the rows, signs of the mixing, normals, stacks (one for each step).
_ORDER, _MIX, _NORMALS, _STACKS = 1, 2, 3, 16
# Partitions of the rows that are drawn before they come again: their factors are kept.
_ROUNDS = 16
# Sweeps in which the rate is measured before the momentum follows it.
_WINDOW = 4
# The residual is looked at after so many sweeps although it cannot be small yet.
_PATIENCE = 8
# Looks, and share of them, without a residual smaller by a tenth: it will not get smaller.
_STALLED, _STALLED_SHARE = 24, 0.5


@dataclasses.dataclass(frozen=True)
class ProjectState:
    """What `sketch_project` shows ``callback`` and ``accuracy``.

    Attributes
    ----------
    x : array, shape (n,) or (n, c)
        The iterate, in the caller's library.
    residual : float
        ``||b - A x|| / ||b||``, the largest of the columns.
    iteration : int
        Projections so far, of single rows for ``sketch="kaczmarz"``.
    member : int
        Place in the flattened batch.
    """

    x: Any
    residual: float
    iteration: int
    member: int


class Options(NamedTuple):
    """What the door settled."""

    sketch: str
    block: int
    probabilities: Any  # "norm", "uniform", or NumPy (m,)
    mix: bool
    momentum: bool
    max_iter: int
    target: Callable[[ProjectState], float]
    callback: Callable[[ProjectState], Any] | None
    progress: bool
    eager: bool  # the residual is asked for after every sweep


class Outcome(NamedTuple):
    """How the iteration of one member ended."""

    x: Any
    iterations: int
    residual: float
    error: float
    why: str  # "converged", "stopped", "stalled", "rounding", "max_iter"
    passes: int


# --- Projections ----------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A few equations and what projects onto them: ``z = left r``, ``y = right z``."""

    rows: Any  # (s, n), dense or SciPy's
    rhs: Any  # (s, c)
    left: Any
    right: Any
    steps: int  # that it stands for


def _gram(rows: Any, xp: Any) -> Any:
    if isinstance(rows, np.ndarray) or not hasattr(rows, "toarray"):
        return rows @ adjoint(xp, rows)
    return (rows @ rows.conj().T).toarray()


def _scaled(gram: Any, xp: Any) -> tuple[Any, Any]:
    """The Gram matrix of rows of unit length, and by what they were multiplied; 0 for zero rows."""
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(gram)])
    lengths = xp.sqrt(xp.astype(xp.real(xp.linalg.diagonal(gram)), real))
    some = lengths > 0
    scale = xp.where(some, 1 / xp.where(some, lengths, 1.0), 0.0)
    # kept in the dtype of the matrix, so that every library multiplies them
    scale, zero = xp.astype(scale, gram.dtype), xp.astype(~some, gram.dtype)
    return gram * scale[:, None] * scale[None, :] + _unit(gram, xp) * zero[:, None], scale


def _unit(like: Any, xp: Any) -> Any:
    """The unit matrix of that size and dtype."""
    ones = np.eye(like.shape[0])
    return _xp.from_numpy(ones, xp, like=like, dtype=_xp.dtype_name(like))


def joint(gram: Any) -> tuple[Any, Any]:
    """All equations of the piece at once: ``left^H left`` is the pseudoinverse of the Gram matrix.

    Directions that rounding has swallowed are left out: what remains is a sketch as well.
    """
    xp = _xp.namespace(gram)
    g, scale = _scaled(gram, xp)
    size = g.shape[0]
    cut = 10 * size * float(np.finfo(_xp.dtype_name(g)).eps)
    r = _factor.cholesky(g)
    if r is not None and float(xp.min(xp.abs(xp.linalg.diagonal(r)))) ** 2 > cut:
        left = _factor.solve(r, _unit(g, xp), adjoint=True)
    else:
        w, v = _factor.eigh(g)
        host = np.asarray(_xp.to_numpy(w))
        first = int(np.count_nonzero(host <= cut * host[-1]))
        left = adjoint(xp, v[:, first:]) / xp.astype(xp.sqrt(w[first:]), g.dtype)[:, None]
    left = left * scale[None, :]
    return left, adjoint(xp, left)


def in_turn(gram: Any) -> tuple[Any, Any]:
    """One equation after the other: the lower triangle L of the Gram matrix in place of it.

    Projections onto rows 1, ..., s one by one change x by ``A_S^H L^-1 (b_S - A_S x)``.
    """
    xp = _xp.namespace(gram)
    g, scale = _scaled(gram, xp)
    upper = adjoint(xp, xp.tril(g))
    left = _factor.solve(upper, _unit(g, xp), adjoint=True) * scale[None, :]
    return left, scale[:, None]


# --- Sketches -------------------------------------------------------------------------------------


class _Rows:
    """Rows as they are, or mixed by a random orthogonal transform."""

    def __init__(self, a: Matrix, b: Any, options: Options, source: Philox) -> None:
        self.xp, self.like, self.options = a.xp, a.like, options
        self.order = source.spawn(_ORDER)
        self.kept: dict[tuple[int, int], tuple[Any, Any]] = {}
        dense = a.kind != "sparse"
        self.a = a.toarray() if dense else a.a
        self.b = b
        self.m = a.shape[0]
        if options.mix:
            # rows of one length: how they are scaled changes no projection onto a row
            weights = 1 / _some(row_norms(a, self.a))
            weights = _xp.from_numpy(weights.astype(a.dtype), self.xp, like=a.like)
            turn = SRCT(self.m, self.m, rng=source.spawn(_MIX))
            self.a = turn @ (self.a * weights[:, None])
            self.b = turn @ (self.b * weights[:, None])
            a.passes += 2
        self.sparse = a.kind == "sparse"
        # factors take about the memory of A, or of four square blocks of its columns
        n = a.shape[1]
        self.rounds = min(_ROUNDS, max(1, n // options.block, -(-4 * n // max(1, self.m))))
        self.orders: dict[int, Any] = {}
        if options.sketch == "kaczmarz" or not isinstance(options.probabilities, str):
            self.weights = _weights(a, self.a, options.probabilities)
        elif options.probabilities == "norm":
            self.weights = _weights(a, self.a, "norm")

    def pieces(self, sweep: int) -> Iterator[Piece]:
        """Those of one sweep."""
        if self.options.sketch == "kaczmarz":
            yield from self._single(sweep)
        elif isinstance(self.options.probabilities, str) and self.options.probabilities != "norm":
            yield from self._partition(sweep)
        else:
            yield from self._weighted(sweep)

    def _single(self, sweep: int) -> Iterator[Piece]:
        upper = np.cumsum(self.weights)
        u = self.order.uniform(self.m, start=sweep * self.m) * upper[-1]
        index = np.minimum(np.searchsorted(upper, u, side="right"), self.m - 1)
        for at in range(0, self.m, self.options.block):
            chosen = index[at : at + self.options.block]
            yield self._piece(chosen, in_turn, None, len(chosen))

    def _partition(self, sweep: int) -> Iterator[Piece]:
        turn, size = sweep % self.rounds, self.options.block
        if turn not in self.orders:
            drawn = self.order.uniform(self.m, start=turn * self.m)
            self.orders[turn] = np.argsort(drawn, kind="stable")
        order = self.orders[turn]
        count = -(-self.m // size)
        # blocks that come again come in another order
        places = np.argsort(self.order.spawn(_ORDER + 4).uniform(count, start=sweep * count))
        for place in places:
            chosen = order[place * size : (place + 1) * size]
            yield self._piece(chosen, joint, (turn, int(place)), 1)

    def _weighted(self, sweep: int) -> Iterator[Piece]:
        size, m = self.options.block, self.m
        for i in range(-(-m // size)):
            step = sweep * -(-m // size) + i
            # without replacement: Efraimidis and Spirakis (2006)
            with np.errstate(divide="ignore"):
                keys = np.log1p(-self.order.uniform(m, start=step * m)) / self.weights
            keys = np.where(self.weights > 0, keys, -np.inf)
            chosen = np.argpartition(-keys, size - 1)[:size] if size < m else np.arange(m)
            yield self._piece(chosen[self.weights[chosen] > 0], joint, None, 1)

    def _piece(self, index: Any, project: Any, key: Any, count: int) -> Piece:
        xp = self.xp
        where = _xp.from_numpy(index, xp, like=self.like)
        rows = self.a[index, :] if self.sparse else xp.take(self.a, where, axis=0)
        rhs = xp.take(self.b, where, axis=0)
        factor = self.kept.get(key) if key is not None else None
        if factor is None:
            factor = project(_gram(rows, xp))
            if key is not None:
                self.kept[key] = factor
        return Piece(rows, rhs, factor[0], factor[1], count)


class _Products:
    """Combinations of all rows, drawn anew in each step."""

    def __init__(self, a: Matrix, b: Any, options: Options, source: Philox) -> None:
        self.a, self.b, self.options, self.source = a, b, options, source
        self.steps = -(-a.shape[0] // options.block)

    def pieces(self, sweep: int) -> Iterator[Piece]:
        """Those of one sweep."""
        for i in range(self.steps):
            rows, rhs = self._sketched(sweep * self.steps + i)
            left, right = joint(_gram(rows, self.a.xp))
            yield Piece(rows, rhs, left, right, 1)

    def _sketched(self, step: int) -> tuple[Any, Any]:
        a, size = self.a, self.options.block
        m, xp = a.shape[0], a.xp
        if self.options.sketch == "gaussian":
            numbers = self.source.spawn(_NORMALS).normal(m * size, start=step * m * size)
            real = np.reshape(numbers, (m, size)).astype(_xp.REAL[a.dtype]) / math.sqrt(size)
            s = _xp.from_numpy(real, xp, like=a.like)
            s = xp.astype(s, _xp.dtype_of(xp, a.dtype))
            return adjoint(xp, a.rmatmat(s)), xp.matrix_transpose(s) @ self.b
        nnz = max(z for z in range(1, min(8, size) + 1) if size % z == 0)
        stack = SparseStack(size, m, nnz=nnz, rng=self.source.spawn(_STACKS + step))
        return a.sketched(stack), stack @ self.b


def row_norms(a: Matrix, stored: Any) -> Any:
    """Lengths of rows, NumPy."""
    if a.kind == "sparse":
        squares = abs(stored).multiply(abs(stored)).sum(axis=1)
        return np.sqrt(np.asarray(_xp.to_numpy(squares), np.float64).reshape(-1))
    xp = a.xp
    size = xp.abs(stored)
    a.passes += 1
    return np.sqrt(np.asarray(_xp.to_numpy(xp.sum(size * size, axis=1)), np.float64))


def _weights(a: Matrix, stored: Any, probabilities: Any) -> Any:
    if isinstance(probabilities, np.ndarray):
        return probabilities
    if probabilities == "uniform":
        return np.ones(a.shape[0])
    squares = row_norms(a, stored) ** 2
    # all rows are zero: any of them will do
    return squares / squares.sum() if squares.any() else np.ones(a.shape[0])


def _some(x: Any) -> Any:
    return np.where(x > 0, x, 1.0)


# --- Momentum -------------------------------------------------------------------------------------


class _Momentum:
    """Nesterov's three sequences [Gower, Hanzely, Richtárik, Stich 2018], their rate measured.

    ``nu`` is the number of steps in a sweep. ``mu``, the share of the error's square that a step
    takes, follows from the first sweeps, which have no momentum, and then from the rate that was
    reached with it, ``(mu / nu)^(1/2)`` at best: it is lowered to what was seen, and raised, with
    a new start, where the steps grew.
    """

    def __init__(self, x: Any, *, on: bool) -> None:
        self.on = on
        self.v = x
        self.mu = 0.0
        self.first = 0.0
        self.sizes: list[float] = []

    def point(self, x: Any, nu: int) -> Any:
        """From where to project."""
        if not self.mu:
            return x
        alpha = 1 / (1 + math.sqrt(nu / self.mu))
        return alpha * self.v + (1 - alpha) * x

    def move(self, y: Any, change: Any, nu: int) -> Any:
        """The next iterate from ``y`` and its projection ``y + change``."""
        x = y + change
        if self.mu:
            beta, gamma = 1 - math.sqrt(self.mu / nu), 1 / math.sqrt(self.mu * nu)
            self.v = beta * self.v + (1 - beta) * y + gamma * change
        return x

    def learn(self, x: Any, size: float, nu: int) -> None:
        """After a sweep whose steps have that sum of squares."""
        self.sizes.append(size)
        if not self.on or not all(self.sizes) or not math.isfinite(size):
            return
        if not self.mu:
            if len(self.sizes) > 2:
                rate = self.sizes[-1] / self.sizes[-2]
                self.mu = self.first = min(max(1 - rate, 1e-4) / nu, 0.5)
                self.v, self.sizes = x, [size]
        elif len(self.sizes) > _WINDOW:
            rate = (self.sizes[-1] / self.sizes[0]) ** (1 / (nu * (len(self.sizes) - 1)))
            if rate >= 1:
                self.v, self.mu = x, min(4 * self.mu, self.first)
            else:
                seen = nu * (1 - rate) ** 2
                self.mu = max(seen, self.mu / 16) if seen < self.mu else self.mu
            self.sizes = [size]


# --- The iteration --------------------------------------------------------------------------------


class _Watch:
    """Residuals: when to look, and what they say."""

    def __init__(self, a: Matrix, b: Any, x: Any, *, zero: bool) -> None:
        self.a, self.b = a, b
        xp = a.xp
        self.length = _lengths(xp, b)
        first = self.length if zero else _lengths(xp, b - a.matmat(x))
        self.unit = np.where(self.length > 0, self.length, np.where(first > 0, first, 1.0))
        self.now = self._largest(first)
        self.looks: list[float] = [self.now]
        self.since, self.seen = 0, math.nan

    def _largest(self, lengths: Any) -> float:
        return float(np.max(lengths / self.unit, initial=0.0))

    def look(self, x: Any) -> float:
        """The residual, by one product with A."""
        self.now = self._largest(_lengths(self.a.xp, self.b - self.a.matmat(x)))
        self.looks.append(self.now)
        self.since = 0
        return self.now

    def may_be_small(self, met: float, target: float) -> bool:
        """Whether the residuals met in a sweep say that it is time to look."""
        self.since += 1
        known = self.seen > 0 and met < self.seen
        guess = self.now * math.sqrt(met / self.seen) if known else self.now
        return guess <= 2 * target or self.since >= _PATIENCE or not math.isfinite(self.seen)

    def floor(self, x: Any) -> float:
        """What rounding leaves of the residual."""
        eps = self.a.eps
        size = self.a.norm if math.isfinite(self.a.norm) else 0.0
        return self._largest(eps * (size * _lengths(self.a.xp, x) + self.length))

    def stalled(self) -> bool:
        count = len(self.looks)
        window = max(_STALLED, int(_STALLED_SHARE * count))
        return count > window and min(self.looks[-window:]) > 0.9 * min(self.looks[:-window])


def _lengths(xp: Any, x: Any) -> Any:
    return np.asarray(_xp.to_numpy(xp.linalg.vector_norm(x, axis=0)), np.float64)


class _Trail:
    """What each sweep has changed, which tells how far it still is to the solution.

    Without momentum the squares of all steps to come add up to that of the distance, which falls
    by a constant factor in the end; with momentum the moves of whole sweeps are summed.
    """

    def __init__(self, *, squares: bool) -> None:
        self.squares = squares
        self.changes: list[float] = []

    def add(self, move: Any, size: float) -> None:
        self.changes.append(size if self.squares else norm(move))

    def left(self, share: float) -> float:
        """A geometric series with the rate of the later half; ``share`` of a residual is left."""
        last = np.array(self.changes[-max(8, len(self.changes) // 2) :])
        if not len(last) or last[-1] == 0 or not np.isfinite(last).all():
            return 0.0
        if len(last) < 2 or not last.all():
            rest = float(last[-1]) * (share**2 if self.squares else share)
        else:
            place = np.arange(len(last)) - (len(last) - 1) / 2
            rate = math.exp(place @ np.log(last) / (place @ place))
            rest = math.inf if rate >= 1 else float(last[-1]) * rate / (1 - rate)
        return math.sqrt(rest) if self.squares else rest


def iterate(
    a: Matrix, b: Any, x: Any, options: Options, source: Philox, leave: Any, member: int, *,
    zero: bool,
) -> Outcome:  # fmt: skip
    """Solve ``A x = b`` for one matrix, b (m, c) and x (n, c), which may be known to be zero."""
    watch, trail = _Watch(a, b, x, zero=zero), _Trail(squares=not options.momentum)
    step = read = 0
    bar = _bar(options)

    found = [0.0]  # the target of the last look

    def finished(x: Any) -> str:
        state = ProjectState(leave(x), watch.now, step, member)
        target = options.target(state)
        if bar is not None:
            bar.set_postfix_str(f"residual {watch.now:.1e}")
        stop = False
        if options.callback is not None:
            try:
                stop = bool(options.callback(state))
            except StopIteration:
                stop = True
        found[0] = target
        if watch.now <= target:
            return "converged"
        return "stopped" if stop else ""

    ended = finished(x)
    make = _Rows if options.sketch in ("kaczmarz", "block") else _Products
    sketch = make(a, b, options, source) if not ended else None
    momentum = _Momentum(x, on=options.momentum)
    steps = -(-a.shape[0] // options.block)
    sweep = 0
    while not ended and step < options.max_iter:
        assert sketch is not None
        before, met, size = x, 0.0, 0.0
        for piece in sketch.pieces(sweep):
            if step + piece.steps > options.max_iter:
                piece = _shorter(piece, options.max_iter - step)
            y = momentum.point(x, steps)
            r = piece.rhs - piece.rows @ y
            z = piece.left @ r
            change = _adjoint_product(a.xp, piece.rows, _apply(piece.right, z))
            x = momentum.move(y, change, steps)
            met, size = met + _squares(a.xp, r), size + _squares(a.xp, z)
            step += piece.steps
            read += r.shape[0]
            if step >= options.max_iter:
                break
        sweep += 1
        met, size = float(met), float(size)
        trail.add(x - before, size)
        momentum.learn(x, size, steps)
        if bar is not None:
            bar.update(steps)
        last = step >= options.max_iter
        if last or options.eager or watch.may_be_small(met, found[0]):
            watch.look(x)
            watch.seen = met
            ended = finished(x)
            if not ended and watch.now <= 2 * watch.floor(x):
                ended = "rounding"
            if not ended and not math.isfinite(watch.now):
                ended = "stalled"
            if not ended and watch.stalled():
                ended = "stalled"
    if bar is not None:
        bar.close()
    size = norm(x)
    least = watch.now * norm(b) / a.norm if a.norm > 0 else 0.0
    share = watch.now / watch.looks[0] if watch.looks[0] > 0 else 0.0
    error = max(trail.left(share), least if math.isfinite(least) else 0.0)
    passes = a.passes + (-(-read // a.shape[0]) if isinstance(sketch, _Rows) else 0)
    error = error / size if size > 0 else error
    return Outcome(x, step, watch.now, error, ended or "max_iter", passes)


def _squares(xp: Any, x: Any) -> Any:
    """Sum of squared sizes, not looked at."""
    if xp is np:
        return float(np.vdot(x, x).real)
    size = xp.abs(x)
    return xp.sum(size * size)


def _apply(right: Any, z: Any) -> Any:
    return right * z if right.shape[1] == 1 and right.shape[0] == z.shape[0] else right @ z


def _adjoint_product(xp: Any, rows: Any, y: Any) -> Any:
    if not isinstance(rows, np.ndarray) and hasattr(rows, "toarray"):
        return rows.conj().T @ y
    if _xp.dtype_name(y) in _xp.COMPLEX:
        return xp.conj(xp.matrix_transpose(rows) @ xp.conj(y))
    return xp.matrix_transpose(rows) @ y


def _shorter(piece: Piece, count: int) -> Piece:
    """The first equations of those that come in turn."""
    left, right = piece.left[:count, :count], piece.right[:count, :]
    return Piece(piece.rows[:count, :], piece.rhs[:count, :], left, right, count)


def _bar(options: Options) -> Any:
    if not options.progress:
        return None
    try:
        return importlib.import_module("tqdm").tqdm(desc="sketch_project", unit="step")
    except ImportError:
        return None
