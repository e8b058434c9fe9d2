"""Low-rank factors of a Matrix: a basis of its rows from sketches, grown by Krylov blocks.

V (n, d) has orthonormal columns, ``Y = A V`` is known exactly, and ``A V V^H`` is the best
approximation with rows in the span of V: its singular values and vectors are those of Y, and
``||A - A V V^H||^2 = ||A||^2 - ||Y||^2``. No product ``Q^H A`` is needed. V lives on the shorter
side. What is not in the span is measured by rows of the first sketch that V does not depend on.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor, _meta
from linalgk.randomized._matrix import Matrix, norm
from linalgk.sketch import Gaussian, Philox, Sketch, SparseStack

# Blocks of a stack: all but one are for the range, the last one for the error.
_NNZ = 8
# Rows of a stack by column of the first block of V; a sketch of less than so many entries.
_WIDE, _NARROW, _LARGE = 4, 2, 1 << 26
# Normal rows that measure the error.
_CHECKS = 10
# Rounding errors of factors that lose nothing, in units of eps: not estimated, but typical.
_ROUNDING = 12
# Rows whose products are added at once.
_ROWS = 4096
# Streams of the seed.
_RANGE, _OTHER, _GROWN = 1, 2, 16


class NotFiniteError(Exception):
    """A product holds NaN or infinity."""


class Found(NamedTuple):
    """Factors of one member, and what they lack, relative to the norm of the matrix."""

    u: Any
    s: Any
    vh: Any
    error: float
    passes: int
    method: str


class Plan(NamedTuple):
    """What is asked of one member."""

    rank: int | None
    tol: float | None
    oversample: int
    passes: int | None
    method: str
    family: str


# --- Orthonormal bases ---------------------------------------------------------------------------


def gram(xp: Any, x: Any) -> Any:
    """``X^H X``, by blocks of rows on NumPy: products of long thin matrices run faster so."""
    if xp is not np or x.shape[0] <= _ROWS:
        return adjoint(xp, x) @ x
    total = 0
    for i in range(0, x.shape[0], _ROWS):
        rows = x[i : i + _ROWS]
        total = total + adjoint(np, rows) @ rows
    return total


def _host(x: Any) -> Any:
    return np.asarray(_xp.to_numpy(x), np.float64)


def lengths(xp: Any, x: Any) -> Any:
    """Norms of columns, real."""
    size = xp.abs(x)
    return xp.sqrt(xp.sum(size * size, axis=0))


def _triangle(xp: Any, x: Any) -> Any:
    """R with ``X = Q R`` by one Cholesky factorization, None where it would not be stable.

    Columns are scaled to length one first: products with approximate singular vectors are nearly
    orthogonal and of very different length.
    """
    size = lengths(xp, x)
    if not x.shape[1] or float(xp.min(size)) <= 0:
        return None
    g = gram(xp, x) / (size[:, None] * size[None, :])
    r = _factor.cholesky(g)
    if r is None:
        return None
    eps = float(np.finfo(_xp.dtype_name(x)).eps)
    if float(xp.min(xp.abs(xp.linalg.diagonal(r)))) < 30 * math.sqrt(eps):
        return None
    return r * size[None, :]


def thin(xp: Any, x: Any) -> tuple[Any, Any]:
    """Orthonormal Q (m, d) and R: Cholesky twice where that is stable, else reflections."""
    first = _triangle(xp, x)
    if first is None:
        return _factor.qr(x)
    q = _factor.right_solve(x, first)
    second = _factor.cholesky(gram(xp, q))
    if second is None:
        return _factor.qr(x)
    return _factor.right_solve(q, second), second @ first


def extend(xp: Any, basis: Any, z: Any, scale: float) -> Any:
    """Orthonormal columns (n, b') of what z has beyond the basis; none where that is rounding."""
    floor = 16 * float(np.finfo(_xp.dtype_name(z)).eps) * scale
    room = basis.shape[0] - basis.shape[1]
    for _ in range(2):
        z = z - basis @ (adjoint(xp, basis) @ z)
    r = _triangle(xp, z)
    if r is not None and float(xp.min(lengths(xp, z))) > 100 * floor and z.shape[1] <= room:
        q = _factor.right_solve(z, r)
    else:
        # directions of which nothing is left beside rounding are dropped
        u, s, _ = _factor.svd(z)
        q = u[:, : min(int(np.count_nonzero(_host(s) > floor)), room)]
    if not q.shape[1]:
        return q
    q = q - basis @ (adjoint(xp, basis) @ q)
    return thin(xp, q)[0]


def select(xp: Any, rows: Any, width: int) -> Any:
    """The dominant right singular vectors (n, width) of a sketch (k, n), orthonormal."""
    if rows.shape[0] <= width:
        return thin(xp, adjoint(xp, rows))[0]
    wide = _widened(xp, rows)
    # (k, k): a starting basis needs no small singular values, unless there are only such
    values, vectors = _factor.eigh(wide @ adjoint(xp, wide))
    host = _host(values)[::-1]
    if host[width - 1] > 1e-11 * host[0]:
        turn = xp.astype(vectors[:, -width:], rows.dtype)
        return thin(xp, adjoint(xp, rows) @ xp.flip(turn, axis=1))[0]
    q, r = _factor.qr(adjoint(xp, rows))
    return q @ _factor.svd(r)[0][:, :width]


def _widened(xp: Any, x: Any) -> Any:
    """In double precision."""
    double = "complex128" if _xp.dtype_name(x) in _xp.COMPLEX else "float64"
    return xp.astype(x, _xp.dtype_of(xp, double))


class Ritz:
    """Singular values and vectors of Y (m, d) with few columns; the left ones when asked for."""

    def __init__(self, xp: Any, y: Any, *, final: bool) -> None:
        self._xp, self._y = xp, y
        self._q, self._first, self._second = None, _triangle(xp, y), None
        r = self._first
        if r is not None and final:
            # a second factorization restores what the Gram matrix lost
            self._q = _factor.right_solve(y, r)
            self._second = _factor.cholesky(gram(xp, self._q))
            r = None if self._second is None else self._second @ r
        if r is None:
            self._first = self._second = None
            self._q, r = _factor.qr(y)
        self._turn, self.s, self.wh = _factor.svd(r)

    def left(self, count: int) -> Any:
        """The first left vectors; orthonormal to rounding if ``final``."""
        turn = self._turn[:, :count]
        if self._q is None:
            return self._y @ _factor.solve(self._first, turn)
        return self._q @ (turn if self._second is None else _factor.solve(self._second, turn))


# --- Products, scaled, with what is measured besides ---------------------------------------------


class Seen(NamedTuple):
    """Products with rows Theta, of squared length one in the mean, that no basis depends on."""

    theta: Callable[[Any], Any]
    values: Any  # Theta A, or A Theta^T
    right: bool
    size: int


class Work:
    """The matrix with its short side right, times a power of two; its sketches and products."""

    def __init__(self, a: Matrix, seed: Philox, family: str) -> None:
        self.flipped = a.shape[0] < a.shape[1]
        self.a = a.H if self.flipped else a
        self.m, self.n = self.a.shape
        self.xp, self.eps = a.xp, a.eps
        self._seed = seed
        self._family = "Gaussian" if a.kind == "operator" and family == "auto" else family
        self.checks = _CHECKS
        self.scale = 1.0
        self._begun = False
        self.seen: Seen | None = None

    @property
    def passes(self) -> int:
        """Reads so far."""
        return self.a.passes

    def _first(self, x: Any) -> Any:
        """The first product: it shows NaN and the size of the numbers."""
        if not self._begun:
            top = float(self.xp.max(self.xp.abs(x))) if math.prod(x.shape) else 0.0
            if not math.isfinite(top):
                raise NotFiniteError
            low = 1e-12 if self.eps > 1e-10 else 1e-100
            self.scale = 1.0 if low < top < 1 / low or top == 0 else 2.0 ** -math.frexp(top)[1]
            self._begun = True
        return x * self.scale if self.scale != 1 else x

    def product(self, v: Any) -> Any:
        """``A V``."""
        return self.a.matmat(v * self.scale if self.scale != 1 else v)

    def back(self, u: Any) -> Any:
        """``A^H U``."""
        return self.a.rmatmat(u * self.scale if self.scale != 1 else u)

    def rows(self, width: int, stream: int = _RANGE, *, right: bool = False) -> Any:
        """A sketch (k, n) for a basis of ``width`` columns, or of A^H; keeps the rest of it."""
        m, n = (self.n, self.m) if right else (self.m, self.n)
        s, many, share = self._sketch(width, m, n, stream)
        sketched = self.a.H.sketched(s) if right else self.a.sketched(s)
        sketched = self._first(sketched)

        def theta(x: Any) -> Any:
            return (s @ x)[many:, :] * share

        values = sketched[many:, :] * share
        if right:
            values = adjoint(self.xp, values)
        self.seen = Seen(theta, values, right, s.shape[0] - many)
        return sketched[:many, :]

    def _sketch(
        self, width: int, m: int, n: int, stream: int, times: int | None = None
    ) -> tuple[Sketch, int, float]:
        """The operator, how many of its rows are for the range, the factor of the others."""
        rng = self._seed.spawn(stream)
        if self._family != "Gaussian":
            wide = _WIDE if m >= 50 * width and _WIDE * width * n <= _LARGE else _NARROW
            times = times or wide
            each = min(-(-times * width // (_NNZ - 1)), m // _NNZ)
            many = each * (_NNZ - 1)
            if each and many >= width:
                return SparseStack(each * _NNZ, m, nnz=_NNZ, rng=rng), many, math.sqrt(_NNZ)
        checks = min(self.checks, m - width)
        k = width + checks
        return Gaussian(k, m, rng=rng), width, math.sqrt(k / max(1, checks))

    def start(self, width: int, *, right: bool) -> Any:
        """The first V: in one read from the left, in two by way of the columns."""
        if width >= self.n:
            return self.whole()
        if not right:
            return select(self.xp, self.rows(width), width)
        columns = select(self.xp, self.rows(width, right=True), min(width, self.m))
        return thin(self.xp, self.back(columns))[0]

    def whole(self) -> Any:
        """All of the space: nothing is lost."""
        unit = np.eye(self.n, dtype=self.a.dtype)
        return _xp.from_numpy(unit, self.xp, like=self.a.like)

    def outside(self, v: Any, y: Any) -> float:
        """Estimate of ``||A - Y V^H||_F``, unbiased in the square."""
        if self.seen is None or v.shape[1] >= self.n:
            return 0.0
        if self.seen.right:
            rest = self.seen.values - y @ adjoint(self.xp, self.seen.theta(v))
        else:
            rest = self.seen.values - self.seen.theta(y) @ adjoint(self.xp, v)
        return norm(rest)

    def hand_out(self, ritz: Ritz, v: Any, rank: int, outside: float, method: str) -> Found:
        """Factors of the matrix as it came, with their error."""
        xp, s = self.xp, _host(ritz.s)
        u, vh = ritz.left(rank), ritz.wh[:rank, :] @ adjoint(xp, v)
        values = ritz.s[:rank] / self.scale if self.scale != 1 else ritz.s[:rank]
        total = math.hypot(float(np.linalg.norm(s)), outside)
        lost = math.hypot(float(np.linalg.norm(s[rank:])), outside)
        if self.flipped:
            u, vh = adjoint(xp, vh), adjoint(xp, u)
        # what is measured has its rounding errors
        floor = self.eps if outside else _ROUNDING * self.eps
        error = math.hypot(lost / total, floor) if total else 0.0
        return Found(u, values, vh, error, self.passes, method)


# --- Algorithms ----------------------------------------------------------------------------------


def lowrank(a: Matrix, plan: Plan, seed: Philox) -> Found:
    """Factors by the method of the plan."""
    if plan.method == "exact":
        return _exact(a, plan)
    work = Work(a, seed, plan.family)
    if plan.tol is not None:
        return _grown(work, plan)
    if plan.method == "gen_nystrom":
        return _one_pass(work, plan)
    return _stepped(work, plan)


def _exact(a: Matrix, plan: Plan) -> Found:
    dense = a.toarray()
    if a.kind == "dense":
        a.passes += 1
    if not bool(a.xp.all(a.xp.isfinite(dense))):
        raise NotFiniteError
    u, s, vh = _factor.svd(dense)
    host = _host(s)
    top = host[0] if len(host) else 0.0
    host = host / (top or 1.0)
    lost = np.append(np.sqrt(np.cumsum(host[::-1] ** 2))[::-1], 0.0)
    rank = len(host) if plan.rank is None else plan.rank
    if plan.tol is not None and top:
        rank = min(rank, int(np.argmax(lost <= plan.tol * (1 - 16 * a.eps) * lost[0])))
    elif plan.tol is not None:
        rank = 0
    error = math.hypot(lost[rank] / lost[0], _ROUNDING * a.eps) if top else 0.0
    return Found(u[:, :rank], s[:rank], vh[:rank, :], error, max(1, a.passes), "exact")


def _stepped(work: Work, plan: Plan) -> Found:
    """Power steps, or Krylov blocks, as many as the passes allow and as change the error."""
    xp, rank = work.xp, plan.rank
    assert rank is not None
    krylov, most = plan.method == "krylov", plan.passes or 4
    v = work.start(min(rank + plan.oversample, work.n), right=bool(most % 2))
    # of all of the space the first product is the first read
    y = work.product(v)
    if not work._begun:
        y = work._first(y)
    while True:
        outside = work.outside(v, y)
        last = work.passes + 2 > most or v.shape[1] >= work.n
        ritz = Ritz(xp, y, final=last)
        if not last and outside <= 16 * work.eps * float(np.linalg.norm(_host(ritz.s))):
            last, ritz = True, Ritz(xp, y, final=True)
        if last:
            break
        if not krylov:
            v = thin(xp, work.back(ritz.left(v.shape[1])))[0]
            y = work.product(v)
            continue
        # as many as wanted: smaller blocks would miss clusters of singular values
        z = work.back(ritz.left(min(rank, v.shape[1])))
        new = extend(xp, v, z, float(ritz.s[0]))
        if not new.shape[1]:
            ritz = Ritz(xp, y, final=True)
            break
        v, y = xp.concat([v, new], axis=1), xp.concat([y, work.product(new)], axis=1)
    return work.hand_out(ritz, v, rank, outside, plan.method)


def _one_pass(work: Work, plan: Plan) -> Found:
    """Generalized Nystrom from sketches of both sides (stabilised: [2] of the door)."""
    xp, a, rank = work.xp, work.a, plan.rank
    assert rank is not None
    most = min(work.n, (2 * (work.m - work.checks)) // 3)
    width = min(3 * (rank + plan.oversample), most)
    if width <= rank:
        return _stepped(work, plan._replace(passes=2))
    s, many, share = work._sketch(width + width // 2, work.m, work.n, _RANGE, times=1)
    t, extra, _ = work._sketch(width, work.n, work.m, _OTHER, times=1)
    rows, columns = _both(a, s, t)
    rows = work._first(rows)
    columns = columns[:, :extra]
    columns = columns * work.scale if work.scale != 1 else columns
    met = (s @ columns)[:many, :]
    cut = 10 * work.eps
    left, right = _meta.generalized_nystrom(columns, met, rows[:many, :], cut)
    q, first = thin(xp, left)
    p, second = thin(xp, adjoint(xp, right))
    u, values, vh = _factor.svd(first @ adjoint(xp, second))
    u, values, vh = _padded(xp, q @ u, values, vh @ adjoint(xp, p), rank)
    # the rows that neither factor depends on
    rest = (rows[many:, :] - (s @ (u * values[None, :]))[many:, :] @ vh) * share
    lost, total = norm(rest), norm(rows[many:, :] * share)
    error = math.hypot(lost / total, work.eps) if total else 0.0
    if work.flipped:
        u, vh = adjoint(xp, vh), adjoint(xp, u)
    return Found(u, values / work.scale, vh, error, a.passes, "gen_nystrom")


def _both(a: Matrix, s: Sketch, t: Sketch) -> tuple[Any, Any]:
    """``S A`` and ``A T^T``, of an array in memory in one read."""
    array = a.a
    if a.kind != "dense" or not isinstance(array, np.ndarray):
        return a.sketched(s), a.sketched_rows(t)
    if hasattr(a, "of"):
        columns, rows = _both(a.H, t, s)
        return adjoint(np, rows), adjoint(np, columns)
    a.passes += 1
    step = max(1024, (1 << 22) // max(1, array.shape[1]))
    total, parts = 0, []
    for i in range(0, array.shape[0], step):
        block = array[i : i + step]
        total = total + s[:, i : i + block.shape[0]] @ block
        parts.append((t @ block.T).T)
    return total, np.concatenate(parts)


def _padded(xp: Any, u: Any, s: Any, vh: Any, rank: int) -> tuple[Any, Any, Any]:
    """The first ``rank``, with zeros and any orthonormal vectors where there are not so many."""
    short = rank - int(s.shape[0])
    if short <= 0:
        return u[:, :rank], s[:rank], vh[:rank, :]
    zeros = (
        xp.zeros_like(xp.concat([s] * rank)[:short])
        if s.shape[0]
        else xp.abs(0 * _normals(s, short, 1)[:, 0])
    )
    u, v = (
        _factor.qr(xp.concat([x, _normals(x, x.shape[0], short)], axis=1))[0]
        for x in (u, adjoint(xp, vh))
    )
    return u, xp.concat([s, zeros]), adjoint(xp, v)


def _normals(like: Any, rows: int, count: int) -> Any:
    x = np.reshape(Philox(0).normal(rows * count), (rows, count))
    x = x.astype(_xp.dtype_name(like))
    return _xp.from_numpy(x, _xp.namespace(like), like=like)


def _grown(work: Work, plan: Plan) -> Found:
    """The least rank for an error, by blocks of new sketches and one Krylov step [5]."""
    xp, n, tol = work.xp, work.n, float(plan.tol or 0.0)
    work.checks = 32
    most = n if plan.rank is None else min(n, plan.rank + plan.oversample)
    v = y = None
    target, stream = min(64, most), _GROWN
    while True:
        have = 0 if v is None else int(v.shape[1])
        if target >= n:
            v = work.whole()
            y = work.product(v)
            y = y if work._begun else work._first(y)
        else:
            rows = work.rows(target, stream)
            v, y = _another(work, rows, v, y, target - have)
        outside = _missing(work, v, y, tol)
        total = math.hypot(norm(y), outside)
        have, before = int(v.shape[1]), have
        # the last step and rounding shall not spoil it
        if outside <= 0.7 * tol * total or have >= most or have == before:
            break
        target, stream = min(most, max(2 * target, have + 32)), stream + 1
    ritz = Ritz(xp, y, final=False)
    rank = _least(_host(ritz.s), outside, tol * (1 - 16 * work.eps))
    # the squares of the singular values of A V are below those of A by outside^2 in all
    lost = math.hypot(outside, float(np.linalg.norm(_host(ritz.s)[rank:])))
    if rank and have < n and outside > 0.1 * lost:
        new = extend(
            xp, v, work.back(ritz.left(min(rank + plan.oversample, have))), float(ritz.s[0])
        )
        if new.shape[1]:
            v, y = xp.concat([v, new], axis=1), xp.concat([y, work.product(new)], axis=1)
            outside = _missing(work, v, y, tol)
    ritz = Ritz(xp, y, final=True)
    rank = _least(_host(ritz.s), outside, tol * (1 - 16 * work.eps))
    rank = rank if plan.rank is None else min(rank, plan.rank)
    if outside < 50 * math.sqrt(work.eps) * norm(y):
        # what stood in for it was a bound
        outside = work.outside(v, y)
    return work.hand_out(ritz, v, rank, outside, plan.method)


def _another(work: Work, rows: Any, v: Any, y: Any, width: int) -> tuple[Any, Any]:
    """V and Y with up to ``width`` columns more."""
    xp = work.xp
    if v is not None:
        for _ in range(2):
            rows = rows - (rows @ v) @ adjoint(xp, v)
    chosen = select(xp, rows, width)
    if v is None:
        v = chosen
        return v, work.product(v)
    new = extend(xp, v, chosen, 1e-3)
    if not new.shape[1]:
        return v, y
    return xp.concat([v, new], axis=1), xp.concat([y, work.product(new)], axis=1)


def _missing(work: Work, v: Any, y: Any, tol: float) -> float:
    """``||A - Y V^H||_F`` from above: by norms where they tell, else a bound of its estimate."""
    total = work.a.norm * work.scale
    if math.isfinite(total) and total > 0 and tol > 8 * math.sqrt(work.eps):
        part = norm(y) / total
        return total * math.sqrt(max(0.0, (1 - part) * (1 + part)) + 4 * work.eps)
    seen = work.seen
    # of a residual of rank one, the worst, the squares vary by sqrt(2 / count)
    spread = 1.0 if seen is None else math.sqrt(1 + 4 * math.sqrt(2 / seen.size))
    return spread * work.outside(v, y)


def _least(s: Any, outside: float, tol: float) -> int:
    """How many singular values are needed, rounding errors allowed for."""
    total = math.hypot(float(np.linalg.norm(s)), outside)
    if total == 0:
        return 0
    kept = s / total
    lost = np.append(np.cumsum(kept[::-1] ** 2)[::-1], 0.0) + (outside / total) ** 2
    enough = np.flatnonzero(lost <= tol**2)
    return int(enough[0]) if len(enough) else len(s)
