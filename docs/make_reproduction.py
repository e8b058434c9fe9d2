"""The tables of the fast differentiable square root: ``python docs/make_reproduction.py``.

Without options it prints the tables of the page from ``docs/_generated/reproduction.json``.
``--measure`` writes that file anew, in some minutes, and ``--quick`` with fewer and shorter
turns; both need PyTorch. Every contender is a process, with one thread and with all, and they take
turns (A B A B).
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from linalgk_bench import gradients, machine, paper
from linalgk_bench.timing import calibrate, run_round

import linalgk as lk
from linalgk.testing import spd_matrix

TARGET = Path(__file__).with_name("_generated") / "reproduction.json"
DIMENSIONS = (16, 32, 64, 96, 128)
KAPPAS = (1e1, 1e2, 1e3, 1e4, 1e5, 1e6)
ORDERS, STEPS = (4, 16, 64), (8, 12, 24)
BATCHES = (1, 4, 16, 64)
# The settings of the paper's tables 3 and 4, its two sweeps, and two sizes more.
SHAPES = (
    (64, 48, 48), (1, 64, 64), *((b, 64, 64) for b in BATCHES[1:]),
    *((1, d, d) for d in DIMENSIONS if d != 64), (1, 256, 256), (64, 16, 16),
)  # fmt: skip
# What the paper reports: errors read off its figure at the first and the last dimension, and times
# in ms on a Tesla K40 with a six-core Xeon at 2.2 GHz, of its three SVD variants the fastest.
PAPER = {
    "errors": {"MTP": [0.107, 0.181], "MPA": [0.041, 0.081], "NS": [0.052, 0.132]},
    "times": {
        "1x64x64": {"SVD": 3.39, "NS": 2.96, "MPA": 2.52, "MTP": 2.36},
        "64x48x48": {"SVD": 83.25, "NS": 10.38, "MPA": 3.25, "MTP": 2.39},
    },
}


def roots() -> dict[str, Callable]:
    """The contenders: tensor in, differentiable root out."""
    methods = paper.methods()
    return {
        "linalgk": lambda t: lk.sqrtm(t, assume_a="pos"),
        "eigh": gradients.eigh_root,
        "SVD": gradients.svd_root,
        "NS": methods.newton_schulz,
        "MPA": lambda t: methods.root(t, "MPA"),
        "MTP": lambda t: methods.root(t, "MTP"),
    }


def short(x):
    return float(f"{x:.3g}")


def relative(x, want):
    return short(np.max(lk.testing.relative_error(np.asarray(x), want)))


def exact_root(a):
    w, v = np.linalg.eigh(a)
    return (v * np.sqrt(np.maximum(w, 0))[..., None, :]) @ np.swapaxes(v, -1, -2)


def accuracy(members=20):
    """The paper's figure: mean absolute error of the root of R R^T, R square."""
    import torch

    methods, rows = paper.methods(), []
    for d in DIMENSIONS:
        r = np.random.default_rng(d).standard_normal((members, d, d))
        a = r @ r.swapaxes(-1, -2)
        want, t = exact_root(a), torch.from_numpy(a)
        found = {
            "MTP": methods.forward(t, "MTP"),
            "MPA": methods.forward(t, "MPA"),
            "NS": methods.newton_schulz(t),
            "NS, trace": methods.newton_schulz(t, scale="trace"),
            "linalgk": lk.sqrtm(t, assume_a="pos"),
        }
        for name, x in found.items():
            size = np.abs(x.numpy() - want).mean()
            rows.append(
                {"method": name, "d": d, "mean": short(size), "relative": relative(x, want)}
            )
    return rows


def steps_left():
    """Relative error of the gradient after so many steps that start from the exact root."""
    import torch

    rows, solve = [], paper.methods().lyapunov
    for n in ORDERS:
        for kappa in KAPPAS:
            arrays = cotangent(n, kappa)
            want, x = gradients.reference(arrays), exact_root(arrays["a"])
            for k in STEPS:
                y = solve(torch.from_numpy(x)[None], torch.from_numpy(arrays["g"])[None], k)[0]
                rows.append({"n": n, "kappa": kappa, "steps": k, "error": relative(y, want)})
    return rows


def cotangent(n, kappa):
    g = np.random.default_rng(1).standard_normal((n, n))
    return {"a": spd_matrix(n, kappa), "g": g + g.T}


def gradient_errors(n=64):
    """Relative error of the gradient of every contender in double precision."""
    rows = []
    for kappa in KAPPAS:
        arrays = cotangent(n, kappa)
        want = gradients.reference(arrays)
        for name, root in roots().items():
            found = gradients.forward_backward(root, arrays)()
            rows.append({"method": name, "kappa": kappa, "error": relative(found, want)})
    return rows


# --- times: a process per contender and number of threads ------------------------------------


def serve(name):
    """A contender: prepares a shape when it is asked, times it for a budget when asked again."""
    calls = {}
    for line in sys.stdin:
        shape, budget = json.loads(line)
        if budget == 0:
            arrays = gradients.make(shape)
            call = gradients.forward_backward(roots()[name], arrays)
            answer = relative(call(), gradients.reference(arrays))
            calls = {"call": call, "loops": calibrate(call)}
        else:
            answer = run_round(calls["call"], calls["loops"], budget)["min"]
        print(json.dumps(answer), flush=True)


class Contender:
    def __init__(self, name, threads):
        command = [sys.executable, __file__, "--serve", name, "--threads", str(threads)]
        self.name, self.threads = name, threads
        self.process = subprocess.Popen(
            command, env=machine.environment(threads, None), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, shape, budget):
        print(json.dumps([shape, budget]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def times(rounds, budget, threads):
    contenders = [Contender(name, t) for name in roots() for t in sorted({1, threads})]
    rows = []
    for shape in SHAPES:
        errors = [c.ask(shape, 0) for c in contenders]
        least = [float("inf")] * len(contenders)
        for _ in range(rounds):
            for i, contender in enumerate(contenders):
                time.sleep(0.02)  # until the last one's threads stop spinning
                least[i] = min(least[i], contender.ask(shape, budget))
        for name in roots():
            own = [i for i, c in enumerate(contenders) if c.name == name]
            best = min(own, key=least.__getitem__)
            rows.append(
                {
                    "shape": "x".join(map(str, shape)),
                    "method": name,
                    "ms": short(1e3 * least[best]),
                    "threads": contenders[best].threads,
                    "error": max(errors[i] for i in own),
                }
            )
    for contender in contenders:
        contender.process.stdin.close()
        contender.process.wait()
    return rows


def measure(rounds, budget, threads):
    parts = {
        "accuracy": accuracy(),
        "steps": steps_left(),
        "gradients": gradient_errors(),
        "times": times(rounds, budget, threads),
    }
    names = ("linalgk", "numpy", "scipy", "numba", "torch")
    head = {
        "versions": {n: version(n) for n in names} | {"python": platform.python_version()},
        "machine": {"cpu": machine.cpu_name(), "threads": threads},
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": rounds,
        "budget": budget,
        "paper": PAPER,
    }
    text = json.dumps(head, indent=1)[:-2]
    for name, rows in parts.items():
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        text += f',\n "{name}": [\n{lines}\n ]'
    TARGET.write_text(text + "\n}\n", encoding="utf-8")
    print(f"wrote {sum(map(len, parts.values()))} rows")


# --- the page's tables -----------------------------------------------------------------------


def tables(result):
    """The tables as rst."""
    sys.path.insert(0, str(Path(__file__).with_name("tables")))
    from rst import list_table

    def cell(rows, key, form, **chosen):
        return next(
            (form.format(r[key]) for r in rows if all(r[k] == v for k, v in chosen.items())), "-"
        )

    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    place = result["machine"]
    yield (
        f"Measured on {result['date']} with {versions}; {place['cpu']}, {place['threads']} threads "
        f"at most; least time of {result['rounds']} turns of {result['budget']:g} s.\n"
    )
    yield ".. rubric:: Mean absolute error of the root by dimension, double precision\n"
    rows, reported = result["accuracy"], result["paper"]["errors"]
    ends = (DIMENSIONS[0], DIMENSIONS[-1])
    body = []
    for name in dict.fromkeys(r["method"] for r in rows):
        body.append([name, *(cell(rows, "mean", "{:.2g}", method=name, d=d) for d in DIMENSIONS)])
        if name in reported:
            there = dict(zip(ends, reported[name], strict=True))
            body.append(
                [
                    f"{name}, the paper",
                    *(f"{there[d]:g}" if d in there else "-" for d in DIMENSIONS),
                ]
            )
    yield list_table(["method", *(f"d = {d}" for d in DIMENSIONS)], body)
    yield ".. rubric:: Relative error of the gradient that the steps leave, from the exact root\n"
    rows = result["steps"]
    body = [
        [str(n), str(k), *(cell(rows, "error", "{:.1e}", n=n, steps=k, kappa=x) for x in KAPPAS)]
        for n in ORDERS
        for k in STEPS
    ]
    powers = [f":math:`\\kappa = 10^{{{round(np.log10(x))}}}`" for x in KAPPAS]
    yield list_table(["n", "steps", *powers], body)
    yield ".. rubric:: Relative error of the gradient, root included, n = 64, double precision\n"
    rows = result["gradients"]
    methods = list(dict.fromkeys(r["method"] for r in rows))
    body = [
        [m, *(cell(rows, "error", "{:.1e}", method=m, kappa=x) for x in KAPPAS)] for m in methods
    ]
    yield list_table(["method", *powers], body)
    yield ".. rubric:: Forward and backward, single precision: ms (error of the gradient)\n"
    rows = result["times"]
    body = []
    for shape in dict.fromkeys(r["shape"] for r in rows):
        own = {r["method"]: r for r in rows if r["shape"] == shape}
        body.append([shape, *(f"{own[m]['ms']:g} ({own[m]['error']:.0e})" for m in methods)])
        if shape in result["paper"]["times"]:
            there = result["paper"]["times"][shape]
            body.append(
                [f"{shape}, the paper", *(f"{there[m]:g}" if m in there else "-" for m in methods)]
            )
    yield list_table(["shape", *methods], body)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="write the numbers anew")
    parser.add_argument("--quick", action="store_true", help="the same with short turns")
    parser.add_argument("--threads", type=int, default=min(2, len(machine.available_cpus())))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        machine.pin(args.threads)
        serve(args.serve)
    elif args.measure or args.quick:
        measure(*((3, 0.03) if args.quick else (7, 0.1)), args.threads)
    else:
        print("\n".join(tables(json.loads(TARGET.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
