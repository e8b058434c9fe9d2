"""One contender's process. It obeys commands, one JSON object per line, and answers each with one
line.

The process loads NumPy and the one library that it stands for. Commands (``do``):

* ``load``: read a problem's inputs, solve it once, write the answer, keep the call;
* ``round``: time the call for about ``budget`` seconds;
* ``drop``: forget it;
* ``describe``: name the thread pools that are loaded;
* ``ceilings``: measure matrix products and memory traffic instead of a library.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

from linalgk_bench import machine


class Worker:
    """The state between commands: the contender and, per problem, the prepared call and its loop
    count.
    """

    def __init__(self, room: str, name: str, threads: int) -> None:
        from linalgk_bench.peers import find_peer

        self.room, self.threads = room, threads
        self.peer = find_peer(room, name) if name else None
        self.calls: dict[str, tuple[Callable[[], Any], int]] = {}

    def load(self, problem: str, inputs: str, answer: str) -> dict[str, Any]:
        import numpy as np
        from linalgk_bench.peers import Unavailable
        from linalgk_bench.problems import find_problem
        from linalgk_bench.timing import calibrate

        assert self.peer is not None
        with np.load(inputs) as stored:
            arrays = {name: stored[name] for name in stored.files}
        try:
            call = self.peer.prepare(find_problem(self.room, problem), arrays)
        except Unavailable as missing:
            return {"unavailable": str(missing)}
        start = perf_counter()
        result = call()
        first = perf_counter() - start
        if not self.peer.yardstick:
            np.save(answer, self.peer.export(result))
        loops = calibrate(call)
        self.calls[problem] = call, loops
        return {"first": first, "loops": loops}

    def round(self, problem: str, budget: float) -> dict[str, Any]:
        from linalgk_bench.timing import run_round

        call, loops = self.calls[problem]
        return run_round(call, loops, budget)

    def drop(self, problem: str) -> dict[str, Any]:
        self.calls.pop(problem, None)
        return {}

    def describe(self) -> dict[str, Any]:
        return {"pools": machine.thread_pools()}

    def ceilings(self, seconds: float, **sizes: int) -> dict[str, float]:
        return machine.measure_ceilings(self.threads, seconds, **sizes)


def main() -> int:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(prog="linalgk_bench.worker")
    parser.add_argument("--room", required=True)
    parser.add_argument("--contender", default="")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    # Answers get a descriptor of their own: a library may print whatever it likes.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    machine.pin(args.threads)
    warnings.simplefilter("ignore")
    worker = Worker(args.room, args.contender, args.threads)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # whatever a contender raises is a row of the table
            message = " ".join(str(error).split())
            answer = {"failed": f"{type(error).__name__}: {message}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
