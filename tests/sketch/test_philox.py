"""Random numbers: known answers, places, distributions, exactness."""

import copy
import math
import pickle

import mpmath
import numba
import numpy as np
import pytest
import sketched
from linalgk_kernels.cpu import sketch_philox as cpu
from numpy.testing import assert_array_equal
from scipy import stats

import linalgk as lk
from linalgk.sketch import _ops
from linalgk.sketch import _philox as ours
from linalgk.sketch._philox import Key, key_of

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip
FAR = 2**34 + 3
DRAWS = ("words", "uniform", "normal", "signs")
TAGS = {"words": 16, "normal": 17, "uniform": 18, "integers": 19, "signs": 20}


@numba.njit
def _kernel(c, k):
    return cpu._philox(c[0], c[1], c[2], c[3], k[0], k[1])


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    """Those of the Random123 library, for the kernel, its reference and the tests' own."""
    assert tuple(sketched.philox(counter, key)) == words
    c0, c1, c2, c3 = counter
    assert tuple(map(int, _ops.philox(c0 | c1 << 32, c2, c3, *key))) == words
    kernel = _kernel(np.array(counter, np.uint32), np.array(key, np.uint32))
    assert tuple(map(int, kernel)) == words


def test_where_words_stand():
    """Word 4 j + i of stream t is word i of the call (j, 0, 16 | t << 8)."""
    p = lk.sketch.Philox(3, stream=77)
    for start in (0, 2, 1021, 4 * 2**32 - 5, 2**62):
        want = [
            sketched.call(p.key, i // 4, 0, 16 | 77 << 8)[i % 4] for i in range(start, start + 11)
        ]
        assert p.words(11, start=start).tolist() == want


def test_where_signs_and_uniforms_stand():
    p = lk.sketch.Philox(4)
    words = [sketched.call(p.key, j, 0, 20) for j in range(2)]
    want = [1.0 - 2.0 * (w >> bit & 1) for call in words for w in call for bit in range(32)]
    assert p.signs(256).tolist() == want
    a, b, c, d = sketched.call(p.key, 5, 0, 18)
    want = [((a << 20) | (b >> 12)) * 2.0**-52, ((c << 20) | (d >> 12)) * 2.0**-52]
    assert p.uniform(2, start=10).tolist() == want


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("origin", [0, FAR, 2**40 + 129])
def test_a_draw_is_a_function_of_its_place(draw, origin):
    p = lk.sketch.Philox(0, stream=5)
    whole = getattr(p, draw)(1500, start=origin)
    for start, n in ((0, 1), (1, 0), (1, 129), (127, 514), (513, 987), (1499, 1)):
        part = getattr(p, draw)(n, start=origin + start)
        sketched.same_bits(part, whole[start : start + n])


def test_integers_are_a_function_of_their_place():
    p = lk.sketch.Philox(0)
    whole = p.integers(300, 2**62 + 1, start=FAR)
    assert_array_equal(p.integers(50, 2**62 + 1, start=FAR + 111), whole[111:161])


@pytest.mark.parametrize("draw", DRAWS)
def test_threads_and_reference_give_the_same_bits(draw):
    p, n = lk.sketch.Philox(1), 1 << 17
    whole = getattr(p, draw)(n + 3, start=FAR)
    for threads in (1, 3, 8):
        with lk.config_context(num_threads=threads):
            sketched.same_bits(getattr(p, draw)(n + 3, start=FAR), whole)
    with lk.config_context(backend="reference"):
        sketched.same_bits(getattr(p, draw)(3000, start=FAR), whole[:3000])


def test_streams_and_families_differ():
    p = lk.sketch.Philox(1)
    lines = [p.spawn(t).words(64) for t in (0, 1, 2, 2**24 - 1)]
    lines += [lk.sketch.Philox(2).words(64)]
    assert len({tuple(line.tolist()) for line in lines}) == 5
    assert_array_equal(p.spawn(3).words(9), lk.sketch.Philox(1, stream=3).words(9))
    assert_array_equal(p.spawn(3).spawn(0).words(9), p.words(9))
    # a stream is a seed of its own
    assert key_of(p) == p.key
    assert key_of(p.spawn(1)) not in (p.key, key_of(p.spawn(2)))


def test_keys_of_every_kind_of_seed():
    want = tuple(map(int, np.random.SeedSequence(7).generate_state(2, np.uint32)))
    for seed in (7, np.int64(7), np.random.SeedSequence(7), Key(*want), lk.sketch.Philox(7)):
        assert key_of(seed) == want
    assert key_of([1, 2]) == key_of(np.random.SeedSequence([1, 2]))
    assert key_of(None) != key_of(None)
    # 64 bits are drawn, once
    for bits in (np.random.PCG64(3), np.random.Philox(3)):
        gen = np.random.Generator(copy.deepcopy(bits))
        first = gen.integers(0, 1 << 32, 2, dtype=np.uint32)
        rest = gen.integers(0, 100, 5)
        again = np.random.Generator(copy.deepcopy(bits))
        assert key_of(again) == tuple(map(int, first))
        assert_array_equal(again.integers(0, 100, 5), rest)
        assert key_of(copy.deepcopy(bits)) == tuple(map(int, first))
    state = np.random.RandomState(3)
    assert key_of(state) != key_of(state)
    assert key_of(np.random.RandomState(3)) == key_of(np.random.RandomState(3))


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), ("x", TypeError), (1.5, TypeError)])
def test_what_is_no_seed(seed, error):
    with pytest.raises(error, match=r"rng: must be None, a non-negative int or a NumPy gen.*got"):
        lk.sketch.Philox(seed)
    with pytest.raises(error, match="rng: must be"):
        lk.sketch.Gaussian(3, 5, rng=seed)


def test_normals_are_those_of_box_and_muller():
    """To 3 units in the last place of the exact r cos and r sin of the same words."""
    p = lk.sketch.Philox(11)
    got = p.normal(600, start=0)
    worst = 0.0
    with mpmath.workdps(40):
        for j in range(300):
            w = sketched.call(p.key, j, 0, TAGS["normal"])
            u = 1 - mpmath.mpf((w[0] << 20) | (w[1] >> 12)) / 2**52
            y = mpmath.mpf((w[2] << 20) | (w[3] >> 12)) / 2**52 - mpmath.mpf(0.5)
            r = mpmath.sqrt(-2 * mpmath.log(u))
            pair = [r * mpmath.cos(mpmath.pi / 2 * y), r * mpmath.sin(mpmath.pi / 2 * y)]
            pair[0] *= (-1) ** (w[3] & 1)
            want = pair[:: -1 if w[3] & 2 else 1]
            for x, z in zip(want, got[2 * j : 2 * j + 2], strict=True):
                worst = max(worst, abs(float(z - x)) / math.ulp(float(x)))
    assert worst <= 3


def test_normals_at_the_ends_of_their_words():
    """u = 1, the u next to it, the smallest u; the angles zero, least, and an eighth."""
    full = 0xFFFFFFFF
    for w0, w1, w2, w3 in [
        (0, 0, 5, 0), (0, 1 << 12, 1 << 31, 0), (0, 1 << 12, 1 << 31, 1 << 12), (full,) * 4,
        (1 << 31, 0, 0, 0), (0x4AFB0CCC, 0, full, 3), (0x4AFB0CCD, 0, 0, 2),
    ]:  # fmt: skip
        words = [np.array([x], np.uint64) for x in (w0, w1, w2, w3)]
        first, second = _ops.normal_pair(*words)
        u = 1 - mpmath.mpf((w0 << 20) | (w1 >> 12)) / 2**52
        y = mpmath.mpf((w2 << 20) | (w3 >> 12)) / 2**52 - mpmath.mpf(0.5)
        with mpmath.workdps(40):
            r = mpmath.sqrt(-2 * mpmath.log(u))
            sizes = sorted(
                [r * mpmath.cos(mpmath.pi / 2 * y), abs(r * mpmath.sin(mpmath.pi / 2 * y))]
            )
        got = sorted([abs(first[0]), abs(second[0])])
        np.testing.assert_allclose(got, [float(x) for x in sizes], rtol=8e-16, atol=0)


def test_float32_is_float64_rounded():
    p = lk.sketch.Philox(2)
    sketched.same_bits(p.normal(5000, dtype="float32"), p.normal(5000).astype("float32"))
    sketched.same_bits(p.signs(500, dtype=np.float32), p.signs(500).astype("float32"))


@pytest.mark.parametrize("high", [1, 2, 3, 10, 2**31 + 11, 3 << 61, 2**62 + 1, 2**63 - 1, 2**63])
def test_integers_by_rejection(high):
    """Lemire's method in whole numbers: words are rejected where a value would come too often."""
    p = lk.sketch.Philox(9, stream=2)
    tag, rejected, want = TAGS["integers"] | 2 << 8, 0, []
    for j in range(FAR, FAR + 200):
        words = (
            w for sub in range(99) for c in [sketched.call(p.key, j, sub, tag)]
            for w in (c[0] << 32 | c[1], c[2] << 32 | c[3])
        )  # fmt: skip
        for word in words:
            if word * high % 2**64 >= 2**64 % high:
                want.append(word * high >> 64)
                break
            rejected += 1
    got = p.integers(200, high, start=FAR)
    assert got.dtype == np.int64
    assert got.tolist() == want
    assert (rejected > 20) == (high in (3 << 61, 2**62 + 1))
    with lk.config_context(backend="reference"):
        assert p.integers(200, high, start=FAR).tolist() == want


def test_the_rejected_words_make_every_integer_equally_likely():
    """With 64-bit words scaled down to 8: of those not rejected each value has as many."""
    for high in range(1, 256):
        kept = [w * high >> 8 for w in range(256) if w * high % 256 >= 256 % high]
        assert set(np.bincount(kept, minlength=high)) == {256 // high}


@pytest.mark.stat
@pytest.mark.parametrize("key", [0, 12345])
def test_distributions(key):
    """Kolmogorov-Smirnov and chi-squared at p > 1e-4: eight of them, chance 8e-4 for each seed."""
    p, n = lk.sketch.Philox(key), 200_000
    u, z = p.uniform(n), p.normal(n)
    assert u.min() >= 0
    assert u.max() < 1
    assert ((u * 2**52) % 1 == 0).all()
    assert abs(z).max() < 8.5
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert stats.kstest(z, "norm").pvalue > 1e-4
    # the two of a pair have a product of independent factors, and their angle is uniform
    assert stats.kstest(np.arctan2(z[::2], z[1::2]) / (2 * np.pi) + 0.5, "uniform").pvalue > 1e-4
    assert stats.kstest((z[::2] ** 2 + z[1::2] ** 2) / 2, "expon").pvalue > 1e-4
    signs = p.signs(n)
    assert set(signs) == {-1.0, 1.0}
    assert stats.binomtest(int((signs > 0).sum()), n).pvalue > 1e-4
    counts = np.bincount(p.integers(n, 37), minlength=37)
    assert stats.chisquare(counts).pvalue > 1e-4
    bits = np.unpackbits(p.words(n // 8).view(np.uint8)).reshape(-1, 32).sum(axis=0)
    spread = ((bits - n / 16) ** 2 / (n / 32)).sum()
    assert stats.chi2.sf(spread, 32) > 1e-4
    other = p.spawn(1).normal(n)
    assert abs(z @ other) < 3.9 * math.sqrt(n)


@pytest.mark.parametrize("draw", DRAWS)
def test_other_libraries(draw, xp):
    p = lk.sketch.Philox(8, xp=xp)
    got = getattr(p, draw)(40, start=7)
    assert type(got) is type(xp.asarray([1.0]))
    want = getattr(lk.sketch.Philox(8), draw)(40, start=7)
    sketched.same_bits(np.asarray(got), want)
    assert np.asarray(p.integers(5, 10)).tolist() == lk.sketch.Philox(8).integers(5, 10).tolist()
    for dtype in ("float32", xp.float32):
        assert np.asarray(p.normal(3, dtype=dtype)).dtype == np.float32


def test_a_named_device():
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    assert lk.sketch.Philox(8, xp=strict, device=device).normal(3).device == device


def test_identity():
    p = lk.sketch.Philox(6, stream=9)
    for same in (
        pickle.loads(pickle.dumps(p)),
        copy.deepcopy(p),
        lk.sketch.Philox(p.key, stream=9),
    ):
        assert same == p
        assert hash(same) == hash(p)
        assert_array_equal(same.words(5), p.words(5))
    assert p != lk.sketch.Philox(6)
    assert p != lk.sketch.Philox(7, stream=9)
    assert p != 6
    assert repr(p) == f"Philox({tuple(p.key)}, stream=9)"
    torch = pytest.importorskip("torch")
    again = pickle.loads(pickle.dumps(lk.sketch.Philox(6, xp=torch)))
    assert isinstance(again.normal(2), torch.Tensor)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.words(-1), "n: must be at least 0, got -1"),
        (lambda p: p.words(1, start=-2), "start: must be at least 0, got -2"),
        (lambda p: p.words(5, start=2**63), r"start: start \+ n must be below 2\*\*63, got 92"),
        (lambda p: p.integers(3, 0), "high: must be at least 1, got 0"),
        (lambda p: p.integers(3, 2**63 + 1), r"high: must be at most 2\*\*63"),
        (lambda p: p.spawn(2**24), r"stream: must be below 2\*\*24, got 16777216"),
        (lambda p: p.spawn(-1), "stream: must be at least 0"),
        (lambda p: p.normal(3, dtype="float16"), "dtype: must be float32 or float64, got float16"),
        (lambda p: p.words(2.0), "n: must be an integer, got 2.0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(lk.sketch.Philox(0))


def test_families_keep_their_numbers():
    """The stream, layout 1: a number that was given stays."""
    operators = (ours.GAUSSIAN, ours.RADEMACHER, ours.STACK, ours.SRHT_SIGNS, ours.SRHT_OUT)
    assert (*operators, ours.SRHT_ROWS, ours.TENSOR, ours.KRON) == tuple(range(1, 9))
    lines = {"words": ours.WORDS, "normal": ours.NORMALS, "uniform": ours.UNIFORMS}
    assert lines | {"integers": ours.INTEGERS, "signs": ours.SIGNS} == TAGS
    assert (ours.SAMPLING, ours.LAYOUT) == (32, 1)
