"""The command line: ``python -m linalgk info | warm | tour | bench``.

Everything heavy is imported inside the command that needs it, so that ``--help`` and
``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Advice", "blas_advice", "describe", "main"]

CORETYPE = "OPENBLAS_CORETYPE"

# From slow to fast; sets on one level run at about the same speed. Skylake-X code needs all of the
# flags beside it: Knights Landing has only some and would stop at an illegal instruction.
_LEVELS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (
        frozenset({"prescott", "core2", "penryn", "dunnington", "nehalem", "athlon", "opteron"})
        | frozenset(
            {"opteron_sse3", "barcelona", "bobcat", "atom", "nano", "katmai", "coppermine"}
        ),
        frozenset(),
    ),
    (
        frozenset({"sandybridge", "bulldozer", "piledriver", "steamroller"}),
        frozenset({"avx"}),
    ),
    (
        frozenset({"haswell", "zen", "excavator"}),
        frozenset({"avx2", "fma"}),
    ),
    (
        frozenset({"skylakex", "cooperlake", "sapphirerapids"}),
        frozenset({"avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl"}),
    ),
)
_BEST_NAME = {2: "Haswell", 3: "SkylakeX"}
_INSTRUCTIONS = {0: "SSE", 1: "AVX", 2: "AVX2", 3: "AVX-512"}


class CommandError(Exception):
    """A message for the user; the command ends with status 1 and no traceback."""


@dataclass(frozen=True)
class Advice:
    """A faster OpenBLAS kernel set that this processor can run.

    Attributes
    ----------
    coretype : str
        Value for ``OPENBLAS_CORETYPE``.
    running : tuple of str
        Kernel sets that run now and are slower.
    variable_set : str or None
        What ``OPENBLAS_CORETYPE`` holds already, and so the reason for the slower set.
    text : str
        The advice in a sentence or two.
    """

    coretype: str
    running: tuple[str, ...]
    variable_set: str | None
    text: str


def blas_advice(
    features: Iterable[str], blas: Iterable[Mapping[str, Any]], environ: Mapping[str, str]
) -> Advice | None:
    """Say whether OpenBLAS has a faster kernel set for a processor than the one it chose.

    OpenBLAS picks kernels by processor model, and older ones for a model that it does not know;
    besides, ``OPENBLAS_CORETYPE`` in the environment overrules it, and may have been set there for
    another machine.

    Parameters
    ----------
    features : iterable of str
        Processor flags as ``/proc/cpuinfo`` names them.
    blas : iterable of mapping
        Records of ``threadpoolctl.threadpool_info()``.
    environ : mapping
        Environment variables.

    Returns
    -------
    Advice or None
        None where nothing is to be gained or nothing is known.

    Examples
    --------
    >>> from linalgk.cli import blas_advice
    >>> flags = ["avx2", "fma", "avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl"]
    >>> blas_advice(flags, [{"internal_api": "openblas", "architecture": "Haswell"}], {}).coretype
    'SkylakeX'
    >>> blas_advice(flags, [{"internal_api": "openblas", "architecture": "SkylakeX"}], {})
    """
    flags = {flag.lower() for flag in features}
    best = max((i for i, (_, needs) in enumerate(_LEVELS) if needs <= flags), default=0)
    if best not in _BEST_NAME:
        return None
    slower: dict[str, int] = {}
    for record in blas:
        if record.get("internal_api") != "openblas":
            continue
        name = str(record.get("architecture") or "")
        level = next((i for i, (names, _) in enumerate(_LEVELS) if name.lower() in names), None)
        if level is not None and level < best:
            slower[name] = level
    if not slower:
        return None
    coretype, current = _BEST_NAME[best], environ.get(CORETYPE) or None
    sets = " and ".join(f"{_INSTRUCTIONS[level]} set ({name})" for name, level in slower.items())
    text = f"This processor has {_INSTRUCTIONS[best]}, but OpenBLAS runs its {sets}"
    if current:
        text += (
            f", as {CORETYPE}={current} in the environment asks it to. Unset the variable or start"
        )
    else:
        text += ". Start"
    text += f" Python with {CORETYPE}={coretype} for the faster set."
    return Advice(coretype, tuple(slower), current, text)


def describe(config: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Turn ``show_config(mode="dicts")`` into headings with lines for people.

    Parameters
    ----------
    config : mapping
        The nested dict of :func:`linalgk.show_config`; missing parts are left out.

    Returns
    -------
    list of (str, list of str)
    """
    versions = [f"linalgk {config.get('linalgk', {}).get('version', 'unknown')}"]
    versions.append(f"Python {config.get('python', {}).get('version', 'unknown')}")
    versions += [f"{name} {version}" for name, version in config.get("packages", {}).items()]
    cpu = config.get("cpu", {})
    instructions = _instruction_set(cpu.get("features", ()))
    parts = [str(cpu.get("name") or "unknown"), f"{cpu.get('cores', '?')} cores", instructions]
    threads = config.get("threads", {})
    blas = [
        "{api} {version}, kernels {arch}, {n} threads ({layer}), of {owner}".format(
            api=record.get("internal_api", "?"),
            version=record.get("version") or "?",
            arch=record.get("architecture") or "not reported",
            n=record.get("num_threads", "?"),
            layer=record.get("threading_layer") or "?",
            owner=_owner(str(record.get("filepath", ""))),
        )
        for record in config.get("blas", ())
    ]
    devices = [_flat(device) for device in config.get("devices", ())]
    return [
        ("versions", [", ".join(versions)]),
        ("processor", [", ".join(part for part in parts if part)]),
        (
            "threads",
            [f"{threads.get('num_threads', '?')}, layer {threads.get('layer') or 'none yet'}"],
        ),
        ("BLAS", blas or ["none found"]),
        ("devices", devices or ["CPU only"]),
        ("caches", [f"{key}: {_cache(value)}" for key, value in config.get("cache", {}).items()]),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program name; default ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit status.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # Consoles with a legacy code page would otherwise stop at the first "×".
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        # All that follows "bench" belongs to the driver; argparse.REMAINDER drops leading options.
        if args[:1] == ["bench"]:
            return _bench(args[1:])
        options = _parser().parse_args(args)
        command: int = options.run(options)
    except CommandError as error:
        print(f"linalgk: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `linalgk info | head`: the reader has left. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nlinalgk: stopped.", file=sys.stderr)
        return 130
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="linalgk", description="Numerical linear algebra kernels: try, inspect, measure."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    info = commands.add_parser(
        "info", help="versions, processor, threads, BLAS kernels in use, caches"
    )
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.add_argument(
        "--measure",
        action="store_true",
        help="measure matrix products with the BLAS kernels as they are and the advised ones",
    )
    info.set_defaults(run=_info)

    warm = commands.add_parser("warm", help="compile and cache all kernels")
    warm.add_argument("--no-progress", action="store_true", help="no progress bar")
    warm.set_defaults(run=_warm)

    tour = commands.add_parser(
        "tour", help="every capability on real data, with errors, speed and an HTML report"
    )
    tour.add_argument(
        "--out",
        default="linalgk-tour.html",
        metavar="FILE|DIR",
        help="the HTML report (default: %(default)s)",
    )
    tour.add_argument(
        "--quick",
        action="store_true",
        help="fewer matrices and repeats; speeds are then a rough guide",
    )
    tour.add_argument(
        "--chapters", nargs="+", metavar="NAME", help="only these chapters (default: all)"
    )
    tour.add_argument("--no-progress", action="store_true", help="no progress bars")
    tour.set_defaults(run=_tour)

    commands.add_parser(
        "bench", help="the peer comparison on this machine (options: linalgk bench --help)"
    )
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from linalgk import __version__

        print(f"linalgk {__version__}")
        parser.exit()


def _info(options: argparse.Namespace) -> int:
    # Only BLAS libraries that are loaded can be listed, and SciPy brings its own.
    import scipy.linalg  # noqa: F401

    import linalgk

    config = linalgk.show_config(mode="dicts") or {}
    advice = blas_advice(
        config.get("cpu", {}).get("features", ()), config.get("blas", ()), os.environ
    )
    measured = _measure(advice) if options.measure else None
    if options.json:
        config["advice"] = asdict(advice) if advice else None
        if measured is not None:
            config["measured"] = measured
        print(json.dumps(config, indent=2, default=str))
        return 0
    for heading, lines in describe(config):
        for i, line in enumerate(lines):
            print(f"{heading if i == 0 else '':<11}{line}")
    if advice:
        print("\n" + textwrap.fill(advice.text, 100))
        print(f"  {CORETYPE}={advice.coretype} python ...")
        if measured is None:
            print("See what it brings on this machine: python -m linalgk info --measure")
    if measured is not None:
        print("\n" + "\n".join(_measured_lines(measured)))
    return 0


# Runs in a fresh interpreter, because OpenBLAS reads the variable once, when it is loaded.
_GEMM = """
import json, time
import numpy as np
from threadpoolctl import threadpool_info
n, result = 2048, {}
for dtype in ("float32", "float64"):
    a = np.ones((n, n), dtype)
    b, out, best = a.copy(), np.empty_like(a), float("inf")
    stop = time.perf_counter() + 1.0
    while time.perf_counter() < stop:
        start = time.perf_counter()
        np.matmul(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    result[dtype] = 2 * n**3 / best / 1e9
sets = sorted({str(r["architecture"]) for r in threadpool_info() if "architecture" in r})
print(json.dumps({"kernels": ", ".join(sets), "gflops": result}))
"""


def _measure(advice: Advice | None) -> list[dict[str, Any]]:
    """GEMM rates of the environment as it is and, where there is advice, of the advised one."""
    as_is = dict(os.environ)
    variants = {"as it is": as_is}
    if advice and advice.variable_set:
        variants[f"{CORETYPE} unset"] = {k: v for k, v in as_is.items() if k != CORETYPE}
    if advice:
        variants[f"{CORETYPE}={advice.coretype}"] = as_is | {CORETYPE: advice.coretype}
    best: dict[str, dict[str, Any]] = {}
    # Twice in turn, so that a neighbour's load at one moment does not decide.
    for label, environ in [*variants.items()] * 2:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _GEMM],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"ended with status {done.returncode}"]
            best[label] = {"setting": label, "failed": last[0]}
            continue
        run = json.loads(done.stdout)
        known = best.setdefault(label, {"setting": label, "kernels": run["kernels"], "gflops": {}})
        for dtype, rate in run["gflops"].items():
            known["gflops"][dtype] = max(rate, known["gflops"].get(dtype, 0.0))
    return list(best.values())


def _measured_lines(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["Matrix products of NumPy, 2048 x 2048, GF/s (best of two processes each):"]
    width = max(len(row["setting"]) for row in measured)
    base = measured[0].get("gflops", {})
    for row in measured:
        if "failed" in row:
            lines.append(f"  {row['setting']:<{width}}  failed: {row['failed']}")
            continue
        rates = [
            f"{dtype} {rate:7.1f}"
            + (f" ({rate / base[dtype]:.2f}x)" if row is not measured[0] and dtype in base else "")
            for dtype, rate in row["gflops"].items()
        ]
        lines.append(f"  {row['setting']:<{width}}  {'   '.join(rates)}   kernels {row['kernels']}")
    return lines


def _warm(options: argparse.Namespace) -> int:
    import linalgk
    from linalgk.tour._compile import compile_kernels

    done = compile_kernels(progress=not options.no_progress, device=True)
    print(f"{done.count} kernels ready in {done.seconds:.1f} s")
    config = linalgk.show_config(mode="dicts") or {}
    for key, value in config.get("cache", {}).items():
        print(f"cache {key}: {_cache(value)}")
    for label, reason in done.failed:
        print(f"failed: {label}: {reason}", file=sys.stderr)
    return 1 if done.failed else 0


def _tour(options: argparse.Namespace) -> int:
    from linalgk import tour

    unknown = sorted(set(options.chapters or ()) - set(tour.CHAPTERS))
    if unknown:
        msg = f"no chapter {', '.join(unknown)}; there are: {', '.join(tour.CHAPTERS)}."
        raise CommandError(msg)
    try:
        tour.run(
            options.out,
            quick=options.quick,
            chapters=options.chapters,
            progress=not options.no_progress,
            stream=sys.stdout,
        )
    except OSError as error:
        msg = f"the report could not be written: {error}"
        raise CommandError(msg) from error
    return 0


def _bench(argv: Sequence[str]) -> int:
    try:
        from linalgk_bench.run import main as bench
    except ModuleNotFoundError as error:
        msg = f"the bench needs {error.name}; install it with: pip install 'linalgk[bench]'"
        raise CommandError(msg) from error
    status: int = bench(list(argv))
    return status


def _flat(value: Any) -> str:
    """One line for a value of the configuration, whatever its shape."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_flat(item) for item in value)
    return str(value)


def _owner(filepath: str) -> str:
    """The package that a bundled library belongs to: wheels keep theirs in ``<package>.libs``."""
    for part in reversed(filepath.replace("\\", "/").split("/")[:-1]):
        if part.endswith(".libs"):
            return part.removesuffix(".libs")
    return filepath or "unknown origin"


def _instruction_set(features: Iterable[str]) -> str:
    flags = {flag.lower() for flag in features}
    best = max((i for i, (_, needs) in enumerate(_LEVELS) if needs <= flags), default=0)
    return _INSTRUCTIONS[best] if best else ""


def _cache(value: object) -> str:
    """A cache folder with what is in it, or the value as it is."""
    folder = Path(str(value))
    if not folder.is_dir():
        return f"{_flat(value)} (empty)" if folder.is_absolute() else _flat(value)
    # Numba's index and code files; its folder may be the __pycache__ that holds other files too.
    sizes = [file.stat().st_size for file in folder.rglob("*.nb[ic]")]
    return f"{folder} ({len(sizes)} files, {sum(sizes) / 1e6:.1f} MB)"
