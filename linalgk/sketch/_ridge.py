"""Ridge regression for many ridges at once, exactly or by an ensemble of sketches."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, enter, report
from linalgk._results import Info
from linalgk.errors import NonFiniteError, SingularMatrixError
from linalgk.sketch import _inputs, _ridge_path
from linalgk.sketch._ridge_door import Ensemble, ensemble_of, ridges_of, target_of
from linalgk.sketch._ridge_law import FAMILIES, Measured, law_of, root
from linalgk.sketch._ridge_path import Problem, Sums
from linalgk.typing import Array, OnFail

SketchName: TypeAlias = Literal[
    "SparseStack", "CountSketch", "Gaussian", "Rademacher", "SRHT", "SRCT"
]


@dataclasses.dataclass(frozen=True, eq=False)
class RidgeInfo(Info):
    """`Info` with what replays the result.

    Attributes
    ----------
    seed : tuple of int
        ``rng=seed`` gives the same sketches.
    k : int or None
        Rows of each sketch.
    n_sketches : int
        Members of the ensemble, 0 without a sketch.
    """

    seed: Any
    k: int | None
    n_sketches: int


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge:
    """A path of ridge regressions; unpacks as ``x, alpha``.

    Attributes
    ----------
    x : array, shape (..., n) or (..., n, c)
        Coefficients for `alpha`.
    alpha : array, shape (...)
        The ridge with the least sum of `gcv`; without ``gcv`` the first one.
    alphas : array, shape (L,)
        All ridges.
    coef : array, shape (..., L, n) or (..., L, n, c)
        Coefficients for all of them.
    intercept : array, shape (..., L) or (..., L, c)
        Zero unless fitted.
    df : array, shape (..., L)
        Effective degrees of freedom, the trace of the matrix L with ``a x = L b``; of an ensemble
        the mean. An intercept counts as one.
    implicit_ridge : array, shape (..., L)
        The ridge with which the problem without a sketch predicts what infinitely many sketches
        would; NaN for a sketch whose law is not known. Without a sketch alpha itself.
    gcv, loo : array, shape (..., L) or (..., L, c), or None
        Mean squared prediction error by generalized cross-validation, and by leaving one row out.
    ensemble_gcv : array, shape (..., L) or (..., L, c), or None
        `gcv` of infinitely many sketches, hence of the ridge regression without a sketch whose
        ridge is `implicit_ridge`. NaN for an ensemble of one.
    info : RidgeInfo
        ``residual`` is ``||b - a x|| / ||b||`` and ``error_estimate`` the bound of the relative
        rounding error of x; both for `alpha`.
    """

    x: Any
    alpha: Any
    alphas: Any
    coef: Any
    intercept: Any
    df: Any
    implicit_ridge: Any
    gcv: Any
    ensemble_gcv: Any
    loo: Any
    info: RidgeInfo

    def __iter__(self) -> Iterator[Any]:
        """``x, alpha``."""
        return iter((self.x, self.alpha))


def ridge(
    a: Array,
    b: Array,
    alphas: Any,
    /,
    *,
    sketch: SketchName | Callable[..., Any] | None = None,
    k: int | None = None,
    n_sketches: int = 5,
    gcv: bool = True,
    fit_intercept: bool = False,
    rng: Any = 0,
    rcond: float | None = None,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> Ridge:
    r"""Ridge regression for many ridges, exactly or by an ensemble of sketches, with its tuning.

    Minimizes ``||a x - b||^2 + alpha ||x||^2`` for all ``alphas`` from one factorization. With
    ``sketch`` the columns of A are sketched, and the coefficients of several small problems are
    averaged.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex, any batch shape; one ``scipy.sparse`` matrix as well.
    b : array, shape (..., m) or (..., m, c)
        Right-hand sides, with the batch shape of ``a``.
    alphas : float or array, shape (L,)
        Ridges, scikit-learn's ``alpha``: m times the lambda of a mean of squares. Negative ones
        are possible above minus the least eigenvalue of the (sketched) Gram matrix.
    sketch : str, class, callable or None
        Name of a sketch of :mod:`linalgk.sketch`, its class, or ``f(k, n, rng=key)`` that returns
        an operator of shape (k, n). None is exact.
    k : int
        Rows of a sketch, at most n; needed with ``sketch``.
    n_sketches : int
        Members of the ensemble; those of a larger one begin with those of a smaller one.
    gcv : bool
        Estimate the prediction errors and choose by them.
    fit_intercept : bool
        Also fit a constant, which is not penalized.
    rng : seed, Generator or Philox
        Of the sketches. The default 0 gives the same ones every time.
    rcond : float, optional
        Singular values up to ``rcond`` times the largest count as zero. Default
        ``max(m, n) eps``.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN or infinity, or whose negative ridge has no minimum.

    Returns
    -------
    Ridge
        ``x, alpha`` and much more, in the library and on the device of ``a``.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    SingularMatrixError
        A negative ridge is beyond the least eigenvalue, so that there is no minimum.

    See Also
    --------
    implicit_ridge : the ridge that a sketch implies, from singular values.

    Notes
    -----
    With ``A = U S V^H`` the solution is ``V (S / (S^2 + alpha)) U^H b``: about ``6 m n min(m, n)``
    flops for the factorization and ``2 n min(m, n)`` for each ridge. An alpha of zero is the least
    squares solution of least norm. Relative errors are about ``eps ((s_1^2 + alpha) / (s_r^2 +
    alpha))^(1/2)``.

    An ensemble [1]_ of K sketches takes

    .. math:: x = \frac1K \sum_i S_i^T (S_i A^H A S_i^T + \alpha)^{-1} S_i A^H b .

    Its residuals and the mean L of the matrices :math:`L_i` with :math:`A x = L b` give

    .. math:: \mathrm{gcv} = \frac{\lVert b - L b \rVert^2 / m}{(1 - \mathrm{tr}(L) / m)^2},

    a consistent estimate of the risk for free sketches. The risk is affine in 1/K, so that
    :math:`R_\infty = 2 R_2 - R_1`, here the mean over all pairs, is the risk of the unsketched
    regression with the implicit ridge :math:`\mu` (the ensemble trick). It follows from the
    degrees of freedom of the sketched problems alone,

    .. math:: \mu = \alpha \frac{1 - \mathrm{df}/N}{1 - \mathrm{df}/k},

    with :math:`N = \infty` for independent entries (Gaussian, Rademacher, SparseStack), N = n for
    SRCT, and the padded size for SRHT; `implicit_ridge` has the law of stacks with few nonzeros.
    ``loo`` is exact: every member is refitted without the row by the formula
    ``(b - L_i b)_j / (1 - (L_i)_jj)``. Where the problem
    interpolates, all of these have their limits for alpha to zero.

    References
    ----------
    .. [1] P. Patil, D. LeJeune, "Asymptotically free sketched ridge ensembles: risks,
       cross-validation, and tuning", ICLR 2024, arXiv:2310.04357.
    .. [2] D. LeJeune, P. Patil, H. Javadi, R. G. Baraniuk, R. J. Tibshirani, "Asymptotics of the
       sketched pseudoinverse", SIAM J. Math. Data Sci. 6 (2024): the implicit ridge.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((200, 300))
    >>> b = a @ rng.standard_normal(300) + rng.standard_normal(200)
    >>> x, alpha = lk.ridge(a, b, [1.0, 10.0, 100.0])
    >>> bool(np.allclose(a.T @ (a @ x - b) + alpha * x, 0, atol=1e-8))
    True
    >>> found = lk.ridge(a, b, [1.0, 10.0, 100.0], sketch="SRCT", k=150)
    >>> found.coef.shape, found.info.n_sketches
    ((3, 300), 5)
    >>> bool((found.implicit_ridge > found.alphas).all())
    True
    """
    with _lag.scope(a), _config.blas_threads():
        given = enter("ridge", a, sparse=True)
        target, vector = target_of(given, b)
        ridges = ridges_of(alphas)
        gcv, fit_intercept = bool(gcv), bool(fit_intercept)
        ensemble = ensemble_of(sketch, k, n_sketches, given.shape[1], rng)
        policy = _validate.on_fail(on_fail)
        work = _Work(given, target, vector, ridges, ensemble, gcv, fit_intercept, rcond)
        result, good, sound = work.run()
        if _validate.check_finite(check_finite):
            msg = "ridge: a or b holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, given.batch, policy, result)
        msg = (
            f"alphas: {min(ridges):g} has no minimum{{}}: a negative ridge must exceed minus the "
            "least eigenvalue of the Gram matrix, which is 0 without full column rank"
        )
        report(SingularMatrixError, msg, good & ~sound, given.batch, policy, result)
        return result


# --- The computation -----------------------------------------------------------------------------


@dataclasses.dataclass
class _Work:
    given: Given
    target: Any
    vector: bool
    ridges: Any
    ensemble: Ensemble | None
    gcv: bool
    intercept: bool
    rcond: float | None

    def run(self) -> tuple[Ridge, Any, Any]:
        """The result, which members are finite, and which have a minimum for all ridges."""
        self._promote()
        good = self._finite()
        xp, b = _xp.namespace(self.target), self.target
        count, m, c = b.shape
        n, many = self.given.shape[1], len(self.ridges)
        alphas = _xp.from_numpy(self.ridges.astype(_xp.REAL[_xp.dtype_name(b)]), xp, like=b)
        if 0 in (count, m, n, c):
            return self._empty(xp, alphas, good), good, np.ones(count, bool)
        eps = float(np.finfo(_xp.dtype_name(b)).eps)
        cut = max(m, n) * eps
        if self.rcond is not None:
            cut = _validate.real_between("rcond", self.rcond, 0.0, 1.0)
        centre: Any = xp.mean(b, axis=1) if self.intercept else None
        if self.intercept:
            b = b - centre[:, None, :]
        problem = Problem(b, alphas, cut, self.intercept, self.gcv)
        sums, total, law = self._summed(xp, problem)
        coef = total / sums.count
        coef = xp.permute_dims(xp.reshape(coef, (count, n, many, c)), (0, 2, 1, 3))
        implicit = alphas[None, :] + 0 * sums.df
        if self.ensemble is not None:
            implicit = _implied(xp, sums, alphas, law)
        found = _ridge_path.scores(sums, m) if self.gcv else None
        if found is not None and self.ensemble is None:
            found = found._replace(unsketched=found.gcv)
        fields = {
            "coef": coef,
            "intercept": self._constant(xp, centre, coef),
            "df": sums.df / sums.count + (1 if self.intercept else 0),
            "implicit_ridge": implicit,
            "gcv": None if found is None else found.gcv,
            "ensemble_gcv": None if found is None else found.unsketched,
            "loo": None if found is None else found.loo,
        }
        sound = ~np.asarray(_xp.to_numpy(sums.singular))
        valid = _xp.from_numpy(sound & good[:, None], xp, like=b)
        fields = {key: _blank(xp, x, valid) for key, x in fields.items()}
        chosen = self._choose(fields["gcv"], valid, count)
        x = xp.stack([fields["coef"][i, j, :, :] for i, j in enumerate(chosen)])
        constant = xp.stack([fields["intercept"][i, j, :] for i, j in enumerate(chosen)])
        bound = xp.stack([sums.condition[i, j] for i, j in enumerate(chosen)]) * eps
        info = self._info(xp, x, constant, bound, good & sound.all(axis=1))
        alpha = _xp.from_numpy(_xp.to_numpy(alphas)[chosen], xp, like=b)
        return self._result(xp, x, alpha, alphas, fields, info), good, sound.all(axis=1)

    def _promote(self) -> None:
        """One dtype for both."""
        a, b = self.given.flat, self.target
        if not self.given.sparse:
            xp = _xp.namespace(b)
            dtype = xp.result_type(a.dtype, b.dtype)
            a, self.target = xp.astype(a, dtype), xp.astype(b, dtype)
        else:
            b = np.asarray(b)
            dtype = np.result_type(a.dtype, b.dtype)
            a, self.target = a.astype(dtype), b.astype(dtype)
        self.given = self.given._replace(flat=a, dtype=_xp.dtype_name(self.target))

    def _finite(self) -> Any:
        """Which members are finite; the others become zero."""
        a, b = self.given.flat, self.target
        xp = _xp.namespace(b)
        finite = xp.all(xp.isfinite(b), axis=(1, 2))
        if self.given.sparse:
            finite = finite & np.isfinite(a.data).all()
        else:
            finite = finite & xp.all(xp.isfinite(a), axis=(1, 2))
        good = np.asarray(_xp.to_numpy(finite))
        if not good.all():
            self.target = xp.where(finite[:, None, None], b, xp.zeros_like(b))
            a = type(a)(a.shape, dtype=a.dtype) if self.given.sparse else xp.where(
                finite[:, None, None], a, xp.zeros_like(a)
            )  # fmt: skip
            self.given = self.given._replace(flat=a)
        return good

    def _summed(self, xp: Any, problem: Problem) -> tuple[Sums, Any, Any]:
        """Sums over the members, coefficients (B, n, L c) included."""
        sums, total, law = Sums(), 0, None
        if self.ensemble is None:
            flat = self.given.flat
            z = flat.toarray()[None] if self.given.sparse else flat
            return sums, _ridge_path.add_member(self._centred(xp, z), problem, sums), law
        for s in self.ensemble:
            law = law_of(s, self.given.shape[1])
            z = _inputs.transposed(s @ _inputs.transposed(self.given.flat))
            z = np.asarray(z)[None] if self.given.sparse else z
            small = _ridge_path.add_member(self._centred(xp, z), problem, sums)
            total = total + s.T @ small
        return sums, total, law

    def _centred(self, xp: Any, z: Any) -> Any:
        return z - xp.mean(z, axis=1, keepdims=True) if self.intercept else z

    def _constant(self, xp: Any, centre: Any, coef: Any) -> Any:
        if not self.intercept:
            return 0 * coef[:, :, 0, :]
        a = self.given.flat
        if self.given.sparse:
            mean = np.asarray(a.mean(axis=0)).reshape(1, -1).astype(coef.dtype)
        else:
            mean = xp.mean(a, axis=1)
        return centre[:, None, :] - (mean[:, None, None, :] @ coef)[:, :, 0, :]

    def _choose(self, gcv: Any, valid: Any, count: int) -> Any:
        """The place of the best ridge of every member."""
        if gcv is None:
            return np.zeros(count, int)
        total = np.asarray(_xp.to_numpy(gcv), np.float64).sum(axis=-1)
        total = np.where(np.asarray(_xp.to_numpy(valid)) & ~np.isnan(total), total, np.inf)
        return total.argmin(axis=-1)

    def _info(self, xp: Any, x: Any, constant: Any, bound: Any, good: Any) -> RidgeInfo:
        a, b = self.given.flat, self.target
        fitted = (a @ x[0])[None] if self.given.sparse else a @ x
        left = xp.linalg.vector_norm(b - fitted - constant[:, None, :], axis=(1, 2))
        size = xp.linalg.vector_norm(b, axis=(1, 2))
        residual = left / xp.where(size > 0, size, xp.ones_like(size))
        steps = _xp.from_numpy(np.zeros(len(good), np.int64), xp, like=b)
        ok = _xp.from_numpy(good, xp, like=b)
        nothing = xp.full_like(residual, math.nan)
        arrays = (steps, ok, xp.where(ok, residual, nothing), xp.where(ok, bound, nothing))
        return self._described(*(self._shaped(xp, v, ()) for v in arrays))

    def _described(self, steps: Any, ok: Any, residual: Any, bound: Any) -> RidgeInfo:
        if self.ensemble is None:
            return RidgeInfo("svd", steps, ok, residual, bound, None, None, 0)
        e = self.ensemble
        return RidgeInfo("sketched", steps, ok, residual, bound, e.seed, e.k, e.count)

    def _shaped(self, xp: Any, x: Any, tail: tuple[int, ...]) -> Any:
        return self.given.face.leave(xp.reshape(x, (*self.given.batch, *tail)), self.given.original)

    def _result(
        self, xp: Any, x: Any, alpha: Any, alphas: Any, fields: dict[str, Any], info: RidgeInfo
    ) -> Ridge:
        shaped = {"x": x, "alpha": alpha, **fields}
        drop = ("x", "coef", "intercept", "gcv", "ensemble_gcv", "loo") if self.vector else ()
        done = {}
        for key, value in shaped.items():
            tail = () if value is None else tuple(value.shape[1:])
            tail = tail[:-1] if key in drop else tail
            done[key] = None if value is None else self._shaped(xp, value, tail)
        alphas = self.given.face.leave(alphas, self.given.original)
        return Ridge(alphas=alphas, info=info, **done)

    def _empty(self, xp: Any, alphas: Any, good: Any) -> Ridge:
        count, _, c = self.target.shape
        n, many = self.given.shape[1], len(self.ridges)
        dtype, real = self.target.dtype, alphas.dtype
        score = xp.full((count, many, c), math.nan, dtype=real) if self.gcv else None
        fields = {
            "coef": xp.zeros((count, many, n, c), dtype=dtype),
            "intercept": xp.zeros((count, many, c), dtype=dtype),
            "df": xp.zeros((count, many), dtype=real),
            "implicit_ridge": alphas[None, :] + xp.zeros((count, 1), dtype=real),
            "gcv": score, "ensemble_gcv": score, "loo": score,
        }  # fmt: skip
        nothing = xp.zeros(count, dtype=real)
        steps = _xp.from_numpy(np.zeros(count, np.int64), xp, like=alphas)
        ok = _xp.from_numpy(good, xp, like=alphas)
        arrays = (self._shaped(xp, v, ()) for v in (steps, ok, nothing, nothing))
        x = xp.zeros((count, n, c), dtype=dtype)
        first = xp.zeros(count, dtype=real) + alphas[0]
        return self._result(xp, x, first, alphas, fields, self._described(*arrays))


def _implied(xp: Any, sums: Sums, alphas: Any, law: Any) -> Any:
    """The implicit ridge of the mean of the members."""
    if law is None:
        return xp.full_like(sums.df, math.nan)
    means = (sums.df / sums.count, sums.inverse / sums.count, sums.rank / sums.count, sums.unit)
    host = (np.asarray(_xp.to_numpy(x), np.float64) for x in (*means, alphas[None, :]))
    mu = law.implied(Measured(*host))
    return _xp.from_numpy(mu.astype(_xp.dtype_name(sums.df)), xp, like=sums.df)


def _blank(xp: Any, x: Any, valid: Any) -> Any:
    """NaN where a member or a ridge of it has no answer."""
    if x is None or bool(xp.all(valid)):
        return x
    mask = valid
    while mask.ndim < x.ndim:
        mask = mask[..., None]
    return xp.where(mask, x, xp.full_like(x, math.nan))


def implicit_ridge(
    s: Any, alphas: Any, /, k: int, *, n: int, sketch: SketchName = "Gaussian"
) -> Any:
    r"""The ridge that a sketch of the columns implies.

    An ensemble of infinitely many sketches with the ridge :math:`\alpha` predicts what ridge
    regression without a sketch does with the ridge :math:`\mu`, the largest root of [1]_

    .. math:: \mu\, \frac{1 - \mathrm{df}(\mu) / k}{1 - \mathrm{df}(\mu) / N} = \alpha, \qquad
              \mathrm{df}(\mu) = \sum_i \frac{s_i^2}{s_i^2 + \mu} .

    Parameters
    ----------
    s : array, shape (r,)
        Singular values of the matrix.
    alphas : float or array
        Ridges of the sketched problems, not negative.
    k : int
        Rows of the sketch.
    n : int
        Columns of the matrix.
    sketch : str
        Name of the sketch; a SparseStack rounds k up as it does.

    Returns
    -------
    mu : array, shape of ``alphas``
        NumPy, float64.

    Raises
    ------
    ValueError, TypeError
        A number out of its range.

    See Also
    --------
    ridge : measures it.

    Notes
    -----
    :math:`N = \infty` for Gaussian, Rademacher and SparseStack with 8 nonzeros or more; n for SRCT;
    for SRHT n rounded up to whole blocks. With fewer nonzeros, CountSketch above all, the left side
    is :math:`\gamma\, \mathrm{df}(\mu) / (n - \mathrm{df}(\mu) / \zeta)` times mu with
    :math:`k\, E[l / (l + \gamma)] = \mathrm{df}(\mu)`, where :math:`\zeta\, l` is the binomial
    number of columns that share a row. The equation is exact in the limit of large matrices whose
    singular vectors have no structure; with a few hundred columns it holds within two percent. It
    says that the S-transform of :math:`S^T S` at :math:`-\mathrm{df}/n` is mu by alpha.

    References
    ----------
    .. [1] D. LeJeune, P. Patil, H. Javadi, R. G. Baraniuk, R. J. Tibshirani, "Asymptotics of the
       sketched pseudoinverse", SIAM J. Math. Data Sci. 6 (2024).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> s = np.linalg.svd(np.random.default_rng(0).standard_normal((140, 200)))[1]
    >>> (lk.sketch.implicit_ridge(s, 14.0, 156, n=200) / 140).round(3)
    np.float64(0.281)
    >>> (lk.sketch.implicit_ridge(s, 14.0, 156, n=200, sketch="SRCT") / 140).round(3)
    np.float64(0.156)
    """
    _validate.choice("sketch", sketch, FAMILIES)
    values = np.asarray(_xp.to_numpy(_xp.as_array("s", s)), np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any():
        msg = f"s: must be finite singular values, shape (r,), got shape {values.shape}"
        raise ValueError(msg)
    ridges = ridges_of(alphas)
    if (ridges < 0).any():
        msg = f"alphas: must not be negative here, got {ridges.min():g}; ridge measures such ones"
        raise ValueError(msg)
    n = _validate.integer("n", n, max(1, len(values)))
    k = _validate.integer("k", k, 1)
    if k > n:
        msg = f"k: must be at most n = {n}, got {k}"
        raise ValueError(msg)
    law = law_of(FAMILIES[sketch](k, n, rng=0), n)
    assert law is not None
    top = values.max(initial=0.0)
    squares = values[values > n * np.finfo(float).eps * top] ** 2
    found = np.array([root(law, squares, float(x)) for x in ridges])
    return found.reshape(np.shape(alphas))[()]


def explain_ridge(
    a: Any, b: Any, alphas: Any, /, *, sketch: Any = None, k: Any = None, n_sketches: Any = 5,
    rng: Any = 0, **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of ridge would run."""
    given = enter("ridge", a, sparse=True)
    target_of(given, b)
    ensemble = ensemble_of(sketch, k, n_sketches, given.shape[1], rng)
    m, n = given.shape
    many, size = len(ridges_of(alphas)), np.dtype(given.dtype).itemsize
    count = math.prod(given.batch)
    width, members = (n, 1) if ensemble is None else (ensemble.k, ensemble.count)
    flops = count * members * (6.0 * m * width * min(m, width) + 4.0 * many * m * min(m, width))
    method = "svd" if ensemble is None else "sketched"
    reason = "no sketch was asked for" if ensemble is None else "a sketch was asked for"
    return Explanation("ridge", method, reason, {}, flops, float(count * members * m * n * size))


def explain_implicit(s: Any, alphas: Any, /, k: int, **options: Any) -> Explanation:
    """What a call of implicit_ridge would run."""
    count = len(ridges_of(alphas))
    reason = f"one root for each ridge of a sketch of {k} rows of {options.get('n')} columns"
    return Explanation("implicit_ridge", "brentq", reason, {}, 200.0 * count * len(s), 8.0 * len(s))
