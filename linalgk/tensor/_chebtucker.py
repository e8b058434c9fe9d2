"""chebtucker: a function on a box as a Chebyshev-Tucker series, to a tolerance."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from linalgk import _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import ConvergenceWarning, NotConvergedError
from linalgk.tensor._construct import CHEAP, Plan, approximated
from linalgk.tensor._function import ChebTucker
from linalgk.tensor._sampling import Exhausted, Sampler
from linalgk.typing import OnFail

ChebTuckerMethod = Literal["auto", "grid", "cross"]
METHODS = ("auto", "grid", "cross")

# Highest degrees that are tried, by number of variables.
LONGEST = {1: 1 << 16, 2: 1 << 12, 3: 1 << 10, 4: 1 << 8}


def chebtucker(
    f: Callable[..., Any] | Any, domain: Any, /, *, tol: float | None = None,
    vectorized: bool = True, method: ChebTuckerMethod = "auto", max_degree: int | None = None,
    budget: int = 1 << 30, max_evaluations: int | None = None, rng: Any = 0,
    on_fail: OnFail | None = None, grid: Any = None, xp: Any = None, device: Any = None,
    dtype: Any = None,
) -> ChebTucker:  # fmt: skip
    """Approximate a function on a box by a Chebyshev series with Tucker coefficients.

    Parameters
    ----------
    f : callable, array, CanonicalTensor or TuckerTensor
        Called as ``f(x_1, ..., x_d)`` with d arrays of one shape (n,); returns their values (n,),
        real or complex, or one number for a constant. Values on a grid may be given instead, as an
        array or in a compressed format.
    domain : sequence of pairs of float
        The interval of each of the 1 to 4 variables; one pair for a function of one variable.
    tol : float, optional
        Largest error wanted at any point, relative to the largest ``|f|``. Default 1e-10, and 1e-5
        for a single precision ``dtype``.
    vectorized : bool
        False calls f with single floats.
    method : {"auto", "grid", "cross"}
        All values on a Chebyshev grid, or those on fibres through chosen points only. ``"auto"``
        takes the grid up to 2.5 million points.
    max_degree : int, optional
        In every variable; default 65536, 4096, 1024, 256 for 1, 2, 3, 4 variables.
    budget : int
        Bytes that a grid and its coefficients may take together.
    max_evaluations : int, optional
        Points at which f may be called; default 2^26, or 2^22 if not vectorized.
    rng : seed or Generator
        Where random fibres and test points lie.
    on_fail : {"raise", "warn", "nan"}, optional
        What happens if the tolerance is not reached. ``"warn"``, the default here, warns and
        returns what was reached, with its true ``error``; ``"nan"`` does so silently; ``"raise"``
        raises `NotConvergedError`, whose ``result`` it is.
    grid : {"chebyshev", "uniform"} or sequence of array, optional
        Where given values lie; see *Notes*. Not for functions.
    xp, device : optional
        Library and device of the arrays that f is called with, NumPy by default. The coefficients
        lie on the host in any case.
    dtype : optional
        Of the coefficients; a function with complex values has a complex core in any case.

    Returns
    -------
    g : ChebTucker
        With ``error``, the largest error found relative to ``scale``, the largest ``|f|`` seen;
        ``converged``, whether ``error <= 2 tol`` or rounding (64 eps); ``certificate``,
        ``evaluations`` and ``method``.

    Raises
    ------
    NonFiniteError
        f returned NaN or infinity; the message names the first such point.
    NotConvergedError
        With ``on_fail="raise"``.
    ValueError
        Domains of no width; f that mixes points or returns another shape; too few evaluations.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached, as for functions with a cusp or a jump, for noise, and for
        tolerances below precision.

    Notes
    -----
    ``f(x) ~ sum_j core[j] prod_k U_k[:, j_k] . T(x_k)`` with orthonormal columns of Chebyshev
    coefficients, so that derivatives are as good as values allow.

    1. A coarse grid and fibres uphill find the largest value. Eight random fibres and the one
       through it are sampled on 17, 33, 65, ... points in each variable until their coefficients
       reach a plateau [1]_.
    2. Values on the whole grid, m^d of them, and their DCT, or a cross approximation [2]_ of about
       ``2 d m (1.5 r)^(d-1)`` for ranks r.
    3. Ranks and degrees are cut as far as the tolerance allows [3]_.
    4. The error is searched for at 256 Halton points, next to the corners, halfway between the
       Chebyshev points of fibres through the largest value and error, and around the latter.
       If it is above ``tol``, all starts again with more fibres and a tolerance a quarter of it.

    A feature that no sampled point sees cannot be certified.

    References
    ----------
    .. [1] J. L. Aurentz, L. N. Trefethen, "Chopping a Chebyshev series", ACM Trans. Math. Softw.
       43 (2017).
    .. [2] S. Dolgov, D. Kressner, C. Stroessner, "Functional Tucker approximation using Chebyshev
       interpolation", SIAM J. Sci. Comput. 43 (2021), A2190.
    .. [3] P. Benner, B. N. Khoromskij, V. Khoromskaia, B. Sun, "A mesh-free hybrid
       Chebyshev-Tucker tensor format", arXiv:2503.01696.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> g = lk.chebtucker(lambda x, y, z: np.cos(x + y + z), [(-1, 1)] * 3, tol=1e-12)
    >>> g.ranks, g.converged
    ((2, 2, 2), True)
    >>> bool(abs(g(0.1, 0.2, 0.3) - np.cos(0.6)) < 1e-12)
    True
    """
    policy = "warn" if on_fail is None else _validate.on_fail(on_fail)
    _validate.choice("method", method, METHODS)
    box = checked_domain(domain)
    name = _dtype(dtype)
    real = _xp.REAL[name]
    if not callable(f) or _xp.face(f) is not None:
        from linalgk.tensor import _from_data

        given: dict[str, Any] = {} if tol is None else {"tol": tol}
        given |= {} if grid is None else {"grid": grid}
        return _from_data.from_data(f, box, on_fail=policy, dtype=dtype, **given)
    default = 1e-5 if real == "float32" else 1e-10
    tol = default if tol is None else _validate.real_between("tol", tol, 0.0, 1.0, low_open=True)
    if grid is not None:
        msg = "grid: is for given values; a function is sampled where it has to be"
        raise TypeError(msg)
    d = len(box)
    degree = LONGEST[d] if max_degree is None else _validate.integer("max_degree", max_degree, 0)
    budget = _validate.integer("budget", budget, 1)
    limit = (1 << 26 if vectorized else 1 << 22) if max_evaluations is None else max_evaluations
    limit = _validate.integer("max_evaluations", limit, 1)
    try:
        sampler = Sampler(f, box, vectorized=bool(vectorized), limit=limit, xp=xp, device=device)
        eps = max(sampler.eps, float(np.finfo(real).eps))
        plan = Plan(tol, method, degree + 1, budget, np.random.default_rng(rng), real, eps)
        result = approximated(sampler, plan)
    except Exhausted:
        msg = (
            f"max_evaluations: {limit} are not enough to look at a few fibres of a function of {d} "
            "variables; allow more"
        )
        raise ValueError(msg) from None
    if name in _xp.COMPLEX:
        result = result._with(result.core.astype(name), result.factors)
    return _answered(result, plan, policy)


def checked_domain(domain: Any) -> tuple[tuple[float, float], ...]:
    """1 to 4 intervals."""
    try:
        pairs = np.asarray(domain, dtype=np.float64)
    except (TypeError, ValueError):
        pairs = np.empty(0)
    if pairs.shape == (2,):
        pairs = pairs[None, :]
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not 1 <= pairs.shape[0] <= 4:
        msg = f"domain: must be 1 to 4 pairs (a, b), got {domain!r}"
        raise ValueError(msg)
    for k, (a, b) in enumerate(pairs.tolist()):
        if not (a < b and math.isfinite(b - a)):
            msg = f"domain: must have a < b, both finite, in every variable, got ({a}, {b}) in {k}"
            raise ValueError(msg)
    return tuple((a, b) for a, b in pairs.tolist())


def _dtype(dtype: Any) -> str:
    """The name of the dtype asked for, of any library."""
    try:
        name = "float64" if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = str(dtype).rpartition(".")[2]
    return str(_validate.choice("dtype", name, _xp.REAL))


def _answered(result: ChebTucker, plan: Plan, policy: str) -> ChebTucker:
    if result.converged or policy == "nan":
        return result
    why = (
        "f may have a cusp, a jump or noise, or need a higher max_degree, budget or max_evaluations"
    )
    if plan.tol < plan.reached:
        why = f"it is below {plan.reached:.1e}, the precision of the values and coefficients"
    msg = (
        f"chebtucker: reached a relative error of {result.error:.1e} with degrees {result.degrees} "
        f"and ranks {result.ranks}, not tol = {plan.tol:.1e}: {why}"
    )
    if policy == "raise":
        raise NotConvergedError(msg, result=result)
    warnings.warn(msg, ConvergenceWarning, stacklevel=3)
    return result


# --- Records --------------------------------------------------------------------------------------


def explain_chebtucker(
    f: Any, domain: Any, /, *, method: ChebTuckerMethod = "auto", max_degree: int | None = None,
    budget: int = 1 << 30, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of chebtucker would run; f is not called, so its degrees are guessed as 64."""
    _validate.choice("method", method, METHODS)
    d = len(checked_domain(domain))
    if not callable(f) or _xp.face(f) is not None:
        count = float(math.prod(getattr(f, "shape", (1,))))
        reason = "values are given and there is no function to call"
        return Explanation("chebtucker", "data", reason, {}, 20.0 * count, 16.0 * count)
    m = 1 + min(64, LONGEST[d] if max_degree is None else max_degree)
    if method == "auto":
        by_grid = d == 1 or m**d <= min(CHEAP, budget // 32)
        chosen = "grid" if by_grid else "cross"
        reason = (
            f"a grid of degree {m - 1} in each of {d} variables would have {m**d:.2g} points; "
            "the degrees that fibres of f need decide"
        )
    else:
        chosen, reason = method, "it was asked for"
    rank = 20
    count = float(m**d) if chosen == "grid" else float(2 * d * m * (1.5 * rank) ** (d - 1))
    names = {"tucker_evaluate": "for the certificate"}
    return Explanation("chebtucker", chosen, reason, names, 2.0 * m * count, 32.0 * count)


@dataclasses.dataclass(frozen=True)
class _Runge:
    """``1 / (1 + k r^2)``, with poles near the box."""

    k: float

    def __call__(self, *x: Any) -> Any:
        return 1.0 / (1.0 + self.k * sum(t * t for t in x))


def sample(size: str, *, xp: Any = np, rng: Any = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A function of more variables, and of poles that are nearer."""
    d, k, tol = {"small": (2, 1.0, 1e-6), "medium": (3, 4.0, 1e-8), "large": (3, 64.0, 1e-12)}[size]
    return (_Runge(k), [(-1.0, 1.0)] * d), {"tol": tol, "xp": xp, "rng": rng}
