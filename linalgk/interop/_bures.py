"""The Bures-Wasserstein distance composed of functions that have derivatives."""

from typing import Any

from linalgk.matfun import invsqrtm, polar, powm, sqrtm


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

    a, b = moved(a), moved(b)
    roots = [sqrtm(x, assume_a="pos", on_fail="nan") for x in (b, a)]
    nuclear = trace(polar(roots[0] @ roots[1], on_fail="nan")[1])
    square = (trace(a) + trace(b) - 2 * nuclear) / power**2
    if mean_a is not None:
        square = square + xp.sum(xp.abs(mean_a - mean_b) ** 2, -1)
    if value is not None:
        square = value + (square - _fixed(square))
    positive = square > 0
    safe = xp.where(positive, square, xp.ones_like(square))
    if squared:
        return square if value is not None else xp.where(positive, square, 0 * square)
    return xp.where(positive | (square != square), xp.sqrt(safe), xp.zeros_like(square))


def _fixed(x: Any) -> Any:
    return x.detach()
