"""Approximate polar factors by a few products: the step of Muon and its relatives."""

import math
import warnings
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._results import Info
from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.matfun import _coefficients, _ops, _traced
from linalgk.matfun._minimax import schedule
from linalgk.matfun._spectral import SERIAL
from linalgk.typing import ArrayT, OnFail, OrthogonalizeCoeffs, OrthogonalizeMethod

COEFFS, METHODS = get_args(OrthogonalizeCoeffs), get_args(OrthogonalizeMethod)
HALF = ("float16", "bfloat16")
# Steps that the Gram form may take before noise of the Gram matrix, which each step multiplies by
# up to 70, is as large as the matrix (float32).
MOST_GRAM = 5
# Share of the norm down to which "minimax" serves singular values.
LOWER = {"float32": 1e-3, "float64": 1e-6}
_AUON_GAMMA, _AUON_EPS = 1.5, 1e-8


class _Options(TypedDict, total=False):
    coeffs: Any
    steps: int | None
    method: OrthogonalizeMethod
    tol: float | None
    compute_dtype: Any
    check_finite: bool | None
    on_fail: OnFail | None
    out: Any


@overload
def orthogonalize(
    g: ArrayT, /, *, return_info: Literal[True], **options: Unpack[_Options]
) -> tuple[ArrayT, Info]: ...
@overload
def orthogonalize(
    g: ArrayT, /, *, return_info: Literal[False] = ..., **options: Unpack[_Options]
) -> ArrayT: ...
def orthogonalize(
    g: ArrayT,
    /,
    *,
    coeffs: Any = "polar_express",
    steps: int | None = None,
    method: OrthogonalizeMethod = "auto",
    tol: float | None = None,
    compute_dtype: Any = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
) -> Any:
    """Approximate unitary polar factor ``U`` of ``G = U H`` by a few matrix products.

    Parameters
    ----------
    g : array, shape (..., m, n)
        Real or complex matrices, any batch shape. float16 and bfloat16 (PyTorch on the CPU,
        ml_dtypes) are computed in float32 and returned as they came. Never written to.
    coeffs : str or array_like, shape (steps, 3) or (3,)
        Polynomials ``a x + b x^3 + c x^5`` that act on the singular values: a name, see Notes, or
        triples, of which the last is repeated.
    steps : int, optional
        How many polynomials are applied; default 5, or all triples given, or what ``tol`` needs.
    method : {"auto", "plain", "gram"}
        ``plain`` multiplies the matrix at each step; ``gram`` iterates on the Gram matrix of the
        smaller side, five steps at a time. ``auto`` takes what needs fewer flops.
    tol : float, optional
        For ``coeffs="minimax"`` (then implied): every singular value above ``LOWER`` times the
        norm bound ends within ``tol`` of one.
    compute_dtype : str or dtype, optional
        Precision of the computation; for "float16" and "bfloat16" it is float32.
    check_finite, on_fail, out, return_info
        As in `sqrtm`.

    Returns
    -------
    u : array, shape (..., m, n)
        In the library, dtype and device of ``g``. Zero matrices give zeros.
    info : Info
        Only with ``return_info``: ``residual`` is ``||U^H U - I||_F / sqrt(min(m, n))`` (of the
        smaller side); ``iterations`` the steps; ``error_estimate`` the same as the residual, which
        bounds the distance from the polar factor where no singular value is lost.

    Raises
    ------
    ValueError
        If an argument is out of its range, or options contradict each other.
    TypeError
        If ``g`` is no array of numbers.
    NonFiniteError
        Members hold NaN or infinity.

    Notes
    -----
    ``G`` is first divided by a norm, so that the result does not depend on its scale, at 1e-30 and
    1e30 as well (no additive epsilon). Then each step is ``X <- a X + (b R + c R^2) X`` with
    ``R = X X^H`` of the smaller side p, q the larger. Flops a step: ``3 p^2 q + p^3`` on the CPU,
    where Hermitian products are computed by half (``4 p^2 q + 2 p^3`` elsewhere), and ``7 p^3`` in
    Gram form, plus ``3 p^2 q`` once.

    ``muon`` [1]_ (not convergent by design: singular values end between 0.7 and 1.2), ``you``,
    ``cans`` [2]_, ``polar_express`` [3]_ (from linalgk's own Remez exchange), ``aol`` [4]_ (rows
    are scaled first, which changes the polar factor), ``minimax`` (`minimax_schedule`, convergent),
    ``prism`` [5]_ (each step fits its coefficients to the matrix by a sketch; needs no bound).
    ``polar_express``, ``minimax`` and ``prism`` divide by the root of a norm of R, a much closer
    bound than the Frobenius norm that the others prescribe.

    ``auon`` [6]_ is no orthogonalization: it is ``gamma G/||G|| / (rms(cosh(gamma G/||G||)) +
    1e-8)`` with gamma = 1.5, the matrix times one number. ``hybrid_auon`` adds a step of ``muon``.

    References
    ----------
    .. [1] K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    .. [2] E. Grishina, M. Smirnov, M. Rakhuba, arXiv:2506.10935, 2025.
    .. [3] N. Amsel, D. Persson, C. Musco, R. M. Gower, "The Polar Express", arXiv:2505.16932, 2025.
    .. [4] T. Boissin et al., "Turbo-Muon", 2025.
    .. [5] "PRISM", arXiv:2601.22137, 2026.
    .. [6] "AuON: a linear-time alternative to orthogonal momentum updates", 2025.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> g = np.random.default_rng(0).standard_normal((3, 16, 40))
    >>> u = lk.orthogonalize(g, coeffs="minimax", tol=1e-10)
    >>> bool(np.allclose(u @ u.mT, np.eye(16)))
    True
    """
    with _lag.scope(g):
        return _orthogonalize(
            g, coeffs, steps, method, tol, compute_dtype, check_finite, on_fail, out, return_info
        )


def _orthogonalize(
    g: Any, coeffs: Any, steps: Any, method: Any, tol: Any, compute_dtype: Any, check: Any,
    on_fail: Any, out: Any, return_info: bool,
) -> Any:  # fmt: skip
    face = _traced.torch_face(g)
    if face is not None and (_traced.is_compiled(g) or out is not None):
        options = coeffs, steps, method, tol, compute_dtype, out, return_info
        return face.orthogonalize(g, *options)
    original = _xp.as_array("g", g)
    traced = face is not None and face.is_blind(original)
    if _family(original) == "jax":
        _traced.prepare()
        traced = _xp.is_traced(original)
    # differentiated by its own library, the products are that library's
    x, leave = _entered(original) if face is None else face.as_it_is(original)
    xp, dtype = _xp.namespace(x), _xp.dtype_name(x)
    if x.ndim < 2:
        msg = f"g: must have shape (..., m, n), got {tuple(x.shape)}"
        raise ValueError(msg)
    m, n, batch = x.shape[-2], x.shape[-1], tuple(x.shape[:-2])
    check, policy = _validate.check_finite(check), _validate.on_fail(on_fail)
    target = None
    if out is not None:
        target = _validate.out(out, original, tuple(x.shape), dtype)
    name, table, tight = plan_steps(coeffs, steps, tol, _xp.REAL[dtype])
    _validate.choice("method", method, METHODS)
    if str(compute_dtype).rpartition(".")[2] in HALF:
        compute_dtype = "float32" if dtype not in _xp.COMPLEX else "complex64"
    work = _validate.compute_dtype(compute_dtype, dtype)
    flat = xp.reshape(x, (math.prod(batch), m, n))
    flat = flat if work == dtype else xp.astype(flat, _xp.dtype_of(xp, work))
    wide = _ops.adjoint(flat) if m > n else flat
    if isinstance(wide, np.ndarray):
        wide = np.ascontiguousarray(wide)
    if math.prod(flat.shape):
        with np.errstate(all="ignore"):  # what is not finite stays in its member
            wide = _solve(wide, name, table, tight, method)
    result = _ops.adjoint(wide) if m > n else wide
    result = result if work == dtype else xp.astype(result, x.dtype)
    good = xp.all(xp.isfinite(xp.abs(result)), axis=(-2, -1))
    result = xp.where(good[:, None, None], result, xp.full_like(result, float("nan")))
    info = _info(wide, good, name, len(table), batch, original) if return_info else None
    result = xp.reshape(result, tuple(x.shape))
    if target is not None:
        target[...] = result
        result = out
    else:
        result = leave(result)
    answer = result if info is None else (result, info)
    if policy != "nan" and check and not traced:
        _report(good, batch, policy, answer)
    return answer


def _family(x: Any) -> str:
    face = _xp.face(x)
    assert face is not None
    return face.family


def _entered(original: Any) -> tuple[Any, Any]:
    """What is computed with, and how to hand it back: half precision by way of float32."""
    face = _xp.face(original)
    assert face is not None
    if face.family == "torch" and str(original.dtype).rpartition(".")[2] in HALF:
        half = original.dtype
        x = face.enter(original.float())
        return x, lambda y: face.leave(y, original).to(half)
    x = face.enter(original)
    if str(_xp.dtype_name(x)) in HALF:
        xp, half = _xp.namespace(x), x.dtype
        return xp.astype(x, _xp.dtype_of(xp, "float32")), lambda y: xp.astype(y, half)
    return _validate.floating("g", x), lambda y: face.leave(y, original)


def plan_steps(coeffs: Any, steps: Any, tol: Any, real: str) -> tuple[str, Any, bool]:
    """Name, coefficients (steps, 3) and whether a close bound of the norm is taken."""
    if steps is not None:
        steps = _validate.integer("steps", steps, 1)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 2.0**-53, 1.0)
        if steps is not None:
            msg = "tol and steps: give one of them, got both"
            raise ValueError(msg)
        if not isinstance(coeffs, str) or coeffs not in ("minimax", "polar_express"):
            msg = f"tol: only coeffs='minimax' has a bound, got coeffs={coeffs!r}; give steps"
            raise ValueError(msg)
        coeffs = "minimax"
    if not isinstance(coeffs, str):
        return "explicit", _coefficients.explicit(coeffs, steps), False
    _validate.choice("coeffs", coeffs, COEFFS)
    if coeffs == "minimax":
        wanted = None if steps is not None else tol or 2 * float(np.finfo(real).eps)
        return coeffs, schedule(LOWER[real], wanted, steps), True
    if coeffs in ("auon", "hybrid_auon"):
        if steps is not None:
            msg = f"steps: {coeffs!r} has none"
            raise ValueError(msg)
        return coeffs, _coefficients.named("muon", int(coeffs == "hybrid_auon")), False
    steps = 5 if steps is None else steps
    if coeffs == "prism":
        return coeffs, np.full((steps, 3), np.nan), True
    return coeffs, _coefficients.named(coeffs, steps), coeffs == "polar_express"


def choose_method(p: int, q: int, steps: int) -> tuple[str, str]:
    """Form for p x q matrices, p <= q, by flops: see `orthogonalize`."""
    blocks = -(-steps // MOST_GRAM)
    plain = steps * (3 * p * q + p * p)
    gram = blocks * 3 * p * q + (7 * steps - 6 * blocks) * p * p
    if gram < plain:
        return "gram", "the longer side enters once, not at every step"
    return "plain", "fewer flops than on the Gram matrix"


def _solve(x: Any, name: str, table: Any, tight: bool, method: str) -> Any:
    xp = _xp.namespace(x)
    top = _traced.constant(xp.max(xp.abs(x), axis=(-2, -1)))
    usable = xp.where((top > 0) & xp.isfinite(top), top, xp.ones_like(top))
    # what is not finite is left out, so that it spoils no derivative either
    finite = xp.isfinite(top)[:, None, None]
    x = _iterated(xp.where(finite, x, xp.zeros_like(x)), usable, name, table, tight, method)
    return xp.where(finite, x, xp.full_like(x, float("nan")))


def _iterated(x: Any, usable: Any, name: str, table: Any, tight: bool, method: str) -> Any:
    xp = _xp.namespace(x)
    # a power of two, so that the scale of a matrix changes no digit
    x = _ops.scaled(x, -xp.ceil(xp.log2(usable)))
    if name in ("auon", "hybrid_auon"):
        return _auon(x, table)
    if name == "prism":
        return _prism(x, len(table))
    if name == "aol":
        rows = xp.sum(xp.abs(x @ _ops.adjoint(x)), axis=-1)
        rows = xp.where(rows > 0, rows, xp.ones_like(rows))
        x = x * xp.astype(1 / xp.sqrt(rows), x.dtype)[:, :, None]
    elif not tight:
        x = x / _norm(x)
    form = choose_method(x.shape[-2], x.shape[-1], len(table))[0] if method == "auto" else method
    gram = MOST_GRAM if form == "gram" else 0
    serial = isinstance(x, np.ndarray) and max(x.shape[-2:]) <= SERIAL
    threads = _config.num_threads() if serial else 1
    with _config.serial_blas if serial else _config.blas_threads():
        return _ops.ODD_ITERATION(x, table, tight, gram, threads)


def _norm(x: Any) -> Any:
    """Frobenius norms as (b, 1, 1), one for zero matrices; entries are near one."""
    xp = _xp.namespace(x)
    squares = xp.sum(xp.abs(x) ** 2, axis=(-2, -1))
    norm = xp.sqrt(xp.where(squares > 0, squares, xp.ones_like(squares)))
    return xp.astype(norm, x.dtype)[:, None, None]


def _auon(x: Any, table: Any) -> Any:
    xp = _xp.namespace(x)
    y = _AUON_GAMMA * (x / _norm(x))
    spread = xp.sqrt(xp.mean(xp.cosh(xp.abs(y)) ** 2, axis=(-2, -1))) + _AUON_EPS
    y = y / xp.astype(spread, x.dtype)[:, None, None]
    return _ops.odd_iteration(y, table, False, 0) if len(table) else y


def _prism(x: Any, steps: int) -> Any:
    """``X <- (I + R/2 + alpha R^2) X`` with ``R = I - X X^H`` and alpha fitted to a sketch of R.

    The residual after the step is ``h = -((2 alpha - 3/4) R^2 - (alpha + 1/4) R^3 +
    (alpha^2 - alpha) R^4 - alpha^2 R^5)``; alpha in [3/8, 29/20] makes ``||S h||_F`` least.
    """
    xp, p = _xp.namespace(x), x.shape[-2]
    real = _xp.REAL[_xp.dtype_name(x)]
    sketch = np.random.default_rng(0).standard_normal((1, min(8, p), p)) / p**0.5
    sketch = _xp.from_numpy(sketch, xp, like=x, dtype=x.dtype)
    grid = np.linspace(3 / 8, 29 / 20, 173)
    alphas = _xp.from_numpy(grid, xp, like=x, dtype=real)[None, :]
    identity = _ops.eye_like(x @ _ops.adjoint(x))
    for k in range(steps):
        gram = _ops.SYMMETRISED(x @ _ops.adjoint(x), 1)
        if k == 0:
            size = _norm(gram)
            gram = gram / size
            x = x / xp.sqrt(size)
        r = identity - gram
        thin = [sketch @ r]
        for _ in range(4):
            thin.append(thin[-1] @ r)
        _, second, third, fourth, fifth = thin
        h0 = 0.75 * second + 0.25 * third
        h1 = third + fourth - 2 * second
        h2 = fifth - fourth

        def dot(u: Any, v: Any) -> Any:
            return xp.sum(xp.real(xp.conj(u) * v), axis=(-2, -1))[:, None]

        def power(k: int) -> Any:
            return alphas**k

        value = (
            dot(h0, h0) + 2 * dot(h0, h1) * power(1)
            + (dot(h1, h1) + 2 * dot(h0, h2)) * power(2)
            + 2 * dot(h1, h2) * power(3) + dot(h2, h2) * power(4)
        )  # fmt: skip
        alpha = xp.take(alphas[0, :], xp.argmin(value, axis=-1), axis=0)
        alpha = xp.astype(alpha, x.dtype)[:, None, None]
        x = x + (0.5 * r + alpha * (r @ r)) @ x
    return x


def _info(x: Any, good: Any, name: str, steps: int, batch: tuple[int, ...], like: Any) -> Info:
    xp, p = _xp.namespace(x), x.shape[-2]
    gap = x @ _ops.adjoint(x)
    gap = xp.abs(gap - _ops.eye_like(gap)) if p else xp.abs(gap)
    residual = xp.sqrt(xp.sum(gap**2, axis=(-2, -1))) / max(p, 1) ** 0.5
    counts = xp.zeros_like(good, dtype=_xp.dtype_of(xp, "int64")) + steps
    fields = {
        "iterations": xp.where(good, counts, xp.zeros_like(counts)), "converged": good,
        "residual": residual, "error_estimate": residual,
    }  # fmt: skip
    face = _xp.face(like)
    assert face is not None
    given = {k: face.leave(xp.reshape(v, batch), like) for k, v in fields.items()}
    return Info(name, **given)


def _report(good: Any, batch: tuple[int, ...], policy: str, answer: Any) -> None:
    xp = _xp.namespace(good)
    if not np.any(_xp.to_numpy(~xp.all(good))):
        return
    where = np.flatnonzero(~np.asarray(_xp.to_numpy(good)))
    index = tuple(tuple(int(i) for i in np.unravel_index(k, batch)) if batch else () for k in where)
    which = f" (batch members {', '.join(map(str, index[:8]))})" if batch else ""
    msg = f"orthogonalize: g holds NaN or infinity{which}; remove them, or pass on_fail='nan'"
    error = NonFiniteError(msg, index, answer)
    if policy == "raise":
        raise error
    warnings.warn(str(error), ConvergenceWarning, stacklevel=5)


def explain(g: Any, /, **options: Any) -> Explanation:
    """What a call would run."""
    x, _ = _entered(_xp.as_array("g", g))
    m, n = x.shape[-2], x.shape[-1]
    p, q = min(m, n), max(m, n)
    real = _xp.REAL[_xp.dtype_name(x)]
    name, table, _ = plan_steps(
        options.get("coeffs", "polar_express"), options.get("steps"), options.get("tol"), real
    )
    form, reason = choose_method(p, q, len(table))
    asked = options.get("method", "auto")
    if asked != "auto":
        form, reason = asked, "it was asked for"
    if name in ("auon", "prism", "hybrid_auon"):
        form, reason = "plain", f"coeffs={name!r}"
    xp = _xp.namespace(x)
    flat = xp.reshape(x, (math.prod(x.shape[:-2]), m, n))
    _, why = _ops.ODD_ITERATION.choose(flat)
    how = why if "<" in why else f"reference ({why})"
    used = {} if name in ("auon", "prism", "hybrid_auon") else {"odd_iteration": how}
    planes = 4.0 if _xp.dtype_name(x) in _xp.COMPLEX else 1.0
    steps, blocks = len(table), -(-len(table) // MOST_GRAM)
    flops = steps * (3 * p * p * q + p**3)
    if form == "gram":
        flops = blocks * 3 * p * p * q + (7 * steps - 6 * blocks) * p**3
    nbytes = 2.0 * math.prod(x.shape) * np.dtype(real).itemsize * planes**0.5
    total = float(flops) * flat.shape[0] * planes
    return Explanation("orthogonalize", form, reason, used, total, nbytes)
