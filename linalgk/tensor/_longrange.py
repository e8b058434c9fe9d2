"""Potentials of many charges: a smooth long range as one function, a short range by neighbours."""

import itertools
import math
from typing import Any, Literal, NamedTuple

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import NonFiniteError
from linalgk.tensor import _particles
from linalgk.tensor._compress import compress
from linalgk.tensor._function import ChebTucker
from linalgk.tensor._gaussians import gaussian_sum
from linalgk.tensor._potential import LongRangePotential, Particles, kernel, real, reported
from linalgk.tensor._series import Certificate
from linalgk.typing import OnFail

# Random points at which the sum itself is compared with.
PROBES = 128
# Shares of the tolerance: for the sum of Gaussians, whose errors may add up, and for the ranks.
GAUSSIANS, RANKS = 0.05, 0.2
TIGHTEST, LOOSEST = 1e-13, 0.1
FINEST, NEEDLES = 2e-14, 6
ATTEMPTS = 3
# Most numbers of a core before it is truncated, and functions along an axis.
CORE, AXIS = 1 << 27, 1 << 10
# Seconds per flop of large and small matrix products and of evaluation, and per pair, about.
LARGE, SMALL, EVALUATION, PAIR = 1.6e-11, 4e-11, 1e-11, 1e-7


def longrange_potential(
    points: Any, charges: Any, tol: float = 1e-7, /, *, split: float | Literal["auto"] = "auto",
    domain: Any = None, kappa: float = 0.0, on_fail: OnFail | None = None,
) -> LongRangePotential:  # fmt: skip
    r"""Potential of point charges anywhere, to a tolerance, with energy and forces.

    Parameters
    ----------
    points : array, shape (N, 3)
        Positions, no two equal.
    charges : array, shape (N,)
        Charges of either sign.
    tol : float
        Absolute error relative to the largest long-range potential (see `LongRangePotential`),
        from 1e-13 to 0.1.
    split : float or "auto"
        Radius up to which neighbours are summed; ``"auto"`` balances the expected times of the
        construction, an energy and the neighbours.
    domain : sequence of three pairs of float, optional
        Box to evaluate in; holds all particles. Default: the least one and 2 percent on either
        side, no side shorter than a tenth of the longest.
    kappa : float
        Inverse screening length: a unit charge has the potential ``exp(-kappa r) / r``.
    on_fail : {"raise", "warn", "nan"}, optional
        What becomes of an error above ``tol``: a `ConvergenceWarning` unless asked otherwise.

    Returns
    -------
    LongRangePotential
        With ``eval``, ``grad``, ``energy``, ``forces`` and the certified ``error``.

    Notes
    -----
    A sum of Gaussians is the kernel from the radius to the diagonal of the box [1]_, [2]_; nearer
    than the radius neighbours make up the difference, so no Gaussian is narrower than needed. The
    long range of N particles takes ``2 N r^3`` flops for the moments of the charges in the r
    functions of a variable that all Gaussians are made of (``r ~ 2 L log(30/tol) / (pi radius) +
    12`` for a box of side L), and ``6 J r^4`` for J Gaussians; no matrix has a column per particle
    and Gaussian. The core is then truncated and compared with the sum itself at 128 points; where
    it misses the tolerance, a finer basis is tried.

    References
    ----------
    .. [1] P. Benner, V. Khoromskaia, B. N. Khoromskij, "Range-separated tensor format for
       many-particle modeling", SIAM J. Sci. Comput. 40 (2018), section 3.
    .. [2] P. Benner, B. N. Khoromskij, V. Khoromskaia, B. Sun, "A mesh-free hybrid
       Chebyshev-Tucker tensor format with applications to multi-particle modelling",
       arXiv:2503.01696.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> v = lk.longrange_potential(rng.uniform(-1, 1, (200, 3)), rng.uniform(-1, 1, 200), 1e-6)
    >>> v.converged, v.forces().shape
    (True, (200, 3))
    """
    request = _request(points, charges, tol, split, domain, kappa)
    policy = "warn" if on_fail is None else _validate.on_fail(on_fail)
    w, a = gaussians(request.radius, request.box, request.tol, request.kappa)
    x = probes(request.box, request.points)
    exact, missed = _particles.direct(
        x, request.points, request.charges, (w, a), lambda square: kernel(square, request.kappa),
        request.radius, threads=_config.num_threads(),
    )  # fmt: skip
    scale = max(float(np.abs(exact).max()), float(np.abs(request.charges).max() * np.sum(w)))
    long = _long(request, (w, a), x, exact, scale)
    error = long.error + float(np.abs(missed).max()) / (scale or 1.0)
    sources = Particles(request.points, request.charges)
    found = LongRangePotential(
        long, sources, request.radius, (w, a), error=error, tol=request.tol, kappa=request.kappa
    )
    return reported("longrange_potential", found, policy)


def gaussians(radius: float, box: Any, tol: float, kappa: float) -> tuple[Any, Any]:
    """Weights and exponents for the kernel from the radius to the diagonal."""
    diagonal = float(np.linalg.norm(box[:, 1] - box[:, 0]))
    return terms(radius, max(diagonal, 2.0 * radius), GAUSSIANS * tol, kappa)


def terms(low: float, high: float, tol: float, kappa: float) -> tuple[Any, Any]:
    """Gaussians of the kernel between two distances, or a little beyond the second."""
    # few different intervals, so that sums of Gaussians are found again
    steps = math.ceil(4.0 * math.log2(high / low))
    found = _unit_terms(2.0 ** (steps / 4.0), max(tol, FINEST), kappa * low)
    return found[0] / low, found[1] / low**2


def _unit_terms(high: float, tol: float, kappa: float) -> tuple[Any, Any]:
    if kappa:
        w, a = gaussian_sum("yukawa", 1.0, high, tol, kappa=kappa)
    else:
        w, a = gaussian_sum("newton", 1.0, high, tol)
    return np.asarray(w), np.asarray(a)


def probes(box: Any, sites: Any) -> Any:
    """Points of the box: centre, corners, random ones, some of the charges (n, 3) and near them."""
    rng = np.random.default_rng(0)
    found = rng.uniform(box[:, 0], box[:, 1], (PROBES, 3))
    half = PROBES // 2
    chosen = sites[rng.integers(sites.shape[0], size=half)]
    away = np.where(np.arange(half) % 2, 0.01, 0.0)[:, None]
    found[:half] = chosen + away * (found[:half] - chosen)
    # where Chebyshev polynomials are all large
    found[half : half + 9] = [[0.5 * (low + high) for low, high in box], *itertools.product(*box)]
    return found


# --- Long range ----------------------------------------------------------------------------------


def _long(
    request: "_Request", gaussians: tuple[Any, Any], x: Any, exact: Any, scale: float
) -> ChebTucker:
    """The long range, known exactly at the probes x."""
    w, a = gaussians
    tol, box, q = request.tol, request.box, request.charges
    half = 0.5 * (box[:, 1] - box[:, 0])
    scaled = np.clip((request.points - box.mean(axis=1)) / half, -1.0, 1.0)
    if scale == 0.0:
        return nothing(box)
    # errors of many charges add up like the charges, most often as if at random
    finest = RANKS * tol * scale / float(np.sum(w) * np.linalg.norm(q))
    share = min(finest, 0.05 * tol)
    ranks_tol = RANKS * tol * scale
    best: ChebTucker | None = None
    for _ in range(ATTEMPTS):
        bases = [_particles.basis(a * h * h, w / np.sum(w), max(share, 1e-15)) for h in half]
        factors = [b.factors for b in bases]
        moment = _particles.moments(scaled, q, factors, _config.num_threads())
        core = _particles.core(moment, w, [b.matrices for b in bases])
        tail = max(b.tail for b in bases)
        found = certified(core, factors, box, ranks_tol, (exact, scale, tail), x)
        if best is None or found.error < best.error:
            best = found
        if best.error <= tol or share <= 1e-15:
            break
        share, ranks_tol = share / 10, ranks_tol / 10
    assert best is not None
    return best._with(best.core, best.factors, converged=best.error <= tol)


def nothing(box: Any) -> ChebTucker:
    """The potential of no charge at all."""
    return ChebTucker(np.zeros((1, 1, 1)), [np.ones((1, 1))] * 3, box, scale=0.0, method="moments")


def certified(
    core: Any, factors: Any, box: Any, tol: float, known: tuple[Any, float, float], x: Any, *,
    method: str = "moments",
) -> ChebTucker:  # fmt: skip
    """The truncated function with its error at the probes x."""
    exact, scale, tail = known
    small = compress(core, factors, tol=tol)
    found = ChebTucker(small.core, small.factors, box, scale=scale, method=method)
    sampled = float(np.abs(found(*x.T) - exact).max()) / scale
    bound = small.error * math.sqrt(math.prod(f.shape[0] for f in factors)) / scale
    certificate = Certificate(tail, bound, sampled, x.shape[0])
    return found._with(found.core, found.factors, error=sampled, certificate=certificate)


# --- What comes in -------------------------------------------------------------------------------


class _Request(NamedTuple):
    points: Any
    charges: Any
    tol: float
    radius: float
    box: Any  # (3, 2)
    kappa: float
    reason: str


def _request(points: Any, charges: Any, tol: Any, split: Any, domain: Any, kappa: Any) -> _Request:
    tol = _validate.real_between("tol", tol, TIGHTEST, LOOSEST)
    kappa = _validate.real_between("kappa", kappa, 0.0, math.inf)
    x, q = host("points", points), host("charges", charges)
    if x.ndim != 2 or x.shape[1] != 3 or not x.shape[0]:
        msg = f"points: must have shape (N, 3) with N at least 1, got {x.shape}"
        raise ValueError(msg)
    if q.shape != (x.shape[0],):
        msg = f"charges: must have shape ({x.shape[0]},), one for each point, got {q.shape}"
        raise ValueError(msg)
    _apart(x, q)
    box = box_of(x, domain, "particles")
    if isinstance(split, str):
        _validate.choice("split", split, ("auto",))
        radius, reason = _auto(x, box, tol)
    else:
        radius = _validate.real_between("split", split, 0.0, math.inf, low_open=True)
        reason = "the radius was given"
        _affordable(_ranks(box[:, 1] - box[:, 0], radius, tol), radius)
    return _Request(x, q, tol, radius, box, kappa, reason)


def host(name: str, x: Any) -> Any:
    """A finite real array on the host in double precision."""
    x = _xp.as_array(name, x)
    if _xp.is_traced(x):
        msg = f"{name}: its values are looked at, which cannot be traced; call outside"
        raise TypeError(msg)
    face = _xp.face(x)
    assert face is not None
    found = np.asarray(_xp.to_numpy(real(name, face.enter(x))), np.float64)
    if not np.isfinite(found).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        msg = f"{name}: must be finite, got {found[bad]} at {bad}"
        raise NonFiniteError(msg)
    return found


def _apart(x: Any, q: Any) -> None:
    """Raise where two charges share a place."""
    order = np.lexsort(x.T)
    same = (x[order[1:]] == x[order[:-1]]).all(axis=1)
    same &= (q[order[1:]] != 0) | (q[order[:-1]] != 0)
    if same.any():
        first = int(np.argmax(same))
        i, j = sorted((int(order[first]), int(order[first + 1])))
        msg = (
            f"points: {i} and {j} are both at {x[i].tolist()}, where their energy is infinite; "
            "add up the charges of equal points first"
        )
        raise ValueError(msg)


def box_of(x: Any, domain: Any, what: str) -> Any:
    """The box (3, 2) asked for, or about the least that is not too flat."""
    low, high = x.min(axis=0), x.max(axis=0)
    if domain is None:
        widths = high - low
        longest = float(widths.max())
        if longest == 0.0:
            grow = np.full(3, max(0.5, 1e-6 * float(np.abs(x).max())))
        else:
            # derivatives are worst at the very ends of a Chebyshev series
            grow = np.maximum(0.1 * longest - widths, 0.04 * widths) / 2
        return np.stack([low - grow, high + grow], axis=1)
    box = np.asarray(domain, np.float64)
    if box.shape != (3, 2) or not np.isfinite(box).all() or not (box[:, 0] < box[:, 1]).all():
        msg = f"domain: must be three pairs (low, high) with low < high, got {domain!r}"
        raise ValueError(msg)
    outside = (low < box[:, 0]) | (high > box[:, 1])
    if outside.any():
        k = int(np.argmax(outside))
        msg = (
            f"domain: must hold all {what}, which lie in [{low[k]:g}, {high[k]:g}] along axis {k}, "
            f"got [{box[k, 0]:g}, {box[k, 1]:g}]"
        )
        raise ValueError(msg)
    return box


# --- Split ---------------------------------------------------------------------------------------


def _auto(x: Any, box: Any, tol: float) -> tuple[float, str]:
    """The radius of least expected time of a construction, an energy and the forces."""
    from scipy.spatial import cKDTree

    n = x.shape[0]
    widths = box[:, 1] - box[:, 0]
    diagonal = float(np.linalg.norm(widths))
    some = x[np.random.default_rng(0).integers(n, size=min(n, 128))]
    tree = cKDTree(x)
    best = (math.inf, diagonal, 0.0)
    for radius in diagonal * 2.0 ** (-0.5 * np.arange(2, 24)):
        ranks = _ranks(widths, radius, tol)
        if np.prod(ranks) > CORE / 8 or ranks.max() > AXIS / 2:
            break
        near = float(tree.query_ball_point(some, radius, return_length=True).mean())
        work, made = _seconds(n, ranks), n * near * PAIR
        best = min(best, (work + made, float(radius), near))
    return best[1], f"{best[2]:.0f} neighbours and the long range take about as long"


def _affordable(ranks: Any, radius: float) -> None:
    if np.prod(ranks) > CORE or ranks.max() > AXIS:
        msg = (
            f"split: radius {radius:.3g} needs a core of about {np.prod(ranks):.1e} numbers; "
            "take a larger one, or split='auto'"
        )
        raise ValueError(msg)


def _ranks(widths: Any, radius: float, tol: float) -> Any:
    return 2.0 * widths / (math.pi * radius) * math.log(30.0 / tol) + 12.0


def _seconds(n: int, ranks: Any) -> float:
    """Of the moments, the core, its truncation, and values and gradients at all particles."""
    size = float(np.prod(ranks))
    truncated = SMALL * (6.0 * 15.0 + 30.0) * size * float(np.mean(ranks))
    return 2.0 * n * size * (LARGE + 4.0 * EVALUATION) + truncated


# --- Records -------------------------------------------------------------------------------------


def explain_longrange_potential(
    points: Any, charges: Any, tol: float = 1e-7, /, *, split: Any = "auto", domain: Any = None,
    kappa: float = 0.0, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of longrange_potential would run."""
    request = _request(points, charges, tol, split, domain, kappa)
    n = request.points.shape[0]
    ranks = _ranks(request.box[:, 1] - request.box[:, 0], request.radius, request.tol)
    size = float(np.prod(ranks))
    reason = f"radius {request.radius:.3g}: {request.reason}"
    flops = 2.0 * n * size + 6.0 * 15.0 * size * float(np.mean(ranks))
    return Explanation("longrange_potential", "moments", reason, {}, flops, 32.0 * n + 16.0 * size)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Charges of both signs in a cube."""
    n = {"small": 50, "medium": 5000, "large": 100_000}[size]
    generator = np.random.default_rng(rng)
    points, charges = generator.uniform(-1, 1, (n, 3)), generator.uniform(-1, 1, n)
    return (xp.asarray(points), xp.asarray(charges), 1e-5), {}
