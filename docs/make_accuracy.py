"""Measure every method against a 50-digit reference: ``python docs/make_accuracy.py``.

Writes ``docs/_generated/accuracy.json``, from which the accuracy page makes its table and its plot,
and whose claims ``tests/test_stories.py`` checks. Takes some ten seconds.
"""

import json
import math
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

import linalgk as lk
from linalgk.testing import mp_funm, relative_error, spd_matrix

TARGET = Path(__file__).with_name("_generated") / "accuracy.json"
ORDER = 16
# Condition numbers by precision: from easy to the edge of what the dtype can hold.
KAPPAS = {"double": (1e1, 1e3, 1e6, 1e9, 1e12, 1e15), "single": (1e1, 1e3, 1e6)}
DTYPES = {"float64": "double", "complex128": "double", "float32": "single", "complex64": "single"}
ITERATIONS = ("eigh", "minimax", "newton_schulz", "pade")
# Denman-Beavers loses digits of the root beyond these; the general methods of inverse roots too
DB_LIMIT = {"double": 1e9, "single": 1e3}
# error <= FACTOR * eps * kappa ** POWER is the claim
POWER = {"sqrtm": 0.5, "invsqrtm": 1.0, "inv_root(3)": 1.0, "inv_root(4)": 1.0, "inv_root(8)": 1.0}
POWER |= {"logm": 1.0}
FACTOR = 10.0


def oracle(function, a):
    """Reference of 50 digits."""
    if function == "logm":
        from mpmath import log

        return mp_funm(a, log, least=0)
    if function == "sqrtm":
        return mp_funm(a, lambda x: x**0.5, least=-1)
    p = 2 if function == "invsqrtm" else int(function[9:-1])
    from mpmath import root

    return mp_funm(a, lambda x: 1 / root(x, p), least=0)


def call(function, a, **options):
    """The function itself."""
    if function.startswith("inv_root"):
        return lk.inv_root(a, int(function[9:-1]), **options)
    return getattr(lk, function)(a, **options)


def methods(function):
    """Those with a claim; the series has none."""
    if function == "logm":
        return ("eigh",)
    return (*ITERATIONS, "schur", "db") if function in ("sqrtm", "invsqrtm") else ITERATIONS


def keys():
    """Function, asked method, dtype, computing dtype, order and condition of every row."""
    for function in POWER:
        for method in methods(function):
            for dtype, precision in DTYPES.items():
                for kappa in KAPPAS[precision]:
                    if method != "db" or kappa <= DB_LIMIT[precision]:
                        yield function, method, dtype, dtype, ORDER, kappa
        if function not in ("sqrtm", "invsqrtm"):
            continue
        for dtype in DTYPES:
            yield function, "closed_form", dtype, dtype, 2, 1e3
        for kappa in KAPPAS["single"]:
            yield function, "eigh", "float32", "float64", ORDER, kappa


def measure(function, method, dtype, compute, n, kappa, references=None):
    """One row of the table."""
    references = {} if references is None else references
    a = spd_matrix(n, kappa, dtype=dtype, rng=0)
    key = (function, dtype, n, kappa)
    if key not in references:
        references[key] = oracle(function, a)
    options = {} if compute == dtype else {"compute_dtype": compute}
    x, info = call(function, a, method=method, return_info=True, **options)
    eps = float(np.finfo(dtype).eps)
    # a wider computation leaves its own error and the rounding of the result
    work = float(np.finfo(compute).eps)
    theory = work * kappa ** POWER[function] + (0.0 if compute == dtype else eps)
    estimate = float(info.error_estimate)
    return {
        "function": function,
        "asked": method,
        "ran": info.method,
        "dtype": dtype,
        "compute_dtype": compute,
        "n": n,
        "kappa": kappa,
        "steps": int(info.iterations),
        "error": float(f"{float(relative_error(x, references[key])):.3g}"),
        "theory": float(f"{theory:.3g}"),
        "error_estimate": None if math.isnan(estimate) else float(f"{estimate:.3g}"),
    }


def main():
    references = {}
    rows = [measure(*key, references=references) for key in keys()]
    versions = {name: version(name) for name in ("linalgk", "numpy", "scipy", "numba")}
    result = {
        "versions": versions | {"python": platform.python_version()},
        "machine": platform.machine(),
        "factor": FACTOR,
        "rows": rows,
    }
    TARGET.parent.mkdir(exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    head = {key: value for key, value in result.items() if key != "rows"}
    text = json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n'
    TARGET.write_text(text, encoding="utf-8")
    worst = max(row["error"] / row["theory"] for row in rows)
    print(f"wrote {len(rows)} rows; largest error / theory {worst:.2g}")


if __name__ == "__main__":
    main()
