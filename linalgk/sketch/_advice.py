"""How much a sketch distorts, and which sketch to take: sizes with the theorems they come from."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _members, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import adjoint, enter, finite_members, rank_cut, report
from linalgk.errors import NonFiniteError
from linalgk.sketch._dense import Gaussian
from linalgk.sketch._leverage import triangle
from linalgk.sketch._operators import Sketch
from linalgk.sketch._stack import CountSketch, SparseStack
from linalgk.sketch._trig import SRHT
from linalgk.typing import Array

Goal: TypeAlias = Literal[
    "embedding", "least_squares", "preconditioner", "low_rank", "linf", "interval"
]
GOALS = get_args(Goal)
_FAMILIES: dict[str, type[Sketch]] = {
    kind.__name__: kind for kind in (Gaussian, SRHT, CountSketch, SparseStack)
}
# Entries of a block of rows of a sparse matrix that is made dense.
_BLOCK = 1 << 20
# Where the number of rows is not known, costs are those of so many.
_MANY = 1 << 20


# --- Measured distortion -------------------------------------------------------------------------


def distortion(S: Any, a: Array, /, *, rcond: float | None = None) -> Any:
    r"""Distortion of the column space of a matrix under a sketch, measured.

    .. math:: \eta = \max(\sigma_{\max}(S Q) - 1,\; 1 - \sigma_{\min}(S Q))

    with an orthonormal basis Q of the column space of A: no vector of that space gets longer or
    shorter by more than the factor :math:`1 \pm \eta`.

    Parameters
    ----------
    S : Sketch or array, shape (k, m)
        What multiplies from the left.
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape; one ``scipy.sparse`` matrix as well.
    rcond : float, optional
        Singular values of A up to ``rcond`` times the largest do not belong to the column space.
        Default ``max(m, n) eps``.

    Returns
    -------
    eta : array, shape (...)
        Real, in the library and on the device of ``a``; 0 for a matrix without columns or of
        zeros, at least 1 where S maps a vector of the space to zero.

    Raises
    ------
    ValueError, TypeError
        A shape or dtype that does not fit.
    NonFiniteError
        Members of ``a`` hold NaN or infinity.

    See Also
    --------
    recommend : how many rows keep the distortion below a bound.

    Notes
    -----
    With eta, and R the triangle of S A: ``kappa(A R^-1) <= (1 + eta) / (1 - eta)``; the residual of
    the sketched least squares problem is at most ``(1 + eta) / (1 - eta)`` times the least one, if
    the right-hand side is a column of ``a``; norms of rows of ``A R^-1`` give leverage scores up to
    ``(1 +- eta)^2``.

    Q comes from ``A = Q_0 R`` and the singular value decomposition of R: about ``4 m n^2`` flops
    and a product with S; the error is a few ``eps``. The rows of a sparse matrix are made dense
    block by block, twice, for R and for ``Q = A V / s``, whose triangle then corrects the loss of
    orthogonality; vectors of its column space are exact to ``eps s_1/s_r``.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = np.random.default_rng(0).standard_normal((5000, 10))
    >>> S = lk.sketch.SparseStack(160, 5000, rng=0)
    >>> float(lk.sketch.distortion(S, a).round(2))
    0.3
    >>> float(lk.sketch.distortion(lk.sketch.SparseStack(640, 5000, rng=0), a).round(2))
    0.12
    """
    if not hasattr(S, "shape") or len(S.shape) != 2:
        msg = f"S: must be a sketch or a matrix of shape (k, m), got {type(S).__name__}"
        raise TypeError(msg)
    with _lag.scope(a), _config.blas_threads():
        given = enter("distortion", a, sparse=True)
        m, n = given.shape
        if S.shape[1] not in (None, m):
            shape = (*given.batch, m, n)
            msg = f"S: has shape {tuple(S.shape)}, which does not meet a of shape {shape}"
            raise ValueError(msg)
        cut = rank_cut(rcond, given)
        good, flat = finite_members(given)
        members = [flat] if given.sparse else [flat[i, :, :] for i in range(len(good))]
        etas = np.array([_eta(S, x, cut) if 0 not in x.shape else 0.0 for x in members])
        etas = np.where(good, etas, np.nan) if len(good) else np.zeros(0)
        xp = np if given.sparse else _xp.namespace(given.flat)
        values = etas.astype(_xp.REAL[given.dtype]).reshape(given.batch)
        answer = given.face.leave(_xp.from_numpy(values, xp, like=given.flat), given.original)
        if _validate.check_finite(None):
            msg = "distortion: a holds NaN or infinity{}; remove them"
            report(NonFiniteError, msg, ~good, given.batch, _validate.on_fail(None), answer)
        return answer


def _eta(s: Any, a: Any, cut: float) -> float:
    """Of one matrix, dense or sparse."""
    mapped = _sparse_basis(s, a, cut) if _members.is_sparse(a) else _basis(s, a, cut)
    if mapped is None:
        return 0.0
    values = _xp.to_numpy(_xp.namespace(mapped).linalg.svdvals(mapped)).astype(np.float64)
    least = values[-1] if mapped.shape[0] >= mapped.shape[1] else 0.0
    return float(max(values[0] - 1, 1 - least))


def _basis(s: Any, a: Any, cut: float) -> Any:
    """S Q, or None if there is no column space."""
    xp = _xp.namespace(a)
    q, r = xp.linalg.qr(a)
    u, values, _ = xp.linalg.svd(r, full_matrices=False)
    rank = _rank(values, cut)
    return s @ (q @ u[:, :rank]) if rank else None


def _sparse_basis(s: Any, a: Any, cut: float) -> Any:
    _, values, vh = np.linalg.svd(triangle(a), full_matrices=False)
    rank = _rank(values, cut)
    if not rank:
        return None
    whiten = adjoint(np, vh)[:, :rank] / values[:rank]
    m, step = a.shape[0], max(256, _BLOCK // a.shape[1])
    r: Any = np.zeros((0, rank), a.dtype)
    total: Any = s.accumulator(rank, dtype=a.dtype) if isinstance(s, Sketch) else 0
    for at in range(0, m, step):
        rows = a[at : at + step] @ whiten
        r = np.linalg.qr(np.concatenate([r, rows]), mode="r")
        if isinstance(s, Sketch):
            total.update(rows, offset=at)
        else:
            total = total + s[:, at : at + step] @ rows
    mapped = total.result() if isinstance(s, Sketch) else total
    # r is the identity but for rounding times the condition of a
    return np.linalg.solve(r.T, mapped.T).T


def _rank(values: Any, cut: float) -> int:
    host = _xp.to_numpy(values)
    return int(np.count_nonzero(host > cut * host[0])) if len(host) else 0


def explain_distortion(s: Any, a: Any, /, **_: Any) -> Explanation:
    """What a call of distortion would run."""
    given = enter("distortion", a, sparse=True)
    m, n = given.shape
    count, size = math.prod(given.batch), np.dtype(given.dtype).itemsize
    flops = count * (4.0 * m * n**2 + 22.0 * n**3 + 2.0 * s.shape[0] * n**2)
    method = "sparse" if given.sparse else "dense"
    return Explanation("distortion", method, "there is one method", {}, flops, count * m * n * size)


# --- Recommended sizes ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A sketch, how many rows it should have, and why.

    Attributes
    ----------
    family : str
        Name of the class in `linalgk.sketch`.
    k : int
        Rows.
    m, n : int
        Data rows (None if not known) and columns, or the rank for ``goal="low_rank"``.
    goal, distortion, fail_prob
        As asked for.
    guaranteed : bool
        Whether `theorem` proves that k rows are enough; otherwise k is a size from measurements.
    theorem : str
        The statement k comes from, with its constants.
    reason : str
        Why this family.
    practical_family, practical_k
        What does the same in practice, by measurements and without a proof.
    options, practical_options : dict
        Keyword arguments of the two classes.
    """

    family: str
    k: int
    m: int | None
    n: int
    goal: str
    distortion: float
    fail_prob: float
    guaranteed: bool
    theorem: str
    reason: str
    practical_family: str
    practical_k: int
    options: dict[str, Any] = dataclasses.field(hash=False, default_factory=dict)
    practical_options: dict[str, Any] = dataclasses.field(hash=False, default_factory=dict)

    def make(self, *, rng: Any = None, practical: bool = False, **options: Any) -> Sketch:
        """The operator, or the one that does in practice; more options go to its class."""
        name = self.practical_family if practical else self.family
        more = self.practical_options if practical else self.options
        k = self.practical_k if practical else self.k
        return _FAMILIES[name](k, self.m, rng=rng, **{**more, **options})

    def to_dict(self) -> dict[str, Any]:
        """Fields by name."""
        return dataclasses.asdict(self)


class _Proof(NamedTuple):
    """Rows that a theorem asks for."""

    family: str
    k: int
    theorem: str
    options: dict[str, Any]


def recommend(
    m: int | None,
    n: int,
    /,
    *,
    distortion: float = 0.5,
    fail_prob: float = 0.01,
    goal: Goal = "embedding",
    family: str | None = None,
) -> Recommendation:
    r"""A sketch with enough rows for a purpose, by a theorem whose constants are known.

    Parameters
    ----------
    m : int or None
        Data rows; None if their number is not known.
    n : int
        Columns of the matrix that will be sketched; for complex data twice as many. For
        ``low_rank`` the rank that is wanted.
    distortion : float
        What may be lost, between 0 and 1; see Notes.
    fail_prob : float
        Probability with which more may be lost, between 0 and 1.
    goal : {"embedding", "least_squares", "preconditioner", "low_rank", "linf", "interval"}
        What the sketch is for.
    family : {"Gaussian", "SRHT", "CountSketch", "SparseStack"}, optional
        Only this one.

    Returns
    -------
    Recommendation
        ``family``, ``k``, ``theorem``, ``guaranteed``, ``practical_k``, …; ``make(rng=0)`` makes
        the operator.

    Raises
    ------
    ValueError
        A number out of its range, or m too small for any reduction.

    See Also
    --------
    distortion : the distortion that a sketch has.

    Notes
    -----
    ``embedding``: the `distortion` of the space of n columns is at most :math:`\epsilon` but for a
    probability :math:`\delta`. Proofs that are used:

    * Gaussian [1]_: the singular values of S Q are within :math:`1 \pm (\sqrt{n/k} + t)` but for
      :math:`2 e^{-k t^2/2}`, so :math:`k = (\sqrt n + \sqrt{2 \ln(2/\delta)})^2 / \epsilon^2`.
    * SRHT with one block [2]_, of :math:`N \geq m` rows. Rows of H D Q have norms of at most
      :math:`\sqrt{M / N},\ M = (\sqrt n + \sqrt{8 \ln(\beta N)})^2`, but for :math:`1/\beta`, and
      k of them sampled without replacement have the distortion but for
      :math:`n (e^{-k h(-d_1)/M} + e^{-k h(d_2)/M})` with :math:`h(t) = (1 + t) \ln(1 + t) - t,\
      d_1 = 2 \epsilon - \epsilon^2,\ d_2 = 2 \epsilon + \epsilon^2`; the best :math:`\beta` is
      taken.
    * CountSketch and SparseStack, any ``nnz``: the second moment :math:`E \lVert Q^T S^T S Q - I
      \rVert_F^2 \leq (n^2 + n - 2 n^2/m) / k` and Markov's inequality give :math:`k = (n^2 + n - 2
      n^2 / m) / (\delta\, \epsilon^2 (2 - \epsilon)^2)`.

    The one with the fewest flops is taken, sketching and a QR of the result together:
    ``2 k m n / 8`` for Gaussian, whose flops are those of BLAS, ``m n log2 m`` for SRHT,
    ``2 nnz m n`` for the others, and ``2 k n^2``.

    ``least_squares``: the same with n + 1 columns, A and b: the residual is then at most
    :math:`(1 + \epsilon) / (1 - \epsilon)` times the least. ``preconditioner``: the condition of
    ``A R^-1`` is to be at most that number; SparseStack with 12 n rows or more, from measurements.
    ``low_rank``: the squared Frobenius error of the range finder is at most :math:`1 + \epsilon`
    times that of the best rank n [3]_. ``linf`` [4]_: no coordinate of the sketched solution is off
    by more than :math:`\epsilon\, n^{-1/2} \lVert r \rVert \lVert A^+ \rVert`. ``interval``: an
    interval of confidence ``1 - fail_prob`` for a coordinate has a half-width of at most
    :math:`\epsilon \lVert r \rVert ((A^T A)^{-1})_{jj}^{1/2}`. The last two use the exact law of
    the Gaussian sketch: :math:`(x' - x)_j = \lVert r \rVert ((A^T A)^{-1})_{jj}^{1/2}\, T /
    \sqrt\nu` with :math:`\nu = k - n + 1` and T of Student's law with that many degrees of freedom.

    ``practical_k`` is what SparseStack needs in practice: of an embedding as many rows as a
    Gaussian sketch.

    References
    ----------
    .. [1] K. R. Davidson, S. J. Szarek, "Local operator theory, random matrices and Banach
       spaces", Handbook of the Geometry of Banach Spaces 1 (2001), theorem II.13.
    .. [2] J. A. Tropp, "Improved analysis of the subsampled randomized Hadamard transform", Adv.
       Adapt. Data Anal. 3 (2011): matrix Chernoff bounds and the lemma on norms of rows.
    .. [3] N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Rev.
       53 (2011), theorem 10.5.
    .. [4] Z. Song, M. Ye, J. Yin, L. Zhang, "A nearly-optimal bound for fast regression with
       l-infinity guarantee", ICML 2023.

    Examples
    --------
    >>> import linalgk as lk
    >>> advice = lk.sketch.recommend(100_000, 20)
    >>> advice.family, advice.k, advice.guaranteed
    ('SRHT', 5282, True)
    >>> lk.sketch.recommend(100_000, 20, family="Gaussian").k
    239
    >>> advice.make(practical=True, rng=0).shape
    (240, 100000)
    """
    m = None if m is None else _validate.integer("m", m, 1)
    n = _validate.integer("n", n, 1)
    eps = _inside("distortion", distortion)
    delta = _inside("fail_prob", fail_prob)
    _validate.choice("goal", goal, GOALS)
    if family is not None:
        _validate.choice("family", family, _FAMILIES)
    if m is not None and n > m:
        msg = f"n: must be at most m = {m}, got {n}; sketch the transpose of a wide matrix"
        raise ValueError(msg)
    practical, practical_k, options = _practical(n, eps, delta, goal)
    proofs = _proofs(m, n, eps, delta, goal, family)
    rows = math.inf if m is None else m
    small = [p for p in proofs if p.k < rows]
    if family is not None and not small:
        needs = f"needs {proofs[0].k} rows" if proofs else "has no theorem here"
        msg = f"family: {family} {needs} for goal {goal!r} and m = {m}; let family be None"
        raise ValueError(msg)
    if small:
        best = min(small, key=lambda p: _cost(p, m, n))
        k, theorem, guaranteed = best.k, best.theorem, True
        reason = "the only theorem with fewer rows than the data" if len(small) == 1 else (
            "fewest flops for the sketch and its QR, of " + ", ".join(
                f"{p.family} with k = {p.k}" for p in small
            )
        )  # fmt: skip
        name, more = best.family, best.options
    elif practical_k < rows:
        name, k, more, guaranteed = practical, practical_k, options, False
        theorem, reason = _MEASURED[goal], "sizes that are proved are not below m, or not known"
    else:
        msg = (
            f"m: {m} rows are too few to sketch {n} columns with distortion {eps:g}: even "
            f"{practical} needs k = {practical_k}; work with the matrix itself, or allow more"
        )
        raise ValueError(msg)
    return Recommendation(
        family=name, k=k, m=m, n=n, goal=goal, distortion=eps, fail_prob=delta,
        guaranteed=guaranteed, theorem=theorem, reason=reason, practical_family=practical,
        practical_k=practical_k, options=more, practical_options=options,
    )  # fmt: skip


_MEASURED = dict.fromkeys(
    GOALS, "none: SparseStack with the rows that a Gaussian sketch needs, from measurements"
) | {
    "preconditioner": (
        "for every S with distortion eta, kappa(A R^-1) <= (1 + eta) / (1 - eta); that SparseStack "
        "with nnz = 8 and k = max(12 n, rows of a Gaussian sketch) has it is measured, not proved"
    ),
    "low_rank": "none: SparseStack with nnz = 4 and twice the rank, from measurements",
}


def _inside(name: str, x: Any) -> float:
    value = _validate.real_between(name, x, 0.0, 1.0, low_open=True)
    if value == 1:
        msg = f"{name}: must be below 1, got 1"
        raise ValueError(msg)
    return value


def _gaussian_rows(n: int, eps: float, delta: float) -> int:
    return math.ceil(((math.sqrt(n) + math.sqrt(2 * math.log(2 / delta))) / eps) ** 2)


def _practical(n: int, eps: float, delta: float, goal: str) -> tuple[str, int, dict[str, Any]]:
    """What does in practice."""
    if goal == "low_rank":
        return "SparseStack", _multiple(n + max(10, n), 4), {"nnz": 4}
    if goal in ("linf", "interval"):
        k = _student_rows(n, eps, delta / n if goal == "linf" else delta, goal == "linf")
        return "SRHT", k, {}
    k = _gaussian_rows(n + (goal == "least_squares"), eps, delta)
    if goal == "preconditioner":
        k = max(k, 12 * n)
    return "SparseStack", _multiple(k, 8), {"nnz": 8}


def _multiple(k: int, of: int) -> int:
    return -(-k // of) * of


def _proofs(
    m: int | None, n: int, eps: float, delta: float, goal: str, family: str | None
) -> list[_Proof]:
    """All theorems that hold here."""
    found = []
    if goal in ("embedding", "least_squares"):
        d = n + (goal == "least_squares")
        found = [_davidson_szarek(d, eps, delta), *_second_moment(m, d, eps, delta)]
        if m is not None:
            found.append(_tropp(m, d, eps, delta))
    elif goal == "low_rank":
        p = max(2, 1 + math.ceil(n / (eps * delta)))
        found = [_Proof("Gaussian", n + p, (
            "Halko, Martinsson, Tropp (2011), theorem 10.5: E ||A - Q Q^H A||_F^2 <= (1 + r / (p - "
            "1)) times the least of rank r for k = r + p; Markov's inequality on the excess: k = r "
            f"+ 1 + r / (distortion fail_prob) = {n + p}"
        ), {})]  # fmt: skip
    elif goal in ("linf", "interval"):
        found = [_student(n, eps, delta, goal)]
    return [p for p in found if family in (None, p.family)]


def _davidson_szarek(d: int, eps: float, delta: float) -> _Proof:
    k = _gaussian_rows(d, eps, delta)
    return _Proof("Gaussian", k, (
        "Davidson, Szarek (2001), theorem II.13: P(a singular value of S Q is outside 1 +- "
        "(sqrt(d/k) + t)) <= 2 exp(-k t^2 / 2); k = ((sqrt(d) + sqrt(2 log(2 / fail_prob))) / "
        f"distortion)^2 = {k} with d = {d}"
    ), {})  # fmt: skip


def _second_moment(m: int | None, d: int, eps: float, delta: float) -> list[_Proof]:
    # distortion eps follows from ||Q'S'SQ - I|| <= eps (2 - eps)
    excess = d * d + d - (0 if m is None else 2 * d * d / m)
    k = max(1, math.ceil(excess / (delta * (eps * (2 - eps)) ** 2)))
    theorem = (
        "second moment: E ||Q'S'SQ - I||_F^2 = (d^2 + d - 2 sum ||q_i||^4) / k, at most (d^2 + d - "
        "2 d^2 / m) / k, and Markov's inequality: k = (d^2 + d - 2 d^2 / m) / (fail_prob "
        f"distortion^2 (2 - distortion)^2) = {k} with d = {d}"
    )
    return [
        _Proof("CountSketch", k, theorem, {}),
        _Proof("SparseStack", max(8, _multiple(k, 8)), theorem, {"nnz": 8}),
    ]


def _tropp(m: int, d: int, eps: float, delta: float) -> _Proof:
    size = 1 << (m - 1).bit_length()
    low, high = 2 * eps - eps**2, 2 * eps + eps**2
    down = (1 - low) * math.log1p(-low) + low
    up = (1 + high) * math.log1p(high) - high
    best = math.inf
    # how much of the probability is spent on the norms of the rows
    for share in np.geomspace(1e-4, 0.9, 40):
        coherence = (math.sqrt(d) + math.sqrt(8 * math.log(size / (share * delta)))) ** 2
        coherence, left = min(coherence, size), (1 - share) * delta
        # up >= down for eps <= 1, so that 2 d exp(-x down) bounds the sum; then shrink
        x = math.log(2 * d / left) / down
        for _ in range(30):
            x = (math.log(d / left) + math.log1p(math.exp(-x * (up - down)))) / down
        best = min(best, coherence * max(x, 0.0))
    k = max(1, math.ceil(best))
    options = {"block": size} if size > 1 << 14 else {}
    return _Proof("SRHT", k, (
        "Tropp (2011): rows of H D Q have norms^2 <= M / N, M = (sqrt(d) + sqrt(8 log(beta N)))^2, "
        "but for 1 / beta; matrix Chernoff bounds for k of them without replacement: P(distortion) "
        "<= d exp(-k h(-d1) / M) + d exp(-k h(d2) / M), h(t) = (1 + t) log(1 + t) - t; solved for "
        f"k = {k} with d = {d}, N = {size}"
    ), options)  # fmt: skip


def _student_rows(n: int, eps: float, delta: float, scaled: bool) -> int:
    """Least k with ``P(|T| / sqrt(nu) > bound) <= delta``, nu = k - n + 1."""
    from scipy.stats import t

    bound = eps / math.sqrt(n) if scaled else eps
    low, high = 0, 1
    while 2 * t.sf(bound * math.sqrt(high), high) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fails = 2 * t.sf(bound * math.sqrt(middle), middle) > delta
        low, high = (middle, high) if fails else (low, middle)
    return n - 1 + high


def _student(n: int, eps: float, delta: float, goal: str) -> _Proof:
    linf = goal == "linf"
    k = _student_rows(n, eps, delta / n if linf else delta, linf)
    law = (
        "exact law of the Gaussian sketch: (x' - x)_j = ||r|| ((A'A)^-1)_jj^(1/2) T / sqrt(nu), nu "
        "= k - n + 1, T of Student's law with nu degrees of freedom; "
    )
    law += (
        "((A'A)^-1)_jj^(1/2) <= ||A^+||, union over n coordinates: least k with n P(|T| > "
        "distortion sqrt(nu / n)) <= fail_prob"
        if linf
        else "least k with P(|T| > distortion sqrt(nu)) <= fail_prob"
    )
    return _Proof("Gaussian", k, f"{law}: {k}", {})


def _cost(proof: _Proof, m: int | None, n: int) -> float:
    rows = _MANY if m is None else m
    per_entry = {
        "Gaussian": 2 * proof.k / 8,
        "SRHT": math.log2(max(2, rows)),
        "CountSketch": 2,
        "SparseStack": 16,
    }[proof.family]
    return float(per_entry * rows * n + 2 * proof.k * n**2)


def explain_recommend(m: Any, n: Any, /, **options: Any) -> Explanation:
    """What a call of recommend would give."""
    advice = recommend(m, n, **options)
    return Explanation("recommend", advice.family, advice.reason, {}, 1e4, 1e3)
