"""Sketching: random operators with the same bits everywhere, and samplers with exact laws."""

from typing import Any

from linalgk.sketch import _ops
from linalgk.sketch._blocks import RowBlocks
from linalgk.sketch._dense import Gaussian, Rademacher
from linalgk.sketch._operators import Sketch
from linalgk.sketch._philox import Philox
from linalgk.sketch._rows import RowSample
from linalgk.sketch._stack import CountSketch, SparseStack
from linalgk.sketch._trig import SRCT, SRHT

__all__ = [
    "CountSketch",
    "Gaussian",
    "Philox",
    "Rademacher",
    "RowBlocks",
    "RowSample",
    "SRCT",
    "SRHT",
    "Sketch",
    "SparseStack",
]

RECORDS: tuple[Any, ...] = (*_ops.OPS,)
