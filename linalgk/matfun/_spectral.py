"""Functions of Hermitian matrices by their eigenvectors, and of diagonal ones entry by entry."""

import contextlib
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _xp
from linalgk.matfun import _ops

OK, NONFINITE, ASYMMETRIC, HARD = _ops.OK, _ops.NONFINITE, _ops.ASYMMETRIC, _ops.HARD
INDEFINITE, SINGULAR, NO_ROOT, FAILED = 4, 5, 6, 7
# Up to this order matrices go one per thread with serial BLAS; above, BLAS has the threads.
# By the order alone, so that a result does not depend on the batch it travels in.
SERIAL = 256
# A power whose denominator is larger is no root of a useful order, but a float that is one.
_ROOTS = 64


class Scalar(NamedTuple):
    """The function that is applied to the eigenvalues."""

    name: str  # "power", "sign" or "log"
    power: Fraction = Fraction(1)

    @property
    def root(self) -> int:
        """Scaling a matrix by 2^root scales its function by a power of two."""
        small = self.name == "power" and self.power.denominator <= _ROOTS
        return self.power.denominator if small else 1

    @property
    def fractional(self) -> bool:
        """Whether negative numbers have no real value."""
        return self.name == "log" or (self.name == "power" and self.power.denominator > 1)

    @property
    def inverse(self) -> bool:
        return self.name == "power" and self.power < 0

    @property
    def factors(self) -> tuple[int, int, int] | None:
        """``whole, num, den`` with power = whole - num/den, if the coupled iteration serves."""
        r = self.power
        if self.name != "power" or not -8 <= r < 1 or r == 0 or r.denominator > 16:
            return None
        rest = 1 - r if r > 0 else -r
        return int(r > 0), rest.numerator, rest.denominator


class Call(NamedTuple):
    """Everything about one call but the array."""

    function: Scalar
    assume_a: str | None
    method: str
    tol: float | None
    steps: int | None
    rel_damp: Any  # NumPy (b,) or None
    rcond: float | None
    threads: int

    @property
    def inverse(self) -> bool:
        return self.function.inverse


class Result(NamedTuple):
    """Functions of a flat batch; the small arrays are NumPy, (b,)."""

    x: Any
    status: Any
    iterations: Any
    lower: Any  # smallest eigenvalue or a bound of it; NaN if unknown
    method: str


def evaluate(function: Scalar, w: Any) -> Any:
    """The function of eigenvalues that are in its domain; principal values for complex ones."""
    xp = _xp.namespace(w)
    if function.name == "sign":
        return xp.sign(w)
    if function.name == "log":
        return xp.log(w)
    size = abs(function.power)
    if size.denominator in (1, 2, 4):
        root = w if size.denominator == 1 else xp.sqrt(w)
        root = xp.sqrt(root) if size.denominator == 4 else root
        value = root**size.numerator
    else:
        value = w ** float(size)
    return 1 / value if function.power < 0 else value


def is_serial(flat: Any) -> bool:
    return isinstance(flat, np.ndarray) and flat.shape[-1] <= SERIAL


def workers(flat: Any, call: Call) -> int:
    """Threads for members one per thread; 1 where BLAS has the threads."""
    return call.threads if is_serial(flat) else 1


class Decomposition(NamedTuple):
    """``A = V diag(w) V^H 2^shift``; w and shift are NumPy."""

    w: Any
    v: Any
    shift: Any


def decompose(flat: Any, largest: Any, exact: bool, call: Call) -> Decomposition:
    """Eigenvectors at a scale where nothing overflows."""
    # a power of 2^root near the largest entry, so that scaling is exact and its function too;
    # products of entries near 1 neither overflow nor underflow: those need no scaling
    step = call.function.root
    shift = -(-np.frexp(np.where(largest > 0, largest, 1.0).astype(np.float64))[1] // step) * step
    shift = np.where(np.abs(shift) > 16, shift, 0)
    h = _ops.scaled(flat, -shift)
    if not exact:
        h = 0.5 * (h + _ops.adjoint(h))
    with blas_for(flat):
        w, v = _ops.EIGH(h, workers(flat, call))
    return Decomposition(np.asarray(_xp.to_numpy(w), dtype=np.float64), v, shift)


def assemble(flat: Any, found: Decomposition, call: Call, out: Any = None) -> Result:
    """The function from the eigenvectors; eigenvalues decide definiteness and singularity.

    ``out`` is for NumPy arrays and functions that are not negative.
    """
    xp, (w, v, shift) = _xp.namespace(flat), found
    complex_ = _xp.dtype_name(flat) in _xp.COMPLEX
    real = _xp.REAL[_xp.dtype_name(flat)]
    status = np.where(np.isfinite(w).all(axis=1), OK, FAILED)
    f, power, status, lower = _on_spectrum(w, shift, status, call, complex_, np.dtype(real))
    # f = low + (f - low): the second part is a square, exactly Hermitian by one product
    low = np.minimum(f.real.min(axis=1), 0.0)
    factor = _xp.from_numpy(np.sqrt(np.abs(f.real - low[:, None])), xp, like=flat, dtype=real)
    wide = np.abs(power) > 100
    scale = np.ldexp(1.0, np.where(wide, 0, power))
    unit = _xp.from_numpy(scale, xp, like=flat, dtype=real)
    with blas_for(flat):
        more = () if out is None else (out,)
        x = _ops.GRAM(v, factor, unit, workers(flat, call), *more)
    if low.any():
        part = _xp.from_numpy(low * scale, xp, like=flat, dtype=x.dtype)
        x = x + part[:, None, None] * _ops.eye_like(x)
    # indefinite members of a complex batch may have complex values
    index = np.flatnonzero(np.iscomplex(f).any(axis=1))
    if len(index):
        values = _xp.from_numpy(f[index] * scale[index, None], xp, like=flat, dtype=flat.dtype)
        some = take(v, index)
        x = put(x, index, (some * values[:, None, :]) @ _ops.adjoint(some))
    x = blank(_ops.scaled(x, np.where(wide, power, 0)), status != OK)
    return Result(x, status, np.zeros(len(status), int), np.ldexp(lower, shift), "eigh")


def by_eigenvectors(flat: Any, largest: Any, exact: bool, call: Call) -> Result:
    """By eigenvectors, from a scan of the batch."""
    return assemble(flat, decompose(flat, largest, exact, call), call)


def blas_for(flat: Any) -> Any:
    """Serial BLAS where members go one per thread, else the context's."""
    if flat.shape[-1] <= 32:
        # BLAS takes no second thread for so little, and asking it costs more than the work
        return contextlib.nullcontext()
    return _config.serial_blas if is_serial(flat) else _config.blas_threads()


def by_entries(flat: Any, call: Call) -> Result:
    """Real diagonal matrices, multiples of the identity and n = 1: exact to a rounding each."""
    xp = _xp.namespace(flat)
    name = _xp.dtype_name(flat)
    diagonal = _xp.to_numpy(xp.linalg.diagonal(flat))
    w = np.asarray(diagonal.real, dtype=np.float64)
    status, shift = np.full(len(w), OK), np.zeros(len(w), int)
    f, power, status, lower = _on_spectrum(
        w, shift, status, call, name in _xp.COMPLEX, np.dtype(_xp.REAL[name])
    )  # fmt: skip
    # in two factors, because one alone may leave the range
    f = f * np.ldexp(1.0, power // 2)[:, None] * np.ldexp(1.0, power - power // 2)[:, None]
    f = f if name in _xp.COMPLEX else f.real
    value = _xp.from_numpy(f, xp, like=flat, dtype=flat.dtype)
    # not a product with the identity, where infinity would spread
    x = xp.where(_identity_mask(flat), value[:, None, :], xp.zeros_like(flat))
    zeros = np.zeros(len(status), int)
    return Result(blank(x, status != OK), status, zeros, lower, "closed_form")


def _identity_mask(a: Any) -> Any:
    xp = _xp.namespace(a)
    return (
        xp.astype(xp.real(_ops.eye_like(a)), xp.bool)
        if xp is not np
        else np.eye(a.shape[-1], dtype=bool)
    )


def _on_spectrum(
    w: Any, shift: Any, status: Any, call: Call, complex_: bool, real: Any
) -> tuple[Any, Any, Any, Any]:
    """Function of the eigenvalues ``w 2^shift`` (b, n), in units of ``2^power``.

    Returns the values, the powers, the verdict on each member and its smallest eigenvalue in the
    units of w.
    """
    function, n, eps = call.function, w.shape[1], float(np.finfo(real).eps)
    with np.errstate(all="ignore"):
        top = np.abs(w).max(axis=1)
        if call.rel_damp is not None:
            w = w + (call.rel_damp * np.maximum(w.max(axis=1), 0))[:, None]
            top = np.abs(w).max(axis=1)
        lowest = w.min(axis=1)
        below = (status == OK) & (lowest < -n * eps * top)
        signed = complex_ and call.assume_a != "pos" and call.rcond is None
        if not function.fractional:
            status = np.where(below, INDEFINITE, status) if call.assume_a == "pos" else status
        elif signed:
            # only a member that is really indefinite keeps its negative eigenvalues
            w = np.where(below[:, None], w, np.maximum(w, 0.0)).astype(complex)
        else:
            status = np.where(below, INDEFINITE, status)
            w = np.maximum(w, 0.0)
        kept = np.ones(w.shape, bool)
        if call.rcond is not None:
            kept = np.abs(w) > call.rcond * top[:, None]
        elif function.inverse or function.name != "power":
            # the sign of an eigenvalue below the noise of eigh says nothing
            noise = n * eps if function.name == "sign" else eps
            singular = (np.abs(w) <= noise * top[:, None]).any(axis=1)
            status = np.where((status == OK) & singular, SINGULAR, status)
        power, w = np.zeros(len(w), int), np.where(kept, w, 1.0)
        if function.name == "power" and function.power.denominator <= _ROOTS:
            # powers of mantissas near 1, so that scaled matrices have the same digits
            step = function.root
            units = -(-np.frexp(np.where(top > 0, top, 1.0))[1] // step)
            w = w * np.ldexp(1.0, -step * (units // 2))[:, None]
            w = w * np.ldexp(1.0, -step * (units - units // 2))[:, None]
            f = evaluate(function, w)
            power = (units + shift // step) * function.power.numerator
        elif function.name == "power":
            f = evaluate(function, w) * np.exp2(float(function.power) * shift)[:, None]
        elif function.name == "log":
            f = evaluate(function, w) + np.log(2.0) * shift[:, None]
        else:
            f = evaluate(function, w)
        f = np.where(kept, f, 0.0)
    finite = np.isfinite(f).all(axis=1) & (status == OK)
    return np.where(finite[:, None], f, 1.0), power, status, np.maximum(lowest, 0.0)


def take(flat: Any, index: Any) -> Any:
    """The members ``index`` (NumPy)."""
    if isinstance(flat, np.ndarray):
        return flat[index]
    xp = _xp.namespace(flat)
    return xp.take(flat, _xp.from_numpy(index, xp, like=flat), axis=0)


def put(x: Any, index: Any, part: Any) -> Any:
    """``x`` with the members ``index`` replaced."""
    order = np.arange(x.shape[0])
    order[index] = len(order) + np.arange(len(index))
    return take(_xp.namespace(x).concat([x, part]), order)


def merge(base: Result, index: Any, part: Result) -> Result:
    """``base`` with the members ``index`` replaced."""
    status, iterations, lower = base.status.copy(), base.iterations.copy(), base.lower.copy()
    status[index], iterations[index], lower[index] = part.status, part.iterations, part.lower
    x = part.x if len(index) == len(status) else put(base.x, index, part.x)
    names = [m for m in (base.method, *part.method.split("+")) if m != "none"]
    method = part.method if len(index) == len(status) else "+".join(dict.fromkeys(names))
    return Result(x, status, iterations, lower, method)


def blank(x: Any, bad: Any) -> Any:
    """NaN in the bad members; ``bad`` may be where x is."""
    xp = _xp.namespace(x)
    if isinstance(bad, np.ndarray):
        if not bad.any():
            return x
        bad = _xp.from_numpy(bad, xp, like=x)
    return xp.where(bad[:, None, None], xp.full_like(x, float("nan")), x)


def usable(x: Any, status: Any) -> Any:
    """The identity in place of bad members; ``status`` may be where x is."""
    xp, good = _xp.namespace(x), status == OK
    if isinstance(good, np.ndarray):
        good = _xp.from_numpy(good, xp, like=x)
    return xp.where(good[:, None, None], x, _ops.eye_like(x))


def home(a: Any) -> Any:
    """The namespace of numbers per member: NumPy, but for a device that is not waited for."""
    return _xp.namespace(a) if _xp.is_cuda(a) else np


def at_home(x: Any) -> Any:
    """Numbers per member as `home` has them."""
    return x if _xp.is_cuda(x) else np.asarray(_xp.to_numpy(x), dtype=np.float64)


def as_factor(x: Any, like: Any) -> Any:
    """Numbers per member, (b, 1, 1) in the dtype of ``like``."""
    xp = _xp.namespace(like)
    if isinstance(x, np.ndarray):
        return _xp.from_numpy(x, xp, like=like, dtype=like.dtype)[:, None, None]
    return xp.astype(x, like.dtype)[:, None, None]


def norms(a: Any) -> Any:
    """Frobenius norm of each member, where `home` is."""
    return at_home(_ops.norms(a))


def frobenius(a: Any) -> Any:
    """Frobenius norm of each member, NumPy float64."""
    return np.asarray(_xp.to_numpy(norms(a)), dtype=np.float64)
