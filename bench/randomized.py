"""Problems and contenders of the room of randomized solvers.

Peers get the settings with which they reach our error, where a setting does: several rows of one
peer differ in nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import randomized_problems as problems
from linalgk_bench.peers import LINALGK, Peer
from linalgk_bench.problems import Arrays, Problem, Target
from linalgk_bench.randomized_problems import (
    IMATE,
    INTERPOLATIVE,
    LSTSQ,
    PINV,
    PIVOTED,
    SPLU,
    SVD,
    Maker,
    matrix_of,
)

SEED = 7

PROBLEMS = [
    problems.lstsq_problem(1_000_000, 100, 1e8, (Target(LSTSQ, 6.0),)),
    problems.lstsq_problem(200_000, 300, 1e8, (Target(LSTSQ, 3.0),)),
    problems.lstsq_problem(20_000, 50, 1e12),
    *problems.surveying(),
    problems.sparse_problem(200_000, 300, 0.01),
    problems.svd_problem(20_000, 5000, 100, (Target(SVD, 1.5),)),
    problems.svd_problem(2000, 1000, 20),
    problems.eigh_problem(4000, 50),
    problems.streaming_problem(40_000, 1000, 20, 20),
    problems.kernel_problem(4000, 200),
    problems.interp_problem(4000, 3000, 50),
    problems.cur_problem(12_000, 8000, 100, (Target(INTERPOLATIVE, 4.0),)),
    problems.qr_problem("qr_pivoted", 100_000, 500, 1e8, (Target(PIVOTED, 6.0),)),
    problems.qr_problem("cholqr", 100_000, 300, 1e8),
    problems.pinv_lowrank_problem(4000, 3000, 200, (Target(PINV, 10.0),)),
    problems.pinv_problem(2000, 500),
    problems.pinv_batch_problem(256, 32),
    problems.pinv_cr_problem(4000, 3000, 200),
    problems.project_problem("tall", 20_000, 1000),
    problems.project_problem("newton", 1200, 300),
    problems.trace_problem("estimate_trace", 3000, 120),
    problems.trace_problem("estimate_diagonal", 3000, 120),
    problems.logdet_problem(27, (Target(IMATE, 1.0), Target(SPLU, 1.0))),
    problems.quad_problem(27),
]


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _stacked(left: Any, right: Any) -> Any:
    """``left @ right^T`` as one array."""
    return np.concatenate([np.asarray(left), np.asarray(right)])


def _three(u: Any, s: Any, vh: Any) -> Any:
    """Singular triplets as left and right factors."""
    u, s, vh = (np.asarray(x) for x in (u, s, vh))
    return _stacked(u * s, vh.T)


def _packed(q: Any, r: Any, perm: Any = None) -> Any:
    n = r.shape[1]
    return np.concatenate([q, r, (np.arange(n) if perm is None else np.asarray(perm))[None, :]])


# --- linalgk --------------------------------------------------------------------------------------


def _linalgk(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    options, a = problem.options, matrix_of(arrays) if "c" not in problem.args else None
    k = options.get("rank", 0)
    calls: dict[str, Callable[[], Any]] = {
        "lstsq": lambda: lk.lstsq(a, arrays["b"]).x,
        "sketch_project": lambda: lk.sketch_project(a, arrays["b"], tol=options["tol"]),
        "svd_lowrank": lambda: lk.svd_lowrank(a, k, rng=SEED),
        "eigh_lowrank": lambda: lk.eigh_lowrank(a, k, rng=SEED),
        "StreamingSVD": lambda: _streamed(lk, a, k, options["blocks"]),
        "rpcholesky": lambda: lk.rpcholesky(a, k, rng=SEED).F,
        "interp_decomp": lambda: _interpolated(a, *lk.interp_decomp(a, k, rng=SEED)),
        "cur": lambda: lk.cur(a, k, rng=SEED),
        "qr_pivoted": lambda: lk.qr_pivoted(a),
        "cholqr": lambda: lk.cholqr(a),
        "pinv": lambda: lk.pinv(a, **options),
        "pinv_cr": lambda: lk.pinv_cr(arrays["c"], arrays["r"]),
        "estimate_trace": lambda: (
            lk.estimate_trace(a, options["n_matvecs"], assume_a="pos", rng=SEED).value
        ),
        "estimate_diagonal": lambda: (
            lk.estimate_diagonal(a, options["n_matvecs"], assume_a="pos", rng=SEED).value
        ),
        "estimate_logdet": lambda: lk.estimate_logdet(a, tol=options["tol"], rng=SEED).value,
        "estimate_quad_form": lambda: lk.estimate_quad_form(a, "inv", arrays["x"]).value,
    }
    return calls[problem.function]


def _streamed(lk: Any, a: Any, k: int, blocks: int) -> Any:
    m, n = a.shape
    stream, rows = lk.StreamingSVD(m, n, k, rng=SEED), -(-m // blocks)
    for i in range(0, m, rows):
        stream.update(a[i : i + rows], offset=i)
    return stream.result()


def _interpolated(a: Any, index: Any, proj: Any) -> Any:
    return np.asarray(a[:, index]), np.asarray(proj)


def _plain(answer: Any) -> Any:
    """An answer of any problem as one array."""
    name = type(answer).__name__
    if name == "CUR":
        return _stacked(answer.C @ answer.U, answer.R.T)
    if name == "LowRankEigh":
        v = np.asarray(answer.eigenvectors)
        return _stacked(v * answer.eigenvalues, v)
    if name in ("QR", "PivotedQR"):
        return _packed(*answer)
    parts = tuple(answer) if not isinstance(answer, np.ndarray | np.generic | float) else ()
    if len(parts) == 3:
        return _three(*parts)
    if len(parts) == 2:
        return _stacked(parts[0], parts[1].T)
    return np.asarray(answer)


# --- Least squares and systems --------------------------------------------------------------------


def _numpy_lstsq(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    a = _dense(arrays)
    return lambda: np.linalg.lstsq(a, arrays["b"], rcond=None)[0]


def _dense(arrays: Arrays) -> Any:
    a = matrix_of(arrays)
    return a.toarray() if "data" in arrays else a


def _scipy_lstsq(driver: str) -> Maker:
    def prepare(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        from scipy.linalg import lstsq

        a = _dense(arrays)
        return lambda: lstsq(a, arrays["b"], lapack_driver=driver, check_finite=False)[0]

    return prepare


def _torch_lstsq(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(_threads())
    a, b = torch.from_numpy(_dense(arrays)), torch.from_numpy(arrays["b"][:, None])
    return lambda: torch.linalg.lstsq(a, b, driver="gelsd").solution[:, 0]


def _krylov(name: str) -> Maker:
    """LSQR or LSMR, to the tolerance of the problem or to rounding."""

    def prepare(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        from scipy.sparse import linalg

        a, tol = matrix_of(arrays), problem.options.get("tol", 1e-15)
        words = {"atol": 0.0 if "tol" in problem.options else tol, "btol": tol}
        # without a limit of the condition number, and with enough steps
        last = {"iter_lim": 50_000} if name == "lsqr" else {"maxiter": 50_000}
        return lambda: getattr(linalg, name)(a, arrays["b"], conlim=0, **words, **last)[0]

    return prepare


def _minres(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.sparse.linalg import minres

    # its residual is relative to ||A|| ||x||, ours to ||b||
    tol = problem.options["tol"] / 200
    return lambda: minres(arrays["a"], arrays["b"], rtol=tol)[0]


def _solve(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import solve

    return lambda: solve(arrays["a"], arrays["b"], assume_a="sym", check_finite=False)


# --- Low rank -------------------------------------------------------------------------------------


def _sklearn_svd(steps: int) -> Maker:
    def prepare(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        from sklearn.utils.extmath import randomized_svd

        k = problem.options["rank"]
        return lambda: randomized_svd(arrays["a"], k, n_iter=steps, random_state=SEED)

    return prepare


def _torch_svd(steps: int) -> Maker:
    def prepare(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        import torch

        torch.set_num_threads(_threads())
        a, k = torch.from_numpy(arrays["a"]), problem.options["rank"]

        def call() -> Any:
            torch.manual_seed(SEED)
            u, s, v = torch.svd_lowrank(a, k + 10, niter=steps)
            return u[:, :k], s[:k], v[:, :k].mT

        return call

    return prepare


def _svds(solver: str) -> Maker:
    def prepare(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        from scipy.sparse.linalg import svds

        k = problem.options["rank"]
        return lambda: svds(arrays["a"], k, solver=solver, tol=1e-3, rng=SEED)

    return prepare


def _fbpca(steps: int) -> Maker:
    def prepare(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        import fbpca

        k = problem.options["rank"]
        if problem.function == "eigh_lowrank":
            return lambda: _symmetric(*fbpca.eigens(arrays["a"], k, n_iter=steps, l=k + 10))
        return lambda: fbpca.pca(arrays["a"], k, raw=True, n_iter=steps, l=k + 10)

    return prepare


def _symmetric(w: Any, v: Any) -> Any:
    return v * w, v.T


def _librla(steps: int) -> Maker:
    def prepare(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        import librla

        a, k = arrays["a"], problem.options["rank"]

        def skeleton() -> Any:
            gen = np.random.default_rng(SEED)
            rank, perm, t = librla.id_sketch(a, k, power_iter=steps, rng=gen)
            proj = np.empty((rank, a.shape[1]))
            proj[:, perm[:rank]], proj[:, perm[rank:]] = np.eye(rank), t
            return a[:, perm[:rank]], proj

        if problem.function == "interp_decomp":
            return skeleton
        return lambda: librla.svd_sketch(
            a, k, power_iter=steps, extra_samples=10, rng=np.random.default_rng(SEED)
        )

    return prepare


def _eigsh(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.sparse.linalg import eigsh

    k = problem.options["rank"]
    return lambda: _symmetric(*eigsh(arrays["a"], k, tol=1e-3, v0=np.ones(len(arrays["a"]))))


def _incremental(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """It centres the columns, so that its factors approximate another matrix."""
    from sklearn.decomposition import IncrementalPCA

    a, blocks = arrays["a"], problem.options["blocks"]

    def call() -> Any:
        model = IncrementalPCA(problem.options["rank"])
        for part in np.array_split(a, blocks):
            model.partial_fit(part)
        return model.components_

    return call


def _nystroem(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Landmarks drawn uniformly, and entries from the points."""
    from sklearn.kernel_approximation import Nystroem

    model = Nystroem(gamma=0.05, n_components=problem.options["rank"], random_state=SEED)
    return lambda: model.fit_transform(arrays["points"])


def _greedy(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Cholesky with the largest diagonal entry as pivot, a column at a time."""
    a, k = arrays["a"], problem.options["rank"]

    def call() -> Any:
        f, left = np.zeros((len(a), k)), np.diagonal(a).copy()
        for i in range(k):
            row = int(left.argmax())
            f[:, i] = (a[:, row] - f[:, :i] @ f[row, :i]) / left[row] ** 0.5
            left = np.maximum(left - f[:, i] ** 2, 0)
        return f

    return call


def _interpolative(both: bool) -> Maker:
    """Columns and coefficients; for CUR rows of A, or of its columns, and a least squares core."""

    def prepare(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
        from scipy.linalg import interpolative

        a, k = arrays["a"], problem.options["rank"]

        def columns(x: Any) -> Any:
            index, coeffs = interpolative.interp_decomp(x, k, rng=np.random.default_rng(SEED))
            proj = interpolative.reconstruct_interp_matrix(index, coeffs)
            return index[:k], proj

        def skeleton() -> Any:
            index, proj = columns(a)
            return a[:, index], proj

        def cur() -> Any:
            index, proj = columns(a)
            c = a[:, index]
            rows, _ = columns(np.ascontiguousarray((a if both else c).T))
            r = a[rows]
            return c @ (proj @ np.linalg.pinv(r)), r

        return skeleton if problem.function == "interp_decomp" else cur

    return prepare


# --- QR, pseudoinverses ---------------------------------------------------------------------------


def _scipy_qr(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import qr

    pivoting = problem.function == "qr_pivoted"
    words = {"mode": "economic", "pivoting": pivoting, "check_finite": False}
    return lambda: qr(arrays["a"], **words)


def _numpy_qr(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    return lambda: np.linalg.qr(arrays["a"])


def _export_qr(answer: Any) -> Any:
    return _packed(*answer)


def _cut(problem: Problem) -> float:
    return 1e-10 if problem.structure == "lowrank" else 1e-12


def _numpy_pinv(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    if problem.function == "pinv_cr":
        return lambda: np.linalg.pinv(arrays["r"]) @ np.linalg.pinv(arrays["c"])
    return lambda: np.linalg.pinv(arrays["a"], rcond=_cut(problem))


def _scipy_pinv(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.linalg import pinv

    return lambda: pinv(arrays["a"], rtol=_cut(problem), check_finite=False)


def _torch_pinv(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(_threads())
    a = torch.from_numpy(arrays["a"])
    return lambda: torch.linalg.pinv(a, rtol=_cut(problem))


# --- Traces ---------------------------------------------------------------------------------------


def _hutchinson(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Random signs; of the diagonal by Bekas, Kokiopoulou and Saad."""
    a, count = arrays["a"], problem.options["n_matvecs"]

    def call() -> Any:
        z = np.random.default_rng(SEED).integers(0, 2, (len(a), count)) * 2.0 - 1
        product = z * (a @ z)
        return product.mean(axis=1) if problem.function == "estimate_diagonal" else (
            product.sum() / count
        )  # fmt: skip

    return call


def _imate(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import imate
    from scipy.sparse import csr_matrix

    a = csr_matrix(matrix_of(arrays))
    # as many probes as its own estimate of the error asks for
    words = {"error_rtol": problem.options["tol"], "min_num_samples": 10, "max_num_samples": 200}
    threads = _threads()
    return lambda: imate.logdet(
        a, method="slq", lanczos_degree=20, num_threads=threads, seed=SEED, **words
    )


def _splu(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.sparse.linalg import splu

    a = matrix_of(arrays).tocsc()

    def factor() -> Any:
        # symmetric and diagonally dominant: its best ordering, without pivoting
        options = {"SymmetricMode": True}
        return splu(a, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)

    if problem.function == "estimate_logdet":
        return lambda: np.log(np.abs(factor().U.diagonal())).sum()
    return lambda: arrays["x"] @ factor().solve(arrays["x"])


def _cg(_problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    from scipy.sparse.linalg import cg

    a, x = matrix_of(arrays), arrays["x"]
    # the error of the form is the square of that of the solution
    return lambda: x @ cg(a, x, rtol=1e-5)[0]


# --- Who takes part -------------------------------------------------------------------------------


def _of(*functions: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function in functions


def _least_squares(*, dense: bool) -> Callable[[Problem], bool]:
    """Dense solvers also take small sparse problems, iterative ones sparse problems only."""

    def accepts(problem: Problem) -> bool:
        sparse = "a" not in problem.args
        wanted = not sparse or problem.shape[0] < 10_000 if dense else sparse
        return problem.function == "lstsq" and wanted

    return accepts


def _kind(function: str, text: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.function == function and text in problem.name


def _any_of(*choices: Callable[[Problem], bool]) -> Callable[[Problem], bool]:
    return lambda problem: any(choice(problem) for choice in choices)


def _peer(name: str, library: str, accepts: Any, prepare: Maker, **words: Any) -> Peer:
    return Peer(name, library, accepts, prepare, **{"export": _plain, **words})


_DENSE, _SPARSE = _least_squares(dense=True), _least_squares(dense=False)

PEERS: list[Peer] = [
    _peer(LINALGK, "linalgk", lambda problem: True, _linalgk),  # noqa: ARG005
    _peer(LSTSQ, "numpy", _any_of(_DENSE, _kind("sketch_project", "tall")), _numpy_lstsq),
    *(
        _peer(f"scipy.linalg.lstsq {d}", "scipy", _DENSE, _scipy_lstsq(d), variant_of=LSTSQ)
        for d in ("gelsd", "gelsy", "gelss")
    ),
    _peer("torch.linalg.lstsq", "torch", _DENSE, _torch_lstsq),
    *(
        _peer(f"scipy {d}", "scipy", _any_of(_SPARSE, _of("sketch_project")), _krylov(d))
        for d in ("lsqr", "lsmr")
    ),
    _peer("scipy minres", "scipy", _kind("sketch_project", "newton"), _minres),
    _peer("scipy.linalg.solve", "scipy", _kind("sketch_project", "newton"), _solve),
    # four steps are its default
    _peer(SVD, "sklearn", _of("svd_lowrank", "StreamingSVD"), _sklearn_svd(4)),
    # fewest steps that reach our error, and those before, which do not and are only shown
    _peer(f"{SVD} 3 steps", "sklearn", _of("svd_lowrank"), _sklearn_svd(3), variant_of=SVD),
    _peer(f"{SVD} 2 steps", "sklearn", _of("svd_lowrank"), _sklearn_svd(2)),
    _peer("torch.svd_lowrank 3 steps", "torch", _of("svd_lowrank"), _torch_svd(3), variant_of=SVD),
    _peer("torch.svd_lowrank", "torch", _of("svd_lowrank"), _torch_svd(2)),
    *(
        _peer(f"scipy svds {s}", "scipy", _of("svd_lowrank"), _svds(s), variant_of=SVD)
        for s in ("arpack", "propack")
    ),
    _peer("fbpca", "fbpca", _of("svd_lowrank", "eigh_lowrank"), _fbpca(2)),
    _peer("librla", "librla", _of("svd_lowrank", "interp_decomp"), _librla(2)),
    _peer("scipy eigsh", "scipy", _of("eigh_lowrank"), _eigsh),
    # of centred columns
    _peer(
        "scikit-learn IncrementalPCA", "sklearn", _of("StreamingSVD"), _incremental, yardstick=True
    ),
    _peer("scikit-learn Nystroem", "sklearn", _of("rpcholesky"), _nystroem),
    _peer("numpy greedy Cholesky", "numpy", _of("rpcholesky"), _greedy),
    _peer(INTERPOLATIVE, "scipy", _of("interp_decomp", "cur"), _interpolative(both=True)),
    _peer(
        f"{INTERPOLATIVE} rows of columns", "scipy", _of("cur"), _interpolative(both=False),
        variant_of=INTERPOLATIVE,
    ),
    _peer(PIVOTED, "scipy", _of("qr_pivoted"), _scipy_qr, export=_export_qr),
    _peer("scipy.linalg.qr", "scipy", _of("cholqr"), _scipy_qr, export=_export_qr),
    _peer("numpy.linalg.qr", "numpy", _of("cholqr"), _numpy_qr, export=_export_qr),
    _peer(PINV, "numpy", _of("pinv", "pinv_cr"), _numpy_pinv),
    _peer(
        "scipy.linalg.pinv", "scipy",
        lambda problem: problem.function == "pinv" and len(problem.shape) == 2,
        _scipy_pinv, variant_of=PINV,
    ),
    _peer("torch.linalg.pinv", "torch", _of("pinv"), _torch_pinv, export=np.asarray),
    _peer("numpy Hutchinson", "numpy", _of("estimate_trace", "estimate_diagonal"), _hutchinson),
    _peer(IMATE, "imate", _of("estimate_logdet"), _imate),
    _peer(SPLU, "scipy", _of("estimate_logdet", "estimate_quad_form"), _splu),
    _peer("scipy cg", "scipy", _of("estimate_quad_form"), _cg),
]  # fmt: skip


def test_randomized(benchmark: Any, problem: Problem, peer: Peer, solve: Any) -> None:
    """Called by ``pytest bench`` for every problem and contender; the error is measured before the
    time.
    """
    benchmark(solve(benchmark, problem, peer))
