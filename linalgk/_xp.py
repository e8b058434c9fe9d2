"""Array types: namespace, kernel family and zero-copy views, found by one dictionary look-up."""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

REAL = {"float32": "float32", "float64": "float64", "complex64": "float32", "complex128": "float64"}
COMPLEX = ("complex64", "complex128")


class Face(NamedTuple):
    """How arrays of one type are computed with: as themselves, or through a NumPy view."""

    family: str  # "numpy", "cupy", "torch", "jax", "array_api"
    enter: Callable[[Any], Any]
    leave: Callable[[Any, Any], Any]  # (result, one of the caller's arrays) -> caller's type


def _same(x: Any, _like: Any = None) -> Any:
    return x


def _torch_enter(x: Any) -> Any:
    if x.requires_grad and sys.modules["torch"].is_grad_enabled():
        msg = (
            "array: a torch tensor that requires grad would be detached silently; call .detach() "
            "(this function has no derivatives)"
        )
        raise TypeError(msg)
    if x.device.type not in ("cpu", "cuda"):
        return x
    # a lazily conjugated tensor has no view in another library
    x = x.detach().resolve_conj().resolve_neg()
    if x.device.type == "cpu":
        return x.numpy()
    library = cupy()
    return x if library is None else library.from_dlpack(x)


@functools.cache
def cupy() -> Any:
    """CuPy, through which the tensors of a device reach the kernels, or None."""
    try:
        import cupy as library
    except ImportError:
        return None
    return library


def _torch_leave(x: Any, _like: Any) -> Any:
    torch = sys.modules["torch"]
    if is_cuda(x):
        return torch.from_dlpack(x)
    if not isinstance(x, np.ndarray | np.generic):
        return x
    return torch.from_numpy(np.asarray(x)) if np.ndim(x) else torch.asarray(x)


_FACES: dict[type, Face] = {
    np.ndarray: Face("numpy", _same, _same),
}


def face(x: Any) -> Face | None:
    """The face of this array's type, None if it is no array."""
    found = _FACES.get(type(x))
    if found is None:
        found = _find(x)
        if found is not None:
            _FACES[type(x)] = found
    return found


def _find(x: Any) -> Face | None:
    if isinstance(x, np.ma.MaskedArray):
        return None
    if isinstance(x, np.ndarray | np.generic):
        return Face("numpy", np.asarray, _same)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return Face("torch", _torch_enter, _torch_leave)
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(x, jax.Array):
        return Face("jax", _same, _same)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return Face("cupy", _same, _same)
    if hasattr(x, "__array_namespace__"):
        return Face("array_api", _same, _same)
    return None


def as_array(name: str, x: Any) -> Any:
    """An array as it is; nested Python numbers as a NumPy array."""
    if face(x) is not None:
        return x
    if isinstance(x, np.ma.MaskedArray):
        msg = f"{name}: a masked array has no values where it is masked; use {name}.filled(...)"
        raise TypeError(msg)
    if isinstance(x, bool | int | float | complex):
        return np.asarray(x)
    if isinstance(x, list | tuple):
        if _holds_array(x):
            msg = f"{name}: a list of arrays is not an array; stack them, or call once for each"
            raise TypeError(msg)
        try:
            return np.asarray(x)
        except ValueError as error:
            msg = f"{name}: nested numbers must form a rectangular array ({error})"
            raise ValueError(msg) from None
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        msg = f"{name}: must be a dense array, got {type(x).__name__}; use {name}.toarray()"
        raise TypeError(msg)
    msg = f"{name}: must be an array or nested numbers, got {type(x).__name__}"
    raise TypeError(msg)


def _holds_array(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return any(_holds_array(item) for item in x)
    return face(x) is not None and not isinstance(x, np.generic)


@functools.cache
def _compat(module: str) -> Any:
    import importlib

    return importlib.import_module(module)


def namespace(x: Any) -> Any:
    """Array-API namespace of an array that has entered; NumPy itself for NumPy arrays."""
    if isinstance(x, np.ndarray):
        return np
    return _compat("array_api_compat").array_namespace(x)


def same_family(**arrays: Any) -> None:
    """Raise unless all named arrays have one namespace and one device."""
    seen, traced = {}, any(map(is_traced, arrays.values()))
    for name, x in arrays.items():
        mine = face(x)
        family = mine.family if mine is not None else type(x).__name__
        library = namespace(x).__name__ if family == "array_api" else family
        # a tracer names its device by another word
        seen[name] = (library, "" if traced else str(getattr(x, "device", "cpu")))
    if len(set(seen.values())) > 1:
        got = ", ".join(f"{name} is {lib} on {device}" for name, (lib, device) in seen.items())
        msg = f"arrays must share one library and device: {got}; convert one of them"
        raise TypeError(msg)


def dtype_name(x: Any) -> str:
    """``"float64"`` and so on, for any array library."""
    return x.dtype.name if isinstance(x, np.ndarray) else str(x.dtype).rpartition(".")[2]


def dtype_of(xp: Any, name: str) -> Any:
    """The dtype of that name in a namespace."""
    if xp is not np and xp.__name__.startswith("jax"):  # float32 for float64 unless told otherwise
        return sys.modules["jax"].dtypes.canonicalize_dtype(name)
    return np.dtype(name) if xp is np else getattr(xp, name)


def is_cuda(x: Any) -> bool:
    """Whether the array is one that CUDA kernels take."""
    mine = face(x)
    return mine is not None and mine.family == "cupy"


def is_traced(x: Any) -> bool:
    """Whether values are unknown, under a transformation of JAX."""
    jax = sys.modules.get("jax")
    if jax is None:
        return False
    if isinstance(x, jax.core.Tracer):
        return True
    # of a constant inside jit every function is traced too
    return isinstance(x, jax.Array) and isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def fetch(x: Any) -> Any:
    """A copy on the host, for which the host waits until the device has done all that is queued."""
    return x.get()


def overlap(x: Any, y: Any) -> bool:
    """Whether two arrays of one library share memory, as far as it can tell."""
    if type(x) is type(y) and type(x).__module__.startswith("cupy"):
        return bool(sys.modules["cupy"].shares_memory(x, y))
    return isinstance(x, np.ndarray) and np.shares_memory(x, y)


def to_numpy(x: Any) -> Any:
    """A NumPy view, or a copy where the library offers no view."""
    if isinstance(x, np.ndarray):
        return x
    if is_cuda(x):
        return fetch(x)
    if getattr(x, "is_cuda", False):  # torch
        return x.cpu().numpy()
    if hasattr(x, "__dlpack__"):
        try:
            return np.from_dlpack(x)
        except (BufferError, RuntimeError, TypeError, ValueError):
            pass
    return np.asarray(x)


def from_numpy(x: Any, xp: Any, *, like: Any = None, device: Any = None, dtype: Any = None) -> Any:
    """A NumPy array in another namespace, on the device of ``like`` or the one named."""
    if xp is None or xp is np:
        return x if dtype is None else x.astype(dtype)
    if getattr(xp, "__name__", "") == "torch":
        xp = _compat("array_api_compat.torch")
    if like is not None and device is None:
        device = _compat("array_api_compat").device(like)
    if isinstance(dtype, str):
        dtype = dtype_of(xp, dtype)
    kwargs = {} if device is None else {"device": device}
    return xp.asarray(x.copy() if not x.flags.writeable else x, dtype=dtype, **kwargs)
