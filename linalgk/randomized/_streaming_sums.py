"""What is kept of a matrix that streams by: its linear sketches, their sums, and what they give."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import norm
from linalgk.sketch import Gaussian, Philox, RowSample, Sketch, SparseStack

# Streams of the user's key: for rows and columns of the range, of the core, of the error.
_RANGE_ROWS, _RANGE_COLUMNS, _CORE_ROWS, _CORE_COLUMNS, _ERROR = range(1, 6)
# Rows of the error sketch.
_CHECKS = 10
# Rows of A whose range sketch is kept in one array.
_PAGE = 1 << 12


@dataclasses.dataclass(frozen=True, eq=False)
class StreamInfo(RandomInfo):
    """`RandomInfo` with the uncertainty of the error.

    Attributes
    ----------
    std_error : float
        Standard error of `error_estimate`, relative to the norm of A as well.
    """

    std_error: Any


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedSVD:
    """A truncated decomposition ``A ~ U diag(S) Vh``; unpacks as ``U, S, Vh``.

    Attributes
    ----------
    U : array, shape (m, rank)
        Of an unknown number of rows: those up to the last that came.
    S : array, shape (rank,)
    Vh : array, shape (rank, n)
    info : StreamInfo
        ``error_estimate`` of ``||A - U diag(S) Vh||_F / ||A||_F``; ``residual`` is the part of it
        that truncation to ``rank`` explains.
    """

    U: Any
    S: Any
    Vh: Any
    info: StreamInfo

    def __iter__(self) -> Iterator[Any]:
        """``U, S, Vh``."""
        return iter((self.U, self.S, self.Vh))


class Parameters(NamedTuple):
    """What has to agree where sums are added."""

    m: int | None
    n: int
    rank: int
    k: int
    s: int
    sketch: str
    key: tuple[int, int]


def rounded(rows: int, sketch: str) -> int:
    """Rows that a sketch will have: whole blocks of a stack."""
    return rows if sketch == "Gaussian" or rows < 8 else -(-rows // 8) * 8


def quietly() -> Any:
    """Products that say nothing of NaN: who calls names the rows."""
    return _config.config_context(check_finite=False)


class Maps:
    """Upsilon (k, m), Omega (k, n), Phi (s, m), Psi (s, n), Theta (10, m): functions of the key."""

    def __init__(self, p: Parameters) -> None:
        source = Philox(type(Philox(0).key)(*p.key))

        def draw(rows: int, columns: int | None, stream: int) -> Sketch:
            if columns is not None and rows >= columns:
                return RowSample(np.arange(columns), 1.0, columns)
            own = source.spawn(stream)
            if p.sketch == "Gaussian":
                return Gaussian(rows, columns, rng=own)
            return SparseStack(rows, columns, nnz=min(8, rows), rng=own)

        self.upsilon = draw(p.k, p.m, _RANGE_ROWS)
        self.omega = draw(p.k, p.n, _RANGE_COLUMNS)
        self.phi = draw(p.s, p.m, _CORE_ROWS)
        self.psi = draw(p.s, p.n, _CORE_COLUMNS)
        self.theta = Gaussian(_CHECKS, None, rng=source.spawn(_ERROR))

    def sketched(self, rows: Any, begin: int, vh: Any = None) -> tuple[Any, ...]:
        """What rows, times vh if it is given, add to Y, X, Z and the error's sketch."""
        end = begin + rows.shape[0]
        with quietly():
            x, z, e = (t[:, begin:end] @ rows for t in (self.upsilon, self.phi, self.theta))
            if vh is None:
                return _right(rows, self.omega), x, _right(z, self.psi), e
            y, core = rows @ _right(vh, self.omega), z @ _right(vh, self.psi)
            return y, x @ vh, core, e @ vh


def _right(a: Any, s: Sketch) -> Any:
    """``a S^T``; not every library's arrays let another class answer."""
    return (s @ a.T).T


class Sums:
    """Y by pages of rows, X, Z, and the error's sketch; None and empty before the first rows."""

    def __init__(self, m: int | None) -> None:
        self.m = m
        self.pages: dict[int, Any] = {}
        self.whole: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        """Whether something was added."""
        return bool(self.whole)

    def arrays(self) -> list[Any]:
        """All of them."""
        return [*self.pages.values(), *self.whole]

    def add(self, terms: tuple[Any, ...], begin: int, sign: float = 1.0) -> None:
        """Add (or subtract) the sketches of rows that begin there."""
        y, *rest = terms if sign > 0 else [-x for x in terms]
        self.whole = _added(self.whole, tuple(rest))
        xp, at, end = _xp.namespace(y), begin, begin + y.shape[0]
        while at < end:
            page = at // _PAGE
            first = page * _PAGE
            size = _PAGE if self.m is None else min(_PAGE, self.m - first)
            stop = min(end, first + size)
            part, low, high = y[at - begin : stop - begin, :], at - first, stop - first
            mine = self.pages.get(page)
            if mine is None:
                mine = zeros(xp, y, (size, y.shape[1]))
            if hasattr(mine, "at"):  # JAX's cannot be written to
                mine = mine.at[low:high, :].add(part)
            else:
                mine[low:high, :] += part
            self.pages[page] = mine
            at = stop

    def scale(self, factor: float) -> None:
        """Multiply all of them."""
        self.pages = {i: factor * page for i, page in self.pages.items()}
        self.whole = tuple(factor * x for x in self.whole)

    def merge(self, other: "Sums") -> None:
        """Add those of other rows or terms."""
        self.whole = _added(self.whole, tuple(map(copied, other.whole)))
        for i, page in other.pages.items():
            self.pages[i] = self.pages[i] + page if i in self.pages else copied(page)

    def same(self, other: "Sums") -> bool:
        """Whether all bits are equal."""
        if self.pages.keys() != other.pages.keys() or len(self.whole) != len(other.whole):
            return False
        pairs = [(self.pages[i], other.pages[i]) for i in self.pages]
        pairs += list(zip(self.whole, other.whole, strict=True))
        return all(home(x) == home(y) and bool(_xp.namespace(x).all(x == y)) for x, y in pairs)

    def state(self) -> dict[str, Any]:
        """Copies by name."""
        names = ("corange", "core", "error")
        whole = dict.fromkeys(names) | dict(zip(names, map(copied, self.whole), strict=False))
        return {"range": {i: copied(page) for i, page in self.pages.items()}, **whole}

    def load(self, state: dict[str, Any]) -> None:
        """Take over copies of what `state` gave."""
        self.pages = {int(i): copied(page) for i, page in state["range"].items()}
        whole = tuple(copied(state[name]) for name in ("corange", "core", "error"))
        self.whole = () if whole[0] is None else whole

    def range(self, rows: int) -> Any:
        """Y, zeros where nothing came."""
        like, parts = self.whole[0], []
        width = next((page.shape[1] for page in self.pages.values()), 1)
        for first in range(0, rows, _PAGE):
            size = min(_PAGE, rows - first)
            page = self.pages.get(first // _PAGE)
            if page is None:
                page = zeros(_xp.namespace(like), like, (size, width))
            parts.append(page[:size, :])
        return parts[0] if len(parts) == 1 else _xp.namespace(like).concat(parts)


class Solved(NamedTuple):
    """A truncated decomposition, its error, the error's standard error, what was cut off."""

    u: Any
    s: Any
    vh: Any
    error: float
    spread: float
    dropped: float


def solved(maps: Maps, sums: Sums, rank: int, rows: int) -> Solved:
    """Algorithms 4 and 6 of the paper."""
    x, z, e = sums.whole
    xp = _xp.namespace(x)
    q, _ = _factor.qr(sums.range(rows))
    p, _ = _factor.qr(adjoint(xp, x))
    with quietly():
        left, right = maps.phi[:, :rows] @ q, maps.psi @ p
    # W = (Phi Q)^+ Z ((Psi P)^+)^H
    w = _least_squares(xp, left, z)
    w = adjoint(xp, _least_squares(xp, right, adjoint(xp, w)))
    u, s, vh = _factor.svd(w)
    dropped = norm(s[rank:]) if rank < s.shape[0] else 0.0
    u, s, vh = q @ u[:, :rank], s[:rank], vh[:rank, :] @ adjoint(xp, p)
    with quietly():
        seen = maps.theta[:, :rows] @ u
    defect = e - (seen * s[None, :]) @ vh
    # rows of the defect are independent, and their squares have the error's for their mean
    each = np.array([norm(defect[i, :]) for i in range(_CHECKS)]) * math.sqrt(_CHECKS)
    top = float(each.max())
    if top == 0:
        return Solved(u, s, vh, 0.0, 0.0, dropped)
    squares = (each / top) ** 2
    error = math.sqrt(squares.mean())
    spread = float(squares.std(ddof=1)) / math.sqrt(_CHECKS) / (2 * error)
    return Solved(u, s, vh, top * error, top * spread, dropped)


def nothing(sums: Sums, rank: int, rows: int, n: int) -> Solved:
    """NaN in place of a decomposition."""
    like = sums.whole[0]
    xp = _xp.namespace(like)
    u, s, vh = (
        xp.full_like(zeros(xp, like, shape), math.nan)
        for shape in ((rows, rank), (rank,), (rank, n))
    )
    return Solved(u, xp.abs(s), vh, math.nan, math.nan, math.nan)


def _least_squares(xp: Any, a: Any, b: Any) -> Any:
    """``a^+ b`` for a of full column rank, well conditioned as sketches of bases are."""
    q, r = _factor.qr(a)
    return _factor.solve(r, adjoint(xp, q) @ b)


def _added(mine: tuple[Any, ...], terms: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(mine, terms, strict=True)) if mine and terms else (
        mine or terms
    )  # fmt: skip


def home(x: Any) -> str:
    """The library and device whose arrays are added."""
    name = type(x).__module__.partition(".")[0]
    return name if isinstance(x, np.ndarray) else f"{name} on {getattr(x, 'device', 'cpu')}"


def copied(x: Any) -> Any:
    """A copy of an array, None of None."""
    if x is None:
        return None
    return x.copy() if hasattr(x, "copy") else _xp.namespace(x).asarray(x, copy=True)


def zeros(xp: Any, like: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of the dtype and on the device of ``like``."""
    return _xp.from_numpy(np.zeros(shape, _xp.dtype_name(like)), xp, like=like)


def union(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same rows as disjoint ascending ranges."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if begin == end:
            continue
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def silently() -> Any:
    """Infinities that meet are told of afterwards."""
    return np.errstate(over="ignore", invalid="ignore")


def floating_name(dtype: Any) -> str:
    """The name of a floating dtype."""
    name = str(dtype).rpartition(".")[2]
    name = name if name in _xp.REAL else np.dtype(dtype).name
    return str(_validate.choice("dtype", name, tuple(_xp.REAL)))


def entered(x: Any) -> tuple[Any, str]:
    """As it is computed with, JAX's of a CPU as NumPy's; the library to go back to."""
    face = _xp.face(x)
    assert face is not None
    if _xp.is_traced(x):
        msg = "block: StreamingSVD keeps values and cannot be traced; call it outside"
        raise TypeError(msg)
    if face.family == "jax" and all(d.platform == "cpu" for d in x.devices()):
        return np.asarray(x), "jax"
    return face.enter(x), face.family if face.family in ("torch", "jax") else ""
