"""Pieces of work on threads of our own, each with a BLAS of one thread."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from linalgk import _config


def mapped(
    work: Callable[..., Any], pieces: Sequence[tuple[int, ...]], *, threads: int
) -> Iterator[Any]:
    """``work(*piece)`` in order, by so many threads.

    Whoever adds what they return does it in the order of the pieces, whatever the number of
    threads.
    """
    if threads == 1:
        for piece in pieces:
            yield work(*piece)
        return
    with _config.serial_blas, ThreadPoolExecutor(threads) as pool:
        # a window, so that results do not pile up
        window = 4 * threads
        ahead = [pool.submit(work, *piece) for piece in pieces[:window]]
        for number in range(len(pieces)):
            yield ahead[number].result()
            ahead[number] = None  # type: ignore[call-overload]
            if number + window < len(pieces):
                ahead.append(pool.submit(work, *pieces[number + window]))
