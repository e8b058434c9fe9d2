"""Which ridge an ensemble of sketches is worth: measured, by the equation, and as published.

The setting and the printed numbers are those of Patil and LeJeune (ICLR 2024), notebook
"Ensembles": n = 140, p = 200, sketches of 156 columns, lambda = 0.1.
"""

import numpy as np
from scipy.optimize import brentq

import linalgk as lk

n, p, k, lam, members = 140, 200, 156, 0.1, 40
rng = np.random.default_rng(42)
x = rng.normal(size=(n, p))
beta = rng.normal(size=p) / np.sqrt(p)
y = x @ beta + rng.normal(size=n)
s = np.linalg.svd(x, compute_uv=False)


def haar(k, p, rng):
    """Orthonormal rows of any direction."""
    q = np.linalg.qr(lk.sketch.Gaussian(k, p, rng=rng).toarray().T)[0]
    return q.T * np.sqrt(p / k)


def stack(k, p, rng):
    """What the paper calls CountSketch: int(10 log p) = 52 nonzeros in a column."""
    return lk.sketch.SparseStack(k, p, nnz=52, rng=rng)


rows = [
    ("Gaussian", "Gaussian", "Gaussian", 0.2826),
    ("Haar", haar, "SRCT", 0.1569),
    ("CountSketch, 52 nonzeros", stack, "Gaussian", 0.2810),
    ("SRDCT", "SRCT", "SRCT", 0.1567),
    ("CountSketch, 1 nonzero", "CountSketch", "CountSketch", None),
]
print(f"{'sketch':<26} {'printed':>8} {'measured':>9} {'equation':>9}")
for name, sketch, law, printed in rows:
    found = lk.ridge(x, y, [lam * n], sketch=sketch, k=k, n_sketches=members)
    df = found.df[0]
    # the ridge without a sketch that has as many degrees of freedom
    measured = brentq(lambda mu, df=df: (s**2 / (s**2 + mu)).sum() - df, 1e-9, 1e9) / n
    equation = lk.sketch.implicit_ridge(s, lam * n, k, n=p, sketch=law) / n
    before = f"{printed:8.4f}" if printed else " " * 8
    print(f"{name:<26} {before} {measured:9.4f} {equation:9.4f}")
