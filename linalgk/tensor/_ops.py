"""Primitives of the room: values of a Chebyshev-Tucker function at scattered points."""

import math
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Implementation, Op

REAL = ("float32", "float64")
# Numbers of a table of polynomials that the reference holds at a time.
TABLE = 1 << 22


def basis(x: Any, m: int) -> Any:
    """``T_0(x) ... T_{m-1}(x)`` for x (n,) of any library: (n, m)."""
    if isinstance(x, np.ndarray):
        t = np.empty((m, *x.shape), x.dtype)
        t[:1] = 1
        t[1:2] = x
        for k in range(2, m):
            np.multiply(x, t[k - 1], out=t[k])
            t[k] *= 2
            t[k] -= t[k - 2]
        return t.T
    xp = _xp.namespace(x)
    rows = [xp.ones_like(x), x][:m]
    while len(rows) < m:
        rows.append(2 * x * rows[-1] - rows[-2])
    return xp.stack(rows, axis=-1)


def evaluate(
    x: Any, core: Any, factors: tuple[Any, ...], slopes: tuple[Any, ...] = (), threads: int = 1
) -> Any:
    """``sum_k (core x_k U_k)_k T_k1(x_1) ... T_kd(x_d)`` at x (d, n) in [-1, 1]^d: (1, n).

    Core (r_1, ..., r_d), factors (m_k, r_k). With ``slopes``, the coefficients (m_k, r_k) of
    derivatives of the factors, their values follow: (1 + d, n), the rows after the first are the
    derivatives by each variable.
    """
    xp = _xp.namespace(x)
    _, n = x.shape
    step = max(256, TABLE // max(f.shape[0] for f in factors))
    if n <= step:
        return _block(xp, x, core, factors, slopes)
    parts = [_block(xp, x[:, i : i + step], core, factors, slopes) for i in range(0, n, step)]
    return xp.concat(parts, axis=1)


def _block(xp: Any, x: Any, core: Any, factors: Any, slopes: Any) -> Any:
    tables = [basis(x[k, :], f.shape[0]) for k, f in enumerate(factors)]
    found = [[t @ f for t, f in zip(tables, factors, strict=True)]]
    for k, slope in enumerate(slopes):
        found.append([*found[0][:k], tables[k] @ slope, *found[0][k + 1 :]])
    return xp.stack([_contract(xp, core, rows) for rows in found])


def _contract(xp: Any, core: Any, rows: list[Any]) -> Any:
    n = rows[0].shape[0]
    total = rows[0] @ xp.reshape(core, (core.shape[0], -1))
    for row in rows[1:]:
        r = row.shape[1]
        rest = math.prod(total.shape[1:]) // max(r, 1)
        total = xp.reshape(row[:, None, :] @ xp.reshape(total, (n, r, rest)), (n, rest))
    return total[:, 0]


def _sample(dtype: str) -> tuple[Any, ...]:
    generator = np.random.default_rng(0)
    ranks, sizes = (4, 3, 5), (9, 17, 12)
    x = generator.uniform(-1, 1, (3, 50)).astype(dtype)
    core = generator.standard_normal(ranks).astype(dtype)
    factors = [
        generator.standard_normal(shape).astype(dtype) for shape in zip(sizes, ranks, strict=True)
    ]
    return x, core, tuple(factors), tuple(f[::-1] for f in factors)


def _small(x: Any, _core: Any, factors: Any, slopes: Any = (), *_: Any) -> bool:
    """Whether the factors' values at 32 points fit a block's memory on a device."""
    size = 4 if _xp.dtype_name(x) == "float32" else 8
    return bool(32 * size * sum(f.shape[1] for f in factors) * (2 if slopes else 1) <= 90_000)


EVALUATE = Op(
    name="tucker_evaluate",
    room="tensor",
    reference=evaluate,
    implementations=(
        Implementation("cpu", REAL, "linalgk_kernels.cpu.tensor_evaluate", "tucker_evaluate"),
        Implementation(
            "cuda",
            REAL,
            "linalgk_kernels.cuda.tensor_evaluate",
            "tucker_evaluate",
            when=_small,
            rule="ranks whose sum is at most 350 (float64; half of that with derivatives)",
        ),
    ),
    sample=_sample,
)
