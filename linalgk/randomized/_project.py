"""Sketch and project: consistent linear systems, solved by projections onto random equations."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, report
from linalgk.errors import NonFiniteError, NotConvergedError
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import Matrix, given, members, norm
from linalgk.randomized._parts import fielded
from linalgk.randomized._project_steps import Options, Outcome, ProjectState, iterate
from linalgk.sketch import Philox
from linalgk.typing import Array, OnFail

ProjectSketch: TypeAlias = Literal["block", "kaczmarz", "gaussian", "sparse"]
METHODS = get_args(ProjectSketch)
_PROBABILITIES = ("norm", "uniform")
# Rows of a block: with twice as many, their factors cost more than the sweeps that they save.
_BLOCK = 128
# Sweeps of the default max_iter.
_SWEEPS = 1000
_ENDED = {
    "stalled": "no longer falls; the system may be inconsistent (lk.lstsq solves it in the sense "
    "of least squares) or too ill conditioned",
    "rounding": "is what rounding leaves; give a larger tol",
    "max_iter": "is above tol at max_iter; give a larger max_iter or tol",
}


def sketch_project(
    a: Array,
    b: Array,
    /,
    *,
    x0: Array | None = None,
    sketch: ProjectSketch = "block",
    block: int | None = None,
    probabilities: Any = None,
    mix: bool | None = None,
    momentum: bool | None = None,
    tol: float | None = None,
    accuracy: Callable[[ProjectState], float] | None = None,
    max_iter: int | None = None,
    rng: Any = 0,
    callback: Callable[[ProjectState], bool | None] | None = None,
    progress: bool = False,
    check_adjoint: bool = False,
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    r"""Solve a consistent linear system by projections onto randomly sketched equations.

    .. math:: x \leftarrow x + A^H S\, (S^T A A^H S)^+ S^T (b - A x)

    is the solution of the sketched equations :math:`S^T A x = S^T b` that is nearest to x. The
    system may be tall, wide, square, singular or indefinite, as those of constrained Newton steps
    are; from ``x0=None`` the iterates go to the solution of least norm. It is meant for solutions
    that need not be accurate: ``tol`` or ``accuracy`` says how accurate.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex, any batch shape; one sparse matrix or linear operator as well.
    b : array, shape (..., m) or (..., m, c)
        Right-hand sides, with the batch shape of ``a``; columns are solved together.
    x0 : array, shape (..., n) or (..., n, c), optional
        Where to start; default zero.
    sketch : {"block", "kaczmarz", "gaussian", "sparse"}
        ``block``: some rows at once, in turns over random partitions. ``kaczmarz``: single rows.
        ``gaussian``, ``sparse``: random combinations of all rows, new ones in each step, which
        read all of A in each step.
    block : int, optional
        Equations of a step, at most m. Default ``min(128, m/4, n)``. For ``kaczmarz`` rows whose
        projections are computed together, one after the other all the same.
    probabilities : {"norm", "uniform"} or array, shape (m,), optional
        With which rows are drawn: by their squared norms (default of ``kaczmarz``), all alike
        (default of ``block``), or as given, like `leverage_scores`.
    mix : bool, optional
        Give rows one length and mix them by a random cosine transform first, so that any of them
        says as much as another. It takes a copy of A. Default for ``block`` with a dense matrix.
    momentum : bool, optional
        Accelerate; the rate is measured. Default True, except for ``kaczmarz``, where there is
        none.
    tol : float, optional
        Wanted ``||b - A x|| / ||b||``, in each column, from ``4 eps`` to 1. Default
        ``eps^(1/2)``.
    accuracy : callable, optional
        In place of ``tol``: from a `ProjectState` the residual that would do, asked after each
        sweep. See the example of a constrained Newton step.
    max_iter : int, optional
        Projections at most. Default: 1000 sweeps of m rows.
    rng : seed, Generator or Philox
        The default 0 gives the same steps every time.
    callback : callable, optional
        Is given a `ProjectState` after each sweep; True or ``StopIteration`` stops there.
    progress : bool
        Show a bar, with tqdm if installed.
    check_adjoint : bool
        Test the adjoint of an operator first.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members do that hold NaN or infinity or do not reach their accuracy. The latter keep
        their last iterate with ``"warn"``, also in the ``result`` of the exception.
    return_info : bool
        Also return a `RandomInfo`.

    Returns
    -------
    x : array, shape (..., n) or (..., n, c)
        In the library and on the device of ``a``.
    info : RandomInfo
        Only with ``return_info``. ``residual`` is ``||b - A x|| / ||b||``, the largest of the
        columns, and ``error_estimate`` the relative distance to the solution, extrapolated from
        the last sweeps. ``rank`` is the number of equations of a step, ``passes`` counts readings
        of all rows, ``converged`` is False where a callback stopped earlier.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.
    NotConvergedError
        The accuracy was not reached: ``max_iter``, rounding, or a residual that does not fall,
        as for a system without a solution.

    See Also
    --------
    lstsq : systems that have no solution, and all accurate ones.

    Notes
    -----
    No step takes x further from any solution (without ``momentum``), and
    ``||x_{t+1} - x*||^2 = ||x_t - x*||^2 - ||x_{t+1} - x_t||^2``. For ``kaczmarz`` [2]_

    .. math:: E \lVert x_t - x_* \rVert^2 \le \left(1 - \frac{\sigma_{\min}^2(A)}
              {\lVert A \rVert_F^2}\right)^t \lVert x_0 - x_* \rVert^2 ,

    with the least nonzero singular value. A block of s mixed rows gets rid of the s or so largest
    singular values in a few sweeps, and its rate depends on the others [3]_; momentum takes the
    root of the number of sweeps.

    A sweep of m rows costs ``4 m n`` flops for each column, and ``m n block`` for the Gram matrices
    of the blocks, whose factors are kept, in about the memory of A: up to 16 partitions are drawn,
    then they come again.
    Single rows are projected onto ``block`` at a time: with the lower triangle L of their Gram
    matrix, ``x + A_S^H L^{-1} (b_S - A_S x)`` is what the projections one by one give. The residual
    is looked at, with one product, when those of the rows met say that it may be small, and after
    every sweep with ``callback`` or ``accuracy``.
    Rounding leaves a residual of about ``eps ||A|| ||x|| / ||b||``.

    The rows of an operator are read once, by n products, and stored.

    References
    ----------
    .. [1] R. M. Gower, P. Richtárik, "Randomized iterative methods for linear systems", SIAM J.
       Matrix Anal. Appl. 36 (2015): equation (2.3).
    .. [2] T. Strohmer, R. Vershynin, "A randomized Kaczmarz algorithm with exponential
       convergence", J. Fourier Anal. Appl. 15 (2009).
    .. [3] M. Dereziński, D. Needell, E. Rebrova, J. Yang, "Randomized Kaczmarz methods with
       beyond-Krylov convergence", arXiv:2501.11673 (2025).
    .. [4] I. Hong, S. Na, M. W. Mahoney, M. Kolar, "Constrained optimization via exact augmented
       Lagrangian and randomized iterative sketching", ICML 2023: the example.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((900, 300))
    >>> x, info = lk.sketch_project(a, a @ np.ones(300), return_info=True)
    >>> bool(info.residual <= 1.5e-8), bool(abs(x - 1).max() < 1e-6)
    (True, True)

    A Newton step for ``min f(x)`` with ``c(x) = 0``, as accurate as it has to be [4]_: the residual
    falls below ``theta delta ||b|| / (||K|| psi)``, and as long as the step does not descend the
    exact augmented Lagrangian with penalties ``eta``, these change and delta falls.

    >>> n, k = 30, 6
    >>> H, G = np.diag(np.linspace(1.0, 3.0, n)), rng.standard_normal((k, n))
    >>> K = np.block([[H, G.T], [G, np.zeros((k, k))]])
    >>> grad, c = rng.standard_normal(n), rng.standard_normal(k)
    >>> b, theta, psi = -np.concatenate([grad, c]), 1.0, 20.0
    >>> at = {"delta": 0.1, "eta1": 1.0, "eta2": 0.1}
    >>> def descends(step):
    ...     slope_x = grad + at["eta2"] * H @ grad + at["eta1"] * G.T @ c
    ...     slope = np.concatenate([slope_x, c + at["eta2"] * G @ grad])
    ...     return bool(slope @ step <= -at["eta2"] / 2 * (b @ b))
    >>> def accuracy(state):
    ...     target = theta * at["delta"] / (np.linalg.norm(K) * psi)
    ...     while state.residual <= target and not descends(state.x):
    ...         at.update(eta1=2.25 * at["eta1"], eta2=at["eta2"] / 1.5, delta=at["delta"] / 1.5**4)
    ...         target = theta * at["delta"] / (np.linalg.norm(K) * psi)
    ...     return target
    >>> step, info = lk.sketch_project(K, b, accuracy=accuracy, return_info=True)
    >>> descends(step), bool(info.residual < 3e-4)
    (True, True)
    """
    _validate.choice("sketch", sketch, METHODS)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads():
        work = _Work(given("sketch_project", a, check_adjoint=check_adjoint), b, x0)
        size = _block_of(block, *work.given.shape, sketch)
        options = Options(
            sketch, size, _probabilities_of(probabilities, sketch, work.given.shape[0]),
            _mixed(mix, sketch, work.given), _accelerated(momentum, sketch),
            _steps_of(max_iter, sketch, size, work.given.shape[0]),
            _target_of(tol, accuracy, work.eps), _called("callback", callback), bool(progress),
            callback is not None or accuracy is not None,
        )  # fmt: skip
        source = Philox(rng)
        found = [work.solve(i, options, source) for i in range(math.prod(work.given.batch))]
        good = np.array([o.why != "bad" for o in found], bool)
        late = np.array([o.why in _ENDED for o in found], bool)
        answer = work.answer(found, options, source, policy, return_info=return_info)
        if check:
            msg = "sketch_project: a, b or x0 holds NaN or infinity{}; remove them, or pass "
            msg += "on_fail='nan'"
            report(NonFiniteError, msg, ~good, work.given.batch, policy, answer)
        worst = max((o for o in found if o.why in _ENDED), key=lambda o: o.residual, default=None)
        if worst is not None:
            msg = (
                f"sketch_project: the residual {worst.residual:.1e} after {worst.iterations} "
                f"steps{{}} {_ENDED[worst.why]}"
            )
            report(NotConvergedError, msg, late, work.given.batch, policy, answer)
        return answer


def choose_method(sketch: str, m: int, block: int) -> tuple[str, str]:
    """The sketch, and the reason."""
    if sketch == "block":
        return "block", f"blocks of {block} rows by BLAS; single rows are bound by overhead"
    reasons = {
        "kaczmarz": f"it was asked for; {block} single rows at once by a triangular solve",
        "gaussian": f"it was asked for; each step reads all {m} rows, block reads {block}",
        "sparse": f"it was asked for; each step reads all {m} rows, block reads {block}",
    }
    return sketch, reasons[sketch]


def explain_project(
    a: Any, b: Any, /, *, sketch: ProjectSketch = "block", block: int | None = None, **_: Any
) -> Explanation:
    """What a call of sketch_project would run; flops and bytes of one sweep."""
    _validate.choice("sketch", sketch, METHODS)
    found = given("sketch_project", a)
    m, n = found.shape
    size = _block_of(block, m, n, sketch)
    chosen, reason = choose_method(sketch, m, size)
    count = math.prod(found.batch)
    entries = float(getattr(found.flat, "nnz", count * m * n))
    columns = math.prod(_xp.as_array("b", b).shape) / max(1, count * m)
    flops = entries * (4.0 * columns + size)
    reads = 2.0 if chosen in ("block", "kaczmarz") else 1.0 + m / max(1, size)
    if chosen == "gaussian":
        flops += 2.0 * entries * m
    elif chosen == "sparse":
        flops += 8.0 * entries * m / max(1, size)
    nbytes = reads * entries * np.dtype(found.dtype).itemsize
    return Explanation("sketch_project", chosen, reason, {}, flops, nbytes)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A consistent system."""
    m, n = {"small": (20, 8), "medium": (600, 200), "large": (20_000, 2000)}[size]
    gen = np.random.default_rng(rng)
    a = gen.standard_normal((m, n))
    return (xp.asarray(a), xp.asarray(a @ gen.standard_normal(n))), {"rng": 0}


# --- The door -------------------------------------------------------------------------------------


class _Work:
    """The arguments as members of one dtype."""

    def __init__(self, found: Given, b: Any, x0: Any) -> None:
        self.given = found
        self.matrices = members(found)
        m, n = found.shape
        self.like = self.matrices[0].like if self.matrices else found.flat
        self.b, self.vector = self._entered("b", b, m, None)
        self.c = self.b.shape[-1]
        self.x0 = None if x0 is None else self._entered("x0", x0, n, self.b.shape[2:])[0]
        xp = _xp.namespace(self.b)
        dtypes = [_xp.dtype_of(xp, found.dtype), self.b.dtype]
        dtypes += [] if self.x0 is None else [self.x0.dtype]
        self.dtype = np.result_type(*(_name(x) for x in dtypes)).name
        self.eps = float(np.finfo(self.dtype).eps)
        kind = _xp.dtype_of(xp, self.dtype)
        self.b = xp.astype(self.b, kind, copy=False)
        self.x0 = None if self.x0 is None else xp.astype(self.x0, kind, copy=False)

    def _entered(self, name: str, x: Any, size: int, columns: Any) -> tuple[Any, bool]:
        """As (b, size, c), and whether they are vectors."""
        x = _xp.as_array(name, x)
        held = self.given.sparse or self.given.operator
        original = self.like if held else self.given.original
        _xp.same_family(a=original, **{name: x})
        face = _xp.face(x)
        assert face is not None
        host = isinstance(self.like, np.ndarray)
        flat = np.asarray(x) if face.family == "jax" and host else face.enter(x)
        flat = _validate.floating(name, flat)
        batch, shape = self.given.batch, tuple(flat.shape)
        lead = len(batch)
        vector = len(shape) == lead + 1
        fits = shape[: lead + 1] == (*batch, size) and len(shape) in (lead + 1, lead + 2)
        if columns is not None:
            fits = fits and vector == self.vector and (vector or shape[lead + 1 :] == columns)
        if not fits:
            wanted = ", ".join(map(str, (*batch, size)))
            forms = f"({wanted}) or ({wanted}, c)"
            if columns is not None:
                forms = f"({wanted})" if self.vector else f"({wanted}, {columns[0]})"
            msg = f"{name}: must have shape {forms}, got {shape}"
            raise ValueError(msg)
        xp = _xp.namespace(flat)
        width = 1 if vector else shape[-1]
        return xp.reshape(flat, (math.prod(batch), size, width)), vector

    def solve(self, i: int, options: Options, source: Philox) -> Outcome:
        """One member."""
        a, b = _promoted(self.matrices[i], self.dtype), self.b[i, :, :]
        xp = a.xp
        m, n = a.shape
        x = _zeros(xp, b, (n, self.c))
        if 0 in (m, n, self.c):
            x = x if self.x0 is None else self.x0[i, :, :]
            left = 1.0 if m and self.c and bool(xp.any(b != 0)) else 0.0
            return Outcome(x, 0, left, 0.0, "stalled" if left else "converged", 0)
        sizes = [a.norm, norm(b), 0.0 if self.x0 is None else norm(self.x0[i, :, :])]
        if not all(math.isfinite(s) or (s is sizes[0] and a.kind == "operator") for s in sizes):
            return Outcome(xp.full_like(x, math.nan), 0, math.nan, math.nan, "bad", a.passes)
        if sizes[0] == 0:
            b_zero = sizes[1] == 0
            x = x if self.x0 is None else self.x0[i, :, :]
            return Outcome(x, 0, float(not b_zero), 0.0, "converged" if b_zero else "stalled", 1)
        # powers of two, so that squares stay in range
        up, right = _power(sizes[0], self.dtype), _power(sizes[1], self.dtype)
        a = _times(a, -up)
        if self.x0 is not None:
            x = _shifted(self.x0[i, :, :], up - right)

        def leave(x: Any) -> Any:
            return self._leave(_shifted(x, right - up), ())

        end = iterate(a, _shifted(b, -right), x, options, source, leave, i, zero=self.x0 is None)
        return end._replace(x=_shifted(end.x, right - up))

    def _leave(self, x: Any, batch: tuple[int, ...]) -> Any:
        tail = tuple(x.shape[-2:-1] if self.vector else x.shape[-2:])
        x = _xp.namespace(x).reshape(x, (*batch, *tail))
        return self.given.leave(x)

    def answer(
        self, found: list[Outcome], options: Options, source: Philox, policy: str, *,
        return_info: bool,
    ) -> Any:  # fmt: skip
        """The solutions, and what is known of them."""
        xp, shape = _xp.namespace(self.b), (len(found), self.given.shape[1], self.c)
        parts = [
            xp.full_like(o.x, math.nan) if policy == "nan" and o.why in _ENDED else o.x
            for o in found
        ]
        x = xp.stack(parts) if parts else _zeros(xp, self.b, shape)
        x = self._leave(x, self.given.batch)
        if not return_info:
            return x
        real = _xp.REAL[self.dtype]
        blank = [policy == "nan" and o.why in _ENDED for o in found]
        pairs = list(zip(found, blank, strict=True))
        fields = {
            "iterations": np.array([o.iterations for o in found], np.int64),
            "converged": np.array([o.why == "converged" for o in found], bool),
            "residual": np.array([math.nan if no else o.residual for o, no in pairs], real),
            "error_estimate": np.array([math.nan if no else o.error for o, no in pairs], real),
        }
        arrays = {key: fielded(self.given, value) for key, value in fields.items()}
        passes = max((o.passes for o in found), default=0)
        return x, RandomInfo(
            method=options.sketch, rank=options.block, passes=passes, seed=source.key, **arrays
        )


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def _zeros(xp: Any, like: Any, shape: tuple[int, ...]) -> Any:
    return _xp.from_numpy(np.zeros(shape), xp, like=like, dtype=_xp.dtype_name(like))


def _promoted(a: Matrix, dtype: str) -> Matrix:
    if a.dtype == dtype:
        return a
    like = a.xp.astype(a.like, _xp.dtype_of(a.xp, dtype))
    if a.kind == "dense":
        return Matrix(a.xp.astype(a.a, like.dtype), a.kind, dtype, like)
    stored = a.a.astype(dtype) if a.kind == "sparse" else a.a
    return Matrix(stored, a.kind, dtype, like)


def _power(size: float, dtype: str) -> int:
    """The exponent of a size whose square is out of range, otherwise 0."""
    if not size or not math.isfinite(size):
        return 0
    exponent = math.frexp(size)[1]
    return exponent if abs(exponent) > np.finfo(dtype).maxexp // 4 else 0


def _shifted(x: Any, power: int) -> Any:
    """``2^power x``, in two steps, each of which has its factor."""
    if not power:
        return x
    half = power // 2
    with np.errstate(over="ignore", under="ignore"):
        return x * math.ldexp(1.0, half) * math.ldexp(1.0, power - half)


def _times(a: Matrix, power: int) -> Matrix:
    if not power or a.kind == "operator":
        return a
    scaled = Matrix(_shifted(a.a, power), a.kind, a.dtype, a.like)
    scaled.passes = a.passes
    return scaled


def _block_of(block: Any, m: int, n: int, sketch: str) -> int:
    if block is not None:
        size = _validate.integer("block", block, 1)
        if size > max(m, 1):
            msg = f"block: must be at most the {m} rows of a, got {block}"
            raise ValueError(msg)
        return size
    if sketch == "kaczmarz":
        return max(1, min(m, 32))
    return max(1, min(_BLOCK, m // 4, n))


def _probabilities_of(probabilities: Any, sketch: str, m: int) -> Any:
    if sketch not in ("block", "kaczmarz"):
        if probabilities is not None:
            msg = f"probabilities: {sketch} combines all rows; use sketch='block' or 'kaczmarz'"
            raise ValueError(msg)
        return "uniform"
    if probabilities is None:
        return "norm" if sketch == "kaczmarz" else "uniform"
    if isinstance(probabilities, str):
        return _validate.choice("probabilities", probabilities, _PROBABILITIES)
    values = np.asarray(_xp.to_numpy(_xp.as_array("probabilities", probabilities)))
    if values.dtype.kind not in "fiu":
        msg = f"probabilities: must be real, got dtype {values.dtype}"
        raise TypeError(msg)
    if values.shape != (m,):
        msg = f"probabilities: must have shape ({m},), one for each row, got {values.shape}"
        raise ValueError(msg)
    values = values.astype(np.float64)
    if not (np.isfinite(values) & (values >= 0)).all() or not values.sum() > 0:
        msg = "probabilities: must be finite, not negative and not all zero"
        raise ValueError(msg)
    return values / values.sum()


def _mixed(mix: Any, sketch: str, found: Given) -> bool:
    stored = found.sparse or found.operator
    if mix and (sketch not in ("block", "kaczmarz") or found.sparse):
        what = "a sparse matrix would become dense" if found.sparse else f"{sketch} mixes anyway"
        msg = f"mix: {what}; leave it out"
        raise ValueError(msg)
    return (sketch == "block" and not stored) if mix is None else bool(mix)


def _accelerated(momentum: Any, sketch: str) -> bool:
    if momentum and sketch == "kaczmarz":
        msg = "momentum: kaczmarz has none, as its rows are projected onto one by one; use 'block'"
        raise ValueError(msg)
    return sketch != "kaczmarz" if momentum is None else bool(momentum)


def _steps_of(max_iter: Any, sketch: str, block: int, m: int) -> int:
    if max_iter is not None:
        return _validate.integer("max_iter", max_iter, 0)
    return _SWEEPS * (m if sketch == "kaczmarz" else -(-m // block))


def _called(name: str, function: Any) -> Any:
    if function is not None and not callable(function):
        msg = f"{name}: must be callable, got {type(function).__name__}"
        raise TypeError(msg)
    return function


def _target_of(tol: Any, accuracy: Any, eps: float) -> Callable[[ProjectState], float]:
    if accuracy is None:
        wanted = math.sqrt(eps) if tol is None else tol
        fixed = _validate.real_between("tol", wanted, 4 * eps, 1.0)
        return lambda _state: fixed
    _called("accuracy", accuracy)
    if tol is not None:
        msg = "tol: accuracy is given in its place; pass one of them"
        raise ValueError(msg)

    def target(state: ProjectState) -> float:
        return _validate.real_between("accuracy(state)", accuracy(state), 0.0, math.inf)

    return target


__all__ = ["METHODS", "choose_method", "explain_project", "sample", "sketch_project"]
