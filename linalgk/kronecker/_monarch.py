"""Monarch matrices: block-diagonal times permutation times block-diagonal."""

import math
import sys
from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import Given, enter, finite_members, report
from linalgk._results import Info
from linalgk.errors import NonFiniteError
from linalgk.kronecker import _door, _monarch_steps
from linalgk.kronecker._linear import Linear, check_batch, check_sizes
from linalgk.kronecker._monarch_steps import Grid
from linalgk.typing import Array, OnFail

MonarchMethod: TypeAlias = Literal["auto", "gram", "svd"]
METHODS = get_args(MonarchMethod)


class Monarch(Linear):
    r"""Monarch matrix: two block-diagonal matrices with a permutation between them.

    Parameters
    ----------
    left : array, shape (..., h, s, r)
        Blocks of the second factor.
    right : array, shape (..., k, q, p)
        Blocks of the first factor, ``k q = h r``.
    shape : (int, int), optional
        ``(n_out, n_in)``, at most ``(s h, k p)``, which is the default: a vector is padded with
        zeros in front of the product, and cut off behind it.

    Attributes
    ----------
    left, right : array
    shape, batch, dtype : tuple of int, tuple of int, dtype

    See Also
    --------
    monarch_project : the nearest one.

    Notes
    -----
    ``y = M x`` is

    .. math:: z_{c q + d} = \sum_{j < p} \mathrm{right}_{c d j} \, x_{c p + j}, \qquad
              y_{i h + b} = \sum_{a < r} \mathrm{left}_{b i a} \, z_{a h + b} ,

    that is ``M = P L P' R`` with ``R = diag(right_0, right_1, ...)``, ``L = diag(left_0, ...)`` and
    permutations that read a vector by rows and write it by columns: P' an (r, h), P an (s, h) array
    [1]_. ``Monarch(w2, w1)`` is ``blockdiag_butterfly_multiply(x, w1, w2)`` of the authors' code.

    Where ``q = t h``, so that ``r = t k``, M is made of ``h k`` interleaved blocks (s, p) of rank
    t: entry ``(i h + b, c p + j)`` is ``sum_(e < t) left[b, i, c t + e] right[c, e h + b, j]``.

    A product with a vector takes ``2 (k q p + h s r)`` flops, about ``4 n^(3/2)`` for square blocks
    of order ``n^(1/2)``, and is two batched matrix products; the permutations are strides. The
    error is bounded by ``(p + r) eps |L| |R| |x|`` entry by entry.

    Tensors of PyTorch and arrays of JAX are differentiated through.

    References
    ----------
    .. [1] T. Dao, B. Chen, N. S. Sohoni, A. Desai, M. Poli, J. Grogan, A. Liu, A. Rao, A. Rudra,
       C. Re, "Monarch: expressive structured matrices for efficient and accurate training",
       ICML 2022, arXiv:2204.00595.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> m = lk.Monarch(rng.standard_normal((4, 3, 2)), rng.standard_normal((2, 4, 5)))
    >>> m.shape, (m @ np.ones(10)).shape
    ((12, 10), (12,))
    >>> bool(np.allclose(np.ones(12) @ m, m.toarray().sum(axis=0)))
    True
    """

    def __init__(self, left: Array, right: Array, *, shape: tuple[int, int] | None = None) -> None:
        self.left, self.right = _door.matrices("[left, right]", [left, right])
        self._turned = False
        self._cache: dict[Any, Any] = {}
        for name, x in (("left", self.left), ("right", self.right)):
            if x.ndim < 3:
                msg = f"{name}: must have shape (..., blocks, rows, columns), got {tuple(x.shape)}"
                raise ValueError(msg)
        if not _followed(self.left, self.right):
            _xp.same_family(left=self.left, right=self.right)
        (h, s, r), (k, q, p) = self._blocks
        if h * r != k * q:
            msg = (
                f"left, right: {k} blocks ({q}, {p}) of right make {k}*{q} = {k * q} numbers, and "
                f"{h} blocks ({s}, {r}) of left take {h}*{r} = {h * r}"
            )
            raise ValueError(msg)
        check_batch("right", tuple(self.left.shape[:-3]), tuple(self.right.shape[:-3]))
        self._shape = (s * h, k * p) if shape is None else _shape(shape, (s * h, k * p))
        _prepare_jax()

    @property
    def _blocks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        one, two = (tuple(int(n) for n in x.shape[-3:]) for x in (self.left, self.right))
        return one, two

    # --- What `Linear` asks ----------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return {"left": self.left, "right": self.right}

    def _mapped(self, f: Callable[[Any], Any]) -> Self:
        return self._with(f(self.left), f(self.right), self._turned)

    def _with(self, left: Any, right: Any, turned: bool) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(left=left, right=right, _turned=turned, _shape=self._shape, _cache={})
        return other

    @property
    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows, columns = self._shape[::-1] if self._turned else self._shape
        return (rows,), (columns,)

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch axes of the blocks together."""
        return np.broadcast_shapes(tuple(self.left.shape[:-3]), tuple(self.right.shape[:-3]))

    @property
    def T(self) -> Self:
        """The transpose."""
        return self._with(self.left, self.right, not self._turned)

    @property
    def H(self) -> Self:
        """The conjugate transpose."""
        turned = self.T
        if any(_xp.dtype_name(x) in _xp.COMPLEX for x in (self.left, self.right)):
            return turned._mapped(lambda x: _xp.namespace(x).conj(x))
        return turned

    def _multiplied(self, parts: tuple[Any, ...], x: Any, side: str) -> Any:
        left, right = parts
        turned = self._turned is (side == "left")
        if side == "left":
            return _monarch_steps.columns(left, right, x, self._shape, turned)
        return _monarch_steps.rows(left, right, x, self._shape, turned)

    def _dense(self, parts: tuple[Any, ...]) -> Any:
        xp, n = _xp.namespace(parts[0]), self.shape[1]
        eye = _xp.from_numpy(np.eye(n), xp, like=parts[0])
        return self._multiplied(parts, xp.astype(eye, parts[0].dtype), "left")

    def _product(self, x: Any, side: str) -> Any:
        if not _followed(self.left, self.right, x):
            return super()._product(x, side)
        left = side == "left"
        check_sizes("x", x, self._sizes[1 if left else 0], -2 if left else -1)
        xp = _xp.namespace(x)
        wide = xp.result_type(self.left, self.right, x)
        one, two, x = (xp.astype(y, wide, copy=False) for y in (self.left, self.right, x))
        if x.ndim > 1:
            return self._multiplied((one, two), x, side)
        y = self._multiplied((one, two), x[:, None] if left else x[None, :], side)
        return y[..., 0] if left else y[..., 0, :]

    def toarray(self) -> Any:
        """The matrix, shape (..., m, n)."""
        return (
            self._dense((self.left, self.right))
            if _followed(self.left, self.right)
            else (super().toarray())
        )

    def _options(self) -> tuple[Any, ...]:
        return self._shape, self._turned

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _prepare_jax()

    def __repr__(self) -> str:
        """The shape, and those of the blocks."""
        (h, s, r), (k, q, p) = self._blocks
        batch = f", batch={self.batch}" if self.batch else ""
        turned = ", transposed" if self._turned else ""
        return (
            f"Monarch({self.shape}, left={h} x ({s}, {r}), right={k} x ({q}, {p}){turned}{batch}, "
            f"dtype={self.dtype})"
        )


def _shape(shape: Any, most: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        msg = f"shape: must be (n_out, n_in), got {shape!r}"
        raise ValueError(msg)
    rows, columns = (_validate.integer(f"shape[{i}]", n, 0) for i, n in enumerate(shape))
    if rows > most[0] or columns > most[1]:
        msg = f"shape: must be at most {most}, what the blocks make, got {(rows, columns)}"
        raise ValueError(msg)
    return rows, columns


def _followed(*arrays: Any) -> bool:
    """Whether PyTorch or JAX has to see each step."""
    if any(_xp.is_traced(x) for x in arrays):
        return True
    torch = sys.modules.get("torch")
    if torch is None or not all(isinstance(x, torch.Tensor) for x in arrays):
        return False
    from linalgk.interop import _torch

    return _torch.wants(*arrays)


_known: set[Any] = set()


def _prepare_jax() -> None:
    """Let JAX, if it is there, take the blocks out and put them in again."""
    jax = sys.modules.get("jax")
    if jax is None or jax in _known:
        return
    _known.add(jax)

    def build(aux: Any, parts: Any) -> Monarch:
        m: Monarch = object.__new__(Monarch)
        m.left, m.right = parts
        m._shape, m._turned = aux
        m._cache = {}
        return m

    jax.tree_util.register_pytree_node(
        Monarch, lambda m: ((m.left, m.right), (m._shape, m._turned)), build
    )


def explain_monarch(left: Any, right: Any, *, shape: Any = None) -> Explanation:
    """What a product with one vector would cost."""
    m = Monarch(left, right, shape=shape)
    count, size = math.prod(m.batch), np.dtype(_xp.dtype_name(m.left)).itemsize
    entries = sum(math.prod(blocks) for blocks in m._blocks)
    flops = 2.0 * count * entries
    reason = "two batched products; the permutations are strides"
    moved = float(size * count * (entries + sum(m.shape)))
    return Explanation("Monarch", "blocks", reason, {}, flops, moved)


def sample_monarch(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Square blocks."""
    n = {"small": 3, "medium": 16, "large": 64}[size]
    rng = np.random.default_rng(rng)
    left, right = (xp.asarray(rng.standard_normal((n, n, n)) / n**0.5) for _ in range(2))
    return (left, right), {}


# --- Projection ----------------------------------------------------------------------------------


def monarch_project(
    a: Array,
    /,
    blocks: Any = None,
    rank: int = 1,
    *,
    method: MonarchMethod = "auto",
    check_finite: bool | None = None,
    on_fail: OnFail | None = None,
    return_info: bool = False,
) -> Any:
    r"""Nearest Monarch matrix in Frobenius norm.

    Parameters
    ----------
    a : array, shape (..., m, n)
        Real or complex, any batch shape and layout.
    blocks : int or (int, int), optional
        ``(h, k)``, numbers of blocks of ``left`` and of ``right``. Default: divisors of m and n
        within a factor of two of their square roots, else the square roots rounded up. Where h
        does not divide m, or k not n, the matrix is padded with zeros.
    rank : int
        Of each of the ``h k`` blocks ``(s, p) = (m/h, n/k)``, at most ``min(s, p)``.
    method : {"auto", "gram", "svd"}
        See Notes. ``auto`` is ``gram``.
    check_finite : bool, optional
        False: NaN and infinity give NaN in that member and no error.
    on_fail : {"raise", "warn", "nan"}, optional
        What members that are not finite do.
    return_info : bool
        Whether to return ``info``, too.

    Returns
    -------
    M : Monarch
        With ``left`` (..., h, s, k rank) and ``right`` (..., k, rank h, p), each column of
        a block as long as the row that it meets.
    info : Info
        Only with ``return_info=True``. ``residual`` is ``||a - M||_F / ||a||_F``, computed from all
        entries; ``error_estimate`` bounds what a better M of this kind could have less of it.
        ``method`` is ``"gram+svd"`` where blocks needed singular values.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError
        Members hold NaN or infinity.

    See Also
    --------
    nearest_kron : one Kronecker product for the whole matrix.

    Notes
    -----
    With ``a[i h + b, c p + j]`` as the entry (i, j) of block (b, c), M is Monarch with ``rank``
    terms if and only if all blocks have that rank, so that each block is truncated by itself
    [1]_: ``||a - M||^2 = sum_bc sum_(t > rank) s_t(block_bc)^2``.

    ``gram``: eigenvectors of ``B B^H`` on the smaller side of the blocks, in double precision on a
    CPU, then one power step with B: ``V = orth(B^H U)``, ``M = (B V) V^H``. That loses nothing
    where ``s_rank > (10^3 s eps)^(1/2) s_1``; other blocks are kept if what they leave is
    rounding, and done again by singular values if not. About ``m n min(s, p) + 9 h k min(s, p)^3``
    flops against some ``20 h k min(s, p)^3`` of ``svd``, at the speed of products.

    References
    ----------
    .. [1] T. Dao et al., "Monarch: expressive structured matrices for efficient and accurate
       training", ICML 2022, arXiv:2204.00595.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> dft = np.exp(-2j * np.pi * np.outer(np.arange(16), np.arange(16)) / 16)
    >>> m, info = lk.monarch_project(dft[:, np.arange(16).reshape(4, 4).T.ravel()], 4,
    ...                              return_info=True)
    >>> m.shape, m.left.shape, m.right.shape
    ((16, 16), (4, 4, 4), (4, 4, 4))
    >>> bool(info.residual < 1e-14)  # the first step of the fast Fourier transform
    True
    """
    _validate.choice("method", method, METHODS)
    rank = _validate.integer("rank", rank, 1)
    check, policy = _validate.check_finite(check_finite), _validate.on_fail(on_fail)
    with _lag.scope(a), _config.blas_threads():
        given = enter("monarch_project", a, host=True)
        grid = _grid(given.shape, blocks, rank)
        good, flat = finite_members(given)
        found = _monarch_steps.project(flat, grid, "svd" if method == "svd" else "gram")
        xp = _xp.namespace(flat)
        if not good.all():
            keep = _xp.from_numpy(np.where(good, 1.0, math.nan), xp, like=flat)
            keep = xp.astype(keep, found.left.dtype)[:, None, None, None]
            found = found._replace(left=found.left * keep, right=found.right * keep)
        left, right = (
            given.leave(xp.reshape(x, (*given.batch, *x.shape[1:])))
            for x in (found.left, found.right)
        )
        result = Monarch(left, right, shape=given.shape)
        info = _information(given, found, good)
        answer = (result, info) if return_info else result
        if check:
            msg = "monarch_project: a holds NaN or infinity{}; remove them, or pass on_fail='nan'"
            report(NonFiniteError, msg, ~good, given.batch, policy, answer)
        return answer


def _information(given: Given, found: _monarch_steps.Projected, good: Any) -> Info:
    xp, real = _xp.namespace(given.flat), _xp.REAL[given.dtype]

    def column(values: Any, dtype: str) -> Any:
        host = np.asarray(values, dtype).reshape(given.batch)
        return given.leave(_xp.from_numpy(host, xp, like=given.flat))

    return Info(
        method=found.method,
        iterations=column(np.zeros(len(good)), "int64"),
        converged=column(good, "bool"),
        residual=column(np.where(good, found.error, math.nan), real),
        error_estimate=column(np.where(good, found.excess, math.nan), real),
    )


def _grid(shape: tuple[int, int], blocks: Any, rank: int) -> Grid:
    """Numbers and sizes of blocks."""
    m, n = shape
    if blocks is None:
        h, k = (_near_root(size) for size in shape)
    elif isinstance(blocks, list | tuple):
        if len(blocks) != 2:
            msg = f"blocks: must be a number or (h, k), got {blocks!r}"
            raise ValueError(msg)
        h, k = (_validate.integer(f"blocks[{i}]", x, 1) for i, x in enumerate(blocks))
    else:
        h = k = _validate.integer("blocks", blocks, 1)
    for name, count, size in (("h", h, m), ("k", k, n)):
        if count > max(1, size):
            msg = f"blocks: {name} must be at most {size}, the size of a, got {count}"
            raise ValueError(msg)
    grid = Grid(h, k, -(-m // h), -(-n // k), rank)
    if rank > max(1, min(grid.s, grid.p)):
        msg = f"rank: must be at most min(s, p) = {min(grid.s, grid.p)} of the blocks, got {rank}"
        raise ValueError(msg)
    return grid


def _near_root(n: int) -> int:
    """A divisor within a factor of two of the square root, the nearest, or the root rounded up."""
    root = math.sqrt(n)
    fitting = [d for d in range(max(1, math.ceil(root / 2)), math.floor(2 * root) + 1) if not n % d]
    return min(fitting, key=lambda d: abs(math.log(d / root)), default=max(1, math.ceil(root)))


def explain_monarch_project(
    a: Any, /, blocks: Any = None, rank: int = 1, *, method: MonarchMethod = "auto", **_: Any
) -> Explanation:
    """What a call of monarch_project would run."""
    _validate.choice("method", method, METHODS)
    given = enter("monarch_project", a, host=True)
    grid = _grid(given.shape, blocks, _validate.integer("rank", rank, 1))
    count, small = math.prod(given.batch) * grid.h * grid.k, min(grid.s, grid.p)
    entries = float(count * grid.s * grid.p)
    if method == "svd":
        chosen, reason = "svd", "it was asked for"
        flops = 4.0 * entries * small + 22.0 * count * small**3
    else:
        chosen = "gram"
        reason = "eigenvectors of small Gram matrices take a fraction of singular values"
        flops = 2.0 * entries * small + 9.0 * count * small**3 + 6.0 * entries * rank
    moved = 3.0 * entries * np.dtype(given.dtype).itemsize
    return Explanation("monarch_project", chosen, reason, {}, flops, moved)


def sample_project(
    size: str, *, xp: Any = np, rng: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A square matrix."""
    n = {"small": 12, "medium": 256, "large": 4096}[size]
    return (xp.asarray(np.random.default_rng(rng).standard_normal((n, n))),), {}
