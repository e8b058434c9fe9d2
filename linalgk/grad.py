"""Derivatives of functions: ``<function>_jvp`` forward, ``<function>_vjp`` backward.

PyTorch and JAX find them by themselves: ``linalgk.sqrtm(t).sum().backward()`` works.
"""

from linalgk.kronecker._derivative import kron_matmul_jvp, kron_matmul_vjp
from linalgk.matfun._grad import (
    inv_root_jvp,
    inv_root_vjp,
    invsqrtm_jvp,
    invsqrtm_vjp,
    logm_jvp,
    logm_vjp,
    polar_jvp,
    polar_vjp,
    solve_lyapunov_jvp,
    solve_lyapunov_vjp,
    sqrtm_jvp,
    sqrtm_vjp,
)
from linalgk.matfun._pairs import Derivative

__all__ = [
    "Derivative",
    "inv_root_jvp",
    "inv_root_vjp",
    "invsqrtm_jvp",
    "invsqrtm_vjp",
    "kron_matmul_jvp",
    "kron_matmul_vjp",
    "logm_jvp",
    "logm_vjp",
    "polar_jvp",
    "polar_vjp",
    "solve_lyapunov_jvp",
    "solve_lyapunov_vjp",
    "sqrtm_jvp",
    "sqrtm_vjp",
]
