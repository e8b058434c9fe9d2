"""A pseudoinverse kept as two factors."""

from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint


class PinvOperator:
    """``A^+ = left @ right`` as an operator; the matrix is never formed but by `toarray`.

    Attributes
    ----------
    left : array, shape (n, k)
    right : array, shape (k, m)
    shape : tuple of int
        ``(n, m)``.
    dtype : dtype

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.outer(np.arange(1.0, 5.0), np.arange(1.0, 4.0))
    >>> x = lk.pinv(a, rank=1, as_operator=True)
    >>> x.shape, np.allclose(x @ np.ones(4), np.linalg.pinv(a) @ np.ones(4))
    ((3, 4), True)
    """

    __array_ufunc__ = None
    __array_priority__ = 1e6
    ndim = 2

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right

    @property
    def shape(self) -> tuple[int, int]:
        """Of the pseudoinverse."""
        return int(self.left.shape[0]), int(self.right.shape[1])

    @property
    def dtype(self) -> Any:
        """Of the factors."""
        return self.left.dtype

    @property
    def T(self) -> "PinvOperator":
        """The transpose."""
        xp = _namespace(self.left)
        return PinvOperator(xp.matrix_transpose(self.right), xp.matrix_transpose(self.left))

    @property
    def H(self) -> "PinvOperator":
        """The adjoint."""
        return PinvOperator(*(_adjoint(x) for x in (self.right, self.left)))

    def __matmul__(self, x: Any) -> Any:
        self._meets("x", x, self.shape[1], 0 if getattr(x, "ndim", 0) == 1 else -2)
        return self.left @ (self.right @ x)

    def __rmatmul__(self, x: Any) -> Any:
        self._meets("x", x, self.shape[0], -1)
        return (x @ self.left) @ self.right

    def _meets(self, name: str, x: Any, size: int, axis: int) -> None:
        shape = getattr(x, "shape", ())
        if not len(shape) or shape[axis] != size:
            msg = f"{name}: shape {tuple(shape)} does not meet that of the operator, {self.shape}"
            raise ValueError(msg)

    def matmat(self, x: Any) -> Any:
        """``A^+ X``."""
        return self @ x

    matvec = matmat

    def rmatmat(self, y: Any) -> Any:
        """``(A^+)^H Y``."""
        return self.H @ y

    rmatvec = rmatmat

    def toarray(self) -> Any:
        """The matrix (n, m)."""
        return self.left @ self.right

    def to_scipy(self) -> Any:
        """A `scipy.sparse.linalg.LinearOperator` of NumPy arrays."""
        from scipy.sparse.linalg import LinearOperator

        host = PinvOperator(*(np.asarray(_xp.to_numpy(x)) for x in (self.left, self.right)))
        return LinearOperator(
            host.shape, matvec=host.matmat, rmatvec=host.rmatmat, matmat=host.matmat,
            rmatmat=host.rmatmat, dtype=host.dtype,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"PinvOperator(shape={self.shape}, rank={self.left.shape[1]}, dtype={self.dtype})"


def _namespace(x: Any) -> Any:
    return _xp._compat("array_api_compat").array_namespace(x)


def _adjoint(x: Any) -> Any:
    return adjoint(_namespace(x), x)
