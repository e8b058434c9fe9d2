"""What comes in at this room's doors: lists of factors, and arrays of one library and dtype."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk.errors import NonFiniteError

# Stored in these, computed in float32.
HALF = ("float16", "bfloat16")


class Entered(NamedTuple):
    """Arrays as they are computed with, all in one dtype."""

    arrays: tuple[Any, ...]
    dtype: str  # that they are computed in
    stored: str  # that results have: another for half precision only
    face: _xp.Face
    like: Any  # one of the caller's arrays

    def leave(self, x: Any) -> Any:
        """A result in the caller's library and dtype."""
        y = self.face.leave(x, self.like)
        if self.stored == self.dtype:
            return y
        if self.face.family == "torch":
            return y.to(self.like.dtype)
        return y.astype(self.like.dtype) if isinstance(y, np.ndarray) else _cast(y, self.like)


def compiled() -> Any:
    """PyTorch's face of this room where its compiler looks, which does not follow our doors."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.compiler.is_compiling():
        return None
    from linalgk.interop import _torch_kron

    return _torch_kron


def matrices(name: str, items: Any, *, least: int = 1) -> list[Any]:
    """A list of arrays of shape (..., p, q), as they are."""
    if _xp.face(items) is not None or isinstance(items, str | bytes):
        msg = f"{name}: must be a list of matrices, got one {type(items).__name__}"
        raise TypeError(msg)
    if not isinstance(items, Sequence):
        msg = f"{name}: must be a list or tuple of matrices, got {type(items).__name__}"
        raise TypeError(msg)
    if len(items) < least:
        msg = (
            f"{name}: needs at least {least} matri{'x' if least == 1 else 'ces'}, got {len(items)}"
        )
        raise ValueError(msg)
    found = [_xp.as_array(f"{name}[{i}]", x) for i, x in enumerate(items)]
    for i, x in enumerate(found):
        if x.ndim < 2:
            msg = f"{name}[{i}]: must have shape (..., p, q), got {tuple(x.shape)}"
            raise ValueError(msg)
    return found


def enter(arrays: dict[str, Any]) -> Entered:
    """Named arrays in the dtype that they promote to; all of one library and device."""
    like = next(iter(arrays.values()))
    face = _xp.face(like)
    assert face is not None
    if all(type(x) is np.ndarray and x.dtype == like.dtype for x in arrays.values()):
        name = like.dtype.name
        if name in _xp.REAL and like.dtype.isnative:
            return Entered(tuple(arrays.values()), name, name, face, like)
    _xp.same_family(**arrays)
    stored = _common_half(list(arrays.values()))
    inside = [
        widened(x, face) if _xp.dtype_name(x) in HALF else _validate.floating(name, face.enter(x))
        for name, x in arrays.items()
    ]
    xp = _xp.namespace(inside[0])
    dtypes = {_xp.dtype_name(x) for x in inside}
    if len(dtypes) > 1:
        wide = xp.result_type(*inside)
        inside = [x if x.dtype == wide else xp.astype(x, wide) for x in inside]
    dtype = _xp.dtype_name(inside[0])
    return Entered(tuple(inside), dtype, stored or dtype, face, like)


def _common_half(arrays: list[Any]) -> str:
    """The half precision that all arrays have, or nothing."""
    names = {_xp.dtype_name(x) for x in arrays}
    return names.pop() if len(names) == 1 and names <= set(HALF) else ""


def widened(x: Any, face: _xp.Face) -> Any:
    """Half precision in float32, entered."""
    if face.family == "torch":
        return face.enter(x.to(sys.modules["torch"].float32))
    x = face.enter(x)
    xp = _xp.namespace(x)
    return x.astype(np.float32) if isinstance(x, np.ndarray) else xp.astype(x, xp.float32)


def _cast(x: Any, like: Any) -> Any:
    return _xp.namespace(x).astype(x, like.dtype)


def check_finite(name: str, items: Sequence[Any]) -> None:
    """Raise if a matrix holds NaN or infinity; of a device one number is read if none does."""
    if isinstance(items[0], np.ndarray):
        flags = [bool(np.isfinite(x).all()) for x in items]
    else:
        xp = _xp.namespace(items[0])
        finite = xp.stack([xp.all(xp.isfinite(x)) for x in items])
        flags = [True] if bool(xp.all(finite)) else [bool(x) for x in _xp.to_numpy(finite)]
    if not all(flags):
        msg = f"{name}[{flags.index(False)}]: holds NaN or infinity; check_finite=False skips this"
        raise NonFiniteError(msg)
