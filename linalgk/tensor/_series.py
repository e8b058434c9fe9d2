"""The Chebyshev-Tucker series: coefficients on the host, evaluated where the points are."""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from linalgk.tensor import _evaluate
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


class Series:
    """Coefficients, and the values that they stand for; what `ChebTucker` is without calculus."""

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
        _prepare_jax(type(self))

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
            f"{type(self).__name__} on {box}: degrees {self.degrees}, ranks {self.ranks}, "
            f"error {self.error:.1e}{state}, dtype {self.dtype.name}"
        )

    def __eq__(self, other: object) -> bool:
        """Whether all coefficients and domains are equal."""
        if not isinstance(other, Series):
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
        # of the roundings of all coefficients
        rounding = float(np.finfo(real).eps) * float(np.linalg.norm(self.core)) / (self.scale or 1)
        error = max(self.error, rounding if real.itemsize < self.core.real.itemsize else 0.0)
        return self._with(
            self.core.astype(dtype), [f.astype(real) for f in self.factors], error=error
        )

    def coefficients(self) -> Any:
        """All coefficients (m_1, ..., m_d), multiplied out."""
        return mode_products(self.core, self.factors)

    def _with(self, core: Any, factors: Any, **others: Any) -> Self:
        """The function with other coefficients, and whatever else differs."""
        kept = self._notes() | others
        return type(self)(core, factors, kept.pop("domain", self.domain), **kept)

    def _notes(self) -> dict[str, Any]:
        """All but coefficients and domain."""
        return {name: getattr(self, name) for name in _NOTES}

    # --- Values ---------------------------------------------------------------------------------

    def __call__(self, *points: Any, on_fail: OnFail | None = None) -> Any:
        r"""Values at points.

        Parameters
        ----------
        *points : array or float
            One for each variable; they broadcast. Arrays of any library, on any device.
        on_fail : {"raise", "warn", "nan"}, optional
            What becomes of points outside the domain: an error, NaN with a warning, or NaN.
            ``"nan"`` does not look, so that nothing waits for a device.

        Returns
        -------
        values : array, or a number for numbers
            In the points' library, in the precision that points and coefficients promote to.

        Raises
        ------
        ValueError
            Points outside the domain.
        TypeError
            Points that are not real, of several libraries, or too few of them.

        Notes
        -----
        .. math:: f(x) = \sum_j G_j \prod_k \Big( \sum_{i < m_k} T_i(x_k) U_k[i, j_k] \Big)

        takes ``sum_k m_k r_k + prod_k r_k`` multiplications for each point, and a complex core
        twice that. Rounding is that of sums of as many terms, of a size that
        ``prod_k m_k^(1/2) ||G||`` bounds. JAX differentiates and compiles it.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: np.exp(x * y), [(0, 1), (0, 2)])
        >>> bool(abs(f(0.5, 1.5) - np.exp(0.75)) < 1e-9)
        True
        >>> f(np.linspace(0, 1, 5), 1.0).shape
        (5,)
        """
        return _evaluate.call(self, points, on_fail)

    def on_grid(self, *axes: Any, on_fail: OnFail | None = None) -> Any:
        """Values on a tensor grid, by mode products.

        Parameters
        ----------
        *axes : array, shape (n_k,)
            Coordinates along each variable, in any order.
        on_fail : {"raise", "warn", "nan"}, optional
            What becomes of coordinates outside the domain; see ``__call__``.

        Returns
        -------
        values : array, shape (n_1, ..., n_d)
            In ``sum_k n_k m_k r_k`` multiplications and those of the mode products, which are
            ``r n^d`` to leading order.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: np.exp(x * y), [(0, 1), (0, 2)])
        >>> f.on_grid(np.linspace(0, 1, 3), np.linspace(0, 2, 4)).shape
        (3, 4)
        """
        return _evaluate.on_grid(self, axes, on_fail)

    def grad(self, *points: Any, on_fail: OnFail | None = None) -> Any:
        """First derivatives at points, all of them in one sweep.

        Parameters
        ----------
        *points : array or float
            As for values.
        on_fail : {"raise", "warn", "nan"}, optional
            What becomes of points outside the domain; see ``__call__``.

        Returns
        -------
        derivatives : array, shape (d, ...)
            By each variable. The cost is about twice that of values; an error of the function
            grows by at most ``2 m_k^2 / (b_k - a_k)``, the inequality of Markov.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: np.exp(x * y), [(0, 1), (0, 2)])
        >>> bool(abs(f.grad(0.5, 1.5) - np.exp(0.75) * np.array([1.5, 0.5])).max() < 1e-8)
        True
        """
        return _evaluate.grad(self, points, on_fail)


_NOTES = (
    "error", "scale", "converged", "method", "certificate", "evaluations",
)  # fmt: skip

_KNOWN: set[type] = set()


def _prepare_jax(kind: type) -> None:
    """Let JAX, if it is there, pass functions through: coefficients are constants to it."""
    jax = sys.modules.get("jax")
    if jax is not None and kind not in _KNOWN:
        _KNOWN.add(kind)
        jax.tree_util.register_pytree_node(kind, lambda f: ((), f), lambda f, _: f)
