"""Log-determinants between the observed points of a grid, and what their derivatives are."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import adjoint
from linalgk.errors import NotConvergedError
from linalgk.kronecker import _derivative
from linalgk.kronecker._door import Entered
from linalgk.kronecker._masked_grid import Grid, Seats, gather, indices, scatter
from linalgk.kronecker._masked_solve import solve_missing
from linalgk.kronecker._modes import outer, times
from linalgk.randomized import Estimate, RandomInfo, estimate_quad_form
from linalgk.sketch import Philox

LogdetMethod: TypeAlias = Literal["auto", "cholesky", "slq"]
METHODS = get_args(LogdetMethod)
# Largest block that is factored unasked, and operations that it may take.
FACTORED, AFFORDABLE = 2048, 5e10
# Relative target where nothing is asked for.
_TOL = 1e-3
# Random vectors that tell how many steps they take, at first, and at most.
_PILOT, _FIRST, _MOST = 4, 8, 1000
# Steps of Lanczos' process at first and at most.
_STEPS, _DEEPEST = 6, 80
# Numbers side by side, for memory.
_BLOCK = 1 << 24


class Options:
    """How an estimate was asked for."""

    def __init__(self, method: Any, tol: Any, n_matvecs: Any, level: Any, rng: Any) -> None:
        self.method = _validate.choice("method", method, METHODS)
        self.level = _validate.real_between("level", level, 0.0, 1.0, low_open=True)
        if self.level == 1.0:
            msg = "level: must satisfy 0 < level < 1, got 1.0"
            raise ValueError(msg)
        self.budget = None
        if n_matvecs is not None:
            self.budget = _validate.integer("n_matvecs", n_matvecs, 2 * (_STEPS + 2))
        if tol is None and n_matvecs is None:
            tol = _TOL
        self.tol = None if tol is None else _validate.real_between("tol", tol, 0.0, math.inf)
        self.source = Philox(rng)

    def check(self, dtype: str) -> None:
        """Whether the precision allows the target."""
        least = 64 * float(np.finfo(dtype).eps)
        if self.tol is not None and self.tol < least:
            msg = f"tol: must be at least {least:.1e}, 64 eps of the dtype, got {self.tol!r}"
            raise ValueError(msg)


class Found(NamedTuple):
    """The logarithm of one member, on the host."""

    value: float
    error: float = 0.0
    dof: float = math.inf
    low: float = math.nan
    high: float = math.nan
    products: int = 0
    steps: int = 0
    method: str = "cholesky"
    converged: bool = True
    # what derivatives are made of
    block: str = "none"  # "observed", "missing", "probes"
    root: Any = None  # lower Cholesky factor of the block, NumPy
    probes: Any = None  # (m, p), NumPy


FAILED = Found(math.nan, math.nan, method="", converged=False)


# --- Choice --------------------------------------------------------------------------------------


def choose_logdet(
    n: int, m: int, sizes: Sequence[int], method: str = "auto", *, gradient: bool = False
) -> tuple[str, str, str]:
    """Method, block and reason, for n observed and m missing points."""
    if m == 0:
        return "eigh", "none", "nothing is missing: a sum over the eigenvalues"
    if n == 0:
        return "eigh", "none", "nothing is observed"
    total, modes = math.prod(sizes), len(sizes)
    flops = {"observed": n**3 / 3 + modes * float(n) ** 2, "missing": m**3 / 3 + split(m, sizes)[1]}
    if gradient:
        flops["observed"] += n**3 + 2.0 * n * n * sum(sizes)
        flops["missing"] += m * 10.0 * total * sum(sizes)
    order = {"observed": n, "missing": m}
    block = min(flops, key=lambda key: flops[key])
    if method == "cholesky":
        return "cholesky", block, "it was asked for"
    if method == "slq":
        return "slq", "missing", "it was asked for"
    able = {b: f for b, f in flops.items() if order[b] <= FACTORED and f <= AFFORDABLE}
    if able:
        block = min(able, key=lambda key: able[key])
        return "cholesky", block, f"the {block} points' block takes {able[block]:.1g} flops"
    return "slq", "missing", "both blocks are large: random vectors see the missing points' block"


def split(m: int, sizes: Sequence[int]) -> tuple[int, float]:
    """How many modes to treat as rows of the missing points' block, and its operations."""
    best = (0, math.inf)
    for i in range(len(sizes)):
        left, right = math.prod(sizes[:i]), math.prod(sizes[i:])
        rows = min(left, m)
        flops = float(rows) ** 2 * left * right + float(m) * m * right + 2.0 * rows * m * right
        if max(left, right) ** 2 <= _BLOCK and flops < best[1]:
            best = (i, flops)
    return best


# --- One member ----------------------------------------------------------------------------------


def member(grid: Grid, options: Options, *, gradient: bool = False) -> Found:
    """``log det A_oo`` of a positive definite grid without batch."""
    method, block, _ = choose_logdet(grid.n, grid.m, grid.sizes, options.method, gradient=gradient)
    if grid.n == 0:
        return Found(0.0, low=0.0, high=0.0, method="eigh", block="empty")
    d = np.asarray(_xp.to_numpy(grid.d), np.float64)
    whole = float(np.log(d).sum())
    # first order in an error of eps ||A|| in A
    slack = grid.eps * (abs(whole) + float(d.max()) * float((1 / d).sum()))
    if method == "eigh":
        return Found(whole, low=whole - slack, high=whole + slack, method="eigh")
    if method == "slq":
        return _sampled(grid, options, whole, slack)
    host = [np.asarray(_xp.to_numpy(a)) for a in grid.arrays]
    if block == "observed":
        matrix = _entries(host, grid.seen, grid.sizes)
        matrix[np.diag_indices(grid.n)] += float(grid.shift)
        whole = 0.0
        slack = grid.eps * math.sqrt(grid.n) * float(d.max()) / float(d.min())
    else:
        matrix = missing_block(grid)
    root = _cholesky(matrix)
    value = whole + 2 * float(np.log(np.diagonal(root).real.astype(np.float64)).sum())
    slack += grid.eps * abs(value)
    return Found(
        value, low=value - slack, high=value + slack, method="cholesky", block=block, root=root
    )


def _cholesky(matrix: Any) -> Any:
    from scipy.linalg import cholesky

    return cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)


def block(arrays: Sequence[Any], points: Seats, sizes: Sequence[int]) -> Any:
    """The block of a Kronecker product at some points of the grid, (..., n, n)."""
    if isinstance(arrays[0], np.ndarray):
        return _entries(arrays, points, sizes)
    found: Any = None
    for a, index in zip(arrays, np.unravel_index(points.points, tuple(sizes)), strict=True):
        xp, index = _xp.namespace(a), indices(index, a)
        part = xp.take(xp.take(a, index, axis=-2), index, axis=-1)
        found = part if found is None else found * part
    return found


def _entries(arrays: Sequence[Any], points: Seats, sizes: Sequence[int]) -> Any:
    found: Any = None
    for a, index in zip(arrays, np.unravel_index(points.points, tuple(sizes)), strict=True):
        part = a[..., index[:, None], index[None, :]]
        if found is None:
            found = part
        elif part.ndim > found.ndim or part.shape[:-2] != found.shape[:-2]:
            found = found * part
        else:
            found *= part
    return found


def missing_block(grid: Grid) -> Any:
    """``(A^-1)_mm`` on the host.

    With eigenvectors ``Q_1 kron Q_2`` of modes in two groups, an entry between the points (a, b)
    and (c, e) is ``sum_l Q_2[b, l] conj(Q_2[e, l]) W_l`` with ``W_l = sum_k Q_1[a, k]
    conj(Q_1[c, k]) / d_kl``, which points of the same rows a and c share.
    """
    vectors = [np.asarray(_xp.to_numpy(v)) for v in grid.vectors]
    at, _ = split(grid.m, grid.sizes)
    left, right = (_formed(part, vectors[0].dtype) for part in (vectors[:at], vectors[at:]))
    p = right.shape[0]
    inverse = (1 / np.asarray(_xp.to_numpy(grid.d))).reshape(-1, p)
    rows, columns = np.divmod(grid.hidden.points, p)
    used, row = np.unique(rows, return_inverse=True)
    ql, qr = left[used], right[columns]
    # points come in the order of their rows
    start = np.searchsorted(row, np.arange(len(used) + 1))
    found = np.empty((grid.m, grid.m), vectors[0].dtype)
    for i in range(len(used)):
        own, rest = slice(start[i], start[i + 1]), slice(start[i], None)
        w = (ql[i] * ql[i:].conj()) @ inverse
        found[own, rest] = qr[own] @ (w[row[rest] - i] * qr[rest].conj()).T
        found[rest, own] = found[own, rest].conj().T
    return found


def _formed(factors: Sequence[Any], dtype: Any) -> Any:
    """A Kronecker product of some modes, formed."""
    found = np.ones((1, 1), dtype)
    for f in factors:
        found = np.kron(found, f)
    return found


# --- Random vectors ------------------------------------------------------------------------------


class Scaled:
    """``D^-1/2 S D^-1/2`` with the diagonal D of S, for vectors on the host."""

    def __init__(self, grid: Grid) -> None:
        self.grid, self.shape = grid, (grid.m, grid.m)
        self.dtype = np.dtype(grid.dtype)
        xp = grid.xp
        squares = [xp.abs(v) ** 2 for v in grid.vectors]
        self.diagonal = gather(times(squares, 1 / grid.d[:, None]), grid.hidden)
        self.half = xp.sqrt(self.diagonal)
        host = np.asarray(_xp.to_numpy(self.diagonal), np.float64)
        d = np.asarray(_xp.to_numpy(grid.d), np.float64)
        self.logdet = float(np.log(host).sum())
        # eigenvalues of S lie between those of A^-1
        room = 1 + 1e3 * grid.eps
        self.bounds = (1 / d.max() / host.max() / room, 1 / d.min() / host.min() * room)

    def __matmul__(self, x: Any) -> Any:
        """The product with x (m, k) or (m,)."""
        xp = self.grid.xp
        flat = x[:, None] if x.ndim == 1 else x
        y = _xp.from_numpy(np.ascontiguousarray(flat), xp, like=self.grid.d)
        y = self.grid.schur(y / self.half) / self.half
        return np.asarray(_xp.to_numpy(y)).reshape(x.shape)

    matmat = rmatmat = __matmul__


class Drawn:
    """Forms ``z^H (log T - (T - I)) z`` of vectors z, with their bounds, as far as they are drawn.

    Vectors are random signs; unit vectors, which leave no error, where these are fewer.
    """

    def __init__(self, scaled: Scaled, source: Philox) -> None:
        self.scaled, self.source, self.m = scaled, source, scaled.shape[0]
        self.most = min(self.m, _DEEPEST)
        self.steps, self.products, self.complete = min(_STEPS, self.most), 0, False
        self.width = max(1, min(32, _BLOCK // (2 * math.prod(scaled.grid.sizes))))
        self._forget()

    def _forget(self) -> None:
        self.values, self.lows, self.highs = np.zeros((3, 0))
        self.vectors: list[Any] = []

    @property
    def count(self) -> int:
        """How many vectors."""
        return len(self.values)

    @property
    def price(self) -> int:
        """Products that the next vector takes."""
        return self.steps + 2

    def to(self, count: int) -> None:
        """As many vectors as that."""
        if count >= self.m and not self.complete:
            self.complete = True
            self._forget()
        stop = self.m if self.complete else count
        while self.count < stop:
            self._more(min(self.width, stop - self.count))

    def deeper(self) -> None:
        """The same vectors again with twice the steps."""
        count, self.steps = self.count, min(2 * self.steps, self.most)
        self._forget()
        self.to(count)

    def _more(self, k: int) -> None:
        m, start, dtype = self.m, self.count, self.scaled.dtype
        if self.complete:
            z = math.sqrt(m) * np.eye(m, k, -start)
        else:
            signs = self.source.signs(m * k, start=m * start, dtype=_xp.REAL[dtype.name])
            z = signs.reshape(k, m).T
        z = np.ascontiguousarray(z.astype(dtype))
        scaled = self.scaled
        linear = (z.conj() * (scaled @ z)).sum(axis=0).real.astype(np.float64) - m
        found = estimate_quad_form(
            scaled, "log", z, steps=self.steps, bounds=scaled.bounds, rng=self.source
        )
        self.products += k + int(found.n_matvecs)
        new = [np.asarray(x, np.float64) - linear for x in (found.value, *found.enclosure)]
        old = self.values, self.lows, self.highs
        self.values, self.lows, self.highs = (
            np.concatenate(pair) for pair in zip(old, new, strict=True)
        )
        self.vectors.append(z)

    def error(self) -> float:
        """Standard error of the mean."""
        if self.complete:
            return 0.0
        return float(self.values.std(ddof=1)) / math.sqrt(self.count)

    def reach(self) -> float:
        """How far the mean may be from that of the true forms."""
        mean = float(self.values.mean())
        return max(mean - float(self.lows.mean()), float(self.highs.mean()) - mean)


def _sampled(grid: Grid, options: Options, whole: float, slack: float) -> Found:
    """``log det A + log det S`` from random vectors, and the linear term of the second exactly."""
    scaled, tol = Scaled(grid), options.tol
    budget = math.inf if options.budget is None else options.budget
    drawn, offset = Drawn(scaled, options.source), whole + scaled.logdet
    slack += grid.eps * (abs(offset) + 64 * grid.m)

    def affordable() -> int:
        return drawn.count + int(min(_MOST, (budget - drawn.products) // drawn.price))

    def is_coarse(share: float) -> bool:
        """Whether it is quadrature that stands in the way."""
        goal = 0.0
        if not drawn.complete:
            goal = 0.1 * float(drawn.values.std()) / math.sqrt(max(1, min(_MOST, affordable())))
        if tol is not None:
            goal = max(goal, share * tol * abs(offset + float(drawn.values.mean())))
        return drawn.reach() > goal + slack and drawn.steps < drawn.most

    # a few vectors tell how many steps are enough
    drawn.to(min(_PILOT, affordable()))
    while is_coarse(0.1) and drawn.products + 2 * drawn.steps * drawn.count <= budget / 2:
        drawn.deeper()
    wanted = min(_FIRST, affordable())
    while True:
        drawn.to(wanted)
        mean, error, reach = float(drawn.values.mean()), drawn.error(), drawn.reach() + slack
        dof = math.inf if drawn.complete else drawn.count - 1.0
        half, value = (_student(options.level, dof) * error if error else 0.0), offset + mean
        met = tol is None or half + reach <= tol * abs(value) + slack
        most = min(_MOST, affordable())
        if met and tol is not None:
            break
        if is_coarse(0.5) and drawn.products + 2 * drawn.steps * drawn.count <= budget:
            drawn.deeper()
        elif drawn.complete or most <= drawn.count:
            break
        elif tol is None:
            wanted = most
        else:
            room = max(0.25 * tol * abs(value), tol * abs(value) - reach)
            need = drawn.count * (half / room) ** 2 if room else math.inf
            wanted = int(min(most, max(drawn.count + 2, min(1.1 * need, 4.0 * drawn.count))))
    low, high = (offset + float(x.mean()) for x in (drawn.lows, drawn.highs))
    return Found(
        value, error, dof, low - slack, high + slack, drawn.products, drawn.steps, "slq", met,
        "probes", None, np.concatenate(drawn.vectors, axis=1),
    )  # fmt: skip


def _student(level: float, dof: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(dof, 0.5 + 0.5 * level))


# --- The answer ----------------------------------------------------------------------------------


def gathered(
    found: Sequence[Found], batch: tuple[int, ...], entered: Entered, options: Options
) -> Estimate:
    """Members as one estimate, in the caller's library."""
    real = _xp.REAL[entered.dtype]
    like = entered.arrays[0]
    xp = _xp.namespace(like)

    def column(values: Any, dtype: str = real) -> Any:
        host = np.asarray(values, dtype).reshape(batch)
        if xp is np and entered.face.family == "numpy" and not batch:
            return host[()]
        return entered.face.leave(_xp.from_numpy(host, xp, like=like), entered.like)

    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.array([f.value for f in found])
        size = np.where(value == 0, 1.0, np.abs(value))
        width = np.array([f.high - f.low for f in found]) / size
        error = np.array([f.error for f in found]) / size
    info = RandomInfo(
        method=next((f.method for f in found if f.method), "cholesky"),
        iterations=column([f.steps for f in found], "int64"),
        converged=column([f.converged for f in found], "bool"),
        residual=column(width),
        error_estimate=column(error),
        rank=column([0] * len(found), "int64"),
        passes=max([0, *(f.products for f in found)]),
        seed=options.source.key,
    )
    low, high = column([f.low for f in found]), column([f.high for f in found])
    dof = np.array([f.dof for f in found]).reshape(batch)
    products = np.array([f.products for f in found], np.int64).reshape(batch)
    return Estimate(
        column(value), column([f.error for f in found]), (low, high), (low, high),
        dof if batch else float(dof[()]), products if batch else int(products[()]), info,
    )  # fmt: skip


# --- Derivatives ---------------------------------------------------------------------------------


def gradient(grid: Grid, found: Found) -> tuple[list[Any], float]:
    """Gradients of one member by its factors, Hermitian, and by the shift."""
    xp = grid.xp
    if found.block == "empty":
        return [xp.zeros_like(a) for a in grid.arrays], 0.0
    if found.block == "observed":
        return _by_observed(grid, found.root)
    factors, shift = _by_whole(grid)
    if found.block == "missing":
        more = _by_block(grid, found.root)
    elif found.block == "probes":
        more = _by_probes(grid, found.probes)
    else:
        return factors, shift
    return [a + _part(xp, b) for a, b in zip(factors, more[0], strict=True)], shift + more[1]


def _part(xp: Any, x: Any) -> Any:
    return 0.5 * (x + adjoint(xp, x))


def _by_whole(grid: Grid) -> tuple[list[Any], float]:
    """Of ``log det A``: ``Q_i diag(w) Q_i^H``, w the sums over the other modes."""
    xp, found = grid.xp, []
    inverse = 1 / grid.d
    for i, (q, w) in enumerate(zip(grid.vectors, grid.values, strict=True)):
        others = [xp.ones_like(v) if j == i else v for j, v in enumerate(grid.values)]
        before, after = math.prod(grid.sizes[:i]), math.prod(grid.sizes[i + 1 :])
        terms = xp.reshape(outer(others) * inverse, (before, w.shape[0], after))
        weights = xp.astype(xp.sum(terms, axis=(0, 2)), q.dtype)
        found.append((q * weights[None, :]) @ adjoint(xp, q))
    return found, float(xp.sum(inverse))


def _by_observed(grid: Grid, root: Any) -> tuple[list[Any], float]:
    """Of the Cholesky factor of A_oo, entry by entry."""
    from scipy.linalg import lapack

    potri = lapack.get_lapack_funcs(("potri",), (root,))[0]
    low = np.tril(potri(root, lower=True)[0])
    inverse = low + np.tril(low, -1).conj().T
    host = [np.asarray(_xp.to_numpy(a)) for a in grid.arrays]
    index = np.unravel_index(grid.seen.points, grid.sizes)
    found = []
    for i, size in enumerate(grid.sizes):
        weights = inverse
        for j, a in enumerate(host):
            if j != i:
                weights = weights * a[index[j][:, None], index[j][None, :]].conj()
        half = _summed(weights, index[i], size)
        y = _summed(np.ascontiguousarray(half.T), index[i], size).T
        found.append(_xp.from_numpy(np.ascontiguousarray(y), grid.xp, like=grid.d))
    return [_part(grid.xp, y) for y in found], float(np.diagonal(inverse).real.sum())


def _summed(x: Any, index: Any, size: int) -> Any:
    """Rows with the same index added up."""
    order = np.argsort(index, kind="stable")
    used, start = np.unique(index[order], return_index=True)
    found = np.zeros((size, x.shape[1]), x.dtype)
    found[used] = np.add.reduceat(x[order], start, axis=0)
    return found


def _by_block(grid: Grid, root: Any) -> tuple[list[Any], float]:
    """Of ``log det S``: ``-W W^H`` for A, with ``W = A^-1 P_m^H L^-H``."""
    from scipy.linalg import solve_triangular

    columns = solve_triangular(root, np.eye(grid.m, dtype=root.dtype), lower=True).conj().T
    step = max(1, _BLOCK // (4 * math.prod(grid.sizes)))
    return _accumulated(grid, [columns[:, i : i + step] for i in range(0, grid.m, step)], None)


def _by_probes(grid: Grid, probes: Any) -> tuple[list[Any], float]:
    """Of ``log det S`` in the mean over random vectors: ``tr S^-1 dS = E z^H S^-1 dS z``."""
    xp = grid.xp
    step = max(1, _BLOCK // (4 * math.prod(grid.sizes)))
    parts = [probes[:, i : i + step] for i in range(0, probes.shape[1], step)]
    tol, solved = max(0.01 * math.sqrt(grid.eps), 64 * grid.eps), []
    for z in parts:
        y = _xp.from_numpy(np.ascontiguousarray(z), xp, like=grid.d)
        x, residual = solve_missing(grid, y, tol, 2000)
        if residual > math.sqrt(grid.eps):
            msg = (
                "Masked.logdet: the derivative of an estimate takes solutions for the missing "
                f"points, and a residual of {residual:.1e} is left after 2000 steps; give a larger "
                "shift, or take method='cholesky' if the grid is small"
            )
            raise NotConvergedError(msg)
        solved.append(x)
    return _accumulated(grid, parts, solved)


def _accumulated(
    grid: Grid, parts: Sequence[Any], others: Sequence[Any] | None
) -> tuple[list[Any], float]:
    """Gradient of the mean of ``-u^H dA w``, ``w = A^-1 P^H z``, and u the same of ``others``."""
    xp, shift = grid.xp, 0.0
    factors: list[Any] = [xp.zeros_like(a) for a in grid.arrays]
    scale = 1.0 if others is None else 1.0 / sum(z.shape[1] for z in parts)
    for i, z in enumerate(parts):
        z = _xp.from_numpy(np.ascontiguousarray(z), xp, like=grid.d)
        w = grid.inverse(scatter(z, grid.hidden))
        u = w if others is None else grid.inverse(scatter(others[i], grid.hidden))
        more = _derivative.factor_gradients(grid.arrays, w, -scale * u)
        factors = [a + b for a, b in zip(factors, more, strict=True)]
        form = xp.sum(xp.real(xp.conj(u) * w)) if grid.dtype in _xp.COMPLEX else xp.sum(u * w)
        shift -= scale * float(form)
    return factors, shift
