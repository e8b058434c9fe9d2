"""Every function of the room with arrays of a device: the answers of NumPy, and where they live.

Both sides take the same random numbers, and what is compared does not depend on signs or bases, so
that answers differ by rounding alone: ``1000 eps`` for conditions up to about 50.
"""

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

import linalgk as lk

RECORDS = {f.name: f for f in lk.functions() if f.room == "randomized"}
EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}
ROUNDING = 1000
WORDS = {"pinv_cr": "formula", "StreamingSVD": "sketch", "sketch_project": "sketch"}
# without a method=
PLAIN = ("estimate_quad_form",)
ON_THE_HOST = {("qr_pivoted", "geqp3")}  # whole, as its documentation says


def cases():
    """Each record by each of its methods."""
    return [
        pytest.param(name, method, id=f"{name}-{method}")
        for name, record in RECORDS.items()
        for method in record.methods
    ]


def called(name, args, options):
    """A call, or what is as good as one."""
    if name != "StreamingSVD":
        return getattr(lk, name)(*args, **options)
    a, rank = args
    stream = lk.StreamingSVD(*a.shape, rank, **options)
    half = a.shape[0] // 2
    return stream.update(a[half:, :], offset=half).update(a[:half, :], offset=0).result()


def sampled(name, dtype):
    """Arguments and options of the record's small sample, in NumPy and in this dtype."""
    args, options = RECORDS[name].sample("small", rng=0)
    if name == "StreamingSVD":
        m, n, r = args
        gen = np.random.default_rng(0)
        args = (gen.standard_normal((m, r)) @ gen.standard_normal((r, n)), r)
        options = {"rng": 0}
    if np.dtype(dtype).kind == "c":
        gen = np.random.default_rng(1)

        def turned(x):
            left, right = (np.exp(1j * gen.standard_normal(size)) for size in x.shape[-2:])
            hermitian = x.shape[-1] == x.shape[-2]
            return left[:, None] * x * (left.conj() if hermitian else right)

        if name in ("lstsq", "sketch_project"):
            a = turned(args[0])
            args = (a, a @ np.linalg.lstsq(*args)[0])
        else:
            args = [turned(x) if isinstance(x, np.ndarray) and x.ndim > 1 else x for x in args]
    return [x.astype(dtype) if isinstance(x, np.ndarray) else x for x in args], options


def matrix(m, n, dtype, rate=0.7, *, definite=False):
    """Singular values that fall by a rate; of a definite one they are between 1 and 3."""
    gen = np.random.default_rng(5)

    def basis(rows, k):
        x = gen.standard_normal((rows, k))
        return np.linalg.qr(x + 1j * gen.standard_normal(x.shape) if dtype[0] == "c" else x)[0]

    if definite:
        q = basis(n, n)
        return ((q * np.linspace(1, 3, n)) @ q.conj().T).astype(dtype)
    k = min(m, n)
    return ((basis(m, k) * rate ** np.arange(k)) @ basis(n, k).conj().T).astype(dtype)


def given(name, method, dtype):
    """Arguments and options that make the method do its work."""
    gen, options = np.random.default_rng(6), {"rng": 3}
    if name not in PLAIN:
        options[WORDS.get(name, "method")] = method
    if name in ("lstsq", "sketch_project"):
        m, n = (900, 8) if name == "lstsq" else (120, 6)
        m, n = (60, 900) if method == "minimum_norm" else (m, n)
        a = matrix(m, n, dtype, 0.9)
        return [a, a @ gen.standard_normal((n, 2)).astype(dtype)], options
    if name in ("svd_lowrank", "StreamingSVD"):
        return [matrix(300, 200, dtype), 5], options
    if name in ("interp_decomp", "cur"):
        return [matrix(900, 60, dtype), 4], options
    if name in ("cholqr", "qr_pivoted"):
        return [matrix(400, 8, dtype, 0.9)], options
    if name in ("rpcholesky", "eigh_lowrank"):
        f = matrix(200, 40, dtype, 0.8)
        if (name, method) == ("eigh_lowrank", "nystrom"):
            options["assume_a"] = "pos"
        return [f @ f.conj().T, 5], options
    if name == "pinv" and method in ("hermitian", "newton"):
        return [np.stack([matrix(40, 40, dtype, definite=True)] * 2)], options
    if name == "pinv":
        f = matrix(90, 6, dtype, 0.9) @ matrix(6, 60, dtype, 0.9)
        return [f], {"rank": 6, **options}
    if name == "pinv_cr":
        return [matrix(90, 5, dtype, 0.9), matrix(5, 60, dtype, 0.9)], options
    a = matrix(100, 100, dtype, definite=True)
    if name == "estimate_quad_form":
        if method == "lanczos":
            return [a, "inv", gen.standard_normal((100, 2)).astype(dtype)], options
        return [a, "exp"], {"tol": 0.1, **options}
    if name == "estimate_logdet":
        return [a], {"tol": 0.1, **options}
    return [a, 20], options | ({"assume_a": "pos"} if method == "xnystrace" else {})


def arrays(name, found):
    """The arrays of a result and, where there is one, its error."""
    if name.startswith("estimate"):
        return [found.value, found.std_error]
    parts = [found] if name in ("sketch_project", "pinv", "pinv_cr") else list(found)
    if name == "lstsq":
        return [found.x, found.s, found.info.error_estimate]
    return [*parts, found.info.error_estimate] if hasattr(found, "info") else parts


def shown(name, found):
    """What does not depend on signs and bases, of NumPy arrays."""
    if name in ("svd_lowrank", "StreamingSVD"):
        u, s, vh = found[:3]
        return [(u * s[..., None, :]) @ vh, s]
    if name == "eigh_lowrank":
        w, v = found[:2]
        return [(v * w[..., None, :]) @ v.conj().swapaxes(-1, -2), w]
    if name == "rpcholesky":
        f, pivots = found[:2]
        return [f @ f.conj().swapaxes(-1, -2), pivots]
    if name == "cholqr":
        return [found[0] @ found[1], np.abs(found[1])]
    if name == "qr_pivoted":
        return [found[0] @ found[1], found[2]]
    if name == "lstsq":
        return found[:2]
    if name in ("interp_decomp", "cur"):
        return found[:-1]
    return found


def agree(cuda, name, found, wanted, dtype):
    """That all arrays are on the device, and the numbers are those of NumPy."""
    kind = type(cuda.array(np.zeros(1)))
    parts = arrays(name, found)
    sparse = type(cuda.csr(np.eye(2)))
    assert all(type(x) in (kind, sparse) for x in parts), [type(x) for x in parts]
    host = [x.get().toarray() if type(x) is sparse else cuda.host(x) for x in parts]
    there = [x.toarray() if scipy.sparse.issparse(x) else x for x in arrays(name, wanted)]
    for x, y in zip(shown(name, host), shown(name, there), strict=True):
        assert (x.shape, x.dtype) == (np.shape(y), np.asarray(y).dtype)
        if np.asarray(y).dtype.kind == "i":
            assert np.array_equal(x, y)
        else:
            size = np.abs(y).max(initial=0)
            assert np.abs(x - y).max(initial=0) <= ROUNDING * EPS[dtype] * size


def put(cuda, args):
    return [cuda.array(x) if isinstance(x, np.ndarray) else x for x in args]


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("name", RECORDS)
def test_samples_of_the_records(cuda, name, dtype):
    args, options = sampled(name, dtype)
    assert "cupy" in RECORDS[name].accepts
    agree(cuda, name, called(name, put(cuda, args), options), called(name, args, options), dtype)


@pytest.mark.parametrize(("name", "method"), cases())
def test_methods(cuda, name, method):
    """The matrix does not come to the host: no copy holds half as many numbers."""
    args, options = given(name, method, "float64")
    there = put(cuda, args)
    if cuda.sizes is not None:
        cuda.sizes.clear()
    found = called(name, there, options)
    if cuda.sizes is not None and (name, method) not in ON_THE_HOST:
        assert 2 * max(cuda.sizes, default=0) <= args[0].size
    agree(cuda, name, found, called(name, args, options), "float64")


def refused(name, method, kind):
    """What SciPy's sparse matrices and operators may not be given to."""
    needs = {"csr": "scipy.sparse", "operator": "LinearOperator"}[kind]
    return (
        needs not in RECORDS[name].accepts
        or name == "pinv_cr"
        or (name, method) in (("estimate_logdet", "cholesky"), ("pinv", "hermitian"))
        or (name, method) == ("pinv", "newton")
        or (kind == "operator" and method == "streaming")
    )


@pytest.mark.parametrize("kind", ["csr", "operator"])
@pytest.mark.parametrize(("name", "method"), cases())
def test_sparse_matrices_and_operators_of_a_device(cuda, name, method, kind):
    if refused(name, method, kind):
        return
    dtype = "float64" if kind == "csr" else "complex128"
    args, options = given(name, method, dtype)
    if kind == "operator" and name == "rpcholesky":
        diagonal = args[0].diagonal().real.copy()
        options["diagonal"] = diagonal
    a, *rest = args
    stored = scipy.sparse.csr_matrix(a) if kind == "csr" else aslinearoperator(a)
    if cuda.sizes is not None:
        cuda.sizes.clear()
    found = called(name, [getattr(cuda, kind)(a), *put(cuda, rest)], options)
    if cuda.sizes is not None and (name, method) not in (("pinv", "svd"), ("pinv", "cod")):
        assert 2 * max(cuda.sizes, default=0) <= a.size
    agree(cuda, name, found, called(name, [stored, *rest], options), dtype)


def close(cuda, found, wanted):
    assert type(found) is type(cuda.array(np.zeros(1)))
    assert np.abs(cuda.host(found) - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_what_results_compute(cuda):
    (a, b), _ = given("lstsq", "direct", "float64")
    for method in ("direct", "sketch_solve"):
        ends = [
            lk.lstsq(put(a), put(b), method=method, rng=0).interval(0.9)
            for put in (cuda.array, np.array)
        ]
        close(cuda, ends[0][1], ends[1][1])
    (a, rank), options = given("rpcholesky", "simple", "float64")
    pairs = [lk.rpcholesky(put(a), rank, **options).eigh() for put in (cuda.array, np.array)]
    close(cuda, pairs[0][0], pairs[1][0])
    (a,), options = given("pinv", "randomized", "float64")
    x = [lk.pinv(put(a), as_operator=True, **options) for put in (cuda.array, np.array)]
    y = np.random.default_rng(0).standard_normal((90, 2))
    close(cuda, x[0] @ cuda.array(y), x[1] @ y)
    close(cuda, x[0].H.toarray(), x[1].H.toarray())
    assert np.abs(x[0].to_scipy() @ y - x[1] @ y).max() < 1e-10
    (a, _), _ = given("estimate_trace", "xtrace", "float64")
    low = [lk.estimate_trace(put(a), 20, rng=0).interval()[0] for put in (cuda.array, np.array)]
    close(cuda, low[0], low[1])


def test_streams_of_a_device(cuda):
    (a, rank), _ = given("StreamingSVD", "SparseStack", "float64")
    wanted = lk.StreamingSVD(300, 200, rank, rng=0).update(a, offset=0).result()
    first, second = (lk.StreamingSVD(300, 200, rank, rng=0) for _ in range(2))
    first.update(cuda.array(a[:100]), offset=0)
    second.update(cuda.array(a[100:]), offset=100)
    rows = np.ones((5, 200))
    second.downdate(cuda.array(rows), offset=100)
    where = np.zeros((300, 1))
    where[100:105] = 1
    first.update_low_rank(cuda.array(where), cuda.array(rows[:1].T))
    close(cuda, (first + second).result().S, wanted.S)
    with pytest.raises(TypeError):
        second.update(a[:100], offset=0)


# --- What CuPy does differently -------------------------------------------------------------------


def test_a_cholesky_factor_that_cupy_does_not_finish(cuda):
    """Columns that depend on each other, one eigenvalue below zero: CuPy says nothing of that."""
    a = matrix(400, 8, "float64", 0.01)  # condition 1e14, of the Gram matrix 1e28
    for method in ("sketched", "cholqr2", "shifted"):
        q, r = lk.cholqr(cuda.array(a), method=method, rng=0)
        q, r = cuda.host(q), cuda.host(r)
        assert np.linalg.norm(q.T @ q - np.eye(8)) < 1e-13
        assert np.linalg.norm(q @ r - a) < 1e-14
    q, r, perm = lk.qr_pivoted(cuda.array(a), rng=0)
    assert np.linalg.norm(cuda.host(q) @ cuda.host(r) - a[:, cuda.host(perm)]) < 1e-14

    for indefinite in (a.T @ a - 1e-3 * np.eye(8), np.diag([1.0, -1.0, 1.0])):
        with pytest.raises(np.linalg.LinAlgError) as on_host:
            lk.estimate_logdet(indefinite, method="cholesky")
        with pytest.raises(type(on_host.value)) as there:
            lk.estimate_logdet(cuda.array(indefinite), method="cholesky")
        assert str(there.value) == str(on_host.value)


@pytest.mark.parametrize("method", RECORDS["lstsq"].methods)
def test_right_hand_sides_of_another_dtype(cuda, method):
    """CuPy casts what it solves for to the dtype of the triangle."""
    (a, b), options = given("lstsq", method, "float64")
    for left, right, lost in ((a, b * (1 + 2j), "float64"), (a.astype("float32"), b, "float32")):
        found = lk.lstsq(cuda.array(left), cuda.array(right), **options)
        wanted = lk.lstsq(left, right, **options)
        assert cuda.host(found.x).dtype == wanted.x.dtype
        scale = np.abs(wanted.x).max()
        assert np.abs(cuda.host(found.x) - wanted.x).max() < ROUNDING * EPS[lost] * scale


def test_bad_members(cuda):
    a = np.stack([matrix(40, 12, "float64"), np.full((40, 12), np.nan)])
    found = lk.svd_lowrank(cuda.array(a), 3, rng=0, on_fail="nan")
    good = cuda.host(found.S)
    assert np.isfinite(good[0]).all()
    assert np.isnan(good[1]).all()
    bad = cuda.csr(a[1])
    with pytest.raises(lk.errors.NonFiniteError):
        lk.svd_lowrank(bad, 3, rng=0)
    for name in ("cur", "interp_decomp"):
        found = getattr(lk, name)(bad, 3, rng=0, on_fail="nan")
        assert type(found.info.error_estimate) is type(cuda.array(good))
    x, info = lk.pinv(bad, on_fail="nan", return_info=True)
    assert np.isnan(cuda.host(x)).all()
    assert not cuda.host(info.converged)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECORDS)
def test_tensors_of_a_gpu(name):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    args, options = sampled(name, "float64")
    there = [torch.from_numpy(x).cuda() if isinstance(x, np.ndarray) else x for x in args]
    found, wanted = called(name, there, options), called(name, args, options)
    parts = arrays(name, found)
    assert all(isinstance(x, torch.Tensor) and x.is_cuda for x in parts)
    host = [x.cpu().numpy() for x in parts]
    for x, y in zip(shown(name, host), shown(name, arrays(name, wanted)), strict=True):
        size = np.abs(y).max(initial=0)
        assert np.abs(x - y).max(initial=0) <= ROUNDING * EPS["float64"] * size
