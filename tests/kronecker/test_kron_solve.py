"""Solutions and determinants, with shifts and without: dense and mpmath oracles, bad members."""

import functools
import warnings

import numpy as np
import pytest
from directions import gaussian
from spectra import EPS, conditioned, spectrum

from linalgk import config_context
from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _factored, _inverse, _shifted
from linalgk.kronecker._kron import Kron

KINDS = ["gen", "her", "pos", None]


def make(n, kind, dtype="float64", seed=0):
    a = gaussian((n, n), dtype, seed)
    if kind == "pos":
        a = a @ a.conj().T + np.eye(n)
    elif kind == "her":
        a = a + a.conj().T
    return a.astype(dtype)


def dense(factors):
    def pair(a, b):
        c = a[..., :, None, :, None] * b[..., None, :, None, :]
        return c.reshape(*c.shape[:-4], c.shape[-4] * c.shape[-3], c.shape[-2] * c.shape[-1])

    return functools.reduce(pair, [np.asarray(f, np.result_type(f, np.float64)) for f in factors])


def check(x, D, b, dtype, factor=10):
    """Forward error of a backward stable solution: n eps cond."""
    D = D.astype(np.result_type(D, b))
    wanted = np.linalg.solve(D, b[:, None])[:, 0] if b.ndim == 1 else np.linalg.solve(D, b)
    limit = factor * D.shape[-1] * EPS[dtype] * np.linalg.cond(D).max()
    assert x.shape == wanted.shape
    assert np.linalg.norm(x - wanted) <= limit * np.linalg.norm(wanted)


def jordan(n, value, coupling=1.0):
    """Defective: no eigenvectors serve."""
    return value * np.eye(n) + coupling * np.diag(np.ones(n - 1), 1)


# --- Solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("assume", KINDS)
@pytest.mark.parametrize("shift", [0, 0.7, -0.4, 0.3 + 0.8j])
def test_solutions_of_every_kind(assume, shift, dtype):
    factors = [make(n, assume, dtype, 3 * n) for n in (3, 1, 4)]
    K = Kron(factors, assume_a=assume)
    S = dense(factors) + shift * np.eye(12)
    for b in (gaussian(12, dtype), gaussian((12, 2), dtype), gaussian((2, 12, 1), dtype)):
        x = K.solve(b, shift)
        wide = isinstance(shift, complex) and np.dtype(dtype).kind == "f"
        assert x.dtype == (np.result_type(dtype, "complex64") if wide else np.dtype(dtype))
        check(x, S, b, dtype)
    assert K.solve(b, shift=np.asarray(shift)).shape == b.shape


@pytest.mark.parametrize("shift", [0, 0.5])
def test_a_complex_right_hand_side_of_real_factors(shift):
    for kinds in (["pos", "her"], ["gen", "her"], ["gen", "gen"]):
        factors = [make(3, kinds[0]), make(4, kinds[1], seed=2)]
        b = gaussian((12, 2), "complex128")
        x = Kron(factors, assume_a=kinds).solve(b, shift)
        assert x.dtype == np.complex128
        check(x, dense(factors) + shift * np.eye(12), b, "complex128")
        single = Kron([f.astype("float32") for f in factors]).solve(b.astype("complex64"), shift)
        assert single.dtype == np.complex64
        assert Kron([f.astype("float32") for f in factors]).solve(b, shift).dtype == np.complex128


@pytest.mark.parametrize("kappa", [1e2, 1e4, 1e7, 1e10])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", ["gen", "pos"])
def test_forward_error_is_eps_times_the_condition(kind, batched, kappa):
    """Against mpmath, for each way to invert: LAPACK's inverse, a library's, triangular solves."""
    mpmath = pytest.importorskip("mpmath")
    if kind == "pos":
        factors = [spectrum(np.geomspace(1, 1 / kappa, 6)), spectrum([1.0, 0.5], seed=3)]
    else:
        factors = [conditioned(6, 6, kappa), conditioned(2, 2, 2.0, seed=4)]
    given = [f[None] for f in factors] if batched else factors
    with mpmath.workdps(60):
        first, second = (mpmath.matrix(f.tolist()) for f in factors)
        product = mpmath.matrix(12, 12)
        for i in range(12):
            for j in range(12):
                product[i, j] = first[i // 2, j // 2] * second[i % 2, j % 2]
        # a right-hand side whose solution is small, where a poor inverse would show
        for b in (gaussian(12), np.kron(*factors) @ gaussian(12, seed=5)):
            wanted = mpmath.lu_solve(product, mpmath.matrix(b.tolist()))
            wanted = np.array([float(z) for z in wanted])
            x = np.reshape(Kron(given, assume_a=kind).solve(b), -1)
            error = np.linalg.norm(x - wanted) / np.linalg.norm(wanted)
            assert error <= 20 * 2 * kappa * EPS["float64"]


@pytest.mark.parametrize("kappas", [(1e1, 1e1), (1e3, 1e3), (1e7, 1e7), (1e13, 1e1)])
@pytest.mark.parametrize("batched", [False, True])
def test_residuals_are_small_where_the_condition_is_not(batched, kappas):
    """Inverses alone leave eps cond(K)^(1/2) here, and one refined 5e-10 for the last."""
    factors = [conditioned(20, 20, kappas[0]), conditioned(10, 10, kappas[1], seed=3)]
    K = Kron([f[None] for f in factors] if batched else factors)
    for b in (gaussian((200, 3)), np.kron(*factors) @ gaussian((200, 3), seed=5)):
        x = K.solve(b).reshape(200, 3)
        size = np.linalg.norm(np.kron(*factors), 2) * np.linalg.norm(x)
        assert np.linalg.norm(b - np.kron(*factors) @ x) <= 2 * EPS["float64"] * size


@pytest.mark.parametrize("kind", ["gen", "pos"])
def test_large_factors_are_solved_with_and_not_inverted(kind, monkeypatch):
    factors = [make(7, kind), make(5, kind, seed=1)]
    wanted = Kron(factors, assume_a=kind).solve(np.arange(35.0))
    monkeypatch.setattr(_inverse, "LARGEST", 6)
    K = Kron(factors, assume_a=kind)
    x = K.solve(np.arange(35.0))
    inverses = K._factored().inverses
    assert [v.matrix is None for v in inverses] == [True, False]
    assert np.allclose(x, wanted, rtol=1e-11)
    assert np.allclose(K.inv().toarray() @ np.arange(35.0), wanted, rtol=1e-10)
    assert Kron([make(3, kind)[None]], assume_a=kind)._factored().inverses[0].matrix is not None


def test_factorizations_are_made_once(monkeypatch):
    calls = []
    made = _factored.inverted
    monkeypatch.setattr(_factored, "inverted", lambda *args: calls.append(args) or made(*args))
    K = Kron([make(3, "pos"), make(4, "pos")], assume_a="pos")
    for _ in range(3):
        K.solve(np.ones(12))
        K.slogdet()
    assert len(calls) == 2
    eighs = []
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: eighs.append(a) or eigh(a))
    for s in (0.1, 0.2, 3.0):
        K.solve(np.ones(12), s)
        K.slogdet(s)
    K.eigh()
    assert len(eighs) == 2
    assert len(calls) == 2


# --- Shifts of factors that are not Hermitian ----------------------------------------------------

SETS = [
    ["gen"], ["gen", "gen"], ["her", "gen"], ["gen", "her"], ["gen", "pos", "gen"],
    ["her", "gen", "her"], ["gen", "gen", "gen"],
]  # fmt: skip


@pytest.mark.parametrize("shift", [0.6, 1.5 - 0.5j])
@pytest.mark.parametrize("kinds", SETS, ids="-".join)
def test_schur_forms(kinds, shift, dtype, monkeypatch):
    """The recursion by itself, with factors diagonal on any side, batches and all dtypes."""
    monkeypatch.setattr(_shifted, "EIGENVECTORS", 0.0)
    sizes = (3, 4, 2)[: len(kinds)]
    factors = [make(n, kind, dtype, n) for n, kind in zip(sizes, kinds, strict=True)]
    n = int(np.prod(sizes))
    b = gaussian((n, 2), dtype)
    check(
        Kron(factors, assume_a=kinds).solve(b, shift), dense(factors) + shift * np.eye(n), b, dtype
    )
    factors[0] = np.stack([factors[0], factors[0] @ factors[0]])
    batch = gaussian((2, n, 2), dtype)
    many = Kron(factors, assume_a=["gen", *kinds[1:]]).solve(batch, shift)
    check(many, dense(factors) + shift * np.eye(n), batch, dtype)


@pytest.mark.parametrize("other", ["jordan", "her"])
def test_defective_factors(other):
    """Jordan blocks have one eigenvector: what would go through eigenvectors has no digit."""
    second = jordan(5, 0.5) if other == "jordan" else make(5, "her")
    factors = [jordan(6, 1.0), second]
    K, S = Kron(factors), dense(factors) + 0.8 * np.eye(30)
    x = np.arange(30.0)
    assert np.linalg.cond(S) < 1e6
    found = K.solve(S @ x, 0.8)
    assert np.linalg.norm(found - x) <= 30 * np.linalg.cond(S) * EPS["float64"] * np.linalg.norm(x)
    assert np.isclose(K.slogdet(0.8).logabsdet, np.linalg.slogdet(S)[1], rtol=1e-12)


@pytest.mark.parametrize("coupling", [1e-1, 1e-2, 4e-3, 1e-4, 1e-6])
def test_eigenvectors_that_are_nearly_dependent(coupling):
    """Whichever way is taken, the residual is that of a stable method: refinement sees to it."""
    near = np.array([[1.0, 1.0], [0.0, 1.0 + coupling]])
    factors = [near, np.array([[1.0, 0.7], [0.3, 2.0]])]
    for s in (0.3, -0.9, -2.0):
        S, x = dense(factors) + s * np.eye(4), gaussian((4, 3))
        b = S @ x
        found = Kron(factors).solve(b, s)
        size = np.linalg.norm(S, 2) * np.linalg.norm(found)
        assert np.linalg.norm(b - S @ found) <= 4 * EPS["float64"] * size
        error = np.linalg.norm(found - x) / np.linalg.norm(x)
        assert error <= 10 * np.linalg.cond(S) * EPS["float64"]


def test_a_correction_that_is_large_sends_to_schur_forms(monkeypatch):
    factors = [make(4, "gen"), make(3, "gen", seed=1)]
    taken = []
    way = _shifted._by_schur
    monkeypatch.setattr(_shifted, "_by_schur", lambda *args: taken.append(1) or way(*args))
    K, b = Kron(factors), gaussian(12)
    K.solve(b, 0.5)
    assert not taken
    monkeypatch.setattr(_shifted, "CORRECTION", 0.0)
    check(K.solve(b, 0.5), dense(factors) + 0.5 * np.eye(12), b, "float64")
    assert taken


def test_one_shift_for_each_member():
    for kinds in ("her", "gen"):
        factors = [np.stack([make(3, kinds, seed=i) for i in range(4)]), make(2, kinds, seed=9)]
        shifts = np.array([0.3, 0.0, 2.0, -5.0])
        K, D = Kron(factors, assume_a=kinds), dense(factors)
        S = D + shifts[:, None, None] * np.eye(6)
        check(K.solve(np.ones((6, 1)), shifts), S, np.ones((4, 6, 1)), "float64")
        sign, log = K.slogdet(shifts)
        assert np.allclose(sign, np.linalg.slogdet(S)[0])
        assert np.allclose(log, np.linalg.slogdet(S)[1])
    # many shifts of one product
    single = Kron([make(3, "pos")], assume_a="pos")
    x = single.solve(np.ones((5, 3, 1)), np.arange(5.0))
    assert x.shape == (5, 3, 1)
    assert np.allclose(x[2, :, 0], np.linalg.solve(make(3, "pos") + 2 * np.eye(3), np.ones(3)))


# --- Determinants --------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 0.9, -1.3, 0.2 - 0.7j])
@pytest.mark.parametrize("assume", KINDS)
def test_determinants(assume, shift, dtype):
    for sizes in ((3, 2), (2, 4, 1), (5,)):
        factors = [make(n, assume, dtype, n + 1) for n in sizes]
        S = dense(factors) + shift * np.eye(int(np.prod(sizes)))
        sign, log = Kron(factors, assume_a=assume).slogdet(shift)
        wanted, logdet = np.linalg.slogdet(S)
        tol = 50 * len(S) * EPS[dtype] * np.linalg.cond(S)
        assert abs(sign - wanted) <= tol
        assert abs(log - logdet) <= tol
        real = np.dtype(dtype).kind == "f" and not isinstance(shift, complex)
        assert sign.dtype.kind == ("f" if real else "c")
        assert log.dtype == np.zeros(0, dtype).real.dtype
        if real:
            assert sign in (-1, 1)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_signs_are_those_of_integer_powers(p):
    """``det(F kron I_p) = det(F)^p`` exactly in sign, for huge multiplicities too."""
    f = np.diag([-2.0, 1.0, 0.5])
    sign, log = Kron([f, np.eye(p)]).slogdet()
    assert sign == (-1) ** p
    assert log == 0
    sign, _ = Kron([f, *[np.eye(3)] * 12]).slogdet()
    assert sign == -1
    turned = np.diag(np.exp(1j * np.array([0.1, 0.2, 0.3])))
    m = 51**3
    sign, _ = Kron([turned, *[np.eye(51)] * 3]).slogdet()
    assert abs(sign - np.exp(0.6j * m)) < m * EPS["float64"]
    assert abs(abs(sign) - 1) < 4 * EPS["float64"]


def test_determinants_that_leave_the_range():
    a = 1e-200 * spectrum([1.0, 2.0, 3.0])
    log = Kron([a, a], assume_a="pos").slogdet().logabsdet
    assert np.isclose(log, 9 * 2 * np.log(1e-200) + 6 * np.log(6), rtol=1e-14)
    big = Kron([1e30 * np.eye(100, dtype="float32")] * 2).slogdet().logabsdet
    assert np.isclose(big, 2 * 10000 * 30 * np.log(10), rtol=1e-6)


def test_determinants_of_deficient_matrices_are_zero():
    for factors in ([np.ones((2, 2)), np.eye(3)], [np.ones((2, 3)), np.ones((3, 2))]):
        sign, log = Kron(factors).slogdet()
        assert (sign, log) == (0, -np.inf)
    sign, log = Kron([np.ones((2, 2)), np.eye(3)]).slogdet(-2.0)
    assert (sign, log) == (0, -np.inf)
    sign, log = Kron([np.empty((0, 0)), np.eye(3)]).slogdet()
    assert (sign, log) == (1, 0)
    with pytest.raises(ValueError, match=r"square product, got shape \(4, 6\)"):
        Kron([np.ones((2, 3)), np.eye(2)]).slogdet()
    with pytest.raises(ValueError, match=r"slogdet: needs square factors, factors\[0\]"):
        Kron([np.ones((2, 3)), np.ones((3, 2))]).slogdet(1.0)


# --- Bad members, bad input, empties -------------------------------------------------------------


def test_bad_members_leave_the_others():
    good = np.stack([make(3, "pos", seed=i) for i in range(5)])
    bad = good.copy()
    bad[1, 0, 1] = np.nan
    bad[2, 0, 2] += 1.0
    bad[3] = -bad[3]
    bad[4] = np.ones((3, 3))
    b = gaussian((6, 2))
    other = make(2, "pos", seed=9)
    wanted = Kron([good, other], assume_a="pos").solve(b)
    K = Kron([bad, other], assume_a="pos")
    x = K.solve(b, on_fail="nan")
    assert np.allclose(x[0], wanted[0], rtol=1e-12)
    assert np.isnan(x[1:]).all()
    errors = {
        NonFiniteError: 1, AsymmetricError: 2, NotPositiveSemidefiniteError: 3,
        SingularMatrixError: 4,
    }  # fmt: skip
    with pytest.warns(ConvergenceWarning) as told:
        K.solve(b, on_fail="warn")
    assert [any(f"members ({i},)" in str(w.message) for w in told) for i in errors.values()] == [
        True
    ] * 4
    for error, i in errors.items():
        only = good.copy()
        only[i] = bad[i]
        with pytest.raises(error, match=r"solve: factors\[0\]") as caught:
            Kron([only, other], assume_a="pos").solve(b)
        assert caught.value.index == ((i,),)
        rest = [k for k in range(5) if k != i]
        assert np.isnan(caught.value.result[i]).all()
        assert np.allclose(caught.value.result[rest], wanted[rest], rtol=1e-12)
    with config_context(on_fail="nan"):
        sign, log = K.slogdet(0.5)
    assert np.isfinite(log[[0, 4]]).all()
    assert np.isnan(log[1:4]).all()
    assert np.isnan(sign[1:4]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = Kron([bad[:2], other], assume_a="pos").solve(b, check_finite=False)
    assert np.isnan(nothing[1]).all()


def test_a_right_hand_side_that_is_not_finite():
    b = gaussian((3, 4, 2))
    b[1, 0, 0] = np.inf
    K = Kron([make(2, "pos"), make(2, "pos", seed=1)], assume_a="pos")
    with pytest.raises(NonFiniteError, match=r"b holds NaN or infinity \(batch members \(1,\)\)"):
        K.solve(b)
    x = K.solve(b, on_fail="nan")
    assert np.isnan(x[1]).all()
    assert np.isfinite(x[[0, 2]]).all()


def test_singular_factors_are_named():
    one = np.ones((2, 2))
    for assume in ("gen", "pos", None):
        with pytest.raises(SingularMatrixError, match=r"factors\[1\] is singular.*lstsq or pinv"):
            Kron([np.eye(3), one], assume_a=assume).solve(np.ones(6))
    almost = one + np.diag([0, 1e-17])
    with pytest.raises(SingularMatrixError, match=r"factors\[0\].*reciprocal condition"):
        Kron([almost, np.eye(2)]).inv()
    assert np.isnan(Kron([one]).solve(np.ones(2), on_fail="nan")).all()
    batch = np.stack([one, np.eye(2)])
    x = Kron([batch]).solve(np.ones(2), on_fail="nan")
    assert np.isnan(x[0]).all()
    assert (x[1] == 1).all()


def test_shifts_that_meet_an_eigenvalue():
    factors = [spectrum([1.0, 2.0, -3.0]), spectrum([0.5, 4.0], seed=4)]
    K = Kron(factors)
    for value in (0.5, 8.0, -12.0):
        with pytest.raises(SingularMatrixError, match=f"meets the eigenvalue {value:.6g} of"):
            K.solve(np.ones(6), -value)
    general = [np.array([[1.0, 5.0], [0.0, 2.0]]), np.array([[0.0, -1.0], [1.0, 0.0]])]
    with pytest.raises(SingularMatrixError, match=r"eigenvalue (-0|0)\+2j of"):
        Kron(general).solve(np.ones(4), -2j)
    x = Kron(general).solve(np.ones((2, 4, 1)), np.array([-2j, 1.0]), on_fail="nan")
    assert np.isnan(x[0]).all()
    assert np.allclose(x[1, :, 0], np.linalg.solve(dense(general) + np.eye(4), np.ones(4)))


def test_declarations_that_do_not_hold_are_told():
    with pytest.raises(AsymmetricError, match=r"factors\[1\] is not Hermitian.*1\.0e\+00"):
        Kron([np.eye(2), jordan(2, 1.0)], assume_a="her").solve(np.ones(4), 1.0)
    with pytest.raises(AsymmetricError):
        Kron([np.array([[1.0, 1j], [1j, 1.0]])], assume_a="pos").slogdet()
    for call in (lambda K: K.solve(np.ones(4)), lambda K: K.solve(np.ones(4), 5.0), Kron.slogdet):
        with pytest.raises(NotPositiveSemidefiniteError, match=r"factors\[0\].*eigenvalue -1"):
            call(Kron([np.diag([1.0, -1.0]), np.eye(2)], assume_a="pos"))
    # carelessness of rounding is none
    a = make(4, "pos")
    a[0, 1] *= 1 + 1e-12
    check(Kron([a], assume_a="pos").solve(np.ones(4)), a, np.ones(4), "float64", factor=1e4)
    # a kernel matrix, definite but for rounding, and a shift that makes it so
    x = np.linspace(0, 1, 60)
    k = np.exp(-((x[:, None] - x) ** 2))
    K = Kron([k, np.eye(2)], assume_a="pos")
    with pytest.raises(SingularMatrixError, match=r"factors\[0\]"):
        K.solve(np.ones(120))
    assert (
        np.linalg.norm((K @ K.solve(np.ones(120), 1e-4)) + 1e-4 * K.solve(np.ones(120), 1e-4) - 1)
        < 1e-8
    )


def test_what_is_refused():
    K = Kron([np.eye(2), np.eye(3)])
    with pytest.raises(ValueError, match=r"b: needs 2\*3 = 6 entries, got 5"):
        K.solve(np.ones(5))
    with pytest.raises(ValueError, match=r"factors\[1\] has \(3, 2\); use lstsq"):
        Kron([np.eye(2), np.ones((3, 2))]).solve(np.ones(6))
    for wrong, error in (
        ("1", TypeError), (True, TypeError), (None, TypeError), (np.nan, ValueError),
        (np.inf, ValueError), (np.array([np.nan]), ValueError), (np.ones(2), None),
    ):  # fmt: skip
        if error is None:
            assert K.solve(np.ones(6), wrong).shape == (2, 6)
            continue
        with pytest.raises(error, match="shift"):
            K.solve(np.ones(6), wrong)
    with pytest.raises(ValueError, match="does not broadcast"):
        Kron([np.ones((2, 1, 1))]).solve(np.ones(1), np.ones(3))
    with pytest.raises(ValueError, match="on_fail"):
        K.solve(np.ones(6), on_fail="no")


@pytest.mark.parametrize("sizes", [(0, 2), (2, 0), (0,)])
@pytest.mark.parametrize("shift", [0, 1.0])
def test_empty(sizes, shift):
    for assume in KINDS:
        factors = [np.ones((n, n), "float32") for n in sizes]
        x = Kron(factors, assume_a=assume).solve(np.ones((0, 3), "float32"), shift)
        assert x.shape == (0, 3)
        assert x.dtype == np.float32
        sign, log = Kron(factors, assume_a=assume).slogdet(shift)
        assert (sign, log) == (1, 0)
    K = Kron([np.ones((0, 2, 2))])
    assert K.solve(np.ones((2, 1)), shift).shape == (0, 2, 1)
    assert K.slogdet(shift).logabsdet.shape == (0,)
    assert Kron([np.eye(2)]).solve(np.ones((2, 0)), shift).shape == (2, 0)


def test_inputs_are_not_written_to():
    for kind in ("pos", "gen"):
        factors = [np.asfortranarray(make(3, kind)), make(4, kind, seed=2)[::-1][::-1]]
        b = gaussian((24, 3))[::2]
        for a in (*factors, b):
            a.flags.writeable = False
        for s in (0, 0.5, 0.5j):
            check(Kron(factors).solve(b, s), dense(factors) + s * np.eye(12), b, "float64")
