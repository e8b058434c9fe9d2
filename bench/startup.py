"""What a user waits for before the first result: importing, and compiling or loading kernels. In
fresh processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from linalgk_bench import machine
from linalgk_bench.problems import Target

_IMPORT = """
import time
import numpy
start = time.perf_counter()
import linalgk
seconds = time.perf_counter() - start
"""

# min(i, j) is positive definite and no closed form applies to it.
_FIRST_CALL = """
import time
import numpy as np, numba
import linalgk as lk
i = np.arange(1.0, 9.0)
a = np.minimum.outer(i, i) * np.ones({shape})
start = time.perf_counter()
lk.sqrtm(a)
seconds = time.perf_counter() - start
"""

_REPORT = """
import json, os, pathlib
folder = pathlib.Path(os.environ["NUMBA_CACHE_DIR"])
print(json.dumps({"seconds": seconds, "cached": len(list(folder.rglob("*.nbi")))}))
"""


@dataclass(frozen=True)
class Startup:
    """A script that defines ``seconds``; `warm` runs it a second time on the cache that the first
    run left.
    """

    name: str
    script: str
    target: Target
    warm: bool = False


def _first_calls() -> list[Startup]:
    rows = []
    for label, shape in (("8x8", (8, 8)), ("64x8x8", (64, 8, 8))):
        script = _FIRST_CALL.format(shape=shape)
        rows.append(Startup(f"first-call-cold-sqrtm-{label}", script, Target("", 2.0, "seconds")))
        rows.append(
            Startup(
                f"first-call-from-disk-sqrtm-{label}", script, Target("", 0.3, "seconds"), warm=True
            )
        )
    return rows


STARTUPS = [
    Startup("import-beyond-numpy", _IMPORT, Target("", 0.1, "seconds")),
    *_first_calls(),
]


def measure(row: Startup, threads: int, coretype: str | None, rounds: int) -> dict[str, Any]:
    """Return the seconds of each round and how many kernels Numba had cached at the end; or why it
    failed.
    """
    seconds: list[float] = []
    cached = 0
    with tempfile.TemporaryDirectory() as bytecode:
        # pip writes the bytecode of what it installs; an uncounted run does so for a checkout
        env = {**machine.environment(threads, coretype), "PYTHONPYCACHEPREFIX": bytecode}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        _run(row, env, runs=1)
        for _ in range(rounds):
            answer = _run(row, env, runs=2 if row.warm else 1)
            if "failed" in answer:
                return answer
            seconds.append(answer["seconds"])
            cached = answer["cached"]
    return {"seconds": seconds, "cached": cached}


def _run(row: Startup, env: dict[str, str], runs: int) -> dict[str, Any]:
    """Run a row's script so many times with a fresh folder of compiled kernels; the last answer."""
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(runs):
            done = subprocess.run(
                [sys.executable, "-c", row.script + _REPORT],
                env={**env, "NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode:
                return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def cache_note(row: Startup, cached: int) -> str:
    """Say what the number of cached kernels means for the row, for rows that are about kernels."""
    if "first-call" not in row.name:
        return ""
    return (
        f"{cached} compiled kernels in the cache"
        if cached
        else "no kernel was compiled for this input"
    )
