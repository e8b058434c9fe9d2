"""CUDA kernels: sources beside this file, compiled by NVRTC through CuPy when first used.

The loader inlines the headers into the source, because CuPy's disk cache sees only the text and the
options. Everything that touches a device goes through `backend`; the tests put an emulation there
which runs the same sources on the host.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent

# What -DLK_REAL= says for each dtype; complex arrays are read as pairs.
C_TYPES = {
    "float32": "float",
    "float64": "double",
    "complex64": "float",
    "complex128": "double",
}
PLANES = {"float32": 1, "float64": 1, "complex64": 2, "complex128": 2}
REAL = {"float32": "float32", "float64": "float64", "complex64": "float32", "complex128": "float64"}
SIZES = {"float": 4, "double": 8}
OPTIONS = ("--std=c++17",)
# What a block may take at most, by compute capability; other devices are asked.
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}


class KernelError(RuntimeError):
    """A kernel could not be compiled or no device answers."""


class Limits(NamedTuple):
    """What launches depend on."""

    shared_memory: int  # bytes a block may take
    multiprocessors: int


class Variant(NamedTuple):
    """A source with its constants, as some launch compiles it."""

    stem: str
    defines: dict[str, int]
    # (shared memory limit of a device, bytes of an element) -> dynamic shared memory at most
    dynamic: Callable[[int, int], int] | None = None
    oldest: int = 80  # compute capability


@functools.cache
def source(stem: str) -> str:
    """The text of ``<stem>.cu``, headers inlined once each, lines named as on disk."""
    seen: set[str] = set()

    def inlined(name: str) -> Iterator[str]:
        seen.add(name)
        yield f'#line 1 "{name}"'
        lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            found = re.match(r'\s*#include "([^"]+)"', line)
            if found and found[1] not in seen:
                yield from inlined(found[1])
                yield f'#line {number + 1} "{name}"'
            elif found or line.strip() == "#pragma once":
                yield ""
            else:
                yield line

    return "\n".join(inlined(f"{stem}.cu")) + "\n"


def options(dtype: str, **defines: int) -> tuple[str, ...]:
    """Compiler options for a dtype, and constants by name."""
    more = tuple(f"-D{name}={value}" for name, value in sorted(defines.items()))
    return (*OPTIONS, f"-DLK_REAL={C_TYPES[dtype]}", *more)


def first_error(log: str, text: str) -> str:
    """The first error of a compiler's log, with the source line it names."""
    lines = [line.strip() for line in log.splitlines()]
    error = next((line for line in lines if re.search(r"\berror\b", line)), " ".join(lines)[:300])
    found = re.match(r"([\w.]+)\((\d+)\)", error)
    if not found:
        return error
    name, number = found[1], int(found[2])
    current, at = "", 0
    for line in text.splitlines():
        marker = re.match(r'#line (\d+) "([^"]+)"', line)
        if marker:
            current, at = marker[2], int(marker[1])
            continue
        if (current, at) == (name, number):
            return f"{error}\n  {number} | {line}"
        at += 1
    return error


class Cupy:
    """The device through CuPy."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        try:
            cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            msg = f"no CUDA device answers ({error}); install a driver, or pass NumPy arrays"
            raise KernelError(msg) from None

    def device_of(self, like: Any) -> int:
        return int(like.device.id)

    def limits(self, device: int) -> Limits:
        attributes = self.cupy.cuda.Device(device).attributes
        return Limits(attributes["MaxSharedMemoryPerBlockOptin"], attributes["MultiProcessorCount"])

    def module(self, name: str, code: str, flags: tuple[str, ...]) -> Any:
        module = self.cupy.RawModule(code=code, options=flags, backend="nvrtc")
        try:
            module.compile()
        except self.cupy.cuda.compiler.CompileException as error:
            log = getattr(error, "_msg", str(error))
            msg = f"{name}: NVRTC failed: {first_error(log, code)}"
            raise KernelError(msg) from error
        return module

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        return self.cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        return self.cupy.zeros(shape, dtype)

    def array(self, host: Any, like: Any) -> Any:
        return self.cupy.asarray(host)

    def contiguous(self, x: Any) -> Any:
        return self.cupy.ascontiguousarray(x)

    def mode_product(self, f: Any, x: Any, out: Any, before: int, after: int) -> None:
        """Factors (c, p, q) times data (c, before, q, after) by cuBLAS, in longer buffers."""
        c, p, q = f.shape
        x = x.reshape(-1)[: c * before * q * after].reshape(c, before, q, after)
        y = out.reshape(-1)[: c * before * p * after].reshape(c, before, p, after)
        if after == 1:
            self.cupy.matmul(x[..., 0], f.swapaxes(-1, -2), out=y[..., 0])
        else:
            self.cupy.matmul(f[:, None], x, out=y)

    def on(self, device: int) -> Any:
        return self.cupy.cuda.Device(device)

    def eigh(self, a: Any) -> tuple[Any, Any]:
        # one matrix: divide and conquer; a stack: batched Jacobi
        w, v = self.cupy.linalg.eigh(a)
        return w, v

    def inverse_and_logdet(self, a: Any) -> tuple[Any, Any]:
        cupy = self.cupy
        if a.ndim > 2:
            return cupy.linalg.inv(a), cupy.linalg.slogdet(a)[1]
        # LU in place of the copy: (A^T) Y = I in column order is A^-1 in row order
        lu, x = a.copy(order="C"), cupy.eye(a.shape[0], dtype=a.dtype)
        import cupyx.lapack

        cupyx.lapack.gesv(lu.T, x.T)
        return x, cupy.log(cupy.abs(cupy.diagonal(lu))).sum()


class _Seam:
    """Where the device is reached; tests replace what is in it."""

    current: Any = None


def backend() -> Any:
    """The device layer, CuPy's unless a test put another in place."""
    if _Seam.current is None:
        _Seam.current = Cupy()
    return _Seam.current


@contextlib.contextmanager
def using(other: Any) -> Iterator[None]:
    """Run kernels through another device layer."""
    before, _Seam.current = _Seam.current, other
    for cached in (_function, _large_function, _limits, _constant):
        cached.cache_clear()
    try:
        yield
    finally:
        _Seam.current = before
        for cached in (_function, _large_function, _limits, _constant):
            cached.cache_clear()


@functools.cache
def _function(device: int, stem: str, symbol: str, flags: tuple[str, ...]) -> Any:
    with backend().on(device):
        return backend().module(f"{stem}.cu", source(stem), flags).get_function(symbol)


@functools.cache
def _large_function(device: int, stem: str, symbol: str, flags: tuple[str, ...]) -> Any:
    """The same, allowed all the shared memory there is: the cap belongs to the kernel, not to a
    launch, so that a cap for one order would refuse the next larger one.
    """
    function = _function(device, stem, symbol, flags)
    function.max_dynamic_shared_size_bytes = _limits(device).shared_memory
    return function


@functools.cache
def _limits(device: int) -> Limits:
    return backend().limits(device)


def limits(like: Any) -> Limits:
    """What the device of an array allows."""
    return _limits(backend().device_of(like))


@functools.cache
def _constant(device: int, keep: Any) -> Any:
    with backend().on(device):
        return backend().array(keep.value, None)


class _Kept:
    """Hashable by identity, and keeps the array whose address is its key alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and other.value is self.value


def constant(host: Any, like: Any) -> Any:
    """A NumPy table on the device of an array, copied there once; it must not change."""
    return _constant(backend().device_of(like), _Kept(host))


def launch(
    stem: str, symbol: str, dtype: str, grid: int, block: int, args: tuple[Any, ...], like: Any,
    shared: int = 0, **defines: int,
) -> None:  # fmt: skip
    """Queue a kernel on the device of ``like``, compiled for the dtype when first used."""
    device = backend().device_of(like)
    find = _large_function if shared > 48 * 1024 else _function
    function = find(device, stem, symbol, options(dtype, **defines))
    with backend().on(device):
        function((grid,), (block,), args, shared_mem=shared)


# Blocks of a launch over tiles or rows, for each multiprocessor: enough to balance them.
BLOCKS_EACH = 32


def grid(work: int, like: Any) -> int:
    """Blocks for so many tiles or rows; beyond this many, a block takes several."""
    return min(work, BLOCKS_EACH * limits(like).multiprocessors)


def dtype_name(x: Any) -> str:
    """``"float32"`` and so on, whatever the library calls it."""
    return str(x.dtype).rpartition(".")[2]


def warm_tasks() -> list[tuple[str, Callable[[], None]]]:
    """Label and job for every source to compile for the current device; none without one."""
    try:
        layer = backend()
    except (ImportError, KernelError):
        return []

    def task(variant: Variant, dtype: str) -> tuple[str, Callable[[], None]]:
        flags = options(dtype, **variant.defines)
        label = " ".join([f"cuda {variant.stem} {dtype}", *(f[2:] for f in flags[2:])])
        return label, lambda: layer.module(f"{variant.stem}.cu", source(variant.stem), flags)

    return [task(v, dtype) for v in variants() for dtype in ("float32", "float64")]


def warm() -> int:
    """Compile every source for the current device; how many there are."""
    tasks = warm_tasks()
    for _, job in tasks:
        job()
    return len(tasks)


def variants() -> list[Variant]:
    """Every source with every set of constants that a launch may ask for."""
    modules = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    return [v for name in modules for v in import_module(f"{__name__}.{name}").VARIANTS]
