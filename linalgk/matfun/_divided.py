"""Divided differences of scalar functions, without cancellation and finite at equal arguments.

``f[a, b] = (f(a) - f(b))/(a - b)`` and ``f[a, b, c] = (f[a, b] - f[b, c])/(a - c)`` are the kernels
of the first and second derivative of a function of a Hermitian matrix in its eigenvectors.
"""

import cmath
import math
from typing import Any, NamedTuple

from linalgk import _xp
from linalgk.matfun._spectral import Scalar

# Largest denominator of a power whose differences are quotients of sums of positive terms.
_ALGEBRAIC = 16
# Arguments whose distance is at most this share of their sum take the series, whose terms fall by
# it; less for large powers, whose coefficients grow.
_NEAR, _TERMS = 1 / 7, 20


class Rule(NamedTuple):
    """A function and what counts as zero; the bounds broadcast with the arguments.

    Pairs that are both at most ``null`` in size, where the derivative of a root is infinite, have
    the difference zero: the derivative along matrices of the same rank. Numbers up to ``cut`` have
    ``f = 0``. ``signed``: negative numbers have their complex principal value.
    """

    function: Scalar
    null: Any
    cut: Any = None
    signed: bool = False

    @property
    def turn(self) -> Any:
        """``f(-x)/f(x)`` of a power."""
        t = self.function.power
        return (-1.0) ** int(t) if t.denominator == 1 else cmath.exp(1j * math.pi * float(t))


def first(rule: Rule, a: Any, b: Any) -> Any:
    """``f[a, b]`` of broadcasting real arrays."""
    xp = _xp.namespace(a)
    a, b = a + 0 * b, b + 0 * a
    floor = rule.null if rule.cut is None else rule.cut
    both = (xp.abs(a) <= floor) & (xp.abs(b) <= floor)
    a, b = (xp.where(both, xp.ones_like(x), x) for x in (a, b))
    if rule.function.power.denominator > 1 or rule.function.name == "log":
        value = _fractional(rule, a, b)
    else:
        value = _algebraic(rule.function, a, b)
    if rule.cut is not None:
        value = _with_cut(rule, a, b, value)
    return xp.where(both, xp.zeros_like(value), value)


def second(rule: Rule, a: Any, b: Any, c: Any) -> Any:
    """``f[a, b, c]``; zero where two of the numbers are null."""
    xp = _xp.namespace(a)
    high, low = xp.maximum(a, b), xp.minimum(a, b)
    middle = xp.maximum(low, xp.minimum(high, c))
    high, low = xp.maximum(high, c), xp.minimum(low, c)
    small, large = xp.minimum(xp.abs(high), xp.abs(low)), xp.maximum(xp.abs(high), xp.abs(low))
    share = _NEAR / max(1.0, 0.5 * abs(float(rule.function.power)))
    near = (large - small <= share * (large + small)) & (high * low > 0)
    if rule.cut is not None:
        near = near & (small > rule.cut)
    one = xp.ones_like(high)
    gap = xp.where(near | (high == low), one, high - low)
    value = (first(rule, high, middle) - first(rule, middle, low)) / gap
    close = _series(rule.function, *(xp.where(near, xp.abs(x), one) for x in (high, middle, low)))
    if rule.function.name == "power":
        negative = near & (low < 0)
        close = xp.where(negative, rule.turn * close, close) if _turns(rule) else close
    value = xp.where(near, xp.astype(close, value.dtype), value)
    nulls = sum(xp.astype(xp.abs(x) <= rule.null, high.dtype) for x in (high, middle, low))
    return xp.where(nulls >= 2, xp.zeros_like(value), value)


def _turns(rule: Rule) -> bool:
    return rule.signed or rule.function.power.denominator == 1


def _fractional(rule: Rule, a: Any, b: Any) -> Any:
    function = rule.function
    algebraic = function.name == "power" and function.power.denominator <= _ALGEBRAIC
    positive = _algebraic if algebraic else _smooth
    if not rule.signed:
        return positive(function, a, b)
    xp = _xp.namespace(a)
    size_a, size_b = xp.abs(a), xp.abs(b)
    same = positive(function, size_a, size_b)
    gap = xp.where(a * b < 0, a - b, xp.ones_like(a))
    if function.name == "log":
        logs = [xp.log(s) + 1j * math.pi * xp.astype(x < 0, s.dtype) for s, x in
                ((size_a, a), (size_b, b))]  # fmt: skip
        turned = -same
    else:
        t = float(function.power)
        logs = [
            xp.where(x < 0, rule.turn * s**t, xp.astype(s**t, same.dtype) * (1 + 0j))
            for s, x in ((size_a, a), (size_b, b))
        ]
        turned = -rule.turn * same
    mixed = (logs[0] - logs[1]) / gap
    same = xp.where(a < 0, turned, xp.astype(same, mixed.dtype))
    return xp.where(a * b < 0, mixed, same)


def _algebraic(function: Scalar, a: Any, b: Any) -> Any:
    """With y = x^(1/d): ``h_(m-1)(y_a, y_b)/h_(d-1)(y_a, y_b)``, h the complete symmetric sums."""
    m, d = abs(function.power.numerator), function.power.denominator
    ya, yb = _root(a, d), _root(b, d)
    if m == 0:
        return 0 * ya * yb
    value = _symmetric(m - 1, ya, yb) / _symmetric(d - 1, ya, yb)
    return -value / (ya**m * yb**m) if function.power < 0 else value


def _root(x: Any, d: int) -> Any:
    xp = _xp.namespace(x)
    if d == 1:
        return x
    if d in (2, 4):
        y = xp.sqrt(x)
        return y if d == 2 else xp.sqrt(y)
    return x ** (1 / d)


def _symmetric(k: int, a: Any, b: Any) -> Any:
    """``sum a^i b^(k-i)``."""
    total, power = _xp.namespace(a).ones_like(a), b
    for _ in range(k):
        total = a * total + power
        power = power * b
    return total


def _smooth(function: Scalar, a: Any, b: Any) -> Any:
    """Any real power, or the logarithm, of numbers that are not negative."""
    xp = _xp.namespace(a)
    high, low = xp.maximum(a, b), xp.minimum(a, b)
    change = (low - high) / high
    far, equal = change < -0.5, change == 0
    step = xp.where(equal, xp.full_like(change, -0.25), change)
    half = xp.full_like(step, 0.5)
    log = xp.where(
        far, xp.log(xp.where(far, low / high, half)), xp.log1p(xp.where(far, -half, step))
    )
    if function.name == "log":
        return xp.where(equal, xp.ones_like(high), log / step) / high
    t = float(function.power)
    ratio = xp.where(equal, xp.full_like(high, t), xp.expm1(t * log) / step)
    return ratio * high ** (t - 1)


def _with_cut(rule: Rule, a: Any, b: Any, both: Any) -> Any:
    """Where one of the two is cut off, f of the other over the gap."""
    xp, t = _xp.namespace(a), float(rule.function.power)
    kept_a, kept_b = xp.abs(a) > rule.cut, xp.abs(b) > rule.cut
    same, one = kept_a == kept_b, xp.ones_like(a)
    other = xp.where(same, one, xp.where(kept_a, a, b))
    alone = (1 / other if t == -1 else other**t) / xp.where(same, one, a - b)
    return xp.where(same, both, xp.where(kept_a, alone, -alone))


def _series(function: Scalar, high: Any, middle: Any, low: Any) -> Any:
    """``sum_k f^(k+2)(m)/(k+2)! h_k`` of the distances from the middle m of the range."""
    mean = 0.5 * (high + low)
    a, b, c = (x / mean - 1 for x in (high, middle, low))
    log, t = function.name == "log", float(function.power)
    coeff = -0.5 if log else 0.5 * t * (t - 1)
    h1 = h2 = h3 = _xp.namespace(mean).ones_like(mean)
    total = coeff * h3
    for k in range(1, _TERMS):
        # h_k of one, two and three arguments
        h1 = h1 * c
        h2 = b * h2 + h1
        h3 = a * h3 + h2
        coeff *= -(k + 1) / (k + 2) if log else (t - k - 1) / (k + 2)
        total = total + coeff * h3
    return total * mean ** (-2.0 if log else t - 2)
