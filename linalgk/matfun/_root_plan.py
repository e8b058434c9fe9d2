"""Plans of roots: the method chosen from the kind of the array, memory taken once."""

import math
from typing import Any

import numpy as np

from linalgk import _validate, _xp
from linalgk._dispatch import Explanation
from linalgk.matfun import _apply, _device, _ops
from linalgk.matfun._minimax import schedule
from linalgk.matfun._paths import SMALL, choose_method, steps_table
from linalgk.matfun._report import finish
from linalgk.matfun._spectral import (
    OK,
    Call,
    Decomposition,
    Result,
    Scalar,
    assemble,
    blas_for,
    by_entries,
    workers,
)
from linalgk.matfun._static import LOWER


class RootPlan:
    """Roots of NumPy arrays of one kind with memory of its own."""

    def __init__(
        self, name: str, call: Call, like: Any, policy: str, damp: Any, method: str
    ) -> None:
        self._name, self._call, self._policy, self._method = name, call, policy, method
        *batch, n, _ = like.shape
        self._batch, count = tuple(batch), math.prod(batch)
        shape, dtype = (count, n, n), like.dtype
        self._damp = damp if damp.any() else None
        self.status: Any = None
        self._a = np.empty(shape, dtype)
        self.workspace_nbytes = self._a.nbytes
        self._identity = np.eye(n, dtype=dtype)
        if method == "minimax":
            self._prepare_steps(shape, dtype)
        elif method == "eigh" and n > SMALL:
            solvers = _kernel(_ops.EIGH, like, "solvers")
            self._vectors = np.empty(shape, dtype)
            self._pool, size = solvers(n, dtype, workers(self._a, call))
            self.workspace_nbytes += self._vectors.nbytes + size
        elif method == "fused":
            self._report = np.empty((count, 4))
            self._table = steps_table(dtype.name, call.function, "minimax", call.tol, call.steps)
            self.workspace_nbytes += self._report.nbytes

    def _prepare_steps(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Schedule and workspace of a fixed number of products."""
        call, n = self._call, shape[-1]
        factors = call.function.factors
        assert factors is not None
        lower = LOWER[_xp.REAL[dtype.name]]
        if call.rel_damp is not None:
            # the norm bound is at most sqrt(n) of the largest eigenvalue
            lower = max(lower, float(call.rel_damp.min()) / n**0.5)
        table = schedule(lower ** (1 / factors[2]), call.tol, call.steps, root=factors[2])
        self._coeffs = np.broadcast_to(table.astype(_xp.REAL[dtype.name]), (shape[0], *table.shape))
        workspace = _kernel(_ops.ROOT_ITERATION, self._a, "workspace")
        self._pool = [workspace(n, dtype) for _ in range(workers(self._a, call))]
        self._start = np.empty(shape, dtype)
        self.workspace_nbytes += sum(w.nbytes for w in self._pool) + self._start.nbytes

    def run(self, arrays: tuple[Any, ...], out: Any) -> Any:
        """Compute into ``out``, or into a new array."""
        (given,) = arrays
        out = np.empty(given.shape, given.dtype) if out is None else out
        direct = out.flags.c_contiguous
        flat_out = out.reshape(self._a.shape) if direct else np.empty_like(self._a)
        a = self._a
        a[...] = given.reshape(a.shape)
        if self._damp is not None:
            np.einsum("bii->bi", a)[...] += self._damp[:, None]
        with np.errstate(all="ignore"):
            status = getattr(self, f"_by_{self._method}")(a, flat_out)
        bad = status != OK
        if bad.any():
            flat_out[bad] = np.nan
        if not direct:
            out[...] = flat_out.reshape(out.shape)
        self.status = status.reshape(self._batch)
        if bad.any() and self._policy != "nan":
            zeros = np.zeros(len(status), int)
            found = Result(flat_out, status, zeros, np.full(len(status), np.nan), self._method)
            call = self._call
            finish(
                self._name, call.function, a, found, out, None, self._batch, True, self._policy
            )  # fmt: skip
        return out

    def _by_fused(self, a: Any, out: Any) -> Any:
        call, factors = self._call, self._call.function.factors
        eps = float(np.finfo(a.real.dtype).eps)
        _, report, bad = _kernel(_ops.SMALL_ROOT, a)(
            a,
            *factors,
            self._table,
            eps**0.5,
            call.threads,
            out,
            self._report,  # type: ignore[misc]
        )
        status = report[:, 0].astype(int)
        hard = np.flatnonzero(status == _ops.HARD)
        if bad and len(hard):
            from linalgk.matfun._paths import solve

            part = solve(a[hard], call._replace(method="eigh", tol=None, steps=None))
            out[hard], status[hard] = part.x, part.status
        return status

    def _by_closed_form(self, a: Any, out: Any) -> Any:
        found = by_entries(a, self._call)
        out[...] = found.x
        return found.status

    def _by_eigh(self, a: Any, out: Any) -> Any:
        call = self._call
        # LAPACK reads one triangle: what stands in the other must be looked at here
        finite = np.isfinite(a.sum(axis=(1, 2)))
        if not finite.all():
            a[~finite] = self._identity
        threads = workers(a, call)
        if a.shape[-1] <= SMALL:
            w, v = _ops.EIGH(a, threads)
        else:
            with blas_for(a):
                w, v = _kernel(_ops.EIGH, a)(a, threads, self._vectors, self._pool)
        found = Decomposition(np.asarray(w, dtype=np.float64), v, np.zeros(len(w), int))
        status = assemble(a, found, call, out).status
        return np.where(finite, status, _ops.NONFINITE)

    def _by_minimax(self, a: Any, out: Any) -> Any:
        """A fixed number of products: no eigenvalues, no verdict but finiteness."""
        call = self._call
        factors = call.function.factors
        assert factors is not None
        whole, num, den = factors
        diagonal = np.einsum("bii->bi", a)
        if call.rel_damp is not None:
            diagonal[...] += (call.rel_damp * _largest(a)).astype(a.real.dtype)[:, None]
        # an upper bound of the largest eigenvalue, a power of 2^den so that scaling is exact
        bound = np.array([_norm_bound(member) for member in a], dtype=np.float64)
        exponent = -(-np.frexp(np.where(bound > 0, bound, 1.0) * 1.001)[1] // den)
        a *= np.ldexp(1.0, -den * exponent).astype(a.dtype)[:, None, None]
        start = a
        if not whole:
            start = self._start
            start[...] = self._identity
        with blas_for(a):
            _kernel(_ops.ROOT_ITERATION, a)(
                a, start, self._coeffs, num, den, workers(a, call), out, self._pool
            )
        out *= np.ldexp(1.0, (den * whole - num) * exponent).astype(a.dtype)[:, None, None]
        # a member whose sum is not finite holds NaN or infinity, or overflows
        finite = np.isfinite(out.sum(axis=(1, 2)))
        return np.where(finite, OK, _ops.NONFINITE)


def _norm_bound(a: Any) -> Any:
    """An upper bound of the spectral norm of one matrix, one matrix of memory at a time."""
    size = np.abs(a)
    return min(size.sum(axis=1).max(initial=0.0), np.linalg.norm(size))


def _largest(a: Any) -> Any:
    """Largest eigenvalue of each member, from below, by 20 Lanczos steps."""
    count, n, _ = a.shape
    steps = min(n, 20)
    # a start that no symmetry of the matrix makes orthogonal to the eigenvector
    start = np.cos(np.arange(n))[:, None] / np.linalg.norm(np.cos(np.arange(n)))
    basis = [np.broadcast_to(start, (count, n, 1)).astype(a.dtype)]
    small = np.zeros((count, steps, steps))
    for j in range(steps):
        x = a @ basis[j]
        for k, v in enumerate(basis):
            part = np.conj(v).swapaxes(1, 2) @ x
            x = x - v * part
            if k == j:
                small[:, j, j] = part[:, 0, 0].real
        size = np.linalg.norm(x, axis=1)[:, 0]
        if j + 1 < steps:
            small[:, j, j + 1] = small[:, j + 1, j] = size
            basis.append(x / np.where(size > 0, size, 1)[:, None, None].astype(x.real.dtype))
    found: Any = np.full(count, np.nan)
    good = np.isfinite(small).all(axis=(1, 2))
    found[good] = np.linalg.eigvalsh(small[good])[:, -1]
    return found


class _Generic:
    """Arrays of other libraries: the function itself, its options fixed."""

    workspace_nbytes = 0

    def __init__(self, call: Any) -> None:
        self._call = call
        self.status: Any = None

    def run(self, arrays: tuple[Any, ...], out: Any) -> Any:
        result, info = self._call(arrays[0], out)
        xp = _xp.namespace(info.converged)
        self.status = xp.astype(~info.converged, _xp.dtype_of(xp, "int64"))
        return result


def _kernel(op: Any, like: Any, symbol: str = "") -> Any:
    """An op's kernel for such arrays, or what lies beside it."""
    return op.choose(like)[0].load(symbol)


def build(
    name: str, function: Scalar, methods: tuple[str, ...], a: Any, options: dict[str, Any]
) -> tuple[Any, Explanation, Any]:
    """A worker for arrays like ``a``, what it does, and an output's kind."""
    options = dict(options)
    unknown = {"return_info", "out"} & set(options)
    if unknown:
        msg = f"{', '.join(sorted(unknown))}: not an option of a plan; give out= to the call"
        raise ValueError(msg)
    if options.get("assume_a") not in ("pos", "her"):
        msg = "assume_a: a plan sees no values: say 'pos' or 'her' (Hermitian matrices only)"
        raise ValueError(msg)
    policy = _validate.on_fail(options.get("on_fail"))
    n, batch = _validate.square("a", a), tuple(a.shape[:-2])
    dtype = _xp.dtype_name(_validate.floating("a", a))
    wanted = _validate.compute_dtype(options.get("compute_dtype"), dtype)
    call = _apply.checked(
        function, methods, options.get("assume_a"), options.get("method", "auto"),
        options.get("tol"), options.get("steps"), 0, options.get("rcond"), batch, n,
    )  # fmt: skip
    relative = _validate.per_member("rel_damp", options.get("rel_damp", 0), batch)
    if relative.any():
        call = call._replace(rel_damp=relative)
    spectrum = call.rel_damp is not None or call.rcond is not None
    method, reason = choose_method(function, n, dtype, hermitian=True, spectrum=spectrum)
    if call.method != "auto":
        method, reason = call.method, "it was asked for"
        if options.get("method", "auto") == "auto":
            reason = "tol or steps was given"
    numpy = type(a) is np.ndarray and dtype == wanted and a.dtype.name == dtype
    numpy &= _ops.EIGH.choose(a)[0] is not None if type(a) is np.ndarray else False
    if not numpy or method not in ("eigh", "minimax", "closed_form"):
        fixed = {k: v for k, v in options.items() if k != "on_fail"}

        def compute(x: Any, out: Any) -> Any:
            return _apply.apply(
                name, function, methods, x, **fixed, on_fail=policy, out=out, return_info=True
            )

        explanation = _apply.explain(name, function, methods, a, {**fixed, "on_fail": policy})
        same = dtype == wanted and _xp.dtype_name(a) == dtype
        if _xp.is_cuda(a) and same and math.prod(a.shape):

            def otherwise(x: Any, out: Any) -> Any:
                result, info = compute(x, out)
                return result, info.converged

            damp = _validate.per_member("damp", options.get("damp", 0), batch)
            return _device.DevicePlan(call, policy, damp, otherwise), explanation, a
        return _Generic(compute), explanation, a
    lanes = 2 * n if dtype in _xp.COMPLEX else n
    work = method
    if method == "minimax" and lanes <= SMALL and not spectrum:
        work = "fused"
    damp = _validate.per_member("damp", options.get("damp", 0), batch)
    worker = RootPlan(name, call, a, policy, damp, work)
    flat = a.reshape(math.prod(batch), n, n)
    return worker, _apply.cost(name, function, method, reason, flat, n, dtype), a
