"""Meta-factorization: a matrix from its columns C, rows R and the block W where they meet.

With ``C = A Q``, ``R = P^T A`` and ``W = P^T A Q`` the reconstruction ``C W^+ R`` is A if and only
if ``rank W = rank A``; generalized Nystrom (Q and P random), CUR (Q and P choose columns and rows)
and the {1,2}-inverse ``Q W^+ P^T`` are that one formula [1]_. Inverses of W are truncated, and
applied, not formed [2]_. All matrices here are single dense ones.

.. [1] M. P. Karpowicz, "A theory of meta-factorization", arXiv:2111.14385, 2021: reconstruction
   and projector equations.
.. [2] Y. Nakatsukasa, "Fast and stable randomized low-rank matrix approximation",
   arXiv:2009.11392, 2020: stabilised generalized Nystrom.
"""

from typing import Any

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.randomized import _factor


def generalized_nystrom(c: Any, w: Any, r: Any, cut: float) -> tuple[Any, Any]:
    """Factors left (m, k) and right (k, n) of ``C W^+ R``, stable where W is not.

    ``W = Q T`` gives ``(C T^-1)(Q^H R)``. Where singular values of W lie at or below ``cut`` times
    the largest, they are left out, and k is less. W is (s, k) with s >= k, or as well s < k.
    """
    if w.shape[0] < w.shape[1]:
        xp = _xp.namespace(w)
        other, block, first = (adjoint(xp, x) for x in (c, w, r))
        right, left = generalized_nystrom(first, block, other, cut)
        return adjoint(xp, left), adjoint(xp, right)
    xp = _xp.namespace(w)
    q, t = _factor.qr(w)
    if not min(w.shape):
        return c[:, :0], r[:0, :]
    s = _xp.to_numpy(_factor.svdvals(t))
    if s[-1] > cut * s[0]:
        return _factor.right_solve(c, t), adjoint(xp, q) @ r
    inverse = _factor.pseudoinverse(t, cut)
    return c @ inverse.left, inverse.right @ (adjoint(xp, q) @ r)


def reconstruct(c: Any, w: Any, r: Any, cut: float) -> Any:
    """``C W^+ R`` (m, n).

    Of a sketch Q (n, k), W and a sketch ``P^T`` (s, m) it is the {1,2}-inverse ``G = Q W^+ P^T``:
    ``G A G = G`` always, ``A G A = A`` where ``rank W = rank A``.
    """
    left, right = generalized_nystrom(c, w, r, cut)
    return left @ right


def cross_core(w: Any, cut: float) -> Any:
    """``W^+`` (k, s), dense: the core U of a CUR whose columns and rows meet in W."""
    inverse = _factor.pseudoinverse(w, cut)
    return inverse.left @ inverse.right


def projection_core(a: Any, c: Any, r: Any, cut: float) -> Any:
    """``C^+ A R^+`` (k, s), the best core in the Frobenius norm; reads the Matrix a once."""
    xp = a.xp
    inner, outer = _factor.pseudoinverse(c, cut), _factor.pseudoinverse(r, cut)
    # the side with fewer columns goes through A
    product = inner.right @ a.matmat(outer.left) if outer.rank <= inner.rank else (
        adjoint(xp, a.rmatmat(adjoint(xp, inner.right))) @ outer.left
    )  # fmt: skip
    return (inner.left @ product) @ outer.right


def project_columns(c: Any, cut: float) -> Any:
    """Orthonormal Q (m, k) of the column space of C: ``P = Q Q^H`` has P^2 = P and P C = C."""
    xp = _xp.namespace(c)
    return adjoint(xp, _factor.pseudoinverse(c, cut).right)


def project_rows(r: Any, cut: float) -> Any:
    """Orthonormal Q (n, k) of the row space of R: ``R Q Q^H = R``."""
    return project_columns(adjoint(_xp.namespace(r), r), cut)
