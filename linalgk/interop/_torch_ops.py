"""Kernels as operators of PyTorch, which its compiler does not look into.

Options travel as a string, because an operator's schema can hold one.
"""

import functools
import threading
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op

from linalgk import _config, _lag, _validate, _xp
from linalgk.matfun import (
    _apply,
    _frechet,
    _lyapunov,
    _orthogonalize,
    _powers,
    _report,
    _roots,
)
from linalgk.matfun._polar import METHODS as POLAR_METHODS
from linalgk.matfun._polar import polar as polar_factors
from linalgk.matfun._spectral import Call, Scalar, workers


class Request(NamedTuple):
    """The options of a call, known before any value is."""

    name: str
    function: Scalar
    call: Call
    check: bool
    policy: str


_SEPARATOR = ";"
_WORDS = ("assume_a", "method", "tol", "steps", "rcond", "check", "policy")


def written(name: str, kind: str, power: str, **options: Any) -> str:
    values = [options.get(word) for word in _WORDS]
    return _SEPARATOR.join([name, kind, power, *[str(v) for v in values]])


def is_hermitian(spec: str) -> bool:
    """Whether the caller said that the argument is; the compiler follows no more than this."""
    return spec.split(_SEPARATOR)[3] in ("her", "pos")


def is_inverse(spec: str) -> bool:
    return spec.split(_SEPARATOR)[2][0] == "-"


def method_of(spec: str) -> str:
    return spec.split(_SEPARATOR)[4]


def silent(spec: str) -> str:
    """The same where failures were told already."""
    return spec.rsplit(_SEPARATOR, 1)[0] + _SEPARATOR + "nan"


@functools.lru_cache(maxsize=256)
def read(spec: str) -> Request:
    name, kind, power, *values = spec.split(_SEPARATOR)
    given = {word: None if v == "None" else v for word, v in zip(_WORDS, values, strict=True)}
    function = Scalar(kind, Fraction(power))

    def number(word: str, kind: Any) -> Any:
        return None if given[word] is None else kind(given[word])

    call = Call(
        function, given["assume_a"], given["method"] or "auto", number("tol", float),
        number("steps", int), None, number("rcond", float), 1,
    )  # fmt: skip
    return Request(name, function, call, given["check"] != "False", given["policy"] or "nan")


def flat_batch(x: Tensor) -> tuple[Any, _xp.Face]:
    """The flat batch as kernels read it."""
    face = _xp.face(x)
    assert face is not None
    a = face.enter(x.detach())
    flat = _xp.namespace(a).reshape(a, (-1, *a.shape[-2:]))
    return _lag.contiguous(flat), face


def _handed(x: Any, face: _xp.Face, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    found: Tensor = face.leave(x.reshape(shape), like)
    return found


def _checked(spec: str, a: Tensor) -> None:
    """The sentences about options, for calls whose doors were traced and not run."""
    r = read(spec)
    c = r.call
    methods = {"logm": _powers.LOG_METHODS, "powm": _powers.POWER_METHODS}
    _apply.checked(
        r.function, methods.get(r.name, _roots.METHODS), c.assume_a, c.method, c.tol, c.steps, 0,
        c.rcond, tuple(a.shape[:-2]), _validate.square("a", a),
    )  # fmt: skip


def _threads(call: Call) -> Call:
    return call._replace(threads=_config.num_threads())


_PLAIN = (Tensor, torch.nn.Parameter)


def operator(name: str) -> Any:
    """An operator of this name; plain tensors go to its kernel without a way round."""

    def wrap(run: Any) -> Any:
        def whole(*args: Any) -> Any:
            out = run(*args)
            if isinstance(out, Tensor):
                return out.contiguous()
            return tuple(x.contiguous() for x in out)

        whole.__annotations__, whole.__wrapped__ = run.__annotations__, run  # type: ignore[attr-defined]
        op = custom_op(f"linalgk::{name}", mutates_args=())(whole)

        def call(*args: Any) -> Any:
            if torch.compiler.is_compiling() or type(args[0]) not in _PLAIN:
                return op(*args)
            return run(*args)

        call.register_fake = op.register_fake  # type: ignore[attr-defined]
        return call

    return wrap


@operator("spectral")
def spectral(a: Tensor, spec: str) -> tuple[Tensor, Tensor, Tensor]:
    if 0 in a.shape:
        return a.clone(), a.new_empty(a.shape[:-1], dtype=torch.float64), a.clone()
    request = read(spec)
    with _lag.scope(a):
        flat, face = flat_batch(a)
        found, spectrum = _frechet.spectral(flat, _threads(request.call))
        x = _handed(found.x, face, a, tuple(a.shape))
        _report.finish(
            request.name, request.function, flat, found, x, None, tuple(a.shape[:-2]),
            request.check, request.policy,
        )  # fmt: skip
        w = _handed(spectrum.w, face, a, tuple(a.shape[:-1]))
        return x, w.to(torch.float64), _handed(spectrum.v, face, a, tuple(a.shape))


@spectral.register_fake
def _(a: Tensor, spec: str) -> tuple[Tensor, Tensor, Tensor]:
    _checked(spec, a)
    w = a.new_empty(a.shape[:-1], dtype=torch.float64)
    return _like(a), w, _like(a)


def _like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _spectrum(w: Tensor, v: Tensor) -> _frechet.Spectrum:
    face = _xp.face(w)
    assert face is not None
    wide = face.enter(w.detach())
    vectors = face.enter(v.detach())
    n = v.shape[-1]
    return _frechet.Spectrum(wide.reshape((-1, n)), vectors.reshape((-1, n, n)))


def _derivative(
    derive: Any, w: Tensor, v: Tensor, directions: tuple[Tensor, ...], spec: str
) -> Any:
    g = directions[0]
    if 0 in g.shape:
        return g.clone()
    with _lag.scope(g):
        call = _threads(read(spec).call)
        flat, face = flat_batch(g)
        shape = _frechet.shape_of(call, _xp.dtype_name(flat))
        shape = shape._replace(threads=workers(flat, call))
        y = derive(_spectrum(w, v), *(flat_batch(d)[0] for d in directions), shape)
        return _handed(y, face, g, tuple(g.shape))


@operator("frechet")
def frechet(w: Tensor, v: Tensor, g: Tensor, spec: str) -> Tensor:
    part = is_hermitian(spec) and not g.is_complex()
    return _derivative(functools.partial(_frechet.first, part=part), w, v, (g,), spec)


@operator("frechet_second")
def frechet_second(w: Tensor, v: Tensor, g: Tensor, e: Tensor, spec: str) -> Tensor:
    return _derivative(_frechet.second, w, v, (g, e), spec)


@operator("of_root")
def of_root(x: Tensor, g: Tensor, method: str) -> Tensor:
    if 0 in g.shape:
        return g.clone()
    with _lag.scope(g):
        flat, face = flat_batch(g)
        y = _frechet.of_root(flat_batch(x)[0], flat, _config.num_threads(), method)
        return _handed(y, face, g, tuple(g.shape))


@operator("function")
def function(a: Tensor, spec: str) -> Tensor:
    request = read(spec)
    call = request.call
    x: Tensor = _apply.apply(
        request.name, request.function, (call.method,), a.detach(), assume_a=call.assume_a,
        method=call.method, tol=call.tol, steps=call.steps, rcond=call.rcond,
        check_finite=request.check, on_fail=request.policy,
    )  # fmt: skip
    return x


def _equation_options(spec: str) -> Any:
    r = read(spec)
    return {
        "assume_a": r.call.assume_a, "method": r.call.method, "check_finite": r.check,
        "on_fail": r.policy,
    }  # fmt: skip


@operator("sylvester")
def sylvester(a: Tensor, b: Tensor, q: Tensor, spec: str) -> Tensor:
    options = _equation_options(spec)
    return _lyapunov.solve_sylvester(a.detach(), b.detach(), q.detach(), **options)


@operator("lyapunov")
def lyapunov(a: Tensor, q: Tensor, spec: str) -> Tensor:
    options = _equation_options(spec)
    return _lyapunov.solve_lyapunov(a.detach(), q.detach(), **options)


@frechet.register_fake
def _(w: Tensor, v: Tensor, g: Tensor, spec: str) -> Tensor:  # noqa: ARG001
    return _like(g)


@frechet_second.register_fake
def _(w: Tensor, v: Tensor, g: Tensor, e: Tensor, spec: str) -> Tensor:  # noqa: ARG001
    return _like(g)


@of_root.register_fake
def _(x: Tensor, g: Tensor, method: str) -> Tensor:  # noqa: ARG001
    return _like(g)


@function.register_fake
def _(a: Tensor, spec: str) -> Tensor:
    _checked(spec, a)
    return _like(a)


@sylvester.register_fake
def _(a: Tensor, b: Tensor, q: Tensor, spec: str) -> Tensor:  # noqa: ARG001
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2], q.shape[:-2])
    return q.new_empty((*batch, *q.shape[-2:]))


@lyapunov.register_fake
def _(a: Tensor, q: Tensor, spec: str) -> Tensor:  # noqa: ARG001
    batch = torch.broadcast_shapes(a.shape[:-2], q.shape[:-2])
    return q.new_empty((*batch, *q.shape[-2:]))


@operator("polar")
def polar(a: Tensor, method: str) -> tuple[Tensor, Tensor]:
    options: Any = {"method": method, "check_finite": False, "on_fail": "nan"}
    u, h = polar_factors(a.detach(), **options)
    return u, h


@polar.register_fake
def _(a: Tensor, method: str) -> tuple[Tensor, Tensor]:
    _validate.choice("method", method, POLAR_METHODS)
    return _like(a), a.new_empty((*a.shape[:-2], a.shape[-1], a.shape[-1]))


def _orthogonalized(g: Tensor, spec: str) -> Tensor:
    coeffs, steps, method, tol, compute_dtype = spec.split(_SEPARATOR)
    number: Any = [None if v == "None" else kind(v) for v, kind in ((steps, int), (tol, float))]
    given: Any = {"method": method, "check_finite": False, "on_fail": "nan"}
    x: Tensor = _orthogonalize.orthogonalize(
        g, coeffs=coeffs, steps=number[0], tol=number[1],
        compute_dtype=None if compute_dtype == "None" else compute_dtype, **given,
    )  # fmt: skip
    return x


@operator("orthogonalize")
def orthogonalize(g: Tensor, spec: str) -> Tensor:
    return _orthogonalized(g.detach(), spec)


@operator("orthogonalize_vjp")
def orthogonalize_vjp(g: Tensor, h: Tensor, spec: str) -> Tensor:
    found = []

    def work() -> None:
        x = g.detach().requires_grad_()
        found.append(torch.autograd.grad(_orthogonalized(x, spec), x, h)[0])

    # operators run where autograd is excluded, which holds for this thread alone
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


@orthogonalize.register_fake
def _(g: Tensor, spec: str) -> Tensor:
    coeffs, steps, method, tol, _ = spec.split(_SEPARATOR)
    number = [None if v == "None" else kind(v) for v, kind in ((steps, int), (tol, float))]
    _orthogonalize.plan_steps(coeffs, number[0], number[1], "float32")
    _validate.choice("method", method, _orthogonalize.METHODS)
    return _like(g)


@orthogonalize_vjp.register_fake
def _(g: Tensor, h: Tensor, spec: str) -> Tensor:  # noqa: ARG001
    return _like(g)
