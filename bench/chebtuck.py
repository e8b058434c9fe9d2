"""The Chebyshev-Tucker format of a fixed degree, from the formulas of [1]_, and its problems.

Canonical vectors on a grid of cells are interpolated by cubic splines at m Chebyshev points, with
whatever degree m - 1 gives: algorithm 3 multiplies the coefficients out and takes a HOSVD of all
of them, algorithm 4 takes singular vectors of each mode's columns (RHOSVD). Truncated is what lies
below the tolerance times the largest singular value; at m = 129, 513 and 2049 that gives the ranks
and errors that the authors' code has in its experiments.

.. [1] P. Benner, B. N. Khoromskij, V. Khoromskaia, B. Sun, "A mesh-free hybrid Chebyshev-Tucker
   tensor format with applications to multi-particle modelling", arXiv:2503.01696.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import linalgk as lk

TOL = 1e-7
CUBE = [(-1.0, 1.0)] * 3


class Fixed(NamedTuple):
    """Core (r_1, r_2, r_3) and orthonormal columns of Chebyshev coefficients (m, r_k)."""

    core: Any
    factors: list[Any]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Size of the core in each mode."""
        return tuple(self.core.shape)


def cells(n: int) -> Any:
    """The centres of n equal cells of [-1, 1]."""
    return np.arange(1 - n, n, 2) / n


def newton(n: int, tol: float = TOL) -> tuple[Any, Any]:
    """``1/r`` at the centres of n^3 cells as a canonical tensor, and the sum it comes from.

    The interval of the sum is from the centre of a cell next to the origin to the corner. The
    smoothest terms come first.
    """
    total = lk.gaussian_sum("newton", math.sqrt(3) / n, math.sqrt(3), tol)
    columns = np.exp(-np.outer(cells(n) ** 2, total.exponents))
    return lk.CanonicalTensor(total.weights, [columns] * 3), total


def part(t: Any, terms: Any) -> Any:
    """The canonical tensor of the first so many terms, or of those listed."""
    chosen = slice(0, terms) if isinstance(terms, int) else terms
    return lk.CanonicalTensor(t.weights[chosen], [f[:, chosen] for f in t.factors])


def published(file: Path) -> tuple[Any, dict[str, Any]]:
    """The canonical tensor of an archive with weights and columns, and all that it holds."""
    with np.load(file) as archive:
        data = dict(archive)
    factors = [data["U"]] * 3 if "U" in data else [data[f"U{k}"] for k in (1, 2, 3)]
    return lk.CanonicalTensor(data["weights"], factors), data


# --- Fixed degree --------------------------------------------------------------------------------


def interpolated(t: Any, m: int) -> Any:
    """Canonical tensor of m^3 coefficients of cubic splines through values at cells."""
    from scipy.fft import dct
    from scipy.interpolate import make_interp_spline

    at = np.cos(np.pi * np.arange(m) / (m - 1))
    series: list[Any] = []
    for k, f in enumerate(t.factors):
        if k and f is t.factors[0]:
            series.append(series[0])
            continue
        c = dct(make_interp_spline(cells(f.shape[0]), f, k=3)(at), type=1, axis=0) / (m - 1)
        c[[0, -1]] /= 2
        series.append(c)
    return lk.CanonicalTensor(t.weights, series)


def fixed(c: Any, tol: float = TOL, *, full: bool = False) -> Fixed:
    """Algorithm 4, or 3 with ``full``, from canonical coefficients."""
    if full:
        return _hosvd(_multiplied(c.weights, c.factors), tol)
    lengths = [np.linalg.norm(f, axis=0) for f in c.factors]
    weights = c.weights * np.prod(lengths, axis=0)
    units = [f / np.where(n > 0, n, 1.0) for f, n in zip(c.factors, lengths, strict=True)]
    factors = [_leading(u * np.sqrt(np.abs(weights)), tol) for u in units]
    core = _multiplied(weights, [q.T @ u for q, u in zip(factors, units, strict=True)])
    return Fixed(core, factors)


def _leading(side: Any, tol: float) -> Any:
    u, s, _ = np.linalg.svd(side, full_matrices=False)
    return u[:, : max(int(np.count_nonzero(s > tol * s[0])), 1)]


def _multiplied(weights: Any, factors: Sequence[Any]) -> Any:
    """``sum_r w_r a_r x b_r x c_r``."""
    a, b, c = factors
    pairs = (a * weights)[:, None, :] * b[None, :, :]
    return (pairs.reshape(-1, weights.size) @ c.T).reshape(a.shape[0], b.shape[0], c.shape[0])


def _hosvd(c: Any, tol: float) -> Fixed:
    """Of each unfolding by its Gram matrix, whose square roots are good to half the digits."""
    factors = []
    for k in range(c.ndim):
        side = np.moveaxis(c, k, 0).reshape(c.shape[k], -1)
        squares, vectors = np.linalg.eigh(side @ side.T)
        keep = squares > tol**2 * squares[-1]
        factors.append(np.ascontiguousarray(vectors[:, keep][:, ::-1]))
    core = c
    for k, q in enumerate(factors):
        core = np.moveaxis(np.tensordot(core, q, axes=(k, 0)), -1, k)
    return Fixed(core, factors)


# --- Errors --------------------------------------------------------------------------------------


def slice_errors(
    functions: Sequence[Any], t: Any, slices: Sequence[int], *, half: bool = False
) -> tuple[list[float], float]:
    """The largest differences from the tensor on slices z = const, and its largest entry there.

    Each function is a `Fixed` or a `ChebTucker` on [-1, 1]^3, the grid is of cells. With ``half``
    only nonnegative x and y, for what is even.
    """
    rows = [slice(n // 2 if half else 0, None) for n in t.shape[:2]] + [list(slices)]
    at = [cells(n)[row] for n, row in zip(t.shape, rows, strict=True)]
    columns = [f[row] for f, row in zip(t.factors, rows, strict=True)]
    values = [_values(f.factors, at) for f in functions]
    gaps, top = [0.0] * len(functions), 0.0
    for k, theirs in enumerate(columns[2]):
        want = (columns[0] * (t.weights * theirs)) @ columns[1].T
        top = max(top, _largest(want))
        for i, (f, (x, y, z)) in enumerate(zip(functions, values, strict=True)):
            gaps[i] = max(gaps[i], _largest(x @ (f.core @ z[k]) @ y.T - want))
    return gaps, top


def _largest(x: Any) -> float:
    return max(float(x.max()), -float(x.min()))


def _values(factors: Sequence[Any], at: Sequence[Any]) -> list[Any]:
    """Columns of coefficients at points; what has one basis and one grid is done together."""
    bases: dict[Any, Any] = {}
    for c, x in zip(factors, at, strict=True):
        key = c.shape[0], x.size, x[0]
        if key not in bases:
            bases[key] = np.polynomial.chebyshev.chebvander(x, c.shape[0] - 1)
    return [bases[c.shape[0], x.size, x[0]] @ c for c, x in zip(factors, at, strict=True)]


# --- Charges -------------------------------------------------------------------------------------


def cloud(count: int) -> tuple[Any, Any]:
    """Seeded charges of both signs in [-1, 1]^3."""
    rng = np.random.default_rng(count)
    return rng.uniform(-1, 1, (count, 3)), rng.uniform(-1, 1, count)


def gaussians_at(x: Any, points: Any, charges: Any, weights: Any, exponents: Any) -> Any:
    """``sum_n q_n sum_j w_j exp(-a_j |x - y_n|^2)``, directly."""
    square = np.sum((x[:, None, :] - points[None, :, :]) ** 2, axis=-1)
    return sum(w * (np.exp(-a * square) @ charges) for w, a in zip(weights, exponents, strict=True))


def crystal(tol: float = TOL) -> Any:
    """The published lattice as a lattice sum, on its box [-45, 45]^3.

    24 x 24 x 4 charges +1 and between them 23 x 23 x 4 charges -1, at distances of 3: two products
    of charges on 47 x 47 x 4 sites.
    """
    from linalgk.tensor import lattice_sum

    odd = np.arange(47) % 2
    charges = [np.stack([1 - odd, odd], axis=1), np.stack([1 - odd, -odd], axis=1), np.ones((4, 2))]
    return lattice_sum(
        (47, 47, 4), (1.5, 1.5, 3.0), charges=[c.astype(float) for c in charges], tol=tol,
        domain=[(-45.0, 45.0)] * 3,
    )  # fmt: skip


# --- Functions of growing difficulty -------------------------------------------------------------


def tanh(k: float) -> Callable[..., Any]:
    """Steep along a diagonal: ranks grow with k."""
    return lambda x, y, z: np.tanh(k * (x + y + z))


def runge(k: float) -> Callable[..., Any]:
    """A peak: degrees grow with k, ranks hardly."""
    return lambda x, y, z: 1.0 / (1.0 + k * (x * x + y * y + z * z))


SPEEDUP = {
    "tanh": (tanh, tuple(2.0 ** (0.3 * j) for j in range(10))),
    "runge": (runge, tuple(2.0**j for j in range(8))),
}
