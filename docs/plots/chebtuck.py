"""Fixed and adaptive degrees, and construction from functions, from make_chebtuck.py's numbers."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

# Sphinx runs this in the folder of this file, without a __file__.
result = json.loads(Path("../_generated/chebtuck.json").read_text(encoding="utf-8"))
figure, axes = plt.subplots(1, 3, layout="constrained", figsize=(9, 3.9))
rows = result["newton"]
n = [r["n"] for r in rows]
for i, (m, colour) in enumerate(((129, "C3"), (513, "C1"), (2049, "C5"))):
    axes[0].plot(n, [r["whole"][i] for r in rows], "--", color=colour, lw=1)
    axes[0].plot(n, [r["fixed"][i] for r in rows], "o-", color=colour, ms=3, label=f"m = {m}")
axes[0].plot(n, [r["asked"]["error"] for r in rows], "s-", color="C0", ms=4, label="linalgk")
for r in rows:
    text = f"{r['asked']['degree'] + 1}"
    axes[0].annotate(text, (r["n"], r["asked"]["error"]), (0, -11), textcoords="offset points",
                     ha="center", color="C0", fontsize=7)  # fmt: skip
axes[0].axhline(1e-7, color="0.5", lw=0.8, ls=":")
axes[0].set(
    xscale="log", yscale="log", xlabel="n", ylabel="relative error",
    title="Newton kernel: whole (dashed)\nand long range; at linalgk its m",
)  # fmt: skip
axes[0].set_xticks(n, [str(x) for x in n])
axes[0].minorticks_off()
axes[0].legend(fontsize=7)
names = {"tanh": r"$\tanh(k(x+y+z))$", "runge": r"$1/(1+k r^2)$"}
for name, colour in (("tanh", "C2"), ("runge", "C4")):
    for method, style in (("grid", "o-"), ("cross", "s--")):
        own = [r for r in result["speedup"] if (r["function"], r["method"]) == (name, method)]
        k = [r["k"] for r in own]
        for axis, key in ((axes[1], "ms"), (axes[2], "evaluations")):
            axis.plot(k, [r[key] for r in own], style, color=colour, ms=3, lw=1.2,
                      label=f"{names[name]}, {method}")  # fmt: skip
for axis, title in ((axes[1], "construction, ms"), (axes[2], "values of the function")):
    axis.set(xscale="log", yscale="log", xlabel="k", title=f"{title}\n(tol 1e-10)")
axes[2].legend(fontsize=7)
