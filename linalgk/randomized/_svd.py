"""Truncated singular value decomposition by sketches, in memory and out of it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, report
from linalgk.errors import NonFiniteError
from linalgk.randomized import _passes, _range
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import given, members
from linalgk.randomized._parts import fielded, library
from linalgk.randomized._range import Found, NotFiniteError, Plan
from linalgk.sketch import Philox, RowBlocks
from linalgk.typing import Array, OnFail

SVDMethod: TypeAlias = Literal["auto", "exact", "rsvd", "krylov", "gen_nystrom", "streaming"]
SVDSketch: TypeAlias = Literal["auto", "SparseStack", "Gaussian"]
METHODS = get_args(SVDMethod)
SKETCHES = get_args(SVDSketch)
# Up to this size all singular values are computed.
_SMALL, _AREA = 256, 1 << 20
_DEFAULT_PASSES = 4
# Entries of a memory map that are converted at once.
_BLOCK = 1 << 19


@dataclasses.dataclass(frozen=True, eq=False)
class SVDResult:
    """A truncated singular value decomposition; unpacks as ``U, S, Vh``.

    Attributes
    ----------
    U : array, shape (..., m, rank)
        Orthonormal columns; of a Dask array a Dask array that is not computed.
    S : array, shape (..., rank)
        Singular values, real, the largest first.
    Vh : array, shape (..., rank, n)
        Orthonormal rows.
    info : RandomInfo
        ``error_estimate`` of ``||A - U diag(S) Vh||_F / ||A||_F``. ``residual`` is the same.
    """

    U: Any
    S: Any
    Vh: Any
    info: RandomInfo

    def __iter__(self) -> Iterator[Any]:
        """``U, S, Vh``."""
        return iter((self.U, self.S, self.Vh))


def svd_lowrank(
    a: Array,
    /,
    rank: int | None = None,
    *,
    tol: float | None = None,
    oversample: int = 10,
    passes: int | None = None,
    method: SVDMethod = "auto",
    sketch: SVDSketch = "auto",
    rng: Any = None,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
) -> SVDResult:
    r"""Truncated singular value decomposition ``A ~ U diag(S) Vh`` from a few passes over A.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex matrices, any batch shape; one sparse matrix, linear operator, `RowBlocks`
        or Dask array as well. A NumPy memory map is read in place.
    rank : int, optional
        Singular values wanted, at most ``min(m, n)``. May be left out if ``tol`` is given.
    tol : float, optional
        Bound of the relative error in the Frobenius norm: the least rank that reaches it as far as
        is found, at most ``rank`` where both are given. At least ``64 eps``; for blocks
        ``64 eps``, too. Members of a batch with less than the largest rank end with zeros.
    oversample : int
        Columns beyond ``rank`` of the blocks that are computed with.
    passes : int, optional
        Most reads of A, products with A and A^H counted alike. Default 4, of blocks and Dask
        arrays 2; fewer are used where the first block holds all of A to rounding.
    method : {"auto", "exact", "rsvd", "krylov", "gen_nystrom", "streaming"}
        See Notes. ``auto`` is ``exact`` for small matrices and where the rank is near
        ``min(m, n)``, ``gen_nystrom`` (of blocks ``streaming``) for one pass, ``rsvd`` for two or
        three, and ``krylov`` for more or with ``tol``.
    sketch : {"auto", "SparseStack", "Gaussian"}
        Of the first pass. ``auto`` is ``Gaussian`` for linear operators, else ``SparseStack``.
    rng : seed, Generator or Philox
        Default None takes fresh entropy; ``info.seed`` replays the result. Members of a batch
        share it, so that each has the bits it has alone.
    check_adjoint : bool
        Compare ``A x`` and ``A^H y`` of an operator for random x and y first.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that hold NaN or infinity do.

    Returns
    -------
    SVDResult
        ``U, S, Vh`` and `info`, in the library and on the device of ``a``; NumPy arrays of
        `RowBlocks`; of Dask arrays NumPy's S and Vh, and a lazy U.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.

    See Also
    --------
    eigh_lowrank : for Hermitian matrices.
    StreamingSVD : for blocks that are seen once.
    cur, interp_decomp : factors made of columns and rows of A.

    Notes
    -----
    Let m >= n (else A^H takes the place of A) and l = rank + oversample. One read gives ``S A`` for
    a `SparseStack` S of about 4 l rows, at the speed of memory, whose dominant right singular
    vectors are the first V: much better than l random combinations of rows, and no product with A
    yet. Then

    * ``rsvd``: ``Y = A V``, whose singular values and vectors are those of ``A V V^H``. Power
      steps ``V <- orth(A^H orth(A V))`` take two reads each. An odd number of passes begins with a
      sketch of the columns.
    * ``krylov`` [1]_ keeps all blocks: V grows by ``orth(A^H U)`` for the left vectors U of Y, and
      Y by the product with what is new (a block Golub-Kahan process with reorthogonalization).
      No product ``Q^H A`` is needed at the end. Four passes are ``6 m n l`` flops, half of those
      of subspace iteration with five products that reach the same error.
    * ``gen_nystrom`` [2]_: sketches of both sides in one read, ``A Omega (S A Omega)^+ S A``.
    * ``streaming``: `StreamingSVD`.

    Blocks of the Krylov space are as wide as the first one, so that clusters of singular values
    are not missed; directions that have converged are dropped. For two passes and Gaussian test
    matrices [3]_, before truncation,

    .. math:: E \lVert A - A V V^H \rVert_F^2 \le \min_{q < l - 1} \Bigl(1 + \frac{q}{l - q - 1}
              \Bigr) \sum_{j > q} \sigma_j^2 ,

    and four are typically within one percent of the least error of that rank. Singular values have
    errors of about ``eps s_1``.

    The error estimate costs no further read: ``||A - A V V^H||_F^2`` is measured by rows Theta of
    the first sketch on which V does not depend (of a `SparseStack` one block of about l/2 rows,
    of a Gaussian 10), unbiased, with a relative standard deviation of at most ``(2/q)^(1/2)`` for q
    rows, and the squares of the singular values left out are added. A factor of three either
    way is exceeded with a probability below 3e-4 for 10 rows in the worst case, a residual of rank
    one, and practically never for residuals of many directions. Of blocks and Dask arrays, and
    for ``exact``, the error is computed, not estimated.

    With ``tol`` V grows by new sketches [4]_ until the error is reached; then one Krylov step
    lowers the rank. The error is that of norms, ``||A||_F^2 - sum s_i^2``, where ``tol`` is above
    ``8 eps^(1/2)``; below, and for operators, it is measured as above, with four standard
    deviations added.

    Blocks of rows are multiplied where they are: what is added up are sketches,
    ``sum A_i^H (A_i V)`` (two products for one read) and triangles of ``A_i V``. U of a Dask array
    is ``A (V / S)``, orthonormal to ``eps s_1 / s_i``.

    References
    ----------
    .. [1] C. Musco, C. Musco, "Randomized block Krylov methods for stronger and faster approximate
       singular value decomposition", NIPS 2015.
    .. [2] Y. Nakatsukasa, "Fast and stable randomized low-rank matrix approximation",
       arXiv:2009.11392 (2020).
    .. [3] N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review
       53 (2011), theorem 10.5.
    .. [4] P. G. Martinsson, S. Voronin, "A randomized blocked algorithm for efficiently computing
       rank-revealing factorizations of matrices", SIAM J. Sci. Comput. 38 (2016).

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((3000, 20)) @ rng.standard_normal((20, 500))
    >>> U, S, Vh = lk.svd_lowrank(a, 20, rng=0)
    >>> U.shape, S.shape, Vh.shape
    ((3000, 20), (20,), (20, 500))
    >>> bool(np.allclose((U * S) @ Vh, a))
    True
    >>> found = lk.svd_lowrank(a + 0.1 * rng.standard_normal(a.shape), tol=0.05, rng=0)
    >>> found.info.rank, bool(found.info.error_estimate < 0.05)
    (20, True)
    """
    options = _options(rank, tol, oversample, passes, method, sketch)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    seed = Philox(rng)
    blocks = _blocks(a)
    if blocks is not None:
        with _config.blas_threads():
            result, good = _of_blocks(a, blocks, options, seed)
            batch: tuple[int, ...] = ()
    else:
        with _lag.scope(a), _config.blas_threads():
            found = given("svd_lowrank", a, check_adjoint=check_adjoint)
            result, good = _of_members(found, options, seed)
            batch = found.batch
    if check:
        msg = (
            "svd_lowrank: a holds NaN or infinity{}, or numbers too large to add; remove them, or "
            "pass on_fail='nan'"
        )
        report(NonFiniteError, msg, ~good, batch, policy, result)
    return result


def _options(
    rank: Any, tol: Any, oversample: Any, passes: Any, method: Any, sketch: Any
) -> Plan:  # fmt: skip
    _validate.choice("method", method, METHODS)
    _validate.choice("sketch", sketch, SKETCHES)
    if rank is None and tol is None:
        msg = "rank: svd_lowrank needs a rank, or tol=, or both"
        raise TypeError(msg)
    rank = None if rank is None else _validate.integer("rank", rank, 0)
    if tol is not None:
        tol = _validate.real_between("tol", tol, 0.0, 1.0)
        if method not in ("auto", "exact", "krylov"):
            msg = f"tol: goes with the methods 'auto', 'exact' and 'krylov', not {method!r}"
            raise ValueError(msg)
    oversample = _validate.integer("oversample", oversample, 0)
    if passes is not None:
        passes = _validate.integer("passes", passes, 1)
        least = {"rsvd": 2, "krylov": 3}.get(method, 1)
        if passes < least:
            msg = f"passes: method {method!r} needs at least {least}, got {passes}"
            raise ValueError(msg)
    return Plan(rank, tol, oversample, passes, method, sketch)


def _sized(plan: Plan, m: int | None, n: int | None, eps: float) -> None:
    """The rank and the tolerance against the matrix, as far as its shape is known."""
    most = min((size for size in (m, n) if size is not None), default=None)
    if most is not None and plan.rank is not None and plan.rank > most:
        msg = f"rank: must be at most min(m, n) = {most}, got {plan.rank}"
        raise ValueError(msg)
    if plan.tol is not None and plan.tol < 64 * eps:
        msg = f"tol: must be at least 64 eps = {64 * eps:.3g} for this dtype, got {plan.tol:g}"
        raise ValueError(msg)


def choose_method(
    m: int, n: int, plan: Plan, *, kind: str = "dense"
) -> tuple[str, str]:  # fmt: skip
    """The method, and the reason; ``kind`` is "dense", "sparse", "operator" or "blocks"."""
    short, rank, passes = min(m, n), plan.rank, plan.passes
    if plan.method != "auto":
        return plan.method, "it was asked for"
    width = None if rank is None else rank + plan.oversample
    if kind != "blocks":
        if width is not None and 2 * width >= short:
            return "exact", f"rank + oversample = {width} is at least half of min(m, n) = {short}"
        if kind != "operator" and short <= _SMALL and m * n <= _AREA:
            return "exact", f"min(m, n) = {short} is small: all singular values cost little"
    if passes == 1:
        if kind == "blocks":
            return "streaming", "one pass over blocks was asked for"
        return "gen_nystrom", "one pass was asked for"
    if plan.tol is not None:
        return "krylov", "the basis grows until tol is reached, and a Krylov step lowers the rank"
    most = passes or (2 if kind == "blocks" else _DEFAULT_PASSES)
    if most < 4 and not (kind == "blocks" and most == 3):
        return "rsvd", f"{most} passes leave no room for a Krylov step"
    return "krylov", f"{most} passes: all blocks are kept, which no pass is needed for"


def explain_svd(
    a: Any,
    /,
    rank: int | None = None,
    *,
    tol: float | None = None,
    oversample: int = 10,
    passes: int | None = None,
    method: SVDMethod = "auto",
    sketch: SVDSketch = "auto",
    **_: Any,
) -> Explanation:
    """What a call of svd_lowrank would run."""
    plan = _options(rank, tol, oversample, passes, method, sketch)
    if _blocks(a) is not None:
        shape = a.shape if a.shape[1] is not None else (None, 0)
        m = 0 if shape[0] is None or math.isnan(shape[0]) else int(shape[0])
        chosen, reason = choose_method(m, int(shape[1]), plan, kind="blocks")
        entries, size, n = float(m * shape[1]), 8, int(shape[1])
    else:
        found = given("svd_lowrank", a)
        m, n = found.shape
        kind = "sparse" if found.sparse else "operator" if found.operator else "dense"
        chosen, reason = choose_method(m, n, plan, kind=kind)
        entries = float(found.flat.nnz if found.sparse else math.prod(found.batch) * m * n)
        size = np.dtype(found.dtype).itemsize
    short = min(m, n)
    width = short if plan.rank is None else min(short, plan.rank + oversample)
    if chosen == "exact":
        flops = 14.0 * m * n * short
    else:
        products = {"gen_nystrom": 0, "streaming": 0, "rsvd": 1}.get(chosen, 3)
        products = products if passes is None else max(products, passes - 1)
        flops = 2.0 * entries * width * products + 16.0 * entries + 6.0 * (m + n) * width**2
    return Explanation("svd_lowrank", chosen, reason, {}, flops, entries * size)


# --- Arrays, sparse matrices, operators ----------------------------------------------------------


def _of_members(found: Given, options: Plan, seed: Philox) -> tuple[SVDResult, Any]:
    m, n = found.shape
    _sized(options, m, n, found.eps)
    kind = "sparse" if found.sparse else "operator" if found.operator else "dense"
    chosen, _ = choose_method(m, n, options, kind=kind)
    plan = options._replace(method=chosen)
    parts: list[Found | None] = []
    for member in members(found):
        if member.kind == "dense":
            member.a = _multipliable(member.a)
        with (
            _config.config_context(check_finite=False),
            np.errstate(invalid="ignore", over="ignore"),
        ):
            try:
                parts.append(_member(member, plan, seed))
            except NotFiniteError:
                parts.append(None)
    return _hand_back(found, plan, parts, seed)


def _member(member: Any, plan: Plan, seed: Philox) -> Found:
    m, n = member.shape
    if plan.rank == 0 or 0 in (m, n):
        return _nothing(member, plan)
    if plan.method == "streaming":
        from linalgk.randomized._streaming import StreamingSVD

        if member.kind == "operator":
            msg = "a: a linear operator has no rows to stream; use method='gen_nystrom'"
            raise TypeError(msg)
        stream = StreamingSVD(m, n, int(plan.rank or 0), rng=seed)
        return _streamed(stream.update(member.a, offset=0))
    return _range.lowrank(member, plan, seed)


def _nothing(member: Any, plan: Plan) -> Found:
    m, n = member.shape
    size = 0.0 if 0 in (m, n) else 1.0
    empty = [np.zeros(shape, member.dtype) for shape in ((m, 0), (0,), (0, n))]
    empty[1] = empty[1].real
    u, s, vh = (_xp.from_numpy(x, member.xp, like=member.like) for x in empty)
    if size and member.kind != "operator" and not math.isfinite(member.norm):
        raise NotFiniteError
    if member.kind != "operator" and size and member.norm == 0:
        size = 0.0
    return Found(u, s, vh, size, member.passes, plan.method)


def _multipliable(x: Any) -> Any:
    """As BLAS takes it: one of the strides is that of an element, none is negative."""
    if isinstance(x, np.ndarray) and x.size and not _is_plain(x):
        return np.ascontiguousarray(x)
    return x


def _is_plain(x: Any) -> bool:
    return min(x.strides) >= 0 and x.itemsize in (
        stride for stride, size in zip(x.strides, x.shape, strict=True) if size
    ) and all(stride % x.itemsize == 0 for stride in x.strides) and x.flags.aligned  # fmt: skip


def _hand_back(
    found: Given, plan: Plan, parts: list[Found | None], seed: Philox
) -> tuple[SVDResult, Any]:
    m, n = found.shape
    good = np.array([part is not None for part in parts], bool)
    sizes = [int(part.s.shape[0]) for part in parts if part is not None]
    rank = max(sizes, default=0 if plan.rank is None else min(plan.rank, m, n))
    real = _xp.REAL[found.dtype]
    shapes = {"u": (m, rank), "s": (rank,), "vh": (rank, n)}
    xp, like = library(found)
    arrays = []
    for name, shape in shapes.items():
        dtype = real if name == "s" else found.dtype
        made = []
        for part in parts:
            if part is None:
                nan = np.full(shape, math.nan, dtype)
                made.append(_xp.from_numpy(nan, xp, like=like))
            else:
                made.append(_filled(xp, getattr(part, name), shape, dtype))
        if not found.batch:
            arrays.append(found.leave(made[0]))
            continue
        empty = _xp.from_numpy(np.zeros((0, *shape), dtype), xp, like=like)
        stacked = xp.stack(made) if made else empty
        arrays.append(found.leave(xp.reshape(stacked, (*found.batch, *shape))))
    error = np.array([math.nan if part is None else part.error for part in parts])
    info = RandomInfo(
        method=plan.method,
        iterations=fielded(found, np.zeros(len(parts), np.int64)),
        converged=fielded(found, good),
        residual=fielded(found, error.astype(real)),
        error_estimate=fielded(found, error.astype(real)),
        rank=_ranks(found, parts),
        passes=max((part.passes for part in parts if part is not None), default=0),
        seed=seed.key,
    )
    u, s, vh = arrays
    return SVDResult(u, s, vh, info), good


def _ranks(found: Given, parts: list[Found | None]) -> Any:
    sizes = [0 if part is None else int(part.s.shape[0]) for part in parts]
    return fielded(found, np.array(sizes, np.int64)) if found.batch else sizes[0]


def _filled(xp: Any, x: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """With zeros up to that shape, in C order and in that dtype."""
    x = xp.astype(x, _xp.dtype_of(xp, dtype), copy=False)
    if tuple(x.shape) == shape:
        return np.ascontiguousarray(x) if xp is np else x
    host = np.zeros(shape, dtype)
    host[tuple(slice(0, size) for size in x.shape)] = _xp.to_numpy(x)
    return _xp.from_numpy(host, xp, like=x)


def _streamed(stream: Any) -> Found:
    """What a `StreamingSVD` found, with zeros where it had no so many."""
    try:
        found = stream.result()
    except NonFiniteError:
        raise NotFiniteError from None
    error = float(found.info.error_estimate)
    if not bool(_xp.namespace(found.S).all(_xp.namespace(found.S).isfinite(found.S))):
        raise NotFiniteError
    return Found(found.U, found.S, found.Vh, error, 1, "streaming")


# --- Blocks of rows ------------------------------------------------------------------------------


def _blocks(a: Any) -> Any:
    """`RowBlocks`, a Dask array, or a memory map that a product would copy; None otherwise."""
    if isinstance(a, RowBlocks) or type(a).__module__.partition(".")[0] == "dask":
        return a
    if not isinstance(a, np.memmap) or a.ndim != 2 or not a.size:
        return None
    native = a.dtype.name in _xp.REAL and a.dtype.isnative
    if native and _is_plain(a):
        return None
    rows = max(1, _BLOCK // a.shape[1])
    dtype = a.dtype.name if a.dtype.name in _xp.REAL else np.float64
    return RowBlocks(
        [a[i : i + rows] for i in range(0, a.shape[0], rows)], shape=a.shape, dtype=dtype
    )


def _of_blocks(a: Any, blocks: Any, options: Plan, seed: Philox) -> tuple[SVDResult, Any]:
    reader: Any
    if isinstance(blocks, RowBlocks):
        reader = _passes.BlockReader(blocks)
        m, dtype = blocks.shape[0], np.dtype(blocks.dtype or np.float64)
        once = blocks.once
    else:
        from linalgk.interop import _dask_lowrank

        reader = _dask_lowrank.DaskReader(blocks)
        m, dtype, once = int(blocks.shape[0]), np.dtype(blocks.dtype), False
    dtype = _validate.floating("a", np.empty(0, dtype)).dtype
    _sized(options, m, reader.n, float(np.finfo(dtype).eps))
    chosen, _ = choose_method(m or 0, reader.n or 0, options, kind="blocks")
    plan = options._replace(method=chosen)
    if once and chosen != "streaming":
        msg = (
            "a: blocks of an iterator can be read once; pass method='streaming', or a sequence or "
            "a callable that returns an iterator"
        )
        raise ValueError(msg)
    if chosen in ("gen_nystrom", "exact") or (chosen == "streaming" and not reader.kept):
        msg = (
            f"method: {chosen!r} does not take {type(a).__name__}; use 'rsvd' or 'krylov' with at "
            "least 2 passes" + ("" if not reader.kept else ", or 'streaming'")
        )
        raise ValueError(msg)
    if plan.rank == 0 or reader.n == 0:
        msg = f"rank: of blocks must be at least 1, and n too; got {plan.rank} and {reader.n}"
        raise ValueError(msg)
    turn = None
    try:
        if chosen == "streaming":
            found = _stream_blocks(reader, plan, seed, m)
            u, s, vh, error = found.u, found.s, found.vh, found.error
        else:
            done = _passes.lowrank(reader, plan, seed)
            u, turn, s, vh, error = done.u, done.turn, done.s, done.vh, done.error
        good = np.array([True])
    except NotFiniteError:
        size, rank = m or getattr(reader, "rows", 0), plan.rank or 0
        u, s = np.full((size, rank), math.nan, dtype), np.full(rank, math.nan, dtype).real
        vh, error, good = np.full((rank, reader.n), math.nan, dtype), math.nan, np.array([False])
        turn = None if reader.kept else adjoint_nan(vh)
    if turn is not None:
        from linalgk.interop import _dask_lowrank

        u = _dask_lowrank.times(reader.a, turn)
    real = np.dtype(s.dtype).type
    info = RandomInfo(
        method=chosen,
        iterations=np.zeros((), np.int64),
        converged=np.asarray(good[0]),
        residual=np.asarray(real(error)),
        error_estimate=np.asarray(real(error)),
        rank=len(s),
        passes=reader.passes,
        seed=seed.key,
    )
    return SVDResult(u, s, vh, info), good


def adjoint_nan(vh: Any) -> Any:
    """NaN of the shape of the adjoint."""
    return np.full(vh.shape[::-1], math.nan, vh.dtype)


def _stream_blocks(reader: Any, plan: Plan, seed: Philox, m: int | None) -> Found:
    from linalgk.randomized._streaming import StreamingSVD

    if reader.n is None:
        msg = "a: RowBlocks must be told how many columns there are: shape=(None, n)"
        raise ValueError(msg)
    stream = StreamingSVD(m, reader.n, int(plan.rank or 0), rng=seed)
    with _config.config_context(check_finite=False):
        for offset, block in reader.blocks():
            stream.update(block, offset=offset)
        return _streamed(stream)


# --- The record ----------------------------------------------------------------------------------


def sample(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """A matrix whose columns fall like ``j^-1/2``, and a rank."""
    m, n, rank = {"small": (40, 20, 3), "medium": (1500, 500, 20), "large": (20_000, 5000, 100)}[
        size
    ]
    gen = np.random.default_rng(rng)
    a = gen.standard_normal((m, n)) / np.sqrt(np.arange(1, n + 1))
    return (xp.asarray(a), rank), {"rng": 0}
