"""The public Walsh-Hadamard transform."""

import math
import sys
from typing import Any, Literal, cast

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.sketch._hadamard_ops import FWHT, butterflies
from linalgk.typing import ArrayT

NORMS = (None, "ortho")


def fwht(
    a: ArrayT, /, *, axis: int = -1, norm: Literal["ortho"] | None = None, out: Any = None
) -> ArrayT:
    """Fast Walsh-Hadamard transform along an axis.

    ``y_i = sum_j (-1)^(number of ones of i & j) x_j``: the product with the Hadamard matrix in
    natural order (`scipy.linalg.hadamard`) by additions only.

    Parameters
    ----------
    a : array, shape (..., n, ...)
        Real or complex, in any memory order; n is a power of two, without limit. Integers are
        computed in float64. Never written to.
    axis : int, optional
        The axis of length n; default the last.
    norm : None or "ortho", optional
        "ortho" multiplies by ``n^(-1/2)``, rounded to the dtype, at the end: the transform is then
        orthogonal, and its own inverse.
    out : array, optional
        Where to put the result.

    Returns
    -------
    y : array, shape (..., n, ...)
        In the library, dtype and device of ``a``; in its memory order too, if it is a NumPy array.

    Raises
    ------
    ValueError
        If n is no power of two, or an argument is out of its range.
    TypeError
        If ``a`` is no array of numbers, or ``out`` is of another kind.

    See Also
    --------
    linalgk.sketch.SRHT : sampled rows of this transform with random signs.

    Notes
    -----
    ``n log2 n`` additions for each vector and one read and one write of memory while a vector fits
    a cache, on a device while it fits shared memory (2^14 or 2^15 numbers). Stages run in ascending
    stride, 1, 2, 4, ..., ``(x, y) -> (x + y, x - y)`` [1]_, whatever is fused: the bits depend
    neither on threads nor on memory order nor on the device, and subnormals are kept.

    For integers the result is exact while ``n max|x|`` is below 2^53 (2^24 in float32), and
    ``fwht(fwht(x)) == n x``. Otherwise ``||error|| <= log2(n) u ||y||`` to first order [2]_, u the
    unit roundoff. NaN and infinity spread over their vector.

    PyTorch and JAX differentiate it; the matrix is symmetric, so that the derivative is the
    transform of the gradient.

    References
    ----------
    .. [1] B. J. Fino, V. R. Algazi, "Unified matrix treatment of the fast Walsh-Hadamard
       transform", IEEE Trans. Comput. C-25 (1976).
    .. [2] N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, SIAM, 2002, section 24.1.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.fwht(np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]))
    array([ 4.,  2.,  0., -2.,  0.,  2.,  0.,  2.])
    >>> x = np.arange(12.0).reshape(4, 3)
    >>> bool((lk.fwht(lk.fwht(x, axis=0), axis=0) == 4 * x).all())
    True
    """
    original = _xp.as_array("a", a)
    axis, shape = _axis(original, axis)
    _validate.choice("norm", norm, NORMS)
    if _differentiated(original):
        return cast(ArrayT, _by_pytorch(original, axis, norm, out))
    face = _xp.face(original)
    assert face is not None
    with _lag.scope(original):
        x = _validate.floating("a", face.enter(original))
        target = None if out is None else _validate.out(out, original, shape, _xp.dtype_name(x))
        y = _transformed(x, axis, norm)
        if target is None:
            return cast(ArrayT, face.leave(y, original))
        target[...] = y
        return cast(ArrayT, out)


def _axis(a: Any, axis: Any) -> tuple[int, tuple[int, ...]]:
    """The axis from the front, and the shape, if there is a power of two along it."""
    shape = tuple(a.shape)
    if not shape:
        msg = "a: must have at least one axis, got a number"
        raise ValueError(msg)
    axis = _validate.integer("axis", axis, -len(shape))
    if axis >= len(shape):
        msg = f"axis: must be less than {len(shape)}, the number of axes of a, got {axis}"
        raise ValueError(msg)
    n = shape[axis]
    if n < 1 or n & (n - 1):
        more = f"pad it with zeros to {1 << n.bit_length()}" if n else "there is nothing to pad"
        msg = f"a: the length along axis {axis} must be a power of two, got {n}; {more}"
        raise ValueError(msg)
    return axis % len(shape), shape


def _lines(shape: tuple[int, ...], axis: int, norm: str | None) -> tuple[tuple[int, ...], float]:
    """The shape with all axes before and all behind in one, and the scale."""
    n = shape[axis]
    flat = (math.prod(shape[:axis]), n, math.prod(shape[axis + 1 :]))
    return flat, n**-0.5 if norm == "ortho" else 1.0


def _transformed(x: Any, axis: int, norm: str | None) -> Any:
    """Of an array that has entered, in the memory order it has."""
    order = list(range(x.ndim))
    if isinstance(x, np.ndarray) and not x.flags.c_contiguous:
        by_stride = sorted(order, key=lambda k: -x.strides[k])
        if x.transpose(by_stride).flags.c_contiguous:
            order = by_stride
        x = np.ascontiguousarray(x.transpose(order))
    xp, shape = _xp.namespace(x), tuple(x.shape)
    flat, scale = _lines(shape, order.index(axis), norm)
    with np.errstate(all="ignore"):  # infinities meet
        y = FWHT(xp.reshape(x, flat), scale, _config.num_threads())
    y = xp.reshape(y, shape)
    return y if order == sorted(order) else y.transpose(np.argsort(order))


def _differentiated(a: Any) -> bool:
    """Whether PyTorch has to see each step."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(a, torch.Tensor):
        return False
    from linalgk.interop import _torch

    return _torch.wants(a)


def _by_pytorch(a: Any, axis: int, norm: str | None, out: Any) -> Any:
    if out is not None:
        msg = "out: a result that is differentiated or compiled needs memory of its own"
        raise TypeError(msg)
    x, torch = _validate.floating("a", a), sys.modules["torch"]
    flat, scale = _lines(tuple(x.shape), axis, norm)
    return torch.reshape(butterflies(torch, torch.reshape(x, flat), scale), x.shape)


def explain(a: Any, /, **options: Any) -> Explanation:
    """What a call would run."""
    original = _xp.as_array("a", a)
    axis, shape = _axis(original, options.get("axis", -1))
    x = _validate.floating("a", _xp.face(original).enter(original))  # type: ignore[union-attr]
    n, size, dtype = shape[axis], math.prod(shape), _xp.dtype_name(x)
    flat, _ = _lines(shape, axis, None)
    chosen, why = FWHT.choose(_xp.namespace(x).reshape(x, flat), 1.0, 1)
    runs = {"fwht": why if chosen is not None else f"reference ({why})"}
    reals = 2 * size if dtype in _xp.COMPLEX else size
    width = 4 if _xp.REAL[dtype] == "float32" else 8
    reason = "there is one method"
    flops = float(reals * (n.bit_length() - 1))
    return Explanation("fwht", "butterflies", reason, runs, flops, 2.0 * width * reals)


class _Worker:
    """The transform of arrays of one kind: it holds no memory."""

    workspace_nbytes = 0

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self.status: Any = None

    def run(self, arrays: tuple[Any, ...], out: Any) -> Any:
        """Compute into ``out``, or into a new array."""
        result = fwht(arrays[0], **self._options, out=out)
        self.status = 0
        return result


def plan(a: Any, /, **options: Any) -> tuple[_Worker, Explanation, Any]:
    """A worker for arrays like ``a``, what it does, and an output's kind."""
    unknown = set(options) - {"axis", "norm"}
    if unknown:
        msg = f"{', '.join(sorted(unknown))}: not an option of a plan; give out= to the call"
        raise ValueError(msg)
    _validate.choice("norm", options.get("norm"), NORMS)
    explanation = explain(a, **options)
    face = _xp.face(a)
    assert face is not None
    like = face.leave(_validate.floating("a", face.enter(a)), a)
    return _Worker(options), explanation, like


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Vectors to transform: a few short ones, many, a long one."""
    shape = {"small": (3, 8), "medium": (64, 1024), "large": (1 << 20,)}[size]
    return (xp.asarray(np.random.default_rng(rng).standard_normal(shape)),), {}
