"""What a Kronecker product is made of: its factors, how they enter, and its algebra."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._members import report
from linalgk.errors import NonFiniteError
from linalgk.kronecker import _door, _entries, _modes
from linalgk.kronecker._door import Entered
from linalgk.kronecker._factored import Factored, Problem, Spectral, settle
from linalgk.kronecker._linear import Linear, check_batch, check_sizes, check_traced, kinds_of
from linalgk.typing import Array, AssumeA

_DTYPES = (*_validate._FLOATS, *_validate._INTEGERS, *_door.HALF)


class Factors(Linear):
    """A product of factors, without what is solved with it."""

    __hash__ = Linear.__hash__

    def __init__(
        self, factors: Sequence[Array], *,
        assume_a: AssumeA | Sequence[AssumeA | None] | None = None,
    ) -> None:  # fmt: skip
        self._cache: dict[Any, Any] = {}
        self.factors: tuple[Any, ...]
        self.assume_a: tuple[AssumeA | None, ...]
        if _door.compiled() is not None:
            self.factors = tuple(factors)
            one = assume_a is None or isinstance(assume_a, str)
            kinds: Any = [assume_a] * len(self.factors) if one else assume_a
            self.assume_a = tuple(kinds)
            return
        self.factors = tuple(_door.matrices("factors", factors))
        self.assume_a = kinds_of(assume_a, len(self.factors))
        families = [_xp.face(f).family for f in self.factors]  # type: ignore[union-attr]
        if len(set(families)) > 1:
            msg = f"factors: must be of one library, got {', '.join(families)}; convert some"
            raise TypeError(msg)
        for i, (f, kind) in enumerate(zip(self.factors, self.assume_a, strict=True)):
            if _xp.dtype_name(f) not in _DTYPES:
                _validate.floating(f"factors[{i}]", f)
            if kind in ("her", "pos") and f.shape[-1] != f.shape[-2]:
                msg = f"factors[{i}]: must be square for assume_a={kind!r}, got {tuple(f.shape)}"
                raise ValueError(msg)
        try:
            np.broadcast_shapes(*(tuple(f.shape[:-2]) for f in self.factors))
        except ValueError:
            shapes = ", ".join(str(tuple(f.shape)) for f in self.factors)
            msg = f"factors: batch axes do not broadcast: {shapes}"
            raise ValueError(msg) from None
        _prepare_jax(type(self))

    # --- What `Linear` asks --------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return {f"factors[{i}]": f for i, f in enumerate(self.factors)}

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        return type(self)([f(x) for x in self.factors], assume_a=list(self.assume_a))

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows, columns = (tuple(int(f.shape[axis]) for f in self.factors) for axis in (-2, -1))
        return rows, columns

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the factors together."""
        return np.broadcast_shapes(*(tuple(f.shape[:-2]) for f in self.factors))

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        return _modes.times(parts, x, side)

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        return _entries.toarray(parts)

    def _options(self) -> tuple[Any, ...]:
        return self.assume_a

    @property
    def dtype(self) -> Any:
        """What the factors promote to."""
        dtypes = {_xp.dtype_name(f) for f in self.factors}
        if len(dtypes) == 1 and dtypes <= {*_validate._FLOATS, *_door.HALF}:
            return self.factors[0].dtype
        xp = _xp.namespace(self.factors[0])
        names = ["float32" if d in _door.HALF else d for d in dtypes]
        names = [d if d in _validate._FLOATS else "float64" for d in names]
        return xp.result_type(*(_xp.dtype_of(xp, d) for d in names))

    def __repr__(self) -> str:
        """Shapes of the factors, and what is known of them."""
        kinds = set(self.assume_a)
        said = kinds.pop() if len(kinds) == 1 else list(self.assume_a)
        more = "" if said is None else f", assume_a={said!r}"
        return f"{super().__repr__()[:-1]}{more})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _prepare_jax(type(self))

    # --- Entering ------------------------------------------------------------------------------

    def _differentiated(self, *operands: Any) -> Any:
        """PyTorch's face of this room, if tensors want derivatives or are compiled."""
        torch = sys.modules.get("torch")
        if torch is None:
            return None
        tensors = [x for x in (*self.factors, *operands) if isinstance(x, torch.Tensor)]
        if not tensors:
            return None
        from linalgk.interop import _torch

        if not _torch.wants(*tensors):
            return None
        from linalgk.interop import _torch_kron

        return _torch_kron

    def _factored(self, entered: Entered | None = None, *, hermitian: bool = False) -> Factored:
        """The factors in the precision of what entered, real if they are."""
        entered = self._enter() if entered is None else entered
        arrays, dtype = entered.arrays[: len(self.factors)], entered.dtype
        kinds: tuple[Any, ...] = self.assume_a
        if dtype in _xp.COMPLEX and not any(_xp.dtype_name(f) in _xp.COMPLEX for f in self.factors):
            dtype = _xp.REAL[dtype]
        if hermitian:
            usual = self._factored(entered)
            if usual.traced or all(usual.looked.hermitian):
                return usual
            kinds = tuple("pos" if kind == "pos" else "her" for kind in kinds)
        # tensors tell when they were written to
        key = (dtype, kinds, tuple(map(_version, self.factors)))
        known: Factored | None = self._cache.get(key)
        if known is not None:
            return known
        if dtype != entered.dtype:
            own = self._enter().arrays
            xp = _xp.namespace(own[0])
            arrays = tuple(xp.astype(a, _xp.dtype_of(xp, dtype), copy=False) for a in own)
        found = Factored(arrays, kinds)
        # a trace's arrays end with it
        if not found.traced:
            self._cache[key] = found
        return found

    def _spectral(self) -> Spectral:
        """Eigenvalues and eigenvectors of the factors, in the dtype that they are computed in."""
        with self._at_work():
            entered = self._enter()
            f = self._factored(entered, hermitian=True)
            problems = [*f.looked.problems, *f.indefinite]
            if problems:
                settle("Kron", f.spectral.values[:1], problems, f.batch, list)
            return f.spectral

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        with _lag.scope(self.factors[0]), _config.blas_threads():
            yield

    def _square(self, function: str) -> None:
        for i, f in enumerate(self.factors):
            if f.shape[-1] != f.shape[-2]:
                way = "; use lstsq or pinv" if function in ("solve", "inv") else ""
                msg = f"{function}: needs square factors, factors[{i}] has {tuple(f.shape)}{way}"
                raise ValueError(msg)

    def _look(self, function: str, *, hermitian: bool = False) -> tuple[Entered, Factored]:
        """For what looks at values."""
        check_traced(f"{function} of a Kron", *self.factors)
        entered = self._enter()
        return entered, self._factored(entered, hermitian=hermitian)

    def _settled(
        self, function: str, entered: Entered, f: Factored, answers: Sequence[Any],
        problems: Sequence[Problem], on_fail: Any, check_finite: Any,
        build: Callable[[list[Any]], Any],
    ) -> Any:  # fmt: skip
        """Answers of the shape of the batch, left, and what is to be said about bad members."""
        policy, check = _validate.on_fail(on_fail), _validate.check_finite(check_finite)
        return settle(
            function, answers, problems, f.batch, lambda xs: build([left(entered, x) for x in xs]),
            policy=policy, check=check,
        )  # fmt: skip

    def _by_factors(
        self, function: str, entered: Entered, f: Factored, lists: Sequence[Sequence[Any]],
        problems: Sequence[Problem], on_fail: Any, check_finite: Any,
        build: Callable[[list[list[Any]]], Any],
    ) -> Any:  # fmt: skip
        """Lists of one array for each factor, NaN where a factor's member is bad."""
        policy, check = _validate.on_fail(on_fail), _validate.check_finite(check_finite)
        found = [[left(entered, x) for x in blanked(items, problems)] for items in lists]
        result = build(found)
        for problem in problems:
            if check or problem.error is not NonFiniteError:
                which = np.broadcast_to(problem.bad, f.batch)
                sentence = f"{function}: {problem.sentence}"
                report(problem.error, sentence, which, f.batch, policy, result)
        return result

    # --- Algebra -------------------------------------------------------------------------------

    def conj(self) -> Self:
        """The complex conjugate."""
        return self._mapped(
            lambda x: _xp.namespace(x).conj(x) if _xp.dtype_name(x) in _xp.COMPLEX else x
        )

    def __matmul__(self, x: Any) -> Any:
        """``K x`` for x (Q,) or (..., Q, n), or the product with another Kron, by factors."""
        return self._chained(x) if isinstance(x, Factors) else self._product(x, "left")

    def _chained(self, other: "Factors") -> Self:
        mine, theirs = self._sizes[1], other._sizes[0]
        if mine != theirs:
            ways = "multiply K1 @ (K2 @ x), or regroup the factors so that inner sizes agree"
            if math.prod(mine) != math.prod(theirs):
                ways = "their total sizes differ too"
            msg = f"K1 @ K2: columns of the factors are {mine}, rows {theirs}; {ways}"
            raise ValueError(msg)
        return type(self)([f @ g for f, g in zip(self.factors, other.factors, strict=True)])

    def _product(self, x: Any, side: str) -> Any:
        face = _door.compiled()
        if face is not None:
            return face.matmul(self, x, side)
        if _xp.face(x) is None and type(x).__module__.startswith("linalgk."):
            return NotImplemented
        x = _xp.as_array("x", x)
        is_left = side == "left"
        check_sizes("x", x, self._sizes[1 if is_left else 0], -2 if is_left else -1)
        face = self._differentiated(x)
        if face is not None:
            return face.matmul(self, x, side)
        check_batch("x", self.batch, tuple(x.shape[:-2]))
        with self._at_work():
            entered = self._enter(x=x)
            arrays, x = self._real(entered), entered.arrays[-1]
            vector = x.ndim == 1
            if vector:
                x = x[:, None] if is_left else x[None, :]
            y = _modes.times(arrays, x, side)
            if vector:
                y = y[..., 0] if is_left else y[..., 0, :]
            return left(entered, y)

    def _real(self, entered: Entered) -> tuple[Any, ...]:
        """The factors that entered, real where only the operand is complex."""
        arrays = entered.arrays[: len(self.factors)]
        if entered.dtype not in _xp.COMPLEX or any(
            _xp.dtype_name(f) in _xp.COMPLEX for f in self.factors
        ):
            return arrays
        xp = _xp.namespace(arrays[0])
        return tuple(xp.real(a) for a in arrays)

    def __mul__(self, c: Any) -> Any:
        """Times a number."""
        if not _is_number(c):
            return NotImplemented
        return self._scaled(lambda f, c: f * c, c)

    __rmul__ = __mul__

    def __truediv__(self, c: Any) -> Any:
        """Over a number."""
        if not _is_number(c):
            return NotImplemented
        return self._scaled(lambda f, c: f / c, c)

    def __neg__(self) -> Self:
        found: Self = self * -1
        return found

    def _scaled(self, scale: Callable[[Any, Any], Any], c: Any) -> Self:
        """With the smallest factor scaled; the dtype of a number is weak."""
        c = c.item() if isinstance(c, np.generic) else c
        sizes = [math.prod(f.shape) for f in self.factors]
        i = sizes.index(min(sizes))
        f = self.factors[i]
        if _xp.dtype_name(f) in _validate._INTEGERS:
            f = _validate.floating(f"factors[{i}]", f)
        if isinstance(c, complex) and _xp.dtype_name(f) not in _xp.COMPLEX:
            xp = _xp.namespace(f)
            f = xp.astype(f, _xp.dtype_of(xp, _modes.widened(_xp.dtype_name(f))))
        factors, kinds = list(self.factors), list(self.assume_a)
        factors[i] = scale(f, c)
        if _modes.is_complex(c):
            kinds[i] = None if kinds[i] is None else "gen"
        elif kinds[i] == "pos" and not (isinstance(c, int | float) and c >= 0):
            kinds[i] = "her"
        return type(self)(factors, assume_a=kinds)

    def __add__(self, other: Any) -> Any:
        """The sum with another Kron, by its terms."""
        if not isinstance(other, Factors):
            return NotImplemented
        return built_on("KronTerms")([self, other])

    def __sub__(self, other: Any) -> Any:
        return self + (-other) if isinstance(other, Factors) else NotImplemented


def built_on(name: str) -> Any:
    """A class of this room that is built on `Kron`, from the room's door: its file imports ours."""
    return getattr(sys.modules[__package__], name)


# --- Helpers -------------------------------------------------------------------------------------


def left(entered: Entered, x: Any) -> Any:
    """A result in the caller's library, complex numbers in no half precision."""
    if entered.stored != entered.dtype and _xp.dtype_name(x) in _xp.COMPLEX:
        return entered.face.leave(x, entered.like)
    return entered.leave(x)


def number(x: Any) -> Any:
    """A NumPy scalar where there is no batch, as NumPy has it."""
    return x[()] if isinstance(x, np.ndarray) else x


def blanked(items: Sequence[Any], problems: Sequence[Problem]) -> list[Any]:
    """Copies of one array for each factor, NaN in its bad members."""
    found = [_xp.namespace(x).asarray(x, copy=True) for x in items]
    for problem in problems:
        i = problem.factor
        assert i is not None
        x = found[i]
        xp = _xp.namespace(x)
        bad = _xp.from_numpy(problem.bad[..., None, None], xp, like=x)
        found[i] = xp.where(bad, xp.full_like(x, math.nan), x)
    return found


def not_finite(name: str, x: Any) -> list[Problem]:
    """Members of x (..., K, n) that hold NaN or infinity."""
    xp = _xp.namespace(x)
    if 0 in x.shape:
        return []
    bad = ~np.asarray(_xp.to_numpy(xp.all(xp.isfinite(x), axis=(-2, -1))))
    sentence = f"{name} holds NaN or infinity{{}}; remove them, or pass on_fail='nan'"
    return [Problem(NonFiniteError, sentence, bad)] if bad.any() else []


def _version(x: Any) -> int:
    """How often PyTorch wrote to a tensor; of other libraries nobody knows."""
    try:
        return int(getattr(x, "_version", 0))
    except RuntimeError:  # tensors of inference mode do not count
        return 0


def _is_number(c: Any) -> bool:
    if isinstance(c, bool | np.bool_):
        return False
    if isinstance(c, int | float | complex | np.number):
        return True
    return _xp.face(c) is not None and getattr(c, "ndim", None) == 0


def _prepare_jax(kind: type) -> None:
    """Let JAX, if it is there, take products apart and put them together again."""
    jax = sys.modules.get("jax")
    if jax is None or kind in _PYTREES:
        return
    _PYTREES.add(kind)

    def build(kinds: Any, factors: Any) -> Any:
        # not checked: transformations put other things in the place of arrays
        found: Any = object.__new__(kind)
        found.__dict__.update(factors=tuple(factors), assume_a=kinds, _cache={})
        return found

    jax.tree_util.register_pytree_node(kind, lambda k: (k.factors, k.assume_a), build)


_PYTREES: set[type] = set()
