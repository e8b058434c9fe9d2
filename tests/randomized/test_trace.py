"""Traces and diagonals: exact cases, exact variances, intervals, kinds of input, failures."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import linalgk as lk
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotConvergedError,
    NotPositiveSemidefiniteError,
)
from linalgk.randomized._trace import choose_method

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
ALL = [
    ("xtrace", "gen"), ("xtrace", "her"), ("xnystrace", "pos"), ("hutchpp", "gen"),
    ("hutchpp", "pos"), ("hutchinson", "gen"),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Matrices are too small for two."""
    with threadpoolctl.threadpool_limits(1):
        yield


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def spectrum(values, dtype="float64", seed=0):
    """A Hermitian matrix with these eigenvalues."""
    wide = np.result_type(dtype, "float64")
    q = np.linalg.qr(gaussian((len(values),) * 2, wide, seed))[0]
    a = (q * values) @ q.conj().T
    return ((a + a.conj().T) / 2).astype(dtype)


def low_rank(n, rank, dtype="float64", *, positive=True, seed=0):
    x = gaussian((n, rank), dtype, seed)
    y = x if positive else gaussian((n, rank), dtype, seed + 1)
    return x @ y.conj().T


def is_inside(estimate, true, level=0.95):
    low, high = estimate.interval(level)
    return bool(low <= true <= high)


# --- Exact cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", ["sphere", "signs", "normal"])
@pytest.mark.parametrize(("method", "assume"), ALL[:5])
def test_low_rank_is_exact(method, assume, probes, dtype):
    a = low_rank(90, 5, dtype, positive=assume != "gen")
    t = lk.estimate_trace(a, 30, method=method, assume_a=assume, probes=probes, rng=1)
    scale = EPS[dtype] * math.sqrt(90) * np.linalg.norm(a)
    assert abs(t.value - np.trace(a)) < 16 * scale
    # xnystrace is shifted by rounding, and has no rank to see
    assert t.std_error <= (16 * scale if method == "xnystrace" else 0)
    assert t.n_matvecs == 30
    real = assume != "gen" or np.dtype(dtype).kind == "f"
    assert np.asarray(t.value).dtype == np.zeros(0, dtype).real.dtype if real else dtype


@pytest.mark.parametrize("method", ["xdiag", "diagpp"])
@pytest.mark.parametrize("assume", ["gen", "her", "pos"])
def test_low_rank_diagonals_are_exact(method, assume, dtype):
    a = low_rank(80, 4, dtype, positive=assume != "gen")
    d = lk.estimate_diagonal(a, 30, method=method, assume_a=assume, rng=1)
    assert np.abs(d.value - np.diag(a)).max() < 16 * EPS[dtype] * np.linalg.norm(a)
    assert d.std_error.max() == 0
    low, high = d.interval()
    if low.dtype.kind == "f":
        assert (low <= np.diag(a).real).all()
        assert (np.diag(a).real <= high).all()


def test_diagonal_matrices_are_exact_with_signs():
    a = np.diag(np.arange(50.0) - 10)
    t = lk.estimate_trace(a, 4, method="hutchinson", rng=0)
    assert abs(t.value - 725) < 1e-12
    assert t.std_error < 1e-12
    d = lk.estimate_diagonal(a, 4, method="hutchinson", rng=0)
    assert (d.value == np.diag(a)).all()
    assert d.std_error.max() == 0


def test_enough_products_are_exact():
    a = gaussian((20, 20))
    for t in (lk.estimate_trace(a, 20), lk.estimate_trace(aslinearoperator(a), 25),
              lk.estimate_trace(a), lk.estimate_trace(scipy.sparse.csr_array(a))):  # fmt: skip
        assert t.method == "exact"
        assert abs(t.value - np.trace(a)) < 1e-13
        assert t.std_error == 0
        assert is_inside(t, math.fsum(np.diag(a)))
    d = lk.estimate_diagonal(aslinearoperator(a), 20, block=3)
    assert (d.value == np.diag(a)).all()
    assert d.n_matvecs == 20
    assert lk.estimate_trace(aslinearoperator(a), method="exact").n_matvecs == 20


def test_dependent_signs_in_few_dimensions():
    """Equal probes are no sign of a small rank: 40 seeds of 7 signs in 8 dimensions."""
    a = spectrum(np.arange(1.0, 9))
    for seed in range(40):
        t = lk.estimate_trace(a, 14, method="xtrace", probes="signs", rng=seed)
        assert t.std_error > 1e-3 or abs(t.value - 36) < 1e-12


def test_zero_and_empty():
    for method, assume in ALL:
        t = lk.estimate_trace(np.zeros((30, 30)), 12, method=method, assume_a=assume, rng=0)
        assert (t.value, t.std_error) == (0, 0)
        assert t.interval() == (0, 0)
    assert lk.estimate_trace(np.zeros((0, 0))).value == 0
    assert lk.estimate_diagonal(np.zeros((0, 0))).value.shape == (0,)
    empty = lk.estimate_trace(np.zeros((0, 4, 4), "float32"), 8)
    assert empty.value.shape == (0,)
    assert empty.value.dtype == np.float32
    assert lk.estimate_diagonal(np.zeros((2, 0, 5, 5)), 8).std_error.shape == (2, 0, 5)


# --- The formulas, one factorization for each probe -----------------------------------------------


def signs_of(seed, n, m):
    """The probes; their layout is kept over releases."""
    return lk.sketch.Philox(seed).spawn(1).signs(n * m).reshape(m, n).T


def sphere_of(seed, n, m, dtype):
    source = lk.sketch.Philox(seed).spawn(1)
    if np.dtype(dtype).kind == "c":
        x = source.normal(2 * n * m).reshape(m, n, 2)
        x = x[..., 0] + 1j * x[..., 1]
    else:
        x = source.normal(n * m).reshape(m, n)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).T * math.sqrt(n)


def on_and_off_a_range(a, w, others, sphere):
    """Trace on the range of A others, and the sample w on its complement."""
    q = np.linalg.qr(a @ others)[0]
    away = w - q @ (q.conj().T @ w)
    rest = away.conj() @ a @ away
    if sphere:
        rest *= (len(a) - q.shape[1]) / (away.conj() @ away).real
    return np.trace(q.conj().T @ a @ q) + rest


def on_and_off_nystroem(a, w, others, sphere):
    y = a @ others
    low = y @ np.linalg.inv(others.conj().T @ y) @ y.conj().T
    rest = w.conj() @ (a - low) @ w
    if sphere:
        q = np.linalg.qr(others)[0]
        away = w - q @ (q.conj().T @ w)
        rest *= (len(a) - q.shape[1]) / (away.conj() @ away).real
    return (np.trace(low) + rest).real


def on_and_off_diagonal(a, w, others, sphere):
    q = np.linalg.qr(a @ others)[0]
    on = q @ (q.conj().T @ a)
    return np.diag(on) + w.conj() * ((a - on) @ w)


def left_out(estimate, a, probes, sphere):
    """Mean and standard error from explicit estimates without one and without two probes."""
    m = probes.shape[1]

    def value(j, without):
        return estimate(a, probes[:, j], np.delete(probes, without, axis=1), sphere)

    one = np.array([value(j, [j]) for j in range(m)])
    two = np.array(
        [np.mean([value(j, [i, j]) for j in range(m) if j != i], axis=0) for i in range(m)]
    )
    spread = [(np.abs(x - x.mean(axis=0)) ** 2).sum(axis=0) for x in (one, two)]
    return one.mean(axis=0), (spread[0] * spread[1]) ** 0.25 / math.sqrt(m)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("probes", ["sphere", "signs"])
@pytest.mark.parametrize("method", ["xtrace", "xnystrace", "xdiag"])
def test_estimates_equal_those_by_leaving_out(method, probes, dtype):
    n, m = 40, 6
    a = gaussian((n, n), dtype) * 0.8 ** np.arange(n)
    if method == "xnystrace":
        a = a @ a.conj().T
    omega = signs_of(3, n, m) if probes == "signs" else sphere_of(3, n, m, dtype)
    naive = {
        "xtrace": on_and_off_a_range, "xnystrace": on_and_off_nystroem,
        "xdiag": on_and_off_diagonal,
    }[method]  # fmt: skip
    value, error = left_out(naive, a, omega, probes == "sphere")
    options = {"method": method, "probes": probes, "rng": 3}
    if method == "xdiag":
        e = lk.estimate_diagonal(a, 2 * m, **options)
    elif method == "xtrace":
        e = lk.estimate_trace(a, 2 * m, **options)
    else:
        e = lk.estimate_trace(a, m, assume_a="pos", **options)
    assert np.abs(e.value - value).max() < 1e-11 * np.linalg.norm(a)
    assert np.abs(e.std_error / error - 1).max() < 1e-9


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.stat
@pytest.mark.parametrize("kind", ["symmetric", "general"])
def test_variances_of_hutchinson(kind):
    """Mean and variance of 20000 forms; z < 4.5 each, so it fails by chance in 1 of 10^5 runs.

    The variance of a sample variance is (kurtosis - 1) / m, and the kurtosis is below 15.
    """
    a = gaussian((12, 12))
    s = (a + a.T) / 2
    a = s if kind == "symmetric" else a
    laws = {
        "signs": 2 * (np.sum(s**2) - np.sum(np.diag(s) ** 2)),
        "normal": 2 * np.sum(s**2),
        "sphere": 2 * 12 / 14 * (np.sum(s**2) - np.trace(s) ** 2 / 12),
    }
    for probes, variance in laws.items():
        t = lk.estimate_trace(a, 20000, method="hutchinson", probes=probes, rng=3)
        assert abs(t.value - np.trace(a)) < 4.5 * math.sqrt(variance / 20000)
        assert abs(t.std_error**2 * 20000 / variance - 1) < 4.5 * math.sqrt(14 / 20000)


@pytest.mark.stat
def test_variances_of_complex_matrices():
    """The same for complex vectors: ||A||_F^2 for normal ones, signs see the real part only."""
    a = spectrum(np.arange(10.0), "complex128")
    for probes, variance in (
        ("normal", np.linalg.norm(a) ** 2),
        ("signs", 2 * (np.sum(a.real**2) - np.sum(np.diag(a).real ** 2))),
    ):
        t = lk.estimate_trace(a, 20000, method="hutchinson", assume_a="her", probes=probes, rng=3)
        assert abs(t.value - 45) < 4.5 * math.sqrt(variance / 20000)
        assert abs(t.std_error**2 * 20000 / variance - 1) < 4.5 * math.sqrt(14 / 20000)


@pytest.mark.stat
def test_variances_of_diagonals():
    """Entry by entry: sum of squares of the other entries of the row; 12 entries, z < 4.5."""
    a = gaussian((12, 12))
    m = 20000
    d = lk.estimate_diagonal(a, m, method="hutchinson", rng=5)
    variance = (a**2).sum(axis=1) - np.diag(a) ** 2
    assert (np.abs(d.value - np.diag(a)) < 4.5 * np.sqrt(variance / m)).all()
    assert np.abs(d.std_error**2 * m / variance - 1).max() < 4.5 * math.sqrt(14 / m)


SPECTRA = {
    "flat": np.linspace(1, 2, 60),
    "polynomial": 1 / np.arange(1.0, 61) ** 2,
    "geometric": 0.8 ** np.arange(60.0),
}


@pytest.mark.stat
@pytest.mark.parametrize("probes", ["sphere", "signs"])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(("method", "assume"), ALL[1:3] + ALL[4:])
def test_intervals_cover_and_means_agree(method, assume, name, probes):
    """200 seeds: coverage of 95 % intervals above 88 %, z of the mean below 4.5.

    Independent samples with nearly normal law: fewer than 176 of 200 has probability 1e-4 at a
    coverage of 95 %. The other methods have intervals that are not shorter.
    """
    a = spectrum(SPECTRA[name])
    true = float(SPECTRA[name].sum())
    found = [
        lk.estimate_trace(a, 30, method=method, assume_a=assume, probes=probes, rng=seed)
        for seed in range(200)
    ]
    values = np.array([t.value for t in found])
    errors = np.array([t.std_error for t in found])
    spread = values.std(ddof=1)
    assert abs(values.mean() - true) < 4.5 * spread / math.sqrt(200)
    covered = np.mean([is_inside(t, true) for t in found])
    assert covered >= 0.88
    ratio = math.sqrt((errors**2).mean()) / spread
    # the sample of 200 has its standard deviation to 5 %, with heavy tails to 10 %
    assert 0.8 < ratio < (1.3 if method.startswith("hutch") else 1.8)


@pytest.mark.stat
@pytest.mark.parametrize("method", ["xdiag", "diagpp", "hutchinson"])
@pytest.mark.parametrize("kind", ["general", "pos"])
def test_diagonals_cover_and_means_agree(method, kind):
    """150 seeds, 40 entries: z < 5 each (chance 2e-5); mean coverage above 90 %."""
    a = spectrum(0.85 ** np.arange(40.0))
    if kind == "general":
        a = a @ np.linalg.qr(gaussian((40, 40)))[0]
    assume = "gen" if kind == "general" else "pos"
    found = [
        lk.estimate_diagonal(a, 24, method=method, assume_a=assume, rng=seed) for seed in range(150)
    ]
    values = np.array([d.value for d in found])
    z = (values.mean(axis=0) - np.diag(a)) / values.std(axis=0, ddof=1) * math.sqrt(150)
    assert np.abs(z).max() < 5
    inside = [
        np.mean((d.interval()[0] <= np.diag(a)) & (np.diag(a) <= d.interval()[1])) for d in found
    ]
    assert np.mean(inside) > 0.9
    ratio = np.sqrt((np.array([d.std_error for d in found]) ** 2).mean(0)) / values.std(0, ddof=1)
    assert 0.85 < np.median(ratio) < 1.8


@pytest.mark.stat
def test_complex_means_agree():
    """General complex matrix, complex vectors of the sphere; 200 seeds, z < 4.5 in both parts."""
    a = gaussian((40, 40), "complex128") * 0.8 ** np.arange(40)
    values = np.array([lk.estimate_trace(a, 20, rng=seed).value for seed in range(200)])
    for part in (values - np.trace(a)).real, (values - np.trace(a)).imag:
        assert abs(part.mean()) < 4.5 * part.std(ddof=1) / math.sqrt(200)
    p = a @ a.conj().T
    values = np.array(
        [lk.estimate_trace(p, 20, assume_a="pos", rng=seed).value for seed in range(200)]
    )
    z = (values.mean() - np.trace(p).real) / values.std(ddof=1) * math.sqrt(200)
    assert abs(z) < 4.5


@pytest.mark.stat
def test_rates():
    """Hutch++ and XTrace fall at least like 1/m, Hutchinson like m^(-1/2); 60 seeds a point.

    A slope has a standard error of 0.09 from 60 seeds at m = 24 and 96; 4.5 of them are allowed.
    """
    a = spectrum(1 / np.arange(1.0, 151) ** 1.5)
    true = np.trace(a)

    def slope(**options):
        errors = [
            np.sqrt(np.mean([(lk.estimate_trace(a, m, rng=s, **options).value - true) ** 2
                             for s in range(60)])) for m in (24, 96)
        ]  # fmt: skip
        return math.log(errors[1] / errors[0]) / math.log(4)

    assert abs(slope(method="hutchinson") + 0.5) < 0.4
    assert slope(method="hutchpp") < -0.9
    assert slope(method="xtrace") < -0.9
    assert slope(method="xnystrace", assume_a="pos") < -0.9


# --- Targets, growth, seeds ----------------------------------------------------------------------


@pytest.mark.parametrize(("method", "assume"), ALL)
def test_tol_is_met(method, assume):
    a = spectrum(0.9 ** np.arange(300.0))
    seen = []
    t = lk.estimate_trace(
        a, 300, method=method, assume_a=assume, tol=0.05, rng=2, callback=seen.append
    )
    low, high = t.interval()
    assert (high - low) / 2 <= 0.05 * t.value * (1 + 1e-9)
    assert abs(t.value - 10) < 1
    assert t.n_matvecs == seen[-1].n_matvecs < 300
    assert [s.iteration for s in seen] == list(range(1, len(seen) + 1))
    assert t.converged


def test_growing_gives_what_one_run_gives():
    """Products are reused: the rounds of a target end at the estimate of that many products."""
    a = spectrum(1 / np.arange(1.0, 201))
    for method, assume in ALL:
        t = lk.estimate_trace(a, 150, method=method, assume_a=assume, tol=1e-3, rng=2,
                              callback=lambda s: s.iteration == 3)  # fmt: skip
        again = lk.estimate_trace(a, t.n_matvecs, method=method, assume_a=assume, rng=t.seed)
        assert again.n_matvecs == t.n_matvecs
        if method != "hutchpp":  # its thirds are rounded
            assert abs(again.value - t.value) < 1e-11
            assert abs(again.std_error - t.std_error) < 1e-9 * t.std_error + 1e-12


def test_missing_the_target():
    a = spectrum(np.linspace(1, 2, 100))
    options = {"tol": 1e-9, "rng": 0, "method": "hutchinson"}
    with pytest.raises(NotConvergedError, match="still above tol after 40 products") as caught:
        lk.estimate_trace(a, 40, **options)
    assert abs(caught.value.result.value - 150) < 5 * caught.value.result.std_error
    with pytest.warns(ConvergenceWarning):
        t = lk.estimate_trace(a, 40, on_fail="warn", **options)
    assert not t.converged
    assert t.value == caught.value.result.value
    assert np.isnan(lk.estimate_trace(a, 40, on_fail="nan", **options).value)


def test_callback_stops():
    def stop(state):
        raise StopIteration

    a = spectrum(np.linspace(1, 2, 100))
    t = lk.estimate_trace(a, tol=1e-6, rng=0, callback=stop)
    assert (t.n_matvecs, bool(t.converged)) == (16, False)
    assert t.value == lk.estimate_trace(a, 16, rng=0).value
    assert lk.estimate_trace(a, 20, rng=0, callback=lambda s: True).n_matvecs == 20
    with pytest.raises(TypeError, match="callback: must be callable"):
        lk.estimate_trace(a, 20, callback=3)


def test_seeds_blocks_and_progress():
    a = gaussian((70, 70))
    for method in ("xtrace", "hutchpp", "hutchinson"):
        t = lk.estimate_trace(a, 24, method=method, rng=7)
        assert lk.estimate_trace(a, 24, method=method, rng=t.seed).value == t.value
        assert lk.estimate_trace(a, 24, method=method, rng=8).value != t.value
        blocked = lk.estimate_trace(a, 24, method=method, rng=7, block=5).value
        assert abs(blocked - t.value) < 1e-11 * np.linalg.norm(a)
    assert lk.estimate_trace(a, 10).value != lk.estimate_trace(a, 10).value
    lk.estimate_trace(a, 10, progress=True)


# --- Kinds of input ------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "assume"), ALL)
def test_dtypes_agree_with_doubles(method, assume, dtype):
    a = spectrum(0.7 ** np.arange(80.0), dtype)
    t = lk.estimate_trace(a, 30, method=method, assume_a=assume, rng=3)
    wide = lk.estimate_trace(
        a.astype(np.result_type(dtype, "float64")), 30, method=method, assume_a=assume, rng=3
    )
    assert np.asarray(t.std_error).dtype == np.zeros(0, dtype).real.dtype
    assert abs(t.value - wide.value) < 64 * EPS[dtype] * math.sqrt(80) * np.linalg.norm(a)


def test_batches_and_members_alone():
    a = gaussian((2, 3, 60, 60))
    t = lk.estimate_trace(a, 20, rng=4)
    assert t.value.shape == t.std_error.shape == t.dof.shape == t.n_matvecs.shape == (2, 3)
    assert t.value[1, 2] == lk.estimate_trace(a[1, 2], 20, rng=4).value
    low, high = t.interval(0.9)
    assert (low < t.value).all()
    assert (t.value < high).all()
    one = lk.estimate_trace(a[1, 2], 20, rng=4).interval(0.9)
    assert (low[1, 2], high[1, 2]) == one
    d = lk.estimate_diagonal(a, 20, rng=4)
    assert d.value.shape == (2, 3, 60)
    assert (d.interval()[1][1, 2] == lk.estimate_diagonal(a[1, 2], 20, rng=4).interval()[1]).all()


def test_layouts_sparse_and_operators(dtype):
    a = gaussian((60, 60), dtype)
    t = lk.estimate_trace(a, 20, rng=4)
    d = lk.estimate_diagonal(a, 20, rng=4)
    bound = 64 * EPS[dtype] * math.sqrt(60) * np.linalg.norm(a)
    fortran, before = np.asfortranarray(a), a.copy()
    fortran.flags.writeable = False
    strided = np.repeat(a, 2, axis=0)[::2]
    for other in (fortran, strided, scipy.sparse.csr_array(a), scipy.sparse.coo_array(a),
                  aslinearoperator(a)):  # fmt: skip
        assert abs(lk.estimate_trace(other, 20, rng=4).value - t.value) < bound
        assert np.abs(lk.estimate_diagonal(other, 20, rng=4).value - d.value).max() < bound
    assert (a == before).all()


def test_integers_and_lists():
    t = lk.estimate_trace([[2, 1], [1, 3]])
    assert float(t) == 5
    assert t.value.dtype == np.float64


def test_operators_without_an_adjoint():
    a = gaussian((50, 50))
    operator = LinearOperator((50, 50), matvec=lambda x: a @ x, dtype=a.dtype)
    assert (
        abs(lk.estimate_trace(operator, 20, rng=0).value - lk.estimate_trace(a, 20, rng=0).value)
        < 1e-11
    )
    s = a + a.T
    operator = LinearOperator((50, 50), matvec=lambda x: s @ x, dtype=a.dtype)
    assert lk.estimate_diagonal(operator, 20, assume_a="her", rng=0).method == "xdiag"


def test_other_libraries(xp):
    a = gaussian((2, 50, 50))
    theirs = xp.asarray(a)
    mine = lk.estimate_trace(a, 20, rng=4)
    for method in ("xtrace", "hutchpp", "hutchinson"):
        mine = lk.estimate_trace(a, 20, method=method, rng=4)
        t = lk.estimate_trace(theirs, 20, method=method, rng=4)
        assert type(t.value) is type(theirs)
        assert type(t.info.converged) is type(theirs)
        assert np.abs(lk.testing.to_numpy(t.value) - mine.value).max() < 1e-10
        for end, wanted in zip(t.interval(), mine.interval(), strict=True):
            assert np.abs(lk.testing.to_numpy(end) - wanted).max() < 1e-9
    for method in ("xdiag", "diagpp", "hutchinson"):
        mine = lk.estimate_diagonal(a, 20, method=method, rng=4)
        d = lk.estimate_diagonal(theirs, 20, method=method, rng=4)
        assert np.abs(lk.testing.to_numpy(d.value) - mine.value).max() < 1e-10
        assert np.abs(lk.testing.to_numpy(d.std_error) - mine.std_error).max() < 1e-10
        assert np.abs(lk.testing.to_numpy(d.interval()[0]) - mine.interval()[0]).max() < 1e-9
    square = theirs[0, ...] @ theirs[0, ...].T
    t = lk.estimate_trace(square, 20, assume_a="pos", rng=4)
    wanted = lk.estimate_trace(a[0] @ a[0].T, 20, assume_a="pos", rng=4)
    assert abs(float(t) - wanted.value) < 1e-9
    assert lk.estimate_trace(theirs, 50).method == "exact"


def test_arrays_of_a_device_stay_there(cuda):
    a = gaussian((2, 50, 50))
    for method in ("xtrace", "hutchpp", "hutchinson"):
        t = lk.estimate_trace(cuda.array(a), 20, method=method, rng=4)
        wanted = lk.estimate_trace(a, 20, method=method, rng=4)
        assert type(t.value) is type(cuda.array(a))
        assert np.abs(cuda.host(t.value) - wanted.value).max() < 1e-10
        assert np.abs(cuda.host(t.interval()[1]) - wanted.interval()[1]).max() < 1e-9
    s = a[0] @ a[0].T
    t = lk.estimate_trace(cuda.array(s), 20, assume_a="pos", rng=4)
    assert abs(float(t) - lk.estimate_trace(s, 20, assume_a="pos", rng=4).value) < 1e-9
    for method in ("xdiag", "diagpp", "hutchinson"):
        d = lk.estimate_diagonal(cuda.array(a), 20, method=method, rng=4)
        wanted = lk.estimate_diagonal(a, 20, method=method, rng=4)
        assert np.abs(cuda.host(d.value) - wanted.value).max() < 1e-10
        assert np.abs(cuda.host(d.std_error) - wanted.std_error).max() < 1e-10


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize(("method", "assume"), ALL)
def test_huge_and_tiny_entries(method, assume, scale):
    a = spectrum(0.8 ** np.arange(60.0))
    t = lk.estimate_trace(a, 24, method=method, assume_a=assume, rng=1)
    far = lk.estimate_trace(scale * a, 24, method=method, assume_a=assume, rng=1)
    assert abs(far.value / scale - t.value) < 1e-12
    assert abs(far.std_error / scale - t.std_error) < 1e-9 * t.std_error + 1e-13
    d = lk.estimate_diagonal(scale * a, 24, rng=1)
    assert np.abs(d.value / scale - lk.estimate_diagonal(a, 24, rng=1).value).max() < 1e-12


# --- The result ----------------------------------------------------------------------------------


def test_estimates_unpack_pickle_and_show():
    a = spectrum(np.linspace(1, 2, 80))
    t = lk.estimate_trace(a, 20, rng=0)
    value, error = t
    assert (value, error) == (t.value, t.std_error)
    assert isinstance(t, lk.Estimate)
    assert float(t) == t.value == complex(t)
    copy = pickle.loads(pickle.dumps(t))
    assert copy.interval() == t.interval()
    assert repr(t).startswith("Estimate(1")
    assert "method='xtrace', n_matvecs=20" in repr(t)
    assert "shape (80,)" in repr(lk.estimate_diagonal(a, 20))
    assert t.bounds is None
    assert t.info.method == t.method
    assert t.info.seed == t.seed
    assert abs(t.info.error_estimate - error / value) < 1e-15
    # Student's quantile with 9 degrees of freedom
    low, high = t.interval(0.95)
    assert abs((high - low) / 2 / error - 2.262157) < 1e-5
    assert t.interval(0.99)[0] < low
    for level in (0, 1, 1.5):
        with pytest.raises(ValueError, match="level"):
            t.interval(level)


def test_one_probe_has_no_error():
    t = lk.estimate_trace(gaussian((30, 30)), 2, rng=0)
    assert t.method == "hutchinson"
    one = lk.estimate_diagonal(gaussian((30, 30)), 2, method="hutchinson", rng=0)
    assert np.isfinite(one.std_error).all()
    assert t.dof == 1


def test_complex_values():
    a = gaussian((60, 60), "complex128")
    t = lk.estimate_trace(a, 30, rng=0)
    low, high = t.interval(0.999)
    assert low.real < np.trace(a).real < high.real
    assert low.imag < np.trace(a).imag < high.imag
    with pytest.raises(TypeError):
        float(t)
    assert complex(t) == t.value


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("method", "assume"), [*ALL, ("exact", "gen")])
def test_nan(method, assume, bad):
    a = np.stack([spectrum(np.linspace(1, 2, 40))] * 3)
    a[1, 5, 5] = bad
    options = {"method": method, "assume_a": assume, "rng": 0}
    with pytest.raises(
        NonFiniteError, match=r"a holds NaN or infinity \(batch members \(1,\)\)"
    ) as e:
        lk.estimate_trace(a, 20, **options)
    assert e.value.index == ((1,),)
    quiet = lk.estimate_trace(a, 20, on_fail="nan", **options)
    assert np.isnan(quiet.value).tolist() == [False, True, False]
    assert quiet.converged.tolist() == [True, False, True]
    alone = lk.estimate_trace(a[2], 20, **options)
    assert quiet.value[2] == alone.value
    with pytest.warns(ConvergenceWarning):
        lk.estimate_trace(a, 20, on_fail="warn", **options)
    assert np.isnan(lk.estimate_trace(a, 20, check_finite=False, **options).value[1])
    d = lk.estimate_diagonal(a, 20, on_fail="nan", rng=0)
    assert np.isnan(d.value[1]).all()
    assert np.isfinite(d.value[[0, 2]]).all()


def test_nan_in_other_kinds():
    a = spectrum(np.linspace(1, 2, 40))
    a[3, 4] = math.nan
    for other in (scipy.sparse.csr_array(a), aslinearoperator(a)):
        with pytest.raises(NonFiniteError, match="NaN"):
            lk.estimate_trace(other, 20)
        with pytest.raises(NonFiniteError, match="NaN"):
            lk.estimate_diagonal(other, 20)


def test_wrong_structure():
    a = gaussian((50, 50))
    for method, assume in (("xtrace", "her"), ("xnystrace", "pos"), ("hutchpp", "her")):
        with pytest.raises(AsymmetricError, match="a is not Hermitian"):
            lk.estimate_trace(a, 20, method=method, assume_a=assume, rng=0)
    with pytest.raises(AsymmetricError, match="a is not Hermitian"):
        lk.estimate_diagonal(a, 20, assume_a="her", rng=0)
    # one pair of entries is enough
    s = spectrum(np.linspace(1, 2, 50))
    s[3, 7] += 1e-4
    with pytest.raises(AsymmetricError, match="symmetrise"):
        lk.estimate_trace(s, 20, assume_a="pos", rng=0)
    indefinite = spectrum(np.linspace(-1, 2, 50))
    with pytest.raises(NotPositiveSemidefiniteError, match="assume_a"):
        lk.estimate_trace(indefinite, 20, assume_a="pos", rng=0)
    assert lk.estimate_trace(indefinite, 20, assume_a="her", rng=0).std_error > 0


def test_a_wrong_adjoint_is_found():
    a = gaussian((50, 50))
    wrong = LinearOperator((50, 50), matvec=lambda x: a @ x, rmatvec=lambda x: a @ x, dtype=float)
    with pytest.raises(ValueError, match="adjoint is not that of the product"):
        lk.estimate_diagonal(wrong, 20, check_adjoint=True)
    right = LinearOperator((50, 50), matvec=lambda x: a @ x, rmatvec=lambda x: a.T @ x, dtype=float)
    assert lk.estimate_diagonal(right, 20, check_adjoint=True).method == "xdiag"


def test_bad_arguments():
    a = np.eye(30)
    cases = [
        (ValueError, "n, n", lambda: lk.estimate_trace(np.ones((3, 4)), 2)),
        (ValueError, "a: must have shape", lambda: lk.estimate_trace(np.ones(3), 2)),
        (ValueError, "method: must be one of", lambda: lk.estimate_trace(a, 9, method="slq")),
        (ValueError, "assume_a: must be", lambda: lk.estimate_trace(a, 9, assume_a="sym")),
        (ValueError, "needs assume_a='pos'", lambda: lk.estimate_trace(a, 9, method="xnystrace")),
        (ValueError, "n_matvecs: 'xtrace' needs at least 4, got 3",
         lambda: lk.estimate_trace(a, 3, method="xtrace")),
        (ValueError, "n_matvecs: must be at least 1", lambda: lk.estimate_trace(a, 0)),
        (TypeError, "n_matvecs: must be an integer", lambda: lk.estimate_trace(a, 2.5)),
        (ValueError, "probes: must be one of", lambda: lk.estimate_trace(a, 9, probes="cube")),
        (ValueError, "block: must be at least 1", lambda: lk.estimate_trace(a, 9, block=0)),
        (ValueError, "tol: must be at least", lambda: lk.estimate_trace(a, 9, tol=1e-16)),
        (ValueError, "level", lambda: lk.estimate_trace(a, 9, tol=0.1, level=1.0)),
        (ValueError, "at least 5", lambda: lk.estimate_diagonal(a, 4, method="diagpp")),
        (ValueError, "method: must be one of", lambda: lk.estimate_diagonal(a, 9, method="xtrace")),
        (TypeError, "a: must be an array", lambda: lk.estimate_trace("a", 9)),
    ]  # fmt: skip
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()


def test_tensors_that_require_grad():
    torch = pytest.importorskip("torch")
    a = torch.eye(20, requires_grad=True)
    with pytest.raises(TypeError, match="requires grad"):
        lk.estimate_trace(a, 10)


def test_choice_of_the_method():
    trace, diagonal = "estimate_trace", "estimate_diagonal"
    assert choose_method(trace, 1000, 50)[0] == "xtrace"
    assert choose_method(trace, 1000, 50, assume_a="pos")[0] == "xnystrace"
    assert choose_method(diagonal, 1000, 50)[0] == "xdiag"
    assert choose_method(trace, 1000, 4)[0] == "hutchinson"
    assert choose_method(trace, 1000, 1000)[0] == "exact"
    assert choose_method(trace, 1000, 1000, tol=0.1)[0] == "xtrace"
    assert choose_method(trace, 1000, 9, method="hutchpp")[0] == "hutchpp"
