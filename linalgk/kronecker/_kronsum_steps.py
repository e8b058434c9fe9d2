"""The algorithms of Kronecker sums, on arrays that have entered in one dtype."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.errors import SingularMatrixError
from linalgk.kronecker import _modes, _shifted
from linalgk.kronecker._apply import multiply
from linalgk.kronecker._factored import Factored, Problem
from linalgk.kronecker._leading import _under_hyperbola
from linalgk.matfun import solve_sylvester

# Triangular equations are split down to this order, where LAPACK's loops are as fast as products.
_BLOCK = 64
# LAPACK's eigenvalues are right to a modest multiple of eps ||A||, for small orders too.
_FEW = 16


# --- Products ------------------------------------------------------------------------------------


def product(factors: Sequence[Any], x: Any, side: str) -> Any:
    """``(A_1 (+) ... (+) A_d) x`` for x (..., n, k); on the right ``x (A_1 (+) ...)``."""
    xp = _xp.namespace(x)
    sizes = [int(f.shape[-1]) for f in factors]
    if side == "right":
        factors = [xp.matrix_transpose(f) for f in factors]
        first, last = int(x.shape[-2]), 1
    else:
        first, last = 1, int(x.shape[-1])
    total = None
    for i, f in enumerate(factors):
        before, behind = first * math.prod(sizes[:i]), math.prod(sizes[i + 1 :]) * last
        z = xp.reshape(x, (*x.shape[:-2], before, sizes[i], behind))
        # a factor that all members share goes over them as one batch
        y = multiply([f], z) if f.ndim == 2 else xp.matmul(f[..., None, :, :], z)
        y = xp.reshape(y, (*y.shape[:-3], *x.shape[-2:]))
        total = y if total is None else total + y
    return total


def outer_sum(vectors: Sequence[Any]) -> Any:
    """All sums ``w_1i + w_2j + ...`` (..., n) of entries of vectors (..., n_i), in row order."""
    xp = _xp.namespace(vectors[0])
    total = vectors[0]
    for w in vectors[1:]:
        total = total[..., :, None] + w[..., None, :]
        total = xp.reshape(total, (*total.shape[:-2], -1))
    return total


def dense(factors: Sequence[Any]) -> Any:
    """The matrix, as a sum of products with identities."""
    xp = _xp.namespace(factors[0])
    total = None
    for i, f in enumerate(factors):
        before = math.prod(int(g.shape[-1]) for g in factors[:i])
        behind = math.prod(int(g.shape[-1]) for g in factors[i + 1 :])
        y = kron(kron(identity(before, f), f), identity(behind, f))
        total = y if total is None else total + y
    assert total is not None
    return xp.asarray(total)


def kron(a: Any, b: Any) -> Any:
    """``A kron B`` for (..., p, q) and (..., r, s)."""
    xp = _xp.namespace(a)
    k = a[..., :, None, :, None] * b[..., None, :, None, :]
    shape = k.shape
    return xp.reshape(k, (*shape[:-4], shape[-4] * shape[-3], shape[-2] * shape[-1]))


def identity(n: int, like: Any) -> Any:
    """The identity in the library, dtype and device of an array."""
    xp = _xp.namespace(like)
    if xp is np:
        return np.eye(n, dtype=like.dtype)
    return xp.eye(n, dtype=like.dtype, device=_xp._compat("array_api_compat").device(like))


# --- Eigenvalues ---------------------------------------------------------------------------------


def hermitian_part(a: Any) -> Any:
    return 0.5 * (a + adjoint(_xp.namespace(a), a))


def eigenvalues(f: Factored) -> list[Any]:
    """Of each factor (..., n_i): real and ascending of Hermitian ones, complex of others."""
    found = f.spectral.values
    return [_shifted.eigenvalues(f, i) if w is None else w for i, w in enumerate(found)]


def sums(f: Factored, shift: complex) -> tuple[Any, Any]:
    """Sums of eigenvalues and the shift (..., n), and of their absolute values."""
    xp, values = f.xp, eigenvalues(f)
    dtype = values[0].dtype
    if shift.imag != 0 or len({w.dtype for w in values}) > 1:
        dtype = _xp.dtype_of(xp, _modes.widened(_xp.REAL[f.dtype]))
    values = [xp.astype(w, dtype, copy=False) for w in values]
    total = outer_sum(values)
    size = outer_sum([xp.abs(w) for w in values]) + abs(shift)
    return total + (shift if xp.isdtype(dtype, "complex floating") else shift.real), size


def shifted(f: Factored, shift: complex) -> tuple[Any, list[Problem]]:
    """Sums of eigenvalues and the shift (..., n), ones for those that are lost to rounding."""
    xp = f.xp
    total, size = sums(f, shift)
    top = xp.max(size, axis=-1, keepdims=True)
    # eigenvalues that cancel leave their own errors, others are right to a few roundings
    cancel = xp.abs(total) < 0.5 * size
    most = max(*f.sizes, _FEW)
    noise = xp.where(cancel, top * (f.eps * most), top * f.eps)
    lost = ~(xp.abs(total) > noise)
    hit = np.asarray(_xp.to_numpy(xp.any(lost, axis=-1)))
    # members that were not finite are zeros now
    hit = hit & ~bad_of(f.looked.problems, hit.shape)
    total = xp.where(lost, xp.ones_like(total), total)
    return total, [singular(f, shift, hit)] if hit.any() else []


def bad_of(problems: Sequence[Problem], batch: tuple[int, ...]) -> Any:
    """Members with any of these problems."""
    bad = np.zeros(batch, bool)
    for problem in problems:
        bad = bad | problem.bad
    return bad


def singular(f: Factored, shift: complex, hit: Any) -> Problem:
    """The problem with members whose eigenvalues have a sum of zero, as the first one has them."""
    at = np.unravel_index(np.argmax(hit), hit.shape)
    host = []
    for w in eigenvalues(f):
        w = np.asarray(_xp.to_numpy(w))
        host.append(np.broadcast_to(w, (*hit.shape, w.shape[-1]))[at])
    total = outer_sum(host) + shift
    index = np.unravel_index(int(np.argmin(np.abs(total))), [len(w) for w in host])
    words = [_shown(w[i]) for w, i in zip(host, index, strict=True)]
    what = "eigenvalues"
    if shift != 0:
        words, what = [*words, _shown(shift)], "eigenvalues and the shift"
    sentence = (
        f"the {what} {' + '.join(words)} (number {', '.join(str(int(i)) for i in index)}) sum to "
        f"{_shown(total[np.argmin(np.abs(total))])}{{}}, so that the matrix is singular to working "
        "precision; change the shift"
    )
    return Problem(SingularMatrixError, sentence, hit)


def _shown(z: Any) -> str:
    z = complex(z)
    return f"{z.real:.4g}" if z.imag == 0 else f"({z:.4g})"


# --- Solutions -----------------------------------------------------------------------------------


def choose_method(*, count: int, hermitian: bool) -> tuple[str, str]:
    """The method for so many factors, and why."""
    if hermitian:
        return "eigh", "all factors are Hermitian"
    if count == 2:
        return "sylvester", "of two factors one is not Hermitian"
    return "schur", f"of {count} factor{'s' * (count > 1)} one is not Hermitian"


def solve(f: Factored, b: Any, shift: complex) -> tuple[Any, list[Problem]]:
    """``(A_1 (+) ... (+) A_d + shift) x = b`` for b (..., n, k)."""
    xp = f.xp
    if f.empty or 0 in b.shape:
        full = np.broadcast_shapes(f.batch, tuple(b.shape[:-2]))
        return xp.zeros((*full, *b.shape[-2:]), dtype=b.dtype, **_modes.where(b)), []
    problems = [*f.looked.problems, *f.indefinite]
    method, _ = choose_method(count=len(f.sizes), hermitian=all(f.looked.hermitian))
    if method == "eigh":
        total, more = shifted(f, shift)
        c = _modes.times(f.adjoint_vectors, b) / total[..., None]
        return _modes.times(f.spectral.vectors, c), problems + more
    if method == "sylvester":
        x = _solve_pair(f, b, shift)
        good = xp.all(xp.isfinite(x), axis=(-2, -1))
        if bool(xp.all(good)):
            return x, problems
        # LAPACK knows a singular equation only; of another method it may be beyond its reach
        if isinstance(x, np.ndarray):
            hit = ~np.asarray(good) & ~bad_of(problems, tuple(good.shape))
            return x, [*problems, singular(f, shift, hit)] if hit.any() else problems
        y, more = _solve_general(f, b, shift)
        return xp.where(good[..., None, None], x, y), problems + more
    x, more = _solve_general(f, b, shift)
    return x, problems + more


def _solve_pair(f: Factored, b: Any, shift: complex) -> Any:
    """By `solve_sylvester`; NaN where it does not serve."""
    xp, (m, n), k = f.xp, f.sizes, int(b.shape[-1])
    left, right = (a if a.dtype == b.dtype else xp.astype(a, b.dtype) for a in f.looked.arrays)
    if shift != 0:
        number = shift if _xp.dtype_name(b) in _xp.COMPLEX else shift.real
        left = left + number * identity(m, left)
    q = xp.reshape(xp.matrix_transpose(b), (*b.shape[:-2], k, m, n))
    right = xp.matrix_transpose(right)
    if f.batch:
        left, right = left[..., None, :, :], right[..., None, :, :]
    x = solve_sylvester(left, right, q, assume_a="gen", check_finite=False, on_fail="nan")
    return xp.matrix_transpose(xp.reshape(x, (*x.shape[:-2], m * n)))


def _solve_general(f: Factored, b: Any, shift: complex) -> tuple[Any, list[Problem]]:
    """By eigenvectors, or by Schur forms where those are ill-conditioned."""
    xp, real = f.xp, _xp.dtype_name(b) not in _xp.COMPLEX
    total, problems = shifted(f, shift)
    x = None
    if not isinstance(b, np.ndarray) or len(f.sizes) > 2:
        x = _by_eigenvectors(f, total, b, shift, bool(problems))
    if x is None:
        x = _by_schur(f, b, shift)
        x = xp.real(x) if real else x
    return x, problems


def _by_eigenvectors(f: Factored, total: Any, b: Any, shift: complex, known: bool) -> Any:
    """With a step of refinement; None where it tells that the eigenvectors do not serve."""
    xp, parts = f.xp, _shifted.eigen(f)
    if math.prod(p.condition for p in parts) > _shifted.EIGENVECTORS:
        return None
    real = _xp.dtype_name(b) not in _xp.COMPLEX
    dtype = _xp.dtype_of(xp, _modes.widened(_xp.dtype_name(b)))
    left, right = (
        [xp.astype(m, dtype, copy=False) for m in ms]
        for ms in ([p.vectors for p in parts], [p.inverse for p in parts])
    )

    def direct(z: Any) -> Any:
        y = _modes.times(right, xp.astype(z, dtype, copy=False)) / total[..., None]
        y = _modes.times(left, y)
        return xp.real(y) if real else y

    def forward(z: Any) -> Any:
        return product(f.looked.arrays, z, "left")

    x = direct(b)
    image = forward(x) if f.is_complex else _modes.by_parts(forward, x)
    step = direct(b - image - (shift.real if real else shift) * x)
    large = xp.max(xp.abs(step), axis=(-2, -1)) > _shifted.CORRECTION * xp.max(
        xp.abs(x), axis=(-2, -1)
    )
    return x + step if known or not bool(xp.any(large)) else None


def _by_schur(f: Factored, b: Any, shift: complex) -> Any:
    """By triangular forms, complex: back substitution, mode by mode; diagonal modes side by side.

    Small modes come first: there are as many small equations as they have entries.
    """
    xp, forms, k = f.xp, _shifted.schur(f), int(b.shape[-1])
    dtype = _xp.dtype_of(xp, _modes.widened(_xp.dtype_name(b)))
    full = np.broadcast_shapes(f.batch, tuple(b.shape[:-2]))
    q = [xp.astype(form.q, dtype, copy=False) for form in forms]
    c = _modes.times([adjoint(xp, m) for m in q], xp.astype(b, dtype, copy=False))
    c = xp.broadcast_to(c, (*full, *c.shape[-2:]))
    order = sorted(range(len(forms)), key=lambda i: (not forms[i].diagonal, f.sizes[i]))
    c = _moved(xp, c, f.sizes, order)
    own = [xp.astype(forms[i].t, dtype, copy=False) for i in order if forms[i].diagonal]
    scale = outer_sum(own) if own else xp.zeros((1,), dtype=dtype, **_modes.where(b))
    # (..., diagonal, triangular, k)
    c = xp.reshape(c, (*full, scale.shape[-1], f.size // scale.shape[-1], k))
    ts = [xp.astype(forms[i].t, dtype, copy=False) for i in order if not forms[i].diagonal]
    y = xp.reshape(_recursion(ts, scale + shift, c), (*full, f.size, k))
    sizes = [f.sizes[i] for i in order]
    y = _moved(xp, y, sizes, [order.index(i) for i in range(len(order))])
    return _modes.times(q, y)


def _moved(xp: Any, x: Any, sizes: Sequence[int], order: list[int]) -> Any:
    """Modes of x (..., n, k) in another order."""
    if order == sorted(order):
        return x
    batch, m = tuple(x.shape[:-2]), x.ndim - 2
    cube = xp.reshape(x, (*batch, *sizes, x.shape[-1]))
    turn = (*range(m), *(m + i for i in order), m + len(order))
    return xp.reshape(xp.permute_dims(cube, turn), x.shape)


def _recursion(ts: list[Any], scale: Any, b: Any) -> Any:
    """``(scale_d + T_1 (+) ... (+) T_m) x_d = b_d`` for b (..., d, n_1 ... n_m, k).

    Halves of the first mode, the lower one first (Chen and Kressner, 2020): products do the work.
    """
    xp = _xp.namespace(b)
    if not ts:
        return b / scale[..., None, None]
    t, rest = ts[0], ts[1:]
    p, behind = int(t.shape[-1]), b.shape[-2] // int(t.shape[-1])
    if isinstance(b, np.ndarray) and b.ndim == 3 and all(m.ndim == 2 for m in ts):
        if not rest and len(b) == 1:
            return _substituted(t, scale[0], b[0])[None]
        if len(rest) == 1 and p <= _BLOCK and len(b) <= p * behind:
            return np.stack([_by_lapack(t, rest[0], s, x) for s, x in zip(scale, b, strict=True)])
    if p == 1:
        return _recursion(rest, scale + t[..., 0, :], b)
    half = p // 2
    cut = half * behind
    lower = _recursion([t[..., half:, half:], *rest], scale, b[..., cut:, :])
    z = xp.reshape(lower, (*lower.shape[:-2], p - half, behind * b.shape[-1]))
    moved = xp.matmul(t[..., :half, half:][..., None, :, :], z)
    top = b[..., :cut, :] - xp.reshape(moved, (*lower.shape[:-2], cut, b.shape[-1]))
    upper = _recursion([t[..., :half, :half], *rest], scale, top)
    return xp.concat([upper, lower], axis=-2)


def _substituted(t: Any, shift: Any, b: Any) -> Any:
    """``(T + shift) y = b`` of one NumPy system."""
    from scipy.linalg import solve_triangular

    return solve_triangular(t + shift * identity(len(t), t), b, check_finite=False)


def _by_lapack(r: Any, s: Any, shift: Any, b: Any) -> Any:
    """``R Y + Y S^T + shift Y = B`` for each column of b (m n, k)."""
    from scipy.linalg.lapack import get_lapack_funcs

    moved = r + shift * identity(len(r), r)
    other = s.conj()
    (trsyl,) = get_lapack_funcs(("trsyl",), (moved, other))
    y = np.empty_like(b)
    for j in range(b.shape[-1]):
        found, scale, _ = trsyl(moved, other, b[:, j].reshape(len(r), len(s)), tranb="C")
        y[:, j] = (found / scale).reshape(-1)
    return y


# --- Exponentials --------------------------------------------------------------------------------

# of the [13/13] Padé approximant, and where it is right to double precision (Higham, 2005)
_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0,
    129060195264000.0, 10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0,
    40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
_THETA = 5.371920351148152


def expm(a: Any, hermitian: bool) -> Any:
    """The exponential of each member (..., n, n)."""
    xp = _xp.namespace(a)
    if 0 in a.shape:
        return a
    if hermitian:
        w, v = xp.linalg.eigh(hermitian_part(a))
        y = (v * xp.astype(xp.exp(w), v.dtype)[..., None, :]) @ adjoint(xp, v)
        return hermitian_part(y)
    if isinstance(a, np.ndarray):
        import scipy.linalg

        return np.asarray(scipy.linalg.expm(a)).astype(a.dtype, copy=False)
    return _expm_by_pade(a)


def _expm_by_pade(a: Any) -> Any:
    """Scaling and squaring: ``(r(A / 2^s))^(2^s)`` with ``||A / 2^s||_1`` where r is good."""
    xp = _xp.namespace(a)
    size = xp.max(xp.sum(xp.abs(a), axis=-2), axis=-1)
    safe = xp.where(size > _THETA, size, xp.full_like(size, _THETA))
    steps = xp.ceil(xp.log2(safe / _THETA))
    a = a * xp.astype(2.0 ** (-steps), a.dtype)[..., None, None]
    one = identity(int(a.shape[-1]), a)
    b = [c / _PADE[0] for c in _PADE]
    a2 = a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    odd = a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2)
    odd = a @ (odd + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * one)
    even = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2)
    even = even + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * one
    x = xp.linalg.solve(even - odd, even + odd)
    for k in range(int(xp.max(steps))):
        # members that are done stay as they are
        x = xp.where((steps > k)[..., None, None], x @ x, x)
    return x


# --- Extreme sums --------------------------------------------------------------------------------


def largest(lists: Sequence[Any], k: int) -> tuple[Any, Any]:
    """The k largest sums of an entry of each list (NumPy), descending, and indices (k, d).

    Of sorted lists the pair (p, q) has (p + 1)(q + 1) - 1 pairs before it that are no smaller, and
    a sum is among the k largest only if the sum of its first terms is.
    """
    order = np.argsort(-np.asarray(lists[0]), kind="stable")[:k]
    values, places = np.asarray(lists[0])[order], order[:, None]
    for other in lists[1:]:
        index = np.argsort(-np.asarray(other), kind="stable")
        p, q = _under_hyperbola(len(values), len(index), k)
        found = values[p] + np.asarray(other)[index[q]]
        best = np.argsort(-found, kind="stable")[:k]
        values = found[best]
        places = np.concatenate([places[p[best]], index[q[best]][:, None]], axis=1)
    return values, places


def extreme(f: Factored, k: int, sign: float) -> tuple[Any, list[Any]]:
    """The k largest (sign 1) or smallest (-1) sums (..., k), and for each factor the indices."""
    count = math.prod(f.batch)
    host = [np.asarray(_xp.to_numpy(w)) for w in f.spectral.values]
    flat = [
        np.broadcast_to(sign * w, (*f.batch, w.shape[-1])).reshape(count, w.shape[-1]) for w in host
    ]
    pairs = [largest([w[m] for w in flat], k) for m in range(count)]
    values = sign * np.array([pair[0] for pair in pairs], host[0].dtype).reshape(*f.batch, k)
    places = np.array([pair[1] for pair in pairs], np.int64).reshape(*f.batch, k, len(host))
    return values, [places[..., i] for i in range(len(host))]
