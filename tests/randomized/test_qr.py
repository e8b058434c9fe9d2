"""QR by sketches and Cholesky: orthogonality, residuals, pivots, ranks, libraries, failures."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from spectra import EPS, gaussian

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError

CHOLQR = ["sketched", "cholqr2", "shifted", "householder"]
PIVOTED = ["cqrrpt", "geqp3"]


def conditioned(m, n, kappa, dtype="float64", seed=0, coherent=False):
    """Singular values from 1 to 1/kappa; a coherent one has all of it in n rows."""
    wide = np.result_type(dtype, "float64")
    left = np.eye(m, n) if coherent else np.linalg.qr(gaussian((m, n), wide, seed))[0]
    right = np.linalg.qr(gaussian((n, n), wide, seed + 1))[0]
    return ((left * np.geomspace(1, 1 / kappa, n)) @ right.conj().T).astype(dtype)


def defects(a, found, perm=None):
    """Relative residual and loss of orthogonality, in units of eps."""
    q, r = (np.asarray(x, "complex128") for x in (found.Q, found.R))
    eps = EPS[a.dtype.name]
    a = a if perm is None else a[:, np.asarray(perm)]
    residual = np.linalg.norm(a - q @ r) / np.linalg.norm(a)
    loss = np.linalg.norm(q.conj().T @ q - np.eye(q.shape[1]), 2)
    return residual / eps, loss / eps


# --- Without pivots ------------------------------------------------------------------------------


@pytest.mark.parametrize("coherent", [False, True])
@pytest.mark.parametrize("kappa", [1.0, 8.0, 1e2, 1e5, 1e8, 1e11, 1e14])
@pytest.mark.parametrize("method", CHOLQR)
def test_factors_of_every_condition(method, kappa, coherent):
    """Residual n eps, orthogonality 8 n^(1/2) eps kappa_B^2, which is error_estimate."""
    n = 30
    a = conditioned(1500, n, kappa, coherent=coherent)
    found = lk.cholqr(a, method=method)
    residual, loss = defects(a, found)
    assert residual <= n
    assert loss * EPS["float64"] <= found.info.error_estimate <= 1000 * n**0.5 * EPS["float64"]
    assert np.abs(np.tril(found.R, -1)).max() == 0
    assert residual <= 2 * found.info.residual / EPS["float64"]
    assert found.info.method.startswith(method)
    # the sketch needs no help at any condition number, the plain method beyond eps^-1/2
    if method == "sketched":
        assert found.info.method == "sketched"


def test_a_well_conditioned_matrix_is_read_once_less():
    a = gaussian((3000, 20))
    assert lk.cholqr(a).info.passes == 3
    graded = a * np.geomspace(1, 1e-12, 20)  # the sizes of columns do not matter
    found = lk.cholqr(graded)
    assert found.info.passes == 3
    assert max(defects(graded, found)) < 20
    steep = conditioned(3000, 20, 1e6)
    assert lk.cholqr(steep).info.passes == 2


@pytest.mark.parametrize("kappa", np.geomspace(5, 40, 12).tolist())
def test_what_is_promised_where_the_sketch_is_in_doubt(kappa):
    """The last Cholesky factorization is of a matrix of condition 10 or less."""
    a = conditioned(2000, 20, kappa, coherent=True) @ np.linalg.qr(gaussian((20, 20), seed=5))[0]
    for found in (lk.cholqr(a, k=200), lk.qr_pivoted(a, k=200)):
        assert found.info.error_estimate <= 8 * 20**0.5 * EPS["float64"] * 100 * 1.001
        assert max(defects(a, found, getattr(found, "perm", None))) < 100


@pytest.mark.parametrize("method", CHOLQR)
def test_cholqr_of_every_dtype(method, dtype):
    a = conditioned(800, 12, 1e3, dtype)
    found = lk.cholqr(a, method=method)
    assert found.Q.dtype == found.R.dtype == a.dtype
    assert max(defects(a, found)) < 100
    assert found.info.error_estimate.dtype == a.real.dtype


@pytest.mark.parametrize("method", CHOLQR)
def test_deficient_rank_keeps_q_orthonormal(method):
    a = gaussian((900, 5), seed=1) @ gaussian((5, 9), seed=2)
    a[:, 3] = 0
    for x in (a, np.zeros((900, 9)), np.ones((900, 9))):
        found = lk.cholqr(x, method=method)
        assert found.Q.shape == (900, 9)
        loss = np.linalg.norm(found.Q.T @ found.Q - np.eye(9), 2)
        assert loss <= found.info.error_estimate
        error = np.linalg.norm(x - found.Q @ found.R)
        assert error <= 2 * found.info.residual * np.linalg.norm(x)
        assert found.info.converged
    if method != "householder":
        assert lk.cholqr(np.zeros((900, 9)), method=method).info.method == f"{method}+householder"


@pytest.mark.parametrize("scale", [1e-150, 1e-290, 1e150, 1e280])
@pytest.mark.parametrize("method", CHOLQR)
def test_sizes_whose_squares_overflow(method, scale):
    a = conditioned(600, 8, 100.0)
    found, plain = lk.cholqr(a * scale, method=method), lk.cholqr(a, method=method)
    assert np.linalg.norm(found.Q.T @ found.Q - np.eye(8)) < 1e-13
    assert np.abs(found.Q @ (found.R / scale) - a).max() < 1e-14
    assert np.abs(found.R / scale - plain.R).max() < 1e-13
    pivoted = lk.qr_pivoted(a * scale)
    assert pivoted.rank == 8
    assert np.abs(pivoted.Q @ (pivoted.R / scale) - a[:, pivoted.perm]).max() < 1e-14


def test_auto_choices():
    assert lk.cholqr(gaussian((100, 10))).info.method == "sketched"
    assert lk.cholqr(gaussian((40, 10))).info.method == "householder"
    assert lk.cholqr(gaussian((10, 40))).R.shape == (10, 40)
    assert lk.cholqr(gaussian((20, 10)), method="sketched").info.method == "householder"
    assert lk.qr_pivoted(gaussian((100, 10))).info.method == "cqrrpt"
    assert lk.qr_pivoted(gaussian((40, 10))).info.method == "geqp3"
    assert lk.qr_pivoted(gaussian((20, 10)), method="cqrrpt").info.method == "geqp3"


# --- With pivots ---------------------------------------------------------------------------------


@pytest.mark.parametrize("coherent", [False, True])
@pytest.mark.parametrize("kappa", [1.0, 8.0, 1e2, 1e5, 1e8, 1e11, 1e14])
@pytest.mark.parametrize("method", PIVOTED)
def test_pivoted_factors_of_every_condition(method, kappa, coherent):
    """Residual within n eps for the rank that is kept: the default tol is (16 + n^(1/2)) eps."""
    n = 30
    a = conditioned(1500, n, kappa, coherent=coherent)
    found = lk.qr_pivoted(a, method=method)
    residual, loss = defects(a, found, found.perm)
    assert residual <= 2 * (16 + n**0.5)
    assert loss * EPS["float64"] <= found.info.error_estimate <= 1000 * n**0.5 * EPS["float64"]
    assert sorted(found.perm.tolist()) == list(range(n))
    assert np.abs(np.tril(found.R[:, : found.rank], -1)).max() == 0
    assert found.rank == n == found.Q.shape[1]
    assert found.info.method == method


@pytest.mark.parametrize("decay", [0.5, 0.8, 1.0])
def test_pivots_reveal_the_rank(decay):
    """Singular values of R11 and R22, and the diagonal of R, within the published factor.

    With the measured distortion of the sketch on the columns, ``gap = s_max(S Q) / s_min(S Q)``,
    ``|R_jj| <= gap |R_ii|`` for i < j and, from LAPACK's pivots of the sketch,
    ``s_i(R11) >= s_i(A) / (gap (r (n - r + 1))^(1/2) 2^r)``: here 1/20 is what is found.
    """
    m, n = 2000, 40
    left = np.linalg.qr(gaussian((m, n), seed=3))[0]
    s = decay ** np.arange(n)
    a = (left * s) @ np.linalg.qr(gaussian((n, n), seed=4))[0].T
    found = lk.qr_pivoted(a, tol=0)
    sketch = lk.sketch.SparseStack(3 * n, m, rng=lk.sketch.Philox(0).spawn(1))
    measured = np.linalg.svd(sketch @ left, compute_uv=False)
    gap = measured[0] / measured[-1]
    d = np.abs(np.diagonal(found.R))
    worst = max(d[j] / d[i] for i in range(n) for j in range(i + 1, n))
    assert worst <= gap * (1 + 1e-10)
    reference = scipy.linalg.qr(a, mode="r", pivoting=True)[0]
    assert (d > np.abs(np.diagonal(reference)[:n]) / (2 * gap)).all()
    for r in (5, 12, 20):
        top = np.linalg.svd(found.R[:r, :r], compute_uv=False)
        rest = np.linalg.norm(found.R[r:, r:], 2)
        assert (top >= s[:r] / 20).all()
        assert rest <= 20 * s[r]


@pytest.mark.parametrize("method", PIVOTED)
@pytest.mark.parametrize("rank", [0, 1, 7, 20])
def test_exact_rank_is_found(method, rank, dtype):
    a = (gaussian((1000, rank), dtype, 1) @ gaussian((rank, 20), dtype, 2)).astype(dtype)
    found = lk.qr_pivoted(a, method=method)
    assert found.rank == rank == found.info.rank
    assert found.Q.shape == (1000, rank)
    assert found.R.shape == (rank, 20)
    error = np.linalg.norm(a[:, found.perm] - found.Q @ found.R)
    assert error <= 40 * EPS[dtype] * np.linalg.norm(a)
    full = lk.qr_pivoted(a, method=method, tol=0)
    assert full.Q.shape == (1000, 20)
    assert np.linalg.norm(full.Q.conj().T @ full.Q - np.eye(20)) < 100 * EPS[dtype]
    error = np.linalg.norm(a[:, full.perm] - full.Q @ full.R)
    assert error <= 40 * EPS[dtype] * np.linalg.norm(a)


@pytest.mark.parametrize("method", PIVOTED)
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-6, 1e-13])
def test_tol_is_met(method, tol):
    a = conditioned(2000, 50, 1e13)
    found = lk.qr_pivoted(a, method=method, tol=tol)
    error = np.linalg.norm(a[:, found.perm] - found.Q @ found.R) / np.linalg.norm(a)
    assert error <= tol
    # not many more columns than the singular values ask for
    s = np.linalg.svd(a, compute_uv=False)
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1] / (s**2).sum())
    assert found.rank <= np.count_nonzero(tails > tol) + 4
    if tol > 1e-10:
        assert 0.5 * error < found.info.residual < 2 * error


@pytest.mark.parametrize("method", PIVOTED)
def test_a_rank_that_is_asked_for(method):
    a = conditioned(2000, 40, 1e8)
    found = lk.qr_pivoted(a, method=method, rank=12)
    assert found.Q.shape == (2000, 12)
    # the rest is what the chosen columns cannot give: R is the projection
    rest = a[:, found.perm] - found.Q @ found.R
    assert np.abs(found.Q.T @ rest).max() < 1e-14
    error = np.linalg.norm(rest) / np.linalg.norm(a)
    assert 0.5 * error < found.info.residual < 2 * error
    chosen = np.linalg.qr(a[:, found.perm[:12]])[0]
    best = np.linalg.norm(a - chosen @ (chosen.T @ a))
    assert abs(error * np.linalg.norm(a) - best) < 1e-12


def test_the_sketch_need_not_see_everything():
    """One row holds a column that no other row has: the sketch has all rows in it."""
    a = np.zeros((4000, 6))
    a[:, :5] = gaussian((4000, 5))
    a[1234, 5] = 1e-3
    found = lk.qr_pivoted(a)
    assert found.rank == 6
    assert max(defects(a, found, found.perm)) < 100


def test_more_rows_in_the_sketch_are_better_conditioned():
    a = conditioned(6000, 20, 1e9)
    small, large = (lk.cholqr(a, k=k).info.error_estimate for k in (30, 2000))
    assert large < 0.2 * small
    assert max(defects(a, lk.cholqr(a, k=20, nnz=1))) < 1e3


# --- Batches, libraries, layouts -----------------------------------------------------------------


def test_batches():
    a = gaussian((2, 3, 300, 6))
    a[1, 2] = gaussian((300, 2)) @ gaussian((2, 6))
    found = lk.qr_pivoted(a)
    assert found.Q.shape == (2, 3, 300, 6)
    assert found.perm.shape == (2, 3, 6)
    assert found.rank.tolist() == [[6, 6, 6], [6, 6, 2]]
    assert not found.Q[1, 2, :, 2:].any()
    assert not found.R[1, 2, 2:].any()
    for i in np.ndindex(2, 3):
        alone = lk.qr_pivoted(a[i])
        assert (found.Q[i][:, : alone.rank] == alone.Q).all()
        assert np.abs(found.Q[i] @ found.R[i] - a[i][:, found.perm[i]]).max() < 1e-13
    plain = lk.cholqr(a)
    assert plain.R.shape == (2, 3, 6, 6)
    assert (plain.Q[0, 1] == lk.cholqr(a[0, 1]).Q).all()
    assert plain.info.residual.shape == (2, 3)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 0, 5), (2, 6, 0), (0, 50, 3)])
def test_empty(shape):
    a = np.empty(shape, "float32")
    *batch, m, n = shape
    found = lk.cholqr(a)
    assert found.Q.shape == (*batch, m, min(m, n))
    assert found.R.shape == (*batch, min(m, n), n)
    assert found.Q.dtype == np.float32
    pivoted = lk.qr_pivoted(a)
    assert pivoted.Q.shape == found.Q.shape
    assert pivoted.perm.shape == (*batch, n)


@pytest.mark.parametrize("function", [lk.cholqr, lk.qr_pivoted])
def test_layouts_are_not_written_to(function):
    a = gaussian((500, 7))
    wanted = function(a)
    wide = np.zeros((1000, 14))
    wide[::2, ::2] = a
    frozen = a.copy()
    frozen.flags.writeable = False
    for x in (np.asfortranarray(a), wide[::2, ::2], frozen, a[::-1][::-1]):
        kept = x.copy()
        found = function(x)
        assert np.abs(found.Q - wanted.Q).max() < 1e-13
        assert (x == kept).all()


def test_integers_and_seeds():
    a = np.random.default_rng(0).integers(-9, 9, (200, 4))
    assert lk.cholqr(a).Q.dtype == np.float64
    found = lk.qr_pivoted(a, rng=5)
    again = lk.qr_pivoted(a, rng=found.info.seed)
    assert (found.Q == again.Q).all()
    steep = conditioned(300, 5, 1e6)
    assert (lk.cholqr(steep).R == lk.cholqr(steep).R).all()
    assert (lk.cholqr(steep).R != lk.cholqr(steep, rng=1).R).any()


def test_other_libraries_get_their_own_arrays(xp):
    a = conditioned(300, 8, 1e5)
    for function in (
        *(lambda x, m=m: lk.cholqr(x, method=m) for m in CHOLQR),
        *(lambda x, m=m: lk.qr_pivoted(x, method=m) for m in PIVOTED),
        lambda x: lk.qr_pivoted(x, rank=4),
    ):
        given = xp.asarray(a)
        found, wanted = function(given), function(a)
        for part, reference in zip(found, wanted, strict=True):
            assert type(part) is type(given)
            assert np.abs(np.asarray(part) - reference).max() < 1e-9
        assert type(found.info.error_estimate) is type(given)
    batch = lk.qr_pivoted(xp.asarray(np.stack([a, 2 * a])))
    assert tuple(batch.R.shape) == (2, 8, 8)


def test_device_arrays_stay_on_the_device(cuda):
    a = conditioned(200, 5, 1e4)
    given = cuda.array(a)
    for function in (lambda x: lk.qr_pivoted(x, rank=3), lk.qr_pivoted):
        found = function(given)
        assert type(found.Q) is type(given)
        rest = cuda.host(found.Q) @ cuda.host(found.R) - a[:, cuda.host(found.perm)]
        assert np.linalg.norm(rest) < 2 * cuda.host(found.info.residual) * np.linalg.norm(a)


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "function",
    [
        *(lambda x, m=m, **o: lk.cholqr(x, method=m, **o) for m in CHOLQR),
        *(lambda x, m=m, **o: lk.qr_pivoted(x, method=m, **o) for m in PIVOTED),
    ],
)
def test_bad_members(function, bad):
    a = gaussian((3, 100, 4))
    good = function(a)
    a[1, 50, 2] = bad
    with pytest.raises(NonFiniteError, match=r"a holds NaN.*\(1,\)") as caught:
        function(a)
    assert caught.value.index == ((1,),)
    with pytest.warns(ConvergenceWarning, match="holds NaN"):
        function(a, on_fail="warn")
    for options in ({"on_fail": "nan"}, {"check_finite": False}):
        found = function(a, **options)
        assert np.isnan(found.Q[1]).all()
        assert np.isnan(found.R[1]).all()
        assert (found.Q[[0, 2]] == good.Q[[0, 2]]).all()
        assert found.info.converged.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: lk.cholqr(np.ones(3)), ValueError, r"a: must have shape \(..., m, n\)"),
        (lambda: lk.cholqr("x"), TypeError, "a: must be an array"),
        (lambda: lk.cholqr(np.ones((3, 2)), method="lu"), ValueError, "method: must be one of"),  # type: ignore[arg-type]
        (lambda: lk.cholqr(np.ones((30, 4)), k=3), ValueError, "k: must be at least 4, got 3"),
        (lambda: lk.cholqr(np.ones((30, 4)), nnz=0), ValueError, "nnz: must be at least 1"),
        (lambda: lk.qr_pivoted(np.ones((30, 4)), rank=5), ValueError, r"rank: .* = 4, got 5"),
        (lambda: lk.qr_pivoted(np.ones((30, 4)), tol=1e-17), ValueError, "at least 4e-15"),
        (lambda: lk.qr_pivoted(np.ones((30, 4)), tol=-1.0), ValueError, "tol: must satisfy"),
        (lambda: lk.qr_pivoted(np.ones((30, 4)), method="lu"), ValueError, "method: must be one"),  # type: ignore[arg-type]
        (
            lambda: lk.qr_pivoted(scipy.sparse.csr_array(np.ones((3, 2)))),
            TypeError,
            r"a: must be a dense array, got csr_array; use a.toarray\(\)",
        ),
        (
            lambda: lk.cholqr(scipy.sparse.csr_array(np.ones((3, 2)))),
            TypeError,
            r"use a.toarray\(\)",
        ),
    ],
)
def test_bad_arguments(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_frameworks_are_told_what_is_not_offered():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        lk.qr_pivoted(torch.ones((4, 2), requires_grad=True))


def test_tracing_is_refused():
    jax = pytest.importorskip("jax")
    for function in (lk.cholqr, lk.qr_pivoted):
        with pytest.raises(TypeError, match="cannot be traced"):
            jax.jit(function)(jax.numpy.ones((4, 2)))
