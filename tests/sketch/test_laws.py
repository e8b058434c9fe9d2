"""Laws of sketches: exact identities, exact distributions, bounds that hold for any sketch."""

import math

import numpy as np
import pytest
import scipy.linalg
import sketched
from scipy import stats
from sketched import make

import linalgk as lk
from linalgk.sketch._philox import Key
from linalgk.sketch._trig import permuted

K, M = 104, 300
# families without RowSample, which samplers make and which is random only then
RANDOM = [name for name in sketched.FAMILIES if name != "rows"]
SIGNS = ["stack1", "stack4", "stack8", "stack13", "count", "rademacher"]


def bases(kind, m, d):
    """Orthonormal columns: of no direction, of few rows, of one row each, of one column."""
    if kind == "random":
        return np.linalg.qr(np.random.default_rng(0).standard_normal((m, d)))[0]
    if kind == "heavy":
        x = np.random.default_rng(0).standard_normal((m, d))
        x[: 2 * d] *= 30
        return np.linalg.qr(x)[0]
    if kind == "identity":
        return np.eye(m, d)
    return bases("heavy", m, 1)


def expected(s, u):
    """E || U'S'SU - I ||_F^2.

    With z = U' s for a row s of sqrt(k) S it is (E |z|^4 - d) / k; of independent signs
    E |z|^4 = d^2 + 2 d - 2 sum |u_i|^4, of normals the last term is missing, of complex ones there
    is d^2 + d. For sampled transforms the part that does not cross blocks is of a sample without
    replacement.
    """
    (m, d), k = u.shape, s.shape[0]
    fourth = (abs(u) ** 2).sum(axis=1) @ (abs(u) ** 2).sum(axis=1)
    if isinstance(s, lk.sketch.Gaussian):
        return d * d / k if s.dtype.kind == "c" else (d * d + d) / k
    if isinstance(s, lk.sketch.SRCT):
        c = scipy.fft.dct(np.eye(m), axis=0, norm="ortho") * math.sqrt(m)
        weight = (u**2).sum(axis=1)
        pairs = (u @ u.T) ** 2
        np.fill_diagonal(pairs, 0)
        each = (c**2 @ weight) ** 2 + 2 * ((c**2 @ pairs) * c**2).sum(axis=1)
        return (m - k) / (m - 1) * (each.mean() - d) / k
    if isinstance(s, lk.sketch.SRHT):
        n = s.block
        grams = [u[at : at + n].T @ u[at : at + n] for at in range(0, m, n)]
        inner = np.array([[np.trace(x @ y) for y in grams] for x in grams])
        traces = np.array([np.trace(x) for x in grams])
        within = traces @ traces + inner.trace() + inner.sum() - 2 * fourth
        # (z_b . z_c)^2 of two blocks, and |z_b|^2 |z_c|^2
        across = traces.sum() ** 2 - traces @ traces + inner.sum() - inner.trace()
        return ((n - k) / (n - 1) * (within - d) + across) / k
    return (d * d + d - 2 * fourth) / k


@pytest.mark.stat
@pytest.mark.parametrize("kind", ["random", "heavy", "identity", "vector"])
@pytest.mark.parametrize("family", RANDOM)
def test_second_moments(family, kind):
    """The mean of 600 within 4.5 of its standard deviations: chance 7e-6 each, 3e-4 of all 44.

    It is the same for a stack of any number of nonzeros; for one vector it is the variance
    (2 / k) (|x|_2^4 - |x|_4^4) of |S x|^2.
    """
    k, m, d = (26 if family == "stack13" else 24), 150, 5
    u = bases(kind, m, d)
    if family == "srht_blocks":
        sketches = [lk.sketch.SRHT(k, m, rng=seed, block=64) for seed in range(600)]
    else:
        sketches = [make(family, k, m, rng=seed) for seed in range(600)]
    found = []
    for s in sketches:
        x = s @ u
        found.append(np.linalg.norm(x.conj().T @ x - np.eye(u.shape[1])) ** 2)
    want = expected(sketches[0], u)
    spread = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - want) <= 4.5 * spread + 1e-13


@pytest.mark.stat
@pytest.mark.parametrize("family", RANDOM)
def test_the_mean_of_the_gram_matrix_is_one(family):
    """The mean of 400 of S'S, 325 entries within 5.5 standard deviations: chance 1e-5 each.

    Entries beside the diagonal have variance 1/k, on it at most 2/k.
    """
    k, m, count = (13 if family == "stack13" else 8), 25, 400
    mean = np.zeros((m, m), complex)
    for seed in range(count):
        dense = make(family, k, m, rng=seed) if family != "srht_blocks" else lk.sketch.SRHT(
            k, m, rng=seed, block=8
        )  # fmt: skip
        dense = dense.toarray()
        mean += dense.conj().T @ dense / count
    off = mean - np.diag(np.diag(mean))
    # of a cosine transform the entries are not all of one size
    spread = math.sqrt((2 if family == "srct" else 1) / (k * count))
    assert abs(off).max() <= 5.5 * spread
    assert abs(np.diag(mean) - 1).max() <= 5.5 * math.sqrt(2 / (k * count))
    if family in SIGNS or family.startswith("srht"):
        np.testing.assert_allclose(np.diag(mean), 1, rtol=1e-12)


def test_sampled_transforms_have_orthogonal_rows():
    for s, n in [
        (lk.sketch.SRHT(20, 64, rng=0), 64), (lk.sketch.SRCT(20, 75, rng=0), 75),
        (lk.sketch.SRHT(64, 64, rng=1), 64), (lk.sketch.SRCT(75, 75, rng=1), 75),
    ]:  # fmt: skip
        k, dense = s.shape[0], s.toarray()
        np.testing.assert_allclose(dense @ dense.T, n / k * np.eye(k), atol=1e-13 * n / k)
        assert len(set(s.rows)) == k
        if k == n:
            x = sketched.data(n, 3)
            np.testing.assert_allclose(s.T @ (s @ x), x, atol=1e-10 * abs(x).max())
    # of each block too, where all rows are taken
    s = lk.sketch.SRHT(32, 100, rng=0, block=32)
    for low in range(0, 100, 32):
        part = s[:, low : low + 32].toarray()
        np.testing.assert_allclose(part.T @ part, np.eye(part.shape[1]), atol=1e-13)


@pytest.mark.stat
def test_rows_are_sampled_uniformly():
    """Ordered pairs of four rows, chi-squared: chance 1e-4."""
    counts = np.zeros((4, 4))
    for seed in range(3000):
        i, j = permuted(Key(seed, 77), 4, 2)
        counts[i, j] += 1
    assert not np.diag(counts).any()
    assert stats.chisquare(counts[~np.eye(4, dtype=bool)]).pvalue > 1e-4
    assert sorted(permuted(Key(1, 2), 1000, 1000)) == list(range(1000))


@pytest.mark.stat
@pytest.mark.parametrize("family", ["gaussian", "rademacher"])
def test_rows_of_a_dense_operator_are_independent(family):
    """44850 products of rows within 6.5 standard deviations: chance 4e-6.

    300 rows are of three calls, all words and halves of pairs.
    """
    m = 4000
    x = make(family, 300, m).toarray() * math.sqrt(300)
    off = x @ x.T / m - np.diag((x**2).mean(axis=1))
    assert abs(off).max() <= 6.5 / math.sqrt(m)
    assert abs((x**2).mean(axis=1) - 1).max() <= 6.5 * math.sqrt(2 / m)
    # rows beside each other as well
    assert abs((x[:, 1:] * x[:, :-1]).mean()) <= 4.5 / math.sqrt(300 * (m - 1))


@pytest.mark.stat
def test_places_of_a_stack():
    """Bucket and sign of a block, and buckets of two blocks together, chi-squared: chance 8e-4."""
    m, nnz, buckets = 20_000, 5, 7
    s = lk.sketch.SparseStack(nnz * buckets, m, nnz=nnz, rng=3).tosparse()
    row = s.indices.reshape(m, nnz) - buckets * np.arange(nnz)
    negative = s.data.reshape(m, nnz) < 0
    for t in range(nnz):
        counts = np.bincount(2 * row[:, t] + negative[:, t], minlength=2 * buckets)
        assert stats.chisquare(counts).pvalue > 1e-4
    for t, other in ((0, 1), (1, 4), (0, 4)):
        counts = np.bincount(buckets * row[:, t] + row[:, other], minlength=buckets**2)
        assert stats.chisquare(counts).pvalue > 1e-4


# --- Gaussian sketches: exact distributions ------------------------------------------------------


@pytest.mark.stat
def test_singular_values_of_a_gaussian_sketch():
    """Davidson and Szarek: outside 1 +- (sqrt(d/k) + t) with a chance of 2 exp(-k t^2 / 2).

    Of 400 at most so many as that chance allows but for 1e-6.
    """
    k, d, m, count = 60, 8, 100, 400
    u = bases("random", m, d)
    sizes = np.array([
        np.linalg.svd(lk.sketch.Gaussian(k, m, rng=seed) @ u, compute_uv=False)
        for seed in range(count)
    ])  # fmt: skip
    over = np.maximum(sizes[:, 0] - 1, 1 - sizes[:, -1]) - math.sqrt(d / k)
    for chance in (0.5, 0.1, 0.01):
        t = math.sqrt(2 * math.log(2 / chance) / k)
        assert (over > t).sum() <= stats.binom.isf(1e-6, count, chance)
    # the bound is not idle: extremes are near sqrt(d / k)
    assert over.max() > -0.5 * math.sqrt(d / k)


@pytest.mark.stat
def test_sketch_and_solve_with_normals():
    """The laws of x_s = argmin |S (A x - b)|: chance of each 1e-4, or 7e-6 for means.

    (x_s - x)_j = |r| sqrt((A'A)^-1_jj) T / sqrt(k - d + 1) with Student's T of k - d + 1 degrees;
    E |A x_s - b|^2 = (1 + d / (k - d - 1)) |r|^2; k |S (b - A x_s)|^2 / |r|^2 is chi-squared of
    k - d degrees.
    """
    k, m, d, count = 30, 120, 5, 4000
    gen = np.random.default_rng(1)
    a = gen.standard_normal((m, d)) * [1, 10, 1, 0.1, 1]
    b = a @ gen.standard_normal(d) + 3 * gen.standard_normal(m)
    best, residual = np.linalg.lstsq(a, b)[:2]
    inverse = np.linalg.inv(a.T @ a)
    found, losses, left = [], [], []
    for seed in range(count):
        s = lk.sketch.Gaussian(k, m, rng=seed)
        sa, sb = s @ a, s @ b
        x = np.linalg.lstsq(sa, sb)[0]
        found.append(x - best)
        losses.append(((a @ x - b) ** 2).sum() / residual[0])
        left.append(k * ((sb - sa @ x) ** 2).sum() / residual[0])
    found = np.array(found) / np.sqrt(residual * np.diag(inverse) / (k - d + 1))
    for j in (0, 1, 4):
        assert stats.kstest(found[:, j], stats.t(k - d + 1).cdf).pvalue > 1e-4
    assert stats.kstest(left, stats.chi2(k - d).cdf).pvalue > 1e-4
    error = np.mean(losses) - (1 + d / (k - d - 1))
    assert abs(error) <= 4.5 * np.std(losses) / math.sqrt(count)


# --- Any sketch with its measured distortion -----------------------------------------------------


def problems():
    """Matrices whose rows are alike, of very different weight, few, and ill-conditioned."""
    gen, d = np.random.default_rng(2), 8
    yield gen.standard_normal((M, d))
    yield gen.standard_normal((M, d)) * np.logspace(0, 6, M)[:, None] ** -1
    yield np.concatenate([np.eye(d)] * 5 + [np.zeros((M - 5 * d, d))])
    yield gen.standard_normal((M, d)) @ np.diag(np.logspace(0, -7, d)) @ gen.standard_normal((d, d))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("family", [name for name in RANDOM if name not in ("count", "stack1")])
def test_bounds_by_the_measured_distortion(family, number):
    """eta = max |sigma(S U) - 1|: condition, residual and leverage lie within its bounds."""
    a = list(problems())[number]
    b = np.random.default_rng(3).standard_normal(M)
    s = make(family, K, M)
    u = np.linalg.qr(a)[0]
    eta = abs(np.linalg.svd(s @ u, compute_uv=False) - 1).max()
    # k = 13 d embeds all of these
    assert eta < 0.7
    r = np.linalg.qr(s @ a)[1]
    turned = a @ np.linalg.inv(r)
    slack = 1 + 1e-7
    assert np.linalg.cond(turned) <= (1 + eta) / (1 - eta) * slack
    leverage, sketched_leverage = (u**2).sum(axis=1), (abs(turned) ** 2).sum(axis=1)
    assert (sketched_leverage <= leverage / (1 - eta) ** 2 * slack + 1e-12).all()
    assert (sketched_leverage >= leverage / (1 + eta) ** 2 / slack - 1e-12).all()
    wide = np.linalg.qr(np.column_stack([u, b]))[0]
    eta = abs(np.linalg.svd(s @ wide, compute_uv=False) - 1).max()
    x = np.linalg.lstsq(s @ u, s @ b)[0]
    best = b - u @ (u.T @ b)
    assert np.linalg.norm(b - u @ x) <= (1 + eta) / (1 - eta) * np.linalg.norm(best) * slack


def test_a_grown_sketch_distorts_less():
    """Twice the rows of the same stream, for the families that grow."""
    u = bases("random", 2000, 10)
    for family in ("gaussian", "rademacher", "stack8", "srht"):
        s = make(family, 40, 2000)
        eta = [
            abs(np.linalg.svd(t @ u, compute_uv=False) - 1).max()
            for t in (s, s.grow(160), s.grow(1280))
        ]
        assert eta[0] > eta[1] > eta[2]
