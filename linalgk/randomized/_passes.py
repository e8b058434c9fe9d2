"""Low-rank factors of a tall matrix that is read in passes: a sketch, Gram steps, a last product.

What a block of rows adds to a pass is small (a sum of sketches, ``A_i^H A_i V``, a triangle), so
that the blocks can be anywhere; parts are merged in an order that depends on the blocks alone.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._members import adjoint, is_cupyx, is_sparse
from linalgk.randomized import _factor
from linalgk.randomized._matrix import norm
from linalgk.randomized._range import NotFiniteError, Plan, Ritz, extend, lengths, select
from linalgk.sketch import Philox, RowBlocks, SparseStack

# Entries that are made dense or subtracted at once.
_ENTRIES = 1 << 19
_NNZ = 8


class Part(NamedTuple):
    """What blocks of rows contribute to a pass."""

    rows: int = 0
    sums: Any = None  # S A, of these rows
    gram: Any = None  # sum of A_i^H A_i V
    triangle: Any = None  # R of A V
    outside: float = 0.0  # ||A - A V V^H||_F
    size: float = 0.0  # ||A||_F
    images: tuple[Any, ...] = ()  # A_i V, where they are kept


class Reader(Protocol):
    """Data in blocks of rows."""

    n: int | None
    """Columns; None until the first pass where they are not known."""
    kept: bool
    """Whether products with all rows are kept, so that U can be made of them."""

    @property
    def passes(self) -> int:
        """Reads so far."""

    def total(self, work: Callable[..., Part], *args: Any) -> Part:
        """The merged parts of one pass: ``work(block, offset, *args)``."""


class Done(NamedTuple):
    """U where products were kept, else the factor (n, rank) that A is multiplied with."""

    u: Any
    turn: Any
    s: Any
    vh: Any
    error: float
    method: str


# --- What a block contributes --------------------------------------------------------------------


def matrix_of(block: Any) -> Any:
    """A block as NumPy's array or SciPy's CSR matrix, floating."""
    if is_sparse(block) or is_cupyx(block):
        block = (block.get() if is_cupyx(block) else block).tocsr()
        kind = _validate.floating("a", block.data[:0]).dtype
        return block if block.dtype == kind else block.astype(kind)
    face = _xp.face(block)
    array = block if face is None else face.enter(block)
    return _validate.floating("a", np.asarray(_xp.to_numpy(array)))


def sketched(block: Any, offset: int, sketch: Any) -> Part:
    """Sums of the sketch."""
    block = matrix_of(block)
    with _config.config_context(check_finite=False):
        # an accumulator would keep rows until 2^14 have come
        sums = sketch[:, offset : offset + block.shape[0]] @ block
    return Part(block.shape[0], np.asarray(sums))


def stepped(block: Any, offset: int, v: Any, scale: float) -> Part:
    """``A_i^H A_i V`` in double precision."""
    del offset
    block = matrix_of(block)
    y = block @ v * scale
    return Part(block.shape[0], gram=_double(_adjoint_times(block, y)) * scale)


def finished(block: Any, offset: int, v: Any, scale: float, keep: bool) -> Part:
    """The product with V, its triangle, and what it leaves of the block."""
    del offset
    block = matrix_of(block)
    y = np.asarray(block @ v) * np.asarray(scale, v.dtype)
    back, outside, size = adjoint(np, v), 0.0, 0.0
    step = max(1, _ENTRIES // max(1, block.shape[1]))
    for i in range(0, block.shape[0], step):
        piece = block[i : i + step]
        piece = np.asarray(piece.toarray() if is_sparse(piece) else piece) * np.asarray(
            scale, v.dtype
        )
        size = math.hypot(size, norm(piece))
        outside = math.hypot(outside, norm(piece - y[i : i + step] @ back))
    if keep:
        return Part(block.shape[0], outside=outside, size=size, images=(y,))
    return Part(block.shape[0], triangle=_factor.triangle(_double(y)), outside=outside, size=size)


def _double(x: Any) -> Any:
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _adjoint_times(block: Any, y: Any) -> Any:
    if not np.iscomplexobj(block):
        return np.asarray(block.T @ y)
    return np.conj(np.asarray(block.T @ np.conj(y)))


def merged(*parts: Part) -> Part:
    """The rows of all parts."""
    total = parts[0]
    for part in parts[1:]:
        r = total.triangle
        if r is not None:
            r = _factor.triangle(np.concatenate([r, part.triangle]))
        total = Part(
            total.rows + part.rows,
            None if total.sums is None else total.sums + part.sums,
            None if total.gram is None else total.gram + part.gram,
            r,
            math.hypot(total.outside, part.outside),
            math.hypot(total.size, part.size),
            total.images + part.images,
        )
    return total


# --- Blocks of an iterator -----------------------------------------------------------------------


class BlockReader:
    """`RowBlocks`, one after the other."""

    kept = True

    def __init__(self, blocks: RowBlocks) -> None:
        self._blocks = blocks
        self._before = blocks.passes
        self.n = blocks.shape[1]
        self.rows = 0

    @property
    def passes(self) -> int:
        """Reads so far."""
        return self._blocks.passes - self._before

    def total(self, work: Callable[..., Part], *args: Any) -> Part:
        """One pass."""
        offset, found = 0, None
        for block in self._blocks:
            matrix = block[0] if isinstance(block, tuple) else block
            part = work(matrix, offset, *args)
            offset += part.rows
            found = part if found is None else merged(found, part)
        self.n, self.rows = self._blocks.shape[1], offset
        if found is None:
            if self.n is None:
                msg = "a: there are no blocks and no shape=(m, n) that says how many columns"
                raise ValueError(msg)
            dtype = self._blocks.dtype or np.float64
            found = work(np.zeros((0, self.n), dtype), 0, *args)
        return found

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Offsets and blocks of one pass."""
        offset = 0
        for block in self._blocks:
            matrix = matrix_of(block[0] if isinstance(block, tuple) else block)
            yield offset, matrix
            offset += matrix.shape[0]


# --- The algorithm -------------------------------------------------------------------------------


def lowrank(reader: Reader, plan: Plan, seed: Philox) -> Done:
    """A sketch of the rows, Gram steps of a block Krylov space, a last product with V."""
    rank = plan.rank
    if plan.tol is not None:
        return _grown(reader, plan, seed)
    assert rank is not None
    most = plan.passes or 2
    width = rank + plan.oversample
    width = 2 * width if most == 2 else width
    v, scale = _start(reader, width, seed, 1, rank)
    block = v
    while reader.passes + 2 <= most and v.shape[1] < v.shape[0]:
        gram = reader.total(stepped, block, scale).gram
        # products with approximate singular vectors have the size of s_i^2, not of their rounding
        size = lengths(np, gram)
        gram = gram / np.maximum(size, np.finfo(v.dtype).eps * max(norm(gram), 1e-300))
        block = extend(np, v, gram.astype(v.dtype), 1.0)
        if not block.shape[1]:
            break
        v = np.concatenate([v, block], axis=1)
    return _last(reader, v, scale, plan)


def _start(reader: Reader, width: int, seed: Philox, stream: int, rank: int) -> tuple[Any, float]:
    """V from the sketch of all rows, and a power of two that makes the numbers harmless."""
    n = reader.n
    width = width if n is None else min(width, n)
    times = 4 if 4 * width * (n or 0) <= 1 << 26 else 2
    k = -(-times * width // _NNZ) * _NNZ
    found = reader.total(sketched, SparseStack(k, None, nnz=_NNZ, rng=seed.spawn(stream)))
    rows, n = found.sums, int(found.sums.shape[1])
    if rank > min(found.rows, n):
        msg = f"rank: must be at most min(m, n) = {min(found.rows, n)}, got {rank}"
        raise ValueError(msg)
    top = float(np.max(np.abs(rows))) if rows.size else 0.0
    if not math.isfinite(top):
        raise NotFiniteError
    low = 1e-12 if rows.real.dtype == np.float32 else 1e-100
    scale = 1.0 if low < top < 1 / low or top == 0 else 2.0 ** -math.frexp(top)[1]
    if width >= n:
        return np.eye(n, dtype=rows.dtype), scale
    return select(np, rows * rows.real.dtype.type(scale), width), scale


def _last(reader: Reader, v: Any, scale: float, plan: Plan) -> Done:
    part = reader.total(finished, v, scale, reader.kept)
    if not math.isfinite(part.size):
        raise NotFiniteError
    eps = float(np.finfo(v.dtype).eps)
    if reader.kept:
        ritz = Ritz(np, np.concatenate(part.images), final=True)
        s, wh = ritz.s, ritz.wh
    else:
        _, s, wh = _factor.svd(part.triangle)
    rank = _rank(s, part, plan)
    values = (s[:rank] / scale).astype(v.real.dtype)
    vh = (wh[:rank] @ adjoint(np, v)).astype(v.dtype)
    u = turn = None
    if reader.kept:
        u = ritz.left(rank)
    else:
        # what is rounding has no left vector
        large = s[:rank] > eps * (s[0] if len(s) else 0.0)
        inverse = np.where(large, scale / np.where(large, s[:rank], 1.0), 0.0)
        turn = (adjoint(np, vh) * inverse).astype(v.dtype)
    lost = math.hypot(part.outside, float(np.linalg.norm(s[rank:])))
    error = math.hypot(lost / part.size, eps) if part.size else 0.0
    return Done(u, turn, values, vh, error, plan.method)


def _rank(s: Any, part: Part, plan: Plan) -> int:
    if plan.tol is None:
        assert plan.rank is not None
        return plan.rank
    lost = np.sqrt(np.append(np.cumsum(np.asarray(s, float)[::-1] ** 2)[::-1], 0) + part.outside**2)
    enough = np.flatnonzero(lost <= plan.tol * part.size)
    rank = int(enough[0]) if len(enough) else len(s)
    return rank if plan.rank is None else min(rank, plan.rank)


def _grown(reader: Reader, plan: Plan, seed: Philox) -> Done:
    """Rounds of two passes, with twice as many columns until the error is small enough."""
    width, stream = 64, 1
    while True:
        v, scale = _start(reader, width, seed, stream, plan.rank or 0)
        eps = float(np.finfo(v.dtype).eps)
        if float(plan.tol or 0) < 64 * eps:
            msg = f"tol: must be at least 64 eps = {64 * eps:.3g} for {v.dtype}, got {plan.tol:g}"
            raise ValueError(msg)
        most = v.shape[0]
        if plan.rank is not None:
            most = min(most, 2 * (plan.rank + plan.oversample))
        done = _last(reader, v, scale, plan)
        more = plan.passes is None or reader.passes + 2 <= plan.passes
        if done.error <= max(float(plan.tol or 0), 0.0) or width >= most or not more:
            return done
        width, stream = min(most, 2 * width), stream + 1
