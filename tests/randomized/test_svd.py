"""svd_lowrank in memory: bounds, exact identities, error estimates, options, failures."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from spectra import EPS, defects, gaussian

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.randomized import _svd
from linalgk.randomized._range import Plan

METHODS = [
    {"passes": 2, "method": "rsvd"}, {"passes": 3, "method": "krylov"},
    {"passes": 4, "method": "krylov"}, {"passes": 5, "method": "rsvd"},
    {"passes": 6, "method": "krylov"}, {"method": "gen_nystrom"}, {"method": "streaming"},
]  # fmt: skip


def spectrum(kind, n):
    j = np.arange(1, n + 1.0)
    return {
        "half": j**-0.5, "one": 1 / j, "two": j**-2.0, "exp": 0.8**j, "fast": 0.2**j,
        "noise": np.where(j <= 12, 1.0, 0.01), "exact": np.where(j <= 12, 1.0, 0.0),
        "flat": j**0,
    }[kind]  # fmt: skip


def made(m, n, s, dtype="float64", seed=0):
    """A matrix of known singular values."""
    wide = np.result_type(dtype, "float64")
    k = min(m, n)
    left = np.linalg.qr(gaussian((m, k), wide, seed))[0]
    right = np.linalg.qr(gaussian((n, k), wide, seed + 1))[0]
    return ((left * s[:k]) @ right.conj().T).astype(dtype)


def error(a, found):
    u, s, vh = (np.asarray(x) for x in found)
    wide = np.result_type(a.dtype, "float64")
    total = np.linalg.norm(a.astype(wide))
    return np.linalg.norm(a.astype(wide) - (u.astype(wide) * s) @ vh) / (total or 1.0)


@pytest.mark.parametrize("kind", ["half", "one", "two", "exp", "noise", "flat"])
@pytest.mark.parametrize("options", METHODS, ids=str)
def test_factors_of_known_spectra(kind, options):
    """Orthonormal factors, values below the true ones, an error that is estimated.

    Deterministic with this seed; an estimate with 30 to 60 rows is off by a factor of 1.5 with
    probability below 1e-5 even for a residual of rank one.
    """
    m, n, rank = 300, 140, 12
    s = spectrum(kind, n)
    a = made(m, n, s)
    found = lk.svd_lowrank(a, rank, rng=3, **options)
    best = np.linalg.norm(s[rank:]) / np.linalg.norm(s)
    got = error(a, found)
    # two passes of the width l = 22: theorem 10.5 of HMT with q = 12 gives 1 + 12/9 for squares
    factor = {1: 2.2, 2: 1.25, 3: 1.05, 4: 1.01}.get(options.get("passes", 1), 1.01)
    assert best * (1 - 1e-12) <= got <= factor * best
    assert 1 / 1.5 < found.info.error_estimate / got < 1.5
    assert max(defects(found)) < 200 * EPS["float64"]
    if options.get("passes", 1) > 1:
        # Cauchy's interlacing: those of A V are not larger
        assert (s[:rank] * (1 + 1e-12) >= found.S).all()
        # ||A||^2 - sum s_i^2 is the squared error exactly
        squared = 1 - (found.S**2).sum() / (s**2).sum()
        assert abs(squared - got**2) < 1e-13
    assert found.info.rank == len(found.S) == rank
    assert (np.diff(found.S) <= 0).all()
    assert found.info.passes == options.get("passes", 1) or kind in ("flat", "noise")


@pytest.mark.parametrize("shape", [(700, 300), (300, 700), (1500, 40), (40, 1500)])
def test_dtypes_and_shapes(dtype, shape):
    """Complex matrices as well as real ones (scikit-learn's issue 30736)."""
    m, n = shape
    s = spectrum("exp", min(m, n))
    a = made(m, n, s, dtype)
    before = a.copy()
    for options in ({"method": "krylov"}, {"method": "rsvd"}, {"method": "gen_nystrom"}):
        found = lk.svd_lowrank(a, 10, rng=1, **options)
        assert found.U.dtype == found.Vh.dtype == a.dtype
        assert found.S.dtype == a.real.dtype
        assert (found.U.shape, found.S.shape, found.Vh.shape) == ((m, 10), (10,), (10, n))
        best = np.linalg.norm(s[10:]) / np.linalg.norm(s)
        assert error(a, found) < 1.05 * best
        assert max(defects(found)) < 100 * EPS[dtype]
        assert np.abs(found.S / s[:10] - 1).max() < 0.02
    assert (a == before).all()
    exact = lk.svd_lowrank(a, 10, method="exact")
    assert np.abs(exact.S - s[:10]).max() < 20 * EPS[dtype]
    assert abs(error(a, exact) / best - 1) < 1e-3
    assert abs(exact.info.error_estimate / best - 1) < 1e-3


def test_small_singular_values_have_the_absolute_accuracy_of_rounding(dtype):
    """Values that fall by five each: the first block has all of them."""
    s = spectrum("fast", 400)
    a = made(500, 400, s, dtype)
    for options in ({}, {"passes": 2}, {"passes": 3}, {"sketch": "Gaussian"}):
        found = lk.svd_lowrank(a, 20, rng=5, **options)
        # rounding of A itself is eps ||A||_F^(1/2) or so in each value
        assert np.abs(found.S - s[:20]).max() < 20 * EPS[dtype]
        assert max(defects(found)) < 100 * EPS[dtype]
        assert error(a, found) < 20 * EPS[dtype] + 2 * np.linalg.norm(s[20:]) / np.linalg.norm(s)
        ratio = found.info.error_estimate / error(a, found)
        assert 1 / 3 < ratio < 3


def test_single_entries_of_very_different_size():
    """Ten entries of a sparse matrix are its singular values; Gram matrices would not see five."""
    s = np.repeat([1.0, 1e-9], 5)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        place = rng.permutation(500)[:10], rng.permutation(400)[:10]
        a = scipy.sparse.coo_array((s, place), shape=(500, 400))
        for passes in (2, 4):
            found = lk.svd_lowrank(a, 10, passes=passes, rng=seed)
            assert np.abs(found.S - s).max() < 20 * EPS["float64"]
            assert max(defects(found)) < 100 * EPS["float64"]


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_exact_rank(dtype, options):
    s = spectrum("exact", 140)
    a = made(300, 140, s, dtype)
    found = lk.svd_lowrank(a, 12, rng=2, **options)
    assert error(a, found) < 60 * EPS[dtype]
    assert found.info.error_estimate < 60 * EPS[dtype]
    more = lk.svd_lowrank(a, 30, rng=2, **options)
    assert more.S[12:].max() < 60 * EPS[dtype]
    assert max(defects(more)) < 100 * EPS[dtype]


def test_the_whole_rank_and_torch_issue_72909():
    """A rank beyond any default, of a small matrix."""
    a = gaussian((5, 3))
    found = lk.svd_lowrank(a, 3)
    assert found.info.method == "exact"
    assert error(a, found) < 1e-14
    for method in ("rsvd", "krylov", "gen_nystrom"):
        found = lk.svd_lowrank(a, 3, rng=0, method=method)
        assert error(a, found) < 1e-14
        assert np.abs(found.S - np.linalg.svd(a, compute_uv=False)).max() < 1e-14
    many = gaussian((400, 300))
    found = lk.svd_lowrank(many, 140, oversample=5, rng=0)
    assert found.info.method == "krylov"
    assert max(defects(found)) < 1e-12


@pytest.mark.stat
def test_the_bound_of_halko_martinsson_and_tropp():
    """Theorems 10.5 and 10.6 for Gaussian sketches: means over 60 draws.

    The relative deviation of a mean is below 0.02, that of the bounds from it about 2: the
    probability of failing is below 1e-9.
    """
    n, rank, p = 120, 10, 8
    s = spectrum("one", n)
    a = made(150, n, s)
    squares, largest = [], []
    for seed in range(60):
        found = lk.svd_lowrank(
            a, rank + p, oversample=0, passes=2, sketch="Gaussian", method="rsvd", rng=seed
        )
        rest = a - (found.U * found.S) @ found.Vh
        squares.append(np.linalg.norm(rest) ** 2)
        largest.append(np.linalg.norm(rest, 2))
    tail = np.array([np.sum(s[q:] ** 2) for q in range(n)])
    bound = min((1 + q / (rank + p - q - 1)) * tail[q] for q in range(rank + p - 1))
    assert 0.3 * bound < np.mean(squares) <= bound
    assert np.mean(squares) > tail[rank + p]
    spectral = (1 + math.sqrt(rank / (p - 1))) * s[rank] + math.e * math.sqrt(
        rank + p
    ) / p * math.sqrt(tail[rank])
    assert np.mean(largest) <= spectral


@pytest.mark.stat
@pytest.mark.parametrize("sketch", ["SparseStack", "Gaussian"])
@pytest.mark.parametrize("options", [METHODS[0], METHODS[1], METHODS[5]], ids=str)
def test_the_estimate_is_unbiased_in_the_square(sketch, options):
    """Over 150 draws the mean of estimate^2 / error^2 is one.

    Each ratio has a deviation of at most (2/10)^(1/2); 4.5 deviations of the mean are 0.17, which
    fails with probability 1e-5.
    """
    a = made(200, 120, spectrum("one", 120))
    ratios = []
    for seed in range(150):
        found = lk.svd_lowrank(a, 8, sketch=sketch, rng=seed, **options)
        ratios.append((float(found.info.error_estimate) / error(a, found)) ** 2)
    assert abs(np.mean(ratios) - 1) < 4.5 * math.sqrt(0.2 / 150)
    assert min(ratios) > 1 / 9
    assert max(ratios) < 9


@pytest.mark.parametrize("kind", ["diagonal", "stacked", "spikes"])
def test_coherent_matrices(kind):
    """Rows that carry a direction each, and identities on top of each other."""
    n, s = 300, spectrum("one", 300)
    a = {
        "diagonal": np.concatenate([np.diag(s), np.zeros((500, n))]),
        "stacked": np.concatenate([np.diag(s)] * 3) / math.sqrt(3),
        "spikes": np.concatenate([np.diag(np.where(np.arange(n) < 5, 1, 1e-3)), np.zeros((9, n))]),
    }[kind]
    true = np.linalg.svd(a, compute_uv=False)
    for form in (a, a.T.copy(), scipy.sparse.csr_array(a)):
        found = lk.svd_lowrank(form, 10, rng=4, method="krylov")
        best = np.linalg.norm(true[10:]) / np.linalg.norm(true)
        dense = form.toarray() if scipy.sparse.issparse(form) else form
        assert error(dense, found) < 1.01 * best
        assert 1 / 1.5 < found.info.error_estimate / error(dense, found) < 1.5


# --- Targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["half", "one", "two", "exp", "fast", "exact", "noise"])
@pytest.mark.parametrize("form", ["dense", "operator", "sparse", "exact"])
def test_the_least_rank_for_an_error(kind, form):
    s = spectrum(kind, 270)
    a = made(300, 270, s)
    lost = np.append(np.sqrt(np.cumsum(s[::-1] ** 2)[::-1]), 0) / np.linalg.norm(s)
    taken = {
        "dense": a, "exact": a, "operator": scipy.sparse.linalg.aslinearoperator(a),
        "sparse": scipy.sparse.csc_array(a),
    }[form]  # fmt: skip
    for tol in (0.5, 0.1, 1e-4, 1e-9, 1e-12):
        options = {"method": "exact"} if form == "exact" else {}
        found = lk.svd_lowrank(taken, tol=tol, rng=7, **options)
        rank = int(np.argmax(lost <= tol * (1 - 1e-13)))
        got = error(a, found)
        assert got <= tol
        # an estimate from above may cost a few where it decides; 4 eps is not more than rounding
        slack = 1.0 if form == "exact" else 1.06
        assert rank <= found.info.rank <= slack * rank + (0 if form == "exact" else 2)
        assert found.info.error_estimate <= max(tol, 3 * got) * (1 + 1e-9)
        assert 1 / 3 < found.info.error_estimate / max(got, EPS["float64"]) < 3


def test_targets_in_single_precision_and_caps():
    a = made(600, 300, spectrum("exp", 300), "float32")
    for tol in (0.1, 1e-2, 1e-4):
        assert error(a, lk.svd_lowrank(a, tol=tol, rng=0)) <= tol
    found = lk.svd_lowrank(a, 5, tol=1e-4, rng=0)
    assert found.info.rank == 5
    assert abs(found.info.error_estimate / error(a, found) - 1) < 0.1
    assert lk.svd_lowrank(a, 200, tol=0.1, rng=0).info.rank < 20
    with pytest.raises(ValueError, match=r"tol: must be at least 64 eps = 7.63e-06 .* got 1e-06"):
        lk.svd_lowrank(a, tol=1e-6)


def test_members_of_different_rank_end_with_zeros():
    a = np.stack([made(400, 300, spectrum(kind, 300)) for kind in ("fast", "exp")])
    found = lk.svd_lowrank(a, tol=1e-3, rng=0)
    small, large = found.info.rank
    assert found.S.shape == (2, large)
    assert 0 < small < large
    assert not found.S[0, small:].any()
    assert not found.U[0, :, small:].any()
    for i in range(2):
        assert error(a[i], (found.U[i], found.S[i], found.Vh[i])) <= 1e-3
        assert (found.S[i, : found.info.rank[i]] == lk.svd_lowrank(a[i], tol=1e-3, rng=0).S).all()


# --- Kinds of input ------------------------------------------------------------------------------


class Counted(scipy.sparse.linalg.LinearOperator):
    """Counts products and their columns."""

    def __init__(self, a):
        super().__init__(a.dtype, a.shape)
        self._a, self.products, self.columns = a, 0, 0

    def _matmat(self, x):
        self.products += 1
        self.columns += x.shape[1]
        return self._a @ x

    def _rmatmat(self, y):
        self.products += 1
        self.columns += y.shape[1]
        return self._a.conj().T @ y


@pytest.mark.parametrize("shape", [(500, 270), (270, 500)])
@pytest.mark.parametrize("passes", [2, 3, 4, 5, 6, 7])
def test_passes_are_products(shape, passes, dtype):
    a = made(*shape, spectrum("half", 270), dtype)
    op = Counted(a)
    found = lk.svd_lowrank(op, 10, passes=passes, rng=0)
    assert op.products == found.info.passes == passes
    # the first block is wider, and the sketch has ten rows for the error
    assert op.columns <= 20 * passes + 10
    assert (
        0
        < error(a, found)
        < 1.2 * np.linalg.norm(spectrum("half", 270)[10:]) / np.linalg.norm(spectrum("half", 270))
    )
    again = lk.svd_lowrank(a, 10, passes=passes, rng=0)
    assert again.info.passes == passes


def test_krylov_needs_as_many_passes_as_power_steps_and_has_less_error():
    a = made(600, 300, spectrum("half", 300))
    errors = {
        (method, passes): error(a, lk.svd_lowrank(a, 20, method=method, passes=passes, rng=0))
        for method, passes in (
            ("rsvd", 2), ("rsvd", 4), ("krylov", 4), ("rsvd", 6), ("krylov", 6), ("krylov", 5),
        )
    }  # fmt: skip
    assert errors["rsvd", 2] > errors["rsvd", 4] > errors["krylov", 4] > errors["krylov", 6]
    assert errors["rsvd", 6] > errors["krylov", 6]
    best = np.linalg.norm(spectrum("half", 300)[20:]) / np.linalg.norm(spectrum("half", 300))
    assert errors["krylov", 6] < 1.001 * best
    assert errors["krylov", 5] < 1.01 * best


def test_libraries(xp):
    for dtype in ("float64", "complex64"):
        a = made(290, 280, spectrum("exp", 280), dtype)
        for options in METHODS[:3] + METHODS[5:]:
            whole = lk.svd_lowrank(a, 6, rng=0, **options)
            found = lk.svd_lowrank(xp.asarray(a), 6, rng=0, **options)
            assert all(type(x) is type(xp.asarray(a)) for x in found)
            assert type(found.info.error_estimate) is type(xp.asarray(a))
            assert str(found.U.dtype).endswith(dtype)
            assert np.abs(np.asarray(found.S) - whole.S).max() < 50 * EPS[dtype]
            assert error(a, found) < 1.3 * np.linalg.norm(
                0.8 ** np.arange(7, 280)
            ) / np.linalg.norm(0.8 ** np.arange(1, 280))
        found = lk.svd_lowrank(xp.asarray(a), tol=0.01, rng=0)
        assert error(a, found) <= 0.01
        pair = xp.asarray(np.stack([a, 2 * a]))
        assert lk.svd_lowrank(pair, 6, rng=0).Vh.shape == (2, 6, 280)


def test_device_arrays_stay_on_the_device(cuda):
    a = made(90, 60, spectrum("exp", 60))
    given = cuda.array(np.stack([a, 2 * a]))
    for options in (*METHODS[:3], METHODS[5], {"method": "exact"}):
        found = lk.svd_lowrank(given, 4, rng=0, **options)
        whole = lk.svd_lowrank(a, 4, rng=0, **options)
        assert all(type(x) is type(given) for x in (*found, found.info.error_estimate))
        assert np.abs(cuda.host(found.S)[0] - whole.S).max() < 1e-13
        assert np.abs(cuda.host(found.S)[1] - 2 * whole.S).max() < 1e-13


def test_sparse_and_operators(dtype):
    a = scipy.sparse.random_array((900, 300), density=0.02, rng=np.random.default_rng(0))
    a = (a + scipy.sparse.diags_array(np.linspace(5, 0, 300) ** 2, shape=(900, 300))).astype(dtype)
    if a.dtype.kind == "c":
        a = a + 1j * a.power(2)
        a = a.astype(dtype)
    dense = a.toarray()
    true = np.linalg.svd(dense, compute_uv=False)
    best = np.linalg.norm(true[8:]) / np.linalg.norm(true)
    forms = [
        a.tocsr(), a.tocoo(), scipy.sparse.csc_matrix(a), scipy.sparse.linalg.aslinearoperator(a),
        a.T.tocsr(),
    ]  # fmt: skip
    for form in forms:
        found = lk.svd_lowrank(form, 8, rng=0, check_adjoint=True)
        matrix = dense if form.shape == a.shape else dense.T
        assert isinstance(found.U, np.ndarray)
        assert found.U.dtype == np.dtype(dtype)
        assert error(matrix, found) < 1.02 * best
        assert 1 / 3 < found.info.error_estimate / error(matrix, found) < 3


def test_batches_strides_and_integers():
    a = np.stack([made(400, 280, spectrum(kind, 280)) for kind in ("exp", "one", "half", "two")])
    a = a.reshape(2, 2, 400, 280)
    found = lk.svd_lowrank(a, 5, rng=0)
    assert (found.U.shape, found.S.shape) == ((2, 2, 400, 5), (2, 2, 5))
    assert found.info.error_estimate.shape == found.info.rank.shape == (2, 2)
    alone = lk.svd_lowrank(a[1, 0], 5, rng=0)
    for x, y in zip(found, alone, strict=True):
        assert (x[1, 0] == y).all()
    plain = a[0, 1]
    fortran = np.asfortranarray(plain)
    fortran.flags.writeable = False
    wanted = np.linalg.svd(plain, compute_uv=False)[:5]
    views = [fortran, np.repeat(plain, 2, 1)[:, ::2], plain[::-1, ::-1], plain[:, ::-1]]
    views.append(np.lib.stride_tricks.as_strided(plain, plain.shape, plain.strides))
    for view in views:
        before = view.copy()
        got = lk.svd_lowrank(view, 5, rng=0)
        assert np.abs(got.S / wanted - 1).max() < 1e-3
        assert got.U.flags.c_contiguous
        assert (view == before).all()
    counts = np.arange(300 * 280).reshape(300, 280) % 7
    assert lk.svd_lowrank(counts, 2, rng=0).S.dtype == np.float64
    assert lk.svd_lowrank([[3, 0], [0, 4]], 1).S.tolist() == [4.0]


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0), (0, 5, 3), (2, 0, 4), (3, 5, 0)])
def test_empty(shape):
    found = lk.svd_lowrank(np.zeros(shape, np.complex64), 0)
    assert found.U.shape == (*shape[:-1], 0)
    assert found.S.shape == (*shape[:-2], 0)
    assert found.Vh.shape == (*shape[:-2], 0, shape[-1])
    assert (found.U.dtype, found.S.dtype) == (np.complex64, np.float32)
    assert not found.info.error_estimate.any()
    some = lk.svd_lowrank(np.zeros((0, 5, 3), np.float32), 2)
    assert some.Vh.shape == (0, 2, 3)


@pytest.mark.parametrize("options", [*METHODS, {"method": "exact"}], ids=str)
def test_zero(options):
    for a in (np.zeros((900, 300), np.float32), scipy.sparse.csr_array((900, 300))):
        if options.get("method") == "streaming" and scipy.sparse.issparse(a):
            continue
        found = lk.svd_lowrank(a, 4, rng=0, **options)
        assert not found.S.any()
        assert found.info.error_estimate == 0
        assert max(defects(found)) < 1e-5
    assert lk.svd_lowrank(np.zeros((900, 300)), tol=0.1, rng=0).info.rank == 0


@pytest.mark.parametrize("options", [*METHODS, {"method": "exact"}], ids=str)
@pytest.mark.parametrize("scale", [1e-150, 1e150, 2.0**-600, 2.0**600])
def test_very_large_and_very_small_numbers(options, scale):
    a = made(300, 140, spectrum("exp", 140))
    plain = lk.svd_lowrank(a, 6, rng=0, **options)
    found = lk.svd_lowrank(scale * a, 6, rng=0, **options)
    assert np.abs(found.S / scale / plain.S - 1).max() < 1e-10
    assert abs(found.info.error_estimate / plain.info.error_estimate - 1) < 1e-8
    assert max(defects(found)) < 1e-13
    if options == METHODS[0]:
        plain = lk.svd_lowrank(a, tol=0.1, rng=0, method="krylov")
        found = lk.svd_lowrank(scale * a, tol=0.1, rng=0, method="krylov")
        assert np.abs(found.S / scale / plain.S - 1).max() < 1e-10


def test_seeds():
    a = made(500, 280, spectrum("half", 280))
    one, two = (lk.svd_lowrank(a, 5, rng=seed) for seed in (1, 2))
    assert (lk.svd_lowrank(a, 5, rng=1).U == one.U).all()
    assert (one.S != two.S).any()
    fresh = lk.svd_lowrank(a, 5)
    for x, y in zip(lk.svd_lowrank(a, 5, rng=fresh.info.seed), fresh, strict=True):
        assert (x == y).all()
    generator = np.random.default_rng(3)
    drawn = lk.svd_lowrank(a, 5, rng=generator)
    assert (lk.svd_lowrank(a, 5, rng=np.random.default_rng(3)).S == drawn.S).all()
    assert (lk.svd_lowrank(a, 5, rng=generator).S != drawn.S).any()


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*METHODS, {"method": "exact"}, {"method": "tol"}], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_members_with_nan(options, bad):
    a = gaussian((3, 200, 130))
    clean = a.copy()
    a[1, 17, 5] = bad
    call = {"rank": 4, **options}
    if options.get("method") == "tol":
        call = {"tol": 0.9, "method": "krylov"}
    with pytest.raises(
        NonFiniteError, match=r"a holds NaN or infinity \(batch members \(1,\)\)"
    ) as e:
        lk.svd_lowrank(a, rng=0, **call)
    assert e.value.index == ((1,),)
    with pytest.warns(ConvergenceWarning):
        lk.svd_lowrank(a, rng=0, on_fail="warn", **call)
    good = lk.svd_lowrank(clean, rng=0, **call)
    for more in ({"on_fail": "nan"}, {"check_finite": False}):
        found = lk.svd_lowrank(a, rng=0, **more, **call)
        for x, y in zip(found, good, strict=True):
            assert np.isnan(x[1]).all()
            if "rank" in call:
                assert (x[[0, 2]] == y[[0, 2]]).all()
        assert found.info.converged.tolist() == [True, False, True]
        assert np.isnan(found.info.error_estimate[1])
        assert np.isfinite(found.info.error_estimate[[0, 2]]).all()
    sparse = scipy.sparse.csr_array(a[1] * (np.abs(a[1]) > 1))
    if options.get("method") != "streaming":
        with pytest.raises(NonFiniteError):
            lk.svd_lowrank(sparse, rng=0, **call)


def test_an_adjoint_that_is_wrong():
    a = gaussian((300, 270))
    wrong = scipy.sparse.linalg.LinearOperator(
        a.shape, matvec=lambda x: a @ x, rmatvec=lambda y: 2 * (a.T @ y), dtype=a.dtype
    )
    with pytest.raises(ValueError, match="a: the adjoint is not that of the product"):
        lk.svd_lowrank(wrong, 3, check_adjoint=True)


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda a: lk.svd_lowrank(a), TypeError, "rank: svd_lowrank needs a rank, or tol="),
        (lambda a: lk.svd_lowrank(a, 31), ValueError, "rank: must be at .* = 30, got 31"),
        (lambda a: lk.svd_lowrank(a, -1), ValueError, "rank: must be at least 0"),
        (lambda a: lk.svd_lowrank(a, 2.0), TypeError, "rank: must be an integer"),  # type: ignore[arg-type]
        (lambda a: lk.svd_lowrank(a, 2, oversample=-1), ValueError, "oversample: must"),
        (lambda a: lk.svd_lowrank(a, 2, passes=0), ValueError, "passes: must be at least 1"),
        (lambda a: lk.svd_lowrank(a, 2, passes=2, method="krylov"), ValueError, "needs at least 3"),
        (lambda a: lk.svd_lowrank(a, 2, method="svd"), ValueError, "method: must be one of"),  # type: ignore[arg-type]
        (lambda a: lk.svd_lowrank(a, 2, sketch="SRHT"), ValueError, "sketch: must be one of"),  # type: ignore[arg-type]
        (lambda a: lk.svd_lowrank(a, tol=0.1, method="rsvd"), ValueError, "tol: goes with"),
        (lambda a: lk.svd_lowrank(a, tol=2.0), ValueError, "tol: must satisfy"),
        (lambda a: lk.svd_lowrank(a, tol=1e-15), ValueError, "at least 64 eps = 1.42e-14"),
        (lambda a: lk.svd_lowrank(a[0], 1), ValueError, r"a: must have shape \(..., m, n\)"),
        (lambda a: lk.svd_lowrank(a.astype("float16"), 1), TypeError, "a: dtype must be"),
        (lambda a: lk.svd_lowrank("a", 1), TypeError, "a: must be an array"),
    ],
)  # fmt: skip
def test_bad_arguments(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call(gaussian((40, 30)))


def test_gradients_are_not_dropped():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        lk.svd_lowrank(torch.ones(5, 4, dtype=torch.float64, requires_grad=True), 2)


# --- The choice ----------------------------------------------------------------------------------


def test_the_choice_of_a_method():
    def chosen(m, n, rank, kind="dense", **options):
        plan = Plan(rank, **({"tol": None, "oversample": 10, "passes": None, "method": "auto",
                              "family": "auto"} | options))  # fmt: skip
        return _svd.choose_method(m, n, plan, kind=kind)[0]

    assert chosen(200, 100, 5) == "exact"
    assert chosen(10**6, 100, 5) == "krylov"
    assert chosen(3000, 2000, 5) == "krylov"
    assert chosen(3000, 2000, 5, passes=2) == chosen(3000, 2000, 5, passes=3) == "rsvd"
    assert chosen(3000, 2000, 5, passes=1) == "gen_nystrom"
    assert chosen(3000, 2000, 1500) == "exact"
    assert chosen(200, 100, 5, kind="operator") == "krylov"
    assert chosen(3000, 2000, None, tol=0.1) == "krylov"
    assert chosen(10**9, 100, 20, kind="blocks") == "rsvd"
    assert chosen(10**9, 100, 20, kind="blocks", passes=3) == "krylov"
    assert chosen(10**9, 100, 20, kind="blocks", passes=1) == "streaming"
    told = _svd.explain_svd(gaussian((40, 35)), 5)
    assert told.method == "exact"
    assert "small" in told.reason
    for size in ("small", "medium"):
        args, kwargs = _svd.sample(size, rng=0)
        told = _svd.explain_svd(*args, **kwargs)
        assert told.method == lk.svd_lowrank(*args, **kwargs).info.method
        assert told.flops > 0
