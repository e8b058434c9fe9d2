"""Error of every method against the condition number, from make_accuracy.py's numbers."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

# Sphinx runs this in the folder of this file, without a __file__.
result = json.loads(Path("../_generated/accuracy.json").read_text(encoding="utf-8"))
COLOURS = {"eigh": "C0", "minimax": "C1", "newton_schulz": "C2", "schur": "C3"}
COLOURS |= {"pade": "C4", "db": "C5"}
SHAPES = {"float64": "o", "complex128": "s", "float32": "^", "complex64": "v"}
figure, axes = plt.subplots(1, 3, sharey=True, layout="constrained", figsize=(9, 4.8))
for axis, function, title in zip(
    axes,
    ("sqrtm", "invsqrtm", "inv_root(4)"),
    ("square root", "inverse square root", "inverse fourth root"),
    strict=True,
):
    rows = [r for r in result["rows"] if r["function"] == function and r["n"] > 2]
    rows = [r for r in rows if r["dtype"] == r["compute_dtype"]]
    for dtype in ("float64", "float32"):
        line = sorted({(r["kappa"], r["theory"]) for r in rows if r["dtype"] == dtype})
        for factor, style in ((1, "-"), (result["factor"], ":")):
            x, y = [k for k, _ in line], [factor * theory for _, theory in line]
            axis.plot(x, y, style, color="0.6", lw=1)
    for method, colour in COLOURS.items():
        for dtype, shape in SHAPES.items():
            own = [r for r in rows if r["asked"] == method and r["dtype"] == dtype]
            x, y = [r["kappa"] for r in own], [r["error"] for r in own]
            axis.plot(x, y, shape, color=colour, ms=4, mfc="none")
    axis.set(xscale="log", yscale="log", title=title, xlabel=r"condition number $\kappa$")
axes[0].set_ylabel("relative error (Frobenius)")
for method, colour in COLOURS.items():
    axes[0].plot([], [], "-", color=colour, label=method)
for dtype, shape in SHAPES.items():
    axes[0].plot([], [], shape, color="0.3", mfc="none", ms=4, label=dtype)
axes[0].plot([], [], "-", color="0.6", lw=1, label="theory")
axes[0].plot([], [], ":", color="0.6", lw=1, label=f"{result['factor']:g} × theory, the claim")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
