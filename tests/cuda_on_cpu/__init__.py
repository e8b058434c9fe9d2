"""Run CUDA C++ kernels on the CPU, on NumPy arrays, with the interface of ``cupy.RawModule``.

    module = RawModule(code=text, options=("-DT=float",), mode="check")
    module.get_function("scale")((grid,), (block,), (x, out, np.int32(n)))

``mode="fast"`` runs plain code: shared memory starts as NaN, arrays end at closed pages, and the
seed chooses the order in which threads and blocks run. ``mode="check"`` sees every load and store
and finds races, missing barriers and waits, and everything out of bounds, with its line. Errors of
the kernel are `DeviceError`, mistakes in the call `LaunchError`.
"""

import ctypes
import re
import threading

import numpy as np

from . import build
from .build import CompileError, find_compiler, require

__all__ = [
    "CompileError",
    "DeviceError",
    "Function",
    "LaunchError",
    "RawModule",
    "find_compiler",
    "require",
]

STATIC_LIMIT = 48 * 1024
# "CUDA C++ Programming Guide", technical specifications per compute capability: 9.0 and 10.0.
DYNAMIC_LIMIT = 227 * 1024
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_THREADS = 1024

_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:void\s+)?'
    r"(?:__launch_bounds__\s*\((?P<bound>(?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)\s*)?"
    r"(?:void\s+)?(?P<name>\w+)\s*\("
)
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?"
    r"unsigned\s+char\s+(\w+)\s*\[\s*\]\s*;"
)
_PARAMETER = re.compile(r"(?P<pointer>\*?)(?P<const>!?)(?P<code>\S+)")

# The callbacks and the stacks of a runtime belong to one launch at a time.
_LAUNCHING = threading.Lock()


class DeviceError(RuntimeError):
    """A kernel did what it must not do."""


class LaunchError(TypeError, ValueError):
    """A kernel was called with arguments that do not fit."""


class _Argument(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("kind", ctypes.c_uint64),
    ]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("entry", ctypes.c_void_p),
        ("touch", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(_Argument)),
        ("argument_count", ctypes.c_uint64),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_bytes", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("flush_left", ctypes.c_uint32),
        ("truncate", ctypes.c_uint32),
        ("guards", ctypes.c_void_p),
        ("guard_count", ctypes.c_uint64),
        ("seconds", ctypes.c_double),
    ]


_SCALAR, _READ_ONLY, _WRITABLE = range(3)


class RawModule:
    """Kernels compiled for the CPU.

    Parameters
    ----------
    code : str
        CUDA C++. ``#line`` directives in it are respected.
    options : tuple of str
        NVRTC's options; definitions, the language standard and ``--fmad`` count.
    name_expressions : iterable of str, optional
        Instances of kernel templates, as in CuPy.
    mode : {"fast", "check"}
    seed : int
        0 runs threads and blocks upwards, 1 downwards, others at random.
    flush : {"right", "left"}
        Which end of an array lies at a closed page.
    name : str
        What messages call the code above its first ``#line``.
    tensor_rounding : {"exact", "truncate"}
        Sums of ``mma``: rounded once, or aligned and cut off as measured on devices.
    timeout : float
        Seconds of CPU time after which a kernel counts as endless.
    switch : {"assembly", "ucontext"}
        How threads are switched; the second is slow and works on any processor.
    """

    def __init__(
        self,
        *,
        code,
        options=(),
        name_expressions=None,
        mode="fast",
        seed=0,
        flush="right",
        name="kernel.cu",
        tensor_rounding="exact",
        timeout=60.0,
        switch="assembly",
    ):
        for value, allowed in (
            (mode, ("fast", "check")),
            (flush, ("right", "left")),
            (tensor_rounding, ("exact", "truncate")),
            (switch, ("assembly", "ucontext")),
        ):
            if value not in allowed:
                raise ValueError(f"{value!r} is not one of {allowed}")
        self.mode, self.seed, self.flush = mode, int(seed), flush
        self.tensor_rounding, self.timeout = tensor_rounding, timeout
        definitions, flags = build.translate_options(options)
        unit = _TranslationUnit(code, definitions, name)
        unit.find_kernels(flags, name_expressions or ())
        self._ids = unit.ids
        runtime = build.runtime(mode, ucontext=switch == "ucontext")
        self.path = build.module(unit.text(), flags, mode, runtime)
        guards = build.guards(self.path) if mode == "check" else []
        self._guards = np.array(guards, np.uint32)
        # Loaded first, so that the module finds it under its name wherever the cache lies.
        self._runtime = ctypes.CDLL(str(runtime))
        self._runtime.coc_launch.argtypes = [ctypes.POINTER(_Launch)]
        self._runtime.coc_message.restype = ctypes.c_char_p
        self._library = ctypes.CDLL(str(self.path))

    def get_function(self, name):
        """The kernel of this name, or for this name expression."""
        if name not in self._ids:
            raise LaunchError(f"there is no kernel {name!r}; there are {sorted(self._ids)}")
        return Function(self, name, self._ids[name])

    def _explain(self):
        """The message of the last failure, with addresses turned into places."""
        message = self._runtime.coc_message().decode(errors="replace")
        offsets = [int(offset, 16) for offset in re.findall("\x01([0-9a-f]+)\x02", message)]
        if offsets:
            found = iter(build.places(self.path, offsets))
            message = re.sub("\x01[0-9a-f]+\x02", lambda _: next(found), message)
        return message


class _TranslationUnit:
    """The text to compile, and each kernel's identifier in it."""

    def __init__(self, code, definitions, name):
        body = _DYNAMIC.sub(r"unsigned char *const \1 = coc_dynamic_shared();", code)
        if re.search(r"^[^/\n]*\bextern\s+__shared__", body, re.MULTILINE):
            raise CompileError(
                "dynamic shared memory is declared as "
                "'extern __shared__ __align__(16) unsigned char name[];' and in no other way"
            )
        self._body = f'{definitions}#line 1 "{name}"\n{body}\n'
        self._exports = ["COC_MODULE"]
        self.ids = {}

    def find_kernels(self, flags, name_expressions):
        # The preprocessor knows which kernels there are for these options; CUDA's own words pass
        # through it unchanged, as the shim is not read.
        for match in _KERNEL.finditer(build.preprocess(self._body, flags)):
            bound = f"coc_first({match['bound']})" if match["bound"] else MAX_THREADS
            if match["name"] not in self.ids:
                self._export(match["name"], match["name"], bound)
        for number, expression in enumerate(name_expressions):
            self._export(f"instance_{number}", expression, MAX_THREADS)

    def _export(self, identifier, kernel, bound):
        self.ids[kernel] = identifier
        self._exports.append(f"COC_EXPORT({identifier}, {bound}, {kernel})")

    def text(self):
        # Statics of templates would be shared between modules outside of an unnamed namespace.
        exports = "\n".join(self._exports)
        head = '#include "cuda_on_cpu.h"\nnamespace {\n'
        return f'{head}{self._body}}}\n#line 1 "exports"\n{exports}\n'


class Function:
    """A kernel: ``function(grid, block, args, shared_mem=0)``."""

    def __init__(self, module, name, identifier):
        self.name = name
        self._module = module
        library = module._library
        self._entry = ctypes.cast(getattr(library, f"coc_entry_{identifier}"), ctypes.c_void_p)
        self._touch = ctypes.cast(library.coc_touch, ctypes.c_void_p)
        signature = getattr(library, f"coc_signature_{identifier}")
        signature.restype = ctypes.c_char_p
        self.signature = signature().decode().split()
        self._parameters = [_Parameter(i, code) for i, code in enumerate(self.signature)]
        self._bound = getattr(library, f"coc_bound_{identifier}")()
        self._max_dynamic = STATIC_LIMIT

    @property
    def max_dynamic_shared_size_bytes(self):
        """How much dynamic shared memory a launch may ask for."""
        return self._max_dynamic

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if not 0 <= size <= DYNAMIC_LIMIT:
            raise LaunchError(
                f"max_dynamic_shared_size_bytes of {self.name} must be at most {DYNAMIC_LIMIT} "
                f"(227 KB), not {size}"
            )
        self._max_dynamic = int(size)

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        grid = self._extent("grid", grid, MAX_GRID)
        block = self._extent("block", block, MAX_BLOCK)
        threads = block[0] * block[1] * block[2]
        if threads > self._bound:
            raise LaunchError(f"{self.name}: {threads} threads, bounded by {self._bound}")
        if not 0 <= shared_mem <= self._max_dynamic:
            raise LaunchError(
                f"{self.name}: {shared_mem} bytes of dynamic shared memory, but "
                f"max_dynamic_shared_size_bytes is {self._max_dynamic}"
            )
        if len(args) != len(self._parameters):
            raise LaunchError(
                f"{self.name} takes {len(self._parameters)} arguments, got {len(args)}"
            )
        converted = [
            parameter.convert(self.name, value)
            for parameter, value in zip(self._parameters, args, strict=True)
        ]
        # The buffers of scalars, too, have to live until the kernel has returned.
        arguments = (_Argument * max(1, len(args)))(*(argument for argument, _ in converted))
        module = self._module
        launch = _Launch(
            self._entry,
            self._touch,
            arguments,
            len(args),
            grid,
            block,
            shared_mem,
            module.seed,
            module.flush == "left",
            module.tensor_rounding == "truncate",
            _address(module._guards),
            module._guards.size,
            module.timeout,
        )
        with _LAUNCHING:
            failed = module._runtime.coc_launch(launch)
            message = module._explain() if failed else ""
        if failed:
            raise DeviceError(message)

    def _extent(self, what, value, limits):
        sizes = (*value, 1, 1)[:3] if 1 <= len(value) <= 3 else ()
        if not sizes or not all(1 <= n <= most for n, most in zip(sizes, limits, strict=True)):
            raise LaunchError(f"{self.name}: {what} is {value}, limits are 1 to {limits}")
        return tuple(int(n) for n in sizes)


class _Parameter:
    """A parameter: ``*!f4`` is ``const float *``, ``f4x2`` is ``float2``, ``V16`` a struct."""

    def __init__(self, index, signature):
        match = _PARAMETER.fullmatch(signature)
        self.index, self.signature = index, signature
        self.is_pointer, self.is_const = bool(match["pointer"]), bool(match["const"])
        self.code = match["code"]

    def convert(self, kernel, value):
        """The C side of an argument, and what has to be kept alive."""
        if self.is_pointer:
            return self._convert_pointer(kernel, value)
        if isinstance(value, np.ndarray):
            raise self._wrong(kernel, value, "an array where a scalar is meant")
        # As in CuPy.
        if isinstance(value, int):
            scalar, note = np.int64(value), "a Python int is passed as int64"
        elif isinstance(value, float) and not isinstance(value, np.floating):
            scalar, note = np.float64(value), "a Python float is passed as float64"
        elif isinstance(value, complex) and not isinstance(value, np.complexfloating):
            scalar, note = np.complex128(value), "a Python complex is passed as complex128"
        else:
            scalar, note = value, "the types differ"
        if not isinstance(scalar, np.generic) or not _same(self.code, scalar.dtype, scalar=True):
            raise self._wrong(kernel, value, note)
        held = np.array(scalar)
        return _Argument(_address(held), held.nbytes, _SCALAR), held

    def _convert_pointer(self, kernel, value):
        if value is None:
            held = np.zeros(1, np.uintp)
            return _Argument(_address(held), held.nbytes, _SCALAR), held
        if not isinstance(value, np.ndarray):
            raise self._wrong(kernel, value, "a pointer takes an array or None")
        if not _same(self.code, value.dtype, scalar=False):
            raise self._wrong(kernel, value, "the types differ")
        if not (value.flags.c_contiguous or value.flags.f_contiguous):
            raise self._wrong(kernel, value, "the array is not contiguous")
        if not (self.is_const or value.flags.writeable):
            raise self._wrong(kernel, value, "the array is read-only, the pointer is not const")
        kind = _READ_ONLY if self.is_const else _WRITABLE
        return _Argument(_address(value), value.nbytes, kind), value

    def _wrong(self, kernel, value, note):
        got = f"{type(value).__name__}"
        if isinstance(value, np.ndarray):
            got += f" of {value.dtype}"
        return LaunchError(
            f"{kernel}: argument {self.index} is {got}, the parameter is {self.signature!r}: {note}"
        )


def _address(array):
    return array.__array_interface__["data"][0]


def _same(code, dtype, *, scalar):
    """Whether a NumPy dtype is what a type code of a signature means."""
    if code == "v":
        return not scalar
    if code == "bf":
        # NumPy has no bfloat16 of its own: ml_dtypes' one, or its bits.
        return dtype.name == "bfloat16" or (dtype == np.uint16 and not scalar)
    if code == "b1":
        return dtype == np.bool_
    if code[0] == "V":
        return dtype.kind in "Vc" and dtype.itemsize == int(code[1:])
    if "x" in code:
        element, count = code.split("x")
        width = (2 if element == "bf" else int(element[1])) * int(count)
        if dtype.kind in "Vc":
            return dtype.itemsize == width and (dtype.kind == "V" or element in ("f4", "f8"))
        return not scalar and _same(element, dtype, scalar=False)
    if not re.fullmatch(r"[fiu]\d", code):
        return False
    return dtype == np.dtype(code)
