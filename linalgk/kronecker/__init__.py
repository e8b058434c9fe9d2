"""Kronecker products and their algebra."""

from typing import Any

from linalgk._dispatch import Function
from linalgk.kronecker import _product
from linalgk.kronecker._ops import KRON
from linalgk.kronecker._product import kron_matmul

__all__ = ["kron_matmul"]

_DENSE = ("numpy", "cupy", "torch", "jax", "array_api")


def _record(
    function: Any, sample: Any, explain: Any, *, methods: tuple[str, ...] = (),
    ops: tuple[Any, ...] = (KRON,), accepts: tuple[str, ...] = _DENSE, gradient: bool = False,
    rng: bool = False, plan: Any = None,
) -> Function:  # fmt: skip
    return Function(
        name=function.__name__, function=function, room="kronecker", methods=methods, ops=ops,
        accepts=accepts, gradient=gradient, jit=gradient, rng=rng, status="provisional",
        since="0.1", sample=sample, explain=explain, plan=plan,
    )  # fmt: skip


RECORDS: tuple[Any, ...] = (
    KRON,
    _record(
        kron_matmul, _product.sample, _product.explain_kron_matmul, methods=("modes",),
        gradient=True, plan=_product.plan_kron_matmul,
    ),
)  # fmt: skip
