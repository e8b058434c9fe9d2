"""Tucker decompositions: the tolerance is met in the true error, which the result knows."""

import numpy as np
import pytest

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.tensor import _unfold
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._tucker import explain_tucker, sample_tucker, tucker
from linalgk.tensor._tucker_choice import choose_method


def rotated(rng, shape, rate=4, dtype="float64"):
    """Superdiagonal 10^(-k/rate), rotated in every mode: the singular values of all unfoldings."""
    x = np.zeros(shape, dtype="complex128" if "complex" in dtype else "float64")
    i = np.arange(min(shape))
    x[(i,) * len(shape)] = 10.0 ** (-i / rate)
    for mode, n in enumerate(shape):
        g = rng.standard_normal((n, n))
        g = g + 1j * rng.standard_normal((n, n)) if "complex" in dtype else g
        x = _unfold.mode_product(x, np.linalg.qr(g)[0], mode)
    return np.ascontiguousarray(x.astype(dtype))


def dense(t):
    x = np.asarray(t.core, dtype="complex128")
    for mode, u in enumerate(t.factors):
        x = np.moveaxis(np.tensordot(np.asarray(u), x, axes=(1, mode)), 0, mode)
    return x


def true_error(t, x):
    x = np.asarray(x)
    return np.linalg.norm((dense(t) - x).ravel()) / np.linalg.norm(x.astype("complex128").ravel())


def singular_values(x, mode):
    flat = np.moveaxis(x, mode, 0).reshape(x.shape[mode], -1)
    return np.linalg.svd(flat, compute_uv=False)


def check(t, x, tol, rel=1e-3):
    """Tolerance, honesty and orthonormal columns."""
    error = true_error(t, x)
    eps = np.finfo(t.core.dtype).eps
    assert error <= tol
    assert t.converged
    # the same numbers in another order of rounding
    assert abs(t.error - error) <= rel * error + 8 * eps
    for u in t.factors:
        assert np.linalg.norm(u.conj().T @ u - np.eye(u.shape[1])) <= 40 * eps * u.shape[1] ** 0.5


@pytest.fixture(scope="module")
def cube():
    return rotated(np.random.default_rng(1), (80, 80, 80))


# --- Tolerance -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("tol", "rank"), [(1e-6, 25), (1e-9, 37), (1e-12, 49)])
def test_tolerance_double(cube, tol, rank):
    """The tail after r singular values is 10^(-r/4) of the norm, so that ranks are known.

    Without the last of them the error would be the tolerance, which rounding may decide.
    """
    t = tucker(cube, tol=tol)
    check(t, cube, tol)
    assert all(rank - 1 <= r <= rank for r in t.ranks)
    assert t.method == "st_hosvd"


@pytest.mark.parametrize(("tol", "rank"), [(1e-3, 13), (1e-5, 21)])
def test_tolerance_single(cube, tol, rank):
    x = cube.astype(np.float32)
    t = tucker(x, tol=tol)
    assert t.core.dtype == np.float32
    check(t, x, tol, rel=1e-2)
    assert t.ranks == (rank,) * 3


@pytest.mark.parametrize("method", ["st_hosvd", "hooi", "randomized", "streaming"])
def test_tolerance_any_shape(method):
    """1/(x+y+..): ranks differ by mode; no method needs more than one beyond what any would."""
    g = np.ogrid[tuple(slice(0.02, 1, 1j * n) for n in (17, 30, 9, 12))]
    x = 1 / (g[0] + 2 * g[1] + g[2] + 0.5 * g[3])
    values = [singular_values(x, k) for k in range(4)]
    for tol in (1e-2, 1e-5, 1e-10):
        t = tucker(x, tol=tol, method=method)
        check(t, x, tol)
        # no tensor of this error has smaller ranks than an unfolding needs alone
        square = (tol * np.linalg.norm(x)) ** 2
        least = [np.count_nonzero(np.cumsum(s[::-1] ** 2)[::-1] > square) for s in values]
        assert all(a <= b <= a + 1 for a, b in zip(least, t.ranks, strict=True))
        done = "randomized+st_hosvd" if method == "randomized" and tol < 1e-6 else method
        assert t.method == done


def test_unfoldings_to_eps(cube):
    """Products alone give the singular values of a factorisation by reflections."""
    for mode in range(3):
        s = np.linalg.svd(_unfold.triangle(cube, mode))[1]
        # eps of the largest; what the Gram matrix gives is near 1e-8
        assert np.abs(s - 10.0 ** (-np.arange(80) / 4)).max() < 2e-14
    x = cube[:7, :50, :6] + 1j * cube[7:14, :50, :6]
    for mode in range(3):
        low = _unfold.triangle(x, mode)
        want, got = singular_values(x, mode), np.linalg.svd(low)[1]
        assert np.abs(got - want[: len(got)]).max() < 1e-15 * want[0] * 50


def test_unused_budget_is_passed_on():
    """A mode of exact rank leaves its share to the others."""
    rng = np.random.default_rng(3)
    base = rotated(rng, (30, 30))
    x = base[:, :, None] * np.ones(20)
    t = tucker(x, tol=1.5e-3)
    # the tail after 12 is 1e-3, more than 1.5e-3 / 3^(1/2)
    assert t.ranks == (12, 12, 1)
    check(t, x, 1.5e-3)


def test_below_precision(cube):
    x = cube[:20, :20, :20].copy()
    with pytest.warns(ConvergenceWarning, match="tol=1e-17 was not reached, float64 has eps"):
        t = tucker(x, tol=1e-17)
    assert not t.converged
    assert t.error <= 1e-14
    assert true_error(t, x) == pytest.approx(t.error, rel=0.5)
    with pytest.raises(NotConvergedError) as caught:
        tucker(x, tol=1e-17, on_fail="raise")
    assert not caught.value.result.converged
    assert not tucker(x, tol=0.0, on_fail="nan").converged


def test_error_is_measured(cube, monkeypatch):
    """A truncation that loses more than it says is found out, and tried again."""
    honest, budgets = _unfold.st_hosvd, []

    def lossy(x, *, budget, method="auto"):
        budgets.append(budget)
        return honest(x, budget=budget * (1e4 if len(budgets) == 1 else 1), method=method)

    monkeypatch.setattr(_unfold, "st_hosvd", lossy)
    t = tucker(cube, tol=1e-6)
    assert len(budgets) == 2
    check(t, cube, 1e-6)


# --- Ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["st_hosvd", "randomized", "hooi"])
def test_ranks(method):
    """Quasi-optimal: at most sqrt(d) times what the tails of the unfoldings say is necessary."""
    (x,), options = sample_tucker("medium", rng=2)
    t = tucker(x, **options, method=method, rng=5)
    assert t.ranks == (8, 8, 8)
    check(t, x, 1e-2)
    tails = [np.sum(singular_values(x, k)[8:] ** 2) for k in range(3)]
    square = np.linalg.norm(x) ** 2
    assert max(tails) <= t.error**2 * square * (1 + 1e-6)
    assert t.error**2 * square <= sum(tails)


def test_randomized_is_a_function_of_its_seed():
    (x,), _ = sample_tucker("medium", rng=2)
    one, two, other = (
        tucker(x, ranks=4, method="randomized", rng=s) for s in (7, 7, np.random.default_rng(1))
    )
    assert (one.core == two.core).all()
    assert (one.core != other.core).any()
    best = tucker(x, ranks=4, method="st_hosvd").error
    # the spectrum is nearly flat after rank 4; probability of failing by chance below 1e-6
    assert one.error <= 1.02 * best
    assert other.error <= 1.02 * best


@pytest.mark.parametrize("shape", [(7,), (1, 1), (9, 1, 4), (40, 3, 2), (2, 50), (3, 4, 2, 3, 2)])
def test_small_shapes(rng, shape):
    x = rng.standard_normal(shape)
    for method in ("auto", "hooi", "randomized"):
        t = tucker(x, tol=1e-9, method=method)
        assert t.shape == shape
        check(t, x, 1e-9)
        full = tucker(x, ranks=max(shape), method=method)
        assert true_error(full, x) <= 1e-13
        one = tucker(x, ranks=1, method=method)
        assert one.ranks == (1,) * len(shape)


# --- Layouts and libraries -----------------------------------------------------------------------


def test_dtypes_and_layouts(dtype):
    rng = np.random.default_rng(8)
    x = rotated(rng, (12, 15, 10), rate=3, dtype=dtype)
    tol, ranks = 1e-4, (3, 4, 5)
    twice = np.zeros((12, 30, 10), dtype=dtype)
    twice[:, ::2] = x
    still = x.copy()
    still.flags.writeable = False
    swapped = x.astype(x.dtype.newbyteorder())
    for method in ("st_hosvd", "hooi", "randomized"):
        want = tucker(x, tol=tol, method=method)
        check(want, x, tol, rel=2e-2)
        for given in (np.asfortranarray(x), twice[:, ::2], still, swapped):
            before = given.copy()
            t = tucker(given, tol=tol, method=method)
            check(t, x, tol, rel=2e-2)
            assert t.core.dtype == x.dtype
            assert t.shape == x.shape
            assert np.abs(np.subtract(t.ranks, want.ranks)).max() <= 1
            assert (given == before).all()
        assert tucker(np.asfortranarray(x), ranks=ranks, method=method).ranks == ranks


@pytest.mark.parametrize("precision", [32, 64])
def test_libraries(xp, precision):
    rng = np.random.default_rng(9)
    for dtype in (f"float{precision}", f"complex{2 * precision}"):
        host = rotated(rng, (10, 12, 9), rate=3, dtype=dtype)
        x = xp.asarray(host)
        for options in ({"tol": 1e-4}, {"ranks": (3, 4, 5), "method": "randomized"}, {"ranks": 4}):
            t = tucker(x, **options)
            want = tucker(host, **options)
            assert type(t.core) is type(x)
            assert t.core.dtype == x.dtype
            assert t.ranks == want.ranks
            assert t.error == pytest.approx(want.error, rel=2e-3)
            gap = np.linalg.norm(np.asarray(t.toarray()) - dense(want)) / np.linalg.norm(host)
            # leading subspaces are a third of a decade from the rest
            assert gap <= 1e3 * np.finfo(host.dtype).eps
        assert tucker(x, ranks=4, method="hooi").error <= want.error * (1 + 1e-3)


def test_integers_and_lists():
    x = np.arange(24).reshape(2, 3, 4)
    t = tucker(x, tol=1e-12)
    assert t.core.dtype == np.float64
    check(t, x, 1e-12)
    assert tucker(x.tolist(), tol=1e-12).ranks == t.ranks == (2, 2, 2)


def test_scales(cube):
    """Squares overflow, or vanish, and the tolerance is met all the same."""
    x = cube[:15, :12, :13].copy()
    want = tucker(x, tol=1e-7)
    for scale in (2.0**900, 2.0**-900):
        t = tucker(x * scale, tol=1e-7)
        assert t.ranks == want.ranks
        assert np.abs(t.core / scale - want.core).max() <= 1e-15 * np.abs(want.core).max() * 50

    single = cube[:30, :31, :32].astype(np.float32)
    error = tucker(single, ranks=2, method="randomized").error
    for scale in (2.0**100, 2.0**-100):
        t = tucker(single * np.float32(scale), ranks=2, method="randomized")
        assert t.error == pytest.approx(error, rel=1e-4)
    for dtype in (np.float32, np.float64, np.complex128):
        with pytest.raises(ValueError, match="norm, which a core holds, overflows"):
            tucker(np.full((9, 9), 0.9 * np.finfo(dtype).max, dtype), tol=1e-3)


def test_nothing_and_zero():
    for shape in ((0, 3, 4), (3, 0), (0,)):
        t = tucker(np.zeros(shape, np.float32), tol=1e-3)
        assert t.shape == shape
        assert t.core.dtype == np.float32
        assert (t.error, t.converged) == (0.0, True)
    t = tucker(np.zeros((3, 4, 5)), tol=1e-3)
    assert t.ranks == (1, 1, 1)
    assert (t.error, t.converged) == (0.0, True)
    assert not t.toarray().any()


# --- Other kinds ---------------------------------------------------------------------------------


def test_formats(rng):
    factors = [rng.standard_normal((n, 4)) for n in (8, 9, 7)]
    canonical = CanonicalTensor(np.array([1.0, 1e-3, 1e-7, 1e-9]), factors)
    x = canonical.toarray()
    t = tucker(canonical, tol=1e-5)
    assert true_error(t, x) <= 1e-5
    assert t.ranks == (2, 2, 2)
    again = tucker(t, tol=1e-2)
    assert again.ranks == (1, 1, 1)
    assert true_error(again, x) <= 1e-2 + 1e-5
    with pytest.raises(ValueError, match="a CanonicalTensor is reduced by 'auto' only"):
        tucker(canonical, tol=1e-5, method="hooi")


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "options", "error", "text"),
    [
        (np.ones((2, 2)), {}, TypeError, "give tol=, a relative error, or ranks="),
        (np.ones((2, 2)), {"tol": 0.1, "ranks": 2}, ValueError, "give ranks or tol, not both"),
        (np.ones((2, 2)), {"tol": -0.1}, ValueError, "tol: must satisfy"),
        (np.ones((2, 2)), {"tol": "a"}, TypeError, "tol: must be a real number"),
        (np.ones((2, 2)), {"ranks": (1, 2, 3)}, ValueError, "one for each of 2 modes"),
        (np.ones((2, 2)), {"ranks": 0}, ValueError, "must be at least 1"),
        (np.ones((2, 2)), {"ranks": 1.5}, TypeError, "must be an integer"),
        (np.ones((2, 2)), {"ranks": 1, "method": "svd"}, ValueError, "method: must be one of"),
        (np.ones((2, 2)), {"ranks": 1, "max_iter": -1}, ValueError, "max_iter"),
        (np.float64(3.0), {"ranks": 1}, ValueError, "must have one mode or more"),
        (np.ma.ones((2, 2)), {"ranks": 1}, TypeError, "masked"),
        (np.array([["a"]]), {"ranks": 1}, TypeError, "dtype"),
        ("abc", {"ranks": 1}, TypeError, "must be an array"),
        (3, {"ranks": 1}, ValueError, "must have one mode or more"),
    ],
)  # fmt: skip
def test_bad_arguments(x, options, error, text):
    with pytest.raises(error, match=text):
        tucker(x, **options)


def test_sparse_and_gradients():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="toarray"):
        tucker(sparse.eye_array(3), tol=0.1)
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        tucker(torch.ones((2, 2), requires_grad=True), tol=0.1)
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda x: tucker(x, ranks=1).core)(jax.numpy.ones((2, 2)))


def test_not_finite(dtype):
    for value in (np.nan, np.inf):
        x = np.ones((3, 4, 5), dtype=dtype)
        x[1, 2, 3] = value
        with pytest.raises(NonFiniteError, match="x: holds NaN or infinity"):
            tucker(x, tol=1e-3)
        for options in ({"on_fail": "nan"}, {"check_finite": False}):
            t = tucker(x, tol=1e-3, **options)
            assert not t.converged
            assert np.isnan(t.error)
            assert t.shape == x.shape


# --- Choice --------------------------------------------------------------------------------------


def test_choice():
    """Ranks decide: projections where they are a small part of the first mode."""
    assert choose_method((400,) * 3, "float64", None, [20] * 3).method == "randomized"
    assert choose_method((80,) * 3, "float64", None, [40] * 3).method == "st_hosvd"
    assert choose_method((400,) * 3, "float64", 1e-3, None).method == "st_hosvd"
    assert choose_method((400,), "float64", None, [1]).method == "st_hosvd"
    x = np.empty((400,) * 3, np.float32)
    chosen = explain_tucker(x, ranks=20)
    assert chosen.method == "randomized"
    assert "operations" in chosen.reason
    # no less than a look at all numbers, no more than Gram matrices
    assert x.nbytes <= chosen.bytes
    assert x.size <= chosen.flops <= 2 * x.size * 400
    assert explain_tucker(x, tol=1e-5, method="randomized").method == "randomized+st_hosvd"
    assert explain_tucker(iter([]), ranks=2).method == "one_pass"
    assert explain_tucker(lk.RowBlocks([]), ranks=2).method == "streaming"
    assert explain_tucker(CanonicalTensor([1.0], [np.ones((3, 1))] * 3), tol=0.1).method == "rhosvd"
    for size in ("small", "medium"):
        (x,), options = sample_tucker(size, rng=0)
        assert tucker(x, **options).error < 1e-2
