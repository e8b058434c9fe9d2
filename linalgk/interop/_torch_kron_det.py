"""Determinants of Kronecker products in PyTorch, with first and second derivatives."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linalgk.interop._torch import is_blind
from linalgk.interop._torch_functions import known, save
from linalgk.interop._torch_kron_ops import (
    along_run,
    called,
    column,
    first_op,
    first_run,
    fitted_to,
    parts_of,
    second_run,
    silent,
    slogdet_op,
    slogdet_run,
    spec_of,
)
from linalgk.interop._torch_kron_product import (
    HALF,
    Aligned,
    aligned,
    is_plain,
    one_library,
    promoted,
    refuse_nested,
)
from linalgk.kronecker._determinant import SignedLog


class SlogDet(Aligned):
    """Sign and logarithm of ``|det(K + s I)|``, with first and second derivatives."""

    @staticmethod
    def forward(shift: Tensor | None, call: Any, *factors: Tensor) -> Any:
        if is_plain(*factors) and not isinstance(call, str):
            return slogdet_run(shift, factors, call)
        return slogdet_op(shift, list(factors), spec_of(call))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        shift, ctx.call, *factors = inputs
        ctx.save_for_backward(shift, *output, *factors)
        # outputs would not know of a derivative around this one
        ctx.save_for_forward(shift, *factors)

    @staticmethod
    def backward(ctx: Any, g_sign: Any, g: Any) -> Any:
        shift, sign, log, *factors = ctx.saved_tensors
        # of log det, whose imaginary part turns the sign
        weight = g
        if sign.is_complex():
            weight = torch.complex(g, (g_sign.conj() * sign).imag)
        lost = ~torch.isfinite(log) & (weight != 0)
        weight = torch.where(lost, torch.full_like(weight, float("nan")), weight)
        t, *found = first_of(weight, shift, silent(ctx.call), 0, *factors)
        by_shift = None if shift is None else _by_number(t, shift)
        return by_shift, None, *_by_factors(found, factors, ctx.call)

    @staticmethod
    def jvp(ctx: Any, dshift: Any, _call: Any, *ways: Any) -> Any:
        shift, *factors = ctx.saved_tensors
        call = silent(ctx.call)
        sign, log = slogdet_of(shift, call, *factors)
        change = along_of(shift, call, dshift, *factors, *parts_of(ways, call))
        if not sign.is_complex():
            return torch.zeros_like(sign), fitted_to(change, log)
        change = change.to(sign.dtype)
        return 1j * change.imag * sign, change.real


def _by_factors(found: Sequence[Tensor], factors: Sequence[Tensor], call: Any) -> list[Tensor]:
    """Gradients of what is linear in the factors with these matrices."""
    adjoints = [fitted_to(m.mH, f) for m, f in zip(found, factors, strict=True)]
    return parts_of(adjoints, call)


def _by_number(t: Tensor, like: Tensor) -> Tensor:
    return fitted_to(t.conj()[..., None, None], like).sum_to_size(like.shape)


class Weighted(Aligned):
    """What sums over members that share a factor, but not over those of ``vmap``."""

    lead = 0

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *args: Any) -> Any:
        args = (*args[: cls.lead], args[cls.lead] + 1, *args[cls.lead + 1 :])
        return super().vmap(info, in_dims, *args)


class First(Weighted):
    """``weight t`` and the sums of ``weight M_i``, the derivatives of ``weight log det``."""

    lead = 3

    @staticmethod
    def forward(weight: Tensor, shift: Any, call: Any, lead: int, *factors: Tensor) -> Any:
        if is_plain(weight, *factors) and not isinstance(call, str):
            return tuple(first_run(weight, shift, factors, call, lead))
        return tuple(first_op(weight, shift, list(factors), spec_of(call)))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        weight, shift, ctx.call, ctx.lead, *factors = inputs
        save(ctx, weight, shift, *factors)

    @staticmethod
    def backward(ctx: Any, g: Any, *gs: Any) -> Any:
        weight, shift, *factors = ctx.saved_tensors
        call, ways = ctx.call, [y.mH for y in gs]
        dshift = None if shift is None else g.conj()[..., None, None]
        by_weight = along_of(shift, call, dshift, *factors, *ways).conj().sum_to_size(weight.shape)
        t, *found = second_of(weight, shift, dshift, call, 0, *factors, *ways)
        by_shift = None if shift is None else _by_number(t, shift)
        return (
            fitted_to(by_weight, weight), by_shift, None, None, *_by_factors(found, factors, call)
        )  # fmt: skip

    @staticmethod
    def jvp(ctx: Any, dweight: Any, dshift: Any, _call: Any, _lead: Any, *ways: Any) -> Any:
        weight, shift, *factors = ctx.saved_tensors
        call, terms = ctx.call, []
        if dweight is not None:
            terms.append(first_of(dweight, shift, call, ctx.lead, *factors))
        if dshift is not None or any(w is not None for w in ways):
            moved = parts_of(ways, call)
            terms.append(second_of(weight, shift, dshift, call, ctx.lead, *factors, *moved))
        return tuple(functools.reduce(operator.add, ys) for ys in zip(*terms, strict=True))


class Along(Aligned):
    """``sum_i tr(M_i E_i) + t ds``."""

    @staticmethod
    def forward(shift: Any, call: Any, dshift: Any, *arrays: Any) -> Any:
        return along_run(shift, dshift, *_split(arrays), call)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        shift, ctx.call, dshift, *arrays = inputs
        save(ctx, shift, dshift, *arrays)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        shift, dshift, *arrays = ctx.saved_tensors
        (factors, ways), call = _split(arrays), ctx.call
        # under `vmap` ways differ where the factors do not
        lead = max((w.ndim for w in ways if w is not None), default=2) - 2
        alike = all(w is None or w.shape == f.shape for w, f in zip(ways, factors, strict=True))
        t, *found = first_of(g.conj(), shift, call, 0 if alike else lead, *factors)
        by_dshift = None if dshift is None else _by_number(t, dshift)
        by_ways = [
            None if w is None else fitted_to(m.mH.sum_to_size(w.shape), w)
            for m, w in zip(found, ways, strict=True)
        ]
        t, *found = second_of(g.conj(), shift, dshift, call, 0, *factors, *ways)
        by_shift = None if shift is None else _by_number(t, shift)
        return by_shift, None, by_dshift, *_by_factors(found, factors, call), *by_ways

    @staticmethod
    def jvp(_ctx: Any, *_moves: Any) -> Any:
        raise TypeError(_THIRD)


def _split(arrays: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Factors, and a direction of each."""
    half = len(arrays) // 2
    return arrays[:half], arrays[half:]


class Second(Weighted):
    """The derivative of `First` in a direction of the factors and the shift."""

    lead = 4

    @staticmethod
    def forward(
        weight: Tensor, shift: Any, dshift: Any, call: Any, lead: int, *arrays: Any
    ) -> Any:  # fmt: skip
        factors, ways = _split(arrays)
        return tuple(second_run(weight, shift, dshift, factors, ways, call, lead))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        weight, shift, dshift, ctx.call, _, *arrays = inputs
        save(ctx, weight, shift, dshift, *arrays)

    @staticmethod
    def backward(_ctx: Any, *_grads: Any) -> Any:
        raise TypeError(_THIRD)

    @staticmethod
    def jvp(_ctx: Any, *_moves: Any) -> Any:
        raise TypeError(_THIRD)


_THIRD = (
    "slogdet: third derivatives are not offered; log det of each factor has them, "
    "torch.linalg.slogdet(factor)"
)

slogdet_of = known(SlogDet)
first_of = known(First)
second_of = known(Second)
along_of = known(Along)


def slogdet(
    kron: Any, shift: Any = 0, *, check_finite: Any = None, on_fail: Any = None
) -> SignedLog:  # fmt: skip
    """Of ``K + shift I`` of a `Kron`, differentiable twice in factors and the shift."""
    factors = kron.factors
    if any(f.shape[-1] != f.shape[-2] for f in factors):
        msg = "slogdet: needs square factors where it is differentiated or compiled"
        raise ValueError(msg)
    refuse_nested("slogdet")
    others = {"shift": shift} if isinstance(shift, Tensor) else {}
    one_library(factors, **others)
    call = called("slogdet", kron, is_blind(*factors, shift), check_finite, on_fail)
    stored, inside = promoted(*factors)
    s = column(shift, inside[0].dtype, inside[0])
    if s is None:
        inside = aligned(*inside)
    else:
        s, *inside = aligned(s, *inside)
    sign, log = slogdet_of(s, call, *inside)
    if stored in HALF:
        sign, log = sign.to(stored), log.to(stored)
    return SignedLog(sign, log)
