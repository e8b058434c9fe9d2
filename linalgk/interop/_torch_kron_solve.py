"""Equations with Kronecker products in PyTorch, with derivatives of every order."""

from typing import Any

from torch import Tensor

from linalgk.interop._torch import is_blind
from linalgk.interop._torch_functions import added, answered, cleaned, known, whole
from linalgk.interop._torch_kron_ops import (
    called,
    column,
    fitted_to,
    parts_of,
    silent,
    solve_op,
    solve_run,
    spec_of,
    summed,
)
from linalgk.interop._torch_kron_product import (
    Aligned,
    aligned,
    is_plain,
    one_library,
    product_gradients,
    product_of,
    promoted,
    refuse_nested,
)


class Solve(Aligned):
    """``(K + s I) x = b``, or with the adjoint matrix; one factorization serves both."""

    @staticmethod
    def forward(b: Tensor, shift: Tensor | None, call: Any, turned: bool, *factors: Tensor) -> Any:
        if is_plain(b, *factors) and not isinstance(call, str):
            return solve_run(b, shift, factors, call, turned)
        return solve_op(b, shift, list(factors), spec_of(call), turned)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        b, shift, ctx.call, ctx.turned, *factors = inputs
        ctx.shape = b.shape
        ctx.save_for_backward(shift, output, *factors)
        # the output would not know of a derivative around this one
        ctx.save_for_forward(shift, b, *factors)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        shift, x, *factors = ctx.saved_tensors
        call, turned, wanted = silent(ctx.call), ctx.turned, ctx.needs_input_grad
        good = whole(x)
        x = cleaned(x, good)
        w = answered(solve_of(g, shift, call, not turned, *factors), good, g)
        # (K + s) x = b and (K + s)^H w = g, or the other way round
        u, v = (w, x) if not turned else (x, w)
        grads = [None] * len(factors)
        if any(wanted[4:]):
            parts = [f.to(x.dtype) for f in parts_of(factors, call)]
            found = product_gradients(v, parts, -u, [False, *wanted[4:]])[1:]
            pairs = zip(parts_of(found, call), factors, strict=True)
            grads = [None if y is None else fitted_to(y, f) for y, f in pairs]
        by_shift = None
        if shift is not None and wanted[1]:
            by_shift = fitted_to(-summed(v.conj() * u), shift).sum_to_size(shift.shape)
        by_b = w.sum_to_size(ctx.shape) if wanted[0] else None
        return by_b, by_shift, None, None, *grads

    @staticmethod
    def jvp(ctx: Any, db: Any, dshift: Any, _call: Any, _turned: Any, *ways: Any) -> Any:
        shift, b, *factors = ctx.saved_tensors
        call, turned = silent(ctx.call), ctx.turned
        x = solve_of(b, shift, call, turned, *factors)
        terms = [] if db is None else [db]
        if dshift is not None:
            terms.append(-(dshift.conj() if turned else dshift) * x)
        parts = [f.to(x.dtype) for f in parts_of(factors, call)]
        moved = parts_of(ways, call)
        if turned:
            parts = [f.mH for f in parts]
        for i, way in enumerate(moved):
            if way is not None:
                way = (way.mH if turned else way).to(x.dtype)
                terms.append(-product_of(x, *parts[:i], way, *parts[i + 1 :]))
        return solve_of(added(*terms).expand(x.shape), shift, call, turned, *factors)


solve_of = known(Solve)


def solve(
    kron: Any, b: Tensor, shift: Any = 0, *, check_finite: Any = None, on_fail: Any = None
) -> Tensor:  # fmt: skip
    """``(K + shift I) x = b`` of a `Kron`, differentiable in factors, b and the shift."""
    factors = kron.factors
    refuse_nested("solve")
    others = {"shift": shift} if isinstance(shift, Tensor) else {}
    one_library(factors, b=b, **others)
    call = called("solve", kron, is_blind(b, *factors, shift), check_finite, on_fail)
    stored, (z, *inside) = promoted(b, *factors)
    s = column(shift, z.dtype, z)
    if z.is_complex() and not any(f.is_complex() for f in factors):
        inside = [f.real for f in inside]
    if s is not None and s.is_complex() and not z.is_complex():
        z, stored = z.to(s.dtype), s.dtype
    z = z.unsqueeze(-1) if b.ndim == 1 else z
    if s is None:
        z, *inside = aligned(z, *inside)
    else:
        z, s, *inside = aligned(z, s, *inside)
    x: Tensor = solve_of(z, s, call, False, *inside)
    return (x[..., 0] if b.ndim == 1 else x).to(stored)
