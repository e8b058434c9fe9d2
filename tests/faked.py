"""The comparison on a GPU for tests: NumPy and the wall clock for CuPy, and small problems."""

import types
from time import perf_counter

import numpy as np
import scipy.fft
import scipy.sparse
from linalgk_bench import cuda_problems, cuda_randomized, cuda_sketch
from linalgk_bench.cuda_problems import CUPY_EIGH
from linalgk_bench.problems import Target


class FakeEvent:
    def record(self, stream):
        assert stream == "default stream"
        self.time = perf_counter()

    def synchronize(self):
        self.time += 0  # a recorded event has a time


class FakeState(np.random.RandomState):
    """With a dtype, which NumPy's has not."""

    def standard_normal(self, size, dtype):
        return super().standard_normal(size).astype(dtype)


def fake_kernel(*words):
    """What the text of the one kernel says."""
    assert words[-1] == "count_sketch"
    return lambda x, rows, signs, n, out: np.add.at(out, rows, signs[:, None] * x)


def fake_cupyx():
    """What the bench uses of it, by name."""
    modules = {name: types.ModuleType(name) for name in ("cupyx", "cupyx.scipy")}
    modules["cupyx"].scatter_add = np.add.at
    modules["cupyx.scipy"].fft = modules["cupyx.scipy.fft"] = scipy.fft
    modules["cupyx.scipy.sparse"] = scipy.sparse
    return modules


class FakeCupy(types.ModuleType):
    """What the bench uses of CuPy; all that computes is NumPy's."""

    __version__ = "0.1"

    def __init__(self, devices=1):
        super().__init__("fake")
        properties = {
            "name": b"Test Device (1)", "major": 9, "minor": 0, "multiProcessorCount": 2,
            "l2CacheSize": 2**21, "totalGlobalMem": 2**26,
        }  # fmt: skip
        runtime = types.SimpleNamespace(
            getDevice=lambda: 0,
            getDeviceCount=lambda: devices,
            getDeviceProperties=lambda _: properties,
            deviceSynchronize=lambda: None,
            driverGetVersion=lambda: 13020,
            runtimeGetVersion=lambda: 12090,
        )
        self.cuda = types.SimpleNamespace(
            runtime=runtime,
            Event=FakeEvent,
            Stream=types.SimpleNamespace(null="default stream"),
            get_elapsed_time=lambda start, end: 1e3 * (end.time - start.time),
        )
        self.random = types.SimpleNamespace(
            default_rng=np.random.default_rng, RandomState=FakeState
        )
        self.ElementwiseKernel = fake_kernel

    def __getattr__(self, name):
        return getattr(np, name)

    def asnumpy(self, x):
        return np.array(x)

    def get_default_memory_pool(self):
        return types.SimpleNamespace(free_all_blocks=lambda: None)


def tiny_roots():
    """One of every kind in the list of matrix functions."""
    root, general = cuda_problems.root_problem, cuda_problems.general_problem
    return [
        root("invsqrtm", (5, 6, 6), targets=(Target(CUPY_EIGH, 1e-9),), tier="target"),
        root("sqrtm", (12, 12), tol=1e-5, targets=(Target(CUPY_EIGH, 1e9),), tier="target"),
        general("sqrtm", 8, cuda_problems._square_residual, error_bound=1e-10),
        root("invsqrtm", (40, 6, 6), "float64"),
        root("inv_root", (2, 9, 9), p=4),
        general("signm", 9, cuda_problems._sign_residual),
        general("logm", 8, cuda_problems._log_residual),
        root("sqrtm", (10, 10), "float64"),
    ]


def tiny_sketches():
    """One of every kind in the list of sketches."""
    return [
        cuda_sketch.transform_problem((64,), "float32"),
        cuda_sketch.transform_problem((32, 5), "float64"),
        cuda_sketch.stack_problem(16, 300, 6, 8, "float32"),
        cuda_sketch.stack_problem(16, 20000, 3, 1, "float64"),
        cuda_sketch.srht_problem(32, 200, 6, "float32"),
        cuda_sketch.numbers_problem("normals", 1 << 12, "float32"),
        cuda_sketch.numbers_problem("normals", 1 << 12, "float64"),
        cuda_sketch.numbers_problem("words", 1 << 12, "uint32"),
    ]


def tiny_randomized():
    """One of every kind in the list of randomized solvers."""
    return [
        cuda_randomized.lstsq_problem(900, 8),
        cuda_randomized.svd_problem(200, 150, 5, "float32"),
        cuda_randomized.svd_problem(150, 200, 5, "float64"),
        cuda_randomized.pinv_problem(120, 90, 6),
        cuda_randomized.batch_problem(3, 9),
        cuda_randomized.qr_problem("qr_pivoted", 400, 8),
        cuda_randomized.qr_problem("cholqr", 400, 8),
        cuda_randomized.logdet_problem(6),
    ]
