"""Derivatives of PyTorch tensors: functions whose own derivatives are such functions again."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linalgk.interop._torch_ops import (
    frechet,
    frechet_second,
    function,
    is_hermitian,
    is_inverse,
    lyapunov,
    method_of,
    of_root,
    orthogonalize,
    orthogonalize_vjp,
    polar,
    silent,
    spectral,
    sylvester,
    written,
)

PRODUCTS = ("minimax", "newton_schulz")


def hermitian_part(x: Tensor, spec: str) -> Tensor:
    """Of the derivative, where the caller said that the argument is Hermitian."""
    return 0.5 * (x + x.mH) if is_hermitian(spec) else x


class Function(torch.autograd.Function):
    """What all of them share; ``results`` arrays come back, all but the first to be saved only."""

    results = 1

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *args: Any) -> Any:
        moved = []
        for x, axis in zip(args, in_dims, strict=True):
            if isinstance(x, Tensor) and axis is None:
                x = x.unsqueeze(0).expand(info.batch_size, *x.shape)
            elif isinstance(x, Tensor):
                x = x.movedim(axis, 0)
            moved.append(x)
        out = cls.apply(*moved)
        return out, (0 if cls.results == 1 else (0,) * cls.results)


_functorch = torch._C._functorch


def is_undifferentiated() -> bool:
    """Whether no transformation of ``torch.func`` and no forward derivative is under way."""
    forward = getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0
    return not forward and _functorch.peek_interpreter_stack() is None


def whole(*arrays: Tensor) -> Any:
    """Which members are finite in all of them, (..., 1, 1)."""
    finite = [torch.isfinite(x.abs()).all(-1, True).all(-2, True) for x in arrays]
    return functools.reduce(operator.and_, finite)


def cleaned(x: Tensor, good: Tensor) -> Tensor:
    """Zero in members that failed, so that they spoil no other."""
    return torch.where(good, x, torch.zeros_like(x))


def answered(y: Tensor, good: Tensor, *ways: Tensor) -> Tensor:
    """NaN in members that failed, but zero where the direction is: nobody asked for those."""
    asked = [(g != 0).any(-1, True).any(-2, True) for g in ways]
    lost = ~good & functools.reduce(operator.or_, asked)
    return torch.where(lost, torch.full_like(y, float("nan")), cleaned(y, good | lost))


def known(cls: Any) -> Callable[..., Any]:
    """The function to call; the compiler takes no class that has a forward derivative."""
    plain: Any = type(f"{cls.__name__}Compiled", (cls,), {"jvp": torch.autograd.Function.jvp})

    def forward(ctx: Any, *args: Any) -> Any:
        output = cls.forward(*args)
        cls.setup_context(ctx, args, output)
        return output

    # without a separate setup_context PyTorch does not read the signature at each call
    quick: Any = type(
        f"{cls.__name__}Eager", (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(cls.backward)},
    )  # fmt: skip

    compute = cls.forward

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            wanted = [x for x in args if isinstance(x, Tensor) and x.requires_grad]
            return plain.apply(*args) if wanted and torch.is_grad_enabled() else compute(*args)
        if is_undifferentiated():
            return quick.apply(*args) if torch.is_grad_enabled() else compute(*args)
        return cls.apply(*args)

    return call


def save(ctx: Any, *tensors: Any) -> None:
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def added(*terms: Any) -> Any:
    present = [t for t in terms if t is not None]
    return functools.reduce(operator.add, present) if present else None


def _turned(x: Tensor) -> Tensor:
    """``L(A, .)^* = (L(A, .^H))^H``, also where the function of A is not Hermitian."""
    return x.mH


def _of_real(x: Tensor, spec: str) -> Tensor:
    return x if x.is_complex() else hermitian_part(x, spec)


def _of_complex(x: Tensor, spec: str) -> Tensor:
    return hermitian_part(x, spec) if x.is_complex() else x


class Spectral(Function):
    """A function of Hermitian matrices by eigenvectors."""

    results = 3

    @staticmethod
    def forward(a: Tensor, spec: str) -> Any:
        return spectral(a, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, w, v = output
        ctx.spec = inputs[1]
        ctx.mark_non_differentiable(w, v)
        ctx.set_materialize_grads(False)
        save(ctx, inputs[0], w, v)

    @staticmethod
    def backward(ctx: Any, g: Any, _w: Any, _v: Any) -> Any:
        if g is None:
            return None, None
        a, w, v = ctx.saved_tensors
        return _of_complex(_turned(frechet_of(a, w, v, _turned(g), ctx.spec)), ctx.spec), None

    @staticmethod
    def jvp(ctx: Any, da: Any, _spec: Any) -> Any:
        a, w, v = ctx.saved_tensors
        return frechet_of(a, w, v, _of_complex(da, ctx.spec), ctx.spec), None, None


class Short(torch.autograd.Function):
    """A square root that is known already, with its eigenvectors on the host."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, given: Any, spec: str) -> Any:
        ctx.given, ctx.spec = given, spec
        ctx.save_for_backward(a)
        return torch.from_numpy(given.x.reshape(a.shape))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (a,), given = ctx.saved_tensors, ctx.given
        if torch.is_grad_enabled():
            w = torch.from_numpy(given.spectrum.w.reshape(a.shape[:-1]))
            v = torch.from_numpy(given.spectrum.v.reshape(a.shape))
            return frechet_of(a, w, v, g.mH, ctx.spec).mH, None, None
        y = given.derivative(g.numpy().reshape(given.x.shape))
        return torch.from_numpy(y.reshape(a.shape)), None, None


class Frechet(Function):
    """``L(A, G)``; A is there to be differentiated by, its eigenvectors to compute with.

    Where the caller said that A is real and Hermitian, of the Hermitian part of G alone; complex
    functions need not be Hermitian.
    """

    @staticmethod
    def forward(a: Tensor, w: Tensor, v: Tensor, g: Tensor, spec: str) -> Any:  # noqa: ARG004
        return frechet(w, v, g, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.spec = inputs[4]
        save(ctx, *inputs[:4])

    @staticmethod
    def backward(ctx: Any, h: Any) -> Any:
        a, w, v, g = ctx.saved_tensors
        by_a = by_g = None
        if ctx.needs_input_grad[0]:
            ways = _of_real(g, ctx.spec), _of_real(_turned(h), ctx.spec)
            by_a = hermitian_part(_turned(second_of(a, w, v, *ways, ctx.spec)), ctx.spec)
        if ctx.needs_input_grad[3]:
            by_g = _turned(frechet_of(a, w, v, _turned(h), ctx.spec))
        return by_a, None, None, by_g, None

    @staticmethod
    def jvp(ctx: Any, da: Any, _w: Any, _v: Any, dg: Any, _spec: Any) -> Any:
        a, w, v, g = ctx.saved_tensors
        by_a = by_g = None
        if da is not None:
            ways = _of_real(g, ctx.spec), hermitian_part(da, ctx.spec)
            by_a = _of_real(second_of(a, w, v, *ways, ctx.spec), ctx.spec)
        if dg is not None:
            by_g = frechet_of(a, w, v, dg, ctx.spec)
        return added(by_a, by_g)


class Second(Function):
    """The derivative of ``L(A, G)`` in the direction E."""

    @staticmethod
    def forward(a: Tensor, w: Tensor, v: Tensor, g: Tensor, e: Tensor, spec: str) -> Any:  # noqa: ARG004
        return frechet_second(w, v, g, e, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.spec = inputs[5]
        save(ctx, *inputs[:5])

    @staticmethod
    def backward(ctx: Any, h: Any) -> Any:
        a, w, v, g, e = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            raise NotImplementedError(_THIRD)
        turned, by_g, by_e = _turned(h), None, None
        if ctx.needs_input_grad[3]:
            by_g = _turned(second_of(a, w, v, e, turned, ctx.spec))
        if ctx.needs_input_grad[4]:
            by_e = _turned(second_of(a, w, v, g, turned, ctx.spec))
        return None, None, None, by_g, by_e, None

    @staticmethod
    def jvp(ctx: Any, da: Any, _w: Any, _v: Any, dg: Any, de: Any, _spec: Any) -> Any:
        if da is not None:
            raise NotImplementedError(_THIRD)
        a, w, v, g, e = ctx.saved_tensors
        by_g = None if dg is None else second_of(a, w, v, dg, e, ctx.spec)
        by_e = None if de is None else second_of(a, w, v, g, de, ctx.spec)
        return added(by_g, by_e)


_THIRD = (
    "third derivatives of functions of Hermitian matrices are not offered; with assume_a='gen' "
    "there are derivatives of any order"
)


class General(Function):
    """A function of matrices without symmetry."""

    @staticmethod
    def forward(a: Tensor, spec: str) -> Any:
        return function(a, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.spec = inputs[1]
        save(ctx, inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        a, x = ctx.saved_tensors
        good = whole(x)
        return answered(_corner(a.mH, cleaned(g, good), ctx.spec), good, g), None

    @staticmethod
    def jvp(ctx: Any, da: Any, _spec: Any) -> Any:
        a, _ = ctx.saved_tensors
        return _corner(a, da, ctx.spec)


def _corner(a: Tensor, g: Tensor, spec: str) -> Tensor:
    n = a.shape[-1]
    upper, lower = torch.cat([a, g], -1), torch.cat([torch.zeros_like(a), a], -1)
    return general_of(torch.cat([upper, lower], -2), silent(spec))[..., :n, n:]


class Root(Function):
    """A square root, or an inverse one, whose derivative needs the result alone."""

    @staticmethod
    def forward(a: Tensor, spec: str) -> Any:
        return function(a, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.spec = inputs[1]
        save(ctx, output)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        good = whole(x)
        x = cleaned(x, good)
        if is_inverse(ctx.spec):
            square = (x @ x).mH
            y = -square @ _of_root(x.mH, g, ctx.spec) @ square
        else:
            y = _of_root(x.mH, g, ctx.spec)
        return hermitian_part(answered(y, good, g), ctx.spec), None

    @staticmethod
    def jvp(ctx: Any, da: Any, _spec: Any) -> Any:
        (x,) = ctx.saved_tensors
        da = hermitian_part(da, ctx.spec)
        if is_inverse(ctx.spec):
            square = x @ x
            da = -square @ da @ square
        return _of_root(x, da, ctx.spec)


def _of_root(x: Tensor, g: Tensor, spec: str) -> Tensor:
    """The solution of ``X Y + Y X = G``."""
    if is_hermitian(spec):
        return of_root_of(x, g, "minimax" if method_of(spec) in PRODUCTS else "eigh")
    return sylvester_of(x, x, g, written("solve_sylvester", "power", "1", policy="nan"))


class OfRoot(Function):
    """``X Y + Y X = G`` with a positive semidefinite X."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, method: str) -> Any:
        return of_root(x, g, method)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.method = inputs[2]
        save(ctx, inputs[0], output)

    @staticmethod
    def backward(ctx: Any, h: Any) -> Any:
        x, y = ctx.saved_tensors
        z = of_root_of(x, h, ctx.method)
        by_x = -(z @ y.mH + y.mH @ z) if ctx.needs_input_grad[0] else None
        return by_x, z, None

    @staticmethod
    def jvp(ctx: Any, dx: Any, dg: Any, _method: Any) -> Any:
        x, y = ctx.saved_tensors
        right = added(dg, None if dx is None else -(dx @ y + y @ dx))
        return of_root_of(x, right, ctx.method)


class Sylvester(Function):
    """``A X + X B = Q``."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, q: Tensor, spec: str) -> Any:
        return sylvester(a, b, q, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.spec, ctx.shapes = inputs[3], [x.shape for x in inputs[:3]]
        save(ctx, inputs[0], inputs[1], output)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        a, b, x = ctx.saved_tensors
        good = whole(x)
        x = cleaned(x, good)
        y = answered(sylvester_of(a.mH, b.mH, g, silent(ctx.spec)), good, g)
        by_a = hermitian_part(-(y @ x.mH), ctx.spec) if ctx.needs_input_grad[0] else None
        by_b = hermitian_part(-(x.mH @ y), ctx.spec) if ctx.needs_input_grad[1] else None
        return *map(_fitted, (by_a, by_b, y), ctx.shapes), None

    @staticmethod
    def jvp(ctx: Any, da: Any, db: Any, dq: Any, _spec: Any) -> Any:
        a, b, x = ctx.saved_tensors
        terms = [dq]
        terms.append(None if da is None else -(hermitian_part(da, ctx.spec) @ x))
        terms.append(None if db is None else -(x @ hermitian_part(db, ctx.spec)))
        right = added(*terms)
        return sylvester_of(a, b, right.expand(x.shape), ctx.spec)


def _fitted(x: Any, shape: Any) -> Any:
    """Summed over what was broadcast."""
    return None if x is None else x.sum_to_size(shape)


class Lyapunov(Function):
    """``A X + X A^H = Q``."""

    @staticmethod
    def forward(a: Tensor, q: Tensor, spec: str) -> Any:
        return lyapunov(a, q, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.spec, ctx.shapes = inputs[2], [x.shape for x in inputs[:2]]
        save(ctx, inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        a, x = ctx.saved_tensors
        good, by_a = whole(x), None
        x = cleaned(x, good)
        y = answered(lyapunov_of(a.mH, g, silent(ctx.spec)), good, g)
        if ctx.needs_input_grad[0]:
            by_a = hermitian_part(-(y @ x.mH + y.mH @ x), ctx.spec)
        return *map(_fitted, (by_a, y), ctx.shapes), None

    @staticmethod
    def jvp(ctx: Any, da: Any, dq: Any, _spec: Any) -> Any:
        a, x = ctx.saved_tensors
        if da is not None:
            da = hermitian_part(da, ctx.spec)
        right = added(dq, None if da is None else -(da @ x + x @ da.mH))
        return lyapunov_of(a, right.expand(x.shape), ctx.spec)


class Given:
    """Results that are known already, out of autograd's sight."""

    def __init__(self, arrays: Any) -> None:
        self.arrays = tuple(arrays)


class Polar(Function):
    """``A = U H`` with m >= n; the formulas are those of `linalgk.matfun._frechet`."""

    results = 2

    @staticmethod
    def forward(a: Tensor, method: str, given: Any = None) -> Any:
        return polar(a, method) if given is None else given.arrays

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        save(ctx, *output)

    @staticmethod
    def backward(ctx: Any, gu: Any, gh: Any) -> Any:
        u, h = ctx.saved_tensors
        good, ways = whole(u, h), (gu, gh)
        u, h = cleaned(u, good), cleaned(h, good)
        gh = 0.5 * (gh + gh.mH)
        inner = u.mH @ gu
        right = inner - gh @ h
        ga = u @ (2 * of_root_of(h, 0.5 * (right - right.mH), "polar") + gh)
        if u.shape[-2] > u.shape[-1]:
            ga = ga + (gu - u @ inner) @ _pseudo_inverse(h)
        return answered(ga, good, *ways), None, None

    @staticmethod
    def jvp(ctx: Any, da: Any, _method: Any, _given: Any = None) -> Any:
        u, h = ctx.saved_tensors
        inner = u.mH @ da
        turn = of_root_of(h, inner - inner.mH, "polar")
        du, dh = u @ turn, inner - turn @ h
        if u.shape[-2] > u.shape[-1]:
            du = du + (da - u @ inner) @ _pseudo_inverse(h)
        return du, 0.5 * (dh + dh.mH)


def _pseudo_inverse(h: Tensor) -> Tensor:
    """Of a Hermitian factor; what is zero to working precision stays zero."""
    eps = 4 * h.shape[-1] * torch.finfo(h.dtype).eps
    spec = written("polar", "power", "-1", assume_a="her", method="eigh", rcond=eps, policy="nan")
    return spectral_of(h, spec)[0]


class Orthogonalize(Function):
    """For the compiler, which follows no loop over a schedule."""

    @staticmethod
    def forward(g: Tensor, spec: str) -> Any:
        return orthogonalize(g, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.spec = inputs[1]
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, h: Any) -> Any:
        (g,) = ctx.saved_tensors
        return orthogonalize_vjp(g, h, ctx.spec), None


spectral_of, frechet_of, second_of = known(Spectral), known(Frechet), known(Second)
general_of, root_of, of_root_of = known(General), known(Root), known(OfRoot)
sylvester_of, lyapunov_of = known(Sylvester), known(Lyapunov)
orthogonalize_of = known(Orthogonalize)
_polar = known(Polar)


def polar_of(a: Tensor, method: str, given: Any = None) -> Any:
    """U and H of ``A = U H`` with m >= n, if not ``given``."""
    return _polar(a, method, given)
