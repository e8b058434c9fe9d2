"""What estimates are: a value, its sampling error, and how sure both are."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import Given, report
from linalgk.errors import (
    AsymmetricError,
    NonFiniteError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
)
from linalgk.randomized._info import RandomInfo
from linalgk.randomized._matrix import Matrix
from linalgk.sketch import Philox

Probes: TypeAlias = Literal["sphere", "signs", "normal"]
# Streams of the seed.
PROBES, RESIDUAL, CHECK, DEFLATION = range(1, 5)


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate by random vectors; unpacks as ``value, std_error``.

    Attributes
    ----------
    value : scalar or array, shape (...) or (..., n)
        In the library of the matrix.
    std_error : scalar or array, shape of `value`
        Standard error of the mean of the estimates that single vectors give; infinite where there
        was one vector only, 0 of an exact result.
    enclosure : tuple of two arrays
        Where the value would be without errors of quadrature and of rounding: `value` is inside,
        and the width is what these two errors may be.
    bounds : tuple of two arrays, or None
        The same where it is proven: infinite on a side that no theorem bounds, None of a method
        without quadrature. Not about the sampling error.
    dof : float or array
        Degrees of freedom of Student's law, infinite of an exact result.
    n_matvecs : int or array of int
        Products of the matrix with one vector that were spent.
    info : RandomInfo
        ``iterations`` counts the steps of Lanczos' process, ``error_estimate`` is the relative
        standard error and ``residual`` the relative width of `enclosure`; ``converged`` says
        whether ``tol`` was met.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> t = lk.estimate_trace(np.diag(np.arange(100.0)), 40, rng=0)
    >>> low, high = t.interval(0.99)
    >>> bool(low <= 4950 <= high)
    True
    >>> float(t) == float(t.value)
    True
    """

    value: Any
    std_error: Any
    enclosure: tuple[Any, Any]
    bounds: tuple[Any, Any] | None
    dof: Any
    n_matvecs: Any
    info: RandomInfo

    @property
    def method(self) -> str:
        """The method that ran."""
        return self.info.method

    @property
    def converged(self) -> Any:
        """Whether the target was met; True where none was given."""
        return self.info.converged

    @property
    def seed(self) -> Any:
        """``rng=seed`` gives the same estimate."""
        return self.info.seed

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Interval that holds the true value with probability ``level``.

        Student's quantile times the standard error, on both sides of `enclosure`. The true values
        of an array are each in its interval with that probability. Of a complex value the corners
        of a square: real and imaginary part are each in it with that probability.

        Parameters
        ----------
        level : float
            Above 0 and below 1.

        Returns
        -------
        lower, upper : scalars or arrays, shape of `value`
        """
        quantile = student(check_level(level), self.dof)
        low, high = self.enclosure
        if not isinstance(quantile, float):
            xp = _xp.namespace(self.value)
            extra = self.value.ndim - quantile.ndim
            quantile = quantile.reshape(quantile.shape + (1,) * extra)
            real = _xp.REAL[_xp.dtype_name(self.value)]
            quantile = _xp.from_numpy(quantile.astype(real), xp, like=self.value)
        half = quantile * self.std_error
        if _xp.dtype_name(self.value) in _xp.COMPLEX:
            half = half * (1 + 1j)
        return low - half, high + half

    def __iter__(self) -> Iterator[Any]:
        """``value, std_error``."""
        return iter((self.value, self.std_error))

    def __float__(self) -> float:
        """The value, which is real."""
        if _xp.dtype_name(self.value) in _xp.COMPLEX:
            msg = "value: is complex; use complex(estimate)"
            raise TypeError(msg)
        return float(self.value)

    def __complex__(self) -> complex:
        """The value."""
        return complex(self.value)

    def __repr__(self) -> str:
        """The value with its standard error, or the shape."""
        if getattr(self.value, "ndim", 0):
            what = f"shape {tuple(self.value.shape)}"
        else:
            value = complex(self.value)
            shown = f"{value.real:.8g}" if value.imag == 0 else f"{value:.8g}"
            what = f"{shown} ± {float(self.std_error):.2g}"
        return f"Estimate({what}, method={self.method!r}, n_matvecs={self.n_matvecs})"


def check_level(level: Any) -> float:
    """A probability strictly between 0 and 1."""
    value = _validate.real_between("level", level, 0.0, 1.0)
    if value in (0.0, 1.0):
        msg = f"level: must satisfy 0 < level < 1, got {level!r}"
        raise ValueError(msg)
    return value


def student(level: float, dof: Any) -> Any:
    """Two-sided quantile of Student's law: a float, or an array for an array."""
    from scipy.special import stdtrit

    # without a degree of freedom the standard error is infinite already
    found = stdtrit(np.maximum(np.asarray(dof, np.float64), 1.0), 0.5 + 0.5 * level)
    return found if np.ndim(found) else float(found)


# --- Members -------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The estimate of one member; numbers on the host, or vectors of the library."""

    value: Any
    error: Any  # standard error
    dof: float
    low: Any  # enclosure
    high: Any
    products: int
    method: str
    steps: int = 0
    converged: bool = True
    sure: tuple[bool, bool] | None = None  # which ends are proven; None without quadrature
    passes: int = 0
    rank: int = 0
    stopped: bool = False  # by the callback, which is no failure


class BadMember(Exception):
    """What is wrong with one member."""

    def __init__(self, error: type[Any], sentence: str) -> None:
        super().__init__(sentence)
        self.error, self.sentence = error, sentence


def not_finite() -> BadMember:
    return BadMember(
        NonFiniteError, "a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
    )


def not_hermitian(defect: float) -> BadMember:
    return BadMember(
        AsymmetricError,
        f"a is not Hermitian: x^H A y and (y^H A x)^* differ by {defect:.1e} of their size for "
        "random x and y{}; symmetrise it with (a + a^H) / 2",
    )


def not_positive(why: str) -> BadMember:
    return BadMember(NotPositiveSemidefiniteError, why)


class Watch:
    """Callback and progress of a long call."""

    def __init__(self, function: str, callback: Any, progress: bool) -> None:
        if callback is not None and not callable(callback):
            msg = f"callback: must be callable, got {type(callback).__name__}"
            raise TypeError(msg)
        self.callback, self.rounds = callback, 0
        self.function, self.progress, self.bar = function, progress, None
        # where somebody imported it already
        tqdm = sys.modules.get("tqdm")
        if progress and tqdm is not None:
            self.bar = tqdm.tqdm(desc=function, unit=" products")

    def __call__(self, value: Any, error: Any, products: int) -> bool:
        """Whether to stop."""
        self.rounds += 1
        if self.bar is not None:
            self.bar.update(products - self.bar.n)
        elif self.progress:
            print(f"\r{self.function}: {products} products", end="", file=sys.stderr)
        if self.callback is None:
            return False
        try:
            return bool(self.callback(EstimateState(self.rounds, value, error, products)))
        except StopIteration:
            return True

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.progress and self.rounds:
            print(file=sys.stderr)


class EstimateState(NamedTuple):
    """What a callback sees after each round: numbers on the host, arrays of a diagonal."""

    iteration: int
    value: Any
    std_error: Any
    n_matvecs: int


def check_square(given: Given) -> int:
    """The order of the matrices."""
    m, n = given.shape
    if m != n:
        msg = f"a: must have shape (..., n, n), got {(*given.batch, m, n)}"
        raise ValueError(msg)
    return n


def check_tol(tol: Any, eps: float) -> float | None:
    """A relative target that the precision allows, or None."""
    if tol is None:
        return None
    value = _validate.real_between("tol", tol, 0.0, math.inf)
    least = 64 * eps
    if value < least:
        msg = f"tol: must be at least {least:.1e}, 64 eps of the dtype, got {value!r}"
        raise ValueError(msg)
    return value


def each(
    function: str, given: Given, matrices: list[Matrix], solve: Callable[[int, Matrix], Found],
    key: Any, *, shape: tuple[int, ...], real: bool, check: bool, policy: str, quadrature: bool,
    method: str,
) -> Estimate:  # fmt: skip
    """Estimates of all members, and what is to be said about bad ones."""
    found: list[Found | None] = []
    wrong: dict[type[Any], tuple[str, list[int]]] = {}
    for i, matrix in enumerate(matrices):
        try:
            found.append(solve(i, matrix))
        except BadMember as bad:
            found.append(None)
            if bad.error is not NonFiniteError or check:
                wrong.setdefault(bad.error, (bad.sentence, []))[1].append(i)
    unmet = [i for i, f in enumerate(found) if f is not None and not f.converged]
    late = [i for i in unmet if not found[i].stopped]  # type: ignore[union-attr]
    if late:
        first = found[late[0]]
        assert first is not None
        sentence = (
            f"the error is still above tol after {first.products} products"
            "{}; allow more by n_matvecs, or give a larger tol"
        )
        wrong[NotConvergedError] = (sentence, late)
        if policy == "nan":
            found = [None if i in late else f for i, f in enumerate(found)]
    answer = _gather(
        given, matrices, found, unmet, key, shape, real=real, quadrature=quadrature, method=method
    )
    for error, (sentence, index) in wrong.items():
        mask = np.zeros(len(found), bool)
        mask[index] = True
        report(error, f"{function}: {sentence}", mask, given.batch, policy, answer)
    return answer


def _gather(
    given: Given, matrices: list[Matrix], found: list[Found | None], unmet: list[int], key: Any,
    shape: tuple[int, ...], *, real: bool, quadrature: bool, method: str,
) -> Estimate:  # fmt: skip
    """One result of the members' results."""
    kind = _xp.REAL[given.dtype]
    first = next((f for f in found if f is not None), None)
    dtype = kind if real else given.dtype

    def column(values: list[Any], dtype: str, tail: tuple[int, ...] = ()) -> Any:
        shown = (*given.batch, *tail)
        like = matrices[0].like if matrices else None
        xp = _xp.namespace(like) if like is not None else np
        on_host = np.ndarray | np.generic | complex | float | int | bool
        if values and not isinstance(values[0], on_host):
            stacked = xp.astype(xp.stack(values), _xp.dtype_of(xp, dtype), copy=False)
            return given.leave(xp.reshape(stacked, shown))
        host = np.asarray(values, dtype).reshape(shown)
        if xp is np:
            return given.leave(host[()] if given.face.family == "numpy" else host)
        return given.leave(_xp.from_numpy(host, xp, like=like))

    def field(name: str) -> list[Any]:
        blank: Any = math.nan
        if shape and first is not None:
            model = getattr(first, name)
            blank = model * math.nan if getattr(model, "ndim", 0) else np.full(shape, math.nan)
        elif shape:
            blank = np.full(shape, math.nan)
        return [blank if f is None else getattr(f, name) for f in found]

    value = column(field("value"), dtype, shape)
    error = column(field("error"), kind, shape)
    low, high = column(field("low"), dtype, shape), column(field("high"), dtype, shape)
    bounds = None
    if quadrature:
        sure = [(True, True) if f is None or f.sure is None else f.sure for f in found]
        bounds = tuple(
            column(
                [x if s[side] else x * 0 + (-math.inf, math.inf)[side]
                 for x, s in zip(field(("low", "high")[side]), sure, strict=True)],
                dtype, shape,
            )
            for side in (0, 1)
        )  # fmt: skip
    dof = np.array([math.inf if f is None else f.dof for f in found]).reshape(given.batch)
    products = np.array([0 if f is None else f.products for f in found], np.int64)
    sizes = [0.0 if f is None else _size(f.value) for f in found]
    relative = [math.nan if f is None else _ratio(_size(f.error), s)
                for f, s in zip(found, sizes, strict=True)]  # fmt: skip
    width = [math.nan if f is None else _ratio(_size(f.high - f.low), s)
             for f, s in zip(found, sizes, strict=True)]  # fmt: skip
    good = [f is not None and i not in unmet for i, f in enumerate(found)]
    info = RandomInfo(
        method=method if first is None else first.method,
        iterations=column([0 if f is None else f.steps for f in found], "int64"),
        converged=column(good, "bool"),
        residual=column(width, kind),
        error_estimate=column(relative, kind),
        rank=column([0 if f is None else f.rank for f in found], "int64"),
        passes=max([0, *(f.passes for f in found if f is not None)]),
        seed=key,
    )
    return Estimate(
        value, error, (low, high), bounds,
        float(dof) if not given.batch else dof,
        int(products[0]) if not given.batch else products.reshape(given.batch), info,
    )  # fmt: skip


def _size(x: Any) -> float:
    """Absolute value, or the norm."""
    if not getattr(x, "ndim", 0):
        return abs(complex(x)) if isinstance(x, complex | np.complexfloating) else abs(float(x))
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(np.asarray(_xp.to_numpy(x))))


def _ratio(x: float, size: float) -> float:
    if x == 0:
        return 0.0
    return x / size if size > 0 else math.inf


# --- Probes --------------------------------------------------------------------------------------


def draw(a: Any, source: Philox, kind: Probes, start: int, stop: int) -> Any:
    """Probes ``start`` to ``stop`` as rows (k, n), each with E w w^H = I.

    A probe depends on its number only.
    """
    n, k = a.shape[0], stop - start
    real = _xp.REAL[a.dtype]
    if kind == "signs":
        rows = source.signs(n * k, start=n * start, dtype=real).reshape(k, n)
    elif a.is_complex:
        pairs = source.normal(2 * n * k, start=2 * n * start, dtype=real).reshape(k, n, 2)
        rows = (pairs[..., 0] + 1j * pairs[..., 1]) * np.sqrt(0.5)
    else:
        rows = source.normal(n * k, start=n * start, dtype=real).reshape(k, n)
    if kind == "sphere":
        norms = np.sqrt(np.sum(np.abs(rows) ** 2, axis=1, keepdims=True))
        rows = rows * (math.sqrt(n) / norms)
    return _xp.from_numpy(rows.astype(a.dtype, copy=False), a.xp, like=a.like)
