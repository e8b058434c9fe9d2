"""Functions to a tolerance, with their errors, ranks and times; the potential of a salt crystal."""

import time

import matplotlib.pyplot as plt
import numpy as np

import linalgk as lk
from linalgk.tensor import lattice_sum

FUNCTIONS = {
    "1 / (1 + 25 r²)": lambda x, y, z: 1 / (1 + 25 * (x**2 + y**2 + z**2)),
    "tanh(5 (x + y + z))": lambda x, y, z: np.tanh(5 * (x + y + z)),
    "cos(10 (x + y + z))": lambda x, y, z: np.cos(10 * (x + y + z)),
}
TOLS = 10.0 ** -np.arange(2, 13, 2)
POINTS = np.random.default_rng(0).uniform(-1, 1, (3, 20_000))


def falling(f):
    """Errors found, largest ranks and seconds, by tolerance."""
    rows = []
    exact = f(*POINTS)
    lk.chebtucker(f, [(-1, 1)] * 3, tol=0.1)
    for tol in TOLS:
        start = time.perf_counter()
        g = lk.chebtucker(f, [(-1, 1)] * 3, tol=tol)
        seconds = time.perf_counter() - start
        rows.append([abs(g(*POINTS) - exact).max() / g.scale, max(g.ranks), seconds])
    return np.transpose(rows)


def slab(pixels=160):
    """Potential of 40 x 40 x 6 ions, in a plane that passes their rows by."""
    signs = [(-1.0) ** np.arange(n) for n in (40, 40, 6)]
    v = lattice_sum((40, 40, 6), charges=signs, domain=[(-20, 20), (-20, 20), (-6, 6)])
    x, z = np.linspace(-6, 6, pixels), np.linspace(-5, 5, pixels)
    return v.eval(np.stack(np.broadcast_arrays(x, 0.2, z[:, None]), axis=-1))


figure, axes = plt.subplots(1, 3, layout="constrained", figsize=(10, 3.4))
for (name, f), mark, colour in zip(FUNCTIONS.items(), "os^", ("C0", "C1", "C2"), strict=True):
    errors, ranks, seconds = falling(f)
    axes[0].loglog(TOLS, errors, mark + "-", ms=4, lw=1, color=colour, label=name)
    axes[1].loglog(TOLS, 1e3 * seconds, mark + "-", ms=4, lw=1, color=colour)
    for tol, rank, second in zip(TOLS, ranks, seconds, strict=True):
        axes[1].annotate(
            f"{rank:.0f}", (tol, 1e3 * second), xytext=(0, 5), textcoords="offset points",
            ha="center", fontsize=7, color=colour,
        )  # fmt: skip
axes[0].loglog(TOLS, TOLS, ":", lw=1, color="0.5", label="asked for")
axes[0].set(xlabel="tolerance", title="error found")
axes[1].set(xlabel="tolerance", title="milliseconds, and ranks")
for axis in axes[:2]:
    axis.invert_xaxis()
axes[0].legend(fontsize="small")
u = slab()
most = np.quantile(abs(u), 0.97)
axes[2].imshow(
    u, origin="lower", extent=(-6, 6, -5, 5), cmap="RdBu_r", vmin=-most, vmax=most,
    interpolation="bilinear",
)  # fmt: skip
axes[2].set(title="a slab of rock salt", xlabel="x", ylabel="z")
