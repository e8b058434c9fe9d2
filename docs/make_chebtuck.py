"""The tables of the Chebyshev-Tucker format: ``python docs/make_chebtuck.py``.

Without options it prints the tables of the page from ``docs/_generated/chebtuck.json``.
``--measure`` writes that file anew, in a minute or two, ``--quick`` with fewer turns. What is read
from the authors' published data is measured with ``--data FOLDER`` only, and kept as it is without.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.fft  # part of the start, not of the first row
import scipy.interpolate  # noqa: F401
from linalgk_bench import chebtuck, machine
from linalgk_bench.chebtuck import CUBE, TOL, fixed, interpolated, part, slice_errors

import linalgk as lk

TARGET = Path(__file__).with_name("_generated") / "chebtuck.json"
LENGTHS = (129, 513, 2049)
# From the authors' canonical tensors with their settings: terms, terms of the long range, its rank
# and errors for each of the lengths, and errors of the whole kernel.
PUBLISHED = {
    256: (26, 10, 9, (8.4e-8, 7.3e-8, 1.6e-9), (4.1e-1, 7.7e-3, 2.0e-4)),
    512: (29, 12, 11, (5.2e-8, 4.6e-8, 3.0e-9), (7.1e-1, 7.3e-2, 6.9e-4)),
    1024: (31, 13, 12, (9.4e-9, 9.4e-9, 8.6e-9), (9.2e-1, 4.1e-1, 7.7e-3)),
    2048: (34, 14, 13, (3.6e-9, 1.7e-9, 1.6e-9), (1.1, 7.1e-1, 7.3e-2)),
    4096: (37, 16, 15, (1.1e-4, 7.4e-10, 7.4e-10), (1.2, 9.2e-1, 4.1e-1)),
}
COUNTS, RADII = (1, 10, 100, 200, 300, 400, 500, 600), (0.5, 0.25)
SPEEDUP_TOL = 1e-10


def short(x, digits=3):
    return float(f"{float(x):.{digits}g}")


def adaptive(t, tol=TOL):
    return lk.chebtucker(t, CUBE, grid="cells", tol=tol, on_fail="nan")


def reached(n):
    """The smallest error that any of the lengths gives at these ranks."""
    return min(PUBLISHED[n][3])


# --- the Newton kernel ---------------------------------------------------------------------------


def newton_row(t, n):
    """Whole kernel and long range at fixed lengths, and with the degree that the tolerance needs.

    Errors are largest differences on the middle slice relative to the largest entry there.
    """

    def errors(functions, of):
        gaps, top = slice_errors(functions, of, [n // 2], half=True)
        return [short(gap / top) for gap in gaps]

    long = part(t, PUBLISHED[n][1])
    series = [interpolated(t, m) for m in LENGTHS]
    found = [fixed(part(c, long.rank)) for c in series]
    asked = {"asked": TOL, "equal": reached(n)}
    ours = [adaptive(long, tol) for tol in asked.values()]
    misses = errors([*found, *ours], long)
    row = {
        "n": n, "terms": t.rank, "long": long.rank,
        "whole": errors([fixed(c) for c in series], t),
        "fixed_rank": max(found[0].ranks), "fixed": misses[:-2],
    }  # fmt: skip
    for (name, tol), f, error in zip(asked.items(), ours, misses[-2:], strict=True):
        row[name] = {
            "tol": tol, "rank": max(f.ranks), "degree": max(f.degrees), "error": error,
            "claimed": short(f.error), "converged": f.converged,
        }  # fmt: skip
    return row


def newton(sizes=tuple(PUBLISHED)):
    """The rows of our own Gaussian sums, and the seconds that all of it took: by the clock and of
    the processor.
    """
    adaptive(lk.CanonicalTensor([1.0], [np.ones((8, 1))] * 3))  # kernels are loaded
    start, work, rows = time.perf_counter(), time.process_time(), []
    for n in sizes:
        t, total = chebtuck.newton(n)
        sharpest = total.exponents[PUBLISHED[n][1] - 1]
        rows.append(newton_row(t, n) | {"kernel": short(total.error), "sharpest": short(sharpest)})
    return rows, [short(time.perf_counter() - start), short(time.process_time() - work)]


def newton_timed(rounds, threads):
    """The same in fresh processes, of which the fastest counts: sums of Gaussians are kept."""
    command = [sys.executable, __file__, "--newton", "--threads", str(threads)]
    found = [
        json.loads(
            subprocess.run(
                command, env=machine.environment(threads, None), stdout=subprocess.PIPE,
                check=True,
            ).stdout
        )
        for _ in range(rounds)
    ]  # fmt: skip
    return min(found, key=lambda pair: pair[1][0])


def whole(n=256):
    """What the construction says of the kernel with its peak, where data cannot tell."""
    f = adaptive(chebtuck.newton(n)[0])
    return [
        {"n": n, "degree": max(f.degrees), "rank": max(f.ranks), "error": short(f.error),
         "tail": short(f.certificate.tail), "converged": f.converged}
    ]  # fmt: skip


def newton_published(folder):
    rows = []
    for n in PUBLISHED:
        file = folder / f"newton_cp_n{n}.npz"
        if file.exists():
            t, _ = chebtuck.published(file)
            rows.append(newton_row(t, n) | kernel_errors(t, n) | {"sharpest": sharpest(t, n)})
    return rows


def sharpest(t, n, apart=4):
    """The exponent of the last column of the long range, from its fall next to the centre."""
    x, u = chebtuck.cells(n)[n // 2 :], t.factors[0][n // 2 :, PUBLISHED[n][1] - 1]
    return short(np.log(u[0] / u[apart]) / (x[apart] ** 2 - x[0] ** 2))


def kernel_errors(t, n, cells=10):
    """Of 1/r, relative to it, on the middle slice: everywhere, and away from the origin."""
    x, u = chebtuck.cells(n)[n // 2 :], t.factors[0][n // 2 :]
    r = np.sqrt(x[:, None] ** 2 + x[None, :] ** 2 + x[0] ** 2)
    gap = np.abs((u * (t.weights * u[0])) @ u.T * r - 1)
    return {"kernel": short(gap.max()), "away": short(gap[r > cells * 2 / n].max())}


# --- the molecule and clouds of charges ----------------------------------------------------------


def timed(call, rounds):
    """Result and least milliseconds."""
    least = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        result = call()
        least = min(least, time.perf_counter() - start)
    return result, short(1e3 * least)


def series_row(name, f, t, slices, **others):
    (gap,), top = slice_errors([f], t, slices)
    degrees = [c.shape[0] - 1 for c in f.factors]
    row = {"method": name, "degrees": degrees, "ranks": list(f.ranks)}
    row |= {"absolute": short(gap), "relative": short(gap / top)}
    if isinstance(f, lk.ChebTucker):
        row |= {"claimed": short(f.error), "converged": f.converged}
    return row | others


def molecule(folder, rounds):
    file = folder / "biomolecule_cp_n256_N500.npz"
    if not file.exists():
        return []
    t, _ = chebtuck.published(file)
    calls = {
        "algorithm 4, m = 129": lambda: fixed(interpolated(t, 129)),
        "algorithm 3, m = 129": lambda: fixed(interpolated(t, 129), full=True),
        "algorithm 4, m = 129, tol 1e-13": lambda: fixed(interpolated(t, 129), 1e-13),
        "linalgk": lambda: adaptive(t),
        "linalgk, tol 1e-5": lambda: adaptive(t, 1e-5),
        "linalgk, tol 1e-3": lambda: adaptive(t, 1e-3),
        "linalgk, from all values": lambda: adaptive(t.toarray()),
    }
    rows = []
    for name, call in calls.items():
        f, ms = timed(call, rounds)
        rows.append(series_row(name, f, t, range(256), ms=ms, terms=t.rank))
    return rows


def clouds(rounds):
    rows = []
    for radius in RADII:
        for count in COUNTS:
            points, charges = chebtuck.cloud(count)

            def call(points=points, charges=charges, radius=radius):
                return lk.longrange_potential(
                    points, charges, TOL, split=radius, domain=CUBE, on_fail="nan"
                )

            v, ms = timed(call, rounds)
            x = np.random.default_rng(7).uniform(-1, 1, (1000, 3))
            want = chebtuck.gaussians_at(x, points, charges, v.weights, v.exponents)
            apart = np.sqrt(np.sum((x[:, None] - points[None]) ** 2, axis=-1))
            rows.append(
                {"charges": count, "radius": radius, "terms": v.weights.size,
                 "peak": short(radius * float(np.sum(v.weights))),
                 "ranks": list(v.long.ranks), "degree": max(v.long.degrees),
                 "claimed": short(v.error),
                 "error": short(np.abs(v.long(*x.T) - want).max() / v.scale),
                 "total": short(np.abs(v.eval(x) - (1 / apart) @ charges).max() / v.scale),
                 "ms": ms}
            )  # fmt: skip
    return rows


# --- the lattice ---------------------------------------------------------------------------------


def lattice_rows(t, name, rounds, slices):
    rows = []
    for how, call in (
        ("algorithm 4, m = 129", lambda: fixed(interpolated(t, 129))),
        ("algorithm 4, m = 257", lambda: fixed(interpolated(t, 257))),
        ("linalgk", lambda: adaptive(t)),
    ):
        f, ms = timed(call, rounds)
        rows.append(series_row(how, f, t, slices, ms=ms, terms=t.rank, tensor=name))
    return rows


def lattice_published(folder, rounds):
    file = folder / "lattice_cp_n960.npz"
    if not file.exists():
        return []
    t, data = chebtuck.published(file)
    return lattice_rows(part(t, data["long_range"]), "published", rounds, range(0, 960, 10))


def lattice(rounds, n=960, sharp=11):
    """The same charges: canonical on the grid, without as many sharp terms, and mesh-free."""
    v, ms = timed(chebtuck.crystal, rounds)
    t = v.canonical(*[45 * chebtuck.cells(n)] * 3, tol=1e-5)
    rows = lattice_rows(part(t, t.rank - 2 * sharp), "own", rounds, range(0, n, 10))
    x = np.random.default_rng(7).uniform(-45, 45, (200, 3))
    points, charges = v.sources.points, v.sources.charges
    apart = np.sqrt(np.sum((x[:, None] - points[None]) ** 2, axis=-1))
    want = chebtuck.gaussians_at(x, points, charges, v.weights, v.exponents)
    rows.append(
        {"tensor": "mesh-free", "method": "lattice_sum", "charges": int(np.sum(charges != 0)),
         "radius": v.radius, "terms": 2 * v.weights.size, "degrees": list(v.long.degrees),
         "ranks": list(v.long.ranks), "claimed": short(v.error), "converged": v.converged,
         "relative": short(np.abs(v.long(*x.T) - want).max() / v.scale),
         "absolute": short(np.abs(v.long(*x.T) - want).max()),
         "total": short(np.abs(v.eval(x) - (1 / apart) @ charges).max() / v.scale),
         "whole": t.rank, "ms": ms}
    )  # fmt: skip
    return rows


# --- functions of growing difficulty -------------------------------------------------------------


def speedup(rounds):
    rows, x = [], np.random.default_rng(5).uniform(-1, 1, (3, 2000))
    for name, (make, ks) in chebtuck.SPEEDUP.items():
        for k in ks:
            f = make(k)
            for method in ("grid", "cross"):

                def call(f=f, method=method):
                    return lk.chebtucker(f, CUBE, tol=SPEEDUP_TOL, method=method, on_fail="nan")

                g, ms = timed(call, rounds)
                rows.append(
                    {"function": name, "k": short(k, 6), "method": method, "ran": g.method,
                     "ms": ms, "evaluations": g.evaluations, "degrees": list(g.degrees),
                     "ranks": list(g.ranks), "claimed": short(g.error), "converged": g.converged,
                     "error": short(np.abs(g(*x) - f(*x)).max() / g.scale)}
                )  # fmt: skip
    return rows


# --- the file ------------------------------------------------------------------------------------

# What needs the authors' data.
THEIRS = ("newton_published", "molecule", "lattice_published")


def measure(rounds, threads, folder):
    rows, seconds = newton_timed(rounds, threads)
    parts = {
        "newton": rows,
        "whole": whole(),
        "clouds": clouds(rounds),
        "lattice": lattice(rounds),
        "speedup": speedup(rounds),
    }
    if folder is not None:
        parts |= {
            "newton_published": newton_published(folder),
            "molecule": molecule(folder, rounds),
            "lattice_published": lattice_published(folder, rounds),
        }
    if TARGET.exists():
        before = json.loads(TARGET.read_text(encoding="utf-8"))
        parts |= {name: before[name] for name in THEIRS if not parts.get(name)}
    names = ("linalgk", "numpy", "scipy", "numba")
    head = {
        "versions": {n: version(n) for n in names} | {"python": platform.python_version()},
        "machine": {"cpu": machine.cpu_name(), "threads": threads},
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": rounds,
        "seconds": dict(zip(("clock", "processor"), seconds, strict=True)),
    }
    text = json.dumps(head, indent=1)[:-2]
    for name, rows in parts.items():
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        text += f',\n "{name}": [\n{lines}\n ]'
    TARGET.write_text(text + "\n}\n", encoding="utf-8")
    print(f"wrote {sum(map(len, parts.values()))} rows")


# --- the page's tables ---------------------------------------------------------------------------


def sizes(numbers):
    """Ranks or degrees, once where all are equal."""
    return f"{numbers[0]}" if len(set(numbers)) == 1 else ", ".join(map(str, numbers))


def three(errors):
    return " / ".join(f"{e:.1e}" for e in errors)


def missed(row):
    return "" if row.get("converged", True) else ", not reached"


def newton_tables(result, list_table):
    head = ["n", "terms", "error of 1/r", "whole kernel: error at m = 129 / 513 / 2049"]
    names = {"newton": "linalgk", "newton_published": "published"}
    rows = [(names[key], row) for key in names for row in result.get(key, [])]
    rows = sorted(rows, key=lambda pair: pair[1]["n"])
    body = []
    for name, r in rows:
        where = f"; {r['away']:.1e} beyond 10 cells" if "away" in r else ""
        body.append([f"{r['n']}, {name}", str(r["terms"]), f"{r['kernel']:.1e}{where}",
                     three(r["whole"])])  # fmt: skip
    yield ".. rubric:: The Newton kernel on n x n x n cells, and what a fixed degree makes of it\n"
    yield list_table(head, body)
    head = [
        "n", "terms", "sharpest exponent", "fixed degree: rank", "error at m = 129 / 513 / 2049",
        f"linalgk, tol {TOL:g}: rank", "degree", "error",
        "linalgk at the error reached: tol", "rank", "degree", "error",
    ]  # fmt: skip
    body = []
    for n, (_, terms, rank, errors, _) in PUBLISHED.items():
        body.append([f"{n}, table", str(terms), "-", str(rank), three(errors), *["-"] * 7])
        for name, r in rows:
            if r["n"] == n:
                a, b = r["asked"], r["equal"]
                body.append(
                    [f"{n}, {name}", str(r["long"]), f"{r['sharpest']:.0f}", str(r["fixed_rank"]),
                     three(r["fixed"]), str(a["rank"]), str(a["degree"]),
                     f"{a['error']:.1e}{missed(a)}",
                     f"{b['tol']:g}", str(b["rank"]), str(b["degree"]),
                     f"{b['error']:.1e}{missed(b)}"]
                )  # fmt: skip
    yield ".. rubric:: The long range of the kernel\n"
    yield list_table(head, body)
    r, spent = result["whole"][0], result["seconds"]
    yield (
        f"All rows of our own sums, in both tables, took {spent['clock']:g} s "
        f"({spent['processor']:g} s of the processor), sums and errors included. The whole kernel, "
        f"asked for at {TOL:g} for n = {r['n']} with the degree left open, comes back with degree "
        f"{r['degree']}, rank {r['rank']}, an error of {r['error']:.1e} and "
        f"``converged={r['converged']}``: between the data, next to the peak, splines are "
        f"uncertain by {r['tail']:.1e} of the largest value.\n"
    )


def charge_tables(result, list_table):
    if result.get("molecule"):
        rows = result["molecule"]
        body = [
            [r["method"], sizes(r["degrees"]), sizes(r["ranks"]), f"{r['absolute']:.1e}",
             f"{r['relative']:.1e}", f"{r['claimed']:.1e}" if "claimed" in r else "-",
             f"{r['ms']:.0f}"]
            for r in rows
        ]  # fmt: skip
        yield (
            ".. rubric:: The published molecule of 500 charges: 256 x 256 x 256 cells, "
            f"{rows[0]['terms']} terms, tol {TOL:g}\n"
        )
        head = ["method", "degree", "ranks", "absolute error", "relative", "claimed", "ms"]
        yield list_table(head, body)
    yield ".. rubric:: Seeded charges in a cube of side 2, long range beyond a radius\n"
    rows = result["clouds"]
    body = [
        [f"{r['radius']:g}", str(r["charges"]), str(r["terms"]), str(r["degree"]),
         sizes(r["ranks"]), f"{r['error']:.1e}", f"{r['total']:.1e}", f"{r['claimed']:.1e}",
         f"{r['ms']:.0f}"]
        for r in rows
    ]  # fmt: skip
    head = ["radius", "charges", "Gaussians", "degree", "ranks", "error of the long range",
            "of the potential", "claimed", "ms"]  # fmt: skip
    yield list_table(head, body)


def lattice_table(result, list_table):
    body = []
    for r in (*result.get("lattice_published", []), *result["lattice"]):
        where = {"published": "published", "own": "lattice_sum, on the grid"}.get(r["tensor"], "")
        body.append(
            [f"{where}: {r['method']}" if where else f"{r['method']}, mesh-free", str(r["terms"]),
             sizes(r["degrees"]), sizes(r["ranks"]), f"{r['absolute']:.1e}", f"{r['relative']:.1e}",
             f"{r['claimed']:.1e}" if "claimed" in r else "-", f"{r['ms']:.0f}"]
        )  # fmt: skip
    own = result["lattice"][-1]
    yield (
        f".. rubric:: A lattice of {own['charges']} charges, long range, 960 x 960 x 960 cells, "
        f"tol {TOL:g}\n"
    )
    head = ["tensor and method", "terms", "degree", "ranks", "absolute error", "relative",
            "claimed", "ms"]  # fmt: skip
    yield list_table(head, body)
    yield (
        f"The whole potential from ``canonical`` has {own['whole']} terms at 1e-5. The mesh-free "
        f"row is split at the radius {own['radius']:g}; long and short range together differ from "
        f"the direct sum over all charges by {own['total']:.1e} of the long range's largest "
        "value.\n"
    )


def speedup_table(result, list_table):
    body = []
    for name in chebtuck.SPEEDUP:
        rows = [r for r in result["speedup"] if r["function"] == name]
        for k in dict.fromkeys(r["k"] for r in rows):
            grid, cross = (
                next(r for r in rows if (r["k"], r["method"]) == (k, m)) for m in ("grid", "cross")
            )
            body.append(
                [rf":math:`\tanh(k(x+y+z))`, k = {k:.2f}" if name == "tanh"
                 else rf":math:`1/(1+k r^2)`, k = {k:g}",
                 sizes(grid["degrees"]), sizes(grid["ranks"])]
                + [f"{r['ms']:.0f}" for r in (grid, cross)]
                + [f"{r['evaluations']:,}" for r in (grid, cross)]
                + [f"{r['error']:.0e}" for r in (grid, cross)]
            )  # fmt: skip
    yield f".. rubric:: Construction from functions, tol {SPEEDUP_TOL:g}: grid and cross\n"
    head = ["function", "degrees", "ranks", "ms, grid", "ms, cross", "values, grid",
            "values, cross", "error, grid", "error, cross"]  # fmt: skip
    yield list_table(head, body)


def tables(result):
    """The tables as rst."""
    sys.path.insert(0, str(Path(__file__).with_name("tables")))
    from rst import list_table

    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    place = result["machine"]
    threads = f"{place['threads']} thread{'s' if place['threads'] > 1 else ''}"
    yield (
        f"Measured on {result['date']} with {versions}; {place['cpu']}, {threads} at most; least "
        f"time of {result['rounds']} turns.\n"
    )
    for part_of_it in (newton_tables, charge_tables, lattice_table, speedup_table):
        yield from part_of_it(result, list_table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="write the numbers anew")
    parser.add_argument("--quick", action="store_true", help="the same in a single turn")
    parser.add_argument("--data", type=Path, help="folder of the authors' canonical tensors")
    parser.add_argument("--threads", type=int, default=min(2, len(machine.available_cpus())))
    parser.add_argument("--newton", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.newton:
        print(json.dumps(newton()))
    elif args.measure or args.quick:
        measure(1 if args.quick else 3, args.threads, args.data)
    else:
        print("\n".join(tables(json.loads(TARGET.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
