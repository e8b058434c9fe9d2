"""Nearest Kronecker products of several factors, sparse matrices, operators, streams, batches."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from nearest import TWO, error_of, least_error, psd, skew, symmetric
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from spectra import EPS, adjoint, gaussian

from linalgk.errors import ConvergenceWarning, NonFiniteError, NotConvergedError
from linalgk.kronecker import _nearest, _rearranged
from linalgk.kronecker._nearest import choose_method, explain_nearest_kron, nearest_kron

# --- More than two factors -----------------------------------------------------------------------


def random_starts(a, shapes, count, seed=0):
    """The best of alternating fits from random factors, in plain einsum."""
    n = len(shapes)
    t = a.reshape([p for p, _ in shapes] + [q for _, q in shapes])
    t = t.transpose([i for pair in zip(range(n), range(n, 2 * n), strict=True) for i in pair])
    t = t.reshape([p * q for p, q in shapes])
    rng, best = np.random.default_rng(seed), 0.0
    for _ in range(count):
        x = [rng.standard_normal(d).astype(t.dtype) for d in t.shape]
        size = 0.0
        for _, i in itertools.product(range(25), range(n)):
            y = t
            for j in reversed(range(n)):
                if j != i:
                    y = np.tensordot(y, x[j].conj() / np.linalg.norm(x[j]), axes=(j, 0))
            x[i], size = y, np.linalg.norm(y)
        best = max(best, size)
    return np.sqrt(max(0.0, 1 - (best / np.linalg.norm(a)) ** 2))


@pytest.mark.parametrize(
    "shapes",
    [[(3, 2), (2, 4), (5, 3)], [(1, 3), (4, 1), (2, 2)], [(2, 2), (3, 1), (2, 3), (1, 2)],
     [(2, 1), (1, 1), (2, 3), (1, 2), (2, 1)]],
)  # fmt: skip
def test_several_factors(shapes, dtype):
    """Exact products are found; near them, and for noise, nothing in reach is better."""
    factors = [gaussian(s, dtype, i) for i, s in enumerate(shapes)]
    exact = factors[0]
    for f in factors[1:]:
        exact = np.kron(exact, f)
    exact = exact.astype(dtype)
    k, info = nearest_kron(exact, shapes, return_info=True)
    assert info.method == "als"
    assert error_of(exact, k) < 60 * EPS[dtype]
    norms = [np.linalg.norm(f) for f in k.factors]
    assert max(norms) / min(norms) - 1 < 30 * EPS[dtype]
    if dtype in ("float64", "complex128"):
        for noise in (0.3, 10.0):
            a = exact + noise * gaussian(exact.shape, dtype, seed=9)
            k, info = nearest_kron(a, shapes, return_info=True, on_fail="warn")
            assert abs(error_of(a, k) - info.residual) < 1e-13
            # a local minimum in the worst case, and here no worse than those of random starts
            assert info.residual <= random_starts(a, shapes, 6) * (1 + 0.02 * (noise > 1)) + 1e-10


@pytest.mark.parametrize(("seed", "best"), [(2, 4.2430), (3, 5.0797)])
def test_the_better_of_two_beginnings(seed, best):
    """Noise of which either matrices that keep signs, or singular vectors, lead further.

    The others end at 4.0345 and 4.8245.
    """
    a = gaussian((12, 6), seed=seed)
    _, info = nearest_kron(a, [(2, 2), (3, 1), (2, 3)], return_info=True, on_fail="warn")
    assert info.singular_values[0] > best


def test_several_factors_keep_the_structure():
    shapes = [(3, 3), (2, 2), (4, 4)]
    a = psd(24, 3)
    for kind in (None, "pos"):
        k = nearest_kron(a, shapes, assume_a=kind)
        assert all((f == f.T).all() for f in k.factors)
        assert min(np.linalg.eigvalsh(f)[0] for f in k.factors) > -1e-14
    k = nearest_kron(np.abs(gaussian((24, 24))), shapes)
    assert min(f.min() for f in k.factors) >= 0
    a = np.kron(np.kron(skew(3), symmetric(2)), skew(4)) + 0.01 * symmetric(24)
    k = nearest_kron(a, shapes, on_fail="warn")
    kinds = [1 if (f == f.T).all() else -1 if (f == -f.T).all() else 0 for f in k.factors]
    assert kinds == [-1, 1, -1]
    # symmetric matrices see nothing of it
    turn = np.array([[0.0, 1], [-1, 0]])
    exact = np.kron(np.kron(turn, turn), np.eye(3))
    k = nearest_kron(exact, [(2, 2), (2, 2), (3, 3)])
    assert np.abs(k.toarray() - exact).max() < 1e-14
    h = nearest_kron(symmetric(24, "complex128"), shapes, on_fail="warn")
    assert all((f == adjoint(f)).all() for f in h.factors)
    assert nearest_kron(np.zeros((24, 24)), shapes).toarray().max() == 0


# --- Kinds of matrices ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csr_array", "csc_array", "coo_array", "csr_matrix"])
@pytest.mark.parametrize("shapes", [[(8, 6), (5, 10)], [(4, 3), (2, 2), (5, 10)]])
def test_sparse_matrices(form, shapes):
    a = scipy.sparse.random_array((40, 60), density=0.1, rng=np.random.default_rng(1))
    a = getattr(scipy.sparse, form)(a)
    before = a.toarray()
    k, info = nearest_kron(a, shapes, return_info=True)
    same, other = nearest_kron(before, shapes, return_info=True)
    assert abs(info.residual - other.residual) < 1e-12
    assert abs(error_of(before, k) - info.residual) < 1e-12
    assert min(f.min() for f in k.factors) >= 0
    assert same.shape == k.shape
    assert (a.toarray() == before).all()


def test_sparse_products_with_duplicates_and_zeros(monkeypatch):
    """Factors have the zeros of an exact product, so that a large one is compared exactly."""
    left, right = (
        scipy.sparse.random_array((n, n), density=4 / n, rng=np.random.default_rng(n))
        for n in (90, 60)
    )
    left = left * (0.6 + 0.8j)
    whole = scipy.sparse.coo_array(scipy.sparse.kron(left, right))
    rows, columns = (np.concatenate([x, x]) for x in whole.coords)
    twice = scipy.sparse.coo_array((np.tile(whole.data / 2, 2), (rows, columns)), whole.shape)
    k, info = nearest_kron(twice, [(90, 90), (60, 60)], return_info=True)
    assert info.residual < 1e-14
    assert (k.factors[0][left.toarray() == 0] == 0).all()
    assert twice.nnz == 2 * whole.nnz
    # where the model has more entries than should be stored, norms have to do
    monkeypatch.setattr(_rearranged, "_FILLED", 0)
    a = scipy.sparse.random_array((40, 60), density=0.02, rng=np.random.default_rng(1))
    k, info = nearest_kron(a, [(8, 6), (5, 10)], return_info=True)
    assert abs(info.residual - error_of(a.toarray(), k)) < 1e-12
    hermitian = scipy.sparse.csr_array(symmetric(30, "complex128"))
    assert all((f == adjoint(f)).all() for f in nearest_kron(hermitian, TWO).factors)


@pytest.mark.parametrize("formed", [True, False])
def test_linear_operators(formed, monkeypatch):
    a = gaussian((40, 60), "complex128") + 3 * np.kron(gaussian((8, 6)), gaussian((5, 10)))
    calls = []

    def product(x):
        calls.append(x.shape)
        return a @ x

    if not formed:
        monkeypatch.setattr(_rearranged, "_FORMED", 100)
    operator = LinearOperator(a.shape, matvec=product, matmat=product, dtype=a.dtype)
    k, info = nearest_kron(operator, [(8, 6), (5, 10)], return_info=True)
    best, _ = least_error(a, [(8, 6), (5, 10)], 1)
    assert abs(info.residual - best) < 1e-13
    assert abs(error_of(a, k) - best) < 1e-13
    assert calls == [(60, 60)] if formed else {x[1] for x in calls} == {10}
    several = nearest_kron(operator, [(4, 3), (2, 2), (5, 10)], return_info=True, on_fail="warn")
    dense = nearest_kron(a, [(4, 3), (2, 2), (5, 10)], return_info=True, on_fail="warn")
    assert abs(several[1].residual - dense[1].residual) < 1e-10
    pos = nearest_kron(aslinearoperator(psd(30)), TWO, assume_a="pos")
    assert all((f == f.T).all() for f in pos.factors)


# --- Streams -------------------------------------------------------------------------------------


def moments(gradients):
    return sum(np.outer(g.reshape(-1), g.reshape(-1).conj()) for g in gradients)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_streams_reach_the_nearest_product(method, dtype):
    mix = psd(6, dtype=dtype, seed=1), psd(5, dtype=dtype, seed=2)
    gradients = [mix[0] @ gaussian((6, 5), dtype, i) @ mix[1] for i in range(20)]
    a = moments(gradients)
    best, s = least_error(a, TWO, 1)
    stacked = [np.stack(gradients[:7]), *gradients[7:]]
    # in the dtype of the first
    small = "float32" if dtype == "float64" else "complex64"
    coarse = nearest_kron([gradients[0].astype(small), *gradients[1:]], TWO, method=method)
    assert coarse.dtype == np.dtype(small)
    for source in (gradients, lambda: iter(gradients), stacked, tuple(gradients)):
        k, info = nearest_kron(source, TWO, method=method, return_info=True)
        assert abs(error_of(a, k) - best) < 1e-12
        assert abs(info.singular_values[0] / s[0] - 1) < 1e-12
        for f in k.factors:
            assert (f == adjoint(f)).all()
            assert np.linalg.eigvalsh(f)[0] > 0
        # 16 random vectors: six standard deviations of the relative error
        assert abs(info.residual / best - 1) < 6 * 0.18
    if method == "lanczos":
        k, info = nearest_kron(gradients, TWO, 3, return_info=True)
        assert np.abs(info.singular_values / s[:3] - 1).max() < 1e-10


def test_one_pass_over_a_stream():
    """``sum G G^H kron sum G^T conj(G) / sum ||G||^2``, read once; exact for a product."""
    gradients = [gaussian((6, 5), "complex128", i) for i in range(10)]
    left = sum(g @ adjoint(g) for g in gradients)
    right = sum(g.T @ g.conj() for g in gradients)
    reads = []

    def source():
        for g in gradients:
            reads.append(1)
            yield g

    k, info = nearest_kron(source(), TWO, return_info=True)
    assert (info.method, info.passes, len(reads)) == ("moments", 1, 10)
    model = np.kron(left, right) / np.trace(left)
    assert np.abs(k.toarray() - model).max() < 1e-12 * np.abs(model).max()
    left, right = psd(6, 2, seed=3), psd(5, 3, seed=4)
    one, two = (np.linalg.cholesky(x + 1e-9 * np.eye(len(x))) for x in (left, right))
    # all vec(G) of L_i R_j^T together are a square root of the product
    exact = [np.outer(one[:, i], two[:, j]) for i in range(6) for j in range(5)]
    for given_source in (iter(exact), exact):
        k, info = nearest_kron(given_source, TWO, return_info=True)
        assert error_of(np.kron(one @ one.T, two @ two.T), k) < 1e-13
        assert info.residual < 1e-7


def test_streams_that_cannot_be_read():
    g = gaussian((6, 5))
    with pytest.raises(ValueError, match="'lanczos' cannot read a stream"):
        nearest_kron(iter([g]), TWO, method="lanczos")
    with pytest.raises(ValueError, match="no gradients"):
        nearest_kron(iter([]), TWO)
    with pytest.raises(ValueError, match=r"\(\.\.\., 6, 5\) by shapes, got \(5, 6\)"):
        nearest_kron([g, g.T], TWO)
    with pytest.raises(NonFiniteError, match="gradient holds NaN"):
        nearest_kron([g, g * np.nan], TWO)
    with pytest.raises(ValueError, match=r"must be \[\(m, m\), \(n, n\)\]"):
        nearest_kron([g], [(6, 5), (5, 5)])
    with pytest.raises(ValueError, match="known by an estimate only"):
        nearest_kron([g], TWO, None, tol=0.1)
    with pytest.raises(ValueError, match="'svd' is for arrays"):
        nearest_kron([g], TWO, method="svd")
    with pytest.raises(ValueError, match="at most 1 for method 'moments'"):
        nearest_kron(iter([g]), TWO, 2)
    with pytest.raises(ValueError, match="at most 25"):
        nearest_kron([g], TWO, 26)
    with pytest.raises(ValueError, match="must not be empty"):
        nearest_kron([g[:, :0]], [(6, 6), (0, 0)])
    late = [gaussian((6, 5), seed=i) for i in range(9)]
    with pytest.raises(NotConvergedError):
        nearest_kron(late, TWO, method="power", max_iter=1)
    with pytest.raises(NonFiniteError, match="too large"):
        nearest_kron([g, g * 1e200, g], TWO)
    for method in ("moments", "power", "lanczos"):
        assert nearest_kron([0 * g], TWO, method=method).toarray().max() == 0
    zero, info = nearest_kron(iter([0 * g]), TWO, return_info=True)
    assert zero.toarray().max() == info.residual == 0


# --- Libraries, batches, failures ----------------------------------------------------------------


def test_every_library(xp, dtype):
    """Methods and structure in the caller's library and dtype."""
    a = gaussian((2, 30, 30), dtype)
    a[1] = symmetric(30, dtype)
    best = [least_error(x, TWO, 1)[0] for x in a]
    for method in ("svd", "lanczos", "power"):
        k, info = nearest_kron(xp.asarray(a), TWO, method=method, return_info=True,
                               on_fail="warn")  # fmt: skip
        assert all(type(f) is type(xp.asarray(a)) for f in k.factors)
        assert k.factors[0].shape == (2, 6, 6)
        assert str(k.factors[1].dtype).endswith(dtype)
        assert np.abs(np.asarray(info.residual) - best).max() < 200 * EPS[dtype]
        f = np.asarray(k.factors[0])[1]
        assert (f == adjoint(f)).all() or (f == -f.T).all()
        assert type(info.singular_values) is type(xp.asarray(a))
    gradients = [xp.asarray(gaussian((6, 5), dtype, i)) for i in range(4)]
    assert type(nearest_kron(gradients, TWO).factors[0]) is type(gradients[0])
    three = nearest_kron(xp.asarray(a[1]), [(3, 3), (2, 2), (5, 5)], on_fail="warn")
    assert type(three.factors[2]) is type(gradients[0])


def test_large_arrays_of_a_strict_library():
    xp = pytest.importorskip("array_api_strict")
    a = gaussian((600, 700)) + 4 * np.kron(gaussian((20, 35)), gaussian((30, 20)))
    found = nearest_kron(xp.asarray(a), [(20, 35), (30, 20)], return_info=True)[1]
    same = nearest_kron(a, [(20, 35), (30, 20)], return_info=True)[1]
    assert abs(float(found.residual) - float(same.residual)) < 1e-13


def test_bad_members_leave_the_others_alone(monkeypatch):
    a = gaussian((4, 30, 30))
    a[1, 3, 4] = np.nan
    a[2, 0, 0] = np.inf
    good = nearest_kron(a[3], TWO)
    with pytest.raises(NonFiniteError, match=r"members \(1,\), \(2,\)") as caught:
        nearest_kron(a, TWO)
    assert caught.value.index == ((1,), (2,))
    with pytest.warns(ConvergenceWarning, match="NaN or infinity"):
        nearest_kron(a, TWO, on_fail="warn")
    for options in ({"on_fail": "nan"}, {"check_finite": False}):
        k, info = nearest_kron(a, TWO, return_info=True, **options)
        assert np.isnan(k.factors[0][1:3]).all()
        assert (k.factors[0][3] == good.factors[0]).all()
        assert info.converged.tolist() == [True, False, False, True]
    operator = aslinearoperator(np.full((30, 30), np.nan))
    with pytest.raises(NonFiniteError):
        nearest_kron(operator, TWO)
    monkeypatch.setattr(_rearranged, "_FORMED", 100)
    late = np.where(np.arange(30) > 20, np.nan, gaussian((30, 30)))
    for method, rank in (("lanczos", 1), ("lanczos", 2), ("power", 1)):
        with pytest.raises(NonFiniteError):
            nearest_kron(aslinearoperator(late), TWO, rank, method=method)


def test_too_few_steps_are_a_failure():
    a = gaussian((100, 100))
    with pytest.raises(NotConvergedError, match="max_iter") as caught:
        nearest_kron(a, [(10, 10), (10, 10)], max_iter=2, method="lanczos")
    assert np.isfinite(caught.value.result.toarray()).all()
    k = nearest_kron(a, [(10, 10), (10, 10)], max_iter=2, method="lanczos", on_fail="nan")
    assert np.isnan(k.toarray()).all()


@pytest.mark.parametrize(
    ("shape", "shapes"),
    [((0, 6), [(0, 2), (5, 3)]), ((4, 0), [(2, 0), (2, 1)]), ((0, 0), [(0, 0), (3, 3)])],
)
def test_empty_matrices(shape, shapes):
    k, info = nearest_kron(np.zeros(shape, "float32"), shapes, return_info=True)
    assert k.shape == shape
    assert k.dtype == "float32"
    assert info.residual == 0
    assert nearest_kron(np.zeros((0, 30, 30)), TWO).factors[0].shape == (0, 6, 6)


def test_the_seed_replays():
    a = gaussian((100, 100))
    shapes = [(10, 10), (10, 10)]
    first, info = nearest_kron(a, shapes, method="lanczos", rng=5, return_info=True)
    again = nearest_kron(a, shapes, method="lanczos", rng=info.seed)
    assert all((f == g).all() for f, g in zip(first.factors, again.factors, strict=True))


@pytest.mark.parametrize(
    ("shapes", "options", "error", "words"),
    [
        ([(6, 6), (5, 4)], {}, ValueError, r"make 6\*4 = 24 columns, but a has 30"),
        ([(6, 6)], {}, ValueError, "two or more"),
        (6, {}, TypeError, "must be a list"),
        ([(6, 6), 5], {}, ValueError, r"shapes\[1\]"),
        (TWO, {"rank": 26}, ValueError, "at most .* = 25"),
        (TWO, {"rank": 0}, ValueError, "at least 1"),
        (TWO, {"rank": None}, TypeError, "or tol="),
        (TWO, {"rank": None, "tol": 1e-16}, ValueError, "64 eps"),
        (TWO, {"method": "als"}, ValueError, "more than two"),
        (TWO, {"method": "moments"}, ValueError, "stream of gradients"),
        (TWO, {"rank": 2, "method": "power"}, ValueError, "one term"),
        (TWO, {"method": "qr"}, ValueError, "one of"),
        ([(2, 3), (3, 2), (5, 5)], {"rank": 2}, ValueError, r"two groups of them, shapes=\["),
        ([(2, 3), (3, 2), (5, 5)], {"method": "svd"}, ValueError, "take 'als'"),
        ([(2, 3), (15, 10)], {"assume_a": "her"}, ValueError, "square factors"),
    ],
)
def test_wrong_arguments(shapes, options, error, words):
    with pytest.raises(error, match=words):
        nearest_kron(np.eye(30), shapes, **options)


def test_wrong_matrices():
    with pytest.raises(TypeError, match="must be an array"):
        nearest_kron("a", TWO)
    with pytest.raises(ValueError, match="'svd' is for arrays"):
        nearest_kron(scipy.sparse.eye_array(30), TWO, method="svd")
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        nearest_kron(torch.eye(30, requires_grad=True), TWO)


def test_choices_and_explanations():
    assert choose_method(36, 25, 2)[0] == "svd"
    assert choose_method(900, 900, 2)[0] == "lanczos"
    assert choose_method(9, 25, 3)[0] == "als"
    assert choose_method(36, 25, 2, kind="once")[0] == "moments"
    assert choose_method(1 << 23, 25, 2, kind="stream")[0] == "power"
    for size in ("small", "medium"):
        args, kwargs = _nearest.sample(size, rng=0)
        told = explain_nearest_kron(*args, **kwargs)
        _, info = nearest_kron(*args, **kwargs, return_info=True)
        assert told.method == info.method
        assert told.flops > 0
    assert explain_nearest_kron([np.eye(3)], [(3, 3), (3, 3)]).method == "lanczos"
