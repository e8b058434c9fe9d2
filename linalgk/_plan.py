"""Decisions made once: which method and kernel, with how much memory, for arrays to come."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Explanation, functions
from linalgk._results import Info
from linalgk.errors import DeviceError, MemberError


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """What an array will be, without its values.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype or str
    xp : namespace, optional
        Of the array's library; default NumPy.
    device : object, optional
        As that library names it.

    Examples
    --------
    >>> import linalgk as lk
    >>> lk.ArraySpec((64, 256, 256), "float32")
    ArraySpec(shape=(64, 256, 256), dtype='float32', xp=None, device=None)
    """

    shape: tuple[int, ...]
    dtype: Any
    xp: Any = None
    device: Any = None

    def empty(self) -> Any:
        """An array of this kind, its values not set."""
        xp = np if self.xp is None else self.xp
        name = str(self.dtype).rpartition(".")[2]
        dtype = getattr(xp, name) if xp is not np and hasattr(xp, name) else self.dtype
        where = {} if xp is np or self.device is None else {"device": self.device}
        try:
            return xp.empty(self.shape, dtype=dtype, **where)
        except Exception as error:
            if type(error).__name__ != "CUDARuntimeError":
                raise
            msg = (
                f"ArraySpec: no CUDA device answers {xp.__name__} ({error}); install a driver, "
                "or describe arrays of another library"
            )
            raise DeviceError(msg) from None


class Worker(Protocol):
    """What a room's plan builder returns."""

    workspace_nbytes: int
    status: Any

    def run(self, arrays: tuple[Any, ...], out: Any) -> Any:
        """Compute; ``out`` is None or of the right kind."""


class Plan:
    """A function with every decision made; see `plan`."""

    def __init__(
        self, name: str, kinds: list[Any], worker: Worker, explanation: Explanation, out: Any
    ) -> None:
        self._name, self._worker, self._explanation = name, worker, explanation
        self._kinds = [_kind(x) for x in kinds]
        self._out = _kind(out)

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Compute for arrays of the shapes, dtypes and devices that were planned.

        Parameters
        ----------
        *arrays : array
            In the order of the function's array arguments.
        out : array, optional
            Where to put the result; the only matrix allocated otherwise.

        Raises
        ------
        ValueError
            If an array is of another kind than planned.
        """
        if [*map(_kind, arrays)] != self._kinds or (out is not None and _kind(out) != self._out):
            got = ", ".join(map(_describe, arrays if out is None else (*arrays, out)))
            wanted = ", ".join(map(_show, [*self._kinds, *([] if out is None else [self._out])]))
            msg = f"plan of {self._name}: made for {wanted}, got {got}; make another plan"
            raise ValueError(msg)
        return self._worker.run(arrays, out)

    @property
    def status(self) -> Any:
        """0 for each member of the last call that is fine; None before the first."""
        return self._worker.status

    @property
    def workspace_nbytes(self) -> int:
        """Bytes that the plan holds, apart from outputs."""
        return self._worker.workspace_nbytes

    def explain(self) -> Explanation:
        """Which method and implementation it runs, why, and the cost."""
        return self._explanation

    def __repr__(self) -> str:
        """Function, kinds and method."""
        kinds = ", ".join(map(_show, self._kinds))
        return f"Plan({self._name}, {kinds}, method={self._explanation.method!r})"


def plan(func: Callable[..., Any], /, *args: Any, **options: Any) -> Plan:
    """Make every decision of a call ahead: method, schedule, kernels, workspace.

    Parameters
    ----------
    func : callable
        A public function whose record in `functions` has ``plan=True``.
    *args
        What it will be called with: `ArraySpec`, or arrays, which stand for their kind.
    **options
        Options of the function. What it would have found out from the values has to be said, such
        as ``assume_a``.

    Returns
    -------
    plan : Plan
        ``plan(*arrays, out=...)`` compares shapes, dtypes and devices and computes, without looking
        at the values first; failures are in ``plan.status``, and raised only under the default
        ``on_fail="raise"``. A plan is not to be called from two threads at once: it has one
        workspace.

    Raises
    ------
    TypeError
        If the function has no plans.
    ValueError
        If an option is missing or contradicts another.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> root = lk.plan(lk.inv_root, lk.ArraySpec((8, 40, 40), "float64"), 4, assume_a="pos")
    >>> a = lk.testing.spd_matrix(40, batch=(8,))
    >>> z = np.empty_like(a)
    >>> root(a, out=z) is z
    True
    >>> bool((z == lk.inv_root(a, 4)).all()), root.workspace_nbytes > z.nbytes
    (True, True)
    """
    for record in functions():
        if record.function is func:
            break
    else:
        msg = f"func: must be a public function of linalgk, got {func!r}"
        raise TypeError(msg)
    if record.plan is None:
        names = ", ".join(r.name for r in functions() if r.plan is not None)
        msg = f"func: {record.name} has no plans; there are plans for {names}"
        raise TypeError(msg)
    kinds = [_as_empty(x) for x in args if _is_given(x)]
    rest = [x for x in args if not _is_given(x)]
    worker, explanation, out = record.plan(*kinds, *rest, **options)
    return Plan(record.name, kinds, worker, explanation, out)


def _is_array(x: Any) -> bool:
    return isinstance(x, ArraySpec) or (_xp.face(x) is not None and not isinstance(x, np.generic))


def _is_given(x: Any) -> bool:
    """Whether it is an array, or a list of arrays."""
    return _is_array(x) or (isinstance(x, list | tuple) and bool(x) and all(map(_is_array, x)))


def _as_empty(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return [_as_empty(item) for item in x]
    return x.empty() if isinstance(x, ArraySpec) else x


def _kind(x: Any) -> tuple[Any, ...]:
    if isinstance(x, list | tuple):
        return (list, tuple(_kind(item) for item in x))
    shape, dtype = getattr(x, "shape", ()), getattr(x, "dtype", None)
    return type(x), tuple(shape), dtype, getattr(x, "device", None)


def _show(kind: tuple[Any, ...]) -> str:
    if kind[0] is list:
        return f"[{', '.join(map(_show, kind[1]))}]"
    return f"{kind[0].__name__} {kind[1]} {kind[2]}"


def _describe(x: Any) -> str:
    return _show(_kind(x)) if _is_given(x) else type(x).__name__


def foreach(
    func: Callable[..., Any], arrays: Sequence[Any], /, *args: Any, **options: Any
) -> list[Any]:
    """Apply a batched function to many arrays of many shapes, one call for each shape.

    Parameters
    ----------
    func : callable
        A public function of linalgk whose first argument is an array with leading batch axes.
    arrays : sequence of array
        Each is one member, or a batch of its own; shapes, dtypes, libraries and devices may differ.
    *args, **options
        Passed on to every call.

    Returns
    -------
    results : list
        What ``func`` returns for each array, in their order; pairs ``(result, info)`` with
        ``return_info=True``.

    Raises
    ------
    TypeError
        If ``arrays`` is one array, or holds what is none.
    MemberError
        The error that ``func`` raised for some arrays, of the same class; ``index`` are their
        positions in ``arrays`` (with the batch index behind, if they are batches) and ``result``
        the list, the others intact.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> layers = [np.ones((3, 4)), np.eye(2), np.ones((3, 4))]
    >>> [u.shape for u in lk.foreach(lk.orthogonalize, layers)]
    [(3, 4), (2, 2), (3, 4)]
    """
    if _is_array(arrays) or not isinstance(arrays, Sequence):
        msg = f"arrays: must be a list of arrays, got {type(arrays).__name__}; call func itself"
        raise TypeError(msg)
    groups: dict[Any, list[int]] = {}
    for k, x in enumerate(arrays):
        if not _is_array(x):
            msg = f"arrays: item {k} is no array but {type(x).__name__}"
            raise TypeError(msg)
        family, shape, dtype, device = _kind(x)
        groups.setdefault((family, shape, str(dtype), str(device)), []).append(k)
    results: list[Any] = [None] * len(arrays)
    failure: MemberError | None = None
    where: list[tuple[int, ...]] = []
    for members in groups.values():
        xp = _xp.namespace(arrays[members[0]])
        try:
            found = func(xp.stack([arrays[k] for k in members]), *args, **options)
        except MemberError as error:
            found, failure = error.result, failure or error
            where += [(members[i[0]], *i[1:]) for i in error.index]
        for position, k in enumerate(members):
            results[k] = _member(found, position)
    if failure is not None:
        index = tuple(sorted(where))
        msg = f"{failure} (positions in arrays: {', '.join(str(i[0]) for i in index[:8])})"
        raise type(failure)(msg, index, results)
    return results


def _member(found: Any, k: int) -> Any:
    """One member of a result, of a pair with `Info`, or of a tuple of results."""
    if isinstance(found, Info):
        fields = {name: getattr(found, name) for name in found.to_dict()}
        return Info(**{n: v if n == "method" else v[k, ...] for n, v in fields.items()})
    if isinstance(found, tuple):
        parts = [_member(part, k) for part in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    return found[k, ...]
