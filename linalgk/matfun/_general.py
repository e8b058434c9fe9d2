"""Functions of matrices without structure: closed forms, Schur, and what needs only LU and GEMM."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from linalgk import _lag, _xp
from linalgk.matfun import _ops
from linalgk.matfun._minimax import schedule
from linalgk.matfun._spectral import (
    FAILED,
    INDEFINITE,
    NO_ROOT,
    NONFINITE,
    OK,
    SINGULAR,
    Call,
    Result,
    Scalar,
    as_factor,
    at_home,
    blank,
    blas_for,
    home,
    norms,
    put,
    take,
    usable,
    workers,
)

METHODS = ("schur", "db", "newton", "products", "closed_form")
# From this order on Denman-Beavers beats Schur on two cores.
DB_FROM = 96
_HALF = Fraction(1, 2)


def choose_method(function: Scalar, n: int, *, schur: bool) -> tuple[str, str]:
    """Method for matrices that are not Hermitian, and why."""
    if function.name == "sign":
        return "newton", "not Hermitian"
    if function.name == "log":
        return "schur", "not Hermitian"
    if function.power.denominator == 1:
        return "products", "an integer power"
    if not is_square_root(function):
        return "schur", "not Hermitian"
    if n <= 2:
        return "closed_form", "n <= 2"
    if schur and n < DB_FROM:
        return "schur", "not Hermitian"
    return "db", "not Hermitian" + (": its residual is checked, else schur" if schur else "")


def is_square_root(function: Scalar) -> bool:
    """Whether it is A^(1/2) or A^(-1/2)."""
    return function.name == "power" and abs(function.power) == _HALF


def is_root_of_two(function: Scalar) -> bool:
    """Whether it is A^(1/p) or A^(-1/p) with p = 2, 4, 8, ..."""
    p = function.power.denominator
    return function.name == "power" and abs(function.power.numerator) == 1 and p & (p - 1) == 0


def solve(flat: Any, call: Call) -> Result:
    """No structure assumed; finite members at a scale near one, verdicts by the residual."""
    found = compute(flat, call)
    status, iterations = (
        np.asarray(_xp.to_numpy(v)).astype(int) for v in (found.status, found.iterations)
    )
    return found._replace(status=status, iterations=iterations, lower=np.full(len(status), np.nan))


def compute(flat: Any, call: Call) -> Result:
    """`solve` with the numbers per member where `home` is: a device is not waited for."""
    xp, h = _xp.namespace(flat), home(flat)
    n, function = flat.shape[-1], call.function
    name = _xp.dtype_name(flat)
    real = np.dtype(_xp.REAL[name])
    eps = float(np.finfo(real).eps)
    largest = at_home(xp.max(xp.abs(flat), axis=(-2, -1)))
    finite = h.isfinite(largest)
    status = _marked(h.zeros_like(largest, dtype=h.int64), ~finite, NONFINITE)
    step = function.root
    top = h.where(finite & (largest > 0), largest, h.ones_like(largest))
    units = -(-np.frexp(top)[1] // step) if h is np else h.ceil(h.log2(top) / step)
    a = _ops.scaled(usable(flat, status), -step * units)
    method = call.method
    if method == "auto":
        method, _ = choose_method(function, n, schur=isinstance(flat, np.ndarray))
    threads = workers(flat, call)
    with blas_for(flat), np.errstate(all="ignore"):
        x, status, iterations = _SOLVERS[method](a, status, call, eps, threads)
        if method == "db" and call.method == "auto" and isinstance(flat, np.ndarray):
            again = np.flatnonzero(status == FAILED)
            if len(again):
                some = np.full(len(again), OK)
                part, some, _ = _by_schur(take(a, again), some, call, eps, threads)
                x, method = put(x, again, part), "db+schur" if len(again) < len(status) else "schur"
                status[again], iterations[again] = some, 0
        if function.name == "power":
            x = (
                _ops.scaled(x, units * function.power.numerator)
                if function.root == (function.power.denominator)
                else x * as_factor(2.0 ** (float(function.power) * units), x)
            )
        elif function.name == "log":
            x = x + as_factor(math.log(2.0) * units, x) * _ops.eye_like(x)
    return Result(blank(x, status != OK), status, iterations, None, method)


def _marked(status: Any, members: Any, code: int) -> Any:
    """``status`` with a code in some members."""
    h = home(status)
    return h.where(members, h.full_like(status, code), status)


Solved = tuple[Any, Any, Any]


def _by_closed_form(a: Any, status: Any, call: Call, eps: float, _threads: int) -> Solved:
    """Square roots for n <= 2."""
    xp = _xp.namespace(a)
    real = _xp.dtype_name(a) not in _xp.COMPLEX
    wide = _xp.dtype_of(xp, "complex64" if eps > 1e-10 else "complex128")
    return _judged(a, _closed_form(xp.astype(a, wide)), status, call, eps, real)


def _by_schur(a: Any, status: Any, call: Call, eps: float, threads: int) -> Solved:
    """LAPACK's Schur form where there is one, else by square roots."""
    function, real = call.function, _xp.dtype_name(a) not in _xp.COMPLEX
    if is_square_root(function):
        return _judged(a, _ops.GENERAL_SQRT(a, threads), status, call, eps, real)
    if function.name == "log":
        x = _ops.GENERAL_LOG(a, threads)
    else:
        x = _ops.GENERAL_POWER(a, float(function.power), threads)
    if function.name == "log" or function.inverse:
        _, _, status = _inverted(a, status, eps, threads)
    return _plain(x, status, real, eps, a)


def _by_db(a: Any, status: Any, call: Call, eps: float, threads: int) -> Solved:
    """Square roots by Denman-Beavers as often as the root asks, then the inverse."""
    r = abs(call.function.power)
    x = a
    for _ in range(r.denominator.bit_length() - 1):
        x = _ops.general_sqrt(x, threads)
    # where Schur can do better it is asked to; elsewhere the error of the iteration is granted,
    # a residual larger by the condition of X
    strict = call.method == "auto" and isinstance(a, np.ndarray)
    slack: Any = 1.0
    if not strict:
        spread = norms(_ops.INVERSE(x, threads)[0]) * (norms(x) / a.shape[-1])
        h = home(a)
        slack = h.where(spread > 1, 10 * spread, h.full_like(spread, 10.0))
    return _judged(a, x, status, call, eps, True, r.denominator, slack)


def _judged(
    a: Any, x: Any, status: Any, call: Call, eps: float, real: bool, root: int = 2,
    slack: Any = 10.0,
) -> Solved:  # fmt: skip
    """Fail members whose root is not one, or is not real; invert where the inverse was asked."""
    xp, h, n = _xp.namespace(a), home(a), a.shape[-1]
    product = x
    for _ in range(root - 1):
        product = _ops.MATMUL(product, x, workers(a, call))
    size, defect, norm = norms(a), norms(product - xp.astype(a, x.dtype)), norms(x)
    # a backward stable root has a residual of n eps ||X||^p (Higham 2008, sections 6.5 and 7.3)
    bound = slack * n * eps * h.where(norm**root > size, norm**root, size)
    status = _marked(status, (status == OK) & ~(defect <= bound), FAILED)
    narrow = real and _xp.dtype_name(a) not in _xp.COMPLEX
    imaginary = _is_imaginary(x, eps, n, norm)
    if n == 1 and call.assume_a == "pos":
        status = _marked(status, (status == OK) & imaginary, INDEFINITE)
    if narrow and _xp.dtype_name(x) in _xp.COMPLEX:
        status = _marked(status, (status == OK) & imaginary, NO_ROOT)
        x = xp.real(x)
    x = xp.astype(x, a.dtype)
    if call.inverse:
        x, _, status = _inverted(x, status, eps, workers(a, call))
    return x, status, h.zeros_like(status)


def _is_imaginary(x: Any, eps: float, n: int, norm: Any) -> Any:
    xp = _xp.namespace(x)
    size = norms(xp.imag(x)) if _xp.dtype_name(x) in _xp.COMPLEX else 0 * norm
    return size > 10 * n * eps**0.5 * norm


def _plain(x: Any, status: Any, real: bool, eps: float, a: Any) -> Solved:
    """What cannot be judged by a residual: finite, and real where it has to be."""
    xp, h = _xp.namespace(a), home(a)
    norm = norms(x)
    status = _marked(status, (status == OK) & ~h.isfinite(norm), FAILED)
    if real and _xp.dtype_name(x) in _xp.COMPLEX:
        imaginary = _is_imaginary(x, eps, a.shape[-1], norm)
        status = _marked(status, (status == OK) & imaginary, NO_ROOT)
        x = xp.real(x)
    return xp.astype(x, a.dtype), status, h.zeros_like(status)


def _inverted(x: Any, status: Any, eps: float, threads: int) -> tuple[Any, Any, Any]:
    """Inverse, log |det| and status: singular where the reciprocal condition is below roundoff."""
    x = usable(x, status)
    inverse, logdet = _ops.INVERSE(x, threads)
    condition = norms(x) * norms(inverse)
    status = _marked(status, (status == OK) & ~(condition < 1 / eps), SINGULAR)
    logdet = at_home(logdet)
    zero = home(logdet).zeros_like(logdet)
    return usable(inverse, status), home(logdet).where(status == OK, logdet, zero), status


def _by_products(a: Any, status: Any, call: Call, eps: float, threads: int) -> Solved:
    """Integer powers by repeated squaring."""
    rest = call.function.power.numerator
    if rest < 0:
        a, _, status = _inverted(a, status, eps, threads)
        rest = -rest
    return _ops.repeated_squaring(a, rest), status, home(a).zeros_like(status)


def _by_newton(a: Any, status: Any, _call: Call, eps: float, threads: int) -> Solved:
    """Sign by Newton's iteration with determinantal scaling (Higham 2008, section 5.5).

    ``X <- (mu X + (mu X)^-1) / 2, mu = |det X|^(-1/n)`` until the steps are small, then products
    only: ``X <- X (15 I - 10 X^2 + 3 X^4) / 8``.
    """
    h, n = home(a), a.shape[-1]
    inverse, logdet, status = _inverted(a, status, eps, threads)
    x, iterations = usable(a, status), h.zeros_like(status)
    active, near = status == status, h.full_like(logdet, float("inf"))
    finished = _lag.Lag(a)
    for k in range(60):
        if k:
            inverse, logdet = _ops.INVERSE(x, threads)
            logdet = at_home(logdet)
        logdet = h.where(near < 1e-2, h.zeros_like(logdet), logdet)
        mu = h.exp(-logdet / n)
        factor = as_factor(h.where(active, mu, h.ones_like(mu)), x)
        x = factor * x
        new = 0.5 * (x + inverse / factor)
        # X^2 - I after the step is the square of the step, so that products converge
        step = norms(new - x)
        near = step / norms(new)
        iterations = iterations + h.astype(active, iterations.dtype)
        x = new
        active = ~(step < 0.3)
        if finished(~(h.any(active) & h.any(h.isfinite(near)))):
            break
    identity = _ops.eye_like(x)
    finished = _lag.Lag(a)
    for _ in range(4):
        square = _ops.MATMUL(x, x, threads)
        defect, spread = norms(square - identity), norms(x) ** 2 / n
        goal = n * eps * h.where(spread > 1, spread, h.ones_like(spread))
        if finished(~h.any(defect > goal)):
            break
        fourth = _ops.MATMUL(square, square, threads)
        x = 0.125 * _ops.MATMUL(x, 15 * identity - 10 * square + 3 * fourth, threads)
        iterations = iterations + 1
    norm, defect = norms(x), norms(_ops.MATMUL(x, x, threads) - identity)
    failed = ~(defect <= 10 * n * eps * norm**2)
    return x, _marked(status, (status == OK) & failed, FAILED), iterations


def _by_pade(a: Any, status: Any, _call: Call, eps: float, threads: int) -> Solved:
    """Sign by the principal Padé iteration, as partial fractions (Kenney and Laub, 1991).

    ``X <- X/m sum_j (X^2 + (1/x_j - 1) I)^-1 / x_j, x_j = (1 + cos((2j - 1) pi / 2m)) / 2``.
    """
    xp, h, n, m = _xp.namespace(a), home(a), a.shape[-1], 4
    _, logdet, status = _inverted(a, status, eps, threads)
    x, iterations = usable(a, status), h.zeros_like(status)
    identity, finished = _ops.eye_like(x), _lag.Lag(a)
    nodes = (0.5 * (1 + np.cos((2 * np.arange(m) + 1) * np.pi / (2 * m)))).tolist()
    for k in range(30):
        square = x @ x
        active = ~(norms(square - identity) <= n * eps)
        if finished(~h.any(active)):
            break
        if k == 0:
            # eigenvalues far from one only cost steps, those of X^2 meet near one
            factor = as_factor(h.exp(-logdet / n), x)
            x, square = factor * x, factor**2 * square
        total = xp.zeros_like(x)
        for node in nodes:
            shifted = square + (1 / node - 1) * identity
            total = total + _ops.INVERSE(shifted, threads)[0] / (m * node)
        mask = active if h is not np else _xp.from_numpy(active, xp, like=x)
        x = xp.where(mask[:, None, None], x @ total, x)
        iterations = iterations + h.astype(active, iterations.dtype)
    norm, defect = norms(x), norms(x @ x - identity)
    failed = ~(defect <= 10 * n * eps * norm**2)
    return x, _marked(status, (status == OK) & failed, FAILED), iterations


def sign_by_products(flat: Any, call: Call, method: str) -> Result:
    """Sign of Hermitian matrices by products only: the minimax polynomials, then Newton-Schulz."""
    h, n = home(flat), flat.shape[-1]
    real = np.dtype(_xp.REAL[_xp.dtype_name(flat)])
    eps = float(np.finfo(real).eps)
    size = norms(flat)
    x = flat / as_factor(h.where(size > 0, size, h.ones_like(size)), flat)
    x = 0.5 * (x + _ops.adjoint(x))
    coeffs: list[Any] = []
    if method == "minimax":
        # Python floats, which leave the dtype of an array alone
        coeffs = schedule(max(eps**0.75, 1e-9), call.tol, call.steps).tolist()
    limit = call.steps if call.steps is not None else 100
    identity, done, stop = _ops.eye_like(x), 0, _lag.Lag(flat)
    previous = h.full_like(size, float("inf"))
    goal = n**0.5 * eps if call.tol is None else call.tol
    while done < limit:
        a, b, c = coeffs[done] if done < len(coeffs) else (1.5, -0.5, 0.0)
        square = x @ x
        defect = norms(square - identity)
        finished = (defect <= goal) | ((defect < 0.1) & (defect >= 0.5 * previous))
        if call.steps is None and stop(h.all(finished)):
            break
        previous = defect
        t = a * identity + b * square
        t = t + c * (square @ square) if c else t
        x = x @ t
        x, done = 0.5 * (x + _ops.adjoint(x)), done + 1
    defect = norms(x @ x - identity)
    bound = 10 * n * eps if call.tol is None else max(10 * n * eps, 10 * n**0.5 * call.tol)
    accepted = defect <= (np.inf if call.steps is not None else bound)
    status = np.where(np.asarray(_xp.to_numpy(accepted)), OK, FAILED)
    unknown = np.full(len(status), np.nan)
    return Result(blank(x, status != OK), status, np.full(len(status), done), unknown, method)


_SOLVERS: dict[str, Callable[[Any, Any, Call, float, int], Solved]] = {
    "closed_form": _by_closed_form,
    "schur": _by_schur,
    "db": _by_db,
    "products": _by_products,
    "newton": _by_newton,
    "pade": _by_pade,
}


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
