"""PyTorch's face of a Kronecker product on some points of its grid: derivatives."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linalgk import _xp
from linalgk.interop._torch import is_blind
from linalgk.interop._torch_functions import answered, cleaned, whole
from linalgk.interop._torch_kron_product import aligned, left, product_gradients, promoted
from linalgk.kronecker import _masked_estimate

__all__ = ["logdet", "solve"]


class Call:
    """The same matrix without derivatives, how it was called, and what came of it."""

    def __init__(self, masked: Any, shift: Any, options: dict[str, Any]) -> None:
        self.masked, self.shift, self.options = _plain(masked), shift, options
        self.answer: Any = None


def _plain(masked: Any) -> Any:
    """Of detached factors; the same one, and what it has computed, for as long as they stay."""
    key = tuple((f.data_ptr(), f._version) for f in masked.kron.factors)
    known = masked._cache.get("plain")
    if known is None or known[0] != key:
        known = key, masked._mapped(lambda f: f.detach())
        masked._cache["plain"] = known
    return known[1]


def _check(name: str, *arrays: Any) -> None:
    if is_blind(*arrays):
        msg = (
            f"{name} looks at values and is not for torch.compile and torch.func; it has "
            "derivatives by backward() and torch.autograd.grad"
        )
        raise TypeError(msg)


def _number(shift: Any) -> Any:
    """Without derivatives."""
    return shift.detach() if isinstance(shift, Tensor) else shift


def _column(shift: Any, like: Tensor) -> Tensor | None:
    """The shift (..., 1, 1) that derivatives go to, or None."""
    if not isinstance(shift, Tensor) or not shift.requires_grad:
        return None
    if shift.is_complex():
        msg = f"shift: must be real, got {shift.dtype}"
        raise TypeError(msg)
    return shift.to(like.real.dtype)[..., None, None]


# ---- equations -----------------------------------------------------------------------------------


class Solve(torch.autograd.Function):
    """``A x = b`` with the Hermitian ``A = P K P^H + s I``, for b (..., n, k).

    Its derivatives are such equations and contractions, with derivatives of their own.
    """

    @staticmethod
    def forward(ctx: Any, b: Tensor, shift: Tensor | None, call: Call, *factors: Tensor) -> Any:
        result = call.masked.solve(b.detach(), call.shift, **call.options)
        if call.options["return_info"]:
            result, call.answer = result
        x = result.to(b.dtype)
        ctx.call, ctx.shape = call, b.shape
        ctx.save_for_backward(shift, x, *factors)
        return x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        shift, x, *factors = ctx.saved_tensors
        call, wanted = ctx.call, ctx.needs_input_grad
        good = whole(x)
        x = cleaned(x, good)
        # what failed was told of on the way here
        options = call.options | {"return_info": False, "check_finite": False}
        again = Call(call.masked, call.shift, options)
        w = answered(Solve.apply(cleaned(g, good), shift, again, *factors), good, g)
        grads: list[Any] = [None] * len(factors)
        if any(wanted[3:]):
            parts = [f.to(x.dtype) for f in factors]
            on_grid, back = call.masked.embed(x), call.masked.embed(-w)
            found = product_gradients(on_grid, parts, back, [False, *wanted[3:]])[1:]
            grads = [
                None if y is None else _like(0.5 * (y + y.mH), f)
                for y, f in zip(found, factors, strict=True)
            ]
        by_shift = None
        if shift is not None and wanted[1]:
            by_shift = -(w.conj() * x).sum((-2, -1), keepdim=True)
            by_shift = _like(by_shift, shift).sum_to_size(shift.shape)
        return w.sum_to_size(ctx.shape) if wanted[0] else None, by_shift, None, *grads


def _like(x: Tensor, like: Tensor) -> Tensor:
    """A gradient by a real array is real."""
    return (x.real if x.is_complex() and not like.is_complex() else x).to(like.dtype)


def solve(masked: Any, b: Tensor, shift: Any, **options: Any) -> Any:
    """As `Masked.solve`, differentiable in factors, b and the shift."""
    factors = masked.kron.factors
    _check("Masked.solve", b, shift, *factors)
    _, (z, *_) = promoted(b, *factors)
    z = z.unsqueeze(-1) if b.ndim == 1 else z
    rank = max(z.ndim, *[f.ndim for f in factors])
    z, *inside = aligned(z, *factors)
    assert z.ndim == rank
    call = Call(masked, _number(shift), options)
    x = Solve.apply(z, _column(shift, z), call, *inside)
    batch = torch.broadcast_shapes(b.shape[:-2], masked.batch)
    x = x.reshape(*batch, *x.shape[-2:])
    x = x[..., 0] if b.ndim == 1 else x
    return (x, call.answer) if options["return_info"] else x


# ---- determinants --------------------------------------------------------------------------------


class LogDet(torch.autograd.Function):
    """``log det (P K P^H + s I)``, or its estimate."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor | None, call: Call, *factors: Tensor) -> Any:
        call.answer, ctx.parts = call.masked._logdet(call.shift, **call.options, gradient=True)
        ctx.call, ctx.likes = call, (shift, *factors)
        return call.answer.value

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        grid, found = ctx.parts
        shift, *factors = ctx.likes
        if torch.is_grad_enabled():
            return _again(ctx.call, shift, factors, found, g)
        batch = ctx.call.masked.batch
        members = grid.members(batch)
        per_factor: list[list[Any]] = [[] for _ in factors]
        per_shift = []
        for one, result in zip(members, found, strict=True):
            if result.method:
                arrays, number = _masked_estimate.gradient(one, result)
            else:
                arrays, number = [a * math.nan for a in one.arrays], math.nan
            per_shift.append(number)
            for kept, y in zip(per_factor, arrays, strict=True):
                kept.append(left(y, factors[0]))
        grads = [
            _summed(torch.stack(ys).reshape(*batch, *ys[0].shape) * _weight(g), f)
            for ys, f in zip(per_factor, factors, strict=True)
        ]
        by_shift = None
        if shift is not None:
            by_shift = torch.tensor(per_shift, dtype=shift.dtype, device=shift.device)
            by_shift = _summed(by_shift.reshape(*batch, 1, 1) * _weight(g), shift)
        return by_shift, None, *grads


def _again(
    call: Call, shift: Tensor | None, factors: Sequence[Tensor], found: Any, g: Tensor
) -> tuple[Any, ...]:  # fmt: skip
    """Gradients with derivatives of their own, of the block as a dense matrix."""
    masked = call.masked
    if masked.n > _masked_estimate.FACTORED or any(f.error or not f.method for f in found):
        msg = (
            "Masked.logdet: derivatives of the second order are there for exact values between at "
            f"most {_masked_estimate.FACTORED} observed points, got {masked.n}; leave out "
            "create_graph=True"
        )
        raise TypeError(msg)
    parts = [0.5 * (f + f.mH) for f in factors]
    matrix = _masked_estimate.block(parts, masked._seats(parts[0])[0], masked.mask.shape)
    s = shift
    if s is None:
        number = np.asarray(_xp.to_numpy(call.shift) if _xp.face(call.shift) else call.shift)
        s = torch.as_tensor(number, device=matrix.device)[..., None, None]
    eye = torch.eye(masked.n, dtype=matrix.dtype, device=matrix.device)
    value = torch.linalg.slogdet(matrix + s * eye)[1]
    arrays = [shift, None, *factors]
    wanted = [x for x in arrays if x is not None and x.requires_grad]
    grads = iter(torch.autograd.grad(value, wanted, g, create_graph=True))
    return tuple(next(grads) if x is not None and x.requires_grad else None for x in arrays)


def _weight(g: Tensor) -> Tensor:
    return g[..., None, None]


def _summed(x: Tensor, like: Tensor) -> Tensor:
    """Over the axes of a batch that an array was broadcast along."""
    return _like(x, like).sum_to_size(like.shape)


def logdet(masked: Any, shift: Any, options: Any, *, check_finite: Any, on_fail: Any) -> Any:
    """As `Masked.logdet`; the value is differentiable in factors and shift."""
    factors: Sequence[Tensor] = masked.kron.factors
    _check("Masked.logdet", shift, *factors)
    words = {"options": options, "check_finite": check_finite, "on_fail": on_fail}
    call = Call(masked, _number(shift), words)
    value = LogDet.apply(_column(shift, factors[0]), call, *factors)
    return dataclasses.replace(call.answer, value=value)
