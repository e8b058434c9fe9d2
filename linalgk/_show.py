"""A description of the machine and of what is installed."""

import contextlib
import importlib.metadata
import platform
import pprint
from pathlib import Path
from typing import Any, Literal

from linalgk import _config


def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None:
    """Show versions, processor, BLAS libraries, threads and caches, as `numpy.show_config` does.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return nested dictionaries that `json.dumps` accepts.

    Returns
    -------
    config : dict or None
        With ``mode="dicts"``.

    Examples
    --------
    >>> import linalgk as lk
    >>> sorted(lk.show_config(mode="dicts"))
    ['blas', 'cache', 'cpu', 'devices', 'linalgk', 'packages', 'python', 'threads']
    """
    if mode not in ("stdout", "dicts"):
        msg = f"mode: must be 'stdout' or 'dicts', got {mode!r}"
        raise ValueError(msg)
    import numba
    from linalgk_kernels.cpu import _preset, _simd

    packages = {}
    for name in ("numpy", "scipy", "numba", "llvmlite", "array-api-compat", "threadpoolctl", "tbb",
                 "torch", "jax", "cupy-cuda12x", "cupy-cuda13x"):  # fmt: skip
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    config: dict[str, Any] = {
        "linalgk": {"version": importlib.metadata.version("linalgk")},
        "python": {"version": platform.python_version(), "platform": platform.platform()},
        "packages": packages,
        "cpu": {**_cpu(), "vector_bytes": _simd.BYTES},
        "blas": _config._controller().select(user_api="blas").info(),
        "threads": {
            "num_threads": _config.num_threads(),
            "layer": _preset.load_tbb(),
            "blas": [
                lib["num_threads"] for lib in _config._controller().select(user_api="blas").info()
            ],
        },
        "cache": {"numba": numba.config.CACHE_DIR or str(Path(_simd.__file__).parent)},
        "devices": ["cpu", *_cuda_devices()],
    }
    if mode == "dicts":
        return config
    pprint.pp(config, width=100, compact=True)
    return None


def _cpu() -> dict[str, Any]:
    name, features = platform.processor() or platform.machine(), []
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                features = value.split()
                break
    return {"name": name, "cores": _config._default_threads(), "features": features}


def _cuda_devices() -> list[str]:
    """Devices that answer, if CuPy is installed: asking costs its import."""
    try:
        import cupy

        runtime = cupy.cuda.runtime
        count = runtime.getDeviceCount()
    except Exception:  # whatever is wrong with a driver, it must not hide the rest
        return []
    return [runtime.getDeviceProperties(k)["name"].decode() for k in range(count)]
