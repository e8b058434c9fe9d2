"""Story 1, a scientist: scipy.linalg.sqrtm on batches of covariances."""

import numpy as np

import linalgk as lk

C = np.load("cov.npy")  # (subjects, windows, 64, 64) float32; some rank-deficient, three hold NaN
R = lk.sqrtm(C, assume_a="pos", on_fail="nan")
W, info = lk.invsqrtm(C, rel_damp=1e-6, compute_dtype="float64", on_fail="warn", return_info=True)
bad = ~info.converged  # bool, shape (subjects, windows): per member, same namespace
print(bad.sum(), info.error_estimate[~bad].max())
# a complex root only on request; SciPy switches dtype: sqrtm(-I) is complex
Z = lk.sqrtm(np.array([[0.0, -1.0], [1.0, 0.0]]) + 0j)
