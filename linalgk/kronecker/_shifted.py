"""Kronecker products plus a multiple of the identity, where a factor is not Hermitian.

``F_1 kron ... kron F_N + s I`` is diagonal in the eigenvectors of the factors, and block triangular
in their Schur vectors: with ``R = T_2 kron ... kron T_N``, ``(t_ii R + s I) x_i = b_i - sum_j t_ij
R x_j`` for the block rows i, from the last to the first. Halves of a factor are taken and not its
rows, so that products with the part above do most of the work.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import _modes

# Condition of all eigenvectors together up to which they serve.
EIGENVECTORS = 1e3
# A first correction that is larger tells that they do not.
CORRECTION = 1e-3


class Eigen(NamedTuple):
    """Of one factor: ``F = V diag(w) V^-1``."""

    values: Any
    vectors: Any
    inverse: Any
    condition: float


class Schur(NamedTuple):
    """Of one factor: ``F = Q T Q^H``; t holds eigenvalues (..., p) where it is diagonal."""

    t: Any
    q: Any
    diagonal: bool


def eigenvalues(f: Any, i: int) -> Any:
    """Of a factor that is not Hermitian, in the library of the factors."""
    if i in f.eigen:
        return f.eigen[i].values
    if ("values", i) not in f.eigen:
        a = f.looked.arrays[i]
        w = np.linalg.eigvals(np.asarray(_xp.to_numpy(a)))
        f.eigen["values", i] = _placed(f, w)
    return f.eigen["values", i]


def eigen(f: Any) -> list[Eigen]:
    """Eigenvectors of all factors, unitary of those that are Hermitian."""
    found = []
    for i, (w, v) in enumerate(zip(*f.spectral, strict=True)):
        if w is not None:
            found.append(Eigen(w, v, f.adjoint_vectors[i], 1.0))
            continue
        if i not in f.eigen:
            f.eigen[i] = _eigen(f, i)
        found.append(f.eigen[i])
    return found


def _eigen(f: Any, i: int) -> Eigen:
    """LAPACK's, on the host: a library need not have it."""
    a = np.asarray(_xp.to_numpy(f.looked.arrays[i]))
    w, v = np.linalg.eig(a)
    condition = np.linalg.cond(v)
    worst = float(condition.max(initial=1.0))
    inverse = np.linalg.inv(v) if worst < EIGENVECTORS else v
    # real matrices have real eigenvalues by chance: one dtype for all
    w, v, inverse = (_placed(f, x) for x in (w, v, inverse))
    return Eigen(w, v, inverse, math.inf if math.isnan(worst) else worst)


def _placed(f: Any, x: Any) -> Any:
    """A result of the host beside the factors, complex."""
    dtype = _modes.widened(f.dtype)
    return _xp.from_numpy(np.ascontiguousarray(x.astype(dtype)), f.xp, like=f.arrays[0])


def schur(f: Any) -> list[Schur]:
    """Schur forms of all factors."""
    if "schur" not in f.eigen:
        f.eigen["schur"] = [
            _schur(f, a) if w is None else Schur(w, v, True)
            for a, w, v in zip(f.looked.arrays, *f.spectral, strict=True)
        ]
    found: list[Schur] = f.eigen["schur"]
    return found


def _schur(f: Any, a: Any) -> Schur:
    from scipy.linalg import schur as lapack

    host = np.asarray(_xp.to_numpy(a))
    flat = host.reshape(-1, *host.shape[-2:])
    pairs = [lapack(x, output="complex", check_finite=False) for x in flat]
    t, q = (np.stack([pair[k] for pair in pairs]).reshape(host.shape) for k in (0, 1))
    return Schur(_placed(f, t), _placed(f, q), False)


def solve(f: Any, b: Any, shift: Any) -> tuple[Any, list[Any]]:
    """``(K + shift) x = b`` by eigenvectors, or by Schur forms where those are ill-conditioned."""
    d, problems = f.shifted(shift)
    real = not (f.is_complex or _modes.is_complex(shift) or _modes.is_complex(b))
    x = None
    parts = eigen(f)
    if math.prod(p.condition for p in parts) <= EIGENVECTORS:
        x = _by_eigenvectors(f, parts, d, b, shift, bool(problems))
    if x is None:
        x = _by_schur(f, schur(f), b, shift)
    return (_xp.namespace(x).real(x) if real else x), problems


def _by_eigenvectors(f: Any, parts: list[Eigen], d: Any, b: Any, shift: Any, known: bool) -> Any:
    """With a step of refinement; None where it tells that the eigenvectors do not serve."""
    xp = f.xp
    dtype = _xp.dtype_of(xp, _modes.widened(_xp.dtype_name(b)))
    left, right = (
        [xp.astype(m, dtype, copy=False) for m in ms]
        for ms in ([p.vectors for p in parts], [p.inverse for p in parts])
    )

    def direct(z: Any) -> Any:
        return _modes.times(left, _modes.times(right, z) / d[..., None])

    x = direct(b)
    step = direct(b - product(f, x, shift))
    large = xp.max(xp.abs(step), axis=(-2, -1)) > CORRECTION * xp.max(xp.abs(x), axis=(-2, -1))
    if not known and bool(xp.any(large)):
        return None
    return x + step


def product(f: Any, x: Any, shift: Any) -> Any:
    """``(K + shift) x``."""
    if getattr(shift, "ndim", 0):
        shift = shift[..., None, None]
    return _modes.times(f.looked.arrays, x) + shift * x


def _by_schur(f: Any, forms: list[Schur], b: Any, shift: Any) -> Any:
    """By the block recursion, all in complex arithmetic; diagonal factors side by side."""
    xp, n = f.xp, b.shape[-1]
    dtype = _xp.dtype_of(xp, _modes.widened(_xp.dtype_name(b)))
    full = np.broadcast_shapes(f.batch, tuple(b.shape[:-2]), _modes.shape_of(shift))
    q = [xp.astype(form.q, dtype, copy=False) for form in forms]
    c = _modes.times([adjoint(xp, m) for m in q], b)
    c = xp.broadcast_to(c, (*full, *c.shape[-2:]))
    order = sorted(range(len(forms)), key=lambda i: not forms[i].diagonal)
    c = _moved(xp, c, f.sizes, order)
    own = [forms[i].t for i in order if forms[i].diagonal]
    scale = _modes.outer(own) if own else xp.ones((1,), dtype=dtype, **_modes.where(b))
    scale = xp.astype(scale, dtype, copy=False)
    # (..., diagonal, triangular, n)
    c = xp.reshape(c, (*full, scale.shape[-1], f.size // scale.shape[-1], n))
    ts = [xp.astype(forms[i].t, dtype, copy=False) for i in order if not forms[i].diagonal]
    if getattr(shift, "ndim", 0):
        shift = xp.astype(shift, dtype, copy=False)[..., None]
    y = xp.reshape(_recursion(ts, scale, shift, c), (*full, f.size, n))
    sizes = [f.sizes[i] for i in order]
    y = _moved(xp, y, sizes, [order.index(i) for i in range(len(order))])
    return _modes.times(q, y)


def _moved(xp: Any, x: Any, sizes: Any, order: list[int]) -> Any:
    """Modes of x (..., K, n) in another order."""
    if order == sorted(order):
        return x
    batch, k = tuple(x.shape[:-2]), x.ndim - 2
    cube = xp.reshape(x, (*batch, *sizes, x.shape[-1]))
    turn = (*range(k), *(k + i for i in order), k + len(order))
    return xp.reshape(xp.permute_dims(cube, turn), x.shape)


def _recursion(ts: list[Any], scale: Any, shift: Any, b: Any) -> Any:
    """``(scale_d T_1 kron ... kron T_m + shift) x_d = b_d`` for b (..., d, n_1 ... n_m, n)."""
    xp = _xp.namespace(b)
    if not ts:
        return b / (scale + shift)[..., None, None]
    t, rest = ts[0], ts[1:]
    p = t.shape[-1]
    if not rest and isinstance(b, np.ndarray) and b.ndim == 3 and b.shape[0] == 1 and t.ndim == 2:
        return _by_lapack(t, scale, shift, b)
    if p == 1:
        return _recursion(rest, scale * t[..., 0, :], shift, b)
    half = p // 2
    cut = half * (b.shape[-2] // p)
    lower = _recursion([t[..., half:, half:], *rest], scale, shift, b[..., cut:, :])
    above = [x[..., None, :, :] for x in (t[..., :half, half:], *rest)]
    moved = scale[..., None, None] * _modes.times(above, lower)
    upper = _recursion([t[..., :half, :half], *rest], scale, shift, b[..., :cut, :] - moved)
    return xp.concat([upper, lower], axis=-2)


def _by_lapack(t: Any, scale: Any, shift: Any, b: Any) -> Any:
    """The last factor of one NumPy system."""
    from scipy.linalg import lapack

    trtrs = lapack.get_lapack_funcs(("trtrs",), (t, b))[0]
    number = complex(np.asarray(shift).reshape(-1)[0])
    a = scale.reshape(-1)[0] * t + number * np.eye(t.shape[-1], dtype=t.dtype)
    return trtrs(a, b[0])[0][None]
