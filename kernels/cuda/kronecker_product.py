"""Products with Kronecker products: groups of factors by tiles, large ones by blocks or cuBLAS.

Neighbouring small factors are multiplied out while that is cheaper, a launch takes as many of them
as a tile has room for, and each launch reads and writes the array once. What a member gives depends
neither on the batch nor on how many members or columns share a tile: the launches follow from the
factors and the columns of a member alone.

The model, for an H200 (not measured yet): 4.8 TB/s of memory; 33 TB/s of shared memory, of which
half arrives; 67 TFLOP/s in either precision (float64 on tensor cores), of which half is reached.
8^8 numbers in float32 take three launches, of 4, 2 and 2 factors: for each number 5.0 ps of memory,
3.8 of multiplications and 4.0 of shared memory, which hide behind each other in part. 128
operations in 5 to 7 ps are 18 to 25 TFLOP/s. 8^6 numbers in float64 take two launches: 6.7 ps of
memory, 2.8 and 6.0 of the others, 96 operations at 10 to 14 TFLOP/s.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from . import (
    C_TYPES,
    PLANES,
    SIZES,
    Variant,
    backend,
    constant,
    dtype_name,
    grid,
    launch,
    limits,
)

# Whether products run on tensor cores. Those of float take three terms of halves of 11 bits, which
# is as exact as chains of multiply-adds, but NaN for infinities and beyond 2^127.
TENSOR_CORES = {"float": 0, "double": 1}
# Factors of a launch, and rows or columns of what several small ones are multiplied out to.
FACTORS, MERGED = 12, 16
# Rows or columns beyond this go alone, beyond the other one to cuBLAS.
LARGEST, BLAS = 64, 128
# Warps of a block: for two blocks on a multiprocessor, and at most.
WARPS, MOST_WARPS = 8, 16
# Indices within a tile are divided by multiplication.
MOST_NUMBERS = 1 << 16
# Multiply-adds and bytes a second, see above; a warp's addresses have 128 bytes side by side.
FMA, SHARED, MEMORY, LINE = 17e12, 16e12, 4.8e12, 128


class Kind(NamedTuple):
    """What all kernels of a call have in common."""

    planes: int
    size: int
    tensor: int


class Stage(NamedTuple):
    """Neighbouring factors that are multiplied out."""

    first: int
    factors: int
    p: int
    q: int


class Tile(NamedTuple):
    """Members, or columns of one member, that a block has at a time."""

    together: int
    width: int


class Step(NamedTuple):
    """A launch: stages from the last factor to the first, for x (before, q, after)."""

    stages: tuple[Stage, ...]
    tile: Tile | None
    table: np.ndarray | None
    first: int
    factors: int
    before: int
    p: int
    q: int
    after: int

    @property
    def in_place(self):
        """Whether a tile goes where it came from."""
        return self.tile is not None and self.p == self.q


def _rounded(n, unit):
    return -(-n // unit) * unit


def _rows(stage, kind):
    """Rows in whole tiles of eight, and those that a warp takes."""
    rows = _rounded(stage.p * kind.planes, 8)
    return rows, 16 if kind.tensor and rows % 16 == 0 else 8


def _columns(stage, kind):
    return _rounded(stage.q * kind.planes, 8 if kind.tensor else 1)


# --- Tiles ---------------------------------------------------------------------------------------


def place(e, size):
    """Where number e of a tile stands, as in the source."""
    chunk = 16 // size
    line = e // (8 * chunk)
    return e + (line + line // 16) * chunk


class Needs(NamedTuple):
    """Of a tile: warps, numbers of shared memory before the factors, and bytes of all of it."""

    warps: int
    room: int
    shared: int


@functools.lru_cache(4096)
def needs(stages, columns, kind):
    """What ``columns`` columns of a group of factors take, whole members or not."""
    chunk, long = 16 // kind.size, 512 // kind.size
    numbers = largest = columns * math.prod(s.q for s in stages)
    warps = factors = 0
    for s in stages:
        rows, height = _rows(s, kind)
        slices = numbers // s.q
        warps = max(warps, rows // height * -(-slices // (long * 8 // height)))
        numbers = slices * s.p
        largest = max(largest, numbers)
        factors += _columns(s, kind) * (rows + chunk)
    room = _rounded(place(largest * kind.planes - 1, kind.size) + 1, chunk)
    return Needs(warps, room, (room + factors) * kind.size)


def _fits(stages, columns, kind, limit, warps):
    found = needs(stages, columns, kind)
    return found.warps <= warps and found.shared <= limit and found.room < MOST_NUMBERS


def _tiles(stages, after, kind, limit):
    """Tiles that fit, and how much slower than the model each may be (a guess)."""
    # a kilobyte of each block is the system's
    generous = ((WARPS, limit // 2 - 1024, 1.0), (MOST_WARPS, limit, 1.3))
    line = LINE // (kind.size * kind.planes)
    whole = after < line
    for warps, room, slower in generous:
        for unit, waste in ((after, 1.0),) if whole else ((line, 1.0), (line // 2, 1.1)):
            if not _fits(stages, unit, kind, room, warps):
                continue
            count = 1
            while _fits(stages, 2 * count * unit, kind, room, warps):
                count *= 2
            tile = Tile(count, after) if whole else Tile(1, min(count * unit, after))
            yield tile, slower * waste


def _time(stages, after, kind, limit):
    """The best tile for each column of a group, or None, and its time by the model."""
    numbers = math.prod(s.q for s in stages)
    moved = numbers
    work = shared = 0.0
    for s in stages:
        slices = numbers // s.q
        rows, depth = s.p * kind.planes, s.q * kind.planes
        work += slices * _rows(s, kind)[0] * _columns(s, kind)
        shared += slices * (rows + depth)
        numbers = slices * s.p
    moved += numbers
    times = sorted((
        work / FMA + shared * kind.size / SHARED,
        moved * kind.planes * kind.size / MEMORY,
    ))  # fmt: skip
    # neither hides all of the other
    time = times[1] + 0.25 * times[0]
    small = len(stages) == 1 or max(max(s.p, s.q) for s in stages) <= LARGEST
    found = list(_tiles(stages, after, kind, limit)) if small else []
    if len(stages) == 1 and (max(stages[0].p, stages[0].q) > LARGEST or not found):
        return None, time
    if not found:
        return None, math.inf
    tile, slower = min(found, key=lambda t: t[1])
    return tile, slower * time


# --- Launches ------------------------------------------------------------------------------------


def _merged(shapes, kind):
    """Stages: the cheapest way to multiply neighbours out."""
    best = [(0.0, ())]
    for end in range(1, len(shapes) + 1):
        found = []
        for begin in range(end - 1, max(end - FACTORS, 0) - 1, -1):
            p, q = (math.prod(s[k] for s in shapes[begin:end]) for k in (0, 1))
            if end - begin > 1 and max(p, q) > MERGED:
                break
            stage = Stage(begin, end - begin, p, q)
            work = _rows(stage, kind)[0] * _columns(stage, kind) / FMA
            moved = (p + q) * kind.planes * kind.size / SHARED
            before, stages = best[begin]
            found.append((before + (work + moved) / math.sqrt(p * q), (*stages, stage)))
        best.append(min(found, key=lambda f: f[0]))
    return best[-1][1]


def _grouped(stages, a, kind, limit):
    """Groups of stages: the fewest bytes and operations, taken from the last to the first."""
    count = len(stages)
    best = {count: (0.0, ())}
    for begin in range(count - 1, -1, -1):
        found = []
        for end in range(begin + 1, count + 1):
            group = stages[begin:end]
            if sum(s.factors for s in group) > FACTORS:
                break
            later = stages[end:]
            # in whatever order they go
            after = a * math.prod(max(s.p, s.q) for s in later)
            _, time = _time(group[::-1], after, kind, limit)
            if math.isfinite(time):
                columns = math.prod(s.q for s in stages[:begin]) * math.prod(s.p for s in later)
                rest, groups = best[end]
                found.append((columns * time + rest, (group, *groups)))
        best[begin] = min(found, key=lambda f: f[0])
    return best[0][1]


@functools.lru_cache(256)
def steps(shapes, a, kind, limit):
    """The launches for factors of these shapes (p, q) and a columns, in their order."""
    stages = _merged(shapes, kind)
    sizes = [s.q for s in stages]

    def growth(group):
        # see `order` in linalgk/kronecker/_ops.py
        p, q = (math.prod(getattr(s, name) for s in group) for name in "pq")
        return 1 / q - 1 / p, -group[0].first

    found = []
    for group in sorted(_grouped(stages, a, kind, limit), key=growth):
        at = stages.index(group[0])
        p, q = (math.prod(getattr(s, name) for s in group) for name in "pq")
        before, after = math.prod(sizes[:at]), math.prod(sizes[at + len(group) :]) * a
        tile, _ = _time(group[::-1], after, kind, limit)
        first, count = group[0].first, sum(s.factors for s in group)
        rows = [(s.first - first, s.factors, s.p, s.q) for s in reversed(group)]
        numbers = itertools.chain(*rows, *shapes[first : first + count])
        # what the kernel reads
        table = None if tile is None else np.array([*numbers], np.int32)
        found.append(Step(group[::-1], tile, table, first, count, before, p, q, after))
        sizes[at : at + len(group)] = [s.p for s in group]
    return tuple(found)


def _by_tiles(step, x, factors, out, sets, members, kind, name):
    """Several factors. Small problems are cut into more tiles than the model asks for."""
    together, width = min(step.tile.together, members), step.tile.width
    line = LINE // (kind.size * kind.planes)

    def tiles():
        return sets * -(-members // together) * -(-step.after // width)

    while tiles() < 2 * limits(x).multiprocessors and (together > 1 or width >= 2 * line):
        together, width = (-(-together // 2), width) if together > 1 else (1, width // 2)
    found = needs(step.stages, together * width, kind)
    pointers = (*factors, *[None] * (FACTORS - len(factors)))
    args = (
        x, out, *pointers, constant(step.table, x), np.int32(len(step.stages)),
        np.int32(kind.planes), np.int32(found.room), np.int64(members), np.int64(step.after),
        np.int32(step.q), np.int32(step.p), np.int32(together), np.int32(width),
        np.int32(-(-members // together)), np.int32(-(-step.after // width)), np.int32(tiles()),
    )  # fmt: skip
    launch(
        "kronecker_product", "kron_tiles", name, grid(tiles(), x), 32 * found.warps, args, x,
        found.shared, TENSOR=kind.tensor,
    )  # fmt: skip


def mode_bytes(size):
    """Shared memory of a block for one large factor."""
    line = LINE // size
    return (place(512 // size * line, size) + line * (64 + 16 // size)) * size


def _by_mode(step, x, f, out, sets, members, kind, name):
    """One large factor."""
    blas = getattr(backend(), "mode_product", None)
    if blas is not None and max(step.p, step.q) >= BLAS:
        blas(f, x, out, members, step.after)
        return
    across = -(-step.p * kind.planes // 64)
    along = -(-members * step.after // (512 // kind.size))
    args = (
        x, f, out, np.int64(members), np.int64(step.after), np.int32(step.p), np.int32(step.q),
        np.int32(kind.planes), np.int32(across), np.int64(along), np.int64(sets * across * along),
    )  # fmt: skip
    launch(
        "kronecker_product", "kron_mode", name, grid(sets * across * along, x), 256, args, x,
        mode_bytes(kind.size), TENSOR=kind.tensor,
    )  # fmt: skip


def _targets(plan, b, out, name):
    """Where each launch writes: the last one to out, others there too or to a second array."""
    sizes = [b * s.before * s.p * s.after for s in plan]
    second = [False]
    for step in plan[:0:-1]:
        # the source of this one is the target of the one before
        second.insert(0, second[0] if step.in_place else not second[0])
    spare = {}
    for kept in (False, True):
        most = max((n for n, s in zip(sizes, second, strict=True) if s is kept), default=0)
        spare[kept] = out
        if (kept and most) or most > sizes[-1]:
            spare[kept] = backend().empty((most,), name, out)
    targets = [spare[s] for s in second]
    return [*targets[:-1], out]


def kron_matmul(x, factors, threads=1, out=None):
    """See ``kron_matmul`` in ``linalgk/kronecker/_ops.py``."""
    b, _, a = x.shape
    name = dtype_name(x)
    x, *factors = map(backend().contiguous, (x, *factors))
    c, shapes = factors[0].shape[0], tuple((int(f.shape[1]), int(f.shape[2])) for f in factors)
    rows = math.prod(p for p, _ in shapes)
    if 0 in (b, a, rows) or any(q == 0 for _, q in shapes):
        return backend().zeros((b, rows, a), name, x)
    if out is None:
        out = backend().empty((b, rows, a), name, x)
    real = C_TYPES[name]
    kind = Kind(PLANES[name], SIZES[real], TENSOR_CORES[real])
    plan = steps(shapes, a, kind, limits(x).shared_memory)
    source = x
    for step, target in zip(plan, _targets(plan, b, out, name), strict=True):
        own = factors[step.first : step.first + step.factors]
        members = b // c * step.before
        if step.tile is None:
            _by_mode(step, source, own[0], target, c, members, kind, name)
        else:
            _by_tiles(step, source, own, target, c, members, kind, name)
        source = target
    return out


# Tiles take what they are given.
VARIANTS = tuple(
    Variant("kronecker_product", {"TENSOR": tensor}, lambda limit, size: limit) for tensor in (0, 1)
)
