"""Problems of the room of randomized solvers: inputs whose answers are known, and the errors.

Matrices with given singular values are ``F diag(s) G^T`` with orthogonal matrices F and G that are
fast transforms, random signs and a cosine transform: large ones are made within seconds, and the
distance of a factored approximation follows from transforms of its factors, without the matrix.
Of approximations the error is ``||A - X||_F / ||A - A_k||_F - 1``, what they lose against the best
one of that rank.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from linalgk_bench.problems import Array, Arrays, Problem, Target

ROUNDING = 2.0**-53  # u
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
# Contenders that targets name; who counts for the same target is a variant of it.
LSTSQ, SVD, PINV = "numpy.linalg.lstsq", "scikit-learn randomized_svd", "numpy.linalg.pinv"
PIVOTED, INTERPOLATIVE = "scipy.linalg.qr pivoting", "scipy.linalg.interpolative"
IMATE, SPLU = "imate logdet slq", "scipy splu"


# --- Matrices with given singular values ----------------------------------------------------------


def _signs(size: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 2, size) * 2.0 - 1


def turned_back(x: Array, seed: int) -> Array:
    """``F^T x`` for the orthogonal matrix F of that seed."""
    from scipy.fft import dct

    return np.asarray(dct(x * _signs(len(x), seed)[:, None], axis=0, norm="ortho"))


def with_spectrum(m: int, n: int, s: Array, seeds: tuple[int, int] = (1, 2)) -> Array:
    """``F[:, :r] diag(s) G[:, :r]^T``."""
    from scipy.fft import idct

    a = np.zeros((m, n))
    a[np.arange(len(s)), np.arange(len(s))] = s
    a = idct(a, axis=0, norm="ortho", overwrite_x=True, workers=-1)
    a = idct(a, axis=1, norm="ortho", overwrite_x=True, workers=-1)
    a *= _signs(m, seeds[0])[:, None]
    a *= _signs(n, seeds[1])
    return np.asarray(a)


def excess(s: Array, m: int, rank: int, seeds: tuple[int, int] = (1, 2)) -> Any:
    """The error of ``L R^T``, given as L (m, k) above R (n, k), from its squares."""
    tail = np.sum(s[rank:] ** 2)

    def error(result: Array, _reference: Any) -> float:
        left, right = (
            turned_back(x, seed) for x, seed in zip((result[:m], result[m:]), seeds, strict=True)
        )
        r = min(len(s), len(left), len(right))
        cross = np.sum(s[:r, None] * left[:r] * right[:r])
        squared = np.sum(s**2) - 2 * cross + np.sum((left.T @ left) * (right.T @ right))
        # not Python's max, which may lose a NaN
        return float(np.maximum(np.maximum(squared, 0) ** 0.5 / tail**0.5 - 1, 0))

    return error


def powers(n: int, exponent: float = 1.0) -> Array:
    """Singular values 1, 1 / 2^p, 1 / 3^p, ..."""
    return np.arange(1.0, n + 1) ** -exponent


def _gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def _given(arrays: Arrays) -> Any:
    return arrays


def _nothing(_arrays: Arrays) -> Any:
    return None


# --- Sparse matrices in files of arrays -----------------------------------------------------------


def parts_of(a: Any, **more: Array) -> Arrays:
    """A sparse matrix as arrays."""
    a = a.tocsr()
    parts = {"data": a.data, "cols": a.indices, "ends": a.indptr, "size": np.array(a.shape)}
    return {**parts, **more}


def matrix_of(arrays: Arrays) -> Any:
    """The matrix, sparse where it was."""
    if "data" not in arrays:
        return arrays["a"]
    from scipy.sparse import csr_array

    shape = tuple(map(int, arrays["size"]))
    return csr_array((arrays["data"], arrays["cols"], arrays["ends"]), shape=shape)


# --- Low rank -------------------------------------------------------------------------------------


def _problem(
    function: str, kind: str, shape: tuple[int, ...], make: Any, reference: Any, error: Any,
    bound: float | None, targets: tuple[Target, ...] = (), **more: Any,
) -> Problem:  # fmt: skip
    name = f"{function.replace('_', '-').lower()}-{'x'.join(map(str, shape))}"
    return Problem(
        name=f"{name}-{kind}" if kind else name, function=function, shape=shape,
        dtype="float64", make=make, reference=reference, error=error, error_bound=bound,
        targets=targets, tier="target" if targets else "gallery", **more,
    )  # fmt: skip


def svd_problem(m: int, n: int, k: int, targets: tuple[Target, ...] = ()) -> Problem:
    """Four passes over A are within one percent of the best approximation."""
    s = powers(min(m, n))
    return _problem(
        "svd_lowrank", f"rank{k}", (m, n), lambda: {"a": with_spectrum(m, n, s)}, _nothing,
        excess(s, m, k), 0.01, targets, options={"rank": k},
        # four products of which one is a sketch, and the bases
        flops=6.0 * m * n * (k + 10), nbytes=32.0 * m * n,
    )  # fmt: skip


def eigh_problem(n: int, k: int) -> Problem:
    s = powers(n)
    return _problem(
        "eigh_lowrank", f"rank{k}", (n, n), lambda: {"a": with_spectrum(n, n, s, (1, 1))},
        _nothing, excess(s, n, k, (1, 1)), 0.05, options={"rank": k},
        flops=4.0 * n * n * (k + 10), nbytes=24.0 * n * n,
    )  # fmt: skip


def streaming_problem(m: int, n: int, k: int, blocks: int) -> Problem:
    """One pass: the error is a small multiple of the best one."""
    s = powers(min(m, n), 1.5)
    return _problem(
        "StreamingSVD", f"rank{k}", (m, n), lambda: {"a": with_spectrum(m, n, s)}, _nothing,
        excess(s, m, k), 1.0, options={"rank": k, "blocks": blocks}, nbytes=8.0 * m * n,
    )  # fmt: skip


def kernel_problem(n: int, k: int) -> Problem:
    """A Gaussian kernel matrix of a cloud with a few far points: the trace that is left."""

    def make() -> Arrays:
        x = _gaussian(n, 5)
        x[: n // 100] *= 4
        squares = np.sum(x * x, axis=1)
        distances = squares[:, None] + squares - 2 * (x @ x.T)
        return {"a": np.exp(-0.05 * np.maximum(distances, 0)), "points": x}

    def error(factor: Array, arrays: Any) -> float:
        left = arrays["a"] - factor @ factor.T
        # one matrix norm is above the other for what is positive semidefinite
        trace, frobenius = np.abs(np.diagonal(left)).sum(), np.linalg.norm(left)
        return float(np.maximum(trace, frobenius) / np.trace(arrays["a"]))

    return _problem(
        "rpcholesky", f"rank{k}", (n, n), make, _given, error, 0.01, options={"rank": k},
        flops=1.0 * n * k * k, nbytes=8.0 * n * k,
    )  # fmt: skip


def interp_problem(m: int, n: int, k: int) -> Problem:
    s = powers(min(m, n))
    return _problem(
        "interp_decomp", f"rank{k}", (m, n), lambda: {"a": with_spectrum(m, n, s)}, _nothing,
        excess(s, m, k), 1.0, options={"rank": k}, nbytes=8.0 * m * n,
    )  # fmt: skip


def cur_problem(m: int, n: int, k: int, targets: tuple[Target, ...] = ()) -> Problem:
    s = powers(min(m, n))
    return _problem(
        "cur", f"rank{k}", (m, n), lambda: {"a": with_spectrum(m, n, s)}, _nothing,
        excess(s, m, k), 1.0, targets, options={"rank": k}, nbytes=16.0 * m * n,
    )  # fmt: skip


# --- Orthogonal factors ---------------------------------------------------------------------------


def qr_problem(
    function: str, m: int, n: int, kappa: float, targets: tuple[Target, ...] = ()
) -> Problem:
    """Columns of very different sizes; the defect of the product and that of orthogonality."""

    def make() -> Arrays:
        return {"a": conditioned(m, n, kappa)[0]}

    def error(result: Array, arrays: Any) -> float:
        a = arrays["a"]
        q, r, perm = result[:m], result[m : m + n], result[m + n].astype(int)
        product = max(
            np.linalg.norm(a[i : i + 8192][:, perm] - q[i : i + 8192] @ r, np.inf)
            for i in range(0, m, 8192)
        )
        size = np.linalg.norm(a, axis=1).max() * n**0.5
        return float(max(np.linalg.norm(q.T @ q - np.eye(n)), product / size))

    return _problem(
        function, f"k{kappa:.0e}".replace("+0", ""), (m, n), make, _given, error,
        30 * n**0.5 * ROUNDING * 2, targets,
        flops=(4.0 if function == "qr_pivoted" else 5.0) * m * n * n, nbytes=16.0 * m * n,
    )  # fmt: skip


def conditioned(m: int, n: int, kappa: float) -> tuple[Array, Array, Array]:
    """``A = Q diag(s) V^T`` with s and V; Q by Cholesky of a Gaussian matrix's Gram matrix."""
    from scipy.linalg import cholesky, solve_triangular

    g = _gaussian(m, n)
    triangle = cholesky(g.T @ g)
    v = np.linalg.qr(_gaussian(n, n, seed=1))[0]
    s = np.geomspace(1, 1 / kappa, n)
    return g @ solve_triangular(triangle, s[:, None] * v.T), s, v


# --- Systems --------------------------------------------------------------------------------------


def lstsq_problem(m: int, n: int, kappa: float, targets: tuple[Target, ...] = ()) -> Problem:
    """The error is the backward error by Karlson and Walden, relative to ``||A||_F``.

    ``||(S^2 + (||r|| / ||x||)^2)^(-1/2) V^T A^T r|| / ||x||``, within a factor of about 1.5 of the
    least perturbation of A of which x is the solution; residuals are computed in extended
    precision, singular values and vectors are those that A was made of.
    """

    def make() -> Arrays:
        a, s, v = conditioned(m, n, kappa)
        noise = _gaussian(m, seed=2)
        b = a @ _gaussian(n, seed=3)
        b += noise * (1e-3 * np.linalg.norm(b) / np.linalg.norm(noise))
        return {"a": a, "b": b, "s": s, "v": v}

    return _problem(
        "lstsq", f"k{kappa:.0e}".replace("+0", ""), (m, n), make, _given, backward_error,
        10 * ROUNDING, targets, args=("a", "b"),
        flops=2.0 * m * n * n, nbytes=32.0 * m * n,
    )  # fmt: skip


def backward_error(x: Array, arrays: Any) -> float:
    """By Karlson and Walden."""
    a, b, s, v = matrix_of(arrays), arrays["b"], arrays["s"], arrays["v"]
    wide, gradient = x.astype(np.longdouble), np.zeros(a.shape[1], np.longdouble)
    squares = np.longdouble(0)
    for i in range(0, a.shape[0], 1 << 14):
        block = a[i : i + (1 << 14)]
        rows = (block.toarray() if "data" in arrays else block).astype(np.longdouble)
        r = b[i : i + (1 << 14)] - rows @ wide
        gradient += rows.T @ r
        squares += r @ r
    length = float(np.linalg.norm(x))
    if not length:
        return float("inf")
    shift = float(squares) / length**2
    part = v.T @ gradient.astype(np.float64)
    weighed = np.linalg.norm(part / np.sqrt(s * s + shift))
    return float(weighed / length / np.linalg.norm(s))


def surveying_problem(name: str) -> Problem:
    """A matrix of the SuiteSparse Matrix Collection, where it is at hand."""

    def make() -> Arrays:
        from scipy.sparse import load_npz

        a = load_npz(DATA / f"{name}.npz")
        b = a @ np.ones(a.shape[1])
        b += 0.01 * np.linalg.norm(b) / len(b) ** 0.5 * _gaussian(len(b))
        return parts_of(a, b=b, **_spectrum(a))

    return _problem(
        "lstsq", name, (1850, 712), make, _given, backward_error, 100 * ROUNDING,
        args=("b",),
    )  # fmt: skip


def _spectrum(a: Any) -> dict[str, Array]:
    """Singular values and right singular vectors of a sparse matrix, by its triangle."""
    _, s, vh = np.linalg.svd(np.linalg.qr(a.toarray(), mode="r"))
    return {"s": s, "v": vh.T}


def surveying() -> list[Problem]:
    names = ("illc1850", "well1850")
    return [surveying_problem(name) for name in names if (DATA / f"{name}.npz").exists()]


def sparse_problem(m: int, n: int, density: float) -> Problem:
    """Tall, sparse, with columns of sizes from 1 to 1e-4."""

    def make() -> Arrays:
        from scipy.sparse import diags_array, random_array

        gen = np.random.default_rng(0)
        a = random_array((m, n), density=density, rng=gen, data_sampler=gen.standard_normal)
        a = a.tocsr() @ diags_array(np.geomspace(1, 1e-4, n))
        b = a @ np.geomspace(1, 1e4, n) + 0.1 * _gaussian(m)
        return parts_of(a, b=b, **_spectrum(a))

    return _problem(
        "lstsq", "sparse", (m, n), make, _given, backward_error, 100 * ROUNDING, args=("b",)
    )


def _residual(x: Array, arrays: Any) -> float:
    a, b = matrix_of(arrays), arrays["b"]
    return float(np.linalg.norm(b - a @ x) / np.linalg.norm(b))


def project_problem(kind: str, n: int, k: int) -> Problem:
    """A consistent system, or that of a constrained Newton step, to a residual of 1e-4."""

    def make() -> Arrays:
        if kind == "tall":
            a = _gaussian(n, k) * np.geomspace(1, 0.01, k)
            return {"a": a, "b": a @ _gaussian(k, seed=1)}
        half = _gaussian(n, n)
        a = np.zeros((n + k, n + k))
        a[:n, :n] = half @ half.T / n + np.eye(n)
        a[n:, :n] = _gaussian(k, n, seed=1)
        a[:n, n:] = a[n:, :n].T
        return {"a": a, "b": _gaussian(n + k, seed=2)}

    shape = (n, k) if kind == "tall" else (n + k, n + k)
    return _problem(
        "sketch_project", kind, shape, make, _given, _residual, 1.01e-4, args=("a", "b"),
        options={"tol": 1e-4}, nbytes=16.0 * shape[0] * shape[1],
    )  # fmt: skip


# --- Pseudoinverses -------------------------------------------------------------------------------


def _relative(x: Array, truth: Any) -> float:
    return float(np.linalg.norm((x - truth).ravel()) / np.linalg.norm(truth.ravel()))


def pinv_lowrank_problem(m: int, n: int, k: int, targets: tuple[Target, ...] = ()) -> Problem:
    def reference(arrays: Arrays) -> Array:
        return np.linalg.pinv(arrays["r"]) @ np.linalg.pinv(arrays["c"])

    def make() -> Arrays:
        c, r = _gaussian(m, k), _gaussian(k, n, seed=1)
        return {"a": c @ r, "c": c, "r": r}

    return _problem(
        "pinv", f"rank{k}", (m, n), make, reference, _relative, 1e-9, targets,
        options={"rank": k}, structure="lowrank", flops=2.0 * m * n * k, nbytes=16.0 * m * n,
    )  # fmt: skip


def pinv_cr_problem(m: int, n: int, k: int) -> Problem:
    def reference(arrays: Arrays) -> Array:
        return np.linalg.pinv(arrays["r"]) @ np.linalg.pinv(arrays["c"])

    return _problem(
        "pinv_cr", f"rank{k}", (m, n),
        lambda: {"c": _gaussian(m, k), "r": _gaussian(k, n, seed=1)}, reference, _relative, 1e-11,
        args=("c", "r"), flops=2.0 * m * n * k, nbytes=8.0 * m * n,
    )  # fmt: skip


def pinv_problem(m: int, n: int) -> Problem:
    """Full rank and a condition number of 1e6; the error is relative to what it may be."""

    def make() -> Arrays:
        a, s, v = conditioned(m, n, 1e6)
        return {"a": a, "s": s, "v": v}

    def reference(arrays: Arrays) -> Array:
        v, s = arrays["v"], arrays["s"]
        return np.asarray(v / s**2 @ (v.T @ arrays["a"].T))

    return _problem(
        "pinv", "svd", (m, n), make, reference, _relative, 1e-8, options={"method": "svd"},
        flops=8.0 * m * n * n,
    )  # fmt: skip


def pinv_batch_problem(count: int, n: int) -> Problem:
    """Kernel matrices of landmarks, as softmax-free attention inverts them, to 1e-3."""

    def make() -> Arrays:
        x = _gaussian(count, n, 16)
        squares = np.sum(x * x, axis=-1)
        distances = squares[..., :, None] + squares[..., None, :] - 2 * x @ np.swapaxes(x, 1, 2)
        return {"a": np.exp(-np.maximum(distances, 0) / 8) + 0.01 * np.eye(n)}

    def error(x: Array, truth: Any) -> float:
        sizes = np.linalg.norm(truth, axis=(1, 2))
        return float(np.max(np.linalg.norm(x - truth, axis=(1, 2)) / sizes))

    return _problem(
        "pinv", "newton", (count, n, n), make, lambda arrays: np.linalg.pinv(arrays["a"]), error,
        1e-8, options={"method": "newton"}, nbytes=16.0 * count * n * n,
    )  # fmt: skip


# --- Traces ---------------------------------------------------------------------------------------


def _off(value: Array, truth: Any) -> float:
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


def trace_problem(function: str, n: int, count: int) -> Problem:
    """A positive definite matrix with eigenvalues j^-1.5, by so many products with vectors."""
    s = powers(n, 1.5)

    def reference(arrays: Arrays) -> Array:
        diagonal = np.diagonal(arrays["a"])
        return np.array(diagonal.sum() if function == "estimate_trace" else diagonal)

    return _problem(
        function, f"{count}products", (n, n), lambda: {"a": with_spectrum(n, n, s, (1, 1))},
        reference, _off, 0.02 if function == "estimate_trace" else 0.5,
        options={"n_matvecs": count}, flops=2.0 * n * n * count, nbytes=8.0 * n * n,
    )  # fmt: skip


def grid(size: int) -> Any:
    """The Laplacian of a cube of so many nodes in each direction, plus the identity."""
    from scipy.sparse import diags_array, eye_array, kron

    one = diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(size, size))  # type: ignore[list-item]
    unit = eye_array(size)
    three = kron(kron(one, unit), unit) + kron(kron(unit, one), unit) + kron(kron(unit, unit), one)
    return (three + eye_array(size**3)).tocsr()


def _levels(size: int) -> Array:
    """Eigenvalues of the grid's matrix, shape (size, size, size)."""
    one = 4 * np.sin(np.arange(1, size + 1) * np.pi / (2 * (size + 1))) ** 2
    return np.asarray(1 + one[:, None, None] + one[:, None] + one)


def logdet_problem(size: int, targets: tuple[Target, ...] = ()) -> Problem:
    """To one percent."""
    return _problem(
        "estimate_logdet", "grid", (size**3, size**3), lambda: parts_of(grid(size)),
        lambda _: np.array(np.log(_levels(size)).sum()), _off, 0.01, targets, args=(),
        options={"tol": 0.01},
    )  # fmt: skip


def quad_problem(size: int) -> Problem:
    """``x^T A^-1 x`` to 1e-8, the truth by sine transforms."""

    def reference(arrays: Arrays) -> Array:
        from scipy.fft import dstn

        x = dstn(arrays["x"].reshape(size, size, size), type=1, norm="ortho")
        return np.array(np.sum(x * x / _levels(size)))

    return _problem(
        "estimate_quad_form", "grid", (size**3, size**3),
        lambda: parts_of(grid(size), x=_gaussian(size**3)), reference, _off, 1e-8, args=("x",),
    )  # fmt: skip


Maker = Callable[[Problem, Arrays], Callable[[], Any]]
