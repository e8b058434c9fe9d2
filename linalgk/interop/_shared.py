"""What the faces share, in words that PyTorch and JAX both have."""

from typing import Any

from linalgk.matfun import _ops, _traced, invsqrtm, polar, powm, sqrtm


def largest(xp: Any, a: Any) -> Any:
    """The largest eigenvalue of Hermitian matrices, right to the second derivative.

    ``tr P A + tr P Y R Y`` with the projector P of trace one on its eigenvectors, ``Y = A - w I``
    and the pseudo-inverse R of -Y; that of a library has no second derivative where any two
    eigenvalues are equal.
    """
    fixed, n = _fixed(a), a.shape[-1]
    size = xp.sum(xp.abs(fixed), (-2, -1))
    usable = (size - size == 0)[..., None, None]
    w, v = xp.linalg.eigh(xp.where(usable, fixed, xp.zeros_like(fixed)))
    top, one = w[..., -1:], xp.ones_like(w)
    near = w >= top - n * float(xp.finfo(w.dtype).eps) * xp.abs(top)
    weights = near / xp.sum(near, -1)[..., None]
    inverse = xp.where(near, 0 * one, 1 / xp.where(near, one, top - w))
    adjoint = xp.conj(xp.swapaxes(v, -1, -2))
    p, r = ((v * x[..., None, :]) @ adjoint for x in (weights, inverse))
    y = a - top[..., None] * _ops.eye_like(a)
    first = xp.einsum("...ij,...ji->...", p, a)
    return xp.real(first + xp.einsum("...ij,...ji->...", p @ y, r @ y))


def composed(xp: Any, given: Any, value: Any, *, squared: bool, power: float) -> Any:
    """The distance of `bures_distance`, or its square, in the words that PyTorch and JAX share.

    ``tr A + tr B - 2 ||B^(1/2) A^(1/2)||_*`` cancels for matrices near each other; ``value``, if
    known, is the square as it should be. At distance zero, where it has none, the derivative of
    the distance is zero.
    """
    a, b, mean_a, mean_b, metric = given

    def moved(x: Any) -> Any:
        x = x if power == 1 else powm(x, power, assume_a="pos", on_fail="nan")
        if metric is None:
            return x
        root = invsqrtm(metric, assume_a="pos", on_fail="nan")
        return root @ x @ root

    def trace(x: Any) -> Any:
        return xp.real(xp.einsum("...ii->...", x))

    def kept(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
        """Zeros for members that are not finite, so that they take no part, and which are."""
        size = xp.sum(xp.abs(_fixed(x)), axes)
        good = size - size == 0
        return xp.where(good.reshape(*good.shape, *[1] * len(axes)), x, xp.zeros_like(x)), good

    (a, good), (b, good_b) = (kept(moved(x), (-2, -1)) for x in (a, b))
    roots = [kept(sqrtm(x, assume_a="pos", on_fail="nan"), (-2, -1)) for x in (b, a)]
    nuclear = trace(polar(roots[0][0] @ roots[1][0], on_fail="nan")[1])
    good = good & good_b & roots[0][1] & roots[1][1]
    square = (trace(a) + trace(b) - 2 * nuclear) / power**2
    if mean_a is not None:
        gap, good_mean = kept(mean_a - mean_b, (-1,))
        square, good = square + xp.sum(xp.real(gap * xp.conj(gap)), -1), good & good_mean
    if value is not None:
        square = value + (square - _fixed(square))
    positive = good & (square > 0)
    result = xp.where(positive, square, xp.zeros_like(square))
    if squared:
        result = xp.where(good, square, result) if value is not None else result
    else:
        # the root of zero has no derivative
        result = xp.where(
            positive, xp.sqrt(xp.where(positive, square, xp.ones_like(square))), result
        )
    return xp.where(good, result, xp.full_like(result, float("nan")))


def _fixed(x: Any) -> Any:
    """Without derivatives."""
    return x.detach() if hasattr(x, "detach") else _traced.fixed(x)
