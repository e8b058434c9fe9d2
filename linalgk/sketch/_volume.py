"""Rows drawn jointly, by the volume that they span: volume sampling and determinantal processes."""

from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, finite_members
from linalgk.errors import NonFiniteError, SingularMatrixError
from linalgk.sketch._philox import Philox
from linalgk.sketch._sampling import alias_table, look_up, one_matrix
from linalgk.typing import Array

Kind: TypeAlias = Literal["projection", "likelihood", "factor"]
KINDS = get_args(Kind)
# Streams of the user's key: proposals, eigenvectors, rows that come on top.
_PROPOSALS, _SPECTRUM, _FILLING = 2, 3, 4


def volume_sample(
    a: Array,
    /,
    k: int | None = None,
    *,
    rng: Any = None,
    rcond: float | None = None,
    check_finite: bool | None = None,
) -> Array:
    """Draw k rows with probability proportional to the squared volume that they span.

    ``P(S) ~ det(A_S^H A_S)`` for ``k >= n`` and ``det(A_S A_S^H)`` for ``k <= n``, over all sets S
    of k rows.

    Parameters
    ----------
    a : array, shape (m, n)
        Real or complex, of rank at least ``min(k, n)``.
    k : int, optional
        Rows to draw, ``1 <= k <= m``. Default n.
    rng : seed, Generator or Philox
        Default None takes fresh entropy.
    rcond : float, optional
        Singular values up to ``rcond`` times the largest count as zero. Default
        ``max(m, n) eps``.
    check_finite : bool, optional
        False: NaN and infinity are not looked for.

    Returns
    -------
    indices : array of int, shape (k,)
        Distinct, in ascending order, in the library and on the device of ``a``.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        The matrix holds NaN or infinity.
    SingularMatrixError
        Every volume is zero.

    See Also
    --------
    dpp_sample, sample_rows

    Notes
    -----
    ``k = n`` is the projection determinantal process of the column space: row i is drawn with
    probability ``l_i``, its leverage score. For ``k > n``, ``k - n`` more rows are drawn from the
    others with equal probability: by the Cauchy-Binet formula ``det(A_S^H A_S)`` is the sum of
    ``det(A_T^H A_T)`` over the sets T of n rows in S, so that this is volume sampling of size k
    exactly [1]_, and row i is drawn with probability ``l_i + (1 - l_i) (k-n)/(m-n)``. For
    ``k < n``, k left singular vectors are drawn by the products of their squared singular values,
    then rows by the process of these vectors [2]_.

    With ``x_S`` the least squares solution from the rows S, ``E x_S = x``, the solution from all
    rows, for every right-hand side and ``k >= n``; for ``k = n`` and rows in general position,
    ``E ||A x_S - b||^2 = (n + 1) ||A x - b||^2`` [1]_. For ``k < n``, with the projector P_S on the
    rows S, ``E ||A - A P_S||_F^2 = (k + 1) e_(k+1) / e_k`` with the elementary symmetric
    polynomials of the squared singular values [3]_, at most ``k + 1`` times the least.

    ``4 m n^2`` flops for an orthonormal basis (singular vectors for ``k < n``), then about
    ``n^3 log n``; see `dpp_sample`. The law is exact up to rounding: every probability that is
    compared with a random number has an error of some ``n eps``. float32 is computed in float64.
    Rows are drawn on the host, whatever library ``a`` is from.

    References
    ----------
    .. [1] M. Derezinski, M. K. Warmuth, "Reverse iterative volume sampling for linear regression",
       J. Mach. Learn. Res. 19 (2018).
    .. [2] A. Kulesza, B. Taskar, "k-DPPs: fixed-size determinantal point processes", ICML 2011.
    .. [3] V. Guruswami, A. K. Sinop, "Optimal column-based low-rank matrix reconstruction", SODA
       2012.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> rows = lk.volume_sample(a, rng=0)        # never 0 and 1 together, never 3
    >>> rows.shape, 2 in rows, 3 in rows
    ((2,), True, False)
    """
    given, x = _matrix("volume_sample", a, "a", check_finite)
    m, n = given.shape
    if not n:
        msg = f"a: has no columns, shape {given.shape}: every volume is that of the empty set"
        raise ValueError(msg)
    size = n if k is None else _validate.integer("k", k, 1)
    if size > m:
        word = f"k: the default k = n = {n}" if k is None else f"k: {k}"
        msg = f"{word} is more than the m = {m} rows of a; give a k of at most {m}"
        raise ValueError(msg)
    cut = max(m, n) * given.eps
    if rcond is not None:
        cut = _validate.real_between("rcond", rcond, 0.0, 1.0)
    philox = Philox(rng)
    if size < n:
        with _config.serial_blas:
            vectors, logs = _factor(x, cut)
            _enough(len(logs), size)
            chosen = vectors[:, _fixed_size(logs, size, philox)]
    else:
        with _config.blas_threads():
            chosen, r = np.linalg.qr(x)
            s = np.linalg.svd(r, compute_uv=False)
            _enough(int((s > cut * s[0]).sum()), n)
    with _config.blas_threads():
        rows = _projection(chosen, philox.spawn(_PROPOSALS))
    if size > n:
        keys = philox.spawn(_FILLING).uniform(m)
        keys[rows] = 2.0
        rows = np.concatenate([rows, np.argsort(keys, kind="stable")[: size - n]])
    return _leave(np.sort(rows), given)


def dpp_sample(
    v: Array,
    /,
    *,
    kind: Kind = "projection",
    k: int | None = None,
    rng: Any = None,
    check_finite: bool | None = None,
) -> Array:
    """Draw a set of indices from a determinantal point process.

    Parameters
    ----------
    v : array, shape (m, r) or (m, m)
        Real or complex. By ``kind``, orthonormal columns V, a positive semidefinite L, or any
        factor V of ``L = V V^H``.
    kind : {"projection", "likelihood", "factor"}
        ``projection``: exactly r indices, ``P(S) = |det V_S|^2``, kernel ``K = V V^H``.
        ``likelihood`` (v is L) and ``factor``: ``P(S) = det(L_S) / det(I + L)``, kernel
        ``K = L (I + L)^-1``, any number of indices, ``tr K`` of them on average.
    k : int, optional
        Not for ``projection``: exactly k indices, ``P(S) ~ det(L_S)`` over sets of k.
    rng : seed, Generator or Philox
        Default None takes fresh entropy.
    check_finite : bool, optional
        False: NaN and infinity are not looked for.

    Returns
    -------
    indices : array of int
        Distinct, in ascending order, in the library and on the device of ``v``.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit; columns that are not orthonormal; an L that is
        not Hermitian or has a negative eigenvalue.
    NonFiniteError
        The argument holds NaN or infinity.
    SingularMatrixError
        L has a rank below k.

    See Also
    --------
    volume_sample : the process of the column space of a matrix, and larger sets.

    Notes
    -----
    The probability that all of T is drawn is ``det(K_T)``; index i comes with probability
    ``K_ii``, and two indices never more often together than independent ones would.

    Eigenvectors are drawn first, each with probability ``lambda / (1 + lambda)``, or k of them by
    elementary symmetric polynomials [2]_; what remains is a projection [1]_. Its indices come one
    after the other: the next is i with probability ``d_i / (r - t)``, where ``d_i`` is the squared
    distance of the row ``v_i`` to the span of the t rows drawn so far. Instead of updating all m
    distances, i is proposed with probability ``||v_i||^2 / r`` and accepted with ``d_i /
    ||v_i||^2`` [3]_: the law is the same, and beyond the alias table of m norms the cost does not
    depend on m: about ``r log r`` proposals and ``2 r^3 log r`` flops. To check V takes
    ``2 m r^2`` flops, the eigenvectors of L ``10 m^3``, the singular vectors of a factor
    ``6 m r^2``.

    float32 is computed in float64, on the host, whatever library ``v`` is from.

    References
    ----------
    .. [1] J. B. Hough, M. Krishnapur, Y. Peres, B. Virag, "Determinantal processes and
       independence", Probability Surveys 3 (2006).
    .. [2] A. Kulesza, B. Taskar, "k-DPPs: fixed-size determinantal point processes", ICML 2011.
    .. [3] S. Barthelme, N. Tremblay, P.-O. Amblard, "A faster sampler for discrete determinantal
       point processes", AISTATS 2023.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> t = np.linspace(-1, 1, 400)
    >>> v = np.linalg.qr(t[:, None] ** np.arange(6))[0]     # polynomials up to degree 5
    >>> nodes = t[lk.dpp_sample(v, rng=1)]
    >>> nodes.shape, bool(np.diff(nodes).min() > 0)
    ((6,), True)
    """
    _validate.choice("kind", kind, KINDS)
    given, x = _matrix("dpp_sample", v, "v", check_finite)
    m, r = given.shape
    philox = Philox(rng)
    if kind == "projection":
        if k is not None:
            msg = f"k: a projection gives as many indices as v has columns, {r}; leave out k"
            raise ValueError(msg)
        with _config.blas_threads():
            return _leave(np.sort(_projection(_orthonormal(x, given), philox.spawn(_PROPOSALS))),
                          given)  # fmt: skip
    size = None if k is None else _validate.integer("k", k, 0)
    # one thread, because vectors of a multiple eigenvalue depend on the last bits
    with _config.serial_blas:
        cut = max(m, r) * given.eps
        vectors, logs = _factor(x, cut) if kind == "factor" else _spectrum(x, cut)
        if size is None:
            u = philox.spawn(_SPECTRUM).uniform(len(logs))
            picked = np.flatnonzero(u < np.exp(-np.logaddexp(0.0, -logs)))
        else:
            _enough(len(logs), size, "v")
            picked = _fixed_size(logs, size, philox)
        rows = _projection(vectors[:, picked], philox.spawn(_PROPOSALS))
    return _leave(np.sort(rows), given)


def explain_volume(a: Any, /, k: int | None = None, **_: Any) -> Explanation:
    """What a call of volume_sample would run."""
    given = one_matrix("volume_sample", a)
    m, n = given.shape
    size = n if k is None else _validate.integer("k", k, 1)
    method = "projection" if size >= n else "fixed_size"
    reason = "k = n" if size == n else "k > n, more rows with equal probability"
    reason = "k < n, singular vectors first" if size < n else reason
    flops = (4.0 if size >= n else 6.0) * m * n**2 + _flops(min(size, n))
    return Explanation("volume_sample", method, f"{reason}; on the host", {}, flops, 8.0 * m * n)


def explain_dpp(
    v: Any, /, *, kind: Kind = "projection", k: int | None = None, **_: Any
) -> Explanation:
    """What a call of dpp_sample would run."""
    _validate.choice("kind", kind, KINDS)
    given = one_matrix("dpp_sample", v, name="v")
    m, r = given.shape
    flops = {"projection": 2.0 * m * r**2, "likelihood": 10.0 * m**3, "factor": 6.0 * m * r**2}
    size = min(m, r) if k is None else k
    return Explanation(
        "dpp_sample", kind, "it was asked for or is the default; on the host", {},
        flops[kind] + _flops(size), 8.0 * m * r,
    )  # fmt: skip


def _flops(r: int) -> float:
    """Of drawing r rows by rejection."""
    return 2.0 * r**3 * (1.0 + float(np.log(max(r, 1))))


# --- The projection process ----------------------------------------------------------------------


def _projection(v: Any, philox: Philox) -> Any:
    """Rows of V with orthonormal columns, in the order in which they were drawn."""
    m, r = v.shape
    rows = np.zeros(r, np.int64)
    if not r:
        return rows
    norms = _row_squares(v)
    table = alias_table(norms)
    basis = np.zeros((r, r), v.dtype)
    taken = np.zeros(m, bool)
    done, block, start = 0, 2 * r + 16, 0
    while done < r:
        # proposals beyond the last one are for nothing, and random numbers are a function of
        # their place: how many are looked at together does not change the answer
        u = philox.uniform(4 * block, start=4 * start).reshape(block, 4)
        start += block
        proposed = look_up(*table, u[:, :2])
        bar = np.where(taken[proposed], np.inf, u[:, 2] * norms[proposed])
        rest = v[proposed]
        for _ in range(2):  # twice is enough
            rest = rest - (rest @ basis[:done].conj().T) @ basis[:done]
        place = 0
        while done < r:
            accepted = np.flatnonzero(bar[place:] < _row_squares(rest[place:]))
            if not len(accepted):
                break
            place += int(accepted[0])
            direction = rest[place] - (rest[place] @ basis[:done].conj().T) @ basis[:done]
            basis[done] = direction / np.linalg.norm(direction)
            rows[done] = proposed[place]
            # a row that was drawn has distance zero; rounding must not draw it again
            taken[rows[done]] = True
            bar[proposed == rows[done]] = np.inf
            rest[place:] -= np.outer(rest[place:] @ basis[done].conj(), basis[done])
            done, place = done + 1, place + 1
    return rows


def _row_squares(x: Any) -> Any:
    return np.einsum("ij,ij->i", x.real, x.real) + (
        np.einsum("ij,ij->i", x.imag, x.imag) if np.iscomplexobj(x) else 0.0
    )


def _fixed_size(logs: Any, k: int, philox: Philox) -> Any:
    """Which k eigenvalues, with probability proportional to their product; from logarithms."""
    r = len(logs)
    u = philox.spawn(_SPECTRUM).uniform(r)
    # logarithms of the elementary symmetric polynomials e_0 ... e_k of the first j eigenvalues
    table = np.full((r + 1, k + 1), -np.inf)
    table[:, 0] = 0.0
    for j in range(r):
        table[j + 1, 1:] = np.logaddexp(table[j, 1:], logs[j] + table[j, :-1])
    picked = []
    for j in range(r, 0, -1):
        if k and u[j - 1] < np.exp(min(0.0, logs[j - 1] + table[j - 1, k - 1] - table[j, k])):
            picked.append(j - 1)
            k -= 1
    return np.array(picked[::-1], np.int64)


# --- What comes in and goes out ------------------------------------------------------------------


def _matrix(function: str, a: Any, name: str, check_finite: Any) -> tuple[Given, Any]:
    """One matrix, and its values as NumPy float64 or complex128."""
    given = one_matrix(function, a, name=name)
    if _validate.check_finite(check_finite) and not finite_members(given)[0].all():
        msg = f"{function}: {name} holds NaN or infinity; remove them"
        raise NonFiniteError(msg)
    x = np.asarray(_xp.to_numpy(given.flat))[0]
    return given, x.astype(np.result_type(x.dtype, np.float64))


def _leave(rows: Any, given: Given) -> Any:
    xp = _xp.namespace(given.flat)
    return given.face.leave(_xp.from_numpy(rows, xp, like=given.flat), given.original)


def _enough(rank: int, k: int, name: str = "a") -> None:
    if rank < k:
        msg = f"{name}: has rank {rank} to working precision, so that k = {k} rows span no volume"
        if rank:
            msg += f"; draw k <= {rank}"
        raise SingularMatrixError(msg)


def _orthonormal(x: Any, given: Given) -> Any:
    """The columns, made orthonormal to rounding where they are so to a few digits."""
    m, r = x.shape
    if m < r:
        msg = f"v: {r} columns with {m} rows cannot be orthonormal; pass v.T.conj(), or kind="
        raise ValueError(msg + "'factor'")
    defect = np.linalg.norm(x.conj().T @ x - np.eye(r)) if r else 0.0
    if defect > max(100 * m * given.eps, np.sqrt(given.eps)):
        msg = (
            f"v: columns must be orthonormal, got ||V^H V - I|| = {defect:.1e}; pass "
            "numpy.linalg.qr(v)[0], or kind='factor' for L = V V^H"
        )
        raise ValueError(msg)
    return x if defect <= 100 * r * 2.0**-52 else np.linalg.qr(x)[0]


def _factor(x: Any, cut: float) -> tuple[Any, Any]:
    """Eigenvectors of ``X X^H`` and logarithms of its eigenvalues that are not zero."""
    if not x.size:
        return x[:, :0], np.zeros(0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    kept = s > cut * s[0]
    return u[:, kept], 2 * np.log(s[kept])


def _spectrum(x: Any, cut: float) -> tuple[Any, Any]:
    """The same of a positive semidefinite matrix."""
    m, n = x.shape
    if m != n:
        msg = f"v: kind='likelihood' takes L of shape (m, m), got {x.shape}; for L = V V^H give "
        raise ValueError(msg + "kind='factor'")
    size = np.abs(x).max(initial=0.0)
    if np.abs(x - x.conj().T).max(initial=0.0) > np.sqrt(cut / max(m, 1)) * size:
        msg = "v: L must be Hermitian; symmetrise it first, (L + L^H) / 2"
        raise ValueError(msg)
    values, vectors = np.linalg.eigh((x + x.conj().T) / 2)
    top = max(values[-1], 0.0)
    if values[0] < -cut * max(top, size):
        msg = f"v: L must be positive semidefinite, got the eigenvalue {values[0]:.6g}"
        raise ValueError(msg)
    kept = values > cut * top
    return vectors[:, kept], np.log(values[kept])
