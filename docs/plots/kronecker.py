"""A grid with gaps: what is seen, what is made of it, and how exactly its determinant is known."""

import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import linalgk as lk

# Sphinx runs this in the folder of this file, without a __file__.
example = runpy.run_path(str(Path("../examples/grid_gp.py")))


def gappy_picture(p=150):
    """A wave under noise, with points missing here and there and in two heaps."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, p)
    truth = np.sin(40 * x)[:, None] * np.sin(25 * x)
    z = truth + 0.3 * rng.standard_normal(truth.shape)
    seen = rng.random(truth.shape) < 0.8
    seen[20:45, 60:80] = seen[90:110, 20:55] = False
    theta = np.array(
        [0.0, np.log(0.4), 40 / (2 * np.pi), np.log(0.4), 25 / (2 * np.pi), np.log(0.09)]
    )
    return z, seen, example["gappy"](x, x, z[seen], seen, theta)[2]


def errors_of_logdet(p=60, seeds=4):
    """Errors by number of products, of the block itself and of what is left to chance."""
    x = np.linspace(0, 1, p)
    k = np.exp(-0.5 * ((x[:, None] - x) / 0.2) ** 2)
    seen = np.random.default_rng(0).random((p, p)) < 0.8
    block = lk.Kron([k, k], assume_a="pos").masked(seen)
    exact = float(block.logdet(shift=1e-2))

    class Shifted:
        shape, dtype = block.shape, np.dtype(float)

        def matmat(self, x):
            return block @ x + 1e-2 * x

        rmatmat = __matmul__ = matmat

    counts = np.geomspace(60, 480, 4).astype(int)
    plain, ours = np.zeros((2, len(counts), seeds))
    for i, n in enumerate(counts):
        for j in range(seeds):
            plain[i, j] = (
                float(lk.estimate_logdet(Shifted(), n, rng=j, bounds=(1e-2, None))) - exact
            )
            guess = block.logdet(shift=1e-2, method="slq", n_matvecs=n, rng=j)
            ours[i, j] = float(guess) - exact
    return counts, abs(exact), plain, ours


z, seen, mean = gappy_picture()
figure, axes = plt.subplots(1, 3, layout="constrained", figsize=(10, 3.4))
shown = {"seen": np.where(seen, z, np.nan), "posterior mean": mean}
for axis, (title, image) in zip(axes, shown.items(), strict=False):
    axis.imshow(image, cmap="RdBu", vmin=-1.5, vmax=1.5)
    axis.set(title=title, xticks=[], yticks=[])
counts, size, plain, ours = errors_of_logdet()
for values, marker, colour, name in (
    (plain, "s", "C3", "Lanczos quadrature of the block"),
    (ours, "o", "C0", "Masked.logdet"),
):
    axes[2].plot(
        counts, np.sqrt((values**2).mean(axis=1)) / size, marker, ms=5, color=colour, label=name
    )
    axes[2].plot(counts, abs(values) / size, ".", ms=2, color=colour)
axes[2].set(xscale="log", yscale="log", xlabel="products", title="relative error of log det")
axes[2].set_xticks(counts, counts)
axes[2].minorticks_off()
axes[2].legend(loc="center", fontsize="small")
