"""Distortion of a subspace by operators of several sizes, Gaussian and coherent data."""

import warnings

import matplotlib.pyplot as plt
import numpy as np

import linalgk as lk

warnings.simplefilter("ignore")
m, d = 4096, 32
rng = np.random.default_rng(0)
flat = np.linalg.qr(rng.standard_normal((m, d)))[0]
# all leverage in 2 d rows
peaked = np.zeros((m, d))
peaked[rng.choice(m, 2 * d, replace=False)] = np.vstack([np.eye(d), np.eye(d)]) / 2**0.5
sizes = d * np.array([2, 4, 8, 16, 32, 64])
families = {
    "SparseStack": lambda k, s: lk.sketch.SparseStack(k, m, rng=s),
    "CountSketch": lambda k, s: lk.sketch.CountSketch(k, m, rng=s),
    "Gaussian": lambda k, s: lk.sketch.Gaussian(k, m, rng=s),
    "SRHT": lambda k, s: lk.sketch.SRHT(k, m, rng=s),
}
figure, axes = plt.subplots(1, 2, sharey=True, layout="constrained", figsize=(9, 3.8))
for axis, q, title in zip(axes, (flat, peaked), ("Gaussian data", "coherent data"), strict=True):
    for (name, make), colour in zip(families.items(), ("C0", "C1", "C2", "C3"), strict=True):
        eta = [
            np.median([lk.sketch.distortion(make(int(k), seed), q) for seed in range(9)])
            for k in sizes
        ]
        axis.plot(sizes, eta, "o-", ms=4, color=colour, label=name)
    axis.plot(sizes, np.sqrt(d / sizes), "--", color="0.5", label=r"$\sqrt{d / k}$")
    axis.set(
        ylim=(0.05, 1.5), xscale="log", yscale="log", title=title, xlabel="rows k of the sketch"
    )
axes[0].set_ylabel(r"distortion $\eta$ (median of 9)")
axes[0].legend(frameon=False)
