"""The potential of charges once it is made: values, gradients, energy and forces."""

import math
import warnings
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk.errors import ConvergenceWarning, NotConvergedError
from linalgk.tensor import _chebyshev
from linalgk.tensor._function import ChebTucker
from linalgk.tensor._neighbours import Cells
from linalgk.typing import OnFail

Include = Literal["all", "long", "short"]
Potential = TypeVar("Potential", bound="LongRangePotential")


class Sources(Protocol):
    """Where the charges are."""

    @property
    def points(self) -> Any:
        """Positions (N, 3)."""

    @property
    def charges(self) -> Any:
        """Charges (N,)."""

    def near(self, targets: Any, kernel: Any, radius: float, slopes: bool) -> Any:
        """Sums over neighbours as of `Cells.sums`."""


class Particles:
    """Charges anywhere."""

    def __init__(self, points: Any, charges: Any) -> None:
        self.points, self.charges = points, charges
        self._cells: Cells | None = None

    def near(self, targets: Any, kernel: Any, radius: float, slopes: bool) -> Any:
        """Sums over neighbours as of `Cells.sums`."""
        if self._cells is None:
            self._cells = Cells(self.points, self.charges, radius)
        return self._cells.sums(targets, kernel, slopes=slopes, threads=_config.num_threads())

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again."""
        return {"points": self.points, "charges": self.charges, "_cells": None}


def kernel(square: Any, kappa: float) -> Any:
    """``exp(-kappa r) / r`` of squared distances that are not 0."""
    r = np.sqrt(square)
    return np.exp(-kappa * r) / r if kappa else 1.0 / r


class Near:
    """The kernel less its Gaussians, as a function of the squared distance up to radius^2."""

    def __init__(
        self, weights: Any, exponents: Any, radius: float, tol: float, kappa: float
    ) -> None:
        self.kappa = kappa
        self.peak = float(np.sum(weights))
        self.square = radius**2
        # derivatives amplify what is left out
        floor = max(1e-3 * tol, 1e-15) * self.peak
        m = 33
        while True:
            rho = 0.5 * self.square * (_chebyshev.points(m) + 1.0)
            series = _chebyshev.coefficients(np.exp(-np.outer(rho, exponents)) @ weights)
            last = int(np.flatnonzero(np.abs(series) > floor)[-1])
            if last < m - 4 or m > 1000:
                break
            m = 2 * m - 1
        self.series = series[: last + 1]
        self.slopes = _chebyshev.derivative(self.series) * (2.0 / self.square)

    def __call__(self, square: Any, slopes: bool) -> tuple[Any, Any]:
        """Values and derivatives by the squared distance; at 0 those of the Gaussians alone."""
        t = square * (2.0 / self.square) - 1.0
        apart = square > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.sqrt(square)
            inverse = np.where(apart, 1.0 / r, 0.0)
            exact = inverse * np.exp(-self.kappa * r) if self.kappa else inverse
            value = exact - _clenshaw(t, self.series)
            if not slopes:
                return value, None
            slope = -0.5 * exact * inverse * (inverse + self.kappa) - _clenshaw(t, self.slopes)
        return value, np.where(apart, slope, 0.0)


def _clenshaw(t: Any, c: Any) -> Any:
    before, now, spare = np.zeros_like(t), np.full_like(t, c[-1]), np.empty_like(t)
    if c.size == 1:
        return now
    twice = 2.0 * t
    for number in c[-2:0:-1]:
        np.multiply(twice, now, out=spare)
        spare -= before
        spare += number
        before, now, spare = now, spare, before
    return t * now - before + c[0]


class LongRangePotential:
    """The potential ``sum_n q_n k(|x - y_n|)`` of point charges, split by range.

    ``k(r) = exp(-kappa r) / r = sum_j w_j exp(-a_j r^2) + s(r)``: the Gaussians, summed over the
    charges, are one smooth function ``long``, and s vanishes to the tolerance beyond ``radius``.

    Attributes
    ----------
    long : ChebTucker
        The long-range part.
    radius : float
        Distance up to which neighbours are summed.
    weights, exponents : array, shape (J,)
        Of the Gaussians.
    points : array, shape (N, 3)
        Positions of the charges.
    charges : array, shape (N,)
        Charges.
    error : float
        Largest absolute error at random points that the construction did not use, of the long
        range and of what is left out beyond ``radius``, relative to ``scale``.
    scale : float
        Largest long-range potential seen, at least that of a single charge, the largest.
    converged : bool
        Whether ``error`` is at most ``tol``.
    tol : float
        The tolerance asked for.
    kappa : float
        Inverse screening length; 0 for ``1/r``.
    """

    def __init__(
        self, long: ChebTucker, sources: Sources, radius: float, gaussians: tuple[Any, Any], *,
        error: float, tol: float, kappa: float = 0.0,
    ) -> None:  # fmt: skip
        self.long, self.sources, self.radius = long, sources, float(radius)
        self.weights, self.exponents = gaussians
        self.error, self.tol, self.kappa = float(error), float(tol), float(kappa)
        self._near = Near(self.weights, self.exponents, self.radius, self.tol, self.kappa)

    @property
    def points(self) -> Any:
        """Positions (N, 3) of the charges."""
        return self.sources.points

    @property
    def charges(self) -> Any:
        """Charges (N,)."""
        return self.sources.charges

    @property
    def scale(self) -> float:
        """What ``error`` is relative to."""
        return self.long.scale

    @property
    def converged(self) -> bool:
        """Whether ``error`` is as small as was asked for."""
        return self.error <= self.tol

    @property
    def sigma(self) -> float:
        """Standard deviation of the narrowest Gaussian of the long range."""
        return 1.0 / math.sqrt(2.0 * float(self.exponents.max()))

    @property
    def domain(self) -> tuple[tuple[float, float], ...]:
        """Box in which there is a long range."""
        return self.long.domain

    def __repr__(self) -> str:
        """Charges, radius, size of the long range and error."""
        state = "" if self.converged else ", not converged"
        return (
            f"{type(self).__name__} of {self.charges.size} charges: radius {self.radius:.4g}, "
            f"{self.weights.size} Gaussians, degrees {self.long.degrees}, ranks "
            f"{self.long.ranks}, error {self.error:.1e}{state}"
        )

    def __eq__(self, other: object) -> bool:
        """Whether charges, split and long range are equal."""
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, LongRangePotential)
        pairs = [
            (self.points, other.points), (self.charges, other.charges),
            (self.weights, other.weights), (self.exponents, other.exponents),
        ]  # fmt: skip
        plain = (self.radius, self.tol, self.long) == (other.radius, other.tol, other.long)
        return plain and all(np.array_equal(x, y) for x, y in pairs)

    def __hash__(self) -> int:
        return hash((type(self), self.radius, self.tol, self.long))

    def eval(
        self, points: Any, /, *, include: Include = "all", on_fail: OnFail | None = None
    ) -> Any:
        """Potential at points.

        Parameters
        ----------
        points : array, shape (..., 3)
            In the domain, unless ``include="short"``.
        include : {"all", "long", "short"}
            Which range.
        on_fail : {"raise", "warn", "nan"}, optional
            What becomes of points outside the domain.

        Returns
        -------
        array, shape (...)
            At the place of a charge the potential of all others: the short range there is minus
            the long range of that charge, ``-q sum_j w_j``.

        Notes
        -----
        The long range takes ``2 r_1 r_2 r_3`` flops at each point, the short range some 50 ns for
        each neighbour, on the host. Absolute errors are about ``error * scale``.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> ends = np.array([[0.0, 0, 0], [2, 0, 0]])
        >>> v = lk.longrange_potential(ends, np.array([1.0, -1.0]), 1e-8)
        >>> bool(abs(v.eval(np.array([0.5, 0, 0])) - (1 / 0.5 - 1 / 1.5)) < 1e-7)
        True
        """
        return self._sums(points, include, on_fail, False)

    def grad(
        self, points: Any, /, *, include: Include = "all", on_fail: OnFail | None = None
    ) -> Any:
        """Gradient of the potential at points.

        Parameters
        ----------
        points : array, shape (..., 3)
            In the domain, unless ``include="short"``.
        include : {"all", "long", "short"}
            Which range.
        on_fail : {"raise", "warn", "nan"}, optional
            What becomes of points outside the domain.

        Returns
        -------
        array, shape (..., 3)
            At the place of a charge the gradient due to all others.
        """
        return self._sums(points, include, on_fail, True)

    def energy(self) -> float:
        """Energy of all pairs, ``1/2 sum_{i != j} q_i q_j k(|x_i - x_j|)``.

        Notes
        -----
        The absolute error is at most about ``error * scale * sum |q_i| / 2``; where the errors at
        the charges do not conspire, it is far smaller.
        """
        return 0.5 * float(np.dot(self.charges, self.eval(self.points)))

    def forces(self) -> Any:
        """Forces (N, 3) on the charges: ``-q_i`` times the gradient due to all others."""
        return -self.charges[:, None] * self.grad(self.points)

    def _sums(self, points: Any, include: str, on_fail: Any, slopes: bool) -> Any:
        _validate.choice("include", include, ("all", "long", "short"))
        given = _xp.as_array("points", points)
        if _xp.is_traced(given):
            msg = "points: neighbours are looked for by value, which cannot be traced; call outside"
            raise TypeError(msg)
        face = _xp.face(given)
        assert face is not None
        x = real("points", face.enter(given))
        if x.ndim < 1 or x.shape[-1] != 3:
            msg = f"points: must have shape (..., 3), got {tuple(x.shape)}"
            raise ValueError(msg)
        found = None
        if include != "short":
            along = [x[..., k] for k in range(3)]
            found = self.long.grad(*along, on_fail=on_fail) if slopes else None
            found = self.long(*along, on_fail=on_fail) if found is None else found
        if include != "long":
            host = np.asarray(_xp.to_numpy(x), np.float64).reshape(-1, 3)
            near = _finite_rows(host, lambda rows: self._short(rows, slopes))
            near = near[1:] if slopes else near[0]
            near = near.reshape((3, *x.shape[:-1]) if slopes else tuple(x.shape[:-1]))
            near = _xp.from_numpy(near, _xp.namespace(x), like=x)
            found = near if found is None else found + near
        if slopes:
            found = _xp.namespace(found).moveaxis(found, 0, -1)
        return face.leave(found, given)

    def _short(self, rows: Any, slopes: bool) -> Any:
        return self.sources.near(rows, self._near, self.radius, slopes)


def _finite_rows(host: Any, work: Any) -> Any:
    """NaN for rows that hold NaN or infinity."""
    good = np.isfinite(host).all(axis=1)
    if good.all():
        return work(host)
    part = work(host[good])
    found = np.full((part.shape[0], host.shape[0]), math.nan)
    found[:, good] = part
    return found


def real(name: str, x: Any) -> Any:
    """An array of real floating dtype."""
    x = _validate.floating(name, x)
    if _xp.dtype_name(x) in _xp.COMPLEX:
        msg = f"{name}: must be real, got {_xp.dtype_name(x)}"
        raise TypeError(msg)
    return x


def reported(function: str, found: Potential, policy: str) -> Potential:
    """The potential, or an error or warning where it misses its tolerance."""
    if found.converged or policy == "nan":
        return found
    msg = (
        f"{function}: the error is {found.error:.1e}, tol={found.tol:.1e} was asked for; "
        "the result knows its error, a looser tol or another split may reach it"
    )
    if policy == "raise":
        raise NotConvergedError(msg, result=found)
    warnings.warn(msg, ConvergenceWarning, stacklevel=3)
    return found
