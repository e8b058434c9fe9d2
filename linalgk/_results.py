"""What comes back beside an array."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Info:
    """How a result was obtained and how good it is; arrays have the batch shape.

    Attributes
    ----------
    method : str
        Method that ran; ``"minimax+eigh"`` where some members needed the second.
    iterations : array of int
        Steps of an iteration, 0 for a direct method.
    converged : array of bool
        False exactly in the members whose result is NaN.
    residual : array
        The defect that the function's docstring defines.
    error_estimate : array
        Estimate of the relative forward error in the Frobenius norm.
    """

    method: str
    iterations: Any
    converged: Any
    residual: Any
    error_estimate: Any

    def to_dict(self) -> dict[str, Any]:
        """Fields by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
