"""Write what story 8 reads, small: two stacks of .npy files for Dask, and a folder of blocks."""

from pathlib import Path

import dask.array as da
import numpy as np

rng = np.random.default_rng(8)
decay = 0.8 ** np.arange(100, dtype=np.float32)
a = (rng.standard_normal((20_000, 100), dtype=np.float32) * decay) @ np.linalg.qr(
    rng.standard_normal((100, 100), dtype=np.float32)
)[0]
a = da.from_array(a + np.float32(0.03) * rng.standard_normal(a.shape, np.float32), (4000, 100))
da.to_npy_stack("A", a)
da.to_npy_stack(
    "b", a[:, :10].sum(axis=1) + np.float32(0.1) * rng.standard_normal(20_000, np.float32)
)

Path("blocks").mkdir()
right = rng.standard_normal((50, 1000))
for i in range(6):
    rows = rng.standard_normal((200 + 50 * i, 50)) @ right
    np.save(f"blocks/{i}.npy", rows + 0.1 * rng.standard_normal(rows.shape))
