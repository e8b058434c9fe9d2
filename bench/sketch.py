"""Problems and contenders of the room of sketches.

What is random has no true answer: there the error is the distance from a law, in the unit that its
problem names; where a peer is given the same operator, the error is that of its product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench.peers import LINALGK, Peer
from linalgk_bench.problems import Array, Arrays, Problem, Target

CSC, CWT, DCT = "scipy.sparse csc", "scipy clarkson_woodruff", "scipy.fft.dct"
DCT_SKETCH, NAIVE = "scipy signs, dct, rows", "numpy radix 2"
INTEGERS, RAW = "numpy Philox integers", "numpy Philox random_raw"
NORMAL, NORMAL_PHILOX = "numpy standard_normal", "numpy Philox standard_normal"
GENERATED, TORCH, QR = "numpy generate, multiply", "torch randn, multiply", "numpy qr"
RIDGE, POLYNOMIAL = "scikit-learn RidgeCV", "scikit-learn PolynomialCountSketch"
FIXED_POINT, CHAIN = "numpy fixed point", "numpy chain rule"
SEED = 7


# --- Inputs, references, errors ------------------------------------------------------------------


def _tall(m: int, n: int, dtype: str, order: Any = "C") -> Array:
    a = np.random.default_rng(0).standard_normal((m, n)).astype(dtype)
    return np.asarray(a, order=order)


def _with_operator(k: int, nnz: int, a: Any) -> Arrays:
    """The data and the operator's entries, so that a peer can multiply by the same one."""
    import linalgk as lk

    s = lk.sketch.SparseStack(k, a.shape[0], nnz=nnz, rng=SEED).tosparse()
    sparse = hasattr(a, "tocsr")
    parts = {"a": a} if not sparse else {"data": a.data, "cols": a.indices, "ends": a.indptr}
    return {**parts, "values": s.data, "rows": s.indices}


def _csc(arrays: Arrays, k: int, nnz: int, dtype: Any) -> Any:
    from scipy.sparse import csc_array

    m = len(arrays["rows"]) // nnz
    indptr = np.arange(0, m * nnz + 1, nnz, dtype=arrays["rows"].dtype)
    return csc_array((arrays["values"].astype(dtype), arrays["rows"], indptr), shape=(k, m))


def _sparse(arrays: Arrays, n: int) -> Any:
    from scipy.sparse import csr_array

    shape = len(arrays["ends"]) - 1, n
    return csr_array((arrays["data"], arrays["cols"], arrays["ends"]), shape=shape)


def _exact_product(arrays: Arrays, k: int, nnz: int) -> Array:
    """The product in two parts: leading bits, whose sums are exact, and the rest."""
    a = arrays["a"].astype(np.float64)
    s = _csc({**arrays, "values": np.sign(arrays["values"])}, k, nnz, np.float64)
    high = np.round(a * 2.0**20) * 2.0**-20
    return np.asarray((s @ high + s @ (a - high)) / nnz**0.5)


def _norm_ratio(result: Array, squared: Any) -> float:
    """``| ||S A||_F^2 / ||A||_F^2 - 1 |``."""
    return float(abs(np.sum(np.abs(result) ** 2, dtype=np.float64) / squared - 1))


def _squared(arrays: Arrays) -> Any:
    return float(np.sum(arrays["a"].astype(np.float64) ** 2))


def _sigmas(result: Array, _reference: Any) -> float:
    """Distance of the mean of 32-bit words from that of uniform ones, in standard deviations."""
    x = np.ascontiguousarray(result).view(np.uint32)
    return float(abs(x.mean() / 2.0**32 - 0.5) * (12.0 * x.size) ** 0.5)


def _kolmogorov(result: Array, _reference: Any) -> float:
    """Kolmogorov's distance from the normal law times sqrt(n): above 2.3 once in 10^4."""
    from scipy.stats import kstest

    return float(kstest(result, "norm").statistic * result.size**0.5)


def _radix_two(x: Array) -> Array:
    """Along the first axis."""
    n, h = x.shape[0], 1
    while h < n:
        y = x.reshape(n // (2 * h), 2, h, *x.shape[1:])
        x = np.stack([y[:, 0] + y[:, 1], y[:, 0] - y[:, 1]], axis=1).reshape(x.shape)
        h *= 2
    return x


def _relative(result: Array, truth: Any) -> float:
    return float(np.linalg.norm((result - truth).ravel()) / np.linalg.norm(truth.ravel()))


def _none(_arrays: Arrays) -> Any:
    return None


# --- Problems ------------------------------------------------------------------------------------


def _stack(
    k: int, m: int, n: int, nnz: int = 8, dtype: str = "float64", order: str = "C",
    targets: tuple[Target, ...] = (),
) -> Problem:  # fmt: skip
    eps = float(np.finfo(dtype).eps)
    return Problem(
        name=f"stack{nnz}-{k}-of-{m}x{n}-{dtype}-{order}",
        function="SparseStack",
        shape=(m, n),
        dtype=dtype,
        make=lambda: _with_operator(k, nnz, _tall(m, n, dtype, order)),
        reference=lambda arrays: _exact_product(arrays, k, nnz),
        args=("a",),
        options={"k": k, "nnz": nnz},
        flops=2.0 * nnz * m * n,
        nbytes=np.dtype(dtype).itemsize * float(m * n + k * n),
        targets=targets,
        # sums of m nnz / k terms
        error_bound=eps * (m * nnz / k) ** 0.5,
        tier="target" if targets else "gallery",
    )


def _stack_of_sparse(k: int, m: int, n: int, density: float) -> Problem:
    def make() -> Arrays:
        from scipy.sparse import random_array

        gen = np.random.default_rng(0)
        a = random_array((m, n), density=density, rng=gen, format="csr")
        return _with_operator(k, 8, a)

    def reference(arrays: Arrays) -> Array:
        s = _csc(arrays, k, 8, np.float64)
        return np.asarray((s @ _sparse(arrays, n)).toarray())

    return Problem(
        name=f"stack8-{k}-of-sparse-{m}x{n}",
        function="SparseStack of sparse",
        shape=(m, n),
        dtype="float64",
        make=make,
        reference=reference,
        options={"k": k, "nnz": 8},
        flops=16.0 * density * m * n,
        error_bound=1e-13,
    )


def _count(k: int, m: int, n: int, targets: tuple[Target, ...]) -> Problem:
    return Problem(
        name=f"countsketch-{k}-of-{m}x{n}",
        function="CountSketch",
        shape=(m, n),
        dtype="float64",
        make=lambda: {"a": _tall(m, n, "float64")},
        reference=_squared,
        options={"k": k},
        flops=2.0 * m * n,
        nbytes=8.0 * (m * n + k * n),
        targets=targets,
        error=_norm_ratio,
        # n columns of variance 2 / k each
        error_bound=5 * (2 / k / n) ** 0.5,
        tier="target",
    )


def _transform(*shape: int, targets: tuple[Target, ...]) -> Problem:
    p = shape[0].bit_length() - 1
    return Problem(
        name=f"fwht-{'x'.join(map(str, shape))}",
        function="fwht",
        shape=shape,
        dtype="float64",
        make=lambda: {"a": np.random.default_rng(0).standard_normal(shape)},
        reference=lambda arrays: _radix_two(arrays["a"].astype(np.longdouble)),  # type: ignore[arg-type]
        flops=float(p * np.prod(shape)),
        nbytes=16.0 * float(np.prod(shape)),
        targets=targets,
        error=_relative,
        error_bound=p * float(np.finfo(float).eps),
        tier="target",
    )


def _numbers(kind: str, error: Any, bound: float, targets: tuple[Target, ...]) -> Problem:
    n = 1 << 20
    return Problem(
        name=f"{kind}-{n}",
        function=kind,
        shape=(n,),
        dtype="float64",
        make=lambda: {"n": np.array(n)},
        reference=_none,
        nbytes=(4.0 if kind == "words" else 8.0) * n,
        targets=targets,
        error=error,
        error_bound=bound,
        tier="target",
    )


def _dense(family: str, k: int, m: int, n: int, targets: tuple[Target, ...] = ()) -> Problem:
    return Problem(
        name=f"{family.lower()}-{k}-of-{m}x{n}",
        function=family,
        shape=(m, n),
        dtype="float64",
        make=lambda: {"a": _tall(m, n, "float64")},
        reference=_squared,
        options={"k": k},
        flops=2.0 * k * m * n if family in ("Gaussian", "Rademacher") else 14.0 * m * n,
        nbytes=8.0 * (m * n + k * n),
        targets=targets,
        error=_norm_ratio,
        error_bound=5 * (2 / k / n) ** 0.5,
        tier="target" if targets else "gallery",
    )


def _leverage(m: int, n: int) -> Problem:
    def reference(arrays: Arrays) -> Array:
        q = np.linalg.qr(arrays["a"])[0]
        return np.asarray(np.sum(q * q, axis=1))

    def error(result: Array, truth: Any) -> float:
        return float(np.max(np.abs(result / truth - 1)))

    return Problem(
        name=f"leverage-scores-{m}x{n}",
        function="leverage_scores",
        shape=(m, n),
        dtype="float64",
        make=lambda: {"a": _tall(m, n, "float64")},
        reference=reference,
        flops=2.0 * m * n * n,
        nbytes=8.0 * m * n,
        error=error,
    )


def _rows_problem(
    function: str, m: int, n: int, make: Any, reference: Any, error: Any, bound: float | None,
    flops: float = 0.0,
) -> Problem:  # fmt: skip
    return Problem(
        name=f"{function.replace('_', '-')}-{m}x{n}",
        function=function,
        shape=(m, n),
        dtype="float64",
        make=make,
        reference=reference,
        flops=flops,
        nbytes=8.0 * m * n,
        error=error,
        error_bound=bound,
    )


def _lewis(m: int, n: int) -> Problem:
    """Weights for p = 1: the error is that of the equation they solve."""

    def error(w: Array, arrays: Any) -> float:
        a = arrays["a"]
        q = np.linalg.qr(a / np.sqrt(w)[:, None])[0]
        return float(np.max(np.abs(np.sum(q * q, axis=1) / w - 1)))

    def make() -> Arrays:
        a = _tall(m, n, "float64") * np.geomspace(1, 100, m)[:, None]
        return {"a": a}

    return _rows_problem(
        "lewis_weights", m, n, make, lambda arrays: arrays, error, 1e-8, 80.0 * m * n * n
    )


def _sampled(function: str, m: int, n: int) -> Problem:
    """A set of n rows: the error says whether they are n different ones that span the space."""

    def error(rows: Array, arrays: Any) -> float:
        rank = np.linalg.matrix_rank(arrays["a"][rows])
        return float(n - min(rank, len(set(rows.tolist()))))

    def make() -> Arrays:
        a = _tall(m, n, "float64")
        return {"a": np.linalg.qr(a)[0] if function == "dpp_sample" else a}

    return _rows_problem(function, m, n, make, lambda arrays: arrays, error, 0.0)


def _ridge_path(m: int, n: int) -> Problem:
    """A path of 50 penalties with the best by generalized cross-validation: its coefficients."""

    def make() -> Arrays:
        a = _tall(m, n, "float64")
        gen = np.random.default_rng(1)
        b = a @ gen.standard_normal(n) / n**0.5 + gen.standard_normal(m)
        return {"a": a, "b": b, "alphas": np.geomspace(1.0, 1e4, 50)}

    def error(x: Array, arrays: Any) -> float:
        """Of the normal equations at the nearest penalty of the path."""
        a, b = arrays["a"], arrays["b"]
        gap = [
            np.linalg.norm(a.T @ (a @ x - b) + alpha * x) / np.linalg.norm(a.T @ b)
            for alpha in arrays["alphas"]
        ]
        return float(min(gap))

    return _rows_problem("ridge", m, n, make, lambda arrays: arrays, error, 1e-10, 6.0 * m * n * n)


def _polynomial(m: int, n: int, k: int) -> Problem:
    """Features whose inner products estimate the square of those of the rows."""

    def make() -> Arrays:
        a = _tall(m, n, "float64")
        return {"a": a / np.linalg.norm(a, axis=1)[:, None]}

    def error(features: Array, arrays: Any) -> float:
        """The mean squared error of 200 rows' kernel in units of the bound (2 + 3^2) / k."""
        rows, part = arrays["a"][:200], features[:200]
        gap = part @ part.T - (rows @ rows.T) ** 2
        return float(np.mean(gap**2) * k / 11)

    return Problem(
        name=f"polynomial-features-{k}-of-{m}x{n}",
        function="TensorSketch",
        shape=(m, n),
        dtype="float64",
        make=make,
        reference=lambda arrays: arrays,  # type: ignore[arg-type, return-value]
        options={"k": k},
        nbytes=8.0 * m * (n + k),
        error=error,
        error_bound=1.0,
    )


PROBLEMS = [
    _stack(1536, 131072, 128, targets=(Target(CSC, 2.5),)),
    _stack(1536, 131072, 128, order="F", targets=(Target(CSC, 5.0),)),
    _stack(1536, 131072, 128, dtype="float32"),
    _stack(512, 131072, 128, nnz=4),
    _stack(1536, 131072, 16),
    _stack_of_sparse(1536, 131072, 500, 0.01),
    _count(1536, 131072, 128, (Target(CWT, 1.5),)),
    _transform(1 << 20, targets=(Target(DCT, 2.0),)),
    _transform(1 << 14, 64, targets=(Target(DCT, 3.0),)),
    _numbers("words", _sigmas, 4.5, (Target(INTEGERS, 6.0),)),
    _numbers("normals", _kolmogorov, 2.3, (Target(NORMAL, 5.0),)),
    _dense("Gaussian", 512, 200_000, 200, (Target(GENERATED, 2.5, alone=1.8),)),
    _dense("Rademacher", 512, 200_000, 200),
    _dense("SRHT", 1024, 131072, 128),
    _dense("SRCT", 1024, 131072, 128),
    _leverage(200_000, 50),
    _lewis(20_000, 20),
    _sampled("volume_sample", 20_000, 30),
    _sampled("dpp_sample", 20_000, 30),
    _ridge_path(2000, 300),
    _polynomial(20_000, 50, 1024),
]


# --- Contenders ----------------------------------------------------------------------------------


def _linalgk(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    k, a = problem.options.get("k", 0), arrays.get("a", np.empty(0))
    m = problem.shape[0]
    calls: dict[str, Callable[[], Any]] = {
        "SparseStack": lambda: (
            lk.sketch.SparseStack(k, m, nnz=problem.options["nnz"], rng=SEED) @ a
        ),
        "CountSketch": lambda: lk.sketch.CountSketch(k, m, rng=SEED) @ a,
        "Gaussian": lambda: lk.sketch.Gaussian(k, m, rng=SEED) @ a,
        "Rademacher": lambda: lk.sketch.Rademacher(k, m, rng=SEED) @ a,
        "SRHT": lambda: lk.sketch.SRHT(k, m, rng=SEED) @ a,
        "SRCT": lambda: lk.sketch.SRCT(k, m, rng=SEED) @ a,
        "fwht": lambda: lk.fwht(a, axis=0),
        "words": lambda: lk.sketch.Philox(SEED).words(m),
        "normals": lambda: lk.sketch.Philox(SEED).normal(m),
        "leverage_scores": lambda: lk.leverage_scores(a),
        "lewis_weights": lambda: lk.lewis_weights(a, 1.0),
        "volume_sample": lambda: lk.volume_sample(a, rng=SEED),
        "dpp_sample": lambda: lk.dpp_sample(a, rng=SEED),
        "ridge": lambda: lk.ridge(a, arrays["b"], arrays["alphas"]).x,
        "TensorSketch": lambda: (
            lk.sketch.TensorSketch(k, (problem.shape[1],) * 2, rng=SEED).khatri_rao(a.T, a.T).T
        ),
    }
    if problem.function == "SparseStack of sparse":
        data = _sparse(arrays, problem.shape[1])
        return lambda: lk.sketch.SparseStack(k, m, rng=SEED) @ data
    return calls[problem.function]


def _scipy_csc(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    s = _csc(arrays, problem.options["k"], problem.options["nnz"], problem.dtype)
    if problem.function == "SparseStack of sparse":
        data = _sparse(arrays, problem.shape[1])
        return lambda: (s @ data).toarray()
    a = arrays["a"]
    return lambda: s @ a


def _cwt(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import clarkson_woodruff_transform

    a, k = arrays["a"], problem.options["k"]
    return lambda: clarkson_woodruff_transform(a, k, rng=SEED)


def _workers() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _dct(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.fft import dct

    a, workers = arrays["a"], _workers()
    return lambda: dct(a, axis=0, workers=workers)


def _dct_sketch(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.fft import dct

    a, k, workers = arrays["a"], problem.options["k"], _workers()
    m = a.shape[0]

    def call() -> Any:
        gen = np.random.default_rng(SEED)
        signs = gen.integers(0, 2, m) * 2.0 - 1
        turned = dct(a * signs[:, None], axis=0, norm="ortho", workers=workers, overwrite_x=True)
        return turned[gen.choice(m, k, replace=False)] * (m / k) ** 0.5

    return call


def _radix(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    a = arrays["a"]
    return lambda: _radix_two(a)


def _random(draw: Callable[[Any, int], Any], bits: str) -> Any:
    def prepare(problem: Problem, _arrays: Arrays) -> Callable[[], Any]:
        source = getattr(np.random, bits)(SEED)
        gen = np.random.Generator(source)
        n = problem.shape[0]
        return lambda: draw(gen, n)

    return prepare


def _generated(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    a, k = arrays["a"], problem.options["k"]
    m = a.shape[0]

    def call() -> Any:
        s = np.random.default_rng(SEED).standard_normal((k, m))
        return (s @ a) * k**-0.5

    return call


def _torch(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(_workers())
    a, k = torch.from_numpy(arrays["a"]), problem.options["k"]
    m = a.shape[0]

    def call() -> Any:
        gen = torch.Generator().manual_seed(SEED)
        return (torch.randn(k, m, dtype=a.dtype, generator=gen) @ a) * k**-0.5

    return call


def _qr(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    a = arrays["a"]

    def call() -> Any:
        q = np.linalg.qr(a)[0]
        return np.einsum("ij,ij->i", q, q)

    return call


def _fixed_point(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    a = arrays["a"]

    def call() -> Any:
        w = np.ones(len(a))
        for _ in range(100):
            old = w
            gram = (a / w[:, None]).T @ a
            w = np.sqrt(np.einsum("ij,ij->i", a @ np.linalg.inv(gram), a))
            if np.max(np.abs(w / old - 1)) < 1e-10:
                break
        return w

    return call


def _chain(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Rows one by one, each by its distance to those before: Hough, Krishnapur, Peres, Virag."""
    a = arrays["a"]

    def call() -> Any:
        v = a if problem.function == "dpp_sample" else np.linalg.qr(a)[0]
        gen, rows = np.random.default_rng(SEED), []
        basis = np.empty((v.shape[1], 0))
        left = np.einsum("ij,ij->i", v, v)
        for _ in range(v.shape[1]):
            row = gen.choice(len(v), p=left / left.sum())
            rows.append(row)
            u = v[row] - basis @ (basis.T @ v[row])
            u /= np.linalg.norm(u)
            basis = np.column_stack([basis, u])
            left = np.maximum(left - (v @ u) ** 2, 0)
        return np.array(rows)

    return call


def _ridge_cv(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(arrays["alphas"], fit_intercept=False)
    return lambda: model.fit(arrays["a"], arrays["b"]).coef_


def _polynomial_count_sketch(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from sklearn.kernel_approximation import PolynomialCountSketch

    model = PolynomialCountSketch(degree=2, n_components=problem.options["k"], random_state=SEED)
    return lambda: model.fit_transform(arrays["a"])


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


PEERS: list[Peer] = [
    Peer(LINALGK, "linalgk", lambda problem: True, _linalgk, export=np.asarray),  # noqa: ARG005
    Peer(CSC, "scipy", _of("SparseStack", "SparseStack of sparse"), _scipy_csc, export=np.asarray),
    Peer(CWT, "scipy", _of("CountSketch"), _cwt, export=np.asarray),
    # a cosine transform takes the place of a Hadamard transform in other libraries
    Peer(DCT, "scipy", _of("fwht"), _dct, export=np.asarray, yardstick=True),
    Peer(NAIVE, "numpy", _of("fwht"), _radix, export=np.asarray),
    Peer(DCT_SKETCH, "scipy", _of("SRHT", "SRCT"), _dct_sketch, export=np.asarray),
    Peer(
        INTEGERS, "numpy", _of("words"),
        _random(lambda gen, n: gen.integers(0, 1 << 32, n, dtype=np.uint32), "Philox"),
        export=np.asarray,
    ),
    # half as many words of twice the length
    Peer(
        RAW, "numpy", _of("words"),
        _random(lambda gen, n: gen.bit_generator.random_raw(n // 2), "Philox"), export=np.asarray,
    ),
    Peer(
        NORMAL, "numpy", _of("normals"), _random(lambda gen, n: gen.standard_normal(n), "PCG64"),
        export=np.asarray,
    ),
    Peer(
        NORMAL_PHILOX, "numpy", _of("normals"),
        _random(lambda gen, n: gen.standard_normal(n), "Philox"), export=np.asarray,
    ),
    Peer(GENERATED, "numpy", _of("Gaussian"), _generated, export=np.asarray),
    Peer(TORCH, "torch", _of("Gaussian"), _torch, export=np.asarray),
    Peer(QR, "numpy", _of("leverage_scores"), _qr, export=np.asarray),
    Peer(FIXED_POINT, "numpy", _of("lewis_weights"), _fixed_point, export=np.asarray),
    Peer(CHAIN, "numpy", _of("volume_sample", "dpp_sample"), _chain, export=np.asarray),
    Peer(RIDGE, "sklearn", _of("ridge"), _ridge_cv, export=np.asarray),
    Peer(
        POLYNOMIAL, "sklearn", _of("TensorSketch"), _polynomial_count_sketch, export=np.asarray
    ),
]  # fmt: skip


def test_sketch(benchmark: Any, problem: Problem, peer: Peer, solve: Any) -> None:
    """Called by ``pytest bench`` for every problem and contender; the error is measured before the
    time.
    """
    benchmark(solve(benchmark, problem, peer))
