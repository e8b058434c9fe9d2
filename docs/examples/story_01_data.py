"""Write the cov.npy that story 1 reads: small, with the faults of real recordings."""

import numpy as np

rng = np.random.default_rng(1)
subjects, windows, channels = 4, 6, 64
x = rng.standard_normal((subjects, windows, 256, channels), dtype=np.float32)
x[1] = x[1, :, :, :20] @ rng.standard_normal((20, channels), dtype=np.float32)  # rank 20
x[2, 3, :, 5] = 0  # a dead channel: rank 63
C = np.swapaxes(x, -1, -2) @ x / np.float32(256)
C = (C + np.swapaxes(C, -1, -2)) / 2
for member in ((0, 2), (3, 0), (3, 5)):
    C[member][7, 11] = np.nan
np.save("cov.npy", C)
