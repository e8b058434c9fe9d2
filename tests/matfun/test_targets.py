"""The fused kernel on processors without AVX-512, or without FMA: half the lanes, smaller tiles."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
import linalgk as lk
from linalgk.testing import mp_invsqrtm, mp_sqrtm, relative_error, spd_matrix
from linalgk_kernels.cpu import _simd

assert (_simd.BYTES, _simd.TILE) == (32, 3)
for n in (2, 3, 4, 5, 7, 12):
    for dtype in ("float64", "complex64"):
        a = spd_matrix(n, 1e3, dtype=dtype, batch=(5,), rng=n)
        eps = np.finfo(dtype).eps
        for name, oracle, cond in (("sqrtm", mp_sqrtm, 1e3**0.5), ("invsqrtm", mp_invsqrtm, 1e3)):
            x = getattr(lk, name)(a)
            assert relative_error(x[4], oracle(a[4])) <= 10 * eps * cond
            assert (x[2] == getattr(lk, name)(a[2])).all()
"""


@pytest.mark.parametrize("cpu", ["haswell", pytest.param("generic", marks=pytest.mark.slow)])
def test_other_instruction_sets(cpu, tmp_path):
    features = {"generic": "", "haswell": "+avx2,+fma"}[cpu]
    env = {
        **os.environ,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
