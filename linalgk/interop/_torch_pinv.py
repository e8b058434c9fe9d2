"""PyTorch's face of ``pinv(method="newton")``: derivatives, ``torch.func``, ``torch.compile``."""

from typing import Any

import torch
from torch import Tensor

from linalgk.interop._torch import is_blind, wants
from linalgk.interop._torch_functions import Function, answered, cleaned, known, save, whole
from linalgk.interop._torch_ops import operator
from linalgk.randomized import _pinv

__all__ = ["pinv", "wants"]

_SEPARATOR = ";"


def _written(words: dict[str, Any], check: bool, policy: str) -> str:
    rcond = words["rcond"] if words["rtol"] is None else words["rtol"]
    values = bool(words["hermitian"]), rcond, words["steps"], words["tol"], check, policy
    return _SEPARATOR.join([str(v) for v in values])


def _read(spec: str) -> dict[str, Any]:
    hermitian, rcond, steps, tol, check, policy = spec.split(_SEPARATOR)
    return {
        "method": "newton", "hermitian": hermitian == "True",
        "rcond": None if rcond == "None" else float(rcond),
        "steps": None if steps == "None" else int(steps),
        "tol": None if tol == "None" else float(tol),
        "check_finite": check == "True", "on_fail": policy,
    }  # fmt: skip


@operator("pinv")
def _pseudoinverse(a: Tensor, spec: str) -> Tensor:
    x: Tensor = _pinv.pinv(a.detach(), **_read(spec))
    return x


@_pseudoinverse.register_fake
def _(a: Tensor, spec: str) -> Tensor:
    _pinv._checked({**_pinv._DEFAULTS, **_read(spec)})
    return a.new_empty((*a.shape[:-2], a.shape[-1], a.shape[-2]))


def _part(x: Tensor, spec: str) -> Tensor:
    return 0.5 * (x + x.mH) if spec.startswith("True") else x


class Pinv(Function):
    """The derivatives are made of A and the result: they have derivatives of every order."""

    @staticmethod
    def forward(a: Tensor, spec: str) -> Any:
        return _pseudoinverse(a, spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.spec = inputs[1]
        save(ctx, inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        a, x = ctx.saved_tensors
        good = whole(x)
        a, x = cleaned(_part(a, ctx.spec), good), cleaned(x, good)
        way = cleaned(g, good).mH
        # terms of (n, m) x (m, n) by their shorter sides
        y = -(x.mH @ g @ x.mH) + _beside(a, x, way @ x @ x.mH) + _behind(a, x, x.mH @ (x @ way))
        return _part(answered(y, good, g), ctx.spec), None

    @staticmethod
    def jvp(ctx: Any, da: Any, _spec: Any) -> Any:
        a, x = ctx.saved_tensors
        a, da = _part(a, ctx.spec), _part(da, ctx.spec)
        turned = da.mH
        first = x @ (x.mH @ turned)
        second = (turned @ x.mH) @ x
        return -(x @ da @ x) + first - (first @ a) @ x + second - x @ (a @ second)


def _beside(a: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``(I - A X) Y``."""
    return y - a @ (x @ y)


def _behind(a: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``Y (I - X A)``."""
    return y - (y @ x) @ a


_pinv_of = known(Pinv)


def pinv(a: Tensor, words: dict[str, Any]) -> Any:
    """As `linalgk.pinv` with derivatives."""
    if words["method"] != "newton":
        msg = (
            f"pinv: method {words['method']!r} has no derivatives and is not for torch.compile; "
            "use method='newton', or a.detach()"
        )
        raise TypeError(msg)
    if words["out"] is not None:
        msg = "out: a result that is differentiated or compiled needs memory of its own"
        raise TypeError(msg)
    blind = is_blind(a)
    if blind and words["return_info"]:
        msg = "pinv: return_info is not for torch.compile and torch.func"
        raise TypeError(msg)
    check, policy = False, "nan"
    if not torch.compiler.is_compiling():
        options = _pinv._checked(words)
        if not blind:
            check, policy = options.check, options.policy
    x = a if a.is_floating_point() or a.is_complex() else a.to(torch.float64)
    result = _pinv_of(x, _written(words, check, policy))
    if not words["return_info"]:
        return result
    return result, _pinv.pinv(a.detach(), **words)[1]
