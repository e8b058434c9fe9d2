"""Problems and contenders for sums of Gaussians and potentials of many charges."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Arrays, Problem, Target

DIRECT, LOGARITHMIC = "numpy direct sum", "numpy, trapezoidal rule"
FARTHEST = 3.47
# Pairs of points that a direct sum takes at a time.
PAIRS = 1 << 22


# --- Gaussians ------------------------------------------------------------------------------------


def _interval(nearest: float) -> Arrays:
    return {"x": np.geomspace(nearest, FARTHEST, 5000)}


def _inverse(arrays: Arrays) -> Array:
    return 1 / np.asarray(arrays["x"])


def _relative(terms: Array, reference: Any) -> float:
    """The largest relative error of the sum of Gaussians."""
    w, a = np.asarray(terms)
    r = 1 / np.asarray(reference)
    return float(np.max(np.abs(np.exp(-np.outer(r * r, a)) @ w * r - 1)))


def gaussians_problem(nearest: float, tol: float) -> Problem:
    """Weights and exponents for 1/r."""
    return Problem(
        name=f"gaussian_sum-newton-{tol:.0e}".replace("e-0", "em").replace("e-", "em"),
        function="gaussian_sum", shape=(0,), dtype="float64",
        make=functools.partial(_interval, nearest), reference=_inverse, args=("x",),
        options={"nearest": nearest, "tol": tol}, error=_relative, error_bound=tol,
    )  # fmt: skip


def _rule(problem: Problem, _arrays: Arrays) -> Callable[[], Any]:
    """``1/r = (2/sqrt(pi)) int e^u exp(-r^2 e^(2u)) du``: a step found by halving, plain tails."""
    nearest, tol = problem.options["nearest"], problem.options["tol"]
    r = np.geomspace(nearest, FARTHEST, 500)

    def terms(h: float) -> Array:
        low = np.log(tol * 0.2 / FARTHEST)
        high = np.log(np.sqrt(np.log(1 / tol) + 3) / nearest)
        u = np.arange(low, high + h, h)
        return np.stack([2 / np.sqrt(np.pi) * h * np.exp(u), np.exp(2 * u)])

    def call() -> Any:
        h = 1.0
        while True:
            w, a = found = terms(h)
            if np.max(np.abs(np.exp(-np.outer(r * r, a)) @ w * r - 1)) <= tol:
                return found
            h *= 0.9

    return call


# --- Charges --------------------------------------------------------------------------------------


def _cloud(charges: int, probes: int) -> Arrays:
    rng = np.random.default_rng(6)
    return {
        "x": rng.uniform(-1, 1, (charges, 3)),
        "q": rng.choice([-1.0, 1.0], charges),
        "probes": rng.uniform(-1, 1, (probes, 3)),
    }


def _potential(points: Array, x: Array, q: Array) -> Array:
    """The direct sum, without the term of a charge at the point itself."""
    step = max(PAIRS // len(x), 1)
    found = []
    for i in range(0, len(points), step):
        square = sum((points[i : i + step, k, None] - x[:, k]) ** 2 for k in range(3))
        with np.errstate(divide="ignore"):
            inverse = 1 / np.sqrt(square)
        inverse[np.isinf(inverse)] = 0
        found.append(inverse @ q)
    return np.concatenate(found)


def _at_probes(arrays: Arrays) -> Array:
    return _potential(arrays["probes"], arrays["x"], arrays["q"])


def _energy(arrays: Arrays) -> Array:
    x, q = arrays["x"], arrays["q"]
    return np.array([0.5 * q @ _potential(x, x, q)])


def _of_rms(result: Array, reference: Any) -> float:
    """The largest error over the root mean square."""
    return float(np.max(np.abs(result - reference)) / np.sqrt(np.mean(np.square(reference))))


def potential_problem(charges: int, probes: int, tol: float) -> Problem:
    """Made from the charges, and evaluated at some points."""
    return Problem(
        name=f"potential-{charges}-charges", function="longrange_potential", shape=(charges, 3),
        dtype="float64", make=functools.partial(_cloud, charges, probes), reference=_at_probes,
        args=("x",), options={"tol": tol, "what": "eval"}, error=_of_rms, error_bound=tol,
        targets=(Target("linalgk", 60.0, "seconds"),), tier="target",
    )  # fmt: skip


def energy_problem(charges: int, tol: float) -> Problem:
    """The energy of a cloud of charges, for which all of them see all others."""
    return Problem(
        name=f"energy-{charges}-charges", function="longrange_potential", shape=(charges, 3),
        dtype="float64", make=functools.partial(_cloud, charges, 1), reference=_energy,
        args=("x",), options={"tol": tol, "what": "energy"}, error=_of_rms,
        # of the sum of errors with random signs
        error_bound=100 * tol,
    )  # fmt: skip


def _crystal(edge: int, probes: int) -> Arrays:
    """Rock salt of edge^3 ions around the origin, and points between its ions."""
    line = np.arange(edge) - 0.5 * (edge - 1)
    x = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    q = (-1.0) ** np.indices((edge,) * 3).sum(axis=0).ravel()
    rng = np.random.default_rng(8)
    cells = rng.integers(1, edge - 2, (probes, 3)) - 0.5 * (edge - 1)
    return {"x": x, "q": q, "probes": cells + rng.uniform(0.3, 0.7, (probes, 3))}


def lattice_problem(edge: int, probes: int, tol: float) -> Problem:
    """The potential of a crystal, made and evaluated at some points."""
    return Problem(
        name=f"lattice-{edge}^3-ions", function="lattice_sum", shape=(edge,) * 3,
        dtype="float64", make=functools.partial(_crystal, edge, probes), reference=_at_probes,
        args=("x",), options={"tol": tol, "what": "eval", "edge": edge}, error=_of_rms,
        error_bound=10 * tol,
    )  # fmt: skip


# D. Borwein, J. M. Borwein, K. F. Taylor, "Convergence of lattice sums and Madelung's constant",
# J. Math. Phys. 26 (1985).
ROCK_SALT = 1.7475645946331822


def _constant(_arrays: Arrays) -> Array:
    return np.array([ROCK_SALT])


def madelung_problem() -> Problem:
    """The constant of rock salt."""
    return Problem(
        name="madelung-NaCl", function="madelung_constant", shape=(1,), dtype="float64",
        make=functools.partial(_crystal, 5, 1), reference=_constant, args=("x",),
        options={"what": "constant"}, error=_of_rms, error_bound=1e-13,
    )  # fmt: skip


def _evjen(edge: int = 81) -> Array:
    """The potential at the middle of a cube whose faces count half."""
    half = edge // 2
    line = np.arange(-half, half + 1)
    weights = (-1.0) ** line
    weights[[0, -1]] *= 0.5
    total = 0.0
    for i, w in zip(line, weights, strict=True):
        with np.errstate(divide="ignore"):
            inverse = 1 / np.sqrt(i * i + line[:, None] ** 2 + line**2)
        inverse[np.isinf(inverse)] = 0
        total -= w * (weights @ inverse @ weights)
    return np.array([total])


PROBLEMS = [
    gaussians_problem(2 / 256, 1e-7),
    gaussians_problem(2 / 2048, 1e-10),
    potential_problem(100_000, 1000, 1e-7),
    energy_problem(30_000, 1e-7),
    lattice_problem(64, 1000, 1e-9),
    madelung_problem(),
]


def linalgk_call(lk: Any, problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """The call on the inputs of the problem."""
    import linalgk.tensor  # noqa: F401 - not all of its names are in the flat namespace

    options = problem.options
    if problem.function == "gaussian_sum":
        # a little tighter each time, because what was found once is kept
        tols = (options["tol"] * (1 - 1e-12 * k) for k in itertools.count())
        return lambda: lk.gaussian_sum("newton", options["nearest"], FARTHEST, next(tols))

    if problem.function == "madelung_constant":
        return lambda: np.array([lk.tensor.madelung_constant("NaCl")])

    def lattice() -> Any:
        signs = (-1.0) ** np.arange(options["edge"])
        v = lk.tensor.lattice_sum(options["edge"], charges=[signs] * 3, tol=options["tol"])
        return v.eval(arrays["probes"])

    def call() -> Any:
        v = lk.longrange_potential(arrays["x"], arrays["q"], options["tol"])
        return v.eval(arrays["probes"]) if options["what"] == "eval" else np.array([v.energy()])

    return lattice if problem.function == "lattice_sum" else call


def _direct(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    if problem.options["what"] == "eval":
        return lambda: _at_probes(arrays)
    return lambda: _energy(arrays)


def _cube(_problem: Problem, _arrays: Arrays) -> Callable[[], Any]:
    return _evjen


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


def terms(found: Any) -> Array:
    """Weights and exponents as one array."""
    return np.stack([np.asarray(x) for x in found])


PEERS = [
    Peer(LOGARITHMIC, "numpy", _of("gaussian_sum"), _rule, terms),
    Peer(DIRECT, "numpy", _of("longrange_potential", "lattice_sum"), _direct, np.asarray),
    Peer("numpy, Evjen's cube", "numpy", _of("madelung_constant"), _cube, np.asarray),
]
