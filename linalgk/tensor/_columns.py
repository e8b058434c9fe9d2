"""Canonical and Tucker tensors of columns, as far as their interpolation needs them.

Columns are values or coefficients of functions in one variable; both formats answer the same
questions: entries, fibres, what a column is multiplied by, and real orthonormal bases.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from linalgk.tensor import _rhosvd
from linalgk.tensor._compress import mixed_products

# Columns that are worked on at a time.
BLOCK = 1 << 14
SWEEPS = 3


def largest(
    fibres: Callable[[int, Sequence[Any]], Any], starts: Sequence[Any]
) -> tuple[list[Any], float, int]:
    """Entries that no fibre through them exceeds, the largest of them, and how many were seen.

    ``fibres(k, index)`` gives those (n_k, s) of mode k through the entries ``index``; the search
    goes uphill from ``starts``, d vectors (s,).
    """
    found = [np.array(s) for s in starts]
    best, seen = 0.0, 0
    for _ in range(SWEEPS):
        for k in range(len(found)):
            size = np.abs(fibres(k, found))
            found[k] = np.argmax(size, axis=0)
            best, seen = max(best, float(size.max(initial=0.0))), seen + size.size
    return found, best, seen


class Dense(NamedTuple):
    """All entries."""

    values: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(self.values.shape)

    def fibres(self, k: int, index: Sequence[Any]) -> Any:
        """(n_k, s): those of mode k through these entries."""
        rest = tuple(i for j, i in enumerate(index) if j != k)
        return np.moveaxis(self.values, k, 0)[(slice(None), *rest)].reshape(self.shape[k], -1)


class Canonical(NamedTuple):
    """``sum_r w_r u_r x v_r x ...`` with factors (n_k, R)."""

    weights: Any
    factors: list[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(f.shape[0] for f in self.factors)

    def with_factors(self, factors: list[Any]) -> Self:
        """With other columns."""
        return self._replace(factors=factors)

    def fibres(self, k: int, index: Sequence[Any]) -> Any:
        """(n_k, s): those of mode k through these entries."""
        f = self.factors[k]
        return sum(f[:, b] @ self.others(k, index, b) for b in self._blocks())

    def terms(self, index: Sequence[Any]) -> float:
        """The largest sum of absolute terms on fibres of the first mode."""
        f = np.abs(self.factors[0])
        sums = sum(f[:, b] @ np.abs(self.others(0, index, b)) for b in self._blocks())
        return float(np.max(sums, initial=0.0))

    def others(self, k: int, index: Sequence[Any], block: slice = slice(None)) -> Any:
        """(R, s): what the columns of mode k are combined with for s fibres."""
        rows: Any = self.weights[block, None]
        for j, (f, i) in enumerate(zip(self.factors, index, strict=True)):
            rows = rows if j == k else rows * f[i, block].T
        return np.broadcast_to(rows, (rows.shape[0], len(index[0])))

    def reach(self, k: int) -> Any:
        """(R,): the most that each column of mode k is multiplied by."""
        rest = [np.abs(f).max(axis=0) for j, f in enumerate(self.factors) if j != k]
        return np.abs(self.weights) * np.prod(rest, axis=0)

    def multiplied(self) -> Any:
        """The full tensor."""
        return _rhosvd.project(self.weights, self.factors)

    def reduced(self, tol: float, scale: float) -> tuple[Any, list[Any], float]:
        """Core and real factors for coefficients of a function whose largest value is ``scale``.

        The Frobenius error is at most ``tol``: ``T_j`` of a nonconstant has the mean square 1/2,
        so that the norm of all coefficients is ``2^(d/2) scale`` at most.
        """
        size = 2 ** (0.5 * len(self.factors)) * scale
        found = _rhosvd.reduce(self._pieces, tol / size if size else 1.0)
        return *_real(found.core, found.factors), found.error

    def _pieces(self) -> Iterator[tuple[Any, list[Any]]]:
        for block in self._blocks():
            yield self.weights[block], [f[:, block] for f in self.factors]

    def _blocks(self) -> list[slice]:
        return [slice(i, i + BLOCK) for i in range(0, max(self.weights.size, 1), BLOCK)]


class Tucker(NamedTuple):
    """``core x_1 U_1 ... x_d U_d`` with factors (n_k, r_k) of any kind."""

    core: Any
    factors: list[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return tuple(f.shape[0] for f in self.factors)

    def with_factors(self, factors: list[Any]) -> Self:
        """With other columns."""
        return self._replace(factors=factors)

    def fibres(self, k: int, index: Sequence[Any]) -> Any:
        """(n_k, s): those of mode k through these entries."""
        return self.factors[k] @ self.others(k, index)

    def terms(self, index: Sequence[Any]) -> float:
        """The largest entry on fibres of the first mode: orthonormal columns cancel little."""
        return float(np.abs(self.fibres(0, index)).max(initial=0.0))

    def others(self, k: int, index: Sequence[Any]) -> Any:
        """(r_k, s): what the columns of mode k are combined with for s fibres."""
        rows = [f[i] for j, (f, i) in enumerate(zip(self.factors, index, strict=True)) if j != k]
        last = np.moveaxis(self.core, k, -1)
        if not rows:
            return np.repeat(last[:, None], len(index[0]), axis=1)
        return _contracted(last, rows).T

    def reach(self, k: int) -> Any:
        """(r_k,): the most that each column of mode k is multiplied by."""
        flat = np.moveaxis(self.core, k, 0).reshape(self.core.shape[k], -1)
        rest = [np.linalg.norm(f, axis=1).max() for j, f in enumerate(self.factors) if j != k]
        return np.linalg.norm(flat, axis=1) * math.prod(rest)

    def multiplied(self) -> Any:
        """The full tensor."""
        return mixed_products(self.core, self.factors)

    def reduced(self, tol: float, scale: float) -> tuple[Any, list[Any], float]:  # noqa: ARG002
        """Core and real factors; nothing is lost."""
        return *_real(self.core, self.factors), 0.0


def _real(core: Any, factors: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Complex factors in bases of their real and imaginary parts."""
    bases = []
    for k, f in enumerate(factors):
        if f.dtype.kind != "c":
            bases.append(f)
            continue
        q, _ = np.linalg.qr(np.concatenate([f.real, f.imag], axis=1))
        core = np.moveaxis(np.tensordot(q.T @ f, core, axes=(1, k)), 0, k)
        bases.append(q)
    return core, bases


def _contracted(core: Any, rows: Sequence[Any]) -> Any:
    """(p, what is left of the core after its first modes)."""
    total = rows[0] @ core.reshape(core.shape[0], -1)
    for row in rows[1:]:
        p, r = row.shape
        total = (row[:, None, :] @ total.reshape(p, r, -1)).reshape(p, -1)
    return total
