"""What the factors of a structured matrix are: symmetric or skew, of one sign, of equal norms.

``R(A)`` of a real symmetric A maps symmetric matrices to symmetric ones and skew ones to skew ones,
so that each factor pair is of one kind; of a complex Hermitian A all factors are Hermitian. Columns
are matrices (p, p) written row by row.
"""

import math
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker._rearranged import Rearranged
from linalgk.kronecker._triplets import EQUAL


def turned(xp: Any, x: Any, size: int) -> Any:
    """Adjoints of the columns' matrices."""
    y = xp.permute_dims(xp.reshape(x, (size, size, -1)), (1, 0, 2))
    y = xp.reshape(y, (size * size, -1))
    return xp.conj(y) if _xp.dtype_name(x) in _xp.COMPLEX else y


def part(xp: Any, x: Any, size: int, sign: int) -> Any:
    """The Hermitian part (sign 1) or the skew part (-1), to the bit."""
    y = turned(xp, x, size)
    return (x + y if sign > 0 else x - y) * 0.5


def seed_vector(xp: Any, like: Any, shape: tuple[int, int]) -> Any:
    """``I + 1 1^T / p`` of a square shape, else ones, as a column of norm one.

    It is positive definite and positive: power steps of a matrix that is semidefinite, or
    nonnegative, keep it so.
    """
    p, q = shape
    s = np.full((p, q), 1.0 / max(1, p) if p == q else 1.0) + (np.eye(p) if p == q else 0.0)
    s = (s / np.linalg.norm(s)).reshape(-1, 1).astype(_xp.dtype_name(like))
    return _xp.from_numpy(s, xp, like=like)


def start(a: Rearranged, k: int, normals: Any) -> Any:
    """``k`` vectors (n, k) to begin with: nearly `seed_vector`, and random ones.

    ``normals`` are k vectors on the host. What the first lacks is brought by one percent of noise.
    """
    n = a.shape[1]
    random = a.device(normals / math.sqrt(max(1, n)))
    first = seed_vector(a.xp, a.like, a.right) + 0.01 * random[:, :1]
    return first if k == 1 else a.xp.concat([first, random[:, 1:k]], axis=1)


def hermitian_pairs(a: Rearranged, v: Any, k: int, signs: tuple[int, ...]) -> tuple[Any, list[int]]:
    """The k best vectors of one kind each in the span of the columns v (n, c), and their kinds.

    The halves of a singular vector that lie in different kinds are both singular vectors, or zero.
    """
    found: list[tuple[float, int, Any]] = []
    if a.dtype in _xp.COMPLEX:
        size = a.right[0]
        whole = a.host(v)
        both = np.concatenate([whole, 1j * whole], axis=1)
        basis = _orthonormal(_packed(part(np, both, size, 1)), a.eps)
        image = a.host(a.matmat(a.device(_unpacked(basis, size))))
        w = _packed(part(np, image, a.left[0], 1))
        _, s, qh = np.linalg.svd(w, full_matrices=False)
        columns = a.device(part(np, _unpacked(basis @ qh.T, size), size, 1))
        found = [(float(x), 1, columns[:, i : i + 1]) for i, x in enumerate(s)]
    else:
        for sign in signs:
            halves = a.host(part(a.xp, v, a.right[0], sign))
            basis = _orthonormal(halves, a.eps)
            if basis.shape[1]:
                image = a.host(part(a.xp, a.matmat(a.device(basis)), a.left[0], sign))
                _, s, qh = np.linalg.svd(image, full_matrices=False)
                columns = part(a.xp, a.device(basis @ qh.T), a.right[0], sign)
                found += [(float(x), sign, columns[:, i : i + 1]) for i, x in enumerate(s)]
    top = max((s for s, _, _ in found), default=0.0)
    # among equals the symmetric ones
    found.sort(key=lambda item: -(item[0] + (EQUAL * top if item[1] > 0 else 0.0)))
    found = [item for item in found[:k] if item[0] > 0]
    columns = a.xp.concat([x for _, _, x in found], axis=1) if found else v[:, :0]
    return columns, [sign for _, sign, _ in found]


def kind(xp: Any, x: Any, size: int) -> int:
    """1 if a column is nearer to its adjoint, -1 if it is nearer to its negative."""
    same, other = (float(xp.max(xp.abs(part(xp, x, size, sign)))) for sign in (1, -1))
    return 1 if same >= other else -1


def _orthonormal(x: Any, eps: float) -> Any:
    """A basis of what is more than rounding, on the host."""
    p, s, _ = np.linalg.svd(x, full_matrices=False)
    return p[:, s > 64 * eps]


def _packed(h: Any) -> Any:
    """Hermitian matrices as real ones of the same norm: the real part plus the imaginary part."""
    return h.real + h.imag


def _unpacked(z: Any, size: int) -> Any:
    return part(np, z, size, 1) + 1j * part(np, z, size, -1)


def phase(x: Any, eps: float) -> complex:
    """The factor of modulus one by which a matrix gets the sign it is given back with.

    ``trace + sum / p``, or the sum where the matrix is not square, becomes positive; where that is
    next to nothing, the first of the largest entries. A positive semidefinite or nonnegative matrix
    keeps its sign, a Hermitian one stays Hermitian.
    """
    p, q = x.shape
    norm = float(np.linalg.norm(x))
    if not norm > 0:
        return 1.0
    c = complex(np.trace(x) + x.sum() / p if p == q else x.sum())
    herm = p == q and bool((x == adjoint(np, x)).all())
    if abs(c) <= math.sqrt(eps) * norm * math.sqrt(x.size):
        size = np.abs(x.real) if herm and np.abs(x.real).max() > 0 else np.abs(x)
        # entries that are equal but for rounding count as equal
        i = int(np.argmax(size >= size.max() * (1 - 64 * eps)))
        c = complex(x.reshape(-1)[i])
        if herm:
            c = complex(c.real or c.imag)
    elif herm:
        c = complex(c.real)
    return c.conjugate() / abs(c)


def balanced(factors: list[Any], size: float, eps: float) -> list[Any]:
    """Unit factors on the host times the size, with equal norms and settled signs.

    ``size`` may be complex; its phase, and those taken from the others, go to the first factor.
    """
    length = abs(size) ** (1 / len(factors))
    turn: complex = size / abs(size) if abs(size) > 0 else 1.0
    result = []
    for x in factors[1:]:
        c = phase(x, eps)
        turn /= c
        result.append(_times(x, c * length))
    return [_times(factors[0], turn * length), *result]


def _times(x: Any, c: complex) -> Any:
    """Real factors stay real, and so does a Hermitian matrix times a real number."""
    return x * (c if x.dtype.kind == "c" and c.imag else c.real)
