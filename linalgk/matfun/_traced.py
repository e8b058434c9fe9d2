"""Matrix functions of arrays whose values are not known yet: JAX under ``jit`` and ``vmap``.

The same algorithms without a look at any value: no member is routed by what it is, nothing is
raised; members that fail hold NaN, and `Info` says which.
"""

import functools
import math
import sys
from typing import Any

from linalgk import _results, _validate, _xp
from linalgk.matfun import _ops, _static
from linalgk.matfun._spectral import Call, Scalar

# Methods whose number of steps does not follow from the values.
FIXED = ("eigh", "minimax", "newton_schulz", "taylor")


def compute(name: str, x: Any, call: Call, damp: Any, rel_damp: Any, return_info: bool) -> Any:
    """The function of x, shape (..., n, n), and an `Info` if asked for."""
    function, n = call.function, x.shape[-1]
    method = "eigh" if call.method == "auto" else call.method
    small = function.name == "power" and function.power.denominator == 1
    if call.assume_a is None:
        msg = f"{name}: assume_a must be given under jax.jit and jax.vmap, where no value is known"
        raise ValueError(msg)
    if (call.assume_a == "gen" or method not in FIXED) and not small:
        msg = (
            f"{name}: under jax.jit and jax.vmap only methods with a fixed number of steps, "
            f"{', '.join(FIXED)}, for Hermitian matrices (assume_a='pos' or 'her')"
        )
        raise ValueError(msg)
    xp = _xp.namespace(x)
    batch = tuple(x.shape[:-2])
    a = xp.reshape(x, (math.prod(batch), n, n))
    if call.assume_a != "gen":
        a = 0.5 * (a + _ops.adjoint(a))
    a = _static.damped(a, damp)
    if function.name == "power" and function.power.denominator == 1 and call.assume_a == "gen":
        result, good, steps, method = _static.integer(a, function), None, 0, "products"
    elif method == "eigh" and function.name != "sign":
        a, result, good = jax_face().by_eigenvectors(a, call, rel_damp)
        steps = 0
    elif method == "eigh":
        a, result, good = _static.by_eigenvectors(a, call, rel_damp)
        steps = 0
    else:
        a, result, steps = _static.by_steps(a, call, method, rel_damp)
        good = None
    result, good = _static.accepted(a, result, good)
    if function.name == "sign":
        result = jax_face().refused(result, name)
    answer = xp.reshape(result, tuple(x.shape))
    if not return_info:
        return answer
    a, result = fixed((a, result))
    return answer, _static.info(a, result, good, function, method, steps, batch)


@functools.cache
def prepare() -> None:
    """Let JAX take results apart and put them together again."""
    arrays = ["iterations", "converged", "residual", "error_estimate"]
    tree_util = sys.modules["jax"].tree_util
    tree_util.register_dataclass(_results.Info, data_fields=arrays, meta_fields=["method"])


def jax_face() -> Any:
    """JAX's own face: what its transformations need."""
    from linalgk.interop import _jax

    return _jax


def fixed(arrays: Any) -> Any:
    """The same values, without derivatives."""
    return sys.modules["jax"].lax.stop_gradient(arrays)


def constant(x: Any) -> Any:
    """The value, out of sight of derivatives."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and isinstance(x, torch.Tensor):
        return x.detach()
    return fixed(x) if jax is not None and isinstance(x, jax.core.Tracer) else x


def options(
    call_options: dict[str, Any], function: Scalar, methods: tuple[str, ...], n: int,
    batch: tuple[int, ...], checked: Any,
) -> Call:  # fmt: skip
    """The options of a call whose damping may be traced too."""
    if call_options.get("out") is not None:
        msg = "out: JAX arrays cannot be written to"
        raise TypeError(msg)
    _validate.on_fail(call_options.get("on_fail"))
    call: Call = checked(
        function, methods, call_options.get("assume_a"), call_options.get("method", "auto"),
        call_options.get("tol"), call_options.get("steps"), 0, call_options.get("rcond"), batch, n,
    )  # fmt: skip
    return call


def torch_face(*arrays: Any) -> Any:
    """PyTorch's own face, if its tensors are differentiated, batched or compiled."""
    torch = sys.modules.get("torch")
    if torch is None or not any(isinstance(x, torch.Tensor) for x in arrays):
        return None
    from linalgk.interop import _torch

    return _torch if _torch.wants(*arrays) else None


def face(*arrays: Any) -> Any:
    """The face of PyTorch or JAX, if their arrays ask for it."""
    jax = sys.modules.get("jax")
    if jax is not None and any(isinstance(x, jax.core.Tracer) for x in arrays):
        prepare()
        return jax_face()
    return torch_face(*arrays)


def is_compiled(a: Any) -> bool:
    """Whether ``torch.compile`` is looking."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(a, torch.Tensor) and torch.compiler.is_compiling()
