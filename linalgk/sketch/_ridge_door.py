"""What ridge is called with: ridges, right-hand sides, and the sketches of an ensemble."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from linalgk import _validate, _xp
from linalgk._members import Given
from linalgk.sketch._operators import Sketch
from linalgk.sketch._philox import Key, Philox
from linalgk.sketch._ridge_law import FAMILIES

# The stream from which the keys of the members are drawn.
_STREAM = 6


def ridges_of(alphas: Any) -> Any:
    values = alphas if isinstance(alphas, int | float) else _xp.as_array("alphas", alphas)
    host = np.asarray(_xp.to_numpy(values) if _xp.face(values) else values)
    if host.dtype.kind not in "iuf" or host.ndim > 1:
        msg = f"alphas: must be real numbers, shape (L,), got {host.dtype} of shape {host.shape}"
        raise TypeError(msg) if host.ndim < 2 else ValueError(msg)
    host = np.atleast_1d(host).astype(np.float64)
    if not len(host):
        msg = "alphas: must hold at least one ridge, got none"
        raise ValueError(msg)
    if not np.isfinite(host).all():
        msg = f"alphas: must be finite, got {host[~np.isfinite(host)][0]}"
        raise ValueError(msg)
    return host


def target_of(given: Given, b: Any) -> tuple[Any, bool]:
    """The right-hand sides as (B, m, c), and whether they are vectors."""
    b = _xp.as_array("b", b)
    if not given.sparse:
        _xp.same_family(a=given.original, b=b)
    face = _xp.face(b)
    assert face is not None
    x = _validate.floating("b", face.enter(b))
    m, lead = given.shape[0], len(given.batch)
    vector = x.ndim == lead + 1
    wanted = tuple(x.shape[: lead + 1]) == (*given.batch, m) and x.ndim in (lead + 1, lead + 2)
    if not wanted:
        shape = ", ".join(map(str, (*given.batch, m)))
        msg = f"b: must have shape ({shape}) or ({shape}, c), got {tuple(b.shape)}"
        raise ValueError(msg)
    xp = _xp.namespace(x)
    return xp.reshape(x, (math.prod(given.batch), m, 1 if vector else x.shape[-1])), vector


class Ensemble:
    """The sketches: how many, and how each is made."""

    def __init__(self, make: Any, k: int, count: int, n: int, rng: Any) -> None:
        self.make, self.k, self.count, self.n = make, k, count, n
        source = Philox(rng)
        self.seed = source.key
        words = source.spawn(_STREAM).words(2 * count)
        self.keys = [Key(int(words[2 * i]), int(words[2 * i + 1])) for i in range(count)]

    def __iter__(self) -> Iterator[Any]:
        for key in self.keys:
            s = self.make(self.k, self.n, rng=key)
            shape = getattr(s, "shape", None)
            if shape is None or len(shape) != 2 or shape[1] != self.n:
                msg = f"sketch: must make operators of shape (k, {self.n}), got {shape}"
                raise ValueError(msg)
            yield s


def ensemble_of(sketch: Any, k: Any, n_sketches: Any, n: int, rng: Any) -> Ensemble | None:
    if sketch is None:
        if k is not None:
            msg = "k: is the size of a sketch; name one, as in sketch='SRCT'"
            raise ValueError(msg)
        return None
    if isinstance(sketch, Sketch) or not (isinstance(sketch, str) or callable(sketch)):
        msg = (
            f"sketch: must be a name, a class or a function of (k, n, rng=), got "
            f"{type(sketch).__name__}; an ensemble needs several operators"
        )
        raise TypeError(msg)
    if isinstance(sketch, str):
        sketch = FAMILIES[_validate.choice("sketch", sketch, FAMILIES)]
    if k is None:
        msg = "k: the number of rows of the sketch must be given, at most the columns of a"
        raise ValueError(msg)
    k, count = _validate.integer("k", k, 1), _validate.integer("n_sketches", n_sketches, 1)
    if k > n:
        msg = f"k: must be at most the {n} columns of a, got {k}"
        raise ValueError(msg)
    return Ensemble(sketch, k, count, n, rng)
