"""Products with a dense random matrix that is made tile by tile and never stored.

A tile of the operator is made in cache, multiplied by BLAS and forgotten. Blocks of 2^14 data rows
are taken by whichever thread is free, and their sums are added in ascending order, so that the
result does not depend on the number of threads. Floor: 2 k n flops and k / 2 pairs of normals for
each data row.
"""

import threading

import numpy as np

from ._threads import run
from .sketch_philox import normal_tile, sign_tile

BLOCK = 1 << 14
# Data rows of a tile: enough for BLAS to run at its rate; for k = 512 in float64 they take 2 MB.
_WIDTH = 512
_SMALL = 1 << 20


class _Turns:
    """Work taken in order and handed in in order; a failure wakes whoever waits."""

    def __init__(self, count):
        self.count, self.taken, self.done = count, 0, 0
        self.failed = False
        self.condition = threading.Condition()

    def take(self):
        with self.condition:
            self.taken += 1
            return self.taken - 1

    def hand_in(self, item, action):
        with self.condition:
            self.condition.wait_for(lambda: self.done == item or self.failed)
            if not self.failed:
                action()
                self.done += 1
                self.condition.notify_all()

    def fail(self):
        with self.condition:
            self.failed = True
            self.condition.notify_all()


def _reals(x):
    """A real view (rows, columns) of contiguous data; complex numbers are two columns."""
    x = np.ascontiguousarray(x) if x.dtype.kind == "c" else x
    return x.view(x.real.dtype)


def dense_apply(a, k, normal, k0, k1, col, tag, threads, total=None):
    """``total`` plus the rows a (m, n) sketched: k rows, entries of variance one.

    normal : whether entries are normal, else signs.
    col : the number of the first data row.
    """
    m, n = a.shape
    make = normal_tile if normal else sign_tile
    result = np.zeros((k, n), a.dtype) if total is None else total
    out = result.view(result.real.dtype)
    starts = [0, *range(BLOCK - col % BLOCK, m, BLOCK)] if m else []
    turns = _Turns(len(starts))
    like = np.empty(0, out.dtype)

    def block(start, stop, tile):
        partial = np.zeros(out.shape, out.dtype)
        product = np.empty(out.shape, out.dtype)
        for at in range(start, stop, _WIDTH):
            width = min(_WIDTH, stop - at)
            piece = tile[: k * width].reshape(k, width)
            make(like, k, width, k0, k1, 0, col + at, tag, 1, piece)
            np.matmul(piece, _reals(a[at : at + width]), out=product)
            partial += product
        return partial

    # a thread has error states of its own: what overflows is for the caller to tell
    @np.errstate(over="ignore", invalid="ignore")
    def work(low, high):
        tile = np.empty(k * min(_WIDTH, m), out.dtype)
        try:
            while (item := turns.take()) < turns.count:
                stop = starts[item + 1] if item + 1 < turns.count else m
                partial = block(starts[item], stop, tile)
                turns.hand_in(item, lambda: np.add(out, partial, out=out))  # noqa: B023
        except BaseException:
            turns.fail()
            raise

    run(work, min(threads, turns.count) if m * k * n >= _SMALL else 1, threads)
    return result


def dense_gather(y, m, normal, k0, k1, col, tag, threads):
    """The transpose times y (k, n): rows (m, n) from number ``col`` on."""
    k, n = y.shape
    make = normal_tile if normal else sign_tile
    result = np.empty((m, n), y.dtype)
    out, source = result.view(result.real.dtype), _reals(y)
    like = np.empty(0, out.dtype)

    @np.errstate(over="ignore", invalid="ignore")
    def work(low, high):
        tile = np.empty(k * min(_WIDTH, m), out.dtype)
        for at in range(low * _WIDTH, min(high * _WIDTH, m), _WIDTH):
            width = min(_WIDTH, m - at)
            piece = tile[: k * width].reshape(k, width)
            make(like, k, width, k0, k1, 0, col + at, tag, 1, piece)
            np.matmul(piece.T, source, out=out[at : at + width])

    run(work, -(-m // _WIDTH), threads if m * k * n >= _SMALL else 1)
    return result
