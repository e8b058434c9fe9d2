"""The primitive of contractions with the matrices of all modes but one."""

from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._dispatch import Implementation, Op


def mttkrp_block(
    x: Any, a: Any, b: Any, c: Any, wants: tuple[bool, bool, bool]
) -> tuple[Any, Any, Any]:
    """A tensor (i, j, q), as a matrix (i j, q) of any strides, contracted for up to three modes.

    With a (i, R), b (j, R) and c (q, R): sums over the other two modes, (i, R), (j, R) and (q, R),
    None in the place of one that ``wants`` has not. A matrix that is not needed may be None.
    """
    xp = _xp.namespace(x)
    rank = int((a if b is None else b).shape[1])
    n = int(x.shape[0]) // max(1, int(a.shape[0])) if b is None else int(b.shape[0])
    m = int(x.shape[0]) // max(1, n) if a is None else int(a.shape[0])
    by_a = by_b = by_c = None
    if wants[0] or wants[1]:
        t = xp.reshape(xp.matmul(x, c), (m, n, rank))
        by_a = xp.sum(t * b[None, :, :], axis=1) if wants[0] else None
        by_b = xp.sum(t * a[:, None, :], axis=0) if wants[1] else None
    if wants[2]:
        joined = xp.reshape(a[:, None, :] * b[None, :, :], (m * n, rank))
        by_c = xp.matmul(xp.matrix_transpose(x), joined)
    return by_a, by_b, by_c


def _several(_x: Any, a: Any, b: Any, *_: Any) -> bool:
    return bool((a if b is None else b).shape[1] > 1)


def _sample(dtype: str) -> tuple[Any, ...]:
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        z = generator.standard_normal((*shape, 2))
        return (z @ [1, 1j] if dtype in _xp.COMPLEX else z[..., 0]).astype(dtype)

    return draw(12, 7), draw(4, 5), draw(3, 5), draw(7, 5), (True, True, True)


MTTKRP = Op(
    name="mttkrp_block",
    room="kronecker",
    reference=mttkrp_block,
    implementations=(
        Implementation(
            "cpu",
            ("float32", "float64", "complex64", "complex128"),
            "linalgk_kernels.cpu.kronecker_mttkrp",
            "mttkrp_block",
            when=_several,
            rule="two columns or more: BLAS is faster for vectors",
        ),
    ),
    sample=_sample,
)
