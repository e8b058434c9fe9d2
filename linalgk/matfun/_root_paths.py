"""The ways to a root: fused iteration, eigenvectors, general matrices; one batch axis in front."""

import functools
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _xp
from linalgk.matfun import _ops
from linalgk.matfun._minimax import newton_table, schedule_table

# Largest order whose batches stay in the fused lane kernel (a complex matrix counts twice).
SMALL = 32
# Up to this order matrices go one per thread with serial BLAS; above, BLAS has the threads.
# By the order alone, so that a result does not depend on the batch it travels in.
SERIAL = 128
# Condition, as a power of two, up to which an iteration serves: beyond, the large minimax
# coefficients cost A^{1/2} digits and A^{-1/2} its small residual that eigenvectors keep. The real
# embedding of complex matrices loses them earlier, whatever the coefficients (docs/accuracy).
MINIMAX_LIMIT = {"sqrt": 18, "inverse": 24}
COMPLEX_LIMIT = 14

OK, NONFINITE, ASYMMETRIC, HARD = _ops.OK, _ops.NONFINITE, _ops.ASYMMETRIC, _ops.HARD
INDEFINITE, SINGULAR, NO_ROOT, FAILED = 4, 5, 6, 7


class Call(NamedTuple):
    """Everything about one call but the array."""

    inverse: bool
    assume_a: str | None
    method: str
    tol: float | None
    steps: int | None
    rel_damp: Any  # NumPy (b,) or None
    rcond: float | None
    threads: int


class Roots(NamedTuple):
    """Roots of a flat batch; the small arrays are NumPy, (b,)."""

    x: Any
    status: Any
    iterations: Any
    lower: Any  # smallest eigenvalue or a bound of it; NaN if unknown
    method: str


def choose_method(n: int, dtype: str, *, hermitian: bool, spectrum: bool) -> tuple[str, str]:
    """Method for matrices of order n, and why.

    Cost model: lanes do ``4 n^3`` flops a step at a fifth of peak or better and 6 to 18 steps,
    against about ``10 n^3`` of LAPACK at a few percent of peak for small n; they cross between
    n = 32 and 64. Products at full peak would need 3 GEMMs a step, eigenvectors cost 4 to 5.
    """
    lanes = 2 * n if dtype in _xp.COMPLEX else n
    if not hermitian:
        return ("closed_form", "n <= 2") if n <= 2 else ("schur", "not Hermitian")
    if spectrum:
        return "eigh", "rel_damp and rcond need the spectrum"
    if n == 1:
        return "closed_form", "n = 1"
    if lanes <= SMALL:
        return "minimax", f"Hermitian and n <= {SMALL // (lanes // n)}: one fused kernel"
    return "eigh", "Hermitian: eigenvectors cost less than the steps of an iteration"


@functools.lru_cache(maxsize=64)
def steps_table(
    dtype: str, inverse: bool, method: str = "minimax", tol: Any = None, steps: Any = None
) -> Any:
    """The schedule of an iteration by condition, one row per power of two that it serves."""
    rows = COMPLEX_LIMIT if dtype in _xp.COMPLEX else 64
    if method == "newton_schulz":
        return newton_table(_xp.REAL[dtype], tol, steps, rows)
    if tol is None and steps is None:
        rows = min(rows, MINIMAX_LIMIT["inverse" if inverse else "sqrt"])
    return schedule_table(_xp.REAL[dtype], tol, steps, rows)


def empty(flat: Any) -> Roots:
    count = flat.shape[0]
    zeros = np.zeros(count, int)
    return Roots(flat, zeros, zeros, np.full(count, np.nan), "none")


def take(flat: Any, index: Any) -> Any:
    if isinstance(flat, np.ndarray):
        return flat[index]
    xp = _xp.namespace(flat)
    return xp.take(flat, _xp.from_numpy(index, xp, like=flat), axis=0)


def _put(x: Any, index: Any, part: Any) -> Any:
    """``x`` with the members ``index`` replaced."""
    order = np.arange(x.shape[0])
    order[index] = len(order) + np.arange(len(index))
    return take(_xp.namespace(x).concat([x, part]), order)


def _merge(base: Roots, index: Any, part: Roots) -> Roots:
    """``base`` with the members ``index`` replaced."""
    status, iterations, lower = base.status.copy(), base.iterations.copy(), base.lower.copy()
    status[index], iterations[index], lower[index] = part.status, part.iterations, part.lower
    x = _put(base.x, index, part.x)
    names = [m for m in (base.method, *part.method.split("+")) if m != "none"]
    method = part.method if len(index) == len(status) else "+".join(dict.fromkeys(names))
    return Roots(x, status, iterations, lower, method)


def solve(flat: Any, call: Call) -> Roots:
    """Route every member to its method; members one path cannot serve go on to the next."""
    method = call.method
    if method == "auto":
        n, dtype = flat.shape[-1], _xp.dtype_name(flat)
        spectrum = call.rel_damp is not None
        method, _ = choose_method(n, dtype, hermitian=call.assume_a != "gen", spectrum=spectrum)
    if call.assume_a == "gen" or method in ("schur", "closed_form"):
        return _general(flat, call)
    return _spectral(flat, call) if method == "eigh" else _iterative(flat, call, method)


def _asymmetry(call: Call, n: int, eps: float) -> float:
    """Relative asymmetry that still counts as rounding, or as carelessness under "pos"/"her"."""
    return float(n * eps) if call.assume_a is None else float(eps) ** 0.5


def scan(flat: Any, call: Call) -> Any:
    """Status of each member, its largest entry, and whether all are Hermitian to the bit."""
    largest, defect = (_xp.to_numpy(v) for v in _ops.HERMITIAN_SCAN(flat, call.threads))
    eps = np.finfo(largest.dtype).eps
    status = np.where(np.isfinite(largest), OK, NONFINITE)
    with np.errstate(invalid="ignore"):
        status[defect > _asymmetry(call, flat.shape[-1], eps) * largest] = ASYMMETRIC
    return status, largest, not defect.any()


def _rest(found: Roots, flat: Any, call: Call) -> Roots:
    """Members that are not Hermitian go to the general method unless the caller said they were."""
    index = np.flatnonzero(found.status == ASYMMETRIC)
    if not len(index) or call.assume_a is not None or call.rel_damp is not None:
        return found
    return _merge(found, index, _general(take(flat, index), call))


def _iterative(flat: Any, call: Call, method: str) -> Roots:
    dtype = _xp.dtype_name(flat)
    table = steps_table(dtype, call.inverse, method, call.tol, call.steps)
    eps = float(np.finfo(_xp.REAL[dtype]).eps)
    planes = 2 if dtype in _xp.COMPLEX else 1
    n = flat.shape[-1]
    tol = _asymmetry(call, n, eps)
    if n * planes <= SMALL:
        x, report, bad = _ops.SMALL_ROOT(flat, call.inverse, table, tol, call.threads)
    else:
        # beyond the kernel's size the definition runs, its products by the op's own kernel
        serial = _serial(flat)
        with _config.serial_blas if serial else _config.blas_threads():
            threads = call.threads if serial else 1
            x, report, bad = _ops.small_root(flat, call.inverse, table, tol, threads)
    report = np.asarray(_xp.to_numpy(report), dtype=np.float64)
    status = report[:, 0].astype(int)
    found = Roots(x, status, report[:, 1].astype(int), report[:, 2], method)
    if not bad:
        return found
    hard = np.flatnonzero(status == HARD)
    if len(hard):
        # No lower bound of the spectrum: its eigenvalues decide, and are needed anyway.
        found = _merge(found, hard, _spectral(take(flat, hard), call))
    return _rest(found, flat, call)


def _serial(flat: Any) -> bool:
    return isinstance(flat, np.ndarray) and flat.shape[-1] <= SERIAL


def _spectral(flat: Any, call: Call) -> Roots:
    """Eigenvectors for the Hermitian members; the others go on to the general method."""
    status, largest, exact = scan(flat, call)
    fine = np.flatnonzero(status == OK)
    if len(fine) == len(status):
        return _eigenvectors(flat, largest, exact, call)
    blank = _xp.namespace(flat).full_like(flat, float("nan"))
    unknown = np.full(len(status), np.nan)
    found = Roots(blank, status, np.zeros(len(status), int), unknown, "none")
    if len(fine):
        damp = None if call.rel_damp is None else call.rel_damp[fine]
        part = _eigenvectors(take(flat, fine), largest[fine], exact, call._replace(rel_damp=damp))
        found = _merge(found, fine, part)
    return _rest(found, flat, call)


def _eigenvectors(flat: Any, largest: Any, exact: bool, call: Call) -> Roots:
    """By eigenvectors; decides definiteness and singularity by the computed eigenvalues."""
    xp = _xp.namespace(flat)
    complex_ = _xp.dtype_name(flat) in _xp.COMPLEX
    n, eps = flat.shape[-1], float(np.finfo(largest.dtype).eps)
    # a power of four near the largest entry, so that scaling is exact and its root too
    half = -(-np.frexp(np.where(largest > 0, largest, 1.0).astype(np.float64))[1] // 2)
    # products of entries near 1 neither overflow nor underflow: those need no scaling
    half = np.where(np.abs(half) > 8, half, 0)
    h = _scaled(flat, -2 * half)
    if not exact:
        h = 0.5 * (h + _ops.adjoint(h))
    serial = _serial(flat)
    threads = call.threads if serial else 1
    with _config.serial_blas if serial else _config.blas_threads():
        w_device, v = _ops.EIGH(h, threads)
        w = np.asarray(_xp.to_numpy(w_device), dtype=np.float64)
        status = np.where(np.isfinite(w).all(axis=1), OK, FAILED)
        root, status, lower = _spectrum(w, status, call, complex_, n, eps)
        quarter = _xp.from_numpy(np.sqrt(np.abs(root)), xp, like=flat, dtype=w_device.dtype)
        x = _ops.GRAM(v * xp.astype(quarter, v.dtype)[:, None, :], threads)
        # indefinite members have a complex root, which is no product B B^H
        index = np.flatnonzero(np.iscomplex(root).any(axis=1))
        if len(index):
            factor = _xp.from_numpy(root[index], xp, like=flat, dtype=flat.dtype)
            some = take(v, index)
            x = _put(x, index, (some * factor[:, None, :]) @ _ops.adjoint(some))
    x = _scaled(x, -half if call.inverse else half)
    if not (status == OK).all():
        bad = _xp.from_numpy(status != OK, xp, like=flat)[:, None, None]
        x = xp.where(bad, xp.asarray(float("nan"), dtype=x.dtype), x)
    lower = np.ldexp(lower, 2 * half)
    return Roots(x, status, np.zeros(len(status), int), lower, "eigh")


def _scaled(x: Any, exponents: Any) -> Any:
    """Members times 2^exponents, exact unless they leave the range of the dtype."""
    if not exponents.any():
        return x
    xp = _xp.namespace(x)
    real = _xp.REAL[_xp.dtype_name(x)]
    # two factors, because one alone can overflow where the product does not
    first = exponents // 2
    for part in (first, exponents - first):
        factor = _xp.from_numpy(np.ldexp(1.0, part).astype(real), xp, like=x, dtype=x.dtype)
        x = x * factor[:, None, None]
    return x


def _spectrum(w: Any, status: Any, call: Call, complex_: bool, n: int, eps: float) -> Any:
    """The function of the eigenvalues, the verdict on each member, and its smallest eigenvalue."""
    with np.errstate(all="ignore"):
        top = np.abs(w).max(axis=1)
        if call.rel_damp is not None:
            w = w + (call.rel_damp * np.maximum(w[:, -1], 0))[:, None]
            top = np.abs(w).max(axis=1)
        noise = n * eps * top
        lowest = w.min(axis=1)
        below = (status == OK) & (lowest < -noise)
        signed = complex_ and call.assume_a != "pos" and call.rcond is None
        if signed:
            # only a member that is really indefinite keeps its negative eigenvalues
            w = np.where(below[:, None], w, np.maximum(w, 0.0)).astype(complex)
        else:
            status = np.where(below, INDEFINITE, status)
            w = np.maximum(w, 0.0)
        if call.inverse and call.rcond is not None:
            kept = w > call.rcond * top[:, None]
            root = np.where(kept, 1 / np.sqrt(np.where(kept, w, 1.0)), 0.0)
        elif call.inverse:
            singular = (np.abs(w) <= eps * top[:, None]).any(axis=1)
            status = np.where((status == OK) & singular, SINGULAR, status)
            root = 1 / np.sqrt(w)
        else:
            root = np.sqrt(w)
    finite = np.isfinite(root).all(axis=1) & (status == OK)
    return np.where(finite[:, None], root, 1.0), status, np.maximum(lowest, 0.0)


def _general(flat: Any, call: Call) -> Roots:
    """No structure assumed: closed form for n <= 2, else Schur or Denman-Beavers."""
    xp = _xp.namespace(flat)
    n, complex_ = flat.shape[-1], _xp.dtype_name(flat) in _xp.COMPLEX
    real = np.dtype(_xp.REAL[_xp.dtype_name(flat)])
    eps = float(np.finfo(real).eps)
    largest = np.asarray(_xp.to_numpy(xp.max(xp.abs(flat), axis=(-2, -1))), dtype=np.float64)
    finite = np.isfinite(largest)
    status = np.where(finite, OK, NONFINITE)
    half = -(-np.frexp(np.where(finite & (largest > 0), largest, 1.0))[1] // 2)
    keep = _xp.from_numpy(finite, xp, like=flat)[:, None, None]
    a = _scaled(xp.where(keep, flat, _ops.eye_like(flat)), -2 * half)
    closed = n <= 2 and call.method in ("auto", "closed_form")
    wide = _xp.dtype_of(xp, "complex64" if real.itemsize == 4 else "complex128")
    x = _closed_form(xp.astype(a, wide)) if closed else _ops.GENERAL_SQRT(a, call.threads)
    status, imaginary = _judge(xp.astype(a, x.dtype), x, status, eps, n)
    if n == 1 and call.assume_a == "pos":
        status = np.where((status == OK) & imaginary, INDEFINITE, status)
    if not complex_ and x.dtype == wide:
        status = np.where((status == OK) & imaginary, NO_ROOT, status)
        x = xp.real(x)
    x = xp.astype(x, flat.dtype)
    if call.inverse:
        x, status = _inverse(x, status, eps)
    x = _scaled(x, -half if call.inverse else half)
    bad = status != OK
    if bad.any():
        mask = _xp.from_numpy(bad, xp, like=flat)[:, None, None]
        x = xp.where(mask, xp.asarray(float("nan"), dtype=x.dtype), x)
    unknown = np.full(len(status), np.nan)
    iterations = np.zeros(len(status), int)
    return Roots(x, status, iterations, unknown, "closed_form" if closed else "schur")


def _closed_form(a: Any) -> Any:
    """``(A + s I) / t`` with s and t the product and sum of the eigenvalues' roots, for n <= 2."""
    xp = _xp.namespace(a)
    if a.shape[-1] == 1:
        return xp.sqrt(a)
    half_trace = 0.5 * (a[:, 0, 0] + a[:, 1, 1])
    half_gap = 0.5 * (a[:, 0, 0] - a[:, 1, 1])
    off = a[:, 0, 1] * a[:, 1, 0]
    radius = xp.sqrt(half_gap * half_gap + off)
    plus, minus = half_trace + radius, half_trace - radius
    larger = xp.where(xp.abs(plus) >= xp.abs(minus), plus, minus)
    det = a[:, 0, 0] * a[:, 1, 1] - off
    safe = xp.where(larger == 0, xp.ones_like(larger), larger)
    # the smaller eigenvalue from the determinant, because the difference may cancel
    smaller = xp.where(larger == 0, larger, det / safe)
    # adding zero turns an imaginary part of -0 into +0: both roots on one side of the cut
    first, second = xp.sqrt(larger + 0j), xp.sqrt(smaller + 0j)
    s, t = first * second, first + second
    t = xp.where(t == 0, xp.ones_like(t), t)
    return (a + s[:, None, None] * _ops.eye_like(a)) / t[:, None, None]


def _judge(a: Any, x: Any, status: Any, eps: float, n: int) -> Any:
    """Fail members whose root is not one; tell which are not real."""
    xp = _xp.namespace(a)
    with np.errstate(all="ignore"):
        size, defect, root = frobenius(a), frobenius(x @ x - a), frobenius(x)
        # a backward stable root has a residual of n eps ||X||^2 (Higham 2008, section 6.5)
        bound = 10 * n * eps * np.maximum(root**2, size)
        status = np.where((status == OK) & ~(defect <= bound), FAILED, status)
        size_imaginary = frobenius(xp.imag(x)) if _xp.dtype_name(x) in _xp.COMPLEX else 0 * root
        imaginary = size_imaginary > 10 * n * eps**0.5 * root
    return status, imaginary


def _inverse(x: Any, status: Any, eps: float) -> Any:
    """Invert roots; singular where the reciprocal condition is below roundoff."""
    xp = _xp.namespace(x)
    singular = np.asarray(_xp.to_numpy(xp.linalg.svdvals(usable(x, status))))
    low = singular[:, -1] <= eps * singular[:, 0]
    status = np.where((status == OK) & low, SINGULAR, status)
    return xp.linalg.inv(usable(x, status)), status


def usable(x: Any, status: Any) -> Any:
    xp = _xp.namespace(x)
    good = _xp.from_numpy(status == OK, xp, like=x)[:, None, None]
    return xp.where(good, x, _ops.eye_like(x))


def frobenius(a: Any) -> Any:
    """Frobenius norm of each member, NumPy float64."""
    xp = _xp.namespace(a)
    size = xp.abs(a)
    # relative to the largest entry, whose square may leave the range of the dtype
    top = xp.max(size, axis=(-2, -1))
    top = xp.where(top == 0, xp.ones_like(top), top)
    square = xp.sum((size / top[:, None, None]) ** 2, axis=(-2, -1))
    return np.asarray(_xp.to_numpy(xp.sqrt(square) * top), dtype=np.float64)
