"""Every op x kernel x dtype x layout against its reference: one test body."""

import contextlib

import emulated
import numpy as np
import pytest

import linalgk as lk

CASES = [
    pytest.param(op, chosen, dtype, id=f"{op.name}-{chosen.backend}-{dtype}")
    for op in lk.ops()
    for chosen in op.implementations
    for dtype in chosen.dtypes
]
# Those whose arrays share a batch axis in front.
UNBATCHED = {op.name for op in lk.ops() if op.room == "sketch"} - {"fwht"} | {
    "mttkrp_block",
    "tucker_evaluate",
}
BATCHED = [case for case in CASES if str(case.id).split("-")[0] not in UNBATCHED]
# Products of BLAS are the same but for rounding; everything else of that room to the bit.
ROUNDED = ("dense_apply", "dense_gather")
ON_A_GPU = [case for case in CASES if "-cuda-" in str(case.id)]


def norms(x):
    return np.sqrt((np.abs(x) ** 2).sum(axis=tuple(range(1, x.ndim))))


def outputs(op, result):
    """What must agree: eigenvectors are not unique, so their product is compared."""
    if op.name == "eigh":
        w, v = result
        return [w, (v * w[:, None, :]) @ np.conj(np.swapaxes(v, -1, -2))]
    if op.name == "small_root":
        x, report, bad = result
        # the bounds differ by design: one comes from Cholesky, one from eigenvalues
        return [x, report[:, :1], np.ravel(bad)]
    if op.name in ("polar", "polar_svd"):
        u, h, report = result
        # bounds and steps differ by design: one is an estimate, one a singular value
        return [u, h, report[:, 3]]
    return list(result) if isinstance(result, tuple) else [result]


# Arguments that a primitive may use as its own memory.
OVERWRITTEN = {"symmetrised": (0,), "db_step": (1, 3)}


def running(chosen, mode="fast"):
    """CUDA kernels run in the emulation, with every load and store checked or at full speed."""
    if chosen.backend == "cpu":
        return contextlib.nullcontext()
    return emulated.device(mode=mode)


def copies(args):
    return tuple(
        copies(a) if isinstance(a, tuple) else np.array(a) if isinstance(a, np.ndarray) else a
        for a in args
    )


def flat(args):
    """Arguments with those of a tuple in its place."""
    return [x for a in args for x in (a if isinstance(a, tuple) else (a,))]


@pytest.mark.parametrize(("op", "chosen", "dtype"), CASES)
@pytest.mark.parametrize("layout", ["plain", "read-only"])
def test_kernel_equals_reference(op, chosen, dtype, layout):
    args = copies(op.sample(dtype))
    own = OVERWRITTEN.get(op.name, ())
    if layout == "read-only":
        for k, a in enumerate(flat(args)):
            if isinstance(a, np.ndarray) and k not in own:
                a.flags.writeable = False
    before = copies(args)
    want = outputs(op, op.reference(*copies(args)))
    with running(chosen, "check"):
        result = chosen.load()(*args)
    got = outputs(op, result)
    for k, (a, b) in enumerate(zip(flat(args), flat(before), strict=True)):
        if k not in own:
            np.testing.assert_array_equal(a, b)
    if op.room == "sketch" and op.name not in ROUNDED:
        for x, y in zip(got, want, strict=True):
            np.testing.assert_array_equal(x, y, strict=True)
    # samples are Wishart, n = 6 from 12 vectors: kappa below 1e3 and at most 20 products
    eps = np.finfo(dtype).eps
    for x, y in zip(got, want, strict=True):
        x, y = np.asarray(x, complex), np.asarray(y, complex)
        assert x.shape == y.shape
        if x.ndim:
            assert (norms(x - y) <= 1e3 * eps * np.maximum(norms(y), 1)).all()
    for x in result if isinstance(result, tuple) else ():
        if isinstance(x, np.ndarray) and x.ndim == 3:
            assert x.dtype == np.dtype(dtype)


@pytest.mark.gpu
@pytest.mark.parametrize(("op", "chosen", "dtype"), ON_A_GPU)
def test_cuda_kernel_equals_reference_on_a_gpu(op, chosen, dtype):
    cupy = pytest.importorskip("cupy")
    args = op.sample(dtype)
    # tables of coefficients stay on the host: the launch copies them once
    hosts = (4,) if op.name == "small_root" else ()

    def sent(a):
        if isinstance(a, tuple):
            return tuple(map(sent, a))
        return cupy.asarray(a) if isinstance(a, np.ndarray) else a

    there = [a if k in hosts else sent(a) for k, a in enumerate(args)]
    result = chosen.load()(*there)
    result = tuple(map(cupy.asnumpy, result)) if isinstance(result, tuple) else result.get()
    want = outputs(op, op.reference(*copies(args)))
    eps = np.finfo(dtype).eps
    for x, y in zip(outputs(op, result), want, strict=True):
        x, y = np.asarray(x, complex), np.asarray(y, complex)
        assert x.shape == y.shape
        assert (norms(x - y) <= 1e3 * eps * np.maximum(norms(y), 1)).all()


@pytest.mark.parametrize(("op", "chosen", "dtype"), BATCHED)
def test_members_do_not_see_each_other_or_the_threads(op, chosen, dtype):
    """The same bits alone, in a batch and on one thread or three."""
    args = op.sample(dtype)
    batch = args[0].shape[0]
    many = 600 if chosen.backend == "cpu" else 30

    def pick(index):
        return tuple(
            np.ascontiguousarray(a[index])
            if isinstance(a, np.ndarray) and a.shape[:1] == (batch,)
            else a
            for a in args
        )

    with running(chosen):
        run = chosen.load()
        whole = run(*copies(args))
        more = run(*pick(np.arange(many) % batch)[:-1], 3)
        each = [run(*pick(np.array([k]))) for k in range(batch)]
    for k, alone in enumerate(each):
        for x, y, z in zip(as_tuple(whole), as_tuple(alone), as_tuple(more), strict=True):
            if isinstance(x, np.ndarray) and x.shape[0] == batch:
                np.testing.assert_array_equal(x[k], y[0])
                np.testing.assert_array_equal(x[k], z[k])
                np.testing.assert_array_equal(x[k], z[many - batch * 2 + k])


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize(("op", "chosen", "dtype"), BATCHED)
def test_empty_batches(op, chosen, dtype):
    args = op.sample(dtype)
    batch = args[0].shape[0]
    none = tuple(
        a[:0] if isinstance(a, np.ndarray) and a.shape[:1] == (batch,) else a for a in args
    )
    with running(chosen):
        found = as_tuple(chosen.load()(*none))
    for x in found:
        # the count of members in trouble has one entry
        if isinstance(x, np.ndarray) and x.dtype != np.int32:
            assert x.shape[0] == 0


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize(
    "name", ["congruence", "hermitian_square", "congruence_inverse", "gram", "symmetrised"]
)
def test_exactly_hermitian_means_the_diagonal_too(name, dtype):
    op = next(op for op in lk.ops() if op.name == name)
    for chosen in op.implementations:
        with running(chosen):
            x = chosen.load()(*copies(op.sample(dtype)))
        np.testing.assert_array_equal(x, np.conj(np.swapaxes(x, -1, -2)))


def test_every_op_has_a_reference_and_every_kernel_a_sample():
    for op in lk.ops():
        assert callable(op.reference)
        assert op.reference.__doc__
        assert op.sample is not None
