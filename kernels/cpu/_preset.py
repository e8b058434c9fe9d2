"""The one way a CPU kernel is compiled, and the loading of TBB before the first `prange`."""

import ctypes
import functools
import importlib.metadata

import numba

# Division without a branch per element, the GIL released, and a cache on disk. `contract` lets
# a*b+c become one FMA; nothing here assumes the absence of NaN or Inf or reorders a sum. The C
# wrapper is left out because nobody calls it and compiling it takes time.
njit = functools.partial(
    numba.njit,
    cache=True,
    nogil=True,
    error_model="numpy",
    fastmath={"contract"},
    no_cfunc_wrapper=True,
)
# For functions that only kernels call: without the wrappers Python would call they compile faster.
helper = functools.partial(njit, no_cpython_wrapper=True)


@functools.cache
def load_tbb() -> str:
    """Load pip's ``libtbb`` so that Numba finds it, and name the threading layer that will run.

    Numba's ``omp`` layer kills forked children and ``workqueue`` aborts when two Python threads
    enter it at once; only TBB survives both, and Numba does not look where pip puts it.
    """
    try:
        files = importlib.metadata.files("tbb") or ()
        names = ("libtbb.so.12", "tbb12.dll")
        library = next(f.locate() for f in files if f.name.startswith(names))
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        from numba.np.ufunc import tbbpool  # noqa: F401 - present only if TBB can load
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError, ImportError):
        return "threads"
    if numba.config.THREADING_LAYER not in ("default", "tbb", "safe", "forksafe", "threadsafe"):
        return "threads"
    return "tbb"
