"""Compile kernels and the runtime with the host's C++ compiler, and keep what was compiled."""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SHIM = HERE / "shim"
RUNTIME = HERE / "runtime"
KEPT_SECONDS = 30 * 24 * 3600
MAX_ERRORS = 6000

COMMON = (
    *("-fPIC", "-fvisibility=hidden", "-march=native", "-fno-strict-aliasing", "-fno-math-errno"),
    # A frame larger than the closed page below a stack would else step over it.
    "-fstack-clash-protection",
    # GCC contracts products and sums, as NVRTC does, only where it thinks the search expensive.
    "-fexpensive-optimizations",
    # addr2line misreads the file names of DWARF 5.
    *("-g1", "-gdwarf-4", "-w"),
)
SANITIZED = "alignment,shift-exponent,integer-divide-by-zero,signed-integer-overflow,return"


class CompileError(RuntimeError):
    """The host's compiler refuses a kernel."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the command, and what ``--version`` says."""

    command: tuple[str, ...]
    version: str

    @property
    def is_clang(self):
        return "clang" in self.version


@functools.cache
def find_compiler():
    """The C++ compiler, or None. ``CXX`` goes first."""
    # The runtime finds shared memory with dl_iterate_phdr and gets its alarm by thread.
    if not sys.platform.startswith("linux"):
        return None
    candidates = [tuple(os.environ.get("CXX", "").split()), ("g++",), ("clang++",), ("c++",)]
    for command in candidates:
        if not command or shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        if done.returncode == 0:
            return Compiler(command, done.stdout)
    return None


def require():
    """Skip the running test where no compiler is found."""
    if find_compiler() is None:
        import pytest

        pytest.skip("no C++ compiler found for tests/cuda_on_cpu")


@functools.cache
def _cpu():
    # -march=native compiles for this one.
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    lines = [line for line in text.splitlines() if re.match("model name|flags|Features", line)]
    return "\n".join(sorted(set(lines)))


@functools.cache
def cache_folder():
    """Where compiled libraries are kept: ``LINALGK_EMULATION_CACHE`` or the user's cache folder."""
    named = os.environ.get("LINALGK_EMULATION_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else base / "linalgk" / "cuda_on_cpu"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"linalgk-cuda-on-cpu-{os.getuid()}"
        folder.mkdir(exist_ok=True)
    return folder


@functools.cache
def _own_text(folder):
    return "".join(path.read_text() for path in sorted(folder.iterdir()) if path.is_file())


def _kept(prefix, parts, make):
    """The library for these parts, made by ``make(path)`` unless it is there already."""
    compiler = find_compiler()
    if compiler is None:
        raise CompileError("no C++ compiler was found")
    parts = (compiler.command, compiler.version, _cpu(), *parts)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    path = cache_folder() / f"{prefix}-{key}.so"
    if path.exists():
        if time.time() - path.stat().st_mtime > KEPT_SECONDS / 2:
            path.touch()
        return path
    # Another process may be making the same one: each has a name of its own until it is whole.
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=cache_folder()) as work:
        made = Path(work) / path.name
        make(compiler, made)
        made.replace(path)
    return path


def _run(command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        errors = done.stderr.strip()[:MAX_ERRORS]
        raise CompileError(errors or f"{command[0]} failed: {done.returncode}")
    return done.stdout


def _forget_old():
    for path in cache_folder().glob("*-*.so"):
        try:
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()
        except OSError:  # somebody else did
            continue


def runtime(mode, ucontext=False):
    """The path of the runtime for a mode."""
    names = ["sched", "warp", "memory", *(["check"] if mode == "check" else [])]
    flags = [*COMMON, "-std=c++17", "-O2", "-U_FORTIFY_SOURCE"]
    flags += ["-DCOC_CHECK"] * (mode == "check") + ["-DCOC_UCONTEXT"] * ucontext

    def make(compiler, path):
        _forget_old()
        _run(
            [
                *(*compiler.command, "-shared", *flags, f"-Wl,-soname,{path.name}", "-Wl,-z,defs"),
                *("-o", str(path), *(str(RUNTIME / f"{name}.cpp") for name in names), "-lrt"),
            ]
        )

    return _kept(f"runtime-{mode}", (_own_text(RUNTIME), flags), make)


def translate_options(options):
    """The definitions among NVRTC's options as text, and what else counts as the host's flags.

    Definitions must not reach the shim, whose own names they might be. Options that only concern a
    GPU are left out.
    """
    flags = {"std": "-std=c++17", "contract": "-ffp-contract=fast"}
    includes, lines = [], []
    following = iter(options)
    for given in following:
        option = given + next(following) if given in ("-D", "-U", "-I") else given
        if match := re.fullmatch(r"(?:-D|--define-macro=)([^=]+)=?(.*)", option, re.DOTALL):
            value = match[2] if "=" in option[2:].removeprefix("-define-macro=") else "1"
            lines.append(f"#define {match[1]} {value}")
        elif match := re.fullmatch(r"(?:-U|--undefine-macro=)(.+)", option):
            lines.append(f"#undef {match[1]}")
        elif option.startswith("-I"):
            includes.append(option)
        elif match := re.fullmatch(r"--?std=(.*)", option):
            flags["std"] = f"-std={match[1]}"
        elif match := re.fullmatch(r"--?fmad=(.*)", option):
            flags["contract"] = "-ffp-contract=" + ("fast" if match[1] == "true" else "off")
    return "".join(f"{line}\n" for line in lines), (*includes, *flags.values())


@functools.cache
def preprocess(text, flags):
    """The text after the preprocessor."""
    compiler = find_compiler()
    if compiler is None:
        raise CompileError("no C++ compiler was found")
    command = [*compiler.command, "-E", "-P", "-x", "c++", *flags, "-I", str(SHIM), "-w", "-"]
    return _run(command, input=text)


def module(text, flags, mode, runtime_path):
    """The path of the library made of a whole translation unit."""
    flags = [*COMMON, *flags, "-O1", "-I", str(SHIM)]

    def make(compiler, path):
        extra = []
        if mode == "check":
            bounds = "bounds" if compiler.is_clang else "bounds,bounds-strict"
            extra = ["-DCOC_CHECK", "-fsanitize=thread", f"-fsanitize={SANITIZED},{bounds}"]
            quiet = "tsan-instrument-func-entry-exit"
            extra += ["-mllvm", f"-{quiet}=0"] if compiler.is_clang else ["--param", f"{quiet}=0"]
        compiled = path.with_suffix(".o")
        _run(
            [*compiler.command, "-c", "-x", "c++", *flags, *extra, "-o", str(compiled), "-"],
            input=text,
        )
        # Linked without any sanitizer's library: the callbacks are the runtime's. An unknown one
        # is to be found here and not when it is called.
        linked = [str(compiled), str(runtime_path), "-lm"]
        _run([*compiler.command, "-shared", "-Wl,-z,defs", "-o", str(path), *linked])

    parts = (text, flags, mode, runtime_path.name, SANITIZED, _own_text(SHIM))
    return _kept("kernel", parts, make)


@functools.cache
def guards(library):
    """Where in its block of shared memory a library marks what has been initialised."""
    tool = shutil.which("nm") or shutil.which("llvm-nm")
    if tool is None:
        return []
    symbols = _run([tool, str(library)])
    return [int(value, 16) for value in re.findall(r"^(\w+) [bBdD] _ZGV", symbols, re.MULTILINE)]


def places(library, offsets):
    """``file:line`` for offsets of instructions in a library."""
    tool = shutil.which("addr2line") or shutil.which("llvm-addr2line")
    if tool is None:
        return [f"(offset 0x{offset:x}; no addr2line found)" for offset in offsets]
    # An address is the one after the call, so look one byte back.
    command = [tool, "-s", "-e", str(library), *(hex(offset - 1) for offset in offsets)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    lines += [""] * (len(offsets) - len(lines))
    found = [re.sub(r" \(discriminator.*", "", line) for line in lines]
    return [
        place if re.search(r":\d+$", place) and not place.startswith("??") else "(unknown place)"
        for place in found
    ]
