"""Smooth functions whose integrals and gradients are known, shared by the room's tests."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    name: str
    f: Callable[..., Any]
    domain: list[tuple[float, float]]
    integral: float
    gradient: Callable[..., list[Any]]


def unit(d: int) -> list[tuple[float, float]]:
    return [(0.0, 1.0)] * d


def _inverse(x, y, z):
    return 1 / (1 + x * x + y * y + z * z)


def _oscillatory(x, y, z):
    return np.cos(0.5 + 3 * x + 2 * y + z)


def _product_peak(x, y, z):
    return 1 / ((0.04 + (x - 0.3) ** 2) * (0.0625 + (y - 0.6) ** 2) * (0.25 + (z - 0.5) ** 2))


def _corner(x, y, z):
    return (1 + x + 2 * y + 0.5 * z) ** -4.0


def _gaussian(x, y, z):
    return np.exp(-9 * (x - 0.5) ** 2 - 4 * (y - 0.2) ** 2 - (z - 0.9) ** 2)


# The first is the issue's, the next four are Genz's families. The closed forms stand beside the
# numbers, which have 20 digits.
CASES = [
    Case("inverse quadratic", _inverse, [(-1.0, 1.0)] * 3, 4.2868540623018418827,
         lambda x, y, z: [-2 * t * _inverse(x, y, z) ** 2 for t in (x, y, z)]),
    # Re exp(0.5j) prod (exp(j a) - 1) / (j a)
    Case("oscillatory", _oscillatory, unit(3), -0.50245533723785206844,
         lambda x, y, z: [-a * np.sin(0.5 + 3 * x + 2 * y + z) for a in (3, 2, 1)]),
    # prod c (atan(c (1 - w)) + atan(c w)), c = 5, 4, 2
    Case("product peak", _product_peak, unit(3), 312.82694616843559169,
         lambda x, y, z: [-2 * (t - w) / (c + (t - w) ** 2) * _product_peak(x, y, z)
                          for t, w, c in ((x, 0.3, 0.04), (y, 0.6, 0.0625), (z, 0.5, 0.25))]),
    # sum over corners of (-1)^|v| / (1 + a.v) / (3! prod a)
    Case("corner peak", _corner, unit(3), 0.035582010582010582011,
         lambda x, y, z: [-4 * a * (1 + x + 2 * y + 0.5 * z) ** -5.0 for a in (1, 2, 0.5)]),
    # prod sqrt(pi) / (2 c) (erf(c (1 - w)) + erf(c w)), c = 3, 2, 1
    Case("gaussian", _gaussian, unit(3), 0.2863355703468163324,
         lambda x, y, z: [-2 * c * (t - w) * _gaussian(x, y, z)
                          for t, w, c in ((x, 0.5, 9), (y, 0.2, 4), (z, 0.9, 1))]),
    # (2/5) atan 5
    Case("runge, 1-D", lambda x: 1 / (1 + 25 * x * x), [(-1.0, 1.0)], 0.54936030677800634434,
         lambda x: [-50 * x / (1 + 25 * x * x) ** 2]),
    # G(5) - 2 G(3) + G(1), G(t) = t^2 log(t) / 2 - 3 t^2 / 4
    Case("logarithm, 2-D", lambda x, y: np.log(3 + x + y), [(-1.0, 1.0)] * 2, 4.23046330741326746,
         lambda x, y: [1 / (3 + x + y)] * 2),
    # prod of (exp(a r) - exp(a l)) / a
    Case("exponential, 4-D", lambda x, y, z, w: np.exp(x - y + z / 2 + w / 4),
         [(0.0, 1.0), (-1.0, 0.0), (-1.0, 1.0), (2.0, 4.0)], 26.328815240984855937,
         lambda x, y, z, w: [a * np.exp(x - y + z / 2 + w / 4) for a in (1, -1, 0.5, 0.25)]),
    # sum (-1)^k / ((2k+1)! (2k+2)^3)
    Case("sine of the product", lambda x, y, z: np.sin(x * y * z), unit(3), 0.12243402879673783876,
         lambda x, y, z: [p * np.cos(x * y * z) for p in (y * z, x * z, x * y)]),
    # third difference of t^2 log(t) / 2 at 2, 3, 4, 5
    Case("reciprocal of the sum", lambda x, y, z: 1 / (2 + x + y + z), unit(3),
         0.29188077444847004548, lambda x, y, z: [-((2 + x + y + z) ** -2.0)] * 3),
    # (8/3) (1/5) 4 + 2 (3/2) 4
    Case("polynomial", lambda x, y, z: x * x * (1 - y) ** 4 * z + x * y + 0 * z,
         [(0.0, 2.0), (1.0, 2.0), (-1.0, 3.0)], 14.133333333333333333,
         lambda x, y, z: [2 * x * (1 - y) ** 4 * z + y, -4 * x * x * (1 - y) ** 3 * z + x,
                          x * x * (1 - y) ** 4]),
]  # fmt: skip
