"""linalgk: numerical linear algebra kernels for NumPy, PyTorch, JAX and CuPy arrays."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from linalgk import errors, grad, sketch, testing, typing
    from linalgk._config import config_context
    from linalgk._dispatch import explain, functions, ops
    from linalgk._plan import ArraySpec, foreach, plan
    from linalgk.kronecker import (
        Kron,
        KronProjection,
        KronSum,
        Monarch,
        brauer_apply,
        gaunt_product,
        khatri_rao,
        khatri_rao_matmul,
        kron_matmul,
        monarch_project,
        mttkrp,
        nearest_kron,
    )
    from linalgk.matfun import (
        InverseRoot,
        bures_barycenter,
        bures_distance,
        bures_map,
        inv_root,
        invsqrtm,
        logm,
        minimax_schedule,
        orthogonalize,
        polar,
        powm,
        signm,
        solve_lyapunov,
        solve_sylvester,
        sqrtm,
    )
    from linalgk.randomized import (
        Estimate,
        StreamingSVD,
        cholqr,
        cur,
        eigh_lowrank,
        estimate_diagonal,
        estimate_logdet,
        estimate_quad_form,
        estimate_trace,
        interp_decomp,
        lstsq,
        pinv,
        pinv_cr,
        qr_pivoted,
        rpcholesky,
        sketch_project,
        svd_lowrank,
    )
    from linalgk.sketch import (
        RowBlocks,
        dpp_sample,
        fwht,
        leverage_scores,
        lewis_weights,
        ridge,
        sample_rows,
        volume_sample,
    )
    from linalgk.tensor import (
        CanonicalTensor,
        ChebTucker,
        TuckerTensor,
        chebtucker,
        gaussian_sum,
        longrange_potential,
        tucker,
    )

# Where each public name lives; it is imported on first use, so that `import linalgk` costs
# little more than NumPy.
_HOME = {
    "ArraySpec": "linalgk._plan",
    "CanonicalTensor": "linalgk.tensor",
    "ChebTucker": "linalgk.tensor",
    "Estimate": "linalgk.randomized",
    "InverseRoot": "linalgk.matfun",
    "Kron": "linalgk.kronecker",
    "KronProjection": "linalgk.kronecker",
    "KronSum": "linalgk.kronecker",
    "Monarch": "linalgk.kronecker",
    "RowBlocks": "linalgk.sketch",
    "StreamingSVD": "linalgk.randomized",
    "TuckerTensor": "linalgk.tensor",
    "brauer_apply": "linalgk.kronecker",
    "bures_barycenter": "linalgk.matfun",
    "bures_distance": "linalgk.matfun",
    "bures_map": "linalgk.matfun",
    "chebtucker": "linalgk.tensor",
    "cholqr": "linalgk.randomized",
    "config_context": "linalgk._config",
    "cur": "linalgk.randomized",
    "dpp_sample": "linalgk.sketch",
    "eigh_lowrank": "linalgk.randomized",
    "errors": None,
    "estimate_diagonal": "linalgk.randomized",
    "estimate_logdet": "linalgk.randomized",
    "estimate_quad_form": "linalgk.randomized",
    "estimate_trace": "linalgk.randomized",
    "explain": "linalgk._dispatch",
    "foreach": "linalgk._plan",
    "functions": "linalgk._dispatch",
    "fwht": "linalgk.sketch",
    "gaunt_product": "linalgk.kronecker",
    "gaussian_sum": "linalgk.tensor",
    "grad": None,
    "interp_decomp": "linalgk.randomized",
    "inv_root": "linalgk.matfun",
    "invsqrtm": "linalgk.matfun",
    "khatri_rao": "linalgk.kronecker",
    "khatri_rao_matmul": "linalgk.kronecker",
    "kron_matmul": "linalgk.kronecker",
    "leverage_scores": "linalgk.sketch",
    "lewis_weights": "linalgk.sketch",
    "logm": "linalgk.matfun",
    "longrange_potential": "linalgk.tensor",
    "lstsq": "linalgk.randomized",
    "minimax_schedule": "linalgk.matfun",
    "monarch_project": "linalgk.kronecker",
    "mttkrp": "linalgk.kronecker",
    "nearest_kron": "linalgk.kronecker",
    "ops": "linalgk._dispatch",
    # not in __all__: it imports torch
    "optim": None,
    "orthogonalize": "linalgk.matfun",
    "pinv": "linalgk.randomized",
    "pinv_cr": "linalgk.randomized",
    "plan": "linalgk._plan",
    "polar": "linalgk.matfun",
    "powm": "linalgk.matfun",
    "qr_pivoted": "linalgk.randomized",
    "ridge": "linalgk.sketch",
    "rpcholesky": "linalgk.randomized",
    "sample_rows": "linalgk.sketch",
    "show_config": "linalgk._show",
    "signm": "linalgk.matfun",
    "sketch": None,
    "sketch_project": "linalgk.randomized",
    "solve_lyapunov": "linalgk.matfun",
    "solve_sylvester": "linalgk.matfun",
    "sqrtm": "linalgk.matfun",
    "svd_lowrank": "linalgk.randomized",
    "testing": None,
    "tucker": "linalgk.tensor",
    "typing": None,
    "volume_sample": "linalgk.sketch",
}

__all__ = [
    "ArraySpec",
    "CanonicalTensor",
    "ChebTucker",
    "Estimate",
    "InverseRoot",
    "Kron",
    "KronProjection",
    "KronSum",
    "Monarch",
    "RowBlocks",
    "StreamingSVD",
    "TuckerTensor",
    "brauer_apply",
    "bures_barycenter",
    "bures_distance",
    "bures_map",
    "chebtucker",
    "cholqr",
    "config_context",
    "cur",
    "dpp_sample",
    "eigh_lowrank",
    "errors",
    "estimate_diagonal",
    "estimate_logdet",
    "estimate_quad_form",
    "estimate_trace",
    "explain",
    "foreach",
    "functions",
    "fwht",
    "gaunt_product",
    "gaussian_sum",
    "grad",
    "interp_decomp",
    "inv_root",
    "invsqrtm",
    "khatri_rao",
    "khatri_rao_matmul",
    "kron_matmul",
    "leverage_scores",
    "lewis_weights",
    "logm",
    "longrange_potential",
    "lstsq",
    "minimax_schedule",
    "monarch_project",
    "mttkrp",
    "nearest_kron",
    "ops",
    "orthogonalize",
    "pinv",
    "pinv_cr",
    "plan",
    "polar",
    "powm",
    "qr_pivoted",
    "ridge",
    "rpcholesky",
    "sample_rows",
    "show_config",
    "signm",
    "sketch",
    "sketch_project",
    "solve_lyapunov",
    "solve_sylvester",
    "sqrtm",
    "svd_lowrank",
    "testing",
    "tucker",
    "typing",
    "volume_sample",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        msg = f"module 'linalgk' has no attribute {name!r}"
        raise AttributeError(msg)
    home = _HOME[name]
    value = (
        importlib.import_module(f"linalgk.{name}")
        if home is None
        else getattr(importlib.import_module(home), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names."""
    return sorted([*__all__, "__version__"])
