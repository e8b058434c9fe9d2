"""Pseudoinverses of products, and the meta-factorization that low-rank methods share."""

import numpy as np
import pytest
from spectra import EPS, adjoint, distance, gaussian, known

import linalgk as lk
from linalgk.errors import NonFiniteError, SingularMatrixError


@pytest.mark.parametrize("formula", ["auto", "reverse", "always", "randomized"])
@pytest.mark.parametrize("shape", [(60, 50, 6), (50, 60, 6), (12, 10, 6)])
def test_pseudoinverse_of_a_product(formula, shape, dtype):
    m, n, k = shape
    c, r = gaussian((2, m, k), dtype), gaussian((2, k, n), dtype, 1)
    x, info = lk.pinv_cr(c, r, formula=formula, return_info=True)
    wanted = np.linalg.pinv((c @ r).astype(np.result_type(dtype, "float64")), rcond=1e-4)
    conditions = np.linalg.cond(c) * np.linalg.cond(r)
    for i in range(2):
        # of randomized: the conditions of the sketches as well
        assert distance(x[i], wanted[i]) < 50 * EPS[dtype] * conditions[i]
    assert x.dtype == dtype
    assert info.rank.tolist() == [k, k]
    op = lk.pinv_cr(c[0], r[0], formula=formula, as_operator=True)
    assert distance(op.toarray(), wanted[0]) < 50 * EPS[dtype] * conditions[0]


def test_products_without_full_rank():
    c, r = gaussian((40, 6)), gaussian((6, 30), seed=1)
    c[:, 1] = c[:, 0]
    r[5] = r[4] + r[3]
    wanted = np.linalg.pinv(c @ r, rcond=1e-12)
    for formula in ("auto", "always", "randomized"):
        x, info = lk.pinv_cr(c, r, formula=formula, return_info=True)
        assert info.rank == np.linalg.matrix_rank(c @ r)
        assert distance(x, wanted) < 1e-12
    with pytest.raises(SingularMatrixError, match="always"):
        lk.pinv_cr(c, r, formula="reverse")
    # the reverse law fails where C has not full column rank
    assert distance(np.linalg.pinv(r, rcond=1e-12) @ np.linalg.pinv(c, rcond=1e-12), wanted) > 1e-3
    pair = np.stack([c, gaussian((40, 6), seed=7)]), np.stack([r, gaussian((6, 30), seed=8)])
    x, info = lk.pinv_cr(*pair, formula="reverse", on_fail="nan", return_info=True)
    assert np.isnan(x[0]).all()
    assert info.converged.tolist() == [False, True]
    assert np.array_equal(x[1], lk.pinv_cr(pair[0][1], pair[1][1], formula="reverse"))
    assert not lk.pinv_cr(0 * c, r).any()
    assert lk.pinv_cr(c[:, :0], r[:0]).shape == (30, 40)
    assert lk.pinv_cr(np.ones((0, 3, 2)), np.ones((0, 2, 4))).shape == (0, 4, 3)


def test_products_badly_given():
    c, r = gaussian((40, 6)), gaussian((6, 30))
    with pytest.raises(ValueError, match="need shapes"):
        lk.pinv_cr(c, r[:5])
    with pytest.raises(ValueError, match="formula"):
        lk.pinv_cr(c, r, formula="never")
    with pytest.raises(ValueError, match="one matrix"):
        lk.pinv_cr(c[None], r[None], as_operator=True)
    c[0, 0] = np.inf
    with pytest.raises(NonFiniteError):
        lk.pinv_cr(c, r)
    assert np.isnan(lk.pinv_cr(c, r, check_finite=False)).all()


def test_products_of_libraries(xp):
    c, r = gaussian((40, 3)), gaussian((3, 30), seed=1)
    given = xp.asarray(c), xp.asarray(r)
    for formula in ("auto", "always", "randomized"):
        x = lk.pinv_cr(*given, formula=formula)
        assert type(x) is type(given[0])
        assert distance(lk.testing.to_numpy(x), np.linalg.pinv(c @ r, rcond=1e-12)) < 1e-12


# --- Meta-factorization --------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(15, 10), (10, 15), (10, 10)])
def test_meta_factorization(sizes, dtype):
    """Reconstruction ``A = C W^+ R``, projectors, and {1,2}-inverses, rank W = rank A."""
    from linalgk.randomized import _matrix, _meta

    s, k = sizes
    a = (gaussian((40, 5), dtype) @ gaussian((5, 30), dtype, 1)).astype(dtype)
    p, q = gaussian((s, 40), dtype, 2), gaussian((30, k), dtype, 3)
    c, w, r = a @ q, p @ a @ q, p @ a
    cut, tol = 100 * EPS[dtype], 2e4 * EPS[dtype]
    assert distance(_meta.reconstruct(c, w, r, cut), a) < tol
    left, right = _meta.generalized_nystrom(c, w, r, cut)
    assert left.shape[1] == right.shape[0] == 5
    assert distance(c @ _meta.cross_core(w, cut) @ r, a) < tol
    matrix = _matrix.members(_matrix.given("test", a))[0]
    assert distance(c @ _meta.projection_core(matrix, c, r, cut) @ r, a) < tol
    g = _meta.reconstruct(q, w, p, cut)
    assert distance(a @ g @ a, a) < tol
    assert distance(g @ a @ g, g) < tol
    for basis, product in (
        (_meta.project_columns(c, cut), lambda x: x @ a),
        (_meta.project_rows(r, cut), lambda x: a @ x),
    ):
        projector = basis @ adjoint(basis)
        assert basis.shape[1] == 5
        assert distance(projector @ projector, projector) < 100 * EPS[dtype]
        assert distance(product(projector), a) < tol


def test_generalized_nystrom_is_stable():
    """The error is that of the best approximation up to a factor, also where W is singular."""
    from linalgk.randomized import _meta

    s = np.geomspace(1, 1e-18, 60)
    a, _ = known(100, 80, s)
    p, q = gaussian((30, 100), seed=2), gaussian((80, 20), seed=3)
    error = np.linalg.norm(a - _meta.reconstruct(a @ q, p @ a @ q, p @ a, 1e-15))
    assert error < 300 * np.linalg.norm(s[19:])
    left, _ = _meta.generalized_nystrom(a @ q, p @ a @ q, p @ a, 1e-3)
    assert left.shape[1] < 20
