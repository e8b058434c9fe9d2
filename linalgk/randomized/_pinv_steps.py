"""Pseudoinverses as products of two factors: singular vectors, orthogonal factors, sketches."""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor, _meta
from linalgk.randomized._matrix import Matrix, norm
from linalgk.sketch import Philox, SparseStack

# Columns from which LAPACK is called member by member, in its own precision and by blocks.
LARGE = 32
# Rows of the independent check, and the factor by which the root of their mean square may be
# below the norm: chi2_10 <= 1 has probability 1.7e-4.
CHECK, SAFE = 10, math.sqrt(10)
WEDIN = (1 + math.sqrt(5)) / 2
# Least columns of the first sketch where no rank is given.
FIRST = 32
NONFINITE = "it holds NaN or infinity"


class Found(NamedTuple):
    """``A^+`` of one matrix."""

    left: Any  # (n, k)
    right: Any  # (k, m)
    rank: int
    error: float  # relative, spectral norm
    approximation: float = 0.0  # ||A - A_r||_F / ||A_r||_F
    bound: float = 0.0  # ||A_r^+ - X||_2
    sketch_ranks: tuple[int, int] = (-1, -1)
    verified: bool = True  # nothing of A is left out but rounding
    broken: bool = False  # the rank conditions do not hold


def kept(s: Any, cut: float, rank: int | None) -> Any:
    """Which singular values (..., p), on the host and the largest first, are inverted."""
    keep = s > cut * s[..., :1]
    if rank is not None:
        keep[..., rank:] = False
    return keep


def sensitivity(s: Any, keep: Any, eps: float) -> Any:
    """``eps s_1 / s_r`` of each row of singular values."""
    least = np.where(keep, s, np.inf).min(axis=-1, initial=np.inf)
    return np.where(np.isfinite(least), eps * s[..., :1].sum(axis=-1) / least, 0.0)


def exact(flat: Any, method: str, cut: float, rank: int | None, eps: float) -> Any:
    """Factors left (b, n, p) and right (b, p, m), ranks and errors (NumPy); p >= every rank."""
    xp, count = _xp.namespace(flat), flat.shape[0]
    if isinstance(flat, np.ndarray) and (min(flat.shape[1:]) >= LARGE or method == "cod"):
        parts = [_one(flat[i], method, cut, rank, eps) for i in range(count)]
        widest = max(p.rank for p in parts)
        left = np.zeros((count, flat.shape[2], widest), flat.dtype)
        right = np.zeros((count, widest, flat.shape[1]), flat.dtype)
        for i, p in enumerate(parts):
            left[i, :, : p.rank], right[i, : p.rank] = p.left, p.right
        return left, right, np.array([p.rank for p in parts]), np.array([p.error for p in parts])
    if method == "hermitian":
        # halves first: the sum of two large entries may leave the range
        w, v = xp.linalg.eigh(0.5 * flat + 0.5 * adjoint(xp, flat))
        host = np.asarray(_xp.to_numpy(w), np.float64)
        s, order = abs(host), np.argsort(-abs(host), axis=-1, kind="stable")
        ranked = np.take_along_axis(s, order, -1)
        keep = np.zeros_like(s, bool)
        np.put_along_axis(keep, order, kept(ranked, cut, rank), -1)
        inverse = _inverse_of(xp, w, keep)
        left, right = v * xp.astype(inverse, v.dtype)[:, None, :], adjoint(xp, v)
        return left, right, keep.sum(-1), sensitivity(ranked, kept(ranked, cut, rank), eps)
    u, s, vh = xp.linalg.svd(flat, full_matrices=False)
    host = np.asarray(_xp.to_numpy(s), np.float64)
    keep = kept(host, cut, rank)
    inverse = xp.astype(_inverse_of(xp, s, keep), u.dtype)
    left, right = adjoint(xp, vh) * inverse[:, None, :], adjoint(xp, u)
    return left, right, keep.sum(-1), sensitivity(host, keep, eps)


def _inverse_of(xp: Any, s: Any, keep: Any) -> Any:
    keep = _xp.from_numpy(keep, xp, like=s)
    return xp.where(keep, 1 / xp.where(keep, s, xp.ones_like(s)), xp.zeros_like(s))


def _one(a: Any, method: str, cut: float, rank: int | None, eps: float) -> Found:
    if method == "cod":
        return _orthogonal(a, cut, rank, eps)
    if method == "hermitian":
        w, v = _factor.eigh(0.5 * a + 0.5 * a.conj().T)
        order = np.argsort(-abs(w), kind="stable")
        w = w[order]
        k = int(kept(abs(w), cut, rank).sum())
        v = v[:, order[:k]]
        error = eps * abs(w[0]) / abs(w[k - 1]) if k else 0.0
        return Found(v / w[:k], v.conj().T, k, float(error))
    u, s, vh = _factor.svd(a)
    k = int(kept(s, cut, rank).sum())
    error = eps * s[0] / s[k - 1] if k else 0.0
    return Found(vh[:k].conj().T / s[:k], u[:, :k].conj().T, k, float(error))


def _orthogonal(a: Any, cut: float, rank: int | None, eps: float) -> Found:
    """``A P = Q R`` with pivots, ``R^H = Z T``: ``A^+ = P Z T^-H Q^H``."""
    import scipy.linalg

    q, r, pivots = scipy.linalg.qr(a, mode="economic", pivoting=True, check_finite=False)
    size = abs(np.diag(r))
    k = int(np.count_nonzero(size > cut * size[0]))
    if not k:
        return Found(a.T[:, :0], a.T[:0], 0, 0.0)
    z, t = _factor.qr(r[:k].conj().T)
    right = q[:, :k].conj().T
    s = _factor.svdvals(t)
    if (rank is not None and rank < k) or not s[-1] > cut * s[0]:
        # T^H = Y S W^H, of which pivots show no best part
        y, s, wh = _factor.svd(t.conj().T)
        k = int(kept(s, cut, rank).sum())
        right, inner = y[:, :k].conj().T @ right, z @ (wh[:k].conj().T / s[:k])
    else:
        inner = _factor.solve(t, z.conj().T).conj().T
    left = np.empty((a.shape[1], k), a.dtype)
    left[pivots] = inner
    return Found(left, right, k, float(eps * s[0] / s[k - 1]))


# --- Sketches ------------------------------------------------------------------------------------


def sizes(rank: int, oversample: int) -> tuple[int, int]:
    """Columns of ``A Q`` and rows of ``P^T A`` (arXiv:2009.11392: half as many more)."""
    k = _whole(rank + oversample)
    return k, _whole(math.ceil(1.5 * k))


def _whole(k: int) -> int:
    return -(-max(k, 1) // 8) * 8


def fits(m: int, n: int, rank: int, oversample: int) -> bool:
    """Whether sketches for this rank are smaller than the matrix."""
    k, s = sizes(rank, oversample)
    return k < min(m, n) and s < max(m, n)


class _Sketched(NamedTuple):
    """``Y = A Q = q1 r1``, ``Z = P^T A`` and what checks them."""

    y: Any
    z: Any
    q1: Any
    r1: Any
    right: SparseStack  # Q^T
    left: SparseStack  # P^T
    theta: Any
    check: Any  # theta A
    ranks: tuple[int, int]


def _sketch(
    a: Matrix, rank: int, oversample: int, source: Philox, noise: float
) -> _Sketched | None:
    """None where it is not finite."""
    (m, n), xp = a.shape, a.xp
    k, s = sizes(rank, oversample)
    right = SparseStack(k, n, rng=source.spawn(1))
    left = SparseStack(s, m, rng=source.spawn(2))
    y, z = a.sketched_rows(right), a.sketched(left)
    if not bool(xp.all(xp.isfinite(y))) or not bool(xp.all(xp.isfinite(z))):
        return None
    if isinstance(y, np.ndarray):
        y, z = np.ascontiguousarray(y), np.ascontiguousarray(z)
    if a.kind == "operator":
        _consistent(left @ y, (right @ z.T).T)
    theta = xp.astype(a.normals(source.spawn(3), CHECK, m), y.dtype)
    check = adjoint(xp, a.rmatmat(adjoint(xp, theta)))
    q1, r1 = _factor.qr(y)
    ranks = tuple(_rank(x, noise) for x in (r1, _factor.triangle(adjoint(xp, z))))
    return _Sketched(y, z, q1, r1, right, left, theta, check, ranks)  # type: ignore[arg-type]


def _consistent(by_product: Any, by_adjoint: Any) -> None:
    """``P^T A Q`` by both products; only what no rounding explains is refused."""
    gap, size = norm(by_product - by_adjoint), max(norm(by_product), norm(by_adjoint))
    if gap > 1e-2 * size:
        msg = (
            "a: the adjoint is not that of the product: P^T (A Q) and (A^H P)^H Q differ by "
            f"{gap / size:.2g} of their size; correct rmatmat"
        )
        raise ValueError(msg)


def _rank(r: Any, noise: float) -> int:
    s = np.asarray(_xp.to_numpy(_factor.svdvals(r)))
    return int(np.count_nonzero(s > noise * s[0])) if len(s) else 0


def randomized(
    a: Matrix, rank: int | None, oversample: int, source: Philox, form: str, cut: float, *,
    probe: int | None = None,
) -> Found | str:  # fmt: skip
    """Of a matrix with m >= n; without a rank a sentence says why none is found.

    ``probe`` is the one size that is tried without a rank.
    """
    noise = max(*a.shape, 1) * a.eps
    size, more = (rank, oversample) if rank is not None else (probe or FIRST, 0)
    while fits(*a.shape, size, more):
        sketches = _sketch(a, size, more, source, noise)
        if sketches is None:
            return NONFINITE
        (k, s), ranks = sizes(size, more), sketches.ranks
        if rank is not None or (ranks[0] < k and ranks[1] < s):
            found = _finished(a, sketches, rank, form, cut, noise)
            if rank is not None or found.verified:
                return found
            return "a tail of small singular values is more than rounding"
        if probe:
            break
        size *= 2
    if rank is not None:
        return f"a sketch for rank {rank} is not smaller than the matrix"
    return f"the numerical rank is not below {size // (1 if probe else 2)}"


def _finished(
    a: Matrix, x: _Sketched, rank: int | None, form: str, cut: float, noise: float
) -> Found:
    xp = a.xp
    checked = x.theta @ x.q1
    if form == "strang":
        left, right, s, b = _strang(a, x, rank, noise)
        scale, rest = norm(b), norm(x.check - checked @ b) / math.sqrt(CHECK)
    else:
        # q1^H A without a pass: the least squares solution of (P^T q1) B = P^T A
        q, t = _factor.qr(x.left @ x.q1)
        b = _factor.solve(t, adjoint(xp, q) @ x.z)
        scale, rest = norm(b), norm(x.check - checked @ b) / math.sqrt(CHECK)
        if rest > noise * scale:
            # what the sketches left out spoils B by a factor that the pass over A does not have
            b = adjoint(xp, a.rmatmat(x.q1))
            scale, rest = norm(b), norm(x.check - checked @ b) / math.sqrt(CHECK)
        left, right, s = _stable(x, b)
    if not scale > 0 and not rest > 0:
        return Found(adjoint(xp, b)[:, :0], adjoint(xp, x.q1)[:0, :], 0, 0.0, sketch_ranks=x.ranks)
    keep = kept(s, cut, rank)
    k = int(keep.sum())
    left, right = left[:, :k], right[:k, :]
    dropped = float(np.sqrt(((s[k:] / scale) ** 2).sum()))
    verified = rest <= noise * scale
    wanted = min(x.ranks) if rank is None else rank
    broken = not verified and min(x.ranks) < wanted
    relative = wedin(s, k, SAFE * rest)
    error = relative + a.eps * float(s[0] / s[k - 1]) if k else math.inf
    approximation = math.hypot(rest / scale, dropped)
    bound = relative / float(s[k - 1]) if k else math.inf
    return Found(left, right, k, error, approximation, bound, x.ranks, bool(verified), bool(broken))


def wedin(s: Any, k: int, rest: float) -> float:
    """``||X - [A]_k^+||_2 / ||X||_2`` at most, X = [B]_k^+ with singular values s of B.

    Wedin: ``||X - C^+|| <= (1 + 5^(1/2)) / 2 ||X|| ||C^+|| ||[B]_k - C||`` for ``C = [A]_k`` of the
    same rank. With ``rest >= ||A - B||`` and the gap ``d = s_k - s_(k+1) - rest``, the angles
    between the leading singular subspaces have sines of at most ``rest / d``, so that
    ``||[B]_k - [A]_k|| <= 2 rest (1 + (s_(k+1) + rest) / d)``.
    """
    if not k:
        return math.inf
    following = float(s[k]) if k < len(s) else 0.0
    gap = float(s[k - 1]) - following - rest
    if not gap > 0:
        return math.inf
    distance = 2 * rest * (1 + (following + rest) / gap)
    return WEDIN * distance / (float(s[k - 1]) - rest)


def _stable(x: _Sketched, b: Any) -> Any:
    """``V S^-1``, ``U^H`` and S of ``q1 B``, by ``B^H = Q_2 T`` and the values of T^H."""
    xp = _xp.namespace(b)
    q2, t = _factor.qr(adjoint(xp, b))
    u, s, vh = _factor.svd(adjoint(xp, t))
    safe = xp.where(s > 0, s, xp.ones_like(s))
    left = (q2 @ adjoint(xp, vh)) / safe[None, :]
    return left, adjoint(xp, x.q1 @ u), np.asarray(_xp.to_numpy(s), np.float64)


def _strang(a: Matrix, x: _Sketched, rank: int | None, noise: float) -> Any:
    """``(P^T A)^+ P^T A Q (A Q)^+`` by the thin factors, S, and B with ``q1 B`` its pseudoinverse.

    ``A Q = Q_1 R_1``, ``(P^T A)^H = Q_2 R_2``: ``Q_2 M Q_1^H`` with ``M = R_2^-H W R_1^-1``, whose
    singular values are the inverses of those of A. Both inverses are of the rank that is wanted:
    beside the large values of what is more, the small ones of M would be lost.
    """
    xp = a.xp
    k = min(x.ranks) if rank is None else min(rank, *x.ranks)
    q2, r2 = _factor.qr(adjoint(xp, x.z))
    second, first = (_factor.pseudoinverse(r, noise) for r in (x.r1, r2))
    block = (x.right @ x.z.T).T  # W = P^T A Q
    outer, inner = adjoint(xp, first.right[:k, :]), second.right[:k, :]
    middle = (adjoint(xp, first.left[:, :k]) @ block) @ second.left[:, :k]
    u, s, vh = _factor.svd(middle)
    host = np.asarray(_xp.to_numpy(s), np.float64)
    inverse = 1 / np.where(host > 0, host, np.inf)[::-1]
    # B = U_1 S_1 (V_2^H W V_1)^-1 S_2 U_2^H, whose error is not multiplied by the condition of M
    s2, s1 = (_xp.from_numpy(p.s[:k], xp, like=middle, dtype=middle.dtype) for p in (first, second))
    basis = q2 @ outer
    b, rest = _meta.generalized_nystrom(
        adjoint(xp, inner) * s1[None, :], s2[:, None] * middle * s1[None, :],
        s2[:, None] * adjoint(xp, basis), 0.0,
    )  # fmt: skip
    b = b @ rest
    # the largest singular values of A first
    u, s, vh = basis @ xp.flip(u, axis=1), xp.flip(s, axis=0), xp.flip(vh, axis=0) @ inner
    return u * xp.astype(s, u.dtype)[None, :], vh @ adjoint(xp, x.q1), inverse, b
