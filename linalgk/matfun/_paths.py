"""The way from a batch to its function: fused iteration, eigenvectors, general methods."""

import functools
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk.matfun import _general, _ops
from linalgk.matfun._minimax import newton_table, schedule_table
from linalgk.matfun._rational import by_poles, by_series
from linalgk.matfun._spectral import (
    ASYMMETRIC,
    HARD,
    NONFINITE,
    OK,
    Call,
    Result,
    Scalar,
    blas_for,
    by_eigenvectors,
    by_entries,
    merge,
    take,
    workers,
)

# Largest order whose batches stay in the fused lane kernel (a complex matrix counts twice).
SMALL = 32
# Condition, as a power of two, up to which an iteration serves: beyond, the large minimax
# coefficients cost A^{1/2} digits and A^{-1/2} its small residual that eigenvectors keep. The real
# embedding of complex matrices loses them earlier, whatever the coefficients (docs/accuracy).
MINIMAX_LIMIT = {"sqrt": 18, "inverse": 24}
COMPLEX_LIMIT = 14


def choose_method(
    function: Scalar, n: int, dtype: str, *, hermitian: bool, spectrum: bool = False,
    schur: bool = True,
) -> tuple[str, str]:  # fmt: skip
    """Method for matrices of order n, and why; ``schur``: whether LAPACK is at hand (NumPy).

    Cost model: lanes do ``4 n^3`` flops a step at a fifth of peak or better and 5 to 18 steps,
    against about ``10 n^3`` of LAPACK at a few percent of peak for small n; they cross between
    n = 32 and 64. Products at full peak would need 3 GEMMs a step, eigenvectors cost 4 to 5.
    Without symmetry, Denman-Beavers takes 6 to 9 inverses and products (3 n^3 each at BLAS
    speed), Schur about 28 n^3 on one thread.
    """
    lanes = 2 * n if dtype in _xp.COMPLEX else n
    if hermitian:
        if spectrum:
            return "eigh", "rel_damp and rcond need the spectrum"
        if function.name == "power" and function.power in range(9):
            return "products", "a small integer power"
        if n == 1:
            return "closed_form", "n = 1"
        if lanes <= SMALL and function.factors is not None:
            return "minimax", f"Hermitian and n <= {SMALL // (lanes // n)}: one fused kernel"
        return "eigh", "Hermitian: eigenvectors cost less than the steps of an iteration"
    return _general.choose_method(function, n, schur=schur)


@functools.lru_cache(maxsize=64)
def steps_table(
    dtype: str, function: Scalar, method: str = "minimax", tol: Any = None, steps: Any = None
) -> Any:
    """The schedule of an iteration by condition, one row per power of two that it serves."""
    factors = function.factors
    assert factors is not None
    rows = COMPLEX_LIMIT if dtype in _xp.COMPLEX else 64
    if method == "newton_schulz":
        return newton_table(_xp.REAL[dtype], tol, steps, rows, factors[2])
    if tol is None and steps is None:
        rows = min(rows, MINIMAX_LIMIT["sqrt" if factors[0] else "inverse"])
    return schedule_table(_xp.REAL[dtype], tol, steps, rows, factors[2])


def empty(flat: Any) -> Result:
    count = flat.shape[0]
    zeros = np.zeros(count, int)
    return Result(flat, zeros, zeros, np.full(count, np.nan), "none")


def solve(flat: Any, call: Call) -> Result:
    """Route every member to its method; members one path cannot serve go on to the next."""
    if call.method == "closed_form" and flat.shape[-1] == 1:
        # a number has every function, and no other method for it
        call = call._replace(method="auto")
    method = call.method
    if method == "auto" and call.assume_a != "gen":
        n, dtype = flat.shape[-1], _xp.dtype_name(flat)
        spectrum = call.rel_damp is not None
        method, _ = choose_method(call.function, n, dtype, hermitian=True, spectrum=spectrum)
    sign = call.function.name == "sign"
    if call.assume_a == "gen" or call.method in _general.METHODS or (sign and method == "pade"):
        return _general.solve(flat, call)
    if method in ("minimax", "newton_schulz") and call.function.factors is not None:
        return _iterative(flat, call, method)
    return _hermitian(flat, call, method)


def asymmetry(call: Call, n: int, eps: float) -> float:
    """Relative asymmetry that still counts as rounding, or as carelessness under "pos"/"her"."""
    return float(n * eps) if call.assume_a is None else float(eps) ** 0.5


def scan(flat: Any, call: Call) -> Any:
    """Status of each member, its largest entry, its largest off the diagonal, and whether all are
    Hermitian to the bit.
    """
    largest, defect, spread = (_xp.to_numpy(v) for v in _ops.HERMITIAN_SCAN(flat, call.threads))
    eps = np.finfo(largest.dtype).eps
    status = np.where(np.isfinite(largest), OK, NONFINITE)
    with np.errstate(invalid="ignore"):
        status[defect > asymmetry(call, flat.shape[-1], eps) * largest] = ASYMMETRIC
    return status, largest, spread, not defect.any()


def _rest(found: Result, flat: Any, call: Call) -> Result:
    """Members that are not Hermitian go to the general method unless the caller said they were."""
    index = np.flatnonzero(found.status == ASYMMETRIC)
    if not len(index) or call.assume_a is not None or call.rel_damp is not None:
        return found
    return merge(found, index, _general.solve(take(flat, index), call._replace(method="auto")))


def _iterative(flat: Any, call: Call, method: str) -> Result:
    dtype = _xp.dtype_name(flat)
    factors = call.function.factors
    assert factors is not None
    table = steps_table(dtype, call.function, method, call.tol, call.steps)
    eps = float(np.finfo(_xp.REAL[dtype]).eps)
    planes = 2 if dtype in _xp.COMPLEX else 1
    n = flat.shape[-1]
    tol = asymmetry(call, n, eps)
    if n * planes <= SMALL:
        x, report, bad = _ops.SMALL_ROOT(flat, *factors, table, tol, call.threads)
        bad = np.any(_xp.to_numpy(bad)) if _xp.is_cuda(flat) else bad
    else:
        # beyond the kernel's size the definition runs, its products by the op's own kernel
        with blas_for(flat):
            x, report, bad = _ops.small_root(flat, *factors, table, tol, workers(flat, call))
    report = np.asarray(_xp.to_numpy(report), dtype=np.float64)
    status = report[:, 0].astype(int)
    found = Result(x, status, report[:, 1].astype(int), report[:, 2], method)
    if not bad:
        return found
    hard = np.flatnonzero(status == HARD)
    if len(hard):
        # Diagonal, or no lower bound of the spectrum: its eigenvalues decide, and are needed.
        found = merge(found, hard, _hermitian(take(flat, hard), call, "eigh"))
    return _rest(found, flat, call)


def _hermitian(flat: Any, call: Call, method: str) -> Result:
    """One method for the Hermitian members; the others go on to the general method."""
    status, largest, spread, exact = scan(flat, call)
    fine = status == OK
    diagonal = fine & (spread == 0)
    if method == "closed_form" and not diagonal[fine].all():
        method = "eigh"
    fine &= ~diagonal
    if fine.all():
        return _full(flat, largest, exact, call, method)
    blank = _xp.namespace(flat).full_like(flat, float("nan"))
    unknown = np.full(len(status), np.nan)
    found = Result(blank, status, np.zeros(len(status), int), unknown, "none")
    for which, by in ((diagonal, by_entries), (fine, None)):
        index = np.flatnonzero(which)
        if not len(index):
            continue
        damp = None if call.rel_damp is None else call.rel_damp[index]
        some, own = take(flat, index), call._replace(rel_damp=damp)
        part = by(some, own) if by else _full(some, largest[index], exact, own, method)
        found = merge(found, index, part)
    return _rest(found, flat, call)


def _full(flat: Any, largest: Any, exact: bool, call: Call, method: str) -> Result:
    if method == "products":
        found = _general.solve(flat, call._replace(method=method))
        return found._replace(x=0.5 * (found.x + _ops.adjoint(found.x)))
    if method == "pade":
        return by_poles(flat, largest, call)
    if method == "taylor":
        return by_series(flat, call)
    if method in ("minimax", "newton_schulz"):
        return _general.sign_by_products(flat, call, method)
    return by_eigenvectors(flat, largest, exact, call)
