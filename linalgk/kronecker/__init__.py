"""Kronecker products and their algebra."""

from typing import Any

from linalgk._dispatch import Function
from linalgk.kronecker import (
    _brauer,
    _gaunt,
    _khatri_rao,
    _kron,
    _kronsum,
    _monarch,
    _mttkrp,
    _nearest,
    _product,
    _projection,
)
from linalgk.kronecker._adi import LowRankSolution
from linalgk.kronecker._brauer import Diagram, brauer_apply, brauer_diagrams
from linalgk.kronecker._derivative import kron_matmul_jvp, kron_matmul_vjp
from linalgk.kronecker._diagonal import KronPlusDiagonal
from linalgk.kronecker._gaunt import gaunt_product
from linalgk.kronecker._khatri_rao import khatri_rao, khatri_rao_matmul
from linalgk.kronecker._kron import Kron
from linalgk.kronecker._kronsum import KronSum
from linalgk.kronecker._masked import Masked
from linalgk.kronecker._monarch import Monarch, monarch_project
from linalgk.kronecker._mttkrp import mttkrp
from linalgk.kronecker._mttkrp_ops import MTTKRP
from linalgk.kronecker._nearest import nearest_kron
from linalgk.kronecker._ops import KRON
from linalgk.kronecker._product import kron_matmul
from linalgk.kronecker._projection import KronProjection
from linalgk.kronecker._terms import KronTerms

__all__ = [
    "Diagram",
    "Kron",
    "KronPlusDiagonal",
    "KronProjection",
    "KronSum",
    "KronTerms",
    "LowRankSolution",
    "Masked",
    "Monarch",
    "brauer_apply",
    "brauer_diagrams",
    "gaunt_product",
    "khatri_rao",
    "khatri_rao_matmul",
    "kron_matmul",
    "kron_matmul_jvp",
    "kron_matmul_vjp",
    "monarch_project",
    "mttkrp",
    "nearest_kron",
]

_DENSE = ("numpy", "cupy", "torch", "jax", "array_api")


def _record(
    function: Any, sample: Any, explain: Any, *, methods: tuple[str, ...] = (),
    ops: tuple[Any, ...] = (), accepts: tuple[str, ...] = _DENSE, gradient: bool = False,
    rng: bool = False, plan: Any = None,
) -> Function:  # fmt: skip
    return Function(
        name=function.__name__, function=function, room="kronecker", methods=methods, ops=ops,
        accepts=accepts, gradient=gradient, jit=gradient, rng=rng, status="provisional",
        since="0.1", sample=sample, explain=explain, plan=plan,
    )  # fmt: skip


RECORDS: tuple[Any, ...] = (
    KRON,
    MTTKRP,
    _record(
        kron_matmul, _product.sample, _product.explain_kron_matmul, methods=("modes",),
        ops=(KRON,), gradient=True, plan=_product.plan_kron_matmul,
    ),
    _record(
        Kron, _kron.sample, _kron.explain_kron, methods=("cholesky", "lu", "svd"), ops=(KRON,),
        gradient=True,
    ),
    _record(
        KronSum, _kronsum.sample, _kronsum.explain_kronsum,
        methods=("eigh", "sylvester", "schur"),
    ),
    _record(
        nearest_kron, _nearest.sample, _nearest.explain_nearest_kron,
        methods=_nearest.METHODS[1:],
        accepts=(*_DENSE, "scipy.sparse", "LinearOperator", "iterable"), rng=True,
    ),
    _record(
        khatri_rao, _khatri_rao.sample_khatri_rao, _khatri_rao.explain_khatri_rao,
        methods=("form",),
    ),
    _record(
        khatri_rao_matmul, _khatri_rao.sample_khatri_rao_matmul,
        _khatri_rao.explain_khatri_rao_matmul, methods=_khatri_rao.METHODS, ops=(MTTKRP,),
    ),
    _record(
        mttkrp, _mttkrp.sample, _mttkrp.explain_mttkrp, methods=_mttkrp.METHODS, ops=(MTTKRP,)
    ),
    _record(Monarch, _monarch.sample_monarch, _monarch.explain_monarch, methods=("blocks",)),
    _record(
        monarch_project, _monarch.sample_project, _monarch.explain_monarch_project,
        methods=_monarch.METHODS[1:],
    ),
    _record(
        KronProjection, _projection.sample, _projection.explain_projection,
        methods=_projection.FORMS,
    ),
    _record(
        brauer_apply, _brauer.sample, _brauer.explain_brauer_apply, methods=_brauer.METHODS
    ),
    _record(
        gaunt_product, _gaunt.sample, _gaunt.explain_gaunt_product, methods=_gaunt.METHODS[1:]
    ),
)  # fmt: skip
