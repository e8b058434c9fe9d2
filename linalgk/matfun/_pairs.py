"""Several arrays that come back together: tuples with names and an `Info`."""

import operator
from typing import Any, Self

from linalgk._results import Info


class Arrays(tuple[Any, ...]):
    """A tuple of arrays with the attribute ``info``; it can be pickled and copied."""

    info: Info

    def __new__(cls, arrays: Any, info: Any) -> Self:
        self = super().__new__(cls, arrays)
        self.info = info
        return self

    _fields: tuple[str, ...] = ()

    def __repr__(self) -> str:
        named = zip(self._fields, self, strict=False)
        return f"{type(self).__name__}({', '.join(f'{name}={x!r}' for name, x in named)})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return tuple(self), self.info


class Polar(Arrays):
    """Polar factors, a pair ``U, H`` with the attributes ``U``, ``H`` and ``info``."""

    _fields = ("U", "H")
    U = property(operator.itemgetter(0), doc="The unitary factor.")
    H = property(operator.itemgetter(1), doc="The Hermitian factor.")


class Derivative(Arrays):
    """A value and derivatives beside it: ``value, derivative`` with the attribute ``info``."""

    _fields = ("value", "derivative")
    value = property(operator.itemgetter(0), doc="The function's value.")
    derivative = property(operator.itemgetter(1), doc="The tangent, or the first cotangent.")
