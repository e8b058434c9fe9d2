"""Tucker decompositions of tensors that are read slab by slab along their first axis.

Two passes where the slabs can be read again: Gram matrices (or triangles, for tolerances that need
them) of modes 2 to d, then the slabs projected on their leading vectors, which are decomposed in
memory; a third one measures errors too small to be told from norms. One pass of an iterator.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import adjoint
from linalgk.errors import NonFiniteError
from linalgk.sketch import RowBlocks
from linalgk.tensor import _hooi, _sketched, _unfold

# Bytes of a slab of an array that lies in a file or in memory.
_SLAB = 1 << 25
# Part of the squared tolerance that the first pass may spend on modes 2 to d.
_OUTER = 0.02


def is_source(x: Any) -> bool:
    """Whether x is read slab by slab: a file's array, blocks, a callable or an iterator."""
    if isinstance(x, np.memmap | RowBlocks):
        return True
    if _xp.face(x) is not None or isinstance(x, np.ma.MaskedArray | str | bytes):
        return False
    if isinstance(x, list | tuple):
        return bool(x) and all(_is_slab(item) for item in x)
    return callable(x) or hasattr(x, "__next__")


def _is_slab(x: Any) -> bool:
    return _xp.face(x) is not None and not isinstance(x, np.generic) and x.ndim > 0


class Source:
    """Slabs (b, n_2, ..., n_d), read from the first row to the last as often as it is iterated.

    Attributes
    ----------
    once : bool
        Whether it can be read once only.
    turned : bool
        Whether the modes come in reverse order, as a file in Fortran's order is read.
    passes : int
        How often it was read.
    shape, dtype
        Known after the first slab, the number of rows after the first pass.
    """

    def __init__(self, x: Any) -> None:
        self.passes, self.turned = 0, False
        self.rows = 0
        self.rest: tuple[int, ...] | None = None
        self.dtype: Any = None
        self._open: Callable[[], Any]
        if isinstance(x, np.ndarray):
            self.turned = x.flags.f_contiguous and not x.flags.c_contiguous
            view = np.asarray(x).T if self.turned else np.asarray(x)
            self.once, self._open = False, lambda: _slabs(view)
        else:
            once = x.once if isinstance(x, RowBlocks) else hasattr(x, "__next__")
            self.once, self._open = once, x if callable(x) else lambda: iter(x)

    @property
    def shape(self) -> tuple[int, ...]:
        """As far as it was read."""
        return (self.rows, *(self.rest or ()))

    def __iter__(self) -> Iterator[Any]:
        """The slabs as NumPy arrays of one floating dtype."""
        if self.once and self.passes:
            msg = "x: the iterator has been read; pass a callable that returns one"
            raise RuntimeError(msg)
        self.passes += 1
        rows = 0
        for number, item in enumerate(self._open()):
            slab = self._checked(item, number)
            rows += slab.shape[0]
            if slab.shape[0]:
                yield slab
        if self.passes > 1 and rows != self.rows:
            msg = f"x: the slabs had {self.rows} rows at first and {rows} when read again"
            raise ValueError(msg)
        self.rows = rows
        if self.rest is None:
            msg = "x: there are no slabs"
            raise ValueError(msg)

    def _checked(self, item: Any, number: int) -> Any:
        face = _xp.face(item)
        if face is None:
            msg = (
                f"x: slab {number} must be an array (rows, n_2, ..., n_d), "
                f"got {type(item).__name__}"
            )
            raise TypeError(msg)
        slab = np.asarray(item) if face.family == "jax" else _xp.to_numpy(face.enter(item))
        slab = _validate.floating(f"x: slab {number}", slab)
        if slab.ndim < 2 or (self.rest is not None and slab.shape[1:] != self.rest):
            want = "(rows, n_2, ...)" if self.rest is None else ("rows", *self.rest)
            msg = f"x: slab {number} must have shape {want}, got {slab.shape}"
            raise ValueError(msg)
        self.rest = slab.shape[1:]
        if self.dtype is None:
            self.dtype = slab.dtype
        elif not np.can_cast(slab.dtype, self.dtype):
            msg = f"x: slab {number} has dtype {slab.dtype}, those before it {self.dtype}"
            raise TypeError(msg)
        return np.ascontiguousarray(slab, dtype=self.dtype)


def _slabs(x: Any) -> Iterator[Any]:
    step = max(1, _SLAB // max(1, x[:1].nbytes))
    return (x[i : i + step] for i in range(0, x.shape[0], step))


class Read(NamedTuple):
    """A decomposition of what was read."""

    core: Any
    factors: tuple[Any, ...]
    error: float
    method: str
    iterations: int


# --- Several passes ------------------------------------------------------------------------------


class _Modes:
    """What the first pass keeps of modes 2 to d."""

    def __init__(self, source: Source, exact: bool) -> None:
        self.square, self.exact = 0.0, exact
        kept: list[Any] = []
        for slab in source:
            self.square += _unfold.squared_norm(slab)
            _finite(self.square)
            read = _unfold.triangle if exact else _unfold.gram
            parts = [read(slab, mode) for mode in range(1, slab.ndim)]
            kept = parts if not kept else list(map(self._joined, kept, parts))
        self.kept = kept

    def _joined(self, old: Any, new: Any) -> Any:
        if not self.exact:
            return old + new
        # a triangle is an unfolding, too
        both = np.concatenate([old, new], axis=1)
        return both if both.shape[1] <= both.shape[0] else _unfold.triangle(both, 0)

    def leading(self, ranks: Sequence[int] | None, budget: float | None) -> tuple[Any, float]:
        """Vectors of every mode, and the sum of the squares left out."""
        found, spent = [], 0.0
        share = None if budget is None else budget / max(len(self.kept), 1)
        for k, kept in enumerate(self.kept):
            rank = None if ranks is None else ranks[k]
            basis = _unfold.of_parts(kept, exact=self.exact, rank=rank, budget=share)
            found.append(basis.vectors)
            spent += basis.tail
        return found, spent


def decompose(
    source: Source, *, tol: float | None, ranks: int | Sequence[int] | None, rng: Any,
) -> Read:  # fmt: skip
    """In two or three passes, or in one where there is no other."""
    if source.once:
        if ranks is None:
            msg = (
                "tol: slabs that can be read once need ranks=; for a tolerance pass a callable "
                "that returns an iterator of the slabs"
            )
            raise ValueError(msg)
        return _once(source, ranks, rng)
    if ranks is not None:
        return _by_ranks(source, ranks)
    assert tol is not None
    best: Read | None = None
    for share, exact in ((1.0, tol < 3e-6), (0.6, True)):
        found = _by_tolerance(source, tol, share, exact)
        best = found if best is None or found.error <= best.error else best
        if best.error <= tol:
            break
    assert best is not None
    return best


def _by_tolerance(source: Source, tol: float, share: float, exact: bool) -> Read:
    modes = _Modes(source, exact)
    eps = float(np.finfo(source.dtype).eps)
    whole = share * max(tol**2 - (8 * eps) ** 2, tol**2 / 4) * modes.square
    vectors, spent = modes.leading(None, _OUTER * whole)
    y = _projected(source, vectors)
    lost = modes.square - _unfold.squared_norm(y)
    # the tails bound what was lost, and are sharper where norms cannot tell
    lost = lost if lost > _unfold.close(y) * modes.square else spent
    inner = _unfold.st_hosvd(y, budget=max(whole - lost, 0.0), method="lq" if exact else "auto")
    return _finished(source, modes.square, vectors, inner.core, inner.factors, 0)


def _by_ranks(source: Source, ranks: int | Sequence[int]) -> Read:
    modes = _Modes(source, False)
    ranks = _for_all(ranks, len(source.shape))
    ranks = [min(r, n) for r, n in zip(ranks, source.shape, strict=True)]
    more = [min(2 * r + 4, n) for r, n in zip(ranks[1:], source.shape[1:], strict=True)]
    vectors, _ = modes.leading(more, None)
    y = _projected(source, vectors)
    # modes 2 to d were chosen without regard to each other
    inner = _hooi.hooi(y, modes.square, ranks=ranks, max_iter=10)
    return _finished(source, modes.square, vectors, inner.core, inner.factors, inner.iterations)


def _projected(source: Source, vectors: Sequence[Any]) -> Any:
    parts = []
    for slab in source:
        y = slab
        for k, u in enumerate(vectors):
            y = _unfold.mode_product(y, adjoint(np, u.astype(slab.dtype, copy=False)), k + 1)
        parts.append(y)
    return np.concatenate(parts)


def _finished(
    source: Source, square: float, vectors: Sequence[Any], core: Any, inner: Sequence[Any],
    iterations: int,
) -> Read:  # fmt: skip
    outer = (u.astype(source.dtype, copy=False) for u in vectors)
    factors = (inner[0], *(u @ v for u, v in zip(outer, inner[1:], strict=True)))
    error = math.sqrt(_left(source, square, core, factors) / square) if square else 0.0
    return Read(core, factors, error, "streaming", iterations)


def _left(source: Source, square: float, core: Any, factors: Sequence[Any]) -> float:
    """Squared error, from one more pass where norms cannot tell."""
    left = square - _unfold.squared_norm(core)
    if left > _unfold.close(core) * square:
        return left
    start, total = 0, 0.0
    for slab in source:
        stop = start + slab.shape[0]
        total += _unfold.squared_residual(slab, core, (factors[0][start:stop], *factors[1:]))
        start = stop
    return total


def _finite(square: float) -> None:
    if not math.isfinite(square):
        msg = "x: holds NaN or infinity, or numbers whose squares overflow; remove or scale them"
        raise NonFiniteError(msg)


def _for_all(ranks: int | Sequence[int], d: int) -> list[int]:
    """A rank for each mode."""
    if isinstance(ranks, int):
        return [ranks] * d
    if len(ranks) != d:
        msg = f"ranks: must be a number or one for each of {d} modes, got {len(ranks)}"
        raise ValueError(msg)
    return list(ranks)


# --- One pass ------------------------------------------------------------------------------------


def _once(source: Source, ranks: int | Sequence[int], rng: Any) -> Read:
    sketch = None
    for slab in source:
        if sketch is None:
            ranks = _for_all(ranks, slab.ndim)
            sketch = _sketched.Sketch(slab.shape[1:], ranks, slab.dtype, rng)
        sketch.update(slab)
    if sketch is None:
        msg = "x: the slabs hold no rows"
        raise ValueError(msg)
    _finite(sketch.square)
    found = sketch.result()
    return Read(found.core, found.factors, found.error, "one_pass", 0)
