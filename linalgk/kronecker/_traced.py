"""The same where no value is known: JAX under ``jit``, ``vmap`` and ``grad``.

Nothing is looked at and nothing raised: members that fail hold NaN.
"""

from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import _modes
from linalgk.kronecker._determinant import of_powers


def _face() -> Any:
    from linalgk.interop import _jax_kron

    return _jax_kron


def _kinds(f: Any, name: str) -> tuple[str, ...]:
    if None in f.kinds:
        msg = f"{name}: assume_a must be given under jax.jit and jax.vmap, where no value is known"
        raise ValueError(msg)
    return tuple(f.kinds)


def _usable(f: Any, kinds: tuple[str, ...]) -> tuple[list[Any], Any]:
    """Factors as they are declared, and 0 for each member where they are so, else NaN."""
    xp, arrays, nan = f.xp, [], 0.0
    for a, kind in zip(f.arrays, kinds, strict=True):
        size = xp.abs(_face().fixed(a))
        good = xp.all(xp.isfinite(size), axis=(-2, -1))
        if kind != "gen":
            other = adjoint(xp, a)
            defect = xp.max(xp.abs(_face().fixed(a - other)), axis=(-2, -1))
            good = good & (defect <= f.eps**0.5 * xp.max(size, axis=(-2, -1)))
            a = 0.5 * (a + other)
        arrays.append(a)
        nan = nan + xp.where(good, 0.0, float("nan"))
    return arrays, nan


def _not_positive(f: Any, w: Any) -> Any:
    """0 for positive semidefinite members, else NaN."""
    xp = f.xp
    w = _face().fixed(w)
    tol = w.shape[-1] * f.eps * xp.max(xp.abs(w), axis=-1)
    return xp.where(w[..., 0] >= -tol, 0.0, float("nan"))


def solve(f: Any, b: Any, shift: Any) -> Any:
    """``(K + shift) x = b``, differentiated as an equation and not by its steps."""
    xp = f.xp
    kinds = _kinds(f, "solve")
    arrays, nan = _usable(f, kinds)
    full = np.broadcast_shapes(f.batch, tuple(b.shape[:-2]), _modes.shape_of(shift))
    dtype = xp.result_type(f.arrays[0], b)
    if shift is not None and _modes.is_complex(shift):
        dtype = _xp.dtype_of(xp, _modes.widened(str(dtype)))
    b = xp.astype(xp.broadcast_to(b, (*full, *b.shape[-2:])), dtype)
    if f.empty or 0 in b.shape:
        return b

    def matvec(x: Any) -> Any:
        y = _modes.times(arrays, x)
        if shift is None:
            return y
        return y + (shift[..., None, None] if getattr(shift, "ndim", 0) else shift) * x

    fixed = [_face().fixed(a) for a in arrays]
    if shift is None:
        for a, kind in zip(fixed, kinds, strict=True):
            if kind == "pos":
                nan = nan + 0.0 * xp.real(xp.linalg.cholesky(a)[..., -1, -1])
        x = _face().equation(matvec, _by_modes(f, fixed), b)
    elif "gen" not in kinds:
        pairs = [xp.linalg.eigh(a) for a in fixed]
        for (w, _), kind in zip(pairs, kinds, strict=True):
            if kind == "pos":
                nan = nan + _not_positive(f, w)
        d = _modes.plus(_modes.outer([w for w, _ in pairs]), _face().fixed(shift))
        x = _face().equation(matvec, _by_eigenvectors([v for _, v in pairs], d), b)
    else:
        x = _face().equation(matvec, _by_general(f, fixed, _face().fixed(shift)), b)
        # eigenvectors that do not serve are told by what they leave
        rest, size = (xp.max(xp.abs(_face().fixed(y)), axis=(-2, -1)) for y in (b - matvec(x), b))
        nan = nan + xp.where(rest <= f.eps**0.5 * size, 0.0, float("nan"))
    finite = xp.all(xp.isfinite(xp.abs(_face().fixed(x))), axis=(-2, -1))
    nan = nan + xp.where(finite, 0.0, float("nan"))
    return x + _column(nan, x)


def _column(nan: Any, x: Any) -> Any:
    if getattr(nan, "ndim", 0):
        nan = nan[..., None, None]
    return _xp.namespace(x).astype(_xp.namespace(x).asarray(nan), x.dtype)


def _solver(a: Any) -> Any:
    xp = _xp.namespace(a)
    return lambda z: xp.linalg.solve(a, xp.astype(z, xp.result_type(a, z)))


def _by_modes(f: Any, arrays: list[Any]) -> Any:
    xp = f.xp

    def direct(b: Any, transposed: bool) -> Any:
        for i, a in enumerate(arrays):
            a = xp.matrix_transpose(a) if transposed else a
            b = _modes.in_mode(_solver(a), b, f.sizes, i)
        return b

    return direct


def _by_eigenvectors(vectors: list[Any], d: Any) -> Any:
    def direct(b: Any, transposed: bool) -> Any:
        # the transpose of V D V^H is conj(V) D V^T
        xp = _xp.namespace(b)
        vs = [xp.conj(v) for v in vectors] if transposed else vectors
        c = _modes.times([adjoint(xp, v) for v in vs], b) / d[..., None]
        y = _modes.times(vs, c)
        return xp.astype(y, b.dtype)

    return direct


def _by_general(f: Any, arrays: list[Any], shift: Any) -> Any:
    xp = f.xp

    def direct(b: Any, transposed: bool) -> Any:
        ms = [xp.matrix_transpose(a) for a in arrays] if transposed else arrays
        pairs = [xp.linalg.eig(a) for a in ms]
        d = _modes.plus(_modes.outer([w for w, _ in pairs]), shift)[..., None]
        own = shift[..., None, None] if getattr(shift, "ndim", 0) else shift
        vectors = [v for _, v in pairs]

        def once(z: Any) -> Any:
            z = xp.astype(z, d.dtype)
            for i, v in enumerate(vectors):
                z = _modes.in_mode(_solver(v), z, f.sizes, i)
            z = _modes.times(vectors, z / d)
            return z if _modes.is_complex(b) else xp.real(z)

        x = once(b)
        for _ in range(2):
            x = x + once(b - _modes.times(ms, x) - own * x)
        return x

    return direct


def slogdet(f: Any, shift: Any) -> tuple[Any, Any]:
    """Sign and logarithm of the absolute value of ``det(K + shift)``."""
    xp = f.xp
    kinds = _kinds(f, "slogdet")
    arrays, nan = _usable(f, kinds)
    if shift is None:
        for a, kind in zip(arrays, kinds, strict=True):
            if kind == "pos" and a.shape[-1]:
                nan = nan + _not_positive(f, xp.linalg.eigvalsh(_face().fixed(a)))
        pairs = [xp.linalg.slogdet(a) for a in arrays]
        sign, log = of_powers(pairs, [f.size // max(p, 1) for p in f.sizes])
    else:
        sign, log, values = _face().slogdet(arrays, kinds, shift)
        for w, kind in zip(values, kinds, strict=True):
            if kind == "pos" and w.shape[-1]:
                nan = nan + _not_positive(f, w)
        sign = xp.astype(sign, f.arrays[0].dtype) if f.is_complex else sign
    return sign + xp.astype(xp.asarray(nan), sign.dtype), log + nan
