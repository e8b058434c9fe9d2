"""Matricized tensor times Khatri-Rao product, without matricizing and without the product."""

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import NonFiniteError
from linalgk.kronecker import _blocks, _door
from linalgk.kronecker._mttkrp_ops import MTTKRP
from linalgk.kronecker._mttkrp_steps import contracted, split
from linalgk.typing import ArrayT

METHODS = ("first", "last", "tree")


@overload
def mttkrp(
    x: ArrayT, mats: Sequence[Any], /, mode: int, *, out: Any = None,
    check_finite: bool | None = None,
) -> ArrayT: ...  # fmt: skip
@overload
def mttkrp(
    x: ArrayT, mats: Sequence[Any], /, mode: None = None, *, out: Any = None,
    check_finite: bool | None = None,
) -> list[ArrayT]: ...  # fmt: skip
def mttkrp(
    x: Any,
    mats: Sequence[Any],
    /,
    mode: int | None = None,
    *,
    out: Any = None,
    check_finite: bool | None = None,
) -> Any:
    r"""Unfolded tensor times the Khatri-Rao product of the matrices of all other modes.

    .. math:: Y_{i r} = \sum_{i_1, \dots, i_d,\ i_n = i} x_{i_1 \dots i_d}
              \prod_{m \ne n} (A_m)_{i_m r}

    for the mode n, or for each: the gradient of a CP decomposition's fit, and the right-hand side
    of its alternating least squares.

    Parameters
    ----------
    x : array, shape (n_0, n_1, ..., n_(d-1))
        A dense tensor of two or more modes in any memory order. Never written to.
    mats : sequence of d arrays, shapes (n_i, R)
        One for each mode. That of ``mode`` is not read and may be None.
    mode : int, optional
        The mode n that is left, negative from the end. Default: all, which share their work.
    out : array, or sequence of d arrays without ``mode``, optional
        Where to put the result.
    check_finite : bool, optional
        Look for NaN and infinity in ``mats``. Default from `linalgk.config_context`.

    Returns
    -------
    y : array, shape (n_mode, R), or list of d arrays
        ``X_(n) (A_0 kr ... kr A_(n-1) kr A_(n+1) kr ...)``, in the library and on the device of x.
        Nothing is conjugated.

    Raises
    ------
    TypeError
        If ``mats`` is one array, or arrays are of several libraries or no numbers.
    ValueError
        If sizes do not fit.
    NonFiniteError
        If a matrix holds NaN or infinity.

    See Also
    --------
    khatri_rao_matmul : where the last mode counts columns.

    Notes
    -----
    The modes are split in two groups of sizes p and q, and the tensor is looked at as a matrix of
    that shape. Its product with the Khatri-Rao product of the group without the mode, ``2 p q R``
    operations, is a tensor of the other group for each of the R columns, whose further modes are
    contracted column by column [1]_, at ``2 (p + q) R``. For all modes both groups are multiplied
    once and each half is split again [2]_: two products with the tensor instead of d.

    On the CPU blocks of the larger group are shared among threads, and tiles of them go through
    both products while they are in the cache, so that the tensor is read once from memory; nothing
    is permuted, and the number of threads does not change a bit. Of an array in Fortran order, or
    transposed in any way, the modes are taken in the order of their strides; of one that is not
    contiguous each block is copied. Memory: the results, ``q R`` numbers where the smaller group,
    of size q, has several modes, and a few blocks.

    To first order ``|error| <= (n_0 ... n_(d-1) / n_n + d) u Y(|x|, |A|)``, where u is the unit
    roundoff and ``Y(|x|, |A|)`` the same sum over absolute values; blocked sums have much less.

    References
    ----------
    .. [1] A.-H. Phan, P. Tichavský, A. Cichocki, "Fast alternating LS algorithms for high order
       CANDECOMP/PARAFAC tensor factorizations", IEEE Trans. Signal Process. 61 (2013).
    .. [2] K. Hayashi, G. Ballard, Y. Jiang, M. J. Tobia, "Shared-memory parallelization of MTTKRP
       for dense tensors", PPoPP (2018), and O. Kaya, Y. Robert, "Computing dense tensor
       decompositions with optimal dimension trees", Algorithmica 81 (2019).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((4, 5, 6))
    >>> a, b, c = (rng.standard_normal((n, 3)) for n in x.shape)
    >>> y = lk.mttkrp(x, [a, None, c], 1)
    >>> bool(np.allclose(y, np.einsum("ijk,ir,kr->jr", x, a, c)))
    True
    >>> [z.shape for z in lk.mttkrp(x, [a, b, c])]
    [(4, 3), (5, 3), (6, 3)]
    """
    x = _xp.as_array("x", x)
    mats, mode = _fit(x, mats, mode)
    named = {"x": x, **{f"mats[{i}]": a for i, a in enumerate(mats) if a is not None}}
    with _lag.scope(x), _config.blas_threads():
        entered = _door.enter(named)
        data, *rest = entered.arrays
        if _validate.check_finite(check_finite) and not any(map(_xp.is_traced, rest)):
            _look(named, rest)
        inside = [None if a is None else rest.pop(0) for a in mats]
        rank = next(int(a.shape[-1]) for a in inside if a is not None)
        modes = list(range(x.ndim)) if mode is None else [mode]
        views = _targets(out, entered, named, [(int(x.shape[i]), rank) for i in modes], mode)
        found = _computed(data, inside, rank, modes)
        if views is None:
            found = [entered.leave(_lag.contiguous(y)) for y in found]
            return found if mode is None else found[0]
        for y, view in zip(found, views, strict=True):
            _blocks.put(y, view, entered)
        return out


# --- The door -------------------------------------------------------------------------------------


def _fit(x: Any, mats: Any, mode: Any) -> tuple[list[Any], int | None]:
    """The matrices with None for the one that is not needed, and the mode from the front."""
    d = x.ndim
    if d < 2:
        msg = f"x: must have two modes or more, got shape {tuple(x.shape)}"
        raise ValueError(msg)
    if mode is not None:
        mode = _validate.integer("mode", mode, -d)
        if mode >= d:
            msg = f"mode: must be less than {d}, the number of modes of x, got {mode}"
            raise ValueError(msg)
        mode %= d
    if isinstance(mats, list | tuple) and len(mats) != d:
        msg = f"mats: needs {d} matrices, one for each mode of x, got {len(mats)}"
        raise ValueError(msg)
    missing = isinstance(mats, list | tuple) and any(a is None for a in mats)
    if missing and (mode is None or any(a is None for i, a in enumerate(mats) if i != mode)):
        msg = "mats: only the matrix of the mode that is asked for may be None"
        raise ValueError(msg)
    if mode is not None and isinstance(mats, list | tuple):
        _door.matrices("mats", [a for i, a in enumerate(mats) if i != mode])
        found = [None if i == mode else _xp.as_array("", a) for i, a in enumerate(mats)]
    else:
        found = list(_door.matrices("mats", mats))
    first, columns = next((i, a.shape[-1]) for i, a in enumerate(found) if a is not None)
    for i, a in enumerate(found):
        if a is not None and tuple(a.shape) != (x.shape[i], columns):
            msg = (
                f"mats[{i}]: must have shape ({x.shape[i]}, {columns}), the size of mode {i} and "
                f"the columns of mats[{first}], got {tuple(a.shape)}"
            )
            raise ValueError(msg)
    return found, mode


def _look(named: dict[str, Any], inside: Sequence[Any]) -> None:
    """Raise if a matrix holds NaN or infinity."""
    for name, a in zip([name for name in named if name != "x"], inside, strict=True):
        xp = _xp.namespace(a)
        if not bool(xp.all(xp.isfinite(a))):
            msg = f"{name}: holds NaN or infinity; check_finite=False skips this look"
            raise NonFiniteError(msg)


def _targets(
    out: Any, entered: _door.Entered, named: dict[str, Any], shapes: list[tuple[int, int]],
    mode: int | None,
) -> list[Any] | None:  # fmt: skip
    """Views of ``out``, one for each mode."""
    if out is None:
        return None
    outs = [out] if mode is not None else out
    if not isinstance(outs, list | tuple) or len(outs) != len(shapes):
        msg = f"out: must be a list of {len(shapes)} arrays, one for each mode, without mode="
        raise TypeError(msg)
    return [_blocks.target(o, entered, named, s) for o, s in zip(outs, shapes, strict=True)]


# --- The product ----------------------------------------------------------------------------------


def _computed(x: Any, mats: list[Any], rank: int, modes: list[int]) -> list[Any]:
    """(n_i, R) for each of the modes."""
    xp, shape = _xp.namespace(x), tuple(int(n) for n in x.shape)
    if 0 in shape or rank == 0:
        return [xp.zeros((shape[i], rank), dtype=x.dtype, **_blocks.place(x)) for i in modes]
    order = _by_stride(x)
    if order != sorted(order):
        x = xp.permute_dims(x, tuple(order))
    _, at, _ = choose_method(tuple(x.shape), modes[0] if len(modes) == 1 else None)
    found = contracted(x, [mats[i] for i in order], at, [order.index(i) for i in modes])
    return [found[order.index(i)] for i in modes]


def _by_stride(x: Any) -> list[int]:
    """The modes from the slowest to the fastest in memory, as far as the library tells."""
    modes, strides = list(range(x.ndim)), getattr(x, "strides", None)
    if not isinstance(strides, tuple):
        return modes
    return sorted(modes, key=lambda i: -abs(strides[i]) if x.shape[i] > 1 else -math.inf)


def choose_method(shape: tuple[int, ...], mode: int | None) -> tuple[str, int, str]:
    """The method, how many modes make the first group, and the reason.

    ``first`` contracts the modes behind the split first, and of the rest all but ``mode`` then;
    ``last`` those before it first; ``tree`` both for all modes. The split is the cheapest, see
    `linalgk.kronecker._mttkrp_steps.split`.
    """
    at = split(shape)
    groups = f"groups of {math.prod(shape[:at])} and {math.prod(shape[at:])} cost the least beside"
    if mode is None:
        return "tree", at, f"all modes share two products; {groups}"
    return ("first" if mode < at else "last"), at, f"one product; {groups}"


# --- What a call would run ------------------------------------------------------------------------


def explain_mttkrp(x: Any, mats: Any, /, mode: Any = None, **_: Any) -> Explanation:
    """What a call would run."""
    x = _xp.as_array("x", x)
    mats, mode = _fit(x, mats, mode)
    entered = _door.enter({"x": x, **{str(i): a for i, a in enumerate(mats) if a is not None}})
    data = entered.arrays[0]
    order = _by_stride(data)
    shape = tuple(int(data.shape[i]) for i in order)
    method, at, reason = choose_method(shape, None if mode is None else order.index(mode))
    rank = next(int(a.shape[-1]) for a in mats if a is not None)
    p, q, real = math.prod(shape[:at]), math.prod(shape[at:]), 1.0
    more = 2.0 * (p * (at > 1) + q * (len(shape) - at > 1))
    if entered.dtype in _xp.COMPLEX:
        real = 4.0
    flops = real * rank * ((2.0 if mode is None else 1.0) * 2.0 * p * q + more)
    moved = np.dtype(entered.dtype).itemsize * (p * q + 2.0 * rank * sum(shape))
    chosen, why = MTTKRP.choose(data, entered.arrays[1], None, None, (True, False, False))
    runs = {"mttkrp_block": why if chosen is not None else f"reference ({why})"}
    return Explanation("mttkrp", method, reason, runs, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A tensor of three modes and a matrix for each."""
    shape, rank = {"small": ((4, 3, 5), 2), "medium": ((40, 50, 60), 8),
                   "large": ((300, 300, 300), 32)}[size]  # fmt: skip
    generator = np.random.default_rng(rng)
    mats = [xp.asarray(generator.standard_normal((n, rank))) for n in shape]
    return (xp.asarray(generator.standard_normal(shape)), mats), {}
