"""Traces and diagonals: exact cases, exact variances, intervals, kinds of input, failures."""

import math

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator
from spectra import EPS, gaussian, is_inside, spectrum, square_of_rank

import linalgk as lk
from linalgk.errors import (
    ConvergenceWarning,
    NotConvergedError,
)

ALL = [
    ("xtrace", "gen"), ("xtrace", "her"), ("xnystrace", "pos"), ("hutchpp", "gen"),
    ("hutchpp", "pos"), ("hutchinson", "gen"),
]  # fmt: skip


# --- Exact cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", ["sphere", "signs", "normal"])
@pytest.mark.parametrize(("method", "assume"), ALL[:5])
def test_low_rank_is_exact(method, assume, probes, dtype):
    a = square_of_rank(90, 5, dtype, positive=assume != "gen")
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
    a = square_of_rank(80, 4, dtype, positive=assume != "gen")
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
