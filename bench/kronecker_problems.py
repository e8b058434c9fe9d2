"""Problems of the room of Kronecker products, and their answers by other means.

The answer of a problem is one vector; the error is relative, the worst of its parts.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from linalgk_bench.problems import Arrays, Problem, Target

OPERATOR, INVERSE = "linear_operator", "linear_operator, inv_quad_logdet"
TENSORLY, PYTTB = "TensorLy", "pyttb"


def plain_factors(arrays: Arrays) -> list[Any]:
    """The arrays f0, f1, ..."""
    return [arrays[f"f{i}"] for i in range(sum(1 for name in arrays if name[0] == "f"))]


def _gaussian(n: int, length: float) -> Any:
    t = np.linspace(0, 1, n)
    return np.exp(-0.5 * ((t[:, None] - t) / length) ** 2)


# --- Gaussian process on a grid -------------------------------------------------------------------


def _grid(n: int) -> Arrays:
    rng = np.random.default_rng(2)
    return {
        "f0": _gaussian(n, 0.05), "f1": _gaussian(n, 0.08), "s": np.array(1e-2),
        "y": rng.standard_normal(n * n),
    }  # fmt: skip


def likelihood(arrays: Arrays) -> Any:
    """Quadratic form, log-determinant, and the derivatives by shift and factors, in closed form."""
    k1, k2, s, y = (arrays[name] for name in ("f0", "f1", "s", "y"))
    (w1, v1), (w2, v2) = (np.linalg.eigh(k) for k in (k1, k2))
    w = np.multiply.outer(w1, w2)
    z = (v1.T @ y.reshape(len(k1), -1) @ v2) / (w + s)
    alpha = v1 @ z @ v2.T
    by_shift = 0.5 * (np.sum(1 / (w + s)) - np.sum(alpha**2))
    by_first = 0.5 * ((v1 * (w2 / (w + s)).sum(1)) @ v1.T - alpha @ k2 @ alpha.T)
    by_second = 0.5 * ((v2 * (w1[:, None] / (w + s)).sum(0)) @ v2.T - alpha.T @ k1 @ alpha)
    value = 0.5 * (y @ alpha.ravel() + np.log(w + s).sum())
    return answer(value, by_shift, by_first, by_second)


def answer(value: Any, by_shift: Any, by_first: Any, by_second: Any) -> Any:
    """One vector; derivatives by symmetric factors are symmetric."""
    parts = [0.5 * (g + g.T).ravel() for g in map(np.asarray, (by_first, by_second))]
    return np.concatenate([[float(value), float(by_shift)], *parts])


def _worst(n: int, x: Any, y: Any) -> float:
    parts = np.split(np.arange(2 + 2 * n * n), [1, 2, 2 + n * n])
    return max(float(np.linalg.norm(x[p] - y[p]) / np.linalg.norm(y[p])) for p in parts)


def likelihood_problem(n: int, targets: tuple[Target, ...] = ()) -> Problem:
    """The likelihood of a Gaussian process on an n x n grid, and its gradient."""
    return Problem(
        name=f"Kron-likelihood-{n}x{n}", function="Kron", shape=(n * n, n * n), dtype="float64",
        make=functools.partial(_grid, n), reference=likelihood, args=("y",),
        flops=2 * 9.0 * n**3 + 16.0 * n**3, error=functools.partial(_worst, n),
        # the condition number of K + s I times the unit roundoff, and the sums of n^2 numbers
        error_bound=1e-8, targets=targets, tier="target" if targets else "gallery",
    )  # fmt: skip


# --- Matricized tensor times Khatri-Rao product ---------------------------------------------------


def _tensor(n: int, rank: int) -> Arrays:
    rng = np.random.default_rng(3)
    mats = {f"f{i}": rng.standard_normal((n, rank)) for i in range(3)}
    return {"x": rng.standard_normal((n, n, n)), **mats}


def _all_modes(arrays: Arrays) -> Any:
    a, b, c = plain_factors(arrays)
    x = arrays["x"]
    inner = np.einsum("ijk,kr->ijr", x, c, optimize=True)
    first = np.einsum("ijr,jr->ir", inner, b)
    second = np.einsum("ijr,ir->jr", inner, a)
    third = np.einsum("ijk,ir,jr->kr", x, a, b, optimize=True)
    return np.stack([first, second, third])


def mttkrp_problem(n: int, rank: int, targets: tuple[Target, ...] = ()) -> Problem:
    """All three modes of a dense tensor, as one sweep of CP-ALS needs them."""
    return Problem(
        name=f"mttkrp-{n}^3-rank{rank}", function="mttkrp", shape=(n, n, n), dtype="float64",
        make=functools.partial(_tensor, n, rank), reference=_all_modes, args=("x",),
        # two products with all of x, as for n = 2 of its modes
        flops=4.0 * n**3 * rank, nbytes=2 * 8.0 * n**3,
        error_bound=n * n * float(np.finfo("f8").eps) / math.sqrt(n), targets=targets,
        tier="target" if targets else "gallery",
    )  # fmt: skip


# --- The rest of the algebra ----------------------------------------------------------------------


def _distance(x: Any, y: Any) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def _solvable(n: int) -> Arrays:
    rng = np.random.default_rng(4)
    factors = {}
    for i in range(2):
        z = rng.standard_normal((n, 2 * n))
        factors[f"f{i}"] = z @ z.T / (2 * n)
    return {"x": rng.standard_normal(n * n), **factors}


def shifted(arrays: Arrays) -> Any:
    (w1, v1), (w2, v2) = (np.linalg.eigh(f) for f in plain_factors(arrays))
    y = v1.T @ arrays["x"].reshape(len(v1), -1) @ v2
    return (v1 @ (y / (np.multiply.outer(w1, w2) + 0.1)) @ v2.T).ravel()


def solve_problem(n: int) -> Problem:
    """``(A kron B + 0.1 I) x = b`` for positive definite factors, factored in the call."""
    return Problem(
        name=f"Kron-solve-{n}x{n}", function="Kron-solve", shape=(n * n, n * n), dtype="float64",
        make=functools.partial(_solvable, n), reference=shifted, args=("x",),
        flops=18.0 * n**3 + 8.0 * n**3, error=_distance,
    )  # fmt: skip


def _box(n: int) -> Arrays:
    line = (n + 1) ** 2 * (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
    x = np.random.default_rng(5).standard_normal(n**3)
    return {"x": x, **{f"f{i}": line for i in range(3)}}


def _poisson(arrays: Arrays) -> Any:
    """By the sines that are the eigenvectors."""
    n = len(arrays["f0"])
    k = np.arange(1, n + 1)
    v = np.sqrt(2 / (n + 1)) * np.sin(np.pi * np.multiply.outer(k, k) / (n + 1))
    w = (2 * (n + 1) * np.sin(np.pi * k / (2 * (n + 1)))) ** 2
    y = np.einsum("ai,bj,ck,ijk->abc", v, v, v, arrays["x"].reshape(n, n, n), optimize=True)
    y = y / (w[:, None, None] + w[:, None] + w)
    return np.einsum("ai,bj,ck,ijk->abc", v, v, v, y, optimize=True).ravel()


def sum_problem(n: int) -> Problem:
    """Poisson's equation on a box of n^3 points."""
    return Problem(
        name=f"KronSum-solve-{n}^3", function="KronSum", shape=(n**3, n**3), dtype="float64",
        make=functools.partial(_box, n), reference=_poisson, args=("x",),
        flops=27.0 * n**3 + 12.0 * n**4, error=_distance,
    )  # fmt: skip


def _near(n: int) -> Arrays:
    rng = np.random.default_rng(6)
    a = 0.1 * rng.standard_normal((n * n, n * n)) / n
    for scale in (1.0, 0.3):
        a += scale * np.kron(rng.standard_normal((n, n)), rng.standard_normal((n, n)))
    return {"x": a}


def rearranged(a: Any) -> Any:
    """Van Loan and Pitsianis: a Kronecker product of this order becomes a matrix of rank one."""
    n = math.isqrt(len(a))
    return a.reshape(n, n, n, n).transpose(0, 2, 1, 3).reshape(n * n, n * n)


def nearest(arrays: Arrays) -> Any:
    u, s, vh = np.linalg.svd(rearranged(arrays["x"]))
    return s[0] * np.outer(u[:, 0], vh[0])


def nearest_problem(n: int) -> Problem:
    """The nearest product of two square factors."""
    return Problem(
        name=f"nearest_kron-{n}x{n}", function="nearest_kron", shape=(n * n, n * n),
        dtype="float64", make=functools.partial(_near, n), reference=nearest, args=("x",),
        nbytes=8.0 * n**4,
    )  # fmt: skip


def _columns(sizes: tuple[int, ...], rank: int, k: int) -> Arrays:
    rng = np.random.default_rng(7)
    mats = {f"f{i}": rng.standard_normal((n, rank)) for i, n in enumerate(sizes)}
    return {"x": rng.standard_normal((rank, k)), **mats}


def formed(arrays: Arrays) -> Any:
    """The Khatri-Rao product."""
    y = np.ones((1, arrays["x"].shape[0]))
    for f in plain_factors(arrays):
        y = (y[:, None, :] * f).reshape(-1, y.shape[1])
    return y


def khatri_rao_problems(sizes: tuple[int, ...], rank: int, k: int) -> list[Problem]:
    """The product formed, and a product with it."""
    rows = math.prod(sizes)
    name, make = "x".join(map(str, sizes)), functools.partial(_columns, sizes, rank, k)
    return [
        Problem(
            name=f"khatri_rao-{name}-{rank}", function="khatri_rao", shape=(rows, rank),
            dtype="float64", make=make, reference=formed, args=("x",), nbytes=8.0 * rows * rank,
        ),
        Problem(
            name=f"khatri_rao_matmul-{name}-{rank}-{k}", function="khatri_rao_matmul",
            shape=(rows, k), dtype="float64", make=make,
            reference=lambda arrays: formed(arrays) @ arrays["x"], args=("x",),
            flops=2.0 * rows * rank * k, nbytes=8.0 * rows * k,
        ),
    ]  # fmt: skip


def _blocks(n: int, batch: int) -> Arrays:
    rng = np.random.default_rng(8)
    return {
        "f0": rng.standard_normal((n, n, n)), "f1": rng.standard_normal((n, n, n)),
        "x": rng.standard_normal((n * n, batch)),
    }  # fmt: skip


def monarch(left: Any, right: Any, x: Any) -> Any:
    """Square blocks, as in the paper."""
    n = len(left)
    z = np.einsum("cdj,cjk->cdk", right, x.reshape(n, n, -1)).reshape(n, n, -1)
    return np.einsum("bia,abk->ibk", left, z).reshape(n * n, -1)


def projected(arrays: Arrays) -> Any:
    n = math.isqrt(len(arrays["x"]))
    blocks = arrays["x"].reshape(n, n, n, n).transpose(1, 2, 0, 3)
    u, s, vh = np.linalg.svd(blocks)
    near = (u[..., :1] * s[..., None, :1]) @ vh[..., :1, :]
    return near.transpose(2, 0, 1, 3).reshape(n * n, n * n)


def monarch_problems(n: int, batch: int) -> list[Problem]:
    """The product with many vectors, and the nearest such matrix."""
    return [
        Problem(
            name=f"Monarch-{n * n}-batch{batch}", function="Monarch", shape=(n * n, batch),
            dtype="float64", make=functools.partial(_blocks, n, batch),
            reference=lambda arrays: monarch(arrays["f0"], arrays["f1"], arrays["x"]),
            args=("x",), flops=4.0 * n**3 * batch,
        ),
        Problem(
            name=f"monarch_project-{n * n}", function="monarch_project", shape=(n * n, n * n),
            dtype="float64", make=functools.partial(_near, n), reference=projected, args=("x",),
            nbytes=8.0 * n**4,
        ),
    ]  # fmt: skip


def _updates(m: int, n: int, count: int) -> Arrays:
    rng = np.random.default_rng(9)
    return {
        "a": rng.standard_normal((m, n * n)), "w": np.eye(n) + 0.1 * rng.standard_normal((n, n)),
        "u": 0.1 * rng.standard_normal((count, n)), "v": rng.standard_normal((count, n)),
        "x": rng.standard_normal((count, n * n)),
    }  # fmt: skip


def recomputed(arrays: Arrays) -> Any:
    """Each projection from a new QR factorization."""
    a, w = arrays["a"], arrays["w"].copy()
    n, found = len(w), []
    for u, v, h in zip(arrays["u"], arrays["v"], arrays["x"], strict=True):
        w += np.outer(u, v)
        b = np.einsum("mij,ik->mkj", a.reshape(-1, n, n), w, optimize=True).reshape(len(a), -1)
        q, _ = np.linalg.qr(b.T)
        found.append(q @ (q.T @ h))
    return np.stack(found)


def projection_problem(m: int, n: int, count: int) -> Problem:
    """Updates of rank one, each followed by a product with the projection."""
    return Problem(
        name=f"KronProjection-{m}x{n}^2-{count}", function="KronProjection", shape=(m, n * n),
        dtype="float64", make=functools.partial(_updates, m, n, count), reference=recomputed,
        args=("x",),
    )  # fmt: skip


def _tensors(batch: int, n: int) -> Arrays:
    return {"x": np.random.default_rng(10).standard_normal((batch, n, n, n, n))}


def brauer_problem(batch: int, n: int) -> Problem:
    """Two axes of four contracted, the others exchanged."""
    return Problem(
        name=f"brauer_apply-{batch}x{n}^4", function="brauer_apply", shape=(batch, n, n, n, n),
        dtype="float64", make=functools.partial(_tensors, batch, n),
        reference=lambda arrays: np.einsum("ziijk->zkj", arrays["x"]), args=("x",),
        nbytes=8.0 * batch * (n**3 + n**2),
    )  # fmt: skip


def _harmonics(batch: int, degree: int) -> Arrays:
    rng = np.random.default_rng(11)
    x, y = (rng.standard_normal((batch, (degree + 1) ** 2)) for _ in range(2))
    return {"x": x, "y": y, "g": gaunt_tensor(degree)}


def gaunt_tensor(degree: int) -> Any:
    """Integrals of three real harmonics, by SciPy's on a grid that is exact for them."""
    from scipy.special import sph_harm_y

    nodes, weights = np.polynomial.legendre.leggauss((3 * degree) // 2 + 1)
    phi = 2 * np.pi * np.arange(3 * degree + 1) / (3 * degree + 1)
    theta = np.arccos(nodes)[:, None]
    rows = []
    for order in range(degree + 1):
        for m in range(-order, order + 1):
            y = sph_harm_y(order, abs(m), theta, phi)
            sign = (-1.0) ** m * math.sqrt(2)
            rows.append(y.real if m == 0 else sign * (y.real if m > 0 else y.imag))
    table = np.stack(rows).reshape(len(rows), -1)
    measure = np.repeat(weights, len(phi)) * 2 * np.pi / len(phi)
    return np.einsum("ag,bg,cg->abc", table * measure, table, table, optimize=True)


def gaunt_problem(batch: int, degree: int) -> Problem:
    """Products of functions of one degree, up to that degree."""
    return Problem(
        name=f"gaunt_product-{batch}-degree{degree}", function="gaunt_product",
        shape=(batch, (degree + 1) ** 2), dtype="float64",
        make=functools.partial(_harmonics, batch, degree),
        reference=lambda arrays: np.einsum(
            "abc,za,zb->zc", arrays["g"], arrays["x"], arrays["y"], optimize=True
        ),
        args=("x",),
    )  # fmt: skip


GALLERY = [
    solve_problem(400), sum_problem(60), nearest_problem(48),
    *khatri_rao_problems((100, 100, 100), 32, 64), *monarch_problems(64, 256),
    projection_problem(600, 40, 8), brauer_problem(64, 24), gaunt_problem(2000, 6),
]  # fmt: skip
