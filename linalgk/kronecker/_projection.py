"""Projections onto the rows of ``A (W kron I)``, kept while W changes by low rank."""

import math
import sys
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from linalgk import _config, _lag, _validate, _xp
from linalgk._dispatch import Explanation
from linalgk._members import adjoint
from linalgk.errors import (
    AsymmetricError,
    NonFiniteError,
    NotPositiveSemidefiniteError,
)
from linalgk.kronecker import _apply, _door
from linalgk.kronecker import _projection_steps as steps
from linalgk.typing import Array

ProjectionForm: TypeAlias = Literal["left", "root"]
FORMS = ("left", "root")
# Share of the rows that corrections may have before a new factorization costs less.
_SHARE = 0.5
# Steps of refinement, and by how much each has to help.
_STEPS, _HELP = 8, 0.5
# Changes that are aimed at, in units of rounding, and multiples of what rounding makes of them.
_AIM, _ENOUGH = 8.0, 16.0


class KronProjection:
    r"""Orthogonal projection onto the row space of ``B = A (W kron I)`` for a W that changes.

    Parameters
    ----------
    a : array, shape (m, n1 * n2)
        Real or complex, of full row rank; kept, not copied.
    w : array, shape (n1, k1)
        With ``form="root"`` Hermitian positive definite, ``n1 = k1 = n2``.
    form : {"left", "root"}
        ``B = A (W kron I)``, or ``B = A (W^(1/2) kron W^(1/2))``.
    refresh_every : int, optional
        Updates after which B is factored anew. Default: when the corrections have half as
        many columns as A has rows.
    tol : float, optional
        B is factored anew, too, where the correction turns out to be less accurate, in the measure
        of `drift`; default ``eps^(1/2)``, or what a new factorization is expected to have.

    Attributes
    ----------
    w : array, shape (n1, k1)
        As it is now.
    shape, dtype : tuple of int, dtype
        Of the projection: ``(k1 n2, k1 n2)``.
    drift : float
        Of the last product: relative error that it had in front of refinement.
    refreshes : int
        How often B was factored.
    pending : int
        Rank by which W has changed since.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or option that does not fit.
    NonFiniteError, SingularMatrixError
        An array holds NaN or infinity; the rows of B are dependent.
    AsymmetricError, NotPositiveSemidefiniteError
        With ``form="root"``, W is not Hermitian, or not positive definite.

    See Also
    --------
    linalgk.pinv, linalgk.lstsq : for one matrix.

    Notes
    -----
    ``P = B^H (B B^H)^-1 B``. A product takes ``4 m n1 n2`` flops with B by its factors and
    ``2 m^2`` for the solution, and as much again for each step of refinement, one as a rule.

    With ``W = W_0 + U V^H`` of rank r, let ``C = A (U kron I)`` and ``D = A (W_0 V kron I)``. Then
    [1]_

    .. math:: B B^H = B_0 B_0^H + \begin{pmatrix} C & D \end{pmatrix} \begin{pmatrix} V^H V \otimes
              I & I \\ I & 0 \end{pmatrix} \begin{pmatrix} C & D \end{pmatrix}^H ,

    a change of rank ``2 r n2``, and Woodbury's formula gives the inverse: ``4 m^2 r n2`` flops
    for what an update adds, against ``m^2 n1 n2 + m^3 / 3`` for a new factorization, as long as
    ``2 r n2 << m``. With ``form="root"`` the change of ``A (W kron W) A^H`` has rank ``2 r n2``
    as well. Updates are only written down; the next product does the work.

    Each product is refined with B itself, ``p <- p + B^H (B B^H)^-1 B (h - p)`` [2]_, which
    measures the error of what came before. As long as that converges the result is as accurate as
    that of a new factorization, ``||error|| <= c eps cond(B) ||h||``, however many updates there
    were. Where it does not, B is factored anew: by Cholesky of ``B B^H``, and by QR of ``B^H``
    where ``eps cond(B)^2 > 10^-3``, up to ``cond(B)`` near ``1/eps``.

    References
    ----------
    .. [1] B. Huang, S. Jiang, Z. Song, R. Tao, R. Zhang, "Solving SDP faster: a robust IPM
       framework and efficient implementation", arXiv:2101.08208: lazy updates of the
       inverse for ``A (W kron W) A^T``.
    .. [2] N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, SIAM, 2002, chapter 20:
       refinement of the normal equations.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> rng = np.random.default_rng(0)
    >>> a, w = rng.standard_normal((20, 48)), np.eye(8)
    >>> p = lk.KronProjection(a, w)
    >>> u, v, h = rng.standard_normal(8), rng.standard_normal(8), rng.standard_normal(48)
    >>> x = p.update(u, v) @ h
    >>> b = a @ np.kron(w + np.outer(u, v), np.eye(6))
    >>> bool(np.allclose(x, np.linalg.pinv(b) @ (b @ h)))
    True
    """

    __array_ufunc__ = None
    __array_priority__ = 1e6
    ndim = 2

    def __init__(
        self, a: Array, w: Array, /, *, form: ProjectionForm = "left",
        refresh_every: int | None = None, tol: float | None = None,
    ) -> None:  # fmt: skip
        _validate.choice("form", form, FORMS)
        self.form: str = form
        self.refresh_every = (
            None if refresh_every is None else _validate.integer("refresh_every", refresh_every, 1)
        )
        self.tol = None if tol is None else _validate.real_between("tol", tol, 0.0, 1.0)
        a, w = _xp.as_array("a", a), _xp.as_array("w", w)
        sizes = _sizes(tuple(a.shape), tuple(w.shape), form)
        self._a_like = a
        with _lag.scope(a), _config.blas_threads():
            _xp.same_family(a=a, w=w)
            entered = _door.enter({"a": _hosted(a), "w": _hosted(w)})
            if entered.dtype != entered.stored:
                msg = f"a: {entered.stored} is too coarse for a projection; convert with astype"
                raise TypeError(msg)
            xp = _xp.namespace(entered.arrays[0])
            for name, x in zip(("a", "w"), entered.arrays, strict=True):
                _check_finite(name, x)
            self._m, self._n1, self._n2, self._k1 = sizes
            self._a, self._dtype = entered.arrays[0], entered.dtype
            self._eps = float(np.finfo(self._dtype).eps)
            self._w = (
                _hermitian(xp, entered.arrays[1], self._eps)
                if form == "root"
                else (entered.arrays[1] * 1)
            )
            self._set(self._w)

    def _set(self, w: Any) -> None:
        """Begin with this W; nothing is factored yet."""
        self._w = w
        self._normal: steps.Normal | None = None
        # updates that the factorization does not know of yet, and the right sides of those it does
        self._new: list[tuple[Any, Any]] = []
        self._v: list[Any] = []
        self._root: Any = None
        self._count, self._factored = 0, 0
        self.refreshes, self.drift = 0, 0.0

    # --- Shape -----------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Of the projection."""
        n = self._k1 * self._n2
        return n, n

    @property
    def dtype(self) -> Any:
        """Of the projection."""
        xp = _xp.namespace(self._a)
        return self._leave(xp.reshape(self._a, (-1,))[:0]).dtype

    @property
    def w(self) -> Any:
        """W as it is now."""
        return self._leave(self._w * 1)

    @property
    def pending(self) -> int:
        """Rank of the change since B was factored."""
        known = 0 if self._normal is None else self._normal.rank
        return known + sum(int(u.shape[1]) for u, _ in self._new)

    @property
    def H(self) -> Self:
        """The same."""
        return self

    # --- Updates ---------------------------------------------------------------------------------

    def update(self, u: Array, v: Array | None = None, /) -> Self:
        """``W + u v^H`` takes the place of W.

        Parameters
        ----------
        u : array, shape (n1,) or (n1, r)
        v : array, shape (k1,) or (k1, r), optional
            Default u. With ``form="root"`` ``u v^H`` must be Hermitian.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A shape or dtype that does not fit; `NonFiniteError`, `AsymmetricError`.
        """
        own = {"u": u, "v": u if v is None else v}
        arrays = {name: _xp.as_array(name, x) for name, x in own.items()}
        columns = []
        for (name, x), size in zip(arrays.items(), (self._n1, self._k1), strict=True):
            if x.ndim not in (1, 2) or x.shape[0] != size:
                msg = f"{name}: must have shape ({size},) or ({size}, r), got {tuple(x.shape)}"
                raise ValueError(msg)
            columns.append(1 if x.ndim == 1 else int(x.shape[1]))
        if columns[0] != columns[1]:
            msg = f"v: must have the {columns[0]} columns of u, got {columns[1]}"
            raise ValueError(msg)
        u, v = self._entered(**arrays)
        for name, x in (("u", u), ("v", v)):
            _check_finite(name, x)
        xp = _xp.namespace(u)
        u, v = (xp.reshape(x, (x.shape[0], -1)) for x in (u, v))
        inner = v
        if self.form == "root":
            inner = _hermitian_partner(xp, u, v, self._eps)
            change = u @ inner @ adjoint(xp, u)
            w = self._w + 0.5 * (change + adjoint(xp, change))
        else:
            w = self._w + u @ adjoint(xp, v)
        self._w, self._root = w, None
        self._count += 1
        if columns[0]:
            self._new.append((u, inner))
        return self

    def refresh(self) -> Self:
        """Factor B as it is now."""
        with _lag.scope(self._a_like), _config.blas_threads():
            self._refresh("cholesky")
        return self

    # --- Products --------------------------------------------------------------------------------

    def apply(self, h: Array, /) -> Any:
        """``P h``.

        Parameters
        ----------
        h : array, shape (k1 n2,) or (k1 n2, c)

        Returns
        -------
        array, shape of ``h``

        Raises
        ------
        SingularMatrixError
            The rows of B are dependent to working precision.
        """
        h = _xp.as_array("h", h)
        n = self.shape[0]
        if h.ndim not in (1, 2) or h.shape[0] != n:
            msg = f"h: needs {self._k1}*{self._n2} = {n} rows, got shape {tuple(h.shape)}"
            raise ValueError(msg)
        with _lag.scope(h), _config.blas_threads():
            (x,) = self._entered(h=h)
            _check_finite("h", x)
            xp = _xp.namespace(x)
            flat = xp.reshape(x, (n, -1)) if math.prod(x.shape) else x
            if 0 in (self._m, *x.shape):
                return self._leave(xp.zeros_like(x))
            return self._leave(xp.reshape(self._projected(flat), tuple(x.shape)))

    def __matmul__(self, h: Any) -> Any:
        """``P h``."""
        if _xp.face(h) is None and not isinstance(h, list | tuple):
            return NotImplemented
        return self.apply(h)

    def __rmatmul__(self, h: Any) -> Any:
        """``h P`` for h (k1 n2,) or (c, k1 n2): P is its own adjoint."""
        if _xp.face(h) is None and not isinstance(h, list | tuple):
            return NotImplemented
        h = _xp.as_array("h", h)
        xp = _xp._compat("array_api_compat").array_namespace(h)
        turned = h if h.ndim == 1 else h.T
        y = self.apply(xp.conj(turned) if _xp.dtype_name(h) in _xp.COMPLEX else turned)
        y = xp.conj(y) if _xp.dtype_name(y) in _xp.COMPLEX else y
        return y if h.ndim == 1 else y.T

    def matmat(self, h: Any) -> Any:
        """``P h``."""
        return self.apply(h)

    matvec = rmatvec = rmatmat = matmat

    def toarray(self) -> Any:
        """The matrix."""
        xp = _xp.namespace(self._a)
        eye = _xp.from_numpy(np.eye(self.shape[0], dtype=self._dtype), xp, like=self._a)
        return self.apply(self._leave(eye))

    def to_scipy(self) -> Any:
        """The same as a `scipy.sparse.linalg.LinearOperator` of NumPy arrays."""
        from scipy.sparse.linalg import LinearOperator

        def product(h: Any) -> Any:
            xp = _xp.namespace(self._a)
            y = self.apply(self._leave(_xp.from_numpy(np.asarray(h), xp, like=self._a)))
            return np.asarray(_xp.to_numpy(y))

        dtype = np.dtype(self._dtype)
        return LinearOperator(
            self.shape, matvec=product, rmatvec=product, matmat=product, rmatmat=product,
            dtype=dtype,
        )  # fmt: skip

    # --- State -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What changes, as plain arrays."""
        return {"w": self.w}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; B is factored when it is needed."""
        (w,) = self._entered(w=_xp.as_array("w", state["w"]))
        if tuple(w.shape) != tuple(self._w.shape):
            msg = f"w: must have shape {tuple(self._w.shape)}, got {tuple(w.shape)}"
            raise ValueError(msg)
        self._set(w * 1)

    def __repr__(self) -> str:
        """Sizes, and how far B is from what was factored."""
        return (
            f"KronProjection({self.shape[0]} -> {self._m}, form={self.form!r}, "
            f"pending={self.pending}, dtype={self._dtype})"
        )

    # --- B and its factorization -----------------------------------------------------------------

    def _leave(self, x: Any) -> Any:
        face = _xp.face(self._a_like)
        assert face is not None
        if face.family == "jax" and isinstance(x, np.ndarray):
            return sys.modules["jax"].numpy.asarray(x)
        return face.leave(x, self._a_like)

    def _entered(self, **arrays: Any) -> list[Any]:
        """Arrays in the dtype of the projection."""
        _xp.same_family(a=self._a_like, **arrays)
        found = _door.enter({name: _hosted(x) for name, x in arrays.items()})
        if found.dtype in _xp.COMPLEX and self._dtype not in _xp.COMPLEX:
            names = ", ".join(arrays)
            msg = f"{names}: complex, but the projection is real; give a or w as complex"
            raise TypeError(msg)
        xp = _xp.namespace(self._a)
        kind = _xp.dtype_of(xp, self._dtype)
        return [x if x.dtype == kind else xp.astype(x, kind) for x in found.arrays]

    def _wide(self, h: Any) -> Any:
        """``B h`` for h (k1 n2, c)."""
        xp = _xp.namespace(h)
        if self.form == "root":
            root = self._rooted()
            return self._a @ _apply.multiply((root, root), h)
        c = h.shape[1]
        x = self._w @ xp.reshape(h, (self._k1, self._n2 * c))
        return self._a @ xp.reshape(x, (self._n1 * self._n2, c))

    def _back(self, y: Any) -> Any:
        """``B^H y`` for y (m, c)."""
        xp, c = _xp.namespace(y), y.shape[1]
        x = adjoint(xp, self._a) @ y
        if self.form == "root":
            root = self._rooted()
            return _apply.multiply((root, root), x)
        x = adjoint(xp, self._w) @ xp.reshape(x, (self._n1, self._n2 * c))
        return xp.reshape(x, (self._k1 * self._n2, c))

    def _rooted(self) -> Any:
        """``W^(1/2)``."""
        if self._root is None:
            xp = _xp.namespace(self._w)
            values, vectors = xp.linalg.eigh(self._w)
            least, top = (float(values[i]) for i in (0, -1)) if self._n1 else (1.0, 1.0)
            if not least > self._n1 * self._eps * top:
                msg = (
                    "w: must be positive definite for form='root', got eigenvalues from "
                    f"{least:.3g} to {top:.3g}"
                )
                raise NotPositiveSemidefiniteError(msg)
            half = vectors * xp.astype(xp.sqrt(values), vectors.dtype)[None, :]
            self._root = half @ adjoint(xp, vectors)
            self._root = 0.5 * (self._root + adjoint(xp, self._root))
        return self._root

    def _formed(self) -> Any:
        """B (m, k1 n2)."""
        xp = _xp.namespace(self._a)
        blocks = xp.reshape(self._a, (self._m, self._n1, self._n2))
        if self.form == "root":
            root = self._rooted()
            # vec(R)^T (S kron S) = vec(S^T R S)^T
            b = xp.matmul(xp.matmul(xp.matrix_transpose(root), blocks), root)
        else:
            b = xp.matmul(xp.matrix_transpose(self._w), blocks)
        return xp.reshape(b, (self._m, -1))

    def _refresh(self, method: str) -> None:
        self._normal = steps.Normal(self._formed(), self._w, method)
        self._new, self._v = [], []
        self._factored = self._count
        self.refreshes += 1

    def _ready(self) -> None:
        """A factorization, and a correction where W has changed since."""
        late = self.refresh_every is not None and self._count - self._factored >= self.refresh_every
        many = self.refresh_every is None and 2 * self.pending * self._n2 > _SHARE * self._m
        if self._normal is None or (self.pending and (late or many)):
            self._refresh("cholesky" if self._normal is None else self._normal.method)
        elif self._new:
            self._correct()

    def _correct(self) -> None:
        """Columns of F for what is new, and the small matrix for all."""
        assert self._normal is not None
        xp = _xp.namespace(self._a)
        blocks = xp.reshape(self._a, (self._m, self._n1, self._n2))
        for u, v in self._new:
            if self.form == "root":
                two = steps.mode_two(xp, blocks, u)
            else:
                two = steps.mode_one(xp, blocks, self._normal.w @ v)
            self._normal.extend(steps.mode_one(xp, blocks, u), two, u.shape[1])
            self._v.append(v)
        self._new = []
        if self.form == "root":
            self._normal.settle(steps.between_root(self._v, self._w, self._normal.w))
        else:
            v = self._v[0] if len(self._v) == 1 else xp.concat(self._v, axis=1)
            self._normal.settle(steps.between_left(v, self._n2))

    def _projected(self, h: Any) -> Any:
        """``P h``; B is factored anew where refinement fails."""
        self._ready()
        while True:
            assert self._normal is not None
            p, self.drift, sound = self._refined(self._normal, h)
            # of an ill-conditioned B a new factorization is no better
            tol = max(math.sqrt(self._eps), self._normal.loss) if self.tol is None else self.tol
            if sound and (self.drift <= tol or not self.pending):
                return p
            if self.pending:
                self._refresh(self._normal.method)
            elif self._normal.method == "cholesky":
                self._refresh("qr")
            else:
                raise steps.singular()

    def _refined(self, normal: steps.Normal, h: Any) -> tuple[Any, float, bool]:
        """``p <- p + B^H (B B^H)^-1 B (h - p)`` until that changes nothing.

        Second, what the second step changes relative to the first; third, whether all is well.
        """
        xp = _xp.namespace(h)
        p = self._back(normal.solve(self._wide(h)))
        first = last = steps.norm(xp, p)
        size = self._eps * steps.norm(xp, h)
        drift = 0.0
        for step in range(_STEPS):
            change = self._back(normal.solve(self._wide(h - p)))
            now = steps.norm(xp, change)
            if step == 0:
                drift = now / first if first > 0 else 0.0
            if not now <= _HELP * last:
                # what rounding makes of B (h - p), as far as the condition is known
                return p, drift, now <= _ENOUGH * normal.condition * size
            p, last = p + change, now
            # the next change is smaller by that much, and need not be looked at
            less = max(drift, 8 * normal.loss) if not self.pending else 1.0
            if less * now <= _AIM * size:
                break
        return p, drift, last <= _ENOUGH * normal.condition * size


# --- Small parts ---------------------------------------------------------------------------------


def _sizes(a: tuple[int, ...], w: tuple[int, ...], form: str) -> tuple[int, int, int, int]:
    if len(a) != 2 or len(w) != 2:
        msg = f"a, w: must have shapes (m, n1*n2) and (n1, k1), got {a} and {w}"
        raise ValueError(msg)
    (m, n), (n1, k1) = a, w
    if n1 == 0 or n % n1:
        msg = f"a: the {n} columns must be a multiple of n1 = {n1}, the rows of w"
        raise ValueError(msg)
    n2 = n // n1
    if form == "root" and not n1 == k1 == n2:
        msg = f"w: form='root' needs w (n, n) and n*n columns of a, got {w} and {n}"
        raise ValueError(msg)
    if m > k1 * n2:
        msg = f"a: {m} rows of B with {k1}*{n2} = {k1 * n2} entries are dependent; leave some out"
        raise ValueError(msg)
    return m, n1, n2, k1


def _hosted(x: Any) -> Any:
    """JAX's arrays of a CPU as NumPy's: it compiles anew for every number of corrections."""
    face = _xp.face(x)
    if face is None or face.family != "jax":
        return x
    if _xp.is_traced(x):
        msg = "KronProjection looks at values and cannot be traced; call it outside of jax.jit"
        raise TypeError(msg)
    return np.asarray(x) if all(d.platform == "cpu" for d in x.devices()) else x


def _check_finite(name: str, x: Any) -> None:
    xp = _xp.namespace(x)
    if not bool(xp.all(xp.isfinite(x))):
        msg = f"{name}: holds NaN or infinity"
        raise NonFiniteError(msg)


def _hermitian(xp: Any, w: Any, eps: float) -> Any:
    """W to the bit, if it is Hermitian but for carelessness."""
    rest = float(xp.max(xp.abs(w - adjoint(xp, w))))
    top = float(xp.max(xp.abs(w)))
    if rest > math.sqrt(eps) * top:
        msg = f"w: must be Hermitian for form='root', differs from w^H by {rest:.2g}"
        raise AsymmetricError(msg)
    return 0.5 * (w + adjoint(xp, w))


def _hermitian_partner(xp: Any, u: Any, v: Any, eps: float) -> Any:
    """The Hermitian Y with ``V = U Y``."""
    if not u.shape[1]:
        return xp.matmul(adjoint(xp, u), v)
    y = steps.partner(xp, u, v)
    rest = steps.norm(xp, (v - u @ y) @ adjoint(xp, u))
    if not rest <= math.sqrt(eps) * steps.norm(xp, u) * steps.norm(xp, v):
        msg = (
            "u, v: u v^H must be Hermitian for form='root'; give u only, or v = u Y with a "
            "Hermitian Y"
        )
        raise AsymmetricError(msg)
    return y


def explain_projection(
    a: Any, w: Any, /, *, form: ProjectionForm = "left", **_: Any
) -> Explanation:
    """What a product would cost, and what an update of rank one adds."""
    a, w = _xp.as_array("a", a), _xp.as_array("w", w)
    m, n1, n2, k1 = _sizes(tuple(a.shape), tuple(w.shape), form)
    update, anew = 8.0 * m * m * n2, float(m) * m * k1 * n2 + m**3 / 3
    reason = (
        f"a change of rank one is {2 * n2} columns of corrections, {update:.2g} flops against "
        f"{anew:.2g} for a new factorization"
    )
    flops = 8.0 * m * n1 * n2 + 4.0 * m * m
    moved = (4.0 * m * n1 * n2 + 2.0 * m * m) * np.dtype(_xp.dtype_name(a)).itemsize
    return Explanation("KronProjection", form, reason, {}, flops, moved)


def sample(size: str, *, xp: Any = np, rng: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A wide matrix and a well-conditioned weight."""
    m, n = {"small": (5, 4), "medium": (100, 20), "large": (800, 60)}[size]
    rng = np.random.default_rng(rng)
    a = rng.standard_normal((m, n * n)) / n
    w = np.eye(n) + 0.1 * rng.standard_normal((n, n)) / n**0.5
    return (xp.asarray(a), xp.asarray(w)), {}
