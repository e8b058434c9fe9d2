"""Polar decomposition: an oracle of 50 digits, laws, shapes, scales, failures, libraries."""

import copy
import pickle

import numpy as np
import pytest
import scipy.linalg

import linalgk as lk
from linalgk import _config
from linalgk.matfun import _ops, _polar, _polar_steps

EPS = {d: float(np.finfo(d).eps) for d in ("float32", "float64", "complex64", "complex128")}
METHODS = ["svd", "newton", "qdwh", "gram"]
KERNEL = _ops.POLAR.implementations[0]


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def gaussian(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def unitary(m, n, dtype, seed):
    wide = np.result_type(dtype, np.float64)
    return np.linalg.qr(gaussian((m, n), wide, seed))[0]


def matrix(m, n, kappa, dtype="float64", seed=0):
    """Singular values in a geometric sequence from 1 to 1/kappa."""
    p = min(m, n)
    left, right = unitary(m, p, dtype, seed), unitary(n, p, dtype, seed + 1)
    return ((left * np.geomspace(1, 1 / kappa, p)) @ adjoint(right)).astype(dtype)


def oracle(a):
    """U and H to 50 digits, rounded, and the two smallest singular values."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):
        entries = mpmath.matrix(a.astype(np.result_type(a, np.float64)).tolist())
        svd = mpmath.svd_c if np.iscomplexobj(a) else mpmath.svd_r
        w, s, vh = svd(entries)
        u, h = w * vh, vh.H * mpmath.diag(s) * vh
        wide = np.result_type(a, np.float64)

        def rounded(x):
            rows = [[complex(x[i, j]) for j in range(x.cols)] for i in range(x.rows)]
            x = np.array(rows)
            return x.astype(wide) if np.iscomplexobj(a) else x.real.astype(wide)

        return rounded(u), rounded(h), sorted(float(x) for x in s)


def check(a, result, side="right", factor=20.0):
    """The laws that hold whatever the condition, at the level of rounding."""
    u, h = result
    (m, n), eps = a.shape[-2:], EPS[a.dtype.name]
    wide = np.result_type(a, np.float64)
    a, u, h = (x.astype(wide) for x in (a, u, h))
    level = factor * eps * max(min(m, n), 4) ** 0.5
    product = u @ h if side == "right" else h @ u
    norm = np.linalg.norm(a, axis=(-2, -1))
    assert (np.linalg.norm(product - a, axis=(-2, -1)) <= level * norm).all()
    gram = adjoint(u) @ u if m >= n else u @ adjoint(u)
    gap = np.linalg.norm(gram - np.eye(min(m, n)), axis=(-2, -1))
    assert (gap <= level * min(m, n) ** 0.5).all()
    np.testing.assert_array_equal(h, adjoint(h))
    assert h.shape[-1] == (n if side == "right" else m)
    assert (np.linalg.eigvalsh(h)[..., 0] >= -level * norm).all()


# ---- oracles ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kappa", [1.0, 1e3, 1e6])
@pytest.mark.parametrize(("m", "n"), [(5, 5), (8, 4)])
def test_against_fifty_digits(method, kappa, m, n, dtype):
    a = matrix(m, n, kappa, dtype)
    want_u, want_h, s = oracle(a)
    u, h = lk.polar(a, method=method)
    eps, norm = EPS[dtype], np.linalg.norm(a)
    check(a, (u, h), factor=60 if method == "gram" else 20)
    # Li (1995): real square matrices are better off than all others
    distance = s[0] + s[1] if m == n and np.isrealobj(a) else 2 * s[0]
    noise = 10 * (n if method == "gram" else 1)
    assert np.linalg.norm(u - want_u) <= noise * eps * 2 * norm / distance
    assert np.linalg.norm(h - want_h) <= noise * eps * norm


@pytest.mark.parametrize("method", ["svd", "newton", "qdwh"])
@pytest.mark.parametrize("kappa", [1e9, 1e12, 1e15])
@pytest.mark.parametrize(("m", "n"), [(40, 40), (200, 30)])
def test_backward_stable_at_any_condition(method, kappa, m, n):
    a = matrix(m, n, kappa)
    result = lk.polar(a, method=method)
    check(a, result)
    assert result.info.residual <= 100 * EPS["float64"]
    assert result.info.error_estimate >= 1e-17 * kappa


@pytest.mark.parametrize("shape", [(70, 70), (500, 30), (30, 500)])
def test_as_scipy(shape, dtype):
    a = gaussian(shape, dtype)
    for side in ("right", "left"):
        want = scipy.linalg.polar(a, side=side)
        got = lk.polar(a, side=side)
        kappa = np.linalg.cond(a)
        for x, y in zip(got, want, strict=True):
            assert np.linalg.norm(x - y) <= 50 * EPS[dtype] * kappa * np.linalg.norm(y)


# ---- laws ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (7, 3), (3, 7), (1, 4), (4, 1), (2, 3, 4, 4)])
def test_factors(method, side, shape, dtype):
    a = gaussian(shape, dtype)
    result = lk.polar(a, side=side, method=method)
    check(a, result, side, factor=200 if method == "gram" else 20)
    assert result.U.shape == shape
    assert result.U.dtype == result.H.dtype == a.dtype
    assert result.info.residual.shape == shape[:-2]
    assert result.info.converged.all()


@pytest.mark.parametrize("shape", [(70, 70), (200, 40), (40, 200)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_larger_matrices(shape, side, dtype):
    a = gaussian(shape, dtype)
    result = lk.polar(a, side=side)
    assert result.info.method == "newton"
    check(a, result, side)
    assert result.info.iterations >= 2


def test_matrices_for_which_blas_has_the_threads():
    a = gaussian((300, 300))
    result = lk.polar(a)
    check(a, result)
    assert not _polar_steps.is_serial(a)
    with lk.config_context(num_threads=1):
        check(a, lk.polar(a, side="left"), "left")


def test_left_and_right_have_one_unitary_factor():
    a = gaussian((9, 9))
    (u, h), (v, k) = lk.polar(a), lk.polar(a, side="left")
    np.testing.assert_allclose(u, v, atol=1e-14)
    np.testing.assert_allclose(k, u @ h @ u.T, atol=1e-13)
    w, g = lk.polar(a.T)
    np.testing.assert_allclose(w, u.T, atol=1e-14)
    np.testing.assert_allclose(g, k, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_unitary_invariance(method):
    a = gaussian((12, 7), "complex128")
    p, q = unitary(12, 12, "complex128", 5), unitary(7, 7, "complex128", 6)
    (u, h), (v, k) = lk.polar(a, method=method), lk.polar(p @ a @ q, method=method)
    np.testing.assert_allclose(v, p @ u @ q, atol=1e-13)
    np.testing.assert_allclose(k, adjoint(q) @ h @ q, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_unitary_and_definite_matrices_are_their_own_factors(method):
    q = unitary(8, 8, "float64", 1)
    u, h = lk.polar(q, method=method)
    np.testing.assert_allclose(u, q, atol=1e-14)
    np.testing.assert_allclose(h, np.eye(8), atol=1e-14)
    a = lk.testing.spd_matrix(8, 10.0)
    u, h = lk.polar(a, method=method)
    np.testing.assert_allclose(u, np.eye(8), atol=1e-13)
    np.testing.assert_allclose(h, a, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(7, 7), (90, 90), (9, 4), (4, 9)])
def test_powers_of_two_pass_through(method, shape, dtype):
    """To the bit, near the ends of the range as well."""
    a = matrix(*shape, 10.0, dtype)
    u, h = lk.polar(a, method=method)
    top = 120 if np.finfo(dtype).bits == 32 else 1000
    for power in (-top + 30, -17, 1, 40, top):
        scale = np.ldexp(np.ones((), a.real.dtype), power)
        v, k = lk.polar(a * scale, method=method)
        np.testing.assert_array_equal(v, u)
        np.testing.assert_array_equal(k, h * scale)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_extreme_sizes(size):
    a = gaussian((80, 80)) / 80
    u, h = lk.polar(a * size)
    check(a, (u, h / size))


# ---- singular matrices ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", [(5, 5), (7, 4), (4, 7), (80, 80)])
def test_rank_deficient(method, side, shape, dtype):
    m, n = shape
    a = (gaussian((m, 2), dtype) @ gaussian((2, n), dtype, 1)).astype(dtype)
    result = lk.polar(a, side=side, method=method)
    check(a, result, side)
    assert np.isinf(result.info.error_estimate)
    assert result.info.converged


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (5, 3), (70, 70)])
def test_zero(method, shape, dtype):
    result = lk.polar(np.zeros(shape, dtype), method=method)
    check(np.zeros(shape, dtype), result)
    assert not result.H.any()
    assert np.isinf(result.info.error_estimate)


@pytest.mark.parametrize("kind", ["triangle", "graded", "hilbert", "one", "wilkinson"])
def test_matrices_that_are_hard_for_factors(kind):
    n = 70
    a = {
        "triangle": 2 * np.eye(n) - np.triu(np.ones((n, n))),
        "graded": gaussian((n, n)) * np.geomspace(1, 1e-12, n),
        "hilbert": scipy.linalg.hilbert(n),
        "one": np.ones((n, n)),
        "wilkinson": np.eye(n) - np.tril(np.ones((n, n)), -1),
    }[kind]
    if kind == "wilkinson":
        a[:, -1] = 1
    result = lk.polar(a)
    check(a, result)
    assert result.info.residual <= 100 * EPS["float64"]


def test_a_singular_member_changes_no_other():
    a = gaussian((5, 80, 80))
    want = lk.polar(a)
    a[2] = 0
    result = lk.polar(a)
    assert result.info.method == "newton+svd"
    for k in (0, 1, 3, 4):
        np.testing.assert_array_equal(result.U[k], want.U[k])
        np.testing.assert_array_equal(result.H[k], want.H[k])
    check(a[2], (result.U[2], result.H[2]))
    assert np.isinf(result.info.error_estimate).tolist() == [False, False, True, False, False]


# ---- batches, layouts, empty ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(7, 4, 4), (3, 90, 40), (3, 40, 90), (3, 72, 72)])
def test_a_member_does_not_see_the_batch_or_the_threads(method, shape):
    a = gaussian(shape, "float32")
    whole = lk.polar(a, method=method)
    with lk.config_context(num_threads=1):
        alone = [lk.polar(x, method=method) for x in a]
    for k, one in enumerate(alone):
        np.testing.assert_array_equal(whole.U[k], one.U)
        np.testing.assert_array_equal(whole.H[k], one.H)


@pytest.mark.parametrize("method", METHODS)
def test_layouts(method):
    a = gaussian((2, 10, 6))
    want = lk.polar(a, method=method)
    for y in (np.asfortranarray(a), a[::-1][::-1], np.repeat(a, 2, axis=-1)[..., ::2]):
        y.flags.writeable = False
        got = lk.polar(y, method=method)
        np.testing.assert_array_equal(got.U, want.U)
        np.testing.assert_array_equal(got.H, want.H)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 4, 0), (0, 0)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_empty(shape, side, dtype):
    result = lk.polar(np.zeros(shape, dtype), side=side)
    order = shape[-1] if side == "right" else shape[-2]
    assert result.U.shape == shape
    assert result.H.shape == (*shape[:-2], order, order)
    assert result.U.dtype == result.H.dtype == np.dtype(dtype)
    assert result.info.converged.shape == shape[:-2]


def test_integers_and_nested_numbers():
    u, h = lk.polar([[0, -2], [1, 0]])
    assert u.dtype == np.float64
    np.testing.assert_allclose(u, [[0, -1], [1, 0]], atol=1e-15)
    np.testing.assert_allclose(h, [[1, 0], [0, 2]], atol=1e-15)


def test_double_precision_inside():
    a = matrix(30, 30, 1e5, "float32")
    want, _ = lk.polar(a.astype(np.float64))
    got = lk.polar(a, compute_dtype="float64")
    assert got.U.dtype == got.H.dtype == np.float32
    assert np.abs(got.U - want).max() <= EPS["float32"]
    assert np.abs(lk.polar(a, method="newton").U - want).max() > 10 * EPS["float32"]


# ---- bad input ----


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(4, 5), (72, 72)])
def test_a_bad_member_leaves_the_others(method, bad, shape):
    a = gaussian((2, 2, *shape))
    good = lk.polar(a, method=method)
    a[0, 1, 2, 3] = bad
    with pytest.raises(lk.errors.NonFiniteError, match="a holds NaN or infinity") as caught:
        lk.polar(a, method=method)
    assert caught.value.index == ((0, 1),)
    for result in (caught.value.result, lk.polar(a, method=method, on_fail="nan")):
        for x, y in zip(result, good, strict=True):
            assert np.isnan(x[0, 1]).all()
            np.testing.assert_array_equal(x[1], y[1])
            np.testing.assert_array_equal(x[0, 0], y[0, 0])
        assert result.info.converged.tolist() == [[True, False], [True, True]]
        assert np.isnan(result.info.residual[0, 1])
    with pytest.warns(lk.errors.ConvergenceWarning, match=r"\(0, 1\)"):
        lk.polar(a, method=method, on_fail="warn")
    assert np.isnan(lk.polar(a, method=method, check_finite=False).U[0, 1]).all()


def test_a_factor_out_of_range_is_told():
    a = np.finfo(np.float32).max * np.float32([[1, 1], [1, -1]])
    with pytest.raises(lk.errors.NotConvergedError, match="range of float32"):
        lk.polar(a)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"side": "both"}, ValueError, "side: must be one of 'right', 'left'"),
        ({"method": "fast"}, ValueError, "method: must be one of"),
        ({"on_fail": "maybe"}, ValueError, "on_fail"),
        ({"compute_dtype": "complex128"}, ValueError, "compute_dtype"),
    ],
)
def test_bad_options(options, kind, words):
    with pytest.raises(kind, match=words):
        lk.polar(np.eye(3), **options)


def test_bad_arrays():
    with pytest.raises(ValueError, match=r"a: must have shape \(..., m, n\), got \(3,\)"):
        lk.polar(np.ones(3))
    with pytest.raises(TypeError, match="a: dtype must be"):
        lk.polar(np.array([["a"]]))


# ---- results ----


def test_a_result_is_a_pair_that_can_be_copied():
    result = lk.polar(gaussian((3, 4, 4)))
    u, h = result
    assert u is result.U
    assert h is result.H
    assert repr(result).startswith("Polar(U=array(")
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        np.testing.assert_array_equal(again.H, h)
        np.testing.assert_array_equal(again.info.residual, result.info.residual)
        assert again.info.method == result.info.method


def test_the_residual_is_what_is_left_of_a():
    """Also where it is not rounding: the estimates have to grow with it."""
    a = matrix(60, 60, 1e2)
    for method in METHODS:
        u, h = result = lk.polar(a, method=method)
        left = np.linalg.norm(a - u @ h) / np.linalg.norm(a)
        assert abs(left - result.info.residual) <= 20 * EPS["float64"]
        want = lk.polar(a, method="svd").U
        assert np.linalg.norm(u - want) <= 20 * 60**0.5 * float(result.info.error_estimate)


# ---- libraries ----


@pytest.mark.parametrize(
    ("dtype", "method"),
    [("float32", "auto"), ("complex128", "auto"), ("float64", "qdwh"), ("complex64", "qdwh")],
)
def test_libraries(xp, dtype, method):
    a = matrix(6, 4, 10.0, dtype)[None]
    want = lk.polar(a)
    got = lk.polar(xp.asarray(a), method=method)
    for x, y in zip(got, want, strict=True):
        assert type(x) is type(xp.asarray(a))
        np.testing.assert_allclose(np.asarray(x), y, atol=1e3 * EPS[dtype])
    for x in (got.info.residual, got.info.converged, got.info.error_estimate):
        assert type(x) is type(xp.asarray(a))
        assert tuple(x.shape) == (1,)


def test_newton_needs_lapack():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(ValueError, match="use 'qdwh'"):
        lk.polar(strict.asarray(np.eye(3)), method="newton")


def test_jax_under_jit_and_vmap():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    q = jax.vmap(lambda c: lk.polar(c))(jax.numpy.ones((7, 3, 3)))
    assert q.U.shape == q.H.shape == (7, 3, 3)
    assert q.info.residual.shape == (7,)
    a = gaussian((4, 6, 3))
    want = lk.polar(a)
    for run, method in ((jax.jit, "qdwh"), (jax.vmap, "svd"), (jax.vmap, "gram")):
        got = run(lambda x, method=method: lk.polar(x, method=method))(jax.numpy.asarray(a))
        np.testing.assert_allclose(got.U, want.U, atol=1e-13)
        np.testing.assert_allclose(got.H, want.H, atol=1e-13)
        assert np.asarray(got.info.converged).all()
    leaves, tree = jax.tree_util.tree_flatten(q)
    assert len(leaves) == 6
    assert jax.tree_util.tree_unflatten(tree, leaves).info.method == "svd"


def test_jax_says_where_a_traced_method_fails():
    jax = pytest.importorskip("jax")
    a = jax.numpy.asarray(np.stack([np.eye(3), np.zeros((3, 3)), np.full((3, 3), np.nan)]))
    for method, good in (("svd", [True, True, False]), ("qdwh", [True, False, False])):
        got = jax.jit(lambda x, method=method: lk.polar(x, method=method))(a)
        assert np.asarray(got.info.converged).tolist() == good
        assert np.isfinite(np.asarray(got.U)).all(axis=(1, 2)).tolist() == good


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 9, 4), (2, 4, 9)])
def test_on_a_device(cuda, shape, dtype):
    a = gaussian(shape, dtype)
    want = lk.polar(a)
    if cuda.looks is not None:
        cuda.looks = 0
    got = lk.polar(cuda.array(a))
    if cuda.looks is not None:
        assert cuda.looks == 1
    assert got.info.method == "qdwh"
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(cuda.host(x), y, atol=1e3 * EPS[dtype])
    if cuda.looks is not None:
        cuda.looks = 0
    blind = lk.polar(cuda.array(a), on_fail="nan")
    if cuda.looks is not None:
        assert cuda.looks == 0
    assert blind.info.method == "svd"
    np.testing.assert_allclose(cuda.host(blind.U), want.U, atol=1e3 * EPS[dtype])


def test_bad_and_singular_members_on_a_device(cuda):
    a = gaussian((4, 5, 5))
    want = lk.polar(a)
    a[1], a[2, 0, 0] = 0, np.nan
    with pytest.raises(lk.errors.NonFiniteError, match=r"batch members \(2,\)") as caught:
        lk.polar(cuda.array(a))
    result = caught.value.result
    assert result.info.method == "qdwh+svd"
    u, h = (cuda.host(x) for x in result)
    check(a[1], (u[1], h[1]))
    assert np.isnan(u[2]).all()
    np.testing.assert_allclose(u[[0, 3]], want.U[[0, 3]], atol=1e-12)


# ---- choice, kernels ----


@pytest.mark.parametrize(
    ("m", "n", "family", "looks", "method"),
    [
        (8, 8, "numpy", True, "svd"),
        (66, 66, "numpy", True, "svd"),
        (67, 67, "numpy", True, "newton"),
        (8, 20000, "numpy", True, "newton"),
        (67, 67, "cupy", True, "qdwh"),
        (67, 67, "cupy", False, "svd"),
        (500, 500, "array_api", True, "svd"),
    ],
)
def test_choice_rule(m, n, family, looks, method):
    assert _polar.choose_method(m, n, family, looks=looks)[0] == method


def test_explain():
    e = _polar.explain(np.ones((300, 300)))
    assert e.method == "newton"
    assert "matfun_qdwh" in e.implementations["polar"]
    assert e.flops < _polar.explain(np.ones((300, 300)), method="svd").flops
    assert _polar.explain(np.ones((3, 3)), method="gram").reason == "it was asked for"
    with lk.config_context(backend="reference"):
        assert "reference" in _polar.explain(np.ones((300, 300))).implementations["polar"]


def test_the_reference_serves_every_method():
    a = gaussian((2, 90, 80))
    want = lk.polar(a)
    with lk.config_context(backend="reference"):
        for method in METHODS:
            got = lk.polar(a, method=method)
            np.testing.assert_allclose(got.U, want.U, atol=1e-11)
            np.testing.assert_allclose(got.H, want.H, atol=1e-11)


@pytest.mark.parametrize("symbol", ["polar", "polar_svd"])
@pytest.mark.parametrize("left", [False, True])
def test_kernels_are_the_reference(symbol, left, dtype):
    kernel = KERNEL.load(symbol)
    for shape in ((3, 7, 7), (2, 30, 11)):
        a = gaussian(shape, dtype)
        u, h, report = kernel(a, left, 2)
        want = _ops.polar(a, left)
        for x, y in ((u, want[0]), (h, want[1])):
            assert x.dtype == np.dtype(dtype)
            assert np.linalg.norm(x - y) <= 1e3 * EPS[dtype] * np.linalg.norm(y)
        assert (report[:, 3] == 0).all()
        # an estimate of a bound: not far above and not far below
        assert (report[:, 1] <= want[2][:, 1] * 1.5).all()
        assert (report[:, 1] >= want[2][:, 1] / 4).all()


@pytest.mark.parametrize("kappa", [1.2, 10.0, 1e3, 1e6, 1e9, 1e13])
def test_every_way_through_the_kernel(kappa, dtype):
    """Steps of all kinds and polynomials of all degrees, alone and after Cholesky factors."""
    kappa = kappa if EPS[dtype] < 1e-10 else kappa**0.35
    for m, n in ((90, 90), (500, 30)):
        a = matrix(m, n, kappa, dtype)[None]
        with _config.serial_blas:
            u, h, report = KERNEL.load()(a, False, 1)
        assert report[0, 3] == 0
        check(a, (u, h))


def test_weights_are_those_of_the_paper():
    """Nakatsukasa, Bai and Gygi (2010): six steps from 1e-16, two of them with QR factors."""
    bound, eps, weights = np.array([EPS["float64"]]), EPS["float64"], []
    while bound[0] < 1 - eps:
        (a, b, c), bound = _polar_steps._weights(bound, eps)
        assert b[0] == (a[0] - 1) ** 2 / 4
        weights.append(float(c[0]))
    assert len(weights) == 6
    assert [c > _polar_steps.MOST_WEIGHT for c in weights] == [True, True, *[False] * 4]
    assert abs(weights[-1] - 3) < 1e-6
