"""StreamingSVD: published bound, unbiased error, linear updates, merging, state, failures."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import scipy.sparse
from spectra import EPS

import linalgk as lk
from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.randomized._streaming import METHODS, explain_streaming, sample

M, N = 90, 70
SPECTRA = {
    "exponential": np.exp(-np.arange(N) / 3.0),
    "polynomial": (1.0 + np.arange(N)) ** -1.5,
    "noise": np.where(np.arange(N) < 5, 1.0, 1e-2),
}


def matrix(values, dtype="float64", m=M, n=N, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((m, n)), rng.standard_normal((n, n))
    if np.dtype(dtype).kind == "c":
        x, y = x + 1j * rng.standard_normal(x.shape), y + 1j * rng.standard_normal(y.shape)
    u, v = np.linalg.qr(x)[0], np.linalg.qr(y)[0]
    return ((u * values) @ v.conj().T).astype(dtype)


def low(rank, dtype="float64", m=M, n=N, seed=0):
    return matrix(np.where(np.arange(n) < rank, np.linspace(1, 0.2, n), 0), dtype, m, n, seed)


def rebuilt(found):
    u, s, vh = (np.asarray(x) for x in found)
    return (u * s) @ vh


def relative(a, found):
    return np.linalg.norm(a - rebuilt(found)) / np.linalg.norm(a)


def stream(a, rank=4, m=None, cuts=(0, 17, 40, 41, 90), order=None, **options):
    blocks = list(itertools.pairwise(cuts))
    found = lk.StreamingSVD(m, a.shape[1], rank, **({"rng": 0} | options))
    for i in order or range(len(blocks)):
        begin, end = blocks[i]
        found.update(a[begin:end, :], offset=begin)
    return found


# --- Laws ----------------------------------------------------------------------------------------


def bound(values, k, s):
    """Theorem 5.1: E||A - QWP^H||_F^2 <= (s-1)/(s-k-1) min_rho (k+rho-1)/(k-rho-1) tail_rho."""
    tails = [(k + r - 1) / (k - r - 1) * (values[r:] ** 2).sum() for r in range(k - 1)]
    return (s - 1) / (s - k - 1) * min(tails)


@pytest.mark.parametrize("sketch", METHODS)
def test_the_maps_are_independent(sketch):
    """Five streams of one seed, as the theorem and the estimate need."""
    maps = lk.StreamingSVD(500, 400, 4, sketch=sketch, rng=0)._maps
    five = (maps.upsilon, maps.omega, maps.phi, maps.psi, maps.theta)
    assert len({tuple(x.key) for x in five}) == 5
    assert [x.shape[1] for x in five] == [500, 400, 500, 400, None]


@pytest.mark.stat
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("sketch", METHODS)
def test_the_expected_error_keeps_its_bound(spectrum, sketch):
    """Mean of 25 runs, 4.5 sigma: fails by chance with probability below 4e-6. The theorem is for
    Gaussian test matrices; stacks keep it too."""
    values = SPECTRA[spectrum]
    a = matrix(values)
    squares = []
    for i in range(25):
        one = lk.StreamingSVD(M, N, 4, k=16, s=40, sketch=sketch, rng=i).update(a, offset=0)
        assert (one.k, one.s) == (16, 40)
        squares.append(np.linalg.norm(a - rebuilt(one.result(rank=16))) ** 2)
    limit = bound(values, 16, 40)
    assert np.mean(squares) - 4.5 * np.std(squares, ddof=1) / 5 <= limit
    assert min(squares) >= (values[16:] ** 2).sum()


@pytest.mark.stat
@pytest.mark.parametrize(
    ("spectrum", "dtype"), [*((x, "float64") for x in SPECTRA), ("polynomial", "complex128")]
)
def test_the_error_is_unbiased_and_knows_its_uncertainty(spectrum, dtype):
    """estimate^2 / error^2 has mean one over 150 runs, within 4.5 sigma (probability 7e-6), and its
    spread over runs is what std_error says: a tenth at most more or less but for sampling, of
    which 150 runs leave 0.06."""
    a = matrix(SPECTRA[spectrum], dtype)
    ratios, errors, spreads = [], [], []
    for i in range(150):
        found = stream(a, 4, m=M, cuts=(0, 90), rng=i).result()
        share = float(found.info.error_estimate)
        kept = np.linalg.norm(found.S) / np.linalg.norm(a)
        size = kept / (1 - share**2) ** 0.5  # what the estimate is divided by
        error = relative(a, found)
        ratios.append((share * size / error) ** 2)
        errors.append(share * size / error)
        spreads.append(float(found.info.std_error) * size / error)
    assert abs(np.mean(ratios) - 1) < 4.5 * np.std(ratios, ddof=1) / 150**0.5
    assert 0.7 < np.std(errors, ddof=1) / np.sqrt(np.mean(np.square(spreads))) < 1.4


@pytest.mark.stat
@pytest.mark.parametrize("sketch", METHODS)
def test_a_truncated_result_is_near_the_best(sketch):
    """Rank 4 of k = 17: at most 1.5 times the least error, seen at most 1.2 over 50 seeds."""
    values = SPECTRA["exponential"]
    a = matrix(values)
    best = np.linalg.norm(values[4:]) / np.linalg.norm(values)
    for i in range(10):
        found = stream(a, 4, m=M, sketch=sketch, rng=i).result()
        assert best * (1 - 1e-12) <= relative(a, found) <= 1.5 * best
        assert np.abs(found.S / values[:4] - 1).max() < 0.3
        assert abs(found.info.residual / best - 1) < 0.5


# --- Exact cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", METHODS)
@pytest.mark.parametrize("m", [None, M])
def test_a_rank_that_is_there_is_found_exactly(sketch, m, dtype):
    """Rounding: some k eps, times the condition of the small least squares problems, about 10."""
    a = low(4, dtype)
    u, s, vh = found = stream(a, 4, m=m, sketch=sketch).result()
    assert u.shape == (M, 4)
    assert vh.shape == (4, N)
    assert (u.dtype, s.dtype, vh.dtype) == (dtype, np.zeros(0, dtype).real.dtype, dtype)
    assert relative(a, found) < 300 * EPS[dtype]
    assert found.info.error_estimate < 300 * EPS[dtype]
    assert np.abs(u.conj().T @ u - np.eye(4)).max() < 100 * EPS[dtype]
    assert np.abs(vh @ vh.conj().T - np.eye(4)).max() < 100 * EPS[dtype]
    exact = np.linalg.svd(a, compute_uv=False)[:4]
    assert np.abs(s - exact).max() < 300 * EPS[dtype]
    assert found.info.passes == 1
    assert found.info.rank == 4


@pytest.mark.parametrize(
    ("m", "n", "rank"), [(30, 30, 5), (30, 10, 10), (6, 50, 3), (1, 1, 1), (None, 12, 5), (2, 9, 2)]
)
def test_matrices_smaller_than_their_sketches(m, n, rank):
    a = low(rank, m=m or 40, n=max(n, rank))[:, :n] if (m or 40) >= n else low(rank, m=n, n=m).T
    found = lk.StreamingSVD(m, n, rank, rng=1).update(a, offset=0)
    assert relative(a, found.result()) < 1e-13


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_sizes_do_not_matter(scale):
    a = matrix(SPECTRA["exponential"])
    one, other = (stream(x).result() for x in (a, scale * a))
    assert np.abs(other.S / scale / one.S - 1).max() < 1e-12
    assert abs(other.info.error_estimate / one.info.error_estimate - 1) < 1e-10
    assert abs(other.info.std_error / one.info.std_error - 1) < 1e-10
    assert abs(other.info.residual / one.info.residual - 1) < 1e-10


def test_zero():
    found = stream(np.zeros((M, N))).result()
    assert not found.S.any()
    assert found.info.error_estimate == found.info.std_error == 0
    assert np.abs(found.U.T @ found.U - np.eye(4)).max() < 1e-14


# --- Updates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [None, M])
@pytest.mark.parametrize("sketch", METHODS)
def test_blocks_in_any_order_and_merged(m, sketch):
    """Sums differ by rounding: 100 eps of the largest singular value."""
    a = matrix(SPECTRA["exponential"])
    options = {"m": m, "sketch": sketch}
    whole = stream(a, cuts=(0, 90), **options).result()
    shuffled = stream(a, order=[2, 0, 3, 1], **options).result()
    parts = [
        lk.StreamingSVD(m, N, 4, sketch=sketch, rng=0).update(a[i:j], offset=i)
        for i, j in ((40, 90), (0, 17), (17, 40))
    ]
    before = copy.deepcopy(parts)
    total = sum(parts[1:], parts[0])
    assert parts == before  # the parts are what they were
    total_again = copy.deepcopy(parts[2])
    alias = total_again
    total_again += parts[0]
    total_again += parts[1]
    assert alias is total_again
    for found in (shuffled, total.result(), total_again.result()):
        assert np.abs(found.S - whole.S).max() < 100 * EPS["float64"]
        assert np.abs(rebuilt(found) - rebuilt(whole)).max() < 1000 * EPS["float64"]
        assert abs(found.info.error_estimate - whole.info.error_estimate) < 1e-13


def test_a_sum_shares_nothing_with_its_parts():
    a = low(4)
    part = stream(a, cuts=(0, 40))
    before = copy.deepcopy(part)
    empty = lk.StreamingSVD(None, N, 4, rng=0)
    for total in (empty + part, part + empty):
        total.update(a[40:], offset=40).update_low_rank(a[:, 0], a[0], decay=2.0)
        assert part == before
    state = part.state_dict()
    part.update(a[40:], offset=40)
    assert part != before
    before.load_state_dict(state)
    assert before == stream(a, cuts=(0, 40))


def test_the_story_of_shards():
    a = low(5, m=200)

    def my_shards():
        yield from ((i, a[i : i + 50]) for i in (100, 0, 150, 50))

    parts = [lk.StreamingSVD(None, N, 5, rng=0).update(b, offset=o) for o, b in my_shards()]
    total = sum(parts[1:], parts[0])
    assert relative(a, total.result()) < 1e-13
    assert total.missing == []


def test_pages_of_rows(monkeypatch):
    from linalgk.randomized import _streaming_sums

    a = low(4)
    whole = stream(a)
    monkeypatch.setattr(_streaming_sums, "_PAGE", 7)
    for m in (None, M):
        found = stream(a, m=m, order=[3, 1, 0, 2])
        assert relative(a, found.result()) < 1e-13
        assert len(found._sums.pages) == 13
        both = stream(a, m=m, cuts=(0, 30)) + stream(a, m=m, cuts=(30, 90))
        assert relative(a, both.result()) < 1e-13
    apart = lk.StreamingSVD(None, N, 4, rng=0).update(a[:3], offset=80)
    found = apart.result(partial=True)
    assert found.U.shape == (83, 3 if len(found.S) == 3 else 4)
    assert np.abs(rebuilt(found)[:80]).max() < 1e-14
    assert np.abs(rebuilt(found)[80:] - a[:3]).max() < 1e-13
    assert whole.nbytes > 0


def test_updates_of_low_rank():
    a = low(2)
    rng = np.random.default_rng(5)
    u, v = rng.standard_normal((M, 2)), rng.standard_normal((N, 2))
    for m in (None, M):
        found = stream(a, m=m)
        assert found.update_low_rank(u, v) is found
        assert relative(a + u @ v.T, found.result()) < 1e-13
        found.update_low_rank(u[:30, 0], v[:, 1], offset=60, decay=0.5)
        wanted = 0.5 * (a + u @ v.T)
        wanted[60:] += np.outer(u[:30, 0], v[:, 1])
        assert relative(wanted, found.result()) < 1e-13
        # without any row before, and merged with rows
        alone = lk.StreamingSVD(m, N, 4, rng=0).update_low_rank(u, v)
        assert relative(u @ v.T, alone.result()) < 1e-13
        assert relative(a + u @ v.T, (alone + stream(a, m=m)).result()) < 1e-13
        assert relative(a + 2 * u @ v.T, (alone + stream(a, m=m) + alone).result()) < 1e-13


def test_complex_updates_are_conjugated():
    a = low(2, "complex128")
    rng = np.random.default_rng(5)
    u = rng.standard_normal((M, 2)) + 1j * rng.standard_normal((M, 2))
    v = rng.standard_normal((N, 2)) + 1j * rng.standard_normal((N, 2))
    found = stream(a).update_low_rank(u, v)
    assert relative(a + u @ v.conj().T, found.result()) < 1e-13


def test_downdates():
    a, b = low(3), low(3, seed=8)
    found = stream(a, m=M)
    assert found.downdate(a[20:50], offset=20) is found
    assert found.missing == [(20, 50)]
    with pytest.raises(ValueError, match=r"rows 20 to 50 have not come; result\(partial=True\)"):
        found.result()
    less = a.copy()
    less[20:50] = 0
    assert relative(less, found.result(partial=True)) < 1e-12
    found.update(b[20:50], offset=20)
    less[20:50] = b[20:50]
    assert relative(less, found.result(6)) < 1e-12
    with pytest.raises(ValueError, match="offset: rows 80 to 95"):
        found.downdate(a[:15], offset=80)
    other = stream(a, cuts=(0, 40))
    state = copy.deepcopy(other)
    with pytest.raises(ValueError, match="rows 30 to 60 have not all come"):
        other.downdate(a[30:60], offset=30)
    assert other == state


# --- Kinds of input ------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", METHODS)
def test_sparse_blocks(sketch, dtype):
    a = low(4, dtype)
    a[np.abs(a) < 0.002] = 0
    want = stream(a, 10, sketch=sketch)
    for form in (scipy.sparse.csr_array, scipy.sparse.coo_matrix):
        found = lk.StreamingSVD(None, N, 10, rng=0, sketch=sketch)
        for i, j in ((0, 33), (33, 90)):
            found.update(form(a[i:j]), offset=i)
        assert found.dtype == np.dtype(dtype)
        assert np.abs(found.result().S - want.result().S).max() < 100 * EPS[dtype]


def test_other_libraries_get_their_own_arrays(xp):
    a = matrix(SPECTRA["exponential"])
    want = stream(a).result()
    found = stream(xp.asarray(a))
    for one in (found, copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        result = one.result()
        for x in (*result, result.info.error_estimate, result.info.std_error):
            assert type(x) is type(xp.asarray(a))
        assert np.abs(rebuilt(result) - rebuilt(want)).max() < 1e-12
    assert found == stream(xp.asarray(a))
    assert relative(a, found.update_low_rank(xp.asarray(a[:, 0]), xp.asarray(a[0])).result()) > 0
    empty = lk.StreamingSVD(M, N, 4, rng=0, xp=xp, dtype="float64")
    assert type(empty.update(xp.asarray(a), offset=0).result().S) is type(xp.asarray(a))


def test_arrays_of_a_device(cuda):
    a = matrix(SPECTRA["exponential"])
    found = stream(cuda.array(a)).result()
    assert np.abs(cuda.host(found.S) - stream(a).result().S).max() < 1e-12


def test_integers_strides_and_orders():
    a = np.random.default_rng(0).integers(-9, 9, (M, 3)) @ np.ones((3, N), int)
    assert stream(a).dtype == np.float64
    b = low(4)
    want = stream(b)
    for same in (np.asfortranarray(b), np.repeat(b, 2, 1)[:, ::2]):
        same.flags.writeable = False
        assert relative(b, stream(same).result()) < 1e-13
    assert (want.result().S == stream(b.copy()).result().S).all()
    assert relative(np.array([[1.0, 2.0]]), lk.StreamingSVD(
        1, 2, 1, rng=0).update([[1, 2]], offset=0).result()) < 1e-14  # fmt: skip
    # blocks are not kept
    mine = b.copy()
    found = lk.StreamingSVD(M, N, 4, rng=0).update(mine, offset=0)
    mine[:] = 0
    assert relative(b, found.result()) < 1e-13


def test_blocks_of_no_rows_say_nothing():
    found = stream(low(4))
    state = copy.deepcopy(found)
    found.update(np.zeros((0, N)), offset=5).downdate(np.zeros((0, N)), offset=5)
    assert found == state


def test_narrow_blocks_join_wide_sketches():
    a = low(4)
    found = lk.StreamingSVD(None, N, 4, rng=0, dtype="complex128")
    found.update(a[:50].astype("float32"), offset=0).update(a[50:], offset=50)
    assert found.result().U.dtype == np.complex128
    assert relative(a, found.result()) < 1e-6


# --- State ---------------------------------------------------------------------------------------


def test_state_pickles_copies_and_equality():
    a = matrix(SPECTRA["polynomial"])
    for found in (stream(a, m=M), stream(a, cuts=(0, 40)), lk.StreamingSVD(None, N, 4, rng=0)):
        fresh = lk.StreamingSVD(found.shape[0], N, 4, rng=0)
        fresh.load_state_dict(found.state_dict())
        others = [fresh, copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))]
        for other in others:
            assert other == found
            assert repr(other) == repr(found)
            rest = found.missing or [(90, 95)]
            begin = rest[0][0] if found.shape[0] is None else 0
            if found.shape[0] is None:
                other.update(a[:5], offset=max(begin, 60))
            else:
                other.update_low_rank(a[:, 0], a[0])
            assert other != found
    state = stream(a).state_dict()
    kinds = (np.ndarray, str, int, type(None), list, tuple, dict)
    assert all(isinstance(x, kinds) for x in state.values())
    with pytest.raises(ValueError, match="state: is of a StreamingSVD with rank = 4, not 5"):
        lk.StreamingSVD(None, N, 5, rng=0).load_state_dict(state)
    assert stream(a) != lk.StreamingSVD(None, N, 4, rng=0)
    assert stream(a) != 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(stream(a))


def test_the_seed_replays():
    a = matrix(SPECTRA["polynomial"])
    first = lk.StreamingSVD(M, N, 4).update(a, offset=0)
    again = lk.StreamingSVD(M, N, 4, rng=first.key).update(a, offset=0)
    assert first == again
    assert first.result().info.seed == first.key
    assert first != lk.StreamingSVD(M, N, 4).update(a, offset=0)


def test_what_it_says_of_itself():
    found = stream(low(4), m=M, cuts=(0, 17))
    assert found.shape == (M, N)
    assert (found.rank, found.k, found.s) == (4, 24, 56)
    assert found.missing == [(17, 90)]
    assert found.passes == 1
    assert "17 rows" in repr(found)
    assert found.nbytes == 8 * (90 * 24 + 24 * 70 + 56 * 56 + 10 * 70)
    exact = lk.StreamingSVD(None, 1000, 50, sketch="Gaussian")
    assert (exact.k, exact.s) == (201, 403)
    assert explain_streaming(1000, 100, 5).flops > 0
    args, kwargs = sample("small")
    assert lk.StreamingSVD(*args, **kwargs).shape == (60, 20)


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        ((5, 4, 5), {}, ValueError, r"rank: must be at most min\(m, n\) = 4, got 5"),
        ((None, 4, 5), {}, ValueError, "rank: must be at most"),
        ((5, 4, 0), {}, ValueError, "rank: must be at least 1"),
        ((0, 4, 1), {}, ValueError, "m: must be at least 1"),
        ((5.0, 4, 1), {}, TypeError, "m: must be an integer"),
        ((5, 4, 3), {"k": 2}, ValueError, "k: must be at least 3"),
        ((50, 40, 3), {"k": 16, "s": 15}, ValueError, "s: must be at least 16"),
        ((5, 4, 2), {"sketch": "SRHT"}, ValueError, "sketch: must be one of"),
        ((5, 4, 2), {"dtype": "int64"}, ValueError, "dtype: must be one of"),
        ((5, 4, 2), {"rng": -1}, ValueError, "rng"),
    ],
)
def test_bad_arguments(args, kwargs, error, match):
    with pytest.raises(error, match=match):
        lk.StreamingSVD(*args, **kwargs)


ROWS = np.ones((5, N))
INF = ROWS * np.inf


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: x.update(ROWS, offset=15), ValueError, "overlap rows 15 to 17"),
        (lambda x: x.update(ROWS, offset=86), ValueError, "rows 86 to 91 do not fit"),
        (lambda x: x.update(ROWS, offset=-1), ValueError, "offset: must be at least 0"),
        (lambda x: x.update(ROWS, offset=1.5), TypeError, "offset: must be an integer"),
        (lambda x: x.update(ROWS[:, 1:], offset=20), ValueError, "block: must have shape"),
        (lambda x: x.update(ROWS[0], offset=20), ValueError, "block: must have shape"),
        (lambda x: x.update("rows", offset=20), TypeError, "block: must be an array"),
        (lambda x: x.update(ROWS + 0j, offset=20), TypeError, "block: is of complex"),
        (lambda x: x.update(ROWS * np.nan, offset=20), NonFiniteError, "rows 20 to 25 hold NaN"),
        (lambda x: x.update(scipy.sparse.csr_array(INF), offset=20), NonFiniteError, "hold"),
        (lambda x: x.downdate(ROWS * np.nan, offset=2), NonFiniteError, "rows 2 to 7"),
        (lambda x: x.update_low_rank(np.ones(91), np.ones(N)), ValueError, "rows 0 to 91"),
        (lambda x: x.update_low_rank(np.ones(9), np.ones(9)), ValueError, "v: must have 70 rows"),
        (lambda x: x.update_low_rank(np.ones((9, 2)), np.ones((N, 1))), ValueError, "u, v: must"),
        (lambda x: x.update_low_rank(np.ones((9, 2)), np.ones(N)), ValueError, "u, v: must have"),
        (lambda x: x.update_low_rank(np.ones(9) * np.nan, np.ones(N)), NonFiniteError, "u, v: r"),
        (lambda x: x.update_low_rank(np.ones(9) * 1j, np.ones(N)), TypeError, "u, v: is of c"),
        (lambda x: x.update_low_rank(np.ones(9), np.ones(N), decay=np.inf), ValueError, "decay"),
        (lambda x: x + lk.StreamingSVD(M, N, 4, rng=1), ValueError, "key = .* same rng"),
        (lambda x: x + lk.StreamingSVD(None, N, 4, rng=0), ValueError, "differ: m = 90 and None"),
        (lambda x: x + lk.StreamingSVD(M, N, 5, rng=0), ValueError, "rank = 4 and 5"),
        (lambda x: x.__iadd__(x), ValueError, "rows 0 to 17 have come to both"),
        (lambda x: x + stream(ROWS.astype("f4"), m=M, cuts=(0, 5)), TypeError, "of float32"),
        (lambda x: x + 1, TypeError, "unsupported"),
        (lambda x: x.result(), ValueError, "result: rows 17 to 90 have not come"),
        (lambda x: x.result(25, partial=True), ValueError, "= 24, got 25"),
        (lambda x: x.result(0, partial=True), ValueError, "rank: must be at least 1"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(call, error, match):
    found = stream(low(4), m=M, cuts=(0, 17))
    state = copy.deepcopy(found)
    with pytest.raises(error, match=match):
        call(found)
    assert found == state


def test_before_anything_has_come():
    for m in (None, 5):
        with pytest.raises(ValueError, match="result: nothing has come yet"):
            lk.StreamingSVD(m, 4, 2).result(partial=True)


def test_libraries_are_not_mixed():
    strict = pytest.importorskip("array_api_strict")
    a = low(4)
    found = stream(a, cuts=(0, 40))
    with pytest.raises(TypeError, match=r"block: is of array_api_strict.* sketches of numpy"):
        found.update(strict.asarray(a[40:, :]), offset=40)
    with pytest.raises(TypeError, match="convert one"):
        found += stream(strict.asarray(a), cuts=(40, 90), order=[0])
    assert found == stream(a, cuts=(0, 40))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        found.update(torch.ones((2, N), requires_grad=True), offset=40)


def test_nan_that_is_let_through():
    a = low(4)
    a[3, 5] = np.nan
    with lk.config_context(check_finite=False):
        found = stream(a)
        assert np.isnan(found.result().S).all()
        assert np.isnan(found.result().U).all()
        assert not found.result().info.converged
    with pytest.raises(NonFiniteError, match="result: what came holds NaN"):
        found.result()
    with lk.config_context(on_fail="nan"):
        assert np.isnan(stream(a).result().info.error_estimate)
    with lk.config_context(on_fail="warn"), pytest.warns(ConvergenceWarning, match="rows 0 to 17"):
        stream(a)


def test_sums_that_overflow_are_told_of():
    found = lk.StreamingSVD(None, 3, 1, rng=0).update(np.full((1, 3), 1e308), offset=0)
    for _ in range(40):
        found.update_low_rank(np.ones(1), np.full(3, 1e308))
    with pytest.raises(NonFiniteError, match="too large to add"):
        found.result()
