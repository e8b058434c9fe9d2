"""Tucker decomposition of arrays, canonical tensors, files and slabs, to a measured tolerance."""

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.sketch import Philox
from linalgk.tensor import _hooi, _rhosvd, _sketched, _streaming, _unfold
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._tucker_choice import choose_method
from linalgk.tensor._tucker_tensor import TuckerTensor, rank_list
from linalgk.typing import Array, OnFail

TuckerMethod: TypeAlias = Literal["auto", "st_hosvd", "hooi", "randomized", "streaming"]
METHODS = get_args(TuckerMethod)
# Roundings that a core and its factors add to the error.
_ROUNDING = 8
# Norms of squares are told in this range only.
_RANGE = (1e-270, 1e270)


def tucker(
    x: Any,
    /,
    *,
    tol: float | None = None,
    ranks: int | Sequence[int] | None = None,
    method: TuckerMethod = "auto",
    max_iter: int = 50,
    rng: Any = 0,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    callback: Callable[[_hooi.State], Any] | None = None,
) -> TuckerTensor:
    r"""Tucker decomposition to a relative error that is measured, or of given ranks.

    .. math:: X \approx G \times_1 U_1 \times_2 U_2 \cdots \times_d U_d, \qquad
              \|X - G \times_1 U_1 \cdots\|_F \le \mathrm{tol} \, \|X\|_F

    with orthonormal columns in every factor.

    Parameters
    ----------
    x : array, shape (n_1, ..., n_d)
        Real or complex, any memory order; never written to. Or a `CanonicalTensor` or
        `TuckerTensor`; a `numpy.memmap`, which is read in slabs; or slabs
        ``(b, n_2, ..., n_d)`` along the first axis: a list of them or a callable that returns an
        iterator, which are read again and again, or an iterator, which is read once. `RowBlocks`
        are slabs of a matrix.
    tol : float
        Relative error in the Frobenius norm. Ranks follow from it.
    ranks : int or sequence of d int
        In place of ``tol``. Larger ones than ``n_k`` are cut to it.
    method : {"auto", "st_hosvd", "hooi", "randomized", "streaming"}
        See Notes.
    max_iter : int
        Sweeps of ``hooi`` at most.
    rng : seed, Generator or Philox
        Of ``randomized`` and of slabs that are read once. The default 0 gives the same result every
        time.
    check_finite : bool, optional
        False: NaN and infinity in an array give NaN and no error. The check costs nothing.
    on_fail : {"raise", "warn", "nan"}, optional
        What happens where the measured error is above ``tol``, or ``hooi`` still gains after
        ``max_iter`` sweeps: `NotConvergedError` with the result, a `ConvergenceWarning`, which is
        the default here, or nothing; ``converged`` is False in the result. With ``"nan"`` numbers
        that are not finite give NaN and no error.
    callback : callable, optional
        Called after each sweep of ``hooi`` with ``iteration, ranks, error``; True stops.

    Returns
    -------
    t : TuckerTensor
        In the library of x; NumPy for slabs. ``error`` is the relative error of t as it is, with
        its roundings: from all entries, or from ``||X||^2 - ||G||^2`` where that tells it; a bound
        for a canonical tensor; an estimate after one pass. ``method`` says what ran, ``converged``
        whether the tolerance was met, and a ``callback`` counts sweeps.

    Raises
    ------
    TypeError, ValueError
        A kind, dtype, shape or option that does not fit; both or none of ``tol`` and ``ranks``.
    NonFiniteError
        If x holds NaN or infinity.
    NotConvergedError
        See ``on_fail``.

    See Also
    --------
    TuckerTensor.recompress : of what is a Tucker tensor already.

    Notes
    -----
    ``st_hosvd`` [1]_ truncates one mode after another, in the order of few operations, and passes
    on what a mode leaves of the squared error; its error is at most :math:`\sqrt d` times the best
    of these ranks. Vectors come from a Gram matrix in double precision, float32 data included,
    where its eigenvalues can tell what to leave out: about ``tol >= 2 (d n eps)^(1/2)``; below
    from a factorisation with singular values to eps, four times the work. Middle modes are read as
    they lie. About ``N n_1 + 2 N r_1`` operations for N entries, and less for later modes.

    ``hooi`` [2]_ improves all factors in turn on the core of an ST-HOSVD of larger ranks, until a
    sweep gains less than a thousandth of the squared error. With ``tol`` it takes for every mode
    the least rank that the others allow [3]_, so that the core shrinks from sweep to sweep.

    ``randomized`` [4]_ with ranks looks at 8 or more random combinations of the slices in the
    first mode, takes subspaces of all other modes from them, and the vectors of the first mode from
    x projected on those, as a sweep of HOOI does; the other modes follow as in ``st_hosvd``. About
    ``2 N (18 + r_d + r_1)`` operations. Errors were between 0.993 and 1.01 of those of
    ``st_hosvd`` in tests, for white noise and slow decay, too. With ``tol`` a projection with one
    power step is doubled until ``||X||^2 - ||Q^H X||^2`` verifies it; below ``1e-6`` in double and
    ``2e-2`` in single precision that cannot be told, and ``st_hosvd`` does the work.

    ``streaming`` reads slabs twice: Gram matrices, or triangles, of modes 2 to d, then slabs
    projected on their leading vectors, which fit in memory and are decomposed there; a third time
    to measure errors that norms do not tell, and all of it again if a tolerance was missed. Slabs
    that are read once are sketched [5]_ by ``2 r + 1`` columns in each mode, and need ``ranks``.

    ``auto`` is ``st_hosvd`` unless ranks are so small that ``randomized`` takes less, and
    ``streaming`` for files and slabs.

    References
    ----------
    .. [1] N. Vannieuwenhoven, R. Vandebril, K. Meerbergen, "A new truncation strategy for the
       higher-order singular value decomposition", SIAM J. Sci. Comput. 34 (2012).
    .. [2] L. De Lathauwer, B. De Moor, J. Vandewalle, "On the best rank-1 and rank-(R1, ..., RN)
       approximation of higher-order tensors", SIAM J. Matrix Anal. Appl. 21 (2000).
    .. [3] C. Xiao, C. Yang, "A rank-adaptive higher-order orthogonal iteration algorithm for
       truncated Tucker decomposition", arXiv:2110.12564 (2021).
    .. [4] R. Minster, A. K. Saibaba, M. E. Kilmer, "Randomized algorithms for low-rank tensor
       decompositions in the Tucker format", SIAM J. Math. Data Sci. 2 (2020).
    .. [5] Y. Sun, Y. Guo, C. Luo, J. Tropp, M. Udell, "Low-rank Tucker approximation of a tensor
       from streaming data", SIAM J. Math. Data Sci. 2 (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from linalgk.tensor import tucker
    >>> i, j, k = np.ogrid[1:41, 1:51, 1:61]
    >>> t = tucker(1.0 / (i + j + k), tol=1e-8)
    >>> t.shape, t.ranks
    ((40, 50, 60), (10, 10, 10))
    >>> bool(t.error <= 1e-8), t.converged
    (True, True)
    """
    _validate.choice("method", method, METHODS)
    wanted = _wanted(tol, ranks)
    max_iter = _validate.integer("max_iter", max_iter, 0)
    check = _validate.check_finite(check_finite)
    # an object that knows its error is not a failure unless it is asked to be one
    policy: OnFail = "warn" if on_fail is None else _validate.on_fail(on_fail)
    asked = Asked(wanted, ranks, method, max_iter, rng, check, policy, callback)
    if isinstance(x, CanonicalTensor | TuckerTensor):
        return _told(_of_format(x, asked), asked)
    if _streaming.is_source(x) and (method in ("auto", "streaming") or _xp.face(x) is None):
        return _told(_of_source(x, asked), asked)
    with _lag.scope(x), _config.blas_threads():
        return _told(_of_array(_enter(x), asked), asked)


class Asked(NamedTuple):
    """Options that have been looked at."""

    tol: float | None
    ranks: Any
    method: str
    max_iter: int
    rng: Any
    check: bool
    policy: OnFail
    callback: Any

    def list(self, shape: Sequence[int]) -> list[int] | None:
        """A rank for each mode."""
        return None if self.ranks is None else rank_list(self.ranks, shape)


def _wanted(tol: Any, ranks: Any) -> float | None:
    if tol is None and ranks is None:
        msg = "tucker: give tol=, a relative error, or ranks="
        raise TypeError(msg)
    if tol is not None and ranks is not None:
        msg = (
            "ranks: give ranks or tol, not both; tol finds the ranks, and "
            "tucker(x, tol=...).recompress(ranks=...) cuts them"
        )
        raise ValueError(msg)
    return None if tol is None else _validate.real_between("tol", tol, 0.0, 1.0)


# --- Arrays --------------------------------------------------------------------------------------


class Given(NamedTuple):
    """An array in C order, perhaps with its modes reversed, and where it came from."""

    x: Any
    face: _xp.Face
    like: Any
    turned: bool

    def leave(self, x: Any) -> Any:
        """In the caller's library."""
        if self.face.family == "jax" and isinstance(x, np.ndarray):
            return sys.modules["jax"].numpy.asarray(x)
        return self.face.leave(x, self.like)


def _enter(x: Any) -> Given:
    x = _xp.as_array("x", x)
    face = _xp.face(x)
    assert face is not None
    if _xp.is_traced(x):
        msg = "x: tucker looks at values and cannot be traced; call it outside"
        raise TypeError(msg)
    if face.family == "jax" and all(d.platform == "cpu" for d in x.devices()):
        inside = np.asarray(x)
    else:
        inside = face.enter(x)
    inside = _validate.floating("x", inside)
    if inside.ndim == 0:
        msg = "x: must have one mode or more, got a number"
        raise ValueError(msg)
    turned = False
    if isinstance(inside, np.ndarray) or _xp.is_cuda(inside):
        flags = inside.flags
        turned = bool(flags.f_contiguous and not flags.c_contiguous)
        inside = inside.T if turned else _lag.contiguous(inside)
    return Given(inside, face, x, turned)


class Found(NamedTuple):
    """A decomposition and its relative error."""

    core: Any
    factors: tuple[Any, ...]
    error: float
    method: str
    iterations: int = 0
    settled: bool = True


def _of_array(given: Given, asked: Asked) -> TuckerTensor:
    x = given.x
    ranks = asked.list(given.like.shape)
    ranks = ranks[::-1] if ranks is not None and given.turned else ranks
    if 0 in x.shape:
        return _made(given, _nothing(x), asked)
    choice = choose_method(tuple(x.shape), _xp.dtype_name(x), asked.tol, ranks, asked.method)
    if choice.method == "randomized" and ranks is not None and isinstance(x, np.ndarray):
        # threads of BLAS, even of a dot product, would spin beside those of `narrow_product`
        with _config.serial_blas:
            return _computed(given, x, ranks, choice.method, asked)
    return _computed(given, x, ranks, choice.method, asked)


def _computed(
    given: Given, x: Any, ranks: Sequence[int] | None, method: str, asked: Asked
) -> TuckerTensor:
    square, scale = _unfold.squared_norm(x), 1.0
    if not _RANGE[0] < square < _RANGE[1]:
        x, scale = _scaled(x)
        if not math.isfinite(scale):
            if asked.check and asked.policy != "nan":
                msg = "x: holds NaN or infinity; remove them, or pass on_fail='nan'"
                raise NonFiniteError(msg)
            return _made(given, _not_a_number(x), asked)
        square = _unfold.squared_norm(x)
    if math.sqrt(square) * scale > float(np.finfo(_xp.dtype_name(x)).max):
        msg = f"x: its norm, which a core holds, overflows in {_xp.dtype_name(x)}; scale x"
        raise ValueError(msg)
    if method == "streaming":
        found = _streamed(x, asked._replace(ranks=ranks))
    elif ranks is not None:
        found = _by_ranks(x, ranks, method, square, asked)
    else:
        found = _by_tolerance(x, method, square, asked)
    if scale != 1.0:
        found = found._replace(core=found.core * scale)
    return _made(given, found, asked)


def _scaled(x: Any) -> tuple[Any, float]:
    """A multiple whose largest entry is near 1, and by what it has to be multiplied."""
    xp = _xp.namespace(x)
    parts = (xp.real(x), xp.imag(x)) if _xp.dtype_name(x) in _xp.COMPLEX else (x,)
    sizes = [float(xp.max(xp.abs(part))) for part in parts]
    if not all(map(math.isfinite, sizes)):
        return x, math.inf
    if not any(sizes):
        return x, 1.0
    scale = math.ldexp(1.0, max(min(math.frexp(max(sizes))[1], 1023), -1022))
    return x / scale, scale


def _nothing(x: Any) -> Found:
    xp, where = _xp.namespace(x), _unfold.where(x)
    core = xp.zeros((0,) * x.ndim, dtype=x.dtype, **where)
    factors = tuple(xp.zeros((n, 0), dtype=x.dtype, **where) for n in x.shape)
    return Found(core, factors, 0.0, "none")


def _not_a_number(x: Any) -> Found:
    xp, where = _xp.namespace(x), _unfold.where(x)
    core = xp.full((1,) * x.ndim, math.nan, dtype=x.dtype, **where)
    factors = tuple(xp.ones((n, 1), dtype=x.dtype, **where) / n**0.5 for n in x.shape)
    return Found(core, factors, math.nan, "none", settled=False)


def _by_ranks(x: Any, ranks: Sequence[int], method: str, square: float, asked: Asked) -> Found:
    if method == "hooi":
        best = _hooi.hooi(x, square, ranks=ranks, max_iter=asked.max_iter, callback=asked.callback)
        error = _unfold.relative_error(x, best.core, best.factors, square)
        return Found(best.core, best.factors, error, method, best.iterations, best.settled)
    if method == "randomized":
        found = _sketched.of_ranks(x, Philox(asked.rng), ranks)
    else:
        found = _unfold.st_hosvd(x, ranks=ranks)
    error = _unfold.relative_error(x, found.core, found.factors, square)
    return Found(found.core, found.factors, error, method)


def _by_tolerance(x: Any, method: str, square: float, asked: Asked) -> Found:
    """Measured, and tried again with less where the measured error is too large."""
    tol = asked.tol
    assert tol is not None
    eps = float(np.finfo(_xp.dtype_name(x)).eps)
    whole = max(tol**2 - (_ROUNDING * eps) ** 2, tol**2 / 4) * square
    best: Found | None = None
    for share, vectors in ((1.0, "auto"), (0.8, "lq"), (0.25, "lq")):
        if best is not None and method == "randomized":
            method = "randomized+st_hosvd"
        found = _once(x, share * whole, vectors, method, square, asked)
        if best is None or found.error < best.error:
            best = found
        if best.error <= tol:
            break
    assert best is not None
    return best


def _once(x: Any, budget: float, vectors: str, method: str, square: float, asked: Asked) -> Found:
    if method == "hooi":
        best = _hooi.hooi(
            x, square, budget=budget, method=vectors, max_iter=asked.max_iter,
            callback=asked.callback,
        )  # fmt: skip
        error = _unfold.relative_error(x, best.core, best.factors, square)
        return Found(best.core, best.factors, error, method, best.iterations, best.settled)
    if method == "randomized":
        found = _sketched.st_hosvd(x, Philox(asked.rng), budget=budget, square=square)
    else:
        found = _unfold.st_hosvd(x, budget=budget, method=vectors)
    error = _unfold.relative_error(x, found.core, found.factors, square)
    return Found(found.core, found.factors, error, method)


def _made(given: Given, found: Found, asked: Asked) -> TuckerTensor:
    core, factors = found.core, found.factors
    if given.turned:
        xp = _xp.namespace(core)
        core, factors = (
            _lag.contiguous(xp.permute_dims(core, tuple(range(core.ndim))[::-1])),
            (factors[::-1]),
        )
    return _tensor(given.leave(core), [given.leave(f) for f in factors], found, asked.tol)


def _tensor(core: Any, factors: Any, found: Any, tol: float | None) -> TuckerTensor:
    within = math.isfinite(found.error) and (tol is None or found.error <= tol)
    settled = getattr(found, "settled", True) or tol is not None
    return TuckerTensor(
        core,
        factors,
        error=found.error,
        method=found.method,
        converged=within and settled,
        iterations=getattr(found, "iterations", 0),
    )


# --- Other kinds ---------------------------------------------------------------------------------


def _of_format(x: Any, asked: Asked) -> TuckerTensor:
    """A tensor that is known by factors, which is never multiplied out."""
    if asked.method not in ("auto", "st_hosvd"):
        msg = (
            f"method: a {type(x).__name__} is reduced by 'auto' only, got {asked.method!r}; "
            "x.toarray() has the other methods"
        )
        raise ValueError(msg)
    if isinstance(x, CanonicalTensor):
        return _rhosvd.from_canonical(x, tol=asked.tol, ranks=asked.ranks)
    found: TuckerTensor = x.recompress(asked.tol, ranks=asked.ranks)
    return found


def _of_source(x: Any, asked: Asked) -> TuckerTensor:
    if asked.method not in ("auto", "streaming"):
        msg = f"method: slabs are decomposed by 'streaming' only, got {asked.method!r}"
        raise ValueError(msg)
    with _config.blas_threads():
        found = _streamed(x, asked)
    factors, core = found.factors, found.core
    if isinstance(x, np.ndarray) and x.flags.f_contiguous and not x.flags.c_contiguous:
        core, factors = np.ascontiguousarray(core.T), factors[::-1]
    return _tensor(core, factors, found, asked.tol)


def _streamed(x: Any, asked: Asked) -> Any:
    source = _streaming.Source(x)
    if asked.ranks is None:
        return _streaming.decompose(source, tol=asked.tol, ranks=None, rng=asked.rng)
    ranks: Any
    if isinstance(asked.ranks, Sequence):
        ranks = [_validate.integer(f"ranks[{k}]", r, 1) for k, r in enumerate(asked.ranks)]
        ranks = ranks[::-1] if source.turned else ranks
    else:
        ranks = _validate.integer("ranks", asked.ranks, 1)
    return _streaming.decompose(source, tol=None, ranks=ranks, rng=asked.rng)


def _told(t: TuckerTensor, asked: Asked) -> TuckerTensor:
    """The result, with a warning or as an error's if it is not what was asked for."""
    if t.converged or asked.policy == "nan" or math.isnan(t.error):
        return t
    if asked.tol is None:
        msg = f"tucker: still gaining after max_iter={asked.max_iter} sweeps; the error is known"
    else:
        eps = float(np.finfo(_xp.dtype_name(t.core)).eps)
        why = f", {_xp.dtype_name(t.core)} has eps = {eps:.1e}" if asked.tol < 16 * eps else ""
        msg = (
            f"tucker: tol={asked.tol:g} was not reached{why}; the result has the error "
            f"{t.error:.3g}, which it knows"
        )
    if asked.policy == "raise":
        raise NotConvergedError(msg, ((),), t)
    warnings.warn(msg, ConvergenceWarning, stacklevel=3)
    return t


# --- Told without computing ----------------------------------------------------------------------


def explain_tucker(
    x: Any, /, *, tol: float | None = None, ranks: Any = None, method: TuckerMethod = "auto",
    **_: Any,
) -> Explanation:  # fmt: skip
    """What a call of tucker would run."""
    _validate.choice("method", method, METHODS)
    _wanted(tol, ranks)
    if isinstance(x, CanonicalTensor | TuckerTensor):
        size = float(sum(math.prod(f.shape) for f in x.factors))
        name = "rhosvd" if isinstance(x, CanonicalTensor) else "recompress"
        reason = f"a {type(x).__name__} is reduced by its factors"
        width = max(int(f.shape[1]) for f in x.factors)
        return Explanation("tucker", name, reason, {}, 4.0 * size * width, 16.0 * size)
    if _streaming.is_source(x) and _xp.face(x) is None:
        name = "one_pass" if _streaming.Source(x).once else "streaming"
        reason = "slabs can be read " + ("once" if name == "one_pass" else "again and again")
        return Explanation("tucker", name, reason, {}, math.nan, math.nan)
    x = _xp.as_array("x", x)
    shape = tuple(int(n) for n in x.shape)
    wanted = None if ranks is None else rank_list(ranks, shape)
    if isinstance(x, np.memmap) and method == "auto":
        method = "streaming"
    dtype = _xp.dtype_name(x) if _xp.dtype_name(x) in _xp.REAL else "float64"
    found = choose_method(shape, dtype, tol, wanted, method)
    if isinstance(x, np.memmap) and found.method == "streaming":
        found = found._replace(reason="the array is a file's and is read in slabs")
    passes = 3.0 if found.method == "streaming" else 2.0
    moved = passes * math.prod(shape) * np.dtype(dtype).itemsize
    return Explanation("tucker", found.method, found.reason, {}, found.flops, moved)


def sample_tucker(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Array, ...], dict[str, Any]]:
    """Low ranks and noise."""
    n, r = {"small": (12, 3), "medium": (80, 8), "large": (200, 20)}[size]
    rng = np.random.default_rng(rng)
    core = rng.standard_normal((r, r, r))
    factors = [np.linalg.qr(rng.standard_normal((n, r)))[0] for _ in range(3)]
    x = _unfold.mode_products(core, factors) + 1e-4 * (r / n) ** 1.5 * rng.standard_normal((n,) * 3)
    return (xp.asarray(x),), {"ranks": r}
