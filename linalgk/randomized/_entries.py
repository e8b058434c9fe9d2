"""Entries of a semidefinite matrix, however it is known: its diagonal, blocks and columns."""

from typing import Any

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import Given, adjoint, is_operator
from linalgk.randomized._matrix import Matrix, given, members

# Rows of the blocks by which the diagonal of a kernel is found.
_SIDE = 64


class Entries:
    """Entries of one matrix: its diagonal on the host, blocks and columns."""

    def __init__(self, matrix: Matrix, diagonal: Any) -> None:
        self.matrix, self.diagonal = matrix, diagonal

    def columns(self, index: Any) -> Any:
        """Columns (n, t) as an array of the library that computes; A is Hermitian."""
        if self.matrix.kind == "operator":
            return self.matrix.columns(index)
        # rows lie together
        return adjoint(self.matrix.xp, self.matrix.rows(index))

    def block(self, index: Any) -> Any:
        """The block (b, b), and the columns if they had to be found for it."""
        xp = self.matrix.xp
        if self.matrix.kind == "sparse":
            return self.matrix.a[index, :][:, index].toarray(), None
        if self.matrix.kind == "operator":
            columns = self.matrix.columns(index)
            where = _xp.from_numpy(index, xp, like=self.matrix.like)
            return xp.take(columns, where, axis=0), columns
        where = _xp.from_numpy(index, xp, like=self.matrix.like)
        return xp.take(xp.take(self.matrix.a, where, axis=0), where, axis=1), None


class _KernelEntries(Entries):
    """Entries by a function."""

    def __init__(self, function: Any, diagonal: Any, like: Any, leave: Any) -> None:
        self.function, self.leave = function, leave
        self.diagonal, n = diagonal, len(diagonal)
        shape = np.broadcast_to(np.empty((), _xp.dtype_name(like)), (n, n))
        self.matrix = Matrix(shape, "dense", _xp.dtype_name(like), like)

    def columns(self, index: Any) -> Any:
        return _called(self.function, np.arange(len(self.diagonal)), index, self.matrix.like)

    def block(self, index: Any) -> Any:
        return _called(self.function, index, index, self.matrix.like), None


def _called(function: Any, i: Any, j: Any, like: Any) -> Any:
    """A block of a kernel, checked."""
    found = function(i, j)
    if tuple(getattr(found, "shape", ())) != (len(i), len(j)):
        msg = (
            f"a: a(i, j) must return a block of shape ({len(i)}, {len(j)}) for that many indices, "
            f"got {getattr(found, 'shape', type(found).__name__)}"
        )
        raise ValueError(msg)
    found = _validate.floating("a", _in(found))
    if like is None or _xp.dtype_name(found) == _xp.dtype_name(like):
        return found
    if not np.can_cast(_xp.dtype_name(found), _xp.dtype_name(like), "same_kind"):
        msg = f"a: a(i, j) is {_xp.dtype_name(found)} after {_xp.dtype_name(like)}"
        raise TypeError(msg)
    xp = _xp.namespace(found)
    return xp.astype(found, _xp.dtype_of(xp, _xp.dtype_name(like)))


def _in(x: Any) -> Any:
    """An array as it is computed with: JAX's of a CPU as NumPy's."""
    face = _xp.face(x)
    if face is None:
        msg = f"a: a(i, j) must return an array, got {type(x).__name__}"
        raise TypeError(msg)
    if face.family == "jax" and all(d.platform == "cpu" for d in x.devices()):
        return np.asarray(x)
    return face.enter(x)


def entered(a: Any, diagonal: Any, n: Any) -> tuple[Given, list[Entries]]:
    """The argument, and where the entries of its members come from."""
    if callable(a) and _xp.face(a) is None and not is_operator(a):
        return _kernel(a, diagonal, n)
    found = given("rpcholesky", a)
    if n is not None and n != found.shape[0]:
        msg = f"n: is {n} and a has order {found.shape[0]}; leave it out"
        raise ValueError(msg)
    matrices = members(found)
    if diagonal is not None:
        given_diagonal = _diagonal(diagonal, found.shape[0])
        return found, [Entries(matrix, given_diagonal.copy()) for matrix in matrices]
    if found.operator:
        msg = (
            "diagonal: must be given for an operator, whose entries are not seen: "
            "diagonal=array or diagonal=f with f(i) -> entries"
        )
        raise ValueError(msg)
    sources = []
    for matrix in matrices:
        of = matrix.a.diagonal() if found.sparse else matrix.xp.linalg.diagonal(matrix.a)
        sources.append(Entries(matrix, real(of)))
    return found, sources


def _kernel(a: Any, diagonal: Any, n: Any) -> tuple[Given, list[Entries]]:
    if n is None and not hasattr(diagonal, "shape"):
        msg = "n: must be given for a kernel, unless diagonal= is an array"
        raise ValueError(msg)
    n = int(diagonal.shape[0]) if n is None else _validate.integer("n", n, 0)
    # what the kernel's blocks are made of
    first = np.arange(min(n, 1))
    corner = a(first, first)
    like = _called(lambda *_: corner, first, first, None)
    if diagonal is None:
        found = np.zeros(n)
        for at in range(0, n, _SIDE):
            index = np.arange(at, min(at + _SIDE, n))
            part = _called(a, index, index, like)
            found[index] = real(_xp.namespace(part).linalg.diagonal(part))
        diagonal = found
    entries = _diagonal(diagonal, n)
    face = _xp.face(corner)
    assert face is not None
    dtype = _xp.dtype_name(like)
    eps = float(np.finfo(dtype).eps)
    origin = Given(corner, face, like[None, :, :], (), (n, n), dtype, eps, False)
    line = _xp.namespace(like).reshape(like, (-1,))[:0]
    return origin, [_KernelEntries(a, entries, line, face)]


def _diagonal(x: Any, n: int) -> Any:
    """The diagonal as given, on the host."""
    x = x(np.arange(n)) if callable(x) and _xp.face(x) is None else x
    x = _xp.as_array("diagonal", x)
    if tuple(x.shape) != (n,):
        msg = f"diagonal: must have shape ({n},), got {tuple(x.shape)}"
        raise ValueError(msg)
    return real(_validate.floating("diagonal", _in(x)))


def real(x: Any) -> Any:
    """Real parts on the host, in double precision."""
    host = np.asarray(_xp.to_numpy(x))
    return host.real.astype(np.float64)
