"""Primitives of the matrix functions: one reference definition each, and where its kernels are.

Arrays have one batch axis in front, (b, n, n). ``threads`` is for kernels; references ignore it.
"""

from typing import Any

import numpy as np

from linalgk import _lag, _xp
from linalgk._dispatch import Implementation, Op

ALL = ("float32", "float64", "complex64", "complex128")
OK, NONFINITE, ASYMMETRIC, HARD = 0, 1, 2, 3


def adjoint(a: Any) -> Any:
    """The conjugate transpose of each member."""
    xp = _xp.namespace(a)
    transposed = xp.matrix_transpose(a)
    return xp.conj(transposed) if _xp.dtype_name(a) in _xp.COMPLEX else transposed


def eye_like(a: Any) -> Any:
    """The identity in the library, dtype and device of ``a``."""
    xp = _xp.namespace(a)
    if xp is np:
        return np.eye(a.shape[-1], dtype=a.dtype)
    device = _xp._compat("array_api_compat").device(a)
    return xp.eye(a.shape[-1], dtype=a.dtype, device=device)


def norms(x: Any) -> Any:
    """Frobenius norm of each member."""
    xp = _xp.namespace(x)
    size = xp.abs(x)
    # relative to the largest entry, whose square may leave the range of the dtype
    top = xp.max(size, axis=(-2, -1))
    top = xp.where(top == 0, xp.ones_like(top), top)
    return xp.sqrt(xp.sum((size / top[:, None, None]) ** 2, axis=(-2, -1))) * top


def hermitian_scan(a: Any, threads: int = 1) -> tuple[Any, Any, Any]:
    """Largest entry, largest ``|a_ij - conj(a_ji)|`` and largest off-diagonal entry of each member.

    The first two are NaN where the member is not finite.
    """
    xp = _xp.namespace(a)
    size = xp.abs(a)
    largest = xp.max(size, axis=(-2, -1))
    defect = xp.max(xp.abs(a - adjoint(a)), axis=(-2, -1))
    nan = 0 * largest * (0 * defect)
    finite = xp.isfinite(largest) & xp.isfinite(defect)
    largest = xp.where(finite, largest, nan + float("nan"))
    off = xp.where(xp.astype(xp.real(eye_like(a)), xp.bool), xp.zeros_like(size), size)
    spread = xp.max(off, axis=(-2, -1))
    return largest, xp.where(finite, defect, nan + float("nan")), spread


def eigh(a: Any, threads: int = 1) -> tuple[Any, Any]:
    """Eigenvalues ascending (b, n) and eigenvectors in columns (b, n, n)."""
    w, v = _xp.namespace(a).linalg.eigh(a)
    return w, v


def gram(v: Any, factor: Any, scale: Any, threads: int = 1) -> Any:
    """``scale B B^H`` with ``B = V diag(factor)``, exactly Hermitian.

    factor (b, n) and scale (b,) are real.
    """
    xp = _xp.namespace(v)
    b = v * xp.astype(factor, v.dtype)[:, None, :]
    product = b @ adjoint(b)
    product = 0.5 * (product + adjoint(product))
    return product * xp.astype(scale, v.dtype)[:, None, None]


def congruence(a: Any, v: Any, threads: int = 1) -> Any:
    """``V^H A V`` of Hermitian members, exactly Hermitian."""
    product = adjoint(v) @ (a @ v)
    return 0.5 * (product + adjoint(product))


def root_derivative(
    g: Any, v: Any, y: Any, inverse: bool, part: bool, threads: int = 1
) -> Any:  # fmt: skip
    """``V (K * V^H G V) V^H`` with ``K_ij = 1/(y_i + y_j)``, for inverses times -1/(y_i y_j).

    The derivative of a square root with eigenvalues y (b, n); with ``part`` its Hermitian part.
    """
    xp = _xp.namespace(g)
    y = xp.astype(y, g.dtype)
    kernel = 1 / (y[:, :, None] + y[:, None, :])
    if inverse:
        kernel = -kernel / (y[:, :, None] * y[:, None, :])
    x = v @ ((kernel * (adjoint(v) @ (g @ v))) @ adjoint(v))
    return 0.5 * (x + adjoint(x)) if part else x


def hermitian_square(y: Any, threads: int = 1) -> Any:
    """``Y^2`` of Hermitian members, exactly Hermitian."""
    product = y @ y
    return 0.5 * (product + adjoint(product))


def congruence_inverse(v: Any, y: Any, threads: int = 1) -> Any:
    """``V Y^{-1} V^H``, exactly Hermitian; Y is positive definite."""
    product = v @ (_xp.namespace(v).linalg.inv(y) @ adjoint(v))
    return 0.5 * (product + adjoint(product))


def chord(b: Any, y: Any, power: Any, s: Any, p: int, threads: int = 1) -> tuple[Any, Any]:
    """A Newton step for ``Y^p = B`` with the derivative at ``diag(s)``, and how large it was.

    ``Y_ij + (B - Y^p)_ij / sum_m s_i^m s_j^(p-1-m)`` with ``power`` for ``Y^p``; empty y and
    power stand for ``diag(s)``. The size is that of ``change_ij / (s_i s_j)^(1/2)``, Frobenius.
    """
    xp = _xp.namespace(b)
    if y.shape[0] == 0:
        y = xp.astype(s, b.dtype)[:, None, :] * eye_like(b)
        power = y**p
    rows, cols = s[:, :, None], s[:, None, :]
    kernel = xp.ones_like(rows * cols)
    for k in range(1, p):
        kernel = kernel * cols + rows**k
    change = (b - power) / xp.astype(kernel, b.dtype)
    size = xp.sum(xp.abs(change) ** 2 / (rows * cols), axis=(-2, -1))
    return y + change, xp.sqrt(size)


def inverse(a: Any, threads: int = 1) -> tuple[Any, Any]:
    """Inverse (b, n, n) and ``log |det|`` (b,); NaN or infinity where a member is singular."""
    xp = _xp.namespace(a)
    logdet = xp.linalg.slogdet(a)[1]
    good = xp.isfinite(logdet)
    inverted = xp.linalg.inv(_where(good, a, eye_like(a)))
    return _where(good, inverted, xp.full_like(a, float("nan"))), logdet


def repeated_squaring(a: Any, p: int) -> Any:
    """``A^p`` for an integer p >= 0."""
    x = eye_like(a) + _xp.namespace(a).zeros_like(a)
    while p:
        x = x @ a if p & 1 else x
        p >>= 1
        a = a @ a if p else a
    return x


def matmul(a: Any, b: Any, threads: int = 1) -> Any:
    """``A B`` of each pair of members."""
    return a @ b


def root_iteration(m: Any, x: Any, coeffs: Any, num: int, den: int, threads: int = 1) -> Any:
    """``X <- X T^num, M <- M T^den`` with ``T = a I + b M + c M^2``, coefficients (b, steps, 3).

    M tends to the identity and X to ``X_0 M_0^{-num/den}``; M must have eigenvalues in (0, 1] and
    X_0 be a polynomial of M_0.
    """
    return iterate(m, x, coeffs, num, den, threads)[0]


def iterate(
    m: Any, x: Any, coeffs: Any, num: int, den: int, threads: int = 1, *, last: bool = False
) -> tuple[Any, Any]:
    """X and M of `root_iteration` by products; M of the last step only if asked for."""
    steps = coeffs.shape[1]
    for k in range(steps):
        t = POLYNOMIAL(m, m @ m, coeffs, k, threads)
        for _ in range(num):
            x = SYMMETRISED(x @ t, threads)
        rest = den if last or k < steps - 1 else 0
        while rest:
            if rest & 1:
                m = SYMMETRISED(m @ t, threads)
            rest >>= 1
            t = t @ t if rest else t
    return x, m


def polynomial(m: Any, square: Any, coeffs: Any, step: int, threads: int = 1) -> Any:
    """``a I + b M + c M^2`` with ``square`` for M^2 and real ``coeffs[:, step] = (a, b, c)``."""
    xp = _xp.namespace(m)
    a, b, c = (xp.astype(coeffs[:, step, i], m.dtype)[:, None, None] for i in range(3))
    return a * eye_like(m) + b * m + c * square


def symmetrised(x: Any, threads: int = 1) -> Any:
    """``(X + X^H) / 2``; x may be overwritten."""
    return 0.5 * (x + adjoint(x))


def db_step(
    x: Any, product: Any, m: Any, inverse: Any, mu: Any, going: Any, threads: int = 1
) -> tuple[Any, Any, Any]:
    """Denman-Beavers in product form: new X and M, and the largest ``|M - I|`` of each member.

    ``X <- (mu X + X M^-1 / mu) / 2`` and ``M <- I/2 + (mu^2 M + M^-1 / mu^2) / 4`` with real mu,
    (b,), ``product`` for ``X M^-1`` and ``inverse`` for ``M^-1``, which may be overwritten. Members
    that are not ``going`` (bool, or None for all) stay as they are.
    """
    xp, identity = _xp.namespace(x), eye_like(m)
    factor = xp.astype(mu, x.dtype)[:, None, None]
    new_x, new_m = product, inverse
    new_x /= factor
    new_x += factor * x
    new_x *= 0.5
    new_m /= factor**2
    new_m += factor**2 * m
    new_m *= 0.25
    new_m += 0.5 * identity
    if going is not None:
        new_x, new_m = _where(going, new_x, x), _where(going, new_m, m)
    return new_x, new_m, xp.max(xp.abs(new_m - identity), axis=(-2, -1))


def odd_iteration(x: Any, coeffs: Any, tight: bool, gram: int, threads: int = 1) -> Any:
    """``X <- (a I + b R + c R^2) X`` with ``R = X X^H`` for each row (a, b, c) of coeffs (NumPy).

    x is (b, p, q) with p <= q. With ``tight`` X is first divided by the root of the smaller of the
    Frobenius and the row sum norm of R, an upper bound of its largest singular value. ``gram`` > 0
    is how many steps are taken on R alone (``R <- T R T``) before X is multiplied by what they came
    to; it saves products of p x q matrices and loses what lies below eps^(1/2).
    """
    xp = _xp.namespace(x)
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(x)])
    table = np.ascontiguousarray(np.broadcast_to(coeffs, (x.shape[0], *coeffs.shape)))
    device = _xp.from_numpy(table, xp, like=x, dtype=real)
    at = 0
    while at < len(coeffs):
        r = SYMMETRISED(x @ adjoint(x), threads)
        if tight and at == 0:
            size = xp.abs(r)
            rows = xp.max(xp.sum(size, axis=-1), axis=-1)
            squares = xp.sum(size**2, axis=(-2, -1))
            # the root of zero has no derivative
            squares = xp.where(squares > 0, squares, xp.ones_like(squares))
            bound = xp.minimum(xp.sqrt(squares), rows)
            bound = xp.where(bound > 0, bound, xp.ones_like(bound))
            r = r / xp.astype(bound, r.dtype)[:, None, None]
            x = x / xp.astype(xp.sqrt(bound), x.dtype)[:, None, None]
        count = min(max(gram, 1), len(coeffs) - at)
        total = None
        for k in range(count):
            t = POLYNOMIAL(r, r @ r, device, at + k, threads)
            total = t if total is None else t @ total
            if k + 1 < count:
                r = SYMMETRISED(t @ r @ t, threads)
        x = total @ x
        at += count
    return x


def small_root(
    a: Any, whole: int, num: int, den: int, table: Any, tol: float, threads: int = 1
) -> tuple[Any, Any, int]:
    """``A^(whole - num/den)`` of each member, whole 0 or 1, by the schedule of its own bounds.

    ``table[r]`` is the schedule for eigenvalues in [2^-r, 1] of the largest (`schedule_table`).
    Returns the roots, a report (b, 4) of status, steps, lower and upper eigenvalue bound, and
    the number of members whose status is not OK; those hold NaN: not finite, asymmetric beyond
    ``tol``, diagonal, or nearer to singular than the table reaches. The kernel takes its lower
    bound from a Cholesky factor, this definition from the eigenvalues.
    """
    xp = _xp.namespace(a)
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(a)])
    largest, defect, spread = HERMITIAN_SCAN(a, threads)
    finite = xp.isfinite(largest)
    symmetric = defect <= tol * largest
    fit = finite & symmetric & (spread > 0)
    exponent = xp.ceil(xp.log2(xp.where(fit, largest, xp.ones_like(largest))) / den)
    h = scaled(_where(fit, a, eye_like(a)), -den * exponent)
    h = 0.5 * (h + adjoint(h))
    w = xp.linalg.eigvalsh(h)
    low, high = w[:, 0], w[:, -1]
    floor = max(10 * float(xp.finfo(real).eps), 2.0 ** (1 - table.shape[0]))
    ready = fit & (low > floor * high)
    low = xp.where(ready, low, high)
    rows = xp.astype(xp.ceil(xp.log2(high / low)), _xp.dtype_of(xp, "int64"))
    # a little more than the computed eigenvalue, which is right to n eps
    high = high * (1 + 2.0**-10)
    chosen = xp.take(_constant(table, a, real), rows, axis=0)
    steps = chosen[:, 0]
    coeffs = xp.reshape(chosen[:, 3:], (a.shape[0], -1, 3))
    m = _where(ready, h / xp.astype(high, a.dtype)[:, None, None], eye_like(a))
    x = m if whole else eye_like(a) + 0 * m
    x = ROOT_ITERATION(m, x, coeffs, num, den, threads)
    factor = xp.sqrt(high) if den == 2 * num else high ** (num / den)
    factor = high / factor if whole else 1 / factor
    x = scaled(x * xp.astype(factor, a.dtype)[:, None, None], (den * whole - num) * exponent)
    x = _where(ready, x, xp.full_like(x, float("nan")))
    zero = xp.zeros_like(high)
    status = xp.where(~symmetric, zero + ASYMMETRIC, xp.where(ready, zero + OK, zero + HARD))
    status = xp.where(finite, status, zero + NONFINITE)
    bounds = (scaled(w[:, None, None], den * exponent)[:, 0, 0] for w in (low, high))
    report = xp.stack([status, steps, *bounds], axis=1)
    return x, report, int(xp.sum(xp.astype(~ready, _xp.dtype_of(xp, "int64"))))


def scaled(x: Any, exponents: Any) -> Any:
    """Members times 2^exponents (NumPy or like x), exact unless they leave the dtype's range."""
    xp = _xp.namespace(x)
    host = isinstance(exponents, np.ndarray)
    if host and not exponents.any():
        return x
    # two factors, because one alone can overflow where the product does not
    first = exponents // 2 if host else xp.floor(exponents / 2)
    for part in (first, exponents - first):
        if host:
            power = _xp.from_numpy(np.ldexp(1.0, part.astype(int)), xp, like=x, dtype=x.dtype)
        else:
            power = xp.astype(2.0**part, x.dtype)
        x = x * power[:, None, None]
    return x


def jacobi_nodes(alpha: float, m: int) -> tuple[Any, Any]:
    """Nodes and weights on [0, 1] for ``sin(pi alpha)/pi u^-alpha (1-u)^(alpha-1)``."""
    from scipy.special import roots_jacobi

    with np.errstate(all="ignore"):  # SciPy's recurrence meets 0/0, which it then discards
        nodes, weights = roots_jacobi(m, alpha - 1, -alpha)
    return 0.5 * (nodes + 1), weights * np.sin(np.pi * alpha) / np.pi


def _where(members: Any, a: Any, b: Any) -> Any:
    return _xp.namespace(a).where(members[:, None, None], a, b)


def _constant(table: Any, like: Any, dtype: Any) -> Any:
    xp = _xp.namespace(like)
    return _xp.from_numpy(np.ascontiguousarray(table), xp, like=like, dtype=dtype)


def general_sqrt(a: Any, threads: int = 1) -> Any:
    """Principal square roots of general matrices; NaN, or no root at all, where there is none.

    A kernel may return complex roots of real matrices, this definition does not. Product form of
    the scaled Denman-Beavers iteration (Higham, Functions of Matrices, 2008, eq. 6.29):
    ``X <- mu/2 X (I + N), M <- I/2 + (mu^2 M + N)/4`` with ``N = (mu^2 M)^-1``. It converges
    quadratically unless an eigenvalue lies on the closed negative real axis.
    """
    xp = _xp.namespace(a)
    x, m, identity, n = a, a, eye_like(a), a.shape[-1]
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(a)])
    eps = float(xp.finfo(real).eps)
    distance = xp.max(xp.abs(m - identity), axis=(-2, -1))
    finished = _lag.Lag(a)
    for _ in range(30):
        going = distance > n * eps
        if finished(~xp.any(going)):
            break
        # to know that all go on, a device would have to be asked
        every = not _xp.is_cuda(a) and bool(xp.all(going))
        inverse, logdet = INVERSE(m if every else _where(going, m, identity), threads)
        # finished members stay as they are, whatever batch they travel in
        logdet = xp.where((distance > 1e-2) & going, logdet, xp.zeros_like(logdet))
        mu = xp.astype(xp.exp(-logdet / (2 * n)), real)
        product = MATMUL(x, inverse, threads)
        x, m, distance = DB_STEP(x, product, m, inverse, mu, None if every else going, threads)
    return x


# Distance from the identity at which 8 nodes of a Gauss rule are exact to double precision.
_NEAR, _NODES = 0.25, 8


def _roots_near_identity(a: Any, threads: int) -> tuple[Any, Any, int]:
    """``A^(1/2^s)`` near the identity, s and at least the largest s; members stop one by one."""
    xp = _xp.namespace(a)
    identity = eye_like(a)
    roots = xp.zeros_like(a[:, 0, 0], dtype=_xp.dtype_of(xp, "int64"))
    finished, rounds = _lag.Lag(a), 0
    for _ in range(60):
        distance = xp.max(xp.sum(xp.abs(a - identity), axis=-1), axis=-1)
        going = distance > _NEAR
        if finished(~xp.any(going)):
            break
        a = _where(going, general_sqrt(_where(going, a, identity), threads), a)
        roots = roots + xp.astype(going, roots.dtype)
        rounds += 1
    return a, roots, rounds


def general_log(a: Any, threads: int = 1) -> Any:
    """Principal logarithms of general matrices; NaN where there is none.

    Inverse scaling and squaring: square roots until A is near I, then the Padé approximant as
    partial fractions, ``sum_j w_j E (I + x_j E)^-1`` with Gauss-Legendre nodes (Higham, Functions
    of Matrices, 2008, eq. 11.18).
    """
    xp = _xp.namespace(a)
    near, roots, _ = _roots_near_identity(a, threads)
    identity = eye_like(a)
    e, total = near - identity, xp.zeros_like(a)
    for x, w in zip(*(v.tolist() for v in np.polynomial.legendre.leggauss(_NODES)), strict=True):
        total = total + 0.5 * w * INVERSE(identity + 0.5 * (x + 1) * e, threads)[0]
    real = _xp.dtype_of(xp, _xp.REAL[_xp.dtype_name(a)])
    return scaled(e @ total, xp.astype(roots, real))


def general_power(a: Any, t: float, threads: int = 1) -> Any:
    """Principal powers ``A^t`` of general matrices; NaN where there is none.

    The fractional part by square roots until A is near I, the Padé approximant of ``x^-alpha`` as
    partial fractions with Gauss-Jacobi nodes, and as many squarings; the rest by products.
    """
    xp = _xp.namespace(a)
    whole = int(np.ceil(t))
    alpha = whole - t
    identity = eye_like(a)
    total = identity + xp.zeros_like(a)
    if alpha:
        near, roots, rounds = _roots_near_identity(a, threads)
        total = xp.zeros_like(a)
        for x, w in zip(*jacobi_nodes(alpha, _NODES), strict=True):
            part = INVERSE(float(x) * identity + float(1 - x) * near, threads)[0]
            total = total + float(w) * part
        for k in range(rounds):
            total = _where(roots > k, total @ total, total)
    base = INVERSE(a, threads)[0] if whole < 0 else a
    for _ in range(abs(whole)):
        total = total @ base
    return total


def polar(a: Any, left: bool, threads: int = 1) -> tuple[Any, Any, Any]:
    """U (b, m, n), H (b, n, n) and a report (b, 4) of ``A = U H``, m >= n, entries near one.

    With ``left`` and m = n it is ``A = H U``. H is exactly Hermitian. The report is ``||A - U H||``
    (Frobenius, up to what U lacks of being unitary), the smallest singular value or about a lower
    bound of it, steps, and a status: HARD where a kernel found no factors.
    """
    xp = _xp.namespace(a)
    u, s, vh = xp.linalg.svd(a, full_matrices=False)
    left = left and a.shape[-1] == a.shape[-2]
    v, unitary = u if left else adjoint(vh), u @ vh
    h = (v * xp.astype(s, a.dtype)[:, None, :]) @ adjoint(v)
    h = 0.5 * (h + adjoint(h))
    defect = norms(a - (h @ unitary if left else unitary @ h))
    zero = xp.zeros_like(defect)
    return unitary, h, xp.stack([defect, s[:, -1], zero, zero], axis=1)


def _spd(dtype: str, n: int = 6, batch: int = 3) -> Any:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((batch, n, 2 * n)).astype(dtype)
    if dtype in _xp.COMPLEX:
        a = a + 1j * rng.standard_normal(a.shape).astype(dtype)
    return np.ascontiguousarray((a @ np.conj(np.swapaxes(a, -1, -2))).astype(dtype))


def _symmetric(dtype: str) -> Any:
    a = _spd(dtype)
    return 0.5 * (a + adjoint(a))


def _rectangular(dtype: str) -> Any:
    return np.ascontiguousarray(np.concatenate([_spd(dtype), _general(dtype)], axis=-1))


def _general(dtype: str) -> Any:
    return _spd(dtype) + np.triu(np.ones((6, 6), dtype))


def _newton(steps: int) -> Any:
    """Newton-Schulz coefficients, the simplest schedule there is."""
    return np.tile([1.5, -0.5, 0.0], (steps, 1))


def _sample_small_root(dtype: str) -> tuple[Any, ...]:
    a = _spd(dtype)
    table = np.zeros((20, 3 * 21))
    for r, row in enumerate(table):
        row[:3] = r // 2 + 7, np.finfo(dtype).eps, 0.0
        row[3:] = np.tile([1.0, 0.0, 0.0], 20)
        row[3 : 3 * (r // 2 + 8)] = _newton(r // 2 + 7).ravel()
    return 0.5 * (a + adjoint(a)), 0, 1, 2, table, 1e-3, 1


def _sample_iteration(dtype: str) -> tuple[Any, ...]:
    a = _spd(dtype)
    a = 0.5 * (a + adjoint(a))
    a /= np.linalg.norm(a, axis=(1, 2), keepdims=True)
    coeffs = np.broadcast_to(_newton(12), (3, 12, 3)).astype(_xp.REAL[dtype])
    return a, a, coeffs, 1, 2, 1


def _cpu(stem: str, symbol: str, dtypes: tuple[str, ...] = ALL) -> Implementation:
    return Implementation("cpu", dtypes, f"linalgk_kernels.cpu.matfun_{stem}", symbol)


def _cuda(stem: str, symbol: str, when: Any = None, rule: str = "always") -> Implementation:
    module = f"linalgk_kernels.cuda.matfun_{stem}"
    return Implementation("cuda", ALL, module, symbol, when, rule)


def in_shared_memory(a: Any, *_: Any) -> bool:
    """Whether a block of the device holds a member; cheap, for `Implementation.when`."""
    fits: bool = SMALL_ROOT.implementations[-1].load("fits")(a)
    return fits


HERMITIAN_SCAN = Op(
    "hermitian_scan", "matfun", hermitian_scan,
    (_cpu("scan", "hermitian_scan"), _cuda("scan", "hermitian_scan")),
    lambda dtype: (_spd(dtype), 1),
)  # fmt: skip
EIGH = Op(
    "eigh", "matfun", eigh, (_cpu("eigh", "eigh"), _cuda("eigh", "eigh")),
    lambda dtype: (_spd(dtype), 1),
)  # fmt: skip
GRAM = Op(
    "gram", "matfun", gram, (_cpu("eigh", "gram"),),
    lambda dtype: (
        _spd(dtype), np.linspace(0.1, 2.0, 18, dtype=_xp.REAL[dtype]).reshape(3, 6),
        np.ldexp(np.ones(3, _xp.REAL[dtype]), [0, 1, -2]), 1,
    ),
)  # fmt: skip
CONGRUENCE = Op(
    "congruence", "matfun", congruence, (_cpu("congruence", "congruence"),),
    lambda dtype: (_symmetric(dtype), _spd(dtype) / 8, 1),
)  # fmt: skip
ROOT_DERIVATIVE = Op(
    "root_derivative", "matfun", root_derivative, (_cpu("congruence", "root_derivative"),),
    lambda dtype: (
        _spd(dtype), np.linalg.eigh(_spd(dtype))[1], np.arange(1.0, 19).reshape(3, 6), True, True, 1
    ),
)  # fmt: skip
HERMITIAN_SQUARE = Op(
    "hermitian_square", "matfun", hermitian_square, (_cpu("congruence", "hermitian_square"),),
    lambda dtype: (_symmetric(dtype), 1),
)  # fmt: skip
CONGRUENCE_INVERSE = Op(
    "congruence_inverse", "matfun", congruence_inverse,
    (_cpu("congruence", "congruence_inverse"),), lambda dtype: (_spd(dtype), _symmetric(dtype), 1),
)  # fmt: skip
CHORD = Op(
    "chord", "matfun", chord, (_cpu("chord", "chord"),),
    lambda dtype: (
        _symmetric(dtype), _symmetric(dtype) / 2, _symmetric(dtype) / 3,
        np.linspace(0.5, 2.0, 18, dtype=_xp.REAL[dtype]).reshape(3, 6), 3, 1,
    ),
)  # fmt: skip
INVERSE = Op(
    "inverse", "matfun", inverse, (_cpu("inverse", "inverse"), _cuda("inverse", "inverse")),
    lambda dtype: (_spd(dtype), 1),
)  # fmt: skip
MATMUL = Op(
    "matmul", "matfun", matmul, (_cpu("inverse", "matmul"),),
    lambda dtype: (_spd(dtype), _spd(dtype)[::-1] / 8, 1),
)  # fmt: skip
ROOT_ITERATION = Op(
    "root_iteration", "matfun", root_iteration, (_cpu("iteration", "root_iteration"),),
    _sample_iteration,
)  # fmt: skip
SMALL_ROOT = Op(
    "small_root", "matfun", small_root,
    (
        _cpu("roots", "small_root"),
        _cuda("roots", "small_root", in_shared_memory, "four matrices in a block's shared memory"),
    ),
    _sample_small_root,
)  # fmt: skip
POLYNOMIAL = Op(
    "polynomial", "matfun", polynomial, (_cuda("tails", "polynomial"),),
    lambda dtype: (_symmetric(dtype), _spd(dtype), _sample_iteration(dtype)[2], 3, 1),
)  # fmt: skip
SYMMETRISED = Op(
    "symmetrised", "matfun", symmetrised, (_cuda("tails", "symmetrised"),),
    lambda dtype: (_general(dtype), 1),
)  # fmt: skip
ODD_ITERATION = Op(
    "odd_iteration", "matfun", odd_iteration, (_cpu("polar", "odd_iteration"),),
    lambda dtype: (_rectangular(dtype), _newton(6), True, 2, 1),
)  # fmt: skip
DB_STEP = Op(
    "db_step", "matfun", db_step, (_cuda("tails", "db_step"),),
    lambda dtype: (
        _general(dtype), _spd(dtype), _symmetric(dtype), _general(dtype),
        np.asarray([0.5, 1.0, 3.0], _xp.REAL[dtype]), np.asarray([True, False, True]), 1,
    ),
)  # fmt: skip
GENERAL_SQRT = Op(
    "general_sqrt", "matfun", general_sqrt, (_cpu("schur", "general_sqrt"),),
    lambda dtype: (_general(dtype), 1),
)  # fmt: skip
GENERAL_LOG = Op(
    "general_log", "matfun", general_log, (_cpu("schur", "general_log"),),
    lambda dtype: (_general(dtype), 1),
)  # fmt: skip
GENERAL_POWER = Op(
    "general_power", "matfun", general_power, (_cpu("schur", "general_power"),),
    lambda dtype: (_general(dtype), -0.3, 1),
)  # fmt: skip
POLAR = Op(
    "polar", "matfun", polar, (_cpu("qdwh", "polar"),),
    lambda dtype: (np.ascontiguousarray(adjoint(_rectangular(dtype))), False, 1),
)  # fmt: skip
POLAR_SVD = Op(
    "polar_svd", "matfun", polar, (_cpu("qdwh", "polar_svd"),),
    lambda dtype: (_general(dtype), True, 1),
)  # fmt: skip
OPS = (
    HERMITIAN_SCAN, EIGH, GRAM, CONGRUENCE, HERMITIAN_SQUARE, CONGRUENCE_INVERSE, CHORD, INVERSE,
    MATMUL, ROOT_ITERATION, SMALL_ROOT, POLYNOMIAL, SYMMETRISED, DB_STEP, ODD_ITERATION,
    GENERAL_SQRT, GENERAL_LOG, GENERAL_POWER, POLAR, POLAR_SVD,
    ROOT_DERIVATIVE,
)  # fmt: skip
