"""One factor's inverse: as a matrix where that is accurate and pays, else by its factorization."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp

# Up to this order a factor is inverted; beyond, a triangular solve costs no more than the product.
LARGEST = 1024


class Inverse(NamedTuple):
    """What is known of the inverse of a factor (..., p, p)."""

    matrix: Any  # or None
    solve: Callable[[Any], Any]  # of columns (..., p, m)
    rcond: Any  # NumPy (...): reciprocal condition in the 1-norm
    singular: Any  # NumPy bool (...)
    condition: float  # the largest among members that are not singular
    left: bool  # whether the matrix is a left inverse to rounding
    slogdet: tuple[Any, Any]
    lowest: Any = None  # NumPy (..., p): eigenvalues, where there is no Cholesky factor


def inverted(a: Any, kind: str | None, eps: float) -> Inverse:
    """Of a finite array; Hermitian to the bit where the kind is "her" or "pos"."""
    if 0 in a.shape:
        return _empty(a)
    if isinstance(a, np.ndarray) and a.ndim == 2:
        return _by_lapack(a, kind, eps)
    return _by_library(a, kind, eps)


def _empty(a: Any) -> Inverse:
    xp, batch = _xp.namespace(a), tuple(a.shape[:-2])
    none = np.zeros(batch)
    one = xp.sum(a, axis=(-2, -1)) * 0 + 1
    return Inverse(a, lambda x: x, none + 1, none > 0, 1.0, True, (one, xp.real(one) * 0))


def _by_lapack(a: Any, kind: str | None, eps: float) -> Inverse:
    """One NumPy matrix, in its own precision."""
    from scipy.linalg import lapack

    p, size, lowest = a.shape[0], float(np.abs(a).sum(axis=0).max()), None
    factor: Any = None
    info = 1
    if kind == "pos":
        potrf, pocon, potrs, potri = lapack.get_lapack_funcs(
            ("potrf", "pocon", "potrs", "potri"), (a,)
        )
        factor, info = potrf(a, lower=True, clean=True)
        if info:
            # to tell an indefinite matrix from one that is singular but for rounding
            lowest = np.linalg.eigvalsh(a)
    if kind == "pos" and not info:
        rcond = float(pocon(factor, size, uplo="L")[0])
        log = 2 * np.log(np.diagonal(factor).real).sum()
        sign = np.ones((), a.dtype)

        def solve(x: Any) -> Any:
            return _columns(lambda z: potrs(factor, z, lower=True)[0], x, a)
    else:
        getrf, gecon, getrs, getri, getri_lwork = lapack.get_lapack_funcs(
            ("getrf", "gecon", "getrs", "getri", "getri_lwork"), (a,)
        )
        factor, pivots, _ = getrf(a)
        diagonal = np.diagonal(factor)
        exact = (diagonal == 0).any()
        rcond = 0.0 if exact else float(gecon(factor, size)[0])
        with np.errstate(divide="ignore"):
            log = np.log(np.abs(diagonal)).sum()
        odd = np.count_nonzero(pivots != np.arange(p)) % 2
        sign = _sign(diagonal) * (-1 if odd else 1)

        def solve(x: Any) -> Any:
            return _columns(lambda z: getrs(factor, pivots, z)[0], x, a)

    singular = np.asarray(rcond < eps)
    one = np.asarray(log, a.real.dtype)
    found = Inverse(
        None, solve, np.asarray(rcond), singular, 1.0 if singular else 1 / rcond, True,
        (np.asarray(sign, a.dtype), one), lowest,
    )  # fmt: skip
    if singular:
        # what it gives is thrown away
        return found._replace(matrix=np.zeros_like(a))
    if rcond < eps**0.5 or p > LARGEST:
        return found
    if kind == "pos" and lowest is None:
        half = np.tril(potri(factor, lower=True)[0])
        x = half + np.tril(half, -1).conj().T
    else:
        x = getri(factor, pivots, lwork=int(getri_lwork(p)[0].real))[0]
    return found._replace(matrix=np.ascontiguousarray(x))


def _columns(function: Callable[[Any], Any], x: Any, a: Any) -> Any:
    """A function of LAPACK for x (..., p, m) in any library order."""
    p = x.shape[-2]
    flat = np.moveaxis(x, -2, 0).reshape(p, -1)
    y = function(np.asfortranarray(flat.astype(a.dtype, copy=False)))
    return np.moveaxis(y.reshape(p, *x.shape[:-2], x.shape[-1]), 0, -2)


def _sign(diagonal: Any) -> Any:
    """Sign of a product, zero if a number is zero."""
    if not np.iscomplexobj(diagonal):
        return np.prod(np.sign(diagonal))
    size = np.abs(diagonal)
    if (size == 0).any():
        return 0.0
    total = np.prod(diagonal / size)
    return total / np.abs(total)


def _by_library(a: Any, kind: str | None, eps: float) -> Inverse:
    """A batch, or a matrix of another library, in its words."""
    xp = _xp.namespace(a)
    batch = tuple(a.shape[:-2])
    lowest = None
    if kind == "pos" and not _has_cholesky(xp, a):
        lowest = np.asarray(_xp.to_numpy(xp.linalg.eigvalsh(a)))
    found = xp.linalg.slogdet(a)
    sign, log = found[0], found[1]
    eye = xp.eye(a.shape[-1], dtype=a.dtype, **({} if xp is np else {"device": a.device}))
    exact = sign == 0
    a = xp.where(exact[..., None, None], eye, a)
    x = xp.linalg.inv(a)
    norms = [xp.max(xp.sum(xp.abs(m), axis=-2), axis=-1) for m in (a, x)]
    reciprocal = 1 / (norms[0] * norms[1])
    rcond = np.where(
        np.asarray(_xp.to_numpy(exact)), 0.0, np.asarray(_xp.to_numpy(reciprocal))
    ).reshape(batch)
    rcond = np.where(np.isnan(rcond), 0.0, rcond)
    singular = rcond < eps
    condition = float(1 / rcond[~singular].min()) if not singular.all() else 1.0
    bad = _xp.from_numpy(singular, xp, like=a)[..., None, None]
    x, a = xp.where(bad, xp.zeros_like(x), x), xp.where(bad, eye, a)

    def solve(z: Any) -> Any:
        return xp.linalg.solve(a, xp.astype(z, a.dtype, copy=False))

    keep = condition < eps**-0.5
    return Inverse(
        x if keep else None, solve, rcond, singular, condition, False, (sign, log), lowest
    )


def _has_cholesky(xp: Any, a: Any) -> bool:
    """Whether all members are positive definite."""
    try:
        factor = xp.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        return False
    return bool(xp.all(xp.isfinite(factor)))
