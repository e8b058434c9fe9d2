"""The Chebyshev-Tucker function: coefficients on the host, evaluated where the points are."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from linalgk.tensor import _arithmetic, _calculus, _extrema, _plot, _poisson, _values
from linalgk.tensor._extrema import Extremum
from linalgk.tensor._unfold import mode_products
from linalgk.typing import OnFail


class Certificate(NamedTuple):
    """What the error of a `ChebTucker` is made of, each relative to its ``scale``.

    Attributes
    ----------
    tail : float
        Coefficients that the degrees leave out, estimated from those before them.
    truncation : float
        Bound of what the truncation of ranks changes at any point of the domain.
    sampled : float
        Largest difference seen at points that the construction did not use.
    points : int
        How many points those are.
    """

    tail: float
    truncation: float
    sampled: float
    points: int


class ChebTucker:
    """A function on a box as a Chebyshev series whose coefficients are a Tucker tensor.

    Attributes
    ----------
    core : array, shape (r_1, ..., r_d)
        Real or complex.
    factors : tuple of array, shape (m_k, r_k)
        Columns of Chebyshev coefficients in the k-th variable, real and orthonormal.
    domain : tuple of pairs of float
        The interval of each variable.
    error : float
        Largest error known of, relative to ``scale``.
    scale : float
        Largest absolute value seen.
    converged : bool
        Whether the error is as small as was asked for.
    method : str
        How it was made.
    certificate : Certificate
        What the error is made of.
    """

    # array @ f and array * f come to us
    __array_ufunc__ = None

    def __init__(
        self, core: Any, factors: Sequence[Any], domain: Sequence[Any], *,
        error: float = 0.0, scale: float | None = None, converged: bool = True,
        method: str = "given", certificate: Certificate | None = None, evaluations: int = 0,
    ) -> None:  # fmt: skip
        self.core = np.ascontiguousarray(core)
        self.factors = tuple(np.ascontiguousarray(f) for f in factors)
        self.domain = tuple((float(a), float(b)) for a, b in domain)
        self.error, self.converged = float(error), bool(converged)
        self.scale = float(np.linalg.norm(self.core) if scale is None else scale)
        self.method, self.evaluations = method, int(evaluations)
        self.certificate = certificate or Certificate(self.error, 0.0, math.nan, 0)

    # --- What it is -----------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """Number of variables."""
        return self.core.ndim

    @property
    def degrees(self) -> tuple[int, ...]:
        """Highest degree in each variable."""
        return tuple(f.shape[0] - 1 for f in self.factors)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Size of the core in each mode."""
        return tuple(self.core.shape)

    @property
    def dtype(self) -> Any:
        """Of the values: that of the core."""
        return self.core.dtype

    def __repr__(self) -> str:
        """Domain, degrees, ranks and error."""
        box = " x ".join(f"[{a:g}, {b:g}]" for a, b in self.domain)
        state = "" if self.converged else ", not converged"
        return (
            f"ChebTucker on {box}: degrees {self.degrees}, ranks {self.ranks}, "
            f"error {self.error:.1e}{state}, dtype {self.dtype.name}"
        )

    def __eq__(self, other: object) -> bool:
        """Whether all coefficients and domains are equal."""
        if not isinstance(other, ChebTucker):
            return NotImplemented
        return (
            self.domain == other.domain
            and np.array_equal(self.core, other.core)
            and self.degrees == other.degrees
            and all(map(np.array_equal, self.factors, other.factors))
        )

    def __hash__(self) -> int:
        return hash((self.domain, self.degrees, self.ranks))

    def astype(self, dtype: Any) -> Self:
        """The same function with coefficients in another precision."""
        real = np.dtype(dtype).type(0).real.dtype
        if self.core.dtype.kind == "c":
            dtype = np.result_type(real, np.complex64)
        return self._with(self.core.astype(dtype), [f.astype(real) for f in self.factors])

    def coefficients(self) -> Any:
        """All coefficients (m_1, ..., m_d), multiplied out."""
        return mode_products(self.core, self.factors)

    def _with(self, core: Any, factors: Any, **others: Any) -> Self:
        """The function with other coefficients, and whatever else differs."""
        kept = {name: getattr(self, name) for name in _KEPT} | others
        domain = kept.pop("domain")
        return type(self)(core, factors, domain, **kept)

    # --- Values ---------------------------------------------------------------------------------

    def __call__(self, *points: Any, on_fail: OnFail | None = None) -> Any:
        """Values at points; see `_values.call`."""
        return _values.call(self, points, on_fail)

    def on_grid(self, *axes: Any, on_fail: OnFail | None = None) -> Any:
        """Values (n_1, ..., n_d) on the grid of these d vectors; see `_values.on_grid`."""
        return _values.on_grid(self, axes, on_fail)

    def grad(self, *points: Any, on_fail: OnFail | None = None) -> Any:
        """Derivatives (d, ...) by each variable at points; see `_values.grad`."""
        return _values.grad(self, points, on_fail)

    # --- Calculus -------------------------------------------------------------------------------

    def integrate(self, axis: int | tuple[int, ...] | None = None) -> Any:
        """Integral over all variables, a number, or over some, a `ChebTucker` of the others."""
        return _calculus.integrate(self, axis)

    def diff(self, axis: int = 0, *, order: int = 1) -> Self:
        """Derivative by one variable."""
        return _calculus.diff(self, axis, order)

    def laplacian(self) -> Self:
        """Sum of the second derivatives by all variables."""
        return _calculus.laplacian(self)

    def inner(self, other: "ChebTucker") -> Any:
        """Integral of ``conj(self) * other`` over the domain."""
        return _calculus.inner(self, other)

    def norm(self) -> float:
        """Root of the integral of ``|f|^2``."""
        return _calculus.norm(self)

    # --- Arithmetic -----------------------------------------------------------------------------

    def recompress(self, tol: float) -> Self:
        """With the least ranks and degrees for this tolerance relative to ``scale``."""
        return _arithmetic.recompress(self, tol)

    def compose(self, func: Callable[[Any], Any], *, tol: float | None = None) -> "ChebTucker":
        """``func(f)``, constructed anew."""
        return _arithmetic.compose(self, func, tol)

    def __neg__(self) -> Self:
        return self._with(-self.core, self.factors)

    def __add__(self, other: Any) -> "ChebTucker":
        return _arithmetic.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "ChebTucker":
        return _arithmetic.add(self, -other)

    def __rsub__(self, other: Any) -> "ChebTucker":
        return _arithmetic.add(-self, other)

    def __mul__(self, other: Any) -> "ChebTucker":
        return _arithmetic.multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "ChebTucker":
        return _arithmetic.divide(self, other)

    def __pow__(self, power: int) -> "ChebTucker":
        return _arithmetic.power(self, power)

    # --- More -----------------------------------------------------------------------------------

    def max(self) -> Extremum:
        """The largest value and where it is."""
        return _extrema.extremum(self, 1)

    def min(self) -> Extremum:
        """The smallest value and where it is."""
        return _extrema.extremum(self, -1)

    def solve_poisson(self, *, tol: float | None = None) -> "ChebTucker":
        """The u with ``laplacian u = f`` in the domain and ``u = 0`` on its boundary."""
        return _poisson.solve(self, tol)

    def plot(self, **options: Any) -> Any:
        """Slices through the domain, with matplotlib."""
        return _plot.plot(self, **options)


_KEPT = (
    "domain", "error", "scale", "converged", "method", "certificate", "evaluations",
)  # fmt: skip
