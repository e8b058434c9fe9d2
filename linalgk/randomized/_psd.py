"""Leading eigenpairs of Hermitian matrices: Nystrom, Rayleigh-Ritz, block Krylov."""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, adjoint, report
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotPositiveSemidefiniteError,
)
from linalgk.randomized import _factor
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import Matrix, given, members, norm
from linalgk.randomized._parts import fielded, library, stacked
from linalgk.sketch import Philox
from linalgk.typing import Array, OnFail

EighMethod: TypeAlias = Literal["auto", "nystrom", "rsvd", "krylov"]
METHODS = get_args(EighMethod)
# Passes unless told, and the least.
_PASSES = {"nystrom": 1, "rsvd": 2, "krylov": 3}
_LEAST = {"nystrom": 1, "rsvd": 2, "krylov": 2}
# Columns that the error is estimated with where no column of the sketch can be left out.
_CHECKS = 10
# Streams of the user's key.
_TEST, _CHECK = 1, 2
# A rank that is looked for begins here and doubles.
_FIRST = 16


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankEigh:
    """Leading eigenpairs; unpacks as ``eigenvalues, eigenvectors``.

    Attributes
    ----------
    eigenvalues : array, shape (..., rank)
        Real, the largest absolute value first.
    eigenvectors : array, shape (..., n, rank)
        Orthonormal columns. Members of a batch whose rank is less than the largest end with zeros.
    info : RandomInfo
        ``error_estimate`` of ``||A - V diag(w) V^H||_F / ||A||_F``; ``residual`` is how far the
        compressed matrix is from Hermitian, relative to its product.
    """

    eigenvalues: Any
    eigenvectors: Any
    info: RandomInfo

    def __iter__(self) -> Iterator[Any]:
        """``eigenvalues, eigenvectors``."""
        return iter((self.eigenvalues, self.eigenvectors))


def eigh_lowrank(
    a: Array,
    rank: int | None = None,
    /,
    *,
    tol: float | None = None,
    method: EighMethod = "auto",
    oversample: int = 10,
    passes: int | None = None,
    assume_a: Literal["her", "pos"] = "her",
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> LowRankEigh:
    r"""Leading eigenvalues and eigenvectors of a Hermitian matrix, in a few passes.

    ``A ~ V diag(w) V^H`` with the eigenvalues of largest absolute value. With ``assume_a="pos"``
    one pass over A does.

    Parameters
    ----------
    a : array, shape (..., n, n)
        Hermitian, any batch shape; one sparse matrix or linear operator as well.
    rank : int, optional
        Eigenpairs wanted, at most n. May be left out if ``tol`` is given.
    tol : float, optional
        Target of the relative error in the Frobenius norm: the least rank, up to ``rank``, whose
        estimated error is below it. At least ``32 eps``.
    method : {"auto", "nystrom", "rsvd", "krylov"}
        See Notes. ``auto`` is ``nystrom`` for a semidefinite matrix and up to two passes, ``rsvd``
        for two passes otherwise, and ``krylov`` for more.
    oversample : int
        Columns of the sketch beyond ``rank``.
    passes : int, optional
        Products with A. Default 1 for ``nystrom``, 2 for ``rsvd``, 3 for ``krylov``.
    assume_a : {"her", "pos"}
        "pos": no eigenvalue is negative, as ``nystrom`` needs.
    rng : seed, Generator or Philox
        Default None takes fresh entropy; ``info.seed`` replays the result.
    check_adjoint : bool
        Compare ``A x`` and ``A^H y`` of an operator for random x and y first.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN or infinity, are not Hermitian, or not semidefinite.

    Returns
    -------
    LowRankEigh
        ``eigenvalues, eigenvectors`` and `info`, in the library and on the device of ``a``.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    AsymmetricError
        The compressed matrix of a member is not Hermitian to ``sqrt(eps)``.
    NotPositiveSemidefiniteError
        ``nystrom`` met a negative eigenvalue. It is seen where the compressed matrix ``Q^H A Q``
        has one, which proves that A has one no larger; one that is small beside the
        positive part of A may go unseen.

    Warns
    -----
    ConvergenceWarning
        ``tol`` was not reached with ``rank``; ``info.error_estimate`` is what was.

    See Also
    --------
    rpcholesky : from k columns of a semidefinite matrix alone.
    svd_lowrank : for matrices that are not Hermitian.

    Notes
    -----
    Q is an orthonormal basis of l = rank + oversample columns: of a Gaussian matrix Omega for one
    pass, of ``A^(passes-1) Omega`` for ``nystrom`` and ``rsvd`` with more, of all of ``A Omega`` to
    ``A^(passes-1) Omega`` for ``krylov``. One more product gives ``Y = A Q``.

    ``nystrom`` [1]_ [2]_ (and ``krylov`` of a semidefinite matrix): with the shift
    ``nu = eps ||Y||_F``, ``Y_nu = Y + nu Q`` and ``Q^H Y_nu = C^H C``, the singular
    values S and left vectors of ``Y_nu C^-1`` give ``w = max(0, S^2 - nu)``. For one pass and no
    truncation [2]_

    .. math:: E\,\mathrm{tr}(A - \hat A) \le \min_{q < l-1} \left(1 + \frac{q}{l-q-1}\right)
              \sum_{j>q} \lambda_j .

    ``rsvd``, and ``krylov`` otherwise, diagonalize ``Q^H A Q`` (Rayleigh-Ritz), which takes
    indefinite matrices; the error is at most ``2^(1/2)`` times that of the range, ``||A - Q Q^H
    A||_F``.

    The error is estimated without a further pass. For ``nystrom`` with one pass each
    column of Omega is left out in turn [3]_: with ``H = Omega^H A Omega`` the mean of
    ``||Y H^-1 e_j||^2 / (H^-1)_jj^2`` is unbiased for the squared error with l - 1 columns.
    Otherwise 10 more columns Theta go through the first pass, and ``||(A - A_l) Theta||_F^2 / 10``
    is unbiased for the squared error. Truncation from l to ``rank`` is added exactly for
    Rayleigh-Ritz, where both parts are orthogonal; for one pass of ``nystrom`` their squares are
    added, which is low by a factor of at most ``2^(1/2)``.

    About ``2 n^2 l`` flops for each pass (less for sparse matrices), ``8 n l^2`` for the rest.
    Rounding adds some ``eps ||A||_F``.

    References
    ----------
    .. [1] J. A. Tropp, A. Yurtsever, M. Udell, V. Cevher, "Fixed-rank approximation of a
       positive-semidefinite matrix from streaming data", NeurIPS 2017, algorithm 3.
    .. [2] Z. Frangella, J. A. Tropp, M. Udell, "Randomized Nystrom preconditioning", SIAM J. Matrix
       Anal. Appl. 44 (2023), algorithm 2.1 and proposition 2.2.
    .. [3] E. N. Epperly, J. A. Tropp, "Efficient error and variance estimation for randomized
       matrix computations", SIAM J. Sci. Comput. 46 (2024).
    .. [4] J. A. Tropp, R. J. Webber, "Randomized algorithms for low-rank matrix approximation:
       design, analysis, and applications", arXiv:2306.12418 (2023): krylov.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> x = np.linspace(0, 1, 300)
    >>> a = np.exp(-10 * (x[:, None] - x) ** 2)
    >>> w, v = found = lk.eigh_lowrank(a, 8, assume_a="pos", rng=0)
    >>> error = np.linalg.norm(a - (v * w) @ v.T) / np.linalg.norm(a)
    >>> bool(error < 2 * found.info.error_estimate < 1e-4), found.info.passes
    (True, 1)
    >>> lk.eigh_lowrank(a, tol=1e-3, rng=0).info.rank
    array(7)
    """
    _validate.choice("method", method, METHODS)
    _validate.choice("assume_a", assume_a, ("her", "pos"))
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads():
        found = given("eigh_lowrank", a, check_adjoint=check_adjoint)
        plan = _plan(found, rank, tol, oversample, passes, assume_a, method)
        source = Philox(rng)
        parts = [_member(matrix, plan, source) for matrix in members(found)]
        answer = _assembled(found, parts, plan, source)
        if check:
            msg = "eigh_lowrank: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, _which(parts, "finite"), found.batch, policy, answer)
        msg = (
            "a: is not Hermitian{}: Q^H A Q and its adjoint differ by more than sqrt(eps); "
            "symmetrize it, or use svd_lowrank"
        )
        report(AsymmetricError, msg, _which(parts, "hermitian"), found.batch, policy, answer)
        lowest = min((p.lowest for p in parts if p.trouble == "definite"), default=0.0)
        msg = (
            f"a: is not positive semidefinite{{}}: it has an eigenvalue of {lowest:.3g} or less; "
            "use method='rsvd' or 'krylov' with assume_a='her'"
        )
        bad = _which(parts, "definite")
        report(NotPositiveSemidefiniteError, msg, bad, found.batch, policy, answer)
        if tol is not None and not all(p.reached for p in parts):
            worst = max(p.error for p in parts if not p.reached)
            msg = f"tol: {tol:g} was not reached, the error is about {worst:.3g}: raise rank"
            warnings.warn(msg, ConvergenceWarning, stacklevel=2)
        return answer


def choose_method(passes: int | None, assume_a: str, method: str = "auto") -> tuple[str, str]:
    """The method, and the reason."""
    if method != "auto":
        return method, "it was asked for"
    if assume_a == "pos" and passes in (None, 1, 2):
        return "nystrom", "of a semidefinite matrix one pass does, and two do better"
    if passes == 2:
        return "rsvd", "two passes: a range and its compression"
    return "krylov", "three passes or more: every product stays in the basis"


def explain_eigh_lowrank(
    a: Any,
    rank: int | None = None,
    /,
    *,
    tol: float | None = None,
    method: EighMethod = "auto",
    oversample: int = 10,
    passes: int | None = None,
    assume_a: Literal["her", "pos"] = "her",
    **_: Any,
) -> Explanation:
    """What a call of eigh_lowrank would run."""
    _validate.choice("method", method, METHODS)
    found = given("eigh_lowrank", a)
    plan = _plan(found, rank, tol, oversample, passes, assume_a, method)
    n, count = found.shape[0], math.prod(found.batch)
    columns = min(n, (_FIRST if plan.rank is None else plan.rank) + plan.oversample)
    basis = min(n, columns * (plan.passes - 1 if plan.method == "krylov" else 1))
    entries = float(found.flat.nnz if found.sparse else n * n)
    flops = count * (2.0 * entries * columns * plan.passes + 8.0 * n * basis**2)
    size = np.dtype(found.dtype).itemsize
    nbytes = count * entries * size * plan.passes
    return Explanation("eigh_lowrank", plan.method, plan.reason, {}, flops, nbytes)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call: covariances with a spectrum that falls."""
    n, rank = {"small": (20, 3), "medium": (400, 20), "large": (4000, 100)}[size]
    x = np.random.default_rng(rng).standard_normal((n, n)) / (1 + np.arange(n))
    return (xp.asarray(x @ x.T), rank), {"assume_a": "pos", "rng": 0}


# --- The door ------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    rank: int | None
    tol: float | None
    oversample: int
    passes: int
    method: str
    reason: str
    definite: bool


def _plan(
    found: Given, rank: Any, tol: Any, oversample: Any, passes: Any, assume_a: str, method: str
) -> _Plan:
    n, columns = found.shape
    if n != columns:
        msg = f"a: must have shape (..., n, n), got (..., {n}, {columns})"
        raise ValueError(msg)
    rank, tol = target(rank, tol, n, 32 * found.eps)
    oversample = _validate.integer("oversample", oversample, 0)
    if passes is not None:
        passes = _validate.integer("passes", passes, 1)
    chosen, reason = choose_method(passes, assume_a, method)
    passes = _PASSES[chosen] if passes is None else passes
    if passes < _LEAST[chosen]:
        msg = (
            f"passes: {chosen} needs at least {_LEAST[chosen]}, got {passes}; one pass does for "
            "assume_a='pos' with method='nystrom'"
        )
        raise ValueError(msg)
    definite = chosen == "nystrom" or (chosen == "krylov" and assume_a == "pos")
    return _Plan(rank, tol, oversample, passes, chosen, reason, definite)


def target(rank: Any, tol: Any, most: int, least: float) -> tuple[int | None, float | None]:
    """A rank of at most ``most``, or an accuracy of at least ``least``, or both."""
    if rank is None and tol is None:
        msg = "rank: must be given unless tol is"
        raise ValueError(msg)
    if rank is not None:
        rank = _validate.integer("rank", rank, min(most, 1))
        if rank > most:
            msg = f"rank: must be at most {most}, the order of a, got {rank}"
            raise ValueError(msg)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 0.0, 1.0)
        if tol < least:
            msg = f"tol: must be at least {least:.3g} in this precision, got {tol:g}"
            raise ValueError(msg)
    return rank, tol


class _Part(NamedTuple):
    """What one member gives; arrays of its library."""

    values: Any
    vectors: Any
    error: float = 0.0
    asymmetry: float = 0.0
    passes: int = 0
    reached: bool = True
    trouble: str = ""  # "finite", "hermitian" or "definite": what it is not
    lowest: float = 0.0


def _which(parts: list[_Part], trouble: str) -> Any:
    return np.array([p.trouble == trouble for p in parts], bool)


def _assembled(found: Given, parts: list[_Part], plan: _Plan, source: Philox) -> LowRankEigh:
    n, real = found.shape[0], _xp.REAL[found.dtype]
    good = np.array([not p.trouble for p in parts], bool)
    most = max((len(p.values) for p, fine in zip(parts, good, strict=True) if fine), default=0)
    if plan.tol is None or not good.any():
        assert plan.rank is not None or not good.any()
        most = plan.rank or 0
    values = np.zeros((len(parts), most), real)
    vectors = []
    xp, like = library(found)
    for i, part in enumerate(parts):
        if part.trouble:
            values[i] = np.nan
            vectors.append(_xp.from_numpy(np.full((n, most), np.nan, found.dtype), xp, like=like))
            continue
        r = len(part.values)
        values[i, :r] = part.values
        pad = _xp.from_numpy(np.zeros((n, most - r), found.dtype), xp, like=like)
        vectors.append(xp.concat([part.vectors, pad], axis=1) if r < most else part.vectors)
    whole = stacked(found, vectors, [True] * len(vectors), (n, most))
    fields = {
        "iterations": np.zeros(len(parts), np.int64),
        "converged": good,
        "residual": np.array([p.asymmetry for p in parts], real),
        "error_estimate": np.array([p.error if not p.trouble else np.nan for p in parts], real),
        "rank": np.array([len(p.values) if not p.trouble else 0 for p in parts], np.int64),
    }
    info = RandomInfo(
        method=plan.method,
        **{key: fielded(found, value) for key, value in fields.items()},
        passes=max((p.passes for p in parts), default=0),
        seed=source.key,
    )
    return LowRankEigh(fielded(found, values), whole, info)


# --- The algorithms ------------------------------------------------------------------------------


class _Found(NamedTuple):
    """``A ~ basis diag(values) basis^H``, values (host, double) by descending absolute value."""

    basis: Any  # applied to the first columns by `_vectors`
    turn: Any  # (l, l) on the host, or None
    values: Any
    error: float  # of all columns, Frobenius
    cross: Any  # (l,): what an eigenvalue that is left out adds beside its square
    asymmetry: float

    def truncated(self, rank: int) -> float:
        """The error with the leading eigenvalues only."""
        top = max(float(np.abs(self.values[:1]).max(initial=0.0)), self.error)
        if top == 0 or not math.isfinite(top):
            return top
        rest, cross = self.values[rank:] / top, self.cross[rank:] / top
        squares = (self.error / top) ** 2 + float((rest**2).sum() + 2 * (rest * cross).sum())
        return top * math.sqrt(max(squares, 0.0))

    def relative(self, rank: int) -> float:
        error, kept = self.truncated(rank), norm(self.values[:rank])
        size = math.hypot(error, kept)
        return error / size if size > 0 else 0.0


def _member(a: Matrix, plan: _Plan, source: Philox) -> _Part:
    n = a.shape[0]
    before = a.passes
    rank = plan.rank if plan.tol is None else min(n, _FIRST, plan.rank or n)
    assert rank is not None
    cap = n if plan.rank is None else plan.rank
    while True:
        found: Any = _found(a, plan, min(n, rank + plan.oversample), source)
        if isinstance(found, _Part):
            return found
        if plan.tol is None:
            best, reached = rank, True
            break
        best, reached = _least_rank(found, plan.tol, rank)
        if reached or rank == cap:
            break
        rank = min(cap, 2 * rank)
    best = min(best, len(found.values))
    values, vectors = found.values[:best], _vectors(a, found, best)
    return _Part(values, vectors, found.relative(best), found.asymmetry, a.passes - before, reached)


def _least_rank(found: _Found, tol: float, rank: int) -> tuple[int, bool]:
    """The least rank whose error is below ``tol``, and whether there is one up to ``rank``."""
    fits = [r for r in range(rank + 1) if found.relative(r) <= tol]
    return (fits[0], True) if fits else (rank, False)


def _vectors(a: Matrix, found: _Found, rank: int) -> Any:
    if found.turn is None:
        return found.basis[:, :rank]
    return found.basis @ to_device(a, found.turn[:, :rank])


def to_device(a: Matrix, x: Any) -> Any:
    """A host matrix in the library and dtype of the data."""
    return _xp.from_numpy(np.ascontiguousarray(x.astype(a.dtype)), a.xp, like=a.like)


def _wide(x: Any) -> Any:
    """A small matrix on the host in double precision."""
    x = np.asarray(_xp.to_numpy(x))
    return x.astype(np.result_type(x.dtype, np.float64))


def _panel(a: Matrix, source: Philox, columns: int) -> Any:
    """Normal columns, of which more do not change the first ones."""
    normals = a.normals(source, columns, a.shape[0])
    return a.xp.astype(a.xp.matrix_transpose(normals), _xp.dtype_of(a.xp, a.dtype))


def _found(a: Matrix, plan: _Plan, columns: int, source: Philox) -> _Found | _Part:
    xp = a.xp
    if not columns:
        return _Found(_panel(a, source, 0), None, np.zeros(0), 0.0, np.zeros(0), 0.0)
    omega = _panel(a, source.spawn(_TEST), columns)
    if plan.passes == 1:
        q, r = _factor.qr(omega)
        return _nystrom(a, q, a.matmat(q), omitted=r)
    theta = _panel(a, source.spawn(_CHECK), _CHECKS)
    both = a.matmat(xp.concat([omega, theta], axis=1))
    if not math.isfinite(norm(both)):
        return _Part(None, None, trouble="finite")
    y, seen = both[:, :columns], (theta, both[:, columns:])
    if plan.method == "krylov":
        q, y = _krylov(a, y, plan.passes)
    else:
        for _ in range(plan.passes - 2):
            y = a.matmat(_factor.qr(y)[0])
        q = _factor.qr(y)[0]
        y = a.matmat(q)
    if plan.definite:
        return _nystrom(a, q, y, seen=seen)
    return _ritz(a, q, y, seen)


def _krylov(a: Matrix, y: Any, passes: int) -> tuple[Any, Any]:
    """Orthonormal Q of ``y, A y, ..., A^(passes-2) y``, and ``A Q``."""
    n, xp = a.shape[0], a.xp
    block = _factor.qr(y)[0]
    basis, products = block, a.matmat(block)
    last = products
    for _ in range(passes - 2):
        room = n - basis.shape[1]
        if room <= 0:
            break
        block = last[:, : min(room, last.shape[1])]
        # three times: where nothing new is left, QR fills in what need not be orthogonal
        for _again in range(3):
            block = block - basis @ (adjoint(xp, basis) @ block)
            block = _factor.qr(block)[0]
        last = a.matmat(block)
        basis = xp.concat([basis, block], axis=1)
        products = xp.concat([products, last], axis=1)
    return basis, products


def _compressed(a: Matrix, q: Any, y: Any, size: float) -> tuple[Any, float]:
    """``Q^H A Q`` on the host, and how far it is from Hermitian."""
    h = _wide(adjoint(a.xp, q) @ y)
    gap = norm(h - h.conj().T)
    return (h + h.conj().T) / 2, gap / size if size > 0 else 0.0


def _ritz(a: Matrix, q: Any, y: Any, seen: tuple[Any, Any]) -> _Found | _Part:
    size = norm(y)
    if not math.isfinite(size):
        return _Part(None, None, trouble="finite")
    t, gap = _compressed(a, q, y, size)
    if gap > math.sqrt(a.eps):
        return _Part(None, None, trouble="hermitian", asymmetry=gap)
    w, x = _factor.eigh(t)
    order = np.argsort(-np.abs(w), kind="stable")
    theta, image = seen
    inner = adjoint(a.xp, q) @ theta
    defect = image - q @ (to_device(a, t) @ inner)
    error = norm(defect) / math.sqrt(_CHECKS)
    return _Found(q, x[:, order], w[order], error, np.zeros(len(w)), gap)


def _nystrom(a: Matrix, q: Any, y: Any, *, omitted: Any = None, seen: Any = None) -> _Found | _Part:
    """From ``y = A Q``; ``omitted`` is the triangle of ``Omega = Q R``."""
    xp, size = a.xp, norm(y)
    if not math.isfinite(size):
        return _Part(None, None, trouble="finite")
    count = q.shape[1]
    if size == 0:
        return _Found(q, None, np.zeros(count), 0.0, np.zeros(count), 0.0)
    h, gap = _compressed(a, q, y, size)
    if gap > math.sqrt(a.eps):
        return _Part(None, None, trouble="hermitian", asymmetry=gap)
    shift = a.eps * size
    c = _factor.cholesky(h + shift * np.eye(count))
    if c is None:
        # Cauchy: A has an eigenvalue that is not larger than the least of H
        lowest = float(_factor.eigh(h)[0][0])
        if lowest < -a.shape[0] * a.eps * size:
            return _Part(None, None, trouble="definite", asymmetry=gap, lowest=lowest)
        shift = 2 * max(-lowest, shift)
        c = _factor.cholesky(h + shift * np.eye(count))
        assert c is not None
    b = _factor.right_solve(y + shift * q, to_device(a, c))
    u, s, vh = _factor.svd(b)
    s = _wide(s)
    values, cross = np.maximum(s * s - shift, 0.0), np.zeros(count)
    if omitted is not None:
        # a whole basis leaves nothing but the shift
        error = shift if count == a.shape[0] else _left_out(c, s, _wide(vh), _wide(omitted))
    else:
        theta, image = seen
        inner = adjoint(xp, u) @ theta
        defect = image - u @ (to_device(a, values[:, None]) * inner)
        error = norm(defect) / math.sqrt(_CHECKS)
        # what is left out and what was never found need not be orthogonal
        pairs = _wide(inner).conj() * _wide(adjoint(xp, u) @ defect)
        cross = pairs.real.mean(axis=1)
    return _Found(u, None, values, error, cross, gap)


def _left_out(c: Any, s: Any, vh: Any, r: Any) -> float:
    """Root of the mean of ``||Y H^-1 e_j||^2 / (H^-1)_jj^2`` with ``H = Omega^H Y``.

    ``H^-1 = M^H M`` for ``M = C^-H R^-H``, and ``Y H^-1 R^H = U S V^H M`` in these words.
    """
    m = _factor.solve(c, _factor.solve(r, np.eye(len(s)), adjoint=True), adjoint=True)
    # columns that are tiny or huge: no fourth powers
    lengths = np.array([norm(x) for x in m.T])
    units = m / lengths
    return norm(s[:, None] * (vh @ units) / lengths) / math.sqrt(len(s))
