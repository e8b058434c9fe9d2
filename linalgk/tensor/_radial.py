"""Radial kernels as mixtures of Gaussians: ``k(r) = int density(v) exp(-r^2 e^v) dv``.

Each is known twice, by a closed form and by the logarithm of its density, which is positive: the
kernels are completely monotone functions of ``r^2``.
"""

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from linalgk import _validate


@dataclasses.dataclass(frozen=True)
class Radial:
    """A kernel with its parameters."""

    name: str
    parameters: tuple[tuple[str, float], ...]
    # log of the density at v
    density: Callable[[Any], Any]
    # at r >= 0 in the precision of r
    value: Callable[[Any], Any]
    # (r, rmin) -> what errors are relative to
    envelope: Callable[[Any, float], Any]
    # k(s r) = s^-degree times the kernel with these parameters at r
    scaled: Callable[[float], "Radial"]
    degree: float = 0.0
    # rate of the density's decay to the left where that is exactly exponential, else 0
    rate: float = 0.0
    # rate of its decay to the right where that is what limits the range, else 0
    smoothness: float = 0.0
    # how much narrower than a unit the features of the integrand are, squared
    sharpness: Callable[[float], float] = lambda _rmin: 0.0
    singular: bool = True

    def magnitude(self, r: float) -> float:
        """The kernel at one point."""
        with np.errstate(all="ignore"):
            return float(self.value(np.asarray([r], np.longdouble))[0])


def make(name: str, parameters: dict[str, Any]) -> Radial:
    """The kernel of that name; every parameter is looked at."""
    _validate.choice("kernel", name, KERNELS)
    build, wanted = _BUILDERS[name]
    for key in parameters:
        if key not in wanted:
            takes = f"takes {', '.join(wanted)}" if wanted else "has no parameters"
            msg = f"{key}: is no parameter of {name!r}, which {takes}"
            raise TypeError(msg)
    missing = [key for key in wanted if key not in parameters]
    if missing:
        which = ", ".join(f"{key}=" for key in missing)
        msg = f"kernel: {name!r} needs {which} ({wanted[missing[0]][0]})"
        raise TypeError(msg)
    values = []
    for key, (_, low, high) in wanted.items():
        strict = low == 0.0 and name != "yukawa"
        values.append(
            _validate.real_between(key, parameters[key], low, high, low_open=strict)
        )  # fmt: skip
    return build(*values)


def _newton() -> Radial:
    return dataclasses.replace(
        _power(1.0), name="newton", parameters=(), scaled=lambda _: _newton()
    )


def _power(p: float) -> Radial:
    constant = math.lgamma(p / 2)

    def value(r: Any) -> Any:
        return 1 / r if p == 1 else r**-p

    return Radial(
        "power", (("p", p),), density=lambda v: p / 2 * v - constant, value=value,
        envelope=lambda r, _: value(r), scaled=lambda _: _power(p), degree=p, rate=p / 2,
        sharpness=lambda _: p / 2,
    )  # fmt: skip


def _yukawa(kappa: float) -> Radial:
    if kappa == 0:
        found = dataclasses.replace(_newton(), scaled=lambda _: _yukawa(0.0))
        return dataclasses.replace(found, name="yukawa", parameters=(("kappa", 0.0),))
    constant = math.log(math.pi) / 2

    def density(v: Any) -> Any:
        with np.errstate(over="ignore"):
            return v / 2 - constant - kappa * kappa / 4 * np.exp(-v)

    return Radial(
        "yukawa", (("kappa", kappa),), density=density,
        value=lambda r: np.exp(-kappa * r) / r,
        envelope=lambda r, rmin: math.exp(-kappa * rmin) / r,
        scaled=lambda s: _yukawa(kappa * s), degree=1.0,
        sharpness=lambda rmin: kappa * rmin,
    )  # fmt: skip


def _slater(alpha: float) -> Radial:
    found = _matern(0.5, 1 / alpha)
    return dataclasses.replace(
        found, name="slater", parameters=(("alpha", alpha),),
        value=lambda r: np.exp(-alpha * r),
        envelope=lambda r, rmin: math.exp(-alpha * rmin) * np.ones_like(r),
        scaled=lambda s: _slater(alpha * s),
    )  # fmt: skip


def _matern(nu: float, length: float) -> Radial:
    shift, constant = math.log(2) + 2 * math.log(length), _gamma_peak(nu)
    scale = math.sqrt(2 * nu) / length
    half = nu + 0.5 == int(nu + 0.5) and nu < 30
    coeffs = _matern_coefficients(int(nu - 0.5)) if half else ()

    def density(v: Any) -> Any:
        # tau = nu / (2 length^2 e^v) has a Gamma distribution with its peak at nu
        d = -shift - v
        with np.errstate(over="ignore"):
            return nu * (d - np.expm1(d)) + constant

    def value(r: Any) -> Any:
        z = scale * r
        if not half:
            return _mixture(nu, z)
        total = np.zeros_like(z)
        for c in coeffs:
            total = total * z + c
        return total * np.exp(-z)

    def envelope(r: Any, rmin: float) -> Any:
        return np.ones_like(r) * (1.0 if rmin == 0 else value(np.asarray([rmin], r.dtype))[0])

    return Radial(
        "matern", (("nu", nu), ("length", length)), density=density, value=value,
        envelope=envelope, scaled=lambda s: _matern(nu, length / s), smoothness=nu,
        sharpness=lambda rmin: nu + scale * rmin, singular=False,
    )  # fmt: skip


def _matern_coefficients(n: int) -> tuple[float, ...]:
    """Of ``M(z) e^z``, highest power first: ``(n+i)! n! 2^(n-i) / (i! (n-i)! (2n)!)``."""
    f = math.factorial
    return tuple(
        float(Fraction(f(n + i) * f(n) * 2 ** (n - i), f(i) * f(n - i) * f(2 * n)))
        for i in range(n + 1)
    )


def _gamma_peak(nu: float) -> float:
    """``log(nu^nu e^-nu / Gamma(nu))``, by Stirling's series where the terms would cancel."""
    if nu < 12:
        return nu * math.log(nu) - nu - math.lgamma(nu)
    x = 1 / (nu * nu)
    series = (1 / 12 - x * (1 / 360 - x * (1 / 1260 - x * (1 / 1680 - x / 1188)))) / nu
    return 0.5 * math.log(nu / (2 * math.pi)) - series


def _mixture(nu: float, z: Any) -> Any:
    """``2^(1-nu) / Gamma(nu) z^nu K_nu(z)`` as the mean of ``exp(-z^2 / 4 tau)``.

    The trapezoidal rule in log(tau) has no error that long double could show; Bessel functions
    of the second kind in double precision have one.
    """
    low, top = float(np.min(z)), float(np.max(z))
    # values below exp(-40) times the largest need not be accurate by themselves
    h = min(0.2 if nu <= 2 else 0.1, 0.6 / math.sqrt(nu + min(top, low + 40)))
    high = math.log(nu + 12 * math.sqrt(nu) + 60 + top)
    u = h * np.arange(math.floor(-50 / nu / h), math.ceil(high / h) + 1).astype(z.dtype)
    logs = nu * u - np.exp(u)
    w = np.exp(logs - np.max(logs))
    w /= np.sum(w)
    above = np.concatenate([np.cumsum(w[::-1])[::-1], np.zeros(1, w.dtype)])
    out = np.ones_like(z)
    order = np.argsort(z)
    order = order[np.searchsorted(z[order], 0, side="right") :]
    for start in range(0, order.size, 64):
        part = order[start : start + 64]
        near, far = (2 * np.log(z[part[i]] / 2) for i in (0, -1))
        # below the first the exponential vanishes, above the last it is 1
        i = np.searchsorted(u, near - np.log(80 + 2 * z[part[0]]))
        j = np.searchsorted(u, far + 50)
        some = np.exp(-np.exp(2 * np.log(z[part] / 2)[:, None] - u[i:j])) @ w[i:j]
        out[part] = some + above[j]
    return out


def _inverse_multiquadric(c: float) -> Radial:
    constant = math.log(math.pi) / 2

    def density(v: Any) -> Any:
        with np.errstate(over="ignore"):
            return v / 2 - constant - c * c * np.exp(v)

    def value(r: Any) -> Any:
        return 1 / np.hypot(r, np.asarray(c, r.dtype))

    return Radial(
        "inverse_multiquadric", (("c", c),), density=density, value=value,
        envelope=lambda r, _: value(r), scaled=lambda s: _inverse_multiquadric(c / s),
        degree=1.0, singular=False,
    )  # fmt: skip


_LARGE = 1e150
# name: builder, {parameter: (what it is, least, largest)}
_BUILDERS: dict[str, tuple[Callable[..., Radial], dict[str, tuple[str, float, float]]]] = {
    "newton": (_newton, {}),
    "yukawa": (_yukawa, {"kappa": ("exp(-kappa r) / r", 0.0, _LARGE)}),
    "slater": (_slater, {"alpha": ("exp(-alpha r)", 0.0, _LARGE)}),
    "matern": (
        _matern,
        {"nu": ("smoothness", 0.1, 200.0), "length": ("length scale", 0.0, _LARGE)},
    ),
    "power": (_power, {"p": ("r^-p", 0.0, 100.0)}),
    "inverse_multiquadric": (
        _inverse_multiquadric,
        {"c": ("1 / sqrt(r^2 + c^2)", 0.0, _LARGE)},
    ),
}
KERNELS = tuple(_BUILDERS)
