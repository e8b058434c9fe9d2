"""The inverse of ``B B^H`` for ``B = A (W kron I)``: a factorization, and what W changed since."""

import math
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.errors import SingularMatrixError

# Loss from which Cholesky's factor is not worth refining with.
_LOSS = 1e-3


class Normal:
    """``(B B^H)^-1`` where ``B B^H = S_0 + F K F^H`` and ``S_0 = R^H R``.

    Attributes
    ----------
    w : array
        At which B was factored.
    method : {"cholesky", "qr"}
    condition : float
        Estimate of the condition number of B.
    loss : float
        Relative error of the factorization as an inverse, roughly: ``eps cond(B)^2`` of Cholesky's,
        ``eps cond(B)`` of QR's.
    rank : int
        Of the change of W since.
    """

    def __init__(self, b: Any, w: Any, method: str) -> None:
        self.w, self.rank = w, 0
        self._r, self.method, self.condition = factor(b, method)
        eps = float(np.finfo(_xp.dtype_name(b)).eps)
        self.loss = eps * self.condition ** (2 if self.method == "cholesky" else 1)
        # two kinds of columns of F, and S_0^-1 times them
        self._f: tuple[Any, Any] | None = None
        self._z: tuple[Any, Any] | None = None
        self._m: Any = None

    def extend(self, one: Any, two: Any, rank: int) -> None:
        """More columns of both kinds."""
        xp = _xp.namespace(one)
        images = self._based(one), self._based(two)
        self.rank += rank
        if self._f is None or self._z is None:
            self._f, self._z = (one, two), images
            return
        self._f = xp.concat([self._f[0], one], axis=1), xp.concat([self._f[1], two], axis=1)
        self._z = (
            xp.concat([self._z[0], images[0]], axis=1),
            xp.concat([self._z[1], images[1]], axis=1),
        )

    def settle(self, k: Any) -> None:
        """The matrix K between all columns, the first kind in front of the second."""
        assert self._f is not None
        assert self._z is not None
        xp = _xp.namespace(k)
        f, z = xp.concat(self._f, axis=1), xp.concat(self._z, axis=1)
        inner = eye(k, k.shape[0]) + k @ (adjoint(xp, f) @ z)
        self._m = xp.linalg.solve(inner, k)

    def solve(self, g: Any) -> Any:
        """``(B B^H)^-1 g`` by Woodbury's formula."""
        y = self._based(g)
        if self._m is None or self._z is None:
            return y
        xp = _xp.namespace(g)
        (one, two), n = self._z, self._z[0].shape[1]
        inner = xp.concat([adjoint(xp, one) @ g, adjoint(xp, two) @ g], axis=0)
        x = self._m @ inner
        return y - one @ x[:n, :] - two @ x[n:, :]

    def _based(self, g: Any) -> Any:
        """``S_0^-1 g``."""
        return solved(self._r, g)


def factor(b: Any, method: str) -> tuple[Any, str, float]:
    """R with ``B B^H = R^H R``, by Cholesky where that can be refined, and the condition of B.

    On the host R is the triangle, else its inverse.
    """
    xp, eps = _xp.namespace(b), float(np.finfo(_xp.dtype_name(b)).eps)
    if method == "cholesky":
        r: Any = None
        try:
            r = adjoint(xp, xp.linalg.cholesky(b @ adjoint(xp, b)))
        except Exception as error:  # libraries have their own classes for this failure
            if "LinAlg" not in type(error).__name__:
                raise
        if r is not None and bool(xp.all(xp.isfinite(r))):
            r = _kept(xp, r)
            condition = _condition(b, r)
            if eps * condition**2 <= _LOSS:
                return r, method, condition
    r = np.linalg.qr(adjoint(np, b), mode="r") if xp is np else xp.linalg.qr(adjoint(xp, b)).R
    if not float(xp.min(xp.abs(xp.linalg.diagonal(r)))) > 0:
        raise singular()
    r = _kept(xp, r)
    condition = _condition(b, r)
    if not eps * condition * 8 * math.sqrt(max(b.shape)) < 1:
        raise singular()
    return r, "qr", condition


def _kept(xp: Any, r: Any) -> Any:
    return r if xp is np else xp.linalg.solve(r, eye(r, r.shape[0]))


def solved(r: Any, g: Any) -> Any:
    """``(R^H R)^-1 g``."""
    if isinstance(g, np.ndarray):
        import scipy.linalg

        return scipy.linalg.cho_solve((r, False), g, check_finite=False)
    return r @ (adjoint(_xp.namespace(g), r) @ g)


def _condition(b: Any, r: Any, steps: int = 4) -> float:
    """A good guess of the condition number of B, from power steps both ways."""
    xp = _xp.namespace(b)
    x = _start(xp, b, b.shape[0])
    size = 0.0
    for _ in range(steps):
        y = solved(r, x)
        size = norm(xp, y) / norm(xp, x)
        if not math.isfinite(size):
            return math.inf
        x = y * (1 / norm(xp, y))
    return spectral_norm(b) * math.sqrt(size)


def singular() -> SingularMatrixError:
    """What is said of rows that depend on each other."""
    msg = (
        "KronProjection: the rows of B are dependent to working precision; leave some out "
        "(linalgk.qr_pivoted of a^H names them)"
    )
    return SingularMatrixError(msg)


# --- Columns of F, and K -------------------------------------------------------------------------


def mode_one(xp: Any, blocks: Any, u: Any) -> Any:
    """``A (U kron I)`` (m, r n2) for A as blocks (m, n1, n2)."""
    x = xp.matmul(xp.matrix_transpose(u), blocks)
    return xp.reshape(x, (blocks.shape[0], -1))


def mode_two(xp: Any, blocks: Any, u: Any) -> Any:
    """``A (I kron U)`` (m, r n1), columns in the order (r, n1)."""
    x = xp.matrix_transpose(xp.matmul(blocks, u))
    return xp.reshape(x, (blocks.shape[0], -1))


def between_left(v: Any, n2: int) -> Any:
    """``((V^H V kron I, I), (I, 0))``."""
    xp = _xp.namespace(v)
    gram, one = kron(xp, adjoint(xp, v) @ v, eye(v, n2)), eye(v, v.shape[1] * n2)
    return _of_blocks(xp, gram, one, one, xp.zeros_like(one))


def between_root(inner: list[Any], w: Any, old: Any) -> Any:
    """``diag(Y kron W, Y kron W_0)`` for the diagonal blocks of Y."""
    xp = _xp.namespace(w)
    y = inner[0]
    for block in inner[1:]:
        # a column of one times a row of the other
        right = xp.zeros_like(y[:, :1] * block[:1, :])
        y = _of_blocks(xp, y, right, xp.matrix_transpose(right), block)
    one, two = kron(xp, y, w), kron(xp, y, old)
    return _of_blocks(xp, one, xp.zeros_like(one), xp.zeros_like(two), two)


def _of_blocks(xp: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    return xp.concat([xp.concat([a, b], axis=1), xp.concat([c, d], axis=1)], axis=0)


def kron(xp: Any, x: Any, y: Any) -> Any:
    """The Kronecker product of small matrices."""
    (p, q), (r, s) = x.shape, y.shape
    return xp.reshape(x[:, None, :, None] * y[None, :, None, :], (p * r, q * s))


def eye(like: Any, n: int) -> Any:
    """The identity of that library and dtype."""
    return _xp.from_numpy(np.eye(n, dtype=_xp.dtype_name(like)), _xp.namespace(like), like=like)


def partner(xp: Any, u: Any, v: Any) -> Any:
    """The Hermitian Y with ``U Y`` nearest to V, or so."""
    y = xp.linalg.pinv(u) @ v
    return 0.5 * (y + adjoint(xp, y))


# --- Norms ---------------------------------------------------------------------------------------


def norm(xp: Any, x: Any) -> float:
    """In Frobenius norm."""
    if xp is np:
        return float(np.linalg.norm(x))
    size = xp.abs(x)
    return math.sqrt(float(xp.sum(size * size)))


def spectral_norm(a: Any, steps: int = 6) -> float:
    """A good guess of the largest singular value, from power steps."""
    xp = _xp.namespace(a)
    if 0 in a.shape:
        return 0.0
    x = _start(xp, a, a.shape[1])
    size = 0.0
    for _ in range(steps):
        length = norm(xp, x)
        if not length > 0:
            break
        y = a @ (x * (1 / length))
        size = norm(xp, y)
        x = adjoint(xp, a) @ y
    return size


def _start(xp: Any, like: Any, n: int) -> Any:
    """A vector that is nearly orthogonal to nothing in particular."""
    x = np.cos(np.arange(n, dtype=np.float64) * 1.7)[:, None]
    return _xp.from_numpy(x.astype(_xp.dtype_name(like)), xp, like=like)
