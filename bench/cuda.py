"""``python -m linalgk bench --device cuda``: the comparison on a GPU.

All contenders share one process, since they do not fight for cores, but still take turns. CUDA
events stand around one call on an idle device, so that a time holds what a caller who waits for the
answer would see, the work of Python included. A time is a median of three kinds:

* ``hot``: after a call of the same contender, which leaves the inputs in the L2 cache if they fit;
* ``flushed``: after a buffer of twice the size of the L2 cache has been written;
* ``queued``: per call of several in a row, whose Python work hides behind the device's work.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import gc
import re
import shutil
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from linalgk_bench import cuda_problems, machine, report
from linalgk_bench.cuda_parts import Contender, Problem
from linalgk_bench.peers import LINALGK, versions
from linalgk_bench.problems import Target, matches
from linalgk_bench.run import dumps, rounded

KIND = "cuda"  # tells a stored result from those of the CPU
QUEUE = 8
MOST_SAMPLES = 200
# A contender whose first call takes longer is timed with one more call, once.
SLOW = 2.0
# Seconds after which no row is begun; leaves a slow last row a minute of the promised eight.
LIMIT = 420.0


class NoDevice(Exception):
    """There is no GPU to measure; the message says what is missing and the way out."""


class Device:
    """The current CUDA device and CuPy, the array module that lives on it."""

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy
        runtime = cupy.cuda.runtime
        self._properties = runtime.getDeviceProperties(runtime.getDevice())
        # Libraries that work on streams of their own join the default one, PyTorch included.
        self._stream = cupy.cuda.Stream.null
        self._buffer = cupy.zeros(2 * max(self._properties["l2CacheSize"], 2**20), dtype="int8")

    def put(self, x: Any) -> Any:
        return self.xp.asarray(x)

    def host(self, x: Any) -> Any:
        return self.xp.asnumpy(x)

    def synchronize(self) -> None:
        self.xp.cuda.runtime.deviceSynchronize()

    def flush(self) -> None:
        """Replace what the L2 cache holds."""
        self._buffer += 1
        self.synchronize()

    def seconds(self, call: Callable[[], Any], calls: int = 1) -> float:
        """Seconds per call, from an idle device on until it is idle again."""
        event = self.xp.cuda.Event
        start, end = event(), event()
        self.synchronize()
        start.record(self._stream)
        for _ in range(calls):
            call()
        end.record(self._stream)
        end.synchronize()
        return float(self.xp.cuda.get_elapsed_time(start, end)) / 1e3 / calls

    def free(self) -> None:
        """Give memory that no array uses back, for the other library to take."""
        gc.collect()
        self.xp.get_default_memory_pool().free_all_blocks()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def memory(self) -> int:
        return int(self._properties["totalGlobalMem"])

    def describe(self) -> dict[str, Any]:
        """Name the device and its driver, without anything that identifies the one piece."""
        runtime, found = self.xp.cuda.runtime, self._properties
        name = found["name"]
        return {
            "name": name.decode() if isinstance(name, bytes) else str(name),
            "compute_capability": f"{found['major']}.{found['minor']}",
            "multiprocessors": int(found["multiProcessorCount"]),
            "memory_bytes": self.memory,
            "l2_bytes": int(found["l2CacheSize"]),
            "driver": _driver(),
            "cuda_driver": _cuda_version(runtime.driverGetVersion()),
            "cuda_runtime": _cuda_version(runtime.runtimeGetVersion()),
        }


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver() -> str:
    """The driver's own version, which CUDA's interface does not tell; empty where unknown."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout else ""


def _import_cupy() -> Any:
    import cupy

    return cupy


def open_device() -> Device:
    """Return the current device, or raise `NoDevice`."""
    way_out = "Without a GPU there is the comparison on the processor: --device cpu."
    try:
        cupy = _import_cupy()
    except ImportError as error:
        msg = (
            f"--device cuda needs CuPy, which cannot be imported ({_line(error)}). Install it with "
            f"pip install 'linalgk[cuda13]', or 'linalgk[cuda12]' for an older driver. {way_out}"
        )
        raise NoDevice(msg) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        msg = (
            f"--device cuda needs an NVIDIA GPU and its driver, and CuPy finds none "
            f"({_line(error)}). Where there is one, update the driver, or install the CuPy for it: "
            f"pip install 'linalgk[cuda12]'. {way_out}"
        )
        raise NoDevice(msg) from error
    if not count:
        msg = (
            "--device cuda needs an NVIDIA GPU, and the driver shows none to this process (see "
            f"CUDA_VISIBLE_DEVICES). {way_out}"
        )
        raise NoDevice(msg)
    return Device(cupy)


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _failure(error: Exception) -> str:
    return f"{type(error).__name__}: {_line(error)}"[:300]


# --- times -----------------------------------------------------------------------------------


class Clock:
    """What is left of the time that the whole command may take."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._start = perf_counter()

    @property
    def over(self) -> bool:
        return perf_counter() - self._start >= self.limit

    @property
    def reason(self) -> str:
        return f"the time limit of {self.limit:g} s was reached"


def measure_ceilings(
    device: Device, seconds: float, n: int = 8192, nbytes: int = 2**30
) -> dict[str, float]:
    """Large matrix products in flops per second, a large copy in bytes read and written per second.

    The factors are random, because zeros and ones draw less power and so run faster.
    """
    xp = device.xp
    nbytes = min(nbytes, device.memory // 8)
    gen = np.random.default_rng(0)
    found = {}
    for dtype in ("float32", "float64"):
        x = device.put(gen.standard_normal((n, n), dtype=dtype))
        out = xp.empty_like(x)
        product = functools.partial(xp.matmul, x, x, out=out)
        found[f"gemm_{dtype}"] = 2.0 * n**3 / _best(device, product, seconds)
    source = xp.ones(nbytes // 8, dtype="float64")
    target = xp.zeros_like(source)
    found["stream"] = (
        2.0 * source.nbytes / _best(device, lambda: xp.copyto(target, source), seconds)
    )
    return found


def _best(device: Device, call: Callable[[], Any], seconds: float) -> float:
    call()
    return min(_samples(device, call, seconds))


def _samples(
    device: Device, call: Callable[[], Any], budget: float, *, flush: bool = False, calls: int = 1
) -> list[float]:
    samples: list[float] = []
    end = perf_counter() + budget
    while not samples or (perf_counter() < end and len(samples) < MOST_SAMPLES):
        if flush:
            device.flush()
        samples.append(device.seconds(call, calls))
    return samples


def _turn(device: Device, call: Callable[[], Any], row: dict[str, Any], budget: float) -> None:
    """Add one turn's samples, with the garbage collector held as in `timeit`."""
    call()  # the other contenders had the cache since the last turn
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        row["samples"]["hot"].append(_samples(device, call, budget / 2))
        row["samples"]["flushed"].append(_samples(device, call, budget / 4, flush=True))
        # a call that fills the turn hides no work of Python worth a queue of them
        if statistics.median(row["samples"]["hot"][-1]) * QUEUE < budget:
            row["samples"]["queued"].append(_samples(device, call, budget / 4, calls=QUEUE))
    finally:
        if was_enabled:
            gc.enable()


def run_contest(
    device: Device, problem: Problem, contenders: Sequence[Contender],
    rounds: int, budget: float, clock: Clock,
) -> list[dict[str, Any]]:  # fmt: skip
    """Let the contenders solve the problem in turns.

    Returns
    -------
    list of dict
        For each contender its name and ``failed`` or ``skipped`` with the reason, or its ``error``
        (None for a yardstick), the medians ``hot``, ``flushed`` and ``queued`` and the least hot
        time, ``min``, in seconds.
    """
    a = problem.make(device)
    judge = problem.judge(device, a)
    rows: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], Any]] = {}
    for contender in contenders:
        row: dict[str, Any] = {"contender": contender.name}
        rows.append(row)
        if clock.over:
            row["skipped"] = clock.reason
            continue
        try:
            call = contender.prepare(device, problem, a)
            again = _first(device, contender, call, row, judge)
        except Exception as error:  # whatever a contender raises is a row of the table
            row["failed"] = _failure(error)
            continue
        if again:
            calls[contender.name] = call
    for turn in range(rounds):
        for row in rows:
            if row["contender"] not in calls or "failed" in row:
                continue
            if clock.over:
                if turn == 0:
                    row["skipped"] = clock.reason
                continue
            try:
                _turn(device, calls[row["contender"]], row, budget)
            except Exception as error:
                row["failed"] = _failure(error)
    for row in rows:
        _summarise(row)
    return rows


def _first(
    device: Device, contender: Contender, call: Callable[[], Any], row: dict[str, Any], judge: Any
) -> bool:
    """Call once and judge the answer; return whether there is anything left to time."""
    row["samples"] = {"hot": [], "flushed": [], "queued": []}
    start = perf_counter()
    result = call()
    device.synchronize()
    elapsed = perf_counter() - start
    row["error"] = None
    if contender.on_host:
        row["samples"]["hot"].append([elapsed])
        return False
    if not contender.yardstick:
        row["error"] = judge(cuda_problems.as_array(device, result))
        if not np.isfinite(row["error"]):
            row["failed"] = "the answer is not finite"  # a time without an error is void
            return False
    if elapsed > SLOW:
        # compiling may have taken most of that
        row["samples"]["hot"].append([device.seconds(call)])
        return row["samples"]["hot"][0][0] <= SLOW
    return True


def _summarise(row: dict[str, Any]) -> None:
    turns = row.pop("samples", {})
    if "failed" in row or "skipped" in row:
        return
    for kind, found in turns.items():
        pooled = [sample for turn in found for sample in turn]
        row[kind] = statistics.median(pooled) if pooled else None
    hot = turns["hot"]
    row["min"] = min(min(turn) for turn in hot)
    row["count"] = sum(map(len, hot))
    row["turns"] = [statistics.median(turn) for turn in hot]


# --- the command -----------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Run the comparison on the GPU; ``--device cuda`` of `linalgk_bench.run` calls this."""
    clock = Clock(args.limit or LIMIT)
    try:
        device = open_device()
    except NoDevice as missing:
        print(f"linalgk: {missing}", file=sys.stderr)
        return 2
    about = device.describe()
    path = result_path(args.json, about["name"]) if args.json else None
    if path is not None:  # better to fail now than after the run
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"linalgk: --json {args.json}: {error}", file=sys.stderr)
            return 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a peer's warning is not ours
        _Run(args, device, about, clock, path).all()
    return 0


def result_path(given: str, device_name: str) -> Path:
    """Return the file itself if one is named, else one named after the device in that folder."""
    path = Path(given)
    slug = re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")
    return path if path.suffix == ".json" else path / f"{slug or 'cuda'}.json"


class _Run:
    """One run over the selected problems."""

    def __init__(
        self, args: argparse.Namespace, device: Device, about: dict[str, Any], clock: Clock,
        path: Path | None,
    ) -> None:  # fmt: skip
        self.args, self.device, self.clock, self.path = args, device, clock, path
        libraries = {
            name: version
            for name, version in versions().items()
            if name in (LINALGK, "numpy", "scipy", "torch")
        }
        self.result: dict[str, Any] = {
            "kind": KIND,
            "device": about,
            "machine_info": machine.describe(),
            "versions": {**libraries, "cupy": device.xp.__version__},
            "datetime": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "settings": {
                "rounds": args.rounds,
                "budget": args.budget,
                "quick": args.quick,
                "limit": clock.limit,
            },
            "ceilings": {},
            "left_out": {},
            "skipped": {},
            "targets": [],
            "rows": [],
        }

    def all(self) -> None:
        problems = [
            problem
            for problem in cuda_problems.PROBLEMS
            if (not self.args.quick or problem.tier == "target")
            and (not self.args.k or matches(self.args.k, problem.name))
        ]
        contenders = self._contenders()
        self._ceilings()
        print(report.cuda_heading(self.result))
        for name, reason in self.result["left_out"].items():
            print(f"left out {name}: {reason}")
        for number, problem in enumerate(problems, 1):
            print(f"[{number}/{len(problems)}] {problem.name}", file=sys.stderr, flush=True)
            self._problem(problem, [c for c in contenders if c.accepts(problem)])
            self._write()  # what a crash of the driver leaves is kept
        if problems:
            # Another look: a busy moment must not pass for the device's best.
            self._ceilings()
        self._write()
        if self.path is not None:
            print(f"wrote {self.path}")

    def _contenders(self) -> list[Contender]:
        found = []
        for contender in cuda_problems.CONTENDERS:
            # Without linalgk there is nothing to compare with.
            wanted = contender.name == LINALGK or not self.args.contenders
            if wanted or matches(self.args.contenders, contender.name):
                try:
                    missing = contender.missing()
                except Exception as error:  # a library that is installed but broken
                    missing = _failure(error)
                if missing:
                    self.result["left_out"][contender.name] = missing
                else:
                    found.append(contender)
        return found

    def _ceilings(self) -> None:
        sizes = {"n": 128, "nbytes": 2**20} if self.args.budget < 0.01 else {}
        try:
            found = measure_ceilings(self.device, self.args.budget, **sizes)
        except Exception as error:
            print(f"ceilings not measured: {_failure(error)}")
            found = {}
        known = self.result["ceilings"]
        for key, value in found.items():
            known[key] = max(value, known.get(key, 0.0))
        for row in self.result["rows"]:
            set_shares(row, known)

    def _problem(self, problem: Problem, contenders: Sequence[Contender]) -> None:
        rows: list[dict[str, Any]] = []
        if self.clock.over:
            self.result["skipped"][problem.name] = self.clock.reason
        else:
            try:
                rows = run_contest(
                    self.device, problem, contenders, self.args.rounds, self.args.budget, self.clock
                )
            except Exception as error:
                self.result["skipped"][problem.name] = _failure(error)
            self._free()
        if problem.name in self.result["skipped"]:
            reason = self.result["skipped"][problem.name]
            print(f"{problem.name}\n  skipped: {reason}\n", flush=True)
            return
        ours = next((row for row in rows if row["contender"] == LINALGK), {})
        model = {
            "problem": problem.name,
            "function": problem.function,
            "shape": list(problem.shape),
            "dtype": problem.dtype,
            "measure": problem.measure,
            "flops": problem.flops,
            "bytes": problem.nbytes,
        }
        for row in rows:
            row.update(model)
            if row.get("hot") and ours.get("hot"):
                row["ratio"] = row["hot"] / ours["hot"]
            set_shares(row, self.result["ceilings"])
        targets = judge_targets(problem, rows)
        self.result["rows"] += rows
        self.result["targets"] += targets
        print(report.cuda_text(problem.name, rows, targets), flush=True)

    def _free(self) -> None:
        try:
            self.device.free()
        except Exception as error:  # after a kernel's illegal access nothing works any more
            print(f"memory not freed: {_failure(error)}")

    def _write(self) -> None:
        if self.path is not None:
            self.path.write_text(dumps(rounded(self.result)), encoding="utf-8")


def set_shares(row: dict[str, Any], ceilings: dict[str, float]) -> None:
    """Record which share of the measured rates the model's work is, in the flushed time: inputs in
    the cache could be read faster than a copy reads its own.
    """
    # A yardstick, which has no error, does other work than the model counts.
    if row.get("error") is None or not row.get("flushed"):
        return
    for key, work, ceiling in (
        ("of_copy", "bytes", "stream"),
        ("of_gemm", "flops", f"gemm_{row['dtype']}"),
    ):
        if ceilings.get(ceiling):
            row[key] = row[work] / row["flushed"] / ceilings[ceiling]


def judge_targets(problem: Problem, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the hot medians; the flushed ones stand beside them."""
    timed = {row["contender"]: row for row in rows if row.get("hot")}
    ours = timed.get(LINALGK)
    lines = []
    for target in problem.targets:
        line = _target_line(problem, target)
        theirs = timed.get(target.against)
        if ours and theirs:
            line["measured"], line["met"] = target.judge(ours["hot"], theirs["hot"])
            if ours["flushed"] and theirs["flushed"]:
                flushed, _ = target.judge(ours["flushed"], theirs["flushed"])
                line["note"] = f"{flushed:.2f}x with the L2 cache flushed"
        lines.append(line)
    if problem.error_bound is not None:
        line = _target_line(problem, f"{problem.measure} at most {problem.error_bound:.1e}")
        if ours:
            line["measured"] = ours["error"]
            line["met"] = ours["error"] <= problem.error_bound
        lines.append(line)
    # rounded already here, so that the file and the screen say the same
    return [dict(rounded(line)) for line in lines]


def _target_line(problem: Problem, target: Target | str) -> dict[str, Any]:
    return {"problem": problem.name, "target": str(target), "measured": None, "met": None}
