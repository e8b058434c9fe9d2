"""Calling the user's function: in blocks, in its library, counted, and with every value checked."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk.errors import NonFiniteError

# Points of one call, so that f's own temporary arrays stay small.
BLOCK = 1 << 18
# Points of a call to a library that compiles for each shape.
FEWEST = 1 << 11
# Relative difference of a value computed alone and among others that rounding explains.
SLACK = 1e-5


class Exhausted(Exception):
    """The next call would go over ``max_evaluations``."""


class Sampler:
    """Values (n,) of f / unit at points (d, n) of [-1, 1]^d, float64 or complex128 on the host.

    Attributes
    ----------
    evaluations : int
        Points at which f was called.
    scale : float
        The largest absolute value seen, at ``top`` (d,).
    unit : float
        A power of two, 1 until `normalize` makes it the size of f, so that no square of a value
        over- or underflows.
    eps : float
        Of the coarsest precision in which f answered.
    """

    def __init__(
        self, f: Callable[..., Any], domain: Sequence[tuple[float, float]], *, vectorized: bool,
        limit: int, xp: Any = None, device: Any = None,
    ) -> None:  # fmt: skip
        self.f, self.domain, self.vectorized = f, tuple(domain), vectorized
        self.limit, self.xp, self.device = limit, xp, device
        self.evaluations, self.scale, self.eps = 0, 0.0, float(np.finfo(np.float64).eps)
        self.top, self.unit = np.zeros(len(self.domain)), 1.0
        if vectorized:
            self._check_vectorized()

    @property
    def ndim(self) -> int:
        """Number of variables."""
        return len(self.domain)

    @property
    def left(self) -> int:
        """Evaluations that are still allowed."""
        return self.limit - self.evaluations

    def __call__(self, t: Any) -> Any:
        """Values at the columns of t."""
        found = [self._block(t[:, i : i + BLOCK]) for i in range(0, t.shape[1], BLOCK)]
        return np.concatenate(found) if len(found) != 1 else found[0]

    def grid(self, axes: Sequence[Any]) -> Any:
        """Values (n_1, ..., n_d) on a tensor grid."""
        shape = tuple(len(axis) for axis in axes)
        count = math.prod(shape)
        if count > self.left:
            raise Exhausted
        y = np.empty(count)
        for i in range(0, count, BLOCK):
            index = np.unravel_index(np.arange(i, min(i + BLOCK, count)), shape)
            found = self._block(np.stack([axis[j] for axis, j in zip(axes, index, strict=True)]))
            if found.dtype.kind == "c" and y.dtype.kind != "c":
                y = y.astype(np.complex128)
            y[i : i + BLOCK] = found
        return y.reshape(shape)

    def normalize(self) -> float:
        """Make ``scale`` a number between 1/2 and 1; the unit that values are in from now on."""
        if self.scale:
            self.unit = 2.0 ** min(max(math.frexp(self.scale)[1], -1000), 1000)
            self.scale /= self.unit
        return self.unit

    def at(self, t: Any) -> tuple[Any, ...]:
        """The points in the domain, the ends of it exactly."""
        found = []
        for row, (a, b) in zip(t, self.domain, strict=True):
            x = 0.5 * (a + b) + 0.5 * (b - a) * row
            found.append(np.clip(np.where(row == -1, a, np.where(row == 1, b, x)), a, b))
        return tuple(found)

    def _block(self, t: Any) -> Any:
        n = t.shape[1]
        if n > self.left:
            raise Exhausted
        self.evaluations += n
        x = self.at(t)
        if self.vectorized and getattr(self.xp, "__name__", "").startswith("jax"):
            # compiles f for every new shape: there are to be few of them
            wide = max(FEWEST, 1 << (n - 1).bit_length())
            y = self._host(self._called(tuple(np.pad(v, (0, wide - n), "edge") for v in x)), wide)
            y = y[:n]
        else:
            y = self._host(self._called(x), n)
        finite = np.isfinite(y)
        if not finite.all():
            first = int(np.argmin(finite))
            point = ", ".join(f"{float(row[first])!r}" for row in x)
            msg = f"f: returned {y[first]} at ({point}); it has to be finite all over the domain"
            raise NonFiniteError(msg)
        if self.unit != 1.0:
            y = y / self.unit
        if n:
            size = np.abs(y)
            best = int(np.argmax(size))
            if size[best] > self.scale:
                self.scale, self.top = float(size[best]), t[:, best].copy()
        return y

    def _called(self, x: tuple[Any, ...]) -> Any:
        if not self.vectorized:
            return np.array([self._number(self.f(*p)) for p in zip(*map(np.ndarray.tolist, x))])  # noqa: B905
        if self.xp is not None and self.xp is not np:
            wanted = _xp.dtype_of(self.xp, "float64")
            x = tuple(_xp.from_numpy(row, self.xp, device=self.device, dtype=wanted) for row in x)
        try:
            return self.f(*x)
        except Exception as error:
            error.add_note(
                f"chebtucker called f with {self.ndim} arrays of shape ({len(x[0])},); a function "
                "of single numbers needs vectorized=False"
            )
            raise

    @staticmethod
    def _number(y: Any) -> Any:
        y = _xp.to_numpy(y) if _xp.face(y) is not None else y
        if np.ndim(y) and np.size(y) == 1:
            y = np.asarray(y).reshape(())[()]
        if np.ndim(y):
            msg = f"f: must return one number for one point, got shape {np.shape(y)}"
            raise ValueError(msg)
        return y

    def _host(self, y: Any, n: int) -> Any:
        """float64 or complex128 (n,)."""
        face = _xp.face(y)
        y = np.asarray(_xp.to_numpy(face.enter(y)) if face is not None else y)
        if y.dtype.kind not in "biufc":
            msg = f"f: must return real or complex numbers, got dtype {y.dtype}"
            raise TypeError(msg)
        if y.shape not in ((), (n,)):
            msg = (
                f"f: must return an array of the shape of its arguments, ({n},), got {y.shape}; "
                "vectorized=False calls it with single numbers"
            )
            raise ValueError(msg)
        if y.dtype.kind in "fc" and y.shape:
            self.eps = max(self.eps, float(np.finfo(y.dtype).eps))
        y = y.astype(np.complex128 if y.dtype.kind == "c" else np.float64)
        return np.broadcast_to(y, (n,)) if y.shape == () else y

    def _check_vectorized(self) -> None:
        """Compare: f has to give a point the same value among others as alone."""
        d = self.ndim
        # of no symmetry, so that sums and extrema over the points differ from their values
        t = np.modf(np.outer(np.sqrt([2.0, 3.0, 5.0, 7.0][:d]), np.arange(1, 6)))[0] * 1.8 - 0.9
        together = self(t)
        alone = np.concatenate([self(t[:, i : i + 1]) for i in range(t.shape[1])])
        slack = max(SLACK, 1e3 * self.eps) * max(float(np.abs(alone).max()), 1e-300)
        wrong = np.abs(together - alone) > slack
        # a function that is not the same twice is noise, which the certificate will show
        if not wrong.any() or not np.allclose(self(t), together, rtol=0, atol=slack):
            return
        i = int(np.argmax(wrong))
        point = ", ".join(f"{float(row[i]):.6g}" for row in self.at(t))
        msg = (
            f"f: gives {together[i]:.6g} at ({point}) when called with 5 points at once and "
            f"{alone[i]:.6g} when called with this point alone: it mixes points; write it to act "
            "elementwise on arrays, or pass vectorized=False"
        )
        raise ValueError(msg)
