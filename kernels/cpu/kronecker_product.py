"""Products with a Kronecker product, mode by mode, several modes in one sweep over memory.

A mode is a stack of small matrix products C = A B, and one microkernel does them all: entries of A
are broadcast, rows of B and C are vectors. Of a mode with numbers behind it, A is the factor and B
the data; of the last mode, whose numbers are contiguous, A is the data and B the factor transposed,
in panels of two vectors. A pass takes a group of neighbouring modes through two buffers that fit a
cache: a tile is all of the group times W of the numbers behind it. What a member gives depends
neither on the threads nor on its neighbours: every entry is one chain of additions over q.
Floor: 2 p operations for each number of each mode at two FMA units, and for each pass one read and
one write of memory.
"""

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from ._preset import helper, njit
from ._simd import BYTES, aligned, allocate, release
from ._threads import run
from ._tiles import ROWS, VECTORS, address, move, product

# --- A pass ---------------------------------------------------------------------------------------

# Columns of a table: of the pass, then of each of its stages.
STAGES, INNER, WIDTH, UNITS, OUTER, SIZE_IN, SIZE_OUT, SOURCE, TARGET = range(9)
BEFORE, Q, P, AFTER, FACTOR, KIND = range(6)
HEAD, STAGE = 9, 6
# What a stage does: the factor times data, data times the factor transposed, a copy.
MIDDLE, LAST, COPY = range(3)


@helper
def _stage(like, t, s, e, size, source, step, target, to, factor, count, w):
    """One mode of a tile: numbers ``step`` apart in the source, ``to`` apart in the target."""
    before, q, p, after = count * t[s + BEFORE], t[s + Q], t[s + P], t[s + AFTER]
    byte = e * size
    if t[s + KIND] == LAST:
        panel = VECTORS * BYTES // size
        product(like, source, q * e, e, factor, panel, q, target, p * e, before, p * e, q * panel)
    elif t[s + KIND] == COPY:
        for g in range(before * p * after):
            move(target + g * to * byte, source + g * step * byte, w * byte)
    elif step == w and to == w:
        for g in range(before):
            product(
                like, factor, q * e, e, source + g * q * after * w * byte, after * w * e, q,
                target + g * p * after * w * byte, after * w * e, p, after * w * e, 0,
            )  # fmt: skip
    else:
        for g in range(before):
            for h in range(after):
                product(
                    like, factor, q * e, e, source + (g * q * after + h) * step * byte,
                    after * step * e, q, target + (g * p * after + h) * to * byte, after * to * e,
                    p, w * e, 0,
                )  # fmt: skip


@helper
def _tiles(like, t, e, size, source, target, factors, first, second, start, stop):
    """Units ``start`` to ``stop`` of a pass."""
    a, width, each, outer = t[INNER], t[WIDTH], t[UNITS], t[OUTER]
    blocks = (a + width - 1) // width
    for u in range(start, stop):
        o, count, w0, w = u // blocks, 1, (u % blocks) * width, 0
        w = min(width, a - w0)
        if blocks == 1:
            o = u * each
            count = min(each, outer - o)
        here, step = source + (o * t[SIZE_IN] * a + w0) * e * size, a
        for i in range(t[STAGES]):
            s = HEAD + STAGE * i
            there, to = first if i % 2 == 0 else second, w
            if i == t[STAGES] - 1:
                there, to = target + (o * t[SIZE_OUT] * a + w0) * e * size, a
            _stage(
                like, t, s, e, size, here, step, there, to, factors + t[s + FACTOR] * size, count, w
            )
            here, step = there, to


@njit
def _sweep(like, table, plan, x, y, temporary, factors, tile, row0, row1, start, stop):
    """Passes of the table over rows; of a single one its units ``start`` to ``stop``.

    Rows have ``plan`` = reals of a number, bytes of a real, bytes of a row of x and of y, bytes of
    a temporary, rows of a set of factors, bytes of a set.
    """
    e, size = plan[0], plan[1]
    block = allocate(like, (2 * tile + 256) // (e * size) + 64)
    first = address(aligned(block))
    second = first + (tile + 63) // 64 * 64 + 64
    for r in range(row0, row1):
        own = factors + r // plan[5] * plan[6]
        places = (x + r * plan[2], y + r * plan[3], temporary, temporary + plan[4])
        for i in range(table.shape[0]):
            t = table[i]
            blocks = (t[INNER] + t[WIDTH] - 1) // t[WIDTH]
            units = blocks * t[OUTER] if blocks > 1 else (t[OUTER] + t[UNITS] - 1) // t[UNITS]
            u0, u1 = (start, stop) if stop else (0, units)
            _tiles(
                like, t, e, size, places[t[SOURCE]], places[t[TARGET]], own, first, second, u0, u1
            )
    release(block)


# --- The plan -------------------------------------------------------------------------------------

# Bytes of both buffers of a tile: half of a second-level cache; of rows that a thread keeps to
# itself; of a run of numbers that memory delivers well.
TILE, ROW, RUN = 1 << 19, 1 << 22, 512
# Cycles of a product that one thread does: to wake a second one takes some 40 us, and what passes
# from pass to pass changes caches with it.
ALONE, SHARED = 4e5, 2.5e6
# Factors that become one have at most that many rows.
MERGED = 64
LANES = {4: BYTES // 4, 8: BYTES // 8}


def _cost(p: int, q: int, lanes: int, last: bool) -> float:
    """Cycles for one vector of data that a mode takes in, as measured in cache (AVX-512)."""
    if not last:
        return 2.0 + 0.5 * p + p / q
    pairs, rest = divmod(p, VECTORS * lanes)
    vectors = VECTORS * pairs + -(-rest // lanes)
    return 3.0 + 0.5 * lanes * vectors * q / p + p / q


@functools.lru_cache(maxsize=1024)
def merging(shapes: tuple[tuple[int, int], ...], lanes: int, bare: bool) -> tuple[int, ...]:
    """How many neighbouring factors become one, in order: least cost of all modes.

    ``bare`` says that no numbers lie behind the last mode.
    """
    n = len(shapes)
    best = [0.0] + [math.inf] * n
    size = [1.0] * (n + 1)
    taken = [0] * (n + 1)
    for end in range(1, n + 1):
        p = q = 1
        for start in range(end - 1, -1, -1):
            p, q = p * shapes[start][0], q * shapes[start][1]
            if end - start > 1 and max(p, q) > MERGED:
                break
            cost = best[start] + size[start] * _cost(p, q, lanes, bare and end == n)
            if cost < best[end]:
                best[end], taken[end] = cost, end - start
                size[end] = size[start] * p / q
    counts = []
    while n:
        counts.append(taken[n])
        n -= taken[n]
    return tuple(reversed(counts))


class Plan(NamedTuple):
    """What products of given shapes do; see `planned`."""

    merged: tuple[int, ...]  # how many factors become one
    kinds: tuple[tuple[int, bool], ...]  # of each packed factor: which, whether it is in panels
    table: Any  # a row for each pass
    rows: int  # that are worked on one by one; 0 if threads share each pass
    tile: int  # bytes of a buffer
    temporary: int  # bytes of an intermediate result, 0 if none is needed
    packed: int  # reals of a packed set of factors
    threads: int
    operations: float


def _grouped(shapes, inner, each, budget):
    """Ranges of neighbouring modes for one pass, from the last on: as many as fit the budget."""
    groups, stop = [], len(shapes)
    while stop:
        start, behind = stop, inner * math.prod(max(s) for s in shapes[stop:])
        width = min(behind, max(RUN // each, 1))
        while start:
            tile = math.prod(max(s) for s in shapes[start - 1 : stop])
            if start < stop and 2 * tile * width * each > budget:
                break
            start -= 1
        groups.append((start, stop))
        stop = start
    return groups


def _urgency(shape, place):
    """Modes that shrink the data most go first, the last among equals."""
    p, q = shape
    return 1 / q - 1 / p, -place


@functools.lru_cache(maxsize=1024)
def planned(
    shapes: tuple[tuple[int, int], ...], b: int, sets: int, inner: int, e: int, size: int,
    threads: int,
) -> Plan:  # fmt: skip
    """For factors (p, q), b members of numbers with ``inner`` of them behind the last mode."""
    each, lanes = e * size, LANES[size]
    merged = merging(shapes, max(lanes // e, 1), inner == 1)
    ends = list(itertools.accumulate(merged))
    modes = [
        tuple(math.prod(s[i] for s in shapes[end - n : end]) for i in (0, 1))
        for n, end in zip(merged, ends, strict=True)
    ]
    largest = math.prod(max(m) for m in modes) * inner * each
    by_row = sets > 1 or (TILE < 2 * largest <= 2 * ROW and b >= 2 * threads)
    base = b // sets if sets > 1 else 1 if by_row else b
    # of a row that stays in the cache the tiles have to leave it there
    budget = TILE // 2 if by_row else TILE
    groups = _grouped(modes, inner, each, budget)
    groups.sort(key=lambda g: _urgency(_shape(modes[slice(*g)]), g[0]))
    now = [q for _, q in modes]
    final = inner * math.prod(p for p, _ in modes)
    cycles = _cycles(modes, b * inner * e / lanes, lanes, inner == 1)
    if cycles < (SHARED if len(groups) > 1 and not by_row else ALONE):
        threads = 1
    table, kinds, offset, tile, temporary, operations = [], [], 0, 0, 0, 0.0
    sizes = [inner * math.prod(now)]
    for start, stop in groups:
        a, outer = inner * math.prod(now[stop:]), base * math.prod(now[:start])
        cur = now[start:stop]
        stages, peak = [], math.prod(cur)
        for k in sorted(range(len(cur)), key=lambda k: _urgency(modes[start + k], k)):
            p, q = modes[start + k]
            panels = inner == 1 and start + k == len(modes) - 1
            stages.append([math.prod(cur[:k]), q, p, math.prod(cur[k + 1 :]), offset, int(panels)])
            kinds.append((start + k, panels))
            step = VECTORS * lanes
            offset += q * (-(-p * e // step) * step if panels else p * e)
            operations += 2.0 * math.prod(cur) * p * outer * a
            cur[k] = p
            peak = max(peak, math.prod(cur))
        before = math.prod(now[start:stop])
        now[start:stop] = cur
        sizes.append(inner * math.prod(now))
        width, units = _tiled(peak, a, outer, each, lanes // e, budget, 1 if by_row else threads)
        table.append(
            [
                len(stages),
                a,
                width,
                units,
                outer,
                before,
                math.prod(cur),
                0,
                0,
                *itertools.chain(*stages),
            ]
        )
        tile = max(tile, peak * width * units * each)
    place = 0
    for i, t in enumerate(table):
        t[SOURCE] = place
        alike = all(s == final for s in sizes[i + 1 :])
        place = 1 if alike else 2 + i % 2
        t[TARGET] = place
        if place > 1:
            temporary = max(temporary, sizes[i + 1] * base * each)
        alone = t[HEAD + KIND] == LAST or t[HEAD + P] > ROWS // e
        if t[SOURCE] == t[TARGET] and t[STAGES] == 1 and alone:
            _, q, p, _, _, _ = t[HEAD:]
            t += [1, q, p, 1, 0, COPY]
            t[STAGES] = 2
    wide = max(map(len, table))
    whole = np.array([t + [0] * (wide - len(t)) for t in table], np.int64)
    whole.flags.writeable = False
    rows = (sets if sets > 1 else b) if by_row else 0
    return Plan(
        merged, tuple(kinds), whole, rows, tile, temporary, offset, threads,
        operations * max(rows, 1),
    )  # fmt: skip


def _cycles(modes, count, lanes, bare):
    """Of all modes, for so many vectors of each entry of the data."""
    size, total = count * math.prod(q for _, q in modes), 0.0
    for i, (p, q) in enumerate(modes):
        total += size * _cost(p, q, lanes, bare and i == len(modes) - 1)
        size *= p / q
    return total


def _shape(modes):
    return tuple(math.prod(m[i] for m in modes) for i in (0, 1))


def _tiled(peak, a, outer, each, lanes, budget, threads):
    """Numbers of a tile behind the group's modes, and how many tiles are taken together."""
    most = budget // (2 * peak * each)
    if a <= max(most, RUN // each):
        return a, max(1, min(most // a, -(-outer // (4 * threads))))
    step = VECTORS * lanes
    width = max(most // step * step, RUN // each)
    blocks = -(-a // width)
    return min(width, -(-a // (blocks * step)) * step), 1


def _packed(plan, factors, dtype):
    """Sets of merged factors, one behind the other, as the stages read them."""
    e = 2 if dtype.kind == "c" else 1
    step = VECTORS * BYTES // (dtype.itemsize // e) // e
    wholes, at = [], 0
    for n in plan.merged:
        whole = factors[at]
        for f in factors[at + 1 : at + n]:
            c, p, q = whole.shape
            whole = whole[:, :, None, :, None] * f[:, None, :, None, :]
            whole = whole.reshape(c, p * f.shape[1], q * f.shape[2])
        wholes.append(whole)
        at += n
    flat = np.zeros((len(factors[0]), plan.packed // e), dtype)
    at = 0
    for mode, panels in plan.kinds:
        f = wholes[mode]
        c, p, q = f.shape
        if panels:
            count = -(-p // step)
            room = flat[:, at : at + count * q * step].reshape(c, count, q, step)
            for j in range(count):
                part = f[:, j * step : (j + 1) * step]
                room[:, j, :, : part.shape[1]] = part.transpose(0, 2, 1)
            at += count * q * step
        else:
            flat[:, at : at + p * q] = f.reshape(c, -1)
            at += p * q
    return flat


def kron_matmul(x, factors, threads=1, out=None):
    """As `linalgk.kronecker._ops.kron_matmul`, for contiguous arrays of one dtype."""
    dtype = x.dtype
    e = 2 if dtype.kind == "c" else 1
    size, (b, _, a) = dtype.itemsize // e, x.shape
    shapes = tuple(f.shape[1:] for f in factors)
    sets = len(factors[0])
    y = out
    if y is None:
        y = np.empty((b, math.prod(s[0] for s in shapes), a), dtype)
    if 1 < sets < threads:
        per = b // sets
        for i in range(sets):
            part = slice(i * per, (i + 1) * per)
            kron_matmul(x[part], tuple(f[i : i + 1] for f in factors), threads, y[part])
        return y
    plan = planned(shapes, b, sets, a, e, size, threads)
    threads = plan.threads
    flat = _packed(plan, factors, dtype)
    like, rows = _like(dtype), max(plan.rows, 1)
    per_set = 1 if sets > 1 else max(rows, 1)
    per_row = x.nbytes // rows, y.nbytes // rows
    set_bytes = flat.itemsize * (plan.packed // e)
    numbers = np.array([e, size, *per_row, plan.temporary, per_set, set_bytes], np.int64)
    places = x.ctypes.data, y.ctypes.data

    def sweep(table, row0, row1, start, stop, temporary):
        _sweep(
            like, table, numbers, *places, temporary, flat.ctypes.data, plan.tile, row0, row1,
            start, stop,
        )  # fmt: skip

    if plan.rows:

        def part(start, stop):
            room = np.empty(2 * plan.temporary, np.uint8)
            sweep(plan.table, start, stop, 0, 0, room.ctypes.data)

        run(part, plan.rows, threads)
        return y
    room = np.empty(2 * plan.temporary, np.uint8)
    if threads == 1:
        sweep(plan.table, 0, 1, 0, 0, room.ctypes.data)
        return y
    for i, t in enumerate(plan.table):
        blocks = -(-t[INNER] // t[WIDTH])
        units = blocks * t[OUTER] if blocks > 1 else -(-t[OUTER] // t[UNITS])
        table = plan.table[i : i + 1]
        run(
            lambda u, v, table=table: sweep(table, 0, 1, u, v, room.ctypes.data),
            int(units),
            threads,
        )
    return y


@functools.cache
def _like(dtype):
    return np.empty(0, dtype)


class Passes(NamedTuple):
    """What `kron_matmul` does, for those who ask."""

    operations: float
    traffic: float  # numbers read and written by all passes
    workspace: int  # bytes
    text: str


def passes(shapes, b, sets, inner, dtype, threads):
    """Of a product of these sizes."""
    dtype = np.dtype(dtype)
    e = 2 if dtype.kind == "c" else 1
    plan = planned(tuple(shapes), b, sets, inner, e, dtype.itemsize // e, threads)
    traffic, words = 0.0, []
    for t in plan.table:
        outer = int(t[INNER] * t[OUTER]) * max(plan.rows, 1)
        traffic += outer * float(t[SIZE_IN] + t[SIZE_OUT])
        stages = [t[HEAD + STAGE * i :][:STAGE] for i in range(t[STAGES])]
        words.append("·".join(f"{s[P]}x{s[Q]}" for s in stages if s[KIND] != COPY))
    if plan.rows:
        first, last = plan.table[0], plan.table[-1]
        traffic = float(plan.rows * first[SIZE_IN] * first[INNER] * first[OUTER])
        traffic += float(plan.rows * last[SIZE_OUT] * last[INNER] * last[OUTER])
    merged = [n for n in plan.merged if n > 1]
    text = f"{len(words)} pass{'es' if len(words) > 1 else ''} of modes {' | '.join(words)}"
    if plan.rows:
        text += ", row by row in cache"
    if merged:
        text += f"; {sum(merged)} factors multiplied out to {len(merged)}"
    room = 2 * threads * (plan.tile + 128) + 2 * plan.temporary * (threads if plan.rows else 1)
    return Passes(plan.operations, traffic, room + plan.packed * dtype.itemsize // e * sets, text)
