"""Primitives of the room: the product with a Kronecker product, mode by mode."""

import math
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Implementation, Op

ALL = ("float32", "float64", "complex64", "complex128")


def kron_matmul(x: Any, factors: tuple[Any, ...], threads: int = 1, out: Any = None) -> Any:
    """``(F_1 kron ... kron F_N) x_j`` for x (b, q_1...q_N, a) and factors (c, p_i, q_i), c | b.

    The member ``j`` of x meets the set ``j // (b / c)`` of factors. Modes go in turn: ``F_i`` times
    the (q_i, rest) matrices that x is a stack of. A kernel may write to ``out`` and return it.
    """
    xp = _xp.namespace(x)
    b, a = x.shape[0], x.shape[-1]
    sizes = [f.shape[-1] for f in factors]
    c = factors[0].shape[0]
    for i in order([(f.shape[-2], f.shape[-1]) for f in factors]):
        f = factors[i]
        before, after = math.prod(sizes[:i]), math.prod(sizes[i + 1 :]) * a
        left = xp.reshape(x, (c, b // max(c, 1) * before, sizes[i], after))
        x = xp.matmul(f[:, None, :, :], left)
        sizes[i] = f.shape[-2]
    return xp.reshape(x, (b, math.prod(sizes), a))


def order(shapes: list[tuple[int, int]]) -> list[int]:
    """Modes in the order of fewest operations, for shapes (p, q) without zeros.

    Applying i and then j costs ``p_i + p_i p_j / q_i`` for each number, so that i is first where
    ``1/q_i - 1/p_i`` is smaller; among equals the last is first.
    """

    def key(i: int) -> tuple[float, int]:
        p, q = shapes[i]
        return (1.0 / max(q, 1) - 1.0 / max(p, 1), -i)

    return sorted(range(len(shapes)), key=key)


def _sample(dtype: str) -> tuple[Any, ...]:
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        z = generator.standard_normal(shape)
        return (z + 1j * z[::-1] if dtype in _xp.COMPLEX else z).astype(dtype)

    shapes = [(3, 2), (8, 8), (5, 4)]
    return draw(2, 64, 3), tuple(draw(1, *s) for s in shapes), 1


KRON = Op(
    name="kron_matmul",
    room="kronecker",
    reference=kron_matmul,
    implementations=(
        Implementation("cpu", ALL, "linalgk_kernels.cpu.kronecker_product", "kron_matmul"),
        Implementation("cuda", ALL, "linalgk_kernels.cuda.kronecker_product", "kron_matmul"),
    ),
    sample=_sample,
)
