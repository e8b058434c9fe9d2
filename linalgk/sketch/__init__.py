"""Sketching: random operators with the same bits everywhere, and samplers with exact laws."""

from typing import Any

import numpy as np

from linalgk._dispatch import Function
from linalgk.sketch import _advice, _hadamard, _leverage, _lewis, _ops, _ridge, _sampling, _volume
from linalgk.sketch._advice import Recommendation, distortion, recommend
from linalgk.sketch._blocks import RowBlocks
from linalgk.sketch._dense import Gaussian, Rademacher
from linalgk.sketch._hadamard import fwht
from linalgk.sketch._hadamard_ops import FWHT
from linalgk.sketch._leverage import leverage_scores
from linalgk.sketch._lewis import lewis_weights
from linalgk.sketch._operators import Sketch
from linalgk.sketch._philox import Philox
from linalgk.sketch._ridge import Ridge, RidgeInfo, implicit_ridge, ridge
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
    "Recommendation",
    "Ridge",
    "RidgeInfo",
    "RowBlocks",
    "RowSample",
    "SRCT",
    "SRHT",
    "Sketch",
    "SparseStack",
    "TensorSketch",
    "distortion",
    "dpp_sample",
    "fwht",
    "implicit_ridge",
    "leverage_scores",
    "lewis_weights",
    "recommend",
    "ridge",
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


def _sample_distortion(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """A sketch and a tall matrix."""
    (a,), _ = _sample_tall()(size, xp=xp, rng=rng)
    m, n = a.shape
    return (SparseStack(min(m // 8 * 8, 16 * n), m, rng=0), a), {}


def _sample_sizes(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Rows and columns of a tall matrix."""
    del xp, rng  # only sizes
    return {"small": (1000, 3), "medium": (100_000, 20), "large": (10_000_000, 100)}[size], {}


def _sample_ridge(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """A matrix, a right-hand side, ridges, and for the larger ones a sketch."""
    m, n, k = {"small": (20, 5, None), "medium": (200, 300, 100), "large": (2000, 4000, 500)}[size]
    gen = np.random.default_rng(rng)
    a, b = gen.standard_normal((m, n)), gen.standard_normal(m)
    options = {} if k is None else {"sketch": "SparseStack", "k": k}
    return (xp.asarray(a), xp.asarray(b), np.geomspace(0.1, 1000, 20)), options


def _sample_values(size: str, *, xp: Any = np, rng: Any = None) -> Sample:
    """Singular values and a ridge."""
    del xp, rng
    n = {"small": 10, "medium": 200, "large": 2000}[size]
    return (np.geomspace(1, 100, n), 10.0, n // 2), {"n": n}


_FUNCTIONS = (
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
    _sampler(
        _advice.distortion,
        ("dense", "sparse"),
        (*_DENSE, "scipy.sparse"),
        _sample_distortion,
        _advice.explain_distortion,
        rng=False,
    ),
    _sampler(
        _advice.recommend,
        _advice.GOALS,
        ("int",),
        _sample_sizes,
        _advice.explain_recommend,
        rng=False,
    ),
    _sampler(
        _ridge.ridge,
        ("svd", "sketched"),
        (*_DENSE, "scipy.sparse"),
        _sample_ridge,
        _ridge.explain_ridge,
    ),
    _sampler(
        _ridge.implicit_ridge,
        ("brentq",),
        ("numpy",),
        _sample_values,
        _ridge.explain_implicit,
        rng=False,
    ),
)

_FWHT = Function(
    name="fwht", function=fwht, room="sketch", methods=("butterflies",), ops=(FWHT,),
    accepts=_DENSE, gradient=True, jit=True, rng=False, status="provisional", since="0.1",
    sample=_hadamard.sample, explain=_hadamard.explain, plan=_hadamard.plan,
)  # fmt: skip

RECORDS: tuple[Any, ...] = (*_ops.OPS, _FWHT, *_FUNCTIONS)
