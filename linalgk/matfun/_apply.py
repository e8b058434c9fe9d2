"""What every matrix function does at its door: check, flatten, compute, report, hand back."""

import math
from typing import Any, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.matfun import _device, _frechet, _general, _ops, _static, _traced
from linalgk.matfun._paths import SMALL, choose_method, empty, scan, solve, steps_table
from linalgk.matfun._report import finish, make_info
from linalgk.matfun._spectral import ASYMMETRIC, OK, Call, Scalar
from linalgk.typing import AssumeA, OnFail

# Methods that take tol or steps, and those that need a Hermitian matrix.
_ITERATIONS = ("minimax", "newton_schulz", "pade", "taylor")
_HERMITIAN = ("eigh", "minimax", "newton_schulz", "pade", "taylor")


def apply(name: str, function: Scalar, methods: tuple[str, ...], a: Any, **options: Any) -> Any:
    """Check at the door, compute on a flat batch, and hand back what came in."""
    face = _traced.torch_face(a, options.get("damp"), options.get("rel_damp"))
    if face is not None:
        return face.matrix_function(name, function, methods, a, options)
    with _lag.scope(a):
        return _apply(name, function, methods, a, **options)


def _apply(
    name: str, function: Scalar, methods: tuple[str, ...], a: Any, *, assume_a: Any = None,
    method: Any = "auto", tol: Any = None, steps: Any = None, compute_dtype: Any = None,
    check_finite: Any = None, on_fail: Any = None, out: Any = None, return_info: bool = False,
    damp: Any = 0, rel_damp: Any = 0, rcond: Any = None,
) -> Any:  # fmt: skip
    original, face, x, scalar = entered(a)
    xp, dtype = _xp.namespace(x), _xp.dtype_name(x)
    n, batch = _validate.square("a", x), tuple(x.shape[:-2])
    if face.family == "jax":
        _traced.prepare()
        if _xp.is_traced(x):
            given = {
                "assume_a": assume_a, "method": method, "tol": tol, "steps": steps, "rcond": rcond,
                "out": out, "on_fail": on_fail,
            }  # fmt: skip
            fixed = _traced.options(given, function, methods, n, batch, checked)
            work = _validate.compute_dtype(compute_dtype, dtype)
            answer = _traced.compute(
                name, xp.astype(x, _xp.dtype_of(xp, work)), fixed, damp, rel_damp, return_info
            )
            if return_info:
                return xp.astype(answer[0], x.dtype), answer[1]
            return xp.astype(answer, x.dtype)
    for word, value in (("damp", damp), ("rel_damp", rel_damp)):
        if _xp.face(value) is not None:
            _xp.same_family(a=original, **{word: value})
    target = None if out is None else _validate.out(out, original, tuple(x.shape), dtype)
    work_dtype = _validate.compute_dtype(compute_dtype, dtype)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    call = checked(
        function, methods, assume_a, method, tol, steps, rel_damp, rcond, batch, n
    )  # fmt: skip
    flat = xp.reshape(x, (math.prod(batch), n, n))
    if work_dtype != dtype:
        flat = xp.astype(flat, _xp.dtype_of(xp, work_dtype))
    flat = _damped(flat, damp, batch)
    flat = _lag.contiguous(flat)
    found: Any = None
    if _xp.is_cuda(flat) and math.prod(flat.shape):
        found = _device.compute(flat, call, policy)
    settled = found is not None
    if not settled:
        found = solve(flat, call) if math.prod(flat.shape) else empty(flat)
    result = found.x if work_dtype == dtype else xp.astype(found.x, x.dtype)
    info = None
    if return_info and settled:
        found = found.described()
        info = _static.info(
            found.a, found.x, found.good, function, found.method, found.steps, batch,
            found.lower, call.rcond is not None,
        )  # fmt: skip
    elif return_info:
        info = make_info(flat, found, call, batch, face, original)
    result = xp.reshape(result, tuple(x.shape))
    if target is not None:
        target[...] = result
    result = face.leave(result if target is None else target, original)
    if target is not None:
        result = out
    elif scalar:
        result = result[0, 0]
    if settled:
        return (result, info) if return_info else result
    return finish(name, function, flat, found, result, info, batch, check, policy)


POLICIES = get_args(OnFail)
# The default, told from an array or a number by identity.
ZERO = 0
# Native dtypes are singletons: identity is the cheapest test there is.
_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")
# What a quick call needs, by dtype, function and policy.
_prepared: dict[Any, Any] = {}


def quick(a: Any, function: Scalar) -> Any:
    """The whole call for small real NumPy arrays when nothing is unusual, else None."""
    shape, dtype = a.shape, a.dtype
    n = shape[-1] if len(shape) > 1 else 0
    if not 1 < n <= _frechet.SMALL or shape[-2] != n or not a.flags.c_contiguous:
        return None
    if dtype is not _DOUBLE and dtype is not _SINGLE:
        return None
    if n > SMALL:
        if not a.size or _config.current().backend == "reference":
            return None
        threads = _config.num_threads()
        call = Call(function, None, "auto", None, None, None, None, threads)
        found = _frechet.quick(a.reshape(-1, n, n), call, threads)
        return None if found is None else found[0].x.reshape(shape)
    key = (dtype is _DOUBLE, id(function), _config.current().backend)
    ready = _prepared.get(key)
    if ready is None:
        chosen, _ = _ops.SMALL_ROOT.choose(a)
        if chosen is None or function.factors is None:
            return None
        table = steps_table(dtype.name, function)
        # the record keeps the function alive, whose id is the key
        ready = chosen.load(), *function.factors, table, float(np.finfo(dtype).eps), function
        _prepared[key] = ready
    run, whole, num, den, table, eps, _ = ready
    flat = a if len(shape) == 3 else a.reshape(-1, n, n)
    x, _, bad = run(flat, whole, num, den, table, n * eps, _config.num_threads())
    return None if bad else x.reshape(shape)


def entered(a: Any) -> tuple[Any, _xp.Face, Any, bool]:
    """The argument as given, its face, what is computed with, and whether it was a number."""
    original = _xp.as_array("a", a)
    face = _xp.face(original)
    assert face is not None
    x = _validate.floating("a", face.enter(original))
    scalar = x.ndim == 0
    return original, face, _xp.namespace(x).reshape(x, (1, 1)) if scalar else x, scalar


def checked(
    function: Scalar, methods: tuple[str, ...], assume_a: Any, method: Any, tol: Any, steps: Any,
    rel_damp: Any, rcond: Any, batch: tuple[int, ...], n: int,
) -> Call:  # fmt: skip
    """The options of a call, or the sentence that says which of them contradict each other."""
    if assume_a is not None:
        _validate.choice("assume_a", assume_a, get_args(AssumeA))
    _validate.choice("method", method, methods)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 2.0**-53, 1.0)
    if steps is not None:
        steps = _validate.integer("steps", steps, 1)
    if tol is not None and steps is not None:
        msg = "tol and steps: give one of them, got both"
        raise ValueError(msg)
    iterative = method in _ITERATIONS or method == "auto"
    if (tol is not None or steps is not None) and not iterative:
        msg = f"tol and steps: method {method!r} is direct; use 'minimax' or 'newton_schulz'"
        raise ValueError(msg)
    if tol is not None and method == "taylor":
        msg = "tol: the series has no error bound; give steps, the number of its terms"
        raise ValueError(msg)
    half = _general.is_square_root(function)
    if method == "closed_form" and (n > 2 or (n == 2 and not half)):
        msg = f"method: 'closed_form' needs n <= {2 if half else 1}, got n = {n}"
        raise ValueError(msg)
    if method in ("schur", "db", "newton") and assume_a == "pos":
        msg = f"method: {method!r} is for general matrices; leave out assume_a='pos'"
        raise ValueError(msg)
    if method in _HERMITIAN and assume_a == "gen":
        msg = f"method: {method!r} is for Hermitian matrices; leave out assume_a='gen'"
        raise ValueError(msg)
    if method == "db" and not _general.is_root_of_two(function):
        msg = f"method: 'db' takes repeated square roots, p = 2, 4, 8, ...; got {function.power}"
        raise ValueError(msg)
    if method in _ITERATIONS and function.name == "power" and function.factors is None:
        msg = f"method: {method!r} serves powers from -8 to 1 with a denominator up to 16"
        raise ValueError(msg)
    if method in ("pade", "taylor") and function.name == "power":
        _, num, den = function.factors or (0, 0, 1)
        if num > den:
            msg = f"method: {method!r} serves powers between -1 and 1, got {function.power}"
            raise ValueError(msg)
    relative = _validate.per_member("rel_damp", rel_damp, batch)
    spectrum = rcond is not None or bool(relative.any())
    if rcond is not None:
        rcond = _validate.real_between("rcond", rcond, 0.0, 1.0)
    direct = method == "eigh" or (method == "auto" and tol is None and steps is None)
    if spectrum and (not direct or assume_a == "gen"):
        msg = "rel_damp and rcond need the spectrum: use method='eigh' and a Hermitian matrix"
        raise ValueError(msg)
    if (tol is not None or steps is not None) and method == "auto":
        method = "minimax"
    return Call(
        function, assume_a, method, tol, steps, relative if spectrum else None, rcond,
        _config.num_threads(),
    )  # fmt: skip


def _damped(flat: Any, damp: Any, batch: tuple[int, ...]) -> Any:
    absolute = _validate.per_member("damp", damp, batch)
    if not absolute.any():
        return flat
    xp = _xp.namespace(flat)
    shift = _xp.from_numpy(absolute, xp, like=flat, dtype=flat.dtype)
    return flat + shift[:, None, None] * _ops.eye_like(flat)


def explain(
    name: str, function: Scalar, methods: tuple[str, ...], a: Any, options: dict[str, Any]
) -> Explanation:
    """What a call would run."""
    _, _, x, _ = entered(a)
    xp = _xp.namespace(x)
    n, batch = _validate.square("a", x), tuple(x.shape[:-2])
    dtype = _validate.compute_dtype(options.get("compute_dtype"), _xp.dtype_name(x))
    call = checked(
        function, methods, options.get("assume_a"), options.get("method", "auto"),
        options.get("tol"), options.get("steps"), options.get("rel_damp", 0),
        options.get("rcond"), batch, n,
    )  # fmt: skip
    _validate.on_fail(options.get("on_fail"))
    flat = xp.reshape(x, (math.prod(batch), n, n))
    flat = xp.astype(flat, _xp.dtype_of(xp, dtype))
    flat = _lag.contiguous(flat)
    hermitian, diagonal, note = True, False, ""
    if call.assume_a == "gen":
        hermitian = False
    elif flat.shape[0] and n and not (call.assume_a and _xp.is_cuda(flat)):
        status, _, spread, _ = scan(flat, call)
        diagonal = bool(((status == OK) & (spread == 0)).all())
        if call.assume_a is None:
            hermitian = bool((status != ASYMMETRIC).any())
        others = int((status == ASYMMETRIC).sum()) if call.assume_a is None else 0
        if hermitian and others:
            general, _ = _general.choose_method(function, n, schur=isinstance(flat, np.ndarray))
            note = f"; {others} members are not Hermitian: {general}"
    method, reason = choose_method(
        function, n, dtype, hermitian=hermitian, spectrum=call.rel_damp is not None,
        schur=isinstance(flat, np.ndarray),
    )  # fmt: skip
    if _xp.is_cuda(flat) and hermitian:
        policy = _validate.on_fail(options.get("on_fail"))
        method, reason = _device.choose_method(
            function, fits=_device.kernel(flat, call) is not None,
            spectrum=call.rel_damp is not None, looks=not _device.is_blind(call, policy),
        )  # fmt: skip
    if call.method != "auto":
        method, reason = call.method, "it was asked for"
    elif diagonal and not _xp.is_cuda(flat):
        method, reason = "closed_form", "n = 1" if n == 1 else "diagonal"
    fused = _xp.is_cuda(flat) and _device.kernel(flat, call) is not None
    if method in ("minimax", "newton_schulz") and function.factors is not None and not fused:
        served = len(steps_table(dtype, function, method, call.tol, call.steps)) - 1
        note += f"; members of a condition beyond about 2^{served} go to eigh"
    return cost(name, function, method, reason + note, flat, n, dtype)


def cost(
    name: str, function: Scalar, method: str, reason: str, flat: Any, n: int, dtype: str
) -> Explanation:
    """The explanation of a choice with its flops and bytes."""
    planes = 2 if dtype in _xp.COMPLEX else 1
    small = n * planes <= SMALL
    if _xp.is_cuda(flat):
        small = _ops.SMALL_ROOT.choose(flat)[0] is not None
    small &= method in ("minimax", "newton_schulz")
    schur = {"log": _ops.GENERAL_LOG}.get(function.name, _ops.GENERAL_POWER)
    schur = _ops.GENERAL_SQRT if _general.is_square_root(function) else schur
    larger: tuple[Any, ...] = (_ops.HERMITIAN_SCAN, _ops.ROOT_ITERATION)
    if _xp.is_cuda(flat):
        larger = (_ops.HERMITIAN_SCAN, _ops.POLYNOMIAL, _ops.SYMMETRISED)
    steps = (_ops.SMALL_ROOT,) if small else larger
    steps = steps if function.factors is not None else (_ops.HERMITIAN_SCAN,)
    used: dict[str, tuple[Any, ...]] = {
        "eigh": (_ops.HERMITIAN_SCAN, _ops.EIGH, _ops.GRAM),
        "schur": (schur,), "closed_form": (), "taylor": (), "products": (),
        "db": (_ops.INVERSE, _ops.DB_STEP) if _xp.is_cuda(flat) else (_ops.INVERSE,),
        "newton": (_ops.INVERSE,), "pade": (_ops.INVERSE,),
    }  # fmt: skip
    implementations = {}
    for op in used.get(method, steps):
        _, why = op.choose(flat)
        implementations[op.name] = why if "<" in why else f"reference ({why})"
    # per member, in units of n^3: eigenvectors and product; Schur; 8 inverses and products;
    # 12 typical minimax steps
    units = {
        "eigh": 10.0, "schur": 28.0, "closed_form": 1.0, "db": 32.0, "newton": 24.0, "pade": 40.0,
        "taylor": 20.0, "products": 4.0,
    }.get(method, 48.0 if small else 72.0)  # fmt: skip
    flops = units * n**3 * flat.shape[0] * planes**2
    itemsize = np.dtype(dtype).itemsize
    return Explanation(
        name, method, reason, implementations, flops, 2.0 * flat.shape[0] * n * n * itemsize
    )
