"""Gradient error and time of the fast differentiable root, from make_reproduction.py's numbers."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

# Sphinx runs this in the folder of this file, without a __file__.
result = json.loads(Path("../_generated/reproduction.json").read_text(encoding="utf-8"))
COLOURS = {"linalgk": "C0", "eigh": "C2", "SVD": "C4", "NS": "C5", "MPA": "C1", "MTP": "C3"}
figure, axes = plt.subplots(1, 3, layout="constrained", figsize=(9, 3.9))
for k, style in ((8, "-"), (12, "--"), (24, ":")):
    for n, colour in ((4, "0.7"), (16, "0.45"), (64, "0.1")):
        own = [r for r in result["steps"] if (r["n"], r["steps"]) == (n, k)]
        x, y = [r["kappa"] for r in own], [r["error"] for r in own]
        label = f"{k} steps" if n == 64 else None
        axes[0].plot(x, y, style, color=colour, lw=1.3, label=label)
for method, colour in COLOURS.items():
    own = [r for r in result["gradients"] if r["method"] == method]
    x, y = [r["kappa"] for r in own], [r["error"] for r in own]
    axes[1].plot(x, y, "o-", color=colour, ms=3, lw=1.2)
    own = [r for r in result["times"] if r["method"] == method and r["shape"].startswith("1x")]
    sizes = sorted((int(r["shape"].rpartition("x")[2]), r["ms"]) for r in own)
    axes[2].plot(*zip(*sizes, strict=True), "o-", color=colour, ms=3, lw=1.2, label=method)
for axis, title in zip(
    axes,
    ("steps from the exact root\n(n = 4, 16, 64, grey to black)", "root and steps, n = 64",
     "time of one matrix"),
    strict=True,
):  # fmt: skip
    axis.set(xscale="log", yscale="log", title=title, xlabel=r"condition number $\kappa$")
axes[0].set_ylabel("relative error of the gradient")
axes[0].legend(loc="center right")
axes[1].sharey(axes[0])
axes[2].set(xlabel="dimension", ylabel="ms, forward and backward, float32")
axes[2].set_xticks([16, 32, 64, 128, 256], ["16", "32", "64", "128", "256"])
axes[2].minorticks_off()
figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=6)
