"""Inverse roots of a matrix that changes little by little."""

import math
from typing import Any

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk.matfun import _ops
from linalgk.matfun._apply import entered
from linalgk.matfun._paths import scan
from linalgk.matfun._report import finish
from linalgk.matfun._roots import inverse_root
from linalgk.matfun._spectral import (
    OK,
    Call,
    Decomposition,
    Result,
    assemble,
    blank,
    blas_for,
    decompose,
    frobenius,
    put,
    take,
    workers,
)


class InverseRoot:
    """``A^(-1/p)`` of positive definite matrices that change by a few per cent at a time.

    Parameters
    ----------
    p : int or Fraction
        Positive, as in `inv_root`.
    damp, rel_damp : float or array, shape (...)
        As in `invsqrtm`.

    Attributes
    ----------
    value : array, shape (..., n, n)
        The newest inverse root, None before the first update. Members that failed under
        ``on_fail="nan"`` or ``"warn"`` keep their last good one here.
    drift : array, shape (...)
        Certificate of `value`: ``||Z^p A - I|| / sqrt(n)`` in the Frobenius norm, with the newest
        damped A; computed when it is looked at (a few products).
    fresh : array of bool, shape (...)
        Members whose last update needed new eigenvectors.

    Notes
    -----
    The first update computes eigenvectors V, as `inv_root` does. Later ones look at the new matrix
    in that basis, where ``B = V^H A V`` is nearly diagonal: its p-th root is the first-order
    perturbation of the diagonal one (Daleckii and Krein), refined by Newton's iteration with the
    derivative frozen at the diagonal,

    ``Y_ij <- Y_ij + (B - Y^p)_ij / sum_m s_i^m s_j^(p-1-m)`` with ``s = diag(B)^(1/p)``,

    whose error falls by about the relative size of the change in each step, and
    ``Z = V Y^-1 V^H``. Close eigenvalues do no harm. One update costs about four products of order
    n (p = 2; one more for p = 4) against ten or more for new eigenvectors, and is at least as
    accurate. Where the change is so large that the steps would cost more than new eigenvectors (in
    single precision above about 5 to 10 per cent, in double precision 1 per cent), V is renewed,
    and after repeated misses the old V is not looked at every time.

    Pickles, copies and ``state_dict()`` hold plain arrays.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> a = lk.testing.spd_matrix(50, 1e3)
    >>> root = lk.InverseRoot(4)
    >>> z = root.update(a)
    >>> z = root.update(a + 1e-4 * np.diag(np.diag(a)))
    >>> bool(root.fresh), bool(root.drift < 1e-11)
    (False, True)
    """

    def __init__(self, p: Any, *, damp: Any = 0, rel_damp: Any = 0) -> None:
        self._function = inverse_root(p)
        self.p, self.damp, self.rel_damp = p, damp, rel_damp
        self.reset()

    def reset(self) -> None:
        """Forget everything but the options."""
        self._shape: tuple[int, ...] | None = None
        self._dtype = ""
        self._like: Any = None
        self._a: Any = None
        self._z: Any = None
        self._found: Decomposition | None = None
        self._good: Any = None
        self._fresh: Any = None
        # updates to go without looking at the old eigenvectors, and how many after the next miss
        self._wait, self._patience = 0, 1

    def update(self, a: Any, /) -> Any:
        """Return the inverse root of ``a``, shape (..., n, n), the same shape every time.

        Raises
        ------
        ValueError, TypeError
            As `inv_root`, and if the shape, dtype or library changed since the last update.
        NotPositiveSemidefiniteError, SingularMatrixError
            As `inv_root`. After an exception the state is what it was before.
        """
        original, face, x, _ = entered(a)
        n, batch = _validate.square("a", x), tuple(x.shape[:-2])
        dtype = _xp.dtype_name(x)
        if self._shape is not None:
            if tuple(x.shape) != self._shape or dtype != self._dtype:
                msg = (
                    f"a: must have shape {self._shape} and dtype {self._dtype} as before, got "
                    f"{tuple(x.shape)} and {dtype}; reset() starts anew"
                )
                raise ValueError(msg)
            _xp.same_family(a=original, value=self._like)
        xp, count = _xp.namespace(x), math.prod(batch)
        relative = _validate.per_member("rel_damp", self.rel_damp, batch)
        call = Call(
            self._function, "pos", "auto", None, None, relative if relative.any() else None, None,
            _config.num_threads(),
        )  # fmt: skip
        flat = xp.reshape(x, (count, n, n))
        flat = np.ascontiguousarray(flat) if isinstance(flat, np.ndarray) else flat
        absolute = _validate.per_member("damp", self.damp, batch)
        # a copy, because the caller may go on changing the matrix in place
        flat = flat + _shifts(absolute, flat) if absolute.any() else flat + 0
        if not math.prod(x.shape):
            return face.leave(x + 0, original)
        found, decomposition, fresh = self._solve(flat, call)
        good = found.status == OK
        result = face.leave(xp.reshape(found.x, tuple(x.shape)), original)
        check, policy = _validate.check_finite(None), _validate.on_fail(None)
        finish(
            "InverseRoot", self._function, flat, found, result, None, batch, check, policy
        )  # fmt: skip
        # nothing below can fail: the state changes as a whole or not at all
        if self._found is not None and not good.all():
            keep = np.flatnonzero(~good)
            old = self._found
            decomposition = Decomposition(
                np.where(good[:, None], decomposition.w, old.w),
                put(decomposition.v, keep, take(old.v, keep)),
                np.where(good, decomposition.shift, old.shift),
            )
            flat, z = (
                put(m, keep, take(o, keep)) for m, o in ((flat, self._a), (found.x, self._z))
            )
            good = good | self._good
        else:
            z = found.x
        self._a, self._z, self._found, self._good = flat, z, decomposition, good
        self._shape, self._dtype, self._like = tuple(x.shape), dtype, original
        tried = self._wait == 0 and self._fresh is not None
        self._fresh = fresh
        if not tried:
            self._wait = max(0, self._wait - 1)
        elif fresh.all() and len(fresh):
            self._wait, self._patience = self._patience, min(15, 2 * self._patience + 1)
        else:
            self._wait, self._patience = 0, 1
        return result

    def _solve(self, flat: Any, call: Call) -> tuple[Result, Decomposition, Any]:
        status, largest, _, exact = scan(flat, call)
        fresh: Any = np.ones(len(status), bool)
        if self._found is not None and self._wait == 0:
            fresh = np.asarray(~(self._good & (status == OK)))
        if not fresh.any() and len(status):
            z, y_ok = _refresh(flat, self._found, call, exact)  # type: ignore[arg-type]
            fresh = ~y_ok
            if not fresh.any():
                zeros = np.zeros(len(status), int)
                unknown = np.full(len(status), np.nan)
                return Result(z, status, zeros, unknown, "warm"), self._found, fresh  # type: ignore[return-value]
        elif not fresh.all():
            index = np.flatnonzero(~fresh)
            part = Decomposition(*(take(m, index) for m in self._found))  # type: ignore[union-attr]
            own = _for(call, index)
            some, y_ok = _refresh(take(flat, index), part, own, exact)
            z = put(_xp.namespace(flat).full_like(flat, float("nan")), index, some)
            fresh[index[~y_ok]] = True
        else:
            z = _xp.namespace(flat).full_like(flat, float("nan"))
        # the others from scratch
        index = np.flatnonzero(fresh & (status == OK))
        some = flat if len(index) == len(status) else take(flat, index)
        own = _for(call, index)
        new = decompose(some, largest[index], exact, own)
        part_result = assemble(some, new, own)
        if len(index) == len(status):
            return part_result, new, fresh
        n = flat.shape[-1]
        base = self._found
        if base is None:
            base = Decomposition(
                np.ones((len(status), n)), _ops.eye_like(flat) + 0 * flat,
                np.zeros(len(status), int),
            )  # fmt: skip
        w, shift = base.w.copy(), base.shift.copy()
        w[index], shift[index] = new.w, new.shift
        out_status = status.copy()
        out_status[index] = part_result.status
        z = put(z, index, part_result.x)
        zeros, unknown = np.zeros(len(status), int), np.full(len(status), np.nan)
        found = Result(z, out_status, zeros, unknown, "eigh")
        return found, Decomposition(w, put(base.v, index, new.v), shift), fresh

    @property
    def value(self) -> Any:
        """The newest inverse root."""
        return None if self._z is None else self._leave(self._z, self._shape)

    @property
    def fresh(self) -> Any:
        """Members whose last update needed new eigenvectors."""
        return None if self._fresh is None else self._leave_small(self._fresh)

    @property
    def drift(self) -> Any:
        """Certificate of `value`."""
        if self._z is None:
            return None
        p = 1 / -self._function.power
        product = None
        for factor, times in (
            (self._z, p.numerator // 2), (self._a, p.denominator),
            (self._z, p.numerator - p.numerator // 2),
        ):  # fmt: skip
            for _ in range(times):
                product = factor if product is None else product @ factor
        identity = _ops.eye_like(self._z)
        drift = frobenius(product - identity) / math.sqrt(max(1, self._z.shape[-1]))
        real = _xp.REAL[self._dtype]
        return self._leave_small(np.where(self._good, drift, np.nan).astype(real))

    def _leave(self, x: Any, shape: Any) -> Any:
        face = _xp.face(self._like)
        assert face is not None
        return face.leave(_xp.namespace(x).reshape(x, shape), self._like)

    def _leave_small(self, x: Any) -> Any:
        assert self._shape is not None
        like = self._z
        return self._leave(
            _xp.from_numpy(x, _xp.namespace(like), like=like), self._shape[:-2]
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Everything `load_state_dict` needs, as plain arrays and numbers."""
        state: dict[str, Any] = {"p": str(self._function.power and 1 / -self._function.power)}
        if self._found is not None:
            assert self._shape is not None
            w, v, shift = self._found
            state |= {
                "matrix": self._leave(self._a, self._shape),
                "value": self.value,
                "eigenvectors": self._leave(v, self._shape),
                "eigenvalues": np.ldexp(w, shift[:, None]).reshape(self._shape[:-1]),
                "good": self._good.reshape(self._shape[:-2]),
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        mine = str(1 / -self._function.power)
        if state.get("p") != mine:
            msg = f"state: is for p = {state.get('p')}, this object has p = {mine}"
            raise ValueError(msg)
        self.reset()
        if "matrix" not in state:
            return
        original, _, a, _ = entered(state["matrix"])
        _, _, z, _ = entered(state["value"])
        _, _, v, _ = entered(state["eigenvectors"])
        xp, shape = _xp.namespace(a), tuple(a.shape)
        n = _validate.square("matrix", a)
        count = math.prod(shape[:-2])
        for name, x in (("value", z), ("eigenvectors", v)):
            if tuple(x.shape) != shape:
                msg = f"state: {name} must have shape {shape}, got {tuple(x.shape)}"
                raise ValueError(msg)
        self._a, self._z, v = (xp.reshape(m, (count, n, n)) + 0 for m in (a, z, v))
        w = np.asarray(_xp.to_numpy(state["eigenvalues"]), dtype=np.float64).reshape(count, n)
        self._found = Decomposition(w, v, np.zeros(count, int))
        self._good = np.array(_xp.to_numpy(state["good"]), dtype=bool).reshape(count)
        self._fresh = np.zeros(count, bool)
        self._shape, self._dtype, self._like = shape, _xp.dtype_name(a), original

    def __getstate__(self) -> dict[str, Any]:
        """Options and `state_dict`."""
        return {
            "p": self.p, "damp": self.damp, "rel_damp": self.rel_damp, "state": self.state_dict()
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Inverse of pickling."""
        self.__init__(state["p"], damp=state["damp"], rel_damp=state["rel_damp"])  # type: ignore[misc]
        self.load_state_dict(state["state"])

    def __repr__(self) -> str:
        """Options and shape."""
        return (
            f"InverseRoot({self.p!r}, damp={self.damp!r}, rel_damp={self.rel_damp!r})"
            f" of shape {self._shape}"
        )


def _for(call: Call, index: Any) -> Call:
    return call if call.rel_damp is None else call._replace(rel_damp=call.rel_damp[index])


def _shifts(values: Any, like: Any) -> Any:
    shift = _xp.from_numpy(values, _xp.namespace(like), like=like, dtype=like.dtype)
    return shift[:, None, None] * _ops.eye_like(like)


def _refresh(flat: Any, old: Decomposition, call: Call, exact: bool) -> tuple[Any, Any]:
    """Inverse roots from nearby eigenvectors, and which members they served."""
    xp, n = _xp.namespace(flat), flat.shape[-1]
    p = 1 / -call.function.power
    real = np.dtype(_xp.REAL[_xp.dtype_name(flat)])
    eps = float(np.finfo(real).eps)
    a = flat if exact else 0.5 * (flat + _ops.adjoint(flat))
    threads = workers(flat, call)
    with blas_for(flat), np.errstate(all="ignore"):
        b = _ops.CONGRUENCE(a, old.v, threads)
        if call.rel_damp is not None:
            b = b + _shifts(call.rel_damp * _largest(b), b)
        diagonal = np.asarray(_xp.to_numpy(xp.linalg.diagonal(b)).real, dtype=np.float64)
        good = np.asarray((diagonal > 0).all(axis=1))
        diagonal = np.where(good[:, None], diagonal, 1.0)
        s = _xp.from_numpy(diagonal ** (1 / p.numerator), xp, like=b, dtype=real.name)
        y, size = _ops.CHORD(b, b[:0, ...], b[:0, ...], s, p.numerator, call.threads)
        # relative to the matrix: a change of Y in units of sqrt(s_i s_j), times p for that of B
        last = p.numerator * _host(size) / math.sqrt(n)
        condition = diagonal.max(axis=1) / diagonal.min(axis=1)
        # what new eigenvectors would leave is about eps kappa / p
        goal = np.maximum(4 * eps, eps * condition / (16 * p.numerator))
        steps = _steps(last, goal, p.numerator)
        good &= steps <= _affordable(p.numerator)
        pending = good.copy()
        for _ in range(int(steps[good].max(initial=0)) + 2):
            power = _power(y, p.numerator, threads)
            y, size = _ops.CHORD(b, y, power, s, p.numerator, call.threads)
            change = _host(size) / math.sqrt(n)
            rate = change / last
            pending &= ~(change * np.minimum(rate, 1.0) <= goal)
            stuck = pending & ~(rate < 0.5)
            good &= ~(stuck & ~(change <= eps * condition))
            pending &= good & ~stuck
            last = change
            if not pending.any():
                break
        good &= ~pending
        z = _ops.CONGRUENCE_INVERSE(old.v, _power(y, p.denominator, threads), threads)
        good &= np.isfinite(frobenius(z))
    return blank(z, ~good), good


def _steps(change: Any, goal: Any, p: int) -> Any:
    """Newton steps that a relative change of the matrix (root mean square) will take.

    Measured for p = 2 and 4 and conditions from 1e2 to 1e8: the first leaves a third of the
    square, each further one (0.5 + 0.37 p) times the change.
    """
    rate = np.minimum((0.5 + 0.37 * p) * change, 0.99)
    steps = np.ceil(np.log(goal / (0.35 * change**2)) / np.log(rate))
    return np.where(change > 0, np.where(np.isfinite(steps), np.maximum(steps, 1), 1e9), 1)


def _affordable(p: int) -> int:
    """Steps after which new eigenvectors would have been cheaper.

    In products of order n: 2.8 for the changes of basis, half of one for each squaring of a step
    and 0.15 for the rest of it, against 6.5.
    """
    return int((6.5 - 2.8) / (0.15 + 0.5 * math.ceil(math.log2(max(2, p)))))


def _power(y: Any, p: int, threads: int) -> Any:
    """``Y^p`` of Hermitian members; squares by one triangle."""
    result = None
    while True:
        if p & 1:
            result = y if result is None else result @ y
        p >>= 1
        if not p:
            return result
        y = _ops.HERMITIAN_SQUARE(y, threads)


def _host(x: Any) -> Any:
    return np.asarray(_xp.to_numpy(x), dtype=np.float64)


def _largest(b: Any) -> Any:
    """Largest eigenvalue of nearly diagonal members by a few steps of the power method."""
    xp = _xp.namespace(b)
    diagonal = np.asarray(_xp.to_numpy(xp.linalg.diagonal(b)).real, dtype=np.float64)
    start = np.zeros((*diagonal.shape, 1))
    start[np.arange(len(start)), diagonal.argmax(axis=1)] = 1.0
    x = _xp.from_numpy(start, xp, like=b, dtype=b.dtype)
    for _ in range(6):
        x = b @ x
        norm = xp.sqrt(xp.sum(xp.real(_ops.adjoint(x) @ x), axis=(-2, -1)))
        x = x / xp.astype(norm, x.dtype)[:, None, None]
    top = xp.real(_ops.adjoint(x) @ (b @ x))
    return np.maximum(np.asarray(_xp.to_numpy(top), dtype=np.float64)[:, 0, 0], 0.0)
