"""Relative error of gradients by condition number, against divided differences in 60 digits."""

import mpmath as mp
import numpy as np
from rst import list_table

import linalgk as lk

mp.mp.dps = 60
N = 12
FUNCTIONS = {
    "sqrtm": (mp.sqrt, lk.grad.sqrtm_vjp),
    "invsqrtm": (lambda x: 1 / mp.sqrt(x), lk.grad.invsqrtm_vjp),
    "inv_root(4)": (lambda x: x ** (-mp.mpf(1) / 4), lambda a, g: lk.grad.inv_root_vjp(a, 4, g)),
    "logm": (mp.log, lk.grad.logm_vjp),
}


def exact(f, a, g):
    w, v = mp.eigsy(mp.matrix(a.tolist()))
    inner = v.T * mp.matrix(g.tolist()) * v
    for i in range(N):
        for j in range(N):
            gap = w[i] - w[j]
            slope = mp.diff(f, w[i]) if abs(gap) < mp.mpf(10) ** -40 else (f(w[i]) - f(w[j])) / gap
            inner[i, j] *= slope
    return np.array((v * inner * v.T).tolist(), dtype=float)


def error(got, want):
    return np.linalg.norm(np.asarray(got, float) - want) / np.linalg.norm(want)


def by_iteration(a, g):
    """The backward step of ``method="minimax"``: a Lyapunov equation by products alone."""
    return lk.solve_lyapunov(lk.sqrtm(a), g, assume_a="pos", method="minimax")


rows = []
for exponent in (0, 1, 2, 4, 6, 8, 10):
    a = lk.testing.spd_matrix(N, 10.0**exponent, rng=exponent)
    g = np.random.default_rng(exponent).standard_normal((N, N))
    cells = [f":math:`10^{{{exponent}}}`"]
    for f, vjp in FUNCTIONS.values():
        cells.append(f"{error(vjp(a, g).derivative, exact(f, a, g)):.0e}")
    if exponent <= 6:
        cells.append(f"{error(by_iteration(a, g), exact(mp.sqrt, a, g)):.0e}")
        single, way = a.astype(np.float32), g.astype(np.float32)
        want = exact(mp.sqrt, single.astype(float), way.astype(float))
        cells.append(f"{error(lk.grad.sqrtm_vjp(single, way).derivative, want):.0e}")
    else:
        cells += ["-", "-"]
    rows.append(cells)
header = [r":math:`\kappa`", *[f"``{name}``" for name in FUNCTIONS]]
print(list_table([*header, "``sqrtm``, minimax iteration", "``sqrtm``, float32"], rows))
