"""The product below the door: factors and data that have entered, in one dtype and library."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from linalgk import _config, _lag, _xp
from linalgk.kronecker._ops import KRON


def multiply(factors: Sequence[Any], x: Any, *, side: str = "left", out: Any = None) -> Any:
    """``K x`` for x (..., K, n), or ``x K`` for x (..., m, K); factors (..., p_i, q_i).

    Batch axes broadcast as those of ``matmul``. The result has the memory order of x where that is
    C or Fortran order.
    """
    xp = _xp.namespace(x)
    if side == "right":
        factors = [xp.matrix_transpose(f) for f in factors]
    batches = [tuple(f.shape[:-2]) for f in factors]
    batch = tuple(x.shape[:-2])
    p = math.prod(f.shape[-2] for f in factors)
    q = math.prod(f.shape[-1] for f in factors)
    if not any(batches):
        full, c = batch, 1
        factors = [_lag.contiguous(f[None, ...]) for f in factors]
    else:
        own = np.broadcast_shapes(*batches)
        full = np.broadcast_shapes(own, batch)
        c = math.prod(full)
        factors = [
            _lag.contiguous(
                xp.reshape(xp.broadcast_to(f, (*full, *f.shape[-2:])), (c, *f.shape[-2:]))
            )
            for f in factors
        ]
        if full != batch:
            x = xp.broadcast_to(x, (*full, *x.shape[-2:]))
    rows, columns = (int(n) for n in x.shape[-2:])
    turned = False
    if side == "left":
        flat, shape = (math.prod(full), q, columns), (*full, p, columns)
    elif not any(batches) and _is_turned(x):
        turned, x = True, x.T
        flat, shape = (1, q, rows), (p, rows)
    else:
        flat, shape = (math.prod(full) * rows, q, 1), (*full, rows, p)
    if 0 in flat or p == 0:
        y = xp.zeros(shape, dtype=x.dtype, **_where(x))
    else:
        target = None
        if out is not None and not turned and _is_plain(out):
            target = xp.reshape(out, (flat[0], p, flat[2]))
        x = xp.reshape(_lag.contiguous(x), flat)
        y = KRON(x, tuple(factors), _config.num_threads(), target)
        if target is not None and y is target:
            return out
        y = xp.reshape(y, shape)
    return y.T if turned else y


def _is_turned(x: Any) -> bool:
    """Whether a matrix lies in memory by columns."""
    return (
        isinstance(x, np.ndarray)
        and x.ndim == 2
        and x.flags.f_contiguous
        and not x.flags.c_contiguous
    )


def _is_plain(x: Any) -> bool:
    # the emulated device of the tests has no flags
    known = isinstance(x, np.ndarray) or (_xp.is_cuda(x) and hasattr(x, "flags"))
    return known and x.flags.c_contiguous


def _where(x: Any) -> dict[str, Any]:
    """The device of an array, as its library takes it."""
    return {} if isinstance(x, np.ndarray) else {"device": x.device}
