"""linalgk: numerical linear algebra kernels for NumPy, PyTorch, JAX and CuPy arrays."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from linalgk import errors, grad, sketch, testing, typing
    from linalgk._config import config_context
    from linalgk._dispatch import explain, functions, ops
    from linalgk._plan import ArraySpec, foreach, plan
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

# Where each public name lives; it is imported on first use, so that `import linalgk` costs
# little more than NumPy.
_HOME = {
    "ArraySpec": "linalgk._plan",
    "InverseRoot": "linalgk.matfun",
    "RowBlocks": "linalgk.sketch",
    "bures_barycenter": "linalgk.matfun",
    "bures_distance": "linalgk.matfun",
    "bures_map": "linalgk.matfun",
    "config_context": "linalgk._config",
    "dpp_sample": "linalgk.sketch",
    "errors": None,
    "explain": "linalgk._dispatch",
    "foreach": "linalgk._plan",
    "functions": "linalgk._dispatch",
    "fwht": "linalgk.sketch",
    "grad": None,
    "inv_root": "linalgk.matfun",
    "invsqrtm": "linalgk.matfun",
    "leverage_scores": "linalgk.sketch",
    "lewis_weights": "linalgk.sketch",
    "logm": "linalgk.matfun",
    "minimax_schedule": "linalgk.matfun",
    "ops": "linalgk._dispatch",
    # not in __all__: it imports torch
    "optim": None,
    "orthogonalize": "linalgk.matfun",
    "plan": "linalgk._plan",
    "polar": "linalgk.matfun",
    "powm": "linalgk.matfun",
    "ridge": "linalgk.sketch",
    "sample_rows": "linalgk.sketch",
    "show_config": "linalgk._show",
    "signm": "linalgk.matfun",
    "sketch": None,
    "solve_lyapunov": "linalgk.matfun",
    "solve_sylvester": "linalgk.matfun",
    "sqrtm": "linalgk.matfun",
    "testing": None,
    "typing": None,
    "volume_sample": "linalgk.sketch",
}

__all__ = [
    "ArraySpec",
    "InverseRoot",
    "RowBlocks",
    "bures_barycenter",
    "bures_distance",
    "bures_map",
    "config_context",
    "dpp_sample",
    "errors",
    "explain",
    "foreach",
    "functions",
    "fwht",
    "grad",
    "inv_root",
    "invsqrtm",
    "leverage_scores",
    "lewis_weights",
    "logm",
    "minimax_schedule",
    "ops",
    "orthogonalize",
    "plan",
    "polar",
    "powm",
    "ridge",
    "sample_rows",
    "show_config",
    "signm",
    "sketch",
    "solve_lyapunov",
    "solve_sylvester",
    "sqrtm",
    "testing",
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
