"""Derivatives of PyTorch against those of dense matrices and against differences."""

import numpy as np
import torch

gradcheck, gradgradcheck = torch.autograd.gradcheck, torch.autograd.gradgradcheck
forward_ad = torch.autograd.forward_ad
DOUBLE, COMPLEX = torch.float64, torch.complex128


def draw(*shape, dtype=DOUBLE, seed=0, grad=True):
    rng = np.random.default_rng([seed, *shape])
    z = rng.standard_normal(shape)
    z = z + 1j * rng.standard_normal(shape) if dtype.is_complex else z
    return torch.as_tensor(z, dtype=dtype).requires_grad_(grad)


def made(x, kind):
    """A factor of that kind, far from singular."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype)
    if kind == "pos":
        return x @ x.mH + eye
    return 0.5 * (x + x.mH) + 3 * eye if kind == "her" else x + 3 * eye


def dense(factors):
    k = torch.ones(1, 1, dtype=factors[0].dtype)
    for f in factors:
        big = k[..., :, None, :, None] * f[..., None, :, None, :]
        k = big.reshape(*big.shape[:-4], k.shape[-2] * f.shape[-2], k.shape[-1] * f.shape[-1])
    return k


def check(f, *inputs):
    """Both modes, and derivatives of derivatives, along a direction at random."""
    # defaults of gradcheck: central differences of step 1e-6, tolerances 1e-5 and 1e-3
    assert gradcheck(f, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(f, inputs, check_fwd_over_rev=True, fast_mode=True)


def derivatives(f, inputs, second):
    """Value, gradients, their gradients, and the derivative in a direction."""
    y = f(*inputs)
    g = draw(*y.shape, dtype=y.dtype, seed=9)
    first = torch.autograd.grad(y, inputs, g, create_graph=second)
    more = ()
    if second:
        # nonlinear, so that no term is lost in a sum
        total = sum((x.abs() ** 2).sum() for x in first)
        more = torch.autograd.grad(total, (*inputs, g))
    ways = tuple(draw(*x.shape, dtype=x.dtype, seed=8, grad=False) for x in inputs)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x.detach(), d) for x, d in zip(inputs, ways, strict=True)]
        along = forward_ad.unpack_dual(f(*duals)).tangent
    return y, *first, *more, along


def agree(f, want, *inputs, second=True):
    """With what PyTorch has for the dense matrices, whose condition is some tens."""
    pairs = zip(derivatives(f, inputs, second), derivatives(want, inputs, second), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
