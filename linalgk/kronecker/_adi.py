"""Sylvester equations with right-hand sides of low rank: factored alternating directions."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.errors import NotConvergedError, SingularMatrixError
from linalgk.kronecker._factored import Factored
from linalgk.kronecker._kronsum_steps import identity

# Complementary modulus below which dn is its first terms, and above which it is SciPy's.
_FLAT = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankSolution:
    """``X = Z diag(D) W^H`` with ``A X + X B^T = U V^H``; unpacks as ``Z, D, W``.

    Attributes
    ----------
    Z : array, shape (m, r)
        Orthonormal columns.
    D : array, shape (r,)
        Singular values of X, descending.
    W : array, shape (n, r)
        Orthonormal columns.
    iterations : int
        Pairs of shifts, known before the iteration starts.
    bound : float
        Of the relative error ``||X - Z diag(D) W^H||_F / ||X||_F``: what the shifts leave on the
        spectra, what was cut off, and rounding; or what the residual proves, if that is less.
        Infinite where a factor is not Hermitian.
    residual : float
        ``||A X + X B^T - U V^H|| / ((||A|| + ||B||) ||X|| + ||U V^H||)``, Frobenius norms, from the
        factors.
    """

    Z: Any
    D: Any
    W: Any
    iterations: int
    bound: float
    residual: float

    def __iter__(self) -> Iterator[Any]:
        """``Z, D, W``."""
        return iter((self.Z, self.D, self.W))

    @property
    def rank(self) -> int:
        """Columns of Z and W."""
        return int(self.Z.shape[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """Of X."""
        return int(self.Z.shape[0]), int(self.W.shape[0])

    def toarray(self) -> Any:
        """X, shape (m, n)."""
        xp = _xp._compat("array_api_compat").array_namespace(self.Z)
        scaled = self.Z * xp.astype(self.D, self.Z.dtype)[None, :]
        return scaled @ adjoint(xp, self.W)

    def __repr__(self) -> str:
        return (
            f"LowRankSolution(shape={self.shape}, rank={self.rank}, "
            f"iterations={self.iterations}, bound={self.bound:.1e})"
        )


class Shifts(NamedTuple):
    """Zeros of a rational function that is small on one interval and large on the other."""

    zeros: Any  # in the spectrum of A, NumPy (J,)
    poles: Any  # in the spectrum of -B


# --- Shifts --------------------------------------------------------------------------------------


def cross_ratio(e: tuple[float, float], f: tuple[float, float]) -> float:
    """``|c - a| |d - b| / (|c - b| |d - a|) - 1`` of two disjoint intervals [a, b] and [c, d]."""
    (a, b), (c, d) = e, f
    if b > c:
        (a, b), (c, d) = (-b, -a), (-d, -c)
    return (b - a) / (c - b) * ((d - c) / (d - a))


def count(e: tuple[float, float], f: tuple[float, float], tol: float) -> int:
    """Pairs of shifts after which the relative error is at most tol.

    ``J = ceil(log(16 gamma) log(4 / tol) / pi^2)`` (Beckermann and Townsend, 2019).
    """
    if e[0] == e[1] or f[0] == f[1]:
        return 1
    gamma = 1.0 + cross_ratio(e, f)
    return max(1, math.ceil(math.log(16.0 * gamma) * math.log(4.0 / tol) / math.pi**2))


def zolotarev(e: tuple[float, float], f: tuple[float, float], pairs: int) -> Shifts:
    """Solution of Zolotarev's third problem: zeros in the interval e, poles in f (disjoint).

    That of ``[-alpha, -1]`` and ``[1, alpha]``, ``alpha dn((2 j - 1) K / 2 J)``, taken to e and f
    by the Möbius map that takes ends to ends (Fortunato and Townsend, 2020).
    """
    (a, b), (c, d) = e, f
    if b > c:
        found = zolotarev((-b, -a), (-d, -c), pairs)
        return Shifts(-found.zeros, -found.poles)
    ratio = cross_ratio(e, f)
    # alpha - 1, without cancellation
    beyond = 2.0 * ratio + 2.0 * math.sqrt(ratio * (1.0 + ratio))
    if beyond < 1e-12:
        # a point, or two that are far apart
        return Shifts(np.full(pairs, 0.5 * (a + b)), np.full(pairs, 0.5 * (c + d)))
    alpha = 1.0 + beyond
    j = np.arange(1, pairs + 1)
    t = alpha * dn((2 * j - 1) / (2 * pairs), 1.0 / alpha)
    t = np.clip(t, 1.0, alpha)
    s = (t - 1.0) * (1.0 + alpha) / (2.0 * np.maximum(alpha - t, np.finfo(float).tiny * alpha))
    # means of the ends with positive weights: nothing cancels
    with np.errstate(over="ignore"):
        weight = s * (c - b)
        zeros = b + (a - b) * (weight / (c - a + weight))
        poles = c + (d - c) * (weight / (d - b + weight))
    return Shifts(zeros, poles)


def dn(fractions: Any, complement: float) -> Any:
    """Jacobi's ``dn(x K, k)`` for x in (0, 1), from ``k' = (1 - k^2)^(1/2)``.

    ``dn(K - u) = k' / dn(u)`` leaves arguments up to K/2, where a small k' does no harm.
    """
    from scipy.special import ellipj, ellipkm1

    x = np.asarray(fractions, np.float64)
    late = x > 0.5
    u = np.where(late, 1.0 - x, x) * ellipkm1(complement**2)
    if complement < _FLAT:
        sech = 1.0 / np.cosh(u)
        y = sech + 0.25 * complement**2 * (np.sinh(u) * np.cosh(u) + u) * np.tanh(u) * sech
    else:
        y = ellipj(u, 1.0 - complement**2)[2]
    return np.where(late, complement / y, y)


# --- The equation --------------------------------------------------------------------------------


def check_intervals(intervals: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two pairs of numbers in order."""
    try:
        pairs = [(float(low), float(high)) for low, high in intervals]
    except (TypeError, ValueError):
        pairs = []
    if len(pairs) != 2 or not all(math.isfinite(x) for pair in pairs for x in pair):
        msg = f"intervals: must be two pairs of finite numbers, got {intervals!r}"
        raise ValueError(msg)
    for i, (low, high) in enumerate(pairs):
        if low > high:
            msg = f"intervals[{i}]: the lower end {low!r} is above the upper end {high!r}"
            raise ValueError(msg)
    return pairs[0], pairs[1]


def solve(f: Factored, u: Any, v: Any, tol: float, intervals: Any) -> tuple[LowRankSolution, bool]:
    """``A X + X B^T = U V^H``, and whether the residual is as small as it should be."""
    hermitian = all(f.looked.hermitian)
    spectra = None
    if hermitian:
        values = [np.asarray(_xp.to_numpy(w), np.float64) for w in f.spectral.values]
        spectra = values[0], -values[1]
        if intervals is None:
            intervals = tuple((float(w[0]), float(w[-1])) for w in values)
    assert intervals is not None
    (a, b), (c, d) = intervals
    _check_separated(intervals)
    e, g = (a, b), (-d, -c)
    pairs = count(e, g, 0.5 * tol)
    shifts = zolotarev(e, g, pairs)
    if hermitian:
        z, size, w = _in_coordinates(f, u, v, shifts)
    else:
        z, size, w = _by_systems(f, u, v, shifts)
    z, size, w, cut = compressed(z, size, w, 0.5 * tol)
    if hermitian:
        z = f.spectral.vectors[0] @ z
        w = _conj(f.spectral.vectors[1]) @ w
    rest, scale, norms = residual(f, z, size, w, u, v)
    bound = math.inf
    if spectra is not None:
        gap = float(np.abs(spectra[0][:, None] - spectra[1][[0, -1]]).min())
        left = leftover(spectra, shifts)
        condition = sum(float(np.abs(s).max()) for s in spectra) / gap
        bound = left + (1.0 + left) * cut + 8.0 * f.eps * condition
        if norms > 0.0:
            proven = rest / (gap * norms)
            bound = min(bound, proven / max(1.0 - proven, 0.5) if proven < 0.5 else bound)
        else:
            bound = 0.0
    ratio = rest / scale if scale > 0.0 else 0.0
    found = LowRankSolution(z, size, w, pairs, bound, ratio)
    return found, ratio <= max(tol, 64.0 * f.eps)


def _check_separated(intervals: Any) -> None:
    (a, b), (c, d) = intervals
    if a + c > 0.0 or b + d < 0.0:
        return
    msg = (
        "KronSum.solve_lowrank: sums of eigenvalues must all be positive or all be negative, got "
        f"the spectrum of the first factor in [{a:.4g}, {b:.4g}] and of the second in [{c:.4g}, "
        f"{d:.4g}]; solutions need not be of low rank then: use solve"
    )
    raise SingularMatrixError(msg)


def leftover(spectra: tuple[Any, Any], shifts: Shifts) -> float:
    """``max |r| on the first spectrum / min |r| on the second``, r with these zeros and poles."""

    def logs(x: Any) -> Any:
        with np.errstate(divide="ignore"):
            up = np.log(np.abs(x[:, None] - shifts.zeros)).sum(axis=1)
            return up - np.log(np.abs(x[:, None] - shifts.poles)).sum(axis=1)

    if 0 in (len(spectra[0]), len(spectra[1])):
        return 0.0
    exponent = logs(spectra[0]).max() - logs(spectra[1]).min()
    return float(np.exp(min(exponent, 700.0)))


def _in_coordinates(f: Factored, u: Any, v: Any, shifts: Shifts) -> tuple[Any, Any, Any]:
    """All steps in the eigenvectors, where systems are divisions."""
    xp = f.xp
    # B^T has the conjugate eigenvectors of B
    z = adjoint(xp, f.spectral.vectors[0]) @ u
    w = xp.matrix_transpose(f.spectral.vectors[1]) @ v
    x, y = f.spectral.values[0], -f.spectral.values[1]
    left, right = [], []
    for j, (zero, pole) in enumerate(zip(*_floats(shifts), strict=True)):
        before = (shifts.zeros[j - 1], shifts.poles[j - 1]) if j else (None, None)
        z, w = _divided(z, x, before[0], pole), _divided(w, y, before[1], zero)
        left.append(z)
        right.append(w)
    return _joined(xp, left, right, shifts)


def _divided(z: Any, x: Any, up: Any, down: float) -> Any:
    """Rows of z times ``(x - up) / (x - down)``, or ``1 / (x - down)`` at first."""
    xp = _xp.namespace(z)
    factor = 1.0 / (x - down) if up is None else (x - float(up)) / (x - down)
    return z * xp.astype(factor, z.dtype, copy=False)[:, None]


def _by_systems(f: Factored, u: Any, v: Any, shifts: Shifts) -> tuple[Any, Any, Any]:
    """The iteration of Benner, Li and Truhar (2009) for ``A X - X C = U V^H``, ``C = -B^T``."""
    xp, (a, b) = f.xp, f.looked.arrays
    c = -_conj(b)  # C^H
    one, other = identity(int(a.shape[0]), a), identity(int(b.shape[0]), b)
    left, right, z, w = [], [], u, v
    for j, (zero, pole) in enumerate(zip(*_floats(shifts), strict=True)):
        y, x = (
            xp.linalg.solve(a - pole * one, z),
            xp.linalg.solve(c - zero * other, w),
        )
        z = z + (pole - float(shifts.zeros[j - 1])) * y if j else y
        w = w + (zero - float(shifts.poles[j - 1])) * x if j else x
        left.append(z)
        right.append(w)
    return _joined(xp, left, right, shifts)


def _floats(shifts: Shifts) -> tuple[list[float], list[float]]:
    return [float(x) for x in shifts.zeros], [float(x) for x in shifts.poles]


def _joined(xp: Any, left: list[Any], right: list[Any], shifts: Shifts) -> tuple[Any, Any, Any]:
    """All blocks side by side, and the weights of the columns."""
    ranks = [int(z.shape[1]) for z in left]
    weights = np.repeat(shifts.poles - shifts.zeros, ranks)
    z, w = xp.concat(left, axis=1), xp.concat(right, axis=1)
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(z)])
    return z, _xp.from_numpy(weights, xp, like=z, dtype=real), w


def compressed(z: Any, size: Any, w: Any, tol: float) -> tuple[Any, Any, Any, float]:
    """``Z diag(size) W^H`` as a singular value decomposition, and the relative error of the cut."""
    xp = _xp.namespace(z)
    if 0 in (*z.shape, *w.shape):
        return z[:, :0], size[:0], w[:, :0], 0.0
    qz, rz = xp.linalg.qr(z, mode="reduced")
    qw, rw = xp.linalg.qr(w, mode="reduced")
    core = (rz * xp.astype(size, rz.dtype)[None, :]) @ adjoint(xp, rw)
    left, s, right = xp.linalg.svd(core, full_matrices=False)
    host = np.asarray(_xp.to_numpy(s), np.float64)
    tails = np.sqrt(np.append(np.cumsum(host[::-1] ** 2)[::-1], 0.0))
    rank = int(np.argmax(tails <= tol * tails[0]))
    cut = float(tails[rank] / tails[0]) if tails[0] > 0.0 else 0.0
    return qz @ left[:, :rank], s[:rank], qw @ adjoint(xp, right)[:, :rank], cut


def residual(f: Factored, z: Any, size: Any, w: Any, u: Any, v: Any) -> tuple[float, float, float]:
    """Norm of ``A X + X B^T - U V^H``, what it is relative to, and the norm of X.

    ``[A Z D, Z D, -U] [W, conj(B) W, V]^H`` by the triangular factors of both, so that what cancels
    does so in small matrices.
    """
    xp, (a, b) = f.xp, f.looked.arrays
    zd = z * xp.astype(size, z.dtype)[None, :]
    left = xp.concat([a @ zd, zd, -u], axis=1)
    right = xp.concat([w, _conj(b) @ w, v], axis=1)
    rest = _product_norm(left, right)
    norm = float(xp.linalg.vector_norm(size))
    sizes = sum(float(xp.linalg.matrix_norm(m)) for m in (a, b))
    return rest, sizes * norm + _product_norm(u, v), norm


def _product_norm(left: Any, right: Any) -> float:
    """Frobenius norm of ``L R^H``."""
    xp = _xp.namespace(left)
    if 0 in (*left.shape, *right.shape):
        return 0.0
    r, s = (xp.linalg.qr(x, mode="reduced")[1] for x in (left, right))
    return float(xp.linalg.matrix_norm(r @ adjoint(xp, s)))


def _conj(x: Any) -> Any:
    return _xp.namespace(x).conj(x) if _xp.dtype_name(x) in _xp.COMPLEX else x


def failed(found: LowRankSolution) -> NotConvergedError:
    """The error of a solution with a large residual."""
    msg = (
        f"KronSum.solve_lowrank: the residual is {found.residual:.1e} after {found.iterations} "
        "steps; give intervals= that hold the spectra of both factors, or use solve"
    )
    return NotConvergedError(msg, ((),), found)
