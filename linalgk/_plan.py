"""Decisions made once: which method and kernel, with how much memory, for arrays to come."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Explanation, functions
from linalgk.errors import DeviceError


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
    kinds = [_as_empty(x) for x in args if _is_array(x)]
    rest = [x for x in args if not _is_array(x)]
    worker, explanation, out = record.plan(*kinds, *rest, **options)
    return Plan(record.name, kinds, worker, explanation, out)


def _is_array(x: Any) -> bool:
    return isinstance(x, ArraySpec) or (_xp.face(x) is not None and not isinstance(x, np.generic))


def _as_empty(x: Any) -> Any:
    return x.empty() if isinstance(x, ArraySpec) else x


def _kind(x: Any) -> tuple[Any, ...]:
    shape, dtype = getattr(x, "shape", ()), getattr(x, "dtype", None)
    return type(x), tuple(shape), dtype, getattr(x, "device", None)


def _show(kind: tuple[Any, ...]) -> str:
    return f"{kind[0].__name__} {kind[1]} {kind[2]}"


def _describe(x: Any) -> str:
    return _show(_kind(x)) if _is_array(x) else type(x).__name__
