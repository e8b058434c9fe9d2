"""Loss against steps and time, from the numbers of examples/optim_training.py."""

import json
from pathlib import Path

import matplotlib.pyplot as plt

# Sphinx runs this in the folder of this file, without a __file__.
result = json.loads(Path("../_generated/optim.json").read_text(encoding="utf-8"))
figure, axes = plt.subplots(1, 2, sharey=True, layout="constrained", figsize=(9, 4.4))
for k, run in enumerate(result["runs"]):
    style = {"color": f"C{k}", "ls": "-" if run["name"].startswith("linalgk") else "--", "lw": 1.4}
    each = 1e3 * run["cpu_seconds"][-1] / result["steps"][-1]
    label = f"{run['name']} ({each:.0f} ms a step)"
    axes[0].plot(result["steps"], run["losses"], label=label, **style)
    axes[1].plot(run["cpu_seconds"], run["losses"], **style)
axes[0].set(yscale="log", xlabel="steps", ylabel="cross-entropy, all 1797 digits")
axes[1].set(xscale="log", xlabel="processor seconds, one thread")
figure.legend(loc="outside lower center", ncols=2)
