"""Pseudoinverses: exact, by sketches, by products, and of a matrix that is a product."""

import math
import sys
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, adjoint, finite_members, report
from linalgk.errors import MemberError, NonFiniteError, NotConvergedError, SingularMatrixError
from linalgk.randomized import _newton, _pinv_steps
from linalgk.randomized._matrix import Matrix, given, members, norm
from linalgk.randomized._parts import library
from linalgk.randomized._pinv_operator import PinvOperator
from linalgk.randomized._pinv_result import Result, info_of
from linalgk.sketch import Philox
from linalgk.typing import Array, OnFail

PinvMethod: TypeAlias = Literal["auto", "svd", "cod", "hermitian", "randomized", "newton"]
PinvForm: TypeAlias = Literal["stable", "strang"]
METHODS, FORMS = get_args(PinvMethod), get_args(PinvForm)
EXACT = ("svd", "cod", "hermitian")
# Order from which a look for a low rank costs less than a hundredth of the singular values.
_PROBED = 256


def pinv(
    a: Array,
    /,
    *,
    method: PinvMethod = "auto",
    rank: int | None = None,
    rcond: float | None = None,
    rtol: float | None = None,
    hermitian: bool = False,
    form: PinvForm = "stable",
    oversample: int = 10,
    steps: int | None = None,
    tol: float | None = None,
    rng: Any = 0,
    as_operator: bool = False,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
) -> Any:
    r"""Pseudoinverse ``A^+``, or ``A_r^+`` of the nearest matrix of rank r.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape; one sparse matrix or linear operator as well.
    method : {"auto", "svd", "cod", "hermitian", "randomized", "newton"}
        See Notes.
    rank : int, optional
        Singular values after the first ``rank`` are taken as zero. At most ``min(m, n)``.
    rcond, rtol : float, optional
        Two names of one number: singular values up to ``rcond`` times the largest count as zero.
        Default ``max(m, n) eps``; of ``newton`` ``eps^(1/2)``, see there.
    hermitian : bool
        Whether all members are Hermitian; their Hermitian parts are taken.
    form : {"stable", "strang"}
        Of ``randomized``, see Notes.
    oversample : int
        Columns of the sketch beyond ``rank``.
    steps, tol : int, float, optional
        Of ``newton``: exactly so many steps; or the relative error that the iteration leaves.
    rng : seed, Generator or Philox
        Of the sketches. The default 0 gives the same result every time.
    as_operator : bool
        Return a `PinvOperator` of one matrix, two factors, and never form the n x m matrix.
    check_adjoint : bool
        First test that an operator's adjoint fits its product.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN or infinity, whose sketches violate the rank conditions, or
        whose iteration does not converge. With "warn" the last two keep their results, and their
        true errors in the info.
    out : array, shape (..., n, m), optional
        Where to write the result.
    return_info : bool
        Also return a `PinvInfo`.

    Returns
    -------
    x : array, shape (..., n, m), or PinvOperator
        In the library and on the device of ``a``.
    info : PinvInfo
        Only with ``return_info``. ``error_estimate`` is the relative error in the spectral norm:
        ``eps s_1/s_r`` of rounding, and for ``randomized`` the bound of Wedin added, infinite where
        the matrix of rank r is not determined. ``residual`` is ``||A - A_r||_F / ||A_r||_F`` for
        ``randomized``, ``||X A - (X A)^2||_F`` for ``newton``, zero otherwise. ``rank`` is the
        rank of the result.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit; input that requires grad where ``method`` is
        not "newton".
    NonFiniteError
        Members hold NaN or infinity.
    SingularMatrixError
        The sketches have lost rank: ``rank(P^T A) = rank(A Q) = rank(A)`` does not hold.
    NotConvergedError
        ``newton`` did not converge.

    See Also
    --------
    pinv_cr : of a matrix that is a product.
    lstsq : solutions without a pseudoinverse.

    Notes
    -----
    ``svd`` is ``V S^+ U^H``, about ``22 n^3`` flops and more for m > n. ``hermitian`` is
    ``V L^+ V^H`` by eigenvectors, ``9 n^3``. ``cod`` is the complete orthogonal decomposition, QR
    with pivots and QR of the trapezoid, ``4 m n r``; where the library has no pivots it is ``svd``.

    ``randomized`` [1]_ is

    .. math:: A_r^+ = (P^T A)^+\, P^T A Q\, (A Q)^+

    with random sketches Q of ``k = r + oversample`` columns and P of 1.5 k columns. It is
    ``A^+`` if and only if ``rank(P^T A) = rank(A Q) = rank(A)``; the ranks are looked at, and
    an independent sketch of ten rows measures what A has beyond its approximation B. With
    ``form="strang"`` the formula is computed as it stands, by thin QR factors
    ``A Q = Q_1 R_1``, ``(P^T A)^H = Q_2 R_2`` and ``R_2^-H (P^T A Q) R_1^-1``. With
    ``form="stable"`` it is ``V S^+ U^H`` from the singular values of ``Q_1^H A``, which is
    ``(P^T Q_1)^+ (P^T A)`` to rounding where the rank conditions hold, and one more pass over A
    otherwise. Both have errors of ``eps s_1/s_r`` where the rank is r; for a matrix with a tail
    ``stable`` is near ``[A]_r^+``, ``strang`` only within the factors of an oblique projection.
    Three or four passes, ``4 m n k`` flops, half of them the product of the factors. With
    ``e >= ||A - B||``, which holds up to a probability of 2e-4, ``wedin_bound`` is [2]_

    .. math:: \lVert X - [A]_r^+ \rVert_2 \le \tfrac{1 + \sqrt 5}{2}
              \lVert X \rVert_2 \lVert [A]_r^+ \rVert_2 \cdot
              2 e \Bigl(1 + \frac{s_{r+1} + e}{s_r - s_{r+1} - e}\Bigr).

    Without a rank the sketch grows until its numerical rank is less than its size and the check
    finds no more than rounding; otherwise ``svd`` runs, and ``info.reason`` says why.

    ``newton`` uses products alone: a Chebyshev-scaled iteration of degree five with a start for
    each member, :mod:`linalgk.randomized._newton`. Singular values below ``rcond`` count as zero
    or take more steps. 16 steps of four products in double precision, 8 in single precision. The
    inverse of Hermitian members (told, or all equal to their adjoints) is first tried by LU
    factors, and taken where the residual confirms it. Its derivatives (rank constant) need the
    result alone [3]_, in PyTorch and JAX:

    .. math:: dX = -X\,dA\,X + X X^H dA^H (I - A X) + (I - X A)\,dA^H X^H X.

    ``auto`` takes ``hermitian`` if told so; for sparse matrices and operators ``randomized``; for
    others ``randomized`` where it costs less than half of ``svd``, and only if the check finds
    nothing but rounding; ``svd`` otherwise. Without a rank it tries one sketch of
    ``min(m, n)/8`` columns where ``min(m, n) >= 256``.

    References
    ----------
    .. [1] M. P. Karpowicz, G. Strang, "The pseudoinverse of A = CR", arXiv:2305.01716, 2023.
    .. [2] P.-A. Wedin, "Perturbation theory for pseudo-inverses", BIT 13 (1973).
    .. [3] G. H. Golub, V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least
       squares problems whose variables separate", SIAM J. Numer. Anal. 10 (1973).
    .. [4] J. Lu et al., "Softmax-free linear transformers", arXiv:2207.03341: Newton's iteration
       for attention.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.pinv([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]) + 0.0
    array([[1. , 0. , 0. ],
           [0. , 0. , 0.5]])
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((500, 20)) @ rng.standard_normal((20, 400))
    >>> x, info = lk.pinv(a, method="randomized", rank=20, return_info=True)
    >>> int(info.rank), np.allclose(a @ x @ a, a), bool(info.error_estimate < 1e-9)
    (20, True, True)
    """
    words = {
        "method": method, "rank": rank, "rcond": rcond, "rtol": rtol, "hermitian": hermitian,
        "form": form, "oversample": oversample, "steps": steps, "tol": tol, "rng": rng,
        "as_operator": as_operator, "check_finite": check_finite, "on_fail": on_fail, "out": out,
        "return_info": return_info,
    }  # fmt: skip
    face = _face(a)
    if face is not None:
        return face.pinv(a, words)
    options = _checked(words)
    with _lag.scope(a), _config.blas_threads(), np.errstate(all="ignore"):
        return _pinv(given("pinv", a, check_adjoint=check_adjoint), options)


def _face(a: Any) -> Any:
    """The face of PyTorch or JAX, if their arrays are differentiated, batched or compiled."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(a, torch.Tensor):
        from linalgk.interop import _torch_pinv

        return _torch_pinv if _torch_pinv.wants(a) else None
    if _xp.is_traced(a):
        from linalgk.interop import _jax_pinv

        return _jax_pinv
    return None


class Options(NamedTuple):
    """What was asked for, checked as far as it goes without the matrix."""

    method: str
    rank: int | None
    rcond: float | None
    hermitian: bool
    form: str
    oversample: int
    steps: int | None
    tol: float | None
    rng: Any
    as_operator: bool
    check: bool
    policy: OnFail
    out: Any
    return_info: bool


def _checked(words: dict[str, Any]) -> Options:
    method = _validate.choice("method", words["method"], METHODS)
    rcond, rtol = words["rcond"], words["rtol"]
    if rcond is not None and rtol is not None:
        msg = "rcond and rtol: two names of one number, give one of them"
        raise TypeError(msg)
    name, rcond = ("rcond", rcond) if rtol is None else ("rtol", rtol)
    rcond = None if rcond is None else _validate.real_between(name, rcond, 0.0, 1.0)
    rank, steps, tol = words["rank"], words["steps"], words["tol"]
    rank = None if rank is None else _validate.integer("rank", rank, 1)
    for word, value in (("steps", steps), ("tol", tol)):
        if value is not None and method != "newton":
            msg = f"{word}: is for method='newton', got method={method!r}"
            raise ValueError(msg)
    steps = None if steps is None else _validate.integer("steps", steps, 1)
    tol = None if tol is None else _validate.real_between("tol", tol, 0.0, 1.0)
    if steps is not None and tol is not None:
        msg = "steps and tol: give one of them, got both"
        raise ValueError(msg)
    if method == "newton" and (rank is not None or words["as_operator"]):
        which = "rank" if rank is not None else "as_operator"
        msg = f"{which}: is not for method='newton', which has no singular values"
        raise ValueError(msg)
    if words["as_operator"] and words["out"] is not None:
        msg = "out: an operator has no array to write to; leave out= or as_operator="
        raise ValueError(msg)
    return Options(
        method, rank, rcond, bool(words["hermitian"]) or method == "hermitian",
        _validate.choice("form", words["form"], FORMS),
        _validate.integer("oversample", words["oversample"], 0), steps, tol, words["rng"],
        bool(words["as_operator"]), _validate.check_finite(words["check_finite"]),
        _validate.on_fail(words["on_fail"]), words["out"], bool(words["return_info"]),
    )  # fmt: skip


def _fitting(a: Given, o: Options) -> None:
    """The rules that need shape and dtype."""
    m, n = a.shape
    if o.rank is not None and o.rank > min(m, n):
        msg = f"rank: must be at most min(m, n) = {min(m, n)} for shape {(m, n)}, got {o.rank}"
        raise ValueError(msg)
    if o.hermitian and m != n:
        msg = f"hermitian: a must be square, got shape {(*a.batch, m, n)}"
        raise ValueError(msg)
    if o.tol is not None and o.tol < a.eps:
        msg = f"tol: must be at least {a.eps:.3g} for {a.dtype}, got {o.tol:.3g}"
        raise ValueError(msg)
    if o.as_operator and a.batch:
        msg = f"as_operator: is for one matrix, got the batch shape {a.batch}"
        raise ValueError(msg)


# --- Choice --------------------------------------------------------------------------------------


def choose_method(
    m: int, n: int, *, rank: int | None = None, oversample: int = 10, dense: bool = True,
    hermitian: bool = False, pivots: bool = True, method: str = "auto",
) -> tuple[str, str]:  # fmt: skip
    """The method, and the reason; see `pinv` and `cost`."""
    if method == "cod" and not pivots:
        return "svd", "this library has no QR with pivots"
    if method == "randomized" and rank is not None and not _fits(m, n, rank, oversample):
        return "svd", f"a sketch for rank {rank} is not smaller than the matrix"
    if method != "auto":
        return method, "it was asked for"
    if hermitian:
        return "hermitian", "eigenvectors cost less than singular vectors"
    if rank is not None and not _fits(m, n, rank, oversample):
        return "svd", f"a sketch for rank {rank} is not smaller than the matrix"
    if not dense:
        return "randomized", "a is known by its products"
    if rank is None:
        if min(m, n) >= _PROBED:
            return "randomized", f"a sketch of {min(m, n) // 8} columns may show a low rank"
        return "svd", f"min(m, n) < {_PROBED}: a look for a low rank does not pay"
    if 2 * cost(m, n, "randomized", rank + oversample) < cost(m, n, "svd"):
        return "randomized", "sketches cost less than half of the singular values"
    return "svd", "sketches do not cost less than half of the singular values"


def _fits(m: int, n: int, rank: int, oversample: int) -> bool:
    return _pinv_steps.fits(m, n, rank, oversample)


def cost(m: int, n: int, method: str, k: int = 0) -> float:
    """Flops, in units of those of products: QR has two thirds of their speed, values one third."""
    p, q = sorted((m, n))
    if method == "randomized":
        calls = 1e6  # of some thirty routines
        return 4.0 * p * q * k + 36.0 * p * q + 12.0 * (p + q) * k * k + 60.0 * k**3 + calls
    if method == "newton":
        return 15.0 * (4.0 * p * p * q + 4.0 * p**3)
    if method == "hermitian":
        return 3 * 9.0 * p**3 + 2.0 * p**3
    if method == "cod":
        return 3 * 4.0 * p * p * q + 2.0 * p * p * q
    return 3 * 22.0 * p**3 + 1.5 * 4.0 * (q - p) * p * p + 2.0 * p * p * q


def _choice(a: Given, o: Options) -> tuple[str, str]:
    return choose_method(
        *a.shape, rank=o.rank, oversample=o.oversample, dense=not (a.sparse or a.operator),
        hermitian=o.hermitian, pivots=a.sparse or a.operator or isinstance(a.flat, np.ndarray),
        method=o.method,
    )  # fmt: skip


def explain_pinv(a: Any, /, **words: Any) -> Explanation:
    """What a call of pinv would run."""
    o = _checked({**_DEFAULTS, **words})
    found = given("pinv", a)
    _fitting(found, o)
    (m, n), (method, reason) = found.shape, _choice(found, o)
    k = (o.rank or min(m, n) // 8) + o.oversample
    flops = cost(m, n, method, k) * math.prod(found.batch)
    size = math.prod(found.batch) * 2 * m * n * np.dtype(found.dtype).itemsize
    return Explanation("pinv", method, reason, {}, flops, float(size))


_DEFAULTS: dict[str, Any] = {
    "method": "auto", "rank": None, "rcond": None, "rtol": None, "hermitian": False,
    "form": "stable", "oversample": 10, "steps": None, "tol": None, "rng": 0,
    "as_operator": False, "check_finite": None, "on_fail": None, "out": None,
    "return_info": False,
}  # fmt: skip


# --- The work ------------------------------------------------------------------------------------


def _pinv(a: Given, o: Options) -> Any:
    _fitting(a, o)
    (m, n), count = a.shape, math.prod(a.batch)
    target = None
    if o.out is not None:
        like = a.original if not (a.sparse or a.operator) else np.empty(0, a.dtype)
        target = _validate.out(o.out, like, (*a.batch, n, m), a.dtype)
    seed = Philox(o.rng)
    method, reason = _choice(a, o)
    good = np.ones(count, bool)
    if not a.operator:
        good, flat = finite_members(a)
        a = a._replace(flat=flat)
    if 0 in (count, m, n):
        result = _empty(a, method, reason, o.as_operator)
    elif method == "randomized":
        result, fine = _by_sketches(a, o, seed)
        good = good & fine
    else:
        flat = _dense(a)
        if a.operator:
            good = np.array([bool(np.isfinite(_xp.to_numpy(flat)).all())])
            flat = flat if good[0] else np.zeros_like(flat)
        result = _by_products(flat, a, o) if method == "newton" else _exactly(flat, a, o, method)
        result = result._replace(reason=reason, passes=1)
    return _answer(a, o, result, good, target, seed)


def _answer(a: Given, o: Options, r: Result, good: Any, target: Any, seed: Philox) -> Any:
    failed = r.failed & good
    hidden = ~good | (failed if o.policy == "nan" else np.zeros_like(good))
    x: Any
    if o.as_operator:
        left, right = r.x
        if hidden.any():
            left = left * math.nan
        x = PinvOperator(*(a.leave(y) for y in (left, right)))
    else:
        xp, x = _xp.namespace(r.x), r.x
        if hidden.any():
            mask = _xp.from_numpy(hidden, xp, like=x)[:, None, None]
            x = xp.where(mask, xp.full_like(x, math.nan), x)
        x = xp.reshape(x, (*a.batch, *x.shape[1:]))
        if target is not None:
            target[...] = x
            x = o.out
        else:
            x = a.leave(x)
    answer = x
    if o.return_info:
        answer = x, info_of(a, r, good & ~failed, good, seed)
    if o.check:
        msg = "a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
        _say(NonFiniteError, msg, ~good, a, o, answer)
    if r.method == "newton":
        msg = "the iteration did not converge{}; use method='svd'"
        _say(NotConvergedError, msg, failed, a, o, answer)
    else:
        msg = (
            "the sketches have lost rank{}, rank(P^T A) = rank(A Q) = rank(A) does not hold; use "
            "another rng, more oversample, or method='svd'"
        )
        _say(SingularMatrixError, msg, failed, a, o, answer)
    return answer


def _say(kind: type[MemberError], msg: str, bad: Any, a: Given, o: Options, answer: Any) -> None:
    report(kind, f"pinv: {msg}", bad, a.batch, o.policy, answer)


def _empty(a: Given, method: str, reason: str, as_operator: bool) -> Result:
    (m, n), count = a.shape, math.prod(a.batch)
    zero = np.zeros(count)
    xp, like = library(a)

    def zeros(*shape: int) -> Any:
        return _xp.from_numpy(np.zeros(shape, a.dtype), xp, like=like)

    x: Any = (zeros(n, 0), zeros(0, m)) if as_operator else zeros(count, n, m)
    ranks = zero.astype(np.int64)
    return Result(x, ranks, zero, zero, zero, ranks, zero > 0, 0, method, reason)


def _dense(a: Given) -> Any:
    """Members as a dense array (b, m, n)."""
    if a.sparse or a.operator:
        return members(a)[0].toarray()[None, :, :]
    return a.flat


def _exactly(flat: Any, a: Given, o: Options, method: str) -> Result:
    cut = max(*a.shape) * a.eps if o.rcond is None else o.rcond
    left, right, ranks, errors = _pinv_steps.exact(flat, method, cut, o.rank, a.eps)
    zero = np.zeros(len(ranks))
    if o.as_operator:
        xp, left, right = _xp.namespace(left), left[0, :, :], right[0, :, :]
        # eigenvalues of both signs are not in order of size
        inverted = np.asarray(_xp.to_numpy(xp.any(left != 0, axis=0)))
        index = _xp.from_numpy(np.flatnonzero(inverted), xp, like=left)
        x: Any = xp.take(left, index, axis=1), xp.take(right, index, axis=0)
    else:
        x = left @ right
    none = zero.astype(np.int64)
    return Result(x, ranks, errors, zero, zero, none, zero > 0, 1, method, "")


def _by_products(flat: Any, a: Given, o: Options) -> Result:
    hermitian = o.hermitian or _is_hermitian(flat)
    found = _newton.solve(flat, hermitian=hermitian, cut=o.rcond, tol=o.tol, steps=o.steps)
    count = len(found.rank)
    sizes = [norm(flat[i, :, :]) * norm(found.x[i, :, :]) for i in range(count)]
    error = a.eps * np.array(sizes) + np.where(found.steps > 0, found.defect**2, 0)
    zero = np.zeros(count)
    return Result(
        found.x, found.rank, error, found.defect, zero, found.steps, found.failed, 1, "newton", ""
    )


def _is_hermitian(flat: Any) -> bool:
    """Whether all members are, to the last bit, as Gram matrices come."""
    xp = _xp.namespace(flat)
    return flat.shape[-1] == flat.shape[-2] and bool(xp.all(flat == adjoint(xp, flat)))


def _by_sketches(a: Given, o: Options, seed: Philox) -> tuple[Result, Any]:
    """Member by member; exact where no rank is found, or not all of the matrix."""
    cut = max(*a.shape) * a.eps if o.rcond is None else o.rcond
    auto = o.method == "auto" and not (a.sparse or a.operator)
    probe = min(a.shape) // 8 if auto and o.rank is None else None
    parts: list[_pinv_steps.Found] = []
    used, reasons, good, passes = [], [], [], 0
    for matrix in members(a):
        wide = matrix.shape[0] < matrix.shape[1]
        side = matrix.H if wide else matrix
        found = _pinv_steps.randomized(side, o.rank, o.oversample, seed, o.form, cut, probe=probe)
        if auto and isinstance(found, _pinv_steps.Found) and not found.verified:
            found = f"[A]_{o.rank} is not all of A"
        good.append(found != _pinv_steps.NONFINITE)
        if isinstance(found, str):
            used.append("svd")
            reasons.append(found)
            found = _exact_member(matrix, cut, o.rank, a.eps, good[-1])
        else:
            used.append("randomized")
            if wide:
                xp = matrix.xp
                left, right = adjoint(xp, found.right), adjoint(xp, found.left)
                found = found._replace(left=left, right=right)
        passes = max(passes, matrix.passes)
        parts.append(found)
    method = "+".join(sorted(set(used)))
    reason = reasons[0] if reasons else _choice(a, o)[1]
    x: Any
    if o.as_operator:
        x = parts[0].left, parts[0].right
    else:
        xp = _xp.namespace(parts[0].left)
        made = [p.left @ p.right for p in parts]
        x = made[0][None, :, :] if len(made) == 1 else xp.stack(made)

    def column(name: str) -> Any:
        return np.array([getattr(p, name) for p in parts])

    none = np.zeros(len(parts), np.int64)
    result = Result(
        x, column("rank"), column("error"), column("approximation"), column("bound"), none,
        column("broken"), passes, method, reason,
    )  # fmt: skip
    return result, np.array(good)


def _exact_member(matrix: Matrix, cut: float, rank: Any, eps: float, good: bool) -> Any:
    flat = matrix.toarray()[None, :, :]
    xp = _xp.namespace(flat)
    if not good or not bool(xp.all(xp.isfinite(flat))):
        flat = xp.zeros_like(flat)
    left, right, ranks, errors = _pinv_steps.exact(flat, "svd", cut, rank, eps)
    k = int(ranks[0])
    return _pinv_steps.Found(left[0, :, :k], right[0, :k, :], k, float(errors[0]))


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Matrices of low rank: one, a batch, a large one."""
    shape, rank = {
        "small": ((6, 4), 2), "medium": ((8, 60, 40), 10), "large": ((1000, 800), 50),
    }[size]  # fmt: skip
    gen = np.random.default_rng(rng)
    left = gen.standard_normal((*shape[:-1], rank))
    right = gen.standard_normal((*shape[:-2], rank, shape[-1]))
    return (xp.asarray(left @ right),), {"rank": rank}
