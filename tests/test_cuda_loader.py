"""The CUDA loader: sources, options, errors, and machines with half of what it needs."""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import emulated
import numpy as np
import pytest
import scipy.linalg
from linalgk_kernels import cuda
from linalgk_kernels.cuda import matfun_roots

import linalgk as lk

SPD = np.eye(3)[None] + 0.1


class NoDriver(Exception):
    """What CuPy raises."""


def fake_cupy(count=1, compile_error=None):
    """As much of CuPy as the loader touches before a kernel runs."""

    class CompileException(Exception):  # CuPy's name
        def __init__(self, message):
            self._msg = message

    def device_count():
        if count is None:
            raise NoDriver("cudaErrorInsufficientDriver")
        return count

    class RawModule:
        def __init__(self, **options):
            self.options = options

        def compile(self):
            if compile_error:
                raise CompileException(compile_error)

        def get_function(self, name):
            return SimpleNamespace(name=name, module=self)

    runtime = SimpleNamespace(getDeviceCount=device_count, CUDARuntimeError=NoDriver)
    compiler = SimpleNamespace(CompileException=CompileException)
    attributes = {"MaxSharedMemoryPerBlockOptin": 99 * 1024, "MultiProcessorCount": 7}
    devices = SimpleNamespace(
        runtime=runtime, compiler=compiler, Device=lambda k: SimpleNamespace(attributes=attributes)
    )
    return SimpleNamespace(cuda=devices, RawModule=RawModule)


def test_headers_are_inlined_once_and_lines_keep_their_names():
    text = cuda.source("matfun_roots_warp")
    assert "#include" not in text
    assert "#pragma once" not in text
    assert text.count("struct Warp {") == 1
    current, at, found = "", 0, {}
    for line in text.splitlines():
        if line.startswith("#line"):
            _, number, name = line.split()
            current, at = name.strip('"'), int(number)
            continue
        found[current, at] = line
        at += 1
    for (name, number), line in found.items():
        original = (cuda.FOLDER / name).read_text().splitlines()[number - 1]
        assert line in (original, ""), (name, number)


def test_every_type_has_its_c_type():
    assert cuda.options("complex64") == ("--std=c++17", "-DLK_REAL=float")
    assert cuda.options("float64", B=2, A=1) == (
        "--std=c++17",
        "-DLK_REAL=double",
        "-DA=1",
        "-DB=2",
    )


def test_a_failed_compilation_shows_the_first_error_and_its_line(monkeypatch):
    code = cuda.source("matfun_scan")
    number = 12
    log = f"""matfun_scan.cu({number}): error: identifier "oops" is undefined
      oops;
matfun_scan.cu(40): error: another"""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(compile_error=log))
    with pytest.raises(cuda.KernelError) as caught:
        cuda.Cupy().module("matfun_scan.cu", code, ())
    line = (cuda.FOLDER / "matfun_scan.cu").read_text().splitlines()[number - 1]
    assert str(caught.value) == (
        f'matfun_scan.cu: NVRTC failed: matfun_scan.cu({number}): error: identifier "oops" is '
        f"undefined\n  {number} | {line}"
    )


def test_first_errors_that_name_no_line():
    assert cuda.first_error("warning\nnvrtc: error: invalid value", "") == (
        "nvrtc: error: invalid value"
    )
    assert cuda.first_error("something else", "") == "something else"


def test_no_driver_is_said_and_nothing_falls_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(count=None))
    with cuda.using(None):
        with pytest.raises(cuda.KernelError, match=r"no CUDA device answers .*install a driver"):
            matfun_roots.small_root(SPD, 0, 1, 2, np.zeros((1, 6)), 0.0, 1)
        assert cuda.warm_tasks() == []


def test_a_spec_on_a_device_that_does_not_answer():
    def empty(*args, **options):
        error = type("CUDARuntimeError", (RuntimeError,), {})
        raise error("cudaErrorNoDevice")

    xp = SimpleNamespace(__name__="cupy", empty=empty)
    with pytest.raises(lk.errors.DeviceError, match="no CUDA device answers cupy"):
        lk.plan(lk.sqrtm, lk.ArraySpec((3, 3), "float64", xp=xp), assume_a="pos")


def test_what_the_loader_cannot_do_is_a_device_error():
    with emulated.device() as device:

        def module(name, code, flags):
            raise cuda.KernelError("matfun_roots_warp.cu: NVRTC failed")

        device.layer.module = module
        with pytest.raises(lk.errors.DeviceError, match="NVRTC failed"):
            lk.sqrtm(device.array(SPD))


def test_limits_come_from_the_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    assert cuda.Cupy().limits(0) == cuda.Limits(99 * 1024, 7)


def test_warm_compiles_every_variant(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    with cuda.using(None):
        tasks = cuda.warm_tasks()
        assert cuda.warm() == len(tasks)
    assert len(tasks) == 2 * len(cuda.variants())
    assert len({label for label, _ in tasks}) == len(tasks)
    for label, job in tasks:
        assert job().options["backend"] == "nvrtc", label


def test_a_small_order_after_a_large_one_leaves_it_its_shared_memory():
    with emulated.device() as device:
        a = {n: device.array(lk.testing.spd_matrix(n, 10.0, rng=0)) for n in (84, 40)}
        first = device.host(lk.sqrtm(a[84], assume_a="pos"))
        lk.sqrtm(a[40], assume_a="pos")
        np.testing.assert_array_equal(device.host(lk.sqrtm(a[84], assume_a="pos")), first)
        # one kernel for all orders that have its constants
        assert cuda._function.cache_info().currsize <= 3


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_one_lu_gives_inverse_and_determinant(monkeypatch, dtype):
    """The device's own words in NumPy's mouth: cuSOLVER solves columns, in place."""

    def gesv(a, b):
        assert a.flags.f_contiguous
        assert b.flags.f_contiguous
        b[...] = scipy.linalg.solve(a, b)
        a[...] = scipy.linalg.lu_factor(a)[0]

    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(lapack=SimpleNamespace(gesv=gesv)))
    monkeypatch.setitem(sys.modules, "cupyx.lapack", SimpleNamespace(gesv=gesv))
    layer = cuda.Cupy.__new__(cuda.Cupy)
    layer.cupy = np
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 5, 5)).astype(dtype)
    a = a + 1j * rng.standard_normal(a.shape) if dtype == "complex128" else a
    before = a.copy()
    for member in (a[0], a):
        x, logdet = layer.inverse_and_logdet(member)
        np.testing.assert_allclose(x, np.linalg.inv(member), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(logdet, np.linalg.slogdet(member)[1], rtol=1e-12)
        w, v = layer.eigh(member @ np.conj(member.swapaxes(-1, -2)))
        assert w.shape == member.shape[:-1]
        assert v.shape == member.shape
    np.testing.assert_array_equal(a, before)


def test_tables_go_to_the_device_once():
    table = np.arange(4.0)
    copied = []
    with emulated.device() as device:
        array = device.layer.array
        device.layer.array = lambda host, like: copied.append(host) or array(host, like)
        for _ in range(3):
            assert cuda.constant(table, device.array(table)) is table
        cuda.constant(table.copy(), device.array(table))
    assert len(copied) == 2


@pytest.mark.parametrize(
    ("kilobytes", "size", "order"), [(227, 4, 118), (227, 8, 84), (163, 4, 100), (99, 8, 56)]
)
def test_the_largest_order_follows_from_shared_memory(kilobytes, size, order):
    limit = kilobytes * 1024
    largest = matfun_roots.largest_order(limit, size)
    # rows come in whole tiles
    assert order <= largest <= order + 3
    assert matfun_roots.shared_bytes(largest, size) <= limit
    assert matfun_roots.shared_bytes(largest + 4, size) > limit


@pytest.mark.parametrize("n", range(matfun_roots.WARP + 1, 125))
def test_blocks_are_within_their_bound(n):
    text = (cuda.FOLDER / "matfun_roots_block.cu").read_text()
    assert f"__launch_bounds__({matfun_roots.MOST_THREADS}, 1)" in text
    threads = matfun_roots.threads_for(n)
    assert threads % 32 == 0
    assert 32 <= threads <= matfun_roots.MOST_THREADS
    tiles = matfun_roots.padded(n) // 4
    # as few rounds over the tiles of a triangle as the bound allows
    every = tiles * (tiles + 1) // 2
    assert -(-every // threads) == -(-every // matfun_roots.MOST_THREADS)


def test_a_smaller_device_takes_smaller_matrices():
    a = lk.testing.spd_matrix(80, 10.0, dtype="float64", rng=0)
    for kilobytes, launched in ((227, ["root_block"]), (99, "many")):
        with emulated.device(shared_memory=kilobytes * 1024) as device:
            x = device.host(lk.sqrtm(device.array(a), assume_a="pos"))
            assert np.linalg.norm(x @ x - a) < 1e-12 * np.linalg.norm(a)
            if launched != "many":
                assert device.layer.launched == launched
            else:
                assert "polynomial" in device.layer.launched


@pytest.mark.parametrize("cupy", ["absent", "without a driver"])
def test_the_cpu_does_not_care(tmp_path, cupy):
    """Importing and computing with NumPy neither imports CuPy nor needs it."""
    (tmp_path / "cupy").mkdir()
    body = {"absent": "raise ImportError('no cupy')", "without a driver": "ndarray = type(None)"}
    (tmp_path / "cupy" / "__init__.py").write_text(body[cupy])
    script = textwrap.dedent("""
        import sys
        import numpy as np
        import linalgk as lk
        x = lk.sqrtm(4 * np.eye(3))
        assert (x == 2 * np.eye(3)).all()
        assert "cupy" not in sys.modules
        assert lk.show_config(mode="dicts")["devices"] == ["cpu"]
    """)
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(tmp_path), "PATH": ""}
    )
