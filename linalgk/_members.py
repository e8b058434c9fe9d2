"""What comes in at a door: kinds of matrices, members of a batch, and what goes back to them."""

import math
import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

from linalgk import _validate, _xp
from linalgk._results import Info
from linalgk.errors import ConvergenceWarning, MemberError

# --- Kinds ---------------------------------------------------------------------------------------


def is_sparse(a: Any) -> bool:
    """Whether SciPy stores it."""
    module = sys.modules.get("scipy.sparse")
    return module is not None and bool(module.issparse(a))


def is_cupyx(a: Any) -> bool:
    """Whether CuPy stores it as a sparse matrix."""
    return type(a).__module__.startswith("cupyx") and hasattr(a, "toarray")


def is_operator(a: Any) -> bool:
    """Whether it is known by its products only."""
    return hasattr(a, "shape") and (hasattr(a, "rmatmat") or hasattr(a, "H"))


# --- Members --------------------------------------------------------------------------------------


class Given(NamedTuple):
    """An argument that has been looked at."""

    original: Any
    face: _xp.Face
    flat: Any  # (b, m, n), a CSR matrix, or an operator
    batch: tuple[int, ...]
    shape: tuple[int, int]
    dtype: str
    eps: float
    sparse: bool
    operator: bool = False

    def leave(self, x: Any) -> Any:
        """An array in the caller's library."""
        if self.sparse or self.operator:
            return x
        if self.face.family == "jax" and isinstance(x, np.ndarray | np.generic):
            return sys.modules["jax"].numpy.asarray(x)
        return self.face.leave(x, self.original)


def enter(
    function: str, a: Any, *, sparse: bool = False, operator: bool = False, host: bool = False,
    name: str = "a",
) -> Given:  # fmt: skip
    """The argument as matrices on a flat batch; with ``host`` JAX's of a CPU as NumPy's."""
    if sparse and (is_sparse(a) or (operator and is_cupyx(a))):
        flat = a.tocsr()
        if _xp.dtype_name(flat.data) not in _xp.REAL:
            flat = flat.astype(_validate.floating(name, flat.data[:0]).dtype)
        face, batch, dtype = _xp.face(flat.data), (), _xp.dtype_name(flat.data)
    elif operator and _xp.face(a) is None and is_operator(a):
        none = np.empty(0, getattr(a, "dtype", None) or np.float64)
        dtype = _validate.floating(name, none).dtype.name
        flat, face, batch = a, _xp.face(np.empty(0)), ()
    else:
        flat, face = _entered(function, a, host, name)
        batch, dtype = tuple(flat.shape[:-2]), _xp.dtype_name(flat)
        flat = _xp.namespace(flat).reshape(flat, (math.prod(batch), *flat.shape[-2:]))
    assert face is not None
    m, n = (int(size) for size in flat.shape[-2:])
    eps = float(np.finfo(dtype).eps)
    stored = is_sparse(flat) or is_cupyx(flat)
    known = not stored and _xp.face(flat) is None
    return Given(a, face, flat, batch, (m, n), dtype, eps, stored, known)


def _entered(function: str, a: Any, host: bool, name: str) -> tuple[Any, _xp.Face]:
    a = _xp.as_array(name, a)
    face = _xp.face(a)
    if _xp.is_traced(a):
        msg = f"{name}: {function} looks at values and cannot be traced; call it outside"
        raise TypeError(msg)
    assert face is not None
    if host and face.family == "jax" and all(d.platform == "cpu" for d in a.devices()):
        flat = np.asarray(a)
    else:
        flat = face.enter(a)
    flat = _validate.floating(name, flat)
    if flat.ndim < 2:
        msg = f"{name}: must have shape (..., m, n), got {tuple(flat.shape)}"
        raise ValueError(msg)
    return flat, face


def finite_members(given: Given) -> tuple[Any, Any]:
    """Which members are finite, and the members with zeros in place of those that are not."""
    flat = given.flat
    if given.sparse:
        xp = _xp.namespace(flat.data)
        good = np.array([bool(xp.all(xp.isfinite(flat.data)))])
        return good, flat if good[0] else type(flat)(flat.shape, dtype=flat.dtype)
    xp = _xp.namespace(flat)
    finite = xp.all(xp.isfinite(flat), axis=(1, 2))
    good = np.asarray(_xp.to_numpy(finite))
    if good.all():
        return good, flat
    return good, xp.where(finite[:, None, None], flat, xp.zeros_like(flat))


def rank_cut(rcond: Any, given: Given) -> float:
    if rcond is None:
        return max(*given.shape, 1) * given.eps
    return _validate.real_between("rcond", rcond, 0.0, 1.0)


def make_info(
    given: Given, method: str, good: Any, iterations: Any, residual: Any, error: Any
) -> Info:
    """The fields as arrays of batch shape in the caller's library."""
    like = given.flat.data if given.sparse else given.flat
    xp = _xp.namespace(like)
    real = _xp.REAL[given.dtype]
    fields = {
        "iterations": iterations.astype(np.int64),
        "converged": good,
        "residual": np.where(good, residual, np.nan).astype(real),
        "error_estimate": np.where(good, error, np.nan).astype(real),
    }
    arrays = {
        key: given.face.leave(
            _xp.from_numpy(value.reshape(given.batch), xp, like=like), given.original
        )
        for key, value in fields.items()
    }
    return Info(method=method, **arrays)


def report(
    error: type[MemberError], sentence: str, bad: Any, batch: tuple[int, ...], policy: str,
    answer: Any,
) -> None:  # fmt: skip
    """Raise or warn about bad members as asked."""
    if not bad.any() or policy == "nan":
        return
    index = tuple(
        tuple(int(i) for i in np.unravel_index(j, batch)) if batch else ()
        for j in np.flatnonzero(bad)
    )
    which = f" (batch members {', '.join(map(str, index[:8]))}{', …' if len(index) > 8 else ''})"
    msg = sentence.format(which if batch else "")
    if policy == "raise":
        raise error(msg, index, answer)
    warnings.warn(msg, ConvergenceWarning, stacklevel=3)


def adjoint(xp: Any, x: Any) -> Any:
    transposed = xp.matrix_transpose(x)
    return xp.conj(transposed) if _xp.dtype_name(x) in _xp.COMPLEX else transposed
