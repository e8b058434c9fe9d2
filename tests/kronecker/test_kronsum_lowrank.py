"""Sylvester equations of low rank: shifts against elliptic functions, bounds against errors."""

import itertools
import math

import numpy as np
import pytest
from directions import adjoint, gaussian
from spectra import EPS, spectrum

from linalgk.errors import NonFiniteError, NotConvergedError, SingularMatrixError
from linalgk.kronecker import _adi
from linalgk.kronecker._kronsum import KronSum


def solved(k, u, v):
    """The solution as a full matrix."""
    m, n = (f.shape[0] for f in k.factors)
    return k.solve((u @ adjoint(v)).reshape(-1)).reshape(m, n)


def distance(found, x):
    return np.linalg.norm(found.toarray() - x) / np.linalg.norm(x)


# --- Shifts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("complement", [0.99, 0.5, 1e-1, 1e-3, 1e-5, 9e-7, 1e-8, 1e-12, 1e-25])
def test_dn_near_modulus_one(complement):
    mpmath = pytest.importorskip("mpmath")
    x = np.array([0.01, 0.1, 0.3, 0.5, 0.500001, 0.7, 0.95, 0.999])
    with mpmath.workdps(70):
        m = 1 - mpmath.mpf(complement) ** 2
        k = mpmath.ellipk(m)
        want = np.array([float(mpmath.ellipfun("dn", mpmath.mpf(t) * k, m=m)) for t in x])
    found = _adi.dn(x, complement)
    # SciPy's parameter is 1 - k'^2, whose rounding counts k'^-1 fold at most
    assert np.abs(found / want - 1).max() < 8 * EPS["float64"] / max(complement, 1e-5)
    assert (np.diff(found) < 0).all()


@pytest.mark.parametrize(
    ("e", "f"),
    [
        ((-10.0, -1.0), (1.0, 10.0)),
        ((1.0, 1e4), (-1e3, -2.0)),
        ((1e-8, 1.0), (-1e-3, -1e-9)),
        ((3.0, 4.0), (10.0, 1e9)),
        ((-1.0, 0.0), (0.25, 0.5)),
        ((2.0, 2.5), (-1e-3, 1e-3)),
    ],
)
@pytest.mark.parametrize("pairs", [1, 2, 5, 12, 30])
def test_shifts_equioscillate(e, f, pairs):
    """Zolotarev's function has 2 J + 1 extrema of one size on e, and of the inverse on f.

    Its value, the leftover, is at most ``4 exp(-J pi^2 / log(16 gamma))``.
    """
    shifts = _adi.zolotarev(e, f, pairs)
    assert ((e[0] <= shifts.zeros) & (shifts.zeros <= e[1])).all()
    assert ((f[0] <= shifts.poles) & (shifts.poles <= f[1])).all()
    gamma = 1 + _adi.cross_ratio(e, f)
    (a, b), (c, d) = e, f
    assert np.isclose(gamma, abs((c - a) * (d - b) / ((c - b) * (d - a))))
    bound = 4 * math.exp(-pairs * math.pi**2 / math.log(16 * gamma))

    # points that are dense where the shifts are, in the coordinate that the map makes even
    def dense(interval, inside):
        ends = np.sort(np.concatenate([interval, inside]))
        return np.unique(
            np.concatenate([np.linspace(x, y, 2000) for x, y in itertools.pairwise(ends)])
        )

    x, y = dense(e, shifts.zeros), dense(f, shifts.poles)
    left = _adi.leftover((x, y), shifts)
    assert left <= bound
    if left > 1e-13:

        def size(points):
            return np.abs(
                np.prod((points[:, None] - shifts.zeros) / (points[:, None] - shifts.poles), axis=1)
            )

        edges = np.sort(np.concatenate([e, shifts.zeros]))
        peaks = np.array([size(x[(x >= p) & (x <= q)]).max() for p, q in itertools.pairwise(edges)])
        assert np.ptp(peaks) <= 1e-3 * peaks.max()


def test_shifts_of_points_and_of_many_sizes():
    point = _adi.zolotarev((2.0, 2.0), (-3.0, -1.0), 1)
    assert point.zeros == [2.0]
    assert _adi.count((2.0, 2.0), (-3.0, -1.0), 1e-10) == 1
    plain = _adi.zolotarev((1.0, 50.0), (-60.0, -2.0), 7)
    for scale in (1e-200, 1e150):
        found = _adi.zolotarev((scale, 50 * scale), (-60 * scale, -2 * scale), 7)
        assert np.allclose(found.zeros / scale, plain.zeros, rtol=1e-12)
    turned = _adi.zolotarev((-50.0, -1.0), (2.0, 60.0), 7)
    assert np.allclose(np.sort(-turned.zeros), np.sort(plain.zeros), rtol=1e-13)


# --- Solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [1.0 + 1e-9, 10.0, 1e3, 1e6])
@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-8, 1e-11])
def test_errors_are_below_bound_and_tol(kappa, tol):
    a = spectrum(np.geomspace(1, kappa, 40), seed=1)
    b = spectrum(np.geomspace(1, kappa, 30), seed=2)
    k = KronSum([a, b])
    u, v = gaussian((40, 2), seed=3), gaussian((30, 2), seed=4)
    found, x = k.solve_lowrank(u, v, tol=tol), solved(k, u, v)
    error = distance(found, x)
    assert error <= found.bound
    assert error <= tol
    gamma = 1 + _adi.cross_ratio((1, kappa), (-kappa, -1))
    steps = math.ceil(math.log(16 * gamma) * math.log(8 / tol) / math.pi**2)
    assert found.iterations == steps
    assert found.rank <= 2 * steps
    # no more columns than half of tol asks for
    s = np.linalg.svd(x, compute_uv=False)
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1] / (s**2).sum())
    assert found.rank <= np.count_nonzero(tails > 0.4 * tol)
    # what the shifts leave is known without the solution
    if tol >= 1e-8 and kappa <= 1e3:
        assert found.bound <= 1.01 * tol


def test_bound_is_no_better_than_the_error(rng):
    """A bound that were too small would be seen: the leftover is reached for some right side."""
    w, u = np.geomspace(1, 100, 200), np.geomspace(1, 100, 200)
    shifts = _adi.zolotarev((1.0, 100.0), (-100.0, -1.0), 4)
    left = _adi.leftover((w, -u), shifts)
    i = np.argmax(
        np.abs(np.prod((w[:, None] - shifts.zeros) / (w[:, None] - shifts.poles), axis=1))
    )
    e = np.zeros((200, 1))
    e[i] = 1
    k = KronSum([np.diag(w), np.diag(u)])
    tol = 8 / math.exp(4 * math.pi**2 / math.log(16 * (1 + _adi.cross_ratio((1, 100), (-100, -1)))))
    found = k.solve_lowrank(e, e, tol=1.0001 * tol)
    assert found.iterations == 4
    error = distance(found, solved(k, e, e))
    assert 0.4 * left <= error <= left * (1 + 1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_every_dtype(sign, dtype):
    a = spectrum(sign * np.geomspace(1, 50, 20), dtype, 1)
    b = spectrum(sign * np.geomspace(0.5, 80, 15), dtype, 2)
    u, v = gaussian((20, 1), dtype, 3), gaussian((15, 1), dtype, 4)
    k = KronSum([a, b])
    tol = 1e-4 if EPS[dtype] > 1e-10 else 1e-9
    found = k.solve_lowrank(u, v, tol=tol)
    z, d, w = found
    assert z.dtype == w.dtype == np.dtype(dtype)
    assert d.dtype == np.empty(0, dtype).real.dtype
    assert (np.diff(d) <= 0).all()
    for q in (z, w):
        assert np.linalg.norm(adjoint(q) @ q - np.eye(found.rank)) < 100 * EPS[dtype]
    wide = KronSum([f.astype(np.result_type(dtype, "float64")) for f in (a, b)])
    x = solved(wide, u.astype(wide.dtype), v.astype(wide.dtype))
    assert distance(found, x) <= min(tol, found.bound)
    y = found.toarray()
    rest = np.linalg.norm(a @ y + y @ b.T - u @ adjoint(v))
    sizes = (np.linalg.norm(a) + np.linalg.norm(b)) * np.linalg.norm(y) + np.linalg.norm(
        u
    ) * np.linalg.norm(v)
    assert abs(found.residual - rest / sizes) <= 20 * EPS[dtype]
    assert found.shape == (20, 15)
    assert "iterations" in repr(found)
    assert k.solve_lowrank(u, v).bound < 1e-3


def test_factors_that_are_not_hermitian():
    a = np.diag(np.geomspace(1, 100, 30)) + 0.05 * np.triu(gaussian((30, 30), seed=1), 1)
    b = np.diag(np.geomspace(1, 100, 20)) + 0.05 * np.triu(gaussian((20, 20), seed=2), 1)
    u, v = gaussian((30, 2), seed=3), gaussian((20, 2), seed=4)
    turn = np.exp(2j * np.arange(20))
    other = b * turn[:, None] * turn.conj()
    for first, second in ((a, b), (a, other), (a, spectrum(np.geomspace(1, 100, 20)))):
        k = KronSum([first, second])
        found = k.solve_lowrank(u, v, tol=1e-9, intervals=((1, 100), (1, 100)))
        assert distance(found, solved(k, u, v)) < 1e-7
        assert found.residual <= 1e-9
        assert found.bound == math.inf
    with pytest.raises(NotConvergedError, match="give intervals= that hold") as caught:
        k.solve_lowrank(u, v, tol=1e-9, intervals=((1, 1.1), (1, 1.1)))
    assert caught.value.result.residual > 1e-9


def test_intervals_of_hermitian_factors():
    """Wider ones cost steps; of narrower ones the bound knows, from the spectra."""
    k = KronSum([spectrum(np.geomspace(1, 100, 30), seed=s) for s in range(2)])
    u, v = gaussian((30, 1), seed=3), gaussian((30, 1), seed=4)
    x = solved(k, u, v)
    own = k.solve_lowrank(u, v, tol=1e-6)
    wide = k.solve_lowrank(u, v, tol=1e-6, intervals=((0.1, 1e4), (0.1, 1e4)))
    assert wide.iterations > own.iterations
    assert distance(wide, x) <= wide.bound <= 1e-6
    narrow = k.solve_lowrank(u, v, tol=1e-2, intervals=((1, 60), (1, 60)))
    assert distance(narrow, x) <= narrow.bound


def test_a_poisson_equation_of_low_rank():
    """Rank grows like log(n), and a right side of rank one costs what its rank does."""
    ranks = []
    for n in (50, 200, 400):
        line = (n + 1.0) ** 2 * (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
        k = KronSum([line, line], assume_a="pos")
        found = k.solve_lowrank(np.ones((n, 1)), np.ones((n, 1)), tol=1e-7)
        assert found.bound <= 1e-7
        ranks.append(found.rank)
        x = solved(k, np.ones((n, 1)), np.ones((n, 1)))
        assert distance(found, x) <= found.bound
    assert ranks[-1] < ranks[0] + 8


def test_trivial_right_sides():
    k = KronSum([np.diag([1.0, 2.0]), np.diag([1.0, 3.0, 4.0])])
    for u, v in ((np.zeros((2, 1)), np.ones((3, 1))), (np.empty((2, 0)), np.empty((3, 0)))):
        found = k.solve_lowrank(u, v)
        assert found.rank == 0
        assert found.bound == found.residual == 0
        assert (found.toarray() == 0).all()
        assert found.toarray().shape == (2, 3)
    # more columns than rows
    u, v = gaussian((2, 9)), gaussian((3, 9), seed=1)
    assert distance(k.solve_lowrank(u, v), solved(k, u, v)) < 1e-10
    one = KronSum([np.array([[2.0]]), np.array([[3.0]])])
    assert np.isclose(one.solve_lowrank([[10.0]], [[1.0]]).toarray()[0, 0], 2.0)


def test_other_libraries_get_their_own_arrays(xp):
    a, b = (spectrum(np.geomspace(1, 100, n), seed=n) for n in (12, 10))
    u, v = gaussian((12, 2), seed=3), gaussian((10, 2), seed=4)
    given = [xp.asarray(x) for x in (a, b, u, v)]
    found = KronSum(given[:2]).solve_lowrank(*given[2:], tol=1e-9)
    assert all(type(x) is type(given[0]) for x in (*found, found.toarray()))
    assert np.linalg.norm(np.asarray(found.toarray()) - solved(KronSum([a, b]), u, v)) < 1e-8


# --- Failures ------------------------------------------------------------------------------------


ONE = np.ones((2, 1))
LINE = np.diag([1.0, 2.0])


def call(a=LINE, b=LINE, u=ONE, v=ONE, **options):
    return KronSum([a, b]).solve_lowrank(u, v, **options)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: KronSum([LINE] * 3).solve_lowrank(ONE, ONE), ValueError, "got 3 factors"),
        (lambda: call(np.stack([LINE])), ValueError, r"batch \(1,\)"),
        (lambda: call(b=-LINE), SingularMatrixError, "must all be positive or all be negative"),
        (
            lambda: call(b=LINE - 2.5 * np.eye(2)),
            SingularMatrixError,
            r"in \[1, 2\] and of the second in \[-1.5, -0.5\]",
        ),
        (lambda: call(u=np.ones(2)), ValueError, r"u: must have shape \(2, k\), got \(2,\)"),
        (lambda: call(v=np.ones((3, 1))), ValueError, r"v: must have shape \(2, k\)"),
        (lambda: call(v=np.ones((2, 2))), ValueError, "v: needs 1 columns as u has, got 2"),
        (lambda: call(tol=0.0), ValueError, "tol: must be at least 3.6e-15"),
        (lambda: call(v=math.nan * ONE), NonFiniteError, "u, v"),
        (lambda: call(np.full((2, 2), math.inf)), NonFiniteError, r"factors\[0\]"),
        (
            lambda: call(np.triu(np.ones((2, 2)))),
            ValueError,
            r"factors\[0\] not Hermitian.*give intervals=",
        ),
        (lambda: call(intervals=(1, 2)), ValueError, "intervals: must be two pairs"),
        (lambda: call(intervals=((1, 2), (3, 1))), ValueError, r"intervals\[1\]: the lower end"),
    ],
)
def test_bad_arguments(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
