"""Exceptions and warnings: what went wrong, in which members, and what is left intact."""

from typing import Any

from numpy.linalg import LinAlgError

__all__ = [
    "AsymmetricError",
    "ConvergenceWarning",
    "DeviceError",
    "MemberError",
    "NoRealRootError",
    "NonFiniteError",
    "NotConvergedError",
    "NotPositiveSemidefiniteError",
    "SingularMatrixError",
]


class MemberError(Exception):
    """A failure of some members of a batch.

    Attributes
    ----------
    index : tuple of tuples of int
        Batch index of each bad member; ``((),)`` for a single matrix.
    result : array or tuple
        What the call would have returned: the other members intact, NaN in the bad ones.
    """

    def __init__(
        self, message: str, index: tuple[tuple[int, ...], ...] = ((),), result: Any = None
    ) -> None:
        super().__init__(message)
        self.index = index
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all three, so that the exception survives a process pool."""
        return type(self), (self.args[0], self.index, self.result)


class NonFiniteError(MemberError, ValueError):
    """An argument holds NaN or infinity."""


class AsymmetricError(MemberError, ValueError):
    """An argument that has to be Hermitian is not."""


class NotPositiveSemidefiniteError(MemberError, LinAlgError):
    """A matrix that has to be positive semidefinite has a negative eigenvalue."""


class SingularMatrixError(MemberError, LinAlgError):
    """An inverse was asked of a matrix that is singular to working precision."""


class NoRealRootError(MemberError, LinAlgError):
    """A real matrix has no real root of the kind asked for."""


class NotConvergedError(MemberError, LinAlgError):
    """An algorithm did not reach its accuracy."""


class ConvergenceWarning(RuntimeWarning):
    """Members failed and ``on_fail="warn"`` asked to be told only."""


class DeviceError(RuntimeError):
    """A device, or the driver that it needs, does not answer."""
