"""`Masked` on a device: the same as on the host, in the device's arrays."""

import numpy as np
from directions import gaussian

import linalgk as lk


def kernel(p, ell):
    x = np.linspace(0, 1, p)
    return np.exp(-abs(x[:, None] - x) / ell)


def both(cuda, factors):
    mask = np.random.default_rng(0).random((6, 5)) < 0.7
    mine = lk.Kron(factors, assume_a="pos").masked(mask)
    there = [cuda.array(f) for f in factors]
    return mine, lk.Kron(there, assume_a="pos").masked(cuda.array(mask))


def test_products_and_solutions(cuda):
    want, A = both(cuda, [kernel(6, 0.5), kernel(5, 0.4)])
    b = gaussian((A.n, 2))
    there = cuda.array(b)
    for method in ("fill", "local"):
        x, info = A.solve(there, shift=0.1, method=method, return_info=True)
        assert type(x) is type(there)
        np.testing.assert_allclose(cuda.host(x), want.solve(b, shift=0.1), atol=1e-6)
        assert bool(cuda.host(info.converged))
    np.testing.assert_allclose(cuda.host(A @ there), want @ b, atol=1e-12)
    np.testing.assert_allclose(cuda.host(A.T @ there), want.T @ b, atol=1e-12)
    assert np.array_equal(cuda.host(A.embed(there)), want.embed(b))
    assert np.array_equal(cuda.host(A.restrict(A.embed(there))), b)
    np.testing.assert_allclose(cuda.host(A.toarray()), want.toarray())
    np.testing.assert_allclose(cuda.host(A.diagonal()), want.diagonal())


def test_determinants(cuda):
    """Exact blocks are factored on the host, random vectors are drawn there."""
    first = np.stack([kernel(6, 0.5), kernel(6, 0.2)])
    for factors in ([first[0], kernel(5, 0.4)], [first, kernel(5, 0.4)]):
        want, A = both(cuda, factors)
        for options in ({}, {"method": "slq", "tol": 0.05, "rng": 0}):
            found, wanted = A.logdet(shift=0.1, **options), want.logdet(shift=0.1, **options)
            assert type(found.value) is type(cuda.array(np.ones(1)))
            np.testing.assert_allclose(cuda.host(found.value), wanted.value, atol=1e-8)
            np.testing.assert_allclose(cuda.host(found.std_error), wanted.std_error, atol=1e-8)
            assert found.method == wanted.method
