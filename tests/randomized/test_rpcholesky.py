"""Randomly pivoted Cholesky: the law of pivots, exact errors, kinds of entries, failures."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from scipy.sparse.linalg import aslinearoperator
from spectra import EPS

import linalgk as lk
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotPositiveSemidefiniteError,
)
from linalgk.randomized._rpcholesky import choose_method, explain_rpcholesky, sample

# (method, block): one at a time, small blocks that end often, one large block
WAYS = [("simple", 120), ("accelerated", 2), ("accelerated", 3), ("accelerated", 40)]


def gram(n, rank, dtype="float64", seed=0, decay=0.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, rank))
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(x.shape)
    x = x * np.exp(-decay * np.arange(rank))
    # rows of very different sizes: a diagonal that matters
    x = x * np.exp(rng.standard_normal((n, 1)))
    return (x @ x.conj().T).astype(dtype)


def trace_error(a, f):
    wide = np.result_type(a, np.float64)
    a, f = a.astype(wide), np.asarray(f).astype(wide)
    return (np.trace(a - f @ f.conj().T) / np.trace(a)).real


# --- The law -------------------------------------------------------------------------------------


def law(a, count):
    """Probabilities of all sequences of pivots, by enumeration."""
    found = {}
    for pivots in itertools.permutations(range(len(a)), count):
        rest, probability = a.copy(), 1.0
        for s in pivots:
            diagonal = np.diag(rest).real
            probability *= diagonal[s] / diagonal.sum()
            rest = rest - np.outer(rest[:, s], rest[s]) / rest[s, s]
        found[pivots] = probability
    return found


@pytest.mark.stat
@pytest.mark.parametrize(
    ("method", "block", "dtype"), [*((*w, "float64") for w in WAYS), (*WAYS[2], "complex128")]
)
def test_the_law_of_pivots(method, block, dtype):
    """Chi-square of 1500 runs against all 24 sequences of three pivots of a 4 x 4 matrix: p > 1e-5,
    so it fails by chance once in 10^5, for each of five cases."""
    a = gram(4, 4, dtype, seed=3)
    a = (
        a
        / np.sqrt(np.outer(np.diag(a), np.diag(a)).real)
        * np.outer([1, 1.2, 0.8, 1.5], [1, 1.2, 0.8, 1.5])
    )
    wanted, runs = law(a, 3), 1500
    assert abs(sum(wanted.values()) - 1) < 1e-12
    seen = dict.fromkeys(wanted, 0)
    for i in range(runs):
        found = lk.rpcholesky(a, 3, method=method, block=block, rng=i)
        seen[tuple(found.pivots.tolist())] += 1
    expected = runs * np.array(list(wanted.values()))
    # rare sequences together
    order = np.argsort(expected)
    many = order[np.cumsum(expected[order]) > 5]
    counts = np.array(list(seen.values()))
    rest = np.setdiff1d(order, many)
    f_obs, f_exp = counts[many], expected[many]
    if len(rest):
        f_obs = np.append(f_obs, counts[rest].sum())
        f_exp = np.append(f_exp, expected[rest].sum())
    assert scipy.stats.chisquare(f_obs, f_exp).pvalue > 1e-5


@pytest.mark.stat
@pytest.mark.parametrize(("method", "block"), WAYS)
def test_the_expected_error_keeps_its_bound(method, block):
    """E tr(A - FF^H) <= (1 + d) tr(A - [A]_r) for k >= r/d + min(r log(1/(d eta)),
    r + r log_+(2^r/d)): the mean of 40 runs, 4.5 sigma; probability below 4e-6."""
    n, r, delta = 100, 3, 0.5
    values = 0.6 ** np.arange(n)
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((n, n)))[0]
    a = (q * values) @ q.T
    best = values[r:].sum()
    eta = best / values.sum()
    k = r / delta + min(r * np.log(1 / (delta * eta)), r + r * max(0, np.log(2**r / delta)))
    runs = [lk.rpcholesky(a, int(np.ceil(k)), method=method, block=block, rng=i) for i in range(40)]
    losses = np.array([float(x.info.error_estimate) * values.sum() for x in runs])
    assert losses.mean() - 4.5 * losses.std(ddof=1) / 40**0.5 <= (1 + delta) * best
    assert losses.min() >= values[int(np.ceil(k)) :].sum() * (1 - 1e-9)


# --- What F is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "block"), WAYS)
def test_f_is_a_partial_cholesky_factor(method, block, dtype):
    """A(:, P) is reproduced to k eps of the largest diagonal (backward stability of Cholesky, times
    20); rows of F at the pivots are triangular with a positive diagonal."""
    a = gram(60, 60, dtype, decay=0.1)
    f, pivots = found = lk.rpcholesky(a, 12, method=method, block=block, rng=1)
    assert f.dtype == np.dtype(dtype)
    assert f.shape == (60, 12)
    assert len(set(pivots.tolist())) == 12
    scale = 20 * 12 * EPS[dtype] * np.abs(a).max()
    assert np.abs((f @ f.conj().T - a)[:, pivots]).max() < scale
    top = np.triu(f[pivots], 1)
    assert np.abs(top).max() < 20 * 12 * EPS[dtype] * np.abs(a).max() ** 0.5
    assert (np.diag(f[pivots]).real > 0).all()
    rest = a - f @ f.conj().T
    assert abs(found.info.error_estimate - trace_error(a, f)) < 50 * EPS[dtype]
    assert abs(found.info.residual - np.abs(rest).max() / np.abs(a).max()) < 50 * EPS[dtype]
    assert found.info.rank == 12
    assert found.info.passes == 0
    assert found.info.method == method
    assert found.info.iterations == 12 if method == "simple" else found.info.iterations <= 12


@pytest.mark.parametrize(("method", "block"), WAYS)
def test_a_rank_that_is_there_ends_the_search(method, block, dtype):
    """tr(A - FF^H) is rounding: 60 diagonals with some 32 eps each."""
    a = gram(60, 7, dtype)
    f, _ = found = lk.rpcholesky(a, 40, method=method, block=block, rng=2)
    assert 7 <= f.shape[1] <= 9
    assert found.info.error_estimate < 32 * EPS[dtype]
    assert abs(trace_error(a, f)) < 100 * EPS[dtype]
    assert np.abs(a - f @ f.conj().T).max() < 300 * EPS[dtype] * np.abs(a).max()


@pytest.mark.parametrize(("method", "block"), WAYS)
def test_tol_stops_at_the_first_column_that_does(method, block):
    a = gram(80, 80, decay=0.2)
    for tol in (0.3, 1e-2, 1e-6):
        f, pivots = found = lk.rpcholesky(a, tol=tol, method=method, block=block, rng=4)
        assert trace_error(a, f) <= tol * (1 + 1e-9)
        assert trace_error(a, f[:, :-1]) > tol
        assert found.info.error_estimate <= tol
        more = lk.rpcholesky(a, len(pivots) + 5, method=method, block=block, rng=4)
        # the columns do not depend on where one stops
        assert (more.pivots[: len(pivots)] == pivots).all()
    with pytest.warns(ConvergenceWarning, match="tol: 1e-06 was not reached, the error is"):
        found = lk.rpcholesky(a, 3, tol=1e-6, rng=0)
    assert abs(found.info.error_estimate - trace_error(a, found.F)) < 1e-13
    assert lk.rpcholesky(a, 30, tol=0.3, rng=0).F.shape[1] < 30


def test_all_columns():
    a = gram(20, 20)
    f, pivots = lk.rpcholesky(a, 20, rng=0)
    assert sorted(pivots.tolist()) == list(range(20))
    assert np.abs(a - f @ f.T).max() < 1e-13 * np.abs(a).max()


def test_eigh_of_the_approximation():
    for batch in ((), (2,)):
        a = np.broadcast_to(gram(30, 6), (*batch, 30, 30))
        found = lk.rpcholesky(a, 6, rng=0)
        w, v = found.eigh()
        assert np.abs((v * w[..., None, :]) @ np.swapaxes(v, -1, -2) - a).max() < 1e-12 * a.max()
        assert (np.diff(w) <= 0).all()


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_sizes_do_not_matter(scale):
    a = gram(40, 40, decay=0.2)
    one, other = (lk.rpcholesky(x, 9, rng=1) for x in (a, a * scale))
    assert (one.pivots == other.pivots).all()
    assert np.abs(other.F / scale**0.5 - one.F).max() < 1e-12 * np.abs(one.F).max()
    assert abs(other.info.error_estimate / one.info.error_estimate - 1) < 1e-10


def test_zero_and_empty():
    found = lk.rpcholesky(np.zeros((5, 5)), 3)
    assert found.F.shape == (5, 0)
    assert found.pivots.shape == (0,)
    assert found.info.error_estimate == 0
    assert lk.rpcholesky(np.zeros((0, 0), np.float32), 0).F.dtype == np.float32
    found = lk.rpcholesky(np.zeros((0, 4, 4)), 2)
    assert found.F.shape == (0, 4, 0)
    holes = np.diag([0.0, 2.0, 0.0, 1.0])
    assert sorted(lk.rpcholesky(holes, 4, rng=0).pivots.tolist()) == [1, 3]


# --- Where entries come from ---------------------------------------------------------------------


class Kernel:
    """A Gaussian kernel that counts its entries."""

    def __init__(self, n=150, dtype="float64", xp=np):
        x = np.random.default_rng(7).standard_normal((n, 2))
        self.dense = np.exp(-((x[:, None] - x) ** 2).sum(-1) / 2).astype(dtype)
        self.entries, self.xp = 0, xp

    def __call__(self, i, j):
        assert isinstance(i, np.ndarray)
        self.entries += len(i) * len(j)
        return self.xp.asarray(self.dense[np.ix_(i, j)])


@pytest.mark.parametrize(("method", "block"), WAYS)
def test_a_kernel_gives_what_its_matrix_gives(method, block):
    kernel = Kernel()
    want = lk.rpcholesky(kernel.dense, 20, method=method, block=block, rng=5)
    for more in ({"n": 150}, {"diagonal": np.ones(150)},
                 {"diagonal": lambda i: np.ones(len(i)), "n": 150}):  # fmt: skip
        kernel.entries = 0
        found = lk.rpcholesky(kernel, 20, method=method, block=block, rng=5, **more)
        assert (found.pivots == want.pivots).all()
        assert np.abs(found.F - want.F).max() < 1e-12
        rounds = int(found.info.iterations)
        size = 1 if method == "simple" else block
        diagonal = 0 if "diagonal" in more else 2 * 64**2 + 22**2
        # an accepted pivot beyond the rank costs no column
        assert kernel.entries <= 1 + 20 * 150 + rounds * size**2 + diagonal


@pytest.mark.parametrize("form", ["csr_array", "csc_array", "coo_matrix", "operator"])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_sparse_matrices_and_operators(form, dtype):
    dense = gram(50, 50, dtype, decay=0.1)
    dense[np.abs(np.subtract.outer(np.arange(50), np.arange(50))) > 0] *= 0.01
    want = lk.rpcholesky(dense, 10, rng=1, block=6)
    more = {}
    if form == "operator":
        a, more = aslinearoperator(dense), {"diagonal": np.diag(dense)}
    else:
        a = getattr(scipy.sparse, form)(dense)
    found = lk.rpcholesky(a, 10, rng=1, block=6, **more)
    assert (found.pivots == want.pivots).all()
    assert np.abs(found.F - want.F).max() < 300 * EPS[dtype] * np.abs(want.F).max()
    assert found.info.passes == (found.info.iterations if form == "operator" else 0)


def test_batches_strides_and_orders(dtype):
    a = np.stack([gram(30, 8 - i, dtype, i) for i in range(4)]).reshape(2, 2, 30, 30)
    found = lk.rpcholesky(a, 20, rng=2)
    assert found.F.shape[:3] == (2, 2, 30)
    for i, j in np.ndindex(2, 2):
        one = lk.rpcholesky(a[i, j], 20, rng=2)
        k = len(one.pivots)
        assert found.info.rank[i, j] == one.info.rank == k
        assert (found.pivots[i, j, :k] == one.pivots).all()
        assert (found.pivots[i, j, k:] == -1).all()
        assert (found.F[i, j, :, :k] == one.F).all()
        assert not found.F[i, j, :, k:].any()
    before = a[0, 0].copy()
    for same in (np.asfortranarray(a[0, 0]), np.repeat(a[0, 0], 2, 1)[:, ::2]):
        same.flags.writeable = False
        assert (lk.rpcholesky(same, 5, rng=2).pivots == found.pivots[0, 0, :5]).all()
    assert (before == a[0, 0]).all()
    assert np.abs(lk.rpcholesky([[4, 2], [2, 1]], 2, rng=0).F).max() == 2


def test_other_libraries_get_their_own_arrays(xp):
    kernel = Kernel(60, xp=xp)
    given = xp.asarray(kernel.dense)
    want = lk.rpcholesky(kernel.dense, 9, rng=0, block=5)
    cases = [
        lk.rpcholesky(given, 9, rng=0, block=5),
        lk.rpcholesky(kernel, 9, rng=0, block=5, n=60),
        lk.rpcholesky(kernel, 9, rng=0, block=5, diagonal=xp.ones(60, dtype=given.dtype)),
    ]
    for found in cases:
        assert type(found.F) is type(found.pivots) is type(given)
        assert type(found.info.error_estimate) is type(given)
        assert np.asarray(found.pivots).tolist() == want.pivots.tolist()
        assert np.abs(np.asarray(found.F) - want.F).max() < 1e-12
    assert type(cases[0].eigh()[0]) is type(given)


def test_arrays_of_a_device(cuda):
    kernel = Kernel(60)
    found, want = (lk.rpcholesky(x, 9, rng=0) for x in (cuda.array(kernel.dense), kernel.dense))
    assert type(found.F) is type(cuda.array(kernel.dense))
    assert cuda.host(found.pivots).tolist() == want.pivots.tolist()
    assert np.abs(cuda.host(found.F) - want.F).max() < 1e-12


def test_the_seed_replays():
    a = gram(50, 50)
    first = lk.rpcholesky(a, 10)
    assert (lk.rpcholesky(a, 10, rng=first.info.seed).F == first.F).all()
    assert (lk.rpcholesky(a, 10).pivots != first.pivots).any()


def test_the_choice_of_a_method():
    assert choose_method(120)[0] == "accelerated"
    assert choose_method(1)[0] == "simple"
    assert choose_method(120, "simple")[0] == "simple"
    for size in ("small", "medium"):
        args, kwargs = sample(size, rng=0)
        found = explain_rpcholesky(*args, **kwargs)
        assert found.method == lk.rpcholesky(*args, **kwargs).info.method == "accelerated"
        assert found.flops > 0
    assert explain_rpcholesky(Kernel(), 5, n=150).flops == 150 * 25


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        ((np.eye(4), 5), {}, ValueError, "rank: must be at most 4.*got 5"),
        ((np.eye(4), 0), {}, ValueError, "rank: must be at least 1"),
        ((np.eye(4),), {}, ValueError, "rank: must be given unless tol"),
        ((np.eye(4),), {"tol": 1e-16}, ValueError, "tol: must be at least 7.1"),
        ((np.eye(4), 2), {"tol": 2.0}, ValueError, "tol: must satisfy"),
        ((np.zeros((3, 4)), 2), {}, ValueError, r"a: must have shape \(..., n, n\)"),
        ((np.eye(4), 2), {"method": "greedy"}, ValueError, "method: must be one of"),
        ((np.eye(4), 2), {"block": 0}, ValueError, "block: must be at least 1"),
        ((np.eye(4), 2), {"n": 5}, ValueError, "n: is 5 and a has order 4"),
        ((np.eye(4), 2), {"diagonal": np.ones(3)}, ValueError, r"diagonal: must have shape \(4,\)"),
        ((np.eye(4), 2), {"diagonal": 2 * np.ones(4)}, ValueError, "diagonal: entry . is 2, and a"),
        ((Kernel(9), 2), {}, ValueError, "n: must be given for a kernel"),
        ((lambda i, j: np.ones(3), 2), {"n": 5}, ValueError, r"a\(i, j\) must return a block"),
        ((lambda i, j: 1.0, 2), {"n": 5}, ValueError, r"a\(i, j\) must return a block"),
        ((aslinearoperator(np.eye(4)), 2), {}, ValueError, "diagonal: must be given"),
        ((np.eye(4, dtype=np.float16), 2), {}, TypeError, "float16"),
        (("matrix", 2), {}, TypeError, "a: must be an array"),
    ],
)
def test_bad_arguments(args, kwargs, error, match):
    with pytest.raises(error, match=match):
        lk.rpcholesky(*args, **kwargs)


def bad_batch(kind):
    a = np.stack([gram(20, 20, seed=i) for i in range(3)])
    if kind == "diagonal":
        a[1, 4, 4] = np.nan
        return a, NonFiniteError, r"holds NaN or infinity \(batch members \(1,\)\)"
    if kind == "inside":
        a[1, 4, :4] = a[1, :4, 4] = np.inf
        return a, NonFiniteError, "holds NaN or infinity"
    if kind == "hermitian":
        a[1] += np.triu(np.ones((20, 20)), 1)
        return a, AsymmetricError, r"is not Hermitian \(batch members \(1,\)\)"
    if kind == "negative":
        a[1, 3, 3] = -1
        return a, NotPositiveSemidefiniteError, r"is not positive semidefinite \(batch.*\)\).*-1;"
    a[1] = np.full((20, 20), 2.0) - np.eye(20)
    a[1, 0, 0] = 1.5
    return a, NotPositiveSemidefiniteError, "is not positive semidefinite"


@pytest.mark.parametrize("kind", ["diagonal", "inside", "hermitian", "negative", "indefinite"])
@pytest.mark.parametrize("way", [WAYS[0], WAYS[3]])
def test_bad_members(kind, way):
    if kind == "hermitian" and way[0] == "simple":
        pytest.skip("one entry at a time shows no asymmetry")
    a, error, match = bad_batch(kind)
    options = {"rng": 0, "method": way[0], "block": way[1]}
    with pytest.raises(error, match=match) as caught:
        lk.rpcholesky(a, 15, **options)
    assert caught.value.index == ((1,),)
    with pytest.warns(ConvergenceWarning):
        found = lk.rpcholesky(a, 15, on_fail="warn", **options)
    alone = lk.rpcholesky(a[2], 15, **options)
    for result in (caught.value.result, found, lk.rpcholesky(a, 15, on_fail="nan", **options)):
        assert np.isnan(result.F[1]).all()
        assert (result.pivots[1] == -1).all()
        assert np.isnan(result.info.error_estimate[1])
        assert result.info.converged.tolist() == [True, False, True]
        assert (result.F[2] == alone.F).all()
    with pytest.raises(error):
        lk.rpcholesky(a[1], 15, **options)


def test_an_indefinite_kernel_cannot_hide():
    """A zero on the diagonal with something beside it has a negative eigenvalue."""
    a = np.eye(6)
    a[0, 0], a[0, 1], a[1, 0] = 0.0, 0.5, 0.5
    with pytest.raises(NotPositiveSemidefiniteError, match=r"a diagonal is -0\.25"):
        lk.rpcholesky(a, 6, rng=0)


def test_a_kernel_that_changes_its_dtype():
    def kernel(i, j):
        block = np.equal.outer(i, j).astype(float)
        return block if len(i) == 1 else block + 0j

    with pytest.raises(TypeError, match=r"a\(i, j\) is complex128 after float64"):
        lk.rpcholesky(kernel, 3, n=10)


def test_gradients_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        lk.rpcholesky(torch.eye(4, requires_grad=True), 2)
