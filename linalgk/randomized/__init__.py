"""Randomized solvers: least squares, low rank, pseudoinverses, traces, each with its error."""

from typing import Any

from linalgk._dispatch import Function
from linalgk.randomized import (
    _cur,
    _lstsq,
    _pinv,
    _pinv_cr,
    _project,
    _psd,
    _qr,
    _quadrature,
    _rpcholesky,
    _skeleton,
    _streaming,
    _svd,
    _trace,
)
from linalgk.randomized._cur import cur
from linalgk.randomized._estimate import Estimate
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._lstsq import lstsq
from linalgk.randomized._lstsq_result import LeastSquares
from linalgk.randomized._pinv import pinv
from linalgk.randomized._pinv_cr import pinv_cr
from linalgk.randomized._project import sketch_project
from linalgk.randomized._psd import eigh_lowrank
from linalgk.randomized._qr import cholqr, qr_pivoted
from linalgk.randomized._quadrature import estimate_logdet, estimate_quad_form
from linalgk.randomized._rpcholesky import rpcholesky
from linalgk.randomized._skeleton import interp_decomp
from linalgk.randomized._streaming import StreamingSVD
from linalgk.randomized._svd import svd_lowrank
from linalgk.randomized._trace import estimate_diagonal, estimate_trace

__all__ = [
    "Estimate",
    "LeastSquares",
    "RandomInfo",
    "StreamingSVD",
    "cholqr",
    "cur",
    "eigh_lowrank",
    "estimate_diagonal",
    "estimate_logdet",
    "estimate_quad_form",
    "estimate_trace",
    "interp_decomp",
    "lstsq",
    "pinv",
    "pinv_cr",
    "qr_pivoted",
    "rpcholesky",
    "sketch_project",
    "svd_lowrank",
]

_DENSE = ("numpy", "cupy", "torch", "jax", "array_api")
_PRODUCTS = (*_DENSE, "scipy.sparse", "LinearOperator")
_PIECES = (*_PRODUCTS, "RowBlocks", "dask")


def _record(
    function: Any, methods: tuple[str, ...], accepts: tuple[str, ...], sample: Any, explain: Any,
    *, gradient: bool = False,
) -> Function:  # fmt: skip
    return Function(
        name=function.__name__, function=function, room="randomized",
        methods=tuple(m for m in methods if m != "auto"), ops=(), accepts=accepts,
        gradient=gradient, jit=gradient, rng=True, status="provisional", since="0.1",
        sample=sample, explain=explain,
    )  # fmt: skip


RECORDS: tuple[Any, ...] = (
    _record(lstsq, _lstsq.METHODS, _PIECES, _lstsq.sample, _lstsq.explain_lstsq),
    _record(
        sketch_project,
        _project.METHODS,
        (*_DENSE, "scipy.sparse"),
        _project.sample,
        _project.explain_project,
    ),
    _record(svd_lowrank, _svd.METHODS, _PIECES, _svd.sample, _svd.explain_svd),
    _record(eigh_lowrank, _psd.METHODS, _PRODUCTS, _psd.sample, _psd.explain_eigh_lowrank),
    _record(
        rpcholesky,
        _rpcholesky.METHODS,
        (*_PRODUCTS, "callable"),
        _rpcholesky.sample,
        _rpcholesky.explain_rpcholesky,
    ),
    _record(
        StreamingSVD,
        _streaming.METHODS,
        (*_DENSE, "scipy.sparse"),
        _streaming.sample,
        _streaming.explain_streaming,
    ),
    _record(
        interp_decomp,
        _skeleton.METHODS,
        _PRODUCTS,
        _skeleton.sample,
        _skeleton.explain_interp_decomp,
    ),
    _record(cur, _cur.METHODS, _PRODUCTS, _skeleton.sample, _cur.explain_cur),
    _record(qr_pivoted, _qr.PIVOTED_METHODS, _DENSE, _qr.sample, _qr.explain_qr_pivoted),
    _record(cholqr, _qr.METHODS, _DENSE, _qr.sample, _qr.explain_cholqr),
    _record(pinv, _pinv.METHODS, _PRODUCTS, _pinv.sample, _pinv.explain_pinv, gradient=True),
    _record(
        pinv_cr,
        _pinv_cr.FORMULAS,
        (*_DENSE, "scipy.sparse"),
        _pinv_cr.sample_cr,
        _pinv_cr.explain_pinv_cr,
    ),
    _record(estimate_trace, _trace.METHODS, _PRODUCTS, _trace.sample, _trace.explain_trace),
    _record(
        estimate_diagonal,
        _trace.DIAGONAL_METHODS,
        _PRODUCTS,
        _trace.sample,
        _trace.explain_diagonal,
    ),
    _record(
        estimate_logdet,
        _quadrature.METHODS,
        _PRODUCTS,
        _quadrature.sample,
        _quadrature.explain_logdet,
    ),
    _record(
        estimate_quad_form,
        _quadrature.QUAD_FORM_METHODS,
        _PRODUCTS,
        _quadrature.sample_quad_form,
        _quadrature.explain_quad_form,
    ),
)
