"""Tucker tensors against their dense arrays, and the laws of norms and recompression."""

import copy
import math
import pickle

import numpy as np
import pytest

from linalgk import _xp
from linalgk.errors import NonFiniteError
from linalgk.tensor._canonical import CanonicalTensor
from linalgk.tensor._tucker_tensor import TuckerTensor, explain_tucker_tensor, sample

SHAPE, RANKS = (5, 6, 4), (2, 3, 2)


def host(x):
    return np.asarray(_xp.to_numpy(x))


def normal(rng, shape, dtype):
    x = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def made(rng, dtype="float64", xp=np, shape=SHAPE, ranks=RANKS):
    """A tensor and its entries, by einsum in double precision."""
    core = normal(rng, ranks, dtype)
    factors = [normal(rng, s, dtype) for s in zip(shape, ranks, strict=True)]
    letters = "abcd"[: len(shape)]
    terms = ",".join([letters, *(f"{x.upper()}{x}" for x in letters)])
    dense = np.einsum(f"{terms}->{letters.upper()}", *(
        x.astype("complex128" if dtype[0] == "c" else "float64") for x in (core, *factors)
    ))  # fmt: skip
    return TuckerTensor(xp.asarray(core), [xp.asarray(f) for f in factors]), dense


def close(got, wanted, dtype="float64", scale=None):
    bound = 200 * np.finfo(dtype).eps * (np.abs(wanted).max() if scale is None else scale)
    np.testing.assert_allclose(host(got), wanted, rtol=0, atol=bound)


# --- Every library and dtype ---------------------------------------------------------------------


def test_laws(xp, dtype, rng):
    x, dense = made(rng, dtype, xp)
    y, other = made(rng, dtype, xp, ranks=(3, 1, 2))
    array = x.toarray()
    assert type(array) is type(xp.zeros(1))
    assert _xp.dtype_name(array) == dtype
    assert (x.shape, x.ranks, x.ndim, x.size) == (SHAPE, RANKS, 3, 120)
    close(array, dense, dtype)
    close((x + y).toarray(), dense + other, dtype)
    close((x - y).toarray(), dense - other, dtype)
    close((x * y).toarray(), dense * other, dtype)
    close((2 - x / 4 + 1.5).toarray(), 3.5 - dense / 4, dtype)
    close(x.norm(), np.linalg.norm(dense), dtype)
    inner = np.vdot(dense, other)
    scale = np.linalg.norm(dense) * np.linalg.norm(other)
    close(x.inner(y), inner, dtype, scale)
    close(x.inner(y.toarray()), inner, dtype, scale)
    c = CanonicalTensor(
        xp.asarray(normal(rng, (3,), dtype)),
        [xp.asarray(normal(rng, (n, 3), dtype)) for n in SHAPE],
    )
    inner = np.vdot(dense, host(c.toarray()))
    scale = np.linalg.norm(dense) * c.norm()
    close(x.inner(c), inner, dtype, scale)
    close(c.inner(x), np.conj(inner), dtype, scale)
    assert isinstance(x.inner(y), complex if dtype[0] == "c" else float)
    close(x[1:4, [0, -1, 2], 3].toarray(), dense[1:4, [0, -1, 2], 3], dtype, np.abs(dense).max())
    i = np.array([[0, -1], [2, 1]])
    close(x[i, 2, i - 1], dense[i, 2, i - 1], dtype, np.abs(dense).max())
    close(x[0, -1, 2], dense[0, -1, 2], dtype, np.abs(dense).max())
    close(x.T.conj().toarray(), dense.T.conj(), dtype)
    close(x.sum((0, -1)).toarray(), dense.sum((0, 2)), dtype, 30 * np.abs(dense).max())
    close(x.sum(), dense.sum(), dtype, 120 * np.abs(dense).max())
    m = normal(rng, (3, 6), dtype)
    close(
        x.mode_product(xp.asarray(m), 1).toarray(), np.einsum("ijk,pj->ipk", dense, m), dtype,
    )  # fmt: skip
    q = x.orthogonalized()
    for f in q.factors:
        f = host(f)
        close(f.conj().T @ f, np.eye(f.shape[1]), dtype, 1.0)
    close(q.toarray(), dense, dtype)
    z = (x + y - y).recompress(1e-4)
    assert z.ranks == RANKS
    assert z.error <= 1e-4
    close(z.toarray(), dense, dtype, 10 * np.abs(dense).max())
    assert pickle.loads(pickle.dumps(x)) == x


def test_mixed_dtypes_promote_and_numbers_do_not(rng):
    x, dense = made(rng, "float32")
    assert (x * 2.0 + np.float64(1)).dtype == np.float32
    assert (x * 2j).dtype == np.complex64
    assert (x + 2j).dtype == np.complex64
    close((x + 2j).toarray(), dense + 2j, "float32")
    y, _ = made(rng, "complex128")
    assert (x + y).dtype == np.complex128
    t = TuckerTensor(np.ones((2, 2), np.int32), [np.eye(2, dtype=np.float32)] * 2)
    assert t.core.dtype == t.factors[0].dtype == np.float64
    assert x.astype("float64").dtype == np.float64
    assert x.astype(np.complex64).dtype == np.complex64
    with pytest.raises(TypeError, match="imaginary"):
        y.astype("float64")


# --- Indexing ------------------------------------------------------------------------------------


KEYS = [
    0, -1, slice(None), ..., (1, ...), (..., 2), (slice(None, None, -2), ..., 1),
    (slice(0, 0),), (2, slice(1, 5, 2), slice(-3, None)), np.array([4, 0, 0]),
    (..., np.array([3, -4])), (slice(1, 3), [0, 5], slice(None)), (0, 1),
    np.array([True, False, True, True, False]), (slice(None), np.arange(0), 1),
    (np.array([1, 2]), np.array([0, 3]), np.array([[1], [2]])), (np.array([1, 2]), [3, 0], -1),
]  # fmt: skip


def test_indexing_is_that_of_the_array(rng):
    x, dense = made(rng)
    top = np.abs(dense).max()
    for key in KEYS:
        got, wanted = x[key], dense[key]
        assert got.shape == wanted.shape, key
        points = isinstance(key, tuple) and sum(isinstance(i, list | np.ndarray) for i in key) > 1
        assert isinstance(got, np.ndarray if points else TuckerTensor), key
        close(got if points else got.toarray(), wanted, scale=top)


def test_points_in_blocks_and_every_dimension(rng, monkeypatch):
    monkeypatch.setattr("linalgk.tensor._tensor_algebra.BLOCK", 16)
    for shape, ranks in (((7,), (3,)), ((4, 5), (2, 3)), ((3, 4, 2, 5), (2, 3, 1, 2))):
        x, dense = made(rng, shape=shape, ranks=ranks)
        close(x.toarray(), dense)
        points = tuple(rng.integers(-n, n, 40) for n in shape)
        if len(shape) > 1:
            close(x[points], dense[points], scale=np.abs(dense).max())
        close(x.norm(), np.linalg.norm(dense))
        close((x * x + x).toarray(), dense**2 + dense)
        close(x.inner(x), np.vdot(dense, dense))


def test_bad_indices(rng):
    x, _ = made(rng)
    for key, word in (
        (5, "out of range"), ((0, -7), "-7 is out of range for mode 1"), (None, "None"),
        ((..., ...), "at most one"), ((0,) * 4, "3 modes, got 4"), ("a", "got str"),
        (1.0, "got float"), (np.array([0.5]), "hold integers"), (True, "got bool"),
        (np.eye(2, dtype=int), "vector"), (([0, 1], [0, 1]), "several arrays"),
        (np.array([True, False]), r"shape \(5,\)"),
    ):  # fmt: skip
        with pytest.raises(IndexError, match=word):
            x[key]
    assert len(list(x)) == 5


# --- Norms and recompression ---------------------------------------------------------------------


def test_norm_of_a_difference_keeps_its_digits(rng):
    x, dense = made(rng)
    y = x + 1e-11 * TuckerTensor(x.core[::-1], x.factors)
    wanted = 1e-11 * TuckerTensor(x.core[::-1], x.factors).norm()
    assert abs((y - x).norm() - wanted) <= 200 * 2.3e-16 * np.linalg.norm(dense)
    assert (x - x).norm() <= 50 * 2.3e-16 * np.linalg.norm(dense)
    huge = TuckerTensor(
        x.core * 1e200, [f * s for f, s in zip(x.factors, (1e60, 1, 1), strict=True)]
    )
    close(huge.norm() / 1e260, np.linalg.norm(dense))
    assert huge.recompress(1e-10).ranks == RANKS


def decaying(rng, n, dtype="float64"):
    """Singular values that fall by half an order each, behind factors that are not orthonormal."""
    core = rng.standard_normal((n,) * 3)
    for k in range(3):
        core *= 10.0 ** (-0.6 * np.arange(n)).reshape([-1 if j == k else 1 for j in range(3)])
    factors = [rng.standard_normal((n + 5, n)) @ np.diag(10.0 ** rng.uniform(-1, 1, n))
               for _ in range(3)]  # fmt: skip
    return TuckerTensor(core.astype(dtype), [f.astype(dtype) for f in factors])


@pytest.mark.parametrize(
    ("dtype", "tol"),
    [("float64", 10.0**-k) for k in (3, 6, 9, 11, 13)] + [("float32", 1e-3), ("float32", 1e-5)],
)
def test_recompress_keeps_the_tolerance_with_few_ranks(dtype, tol, rng):
    x = decaying(rng, 20, dtype)
    wide = x.astype("float64").toarray()
    y = x.recompress(tol)
    assert y.converged
    assert y.error <= tol
    change = np.linalg.norm(y.astype("float64").toarray() - wide) / np.linalg.norm(wide)
    noise = 20 * np.finfo(dtype).eps
    assert change <= tol + noise
    assert abs(change - y.error) <= 0.01 * tol + noise
    for k, r in enumerate(y.ranks):
        s = np.linalg.svd(np.moveaxis(wide, k, 0).reshape(25, -1), compute_uv=False)
        tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1]) / np.linalg.norm(wide)
        assert r <= np.count_nonzero(tails > tol / 3**0.5)
        if tol > noise:
            # no tensor within the tolerance has fewer than this
            assert r >= np.count_nonzero(tails > tol)


def test_recompress_by_ranks_and_error_that_was_there(rng):
    x = decaying(rng, 8)
    y = x.recompress(ranks=(3, 20, 2))
    assert y.ranks == (3, 6, 2)  # of a core (8, 8, 8) no more than 3 * 2 in the second mode
    dense = x.toarray()
    change = np.linalg.norm(y.toarray() - dense) / np.linalg.norm(dense)
    assert abs(y.error / change - 1) < 1e-8
    known = TuckerTensor(x.core, x.factors, error=0.01)
    assert abs(known.recompress(ranks=(3, 20, 2)).error - (0.01 + 1.01 * change)) < 1e-10
    assert known.T.error == (2 * known).error == -known.conj().error * -1 == 0.01
    assert math.isnan((known + known).error)
    assert math.isnan(known[1:].error)
    assert (x + x - 2 * x).recompress(1e-3).norm() < 1e-13 * x.norm()
    assert (x + x).recompress().ranks == (8, 8, 8)
    zero = (x * 0).recompress(1e-3)
    assert zero.ranks == (1, 1, 1)
    assert zero.error == zero.norm() == 0


def test_recompress_of_a_flat_spectrum(rng):
    x, dense = made(rng, shape=(14, 15, 16), ranks=(12, 12, 12))
    for tol in np.linspace(0.1, 0.6, 15):
        y = x.recompress(tol)
        change = np.linalg.norm(y.toarray() - dense) / np.linalg.norm(dense)
        assert change <= y.error * (1 + 1e-9) <= tol * (1 + 2e-9)
    assert max(y.ranks) < 12


def test_bad_recompress(rng):
    x, _ = made(rng)
    with pytest.raises(ValueError, match="not both"):
        x.recompress(1e-3, ranks=2)
    with pytest.raises(ValueError, match="3 modes, got 2"):
        x.recompress(ranks=(1, 2))
    with pytest.raises(ValueError, match="at least 1"):
        x.recompress(ranks=0)
    with pytest.raises(ValueError, match="tol"):
        x.recompress(-1.0)
    with pytest.raises(NonFiniteError, match="NaN"):
        (x * math.inf).recompress(1e-3)


# --- As an object --------------------------------------------------------------------------------


def test_bad_arguments(rng):
    x, dense = made(rng)
    for core, factors, kind, word in (
        (x.core, x.factors[0], TypeError, "needs a list"), (x.core, [], ValueError, "at least one"),
        (x.core, x.factors[:2], ValueError, "for each of 2"),
        (x.core, [*x.factors[:2], np.ones((4, 5))], ValueError, r"factors\[2\].*shape \(n, 2\)"),
        (x.core.astype("float16"), x.factors, TypeError, "float16"),
        (x.core, [*x.factors[:2], "a"], TypeError, r"factors\[2\]"),
    ):  # fmt: skip
        with pytest.raises(kind, match=word):
            TuckerTensor(core, factors)
    with pytest.raises(TypeError):
        x + dense
    with pytest.raises(TypeError):
        dense * x
    with pytest.raises(ValueError, match="shape"):
        x + x[:2]
    with pytest.raises(ValueError, match="shape"):
        x.inner(dense[:2])
    with pytest.raises(ValueError, match="matrix"):
        x.mode_product(np.ones((2, 5)), 1)
    with pytest.raises(ValueError, match="mode"):
        x.sum(3)
    with pytest.raises(ValueError, match="permutation"):
        x.transpose((0, 1, 1))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="one library"):
        TuckerTensor(torch.ones((2, 3, 2)), x.factors)
    with pytest.raises(TypeError, match="grad"):
        TuckerTensor(torch.ones((2, 2), requires_grad=True), [torch.eye(2)] * 2)


def test_comparison_copies_and_layout(rng):
    x, dense = made(rng)
    known = TuckerTensor(x.core, x.factors, error=1e-3, method="hosvd", converged=False)
    for y in (pickle.loads(pickle.dumps(known)), copy.deepcopy(known)):
        assert y == known == x
        assert hash(y) == hash(x)
        assert (y.error, y.method, y.converged) == (1e-3, "hosvd", False)
    assert x != x * 2
    assert x != x.astype("float32")
    assert x != "x"
    assert repr(known) == (
        "TuckerTensor(shape=(5, 6, 4), ranks=(2, 3, 2), error=0.001, not converged, dtype=float64)"
    )
    assert x.nbytes == 8 * (12 + 10 + 18 + 8)
    assert x.compression == 120 / 48
    core = np.asfortranarray(x.core)
    core.flags.writeable = False
    strided = [np.repeat(f, 2, axis=0)[::2] for f in x.factors]
    y = TuckerTensor(core, strided)
    close(y.toarray(), dense)
    close((y * y).recompress(1e-12).toarray(), dense**2)
    assert np.array_equal(core, x.core)
    assert explain_tucker_tensor(*sample("small")[0]).flops == 2 * 6 * (8 + 24 + 72)
    read = TuckerTensor(x.core.tolist(), [f.tolist() for f in x.factors])
    assert read == x


def test_empty_modes_and_ranks(rng):
    x, _ = made(rng)
    none = x[:0]
    assert none.toarray().shape == (0, 6, 4)
    assert none.norm() == none.sum() == none.inner(none) == 0
    assert none.recompress(1e-3).shape == (0, 6, 4)
    bare = TuckerTensor(np.zeros((0, 2)), [np.zeros((3, 0)), np.ones((4, 2))])
    assert np.array_equal(bare.toarray(), np.zeros((3, 4)))
    assert np.array_equal((bare + 1.0).toarray(), np.ones((3, 4)))
    assert bare.norm() == bare[1, 2] == 0


def test_jax_transforms(rng):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    x, _ = made(rng, xp=jax.numpy)
    leaves, tree = jax.tree_util.tree_flatten(x)
    assert len(leaves) == 4
    assert jax.tree_util.tree_unflatten(tree, leaves) == x
    assert jax.tree_util.tree_structure(x * 2) == tree
    slope = jax.grad(lambda y: (-2 * y).core[0, 1, 0])(x)
    assert isinstance(slope, TuckerTensor)
    assert slope.core[0, 1, 0] == -2
    assert float(abs(slope.core).sum()) == 2
    # without a compilation: that all can be traced
    point = np.array([0, 1])
    outputs = jax.eval_shape(
        lambda y, s: (
            y.toarray(), y[1, 2, 3], y[point, 0, point], (y * y - y).norm(), y.inner(y),
            (s * y + s).sum(0).orthogonalized(), y[1:, point],
        ), x, 2.0,
    )  # fmt: skip
    assert [v.shape for v in outputs] == [SHAPE, (), (2,), (), (), (6, 4), (4, 2, 4)]
    with pytest.raises(TypeError, match="traced"):
        jax.eval_shape(lambda y: y.recompress(1e-3), x)
