"""What five steps of each family make of a singular value."""

import matplotlib.pyplot as plt
import numpy as np

import linalgk as lk

sigma = np.geomspace(1e-4, 1, 400)
fig, ax = plt.subplots()
for name in ("muon", "you", "cans", "polar_express"):
    ends = []
    for value in sigma:
        # a singular value beside one that makes the norm one, or close to it
        x = np.diag([value, np.sqrt(1 - min(value, 0.999) ** 2)])
        ends.append(lk.orthogonalize(x, coeffs=name)[0, 0])
    ax.semilogx(sigma, ends, label=name)
ax.axhline(1.0, color="0.7", linewidth=0.8)
ax.set_xlabel("singular value over the Frobenius norm")
ax.set_ylabel("after five steps")
ax.legend()
fig.tight_layout()
