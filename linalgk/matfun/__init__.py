"""Matrix functions: roots and inverse roots, powers, sign, logarithm, minimax polynomials."""

import dataclasses
from typing import Any

import numpy as np

from linalgk._dispatch import Explanation, Function
from linalgk.matfun import (
    _apply,
    _bures,
    _lyapunov,
    _ops,
    _orthogonalize,
    _polar,
    _powers,
    _root_plan,
    _roots,
)
from linalgk.matfun._bures import bures_barycenter, bures_distance, bures_map
from linalgk.matfun._inverse_root import InverseRoot
from linalgk.matfun._lyapunov import solve_lyapunov, solve_sylvester
from linalgk.matfun._minimax import minimax_schedule
from linalgk.matfun._orthogonalize import orthogonalize
from linalgk.matfun._polar import polar
from linalgk.matfun._powers import logm, powm, signm
from linalgk.matfun._roots import inv_root, invsqrtm, sqrtm

__all__ = [
    "InverseRoot",
    "bures_barycenter",
    "bures_distance",
    "bures_map",
    "inv_root",
    "invsqrtm",
    "logm",
    "minimax_schedule",
    "orthogonalize",
    "polar",
    "powm",
    "signm",
    "solve_lyapunov",
    "solve_sylvester",
    "sqrtm",
]


Sample = tuple[tuple[Any, ...], dict[str, Any]]


def _sample_spd(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Positive definite matrices: one, a batch, a large one."""
    batch, n = {"small": ((), 4), "medium": ((64,), 16), "large": ((), 512)}[size]
    x = np.random.default_rng(rng).standard_normal((*batch, n, 2 * n))
    return (xp.asarray(x @ np.swapaxes(x, -1, -2) / n),), {}


def _sample_lower(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """A lower bound of the singular values."""
    del rng  # nothing random about it
    return ({"small": 1e-1, "medium": 1e-3, "large": 1e-8}[size],), {"xp": xp}


def _explain_schedule(lower: float, **options: Any) -> Explanation:
    steps = len(minimax_schedule(lower, **options))
    reason = "there is one method"
    return Explanation("minimax_schedule", "remez", reason, {}, 200.0 * steps, 24.0 * steps)


def _sample_general(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Matrices without symmetry, eigenvalues on both sides of the imaginary axis."""
    batch, n = {"small": ((), 4), "medium": ((16,), 16), "large": ((), 512)}[size]
    x = np.random.default_rng(rng).standard_normal((*batch, n, n))
    return (xp.asarray(x),), {}


def _sample_gradients(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Matrices as gradients of layers are: rectangular, without structure."""
    shape = {"small": (3, 5), "medium": (16, 24, 16), "large": (256, 1024)}[size]
    return (xp.asarray(np.random.default_rng(rng).standard_normal(shape)),), {}


def _sample_equation(count: int) -> Any:
    """Positive definite coefficients and a right-hand side."""

    def sample(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
        gen = np.random.default_rng(rng)
        args = [_sample_spd(size, xp=xp, rng=gen)[0][0] for _ in range(count)]
        return (*args, xp.asarray(gen.standard_normal(tuple(args[0].shape)))), {}

    return sample


def _sample_covariances(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Two positive definite matrices, or batches of them."""
    gen = np.random.default_rng(rng)
    return tuple(_sample_spd(size, xp=xp, rng=gen)[0][0] for _ in range(2)), {}


def _sample_group(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Three positive definite matrices to average, or batches of three."""
    gen = np.random.default_rng(rng)
    members = [_sample_spd(size, rng=gen)[0][0] for _ in range(3)]
    return (xp.asarray(np.stack(members, axis=-3)),), {}


def _geometric(function: Any, methods: tuple[str, ...], sample: Any) -> Function:
    def explain(covs: Any, /, *others: Any, **options: Any) -> Explanation:
        return _bures.explain(function.__name__, covs, *others, **options)

    record = _record(function, methods, explain, sample)
    return dataclasses.replace(record, jit=False)


def _sample_with(value: Any) -> Any:
    def sample(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
        (a,), options = _sample_spd(size, xp=xp, rng=rng)
        return (a, value), options

    return sample


# Functions whose derivatives PyTorch and JAX find.
_DIFFERENTIABLE = (
    "sqrtm", "invsqrtm", "inv_root", "powm", "logm", "polar", "orthogonalize", "solve_lyapunov",
    "solve_sylvester", "bures_distance",
)  # fmt: skip
_ARRAYS = ("numpy", "cupy", "torch", "jax", "array_api")


def _record(
    function: Any, methods: tuple[str, ...], explain: Any, sample: Any = _sample_spd,
    plan: Any = None,
) -> Function:  # fmt: skip
    return Function(
        name=function.__name__,
        function=function,
        room="matfun",
        methods=tuple(m for m in methods if m != "auto"),
        ops=_ops.OPS,
        accepts=_ARRAYS,
        gradient=function.__name__ in _DIFFERENTIABLE,
        jit=True,
        rng=False,
        status="provisional",
        since="0.1",
        sample=sample,
        explain=explain,
        plan=plan,
    )


def _planned(function: Any, scalar: Any) -> Any:
    def plan(a: Any, /, **options: Any) -> Any:
        return _root_plan.build(function.__name__, scalar, _roots.METHODS, a, options)

    return plan


def _plan_inv_root(a: Any, p: Any, /, **options: Any) -> Any:
    return _root_plan.build("inv_root", _roots.inverse_root(p), _roots.METHODS, a, options)


def _explained(function: Any, scalar: Any, methods: tuple[str, ...]) -> Any:
    def explain(a: Any, /, **options: Any) -> Explanation:
        return _apply.explain(function.__name__, scalar, methods, a, options)

    return explain


def _explain_inv_root(a: Any, p: Any, /, **options: Any) -> Explanation:
    return _apply.explain("inv_root", _roots.inverse_root(p), _roots.METHODS, a, options)


def _explain_powm(a: Any, t: Any, /, **options: Any) -> Explanation:
    return _apply.explain("powm", _powers.power(t), _powers.POWER_METHODS, a, options)


RECORDS = (
    *_ops.OPS,
    *(
        _record(
            function,
            methods,
            _explained(function, scalar, methods),
            sample,
            _planned(function, scalar) if methods is _roots.METHODS else None,
        )
        for function, scalar, methods, sample in (
            (sqrtm, _roots.SQUARE_ROOT, _roots.METHODS, _sample_spd),
            (invsqrtm, _roots.INVERSE_SQUARE_ROOT, _roots.METHODS, _sample_spd),
            (signm, _powers.SIGN, _powers.SIGN_METHODS, _sample_general),
            (logm, _powers.LOG, _powers.LOG_METHODS, _sample_spd),
        )
    ),
    _record(inv_root, _roots.METHODS, _explain_inv_root, _sample_with(4), _plan_inv_root),
    _record(powm, _powers.POWER_METHODS, _explain_powm, _sample_with(0.7)),
    _record(solve_lyapunov, _lyapunov.METHODS, _lyapunov.explain_lyapunov, _sample_equation(1)),
    _record(solve_sylvester, _lyapunov.METHODS, _lyapunov.explain_sylvester, _sample_equation(2)),
    _record(
        orthogonalize,
        _orthogonalize.COEFFS,
        _orthogonalize.explain,
        _sample_gradients,
    ),
    _record(polar, _polar.METHODS, _polar.explain, _sample_gradients),
    Function(
        name="minimax_schedule",
        function=minimax_schedule,
        room="matfun",
        methods=("remez",),
        ops=(),
        accepts=("float",),
        gradient=False,
        jit=False,
        rng=False,
        status="provisional",
        since="0.1",
        sample=_sample_lower,
        explain=_explain_schedule,
    ),
)
