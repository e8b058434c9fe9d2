"""The pseudoinverse of a matrix that is given as a product."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, adjoint, enter, finite_members, report
from linalgk.errors import NonFiniteError, SingularMatrixError
from linalgk.randomized import _factor, _pinv_steps
from linalgk.randomized._matrix import Matrix
from linalgk.randomized._pinv_operator import PinvOperator
from linalgk.randomized._pinv_result import PinvInfo, Result, info_of
from linalgk.sketch import Philox, Sketch
from linalgk.typing import Array, OnFail

PinvFormula: TypeAlias = Literal["auto", "reverse", "always", "randomized"]
FORMULAS = get_args(PinvFormula)


def pinv_cr(
    c: Array,
    r: Array,
    /,
    *,
    formula: PinvFormula = "auto",
    rcond: float | None = None,
    oversample: int = 10,
    rng: Any = 0,
    as_operator: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    out: Any = None,
    return_info: bool = False,
) -> Any:
    r"""Pseudoinverse of ``A = C R`` from the factors; A is not formed.

    Parameters
    ----------
    c : array, shape (..., m, k)
    r : array, shape (..., k, n)
        Real or complex, one batch shape.
    formula : {"auto", "reverse", "always", "randomized"}
        See Notes.
    rcond : float, optional
        Singular values of C, R and what lies between up to ``rcond`` times the largest count as
        zero. Default ``max(m, n, k) eps``.
    oversample, rng
        Of ``randomized``, as in `pinv`.
    as_operator : bool
        Return a `PinvOperator` of one matrix.
    check_finite, on_fail, out, return_info
        As in `pinv`.

    Returns
    -------
    x : array, shape (..., n, m), or PinvOperator
    info : PinvInfo
        Only with ``return_info``. ``error_estimate`` is ``eps k(C) k(R)`` with the conditions of
        the factors, of ``randomized`` as in `pinv`; ``method`` is the formula.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    SingularMatrixError
        ``reverse`` where C has not full column rank or R not full row rank, or sketches that have
        lost rank.

    See Also
    --------
    pinv : of a matrix.

    Notes
    -----
    [1]_ has three formulas. ``reverse`` is ``R^+ C^+``, which is ``A^+`` if and only if the ranks
    of C and R are k. ``always`` is ``(C^+ A)^+ (A R^+)^+``, which is ``A^+`` for all C and R.
    ``randomized`` is ``(P^T A)^+ P^T A Q (A Q)^+`` with products by the factors. All go by thin QR
    factors of C and R^H, ``2 (m + n) k^2`` flops, and ``2 m n k`` for the result. ``auto`` is
    ``reverse`` where the ranks are full and ``always`` otherwise.

    References
    ----------
    .. [1] M. P. Karpowicz, G. Strang, "The pseudoinverse of A = CR", arXiv:2305.01716, 2023.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> c, r = rng.standard_normal((30, 4)), rng.standard_normal((4, 20))
    >>> np.allclose(lk.pinv_cr(c, r), np.linalg.pinv(c @ r))
    True
    >>> c[:, 3] = c[:, 0]
    >>> x, info = lk.pinv_cr(c, r, return_info=True)
    >>> info.method, int(info.rank), np.allclose(x, np.linalg.pinv(c @ r, rcond=1e-12))
    ('always', 3, True)
    """
    _validate.choice("formula", formula, FORMULAS)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    oversample = _validate.integer("oversample", oversample, 0)
    with _lag.scope(c), _config.blas_threads(), np.errstate(all="ignore"):
        first, second = _entered(c, r)
        batch = first.batch
        (m, k), n = first.shape, second.shape[1]
        cut = max(m, n, k, 1) * first.eps
        cut = cut if rcond is None else _validate.real_between("rcond", rcond, 0.0, 1.0)
        if as_operator and (batch or out is not None):
            msg = f"as_operator: is for one matrix without out=, got the batch shape {batch}"
            raise ValueError(msg)
        shape = (*batch, n, m)
        target = None if out is None else _validate.out(out, first.original, shape, first.dtype)
        seed = Philox(rng)
        good, flat_c = finite_members(first)
        fine, flat_r = finite_members(second)
        good = good & fine
        parts, used = [], set()
        for i in range(len(good)):
            found, name = _one(
                flat_c[i, :, :], flat_r[i, :, :], formula, cut, oversample, seed, first
            )
            parts.append(found)
            used.add(name)
        method = "+".join(sorted(used)) or formula
        result = _gathered(parts, first, (n, m), method, as_operator)
        lost = result.failed & good
        hidden = ~good | (lost if policy == "nan" or method != "randomized" else False)
        answer: Any
        if as_operator:
            left, right = result.x
            answer = PinvOperator(
                *(first.leave(y) for y in ((left * math.nan) if hidden.any() else left, right))
            )
        else:
            x, xp = result.x, _xp.namespace(result.x)
            if hidden.any():
                mask = _xp.from_numpy(hidden, xp, like=x)[:, None, None]
                x = xp.where(mask, xp.full_like(x, math.nan), x)
            x = xp.reshape(x, shape)
            if target is not None:
                target[...] = x
            answer = first.leave(x) if target is None else out
        if return_info:
            info: PinvInfo = info_of(first, result, good & ~lost, good, seed)
            answer = answer, info
        if check:
            msg = "pinv_cr: c or r holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, batch, policy, answer)
        msg = (
            "pinv_cr: c has not full column rank or r not full row rank{}, or sketches have lost "
            "rank; use formula='always'"
        )
        report(SingularMatrixError, msg, lost, batch, policy, answer)
        return answer


def _entered(c: Any, r: Any) -> tuple[Given, Given]:
    first = enter("pinv_cr", c, host=True, name="c")
    second = enter("pinv_cr", r, host=True, name="r")
    _xp.same_family(c=first.original, r=second.original)
    if first.batch != second.batch or first.shape[1] != second.shape[0]:
        shapes = (*first.batch, *first.shape), (*second.batch, *second.shape)
        msg = f"c and r: need shapes (..., m, k) and (..., k, n), got {shapes[0]} and {shapes[1]}"
        raise ValueError(msg)
    if first.dtype != second.dtype:
        xp = _xp.namespace(first.flat)
        dtype = str(xp.result_type(first.flat.dtype, second.flat.dtype)).rpartition(".")[2]
        eps, kind = float(np.finfo(dtype).eps), _xp.dtype_of(xp, dtype)
        first, second = (
            x._replace(flat=xp.astype(x.flat, kind), dtype=dtype, eps=eps) for x in (first, second)
        )
    return first, second


class _Thin(NamedTuple):
    """``X = Q (U S V^H)`` without what counts as zero: ``X^+ = V S^-1 (Q U)^H``."""

    basis: Any  # Q U
    s: Any
    v: Any
    host: Any
    full: bool


def _thin(x: Any, cut: float) -> _Thin:
    xp = _xp.namespace(x)
    q, t = _factor.qr(x)
    u, s, vh = _factor.svd(t)
    host = np.asarray(_xp.to_numpy(s), np.float64)
    k = int(_pinv_steps.kept(host, cut, None).sum())
    basis, v = q @ u[:, :k], adjoint(xp, vh[:k, :])
    return _Thin(basis, s[:k], v, host[:k], k == x.shape[1])


def _one(
    c: Any, r: Any, formula: str, cut: float, oversample: int, seed: Philox, like: Given
) -> tuple[_pinv_steps.Found, str]:
    xp, (m, k), n, eps = _xp.namespace(c), c.shape, r.shape[1], like.eps
    if not min(m, n, k):
        name = "reverse" if formula == "auto" else formula
        return _pinv_steps.Found(adjoint(xp, r)[:, :0], adjoint(xp, c)[:0, :], 0, 0.0), name
    if formula == "randomized" and _pinv_steps.fits(m, n, k, oversample):
        wide = m < n
        product = _Product(c, r, like.dtype)
        found = _pinv_steps.randomized(
            product.H if wide else product, k, oversample, seed, "stable", cut
        )
        if not isinstance(found, str):
            if wide:
                left, right = adjoint(xp, found.right), adjoint(xp, found.left)
                found = found._replace(left=left, right=right)
            return found, "randomized"
    left, right = _thin(c, cut), _thin(adjoint(xp, r), cut)
    full = left.full and right.full
    if not len(left.host) or not len(right.host):
        found = _pinv_steps.Found(right.basis[:, :0], adjoint(xp, left.basis)[:0, :], 0, 0.0)
        return found._replace(broken=formula == "reverse"), "always"
    error = eps * float(left.host[0] / left.host[-1]) * float(right.host[0] / right.host[-1])
    if formula == "reverse" or (formula == "auto" and full):
        # R^+ C^+ = basis_r S_r^-1 V_r^H V_c S_c^-1 basis_c^H
        inner = (adjoint(xp, right.v) / right.s[:, None]) @ (left.v / left.s[None, :])
        found = _pinv_steps.Found(
            right.basis @ inner, adjoint(xp, left.basis), len(right.host), error, broken=not full
        )
        return found, "reverse"
    # C^+ A = V_c V_c^H R and A R^+ = C V_r V_r^H, in the bases of R^H and C
    meeting = adjoint(xp, left.v) @ right.v
    first = _factor.pseudoinverse(meeting * right.s[None, :], cut)
    second = _factor.pseudoinverse(left.s[:, None] * meeting, cut)
    rank = min(first.rank, second.rank)
    if rank:
        error *= float(first.s[0] / first.s[first.rank - 1])
    inner = first.right @ meeting @ second.left
    found = _pinv_steps.Found(
        right.basis @ (first.left @ inner), second.right @ adjoint(xp, left.basis), rank, error
    )
    return found, "always"


class _Product(Matrix):
    """``C R`` by its factors."""

    def __init__(self, c: Any, r: Any, dtype: str) -> None:
        like = _xp.namespace(c).reshape(c, (-1,))[:0]
        super().__init__(c, "product", dtype, like)
        self.c, self.r = c, r
        self.shape = int(c.shape[0]), int(r.shape[1])

    def matmat(self, x: Any) -> Any:
        self.passes += 1
        return self.c @ (self.r @ x)

    def rmatmat(self, y: Any) -> Any:
        self.passes += 1
        xp = self.xp
        return adjoint(xp, self.r) @ (adjoint(xp, self.c) @ y)

    def sketched(self, s: Sketch) -> Any:
        self.passes += 1
        return (s @ self.c) @ self.r

    def sketched_rows(self, s: Sketch) -> Any:
        self.passes += 1
        return self.c @ (s @ self.r.T).T


def _gathered(
    parts: list[_pinv_steps.Found], like: Given, shape: tuple[int, int], method: str,
    as_operator: bool,
) -> Result:  # fmt: skip
    x: Any
    if as_operator:
        x = parts[0].left, parts[0].right
    elif parts:
        made = [p.left @ p.right for p in parts]
        xp = _xp.namespace(made[0])
        x = made[0][None, :, :] if len(made) == 1 else xp.stack(made)
    else:
        xp = _xp.namespace(like.flat)
        x = _xp.from_numpy(np.zeros((0, *shape), like.dtype), xp, like=like.flat)

    def column(name: str, dtype: Any = float) -> Any:
        return np.array([getattr(p, name) for p in parts], dtype)

    count = np.zeros(len(parts), np.int64)
    reason = "the ranks of c and r are full" if method == "reverse" else "see formula"
    return Result(
        x, column("rank", int), column("error"), column("approximation"), column("bound"), count,
        column("broken", bool), 3 if method == "randomized" else 1, method, reason,
    )  # fmt: skip


def explain_pinv_cr(
    c: Any, r: Any, /, *, formula: PinvFormula = "auto", oversample: int = 10, **_: Any
) -> Explanation:
    """What a call of pinv_cr would run."""
    _validate.choice("formula", formula, FORMULAS)
    first, second = _entered(c, r)
    (m, k), n, count = first.shape, second.shape[1], math.prod(first.batch)
    name, reason = formula, "it was asked for"
    if formula == "auto":
        name, reason = "reverse", "R^+ C^+ where the ranks are full; 'always' otherwise"
    elif formula == "randomized" and not _pinv_steps.fits(m, n, k, oversample):
        name, reason = "always", f"a sketch for rank {k} is not smaller than the matrix"
    flops = count * (6.0 * (m + n) * k * k + 2.0 * m * n * k)
    size = float(count * m * n * np.dtype(first.dtype).itemsize)
    return Explanation("pinv_cr", str(name), reason, {}, flops, size)


def sample_cr(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Two factors: one pair, a batch, a large pair."""
    batch, m, n, k = {
        "small": ((), 6, 5, 2), "medium": ((8,), 60, 40, 10), "large": ((), 1000, 800, 50),
    }[size]  # fmt: skip
    gen = np.random.default_rng(rng)
    c, r = gen.standard_normal((*batch, m, k)), gen.standard_normal((*batch, k, n))
    return (xp.asarray(c), xp.asarray(r)), {}
