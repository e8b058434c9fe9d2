"""How determinants change, against dense matrices; adjoints of what was factored."""

import numpy as np
import pytest

from linalgk.kronecker import _factored, _shifted
from linalgk.kronecker import _perturbation as perturbation
from linalgk.kronecker._factored import Factored

SIZES = (2, 3, 2)
# of the factors and the shift
BATCHES = [
    ([(), (), ()], ()), ([(2,), (), ()], ()), ([(), (), ()], (4,)), ([(2, 1), (3,), ()], (2, 3)),
    ([(1,), (3,), ()], (3,)),
]  # fmt: skip


def draw(rng, *shape, dtype="float64"):
    z = rng.standard_normal(shape)
    return z + 1j * rng.standard_normal(shape) if dtype == "complex128" else z


def factors(rng, kind, batches, dtype):
    fs = [draw(rng, *b, n, n, dtype=dtype) for b, n in zip(batches, SIZES, strict=True)]
    if kind in ("her", "mixed"):
        hermitian = [f + np.conj(f.swapaxes(-1, -2)) for f in fs]
        return hermitian if kind == "her" else [fs[0], hermitian[1], fs[2]]
    if kind == "jordan":
        return [0 * f + np.triu(np.ones(f.shape)) for f in fs]
    return fs


def dense(fs):
    k = np.ones((1, 1))
    for f in fs:
        big = k[..., :, None, :, None] * f[..., None, :, None, :]
        k = big.reshape(*big.shape[:-4], k.shape[-1] * f.shape[-1], -1)
    return k


def moved(fs, ways, ds):
    """The change of ``K + s`` in a direction."""
    total = sum(dense([*fs[:i], e, *fs[i + 1 :]]) for i, e in enumerate(ways))
    return total if ds is None else total + np.asarray(ds)[..., None, None] * np.eye(len(total.T))


def pairing(ms, t, ways, ds):
    total = sum(np.sum(m * e.swapaxes(-1, -2)) for m, e in zip(ms, ways, strict=True))
    return total if ds is None else total + np.sum(t * ds)


@pytest.mark.parametrize("kind", ["her", "gen", "mixed", "jordan"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shifted", [False, True])
def test_derivatives_of_determinants(rng, kind, dtype, shifted):
    for batches, spread in BATCHES:
        fs = factors(rng, kind, batches, dtype)
        f = Factored(fs)
        s, ds, dt = (draw(rng, *spread) + 3 * n for n in (1, 0, 0)) if shifted else (None,) * 3
        one, two = ([draw(rng, *x.shape, dtype=dtype) for x in fs] for _ in range(2))
        k = dense(fs)
        x = np.linalg.inv(k + (0 if s is None else s[..., None, None] * np.eye(12)))
        # the condition is some thousands
        tol = 1e-8
        want = np.trace(x @ moved(fs, one, ds), axis1=-2, axis2=-1)
        got = perturbation.determinant_along(f, s, one, ds)
        np.testing.assert_allclose(got, want, rtol=tol, atol=tol * np.abs(want).max())
        weight = np.asarray(draw(rng, *np.shape(want), dtype=dtype))
        ms, t = perturbation.determinant_first(f, s, weight)
        assert [m.shape for m in ms] == [a.shape for a in fs]
        np.testing.assert_allclose(pairing(ms, t, one, ds), np.sum(weight * want), rtol=tol)
        if kind == "jordan" and shifted:
            with pytest.raises(np.linalg.LinAlgError, match="second derivatives"):
                perturbation.determinant_second(f, s, weight, one, ds)
            continue
        cross = sum(
            dense([one[n] if n == i else two[n] if n == j else fs[n] for n in range(3)])
            for i in range(3) for j in range(3) if i != j
        )  # fmt: skip
        y = -x @ moved(fs, one, ds) @ x @ moved(fs, two, dt) + x @ cross
        want = np.trace(y, axis1=-2, axis2=-1)
        ms, t = perturbation.determinant_second(f, s, weight, one, ds)
        np.testing.assert_allclose(pairing(ms, t, two, dt), np.sum(weight * want), rtol=tol)
        if shifted:
            parts = perturbation._parts(f)
            got = perturbation.curvature(parts, s, one, ds, two, dt)
            np.testing.assert_allclose(got, want, rtol=tol, atol=tol * np.abs(want).max())


def test_a_direction_may_be_left_out(rng):
    fs = factors(rng, "her", [()] * 3, "float64")
    f, s, weight = Factored(fs), np.asarray(0.7), np.asarray(1.0)
    way, none = draw(rng, 3, 3), [np.zeros((n, n)) for n in SIZES]
    ways = [None, way, None]
    full = [none[0], way, none[2]]
    for shift in (s, None):
        got = perturbation.determinant_along(f, shift, ways, None)
        np.testing.assert_allclose(got, perturbation.determinant_along(f, shift, full, None))
        got = perturbation.determinant_second(f, shift, weight, ways, None)
        want = perturbation.determinant_second(f, shift, weight, full, None)
        for a, b in zip(got[0], want[0], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    got = perturbation.determinant_second(f, s, weight, [None] * 3, np.asarray(1.0))
    want = perturbation.determinant_second(f, s, weight, none, np.asarray(1.0))
    np.testing.assert_allclose(got[1], want[1])


def test_nobody_asks_for_members_that_are_singular():
    """Infinity times zero is zero."""
    f = Factored([np.diag([1.0, 2.0]), np.eye(3)])
    shift = np.array([-2.0, 0.5])
    ms, t = perturbation.determinant_first(f, shift, np.array([0.0, 1.0]))
    want, trace = perturbation.determinant_first(f, shift[1], np.asarray(1.0))
    for a, b in zip(ms, want, strict=True):
        np.testing.assert_allclose(a, b)
    np.testing.assert_allclose(t, [0, trace])
    ms, _ = perturbation.determinant_first(f, shift, np.array([1.0, 1.0]))
    assert not np.isfinite(ms[0]).all()


def test_nothing():
    f = Factored([np.zeros((0, 0)), np.eye(2)])
    ms, t = perturbation.determinant_first(f, np.asarray(1.0), np.asarray(1.0))
    assert [m.shape for m in ms] == [(0, 0), (2, 2)]
    assert not ms[1].any()
    assert t == 0


@pytest.mark.parametrize("kind", ["her", "gen", "mixed", "jordan", "wild"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("batches", [[(), (), ()], [(2,), (), (1,)]])
def test_adjoints_of_what_was_factored(rng, monkeypatch, kind, dtype, batches):
    """Eigenvectors, Schur forms and inverses serve the adjoint as they are."""
    fs = factors(rng, "gen" if kind == "wild" else kind, batches, dtype)
    if kind == "wild":
        # no inverse is formed of this one
        fs[1] = fs[1] @ np.diag([1.0, 1.0, 1e-10])
    f, b = Factored(fs), draw(rng, 12, 2, dtype=dtype)
    k = dense(fs)
    for s in (None, 0.7, 0.7 - 0.2j):
        f.solve(b, s)
        turned = perturbation.turned(f)
        with monkeypatch.context() as patch:
            if kind != "wild":
                for where, name in ((_shifted, "_eigen"), (_shifted, "_schur"),
                                    (_factored, "inverted")):  # fmt: skip
                    patch.setattr(where, name, lambda *_: pytest.fail("factored again"))
            y, problems = turned.solve(b, None if s is None else np.conj(s))
        assert not problems
        a = np.conj((k + (s or 0) * np.eye(12)).swapaxes(-1, -2))
        want = np.linalg.solve(a, b)
        rest = np.linalg.norm(a @ y - b) / (np.linalg.norm(a) * np.linalg.norm(y))
        # normwise backward error; of a product of inverses times the condition, some thousands
        assert rest <= 1e-11
        if kind != "wild":
            np.testing.assert_allclose(y, want, rtol=1e-8, atol=1e-8 * np.abs(want).max())
