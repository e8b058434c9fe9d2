"""Every argument check and its sentence."""

import math
import numbers
from collections.abc import Iterable
from typing import Any, get_args

import numpy as np

from linalgk import _xp
from linalgk._config import current
from linalgk.typing import OnFail

_FLOATS = ("float32", "float64", "complex64", "complex128")
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def real_between(name: str, x: Any, low: float, high: float, *, low_open: bool = False) -> float:
    """A finite real number in [low, high], or ]low, high]."""
    if not isinstance(x, numbers.Real) or isinstance(x, bool):
        msg = f"{name}: must be a real number, got {type(x).__name__}"
        raise TypeError(msg)
    value = float(x)
    if not (low < value <= high or (value == low and not low_open)) or not math.isfinite(value):
        relation = "<" if low_open else "<="
        msg = f"{name}: must satisfy {low:g} {relation} {name} <= {high:g}, got {value!r}"
        raise ValueError(msg)
    return value


def integer(name: str, x: Any, low: int) -> int:
    """An integer of at least ``low``."""
    if not isinstance(x, numbers.Integral) or isinstance(x, bool):
        msg = f"{name}: must be an integer, got {x!r}"
        raise TypeError(msg)
    if x < low:
        msg = f"{name}: must be at least {low}, got {x}"
        raise ValueError(msg)
    return int(x)


def choice(name: str, x: Any, allowed: Iterable[Any]) -> Any:
    """One of a few values."""
    allowed = tuple(allowed)
    if x not in allowed:
        msg = f"{name}: must be one of {', '.join(map(repr, allowed))}, got {x!r}"
        raise ValueError(msg)
    return x


def on_fail(x: Any) -> OnFail:
    """The argument, or the context's default."""
    return current().on_fail if x is None else choice("on_fail", x, get_args(OnFail))


def check_finite(x: Any) -> bool:
    """The argument, or the context's default."""
    return current().check_finite if x is None else bool(x)


def floating(name: str, x: Any) -> Any:
    """The array in a dtype that kernels know: integers become float64 (else float32)."""
    dtype = _xp.dtype_name(x)
    if dtype in _FLOATS:
        if isinstance(x, np.ndarray) and not x.dtype.isnative:
            return x.astype(x.dtype.newbyteorder("="))
        return x
    xp = _xp.namespace(x)
    if dtype in _INTEGERS:
        return xp.astype(x, _xp.dtype_of(xp, "float64"))
    msg = (
        f"{name}: dtype must be float32, float64, complex64, complex128 or an integer type, "
        f"got {dtype}; convert with astype first"
    )
    raise TypeError(msg)


def square(name: str, x: Any) -> int:
    """The order n of an array of shape (..., n, n)."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        msg = f"{name}: must have shape (..., n, n), got {tuple(x.shape)}"
        raise ValueError(msg)
    return int(x.shape[-1])


def compute_dtype(x: Any, dtype: str) -> str:
    """The name of the dtype to compute in, complex where the data are."""
    if x is None:
        return dtype
    name = str(x).rpartition(".")[2]
    try:
        name = name if name in _FLOATS else np.dtype(x).name
    except TypeError:
        name = str(x)
    choice("compute_dtype", name, _FLOATS)
    if dtype in _xp.COMPLEX and name not in _xp.COMPLEX:
        name = {"float32": "complex64", "float64": "complex128"}[name]
    if name in _xp.COMPLEX and dtype not in _xp.COMPLEX:
        msg = f"compute_dtype: {name} for a real array would give a complex result; pass a + 0j"
        raise ValueError(msg)
    return name


def per_member(name: str, x: Any, batch: tuple[int, ...]) -> Any:
    """A non-negative float, or one per member: NumPy float64 of the flattened batch."""
    if isinstance(x, numbers.Real):
        real_between(name, x, 0.0, math.inf)
        return np.full(math.prod(batch), float(x))
    if _xp.face(x) is None and not isinstance(x, list | tuple):
        msg = f"{name}: must be a number or one per member, got {type(x).__name__}"
        raise TypeError(msg)
    values = np.asarray(_xp.to_numpy(x), dtype=np.float64)
    if values.shape != batch and values.ndim != 0:
        msg = f"{name}: must be a number or have the batch shape {batch}, got {values.shape}"
        raise ValueError(msg)
    if not (np.isfinite(values) & (values >= 0)).all():
        msg = f"{name}: must be finite and not negative, got {values.min()}"
        raise ValueError(msg)
    return np.broadcast_to(values, batch).reshape(-1)


def out(x: Any, a: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An output array: same library, exact shape and dtype, no overlap with the input."""
    mine, theirs = _xp.face(x), _xp.face(a)
    if mine is None or theirs is None or mine.family != theirs.family:
        msg = f"out: must be an array of the same library as the input, got {type(x).__name__}"
        raise TypeError(msg)
    if mine.family == "jax":
        msg = "out: JAX arrays cannot be written to"
        raise TypeError(msg)
    if tuple(x.shape) != shape:
        msg = f"out: must have shape {shape}, got {tuple(x.shape)}"
        raise ValueError(msg)
    if _xp.dtype_name(x) != dtype:
        msg = f"out: must have dtype {dtype}, got {_xp.dtype_name(x)}"
        raise TypeError(msg)
    if str(getattr(x, "device", "")) != str(getattr(a, "device", "")):
        msg = f"out: must be on the device of the input, {a.device}, got {x.device}"
        raise TypeError(msg)
    view, source = mine.enter(x), theirs.enter(a)
    if isinstance(view, np.ndarray) and not view.flags.writeable:
        msg = "out: is read-only"
        raise ValueError(msg)
    if _xp.overlap(view, source):
        msg = "out: overlaps the input; pass another array"
        raise ValueError(msg)
    return view
