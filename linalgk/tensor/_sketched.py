"""Tucker decompositions from random projections: of arrays, and of slabs that are read once.

.. [1] M. Che, Y. Wei, "Randomized algorithms for the approximations of Tucker and the tensor train
   decompositions", Adv. Comput. Math. 45 (2019); R. Minster, A. K. Saibaba, M. E. Kilmer,
   "Randomized algorithms for low-rank tensor decompositions in the Tucker format", SIAM J. Math.
   Data Sci. 2 (2020), algorithm 3.2.
.. [2] Y. Sun, Y. Guo, C. Luo, J. Tropp, M. Udell, "Low-rank Tucker approximation of a tensor from
   streaming data", SIAM J. Math. Data Sci. 2 (2020), algorithms 4.1 to 4.3.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import mttkrp
from linalgk.sketch import CountSketch, Philox
from linalgk.tensor import _unfold

# Columns beyond the rank, and rows of the first look, where all other modes are projected, too.
OVERSAMPLE, _ROWS = 10, 8
# Least tolerances that differences of squared norms can verify.
VERIFIABLE = {"float32": 2e-2, "float64": 1e-6}
# Streams of random numbers: one for each use.
_SKETCH, _CORE, _PROBE, _FIRST = 1, 1 << 16, 1 << 20, 63
# Buckets of the sketch that estimates an error: the estimate of its square has a relative standard
# deviation of (2 / buckets)^(1/2).
BUCKETS = 1 << 12


# --- Arrays in memory ----------------------------------------------------------------------------


def of_ranks(x: Any, philox: Philox, ranks: Sequence[int]) -> _unfold.Truncated:
    """ST-HOSVD whose first and dearest mode takes its vectors from a projection of the others.

    A first look, few random combinations of all slices in that mode, gives subspaces of all others;
    vectors of the mode are the leading ones of x projected on those, as in a sweep of HOOI. The
    errors are as often below those of an ST-HOSVD as above.
    """
    xp, modes = _xp.namespace(x), list(range(x.ndim))
    first, *others = _unfold.order(x.shape, modes, ranks)
    widths, rows = widths_of(x.shape, ranks, first)
    z = _unfold.narrow_product(x, _gauss(philox, _FIRST, rows, x, x.shape[first]), first)
    y = x
    # the last mode first: its product is one of two matrices
    for j in sorted(others, reverse=True):
        if widths[j] < x.shape[j]:
            q = adjoint(xp, _subspace(z, j, widths[j], philox))
            z, y = _unfold.narrow_product(z, q, j), _unfold.narrow_product(y, q, j)
    u = _unfold.leading(y, first, rank=ranks[first]).vectors
    x = _unfold.narrow_product(x, adjoint(xp, u), first)
    rest = _unfold.st_hosvd(x, ranks=[ranks[j] for j in others], modes=others)
    factors = tuple(u if j == first else f for j, f in enumerate(rest.factors))
    return _unfold.Truncated(rest.core, factors, rest.squared_error, ("randomized",) * x.ndim)


def widths_of(shape: Sequence[int], ranks: Sequence[int], first: int) -> tuple[list[int], int]:
    """Columns in each mode and rows of the first look."""
    # whole register blocks of eight rows
    widths = [min((r + OVERSAMPLE + 4) // 8 * 8, n) for r, n in zip(ranks, shape, strict=True)]
    rows = _ROWS
    for j, width in enumerate(widths):
        if j != first:
            seen = math.prod(r for i, r in enumerate(ranks) if i not in (j, first))
            rows = max(rows, math.ceil(width / max(seen, 1)))
    return widths, min(rows, shape[first])


def _subspace(z: Any, mode: int, width: int, philox: Philox) -> Any:
    """Orthonormal columns near the leading vectors, by two steps with the small Gram matrix."""
    xp = _xp.namespace(z)
    g = _unfold.gram(z, mode)
    if g.dtype != z.dtype:
        # squares leave the range of single precision
        g = xp.astype(g / max(float(xp.max(xp.abs(g))), 1e-300), z.dtype)
    q = xp.linalg.qr(g @ xp.matrix_transpose(_gauss(philox, mode, width, z)))[0]
    return xp.linalg.qr(g @ q)[0]


def st_hosvd(x: Any, philox: Philox, *, budget: float, square: float) -> _unfold.Truncated:
    """Sequentially truncated, with the vectors of a mode from a random projection [1]_.

    It grows until ``||X||^2 - ||Q^H X||^2`` shows that it suffices.
    """
    factors: list[Any] = [None] * x.ndim
    spent = 0.0
    for done, mode in enumerate(_unfold.order(x.shape, range(x.ndim), None)):
        share = max(budget - spent, 0.0) / (x.ndim - done)
        stream = philox.spawn(_SKETCH + mode)
        factors[mode], x, lost = _of_budget(x, mode, share, square - spent, stream)
        spent += lost
    return _unfold.Truncated(x, tuple(factors), spent, ("randomized",) * x.ndim)


def _of_budget(
    x: Any, mode: int, budget: float, square: float, philox: Philox
) -> tuple[Any, Any, float]:
    """Vectors, the projected tensor and the squared error."""
    xp = _xp.namespace(x)
    n, width = x.shape[mode], 16 + OVERSAMPLE
    while width < min(n, math.prod(x.shape) // n):
        q = _range(x, mode, width, philox)
        inner = _unfold.mode_product(x, adjoint(xp, q), mode)
        lost = max(square - _unfold.squared_norm(inner), 0.0)
        # half of what is left for the vectors after it
        if lost <= budget / 2:
            found = _unfold.leading(inner, mode, budget=budget - lost)
            v = found.vectors
            return q @ v, _unfold.mode_product(inner, adjoint(xp, v), mode), lost + found.tail
        width *= 2
    found = _unfold.leading(x, mode, budget=budget)
    u = found.vectors
    return u, _unfold.mode_product(x, adjoint(xp, u), mode), found.tail


def _range(x: Any, mode: int, width: int, philox: Philox) -> Any:
    """Orthonormal Q (n, width) near the leading left singular vectors, by one power step.

    The projection is a Kronecker product of one small Gaussian matrix for every other mode, so that
    the first look at x costs ``2 N width^(1/(d-1))`` and no more random numbers than rows of x.
    """
    xp = _xp.namespace(x)
    y = _kronecker_sketch(x, mode, width, philox)
    q = xp.linalg.qr(y)[0]
    z = _unfold.mode_product(x, adjoint(xp, q), mode)
    return xp.linalg.qr(_cross(x, z, mode))[0]


def _kronecker_sketch(x: Any, mode: int, width: int, philox: Philox) -> Any:
    """``X_(k)`` times random columns: the ``width`` first of a Kronecker product's."""
    others = [j for j in range(x.ndim) if j != mode]
    y, need = x, 2 * width
    # wide modes take their share, narrow ones what they have
    for place, j in enumerate(sorted(others, key=lambda j: x.shape[j])):
        s = min(x.shape[j], math.ceil(need ** (1 / (len(others) - place))))
        need = math.ceil(need / s)
        if s < x.shape[j]:
            y = _unfold.mode_product(y, _gauss(philox, j, s, x), j)
    flat = _unfold.view(y, mode)
    xp = _xp.namespace(x)
    rows = xp.reshape(xp.permute_dims(flat, (1, 0, 2)), (x.shape[mode], -1))
    if rows.shape[1] <= width:
        return rows
    return rows @ xp.matrix_transpose(_gauss(philox, x.ndim, width, x, rows.shape[1]))


def _gauss(philox: Philox, j: int, rows: int, x: Any, columns: int = 0) -> Any:
    """Gaussian (rows, n_j) in the dtype of x."""
    columns = columns or x.shape[j]
    g = philox.spawn(64 * philox.stream + j).normal(rows * columns).reshape(rows, columns)
    g = g.astype(_xp.dtype_name(x))
    return g if isinstance(x, np.ndarray) else _xp.from_numpy(g, _xp.namespace(x), like=x)


def _cross(x: Any, z: Any, mode: int) -> Any:
    """``X_(k) Z_(k)^H`` (n, l)."""
    a, b = _unfold.view(x, mode), _unfold.view(z, mode)
    xp = _xp.namespace(a)
    if a.shape[2] == 1:
        turned = b[:, :, 0]
        turned = xp.conj(turned) if _xp.dtype_name(turned) in _xp.COMPLEX else turned
        return xp.matrix_transpose(a[:, :, 0]) @ turned
    total = None
    for i in range(a.shape[0]):
        part = a[i, :, :] @ adjoint(xp, b[i, :, :])
        total = part if total is None else total + part
    return total


# --- One pass ------------------------------------------------------------------------------------


class OnePass(NamedTuple):
    """What one pass recovers."""

    core: Any
    factors: tuple[Any, ...]
    shape: tuple[int, ...]
    square: float  # of the norm
    error: float  # estimated, relative


class Sketch:
    """Sums of one pass [2]_: a sketch of every mode, one of the core, one that tells the error.

    Parameters
    ----------
    shape : tuple of int
        ``(n_2, ..., n_d)`` of the slabs.
    """

    def __init__(self, shape: Sequence[int], ranks: Sequence[int], dtype: Any, rng: Any) -> None:
        self.shape, self.ranks, self.dtype = tuple(shape), tuple(ranks), np.dtype(dtype)
        self.philox = Philox(rng)
        self.rows = 0
        self.square = 0.0
        # k = 2 r + 1 and s = 2 k + 1 (section 5), no more than there are
        self.widths = [2 * r + 1 for r in ranks]
        self.widths[1:] = [min(k, n) for k, n in zip(self.widths[1:], shape, strict=True)]
        self.sizes = [2 * k + 1 for k in self.widths]
        self.sizes[1:] = [min(s, n) for s, n in zip(self.sizes[1:], shape, strict=True)]
        self.first: list[Any] = []
        self.others: list[Any] = [None] * len(shape)
        self.core: Any = None
        self.probe = CountSketch(BUCKETS, None, rng=self.philox.spawn(_PROBE))
        wide = "complex128" if self.dtype.kind == "c" else "float64"
        self.buckets = self.probe.accumulator(1, dtype=wide)

    def update(self, slab: Any) -> None:
        """Read the next slab (rows, n_2, ..., n_d)."""
        rows, d = slab.shape[0], slab.ndim
        self.square += _unfold.squared_norm(slab)
        if not math.isfinite(self.square):
            return  # and the caller says so
        self.first.append(mttkrp(slab, self._tests(0, self.rows, rows), 0, check_finite=False))
        for mode in range(1, d):
            part = mttkrp(slab, self._tests(mode, self.rows, rows), mode, check_finite=False)
            old = self.others[mode - 1]
            self.others[mode - 1] = part if old is None else old + part
        core = slab
        for mode in range(1, d):
            core = _unfold.mode_product(core, self._core(mode, self.shape[mode - 1]), mode)
        core = _unfold.mode_product(core, self._core(0, rows, self.rows), 0)
        self.core = core if self.core is None else self.core + core
        self.buckets.update(slab.reshape(-1, 1), offset=self.rows * math.prod(self.shape))
        self.rows += rows

    def result(self) -> OnePass:
        """Of all slabs read."""
        shape = (self.rows, *self.shape)
        ranks = [min(r, n) for r, n in zip(self.ranks, shape, strict=True)]
        qs = [np.linalg.qr(g)[0] for g in (np.concatenate(self.first), *self.others)]
        core = self.core
        for mode, q in enumerate(qs):
            # the core's sketch, seen through the ranges found (algorithm 4.3)
            seen = self._core(mode, shape[mode]) @ q
            core = _unfold.mode_product(core, np.linalg.pinv(seen), mode)
        small = _unfold.st_hosvd(core, ranks=ranks)
        factors = tuple(q @ u for q, u in zip(qs, small.factors, strict=True))
        error = self._error(small.core, factors)
        return OnePass(small.core, factors, shape, self.square, error)

    def _error(self, core: Any, factors: Sequence[Any]) -> float:
        """Estimated from as many sums as the probe has, with random signs, of all entries."""
        entries = math.prod(self.shape)
        step, mine = (
            max(1, _unfold.PIECE // (8 * max(entries, 1))),
            self.probe.accumulator(1, dtype=self.buckets.result().dtype),
        )
        for i in range(0, self.rows, step):
            y = _unfold.mode_product(core, factors[0][i : i + step], 0)
            for mode in range(1, core.ndim):
                y = _unfold.mode_product(y, factors[mode], mode)
            mine.update(y.reshape(-1, 1), offset=i * entries)
        left = _unfold.squared_norm(self.buckets.result() - mine.result())
        return math.sqrt(left / self.square) if self.square else 0.0

    def _normal(self, stream: int, n: int, columns: int, start: int = 0) -> Any:
        """Rows ``start`` and after of a Gaussian matrix with so many columns."""
        drawn = self.philox.spawn(stream).normal(n * columns, start=start * columns)
        return drawn.reshape(n, columns).astype(self.dtype)

    def _tests(self, mode: int, start: int, rows: int) -> list[Any]:
        """Matrices of the Khatri-Rao product that the unfolding of this mode is multiplied by."""
        k, d = self.widths[mode], len(self.shape) + 1
        sizes = (rows, *self.shape)
        return [
            self._normal(_SKETCH + mode * d + j, sizes[j], k, start if j == 0 else 0)
            for j in range(d)
        ]

    def _core(self, mode: int, n: int, start: int = 0) -> Any:
        """Columns ``start`` and after of the matrix (s, n) that reads this mode of the core."""
        size = self.sizes[mode]
        if mode and size == self.shape[mode - 1]:
            return np.eye(size, dtype=self.dtype)
        return self._normal(_CORE + mode, n, size, start).T
