"""Sums of Gaussians over particles as a Chebyshev-Tucker function, a particle at a time in memory.

A Gaussian ``exp(-a (x - y)^2)`` is a smooth function of both its ends, ``u(x)^T B u(y)`` with few
functions u that serve all exponents, so that the sum over particles [1]_ needs no column per
particle and exponent, but the moments of the charges in a basis [2]_:

    ``sum_j w_j sum_n q_n exp(-a_j |x - y_n|^2) = sum_j w_j (B_j x B_j x B_j) M``,
    ``M = sum_n q_n u(y_n) x u(y_n) x u(y_n)``.

.. [1] P. Benner, V. Khoromskaia, B. N. Khoromskij, "Range-separated tensor format for
   many-particle modeling", SIAM J. Sci. Comput. 40 (2018).
.. [2] W. Fong, E. Darve, "The black-box fast multipole method", J. Comput. Phys. 228 (2009),
   section 2: interpolation at both ends and its compression.
"""

from typing import Any, NamedTuple

import numpy as np

from linalgk._pieces import mapped
from linalgk.tensor import _chebyshev
from linalgk.tensor._unfold import mode_products

# Particles of a piece, and of the tables within it that stay in a cache.
PIECE = 1 << 13
CACHED = 1 << 10
# Numbers of a piece of a direct sum.
DIRECT = 1 << 17
# Least length of a series, and the most that is tried.
SHORTEST = 9
LONGEST = 1 << 13


class Basis(NamedTuple):
    """Functions of one variable in which Gaussians of all exponents are matrices."""

    factors: Any  # (m, r) orthonormal columns of Chebyshev coefficients
    matrices: Any  # (J, r, r)
    tail: float  # largest coefficient left out, relative to the peak


def basis(exponents: Any, shares: Any, tol: float) -> Basis:
    """For ``exp(-a_j (x - y)^2)``, x and y in [-1, 1], each to ``tol / shares[j]``.

    ``shares`` sum to 1: what each Gaussian contributes to a kernel of peak 1.
    """
    sharpest = float(exponents.max())
    m = length(sharpest, tol)
    while m < LONGEST:
        t = _chebyshev.points(m)
        square = (t[:, None] - t[None, :]) ** 2
        ends = _chebyshev.coefficients(np.exp(-sharpest * square))
        if np.abs(ends[-max(m // 16, 2) :]).max() <= tol / 8:
            break
        m = m * 5 // 4 + 4
    columns = [
        share * _chebyshev.coefficients(np.exp(-a * square))
        for a, share in zip(exponents, shares, strict=True)
    ]
    sizes = np.max([np.abs(c).max(axis=1) for c in columns], axis=0)
    m = max(int(np.flatnonzero(sizes > tol / 8)[-1]) + 1, 1)
    tail = float(sizes[m:].max(initial=0.0))
    vectors = _leading(np.concatenate([c[:m] for c in columns], axis=1), tol)
    matrices = []
    for c, share in zip(columns, shares, strict=True):
        both = _chebyshev.coefficients(c[:m], axis=1)[:, :m]
        matrices.append(vectors.T @ both @ vectors / share)
    return Basis(vectors, np.stack(matrices), tail)


def length(exponent: float, tol: float) -> int:
    """About how many coefficients ``exp(-exponent x^2)`` has; a start for the search."""
    return max(SHORTEST, int(1.5 * np.sqrt(max(exponent, 1.0)) + 2 * np.log(1 / tol)))


def _leading(columns: Any, tol: float) -> Any:
    """The fewest singular vectors that leave no column (m, n) with a residual above ``tol``."""
    import scipy.linalg

    r = scipy.linalg.qr(columns.T, mode="r", check_finite=False)[0][: columns.shape[0]]
    u = np.linalg.svd(r.T, full_matrices=False)[0]
    squares = (u.T @ columns) ** 2
    tails = np.cumsum(squares[::-1], axis=0)[::-1].max(axis=1)
    return u[:, : max(int(np.count_nonzero(tails > tol**2)), 1)]


def moments(points: Any, charges: Any, factors: Any, threads: int) -> Any:
    """``sum_n q_n u(x_n) x u(y_n) x u(z_n)`` for points (N, 3) in [-1, 1]: (r_1, r_2, r_3)."""
    n = charges.size
    sizes = [f.shape[1] for f in factors]

    def piece(first: int, last: int) -> Any:
        found = np.zeros((sizes[1], sizes[0], sizes[2]))
        for i in range(first, last, CACHED):
            j = min(i + CACHED, last)
            x, y, z = (
                _chebyshev.basis(np.ascontiguousarray(points[i:j, k]), f.shape[0]) @ f
                for k, f in enumerate(factors)
            )
            x = np.ascontiguousarray((x * charges[i:j, None]).T)
            y = np.ascontiguousarray(y.T)
            for number, row in enumerate(y):
                found[number] += (x * row) @ z
        return found

    total = np.zeros((sizes[1], sizes[0], sizes[2]))
    pieces = [(i, min(i + PIECE, n)) for i in range(0, n, PIECE)]
    for part in mapped(piece, pieces, threads=threads):
        total += part
    return total.transpose(1, 0, 2)


def core(moment: Any, weights: Any, matrices: Any) -> Any:
    """``sum_j w_j (B_j x B_j x B_j) M`` with matrices (J, r_k, r_k) for each variable."""
    total = np.zeros(moment.shape)
    for j, w in enumerate(weights):
        total += w * mode_products(moment, [b[j] for b in matrices])
    return total


def direct(
    targets: Any, points: Any, charges: Any, gaussians: tuple[Any, Any], exact: Any, radius: float,
    *, threads: int,
) -> tuple[Any, Any]:  # fmt: skip
    """Sums at targets (n, 3): of the Gaussians, and of the rest of the kernel past the radius.

    ``exact`` is the kernel as a function of the squared distance.
    """
    step = max(1, DIRECT // max(targets.shape[0], 1))

    def piece(first: int, last: int) -> Any:
        found = np.zeros((2, targets.shape[0]))
        for i in range(first, last, step):
            near = slice(i, min(i + step, last))
            square = squares(targets, points[near])
            kernel = np.zeros_like(square)
            for w, a in zip(*gaussians, strict=True):
                kernel += w * np.exp(-a * square)
            found[0] += kernel @ charges[near]
            rest = exact(np.maximum(square, radius**2)) - kernel
            found[1] += np.where(square > radius**2, rest, 0.0) @ charges[near]
        return found

    pieces = [(i, min(i + PIECE, charges.size)) for i in range(0, charges.size, PIECE)]
    total = sum(mapped(piece, pieces, threads=threads), start=np.zeros((2, targets.shape[0])))
    return total[0], total[1]


def squares(x: Any, y: Any) -> Any:
    """``|x_i - y_j|^2`` (n, p) from differences, exact where points lie close to each other."""
    total = np.subtract.outer(x[:, 0], y[:, 0]) ** 2
    for k in range(1, x.shape[1]):
        step = np.subtract.outer(x[:, k], y[:, k])
        step *= step
        total += step
    return total
