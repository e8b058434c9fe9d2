"""Primitives of the matrix functions: one reference definition each, and where its kernels are.

Arrays have one batch axis in front, (b, n, n). ``threads`` is for kernels; references ignore it.
"""

from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Implementation, Op

ALL = ("float32", "float64", "complex64", "complex128")
OK, NONFINITE, ASYMMETRIC, HARD = 0, 1, 2, 3


def adjoint(a: Any) -> Any:
    """The conjugate transpose of each member."""
    xp = _xp.namespace(a)
    transposed = xp.matrix_transpose(a)
    return xp.conj(transposed) if _xp.dtype_name(a) in _xp.COMPLEX else transposed


def eye_like(a: Any) -> Any:
    """The identity in the library, dtype and device of ``a``."""
    xp = _xp.namespace(a)
    if xp is np:
        return np.eye(a.shape[-1], dtype=a.dtype)
    device = _xp._compat("array_api_compat").device(a)
    return xp.eye(a.shape[-1], dtype=a.dtype, device=device)


def hermitian_scan(a: Any, threads: int = 1) -> tuple[Any, Any]:
    """Largest entry and largest ``|a_ij - conj(a_ji)|`` of each member; NaN if not finite."""
    xp = _xp.namespace(a)
    largest = xp.max(xp.abs(a), axis=(-2, -1))
    defect = xp.max(xp.abs(a - adjoint(a)), axis=(-2, -1))
    nan = 0 * largest * (0 * defect)
    finite = xp.isfinite(largest) & xp.isfinite(defect)
    largest = xp.where(finite, largest, nan + float("nan"))
    return largest, xp.where(finite, defect, nan + float("nan"))


def eigh(a: Any, threads: int = 1) -> tuple[Any, Any]:
    """Eigenvalues ascending (b, n) and eigenvectors in columns (b, n, n)."""
    w, v = _xp.namespace(a).linalg.eigh(a)
    return w, v


def gram(b: Any, threads: int = 1) -> Any:
    """``B B^H`` of each member, exactly Hermitian."""
    product = b @ adjoint(b)
    return 0.5 * (product + adjoint(product))


def root_iteration(m: Any, x: Any, coeffs: Any, threads: int = 1) -> Any:
    """``X <- X T, M <- M T^2`` with ``T = a I + b M + c M^2``, coefficients (b, steps, 3).

    M tends to the identity and X to ``X_0 M_0^{-1/2}``; M must have eigenvalues in (0, 1] and
    X_0 be a polynomial of M_0.
    """
    identity = eye_like(m)
    for k in range(coeffs.shape[1]):
        a, b, c = (coeffs[:, k, i][:, None, None] for i in range(3))
        t = a * identity + b * m + c * (m @ m)
        x = x @ t
        x = 0.5 * (x + adjoint(x))
        m = m @ (t @ t)
        m = 0.5 * (m + adjoint(m))
    return x


def small_root(
    a: Any, inverse: bool, table: Any, tol: float, threads: int = 1
) -> tuple[Any, Any, int]:
    """``A^{1/2}`` or ``A^{-1/2}`` of each member by the minimax schedule of its own bounds.

    ``table[r]`` is the schedule for eigenvalues in [2^-r, 1] of the largest (`schedule_table`).
    Returns the roots, a report (b, 4) of status, steps, lower and upper eigenvalue bound, and
    the number of members whose status is not OK; those hold NaN: not finite, asymmetric beyond
    ``tol``, or nearer to singular than the table reaches. The kernel takes its lower bound from a
    Cholesky factor, this definition from the eigenvalues.
    """
    xp = _xp.namespace(a)
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(a)])
    largest, defect = HERMITIAN_SCAN(a, threads)
    finite = xp.isfinite(largest)
    symmetric = defect <= tol * largest
    fit = finite & symmetric & (largest > 0)
    scale = xp.where(fit, largest, xp.ones_like(largest))
    h = _where(fit, a, eye_like(a)) / xp.astype(scale, a.dtype)[:, None, None]
    h = 0.5 * (h + adjoint(h))
    w = xp.linalg.eigvalsh(h)
    low, high = w[:, 0], w[:, -1]
    floor = max(10 * float(xp.finfo(real).eps), 2.0 ** (1 - table.shape[0]))
    ready = fit & (low > floor * high)
    low = xp.where(ready, low, high)
    rows = xp.astype(xp.ceil(xp.log2(high / low)), xp.int64)
    # a little more than the computed eigenvalue, which is right to n eps
    high = high * (1 + 2.0**-10)
    chosen = xp.take(_constant(table, a, real), rows, axis=0)
    steps = chosen[:, 0]
    coeffs = xp.reshape(chosen[:, 3:], (a.shape[0], -1, 3))
    m = _where(ready, h / xp.astype(high, a.dtype)[:, None, None], eye_like(a))
    x = eye_like(a) + 0 * m if inverse else m
    x = ROOT_ITERATION(m, x, xp.astype(coeffs, a.dtype), threads)
    factor = xp.sqrt(high) * xp.sqrt(scale)
    factor = 1 / factor if inverse else factor
    x = x * xp.astype(factor, a.dtype)[:, None, None]
    x = _where(ready, x, xp.full_like(x, float("nan")))
    zero = xp.zeros_like(high)
    status = xp.where(~symmetric, zero + ASYMMETRIC, xp.where(ready, zero + OK, zero + HARD))
    status = xp.where(finite, status, zero + NONFINITE)
    report = xp.stack([status, steps, low * scale, high * scale], axis=1)
    return x, report, int(xp.sum(xp.astype(~ready, xp.int64)))


def _where(members: Any, a: Any, b: Any) -> Any:
    return _xp.namespace(a).where(members[:, None, None], a, b)


def _constant(table: Any, like: Any, dtype: Any) -> Any:
    xp = _xp.namespace(like)
    return _xp.from_numpy(np.ascontiguousarray(table), xp, like=like, dtype=dtype)


def general_sqrt(a: Any, threads: int = 1) -> Any:
    """Principal square roots of general matrices, NaN where the iteration fails; a kernel may
    return real ones as real.

    Product form of the scaled Denman-Beavers iteration (Higham, Functions of Matrices, 2008,
    eq. 6.29): ``X <- mu/2 X (I + N), M <- (I + (mu^2 M + N')/2)/2`` with ``N = (mu^2 M)^-1``.
    """
    xp = _xp.namespace(a)
    wide = "complex64" if _xp.dtype_name(a) in ("float32", "complex64") else "complex128"
    x = xp.astype(a, _xp.dtype_of(xp, wide))
    m, identity = x, eye_like(x)
    n = a.shape[-1]
    for _ in range(40):
        logdet = xp.linalg.slogdet(m)[1]
        mu = xp.astype(xp.exp(-logdet / (2 * n)), x.dtype)[:, None, None]
        near = xp.max(xp.abs(m - identity), axis=(-2, -1)) < 1e-2
        mu = xp.where(near[:, None, None], xp.ones_like(mu), mu)
        inverse = xp.linalg.inv(m) / mu**2
        x = 0.5 * mu * (x @ (identity + inverse))
        m = 0.5 * identity + 0.25 * (mu**2 * m + inverse)
    return x


def _spd(dtype: str, n: int = 6, batch: int = 3) -> Any:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((batch, n, 2 * n)).astype(dtype)
    if dtype in _xp.COMPLEX:
        a = a + 1j * rng.standard_normal(a.shape).astype(dtype)
    return np.ascontiguousarray((a @ np.conj(np.swapaxes(a, -1, -2))).astype(dtype))


def _newton(steps: int) -> Any:
    """Newton-Schulz coefficients, the simplest schedule there is."""
    return np.tile([1.5, -0.5, 0.0], (steps, 1))


def _sample_small_root(dtype: str) -> tuple[Any, ...]:
    a = _spd(dtype)
    table = np.zeros((20, 3 * 21))
    for r, row in enumerate(table):
        row[:3] = r // 2 + 7, np.finfo(dtype).eps, 0.0
        row[3:] = np.tile([1.0, 0.0, 0.0], 20)
        row[3 : 3 * (r // 2 + 8)] = _newton(r // 2 + 7).ravel()
    return 0.5 * (a + adjoint(a)), True, table, 1e-3, 1


def _sample_iteration(dtype: str) -> tuple[Any, ...]:
    a = _spd(dtype)
    a = 0.5 * (a + adjoint(a))
    a /= np.linalg.norm(a, axis=(1, 2), keepdims=True)
    coeffs = np.broadcast_to(_newton(12), (3, 12, 3)).astype(_xp.REAL[dtype])
    return a, a, coeffs, 1


def _cpu(stem: str, symbol: str, dtypes: tuple[str, ...] = ALL) -> Implementation:
    return Implementation("cpu", dtypes, f"linalgk_kernels.cpu.matfun_{stem}", symbol)


HERMITIAN_SCAN = Op(
    "hermitian_scan", "matfun", hermitian_scan, (_cpu("scan", "hermitian_scan"),),
    lambda dtype: (_spd(dtype), 1),
)  # fmt: skip
EIGH = Op("eigh", "matfun", eigh, (_cpu("eigh", "eigh"),), lambda dtype: (_spd(dtype), 1))
GRAM = Op("gram", "matfun", gram, (_cpu("eigh", "gram"),), lambda dtype: (_spd(dtype), 1))
ROOT_ITERATION = Op(
    "root_iteration", "matfun", root_iteration, (_cpu("iteration", "root_iteration"),),
    _sample_iteration,
)  # fmt: skip
SMALL_ROOT = Op(
    "small_root", "matfun", small_root, (_cpu("roots", "small_root"),), _sample_small_root
)
GENERAL_SQRT = Op(
    "general_sqrt", "matfun", general_sqrt, (_cpu("schur", "general_sqrt"),),
    lambda dtype: (_spd(dtype) + np.triu(np.ones((6, 6), dtype)), 1),
)  # fmt: skip
OPS = (HERMITIAN_SCAN, EIGH, GRAM, ROOT_ITERATION, SMALL_ROOT, GENERAL_SQRT)
