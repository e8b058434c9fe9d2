"""Least squares: kinds of input, libraries, batches, options, what fails and how."""

import math

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from solved import backward_error, gaussian, problem
from spectra import EPS, conditioned

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.randomized._lstsq import METHODS

SKETCHED = ("sketch_cholesky", "spir", "fossils", "lsqr", "iterative")


def bits(fit):
    """All arrays of a result."""
    return [
        np.asarray(x) for x in (
            fit.x, fit.residuals, fit.rank, fit.s, fit.backward_error, fit.std_error,
            fit.info.residual, fit.info.error_estimate, fit.info.iterations,
        )
    ]  # fmt: skip


def same(one, other):
    for x, y in zip(bits(one), bits(other), strict=True):
        np.testing.assert_array_equal(x, y)


# --- Arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["direct", "sketch_cholesky", "spir", "sketch_solve"])
@pytest.mark.parametrize("shape", [(400, 6), (6, 400)])
def test_layouts_give_the_same_solution(method, shape):
    a, b = gaussian(*shape), gaussian(shape[0], 2, seed=1)
    wanted = lk.lstsq(a, b, method=method).x
    layouts = {
        "F": np.asfortranarray(a),
        "strided": np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
        "negative": np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
        "transposed": np.ascontiguousarray(a.T).T,
        "byte order": a.astype(">f8"),
    }
    sides = {"strided": np.repeat(b, 2, 1)[:, ::2], "F": np.asfortranarray(b)}
    for name, given in layouts.items():
        side = sides.get(name, b)
        given.flags.writeable = side.flags.writeable = False
        before, aside = given.copy(), side.copy()
        fit = lk.lstsq(given, side, method=method)
        assert np.abs(fit.x - wanted).max() < 1e-12, name
        assert (given == before).all()
        assert (side == aside).all()


def test_integers_lists_and_mixed_dtypes():
    a, b = [[1, 0], [0, 2], [0, 0]], [3, 4, 5]
    fit = lk.lstsq(a, b)
    assert fit.x.tolist() == [3.0, 2.0]
    assert fit.residuals.tolist() == [25.0]
    a = np.random.default_rng(0).integers(-9, 9, (400, 6)).astype(np.int16)
    b = gaussian(400, dtype="float32")
    for left, right, kind in (
        ("int16", "float32", "float64"),
        ("float32", "float64", "float64"),
        ("float64", "float32", "float64"),
        ("float32", "complex64", "complex64"),
        ("float64", "complex64", "complex128"),
        ("complex64", "float32", "complex64"),
        ("complex64", "float64", "complex128"),
    ):
        for method in ("direct", "sketch_cholesky", "lsqr"):
            for given in (a.astype(left), scipy.sparse.csr_array(a.astype(left))):
                fit = lk.lstsq(given, b.astype(right), method=method)
                assert fit.x.dtype == kind
                wide = a.astype("float64"), b.astype(right).astype(np.result_type(right, "f8"))
                wanted = np.linalg.lstsq(*wide, rcond=None)[0]
                assert np.abs(fit.x - wanted).max() < 50 * EPS[kind]


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.parametrize("exponent", [-150, 150])
@pytest.mark.parametrize("damp", [0.0, 1.0])
def test_entries_of_any_size(method, exponent, damp):
    """Powers of two in a, in b or in both change nothing but the units of the result."""
    unit = 2.0 ** int(exponent * math.log2(10))
    for shape in ((400, 6), (6, 400)):
        a, b = gaussian(*shape), gaussian(shape[0], seed=1)
        wanted = lk.lstsq(a, b, method=method, damp=damp)
        for left, right in ((unit, 1.0), (1.0, unit), (unit, unit)):
            if damp and left != 1:
                continue
            fit = lk.lstsq(a * left, b * right, method=method, damp=damp)
            assert np.abs(fit.x / right * left / wanted.x - 1).max() < 1e-10
            assert np.abs(fit.s / left / wanted.s - 1).max() < 1e-10
            assert np.isfinite(fit.std_error).all()
            assert np.isfinite(fit.info.error_estimate)
            if method not in ("sketch_solve", "iterative"):
                assert fit.backward_error < 1e-14
            assert abs(fit.info.residual - wanted.info.residual) < 1e-10


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_a_ridge_in_the_units_of_the_matrix(scale):
    a, b = gaussian(400, 6), gaussian(400, seed=1)
    for method in ("direct", *SKETCHED):
        wanted = lk.lstsq(a, b, method=method, damp=30.0).x
        fit = lk.lstsq(a * scale, b, method=method, damp=30.0 * scale * scale)
        assert np.abs(fit.x * scale / wanted - 1).max() < 1e-10, method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(400, 6), (6, 400)])
def test_right_hand_sides_that_are_zero_or_within_the_range(method, shape):
    a = gaussian(*shape)
    fit = lk.lstsq(a, np.zeros(shape[0]), method=method)
    assert not fit.x.any()
    assert fit.backward_error == 0
    assert not fit.std_error.any()
    assert fit.info.residual == 0
    wanted = a.T @ gaussian(shape[0], seed=1)
    b = np.stack([a @ wanted, np.zeros(shape[0])], axis=1)
    fit = lk.lstsq(a, b, method=method)
    assert np.abs(fit.x[:, 0] - wanted).max() < 1e-12 * np.abs(wanted).max()
    assert not fit.x[:, 1].any()
    assert (fit.backward_error < 1e-14).all()


@pytest.mark.parametrize("method", METHODS)
def test_empty(method, dtype):
    real = np.zeros(0, dtype).real.dtype
    for shape in ((0, 3), (4, 0), (0, 0), (2, 0, 3), (0, 5, 3), (2, 4, 0), (0, 2, 5, 3)):
        *batch, m, n = shape
        for tail in ((), (2,), (0,)):
            fit = lk.lstsq(
                np.zeros(shape, dtype), np.ones((*batch, m, *tail), dtype), method=method
            )
            assert fit.x.shape == (*batch, n, *tail)
            assert fit.x.dtype == dtype
            assert not fit.x.any()
            assert fit.std_error.shape == fit.x.shape
            assert fit.std_error.dtype == real
            assert fit.s.shape == (*batch, min(m, n))
            assert np.shape(fit.rank) == tuple(batch)
            assert np.shape(fit.backward_error) == (*batch, *tail)
            low, high = fit.interval()
            assert low.shape == high.shape == fit.x.shape
    fit = lk.lstsq(np.ones((300, 3), dtype), np.ones((300, 0), dtype), method=method)
    assert fit.x.shape == (3, 0)
    assert fit.backward_error.shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_members_of_a_batch_are_those_of_single_calls(method):
    a, b = gaussian(2, 3, 300, 5), gaussian(2, 3, 300, 2, seed=1)
    a[1, 1, :, 4] = a[1, 1, :, 0]  # another rank
    fit = lk.lstsq(a, b, method=method)
    assert fit.x.shape == (2, 3, 5, 2)
    assert fit.residuals.shape == fit.backward_error.shape == (2, 3, 2)
    assert fit.s.shape == (2, 3, 5)
    assert fit.rank.tolist() == [[5, 5, 5], [5, 4, 5]]
    for field in ("iterations", "converged", "residual", "error_estimate", "rank"):
        assert getattr(fit.info, field).shape == (2, 3), field
    for i in np.ndindex(2, 3):
        one = lk.lstsq(a[i], b[i], method=method)
        for x, y in ((fit.x, one.x), (fit.s, one.s), (fit.std_error, one.std_error)):
            assert (x[i] == y).all()
        assert (fit.backward_error[i] == one.backward_error).all()
        assert fit.rank[i] == one.rank
        if one.residuals.size:
            assert (fit.residuals[i] == one.residuals).all()
    vectors = lk.lstsq(a, b[..., 0], method=method)
    assert vectors.x.shape == (2, 3, 5)
    assert vectors.residuals.shape == (2, 3, 1)
    assert vectors.backward_error.shape == (2, 3)


def test_intervals_of_members_of_different_rank():
    """Degrees of freedom are those of each member."""
    a, b = gaussian(2, 300, 5), gaussian(2, 300, 2, seed=1)
    a[1, :, 2:] = 0
    fit = lk.lstsq(a, b, method="sketch_solve", k=16)
    for i in range(2):
        one = lk.lstsq(a[i], b[i], method="sketch_solve", k=16)
        for x, y in zip(fit.interval(0.9), one.interval(0.9), strict=True):
            assert (x[i] == y).all()
    assert fit.rank.tolist() == [5, 2]


# --- Libraries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_other_libraries_get_their_own_arrays(xp, method):
    for shape in ((400, 6), (6, 400)):
        for dtype in ("float64", "complex64"):
            a, b = gaussian(*shape, dtype=dtype), gaussian(shape[0], 2, dtype=dtype, seed=1)
            wanted = lk.lstsq(a, b, method=method)
            fit = lk.lstsq(xp.asarray(a), xp.asarray(b), method=method)
            like = type(xp.asarray(a))
            for name in ("x", "residuals", "s", "backward_error", "std_error"):
                assert isinstance(getattr(fit, name), like), name
            assert np.abs(np.asarray(fit.x) - wanted.x).max() < 300 * EPS[dtype]
            assert fit.rank == 6
            assert isinstance(fit.interval()[0], like)
            assert np.abs(np.asarray(fit.s) / wanted.s - 1).max() < 1e-3
    batch = lk.lstsq(xp.asarray(gaussian(2, 30, 3)), xp.asarray(gaussian(2, 30)))
    assert isinstance(batch.rank, like)
    assert isinstance(batch.info.converged, like)


@pytest.mark.parametrize("damp", [0.0, 2.0])
def test_other_libraries_with_a_ridge_and_deficient_rank(xp, damp):
    for shape in ((400, 6), (6, 400), (30, 6)):
        a, b = gaussian(*shape), gaussian(shape[0], seed=1)
        a[:, 1] = a[:, 0]
        a[1] = a[0]
        for method in ("auto", *SKETCHED):
            wanted = lk.lstsq(a, b, damp=damp, method="direct")
            fit = lk.lstsq(xp.asarray(a), xp.asarray(b), damp=damp, method=method)
            assert np.abs(np.asarray(fit.x) - wanted.x).max() < 1e-12
            assert fit.rank == wanted.rank or damp


def test_a_vector_of_one_library_gives_a_number(xp):
    a, b = gaussian(30, 3), gaussian(30, seed=1)
    fit = lk.lstsq(xp.asarray(a), xp.asarray(b))
    assert fit.x.shape == (3,)
    assert float(fit.backward_error) < 1e-15


def test_frameworks_are_told_what_is_not_offered():
    torch = pytest.importorskip("torch")
    a, b = torch.ones((4, 2), requires_grad=True), torch.ones(4)
    with pytest.raises(TypeError, match="requires grad"):
        lk.lstsq(a, b)
    with pytest.raises(TypeError, match="requires grad"):
        lk.lstsq(a.detach(), b.clone().requires_grad_())
    with pytest.raises(TypeError, match=r"a is numpy .* b is torch"):
        lk.lstsq(np.ones((4, 2)), b)


def test_tracing_is_refused():
    jax = pytest.importorskip("jax")
    a, b = jax.numpy.ones((4, 2)), jax.numpy.ones(4)
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda a: lk.lstsq(a, b).x)(a)
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda b: lk.lstsq(a, b).x)(b)


# --- Sparse matrices and operators ---------------------------------------------------------------


def thin(m, n, dtype="float64", seed=0):
    a = scipy.sparse.random_array((m, n), density=0.05, rng=seed, format="csr").astype(dtype)
    if np.dtype(dtype).kind == "c":
        a = a * (1 + 1j) + scipy.sparse.random_array((m, n), density=0.02, rng=seed + 1) * 1j
    corner = np.arange(min(m, n))
    eye = scipy.sparse.csr_array((np.ones(min(m, n)), (corner, corner)), shape=(m, n))
    return (a + eye).astype(dtype).tocsr()


KINDS = [
    scipy.sparse.csr_array, scipy.sparse.csc_array, scipy.sparse.coo_array,
    scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, scipy.sparse.coo_matrix, aslinearoperator,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["auto", *SKETCHED, "sketch_solve"])
@pytest.mark.parametrize("shape", [(600, 6), (6, 600)])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_sparse_matrices_and_operators(kind, method, shape, dtype):
    a, b = thin(*shape, dtype), gaussian(shape[0], 2, dtype=dtype, seed=3)
    fit = lk.lstsq(kind(a), b, method=method)
    assert isinstance(fit.x, np.ndarray)
    assert fit.x.dtype == dtype
    dense = a.toarray()
    if method == "sketch_solve" and shape[0] > shape[1]:
        wanted = lk.lstsq(dense, b, method=method, k=120)  # 20 n for sparse a
    else:
        wanted = lk.lstsq(dense, b, method="direct")
    assert np.abs(fit.x - wanted.x).max() < 300 * EPS[dtype]
    if method != "sketch_solve":
        assert fit.rank == 6
        assert (fit.backward_error < 20 * EPS[dtype]).all()


@pytest.mark.parametrize("method", ["auto", *SKETCHED])
@pytest.mark.parametrize("kappa", [1e4, 1e12])
def test_operators_of_any_condition(method, kappa):
    dense, b = problem(600, 8, kappa, 0.1)
    for a in (scipy.sparse.csr_array(dense), aslinearoperator(dense)):
        fit = lk.lstsq(a, b, method=method)
        if method != "iterative":
            assert backward_error(dense, b, fit.x) < 5 * EPS["float64"]


def test_operators_with_a_ridge():
    dense, b = problem(600, 8, 1e6, 0.1)
    for method in ("auto", *SKETCHED):
        wanted = lk.lstsq(dense, b, damp=1e-4, method="direct").x
        fit = lk.lstsq(aslinearoperator(dense), b, damp=1e-4, method=method)
        assert np.abs(fit.x - wanted).max() < 1e-11


def test_sparse_matrices_of_deficient_rank():
    """Small ones are made dense; a sketch finds the rank of exact zeros and duplicates."""
    a = thin(600, 6).toarray()
    a[:, 4], a[:, 5] = a[:, 0], 0
    b = gaussian(600, seed=1)
    wanted = np.linalg.lstsq(a, b, rcond=1e-13)[0]
    for method in ("auto", *SKETCHED):
        fit = lk.lstsq(scipy.sparse.csr_array(a), b, method=method)
        assert fit.rank == 4
        assert np.abs(fit.x - wanted).max() < 1e-12


def test_a_matrix_too_wide_to_be_made_dense():
    """Not sketched, for it is nearly square, and 3e8 entries would not fit."""
    n = 18_000
    eye = scipy.sparse.eye_array(n, format="csr")
    with pytest.raises(ValueError, match="too large to be made dense; pass k"):
        lk.lstsq(eye, np.ones(n))


def test_a_wrong_adjoint_is_found():
    dense, b = problem(600, 8, 10.0, 0.1)
    wrong = LinearOperator(
        dense.shape, matvec=lambda x: dense @ x, rmatvec=lambda y: 1.001 * (dense.T @ y),
        dtype="float64",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"a: the adjoint is not that of the product"):
        lk.lstsq(wrong, b, check_adjoint=True)
    right = aslinearoperator(dense)
    same(lk.lstsq(right, b, check_adjoint=True, method="spir"), lk.lstsq(right, b, method="spir"))


# --- Members that are bad ------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(300, 4), (4, 300), (10, 4)])
def test_members_that_hold_nan(method, where, value, shape):
    a, b = gaussian(3, *shape), gaussian(3, shape[0], seed=1)
    good = lk.lstsq(a, b, method=method)
    (a if where == "a" else b)[1, 2] = value
    with pytest.raises(NonFiniteError, match=r"NaN or infinity \(batch members \(1,\)\)") as caught:
        lk.lstsq(a, b, method=method)
    assert caught.value.index == ((1,),)
    with pytest.warns(ConvergenceWarning, match="NaN or infinity"):
        warned = lk.lstsq(a, b, method=method, on_fail="warn")
    silent = lk.lstsq(a, b, method=method, on_fail="nan")
    unchecked = lk.lstsq(a, b, method=method, check_finite=False)
    for fit in (caught.value.result, warned, silent, unchecked):
        for name in ("x", "residuals", "s", "backward_error", "std_error"):
            found, wanted = getattr(fit, name), getattr(good, name)
            assert np.isnan(found[1]).all(), name
            assert (found[[0, 2]] == wanted[[0, 2]]).all()
        assert fit.info.converged.tolist() == [True, False, True]
    with pytest.raises(NonFiniteError, match="NaN or infinity;"):
        lk.lstsq(a[1], b[1], method=method)
    alone = lk.lstsq(a[1], b[1], method=method, on_fail="nan")
    assert np.isnan(alone.x).all()
    assert alone.x.shape == (shape[1],)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, aslinearoperator])
@pytest.mark.parametrize("method", ["auto", "spir", "sketch_cholesky", "minimum_norm"])
def test_sparse_matrices_that_hold_nan(kind, method):
    for shape in ((600, 6), (6, 600)):
        dense, b = thin(*shape).toarray(), gaussian(shape[0], seed=1)
        b[3] = np.nan
        with pytest.raises(NonFiniteError):
            lk.lstsq(kind(dense), b, method=method)
        b[3], dense[2, 3] = 0, np.nan
        with pytest.raises(NonFiniteError):
            lk.lstsq(kind(dense), b, method=method)
        assert np.isnan(lk.lstsq(kind(dense), b, method=method, on_fail="nan").x).all()


def test_the_context_says_what_happens_to_bad_members():
    a, b = gaussian(30, 3), np.full(30, np.nan)
    with lk.config_context(on_fail="nan"):
        assert np.isnan(lk.lstsq(a, b).x).all()
    with lk.config_context(check_finite=False):
        assert np.isnan(lk.lstsq(a, b).x).all()


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "sketch_cholesky"])
def test_a_sketch_that_is_too_small(method):
    """Of fewer rows than columns: it leaves directions out, and that is told."""
    a = np.stack([problem(600, 40, 1e2, 0.5, seed=s)[0] for s in range(2)])
    b = np.stack([problem(600, 40, 1e2, 0.5, seed=s)[1] for s in range(2)])
    a[1, :, 16:] = 0  # of this rank even that is enough
    with pytest.raises(NotConvergedError, match=rf"'{method}' did not reach .*\(0,\)") as caught:
        lk.lstsq(a, b, method=method, k=16)
    assert caught.value.index[0] == (0,)
    with pytest.warns(ConvergenceWarning, match="larger k"):
        fit = lk.lstsq(a[0], b[0], method=method, k=16, on_fail="warn")
    assert fit.rank == 16
    assert not fit.info.converged
    oracle = backward_error(a[0], b[0], fit.x)
    assert oracle / 3 < fit.backward_error
    assert np.isnan(lk.lstsq(a[0], b[0], method=method, k=16, on_fail="nan").x).all()


def test_the_default_method_recovers_from_a_small_sketch():
    a, b = problem(1300, 90, 1e2, 0.5)
    fit = lk.lstsq(a, b, k=40)
    assert fit.info.method.endswith("+direct")
    assert fit.rank == 90
    assert backward_error(a, b, fit.x) < 5 * EPS["float64"]


def test_a_sketch_without_degrees_of_freedom():
    a, b = problem(600, 16, 1e2, 0.5)
    with pytest.raises(NotConvergedError):
        lk.lstsq(a, b, method="sketch_solve", k=16)
    with pytest.warns(ConvergenceWarning):
        fit = lk.lstsq(a, b, method="sketch_solve", k=16, on_fail="warn")
    low, high = fit.interval()
    assert np.isinf(low).all()
    assert np.isinf(high).all()


@pytest.mark.parametrize("method", SKETCHED)
def test_a_sketch_as_tall_as_the_matrix_is_none(method):
    a, b = problem(300, 6, 1e2, 0.5)
    fit = lk.lstsq(a, b, method=method, k=300)
    assert fit.info.method == "direct"
    same(fit, lk.lstsq(a, b, method="direct"))


# --- Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*SKETCHED, "minimum_norm"])
@pytest.mark.parametrize("way", ["true", "exception"])
def test_a_callback_stops(method, way):
    shape = (6, 400) if method == "minimum_norm" else (400, 6)
    a, b = conditioned(*shape, 1e3), gaussian(shape[0], seed=1)
    seen = []

    def stop(state):
        seen.append(state)
        if len(seen) == 2:
            if way == "exception":
                raise StopIteration
            return True
        return None

    fit = lk.lstsq(a, b, method=method, callback=stop)
    assert [s.iteration for s in seen] == [0, 1]
    assert fit.backward_error == min(s.backward_error for s in seen)
    best = min(seen, key=lambda s: s.backward_error)
    assert (best.x[:, 0] == fit.x).all()
    assert fit.info.converged == (fit.backward_error < 100 * EPS["float64"])


def test_a_callback_that_stops_the_default_is_obeyed():
    a, b = problem(1300, 90, 1e6, 0.5)
    fit = lk.lstsq(a, b, callback=lambda s: True)
    assert fit.info.method == "sketch_cholesky"
    assert not fit.info.converged
    oracle = backward_error(a, b, fit.x)
    assert oracle / 2 < fit.backward_error < 2 * oracle


def test_seeds_replay():
    a, b = problem(400, 8, 1e3, 0.5)
    for method in (*SKETCHED, "sketch_solve"):
        for family in ("SparseStack", "Gaussian"):
            fit = lk.lstsq(a, b, method=method, rng=None, sketch=family)
            same(fit, lk.lstsq(a, b, method=method, rng=fit.info.seed, sketch=family))
            other = lk.lstsq(a, b, method=method, rng=None, sketch=family)
            assert other.info.seed != fit.info.seed
            assert (other.s != fit.s).any()
    same(lk.lstsq(a, b, method="spir"), lk.lstsq(a, b, method="spir", rng=0))


def test_the_number_of_threads_changes_rounding_only():
    """Sums of blocks keep their bits, but BLAS shares the work on triangles in other ways."""
    for shape in ((7000, 20), (20, 7000)):
        a, b = gaussian(*shape), gaussian(shape[0], 2, seed=1)
        for method in ("direct", "sketch_cholesky", "spir"):
            fits = []
            for threads in (1, 2):
                with lk.config_context(num_threads=threads):
                    fits.append(lk.lstsq(a, b, method=method))
            assert np.abs(fits[0].x - fits[1].x).max() < 1e-14 * np.abs(fits[0].x).max(), method
            with lk.config_context(num_threads=2):
                same(fits[1], lk.lstsq(a, b, method=method))


def test_passes_are_counted():
    a, b = problem(1300, 90, 1e3, 0.5)
    assert lk.lstsq(a, b, method="direct").info.passes == 1
    assert lk.lstsq(a, b, method="sketch_solve").info.passes == 1
    assert 2 <= lk.lstsq(a, b).info.passes <= 5
    many = lk.lstsq(a, b, method="spir").info
    assert many.passes >= 2 * int(many.iterations)


def test_explain_tells_what_would_run():
    a, b = problem(1300, 90, 1e3, 0.5)
    from linalgk.randomized._lstsq import explain_lstsq

    told = explain_lstsq(a, b)
    assert told.method == lk.lstsq(a, b).info.method == "sketch_cholesky"
    assert told.flops > 2 * 1300 * 90 * 90
    assert explain_lstsq(a, b, method="spir").method == "spir"
    assert explain_lstsq(a[:100], b[:100]).method == "direct"
    assert explain_lstsq(scipy.sparse.csr_array(a), b).method == "direct"
    assert explain_lstsq(lk.RowBlocks([(a, b)])).method == "sketch_cholesky"
    assert explain_lstsq(a.T, b[:90], method="spir").method == "minimum_norm"


ONES = np.ones((4, 2))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: lk.lstsq(ONES), TypeError, "b: is missing"),
        (lambda: lk.lstsq(np.ones(3), np.ones(3)), ValueError, r"a: must have shape \(..., m, n\)"),
        (lambda: lk.lstsq("x", np.ones(3)), TypeError, "a: must be an array"),
        (lambda: lk.lstsq(ONES, "x"), TypeError, "b: must be an array"),
        (lambda: lk.lstsq(ONES.astype("f2"), np.ones(4)), TypeError, "a: dtype"),
        (lambda: lk.lstsq(ONES, np.ones(4, "f2")), TypeError, "b: dtype"),
        (
            lambda: lk.lstsq(ONES, np.ones(3)),
            ValueError,
            r"b: must have shape \(4,\) or \(4, 'c'\)",
        ),
        (lambda: lk.lstsq(ONES, np.ones((4, 2, 1))), ValueError, "b: must have shape"),
        (lambda: lk.lstsq(ONES, 1.0), ValueError, "b: must have shape"),
        (lambda: lk.lstsq(np.ones((3, 4, 2)), np.ones(4)), ValueError, r"b: .*\(3, 4\)"),
        (lambda: lk.lstsq(np.ones((3, 4, 2)), np.ones((2, 4))), ValueError, r"b: .*\(3, 4\)"),
        (lambda: lk.lstsq(ONES, np.ones(4), method="qr"), ValueError, "method: must be"),  # type: ignore[arg-type]
        (lambda: lk.lstsq(ONES, np.ones(4), sketch="SRHT"), ValueError, "sketch: must be"),  # type: ignore[arg-type]
        (lambda: lk.lstsq(ONES, np.ones(4), rcond=2.0), ValueError, "rcond: must"),
        (lambda: lk.lstsq(ONES, np.ones(4), rcond=-1.0), ValueError, "rcond: must"),
        (lambda: lk.lstsq(ONES, np.ones(4), damp=-1.0), ValueError, "damp: must"),
        (lambda: lk.lstsq(ONES, np.ones(4), damp=math.nan), ValueError, "damp: must"),
        (lambda: lk.lstsq(ONES, np.ones(4), damp=math.inf), ValueError, "damp: must"),
        (lambda: lk.lstsq(ONES, np.ones(4), k=0), ValueError, "k: must be at least 1"),
        (lambda: lk.lstsq(ONES, np.ones(4), k=2.5), TypeError, "k: must be an integer"),  # type: ignore[arg-type]
        (lambda: lk.lstsq(ONES, np.ones(4), on_fail="never"), ValueError, "on_fail: must"),  # type: ignore[arg-type]
        (lambda: lk.lstsq(ONES, np.ones(4)).interval(1.5), ValueError, "level: must"),
        (lambda: lk.lstsq(ONES, np.ones(4), rng="x"), TypeError, "rng"),
        (
            lambda: lk.lstsq(scipy.sparse.csr_array(ONES), np.ones(3)),
            ValueError,
            r"b: must have shape \(4,\)",
        ),
    ],
)
def test_bad_arguments(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
