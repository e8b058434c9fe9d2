"""Sketch and project: its formula, its laws, its answers, its failures."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from spectra import EPS, conditioned, gaussian, system

import linalgk as lk
from linalgk.errors import ConvergenceWarning
from linalgk.randomized import _project_steps

SKETCHES = ["block", "kaczmarz", "gaussian", "sparse"]


def steps(a, b, count, **options):
    """The iterate after so many steps."""
    options = {"on_fail": "warn", "max_iter": count, "tol": 4 * EPS["float64"]} | options
    with pytest.warns(ConvergenceWarning):
        return lk.sketch_project(a, b, **options)


def kkt(n, k, seed=0):
    """Of a constrained Newton step: indefinite, with a positive definite reduced Hessian."""
    hessian = gaussian((n, n), seed=seed)
    hessian = hessian @ hessian.T / n + np.eye(n)
    hessian[0, 0] -= 3  # negative somewhere, as far as the constraints allow
    jacobian = gaussian((k, n), seed=seed + 1)
    jacobian[0] = 0
    jacobian[0, 0] = 1
    return np.block([[hessian, jacobian.T], [jacobian, np.zeros((k, k))]])


# --- One step -------------------------------------------------------------------------------------


def test_a_step_of_kaczmarz_solves_one_equation(dtype):
    a, b, _ = system(12, 7, dtype)
    start = gaussian(7, dtype, 5)
    x = steps(a, b, 1, x0=start, sketch="kaczmarz", tol=4 * EPS[dtype])
    met = np.abs(a @ x - b) <= 50 * EPS[dtype] * np.linalg.norm(a, axis=1) * np.linalg.norm(start)
    assert met.sum() == 1
    (row,) = a[met]
    wanted = start + row.conj() * (b[met] - row @ start) / np.linalg.norm(row) ** 2
    assert np.linalg.norm(x - wanted) <= 50 * EPS[dtype] * np.linalg.norm(start)


@pytest.mark.parametrize("mix", [False, True])
def test_a_step_of_a_block_is_the_formula(dtype, mix):
    m, n, s = 20, 9, 4
    a, b, _ = system(m, n, dtype)
    start = gaussian(n, dtype, 5)
    options = {"x0": start, "block": s, "mix": mix, "momentum": False, "tol": 4 * EPS[dtype]}
    x = steps(a, b, 1, **options)
    # the step lies in the span of s equations, and solves those
    if not mix:
        limit = 100 * EPS[dtype] * np.linalg.norm(a, axis=1) * np.linalg.norm(start)
        met = np.abs(a @ x - b) <= limit
        assert met.sum() == s
        part = a[met]
        wanted = start + np.linalg.pinv(part) @ (b[met] - part @ start)
        assert np.linalg.norm(x - wanted) <= 500 * EPS[dtype] * np.linalg.norm(start)
    else:
        # of mixed rows: all residuals in the cosine transform of signed rows of one length
        turned = lk.sketch.SRCT(m, m, rng=lk.sketch.Philox(0).spawn(2)).toarray().astype(dtype)
        weights = 1 / np.linalg.norm(a, axis=1)
        mixed = turned @ (a * weights[:, None])
        left = np.abs(mixed @ x - turned @ (b * weights))
        assert (left <= 100 * EPS[dtype] * np.linalg.norm(start)).sum() == s


def test_gaussian_and_sparse_steps_are_the_formula():
    m, n, s = 30, 12, 5
    a, b, _ = system(m, n, "complex128")
    start = gaussian(n, "complex128", 5)
    source = lk.sketch.Philox(3)
    normals = np.reshape(source.spawn(3).normal(m * s), (m, s))
    stack = lk.sketch.SparseStack(s, m, nnz=5, rng=source.spawn(16)).toarray().T
    for sketch, matrix in (("gaussian", normals), ("sparse", stack)):
        x = steps(a, b, 1, x0=start, sketch=sketch, block=s, rng=3, momentum=False)
        part = matrix.T @ a
        wanted = start + part.conj().T @ np.linalg.pinv(part @ part.conj().T) @ (
            matrix.T @ (b - a @ start)
        )
        assert np.linalg.norm(x - wanted) <= 1e-12 * np.linalg.norm(start)


@pytest.mark.parametrize("sketch", SKETCHES)
def test_a_step_is_orthogonal_to_the_error_that_is_left(sketch, dtype):
    a, b, truth = system(40, 25, dtype)
    start = gaussian(25, dtype, 5)
    options = {"sketch": sketch, "momentum": False, "tol": 4 * EPS[dtype], "x0": start}
    options |= {"block": 6} if sketch != "kaczmarz" else {}
    before, error = start, np.linalg.norm(start - truth)
    for count in (1, 2, 3, 10):
        x = steps(a, b, count, **options)
        after = np.linalg.norm(x - truth)
        slack = 200 * EPS[dtype] * np.linalg.norm(truth)
        assert after <= error + slack
        if count < 4:  # one step more each time
            squares = after**2 + np.linalg.norm(x - before) ** 2
            assert abs(squares - error**2) <= 10 * slack * np.linalg.norm(truth)
        before, error = x, after


def test_single_rows_in_turn_whatever_number_is_computed_at_once():
    a, b, _ = system(50, 20)
    a[7] = 0
    b[7] = 0
    options = {"sketch": "kaczmarz", "probabilities": "uniform"}
    for count in (1, 5, 50, 75, 160):
        one = steps(a, b, count, block=1, **options)
        for block in (7, 32, 50):
            x = steps(a, b, count, block=block, **options)
            assert np.linalg.norm(x - one) < 1e-11 * np.linalg.norm(one)


# --- Laws -----------------------------------------------------------------------------------------


@pytest.mark.stat
def test_the_law_of_strohmer_and_vershynin():
    """Mean of 150 squared errors over its bound; a chance excess of 4.5 sigma: below 1e-5."""
    a = conditioned(20, 5, 4.0)
    truth = gaussian(5, seed=2)
    b, count = a @ truth, 40
    rate = 1 - np.linalg.svd(a, compute_uv=False)[-1] ** 2 / np.linalg.norm(a) ** 2
    errors = np.array(
        [np.sum((steps(a, b, count, sketch="kaczmarz", rng=i) - truth) ** 2) for i in range(150)]
    )
    bound = rate**count * (truth @ truth)
    spread = errors.std() / math.sqrt(len(errors))
    assert errors.mean() <= bound + 4.5 * spread
    # of the least singular direction the error falls by that rate exactly
    last = np.linalg.svd(a)[2][-1]
    shares = np.array(
        [(steps(a, a @ last, count, sketch="kaczmarz", rng=i) - last) @ last for i in range(150)]
    )
    wanted = -(rate**count)
    assert abs(shares.mean() - wanted) <= 4.5 * shares.std() / math.sqrt(len(shares))


@pytest.mark.stat
def test_rows_are_drawn_with_their_probabilities():
    """Chi squared of 3 degrees below 26: fails by chance with 1e-5."""
    a = np.diag([1.0, 2.0, 3.0, 0.5])
    wanted = {"norm": np.array([1, 4, 9, 0.25]) / 14.25, "uniform": np.full(4, 0.25)}
    wanted["given"] = np.array([0.4, 0.1, 0.2, 0.3])
    for name, p in wanted.items():
        given = p if name == "given" else name
        for sketch, block in (("kaczmarz", 1), ("block", 1)):
            options = {"sketch": sketch, "block": block, "probabilities": given, "mix": False}
            options |= {"momentum": False} if sketch == "block" else {}
            seen = np.zeros(4)
            for i in range(150):
                seen += steps(a, a @ np.ones(4), 1, rng=i, **options) != 0
            assert seen.sum() == 150
            assert ((seen - 150 * p) ** 2 / (150 * p)).sum() < 26


def test_blocks_are_drawn_anew_in_each_round():
    # with one partition only the rate would be 1e-12 in each sweep
    left = np.linalg.qr(gaussian((128, 128)))[0]
    right = np.linalg.qr(gaussian((128, 128), seed=1))[0]
    values = np.concatenate([np.geomspace(1e6, 1, 8), np.linspace(1, 0.5, 120)])
    a = (left * values) @ right
    b = a @ gaussian(128, seed=2)
    x, info = lk.sketch_project(a, b, block=32, tol=1e-11, max_iter=600, return_info=True)
    assert info.residual <= 1e-11
    assert np.linalg.norm(a @ x - b) <= 2e-11 * np.linalg.norm(b)


def test_momentum_takes_fewer_steps():
    a = conditioned(160, 80, 100)
    b = a @ gaussian(80)
    counts = [
        int(lk.sketch_project(a, b, momentum=on, return_info=True)[1].iterations)
        for on in (False, True)
    ]
    assert counts[1] < 0.5 * counts[0]


@pytest.mark.parametrize("momentum", [False, True])
def test_the_error_estimate_is_near_the_error(momentum):
    for a in (conditioned(200, 60, 30), conditioned(60, 60, 30), conditioned(40, 90, 20)):
        b = a @ gaussian(a.shape[1])
        truth = np.linalg.pinv(a) @ b
        for tol in (1e-3, 1e-8):
            x, info = lk.sketch_project(a, b, tol=tol, momentum=momentum, return_info=True)
            error = np.linalg.norm(x - truth) / np.linalg.norm(truth)
            assert error / 5 < info.error_estimate < 15 * error
            assert info.residual <= tol
            assert abs(info.residual / (np.linalg.norm(a @ x - b) / np.linalg.norm(b)) - 1) < 1e-3


# --- Solutions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("shape", [(60, 15), (15, 60), (16, 16)])
def test_solutions_of_least_norm(sketch, shape, dtype):
    a = conditioned(*shape, 3, dtype)
    b = a @ gaussian(shape[1], dtype)
    x, info = lk.sketch_project(a, b, sketch=sketch, return_info=True)
    tol = EPS[dtype] ** 0.5
    assert x.dtype == np.dtype(dtype)
    assert info.residual.dtype == x.real.dtype
    assert info.residual <= tol
    # ||x - x*|| <= kappa ||r|| / ||b|| ||x*||
    truth = np.linalg.pinv(a.astype(np.result_type(a, "float64"))) @ b
    assert np.linalg.norm(x - truth) <= 4 * tol * np.linalg.norm(truth)
    assert info.method == sketch
    assert bool(info.converged)


def test_matrices_without_full_rank_and_rows_that_come_twice():
    a = gaussian((30, 6)) @ gaussian((6, 12), seed=1)
    a[10:20] = a[:10]
    a[25] = 0
    b = a @ gaussian(12, seed=2)
    truth = np.linalg.pinv(a) @ b
    for options in ({}, {"mix": False}, {"block": 30}, {"probabilities": "norm", "mix": False}):
        x = lk.sketch_project(a, b, **options)
        assert np.linalg.norm(x - truth) < 1e-6 * np.linalg.norm(truth)
    # nearest to where it began
    start = gaussian(12, seed=3)
    x = lk.sketch_project(a, b, x0=start)
    assert np.linalg.norm(x - start - np.linalg.pinv(a) @ (b - a @ start)) < 1e-6


@pytest.mark.parametrize("delta", [3e-9, 1e-8, 3e-8, 1e-7])
def test_rows_that_are_nearly_the_same(delta):
    # the Gram matrix of a block has eigenvalues below rounding: those directions are left out, so
    # that no step takes x further away
    for seed in range(6):
        a = gaussian((24, 16), seed=seed)
        a[1::2] = a[::2] + delta * gaussian((12, 16), seed=seed + 50)
        truth = gaussian(16, seed=seed + 100)
        error = np.linalg.norm(truth)
        for count in (1, 2, 3, 4, 8):
            x = steps(a, a @ truth, count, block=12, mix=False, momentum=False)
            after = np.linalg.norm(x - truth)
            assert after <= error * (1 + 1e-12)
            error = after


def test_momentum_follows_its_recurrence():
    """Gower, Hanzely, Richtárik and Stich, algorithm 1: y, x and v with alpha, beta, gamma."""
    moving = _project_steps._Momentum(np.zeros(3), on=True)
    moving.mu, moving.v, nu = 0.1, np.array([3.0, 0.0, 1.0]), 4
    alpha, beta, gamma = 1 / (1 + 40**0.5), 1 - 0.025**0.5, 1 / 0.4**0.5
    x, v, change = np.array([1.0, 2.0, 0.0]), moving.v, np.array([0.5, 0.5, -1.0])
    y = moving.point(x, nu)
    assert np.abs(y - (alpha * v + (1 - alpha) * x)).max() < 1e-15
    assert np.abs(moving.move(y, change, nu) - y - change).max() == 0
    assert np.abs(moving.v - (beta * v + (1 - beta) * y + gamma * change)).max() < 1e-15


def test_rows_of_very_different_lengths():
    sizes = 10.0 ** np.random.default_rng(0).uniform(-6, 6, (80, 1))
    a = conditioned(80, 40, 5) * sizes
    truth = gaussian(40)
    start = {"sketch": "block", "tol": 1e-12}
    assert np.linalg.norm(lk.sketch_project(a, a @ truth, **start) - truth) < 1e-4
    whole = lk.sketch_project(a[:40], a[:40] @ truth, block=40, mix=False, tol=1e-10)
    assert np.linalg.norm(a[:40] @ whole - a[:40] @ truth) < 1e-9 * np.linalg.norm(a @ truth)


def test_a_step_of_constrained_newton():
    a = kkt(40, 10)
    assert np.linalg.eigvalsh(a)[0] < -0.1
    b = gaussian(50, seed=4)
    for sketch, tol in (("block", 1e-7), ("gaussian", 1e-2), ("sparse", 1e-2)):
        x = lk.sketch_project(a, b, sketch=sketch, tol=tol)
        assert np.linalg.norm(a @ x - b) <= 1.01 * tol * np.linalg.norm(b)


def test_accuracy_is_asked_for_as_the_iteration_goes_on():
    a = conditioned(100, 40, 30)
    b = a @ gaussian(40)
    seen = []

    def accuracy(state):
        seen.append((state.iteration, state.residual))
        assert np.linalg.norm(a @ state.x - b) / np.linalg.norm(b) == pytest.approx(
            state.residual, rel=1e-3, abs=1e-14
        )
        # sharper once it is reached
        return 1e-2 if len(seen) < 12 and state.residual > 1e-2 else 1e-5

    _, info = lk.sketch_project(a, b, accuracy=accuracy, block=10, return_info=True)
    assert info.residual <= 1e-5
    assert len(seen) > 20
    assert seen[0] == (0, 1.0)
    per_sweep = seen[1][0]
    assert [i for i, _ in seen] == [per_sweep * i for i in range(len(seen))]
    assert seen[-1] == (int(info.iterations), float(info.residual))
    with pytest.raises(ValueError, match=r"accuracy\(state\)"):
        lk.sketch_project(a, b, accuracy=lambda _: -1.0)


def test_a_callback_stops():
    a, b, _ = system(100, 20)

    def third(state):
        assert state.member == 0
        return state.iteration >= 12

    def stopping(state):
        if state.iteration >= 12:
            raise StopIteration

    for callback in (third, stopping):
        x, info = lk.sketch_project(a, b, callback=callback, return_info=True, block=6)
        assert int(info.iterations) == 17
        assert not bool(info.converged)
        assert np.isfinite(x).all()
    for look in (None, lambda _: None):
        x = lk.sketch_project(a, b, callback=look)
        assert np.linalg.norm(a @ x - b) <= 1.5e-8 * np.linalg.norm(b)


def test_columns_are_solved_together():
    a, _, _ = system(80, 30)
    b = a @ gaussian((30, 4), seed=3)
    b[:, 2] = 0
    b[:, 3] *= 1e-9
    x, info = lk.sketch_project(a, b, return_info=True)
    assert x.shape == (30, 4)
    assert not x[:, 2].any()
    left = np.linalg.norm(a @ x - b, axis=0) / np.where(b.any(axis=0), np.linalg.norm(b, axis=0), 1)
    assert left.max() <= 1.5e-8
    assert info.residual == pytest.approx(left.max(), rel=1e-3)
    assert info.residual.shape == ()
    start = lk.sketch_project(a, b, x0=x, return_info=True)
    assert int(start[1].iterations) == 0


@pytest.mark.parametrize(
    ("form", "kind"),
    [("csr_array", "complex128"), ("csc_array", "float64"), ("coo_matrix", "complex128")],
)
@pytest.mark.parametrize("sketch", SKETCHES)
def test_sparse_matrices(form, kind, sketch):
    rng = np.random.default_rng(0)
    dense = gaussian((90, 30), kind) * (rng.random((90, 30)) < 0.2) + np.eye(90, 30)
    a = getattr(scipy.sparse, form)(dense)
    b = dense @ np.ones(30)
    x = lk.sketch_project(a, b, sketch=sketch)
    assert np.linalg.norm(dense @ x - b) <= 1.5e-8 * np.linalg.norm(b)
    if sketch != "gaussian":
        options = {"sketch": sketch} | ({"mix": False} if sketch == "block" else {})
        assert np.abs(lk.sketch_project(dense, b, **options) - x).max() < 1e-7
    assert (a != getattr(scipy.sparse, form)(dense)).nnz == 0


class Counted(scipy.sparse.linalg.LinearOperator):
    """An operator that counts its products."""

    def __init__(self, a):
        super().__init__(a.dtype, a.shape)
        self.a, self.forward, self.back = a, 0, 0

    def _matmat(self, x):
        self.forward += x.shape[1]
        return self.a @ x

    def _rmatmat(self, y):
        self.back += y.shape[1]
        return self.a.conj().T @ y


@pytest.mark.parametrize("sketch", SKETCHES)
def test_operators(sketch):
    a, b, _ = system(50, 10, "complex128")
    operator = Counted(a)
    x, info = lk.sketch_project(operator, b, sketch=sketch, return_info=True, check_adjoint=True)
    assert np.linalg.norm(a @ x - b) <= 1.5e-8 * np.linalg.norm(b)
    if sketch in ("block", "kaczmarz"):
        # the columns, one for the test of the adjoint, the residuals
        assert operator.forward <= 11 + 1 + int(info.passes)
    wrong = scipy.sparse.linalg.LinearOperator(
        a.shape, matmat=lambda x: a @ x, rmatmat=lambda y: a.T @ y, matvec=lambda x: a @ x,
        rmatvec=lambda y: a.T @ y, dtype=a.dtype,
    )  # fmt: skip
    with pytest.raises(ValueError, match="adjoint"):
        lk.sketch_project(wrong, b, sketch=sketch, check_adjoint=True)


def test_passes_are_fewer_than_two_for_each_sweep():
    a, b, _ = system(640, 100)
    _, info = lk.sketch_project(a, b, tol=1e-12, block=40, return_info=True)
    sweeps = int(info.iterations) / 16
    # norm, lengths and transform of the rows; each sweep; a residual in some of them
    assert sweeps + 3 <= info.passes < 2 * sweeps + 4
