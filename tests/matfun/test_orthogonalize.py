"""Approximate polar factors: what each family does to singular values, at any scale and shape."""

import ml_dtypes
import numpy as np
import pytest

import linalgk as lk
from linalgk.matfun import _coefficients, _ops
from linalgk.matfun._orthogonalize import COEFFS, MOST_GRAM, choose_method

ODD = ["muon", "you", "polar_express", "cans", "prism"]


def matrix(m, n, sigma, dtype="float64", batch=(), seed=0):
    rng = np.random.default_rng(seed)
    k = min(m, n)

    def normal(shape):
        x = rng.standard_normal((*batch, *shape))
        return x + 1j * rng.standard_normal(x.shape) if np.dtype(dtype).kind == "c" else x

    u, _ = np.linalg.qr(normal((m, k)))
    v, _ = np.linalg.qr(normal((n, k)))
    return ((u * sigma) @ np.conj(np.swapaxes(v, -1, -2))).astype(dtype)


def polar_factor(x):
    u, _, vh = np.linalg.svd(x.astype(np.result_type(x, np.float64)), full_matrices=False)
    return u @ vh


def through(coeffs, x):
    """What the polynomials make of singular values."""
    for a, b, c in coeffs:
        x = x * (a + x**2 * (b + x**2 * c))
    return x


@pytest.mark.parametrize("name", ["muon", "you", "polar_express", "cans"])
@pytest.mark.parametrize("method", ["plain", "gram"])
@pytest.mark.parametrize(("m", "n"), [(12, 12), (9, 40), (40, 9)])
def test_singular_values_go_through_the_polynomials(name, method, m, n, dtype):
    """Vectors stay and values follow the scalar recurrence: the whole definition."""
    sigma = np.geomspace(1e-2, 1, min(m, n))
    x = matrix(m, n, sigma, dtype)
    got = lk.orthogonalize(x, coeffs=name, method=method)
    norm = np.linalg.norm(sigma)
    if name == "polar_express":
        gram = x.astype(np.result_type(x, np.float64))
        gram = gram @ gram.conj().T if m <= n else gram.conj().T @ gram
        norm = min(np.linalg.norm(gram), np.abs(gram).sum(axis=1).max()) ** 0.5
    u, s, vh = np.linalg.svd(x.astype(np.result_type(x, np.float64)), full_matrices=False)
    want = (u * through(_coefficients.named(name, 5), s / norm)) @ vh
    assert got.dtype == x.dtype
    # a Gram matrix has lost what lies below eps^(1/2), which five steps multiply by up to 500^2
    growth = 500**2 if method == "gram" else 500
    assert np.linalg.norm(got - want) <= 10 * growth * np.finfo(dtype).eps * np.linalg.norm(want)


def reach(name, least=0.05):
    """Where five steps take singular values between ``least`` times the norm and the norm."""
    if name == "prism":  # the fit of a sketch may overshoot a little
        return 0.5, 1.2
    ends = through(_coefficients.named(name, 5), np.linspace(least, 1, 20001))
    return ends.min() - 1e-6, ends.max() + 1e-6


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("method", ["plain", "gram"])
def test_large_singular_values_end_near_one(name, method):
    sigma = np.geomspace(0.2, 1, 20)
    u = lk.orthogonalize(matrix(20, 30, sigma), coeffs=name, method=method, steps=5)
    s = np.linalg.svd(u, compute_uv=False)
    low, high = reach(name)
    assert low <= s.min()
    assert s.max() <= high


@pytest.mark.parametrize("name", ODD)
def test_eight_decades_of_singular_values(name):
    """Small values grow and none is lost, exceeds its bound or turns around."""
    sigma = np.geomspace(1e-8, 1, 33)
    x = matrix(33, 33, sigma)
    got = lk.orthogonalize(x, coeffs=name, steps=5)
    u, s, vh = np.linalg.svd(x)
    ends = np.real(np.einsum("ij,ij->j", u.conj(), got @ vh.conj().T))
    # noise of the matrix, eps times its norm, grows like the values themselves
    assert (ends > -1e-12).all()
    assert ends.max() <= reach(name, 0.0)[1]
    norm = np.linalg.norm(s)
    assert (ends >= 0.99 * s / norm).all()


@pytest.mark.parametrize("tol", [1e-3, 1e-8, None])
@pytest.mark.parametrize(("m", "n"), [(16, 16), (10, 60)])
def test_minimax_converges_to_the_polar_factor(tol, m, n):
    x = matrix(m, n, np.geomspace(1e-4, 1, min(m, n)))
    u, info = lk.orthogonalize(x, coeffs="minimax", tol=tol, return_info=True)
    # eps over the square of the smallest value is 2e-8: what a Gram matrix knows of its vectors
    assert np.abs(u - polar_factor(x)).max() <= (tol or 0) + 1e-8
    assert float(info.residual) <= 2.5 * (tol or 0) + 1e-9
    assert info.method == "minimax"


def test_published_polar_express_coefficients():
    """Amsel et al., arXiv:2505.16932, section 4: to all printed digits."""
    table = _coefficients.polar_express(8)
    np.testing.assert_allclose(
        table[0], (8.28721201814563, -23.595886519098837, 17.300387312530933), rtol=1e-12
    )
    np.testing.assert_allclose(
        table[4], (2.300652019954817, -1.6689039845747493, 0.4188073119525673), rtol=1e-12
    )
    np.testing.assert_allclose(table[7], (1.875, -1.25, 0.375), rtol=1e-9)


def test_safety_keeps_arguments_that_are_too_large_in_check():
    safe = _coefficients.named("polar_express", 6, 1.05)
    assert through(safe, np.linspace(1.0, 1.05, 50)).max() < 1.1


@pytest.mark.parametrize("name", COEFFS)
@pytest.mark.parametrize("power", [-100, 99])
def test_the_scale_of_a_matrix_changes_no_bit(name, power):
    """At 1e-30 and 1e30, in single precision."""
    x = matrix(8, 12, np.geomspace(0.1, 1, 8), "float32", (2,))
    want = lk.orthogonalize(x, coeffs=name)
    np.testing.assert_array_equal(lk.orthogonalize(x * np.float32(2.0**power), coeffs=name), want)


@pytest.mark.parametrize("name", COEFFS)
def test_zero_matrices_give_zeros(name, dtype):
    x = np.zeros((3, 4, 6), dtype)
    x[1] = matrix(4, 6, np.ones(4), dtype)
    got, info = lk.orthogonalize(x, coeffs=name, return_info=True)
    assert not got[[0, 2]].any()
    assert got[1].any()
    assert info.converged.all()


def test_rank_deficient_matrices_keep_their_null_space():
    x = matrix(10, 10, np.r_[np.ones(6), np.zeros(4)])
    u = lk.orthogonalize(x, coeffs="minimax", tol=1e-10)
    assert np.linalg.matrix_rank(u, tol=1e-3) == 6
    np.testing.assert_allclose(u @ u.T @ u, u, atol=1e-8)


def test_auon_is_the_matrix_times_a_number():
    """ryyzn9/AuON's formula, with relative scaling."""
    g = matrix(6, 9, np.linspace(0.1, 1, 6))
    unit = 1.5 * g / np.linalg.norm(g)
    want = unit / (np.sqrt(np.mean(np.cosh(unit) ** 2)) + 1e-8)
    np.testing.assert_allclose(lk.orthogonalize(g, coeffs="auon"), want, rtol=1e-12)
    a, b, c = _coefficients.PUBLISHED["muon"][0]
    gram = want @ want.T
    want = a * want + (b * gram + c * gram @ gram) @ want
    np.testing.assert_allclose(lk.orthogonalize(g, coeffs="hybrid_auon"), want, rtol=1e-10)


def test_aol_scales_rows_to_norm_at_most_one():
    g = matrix(6, 9, np.linspace(0.1, 1, 6))
    rows = np.abs(g @ g.T).sum(axis=1)
    x = g / np.sqrt(rows)[:, None]
    assert np.linalg.norm(x, 2) <= 1 + 1e-12
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    want = (u * through(_coefficients.named("aol", 4), s)) @ vh
    np.testing.assert_allclose(lk.orthogonalize(g, coeffs="aol", steps=4), want, atol=1e-11)


def test_prism_fits_better_than_its_ends():
    """No worse than Newton-Schulz (alpha = 3/8), on whose polynomials it improves."""
    g = matrix(40, 40, np.geomspace(1e-2, 1, 40))
    plain = np.array([15, -10, 3]) / 8
    _, prism = lk.orthogonalize(g, coeffs="prism", steps=6, return_info=True)
    _, newton = lk.orthogonalize(g, coeffs=plain, steps=6, return_info=True)
    assert prism.residual < newton.residual


@pytest.mark.parametrize("form", ["plain", "gram"])
def test_more_steps_than_a_block(form):
    x = matrix(8, 30, np.geomspace(0.05, 1, 8))
    plain = np.array([15, -10, 3]) / 8
    u = lk.orthogonalize(x, coeffs=plain, steps=2 * MOST_GRAM + 3, method=form)
    np.testing.assert_allclose(u, polar_factor(x), atol=1e-10)


def test_explicit_triples():
    x = matrix(5, 5, np.linspace(0.3, 1, 5))
    rows = [[3.0, -3.0, 1.0], [1.875, -1.25, 0.375]]
    two = lk.orthogonalize(x, coeffs=rows)
    np.testing.assert_array_equal(two, lk.orthogonalize(x, coeffs=np.array(rows), steps=2))
    np.testing.assert_array_equal(
        lk.orthogonalize(x, coeffs=rows, steps=4),
        lk.orthogonalize(x, coeffs=[rows[0], rows[1], rows[1], rows[1]]),
    )


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_comes_back_as_it_came(half):
    kind = np.dtype(getattr(ml_dtypes, half, half))
    x = matrix(6, 8, np.linspace(0.3, 1, 6)).astype(kind)
    u = lk.orthogonalize(x)
    assert u.dtype == kind
    want = lk.orthogonalize(x.astype(np.float32)).astype(kind)
    np.testing.assert_array_equal(u, want)
    torch = pytest.importorskip("torch")
    t = torch.tensor(x.astype(np.float32)).to(getattr(torch, half))
    y = lk.orthogonalize(t)
    assert y.dtype == t.dtype
    np.testing.assert_array_equal(y.float().numpy(), want.astype(np.float32))


def test_libraries(xp, dtype):
    x = matrix(5, 9, np.linspace(0.2, 1, 5), dtype, (2,))
    want = lk.orthogonalize(x)
    got, info = lk.orthogonalize(xp.asarray(x), return_info=True)
    assert type(got) is type(xp.asarray(x))
    np.testing.assert_allclose(np.asarray(got), want, atol=2e3 * np.finfo(dtype).eps)
    assert type(info.residual) is type(xp.asarray(x))


def test_jax_under_jit_and_vmap():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    x = matrix(5, 9, np.linspace(0.2, 1, 5), "float64", (4,))
    want = lk.orthogonalize(x)
    got = jax.jit(lambda a: lk.orthogonalize(a))(jax.numpy.asarray(x))
    np.testing.assert_allclose(got, want, atol=1e-12)
    got = jax.vmap(lambda a: lk.orthogonalize(a, coeffs="muon"))(jax.numpy.asarray(x))
    np.testing.assert_allclose(got, lk.orthogonalize(x, coeffs="muon"), atol=1e-12)


def test_jax_hands_info_through_jit():
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(matrix(5, 9, np.linspace(0.2, 1, 5)))
    u, info = jax.jit(lambda a: lk.orthogonalize(a, return_info=True))(x)
    assert u.shape == (5, 9)
    assert bool(info.converged)


@pytest.mark.parametrize("name", ["polar_express", "prism", "auon", "aol"])
def test_on_a_device(cuda, name):
    x = matrix(6, 40, np.linspace(0.2, 1, 6), "float64", (3,))
    want = lk.orthogonalize(x, coeffs=name)
    if cuda.looks is not None:
        cuda.looks = 0
    got = lk.orthogonalize(cuda.array(x), coeffs=name, on_fail="nan")
    if cuda.looks is not None:
        assert cuda.looks == 0
        assert cuda.layer.launched or name == "auon"
    np.testing.assert_allclose(cuda.host(got), want, atol=1e-11)
    x[1, 0, 0] = np.nan
    with pytest.raises(lk.errors.NonFiniteError, match=r"batch members \(1,\)"):
        lk.orthogonalize(cuda.array(x), coeffs=name)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", COEFFS)
def test_a_bad_member_leaves_the_others(name, bad):
    x = matrix(4, 5, np.ones(4), "float64", (2, 2))
    good = lk.orthogonalize(x, coeffs=name)
    x[0, 1, 2, 3] = bad
    with pytest.raises(lk.errors.NonFiniteError, match="NaN or infinity") as caught:
        lk.orthogonalize(x, coeffs=name)
    assert caught.value.index == ((0, 1),)
    for y in (caught.value.result, lk.orthogonalize(x, coeffs=name, on_fail="nan")):
        assert np.isnan(y[0, 1]).all()
        np.testing.assert_array_equal(y[1], good[1])
        np.testing.assert_array_equal(y[0, 0], good[0, 0])
    with pytest.warns(lk.errors.ConvergenceWarning):
        lk.orthogonalize(x, coeffs=name, on_fail="warn")


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 4, 0), (0, 0)])
@pytest.mark.parametrize("name", COEFFS)
def test_empty(name, shape):
    got = lk.orthogonalize(np.zeros(shape, np.float32), coeffs=name)
    assert got.shape == shape
    assert got.dtype == np.float32


def test_layouts_and_out():
    x = matrix(20, 6, np.linspace(0.2, 1, 6), "float64", (3,))
    want = lk.orthogonalize(x)
    for y in (np.asfortranarray(x), x[::-1][::-1], np.repeat(x, 2, axis=-1)[..., ::2]):
        y.flags.writeable = False
        np.testing.assert_array_equal(lk.orthogonalize(y), want)
    out = np.empty_like(x)
    assert lk.orthogonalize(x, out=out) is out
    np.testing.assert_array_equal(out, want)
    with pytest.raises(ValueError, match="overlaps"):
        lk.orthogonalize(x, out=x)


def test_a_member_does_not_see_the_batch_or_the_threads():
    x = matrix(12, 18, np.geomspace(0.01, 1, 12), "float32", (7,))
    whole = lk.orthogonalize(x)
    with lk.config_context(num_threads=1):
        np.testing.assert_array_equal(lk.orthogonalize(x), whole)
    for k in range(7):
        np.testing.assert_array_equal(lk.orthogonalize(x[k]), whole[k])


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"coeffs": "moun"}, ValueError, "coeffs: must be one of 'muon'"),
        ({"coeffs": [1.0, 2.0]}, ValueError, "finite triples"),
        ({"coeffs": [1.0, np.nan, 2.0]}, ValueError, "finite triples"),
        ({"steps": 0}, ValueError, "steps: must be at least 1"),
        ({"steps": 2.5}, TypeError, "steps: must be an integer"),
        ({"tol": 1e-3, "steps": 3}, ValueError, "give one of them"),
        ({"tol": 1e-3, "coeffs": "muon"}, ValueError, "only coeffs='minimax'"),
        ({"coeffs": "auon", "steps": 2}, ValueError, "has none"),
        ({"method": "fast"}, ValueError, "method: must be one of"),
        ({"on_fail": "maybe"}, ValueError, "on_fail"),
    ],
)
def test_bad_options(options, kind, words):
    with pytest.raises(kind, match=words):
        lk.orthogonalize(np.eye(3), **options)


def test_bad_arrays():
    with pytest.raises(ValueError, match=r"g: must have shape \(..., m, n\)"):
        lk.orthogonalize(np.ones(3))
    with pytest.raises(TypeError, match="g: dtype must be"):
        lk.orthogonalize(np.array([["a"]]))


def test_explain():
    assert lk.explain(lk.orthogonalize, np.ones((64, 64))).method == "plain"
    wide = lk.explain(lk.orthogonalize, np.ones((64, 512)))
    assert wide.method == "gram"
    assert "matfun_polar" in wide.implementations["odd_iteration"]
    assert wide.flops < lk.explain(lk.orthogonalize, np.ones((64, 512)), method="plain").flops
    assert lk.explain(lk.orthogonalize, np.ones((4, 4)), coeffs="auon").implementations == {}


@pytest.mark.parametrize(
    ("p", "q", "form"), [(10, 10, "plain"), (10, 18, "plain"), (10, 40, "gram")]
)
def test_choice_rule(p, q, form):
    assert choose_method(p, q, 5)[0] == form


def test_the_kernel_is_the_reference():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 30, 70)) / 60
    table = _coefficients.named("polar_express", 7)
    for gram in (0, 3, 7):
        got = _ops.ODD_ITERATION(x, table, True, gram, 2)
        want = _ops.odd_iteration(x, table, True, gram)
        assert np.linalg.norm(got - want) <= 1e-10 * np.linalg.norm(want)
