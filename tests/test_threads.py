"""Safe under threads and forks: the same bits from everywhere, and nothing aborts or hangs.

Each scene is a fresh interpreter, because what is tested is what happens to a whole process.
"""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

import linalgk as lk
from linalgk import _config
from linalgk.testing import spd_matrix

PROLOGUE = """
import sys, hashlib, multiprocessing as mp, threading
from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor
import numpy as np
import linalgk as lk
from linalgk.testing import spd_matrix

SMALL = spd_matrix(12, 1e2, batch=(600,), rng=0)          # fused kernel, our threads
MIDDLE = spd_matrix(50, 1e2, batch=(12,), rng=0)          # LAPACK on our threads, serial BLAS
LARGE = spd_matrix(200, 1e2, rng=0)                       # LAPACK, threads inside BLAS

def work(_=0):
    parts = [lk.invsqrtm(SMALL), lk.sqrtm(MIDDLE), lk.sqrtm(MIDDLE, tol=1e-6), lk.sqrtm(LARGE)]
    return hashlib.sha256(b"".join(p.tobytes() for p in parts[:3])).hexdigest()
"""

SCENES = {
    "eight threads": """
        want = work()
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(24))) == {want}
    """,
    "eight threads at first use": """
        barrier = threading.Barrier(8)
        def together(_):
            barrier.wait()
            return work()
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(together, range(8)))) == 1
    """,
    "forked after use": """
        want = work()
        with ProcessPoolExecutor(3, mp.get_context("fork")) as pool:
            assert set(pool.map(work, range(6))) == {want}
        assert work() == want
    """,
    "forked while threads are at work": """
        want = work()
        with ThreadPoolExecutor(4) as threads:
            busy = [threads.submit(work) for _ in range(12)]
            with ProcessPoolExecutor(2, mp.get_context("fork")) as pool:
                assert set(pool.map(work, range(4))) == {want}
            assert {job.result() for job in busy} == {want}
    """,
    "spawned": """
        if __name__ == "__main__":
            want = work()
            with ProcessPoolExecutor(2, mp.get_context("spawn")) as pool:
                assert set(pool.map(work, range(2))) == {want}
    """,
    "joblib": """
        from joblib import Parallel, delayed
        if __name__ == "__main__":
            want = work()
            for backend in ("threading", "loky"):
                assert set(Parallel(3, backend)(delayed(work)(i) for i in range(4))) == {want}
    """,
    "inside a user's prange": """
        import numba
        from linalgk_kernels.cpu._preset import load_tbb
        assert load_tbb() == "tbb", "pip's TBB is a dependency on this platform"
        want = lk.sqrtm(SMALL)
        @numba.njit(parallel=True)
        def user(out):
            for i in numba.prange(out.shape[0]):
                with numba.objmode():
                    out[i] = lk.sqrtm(SMALL)[i]
        out = np.empty_like(want)[:40]
        user(out)
        assert numba.threading_layer() == "tbb"
        np.testing.assert_array_equal(out, want[:40])
    """,
    "prange on TBB from threads and forks": """
        import numba
        from linalgk_kernels.cpu._preset import load_tbb
        assert load_tbb() == "tbb"
        @numba.njit(parallel=True)
        def total(x):
            s = np.zeros(64)
            for i in numba.prange(64):
                for j in range(x.shape[0]):
                    s[i] += x[j] * i
            return s
        x = np.arange(1000.0)
        want = total(x).tobytes()
        def call(_):
            return total(x).tobytes()
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(call, range(64))) == {want}
        with ProcessPoolExecutor(2, mp.get_context("fork")) as pool:
            assert set(pool.map(call, range(8))) == {want}
    """,
}


@pytest.mark.parametrize("scene", SCENES)
def test_scene(scene, tmp_path):
    if "joblib" in scene:
        pytest.importorskip("joblib")
    if "tbb" in SCENES[scene] and sys.platform not in ("linux", "win32"):
        pytest.skip("there is no TBB wheel for this platform")
    script = tmp_path / "scene.py"
    # functions at module level can be pickled by their name in __main__
    script.write_text(PROLOGUE + textwrap.dedent(SCENES[scene]))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def blas_threads():
    return [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]


def test_blas_threads_are_given_back():
    middle = spd_matrix(50, 10.0, batch=(4,), rng=0)
    lk.sqrtm(middle)
    before = blas_threads()
    lk.sqrtm(middle)
    with pytest.raises(lk.errors.NotPositiveSemidefiniteError):
        lk.sqrtm(middle - 5 * np.eye(50))
    with lk.config_context(num_threads=1):
        lk.sqrtm(spd_matrix(150, 10.0, rng=0))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: lk.sqrtm(middle), range(40)))
    assert blas_threads() == before


def test_overlapping_holders_share_one_limit():
    lk.sqrtm(spd_matrix(50, 10.0, rng=0))
    before = blas_threads()
    with _config.serial_blas:
        with _config.serial_blas:
            pass
        # the inner holder must not restore what the outer one still needs
        blas = [
            x["num_threads"] for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"
        ]
        assert set(blas) == {1}
    assert blas_threads() == before


def test_context_is_per_thread():
    with lk.config_context(on_fail="nan"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: _config.current().on_fail).result() == "raise"


@pytest.mark.parametrize(
    ("environment", "want"),
    [({"LINALGK_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"}, 3), ({"NUMBA_NUM_THREADS": "1"}, 1)],
)
def test_thread_count_from_the_environment(environment, want, monkeypatch):
    for name in ("LINALGK_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _config._default_threads.cache_clear()
    assert _config.num_threads() == want
    _config._default_threads.cache_clear()
