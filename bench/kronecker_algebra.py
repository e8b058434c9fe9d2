"""Contenders for the algebra of Kronecker products: what one writes with other libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import kronecker_problems as problems
from linalgk_bench.kronecker_problems import plain_factors
from linalgk_bench.peers import Peer
from linalgk_bench.problems import Arrays, Problem


def linalgk_calls(lk: Any, arrays: Arrays) -> dict[str, Callable[[], Any]]:
    """Each function's call on the inputs of its problem."""
    x, factors = arrays["x" if "x" in arrays else "y"], plain_factors(arrays)

    def nearest() -> Any:
        n = math.isqrt(len(x))
        a, b = lk.nearest_kron(x, [(n, n), (n, n)]).factors
        return np.outer(a, b)

    def projections() -> Any:
        p = lk.KronProjection(arrays["a"], arrays["w"])
        rows = zip(arrays["u"], arrays["v"], x, strict=True)
        return np.stack([p.update(u, v) @ h for u, v, h in rows])

    return {
        "Kron-solve": lambda: lk.Kron(factors, assume_a="pos").solve(x, shift=0.1),
        "KronSum": lambda: lk.KronSum(factors, assume_a="her").solve(x),
        "nearest_kron": nearest,
        "khatri_rao": lambda: lk.khatri_rao(factors),
        "khatri_rao_matmul": lambda: lk.khatri_rao_matmul(factors, x),
        "Monarch": lambda: lk.Monarch(*factors) @ x,
        "monarch_project": lambda: lk.monarch_project(x, math.isqrt(len(x))).toarray(),
        "KronProjection": projections,
        "brauer_apply": lambda: lk.brauer_apply("iijk->kj", x, x.shape[-1]),
        "gaunt_product": lambda: lk.gaunt_product(x, arrays["y"], _degree(x)),
    }


def _degree(x: Any) -> int:
    return math.isqrt(x.shape[-1]) - 1


def _eigh(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return lambda: problems.shifted(arrays)


def _sylvester(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """``A X B + 0.1 X`` has to become ``A X + 0.1 X B^-1`` first."""
    from scipy.linalg import inv, solve_sylvester

    a, b = plain_factors(arrays)
    x = arrays["x"].reshape(len(a), -1)

    def call() -> Any:
        inverse = inv(b)
        return solve_sylvester(a, 0.1 * inverse, x @ inverse).ravel()

    return call


def _sparse_cg(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.sparse import csr_array, eye_array, kron
    from scipy.sparse.linalg import cg

    line, n = csr_array(arrays["f0"]), len(arrays["f0"])
    one = eye_array(n, format="csr")
    a = kron(kron(line, one), one) + kron(kron(one, line), one) + kron(kron(one, one), line)
    a = a.tocsr()
    return lambda: cg(a, arrays["x"], rtol=1e-10)[0]


def _modes_eigh(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    f, n = plain_factors(arrays), len(arrays["f0"])

    def call() -> Any:
        (w1, v1), (w2, v2), (w3, v3) = (np.linalg.eigh(a) for a in f)
        y = np.einsum("ia,jb,kc,ijk->abc", v1, v2, v3, arrays["x"].reshape(n, n, n), optimize=True)
        y = y / (w1[:, None, None] + w2[:, None] + w3)
        return np.einsum("ai,bj,ck,ijk->abc", v1, v2, v3, y, optimize=True).ravel()

    return call


def _svd_nearest(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return lambda: problems.nearest(arrays)


def _svds_nearest(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.sparse.linalg import svds

    def call() -> Any:
        u, s, vh = svds(problems.rearranged(arrays["x"]), k=1, tol=1e-10, rng=0)
        return s[0] * np.outer(u[:, 0], vh[0])

    return call


def _scipy_khatri_rao(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import khatri_rao

    a, b, c = plain_factors(arrays)

    def call() -> Any:
        whole = khatri_rao(khatri_rao(a, b), c)
        return whole if problem.function == "khatri_rao" else whole @ arrays["x"]

    return call


def _tensorly_khatri_rao(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from tensorly.tenalg import khatri_rao

    mats = plain_factors(arrays)

    def call() -> Any:
        whole = khatri_rao(mats)
        return whole if problem.function == "khatri_rao" else whole @ arrays["x"]

    return call


def _numpy_monarch(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Two batched products with a copy between them, as its authors' code does."""
    left, right = plain_factors(arrays)
    n, x = len(left), arrays["x"]

    def call() -> Any:
        z = right @ x.reshape(n, n, -1)
        z = np.ascontiguousarray(z.reshape(n, n, -1).transpose(1, 0, 2))
        return (left @ z).transpose(1, 0, 2).reshape(x.shape)

    return call


def _torch_monarch(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch

    left, right, x = (torch.from_numpy(arrays[name]) for name in ("f0", "f1", "x"))
    n = len(left)

    def call() -> Any:
        z = torch.bmm(right, x.reshape(n, n, -1)).transpose(0, 1)
        return torch.bmm(left, z).transpose(0, 1).reshape(x.shape)

    return call


def _numpy_project(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Singular values of every block, as its authors' code does."""
    return lambda: problems.projected(arrays)


def _recomputed(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return lambda: problems.recomputed(arrays)


def _einsum_brauer(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return lambda: np.einsum("ziijk->zkj", arrays["x"])


def _einsum_gaunt(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """With the table of all integrals: one product, then sums."""
    g, x, y = arrays["g"], arrays["x"], arrays["y"]
    n = len(g)
    table = g.reshape(n, -1)
    return lambda: np.matmul(y[:, None, :], (x @ table).reshape(len(x), n, n))[:, 0]


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


def _peer(name: str, library: str, function: str, prepare: Any) -> Peer:
    return Peer(name, library, _of(function), prepare, np.asarray)


PEERS = [
    _peer("numpy, eigh by factor", "numpy", "Kron-solve", _eigh),
    _peer("scipy solve_sylvester", "scipy", "Kron-solve", _sylvester),
    _peer("numpy, eigh and einsum", "numpy", "KronSum", _modes_eigh),
    _peer("scipy cg, sparse", "scipy", "KronSum", _sparse_cg),
    _peer("numpy svd", "numpy", "nearest_kron", _svd_nearest),
    _peer("scipy svds", "scipy", "nearest_kron", _svds_nearest),
    Peer("scipy khatri_rao", "scipy", _of("khatri_rao", "khatri_rao_matmul"), _scipy_khatri_rao,
         np.asarray),
    Peer("tensorly khatri_rao", "tensorly", _of("khatri_rao", "khatri_rao_matmul"),
         _tensorly_khatri_rao, np.asarray),
    _peer("numpy matmul", "numpy", "Monarch", _numpy_monarch),
    _peer("torch bmm", "torch", "Monarch", _torch_monarch),
    _peer("numpy svd by block", "numpy", "monarch_project", _numpy_project),
    _peer("numpy qr anew", "numpy", "KronProjection", _recomputed),
    _peer("numpy einsum ", "numpy", "brauer_apply", _einsum_brauer),
    _peer("numpy, table of integrals", "numpy", "gaunt_product", _einsum_gaunt),
]  # fmt: skip
