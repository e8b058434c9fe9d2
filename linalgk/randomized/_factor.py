"""Which routine of the library factors and solves: LAPACK's own precision where NumPy has another.

Arrays are those of one library, shape (..., m, n); triangles are upper ones.
"""

import contextlib
import ctypes
import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from linalgk import _config, _xp
from linalgk._members import adjoint

_T = TypeVar("_T")
_KEPT = {"check_finite": False}
# Columns up to which the threads of LAPACK gain nothing.
SERIAL = 400
# Entries from which it matters.
_TINY = 32**2
# order up to which a condition number is computed, and steps of its estimate beyond
_SMALL, _STEPS = 128, 12


def _is_single(a: Any) -> bool:
    """One NumPy matrix that is not empty, which SciPy takes."""
    return isinstance(a, np.ndarray) and a.ndim == 2 and a.size > 0


def _library(a: Any) -> Any:
    """SciPy's or CuPy's module of linear algebra for this matrix, or None."""
    if _is_single(a):
        import scipy.linalg

        return scipy.linalg
    if _xp.is_cuda(a) and a.ndim == 2 and a.size > 0:
        import cupyx.scipy.linalg

        return cupyx.scipy.linalg
    return None


def small(a: Any) -> Any:
    """One thread for a factorization on the host whose threads would mostly wait for each other."""
    own = isinstance(a, np.ndarray) and a.shape[-1] <= SERIAL
    return _config.serial_blas if own else contextlib.nullcontext()


def _calm(routine: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """One thread for small matrices: two wait for each other longer than the work takes."""

    @functools.wraps(routine)
    def run(a: Any) -> _T:
        if isinstance(a, np.ndarray) and _TINY <= a.size <= SERIAL**2:
            with _config.serial_blas:
                return routine(a)
        return routine(a)

    return run


def qr(a: Any) -> tuple[Any, Any]:
    """Thin factors Q (..., m, r) and R (..., r, n), r = min(m, n)."""
    if _is_single(a):
        import scipy.linalg

        q, r = scipy.linalg.qr(a, mode="economic", **_KEPT)
        return q, r
    q, r = _xp.namespace(a).linalg.qr(a)
    return q, r


def triangle(a: Any) -> Any:
    """R alone."""
    if isinstance(a, np.ndarray):
        if _is_single(a):
            import scipy.linalg

            (r,) = scipy.linalg.qr(a, mode="r", **_KEPT)
            return r[: min(a.shape)]
        return np.linalg.qr(a, mode="r")
    # CuPy need not make Q either
    return _xp.cupy().linalg.qr(a, mode="r") if _xp.is_cuda(a) else qr(a)[1]


@_calm
def svd(a: Any) -> tuple[Any, Any, Any]:
    """Thin U, S, Vh."""
    if _is_single(a):
        import scipy.linalg

        try:
            u, s, vh = scipy.linalg.svd(a, full_matrices=False, **_KEPT)
        except np.linalg.LinAlgError:
            # QR iteration converges where divide and conquer does not
            u, s, vh = scipy.linalg.svd(a, full_matrices=False, lapack_driver="gesvd", **_KEPT)
        return u, s, vh
    u, s, vh = _xp.namespace(a).linalg.svd(a, full_matrices=False)
    return u, s, vh


@_calm
def svdvals(a: Any) -> Any:
    """Singular values, the largest first."""
    if _is_single(a):
        import scipy.linalg

        return scipy.linalg.svdvals(a, **_KEPT)
    xp = _xp.namespace(a)
    return np.linalg.svd(a, compute_uv=False) if xp is np else xp.linalg.svdvals(a)


@_calm
def eigh(a: Any) -> tuple[Any, Any]:
    """Eigenvalues, the smallest first, and eigenvectors of a Hermitian matrix."""
    if _is_single(a):
        import scipy.linalg

        w, v = scipy.linalg.eigh(a, driver="evd", **_KEPT)
        return w, v
    w, v = _xp.namespace(a).linalg.eigh(a)
    return w, v


def _told(a: Any) -> Any:
    """CuPy leaves half a factor behind, and says nothing unless it is asked."""
    if not _xp.is_cuda(a):
        return contextlib.nullcontext()
    return importlib.import_module("cupyx").errstate(linalg="raise")


@_calm
def cholesky(a: Any) -> Any:
    """Upper R with ``R^H R = a`` of one matrix, None where there is none."""
    try:
        if _is_single(a):
            import scipy.linalg

            return scipy.linalg.cholesky(a, lower=False, **_KEPT)
        xp = _xp.namespace(a)
        with _told(a):
            r = adjoint(xp, xp.linalg.cholesky(a))
    except Exception as error:
        # each library has a class of its own
        if "inAlg" not in type(error).__name__ and not isinstance(error, RuntimeError | ValueError):
            raise
        return None
    return r if bool(xp.all(xp.isfinite(r))) else None


def solve(r: Any, b: Any, *, adjoint: bool = False) -> Any:
    """``R^-1 b``, or ``R^-H b``."""
    library = _library(r)
    if library is not None:
        trans = ("C" if _xp.dtype_name(r) in _xp.COMPLEX else "T") if adjoint else "N"
        return library.solve_triangular(r, b, trans=trans, lower=False, **_KEPT)
    xp = _xp.namespace(r)
    if adjoint:
        turned = xp.matrix_transpose(r)
        r = xp.conj(turned) if _xp.dtype_name(r) in _xp.COMPLEX else turned
    if b.ndim == r.ndim - 1:
        return xp.linalg.solve(r, b[..., None])[..., 0]
    return xp.linalg.solve(r, b)


def right_solve(a: Any, r: Any) -> Any:
    """``a R^-1`` for a (m, n), in C order on NumPy."""
    if isinstance(a, np.ndarray) and _is_single(r) and a.ndim == 2 and a.size:
        from scipy.linalg import get_blas_funcs

        dtype = np.result_type(a, r)
        trsm = get_blas_funcs("trsm", dtype=dtype)
        # R^T X^T = a^T: the transpose of an array in C order is one in F order
        turned = np.array(a.T, dtype=dtype, order="F")
        return trsm(1.0, r.astype(dtype, copy=False), turned, trans_a=1, overwrite_b=1).T
    xp = _xp.namespace(a)
    return (
        xp.matrix_transpose(solve(xp.matrix_transpose(r), xp.matrix_transpose(a)))
        if (_library(r) is None)
        else _right_solve_cuda(a, r)
    )


def _right_solve_cuda(a: Any, r: Any) -> Any:
    library = _library(r)
    return library.solve_triangular(r, a.T, trans="T", lower=False, **_KEPT).T


class Inverse(NamedTuple):
    """A truncated pseudoinverse ``w^+ = left @ right``: left (n, r), right (r, m)."""

    left: Any
    right: Any
    s: Any  # all singular values, NumPy
    rank: int


def pseudoinverse(w: Any, cut: float) -> Inverse:
    """Of one matrix, without the singular values up to ``cut`` times the largest."""
    xp = _xp.namespace(w)
    u, s, vh = svd(w)
    host = np.asarray(_xp.to_numpy(s))
    top = float(host[0]) if len(host) else 0.0
    rank = int(np.count_nonzero(host > cut * top))
    left = adjoint(xp, vh[:rank, :]) / s[None, :rank]
    return Inverse(left, adjoint(xp, u[:, :rank]), host, rank)


def right_solve_in_place(a: Any, r: Any) -> Any:
    """``a R^-1`` that may overwrite a, which nobody else holds."""
    if isinstance(a, np.ndarray) and _is_single(r) and a.ndim == 2 and a.size:
        from scipy.linalg import get_blas_funcs

        if a.flags.c_contiguous and a.dtype == r.dtype:
            trsm = get_blas_funcs("trsm", dtype=a.dtype)
            return trsm(1.0, r, a.T, trans_a=1, overwrite_b=1).T
    return right_solve(a, r)


def times_triangle_in_place(a: Any, r: Any) -> Any:
    """``a R`` in the place of a NumPy array in C order, of its dtype, as R in C order."""
    _triangular("trmm", a, r)
    return a


def _triangular(name: str, a: Any, r: Any) -> None:
    """BLAS's own routine: f2py's would keep other Python threads waiting."""
    m, n = a.shape
    # BLAS reads arrays in C order as their transposes: R^T is a lower triangle, from the left
    one = np.ones(1, a.dtype)
    sizes = [ctypes.byref(ctypes.c_int(size)) for size in (n, m)]
    step, rows = ctypes.byref(ctypes.c_int(n)), ctypes.byref(ctypes.c_int(r.shape[0]))
    words = [ctypes.c_char_p(word) for word in (b"L", b"L", b"N", b"N")]
    _blas(name, a.dtype.char)(
        *words, *sizes, _pointer(one), _pointer(r), rows, _pointer(a), step
    )  # fmt: skip


def _pointer(x: Any) -> Any:
    return ctypes.c_void_p(x.ctypes.data)


@functools.cache
def _blas(name: str, dtype: str) -> Any:
    """A routine of SciPy's BLAS for a NumPy dtype's letter."""
    from scipy.linalg import cython_blas

    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetPointer.restype = (
        ctypes.c_char_p,
        ctypes.c_void_p,
    )
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    letter = {"f": "s", "d": "d", "F": "c", "D": "z"}[dtype]
    capsule = cython_blas.__pyx_capi__[letter + name]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    return ctypes.CFUNCTYPE(None)(address)


def gram(a: Any) -> Any:
    """``a^H a`` of one matrix, of a real one on NumPy with half the flops."""
    return adjoint(_xp.namespace(a), a) @ a


def condition(r: Any) -> float:
    """Estimate of the condition number of a triangle in the 2-norm; infinite where it fails.

    Singular values of a small one; of a large one power iteration, which falls short by a few
    percent in practice, times 1.5.
    """
    xp, n = _xp.namespace(r), r.shape[-1]
    if n == 0:
        return 1.0
    with np.errstate(all="ignore"):
        if not bool(xp.all(xp.isfinite(r))) or not bool(xp.all(xp.linalg.diagonal(r) != 0)):
            return float("inf")
        if n <= _SMALL:
            s = _xp.to_numpy(svdvals(r))
            return float(s[0] / s[-1]) if s[-1] > 0 else float("inf")
        value = 1.0
        start = _xp.from_numpy(np.random.default_rng(0).standard_normal((n, 1)), xp, like=r)
        for step in (_grow, _shrink):
            x = xp.astype(start, r.dtype)
            size = 1.0
            for _ in range(_STEPS):
                x = x / size
                x = step(r, x)
                size = float(xp.max(xp.abs(x)))
                if not 0 < size < float("inf"):
                    return float("inf")
            before = float(xp.linalg.vector_norm(x / size))
            value *= (float(xp.linalg.vector_norm(step(r, x / size))) / before) ** 0.5
    return 1.5 * value


def _grow(r: Any, x: Any) -> Any:
    return adjoint(_xp.namespace(r), r) @ (r @ x)


def _shrink(r: Any, x: Any) -> Any:
    return solve(r, solve(r, x, adjoint=True))
