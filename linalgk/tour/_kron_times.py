"""Times of a Gaussian process on a grid: by factors, by libraries that know them, and densely."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour._covariances import size
from linalgk.tour._page import Heading, Text, duration
from linalgk.tour._timing import Row, imported, interleaved, times_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from linalgk.tour._grid_gp import Model
    from linalgk.tour._page import Block, Options, Page
    from linalgk.tour._timing import Timed

    Array = NDArray[Any]
    Calls = dict[str, Callable[[], Any]]

__all__ = ["covered", "peers", "table"]

FASTKRON, OPERATOR = "pyfastkron", "linear_operator"
LIBRARIES = {OPERATOR: "linear_operator.operators", FASTKRON: "pyfastkron.fastkronnumpy"}
_PICTURES = 16


@dataclass(frozen=True)
class _Task:
    """What is timed."""

    y: Array
    seen: Array
    model: Model
    factors: tuple[Array, Array]
    tol: float
    peers: Sequence[str]
    options: Options

    def timed(self, calls: Calls) -> dict[str, Timed]:
        """Shortest times, warnings of the libraries kept away."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return interleaved(
                calls,
                rounds=2 if self.options.quick else 4,
                budget=0.0 if self.options.quick else 0.1,
            )


def peers() -> list[str]:
    """Import the libraries to compare with, and name those that are there."""
    return imported(LIBRARIES)


def covered(factors: tuple[Array, Array], x: Array, noise: float) -> Array:
    """``K x + noise x`` of a picture, by NumPy."""
    return np.asarray(factors[0] @ x @ factors[1] + noise * x)


def table(
    y: Array, seen: Array, model: Model, tol: float, names: Sequence[str], options: Options,
    page: Page,
) -> list[Block]:  # fmt: skip
    """Write times and errors as a table and a headline."""
    factors = model.factors((y.shape[0], y.shape[1]))
    task = _Task(y, seen, model, factors, tol, names, options)
    edge = 24 if options.quick else 48
    dense = _by_matrix(task, edge)
    work = (_likelihood(task), dense, _missing(task), _products(task))
    ours, theirs = (work[0].times[name].seconds for name in ("linalgk", "NumPy"))
    long = dense.times["SciPy, dense"].seconds * (y.size / edge**2) ** 3
    page.headlines.append(
        (
            work[0].work,
            f"{duration(ours)}, by hand in NumPy {duration(theirs)}; by a dense matrix "
            f"{_long(long)}, extrapolated",
        )
    )
    absent = [name for name in LIBRARIES if name not in names]
    return [
        Heading("Time for the same work"),
        Text(
            "Shortest of a few rounds, the libraries taking turns in one process, each with the "
            "threads it chooses, each from the factors to the result. NumPy: eigh of both "
            "factors, and products with them by matmul. SciPy: cg with such products, asked for "
            "the same residual. linear_operator: its Kronecker product, with a constant diagonal. "
            "pyfastkron: products only. Errors: of solutions the residual, of products the "
            "difference from extended precision, for one picture."
            + (f" Not installed, and not here: {', '.join(absent)}." if absent else "")
            + (" This was a quick run: read the times as a rough guide." if options.quick else "")
        ),
        times_table(work),
        Text(
            f"The dense matrix was made and factored for {edge**2:,} pixels only. For all "
            f"{y.size:,} it has {y.size**2 * 8 / 1e9:,.0f} GB; as the work grows with the cube of "
            f"the pixels, its factorization would take {_long(long)} at the same rate. That is an "
            "extrapolation: nothing of it was run."
        ),
    ]


def _long(seconds: float) -> str:
    for unit, scale in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


# --- all pixels ----------------------------------------------------------------------------------


def _likelihood(task: _Task) -> Row:
    (down, across), s, flat = task.factors, task.model.noise, task.y.ravel()

    def ours() -> tuple[Any, float]:
        kernel = lk.Kron([down, across], assume_a="pos")
        return kernel.solve(flat, shift=s), float(kernel.slogdet(shift=s).logabsdet)

    def numpy() -> tuple[Any, float]:
        (w1, v1), (w2, v2) = np.linalg.eigh(down), np.linalg.eigh(across)
        d = np.outer(w1, w2) + s
        return v1 @ ((v1.T @ task.y @ v2) / d) @ v2.T, float(np.log(d).sum())

    calls: Calls = {"linalgk": ours, "NumPy": numpy}
    if OPERATOR in task.peers:
        calls[OPERATOR] = _operator_likelihood(task)
    times = task.timed(calls)
    errors = {}
    for name, timed in times.items():
        x = np.asarray(timed.result[0]).reshape(task.y.shape)
        errors[name] = _relative(covered(task.factors, x, s), task.y)
    return Row(f"solution and log-determinant, {size(task.y)} pixels", times, errors)


def _operator_likelihood(task: _Task) -> Callable[[], Any]:
    import torch

    operators = import_module(LIBRARIES[OPERATOR])
    y = torch.from_numpy(task.y.reshape(-1, 1))
    s = torch.tensor([task.model.noise], dtype=y.dtype)

    def call() -> tuple[Any, float]:
        with torch.no_grad():
            whole = operators.KroneckerProductAddedDiagLinearOperator(
                _operator(task.factors), operators.ConstantDiagLinearOperator(s, len(y))
            )
            return whole.solve(y).numpy(), float(whole.logdet())

    return call


def _operator(factors: Sequence[Array]) -> Any:
    import torch

    operators = import_module(LIBRARIES[OPERATOR])
    return operators.KroneckerProductLinearOperator(
        *(operators.DenseLinearOperator(torch.from_numpy(f)) for f in factors)
    )


# --- missing pixels ------------------------------------------------------------------------------


def _missing(task: _Task) -> Row:
    factors, s, y = list(task.factors), task.model.noise, task.y[task.seen]

    def ours() -> Any:
        part = lk.Kron(factors, assume_a="pos").masked(task.seen)
        return part.solve(y, shift=s, tol=task.tol)

    times = task.timed({"linalgk": ours, "SciPy": _conjugate_gradients(task, y)})
    errors = {}
    for name, timed in times.items():
        whole = np.zeros(task.y.shape)
        whole[task.seen] = timed.result
        errors[name] = _relative(covered(task.factors, whole, s)[task.seen], y)
    return Row(f"solution where {y.size:,} of {task.y.size:,} pixels are left", times, errors)


def _conjugate_gradients(task: _Task, y: Array) -> Callable[[], Any]:
    from scipy.sparse.linalg import LinearOperator, cg

    whole = np.zeros(task.y.shape)

    def product(x: Array) -> Array:
        whole[task.seen] = x.ravel()
        return covered(task.factors, whole, task.model.noise)[task.seen]

    operator = LinearOperator((y.size, y.size), matvec=product, dtype=float)
    return lambda: cg(operator, y, rtol=task.tol)[0]


# --- products ------------------------------------------------------------------------------------


def _products(task: _Task) -> Row:
    (m, n), factors = task.y.shape, list(task.factors)
    x = np.random.default_rng(0).standard_normal((_PICTURES, m * n))
    calls: Calls = {
        "linalgk": lambda: lk.kron_matmul(factors, x, side="right"),
        "NumPy": lambda: factors[0] @ x.reshape(-1, m, n) @ factors[1],
    }
    if OPERATOR in task.peers:
        calls[OPERATOR] = _operator_product(task, x)
    if FASTKRON in task.peers:
        calls[FASTKRON] = _fast_product(factors, x)
    times = task.timed(calls)
    first = x[0].reshape(m, n).astype(np.longdouble)
    want = (factors[0].astype(np.longdouble) @ first @ factors[1]).astype(float).ravel()
    errors = {
        name: _relative(np.asarray(timed.result).reshape(_PICTURES, -1)[0], want)
        for name, timed in times.items()
    }
    return Row(f"product with {_PICTURES} pictures", times, errors)


def _operator_product(task: _Task, x: Array) -> Callable[[], Any]:
    import torch

    operator, columns = _operator(task.factors), torch.from_numpy(x).T

    def call() -> Any:
        with torch.no_grad():
            return (operator @ columns).T.numpy()

    return call


def _fast_product(factors: list[Array], x: Array) -> Callable[[], Any]:
    numpy_face = import_module(LIBRARIES[FASTKRON])
    return lambda: numpy_face.gemkm(x, factors)


# --- the matrix as a whole -----------------------------------------------------------------------


def _by_matrix(task: _Task, edge: int) -> Row:
    from scipy.linalg import cho_factor, cho_solve

    y, s = task.y[:edge, :edge], task.model.noise
    factors = task.model.factors((edge, edge))

    def ours() -> tuple[Any, float]:
        kernel = lk.Kron(list(factors), assume_a="pos")
        return kernel.solve(y.ravel(), shift=s), float(kernel.slogdet(shift=s).logabsdet)

    def dense() -> tuple[Any, float]:
        matrix: Array = np.kron(*factors)
        matrix.flat[:: edge**2 + 1] += s
        factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        return cho_solve(factor, y.ravel()), 2 * float(np.log(np.diag(factor[0])).sum())

    times = task.timed({"linalgk": ours, "SciPy, dense": dense})
    errors = {
        name: _relative(covered(factors, timed.result[0].reshape(edge, edge), s), y)
        for name, timed in times.items()
    }
    return Row(f"solution and log-determinant, {size(y)} pixels", times, errors)


def _relative(x: Array, want: Array) -> float:
    return float(np.linalg.norm(x - want) / np.linalg.norm(want))
