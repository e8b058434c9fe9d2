"""Canonical tensors, and Tucker tensors of them, against dense arrays."""

import copy
import pickle

import numpy as np
import pytest

from linalgk import _xp
from linalgk.errors import NonFiniteError
from linalgk.tensor import _rhosvd, _unfold
from linalgk.tensor._canonical import CanonicalTensor, explain_canonical_tensor, sample

SHAPE = (5, 6, 4)


def host(x):
    return np.asarray(_xp.to_numpy(x))


def normal(rng, shape, dtype="float64"):
    x = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def entries(weights, factors):
    """All of them in double precision, by a loop over the terms."""
    total = np.zeros([len(f) for f in factors], np.result_type(weights, np.float64))
    for r, w in enumerate(weights):
        term = np.asarray(w, total.dtype)
        for f in factors:
            term = np.multiply.outer(term, f[:, r])
        total += term
    return total


def made(rng, dtype="float64", xp=np, shape=SHAPE, rank=3):
    weights = normal(rng, (rank,), dtype)
    factors = [normal(rng, (n, rank), dtype) for n in shape]
    t = CanonicalTensor(xp.asarray(weights), [xp.asarray(f) for f in factors])
    return t, entries(weights, factors)


def close(got, wanted, dtype="float64", scale=None):
    bound = 100 * np.finfo(dtype).eps * (np.abs(wanted).max() if scale is None else scale)
    np.testing.assert_allclose(host(got), wanted, rtol=0, atol=bound)


# --- The format ----------------------------------------------------------------------------------


def test_laws(xp, dtype, rng):
    t, dense = made(rng, dtype, xp)
    s, other = made(rng, dtype, xp, rank=2)
    array = t.toarray()
    assert type(array) is type(xp.zeros(1))
    assert _xp.dtype_name(array) == dtype
    assert (t.shape, t.rank, t.ndim) == (SHAPE, 3, 3)
    top = np.abs(dense).max()
    close(array, dense, dtype)
    close((t - s).toarray(), dense - other, dtype, 2 * top)
    close((t * s).toarray(), dense * other, dtype)
    close((1 - t / 2).toarray(), 1 - dense / 2, dtype, top)
    assert (t - s + 1).rank == 6
    assert (t * s).rank == 6
    close(t.norm(), np.linalg.norm(dense), dtype)
    scale = np.linalg.norm(dense) * np.linalg.norm(other)
    close(t.inner(s), np.vdot(dense, other), dtype, scale)
    close(t.inner(s.toarray()), np.vdot(dense, other), dtype, scale)
    i = np.array([[0, -1], [2, 1]])
    close(t[i, 2, i - 1], dense[i, 2, i - 1], dtype, top)
    close(t[1:, 2, [3, 0]].toarray(), dense[1:, 2, [3, 0]], dtype, top)
    close(t[-1, 2, 0], dense[-1, 2, 0], dtype, top)
    close(t.sum(1).toarray(), dense.sum(1), dtype, 6 * top)
    m = normal(rng, (6,), dtype)
    close(t.mode_product(xp.asarray(m), 1).toarray(), np.einsum("ijk,j->ik", dense, m), dtype)
    close(t.transpose((1, -1, 0)).conj().toarray(), dense.transpose((1, 2, 0)).conj(), dtype)
    unit = t.normalized()
    close(np.linalg.norm(host(unit.factors[1]), axis=0), np.ones(3), dtype)
    close(unit.toarray(), dense, dtype)
    x = _rhosvd.from_canonical(t, tol=1e-4)
    assert type(x.core) is type(array)
    assert x.dtype == array.dtype
    assert x.converged
    assert np.linalg.norm(host(x.toarray()) - dense) <= 1.01e-4 * np.linalg.norm(dense)


def test_object(rng):
    t, dense = made(rng)
    for other in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t)):
        assert other == t
        assert hash(other) == hash(t)
    assert t != -t
    assert repr(t) == "CanonicalTensor(shape=(5, 6, 4), rank=3, dtype=float64)"
    assert t.compression == 120 / 48
    assert t.nbytes == 8 * 48
    assert explain_canonical_tensor(*sample("small")[0]).flops == 2 * 4 * 6**3
    assert t.astype("complex64").dtype == np.complex64
    for weights, factors, word in (
        (np.ones((3, 1)), t.factors, "vector"), (np.ones(2), t.factors, r"factors\[0\].*\(n, 2\)"),
        (t.weights, [np.ones(3)], r"factors\[0\]"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            CanonicalTensor(weights, factors)
    with pytest.raises(ValueError, match="shape"):
        t.inner(np.ones((5, 6)))
    with pytest.raises(TypeError):
        t + dense
    with pytest.raises(IndexError, match="out of range"):
        t[0, 6]
    huge = CanonicalTensor(t.weights, [f * 1e120 for f in t.factors[:2]])
    flat = CanonicalTensor(t.weights, t.factors[:2])
    assert huge.norm() == pytest.approx(1e240 * flat.norm())
    assert _rhosvd.from_canonical(huge, tol=1e-9).norm() == pytest.approx(1e240 * flat.norm())
    none = CanonicalTensor(np.zeros(0), [np.zeros((3, 0)), np.zeros((4, 0))])
    assert np.array_equal(none.toarray(), np.zeros((3, 4)))
    assert none.norm() == none[1, 1] == 0
    assert np.array_equal((none + 2).toarray(), np.full((3, 4), 2.0))
    jax = pytest.importorskip("jax")
    leaves, tree = jax.tree_util.tree_flatten(t)
    assert jax.tree_util.tree_unflatten(tree, leaves) == t


def test_blocks_do_not_matter(rng, monkeypatch):
    for shape in ((7,), (6, 8), (3, 4, 2, 5)):
        t, dense = made(rng, shape=shape, rank=150)
        with monkeypatch.context() as m:
            m.setattr("linalgk.tensor._tensor_algebra.BLOCK", 70)
            close(t.toarray(), dense)
            close(t.norm(), np.linalg.norm(dense))
            close(t.inner(dense), np.vdot(dense, dense))
            x = _rhosvd.from_canonical(t, tol=1e-9)
        assert np.linalg.norm(x.toarray() - dense) <= 1e-9 * np.linalg.norm(dense)


# --- Tucker from canonical -----------------------------------------------------------------------


def newton(n):
    """Gaussians of a quadrature for 1/r, off the middle so that modes differ."""
    x = np.linspace(-1, 1, n)[:, None]
    t = np.linspace(-8, np.log(2.0 * n), 26)
    return CanonicalTensor(
        np.exp(t), [np.exp(-np.exp(2 * t) * (x - s) ** 2) for s in (0, 0.1, 0.03)]
    )


def charges(n, rng):
    """Many Gaussians of both signs: more terms than rows, and cancellation."""
    x = np.linspace(-1, 1, n)[:, None]
    a = 10.0 ** rng.uniform(0, 2, 300)
    return CanonicalTensor(
        rng.standard_normal(300),
        [np.exp(-a * (x - rng.uniform(-1, 1, 300)) ** 2) for _ in range(3)],
    )


def badly_scaled(n, rng):
    """Weights and columns over many orders, which compensate partly."""
    lengths = 10.0 ** rng.uniform(-6, 6, 40)
    return CanonicalTensor(
        10.0 ** rng.uniform(-12, 0, 40) / lengths,
        [normal(rng, (n, 40)) * (lengths if k == 1 else 1.0) for k in range(3)],
    )


CASES = {
    "newton": lambda rng: newton(64),
    "charges": lambda rng: charges(64, rng),
    "badly scaled": lambda rng: badly_scaled(48, rng),
    "random": lambda rng: CanonicalTensor(
        np.ones(70), [normal(rng, (n, 70)) for n in (32, 40, 90)]
    ),
    "dominated": lambda rng: CanonicalTensor(
        np.r_[1.0, np.full(30, 1e-6)], [normal(rng, (40, 31)) for _ in range(3)]
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_tolerance_with_the_ranks_of_the_dense_tensor(case, rng):
    t = CASES[case](rng)
    dense = t.toarray()
    norm = np.linalg.norm(dense)
    for tol in (1e-2, 1e-4, 1e-7, 1e-10):
        x = _rhosvd.from_canonical(t, tol=tol)
        full = _unfold.st_hosvd(dense, budget=(tol * norm) ** 2)
        error = np.linalg.norm(x.toarray() - dense) / norm
        assert error <= x.error * (1 + 1e-6) <= tol * (1 + 1e-6), (tol, error)
        assert x.converged
        assert all(r <= s + 1 for r, s in zip(x.ranks, full.core.shape, strict=True)), tol
        for f in x.factors:
            close(f.T @ f, np.eye(f.shape[1]))


def test_given_ranks(rng):
    t = charges(48, rng)
    dense = t.toarray()
    x = _rhosvd.from_canonical(t, ranks=(9, 11, 10))
    assert x.ranks == (9, 11, 10)
    full = _unfold.st_hosvd(dense, ranks=(9, 11, 10))
    norm, error = np.linalg.norm(dense), np.linalg.norm(x.toarray() - dense)
    assert error <= 1.001 * full.squared_error**0.5
    assert abs(x.error * norm / error - 1) < 1e-6
    # a core that may not be large is cut before
    x = _rhosvd.from_canonical(t, ranks=2)
    assert _rhosvd._limited([900, 900, 900], (2, 2, 800))[2] >= 800
    assert np.prod(_rhosvd._limited([900, 900, 900], (2, 2, 800))) <= _rhosvd.CORE
    assert x.ranks == (2, 2, 2)


def test_single_precision(rng):
    t = newton(48).astype("float32")
    dense = t.astype("float64").toarray()
    for tol in (1e-3, 1e-5):
        x = _rhosvd.from_canonical(t, tol=tol)
        assert x.dtype == np.float32
        assert x.converged
        wide = x.astype("float64").toarray()
        assert np.linalg.norm(wide - dense) <= tol * np.linalg.norm(dense)


def test_what_cannot_be_known_is_not_claimed(rng):
    t, dense = made(rng, shape=(20, 20, 20), rank=10)
    # digits are lost in the terms themselves
    tiny = t * 1e-13
    near = t + tiny - t
    x = _rhosvd.from_canonical(near, tol=1e-6)
    true = np.linalg.norm(x.toarray() - 1e-13 * dense) / np.linalg.norm(1e-13 * dense)
    assert not x.converged
    assert x.error >= true > 1e-6
    y = _rhosvd.from_canonical(t, tol=1e-30)
    assert not y.converged
    assert np.linalg.norm(y.toarray() - dense) <= y.error * np.linalg.norm(dense)
    assert _rhosvd.from_canonical(t).ranks == (10, 10, 10)
    zero = _rhosvd.from_canonical(t * 0, tol=1e-3)
    assert zero.error == zero.norm() == 0
    none = CanonicalTensor(np.zeros(0), [np.zeros((3, 0)), np.zeros((4, 0))])
    assert np.array_equal(_rhosvd.from_canonical(none, tol=0.1).toarray(), np.zeros((3, 4)))
    assert _rhosvd.from_canonical(t[:0], tol=0.1).shape == (0, 20, 20)


def test_columns_in_blocks(rng):
    t = charges(40, rng)
    passes = []

    def blocks():
        passes.append(1)
        for i in range(0, 300, 37):
            yield t.weights[i : i + 37], [f[:, i : i + 37] for f in t.factors]

    x = _rhosvd.from_blocks(blocks, t.shape, tol=1e-8)
    dense = t.toarray()
    assert np.linalg.norm(x.toarray() - dense) <= 1e-8 * np.linalg.norm(dense)
    assert x.converged
    assert len(passes) == 2
    z = [q.T @ u for q, u in zip(x.factors, t.factors, strict=True)]
    core = _rhosvd.project(t.weights[:99], [f[:, :99] for f in z])
    core = core + _rhosvd.project(t.weights[99:], [f[:, 99:] for f in z])
    close(core, x.core, scale=1e3 * np.abs(x.core).max())


def test_the_parts_of_the_error_add_up(rng, monkeypatch):
    # where the first projection takes much of the tolerance, the second has less; a scale is none
    monkeypatch.setattr(_rhosvd, "SHARE", 0.45)
    flat = CanonicalTensor(np.ones(70), [normal(rng, (20, 70)) for _ in range(3)])
    for t, tols in (
        (flat, np.linspace(0.2, 0.7, 11)),
        (1e-9 * charges(40, rng), 10.0 ** -np.r_[3:8]),
    ):
        dense = t.toarray()
        for tol in tols:
            x = _rhosvd.from_canonical(t, tol=tol)
            error = np.linalg.norm(x.toarray() - dense) / np.linalg.norm(dense)
            assert error <= x.error * (1 + 1e-9) <= tol * (1 + 2e-9)


def test_an_estimate_that_is_too_large_is_mended(rng, monkeypatch):
    t = newton(40)
    dense = t.toarray()
    right = _rhosvd._sides
    monkeypatch.setattr(
        _rhosvd, "_sides", lambda blocks: (*right(blocks)[:2], 1e6 * right(blocks)[2])
    )
    x = _rhosvd.from_canonical(t, tol=1e-6)
    assert x.converged
    assert np.linalg.norm(x.toarray() - dense) <= 1e-6 * np.linalg.norm(dense)


def test_bad_input(rng):
    t, _ = made(rng)
    with pytest.raises(NonFiniteError, match="NaN"):
        _rhosvd.from_canonical(t * np.nan, tol=0.1)
    with pytest.raises(ValueError, match="not both"):
        _rhosvd.from_canonical(t, tol=0.1, ranks=2)
    with pytest.raises(ValueError, match="tol"):
        _rhosvd.from_canonical(t, tol=2.0)
    with pytest.raises(ValueError, match="method"):
        _rhosvd.from_canonical(t, tol=0.1, method="als")
    jax = pytest.importorskip("jax")
    j = CanonicalTensor(*jax.tree_util.tree_map(jax.numpy.asarray, (t.weights, t.factors)))
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda s: _rhosvd.from_canonical(s, tol=0.1).core)(j)
