"""Sums of Gaussians that stand for a radial kernel to a verified accuracy."""

import contextlib
import math
import operator
import sys
import warnings
from typing import Any, Self

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import ConvergenceWarning
from linalgk.tensor import _gaussian_rules, _radial
from linalgk.tensor._radial import Radial


class GaussianSum(tuple[Any, Any]):
    """A radial kernel as ``sum_j weights_j exp(-exponents_j r^2)``: what `gaussian_sum` returns.

    A pair ``weights, exponents`` with attributes; calling it evaluates the sum.

    Attributes
    ----------
    weights, exponents : array, shape (terms,)
        Positive, exponents ascending.
    error : float
        Largest error found on the interval, relative as `gaussian_sum` defines it, with the
        numbers that ``weights`` and ``exponents`` hold.
    tol : float
        What was asked for.
    converged : bool
        Whether ``error <= tol``.
    kernel : str
        Its name.
    params : dict
        Its parameters.
    interval : tuple of float
        ``(rmin, rmax)``.
    """

    weights = property(operator.itemgetter(0), doc="Weights, positive.")
    exponents = property(operator.itemgetter(1), doc="Exponents, positive and ascending.")

    def __new__(
        cls, weights: Any, exponents: Any, kernel: str = "", params: Any = (),
        interval: Any = (0.0, math.inf), tol: float = math.nan, error: float = math.nan,
    ) -> Self:  # fmt: skip
        self = super().__new__(cls, (weights, exponents))
        self.kernel, self.params = kernel, dict(params)
        self.interval = (float(interval[0]), float(interval[1]))
        self.tol, self.error = float(tol), float(error)
        return self

    kernel: str
    params: dict[str, float]
    interval: tuple[float, float]
    tol: float
    error: float

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return (*self, self.kernel, self.params, self.interval, self.tol, self.error)

    @property
    def converged(self) -> bool:
        """Whether the error is as small as was asked for."""
        return self.error <= self.tol

    @property
    def terms(self) -> int:
        """How many Gaussians."""
        return int(self.weights.shape[0])

    def __call__(self, r: Any, /) -> Any:
        """The sum at separations, in their array type and dtype.

        Parameters
        ----------
        r : array, shape (...)
            Separations; integers become float64.

        Returns
        -------
        values : array, shape (...)

        Notes
        -----
        One exponential per term and point. All terms are positive, so that rounding adds a few
        units of the dtype's precision, relative to the sum; memory is three times that of ``r``.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> s = lk.gaussian_sum("newton", 0.1, 10.0, 1e-10)
        >>> bool(np.all(np.abs(s(np.array([0.1, 2.0])) - [10.0, 0.5]) <= [1e-9, 5e-11]))
        True
        """
        r = _xp.as_array("r", r)
        face = _xp.face(r)
        assert face is not None
        x = _validate.floating("r", face.enter(r))
        if _xp.dtype_name(x) in _xp.COMPLEX:
            msg = f"r: separations must be real, got {_xp.dtype_name(x)}"
            raise TypeError(msg)
        xp = _xp.namespace(x)
        # the square comes last, for exponents that the dtype of r cannot hold
        top = float(np.finfo(_xp.dtype_name(x)).max) / 2
        total = xp.zeros_like(x)
        w, a = (np.asarray(_xp.to_numpy(part), np.float64).tolist() for part in self)
        with np.errstate(over="ignore", under="ignore"):
            for weight, exponent in zip(w, a, strict=True):
                t = min(math.sqrt(exponent), top) * x
                total = total + weight * xp.exp(-t * t)
        return face.leave(total, r)

    def __eq__(self, other: object) -> bool:
        """Same numbers for the same kernel."""
        if not isinstance(other, GaussianSum):
            return False
        mine, theirs = (s.__getnewargs__()[2:] for s in (self, other))
        return mine == theirs and all(
            np.array_equal(_xp.to_numpy(p), _xp.to_numpy(q))
            for p, q in zip(self, other, strict=True)
        )

    def __ne__(self, other: object) -> bool:
        """Not the same."""
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Kernel, interval, number of terms and error."""
        params = "".join(f", {key}={value:g}" for key, value in self.params.items())
        low, high = self.interval
        return (
            f"GaussianSum({self.kernel!r}{params}: {self.terms} terms on [{low:g}, {high:g}], "
            f"error {self.error:.2g})"
        )


_METADATA = ("kernel", "params", "interval", "tol", "error")
_known: set[Any] = set()


def _prepare_jax() -> None:
    """Let JAX, if it is there, take the arrays out and put them in again."""
    jax = sys.modules.get("jax")
    if jax is None or jax in _known:
        return
    _known.add(jax)

    def parts(s: GaussianSum) -> tuple[Any, Any]:
        kernel, params, *rest = s.__getnewargs__()[2:]
        return tuple(s), (kernel, tuple(params.items()), *rest)

    def build(aux: Any, leaves: Any) -> GaussianSum:
        return GaussianSum(*leaves, **dict(zip(_METADATA, aux, strict=True)))

    jax.tree_util.register_pytree_node(GaussianSum, parts, build)


def gaussian_sum(
    kernel: str, rmin: float, rmax: float, tol: float, *,
    dtype: Any = None, xp: Any = None, device: Any = None, **params: float,
) -> GaussianSum:  # fmt: skip
    """Positive weights and exponents of Gaussians that add up to a radial kernel on an interval.

    ``kernel(r) = sum_j weights_j exp(-exponents_j r^2)`` for rmin <= r <= rmax, to a tolerance
    that is verified. A Gaussian of distance is a product over the coordinates: the sum makes a
    kernel in any number of dimensions a short sum of separable functions.

    Parameters
    ----------
    kernel : {"newton", "yukawa", "slater", "matern", "power", "inverse_multiquadric"}
        Which function; see the table below.
    rmin, rmax : float
        The interval, 0 <= rmin < rmax; rmin > 0 for kernels that are singular at zero.
    tol : float
        Largest error, relative to the envelope in the table; from 32 eps of ``dtype`` to below 1.
    dtype, xp, device : optional
        Of the result; default NumPy float64.
    **params : float
        The kernel's parameters.

    Returns
    -------
    sum : GaussianSum
        A pair ``weights, exponents`` of arrays of shape (terms,), positive, exponents ascending,
        with the attributes ``error`` (the largest found), ``converged``, ``kernel``, ``params``,
        ``interval``; ``sum(r)`` evaluates it.

    Raises
    ------
    ValueError
        If the kernel is not known, a number is out of its range, or kernel or exponents leave
        the range of the dtype.
    TypeError
        If a parameter is missing or belongs to another kernel.

    Warns
    -----
    ConvergenceWarning
        If the error found is larger than ``tol``; the result knows it.

    Notes
    -----
    ======================  =========================================  ==========================
    kernel                  function                                   errors are relative to
    ======================  =========================================  ==========================
    "newton"                ``1/r``                                    the kernel
    "power"                 ``r^-p``, p > 0                            the kernel
    "inverse_multiquadric"  ``(r^2 + c^2)^-1/2``                       the kernel
    "yukawa"                ``exp(-kappa r) / r``                      ``exp(-kappa rmin) / r``
    "slater"                ``exp(-alpha r)``                          its value at rmin
    "matern"                ``2^(1-nu) / Gamma(nu) z^nu K_nu(z)``,     its value at rmin
                            ``z = sqrt(2 nu) r / length``
    ======================  =========================================  ==========================

    All are completely monotone functions of ``r^2``: ``k(r) = int f(v) exp(-r^2 e^v) dv`` with
    positive f. The trapezoidal rule in v (the integrals of [1]_ and [2]_) has the error
    ``exp(-pi^2 / h)`` for the step h; the Gauss rule of the same discrete measure replaces its
    small exponents, a search chooses step and cuts, and Gauss-Newton steps towards the best
    approximation [3]_ take up to a quarter of the terms away (few where rmax/rmin is large). For
    the Newton kernel about ``log(8 (rmax/rmin)^2) log(8/tol) / pi^2`` terms remain. Cost: 0.02
    to 0.5 s, up to some seconds for many hundred terms; kept for the next call with the same
    ratios of lengths. Where all lengths are multiplied by a power of two, weights and exponents
    are too, to the bit.

    The error is measured in extended precision where the platform has it, on 12 points for
    each term and around the largest of their local maxima. Outside the interval nothing is
    promised; there the sum stays positive and falls with r.

    References
    ----------
    .. [1] W. Hackbusch, B. N. Khoromskij, "Low-rank Kronecker-product approximation to
       multi-dimensional nonlocal operators I", Computing 76 (2006).
    .. [2] G. Beylkin, L. Monzón, "Approximation by exponential sums revisited", Appl. Comput.
       Harmon. Anal. 28 (2010).
    .. [3] D. Braess, W. Hackbusch, "Approximation of 1/x by exponential sums in [1, inf)", IMA
       J. Numer. Anal. 25 (2005).

    Examples
    --------
    >>> import linalgk as lk
    >>> s = lk.gaussian_sum("newton", 1e-3, 20.0, 1e-10)
    >>> weights, exponents = s
    >>> bool(s.error <= 1e-10), weights.shape == exponents.shape
    (True, True)
    >>> lk.gaussian_sum("matern", 0.0, 3.0, 1e-6, nu=1.5, length=1.0).terms < 40
    True
    """
    found, rmin, rmax, tol, name = _asked(kernel, rmin, rmax, tol, dtype, xp, params)
    weights, exponents, error = _fitted(found, rmin, rmax, tol, name)
    weights, exponents = (_xp.from_numpy(x, xp, device=device) for x in (weights, exponents))
    _prepare_jax()
    result = GaussianSum(weights, exponents, found.name, found.parameters, (rmin, rmax), tol, error)
    if not result.converged:
        msg = f"gaussian_sum: the error is {error:.2e}, tol is {tol:.2e}; use the result's .error"
        warnings.warn(msg, ConvergenceWarning, stacklevel=2)
    return result


def newton_terms(rmin: float, rmax: float, tol: float) -> tuple[Any, Any]:
    """Weights and exponents of ``1/r`` to the relative accuracy ``tol``, NumPy float64."""
    weights, exponents = gaussian_sum("newton", rmin, rmax, tol)
    return weights, exponents


def _asked(
    kernel: Any, rmin: Any, rmax: Any, tol: Any, dtype: Any, xp: Any, params: dict[str, Any]
) -> tuple[Radial, float, float, float, str]:
    """The arguments, looked at."""
    found = _radial.make(kernel, params)
    rmin = _validate.real_between("rmin", rmin, 0.0, math.inf)
    rmax = _validate.real_between("rmax", rmax, 0.0, math.inf, low_open=True)
    if rmin >= rmax:
        msg = f"rmin: must be less than rmax, got rmin {rmin:g} and rmax {rmax:g}"
        raise ValueError(msg)
    if rmin == 0 and found.singular:
        msg = f"rmin: must be positive, since {kernel!r} is infinite at r = 0; got {rmin:g}"
        raise ValueError(msg)
    if xp is not None and not hasattr(xp, "asarray"):
        msg = f"xp: must be an array namespace such as numpy or torch, got {xp!r}"
        raise TypeError(msg)
    name = _real_dtype(dtype, xp)
    finest = 32 * float(np.finfo(name).eps)
    tol = _validate.real_between("tol", tol, 0.0, 1.0, low_open=True)
    if not finest <= tol < 1:
        msg = f"tol: must satisfy {finest:.2g} <= tol < 1 for {name}, got {tol:g}"
        raise ValueError(msg)
    for r in (rmin, rmax) if found.name in _RELATIVE else (rmin,):
        if not 1e-290 < found.magnitude(r) < 1e290:
            msg = (
                f"{'rmin' if r == rmin else 'rmax'}: the kernel is {found.magnitude(r):.1e} at "
                f"r = {r:g}, out of the range of float64; change the unit of length"
            )
            raise ValueError(msg)
    return found, rmin, rmax, tol, name


# Kernels whose error is relative to themselves on the whole interval.
_RELATIVE = ("newton", "power", "inverse_multiquadric")


def _real_dtype(dtype: Any, xp: Any) -> str:
    name = "float64" if dtype is None else str(dtype).rpartition(".")[2]
    if name not in ("float32", "float64"):
        with contextlib.suppress(TypeError):
            name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        msg = f"dtype: must be float32 or float64, got {dtype!r}"
        raise TypeError(msg)
    if xp is None or xp is np:
        return name
    # JAX has no float64 unless told otherwise
    return str(np.dtype(str(_xp.dtype_of(xp, name)).rpartition(".")[2]).name)


def _fitted(
    kernel: Radial, rmin: float, rmax: float, tol: float, dtype: str
) -> tuple[Any, Any, float]:
    """Weights and exponents in that dtype, and their error measured."""
    best: tuple[Any, Any, float] | None = None
    target = tol - 4 * float(np.finfo(dtype).eps)
    for shrink in (0.995, 0.97, 0.9, 0.7):
        w, a, _ = _rule(kernel, rmin, rmax, target * shrink)
        with np.errstate(over="ignore", under="ignore"):
            w = (w * rmax**-kernel.degree).astype(dtype)
            a = (a / rmax / rmax).astype(dtype)
        tiny, largest = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
        if not all((x >= tiny).all() and (x <= largest).all() for x in (w, a)):
            msg = (
                f"dtype: weights or exponents leave the range of {dtype}; "
                "use float64, a larger rmin or another unit of length"
            )
            raise ValueError(msg)
        error = _gaussian_rules.measured(kernel, w, a, rmin, rmax)
        if best is None or error < best[2]:
            best = w, a, error
        if error <= tol:
            break
    assert best is not None
    return best


def _rule(kernel: Radial, rmin: float, rmax: float, tol: float) -> _gaussian_rules.Rule:
    """The rule in units of rmax, kept by what it depends on."""
    scaled = kernel.scaled(rmax)
    # many small factorizations, which threads of BLAS only hold up
    with _config.serial_blas:
        return _gaussian_rules.kept(scaled.name, scaled.parameters, rmin / rmax, tol)


def explain_gaussian_sum(
    kernel: str, rmin: float, rmax: float, tol: float, *,
    dtype: Any = None, xp: Any = None, device: Any = None, **params: float,
) -> Explanation:  # fmt: skip
    """What a call of gaussian_sum would do, with an estimate of the number of terms."""
    del device
    found, rmin, rmax, tol, name = _asked(kernel, rmin, rmax, tol, dtype, xp, params)
    low, high = _gaussian_rules.significant(found.scaled(rmax), rmin / rmax, tol)
    # small exponents cost about as many terms as those between 1 and 8
    span = max(high - max(low, -1.0), 1.0)
    terms = max(1, round(span * math.log(2 / tol) / math.pi**2))
    reason = (
        f"the {found.name} kernel is a positive mixture of Gaussians; about {terms} terms, whose "
        f"exponents cover a factor of {math.exp(min(span, 700.0)):.1e}"
    )
    # some hundred candidates at some ten points per term
    flops = 100 * 10 * 20.0 * terms * terms
    return Explanation(
        "gaussian_sum", "trapezoid", reason, {}, flops, 2.0 * terms * np.dtype(name).itemsize
    )


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The Newton kernel on wider and wider intervals."""
    del rng
    rmin, tol = {"small": (0.1, 1e-4), "medium": (1e-3, 1e-7), "large": (1e-4, 1e-12)}[size]
    return ("newton", rmin, 1.0, tol), {"xp": xp}
