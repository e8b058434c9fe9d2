"""What ``python -m linalgk bench --device cuda`` solves, and who solves it.

Everything here is written for the array module of the device, and so runs with NumPy as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from linalgk_bench import cuda_kronecker, cuda_randomized, cuda_sketch, cuda_tensor
from linalgk_bench.cuda_parts import Contender, Judge, Problem, torch_missing
from linalgk_bench.matfun import _flops
from linalgk_bench.peers import LINALGK
from linalgk_bench.problems import Array, Target

CUPY_EIGH, TORCH_EIGH = "cupy eigh", "torch eigh"
KAPPA = 1e3
# Members of a double precision batch that are compared with an oracle in higher precision.
SPOT_CHECKS = 16

# --- matrices and errors ---------------------------------------------------------------------


def _decompose(device: Any, name: str, x: Any) -> Any:
    """``linalg.<name>`` on the device, or on the host where cuSOLVER is not installed."""
    try:
        return getattr(device.xp.linalg, name)(x)
    except ImportError:
        return [device.put(part) for part in getattr(np.linalg, name)(device.host(x))]


def spd_matrices(device: Any, shape: tuple[int, ...], dtype: str, kappa: float) -> Any:
    """Matrices like those of `linalgk.testing.spd_matrix`, with its ``"log"`` spectrum.

    That one rounds once, on the host, and would take minutes for these sizes; the double
    precision of this one does for the condition numbers here. The normal numbers come from the
    host, so that the matrices are the same on every device.
    """
    g = np.random.default_rng(0).standard_normal(shape)
    # the signs that would make Q uniform cancel in the product
    q, _ = _decompose(device, "qr", device.put(g))
    w = device.put(np.geomspace(1 / kappa, 1.0, shape[-1]))
    a = (q * w) @ device.xp.swapaxes(q, -1, -2)
    return (0.5 * (a + device.xp.swapaxes(a, -1, -2))).astype(dtype)


def _norm(xp: Any, x: Any) -> Any:
    return xp.sqrt(xp.sum(x * x, axis=(-2, -1)))


def worst_error(device: Any, x: Any, reference: Any) -> float:
    """The largest relative Frobenius error of a batch, on the device."""
    xp = device.xp
    return float(xp.max(_norm(xp, x.astype("float64") - reference) / _norm(xp, reference)))


def _all_members(power: float) -> Callable[[Any, Any], Judge]:
    """For single precision: `eigh` in double precision of the rounded matrices, on all members."""

    def judge(device: Any, a: Any) -> Judge:
        w, v = _decompose(device, "eigh", a.astype("float64"))
        reference = (v * w[..., None, :] ** power) @ device.xp.swapaxes(v, -1, -2)
        return lambda x: worst_error(device, x, reference)

    return judge


def _spot_checks(oracle: str) -> Callable[[Any, Any], Judge]:
    """For double precision: an oracle of `linalgk.testing` on members from first to last."""

    def judge(device: Any, a: Any) -> Judge:
        from linalgk import testing

        some = np.unique(np.linspace(0, len(a) - 1, SPOT_CHECKS).astype(int))
        reference = getattr(testing, oracle)(device.host(a[device.put(some)]))

        def error(x: Any) -> float:
            worst = np.max(testing.relative_error(device.host(x[device.put(some)]), reference))
            # a member that is not finite is seen wherever it stands
            return float(worst) + float(device.xp.max(x - x))

        return error

    return judge


def _square_residual(device: Any, a: Any) -> Judge:
    xp = device.xp
    return lambda x: float(_norm(xp, x @ x - a) / _norm(xp, a))


def _sign_residual(device: Any, a: Any) -> Judge:
    """``X X = I`` holds for other matrices too; the trace counts the eigenvalues on either side."""
    xp, n = device.xp, a.shape[-1]
    balance = float(np.sum(np.sign(np.linalg.eigvals(device.host(a)).real)))

    def residual(x: Any) -> float:
        square = float(_norm(xp, x @ x - xp.eye(n))) / n**0.5
        # not max(), which drops a NaN in its second place
        return float(np.maximum(square, abs(float(xp.trace(x)) - balance) / n))

    return residual


def _log_residual(device: Any, a: Any) -> Judge:
    import scipy.linalg as sla

    host = device.host(a)

    def residual(x: Any) -> float:
        back = device.host(x)
        if not np.isfinite(back).all():
            return float("nan")
        return float(np.linalg.norm(sla.expm(back) - host) / np.linalg.norm(host))

    return residual


# --- problems --------------------------------------------------------------------------------


def _model(shape: tuple[int, ...], dtype: str, structure: str) -> dict[str, Any]:
    nbytes = 2.0 * float(np.prod(shape)) * np.dtype(dtype).itemsize
    return {"flops": _flops(shape, structure), "nbytes": nbytes}


def _label(*words: Any) -> str:
    return "-".join("x".join(map(str, w)) if isinstance(w, tuple) else str(w) for w in words if w)


def root_problem(
    function: str, shape: tuple[int, ...], dtype: str = "float32", *, p: int = 2,
    tol: float | None = None, t: float | None = None, **rest: Any,
) -> Problem:  # fmt: skip
    """A root, or the power t, of positive definite matrices of condition 1e3."""
    power = 1 / p if function == "sqrtm" else -1 / p
    power = power if t is None else t
    measure: Literal["error", "residual"] = "error"
    if dtype == "float32":
        judge = _all_members(power)
    elif len(shape) > 2:
        judge = _spot_checks(f"reference_{function}")
    else:
        judge, measure = _square_residual, "residual"
    if tol is None:
        condition = KAPPA ** (0.5 if power > 0 else 1.0)
        bound = 10 * float(np.finfo(dtype).eps) * condition
    else:
        bound = tol
    return Problem(
        name=_label(
            function,
            f"p{p}" if function == "inv_root" else f"t{t}" if t else "",
            *(shape, dtype, "log-k1e3"),
            "" if tol is None else f"tol{tol:.0e}".replace("e-0", "e-"),
        ),
        function=function,
        shape=shape,
        dtype=dtype,
        make=lambda device: spd_matrices(device, shape, dtype, KAPPA),
        judge=judge,
        args=(p,) if function == "inv_root" else () if t is None else (t,),
        options={"assume_a": "pos"} | ({} if tol is None else {"tol": tol}),
        power=power,
        measure=measure,
        error_bound=bound,
        **_model(shape, dtype, "pos"),
        **rest,
    )


def general_problem(function: str, n: int, judge: Any, **rest: Any) -> Problem:
    """A function of one general matrix in double precision, judged by what defines it."""

    def make(device: Any) -> Any:
        from linalgk import testing

        if function == "signm":  # the matrix of the comparison on the CPU
            return device.put(np.random.default_rng(0).standard_normal((n, n)))
        return device.put(testing.random_matrix(n))

    return Problem(
        name=_label(function, (n, n), "float64-general"),
        function=function,
        shape=(n, n),
        dtype="float64",
        make=make,
        judge=judge,
        options={"assume_a": "gen"},
        measure="residual",
        **_model((n, n), "float64", "gen"),
        **rest,
    )


def _promised(speedup: float | None = None) -> dict[str, Any]:
    targets = () if speedup is None else (Target(CUPY_EIGH, speedup),)
    return {"tier": "target", "targets": targets}


# Those with targets come first: when the time is out, the others are left out.
PROBLEMS: list[Problem] = [
    *(root_problem("invsqrtm", (8192, n, n), **_promised(3)) for n in (8, 16, 32)),
    root_problem("invsqrtm", (500, 100, 100), **_promised(1.5)),
    root_problem("sqrtm", (2048, 2048), tol=1e-5, **_promised(2)),
    general_problem("sqrtm", 1024, _square_residual, error_bound=1e-10, **_promised()),
    *(root_problem("invsqrtm", (8192, n, n), "float64") for n in (8, 16, 32)),
    root_problem("invsqrtm", (500, 100, 100), "float64"),
    root_problem("inv_root", (64, 256, 256), p=4),
    root_problem("powm", (64, 256, 256), t=0.7),
    general_problem("signm", 512, _sign_residual),
    general_problem("logm", 512, _log_residual),
    root_problem("sqrtm", (2048, 2048), "float64"),
    root_problem("sqrtm", (4096, 4096), tol=1e-5),
    root_problem("invsqrtm", (8192, 64, 64)),
    *cuda_sketch.PROBLEMS,
    *cuda_randomized.PROBLEMS,
    *cuda_kronecker.PROBLEMS,
    *cuda_tensor.PROBLEMS,
]


# --- contenders ------------------------------------------------------------------------------


def _linalgk(device: Any, problem: Problem, a: Any, **more: Any) -> Callable[[], Any]:
    import linalgk as lk

    if problem.solve is not None:
        return problem.solve(device, a)
    function, options = getattr(lk, problem.function), {**problem.options, **more}
    return lambda: function(a, *problem.args, **options)


def _linalgk_nan(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    import linalgk as lk

    if problem.solve is None:
        return _linalgk(device, problem, a, on_fail="nan")
    call = problem.solve(device, a)

    def never_waits() -> Any:
        with lk.config_context(on_fail="nan"):
            return call()

    return never_waits


def _cupy_eigh(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    xp, power = device.xp, problem.power

    def call() -> Any:
        w, v = xp.linalg.eigh(a)
        return (v * w[..., None, :] ** power) @ xp.swapaxes(v, -1, -2)

    return call


def _cupy_eigh_alone(device: Any, _problem: Problem, a: Any) -> Callable[[], Any]:
    return lambda: device.xp.linalg.eigh(a)


def _torch_eigh(_device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    import torch

    b, power = torch.from_dlpack(a), problem.power

    def call() -> Any:
        w, v = torch.linalg.eigh(b)
        return (v * w.unsqueeze(-2) ** power) @ v.mT

    return call


def _scipy(device: Any, problem: Problem, a: Any) -> Callable[[], Any]:
    import scipy.linalg as sla

    host, function = device.host(a), getattr(sla, problem.function)
    return lambda: function(host)


def _definite(problem: Problem) -> bool:
    return problem.power is not None


def _general(problem: Problem) -> bool:
    return problem.options.get("assume_a") == "gen"


def _looks(problem: Problem) -> bool:
    return problem.looks


def _anything(_problem: Problem) -> bool:
    return True


CONTENDERS: list[Contender] = [
    Contender(LINALGK, _anything, _linalgk),
    # never waits for the device
    Contender(f"{LINALGK} (on_fail='nan')", _looks, _linalgk_nan),
    Contender(CUPY_EIGH, _definite, _cupy_eigh),
    Contender(f"{CUPY_EIGH} alone", _definite, _cupy_eigh_alone, yardstick=True),
    Contender(TORCH_EIGH, _definite, _torch_eigh, torch_missing),
    # no library on the GPU has these functions
    Contender("scipy on the CPU", _general, _scipy, yardstick=True, on_host=True),
    *cuda_sketch.CONTENDERS,
    *cuda_randomized.CONTENDERS,
    *cuda_kronecker.CONTENDERS,
    *cuda_tensor.CONTENDERS,
]


def as_array(device: Any, x: Any) -> Array:
    """An answer of any contender as an array of the device's module."""
    return x if isinstance(x, device.xp.ndarray) else device.xp.from_dlpack(x)
