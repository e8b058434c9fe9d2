"""Primitives of the Walsh-Hadamard transform; ``threads`` is for kernels."""

from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Implementation, Op

ALL = ("float32", "float64", "complex64", "complex128")


def fwht(x: Any, scale: float = 1.0, threads: int = 1) -> Any:  # noqa: ARG001
    """Walsh-Hadamard transform of x (outer, n, inner) along its second axis, n a power of two.

    Stages of ascending stride h = 1, 2, 4, ...: ``(x, y) -> (x + y, x - y)`` for entries h apart;
    the scale, a real number, is multiplied at the end.
    """
    return butterflies(_xp.namespace(x), x, scale)


def butterflies(xp: Any, x: Any, scale: float) -> Any:
    """`fwht` in words that PyTorch itself has, too."""
    outer, n, inner = x.shape
    y, h = x, 1
    while h < n:
        y = xp.reshape(y, (outer, n // (2 * h), 2, h * inner))
        first, second = y[:, :, 0, :], y[:, :, 1, :]
        y = xp.stack([first + second, first - second], axis=2)
        h *= 2
    y = xp.reshape(y, (outer, n, inner))
    return y if scale == 1 else y * scale


def srht(
    x: Any, flips: Any, picks: Any, outs: Any, power: int, threads: int = 1, total: Any = None
) -> Any:
    """``total`` plus rows ``picks`` of the transform of a block x (rows, columns) with signs.

    x is padded with zeros to ``2^power`` rows. flips (rows,) and outs (k,) are uint8 and have a one
    where a row is negated, before the transform and after it; picks (k,) are int64 and may repeat.
    Kernels take x in C and in F order, and write to ``total`` (k, columns), which they return.
    """
    xp = _xp.namespace(x)
    rows, columns = x.shape
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(x)])

    def signed(values: Any, bits: Any) -> Any:
        return values * (1 - 2 * xp.astype(bits, real))[:, None]

    where = {} if xp is np else {"device": _xp._compat("array_api_compat").device(x)}
    padding = xp.zeros(((1 << power) - rows, columns), dtype=x.dtype, **where)
    padded = xp.concat([signed(x, flips), padding])
    part = signed(xp.take(FWHT(padded[None, :, :], 1.0, threads)[0, :, :], picks, axis=0), outs)
    return part if total is None else total + part


def _implementations(symbol: str) -> tuple[Implementation, ...]:
    return tuple(
        Implementation(where, ALL, f"linalgk_kernels.{where}.sketch_hadamard", symbol)
        for where in ("cpu", "cuda")
    )


def _data(dtype: str, *shape: int) -> Any:
    x = np.random.default_rng(shape).standard_normal((*shape, 2))
    return (x @ [1, 1j] if dtype in _xp.COMPLEX else x[..., 0]).astype(dtype)


def _sample_srht(dtype: str) -> tuple[Any, ...]:
    gen = np.random.default_rng(5)
    flips, outs = (gen.integers(0, 2, size).astype(np.uint8) for size in (19, 11))
    return _data(dtype, 19, 5), flips, gen.integers(0, 64, 11), outs, 6, 1


FWHT = Op(
    "fwht", "sketch", fwht, _implementations("fwht"),
    lambda dtype: (_data(dtype, 3, 16, 5), 0.25, 1),
)  # fmt: skip
SRHT = Op("srht", "sketch", srht, _implementations("srht"), _sample_srht)
OPS = (FWHT, SRHT)
