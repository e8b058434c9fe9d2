"""The nearest Kronecker product, or sum of them, to a matrix, an operator, or a stream."""

import dataclasses
import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, enter, report
from linalgk._results import Info
from linalgk.errors import AsymmetricError, NonFiniteError, NotConvergedError
from linalgk.kronecker import _nearest_steps
from linalgk.kronecker._factoring import group, middle
from linalgk.kronecker._nearest_steps import Ask, Found, NotFiniteError
from linalgk.kronecker._rearranged import (
    SMALL,
    Dense,
    Gradients,
    Moments,
    Rearranged,
    Sparse,
    is_stream,
    of_operator,
    on_host,
)
from linalgk.sketch import Philox
from linalgk.typing import Array, AssumeA, OnFail

NearestMethod: TypeAlias = Literal["auto", "svd", "lanczos", "power", "moments", "als"]
METHODS = get_args(NearestMethod)
# Smaller side of the rearranged matrix up to which all singular values cost little.
_SHORT = 48
# Entries of two vectors of a stream of which Lanczos' process keeps a few dozen.
_KEPT = 1 << 22
# Order of a tile in comparisons with the transpose.
_TILE = 512
_STEPS = {"lanczos": 300, "power": 300, "als": 200}


@dataclasses.dataclass(frozen=True, eq=False)
class NearestInfo(Info):
    """`Info` of `nearest_kron`.

    Attributes
    ----------
    singular_values : array, shape (..., rank)
        Norms of the terms, the largest first.
    rank : int
        Number of terms.
    passes : int
        Products with the rearranged matrix and other reads of all of A, of one member at most.
    seed : tuple of int
        ``rng=seed`` gives the same result.
    """

    singular_values: Any
    rank: int
    passes: int
    seed: Any


def nearest_kron(
    a: Array,
    /,
    shapes: Any,
    rank: int | None = 1,
    *,
    method: NearestMethod = "auto",
    assume_a: AssumeA | None = None,
    tol: float | None = None,
    max_iter: int | None = None,
    rng: Any = 0,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    r"""Kronecker product, or sum of Kronecker products, nearest to a matrix in Frobenius norm.

    Parameters
    ----------
    a : array, shape (..., M, N)
        Real or complex matrices in any layout and of any batch shape; one sparse matrix of SciPy;
        one linear operator, of which products are taken; or a stream of gradients ``G_t`` (m, n),
        which stands for ``sum_t vec(G_t) vec(G_t)^H``, ``vec`` writing rows after one another: a
        list, a callable that returns an iterator, or an iterator, of arrays (..., m, n).
    shapes : list of (int, int)
        ``(p_i, q_i)`` of the factors, two or more, with ``p_1 p_2 ... = M``, ``q_1 q_2 ... = N``;
        for a stream ``[(m, m), (n, n)]``.
    rank : int, optional
        Number of terms, at most ``min(p_1 q_1, p_2 q_2)``; more than one only of two factors. None
        with ``tol``.
    method : {"auto", "svd", "lanczos", "power", "moments", "als"}
        See Notes. ``auto`` is ``svd`` for small arrays, ``als`` for more than two factors,
        ``moments`` for an iterator, ``power`` for streams of large gradients, else ``lanczos``.
    assume_a : {"gen", "her", "pos"}, optional
        ``her``, Hermitian: the factors are Hermitian to the bit, or, of a real matrix, both skew
        where that is nearer. ``pos``, positive semidefinite: none is skew. Default: arrays and
        sparse matrices are looked at, a stream is ``pos``, an operator ``gen``.
    tol : float, optional
        Bound of the relative error in Frobenius norm: the fewest terms that reach it, as far as is
        found, at most ``rank`` where both are given. At least ``64 eps``.
    max_iter : int, optional
        Most steps: 300 of ``lanczos`` and ``power``, 200 sweeps of ``als``.
    rng : seed, Generator or Philox
        Of the noise in the first vectors. The default 0 gives the same result every time.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that are not finite, not Hermitian as was said, or do not converge do.
    return_info : bool
        Whether to return ``info``, too.

    Returns
    -------
    K : Kron or KronTerms
        `Kron` with ``rank=1``, else `KronTerms`, of factors in the library and dtype of ``a``;
        terms beyond the rank of the rearranged matrix are zero. The factors of a term have equal
        norms.
        Of each but the first ``trace + sum/p`` (not square: the sum) is positive, or, where that
        is zero, its largest entry.
    info : NearestInfo
        Only with ``return_info=True``. ``residual`` is ``||A - K||_F / ||A||_F``, computed from all
        entries; of a sparse matrix with a dense model from norms, accurate to ``eps^(1/2)``; of a
        stream estimated by 16 random vectors, with a relative standard deviation of 18 % at most.
        ``error_estimate`` is ``||R^H u - s v|| / s_1`` of the worst term (of ``als`` and ``power``
        the last change): singular values are accurate to its square over the gap, factors to it
        over the gap; NaN of ``moments``.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError, AsymmetricError, NotConvergedError
        Members that failed, with the others in ``.result``.

    See Also
    --------
    Kron : products, solutions and spectra of the result.
    monarch_project : the same with blocks that share no factor.

    Notes
    -----
    Let ``R(A)`` have the blocks of A, written as rows, for rows: p_1 q_1 x p_2 q_2. Then

    .. math:: \Bigl\lVert A - \sum_t L_t \otimes R_t \Bigr\rVert_F = \Bigl\lVert R(A) - \sum_t
              \mathrm{vec}(L_t) \, \mathrm{vec}(R_t)^T \Bigr\rVert_F ,

    whose minimum is the truncated singular value decomposition [1]_: the square of the error is
    the sum of the squares of the singular values left out.

    ``svd``: of a copy of ``R(A)`` by LAPACK. ``lanczos``: block Golub-Kahan process, as many
    vectors in a block as terms, all kept orthogonal; ``4 M N rank`` flops a step and no copy: ``A``
    is read in place, through strided views, sparse matrices with their entries only. It ends at
    ``error_estimate <= 16 eps``, or after 32 steps when the error falls no more. An operator of
    up to 2^24 entries is multiplied by the identity once, a larger one in each product, q_2
    columns at a time. ``power``: power steps, which keep two vectors only.

    ``als``, of more than two factors: the best two groups of factors, the best two parts of each
    and so on (a hierarchical truncated decomposition), then each factor in turn the best one for
    the others (higher-order power method [2]_). That ends in a local minimum; a second run starts
    from matrices that preserve signs, and the better one is taken.

    Of a stream ``R(A) vec(X) = vec(sum G X G^H)``, so that each product is one pass, and the first
    power step from identities is ``moments``: ``L = sum G G^H``, ``R = sum G^T conj(G)``, divided
    by ``sum ||G||^2``. L and R are what Shampoo collects, exact where the sum is a Kronecker
    product [3]_; ``lanczos`` and ``power`` go on to the nearest one.

    Symmetric, positive semidefinite and nonnegative matrices have nearest products (one term) of
    such factors [1]_, which is what is returned, to rounding (nonnegative: exactly), also where
    the largest singular value is a multiple one.

    References
    ----------
    .. [1] C. F. Van Loan, N. Pitsianis, "Approximation with Kronecker products", in *Linear Algebra
       for Large Scale and Real-Time Applications*, 1993, doi:10.1007/978-94-015-8196-7_17.
    .. [2] L. De Lathauwer, B. De Moor, J. Vandewalle, "On the best rank-1 and rank-(R1,...,RN)
       approximation of higher-order tensors", SIAM J. Matrix Anal. Appl. 21 (2000).
    .. [3] D. Morwani, I. Shapira, N. Vyas, E. Malach, S. Kakade, L. Janson, "A new perspective on
       Shampoo's preconditioner", ICLR 2025, arXiv:2406.17748.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> L, R = rng.standard_normal((3, 4)), rng.standard_normal((5, 2))
    >>> K = lk.nearest_kron(np.kron(L, R), [(3, 4), (5, 2)])
    >>> bool(np.allclose(K.toarray(), np.kron(L, R)))
    True
    >>> a = np.kron(L, R) + 0.1 * rng.standard_normal((15, 8))
    >>> K, info = lk.nearest_kron(a, [(3, 4), (5, 2)], rank=2, return_info=True)
    >>> error = np.linalg.norm(a - K.toarray()) / np.linalg.norm(a)
    >>> bool(abs(info.residual - error) < 1e-14), info.singular_values.shape
    (True, (2,))
    """
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    ask = _options(shapes, rank, tol, method, assume_a, max_iter, Philox(rng))
    if is_stream(a):
        with _config.blas_threads():
            return _of_stream(a, ask, policy, return_info, rank)
    with _lag.scope(a), _config.blas_threads():
        given = enter("nearest_kron", a, sparse=True, operator=True, host=True)
        _fits(ask, given.shape)
        ask, _ = _chosen(ask, given)
        found, wrong = _of_members(given, ask, assume_a)
        return _answer(given, ask, found, wrong, check, policy, return_info, rank)


# --- Choices -------------------------------------------------------------------------------------


def choose_method(
    m: int, n: int, factors: int, *, kind: str = "dense", method: str = "auto"
) -> tuple[str, str]:
    """The method, and the reason, for a rearranged matrix (m, n).

    ``kind`` is "dense", "sparse", "operator", "stream" or "once", a stream that is read once.
    Singular values of (m, n) take about ``22 min(m, n)^3`` flops, a step of Lanczos' process
    ``4 m n`` and 0.1 ms, and there are some twenty of them.
    """
    if method != "auto":
        return method, "it was asked for"
    if factors > 2:
        return "als", f"{factors} factors: one in turn, the others fixed"
    if kind == "once":
        return "moments", "an iterator can be read once"
    if kind == "stream":
        if m + n > _KEPT:
            return "power", f"two vectors of {m} and {n} numbers are as much as should be kept"
        return "lanczos", "the stream can be read again"
    if kind == "dense" and min(m, n) <= _SHORT and m * n <= SMALL:
        return "svd", f"the rearranged matrix ({m}, {n}) is small"
    return "lanczos", f"leading singular vectors of a rearranged matrix ({m}, {n}) are wanted only"


def explain_nearest_kron(
    a: Any,
    /,
    shapes: Any,
    rank: int | None = 1,
    *,
    method: NearestMethod = "auto",
    assume_a: AssumeA | None = None,
    tol: float | None = None,
    max_iter: int | None = None,
    rng: Any = 0,
    **_: Any,
) -> Explanation:
    """What a call of nearest_kron would run."""
    ask = _options(shapes, rank, tol, method, assume_a, max_iter, Philox(rng))
    if is_stream(a):
        once = not callable(a) and iter(a) is a
        m, n = ask.shapes[0][0], ask.shapes[-1][0]
        kind = "once" if once else "stream"
        chosen, reason = choose_method(m * m, n * n, len(ask.shapes), kind=kind, method=method)
        # of one gradient, whose number is not known
        each = 2.0 * m * n * (m + n)
        steps = 1 if chosen == "moments" else 20
        return Explanation("nearest_kron", chosen, reason, {}, steps * each, steps * 8.0 * m * n)
    given = enter("nearest_kron", a, sparse=True, operator=True, host=True)
    _fits(ask, given.shape)
    ask, reason = _chosen(ask, given)
    m, n = _sizes(ask)
    count = math.prod(given.batch)
    stored = given.flat.nnz if given.sparse else math.prod(given.shape)
    terms, size = ask.rank or 1, np.dtype(given.dtype).itemsize
    if ask.method == "svd":
        flops, reads = 4.0 * m * n * min(m, n) + 22.0 * min(m, n) ** 3, 2.0
    else:
        reads = 20.0
        flops = 4.0 * stored * terms * reads / 2
    moved = reads * stored * size * count
    return Explanation("nearest_kron", ask.method, reason, {}, count * flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A matrix near a sum of two Kronecker products, and shapes of two factors."""
    (p1, q1), (p2, q2) = shapes = {
        "small": [(3, 2), (2, 4)], "medium": [(16, 16), (16, 16)], "large": [(64, 64), (64, 64)],
    }[size]  # fmt: skip
    rng = np.random.default_rng(rng)
    a = 0.1 * rng.standard_normal((p1 * p2, q1 * q2))
    for scale in (1.0, 0.3):
        a += scale * np.kron(rng.standard_normal((p1, q1)), rng.standard_normal((p2, q2)))
    return (xp.asarray(a), shapes), {}


# --- The door ------------------------------------------------------------------------------------


def _options(
    shapes: Any, rank: Any, tol: Any, method: Any, assume_a: Any, max_iter: Any, seed: Philox
) -> Ask:
    _validate.choice("method", method, METHODS)
    _validate.choice("assume_a", assume_a, (None, "gen", "her", "pos"))
    shapes = _pairs_of_sizes(shapes)
    if rank is None and tol is None:
        msg = "rank: must be given, or tol="
        raise TypeError(msg)
    if rank is not None:
        rank = _validate.integer("rank", rank, 1)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 0.0, 1.0)
    if len(shapes) > 2:
        if rank != 1 or tol is not None:
            h = middle(shapes)
            merged = [group(shapes[:h]), group(shapes[h:])]
            msg = (
                f"rank: {len(shapes)} factors have one term only (a sum nearest to a matrix need "
                f"not exist); take two groups of them, shapes={merged}, or subtract term by term"
            )
            raise ValueError(msg)
        if method not in ("auto", "als"):
            msg = f"method: {method!r} is for two factors; {len(shapes)} factors take 'als'"
            raise ValueError(msg)
    elif method == "als":
        msg = "method: 'als' is for more than two factors; 'lanczos' finds the best two"
        raise ValueError(msg)
    elif method in ("power", "moments") and (rank != 1 or tol is not None):
        msg = f"method: {method!r} finds one term; use 'lanczos' for rank={rank}, tol={tol}"
        raise ValueError(msg)
    steps = _STEPS.get(method, 200 if len(shapes) > 2 else 300)
    if max_iter is not None:
        steps = _validate.integer("max_iter", max_iter, 1)
    kind = "gen" if assume_a is None else assume_a
    if kind != "gen" and any(p != q for p, q in shapes):
        msg = f"assume_a: {kind!r} needs square factors, got shapes {shapes}"
        raise ValueError(msg)
    return Ask(shapes, rank, tol, method, kind, steps, seed)


def _pairs_of_sizes(shapes: Any) -> list[tuple[int, int]]:
    if not isinstance(shapes, list | tuple):
        msg = f"shapes: must be a list of (p_i, q_i), got {type(shapes).__name__}"
        raise TypeError(msg)
    if len(shapes) < 2:
        msg = f"shapes: needs two or more (p_i, q_i), got {len(shapes)}"
        raise ValueError(msg)
    for i, shape in enumerate(shapes):
        if not isinstance(shape, list | tuple) or len(shape) != 2:
            msg = f"shapes[{i}]: must be (p, q), got {shape!r}"
            raise ValueError(msg)
    return [
        (_validate.integer(f"shapes[{i}][0]", p, 0), _validate.integer(f"shapes[{i}][1]", q, 0))
        for i, (p, q) in enumerate(shapes)
    ]


def _fits(ask: Ask, shape: tuple[int, int]) -> None:
    for name, axis in (("rows", 0), ("columns", 1)):
        sizes = [s[axis] for s in ask.shapes]
        if math.prod(sizes) != shape[axis]:
            product = "*".join(map(str, sizes))
            msg = f"shapes: make {product} = {math.prod(sizes)} {name}, but a has {shape[axis]}"
            raise ValueError(msg)


def _sizes(ask: Ask) -> tuple[int, int]:
    """The shape of the rearranged matrix."""
    sizes, h = [p * q for p, q in ask.shapes], middle(ask.shapes)
    return math.prod(sizes[:h]), math.prod(sizes[h:])


def _chosen(ask: Ask, given: Given) -> tuple[Ask, str]:
    m, n = _sizes(ask)
    kind = "sparse" if given.sparse else "operator" if given.operator else "dense"
    method, reason = choose_method(m, n, len(ask.shapes), kind=kind, method=ask.method)
    if method == "moments":
        msg = "method: 'moments' is for a stream of gradients; use 'lanczos' or 'svd'"
        raise ValueError(msg)
    if method == "svd" and kind != "dense":
        msg = f"method: 'svd' is for arrays; use 'lanczos' for a {kind} a"
        raise ValueError(msg)
    if len(ask.shapes) == 2 and ask.rank is not None and ask.rank > max(1, min(m, n)):
        msg = f"rank: must be at most min(p_1 q_1, p_2 q_2) = {min(m, n)}, got {ask.rank}"
        raise ValueError(msg)
    if ask.tol is not None and ask.tol < 64 * given.eps:
        msg = f"tol: must be at least 64 eps = {64 * given.eps:.2g} for {given.dtype}"
        raise ValueError(msg)
    return ask._replace(method=method), reason


def _of_members(
    given: Given, ask: Ask, assume_a: Any
) -> tuple[list[Found | None], dict[type[Any], list[int]]]:
    h = middle(ask.shapes)
    left, right = group(ask.shapes[:h]), group(ask.shapes[h:])
    found: list[Found | None] = []
    wrong: dict[type[Any], list[int]] = {}
    for i in range(math.prod(given.batch)):
        if 0 in given.shape:
            found.append(Found([], np.zeros(0), 0.0, 0.0, 0, 0, ask.method))
            continue
        a = _rearranged(given, i, left, right)
        kind = ask.kind
        if a.finite and assume_a != "gen" and not given.operator:
            kind, fits = _kind(given, i, a, ask)
            if not fits:
                wrong.setdefault(AsymmetricError, []).append(i)
                found.append(None)
                continue
        one = _solved(a, ask._replace(kind=kind))
        found.append(one)
        if one is None:
            wrong.setdefault(NonFiniteError, []).append(i)
        elif one.residual > math.sqrt(a.eps):
            wrong.setdefault(NotConvergedError, []).append(i)
    return found, wrong


def _rearranged(given: Given, i: int, left: Any, right: Any) -> Rearranged:
    if given.sparse:
        return Sparse(given.flat, left, right)
    if given.operator:
        like = np.empty(0, given.dtype)
        if type(given.flat).__module__.startswith("cupyx"):
            like = _xp.from_numpy(like, _xp.cupy())
        return of_operator(given.flat, left, right, given.dtype, like)
    return Dense(given.flat[i, :, :], left, right)


def _solved(a: Rearranged, ask: Ask) -> Found | None:
    """The terms of one member, or nothing of one that is not finite."""
    if not a.finite:
        return None
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return _nearest_steps.solve(a, ask)
    except NotFiniteError:
        return None


def _kind(given: Given, i: int, a: Rearranged, ask: Ask) -> tuple[str, bool]:
    """What the member is taken for, and whether it is what it was said to be."""
    if any(p != q for p, q in ask.shapes):
        return "gen", True
    told = ask.kind != "gen"
    # rounding where nothing was said, carelessness where it was
    allowed = math.sqrt(given.eps) if told else given.shape[0] * given.eps
    flat = on_host(given.flat) if given.sparse else given.flat[i, :, :]
    near = _is_hermitian(flat, allowed * a.scale)
    return (ask.kind, near) if told else ("her" if near else "gen", True)


def _is_hermitian(x: Any, allowed: float) -> bool:
    """Whether no entry differs from that of the adjoint by more; tiles end the look early."""
    if not hasattr(x, "__array_namespace__") and hasattr(x, "tocsr"):
        rest = abs(x - x.conj().T)
        return rest.nnz == 0 or float(rest.max()) <= allowed
    xp, n = _xp.namespace(x), x.shape[0]
    step = _TILE if xp is np else n
    for i in range(0, n, step):
        for j in range(0, i + 1, step):
            one = x[i : i + step, j : j + step]
            two = xp.matrix_transpose(x[j : j + step, i : i + step])
            two = xp.conj(two) if _xp.dtype_name(x) in _xp.COMPLEX else two
            if not float(xp.max(xp.abs(one - two))) <= allowed:
                return False
    return True


def _of_stream(source: Any, ask: Ask, policy: str, return_info: bool, rank: Any) -> Any:
    shapes = ask.shapes
    if len(shapes) != 2 or any(p != q for p, q in shapes):
        msg = f"shapes: of a stream of gradients (m, n) must be [(m, m), (n, n)], got {shapes}"
        raise ValueError(msg)
    if 0 in (shapes[0][0], shapes[1][0]):
        msg = f"shapes: of a stream must not be empty, got {shapes}"
        raise ValueError(msg)
    gradients = Gradients(source, (shapes[0][0], shapes[1][0]))
    a = Moments(gradients, ask.seed.spawn(2).normal)
    (m, n), kind = a.shape, "once" if gradients.once else "stream"
    method, _ = choose_method(m, n, 2, kind=kind, method=ask.method)
    if method == "svd" or (gradients.once and method != "moments"):
        msg = (
            f"method: {method!r} cannot read a stream; use 'moments'"
            if gradients.once
            else ("method: 'svd' is for arrays; use 'lanczos' for a stream")
        )
        raise ValueError(msg)
    if ask.rank is not None and (ask.rank > min(m, n) or (method == "moments" and ask.rank > 1)):
        most = 1 if method == "moments" else min(m, n)
        msg = f"rank: must be at most {most} for method {method!r}, got {ask.rank}"
        raise ValueError(msg)
    if ask.tol is not None:
        msg = "tol: the error of a stream is known by an estimate only; give rank="
        raise ValueError(msg)
    face = _xp.face(gradients.like)
    assert face is not None
    kind = "her" if ask.kind == "her" else "pos"
    found = _solved(a, ask._replace(method=method, kind=kind))
    wrong: dict[type[Any], list[int]] = {NonFiniteError: [0]} if found is None else {}
    if found is not None and found.residual > math.sqrt(a.eps):
        wrong[NotConvergedError] = [0]
    given = Given(gradients.like, face, a.like[:1, ...], (), (m, n), a.dtype, a.eps, sparse=False)
    return _answer(given, ask, [found], wrong, True, policy, return_info, rank)


# --- What goes back ------------------------------------------------------------------------------

_SENTENCES: dict[type[Any], str] = {
    NonFiniteError: "a holds NaN or infinity{}, or numbers too large to add; remove them, or pass "
    "on_fail='nan'",
    AsymmetricError: "a is not Hermitian{} beyond rounding, which assume_a promised; symmetrise it "
    "with (a + a^H) / 2, or leave assume_a out",
    NotConvergedError: "the factors are not found to eps^(1/2){} in so many steps; allow more by "
    "max_iter, or take the result with on_fail='warn'",
}


def _answer(
    given: Given, ask: Ask, found: list[Found | None], wrong: dict[type[Any], list[int]],
    check: bool, policy: str, return_info: bool, rank: Any,
) -> Any:  # fmt: skip
    if policy == "nan":
        late = wrong.get(NotConvergedError, [])
        found = [None if i in late else f for i, f in enumerate(found)]
    count = (
        ask.rank
        if ask.tol is None and ask.rank is not None
        else max((len(f.terms) for f in found if f is not None), default=0)
    )
    result = _collected(given, ask, found, max(1, count), rank == 1)
    info = _information(given, ask, found, wrong, max(1, count))
    answer = (result, info) if return_info else result
    for error, index in wrong.items():
        if error is NonFiniteError and not check:
            continue
        mask = np.zeros(len(found), bool)
        mask[index] = True
        report(error, f"nearest_kron: {_SENTENCES[error]}", mask, given.batch, policy, answer)
    return answer


def _collected(given: Given, ask: Ask, found: list[Found | None], count: int, single: bool) -> Any:
    """The terms of all members, NaN for bad ones, zeros where there are fewer."""
    from linalgk.kronecker._kron import Kron

    xp, like = _library(given)

    def factor(t: int, i: int) -> Any:
        parts = []
        for f in found:
            if f is None:
                part = np.full(ask.shapes[i], math.nan)
            elif t < len(f.terms):
                part = f.terms[t][i]
            else:
                part = np.zeros(ask.shapes[i])
            parts.append(part.astype(given.dtype))
        host = np.stack(parts) if parts else np.zeros((0, *ask.shapes[i]), given.dtype)
        host = np.ascontiguousarray(host.reshape((*given.batch, *ask.shapes[i])))
        return given.leave(_xp.from_numpy(host, xp, like=like))

    terms = [Kron([factor(t, i) for i in range(len(ask.shapes))]) for t in range(count)]
    if single:
        return terms[0]
    from linalgk.kronecker._terms import KronTerms

    return KronTerms(terms)


def _library(given: Given) -> tuple[Any, Any]:
    like = given.flat.data if given.sparse else given.flat
    if given.operator:
        like = np.empty(0)
        if type(given.flat).__module__.startswith("cupyx"):
            like = _xp.from_numpy(like, _xp.cupy())
    return _xp.namespace(like), like


def _information(
    given: Given, ask: Ask, found: list[Found | None], wrong: dict[type[Any], list[int]], count: int
) -> NearestInfo:
    xp, like = _library(given)
    real = _xp.REAL[given.dtype]
    bad = {i for index in wrong.values() for i in index}

    def column(values: list[Any], dtype: str, tail: tuple[int, ...] = ()) -> Any:
        host = np.asarray(values, dtype).reshape((*given.batch, *tail))
        return given.leave(_xp.from_numpy(host, xp, like=like))

    def sizes(f: Found | None) -> Any:
        if f is None:
            return np.full(count, math.nan)
        return np.concatenate([f.s, np.zeros(count - len(f.s))])

    return NearestInfo(
        method=next((f.method for f in found if f is not None), ask.method),
        iterations=column([0 if f is None else f.steps for f in found], "int64"),
        converged=column([i not in bad for i in range(len(found))], "bool"),
        residual=column([math.nan if f is None else f.error for f in found], real),
        error_estimate=column([math.nan if f is None else f.residual for f in found], real),
        singular_values=column([sizes(f) for f in found], real, (count,)),
        rank=count,
        passes=max([0, *(f.passes for f in found if f is not None)]),
        seed=ask.seed.key,
    )
