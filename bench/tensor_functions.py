"""Problems and contenders for functions of three variables: made, evaluated, integrated, summed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Array, Arrays, Problem, Target

CHEBVAL, EINSUM = "numpy chebval3d", "numpy einsum"
CUBE = [(-1.0, 1.0)] * 3


# --- Values at points -----------------------------------------------------------------------------


def series(points: int, length: int, rank: int) -> Arrays:
    """Coefficients that fall to 1e-10, in orthonormal columns, and points."""
    rng = np.random.default_rng(4)
    fall = np.geomspace(1, 1e-10, length)[:, None]
    found = {f"f{k}": np.linalg.qr(fall * rng.standard_normal((length, rank)))[0] for k in range(3)}
    x = rng.uniform(-1, 1, (3, points))
    return {"x": x, "core": rng.standard_normal((rank,) * 3), **found}


def _factors(arrays: Arrays) -> list[Array]:
    return [arrays[f"f{k}"] for k in range(3)]


def _table(x: Array, m: int) -> Array:
    rows = [np.ones_like(x), x]
    for _ in range(m - 2):
        rows.append(2 * x * rows[-1] - rows[-2])
    return np.stack(rows, axis=1)


def exactly(arrays: Arrays) -> Array:
    """At a thousand of the points, in extended precision."""
    x = arrays["x"][:, :: max(arrays["x"].shape[1] // 1000, 1)].astype(np.longdouble)
    e = [
        _table(t, len(f)) @ f.astype(np.longdouble)
        for t, f in zip(x, _factors(arrays), strict=True)
    ]
    core = arrays["core"].astype(np.longdouble)
    total = e[0] @ core.reshape(len(core), -1)
    for rows in e[1:]:
        total = total.reshape(len(rows), rows.shape[1], -1)
        total = (rows[:, :, None] * total).sum(axis=1)
    return total.reshape(-1).astype(np.float64)


def _by_largest(result: Array, reference: Any) -> float:
    """The largest error of these points over the largest value."""
    step = max(len(result) // 1000, 1)
    some = result[::step]
    return float(np.max(np.abs(some - reference)) / np.max(np.abs(reference)))


def evaluate_problem(points: int, length: int, rank: int, targets: tuple[Target, ...]) -> Problem:
    """A given function at so many points."""
    return Problem(
        name=f"evaluate-{points}-points-degree-{length - 1}-rank-{rank}", function="ChebTucker",
        shape=(points, 3), dtype="float64",
        make=functools.partial(series, points, length, rank), reference=exactly, args=("x",),
        flops=2.0 * points * (3 * length * rank + rank**3), nbytes=32.0 * points,
        error=_by_largest, targets=targets, tier="target",
        # of sums of ``length`` and of ``rank^3`` terms with signs
        error_bound=float(np.finfo(float).eps) * (length + rank**3),
    )  # fmt: skip


# --- Functions ------------------------------------------------------------------------------------


def runge(x: Any, y: Any, z: Any) -> Any:
    """Poles close to the cube."""
    return 1 / (1 + 25 * (x * x + y * y + z * z))


def wave_front(x: Any, y: Any, z: Any) -> Any:
    """Steep across a diagonal."""
    return np.tanh(5 * (x + y + z))


FUNCTIONS = {"runge": runge, "tanh": wave_front}


def _points() -> Array:
    return np.random.default_rng(5).uniform(-1, 1, (3, 1000))


def _values(name: str, _arrays: Arrays) -> Array:
    return np.asarray(FUNCTIONS[name](*_points()))


def _no_arrays() -> Arrays:
    return {"x": _points()}


def construct_problem(name: str, tol: float) -> Problem:
    """From the function to something that can be evaluated anywhere to ``tol``."""
    return Problem(
        name=f"construct-{name}-tol-{tol:.0e}".replace("e-0", "em"), function="chebtucker",
        shape=(0, 0, 0), dtype="float64", make=_no_arrays,
        reference=functools.partial(_values, name), args=("x",),
        options={"name": name, "tol": tol}, error=_by_largest, error_bound=tol,
    )  # fmt: skip


PROBLEMS = [
    evaluate_problem(1000, 130, 20, (Target(CHEBVAL, 200.0),)),
    evaluate_problem(1_000_000, 130, 20, (Target(EINSUM, 5.0),)),
    construct_problem("runge", 1e-7),
    construct_problem("tanh", 1e-7),
]


def linalgk_call(lk: Any, problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """The call on the inputs of the problem."""
    x = arrays["x"]
    if problem.function == "ChebTucker":
        f = lk.ChebTucker(arrays["core"], _factors(arrays), CUBE)
        return lambda: f(*x)
    func, tol = FUNCTIONS[problem.options["name"]], problem.options["tol"]
    return lambda: lk.chebtucker(func, CUBE, tol=tol)


def exported(found: Any) -> Array:
    """Values: as they are, or of the function that was found."""
    return np.asarray(found(*_points()) if callable(found) else found)


def _chebval(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """The full series."""
    from numpy.polynomial import chebyshev

    chebval3d: Any = chebyshev.chebval3d

    c = arrays["core"]
    for k, f in enumerate(_factors(arrays)):
        c = np.moveaxis(np.tensordot(f, c, (1, k)), 0, k)
    c, x = np.ascontiguousarray(c), arrays["x"]
    return lambda: chebval3d(*x, c)


def _einsum(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """The same factors, some thousand points at a time."""
    from numpy.polynomial.chebyshev import chebvander

    factors, core, x = _factors(arrays), arrays["core"], arrays["x"]
    step = 1 << 13

    def part(x: Array) -> Array:
        a, b, c = (chebvander(t, len(f) - 1) @ f for t, f in zip(x, factors, strict=True))
        # in the order of fewest operations, the first of them by BLAS; a path of einsum's own
        # choice takes eighty times as long
        rest = np.einsum("na,abc->nbc", a, core, optimize=True)
        found: Array = np.einsum("nc,nc->n", np.einsum("nb,nbc->nc", b, rest), c)
        return found

    return lambda: np.concatenate([part(x[:, i : i + step]) for i in range(0, x.shape[1], step)])


def _full_grid(problem: Problem, _arrays: Arrays) -> Callable[[], Any]:
    """What one writes with NumPy and SciPy: a cube of 129 points a side, its transform, HOSVD."""
    from numpy.polynomial.chebyshev import chebvander
    from scipy.fft import dctn

    func, tol, m = FUNCTIONS[problem.options["name"]], problem.options["tol"], 129
    nodes = np.cos(np.pi * np.arange(m) / (m - 1))

    def call() -> Any:
        c = dctn(func(nodes[:, None, None], nodes[:, None], nodes), type=1) / (m - 1) ** 3
        for k in range(3):
            ends = np.moveaxis(c, k, 0)
            ends[[0, -1]] *= 0.5
        core, factors = c, []
        for k in range(3):
            rows = np.moveaxis(core, k, 0).reshape(m, -1)
            w, u = np.linalg.eigh(rows @ rows.T)
            u = u[:, w > (tol * 0.1) ** 2 * w[-1]]
            core = np.moveaxis(np.tensordot(u.T, core, (1, k)), 0, k)
            factors.append(u)

        def evaluate(*x: Array) -> Array:
            e = [chebvander(t, m - 1) @ f for t, f in zip(x, factors, strict=True)]
            found: Array = np.einsum("na,nb,nc,abc->n", *e, core, optimize=True)
            return found

        return evaluate

    return call


def _teneva(problem: Problem, _arrays: Arrays) -> Callable[[], Any]:
    """A tensor train by cross approximation on 129 Chebyshev points a side."""
    import teneva

    func, tol, m = FUNCTIONS[problem.options["name"]], problem.options["tol"], 129

    def sampled(index: Array) -> Array:
        return np.asarray(func(*teneva.ind_to_poi(index, -1.0, 1.0, m, "cheb").T))

    def call() -> Any:
        train = teneva.rand([m] * 3, r=1, seed=0)
        train = teneva.cross(sampled, train, e=tol * 0.1, nswp=7, dr_max=6)
        series = teneva.func_int(teneva.truncate(train, tol * 0.1))
        return lambda *x: teneva.func_get(np.stack(x, axis=1), series, -1.0, 1.0)

    return call


def _pychebyshev(problem: Problem, _arrays: Arrays) -> Callable[[], Any]:
    """A tensor train by cross approximation, one point at a time."""
    import pychebyshev

    func, tol = FUNCTIONS[problem.options["name"]], problem.options["tol"]

    def call() -> Any:
        made = pychebyshev.ChebyshevTT(
            lambda x, _: float(func(*x)), 3, CUBE, [129] * 3, max_rank=40, tolerance=tol * 0.1
        )
        made.build(verbose=False, seed=0)
        return lambda *x: made.eval_batch(np.stack(x, axis=1))

    return call


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


def _thousand(problem: Problem) -> bool:
    return problem.function == "ChebTucker" and problem.shape[0] == 1000


PEERS = [
    Peer(CHEBVAL, "numpy", _thousand, _chebval, np.asarray),
    Peer(EINSUM, "numpy", _of("ChebTucker"), _einsum, np.asarray),
    Peer("numpy, full grid", "scipy", _of("chebtucker"), _full_grid, exported),
    Peer("teneva cross", "teneva", _of("chebtucker"), _teneva, exported),
    Peer("pychebyshev cross", "pychebyshev", _of("chebtucker"), _pychebyshev, exported),
]
