"""Records of primitives and public functions: they drive dispatch, tests, docs and `explain`."""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from linalgk import _xp
from linalgk._config import current


def _plain(x: Any) -> Any:
    """Records as dictionaries, functions by name; what only the program can use is left out."""
    if dataclasses.is_dataclass(x):
        fields = [f.name for f in dataclasses.fields(x) if f.name not in ("when", "sample")]
        values = {name: getattr(x, name) for name in fields if name != "explain"}
        return {k: v is not None if k == "plan" else _plain(v) for k, v in values.items()}
    if isinstance(x, tuple):
        return [_plain(item) for item in x]
    return f"{x.__module__}.{x.__name__}" if callable(x) else x


class _Record:
    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dict(_plain(self))


@dataclasses.dataclass(frozen=True)
class Implementation(_Record):
    """One kernel of an op: where it lives, for which dtypes, and when it applies."""

    backend: str
    dtypes: tuple[str, ...]
    module: str
    symbol: str
    when: Callable[..., bool] | None = dataclasses.field(default=None, repr=False)
    rule: str = "always"

    @functools.cache  # noqa: B019 - records live as long as the program
    def load(self, symbol: str = "") -> Callable[..., Any]:
        """Import the kernel, or what its module has beside it."""
        module = importlib.import_module(self.module)
        function: Callable[..., Any] = getattr(module, symbol or self.symbol)
        return function


# For ops whose choice depends on type, dtype and policy alone.
_settled: dict[Any, Callable[..., Any]] = {}


@dataclasses.dataclass(frozen=True)
class Op(_Record):
    """A primitive: one reference definition in array-API words, and its kernels."""

    name: str
    room: str
    reference: Callable[..., Any] = dataclasses.field(repr=False)
    implementations: tuple[Implementation, ...]
    # (dtype) -> arguments of a small call
    sample: Callable[[str], tuple[Any, ...]] = dataclasses.field(repr=False)

    def choose(self, *args: Any) -> tuple[Implementation | None, str]:
        """The kernel for these arguments, or None for the reference, and why."""
        policy = current().backend
        if policy == "reference":
            return None, "config_context(backend='reference')"
        x = args[0]
        backend = "cpu" if isinstance(x, np.ndarray) else "cuda" if _xp.is_cuda(x) else ""
        kernels = [i for i in self.implementations if i.backend == backend]
        if not kernels:
            where = "CUDA kernel" if backend == "cuda" else "kernel"
            why = f"no {where} for arrays of type {type(x).__name__}"
        else:
            dtype = _xp.dtype_name(x)
            why = f"no kernel for {dtype}"
            for candidate in kernels:
                if dtype not in candidate.dtypes:
                    continue
                if candidate.when is None or candidate.when(*args):
                    return candidate, f"{candidate.module}.{candidate.symbol}<{dtype}>"
                why = f"kernel needs {candidate.rule}"
        if policy == "kernel":
            msg = f"op {self.name}: {why}; config_context(backend='kernel') allows no reference"
            raise TypeError(msg)
        return None, why

    def __call__(self, *args: Any) -> Any:
        """Run the chosen implementation."""
        x = args[0]
        # NumPy and scalar types are singletons, so that the key costs no hashing of contents
        key = (self.name, type(x), x.dtype, current().backend)
        run = _settled.get(key)
        if run is None:
            chosen, _ = self.choose(*args)
            run = self.reference if chosen is None else chosen.load()
            backend = None if chosen is None else chosen.backend
            if all(i.when is None for i in self.implementations if backend in (None, i.backend)):
                _settled[key] = run
        return run(*args)


@dataclasses.dataclass(frozen=True)
class Function(_Record):
    """A public function: what tests, benchmarks and docs need to know about it."""

    name: str
    function: Callable[..., Any] = dataclasses.field(repr=False)
    room: str
    methods: tuple[str, ...]
    ops: tuple[Op, ...]
    accepts: tuple[str, ...]
    gradient: bool
    jit: bool
    rng: bool
    status: str
    since: str
    # sample(size, *, xp, rng) -> args, kwargs
    sample: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]] = dataclasses.field(repr=False)
    explain: Callable[..., "Explanation"] = dataclasses.field(repr=False)
    # plan(like_array, ..., **options) -> worker, explanation, an array like the result
    plan: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class Explanation(_Record):
    """What a call would run, why, and what it would cost."""

    function: str
    method: str
    reason: str
    implementations: dict[str, str]
    flops: float
    bytes: float

    def __str__(self) -> str:
        """Three lines or so."""
        runs = "".join(f"\n  {op}: {what}" for op, what in self.implementations.items())
        cost = f"\n  about {self.flops:.3g} flops, {self.bytes:.3g} bytes at least"
        return f"{self.function}: method {self.method!r} because {self.reason}{runs}{cost}"


_ROOMS = ("matfun", "sketch", "randomized", "kronecker", "tensor")


def _records(kind: type[Any]) -> list[Any]:
    rooms = [importlib.import_module(f"linalgk.{room}") for room in _ROOMS]
    records = [r for room in rooms for r in room.RECORDS if isinstance(r, kind)]
    return sorted(records, key=lambda r: str(r.name))


def functions() -> list[Function]:
    """Every public function as a frozen record, by name.

    Examples
    --------
    >>> import linalgk as lk
    >>> "sqrtm" in [f.name for f in lk.functions()]
    True
    """
    return _records(Function)


def ops() -> list[Op]:
    """Every primitive as a frozen record, by name.

    Examples
    --------
    >>> import linalgk as lk
    >>> "eigh" in [op.name for op in lk.ops()]
    True
    """
    return _records(Op)


def explain(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """Tell which method and implementation a call would run, why, and its cost.

    Parameters
    ----------
    func : callable
        A public function of linalgk.
    *args, **kwargs
        What it would be called with; for arrays `ArraySpec` will do. Nothing is computed.

    Returns
    -------
    explanation : Explanation
        With ``method, reason, implementations, flops, bytes`` and ``to_dict()``.

    Examples
    --------
    >>> import numpy as np, linalgk as lk
    >>> lk.explain(lk.sqrtm, np.eye(200) + 1).method
    'eigh'
    """
    for record in functions():
        if record.function is func:
            inspect.signature(func).bind(*args, **kwargs)
            return record.explain(*map(_specimen, args), **kwargs)
    msg = f"func: must be a public function of linalgk, got {func!r}"
    raise TypeError(msg)


def _specimen(x: Any) -> Any:
    """Without values for a spec, also in a list."""
    many = isinstance(x, list)
    return [*map(_specimen, x)] if many else x.empty() if hasattr(x, "xp") else x


def warm_tasks() -> list[tuple[str, Callable[[], None]]]:
    """Label and job for every kernel and dtype, to compile and cache ahead of time."""
    return [
        (f"{op.room}.{op.name} {dtype}", functools.partial(_warm, op, chosen, dtype))
        for op in ops()
        for chosen in op.implementations
        if chosen.backend == "cpu"
        for dtype in chosen.dtypes
    ]


def _warm(op: Op, chosen: Implementation, dtype: str) -> None:
    chosen.load()(*op.sample(dtype))
