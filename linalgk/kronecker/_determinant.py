"""Signs and logarithms of determinants."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk.kronecker._modes import join


class SignedLog(NamedTuple):
    """Sign, or phase, and logarithm of the absolute value of a determinant."""

    sign: Any
    logabsdet: Any


def of_powers(pairs: Sequence[Any], powers: Sequence[int]) -> tuple[Any, Any]:
    """``prod_i det_i^(m_i)`` of pairs (sign, logarithm)."""
    sign: Any = None
    total: Any = None
    for (s, log), m in zip(pairs, powers, strict=True):
        xp = _xp.namespace(s)
        # the determinant of an empty matrix is one
        s = integer_power(s, m) if m else xp.ones_like(s)
        log = log * m if m else xp.zeros_like(log)
        sign = s if sign is None else sign * s
        total = log if total is None else total + log
    return sign, total


def integer_power(s: Any, m: int) -> Any:
    """A power of numbers that are zero or of size one."""
    if _xp.dtype_name(s) not in _xp.COMPLEX:
        return s if m % 2 else s * s
    xp, found, size = _xp.namespace(s), None, _xp.namespace(s).abs(s)
    while m:
        if m % 2:
            found = s if found is None else found * s
        m //= 2
        s = s * s
        # back to size one, from which roundings lead away
        now = xp.abs(s)
        s = s / xp.where(size > 0, now, xp.ones_like(now))
    return found


def of_eigenvalues(d: Any, *, real: bool) -> tuple[Any, Any]:
    """Sign and logarithm of the product of all d (..., K)."""
    xp = _xp.namespace(d)
    size = xp.abs(d)
    with np.errstate(divide="ignore"):
        total = xp.sum(xp.log(size), axis=-1)
    zero = xp.any(size == 0, axis=-1)
    one = xp.ones_like(total)
    if _xp.dtype_name(d) not in _xp.COMPLEX:
        odd = xp.sum(xp.astype(d < 0, xp.int64), axis=-1) % 2 == 1
        sign = xp.where(odd, -one, one)
    else:
        angle = xp.sum(xp.atan2(xp.imag(d), xp.real(d)), axis=-1)
        if real:
            # conjugates in pairs, so that the angles add up to a multiple of pi
            sign = xp.where(xp.cos(angle) < 0, -one, one)
        else:
            sign = join(xp, xp.cos(angle), xp.sin(angle), d.dtype)
    return xp.where(zero, xp.zeros_like(sign), sign), total
