"""Values of a function and compressed tensors: times and errors beside those of other libraries."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour._covariances import photographs, size
from linalgk.tour._page import Heading, Num, Table, Text, count, duration, scientific
from linalgk.tour._timing import Row, Timed, imported, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._page import Block, Options

    Array = NDArray[Any]
    Calls = Mapping[str, Callable[[], Any]]

__all__ = ["Compressed", "compressed", "film", "peers", "shown", "values"]

PYTTB, TENSORLY = "pyttb", "TensorLy"
LIBRARIES = {PYTTB: "pyttb", TENSORLY: "tensorly.decomposition"}


def peers() -> list[str]:
    """Import the libraries to compare with, and name those that are there."""
    return imported(LIBRARIES)


def _timed(calls: Calls, options: Options) -> dict[str, Timed]:
    """Shortest times, warnings of the libraries kept away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return interleaved(
            calls, rounds=2 if options.quick else 4, budget=0.0 if options.quick else 0.1
        )


# --- values of a function ------------------------------------------------------------------------


def values(name: str, f: Callable[..., Array], g: lk.ChebTucker, options: Options) -> Row:
    """Of g, which approximates f on [-1, 1]^3: all points by linalgk, a share of them by NumPy."""
    n = 40_000 if options.quick else 200_000
    shares = {"linalgk": 1, "NumPy, einsum": n // 4000, "NumPy, chebval3d": n // 10}
    x = np.random.default_rng(0).uniform(-1, 1, (3, n))
    some, few = (x[:, : n // shares[name]] for name in list(shares)[1:])
    whole, chebyshev = g.coefficients(), np.polynomial.chebyshev

    def by_factors() -> Array:
        columns = [chebyshev.chebval(t, u) for t, u in zip(some, g.factors, strict=True)]
        return np.asarray(np.einsum("ijk,in,jn,kn->n", g.core, *columns, optimize=True))

    calls = (lambda: g(*x), by_factors, lambda: chebyshev.chebval3d(few[0], few[1], few[2], whole))
    found = _timed(dict(zip(shares, calls, strict=True)), options)
    times = {name: Timed(t.seconds * shares[name], t.result) for name, t in found.items()}
    errors = {
        name: float(np.abs(t.result - f(*x[:, : t.result.size])).max() / g.scale)
        for name, t in times.items()
    }
    return Row(f"{name} at {n:,} points", times, errors)


# --- compressed tensors --------------------------------------------------------------------------


@dataclass(frozen=True)
class Compressed:
    """A tensor, what was asked for, and of each library time, ranks and error."""

    what: str
    data: Array
    tol: float
    tensor: lk.TuckerTensor
    seconds: Mapping[str, float]
    ranks: Mapping[str, tuple[int, ...]]
    errors: Mapping[str, float]


def film(frames: int, edge: int) -> Array:
    """A window (edge, edge) that moves across a photograph, gray levels from 0 to 1."""
    image = photographs()["camera"] / 255.0
    ends = np.array(image.shape) - edge
    t = np.linspace(0, 1, frames)
    # once to and fro, down and up in between
    down = np.rint(ends[0] * (0.25 - 0.15 * np.cos(2 * np.pi * t))).astype(int)
    across = np.rint(ends[1] * (0.5 - 0.3 * np.cos(np.pi * t))).astype(int)
    return np.stack([image[i : i + edge, j : j + edge] for i, j in zip(down, across, strict=True)])


def compressed(
    what: str, data: Array, tol: float, names: Sequence[str], options: Options
) -> Compressed:
    """Of data to the tolerance, by linalgk and by the libraries that are there."""
    tensor = lk.tucker(data, tol=tol)
    calls: dict[str, Callable[[], Any]] = {"linalgk": lambda: lk.tucker(data, tol=tol)}
    for name, maker in ((PYTTB, _pyttb), (TENSORLY, _tensorly)):
        if name in names:
            calls[name] = maker(data, tol, tensor.ranks)
    times = _timed(calls, options)
    found = {name: t.result for name, t in times.items()} | {"linalgk": _parts(tensor)}
    return Compressed(
        what, data, tol, tensor,
        seconds={name: t.seconds for name, t in times.items()},
        ranks={name: core.shape for name, (core, _) in found.items()},
        errors={name: _error(data, *parts) for name, parts in found.items()},
    )  # fmt: skip


def _pyttb(data: Array, tol: float, _ranks: Any) -> Callable[[], Any]:
    pyttb = import_module(LIBRARIES[PYTTB])
    x = pyttb.tensor(np.asfortranarray(data))

    def call() -> Any:
        t = pyttb.hosvd(x, tol, verbosity=0)
        return t.core.data, t.factor_matrices

    return call


def _tensorly(data: Array, _tol: float, ranks: Sequence[int]) -> Callable[[], Any]:
    decomposition = import_module(LIBRARIES[TENSORLY])
    return lambda: _parts(decomposition.tucker(data, rank=list(ranks)))


def _parts(tucker: Any) -> tuple[Array, Sequence[Array]]:
    return tucker.core, tucker.factors


def _error(data: Array, core: Array, factors: Sequence[Array]) -> float:
    """Relative to the data, multiplied out by NumPy."""
    product = np.einsum("ijk,ai,bj,ck->abc", core, *factors, optimize=True)
    return float(np.linalg.norm(product - data) / np.linalg.norm(data))


def shown(done: Sequence[Compressed], names: Sequence[str], *, quick: bool) -> list[Block]:
    """Tolerances and what became of them, as a table."""
    rows: list[list[str | Num]] = []
    best = set()
    for one in done:
        quickest = min(one.seconds, key=lambda name: one.seconds[name])
        for name, seconds in one.seconds.items():
            if name == quickest:
                best.add((len(rows), 6))
            first, ranks = name == "linalgk", one.ranks[name]
            stored = np.prod(ranks) + np.dot(one.data.shape, ranks)
            rows.append(
                [
                    f"{one.what}, {size(one.data)}" if first else "",
                    name,
                    "ranks" if name == TENSORLY else scientific(one.tol),
                    scientific(one.errors[name]),
                    " × ".join(map(str, ranks)),
                    count(float(stored)),
                    duration(seconds),
                ]
            )
    absent = [name for name in LIBRARIES if name not in names]
    return [
        Heading("Tensors compressed to a tolerance"),
        Text(
            "lk.tucker finds the ranks for a relative error and measures the error of what it "
            "returns. Errors in the table are measured once more, by NumPy, from the tensors "
            "multiplied out. pyttb: hosvd with the same tolerance; its singular values are roots "
            "of eigenvalues, which are known to about 1e-8 of the largest. TensorLy: tucker, "
            "which takes ranks and no tolerance; it got the ranks that linalgk found. Shortest "
            "times of a few rounds, the libraries taking turns."
            + (f" Not installed, and not here: {', '.join(absent)}." if absent else "")
            + (" This was a quick run: read the times as a rough guide." if quick else "")
        ),
        Table(
            "",
            ["tensor", "library", "asked for", "error found", "ranks", "numbers", "time"],
            rows,
            best=frozenset(best),
        ),
    ]
