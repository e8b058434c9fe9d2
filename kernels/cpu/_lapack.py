"""LAPACK and BLAS in their true precision, without holding the GIL.

`numpy.linalg` computes float32 in float64, and SciPy's Python wrappers keep the GIL; the function
pointers that SciPy exports for Cython do neither.
"""

import ctypes
import functools
import itertools

import numpy as np

_LETTER = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}
_get_name = ctypes.pythonapi.PyCapsule_GetName
_get_name.restype, _get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


@functools.cache
def _routine(library, name, count):
    """A Fortran routine of ``count`` pointer arguments; calling it releases the GIL."""
    if library == "lapack":
        from scipy.linalg import cython_lapack as module
    else:
        from scipy.linalg import cython_blas as module
    capsule = module.__pyx_capi__[name]
    address = _get_pointer(capsule, _get_name(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)(address)


class Evd:
    """Eigenvectors of Hermitian matrices of one order by divide and conquer, workspace kept."""

    def __init__(self, n, dtype):
        self._complex = dtype.kind == "c"
        real = np.empty(0, dtype).real.dtype
        letter = _LETTER[dtype.name]
        # minimal lengths of the LAPACK documentation, plus n blocks of 64 for the reduction
        work = 2 * n + n * n + 64 * n if self._complex else 1 + 6 * n + 2 * n * n + 64 * n
        self._n, self._info = ctypes.c_int(n), ctypes.c_int(0)
        self._sizes = [ctypes.c_int(work), ctypes.c_int(3 + 5 * n)]
        self._work, self._iwork = np.empty(work, dtype), np.empty(3 + 5 * n, np.int32)
        self._jobz, self._uplo = ctypes.c_char(b"V"), ctypes.c_char(b"U")
        self._rwork = None
        if self._complex:
            self._rwork = np.empty(1 + 5 * n + 2 * n * n, real)
            self._sizes.insert(1, ctypes.c_int(self._rwork.size))
            self._call = _routine("lapack", f"{letter}heevd", 13)
        else:
            self._call = _routine("lapack", f"{letter}syevd", 11)

    @property
    def nbytes(self):
        """Bytes of the workspaces."""
        arrays = (self._work, self._iwork, self._rwork)
        return sum(array.nbytes for array in arrays if array is not None)

    def __call__(self, a, w):
        """Overwrite row-major ``a`` by its eigenvectors as rows (conjugated), ascending in w."""
        ref = ctypes.byref
        tail = [self._work.ctypes.data, ref(self._sizes[0])]
        if self._complex:
            tail += [self._rwork.ctypes.data, ref(self._sizes[1])]
        tail += [self._iwork.ctypes.data, ref(self._sizes[-1]), ref(self._info)]
        self._call(
            ref(self._jobz), ref(self._uplo), ref(self._n), a.ctypes.data, ref(self._n),
            w.ctypes.data, *tail,
        )  # fmt: skip
        return self._info.value


def herk(b, c, alpha, beta=0.0, rows=False):
    """Upper row-major triangle of ``c = alpha b^H b + beta c`` for row-major b of shape (k, n).

    With ``rows`` it is ``alpha b b^H + beta c`` for b of shape (n, k).
    """
    letter = _LETTER[b.dtype.name]
    complex_ = b.dtype.kind == "c"
    n, k = b.shape if rows else b.shape[::-1]
    real = np.empty(0, b.dtype).real.dtype
    factor, old = np.full(1, alpha, real), np.full(1, beta, real)
    size_n, size_k, leading = ctypes.c_int(n), ctypes.c_int(k), ctypes.c_int(b.shape[1])
    name = f"{letter}herk" if complex_ else f"{letter}syrk"
    form = (b"C" if complex_ else b"T") if rows else b"N"
    # Fortran sees b^T and c^T: its lower triangle is the upper one of row-major c
    _routine("blas", name, 10)(
        ctypes.byref(ctypes.c_char(b"L")), ctypes.byref(ctypes.c_char(form)),
        ctypes.byref(size_n), ctypes.byref(size_k), factor.ctypes.data, b.ctypes.data,
        ctypes.byref(leading), old.ctypes.data, c.ctypes.data, ctypes.byref(size_n),
    )  # fmt: skip


def hemm(b, x, y, alpha, beta):
    """``y = alpha B x + beta y`` for the Hermitian B with row-major upper triangle ``b``."""
    letter = _LETTER[b.dtype.name]
    name = f"{letter}hemm" if b.dtype.kind == "c" else f"{letter}symm"
    rows, cols = ctypes.c_int(x.shape[0]), ctypes.c_int(x.shape[1])
    factor, old = np.full(1, alpha, b.dtype), np.full(1, beta, b.dtype)
    ref = ctypes.byref
    # Fortran sees y^T = x^T B^T, and of B^T the lower triangle
    _routine("blas", name, 12)(
        ref(ctypes.c_char(b"R")), ref(ctypes.c_char(b"L")), ref(cols), ref(rows),
        factor.ctypes.data, b.ctypes.data, ref(rows), x.ctypes.data, ref(cols), old.ctypes.data,
        y.ctypes.data, ref(cols),
    )  # fmt: skip


class Inverse:
    """Inverses of matrices of one order by LU with partial pivoting, workspace kept."""

    def __init__(self, n, dtype):
        letter = _LETTER[dtype.name]
        self._factor = _routine("lapack", f"{letter}getrf", 6)
        self._invert = _routine("lapack", f"{letter}getri", 7)
        self._n, self._info = ctypes.c_int(n), ctypes.c_int(0)
        # 64 is more than any block length of getri
        self._work, self._lwork = np.empty(64 * n, dtype), ctypes.c_int(64 * n)
        self._pivots = np.empty(n, np.int32)

    def __call__(self, a):
        """Overwrite row-major ``a`` by its inverse; log |det a|, infinite where it is singular."""
        ref = ctypes.byref
        n, info = ref(self._n), ref(self._info)
        pivots = self._pivots.ctypes.data
        # LAPACK sees the transpose, whose inverse is the transpose of the inverse
        self._factor(n, n, a.ctypes.data, n, pivots, info)
        diagonal = np.abs(np.einsum("ii->i", a)).astype(np.float64)
        if self._info.value:
            a[...] = np.nan
            return -np.inf
        self._invert(
            n, a.ctypes.data, n, pivots, self._work.ctypes.data, ref(self._lwork), info
        )  # fmt: skip
        return np.log(diagonal).sum()


def solve_upper(y, rows):
    """With ``Y = L L^H`` overwrite the rows of ``V^T`` by those of ``(V L^{-H})^T``.

    Overwrites y as well; nonzero where Y is not positive definite.
    """
    letter = _LETTER[y.dtype.name]
    n, info, one = ctypes.c_int(len(y)), ctypes.c_int(0), np.ones(1, y.dtype)
    ref, lower = ctypes.byref, ctypes.c_char(b"L")
    # Fortran sees conj(Y), whose factor is conj(L), and V: V conj(conj(L))^{-H} = V L'^{-T}
    _routine("lapack", f"{letter}potrf", 5)(ref(lower), ref(n), y.ctypes.data, ref(n), ref(info))
    if info.value:
        return info.value
    right, plain, general = ctypes.c_char(b"R"), ctypes.c_char(b"T"), ctypes.c_char(b"N")
    _routine("blas", f"{letter}trsm", 11)(
        ref(right), ref(lower), ref(plain), ref(general), ref(n), ref(n), one.ctypes.data,
        y.ctypes.data, ref(n), rows.ctypes.data, ref(n),
    )  # fmt: skip
    return 0


def hermitian_product(a, vectors, right, out, panels):
    """Upper row-major triangle of ``out = V^H A V``; vectors is conj(V) in columns of a Fortran
    matrix, right is workspace.

    SciPy's BLAS does these products as it does the factorisations around them: after a product by
    NumPy's own library, that library's idle threads would spin on the cores for milliseconds.
    """
    letter = _LETTER[a.dtype.name]
    n, size = len(a), a.itemsize
    one, zero = np.ones(1, a.dtype), np.zeros(1, a.dtype)
    ref, plain = ctypes.byref, ctypes.c_char(b"N")
    adjoint = ctypes.c_char(b"C" if a.dtype.kind == "c" else b"T")
    order = ctypes.c_int(n)
    multiply = _routine("blas", f"{letter}gemm", 13)
    # Fortran sees conj(A): conj(A) conj(V), of which conj(V)^H makes conj(V^H A V)
    multiply(
        ref(plain), ref(plain), ref(order), ref(order), ref(order), one.ctypes.data,
        a.ctypes.data, ref(order), vectors.ctypes.data, ref(order), zero.ctypes.data,
        right.ctypes.data, ref(order),
    )  # fmt: skip
    edges = [n * k // panels for k in range(panels + 1)]
    for lo, hi in itertools.pairwise(edges):
        rows, cols, start = ctypes.c_int(n - lo), ctypes.c_int(hi - lo), lo * n * size
        multiply(
            ref(adjoint), ref(plain), ref(rows), ref(cols), ref(order), one.ctypes.data,
            vectors.ctypes.data + start, ref(order), right.ctypes.data + start, ref(order),
            zero.ctypes.data, out.ctypes.data + start + lo * size, ref(order),
        )  # fmt: skip


def gemm(a, b, c):
    """``c = a b`` for row-major square matrices, by the BLAS library of the factorisations."""
    order, plain = ctypes.c_int(len(a)), ctypes.c_char(b"N")
    one, zero, ref = np.ones(1, a.dtype), np.zeros(1, a.dtype), ctypes.byref
    # Fortran sees transposes: c^T = b^T a^T
    _routine("blas", f"{_LETTER[a.dtype.name]}gemm", 13)(
        ref(plain), ref(plain), ref(order), ref(order), ref(order), one.ctypes.data,
        b.ctypes.data, ref(order), a.ctypes.data, ref(order), zero.ctypes.data, c.ctypes.data,
        ref(order),
    )  # fmt: skip


def fortran(library, name, dtype, *args):
    """Call routine ``name`` of the dtype; its ``info``, where the last argument is 0 for it.

    Integers, characters and arrays are passed as they are, a float in the precision of the dtype.
    """
    kept = []
    for x in args:
        if isinstance(x, np.ndarray):
            kept.append(x.ctypes)
        elif isinstance(x, bytes):
            kept.append(ctypes.c_char(x))
        elif isinstance(x, int):
            kept.append(ctypes.c_int(x))
        else:
            kept.append(np.full(1, x, dtype).ctypes)
    pointers = [x.data if hasattr(x, "data") else ctypes.byref(x) for x in kept]
    _routine(library, _LETTER[dtype.name] + name, len(args))(*pointers)
    last = kept[-1]
    return last.value if isinstance(last, ctypes.c_int) else 0
