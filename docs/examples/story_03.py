"""Story 3: a JAX user under jit, vmap and grad."""

import jax
import jax.numpy as jnp

import linalgk as lk


@jax.jit
def whiten(x):  # (B, n, d)
    c = jnp.einsum("bni,bnj->bij", x, x) / x.shape[1]
    w, info = lk.invsqrtm(c, assume_a="pos", rel_damp=1e-5, return_info=True)
    return x @ w, info.converged


g = jax.grad(lambda x: whiten(x)[0].sum())(jnp.ones((4, 50, 3)))
q = jax.vmap(lambda c: lk.polar(c))(jnp.ones((7, 3, 3)))  # result tuple with .info
S = lk.sketch.SparseStack(256, 10_000, rng=0)  # built outside, closed over or passed: a pytree
f = jax.jit(lambda S, a: S @ a)
a = jnp.cos(jnp.arange(30_000.0)).reshape(10_000, 3)
print(g.shape, bool(jnp.isfinite(g).all()), q.U.shape, q.info.converged, f(S, a).shape)
