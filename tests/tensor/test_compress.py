"""Coefficients with factors of any kind in orthonormal ones: errors, ranks, degrees."""

import numpy as np
import pytest

from linalgk.tensor._compress import compress, mixed_products

EPS = np.finfo(float).eps


def decaying(rng, sizes, ranks, kind):
    """Factors of columns that are neither orthonormal nor of one scale, and a core."""
    core = rng.standard_normal(ranks) * np.exp(-sum(np.indices(ranks)))
    if kind == "complex":
        core = core * (1 + 1j * rng.standard_normal(ranks))
    factors = [
        rng.standard_normal((m, r)) * np.exp(-np.arange(m))[:, None] * 10.0 ** rng.uniform(-6, 6, r)
        for m, r in zip(sizes, ranks, strict=True)
    ]
    return core, factors


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("sizes", [(30,), (20, 8), (12, 9, 5), (7, 6, 5, 4)])
@pytest.mark.parametrize("tol", [1e-3, 1e-11])
def test_errors_are_kept_and_told(rng, kind, sizes, tol):
    ranks = tuple(min(m, 4) + 1 for m in sizes)
    core, factors = decaying(rng, sizes, ranks, kind)
    whole = mixed_products(core, factors)
    size = np.linalg.norm(whole)
    found = compress(core, factors, tol=tol * size)
    again = mixed_products(found.core, found.factors)
    missing = np.pad(again, [(0, m - n) for m, n in zip(sizes, again.shape, strict=True)]) - whole
    # rounding of products of d factors
    rounding = 100 * len(sizes) * EPS * size
    # squares are known to eps of the whole where eigenvalues of a Gram matrix decide
    loose = size / max(found.error, tol * size) if tol == 1e-3 else 1.0
    assert abs(np.linalg.norm(missing) - found.error) <= rounding * loose
    assert found.error <= tol * size + rounding
    for f in found.factors:
        assert f.dtype == np.float64
        assert np.linalg.norm(f.T @ f - np.eye(f.shape[1])) <= 100 * EPS
    shape = found.core.shape
    planes = 2 if kind == "complex" else 1
    assert all(r * r <= planes * np.prod(shape) for r in shape)
    if tol == 1e-3 and len(sizes) < 4:
        # coefficients fall by e with each degree
        assert all(m <= n for m, n in zip(again.shape, sizes, strict=True))
        assert again.shape != sizes


def test_zero_and_nothing():
    found = compress(np.zeros((3, 2)), [np.ones((5, 3)), np.ones((4, 2))], tol=0.0)
    assert found.core.shape == (1, 1)
    assert found.error == 0
    found = compress(np.zeros((0, 0)), [np.ones((5, 0)), np.ones((4, 0))], tol=1.0)
    assert found.core.shape == (1, 1)
    assert [f.shape for f in found.factors] == [(5, 1), (4, 1)]
    found = compress(np.ones((1, 1)), [np.ones((5, 1)), np.ones((4, 1))], tol=0.0, trim=False)
    assert [f.shape for f in found.factors] == [(5, 1), (4, 1)]
