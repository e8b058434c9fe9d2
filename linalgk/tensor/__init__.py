"""Tucker and Chebyshev-Tucker formats: tensors and functions to a certified tolerance."""

from typing import Any

from linalgk._dispatch import Function
from linalgk.tensor import _chebtucker, _gaussians, _longrange, _tucker, _evaluate
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._chebtucker import chebtucker
from linalgk.tensor._extrema import Extremum
from linalgk.tensor._function import Certificate, ChebTucker
from linalgk.tensor._gaussians import GaussianSum, gaussian_sum
from linalgk.tensor._longrange import longrange_potential
from linalgk.tensor._ops import EVALUATE
from linalgk.tensor._potential import LongRangePotential
from linalgk.tensor._tucker import tucker
from linalgk.tensor._tucker_tensor import TuckerTensor

__all__ = [
    "CanonicalTensor",
    "Certificate",
    "ChebTucker",
    "Extremum",
    "GaussianSum",
    "LongRangePotential",
    "TuckerTensor",
    "chebtucker",
    "gaussian_sum",
    "longrange_potential",
    "tucker",
]

_DENSE = ("numpy", "cupy", "torch", "jax", "array_api")


def _record(
    function: Any, sample: Any, explain: Any, *, methods: tuple[str, ...],
    accepts: tuple[str, ...] = _DENSE, ops: tuple[Any, ...] = (), rng: bool = False,
) -> Function:  # fmt: skip
    return Function(
        name=function.__name__, function=function, room="tensor", methods=methods, ops=ops,
        accepts=accepts, gradient=False, jit=False, rng=rng, status="provisional", since="0.1",
        sample=sample, explain=explain,
    )  # fmt: skip


RECORDS: tuple[Any, ...] = (
    EVALUATE,
    _record(
        tucker, _tucker.sample_tucker, _tucker.explain_tucker, methods=_tucker.METHODS[1:],
        accepts=(*_DENSE, "memmap", "iterable"), rng=True,
    ),
    _record(
        ChebTucker, _evaluate.sample, _evaluate.explain_values, methods=("recurrence",),
        ops=(EVALUATE,),
    ),
    _record(
        gaussian_sum, _gaussians.sample, _gaussians.explain_gaussian_sum, methods=("trapezoid",),
        accepts=(),
    ),
    _record(
        longrange_potential, _longrange.sample, _longrange.explain_longrange_potential,
        methods=("gaussians",),
    ),
)  # fmt: skip
