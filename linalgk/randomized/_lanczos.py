"""Lanczos' process for many vectors side by side, and the quadrature rules that it gives.

Vectors are rows (p, n), so that dots and updates run along memory; the coefficients of the
processes and all that is computed from them are NumPy's, in double precision.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk.randomized._estimate import not_finite, not_hermitian

# --- Functions -----------------------------------------------------------------------------------


class Function(NamedTuple):
    """A function on the spectrum.

    ``even`` and ``odd`` are the signs there of its derivatives of even order from 2 on and of odd
    order from 3 on (from 1 on with one node); 0 where they are not known.
    """

    name: str
    call: Callable[[Any], Any]
    even: int
    odd: int
    domain: str = "real"  # "positive", "nonnegative"


FUNCTIONS = {
    "log": Function("log", np.log, -1, 1, "positive"),
    "inv": Function("inv", np.reciprocal, 1, -1, "positive"),
    "sqrt": Function("sqrt", np.sqrt, -1, 1, "nonnegative"),
    "invsqrt": Function("invsqrt", lambda t: 1 / np.sqrt(t), 1, -1, "positive"),
    "exp": Function("exp", np.exp, 1, 1),
}


class Spectrum(NamedTuple):
    """Where the eigenvalues are, and whether each end is proven; infinite where nothing is."""

    low: float
    high: float
    sure_low: bool
    sure_high: bool


# Exponents from which on sums of squares might leave the range.
_FAR = {"float64": 300, "float32": 30}
UNKNOWN = Spectrum(-math.inf, math.inf, False, False)


# --- The process ---------------------------------------------------------------------------------


def row_dots(xp: Any, x: Any, y: Any) -> Any:
    """Real parts of ``x_i^H y_i`` of rows, on the host in double precision."""
    if xp is np and x.dtype.kind == "f":
        # einsum keeps one core busy and needs no temporary; vecdot calls BLAS row by row
        return np.einsum("ij,ij->i", x, y, dtype=np.float64)
    if _xp.dtype_name(x) in _xp.COMPLEX:
        products = xp.real(x) * xp.real(y) + xp.imag(x) * xp.imag(y)
    else:
        products = x * y
    return np.asarray(_xp.to_numpy(xp.sum(products, axis=1)), np.float64)


def scale_of(size: float, dtype: str) -> float:
    """A power of two by which a matrix of this size is divided, 1 where squares stay in range."""
    exponent = math.frexp(size)[1] if size > 0 and math.isfinite(size) else 0
    return math.ldexp(1.0, exponent) if abs(exponent) > _FAR[_xp.REAL[dtype]] else 1.0


class Lanczos:
    """Processes that start with the rows of x (p, n).

    Attributes
    ----------
    alpha : array, shape (p, k)
        Diagonals of the tridiagonal matrices, divided by ``scale``.
    beta : array, shape (p, k)
        What is beside them; the last one leads out of the space.
    weight : array, shape (p,)
        Squared norms of the rows.
    scale : float
        By which A is divided, a power of two.
    first : array, shape (p, n)
        ``A v / scale`` of the first vectors.
    """

    def __init__(self, a: Any, x: Any, scale: float | None) -> None:
        self.a, self.xp, self.scale = a, a.xp, scale
        self.eps, self.n = a.eps, int(a.shape[0])
        self.weight = row_dots(self.xp, x, x)
        alive = self.weight > 0
        self.alive = alive
        self.v = self._divided(x, np.where(alive, np.sqrt(self.weight), 1.0))
        self.before: Any = None
        self.first: Any = None
        self.spare: Any = None
        self.basis: list[Any] = []
        p = len(alive)
        self.alpha, self.beta = np.zeros((p, 0)), np.zeros((p, 0))
        self.top = np.zeros(p)
        # estimates of the loss of orthogonality [Simon 1984], of the last two vectors
        self.loss_before, self.loss = np.zeros((p, 0)), np.ones((p, 1))
        self.again = False
        self.products = 0

    @property
    def k(self) -> int:
        """Steps so far."""
        return int(self.alpha.shape[1])

    def _column(self, x: Any) -> Any:
        """Numbers of the rows as a column (p, 1) of the library."""
        real = _xp.REAL[self.a.dtype]
        return _xp.from_numpy(x.astype(real)[:, None], self.xp, like=self.a.like)

    def _divided(self, x: Any, by: Any) -> Any:
        return x * self._column(1 / by)

    def apply(self, rows: Any) -> Any:
        """Rows of ``A x / scale``."""
        xp = self.xp
        self.products += int(rows.shape[0])
        if rows.shape[0] == 1:
            w = xp.reshape(self.a.matmat(xp.reshape(rows, (-1,))), (1, -1))
        else:
            w = xp.matrix_transpose(self.a.matmat(xp.matrix_transpose(rows)))
        if xp is np:
            w = np.ascontiguousarray(w)
        if self.scale is None:
            top = float(xp.max(xp.abs(w)))
            if not math.isfinite(top):
                raise not_finite()
            self.scale = scale_of(top, self.a.dtype)
        return w if self.scale == 1.0 else w * (1 / self.scale)

    def step(self) -> None:
        """One product for each row."""
        xp, j = self.xp, self.k
        w = self.apply(self.v)
        alpha = row_dots(xp, self.v, w)
        if not np.isfinite(alpha).all():
            raise not_finite()
        self.first = w if j == 0 else self.first
        # what an operator gives back is its own, and the first products are looked at again
        w = self._less(w, self.v, alpha, ours=False)
        if j:
            w = self._less(w, self.before, self.beta[:, -1])
        self.basis.append(self.v)
        beta = np.sqrt(row_dots(xp, w, w))
        if j == 0 and (beta < 0.1 * np.abs(alpha)).any():
            # the first subtraction cancels where x is nearly an eigenvector
            w = self._less(w, self.v, row_dots(xp, self.v, w))
            beta = np.sqrt(row_dots(xp, w, w))
        # what has broken down goes on beside itself, with weight 0
        alpha = np.where(self.alive, alpha, self.alpha[:, 0] if j else alpha)
        self.top = np.maximum(self.top, np.abs(alpha) + beta)
        if self._loses(alpha, beta):
            w = self._orthogonal(w)
            beta = np.sqrt(row_dots(xp, w, w))
        alive = self.alive & (beta > 16 * self.eps * self.top)
        if j + 1 >= self.n:
            alive = alive & False
        beta = np.where(alive, beta, 0.0)
        self.alpha = np.concatenate([self.alpha, alpha[:, None]], axis=1)
        self.beta = np.concatenate([self.beta, beta[:, None]], axis=1)
        self.before, self.alive = self.v, alive
        self.v = self._divided(w, np.where(alive, beta, math.inf))

    def _less(self, w: Any, v: Any, numbers: Any, *, ours: bool = True) -> Any:
        """``w`` less multiples of the rows of v."""
        column = self._column(numbers)
        if self.xp is not np:
            return w - v * column
        # fresh memory costs more than the sums
        if self.spare is None:
            self.spare = np.empty_like(v)
        np.multiply(v, column, out=self.spare)
        return np.subtract(w, self.spare, out=w if ours else None)

    def _loses(self, alpha: Any, beta: Any) -> bool:
        """Whether the next vectors would lose half of the digits of orthogonality."""
        j, loss, before = self.k, self.loss, self.loss_before
        noise = self.eps * math.sqrt(self.n)
        safe = np.where(beta > 0, beta, 1.0)[:, None]
        new = np.full((len(alpha), j + 2), noise)
        new[:, -1] = 1
        if j:
            b = self.beta
            grown = b * loss[:, 1:] + (self.alpha - alpha[:, None]) * loss[:, :-1]
            grown[:, 1:] += b[:, :-1] * loss[:, : j - 1]
            grown -= b[:, -1:] * before
            grown = np.abs(grown) + 2 * self.eps * self.top[:, None]
            new[:, :j] = np.minimum(grown / safe, 1.0)
        alive = self.alive & (beta > 0)
        wanted = self.again or bool((new[alive, :-1] > math.sqrt(self.eps)).any())
        if wanted:
            new[:, :-1] = noise
            # the recurrence looks back two steps
            self.again = not self.again
        self.loss_before, self.loss = loss, new
        return wanted

    def _orthogonal(self, w: Any) -> Any:
        """Rows less their parts in all vectors before, by two products."""
        xp = self.xp
        basis = xp.stack(self.basis, axis=1)
        for _ in range(2):
            turned = xp.conj(basis) if self.a.is_complex else basis
            coefficients = turned @ w[:, :, None]
            w = w - (xp.matrix_transpose(coefficients) @ basis)[:, 0, :]
        return w


def check_symmetry(a: Any, x: Any, w: Any, y: Any, scale: float) -> None:
    """Compare ``x_j^H A y`` with ``(y^H A x_j)^*`` for rows x, ``w = A x / scale`` and a y (n,)."""
    xp = a.xp
    z = a.matmat(y)[None, :] * (1 / scale)
    y = y[None, :]
    if xp is np and not a.is_complex:
        # not BLAS: two threads that wait for each other cost more than the sums
        defects = np.einsum("ij,kj->i", x, z) - np.einsum("ij,kj->i", w, y)
    elif a.is_complex:
        defects = xp.sum(xp.conj(x) * z, axis=1) - xp.sum(xp.conj(w) * y, axis=1)
    else:
        defects = xp.sum(x * z, axis=1) - xp.sum(w * y, axis=1)
    defect = float(np.abs(np.asarray(_xp.to_numpy(defects))).max())
    squares = [float(row_dots(xp, v, v).max()) for v in (x, z, w, y)]
    size = math.sqrt(max(squares[0] * squares[1], squares[2] * squares[3]))
    if not math.isfinite(size):
        raise not_finite()
    # rounding of two sums and of the products in them
    if defect > 16 * a.eps * size:
        raise not_hermitian(defect / size)


# --- Rules ---------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """Values of the quadrature for each row: Gauss' rule, and where the true one is."""

    value: Any
    low: Any
    high: Any
    sure: tuple[bool, bool]
    least: float  # Ritz value
    largest: float


def rule(alpha: Any, beta: Any) -> tuple[Any, Any]:
    """Nodes and weights (p, k) of tridiagonal matrices."""
    p, k = alpha.shape
    t = np.zeros((p, k, k))
    along = np.arange(k)
    t[:, along, along] = alpha
    t[:, along[1:], along[:-1]] = beta[:, : k - 1]
    nodes, vectors = np.linalg.eigh(t)
    return nodes, vectors[:, 0, :] ** 2


def radau_alpha(alpha: Any, beta: Any, node: float) -> Any:
    """Last diagonal entry of the matrix that is one larger and has the eigenvalue ``node``."""
    k = alpha.shape[1]
    pivot = alpha[:, 0] - node
    with np.errstate(divide="ignore", invalid="ignore"):
        for j in range(1, k):
            pivot = alpha[:, j] - node - beta[:, j - 1] ** 2 / pivot
        last = node + beta[:, -1] ** 2 / pivot
    return np.where(beta[:, -1] > 0, last, node)


def brackets(process: Lanczos, f: Function, spectrum: Spectrum, before: Any) -> Rule:
    """Gauss' rule, and Radau's with a node at the end of the spectrum that bounds the other side.

    The error of Gauss' rule has the sign of the derivatives of even order, that of Radau's with a
    node at the lower end the sign of those of odd order, at the upper end the opposite one.
    """
    scale, weight = process.scale or 1.0, process.weight
    alpha, beta = process.alpha, process.beta
    nodes, weights = rule(alpha, beta)
    held = (weights > 0) & (weight > 0)[:, None]
    least, largest = float(nodes[held].min()), float(nodes[held].max())
    # rounding moves a node by this much
    move = 8 * process.eps * max(abs(least), abs(largest)) * math.sqrt(alpha.shape[1])

    def integral(nodes: Any, weights: Any) -> tuple[Any, Any]:
        """Values, and what rounding does to them."""
        # a node at zero may be computed on its other side
        nodes = np.maximum(nodes, 0.0) if f.domain == "nonnegative" else nodes
        with np.errstate(all="ignore"):
            terms = weights * f.call(scale * nodes)
            spread: Any = 0.0
            for moved in (nodes - move, nodes + move):
                if f.domain != "real":
                    moved = np.maximum(moved, 0.5 * nodes)
                spread = np.maximum(spread, np.abs(weights * f.call(scale * moved) - terms))
            known = (weights > 0) & (weight > 0)[:, None]
            terms, spread = (np.where(known, x, 0.0) for x in (terms, spread))
            return terms.sum(axis=1), (spread + 2 * process.eps * np.abs(terms)).sum(axis=1)

    value, slack = integral(nodes, weights)
    ended = ~process.alive
    if not f.even or not f.odd:
        width = np.abs(value - before) * 2 if before is not None else np.full(len(value), math.inf)
        width = np.where(ended | (weight == 0), 0.0, width) + slack
        return Rule(value * weight, (value - width) * weight, (value + width) * weight,
                    (False, False), scale * least, scale * largest)  # fmt: skip
    lower = f.odd != f.even
    node, sure = _end(spectrum, lower, f, least, largest, process)
    other = radau_alpha(alpha, beta, node)
    more = np.concatenate([alpha, other[:, None]], axis=1)
    second, slack2 = integral(*rule(more, beta))
    second = np.where(ended, value, second)
    if not sure and before is not None:
        # a node that is only guessed may be inside the spectrum
        move_back = 2 * np.abs(value - before) * ~ended
        second = (
            np.minimum(second, value - move_back)
            if f.even < 0
            else np.maximum(second, value + move_back)
        )
    both = np.stack([value - slack, value + slack, second - slack2, second + slack2])
    both = np.where(np.isfinite(both), both, np.stack([value, value, second, second]))
    low, high = both.min(axis=0), both.max(axis=0)
    low, high = (np.where(weight > 0, x, 0.0) for x in (low, high))
    gauss_low = f.even > 0
    proven = (gauss_low or sure, not gauss_low or sure)
    return Rule(value * weight, low * weight, high * weight, proven, scale * least, scale * largest)


def _end(
    spectrum: Spectrum, lower: bool, f: Function, least: float, largest: float, process: Lanczos
) -> tuple[float, bool]:
    """The node of Radau's rule, divided by the scale, and whether it is proven."""
    scale = process.scale or 1.0
    margin = 4 * process.eps * max(abs(least), abs(largest))
    if lower:
        end = spectrum.low / scale
        if f.domain == "nonnegative":
            return max(0.0, min(end, least - margin)), True
        if spectrum.sure_low and (f.domain == "real" or end > 0):
            return min(end, least - margin if f.domain == "real" or least > margin else end), True
        reach = float(process.beta[:, -1].max())
        if f.domain == "positive":
            # theta - 2 beta, but positive
            return least * least / (least + 2 * reach + margin), False
        return least - 2 * reach - margin, False
    end = spectrum.high / scale
    if spectrum.sure_high:
        return max(end, largest + margin), True
    return largest + 2 * float(process.beta[:, -1].max()) + margin, False
