"""The two CC0 photographs of the tour (source and licence: ``README.md`` beside this file)."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PHOTOGRAPHS", "photograph"]

PHOTOGRAPHS = ("camera", "brick")


def photograph(name: str, /) -> NDArray[np.uint8]:
    """Load one of the photographs that ship with linalgk.

    Parameters
    ----------
    name : str
        ``"camera"`` or ``"brick"``.

    Returns
    -------
    NDArray, shape (512, 512), uint8
        Gray levels, a fresh array on every call.

    Examples
    --------
    >>> from linalgk.data import photograph
    >>> photograph("camera").shape
    (512, 512)
    """
    if name not in PHOTOGRAPHS:
        msg = f"name must be one of {', '.join(PHOTOGRAPHS)}; got {name!r}."
        raise ValueError(msg)
    with files(__name__).joinpath(f"{name}.npy").open("rb") as stream:
        image: NDArray[np.uint8] = np.load(stream, allow_pickle=False)
    return image
