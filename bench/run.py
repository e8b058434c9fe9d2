"""``python -m linalgk bench``: the fair comparison.

Options are listed by ``--help``. The status is 0 whatever the times are: a missed target is a line
to read.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linalgk_bench import machine, report
from linalgk_bench.contest import Contender, Prepared, run_contest, summarise
from linalgk_bench.peers import LINALGK, Peer, versions
from linalgk_bench.problems import ROOMS, Problem, load_room, matches
from linalgk_bench.startup import STARTUPS, cache_note, measure

FASTER_BLAS = "SkylakeX"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; what `linalgk.cli` calls."""
    args = _parse(argv)
    if args.device == "cuda":
        from linalgk_bench import cuda

        return cuda.run(args)
    rooms = args.rooms or list(ROOMS)
    selected = {room: _select(room, args.quick, args.k) for room in rooms}
    startups = [row for row in STARTUPS if not args.k or matches(args.k, row.name)]
    result = _describe(args)
    if args.json:
        Path(args.json).touch()  # better to fail now than after the run
    for coretype in _coretypes(args.coretype or ("default" if args.quick else "both")):
        run = _Pass(args, coretype)
        for room, problems in selected.items():
            run.room(room, problems)
        run.startup(startups)
        for key, value in run.found.items():
            result[key].extend(value)
    if args.json:
        Path(args.json).write_text(dumps(rounded(result)), encoding="utf-8")
        print(f"wrote {args.json}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="linalgk bench",
        description="Compare linalgk with its peers on this machine: time, error, ceilings.",
    )
    default_threads = min(2, len(machine.available_cpus()))
    parser.add_argument(
        "rooms", nargs="*", metavar="room", help=f"among {', '.join(ROOMS)}; default all"
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: the comparison with CuPy and PyTorch on a GPU (default %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only the problems with targets, fewer and shorter rounds",
    )
    parser.add_argument(
        "-k", metavar="EXPR", default="", help="problems by words in their names, with and, or, not"
    )
    parser.add_argument("--contenders", metavar="EXPR", default="", help="the same for contenders")
    parser.add_argument(
        "--rounds", type=int, help="turns of every contender (default 7; quick or cuda: 3)"
    )
    parser.add_argument("--budget", type=float, help="seconds of a turn (default 0.2, quick 0.05)")
    parser.add_argument(
        "--limit",
        type=float,
        metavar="SECONDS",
        help="with --device cuda: what would begin later is skipped by name (default 420)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=default_threads,
        help="threads and CPUs (default %(default)s)",
    )
    parser.add_argument(
        "--coretype",
        choices=("default", FASTER_BLAS, "both"),
        help="OpenBLAS kernels of all contenders: as installed, for AVX-512, or a table of each "
        "(default both; quick: default)",
    )
    parser.add_argument(
        "--json",
        metavar="PATH",
        help="write everything in pytest-benchmark's format; with --device cuda into a folder, "
        "in a file named after the device",
    )
    args = parser.parse_args(argv)
    unknown = sorted(set(args.rooms) - set(ROOMS))
    if unknown:
        parser.error(
            f"no benchmarks for {', '.join(unknown)}; there are some for {', '.join(ROOMS)}"
        )
    args.rounds = args.rounds or (3 if args.quick or args.device == "cuda" else 7)
    args.budget = args.budget or (0.05 if args.quick else 0.2)
    if args.rounds < 1 or args.threads < 1 or args.budget <= 0 or (args.limit or 1) <= 0:
        parser.error("--rounds, --threads, --budget and --limit must be positive")
    return args


def _select(room: str, quick: bool, expression: str) -> list[Problem]:
    return [
        problem
        for problem in load_room(room).PROBLEMS
        if (not quick or problem.tier == "target")
        and (not expression or matches(expression, problem.name))
    ]


def _coretypes(choice: str) -> list[str | None]:
    if choice == "default":
        return [None]
    if not machine.has_avx512():
        print(f"OPENBLAS_CORETYPE={FASTER_BLAS} left out: this processor has no AVX-512")
        return [] if choice == FASTER_BLAS else [None]
    return [FASTER_BLAS] if choice == FASTER_BLAS else [None, FASTER_BLAS]


def _describe(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine_info": {**machine.describe(), "versions": versions()},
        "commit_info": {},
        "datetime": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": versions().get(LINALGK, ""),
        "settings": {
            "threads": args.threads,
            "rounds": args.rounds,
            "budget": args.budget,
            "quick": args.quick,
        },
        "passes": [],
        "benchmarks": [],
        "failures": [],
        "targets": [],
    }


class _Pass:
    """One run over everything with one set of BLAS kernels."""

    def __init__(self, args: argparse.Namespace, coretype: str | None) -> None:
        self.args = args
        self.coretype = coretype
        self.label = coretype or "default"
        self.skipped: dict[str, str] = {}
        self.found: dict[str, list[Any]] = {
            "passes": [],
            "benchmarks": [],
            "failures": [],
            "targets": [],
        }

    def room(self, room: str, problems: Sequence[Problem]) -> None:
        if not problems:
            return
        self.skipped = {}
        peers = self._peers(room)
        processes = {
            peer.name: Contender(room, peer.name, peer.threads or self.args.threads, self.coretype)
            for peer in peers
        }
        gauge = Contender(room, "", self.args.threads, self.coretype)
        try:
            with tempfile.TemporaryDirectory() as folder:
                ceilings = self._ceilings(gauge)
                start = len(self.found["benchmarks"])
                print(report.pass_heading(room, self.label, self.args.threads, ceilings))
                for number, problem in enumerate(problems, 1):
                    print(f"[{number}/{len(problems)}] {problem.name}", file=sys.stderr, flush=True)
                    prepared = Prepared(problem, Path(folder))
                    rows = run_contest(
                        prepared,
                        [peer for peer in peers if peer.accepts(problem)],
                        processes,
                        self.args.rounds,
                        self.args.budget,
                    )
                    self._record(room, problem, rows, ceilings)
                # Another look at the ceilings: a busy moment must not pass for the machine's best.
                again = self._ceilings(gauge)
                ceilings = {key: max(value, again.get(key, 0.0)) for key, value in ceilings.items()}
                for entry in self.found["benchmarks"][start:]:
                    _set_share(entry, ceilings)
                pools = {
                    name: process.ask("describe").get("pools", [])
                    for name, process in processes.items()
                    if process.running
                }
        finally:
            for process in (*processes.values(), gauge):
                process.close()
        for name, reason in self.skipped.items():
            print(f"skipped {name}: {reason}")
        self.found["passes"].append(
            {
                "room": room,
                "coretype": self.label,
                "ceilings": ceilings,
                "pools": pools,
                "skipped": self.skipped,
            }
        )

    def _peers(self, room: str) -> list[Peer]:
        peers = []
        for peer in load_room(room).PEERS:
            installed, reason = peer.available()
            # Without linalgk there is nothing to compare with.
            wanted = (
                peer.name == LINALGK
                or not self.args.contenders
                or matches(self.args.contenders, peer.name)
            )
            if wanted and installed:
                peers.append(peer)
            elif wanted:
                self.skipped[peer.name] = reason
        return peers

    def _ceilings(self, gauge: Contender) -> dict[str, float]:
        sizes = {"n": 256, "stream_bytes": 2**24} if self.args.budget < 0.01 else {}
        answer = gauge.ask("ceilings", seconds=self.args.budget, **sizes)
        if "failed" in answer:
            print(f"ceilings not measured: {answer['failed']}")
            return {}
        return answer

    def _record(
        self, room: str, problem: Problem, rows: list[dict[str, Any]], ceilings: dict[str, float]
    ) -> None:
        entries = []
        for row in rows:
            if "unavailable" in row:
                self.skipped[row["contender"]] = row["unavailable"]
                continue
            entries.append(self._entry(room, problem, row, ceilings))
        ours = next((e for e in entries if e["extra_info"]["contender"] == LINALGK), None)
        for entry in entries:
            if ours and ours["stats"] and entry["stats"]:
                entry["extra_info"]["ratio"] = entry["stats"]["min"] / ours["stats"]["min"]
                entry["extra_info"]["ratio_of_medians"] = (
                    entry["stats"]["median"] / ours["stats"]["median"]
                )
        targets = self._judge(room, problem, entries)
        # pytest-benchmark's own tools expect times in every benchmark.
        self.found["benchmarks"] += [entry for entry in entries if entry["stats"]]
        self.found["failures"] += [entry for entry in entries if not entry["stats"]]
        self.found["targets"] += targets
        print(report.problem_text(problem.name, entries, targets), flush=True)

    def _entry(
        self, room: str, problem: Problem, row: dict[str, Any], ceilings: dict[str, float]
    ) -> dict[str, Any]:
        name = f"{problem.name}-{row['contender']}"
        entry: dict[str, Any] = {
            "group": problem.name,
            "name": name,
            "fullname": f"bench/{room}.py::{self.label}::{name}",
            "params": {},
            "extra_info": {
                "problem": problem.name,
                "contender": row["contender"],
                "coretype": self.label,
                "shape": list(problem.shape),
                "dtype": problem.dtype,
                "error": row.get("error"),
                "flops": problem.flops,
                "bytes": problem.nbytes,
                "threads": self.args.threads,
            },
            "stats": {},
        }
        if "failed" in row:
            entry["extra_info"]["failed"] = row["failed"]
            return entry
        entry["stats"] = summarise(row["rounds"], row["loops"])
        entry["extra_info"]["rounds"] = row["rounds"]
        _set_share(entry, ceilings)
        return entry

    def _judge(
        self, room: str, problem: Problem, entries: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        lines = []
        timed = {e["extra_info"]["contender"]: e["stats"] for e in entries if e["stats"]}
        variants = {p.name: p.variant_of or p.name for p in load_room(room).PEERS}
        for promise in problem.targets:
            target = promise.with_threads(self.args.threads)
            line = self._line(room, problem.name, str(target))
            rivals = [timed[name] for name in timed if variants[name] == target.against]
            if LINALGK in timed and rivals:
                mine, theirs = (
                    {key: min(stats[key] for stats in some) for key in ("min", "median")}
                    for some in ([timed[LINALGK]], rivals)
                )
                line["measured"], line["met"] = target.judge(mine["min"], theirs["min"])
                line["by_medians"], _ = target.judge(mine["median"], theirs["median"])
            lines.append(line)
        if problem.error_bound is not None:
            line = self._line(room, problem.name, f"error at most {problem.error_bound:.1e}")
            errors = {e["extra_info"]["contender"]: e["extra_info"]["error"] for e in entries}
            line["measured"] = errors.get(LINALGK)
            if line["measured"] is not None:
                line["met"] = line["measured"] <= problem.error_bound
            lines.append(line)
        # rounded already here, so that the file and the screen say the same
        return [dict(rounded(line)) for line in lines]

    def _line(self, room: str, problem: str, target: str) -> dict[str, Any]:
        return {
            "room": room,
            "problem": problem,
            "coretype": self.label,
            "target": target,
            "measured": None,
            "met": None,
        }

    def startup(self, rows: Sequence[Any]) -> None:
        """Measure the rows that need fresh processes; compiling is slow, so with few rounds."""
        for row in rows:
            print(row.name, file=sys.stderr, flush=True)
            found = measure(row, self.args.threads, self.coretype, min(self.args.rounds, 3))
            line = self._line("startup", row.name, str(row.target))
            if "failed" in found:
                line["note"] = f"failed: {found['failed']}"
            else:
                line["measured"], line["met"] = row.target.judge(min(found["seconds"]), 0.0)
                line["by_medians"] = statistics.median(found["seconds"])
                line["note"] = cache_note(row, found["cached"])
            line = dict(rounded(line))
            self.found["targets"].append(line)
            print(report.problem_text(row.name, [], [line]), flush=True)


def _set_share(entry: dict[str, Any], ceilings: dict[str, float]) -> None:
    """Record how much of the time the model's work would take at the ceilings."""
    info, stats = entry["extra_info"], entry["stats"]
    least = machine.least_time(ceilings, info["dtype"], info["flops"], info["bytes"])
    # A yardstick, which has no error, does less work than the model counts.
    if stats and least and info["error"] is not None:
        info["ceiling_share"] = least / stats["min"]


def rounded(value: Any) -> Any:
    """Keep four digits of every number: more would only make the committed files longer."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value


def dumps(result: dict[str, Any]) -> str:
    """Format as JSON with one benchmark per line, so that committed files stay short and differ by
    lines.
    """
    parts = []
    for key, value in result.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
