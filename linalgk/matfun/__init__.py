"""Matrix functions: square roots and inverse square roots, minimax polynomials."""

import functools
from typing import Any

import numpy as np

from linalgk._dispatch import Explanation, Function
from linalgk.matfun import _ops, _roots
from linalgk.matfun._minimax import minimax_schedule
from linalgk.matfun._roots import invsqrtm, sqrtm

__all__ = ["invsqrtm", "minimax_schedule", "sqrtm"]


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


_ARRAYS = ("numpy", "torch (CPU)", "jax", "array_api")

RECORDS = (
    *_ops.OPS,
    *(
        Function(
            name=function.__name__,
            function=function,
            room="matfun",
            methods=("eigh", "minimax", "newton_schulz", "closed_form", "schur"),
            ops=_ops.OPS,
            accepts=_ARRAYS,
            gradient=False,
            jit=False,
            rng=False,
            status="provisional",
            since="0.1",
            sample=_sample_spd,
            explain=functools.partial(_roots.explain_root, inverse),
        )
        for function, inverse in ((sqrtm, False), (invsqrtm, True))
    ),
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
