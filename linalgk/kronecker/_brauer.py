"""Matrices of diagrams between tensor powers of R^n, applied without forming them."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from linalgk import _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.kronecker import _blocks, _door
from linalgk.typing import ArrayT

Group: TypeAlias = Literal["O", "SO", "Sp", "S"]
GROUPS = get_args(Group)
METHODS = ("strided",)


@dataclasses.dataclass(frozen=True)
class Diagram:
    """A partition of the axes of two tensors into blocks.

    Attributes
    ----------
    inputs, outputs : int
        Numbers k and l of axes of the tensor that comes in and of the one that goes out.
    blocks : tuple of tuples of int
        Each vertex from 0 to ``k + l - 1`` once: the k axes of the input, then the l of the output.
        Kept in ascending order.

    Examples
    --------
    >>> from linalgk.kronecker import Diagram
    >>> Diagram.parse("iij->j")
    Diagram(inputs=3, outputs=1, blocks=((0, 1), (2, 3)))
    >>> str(Diagram(1, 3, ((0, 2), (1, 3))))
    'a->bab'
    """

    inputs: int
    outputs: int
    blocks: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            _validate.integer(name, getattr(self, name), 0)
        try:
            blocks = tuple(sorted(tuple(sorted(int(v) for v in block)) for block in self.blocks))
        except TypeError:
            msg = f"diagram: must be a list of blocks of vertices, got {self.blocks!r}"
            raise TypeError(msg) from None
        count = self.inputs + self.outputs
        if sorted(itertools.chain(*blocks)) != list(range(count)) or () in blocks:
            msg = (
                f"diagram: blocks must hold each of the {count} vertices 0 to {count - 1} once "
                f"({self.inputs} inputs, then {self.outputs} outputs), got {self.blocks!r}"
            )
            raise ValueError(msg)
        object.__setattr__(self, "blocks", blocks)

    @classmethod
    def parse(cls, text: str) -> "Diagram":
        """From axes named by letters: those with the same letter are in one block."""
        left, arrow, right = text.replace(" ", "").partition("->")
        if not arrow or not all(c.isalpha() for c in left + right):
            msg = f"diagram: must be letters, '->' and letters, like 'iij->j', got {text!r}"
            raise ValueError(msg)
        places: dict[str, list[int]] = {}
        for vertex, letter in enumerate(left + right):
            places.setdefault(letter, []).append(vertex)
        return cls(len(left), len(right), tuple(tuple(p) for p in places.values()))

    def __str__(self) -> str:
        """Letters of the input, an arrow, letters of the output."""
        names = {v: chr(97 + i) if i < 26 else f"({i})"
                 for i, block in enumerate(self.blocks) for v in block}  # fmt: skip
        letters = [names[v] for v in range(self.inputs + self.outputs)]
        return "".join(letters[: self.inputs]) + "->" + "".join(letters[self.inputs :])


def brauer_diagrams(
    k: int,
    l: int,  # noqa: E741
    /,
    *,
    group: Group = "O",
    n: int | None = None,
) -> Iterator[Diagram]:
    """All diagrams of a group from k to l axes, always in the same order.

    Their matrices span the linear maps from (R^n)^(tensor k) to (R^n)^(tensor l) that commute with
    the group (Brauer; Pearce-Crump, see `brauer_apply`).

    Parameters
    ----------
    k, l : int
        Axes of the input and of the output.
    group : {"O", "SO", "Sp", "S"}
        Orthogonal and symplectic: all perfect matchings, ``(k + l - 1)!!``. Special orthogonal:
        those, and all with n free vertices. Symmetric: all partitions, in Bell's number.
    n : int, optional
        The dimension. Needed for "SO"; for "S" partitions into more than n blocks, which the others
        span, are left out.

    Returns
    -------
    iterator of Diagram

    Examples
    --------
    >>> from linalgk.kronecker import brauer_diagrams
    >>> [str(d) for d in brauer_diagrams(2, 2)]
    ['aa->bb', 'ab->ab', 'ab->ba']
    >>> sum(1 for _ in brauer_diagrams(2, 2, group="S"))
    15
    """
    k = _validate.integer("k", k, 0)
    count = k + _validate.integer("l", l, 0)
    _validate.choice("group", group, GROUPS)
    if group == "SO" and n is None:
        msg = "n: is needed for group='SO', whose diagrams have n free vertices"
        raise ValueError(msg)
    most = count if n is None else _validate.integer("n", n, 1)
    vertices = tuple(range(count))
    found = _partitions(vertices, most) if group == "S" else _matchings(vertices)
    if group == "SO":
        found = itertools.chain(found, _with_free(vertices, most))
    return (Diagram(k, count - k, blocks) for blocks in found)


def brauer_apply(
    diagram: Diagram | str | Sequence[Sequence[int]],
    x: ArrayT,
    n: int | None = None,
    /,
    *,
    k: int | None = None,
    group: Group = "O",
    out: Any = None,
) -> ArrayT:
    r"""Apply the matrix of a Brauer diagram, or of a partition, to tensors, without forming it.

    Parameters
    ----------
    diagram : Diagram, str or list of blocks
        Of k axes that come in and l that go out. A text names axes by letters, equal in one block:
        ``"iij->j"``. In a list of blocks vertices 0 to k - 1 are the axes of the input and k to
        k + l - 1 those of the output: ``[(0, 1), (2, 3)]``. See Notes for what blocks a group
        allows.
    x : array, shape (..., n, ..., n)
        The last k axes are those of the tensors, all others are batch. Never written to.
    n : int, optional
        Length of the axes; needed if k is 0.
    k : int, optional
        Axes of the input, for a list of blocks; default all of x.
    group : {"O", "Sp", "SO", "S"}, optional
        The group that the map commutes with: orthogonal, symplectic (n even), special orthogonal,
        permutations.
    out : array, optional
        Where to put the result; it may not overlap x.

    Returns
    -------
    y : array, shape (..., n, ..., n)
        With l axes in the place of k.

    Raises
    ------
    TypeError
        If x is no array of numbers.
    ValueError
        If the blocks are no partition of the vertices or not of the group, or axes do not fit.

    Notes
    -----
    In the matrix an entry is the product over all blocks of [1]_

    * ``O``, pairs only: :math:`\delta_{ij}` of the indices of the two vertices;
    * ``Sp``, pairs only: the same between an input and an output, :math:`\epsilon_{ij}` of two
      vertices i before j on one side, :math:`\epsilon` with blocks ``[[0, 1], [-1, 0]]`` on its
      diagonal: matrices g commute with it that have :math:`g^T \epsilon g = \epsilon`;
    * ``SO``: ``O``, or n free vertices (blocks of one) and pairs else: the Levi-Civita symbol of
      the indices of the free vertices, those of the output first;
    * ``S``, blocks of any size: 1 where the indices of all vertices are equal, else 0.

    Nothing is multiplied: blocks of inputs only are sums over diagonals, blocks with both copy a
    diagonal to a diagonal, blocks of outputs only repeat it, all as strided views. That costs
    n to the number of blocks that have inputs in additions and zeros for the result, instead of
    ``n^(k + l)`` operations; each pair of inputs in ``Sp`` halves of a copy, free vertices
    ``n!`` at most. One rounding for each number that is added.

    An equivariant layer is a linear combination ``sum(w * brauer_apply(d, x) for ...)`` over
    `linalgk.kronecker.brauer_diagrams`.

    References
    ----------
    .. [1] E. Pearce-Crump, "Brauer's group equivariant neural networks", ICML (2023),
       arXiv:2212.08630; "An algorithm for computing with Brauer's group
       equivariant neural network layers", arXiv:2304.14165.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x = np.arange(4.0).reshape(2, 2)
    >>> lk.brauer_apply("ij->ji", x)
    array([[0., 2.],
           [1., 3.]])
    >>> lk.brauer_apply([(0, 1), (2, 3)], x)  # the trace times the identity
    array([[3., 0.],
           [0., 3.]])
    >>> lk.brauer_apply("ii->i", x, group="S")
    array([0., 3.])
    """
    a: Any = _xp.as_array("x", x)
    _validate.choice("group", group, GROUPS)
    chosen = _diagram(diagram, a, k)
    n = _dimension(chosen, a, n)
    _check_group(chosen, group, n)
    lead = tuple(int(s) for s in a.shape[: a.ndim - chosen.inputs])
    shape = (*lead, *(n,) * chosen.outputs)
    with _lag.scope(a):
        entered = _door.enter({"x": a})
        view = None if out is None else _blocks.target(out, entered, {"x": a}, shape)
        room = _blocks.in_place(view, entered)
        y = _applied(chosen, entered.arrays[0], n, group, shape, room)
        if view is None:
            return cast(ArrayT, entered.leave(y))
        _blocks.put(y, view, entered)
        return cast(ArrayT, out)


# --- The door -------------------------------------------------------------------------------------


def _diagram(diagram: Any, x: Any, k: Any) -> Diagram:
    """Of what was given, if it fits the axes of x."""
    chosen = Diagram.parse(diagram) if isinstance(diagram, str) else diagram
    if not isinstance(chosen, Diagram):
        if not isinstance(diagram, Sequence):
            kind = type(diagram).__name__
            msg = f"diagram: must be a Diagram, a text or a list of blocks, got {kind}"
            raise TypeError(msg)
        inputs = int(x.ndim) if k is None else _validate.integer("k", k, 0)
        try:
            count = sum(len(block) for block in diagram)
        except TypeError:
            msg = f"diagram: must be a list of blocks of vertices, got {diagram!r}"
            raise TypeError(msg) from None
        if count < inputs:
            msg = (
                f"diagram: has {count} vertices, fewer than the k = {inputs} axes of the input; "
                "k= says which axes of x are no batch"
            )
            raise ValueError(msg)
        chosen = Diagram(inputs, count - inputs, tuple(map(tuple, diagram)))
    elif k is not None and k != chosen.inputs:
        msg = f"k: must be {chosen.inputs}, as the diagram says, got {k!r}"
        raise ValueError(msg)
    if x.ndim < chosen.inputs:
        msg = f"x: needs k = {chosen.inputs} axes or more, got shape {tuple(x.shape)}"
        raise ValueError(msg)
    return chosen


def _dimension(diagram: Diagram, x: Any, n: Any) -> int:
    """The length of the axes."""
    tail = tuple(int(s) for s in x.shape[x.ndim - diagram.inputs :])
    if n is None:
        if not tail:
            msg = "n: is needed where the diagram has no inputs"
            raise ValueError(msg)
        n = tail[0]
    length = _validate.integer("n", n, 1)
    if any(s != length for s in tail):
        shape = tuple(x.shape)
        msg = f"x: its last {len(tail)} axes must have length n = {length}, got shape {shape}"
        raise ValueError(msg)
    return length


def _check_group(diagram: Diagram, group: str, n: int) -> None:
    """Raise if the diagram is not one of the group."""
    if group == "Sp" and n % 2:
        msg = f"n: must be even for group='Sp', got {n}"
        raise ValueError(msg)
    free = [b for b in diagram.blocks if len(b) == 1]
    others = [b for b in diagram.blocks if len(b) != 1]
    pairs = all(len(b) == 2 for b in others)
    if group == "S" or (pairs and (not free or (group == "SO" and len(free) == n))):
        return
    rule = "pairs" if group != "SO" else f"pairs and none or n = {n} free vertices"
    msg = f"diagram: for group={group!r} blocks must be {rule}, got {diagram.blocks}"
    raise ValueError(msg)


# --- The map --------------------------------------------------------------------------------------


def _applied(
    diagram: Diagram, x: Any, n: int, group: str, shape: tuple[int, ...], room: Any
) -> Any:
    """The map, into ``room`` if that is given."""
    k, lead = diagram.inputs, x.ndim - diagram.inputs
    signed = group == "Sp"
    free = [b[0] for b in diagram.blocks if len(b) == 1] if group == "SO" else []
    blocks = [b for b in diagram.blocks if b[0] not in free]
    # each axis of the input carries the number of its block, or of its vertex where it is free
    labels = [0] * k
    for i, block in enumerate(blocks):
        for v in block:
            if v < k:
                labels[v] = i
    for v in free:
        if v < k:
            labels[v] = -1 - v
    x, labels = _diagonals(x, labels, signed)
    inner = [i for i, block in enumerate(blocks) if all(v < k for v in block)]
    axes = tuple(lead + labels.index(i) for i in inner if i in labels)
    if axes:
        xp = _xp.namespace(x)
        x = xp.sum(x, axis=axes)
        labels = [i for i in labels if i not in inner]
    if free:
        x, labels = _levi_civita(x, labels, n, [v for v in free if v >= k])
    # outputs by block, each with the axis of x that goes there, if one does
    places = [[v - k for v in block if v >= k] for block in blocks]
    goals = [(p, labels.index(i) if i in labels else None) for i, p in enumerate(places) if p]
    goals += [([v - k], labels.index(-1 - v)) for v in free if v >= k]
    goals.sort()
    return _placed(x, lead, goals, shape, signed, room)


def _diagonals(x: Any, labels: list[int], signed: bool) -> tuple[Any, list[int]]:
    """Axes with the same label as one, a view; signed pairs of axes are contracted at once."""
    xp = _xp.namespace(x)
    while len(set(labels)) < len(labels):
        i = next(i for i, label in enumerate(labels) if label in labels[i + 1 :])
        j = labels.index(labels[i], i + 1)
        lead = x.ndim - len(labels)
        rest = [a for a in range(x.ndim) if a not in (lead + i, lead + j)]
        x = xp.permute_dims(x, (*rest, lead + i, lead + j))
        label = labels[i]
        labels = [v for a, v in enumerate(labels) if a not in (i, j)]
        if signed:
            up = xp.linalg.diagonal(x[..., 0::2, 1::2])
            x = xp.sum(up - xp.linalg.diagonal(x[..., 1::2, 0::2]), axis=-1)
        else:
            x = xp.linalg.diagonal(x)
            labels = [*labels, label]
    return x, labels


def _placed(
    x: Any, lead: int, goals: list[tuple[list[int], int | None]], shape: tuple[int, ...],
    signed: bool, room: Any,
) -> Any:  # fmt: skip
    """The axes of x on diagonals of a tensor that is zero elsewhere."""
    xp = _xp.namespace(x)
    order = [axis for _, axis in goals if axis is not None]
    x = xp.permute_dims(x, (*range(lead), *(lead + a for a in order)))
    if isinstance(x, np.ndarray):
        moved = all(len(places) == 1 for places, _ in goals)
        if room is None:
            room = (np.empty if moved else np.zeros)(shape, x.dtype)
        elif not moved:
            room[...] = 0
        _write(x, lead, goals, room, signed)
        return room
    n = shape[-1] if goals else 1
    spread = [1] * (len(shape) - lead)
    for places, axis in goals:
        spread[places[0]] = 1 if axis is None else n
    x = xp.reshape(x, (*shape[:lead], *spread))
    where = _blocks.place(x)
    index = xp.arange(n, **where)

    def along(values: Any, place: int) -> Any:
        return xp.reshape(values, tuple(n if a == place else 1 for a in range(len(spread))))

    mask = xp.reshape(xp.asarray(True, **where), (1,) * len(spread))
    for places, axis in goals:
        twisted = signed and axis is None
        partner = index + 1 - 2 * (index % 2) if twisted else index
        for place in places[1:]:
            mask = mask & (along(index, place) == along(partner, places[0]))
        if twisted:
            sign = xp.astype(1 - 2 * (index % 2), x.dtype)
            x = x * along(sign, places[0])
    zero = xp.zeros((), dtype=x.dtype, **where)
    return xp.where(mask, xp.broadcast_to(x, shape), zero)


def _write(
    x: Any, lead: int, goals: list[tuple[list[int], int | None]], y: Any, signed: bool
) -> None:
    """To diagonals of a NumPy array: one assignment, or twice as many for each signed pair."""
    pairs = [i for i, (_, axis) in enumerate(goals) if signed and axis is None]
    for flips in itertools.product((0, 1), repeat=len(pairs)):
        part = y
        for i, flip in zip(pairs, flips, strict=True):
            a, b = (lead + place for place in goals[i][0])
            cut: list[Any] = [slice(None)] * y.ndim
            cut[a], cut[b] = slice(flip, None, 2), slice(1 - flip, None, 2)
            part = part[tuple(cut)]
        shape, strides = list(part.shape[:lead]), list(part.strides[:lead])
        for places, _ in goals:
            shape.append(part.shape[lead + places[0]])
            strides.append(sum(part.strides[lead + place] for place in places))
        view = np.lib.stride_tricks.as_strided(part, shape, strides)
        opened = _opened(x, lead, goals)
        view[...] = -opened if sum(flips) % 2 else opened


def _opened(x: Any, lead: int, goals: list[tuple[list[int], int | None]]) -> Any:
    """With an axis of length one for each goal that no axis goes to."""
    axes = iter(x.shape[lead:])
    return x.reshape((*x.shape[:lead], *(1 if a is None else next(axes) for _, a in goals)))


def _levi_civita(
    x: Any, labels: list[int], n: int, outputs: list[int]
) -> tuple[Any, list[int]]:  # fmt: skip
    """Contract the free axes of x, labelled ``-1 - vertex``, with the Levi-Civita symbol."""
    xp, lead = _xp.namespace(x), x.ndim - len(labels)
    mine = sorted((i for i, label in enumerate(labels) if label < 0), key=lambda i: -labels[i])
    rest = [a for a in range(x.ndim) if a - lead not in mine]
    x = xp.permute_dims(x, (*rest, *(lead + i for i in mine)))
    before = tuple(int(s) for s in x.shape[: len(rest)])
    x = xp.reshape(x, (*before, n ** len(mine)))
    table = _alternating(n, len(mine))
    take, signs, classes, places = (
        _xp.from_numpy(t.astype(_xp.REAL[_xp.dtype_name(x)]) if t.dtype == np.int8 else t, xp,
                       like=x)
        for t in table
    )  # fmt: skip
    size = tuple(int(s) for s in take.shape)
    picked = xp.take(x, xp.reshape(take, (-1,)), axis=-1)
    sums = xp.sum(xp.reshape(picked, (*before, *size)) * signs, axis=-1)
    sums = xp.concat([sums, xp.zeros_like(sums[..., :1])], axis=-1)
    y = xp.take(sums, classes, axis=-1) * places
    y = xp.reshape(y, (*before, *(n,) * len(outputs)))
    return y, [label for label in labels if label >= 0] + [-1 - v for v in outputs]


@functools.lru_cache(maxsize=32)
def _alternating(n: int, inside: int) -> tuple[Any, Any, Any, Any]:
    """The Levi-Civita symbol of n indices, of which the last ``inside`` are summed over.

    Positions of the input for each set of values and each of their orders, with signs; the set for
    each position of the output (one more for none), with signs.
    """
    sets = list(itertools.combinations(range(n), inside))
    orders = list(itertools.permutations(range(inside)))
    powers = [n**e for e in range(max(inside, n - inside))]
    take = np.array(
        [[sum(s[o[-1 - e]] * powers[e] for e in range(inside)) for o in orders] for s in sets],
        np.int64,
    )
    signs = np.array([_sign(o) for o in orders], np.int8)
    classes = np.full(n ** (n - inside), len(sets), np.int64)
    places = np.zeros(n ** (n - inside), np.int8)
    for number, chosen in enumerate(sets):
        others = tuple(v for v in range(n) if v not in chosen)
        for t in itertools.permutations(others):
            at = sum(t[-1 - e] * powers[e] for e in range(len(t)))
            classes[at], places[at] = number, _sign((*t, *chosen))
    return take, signs, classes, places


def _sign(order: Sequence[int]) -> int:
    """Of a permutation."""
    return -1 if sum(a > b for a, b in itertools.combinations(order, 2)) % 2 else 1


# --- Enumeration ----------------------------------------------------------------------------------


def _matchings(vertices: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to pair them."""
    if not vertices:
        yield ()
        return
    first, rest = vertices[0], vertices[1:]
    for i, partner in enumerate(rest):
        for more in _matchings(rest[:i] + rest[i + 1 :]):
            yield ((first, partner), *more)


def _with_free(vertices: tuple[int, ...], n: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to leave n of them alone and pair the others."""
    for free in itertools.combinations(vertices, n):
        rest = tuple(v for v in vertices if v not in free)
        for blocks in _matchings(rest):
            yield (*blocks, *((v,) for v in free))


def _partitions(vertices: tuple[int, ...], most: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All partitions into at most so many blocks."""

    def grow(i: int, blocks: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], ...]]:
        if i == len(vertices):
            yield tuple(blocks)
            return
        for j, block in enumerate(blocks):
            yield from grow(i + 1, [*blocks[:j], (*block, vertices[i]), *blocks[j + 1 :]])
        if len(blocks) < most:
            yield from grow(i + 1, [*blocks, (vertices[i],)])

    return grow(0, [])


# --- What a call would run ------------------------------------------------------------------------


def explain_brauer_apply(
    diagram: Any, x: Any, n: Any = None, /, *, k: Any = None, group: Any = "O", **_: Any
) -> Explanation:
    """What a call would run."""
    x = _xp.as_array("x", x)
    chosen = _diagram(diagram, x, k)
    n = _dimension(chosen, x, n)
    _check_group(chosen, group, n)
    entered = _door.enter({"x": x})
    batch = math.prod(x.shape[: x.ndim - chosen.inputs])
    read = sum(min(b) < chosen.inputs for b in chosen.blocks)
    written = float(batch) * n**chosen.outputs
    reason = f"there is one method: {read} of {len(chosen.blocks)} blocks are read"
    flops = float(batch) * n**read
    moved = np.dtype(entered.dtype).itemsize * (flops + written)
    return Explanation("brauer_apply", "strided", reason, {}, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A trace beside a transposition, of a batch of tensors."""
    batch, n = {"small": (2, 3), "medium": (32, 8), "large": (64, 16)}[size]
    x = np.random.default_rng(rng).standard_normal((batch, n, n, n, n))
    return ("iijk->kj", xp.asarray(x)), {}
