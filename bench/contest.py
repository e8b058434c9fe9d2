"""Contenders as processes, and the interleaved contest between them.

Every contender is a process that holds one library, because the thread pools of two libraries in
one process slow each other down. All of them solve the problem once; then they take turns, A B A B,
so that a change in the machine's speed meets them all. Whoever is not at turn waits in a read from
its pipe. (Starting ``pytest bench`` once per contender would give the same processes, but not the
turns; so the driver shares the suite's problems, peers and JSON format, and not its runner.)
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from linalgk_bench import machine
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Problem

# The first call of a contender may have to compile.
PATIENCE = 600.0
# OpenBLAS threads spin for some 2^26 cycles after their last job, whatever the wait policy says.
PAUSE = 0.03


class Contender:
    """A worker process, started on first use and again after a crash."""

    def __init__(self, room: str, name: str, threads: int, coretype: str | None) -> None:
        self.name = name
        self._room, self._threads, self._coretype = room, threads, coretype
        self._running: _Running | None = None

    @property
    def running(self) -> bool:
        """Whether the process has been started."""
        return self._running is not None

    def ask(self, do: str, *, patience: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
        """Send one command; the answer holds ``failed`` when the contender raised, crashed or took
        too long.
        """
        if self._running is None:
            command = [sys.executable, "-m", "linalgk_bench.worker", "--room", self._room]
            command += ["--contender", self.name, "--threads", str(self._threads)]
            self._running = _Running(command, machine.environment(self._threads, self._coretype))
        try:
            line = self._running.ask(json.dumps({"do": do, **arguments}), patience)
        except queue.Empty:
            self.close()
            return {"failed": f"no answer within {patience:g} s"}
        if line is None:
            reason = self._running.last_words()
            self.close()
            return {"failed": reason}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            self._running.close()
            self._running = None


class _Running:
    """A process whose answers a thread collects, so that waiting for one can end."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.answers: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def ask(self, line: str, patience: float) -> str | None:
        """Return the answer, or None when the process has ended."""
        assert self.process.stdin is not None
        try:
            print(line, file=self.process.stdin, flush=True)
        except OSError:
            return None
        return self.answers.get(timeout=patience)

    def last_words(self) -> str:
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return f"the process ended with status {status}" + (f": {lines[-1][:300]}" if lines else "")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # A command that could not be delivered is still in the buffer and would be flushed again.
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()


class Prepared:
    """A problem whose inputs are on disk, where every contender reads the same bits, with its
    reference.
    """

    def __init__(self, problem: Problem, folder: Path) -> None:
        self.problem = problem
        self.inputs = folder / f"{problem.name}.npz"
        self.answer = folder / "answer.npy"
        arrays = problem.make()
        np.savez(self.inputs, **arrays)  # type: ignore[arg-type]
        self.reference: Array | None = problem.reference(arrays)

    def error_of_answer(self) -> float:
        """Return the error of the answer that the last contender wrote."""
        return float(self.problem.error(np.load(self.answer), self.reference))


def run_contest(
    prepared: Prepared,
    peers: Sequence[Peer],
    contenders: Mapping[str, Contender],
    rounds: int,
    budget: float,
) -> list[dict[str, Any]]:
    """Let the peers solve the problem in turns.

    Returns
    -------
    list of dict
        For each peer its name and either ``failed`` or ``unavailable`` with the reason, or the
        ``error`` (None for a yardstick), the ``loops`` of a sample and ``rounds``, pairs of the
        least and the median time of each round.
    """
    problem = prepared.problem
    rows: list[dict[str, Any]] = []
    for peer in peers:
        row: dict[str, Any] = {"contender": peer.name, "rounds": []}
        answer = contenders[peer.name].ask(
            "load", problem=problem.name, inputs=str(prepared.inputs), answer=str(prepared.answer)
        )
        if "loops" in answer:
            row["loops"] = answer["loops"]
            row["error"] = None if peer.yardstick else prepared.error_of_answer()
            if row["error"] is not None and not math.isfinite(row["error"]):
                row["failed"] = "the answer is not finite"  # a time without an error is void
        else:
            row.update(answer)
        rows.append(row)
    for _ in range(rounds):
        for row in rows:
            if "loops" not in row or "failed" in row:
                continue
            time.sleep(PAUSE)
            answer = contenders[row["contender"]].ask("round", problem=problem.name, budget=budget)
            if "failed" in answer:
                row["failed"] = answer["failed"]
            else:
                row["rounds"].append([answer["min"], answer["median"]])
    for peer in peers:
        contenders[peer.name].ask("drop", problem=problem.name)
    return rows


def summarise(rounds: Sequence[Sequence[float]], loops: int) -> dict[str, Any]:
    """Reduce the rounds to the statistics that pytest-benchmark keeps.

    ``min`` is the least time of all; everything else is taken over the medians of the rounds.
    """
    medians = [float(median) for _, median in rounds]
    q1, _, q3 = statistics.quantiles(medians, n=4) if len(medians) > 1 else medians * 3
    mean = statistics.fmean(medians)
    return {
        "min": min(least for least, _ in rounds),
        "median": statistics.median(medians),
        "mean": mean,
        "max": max(medians),
        "stddev": statistics.stdev(medians) if len(medians) > 1 else 0.0,
        "iqr": q3 - q1,
        "ops": 1 / mean,
        "outliers": "0;0",
        "rounds": len(medians),
        "iterations": loops,
    }
