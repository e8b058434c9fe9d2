"""To be written."""

from typing import Any


class Extremum(tuple[Any, ...]):
    """To be written."""
