"""Backward error of least squares against the condition number, and what lstsq says of its own."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import linalgk as lk

warnings.simplefilter("ignore")
m, n = 2000, 30
kappas = np.logspace(1, 15, 15)
rng = np.random.default_rng(0)
left = np.linalg.qr(rng.standard_normal((m, n + 1)))[0]
right = np.linalg.qr(rng.standard_normal((n, n)))[0]
x = rng.standard_normal(n)


def backward_error(a, s, vh, b, x):
    """Karlson and Walden's estimate, with residuals in extended precision."""
    r = b.astype(np.longdouble) - a.astype(np.longdouble) @ x
    back = vh @ (a.T.astype(np.longdouble) @ r).astype(float)
    norm = np.linalg.norm(s)
    weight = np.hypot(np.linalg.norm(b) / norm, np.linalg.norm(x))
    shift = float(np.sqrt(r @ r)) / weight
    return np.linalg.norm(back / np.hypot(s, shift)) / weight / norm


def normal_equations(a, b):
    """By Cholesky, as long as that goes."""
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(a.T @ a), a.T @ b)


solvers = {
    "normal equations": (normal_equations, "s", "C3"),
    "linalgk.lstsq, iterative": (lambda a, b: lk.lstsq(a, b, method="iterative"), "v", "C1"),
    "numpy.linalg.lstsq": (lambda a, b: np.linalg.lstsq(a, b, rcond=0)[0], "D", "0.5"),
    "linalgk.lstsq": (lambda a, b: lk.lstsq(a, b, method="sketch_cholesky"), "o", "C0"),
}
figure, axes = plt.subplots(1, 2, sharey=True, layout="constrained", figsize=(9, 4))
for axis, size in zip(axes, (1e-1, 1e-10), strict=True):
    for name, (solve, marker, colour) in solvers.items():
        true, told = np.full((2, len(kappas)), np.nan)
        for i, kappa in enumerate(kappas):
            a = (left[:, :n] * np.geomspace(1, 1 / kappa, n)) @ right
            b = a @ x
            b = b + size * np.linalg.norm(b) * left[:, n]
            _, s, vh = np.linalg.svd(np.linalg.qr(a, mode="r"))
            try:
                found = solve(a, b)
            except np.linalg.LinAlgError:
                break
            true[i] = backward_error(a, s, vh, b, getattr(found, "x", found))
            told[i] = getattr(found, "backward_error", np.nan)
        axis.plot(kappas, true, marker, ms=5, color=colour, label=name)
        if np.isfinite(told).any():
            # the estimate: a ring around what it estimates
            axis.plot(kappas, told, "o", ms=9, mfc="none", color=colour, lw=0.8)
    axis.axhline(np.finfo(float).eps, ls="--", lw=1, color="0.6")
    axis.set(
        xscale="log",
        yscale="log",
        title=rf"residual {size:g} $\Vert b\Vert$",
        xlabel=r"condition number $\kappa$",
    )
axes[0].plot([], [], "o", ms=9, mfc="none", color="0.3", label="its own estimate")
axes[0].set_ylabel("backward error")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
