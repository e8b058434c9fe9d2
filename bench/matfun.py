"""Matrix functions: the problems, the contenders and the pytest-benchmark entry."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from linalgk_bench import equations, gradients, orthogonalize, polar
from linalgk_bench.peers import LINALGK, Peer, Unavailable
from linalgk_bench.problems import Array, Arrays, Problem, Target, worst_relative_error

SCIPY, NUMPY_EIGH, EIGH_ALONE = "scipy.linalg.sqrtm", "numpy eigh", "numpy eigh alone"
SCIPY_EVD, SCIPY_POWER = "scipy eigh evd", "scipy.linalg.fractional_matrix_power"
SCIPY_SIGN, SCIPY_LOG = "scipy.linalg.signm", "scipy.linalg.logm"


# --- problems --------------------------------------------------------------------------------


def _flops(shape: tuple[int, ...], structure: str) -> float:
    """Real flops of the cheapest route to full accuracy that libraries offer.

    Hermitian: reduction to tridiagonal form 4/3 n^3, divide and conquer 4/3 n^3,
    back-transformation 2 n^3, symmetric product n^3. General: Schur form and recurrence, 28 1/3 n^3
    (Higham, Functions of Matrices, Algorithm 6.3).
    """
    *batch, n, _ = shape
    return float(np.prod(batch)) * n**3 * (17 / 3 if structure == "pos" else 85 / 3)


def _problem(
    function: str,
    shape: tuple[int, ...],
    dtype: str = "float64",
    *,
    kappa: float | None = None,
    spectrum: str = "log",
    structure: str = "pos",
    **rest: Any,
) -> Problem:
    *batch, n, _ = shape

    def make() -> Arrays:
        from linalgk import testing

        if structure == "gen":
            return {"a": testing.random_matrix(n, kappa or 100.0, batch=tuple(batch), dtype=dtype)}
        options: dict[str, Any] = {"batch": tuple(batch), "dtype": dtype}
        a = testing.spd_matrix(n, kappa or 1e4, spectrum=spectrum, **options)  # type: ignore[arg-type]
        if spectrum == "rank_deficient":
            return {"a": a, "factor": testing.psd_factor(n, n // 2, kappa or 1e4, **options)}
        return {"a": a}

    def reference(arrays: Arrays) -> Array:
        from linalgk import testing

        if structure == "gen":
            return testing.reference_sqrtm_general(arrays["a"])
        if function == "invsqrtm":
            return testing.reference_invsqrtm(arrays["a"])
        return testing.reference_sqrtm(arrays["a"], factor=arrays.get("factor"))

    kind = spectrum if structure == "pos" else "general"
    condition = f"-k{kappa:.0e}".replace("e+0", "e").replace("e+", "e") if kappa else ""
    return Problem(
        name=f"{function}-{'x'.join(map(str, shape))}-{dtype}-{kind}{condition}",
        function=function,
        shape=shape,
        dtype=dtype,
        make=make,
        reference=reference,
        structure=structure,
        flops=_flops(shape, structure),
        nbytes=2.0 * float(np.prod(shape)) * np.dtype(dtype).itemsize,
        **rest,
    )


def _target_problems() -> list[Problem]:
    eps = {name: float(np.finfo(name).eps) for name in ("float32", "float64")}
    one = [
        _problem(
            "sqrtm",
            (n, n),
            kappa=1e4,
            tier="target",
            targets=(Target(SCIPY, 6), Target(EIGH_ALONE, 1.25, "share")),
            error_bound=10 * eps["float64"] * 1e4**0.5,
        )
        for n in (512, 1024)
    ]
    single = _problem(
        "sqrtm",
        (1024, 1024),
        "float32",
        kappa=1e4,
        tier="target",
        targets=(Target(NUMPY_EIGH, 1.4),),
    )
    batched = [
        _problem(
            "invsqrtm",
            (b, n, n),
            dtype,
            kappa=1e3,
            tier="target",
            targets=(Target(NUMPY_EIGH, speedup),),
            error_bound=10 * eps[dtype] * 1e3,
        )
        for b, n, speedup in ((4096, 8, 5), (4096, 16, 3), (2048, 32, 2))
        for dtype in ("float32", "float64")
    ]
    tiny = _problem("sqrtm", (4, 4), kappa=10.0, tier="target", targets=(Target(SCIPY, 1),))
    return [*one, single, *batched, tiny]


def _first_members(result: Array, ref: Array) -> float:
    """The error of the members that have a reference."""
    return (
        worst_relative_error(result[: len(ref)], ref)
        if ref.ndim == 3
        else (worst_relative_error(result, ref))
    )


def _inverse_root_reference(arrays: Arrays, p: int, damp: float) -> Array:
    """To the last digits in double precision: square roots of the square root."""
    from linalgk import testing

    a = arrays["a"]
    a = a[:2] if a.ndim == 3 and a.shape[-1] > 64 else a
    if a.dtype == np.float32:
        w, v = np.linalg.eigh(a.astype(float))
        return (v * (w + damp * w[..., -1:])[..., None, :] ** (-1 / p)) @ np.swapaxes(v, -1, -2)
    if damp:
        top = np.linalg.eigvalsh(a)[..., -1]
        a = a + damp * top[..., None, None] * np.eye(a.shape[-1])
    while p > 2:
        a, p = testing.reference_sqrtm(a), p // 2
    return testing.reference_invsqrtm(a)


def _inverse_root_problem(
    shape: tuple[int, ...], p: int, kappa: float, dtype: str = "float64", damp: float = 0.0,
    change: float = 0.0, **rest: Any,
) -> Problem:  # fmt: skip
    """``A^(-1/p)``; with ``change`` after an update of the matrix by that share."""
    *batch, n, _ = shape

    def make() -> Arrays:
        from linalgk import testing

        a = testing.spd_matrix(
            n, kappa, batch=tuple(batch), dtype=dtype if not change else "float64"
        )
        if not change:
            return {"a": a}
        # samples of the same distribution, as an average of gradients takes them
        g = np.linalg.cholesky(a) @ np.random.default_rng(0).standard_normal(shape)
        b = (1 - change) * a + change * (g @ g.T) / n
        return {"a": (0.5 * (b + b.T)).astype(dtype), "before": a.astype(dtype)}

    function = "InverseRoot" if change else "inv_root"
    kind = f"change-{change:g}" if change else "log"
    condition = f"k{kappa:.0e}".replace("e+0", "e").replace("e+", "e")
    return Problem(
        name=f"{function}-p{p}-{'x'.join(map(str, shape))}-{dtype}-{kind}-{condition}",
        function=function,
        shape=shape,
        dtype=dtype,
        make=make,
        reference=lambda arrays: _inverse_root_reference(arrays, p, damp),
        options={"p": p, "rel_damp": damp},
        structure="pos",
        flops=_flops(shape, "pos"),
        nbytes=2.0 * float(np.prod(shape)) * np.dtype(dtype).itemsize,
        error=_first_members,
        error_bound=10 * float(np.finfo(dtype).eps) * kappa,
        tier="target",
        **rest,
    )


def _residual_problem(
    function: str, n: int, make: Callable[[], Array], residual: Callable[[Array, Any], float],
    target: Target, structure: str = "gen", kind: str = "general",
) -> Problem:  # fmt: skip
    """One matrix whose answer is judged by the residual that defines it."""
    return Problem(
        name=f"{function}-{n}x{n}-float64-{kind}",
        function=function,
        shape=(n, n),
        dtype="float64",
        make=lambda: {"a": make()},
        reference=lambda arrays: arrays["a"],
        structure=structure,
        flops=_flops((n, n), structure),
        nbytes=16.0 * n * n,
        error=residual,
        targets=(target,),
        tier="target",
    )


def _near_identity() -> Array:
    return np.random.default_rng(0).standard_normal((512, 512)) / 512**0.5 + 1.5 * np.eye(512)


def _norm_ratio(x: Array, size: float) -> float:
    return float(np.linalg.norm(x) / size)


def _log_residual(x: Array, a: Array) -> float:
    import scipy.linalg as sla

    return _norm_ratio(sla.expm(x) - a, float(np.linalg.norm(a)))


def _log_matrix() -> Array:
    from linalgk import testing

    return testing.spd_matrix(512, 1e4)


def _function_problems() -> list[Problem]:
    """The targets of inverse roots, signs and logarithms."""
    return [
        _inverse_root_problem((256, 256), 4, 1e4, targets=(Target(SCIPY_POWER, 7),)),
        _inverse_root_problem(
            (64, 256, 256), 4, 1e8, damp=1e-12,
            targets=(Target(SCIPY_POWER, 10), Target(NUMPY_EIGH, 1.5)),
        ),
        _inverse_root_problem(
            (4096, 8, 8), 4, 1e3, "float32", targets=(Target(NUMPY_EIGH, 4),)
        ),
        *(
            _inverse_root_problem(
                (1024, 1024), p, 1e4, "float32", change=0.05,
                # new eigenvectors in the same precision, so at an error of the same kind
                targets=(Target(SCIPY_EVD, 2.5), Target(NUMPY_EIGH, 2.5)),
            )
            for p in (2, 4)
        ),
        _residual_problem(
            "sqrtm", 512, _near_identity,
            lambda x, a: _norm_ratio(x @ x - a, float(np.linalg.norm(a))), Target(SCIPY, 1.5),
            kind="randn-over-sqrt-n-plus-1.5",
        ),
        _residual_problem(
            "signm", 512, lambda: np.random.default_rng(0).standard_normal((512, 512)),
            lambda x, _: _norm_ratio(x @ x - np.eye(512), 512**0.5), Target(SCIPY_SIGN, 4),
        ),
        _residual_problem(
            "logm", 512, _log_matrix, _log_residual, Target(SCIPY_LOG, 10), "pos", "log-k1e4"
        ),
    ]  # fmt: skip


def _gallery_problems() -> list[Problem]:
    spectra: list[tuple[str, float | None]] = [("log", k) for k in (1e1, 1e4, 1e8, 1e12, 1e15)]
    spectra += [
        ("clustered", 1e6),
        ("rank_deficient", 1e4),
        ("wishart", None),
        ("heavy_tailed", 1e6),
    ]
    rows = [
        _problem(function, (n, n), kappa=kappa, spectrum=spectrum)
        for function in ("sqrtm", "invsqrtm")
        for n in (64, 256)
        for spectrum, kappa in spectra
        if (function, spectrum) != ("invsqrtm", "rank_deficient")  # has no inverse
    ]
    rows += [_problem("sqrtm", (64, 64), "float32", kappa=kappa) for kappa in (1e2, 1e4, 1e6)]
    rows += [_problem("sqrtm", (n, n), structure="gen", kappa=100.0) for n in (64, 256)]
    return rows


def _schedule_error(coeffs: Array, lower: Array) -> float:
    """Largest deviation from 1 of the composed polynomials on [lower, 1]."""
    x = np.geomspace(float(lower), 1.0, 2001)
    for a, b, c in coeffs:
        x = x * (a + x * x * (b + x * x * c))
    return float(np.max(np.abs(1 - x)))


SCHEDULE = Problem(
    name="minimax_schedule-1e-8",
    function="minimax_schedule",
    shape=(),
    dtype="float64",
    make=lambda: {"lower": np.asarray(1e-8)},
    reference=lambda arrays: arrays["lower"],
    args=("lower",),
    error=_schedule_error,
)

POWER = Problem(
    name="powm-256x256-float64-log-k1e4",
    function="powm",
    shape=(256, 256),
    dtype="float64",
    make=lambda: _problem("sqrtm", (256, 256), kappa=1e4).make(),
    reference=lambda arrays: _problem("sqrtm", (256, 256)).reference(arrays),
    options={"p": 0.5 + 2.0**-40},  # no root that a method could recognise
    structure="pos",
    flops=_flops((256, 256), "pos"),
    nbytes=16.0 * 256 * 256,
    error_bound=1e-9,
)

PROBLEMS: list[Problem] = [
    *_target_problems(), *_function_problems(), *_gallery_problems(), SCHEDULE, POWER,
    *orthogonalize.PROBLEMS, *equations.PROBLEMS, *polar.PROBLEMS, *gradients.PROBLEMS,
]  # fmt: skip


# --- contenders ------------------------------------------------------------------------------


def _linalgk(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    if problem.function == gradients.FUNCTION:
        return gradients.linalgk(problem, arrays)
    function = getattr(lk, problem.function)
    options = dict(problem.options)
    if problem.function == "minimax_schedule":
        lower, calls = float(arrays["lower"]), itertools.count()
        # Schedules are cached, so a repeated question would time the cache.
        return lambda: function(lower * (1 + 1e-12 * next(calls)), **options)
    args = [arrays[name] for name in problem.args]
    order = options.pop("p", None)
    if problem.function == "InverseRoot":
        root = lk.InverseRoot(order, **options)
        root.update(arrays["before"])
        # eigenvectors stay those of the matrix before, however often it is asked
        return lambda: root.update(args[0])
    if order is not None:
        args.append(order)
        options = options if problem.function == "inv_root" else {}
    return lambda: function(*args, **options)


def _linalgk_fresh(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import linalgk as lk

    a, p = arrays["a"], problem.options["p"]
    return lambda: lk.inv_root(a, p)


def _scipy_function(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import scipy.linalg as sla

    a, function = arrays["a"], problem.function
    if function in ("signm", "logm"):
        return lambda: getattr(sla, function)(a)
    p, damp = problem.options["p"], problem.options.get("rel_damp", 0.0)
    power = p if function == "powm" else -1 / p
    n = a.shape[-1]

    def call() -> Array:
        b = a
        if damp:
            top = np.linalg.eigvalsh(a)[..., -1]
            b = a + damp * top[..., None, None] * np.eye(n)
        if b.ndim == 2:
            return sla.fractional_matrix_power(b, power)
        return np.stack([sla.fractional_matrix_power(member, power) for member in b])

    return call


def _scipy_sqrtm(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import scipy.linalg as sla

    a = arrays["a"]
    if problem.function == "invsqrtm":
        return lambda: sla.inv(sla.sqrtm(a))
    return lambda: sla.sqrtm(a)


def _values(problem: Problem, w: Array) -> Array:
    """The function of the eigenvalues."""
    name = problem.function
    if name in ("sqrtm", "invsqrtm"):
        root = np.sqrt(np.maximum(w, 0))
        return root if name == "sqrtm" else 1 / root
    if name == "logm":
        return np.log(w)
    p, damp = problem.options["p"], problem.options.get("rel_damp", 0.0)
    w = w + damp * w[..., -1:] if damp else w
    return w ** (p if name == "powm" else -1 / p)


def _rebuild(problem: Problem, w: Array, v: Array) -> Array:
    vh = np.swapaxes(v, -1, -2) if v.dtype.kind == "f" else np.swapaxes(v.conj(), -1, -2)
    return (v * _values(problem, w)[..., None, :]) @ vh


def _numpy_eigh(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    a = arrays["a"]

    def call() -> Array:
        w, v = np.linalg.eigh(a)
        return _rebuild(problem, w, v)

    return call


def _numpy_eigh_alone(problem: Problem, arrays: Arrays) -> Callable[[], Any]:  # noqa: ARG001
    a = arrays["a"]
    return lambda: np.linalg.eigh(a)


def _scipy_evd(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import scipy.linalg as sla

    a = arrays["a"]

    def call() -> Array:
        w, v = sla.eigh(a, driver="evd", check_finite=False)
        return _rebuild(problem, w, v)

    return call


def _torch_eigh(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    import torch

    a, inverse = torch.from_numpy(arrays["a"]), problem.function == "invsqrtm"

    def call() -> Any:
        w, v = torch.linalg.eigh(a)
        root = w.clamp(min=0).sqrt().unsqueeze(-2)
        return (v / root if inverse else v * root) @ v.mH

    return call


def _torch_sqrth(problem: Problem, arrays: Arrays) -> Callable[[], Any]:  # noqa: ARG001
    import torch

    if not hasattr(torch.linalg, "matrix_sqrth"):
        msg = f"torch {torch.__version__} has no torch.linalg.matrix_sqrth"
        raise Unavailable(msg)
    a = torch.from_numpy(arrays["a"])
    return lambda: torch.linalg.matrix_sqrth(a)


def _torch_newton_schulz(problem: Problem, arrays: Arrays) -> Callable[[], Any]:
    """Coupled Newton-Schulz with Frobenius scaling as commonly published, stopped when it no longer
    improves.

    The cap of steps is what condition 1e15 needs.
    """
    import torch

    a, inverse = torch.from_numpy(arrays["a"]), problem.function == "invsqrtm"
    n = a.shape[-1]
    eye = torch.eye(n, dtype=a.dtype)
    enough = 10 * n * torch.finfo(a.dtype).eps

    def call() -> Any:
        norm = torch.linalg.matrix_norm(a, keepdim=True)
        y, z, last = a / norm, eye.expand_as(a), float("inf")
        for _ in range(50):
            p = z @ y
            residual = float((p - eye).abs().max())
            if residual < enough or (residual < 0.1 and residual > last / 2):
                break
            last = residual
            t = 1.5 * eye - 0.5 * p
            y, z = y @ t, t @ z
        return z / norm.sqrt() if inverse else y * norm.sqrt()

    return call


def _jax_sqrtm(problem: Problem, arrays: Arrays) -> Callable[[], Any]:  # noqa: ARG001
    import jax

    jax.config.update("jax_enable_x64", True)
    a = jax.numpy.asarray(arrays["a"])
    root = jax.jit(jax.scipy.linalg.sqrtm)
    return lambda: root(a).block_until_ready()


def _is_root(problem: Problem) -> bool:
    return problem.function in ("sqrtm", "invsqrtm")


def _is_hermitian(problem: Problem) -> bool:
    return problem.structure == "pos"


def _as_answer(result: Any) -> Array:
    return np.asarray(result)


def _peer(
    name: str, library: str, accepts: Callable[[Problem], bool], prepare: Any, **rest: Any
) -> Peer:
    return Peer(name, library, accepts, prepare, export=_as_answer, **rest)


PEERS: list[Peer] = [
    Peer(LINALGK, "linalgk", lambda problem: True, _linalgk, export=polar.export),  # noqa: ARG005
    _peer(SCIPY, "scipy", lambda p: p.function == "sqrtm", _scipy_sqrtm),
    _peer("scipy inv(sqrtm)", "scipy", lambda p: p.function == "invsqrtm", _scipy_sqrtm),
    _peer(NUMPY_EIGH, "numpy", _is_hermitian, _numpy_eigh),
    # LAPACK on one small matrix after the other mostly waits for its second thread.
    _peer(
        "numpy eigh 1 thread",
        "numpy",
        lambda p: _is_hermitian(p) and len(p.shape) > 2,
        _numpy_eigh,
        threads=1,
        variant_of=NUMPY_EIGH,
    ),
    _peer(EIGH_ALONE, "numpy", _is_hermitian, _numpy_eigh_alone, yardstick=True),
    _peer(SCIPY_EVD, "scipy", _is_hermitian, _scipy_evd),
    _peer(
        SCIPY_POWER,
        "scipy",
        lambda p: p.function in ("inv_root", "powm") and p.shape[-1] > 64,
        _scipy_function,
    ),
    _peer(SCIPY_SIGN, "scipy", lambda p: p.function == "signm", _scipy_function),
    _peer(SCIPY_LOG, "scipy", lambda p: p.function == "logm", _scipy_function),
    _peer("linalgk inv_root", "linalgk", lambda p: p.function == "InverseRoot", _linalgk_fresh),
    _peer("torch eigh", "torch", lambda p: _is_root(p) and _is_hermitian(p), _torch_eigh),
    _peer(
        "torch.linalg.matrix_sqrth",
        "torch",
        lambda p: _is_hermitian(p) and p.function == "sqrtm",
        _torch_sqrth,
    ),
    _peer(
        "torch Newton-Schulz",
        "torch",
        lambda p: _is_root(p) and _is_hermitian(p),
        _torch_newton_schulz,
    ),
    _peer(
        "jax.scipy.linalg.sqrtm",
        "jax",
        lambda p: p.function == "sqrtm" and len(p.shape) == 2,
        _jax_sqrtm,
    ),
    *orthogonalize.PEERS,
    *equations.PEERS,
    *polar.PEERS,
    *gradients.PEERS,
]


def test_matfun(benchmark: Any, problem: Problem, peer: Peer, solve: Any) -> None:
    """Called by ``pytest bench`` for every problem and contender; the error is measured before the
    time.
    """
    benchmark(solve(benchmark, problem, peer))
