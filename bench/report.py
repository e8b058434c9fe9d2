"""Results as text: plain while running, reStructuredText for the docs.

``python -m linalgk_bench.report RESULT.json ... --out docs/_generated`` writes a page per room and
one of the GPUs; a folder stands for the JSON files in it. It reads what ``python -m linalgk bench
--json`` writes, and the times (without targets) of ``pytest bench --benchmark-json``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from linalgk_bench.cuda_problems import PROBLEMS
from linalgk_bench.peers import LINALGK
from linalgk_bench.problems import ROOMS

HEADER = ("contender", "min", "median", "x linalgk", "by medians", "error", "of ceiling")
CUDA_HEADER = (
    "contender", "hot", "flushed", "queued", "min", "x linalgk", "error", "of copy", "of GEMM",
)  # fmt: skip
# Instead of a time in the second column, with the reason in the third.
VOID = ("failed", "skipped")


def seconds(value: float | None) -> str:
    """Format a time with three digits and a unit."""
    if value is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def ratio(value: float | None) -> str:
    """Format a ratio."""
    return "-" if value is None else f"{value:.2f}"


def _cells(entry: dict[str, Any]) -> list[str]:
    info, stats = entry["extra_info"], entry["stats"]
    if not stats:
        return [info["contender"], "failed", info.get("failed", ""), "", "", "", ""]
    error, share = info.get("error"), info.get("ceiling_share")
    return [
        info["contender"],
        seconds(stats["min"]),
        seconds(stats["median"]),
        ratio(info.get("ratio")),
        ratio(info.get("ratio_of_medians")),
        "-" if error is None else f"{error:.1e}",
        "-" if not share else f"{100 * share:.2g}%",
    ]


def _measured(line: dict[str, Any], key: str = "measured") -> str:
    value = line.get(key)
    if value is None:
        return "-"
    if line["target"].endswith(" s"):
        return seconds(value)
    small = line["target"].startswith(("error", "residual"))
    return f"{value:.1e}" if small else f"{value:.2f}x"


def target_text(line: dict[str, Any]) -> str:
    """Format a target with what was measured, such as ``target 6x vs scipy.linalg.sqrtm: 8.30x
    met``.
    """
    note = f"; {line['note']}" if line.get("note") else ""
    if line["met"] is None:
        return f"{line['target']}: not measured{note}"
    medians = f" (by medians {_measured(line, 'by_medians')})" if "by_medians" in line else ""
    return (
        f"{line['target']}: {_measured(line)} {'met' if line['met'] else 'missed'}{medians}{note}"
    )


def pass_heading(room: str, coretype: str, threads: int, ceilings: dict[str, float]) -> str:
    """Format the line above all tables of one pass."""
    return f"\n=== {room}: BLAS kernels {coretype}, {threads} threads, {_ceilings(ceilings)} ===\n"


def _ceilings(ceilings: dict[str, float]) -> str:
    parts = [
        f"{ceilings[key] / 1e9:.0f} {unit}"
        for key, unit in (
            ("gemm_float32", "GF/s f32"),
            ("gemm_float64", "GF/s f64"),
            ("stream", "GB/s"),
        )
        if key in ceilings
    ]
    return "ceilings " + ", ".join(parts) if parts else "ceilings not measured"


def problem_text(
    name: str, entries: Sequence[dict[str, Any]], targets: Iterable[dict[str, Any]]
) -> str:
    """Format the table of one problem, with its targets below."""
    return _text(name, HEADER, [_cells(entry) for entry in entries], targets)


def _text(
    name: str,
    header: Sequence[str],
    rows: Sequence[list[str]],
    targets: Iterable[dict[str, Any]],
) -> str:
    lines = [name]
    if rows:
        table = [list(header), *rows]
        # A failure's message runs over the columns of the times.
        widths = [
            max(len(row[i]) for row in table if row[1] not in VOID or i == 0)
            for i in range(len(header))
        ]
        for row in table:
            if row[1] in VOID:
                lines.append(f"  {row[0]:<{widths[0]}}  {row[1]}: {row[2]}")
            else:
                rest = "  ".join(
                    f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)
                )
                lines.append(f"  {row[0]:<{widths[0]}}  {rest}")
    lines += [f"  {target_text(line)}" for line in targets]
    return "\n".join(lines) + "\n"


# --- GPU ---------------------------------------------------------------------------------------


def _cuda_cells(row: dict[str, Any]) -> list[str]:
    for void in VOID:
        if void in row:
            return [row["contender"], void, row[void], *[""] * (len(CUDA_HEADER) - 3)]
    error = row.get("error")
    judged = "-" if error is None else f"{error:.1e}"
    return [
        row["contender"],
        *(seconds(row.get(key)) for key in ("hot", "flushed", "queued", "min")),
        ratio(row.get("ratio")),
        # what defines the answer is not its distance from the true one
        f"{judged} (residual)" if error is not None and row["measure"] == "residual" else judged,
        *(f"{100 * row[key]:.2g}%" if row.get(key) else "-" for key in ("of_copy", "of_gemm")),
    ]


def cuda_text(name: str, rows: Sequence[dict[str, Any]], targets: Iterable[dict[str, Any]]) -> str:
    """Format the table of one problem on a GPU, with its targets below."""
    return _text(name, CUDA_HEADER, [_cuda_cells(row) for row in rows], targets)


def _device(result: dict[str, Any]) -> str:
    device = result["device"]
    driver = f"driver {device['driver']}, " if device.get("driver") else ""
    return f"{device['name']}, {driver}CUDA {device['cuda_runtime']}"


def cuda_heading(result: dict[str, Any]) -> str:
    """Format the line above all tables of a GPU."""
    return f"\n=== {_device(result)}, {_ceilings(result['ceilings'])} ===\n"


def cuda_rst(results: Sequence[dict[str, Any]], problems: Iterable[Any]) -> str:
    """Write the page of the GPUs: which of the problems are measured, where and when; then the
    times.
    """
    lines = [".. Generated by linalgk_bench.report; do not edit.", ""]
    known: dict[str, list[str]] = {}
    for result in results:
        label = f"{result['device']['name']}, {result['datetime'][:10]}"
        for row in result["rows"]:
            if row["contender"] == LINALGK and "skipped" not in row:
                state = f"failed ({label})" if "failed" in row else label
                known.setdefault(row["problem"], []).append(state)
    if not known:
        lines += [
            "No GPU figure has been measured yet. On a machine with a CUDA device, ``python -m "
            "linalgk bench --device cuda --json bench/results`` measures them.",
            "",
        ]
    lines += _list_table(
        ("problem", "to be met", "measured on"),
        [
            [
                problem.name,
                ", ".join(str(target).removeprefix("target ") for target in problem.targets),
                "; ".join(known.get(problem.name, ["not measured yet"])),
            ]
            for problem in problems
        ],
    )
    for result in results:
        lines += _cuda_result(result)
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape what the message of a failure may hold; `_list_table` escapes asterisks."""
    return re.sub(r"([\\`|_])", r"\\\1", text)


def _cuda_result(result: dict[str, Any]) -> list[str]:
    libraries = ", ".join(f"{name} {v}" for name, v in sorted(result["versions"].items()))
    settings, info = result["settings"], result["machine_info"]
    quick = ", a quick run" if settings.get("quick") else ""
    lines = [
        f".. rubric:: {result['device']['name']}",
        "",
        f"Measured on {result['datetime'][:10]}: {_device(result)}, {libraries}; "
        f"{info.get('cpu', 'unknown processor')}, {info.get('python', '')}. "
        f"{settings['rounds']} rounds of turns in one process{quick}; measured "
        f"{_ceilings(result['ceilings'])}.",
        "",
    ]
    left = {**result.get("left_out", {}), **result.get("skipped", {})}
    for name, reason in left.items():
        text = _plain(reason).replace("*", r"\*")
        lines.append(f"* Left out: {name} ({text}).")
    lines.append("")
    lines += _targets_rst(result["targets"])
    rows = []
    previous = None
    for row in result["rows"]:
        cells = _cuda_cells(row)
        if cells[1] in VOID:
            cells[2] = _plain(cells[2])
        rows.append(["" if row["problem"] == previous else row["problem"], *cells])
        previous = row["problem"]
    return [*lines, *(_list_table(("problem", *CUDA_HEADER), rows) if rows else [])]


# --- reStructuredText ------------------------------------------------------------------------


def _list_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        for i, cell in enumerate(row):
            # A lone "-" would open a nested list.
            text = "" if cell == "-" else cell.replace("*", r"\*")
            lines.append(f"   {'* -' if i == 0 else '  -'} {text}".rstrip())
    return [*lines, ""]


def _machine(result: dict[str, Any]) -> list[str]:
    info = result["machine_info"]
    info = {**info, **info.get("linalgk_bench", {})}
    libraries = ", ".join(
        f"{name} {version}" for name, version in sorted(info.get("versions", {}).items())
    )
    settings = result.get("settings", {})
    lines = [
        f"Measured on {result['datetime'][:10]}: {info.get('cpu', 'unknown processor')}, "
        f"{info.get('cpus_available', '?')} CPUs available, {info.get('system', '')}, "
        f"{info.get('python', '')}; {libraries}."
    ]
    if info.get("blas_environment"):
        lines.append(
            f"Environment: {', '.join(f'{k}={v}' for k, v in info['blas_environment'].items())}."
        )
    if settings:
        lines.append(
            f"{settings['threads']} threads, {settings['rounds']} interleaved rounds, "
            "a process per contender."
        )
    return [" ".join(lines), ""]


def _blas(run: dict[str, Any]) -> str:
    names = {
        f"{pool['internal_api']} {pool.get('version', '')} {pool.get('architecture', '')}".strip()
        for pools in run["pools"].values()
        for pool in pools
        if pool.get("user_api") == "blas"
    }
    return ", ".join(sorted(names)) or "none found"


def room_rst(room: str, results: Sequence[dict[str, Any]]) -> str:
    """Write the page of one room from all results."""
    lines = [".. Generated by linalgk_bench.report; do not edit.", ""]
    written = False
    for result in results:
        entries = [*result["benchmarks"], *result.get("failures", ())]
        entries = [e for e in entries if e["fullname"].startswith(f"bench/{room}.py")]
        targets = [line for line in result.get("targets", ()) if line["room"] == room]
        if not entries and not targets:
            continue
        written = True
        lines += _machine(result)
        labels = [e["extra_info"].get("coretype", "default") for e in entries]
        coretypes = list(dict.fromkeys([*labels, *(line["coretype"] for line in targets)]))
        for coretype in coretypes:
            # A rubric, because the level of a title would depend on the page that includes this.
            lines += [f".. rubric:: BLAS kernels: {coretype}", ""]
            for run in result.get("passes", ()):
                if run["coretype"] == coretype and run["room"] == room:
                    lines += [f"BLAS: {_blas(run)}; measured {_ceilings(run['ceilings'])}.", ""]
                    lines += [
                        f"* Left out: {name} ({reason})." for name, reason in run["skipped"].items()
                    ]
                    lines.append("")
            lines += _targets_rst([line for line in targets if line["coretype"] == coretype])
            lines += _times_rst(
                [e for e in entries if e["extra_info"].get("coretype", "default") == coretype]
            )
    if not written:
        lines += [
            "No results are stored yet; ``python -m linalgk bench --json PATH`` makes some.",
            "",
        ]
    return "\n".join(lines)


def _targets_rst(targets: Sequence[dict[str, Any]]) -> list[str]:
    if not targets:
        return []
    verdict = {True: "met", False: "missed", None: "not measured"}
    rows = [
        [
            line["problem"],
            line["target"].removeprefix("target "),
            _measured(line),
            verdict[line["met"]],
        ]
        for line in targets
    ]
    return _list_table(("problem", "target", "measured", ""), rows)


def _times_rst(entries: Sequence[dict[str, Any]]) -> list[str]:
    if not entries:
        return []
    order = list(dict.fromkeys(e["extra_info"]["problem"] for e in entries))
    rows = []
    previous = None
    for entry in sorted(entries, key=lambda e: order.index(e["extra_info"]["problem"])):
        problem = entry["extra_info"]["problem"]
        rows.append(["" if problem == previous else problem, *_cells(entry)])
        previous = problem
    return _list_table(("problem", *HEADER), rows)


def load(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Read results; a folder stands for the JSON files in it."""
    files: list[Path] = []
    for path in map(Path, paths):
        files += [path] if path.suffix == ".json" else sorted(path.glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``bench_<room>.rst`` for every room, ``bench_startup.rst`` and ``bench_cuda.rst``."""
    parser = argparse.ArgumentParser(prog="linalgk_bench.report", description=main.__doc__)
    parser.add_argument("results", nargs="+", help="JSON files, or folders of them")
    parser.add_argument("--out", required=True, help="folder for the pages")
    args = parser.parse_args(argv)
    everything = load(args.results)
    results = [result for result in everything if result.get("kind") != "cuda"]
    gpus = [result for result in everything if result.get("kind") == "cuda"]
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    pages = {room: room_rst(room, results) for room in (*ROOMS, "startup")}
    pages["cuda"] = cuda_rst(gpus, PROBLEMS)
    for name, text in pages.items():
        page = folder / f"bench_{name}.rst"
        page.write_text(text, encoding="utf-8")
        print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
