"""Every function of the room with arrays of a device: the answers of NumPy, and where they live."""

import numpy as np
import pytest
import scipy.sparse

import linalgk as lk

RECORDS = {f.name: f for f in lk.functions() if f.room == "randomized"}
EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "complex64": 1.2e-7, "complex128": 2.3e-16}
SQUARE = ("rpcholesky", "eigh_lowrank")


def cases():
    """Each record by each of its methods."""
    words = {"pinv_cr": "formula", "StreamingSVD": "sketch", "sketch_project": "sketch"}
    for name, record in RECORDS.items():
        for method in record.methods:
            options = {words.get(name, "method"): method}
            if name == "estimate_quad_form":
                options = {}
            yield pytest.param(name, options, id=f"{name}-{method}")


def called(name, args, options):
    """A call, or what is as good as one."""
    if name != "StreamingSVD":
        return getattr(lk, name)(*args, **options)
    (a, rank), options = args, dict(options)
    stream = lk.StreamingSVD(a.shape[0], a.shape[1], rank, **options)
    half = a.shape[0] // 2
    return stream.update(a[:half, :], offset=0).update(a[half:, :], offset=half).result()


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
    """Singular values that fall by a rate, of a definite one by a step."""
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
    gen, rng = np.random.default_rng(6), {"rng": 3}
    if name in ("lstsq", "sketch_project"):
        m, n = (900, 8) if name == "lstsq" else (120, 6)
        m, n = (60, 900) if method == "minimum_norm" else (m, n)
        a = matrix(m, n, dtype, 0.9)
        x = gen.standard_normal((n, 2)).astype(dtype)
        return (a, a @ x), rng
    if name == "svd_lowrank":
        return (matrix(300, 200, dtype), 5), rng
    if name == "StreamingSVD":
        return (matrix(300, 200, dtype), 5), rng
    if name in ("interp_decomp", "cur"):
        return (matrix(900, 60, dtype), 4), rng
    if name in ("cholqr", "qr_pivoted"):
        return (matrix(400, 8, dtype, 0.9),), {} if name == "cholqr" and method != "sketched" else rng
    if name in ("rpcholesky", "eigh_lowrank"):
        f = matrix(200, 40, dtype, 0.8)
        options = {"assume_a": "pos"} if (name, method) == ("eigh_lowrank", "nystrom") else {}
        return (f @ f.conj().T, 5), rng | options
    if name == "pinv":
        if method in ("hermitian", "newton"):
            return (np.stack([matrix(40, 40, dtype, definite=True)] * 2),), {}
        f = matrix(90, 6, dtype, 0.9) @ matrix(6, 60, dtype, 0.9)
        return (f,), {"rank": 6, **rng} if method == "randomized" else {"rank": 6}
    if name == "pinv_cr":
        return (matrix(90, 5, dtype, 0.9), matrix(5, 60, dtype, 0.9)), rng if method == "randomized" else {}
    a = matrix(100, 100, dtype, definite=True)
    if name == "estimate_quad_form":
        if method == "lanczos":
            return (a, "inv", gen.standard_normal((100, 2)).astype(dtype)), {}
        return (a, "exp"), {"tol": 0.1, **rng}
    return (a, *(() if name == "estimate_logdet" else (20,))), {"assume_a": "pos", **rng} if method == "xnystrace" else rng


def shown(name, args, found):
    """What does not depend on signs and bases, as functions of NumPy arrays."""
    if name == "svd_lowrank" or name == "StreamingSVD":
        u, s, vh = found
        return {"product": (u * s[..., None, :]) @ vh, "s": s}
    if name == "eigh_lowrank":
        w, v = found
        return {"product": (v * w[..., None, :]) @ v.conj().swapaxes(-1, -2), "w": w}
    if name == "rpcholesky":
        f, pivots = found
        return {"product": f @ f.conj().swapaxes(-1, -2), "pivots": pivots}
    if name == "interp_decomp":
        return {"idx": found[0], "proj": found[1]}
    if name == "cur":
        return {str(i): x for i, x in enumerate(found)}
    if name == "cholqr":
        return {"Q": found[0], "R": found[1]}
    if name == "qr_pivoted":
        q, r, perm = found
        return {"product": q @ r, "perm": perm}
    raise AssertionError(name)
