"""chebtucker: a function on a box as a Chebyshev-Tucker series, to a tolerance."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np

from linalgk import _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.tensor import _construct, _from_data
from linalgk.tensor._domain import checked_domain
from linalgk.tensor._function import ChebTucker
from linalgk.typing import OnFail

ChebTuckerMethod = Literal["auto", "grid", "cross", "rhosvd", "full"]
# Of functions, and of canonical tensors.
SAMPLED, REDUCED = ("auto", "grid", "cross"), ("auto", "rhosvd", "full")
METHODS = (*SAMPLED, *REDUCED[1:])


def chebtucker(
    f: Callable[..., Any] | Any, domain: Any, /, *, tol: float | None = None,
    vectorized: bool = True, method: ChebTuckerMethod = "auto", max_degree: int | None = None,
    budget: int = 1 << 30, max_evaluations: int | None = None, rng: Any = 0,
    on_fail: OnFail | None = None, grid: Any = None, degree: int | Sequence[int] | None = None,
    ranks: int | Sequence[int] | None = None, spline: int | None = None, xp: Any = None,
    device: Any = None, dtype: Any = None,
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
    method : {"auto", "grid", "cross", "rhosvd", "full"}
        All values on a Chebyshev grid, or those on fibres through chosen points only. ``"auto"``
        takes the grid up to 2.5 million points. Of a canonical tensor: through its factors, which
        is ``"auto"``, or through all of its coefficients.
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
    grid : {"chebyshev", "uniform", "cells"} or d vectors, optional
        Where given values lie: at ``-cos(pi j / (n-1))``, mapped to the interval, the default; at
        equal distances from end to end; at the centres of n equal cells; or at these increasing
        coordinates. Not for functions, as the next three.
    degree : int or d of them, optional
        Of a series through given values; by default what they need.
    ranks : int or d of them, optional
        At most these.
    spline : int, optional
        Odd order of the splines through given values, 3 for cubic; by default the one of 3, 5, 7
        and 9 that predicts points left out best.
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

    Given values on a Chebyshev grid are transformed; others are interpolated by splines with
    not-a-knot ends and these by Chebyshev series, column by column of a canonical or Tucker tensor
    (algorithms 2 to 4 of [3]_, with degrees that are found and terms that are weighted). The error
    between points is estimated from the prediction of every second one by the others.

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
    box = checked_domain(domain)
    name = _dtype(dtype)
    if not callable(f) or _xp.face(f) is not None:
        _validate.choice("method", method, REDUCED)
        asked = {"tol": tol, "grid": grid, "degree": degree, "ranks": ranks, "spline": spline}
        given: dict[str, Any] = {name: x for name, x in asked.items() if x is not None}
        return _from_data.from_data(
            f, box, on_fail=policy, dtype=dtype, method=cast("Any", method), **given
        )
    _validate.choice("method", method, SAMPLED)
    for key, x in {"grid": grid, "degree": degree, "ranks": ranks, "spline": spline}.items():
        if x is not None:
            msg = f"{key}: is for given values; a function is sampled where it has to be"
            raise TypeError(msg)
    made = _construct.constructed(
        f, box, tol=tol, vectorized=vectorized, method=method, max_degree=max_degree,
        budget=budget, max_evaluations=max_evaluations, rng=rng, policy=policy, xp=xp,
        device=device, dtype=name,
    )  # fmt: skip
    return ChebTucker(made.core, made.factors, made.domain, **made._notes())


def _dtype(dtype: Any) -> str:
    """The name of the dtype asked for, of any library."""
    try:
        name = "float64" if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = str(dtype).rpartition(".")[2]
    return str(_validate.choice("dtype", name, _xp.REAL))


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
    m = 1 + min(64, _construct.LONGEST[d] if max_degree is None else max_degree)
    if method == "auto":
        by_grid = d == 1 or m**d <= min(_construct.CHEAP, budget // 32)
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
