"""Optimizers for PyTorch whose matrix functions are linalgk's: Muon and Shampoo."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    msg = "linalgk.optim needs PyTorch, which is not installed: pip install 'linalgk[torch]'"
    raise ImportError(msg) from error

from linalgk.optim._muon import Muon
from linalgk.optim._shampoo import Shampoo

__all__ = ["Muon", "Shampoo"]
