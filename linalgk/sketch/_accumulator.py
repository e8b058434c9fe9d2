"""Sums over blocks of rows: any order, any machine, the bits of the product at once."""

import sys
import warnings
from typing import Any, Self

import numpy as np

from linalgk import _config, _lag, _members, _validate, _xp
from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.sketch import _inputs

_Piece = tuple[int, int, Any]


class Accumulator:
    """The sketch of data rows that arrive in blocks, made by ``S.accumulator(d)``.

    Every block of 2^14 data rows (of a subsampled Hadamard sketch: of as many as it transforms) has
    a sum of its own, made when its last row has come; until then its rows are kept as they are.
    `result` adds these sums in ascending order. So neither the order of the blocks, nor how they
    were cut, nor where they were added changes a bit. Sums that follow each other from the first
    row on are added at once: rows in order need the memory of one result and one block; in any
    other order of k / 2^14 of the data.

    Attributes
    ----------
    sketch : Sketch
        The operator.
    shape : tuple
        (k, d), or (k,) for a vector.
    nbytes : int
        Memory of the sums and rows that are kept.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.random.default_rng(0).standard_normal((40_000, 3))
    >>> S = lk.sketch.SparseStack(64, 40_000, rng=0)
    >>> acc = S.accumulator(3)
    >>> for i in (30_000, 0, 20_000, 10_000):
    ...     acc = acc.update(a[i : i + 10_000], offset=i)
    >>> bool((acc.result() == S @ a).all())
    True
    """

    def __init__(self, sketch: Any, d: int | None, dtype: str | None = None) -> None:
        self.sketch = sketch
        self._d = None if d is None else _validate.integer("d", d, 0)
        self._dtype = dtype
        # the sum of the blocks before `_next`, sums of others, and rows of those not complete
        self._next = sketch._start // sketch._block
        # the first library of blocks that is not the one that computes
        self._library = ""
        self._total: Any = None
        self._sums: dict[int, Any] = {}
        self._rows: dict[int, list[_Piece]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        k = self.sketch.shape[0]
        return (k,) if self._d is None else (k, self._d)

    @property
    def nbytes(self) -> int:
        """Bytes of the sums and rows that are kept."""
        return sum(int(x.size * x.dtype.itemsize) for x in self._kept())

    def _kept(self) -> list[Any]:
        rows = [piece[2] for pieces in self._rows.values() for piece in pieces]
        return [*self._sums.values(), *rows, *([] if self._total is None else [self._total])]

    def _refuse_mixture(self, name: str, theirs: list[Any]) -> None:
        mine = self._kept()
        if mine and theirs and _home(mine[0]) != _home(theirs[0]):
            msg = f"{name}: is of {_home(theirs[0])} and the sum of {_home(mine[0])}; convert one"
            raise TypeError(msg)

    # infinities that meet are told of by `result`
    @np.errstate(over="ignore", invalid="ignore")
    def update(self, block: Any, /, *, offset: int) -> Self:
        """Add data rows.

        Parameters
        ----------
        block : array or sparse matrix, shape (rows, d) or (rows,)
            The rows, which are copied where they have to be kept.
        offset : int
            Number of the first of them among the data rows.

        Returns
        -------
        Accumulator
            Itself.

        Raises
        ------
        ValueError
            If rows lie outside the operator or have come before, or hold NaN or infinity (which
            ``on_fail`` of the context lets through).
        TypeError
            If they are of a wider dtype than the sum or of another library. In either case the sum
            is what it was.
        """
        offset = _validate.integer("offset", offset, 0)
        with _lag.scope(block):
            self._add_rows(block, offset)
        self._library = self._library or _library(block)
        return self

    def _add_rows(self, block: Any, offset: int) -> None:
        rows = self._checked(block, offset)
        begin, end = self.sketch._start + offset, self.sketch._start + offset + rows.shape[0]
        self._refuse_overlap(begin, end)
        self._refuse_mixture("block", [rows])
        size, at = self.sketch._block, begin
        while at < end:
            stop = min(end, (at // size + 1) * size)
            piece = rows[at - begin : stop - begin, :]
            self._put(at // size, [(at, stop, piece)])
            at = stop
        self._fold()

    def _checked(self, block: Any, offset: int) -> Any:
        """The rows as (rows, d), floating, in the library that computes."""
        sparse = _is_sparse(block)
        if sparse:
            array = block.reshape((-1, 1)) if block.ndim == 1 and self._d is None else block
        else:
            block = _xp.as_array("block", block)
            array = _inputs.entered(block)
            if array.ndim == 1 and self._d is None:
                array = _xp.namespace(array).reshape(array, (-1, 1))
        d = 1 if self._d is None else self._d
        if array.ndim != 2 or array.shape[1] != d:
            want = "(rows,)" if self._d is None else f"(rows, {d})"
            msg = f"block: must have shape {want}, got {tuple(block.shape)}"
            raise ValueError(msg)
        m = self.sketch.shape[1]
        if m is not None and offset + array.shape[0] > m:
            msg = (
                f"offset: rows {offset} to {offset + array.shape[0]} do not fit an operator with "
                f"{m} columns"
            )
            raise ValueError(msg)
        self.sketch._within("offset", offset + array.shape[0])
        if sparse:
            array = array.tocsr()
            dtype = self._settle(_inputs.dtype_in(self.sketch, array.dtype).name)
            array = array if array.dtype == dtype else array.astype(dtype)
            values = array.data
        else:
            array = _inputs.rows_of(self.sketch, array)
            xp, dtype = _xp.namespace(array), self._settle(_xp.dtype_name(array))
            values = array = xp.astype(array, _xp.dtype_of(xp, dtype), copy=False)
        self._refuse_nonfinite(values, offset, array.shape[0])
        return array

    def _refuse_nonfinite(self, values: Any, offset: int, rows: int) -> None:
        xp = _xp.namespace(values)
        config = _config.current()
        if not config.check_finite or config.on_fail == "nan":
            return
        if bool(xp.all(xp.isfinite(values))):
            return
        where = ""
        if values.ndim == 2:
            bad = ~_xp.to_numpy(xp.all(xp.isfinite(values), axis=0))
            where = f" in column {np.flatnonzero(bad)[0]}"
        msg = f"block: rows {offset} to {offset + rows} hold NaN or infinity{where}"
        if config.on_fail == "raise":
            raise NonFiniteError(msg)
        warnings.warn(msg, ConvergenceWarning, stacklevel=6)

    def _settle(self, dtype: str) -> str:
        """The dtype of the sums, if nothing of the rows is lost in it."""
        wanted = self._dtype or dtype
        if not np.can_cast(dtype, wanted, "safe"):
            msg = (
                f"block: is of {dtype} and the sum of {wanted}; convert one of them, the sum by "
                f"S.accumulator(d, dtype={dtype!r})"
            )
            raise TypeError(msg)
        return wanted

    def _refuse_overlap(self, begin: int, end: int) -> None:
        size = self.sketch._block
        for block in range(begin // size, -(-end // size)):
            low, high = self._range(block)
            low, high = max(begin, low), min(end, high)
            there = [(low, high)] if block < self._next or block in self._sums else []
            there += [(max(low, b), min(high, e)) for b, e, _ in self._rows.get(block, [])]
            for b, e in there:
                if b < e:
                    start = self.sketch._start
                    msg = (
                        f"offset: rows {begin - start} to {end - start} overlap rows {b - start} "
                        f"to {e - start}, which have come already"
                    )
                    raise ValueError(msg)

    def _range(self, block: int) -> tuple[int, float]:
        """The rows that a block has, counted as the stream counts."""
        size, start, m = self.sketch._block, self.sketch._start, self.sketch.shape[1]
        end = float("inf") if m is None else start + m
        return max(start, block * size), min(end, (block + 1) * size)

    def _put(self, block: int, pieces: list[_Piece]) -> None:
        """Rows of one block; its sum, if these were the last."""
        self._dtype = self._dtype or _xp.dtype_name(pieces[0][2])
        before = self._rows.pop(block, [])
        pieces = sorted([*before, *pieces], key=lambda piece: piece[0])
        low, high = self._range(block)
        if sum(e - b for b, e, _ in pieces) < high - low:
            # a view of the caller's array could change before the sum is made
            new = [
                p if any(p[2] is q[2] for q in before) else (*p[:2], _copy(p[2])) for p in pieces
            ]
            self._rows[block] = new
        else:
            self._sums[block] = self._sum(pieces)

    def _sum(self, pieces: list[_Piece]) -> Any:
        offset = pieces[0][0] - self.sketch._start
        if len(pieces) == 1:
            rows = pieces[0][2]
            add = self.sketch._add_sparse if _is_sparse(rows) else self.sketch._add
            return add(rows, offset, None, False)
        parts = [_dense(piece[2]) for piece in pieces]
        return self.sketch._add(_xp.namespace(parts[0]).concat(parts), offset, None, False)

    def _fold(self) -> None:
        while self._next in self._sums:
            part = self._sums.pop(self._next)
            self._total = part if self._total is None else self._total + part
            self._next += 1

    @np.errstate(over="ignore", invalid="ignore")
    def __iadd__(self, other: object) -> Self:
        """Add the rows of another accumulator of the same operator."""
        if not isinstance(other, Accumulator):
            return NotImplemented
        if other.sketch != self.sketch:
            msg = f"acc += other: the operators differ: {self.sketch!r} and {other.sketch!r}"
            raise ValueError(msg)
        types = {self._dtype, other._dtype} - {None}
        if other._d != self._d or len(types) > 1:
            msg = (
                f"acc += other: {self._d} columns of {self._dtype} and {other._d} of {other._dtype}"
            )
            raise ValueError(msg)
        for begin, end in other._ranges():
            self._refuse_overlap(begin, end)
        self._refuse_mixture("acc += other", other._kept())
        self._dtype = self._dtype or other._dtype
        self._library = self._library or other._library
        if other._total is not None:
            # only one of the two can have begun with the first block
            self._total, self._next = other._total, other._next
        self._sums |= other._sums
        for block, pieces in other._rows.items():
            self._put(block, pieces)
        self._fold()
        return self

    def __add__(self, other: object) -> "Accumulator":
        """The rows of both."""
        if not isinstance(other, Accumulator):
            return NotImplemented
        mine = Accumulator(self.sketch, self._d, self._dtype)
        mine += self
        mine += other
        return mine

    def _ranges(self) -> list[tuple[int, int]]:
        """Rows that have come, as the stream counts, ascending; neighbours not joined."""
        first = self.sketch._start // self.sketch._block
        blocks = [*range(first, self._next), *self._sums]
        whole = [self._range(block) for block in blocks]
        rest = [(b, e) for pieces in self._rows.values() for b, e, _ in pieces]
        return sorted((b, int(e)) for b, e in [*whole, *rest])

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Ranges of data rows that have not come; behind the last one if m is known."""
        start, m = self.sketch._start, self.sketch.shape[1]
        gaps, at = [], start
        for begin, end in self._ranges():
            if begin > at:
                gaps.append((at - start, begin - start))
            at = end
        if m is not None and at < start + m:
            gaps.append((at - start, m))
        return gaps

    @np.errstate(over="ignore", invalid="ignore")
    def result(self, *, partial: bool = False) -> Any:
        """The sketch of the rows that came.

        Parameters
        ----------
        partial : bool, default False
            Whether rows may be missing, which then count as zeros.

        Returns
        -------
        array, shape (k, d) or (k,)

        Raises
        ------
        ValueError
            If rows are missing and may not be, or their sum is not finite.
        """
        gaps = self.missing
        if gaps and not partial:
            some = ", ".join(f"{b} to {e}" for b, e in gaps[:3]) + (", ..." if gaps[3:] else "")
            msg = f"result: rows {some} have not come; result(partial=True) takes them as zeros"
            raise ValueError(msg)
        total = None if self._total is None else _copy(self._total)
        for block in sorted({*self._sums, *self._rows}):
            part = self._sums[block] if block in self._sums else self._incomplete(block)
            total = _copy(part) if total is None else total + part
        d = 1 if self._d is None else self._d
        none = np.zeros((0, d), self._dtype or "float64") if total is None else total[:0, :]
        total = _inputs.checked(self.sketch._add(none, 0, total, True), "result: a block")
        total = total[:, 0] if self._d is None else total
        if self._library == "jax":
            return sys.modules["jax"].numpy.asarray(total)
        return _xp._torch_leave(total, None) if self._library == "torch" else total

    def _incomplete(self, block: int) -> Any:
        """The sum of what has come of a block, zeros between."""
        pieces = self._rows[block]
        filled, at = [], pieces[0][0]
        for begin, end, rows in pieces:
            dense = _dense(rows)
            if begin > at:
                xp = _xp.namespace(dense)
                gap = xp.zeros_like(dense[:1, :])
                filled.append((at, begin, xp.concat([gap] * (begin - at))))
            filled.append((begin, end, dense))
            at = end
        return self._sum(filled)

    def state_dict(self) -> dict[str, Any]:
        """All that is kept, as plain arrays and numbers."""
        rows = [(block, *piece) for block, pieces in self._rows.items() for piece in pieces]
        return {
            "operator": self._operator(),
            "next": self._next,
            "total": self._total,
            "sums": dict(self._sums),
            "rows": [(block, b, e, _dense(x)) for block, b, e, x in rows],
            "dtype": self._dtype,
            "library": self._library,
        }

    def _operator(self) -> dict[str, Any]:
        """What tells the operator from others, as plain numbers."""
        key = [int(x) for x in self.sketch.key]
        more = {"kind": type(self.sketch).__name__, "key": key, "d": self._d}
        return {**more, **self.sketch._state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` of an accumulator of the same operator gave."""
        mine = self._operator()
        for name, value in state["operator"].items():
            if mine.get(name) != value:
                msg = f"state: is of a sketch with {name} = {value}, not {mine.get(name)}"
                raise ValueError(msg)
        self._next, self._total, self._dtype = state["next"], state["total"], state["dtype"]
        self._library = state["library"]
        self._sums, self._rows = dict(state["sums"]), {}
        for block, begin, end, x in state["rows"]:
            self._rows.setdefault(block, []).append((begin, end, x))

    def __repr__(self) -> str:
        """How much has come."""
        count = sum(e - b for b, e in self._ranges())
        return f"Accumulator({self.sketch!r}, d={self._d}, {count} rows)"


def _is_sparse(x: Any) -> bool:
    return _members.is_sparse(x) or _members.is_cupyx(x)


def _library(block: Any) -> str:
    mine = _xp.face(block)
    return mine.family if mine is not None and mine.family in ("torch", "jax") else ""


def _home(x: Any) -> str:
    """The library whose arrays are added."""
    return type(x.data if _is_sparse(x) else x).__module__.partition(".")[0]


def _dense(x: Any) -> Any:
    return x.toarray() if _is_sparse(x) else x


def _copy(x: Any) -> Any:
    return x.copy() if hasattr(x, "copy") else _xp.namespace(x).asarray(x, copy=True)
