"""The algorithms of ``A X + X A^H = Q`` and ``A X + X B = Q``, at a scale near one.

Numbers per member stay in the library of the arrays, so that a device is not waited for. A pair of
coefficients that all members share is decomposed once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _lag, _xp
from linalgk.matfun import _ops, _static
from linalgk.matfun._minimax import schedule
from linalgk.matfun._spectral import (
    ASYMMETRIC,
    FAILED,
    INDEFINITE,
    NONFINITE,
    OK,
    SINGULAR,
    as_factor,
    blank,
    blas_for,
    take,
)

HERMITIAN = ("eigh", "minimax")
# Of Newton's iteration; without any help of scaling 2^52 in size takes so many halvings.
_MOST_STEPS = 60
# Triangular equations are split down to this order, where LAPACK's loops are as fast as products.
_BLOCK = 64
# LAPACK's eigenvalues are right to a modest multiple of eps ||A||, for small orders too.
_FEW = 16


class Options(NamedTuple):
    assume_a: Any = None
    method: Any = "auto"
    check_finite: Any = None
    on_fail: Any = None
    return_info: bool = False


class Equation(NamedTuple):
    """Flat batches: ``a`` (p, m, m) with p = 1 where all share it, ``q`` (count, m, n)."""

    a: Any
    b: Any  # (p, n, n), None for A^H
    q: Any
    threads: int
    definite: bool = False  # whether negative eigenvalues are errors

    @property
    def pairs(self) -> list[Any]:
        return [self.a] if self.b is None else [self.a, self.b]

    @property
    def large(self) -> Any:
        """What decides who has the threads."""
        return max(self.pairs, key=lambda x: int(x.shape[-1]))

    @property
    def right(self) -> Any:
        return _ops.adjoint(self.a) if self.b is None else self.b

    @property
    def eps(self) -> float:
        return float(np.finfo(_xp.REAL[_xp.dtype_name(self.q)]).eps)


class Solved(NamedTuple):
    """Solutions of a flat batch; numbers per member are where x is."""

    x: Any
    status: Any
    steps: Any
    gap: Any  # smallest |w_i + u_j|, NaN if unknown
    method: str
    size: Any = None  # norm of the residual, and what it is relative to
    scale: Any = None
    norm: Any = None


def choose_method(*, hermitian: bool, schur: bool) -> tuple[str, str]:
    """Method, and why; ``schur``: whether LAPACK is at hand (NumPy).

    Cost model: eigenvectors and four products take about 18 n^3 flops at a good part of peak; a
    Schur form 25 n^3 at a small one and no library but LAPACK has it; Newton's iteration 50 n^3 of
    products and inverses, and it asks for eigenvalues on one side of the imaginary axis.
    """
    if hermitian:
        return "eigh", "Hermitian"
    return ("schur", "not Hermitian") if schur else ("sign", "not Hermitian, and no LAPACK at hand")


def compute(equation: Equation, options: Options) -> Solved:
    """Scale, look for structure where it is not told, solve, and scale back."""
    xp, q = _xp.namespace(equation.q), equation.q
    count = q.shape[0]
    if 0 in q.shape:
        unknown = xp.zeros((count,), dtype=real_of(q))
        zeros = xp.zeros((count,), dtype=_xp.dtype_of(xp, "int64"))
        return Solved(q, zeros, zeros, unknown, "none", unknown, unknown, unknown)
    tol = equation.eps**0.5
    if options.assume_a is None:
        tol = equation.eps * max(q.shape[-2:])
    with blas_for(equation.large), np.errstate(all="ignore"):
        scans = [_ops.HERMITIAN_SCAN(x, equation.threads) for x in equation.pairs]
        top, symmetric = scans[0][0], None
        for largest, defect, _ in scans:
            top = xp.where(largest > top, largest, top) + 0 * largest  # NaN of either stays
            good = defect <= tol * largest
            symmetric = good if symmetric is None else symmetric & good
        whole = xp.isfinite(top)
        defect = None
        if equation.b is None:
            largest, defect, _ = _ops.HERMITIAN_SCAN(q, equation.threads)
        else:
            largest = xp.max(xp.abs(q), axis=(-2, -1))
        finite = xp.isfinite(largest)
        exponent, shift = _exponents(top, whole), _exponents(largest, finite)
        scaled = [
            _ops.scaled(_ops._where(whole, x, _ops.eye_like(x)), -exponent) for x in equation.pairs
        ]
        near = equation._replace(
            a=scaled[0], b=scaled[1] if len(scaled) > 1 else None,
            q=_ops.scaled(_ops._where(finite, q, xp.zeros_like(q)), -shift),
        )  # fmt: skip
        found = _routed(near, symmetric, whole, options)
        x = found.x
        if defect is not None:
            x = _ops._where(defect == 0, 0.5 * (x + _ops.adjoint(x)), x)
        size = scale = norm = xp.full_like(largest, float("nan"))
        status = found.status
        iterative = "sign" in found.method or "minimax" in found.method
        if options.return_info or iterative:
            size, scale, norm = _residual(near, x)
        if iterative:
            # direct methods are stable, an iteration may have gone astray
            status = _marked(status, ~(size <= equation.eps**0.5 * scale), FAILED)
        bad = ~(whole & finite)
        status = xp.where(bad, xp.full_like(status, NONFINITE), status)
        x = _ops.scaled(x, shift - exponent)
        within = xp.all(xp.isfinite(xp.abs(x)), axis=(-2, -1))
        status = _marked(status, ~within, FAILED)
        x = blank(x, status != OK)
    return found._replace(x=x, status=status, size=size, scale=scale, norm=norm)


def _routed(near: Equation, symmetric: Any, whole: Any, options: Options) -> Solved:
    """Each member to its method; only "auto" without ``assume_a`` has to look at the members."""
    xp, schur = _xp.namespace(near.q), isinstance(near.q, np.ndarray)
    method, kind = options.method, options.assume_a
    if method != "auto" or kind is not None:
        if method == "auto":
            method, _ = choose_method(hermitian=kind != "gen", schur=schur)
        found = _SOLVERS[method](near._replace(definite=kind == "pos"))
        if method not in HERMITIAN:
            return found
        lacking = xp.full_like(found.status, ASYMMETRIC)
        return found._replace(status=xp.where(symmetric, found.status, lacking))
    mask = np.asarray(_xp.to_numpy(symmetric))
    others = np.asarray(_xp.to_numpy(whole)) & ~mask
    if not others.any() or not mask.any():
        told = options._replace(assume_a="gen" if others.any() else "her")
        # bad members are the identity by now
        return _routed(near, symmetric | ~whole, whole, told)
    index = [np.flatnonzero(mask), np.flatnonzero(~mask)]
    parts = []
    for some, word in zip(index, ("her", "gen"), strict=True):
        a, b, q = (None if x is None else take(x, some) for x in near[:3])
        told = options._replace(assume_a=word)
        part = near._replace(a=a, b=b, q=q)
        parts.append(_routed(part, take(symmetric, some), take(whole, some), told))
    back = np.argsort(np.concatenate(index))
    fields = zip(*(part[:4] for part in parts), strict=True)
    x, status, steps, gap = (take(xp.concat(list(field)), back) for field in fields)
    return Solved(x, status, steps, gap, "+".join(part.method for part in parts))


def _by_eigenvectors(near: Equation) -> Solved:
    """``X = V [(V^H Q W)_ij / (w_i + u_j)] W^H``."""
    xp, q = _xp.namespace(near.q), near.q
    spectra = [_ops.EIGH(0.5 * (x + _ops.adjoint(x)), near.threads) for x in near.pairs]
    (w, v), (u, z) = spectra[0], spectra[-1]
    total = w[:, :, None] + u[:, None, :]
    low = xp.where(w[:, 0] < u[:, 0], w[:, 0], u[:, 0])
    tops = [xp.max(xp.abs(x), axis=-1) for x in (w, u)]
    top = tops[0] + tops[1]
    # eigenvalues that cancel leave their own errors, others are right to a few roundings
    noise = near.eps * xp.where(
        (w < 0)[:, :, None] != (u < 0)[:, None, :],
        xp.full_like(total, float(max(*q.shape[-2:], _FEW))), xp.ones_like(total),
    )  # fmt: skip
    lost = ~(xp.abs(total) > noise * top[:, None, None])
    factor = xp.astype(1 / xp.where(lost, xp.ones_like(total), total), q.dtype)
    middle = _times(_times(_ops.adjoint(v), q, near.threads), z, near.threads)
    x = _times(_times(v, middle * factor, near.threads), _ops.adjoint(z), near.threads)
    status = _marked(_fresh(top), ~xp.isfinite(top), FAILED)
    if near.definite:
        status = _marked(status, low < -max(q.shape[-2:]) * near.eps * top, INDEFINITE)
    status = _marked(status, xp.any(lost, axis=(-2, -1)), SINGULAR)
    gap = xp.min(xp.abs(total), axis=(-2, -1))
    return _spread(Solved(x, status, _fresh(top), gap, "eigh"), q.shape[0])


def _by_sign(near: Equation) -> Solved:
    """Newton's iteration for the sign of ``[[A, Q], [0, -B]]``, blocks apart.

    ``A <- (mu A + (mu A)^-1)/2``, B likewise, ``C <- (mu C + A^-1 C B^-1 / mu)/2``; ``X = C/2``.
    """
    xp, (m, n) = _xp.namespace(near.q), near.q.shape[-2:]
    near = _turned(near)
    pairs, c, eps = near.pairs, near.q, near.eps
    first = _ops.norms(near.a)
    far = xp.full_like(first, float("inf"))
    distance, going, steps = far, far == far, _fresh(first)
    finished = _lag.Lag(c)
    for _ in range(_MOST_STEPS):
        found = [_ops.INVERSE(x, near.threads) for x in pairs]
        logdet = xp.astype(sum(f[1] for f in found), first.dtype)
        mu = xp.exp(-logdet / (m if near.b is None else m + n))
        # near the identity scaling only disturbs
        mu = xp.where(distance < 1e-2, xp.ones_like(mu), mu)
        factor = as_factor(mu, c)
        new = [0.5 * (factor * x + f[0] / factor) for x, f in zip(pairs, found, strict=True)]
        right = _ops.adjoint(found[0][0]) if near.b is None else found[1][0]
        image = _times(_times(found[0][0], c, near.threads), right, near.threads)
        gaps = [_ops.norms(x - _ops.eye_like(x)) for x in new]
        change = sum(_ops.norms(x - y) for x, y in zip(new, pairs, strict=True))
        taken = going & xp.isfinite(change)
        # members that are done stay as they are, whatever batch they travel in
        c = _ops._where(taken, 0.5 * (factor * c + image / factor), c)
        pairs = [_ops._where(taken, x, y) for x, y in zip(new, pairs, strict=True)]
        steps = steps + xp.astype(taken, steps.dtype)
        # quadratic convergence: a step from here is the last; another sign stands still
        still = change <= 10 * max(m, n) * eps * sum(_ops.norms(x) for x in new)
        going = taken & ~(distance <= eps**0.5) & ~still
        distance = xp.where(taken, sum(gaps), distance)
        if finished(~xp.any(going)):
            break
    status = _marked(_fresh(first), ~(distance <= 10 * max(m, n) * eps), FAILED)
    return _spread(Solved(0.5 * c, status, steps, far * float("nan"), "sign"), c.shape[0])


def _by_products(near: Equation) -> Solved:
    """As by sign, with minimax polynomials ``p(M) = M (alpha I + beta M^2 + gamma M^4)``.

    The upper right block of ``M^2`` is ``E = A C - C B`` and of ``M^4`` ``F = A^2 E + E B^2``, so
    that ``C <- A (beta E + gamma F) + C p(B) B^-1``.
    """
    xp, shape = _xp.namespace(near.q), near.q.shape[-2:]
    near = _turned(near)
    real, eps, threads = _xp.REAL[_xp.dtype_name(near.q)], near.eps, near.threads
    bound: Any = None
    for x in near.pairs:
        rows = xp.max(xp.sum(xp.abs(x), axis=-1), axis=-1)
        frobenius = _ops.norms(x)
        own = xp.where(rows < frobenius, rows, frobenius)
        bound = own if bound is None else xp.where(own > bound, own, bound)
    # a little more, because it is rounded
    bound = xp.where(bound > 0, bound * (1 + 2.0**-9), xp.ones_like(bound))
    factor = as_factor(bound, near.q)
    pairs = [0.5 * (x + _ops.adjoint(x)) / factor for x in near.pairs]
    c = near.q / factor
    coeffs = schedule(_static.LOWER[real], eps / 2).tolist()
    for alpha, beta, gamma in coeffs:
        a, b = pairs[0], pairs[-1]
        squares = [_times(x, x, threads) for x in pairs]
        squares = [0.5 * (x + _ops.adjoint(x)) for x in squares]
        terms = [
            alpha * _ops.eye_like(x) + beta * x + gamma * _times(x, x, threads) for x in squares
        ]
        e = _times(a, c, threads) - _times(c, b, threads)
        f = _times(squares[0], e, threads) + _times(e, squares[-1], threads)
        c = _times(a, beta * e + gamma * f, threads) + _times(c, terms[-1], threads)
        pairs = [_times(x, t, threads) for x, t in zip(pairs, terms, strict=True)]
        pairs = [0.5 * (x + _ops.adjoint(x)) for x in pairs]
    distance = sum(_ops.norms(x - _ops.eye_like(x)) for x in pairs)
    status = _marked(_fresh(bound), ~(distance <= 10 * max(shape) * eps), FAILED)
    steps = _fresh(bound) + len(coeffs)
    found = Solved(0.5 * c, status, steps, bound * float("nan"), "minimax")
    return _spread(found, near.q.shape[0])


def _by_schur(near: Equation) -> Solved:
    """Triangular factors by LAPACK (Bartels and Stewart, 1972)."""
    x, status = np.empty_like(near.q), np.full(len(near.q), OK)
    shared = len(near.a) == 1
    for k in range(len(near.a)):
        members = range(len(near.q)) if shared else (k,)
        try:
            r, left = _schur(near.a[k])
            s, right = (r, left) if near.b is None else _schur(near.b[k])
        except np.linalg.LinAlgError:
            status[list(members)], x[list(members)] = FAILED, np.nan
            continue
        w = _eigenvalues(r)
        u = w.conj() if near.b is None else _eigenvalues(s)
        top = np.abs(w).max() + np.abs(u).max()
        opposite = (w.real < 0)[:, None] != (u.real < 0)
        noise = np.where(opposite, max(len(w), len(u), _FEW), 1) * near.eps * top
        lost = bool((np.abs(w[:, None] + u) <= noise).any())
        for j in members:
            f = left.conj().T @ near.q[j] @ right
            y, close = _triangular(r, s, f, near.b is None)
            status[j] = SINGULAR if lost or close else OK
            x[j] = left @ y @ right.conj().T
    unknown = np.full(len(x), np.nan, _xp.REAL[x.dtype.name])
    return Solved(x, status, np.zeros(len(x), int), unknown, "schur")


def _schur(a: Any) -> Any:
    from scipy.linalg import schur

    return schur(a, output="complex" if np.iscomplexobj(a) else "real", check_finite=False)


def _eigenvalues(t: Any) -> Any:
    """Of a real or complex Schur factor, whose 2 x 2 blocks have equal diagonals."""
    w = np.diagonal(t).astype(np.result_type(t, np.complex64))
    if np.iscomplexobj(t):
        return w
    below, above = np.abs(np.diagonal(t, -1)), np.abs(np.diagonal(t, 1))
    part = np.sqrt(below) * np.sqrt(np.where(below > 0, above, 0))
    w[:-1] += 1j * part
    w[1:] -= 1j * part
    return w


def _triangular(r: Any, s: Any, f: Any, adjoint: bool) -> tuple[Any, bool]:
    """Y with ``R Y + Y S = F`` (S^H if ``adjoint``), and whether LAPACK had to perturb it."""
    from scipy.linalg.lapack import get_lapack_funcs

    if r.shape[0] >= s.shape[0] and r.shape[0] > _BLOCK:
        k = _cut(r)
        low, one = _triangular(r[k:, k:], s, f[k:], adjoint)
        high, two = _triangular(r[:k, :k], s, f[:k] - r[:k, k:] @ low, adjoint)
        return np.concatenate([high, low]), one or two
    if s.shape[0] > _BLOCK:
        k = _cut(s)
        if adjoint:
            right, one = _triangular(r, s[k:, k:], f[:, k:], adjoint)
            rest = f[:, :k] - right @ s[:k, k:].conj().T
            left, two = _triangular(r, s[:k, :k], rest, adjoint)
        else:
            left, one = _triangular(r, s[:k, :k], f[:, :k], adjoint)
            rest = f[:, k:] - left @ s[:k, k:]
            right, two = _triangular(r, s[k:, k:], rest, adjoint)
        return np.concatenate([left, right], axis=1), one or two
    (trsyl,) = get_lapack_funcs(("trsyl",), (r, s, f))
    y, scale, close = trsyl(r, s, f, tranb="C" if adjoint else "N")
    return y / scale, close != 0


def _cut(t: Any) -> int:
    """A row near the middle where no 2 x 2 block is cut."""
    k: int = t.shape[0] // 2
    return k + 1 if t[k, k - 1] != 0 else k


_SOLVERS: dict[str, Callable[[Equation], Solved]] = {
    "eigh": _by_eigenvectors,
    "schur": _by_schur,
    "sign": _by_sign,
    "minimax": _by_products,
}


# ---- numbers per member, in the library of the arrays ----


def real_of(x: Any) -> Any:
    return _xp.dtype_of(_xp.namespace(x), _xp.REAL[_xp.dtype_name(x)])


def _times(x: Any, y: Any, threads: int) -> Any:
    """Products; those of many NumPy matrices go one per thread."""
    if isinstance(x, np.ndarray) and x.shape == y.shape and x.shape[-1] == x.shape[-2] > 32:
        return _ops.MATMUL(x, y, threads)
    return x @ y


def _fresh(like: Any) -> Any:
    xp = _xp.namespace(like)
    return xp.zeros_like(like, dtype=_xp.dtype_of(xp, "int64")) + OK


def _marked(status: Any, members: Any, code: int) -> Any:
    """``status`` with a code in some members that had none."""
    xp = _xp.namespace(status)
    return xp.where(members & (status == OK), xp.full_like(status, code), status)


def _exponents(top: Any, usable: Any) -> Any:
    """Powers of two above the largest entries, 0 where there is none."""
    xp = _xp.namespace(top)
    safe = xp.where(usable & (top > 0), top, xp.ones_like(top))
    return np.frexp(safe)[1] if isinstance(safe, np.ndarray) else xp.ceil(xp.log2(safe))


def _turned(near: Equation) -> Equation:
    """The equation with the other sign where the eigenvalues seem to lie left of the axis."""
    xp = _xp.namespace(near.q)
    trace: Any = sum(xp.sum(xp.real(xp.linalg.diagonal(x)), axis=-1) for x in near.pairs)
    sign = xp.where(trace < 0, -xp.ones_like(trace), xp.ones_like(trace))
    a, b, q = (None if x is None else as_factor(sign, x) * x for x in near[:3])
    return near._replace(a=a, b=b, q=q)


def _spread(found: Solved, count: int) -> Solved:
    """Numbers of a shared pair, one per member."""
    xp = _xp.namespace(found.x)
    status, steps, gap = (xp.broadcast_to(v, (count,)) for v in found[1:4])
    return found._replace(status=status, steps=steps, gap=gap)


def _residual(near: Equation, x: Any) -> tuple[Any, Any, Any]:
    """Norm of the residual, what it is relative to, and the norm of X."""
    left, right = _times(near.a, x, near.threads), _times(x, near.right, near.threads)
    norm, sizes = _ops.norms(x), [_ops.norms(y) for y in near.pairs]
    return (
        _ops.norms(left + right - near.q),
        (sizes[0] + sizes[-1]) * norm + _ops.norms(near.q),
        norm,
    )
