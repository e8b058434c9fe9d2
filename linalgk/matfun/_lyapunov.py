"""Lyapunov and Sylvester equations: ``A X + X A^H = Q`` and ``A X + X B = Q``."""

import math
import warnings
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, get_args, overload

import numpy as np

from linalgk import _config, _lag, _validate, _xp, errors
from linalgk._dispatch import Explanation
from linalgk._lag import contiguous
from linalgk._results import Info
from linalgk.matfun import _ops, _traced
from linalgk.matfun._spectral import (
    ASYMMETRIC,
    INDEFINITE,
    NONFINITE,
    OK,
    SINGULAR,
    is_serial,
    take,
)
from linalgk.matfun._sylvester import (
    HERMITIAN,
    Equation,
    Options,
    Solved,
    choose_method,
    compute,
    real_of,
)
from linalgk.typing import ArrayT, AssumeA, OnFail

LyapunovMethod: TypeAlias = Literal["auto", "eigh", "schur", "sign", "minimax"]
METHODS = get_args(LyapunovMethod)


class _Words(TypedDict, total=False):
    assume_a: AssumeA | None
    method: Any
    check_finite: bool | None
    on_fail: OnFail | None


@overload
def solve_lyapunov(
    a: ArrayT, q: Any, /, *, return_info: Literal[True], **options: Unpack[_Words]
) -> tuple[ArrayT, Info]: ...
@overload
def solve_lyapunov(
    a: ArrayT, q: Any, /, *, return_info: Literal[False] = ..., **options: Unpack[_Words]
) -> ArrayT: ...
def solve_lyapunov(
    a: Any,
    q: Any,
    /,
    *,
    assume_a: AssumeA | None = None,
    method: LyapunovMethod = "auto",
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    """Solution X of the continuous Lyapunov equation ``A X + X A^H = Q``.

    Parameters
    ----------
    a : array, shape (..., n, n)
        Coefficients. Integers are computed as float64.
    q : array, shape (..., n, n)
        Right-hand sides; leading dimensions of both broadcast. A matrix ``a`` that all share is
        decomposed once.
    assume_a : {"gen", "her", "pos"}, optional
        General, Hermitian or Hermitian positive definite ``a``. By default it is found out, member
        by member, what is Hermitian to rounding.
    method : {"auto", "eigh", "schur", "sign", "minimax"}
        See Notes.
    check_finite : bool, optional
        Whether NaN or infinity is an error. Default True.
    on_fail : {"raise", "warn", "nan"}, optional
        What a failure of some members does. Default "raise".
    return_info : bool
        Also return an `Info`.

    Returns
    -------
    x : array, shape (..., n, n)
        Solution in the library and on the device of ``a``; exactly Hermitian where ``q`` is.
    info : Info
        Only with ``return_info``. ``residual`` is ``||A X + X A^H - Q|| / (2 ||A|| ||X|| + ||Q||)``
        and ``error_estimate`` a bound of the relative error for method ``eigh``, the residual's
        norm over ``min |w_i + w_j|`` and ``||X||``; NaN for other methods. Frobenius norms.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit; NonFiniteError and AsymmetricError are
        ValueErrors.
    SingularMatrixError
        ``a`` and ``-a^H`` share an eigenvalue to working precision: there is no solution, or more
        than one.
    NotPositiveSemidefiniteError
        A negative eigenvalue under ``assume_a="pos"``, where eigenvalues are computed.
    NotConvergedError
        The method does not serve some members; the sentence tells which one does.

    See Also
    --------
    solve_sylvester : two different coefficients.

    Notes
    -----
    ``eigh``: Hermitian A = V diag(w) V^H and ``X = V [(V^H Q V)_ij / (w_i + w_j)] V^H``, about
    ``18 n^3`` flops. ``schur``: any A, by its Schur form [1]_, about ``35 n^3``; NumPy arrays
    and PyTorch tensors on the CPU. ``sign``: products and inverses in any library, where all
    eigenvalues lie on one side of the imaginary axis: Newton's iteration for the sign of
    ``[[A, Q], [0, -A^H]] = [[I, 2X], [0, -I]]`` [2]_, about ``6 n^3`` for each of 8 or so steps.
    ``minimax``: products only, the polynomials of `minimax_schedule` of the same matrix, for
    definite A with a condition number below about 1e8 (single precision 1e4); it costs three
    digits. ``auto``: ``eigh`` for Hermitian members, ``schur`` for others where it is offered,
    else ``sign``.

    The relative error is about ``n eps ||A|| / sep`` with ``sep = min |w_i + w_j|`` for Hermitian
    A. Scaling A or Q by a power of two scales X exactly.

    References
    ----------
    .. [1] R. H. Bartels, G. W. Stewart, "Algorithm 432: Solution of the matrix equation
       AX + XB = C", Comm. ACM 15 (1972).
    .. [2] N. J. Higham, *Functions of Matrices*, SIAM, 2008, section 2.4.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.array([[2.0, 1.0], [0.0, 3.0]])
    >>> x = lk.solve_lyapunov(a, np.array([[5.0, 4.0], [4.0, 6.0]]))
    >>> x.round(12)
    array([[0.95, 0.6 ],
           [0.6 , 1.  ]])
    >>> np.allclose(a @ x + x @ a.T, [[5, 4], [4, 6]])
    True
    """
    options = Options(assume_a, method, check_finite, on_fail, return_info)
    with _lag.scope(a):
        return _solve("solve_lyapunov", a, None, q, options)


@overload
def solve_sylvester(
    a: ArrayT, b: Any, q: Any, /, *, return_info: Literal[True], **options: Unpack[_Words]
) -> tuple[ArrayT, Info]: ...
@overload
def solve_sylvester(
    a: ArrayT, b: Any, q: Any, /, *, return_info: Literal[False] = ..., **options: Unpack[_Words]
) -> ArrayT: ...
def solve_sylvester(
    a: Any,
    b: Any,
    q: Any,
    /,
    *,
    assume_a: AssumeA | None = None,
    method: LyapunovMethod = "auto",
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    """Solution X of the Sylvester equation ``A X + X B = Q``.

    Parameters
    ----------
    a : array, shape (..., m, m)
        Left coefficients. Integers are computed as float64.
    b : array, shape (..., n, n)
        Right coefficients.
    q : array, shape (..., m, n)
        Right-hand sides; leading dimensions of all three broadcast. A pair of coefficients that
        all share is decomposed once.
    assume_a : {"gen", "her", "pos"}, optional
        What is known of both ``a`` and ``b``, as in `solve_lyapunov`.
    method : {"auto", "eigh", "schur", "sign", "minimax"}
        See Notes.
    check_finite, on_fail, return_info
        As in `solve_lyapunov`.

    Returns
    -------
    x : array, shape (..., m, n)
        Solution in the library and on the device of ``a``.
    info : Info
        Only with ``return_info``. ``residual`` is
        ``||A X + X B - Q|| / ((||A|| + ||B||) ||X|| + ||Q||)`` and ``error_estimate`` a bound of
        the relative error for method ``eigh``, the residual's norm over ``min |w_i + u_j|`` and
        ``||X||``; NaN for other methods. Frobenius norms.

    Raises
    ------
    ValueError, TypeError, NotPositiveSemidefiniteError, NotConvergedError
        As in `solve_lyapunov`.
    SingularMatrixError
        ``a`` and ``-b`` share an eigenvalue to working precision.

    See Also
    --------
    solve_lyapunov : ``B = A^H``, at half the cost.

    Notes
    -----
    The methods of `solve_lyapunov` with two decompositions. ``eigh``: Hermitian A and B, ``X =
    V [(V^H Q W)_ij / (w_i + u_j)] W^H``. ``schur``: by the Schur forms of both [1]_. ``sign``:
    all eigenvalues of A and B on one side of the imaginary axis, the sign of
    ``[[A, Q], [0, -B]] = [[I, 2X], [0, -I]]`` [2]_. ``minimax``: the same by products only, for
    definite A and B. The relative error is about ``n eps (||A|| + ||B||) / sep`` with ``sep = min
    |w_i + u_j|`` for Hermitian A and B.

    References
    ----------
    .. [1] R. H. Bartels, G. W. Stewart, "Algorithm 432: Solution of the matrix equation
       AX + XB = C", Comm. ACM 15 (1972).
    .. [2] N. J. Higham, *Functions of Matrices*, SIAM, 2008, section 2.4.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, b = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([[1.0]])
    >>> lk.solve_sylvester(a, b, np.array([[4.0], [4.0]])).round(12)
    array([[1.],
           [1.]])
    """
    options = Options(assume_a, method, check_finite, on_fail, return_info)
    with _lag.scope(a):
        return _solve("solve_sylvester", a, b, q, options)


def _entered(name: str, a: Any, b: Any, q: Any) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """The arguments by name as given, the face of the first, and what is computed with."""
    given = {"a": a, "q": q} if b is None else {"a": a, "b": b, "q": q}
    given = {word: _xp.as_array(word, x) for word, x in given.items()}
    faces = {word: _xp.face(x) for word, x in given.items()}
    if any(found is None or found.family != "jax" for found in faces.values()):
        # a traced array of JAX does not know its device
        _xp.same_family(**given)
    entered = {}
    for word, x in given.items():
        found = faces[word]
        assert found is not None
        entered[word] = _validate.floating(word, found.enter(x))
    xp = _xp.namespace(entered["a"])
    dtype = xp.result_type(*entered.values())
    for word, x in entered.items():
        x = xp.reshape(x, (1, 1)) if x.ndim == 0 else x
        entered[word] = x if x.dtype == dtype else xp.astype(x, dtype)
    m = _validate.square("a", entered["a"])
    n = m if b is None else _validate.square("b", entered["b"])
    shape = tuple(entered["q"].shape)
    if shape[-2:] != (m, n):
        words = "(..., n, n) as a has it" if b is None else "(..., m, n) with the orders of a and b"
        msg = f"q: must have shape {words}, here (..., {m}, {n}), got {shape}"
        raise ValueError(msg)
    shapes = [tuple(x.shape[:-2]) for x in entered.values()]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        got = ", ".join(f"{w} {s}" for w, s in zip(entered, shapes, strict=True))
        msg = f"{name}: leading dimensions must broadcast, got {got}"
        raise ValueError(msg) from None
    return given, faces["a"], entered


def _checked(name: str, options: Options, *, schur: bool) -> None:
    """The sentence that says which options contradict each other."""
    if options.assume_a is not None:
        _validate.choice("assume_a", options.assume_a, get_args(AssumeA))
    method = _validate.choice("method", options.method, METHODS)
    if method in HERMITIAN and options.assume_a == "gen":
        msg = f"method: {method!r} is for Hermitian matrices; leave out assume_a='gen'"
        raise ValueError(msg)
    if method == "schur" and not schur:
        msg = f"method: {name} has 'schur' for arrays in the host's memory that LAPACK takes, "
        msg += "NumPy's and PyTorch's; use 'sign'"
        raise ValueError(msg)


def _equation(entered: dict[str, Any], batch: tuple[int, ...]) -> Equation:
    count = math.prod(batch)
    xp = _xp.namespace(entered["q"])
    words = [word for word in entered if word != "q"]
    shared = count > 1 and all(math.prod(entered[w].shape[:-2]) == 1 for w in words)

    def flat(x: Any, keep: bool) -> Any:
        shape = tuple(x.shape[-2:])
        if not keep and tuple(x.shape[:-2]) != batch:
            x = xp.broadcast_to(x, (*batch, *shape))
        return contiguous(xp.reshape(x, (1 if keep else count, *shape)))

    pair = [flat(entered[w], shared) for w in words]
    q = flat(entered["q"], False)
    equation = Equation(pair[0], pair[1] if len(pair) > 1 else None, q, 1)
    return equation._replace(threads=_config.num_threads() if is_serial(equation.large) else 1)


def _solve(name: str, a: Any, b: Any, q: Any, options: Options) -> Any:
    traced = _traced.torch_face(a, b, q)
    if traced is not None:
        return traced.equation(name, a, b, q, options)
    given, face, entered = _entered(name, a, b, q)
    xp = _xp.namespace(entered["q"])
    batch = np.broadcast_shapes(*(tuple(x.shape[:-2]) for x in entered.values()))
    _checked(name, options, schur=isinstance(entered["q"], np.ndarray))
    check, policy = _validate.check_finite(options.check_finite), _validate.on_fail(options.on_fail)
    blind = _xp.is_cuda(entered["q"]) and policy == "nan"
    if face.family == "jax":
        _traced.prepare()
        if any(_xp.is_traced(x) for x in entered.values()):
            _untraceable(name, options)
            return _solve_traced(entered, batch, options, face)
    # without a method and without a word about the structure somebody has to look at it
    blind = blind and (options.method != "auto" or options.assume_a is not None)
    equation = _equation(entered, batch)
    found = compute(equation, options)
    result = xp.reshape(found.x, (*batch, *found.x.shape[-2:]))
    info = _info(found, batch, face, given["q"]) if options.return_info else None
    result = face.leave(result, given["q"])
    if all(x.ndim == 0 for x in given.values()):
        result = result[0, 0]
    complete = result if info is None else (result, info)
    if blind:
        return complete
    return _reported(name, equation, found, complete, batch, check, policy)


def _solve_traced(
    entered: dict[str, Any], batch: tuple[int, ...], options: Options, face: _xp.Face
) -> Any:  # fmt: skip
    """Without a look, with derivatives."""
    xp = _xp.namespace(entered["q"])
    whole = {w: xp.broadcast_to(x, (*batch, *x.shape[-2:])) for w, x in entered.items()}
    x = _traced.jax_face().solve(whole["a"], whole.get("b"), whole["q"], options)
    if not options.return_info:
        return x
    found = compute(_equation(_traced.fixed(entered), batch), options)
    return x, _info(found, batch, face, x)


def _untraceable(name: str, options: Options) -> None:
    if options.assume_a not in ("her", "pos") or options.method not in ("auto", *HERMITIAN):
        msg = (
            f"{name}: under jax.jit and jax.vmap only the methods 'eigh' and 'minimax', for "
            "Hermitian matrices; give assume_a='her' or 'pos'"
        )
        raise ValueError(msg)


# ---- what is said ----


def _info(found: Solved, batch: tuple[int, ...], face: _xp.Face, like: Any) -> Info:
    xp, good = _xp.namespace(found.x), found.status == OK

    def ratio(x: Any, y: Any) -> Any:
        value = x / xp.where(y == 0, xp.ones_like(y), y)
        return xp.where(good, value, xp.full_like(value, float("nan")))

    with np.errstate(all="ignore"):
        real = real_of(found.x)
        fields = {
            "iterations": xp.where(good, found.steps, 0 * found.steps),
            "converged": good,
            "residual": xp.astype(ratio(found.size, found.scale), real),
            "error_estimate": xp.astype(ratio(found.size, found.gap * found.norm), real),
        }
    return Info(
        found.method, **{k: face.leave(xp.reshape(v, batch), like) for k, v in fields.items()}
    )


def _reported(
    name: str, equation: Equation, found: Solved, complete: Any, batch: tuple[int, ...],
    check: bool, policy: str,
) -> Any:  # fmt: skip
    """Report failures as asked and return."""
    xp = _xp.namespace(found.x)
    if _xp.is_cuda(found.x) and not np.any(_xp.to_numpy(xp.any(found.status != OK))):
        return complete
    status = np.asarray(_xp.to_numpy(found.status))
    kinds = [int(k) for k in np.unique(status) if k != OK and (check or k != NONFINITE)]
    if not kinds or policy == "nan":
        return complete
    # NONFINITE sorts first: bad data explain the other failures
    failures = [_error(name, equation, found.method, k, status, complete, batch) for k in kinds]
    if policy == "raise":
        raise failures[0]
    warnings.warn("; ".join(map(str, failures)), errors.ConvergenceWarning, stacklevel=4)
    return complete


def _error(
    name: str, equation: Equation, method: str, kind: int, status: Any, result: Any,
    batch: tuple[int, ...],
) -> errors.MemberError:  # fmt: skip
    def members(where: Any) -> tuple[Any, ...]:
        return tuple(tuple(map(int, np.unravel_index(k, batch))) if batch else () for k in where)

    where, every = np.flatnonzero(status == kind), members(np.flatnonzero(status != OK))
    named = members(where)
    which = f" (batch members {', '.join(map(str, named[:8]))}{', …' if len(named) > 8 else ''})"
    which = which if batch else ""
    arrays = {"a": equation.a, "q": equation.q}
    if equation.b is not None:
        arrays = {"a": equation.a, "b": equation.b, "q": equation.q}
    host = {
        word: np.asarray(_xp.to_numpy(take(x, where[:1] if x.shape[0] > 1 else np.zeros(1, int))))[
            0
        ]
        for word, x in arrays.items()
    }
    words = [word for word in host if word != "q"]
    if kind == NONFINITE:
        word = next(w for w in host if not np.isfinite(host[w]).all())
        msg = f"{name}: {word} holds NaN or infinity{which}; remove them, or pass on_fail='nan'"
        return errors.NonFiniteError(msg, every, result)
    if kind == ASYMMETRIC:
        defects = {w: np.linalg.norm(host[w] - host[w].conj().T) for w in words}
        word = max(words, key=lambda w: defects[w] / np.linalg.norm(host[w]))
        relative = defects[word] / np.linalg.norm(host[word])
        msg = (
            f"{name}: {word} is not Hermitian: ||A - A^H|| = {relative:.1e} ||A||{which}; "
            "symmetrise it first, or leave out assume_a and method"
        )
        return errors.AsymmetricError(msg, every, result)
    if kind == INDEFINITE:
        lows = {w: float(np.linalg.eigvalsh(host[w])[0]) for w in words}
        word = min(words, key=lambda w: lows[w])
        msg = (
            f"{name}: {word} has the negative eigenvalue {lows[word]:.6g}{which}, which "
            "assume_a='pos' rules out; pass assume_a='her'"
        )
        return errors.NotPositiveSemidefiniteError(msg, every, result)
    other = "-a^H" if equation.b is None else "-b"
    if kind == SINGULAR:
        msg = (
            f"{name}: a and {other} share an eigenvalue to working precision{which}, so that there "
            "is no solution, or more than one; shift a by a multiple of the identity"
        )
        return errors.SingularMatrixError(msg, every, result)
    both = "a" if equation.b is None else "a and b"
    reasons = {
        "sign": f"it needs the eigenvalues of {both} well on one side of the imaginary axis; use "
        "method='schur' (NumPy arrays, PyTorch tensors on the CPU)",
        "minimax": f"it needs {both} definite and not near singular; use method='eigh'",
    }
    reason = next((reasons[word] for word in reasons if word in method), "")
    reason = reason or f"it may leave the range of {_xp.dtype_name(equation.q)}; scale q"
    msg = f"{name}: no solution was found to working precision by {method!r}{which}; {reason}"
    return errors.NotConvergedError(msg, every, result)


def explain_lyapunov(a: Any, q: Any, /, **options: Any) -> Explanation:
    """What `solve_lyapunov` would run."""
    return _explain("solve_lyapunov", a, None, q, Options(**options))


def explain_sylvester(a: Any, b: Any, q: Any, /, **options: Any) -> Explanation:
    """What `solve_sylvester` would run."""
    return _explain("solve_sylvester", a, b, q, Options(**options))


def _explain(name: str, a: Any, b: Any, q: Any, options: Options) -> Explanation:
    _, _, entered = _entered(name, a, b, q)
    schur = isinstance(entered["q"], np.ndarray)
    _checked(name, options, schur=schur)
    batch = np.broadcast_shapes(*(tuple(x.shape[:-2]) for x in entered.values()))
    equation = _equation(entered, batch)
    hermitian, note = options.assume_a != "gen", ""
    if options.assume_a is None and 0 not in equation.q.shape:
        tol = equation.eps * max(equation.q.shape[-2:])
        scans = [_ops.HERMITIAN_SCAN(x, equation.threads) for x in equation.pairs]
        good = np.all([np.asarray(_xp.to_numpy(d <= tol * s)) for s, d, _ in scans], axis=0)
        hermitian = bool(good.any())
        if hermitian and not good.all():
            general, _ = choose_method(hermitian=False, schur=schur)
            note = f"; {int((~good).sum())} members are not Hermitian: {general}"
    method, reason = choose_method(hermitian=hermitian, schur=schur)
    if options.method != "auto":
        method, reason, note = options.method, "it was asked for", ""
    used: dict[str, tuple[Any, ...]] = {
        "eigh": (_ops.HERMITIAN_SCAN, _ops.EIGH, _ops.MATMUL),
        "sign": (_ops.HERMITIAN_SCAN, _ops.INVERSE, _ops.MATMUL),
    }
    implementations = {}
    for op in used.get(method, (_ops.HERMITIAN_SCAN, _ops.MATMUL)):
        _, why = op.choose(equation.a)
        implementations[op.name] = why if "<" in why else f"reference ({why})"
    units = {"eigh": 18.0, "schur": 35.0, "sign": 50.0, "minimax": 200.0}[method]
    m, n = equation.q.shape[-2:]
    planes = 2 if _xp.dtype_name(equation.q) in _xp.COMPLEX else 1
    flops = units * max(m, n) ** 3 * equation.q.shape[0] * planes**2
    itemsize = np.dtype(_xp.dtype_name(equation.q)).itemsize
    size = sum(math.prod(x.shape) for x in (*equation.pairs, equation.q, equation.q))
    return Explanation(name, method, reason + note, implementations, flops, float(size * itemsize))
