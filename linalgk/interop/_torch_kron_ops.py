"""Operators for equations with Kronecker products and for their determinants.

Everything comes from factorizations of the factors that the forward pass has made: of each factor
one, kept beside the object and with the graph.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.library import custom_op

from linalgk import _config, _lag, _validate, _xp
from linalgk.interop._torch_kron_product import entered, left
from linalgk.kronecker import _perturbation
from linalgk.kronecker._factored import Factored, settle
from linalgk.kronecker._kron_base import not_finite

_SEPARATOR = ";"


class Call(NamedTuple):
    """What is known of the factors, what to do about failures, and where factorizations are."""

    kinds: tuple[str | None, ...]
    policy: str
    check: bool
    kept: "Kept | None"

    @property
    def silent(self) -> "Call":
        """The same where failures were told already."""
        return self._replace(policy="nan", check=False)


def _written(call: Call) -> str:
    return _SEPARATOR.join([*map(str, call.kinds), call.policy, str(call.check)])


def _read(spec: str) -> Call:
    *kinds, policy, check = spec.split(_SEPARATOR)
    return Call(tuple(None if k == "None" else k for k in kinds), policy, check == "True", None)


class Kept:
    """Factorizations of factors, for as long as those are what they were."""

    def __init__(self) -> None:
        # in one piece, because threads may ask for the factorizations of different factors
        self._known: tuple[Any, list[Factored]] = (None, [])

    def __call__(self, factors: Sequence[Tensor], kinds: Any) -> list[Factored]:
        """Of the factors, and beside it of their adjoints where it was asked for."""
        key = kinds, *map(_identity, factors)
        known, found = self._known
        if known != key or None in key:
            found = [_factor(factors, kinds)]
            self._known = key, found
        return found


def _identity(x: Tensor) -> Any:
    """Of the contents: what memory they are in, and how often that was written to."""
    if x.is_inference():
        return None
    return x.data_ptr(), x._version, x.dtype, tuple(x.shape), x.stride(), x.is_conj()


def _factor(factors: Sequence[Tensor], kinds: Any) -> Factored:
    arrays = [entered(f) for f in factors]
    if all(n == 1 for f in factors for n in f.shape[:-2]):
        # what all members share has no batch
        arrays = [_xp.namespace(a).reshape(a, tuple(a.shape[-2:])) for a in arrays]
    return Factored(arrays, kinds)


# ---- operators -----------------------------------------------------------------------------------


def _factored(factors: Sequence[Tensor], call: Call, turned: bool = False) -> Factored:
    found = [_factor(factors, call.kinds)] if call.kept is None else call.kept(factors, call.kinds)
    if not turned:
        return found[0]
    if len(found) == 1:
        found.append(_perturbation.turned(found[0]))
    return found[1]


def _number(x: Tensor | None) -> Any:
    """What is one number for each member, (..., 1, 1), as (...)."""
    return None if x is None else entered(x)[..., 0, 0]


@contextlib.contextmanager
def _scope(x: Tensor) -> Iterator[None]:
    with _lag.scope(x), _config.blas_threads():
        yield


def solve_run(
    b: Tensor, shift: Tensor | None, factors: Sequence[Tensor], call: Call, turned: bool
) -> Tensor:  # fmt: skip
    with _scope(b):
        f, s, z = _factored(factors, call, turned), _number(shift), entered(b)
        s = f.xp.conj(s) if turned and s is not None else s
        x, problems = f.solve(z, s)
        problems = problems + (not_finite("b", z) if call.check else [])
        found: Tensor = settle(
            "solve", [x], problems, tuple(x.shape[:-2]), lambda xs: left(xs[0], b).to(b.dtype),
            policy=call.policy, check=call.check,
        )  # fmt: skip
        return found


def slogdet_run(
    shift: Tensor | None, factors: Sequence[Tensor], call: Call
) -> tuple[Tensor, Tensor]:
    like = factors[0]
    with _scope(like):
        f = _factored(factors, call)
        sign, log, problems = f.slogdet(_number(shift))
        full = _full(shift, factors)
        answers = [_spread(x, full) for x in (sign, log)]
        # that of Hermitian factors is real, whether they are declared so or found to be
        wanted = _promoted(shift, *factors)
        found: tuple[Tensor, Tensor] = settle(
            "slogdet", answers, problems, full,
            lambda xs: (left(xs[0], like).to(wanted), left(xs[1], like)),
            policy=call.policy, check=call.check,
        )  # fmt: skip
        return found


def _promoted(*given: Tensor | None) -> torch.dtype:
    return functools.reduce(torch.promote_types, [x.dtype for x in given if x is not None])


def _full(shift: Tensor | None, factors: Sequence[Tensor]) -> tuple[int, ...]:
    given = factors if shift is None else (shift, *factors)
    return tuple(torch.broadcast_shapes(*(x.shape[:-2] for x in given)))


def _spread(x: Any, shape: tuple[int, ...]) -> Any:
    """In memory of its own, which the caller may write to."""
    xp = np if isinstance(x, np.ndarray | np.generic) else _xp.namespace(x)
    return xp.asarray(xp.broadcast_to(x, shape), copy=True)


def first_run(
    weight: Tensor, shift: Tensor | None, factors: Sequence[Tensor], call: Call, lead: int
) -> list[Tensor]:
    weight = weight.broadcast_to(torch.broadcast_shapes(weight.shape, _full(shift, factors)))
    with _scope(weight):
        f, batches = _factored(factors, call), _batches(weight, factors, lead)
        found = _perturbation.determinant_first(f, _number(shift), entered(weight), batches)
        return _handed(*found, weight, batches, _promoted(weight, shift, *factors))


def second_run(
    weight: Tensor, shift: Tensor | None, dshift: Tensor | None, factors: Sequence[Tensor],
    ways: Sequence[Tensor | None], call: Call, lead: int,
) -> list[Tensor]:  # fmt: skip
    moved = [x.shape[:-2] for x in (dshift, *ways) if x is not None]
    full = torch.broadcast_shapes(weight.shape, _full(shift, factors), *moved)
    weight = weight.broadcast_to(full)
    with _scope(weight):
        f, batches = _factored(factors, call), _batches(weight, factors, lead)
        found = _perturbation.determinant_second(
            f, _number(shift), entered(weight), _ways(ways), _number(dshift), batches
        )
        dtype = _promoted(weight, shift, dshift, *factors, *ways)
        return _handed(*found, weight, batches, dtype)


def _batches(weight: Tensor, factors: Sequence[Tensor], lead: int) -> list[tuple[int, ...]]:
    """Of the results: axes that `vmap` has put in front are nobody's to sum over."""
    return [(*weight.shape[:lead], *f.shape[lead:-2]) for f in factors]


def _handed(
    ms: Sequence[Any], t: Any, weight: Tensor, batches: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
) -> list[Tensor]:  # fmt: skip
    # without a shift nobody asks for the derivative by it
    t = weight.new_zeros(weight.shape) if t is None else left(_spread(t, weight.shape), weight)
    found = [
        left(_spread(m, (*batch, *m.shape[-2:])), weight)
        for m, batch in zip(ms, batches, strict=True)
    ]
    return [x.to(dtype) for x in (t, *found)]


def _ways(ways: Sequence[Tensor | None]) -> list[Any]:
    return [None if way is None else entered(way) for way in ways]


def along_run(
    shift: Tensor | None, dshift: Tensor | None, factors: Sequence[Tensor],
    ways: Sequence[Tensor | None], call: Call,
) -> Tensor:  # fmt: skip
    given = [x for x in (shift, dshift, *factors, *ways) if x is not None]
    full = torch.broadcast_shapes(*(x.shape[:-2] for x in given))
    dtype = _promoted(*given)
    with _scope(factors[0]):
        f = _factored(factors, call)
        total = _perturbation.determinant_along(f, _number(shift), _ways(ways), _number(dshift))
        if _xp.face(total) is None:
            return torch.full(full, total, dtype=dtype, device=factors[0].device)
        return left(_spread(total, tuple(full)), factors[0]).to(dtype)


def spec_of(call: Any) -> str:
    return call if isinstance(call, str) else _written(call)


@custom_op("linalgk::kron_solve", mutates_args=())
def solve_op(
    b: Tensor, shift: Tensor | None, factors: Sequence[Tensor], spec: str, turned: bool
) -> Tensor:  # fmt: skip
    return solve_run(b, shift, factors, _read(spec), turned).clone()


@custom_op("linalgk::kron_slogdet", mutates_args=())
def slogdet_op(
    shift: Tensor | None, factors: Sequence[Tensor], spec: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return slogdet_run(shift, factors, _read(spec))


@custom_op("linalgk::kron_slogdet_gradients", mutates_args=())
def first_op(
    weight: Tensor, shift: Tensor | None, factors: Sequence[Tensor], spec: str
) -> list[Tensor]:  # fmt: skip
    return first_run(weight, shift, factors, _read(spec), 0)


@solve_op.register_fake
def _(
    b: Tensor, shift: Tensor | None, factors: Sequence[Tensor], spec: str, turned: bool  # noqa: ARG001
) -> Tensor:  # fmt: skip
    batch = torch.broadcast_shapes(b.shape[:-2], _full(shift, factors))
    return b.new_empty((*batch, *b.shape[-2:]))


@slogdet_op.register_fake
def _(
    shift: Tensor | None, factors: Sequence[Tensor], spec: str  # noqa: ARG001
) -> tuple[Tensor, Tensor]:  # fmt: skip
    sign = factors[0].new_empty(_full(shift, factors), dtype=_promoted(shift, *factors))
    return sign, sign.new_empty(sign.shape, dtype=sign.real.dtype)


@first_op.register_fake
def _(
    weight: Tensor, shift: Tensor | None, factors: Sequence[Tensor], spec: str  # noqa: ARG001
) -> list[Tensor]:  # fmt: skip
    dtype = _promoted(weight, shift, *factors)
    found = [f.new_empty(f.shape, dtype=dtype) for f in factors]
    return [weight.new_empty(weight.shape, dtype=dtype), *found]


# ---- what the faces of both share ----------------------------------------------------------------


def kinds_of(call: Any) -> Sequence[str | None]:
    return call.split(_SEPARATOR)[:-2] if isinstance(call, str) else call.kinds


def silent(call: Any) -> Any:
    return call if isinstance(call, str) else call.silent


def part_of(x: Tensor, kind: str | None) -> Tensor:
    """What counts of a factor, and of its direction and gradient."""
    return 0.5 * (x + x.mH) if kind in ("her", "pos") else x


def parts_of(arrays: Sequence[Any], call: Any) -> list[Any]:
    return [
        None if x is None else part_of(x, k) for x, k in zip(arrays, kinds_of(call), strict=True)
    ]


def fitted_to(x: Tensor, like: Tensor) -> Tensor:
    """A gradient by a real array is real."""
    return x.real if x.is_complex() and not like.is_complex() else x


def summed(x: Tensor) -> Tensor:
    return x.sum((-2, -1), keepdim=True)


def called(name: str, kron: Any, blind: bool, check: Any, policy: Any) -> Any:
    kinds = tuple(kron.assume_a)
    if blind and None in kinds:
        msg = f"{name}: assume_a must be given under torch.compile and torch.func"
        raise ValueError(msg)
    if torch.compiler.is_compiling():
        return _written(Call(kinds, "nan", False, None))
    if blind:
        return Call(kinds, "nan", False, Kept())
    kept = kron._cache.setdefault("torch", Kept())
    return Call(kinds, _validate.on_fail(policy), _validate.check_finite(check), kept)


def column(shift: Any, dtype: torch.dtype, like: Tensor) -> Tensor | None:
    """(..., 1, 1) in a precision, or None."""
    if not isinstance(shift, Tensor):
        if isinstance(shift, int | float | complex) and shift == 0:
            return None
        shift = torch.as_tensor(shift, device=like.device)
    real = torch.empty((), dtype=dtype).real.dtype
    wanted = torch.promote_types(real, torch.complex64) if shift.is_complex() else real
    return shift.to(wanted)[..., None, None]
