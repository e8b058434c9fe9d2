"""Tables of the accuracy page from the numbers that make_accuracy.py wrote."""

import json
import math
from pathlib import Path

from rst import list_table

DATA = Path(__file__).parents[1] / "_generated" / "accuracy.json"
result = json.loads(DATA.read_text(encoding="utf-8"))
versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
print(f"Measured with {versions} on {result['machine']}.\n")
WHAT = {
    "sqrtm": r"Square root, theory :math:`\varepsilon\,\kappa^{1/2}`",
    "invsqrtm": r"Inverse square root, theory :math:`\varepsilon\,\kappa`",
    "inv_root(3)": r"Inverse cube root, theory :math:`\varepsilon\,\kappa`",
    "inv_root(4)": r"Inverse fourth root, theory :math:`\varepsilon\,\kappa`",
    "inv_root(8)": r"Inverse eighth root, theory :math:`\varepsilon\,\kappa`",
    "logm": r"Logarithm, theory :math:`\varepsilon\,\kappa`",
}


def power(x):
    return f":math:`10^{{{round(math.log10(x))}}}`"


for function, title in WHAT.items():
    for dtype in ("float64", "complex128", "float32", "complex64"):
        rows = [r for r in result["rows"] if (r["function"], r["dtype"]) == (function, dtype)]
        print(f".. rubric:: {title}: {dtype}\n")
        cells = [
            [
                f"``{r['asked']}``"
                + ("" if r["compute_dtype"] == dtype else f", ``{r['compute_dtype']}`` inside"),
                str(r["n"]),
                power(r["kappa"]),
                f"``{r['ran']}``" + (f", {r['steps']} steps" if r["steps"] else ""),
                f"{r['error']:.1e}",
                f"{r['theory']:.1e}",
                f"{r['error'] / r['theory']:.2f}",
                "-" if r["error_estimate"] is None else f"{r['error_estimate']:.1e}",
            ]
            for r in rows
        ]
        header = ["asked for", "n", r":math:`\kappa`", "ran", "error", "theory", "error / theory"]
        print(list_table([*header, "``error_estimate``"], cells))
