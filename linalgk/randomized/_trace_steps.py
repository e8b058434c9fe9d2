"""Estimators of traces and diagonals from products: leave one out, project, or average.

Each is an object that grows: it is told how many products it may have spent, reuses what it has,
and answers with its estimate. Tall arrays stay in the library of the matrix; arrays of the size of
the number of probes are NumPy's.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor
from linalgk.randomized._estimate import (
    PROBES,
    RESIDUAL,
    Probes,
    draw,
    not_finite,
    not_hermitian,
    not_positive,
)
from linalgk.randomized._matrix import Matrix
from linalgk.sketch import Philox


class Sampled(NamedTuple):
    """Mean of the estimates, its standard error, degrees of freedom, and the error of rounding."""

    value: Any
    error: Any
    dof: float
    rounding: float


class DependentProbes(Exception):
    """Signs in few dimensions that are linearly dependent."""


class Products:
    """Products with one matrix in blocks of columns, counted, scaled by a power of two.

    The first product decides about the scale, which keeps squares in range, and about NaN.
    """

    def __init__(self, matrix: Matrix, block: int | None) -> None:
        self.matrix, self.block = matrix, block
        self.xp, self.dtype, self.eps = matrix.xp, matrix.dtype, matrix.eps
        self.n = matrix.shape[0]
        self.count = 0
        self.scale: float | None = None

    def __call__(self, x: Any, *, adjoint: bool = False) -> Any:
        """``A x`` or ``A^H x`` for x (n, k), divided by the scale."""
        product = self.matrix.rmatmat if adjoint else self.matrix.matmat
        k = int(x.shape[1])
        self.count += k
        block = k if self.block is None else self.block
        parts = (
            [product(x[:, i : min(i + block, k)]) for i in range(0, k, block)]
            if k > block
            else None
        )
        y = product(x) if parts is None else self.xp.concat(parts, axis=1)
        if self.scale is None:
            top = float(self.xp.max(self.xp.abs(y))) if math.prod(y.shape) else 0.0
            if not math.isfinite(top):
                raise not_finite()
            far = 300 if _xp.REAL[self.dtype] == "float64" else 30
            exponent = math.frexp(top)[1] if top else 0
            self.scale = math.ldexp(1.0, exponent) if abs(exponent) > far else 1.0
        return y if self.scale == 1.0 else y / self.scale


class Context:
    """What all estimators start with."""

    def __init__(
        self, matrix: Matrix, source: Philox, kind: Probes, structure: str, block: int | None
    ) -> None:
        self.matrix, self.source, self.kind = matrix, source, kind
        self.hermitian, self.positive = structure != "gen", structure == "pos"
        self.products = Products(matrix, block)
        self.xp, self.n, self.eps = matrix.xp, matrix.shape[0], matrix.eps

    def probes(self, start: int, stop: int, stream: int = PROBES) -> Any:
        """Columns (n, k)."""
        rows = draw(self.matrix, self.source.spawn(stream), self.kind, start, stop)
        if isinstance(rows, np.ndarray):
            return np.ascontiguousarray(rows.T)
        return self.xp.matrix_transpose(rows)

    def conj(self, x: Any) -> Any:
        """Not of real arrays, of which some libraries have none."""
        return self.xp.conj(x) if self.matrix.is_complex else x

    def cross(self, x: Any, y: Any) -> Any:
        """``x^H y`` on the host."""
        return host(adjoint(self.xp, x) @ y)

    def rounding(self, size: float) -> float:
        """Error of the trace of a matrix of this Frobenius norm."""
        return 4 * self.eps * math.sqrt(self.n) * size


def host(x: Any) -> Any:
    """In double precision on the host."""
    x = np.asarray(_xp.to_numpy(x))
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64, copy=False)


def mean_of(values: Any) -> tuple[Any, float, float]:
    """Mean, standard error, degrees of freedom."""
    m = len(values)
    mean = values.mean()
    if m < 2:
        return mean, math.inf, 0.0
    spread = math.sqrt(float((np.abs(values - mean) ** 2).sum()) / (m - 1))
    return mean, spread / math.sqrt(m), float(m - 1)


def _squares(x: Any) -> Any:
    """Squared norms of columns."""
    return (np.abs(x) ** 2).sum(axis=0)


def _dots(x: Any, y: Any) -> Any:
    """``x_i^H y_i`` of columns."""
    return (x.conj() * y).sum(axis=0)


# --- A basis that grows --------------------------------------------------------------------------


class Basis:
    """Probes, ``A probes = Q R``, and ``Z = A Q`` or ``A^H Q``."""

    def __init__(self, context: Context, *, turned: bool = False) -> None:
        self.context, self.turned = context, turned
        self.count = 0
        self.probes: Any = None
        self.q: Any = None
        self.z: Any = None
        self.r = np.zeros((0, 0))

    def grow(self, count: int) -> None:
        c = self.context
        count = min(count, c.n)
        if count <= self.count:
            return
        fresh = c.probes(self.count, count)
        y = c.products(fresh)
        xp = c.xp
        if self.count == 0:
            q, r = _factor.qr(y)
            self.probes, self.q, self.r = fresh, q, host(r)
            self.z = c.products(q, adjoint=self.turned)
        else:
            # twice is enough
            top = adjoint(xp, self.q) @ y
            p, r1 = _factor.qr(y - self.q @ top)
            again = adjoint(xp, self.q) @ p
            p, r2 = _factor.qr(p - self.q @ again)
            top, r = host(top + again @ r1), host(r2 @ r1)
            k = self.count
            whole = np.zeros((count, count), r.dtype)
            whole[:k, :k], whole[:k, k:], whole[k:, k:] = self.r, top, r
            self.probes, self.r = xp.concat([self.probes, fresh], axis=1), whole
            self.q = xp.concat([self.q, p], axis=1)
            self.z = xp.concat([self.z, c.products(p, adjoint=self.turned)], axis=1)
        self.count = count

    def is_exhausted(self) -> bool:
        """Whether the range of A is that of Q, to working precision."""
        s = np.linalg.svd(self.r, compute_uv=False)
        if s[-1] > max(8.0, math.sqrt(self.context.n)) * self.context.eps * s[0]:
            return False
        if s[0] > 0 and self.context.kind == "signs" and self.context.n < 64:
            w = np.linalg.svd(host(self.probes), compute_uv=False)
            if w[-1] < 1e-8 * w[0]:
                raise DependentProbes
        return True

    def left_out(self) -> Any:
        """Columns s_i with ``Q_i Q_i^H = Q (I - s_i s_i^H) Q^H``, Q_i without the i-th probe."""
        from scipy.linalg import solve_triangular

        # columns of R^-H times the diagonal, which may be tiny
        pivots = np.diag(np.diag(self.r).conj())
        s = solve_triangular(self.r, pivots, trans="C", check_finite=False)
        return s / np.sqrt(_squares(s))

    @property
    def size(self) -> float:
        """About the Frobenius norm of A."""
        return math.sqrt(float(_squares(self.r).sum()) / max(1, self.count))


# --- Traces --------------------------------------------------------------------------------------


class XTrace:
    """Leave one out of a range finder [1]_: ``m`` probes take ``2 m`` products."""

    least, first = 4, 16

    def __init__(self, context: Context) -> None:
        self.context, self.basis = context, Basis(context)

    def grow(self, budget: int) -> None:
        self.basis.grow(budget // 2)

    def estimate(self) -> Sampled:
        c, b = self.context, self.basis
        n, r = c.n, b.r
        h, w, t = c.cross(b.q, b.z), c.cross(b.q, b.probes), c.cross(b.z, b.probes)
        rounding = c.rounding(b.size)
        if c.hermitian:
            check_hermitian(h, c, math.sqrt(b.count) * b.size)
        if b.is_exhausted():
            return Sampled(np.trace(h), 0.0, math.inf, rounding)
        s = b.left_out()
        forms = _Forms(n, c.kind == "sphere", h, w, t, s, _dots(s, r))
        return Sampled(*jackknife(forms.single(), forms.pairs()), rounding)


class _Forms(NamedTuple):
    """Estimates by probe j without probe j, and without i and j, from arrays (m, m).

    ``P`` projects onto the span of s_j, or of s_i and s_j: the part of the range that is left out.
    With ``x = P w`` and ``c = w - x`` the sample on the rest is
    ``x^H r - t^H c + c^H H c``, and the trace on the range is ``tr H - tr P H``.
    """

    n: int
    sphere: bool
    h: Any  # Q^H A Q
    w: Any  # Q^H probes
    t: Any  # (A Q)^H probes
    s: Any
    gain: Any  # s_j^H r_j; s_i^H r_j = 0

    def single(self) -> Any:
        h, s = self.h, self.s
        b = _dots(s, self.w)
        c = self.w - s * b
        part = b.conj() * self.gain - _dots(self.t, c) + _dots(c, h @ c)
        if self.sphere:
            part = part * (self.n - len(h) + 1) / (self.n - _squares(c))
        return np.trace(h) - _dots(s, h @ s) + part

    def pairs(self) -> Any:
        """Row i, column j."""
        h, w, s = self.h, self.w, self.s
        back = s.conj().T
        sw, gram = back @ w, back @ s
        np.fill_diagonal(gram, 0)
        det = 1 - np.abs(gram) ** 2
        own = np.diag(sw)
        # x = a s_i + b s_j
        a, b = (sw - gram * own) / det, (own - gram.conj() * sw) / det
        hs = h @ s
        shs, whs, shw = back @ hs, (w.conj().T @ hs).T, back @ (h @ w)
        ts = (self.t.conj().T @ s).T
        size = np.diag(shs)
        part = b.conj() * self.gain - _dots(self.t, w) + a * ts + b * np.diag(ts)
        part = part + _dots(w, h @ w) - a * whs - b * np.diag(whs)
        part = part - a.conj() * shw - b.conj() * np.diag(shw)
        part = part + np.abs(a) ** 2 * size[:, None] + np.abs(b) ** 2 * size
        part = part + a.conj() * b * shs + b.conj() * a * shs.T
        if self.sphere:
            rest = self.n - _squares(w) + (a.conj() * sw + b.conj() * own).real
            part = part * (self.n - len(h) + 2) / rest
        lost = (size[:, None] + size - gram * shs.T - gram.conj() * shs) / det
        return np.trace(h) - lost + part


def jackknife(values: Any, pairs: Any) -> tuple[Any, float, float]:
    """Mean of ``values``, each without one probe, and its standard error.

    ``values`` are correlated. Of the part of the mean that couples r probes (Hoeffding's
    decomposition), with variance v_r, their spread shows ``v_r / r``, as each value is unbiased
    given all probes but its own. The spread of the means without one probe each, the jackknife,
    shows ``r v_r``. By Cauchy and Schwarz's inequality the geometric mean of the two sums is at
    least the variance, and it is the variance where one r dominates.
    """
    m = len(values)
    if m < 3:
        return values.mean(), math.inf, 0.0
    np.fill_diagonal(pairs, 0)
    return values.mean(), _spread(values, pairs.sum(axis=1) / (m - 1)), float(m - 1)


def _spread(values: Any, means: Any) -> float:
    m = len(values)
    one, two = (float((np.abs(x - x.mean()) ** 2).sum()) for x in (values, means))
    return float((one * two) ** 0.25 / math.sqrt(m))


class XNysTrace:
    """Leave one out of a Nyström approximation [1]_: a probe takes a product."""

    least, first = 3, 16

    def __init__(self, context: Context) -> None:
        self.context, self.count = context, 0
        self.probes: Any = None
        self.y: Any = None

    def grow(self, budget: int) -> None:
        c, count = self.context, min(budget, self.context.n)
        if count <= self.count:
            return
        fresh = c.probes(self.count, count)
        y = c.products(fresh)
        if self.count:
            fresh = c.xp.concat([self.probes, fresh], axis=1)
            y = c.xp.concat([self.y, y], axis=1)
        self.probes, self.y, self.count = fresh, y, count

    def estimate(self) -> Sampled:
        c, m, n = self.context, self.count, self.context.n
        raw = c.cross(self.probes, self.y)
        square = float(_squares(host(_factor.triangle(self.y))).sum())
        if square == 0:
            return Sampled(0.0, 0.0, math.inf, 0.0)
        check_hermitian(raw, c, math.sqrt(square * n))
        least = float(np.linalg.eigvalsh(0.5 * (raw + raw.conj().T))[0])
        if least < -max(64.0, n) * c.eps * math.sqrt(square * n):
            why = (
                "a is not positive semidefinite{}: w^H A w is negative for some w; "
                "leave out assume_a='pos'"
            )
            raise not_positive(why)
        nu = c.eps * math.sqrt(square / n)
        r = host(_factor.triangle(self.y + nu * self.probes))
        gram = c.cross(self.probes, self.probes)
        g, trace = _inverse(raw + nu * gram, r)
        u = r @ g
        k, diagonal = u.conj().T @ u, np.diag(g).real
        det = np.outer(diagonal, diagonal) - np.abs(g) ** 2
        np.fill_diagonal(det, 1)
        sizes = np.diag(k).real
        lost = (sizes[:, None] * diagonal + diagonal[:, None] * sizes - 2 * (g * k.T).real) / det
        # of the residual of the approximation without j, without i and j
        part, parts = 1 / diagonal, diagonal[:, None] / det
        if c.kind == "sphere":
            inverse = np.linalg.inv(host(_factor.triangle(self.probes)))
            p = inverse @ inverse.conj().T
            away = np.diag(p).real
            part = part * (n - m + 1) * away
            parts = parts * (n - m + 2) * (away - np.abs(p) ** 2 / away[:, None])
        values = trace - sizes / diagonal + part - nu * n
        return Sampled(
            *jackknife(values, trace - lost + parts - nu * n), c.rounding(math.sqrt(square / m))
        )


def _inverse(h: Any, r: Any) -> tuple[Any, float]:
    """``H^-1`` and ``tr Y H^-1 Y^H`` with ``Y = Q R``."""
    h = 0.5 * (h + h.conj().T)
    try:
        lower = np.linalg.cholesky(h)
        half = np.linalg.inv(lower)
    except np.linalg.LinAlgError:
        w, v = np.linalg.eigh(h)
        half = v.conj().T / np.sqrt(np.maximum(w, len(w) * np.finfo(float).eps * w[-1]))[:, None]
    return half.conj().T @ half, float(_squares(r @ half.conj().T).sum())


def check_hermitian(h: Any, c: Context, size: float) -> None:
    """``X^H A X`` has to be Hermitian, up to rounding of products of this size."""
    defect = float(np.linalg.norm(h - h.conj().T))
    if defect > 64 * c.eps * math.sqrt(c.n) * size:
        raise not_hermitian(defect / size)


class HutchPP:
    """Trace on a range and samples on the rest [2]_: a third of the products for each."""

    least, first = 5, 24

    def __init__(self, context: Context) -> None:
        self.context, self.basis = context, Basis(context)
        self.drawn = 0
        self.g: Any = None
        self.ag: Any = None

    def grow(self, budget: int) -> None:
        c, k = self.context, budget // 3
        self.basis.grow(k)
        count = budget - 2 * self.basis.count
        if count > self.drawn:
            fresh = c.probes(self.drawn, count, RESIDUAL)
            product = c.products(fresh)
            both = [(self.g, fresh), (self.ag, product)]
            self.g, self.ag = (
                new if self.drawn == 0 else c.xp.concat([old, new], axis=1) for old, new in both
            )
            self.drawn = count

    def estimate(self) -> Sampled:
        c, b, xp = self.context, self.basis, self.context.xp
        h = c.cross(b.q, b.z)
        rounding = c.rounding(b.size)
        if c.hermitian:
            check_hermitian(h, c, math.sqrt(b.count) * b.size)
        if b.count >= c.n or b.is_exhausted():
            return Sampled(np.trace(h), 0.0, math.inf, rounding)
        inside = adjoint(xp, b.q) @ self.g
        away = self.g - b.q @ inside
        part = host(xp.sum(c.conj(away) * (self.ag - b.z @ inside), axis=0))
        if c.kind == "sphere":
            part = part * (c.n - b.count) / _norms(xp, away)
        value, error, dof = mean_of(part)
        return Sampled(np.trace(h) + value, error, dof, rounding)


def _norms(xp: Any, x: Any) -> Any:
    """Squared norms of tall columns, on the host."""
    size = xp.abs(x)
    return host(xp.sum(size * size, axis=0))


class Hutchinson:
    """The mean of ``w^H A w`` [3]_."""

    least, first = 2, 16

    def __init__(self, context: Context) -> None:
        self.context = context
        self.values = np.zeros(0)
        self.square = 0.0

    def grow(self, budget: int) -> None:
        c, xp = self.context, self.context.xp
        parts = [self.values]
        start = len(self.values)
        step = c.products.block or max(16, (1 << 22) // c.n)
        for i in range(start, budget, step):
            w = c.probes(i, min(i + step, budget))
            y = c.products(w)
            self.square += float(_norms(xp, y).sum())
            parts.append(host(xp.sum(c.conj(w) * y, axis=0)))
        self.values = np.concatenate(parts)

    def estimate(self) -> Sampled:
        rounding = self.context.rounding(math.sqrt(self.square / len(self.values)))
        return Sampled(*mean_of(self.values), rounding)


# --- Diagonals -----------------------------------------------------------------------------------


class Moments:
    """Mean and sum of squared deviations along rows, block after block."""

    def __init__(self, xp: Any) -> None:
        self.xp, self.count = xp, 0
        self.mean: Any = None
        self.spread: Any = None

    def add(self, x: Any) -> None:
        """Columns of x (n, k)."""
        xp, k = self.xp, int(x.shape[1])
        mean = xp.mean(x, axis=1)
        spread = xp.sum(xp.abs(x - mean[:, None]) ** 2, axis=1)
        if self.count:
            total = self.count + k
            move = mean - self.mean
            spread = self.spread + spread + xp.abs(move) ** 2 * (self.count * k / total)
            mean = self.mean + move * (k / total)
        self.mean, self.spread, self.count = mean, spread, self.count + k

    def sampled(self, base: Any, rounding: float) -> Sampled:
        """With what is known exactly added."""
        m, xp = self.count, self.xp
        value = self.mean if base is None else self.mean + base
        if m < 2:
            return Sampled(value, self.spread + math.inf, 0.0, rounding)
        return Sampled(value, xp.sqrt(self.spread / (m * (m - 1))), float(m - 1), rounding)


class XDiag:
    """Leave one out of a range finder [1]_."""

    least, first = 4, 16

    def __init__(self, context: Context) -> None:
        self.context = context
        self.basis = Basis(context, turned=not context.hermitian)

    def grow(self, budget: int) -> None:
        self.basis.grow(budget // 2)

    def estimate(self) -> Sampled:
        c, b, xp = self.context, self.basis, self.context.xp
        rounding = c.rounding(b.size) / math.sqrt(c.n)
        # the diagonal of Q Q^H A from Z = A^H Q
        base = xp.sum(b.q * c.conj(b.z), axis=1)
        if c.hermitian:
            check_hermitian(c.cross(b.q, b.z), c, math.sqrt(b.count) * b.size)
        if b.is_exhausted():
            return Sampled(base, xp.abs(base) * 0, math.inf, rounding)
        s, m = b.left_out(), b.count
        gram = s.conj().T @ s
        np.fill_diagonal(gram, 0)
        det = 1 - np.abs(gram) ** 2
        gain, one = _dots(s, b.r), np.ones((m, m)) - np.eye(m)

        def tall(x: Any) -> Any:
            return _xp.from_numpy(x.astype(c.matrix.dtype), xp, like=b.q)

        qs, zs = b.q @ tall(s), c.conj(b.z @ tall(s))
        probes = c.conj(b.probes)
        # A w_j less its part in Q_j is Q s_j (s_j^H r_j)
        values = (probes * tall(gain)[None, :] - zs) * qs
        mean = xp.mean(values, axis=1)
        if m < 3:
            return Sampled(base + mean, xp.abs(mean) * 0 + math.inf, 0.0, rounding)
        # without i and j: P = (s_i s_i^H + s_j s_j^H - g s_i s_j^H - g^* s_j s_i^H) / det, summed
        # over j; the column is i
        inner = tall(one / det)
        cross = tall((one * gram / det).T)
        turned = tall((one * gram.conj() / det).T)
        lost = qs * zs * xp.sum(inner, axis=0)[None, :] + (qs * zs) @ inner
        lost = lost - qs * (zs @ cross) - (qs @ turned) * zs
        reach = tall((one * -gram * gain / det).T)
        found = qs * (probes @ reach) + (probes * qs) @ tall((one * gain / det).T)
        one, two = (
            xp.sum(xp.abs(x - xp.mean(x, axis=1)[:, None]) ** 2, axis=1)
            for x in (values, (found - lost) / (m - 1))
        )
        error = xp.sqrt(xp.sqrt(one) * xp.sqrt(two) / m)
        return Sampled(base + mean, error, float(m - 1), rounding)


class DiagPP:
    """Diagonal of ``Q Q^H A``, and samples of the rest [4]_."""

    least, first = 5, 24

    def __init__(self, context: Context) -> None:
        self.context = context
        self.basis = Basis(context, turned=not context.hermitian)
        self.drawn = 0
        self.g: Any = None
        self.ag: Any = None

    grow = HutchPP.grow

    def estimate(self) -> Sampled:
        c, b, xp = self.context, self.basis, self.context.xp
        rounding = c.rounding(b.size) / math.sqrt(c.n)
        # the diagonal of Q Q^H A from Z = A^H Q
        base = xp.sum(b.q * c.conj(b.z), axis=1)
        if b.count >= c.n or b.is_exhausted():
            return Sampled(base, xp.abs(base) * 0, math.inf, rounding)
        away = self.ag - b.q @ (adjoint(xp, b.q) @ self.ag)
        moments = Moments(xp)
        moments.add(c.conj(self.g) * away)
        return moments.sampled(base, rounding)


class HutchinsonDiagonal:
    """The mean of ``conj(w) * A w`` [5]_."""

    least, first = 2, 16

    def __init__(self, context: Context) -> None:
        self.context, self.moments = context, Moments(context.xp)
        self.square = 0.0

    def grow(self, budget: int) -> None:
        c, xp = self.context, self.context.xp
        step = c.products.block or max(16, (1 << 22) // c.n)
        for i in range(self.moments.count, budget, step):
            w = c.probes(i, min(i + step, budget))
            y = c.products(w)
            self.square += float(_norms(xp, y).sum())
            self.moments.add(c.conj(w) * y)

    def estimate(self) -> Sampled:
        c = self.context
        rounding = c.rounding(math.sqrt(self.square / (c.n * self.moments.count)))
        return self.moments.sampled(None, rounding)


TRACES: dict[str, Any] = {
    "xtrace": XTrace, "xnystrace": XNysTrace, "hutchpp": HutchPP, "hutchinson": Hutchinson,
}  # fmt: skip
DIAGONALS: dict[str, Any] = {
    "xdiag": XDiag, "diagpp": DiagPP, "hutchinson": HutchinsonDiagonal,
}  # fmt: skip
