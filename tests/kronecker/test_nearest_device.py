"""Nearest Kronecker products, Monarch matrices and projections on a device."""

import numpy as np
import pytest
from nearest import TWO, symmetric
from spectra import gaussian

from linalgk.kronecker._monarch import Monarch, monarch_project
from linalgk.kronecker._nearest import nearest_kron
from linalgk.kronecker._projection import KronProjection


def agree(cuda, found, want, tol=1e-10):
    assert type(found) is type(cuda.array(np.ones(1)))
    assert np.abs(cuda.host(found) - want).max() < tol * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("method", ["svd", "lanczos", "power"])
def test_nearest_products(cuda, method):
    for a in (gaussian((30, 30)), symmetric(30, "complex128")):
        mine, info = nearest_kron(a, TWO, method=method, return_info=True)
        k, same = nearest_kron(cuda.array(a), TWO, method=method, return_info=True)
        for f, g in zip(k.factors, mine.factors, strict=True):
            agree(cuda, f, g, 1e-7)
        agree(cuda, same.residual, info.residual)


def test_streams_and_several_factors(cuda):
    gradients = [gaussian((6, 5), seed=i) for i in range(5)]
    mine = nearest_kron(gradients, TWO)
    k = nearest_kron([cuda.array(g) for g in gradients], TWO)
    agree(cuda, k.factors[0], mine.factors[0])
    a = np.kron(np.kron(gaussian((2, 3)), gaussian((3, 2))), gaussian((5, 5)))
    k = nearest_kron(cuda.array(a), [(2, 3), (3, 2), (5, 5)])
    agree(cuda, k.toarray(), a)


def test_sparse_matrices_and_operators(cuda):
    a = gaussian((30, 30)) * (gaussian((30, 30), seed=1) > 1)
    mine = nearest_kron(a, TWO)
    for x in (cuda.csr(a), cuda.operator(a)):
        agree(cuda, nearest_kron(x, TWO).factors[0], mine.factors[0], 1e-7)


def test_monarch_matrices(cuda):
    a = gaussian((2, 12, 20))
    mine, info = monarch_project(a, (3, 5), 2, return_info=True)
    m, same = monarch_project(cuda.array(a), (3, 5), 2, return_info=True)
    agree(cuda, m.toarray(), mine.toarray())
    agree(cuda, same.residual, info.residual)
    agree(cuda, m @ cuda.array(a[0].T), mine @ a[0].T)
    left, right, x = gaussian((3, 4, 2)), gaussian((2, 3, 5)), gaussian((9, 3))
    m = Monarch(cuda.array(left), cuda.array(right), shape=(11, 9))
    agree(cuda, m @ cuda.array(x), Monarch(left, right, shape=(11, 9)) @ x)


@pytest.mark.parametrize("form", ["left", "root"])
def test_projections(cuda, form):
    a, w = gaussian((8, 16)), np.eye(4) + 0.1 * symmetric(4)
    p = KronProjection(cuda.array(a), cuda.array(w), form=form, refresh_every=1000)
    mine = KronProjection(a, w, form=form, refresh_every=1000)
    h = gaussian((16, 2))
    for seed in range(2):
        agree(cuda, p @ cuda.array(h), mine @ h)
        u = gaussian(4, seed=seed)
        p.update(cuda.array(u))
        mine.update(u)
    agree(cuda, p @ cuda.array(h), mine @ h)
    assert p.refreshes == mine.refreshes == 1
