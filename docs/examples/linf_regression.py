"""Every coordinate of a sketched least squares solution: who keeps them, and who does not.

The first rows of A are heavy: each decides a coordinate alone. A CountSketch with fewer than about
d^2 rows adds two of them into one, and the two coordinates are lost.
"""

import numpy as np

import linalgk as lk

m, d, k, strength, trials = 8192, 64, 1024, 0.05, 10
rng = np.random.default_rng(0)
a = np.eye(m, d)
a[d:] = strength / np.sqrt(m - d) * rng.standard_normal((m - d, d))
q = np.linalg.qr(a)[0]
noise = rng.standard_normal(m)
r = noise - q @ (q.T @ noise)
x = rng.standard_normal(d)
b = a @ x + r

# the guarantee: |x' - x| <= eps / sqrt(d) * ||r|| ||A^+|| in every coordinate
unit = np.linalg.norm(r) / np.linalg.svd(a, compute_uv=False)[-1] / np.sqrt(d)
print(f"m = {m}, d = {d}, k = {k} = d^2 / {d * d // k}, {trials} seeds")
print(f"{'sketch':<12} {'median eps':>11} {'worst eps':>10} {'eps > 1':>8} {'heavy rows met':>15}")
rows = {}
for family in ("Gaussian", "SRHT", "SRCT", "SparseStack", "CountSketch"):
    eps, met = [], 0
    for seed in range(trials):
        S = getattr(lk.sketch, family)(k, m, rng=seed)
        found = np.linalg.lstsq(S @ a, S @ b, rcond=None)[0]
        eps.append(np.max(abs(found - x)) / unit)
        if family == "CountSketch":
            met += len(np.unique(S[:, :d].tosparse().indices)) < d
    rows[family] = eps, met
    bad = np.count_nonzero(np.array(eps) > 1)
    print(f"{family:<12} {np.median(eps):11.2f} {max(eps):10.2f} {bad:8d} {met or '':>15}")
