"""Tucker and Chebyshev-Tucker formats: tensors and functions to a certified tolerance."""

from typing import Any

from linalgk._dispatch import Function
from linalgk.tensor import (
    _canonical,
    _chebtucker,
    _evaluate,
    _gaussians,
    _lattice,
    _longrange,
    _madelung,
    _tucker,
    _tucker_tensor,
)
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._chebtucker import chebtucker
from linalgk.tensor._extrema import Extremum
from linalgk.tensor._function import ChebTucker
from linalgk.tensor._gaussians import GaussianSum, gaussian_sum
from linalgk.tensor._lattice import LatticePotential, lattice_sum
from linalgk.tensor._longrange import longrange_potential
from linalgk.tensor._madelung import madelung_constant
from linalgk.tensor._ops import EVALUATE
from linalgk.tensor._potential import LongRangePotential
from linalgk.tensor._series import Certificate
from linalgk.tensor._tucker import tucker
from linalgk.tensor._tucker_tensor import TuckerTensor

__all__ = [
    "CanonicalTensor",
    "Certificate",
    "ChebTucker",
    "Extremum",
    "GaussianSum",
    "LatticePotential",
    "LongRangePotential",
    "TuckerTensor",
    "chebtucker",
    "gaussian_sum",
    "lattice_sum",
    "longrange_potential",
    "madelung_constant",
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
        TuckerTensor, _tucker_tensor.sample, _tucker_tensor.explain_tucker_tensor,
        methods=("mode products",),
    ),
    _record(
        CanonicalTensor, _canonical.sample, _canonical.explain_canonical_tensor,
        methods=("blocks of columns",),
    ),
    _record(
        ChebTucker, _evaluate.sample, _evaluate.explain_values, methods=("recurrence",),
        ops=(EVALUATE,),
    ),
    _record(
        chebtucker, _chebtucker.sample, _chebtucker.explain_chebtucker,
        methods=_chebtucker.METHODS[1:], accepts=("callable", *_DENSE), rng=True,
    ),
    _record(
        gaussian_sum, _gaussians.sample, _gaussians.explain_gaussian_sum, methods=("trapezoid",),
        accepts=(),
    ),
    _record(
        longrange_potential, _longrange.sample, _longrange.explain_longrange_potential,
        methods=("moments",),
    ),
    _record(
        lattice_sum, _lattice.sample, _lattice.explain_lattice_sum, methods=("assembled",)
    ),
    _record(
        madelung_constant, _madelung.sample, _madelung.explain_madelung_constant,
        methods=("theta",), accepts=(),
    ),
)  # fmt: skip
