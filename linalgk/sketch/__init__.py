"""Sketching: random operators with the same bits everywhere, and samplers with exact laws."""

from typing import Any

import numpy as np

from linalgk._dispatch import Function
from linalgk.sketch import _hadamard, _leverage, _lewis, _ops, _sampling, _volume
from linalgk.sketch._blocks import RowBlocks
from linalgk.sketch._dense import Gaussian, Rademacher
from linalgk.sketch._hadamard import fwht
from linalgk.sketch._hadamard_ops import FWHT
from linalgk.sketch._leverage import leverage_scores
from linalgk.sketch._lewis import lewis_weights
from linalgk.sketch._operators import Sketch
from linalgk.sketch._philox import Philox
from linalgk.sketch._rows import RowSample
from linalgk.sketch._sampling import sample_rows
from linalgk.sketch._stack import CountSketch, SparseStack
from linalgk.sketch._tensor import KroneckerSRHT, TensorSketch
from linalgk.sketch._trig import SRCT, SRHT
from linalgk.sketch._volume import dpp_sample, volume_sample

__all__ = [
    "CountSketch",
    "Gaussian",
    "KroneckerSRHT",
    "Philox",
    "Rademacher",
    "RowBlocks",
    "RowSample",
    "SRCT",
    "SRHT",
    "Sketch",
    "SparseStack",
    "TensorSketch",
    "dpp_sample",
    "fwht",
    "leverage_scores",
    "lewis_weights",
    "sample_rows",
    "volume_sample",
]

Sample = tuple[tuple[Any, ...], dict[str, Any]]

_DENSE = ("numpy", "cupy", "torch", "jax", "array_api")


def _sample_tall(*extra: Any, **options: Any) -> Any:
    """Tall matrices: a small one, one of the middle, a large one."""

    def sample(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
        m, n = {"small": (20, 3), "medium": (2000, 10), "large": (100_000, 50)}[size]
        a = np.random.default_rng(rng).standard_normal((m, n))
        return (xp.asarray(a), *extra), dict(options)

    return sample


def _sample_orthonormal(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Orthonormal columns."""
    (a,), _ = _sample_tall()(size, rng=rng)
    return (xp.asarray(np.linalg.qr(a)[0]),), {"rng": 0}


def _sampler(
    function: Any, methods: tuple[str, ...], accepts: tuple[str, ...], sample: Any, explain: Any,
    *, rng: bool = True,
) -> Function:  # fmt: skip
    return Function(
        name=function.__name__, function=function, room="sketch",
        methods=tuple(m for m in methods if m != "auto"), ops=(), accepts=accepts, gradient=False,
        jit=False, rng=rng, status="provisional", since="0.1", sample=sample, explain=explain,
    )  # fmt: skip


SAMPLERS = (
    _sampler(
        leverage_scores,
        _leverage.METHODS,
        (*_DENSE, "scipy.sparse"),
        _sample_tall(),
        _leverage.explain_leverage,
    ),
    _sampler(
        lewis_weights,
        ("contraction", "majorization"),
        _DENSE,
        _sample_tall(1.0),
        _lewis.explain_lewis,
        rng=False,
    ),
    _sampler(
        sample_rows,
        _sampling.METHODS,
        (*_DENSE, "scipy.sparse"),
        _sample_tall(50, rng=0),
        _sampling.explain_rows,
    ),
    _sampler(
        volume_sample,
        ("projection", "fixed_size"),
        _DENSE,
        _sample_tall(rng=0),
        _volume.explain_volume,
    ),
    _sampler(dpp_sample, _volume.KINDS, _DENSE, _sample_orthonormal, _volume.explain_dpp),
)

_FWHT = Function(
    name="fwht", function=fwht, room="sketch", methods=("butterflies",), ops=(FWHT,),
    accepts=_DENSE, gradient=True, jit=True, rng=False, status="provisional", since="0.1",
    sample=_hadamard.sample, explain=_hadamard.explain, plan=_hadamard.plan,
)  # fmt: skip

RECORDS: tuple[Any, ...] = (*_ops.OPS, _FWHT, *SAMPLERS)
