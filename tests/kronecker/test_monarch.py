"""Monarch matrices: products against the formula, projections against singular values."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import svds
from spectra import EPS, adjoint, gaussian

from linalgk.errors import ConvergenceWarning, NonFiniteError
from linalgk.kronecker import _monarch, _monarch_steps
from linalgk.kronecker._monarch import (
    Monarch,
    explain_monarch,
    explain_monarch_project,
    monarch_project,
)


def dense(left, right):
    """The double sum of the definition."""
    (h, s, r), (k, q, p) = left.shape, right.shape
    z = np.zeros((k * q, k * p), np.result_type(left, "complex128"))
    for c, d in np.ndindex(k, q):
        z[c * q + d, c * p : (c + 1) * p] = right[c, d]
    y = np.zeros((s * h, k * p), z.dtype)
    for b, i, a in np.ndindex(h, s, r):
        y[i * h + b] += left[b, i, a] * z[a * h + b]
    return y


def interleaved(a, grid):
    """Blocks (h, k, s, p) by slices, with zeros where a ends."""
    h, k, s, p = grid
    blocks = np.zeros((h, k, s, p), a.dtype)
    for b, c in np.ndindex(h, k):
        part = a[b::h, c * p : (c + 1) * p]
        blocks[b, c, : part.shape[0], : part.shape[1]] = part
    return blocks


def least_error(a, grid, rank):
    wide = a.astype(np.result_type(a, "float64"))
    s = np.linalg.svd(interleaved(wide, grid), compute_uv=False)
    return np.sqrt(np.sum(s[..., rank:] ** 2)) / np.linalg.norm(wide)


def error_of(a, m):
    wide = np.result_type(a, "float64")
    return np.linalg.norm(a - m.toarray().astype(wide)) / np.linalg.norm(a.astype(wide))


# --- Products ------------------------------------------------------------------------------------

size = st.integers(1, 5)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(size, size, size, size, size), cut=st.tuples(st.integers(0, 2), size),
    dtype=st.sampled_from(["float32", "float64", "complex64", "complex128"]),
    columns=st.integers(0, 4), order=st.sampled_from("CF"), seed=st.integers(0, 9),
)  # fmt: skip
def test_products_with_every_shape(sizes, cut, dtype, columns, order, seed):
    """From both sides, transposed, adjoint, cut off, to (p + r) eps |L| |R| |x|."""
    h, s, k, p, t = sizes
    # q and r with k q = h r that need not be multiples of h and k
    g = np.gcd(h, k)
    left, right = gaussian((h, s, t * k // g), dtype, seed), gaussian((k, t * h // g, p), dtype, 1)
    left.flags.writeable = right.flags.writeable = False
    shape = (max(0, s * h - cut[0]), max(0, k * p - cut[1]))
    m, whole = Monarch(left, right, shape=shape), dense(left, right)[: shape[0], : shape[1]]
    size = dense(np.abs(left), np.abs(right)).real[: shape[0], : shape[1]]
    most = 4 * (p + left.shape[2] + 2) * EPS[dtype]
    x = np.asarray(gaussian((shape[1], columns), dtype, 2), order=order)
    y = np.asarray(gaussian((columns, shape[0]), dtype, 3), order=order)
    cases = [
        (m @ x, whole @ x, size @ np.abs(x)),
        (y @ m, y @ whole, np.abs(y) @ size),
        (m.T @ y.T, whole.T @ y.T, size.T @ np.abs(y.T)),
        (m.H @ y.T, adjoint(whole) @ y.T, size.T @ np.abs(y.T)),
        (x.T @ m.T, x.T @ whole.T, np.abs(x.T) @ size.T),
        (m.toarray(), whole, size),
        (m.H.toarray(), adjoint(whole), size.T),
        (m.T.T.toarray(), whole, size),
    ]
    if columns:
        cases += [(m @ x[:, 0], whole @ x[:, 0], size @ np.abs(x[:, 0])),
                  (y[0] @ m, y[0] @ whole, np.abs(y[0]) @ size)]  # fmt: skip
    for found, exact, scale in cases:
        assert found.shape == exact.shape
        assert found.dtype == np.dtype(dtype)
        assert (np.abs(found - exact) <= most * scale + 1e-300).all()


@pytest.mark.parametrize("turned", [False, True])
def test_long_products_by_chunks(turned, monkeypatch):
    monkeypatch.setattr(_monarch_steps, "_LEAST", 3)
    monkeypatch.setattr(_monarch_steps, "_CHUNK", 1)
    m = Monarch(gaussian((4, 5, 6)), gaussian((3, 8, 7)), shape=(19, 20))
    m, whole = (m.T, m.toarray().T) if turned else (m, m.toarray())
    x = gaussian((m.shape[1], 40))[:, ::3]
    y = gaussian((40, m.shape[0]))[::3]
    assert np.abs(m @ x - whole @ x).max() < 1e-12
    assert np.abs(y @ m - y @ whole).max() < 1e-12


def test_it_is_what_the_authors_code_computes():
    """``blockdiag_butterfly_multiply_reference`` of the paper's repository, in NumPy."""
    w1, w2 = gaussian((4, 6, 5)), gaussian((3, 7, 8))
    x = gaussian((10, 20))
    (k, _, p), (h, s, r) = w1.shape, w2.shape
    one = np.einsum("kqp,bkp->bkq", w1, x.reshape(10, k, p))
    one = one.reshape(10, r, h).transpose(0, 2, 1)
    two = np.einsum("lsr,blr->bls", w2, one)
    out = two.transpose(0, 2, 1).reshape(10, s * h)
    assert np.abs(x @ Monarch(w2, w1).T - out).max() < 1e-12


def test_batches_broadcast():
    left, right = gaussian((2, 1, 3, 4, 2)), gaussian((5, 2, 3, 4), seed=1)
    m = Monarch(left, right)
    x, y = gaussian((5, 8, 3), seed=2), gaussian((2, 5, 6, 12), seed=3)
    assert m.batch == (2, 5)
    whole = m.toarray()
    for i, j in np.ndindex(2, 5):
        assert np.abs(whole[i, j] - dense(left[i, 0], right[j])).max() < 1e-12
        assert np.abs((m @ x)[i, j] - whole[i, j] @ x[j]).max() < 1e-12
        assert np.abs((y @ m)[i, j] - y[i, j] @ whole[i, j]).max() < 1e-12
    plain = Monarch(left[0, 0], right[0])
    assert np.abs(plain @ x - plain.toarray() @ x).max() < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_products_in_every_library(xp, dtype):
    left, right = gaussian((3, 4, 2), dtype), gaussian((2, 3, 5), dtype, 1)
    x = gaussian((9, 3), dtype, 2)
    m, plain = (
        Monarch(xp.asarray(left), xp.asarray(right), shape=(11, 9)),
        Monarch(left, right, shape=(11, 9)),
    )
    for found, exact in (
        (m @ xp.asarray(x), plain @ x),
        (m.T @ (m @ xp.asarray(x)), plain.T @ (plain @ x)),
        # array_api_strict refuses to ask operands from the right
        (m.T.__rmatmul__(xp.asarray(x.T)), x.T @ plain.T),
        (m.toarray(), plain.toarray()),
    ):
        assert type(found) is type(xp.asarray(x))
        assert np.abs(np.asarray(found) - exact).max() < 200 * EPS[dtype] * np.abs(exact).max()
    with pytest.raises(TypeError, match="share one library"):
        m @ (x if xp is not np else pytest.importorskip("torch").ones(9))


def test_pytorch_differentiates_products():
    torch = pytest.importorskip("torch")
    left, right = (torch.randn(s, dtype=torch.float64, requires_grad=True)
                   for s in ((3, 4, 2), (2, 3, 5)))  # fmt: skip
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)

    def product(one, two, x):
        m = Monarch(one, two, shape=(11, 9))
        return m.T @ (m @ x), x.T @ m.T, m @ x[:, 0]

    assert torch.autograd.gradcheck(product, (left, right, x))
    half = Monarch(left.detach().bfloat16(), right.detach().bfloat16())
    assert (half @ torch.ones(10, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_jax_differentiates_and_compiles_products():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    m = Monarch(jax.numpy.asarray(gaussian((3, 4, 2))), jax.numpy.asarray(gaussian((2, 3, 5))))
    x = jax.numpy.asarray(gaussian(10))
    compiled = jax.jit(lambda m, x: m.T @ (m @ x))(m, x)
    assert np.abs(compiled - m.toarray().T @ (m.toarray() @ x)).max() < 1e-12
    grown = jax.grad(lambda m: (m @ x).sum())(m)
    assert isinstance(grown, Monarch)
    exact = jax.grad(lambda w: (Monarch(w, m.right).toarray() @ x).sum())(m.left)
    assert np.abs(grown.left - exact).max() < 1e-12


def test_an_operator_like_others():
    m = Monarch(gaussian((3, 4, 2), "complex128"), gaussian((2, 3, 5), "complex128"))
    whole, scipy_m = m.toarray(), m.to_scipy()
    assert np.abs(scipy_m @ np.ones(10) - whole.sum(axis=1)).max() < 1e-12
    assert np.abs(scipy_m.rmatvec(np.ones(12)) - adjoint(whole).sum(axis=1)).max() < 1e-12
    assert abs(svds(scipy_m, 1)[1][0] - np.linalg.norm(whole, 2)) < 1e-10
    for other in (pickle.loads(pickle.dumps(m)), copy.deepcopy(m), m.T.T):
        assert other == m
        assert hash(other) == hash(m)
    assert m != m.T
    assert Monarch(m.left, m.right, shape=(11, 10)) != m
    assert repr(m.T) == (
        "Monarch((10, 12), left=3 x (4, 2), right=2 x (3, 5), transposed, dtype=complex128)"
    )
    assert (m.shape, m.T.shape, m.ndim) == ((12, 10), (10, 12), 2)


@pytest.mark.parametrize(
    ("left", "right", "shape", "words"),
    [
        ((3, 4, 2), (2, 4, 5), None, r"make 2\*4 = 8 numbers, and .* take 3\*2 = 6"),
        ((4, 2), (2, 4, 5), None, r"left: must have shape \(\.\.\., blocks"),
        ((3, 4, 2), (2, 3, 5), (13, 10), r"at most \(12, 10\)"),
        ((3, 4, 2), (2, 3, 5), 12, "must be .n_out, n_in."),
        ((2, 3, 4, 2), (3, 2, 3, 5), None, "does not broadcast"),
    ],
)
def test_wrong_blocks(left, right, shape, words):
    with pytest.raises(ValueError, match=words):
        Monarch(np.zeros(left), np.zeros(right), shape=shape)


def test_wrong_vectors():
    m = Monarch(np.zeros((3, 4, 2)), np.zeros((2, 3, 5)))
    with pytest.raises(ValueError, match="needs 10 rows, got 12"):
        m @ np.ones((12, 2))
    with pytest.raises(ValueError, match="needs 12 columns, got 10"):
        np.ones((2, 10)) @ m


# --- Projections ---------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 17), st.integers(1, 17)), seed=st.integers(0, 99),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    dtype=st.sampled_from(["float32", "float64", "complex64", "complex128"]),
    method=st.sampled_from(["gram", "svd"]), order=st.sampled_from("CF"),
)  # fmt: skip
def test_the_error_is_that_of_truncated_blocks(shape, part, seed, dtype, method, order):
    """For every number of blocks, padded or not, and every rank."""
    (m, n), (h, k) = shape, (1 + int(part[0] * (shape[0] - 1)), 1 + int(part[1] * (shape[1] - 1)))
    s, p = -(-m // h), -(-n // k)
    rank = 1 + int(part[2] * (min(s, p) - 1))
    a = np.asarray(gaussian(shape, dtype, seed), order=order)
    a.flags.writeable = False
    found, info = monarch_project(a, (h, k), rank, method=method, return_info=True)
    slack = 30 * EPS[dtype] * np.sqrt(max(s, p))
    assert found.shape == shape
    assert found.dtype == a.dtype
    assert found.left.shape == (h, s, k * rank)
    assert found.right.shape == (k, rank * h, p)
    assert abs(error_of(a, found) - least_error(a, (h, k, s, p), rank)) <= slack
    assert abs(float(info.residual) - error_of(a, found)) <= slack


@pytest.mark.parametrize("blocks", [None, 5, (4, 6)])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_monarch_matrix_is_found_again(blocks, rank, dtype):
    h, k = (6, 6) if blocks is None else (5, 5) if blocks == 5 else blocks
    s, p = -(-36 // h), -(-36 // k)
    left, right = gaussian((h, s, k * rank), dtype), gaussian((k, rank * h, p), dtype, 1)
    a = Monarch(left, right, shape=(36, 36)).toarray()
    m, info = monarch_project(a, blocks, rank, return_info=True)
    assert info.residual < 40 * EPS[dtype]
    assert error_of(a, m) < 40 * EPS[dtype]
    assert info.method == "gram"
    # what squares cannot resolve is rounding here, which nobody misses
    more, info = monarch_project(a, blocks, rank + 1, return_info=True)
    assert info.method == "gram"
    assert error_of(a, more) < 60 * EPS[dtype]
    # each column of left is as long as the row of right that it meets
    one = np.linalg.norm(m.left, axis=1).reshape(h, k, rank)
    two = np.linalg.norm(m.right, axis=2).reshape(k, rank, h).transpose(2, 0, 1)
    assert np.abs(one / two - 1).max() < 100 * EPS[dtype]


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (30, 40)])
def test_blocks_that_squares_cannot_resolve(shape, dtype):
    """Singular values 1, 1e-5, 1e-10 and 1e-11 next to well-conditioned blocks."""
    u = np.linalg.qr(gaussian((shape[0], 4), dtype, 1))[0]
    v = np.linalg.qr(gaussian((shape[1], 4), dtype, 2))[0]
    small = np.array([1, 1e-5, 1e-10, 1e-11]) if dtype != "float32" else 10.0 ** -np.arange(4)
    hard = (u * small.astype(u.real.dtype)) @ adjoint(v)
    b = np.stack([gaussian(shape, dtype, 3), hard.astype(dtype), np.zeros(shape, dtype)])
    for rank in (1, 2, 3):
        left, right, found = _monarch_steps.truncated(b, rank, "gram")
        s = np.linalg.svd(b.astype(np.result_type(dtype, "float64")), compute_uv=False)
        best = np.sqrt(np.sum(s[:, rank:] ** 2, axis=1))
        rest = np.linalg.norm(b - left @ right, axis=(1, 2))
        assert (np.abs(rest - best) <= 30 * EPS[dtype] * s[:, 0]).all()
        assert np.abs(found.rest - rest).max() <= 30 * EPS[dtype] * s[:, 0].max()
        assert found.again is (rank == 3 and dtype != "float32")
        assert (rest - best <= found.loss + 4 * EPS[dtype] * s[:, 0]).all()
        assert (left[2] @ right[2] == 0).all()
        xp = pytest.importorskip("array_api_strict")
        one, two, again = _monarch_steps.truncated(xp.asarray(b), rank, "gram")
        assert again.again is found.again
        assert np.abs(np.asarray(one) @ np.asarray(two) - left @ right).max() < 100 * EPS[dtype]


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_sizes_whose_squares_leave_the_range(scale):
    a = gaussian((20, 20))
    a[:, :5] *= 1e-6
    plain, info = monarch_project(a, 4, return_info=True)
    found, same = monarch_project(a * scale, 4, return_info=True)
    assert abs(info.residual / same.residual - 1) < 1e-13
    assert np.abs(found.left / scale**0.5 - plain.left).max() < 1e-13


def test_projections_in_every_library(xp, dtype):
    a = gaussian((2, 3, 12, 20), dtype)
    for method in ("gram", "svd"):
        m, info = monarch_project(xp.asarray(a), (3, 5), 2, method=method, return_info=True)
        assert type(m.left) is type(info.residual) is type(xp.asarray(a))
        assert m.batch == (2, 3)
        assert str(m.left.dtype).endswith(dtype)
        whole = np.asarray(m.toarray())
        for i in np.ndindex(2, 3):
            best = least_error(a[i], (3, 5, 4, 4), 2)
            wide = np.result_type(dtype, "float64")
            error = np.linalg.norm(a[i] - whole[i].astype(wide)) / np.linalg.norm(a[i])
            assert abs(error - best) < 100 * EPS[dtype]
            assert abs(float(np.asarray(info.residual)[i]) - best) < 100 * EPS[dtype]


def test_pieces_are_put_together_in_order(monkeypatch):
    """Members in groups, members one by one, strips of members: the same bits."""
    a = gaussian((5, 24, 30))
    whole = monarch_project(a, (4, 5))
    for entries in (2 * 720, 720, 400, 180):
        monkeypatch.setattr(_monarch_steps, "_ENTRIES", entries)
        part, info = monarch_project(a, (4, 5), return_info=True)
        assert np.abs(part.left - whole.left).max() < 1e-13
        assert np.abs(part.right - whole.right).max() < 1e-13
        best = [least_error(x, (4, 5, 6, 6), 1) for x in a]
        assert np.abs(info.residual - best).max() < 1e-13


def test_bad_members_leave_the_others_alone():
    a = gaussian((3, 9, 9))
    a[1, 4, 4] = np.nan
    with pytest.raises(NonFiniteError, match=r"members \(1,\)") as caught:
        monarch_project(a)
    assert caught.value.index == ((1,),)
    with pytest.warns(ConvergenceWarning):
        monarch_project(a, on_fail="warn")
    m, info = monarch_project(a, on_fail="nan", return_info=True)
    assert np.isnan(m.left[1]).all()
    assert (m.left[2] == monarch_project(a[2]).left).all()
    assert info.converged.tolist() == [True, False, True]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0, 4, 6)])
def test_empty_matrices(shape):
    m, info = monarch_project(np.zeros(shape), return_info=True)
    assert m.toarray().shape == shape
    assert (info.residual == 0).all()
    assert (m @ np.zeros((shape[-1], 2))).shape == (*shape[:-1], 2)


def test_default_blocks():
    """Divisors near the square root, else padding."""
    for n, blocks in ((16, 4), (24, 4), (23, 5), (1, 1), (12, 3), (1000, 25), (1021, 32)):
        assert _monarch._near_root(n) in (blocks, n // blocks)
    m = monarch_project(gaussian((23, 16)))
    assert (m.shape, m.left.shape, m.right.shape) == ((23, 16), (5, 5, 4), (4, 5, 4))


@pytest.mark.parametrize(
    ("blocks", "options", "words"),
    [
        ((3, 4, 5), {}, r"a number or \(h, k\)"),
        (0, {}, "at least 1"),
        (13, {}, "h must be at most 12"),
        (3, {"rank": 5}, r"min\(s, p\) = 4"),
        (3, {"method": "qr"}, "one of"),
    ],
)
def test_wrong_arguments(blocks, options, words):
    with pytest.raises(ValueError, match=words):
        monarch_project(np.eye(12), blocks, **options)


def test_explanations():
    for size in ("small", "medium"):
        args, kwargs = _monarch.sample_monarch(size, rng=0)
        m = Monarch(*args, **kwargs)
        assert explain_monarch(*args, **kwargs).flops == 2 * (m.left.size + m.right.size)
        args, kwargs = _monarch.sample_project(size, rng=0)
        told = explain_monarch_project(*args, **kwargs)
        assert explain_monarch_project(*args, method="svd").flops > told.flops
        assert told.method == monarch_project(*args, **kwargs, return_info=True)[1].method
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires grad"):
        monarch_project(torch.eye(9, requires_grad=True))
