"""Least squares, backward stable at the cost of a few passes over the data."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, report
from linalgk.errors import NonFiniteError, NotConvergedError
from linalgk.randomized import _factor, _lstsq_steps
from linalgk.randomized._lstsq_result import LeastSquares, Options, assembled
from linalgk.randomized._lstsq_steps import Found, Problem
from linalgk.randomized._matrix import Matrix, given, members, norm
from linalgk.randomized._precondition import Sketched
from linalgk.randomized._rows import BlockRows, Rows, scale_of
from linalgk.sketch import Gaussian, Philox, RowBlocks, SparseStack
from linalgk.typing import Array, OnFail

LstsqMethod: TypeAlias = Literal[
    "auto", "direct", "sketch_cholesky", "spir", "fossils", "iterative", "lsqr", "sketch_solve",
    "minimum_norm",
]  # fmt: skip
METHODS = get_args(LstsqMethod)
# Rows of the sketch by column: for whitening, and where an iteration's speed depends on it.
_FEW, _MANY, _SPARSE = 4, 12, 20
# Columns from which two products a step cost less than a Gram matrix.
_GRAM = 1000
# Entries of a sparse matrix that may be made dense, and flops below which nothing is sketched.
_DENSE, _SMALL = 4_000_000, 2e7


def lstsq(
    a: Array,
    b: Array | None = None,
    /,
    *,
    method: LstsqMethod = "auto",
    rcond: float | None = None,
    damp: float = 0.0,
    k: int | None = None,
    sketch: Literal["SparseStack", "Gaussian"] = "SparseStack",
    rng: Any = 0,
    callback: Callable[[Any], bool | None] | None = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> LeastSquares:
    r"""Least squares solution, with its backward error.

    Minimizes ``||a x - b||^2 + damp ||x||^2``; where many x do, the shortest.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex, any batch shape; one sparse matrix or linear operator, a Dask array, or
        `RowBlocks` of pairs ``(A_i, b_i)``.
    b : array, shape (..., m) or (..., m, c)
        Right-hand sides, with the batch shape of ``a``; not with `RowBlocks`.
    method : str
        See Notes.
    rcond : float, optional
        Singular values up to ``rcond`` times the largest count as zero. Default
        ``max(4, n^(1/2)/2) eps``, at which nothing but rounding is cut off; NumPy's is
        ``max(m, n) eps``.
    damp : float
        Not negative.
    k : int, optional
        Rows of the sketch. Default 4 n for ``sketch_cholesky``, else 12 n, 20 n for sparse a.
    sketch : {"SparseStack", "Gaussian"}
        Family; the intervals of ``sketch_solve`` are exact for the second.
    rng : seed, Generator or Philox
        Of the sketch. The default 0 gives the same result every time.
    callback : callable, optional
        Called with a state ``.x`` (n, c), ``.iteration, .backward_error`` in each round; True
        stops.
    check_adjoint : bool
        Test that the adjoint of an operator is that of its product.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN or infinity, or that do not reach rounding: "nan" gives NaN
        for both, "warn" the best x of those that do not.

    Returns
    -------
    LeastSquares
        ``x, residuals, rank, s`` as of `numpy.linalg.lstsq`, and more.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    NotConvergedError
        A method that was asked for by name did not come below a backward error of 100 eps.

    See Also
    --------
    ridge : many ridges, sketches of the columns.
    sketch_project : consistent systems by projections.

    Notes
    -----
    ``sketch_cholesky`` (the default for tall dense problems of up to 1000 columns): the triangle R
    of ``S A`` with 4 n rows makes ``Y = A R^-1`` nearly orthonormal, so that the Gram matrix of Y
    may be formed, and in the lower precision: it only serves to correct x,

    .. math:: x \leftarrow x + R^{-1} (Y^H Y)^{-1} R^{-H} A^H (b - A x),

    until the backward error is that of rounding: ``m n^2 + m n^2 / 2`` flops and about four
    passes. ``spir`` and ``fossils`` [1]_ solve with :math:`Y^H Y` by conjugate gradients or the
    heavy ball (no inner products) in two rounds or three, ``iterative`` [2]_ is iterative
    sketching with momentum (forward stable only), ``lsqr`` [3]_ LSQR preconditioned by R and
    restarted; each step reduces the error by ``(n/k)^(1/2)`` at ``4 m n`` flops, or 4 for each
    stored entry. ``direct`` is QR and the singular values of R. ``minimum_norm`` is the
    counterpart of ``sketch_cholesky`` for ``m < n``, where every other method but ``direct``
    stands for it. ``sketch_solve`` solves the sketched problem alone, in one pass. With a
    Gaussian S, [4]_

    .. math:: \frac{(x - x_*)_j}{\lVert S (b - A x) \rVert \sqrt{[(A^H S^H S A)^{-1}]_{jj} / (k -
              n)}}

    has Student's law with ``k - n`` degrees of freedom: an exact interval from the sketch.

    The backward error of all but ``sketch_solve`` and ``iterative`` is a few eps for condition
    numbers up to the reciprocal of ``rcond`` and residuals of any size; where rounding keeps a
    method chosen by ``auto`` from it, ``direct`` follows and ``info.method`` tells. Only
    ``direct`` can cut off singular values that are more than rounding.

    A Dask array and `RowBlocks` are read ``info.passes`` times by ``sketch_cholesky``; an iterator
    that can be read once needs ``sketch_solve``.

    References
    ----------
    .. [1] E. N. Epperly, M. Meier, Y. Nakatsukasa, "Fast randomized least-squares solvers can be
       just as accurate and stable as classical direct solvers", arXiv:2406.03468.
    .. [2] E. N. Epperly, "Fast and forward stable randomized algorithms for linear least-squares
       problems", SIAM J. Matrix Anal. Appl. 45 (2024).
    .. [3] X. Meng, M. A. Saunders, M. W. Mahoney, "LSRN: a parallel iterative solver for strongly
       over- or underdetermined systems", SIAM J. Sci. Comput. 36 (2014).
    .. [4] The law of regression on normal rows, given the rows; see the guide on sketches.
    .. [5] R. Karlson, B. Walden, "Estimation of optimal backward perturbation bounds for the
       linear least squares problem", BIT 37 (1997).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> t = np.linspace(-1, 1, 20_000)
    >>> a = t[:, None] ** np.arange(20)
    >>> b = np.exp(t)
    >>> fit = lk.lstsq(a, b)
    >>> bool(fit.backward_error < 1e-15)
    True
    >>> bool(np.abs(a @ fit.x - b).max() < 1e-13)
    True
    >>> rough = lk.lstsq(a[:, :4], b, method="sketch_solve")
    >>> low, high = rough.interval(0.999)
    >>> bool(((low < lk.lstsq(a[:, :4], b).x) & (lk.lstsq(a[:, :4], b).x < high)).all())
    True
    """
    _validate.choice("method", method, METHODS)
    options = _options(method, rcond, damp, k, sketch, rng, callback)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    # NaN in a shows in the norm of S a
    quiet = _config.config_context(check_finite=False)
    with _lag.scope(a), _config.blas_threads(), quiet:
        if isinstance(a, RowBlocks) or _is_dask(a):
            result, bad, failed = _of_blocks(a, b, options, policy)
            batch: tuple[int, ...] = ()
        else:
            entered = given("lstsq", a, check_adjoint=check_adjoint)
            result, bad, failed = _of_members(entered, b, options, policy)
            batch = entered.batch
    if check:
        msg = "lstsq: a or b holds NaN or infinity{}; remove them, or pass on_fail='nan'"
        report(NonFiniteError, msg, bad, batch, policy, result)
    other = "'direct'" if method == "auto" else "'auto' or 'direct'"
    msg = (
        f"lstsq: method {method!r} did not reach a backward error of 100 eps{{}}; "
        f"use method={other}, or a larger k"
    )
    report(NotConvergedError, msg, failed & ~bad, batch, policy, result)
    return result


def _options(
    method: str, rcond: Any, damp: Any, k: Any, sketch: str, rng: Any, callback: Any
) -> Options:
    _validate.choice("sketch", sketch, ("SparseStack", "Gaussian"))
    if rcond is not None:
        rcond = _validate.real_between("rcond", rcond, 0.0, 1.0)
    damp = _validate.real_between("damp", damp, 0.0, math.inf)
    k = None if k is None else _validate.integer("k", k, 1)
    return Options(method, rcond, damp, k, sketch, Philox(rng), callback)


@dataclasses.dataclass(frozen=True)
class State:
    """What a callback is told: the solution so far (n, c), its round and backward error."""

    x: Any
    iteration: int
    backward_error: float


def choose_method(
    m: int, n: int, *, kind: str = "dense", k: int | None = None, method: str = "auto"
) -> tuple[str, str]:
    """The method, and the reason."""
    tall, short, reason = max(m, n), min(m, n), "it was asked for"
    if kind == "blocks":
        return ("sketch_cholesky", "two sums for each pass") if method == "auto" else (
            method, reason
        )  # fmt: skip
    if m < n and method not in ("auto", "direct", "minimum_norm"):
        method, reason = "minimum_norm", f"m = {m} is less than n = {n}"
    rows = _rows_of(tall, short, kind, k, "sketch_cholesky" if method == "auto" else method)
    if method not in ("auto", "direct") and rows >= tall:
        return "direct", f"a sketch of {rows} rows is not smaller than {tall}"
    if method == "minimum_norm" and m >= n:
        method = "auto"
    if method != "auto":
        return method, reason
    if kind == "dense":
        if 2.0 * tall * short * short < _SMALL or rows >= tall / 2:
            return "direct", "the problem is small, or not much taller than wide"
    elif rows >= tall / 2 or tall * short < _DENSE:
        return "direct", "a fits into memory as a dense matrix and a sketch would not help"
    if m < n:
        return "minimum_norm", "a sketch conditions the rows"
    if kind == "dense" and n <= _GRAM:
        return "sketch_cholesky", f"1.5 m n^2 flops cost less than 30 steps for n <= {_GRAM}"
    return "spir", "steps cost 4 flops for each entry of a"


def _rows_of(m: int, n: int, kind: str, k: int | None, method: str) -> int:
    """Rows of the sketch, whole blocks of its 8 entries by column."""
    if k is None:
        many = _SPARSE if kind in ("sparse", "operator") else _MANY
        k = n * (_FEW if method in ("sketch_cholesky", "minimum_norm") else many)
        if method == "spir" and k >= m / 2:
            k = _FEW * n
    return max(16, -(-k // 8) * 8)


def _cut(rcond: float | None, n: int, eps: float) -> float:
    return max(4.0, math.sqrt(n) / 2) * eps if rcond is None else rcond


# --- In memory -----------------------------------------------------------------------------------


def _of_members(
    entered: Given, b: Any, options: Options, policy: str
) -> tuple[LeastSquares, Any, Any]:
    matrices = members(entered)
    target, vector = _target(entered, b)
    found: list[Found | None] = []
    passes = 0
    for i, a in enumerate(matrices):
        a, side = _promoted(a, target[i, :, :])
        chosen, _ = choose_method(*a.shape, kind=a.kind, k=options.k, method=options.method)
        # blocks of rows have threads of their own, which those of BLAS would only disturb
        own = _factor.small(target) if chosen == "sketch_cholesky" else contextlib.nullcontext()
        with own if a.shape[1] <= _factor.SERIAL else contextlib.nullcontext():
            result, passes = _solved(a, side, options)
        found.append(result)
    bad = np.array([x is None for x in found], bool)
    failed = np.array([_failed(x) for x in found], bool)
    if policy == "nan":
        found = [None if _failed(x) else x for x in found]
    return assembled(entered, found, target, vector, options, passes), bad, failed


def _failed(found: Found | None) -> bool:
    return found is not None and not (found.converged or found.stopped)


def _target(entered: Given, b: Any) -> tuple[Any, bool]:
    """Right-hand sides (count, m, c) in the library of a, and whether there is one."""
    if b is None:
        msg = "b: is missing; only RowBlocks hold the right-hand sides"
        raise TypeError(msg)
    b = _xp.as_array("b", b)
    if not (entered.sparse or entered.operator):
        _xp.same_family(a=_xp.as_array("a", entered.original), b=b)
    face = _xp.face(b)
    assert face is not None
    flat = np.asarray(b) if face.family == "jax" and isinstance(entered.flat, np.ndarray) else (
        face.enter(b)
    )  # fmt: skip
    flat = _validate.floating("b", flat)
    batch, (m, _) = entered.batch, entered.shape
    vector = flat.ndim == len(batch) + 1
    shape = (*batch, m) if vector else (*batch, m, flat.shape[-1] if flat.ndim else 0)
    if tuple(flat.shape) != shape:
        msg = (
            f"b: must have shape {(*batch, m)} or {(*batch, m, 'c')} to go with a "
            f"{(*batch, *entered.shape)}, got {tuple(flat.shape)}"
        )
        raise ValueError(msg)
    xp = _xp.namespace(flat)
    return xp.reshape(flat, (math.prod(batch), m, 1 if vector else flat.shape[-1])), vector


def _promoted(a: Matrix, b: Any) -> tuple[Matrix, Any]:
    """One dtype for both."""
    xp = _xp.namespace(b)
    dtype = np.result_type(a.dtype, _xp.dtype_name(b)).name
    kind = _xp.dtype_of(xp, dtype)
    b = xp.astype(b, kind)
    if dtype == a.dtype:
        return a, b
    like = a.xp.astype(a.like, _xp.dtype_of(a.xp, dtype))
    data = a.a
    if a.kind == "sparse":
        data = data.astype(dtype)
    elif a.kind == "dense":
        data = xp.astype(data, kind)
    return Matrix(data, a.kind, dtype, like), b


def _solved(a: Matrix, b: Any, options: Options) -> tuple[Found | None, int]:
    """One problem; None where a number is not finite."""
    (m, n), c = a.shape, int(b.shape[1])
    chosen, _ = choose_method(m, n, kind=a.kind, k=options.k, method=options.method)
    size = norm(b)
    if not math.isfinite(size):
        return None, a.passes
    cut = _cut(options.rcond, min(m, n), a.eps)
    if 0 in (m, n, c) or chosen == "direct":
        return _direct(a, b, options.damp, cut)
    wide = chosen == "minimum_norm"
    problem = _problem(Rows(a.H if wide else a, b), options, chosen, cut, wide=wide)
    if problem is None:
        return None, a.passes
    if wide and a.kind == "dense" and problem.sketched.rank < m:
        return _direct(a, b, options.damp, cut)
    found = _run(problem, chosen, options)
    if _failed(found) and options.method == "auto" and a.kind == "dense":
        again, passes = _direct(a, b, options.damp, cut)
        if again is not None and not float(np.max(found.backward)) < float(np.max(again.backward)):
            return again._replace(method=f"{found.method}+direct"), passes
    return found, a.passes


def _direct(a: Matrix, b: Any, damp: float, cut: float) -> tuple[Found | None, int]:
    (m, n), c = a.shape, int(b.shape[1])
    if 0 in (m, n, c):
        x = _zeros(a, b, n)
        none = np.zeros((n, c))
        size = np.zeros(c) if not m or not c else _squared(b)
        found = Found(
            x, size, 0, np.zeros(min(m, n)), np.zeros(c), none, None, 0, True, "direct", 0.0
        )
        return found, a.passes
    if a.kind != "dense" and m * n > 300_000_000:
        msg = (
            f"a: shape {a.shape} has too few rows for a sketch of its {n} columns and is too large "
            "to be made dense; pass k, or solve with scipy.sparse.linalg.lsmr"
        )
        raise ValueError(msg)
    dense = a.toarray()
    xp = _xp.namespace(dense)
    if not bool(xp.isfinite(xp.max(xp.abs(dense)))):
        return None, a.passes
    return _lstsq_steps.direct(dense, b, damp, cut), max(1, a.passes)


def _zeros(a: Matrix, b: Any, n: int) -> Any:
    zero = np.zeros((n, int(b.shape[1])), a.dtype)
    return _xp.from_numpy(zero, _xp.namespace(b), like=b)


def _squared(b: Any) -> Any:
    host = np.asarray(_xp.to_numpy(b))
    return (np.abs(host).astype(np.float64) ** 2).sum(axis=0)


def _problem(
    rows: Any, options: Options, method: str, cut: float, *, wide: bool = False, kind: str = ""
) -> Problem | None:
    """With the sketch of it; None where a number is not finite."""
    m, n = rows.shape
    kind = kind or rows.a.kind
    k = _rows_of(m or 1 << 62, n, kind, options.k, method)
    length = None if kind == "blocks" and not m else m
    family = SparseStack if options.sketch == "SparseStack" else Gaussian
    with warnings.catch_warnings():
        # k >= m is possible for blocks whose number is not known ahead
        warnings.simplefilter("ignore")
        s = family(k, length, rng=options.source)
    if wide:
        sa = rows.a.sketched(s)
        sb = rows.xp.zeros_like(sa[:, :1])
        host = np.asarray(_xp.to_numpy(rows.b))
    else:
        sa, sb = rows.sketch(s)
        host = np.asarray(_xp.to_numpy(sb))
    size = norm(sa)
    sizes = np.array([norm(host[:, j]) for j in range(host.shape[1])])
    if not (math.isfinite(size) and np.isfinite(sizes).all()):
        return None
    sketched = Sketched(sa, sb, options.damp, cut)
    return Problem(
        rows, sketched, sizes, options.damp, k, (scale_of(size), scale_of(sizes.max(initial=0.0)))
    )


def _run(problem: Problem, chosen: str, options: Options) -> Found:
    stopped = False

    def told(x: Any, backward: float, number: int) -> bool:
        nonlocal stopped
        if options.callback is not None:
            try:
                stopped = bool(options.callback(State(x, number, backward)))
            except StopIteration:
                stopped = True
        return stopped

    if chosen == "sketch_solve":
        return _lstsq_steps.sketch_solve(problem)
    if chosen == "minimum_norm":
        found = _lstsq_steps.minimum_norm(problem, told)
    elif chosen == "iterative":
        found = _lstsq_steps.iterative(problem, told)
    elif chosen == "lsqr":
        found = _lstsq_steps.lsqr(problem, told)
    else:
        found = _lstsq_steps.refined(problem, chosen, told)
    return found._replace(stopped=stopped)


# --- Blocks of rows ------------------------------------------------------------------------------


def _is_dask(a: Any) -> bool:
    return type(a).__module__.startswith("dask.")


def _of_blocks(a: Any, b: Any, options: Options, policy: str) -> tuple[LeastSquares, Any, Any]:
    rows: Any
    if isinstance(a, RowBlocks):
        if b is not None:
            msg = "b: RowBlocks hold pairs (A_i, b_i); leave b out"
            raise TypeError(msg)
        rows = BlockRows(a)
        if a.once and options.method != "sketch_solve":
            msg = (
                "a: an iterator is read once and only method='sketch_solve' reads once; pass a "
                "sequence or a callable that returns an iterator"
            )
            raise ValueError(msg)
    else:
        from linalgk.interop import _dask_lstsq

        rows = _dask_lstsq.DaskRows(a, b)
    chosen, _ = choose_method(1 << 62, rows.shape[1], kind="blocks", method=options.method)
    if chosen not in ("sketch_cholesky", "sketch_solve"):
        msg = (
            f"method: {chosen!r} reads blocks of rows too often; "
            "use 'sketch_cholesky' or 'sketch_solve'"
        )
        raise ValueError(msg)
    cut = _cut(options.rcond, rows.shape[1], rows.eps)
    problem = _problem(rows, options, chosen, cut, kind="blocks")
    found = None if problem is None else _run(problem, chosen, options)
    bad, failed = np.array([found is None]), np.array([_failed(found)])
    if policy == "nan" and failed[0]:
        found = None
    like = np.empty((1, 0, rows.columns), rows.dtype)
    if found is not None:
        found = found._replace(s=found.s[: min(rows.shape)])
    entered = given("lstsq", np.empty((0, rows.shape[1]), rows.dtype))._replace(shape=rows.shape)
    result = assembled(
        entered, [found], like, rows.vector, options, rows.passes,
        None if problem is None else problem.sizes,
    )  # fmt: skip
    return result, bad, failed


# --- What a call would do ------------------------------------------------------------------------


def explain_lstsq(
    a: Any, b: Any = None, /, *, method: LstsqMethod = "auto", k: int | None = None, **_: Any
) -> Explanation:
    """What a call of lstsq would run."""
    del b
    _validate.choice("method", method, METHODS)
    if isinstance(a, RowBlocks) or _is_dask(a):
        chosen, reason = choose_method(1 << 62, 1, kind="blocks", method=method)
        return Explanation("lstsq", chosen, reason, {}, 0.0, 0.0)
    entered = given("lstsq", a)
    kind = "sparse" if entered.sparse else "operator" if entered.operator else "dense"
    (m, n), count = entered.shape, math.prod(entered.batch)
    chosen, reason = choose_method(m, n, kind=kind, k=k, method=method)
    tall, short = float(max(m, n)), float(min(m, n))
    entries = float(entered.flat.nnz) if entered.sparse else tall * short
    rows = _rows_of(max(m, n), min(m, n), kind, k, chosen)
    factor = 2.0 * rows * short**2
    if chosen == "direct":
        flops = 2.0 * tall * short**2 + 20.0 * short**3
    elif chosen in ("sketch_cholesky", "minimum_norm"):
        flops = factor + 1.5 * tall * short**2 + 16.0 * entries
    elif chosen == "sketch_solve":
        flops = factor + 8.0 * entries
    else:
        flops = factor + 30 * 4.0 * entries
    size = np.dtype(entered.dtype).itemsize
    return Explanation("lstsq", chosen, reason, {}, count * flops, count * entries * size)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> Any:
    """Tall systems of condition number 1e8."""
    m, n = {"small": (40, 4), "medium": (5000, 30), "large": (200_000, 100)}[size]
    gen = np.random.default_rng(rng)
    a = gen.standard_normal((m, n)) * np.geomspace(1, 1e-8, n)
    b = a @ gen.standard_normal(n) + 1e-3 * gen.standard_normal(m)
    return (xp.asarray(a), xp.asarray(b)), {}
