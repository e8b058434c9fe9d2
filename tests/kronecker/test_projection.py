"""Projections kept under low-rank updates: against QR of B, formed, after every update."""

import copy
import pickle

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from spectra import EPS, adjoint, conditioned, gaussian

from linalgk.errors import (
    AsymmetricError,
    NonFiniteError,
    NotPositiveSemidefiniteError,
    SingularMatrixError,
)
from linalgk.kronecker import _projection, _projection_steps
from linalgk.kronecker._projection import KronProjection, explain_projection


def formed(a, w, form):
    """B, by the Kronecker product."""
    a, w = (x.astype(np.result_type(x, "float64")) for x in (a, w))
    if form == "root":
        values, vectors = np.linalg.eigh(w)
        root = (vectors * np.sqrt(values)) @ adjoint(vectors)
        return a @ np.kron(root, root)
    return a @ np.kron(w, np.eye(a.shape[1] // len(w)))


def exact(b):
    """The projection, and the condition number of B."""
    q = np.linalg.qr(adjoint(b))[0]
    return q @ adjoint(q), np.linalg.cond(b)


def weight(n1, k1, form, dtype="float64", seed=0):
    x = gaussian((n1, k1), dtype, seed)
    return (x @ adjoint(x) + np.eye(n1)).astype(dtype) if form == "root" else x


def start(form, dtype="float64", m=20):
    n1, k1, n2 = (6, 7, 5) if form == "left" else (6, 6, 6)
    return gaussian((m, n1 * n2), dtype), weight(n1, k1, form, dtype, 1)


def updates(form, shape, dtype="float64", count=6, rank=1):
    for i in range(count):
        u = gaussian((shape[0], rank), dtype, 10 + i)
        yield u, (u if form == "root" else gaussian((shape[1], rank), dtype, 50 + i))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("every", [None, 1, 4, 1000])
@pytest.mark.parametrize("form", ["left", "root"])
def test_updates_and_products(form, every, rank, dtype):
    """As accurate as a projection made anew: c eps cond(B), after any number of updates."""
    a, w = start(form, dtype)
    p = KronProjection(a, w, form=form, refresh_every=every)
    for i, (u, v) in enumerate(updates(form, w.shape, dtype, rank=rank)):
        assert p.update(*((u,) if form == "root" and i % 2 else (u, v))) is p
        w = w + u @ adjoint(v)
        h = gaussian((p.shape[0], 3), dtype, i)
        target, kappa = exact(formed(a, w, form))
        found = p @ h
        assert found.dtype == np.dtype(dtype)
        error = np.linalg.norm(found - target @ h) / np.linalg.norm(h)
        assert error <= 20 * EPS[dtype] * kappa
    assert np.abs(p.w - w).max() <= 20 * EPS[dtype] * np.abs(w).max()
    # corrections are used, and given up, when they are said to be
    if every is None:
        # at most half as many columns as there are rows
        assert p.refreshes == (6 if rank == 2 else 6 if form == "root" else 3)
    if every == 1000 and EPS[dtype] < 1e-10:
        assert (p.refreshes, p.pending) == (1, 5 * rank)
    if every == 1:
        assert (p.refreshes, p.pending) == (6, 0)
    if every == 4 and EPS[dtype] < 1e-10:
        # factored for the first product, and with the fourth update since
        assert (p.refreshes, p.pending) == (2, rank)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 3), rows=st.floats(0, 1), seed=st.integers(0, 99),
    dtype=st.sampled_from(["float64", "complex128"]), form=st.sampled_from(["left", "root"]),
    columns=st.integers(0, 3), rank=st.integers(0, 3), order=st.sampled_from("CF"),
)  # fmt: skip
def test_laws_of_projections(sizes, rows, seed, dtype, form, columns, rank, order):
    """P^2 = P = P^H, trace m, and B (1 - P) = 0, for every shape."""
    n1, k1, n2 = sizes if form == "left" else (sizes[0],) * 3
    k1 = max(n1, k1)
    m = 1 + int(rows * (n1 * n2 - 1))
    a = np.asarray(gaussian((m, n1 * n2), dtype, seed), order=order)
    a.flags.writeable = False
    w = weight(n1, k1, form, dtype, seed + 1)
    p = KronProjection(a, w, form=form, refresh_every=1000)
    for k, v in enumerate((None, 0.5)):
        u = gaussian((n1, rank), dtype, seed + k)
        change = u if form == "root" else gaussian((k1, rank), dtype, seed + 5)
        p.update(u, change * (v or 1.0))
        w = w + u @ adjoint(change * (v or 1.0))
        b = formed(a, w, form)
        kappa = np.linalg.cond(b)
        tol = 100 * EPS[dtype] * kappa * np.sqrt(b.shape[1])
        whole = p.toarray()
        assert np.linalg.norm(whole @ whole - whole) <= tol
        assert np.linalg.norm(whole - adjoint(whole)) <= tol
        assert abs(np.trace(whole) - m) <= tol
        assert np.linalg.norm(b @ whole - b) <= tol * np.linalg.norm(b)
    h = np.asarray(gaussian((b.shape[1], columns), dtype), order=order)
    assert np.linalg.norm(p @ h - whole @ h) <= tol * (1 + np.linalg.norm(h))
    assert np.linalg.norm(h.T @ p - h.T @ whole) <= tol * (1 + np.linalg.norm(h))
    if columns:
        assert (p @ h[:, 0]).shape == (b.shape[1],)


@pytest.mark.parametrize("kappa", [1e2, 1e5, 1e8, 1e11, 1e13])
def test_ill_conditioned_rows(kappa):
    """c eps cond(B) up to 1/eps: Cholesky, then QR; corrections are given up where they fail."""
    a, w = conditioned(20, 30, kappa), weight(6, 7, "left")
    p = KronProjection(a, w, refresh_every=1000)
    for i, (u, v) in enumerate(updates("left", w.shape, count=4)):
        p.update(u, v)
        w = w + u @ v.T
        h = gaussian((35, 2), seed=i)
        target, cond = exact(formed(a, w, "left"))
        assert np.linalg.norm(p @ h - target @ h) <= 20 * EPS["float64"] * cond * np.linalg.norm(h)
    assert p._normal.method == ("cholesky" if kappa < 1e6 else "qr")
    if kappa < 1e9:
        assert p.refreshes == 1


def test_the_measured_error_brings_a_new_factorization():
    a, w = start("left")
    h = gaussian(35)
    for tol, renewed in ((None, 1), (1e-16, 4)):
        p = KronProjection(a, w, refresh_every=1000, tol=tol)
        p @ h
        for u, v in updates("left", w.shape, count=3):
            p.update(u, v) @ h
        assert p.refreshes == renewed
    # a large detour: the corrections carry numbers of size 1e12 whose sum is of size 1
    u = gaussian((6, 7), seed=3).T
    for tol in (None, 1.0):
        p = KronProjection(a, w, refresh_every=1000, tol=tol)
        p @ h
        p.update(1e12 * np.eye(6), u) @ h
        p.update(-1e12 * np.eye(6), u)
        target, kappa = exact(formed(a, p.w, "left"))
        assert np.linalg.norm(p @ h - target @ h) <= 20 * EPS["float64"] * kappa * 6
        assert p.refreshes > 1
        assert p.drift < 1e-13


def test_corrections_alone_are_less_accurate_than_refined_ones():
    """That refinement does something: without it the error is that of `drift`."""
    a, w = start("left")
    p = KronProjection(a, w, refresh_every=1000)
    h = gaussian(35)
    p @ h
    p.update(1e3 * gaussian(6), gaussian(7))
    target, _ = exact(formed(a, p.w, "left"))
    refined = np.linalg.norm(p @ h - target @ h)
    once = p._back(p._normal.solve(p._wide(h[:, None])))[:, 0]
    assert np.linalg.norm(once - target @ h) > 3 * refined


def test_dependent_rows_are_an_error():
    a, w = start("left")
    a[7] = a[3] + 2 * a[5]
    with pytest.raises(SingularMatrixError, match="rows of B are dependent"):
        KronProjection(a, w) @ gaussian(35)
    a, w = start("root", m=25)
    w0 = np.diag([1.0, 1, 1, 1, 1, 0])
    with pytest.raises(NotPositiveSemidefiniteError, match="from 0 to 1"):
        KronProjection(a, w0, form="root") @ gaussian(36)
    p = KronProjection(a, np.eye(6), form="root")
    e = np.eye(6)[0]
    with pytest.raises(NotPositiveSemidefiniteError, match="from -1"):
        p.update(e, -2 * e) @ gaussian(36)
    # the state is as it was asked to be, and can be mended
    assert p.w[0, 0] == -1
    target, _ = exact(formed(a, np.eye(6), "root"))
    assert np.abs(p.update(e, 2 * e).toarray() - target).max() < 1e-13
    # a W that loses rank takes the rows of B with it
    p = KronProjection(gaussian((30, 30)), np.eye(6))
    with pytest.raises(SingularMatrixError):
        p.update(e, -e) @ gaussian(30)


def test_every_library(xp):
    for form, dtype in (("left", "float64"), ("root", "complex128"), ("left", "float32")):
        a, w = start(form, dtype)
        p = KronProjection(xp.asarray(a), xp.asarray(w), form=form, refresh_every=1000)
        h = gaussian((p.shape[0], 2), dtype, 3)
        for u, v in updates(form, w.shape, dtype, count=2):
            p.update(xp.asarray(u), xp.asarray(v))
            w = w + u @ adjoint(v)
            found = p @ xp.asarray(h)
            target, kappa = exact(formed(a, w, form))
            assert type(found) is type(p.w) is type(xp.asarray(h))
            assert str(found.dtype).endswith(dtype)
            error = np.linalg.norm(np.asarray(found) - target @ h) / np.linalg.norm(h)
            assert error <= 20 * EPS[dtype] * kappa
        back = p.__rmatmul__(xp.asarray(h.T.copy()))
        assert np.abs(np.asarray(back) - h.T @ target).max() <= 100 * EPS[dtype] * kappa
    other = np.ones(6) if xp is not np else pytest.importorskip("torch").ones(6)
    with pytest.raises(TypeError, match="share one library"):
        p.update(other, np.ones(7))


def test_state():
    a, w = start("left")
    p = KronProjection(a, w, refresh_every=1000)
    h = gaussian(35)
    p @ h
    p.update(gaussian(6), gaussian(7))
    found = p @ h
    for other in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        assert (other @ h == found).all()
        other.update(gaussian(6, seed=4), gaussian(7, seed=4))
        assert (p @ h == found).all()
    other = KronProjection(a, 0 * w + 1)
    other.load_state_dict(p.state_dict())
    assert np.abs(other @ h - found).max() < 1e-13
    with pytest.raises(ValueError, match="must have shape"):
        other.load_state_dict({"w": np.eye(3)})
    # the caller's W is not written to, and what comes out is a copy
    before = w.copy()
    p.update(gaussian(6), gaussian(7))
    p.w[:] = 0
    assert (w == before).all()
    assert np.abs(p.w).max() > 0
    assert p.refresh().refreshes == 2
    assert p.H is p
    assert repr(p) == "KronProjection(35 -> 20, form='left', pending=0, dtype=float64)"
    host = p.to_scipy()
    assert np.abs(host @ h - p @ h).max() < 1e-14
    assert np.abs(scipy.linalg.norm(host @ (host @ h) - host @ h)) < 1e-13
    assert (KronProjection(np.zeros((0, 30)), w) @ h == 0).all()
    assert (p.shape, p.dtype, p.ndim) == ((35, 35), "float64", 2)
    assert (p.matvec(h) == p @ h).all()
    with pytest.raises(TypeError):
        p @ "h"
    with pytest.raises(TypeError):
        "h" @ p


def test_integers_and_mixed_dtypes():
    a = np.arange(12).reshape(2, 6) ** 2
    p = KronProjection(a, np.eye(3, dtype=int))
    target, _ = exact(a.astype(float))
    assert np.abs(p.toarray() - target).max() < 1e-12
    assert (p @ np.arange(6)).dtype == "float64"
    assert (KronProjection(a, np.eye(3, dtype="complex64")) @ np.ones(6)).dtype == "complex128"


@pytest.mark.parametrize(
    ("a", "w", "options", "error", "words"),
    [
        ((4, 12), (5, 5), {}, ValueError, "multiple of n1 = 5"),
        ((4, 12, 1), (3, 3), {}, ValueError, "must have shapes"),
        ((13, 12), (3, 3), {}, ValueError, r"13 rows of B with 3\*4 = 12"),
        ((4, 12), (3, 3), {"form": "root"}, ValueError, r"n\*n columns"),
        ((4, 12), (3, 3), {"form": "both"}, ValueError, "one of"),
        ((4, 12), (3, 3), {"refresh_every": 0}, ValueError, "at least 1"),
        ((4, 12), (3, 3), {"tol": 2.0}, ValueError, "tol <= 1"),
    ],
)
def test_wrong_arguments(a, w, options, error, words):
    with pytest.raises(error, match=words):
        KronProjection(np.ones(a), np.ones(w), **options)


def test_wrong_values():
    a, w = start("root")
    with pytest.raises(AsymmetricError, match="differs from w"):
        KronProjection(a, gaussian((6, 6)), form="root")
    p = KronProjection(a, w, form="root")
    with pytest.raises(AsymmetricError, match="must be Hermitian for form='root'"):
        p.update(gaussian(6), gaussian(6, seed=1))
    with pytest.raises(NonFiniteError, match="u: holds NaN"):
        p.update(np.full(6, np.nan))
    with pytest.raises(ValueError, match=r"v: must have the 2 columns of u, got 1"):
        p.update(np.ones((6, 2)), np.ones(6))
    with pytest.raises(ValueError, match=r"u: must have shape \(6,\) or \(6, r\), got \(5,\)"):
        p.update(np.ones(5))
    with pytest.raises(ValueError, match=r"needs 6\*6 = 36 rows, got shape \(35,\)"):
        p @ np.ones(35)
    with pytest.raises(NonFiniteError, match="h: holds NaN"):
        p @ np.full(36, np.inf)
    with pytest.raises(TypeError, match="the projection is real"):
        p @ np.full(36, 1j)
    with pytest.raises(NonFiniteError, match="a: holds NaN"):
        KronProjection(a * np.nan, w)
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="bfloat16 is too coarse"):
        KronProjection(*(torch.ones(2, 2, dtype=torch.bfloat16) for _ in range(2)))
    with pytest.raises(TypeError, match="requires grad"):
        KronProjection(torch.ones(2, 4, requires_grad=True), torch.eye(2))


def test_an_update_costs_less_than_a_factorization(monkeypatch):
    """Updates are written down; a product makes columns for what is new, and no new factor."""
    made = []
    whole = _projection_steps.Normal._based

    def counted(self, g):
        made.append(g.shape[1])
        return whole(self, g)

    (a, w), _ = _projection.sample("medium", rng=0)
    p = KronProjection(a, w, refresh_every=1000)
    p @ gaussian(400)
    monkeypatch.setattr(_projection_steps.Normal, "_based", counted)
    for i in range(3):
        p.update(gaussian(20, seed=i), gaussian(20, seed=9 + i) / 20)
    assert made == []
    p @ gaussian(400)
    assert made[:6] == [20] * 6
    assert set(made[6:]) == {1}
    p.update(gaussian(20, seed=5), gaussian(20, seed=6) / 20)
    made.clear()
    p @ gaussian(400)
    assert made[:2] == [20] * 2
    assert (p.refreshes, p.pending) == (1, 4)


def test_explanations():
    for size in ("small", "medium"):
        args, kwargs = _projection.sample(size, rng=0)
        told = explain_projection(*args, **kwargs)
        assert told.flops > 0
        assert KronProjection(*args, **kwargs).toarray().shape[0] == args[0].shape[1]
