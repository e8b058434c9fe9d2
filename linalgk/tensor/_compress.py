"""Coefficients of a function with factors of any kind, in orthonormal ones of least size."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk.tensor import _unfold


class Compressed(NamedTuple):
    """``core x_1 U_1 ... x_d U_d`` with real orthonormal columns in every U."""

    core: Any
    factors: tuple[Any, ...]
    error: float  # Frobenius norm of the coefficients left out


def compress(
    core: Any, factors: Sequence[Any], *, tol: float, trim: bool = True, method: str = "auto"
) -> Compressed:
    """The same coefficients to the absolute Frobenius norm ``tol``.

    Factors (m_k, r_k) are real and need be neither orthonormal nor of full rank; the core real or
    complex. The factors are orthonormalised first and what is left of them goes into the core, so
    that nothing depends on how they were scaled: a core of huge numbers over factors of tiny ones
    would lose its derivatives. With ``trim`` half of the squared tolerance may go into the highest
    degrees.
    """
    if 0 in core.shape:
        zero = [np.eye(max(f.shape[0], 1), 1, dtype=f.dtype) for f in factors]
        return Compressed(np.zeros((1,) * core.ndim, core.dtype), tuple(zero), 0.0)
    reduced = [np.linalg.qr(f) for f in factors]
    core = mixed_products(core, [r for _, r in reduced])
    found = truncate(core, tol=tol / 2**0.5 if trim else tol, method=method)
    bases = [q @ u for (q, _), u in zip(reduced, found.factors, strict=True)]
    if not trim:
        return Compressed(found.core, tuple(bases), found.error)
    core, bases, lost = _trimmed(found.core, bases, max(tol**2 - found.error**2, 0.0))
    return Compressed(core, tuple(bases), (found.error**2 + lost) ** 0.5)


def truncate(core: Any, *, tol: float, method: str = "auto") -> Compressed:
    """Real orthonormal factors of least ranks for a real or complex core (n_1, ..., n_d)."""
    d = core.ndim
    if core.dtype.kind == "c":
        # two real tensors that share their factors
        core = np.ascontiguousarray(core)
        pair = core.view(core.real.dtype).reshape(*core.shape, 2)
        found = _possible(_unfold.st_hosvd(pair, budget=tol**2, modes=range(d), method=method), d)
        small = np.ascontiguousarray(found.core).view(core.dtype)[..., 0]
    else:
        found = _possible(_unfold.st_hosvd(core, budget=tol**2, method=method), d)
        small = found.core
    return Compressed(small, found.factors[:d], found.squared_error**0.5)


def _possible(found: _unfold.Truncated, d: int) -> _unfold.Truncated:
    """With no rank above the product of the others: modes that went first saw more of them."""
    shape = found.core.shape
    most = [min(r, math.prod(shape) // r) for r in shape[:d]]
    if tuple(most) == shape[:d]:
        return found
    again = _unfold.st_hosvd(found.core, ranks=most, modes=range(d), method="lq")
    factors = [f @ u for f, u in zip(found.factors[:d], again.factors[:d], strict=True)]
    error = found.squared_error + again.squared_error
    return _unfold.Truncated(again.core, tuple(factors), error, found.methods)


def mixed_products(core: Any, factors: Sequence[Any]) -> Any:
    """Mode products of a real or complex core with real matrices."""
    if core.dtype.kind == "c":
        real, imag = (
            _unfold.mode_products(np.ascontiguousarray(x), factors) for x in (core.real, core.imag)
        )
        return real + 1j * imag
    return _unfold.mode_products(core, factors)


def _trimmed(core: Any, factors: list[Any], budget: float) -> tuple[Any, list[Any], float]:
    """Without the last rows of the factors, as far as their squared norms allow."""
    lost = 0.0
    for k, f in enumerate(factors):
        flat = np.moveaxis(core, k, 0).reshape(core.shape[k], -1)
        squares = np.sum(np.abs(f @ flat) ** 2, axis=1)
        tails = np.cumsum(squares[::-1])[::-1]
        share = (budget - lost) / (len(factors) - k)
        keep = max(int(np.count_nonzero(tails > share)), 1)
        if keep == f.shape[0]:
            continue
        lost += float(tails[keep])
        q, r = np.linalg.qr(f[:keep])
        factors[k] = q
        core = mixed_products(core, [r if j == k else None for j in range(core.ndim)])
    return core, factors, lost
