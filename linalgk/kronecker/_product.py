"""The public product with a Kronecker product."""

import math
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.kronecker import _blocks, _door
from linalgk.kronecker._apply import multiply
from linalgk.kronecker._ops import KRON, order
from linalgk.typing import ArrayT

SIDES = ("left", "right")
_TRANS = {False: "N", True: "T", "N": "N", "T": "T", "C": "C"}


def kron_matmul(
    factors: Sequence[Any],
    x: ArrayT,
    /,
    *,
    side: Literal["left", "right"] = "left",
    trans: Sequence[bool | str] | bool | str | None = None,
    alpha: complex = 1,
    beta: complex = 0,
    out: Any = None,
    check_finite: bool | None = None,
) -> ArrayT:
    """Product of a Kronecker product with an array, without forming it.

    ``alpha (F_1 kron F_2 kron ... kron F_N) x + beta out``, or ``alpha x (F_1 kron ... kron F_N) +
    beta out`` with ``side="right"``.

    Parameters
    ----------
    factors : sequence of N arrays, shapes (..., p_i, q_i)
        Of any sizes, square or not, in any memory order, with batch axes or without. Mixed dtypes
        promote; integers are computed in float64, float16 and bfloat16 in float32 (and stored as
        they came, if all arrays are).
    x : array, shape (K,), (..., K, n) or, on the right, (..., m, K)
        K is the product of all q_i on the left, of all p_i on the right (the other way round for
        transposed factors). Batch axes broadcast as those of ``matmul``. Never written to.
    side : {"left", "right"}, optional
        Where the product stands: ``K @ x`` or ``x @ K``.
    trans : bool, {"N", "T", "C"} or a sequence of them, optional
        For each factor, or for all: whether it is transposed (True, "T") or conjugated and
        transposed ("C").
    alpha, beta : number, optional
        A complex number makes a complex result. ``beta`` other than 0 needs ``out``.
    out : array, optional
        Where to put the result; it may not overlap x nor a factor.
    check_finite : bool, optional
        Look for NaN and infinity in the factors, which would spread over all of the result; those
        of x stay in their column (row). Default from `linalgk.config_context`.

    Returns
    -------
    y : array, shape (P,), (..., P, n) or (..., m, P)
        In the library and on the device of x, in C order; in Fortran order where x is a NumPy
        matrix in that order and stands on the left of the product.

    Raises
    ------
    TypeError
        If arrays are of several libraries, ``factors`` is one array, or a dtype is none of numbers.
    ValueError
        If there are no factors, or sizes do not fit; the message has the product of sizes.
    NonFiniteError
        If a factor holds NaN or infinity.

    See Also
    --------
    linalgk.Kron : the same product as an object that can also be solved with.
    linalgk.grad.kron_matmul_vjp : its derivatives, which PyTorch and JAX find by themselves.

    Notes
    -----
    x is a tensor of N modes, and each factor acts on one of them: ``2 K p_i`` operations for a
    column and a mode, K the size of the data at that time, instead of ``2 P Q``. Modes go in the
    order of fewest operations. On the CPU nothing is transposed: neighbouring small factors are
    multiplied out while that makes the product faster, and a pass over memory takes as many modes
    as fit the cache, so that two passes are enough for most sizes [1]_. `linalgk.explain` shows the
    passes.

    Each number of the result is an inner product over the modes in turn, so that to first order
    ``|error| <= (sum of all q_i + N) u (|F_1| kron ... kron |F_N|) |x|``, u the unit roundoff [2]_;
    where factors were multiplied out their number counts once more. The bits do not depend on the
    number of threads.

    References
    ----------
    .. [1] A. Jangda, M. Yadav, "Fast Kronecker matrix-matrix multiplication on GPUs", PPoPP (2024),
       the peer to compare with.
    .. [2] N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, SIAM, 2002, section 3.5.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 1.0]])
    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> lk.kron_matmul([a, b], x)
    array([10., 22.])
    >>> np.kron(a, b) @ x
    array([10., 22.])
    >>> lk.kron_matmul([a, b], np.ones((3, 2)), side="right").shape
    (3, 4)
    """
    face = _door.compiled()
    if face is not None:
        return cast(
            ArrayT,
            face.kron_matmul(factors, x, side=side, trans=trans, alpha=alpha, beta=beta, out=out),
        )
    _validate.choice("side", side, SIDES)
    given = _door.matrices("factors", factors)
    like: Any = _xp.as_array("x", x)
    flags = transposed(trans, len(given))
    vector = _fit(given, like, side, flags)
    alpha, beta = _scalar("alpha", alpha), _scalar("beta", beta)
    if beta and out is None:
        msg = "beta: other than 0 adds to out, which is None; give out="
        raise ValueError(msg)
    if _differentiated(*given, like):
        if out is not None:
            msg = "out: a result that is differentiated or compiled needs memory of its own"
            raise TypeError(msg)
        from linalgk.interop import _torch_kron

        result = _torch_kron.kron_matmul(given, like, side=side, trans=flags, alpha=alpha)
        return cast(ArrayT, result)
    named = {"x": like, **{f"factors[{i}]": f for i, f in enumerate(given)}}
    with _lag.scope(like):
        entered = _door.enter(named)
        if (isinstance(alpha, complex) or isinstance(beta, complex)) and (
            entered.dtype not in _xp.COMPLEX
        ):
            entered = _complex(entered)
        data, *inside = entered.arrays
        if _validate.check_finite(check_finite) and not any(map(_xp.is_traced, inside)):
            _door.check_finite("factors", inside)
        inside = turned(inside, flags)
        shape = result_shape([f.shape for f in inside], tuple(like.shape), side)
        target = None
        if out is not None:
            target = _blocks.target(out, entered, named, shape)
        y = _computed(inside, data, side, vector, alpha, None if beta else target)
        if target is not None:
            if y is not target:
                _blocks.put(_summed(y, beta, target, entered), target, entered)
            return cast(ArrayT, out)
        return cast(ArrayT, entered.leave(y))


def _computed(
    factors: list[Any], x: Any, side: str, vector: bool, alpha: complex, target: Any
) -> Any:
    """The product times alpha, into the target if that can be."""
    if alpha != 1:
        least = min(range(len(factors)), key=lambda i: math.prod(factors[i].shape))
        factors = list(factors)
        factors[least] = alpha * factors[least]
    if vector:
        x = x[:, None] if side == "left" else x[None, :]
    room = None
    if target is not None and not vector:
        room = target
    elif target is not None:
        room = target[..., None] if side == "left" else target[..., None, :]
    y = multiply(factors, x, side=side, out=room)
    if room is not None and y is room:
        return target
    if vector:
        y = y[..., 0] if side == "left" else y[..., 0, :]
    return y


def transposed(trans: Any, count: int) -> tuple[str, ...]:
    """For each factor whether it is as it is ("N"), transposed ("T") or adjoint ("C")."""
    if trans is None or isinstance(trans, bool | str):
        trans = [trans or False] * count
    if not isinstance(trans, Sequence) or len(trans) != count:
        msg = f"trans: must be one flag, or one for each of {count} factors, got {trans!r}"
        raise ValueError(msg)
    for i, flag in enumerate(trans):
        if not isinstance(flag, bool | np.bool_ | str) or flag not in _TRANS:
            msg = f"trans[{i}]: must be True, False, 'N', 'T' or 'C', got {flag!r}"
            raise ValueError(msg)
    return tuple(_TRANS[flag] for flag in trans)


def turned(factors: Sequence[Any], flags: tuple[str, ...]) -> list[Any]:
    """The factors as the flags want them."""
    found = []
    for f, flag in zip(factors, flags, strict=True):
        xp = _xp.namespace(f)
        y = f if flag == "N" else xp.matrix_transpose(f)
        found.append(xp.conj(y) if flag == "C" and _xp.dtype_name(f) in _xp.COMPLEX else y)
    return found


def _fit(factors: list[Any], x: Any, side: str, flags: tuple[str, ...]) -> bool:
    """Whether x is a vector, if its size fits."""
    inner = -1 if (side == "left") else -2
    sizes = [
        int(f.shape[inner if flag == "N" else -3 - inner])
        for f, flag in zip(factors, flags, strict=True)
    ]
    vector: bool = x.ndim == 1
    if not x.ndim:
        msg = "x: must be a vector or matrices, got a number"
        raise ValueError(msg)
    axis = -1 if vector or side == "right" else -2
    if x.shape[axis] != math.prod(sizes):
        product = " * ".join(map(str, sizes))
        what = "entries" if vector else "rows" if side == "left" else "columns"
        total = f"{product} = {math.prod(sizes)}" if len(sizes) > 1 else product
        msg = f"x: needs {total} {what}, got {x.shape[axis]} (shape {tuple(x.shape)})"
        raise ValueError(msg)
    batches = [tuple(f.shape[:-2]) for f in factors] + [() if vector else tuple(x.shape[:-2])]
    try:
        np.broadcast_shapes(*batches)
    except ValueError:
        msg = f"factors, x: batch shapes {', '.join(map(str, batches))} do not broadcast"
        raise ValueError(msg) from None
    return vector


def result_shape(
    shapes: Sequence[tuple[int, ...]], x: tuple[int, ...], side: str
) -> tuple[int, ...]:
    """Of the product of factors of these shapes with an x that fits."""
    batch = np.broadcast_shapes(*[s[:-2] for s in shapes], x[:-2])
    if side == "left":
        return (*batch, math.prod(s[-2] for s in shapes), *x[-1:] * (len(x) > 1))
    return (*batch, *x[-2:-1], math.prod(s[-1] for s in shapes))


def _scalar(name: str, value: Any) -> Any:
    """A number whose dtype is weak."""
    if isinstance(value, bool) or not isinstance(value, int | float | complex | np.number):
        msg = f"{name}: must be a number, got {type(value).__name__}"
        raise TypeError(msg)
    return value.item() if isinstance(value, np.number) else value


def _complex(given: _door.Entered) -> _door.Entered:
    xp = _xp.namespace(given.arrays[0])
    name = "complex64" if given.dtype == "float32" else "complex128"
    arrays = tuple(xp.astype(a, _xp.dtype_of(xp, name)) for a in given.arrays)
    return given._replace(arrays=arrays, dtype=name, stored=name)


def _summed(y: Any, beta: complex, target: Any, given: _door.Entered) -> Any:
    """With beta times what was there, in the dtype of the computation."""
    if not beta:
        return y
    if given.stored == given.dtype:
        return y + beta * target
    wide = _door.widened(target, given.face)
    return y + beta * wide


def _differentiated(*arrays: Any) -> bool:
    """Whether PyTorch has to see each step."""
    torch = sys.modules.get("torch")
    tensors = [] if torch is None else [a for a in arrays if isinstance(a, torch.Tensor)]
    if not tensors:
        return False
    from linalgk.interop import _torch

    return any(map(_torch.wants, tensors))


# --- What a call would run ------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """Of a call of the op."""

    shapes: tuple[tuple[int, int], ...]
    b: int
    sets: int
    a: int
    dtype: str


def _sizes(factors: list[Any], x: Any, side: str, flags: tuple[str, ...], dtype: str) -> _Sizes:
    shapes = [tuple(f.shape[-2:]) for f in factors]
    flip = side == "right"
    shapes = [
        s[::-1] if (flag == "N") == flip else s for s, flag in zip(shapes, flags, strict=True)
    ]
    own = np.broadcast_shapes(*[f.shape[:-2] for f in factors])
    sets = (
        math.prod(np.broadcast_shapes(own, x.shape[:-2])) if any(f.ndim > 2 for f in factors) else 1
    )
    k = math.prod(s[1] for s in shapes)
    columns = x.shape[-1] if side == "left" and x.ndim > 1 else 1
    total = max(math.prod(x.shape), 1) if sets == 1 else sets * k * columns
    return _Sizes(tuple(shapes), max(total // max(k * columns, 1), 1), max(sets, 1), columns, dtype)


def explain_kron_matmul(factors: Any, x: Any, /, **options: Any) -> Explanation:
    """What a call would run."""
    given = _door.matrices("factors", factors)
    x = _xp.as_array("x", x)
    side = _validate.choice("side", options.get("side", "left"), SIDES)
    flags = transposed(options.get("trans"), len(given))
    _fit(given, x, side, flags)
    entered = _door.enter({"x": x, **{f"factors[{i}]": f for i, f in enumerate(given)}})
    sizes = _sizes(given, x, side, flags, entered.dtype)
    chosen, why = KRON.choose(*entered.arrays)
    width = np.dtype(entered.dtype).itemsize
    operations, read, steps = _plain(sizes)
    reason = f"there is one method: {steps}"
    if chosen is not None and chosen.backend == "cpu":
        passes = chosen.load("passes")(*sizes, _config.num_threads())
        operations, read = passes.operations, passes.traffic
        reason = f"there is one method: {passes.text}"
    real = 4.0 if entered.dtype in _xp.COMPLEX else 1.0
    runs = {"kron_matmul": why if chosen is not None else f"reference ({why})"}
    return Explanation("kron_matmul", "modes", reason, runs, real * operations, float(width * read))


def _plain(sizes: _Sizes) -> tuple[float, float, str]:
    """Operations, numbers read and written, and the order of modes without a kernel."""
    now = [q for _, q in sizes.shapes]
    operations = numbers = 0.0
    each = sizes.b * sizes.a
    steps = order(list(sizes.shapes))
    for i in steps:
        before = math.prod(now) * each
        operations += 2.0 * before * sizes.shapes[i][0]
        now[i] = sizes.shapes[i][0]
        numbers += before + math.prod(now) * each
    return operations, numbers, "modes " + ", ".join(map(str, steps)) + " by one matmul each"


class _Worker:
    """Products of arrays of one kind, which nobody looks at."""

    def __init__(
        self, options: dict[str, Any], flags: tuple[str, ...], plain: bool, workspace: int
    ) -> None:
        self._options, self._flags, self._plain = options, flags, plain
        self.workspace_nbytes = workspace
        self.status: Any = None

    def run(self, arrays: tuple[Any, ...], out: Any) -> Any:
        """Compute into ``out``, or into a new array."""
        self.status = 0
        factors, x = arrays
        if not self._plain or _differentiated(*factors, x):
            return kron_matmul(factors, x, **self._options, out=out, check_finite=False)
        face = _xp.face(x)
        assert face is not None
        with _lag.scope(x):
            inside = turned([face.enter(f) for f in factors], self._flags)
            target = None if out is None else face.enter(out)
            side, alpha = self._options.get("side", "left"), self._options.get("alpha", 1)
            y = _computed(inside, face.enter(x), side, x.ndim == 1, alpha, target)
            if out is None:
                return face.leave(y, x)
            if target is not None and y is not target:
                target[...] = y
            return out


def plan_kron_matmul(
    factors: list[Any], x: Any, /, **options: Any
) -> tuple[_Worker, Explanation, Any]:
    """A worker for arrays like these, what it does, and an output's kind."""
    unknown = set(options) - {"side", "trans", "alpha", "on_fail"}
    if unknown:
        msg = f"{', '.join(sorted(unknown))}: not an option of a plan; give out= to the call"
        raise ValueError(msg)
    options.pop("on_fail", None)
    explanation = explain_kron_matmul(factors, x, **options)
    side = options.get("side", "left")
    flags = transposed(options.get("trans"), len(factors))
    entered = _door.enter({"x": x, **{f"factors[{i}]": f for i, f in enumerate(factors)}})
    data, *inside = entered.arrays
    shape = result_shape([f.shape for f in turned(inside, flags)], tuple(x.shape), side)
    xp = _xp.namespace(data)
    like = entered.leave(xp.empty(shape, dtype=data.dtype))
    sizes = _sizes(list(factors), x, side, flags, entered.dtype)
    chosen, _ = KRON.choose(*entered.arrays)
    workspace = 0
    if chosen is not None and chosen.backend == "cpu":
        workspace = chosen.load("passes")(*sizes, _config.num_threads()).workspace
    kinds = {_xp.dtype_name(a) for a in (*factors, x)}
    plain = kinds == {entered.dtype} and like.dtype == x.dtype and sizes.b * sizes.a > 0
    return _Worker(options, flags, plain, workspace), explanation, like


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Factors and rows of data: mixed sizes, five of 8, two of 128."""
    sizes, rows = {
        "small": ([2, 3, 4], 5), "medium": ([8] * 4, 64), "large": ([128, 128], 256),
    }[size]  # fmt: skip
    generator = np.random.default_rng(rng)
    factors = [xp.asarray(generator.standard_normal((n, n))) for n in sizes]
    x = xp.asarray(generator.standard_normal((rows, math.prod(sizes))))
    return (factors, x), {"side": "right"}
