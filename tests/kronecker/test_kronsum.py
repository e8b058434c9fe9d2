"""Kronecker sums against dense matrices, exact identities and mpmath."""

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from directions import adjoint, gaussian
from spectra import EPS, spectrum

from linalgk.errors import (
    AsymmetricError,
    ConvergenceWarning,
    NonFiniteError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _kronsum_steps as steps
from linalgk.kronecker._kronsum import KronSum, explain_kronsum, sample

SIZES = [(5,), (3, 4), (4, 1, 3), (2, 3, 2, 3), (6, 2, 5)]


def dense(factors):
    """The definition."""
    sizes = [f.shape[-1] for f in factors]
    total = 0
    for i, f in enumerate(factors):
        before, behind = math.prod(sizes[:i]), math.prod(sizes[i + 1 :])
        total = total + np.kron(
            np.kron(np.eye(before, dtype=f.dtype), f), np.eye(behind, dtype=f.dtype)
        )
    return total


def positive(n, dtype="float64", seed=0, kappa=20.0):
    return spectrum(np.geomspace(1, kappa, n), dtype, seed)


def factors_of(kind, sizes, dtype="float64", seed=0):
    """Hermitian factors, general ones, or both in turn."""
    found = []
    for i, n in enumerate(sizes):
        if kind == "her" or (kind == "mixed" and i % 2):
            found.append(positive(n, dtype, seed + i))
        else:
            # eigenvalues to the right of the axis, so that no sum of them is zero
            x = gaussian((n, n), dtype, seed + i) / math.sqrt(n)
            found.append((x + 2 * np.eye(n)).astype(dtype))
    return found


def backward(a, x, b, shift=0):
    rest = a @ x + shift * x - b
    return np.linalg.norm(rest) / (np.linalg.norm(a, 2) * np.linalg.norm(x) + np.linalg.norm(b))


STACK = np.ones((2, 3, 3))


def eyes(*sizes):
    return KronSum([np.eye(n) for n in sizes])


# --- Products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
def test_products_and_entries(sizes, dtype):
    factors = [gaussian((n, n), dtype, i) for i, n in enumerate(sizes)]
    k, a = KronSum(factors), dense(factors)
    n = a.shape[0]
    tol = 4 * (sum(sizes) + len(sizes)) * EPS[dtype]
    assert k.shape == (n, n)
    assert k.dtype == np.dtype(dtype)
    assert k.batch == ()
    assert (k.toarray() == a).all()
    assert np.abs(k.diagonal() - np.diagonal(a)).max() <= tol * np.abs(a).max()
    size = np.abs(a)
    for shape in ((n,), (n, 3), (2, n, 2), (n, 0)):
        x = gaussian(shape, dtype, 7)
        y = k @ x
        assert y.dtype == a.dtype
        assert (np.abs(y - a @ x) <= tol * (size @ np.abs(x))).all()
    for shape in ((n,), (3, n), (2, 2, n)):
        x = gaussian(shape, dtype, 8)
        assert (np.abs(x @ k - x @ a) <= tol * (np.abs(x) @ size)).all()
    assert (k.T.toarray() == a.T).all()
    assert (k.H.toarray() == adjoint(a)).all()


def test_layouts_are_taken_and_not_written_to(rng):
    a, b = rng.standard_normal((4, 4)), rng.standard_normal((3, 3))
    x = rng.standard_normal((12, 5))
    wanted, solved = KronSum([a, b]) @ x, KronSum([a, b]).solve(x)
    wide = np.zeros((24, 10))
    wide[::2, ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for given in (np.asfortranarray(x), wide[::2, ::2], frozen):
        for left in (np.asfortranarray(a), a[::-1][::-1]):
            kept = given.copy()
            k = KronSum([left, b])
            assert np.abs(k @ given - wanted).max() < 1e-14
            assert np.abs(k.solve(given) - solved).max() < 1e-12
            assert (given == kept).all()


def test_dtypes_promote(rng):
    a, b = rng.standard_normal((2, 2)).astype("float32"), np.array([[1, 2], [3, 4]])
    x = rng.standard_normal(4).astype("complex64")
    assert KronSum([a, b]).dtype == np.float64
    assert (KronSum([a, a]) @ x).dtype == np.complex64
    assert KronSum([a, a]).solve(x.real.astype("float64")).dtype == np.float64
    half = KronSum([a.astype("float16"), a.astype("float16")])
    assert (half @ np.ones(4, "float16")).dtype == np.float16


def test_identity(rng):
    a, b = rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    k = KronSum([a, b])
    k.slogdet()
    for other in (pickle.loads(pickle.dumps(k)), copy.deepcopy(k), KronSum([a.copy(), b])):
        assert other == k
        assert hash(other) == hash(k)
    assert k != KronSum([a, b + 1])
    assert k != KronSum([a, b], assume_a="gen")
    assert k != "k"
    assert repr(k) == "KronSum([(3, 3), (2, 2)], dtype=float64)"
    k = KronSum([a + 1j * b[0, 0], b])
    operator, x = k.to_scipy(), gaussian((6, 2), "complex128")
    assert np.allclose(operator @ x, k @ x)
    assert np.allclose(operator.rmatmat(x), adjoint(k.toarray()) @ x)
    assert np.allclose(operator.rmatvec(x[:, 0]), adjoint(k.toarray()) @ x[:, 0])


# --- Solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["her", "gen", "mixed"])
def test_solutions(kind, sizes, dtype):
    """Backward error of a few roundings by unitary transformations, whatever the method."""
    factors = factors_of(kind, sizes, dtype)
    a = dense([f.astype(np.result_type(f, "float64")) for f in factors])
    k, n = KronSum(factors), math.prod(sizes)
    for shape in ((n,), (n, 4)):
        b = gaussian(shape, dtype, 3)
        x = k.solve(b)
        assert x.dtype == np.dtype(dtype)
        assert x.shape == shape
        assert backward(a, x, b) < 40 * EPS[dtype]
        shifted = k.solve(b, 0.7)
        assert shifted.dtype == x.dtype
        assert backward(a, shifted, b, 0.7) < 40 * EPS[dtype]
        turned = k.solve(b, 1j)
        assert turned.dtype == np.result_type(dtype, "complex64")
        assert backward(a, turned, b, 1j) < 40 * EPS[dtype]


def test_complex_right_hand_sides_of_real_factors(rng):
    for kind in ("her", "gen"):
        for sizes in ((3, 4), (3, 2, 4)):
            factors = factors_of(kind, sizes)
            k = KronSum(factors)
            b = gaussian(math.prod(sizes), "complex128", 5)
            parts = k.solve(b.real) + 1j * k.solve(b.imag)
            assert np.abs(k.solve(b) - parts).max() < 1e-14


@pytest.mark.parametrize("sizes", [(40, 70), (5, 80, 90), (3, 66, 2, 70)])
def test_orders_beyond_one_block(sizes):
    """Blocks of LAPACK's solver, and modes in another order than they come in."""
    factors = factors_of("gen", sizes)
    factors[0][0, -1] = 1e3  # eigenvectors do not serve
    k = KronSum(factors)
    x = gaussian(math.prod(sizes), seed=4)
    found = k.solve(k @ x)
    assert np.abs(found - x).max() < 1e-9 * np.abs(x).max()


def jordan(n):
    """A matrix without a basis of eigenvectors."""
    return 2 * np.eye(n) + np.eye(n, k=1)


def test_eigenvectors_are_refined():
    """Of condition 500, with which the error grows; the correction takes it back."""
    skew = np.diag([1.0, 1.01, 3.0]) + 2.5 * np.eye(3, k=1) * [0, 1, 0]
    assert 300 < np.linalg.cond(np.linalg.eig(skew)[1]) < 1000
    factors = [skew, positive(4), positive(3)]
    a, b = dense(factors), gaussian((36, 40))
    assert backward(a, KronSum(factors).solve(b), b) < 2e-16


@pytest.mark.parametrize("others", [(), (3,), (3, 4), (2, 3, 2)])
def test_defective_factors(others, xp):
    """Substitution instead of eigenvectors; modes with a diagonal go side by side."""
    for kind in ("her", "gen", "mixed"):
        factors = [jordan(5), *factors_of(kind, others)]
        a = dense(factors)
        b = gaussian((a.shape[0], 2), seed=1)
        x = KronSum([xp.asarray(f) for f in factors]).solve(xp.asarray(b))
        assert backward(a, np.asarray(x), b) < 1e-14


def test_a_laplacian_with_known_solution():
    """Sines are eigenvectors of the second difference."""
    n, h = (12, 9, 15), [1 / 13, 1 / 10, 1 / 16]
    lines = [
        (2 * np.eye(m) - np.eye(m, k=1) - np.eye(m, k=-1)) / s**2 for m, s in zip(n, h, strict=True)
    ]
    grids = [np.arange(1, m + 1) * s for m, s in zip(n, h, strict=True)]
    waves = [np.sin(j * math.pi * g) for j, g in zip((1, 3, 2), grids, strict=True)]
    u = np.kron(np.kron(waves[0], waves[1]), waves[2])
    value = sum(
        4 / s**2 * math.sin(j * math.pi * s / 2) ** 2 for j, s in zip((1, 3, 2), h, strict=True)
    )
    for k in (KronSum(lines), KronSum(lines, assume_a="pos"), KronSum(lines, assume_a="gen")):
        assert np.abs(k @ u - value * u).max() < 1e-11 * value
        assert np.abs(k.solve(value * u) - u).max() < 1e-12


def test_many_shifts_take_one_decomposition(rng, monkeypatch):
    k = KronSum(factors_of("her", (6, 5)))
    b = rng.standard_normal(30)
    k.solve(b)
    monkeypatch.setattr(np.linalg, "eigh", lambda *_: pytest.fail("decomposed again"))
    a = k.toarray()
    for shift in (0.1, 10.0, -0.3, 2 + 1j):
        x = k.solve(b, shift)
        assert np.abs(a @ x + shift * x - b).max() < 1e-12


def test_widened_right_hand_sides_are_solved_in_their_precision():
    factors = factors_of("her", (6, 5), "float32")
    a = dense([f.astype("float64") for f in factors])
    b = gaussian(30)
    k = KronSum(factors)
    k.solve(b.astype("float32"))
    assert np.linalg.norm(a @ k.solve(b) - b) < 1e-13 * np.linalg.norm(b)


# --- Batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["her", "gen", "mixed"])
@pytest.mark.parametrize("sizes", [(3, 4), (3, 2, 4)])
def test_batches(kind, sizes):
    """Batch axes broadcast; a member's result is that of its own call."""
    sets = [factors_of(kind, sizes, seed=10 * s) for s in range(6)]
    first = np.stack([s[0] for s in sets]).reshape(3, 2, sizes[0], sizes[0])
    second = np.stack([s[1] for s in sets[:2]])
    rest = [sets[0][i] for i in range(2, len(sizes))]
    k, n = KronSum([first, second, *rest]), math.prod(sizes)
    assert k.batch == (3, 2)
    b = gaussian((3, 2, n, 2), seed=1)
    x, y, full = k.solve(b), k @ b, k.toarray()
    shared = k.solve(b[0, 0])
    pair = k.slogdet()
    for i in np.ndindex(3, 2):
        alone = KronSum([first[i], second[i[1]], *rest])
        assert (full[i] == alone.toarray()).all()
        assert np.abs(y[i] - full[i] @ b[i]).max() < 1e-13
        assert np.abs(x[i] - alone.solve(b[i])).max() < 1e-14
        assert np.abs(shared[i] - alone.solve(b[0, 0])).max() < 1e-14
        assert (k.diagonal()[i] == alone.diagonal()).all()
        assert np.isclose(pair.logabsdet[i], np.linalg.slogdet(full[i])[1])
    assert k.solve(b[0, 0, :, 0]).shape == (3, 2, n)
    assert np.abs(k.expm(0.02).toarray() - scipy.linalg.expm(0.02 * full)).max() < 1e-12
    lone = KronSum(sets[0])
    many = lone.solve(b)
    assert np.abs(many[2, 1] - lone.solve(b[2, 1])).max() < 1e-14


def test_empty():
    for dtype in ("float32", "complex128"):
        k = KronSum([np.empty((0, 0), dtype), np.eye(3, dtype=dtype)])
        assert k.shape == (0, 0)
        assert k.solve(np.empty((0, 4), dtype)).shape == (0, 4)
        assert (k @ np.empty(0, dtype)).dtype == np.dtype(dtype)
        assert k.toarray().shape == (0, 0)
        assert k.slogdet() == (1, 0)
        assert k.eigh().eigenvalues.shape == (0,)
    batch = KronSum([np.empty((0, 2, 2)), np.eye(3)])
    assert batch.solve(np.empty((6, 1))).shape == (0, 6, 1)
    assert KronSum([np.eye(2), np.eye(3)]).solve(np.empty((6, 0))).shape == (6, 0)


# --- Functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["her", "gen"])
def test_exponentials(kind, dtype):
    """Against 40 digits: errors of eps times the norm, as the condition of exp has it."""
    mpmath = pytest.importorskip("mpmath")
    factors = factors_of(kind, (3, 2, 2), dtype)
    a = dense([f.astype(np.result_type(f, "float64")) for f in factors])
    k = KronSum(factors)
    for t in (1, -0.5, 0.3j):
        with mpmath.workdps(40):
            want = mpmath.expm(mpmath.matrix(a.tolist()) * mpmath.mpmathify(t))
        want = np.array(want.tolist(), dtype=complex)
        y = k.expm(t)
        assert y.dtype == np.result_type(dtype, "complex64" if t == 0.3j else dtype)
        size = 1 + abs(t) * sum(np.linalg.norm(f, 2) for f in factors)
        error = np.linalg.norm(y.toarray() - want)
        assert error <= 40 * size * EPS[dtype] * np.linalg.norm(want)
    # exp(K) exp(-K) = I
    b = gaussian(12, dtype, 2)
    back = k.expm(-0.01) @ (k.expm(0.01) @ b)
    assert np.linalg.norm(back - b) < 100 * EPS[dtype] * np.linalg.norm(b)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 8.0, 60.0])
def test_pade_against_mpmath(scale):
    mpmath = pytest.importorskip("mpmath")
    a = scale * gaussian((4, 4), seed=3) / 2
    found = steps._expm_by_pade(np.stack([a, a / 64]))
    assert (found[1] == steps._expm_by_pade(a[None] / 64)[0]).all()
    with mpmath.workdps(40):
        want = np.array(mpmath.expm(mpmath.matrix(a.tolist())).tolist(), dtype=float)
    assert np.linalg.norm(found[0] - want) < 1e-14 * max(1, scale) ** 2 * np.linalg.norm(want)


@pytest.mark.parametrize("sizes", [(4,), (3, 4), (2, 3, 4)])
def test_eigenvalues(sizes, dtype):
    factors = [spectrum(np.linspace(-1, i + 2, n), dtype, i) for i, n in enumerate(sizes)]
    a = dense([f.astype(np.result_type(f, "float64")) for f in factors])
    k, n = KronSum(factors), math.prod(sizes)
    want = np.linalg.eigvalsh(a)
    top = np.abs(want).max()
    w, v = k.eigh()
    assert np.abs(w - want).max() < 20 * EPS[dtype] * top
    full = v.toarray()
    assert np.linalg.norm(a @ full - full * w) < 100 * EPS[dtype] * top
    assert np.linalg.norm(adjoint(full) @ full - np.eye(n)) < 100 * EPS[dtype]
    for rank in (0, 1, n // 2, n):
        for which, values in (("largest", want[::-1]), ("smallest", want)):
            found = k.eigh(rank, which=which)
            assert found.eigenvalues.dtype == w.dtype
            assert np.abs(found.eigenvalues - values[:rank]).max(initial=0) < 20 * EPS[dtype] * top
            vectors = found.eigenvectors
            assert vectors.shape == (n, rank)
            rest = a @ vectors - vectors * found.eigenvalues
            assert np.linalg.norm(rest) < 100 * EPS[dtype] * top
            gram = adjoint(vectors) @ vectors
            assert np.linalg.norm(gram - np.eye(rank)) < 100 * EPS[dtype]
    moved = [f + 2 * np.eye(len(f), dtype=dtype) for f in factors]
    want = np.linalg.cond(dense([f.astype(np.result_type(f, "float64")) for f in moved]))
    assert np.isclose(KronSum(moved).cond(), want, rtol=100 * EPS[dtype] * want)


def test_largest_sums_of_all_lists(rng):
    """Against all sums, with ties and negative numbers."""
    for _ in range(60):
        count = int(rng.integers(1, 5))
        lists = [rng.integers(-4, 5, int(rng.integers(1, 6))) / 2 for _ in range(count)]
        sums = np.array([sum(t) for t in itertools.product(*lists)])
        k = int(rng.integers(0, len(sums) + 1))
        values, places = steps.largest(lists, k)
        assert (values == np.sort(sums)[::-1][:k]).all()
        assert len({tuple(p) for p in places.tolist()}) == k
        for value, place in zip(values, places, strict=True):
            assert value == sum(x[i] for x, i in zip(lists, place, strict=True))


@pytest.mark.parametrize("kind", ["her", "gen", "mixed"])
def test_determinants(kind, dtype):
    for seed in range(4):
        factors = [
            f - np.asarray(1.4 * np.eye(len(f)), dtype)
            for f in factors_of(kind, (3, 4, 2), dtype, seed)
        ]
        a = dense([f.astype(np.result_type(f, "float64")) for f in factors])
        k = KronSum(factors)
        for shift in (0, -0.8, 0.4j):
            found, want = k.slogdet(shift), np.linalg.slogdet(a + shift * np.eye(24))
            # of the worst eigenvalue of a matrix that is not normal
            tol = 2e4 * EPS[dtype]
            assert abs(found.sign - want.sign) < tol
            assert abs(found.logabsdet - want.logabsdet) < tol * max(1, abs(want.logabsdet))
    assert isinstance(float(found.logabsdet), float)


def test_sign_of_a_determinant_is_that_of_pairs():
    """A rotation has conjugate eigenvalues, whose sums with each other are real."""
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    k = KronSum([turn + np.eye(2), turn, np.diag([-3.0, -3.5, 1.0])])
    found, want = k.slogdet(), np.linalg.slogdet(k.toarray())
    assert found.sign == want.sign
    assert np.isclose(found.logabsdet, want.logabsdet)
    assert KronSum([turn, turn]).slogdet() == (0, -math.inf)


# --- Libraries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["her", "gen", "mixed"])
def test_other_libraries_get_their_own_arrays(kind, xp):
    # one shape is enough for JAX, which compiles each operation for each
    for sizes in ((3, 4),) if "jax" in xp.__name__ else ((3, 4), (3, 2, 4)):
        factors = factors_of(kind, sizes)
        mine, k = KronSum(factors), KronSum([xp.asarray(f) for f in factors])
        n = math.prod(sizes)
        b = gaussian((n, 2), seed=1)
        given = xp.asarray(b)
        pairs = [
            (k @ given, mine @ b), (k.H @ given, mine.H @ b), (k.solve(given), mine.solve(b)),
            (k.solve(given, 1j), mine.solve(b, 1j)), (k.solve(given[:, 0]), mine.solve(b[:, 0])),
            (k.toarray(), mine.toarray()), (k.diagonal(), mine.diagonal()),
            (k.slogdet().logabsdet, mine.slogdet().logabsdet),
            (k.slogdet(0.5j).sign, mine.slogdet(0.5j).sign),
            (k.expm(0.5) @ given, mine.expm(0.5) @ b), (k.expm(0.5j) @ given, mine.expm(0.5j) @ b),
        ]  # fmt: skip
        if kind == "her":
            pairs += [
                (k.eigh(5).eigenvalues, mine.eigh(5).eigenvalues), (k.cond(), mine.cond()),
                (k.eigh().eigenvectors @ given, mine.eigh().eigenvectors @ b),
            ]  # fmt: skip
        for found, want in pairs[:-1] if kind == "her" else pairs:
            assert type(found) is type(given) or xp is np
            assert np.abs(np.asarray(found) - want).max() < 1e-12 * max(1, np.abs(want).max())
        assert k == KronSum([xp.asarray(f) for f in factors])
        if "strict" not in xp.__name__:  # its arrays ask nobody
            assert np.abs(np.asarray(given.T @ k) - b.T @ mine).max() < 1e-12


def test_both_sides_of_the_axis_in_every_library(xp):
    """Newton's iteration for the sign does not serve: eigenvectors or Schur forms do."""
    a, b = gaussian((4, 4), seed=1), gaussian((5, 5), seed=2)
    for other in (b, jordan(5) - 2.5 * np.eye(5)):
        full, rhs = dense([a, other]), gaussian((20, 3), seed=3)
        x = KronSum([xp.asarray(a), xp.asarray(other)]).solve(xp.asarray(rhs))
        assert backward(full, np.asarray(x), rhs) < 1e-13


def test_frameworks_are_told_what_is_not_offered():
    torch = pytest.importorskip("torch")
    leaf = torch.eye(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(TypeError, match="requires grad"):
        KronSum([leaf, leaf]).solve(torch.ones(4, dtype=torch.float64))
    jax = pytest.importorskip("jax")
    k = KronSum([jax.numpy.eye(2), jax.numpy.eye(2)])
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(k.solve)(jax.numpy.ones(4))


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "shift", "sentence"),
    [
        ([np.diag([1.0, 2.0]), np.diag([-2.0, 5.0])], 0, r"2 \+ -2 \(number 1, 0\) sum to 0, so"),
        ([np.diag([1.0, 2.0]), np.diag([1.0, 5.0])], -3, r"shift 2 \+ 1 \+ -3 \(number 1, 0\)"),
        ([jordan(2), np.diag([-2.0, 5.0])], 0, r"2 \+ -2 \(number ., 0\) sum to"),
        ([jordan(2), np.eye(2), np.diag([-3.0, 5.0])], 0, r"2 \+ 1 \+ -3 \(number"),
        ([np.zeros((2, 2)), np.zeros((1, 1))], 0, "sum to 0"),
        ([np.array([[0.0, 1.0], [-1.0, 0.0]]), np.zeros((1, 1))], 1j, "sum to"),
    ],
)  # fmt: skip
def test_singular_sums_are_named(factors, shift, sentence):
    k = KronSum(factors)
    b = np.ones(k.shape[0])
    with pytest.raises(SingularMatrixError, match=sentence) as caught:
        k.solve(b, shift)
    assert np.isnan(caught.value.result).all()
    assert np.isnan(k.solve(b, shift, on_fail="nan")).all()
    with pytest.warns(ConvergenceWarning, match="sum to"):
        k.solve(b, shift, on_fail="warn")
    assert np.isfinite(k.solve(b, shift + 0.125)).all()


def test_small_sums_that_cancel_nothing_are_solved():
    k = KronSum([np.diag([1e-9, 1.0]), np.diag([1e-9, 1.0])])
    assert np.allclose(k.solve(np.array([2e-9, 1, 1, 2])), [1, 1 / (1 + 1e-9), 1 / (1 + 1e-9), 1])


@pytest.mark.parametrize("kind", ["her", "gen"])
@pytest.mark.parametrize("sizes", [(2, 3), (2, 3, 2)])
def test_bad_members_leave_the_others_alone(kind, sizes):
    sets = [factors_of(kind, sizes, seed=10 * s) for s in range(4)]
    first = np.stack([s[0] for s in sets])
    rest, n = sets[0][1:], math.prod(sizes)
    b = gaussian((4, n, 2), seed=1)
    good = KronSum([first, *rest]).solve(b)
    first[1, 0, 1] = math.nan
    b[2, 3, 0] = math.inf
    w = np.linalg.eigvals(dense(rest))[0]
    first[3] = -w.real * np.eye(2) if abs(w.imag) < 1e-9 else first[3]
    bad = [False, True, True, abs(w.imag) < 1e-9]
    k = KronSum([first, *rest])
    with pytest.raises(NonFiniteError, match="NaN or infinity") as caught:
        k.solve(b)
    assert (caught.value.result[0] == good[0]).all()
    found = k.solve(b, on_fail="nan")
    for i in range(4):
        if bad[i]:
            assert np.isnan(found[i]).all()
        else:
            assert (found[i] == good[i]).all()
    with pytest.warns(ConvergenceWarning):
        k.solve(b, on_fail="warn")
    with pytest.raises(NonFiniteError, match="factors"):
        k.expm()
    # it is not called singular too
    with pytest.warns(ConvergenceWarning, match="NaN") as told:
        KronSum([np.full((2, 2), math.nan)]).solve(b[0, :2], on_fail="warn")
    assert len(told) == 1


def test_declarations_are_checked(rng):
    a, c = rng.standard_normal((3, 3)), positive(2)
    with pytest.raises(AsymmetricError, match=r"factors\[0\] is not Hermitian"):
        KronSum([a, c], assume_a="her").solve(np.ones(6))
    with pytest.raises(AsymmetricError, match=r"factors\[0\]"):
        KronSum([a, c], assume_a=["her", None]).solve(np.ones(6))
    with pytest.raises(NotPositiveSemidefiniteError, match="negative eigenvalue"):
        KronSum([c, -c - np.eye(2)], assume_a="pos").solve(np.ones(4))
    nearly = c + 1e-12 * rng.standard_normal((2, 2))
    assert explain_kronsum([nearly, c]).method == "sylvester"
    assert explain_kronsum([nearly, c], assume_a="her").method == "eigh"
    for call in (lambda k: k.eigh(), lambda k: k.cond(), lambda k: k.eigh(2)):
        with pytest.raises(AsymmetricError, match=r"factors\[0\] not Hermitian"):
            call(KronSum([a, c]))


# what the types forbid
WRONG: Any = "spd"


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: KronSum([]), ValueError, "at least 1 matrix"),
        (lambda: KronSum(np.eye(3)), TypeError, "must be a list of matrices"),
        (lambda: KronSum([np.ones((2, 3))]), ValueError, r"factors\[0\]: must have shape"),
        (lambda: KronSum([np.eye(2), np.ones(2)]), ValueError, r"factors\[1\]: must have shape"),
        (lambda: KronSum([np.eye(2)], assume_a=WRONG), ValueError, "assume_a: must be one of"),
        (lambda: KronSum([np.eye(2)], assume_a=["her"] * 2), ValueError, "of 1 factors, got 2"),
        (lambda: KronSum([STACK, np.ones((3, 2, 2))]), ValueError, "does not broadcast"),
        (lambda: KronSum([np.eye(2, dtype="U1")]), TypeError, "dtype must be"),
        (lambda: eyes(3, 4, 5) @ np.ones(59), ValueError, r"x: needs 3\*4\*5 = 60 entries, got 59"),
        (
            lambda: eyes(3, 4).solve(np.ones((11, 2))),
            ValueError,
            r"b: needs 3\*4 = 12 rows, got 11",
        ),
        (lambda: np.ones((2, 5)) @ eyes(2, 2), ValueError, r"x: needs 2\*2 = 4 columns, got 5"),
        (lambda: eyes(2) @ 3, TypeError, "unsupported operand"),
        (lambda: eyes(2) @ np.float64(3), ValueError, "got a number"),
        (lambda: eyes(2).solve(np.ones(2), "x"), TypeError, "shift: must be a number"),
        (lambda: eyes(2).solve(np.ones(2), math.nan), ValueError, "shift: must be finite"),
        (lambda: eyes(2).solve(np.ones(2), on_fail="no"), ValueError, "on_fail: must be one of"),
        (lambda: eyes(2).eigh(3), ValueError, "rank: must be at most 2"),
        (lambda: eyes(2).eigh(1, which="LM"), ValueError, "which: must be one of"),
        (lambda: KronSum([STACK]).solve(np.ones((5, 3, 1))), ValueError, "does not broadcast"),
        (lambda: KronSum([STACK]).to_scipy(), ValueError, "no batch"),
    ],
)
def test_bad_arguments(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_explanations():
    for size in ("small", "medium"):
        args, kwargs = sample(size, rng=0)
        assert explain_kronsum(*args, **kwargs).method == "eigh"
    assert explain_kronsum([jordan(3), np.eye(2)]).method == "sylvester"
    assert "Schur" in str(explain_kronsum([jordan(3), np.eye(2), np.eye(2)]))
