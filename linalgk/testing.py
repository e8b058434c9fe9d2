"""Matrices with a known spectrum, and oracles more accurate than what they judge.

Tests and benchmarks share this module, so that both mean the same by "a matrix of condition 1e8"
and by "error". There are two kinds of oracle, which take the floating-point matrix as exact:

* ``mp_*`` work in mpmath with as many digits as asked, for one small matrix (n up to about 32);
* ``reference_*`` work at any size. They refine a double-precision answer with residuals computed
  to twice the precision, where every partial product is exact [1]_, and so reach full double
  precision at any condition number below 1 / eps.

References
----------
.. [1] K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free transformations of matrix
   multiplication by using fast routines of matrix multiplication and its applications",
   Numerical Algorithms 59 (2012), Algorithm 3.
.. [2] N. J. Higham, "Functions of Matrices", SIAM 2008, section 6.3 (Newton's method).
.. [3] F. Mezzadri, "How to generate random matrices from the classical compact groups",
   Notices AMS 54 (2007).
"""

import functools
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "Spectrum", "spd_matrix", "psd_factor", "random_matrix",
    "mp_funm", "mp_sqrtm", "mp_invsqrtm", "mp_sqrtm_general",
    "reference_sqrtm", "reference_invsqrtm", "reference_sqrtm_general",
    "to_numpy", "relative_error", "assert_close",
]  # fmt: skip

Spectrum: TypeAlias = Literal["log", "clustered", "rank_deficient", "wishart", "heavy_tailed"]
Array: TypeAlias = NDArray[Any]
# An unevaluated sum hi + lo of two float64 arrays, about 106 bits.
_Double: TypeAlias = tuple[Array, Array]

_EPS = float(np.finfo(np.float64).eps)


# --- matrices ------------------------------------------------------------------------------------


def spd_matrix(
    n: int,
    kappa: float = 1e4,
    *,
    spectrum: Spectrum = "log",
    batch: tuple[int, ...] = (),
    dtype: DTypeLike = "float64",
    rng: Any = 0,
) -> Array:
    """Hermitian positive (semi)definite matrices with Haar-distributed eigenvectors [3]_.

    Parameters
    ----------
    n : int
        Order.
    kappa : float
        Ratio of the largest to the smallest nonzero eigenvalue; ``"wishart"`` ignores it.
    spectrum : {"log", "clustered", "rank_deficient", "wishart", "heavy_tailed"}
        ``"log"``: evenly spaced in the logarithm between ``1/kappa`` and 1. ``"clustered"``: half
        within one percent of each end. ``"rank_deficient"``: rank exactly ``n // 2``, see
        `psd_factor`. ``"wishart"``: sample covariance of ``2 n`` standard normal vectors.
        ``"heavy_tailed"``: Pareto with exponent 1/2, scaled to end at 1, cut off at ``1/kappa``.
    batch : tuple of int
        Leading dimensions.
    dtype : dtype
        ``float32``, ``float64``, ``complex64`` or ``complex128``.
    rng : int, Generator or None
        Whatever `numpy.random.default_rng` takes.

    Returns
    -------
    array, shape (*batch, n, n)
        Equal to its conjugate transpose bit by bit.

    Notes
    -----
    The product of the factors is rounded only once, to `dtype`, so that the smallest eigenvalue
    keeps its meaning up to ``kappa`` of about ``1 / eps``.

    Examples
    --------
    >>> a = spd_matrix(5, 1e3)
    >>> bool((a == a.T).all()), round(float(np.linalg.cond(a)))
    (True, 1000)
    """
    if spectrum not in get_args(Spectrum):
        msg = f"spectrum must be one of {get_args(Spectrum)}, got {spectrum!r}"
        raise ValueError(msg)
    gen = np.random.default_rng(rng)
    dtype = np.dtype(dtype)
    if spectrum == "rank_deficient":
        return _outer(psd_factor(n, n // 2, kappa, batch=batch, dtype=dtype, rng=gen), dtype)
    wide = np.result_type(dtype, np.float64)
    if spectrum == "wishart":
        return _outer(_gaussian((*batch, n, 2 * n), wide, gen) / np.sqrt(max(2 * n, 1)), dtype)
    low = 1 / kappa
    if spectrum == "log":
        lam = np.broadcast_to(_log_range(low, n), (*batch, n))
    elif spectrum == "clustered":
        u = 0.01 * gen.random((*batch, n))
        lam = np.where(np.arange(n) < n // 2, low * (1 + u), 1 - u)
        lam[..., :1], lam[..., -1:] = low, 1.0
    else:
        pareto = (1 - gen.random((*batch, n))) ** -2.0
        lam = np.maximum(pareto / np.max(pareto, axis=-1, keepdims=True, initial=1.0), low)
    return _outer(_haar((*batch, n, n), wide, gen) * np.sqrt(lam)[..., None, :], dtype)


def psd_factor(
    n: int,
    rank: int,
    kappa: float = 1e4,
    *,
    batch: tuple[int, ...] = (),
    dtype: DTypeLike = "float64",
    rng: Any = 0,
) -> Array:
    """Factor B whose product ``B @ B^H`` is exact in `dtype`, so that its rank is exactly `rank`.

    ``spd_matrix(n, kappa, spectrum="rank_deficient")`` is this product for ``rank = n // 2`` and
    the same `rng`.

    Parameters
    ----------
    n, rank : int
        Shape of the factor.
    kappa : float
        Wanted ratio of the largest to the smallest nonzero eigenvalue of the product.
    batch, dtype, rng
        As in `spd_matrix`.

    Returns
    -------
    array, shape (*batch, n, rank)
        Integers times one power of two, of as few bits as the exact product allows (at rank 128
        23 for float64, 8 for float32): `kappa` is met roughly, and to at most about 4**bits.

    Examples
    --------
    >>> b = psd_factor(6, 3)
    >>> bool((b @ b.T == spd_matrix(6, spectrum="rank_deficient")).all())
    True
    """
    dtype = np.dtype(dtype)
    gen = np.random.default_rng(rng)
    b = _haar((*batch, n, n), np.result_type(dtype, np.float64), gen)[..., :rank]
    b = b * np.sqrt(_log_range(1 / kappa, rank))
    terms = max(rank, 1) * (2 if dtype.kind == "c" else 1)
    bits = (np.finfo(dtype).nmant + 1 - int(np.ceil(np.log2(terms)))) // 2
    _, exponent = np.frexp(np.max(np.abs(b), initial=0.0))
    unit = np.ldexp(1.0, int(exponent) - bits)
    rounded: Array = np.round(b / unit) * unit
    return rounded.astype(dtype)


def random_matrix(
    n: int,
    kappa: float = 100.0,
    *,
    max_angle: float = 0.75 * np.pi,
    basis_cond: float = 10.0,
    batch: tuple[int, ...] = (),
    dtype: DTypeLike = "float64",
    rng: Any = 0,
) -> Array:
    """General matrices whose eigenvalues keep away from the closed negative real axis.

    Parameters
    ----------
    n : int
        Order.
    kappa : float
        Ratio of the largest to the smallest modulus of the eigenvalues, log-uniform between.
    max_angle : float
        Largest argument of an eigenvalue, below pi; eigenvalues come in conjugate pairs.
    basis_cond : float
        Condition of the basis in which the matrix is (block) diagonal; 1 makes it normal.
    batch, dtype, rng
        As in `spd_matrix`.

    Returns
    -------
    array, shape (*batch, n, n)

    Examples
    --------
    >>> lam = np.linalg.eigvals(random_matrix(7))
    >>> bool((abs(np.angle(lam)) < 0.8 * np.pi).all())
    True
    """
    gen = np.random.default_rng(rng)
    dtype = np.dtype(dtype)
    wide = np.result_type(dtype, np.float64)
    angle = max_angle * gen.uniform(0, 1, (*batch, n // 2))
    modulus, even = _log_range(1 / kappa, n // 2), 2 * np.arange(n // 2)
    core = np.zeros((*batch, n, n))
    core[..., even, even] = core[..., even + 1, even + 1] = modulus * np.cos(angle)
    core[..., even, even + 1] = modulus * np.sin(angle)
    core[..., even + 1, even] = -modulus * np.sin(angle)
    if n % 2:
        core[..., -1, -1] = 1.0
    # A basis U diag(s) V^H of exactly the condition asked, whose inverse is known without solving.
    s = _log_range(1 / basis_cond, n)
    u, v = _haar((*batch, n, n), wide, gen), _haar((*batch, n, n), wide, gen)
    left, right = (u * s) @ _ct(v), (v / s) @ _ct(u)
    product: Array = left @ core @ right
    return product.astype(dtype)


# --- mpmath oracles ------------------------------------------------------------------------------


def mp_sqrtm(a: Any, dps: int = 50) -> Array:
    """Principal square root of one Hermitian positive semidefinite matrix, as `mp_funm`.

    Examples
    --------
    >>> mp_sqrtm([[5.0, 4.0], [4.0, 5.0]])
    array([[2., 1.],
           [1., 2.]])
    """
    return mp_funm(a, lambda x: max(x, 0) ** 0.5, dps, least=-1)


def mp_invsqrtm(a: Any, dps: int = 50) -> Array:
    """Inverse square root of one Hermitian positive definite matrix, as `mp_funm`."""
    return mp_funm(a, lambda x: 1 / x**0.5, dps, least=0)


def mp_sqrtm_general(a: Any, dps: int = 50) -> Array:
    """Principal square root of one square matrix, not necessarily Hermitian, by mpmath.

    Examples
    --------
    >>> mp_sqrtm_general([[1.0, 4.0], [0.0, 9.0]])
    array([[1., 1.],
           [0., 3.]])
    """
    import mpmath as mp

    a = to_numpy(a)
    with mp.workdps(dps):
        return _from_mp(mp.sqrtm(mp.matrix(a.tolist())), a)


def mp_funm(a: Any, function: Any, dps: int = 50, *, least: int | None = None) -> Array:
    """Function of one Hermitian matrix through its eigenvalues, by mpmath.

    Parameters
    ----------
    a : array, shape (n, n)
    function : callable
        From a real mpmath number, with ``mpmath.workdps(dps)``, to another.
    dps : int
        Decimal digits of the computation; its result is rounded once, to a double.
    least : {-1, 0}, optional
        Refuse negative eigenvalues, or those and zero.

    Examples
    --------
    >>> mp_funm([[4.0, 0.0], [0.0, 16.0]], lambda x: 1 / x)
    array([[0.25  , 0.    ],
           [0.    , 0.0625]])
    """
    import mpmath as mp

    a = to_numpy(a)
    with mp.workdps(dps):
        w, q = _mp_eigh(a.tobytes(), a.shape[0], a.dtype.str, dps)
        # Exact zeros come out as rounding errors of either sign, far below what doubles resolve.
        zero = max(abs(x) for x in w) * mp.mpf(10) ** (-(2 * dps) // 3)
        if least is not None and (min(w) < -zero or (least == 0 and min(w) <= zero)):
            what = "semidefinite" if least else "definite"
            msg = f"matrix is not positive {what}: eigenvalue {mp.nstr(min(w), 6)}"
            raise ValueError(msg)
        return _from_mp(q * mp.diag([function(x) for x in w]) * q.transpose_conj(), a)


@functools.lru_cache(maxsize=32)
def _mp_eigh(data: bytes, n: int, dtype: str, dps: int) -> Any:
    import mpmath as mp

    a = np.frombuffer(data, dtype).reshape(n, n)
    with mp.workdps(dps):
        return (mp.eighe if a.dtype.kind == "c" else mp.eigsy)(mp.matrix(a.tolist()))


def _from_mp(x: Any, like: Array) -> Array:
    out = np.array([[complex(x[i, j]) for j in range(x.cols)] for i in range(x.rows)])
    return out if like.dtype.kind == "c" else out.real.copy()


# --- references at any size ----------------------------------------------------------------------


def reference_sqrtm(a: Any, *, factor: Any = None) -> Array:
    """Square root of Hermitian positive definite matrices, correct to the last bits of a double.

    Parameters
    ----------
    a : array, shape (..., n, n)
        Hermitian, taken as exact.
    factor : array, shape (..., n, k), optional
        Full-rank factor with ``a == factor @ factor^H`` exactly (`psd_factor`). Needed where `a`
        is singular, for then its root is lost below the square root of eps.

    Returns
    -------
    array, shape (..., n, n)
        float64 or complex128.

    Raises
    ------
    ArithmeticError
        When a member is not positive definite to working precision.

    Notes
    -----
    Newton's method ``X D + D X = A - X^2`` [2]_ with X and the residual in about 32 digits [1]_
    and D solved for in double precision, in the eigenbasis of X. A step reduces the error by about
    ``eps * kappa^(1/2)``, down to ``1e-28 * kappa^(1/2)`` before rounding. For single precision
    input `eigh` in double precision is accurate enough: error ``eps * kappa^(1/2)`` of float64.

    Examples
    --------
    >>> a = spd_matrix(8, 1e12)
    >>> bool(relative_error(reference_sqrtm(a), mp_sqrtm(a)) < 1e-15)
    True
    """
    if factor is not None:
        return _by_embedding(to_numpy(factor), lambda b: _sqrt_of_factor(b)[0])
    a = to_numpy(a)
    if a.dtype in (np.float32, np.complex64):
        w, v = np.linalg.eigh(a.astype(np.result_type(a, np.float64)))
        return _spectral(v, np.sqrt(np.maximum(w, 0)))
    return _by_embedding(a, lambda b: _sqrt_dd(_exact(b))[0])


def reference_invsqrtm(a: Any) -> Array:
    """Inverse square root of positive definite matrices, correct to the last bits of a double.

    Parameters and result are as in `reference_sqrtm`.

    Notes
    -----
    The 32-digit root of `reference_sqrtm` is inverted by ``Z <- Z + Z (I - X Z)`` with a residual
    of 32 digits; relative error before rounding about ``1e-28 * kappa``. Single precision input is
    handled by `eigh` in double precision, with error ``eps * kappa`` of float64.

    Examples
    --------
    >>> a = spd_matrix(8, 1e12)
    >>> bool(relative_error(reference_invsqrtm(a), mp_invsqrtm(a)) < 1e-15)
    True
    """
    a = to_numpy(a)
    if a.dtype in (np.float32, np.complex64):
        w, v = np.linalg.eigh(a.astype(np.result_type(a, np.float64)))
        return _spectral(v, 1 / np.sqrt(w))
    return _by_embedding(a, lambda b: _inverse_dd(_sqrt_dd(_exact(b)))[0])


def reference_sqrtm_general(a: Any) -> Array:
    """Principal square root of square matrices without eigenvalues on the closed negative axis.

    Parameters and result are as in `reference_sqrtm`. ArithmeticError means that the refinement of
    SciPy's answer did not contract: the root is too ill-conditioned, or there is none.

    Examples
    --------
    >>> a = random_matrix(8)
    >>> bool(relative_error(reference_sqrtm_general(a), mp_sqrtm_general(a)) < 1e-15)
    True
    """
    import scipy.linalg as sla

    def root(b: Array) -> Array:
        flat = b.reshape(-1, *b.shape[-2:])
        x = np.array([sla.sqrtm(m) for m in flat]).reshape(b.shape)
        if x.dtype.kind == "c":
            msg = "an eigenvalue lies on the negative axis"
            raise ArithmeticError(msg)

        def solve(x: Array, r: Array) -> Array:
            pairs = zip(x.reshape(flat.shape), r.reshape(flat.shape), strict=True)
            return np.array([sla.solve_sylvester(y, y, s) for y, s in pairs]).reshape(b.shape)

        return _newton_sqrt(_exact(b), x, solve)[0]

    return _by_embedding(to_numpy(a), root)


def _sqrt_dd(a: _Double) -> _Double:
    """Square root of real symmetric positive definite matrices in double-double."""
    w, v = np.linalg.eigh(a[0])
    # Computed eigenvalues below eps may come out negative; any positive guess is in Newton's basin.
    floor = _EPS / 8 * np.max(w, axis=-1, keepdims=True, initial=0.0)

    def solve(x: Array, r: Array) -> Array:
        s, v = np.linalg.eigh(x)
        step: Array = v @ (_ct(v) @ r @ v / (s[..., :, None] + s[..., None, :])) @ _ct(v)
        return step

    return _newton_sqrt(a, _spectral(v, np.sqrt(np.maximum(w, floor))), solve, symmetric=True)


def _newton_sqrt(a: _Double, x0: Array, solve: Any, *, symmetric: bool = False) -> _Double:
    x = _exact(x0)
    size = _norm(x0)
    change = np.full_like(size, np.inf)
    for _ in range(12):
        square = _matmul_dd(x, x)
        head, tail = _two_sum(a[0], -square[0])
        step = solve(x[0], head + (tail + (a[1] - square[1])))
        if symmetric:
            step = 0.5 * (step + _ct(step))
        x = _add_dd(x, step)
        change = _norm(step)
        if np.all(change <= _EPS**1.5 * size):
            return x
    bad = np.flatnonzero(~(change <= _EPS**1.5 * size))
    msg = (
        f"no square root found to 24 digits for members {bad.tolist()}: singular, or there is none"
    )
    raise ArithmeticError(msg)


def _inverse_dd(x: _Double) -> _Double:
    """Inverse of real symmetric positive definite matrices in double-double."""
    w, v = np.linalg.eigh(x[0])
    z0 = _spectral(v, 1 / w)
    z = _exact(z0)
    eye = np.eye(z0.shape[-1])
    for _ in range(6):
        product = _matmul_dd(x, z)
        step = z0 @ ((eye - product[0]) - product[1])
        z = _add_dd(z, 0.5 * (step + _ct(step)))
        if np.all(_norm(step) <= _EPS**1.5 * _norm(z0)):
            break
    return z


def _sqrt_of_factor(b: Array) -> _Double:
    """B (B^T B)^{-1/2} B^T, the root of B B^T."""
    core = _inverse_dd(_sqrt_dd(_matmul_dd(_exact(_ct(b)), _exact(b))))
    return _matmul_dd(_matmul_dd(_exact(b), core), _exact(_ct(b)))


def _by_embedding(a: Array, function: Any) -> Array:
    """Apply a real matrix function to P + iQ through the ring homomorphism [[P, -Q], [Q, P]]."""
    if a.dtype.kind != "c":
        return np.asarray(function(a.astype(np.float64)))
    p, q = a.real.astype(np.float64), a.imag.astype(np.float64)
    big = function(np.block([[p, -q], [q, p]]))
    rows, cols = big.shape[-2] // 2, big.shape[-1] // 2
    return np.asarray(big[..., :rows, :cols] + 1j * big[..., rows:, :cols])


# --- double-double arithmetic --------------------------------------------------------------------


def _exact(x: Array) -> _Double:
    return x, np.zeros_like(x)


def _two_sum(a: Array, b: Array) -> _Double:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _add_dd(x: _Double, step: Array) -> _Double:
    head, tail = _two_sum(x[0], step)
    return _two_sum(head, tail + x[1])


def _matmul_dd(a: _Double, b: _Double) -> _Double:
    """Product of real matrices to about 105 bits of the row and column norms [1]_.

    The factors are cut into slices so short that every product of two slices is free of rounding
    in float64, whatever the order of summation, and so BLAS can be used.
    """
    inner = max(a[0].shape[-1], 1)
    bits = (53 - int(np.ceil(np.log2(inner)))) // 2
    rows, cols = _slices(a, -1, bits), _slices(b, -2, bits)
    head = np.zeros((*a[0].shape[:-1], b[0].shape[-1]))
    tail = np.zeros_like(head)
    last = -(-108 // (bits + 1))
    for level in range(last, -1, -1):  # small terms first
        for i in range(max(0, level - len(cols) + 1), min(level + 1, len(rows))):
            head, rest = _two_sum(head, rows[i] @ cols[level - i])
            tail += rest
    return _two_sum(head, tail)


def _slices(x: _Double, axis: int, bits: int) -> list[Array]:
    head, tail = x
    out: list[Array] = []
    while len(out) <= -(-108 // (bits + 1)) and head.any():
        _, exponent = np.frexp(np.max(np.abs(head), axis=axis, keepdims=True))
        # Adding and subtracting 1.5 * 2^k rounds to multiples of 2^(k - 52).
        shift = np.ldexp(1.5, exponent + (52 - bits))
        part = (head + shift) - shift
        head, tail = _two_sum(head - part, tail)
        out.append(part)
    return out


# --- comparison ----------------------------------------------------------------------------------


def to_numpy(x: Any) -> Array:
    """Copy or view any array on the host as NumPy: CuPy, PyTorch, JAX, ``__array__`` or DLPack.

    Gradients are dropped; bfloat16 tensors, which NumPy has no name for, become float32.
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu().resolve_conj()
        if str(x.dtype) == "torch.bfloat16":
            x = x.float()
    elif hasattr(x, "__cuda_array_interface__") and hasattr(x, "get"):
        x = x.get()
    elif hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        x = np.from_dlpack(x)
    return np.asarray(x)


def relative_error(x: Any, ref: Any) -> Array:
    """Relative error ``||x - ref||_F / ||ref||_F`` of every batch member.

    Parameters
    ----------
    x, ref : array, shape (..., m, n)
        Anything `to_numpy` takes.

    Returns
    -------
    array, shape (...)
        float64. NaN where `x` holds NaN; 0 for two zero matrices, infinity where only `ref` is 0.

    Examples
    --------
    >>> float(relative_error(np.eye(2) * 1.5, np.eye(2)))
    0.5
    """
    x, ref = to_numpy(x), to_numpy(ref)
    if x.shape != ref.shape:
        msg = f"shapes differ: {x.shape} and {ref.shape}"
        raise ValueError(msg)
    wide = np.result_type(x, ref, np.float64)
    x, ref = x.astype(wide), ref.astype(wide)
    # Without this scaling the squares leave the range of a double at 1e+-160.
    scale = np.max(np.abs(ref), axis=(-2, -1), keepdims=True, initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    error, size = _norm(x / scale - ref / scale), _norm(ref / scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((error == 0) & (size == 0), 0.0, error / size)


def assert_close(x: Any, ref: Any, rtol: float, *, label: str = "") -> None:
    """Raise AssertionError unless the `relative_error` of every batch member is at most `rtol`.

    The message begins with `label` and names the worst member.
    """
    error = relative_error(x, ref)
    good = error <= rtol
    if not np.all(good):
        # NaN counts as worse than any number.
        flat = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        worst = tuple(int(i) for i in np.unravel_index(flat, error.shape))
        msg = f"{label or 'array'}: relative error {error[worst]:.3e} exceeds {rtol:.3e}"
        if worst:
            msg += f" at member {worst}; {int(np.sum(~good))} of {error.size} members exceed it"
        raise AssertionError(msg)


# --- small helpers -------------------------------------------------------------------------------


def _ct(x: Array) -> Array:
    return np.conj(np.swapaxes(x, -1, -2))


def _norm(x: Array) -> Array:
    return np.asarray(np.sqrt(np.sum(np.abs(x) ** 2, axis=(-2, -1))))


def _spectral(v: Array, w: Array) -> Array:
    x = (v * w[..., None, :]) @ _ct(v)
    return np.asarray(0.5 * (x + _ct(x)))


def _log_range(low: float, n: int) -> Array:
    return np.geomspace(low, 1.0, n) if n > 1 else np.ones(n)


def _gaussian(shape: tuple[int, ...], dtype: np.dtype[Any], gen: np.random.Generator) -> Array:
    g = gen.standard_normal(shape)
    return g + 1j * gen.standard_normal(shape) if dtype.kind == "c" else g


def _haar(shape: tuple[int, ...], dtype: np.dtype[Any], gen: np.random.Generator) -> Array:
    q, r = np.linalg.qr(_gaussian(shape, dtype, gen))
    # Householder QR alone is not uniform: the phases of R's diagonal have to be moved into Q.
    d = np.diagonal(r, axis1=-2, axis2=-1)
    return np.asarray(q * (d / np.abs(d))[..., None, :])


def _outer(b: Array, dtype: np.dtype[Any]) -> Array:
    """B B^H rounded once, Hermitian bit by bit."""
    a = _by_embedding(b, lambda x: _matmul_dd(_exact(x), _exact(_ct(x)))[0])
    return np.asarray((0.5 * (a + _ct(a))).astype(dtype))
