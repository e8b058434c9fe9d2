"""Blocks of work that stay in a core's cache, and where results are put."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from linalgk import _config, _pieces, _validate, _xp
from linalgk.kronecker._door import HALF, Entered

# Entries of a block on the host, and how many times that in other libraries, which have a price
# for each call and caches of their own.
ENTRIES, ELSEWHERE = 1 << 18, 32


def entries(x: Any) -> int:
    """How many numbers a block may have."""
    return ENTRIES if isinstance(x, np.ndarray) else ELSEWHERE * ENTRIES


def ranges(count: int, each: int, room: int) -> list[tuple[int, int]]:
    """``range(count)`` in pieces of about ``room`` numbers where one has ``each``."""
    step = max(1, room // max(1, each))
    return [(i, min(i + step, count)) for i in range(0, count, step)]


def mapped(
    work: Callable[..., Any], pieces: Sequence[tuple[int, ...]], *, host: bool
) -> Iterator[Any]:
    """``work(*piece)`` in order.

    On the host many pieces are shared among threads, each with a BLAS of its own; whoever adds what
    they return does it in the order of the pieces, whatever the number of threads.
    """
    threads = _config.num_threads()
    few = not host or len(pieces) < 2 * threads
    yield from _pieces.mapped(work, pieces, threads=1 if few else threads)


def target(out: Any, given: Entered, named: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """A view of ``out`` that can be written to, if it fits the result of these arrays."""
    if given.face.family == "torch" and given.stored in HALF:
        # NumPy has no view of bfloat16; memory that is shared does no harm to what is copied
        plain = tuple(getattr(out, "shape", ())) == shape and _xp.face(out) is not None
        if not plain or _xp.dtype_name(out) != given.stored:
            msg = f"out: must be a {given.stored} tensor of shape {shape}"
            raise TypeError(msg)
        return out
    view = None
    for x in named.values():
        view = _validate.out(out, x, shape, given.stored)
    return view


def put(y: Any, view: Any, given: Entered) -> None:
    """Write a result to a target."""
    if y is view:
        return
    if given.face.family == "torch" and given.stored in HALF:
        view.copy_(given.leave(y))
    else:
        view[...] = y if y.dtype == view.dtype else _xp.namespace(y).astype(y, view.dtype)


def in_place(view: Any, given: Entered) -> Any:
    """The target where NumPy can compute straight into it, else None."""
    plain = isinstance(view, np.ndarray) and view.flags.c_contiguous
    return view if plain and given.stored == given.dtype else None


def place(x: Any) -> dict[str, Any]:
    """The device of an array, as its library takes it for new ones."""
    return {} if isinstance(x, np.ndarray) or _xp.is_traced(x) else {"device": x.device}
