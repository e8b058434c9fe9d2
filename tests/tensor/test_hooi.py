"""HOOI: monotone, at a stationary point, and smaller than ST-HOSVD where a tolerance is given."""

import itertools

import numpy as np
import pytest

from linalgk.errors import ConvergenceWarning, NotConvergedError
from linalgk.tensor import _unfold
from linalgk.tensor._tucker import tucker


def noisy(rng, shape, rank, noise, dtype="float64"):
    def draw(*size):
        x = rng.standard_normal(size)
        return x + 1j * rng.standard_normal(size) if "complex" in dtype else x

    x = draw(*[rank] * len(shape))
    for mode, n in enumerate(shape):
        x = _unfold.mode_product(x, draw(n, rank), mode)
    e = draw(*shape)
    return (x + noise * np.linalg.norm(x) / np.linalg.norm(e) * e).astype(dtype)


def error(t, x):
    return np.linalg.norm((t.toarray() - x).ravel()) / np.linalg.norm(x.ravel())


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
@pytest.mark.parametrize("ranks", [(3, 3, 3), (2, 4, 3)])
def test_monotone_and_no_worse(rng, dtype, ranks):
    """Each sweep maximises over one factor at a time; half noise, so that ST-HOSVD is not best."""
    x = noisy(rng, (20, 24, 18), 6, 0.5, dtype)
    seen = []
    t = tucker(x, ranks=ranks, method="hooi", callback=seen.append)
    start = tucker(x, ranks=ranks, method="st_hosvd").error
    errors = [start, *(state.error for state in seen)]
    slack = 30 * np.finfo(dtype).eps
    assert all(b <= a + slack for a, b in itertools.pairwise(errors))
    assert [s.iteration for s in seen] == list(range(1, len(seen) + 1))
    assert all(s.ranks == ranks for s in seen)
    assert t.error < 0.999 * start
    assert error(t, x) == pytest.approx(t.error, rel=1e-5)
    assert t.converged


def test_stationary(rng):
    """Each factor spans the leading vectors of x projected on the others (reference 1, eq. 4.4)."""
    x = noisy(rng, (15, 16, 17), 4, 0.1)
    t = tucker(x, ranks=4, method="hooi")
    for mode in range(3):
        y = x
        for j in range(3):
            if j != mode:
                y = _unfold.mode_product(y, t.factors[j].T, j)
        flat = np.moveaxis(y, mode, 0).reshape(x.shape[mode], -1)
        u = np.linalg.svd(flat)[0][:, :4]
        # the iteration ends at angles of 1e-3
        assert np.linalg.norm(u - t.factors[mode] @ (t.factors[mode].T @ u)) < 5e-3


def test_exact_ranks(rng):
    x = noisy(rng, (9, 10, 11, 8), 2, 0.0)
    t = tucker(x, ranks=2, method="hooi")
    assert t.error < 1e-14
    # more columns than there is to find, whose directions mean nothing
    assert tucker(x, ranks=(2, 5, 4, 3), method="hooi").error < 1e-14


def test_adaptive_ranks():
    """Met, with no rank above ST-HOSVD's, and cores smaller for some of many tolerances."""
    rng = np.random.default_rng(4)
    n = 16
    weight = np.arange(1.0, n + 1) ** -1.5
    x = rng.standard_normal((n, n, n)) * weight[:, None, None] * weight[:, None] * weight
    smaller = 0
    for tol in [*np.geomspace(0.5, 5e-3, 12), 1e-4, 1e-9]:
        plain = tucker(x, tol=tol, method="st_hosvd")
        t = tucker(x, tol=tol, method="hooi")
        assert error(t, x) <= tol
        assert t.converged
        assert all(a <= b for a, b in zip(t.ranks, plain.ranks, strict=True))
        smaller += t.core.size < plain.core.size
    assert smaller >= 3


def test_adaptive_ranks_never_grow(rng):
    x = noisy(rng, (20, 24, 18), 8, 0.3)
    seen = []
    t = tucker(x, tol=0.5, method="hooi", callback=seen.append)
    sizes = [np.prod(s.ranks) for s in seen]
    assert sizes == sorted(sizes, reverse=True)
    assert all(s.error <= 0.5 for s in seen)
    assert t.ranks == seen[-1].ranks


def test_ends(rng):
    """A cap, a callback that returns True or raises StopIteration."""
    x = noisy(rng, (14, 15, 16), 8, 1.0)
    seen = []
    full = tucker(x, ranks=3, method="hooi", callback=seen.append)
    assert len(seen) > 2
    with pytest.warns(ConvergenceWarning, match="still gaining after max_iter=1"):
        t = tucker(x, ranks=3, method="hooi", max_iter=1)
    assert not t.converged
    assert t.error == pytest.approx(seen[0].error, rel=1e-9)
    assert t.error > full.error
    with pytest.raises(NotConvergedError):
        tucker(x, ranks=3, method="hooi", max_iter=1, on_fail="raise")
    assert tucker(x, ranks=3, method="hooi", max_iter=0).error > t.error

    def enough(state):
        if state.iteration == 2:
            raise StopIteration

    for callback in (enough, lambda state: state.iteration == 2):
        t = tucker(x, ranks=3, method="hooi", callback=callback, on_fail="nan")
        assert t.error == pytest.approx(seen[1].error, rel=1e-9)
