"""Polar decomposition: the nearest unitary matrix and a positive semidefinite one."""

import functools
import math
import sys
import warnings
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _lag, _validate, _xp, errors
from linalgk._dispatch import Explanation
from linalgk._lag import contiguous
from linalgk._results import Info
from linalgk.matfun import _ops, _traced
from linalgk.matfun._pairs import Polar
from linalgk.matfun._polar_steps import Found, compute, larger
from linalgk.matfun._spectral import NONFINITE, OK
from linalgk.typing import Array, OnFail

PolarMethod: TypeAlias = Literal["auto", "svd", "newton", "qdwh", "gram"]
Side: TypeAlias = Literal["right", "left"]
METHODS, SIDES = get_args(PolarMethod), get_args(Side)
# m n^2 up to which singular values cost no more than the calls of a method with many steps.
_SMALL = 3e5


def polar(
    a: Array,
    /,
    *,
    side: Side = "right",
    method: PolarMethod = "auto",
    compute_dtype: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Polar:
    """Polar decomposition ``A = U H`` or ``A = H U``.

    U is unitary, the nearest such matrix to A in every unitarily invariant norm; H is Hermitian
    positive semidefinite.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape. Integers are computed as float64. Never written
        to.
    side : {"right", "left"}
        Where H stands: ``A = U H`` with H of order n, or ``A = H U`` with H of order m.
    method : {"auto", "svd", "newton", "qdwh", "gram"}
        See Notes.
    compute_dtype : str or dtype, optional
        Precision of the computation.
    check_finite : bool, optional
        Whether NaN or infinity is an error. Default True.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that hold NaN or infinity do. Default "raise".

    Returns
    -------
    U : array, shape (..., m, n)
        Orthonormal columns where ``m >= n``, orthonormal rows otherwise.
    H : array, shape (..., n, n) or (..., m, m)
        Hermitian to the last bit; no eigenvalue is below ``-n eps ||A||``.

    Both are the fields of a `Polar`, a pair with the attribute ``info``: ``residual`` is
    ``||A - U H|| / ||A||`` (Frobenius; by ``newton``, ``qdwh`` and ``gram`` the part of ``U^H A``
    that is not Hermitian, which equals it up to what U lacks of being unitary); ``error_estimate``
    the relative error of U that this and a lower bound of the singular values leave possible,
    infinity where A is rank deficient to working precision: then U is one of many.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    NotConvergedError
        H is out of the range of the dtype.

    See Also
    --------
    orthogonalize : U to a few digits, by products only.

    Notes
    -----
    With ``A = W S V^H``, ``U = W V^H`` and ``H = V S V^H`` or ``W S W^H``. A singular A has many
    unitary factors, of which one is returned. ``svd`` is this formula, about ``22 n^3`` flops.

    ``newton`` (NumPy arrays, PyTorch tensors on the CPU) starts with steps ``X <- (z X + X^-H / z)
    / 2`` by LU factors [1]_, goes on with Halley's ``X <- X (p I + q (I + c X^H X)^-1)`` by
    Cholesky factors as soon as the weights [2]_ are moderate, and ends with a polynomial of degree
    3, 5 or 9 as soon as it is exact to rounding: for a condition of 1e4 a step of ``2 n^3`` flops,
    three of ``10/3 n^3`` and the last of ``3 n^3``, then ``2 n^3`` for H. A matrix with more rows
    than columns is first reduced to its triangle by Cholesky factors of Gram matrices [3]_,
    ``5 m n^2`` in all and ``3 m n^2`` where the condition is below 3.

    ``qdwh`` is the dynamically weighted Halley iteration of all libraries [2]_, with QR factors
    instead of Cholesky factors where c exceeds 100, after QR of A where ``m > n``. ``gram`` is
    ``U = A (A^H A)^(-1/2)`` by eigenvectors and one polynomial that makes it unitary; it serves
    conditions up to about 10. Members that a method does not serve to working precision, singular
    ones above all, go to ``svd``, and ``info.method`` says so.

    ``auto`` takes ``newton`` where ``m n^2 > 3e5``, ``qdwh`` for CuPy arrays, ``svd`` otherwise,
    and for CuPy arrays under ``on_fail="nan"``, where no member is looked at.

    The backward error ``||A - U H|| / ||A||`` and ``||U^H U - I||`` are of the order of ``n eps``,
    whatever the condition. The relative error of H is of the same order, that of U about
    ``eps ||A|| / s_n`` with the smallest singular value (real square matrices: ``2 eps ||A|| /
    (s_n + s_(n-1))``). A power of two times A multiplies H by it and leaves U as it is.

    Under ``jax.jit`` and ``jax.vmap`` the methods are ``svd`` (``auto``) and ``qdwh``, whose
    members that are singular are NaN there.

    References
    ----------
    .. [1] N. J. Higham, "Computing the polar decomposition -- with applications", SIAM J. Sci.
       Stat. Comput. 7 (1986).
    .. [2] Y. Nakatsukasa, Z. Bai, F. Gygi, "Optimizing Halley's iteration for computing the matrix
       polar decomposition", SIAM J. Matrix Anal. Appl. 31 (2010).
    .. [3] T. Fukaya et al., "Shifted Cholesky QR for computing the QR factorization of
       ill-conditioned matrices", SIAM J. Sci. Comput. 42 (2020).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> U, H = lk.polar([[0.0, -2.0], [1.0, 0.0]])
    >>> U.round(12) + 0.0
    array([[ 0., -1.],
           [ 1.,  0.]])
    >>> H.round(12) + 0.0
    array([[1., 0.],
           [0., 2.]])
    >>> result = lk.polar(np.random.default_rng(0).standard_normal((1000, 20)))
    >>> result.info.method, bool(result.info.residual < 1e-14)
    ('newton', True)
    """
    torch = _traced.torch_face(a)
    if torch is not None:
        options = {
            "side": side, "method": method, "compute_dtype": compute_dtype,
            "check_finite": check_finite, "on_fail": on_fail,
        }  # fmt: skip
        factors: Polar = torch.polar(a, polar, options)
        return factors
    with _lag.scope(a):
        return _polar(a, side, method, compute_dtype, check_finite, on_fail)


def _polar(
    a: Any, side: Any, method: Any, compute_dtype: Any, check_finite: Any, on_fail: Any
) -> Polar:
    original, face, x = _entered(a)
    traced = False
    if face.family == "jax":
        _prepare()
        traced = _xp.is_traced(original)
    _validate.choice("side", side, SIDES)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    dtype, xp = _xp.dtype_name(x), _xp.namespace(x)
    work = _validate.compute_dtype(compute_dtype, dtype)
    looks = not (traced or (_xp.is_cuda(x) and policy == "nan"))
    m, n, batch = x.shape[-2], x.shape[-1], tuple(x.shape[:-2])
    method = _method(method, x, looks, traced)[0]
    flat = xp.reshape(x, (math.prod(batch), m, n))
    flat = flat if work == dtype else xp.astype(flat, _xp.dtype_of(xp, work))
    if traced:
        found, far = _solve_traced(flat, side == "left", method)
    else:
        found, far = _solve(flat, side == "left", method, looks)
    fields = _fields(found, flat, min(m, n))
    u, h = found.u, found.h if far is None else far
    if work != dtype:
        u, h = xp.astype(u, x.dtype), xp.astype(h, x.dtype)
    info = {k: face.leave(xp.reshape(v, batch), original) for k, v in fields.items()}
    u, h = (xp.reshape(y, (*batch, *y.shape[1:])) for y in (u, h))
    u, h = (face.leave(y, original) for y in (u, h))
    result = Polar((u, h), Info(found.method, **info))
    if looks and policy != "nan" and not found.clean:
        _report(found.status, batch, check, policy, result)
    return result


def _solve(flat: Any, left: bool, method: str, looks: bool) -> tuple[Found, Any]:
    """Factors of the matrices, or of their adjoints where these have no more columns than rows.

    The second result is H where it stands on the side of the longer dimension.
    """
    m, n = flat.shape[-2:]
    wide = m < n
    tall = contiguous(_ops.adjoint(flat) if wide else flat)
    if 0 in flat.shape:
        return _empty(flat, m if left else n), None
    with np.errstate(all="ignore"):  # what is not finite stays in its member
        found = compute(tall, method, left, looks)
        far = None
        if m != n and left != wide:
            far = larger(found.u, found.h)
    return found._replace(u=_ops.adjoint(found.u)) if wide else found, far


def _solve_traced(flat: Any, left: bool, method: str) -> tuple[Found, Any]:
    """As `_solve`, with JAX's derivatives; values are not looked at."""
    m, n = flat.shape[-2:]
    if 0 in flat.shape:
        return _empty(flat, m if left else n), None
    wide = m < n
    tall = _ops.adjoint(flat) if wide else flat
    found = compute(_traced.fixed(tall), method, False, False)
    u, h = _traced.jax_face().polar_factors(tall, found.u, found.h)
    far = larger(u, h) if left != wide else None
    return found._replace(u=_ops.adjoint(u) if wide else u, h=h), far


def _empty(flat: Any, order: int) -> Found:
    xp = _xp.namespace(flat)
    device = {} if xp is np else {"device": _xp._compat("array_api_compat").device(flat)}
    count = flat.shape[0]
    h = xp.zeros((count, order, order), dtype=flat.dtype, **device)
    integers = xp.zeros((count,), dtype=_xp.dtype_of(xp, "int64"), **device)
    zeros = xp.zeros((count,), dtype=_xp.dtype_of(xp, _real(flat)), **device)
    ones = xp.ones_like(zeros)
    return Found(xp.zeros_like(flat), h, integers, integers, zeros, ones, "none", True)


def _real(x: Any) -> str:
    return _xp.REAL[_xp.dtype_name(x)]


@functools.cache
def _prepare() -> None:
    """Let JAX take results apart and put them together again."""
    _traced.prepare()
    sys.modules["jax"].tree_util.register_pytree_node(
        Polar, lambda x: ((*x, x.info), None), lambda _, parts: Polar(parts[:2], parts[2])
    )


def _entered(a: Any) -> tuple[Any, _xp.Face, Any]:
    """The array as given, its face, and what is computed with."""
    original = _xp.as_array("a", a)
    face = _xp.face(original)
    assert face is not None
    x = _validate.floating("a", face.enter(original))
    if x.ndim < 2:
        msg = f"a: must have shape (..., m, n), got {tuple(x.shape)}"
        raise ValueError(msg)
    return original, face, x


# ---- choice ----


def choose_method(m: int, n: int, family: str, *, looks: bool) -> tuple[str, str]:
    """Method for m x n matrices, and why; ``looks``: whether the host may look at the members.

    Cost model, p = min(m, n) and q = max(m, n): singular values take about ``22 p^3`` flops at a
    third of the speed of products, after QR of ``4 q p^2``; ``newton`` about ``20 p^3`` at two
    thirds of it and ``5 q p^2``, and 0.2 ms for some forty calls of LAPACK. On a device each QR
    step takes a fraction of what singular values do.
    """
    p, q = sorted((m, n))
    if family == "numpy":
        if float(q) * p * p > _SMALL:
            return "newton", "LU and Cholesky factors cost a fraction of singular values"
        return "svd", f"m n^2 <= {_SMALL:g}: a few calls cost less than many"
    if family == "cupy" and looks:
        return "qdwh", "QR factors and solutions are what a device is good at"
    why = "no member is looked at" if family == "cupy" or not looks else "no LAPACK at hand"
    return "svd", f"{why}, and singular values serve every member"


def _method(method: Any, x: Any, looks: bool, traced: bool) -> tuple[str, str]:
    _validate.choice("method", method, METHODS)
    host = isinstance(x, np.ndarray)
    family = "numpy" if host else "cupy" if _xp.is_cuda(x) else "array_api"
    if method == "auto":
        return choose_method(x.shape[-2], x.shape[-1], family, looks=looks and not traced)
    if method == "newton" and not host:
        msg = (
            "method: polar has 'newton' for arrays in the host's memory that LAPACK takes, NumPy's "
            "and PyTorch's; use 'qdwh'"
        )
        raise ValueError(msg)
    return method, "it was asked for"


# ---- what is said ----


def _fields(found: Found, flat: Any, p: int) -> dict[str, Any]:
    xp = _xp.namespace(found.u)
    good, eps = found.status == OK, float(np.finfo(_real(flat)).eps)
    # below this a singular value may be nothing but rounding
    certain = good & (found.lower > 4 * eps)
    lower = xp.where(certain, found.lower, xp.ones_like(found.lower))
    error = xp.maximum(found.residual, xp.full_like(found.residual, eps)) / lower / max(p, 1) ** 0.5
    infinite, nan = (xp.full_like(error, float(v)) for v in ("inf", "nan"))
    return {
        "iterations": xp.where(good, found.steps, xp.zeros_like(found.steps)),
        "converged": good,
        "residual": xp.where(good, found.residual, nan),
        "error_estimate": xp.where(good, xp.where(certain, error, infinite), nan),
    }


def _report(status: Any, batch: tuple[int, ...], check: bool, policy: str, result: Polar) -> None:
    """Report failures as asked."""
    status = np.asarray(_xp.to_numpy(status))

    def members(where: Any) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(map(int, np.unravel_index(k, batch))) if batch else () for k in where)

    kinds = [int(k) for k in np.unique(status) if k != OK and (check or k != NONFINITE)]
    failures: list[errors.MemberError] = []
    for kind in kinds:
        named, every = (members(np.flatnonzero(w)) for w in (status == kind, status != OK))
        which = ", ".join(map(str, named[:8])) + (", …" if len(named) > 8 else "")
        which = f" (batch members {which})" if batch else ""
        if kind == NONFINITE:
            msg = f"polar: a holds NaN or infinity{which}; remove them, or pass on_fail='nan'"
            failures.append(errors.NonFiniteError(msg, every, result))
        else:
            dtype = _xp.dtype_name(result.U)
            msg = f"polar: no factors in the range of {dtype} were found{which}; scale a"
            failures.append(errors.NotConvergedError(msg, every, result))
    if failures and policy == "raise":
        raise failures[0]
    if failures:
        warnings.warn("; ".join(map(str, failures)), errors.ConvergenceWarning, stacklevel=4)


def explain(a: Any, /, **options: Any) -> Explanation:
    """What a call would run."""
    _, _, x = _entered(a)
    policy = _validate.on_fail(options.get("on_fail"))
    looks = not (_xp.is_cuda(x) and policy == "nan")
    method, reason = _method(options.get("method", "auto"), x, looks, False)
    (p, q), count = sorted(x.shape[-2:]), math.prod(x.shape[:-2])
    used: dict[str, tuple[Any, ...]] = {
        "svd": (_ops.POLAR_SVD,), "newton": (_ops.POLAR, _ops.POLAR_SVD),
        "qdwh": (_ops.INVERSE,), "gram": (_ops.EIGH,),
    }  # fmt: skip
    flat = _xp.namespace(x).reshape(x, (count, *x.shape[-2:]))
    implementations = {}
    for op in used[method]:
        _, why = op.choose(flat)
        implementations[op.name] = why if "<" in why else f"reference ({why})"
    flops = {
        "svd": 22.0 * p**3 + 4.0 * (q - p) * p * p,
        "newton": 20.0 * p**3 + (5.0 * q * p * p if q > p else 0.0),
        "qdwh": 35.0 * p**3 + (6.0 * q * p * p if q > p else 0.0),
        "gram": 12.0 * p**3 + 10.0 * q * p * p,
    }[method]
    planes = 4.0 if _xp.dtype_name(x) in _xp.COMPLEX else 1.0
    itemsize = np.dtype(_xp.dtype_name(x)).itemsize
    nbytes = float(count * (2 * p * q + p * p) * itemsize)
    return Explanation("polar", method, reason, implementations, flops * count * planes, nbytes)
