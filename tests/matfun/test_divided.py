"""Divided differences against mpmath: equal, near and distant arguments, zeros, negative ones."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from linalgk.matfun import _divided
from linalgk.matfun._spectral import Scalar

EPS = float(np.finfo("float64").eps)

# ---- oracles ----


def mp_function(t):
    """``x^t``, the logarithm for None, and its derivative, as mpmath computes them."""
    if t is None:
        return mpmath.log, lambda x: 1 / x
    p = mpmath.mpf(t.numerator) / t.denominator
    if t.denominator == 1:
        # mpmath's power of negative numbers by a real exponent would be complex
        return lambda x: x**t.numerator, lambda x: p * x ** (t.numerator - 1)
    return lambda x: mpmath.power(x, p), lambda x: p * mpmath.power(x, p - 1)


def mp_first(t, a, b):
    f, df = mp_function(t)
    return df(a) if a == b else (f(a) - f(b)) / (a - b)


def mp_second(t, a, b, c):
    """From a + 0, b + d, c + 2 d, far below a double's digits and far above mpmath's."""
    if len({a, b, c}) < 3:
        d = mpmath.mpf(10) ** -30 * (max(abs(a), abs(b), abs(c)) or 1)
        a, b, c = a - d, b, c + d
    return (mp_first(t, a, b) - mp_first(t, b, c)) / (a - c)


SCALARS = {
    "1/2": Fraction(1, 2), "-1/2": Fraction(-1, 2), "1/3": Fraction(1, 3), "-1/3": Fraction(-1, 3),
    "-1/4": Fraction(-1, 4), "-3/4": Fraction(-3, 4), "3/2": Fraction(3, 2),
    "-8/3": Fraction(-8, 3),
    "1": Fraction(1), "2": Fraction(2), "5": Fraction(5), "-1": Fraction(-1), "-2": Fraction(-2),
    "-8": Fraction(-8), "12": Fraction(12), "0": Fraction(0), "0.3": Fraction(0.3),
    "-1.7": Fraction(-1.7), "1/101": Fraction(1, 101), "log": None,
}  # fmt: skip


def rule(t, signed=False, null=-1.0, cut=None):
    function = Scalar("log") if t is None else Scalar("power", t)
    return _divided.Rule(
        function, np.asarray(null), None if cut is None else np.asarray(cut), signed
    )


# what is equal, nearly equal, near, and far apart, around 1 and elsewhere
GAPS = [0.0, 2.0**-52, 3e-13, 1e-8, 1e-4, 0.01, 0.1, 0.2, 0.24999, 0.25001, 0.3, 0.5, 0.9, 0.999999]


def pairs():
    a, b = [], []
    for base in (1.0, 0.7, 3e-5, 2e7):
        for gap in GAPS:
            a += [base, base * (1 - gap)]
            b += [base * (1 - gap), base]
    a += [1.0, 1e8, 1e-9]
    b += [1e-12, 1e-3, 1.0]
    return np.array(a), np.array(b)


@pytest.mark.parametrize("name", SCALARS)
def test_first_differences_to_eighty_digits(name):
    t = SCALARS[name]
    a, b = pairs()
    got = _divided.first(rule(t), a, b)
    with mpmath.workdps(80):
        want = np.array([float(mp_first(t, mpmath.mpf(x), mpmath.mpf(y)))
                         for x, y in zip(a, b, strict=True)])  # fmt: skip
    # sums and quotients of positive terms, a few roundings for each factor of a power
    size = 1 if t is None else max(1, abs(t.numerator), 0) if t.denominator <= 16 else 1
    degree = 0 if t is None or t.denominator > 16 else size + t.denominator
    # of a real power, t log(a/b) is rounded before its exponential
    extra = 0 if degree else np.abs(np.log(a / b)).max() * (1 if t is None else abs(float(t)))
    tolerance = (8 + 2 * degree + extra) * EPS
    assert np.abs(got - want).max(initial=0, where=want == 0) == 0
    assert np.abs(got / np.where(want == 0, 1, want) - 1)[want != 0].max(initial=0) <= tolerance


def triples():
    out = []
    for base in (1.0, 4e-6, 5e7):
        for g in GAPS:
            for h in (0.0, 1e-9, 0.03, 0.2, 0.7):
                x = (base, base * (1 - g), base * (1 - g) * (1 - h))
                out += [x, (x[2], x[0], x[1]), (x[1], x[2], x[0])]
    out += [(1.0, 1e-10, 1e-10), (1e-10, 1.0, 1.0), (1.0, 1e-10, 1e-5)]
    return [np.array(x) for x in zip(*out, strict=True)]


@pytest.mark.parametrize("name", SCALARS)
def test_second_differences_to_eighty_digits(name):
    t = SCALARS[name]
    a, b, c = triples()
    got = _divided.second(rule(t), a, b, c)
    with mpmath.workdps(80):
        want = np.array([float(mp_second(t, *map(mpmath.mpf, x)))
                         for x in zip(a, b, c, strict=True)])  # fmt: skip
    if t in (0, 1):
        # the first differences are constants
        assert not got.any()
        return
    # first differences from below 0.75 apart are subtracted: relative to f' over the distance,
    # which is a moderate multiple of f'' but for t near 0 and 1
    loss = 40 if t is None else 40 * max(1, abs(t.numerator) if t.denominator < 16 else 1)
    assert np.abs(got / want - 1).max() <= loss * EPS


@pytest.mark.parametrize("name", ["2", "5", "-1", "-2", "12"])
def test_integer_powers_of_negative_numbers(name):
    t = SCALARS[name]
    a = np.array([-1.0, -2.0, 3.0, -1.0, -1.0, 0.5, -4e-3])
    b = np.array([-1.0, 1.0, -2.0, 1.0, -1 - 1e-13, -0.5 + 1e-9, -7.0])
    c = np.array([-1.0, 0.5, -3.0, -1.0, -1.1, -0.5, 3.0])
    with mpmath.workdps(80):
        want = [float(mp_first(t, *map(mpmath.mpf, x))) for x in zip(a, b, strict=True)]
        large = [abs(float(mp_first(t, *map(mpmath.mpf, x))))
                 for x in zip(abs(a), abs(b), strict=True)]  # fmt: skip
        want2 = [float(mp_second(t, *map(mpmath.mpf, x))) for x in zip(a, b, c, strict=True)]
        large2 = [abs(float(mp_second(t, *map(mpmath.mpf, x))))
                  for x in zip(abs(a), abs(b), abs(c), strict=True)]  # fmt: skip
    # terms of both signs: relative to the sum of their sizes
    bound = (8 + 2 * abs(int(t))) * EPS
    assert (np.abs(_divided.first(rule(t), a, b) - want) <= bound * np.array(large)).all()
    got = _divided.second(rule(t), a, b, c)
    # one of the three may be near another and far from the third, whose difference is divided by
    assert (np.abs(got - want2) <= 40 * bound * np.maximum(large2, np.abs(want2))).all()


@pytest.mark.parametrize("name", ["1/2", "-1/2", "1/3", "-1/4", "3/2", "0.3", "log"])
def test_complex_values_of_negative_numbers(name):
    t = SCALARS[name]
    a = np.array([-1.0, -1.0, -1.0, 2.0, -2.0, 1e-6, -1e-6, -3.0, 4.0])
    b = np.array([-1.0, -1 + 1e-12, 1.0, -1e-3, 3.0, -1e4, -1e4, -3.5, 5.0])
    c = np.array([-1.0, -1.1, -2.0, 2.0, 1.0, -1e-6, 1.0, -3.2, -4.0])
    with mpmath.workdps(80):
        # the principal value on the cut is that from above
        want = np.array([complex(mp_first(t, *map(mpmath.mpf, x))) for x in zip(a, b, strict=True)])
        want2 = np.array([complex(mp_second(t, *map(mpmath.mpf, x)))
                          for x in zip(a, b, c, strict=True)])  # fmt: skip
    got = _divided.first(rule(t, signed=True), a, b)
    # |f(a) - f(b)| of numbers on both sides is at least sin(pi t) of the larger: some eps
    np.testing.assert_allclose(got, want, rtol=60 * EPS)
    got = _divided.second(rule(t, signed=True), a, b, c)
    np.testing.assert_allclose(got, want2, rtol=400 * EPS)


@pytest.mark.parametrize("name", ["1/2", "1/3", "3/2", "0.3"])
def test_differences_at_zero(name):
    """Two zeros have difference zero by convention; one zero has an ordinary difference."""
    t, tiny = SCALARS[name], 1e-17
    r = rule(t, null=1e-16)
    with np.errstate(all="ignore"):  # as callers have it
        _check_zeros(r, t, tiny)


def _check_zeros(r, t, tiny):
    got = _divided.first(
        r, np.array([0.0, tiny, 0.0, 1.0, 2.0]), np.array([0.0, 0.0, tiny, 0.0, tiny])
    )
    want = [0, 0, 0, 1, 2.0 ** float(t - 1)]
    # a tiny number of size 1e-17 changes a root by its own root
    np.testing.assert_allclose(got, want, atol=4 * tiny ** min(1, float(t)), rtol=1e-14)
    got = _divided.second(
        r, np.array([0.0, 1.0, 4.0]), np.array([1.0, 0.0, 0.0]), np.array([0, 0, 9.0])
    )
    far = (
        mp_first(t, mpmath.mpf(9), mpmath.mpf(0)) - mp_first(t, mpmath.mpf(4), mpmath.mpf(0))
    ) / 5
    np.testing.assert_allclose(got, [0, 0, float(far)], rtol=1e-14)


def test_differences_across_a_cut():
    r = rule(Fraction(-1, 2), cut=1e-3)
    a, b = np.array([4.0, 1e-9, 4.0, 1e-9, 1.0]), np.array([1e-9, 4.0, 4.0, 1e-9, 4.0])
    # f is 0 below the cut: (1/2 - 0)/4 from both sides
    want = [0.125, 0.125, -1 / 16, 0, -1 / 6]
    np.testing.assert_allclose(_divided.first(r, a, b), want, rtol=1e-9)
