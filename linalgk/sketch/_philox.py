"""Counter-based random numbers: the key, the streams, and the numbers of a stream."""

import importlib
from typing import Any, NamedTuple

import numpy as np

from linalgk import _config, _validate, _xp
from linalgk.sketch import _ops

# Who draws: the low byte of the last counter word. A number, once given, stays (``layout`` 1).
GAUSSIAN, RADEMACHER, STACK, SRHT_SIGNS, SRHT_OUT, SRHT_ROWS, TENSOR, KRON = range(1, 9)
WORDS, NORMALS, UNIFORMS, INTEGERS, SIGNS = range(16, 21)
SAMPLING = 32
LAYOUT = 1


class Key(NamedTuple):
    """The two 32-bit words that stand for a seed."""

    low: int
    high: int


def key_of(rng: Any) -> Key:
    """The key of what `numpy.random.default_rng` takes; a generator is drawn from once."""
    if isinstance(rng, Key):
        return rng
    if isinstance(rng, Philox):
        if rng.stream == 0:
            return rng.key
        # another stream is another seed
        tag = WORDS | rng.stream << 8
        low, high = _ops.philox(0, 0, tag, *rng.key)[:2]
        return Key(int(low), int(high))
    if isinstance(rng, np.random.BitGenerator):
        rng = np.random.Generator(rng)
    words: Any
    if isinstance(rng, np.random.Generator):
        words = rng.integers(0, 1 << 32, 2, dtype=np.uint32)
    elif isinstance(rng, np.random.RandomState):
        words = rng.randint(0, 1 << 32, 2, dtype=np.uint32)
    elif isinstance(rng, np.random.SeedSequence):
        words = rng.generate_state(2, np.uint32)
    else:
        try:
            words = np.random.SeedSequence(rng).generate_state(2, np.uint32)
        except (TypeError, ValueError) as error:
            msg = f"rng: must be None, a non-negative int or a NumPy generator, got {rng!r}"
            raise type(error)(msg) from None
    return Key(int(words[0]), int(words[1]))


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of any library."""
    name = str(dtype).rpartition(".")[2]
    try:
        return np.dtype(name if name in _xp.REAL else dtype).name
    except TypeError:
        return str(dtype)


def example(xp: Any = None, device: Any = None, dtype: Any = None) -> Any:
    """An array of no entries that says library, device and dtype."""
    x = np.empty(0, "float64" if dtype is None else np.dtype(dtype))
    made = _xp.from_numpy(x, xp, device=device)
    return _xp.face(made).enter(made)  # type: ignore[union-attr]


def leave(x: Any, xp: Any, device: Any) -> Any:
    """A result as the library that was asked for has it."""
    if xp is None or xp is np:
        return x
    like = _xp.from_numpy(np.empty(0), xp, device=device)
    return _xp.face(like).leave(x, like)  # type: ignore[union-attr]


def imported(name: str | None) -> Any:
    """The library that a pickle names."""
    return None if name is None else importlib.import_module(name)


def _again(key: Key, stream: int, xp: str | None, device: str) -> "Philox":
    return Philox(key, stream=stream, xp=imported(xp), device=device or None)


class Philox:
    """Random numbers that are a function of where they stand: no state, no order of drawing.

    Philox4x32-10 [1]_ with the key of a seed. A draw never changes the object: the same call gives
    the same numbers, ``start`` moves along the stream, and `spawn` opens another stream. NumPy,
    CuPy, any number of threads and any machine give the same bits; normals included, which are
    computed by IEEE operations only.

    Parameters
    ----------
    rng : int, numpy.random.Generator, SeedSequence or None
        The seed, as `numpy.random.default_rng` takes it; a generator is drawn from once. None
        takes fresh entropy.
    stream : int, optional
        One of 2^24 independent streams of the same seed.
    xp, device : optional
        Library and device of the numbers; NumPy by default.

    Attributes
    ----------
    key : tuple of int
        The two words of the key; ``Philox(p.key)`` is the same generator.

    Notes
    -----
    A call of the generator costs twenty 64-bit products and gives four words or two normals; the
    benchmarks page has the speed.

    References
    ----------
    .. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
       1, 2, 3", SC 2011.

    Examples
    --------
    >>> import linalgk as lk
    >>> p = lk.sketch.Philox(7)
    >>> bool((p.normal(10)[4:] == p.normal(6, start=4)).all())
    True
    >>> p.integers(5, 100).tolist() == lk.sketch.Philox(7).integers(5, 100).tolist()
    True
    """

    def __init__(
        self, rng: Any = None, *, stream: int = 0, xp: Any = None, device: Any = None
    ) -> None:
        self.key = key_of(rng)
        self.stream = _validate.integer("stream", stream, 0)
        if self.stream >= 1 << 24:
            msg = f"stream: must be below 2**24, got {stream}"
            raise ValueError(msg)
        self._xp, self._device = xp, device

    def spawn(self, stream: int, /) -> "Philox":
        """The same seed, another stream."""
        return Philox(self.key, stream=stream, xp=self._xp, device=self._device)

    def words(self, n: int, /, *, start: int = 0) -> Any:
        """Words ``start`` to ``start + n``, shape (n,), uint32."""
        return self._draw(_ops.WORDS, WORDS, n, start)

    def uniform(self, n: int, /, *, start: int = 0) -> Any:
        """Doubles in [0, 1), shape (n,): multiples of 2^-52."""
        return self._draw(_ops.UNIFORMS, UNIFORMS, n, start)

    def normal(self, n: int, /, *, start: int = 0, dtype: Any = None) -> Any:
        """Standard normals, shape (n,), below 8.5 in size; float32 ones are rounded float64."""
        return self._draw(_ops.NORMALS, NORMALS, n, start, dtype)

    def signs(self, n: int, /, *, start: int = 0, dtype: Any = None) -> Any:
        """+1 and -1, shape (n,), floating."""
        return self._draw(_ops.SIGNS, SIGNS, n, start, dtype)

    def integers(self, n: int, high: int, /, *, start: int = 0) -> Any:
        """Integers in [0, high), shape (n,), each exactly equally likely (Lemire's method)."""
        high = _validate.integer("high", high, 1)
        if high > 1 << 63:
            msg = f"high: must be at most 2**63, got {high}"
            raise ValueError(msg)
        return self._draw(_ops.INTEGERS, INTEGERS, n, start, None, high)

    def _draw(
        self, op: Any, family: int, n: int, start: int, dtype: Any = None, *middle: Any
    ) -> Any:
        n, start = _validate.integer("n", n, 0), _validate.integer("start", start, 0)
        if start + n >= 1 << 63:
            msg = f"start: start + n must be below 2**63, got {start} + {n}"
            raise ValueError(msg)
        dtype = None if dtype is None else dtype_name(dtype)
        if dtype not in (None, "float32", "float64"):
            msg = f"dtype: must be float32 or float64, got {dtype}"
            raise TypeError(msg)
        like = example(self._xp, self._device, dtype)
        tag = family | self.stream << 8
        numbers = op(like, n, *middle, *self.key, start, tag, _config.num_threads())
        return leave(numbers, self._xp, self._device)

    def __reduce__(self) -> Any:
        """Numbers and names: a module does not pickle."""
        names = getattr(self._xp, "__name__", None), str(self._device or "")
        return _again, (self.key, self.stream, *names)

    def __eq__(self, other: object) -> bool:
        """Whether the numbers are the same."""
        if not isinstance(other, Philox):
            return NotImplemented
        return (self.key, self.stream) == (other.key, other.stream)

    def __hash__(self) -> int:
        return hash((self.key, self.stream))

    def __repr__(self) -> str:
        """A call that gives the same numbers, but for the words of the key."""
        return f"Philox({tuple(self.key)}, stream={self.stream})"
