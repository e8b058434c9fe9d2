"""Slabs read again and again, from a file, or once: the same as of the array in memory."""

import numpy as np
import pytest

import linalgk as lk
from linalgk.errors import NonFiniteError
from linalgk.tensor import _streaming, _unfold
from linalgk.tensor._tucker import tucker


def smooth(shape):
    g = np.ogrid[tuple(slice(0.05, 1, 1j * n) for n in shape)]
    return 1 / sum((k + 1) * v for k, v in enumerate(g))


def error(t, x):
    return np.linalg.norm((t.toarray() - x).ravel()) / np.linalg.norm(x.ravel())


def cut(x, *sizes):
    """Slabs of these sizes and a last one with the rest."""
    return np.split(x, np.cumsum(sizes))


class Counted:
    """Slabs that know how often they were read."""

    def __init__(self, slabs):
        self.slabs, self.reads = slabs, 0

    def __call__(self):
        self.reads += 1
        return iter(self.slabs)


@pytest.fixture(scope="module")
def x():
    return smooth((41, 30, 22))


@pytest.mark.parametrize(("tol", "reads"), [(1e-3, 2), (1e-5, 2), (1e-7, 3), (1e-11, 3)])
def test_tolerance(x, tol, reads):
    """Two passes, and a third where norms cannot tell the error."""
    source = Counted(cut(x, 1, 13, 0, 20))
    t = tucker(source, tol=tol)
    assert (t.method, t.converged, source.reads) == ("streaming", True, reads)
    assert error(t, x) <= tol
    assert t.error == pytest.approx(error(t, x), rel=1e-3)
    inside = tucker(x, tol=tol)
    assert all(a <= b + 1 for a, b in zip(t.ranks, inside.ranks, strict=True))
    for u in t.factors:
        assert np.abs(u.T @ u - np.eye(u.shape[1])).max() < 1e-13


def test_slabs_do_not_matter(x):
    """Sizes of slabs change nothing but rounding, and the subspaces it turns by 1e-8 or so."""
    results = [tucker(cut(x, *sizes), ranks=(4, 3, 5)) for sizes in ([], [1], [20, 20], [5] * 8)]
    for t in results:
        assert t.ranks == (4, 3, 5)
        assert t.error == pytest.approx(results[0].error, rel=1e-7)
        assert np.abs(t.toarray() - results[0].toarray()).max() < 1e-6
    inside = tucker(x, ranks=(4, 3, 5), method="hooi")
    assert results[0].error <= 1.001 * inside.error


def test_dtypes(dtype):
    x = smooth((12, 9, 10)).astype(dtype)
    x = x * np.exp(1j * np.arange(10)).astype(dtype) if "complex" in dtype else x
    t = tucker(lambda: iter(cut(x, 5)), tol=1e-4)
    assert t.core.dtype == x.dtype
    assert all(u.dtype == x.dtype for u in t.factors)
    assert error(t, x) <= 1e-4
    one = tucker(iter(cut(x, 5)), ranks=5)
    assert one.core.dtype == x.dtype
    assert error(one, x) <= 1e-2


def test_libraries(xp):
    x = smooth((10, 8, 9))
    t = tucker([xp.asarray(part) for part in cut(x, 3)], tol=1e-5)
    assert isinstance(t.core, np.ndarray)
    assert error(t, x) <= 1e-5


@pytest.mark.parametrize("order", ["C", "F"])
def test_file(tmp_path, x, order, monkeypatch):
    """A file is read in slabs, never as a whole, and not written to."""
    path = tmp_path / "x.bin"
    held = np.memmap(path, dtype=np.float64, mode="w+", shape=x.shape, order=order)
    held[...] = x
    held.flush()
    before = path.read_bytes()
    read = np.memmap(path, dtype=np.float64, mode="r", shape=x.shape, order=order)
    monkeypatch.setattr(_streaming, "_SLAB", x[:4].nbytes)
    sizes = []
    checked = _streaming.Source._checked

    def noted(self, item, number):
        sizes.append(item.nbytes)
        return checked(self, item, number)

    monkeypatch.setattr(_streaming.Source, "_checked", noted)
    t = tucker(read, tol=1e-6)
    assert t.method == "streaming"
    assert max(sizes) <= x[:4].nbytes
    assert error(t, x) <= 1e-6
    assert type(t.core) is np.ndarray
    by_rank = tucker(read, ranks=(3, 4, 5))
    assert by_rank.ranks == (3, 4, 5)
    assert tucker(read, tol=1e-6, method="st_hosvd").method == "st_hosvd"
    assert path.read_bytes() == before


def test_blocks_of_a_matrix(rng):
    """RowBlocks are slabs of a tensor of two modes."""
    a = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 20))
    t = tucker(lk.RowBlocks(lambda: iter(cut(a, 20))), tol=1e-8)
    assert t.ranks == (3, 3)
    assert error(t, a) <= 1e-12
    once = tucker(lk.RowBlocks(iter(cut(a, 20))), ranks=3)
    assert (once.method, once.ranks) == ("one_pass", (3, 3))
    assert error(once, a) <= 1e-12


# --- One pass ------------------------------------------------------------------------------------


def test_one_pass(x):
    """Within a small factor of the best, by an error that is estimated to a few percent.

    The estimate's square has a relative standard deviation of (2 / 4096)^(1/2) = 2.2 percent; six
    of them are allowed, a probability below 1e-8. Seeds are fixed.
    """
    best = tucker(x, ranks=4, method="hooi").error
    noise = 1e-3 * np.random.default_rng(1).standard_normal(x.shape)
    for seed in range(3):
        t = tucker((slab for slab in cut(x, 7, 9)), ranks=4, rng=seed)
        assert (t.method, t.ranks) == ("one_pass", (4, 4, 4))
        assert error(t, x) <= 20 * best
        assert t.error == pytest.approx(error(t, x), rel=0.07)
        rough = tucker(iter(cut(x + noise, 7, 9)), ranks=4, rng=seed)
        assert rough.error == pytest.approx(error(rough, x + noise), rel=0.07)


def test_one_pass_is_linear_in_slabs(x):
    """The sketches are sums over slabs: how the rows are cut changes rounding only."""
    one = tucker(iter([x]), ranks=(3, 4, 5), rng=3)
    two = tucker(iter(cut(x, 1, 17, 2)), ranks=(3, 4, 5), rng=3)
    assert np.abs(one.toarray() - two.toarray()).max() < 1e-10
    assert one.error == pytest.approx(two.error, rel=1e-8)
    other = tucker(iter([x]), ranks=(3, 4, 5), rng=4)
    assert (one.core != other.core).any()


def test_one_pass_recovers_exactly(rng):
    """What has the ranks asked for comes back to rounding, also with more than there are."""
    x = rng.standard_normal((2, 3, 2, 3))
    for mode, n in enumerate((9, 10, 8, 4)):
        x = _unfold.mode_product(x, rng.standard_normal((n, x.shape[mode])), mode)
    t = tucker(iter(cut(x, 4)), ranks=(2, 3, 2, 3))
    assert error(t, x) <= 1e-11
    assert tucker(iter(cut(x, 4)), ranks=5).shape == x.shape


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "kind", "text"),
    [
        (lambda: iter([]), {"tol": 0.1}, ValueError, "there are no slabs"),
        (lambda: iter([np.ones(3)]), {"tol": 0.1}, ValueError, "slab 0 must have shape"),
        (lambda: iter([1.0]), {"tol": 0.1}, TypeError, "slab 0 must be an array"),
        ([np.ones((2, 3)), np.ones((2, 4))], {"tol": 0.1}, ValueError, "slab 1 must have shape"),
        ([np.ones((2, 3), "f4"), np.ones((2, 3))], {"tol": 0.1}, TypeError, "slab 1 has dtype"),
        ([np.full((2, 3), np.nan)], {"tol": 0.1}, NonFiniteError, "x: holds NaN"),
        ([np.ones((2, 3))], {"ranks": (1, 1, 1)}, ValueError, "one for each of 2 modes"),
        ([np.ones((2, 3))], {"ranks": 1, "method": "hooi"}, ValueError, "'streaming' only"),
        (iter([np.ones((2, 3))]), {"tol": 0.1}, ValueError, "read once need ranks="),
        (iter([np.full((2, 3), np.inf)]), {"ranks": 1}, NonFiniteError, "x: holds NaN"),
        (iter([]), {"ranks": 1}, ValueError, "there are no slabs"),
    ],
)
def test_bad_sources(source, options, kind, text):
    with pytest.raises(kind, match=text):
        tucker(source, **options)


def test_changing_source():
    lengths = iter([3, 4, 4, 4])
    with pytest.raises(ValueError, match="3 rows at first and 4 when read again"):
        tucker(lambda: iter([np.eye(4)[: next(lengths)]]), tol=0.1)


def test_zero_slabs():
    t = tucker([np.zeros((2, 3, 4))] * 2, tol=0.1)
    assert (t.shape, t.error, t.converged) == ((4, 3, 4), 0.0, True)
    once = tucker(iter([np.zeros((2, 3, 4))] * 2), ranks=2)
    assert not once.toarray().any()
