"""The fast differentiable square root of Song, Sebe and Wang [1]_, [2]_, from their formulas.

``A / ||A||_F = I - Z`` has eigenvalues in (0, 1], where a polynomial (MTP) or a quotient of two
(MPA) stands for ``(1 - z)^(1/2)``; the factor ``||A||_F^(1/2)`` makes up for the scale afterwards.
The gradient solves ``X S + S X = G`` by a fixed number of Newton-Schulz steps for a matrix sign.
Written to be as fast as the formulas allow: polynomials by Paterson and Stockmeyer, five products
for degree ten where Horner's rule takes nine, and sums fused into the products.

.. [1] Y. Song, N. Sebe, W. Wang, "Fast Differentiable Matrix Square Root", ICLR 2022.
.. [2] Y. Song, N. Sebe, W. Wang, "Fast Differentiable Matrix Square Root and Inverse Square Root",
   IEEE TPAMI 45 (2023), arXiv:2201.12543.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

# What the papers use throughout.
DEGREE, ORDER, STEPS = 10, 5, 8


def taylor_coefficients(degree: int, inverse: bool = False) -> list[Fraction]:
    """Of ``(1 - z)^(1/2)``, or of ``(1 - z)^(-1/2)``, from the constant on."""
    power, coeffs = Fraction(-1 if inverse else 1, 2), [Fraction(1)]
    for k in range(degree):
        coeffs.append(coeffs[-1] * (k - power) / (k + 1))
    return coeffs


def pade_coefficients(order: int) -> tuple[list[Fraction], list[Fraction]]:
    """Numerator and denominator of the diagonal Pade approximant of ``(1 - z)^(1/2)``.

    With x = 1 - z and s = x^(1/2), ``(1 + s)^(2m+1) = E(x) + s O(x)`` gives ``s ~ E/O``, because
    ``(1 - s)^(2m+1) = E - s O`` vanishes at z = 0 to the order 2m + 1.
    """
    n = 2 * order + 1
    even = [Fraction(math.comb(n, 2 * k)) for k in range(order + 1)]
    odd = [Fraction(math.comb(n, 2 * k + 1)) for k in range(order + 1)]
    return _shifted(even), _shifted(odd)


def _shifted(coeffs: Sequence[Fraction]) -> list[Fraction]:
    """The polynomial of x in powers of z = 1 - x, divided by its value at z = 0."""
    out = [
        sum((c * math.comb(k, j) * (-1) ** j for k, c in enumerate(coeffs)), Fraction(0))
        for j in range(len(coeffs))
    ]
    return [c / out[0] for c in out]


def scalar_error(x: Any, method: str) -> Any:
    """Relative error of the root of an eigenvalue that is x times the Frobenius norm."""
    x = np.asarray(x, float)
    if method == "MTP":
        value = _value(taylor_coefficients(DEGREE), 1 - x)
    else:
        p, q = pade_coefficients(ORDER)
        value = _value(p, 1 - x) / _value(q, 1 - x)
    return np.abs(value / np.sqrt(x) - 1)


def _value(coeffs: Sequence[Fraction], z: Any) -> Any:
    return np.polynomial.polynomial.polyval(z, [float(c) for c in coeffs])


class Methods(NamedTuple):
    """``root(a, "MTP" | "MPA", inverse=, size=, steps=)`` and its parts, for torch tensors."""

    root: Any
    forward: Any
    lyapunov: Any
    newton_schulz: Any


@functools.cache
def methods() -> Methods:
    """Made at the first call, because classes of PyTorch need PyTorch."""
    import torch

    def norm_of(x: Any) -> Any:
        # of each member: a norm of the whole batch would leave too few steps for all of them
        return torch.linalg.matrix_norm(x, keepdim=True)

    def forward(a: Any, method: str, inverse: bool = False, size: int | None = None) -> Any:
        norm = norm_of(a)
        z = a / -norm
        z.diagonal(dim1=-2, dim2=-1).add_(1)
        if method == "MTP":
            x = _polynomials(z, taylor_coefficients(size or DEGREE, inverse))[0]
        else:
            p, q = _polynomials(z, *pade_coefficients(size or ORDER))
            x = torch.linalg.solve(p, q) if inverse else torch.linalg.solve(q, p)
        return x.div_(norm.sqrt_()) if inverse else x.mul_(norm.sqrt_())

    def lyapunov(root: Any, g: Any, steps: int) -> Any:
        """``S`` of ``X S + S X = G`` as half the corner that the sign of [[X, G], [0, -X]] has."""
        scale = 1 / norm_of(root)
        b, c = root * scale, g * scale
        eye = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device).expand_as(b)
        for k in range(steps):
            t = torch.baddbmm(eye, b, b, beta=1.5, alpha=-0.5)
            inner = torch.baddbmm(torch.bmm(c, b), b, c, alpha=-1)
            c = torch.baddbmm(torch.bmm(c, t), b, inner, alpha=0.5)
            b = b if k == steps - 1 else torch.bmm(b, t)
        return c.mul_(0.5)

    class Root(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, a: Any, method: str, inverse: bool, size: int | None, steps: int
        ) -> Any:
            flat = a.reshape(-1, *a.shape[-2:])
            x = forward(flat, method, inverse, size)
            ctx.save_for_backward(x)
            ctx.inverse, ctx.steps = inverse, steps
            return x.reshape(a.shape)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            flat = g.reshape(x.shape)
            if ctx.inverse:
                square = torch.bmm(x, x)
                flat = -torch.bmm(square, torch.bmm(flat, square))
            return lyapunov(x, flat, ctx.steps).reshape(g.shape), None, None, None, None

    def root(
        a: Any, method: str, inverse: bool = False, size: int | None = None, steps: int = STEPS
    ) -> Any:
        return Root.apply(a, method, inverse, size, steps)  # type: ignore[no-untyped-call]

    def newton_schulz(a: Any, steps: int = 5, scale: str = "frobenius") -> Any:
        """The coupled iteration that the papers compare with; autograd goes through its steps."""
        if scale == "trace":
            norm = a.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        else:
            norm = norm_of(a)
        y = a / norm
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        z = None
        for _ in range(steps):
            t = 1.5 * eye - 0.5 * (y if z is None else z @ y)
            y, z = y @ t, (t if z is None else t @ z)
        return y * norm.sqrt()

    return Methods(root, forward, lyapunov, newton_schulz)


def _polynomials(z: Any, *coefficients: Sequence[Fraction]) -> list[Any]:
    """Polynomials of each matrix, by blocks in powers that all of them share."""
    import torch

    width = round(math.sqrt(max(1, (len(coefficients[0]) - 1) * len(coefficients))))
    powers = [z]
    while len(powers) < width:
        powers.append(torch.bmm(powers[-1], z))

    def block(coeffs: Sequence[float]) -> Any:
        x = powers[0] * coeffs[1] if len(coeffs) > 1 else torch.zeros_like(z)
        for power, c in zip(powers[1:], coeffs[2:], strict=False):
            x.add_(power, alpha=c)
        x.diagonal(dim1=-2, dim2=-1).add_(coeffs[0])
        return x

    found = []
    for exact in coefficients:
        coeffs = [float(c) for c in exact]
        blocks = [block(coeffs[k : k + width]) for k in range(0, len(coeffs), width)]
        total = blocks.pop()
        while blocks:
            total = torch.baddbmm(blocks.pop(), total, powers[width - 1])
        found.append(total)
    return found
