"""Story 5: a quantum chemist: a function of three variables, its integrals and derivatives."""

import warnings

import numpy as np

import linalgk as lk

warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    rho = lk.chebtucker(
        lambda x, y, z: np.exp(-2 * np.hypot(np.hypot(x, y), z - 0.7)), [(-6, 6)] * 3, tol=1e-8
    )
print(rho)  # domain, degrees, ranks, certified error
q = rho.integrate()  # float
line = rho.integrate(axis=(0, 1))  # ChebTucker in z
pts = np.random.default_rng(0).uniform(-6, 6, (1000, 3))
fx = rho.diff(0, order=2)(*pts.T)  # axis, order
xs, ys, zs = (np.linspace(-6, 6, n) for n in (40, 50, 60))
grid = rho.on_grid(xs, ys, zs)  # tensor grid by mode products
if not rho.converged:
    print(rho.error)  # cusp: a warned object that knows its true error
w, a = lk.gaussian_sum("newton", 1e-3, 20.0, 1e-10)  # weights, exponents

print(caught[0].category.__name__, caught[0].message)
print(f"integral {q:.8f}, of the whole space {np.pi:.8f}")
print(f"density of the plane z = 0.7: {line(0.7):.6f}")
