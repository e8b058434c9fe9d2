"""Sums of expansions, and what an operation leaves: its ranks, scale, error and certificate.

The absolute error of a function is ``error * scale``. Operations carry it on as *inherited*, add
what their own truncation changes on a grid of Chebyshev points that has the corners, and never
take the largest value to be less than that: an ``error`` of 1 says that nothing is known. In a
certificate ``tail`` is then what was inherited, and ``sampled`` compares with the values of the
operands.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from linalgk.tensor import _chebyshev
from linalgk.tensor._compress import Compressed, compress, mixed_products
from linalgk.tensor._series import Certificate, Series

F = TypeVar("F", bound=Series)

# Points of the grid on which an operation is checked.
SAMPLES = 1 << 16


def eps(dtype: Any) -> float:
    """Distance from 1 to the next number, of a real or complex dtype."""
    return float(np.finfo(dtype).eps)


def absolute(f: Any) -> float:
    """The absolute error, at least that of rounding."""
    return float(max(f.error, eps(f.dtype)) * f.scale)


def same_domain(f: Any, g: Any) -> None:
    """Both on one box."""
    if f.domain != g.domain:
        msg = f"other: must have the domain {f.domain}, got {g.domain}"
        raise ValueError(msg)


# --- Grids ---------------------------------------------------------------------------------------


def grid_shape(lengths: Sequence[int], points: int = SAMPLES) -> tuple[int, ...]:
    """Points on each axis: about two for each coefficient, fewer where all would be too many."""
    wanted = [2 * m - 1 for m in lengths]
    low, high = 1, max(wanted)
    while low < high:
        cap = (low + high + 1) // 2
        if math.prod(min(n, cap) for n in wanted) <= points:
            low = cap
        else:
            high = cap - 1
    # a single point would be the middle, without the ends
    return tuple(min(n, max(low, 2)) for n in wanted)


def tables(factors: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """Values of the factors at the Chebyshev points of each axis, in double precision."""
    return [at_points(c.astype(np.float64), n) for n, c in zip(shape, factors, strict=True)]


def at_points(c: Any, n: int) -> Any:
    """Values (n, r) at n Chebyshev points of series (m, r) of any length.

    On the points ``T_k`` is ``T_j`` for the j < n that k folds to, k mod 2(n - 1) or less that;
    what is left is a DCT.
    """
    m = c.shape[0]
    if n == 1:
        return np.polynomial.chebyshev.chebval(np.zeros(1), c).T
    folded = np.zeros((n, c.shape[1]))
    folded[: min(m, n)] = c[:n]
    if m > n:
        period = 2 * (n - 1)
        k = np.arange(n, m) % period
        np.add.at(folded, np.minimum(k, period - k), c[n:])
    return _chebyshev.values(folded)


def grid_values(core: Any, factors: Sequence[Any], shape: Sequence[int]) -> Any:
    """Values on the grid of Chebyshev points, in double precision."""
    return mixed_products(_double(core), tables(factors, shape))


def _double(core: Any) -> Any:
    return core.astype(np.complex128 if core.dtype.kind == "c" else np.float64)


# --- Sums ----------------------------------------------------------------------------------------


def total(terms: Sequence[tuple[Any, Sequence[Any]]]) -> tuple[Any, list[Any]]:
    """Core and orthonormal factors of a sum of (core, factors), in double precision.

    The bases of all terms in one mode get one orthonormal basis; a factor that several terms
    share goes into it once. The core is of the size ``prod min(m_k, sum of ranks)``.
    """
    d = terms[0][0].ndim
    length = [max(factors[k].shape[0] for _, factors in terms) for k in range(d)]
    bases: list[Any] = []
    triangles: list[dict[int, Any]] = []
    for k in range(d):
        distinct = {id(factors[k]): factors[k] for _, factors in terms}
        columns = [_padded(c, length[k]) for c in distinct.values()]
        q, r = np.linalg.qr(np.concatenate(columns, axis=1))
        ends = np.cumsum([c.shape[1] for c in columns])[:-1]
        bases.append(q)
        triangles.append(dict(zip(distinct, np.split(r, ends, axis=1), strict=True)))
    core = 0.0
    for part, factors in terms:
        own = [np.ascontiguousarray(triangles[k][id(factors[k])]) for k in range(d)]
        core = core + mixed_products(_double(part), own)
    return core, bases


def _padded(c: Any, length: int) -> Any:
    out = np.zeros((length, c.shape[1]))
    out[: c.shape[0]] = c
    return out


# --- Results -------------------------------------------------------------------------------------


def settle(
    parents: Sequence[F], core: Any, factors: Sequence[Any], *, method: str, inherited: float,
    tol: float | None = None, exact: Any = None, shape: Sequence[int] | None = None,
    domain: Any = None,
) -> F:  # fmt: skip
    """A `Series` of least ranks for this expansion, its truncation checked on a grid.

    ``tol`` and ``inherited`` are absolute. The Frobenius norm that the truncation is asked for
    does not bound the largest value, so that it is repeated with less where the grid shows more;
    without ``tol`` only what rounding made goes. ``exact`` are the values on the grid ``shape``.
    """
    first = parents[0]
    dtype = np.result_type(_kind(core), *[_real(f) for f in parents])
    real = np.dtype(dtype.type(0).real.dtype)
    shape = grid_shape([c.shape[0] for c in factors]) if shape is None else shape
    exact = grid_values(core, factors, shape) if exact is None else exact
    scale = float(np.max(np.abs(exact)))
    rounding = eps(dtype) * scale
    wanted = rounding if tol is None else max(tol, rounding)
    budget = wanted
    for _ in range(3):
        kept = compress(_double(core), [c.astype(np.float64) for c in factors], tol=budget)
        kept = Compressed(
            kept.core.astype(dtype), tuple(c.astype(real) for c in kept.factors), kept.error
        )
        found = float(np.max(np.abs(grid_values(kept.core, kept.factors, shape) - exact)))
        if found <= max(wanted, 50 * rounding):
            break
        budget *= 0.5 * wanted / found
    lost = max(found, kept.error)
    # absolute coefficients sum up to at most this
    bound = kept.error * math.sqrt(math.prod(c.shape[0] for c in factors))
    scale = max(scale, inherited + lost)
    relative = 1.0 / scale if scale else 0.0
    return type(first)(
        kept.core, kept.factors, first.domain if domain is None else domain,
        error=(inherited + lost) * relative, scale=scale,
        converged=all(f.converged for f in parents), method=method,
        certificate=Certificate(
            inherited * relative, bound * relative, found * relative, math.prod(shape)
        ),
        evaluations=sum(f.evaluations for f in parents),
    )  # fmt: skip


def _real(f: Any) -> Any:
    return f.factors[0].dtype


def _kind(core: Any) -> Any:
    # the precision comes from the parents, the core was computed in double
    return np.complex64 if core.dtype.kind == "c" else np.float32
