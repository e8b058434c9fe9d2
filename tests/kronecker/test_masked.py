"""`Masked`: products, equations and determinants between some points of a grid, against dense."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest

import linalgk as lk
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _masked, _masked_estimate, _masked_local
from linalgk.testing import to_numpy

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}


def rbf(p, ell, end=1.0):
    x = np.linspace(0, end, p)
    return np.exp(-0.5 * ((x[:, None] - x) / ell) ** 2)


def matern(p, ell, nu=0.5):
    x = np.linspace(0, 1, p)
    r = np.abs(x[:, None] - x) / ell
    return np.exp(-r) if nu == 0.5 else (1 + 3**0.5 * r) * np.exp(-(3**0.5) * r)


def turned(k, speed=3.0):
    """A complex kernel of the same eigenvalues."""
    u = np.exp(1j * speed * np.arange(len(k)))
    return u[:, None] * k * u.conj()


def kernels(dtype, sizes=(7, 5, 4)):
    found = [matern(p, 0.5, nu) for p, nu in zip(sizes, (1.5, 0.5, 1.5, 0.5), strict=False)]
    if np.dtype(dtype).kind == "c":
        found = [turned(k) for k in found]
    return [k.astype(dtype) for k in found]


def formed(factors, mask):
    """The block, in double precision at least."""
    k = functools.reduce(np.kron, [np.asarray(f).astype(np.result_type(f, "f8")) for f in factors])
    flat = mask.reshape(-1)
    return k[np.ix_(flat, flat)]


def random_mask(shape, missing, seed=0):
    return np.random.default_rng(seed).random(shape) >= missing


def heap(p=30):
    mask = np.ones((p, p), bool)
    mask[p // 4 : 2 * p // 3, p // 3 : 2 * p // 3] = False
    return mask


def draw(rng, shape, dtype="float64"):
    z = rng.standard_normal(shape)
    return (z + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else z).astype(dtype)


def library(xp):
    return (lambda x: x) if xp is np else xp.asarray


# --- Products ------------------------------------------------------------------------------------


def test_products_of_any_sizes(dtype, rng):
    for _ in range(20):
        sizes = rng.integers(1, 6, rng.integers(1, 5))
        factors = [draw(rng, (p, p), dtype) for p in sizes]
        mask = rng.random(tuple(sizes)) < 0.6
        A, want = lk.Kron(factors).masked(mask), formed(factors, mask)
        n = A.n
        assert A.shape == (n, n) == want.shape
        assert A.dtype == dtype
        assert A.n == np.count_nonzero(mask)
        # sums over the modes in turn, of numbers of about the size of the terms
        size = functools.reduce(np.kron, [np.abs(f) for f in factors]).sum(axis=1).max()
        tol = 8 * EPS[dtype] * sizes.sum() * size * 5
        x, y = draw(rng, (n, 3), dtype), draw(rng, (2, n), dtype)
        np.testing.assert_allclose(A.toarray(), want, atol=tol)
        np.testing.assert_allclose(A.diagonal(), np.diagonal(want), atol=tol)
        np.testing.assert_allclose(A @ x, want @ x, atol=tol)
        np.testing.assert_allclose(A @ x[:, 0], want @ x[:, 0], atol=tol)
        np.testing.assert_allclose(y @ A, y @ want, atol=tol)
        np.testing.assert_allclose(A.T @ x, want.T @ x, atol=tol)
        np.testing.assert_allclose(A.H @ x, want.conj().T @ x, atol=tol)
        np.testing.assert_allclose(A.rmatmat(x), want.conj().T @ x, atol=tol)


def test_points_go_onto_the_grid_and_back(xp, rng):
    mask = random_mask((4, 5, 3), 0.4)
    A = lk.Kron([np.eye(4), np.eye(5), np.eye(3)]).masked(mask)
    v = draw(rng, (2, A.n, 3))
    grid = to_numpy(A.embed(library(xp)(v)))
    assert grid.shape == (2, 60, 3)
    assert np.array_equal(grid[:, mask.reshape(-1)], v)
    assert not grid[:, ~mask.reshape(-1)].any()
    back = A.restrict(A.embed(library(xp)(v[0, :, 0])))
    assert type(back) is type(library(xp)(v))
    assert np.array_equal(to_numpy(back), v[0, :, 0])
    field = draw(rng, (4, 5, 3))
    assert np.array_equal(A.restrict(field.reshape(-1)), field[mask])


def test_a_mask_is_read_once_and_in_either_shape():
    mask = random_mask((4, 3), 0.3)
    given = mask.copy()
    K = lk.Kron([np.eye(4), np.eye(3)])
    A = K.masked(given)
    given[:] = True
    assert np.array_equal(A.mask, mask)
    assert not A.mask.flags.writeable
    assert A == K.masked(mask.reshape(-1)) == K.masked(mask.tolist())
    assert K.masked(~mask) != A
    assert lk.Kron([2 * np.eye(4), np.eye(3)]).masked(mask) != A
    assert repr(A).startswith(f"Masked({A.n} of 12 points, Kron(")


def test_copies_and_pickles():
    A = lk.Kron(kernels("float64"), assume_a="pos").masked(random_mask((7, 5, 4), 0.3))
    b = np.ones(A.n)
    x = A.solve(b, shift=0.1)
    for B in (pickle.loads(pickle.dumps(A)), copy.deepcopy(A)):
        assert B == A
        assert np.array_equal(B.solve(b, shift=0.1), x)
    scipys = A.to_scipy()
    np.testing.assert_allclose(scipys @ b, A @ b)


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones((3, 4)), TypeError, "bools"),
        (np.ones((4, 3), bool), ValueError, r"3\*4 = 12"),
        (np.ones(11, bool), ValueError, r"3\*4 = 12"),
        ("abc", TypeError, "mask"),
    ],
)
def test_wrong_masks(mask, error, words):
    with pytest.raises(error, match=words):
        lk.Kron([np.eye(3), np.eye(4)]).masked(mask)


def test_wrong_shapes():
    with pytest.raises(ValueError, match="square"):
        lk.Kron([np.ones((3, 2)), np.ones((2, 3))]).masked(np.ones(6, bool))
    A = lk.Kron([np.eye(3), np.eye(4)]).masked(random_mask((3, 4), 0.3))
    for act in (lambda x: A @ x, A.solve, A.embed):
        with pytest.raises(ValueError, match=f"needs {A.n} entries"):
            act(np.ones(12))
    with pytest.raises(ValueError, match=r"3\*4 = 12"):
        A.restrict(np.ones(A.n))
    with pytest.raises(TypeError, match="Kron"):
        _masked.Masked(np.eye(3), np.ones(3, bool))


# --- Equations -----------------------------------------------------------------------------------


def check_solution(A, factors, b, shift, tol, **options):
    """The residual is what it is said to be, and the error within its bound."""
    x, info = A.solve(b, shift=shift, tol=tol, return_info=True, **options)
    matrix = formed(factors, A.mask) + shift * np.eye(A.n)
    wide = np.asarray(x).astype(np.result_type(x, "f8"))
    rest, size = np.linalg.norm(b - matrix @ wide), np.linalg.norm(b)
    # rounding of the product with which it is measured
    noise = 20 * EPS[str(np.asarray(x).dtype)] * np.linalg.norm(matrix, 2) * np.linalg.norm(wide)
    assert abs(rest - info.residual * size) <= noise
    assert rest <= tol * size + noise
    exact = np.linalg.solve(matrix, b)
    error = np.linalg.norm(wide - exact) / np.linalg.norm(exact)
    least = np.linalg.eigvalsh(functools.reduce(np.kron, factors))[0] + shift
    assert error <= 1.01 * info.error_estimate + noise / least / np.linalg.norm(wide)
    bound = info.residual * size / least / np.linalg.norm(wide)
    assert abs(info.error_estimate - bound) <= 1e-3 * bound
    assert info.converged
    return x, info


@pytest.mark.parametrize("method", ["auto", "fill", "local"])
@pytest.mark.parametrize("missing", ["few", "half", "most", "heap"])
@pytest.mark.parametrize("shift", [1e-4, 1e-2, 1.0])
def test_solutions(method, missing, shift, rng):
    mask = {
        "few": random_mask((20, 16), 0.1),
        "half": random_mask((20, 16), 0.5),
        "most": random_mask((20, 16), 0.8),
        "heap": heap(20)[:, 2:18],
    }[missing]
    factors = [rbf(20, 0.3), matern(16, 0.2, 1.5)]
    A = lk.Kron(factors, assume_a="pos").masked(mask)
    _, info = check_solution(A, factors, draw(rng, A.n), shift, 1e-8, method=method)
    assert info.method in (method, "fill", "fill+local")


def test_solutions_in_every_precision(dtype, rng):
    factors, mask = kernels(dtype), random_mask((7, 5, 4), 0.3)
    A = lk.Kron(factors, assume_a="pos").masked(mask)
    b = draw(rng, A.n, dtype)
    x, info = check_solution(A, factors, b, 0.1, EPS[dtype] ** 0.5)
    assert x.dtype == dtype
    assert info.residual.dtype == np.dtype(dtype).type(0).real.dtype
    several = draw(rng, (A.n, 3), dtype)
    exact = np.linalg.solve(formed(factors, mask) + 0.1 * np.eye(A.n), several)
    np.testing.assert_allclose(A.solve(several, shift=0.1), exact, atol=20 * EPS[dtype] ** 0.5)


def test_solutions_in_every_library(xp, rng):
    factors, mask = kernels("float64"), random_mask((7, 5, 4), 0.3)
    put = library(xp)
    b = draw(rng, (len(mask[mask]), 2))
    A = lk.Kron([put(f) for f in factors]).masked(put(mask))
    want, about = lk.Kron(factors).masked(mask).solve(b, shift=0.1, return_info=True)
    x, info = A.solve(put(b), shift=0.1, return_info=True)
    assert type(x) is type(put(b))
    np.testing.assert_allclose(to_numpy(x), want, atol=1e-7)
    assert abs(float(info.residual)) < 1.5e-8
    assert bool(info.converged)
    assert info.method == about.method == "fill"
    whole = lk.Kron([put(f) for f in factors]).masked(put(mask)).logdet(shift=0.1)
    exact = np.linalg.slogdet(formed(factors, mask) + 0.1 * np.eye(A.n))[1]
    assert abs(float(whole.value) - exact) < 1e-11
    assert type(whole.value) is type(put(np.ones(()))) or xp is np


def test_mixed_dtypes(rng):
    factors, mask = kernels("float32"), random_mask((7, 5, 4), 0.3)
    A = lk.Kron(factors).masked(mask)
    z = draw(rng, A.n, "complex128")
    x = A.solve(z, shift=0.1)
    assert x.dtype == "complex128"
    exact = np.linalg.solve(formed(factors, mask) + 0.1 * np.eye(A.n), z)
    np.testing.assert_allclose(x, exact, atol=1e-6)
    assert A.solve(np.ones(A.n, int), shift=0.1).dtype == "float64"
    assert A.solve(z.real.astype("float32"), shift=0.1).dtype == "float32"


def test_nothing_missing_is_solved_at_once(rng):
    factors = kernels("float64")
    K = lk.Kron(factors, assume_a="pos")
    A = K.masked(np.ones((7, 5, 4), bool))
    b = draw(rng, (140, 2))
    x, info = A.solve(b, shift=0.1, return_info=True)
    assert (info.method, int(info.iterations)) == ("eigh", 0)
    np.testing.assert_allclose(x, K.solve(b, shift=0.1), atol=1e-12)
    # without noise, to the accuracy that refinement gives
    x, info = A.solve(b, tol=1e-12, return_info=True)
    assert info.residual <= 1e-12
    assert abs(A.logdet(shift=0.1).value - K.slogdet(shift=0.1).logabsdet) < 1e-11


def test_nothing_observed():
    A = lk.Kron([np.eye(3), np.eye(2)]).masked(np.zeros((3, 2), bool))
    assert (A @ np.ones(0)).shape == (0,)
    assert A.solve(np.ones((0, 2)), shift=1.0).shape == (0, 2)
    assert A.solve(np.ones(0), shift=1.0, return_info=True)[1].converged
    estimate = A.logdet(shift=1.0)
    assert (estimate.value, estimate.std_error) == (0, 0)
    assert A.toarray().shape == (0, 0)
    none = lk.Kron([np.eye(3)]).masked(np.array([True, False, True]))
    assert none.solve(np.ones((2, 0)), shift=1.0).shape == (2, 0)


def test_one_factor_and_many(rng):
    for sizes in [(30,), (2,) * 7, (1, 9, 1, 4)]:
        factors = [matern(p, 0.4) + 0.1 * np.eye(p) for p in sizes]
        mask = random_mask(sizes, 0.4)
        A = lk.Kron(factors).masked(mask)
        check_solution(A, factors, draw(rng, A.n), 0.0, 1e-10)
        exact = np.linalg.slogdet(A.toarray())[1]
        assert abs(A.logdet().value - exact) < 1e-10


def test_layouts_and_read_only_input(rng):
    factors, mask = kernels("float64"), random_mask((7, 5, 4), 0.3)
    want = lk.Kron(factors).masked(mask)
    b = draw(rng, (want.n, 4))
    strange = [np.asfortranarray(factors[0]), np.repeat(factors[1], 2, 0)[::2], factors[2][::-1]]
    strange[2] = strange[2][::-1]
    for f in (*strange, b):
        f.flags.writeable = False
    A = lk.Kron(strange).masked(np.asfortranarray(mask))
    x = want.solve(b, shift=0.1)
    for given in (b, np.asfortranarray(b), np.repeat(b, 2, 0)[::2]):
        np.testing.assert_allclose(A.solve(given, shift=0.1), x, atol=1e-12)


def test_zero_and_huge_right_hand_sides(rng):
    A = lk.Kron(kernels("float64")).masked(random_mask((7, 5, 4), 0.3))
    b = draw(rng, A.n)
    x = A.solve(b, shift=0.1)
    assert not A.solve(0 * b, shift=0.1).any()
    for scale in (1e-290, 1e290):
        np.testing.assert_allclose(A.solve(scale * b, shift=0.1), scale * x, rtol=1e-10)
    both = A.solve(np.stack([0 * b, 1e200 * b, b], axis=1), shift=0.1)
    np.testing.assert_allclose(both[:, 2], x, atol=1e-7)
    assert not both[:, 0].any()


# --- How it goes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("shift", [1e-4, 1e-2, 1.0])
def test_points_missing_here_and_there_take_few_steps(missing, shift, rng):
    """As the docstring says; the matrix has a condition of up to 1e7."""
    k = rbf(40, 0.2)
    A = lk.Kron([k, k], assume_a="pos").masked(random_mask((40, 40), missing, 3))
    x = np.linspace(0, 1, 40)
    y = np.sin(9 * x)[:, None] * np.cos(7 * x)
    b = A.restrict(y.reshape(-1)) + shift**0.5 * draw(rng, A.n)
    info = A.solve(b, shift=shift, tol=1e-8, return_info=True)[1]
    assert info.method == "fill"
    assert info.iterations <= 30


def test_heaps_are_filled_in_from_their_neighbours(rng):
    k = matern(30, 0.2)
    A = lk.Kron([k, k], assume_a="pos").masked(heap())
    b = draw(rng, A.n)
    steps = {
        m: int(A.solve(b, shift=1e-2, method=m, return_info=True)[1].iterations)
        for m in ("fill", "local", "auto")
    }
    assert steps["local"] < 0.4 * steps["fill"]
    # what is tried first is not lost
    assert steps["auto"] < steps["local"] + 40


def test_weights_are_the_variances_that_neighbours_leave():
    """With all observed points for neighbours they are the conditional variances."""
    factors, mask = [matern(6, 0.5), 2 * matern(5, 0.4, 1.5)], heap(6)[:, :5]
    k, shift = np.kron(*factors), 0.05
    seen, hidden = np.flatnonzero(mask), np.flatnonzero(~mask)
    assert len(seen) <= 32
    found = _masked_local.weights(factors, seen, hidden, shift)
    inside = k[np.ix_(seen, seen)] + shift * np.eye(len(seen))
    across = k[np.ix_(hidden, seen)]
    v = np.diag(k[np.ix_(hidden, hidden)] - across @ np.linalg.solve(inside, across.T))
    np.testing.assert_allclose(found**2 * np.diag(k)[hidden], v**2 / (v + 10 * shift), rtol=1e-9)
    # nothing is told by what is far, everything by what is alike and known exactly
    far = _masked_local.weights([np.eye(6), np.eye(5)], seen, hidden, 0.0)
    assert np.array_equal(far, np.ones(len(hidden)))
    alike = _masked_local.weights([np.ones((6, 6)), np.ones((5, 5))], seen, hidden, 1e-9)
    assert alike.max() < 1e-3


def test_a_batch_of_factors(rng):
    first = np.stack([matern(6, 0.3), matern(6, 0.8), rbf(6, 0.4)])[:, None]
    second = np.stack([matern(5, 0.5), matern(5, 0.2)])
    mask = random_mask((6, 5), 0.4)
    A = lk.Kron([first, second], assume_a="pos").masked(mask)
    assert A.batch == (3, 2)
    shift = rng.uniform(0.05, 1, (3, 2))
    b = draw(rng, (A.n, 2))
    x, info = A.solve(b, shift=shift, return_info=True)
    assert x.shape == (3, 2, A.n, 2)
    assert info.residual.shape == info.converged.shape == (3, 2)
    estimate = A.logdet(shift=shift)
    guess = A.logdet(shift=shift, method="slq", n_matvecs=60, rng=0)
    low, high = guess.interval(0.9999)
    for i, j in np.ndindex(3, 2):
        one = lk.Kron([first[i, 0], second[j]], assume_a="pos").masked(mask)
        matrix = one.toarray() + shift[i, j] * np.eye(A.n)
        np.testing.assert_allclose(x[i, j], np.linalg.solve(matrix, b), atol=1e-6)
        exact = np.linalg.slogdet(matrix)[1]
        assert abs(estimate.value[i, j] - exact) < 1e-11
        assert low[i, j] <= exact <= high[i, j]
    wide = A.solve(draw(rng, (3, 2, A.n, 1)), shift=0.1)
    assert wide.shape == (3, 2, A.n, 1)
    vector = A.solve(b[:, 0], shift=shift)
    np.testing.assert_allclose(vector, x[..., 0], atol=1e-6)


# --- What goes wrong -----------------------------------------------------------------------------


def test_bad_members_leave_the_others_alone(rng):
    good, mask = matern(6, 0.5), random_mask((6, 6), 0.3)
    bad = np.stack([good, np.where(good == 1, np.nan, good), -good, good])
    b = draw(rng, len(mask[mask]))
    A = lk.Kron([bad, good]).masked(mask)
    want = lk.Kron([good, good]).masked(mask).solve(b, shift=0.1)
    x, info = A.solve(b, shift=0.1, on_fail="nan", return_info=True)
    assert info.converged.tolist() == [True, False, False, True]
    np.testing.assert_allclose(x[[0, 3]], np.stack([want, want]), atol=1e-7)
    assert np.isnan(x[1:3]).all()
    with pytest.raises((NonFiniteError, NotPositiveSemidefiniteError)) as caught:
        A.solve(b, shift=0.1)
    np.testing.assert_allclose(caught.value.result[0], want, atol=1e-7)
    estimate = A.logdet(shift=0.1, on_fail="nan")
    assert np.isnan(estimate.value).tolist() == [False, True, True, False]
    with pytest.warns(ConvergenceWarning, match=r"members \(2,\)"):
        lk.Kron([np.stack([good, good, -good]), good]).masked(mask).logdet(0.1, on_fail="warn")


def test_not_positive_definite_on_the_whole_grid():
    ones = np.ones((4, 4))
    A = lk.Kron([ones, matern(4, 0.5)]).masked(random_mask((4, 4), 0.5))
    for call in (lambda: A.solve(np.ones(A.n)), A.logdet):
        with pytest.raises(SingularMatrixError, match="give a shift above"):
            call()
    B = lk.Kron([matern(4, 0.5) - 0.9 * np.eye(4), np.eye(4)]).masked(A.mask)
    with pytest.raises(NotPositiveSemidefiniteError, match="larger shift"):
        B.solve(np.ones(A.n), shift=0.1)
    assert B.solve(np.ones(A.n), shift=1.0).shape == (A.n,)
    C = lk.Kron([np.triu(ones), np.eye(4)]).masked(A.mask)
    assert (C @ np.ones(A.n)).shape == (A.n,)
    with pytest.raises(AsymmetricError, match=r"factors\[0\]"):
        C.solve(np.ones(A.n), shift=1.0)


def test_a_nan_stays_in_its_column(rng):
    A = lk.Kron(kernels("float64")).masked(random_mask((7, 5, 4), 0.3))
    b = draw(rng, (A.n, 3))
    x = A.solve(b, shift=0.1)
    b[4, 1] = np.inf
    with pytest.raises(NonFiniteError, match="b holds"):
        A.solve(b, shift=0.1)
    found = A.solve(b, shift=0.1, on_fail="nan")
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[:, [0, 2]], x[:, [0, 2]], atol=1e-7)
    assert np.isnan(A.solve(b, shift=0.1, check_finite=False)[:, 1]).all()


def test_too_few_steps(rng):
    k = rbf(20, 0.3)
    A = lk.Kron([k, k]).masked(heap(20))
    b = draw(rng, A.n)
    with pytest.raises(NotConvergedError, match="max_iter = 2") as caught:
        A.solve(b, shift=1e-4, max_iter=2)
    assert np.isfinite(caught.value.result).all()
    with pytest.warns(ConvergenceWarning, match="after 2 steps"):
        x, info = A.solve(b, shift=1e-4, max_iter=2, on_fail="warn", return_info=True)
    assert not info.converged
    rest = np.linalg.norm(b - A @ x - 1e-4 * x) / np.linalg.norm(b)
    assert abs(rest - info.residual) < 1e-9
    assert np.isnan(A.solve(b, shift=1e-4, max_iter=2, on_fail="nan")).all()
    small = lk.Kron([k.astype("f"), k.astype("f")]).masked(heap(20))
    with pytest.raises(NotConvergedError, match="wider dtype"):
        small.solve(b.astype("f"), shift=1e-3, tol=2e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"shift": -0.1}, ValueError, "shift"),
        ({"shift": np.ones(3)}, ValueError, "shift"),
        ({"shift": "a"}, TypeError, "shift"),
        ({"shift": 1.0, "tol": 1e-16}, ValueError, "tol"),
        ({"shift": 1.0, "tol": 0.0}, ValueError, "tol"),
        ({"shift": 1.0, "max_iter": 0}, ValueError, "max_iter"),
        ({"shift": 1.0, "method": "jacobi"}, ValueError, "method"),
        ({"shift": 1.0, "on_fail": "no"}, ValueError, "on_fail"),
    ],
)
def test_wrong_options(options, error, words):
    A = lk.Kron([np.eye(3), np.eye(4)]).masked(random_mask((3, 4), 0.3))
    with pytest.raises(error, match=words):
        A.solve(np.ones(A.n), **options)


# --- Determinants --------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.05, 0.4, 0.95])
@pytest.mark.parametrize("sizes", [(30,), (8, 9), (4, 5, 6), (2, 3, 2, 3, 2)])
def test_exact_determinants(sizes, missing, dtype):
    factors = [f + 0.1 * np.eye(len(f)) for f in (matern(p, 0.4) for p in sizes)]
    if np.dtype(dtype).kind == "c":
        factors = [turned(f) for f in factors]
    factors, mask = [f.astype(dtype) for f in factors], random_mask(sizes, missing, 1)
    A = lk.Kron(factors, assume_a="pos").masked(mask)
    exact = np.linalg.slogdet(formed(factors, mask) + 0.2 * np.eye(A.n))[1]
    estimate = A.logdet(shift=0.2)
    # n roundings relative to eigenvalues of 0.2 and more
    assert abs(estimate.value - exact) <= 20 * EPS[dtype] * max(A.n, abs(exact))
    assert abs(estimate.value - exact) <= 3 * (estimate.bounds[1] - estimate.bounds[0])
    assert estimate.std_error == 0
    assert estimate.dof == math.inf
    assert estimate.method == "cholesky"
    assert estimate.converged


def test_both_blocks_say_the_same():
    factors, mask = [rbf(12, 0.3), matern(9, 0.4)], random_mask((12, 9), 0.5)
    A = lk.Kron(factors, assume_a="pos").masked(mask)
    grid = A._grid(*A._entered(), 1e-2)[0]
    whole = np.linalg.inv(np.kron(*factors) + 1e-2 * np.eye(108))
    hidden = ~mask.reshape(-1)
    block = _masked_estimate.missing_block(grid)
    np.testing.assert_allclose(block, whole[np.ix_(hidden, hidden)], atol=1e-9)
    exact = np.linalg.slogdet(A.toarray() + 1e-2 * np.eye(A.n))[1]
    value = np.log(grid.d).sum() + np.linalg.slogdet(block)[1]
    assert abs(value - exact) < 1e-9
    scaled = _masked_estimate.Scaled(grid)
    np.testing.assert_allclose(scaled.diagonal[:, 0], np.diag(block), rtol=1e-9)
    low, high = np.linalg.eigvalsh(scaled @ np.eye(grid.m))[[0, -1]]
    assert scaled.bounds[0] <= low <= high <= scaled.bounds[1]


def test_choices():
    choose = _masked_estimate.choose_logdet
    assert choose(100, 0, (10, 10))[0] == "eigh"
    assert choose(128_000, 32_000, (400, 400))[0] == "slq"
    assert choose(158_400, 1600, (400, 400))[:2] == ("cholesky", "missing")
    assert choose(1500, 158_500, (400, 400))[:2] == ("cholesky", "observed")
    # derivatives by all missing points cost more than the value
    assert choose(158_400, 1600, (400, 400), gradient=True)[0] == "slq"
    assert choose(158_400, 1600, (400, 400), "slq")[0] == "slq"
    assert choose(128_000, 32_000, (400, 400), "cholesky")[:2] == ("cholesky", "missing")
    # rows of a group of modes
    assert _masked_estimate.split(50, (30,))[0] == 0
    assert _masked_estimate.split(500, (40, 40))[0] == 1
    assert _masked_estimate.split(500, (20, 20, 20))[0] == 1


@pytest.mark.parametrize(("kernel", "missing"), [("rbf", 0.2), ("matern", 0.5), ("heap", 0.0)])
def test_estimates_have_the_law_that_they_say(kernel, missing):
    """95 % intervals of 60 seeds: fewer than 48 hits have probability 1e-5."""
    k = rbf(18, 0.3) if kernel == "rbf" else matern(18, 0.3)
    mask = heap(18) if kernel == "heap" else random_mask((18, 18), missing)
    A = lk.Kron([k, k], assume_a="pos").masked(mask)
    exact = A.logdet(shift=0.05).value
    hits, errors, told = 0, [], []
    for seed in range(60):
        estimate = A.logdet(shift=0.05, method="slq", n_matvecs=150, rng=seed)
        low, high = estimate.interval(0.95)
        hits += low <= exact <= high
        errors.append(estimate.value - exact)
        told.append(estimate.std_error)
        assert estimate.n_matvecs <= 200
    assert hits >= 48
    # chi-square with 60 degrees of freedom
    assert 0.6 < np.mean(np.square(errors)) / np.mean(np.square(told)) < 1.6


def test_the_exact_part_takes_most_of_the_error():
    """Against Lanczos quadrature of the observed points' block, for the same number of products."""
    k = rbf(40, 0.2)
    A = lk.Kron([k, k], assume_a="pos").masked(random_mask((40, 40), 0.2))
    mine = A.logdet(shift=1e-2, method="slq", n_matvecs=100, rng=0)
    matrix = A.toarray() + 1e-2 * np.eye(A.n)
    plain = lk.estimate_logdet(matrix, 100, method="slq", rng=0)
    assert mine.std_error < 0.02 * plain.std_error
    exact = np.linalg.slogdet(matrix)[1]
    assert abs(mine.value - exact) < 5 * mine.std_error


def test_targets_and_seeds():
    k = matern(30, 0.2)
    A = lk.Kron([k, k], assume_a="pos").masked(random_mask((30, 30), 0.3))
    exact = A.logdet(shift=0.1).value
    rough = A.logdet(shift=0.1, method="slq", tol=1e-2, rng=3)
    fine = A.logdet(shift=0.1, method="slq", tol=5e-4, rng=3)
    assert rough.n_matvecs < fine.n_matvecs
    assert fine.std_error > 0
    low, high = fine.interval()
    assert high - low <= 2 * 5e-4 * abs(exact) * 1.01
    assert abs(fine.value - exact) < 1e-3 * abs(exact)
    again = A.logdet(shift=0.1, method="slq", tol=1e-2, rng=rough.seed)
    assert again.value == rough.value
    # every unit vector, where more random ones would be needed: no error is left
    full = A.logdet(shift=0.1, method="slq", tol=1e-6, rng=3)
    assert full.std_error == 0
    assert abs(full.value - exact) < 1e-6 * abs(exact)


def test_targets_that_cannot_be_met():
    k = matern(60, 0.2)
    A = lk.Kron([k, k], assume_a="pos").masked(random_mask((60, 60), 0.5))
    with pytest.raises(NotConvergedError, match="n_matvecs"):
        A.logdet(shift=1e-4, tol=1e-7, n_matvecs=60, method="slq", rng=0)
    for options in ({"tol": 1e-16}, {"n_matvecs": 1}, {"level": 1.0}, {"method": "lu"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            A.logdet(shift=0.1, **options)


# --- Records -------------------------------------------------------------------------------------


def test_samples_and_explanations(xp):
    args, kwargs = _masked.sample("small", xp=xp, rng=0)
    A = _masked.Masked(*args, **kwargs)
    assert A.batch == ()
    explanation = _masked.explain_masked(*args)
    assert explanation.method == "auto"
    assert explanation.flops > 0
    assert explanation.bytes > 0
    full = _masked.explain_masked(args[0], np.ones(A.mask.size, bool))
    assert full.method == "eigh"
