"""Values of functions and compressed tensors: times and errors beside those of other libraries."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour._covariances import size
from linalgk.tour._page import Heading, Num, Table, Text, count, duration, scientific
from linalgk.tour._timing import Row, Timed, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._page import Block, Options, Page

    Array = NDArray[Any]

__all__ = ["compressed", "peers", "timed", "values"]

PYTTB, TENSORLY = "pyttb", "TensorLy"
LIBRARIES = {PYTTB: "pyttb", TENSORLY: "tensorly.decomposition"}


def peers() -> list[str]:
    """Import the libraries to compare with, and name those that are there."""
    found = []
    for name, module in LIBRARIES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import_module(module)
        except (ImportError, OSError, RuntimeError):
            continue
        found.append(name)
    return found


def timed(calls: dict[str, Callable[[], Any]], options: Options) -> dict[str, Timed]:
    """Shortest times, warnings of the libraries kept away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return interleaved(
            calls, rounds=2 if options.quick else 4, budget=0.0 if options.quick else 0.1
        )


# --- values of a function ------------------------------------------------------------------------


def values(name: str, f: Callable[..., Array], g: lk.ChebTucker, options: Options) -> Row:
    """Of g, which approximates f, at random points: all by linalgk, some of them by NumPy."""
    n, shares = (50_000, 50, 1000) if options.quick else (400_000, 80, 4000)
    x = np.random.default_rng(0).uniform(-1, 1, (3, n))
    some, few = x[:, : n // shares], x[:, : n // 1000 if options.quick else n // 4000]
    coefficients = g.coefficients()

    def by_factors() -> Array:
        columns = [np.polynomial.chebyshev.chebval(t, u) for t, u in zip(some, g.factors, strict=True)]
        return np.asarray(np.einsum("ijk,in,jn,kn->n", g.core, *columns, optimize=True))

    times = timed(
        {
            "linalgk": lambda: g(*x),
            "NumPy, einsum": by_factors,
            "NumPy, chebval3d": lambda: np.polynomial.chebyshev.chebval3d(*few, coefficients),
        },
        options,
    )
    return Row("", times, {})
