"""Products with Kronecker products in PyTorch: derivatives, ``torch.func``, ``torch.compile``."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from linalgk import _lag, _xp
from linalgk.interop._torch import is_blind
from linalgk.interop._torch_functions import Function, added, known, save
from linalgk.kronecker import _derivative

HALF = (torch.float16, torch.bfloat16)

# ---- operators -----------------------------------------------------------------------------------


def entered(x: Tensor) -> Any:
    face = _xp.face(x)
    assert face is not None
    x = x.detach()
    # zeros without memory, PyTorch's directions of what does not move
    return face.enter(torch.zeros_like(x) if x._is_zerotensor() else x)


def left(y: Any, like: Tensor) -> Tensor:
    face = _xp.face(like)
    assert face is not None
    found: Tensor = face.leave(y, like)
    return found.contiguous()


def _product_run(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    with _lag.scope(x):
        return left(_derivative.product([entered(f) for f in factors], entered(x)), x)


def _gradients_run(
    x: Tensor, factors: Sequence[Tensor], g: Tensor, wanted: Sequence[bool]
) -> list[Tensor]:  # fmt: skip
    with _lag.scope(x):
        by_f, by_x = _derivative.gradients(
            [entered(f) for f in factors], entered(x), entered(g), wanted=wanted[1:],
            by_x=wanted[0],
        )  # fmt: skip
        return [left(y, x) for y in (by_x, *by_f) if y is not None]


_product_op = custom_op("linalgk::kron_matmul", _product_run, mutates_args=())
_gradients_op = custom_op("linalgk::kron_gradients", _gradients_run, mutates_args=())


@_product_op.register_fake
def _(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(x.shape[:-2], *(f.shape[:-2] for f in factors))
    return x.new_empty((*batch, math.prod(f.shape[-2] for f in factors), x.shape[-1]))


@_gradients_op.register_fake
def _(
    x: Tensor, factors: Sequence[Tensor], g: Tensor, wanted: Sequence[bool]  # noqa: ARG001
) -> list[Tensor]:  # fmt: skip
    return [t.new_empty(t.shape) for t, w in zip((x, *factors), wanted, strict=True) if w]


def is_plain(*arrays: Tensor) -> bool:
    """Whether kernels may be called without a way round."""
    return not torch.compiler.is_compiling() and all(
        type(x) in (Tensor, torch.nn.Parameter) for x in arrays
    )


# ---- products ------------------------------------------------------------------------------------


class Aligned(Function):
    """What acts on arrays of equal rank, each axis of a batch as long as the others' or one."""

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *args: Any) -> Any:  # noqa: ARG003
        moved = []
        for x, axis in zip(args, in_dims, strict=True):
            if isinstance(x, Tensor):
                # one, where nothing differs: so that factors stay shared
                moved.append(x.unsqueeze(0) if axis is None else x.movedim(axis, 0))
            else:
                moved.append(x)
        out = cls.apply(*moved)
        return out, (0 if isinstance(out, Tensor) else (0,) * len(out))


class Product(Aligned):
    """``K x`` for x (..., K, n); its derivatives are such products, and contractions."""

    @staticmethod
    def forward(x: Tensor, *factors: Tensor) -> Any:
        if is_plain(x, *factors):
            return _product_run(x, factors)
        return _product_op(x, list(factors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, *factors = ctx.saved_tensors
        return tuple(product_gradients(x, factors, g, ctx.needs_input_grad))

    @staticmethod
    def jvp(ctx: Any, dx: Any, *ways: Any) -> Any:
        x, *factors = ctx.saved_tensors
        terms = [] if dx is None else [product_of(dx, *factors)]
        for i, way in enumerate(ways):
            if way is not None:
                terms.append(product_of(x, *factors[:i], way, *factors[i + 1 :]))
        return added(*terms)


product_of = known(Product)


def product_gradients(
    x: Tensor, factors: Sequence[Tensor], g: Tensor, wanted: Sequence[bool]
) -> list[Any]:  # fmt: skip
    """Gradients by x and by each factor, None where they are not wanted.

    In one piece, or of differentiable pieces where somebody may ask for their derivatives.
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and (torch.is_grad_enabled() or is_blind(x, g, *factors)):
        return _by_modes(x, factors, g, wanted)
    run = _gradients_run if is_plain(x, g, *factors) else _gradients_op
    found = iter(run(x, list(factors), g, list(wanted)))
    return [next(found) if w else None for w in wanted]


def _by_modes(
    x: Tensor, factors: Sequence[Tensor], g: Tensor, wanted: Sequence[bool]
) -> list[Any]:  # fmt: skip
    """As `linalgk.kronecker._derivative.gradients`, with derivatives of their own."""
    count = len(factors)
    p, q = ([f.shape[axis] for f in factors] for axis in (-2, -1))
    right, v, done = {}, x, count
    for i in reversed(range(count)):
        if wanted[i + 1]:
            right[i] = v = _modes(v, factors, i + 1, done, q, p, turned=False)
            done = i + 1
    found: list[Any] = [None] * (count + 1)
    u, done = g, 0
    for i, f in enumerate(factors):
        if wanted[i + 1]:
            u = _modes(u, factors, done, i, q, p, turned=True)
            done = i
            found[i + 1] = _contracted(u, right[i], math.prod(q[:i]), f)
    if wanted[0]:
        found[0] = _modes(u, factors, done, count, q, p, turned=True).sum_to_size(x.shape)
    return found


def _modes(
    x: Tensor, factors: Sequence[Tensor], start: int, stop: int, q: list[int], p: list[int], *,
    turned: bool,
) -> Tensor:  # fmt: skip
    """Factors ``start:stop`` on their modes, those before of sizes q, those behind of sizes p."""
    if start == stop:
        return x
    part = [(f.mH if turned else f).unsqueeze(-3) for f in factors[start:stop]]
    *batch, _, n = x.shape
    before, behind = math.prod(q[:start]), math.prod(p[stop:])
    inside = math.prod((p if turned else q)[start:stop])
    outside = math.prod((q if turned else p)[start:stop])
    y = product_of(x.reshape(*batch, before, inside, behind * n), *part)
    return y.reshape(*y.shape[:-3], before * outside * behind, n)


def _contracted(u: Tensor, v: Tensor, before: int, f: Tensor) -> Tensor:
    """``U V^H`` of the unfoldings by a mode, summed over what has one factor."""
    p, q = f.shape[-2:]
    size = u.shape[-2] * u.shape[-1] // max(before * p, 1)
    u = u.reshape(*u.shape[:-2], before, p, size)
    v = v.reshape(*v.shape[:-2], before, q, size)
    if u.shape[:-2] == v.shape[:-2] and math.prod(f.shape[:-2]) == 1:
        u, v = u.reshape(-1, p, size), v.reshape(-1, q, size)
    y = torch.einsum("...bpr,...bqr->...pq", u, v.conj())
    return y.reshape(f.shape) if y.ndim == 2 else y.sum_to_size(f.shape)


_functorch = getattr(torch._C, "_functorch", None)


def refuse_nested(name: str) -> None:
    """PyTorch gives zero for the forward derivative of a forward derivative of what is not its own.

    Any other order of two is right; see https://github.com/pytorch/pytorch/issues/197867.
    """
    if torch.compiler.is_compiling() or _functorch is None:
        return
    if _functorch.peek_interpreter_stack() is None:
        return
    levels = [str(level.key()) for level in _functorch.get_interpreter_stack()]
    if sum("Jvp" in level for level in levels) > 1:
        msg = (
            f"{name}: a forward derivative of a forward derivative is more than PyTorch offers to "
            "functions of others; use torch.func.jacrev or grad for one of both"
        )
        raise TypeError(msg)


# ---- at the door ---------------------------------------------------------------------------------


def kron_matmul(
    factors: Sequence[Tensor], x: Tensor, *, side: str = "left", trans: Any = None, alpha: Any = 1,
    beta: Any = 0, out: Any = None,
) -> Tensor:  # fmt: skip
    """``alpha K x``, or ``alpha x K`` on the right, differentiable in factors, x and alpha.

    Options are as in `linalgk.kron_matmul`, whose door the compiler does not follow.
    """
    if out is not None:
        msg = "out: a result that is differentiated or compiled needs memory of its own"
        raise TypeError(msg)
    if beta != 0:
        msg = "beta: other than 0 adds to out, which is None; give out="
        raise ValueError(msg)
    refuse_nested("kron_matmul")
    one_library(factors, x=x)
    stored, (x, *factors) = promoted(x, *factors)
    factors = [_turned(f, turn) for f, turn in zip(factors, _flags(trans, factors), strict=True)]
    right, vector = side == "right", x.ndim == 1
    _check_size(factors, x, right)
    if isinstance(alpha, Tensor) or alpha != 1:
        sizes = [f.numel() for f in factors]
        least = sizes.index(min(sizes))
        factors[least] = factors[least] * alpha
        _, (x, *factors) = promoted(x, *factors)
    factors = [f.mT for f in factors] if right else list(factors)
    if vector or right:
        x = x.unsqueeze(-1)
    if right and not vector:
        # rows are members of a batch that share their factors
        factors = [f.unsqueeze(-3) for f in factors]
    y = aligned_product(x, factors)
    return (y[..., 0] if vector or right else y).to(stored)


def matmul(kron: Any, x: Tensor, side: str) -> Tensor:
    """``K x``, or ``x K`` on the right, of a `Kron`."""
    return kron_matmul(kron.factors, x, side=side)


def aligned_product(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """``K x`` of arrays in one dtype, whose batches broadcast."""
    result: Tensor = product_of(*aligned(x, *factors))
    return result


def aligned(*arrays: Tensor) -> list[Tensor]:
    """In one rank."""
    rank = max(x.ndim for x in arrays)
    return [x.reshape((1,) * (rank - x.ndim) + tuple(x.shape)) for x in arrays]


def promoted(*arrays: Tensor) -> tuple[torch.dtype, list[Tensor]]:
    """In the dtype to compute in, and the one that results have: another for half precision."""
    kinds = {x.dtype for x in arrays}
    if len(kinds) == 1 and kinds <= set(HALF):
        return kinds.pop(), [x.float() for x in arrays]
    floats = [x if x.is_floating_point() or x.is_complex() else x.double() for x in arrays]
    floats = [x.float() if x.dtype in HALF else x for x in floats]
    dtype = functools.reduce(torch.promote_types, [x.dtype for x in floats])
    return dtype, [x.to(dtype) for x in floats]


def _flags(trans: Any, factors: Sequence[Tensor]) -> list[Any]:
    """One for each factor: False or "N", True or "T", or "C"."""
    if trans is None or isinstance(trans, bool | str):
        return [trans or False] * len(factors)
    return list(trans)


def _turned(f: Tensor, turn: Any) -> Tensor:
    if turn in (False, "N"):
        return f
    return f.mT if turn in (True, "T") else f.mH


def one_library(factors: Sequence[Tensor], **others: Any) -> None:
    named = {f"factors[{i}]": f for i, f in enumerate(factors)} | others
    if not is_blind(*named.values()):
        _xp.same_family(**named)


def _check_size(factors: Sequence[Tensor], x: Tensor, right: bool) -> None:
    sizes = [f.shape[-2 if right else -1] for f in factors]
    found = x.shape[-1 if right or x.ndim == 1 else -2] if x.ndim else 0
    if found != math.prod(sizes):
        what = "columns" if right and x.ndim > 1 else "rows"
        product = "*".join(map(str, sizes))
        msg = f"x: needs {product} = {math.prod(sizes)} {what}, got {found}"
        raise ValueError(msg)
