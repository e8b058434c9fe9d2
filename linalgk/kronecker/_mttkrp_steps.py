"""Contractions of a tensor with all matrices but one, for one mode or by a tree for all."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from linalgk import _lag, _xp
from linalgk.kronecker import _blocks
from linalgk.kronecker._mttkrp_ops import MTTKRP

# Blocks that need no copy: the kernel minds the caches, and each hands back sums to be added.
_LARGER = 4


def joined(mats: Sequence[Any]) -> Any:
    """The Khatri-Rao product of matrices without batch axes."""
    y = mats[0]
    for x in mats[1:]:
        p, q, r = int(y.shape[0]), int(x.shape[0]), int(x.shape[1])
        y = _xp.namespace(x).reshape(y[:, None, :] * x[None, :, :], (p * q, r))
    return y


def split(shape: Sequence[int]) -> int:
    """How many modes make the first of the two groups that a tensor is unfolded by.

    The product of the unfolding (p, q) with a Khatri-Rao product costs 2 p q R operations whatever
    the split. A group of several modes costs more than that, by its size times R: its Khatri-Rao
    product is formed, or the result of the other's is contracted further. Of equals the largest,
    because blocks of leading modes lie together in memory.
    """
    count = len(shape)

    def cost(at: int) -> tuple[int, int]:
        p, q = math.prod(shape[:at]), math.prod(shape[at:])
        return p * (at > 1) + q * (count - at > 1), -at

    return min(range(1, count), key=cost)


def contracted(x: Any, mats: Sequence[Any], at: int, modes: Sequence[int]) -> dict[int, Any]:
    """For each of ``modes``: x contracted with the matrices of all other modes, (n_mode, R).

    x (n_0, n_1, ...) is unfolded into modes before ``at`` and modes from there on. Blocks along the
    first mode of the larger group meet both Khatri-Rao products, of this group and of the other
    one; what several modes have in common by then is contracted further. Of ``mats`` what is not
    needed may be None.
    """
    xp, shape = _xp.namespace(x), tuple(int(n) for n in x.shape)
    turned = math.prod(shape[:at]) < math.prod(shape[at:])
    near = list(range(at, len(shape)) if turned else range(at))
    far = [i for i in range(len(shape)) if i not in near]
    first, rest = near[0], near[1:]
    wants = first in modes, any(i in modes for i in rest), any(i in modes for i in far)
    b = _product(mats, rest, not wants[1] or wants[0] or wants[2], x, _rank(mats))
    c = _product(mats, far, wants[0] or wants[1], x, _rank(mats))
    width, inner = math.prod(shape[i] for i in far), math.prod(shape[i] for i in rest)
    each = inner * max(width, _rank(mats))
    before = (slice(None),) * first

    def work(start: int, stop: int) -> tuple[Any, Any, Any]:
        block = x if stop - start == shape[first] else x[(*before, slice(start, stop), ...)]
        flat = xp.reshape(block, (width, -1) if turned else (-1, width))
        flat = xp.matrix_transpose(flat) if turned else flat
        a = None if mats[first] is None else _lag.contiguous(mats[first][start:stop, :])
        found: tuple[Any, Any, Any] = MTTKRP(flat, a, b, c, wants)
        return found

    pile: list[Any] = []
    total: list[Any] = [None, None]
    room = _blocks.entries(x)
    if isinstance(x, np.ndarray) and x.flags.c_contiguous:
        room *= _LARGER
    pieces = _blocks.ranges(shape[first], each, room)
    for found in _blocks.mapped(work, pieces, host=isinstance(x, np.ndarray)):
        pile.append(found[0])
        total = [
            y if old is None else old + y for old, y in zip(total, found[1:], strict=True)
        ]  # fmt: skip
    answer: dict[int, Any] = {}
    if wants[0]:
        answer[first] = pile[0] if len(pile) == 1 else xp.concat(pile)
    for group, y in zip((rest, far), total, strict=True):
        wanted = [group.index(i) for i in modes if i in group]
        if wanted:
            y = xp.reshape(y, (*(shape[i] for i in group), _rank(mats)))
            leaves = _leaves(y, [mats[i] for i in group], wanted)
            answer |= {group[i]: z for i, z in leaves.items()}
    return answer


def _product(mats: Sequence[Any], group: list[int], needed: bool, x: Any, rank: int) -> Any:
    """Of a group of modes; ones if it is empty, None if it is not needed."""
    if not group:
        return _xp.namespace(x).ones((1, rank), dtype=x.dtype, **_blocks.place(x))
    return _lag.contiguous(joined([mats[i] for i in group])) if needed else None


def _leaves(t: Any, mats: Sequence[Any], wanted: Sequence[int]) -> dict[int, Any]:
    """As `contracted` for t (n_0, n_1, ..., R), whose columns meet those of the matrices."""
    xp, shape = _xp.namespace(t), tuple(int(n) for n in t.shape[:-1])
    if len(shape) == 1:
        return {0: t}
    at, rank = split(shape), int(t.shape[-1])
    t = xp.reshape(t, (math.prod(shape[:at]), math.prod(shape[at:]), rank))
    found: dict[int, Any] = {}
    first, second = [i for i in wanted if i < at], [i - at for i in wanted if i >= at]
    if first:
        y = xp.sum(t * joined(mats[at:])[None, :, :], axis=1)
        found |= _leaves(xp.reshape(y, (*shape[:at], rank)), mats[:at], first)
    if second:
        y = xp.sum(t * joined(mats[:at])[:, None, :], axis=0)
        y = xp.reshape(y, (*shape[at:], rank))
        found |= {i + at: z for i, z in _leaves(y, mats[at:], second).items()}
    return found


def _rank(mats: Sequence[Any]) -> int:
    return next(int(a.shape[1]) for a in mats if a is not None)
