"""What linalgk would run for ten kinds of input; nothing is computed."""

import numpy as np

import linalgk as lk
from linalgk.testing import random_matrix, spd_matrix

single = spd_matrix(4)
batch = spd_matrix(8, batch=(4096,), dtype="float32")
large = np.eye(512) + 0.1
cases = [
    ("one 4 x 4 matrix", lk.sqrtm, single, {}),
    ("a batch of 4096 8 x 8 matrices, float32", lk.invsqrtm, batch, {}),
    ("one matrix of order 512", lk.sqrtm, large, {}),
    ("complex Hermitian, n = 10", lk.sqrtm, spd_matrix(10, dtype="complex128"), {}),
    ("complex Hermitian, n = 100", lk.sqrtm, spd_matrix(100, dtype="complex128"), {}),
    ("not symmetric, n = 20", lk.sqrtm, random_matrix(20), {}),
    ("relative damping", lk.invsqrtm, single, {"rel_damp": 1e-6}),
    ("three digits are enough", lk.sqrtm, large, {"tol": 1e-3, "method": "minimax"}),
    ("integers", lk.sqrtm, np.array([[2, 1], [1, 2]]), {}),
]
try:
    import torch
except ImportError:
    cases.append(("nested lists", lk.sqrtm, single.tolist(), {}))
else:
    cases.append(("a PyTorch tensor", lk.sqrtm, torch.from_numpy(single), {}))
for title, function, a, options in cases:
    print(f"# {title}{''.join(f', {k}={v!r}' for k, v in options.items())}")
    print(lk.explain(function, a, **options))
    print()
