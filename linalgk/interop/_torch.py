"""PyTorch's face: derivatives, ``torch.func`` and ``torch.compile``."""

import functools
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from linalgk import _config, _lag, _validate, _xp
from linalgk.interop._shared import composed, largest
from linalgk.interop._torch_functions import (
    Given,
    Short,
    general_of,
    is_undifferentiated,
    lyapunov_of,
    orthogonalize_of,
    polar_of,
    root_of,
    spectral_of,
    sylvester_of,
)
from linalgk.interop._torch_ops import flat_batch, function, read, written
from linalgk.matfun import _apply, _frechet, _general, _lyapunov, _ops, _paths, _static
from linalgk.matfun._apply import POLICIES, ZERO
from linalgk.matfun._spectral import NONFINITE, OK, Call, Scalar

_DIRECT = ("auto", "eigh", "closed_form")
_HALF = Fraction(1, 2)
_functorch = getattr(torch._C, "_functorch", None)


def wants(*arrays: Any) -> bool:
    """Whether the call is differentiated, batched by ``torch.func`` or compiled."""
    tensors = [x for x in arrays if isinstance(x, Tensor)]
    if torch.compiler.is_compiling():
        return bool(tensors)
    return any(map(_is_special, tensors))


def _is_special(x: Tensor) -> bool:
    if (x.requires_grad and torch.is_grad_enabled()) or _is_wrapped(x):
        return True
    forward = torch.autograd.forward_ad
    if getattr(forward, "_current_level", -1) < 0:
        return False
    return forward.unpack_dual(x).tangent is not None


def _is_wrapped(x: Tensor) -> bool:
    return _functorch is not None and bool(_functorch.is_functorch_wrapped_tensor(x))


def is_blind(*arrays: Any) -> bool:
    """Whether no value may be looked at."""
    if torch.compiler.is_compiling():
        return True
    return any(_is_wrapped(x) for x in arrays if isinstance(x, Tensor))


def _refused(name: str, options: dict[str, Any], blind: bool = True) -> None:
    if options.get("out") is not None:
        msg = "out: a result that is differentiated or compiled needs memory of its own"
        raise TypeError(msg)
    if blind and options.get("assume_a") is None:
        msg = f"{name}: assume_a must be given under torch.compile and torch.func"
        raise ValueError(msg)


def _widened(a: Tensor, compute_dtype: Any) -> Tensor:
    """In the precision that was asked for; integers in double precision."""
    name = str(a.dtype).rpartition(".")[2]
    if name not in _xp.REAL:
        a = a.to(torch.float64) if not a.is_floating_point() else a
        _validate.floating("a", a)
        name = str(a.dtype).rpartition(".")[2]
    work = _validate.compute_dtype(compute_dtype, name)
    return a if work == name else a.to(getattr(torch, work))


def matrix_function(
    name: str, scalar: Scalar, methods: tuple[str, ...], a: Tensor, options: dict[str, Any]
) -> Any:  # fmt: skip
    """A function of the matrices, differentiable in them and in the damping."""
    if name == "signm":
        msg = "signm: has no derivatives, and is not for torch.compile; call .detach()"
        raise TypeError(msg)
    if torch.compiler.is_compiling():
        return compiled_function(name, *_KINDS[name], a, options)
    short = _short(name, scalar, methods, a, options)
    if short is not None:
        return short
    blind = is_blind(a)
    _refused(name, options, blind)
    policy = "nan" if blind else _validate.on_fail(options.get("on_fail"))
    given, dtype = a, a.dtype
    damp, rel_damp = options.get("damp", 0), options.get("rel_damp", 0)
    assume, method = options.get("assume_a"), options.get("method", "auto")
    scalar_input = a.ndim == 0
    a = a.reshape(1, 1) if scalar_input else a
    n, batch = _validate.square("a", a), tuple(a.shape[:-2])
    ratio = isinstance(rel_damp, Tensor) or bool(np.any(rel_damp))
    check = _validate.check_finite(options.get("check_finite"))
    call, spec = _settled(
        name, scalar, methods, assume, method, options.get("tol"), options.get("steps"), ratio,
        options.get("rcond"), n, check, policy,
    )  # fmt: skip
    x = _widened(a, options.get("compute_dtype"))
    hermitian = assume in ("her", "pos")
    if assume is None and call.method not in _general.METHODS:
        hermitian = _all_hermitian(x, call)
    for word, value in (("damp", damp), ("rel_damp", rel_damp)):
        if isinstance(value, Tensor) and not blind:
            _xp.same_family(a=a, **{word: value})
    x = _damped(x, damp, 1, batch)
    if ratio:
        x = _damped(x, rel_damp, _largest(0.5 * (x + x.mH), blind), batch)
    result, how = _evaluated(x, scalar, call, hermitian, spec)
    info = None
    if options.get("return_info"):
        good = torch.isfinite(result.detach().abs()).all(-1).all(-1)
        info = _info(x.detach(), result.detach(), good, scalar, how, batch, call)
    if given.is_floating_point() or given.is_complex():
        result = result.to(dtype)
    result = result[0, 0] if scalar_input else result
    return result if info is None else (result, info)


class _Known(NamedTuple):
    """A root of NumPy arrays and what its derivative needs."""

    x: Any
    spectrum: Any
    inverse: bool
    part: bool
    threads: int

    def derivative(self, g: Any) -> Any:
        w, v = self.spectrum
        return _ops.ROOT_DERIVATIVE(g, v, np.sqrt(w), self.inverse, self.part, self.threads)


_ROOTS = ("sqrtm", "invsqrtm")
_UNUSUAL = ("tol", "steps", "compute_dtype", "out", "rcond")
_REAL = (torch.float32, torch.float64)


def _short(
    name: str, scalar: Scalar, methods: tuple[str, ...], a: Tensor, options: dict[str, Any]
) -> Tensor | None:  # fmt: skip
    """Square roots of small real matrices on the host in few calls, if nothing is unusual."""
    if name not in _ROOTS or a.dtype not in _REAL or a.device.type != "cpu" or a.ndim < 2:
        return None
    n, get = a.shape[-1], options.get
    assume = get("assume_a")
    if a.shape[-2] != n or not 1 < n <= _frechet.SMALL or not a.numel() or assume == "gen":
        return None
    if get("method") != "auto" or get("on_fail") not in (None, *POLICIES):
        return None
    if any(get(word) is not None for word in _UNUSUAL) or get("return_info"):
        return None
    # the defaults, told from an array or a number by identity
    if get("damp", ZERO) is not ZERO or get("rel_damp", ZERO) is not ZERO:
        return None
    if not is_undifferentiated():
        return None
    # what is not finite is no short way
    call, spec = _settled(
        name, scalar, methods, assume, "auto", None, None, False, None, n, True, "nan"
    )  # fmt: skip
    threads = _config.num_threads()
    flat = a.detach().numpy().reshape(-1, n, n)
    if not flat.flags.c_contiguous:
        flat = np.ascontiguousarray(flat)
    found = _frechet.quick(flat, call, threads)
    if found is None:
        return None
    known = _Known(found[0].x, found[1], scalar.inverse, assume is not None, threads)
    result: Tensor = Short.apply(a, known, spec)
    return result


@functools.lru_cache(maxsize=256)
def _settled(
    name: str, scalar: Scalar, methods: tuple[str, ...], assume: Any, method: Any, tol: Any,
    steps: Any, ratio: bool, rcond: Any, n: int, check: bool, policy: str,
) -> tuple[Call, str]:  # fmt: skip
    """The options, found to fit together, and as a string."""
    call = _apply.checked(
        scalar, methods, assume, method, tol, steps, float(ratio), rcond, (), n
    )  # fmt: skip
    spec = written(
        name, scalar.name, str(scalar.power), assume_a=assume, method=call.method, tol=call.tol,
        steps=call.steps, rcond=call.rcond, check=check, policy=policy,
    )  # fmt: skip
    return call, spec


_KINDS = {
    "sqrtm": ("power", "1/2"),
    "invsqrtm": ("power", "-1/2"),
    "logm": ("log", "1"),
}


def compiled_function(name: str, kind: str, power: str, a: Tensor, options: dict[str, Any]) -> Any:
    """The same in words that the compiler follows; options are checked by the operator."""
    _refused(name, options)
    if options.get("return_info"):
        msg = f"{name}: return_info is not for torch.compile"
        raise TypeError(msg)
    assume, method = options["assume_a"], options.get("method", "auto")
    tol, steps, rcond = options.get("tol"), options.get("steps"), options.get("rcond")
    if method == "auto" and (tol is not None or steps is not None):
        method = "minimax"
    x = a if a.is_floating_point() or a.is_complex() else a.to(torch.float64)
    wanted = options.get("compute_dtype")
    dtype = x.dtype
    x = x if wanted is None else x.to(_widened(x, wanted).dtype)
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    damp, rel_damp = options.get("damp", 0), options.get("rel_damp", 0)
    if isinstance(damp, Tensor) or damp != 0:
        x = x + _column(damp) * eye
    if isinstance(rel_damp, Tensor) or rel_damp != 0:
        top = torch.linalg.eigvalsh(0.5 * (x + x.mH))[..., -1].clamp(min=0)
        x = x + _column(rel_damp * top) * eye
    spec = written(
        name, kind, power, assume_a=assume, method=method, tol=tol, steps=steps, rcond=rcond,
        check=False, policy="nan",
    )  # fmt: skip
    hermitian = assume != "gen"
    if hermitian and method in _DIRECT:
        result = spectral_of(x, spec)[0]
    elif power in ("1/2", "-1/2") and rcond is None:
        result = root_of(x, spec)
    elif not hermitian:
        result = general_of(x, spec)
    else:
        msg = f"{name}: torch.compile offers method 'eigh' for Hermitian matrices, got {method!r}"
        raise ValueError(msg)
    return result.to(dtype)


def _column(x: Any) -> Any:
    return x[..., None, None] if isinstance(x, Tensor) else x


def inverse_root(a: Tensor, p: Any, options: dict[str, Any]) -> Any:
    """``A^(-1/p)`` under the compiler, which knows integers."""
    if not isinstance(p, int) or p < 1:
        msg = f"p: must be a positive int under torch.compile, got {p!r}"
        raise TypeError(msg)
    return compiled_function("inv_root", "power", f"-1/{p}", a, options)


def power(a: Tensor, t: Any, options: dict[str, Any]) -> Any:
    """``A^t`` under the compiler, which knows numbers."""
    if not isinstance(t, int | float):
        msg = f"t: must be an int or a float under torch.compile, got {t!r}"
        raise TypeError(msg)
    return compiled_function("powm", "power", f"{t}", a, options)


def _damped(x: Tensor, damp: Any, unit: Any, batch: tuple[int, ...]) -> Tensor:
    if isinstance(damp, int | float) and damp == 0:
        return x
    if not isinstance(damp, Tensor):
        values = _validate.per_member("damp", damp, batch)
        if not values.any():
            return x
        damp = torch.as_tensor(values.reshape(batch), dtype=x.real.dtype, device=x.device)
    damp = damp.to(x.real.dtype) * unit
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return x + damp.expand(batch)[..., None, None] * eye


def _largest(x: Tensor, blind: bool) -> Tensor:
    """The largest eigenvalue of Hermitian matrices, at least zero."""
    top: Tensor = torch.linalg.eigvalsh(x)[..., -1] if blind else largest(torch, x)
    return top.clamp(min=0)


def _all_hermitian(x: Tensor, call: Call) -> bool:
    if 0 in x.shape:
        return True
    with _lag.scope(x):
        status, _, _, _ = _paths.scan(flat_batch(x)[0], call)
    return bool(((status == OK) | (status == NONFINITE)).all())


def _evaluated(x: Tensor, scalar: Scalar, call: Call, hermitian: bool, spec: str) -> Any:
    root = scalar.name == "power" and abs(scalar.power) == _HALF
    if hermitian and call.method in _DIRECT:
        return spectral_of(x, spec)[0], "eigh"
    if root and call.rcond is None:
        return root_of(x, spec), call.method
    if not hermitian:
        return general_of(x, spec), call.method
    # the derivative by eigenvectors of a value that was asked for in another way
    direct = spectral_of(x, _direct(spec))[0]
    return direct + (function(x.detach(), spec) - direct).detach(), call.method


def _direct(spec: str) -> str:
    r = read(spec)
    return written(
        r.name, r.function.name, str(r.function.power), assume_a=r.call.assume_a, method="eigh",
        rcond=r.call.rcond, check=r.check, policy=r.policy,
    )  # fmt: skip


def _info(
    a: Tensor, x: Tensor, good: Tensor, scalar: Scalar, method: str, batch: tuple[int, ...],
    call: Call,
) -> Any:  # fmt: skip
    n = a.shape[-1]
    return _static.info(
        a.reshape(-1, n, n), x.reshape(-1, n, n), good.reshape(-1), scalar, method, 0, batch,
        projected=call.rcond is not None,
    )  # fmt: skip


def equation(name: str, a: Any, b: Any, q: Any, options: Any) -> Any:
    """The solution of a Lyapunov (b None) or Sylvester equation."""
    arrays = [x for x in (a, b, q) if x is not None]
    blind = is_blind(*arrays)
    if blind and options.assume_a is None and options.method == "auto":
        msg = f"{name}: assume_a must be given under torch.compile and torch.func"
        raise ValueError(msg)
    if blind and options.return_info:
        msg = f"{name}: return_info is not for torch.compile and torch.func"
        raise TypeError(msg)
    check, policy = False, "nan"
    if not blind:
        _xp.same_family(**{w: x for w, x in (("a", a), ("b", b), ("q", q)) if x is not None})
        check = _validate.check_finite(options.check_finite)
        policy = _validate.on_fail(options.on_fail)
    dtype = functools.reduce(torch.promote_types, [x.dtype for x in arrays])
    dtype = dtype if dtype.is_floating_point or dtype.is_complex else torch.float64
    rank = max(2, *[x.ndim for x in arrays])
    wide = [x.to(dtype).reshape((1,) * (rank - x.ndim) + tuple(x.shape)) for x in arrays]
    spec = written(
        name, "power", "1", assume_a=options.assume_a, method=options.method, check=check,
        policy=policy,
    )  # fmt: skip
    x = (lyapunov_of if b is None else sylvester_of)(*wide, spec)
    x = x[0, 0] if all(t.ndim == 0 for t in arrays) else x
    if not options.return_info:
        return x
    given = [t.detach() for t in arrays]
    solve = _lyapunov.solve_lyapunov if b is None else _lyapunov.solve_sylvester
    return x, solve(*given, **options._asdict())[1]


def as_it_is(g: Tensor) -> tuple[Tensor, Any]:
    """What is computed with by PyTorch itself, and how to hand it back."""
    if g.dtype in (torch.float16, torch.bfloat16):
        return g.float(), lambda y: y.to(g.dtype)
    x = g if g.is_floating_point() or g.is_complex() else g.to(torch.float64)
    return x, lambda y: y


def orthogonalize(
    g: Tensor, coeffs: Any, steps: Any, method: Any, tol: Any, compute_dtype: Any, out: Any,
    return_info: bool,
) -> Any:  # fmt: skip
    """As an operator."""
    if out is not None:
        msg = "out: a result that is differentiated or compiled needs memory of its own"
        raise TypeError(msg)
    if return_info:
        msg = "orthogonalize: return_info is not for torch.compile"
        raise TypeError(msg)
    if not isinstance(coeffs, str):
        msg = f"coeffs: must be a name under torch.compile, got {type(coeffs).__name__}"
        raise TypeError(msg)
    spec = ";".join([coeffs, str(steps), method, str(tol), str(compute_dtype)])
    return orthogonalize_of(g, spec)


class Factors(NamedTuple):
    """Polar factors where no `Info` can be made."""

    U: Tensor
    H: Tensor


def polar(a: Tensor, direct: Any, options: dict[str, Any]) -> Any:
    """Both factors of one matrix or many, of any shape; ``direct`` computes them."""
    side, method = options["side"], options["method"]
    blind = is_blind(a)
    x = a if torch.compiler.is_compiling() else _widened(a, options["compute_dtype"])
    wide = x.shape[-2] < x.shape[-1]
    tall = x.mH if wide else x
    if blind:
        u, h = polar_of(tall, method)
    else:
        _validate.choice("side", side, ("right", "left"))
        words = {k: options[k] for k in ("method", "check_finite", "on_fail")}
        found = direct(tall.detach(), **words)
        u, h = polar_of(tall, method, Given(found))
    if wide == (side == "right"):
        # the factor on the longer side
        h = u @ h @ u.mH
        h = 0.5 * (h + h.mH)
    u = u.mH if wide else u
    if blind:
        return Factors(u, h)
    u, h = (y.to(a.dtype) if a.is_floating_point() or a.is_complex() else y for y in (u, h))
    return type(found)((u, h), found.info)


def bures_distance(a: Tensor, b: Tensor, direct: Any, options: dict[str, Any]) -> Tensor:
    """The distance with its derivatives; ``direct`` computes its square without cancellation."""
    given = (a, b, options["mean_a"], options["mean_b"], options["metric"])
    value = None
    if not is_blind(*given):
        named = dict(zip(("a", "b", "mean_a", "mean_b", "metric"), given, strict=True))
        _xp.same_family(**{word: x for word, x in named.items() if x is not None})
        a, b, *others = (None if x is None else x.detach() for x in given)
        words = dict(zip(("mean_a", "mean_b", "metric"), others, strict=True))
        value = direct(a, b, **{**options, **words, "squared": True})
    options = {k: options[k] for k in ("squared", "power")}
    result: Tensor = composed(torch, given, value, **options)
    return result
