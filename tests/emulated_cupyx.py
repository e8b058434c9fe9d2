"""What linalgk takes from CuPy's libraries, on an emulated device: with CuPy's rules and traps.

Triangular systems are solved in the dtype of the triangle. A factorization that fails says nothing,
unless ``cupyx.errstate(linalg="raise")`` asks for it, and leaves numbers behind.
"""

import contextlib
import types

import numpy as np
import scipy.linalg
import scipy.sparse


class Cupyx:
    """The modules by name, for arrays of one emulated device."""

    def __init__(self, device):
        self.device, self.xp = device, device.xp
        self._kind = type(device.array(np.zeros(1)))
        self._config = "ignore"
        top, middle = types.ModuleType("cupyx"), types.ModuleType("cupyx.scipy")
        linear, sparse = (types.ModuleType(f"cupyx.scipy.{x}") for x in ("linalg", "sparse"))
        top.scipy, middle.linalg, middle.sparse = middle, linear, sparse
        top.errstate = self._errstate
        linear.solve_triangular = self._solve_triangular
        self.kind = type("csr_matrix", (Csr,), {"library": self, "__module__": sparse.__name__})
        sparse.csr_matrix = self.kind
        self.modules = {m.__name__: m for m in (top, middle, linear, sparse)}

    @contextlib.contextmanager
    def _errstate(self, *, linalg):
        assert linalg in ("ignore", "raise")
        before, self._config = self._config, linalg
        try:
            yield
        finally:
            self._config = before

    # --- Dense ------------------------------------------------------------------------------------

    def host(self, x):
        """The values, for those who may see them."""
        if not isinstance(x, self._kind):
            msg = f"Unsupported type {type(x)}: not an array of the device"
            raise TypeError(msg)
        return x._array

    def put(self, x):
        """On the device in the order it has."""
        return self._kind._new(x, device=self.device.device)

    def _solve_triangular(
        self, a, b, trans=0, lower=False, unit_diagonal=False, overwrite_b=False,
        check_finite=False,
    ):  # fmt: skip
        a, b = self.host(a), self.host(b)
        if a.ndim != 2 or a.shape[0] != a.shape[1] or len(a) != len(b) or b.ndim > 2:
            raise ValueError("incompatible dimensions")
        assert a.size, "cuBLAS takes no empty triangle"
        assert trans in ("N", "T", "C")
        b = b.astype(a.dtype)  # CuPy's rule, whatever is lost by it
        trtrs = scipy.linalg.get_lapack_funcs("trtrs", (a, b))
        if not b.size:
            return self.put(b)
        if not np.diagonal(a).all():
            return self.put(np.full_like(b, np.nan))  # cuBLAS divides
        x, _ = trtrs(a, b, lower=lower, trans="NTC".index(trans), unitdiag=unit_diagonal)
        return self.put(x)  # in F order, like CuPy's

    def qr(self, a, mode):
        """Of CuPy itself: the triangle alone."""
        assert mode == "r"
        return self.put(np.linalg.qr(self.host(a), mode="r"))

    def cholesky(self, of):
        """That of the namespace, which leaves what was done where a matrix is not positive."""

        def cholesky(a, /, *, upper=False):
            host = self.host(a)
            try:
                return of(a, upper=upper)
            except np.linalg.LinAlgError:
                if self._config == "raise":
                    raise
            left = np.tril(host)
            for i in np.ndindex(host.shape[:-2]):
                potrf = scipy.linalg.get_lapack_funcs("potrf", (host,))
                left[i] = np.tril(potrf(host[i], lower=True)[0])
            return self.put(np.swapaxes(left, -1, -2).conj() if upper else left)

        return cholesky

    def silent(self, of):
        """NaN where the host's routine finds no answer."""

        def function(a, /, *args, **kwargs):
            try:
                return of(a, *args, **kwargs)
            except np.linalg.LinAlgError:
                if self._config == "raise":
                    raise
            host = self.host(a)
            found = of(self.put(np.zeros_like(host) + np.eye(*host.shape[-2:])), *args, **kwargs)
            nan = [self.put(np.full_like(x._array, np.nan)) for x in (
                found if isinstance(found, tuple) else (found,))]  # fmt: skip
            return type(found)(*nan) if isinstance(found, tuple) else nan[0]

        return function

    # --- Sparse -----------------------------------------------------------------------------------

    def csr(self, a):
        """A SciPy matrix on the device."""
        return self.kind(scipy.sparse.csr_matrix(a))

    def operator(self, a):
        """Known by its products."""
        return Operator(self, np.asarray(a))


class Csr:
    """A matrix of ``cupyx.scipy.sparse``, as far as linalgk asks for it."""

    ndim = 2
    library = None

    def __init__(self, a, dtype=None):
        if isinstance(a, tuple):
            a = scipy.sparse.csr_matrix(a, dtype=dtype)
        elif not scipy.sparse.issparse(a):
            a = scipy.sparse.csr_matrix(self.library.host(a))
        self._a, self.format = a, a.format
        self.shape, self.dtype, self.nnz = a.shape, a.dtype, a.nnz
        self.data, self.indices, self.indptr = map(self.library.put, (a.data, a.indices, a.indptr))

    T = property(lambda self: type(self)(self._a.T))

    def tocsr(self):
        return self.asformat("csr")

    def asformat(self, form):
        return self if self.format == form else type(self)(self._a.asformat(form))

    def toarray(self):
        return self.library.put(self._a.toarray())

    def astype(self, dtype):
        return type(self)(self._a.astype(dtype))

    def copy(self):
        return type(self)(self._a.copy())

    def conj(self):
        return type(self)(self._a.conj())

    def diagonal(self):
        return self.library.put(self._a.diagonal())

    def multiply(self, other):
        return type(self)(self._a.multiply(other._a).tocsr())

    def sum(self, axis):
        return self.library.put(np.asarray(self._a.sum(axis=axis)))

    def get(self):
        self.library.device.looks += 1
        self.library.device.sizes.append(self.nnz)
        return self._a.copy()

    def __abs__(self):
        return type(self)(abs(self._a))

    def __getitem__(self, index):
        return type(self)(scipy.sparse.csr_matrix(self._a[index]))

    def __mul__(self, factor):
        return type(self)(self._a * factor)

    def __matmul__(self, x):
        if isinstance(x, Csr):
            return type(self)(self._a @ x._a)
        return self.library.put(self._a @ self.library.host(x))

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion to NumPy; use .get()")


class Operator:
    """Of ``cupyx.scipy.sparse.linalg``: products of arrays of the device."""

    def __init__(self, library, a):
        self._library, self._a = library, a
        self.shape, self.dtype = a.shape, a.dtype

    def matmat(self, x):
        return self._library.put(self._a @ self._library.host(x))

    def rmatmat(self, x):
        return self._library.put(self._a.conj().T @ self._library.host(x))

    matvec = __matmul__ = matmat
    rmatvec = rmatmat
    H = property(lambda self: Operator(self._library, self._a.conj().T))


Operator.__module__ = "cupyx.scipy.sparse.linalg._interface"
